//! The task that follows a log, so that this process knows the revocations of all processes. It also restores entries
//! that the log lost.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinSet, yield_now};
use tokio::time::{sleep, timeout};

use super::log::{AnyLog, Entry, Page};
use super::register::Register;
use super::revocation::{Key, Mark, Revocation};
use super::time_limit::within;
use super::timeline;
use crate::clock::Timestamp;
use crate::error::Error;
use crate::event::RevocationChange;
use crate::join::join;
use crate::lock::lock;

/// How long a read waits for new entries. While the log works, what this process knows is at most this old.
pub(super) const WAIT: Duration = Duration::from_millis(100);
/// A read has failed if it takes this much longer than it was told to wait, or two fifths of the staleness that the stores allow:
/// another read can then succeed in time.
pub(crate) const GRACE: Duration = Duration::from_millis(400);
/// Connecting again, or reading the whole log as at the start, may take longer.
const FIRST_GRACE: Duration = Duration::from_secs(10);
/// The pause between two attempts while the log cannot be read.
const PAUSE: Duration = Duration::from_millis(100);
/// A log that returns at once, and with nothing new, is read this often.
const LEAST_PAUSE: Duration = Duration::from_millis(10);
/// How often old entries are forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// A log that trims for longer goes on at the next sweep.
const LONGEST_TRIM: Duration = Duration::from_secs(10);
/// A task that was not run for so long is in a runtime that no thread drives. Another runtime then follows the log.
const LATE: Duration = Duration::from_millis(500);
/// How long other processes have to write again the entries that a log may have lost, before this process believes it.
pub(crate) const SETTLE: Duration = Duration::from_secs(1);
/// How many lost revocations are written at once.
const BATCH: usize = 256;

/// The end of the log, as this process has read it.
#[derive(Clone, Copy)]
pub(super) struct End {
    position: u64,
    history: u64,
    /// True if the log has lost entries that are not known to be written again.
    lost: bool,
}

/// Reads the whole log into `register`, and returns its end.
pub(super) async fn load(log: &dyn AnyLog, register: &Register) -> Result<End, Error> {
    // Position zero is that of sessions from before there were revocations. No later session may have it.
    in_time(log.top(1)).await?;
    let (end, top, began) = read_on(log, register, 0, |_| ()).await?;
    register.freshness.note_loaded(top);
    register.note_confirmed(top, began);
    Ok(end)
}

/// Follows a log, in a task that is started again if it ends too early, or if its runtime does not run it.
pub(super) struct Follower {
    log: Arc<dyn AnyLog>,
    end: Mutex<End>,
    /// When old entries were last forgotten. None until the first look.
    swept: Mutex<Option<Timestamp>>,
    task: Mutex<Option<AbortHandle>>,
    /// The number of the task. Earlier ones have ended, or are about to.
    number: AtomicU64,
    /// When the task was last run, in milliseconds after `start`.
    ran: AtomicU64,
    start: Instant,
    /// A caller is starting the task.
    starting: AtomicBool,
}

impl Follower {
    pub(super) fn new(log: Arc<dyn AnyLog>, end: End) -> Arc<Self> {
        Arc::new(Self {
            log,
            end: Mutex::new(end),
            swept: Mutex::default(),
            task: Mutex::default(),
            number: AtomicU64::new(0),
            ran: AtomicU64::new(0),
            start: Instant::now(),
            starting: AtomicBool::new(false),
        })
    }

