//! The builder of all stores. Options that stores share are documented and checked here.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};

use super::near_cache::RecordCache;
use super::server::format::SharedFormat;
use super::{Backend, SessionLimit};
use crate::clock::{Clock, Timestamp};
use crate::config::{Config, DiscardRule, Options, SiteData, Timeouts};
use crate::cookie::CookieOptions;
use crate::crypto::Keyring;
use crate::error::Error;
use crate::event::Observer;
use crate::session::PayloadFormat;

/// Builds a store of the kind `K`, which each store's `builder` chooses. Every option has a safe default.
///
/// # Options of all stores
///
/// | Option | Default |
/// |---|---|
/// | [`cookie`](Self::cookie): name and attributes of the cookie | [`CookieOptions::new`] |
/// | [`development`](Self::development): a cookie for plain http | off |
/// | [`idle_timeout`](Self::idle_timeout) | 24 hours |
/// | [`absolute_timeout`](Self::absolute_timeout) | 7 days |
/// | [`renewal_threshold`](Self::renewal_threshold) | a tenth of the idle timeout |
/// | [`timeouts`](Self::timeouts): all three at once | |
/// | [`payload_format`](Self::payload_format): encoding of values | MessagePack |
/// | [`discard_changes_on`](Self::discard_changes_on): responses that drop changed values | 5xx, 408, failures of gRPC |
/// | [`keep_values_on_server_error`](Self::keep_values_on_server_error) | false |
/// | [`clear_site_data`](Self::clear_site_data): what the browser forgets at a logout | nothing |
/// | [`private_pages_no_store`](Self::private_pages_no_store) | false |
/// | [`clock`](Self::clock) | the machine's clock |
/// | [`observer`](Self::observer): receiver of events | none |
///
/// The options of one kind of store are documented below, under that kind.
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
    /// A session of a subject counts only while it is on that subject's list.
    pub(super) check_session_list: bool,
    pub(super) at_session_limit: SessionLimit,
    /// Sessions are shared with another program, in its format.
    pub(crate) shared_format: Option<SharedFormat>,
    /// Entries that were read before, of which the backend reports changes.
    pub(super) near_cache: Option<Arc<RecordCache>>,
}

/// A kind of store that keeps sessions on the server.
pub trait ServerKind {}

impl<B: Backend> ServerKind for B {}

impl<K: ServerKind> Builder<K> {
    /// Seals the entries of the backend under keys of this ring. A copy of the backend's data then reveals no session,
    /// and a value that was altered, planted or moved to another id is refused. Default: entries are not sealed.
    ///
    /// Once it is on, sessions that were stored without it are refused, so switching it on logs everyone out, unless
    /// [`accept_unsealed_until`](Self::accept_unsealed_until) a date is called, too. To change the
    /// key, [accept](Keyring::accept) the old one for as long as sessions last.
    pub fn seal_records(mut self, keys: impl Into<Keyring>) -> Self {
        self.server.record_keys = Some(keys.into());
        self
    }

