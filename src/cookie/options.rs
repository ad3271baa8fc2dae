//! The attributes of the session cookie, checked together when a store is built.

use std::time::Duration;

use super::CookieName;
use super::attributes::{Attributes, Priority, SameSite, validate_domain, validate_path};
use super::limits::MAX_AGE_CAP;
use super::set_cookie::{CookieTemplate, RetiredCookie};
use crate::error::Error;

/// The Max-Age of a cookie.
#[derive(Clone, Copy, Debug)]
pub(crate) enum MaxAge {
    /// None.
    BrowserSession,
    /// The remaining life of the session.
    Lifetime,
    /// The remaining life of the session, or this if it is shorter.
    AtMost(Duration),
}

/// The attributes of the session cookie.
///
/// The default is the strictest cookie that works for a whole site: `__Host-session`, `Secure`, `HttpOnly`,
/// `SameSite=Lax`, `Path=/`, `Max-Age` of 24 hours. Combinations that a browser would refuse are refused when the store
/// is built, with a message that says what to change. The guide [`cookies`](crate::guide::cookies) says when to change which.
///
/// # Changing the options of a service in use
///
/// A browser keeps cookies of one name with different `Domain`, `Path` or `Partitioned` side by side, and sends all that
/// match, without these attributes. So after such a change browsers hold the former cookie beside the new one. Of several
/// authentic cookies the newest counts, and a logout ends all of them. Name the former scope with
/// [`retired_domain`](Self::retired_domain), [`retired_host_only`](Self::retired_host_only),
/// [`retired_path`](Self::retired_path) or [`retired_name`](Self::retired_name) for as long as cookies last. Each response
/// that sets or removes the new cookie then expires the former one.
///
/// # Examples
///
/// ```
/// use hyper_session::{AppKey, CookieStore, cookie::{CookieOptions, SameSite}};
///
/// let cart = CookieOptions::new().name("__Host-cart").same_site(SameSite::Strict);
/// let store = CookieStore::builder(AppKey::generate()?).cookie(cart).build()?;
///
/// // `__Host-` means that no other host can set the cookie, so a Domain is refused.
/// let broken = CookieOptions::new().domain("example.com");
/// let error = CookieStore::builder(AppKey::generate()?).cookie(broken).build().unwrap_err();
/// assert!(error.to_string().contains("__Host-"));
/// # Ok::<(), hyper_session::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "options do nothing until they are given to a store builder"]
pub struct CookieOptions {
    /// `None`: the default of the mode.
    name: Option<String>,
    path: String,
    domain: Option<String>,
    max_age: MaxAge,
    /// `None`: the default of the mode.
    secure: Option<bool>,
    http_only: bool,
    same_site: SameSite,
    partitioned: bool,
    priority: Option<Priority>,
    max_chunks: u8,
    development: bool,
    retired_domains: Vec<Option<String>>,
    retired_paths: Vec<String>,
    retired_names: Vec<String>,
}

impl Default for CookieOptions {
    fn default() -> Self {
        Self {
            name: None,
            path: "/".to_owned(),
            domain: None,
            max_age: MaxAge::Lifetime,
            secure: None,
            http_only: true,
            same_site: SameSite::Lax,
            partitioned: false,
            priority: None,
            max_chunks: super::DEFAULT_MAX_CHUNKS,
            development: false,
            retired_domains: Vec::new(),
            retired_paths: Vec::new(),
            retired_names: Vec::new(),
        }
    }
}

impl CookieOptions {
    /// Creates the options of the production cookie.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates the options of a cookie for development over plain http: named `session` and without `Secure`, unless
    /// [`name`](Self::name) and [`secure`](Self::secure) say otherwise.
    ///
    /// Anyone on the network can read and copy it. A store built with it reports that in an
    /// [`EventKind::InsecureCookie`](crate::EventKind::InsecureCookie).
    ///
    /// # Limits
    ///
    /// Browsers do not separate cookies by port. Two applications on `localhost` that use this crate need different names: a read
    /// keeps the cookie of the other one, and a write replaces it.
    pub fn development() -> Self {
        Self::default().for_development(true)
    }

