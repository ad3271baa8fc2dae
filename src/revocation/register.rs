//! The revocations that one process knows, and how current they are.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::budget::Budget;
use super::log::{AnyLog, Entry};
use super::memory::MemoryLog;
use super::revocation::{Key, Mark, Revocation};
use super::set::{Set, View};
use super::timeline::Timeline;
use crate::clock::{Clock, SystemClock, Timestamp, bounded};
use crate::crypto::{Random, SystemRandom};
use crate::error::Error;
use crate::event::{EventKind, Reporter, RevocationChange};
use crate::lock::lock;
use crate::runtime::check_runtime;
use crate::session::{Labels, Lineage, Name, Position, SessionId};

/// For this many seconds, the cookie of a session that was given another id may be on its way to be replaced.
const MOMENTS: u64 = 60;

/// The entries of the last minutes are kept in order, to detect whether a failover lost them.
const RECENT: Duration = Duration::from_secs(120);
const MAX_RECENT: usize = 1 << 16;

/// Allows for differences between the clocks of hosts: forgetting late does no harm.
pub(super) const MARGIN: Duration = Duration::from_secs(2 * 3_600);

pub(crate) struct Register {
    storage: Storage,
    incarnation: u64,
    set: Set,
    /// Sessions with a lower position have ended: all were revoked.
    everything: AtomicU64,
    /// Sessions with a lower position have ended: the revocations among them were forgotten.
    floor: AtomicU64,
    /// All entries of the log up to here are in the set.
    known: AtomicU64,
    /// The highest position that this process has seen, in the log or in a reply.
    highest: AtomicU64,
    /// The end of the log when this process had read it for the first time.
    loaded: AtomicU64,
    /// When `known` was confirmed last, in microseconds after `start`.
    confirmed: AtomicU64,
    start: Instant,
    /// How often the log was read to its end.
    rounds: AtomicU64,
    /// True if the last read failed, or the task that reads has ended.
    failing: AtomicBool,
    /// True if the task that reads has ended, and no later read has failed: the log may work.
    stopped: AtomicBool,
    /// Wakes tasks that wait for a confirmation.
    progress: Notify,
    timeline: Mutex<Timeline>,
    recent: Mutex<VecDeque<Recent>>,
    /// Entries that this process has appended, and not read back yet.
    unread: Mutex<VecDeque<Unread>>,
    /// Revocations at or below this position were forgotten.
    swept: AtomicU64,
    settings: OnceLock<Settings>,
    /// The longest absolute timeout of the stores, in seconds; zero before there is a store.
    horizon: AtomicU64,
    /// The shortest staleness that a store allows, in milliseconds; the maximum before there is a store.
    max_staleness: AtomicU64,
    max: AtomicUsize,
    /// Held while an overflow is handled.
    overflow: Mutex<()>,
    /// The steps of another thread, in a test.
    #[cfg(test)]
    other_thread: Mutex<Option<tests::OtherThread>>,
}

enum Storage {
    Memory(MemoryLog),
    Log(Arc<dyn AnyLog>),
}

/// The limits that a store sets.
#[derive(Clone, Copy)]
pub(super) struct StoreLimits {
    pub(super) max: usize,
    pub(super) max_per_subject: u16,
    pub(super) max_staleness: Duration,
    pub(super) refuse_unknown: bool,
}

/// The settings of the first store that uses the register.
struct Settings {
    budget: Budget,
    clock: Arc<dyn Clock>,
    reporter: Reporter,
}

struct Recent {
    seen: Instant,
    position: u64,
    revocation: Revocation,
    /// True if it was read in the log, and not merely appended.
    read: bool,
}

/// An entry that must appear when the log is read from `above` to `last`. Another entry with its name may be there, too.
#[derive(Clone, Copy)]
struct Unread {
    above: u64,
    last: u64,
    revocation: Revocation,
}

/// The judgement on a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Valid,
    Revoked,
    /// It continues under another id, which it was given moments ago.
    Superseded,
    /// It continues under another id, and is valid for the rest of a minute: it can be read, and not be written.
    Retiring,
    /// No known revocation ends it, but the known revocations are not current.
    Unconfirmed,
}

/// Where a session continues whose subject's other sessions were ended, or which moves to another store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Continued {
    At(Position),
    /// It does not: another revocation came first, and ended it.
    Nowhere,
    /// It is not known whether it had ended before. The revocation may have been written.
    Unconfirmed,
}

impl Register {
    pub(super) fn in_memory(random: &dyn Random) -> Result<Self, Error> {
        let log = MemoryLog::new(random)?;
        let incarnation = log.incarnation;
        let register = Self::new(Storage::Memory(log), incarnation, random)?;
        register.known.store(1, Ordering::Release);
        Ok(register)
    }

    pub(super) fn over(log: Arc<dyn AnyLog>, random: &dyn Random) -> Result<Self, Error> {
        let incarnation = log.incarnation();
        Self::new(Storage::Log(log), incarnation, random)
    }

