//! What one process knows of the log: the set of what was revoked, and how current that is.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::budget::Budget;
use super::log::{AnyLog, Entry};
use super::memory::MemoryLog;
use super::revocation::{Key, Mark, Revocation};
use super::set::Set;
use super::timeline::Timeline;
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::crypto::Random;
use crate::error::Error;
use crate::event::{Event, Reporter, RevocationChange};
use crate::session::{Labels, Lineage, Position, SessionId};

/// For so long, the cookie of a session that goes on under another id may be on its way to be replaced.
const MOMENTS: u64 = 60;

/// What was written in the last minutes is kept in its order, to see whether a failover lost it.
const RECENT: Duration = Duration::from_secs(120);
const MAX_RECENT: usize = 1 << 16;

/// Hosts' clocks may differ by an hour, and forgetting is not urgent.
pub(super) const MARGIN: Duration = Duration::from_secs(2 * 3_600);

pub(crate) struct Register {
    place: Place,
    incarnation: u64,
    set: Set,
    /// Sessions that stand below it are over: everything was revoked there.
    everything: AtomicU64,
    /// Sessions that stand below it are over: what was revoked among them is forgotten.
    floor: AtomicU64,
    /// Up to here all entries of the log are in the set.
    known: AtomicU64,
    /// The highest position that this process has seen, in the log or in an answer.
    highest: AtomicU64,
    /// When `known` was confirmed last, in microseconds after `start`.
    confirmed: AtomicU64,
    start: Instant,
    /// How often the log was read to its end.
    rounds: AtomicU64,
    /// The last read failed.
    failing: AtomicBool,
    /// Wakes those that wait for a confirmation.
    progress: Notify,
    timeline: Mutex<Timeline>,
    recent: Mutex<VecDeque<Recent>>,
    /// What this process has appended, and not read back yet.
    unread: Mutex<Vec<Unread>>,
    /// What is at or below it was forgotten.
    swept: AtomicU64,
    settings: OnceLock<Settings>,
    /// Longest absolute timeout of the stores, in seconds; zero before there is one.
    horizon: AtomicU64,
    max: AtomicUsize,
    /// One overflow is dealt with at a time.
    overflow: Mutex<()>,
}

enum Place {
    Memory(MemoryLog),
    Log(Arc<dyn AnyLog>),
}

/// What the first store that uses the register brings.
struct Settings {
    budget: Budget,
    clock: Arc<dyn Clock>,
    reporter: Reporter,
}

struct Recent {
    seen: Instant,
    position: u64,
    revocation: Revocation,
    /// It was read in the log, and not merely appended.
    read: bool,
}

/// An entry that has to come when the log is read from `above` to `last`.
struct Unread {
    above: u64,
    last: u64,
    revocation: Revocation,
}

/// Whether a session goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Valid,
    Revoked,
    /// It goes on under another id, which it was given moments ago.
    Superseded,
    /// Nothing that is known ends it, but what is known is not current.
    Unconfirmed,
}

impl Register {
    pub(super) fn in_memory(random: &dyn Random) -> Result<Self, Error> {
        let log = MemoryLog::new(random)?;
        let incarnation = log.incarnation;
        let register = Self::new(Place::Memory(log), incarnation, random)?;
        register.known.store(1, Ordering::Release);
        Ok(register)
    }

    pub(super) fn over(log: Arc<dyn AnyLog>, random: &dyn Random) -> Result<Self, Error> {
        let incarnation = log.incarnation();
        Self::new(Place::Log(log), incarnation, random)
    }

