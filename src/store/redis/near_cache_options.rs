//! The options of the near-cache.

use std::time::Duration;

use crate::error::Error;

/// A cache of sessions in the memory of this process, for
/// [`RedisStore::builder(…).near_cache(…)`](crate::store::Builder::near_cache).
///
/// A read of a cached session sends no command and decodes nothing. Redis reports every change over a connection of its
/// own, and the store checks four times within [`max_staleness`](Self::max_staleness) that the connection works. Otherwise
/// it reads from Redis as without the cache. Every write is compared in Redis, so a stale read loses no change.
///
/// # Security
///
/// After another process ended a session, this one can still accept it, usually for a tenth of a millisecond, and for at most
/// `max_staleness` if the line is slow, hangs or is cut. A session that was ended through the same store is refused at once.
/// Opened sessions are in the memory of the process, also with
/// [`seal_records`](crate::store::Builder::seal_records).
///
/// # Limits
///
/// It needs RESP3 and the right `+client|tracking`. The round trip to Redis must be shorter than a third of
/// `max_staleness`, or the cache stays empty. Time while the machine is suspended does not count. Redis does not report
/// `SWAPDB`, so the connections must be closed after it (`CLIENT KILL TYPE normal`).
///
/// # Examples
///
/// ```no_run
/// use hyper_session::RedisStore;
/// use hyper_session::store::redis::NearCache;
///
/// # async fn example() -> Result<(), hyper_session::Error> {
/// let store = RedisStore::builder("redis://127.0.0.1").prefix("shop").near_cache(NearCache::new()).connect().await?;
/// assert_eq!(store.backend().stats().near_cache_hits, 0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "options do nothing until they are given to near_cache()"]
pub struct NearCache {
    pub(super) max_bytes: u64,
    pub(super) max_staleness: Duration,
}

impl NearCache {
    /// Creates the default options.
    pub fn new() -> Self {
        Self { max_bytes: 64 << 20, max_staleness: Duration::from_millis(100) }
    }

    /// Sets how much memory the cache may take, in bytes. Default: 64 MiB, enough for 50,000 sessions of 300 bytes. The
    /// sessions that are used least make room.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Sets for how long an ended session may still be accepted at most. Default: 100 ms.
    ///
    /// # Limits
    ///
    /// 10 ms to 10 s.
    pub fn max_staleness(mut self, bound: Duration) -> Self {
        self.max_staleness = bound;
        self
    }

    pub(super) fn check(self) -> Result<(), Error> {
        let bounds = Duration::from_millis(10)..=Duration::from_secs(10);
        if !bounds.contains(&self.max_staleness) {
            return Err(Error::config("max_staleness() of a near_cache() must be 10 ms to 10 s"));
        }
        if self.max_bytes < 1 << 20 {
            return Err(Error::config("max_bytes() of a near_cache() must be at least 1 MiB: 1 << 20"));
        }
        Ok(())
    }
}

impl Default for NearCache {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_at_their_limits_are_accepted() {
        let staleness =
            |millis| NearCache::new().max_staleness(Duration::from_millis(millis)).check().is_ok();
        assert_eq!([9, 10, 10_000, 10_001].map(staleness), [false, true, true, false]);
        let bytes = |bytes| NearCache::new().max_bytes(bytes).check().is_ok();
        assert_eq!([0, (1 << 20) - 1, 1 << 20, u64::MAX].map(bytes), [false, false, true, true]);
    }
}
