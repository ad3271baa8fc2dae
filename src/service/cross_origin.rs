//! Protection from cross-site request forgery without tokens: by what browsers say of where a request comes from.
//!
//! The rules are those of Go's `net/http.CrossOriginProtection` (Go 1.25), and two more, which [`CrossOriginProtection`]
//! names.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::header::{CONNECTION, HOST, HeaderName, ORIGIN, UPGRADE};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use hyper::service::Service;
use pin_project_lite::pin_project;

use super::error_response::{FailureResponse, StatusOnly};
use super::fetch_metadata::SEC_FETCH_SITE;
use crate::error::{Error, Kind};
use crate::event::{CrossOriginReason, Event, EventKind, publish_without_store};

/// A protection against cross-site request forgery without tokens: it refuses requests of other origins.
///
/// Browsers say where a request comes from. A request that may change something is refused unless
///
/// - `Sec-Fetch-Site` says `same-origin`, or `none` (typed, or from a bookmark), or
/// - there is no such field, and `Origin` names the host of the request, or
/// - there is neither: it was not sent by a browser, or by one from before 2020, or
/// - its `Origin` is [trusted](Self::trust_origin), or its path is [exempt](Self::exempt).
///
/// `GET`, `HEAD` and `OPTIONS` pass: they must not change anything. Two rules go beyond Go's: a `GET` that asks for a
/// WebSocket is checked, too, since a WebSocket carries cookies and no other check follows; and a path with dot segments or
/// encoded slashes is never exempt, since routers differ about them.
///
/// Sibling subdomains are another origin (`same-site`), and are refused. `SameSite` cookies do not do that.
///
/// The guide [`forms`](crate::guide::forms) also has tokens, and payment providers that come back by POST.
///
/// # Limits
///
/// A page of the same origin that an attacker controls (XSS) is not stopped. Behind a proxy that changes `Host`, requests
/// of browsers without `Sec-Fetch-Site` are refused: [trust](Self::trust_origin) the public origin. `Origin` and `Host` are
/// compared without the scheme, so for those browsers plain http of the same host passes: send
/// `Strict-Transport-Security`.
///
/// # Examples
///
/// ```
/// use http::{Request, Response, StatusCode};
/// use hyper::service::Service;
/// use hyper_session::{AppKey, CookieStore, CrossOriginProtection, Error, SessionHandle, session_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Error> {
/// let store = CookieStore::builder(AppKey::generate()?).build()?;
/// let service = CrossOriginProtection::new().wrap(session_fn(store, |_, session: SessionHandle| async move {
///     session.load().await?.set("email", "ada@example.com")?;
///     Ok::<_, Error>(Response::new(String::new()))
/// }));
///
/// let post = |site| Request::post("/email").header("sec-fetch-site", site).body(()).unwrap();
/// assert_eq!(service.call(post("same-origin")).await?.status(), StatusCode::OK);
/// assert_eq!(service.call(post("same-site")).await?.status(), StatusCode::FORBIDDEN);
/// assert_eq!(service.call(post("cross-site")).await?.status(), StatusCode::FORBIDDEN);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "it protects nothing until it wraps a service, or is asked to check a request"]
#[doc(alias = "csrf")]
pub struct CrossOriginProtection {
    trusted: Vec<String>,
    exempt: Vec<Pattern>,
}

/// Requests that are not checked.
#[derive(Clone, Debug)]
struct Pattern {
    method: Option<Method>,
    /// One path, or with a slash at the end all below.
    path: String,
}

impl CrossOriginProtection {
    /// Creates a protection that trusts no other origin, and exempts no path.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets requests of pages of this origin pass: `https://pay.example`, with a port where it is not the default one.
    ///
    /// # Errors
    ///
    /// [`is_config`](Error::is_config) if this is not an origin as browsers write it: scheme, `://`, host in lower case, and
    /// nothing behind the port.
    ///
    /// # Examples
    ///
    /// ```
    /// use http::Request;
    /// use hyper_session::CrossOriginProtection;
    ///
    /// let protection = CrossOriginProtection::new().trust_origin("https://pay.example")?;
    /// let request = Request::post("/paid").header("sec-fetch-site", "cross-site");
    /// let request = request.header("origin", "https://pay.example").body(()).unwrap();
    /// assert!(protection.check(&request).is_ok());
    /// assert!(CrossOriginProtection::new().trust_origin("https://pay.example/").unwrap_err().is_config());
    /// # Ok::<(), hyper_session::Error>(())
    /// ```
    pub fn trust_origin(mut self, origin: &str) -> Result<Self, Error> {
        let written_so = split_origin(origin).is_some_and(|(scheme, authority)| {
            let default = matches!((scheme, authority.port_u16()), ("https", Some(443)) | ("http", Some(80)));
            let colon = authority.as_str().ends_with(':');
            !default && !colon && origin.chars().all(|c| !c.is_ascii_uppercase())
        });
        if !written_so {
            return Err(Error::config(
                "a trusted origin must be written as browsers do: https://host or https://host:port, in lower case, without a default port or a path",
            ));
        }
        self.trusted.push(origin.to_owned());
        Ok(self)
    }

