//! The facts that a browser tells about the cause of a request (W3C Fetch Metadata).

#[cfg(feature = "device-bound")]
use http::header::HeaderMap;
use http::header::HeaderName;
#[cfg(feature = "device-bound")]
use http::{Method, Request};

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
    *request.method() == Method::GET
        && request.headers().get(&SEC_FETCH_MODE).is_some_and(|mode| mode == "navigate")
        && is_caused_elsewhere(request.headers())
}