    /// Starts the task in the present runtime, unless it runs. It ends when the register is dropped. It also ends with its
    /// runtime, and if the log panics.
    pub(super) fn run(self: &Arc<Self>, register: &Arc<Register>) {
        let Ok(runtime) = Handle::try_current() else { return };
        if self.is_running() || self.starting.swap(true, Ordering::AcqRel) {
            return;
        }
        // Another caller may have started it between the look and the swap.
        if !self.is_running() {
            let number = self.number.fetch_add(1, Ordering::AcqRel).wrapping_add(1);
            self.note_run();
            // It is dropped with the task, also if that never ran: in a runtime that shuts down, within this call. It then emits an
            // event, so no lock is held.
            let task = Task { follower: Arc::clone(self), number, register: Arc::downgrade(register) };
            let handle = runtime.spawn(async move { task.run().await }).abort_handle();
            let former = lock(&self.task).replace(handle);
            if let Some(former) = former {
                // If its runtime runs it again, it must not go on beside the new one.
                former.abort();
            }
        }
        self.starting.store(false, Ordering::Release);
    }

    /// Returns true if the task is there, and its runtime runs it.
    fn is_running(&self) -> bool {
        let ran = Duration::from_millis(self.ran.load(Ordering::Acquire));
        let is_late = self.start.elapsed().saturating_sub(ran) > LATE;
        !is_late && lock(&self.task).as_ref().is_some_and(|task| !task.is_finished())
    }

    /// Notes that the task is run now.
    fn note_run(&self) {
        let millis = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.ran.store(millis, Ordering::Release);
    }

    /// Runs as the task with this number, until the register is dropped, or another task takes over.
    async fn follow(&self, number: u64, register: &Weak<Register>) {
        // Dropping it ends the task in it.
        let mut trimming = JoinSet::new();
        loop {
            let (began, before) = (Instant::now(), lock(&self.end).position);
            match self.step(register).await {
                Followed::Reached(reached) if !self.reached(number, reached) => return,
                // No part of a step has to wait. Without a pause, such a log would keep a thread of the runtime for ever.
                Followed::Reached(reached) => {
                    if reached.position == before {
                        sleep(LEAST_PAUSE.saturating_sub(began.elapsed())).await;
                    }
                    // Also after a read that took longer than the pause.
                    yield_now().await;
                }
                Followed::Failed => sleep(PAUSE).await,
                Followed::Dropped => return,
            }
            let Some(register) = register.upgrade() else { return };
            let now = register.now();
            if !self.is_sweep_due(now) {
                continue;
            }
            register.sweep();
            let horizon = register.horizon();
            while trimming.try_join_next().is_some() {}
            if horizon < Duration::MAX && trimming.is_empty() {
                // Longer than any process remembers, or an entry that is forgotten would seem to be lost.
                let age = horizon.saturating_add(2 * timeline::step(horizon));
                let log = Arc::clone(&self.log);
                // In a task of its own, since sessions wait for the next read. If it fails, the next sweep tries again.
                trimming.spawn(async move { timeout(LONGEST_TRIM, log.trim(age)).await.is_ok() });
            }
        }
    }

    /// Notes the end that the task with this number has reached. Returns false if another task has taken over: it may know of a
    /// loss since then.
    fn reached(&self, number: u64, reached: End) -> bool {
        let mut end = lock(&self.end);
        let is_own = self.number.load(Ordering::Acquire) == number;
        if is_own {
            *end = reached;
        }
        is_own
    }

    /// Returns true once in [`SWEEP_EVERY`], by whichever task asks.
    fn is_sweep_due(&self, now: Timestamp) -> bool {
        let mut swept = lock(&self.swept);
        if swept.is_some_and(|swept| now.distance(swept) < SWEEP_EVERY) {
            return false;
        }
        swept.replace(now).is_some()
    }

    /// Waits for entries behind the end, and takes them in.
    async fn step(&self, register: &Weak<Register>) -> Followed {
        // The register is not held while the task waits for the log: dropping its last handle ends this task.
        let Some((failing, stopped, seen, staleness)) = register.upgrade().map(|register| {
            (
                register.freshness.is_failing(),
                register.freshness.is_stopped(),
                register.highest(),
                register.shortest_staleness(),
            )
        }) else {
            return Followed::Dropped;
        };
        let began = Instant::now();
        let (wait, grace) = if failing {
            (Duration::ZERO, first_grace(stopped, staleness))
        } else {
            (WAIT, grace(staleness))
        };
        let after = lock(&self.end).position;
        let page = read(&*self.log, after, wait, grace).await;
        let Some(register) = register.upgrade() else { return Followed::Dropped };
        let reached = match page {
            Ok(page) => self.take_in(&register, seen, page, began).await,
            Err(error) => Err(error),
        };
        let Ok(reached) = reached else {
            register.note_failed();
            return Followed::Failed;
        };
        Followed::Reached(reached)
    }