    fn new(place: Place, incarnation: u64, random: &dyn Random) -> Result<Self, Error> {
        let mut seed = [0; 16];
        random.fill(&mut seed)?;
        let Key(seed) = Key::of_name(seed);
        Ok(Self {
            place,
            incarnation,
            set: Set::new(seed),
            everything: AtomicU64::new(0),
            floor: AtomicU64::new(0),
            known: AtomicU64::new(0),
            highest: AtomicU64::new(0),
            confirmed: AtomicU64::new(0),
            start: Instant::now(),
            rounds: AtomicU64::new(0),
            failing: AtomicBool::new(false),
            progress: Notify::new(),
            timeline: Mutex::default(),
            recent: Mutex::default(),
            unread: Mutex::default(),
            swept: AtomicU64::new(0),
            settings: OnceLock::new(),
            horizon: AtomicU64::new(0),
            max: AtomicUsize::new(usize::MAX),
            overflow: Mutex::new(()),
        })
    }

    /// A store begins to use the register. The first one's limits count, and the longest timeout.
    pub(super) fn attach(
        &self,
        max: usize,
        max_per_subject: u16,
        refuse_unknown: bool,
        horizon: Duration,
        clock: Arc<dyn Clock>,
        reporter: Reporter,
    ) {
        self.horizon.fetch_max(horizon.as_secs(), Ordering::AcqRel);
        let settings = Settings { budget: Budget::new(max_per_subject), clock, reporter };
        if self.settings.set(settings).is_ok() {
            self.max.store(max, Ordering::Release);
        }
        if refuse_unknown {
            self.floor.fetch_max(1, Ordering::AcqRel);
        }
        self.bound();
    }

    /// Whether the session with this id and lineage goes on.
    #[inline]
    pub(crate) fn judge(
        &self,
        id: SessionId,
        lineage: &Lineage,
        labels: &Labels,
        now: Timestamp,
        max_staleness: Duration,
    ) -> Verdict {
        let position = self.sequence(lineage.position);
        let revoked_below = self.floor.load(Ordering::Acquire).max(self.everything.load(Ordering::Acquire));
        if position < revoked_below {
            return Verdict::Revoked;
        }
        let view = self.set.view();
        let root = view.get(Key::of_root(lineage.root.unwrap_or(id)));
        if let Some(mark) = root.or_else(|| view.get(Key::of_id(id))) {
            return self.ended(mark, now);
        }
        let names = lineage.owner.iter().chain(labels);
        if names.filter_map(|name| view.get(Key::of_name(*name))).any(|mark| mark.ends(position)) {
            return Verdict::Revoked;
        }
        if self.is_current(position, max_staleness) { Verdict::Valid } else { Verdict::Unconfirmed }
    }

    #[cold]
    fn ended(&self, mark: Mark, now: Timestamp) -> Verdict {
        let moments_ago = Timestamp::from_unix(now.as_unix().saturating_sub(MOMENTS));
        let recent = mark.position() > lock(&self.timeline).reached_by(moments_ago);
        if mark.is_superseded() && recent { Verdict::Superseded } else { Verdict::Revoked }
    }

    /// A position of another incarnation is before all of this one.
    #[inline]
    fn sequence(&self, position: Position) -> u64 {
        if position.incarnation == self.incarnation { position.sequence } else { 0 }
    }

    /// True if everything up to `position` is known, and that was confirmed not longer than `max_staleness` ago.
    #[inline]
    fn is_current(&self, position: u64, max_staleness: Duration) -> bool {
        match self.place {
            // Whoever writes to it writes to the set.
            Place::Memory(_) => true,
            Place::Log(_) => position <= self.known.load(Ordering::Acquire) && self.age() <= max_staleness,
        }
    }

    /// How long ago the log was last read to its end.
    fn age(&self) -> Duration {
        let confirmed = Duration::from_micros(self.confirmed.load(Ordering::Acquire));
        self.start.elapsed().saturating_sub(confirmed)
    }