    fn new(storage: Storage, incarnation: u64, random: &dyn Random) -> Result<Self, Error> {
        let mut seed = [0; 16];
        random.fill(&mut seed)?;
        let Key(seed) = Key::of_name(seed);
        Ok(Self {
            storage,
            incarnation,
            set: Set::new(seed),
            everything: AtomicU64::new(0),
            floor: AtomicU64::new(0),
            known: AtomicU64::new(0),
            highest: AtomicU64::new(0),
            loaded: AtomicU64::new(0),
            confirmed: AtomicU64::new(0),
            start: Instant::now(),
            rounds: AtomicU64::new(0),
            failing: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            progress: Notify::new(),
            timeline: Mutex::default(),
            recent: Mutex::default(),
            unread: Mutex::default(),
            swept: AtomicU64::new(0),
            settings: OnceLock::new(),
            horizon: AtomicU64::new(0),
            max_staleness: AtomicU64::new(u64::MAX),
            max: AtomicUsize::new(usize::MAX),
            overflow: Mutex::new(()),
            #[cfg(test)]
            other_thread: Mutex::default(),
        })
    }

    /// Attaches a store to the register. The limits of the first store count, the longest timeout of all, and the shortest
    /// staleness.
    pub(super) fn attach(
        &self,
        limits: StoreLimits,
        horizon: Duration,
        clock: Arc<dyn Clock>,
        reporter: Reporter,
    ) {
        let StoreLimits { max, max_per_subject, max_staleness, refuse_unknown } = limits;
        let staleness = u64::try_from(max_staleness.as_millis()).unwrap_or(u64::MAX);
        self.max_staleness.fetch_min(staleness, Ordering::AcqRel);
        let before = self.horizon.fetch_max(horizon.as_secs(), Ordering::AcqRel);
        if before != 0 && before < horizon.as_secs() {
            // The forgotten revocations can have ended sessions that last for longer.
            self.floor.fetch_max(self.swept.load(Ordering::Acquire), Ordering::AcqRel);
        }
        let settings = Settings { budget: Budget::new(max_per_subject, max), clock, reporter };
        if self.settings.set(settings).is_ok() {
            self.max.store(max, Ordering::Release);
        }
        if refuse_unknown {
            self.floor.fetch_max(1, Ordering::AcqRel);
        }
        self.bound();
    }

    /// Judges the session with this id and lineage.
    #[inline]
    pub(crate) fn judge(
        &self,
        id: SessionId,
        lineage: &Lineage,
        labels: &Labels<'_>,
        now: Timestamp,
        max_staleness: Duration,
    ) -> Verdict {
        let position = self.sequence(lineage.position);
        // In this order: a view shows all that was confirmed before it was taken, and revocations that leave the set raise
        // the floor first. In another order, a revocation that arrives or is forgotten in between would be missed.
        let is_current = self.is_current(position, max_staleness);
        self.meanwhile();
        let view = self.set.view();
        self.meanwhile();
        if position < self.revoked_below() {
            return Verdict::Revoked;
        }
        let mark = match (view.get(Key::of_root(lineage.root.unwrap_or(id))), view.get(Key::of_id(id))) {
            (Some(root), Some(id)) => Some(root.and(id)),
            (root, id) => root.or(id),
        };
        let ended = mark.map(|mark| self.ended(mark, now));
        if let Some(verdict @ (Verdict::Revoked | Verdict::Superseded)) = ended {
            return verdict;
        }
        if names_end(&view, position, lineage, labels) {
            return Verdict::Revoked;
        }
        if is_current { ended.unwrap_or(Verdict::Valid) } else { Verdict::Unconfirmed }
    }

    /// Returns the position below which all sessions have ended.
    #[inline]
    fn revoked_below(&self) -> u64 {
        self.floor.load(Ordering::Acquire).max(self.everything.load(Ordering::Acquire))
    }

    /// Lets a test act as another thread between two steps of a judgement.
    #[inline]
    #[cfg_attr(not(test), allow(clippy::unused_self))]
    fn meanwhile(&self) {
        #[cfg(test)]
        if let Some(other_thread) = lock(&self.other_thread).as_mut() {
            other_thread(self);
        }
    }

    #[cold]
    fn ended(&self, mark: Mark, now: Timestamp) -> Verdict {
        // An entry that was not read back yet was written just now.
        let written = lock(&self.timeline).written(mark.position()).unwrap_or(now);
        let is_recent = now.saturating_since(written).as_secs() < MOMENTS;
        // If the clock of its writer is ahead, a minute by that clock could last for hours here.
        let is_ahead = written.saturating_since(now).as_secs() > MOMENTS;
        // The time of an entry is at most that of its first reading here: for two hours after a failover, Redis dates entries
        // ahead. A process that begins must not grant the minute again.
        let is_old = mark.position() <= self.loaded.load(Ordering::Acquire);
        match is_recent {
            true if mark.is_retired() && !is_ahead && !is_old => Verdict::Retiring,
            true if mark.is_superseded() => Verdict::Superseded,
            _ => Verdict::Revoked,
        }
    }

    /// Returns the sequence of a position. A position of another incarnation is before all of this one.
    #[inline]
    fn sequence(&self, position: Position) -> u64 {
        if position.incarnation == self.incarnation { position.sequence } else { 0 }
    }

    /// Returns true if everything up to `position` is known, and was confirmed no longer than `max_staleness` ago.
    #[inline]
    fn is_current(&self, position: u64, max_staleness: Duration) -> bool {
        match self.storage {
            // Every append also writes to the set.
            Storage::Memory(_) => true,
            Storage::Log(_) => position <= self.known.load(Ordering::Acquire) && self.age() <= max_staleness,
        }
    }

    /// Returns how long ago the log was last read to its end.
    fn age(&self) -> Duration {
        let confirmed = Duration::from_micros(self.confirmed.load(Ordering::Acquire));
        self.start.elapsed().saturating_sub(confirmed)
    }