    /// Lets all requests to a path pass: `/webhooks/github`, or `/webhooks/` for all that begins with it, or
    /// `POST /webhooks/` for one method. For endpoints that do not rely on cookies.
    ///
    /// A path that has empty or dot segments, or encoded dots or slashes, is never exempt.
    ///
    /// # Errors
    ///
    /// [`is_config`](Error::is_config) if the pattern has another form, or could never fit.
    ///
    /// # Examples
    ///
    /// ```
    /// use http::Request;
    /// use hyper_session::CrossOriginProtection;
    ///
    /// let protection = CrossOriginProtection::new().exempt("POST /webhooks/")?;
    /// let from_elsewhere = |path: &str| {
    ///     let request = Request::post(path).header("sec-fetch-site", "cross-site").body(()).unwrap();
    ///     protection.check(&request)
    /// };
    /// assert!(from_elsewhere("/webhooks/github").is_ok());
    /// assert!(from_elsewhere("/webhooks/../account/delete").unwrap_err().is_forgery());
    /// # Ok::<(), hyper_session::Error>(())
    /// ```
    #[doc(alias = "AddInsecureBypassPattern")]
    pub fn exempt(mut self, pattern: &str) -> Result<Self, Error> {
        let (method, path) = match pattern.split_once(' ') {
            Some((method, path)) => (Method::from_bytes(method.as_bytes()).map(Some), path),
            None => (Ok(None), pattern),
        };
        let plain = path.starts_with('/') && is_plain_path(path) && !path.contains([' ', '?', '#', '{', '*']);
        match method {
            Ok(method) if plain => self.exempt.push(Pattern { method, path: path.to_owned() }),
            _ => {
                return Err(Error::config(
                    "an exempt pattern must be a path such as /webhooks/, or a method, a space and a path, without wildcards, empty or dot segments",
                ));
            }
        }
        Ok(self)
    }

    /// Checks one request. An [`EventKind::CrossOriginRefused`] reports each request that does not pass.
    ///
    /// # Errors
    ///
    /// [`is_forgery`](Error::is_forgery) if it is to be refused, with a 403.
    pub fn check<B>(&self, request: &Request<B>) -> Result<(), Error> {
        if is_safe(request) || is_same_origin(request) || self.is_exempt(request) {
            return Ok(());
        }
        let kind = EventKind::CrossOriginRefused { reason: reason(request) };
        publish_without_store(&Event { cookie: "", kind });
        Err(Error::new(Kind::Forgery))
    }

    /// Wraps a service: refused requests do not reach it, and are answered with an empty 403.
    ///
    /// Put it around a [`SessionService`](crate::SessionService), so that a refused request causes no work.
    pub fn wrap<S>(self, inner: S) -> CrossOriginService<S> {
        CrossOriginService { inner, protection: self, refusal: StatusOnly }
    }

    /// Checks a request, and returns the future of its response: `call` makes that of the inner service.
    pub(crate) fn answer<B, R, T>(
        &self,
        request: Request<B>,
        refusal: &impl FailureResponse<R>,
        call: impl FnOnce(Request<B>) -> T,
    ) -> CrossOriginFuture<T, R> {
        match self.check(&request) {
            Ok(()) => CrossOriginFuture { passed: Some(call(request)), refused: None },
            Err(error) => CrossOriginFuture { passed: None, refused: Some(refusal.response(&error)) },
        }
    }

    fn is_exempt<B>(&self, request: &Request<B>) -> bool {
        let mut origins = request.headers().get_all(ORIGIN).iter().peekable();
        let trusted = origins.peek().is_some()
            && origins
                .all(|origin| self.trusted.iter().any(|trusted| trusted.as_bytes() == origin.as_bytes()));
        let path = request.uri().path();
        let fits = |pattern: &Pattern| {
            let is_folder = pattern.path.ends_with('/');
            let path_fits = path == pattern.path || is_folder && path.starts_with(&pattern.path);
            path_fits && pattern.method.as_ref().is_none_or(|method| method == request.method())
        };
        trusted || (self.exempt.iter().any(fits) && is_plain_path(path))
    }
}

