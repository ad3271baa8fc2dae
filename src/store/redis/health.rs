//! Whether one server answers. While it does not, requests fail at once, and one request at a time tries it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::fault::Failure;

use crate::lock::lock;

/// While a server is down, one request in this time tries it. With traffic, recovery is thus noticed this much later at
/// most.
pub(super) const PROBE_EVERY: Duration = Duration::from_millis(100);

/// The server counts as down after this many steps in a row that each tried a fresh connection and got no reply. One
/// slow command proves little.
const TIMEOUTS_IN_A_ROW: u32 = 3;

pub(super) struct Health {
    since: Instant,
    /// Milliseconds after `since` at which the next request may try. 0 while the server is up.
    probe_at: AtomicU64,
    timeouts: AtomicU32,
    /// The reason why it is down.
    cause: Mutex<Failure>,
}

impl Health {
    pub(super) fn new() -> Self {
        Self {
            since: Instant::now(),
            probe_at: AtomicU64::new(0),
            timeouts: AtomicU32::new(0),
            cause: Mutex::new(Failure::TimedOut),
        }
    }

    /// Returns true if a request may use the server: always while it is up, otherwise only for the request that tries
    /// it.
    pub(super) fn admits(&self) -> bool {
        self.is_up() || self.admits_probe(self.now())
    }

    /// Returns true for one request at a time, if it is time to try again `now`.
    fn admits_probe(&self, now: u64) -> bool {
        let probe_at = self.probe_at.load(Ordering::Acquire);
        if probe_at == 0 {
            return true; // it came back meanwhile
        }
        let next = now.saturating_add(millis(PROBE_EVERY));
        now >= probe_at
            && self.probe_at.compare_exchange(probe_at, next, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    pub(super) fn is_up(&self) -> bool {
        self.probe_at.load(Ordering::Acquire) == 0
    }

    /// Notes that the server answered.
    pub(super) fn answered(&self) {
        // Loads first: while the server is healthy, every core only reads these lines.
        if self.timeouts.load(Ordering::Relaxed) != 0 {
            self.timeouts.store(0, Ordering::Relaxed);
        }
        if self.probe_at.load(Ordering::Acquire) != 0 {
            self.probe_at.store(0, Ordering::Release);
        }
    }

    /// Notes that a step got no reply, or no connection, in time.
    pub(super) fn timed_out(&self, cause: Failure) {
        if self.timeouts.fetch_add(1, Ordering::Relaxed).saturating_add(1) >= TIMEOUTS_IN_A_ROW {
            self.down(cause);
        }
    }

    /// Notes that no connection could be made and there is no other, or that the server does not answer.
    pub(super) fn down(&self, cause: Failure) {
        *lock(&self.cause) = cause;
        let next = self.now().saturating_add(millis(PROBE_EVERY)).max(1);
        self.probe_at.store(next, Ordering::Release);
    }

    /// Returns the reason why it is down, for requests that are turned away.
    pub(super) fn cause(&self) -> Failure {
        lock(&self.cause).clone()
    }

    fn now(&self) -> u64 {
        millis(self.since.elapsed())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_request_at_a_time_tries_a_server_that_is_down() {
        let health = Health::new();
        assert!(health.admits() && health.admits());
        health.down(Failure::NoConnection);
        assert!(!health.is_up());
        let probe_at = health.probe_at.load(Ordering::Acquire);
        assert!(probe_at >= millis(PROBE_EVERY), "not at once");
        assert!(!health.admits_probe(probe_at - 1));
        assert!(health.admits_probe(probe_at), "one finds out");
        let next = probe_at + millis(PROBE_EVERY);
        assert!(
            !health.admits_probe(probe_at) && !health.admits_probe(next - 1),
            "the others do not wait for it"
        );
        assert!(health.admits_probe(next), "after a while another request tries");
        health.answered();
        assert!(health.admits() && health.admits() && health.is_up());
    }

    #[test]
    fn timeouts_count_in_a_row() {
        let health = Health::new();
        for _ in 1..TIMEOUTS_IN_A_ROW {
            health.timed_out(Failure::TimedOut);
        }
        health.answered();
        health.timed_out(Failure::TimedOut);
        assert!(health.is_up());
        for _ in 1..TIMEOUTS_IN_A_ROW {
            health.timed_out(Failure::TimedOut);
        }
        assert!(!health.is_up());
    }
}