    /// Takes in a page that was read behind the end. If the log may have lost entries, writes them again.
    ///
    /// `seen` is the highest position that was known before the read began: what is appended meanwhile may not be in the page.
    async fn take_in(
        &self,
        register: &Register,
        seen: u64,
        mut page: Page,
        began: Instant,
    ) -> Result<End, Error> {
        let log = &*self.log;
        let end = *lock(&self.end);
        let lost = end.lost || page.top < seen;
        // Once the log is raised, it no longer shows a loss. If healing fails, the next attempt must still know.
        // A task that has taken over may know of a loss meanwhile.
        lock(&self.end).lost |= lost;
        if register.freshness.is_failing() {
            // The log may be on another server now, whose first write shows it.
            in_time(log.top(register.highest())).await?;
            page = read(log, end.position, Duration::ZERO, FIRST_GRACE).await?;
        }
        if lost || page.history != end.history {
            return heal(log, register, Loss::Any { shorter: lost }).await;
        }
        if register.freshness.is_failing() {
            return heal(log, register, Loss::Recent).await;
        }
        register.take_in(&page.entries);
        let reached = page.entries.last().map_or(end.position, |last| last.position);
        if page.more {
            return Ok(End { position: reached, ..end });
        }
        if register.recent.check_off(page.top) {
            lock(&self.end).lost = true;
            return heal(log, register, Loss::Recent).await;
        }
        register.note_confirmed(page.top, began);
        Ok(End { position: reached.max(page.top), ..end })
    }
}

/// Returns how much longer than its wait a read may take.
fn grace(staleness: Option<Duration>) -> Duration {
    staleness.map_or(GRACE, |staleness| (staleness / 5 * 2).clamp(GRACE, FIRST_GRACE))
}

/// Returns how long the first read may take: a new connection takes longer than a reply. `stopped`: only the task had ended.
/// Requests wait for such a read, each for `staleness` at most. After that time they must fail at once, since the log hangs.
fn first_grace(stopped: bool, staleness: Option<Duration>) -> Duration {
    staleness.filter(|_| stopped).map_or(FIRST_GRACE, |staleness| staleness.clamp(GRACE, FIRST_GRACE))
}

/// The running task. When it is dropped, the register learns that its log is no longer followed, unless another task took over.
struct Task {
    follower: Arc<Follower>,
    number: u64,
    register: Weak<Register>,
}

impl Task {
    async fn run(&self) {
        let mut following = pin!(self.follower.follow(self.number, &self.register));
        let mut noting = pin!(async {
            loop {
                self.follower.note_run();
                sleep(WAIT).await;
            }
        });
        poll_fn(|context| {
            let noted: Poll<()> = noting.as_mut().poll(context);
            debug_assert!(noted.is_pending(), "it never ends");
            following.as_mut().poll(context)
        })
        .await;
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if self.follower.number.load(Ordering::Acquire) == self.number {
            if let Some(register) = self.register.upgrade() {
                register.note_stopped(std::thread::panicking());
            }
        }
    }
}

/// The result of a step.
enum Followed {
    Reached(End),
    Failed,
    /// The last handle of the register was dropped.
    Dropped,
}

/// The entries that a log may have lost.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Loss {
    /// Those of the last minutes.
    Recent,
    /// All. `shorter`: it ended before a position that it had returned.
    Any { shorter: bool },
}

