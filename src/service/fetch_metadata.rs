//! The facts that a browser tells about the cause of a request (W3C Fetch Metadata).

use http::header::{HeaderMap, HeaderName, HeaderValue};
#[cfg(feature = "device-bound")]
use http::{Method, Request};

use crate::cookie::trim;

/// Whether a page of this origin, of this site, or of another site caused the request.
pub(super) static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
#[cfg(feature = "device-bound")]
static SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// Returns true if a page of another origin caused the request.
#[cfg(feature = "device-bound")]
pub(super) fn is_caused_elsewhere(headers: &HeaderMap) -> bool {
    headers.get(&SEC_FETCH_SITE).is_some_and(|site| site == "cross-site" || site == "same-site")
}

/// Returns true if a page of another origin made the browser open this one.
#[cfg(feature = "device-bound")]
pub(super) fn comes_by_link<B>(request: &Request<B>) -> bool {
    *request.method() == Method::GET && navigates(request.headers()) && is_caused_elsewhere(request.headers())
}

/// Returns true if a page of another origin caused the request, but did not make the browser open this page: a script of it, or
/// an image in it.
#[cfg(feature = "device-bound")]
pub(super) fn is_fetched_elsewhere(headers: &HeaderMap) -> bool {
    is_caused_elsewhere(headers) && !navigates(headers)
}

#[cfg(feature = "device-bound")]
fn navigates(headers: &HeaderMap) -> bool {
    headers.get(&SEC_FETCH_MODE).is_some_and(|mode| mode == "navigate")
}

/// Returns true if a browser loads the page before the user asks for it.
///
/// The value is a token: `prefetch`, or of some scripts `prerender`, and of Safari `preview`. Prerendering adds a parameter or
/// another token.
pub(super) fn is_speculative(headers: &HeaderMap) -> bool {
    let is_prefetch = |value: &HeaderValue| {
        let token = value.as_bytes().split(|byte| matches!(byte, b';' | b',')).next().unwrap_or_default();
        matches!(trim(token), b"prefetch" | b"prerender" | b"preview")
    };
    // One look at each name is faster than four look-ups, each of which hashes a name.
    headers.iter().any(|(name, value)| is_purpose(name) && is_prefetch(value))
}

/// Returns true for a header by which a browser, or a script in a page, declares that it loads a page ahead.
///
/// `Sec-Purpose` is in the Fetch standard. Chromium, Firefox and Safari sent `Purpose`, `X-Moz` and `X-Purpose` before, and
/// scripts that load pages ahead still do. A script cannot set `Sec-Purpose`, so some set `X-Sec-Purpose`.
fn is_purpose(name: &HeaderName) -> bool {
    matches!(name.as_str(), "sec-purpose" | "x-sec-purpose" | "purpose" | "x-purpose" | "x-moz")
}
