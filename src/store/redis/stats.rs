//! Figures for metrics: what the pool holds, and how commands went.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bb8_redis::bb8::State;

/// Counts of commands.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) commands: AtomicU64,
    /// Handles that were given out without asking the pool.
    pub(super) at_hand: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) timeouts: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) turned_away: AtomicU64,
}

/// Figures of a [`Redis`](super::Redis) backend since it was made.
///
/// # Examples
///
/// ```no_run
/// # async fn example() -> Result<(), hyper_session::Error> {
/// # let store = hyper_session::RedisStore::builder("redis://127.0.0.1").prefix("shop").connect().await?;
/// let stats = store.backend().stats();
/// assert!(stats.up && stats.connections > 0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedisStats {
    /// False while Redis is taken for unreachable, and requests fail at once.
    pub up: bool,
    /// Connections that the pool holds.
    pub connections: u32,
    /// Those of them that nobody is just then taking a handle of.
    pub idle_connections: u32,
    /// Connections that were made.
    pub connections_created: u64,
    /// Connections that were dropped because a command on them failed.
    pub connections_broken: u64,
    /// Handles that were given out without waiting.
    pub checkouts_direct: u64,
    /// Handles that somebody waited for.
    pub checkouts_waited: u64,
    /// Requests for which none came free in time.
    pub checkouts_timed_out: u64,
    /// How long all of them waited together.
    pub checkout_wait: Duration,
    /// Commands that were asked for; a script that had to be sent whole counts twice.
    pub commands: u64,
    /// Those that failed, for whatever reason, the following ones included.
    pub failures: u64,
    /// Those that had no answer in time.
    pub timeouts: u64,
    /// Those that failed at once, because Redis was taken for unreachable.
    pub turned_away: u64,
    /// How often a command was sent again.
    pub retries: u64,
}

impl RedisStats {
    pub(super) fn of(pool: &State, counters: &Counters, up: bool) -> Self {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let statistics = &pool.statistics;
        Self {
            up,
            connections: pool.connections,
            idle_connections: pool.idle_connections,
            connections_created: statistics.connections_created,
            // One that fails the check at checkout is counted as invalid, and again as broken where the manager says so.
            connections_broken: statistics
                .connections_closed_broken
                .max(statistics.connections_closed_invalid),
            checkouts_direct: statistics.get_direct + read(&counters.at_hand),
            checkouts_waited: statistics.get_waited,
            checkouts_timed_out: statistics.get_timed_out,
            checkout_wait: statistics.get_wait_time,
            commands: read(&counters.commands),
            failures: read(&counters.failures),
            timeouts: read(&counters.timeouts),
            turned_away: read(&counters.turned_away),
            retries: read(&counters.retries),
        }
    }
}