/// Writes the entries that this process knows and the log lacks.
///
/// A server that took over may lack entries that the one before it acknowledged. Revocations only add up, so every
/// process that knows them can write them again, at their old positions.
async fn heal(log: &dyn AnyLog, register: &Register, loss: Loss) -> Result<End, Error> {
    let highest = register.highest();
    // Before all else: entries that are written from now on come behind the positions of all sessions.
    in_time(log.top(highest)).await?;
    let (start, ours) = match loss {
        Loss::Recent => (register.recent.before(highest), register.recent.marks()),
        Loss::Any { .. } => (0, register.everything_known()),
    };
    let mut theirs: HashMap<Key, Mark> = HashMap::new();
    let note = |theirs: &mut HashMap<Key, Mark>, entry: &Entry| {
        let mark = entry.revocation.mark(entry.position);
        theirs.entry(entry.revocation.key()).and_modify(|known| *known = known.and(mark)).or_insert(mark);
    };
    let (mut end, mut top, mut began) =
        read_on(log, register, start, |entry| note(&mut theirs, entry)).await?;
    let mut ours = ours.into_iter();
    let mut written = 0;
    loop {
        let lacks =
            |(key, mark): &(Key, Mark)| theirs.get(key).is_none_or(|known| known.and(*mark) != *known);
        let batch: Vec<Revocation> =
            ours.by_ref().filter(lacks).take(BATCH).map(|(key, mark)| Revocation::again(key, mark)).collect();
        if batch.is_empty() {
            break;
        }
        written += batch.len();
        in_time(log.append(batch, highest)).await?;
        // Other processes write the same entries, each in an order of its own. None is to be there many times.
        (end, top, began) = read_on(log, register, end.position, |entry| note(&mut theirs, entry)).await?;
    }
    if written > 0 || loss == (Loss::Any { shorter: true }) {
        register.report(RevocationChange::RolledBack);
    }
    if matches!(loss, Loss::Any { .. }) {
        sleep(SETTLE).await;
        (end, top, began) = read_on(log, register, end.position, |_| ()).await?;
    }
    // Every entry that this process appended is in the log, or was written again.
    register.recent.check_off(highest);
    register.note_confirmed(top, began);
    Ok(end)
}

/// Takes in all entries behind `after`. Returns the end of the log, its top, and when the last read began.
async fn read_on(
    log: &dyn AnyLog,
    register: &Register,
    mut after: u64,
    mut note: impl FnMut(&Entry),
) -> Result<(End, u64, Instant), Error> {
    let mut began = Instant::now();
    let mut page = read(log, after, Duration::ZERO, FIRST_GRACE).await?;
    loop {
        after = page.entries.last().map_or(after, |last| last.position);
        let take_in = async {
            // The request for the next page goes out first.
            yield_now().await;
            page.entries.iter().for_each(&mut note);
            register.take_in(&page.entries);
        };
        if !page.more {
            take_in.await;
            let end = End { position: after.max(page.top), history: page.history, lost: false };
            return Ok((end, page.top, began));
        }
        began = Instant::now();
        let (next, ()) = join(read(log, after, Duration::ZERO, FIRST_GRACE), take_in).await;
        page = next?;
    }
}

async fn read(log: &dyn AnyLog, after: u64, wait: Duration, grace: Duration) -> Result<Page, Error> {
    within(wait.saturating_add(grace), log.read(after, wait)).await.ok_or_else(too_late)?
}

async fn in_time(write: impl Future<Output = Result<u64, Error>>) -> Result<u64, Error> {
    within(FIRST_GRACE, write).await.ok_or_else(too_late)?
}

