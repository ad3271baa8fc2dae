//! The timeouts of one session: the store's, those for visitors, or its own, within what the store allows.

use std::time::Duration;

use super::{Config, Timeouts};
use crate::clock::Timestamp;
use crate::session::{Lifetime, Payload, Record, Standing};

/// The limits that the options set for the timeouts of sessions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeoutLimits {
    pub(super) timeouts: Timeouts,
    /// The timeouts of sessions without a subject, if they differ.
    pub(super) anonymous: Option<Timeouts>,
    /// No session lasts longer, whatever its own lifetime says.
    pub(super) longest: Duration,
}

impl TimeoutLimits {
    /// Returns the timeouts of a session with these values.
    pub(crate) fn of(&self, payload: &Payload) -> Timeouts {
        let store = match self.anonymous {
            Some(anonymous) if !payload.has_subject() => anonymous,
            _ => self.timeouts,
        };
        let lifetime = payload.lifetime();
        if lifetime.idle().is_none() && lifetime.absolute().is_none() {
            store
        } else {
            self.own(lifetime, store)
        }
    }

    /// Returns the timeouts of a session with a lifetime of its own, where `store` has the others.
    fn own(&self, lifetime: Lifetime, store: Timeouts) -> Timeouts {
        let within = |own: Option<Duration>, otherwise: Duration| own.unwrap_or(otherwise).min(self.longest);
        let absolute = within(lifetime.absolute(), store.absolute);
        let idle = within(lifetime.idle(), store.idle).min(absolute);
        Timeouts { idle, absolute, renewal: scaled(store.renewal, idle, store.idle) }
    }
}

impl Config {
    /// Returns the limits that the options set for the timeouts of sessions.
    pub(crate) fn limits(&self) -> TimeoutLimits {
        TimeoutLimits { timeouts: self.timeouts, anonymous: self.anonymous, longest: self.longest }
    }

    /// Returns the timeouts of a session with these values.
    pub(crate) fn timeouts_of(&self, payload: &Payload) -> Timeouts {
        self.limits().of(payload)
    }

    /// Returns the longest that any session lasts.
    pub(crate) fn longest(&self) -> Duration {
        self.longest
    }

    /// Returns the deadline of a session with these values that began at `created` and is used at `now`.
    pub(crate) fn deadline(&self, created: Timestamp, payload: &Payload, now: Timestamp) -> Timestamp {
        self.timeouts_of(payload).deadline(created, now)
    }

    /// Returns the deadline of a session with these values that is written at `now`. `None` if it is not to be written: it
    /// holds nothing, or the lifetime that it was given has passed already.
    pub(crate) fn kept_until(
        &self,
        created: Timestamp,
        payload: &Payload,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let deadline = self.deadline(created, payload, now);
        (deadline > now && !payload.is_empty()).then_some(deadline)
    }

    /// Returns true if a session with these values is not to be written at `now`.
    pub(crate) fn leaves_nothing(&self, created: Timestamp, payload: &Payload, now: Timestamp) -> bool {
        self.kept_until(created, payload, now).is_none()
    }

    /// Returns a moment when a session that began at `created` has ended, whatever lifetime it is given later.
    pub(crate) fn latest_deadline(&self, created: Timestamp) -> Timestamp {
        created.saturating_add(self.longest)
    }

    /// Returns where `record` stands at `now`.
    pub(crate) fn standing(&self, record: &Record, now: Timestamp) -> Standing {
        self.timeouts_of(record.payload()).standing(record, now)
    }
}

/// Returns the renewal threshold of another idle timeout: the same part of it.
fn scaled(renewal: Duration, idle: Duration, from: Duration) -> Duration {
    // Reading does not renew at all.
    if renewal == Timeouts::NEVER {
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
