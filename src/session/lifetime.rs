//! The lifetime of one session, where it differs from the store's: "remember me", or a kiosk.

use std::time::Duration;

use super::key::LIFETIME;
use super::{Payload, Session, value_codec};
use crate::error::{Error, Kind};

/// Stands in errors where a key would.
const NAME: &str = "the lifetime";

/// The lifetime of one session: its timeouts, and whether its cookie outlives the browser.
///
/// Give it to [`Session::set_lifetime`]. The store's options apply to the rest. No session lasts longer than the
/// store's [`longest_lifetime`](crate::store::Builder::longest_lifetime), by default its absolute timeout: a longer one is cut
/// to that, also when the option is lowered later.
///
/// # Examples
///
/// ```
/// use hyper_session::{Error, Lifetime, Session};
/// use std::time::Duration;
///
/// fn log_in(session: &Session, user: &str, remember_me: bool) -> Result<(), Error> {
///     session.login(user)?;
///     session.set_lifetime(if remember_me {
///         Lifetime::persistent(Duration::from_secs(30 * 24 * 3600))
///     } else {
///         Lifetime::until_browser_closes()
///     })
/// }
///
/// # hyper_session::__example(|session| {
/// log_in(session, "ada", true)?;
/// assert_eq!(session.lifetime(), Lifetime::persistent(Duration::from_secs(30 * 24 * 3600)));
/// # Ok(())
/// # }).unwrap();
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[must_use = "a lifetime does nothing until it is given to Session::set_lifetime"]
#[doc(alias = "Expiry")]
#[doc(alias = "SessionLifecycle")]
pub struct Lifetime {
    cookie: CookieLifetime,
    idle: Option<u64>,
    absolute: Option<u64>,
}

/// How long a browser keeps the cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum CookieLifetime {
    /// As the cookie's options say.
    #[default]
    Configured,
    /// As long as the session lasts.
    Persistent,
    /// Until the browser closes.
    BrowserSession,
}

impl Lifetime {
    /// Creates the lifetime that the store's options give every session: the default.
    pub const fn new() -> Self {
        Self { cookie: CookieLifetime::Configured, idle: None, absolute: None }
    }

    /// Creates a lifetime of `duration` from the login on, whether the session is used or not. The browser keeps the cookie
    /// when it closes (a persistent cookie).
    ///
    /// Both timeouts are set to `duration`. The store must allow it:
    /// [`longest_lifetime`](crate::store::Builder::longest_lifetime).
    ///
    /// # Security
    ///
    /// OWASP ASVS 5.0, 7.1.1, asks for the reason of each timeout. For as long as it lasts, a copy of the cookie is a login.
    /// Ask for the password again before anything dangerous
    /// ([`authenticated_within`](Session::authenticated_within)).
    #[doc(alias = "remember_me")]
    #[doc(alias = "permanent")]
    pub const fn persistent(duration: Duration) -> Self {
        let seconds = Some(duration.as_secs());
        Self { cookie: CookieLifetime::Persistent, idle: seconds, absolute: seconds }
    }

    /// Creates a lifetime with a cookie without `Max-Age`, which the browser drops when it closes. The timeouts are the
    /// store's, and the server enforces them, because browsers that restore their windows keep such cookies.
    #[doc(alias = "OnSessionEnd")]
    #[doc(alias = "BrowserSession")]
    pub const fn until_browser_closes() -> Self {
        Self { cookie: CookieLifetime::BrowserSession, idle: None, absolute: None }
    }

    /// Sets the idle timeout, in whole seconds.
    ///
    /// # Examples
    ///
    /// A kiosk, whose user walks away:
    ///
    /// ```
    /// use hyper_session::Lifetime;
    /// use std::time::Duration;
    ///
    /// # hyper_session::__example(|session| {
    /// let kiosk = Lifetime::until_browser_closes().idle_timeout(Duration::from_secs(120));
    /// session.set_lifetime(kiosk)?;
    /// assert_eq!(session.lifetime(), kiosk);
    /// # Ok(())
    /// # }).unwrap();
    /// ```
    pub const fn idle_timeout(mut self, idle: Duration) -> Self {
        self.idle = Some(idle.as_secs());
        self
    }

    /// Sets the absolute timeout, in whole seconds, counted from the last login, or from the beginning of the session.
    pub const fn absolute_timeout(mut self, absolute: Duration) -> Self {
        self.absolute = Some(absolute.as_secs());
        self
    }

    pub(crate) const fn idle(self) -> Option<Duration> {
        seconds(self.idle)
    }

    pub(crate) const fn absolute(self) -> Option<Duration> {
        seconds(self.absolute)
    }

    /// Reads the lifetime that [`set_lifetime`](Session::set_lifetime) stored. If it cannot be read, the store's applies.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (cookie, idle, absolute) = value_codec::decode(NAME, bytes).ok()?;
        let cookie = match cookie {
            0 => CookieLifetime::Configured,
            1 => CookieLifetime::Persistent,
            2 => CookieLifetime::BrowserSession,
            _ => return None,
        };
        Some(Self { cookie, idle, absolute })
    }
}

