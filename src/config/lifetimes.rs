//! The timeouts of one session: the store's, those for visitors, or its own, within what the store allows.

use std::time::Duration;

use super::{Config, Timeouts};
use crate::clock::Timestamp;
use crate::session::{Payload, Record};

impl Config {
    /// Returns the timeouts of a session with these values.
    pub(crate) fn timeouts_of(&self, payload: &Payload) -> Timeouts {
        let store = match self.anonymous {
            Some(anonymous) if !payload.has_subject() => anonymous,
            _ => self.timeouts,
        };
        let lifetime = payload.lifetime();
        if lifetime.idle().is_none() && lifetime.absolute().is_none() {
            return store;
        }
        let within = |own: Option<Duration>, otherwise: Duration| own.unwrap_or(otherwise).min(self.longest);
        let absolute = within(lifetime.absolute(), store.absolute);
        let idle = within(lifetime.idle(), store.idle).min(absolute);
        Timeouts { idle, absolute, renewal: scaled(store.renewal, idle, store.idle) }
    }

    /// Returns the deadline of a session with these values that began at `created` and is used at `now`.
    pub(crate) fn deadline(&self, created: Timestamp, payload: &Payload, now: Timestamp) -> Timestamp {
        self.timeouts_of(payload).deadline(counted_from(created, payload), now)
    }

    /// Returns the deadline of such a session however busy it is.
    pub(crate) fn absolute_deadline(&self, created: Timestamp, payload: &Payload) -> Timestamp {
        counted_from(created, payload).saturating_add(self.timeouts_of(payload).absolute)
    }

    /// Returns a moment when such a session has ended, whatever lifetime it is given later.
    pub(crate) fn latest_deadline(&self, created: Timestamp, payload: &Payload) -> Timestamp {
        counted_from(created, payload).saturating_add(self.longest)
    }

    /// Returns true if using `record` at `now` gains enough to tell the client or the store.
    pub(crate) fn renewal_due(&self, record: &Record, now: Timestamp) -> bool {
        self.timeouts_of(record.payload()).renewal_due(record, now)
    }
}

/// Returns the moment from which the absolute timeout counts: the beginning of the session, or the last authentication of its
/// subject.
pub(super) fn counted_from(created: Timestamp, payload: &Payload) -> Timestamp {
    payload.authenticated_at().map_or(created, |authenticated| authenticated.max(created))
}

/// Returns the renewal threshold of another idle timeout: the same part of it.
fn scaled(renewal: Duration, idle: Duration, from: Duration) -> Duration {
    // Reading does not renew at all.
    if renewal == Duration::MAX {
        return renewal;
    }
    let seconds =
        u128::from(renewal.as_secs()) * u128::from(idle.as_secs()) / u128::from(from.as_secs().max(1));
    Duration::from_secs(seconds.try_into().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_is_the_same_part_of_any_idle_timeout() {
        let seconds = Duration::from_secs;
        assert_eq!(scaled(seconds(10), seconds(50), seconds(100)), seconds(5));
        assert_eq!(scaled(seconds(10), seconds(1_000), seconds(100)), seconds(100));
        assert_eq!(scaled(seconds(0), seconds(1_000), seconds(100)), seconds(0));
        assert_eq!(scaled(Duration::MAX, seconds(1), seconds(100)), Duration::MAX);
        assert_eq!(scaled(seconds(u64::MAX - 1), Duration::MAX, seconds(u64::MAX)), seconds(u64::MAX - 1));
    }
}
