//! The timeouts of one session: the store's, those for visitors, or its own, within what the store allows.

use std::time::Duration;

use super::renewal::scaled;
use super::{Config, Timeouts};
use crate::clock::Timestamp;
use crate::session::{Lifetime, Payload};

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
    pub(crate) fn limits(&self) -> &TimeoutLimits {
        &self.limits
    }

    /// Returns the timeouts of a session with these values.
    pub(crate) fn timeouts_of(&self, payload: &Payload) -> Timeouts {
        self.limits.of(payload)
    }

    /// Returns the longest that any session lasts.
    pub(crate) fn longest(&self) -> Duration {
        self.limits.longest
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
        created.saturating_add(self.limits.longest)
    }
}