const fn seconds(seconds: Option<u64>) -> Option<Duration> {
    match seconds {
        Some(seconds) => Some(Duration::from_secs(seconds)),
        None => None,
    }
}

impl Session {
    /// Sets how long this session lasts, from the next save on. It stays so through renewals, regenerates and restarts of the
    /// server, until it is set again or the session ends. A login as another subject begins with the store's lifetime.
    ///
    /// The absolute timeout counts from the last login, not from this call: one that has passed already ends the session. A
    /// session with nothing but a lifetime is empty, and not stored.
    ///
    /// # Errors
    ///
    /// [`is_value`](Error::is_value) if a timeout is shorter than a second. [`is_head_sent`](Error::is_head_sent) if the
    /// response is on its way.
    ///
    /// # Limits
    ///
    /// A lifetime that is longer than the store allows is cut
    /// ([`longest_lifetime`](crate::store::Builder::longest_lifetime)). A longer idle timeout does not lengthen a
    /// [`max_age`](crate::cookie::CookieOptions::max_age) of the options: a lifetime that is
    /// [persistent](Lifetime::persistent) does. Browsers keep no cookie for longer than 400 days. The
    /// cookies of Astra hold no deadlines, and so no lifetimes.
    ///
    /// # Examples
    ///
    /// See [`Lifetime`].
    #[doc(alias = "set_expiry")]
    #[doc(alias = "ttl")]
    #[doc(alias = "maxAge")]
    pub fn set_lifetime(&self, lifetime: Lifetime) -> Result<(), Error> {
        let Lifetime { cookie, idle, absolute } = lifetime;
        if idle == Some(0) || absolute == Some(0) {
            return Err(Error::new(Kind::Lifetime));
        }
        let value = if lifetime == Lifetime::new() {
            None
        } else {
            let cookie: u8 = match cookie {
                CookieLifetime::Configured => 0,
                CookieLifetime::Persistent => 1,
                CookieLifetime::BrowserSession => 2,
            };
            Some(value_codec::encode(NAME, &(cookie, idle, absolute))?)
        };
        self.lock_open()?.put(LIFETIME, value);
        Ok(())
    }

    /// Returns the lifetime that [`set_lifetime`](Self::set_lifetime) gave this session, as it was asked for; the store's
    /// ([`Lifetime::new`]) if it was not.
    #[doc(alias = "expiry")]
    pub fn lifetime(&self) -> Lifetime {
        self.raw(LIFETIME).and_then(|value| Lifetime::from_bytes(&value)).unwrap_or_default()
    }

    /// Returns how long a browser keeps the cookie of the session as it is stored.
    pub(crate) fn stored_cookie_lifetime(&self) -> CookieLifetime {
        self.read_state().base().map_or(CookieLifetime::Configured, |base| base.payload().lifetime().cookie)
    }
}

impl Payload {
    /// Returns true if the session has a lifetime of its own.
    pub(crate) fn has_lifetime(&self) -> bool {
        self.find_reserved(LIFETIME).is_some()
    }

    /// Returns the lifetime of the session with these values.
    #[inline]
    pub(crate) fn lifetime(&self) -> Lifetime {
        let stored = self.find_reserved(LIFETIME);
        stored.and_then(|range| Lifetime::from_bytes(self.slice(range))).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::__example;
    use super::*;

    #[test]
    fn a_lifetime_reads_back_and_the_store_s_own_takes_no_room() {
        let (hour, day) = (Duration::from_secs(3600), Duration::from_secs(24 * 3600));
        __example(|session| {
            for lifetime in [
                Lifetime::persistent(day),
                Lifetime::persistent(Duration::MAX),
                Lifetime::until_browser_closes(),
                Lifetime::until_browser_closes().idle_timeout(hour).absolute_timeout(day),
                Lifetime::new().idle_timeout(hour),
                Lifetime::new(),
            ] {
                session.set_lifetime(lifetime)?;
                assert_eq!(session.lifetime(), lifetime);
            }
            assert_eq!(session.raw(LIFETIME), None);
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn a_lifetime_of_nothing_is_refused_and_garbage_is_the_store_s() {
        __example(|session| {
            for none in [
                Lifetime::persistent(Duration::from_millis(999)),
                Lifetime::new().idle_timeout(Duration::ZERO),
            ] {
                assert!(session.set_lifetime(none).unwrap_err().is_value());
            }
            Ok(())
        })
        .unwrap();
        for bytes in [&b""[..], b"\x93\x03\xc0\xc0", b"\x93\x00\xff\xc0", b"\x92\x00\xc0", b"\xa1x"] {
            assert_eq!(Lifetime::from_bytes(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn a_lifetime_alone_is_no_session() {
        __example(|session| {
            session.set_lifetime(Lifetime::until_browser_closes())?;
            assert!(session.is_empty() && session.keys().is_empty());
            assert!(session.set(LIFETIME, 1).unwrap_err().is_value());
            Ok(())
        })
        .unwrap();
    }
}