fn too_late() -> Error {
    Error::unavailable("the log of revocations did not answer in time")
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::super::log::RevocationLog;
    use super::*;
    use crate::crypto::SystemRandom;

    /// A log that hangs.
    struct Hanging;

    impl RevocationLog for Hanging {
        fn incarnation(&self) -> u64 {
            1
        }

        async fn append(&self, _: Vec<Revocation>, _: u64) -> Result<u64, Error> {
            pending().await
        }

        async fn top(&self, _: u64) -> Result<u64, Error> {
            pending().await
        }

        async fn read(&self, _: u64, _: Duration) -> Result<Page, Error> {
            pending().await
        }

        async fn trim(&self, _: Duration) -> Result<(), Error> {
            pending().await
        }
    }

    const END: End = End { position: 7, history: 1, lost: false };

    /// A task that was replaced may still be polled, once.
    #[test]
    fn a_task_that_was_replaced_hides_no_loss() {
        let follower = Follower::new(Arc::new(Hanging), END);
        follower.number.store(2, Ordering::Release);
        lock(&follower.end).lost = true;
        assert!(!follower.reached(1, End { position: 8, ..END }));
        let end = *lock(&follower.end);
        assert!(end.lost && end.position == 7);
        assert!(follower.reached(2, END));
        assert!(!lock(&follower.end).lost);
    }

    /// A task that is often replaced would otherwise never forget old entries.
    #[test]
    fn old_entries_are_forgotten_once_a_minute_whichever_task_runs() {
        let follower = Follower::new(Arc::new(Hanging), END);
        let due = [1_000, 1_059, 1_060, 1_061, 1_120]
            .map(|second| follower.is_sweep_due(Timestamp::from_unix(second)));
        assert_eq!(due, [false, false, true, false, true]);
    }

    /// Requests wait as long for a task that was started again as a hanging log is waited for, and no longer.
    #[test]
    fn a_log_that_hangs_after_its_task_was_started_again_is_given_up_within_the_staleness() {
        let second = Duration::from_secs(1);
        assert_eq!(first_grace(true, Some(second)), second);
        assert_eq!(first_grace(true, Some(second / 10)), GRACE);
        for (stopped, staleness) in [(false, Some(second)), (true, None), (true, Some(60 * second))] {
            assert_eq!(first_grace(stopped, staleness), FIRST_GRACE);
        }
    }

    #[test]
    fn a_read_may_take_two_fifths_of_the_staleness_longer_within_bounds() {
        let second = Duration::from_secs(1);
        assert_eq!(grace(None), GRACE);
        for (staleness, expected) in
            [(second / 2, GRACE), (2 * second, second * 4 / 5), (60 * second, FIRST_GRACE)]
        {
            assert_eq!(grace(Some(staleness)), expected);
        }
    }

    #[tokio::test]
    async fn a_task_is_started_again_once_its_runtime_no_longer_runs_it() {
        let register = Arc::new(Register::over(Arc::new(Hanging), &SystemRandom).unwrap());
        let mut follower = Follower::new(Arc::new(Hanging), END);
        let hour = Duration::from_secs(3_600);
        Arc::get_mut(&mut follower).unwrap().start = Instant::now().checked_sub(hour).unwrap();
        let tasks = || {
            follower.run(&register);
            follower.number.load(Ordering::Acquire)
        };
        assert_eq!(tasks(), 1);
        assert!(follower.ran.load(Ordering::Acquire) >= 3_600_000, "its start counts as a run");
        // It was run just now, however busy this machine is.
        follower.ran.store(u64::MAX, Ordering::Release);
        assert_eq!(tasks(), 1);
        follower.ran.store(0, Ordering::Release);
        follower.starting.store(true, Ordering::Release);
        assert_eq!(tasks(), 1, "another caller starts it");
        follower.starting.store(false, Ordering::Release);
        assert_eq!(tasks(), 2);
        assert!(!follower.starting.load(Ordering::Acquire));
    }

    /// A log with one entry, at position 5, that ends at 7. Its third read hangs.
    #[derive(Default)]
    struct Short {
        reads: Mutex<Vec<u64>>,
        trims: AtomicU64,
    }

    impl RevocationLog for Short {
        fn incarnation(&self) -> u64 {
            1
        }

        async fn append(&self, _: Vec<Revocation>, _: u64) -> Result<u64, Error> {
            Ok(7)
        }

        async fn top(&self, _: u64) -> Result<u64, Error> {
            Ok(7)
        }

        async fn read(&self, after: u64, _: Duration) -> Result<Page, Error> {
            lock(&self.reads).push(after);
            if lock(&self.reads).len() > 2 {
                return pending().await;
            }
            let revocation = Revocation::of_owner([7; 16]);
            let entry = Entry { position: 5, written: Timestamp::from_unix(1), revocation };
            Ok(Page {
                entries: if after < 5 { vec![entry] } else { Vec::new() },
                top: 7,
                more: false,
                history: 1,
            })
        }

        async fn trim(&self, _: Duration) -> Result<(), Error> {
            self.trims.fetch_add(1, Ordering::AcqRel);
            pending().await
        }
    }

    /// Before there is a store, it is not known how long sessions last.
    #[tokio::test]
    async fn a_log_is_read_on_behind_its_end_and_trimmed_once_a_minute_if_there_is_a_store() {
        for (has_store, is_due, trims) in [(true, true, 1), (true, false, 0), (false, true, 0)] {
            let log = Arc::new(Short::default());
            let register = Arc::new(Register::over(Arc::new(Arc::clone(&log)), &SystemRandom).unwrap());
            if has_store {
                register.attach_for_an_hour();
            }
            let follower = Follower::new(Arc::new(Arc::clone(&log)), End { position: 0, ..END });
            let now = register.now();
            *lock(&follower.swept) = Some(if is_due { Timestamp::from_unix(0) } else { now });
            follower.run(&register);
            while lock(&log.reads).len() < 3 {
                yield_now().await;
            }
            assert_eq!(*lock(&log.reads), [0, 7, 7]);
            assert_eq!(log.trims.load(Ordering::Acquire), trims, "{has_store}, {is_due}");
        }
    }

    /// A log that has nothing new, and returns at once.
    #[derive(Default)]
    struct Hasty(AtomicU64);

    impl RevocationLog for Hasty {
        fn incarnation(&self) -> u64 {
            1
        }

        async fn append(&self, _: Vec<Revocation>, _: u64) -> Result<u64, Error> {
            Ok(7)
        }

        async fn top(&self, _: u64) -> Result<u64, Error> {
            Ok(7)
        }

        async fn read(&self, _: u64, _: Duration) -> Result<Page, Error> {
            self.0.fetch_add(1, Ordering::AcqRel);
            Ok(Page { entries: Vec::new(), top: 7, more: false, history: 1 })
        }

        async fn trim(&self, _: Duration) -> Result<(), Error> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_log_that_does_not_wait_is_read_a_hundred_times_a_second_at_most() {
        let log = Arc::new(Hasty::default());
        let register = Arc::new(Register::over(Arc::new(Arc::clone(&log)), &SystemRandom).unwrap());
        let begun = Instant::now();
        let follower = Follower::new(Arc::new(Arc::clone(&log)), END);
        follower.run(&register);
        while log.0.load(Ordering::Acquire) < 9 {
            yield_now().await;
        }
        assert!(begun.elapsed() >= 8 * LEAST_PAUSE);
    }

    /// A minute after the other, a log is still being trimmed.
    #[tokio::test]
    async fn a_log_that_trims_slowly_is_not_told_to_trim_again_meanwhile() {
        let log = Arc::new(Short::default());
        let register = Arc::new(Register::over(Arc::new(Arc::clone(&log)), &SystemRandom).unwrap());
        register.attach_for_an_hour();
        let follower = Follower::new(Arc::new(Arc::clone(&log)), End { position: 0, ..END });
        *lock(&follower.swept) = Some(Timestamp::from_unix(0));
        follower.run(&register);
        while lock(&log.reads).len() < 2 {
            yield_now().await;
        }
        *lock(&follower.swept) = Some(Timestamp::from_unix(0));
        while lock(&log.reads).len() < 3 {
            yield_now().await;
        }
        yield_now().await;
        assert_eq!(log.trims.load(Ordering::Acquire), 1);
    }
}
