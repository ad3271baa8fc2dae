//! One builder for all stores: what they share is said, documented and checked once.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::server::format::SharedFormat;
use super::{Backend, SessionLimit};
use crate::clock::{Clock, Timestamp};
use crate::config::{Config, Options, SiteData, Timeouts};
use crate::cookie::CookieOptions;
use crate::crypto::Keyring;
use crate::error::Error;
use crate::event::Observer;
use crate::session::PayloadFormat;

/// Builds a store of the kind `K`, which each store's `builder` chooses. Every option has a safe default.
///
/// # Examples
///
/// ```
/// use hyper_session::{AppKey, CookieStore};
/// use std::time::Duration;
///
/// let store = CookieStore::builder(AppKey::generate()?)
///     .idle_timeout(Duration::from_secs(15 * 60))
///     .absolute_timeout(Duration::from_secs(8 * 3600))
///     .build()?;
/// # Ok::<(), hyper_session::Error>(())
/// ```
#[must_use = "a builder does nothing until it is built"]
pub struct Builder<K> {
    pub(crate) kind: K,
    pub(crate) options: Options,
    pub(crate) server: ServerOptions,
}

/// Options that server-side stores have in common.
pub(crate) struct ServerOptions {
    pub(super) record_keys: Option<Keyring>,
    pub(super) accept_unsealed: Option<Timestamp>,
    pub(super) max_sessions_per_subject: usize,
    pub(super) at_session_limit: SessionLimit,
    /// Sessions are shared with another program, in its format.
    pub(crate) shared_format: Option<SharedFormat>,
}

/// A kind of store that keeps sessions on the server.
pub trait ServerKind {}

impl<B: Backend> ServerKind for B {}

impl<K: ServerKind> Builder<K> {
    /// Seals what the backend keeps, under keys of this ring: a copy of the backend's data reveals no session, and a value
    /// that was altered, planted or moved to another id is no session. Default is not to seal.
    ///
    /// Once it is on, sessions that were stored without it are refused, so switching it on logs everyone out, unless
    /// [`accept_unsealed_until`](Self::accept_unsealed_until) a date is called, too. To change the
    /// key, [accept](Keyring::accept) the old one for as long as sessions last.
    pub fn seal_records(mut self, keys: impl Into<Keyring>) -> Self {
        self.server.record_keys = Some(keys.into());
        self
    }

    /// Reads entries that were written without sealing, too, until a date, so that switching on
    /// [`seal_records`](Self::seal_records) logs nobody out. What is written is sealed; an entry that is only read and renewed
    /// stays as it is. [`Event::Migrating`](crate::Event::Migrating) counts what still comes. Default: never.
    ///
    /// Nobody is logged out if the date lies a [longest lifetime](Self::longest_lifetime) ahead, by default the absolute
    /// timeout.
    ///
    /// # Security
    ///
    /// Until the date, anyone who can write to the backend can put sessions there, as without sealing.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "memory")] {
    /// use hyper_session::{AppKey, MemoryStore, Timestamp};
    ///
    /// let store = MemoryStore::builder()
    ///     .seal_records(AppKey::generate()?)
    ///     .accept_unsealed_until(Timestamp::from_unix(1_900_000_000))
    ///     .build()?;
    /// # }
    /// # Ok::<(), hyper_session::Error>(())
    /// ```
    pub fn accept_unsealed_until(mut self, until: Timestamp) -> Self {
        self.server.accept_unsealed = Some(until);
        self
    }

    /// Sets how many sessions one subject may have at a time. What happens to one more says
    /// [`at_session_limit`](Self::at_session_limit). Default: 100.
    ///
    /// It bounds what one user's logins cost (OWASP ASVS 5.0, 7.1.2): the list of them is rewritten on each login.
    pub fn max_sessions_per_subject(mut self, max: usize) -> Self {
        self.server.max_sessions_per_subject = max;
        self
    }

    /// Sets what happens when a subject logs in that has as many sessions as it may have. Default:
    /// [`SessionLimit::EndLeastRecentlyUsed`].
    pub fn at_session_limit(mut self, limit: SessionLimit) -> Self {
        self.server.at_session_limit = limit;
        self
    }
}

impl<K> Builder<K> {
    pub(super) fn new(kind: K) -> Self {
        let server = ServerOptions {
            record_keys: None,
            accept_unsealed: None,
            max_sessions_per_subject: 100,
            at_session_limit: SessionLimit::default(),
            shared_format: None,
        };
        Self { kind, options: Options::default(), server }
    }

    /// How the cookie is set. Default is [`CookieOptions::new`].
    pub fn cookie(mut self, cookie: CookieOptions) -> Self {
        self.options.cookie = cookie;
        self
    }

    /// Switches to [`CookieOptions::development`]: a cookie that works over plain http, and protects nobody there.
    pub fn development(self) -> Self {
        self.cookie(CookieOptions::development())
    }

    /// A session that is not used for this long is over. Default is 24 hours; counted in whole seconds.
    pub fn idle_timeout(mut self, idle: Duration) -> Self {
        self.options.idle = idle;
        self
    }

    /// A session that began this long ago has expired, however busy it is. Counted from the last
    /// [`login`](crate::Session::login) or [`reauthenticate`](crate::Session::reauthenticate), or from the beginning of the
    /// session, in whole seconds. Default: seven days, or the idle timeout if that is longer. A change applies to sessions that
    /// exist already, unless it makes them longer.
    pub fn absolute_timeout(mut self, absolute: Duration) -> Self {
        self.options.absolute = Some(absolute);
        self
    }

