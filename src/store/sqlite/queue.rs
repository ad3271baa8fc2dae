//! A bounded queue before worker threads, in which each job has a deadline for its answer.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::fault::Failure;
use crate::clock::bounded;
use crate::lock::lock;

/// Jobs for worker threads, and the replies that callers wait for.
///
/// A reply is sent once: by the worker, or by [`watch`](Self::watch) when its time is up. A worker that is stuck in the
/// operating system thus does not hold up its callers. All jobs have the same time, so deadlines pass in the order of
/// the queue.
pub(super) struct Queue<J, A> {
    state: Mutex<State<J, A>>,
    /// Workers wait here for jobs.
    work: Condvar,
    /// The watch waits here for the next deadline. The thread that closes the queue waits here for the end of the
    /// workers.
    changed: Condvar,
    timeout: Duration,
    /// The process that has the workers. A process that forks from it has none.
    pub(super) process: u32,
}

struct State<J, A> {
    waiting: VecDeque<(u64, usize, J)>,
    /// The sizes of the waiting jobs together.
    bytes: usize,
    /// The number of the job whose reply stands first in `replies`.
    first: u64,
    /// The replies of waiting and running jobs, in the order of their numbers.
    replies: VecDeque<Reply<A>>,
    workers: usize,
    /// How many of the workers wait for a job.
    idle: usize,
    closed: bool,
    /// True while the watch sleeps without a deadline, because there is none.
    watch_sleeps: bool,
}

struct Reply<A> {
    deadline: Instant,
    /// None once the job is answered.
    sender: Option<Sender<A>>,
}

type Sender<A> = oneshot::Sender<Result<A, Failure>>;

/// The result of [`Queue::take`].
pub(super) enum Taken<J> {
    /// Jobs with their numbers, at least one.
    Jobs(Vec<(u64, J)>),
    /// No job came during the pause.
    Idle,
    /// The queue is closed, and empty.
    Closed,
}

/// How many jobs may wait. More jobs would time out anyway.
const MAX_WAITING: usize = 16_384;
/// How many bytes the jobs that wait may hold together.
const MAX_WAITING_BYTES: usize = 64 << 20;
/// A worker takes no further job once its jobs hold this many bytes.
const MAX_TAKEN_BYTES: usize = 4 << 20;