    /// Turns the development defaults on, if `yes`. Explicit options stay.
    pub(crate) fn for_development(mut self, yes: bool) -> Self {
        self.development |= yes;
        self
    }

    /// Returns the options for requests over plain http: without `Secure`, and without the attributes that need it.
    pub(crate) fn for_plain_http(mut self) -> Self {
        self.secure = Some(false);
        self.partitioned = false;
        if self.same_site == SameSite::None {
            self.same_site = SameSite::Lax;
        }
        self
    }

    /// Sets the name. Default: `__Host-session`. The name also separates keys: a token never opens under another name.
    #[doc(alias = "with_name")]
    #[doc(alias = "cookie_name")]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Limits the cookie to this path and those below. Default: `/`.
    ///
    /// A path is not a security boundary: pages of one origin can read each other.
    ///
    /// # Limits
    ///
    /// Only browsers enforce the path. A request outside of the path does not carry the cookie. If its handler sets a
    /// value, it begins a new session each time.
    #[doc(alias = "with_path")]
    #[doc(alias = "cookie_path")]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// Sends the cookie to this domain and all its subdomains. Default: none, so that only this host gets it.
    #[doc(alias = "with_domain")]
    #[doc(alias = "cookie_domain")]
    pub fn domain(mut self, domain: impl Into<String>) -> Self {
        self.domain = Some(domain.into());
        self
    }

    /// Sets how long the browser keeps the cookie at most. `None` means "until the browser closes". Default: the remaining
    /// life of the session, which is 24 hours with the default idle timeout. It is capped at 400 days. The server enforces
    /// its own deadlines in any case.
    ///
    /// A Max-Age that is shorter than an idle timeout is refused when the store is built: reading would keep the session
    /// alive, but the browser would drop its cookie. Lower the idle timeout instead.
    pub fn max_age(mut self, max_age: impl Into<Option<Duration>>) -> Self {
        self.max_age = max_age.into().map_or(MaxAge::BrowserSession, MaxAge::AtMost);
        self
    }

    /// Sets whether the browser sends the cookie over https only. Default: true. It is never inferred from the request, because a
    /// proxy may end TLS. For a service that is reached both ways, see
    /// [`plain_http_on`](crate::store::Builder::plain_http_on).
    pub fn secure(mut self, yes: bool) -> Self {
        self.secure = Some(yes);
        self
    }

    /// Sets whether the cookie is hidden from scripts. Default: true.
    #[doc(alias = "with_http_only")]
    #[doc(alias = "cookie_http_only")]
    pub fn http_only(mut self, yes: bool) -> Self {
        self.http_only = yes;
        self
    }

    /// Sets when the browser sends the cookie across sites. Default: [`SameSite::Lax`].
    ///
    /// Where the browser may have withheld the session's cookie, a cookie that came all the same may have been planted: it is not renewed,
    /// and not removed. `Sec-Fetch-Site` tells, or else, over https, `Origin` and `Host`. So a proxy that changes `Host` must pass
    /// `Sec-Fetch-Site` on. Otherwise a session that only forms and scripts use ends as if it were idle.
    #[doc(alias = "with_same_site")]
    #[doc(alias = "cookie_same_site")]
    pub fn same_site(mut self, same_site: SameSite) -> Self {
        self.same_site = same_site;
        self
    }

    /// Sets whether the browser keeps one cookie for each top-level site that embeds this one (CHIPS). Default: false.
    ///
    /// It needs [`SameSite::None`]: without it, browsers withhold the cookie from embedded pages, and
    /// partitions are for no other pages. Anything else is refused when the store is built.
    pub fn partitioned(mut self, yes: bool) -> Self {
        self.partitioned = yes;
        self
    }

