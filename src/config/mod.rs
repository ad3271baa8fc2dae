//! Options that all stores have in common: the cookie, the timeouts, the observer. Checked when a store is built, then fixed.

mod lifetimes;
mod renewal;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use self::lifetimes::TimeoutLimits;
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue, StatusCode, Uri};

use crate::clock::{Clock, SystemClock, Timestamp};
use crate::cookie::{CookieFinder, CookieOptions, CookieTemplate, MAX_AGE_CAP};
#[cfg(feature = "device-bound")]
use crate::device_bound::{Binder, DeviceBound};
use crate::error::Error;
use crate::event::{Event, EventKind, Facades, Observer, Reporter};
use crate::session::PayloadFormat;

/// The timeouts of a session.
///
/// # Examples
///
/// ```
/// use http::{Request, Response};
/// use hyper::service::Service;
/// use hyper_session::{AppKey, CookieStore, Error, SessionHandle, Timeouts, session_fn};
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Error> {
/// let timeouts = Timeouts { idle: Duration::from_secs(900), ..Timeouts::owasp_low_value() };
/// let store = CookieStore::builder(AppKey::generate()?).timeouts(timeouts).build()?;
/// let service = session_fn(store, |_: Request<()>, session: SessionHandle| async move {
///     session.load().await?.set("user", 7)?;
///     Ok::<_, Error>(Response::new(()))
/// });
/// let response = service.call(Request::new(())).await?;
/// assert!(response.headers()["set-cookie"].to_str().unwrap().contains("; Max-Age=900"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_structs)] // three durations, and each is needed
pub struct Timeouts {
    /// A session that is not used for this long has expired.
    pub idle: Duration,
    /// A session has expired this long after it began, even if it is in use. It begins when it is created, and anew at each
    /// [login](crate::Session::login) and [other authentication](crate::Session::reauthenticate). Regenerating does not move
    /// it.
    pub absolute: Duration,
    /// The idle deadline is renewed when that gains at least this much. So not every response sets a cookie.
    pub renewal: Duration,
}

impl Default for Timeouts {
    /// Returns the defaults: 24 hours idle, as in Astra, whose cookie and Redis entries last that long. Seven days
    /// absolute: a stolen cookie expires within a week even if the thief uses it, well inside the 30 days that NIST SP
    /// 800-63B-4 section 2.1.3 allows at AAL1. Renewal after a tenth of idle: a session in use may expire up to
    /// a tenth of the idle timeout early, and most responses to an active user carry no cookie.
    fn default() -> Self {
        let idle = Duration::from_secs(24 * 3_600);
        Self { idle, absolute: 7 * idle, renewal: idle / 10 }
    }
}

impl Timeouts {
    /// Returns the longest timeouts that NIST SP 800-63B-4 section 2.1.3 recommends at authentication assurance level 1: 30
    /// days in all. It asks for no inactivity timeout.
    ///
    /// # Examples
    ///
    /// ```
    /// use hyper_session::{AppKey, CookieStore, Timeouts};
    /// use std::time::Duration;
    ///
    /// let timeouts = Timeouts::nist_aal1();
    /// assert_eq!(timeouts.absolute, Duration::from_secs(30 * 24 * 3600));
    /// let store = CookieStore::builder(AppKey::generate()?).timeouts(timeouts).build()?;
    /// # Ok::<(), hyper_session::Error>(())
    /// ```
    pub const fn nist_aal1() -> Self {
        Self::with_tenth(Duration::from_secs(30 * 24 * 3_600), Duration::from_secs(30 * 24 * 3_600))
    }

    /// Returns the longest timeouts that NIST SP 800-63B-4 section 2.2.3 recommends at level 2: 24 hours in all, one hour
    /// idle.
    //= NIST SP 800-63B-4 section 2.2.3: "a definite reauthentication overall timeout SHALL be established, which SHOULD be
    //# no more than 24 hours at AAL2. The inactivity timeout SHOULD be no more than 1 hour"
    pub const fn nist_aal2() -> Self {
        Self::with_tenth(Duration::from_secs(3_600), Duration::from_secs(24 * 3_600))
    }

    /// Returns the timeouts that NIST SP 800-63B-4 section 2.3.3 requires and recommends at level 3: 12 hours in all, 15
    /// minutes idle.
    //= NIST SP 800-63B-4 section 2.3.3: "the overall timeout for reauthentication SHALL be no more than 12 hours. The
    //# inactivity timeout SHOULD be no more than 15 minutes"
    pub const fn nist_aal3() -> Self {
        Self::with_tenth(Duration::from_secs(15 * 60), Duration::from_secs(12 * 3_600))
    }

    /// Returns the timeouts of the OWASP Session Management Cheat Sheet for high-value applications: 5 minutes idle ("2-5
    /// minutes for high-value applications"), 4 hours in all (the short end of "between 4 and 8 hours").
    pub const fn owasp_high_value() -> Self {
        Self::with_tenth(Duration::from_secs(5 * 60), Duration::from_secs(4 * 3_600))
    }

    /// Returns the timeouts of the OWASP Session Management Cheat Sheet for low-risk applications: 30 minutes idle ("15-30
    /// minutes for low risk applications"), 8 hours in all (the long end of "between 4 and 8 hours").
    pub const fn owasp_low_value() -> Self {
        Self::with_tenth(Duration::from_secs(30 * 60), Duration::from_secs(8 * 3_600))
    }

    /// Returns these timeouts with renewal after a tenth of `idle`.
    const fn with_tenth(idle: Duration, absolute: Duration) -> Self {
        Self { idle, absolute, renewal: Duration::from_secs(idle.as_secs() / 10) }
    }

    /// Returns the deadline of a session that began at `created` and is used at `now`.
    pub(crate) fn deadline(&self, created: Timestamp, now: Timestamp) -> Timestamp {
        now.saturating_add(self.idle).min(created.saturating_add(self.absolute))
    }

    fn validate(&self) -> Result<(), Error> {
        let second = Duration::from_secs(1);
        if self.idle < second || self.absolute < second {
            return Err(Error::config(
                "the idle timeout and the absolute timeout must be one second or longer: change idle_timeout() or absolute_timeout()",
            ));
        }
        if self.absolute < self.idle {
            return Err(Error::config(
                "the absolute timeout must not be shorter than the idle timeout: raise absolute_timeout() or lower idle_timeout()",
            ));
        }
        if self.renewal >= self.idle {
            return Err(Error::config(
                "the renewal threshold must be shorter than the idle timeout, or reading would never keep a session alive: lower renewal_threshold()",
            ));
        }
        Ok(())
    }
}

/// Data of a site, other than the session, that a browser can be told to delete when the session ends
/// ([`clear_site_data`](crate::store::Builder::clear_site_data), with an example).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SiteData {
    /// Cached responses.
    Cache,
    /// Every cookie of the domain, of its subdomains and of its parent. A session that begins in the same response is
    /// deleted, too.
    Cookies,
    /// `localStorage`, `sessionStorage`, `IndexedDB`, service workers.
    Storage,
}

