//! A lease: until when a connection vouches that it has reported every change of the entries that were read over it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The time is the monotonic clock of this process. No other clock takes part, so clocks that differ or jump do not
/// lengthen a lease.
pub(crate) struct Lease {
    base: Instant,
    /// Nanoseconds after `base`. 0: nothing is vouched for.
    until: AtomicU64,
    /// Goes up whenever reports may have been missed. Entries of an earlier epoch do not count.
    epoch: AtomicU64,
}

impl Lease {
    pub(crate) fn new() -> Self {
        Self { base: Instant::now(), until: AtomicU64::new(0), epoch: AtomicU64::new(0) }
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Returns true if the lease lasts beyond `now`.
    pub(crate) fn covers(&self, now: Instant) -> bool {
        self.nanos(now) < self.until.load(Ordering::Acquire)
    }

    /// Returns for how much longer it lasts. `None` if nothing is vouched for.
    pub(crate) fn left(&self, now: Instant) -> Option<Duration> {
        let until = self.until.load(Ordering::Acquire);
        (until > 0).then(|| Duration::from_nanos(until.saturating_sub(self.nanos(now))))
    }

    /// Makes the lease last until `until`, unless it was ended since `epoch`.
    pub(crate) fn extend(&self, epoch: u64, until: Instant) {
        if self.epoch() == epoch {
            self.until.store(self.nanos(until).max(1), Ordering::Release);
        }
    }

    /// Begins another epoch: the entries are gone, but the connection goes on to report changes.
    pub(crate) fn renew(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Ends the lease and its epoch. Returns false if nothing was vouched for.
    pub(crate) fn end(&self) -> bool {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.until.swap(0, Ordering::AcqRel) != 0
    }

    fn nanos(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.base).as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_at_its_time_and_with_its_epoch() {
        let lease = Lease::new();
        let (start, second) = (lease.base, Duration::from_secs(1));
        assert!(!lease.covers(start) && lease.left(start).is_none());
        lease.extend(lease.epoch(), start + second);
        assert!(lease.covers(start) && !lease.covers(start + second));
        assert_eq!(lease.left(start), Some(second));
        assert_eq!(lease.left(start + 2 * second), Some(Duration::ZERO), "it lapsed");
        let epoch = lease.epoch();
        assert!(lease.end() && !lease.end());
        lease.extend(epoch, start + 9 * second);
        assert!(!lease.covers(start), "an answer from before the end extends nothing");
    }

    #[test]
    fn a_lease_that_is_renewed_goes_on_in_another_epoch() {
        let lease = Lease::new();
        let (start, second) = (lease.base, Duration::from_secs(1));
        let epoch = lease.epoch();
        lease.extend(epoch, start + second);
        lease.renew();
        assert_ne!(lease.epoch(), epoch);
        assert!(lease.covers(start));
        lease.extend(epoch, start + 9 * second);
        assert!(!lease.covers(start + second), "an answer from before it extends nothing");
        lease.extend(lease.epoch(), start + 9 * second);
        assert!(lease.covers(start + second));
    }
}
