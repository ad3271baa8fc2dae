//! Figures for metrics: connections and commands.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::store::near_cache::RecordCache;

/// Counts since the store was made, over all its servers.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) commands: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) timeouts: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) turned_away: AtomicU64,
    pub(super) connections_created: AtomicU64,
    pub(super) connections_broken: AtomicU64,
    pub(super) waited: AtomicU64,
    pub(super) waited_in_vain: AtomicU64,
    pub(super) wait_micros: AtomicU64,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn waited(&self, for_so_long: Duration, in_vain: bool) {
        let micros = u64::try_from(for_so_long.as_micros()).unwrap_or(u64::MAX);
        self.wait_micros.fetch_add(micros, Ordering::Relaxed);
        Self::add(if in_vain { &self.waited_in_vain } else { &self.waited });
    }
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
    /// False while a server does not answer, and requests for its sessions fail at once. In a Cluster: while any master
    /// does not answer.
    pub up: bool,
    /// Servers that sessions are on: 1, or the masters of a Cluster that were used so far.
    pub servers: u32,
    /// Servers that do not answer.
    pub servers_down: u32,
    /// Connections that work.
    pub connections: u32,
    /// Connections on which no command waits for its reply.
    pub idle_connections: u32,
    /// Connections that were made.
    pub connections_created: u64,
    /// How often a connection was lost or silent, or led to a server that is not the master.
    pub connections_broken: u64,
    /// Attempts that waited for a connection and got one.
    pub checkouts_waited: u64,
    /// Attempts that waited for a connection and got none.
    pub checkouts_timed_out: u64,
    /// The total time that attempts waited for a connection.
    pub checkout_wait: Duration,
    /// Commands. A script that had to be sent whole counts twice. A command that was sent again counts once.
    pub commands: u64,
    /// Commands that failed for any reason, including timeouts and commands that were turned away.
    pub failures: u64,
    /// Commands that were sent and not answered in time. A command that was sent shortly before its deadline does not count.
    pub timeouts: u64,
    /// Commands that failed at once and were not sent, because the server was down.
    pub turned_away: u64,
    /// How often a command was sent again.
    pub retries: u64,
    /// Loads that the [near-cache](super::NearCache) answered. Like the three figures below, 0 without one.
    pub near_cache_hits: u64,
    /// Loads that it did not answer.
    pub near_cache_misses: u64,
    /// How often it was emptied, of the entries of one server: see
    /// [`EventKind::NearCacheEmptied`](crate::EventKind::NearCacheEmptied).
    pub near_cache_emptied: u64,
    /// Sessions and session lists in it now.
    pub near_cache_entries: u64,
}

/// How many servers and connections there are now.
#[derive(Default)]
pub(super) struct Connected {
    pub(super) servers: u32,
    pub(super) servers_down: u32,
    pub(super) connections: u32,
    pub(super) idle: u32,
}

impl RedisStats {
    pub(super) fn new(connected: &Connected, counters: &Counters, near_cache: Option<&RecordCache>) -> Self {
        let cached = near_cache.map(RecordCache::figures).unwrap_or_default();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Self {
            up: connected.servers_down == 0,
            servers: connected.servers,
            servers_down: connected.servers_down,
            connections: connected.connections,
            idle_connections: connected.idle,
            connections_created: read(&counters.connections_created),
            connections_broken: read(&counters.connections_broken),
            checkouts_waited: read(&counters.waited),
            checkouts_timed_out: read(&counters.waited_in_vain),
            checkout_wait: Duration::from_micros(read(&counters.wait_micros)),
            commands: read(&counters.commands),
            failures: read(&counters.failures),
            timeouts: read(&counters.timeouts),
            turned_away: read(&counters.turned_away),
            retries: read(&counters.retries),
            near_cache_hits: cached.hits,
            near_cache_misses: cached.misses,
            near_cache_emptied: cached.emptied,
            near_cache_entries: cached.entries,
        }
    }
}