    /// Waits until the log was read up to `position` and is current. Returns false if that cannot be confirmed in time.
    pub(crate) async fn confirm(&self, position: Position, max_staleness: Duration) -> bool {
        let position = self.sequence(position);
        let deadline = tokio::time::Instant::now() + bounded(max_staleness);
        let rounds = self.rounds.load(Ordering::Acquire);
        loop {
            let mut progress = std::pin::pin!(self.progress.notified());
            progress.as_mut().enable();
            if self.is_current(position, max_staleness) {
                return true;
            }
            // Waiting needs the clock of a runtime.
            if check_runtime().is_err() {
                return false;
            }
            // The second read since then began afterwards.
            let read = self.rounds.load(Ordering::Acquire) >= rounds.saturating_add(2);
            if read && position > self.known.load(Ordering::Acquire) {
                self.rolled_back(position).await;
                return false;
            }
            // One slow reply of the log fails no request, and neither does a task that is started again after its runtime has
            // ended. A log that is down for longer than sessions are trusted delays none.
            let until = if self.is_failing() && !self.is_stopped() {
                let left = bounded(max_staleness.saturating_sub(self.age()));
                deadline.min(tokio::time::Instant::now() + left)
            } else {
                deadline
            };
            if tokio::time::timeout_at(until, progress).await.is_err() {
                return false;
            }
        }
    }

    /// Raises a log that ends before a position that it once gave, so that later entries come behind that position.
    async fn rolled_back(&self, position: u64) {
        self.report(RevocationChange::RolledBack);
        if let Storage::Log(log) = &self.storage {
            // If it fails, the next request with such a position tries again.
            let _ = log.top(position).await;
        }
    }

    /// Returns the present end of the log, for a session whose login is about to be checked.
    pub(crate) async fn position(&self) -> Result<Position, Error> {
        let sequence = match &self.storage {
            Storage::Memory(_) => self.known.load(Ordering::Acquire),
            Storage::Log(log) => {
                let top = log.top(self.highest.load(Ordering::Acquire)).await?;
                self.highest.fetch_max(top, Ordering::AcqRel);
                top
            }
        };
        Ok(self.at(sequence))
    }

    /// Does the same as [`position`](Self::position) without asking the log, for a session without a login and for a
    /// log in memory.
    pub(crate) fn known_position(&self) -> Position {
        self.at(self.known.load(Ordering::Acquire))
    }

    fn at(&self, sequence: u64) -> Position {
        Position { incarnation: self.incarnation, sequence }
    }

    /// Returns true if no operation ever has to wait.
    pub(crate) fn is_immediate(&self) -> bool {
        matches!(self.storage, Storage::Memory(_))
    }

    /// Revokes at once. Returns `None` if the log must be waited for.
    pub(crate) fn revoke_at_once(&self, revocations: &[Revocation]) -> Option<Position> {
        let Storage::Memory(log) = &self.storage else { return None };
        Some(self.append_in_memory(log, revocations, || ()))
    }

    /// Revokes in memory. `before` is called when no other task can revoke.
    fn append_in_memory(
        &self,
        log: &MemoryLog,
        revocations: &[Revocation],
        before: impl FnOnce(),
    ) -> Position {
        let now = self.now();
        let sequence = log.append(|position| {
            before();
            self.note(now, position);
            for revocation in revocations {
                self.apply(position, *revocation);
            }
            self.known.store(position, Ordering::Release);
        });
        self.sweep();
        self.bound();
        self.at(sequence)
    }

    /// Revokes, and returns the position when the revocation is durable. Every process will then learn of it.
    pub(crate) async fn revoke(&self, revocations: Vec<Revocation>) -> Result<Position, Error> {
        if let Some(position) = self.revoke_at_once(&revocations) {
            return Ok(position);
        }
        let Storage::Log(log) = &self.storage else {
            return Ok(self.known_position());
        };
        let highest = self.highest.load(Ordering::Acquire);
        let last = log.append(revocations.clone(), highest).await?;
        // This process knows the revocations now; other processes learn of them by reading. `known` only moves when
        // this process reads them, too.
        self.highest.fetch_max(last, Ordering::AcqRel);
        let count = revocations.len();
        for (number, revocation) in (1..).zip(revocations) {
            // Of several, only the position of the last one is known. The others are somewhere behind `highest`.
            let above = if number == count { last.saturating_sub(1) } else { highest };
            // With a higher position than the log has, an entry would seem to be lost. So it gets the lowest possible one until it is
            // read, unless sessions would then be valid for as long.
            let position = if revocation.counts_by_position() { last } else { above.saturating_add(1) };
            self.apply(position, revocation);
            self.remember(std::iter::once((position, revocation)), false);
            let mut unread = lock(&self.unread);
            if unread.len() >= MAX_RECENT {
                // Nothing is read for so long only while the log fails. After that, all recent entries are looked for.
                unread.pop_front();
            }
            unread.push_back(Unread { above, last, revocation });
        }
        self.bound();
        Ok(self.at(last))
    }

