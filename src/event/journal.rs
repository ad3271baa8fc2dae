//! The memory of the log, so that it writes states and numbers instead of one line for each request.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::clock::Timestamp;
use crate::lock::lock;

/// The period in which events of one kind are counted together, in seconds.
const WINDOW: u64 = 60;

/// The counts of a store's frequent events, and the operations that fail at present.
#[derive(Default)]
pub(super) struct Journal {
    windows: Mutex<BTreeMap<Kind, Window>>,
    outages: Mutex<BTreeMap<&'static str, Outage>>,
    /// The number of outages, which each call of a store reads without a lock.
    failing: AtomicUsize,
}

/// The name of an event and its reason. Both are names of this crate, so there are few kinds.
type Kind = (&'static str, &'static str);

#[derive(Clone, Copy)]
struct Window {
    since: Timestamp,
    count: u64,
}

/// The counts for a line: its number within this minute, and the total of the minute before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) count: u64,
    pub(super) previous: Option<u64>,
}

/// An operation that has failed since `since`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outage {
    since: Timestamp,
    failures: u64,
}

/// An operation that works again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Recovery {
    pub(super) failures: u64,
    pub(super) seconds: u64,
}

impl Journal {
    pub(super) const fn new() -> Self {
        Self {
            windows: Mutex::new(BTreeMap::new()),
            outages: Mutex::new(BTreeMap::new()),
            failing: AtomicUsize::new(0),
        }
    }

    /// Counts an event. Returns its tally if it is the first, the tenth, the hundredth … of its kind within a minute. Only
    /// those are logged at their level.
    pub(super) fn count(&self, event: &'static str, reason: &'static str, now: Timestamp) -> Option<Tally> {
        let mut windows = lock(&self.windows);
        let window = windows.entry((event, reason)).or_insert(Window { since: now, count: 0 });
        let mut previous = None;
        // A clock that was set back begins a new window, too.
        let has_passed = now.as_unix().checked_sub(window.since.as_unix()).is_none_or(|age| age >= WINDOW);
        if window.count == 0 || has_passed {
            previous = (window.count > 0).then_some(window.count);
            *window = Window { since: now, count: 0 };
        }
        window.count = window.count.saturating_add(1);
        is_power_of_ten(window.count).then_some(Tally { count: window.count, previous })
    }

    /// Notes that an operation failed.
    pub(super) fn failed(&self, operation: &'static str, now: Timestamp) {
        let mut outages = lock(&self.outages);
        let outage = outages.entry(operation).or_insert(Outage { since: now, failures: 0 });
        outage.failures = outage.failures.saturating_add(1);
        self.failing.store(outages.len(), Ordering::Relaxed);
    }

    /// Notes that an operation worked. Returns the outage that has ended with it.
    pub(super) fn worked(
        &self,
        operation: &'static str,
        now: impl FnOnce() -> Timestamp,
    ) -> Option<Recovery> {
        if !self.is_failing() {
            return None;
        }
        let mut outages = lock(&self.outages);
        let outage = outages.remove(operation)?;
        self.failing.store(outages.len(), Ordering::Relaxed);
        drop(outages);
        Some(Recovery { failures: outage.failures, seconds: now().saturating_since(outage.since).as_secs() })
    }

    /// Returns true while an operation fails.
    pub(super) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed) > 0
    }
}

fn is_power_of_ten(mut number: u64) -> bool {
    while number % 10 == 0 && number > 0 {
        number /= 10;
    }
    number == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_grow_with_the_digits_of_the_number_of_events() {
        let journal = Journal::new();
        let at = Timestamp::from_unix;
        let lines: Vec<_> =
            (0..537_744).filter_map(|_| journal.count("store_failed", "unavailable", at(100))).collect();
        assert_eq!(
            lines.iter().map(|line| line.count).collect::<Vec<_>>(),
            [1, 10, 100, 1_000, 10_000, 100_000]
        );
        // Another kind has a count of its own.
        assert_eq!(journal.count("refused", "expired", at(100)), Some(Tally { count: 1, previous: None }));
        // The next minute reports how many there were in the minute before.
        assert_eq!(journal.count("store_failed", "unavailable", at(159)), None);
        let next = journal.count("store_failed", "unavailable", at(160)).unwrap();
        assert_eq!(next, Tally { count: 1, previous: Some(537_745) });
        assert!(journal.count("store_failed", "unavailable", at(5)).is_some(), "the clock was set back");
    }

    #[test]
    fn an_outage_ends_with_its_operation() {
        let journal = Journal::new();
        let at = Timestamp::from_unix;
        let recovered = |operation, seconds| journal.worked(operation, || at(seconds));
        assert_eq!(recovered("load", 1), None);
        for second in 10..15 {
            journal.failed("load", at(second));
        }
        journal.failed("save", at(12));
        assert!(journal.is_failing());
        assert_eq!(recovered("renew", 20), None);
        assert_eq!(recovered("load", 40), Some(Recovery { failures: 5, seconds: 30 }));
        assert_eq!(recovered("load", 41), None);
        assert_eq!(recovered("save", 42), Some(Recovery { failures: 1, seconds: 30 }));
        assert!(!journal.is_failing());
    }
}
