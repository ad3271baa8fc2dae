//! Renewal: whether a session that is used gets a later idle deadline, by its timeouts.
//!
//! This is the rule of the options. A request can be exempt from it: `service/slot.rs` knows its exceptions. The statements that a
//! renewal yields to are in `session/commit_table.rs`.

use std::time::Duration;

use super::{Config, Timeouts};
use crate::clock::Timestamp;
use crate::session::{Record, Standing};

impl Timeouts {
    /// A renewal threshold that is never reached.
    pub(super) const NEVER: Duration = Duration::MAX;

    /// Returns where `record` stands at `now`.
    pub(super) fn standing(&self, record: &Record, now: Timestamp) -> Standing {
        let renewed = self.deadline(record.created(), now);
        let expired = record.expires() <= now;
        // A session that expired while its request was running is renewed, even if little is left of its absolute timeout.
        let worth_it = renewed.saturating_since(record.expires()) >= self.renewal
            || expired && self.renewal != Self::NEVER;
        Standing {
            absolute_passed: record.created().saturating_add(self.absolute) <= now,
            expired,
            renewal_due: record.is_outdated() || renewed > record.expires() && worth_it,
        }
    }
}

impl Config {
    /// Returns where `record` stands at `now`.
    pub(crate) fn standing(&self, record: &Record, now: Timestamp) -> Standing {
        self.timeouts_of(record.payload()).standing(record, now)
    }

    /// Returns true if a write of `record` at `now` is the first one in its span. The spans begin with the session and
    /// are as long as the renewal threshold.
    ///
    /// A session that is written more often than that is never renewed: each write moves its deadline. Work that belongs
    /// to a renewal is done by these writes instead.
    pub(crate) fn is_first_write_of_span(&self, record: &Record, now: Timestamp) -> bool {
        let Timeouts { renewal, idle, .. } = self.timeouts_of(record.payload());
        let seconds = renewal.min(idle).as_secs().max(1);
        let span = |time: Timestamp| time.saturating_since(record.created()).as_secs() / seconds;
        span(now) > span(record.recency().written)
    }
}

/// Returns the renewal threshold of another idle timeout: the same part of it.
pub(super) fn scaled(renewal: Duration, idle: Duration, from: Duration) -> Duration {
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
