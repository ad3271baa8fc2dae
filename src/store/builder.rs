//! The builder of all stores: the options that every store has, and their check.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode, Uri};

use super::server_options::ServerOptions;
use crate::clock::{Clock, Timestamp};
use crate::config::{Config, DiscardRule, Options, SiteData, Timeouts};
use crate::cookie::CookieOptions;
use crate::crypto::Keyring;
#[cfg(feature = "device-bound")]
use crate::device_bound::{Binder, DeviceBound};
use crate::error::Error;
use crate::event::Observer;
use crate::session::PayloadFormat;

/// A builder of a store of the kind `K`, from the store's `builder`. Every option has a safe default, except the prefix in Redis,
/// which must be set.
///
/// # Options of all stores
///
/// | Option | Default |
/// |---|---|
/// | [`cookie`](Self::cookie): name and attributes of the cookie | [`CookieOptions::new`] |
/// | [`development`](Self::development): a cookie for plain http | off |
/// | [`idle_timeout`](Self::idle_timeout) | 24 hours |
/// | [`absolute_timeout`](Self::absolute_timeout) | 7 days, or the idle timeout if that is longer |
/// | [`renewal_threshold`](Self::renewal_threshold) | a tenth of the idle timeout |
/// | [`timeouts`](Self::timeouts): all three at once | |
/// | [`anonymous_timeouts`](Self::anonymous_timeouts): timeouts of sessions without a subject | those of all sessions |
/// | [`longest_lifetime`](Self::longest_lifetime): the longest that a session may last | the absolute timeout |
/// | [`payload_format`](Self::payload_format): encoding of values | MessagePack |
/// | [`discard_changes_on`](Self::discard_changes_on): responses that drop changed values | 5xx, 408, failures of gRPC |
/// | [`keep_values_on_server_error`](Self::keep_values_on_server_error) | false |
/// | [`clear_site_data`](Self::clear_site_data): data that the browser deletes at a logout | none |
/// | [`private_pages_no_store`](Self::private_pages_no_store) | false |
/// | [`no_renewal_on`](Self::no_renewal_on): requests that keep no session alive by reading it | none |
/// | [`accept_retired_until`](Self::accept_retired_until): a date at which retired cookie names end | none |
/// | [`plain_http_on`](Self::plain_http_on): requests whose cookie is not `Secure` | none |
/// | `device_bound` (feature `device-bound`): sessions that only one device can use | off |
/// | [`clock`](Self::clock) | the machine's clock |
/// | [`observer`](Self::observer): receiver of events | none |
///
/// The options of one kind of store are documented below, under that kind.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), hyper_session::Error> {
/// use http::{Request, Response};
/// use hyper::service::Service;
/// use hyper_session::{AppKey, CookieStore, Error, SessionHandle, session_fn};
/// use std::time::Duration;
///
/// let store = CookieStore::builder(AppKey::generate()?)
///     .idle_timeout(Duration::from_secs(15 * 60))
///     .absolute_timeout(Duration::from_secs(8 * 3600))
///     .build()?;
/// let service = session_fn(store, |_: Request<()>, session: SessionHandle| async move {
///     session.load().await?.set("seen", true)?;
///     Ok::<_, Error>(Response::new(()))
/// });
/// let response = service.call(Request::new(())).await?;
/// assert!(response.headers()["set-cookie"].to_str().unwrap().contains("; Max-Age=900;"));
/// # Ok(())
/// # }
/// ```
#[must_use = "a builder does nothing until it is built"]
pub struct Builder<K> {
    pub(crate) kind: K,
    pub(crate) options: Options,
    pub(crate) server: ServerOptions,
}