/// Returns true if the browser says that a page of this origin sent the request, or if no browser did.
fn is_same_origin<B>(request: &Request<B>) -> bool {
    let mut sites = request.headers().get_all(&SEC_FETCH_SITE).iter().peekable();
    if sites.peek().is_some() {
        return sites.all(|site| matches!(site.as_bytes(), b"same-origin" | b"none"));
    }
    let mut origins = request.headers().get_all(ORIGIN).iter().peekable();
    if origins.peek().is_none() {
        return true;
    }
    let host = host(request);
    origins.all(|origin| {
        let authority = origin.to_str().ok().and_then(split_origin).map(|(_, authority)| authority);
        authority.is_some_and(|authority| host.as_ref() == Some(&authority))
    })
}

/// Returns why a request that is not of the same origin is refused.
fn reason<B>(request: &Request<B>) -> CrossOriginReason {
    let mut sites = request.headers().get_all(&SEC_FETCH_SITE).iter();
    match (sites.next().map(HeaderValue::as_bytes), sites.next()) {
        (None, _) => CrossOriginReason::OtherOrigin,
        (Some(b"cross-site"), None) => CrossOriginReason::CrossSite,
        (Some(b"same-site"), None) => CrossOriginReason::SameSite,
        (Some(_), _) => CrossOriginReason::Malformed,
    }
}

/// Returns true for a request that must not change anything (RFC 9110 section 9.2.1), and opens no WebSocket.
fn is_safe<B>(request: &Request<B>) -> bool {
    let safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    safe && !(has_token(request.headers(), CONNECTION, b"upgrade")
        && has_token(request.headers(), UPGRADE, b"websocket"))
}

fn has_token(headers: &HeaderMap, name: HeaderName, token: &[u8]) -> bool {
    let mut parts =
        headers.get_all(name).iter().flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    parts.any(|part| part.trim_ascii().eq_ignore_ascii_case(token))
}

/// Returns the host and port that a request is for: HTTP/2's `:authority`, or the `Host` field.
fn host<B>(request: &Request<B>) -> Option<Authority> {
    if let Some(authority) = request.uri().authority() {
        return Some(authority.clone());
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => Authority::try_from(host.as_bytes()).ok(),
        _ => None,
    }
}

/// Splits an origin into scheme and authority. `None` for `null`, and for anything with a path or user.
fn split_origin(origin: &str) -> Option<(&str, Authority)> {
    let (scheme, authority) = origin.split_once("://")?;
    let authority: Authority = authority.parse().ok()?;
    let scheme_fits = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    (scheme_fits && !scheme.is_empty() && !authority.as_str().contains('@')).then_some((scheme, authority))
}

/// Returns true if every router reads the path alike.
fn is_plain_path(path: &str) -> bool {
    let path = path.strip_suffix('/').unwrap_or(path);
    let plain = |segment: &str| !matches!(segment, "" | "." | "..");
    let lower = path.to_ascii_lowercase();
    path.split('/').skip(1).all(plain)
        && !["%2e", "%2f", "%5c", "\\"].iter().any(|encoded| lower.contains(encoded))
}

/// A service behind a [`CrossOriginProtection`].
#[derive(Clone)]
pub struct CrossOriginService<S, F = StatusOnly> {
    pub(crate) inner: S,
    pub(crate) protection: CrossOriginProtection,
    pub(crate) refusal: F,
}

impl<S, F> CrossOriginService<S, F> {
    /// Makes the response that a refused request gets. Default: an empty `403 Forbidden` ([`StatusOnly`]).
    ///
    /// # Examples
    ///
    /// ```
    /// # use bytes::Bytes;
    /// # use http::{Request, Response, StatusCode};
    /// # use http_body_util::Full;
    /// # use hyper::service::service_fn;
    /// # use hyper_session::{CrossOriginProtection, Error};
    /// # let handler = service_fn(|_: Request<Full<Bytes>>| async { Ok::<_, Error>(Response::new(String::new())) });
    /// let service = CrossOriginProtection::new().wrap(handler).on_refusal(|_: &Error| {
    ///     let mut response = Response::new("Please open the page again, and send the form from there.".to_owned());
    ///     *response.status_mut() = StatusCode::FORBIDDEN;
    ///     response
    /// });
    /// # fn is_service<S: hyper::service::Service<Request<Full<Bytes>>>>(_: &S) {}
    /// # is_service(&service);
    /// ```
    pub fn on_refusal<G>(self, refusal: G) -> CrossOriginService<S, G> {
        CrossOriginService { inner: self.inner, protection: self.protection, refusal }
    }
}