impl<J, A> Queue<J, A> {
    /// Creates an empty queue, which gives each job this long. Workers are added with [`worker`](Self::worker).
    pub(super) fn new(timeout: Duration) -> Self {
        let state = State {
            waiting: VecDeque::new(),
            bytes: 0,
            first: 0,
            replies: VecDeque::new(),
            workers: 0,
            idle: 0,
            closed: false,
            watch_sleeps: false,
        };
        Self {
            state: Mutex::new(state),
            work: Condvar::new(),
            changed: Condvar::new(),
            timeout,
            process: std::process::id(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State<J, A>> {
        lock(&self.state)
    }

    /// Returns true in a child of the process that has the workers. Its copy of the lock may be held for ever, by a
    /// thread that only the former process has.
    pub(super) fn is_forked(&self) -> bool {
        std::process::id() != self.process
    }

    /// Gives a job of `size` bytes to a worker, and waits for the reply.
    pub(super) async fn call(&self, job: J, size: usize) -> Result<A, Failure> {
        let reply = self.push(job, size)?;
        reply.await.unwrap_or(Err(Failure::Stopped))
    }

    fn push(&self, job: J, size: usize) -> Result<oneshot::Receiver<Result<A, Failure>>, Failure> {
        if self.is_forked() {
            return Err(Failure::Stopped);
        }
        let (sender, receiver) = oneshot::channel();
        let deadline = Instant::now() + bounded(self.timeout);
        let mut state = self.state();
        if state.closed {
            return Err(Failure::Stopped);
        }
        if state.waiting.len() >= MAX_WAITING || state.bytes.saturating_add(size) > MAX_WAITING_BYTES {
            return Err(Failure::QueueFull);
        }
        let number = state.first + state.replies.len() as u64;
        state.bytes += size;
        state.waiting.push_back((number, size, job));
        state.replies.push_back(Reply { deadline, sender: Some(sender) });
        // Waking is a system call, which a busy worker does not need.
        let (wake_worker, wake_watch) = (state.idle > 0, state.watch_sleeps);
        drop(state);
        if wake_worker {
            self.work.notify_one();
        }
        if wake_watch {
            self.changed.notify_all();
        }
        Ok(receiver)
    }

    /// Takes up to `max` jobs that callers still wait for. Waits for the first one, for at most `pause` if that is
    /// given.
    pub(super) fn take(&self, max: usize, pause: Option<Duration>) -> Taken<J> {
        let mut state = self.state();
        loop {
            let mut jobs = Vec::new();
            let mut bytes = 0;
            while jobs.len() < max && bytes < MAX_TAKEN_BYTES {
                let Some((number, size, job)) = state.waiting.pop_front() else { break };
                state.bytes -= size;
                if state.is_awaited(number) {
                    bytes += size;
                    jobs.push((number, job));
                }
            }
            if !jobs.is_empty() {
                return Taken::Jobs(jobs);
            }
            if state.closed {
                return Taken::Closed;
            }
            state.idle += 1;
            let Some(pause) = pause else {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
                continue;
            };
            let (relocked, timeout) =
                self.work.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner);
            state = relocked;
            state.idle -= 1;
            if timeout.timed_out() && state.waiting.is_empty() && !state.closed {
                return Taken::Idle;
            }
        }
    }

    /// Sends the replies of jobs by their numbers. A reply is dropped if the time of its job was up.
    pub(super) fn answer(&self, answers: impl IntoIterator<Item = (u64, Result<A, Failure>)>) {
        let mut state = self.state();
        let due: Vec<_> = answers
            .into_iter()
            .filter_map(|(number, answer)| Some((state.reply(number)?.sender.take()?, answer)))
            .collect();
        state.drop_answered();
        drop(state);
        // Not under the lock: the task that it wakes may call this queue again.
        for (sender, answer) in due {
            let _ = sender.send(answer); // a caller that went away does not want to know
        }
    }

    /// Answers jobs whose time is up, until the last worker is gone. It is the body of a thread.
    pub(super) fn watch(&self) {
        let mut state = self.state();
        loop {
            let now = Instant::now();
            let mut overdue = Vec::new();
            state.drop_answered();
            while state.replies.front().is_some_and(|reply| reply.deadline <= now) {
                overdue.extend(state.pop_reply().and_then(|reply| reply.sender));
            }
            if !overdue.is_empty() {
                drop(state);
                for sender in overdue {
                    let _ = sender.send(Err(Failure::TimedOut));
                }
                state = self.state();
                continue;
            }
            if state.closed && state.workers == 0 {
                return;
            }
            if let Some(reply) = state.replies.front() {
                let pause = reply.deadline.saturating_duration_since(now);
                let waited = self.changed.wait_timeout(state, pause);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            } else {
                state.watch_sleeps = true;
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.watch_sleeps = false;
            }
        }
    }

    /// Closes the queue. Workers do the waiting jobs, and then stop.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.work.notify_all();
        self.changed.notify_all();
    }

    /// Waits until the workers of a closed queue are gone, at most as long as a job may take.
    pub(super) fn wait_for_workers(&self) {
        let end = Instant::now().checked_add(self.timeout);
        let mut state = self.state();
        while state.workers > 0 {
            let Some(pause) = end.and_then(|end| end.checked_duration_since(Instant::now())) else { return };
            let waited = self.changed.wait_timeout(state, pause);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Registers a worker, until the result is dropped.
    pub(super) fn worker(self: &Arc<Self>) -> Worker<J, A> {
        self.state().workers += 1;
        Worker(Arc::clone(self))
    }
}

impl<J, A> State<J, A> {
    fn reply(&mut self, number: u64) -> Option<&mut Reply<A>> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.replies.get_mut(index)
    }

    fn is_awaited(&mut self, number: u64) -> bool {
        let Some(reply) = self.reply(number) else { return false };
        reply.sender.take_if(|sender| sender.is_closed());
        reply.sender.is_some()
    }

    fn pop_reply(&mut self) -> Option<Reply<A>> {
        let reply = self.replies.pop_front()?;
        self.first += 1;
        Some(reply)
    }

    fn drop_answered(&mut self) {
        while self.replies.front().is_some_and(|reply| reply.sender.is_none()) {
            self.pop_reply();
        }
    }
}

/// A worker of a [`Queue`]. Dropping the last one closes the queue and fails the calls that still wait.
pub(super) struct Worker<J, A>(Arc<Queue<J, A>>);

impl<J, A> Worker<J, A> {
    pub(super) fn queue(&self) -> &Queue<J, A> {
        &self.0
    }
}

impl<J, A> Drop for Worker<J, A> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.workers -= 1;
        let mut abandoned = Vec::new();
        let mut jobs = VecDeque::new();
        if state.workers == 0 {
            state.closed = true;
            jobs = std::mem::take(&mut state.waiting);
            state.bytes = 0;
            while let Some(reply) = state.pop_reply() {
                abandoned.extend(reply.sender);
            }
        }
        drop(state);
        drop(jobs);
        for sender in abandoned {
            let _ = sender.send(Err(Failure::Stopped));
        }
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
