//! Time in whole seconds since 1970, read from a clock that tests can replace.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::{Error, Kind};

/// The longest time that anything waits. Adding it to an `Instant` does not overflow.
const LONGEST_WAIT: Duration = Duration::from_secs(365 * 86_400);

/// How far ahead the clock of another host may be: a time that is further in the future is not trusted. Clocks of servers differ by
/// seconds, not minutes.
pub(crate) const MAX_CLOCK_SKEW: Duration = Duration::from_secs(60);

/// Returns how long an option or a caller wants to wait, but at most a year, so that it can be added to an `Instant`.
pub(crate) fn bounded(wait: Duration) -> Duration {
    wait.min(LONGEST_WAIT)
}

/// A moment, in whole seconds since 1970-01-01 00:00 UTC.
///
/// Arithmetic saturates: no duration, however large, overflows.
///
/// # Examples
///
/// ```
/// use hyper_session::Timestamp;
/// use std::time::Duration;
///
/// let t = Timestamp::from_unix(1_000);
/// assert_eq!(t.saturating_add(Duration::from_secs(5)).as_unix(), 1_005);
/// assert_eq!(t.saturating_add(Duration::MAX), Timestamp::MAX);
/// assert_eq!(t.saturating_since(Timestamp::from_unix(2_000)), Duration::ZERO);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The last moment that can be represented.
    pub const MAX: Self = Self(u64::MAX);

    /// Creates the moment `seconds` after 1970-01-01 00:00 UTC.
    pub const fn from_unix(seconds: u64) -> Self {
        Self(seconds)
    }

    /// Returns the seconds since 1970-01-01 00:00 UTC.
    pub const fn as_unix(self) -> u64 {
        self.0
    }

    /// Returns the moment `duration` after this one, or [`MAX`](Self::MAX). Parts of a second are dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// use hyper_session::Timestamp;
    /// use std::time::Duration;
    ///
    /// let deadline = Timestamp::from_unix(10).saturating_add(Duration::from_millis(1_900));
    /// assert_eq!(deadline, Timestamp::from_unix(11));
    /// assert_eq!(Timestamp::MAX.saturating_add(Duration::from_secs(1)), Timestamp::MAX);
    /// ```
    pub const fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration.as_secs()))
    }

    /// Returns the moment `duration` before this one, in whole seconds, or the first moment if that is later.
    pub(crate) const fn saturating_sub(self, duration: Duration) -> Self {
        Self::from_unix(self.as_unix().saturating_sub(duration.as_secs()))
    }

    /// Returns the time between two moments, whichever is the earlier one.
    pub(crate) const fn distance(self, other: Self) -> Duration {
        Duration::from_secs(self.0.abs_diff(other.0))
    }

    /// Returns how long ago `earlier` was, or zero if it is in the future.
    ///
    /// # Examples
    ///
    /// ```
    /// use hyper_session::Timestamp;
    /// use std::time::Duration;
    ///
    /// let (login, now) = (Timestamp::from_unix(100), Timestamp::from_unix(160));
    /// assert_eq!(now.saturating_since(login), Duration::from_secs(60));
    /// assert_eq!(login.saturating_since(now), Duration::ZERO);
    /// ```
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0))
    }
}

/// A moment before 1970 is 1970. Parts of a second are dropped.
///
/// # Examples
///
/// ```
/// use hyper_session::Timestamp;
/// use std::time::{Duration, SystemTime};
///
/// let moment = SystemTime::UNIX_EPOCH + Duration::from_millis(1_500);
/// assert_eq!(Timestamp::from(moment), Timestamp::from_unix(1));
/// ```
impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        Self(time.duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs()))
    }
}

/// A moment that this system cannot express is an error: [`Timestamp::MAX`] is one.
///
/// # Examples
///
/// ```
/// use hyper_session::Timestamp;
/// use std::time::{Duration, SystemTime};
///
/// let moment = SystemTime::try_from(Timestamp::from_unix(5))?;
/// assert_eq!(moment, SystemTime::UNIX_EPOCH + Duration::from_secs(5));
/// assert!(SystemTime::try_from(Timestamp::MAX).unwrap_err().is_value());
/// # Ok::<(), hyper_session::Error>(())
/// ```
impl TryFrom<Timestamp> for SystemTime {
    type Error = Error;

    fn try_from(time: Timestamp) -> Result<Self, Error> {
        UNIX_EPOCH.checked_add(Duration::from_secs(time.0)).ok_or_else(|| Error::new(Kind::TimeOutOfRange))
    }
}

/// A source of the time. It is read when a session is loaded and again at the commit.
///
/// # Examples
///
/// ```
/// use hyper_session::{Clock, SystemClock, Timestamp};
///
/// struct Noon;
/// impl Clock for Noon {
///     fn now(&self) -> Timestamp {
///         Timestamp::from_unix(12 * 3600)
///     }
/// }
/// assert!(SystemClock.now() > Noon.now());
/// ```
pub trait Clock: Send + Sync + 'static {
    /// Returns the present moment.
    fn now(&self) -> Timestamp;

    /// Calls `moved` each time that a caller sets this clock, until `moved` returns false. The clock of a machine
    /// never calls it.
    #[doc(hidden)]
    fn __when_set(&self, moved: Box<dyn Fn() -> bool + Send + Sync>) {
        drop(moved);
    }
}

/// The machine's clock. A date before 1970 reads as 1970. Every stored session is then refused as issued in the future: a
/// machine without a clock accepts nothing rather than everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        SystemTime::now().into()
    }
}

impl<C: Clock + ?Sized> Clock for std::sync::Arc<C> {
    fn now(&self) -> Timestamp {
        (**self).now()
    }

    fn __when_set(&self, moved: Box<dyn Fn() -> bool + Send + Sync>) {
        (**self).__when_set(moved);
    }
}

/// A clock for unit tests, which stands still until it is set.
#[cfg(test)]
pub(crate) struct TestClock(std::sync::atomic::AtomicU64);

#[cfg(test)]
impl TestClock {
    pub(crate) fn at(seconds: u64) -> Self {
        Self(seconds.into())
    }

    pub(crate) fn set(&self, seconds: u64) {
        self.0.store(seconds, std::sync::atomic::Ordering::SeqCst);
    }
}

#[cfg(test)]
impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix(self.0.load(std::sync::atomic::Ordering::SeqCst))
    }
}