    /// Ends all sessions of `owner` except one, which continues behind this revocation. So far it is at `from`; `None` if it
    /// begins now. `revocations` are recorded first, in the same step.
    ///
    /// The position of this revocation hides earlier ones of the same subject. So they are looked for, in the time since the
    /// session was judged: a session must not outrun the end of its subject.
    pub(crate) async fn end_others(
        &self,
        mut revocations: Vec<Revocation>,
        owner: Name,
        from: Option<Position>,
        max_staleness: Duration,
    ) -> Result<Continued, Error> {
        let (key, from) = (Key::of_name(owner), from.map(|from| self.sequence(from)));
        let is_named =
            || from.is_some_and(|from| self.set.view().get(key).is_some_and(|mark| mark.ends(from)));
        if is_named() {
            return Ok(Continued::Nowhere);
        }
        let mut ended = false;
        let position = if let Storage::Memory(log) = &self.storage {
            revocations.push(Revocation::of_owner(owner));
            self.append_in_memory(log, &revocations, || ended = is_named())
        } else {
            let own = Revocation::of_owner(owner).by_call(&SystemRandom)?;
            revocations.push(own);
            let position = self.revoke(revocations).await?;
            if !self.confirm(position, max_staleness).await {
                return Ok(Continued::Unconfirmed);
            }
            ended = from.is_some_and(|from| self.may_name_between(key, from, position.sequence, own));
            position
        };
        Ok(if ended { Continued::Nowhere } else { Continued::At(position) })
    }

    /// Ends the session of this id and lineage, which moves to another store. `judged` is a position up to which no known
    /// revocation ended it. With `is_recorded` false, its subject has caused too many revocations, and none is written.
    pub(crate) async fn end_moved(
        &self,
        id: SessionId,
        lineage: &Lineage,
        labels: &Labels<'_>,
        judged: Position,
        is_recorded: bool,
        max_staleness: Duration,
    ) -> Result<Continued, Error> {
        // A session that cannot be judged stays where it is.
        if !self.confirm(judged, max_staleness).await {
            return Ok(Continued::Unconfirmed);
        }
        let root = lineage.root.unwrap_or(id);
        let own = Revocation::of_root(root, true).by_call(&SystemRandom)?;
        let end = if is_recorded { self.revoke(vec![own]).await? } else { self.position().await? };
        if !self.confirm(end, max_staleness).await {
            return Ok(Continued::Unconfirmed);
        }
        let (from, to) = (self.sequence(judged), end.sequence.saturating_add(1));
        let is_named = |key| self.may_name_between(key, from, to, own);
        let position = self.sequence(lineage.position);
        let view = self.set.view();
        let ended = is_named(Key::of_root(root))
            || is_named(Key::of_id(id))
            || names_end(&view, position, lineage, labels)
            || position < self.revoked_below();
        Ok(if ended { Continued::Nowhere } else { Continued::At(end) })
    }

    /// Returns true if a recent revocation of `key` is behind `from` and before `to`, or there were too many to tell. One like
    /// `own` is by the same call: it was sent again after a reply was lost.
    fn may_name_between(&self, key: Key, from: u64, to: u64, own: Revocation) -> bool {
        let recent = lock(&self.recent);
        let is_between = |recent: &Recent| {
            let position = recent.revocation.mark(recent.position).position();
            recent.revocation.key() == key && recent.revocation != own && position > from && position < to
        };
        // Entries that were dropped may lie behind `from`.
        let dropped =
            recent.len() >= MAX_RECENT && recent.front().is_none_or(|oldest| oldest.position > from);
        dropped || recent.iter().any(is_between)
    }

    /// Counts one revocation of `owner`. Returns true if it has not caused too many yet.
    pub(crate) fn spend(&self, owner: Name) -> bool {
        self.settings.get().is_none_or(|settings| settings.budget.spend(owner, self.now(), self.horizon()))
    }

    fn apply(&self, position: u64, revocation: Revocation) {
        let mark = revocation.mark(position);
        if revocation.key().is_everything() {
            self.everything.fetch_max(mark.position(), Ordering::AcqRel);
        } else if mark.position() > self.swept.load(Ordering::Acquire) {
            self.set.insert(revocation.key(), mark);
        }
    }

    fn note(&self, time: Timestamp, position: u64) {
        lock(&self.timeline).note(time, position, self.horizon());
    }

    fn remember(&self, entries: impl Iterator<Item = (u64, Revocation)>, read: bool) {
        let seen = Instant::now();
        let mut recent = lock(&self.recent);
        let is_old = |first: &Recent| seen.saturating_duration_since(first.seen) > RECENT;
        while recent.front().is_some_and(is_old) {
            recent.pop_front();
        }
        for (position, revocation) in entries {
            if recent.len() >= MAX_RECENT {
                recent.pop_front();
            }
            recent.push_back(Recent { seen, position, revocation, read });
        }
    }

    /// Returns how long revocations are remembered: without bound until a store has set how long sessions last.
    pub(super) fn horizon(&self) -> Duration {
        match self.horizon.load(Ordering::Acquire) {
            0 => Duration::MAX,
            seconds => Duration::from_secs(seconds).saturating_add(MARGIN),
        }
    }

    /// Forgets revocations that are older than any session can be.
    pub(super) fn sweep(&self) {
        let horizon = self.horizon();
        let then = self.now().as_unix().saturating_sub(horizon.as_secs());
        let expired = lock(&self.timeline).reached_by(Timestamp::from_unix(then));
        if expired > self.swept.fetch_max(expired, Ordering::AcqRel) {
            self.set.retain(|mark| mark.position() > expired);
        }
    }

    /// Replaces the oldest revocations by a floor, if there are too many.
    fn bound(&self) {
        let max = self.max.load(Ordering::Acquire);
        if self.set.len() <= max {
            return;
        }
        if self.cut(max) {
            self.report(RevocationChange::Floor);
        }
    }

