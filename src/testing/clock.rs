//! A clock that tests move.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::{Clock, Timestamp};

/// A clock that stands still until it is moved. Clones show the same time.
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
#[derive(Clone, Debug)]
pub struct FakeClock {
    seconds: Arc<AtomicU64>,
}

impl FakeClock {
    /// Creates a clock that shows this many seconds since 1970.
    pub fn at(seconds: u64) -> Self {
        Self { seconds: Arc::new(AtomicU64::new(seconds)) }
    }

    /// Moves the clock forward, by whole seconds.
    pub fn advance(&self, by: Duration) {
        self.set(self.now().saturating_add(by).as_unix());
    }

    /// Sets the clock, backward as well as forward.
    pub fn set(&self, seconds: u64) {
        self.seconds.store(seconds, Ordering::SeqCst);
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix(self.seconds.load(Ordering::SeqCst))
    }
}