impl<S, F, B, R> Service<Request<B>> for CrossOriginService<S, F>
where
    S: Service<Request<B>, Response = Response<R>>,
    F: FailureResponse<R>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = CrossOriginFuture<S::Future, R>;

    fn call(&self, request: Request<B>) -> Self::Future {
        self.protection.answer(request, &self.refusal, |request| self.inner.call(request))
    }
}

impl<S: fmt::Debug, F> fmt::Debug for CrossOriginService<S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CrossOriginService")
            .field("inner", &self.inner)
            .field("protection", &self.protection)
            .finish_non_exhaustive()
    }
}

pin_project! {
    /// The future of a [`CrossOriginService`]'s response.
    #[must_use = "futures do nothing unless polled"]
    pub struct CrossOriginFuture<T, R> {
        // One of the two, until it is ready.
        #[pin]
        passed: Option<T>,
        refused: Option<Response<R>>,
    }
}

impl<T, R, E> Future for CrossOriginFuture<T, R>
where
    T: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<R>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.passed.as_pin_mut() {
            Some(passed) => passed.poll(cx),
            #[allow(clippy::expect_used)] // the contract of `Future::poll`; no input reaches this
            None => {
                Poll::Ready(Ok(this.refused.take().expect("CrossOriginFuture polled after it was ready")))
            }
        }
    }
}

