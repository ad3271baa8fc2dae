//! Queues for tasks of this process whose saves of one session conflicted.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

use tokio::sync::{Mutex, MutexGuard};

use crate::error::{Error, Kind};
use crate::session::SessionId;
use crate::store::Backend;

/// How often a save is tried. Saves of one process queue, so about this many other processes would have to be faster, each
/// time.
pub(super) const MAX_ATTEMPTS: u32 = 256;

/// For how many steps of the backend a save is tried after its first conflict.
const MAX_STEPS: u32 = 16;

/// Queues for tasks of this process. A task whose save conflicted queues behind the other tasks whose saves did. Without queues,
/// tasks that retry at once would starve late ones. The first attempt does not queue, and no task waits for long (see
/// [`Conflicts`]).
pub(super) struct ConflictQueues([Mutex<()>; 64]);

impl ConflictQueues {
    pub(super) fn new() -> Self {
        Self([const { Mutex::const_new(()) }; 64])
    }

    /// Returns the queue of this session. Sessions that share a queue only wait longer.
    pub(super) fn of(&self, id: SessionId) -> &Mutex<()> {
        let [first, ..] = id.to_bytes();
        let Self(queues) = self;
        queues.get(usize::from(first) % queues.len()).unwrap_or(&queues[0])
    }
}

/// The conflicts of one save, and its permit of the queue.
///
/// The queue is for fairness only: the backend compares, so no change is lost without a permit. The holder of a permit may wait
/// for a backend that does not answer. So a task waits for a permit only as long as one step may take. Then it makes an attempt
/// without, and keeps its place in the queue. If that attempt conflicts, it waits on.
pub(super) struct Conflicts<'a, B> {
    queue: &'a Mutex<()>,
    backend: &'a B,
    count: u32,
    permit: Option<MutexGuard<'a, ()>>,
    /// Its place in the queue. During an attempt without a permit, the permit may come here.
    place: Option<Pin<Box<dyn Future<Output = MutexGuard<'a, ()>> + Send + 'a>>>,
    /// Ready when the save has been tried for long enough. Present after the first conflict.
    enough: Option<Pin<Box<dyn Future<Output = ()> + Send + 'a>>>,
}

impl<'a, B: Backend> Conflicts<'a, B> {
    pub(super) fn new(queue: &'a Mutex<()>, backend: &'a B) -> Self {
        Self { queue, backend, count: 0, permit: None, place: None, enough: None }
    }

    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// Notes a conflict, and waits for a permit for the next attempt. Fails if there were too many attempts, or they took too
    /// long.
    pub(super) async fn next(&mut self) -> Result<(), Error> {
        self.count += 1;
        // Boxed: conflicts are rare, and the timers are large.
        if self.count < MAX_ATTEMPTS && Box::pin(self.wait()).await {
            Ok(())
        } else {
            Err(Error::new(Kind::Conflict { attempts: self.count }))
        }
    }

    /// Gives the permit back, and the place in the queue, where a permit may come. The next conflict queues again.
    pub(super) fn release(&mut self) {
        self.permit = None;
        self.place = None;
    }

    /// Returns false if it took too long.
    async fn wait(&mut self) -> bool {
        let backend = self.backend;
        let enough = self.enough.get_or_insert_with(|| Box::pin(backend.__after_steps(MAX_STEPS)));
        if poll_fn(|cx| Poll::Ready(enough.as_mut().poll(cx).is_ready())).await {
            return false;
        }
        if self.permit.is_none() {
            let queue = self.queue;
            let place = self.place.get_or_insert_with(|| Box::pin(queue.lock()));
            let mut one_step = pin!(backend.__after_steps(1));
            self.permit = poll_fn(|cx| match place.as_mut().poll(cx) {
                Poll::Ready(permit) => Poll::Ready(Some(permit)),
                Poll::Pending => one_step.as_mut().poll(cx).map(|()| None),
            })
            .await;
            if self.permit.is_some() {
                self.place = None;
            }
        }
        true
    }
}
