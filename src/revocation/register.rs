//! The revocations that one process knows, and how current they are.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use super::budget::Budget;
use super::freshness::{Confirmation, Freshness};
use super::log::{AnyLog, Entry};
use super::memory::MemoryLog;
use super::recent::{RecentEntries, Unread};
use super::revocation::{Key, Mark, Revocation};
use super::set::{Set, View};
use super::timeline::{self, Timeline};
use crate::clock::{Clock, MAX_CLOCK_SKEW, SystemClock, Timestamp};
use crate::crypto::{Random, SystemRandom};
use crate::error::Error;
use crate::event::{EventKind, Reporter, RevocationChange};
use crate::lock::lock;
use crate::session::{Labels, Lineage, Name, Position, SUPERSEDED_FOR, SessionId};

/// For this long, the old id of a session that was bound to a device counts as superseded: longer than [`SUPERSEDED_FOR`], because
/// it opens the session for that long. Only then can a slow request of the login page find its token superseded.
const RETIRED_FOR: Duration = Duration::from_secs(300);
const _: () = {
    assert!(SUPERSEDED_FOR.as_secs() < RETIRED_FOR.as_secs());
    assert!(RETIRED_FOR.as_secs() <= timeline::RECENT.as_secs(), "it takes exact times");
};

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
    /// The highest position that this process has seen, in the log or in a reply.
    highest: AtomicU64,
    pub(super) freshness: Freshness,
    timeline: Mutex<Timeline>,
    pub(super) recent: RecentEntries,
    /// Revocations at or below this position were forgotten.
    swept: AtomicU64,
    /// The latest time at which revocations were forgotten, in seconds.
    forgot_at: AtomicU64,
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
pub(crate) enum Continuation {
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
        Self::new(Storage::Memory(log), incarnation, 1, random)
    }

    pub(super) fn over(log: Arc<dyn AnyLog>, random: &dyn Random) -> Result<Self, Error> {
        let incarnation = log.incarnation();
        Self::new(Storage::Log(log), incarnation, 0, random)
    }

    /// Creates a register that knows all entries up to `known`.
    fn new(storage: Storage, incarnation: u64, known: u64, random: &dyn Random) -> Result<Self, Error> {
        let mut seed = [0; 16];
        random.fill(&mut seed)?;
        let Key(seed) = Key::of_name(seed);
        Ok(Self {
            storage,
            incarnation,
            set: Set::new(seed),
            everything: AtomicU64::new(0),
            floor: AtomicU64::new(0),
            highest: AtomicU64::new(0),
            freshness: Freshness::new(known),
            timeline: Mutex::default(),
            recent: RecentEntries::default(),
            swept: AtomicU64::new(0),
            forgot_at: AtomicU64::new(0),
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
        self.make_room();
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
        // the floor or `swept` first. In another order, a revocation that arrives or is forgotten in between would be missed.
        let is_current = self.is_current(position, max_staleness);
        self.let_test_interleave();
        let view = self.set.view();
        self.let_test_interleave();
        if position < self.revoked_below() || self.was_forgotten_early(position, now) {
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
        if is_ended_by_name(&view, position, lineage, labels) {
            return Verdict::Revoked;
        }
        if is_current { ended.unwrap_or(Verdict::Valid) } else { Verdict::Unconfirmed }
    }

    /// Returns the position below which all sessions have ended.
    #[inline]
    fn revoked_below(&self) -> u64 {
        self.floor.load(Ordering::Acquire).max(self.everything.load(Ordering::Acquire))
    }

    /// Returns true if a revocation of a session with this position may have been forgotten by a clock that was ahead.
    ///
    /// By the clock that forgot them, all sessions that the forgotten revocations ended have expired. If the clock now shows an
    /// earlier time, they have not. Each of them has a lower position than its revocation.
    #[inline]
    fn was_forgotten_early(&self, position: u64, now: Timestamp) -> bool {
        position < self.swept.load(Ordering::Acquire)
            && now.as_unix().saturating_add(MARGIN.as_secs()) < self.forgot_at.load(Ordering::Acquire)
    }

    /// Lets a test act as another thread between two steps of a judgement.
    #[inline]
    #[cfg_attr(not(test), allow(clippy::unused_self))]
    fn let_test_interleave(&self) {
        #[cfg(test)]
        if let Some(other_thread) = lock(&self.other_thread).as_mut() {
            other_thread(self);
        }
    }

    #[cold]
    fn ended(&self, mark: Mark, now: Timestamp) -> Verdict {
        // An entry that was not read back yet was written just now.
        let written = lock(&self.timeline).written(mark.position()).unwrap_or(now);
        let age = now.saturating_since(written);
        // If the clock of its writer is ahead, a minute by that clock could last for hours here.
        let is_ahead = written.saturating_since(now) > MAX_CLOCK_SKEW;
        // The time of an entry is at most that of its first reading here: for two hours after a failover, Redis dates entries
        // ahead. A process that begins must not grant the minute again.
        let is_old = mark.position() <= self.freshness.loaded();
        let superseded_for = if mark.is_retired() { RETIRED_FOR } else { SUPERSEDED_FOR };
        if mark.is_retired() && age < SUPERSEDED_FOR && !is_ahead && !is_old {
            Verdict::Retiring
        } else if mark.is_superseded() && age < superseded_for {
            Verdict::Superseded
        } else {
            Verdict::Revoked
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
            Storage::Log(_) => self.freshness.is_current(position, max_staleness),
        }
    }

    /// Waits until the log was read up to `position` and is current. Returns false if that cannot be confirmed in time.
    pub(crate) async fn confirm(&self, position: Position, max_staleness: Duration) -> bool {
        if self.is_immediate() {
            return true;
        }
        let position = self.sequence(position);
        match self.freshness.confirm(position, max_staleness).await {
            Confirmation::Current => true,
            Confirmation::Late => false,
            Confirmation::EndsBefore => {
                self.rolled_back(position).await;
                false
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
            Storage::Memory(_) => self.freshness.known(),
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
        self.at(self.freshness.known())
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
            self.freshness.note_known(position);
        });
        self.sweep();
        self.make_room();
        self.at(sequence)
    }

    /// Revokes, and returns the position when the revocation is durable. Every process will then learn of it.
    pub(crate) async fn revoke(&self, revocations: Vec<Revocation>) -> Result<Position, Error> {
        let log = match &self.storage {
            Storage::Memory(log) => return Ok(self.append_in_memory(log, &revocations, || ())),
            Storage::Log(log) => log,
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
            self.recent.remember(std::iter::once((position, revocation)), false);
            self.recent.expect(Unread { above, last, revocation });
        }
        self.make_room();
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
    ) -> Result<Continuation, Error> {
        let (key, from) = (Key::of_name(owner), from.map(|from| self.sequence(from)));
        let is_ended =
            || from.is_some_and(|from| self.set.view().get(key).is_some_and(|mark| mark.ends(from)));
        if is_ended() {
            return Ok(Continuation::Nowhere);
        }
        let mut ended = false;
        let position = if let Storage::Memory(log) = &self.storage {
            revocations.push(Revocation::of_owner(owner));
            self.append_in_memory(log, &revocations, || ended = is_ended())
        } else {
            let own = Revocation::of_owner(owner).by_call(&SystemRandom)?;
            revocations.push(own);
            let position = self.revoke(revocations).await?;
            if !self.confirm(position, max_staleness).await {
                return Ok(Continuation::Unconfirmed);
            }
            ended = from.is_some_and(|from| self.recent.may_name_between(key, from, position.sequence, own));
            position
        };
        Ok(if ended { Continuation::Nowhere } else { Continuation::At(position) })
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
    ) -> Result<Continuation, Error> {
        // A session that cannot be judged stays where it is.
        if !self.confirm(judged, max_staleness).await {
            return Ok(Continuation::Unconfirmed);
        }
        let root = lineage.root.unwrap_or(id);
        let own = Revocation::of_root(root, true).by_call(&SystemRandom)?;
        let end = if is_recorded { self.revoke(vec![own]).await? } else { self.position().await? };
        if !self.confirm(end, max_staleness).await {
            return Ok(Continuation::Unconfirmed);
        }
        let (from, to) = (self.sequence(judged), end.sequence.saturating_add(1));
        let is_named = |key| self.recent.may_name_between(key, from, to, own);
        let position = self.sequence(lineage.position);
        let view = self.set.view();
        let ended = is_named(Key::of_root(root))
            || is_named(Key::of_id(id))
            || is_ended_by_name(&view, position, lineage, labels)
            || position < self.revoked_below();
        Ok(if ended { Continuation::Nowhere } else { Continuation::At(end) })
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

    /// Returns how long revocations are remembered: without bound until a store has set how long sessions last.
    pub(super) fn horizon(&self) -> Duration {
        match self.horizon.load(Ordering::Acquire) {
            0 => Duration::MAX,
            seconds => Duration::from_secs(seconds).saturating_add(MARGIN),
        }
    }

    /// Forgets revocations that are older than any session can be.
    pub(super) fn sweep(&self) {
        // The times of a log are not by the store's clock, which may be ahead of them by any time. Late is harmless.
        let now = match self.storage {
            Storage::Memory(_) => self.now(),
            Storage::Log(_) => self.now().min(SystemClock.now()),
        };
        let then = now.as_unix().saturating_sub(self.horizon().as_secs());
        let expired = lock(&self.timeline).reached_by(Timestamp::from_unix(then));
        if expired > self.swept.fetch_max(expired, Ordering::AcqRel) {
            self.forgot_at.fetch_max(now.as_unix(), Ordering::AcqRel);
            self.set.retain(|mark| mark.position() > expired);
        }
    }

    /// Replaces the oldest revocations by a floor, if there are too many.
    fn make_room(&self) {
        let max = self.max.load(Ordering::Acquire);
        if self.set.len() <= max {
            return;
        }
        if self.raise_floor(max) {
            self.report(RevocationChange::Floor);
        }
    }

    fn raise_floor(&self, max: usize) -> bool {
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

    /// Returns true if neither a name nor everything is revoked.
    pub(super) fn is_empty(&self) -> bool {
        // Sessions without a position may be refused by an option. No revocation has the position 1.
        self.len() == 0 && self.revoked_below() <= 1
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
            // If an entry is dated in the future, its writer's clock was wrong. The timeline only grows, so later entries would be
            // kept until that time. A log may use the store's clock, which may be ahead of the machine's.
            let now = self.now().max(SystemClock.now());
            for entry in entries {
                timeline.note(entry.written.min(now), entry.position, horizon);
            }
        }
        for entry in entries {
            self.apply(entry.position, entry.revocation);
        }
        self.recent.remember(entries.iter().map(|entry| (entry.position, entry.revocation)), true);
        self.make_room();
    }

    /// Notes that the log was read to its end, `top`, by a read that began at `began`.
    pub(super) fn note_confirmed(&self, top: u64, began: Instant) {
        self.highest.fetch_max(top, Ordering::AcqRel);
        if self.freshness.note_confirmed(top, began) {
            self.report(RevocationChange::Reachable);
        }
        self.freshness.wake();
    }

    /// Notes that the log could not be read.
    pub(super) fn note_failed(&self) {
        self.report_unreachable(self.freshness.note_failed());
    }

    /// Notes that the task that reads the log has ended. The log itself may work, unless the task has panicked before it read
    /// anything.
    pub(super) fn note_stopped(&self, panicked: bool) {
        self.report_unreachable(self.freshness.note_stopped(panicked));
    }

    fn report_unreachable(&self, is_news: bool) {
        if is_news {
            self.report(RevocationChange::Unreachable);
        }
        self.freshness.wake();
    }

    /// Returns the shortest staleness that a store allows, or `None` before there is a store.
    pub(super) fn shortest_staleness(&self) -> Option<Duration> {
        let millis = self.max_staleness.load(Ordering::Acquire);
        (millis != u64::MAX).then(|| Duration::from_millis(millis))
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
fn is_ended_by_name(view: &View, position: u64, lineage: &Lineage, labels: &Labels<'_>) -> bool {
    let ends = |name: Name| view.get(Key::of_name(name)).is_some_and(|mark| mark.ends(position));
    lineage.owner.is_some_and(ends) || labels.names().any(ends)
}

#[cfg(test)]
#[path = "register_tests.rs"]
mod tests;