    /// Waits until the log was read up to `position` and that is current; false if it cannot be confirmed in time.
    pub(crate) async fn confirm(&self, position: Position, max_staleness: Duration) -> bool {
        let position = self.sequence(position);
        let deadline = tokio::time::Instant::now() + max_staleness;
        let rounds = self.rounds.load(Ordering::Acquire);
        loop {
            let mut progress = std::pin::pin!(self.progress.notified());
            progress.as_mut().enable();
            if self.is_current(position, max_staleness) {
                return true;
            }
            if self.failing.load(Ordering::Acquire) {
                return false;
            }
            // The second read since began afterwards.
            let read = self.rounds.load(Ordering::Acquire) >= rounds.saturating_add(2);
            if read && position > self.known.load(Ordering::Acquire) {
                self.rolled_back(position).await;
                return false;
            }
            if tokio::time::timeout_at(deadline, progress).await.is_err() {
                return false;
            }
        }
    }

    /// The log ends before a position that it once gave: what is written from now on comes behind that.
    async fn rolled_back(&self, position: u64) {
        self.report(RevocationChange::RolledBack);
        if let Place::Log(log) = &self.place {
            // If it fails, the next request that comes with such a position tries again.
            let _ = log.top(position).await;
        }
    }

    /// The present end of the log, for a session whose login is about to be checked.
    pub(crate) async fn position(&self) -> Result<Position, Error> {
        let sequence = match &self.place {
            Place::Memory(_) => self.known.load(Ordering::Acquire),
            Place::Log(log) => {
                let top = log.top(self.highest.load(Ordering::Acquire)).await?;
                self.highest.fetch_max(top, Ordering::AcqRel);
                top
            }
        };
        Ok(self.at(sequence))
    }

    /// As [`position`](Self::position), without asking: for a session that nobody has logged in to, and for a log in memory.
    pub(crate) fn known_position(&self) -> Position {
        self.at(self.known.load(Ordering::Acquire))
    }

    fn at(&self, sequence: u64) -> Position {
        Position { incarnation: self.incarnation, sequence }
    }

    /// True if nothing ever has to be waited for.
    pub(crate) fn is_immediate(&self) -> bool {
        matches!(self.place, Place::Memory(_))
    }

    /// Revokes at once; `None` if the log has to be waited for.
    pub(crate) fn revoke_at_once(&self, revocations: &[Revocation]) -> Option<Position> {
        let Place::Memory(log) = &self.place else { return None };
        let now = self.now();
        let sequence = log.append(|position| {
            self.note(now, position);
            for revocation in revocations {
                self.apply(position, *revocation);
            }
            self.known.store(position, Ordering::Release);
        });
        self.sweep();
        self.bound();
        Some(self.at(sequence))
    }

    /// Revokes, and returns where: that is durable then, and every process will know it.
    pub(crate) async fn revoke(&self, revocations: Vec<Revocation>) -> Result<Position, Error> {
        if let Some(position) = self.revoke_at_once(&revocations) {
            return Ok(position);
        }
        let Place::Log(log) = &self.place else {
            return Ok(self.known_position());
        };
        let highest = self.highest.load(Ordering::Acquire);
        let last = log.append(revocations.clone(), highest).await?;
        // The own process knows it now, the others when they read it. So does this one: until then `known` stays.
        self.highest.fetch_max(last, Ordering::AcqRel);
        for revocation in revocations {
            self.apply(last, revocation);
            self.remember(std::iter::once((last, revocation)), false);
            lock(&self.unread).push(Unread { above: highest, last, revocation });
        }
        self.bound();
        Ok(self.at(last))
    }

    /// True if `owner` has not caused too many revocations yet. Counts this one.
    pub(crate) fn spend(&self, owner: crate::session::Name) -> bool {
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

    /// How long revocations are remembered; the longest that can be told, before a store has said how long sessions last.
    pub(super) fn horizon(&self) -> Duration {
        match self.horizon.load(Ordering::Acquire) {
            0 => Duration::MAX,
            seconds => Duration::from_secs(seconds).saturating_add(MARGIN),
        }
    }

    /// Forgets what is older than any session can be.
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
        // A sixteenth at once, so that it is rarely done.
        let drop = positions.len().saturating_sub(max - max / 16);
        if positions.len() <= max || drop == 0 {
            return false;
        }
        let (_, &mut cut, _) = positions.select_nth_unstable(drop - 1);
        // First the floor: in between, more is over and not less.
        self.floor.fetch_max(cut, Ordering::AcqRel);
        self.swept.fetch_max(cut, Ordering::AcqRel);
        self.set.retain(|mark| mark.position() > cut);
        true
    }

