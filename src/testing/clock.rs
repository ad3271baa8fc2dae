//! A clock that tests move.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::lock::lock;

/// A clock that stands still until it is moved. Clones show the same time.
///
/// A [`MemoryStore`](crate::MemoryStore) with this clock frees expired entries when the clock is moved, before the call
/// returns. So a test need not wait for the background thread that frees them otherwise.
///
/// # Examples
///
/// ```
/// use hyper_session::testing::FakeClock;
/// use hyper_session::{AppKey, Clock, CookieStore, Timestamp};
/// use std::time::Duration;
///
/// let clock = FakeClock::at(1_000);
/// let store = CookieStore::builder(AppKey::generate()?).clock(clock.clone()).build()?;
/// clock.advance(Duration::from_secs(60));
/// assert_eq!(clock.now(), Timestamp::from_unix(1_060));
/// # Ok::<(), hyper_session::Error>(())
/// ```
#[derive(Clone)]
pub struct FakeClock {
    seconds: Arc<AtomicU64>,
    /// Called when the clock was moved, until they return false.
    watchers: Arc<Mutex<Vec<Watcher>>>,
}

type Watcher = Box<dyn Fn() -> bool + Send + Sync>;

impl FakeClock {
    /// Creates a clock that shows this many seconds since 1970.
    pub fn at(seconds: u64) -> Self {
        Self { seconds: Arc::new(AtomicU64::new(seconds)), watchers: Arc::default() }
    }

    /// Moves the clock forward, by whole seconds.
    pub fn advance(&self, by: Duration) {
        self.set(self.now().saturating_add(by).as_unix());
    }

    /// Sets the clock, backward as well as forward.
    pub fn set(&self, seconds: u64) {
        self.seconds.store(seconds, Ordering::SeqCst);
        self.watchers().retain(|watcher| watcher());
    }

    fn watchers(&self) -> std::sync::MutexGuard<'_, Vec<Watcher>> {
        lock(&self.watchers)
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix(self.seconds.load(Ordering::SeqCst))
    }

    fn __when_set(&self, moved: Watcher) {
        self.watchers().push(moved);
    }
}

impl fmt::Debug for FakeClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeClock").field("now", &self.now()).finish_non_exhaustive()
    }
}