    /// Sets which cookies a browser drops first when this site has set too many. Default: no attribute, which is
    /// [`Priority::Medium`].
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), hyper_session::Error> {
    /// # use http::{Request, Response};
    /// # use hyper::service::Service;
    /// # use hyper_session::{Error, SessionHandle, session_fn};
    /// use hyper_session::cookie::{CookieOptions, Priority};
    /// use hyper_session::{AppKey, CookieStore};
    ///
    /// let login = CookieOptions::new().priority(Priority::High);
    /// let store = CookieStore::builder(AppKey::generate()?).cookie(login).build()?;
    /// // Its cookies:
    /// # let service = session_fn(store, |_: Request<()>, session: SessionHandle| async move {
    /// #     session.load().await?.set("seen", true)?;
    /// #     Ok::<_, Error>(Response::new(()))
    /// # });
    /// # let response = service.call(Request::new(())).await?;
    /// assert!(response.headers()["set-cookie"].to_str().unwrap().ends_with("; Priority=High"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Sets over how many cookies of 4,096 bytes a large session may be spread, from 1 to 8. Default: 3.
    ///
    /// A browser whose cookies exceed the header limit of a server or proxy is locked out until they expire. hyper's HTTP/2
    /// server accepts 16 KiB of headers (`max_header_list_size`), many proxies 8 KiB. Behind such a proxy, set 1. Before you
    /// set more than 3, raise the server's limit. nginx's buffers for responses are smaller still:
    /// [header buffers](crate::guide::cookies#header-buffers-of-proxies).
    pub fn max_chunks(mut self, chunks: u8) -> Self {
        self.max_chunks = chunks;
        self
    }

    /// Names a `Domain` that the cookie was set with before. Cookies of that scope are still read, and are expired by each
    /// response that sets or removes the cookie. Can be called several times.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), hyper_session::Error> {
    /// # use http::{Request, Response};
    /// # use hyper::service::Service;
    /// # use hyper_session::{Error, SessionHandle, session_fn};
    /// use hyper_session::{AppKey, CookieStore, cookie::CookieOptions};
    ///
    /// // Until last week: `name("__Secure-session").domain("example.com")`.
    /// let host_only = CookieOptions::new().name("__Secure-session").retired_domain("example.com");
    /// let store = CookieStore::builder(AppKey::generate()?).cookie(host_only).build()?;
    /// // A response that sets the cookie expires the former one:
    /// # let service = session_fn(store, |_: Request<()>, session: SessionHandle| async move {
    /// #     session.load().await?.set("seen", true)?;
    /// #     Ok::<_, Error>(Response::new(()))
    /// # });
    /// # let response = service.call(Request::new(())).await?;
    /// # let mut lines = response.headers().get_all("set-cookie").iter().map(|line| line.to_str().unwrap());
    /// assert!(lines.any(|line| line.contains("Max-Age=0;") && line.contains("Domain=example.com")));
    /// # Ok(())
    /// # }
    /// ```
    pub fn retired_domain(mut self, domain: impl Into<String>) -> Self {
        self.retired_domains.push(Some(domain.into()));
        self
    }

    /// Works as [`retired_domain`](Self::retired_domain), for a cookie that had no `Domain` before.
    ///
    /// # Examples
    ///
    /// ```
    /// use hyper_session::{AppKey, CookieStore, cookie::CookieOptions};
    ///
    /// let shared = CookieOptions::new().name("__Secure-session").domain("example.com").retired_host_only();
    /// let store = CookieStore::builder(AppKey::generate()?).cookie(shared).build()?;
    /// # Ok::<(), hyper_session::Error>(())
    /// ```
    pub fn retired_host_only(mut self) -> Self {
        self.retired_domains.push(None);
        self
    }

    /// Works as [`retired_domain`](Self::retired_domain), for another `Path`.
    pub fn retired_path(mut self, path: impl Into<String>) -> Self {
        self.retired_paths.push(path.into());
        self
    }

    /// Names a cookie that held the session before. Its sessions are still read, and move to the present name: with the next
    /// response if they are in the cookie, and with the next save or renewal if they are on a server. Each response that sets or
    /// removes the session's cookie expires the cookie of that name. Can be called several times.
    ///
    /// # Security
    ///
    /// A cookie under a retired name logs its holder in, so it is only as protected as the prefix of that name allows. Drop
    /// the retired name when the longest session under it has ended, or set that date with
    /// [`accept_retired_until`](crate::store::Builder::accept_retired_until).
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), hyper_session::Error> {
    /// # use http::{Request, Response};
    /// # use hyper::service::Service;
    /// # use hyper_session::{Error, SessionHandle, session_fn};
    /// use hyper_session::{AppKey, CookieStore, cookie::CookieOptions};
    ///
    /// let renamed = CookieOptions::new().name("__Host-session").retired_name("session");
    /// let store = CookieStore::builder(AppKey::generate()?).cookie(renamed).build()?;
    /// // A response that sets the cookie expires the former one:
    /// # let service = session_fn(store, |_: Request<()>, session: SessionHandle| async move {
    /// #     session.load().await?.set("seen", true)?;
    /// #     Ok::<_, Error>(Response::new(()))
    /// # });
    /// # let response = service.call(Request::new(())).await?;
    /// # let mut lines = response.headers().get_all("set-cookie").iter().map(|line| line.to_str().unwrap());
    /// assert!(lines.any(|line| line.starts_with("session=; Max-Age=0;")));
    /// # Ok(())
    /// # }
    /// ```
    pub fn retired_name(mut self, name: impl Into<String>) -> Self {
        self.retired_names.push(name.into());
        self
    }

    /// Returns the Max-Age that was set explicitly.
    pub(crate) fn explicit_max_age(&self) -> Option<Duration> {
        match self.max_age {
            MaxAge::AtMost(max_age) => Some(max_age.min(MAX_AGE_CAP)),
            MaxAge::BrowserSession | MaxAge::Lifetime => None,
        }
    }

    /// Returns true if the name is the default one for development. Ports do not separate cookies, so all servers on `localhost`
    /// share it.
    pub(crate) fn has_shared_name(&self) -> bool {
        self.development && self.name.is_none()
    }

    pub(crate) fn validate(self) -> Result<CookieTemplate, Error> {
        let default_name = if self.development { "session" } else { "__Host-session" };
        let name = CookieName::new(self.name.as_deref().unwrap_or(default_name))?;
        let attributes = Attributes {
            path: self.path.clone(),
            domain: self.domain.clone(),
            secure: self.secure.unwrap_or(!self.development),
            http_only: self.http_only,
            same_site: self.same_site,
            partitioned: self.partitioned,
            priority: self.priority,
        };
        validate_prefix(&name, &attributes)?;
        if !attributes.secure && self.same_site == SameSite::None {
            return Err(Error::config("SameSite=None needs Secure: call secure(true), or use SameSite::Lax"));
        }
        if !attributes.secure && self.partitioned {
            return Err(Error::config(
                "Partitioned needs Secure: call secure(true), or do not call partitioned(true)",
            ));
        }
        if self.partitioned && self.same_site != SameSite::None {
            return Err(Error::config(
                "Partitioned needs SameSite=None, because browsers send no other cookie to embedded pages: call same_site(SameSite::None), or do not call partitioned(true)",
            ));
        }
        if matches!(self.max_age, MaxAge::AtMost(max_age) if max_age.as_secs() == 0) {
            return Err(Error::config(
                "the Max-Age must be one second or longer, because a shorter one removes the cookie: call max_age() with a longer one, or with None for \"until the browser closes\"",
            ));
        }
        if !(1..=super::MAX_CHUNKS).contains(&self.max_chunks) {
            return Err(Error::config("max_chunks() must be 1 to 8"));
        }
        let paths = std::iter::once(&self.path).chain(&self.retired_paths);
        paths.clone().try_for_each(|path| validate_path(path))?;
        let domains = std::iter::once(&self.domain).chain(&self.retired_domains);
        domains.clone().flatten().try_for_each(|domain| validate_domain(domain))?;
        let places = domains.flat_map(|domain| paths.clone().map(move |path| (domain, path)));
        let scopes = distinct(places).into_iter().map(|(domain, path)| Attributes {
            path: path.clone(),
            domain: domain.clone(),
            ..attributes.clone()
        });
        let scopes: Vec<Attributes> = scopes.collect();
        let names = distinct(&self.retired_names).into_iter().map(|name| CookieName::new(name));
        let retired = names.collect::<Result<Vec<_>, _>>()?;
        if retired.contains(&name) {
            return Err(Error::config(format!(
                "the cookie cannot have the name {name:?} and retire it: change name() or retired_name()"
            )));
        }
        let retired =
            retired.into_iter().map(|name| RetiredCookie::new(name, &attributes, &scopes)).collect();
        let max_age = match self.max_age {
            MaxAge::BrowserSession => None,
            MaxAge::Lifetime | MaxAge::AtMost(_) => Some(self.explicit_max_age().unwrap_or(MAX_AGE_CAP)),
        };
        CookieTemplate::new(name, attributes, max_age, self.max_chunks, &scopes, retired)
    }
}