    fn cut(&self, max: usize) -> bool {
        let _one = lock(&self.overflow);
        let mut positions: Vec<u64> = self.set.marks().iter().map(|(_, mark)| mark.position()).collect();
        // A sixteenth at once, so that it rarely happens.
        let drop = positions.len().saturating_sub(max - max / 16);
        if positions.len() <= max || drop == 0 {
            return false;
        }
        let (_, &mut cut, _) = positions.select_nth_unstable(drop - 1);
        // The floor first: meanwhile more sessions have ended, not fewer.
        self.floor.fetch_max(cut, Ordering::AcqRel);
        self.swept.fetch_max(cut, Ordering::AcqRel);
        self.set.retain(|mark| mark.position() > cut);
        true
    }

    pub(crate) fn report(&self, change: RevocationChange) {
        if let Some(settings) = self.settings.get() {
            settings.reporter.report(EventKind::Revocations { change });
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.settings.get().map_or_else(|| SystemClock.now(), |settings| settings.clock.now())
    }

    /// Returns how many names are revoked.
    pub(super) fn len(&self) -> usize {
        self.set.len()
    }
}

/// The operations of the log's follower.
impl Register {
    pub(super) fn highest(&self) -> u64 {
        self.highest.load(Ordering::Acquire)
    }

    /// Takes in entries that were read.
    pub(super) fn take_in(&self, entries: &[Entry]) {
        {
            let (mut timeline, horizon) = (lock(&self.timeline), self.horizon());
            for entry in entries {
                timeline.note(entry.written, entry.position, horizon);
            }
        }
        for entry in entries {
            self.apply(entry.position, entry.revocation);
        }
        self.remember(entries.iter().map(|entry| (entry.position, entry.revocation)), true);
        self.bound();
    }

    /// Notes that the log was read to its end, `top`, by a read that began at `began`.
    pub(super) fn confirmed(&self, top: u64, began: Instant) {
        self.highest.fetch_max(top, Ordering::AcqRel);
        self.known.fetch_max(top, Ordering::AcqRel);
        let micros = u64::try_from(began.saturating_duration_since(self.start).as_micros());
        self.confirmed.store(micros.unwrap_or(u64::MAX), Ordering::Release);
        self.rounds.fetch_add(1, Ordering::AcqRel);
        self.stopped.store(false, Ordering::Release);
        if self.failing.swap(false, Ordering::AcqRel) {
            self.report(RevocationChange::Reachable);
        }
        self.progress.notify_waiters();
    }

    /// Returns true if the log was read to `top`, and an entry that this process appended was missing. Each entry is
    /// checked once.
    pub(super) fn has_lost_entries(&self, top: u64) -> bool {
        let mut missing: HashMap<Revocation, Vec<Unread>> = HashMap::new();
        lock(&self.unread).retain(|entry| {
            let due = entry.last <= top;
            if due {
                missing.entry(entry.revocation).or_default().push(*entry);
            }
            !due
        });
        // They are among the last entries, and there may be thousands of them.
        for recent in lock(&self.recent).iter().rev().filter(|recent| recent.read) {
            if missing.is_empty() {
                break;
            }
            if let Some(entries) = missing.get_mut(&recent.revocation) {
                entries.retain(|entry| recent.position <= entry.above || recent.position > entry.last);
                if entries.is_empty() {
                    missing.remove(&recent.revocation);
                }
            }
        }
        !missing.is_empty()
    }

    /// Notes that this process has read the log for the first time, to `top`.
    pub(super) fn loaded(&self, top: u64) {
        self.loaded.store(top, Ordering::Release);
    }

    /// Notes that the log could not be read.
    pub(super) fn failed(&self) {
        self.stopped.store(false, Ordering::Release);
        self.report_unreachable();
    }

    /// Notes that the task that reads the log has ended. The log itself may work, unless the task has panicked before it read
    /// anything.
    pub(super) fn stopped(&self, panicked: bool) {
        self.stopped.store(!(panicked && self.is_failing()), Ordering::Release);
        self.report_unreachable();
    }

    fn report_unreachable(&self) {
        if !self.failing.swap(true, Ordering::AcqRel) {
            self.report(RevocationChange::Unreachable);
        }
        self.progress.notify_waiters();
    }

    pub(super) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Acquire)
    }

    /// Returns true if the task that reads the log has ended, and the log itself may work.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Returns the shortest staleness that a store allows, or `None` before there is a store.
    pub(super) fn shortest_staleness(&self) -> Option<Duration> {
        let millis = self.max_staleness.load(Ordering::Acquire);
        (millis != u64::MAX).then(|| Duration::from_millis(millis))
    }

    /// Returns the position before all recent entries.
    pub(super) fn before_recent(&self, top: u64) -> u64 {
        lock(&self.recent)
            .iter()
            .map(|recent| recent.position)
            .min()
            .map_or(top, |first| first.saturating_sub(1))
    }

    /// Returns the recent revocations that are in force.
    pub(super) fn recent(&self) -> Vec<(Key, Mark)> {
        let recent = lock(&self.recent);
        recent
            .iter()
            .map(|recent| (recent.revocation.key(), recent.revocation.mark(recent.position)))
            .collect()
    }

    /// Returns all known revocations that are in force.
    pub(super) fn everything_known(&self) -> Vec<(Key, Mark)> {
        let mut marks = self.set.marks();
        let everything = self.everything.load(Ordering::Acquire);
        if everything > 0 {
            marks.push((Revocation::of_everything().key(), Mark::at(everything)));
        }
        marks
    }
}