impl SiteData {
    /// Returns the value of the header field: quoted strings, separated by commas.
    pub(crate) fn header(kinds: &[Self]) -> Option<HeaderValue> {
        let quoted = |kind: &Self| match kind {
            Self::Cache => "\"cache\"",
            Self::Cookies => "\"cookies\"",
            Self::Storage => "\"storage\"",
        };
        let value = kinds.iter().map(quoted).collect::<Vec<_>>().join(", ");
        // Quoted names are always a valid header value.
        if value.is_empty() { None } else { HeaderValue::from_str(&value).ok() }
    }
}

/// The rule for which responses mean that the handler failed, so that its unfinished changes are dropped.
#[derive(Clone, Default)]
pub(crate) enum DiscardRule {
    /// A 5xx or 408 status, or a failure of gRPC.
    #[default]
    Failures,
    /// No response.
    Never,
    Rule(Arc<dyn HeadRule>),
}

/// A rule that decides by the head of a response.
pub(crate) trait HeadRule: Fn(StatusCode, &HeaderMap) -> bool + Send + Sync {}

impl<F: Fn(StatusCode, &HeaderMap) -> bool + Send + Sync> HeadRule for F {}

/// A rule that decides by the head of a request.
pub(crate) trait RequestRule: Fn(&Uri, &HeaderMap) -> bool + Send + Sync {}

impl<F: Fn(&Uri, &HeaderMap) -> bool + Send + Sync> RequestRule for F {}

impl DiscardRule {
    pub(crate) fn applies(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        match self {
            // Middleware responds with 408 if a handler takes too long.
            Self::Failures => {
                status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT || is_grpc_failure(headers)
            }
            Self::Never => false,
            Self::Rule(rule) => rule(status, headers),
        }
    }
}

static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Returns true if the response consists of the trailers of a failed gRPC call. They are sent as headers, with status 200.
fn is_grpc_failure(headers: &HeaderMap) -> bool {
    headers.get(&GRPC_STATUS).is_some_and(|code| code != "0")
}

