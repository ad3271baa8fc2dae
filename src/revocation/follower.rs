//! The task that follows a log, so that this process knows the revocations of all processes. It also restores entries
//! that the log lost.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinSet, yield_now};
use tokio::time::{sleep, timeout};

use super::log::{AnyLog, Entry, Page};
use super::register::{Register, lock};
use super::revocation::{Key, Mark, Revocation};
use super::timeline;
use crate::clock::Timestamp;
use crate::error::Error;
use crate::event::RevocationChange;
use crate::join::join;

/// How long a read waits for new entries. While the log works, what this process knows is at most this old.
pub(super) const WAIT: Duration = Duration::from_millis(100);
/// A read has failed if it takes this much longer than it was told to wait.
const GRACE: Duration = Duration::from_millis(400);
/// Connecting again, or reading the whole log as at the start, may take longer.
const FIRST_GRACE: Duration = Duration::from_secs(10);
/// The pause between two attempts while the log cannot be read.
const PAUSE: Duration = Duration::from_millis(100);
/// How often old entries are forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// A log that trims for longer goes on at the next sweep.
const LONGEST_TRIM: Duration = Duration::from_secs(10);
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
    register.loaded(top);
    register.confirmed(top, began);
    Ok(end)
}

/// Follows a log, in a task that is started again if it ends too early.
pub(super) struct Follower {
    log: Arc<dyn AnyLog>,
    end: Mutex<End>,
    task: Mutex<Option<AbortHandle>>,
    /// A caller is starting the task.
    starting: AtomicBool,
}

impl Follower {
    pub(super) fn new(log: Arc<dyn AnyLog>, end: End) -> Arc<Self> {
        Arc::new(Self { log, end: Mutex::new(end), task: Mutex::default(), starting: AtomicBool::new(false) })
    }

    /// Starts the task in the present runtime, unless it runs. It ends when the register is dropped. It also ends with its
    /// runtime, and if the log panics.
    pub(super) fn run(self: &Arc<Self>, register: &Arc<Register>) {
        let Ok(runtime) = Handle::try_current() else { return };
        let is_over = || lock(&self.task).as_ref().is_none_or(AbortHandle::is_finished);
        if !is_over() || self.starting.swap(true, Ordering::AcqRel) {
            return;
        }
        // Another caller may have started it between the look and the swap.
        if is_over() {
            // It is dropped with the task, also if that never ran: in a runtime that shuts down, within this call. It then emits an
            // event, so no lock is held.
            let (follower, ended) = (Arc::clone(self), Ended(Arc::downgrade(register)));
            let following = async move { follower.follow(&ended.0).await };
            let task = runtime.spawn(following).abort_handle();
            *lock(&self.task) = Some(task);
        }
        self.starting.store(false, Ordering::Release);
    }

    /// Runs until the register is dropped.
    async fn follow(&self, register: &Weak<Register>) {
        let mut swept: Option<Timestamp> = None;
        // Dropping it ends the task in it.
        let mut trimming = JoinSet::new();
        loop {
            match self.step(register).await {
                Followed::Reached(reached) => *lock(&self.end) = reached,
                Followed::Failed => sleep(PAUSE).await,
                Followed::Dropped => return,
            }
            let Some(register) = register.upgrade() else { return };
            let now = register.now();
            if swept.is_some_and(|swept| now.distance(swept) < SWEEP_EVERY) {
                continue;
            }
            let is_first = swept.replace(now).is_none();
            if is_first {
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

    /// Waits for entries behind the end, and takes them in.
    async fn step(&self, register: &Weak<Register>) -> Followed {
        // The register is not held while the task waits for the log: dropping its last handle ends this task.
        let Some((failing, seen)) =
            register.upgrade().map(|register| (register.is_failing(), register.highest()))
        else {
            return Followed::Dropped;
        };
        let began = Instant::now();
        // A new connection takes longer than a reply.
        let (wait, grace) = if failing { (Duration::ZERO, FIRST_GRACE) } else { (WAIT, GRACE) };
        let after = lock(&self.end).position;
        let page = read(&*self.log, after, wait, grace).await;
        let Some(register) = register.upgrade() else { return Followed::Dropped };
        let reached = match page {
            Ok(page) => self.take_in(&register, seen, page, began).await,
            Err(error) => Err(error),
        };
        let Ok(reached) = reached else {
            register.failed();
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
        lock(&self.end).lost = lost;
        if register.is_failing() {
            // The log may be on another server now, whose first write shows it.
            in_time(log.top(register.highest())).await?;
            page = read(log, end.position, Duration::ZERO, FIRST_GRACE).await?;
        }
        if lost || page.history != end.history {
            return heal(log, register, Loss::Any { shorter: lost }).await;
        }
        if register.is_failing() {
            return heal(log, register, Loss::Recent).await;
        }
        register.take_in(&page.entries);
        let reached = page.entries.last().map_or(end.position, |last| last.position);
        if page.more {
            return Ok(End { position: reached, ..end });
        }
        if register.has_lost_entries(page.top) {
            lock(&self.end).lost = true;
            return heal(log, register, Loss::Recent).await;
        }
        register.confirmed(page.top, began);
        Ok(End { position: reached.max(page.top), ..end })
    }
}

/// Stands for the running task. When it is dropped, the register learns that its log is no longer followed.
struct Ended(Weak<Register>);

impl Drop for Ended {
    fn drop(&mut self) {
        if let Some(register) = self.0.upgrade() {
            register.failed();
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
        Loss::Recent => (register.before_recent(highest), register.recent()),
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
    register.has_lost_entries(highest);
    register.confirmed(top, began);
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
    timeout(wait + grace, log.read(after, wait)).await.map_err(Error::unavailable)?
}

async fn in_time(write: impl Future<Output = Result<u64, Error>>) -> Result<u64, Error> {
    timeout(FIRST_GRACE, write).await.map_err(Error::unavailable)?
}