impl<K> Builder<K> {
    pub(super) fn new(kind: K) -> Self {
        Self { kind, options: Options::default(), server: ServerOptions::default() }
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
    /// use http::{Request, Response};
    /// use hyper::service::Service;
    /// use hyper_session::cookie::CookieOptions;
    /// use hyper_session::{AppKey, CookieStore, Error, SessionHandle, session_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Error> {
    /// let options = CookieOptions::new().path("/app");
    /// let store = CookieStore::builder(AppKey::generate()?).development().cookie(options).build()?;
    /// let service = session_fn(store, |_: Request<()>, session: SessionHandle| async move {
    ///     Ok::<_, Error>(Response::new(session.cookie_name().to_owned()))
    /// });
    /// assert_eq!(service.call(Request::new(())).await?.body(), "session");
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "cookie_secure")]
    #[doc(alias = "with_secure")]
    pub fn development(mut self) -> Self {
        self.options.development = true;
        self
    }

    /// Sets after how long without use a session expires. Default: 24 hours. Counted in whole seconds. A shorter
    /// timeout also applies to existing sessions.
    ///
    /// A request keeps the session that it loaded in time, however long it takes. The next idle deadline counts from
    /// when the response is ready.
    #[doc(alias = "session_ttl")]
    #[doc(alias = "with_expiry")]
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
    #[doc(alias = "rolling")]
    #[doc(alias = "session_ttl_extension_policy")]
    #[doc(alias = "with_always_save")]
    pub fn renewal_threshold(mut self, renewal: Duration) -> Self {
        self.options.renewal = Some(renewal);
        self
    }

    /// Sets which requests do not keep their session alive by reading it: those of a page that polls while its user may be
    /// away, for example. In such a request, [`load`](crate::SessionHandle::load) works as
    /// [`load_without_renewal`](crate::SessionHandle::load_without_renewal). A change is saved as usual, and renews.
    /// Default: none.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "testing")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), hyper_session::Error> {
    /// use http::{Request, Response, header::SET_COOKIE};
    /// use hyper::service::Service;
    /// use hyper_session::testing::{self, FakeClock};
    /// use hyper_session::{AppKey, CookieStore, Error, SessionHandle, session_fn};
    /// use std::time::Duration;
    ///
    /// let clock = FakeClock::at(1_900_000_000);
    /// let store = CookieStore::builder(AppKey::generate()?)
    ///     .no_renewal_on(|uri, _headers| uri.path().starts_with("/poll/"))
    ///     .clock(clock.clone())
    ///     .build()?;
    /// let service = session_fn(store.clone(), |_: Request<()>, session: SessionHandle| async move {
    ///     session.load().await?;
    ///     Ok::<_, Error>(Response::new(()))
    /// });
    /// for (path, renews) in [("/poll/messages", false), ("/messages", true)] {
    ///     let request = Request::get(path).body(()).unwrap();
    ///     let request = testing::with_session(request, &store, |session| session.login("ada")).await?;
    ///     clock.advance(Duration::from_secs(12 * 3600)); // half of the idle timeout
    ///     assert_eq!(service.call(request).await?.headers().contains_key(SET_COOKIE), renews);
    /// }
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "testing"))]
    /// # fn main() {}
    /// ```
    pub fn no_renewal_on(mut self, rule: impl Fn(&Uri, &HeaderMap) -> bool + Send + Sync + 'static) -> Self {
        self.options.settings.no_renewal_rule = Some(Arc::new(rule));
        self
    }

    /// Reads the cookies under [retired names](CookieOptions::retired_name) until a date. From then on they are refused
    /// ([`Refusal::RetiredFormat`](crate::Refusal::RetiredFormat)) and removed, even if the options still name them. Default: they are
    /// read for as long as the options name them.
    ///
    /// No user is logged out if the date lies a [longest lifetime](Self::longest_lifetime) ahead, by default the absolute
    /// timeout. It does not end a [`SessionWatch`](crate::SessionWatch) that was taken before.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "testing")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), hyper_session::Error> {
    /// use http::{Request, Response, header::COOKIE, header::SET_COOKIE};
    /// use hyper_session::cookie::CookieOptions;
    /// use hyper_session::testing::{self, FakeClock};
    /// use hyper_session::{AppKey, CookieStore, Keyring, Timestamp};
    ///
    /// let (keys, clock) = (Keyring::new(AppKey::generate()?), FakeClock::at(1_900_000_000));
    /// let builder = || CookieStore::builder(keys.clone()).clock(clock.clone());
    /// let before = builder().cookie(CookieOptions::new().name("session")).build()?;
    /// let store = builder()
    ///     .cookie(CookieOptions::new().retired_name("session"))
    ///     .accept_retired_until(Timestamp::from_unix(1_900_000_600))
    ///     .build()?;
    /// let request = testing::with_session(Request::new(()), &before, |session| session.login("ada")).await?;
    /// let response = Response::builder().header(SET_COOKIE, &request.headers()[COOKIE]).body(()).unwrap();
    /// assert!(testing::session_in(&response, &store).await?.is_some());
    /// clock.set(1_900_000_600);
    /// assert!(testing::session_in(&response, &store).await?.is_none());
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "testing"))]
    /// # fn main() {}
    /// ```
    pub fn accept_retired_until(mut self, until: Timestamp) -> Self {
        self.options.settings.retired_until = Some(until);
        self
    }

    /// Sets which requests came over plain http, for a service that is reached both by http and by https. Their responses
    /// set the cookie without `Secure` and `Partitioned`, and with `SameSite=Lax` instead of `None`, because browsers accept
    /// none of these over http. Default: none.
    ///
    /// The scheme is not in an HTTP/1.1 request. The rule reads what a trusted proxy says, for example.
    ///
    /// # Security
    ///
    /// Anyone on the network can read a cookie that was set over plain http. Serve logins over https only, or redirect all
    /// requests there: then this option is not needed.
    ///
    /// # Limits
    ///
    /// The cookie's name must not begin with `__Host-` or `__Secure-`: `build` returns an error. A browser that holds the
    /// `Secure` cookie neither sends it over http nor lets a response over http replace it (RFC 6265bis section 5.7), so such
    /// a browser is not logged in over http.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), hyper_session::Error> {
    /// use http::{Request, Response, header::SET_COOKIE};
    /// use hyper::service::Service;
    /// use hyper_session::cookie::CookieOptions;
    /// use hyper_session::{AppKey, CookieStore, Error, SessionHandle, session_fn};
    ///
    /// // The proxy in front of this service sets the field, and drops it from the requests of clients.
    /// let store = CookieStore::builder(AppKey::generate()?)
    ///     .cookie(CookieOptions::new().name("session"))
    ///     .plain_http_on(|_uri, headers| headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "http"))
    ///     .build()?;
    /// let service = session_fn(store, |_: Request<()>, session: SessionHandle| async move {
    ///     session.load().await?.set("seen", true)?;
    ///     Ok::<_, Error>(Response::new(()))
    /// });
    /// for (scheme, secure) in [("http", false), ("https", true)] {
    ///     let request = Request::builder().header("x-forwarded-proto", scheme).body(()).unwrap();
    ///     let response = service.call(request).await?;
    ///     assert_eq!(response.headers()[SET_COOKIE].to_str().unwrap().contains("Secure"), secure);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "secure_auto")]
    pub fn plain_http_on(mut self, rule: impl Fn(&Uri, &HeaderMap) -> bool + Send + Sync + 'static) -> Self {
        self.options.plain_http_rule = Some(Arc::new(rule));
        self
    }

    /// Sets idle timeout, absolute timeout and renewal threshold.
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.options.idle = timeouts.idle;
        self.options.absolute = Some(timeouts.absolute);
        self.options.renewal = Some(timeouts.renewal);
        self
    }

    /// Sets the timeouts of sessions without a subject, which [`Session::login`](crate::Session::login) has not bound to one.
    /// Default: those of all sessions.
    ///
    /// With short ones, crawlers and visitors who do not come back do not fill a server-side store. An application that logs
    /// users in without `login` must not set this: its sessions have no subject.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "testing")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), hyper_session::Error> {
    /// use http::{Request, Response, header::COOKIE, header::SET_COOKIE};
    /// use hyper_session::testing::{self, FakeClock};
    /// use hyper_session::{AppKey, CookieStore, Timeouts};
    /// use std::time::Duration;
    ///
    /// let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    /// let visitors = Timeouts { idle: minutes(20), absolute: minutes(120), renewal: minutes(2) };
    /// let store = CookieStore::builder(AppKey::generate()?)
    ///     .anonymous_timeouts(visitors)
    ///     .clock(FakeClock::at(1_900_000_000))
    ///     .build()?;
    /// for (logs_in, lasts) in [(false, minutes(20)), (true, minutes(24 * 60))] {
    ///     let request = testing::with_session(Request::new(()), &store, |session| {
    ///         if logs_in { session.login("ada") } else { session.set("cart", 7) }
    ///     });
    ///     let request = request.await?;
    ///     let response = Response::builder().header(SET_COOKIE, &request.headers()[COOKIE]).body(()).unwrap();
    ///     let session = testing::session_in(&response, &store).await?.expect("a session");
    ///     assert_eq!(session.remaining(), Some(lasts));
    /// }
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "testing"))]
    /// # fn main() {}
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
    /// ```
    /// # #[cfg(feature = "testing")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), hyper_session::Error> {
    /// use http::{Request, Response, header::COOKIE, header::SET_COOKIE};
    /// use hyper_session::testing::{self, FakeClock};
    /// use hyper_session::{AppKey, CookieStore, Lifetime};
    /// use std::time::Duration;
    ///
    /// // 30 days where the handler says so, an hour without a request otherwise.
    /// let (hour, month) = (Duration::from_secs(3600), Duration::from_secs(30 * 24 * 3600));
    /// let store = CookieStore::builder(AppKey::generate()?)
    ///     .idle_timeout(hour)
    ///     .longest_lifetime(month)
    ///     .clock(FakeClock::at(1_900_000_000))
    ///     .build()?;
    /// for (remember_me, lasts) in [(true, month), (false, hour)] {
    ///     let request = testing::with_session(Request::new(()), &store, |session| {
    ///         session.login("ada")?;
    ///         session.set_lifetime(if remember_me { Lifetime::persistent(month) } else { Lifetime::new() })
    ///     });
    ///     let request = request.await?;
    ///     let response = Response::builder().header(SET_COOKIE, &request.headers()[COOKIE]).body(()).unwrap();
    ///     let session = testing::session_in(&response, &store).await?.expect("a session");
    ///     assert_eq!(session.remaining(), Some(lasts));
    /// }
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "testing"))]
    /// # fn main() {}
    /// ```
    pub fn longest_lifetime(mut self, longest: Duration) -> Self {
        self.options.longest = Some(longest);
        self
    }

    /// Sets how values are written. Default: [`PayloadFormat::MessagePack`]. Both formats are read. [`PayloadFormat::Json`] cannot
    /// hold every value.
    pub fn payload_format(mut self, format: PayloadFormat) -> Self {
        self.options.settings.format = format;
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
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), hyper_session::Error> {
    /// use http::{Request, Response, StatusCode, header::SET_COOKIE};
    /// use hyper::service::Service;
    /// use hyper_session::{AppKey, CookieStore, Error, SessionHandle, session_fn};
    ///
    /// // The extractors and errors of a framework answer with 4xx: drop what such requests did, too.
    /// let store = CookieStore::builder(AppKey::generate()?)
    ///     .discard_changes_on(|status, _headers| status.is_client_error() || status.is_server_error())
    ///     .build()?;
    /// let service = session_fn(store, |request: Request<StatusCode>, session: SessionHandle| async move {
    ///     session.load().await?.set("step", 2)?;
    ///     Ok::<_, Error>(Response::builder().status(request.into_body()).body(()).unwrap())
    /// });
    /// for (status, saves) in [(StatusCode::OK, true), (StatusCode::NOT_FOUND, false)] {
    ///     let response = service.call(Request::new(status)).await?;
    ///     assert_eq!(response.headers().contains_key(SET_COOKIE), saves);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn discard_changes_on(
        mut self,
        rule: impl Fn(StatusCode, &HeaderMap) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.options.settings.discard_rule = DiscardRule::Rule(Arc::new(rule));
        self
    }

    /// Sets whether changed values are saved regardless of the response. Default: false. True is the same as a
    /// [rule](Self::discard_changes_on) that matches no response. True together with such a rule does not build.
    pub fn keep_values_on_server_error(mut self, yes: bool) -> Self {
        self.options.keep_values = yes;
        self
    }

    /// Sets which data the browser deletes when the handler ends a session (`destroy`, `clear`; also if a value is set after
    /// `clear` of a subject's session), or deletes its last value: the response gets a `Clear-Site-Data` header beside the
    /// removed cookie. Default: none. Browsers obey it over https only, and may take a while.
    ///
    /// A session that had only flash values also ends when a page shows the last one. That is not a logout, and the response does
    /// not get the header. In a store that shares sessions with Astra, flash values are like all others.
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
    /// # #[cfg(feature = "testing")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), hyper_session::Error> {
    /// use http::{Request, Response};
    /// use hyper::service::Service;
    /// use hyper_session::{AppKey, CookieStore, Error, SessionHandle, SiteData, session_fn, testing};
    ///
    /// let store = CookieStore::builder(AppKey::generate()?)
    ///     .clear_site_data(&[SiteData::Cache, SiteData::Storage])
    ///     .build()?;
    /// let service = session_fn(store.clone(), |request: Request<()>, session: SessionHandle| async move {
    ///     let session = session.load().await?;
    ///     if request.uri().path() == "/logout" {
    ///         session.destroy()?;
    ///     }
    ///     Ok::<_, Error>(Response::new(()))
    /// });
    /// let call = async |path: &str| {
    ///     let request = Request::get(path).body(()).unwrap();
    ///     service.call(testing::with_session(request, &store, |session| session.login("ada")).await?).await
    /// };
    /// assert_eq!(call("/logout").await?.headers()["clear-site-data"], r#""cache", "storage""#);
    /// assert!(!call("/").await?.headers().contains_key("clear-site-data"));
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "testing"))]
    /// # fn main() {}
    /// ```
    //= ASVS 5.0 14.3.1: "Verify that authenticated data is cleared from client storage, such as the browser DOM, after the
    //# client or session is terminated. The 'Clear-Site-Data' HTTP response header field may be able to help with this"
    pub fn clear_site_data(mut self, kinds: &[SiteData]) -> Self {
        self.options.settings.clear_site_data = SiteData::header(kinds);
        self
    }

    /// Forbids caches, the browser's included, to keep pages of logged-in users. Each response whose handler read a
    /// session with a [subject](crate::Session::login) gets `Cache-Control: no-store`. Default: false.
    ///
    /// After a logout the back button then shows nothing in any browser. The cost: going back within the session loads
    /// the page again. A laxer `Cache-Control` of the handler is replaced, with an
    /// [`EventKind::CacheControlReplaced`](crate::EventKind::CacheControlReplaced).
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "testing")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), hyper_session::Error> {
    /// use http::{Request, Response};
    /// use hyper::service::Service;
    /// use hyper_session::{AppKey, CookieStore, Error, SessionHandle, session_fn, testing};
    ///
    /// let store = CookieStore::builder(AppKey::generate()?).private_pages_no_store(true).build()?;
    /// let service = session_fn(store.clone(), |_: Request<()>, session: SessionHandle| async move {
    ///     session.load().await?;
    ///     Ok::<_, Error>(Response::new(()))
    /// });
    /// let user = testing::with_session(Request::new(()), &store, |session| session.login("ada")).await?;
    /// assert_eq!(service.call(user).await?.headers()["cache-control"], "no-store");
    /// let visitor = testing::with_session(Request::new(()), &store, |session| session.set("cart", 7)).await?;
    /// assert!(!service.call(visitor).await?.headers().contains_key("cache-control"));
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "testing"))]
    /// # fn main() {}
    /// ```
    //= ASVS 5.0 14.3.2: "Verify that the application sets sufficient anti-caching HTTP response header fields (i.e.,
    //# Cache-Control: no-store) so that sensitive data is not cached in browsers"
    pub fn private_pages_no_store(mut self, yes: bool) -> Self {
        self.options.settings.private_pages_no_store = yes;
        self
    }

    /// Binds the session of each logged-in user to the device of its browser, where the browser can do that: a copy of its
    /// cookies is worthless within minutes. Default: sessions are not bound.
    ///
    /// The services of the store must answer browsers, too: call `device_bound` on the
    /// [`SessionService`](crate::SessionService::device_bound). The guide [`device_bound`](crate::guide::device_bound) shows
    /// it.
    ///
    /// [`Session::binding`](crate::Session::binding) says if a session is bound. A request with a bound session and without a
    /// valid bound cookie gets an empty session.
    ///
    /// # Security
    ///
    /// A cookie that was copied before the session was bound ends with the registration, after a minute in which the
    /// requests of the login page are answered. A [`CookieStore`](crate::CookieStore) needs
    /// [`revocations`](Builder::revocations) for that. Without them, such a copy is valid until its deadline.
    ///
    /// A store without this option accepts bound sessions without their bound cookie. So it must be set on every host. The
    /// guide shows how to [switch it on](crate::guide::device_bound#deploying-host-by-host) without logging users out.
    ///
    /// # Examples
    ///
    /// ```
    /// use hyper_session::{AppKey, CookieStore, DeviceBound, Revocations};
    ///
    /// let store = CookieStore::builder(AppKey::generate()?)
    ///     .revocations(Revocations::in_memory())
    ///     .device_bound(DeviceBound::new())
    ///     .build()?;
    /// # Ok::<(), hyper_session::Error>(())
    /// ```
    #[cfg(feature = "device-bound")]
    #[doc(alias = "dbsc")]
    pub fn device_bound(mut self, options: DeviceBound) -> Self {
        self.options.device_bound = Some(options);
        self
    }

    /// Sets the source of the time. Default: the machine's clock.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.options.settings.clock = Arc::new(clock);
        self
    }

    /// Sets the receiver of [events](crate::Event). Default: none.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), hyper_session::Error> {
    /// use http::{Request, Response};
    /// use hyper::service::Service;
    /// use hyper_session::{AppKey, CookieStore, Error, Event, EventKind, SessionHandle, session_fn};
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicUsize, Ordering};
    ///
    /// let refused = Arc::new(AtomicUsize::new(0));
    /// let counter = Arc::clone(&refused);
    /// let store = CookieStore::builder(AppKey::generate()?)
    ///     .observer(move |event: &Event<'_>| {
    ///         if matches!(event.kind, EventKind::Refused { .. }) {
    ///             counter.fetch_add(1, Ordering::Relaxed);
    ///         }
    ///     })
    ///     .build()?;
    /// let service = session_fn(store, |_: Request<()>, session: SessionHandle| async move {
    ///     session.load().await?;
    ///     Ok::<_, Error>(Response::new(()))
    /// });
    /// let forged = Request::builder().header("cookie", "__Host-session=forged").body(()).unwrap();
    /// service.call(forged).await?;
    /// service.call(Request::new(())).await?; // without a cookie
    /// assert_eq!(refused.load(Ordering::Relaxed), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.options.settings.observer = Some(Arc::new(observer));
        self
    }

    /// Returns the same options for another kind of store.
    #[cfg(any(feature = "redis", feature = "sqlite"))]
    pub(super) fn with_kind<L>(self, kind: L) -> (K, Builder<L>) {
        (self.kind, Builder { kind, options: self.options, server: self.server })
    }

    /// Checks the options. `keys` returns the keys of the store, if it has any. A `shared` store keeps its sessions in the
    /// format of another program.
    pub(super) fn validate(
        self,
        keys: impl FnOnce(&K, &ServerOptions) -> Option<Keyring>,
        shared: bool,
    ) -> Result<(K, Config, ServerOptions), Error> {
        self.server.check()?;
        let Self { kind, options, server } = self;
        #[cfg(not(feature = "device-bound"))]
        let (config, _) = (options.validate()?, (keys, shared));
        #[cfg(feature = "device-bound")]
        let config = {
            let mut options = options;
            let device_bound = options.device_bound.take();
            let mut config = options.validate()?;
            if let Some(device_bound) = device_bound {
                bind_devices(&mut config, device_bound, keys(&kind, &server).as_ref(), &server, shared)?;
            }
            config
        };
        Ok((kind, config, server))
    }
}

/// Makes the store bind sessions to devices, after a check of `device_bound` against the other options.
#[cfg(feature = "device-bound")]
fn bind_devices(
    config: &mut Config,
    device_bound: DeviceBound,
    keys: Option<&Keyring>,
    server: &ServerOptions,
    shared: bool,
) -> Result<(), Error> {
    if shared {
        return Err(Error::config(
            "device_bound() must be off where sessions are shared with another program: drop it, or the methods for Astra",
        ));
    }
    if config.plain_http.is_some() {
        return Err(Error::config(
            "device_bound() needs https for every request: do not call plain_http_on()",
        ));
    }
    let binder = Binder::new(device_bound, keys, &config.cookie)?;
    binder.check_names(server.linked.iter().map(String::as_str))?;
    config.bind_devices(binder);
    Ok(())
}

impl<K> fmt::Debug for Builder<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("cookie", &self.options.cookie).finish_non_exhaustive()
    }
}
