//! One builder for all stores: what they share is said, documented and checked once.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};

use super::Backend;
use super::server::format::SharedFormat;
use crate::clock::Clock;
use crate::config::{Config, DiscardRule, Options, SiteData, Timeouts};
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
    pub(super) max_sessions_per_subject: usize,
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
    /// Once it is on, sessions that were stored without it are refused: turning it on logs everyone out. To change the
    /// key, [accept](Keyring::accept) the old one for as long as sessions last.
    pub fn seal_records(mut self, keys: impl Into<Keyring>) -> Self {
        self.server.record_keys = Some(keys.into());
        self
    }

    /// How many sessions one subject may have at a time: with one more, the oldest is ended. Default is 100.
    ///
    /// It bounds what one user's logins cost (OWASP ASVS 5.0, 7.1.2): the list of them is rewritten on each login.
    pub fn max_sessions_per_subject(mut self, max: usize) -> Self {
        self.server.max_sessions_per_subject = max;
        self
    }
}

impl<K> Builder<K> {
    pub(super) fn new(kind: K) -> Self {
        let server = ServerOptions { record_keys: None, max_sessions_per_subject: 100, shared_format: None };
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

    /// A session that is not used for this long has expired. Default: 24 hours; counted in whole seconds. A shorter one
    /// applies to sessions that exist already.
    ///
    /// A request keeps the session that it loaded in time, however long it takes: the next deadline counts from when the
    /// response is ready.
    pub fn idle_timeout(mut self, idle: Duration) -> Self {
        self.options.idle = idle;
        self
    }

    /// A session has expired this long after it began, however busy it is. Default: seven days, or the idle timeout if that is
    /// longer; counted in whole seconds. A shorter one applies to sessions that exist already.
    ///
    /// A session begins when it is created, and anew at each [login](crate::Session::login), so a visitor who logs in has the
    /// whole time.
    pub fn absolute_timeout(mut self, absolute: Duration) -> Self {
        self.options.absolute = Some(absolute);
        self
    }

    /// Reading a session moves its idle deadline once this much can be gained. Default: a tenth of the idle timeout.
    ///
    /// Zero moves it on every response whose handler asked for the session, if that gains anything: time is counted in whole
    /// seconds, and near the absolute timeout there is nothing to gain.
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

    /// How values are written. Default is [`PayloadFormat::MessagePack`]; both are read.
    pub fn payload_format(mut self, format: PayloadFormat) -> Self {
        self.options.format = format;
        self
    }

    /// Sets which responses drop the values that their handlers changed: what a failed request did halfway is not saved.
    /// `destroy` and `regenerate` are done in any case. A handler that knows better calls
    /// [`Session::discard`](crate::Session::discard) or [`Session::save`](crate::Session::save).
    ///
    /// Default: those with a 5xx status, those with 408, which is what timeouts in middleware answer, and failures of gRPC that
    /// are known with the response head (`grpc-status` is not 0).
    ///
    /// # Examples
    ///
    /// ```
    /// use hyper_session::{AppKey, CookieStore};
    ///
    /// // The extractors and errors of a framework answer with 4xx: drop what such requests did, too.
    /// let store = CookieStore::builder(AppKey::generate()?)
    ///     .discard_changes_on(|status, _headers| status.is_client_error() || status.is_server_error())
    ///     .build()?;
    /// # Ok::<(), hyper_session::Error>(())
    /// ```
    pub fn discard_changes_on(
        mut self,
        rule: impl Fn(StatusCode, &HeaderMap) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.options.discard_rule = DiscardRule::Rule(Arc::new(rule));
        self
    }

    /// Whether changed values are saved whatever the response says. Default: false. True is short for a
    /// [rule](Self::discard_changes_on) that names no response.
    pub fn keep_values_on_server_error(mut self, yes: bool) -> Self {
        self.options.discard_rule = if yes { DiscardRule::Never } else { DiscardRule::default() };
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
        Ok((self.kind, self.options.validate()?, self.server))
    }
}

impl<K> fmt::Debug for Builder<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("cookie", &self.options.cookie).finish_non_exhaustive()
    }
}
