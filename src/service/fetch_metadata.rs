//! The facts that a browser tells about the cause of a request (W3C Fetch Metadata).

use http::Uri;
use http::header::{HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN};

use crate::cookie::{CookieTemplate, SameSite, trim};

/// Whether a page of this origin, of this site, or of another site caused the request.
pub(super) static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The facts that one look at each header of a request finds. That is faster than several look-ups, each of which hashes a name.
#[derive(Clone, Copy, Default)]
pub(super) struct Cause {
    /// A browser loads the page before the user asks for it.
    pub(super) is_speculative: bool,
    /// There is an `Origin`. Browsers send it with forms and scripts, and not when they follow a link.
    has_origin: bool,
}

impl Cause {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut cause = Self::default();
        for (name, value) in headers {
            cause.is_speculative |= is_purpose(name) && is_prefetch(value);
            cause.has_origin |= *name == ORIGIN;
        }
        cause
    }

    /// Returns true if a browser may have withheld this cookie by its `SameSite`, because another site caused the request (RFC 6265bis
    /// section 5.8.3). A cookie of its name that came all the same is a different one: another host of the domain may have planted
    /// it.
    pub(super) fn may_withhold(self, cookie: &CookieTemplate, uri: &Uri, headers: &HeaderMap) -> bool {
        let may_withhold = match cookie.same_site() {
            SameSite::None => false,
            // With a form, and not with a link.
            SameSite::Lax => self.has_origin,
            SameSite::Strict => true,
        };
        may_withhold && may_be_of_another_site(cookie, uri, headers)
    }
}

/// Returns true if another site may have caused the request.
fn may_be_of_another_site(cookie: &CookieTemplate, uri: &Uri, headers: &HeaderMap) -> bool {
    let mut sites = headers.get_all(&SEC_FETCH_SITE).iter().peekable();
    let is_same = |site: &HeaderValue| matches!(site.as_bytes(), b"same-origin" | b"same-site" | b"none");
    if sites.peek().is_some() {
        return !sites.all(is_same);
    }
    // Over plain http no browser says it. Anyone on the way can plant any cookie there, so this would protect nothing.
    if !cookie.is_secure() {
        return false;
    }
    // An old browser, or a proxy that drops the field: the `Origin` decides. Ports do not: a site has all of its ports.
    let host = uri.authority().map(|authority| authority.as_str().as_bytes());
    let host = host.or_else(|| headers.get(HOST).map(HeaderValue::as_bytes)).map(without_port);
    let is_of_host = |origin: &HeaderValue| {
        let origin = origin.as_bytes();
        let authority = origin.strip_prefix(b"https://").or_else(|| origin.strip_prefix(b"http://"));
        authority
            .zip(host)
            .is_some_and(|(authority, host)| without_port(authority).eq_ignore_ascii_case(host))
    };
    !headers.get_all(ORIGIN).iter().all(is_of_host)
}

/// Returns the host of an authority. The colons of an IPv6 address are in brackets.
fn without_port(authority: &[u8]) -> &[u8] {
    let host = match authority.iter().position(|byte| *byte == b']') {
        Some(end) => authority.get(..=end),
        None => authority.split(|byte| *byte == b':').next(),
    };
    host.unwrap_or(authority)
}

/// Returns true for the value of a header by which a page is loaded ahead.
///
/// The value is a token: `prefetch`, or of some scripts `prerender`, and of Safari `preview`. Prerendering adds a parameter or
/// another token.
fn is_prefetch(value: &HeaderValue) -> bool {
    let token = value.as_bytes().split(|byte| matches!(byte, b';' | b',')).next().unwrap_or_default();
    matches!(trim(token), b"prefetch" | b"prerender" | b"preview")
}

/// Returns true for a header by which a browser, or a script in a page, declares that it loads a page ahead.
///
/// `Sec-Purpose` is in the Fetch standard. Chromium, Firefox and Safari sent `Purpose`, `X-Moz` and `X-Purpose` before, and
/// scripts that load pages ahead still do. A script cannot set `Sec-Purpose`, so some set `X-Sec-Purpose`.
fn is_purpose(name: &HeaderName) -> bool {
    matches!(name.as_str(), "sec-purpose" | "x-sec-purpose" | "purpose" | "x-purpose" | "x-moz")
}