    /// Reading a session moves its idle deadline once this much can be gained. Default is a tenth of the idle timeout; zero
    /// moves it on every response.
    pub fn renewal_threshold(mut self, renewal: Duration) -> Self {
        self.options.renewal = Some(renewal);
        self
    }

    /// Idle timeout, absolute timeout and renewal threshold at once.
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.options.idle = timeouts.idle;
        self.options.absolute = Some(timeouts.absolute);
        self.options.renewal = Some(timeouts.renewal);
        self
    }

    /// Sets the timeouts of sessions without a subject: those that [`Session::login`](crate::Session::login) has not bound.
    /// Default: those of all sessions.
    ///
    /// With short ones, crawlers and visitors who do not come back do not fill a server-side store. An application that logs
    /// users in without `login` must not set this: its sessions have no subject.
    ///
    /// # Examples
    ///
    /// ```
    /// use hyper_session::{AppKey, CookieStore, Timeouts};
    /// use std::time::Duration;
    ///
    /// let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    /// let visitors = Timeouts { idle: minutes(20), absolute: minutes(120), renewal: minutes(2) };
    /// let store = CookieStore::builder(AppKey::generate()?).anonymous_timeouts(visitors).build()?;
    /// # Ok::<(), hyper_session::Error>(())
    /// ```
    pub fn anonymous_timeouts(mut self, timeouts: Timeouts) -> Self {
        self.options.anonymous = Some(timeouts);
        self
    }

    /// Sets the longest that a session may last, whatever [lifetime](crate::Session::set_lifetime) it is given: for
    /// "remember me" beside shorter timeouts for everyone else. Default: the absolute timeout.
    ///
    /// A change applies to sessions that exist already.
    ///
    /// # Examples
    ///
    /// 30 days where the handler says so, an hour without a request otherwise:
    ///
    /// ```
    /// use hyper_session::{AppKey, CookieStore};
    /// use std::time::Duration;
    ///
    /// let store = CookieStore::builder(AppKey::generate()?)
    ///     .idle_timeout(Duration::from_secs(3600))
    ///     .longest_lifetime(Duration::from_secs(30 * 24 * 3600))
    ///     .build()?;
    /// # Ok::<(), hyper_session::Error>(())
    /// ```
    pub fn longest_lifetime(mut self, longest: Duration) -> Self {
        self.options.longest = Some(longest);
        self
    }

    /// How values are written. Default is [`PayloadFormat::MessagePack`]; both are read.
    pub fn payload_format(mut self, format: PayloadFormat) -> Self {
        self.options.format = format;
        self
    }

    /// Whether changed values are saved although the handler answered with a 5xx status. Default is false: what a failed
    /// request did halfway is dropped. `destroy` and `regenerate` are done in any case.
    pub fn keep_values_on_server_error(mut self, yes: bool) -> Self {
        self.options.keep_values_on_server_error = yes;
        self
    }

    /// What the browser shall forget when the handler ends a session (`destroy`, `clear`), told by a `Clear-Site-Data` field
    /// beside the removed cookie. Default is nothing. Browsers heed it over https alone, and it may take them a while.
    ///
    /// A handler's own `Clear-Site-Data` stays as it is.
    ///
    /// # Examples
    ///
    /// ```
    /// use hyper_session::{AppKey, CookieStore, SiteData};
    ///
    /// let store = CookieStore::builder(AppKey::generate()?)
    ///     .clear_site_data(&[SiteData::Cache, SiteData::Storage])
    ///     .build()?;
    /// # Ok::<(), hyper_session::Error>(())
    /// ```
    //= ASVS 5.0 14.3.1: "Verify that authenticated data is cleared from client storage, such as the browser DOM, after the
    //# client or session is terminated. The 'Clear-Site-Data' HTTP response header field may be able to help with this"
    pub fn clear_site_data(mut self, kinds: &[SiteData]) -> Self {
        self.options.clear_site_data = SiteData::header(kinds);
        self
    }

    /// Where the time comes from. Default is the machine's clock.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.options.clock = Arc::new(clock);
        self
    }

    /// Who is told of [events](crate::Event). Default is nobody.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.options.observer = Some(Arc::new(observer));
        self
    }

    /// The same options for another kind of store.
    #[cfg(feature = "redis")]
    pub(super) fn with_kind<L>(self, kind: L) -> (K, Builder<L>) {
        (self.kind, Builder { kind, options: self.options, server: self.server })
    }

    pub(super) fn validate(self) -> Result<(K, Config, ServerOptions), Error> {
        if self.server.max_sessions_per_subject == 0 {
            return Err(Error::config(
                "a subject that may have no session cannot log in: raise max_sessions_per_subject()",
            ));
        }
        if self.server.accept_unsealed.is_some() && self.server.record_keys.is_none() {
            return Err(Error::config(
                "unsealed entries are read in any case without seal_records(): call it, or drop accept_unsealed_until()",
            ));
        }
        Ok((self.kind, self.options.validate()?, self.server))
    }
}

impl<K> fmt::Debug for Builder<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("cookie", &self.options.cookie).finish_non_exhaustive()
    }
}