/// Returns true if the subject or a label of a session with this position was revoked.
#[inline]
fn names_end(view: &View, position: u64, lineage: &Lineage, labels: &Labels<'_>) -> bool {
    let ends = |name: Name| view.get(Key::of_name(name)).is_some_and(|mark| mark.ends(position));
    lineage.owner.is_some_and(ends) || labels.names().any(ends)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::SystemRandom;
    use crate::error::Error;
    use crate::revocation::{Page, RevocationLog};
    use crate::session::Payload;

    pub(super) type OtherThread = Box<dyn FnMut(&Register) + Send>;

    const ID: SessionId = SessionId::from_bytes([9; 16]);
    const HOUR: Duration = Duration::from_secs(3_600);

    /// Judges the session `ID`, which logged in at `sequence`.
    fn judge(register: &Register, sequence: u64, now: u64) -> Verdict {
        let lineage = Lineage { position: register.at(sequence), owner: None, root: None };
        register.judge(ID, &lineage, &Payload::default().labels(), Timestamp::from_unix(now), HOUR)
    }

    /// Does the same as [`judge`], while another thread takes `step` at the point with this
    /// number.
    fn judged(register: &Register, sequence: u64, point: usize, step: fn(&Register)) -> Verdict {
        let points = Arc::new(AtomicUsize::new(0));
        let passed = Arc::clone(&points);
        *lock(&register.other_thread) = Some(Box::new(move |register| {
            if passed.fetch_add(1, Ordering::SeqCst) == point {
                step(register);
            }
        }));
        let verdict = judge(register, sequence, 100);
        *lock(&register.other_thread) = None;
        assert_eq!(points.load(Ordering::SeqCst), 2, "the other thread had its turns");
        verdict
    }

    /// More revocations than the tables of the set have room for.
    fn many() -> impl Iterator<Item = Revocation> {
        (1..=4_096_u128).map(|number| Revocation::of_owner((number << 64 | number).to_be_bytes()))
    }

    #[test]
    fn a_revocation_that_is_forgotten_during_a_judgement_is_not_missed() {
        for point in 0..2 {
            let register = Register::in_memory(&SystemRandom).unwrap();
            register.revoke_at_once(&[Revocation::of_root(ID, false)]).unwrap();
            let verdict = judged(&register, 1, point, |register| {
                register.max.store(64, Ordering::Release);
                for revocation in many() {
                    register.revoke_at_once(&[revocation]).unwrap();
                }
                assert!(register.set.view().get(Key::of_root(ID)).is_none(), "the floor replaced it");
            });
            assert_eq!(verdict, Verdict::Revoked, "at point {point}");
        }
    }

    #[test]
    fn a_revocation_that_is_read_during_a_judgement_is_not_missed() {
        for point in 0..2 {
            let register = Register::over(Arc::new(At(1)), &SystemRandom).unwrap();
            let verdict = judged(&register, 1, point, |register| {
                let entries = many().chain([Revocation::of_root(ID, false)]).zip(2..);
                let written = Timestamp::from_unix(1);
                let entries: Vec<_> =
                    entries.map(|(revocation, position)| Entry { position, written, revocation }).collect();
                register.take_in(&entries);
                register.confirmed(entries.last().unwrap().position, Instant::now());
            });
            assert!(
                matches!(verdict, Verdict::Revoked | Verdict::Unconfirmed),
                "{verdict:?} at point {point}"
            );
        }
    }

    /// A log whose next entry is at this position.
    struct At(u64);

    impl RevocationLog for At {
        fn incarnation(&self) -> u64 {
            1
        }

        async fn append(&self, _: Vec<Revocation>, _: u64) -> Result<u64, Error> {
            Ok(self.0)
        }

        async fn top(&self, _: u64) -> Result<u64, Error> {
            Ok(self.0)
        }

        async fn read(&self, _: u64, _: Duration) -> Result<Page, Error> {
            Ok(Page::default())
        }

        async fn trim(&self, _: Duration) -> Result<(), Error> {
            Ok(())
        }
    }

    fn over_log(top: u64) -> Register {
        Register::over(Arc::new(At(top)), &SystemRandom).unwrap()
    }

    #[test]
    fn an_old_id_is_told_from_a_revoked_one_for_a_minute() {
        use Verdict::{Retiring, Revoked, Superseded};
        const WRITTEN: u64 = 1_000;
        let verdict = |revocation, now| {
            let register = over_log(1);
            let written = Timestamp::from_unix(WRITTEN);
            register.take_in(&[Entry { position: 1, written, revocation }]);
            register.confirmed(1, Instant::now());
            judge(&register, 1, now)
        };
        for (now, retiring, superseded) in [
            (WRITTEN, Retiring, Superseded),
            (WRITTEN + 59, Retiring, Superseded),
            (WRITTEN + 60, Revoked, Revoked),
            // The clock of the host that wrote it is ahead: an id must not be valid for as long as that.
            (WRITTEN - 60, Retiring, Superseded),
            (WRITTEN - 61, Superseded, Superseded),
        ] {
            assert_eq!(verdict(Revocation::retiring_id(ID), now), retiring, "at {now}");
            assert_eq!(verdict(Revocation::of_id(ID, true), now), superseded, "at {now}");
            assert_eq!(verdict(Revocation::of_id(ID, false), now), Revoked, "at {now}");
        }
    }

    #[test]
    fn a_session_that_begins_at_the_end_of_all_sessions_is_valid() {
        let register = Register::in_memory(&SystemRandom).unwrap();
        let end = register.revoke_at_once(&[Revocation::of_everything()]).unwrap().sequence;
        let verdict = |sequence| judge(&register, sequence, 100);
        assert_eq!([verdict(end - 1), verdict(end)], [Verdict::Revoked, Verdict::Valid]);
    }

    async fn is_pending(future: std::pin::Pin<&mut impl Future<Output = bool>>) -> bool {
        let mut future = future;
        std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx).is_pending())).await
    }

    #[tokio::test]
    async fn a_log_that_fails_for_a_moment_delays_a_request_and_fails_none() {
        let register = over_log(2);
        register.confirmed(1, Instant::now());
        register.failed();
        let mut confirming = std::pin::pin!(register.confirm(register.at(2), HOUR));
        assert!(is_pending(confirming.as_mut()).await);
        register.confirmed(2, Instant::now());
        assert!(confirming.await);
    }

    /// A task that ends with its runtime says nothing about the log. A task that panics before it has read anything does.
    #[tokio::test]
    async fn a_request_waits_for_a_task_that_is_started_again_and_not_for_a_log_that_fails() {
        type Step = fn(&Register);
        let (fails, ends, panics): (Step, Step, Step) =
            (Register::failed, |register| register.stopped(false), |register| register.stopped(true));
        let cases: [(&[Step], bool); 7] = [
            (&[fails], false),
            (&[ends], true),
            (&[panics], true),
            (&[panics, panics], false),
            (&[fails, panics], false),
            (&[fails, ends], true),
            (&[ends, fails], false),
        ];
        for (number, (steps, waits)) in cases.into_iter().enumerate() {
            let mut register = over_log(1);
            register.start = Instant::now().checked_sub(2 * HOUR).unwrap();
            let long_ago = register.start;
            register.confirmed(1, long_ago);
            for step in steps {
                step(&register);
            }
            let mut confirming = std::pin::pin!(register.confirm(register.at(1), HOUR));
            // A request that gives up does so at once, however long that takes on a busy machine.
            let patience = if waits { Duration::from_millis(10) } else { HOUR / 60 };
            let given_up = tokio::time::timeout(patience, confirming.as_mut()).await.ok();
            assert_eq!(given_up, (!waits).then_some(false), "case {number}");
            if waits {
                register.confirmed(1, Instant::now());
                assert!(confirming.await);
            }
        }
    }

    // Only a log that ends before the position was rolled back. To raise another log wastes positions, and the
    // request would fail.
    #[tokio::test]
    async fn a_log_that_was_read_late_is_not_taken_for_one_that_was_rolled_back() {
        let mut register = over_log(1);
        register.start = Instant::now().checked_sub(2 * HOUR).unwrap();
        let long_ago = register.start;
        let mut confirming = std::pin::pin!(register.confirm(register.at(1), HOUR));
        for _ in 0..3 {
            assert!(is_pending(confirming.as_mut()).await);
            register.confirmed(1, long_ago);
        }
        assert!(is_pending(confirming.as_mut()).await);
        register.confirmed(1, Instant::now());
        assert!(confirming.await);
    }

    struct Settable(AtomicU64);

    impl Clock for Settable {
        fn now(&self) -> Timestamp {
            Timestamp::from_unix(self.0.load(Ordering::SeqCst))
        }
    }

    fn attach(register: &Register, max: usize, refuse_unknown: bool) {
        attach_for(register, max, refuse_unknown, HOUR);
    }

    /// Attaches a store whose sessions last for so long. Returns its clock.
    fn attach_for(register: &Register, max: usize, refuse_unknown: bool, longest: Duration) -> Arc<Settable> {
        let reporter = Reporter { cookie: String::new(), observer: None };
        let clock = Arc::new(Settable(AtomicU64::new(100)));
        let limits = StoreLimits { max, max_per_subject: 1, max_staleness: HOUR, refuse_unknown };
        register.attach(limits, longest, Arc::clone(&clock) as Arc<dyn Clock>, reporter);
        clock
    }

    #[test]
    fn a_store_whose_sessions_last_for_longer_refuses_those_whose_revocations_may_be_forgotten() {
        let register = Register::in_memory(&SystemRandom).unwrap();
        let clock = attach_for(&register, 32, false, HOUR);
        let forgotten = register.revoke_at_once(&[Revocation::of_root(ID, false)]).unwrap().sequence;
        let now = 100 + (HOUR + MARGIN).as_secs();
        clock.0.store(now, Ordering::SeqCst);
        register.sweep();
        assert_eq!(register.len(), 0);
        let judged = || [forgotten - 1, forgotten].map(|at| judge(&register, at, now));
        attach_for(&register, 32, false, HOUR);
        assert_eq!(judged(), [Verdict::Valid; 2], "the first store's sessions have expired");
        attach_for(&register, 32, false, 2 * HOUR);
        assert_eq!(judged(), [Verdict::Revoked, Verdict::Valid]);
    }

    #[tokio::test]
    async fn a_log_that_is_not_read_does_not_fill_the_memory() {
        let register = over_log(1);
        for _ in 0..17 {
            register.revoke(vec![Revocation::of_owner([7; 16]); 4_096]).await.unwrap();
        }
        assert_eq!(lock(&register.unread).len(), MAX_RECENT);
        assert!(register.has_lost_entries(1));
        assert_eq!(lock(&register.unread).len(), 0);
    }

    #[test]
    fn the_first_store_sets_the_limits() {
        let register = Register::in_memory(&SystemRandom).unwrap();
        attach(&register, 32, false);
        attach(&register, 1_000_000, false);
        assert_eq!(register.horizon(), HOUR + MARGIN);
        assert!(register.spend([1; 16]) && !register.spend([1; 16]));
        // Their positions begin at 2.
        let mut revocations = many();
        for revocation in revocations.by_ref().take(32) {
            register.revoke_at_once(&[revocation]).unwrap();
        }
        assert_eq!((register.len(), judge(&register, 0, 100)), (32, Verdict::Valid));
        // Beyond the limit, the oldest ones make room: a sixteenth, and the surplus one. The sessions before them have
        // ended.
        register.revoke_at_once(&[revocations.next().unwrap()]).unwrap();
        assert_eq!(register.len(), 30);
        assert_eq!([3, 4].map(|at| judge(&register, at, 100)), [Verdict::Revoked, Verdict::Valid]);
    }

    #[test]
    fn a_revocation_that_was_forgotten_is_not_taken_in_again() {
        let register = over_log(1);
        attach(&register, 32, false);
        let written = Timestamp::from_unix(100);
        let entries: Vec<_> = many()
            .take(33)
            .zip(1..)
            .map(|(revocation, position)| Entry { position, written, revocation })
            .collect();
        for _ in 0..2 {
            register.take_in(&entries);
            assert_eq!(register.len(), 30, "three made room");
        }
    }

    #[test]
    fn an_entry_is_recent_for_two_minutes() {
        let register = over_log(1);
        let remember =
            |position| register.remember(std::iter::once((position, Revocation::of_owner([7; 16]))), true);
        remember(1);
        remember(2);
        assert_eq!((register.recent().len(), register.before_recent(9)), (2, 0));
        for recent in lock(&register.recent).iter_mut().take(1) {
            recent.seen = recent.seen.checked_sub(RECENT + Duration::from_secs(1)).unwrap();
        }
        remember(3);
        assert_eq!((register.recent().len(), register.before_recent(9)), (2, 1));
    }

    #[test]
    fn only_another_end_of_the_subject_in_between_counts() {
        let of = |name| Revocation::of_owner([name; 16]);
        let by_call = |call| of(8).by_this_call(call);
        for (position, revocation, counts) in [
            (2, of(8), false),
            (3, of(8), true),
            (4, of(8), true),
            (5, of(8), false),
            (3, of(7), false),
            (3, by_call(1), false),
            (3, by_call(2), true),
        ] {
            let register = over_log(1);
            register.remember(std::iter::once((position, revocation)), true);
            let named = register.may_name_between(Key::of_name([8; 16]), 2, 5, by_call(1));
            assert_eq!(named, counts, "{revocation:?} at {position}");
        }
    }

    // Another end of the subject may have been among them. The session must not continue behind it.
    #[test]
    fn recent_entries_that_were_dropped_may_have_ended_the_subject() {
        let owner = Key::of_name([8; 16]);
        let is_named = |register: &Register, from| {
            register.may_name_between(owner, from, u64::MAX, Revocation::of_everything())
        };
        let entry = |position, name| {
            let revocation = Revocation::of_owner([name; 16]);
            Entry { position, written: Timestamp::from_unix(1), revocation }
        };
        let last = MAX_RECENT as u64;
        let register = over_log(1);
        register.take_in(&(2..=last).map(|position| entry(position, 7)).collect::<Vec<_>>());
        assert!(!is_named(&register, 1), "there is room for one more");
        // On one page, too, the first entry is dropped.
        let register = over_log(1);
        let page: Vec<_> =
            (1..=last + 1).map(|position| entry(position, if position == 1 { 8 } else { 7 })).collect();
        register.take_in(&page);
        assert_eq!([0, 2].map(|from| is_named(&register, from)), [true, false]);
    }

    #[test]
    fn a_store_can_refuse_sessions_without_a_position() {
        let register = Register::in_memory(&SystemRandom).unwrap();
        attach(&register, 32, false);
        assert_eq!(judge(&register, 0, 100), Verdict::Valid);
        attach(&register, 32, true);
        assert_eq!([0, 1].map(|at| judge(&register, at, 100)), [Verdict::Revoked, Verdict::Valid]);
    }

    #[test]
    fn each_of_two_entries_with_one_name_must_be_read() {
        let revocation = Revocation::of_owner([7; 16]);
        let read =
            |position: &u64| Entry { position: *position, written: Timestamp::from_unix(1), revocation };
        for (there, lost) in [(&[2, 4][..], false), (&[2], true), (&[4], true), (&[], true)] {
            let register = over_log(4);
            let unread = [2, 4].map(|last| Unread { above: last - 1, last, revocation });
            lock(&register.unread).extend(unread);
            register.take_in(&there.iter().map(read).collect::<Vec<_>>());
            assert_eq!(register.has_lost_entries(4), lost, "{there:?}");
        }
    }

    // Two hosts end the sessions of one subject, and a failover loses the second entry. The first one is not it: it does not
    // end the session of a login between the two.
    #[tokio::test]
    async fn an_entry_of_another_host_is_not_taken_for_a_lost_one() {
        let revocation = Revocation::of_owner([7; 16]);
        let read = |position| Entry { position, written: Timestamp::from_unix(1), revocation };
        for (there, lost) in [(1, true), (2, false)] {
            let register = Register::over(Arc::new(At(2)), &SystemRandom).unwrap();
            assert_eq!(register.revoke(vec![revocation]).await.unwrap().sequence, 2);
            register.take_in(&[read(there)]);
            assert!(!register.has_lost_entries(1), "the log was not read so far");
            assert_eq!(register.has_lost_entries(2), lost, "an entry at {there}");
            assert!(!register.has_lost_entries(2), "each entry is checked once");
        }
    }
}