    pub(crate) fn report(&self, change: RevocationChange) {
        if let Some(settings) = self.settings.get() {
            settings.reporter.report(|cookie| Event::Revocations { cookie, change });
        }
    }

    fn now(&self) -> Timestamp {
        self.settings.get().map_or_else(|| SystemClock.now(), |settings| settings.clock.now())
    }

    /// How many names are revoked.
    pub(super) fn len(&self) -> usize {
        self.set.len()
    }
}

/// What the follower of a log does to the register.
impl Register {
    pub(super) fn highest(&self) -> u64 {
        self.highest.load(Ordering::Acquire)
    }

    /// Takes in what was read.
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
        // Of a whole log only the end can be recent.
        let recent = entries.len().saturating_sub(MAX_RECENT / 2);
        self.remember(entries.iter().skip(recent).map(|entry| (entry.position, entry.revocation)), true);
        self.bound();
    }

    /// The log was read to its end, which is `top`, by a read that began at `began`.
    pub(super) fn confirmed(&self, top: u64, began: Instant) {
        self.highest.fetch_max(top, Ordering::AcqRel);
        self.known.fetch_max(top, Ordering::AcqRel);
        let micros = u64::try_from(began.saturating_duration_since(self.start).as_micros());
        self.confirmed.store(micros.unwrap_or(u64::MAX), Ordering::Release);
        self.rounds.fetch_add(1, Ordering::AcqRel);
        if self.failing.swap(false, Ordering::AcqRel) {
            self.report(RevocationChange::Reachable);
        }
        self.progress.notify_waiters();
    }

    /// True if the log was read to `top`, and something that this process has appended was not there. Asked once of each
    /// entry.
    pub(super) fn has_lost_entries(&self, top: u64) -> bool {
        let mut unread = lock(&self.unread);
        if unread.is_empty() {
            return false;
        }
        let recent = lock(&self.recent);
        let is_there = |entry: &Unread| {
            // It is among the last ones.
            recent.iter().rev().any(|recent| {
                let at_its_place = recent.position > entry.above && recent.position <= entry.last;
                recent.read && at_its_place && recent.revocation == entry.revocation
            })
        };
        let mut lost = false;
        unread.retain(|entry| {
            let due = entry.last <= top;
            lost |= due && !is_there(entry);
            !due
        });
        lost
    }

    /// The log could not be read.
    pub(super) fn failed(&self) {
        if !self.failing.swap(true, Ordering::AcqRel) {
            self.report(RevocationChange::Unreachable);
        }
        self.progress.notify_waiters();
    }

    pub(super) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Acquire)
    }

    /// The position before everything that was written moments ago.
    pub(super) fn before_recent(&self, top: u64) -> u64 {
        lock(&self.recent)
            .iter()
            .map(|recent| recent.position)
            .min()
            .map_or(top, |first| first.saturating_sub(1))
    }

    /// What was written moments ago, as it counts.
    pub(super) fn recent(&self) -> Vec<(Key, Mark)> {
        let recent = lock(&self.recent);
        recent
            .iter()
            .map(|recent| (recent.revocation.key(), recent.revocation.mark(recent.position)))
            .collect()
    }

    /// All that is known, as it counts.
    pub(super) fn everything_known(&self) -> Vec<(Key, Mark)> {
        let mut marks = self.set.marks();
        let everything = self.everything.load(Ordering::Acquire);
        if everything > 0 {
            marks.push((Revocation::of_everything().key(), Mark::at(everything)));
        }
        marks
    }
}

/// No foreign code runs under these locks: poisoning says nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