/// Returns each item once, in the order of first appearance.
fn distinct<T: PartialEq>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut distinct = Vec::new();
    for item in items {
        if !distinct.contains(&item) {
            distinct.push(item);
        }
    }
    distinct
}

/// Checks the attributes that the prefix of a name requires.
fn validate_prefix(name: &CookieName, attributes: &Attributes) -> Result<(), Error> {
    let Some(rules) = name.prefix_rules() else { return Ok(()) };
    let prefix = rules.prefix;
    if !attributes.secure {
        return Err(Error::config(format!(
            "a cookie named {prefix}… must be Secure: call secure(true), or for plain http choose a name without the prefix and call development()"
        )));
    }
    if rules.http_only && !attributes.http_only {
        return Err(Error::config(format!(
            "a cookie named {prefix}… must be HttpOnly: call http_only(true)"
        )));
    }
    if rules.host_only && attributes.path != "/" {
        return Err(Error::config(format!(
            "a cookie named {prefix}… must have the path \"/\": do not call path(), or use the prefix \"__Secure-\""
        )));
    }
    if rules.host_only && attributes.domain.is_some() {
        return Err(Error::config(format!(
            "a cookie named {prefix}… must not have a Domain: do not call domain(), or use the prefix \"__Secure-\""
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(options: CookieOptions) -> String {
        options.validate().unwrap_err().to_string()
    }

    #[test]
    fn t59_prefix_promises_are_kept() {
        let host = CookieOptions::new;
        assert!(host().validate().is_ok());
        assert!(why(host().secure(false)).contains("Secure"));
        assert!(why(host().path("/app")).contains("path"));
        assert!(why(host().domain("example.com")).contains("Domain"));
        assert!(host().http_only(false).validate().is_ok());
        assert!(why(host().name("__Host-Http-s").http_only(false)).contains("HttpOnly"));
        assert!(why(host().name("__Http-s").http_only(false)).contains("HttpOnly"));
        assert!(why(host().name("__Secure-s").secure(false)).contains("Secure"));
        let shared = host().name("__Secure-s").domain("example.com").path("/app");
        assert!(shared.validate().is_ok());
    }

    #[test]
    fn insecure_combinations_are_refused() {
        let plain = CookieOptions::development;
        assert!(plain().validate().is_ok());
        assert!(why(plain().same_site(SameSite::None)).contains("SameSite=None"));
        assert!(why(plain().partitioned(true)).contains("Partitioned"));
    }

    // Browsers withhold a Lax or Strict cookie from embedded pages.
    #[test]
    fn partitioned_needs_same_site_none() {
        for same_site in [SameSite::Lax, SameSite::Strict] {
            let options = CookieOptions::new().partitioned(true).same_site(same_site);
            assert!(why(options).contains("SameSite=None"), "{same_site:?}");
        }
        assert!(why(CookieOptions::new().partitioned(true)).contains("SameSite=None"));
        let embedded = CookieOptions::new().partitioned(true).same_site(SameSite::None);
        assert!(embedded.validate().is_ok());
    }

    // Explicit options stay, and the others are those of the mode, in any order.
    #[test]
    fn development_changes_only_what_was_not_set() {
        let name = |options: CookieOptions| options.validate().unwrap().name().to_string();
        assert_eq!(name(CookieOptions::new().path("/app").for_development(true)), "session");
        assert_eq!(name(CookieOptions::development().name("cart")), "cart");
        assert_eq!(name(CookieOptions::new().name("cart").for_development(true)), "cart");
        let secure = |options: CookieOptions| options.validate().unwrap().is_secure();
        assert!(!secure(CookieOptions::new().name("cart").for_development(true)));
        assert!(secure(CookieOptions::new().secure(true).for_development(true)));
        // A prefix whose rules cannot hold on plain http.
        let error = why(CookieOptions::new().name("__Host-cart").for_development(true));
        assert!(error.contains("__Host-") && error.contains("development()"), "{error}");
    }

    #[test]
    fn retired_scopes_and_names_are_checked() {
        let options = || CookieOptions::new().name("__Secure-s");
        assert!(why(options().retired_domain(".example.com")).contains("domain"));
        assert!(why(options().retired_path("app")).contains("path"));
        assert!(why(options().retired_name("a b")).contains("name"));
        assert!(why(options().retired_name("__Secure-s")).contains("retired_name"));
        assert!(options().retired_domain("example.com").retired_path("/app").validate().is_ok());
    }

    // T57: an attribute cannot inject another attribute.
    #[test]
    fn t57_attributes_cannot_inject() {
        let options = || CookieOptions::new().name("__Secure-s");
        for path in
            ["", "app", "/a;b", "/a\r\nSet-Cookie: x=y", "/a b", "/\u{e9}", "/a,b", "/\"><script>", "/\0"]
        {
            assert!(why(options().path(path)).contains("path"), "{path:?}");
        }
        assert!(options().path(format!("/{}", "p".repeat(1023))).validate().is_ok());
        assert!(options().path(format!("/{}", "p".repeat(1024))).validate().is_err());
        for domain in [
            "",
            ".example.com",
            "a..b",
            "a b.com",
            "example.com;",
            "example.com\n",
            "ex\u{e4}mple.com",
            "-a.com",
            "a:80",
        ] {
            assert!(why(options().domain(domain)).contains("domain"), "{domain:?}");
        }
        for domain in ["example.com", "localhost", "127.0.0.1", "xn--bcher-kva.example"] {
            assert!(options().domain(domain).validate().is_ok(), "{domain:?}");
        }
    }

    // T23: durations saturate.
    #[test]
    fn t23_max_age_is_capped_at_400_days() {
        let template = CookieOptions::new().max_age(Duration::MAX).validate().unwrap();
        let line = template.set(b"v", Duration::MAX, 0).unwrap();
        assert!(line[0].to_str().unwrap().contains("; Max-Age=34560000;"), "{line:?}");
        assert!(why(CookieOptions::new().max_age(Duration::from_millis(999))).contains("Max-Age"));
    }

    #[test]
    fn a_priority_is_in_every_line() {
        let template = CookieOptions::new().priority(Priority::High).validate().unwrap();
        let set = template.set(b"v", Duration::from_secs(9), 0).unwrap();
        for line in [&set[0], &template.remove(0).unwrap()[0]] {
            assert!(line.to_str().unwrap().ends_with("; SameSite=Lax; Priority=High"), "{line:?}");
        }
    }

    #[test]
    fn chunk_counts_are_checked() {
        assert!(CookieOptions::new().max_chunks(0).validate().is_err());
        assert!(CookieOptions::new().max_chunks(9).validate().is_err());
        assert!(CookieOptions::new().max_chunks(1).validate().is_ok());
    }
}