/// The checked options of a store. The builder of a store creates them.
pub struct Config {
    pub(crate) cookie: CookieTemplate,
    /// Finds that cookie in a request.
    pub(crate) finder: CookieFinder,
    /// Find the cookies of retired names, in the order in which the options name them.
    pub(crate) retired_finders: Vec<CookieFinder>,
    limits: TimeoutLimits,
    /// The requests over plain http, and their cookie. `None`: one cookie for all requests.
    pub(crate) plain_http: Option<(Arc<dyn RequestRule>, CookieTemplate)>,
    /// The cookie is the only copy of a session: a change that no response tells the client does not happen.
    pub(crate) only_in_cookie: bool,
    /// The name of the cookie is the default one for development: all servers of the machine share it.
    pub(crate) has_shared_name: bool,
    /// Sessions can be revoked. They carry a lineage, and labels have an effect.
    pub(crate) revocable: bool,
    /// Binds sessions to devices.
    #[cfg(feature = "device-bound")]
    pub(crate) device_bound: Option<Arc<Binder>>,
    pub(crate) settings: Settings,
    facades: Facades,
}

impl Config {
    /// Makes the store bind its sessions to devices.
    #[cfg(feature = "device-bound")]
    pub(crate) fn bind_devices(&mut self, binder: Binder) {
        for finder in std::iter::once(&mut self.finder).chain(&mut self.retired_finders) {
            finder.find_companions(&Binder::COOKIES);
        }
        self.device_bound = Some(Arc::new(binder));
    }

    /// Returns the name of the session cookie.
    pub fn cookie_name(&self) -> &str {
        self.cookie.name().as_str()
    }

    /// Returns the timeouts.
    pub fn timeouts(&self) -> Timeouts {
        self.limits.timeouts
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.settings.clock.now()
    }

    /// Returns true if cookies under retired names are still read.
    pub(crate) fn reads_retired_names(&self, now: Timestamp) -> bool {
        self.settings.retired_until.is_none_or(|until| now < until)
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.settings.clock
    }

    /// Returns true if an observer or a facade wants to know how long the store takes.
    pub(crate) fn wants_timings(&self) -> bool {
        self.settings.observer.is_some() || self.facades.wants_timings()
    }

    /// Returns a reporter of events after the store is built, for tasks that outlive a call.
    pub(crate) fn reporter(&self) -> Reporter {
        Reporter { cookie: self.cookie_name().to_owned(), observer: self.settings.observer.clone() }
    }

    pub(crate) fn emit(&self, kind: EventKind<'_>) {
        let event = Event { cookie: self.cookie_name(), kind };
        self.facades.publish(&event, || self.now());
        if let Some(observer) = &self.settings.observer {
            observer.event(&event);
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("cookie", &self.cookie_name())
            .field("timeouts", &self.limits.timeouts)
            .finish_non_exhaustive()
    }
}

/// Options for which every value is valid.
pub(crate) struct Settings {
    pub(crate) format: PayloadFormat,
    /// The responses that mean that the handler failed.
    pub(crate) discard_rule: DiscardRule,
    /// The requests that do not keep their session alive by reading it.
    pub(crate) no_renewal_rule: Option<Arc<dyn RequestRule>>,
    /// The end of the time in which cookies under retired names are read.
    pub(crate) retired_until: Option<Timestamp>,
    /// A connection keeps its last cookie. Only for a store whose tokens contain the whole session, or that has a near-cache.
    pub(crate) connection_memo: bool,
    /// Flash values are stored among the other values, as in a program that shares the sessions.
    pub(crate) shared_flash: bool,
    /// Data that a browser is told to delete at a logout.
    pub(crate) clear_site_data: Option<HeaderValue>,
    /// Responses to requests that read a session with a subject get `no-store`.
    pub(crate) private_pages_no_store: bool,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) observer: Option<Arc<dyn Observer>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            format: PayloadFormat::default(),
            discard_rule: DiscardRule::default(),
            no_renewal_rule: None,
            retired_until: None,
            connection_memo: false,
            shared_flash: false,
            clear_site_data: None,
            private_pages_no_store: false,
            clock: Arc::new(SystemClock),
            observer: None,
        }
    }
}