impl<T, R> fmt::Debug for CrossOriginFuture<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CrossOriginFuture").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ELSEWHERE: &str = "https://evil.example";

    fn checked(protection: &CrossOriginProtection, request: http::request::Builder) -> bool {
        protection.check(&request.body(()).unwrap()).is_ok()
    }

    fn passes(method: &str, headers: &[(&str, &str)]) -> bool {
        let mut request = Request::builder().method(method).uri("/a").header("host", "app.example");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        checked(&CrossOriginProtection::new(), request)
    }

    // The table of Go's TestCrossOriginProtectionSecFetchSite and ...OriginHeader, and what they leave open.
    #[test]
    fn csrf_what_another_origin_sends_is_refused() {
        for (headers, ok) in [
            (&[("sec-fetch-site", "same-origin")][..], true),
            (&[("sec-fetch-site", "none")], true),
            (&[("sec-fetch-site", "cross-site")], false),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("sec-fetch-site", "")], false),
            (&[("sec-fetch-site", "Same-Origin")], false),
            (&[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")], false),
            (&[("sec-fetch-site", "same-origin"), ("origin", ELSEWHERE)], true),
            (&[("sec-fetch-site", "cross-site"), ("origin", "https://app.example")], false),
            (&[], true),
            (&[("origin", "https://app.example")], true),
            (&[("origin", "http://app.example")], true),
            (&[("origin", "https://APP.example")], true),
            (&[("origin", "https://app.example:8443")], false),
            (&[("origin", "https://evil.app.example")], false),
            (&[("origin", "https://app.example.evil.example")], false),
            (&[("origin", "https://user@app.example")], false),
            (&[("origin", "https://app.example/")], false),
            (&[("origin", "app.example")], false),
            (&[("origin", ELSEWHERE)], false),
            (&[("origin", "null")], false),
            (&[("origin", "")], false),
            (&[("origin", "https://app.example"), ("origin", ELSEWHERE)], false),
        ] {
            for method in ["POST", "PUT", "PATCH", "DELETE", "CONNECT", "PROPFIND"] {
                assert_eq!(passes(method, headers), ok, "{method} {headers:?}");
            }
            for method in ["GET", "HEAD", "OPTIONS"] {
                assert!(passes(method, headers), "{method} {headers:?}");
            }
        }
    }

    // Only the same spelling is the same host: what one reader of a URL takes for it, another does not.
    #[test]
    fn csrf_odd_hosts_are_not_taken_for_others() {
        for (host, origin, ok) in [
            ("[::1]:8080", "http://[::1]:8080", true),
            ("[::1]:8080", "http://[0:0:0:0:0:0:0:1]:8080", false),
            ("[::1]", "http://[::1]:8080", false),
            ("app.example.", "https://app.example.", true),
            ("app.example", "https://app.example.", false),
            ("app.example", "https://app.example:", false),
            ("app.example:443", "https://app.example", false),
            ("app.example@evil.example", "https://evil.example", false),
            ("evil.example@app.example", "https://app.example", false),
            ("app.example", "https://evil.example@app.example", false),
            ("app.example", "https://app.example#@evil.example", false),
            ("app.example", "https://app.example\\.evil.example", false),
            ("app.example", "https://app.example https://evil.example", false),
            ("app.example", "https://app.example, https://evil.example", false),
            ("app.example", "://app.example", false),
            ("app.example", "//app.example", false),
            ("", "https://", false),
            ("", "null", false),
            ("null", "null", false),
        ] {
            let request = Request::post("/a").header("host", host).header("origin", origin);
            assert_eq!(checked(&CrossOriginProtection::new(), request), ok, "{host:?} {origin:?}");
        }
    }

    #[test]
    fn a_websocket_of_another_origin_is_refused() {
        let upgrade = [("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")];
        for (origin, ok) in [("https://app.example", true), (ELSEWHERE, false)] {
            assert_eq!(passes("GET", &[upgrade[0], upgrade[1], ("origin", origin)]), ok);
        }
        assert!(passes("GET", &[upgrade[0], ("upgrade", "h2c"), ("origin", ELSEWHERE)]));
    }

    #[test]
    fn the_host_is_the_authority_of_http2() {
        let request = |uri: &str| Request::post(uri.to_owned()).header("origin", "https://app.example:8443");
        let protection = CrossOriginProtection::new();
        assert!(checked(&protection, request("https://app.example:8443/a")));
        assert!(!checked(&protection, request("https://app.example/a")));
        assert!(!checked(&protection, request("/a")), "no host at all");
        let two = request("/a").header("host", "app.example:8443").header("host", "other.example");
        assert!(!checked(&protection, two));
    }

    #[test]
    fn trusted_origins_are_trusted_to_the_letter() {
        let protection = CrossOriginProtection::new().trust_origin("https://pay.example:8443").unwrap();
        for (origins, ok) in [
            (&["https://pay.example:8443"][..], true),
            (&["https://pay.example"], false),
            (&["http://pay.example:8443"], false),
            (&["https://pay.example:8443", ELSEWHERE], false),
            (&[], false),
        ] {
            let mut request = Request::post("/a").header("sec-fetch-site", "cross-site");
            for origin in origins {
                request = request.header("origin", *origin);
            }
            assert_eq!(checked(&protection, request), ok, "{origins:?}");
        }
        for bad in [
            "",
            "pay.example",
            "https://",
            "https://pay.example/",
            "https://Pay.example",
            "https://u@pay.example",
            "https://pay.example:443",
            "http://pay.example:80",
            "https://pay.example:",
            "*",
            "null",
            "https://a b",
        ] {
            assert!(CrossOriginProtection::new().trust_origin(bad).unwrap_err().is_config(), "{bad}");
        }
    }

    #[test]
    fn exempt_paths_cannot_be_stretched() {
        let protection =
            CrossOriginProtection::new().exempt("/hooks/").unwrap().exempt("POST /paid").unwrap();
        let from_elsewhere = |method: &str, path: &str| {
            Request::builder().method(method).uri(path).header("sec-fetch-site", "cross-site")
        };
        for (method, path, ok) in [
            ("POST", "/hooks/", true),
            ("PUT", "/hooks/a/b?q=/../c", true),
            ("POST", "/hooks", false),
            ("POST", "/hooksy", false),
            ("POST", "/hooks/../account", false),
            ("POST", "/hooks/./a", false),
            ("POST", "/hooks//a", false),
            ("POST", "/hooks/%2e%2E/account", false),
            ("POST", "/hooks/..%2Faccount", false),
            ("POST", "/hooks/%5c..", false),
            ("POST", "/paid", true),
            ("POST", "/paid/", false),
            ("POST", "/paid/all", false),
            ("DELETE", "/paid", false),
        ] {
            assert_eq!(checked(&protection, from_elsewhere(method, path)), ok, "{method} {path}");
        }
        for bad in
            ["", "hooks/", "/hooks/../", "/a//b", "/a/{id}", "/a/*", "/a?b", "PO ST /a", "POST", "/%2e/"]
        {
            assert!(CrossOriginProtection::new().exempt(bad).unwrap_err().is_config(), "{bad}");
        }
        assert!(CrossOriginProtection::new().exempt("/").is_ok());
    }
}