    /// Sets whether each load of a session also looks it up in its subject's session list, and refuses it if it is
    /// missing there. This concerns sessions that [`Session::login`](crate::Session::login) bound to a subject.
    /// Default: false.
    ///
    /// With it, ending fails closed. If the list is lost (evicted when memory was full, or lost with a server),
    /// [`end_sessions_of`](crate::ServerStore::end_sessions_of) finds nothing to end, but every session of that list is
    /// refused. Without it, such a session lives on, and is entered in the list again when it is renewed.
    ///
    /// The list is read together with the session, in the same round trip, once this process has loaded the session
    /// before.
    pub fn check_session_list(mut self, yes: bool) -> Self {
        self.server.check_session_list = yes;
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
    /// It bounds what one user's logins cost (OWASP ASVS 5.0, 7.1.2): each login rewrites the session list.
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
            check_session_list: false,
            shared_format: None,
            near_cache: None,
        };
        Self { kind, options: Options::default(), server }
    }

    /// Sets the attributes of the cookie. Default: [`CookieOptions::new`]. The last call counts.
    pub fn cookie(mut self, cookie: CookieOptions) -> Self {
        self.options.cookie = cookie;
        self
    }

    /// Switches to the defaults of [`CookieOptions::development`]: a cookie that works over plain http, where anyone on
    /// the network can read it.
    ///
    /// It combines with [`cookie`](Self::cookie) in any order: only the name and `Secure` change, and only if the
    /// options do not set them explicitly. With an explicit name that plain http cannot keep (`__Host-…`), `build`
    /// returns an error.
    ///
    /// # Examples
    ///
    /// ```
    /// use hyper_session::store::Store;
    /// use hyper_session::{AppKey, CookieStore, cookie::CookieOptions};
    ///
    /// let options = CookieOptions::new().path("/app");
    /// let store = CookieStore::builder(AppKey::generate()?).development().cookie(options).build()?;
    /// assert_eq!(store.config().cookie_name(), "session");
    /// # Ok::<(), hyper_session::Error>(())
    /// ```
    pub fn development(mut self) -> Self {
        self.options.development = true;
        self
    }

    /// Sets after how long without use a session expires. Default: 24 hours. Counted in whole seconds. A shorter
    /// timeout also applies to existing sessions.
    ///
    /// A request keeps the session that it loaded in time, however long it takes. The next idle deadline counts from
    /// when the response is ready.
    pub fn idle_timeout(mut self, idle: Duration) -> Self {
        self.options.idle = idle;
        self
    }

    /// Sets how long after its beginning a session expires, even if it is in use. Default: 7 days, or the idle timeout
    /// if that is longer. Counted in whole seconds. A shorter timeout also applies to existing sessions.
    ///
    /// A session begins when it is created, and anew at each [login](crate::Session::login) and
    /// [other authentication](crate::Session::reauthenticate), so a visitor who logs in has the
    /// whole time.
    ///
    /// # Limits
    ///
    /// A session in a cookie lasts at most 2^32 - 1 seconds, which is 136 years.
    pub fn absolute_timeout(mut self, absolute: Duration) -> Self {
        self.options.absolute = Some(absolute);
        self
    }

    /// Sets by how much reading a session must move its idle deadline for the move to be made. Default: a tenth of the
    /// idle timeout.
    ///
    /// With zero, every response whose handler asked for the session moves it, if that gains a second. Near the
    /// absolute timeout there is nothing to gain.
    pub fn renewal_threshold(mut self, renewal: Duration) -> Self {
        self.options.renewal = Some(renewal);
        self
    }

    /// Sets idle timeout, absolute timeout and renewal threshold.
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

    /// Sets how values are written. Default: [`PayloadFormat::MessagePack`]. Both formats are read.
    pub fn payload_format(mut self, format: PayloadFormat) -> Self {
        self.options.format = format;
        self
    }

    /// Sets which responses drop the values that their handlers changed, so that a failed request does not save half of
    /// its changes. `destroy` and `regenerate` take effect in any case. A handler overrides the rule with
    /// [`Session::discard`](crate::Session::discard) or [`Session::save`](crate::Session::save).
    ///
    /// Default: responses with a 5xx status, with 408 (the status of timeouts in middleware), and failures of gRPC that
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

    /// Sets whether changed values are saved regardless of the response. Default: false. True is the same as a
    /// [rule](Self::discard_changes_on) that matches no response.
    pub fn keep_values_on_server_error(mut self, yes: bool) -> Self {
        self.options.discard_rule = if yes { DiscardRule::Never } else { DiscardRule::default() };
        self
    }

    /// Sets what the browser forgets when the handler ends a session (`destroy`, `clear`): the response gets a
    /// `Clear-Site-Data` header beside the removed cookie. Default: nothing. Browsers obey it over https only, and may
    /// take a while.
    ///
    /// A handler's own `Clear-Site-Data` stays as it is.
    ///
    /// # Limits
    ///
    /// `WebKitGTK` ignores the header on a redirect, the usual response to a logout, so its back button still shows
    /// private pages. [`private_pages_no_store`](Self::private_pages_no_store) works in every engine. Firefox's
    /// `"cookies"` keeps partitioned cookies.
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

    /// Forbids caches, the browser's included, to keep pages of logged-in users. Each response whose handler read a
    /// session with a [subject](crate::Session::login) gets `Cache-Control: no-store`. Default: false.
    ///
    /// After a logout the back button then shows nothing in any browser. The cost: going back within the session loads
    /// the page again. A laxer `Cache-Control` of the handler is replaced, with an
    /// [`Event::CacheControlReplaced`](crate::Event::CacheControlReplaced).
    ///
    /// # Examples
    ///
    /// ```
    /// use hyper_session::{AppKey, CookieStore};
    ///
    /// let store = CookieStore::builder(AppKey::generate()?).private_pages_no_store(true).build()?;
    /// # Ok::<(), hyper_session::Error>(())
    /// ```
    //= ASVS 5.0 14.3.2: "Verify that the application sets sufficient anti-caching HTTP response header fields (i.e.,
    //# Cache-Control: no-store) so that sensitive data is not cached in browsers"
    pub fn private_pages_no_store(mut self, yes: bool) -> Self {
        self.options.private_pages_no_store = yes;
        self
    }

    /// Sets the source of the time. Default: the machine's clock.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.options.clock = Arc::new(clock);
        self
    }

    /// Sets the receiver of [events](crate::Event). Default: none.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.options.observer = Some(Arc::new(observer));
        self
    }

    /// Returns the same options for another kind of store.
    #[cfg(any(feature = "redis", feature = "sqlite"))]
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
