//! How current this process's knowledge of the log is, and waiting until it is.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::time_limit::within;
use crate::clock::bounded;
use crate::runtime::check_runtime;

/// How far this process has read the log, and when.
pub(super) struct Freshness {
    /// All entries of the log up to here are in the set.
    known: AtomicU64,
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
}

/// The result of waiting for a confirmation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Confirmation {
    /// The log was read up to the position, and what is known is current.
    Current,
    /// It was not in time.
    Late,
    /// The log was read to its end, which is before the position.
    EndsBefore,
}

impl Freshness {
    /// Creates the freshness of a process that knows all entries up to `known`.
    pub(super) fn new(known: u64) -> Self {
        Self {
            known: AtomicU64::new(known),
            loaded: AtomicU64::new(0),
            confirmed: AtomicU64::new(0),
            start: Instant::now(),
            rounds: AtomicU64::new(0),
            failing: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            progress: Notify::new(),
        }
    }

    /// Returns the position up to which all entries are known.
    pub(super) fn known(&self) -> u64 {
        self.known.load(Ordering::Acquire)
    }

    /// Returns where the log ended when this process had read it for the first time, or zero before.
    pub(super) fn loaded(&self) -> u64 {
        self.loaded.load(Ordering::Acquire)
    }

    /// Returns true if everything up to `position` is known, and was confirmed no longer than `max_staleness` ago.
    #[inline]
    pub(super) fn is_current(&self, position: u64, max_staleness: Duration) -> bool {
        position <= self.known() && self.age() <= max_staleness
    }

    /// Returns how long ago the log was last read to its end.
    fn age(&self) -> Duration {
        let confirmed = Duration::from_micros(self.confirmed.load(Ordering::Acquire));
        self.start.elapsed().saturating_sub(confirmed)
    }

    /// Waits until the log was read up to `position` and is current.
    pub(super) async fn confirm(&self, position: u64, max_staleness: Duration) -> Confirmation {
        if self.is_current(position, max_staleness) {
            return Confirmation::Current;
        }
        // Waiting needs the clock of a runtime.
        if check_runtime().is_err() {
            return Confirmation::Late;
        }
        let waiting = self.wait_until_current(position, max_staleness);
        within(bounded(max_staleness), waiting).await.unwrap_or(Confirmation::Late)
    }

    async fn wait_until_current(&self, position: u64, max_staleness: Duration) -> Confirmation {
        let rounds = self.rounds.load(Ordering::Acquire);
        loop {
            let mut progress = std::pin::pin!(self.progress.notified());
            progress.as_mut().enable();
            if self.is_current(position, max_staleness) {
                return Confirmation::Current;
            }
            // The second read since then began afterwards.
            let read = self.rounds.load(Ordering::Acquire) >= rounds.saturating_add(2);
            if read && position > self.known() {
                return Confirmation::EndsBefore;
            }
            // One slow reply of the log fails no request, and neither does a task that is started again after its runtime has
            // ended. A log that is down for longer than sessions are trusted delays none.
            if self.is_failing() && !self.is_stopped() {
                let left = bounded(max_staleness.saturating_sub(self.age()));
                if tokio::time::timeout(left, progress).await.is_err() {
                    return Confirmation::Late;
                }
            } else {
                progress.await;
            }
        }
    }

    /// Notes that all entries up to `position` are known, in a log that is never read.
    pub(super) fn note_known(&self, position: u64) {
        self.known.store(position, Ordering::Release);
    }

    /// Notes that this process has read the log for the first time, to `top`.
    pub(super) fn note_loaded(&self, top: u64) {
        self.loaded.store(top, Ordering::Release);
    }

    /// Notes that the log was read to its end, `top`, by a read that began at `began`. Returns true if it could not be read
    /// before.
    pub(super) fn note_confirmed(&self, top: u64, began: Instant) -> bool {
        self.known.fetch_max(top, Ordering::AcqRel);
        let micros = u64::try_from(began.saturating_duration_since(self.start).as_micros());
        self.confirmed.store(micros.unwrap_or(u64::MAX), Ordering::Release);
        self.rounds.fetch_add(1, Ordering::AcqRel);
        self.stopped.store(false, Ordering::Release);
        self.failing.swap(false, Ordering::AcqRel)
    }

    /// Notes that the log could not be read. Returns true if it could be before.
    pub(super) fn note_failed(&self) -> bool {
        self.stopped.store(false, Ordering::Release);
        !self.failing.swap(true, Ordering::AcqRel)
    }

    /// Notes that the task that reads the log has ended. The log itself may work, unless the task has panicked before it read
    /// anything. Returns true if the log could be read before.
    pub(super) fn note_stopped(&self, panicked: bool) -> bool {
        self.stopped.store(!(panicked && self.is_failing()), Ordering::Release);
        !self.failing.swap(true, Ordering::AcqRel)
    }

    /// Wakes tasks that wait for a confirmation, after something was noted.
    pub(super) fn wake(&self) {
        self.progress.notify_waiters();
    }

    /// Returns true if the last read failed, or the task that reads has ended.
    pub(super) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Acquire)
    }

    /// Returns true if the task that reads the log has ended, and the log itself may work.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Moves the start back, in a test.
    #[cfg(test)]
    pub(super) fn began_before(&mut self, time: Duration) -> Instant {
        self.start = Instant::now().checked_sub(time).unwrap();
        self.start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_fails_or_works_again_is_news_once() {
        let freshness = Freshness::new(0);
        let is_news = || freshness.note_confirmed(1, Instant::now());
        assert!(!is_news(), "it could be read before");
        assert!(freshness.note_failed() && !freshness.note_failed());
        assert!(is_news() && !is_news());
        assert!(freshness.note_stopped(false) && !freshness.note_stopped(false) && !freshness.note_failed());
        assert!(is_news() && !is_news());
    }
}