/// Options that are not checked yet.
pub(crate) struct Options {
    pub(crate) cookie: CookieOptions,
    /// `None`: a tenth of the idle timeout.
    pub(crate) renewal: Option<Duration>,
    pub(crate) idle: Duration,
    /// `None`: the default, or the idle timeout if that is longer.
    pub(crate) absolute: Option<Duration>,
    pub(crate) anonymous: Option<Timeouts>,
    /// `None`: the longest absolute timeout.
    pub(crate) longest: Option<Duration>,
    pub(crate) plain_http_rule: Option<Arc<dyn RequestRule>>,
    /// False: unless a threshold is set, a session is renewed only when it is saved.
    pub(crate) renew_on_read: bool,
    #[cfg(feature = "device-bound")]
    pub(crate) device_bound: Option<DeviceBound>,
    /// The cookie has the defaults for development.
    pub(crate) development: bool,
    /// No response drops changes.
    pub(crate) keep_values: bool,
    pub(crate) settings: Settings,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cookie: CookieOptions::default(),
            renewal: None,
            idle: Timeouts::default().idle,
            absolute: None,
            anonymous: None,
            longest: None,
            plain_http_rule: None,
            renew_on_read: true,
            #[cfg(feature = "device-bound")]
            device_bound: None,
            development: false,
            keep_values: false,
            settings: Settings::default(),
        }
    }
}

impl Options {
    pub(crate) fn validate(mut self) -> Result<Config, Error> {
        let limits = self.timeout_limits()?;
        let discard_rule = self.take_discard_rule()?;
        let max_age = self.cookie.explicit_max_age();
        let cookie = self.cookie.for_development(self.development);
        let has_shared_name = cookie.has_shared_name();
        let plain_http = match self.plain_http_rule {
            Some(rule) => Some((rule, cookie.clone().for_plain_http().validate()?)),
            None => None,
        };
        let cookie = cookie.validate()?;
        if self.settings.retired_until.is_some() && cookie.retired_cookies().is_empty() {
            return Err(Error::config(
                "accept_retired_until() needs a cookie under another name: call retired_name(), or do not call accept_retired_until()",
            ));
        }
        check_max_age(max_age, &limits)?;
        let config = Config {
            finder: CookieFinder::new(cookie.name()),
            retired_finders: cookie
                .retired_cookies()
                .iter()
                .map(|retired| CookieFinder::new(retired.name()))
                .collect(),
            cookie,
            limits,
            plain_http,
            only_in_cookie: false,
            has_shared_name,
            revocable: false,
            #[cfg(feature = "device-bound")]
            device_bound: None,
            settings: Settings { discard_rule, ..self.settings },
            facades: Facades::default(),
        };
        if !config.cookie.is_secure() || config.plain_http.is_some() {
            config.emit(EventKind::InsecureCookie);
        }
        Ok(config)
    }

    fn timeout_limits(&self) -> Result<TimeoutLimits, Error> {
        let mut timeouts = Timeouts {
            idle: self.idle,
            absolute: self.absolute.unwrap_or_else(|| Timeouts::default().absolute.max(self.idle)),
            renewal: self.renewal.unwrap_or(self.idle / 10),
        };
        timeouts.validate()?;
        if !self.renew_on_read && self.renewal.is_none() {
            timeouts.renewal = Timeouts::NEVER;
        }
        let mut anonymous = self.anonymous;
        if let Some(anonymous) = &mut anonymous {
            anonymous.validate()?;
            if !self.renew_on_read {
                anonymous.renewal = Timeouts::NEVER;
            }
        }
        let absolute =
            anonymous.map_or(timeouts.absolute, |anonymous| anonymous.absolute.max(timeouts.absolute));
        let longest = self.longest.unwrap_or(absolute);
        if longest < absolute {
            return Err(Error::config(
                "the longest lifetime must not be shorter than an absolute timeout: raise longest_lifetime() or lower absolute_timeout()",
            ));
        }
        Ok(TimeoutLimits { timeouts, anonymous, longest })
    }

    fn take_discard_rule(&mut self) -> Result<DiscardRule, Error> {
        match std::mem::take(&mut self.settings.discard_rule) {
            DiscardRule::Rule(_) if self.keep_values => Err(Error::config(
                "discard_changes_on() has no effect with keep_values_on_server_error(true): call only one of them",
            )),
            _ if self.keep_values => Ok(DiscardRule::Never),
            rule => Ok(rule),
        }
    }
}

/// Checks that browsers keep the cookie for as long as its session lasts without a request.
fn check_max_age(max_age: Option<Duration>, limits: &TimeoutLimits) -> Result<(), Error> {
    // Capped like Max-Age: a session with an idle timeout of more than 400 days outlives its cookie in any case.
    let idle = |timeouts: Timeouts| timeouts.idle.min(timeouts.absolute);
    let of_all = idle(limits.timeouts);
    let longest_idle = limits.anonymous.map_or(of_all, |anonymous| idle(anonymous).max(of_all));
    if max_age.is_some_and(|max_age| max_age < longest_idle && max_age < MAX_AGE_CAP) {
        return Err(Error::config(
            "the cookie's Max-Age must not be shorter than an idle timeout, or browsers would drop it while the session is in use: lower idle_timeout() or the idle timeout of anonymous_timeouts(), or do not call max_age()",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
