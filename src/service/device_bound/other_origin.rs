//! Whether a page of another origin caused a request. A browser does not refresh a bound cookie for such a request.

use http::header::{HeaderMap, HeaderName};
use http::{Method, Request};

use crate::service::fetch_metadata::SEC_FETCH_SITE;

static SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// Returns true if a page of another origin caused the request.
pub(super) fn is_caused_elsewhere(headers: &HeaderMap) -> bool {
    headers.get(&SEC_FETCH_SITE).is_some_and(|site| site == "cross-site" || site == "same-site")
}

/// Returns true if a page of another origin made the browser open this one.
pub(super) fn comes_by_link<B>(request: &Request<B>) -> bool {
    *request.method() == Method::GET && navigates(request.headers()) && is_caused_elsewhere(request.headers())
}

/// Returns true if a page of another origin caused the request, but did not make the browser open this page: a script of it, or
/// an image in it.
pub(super) fn is_fetched_elsewhere(headers: &HeaderMap) -> bool {
    is_caused_elsewhere(headers) && !navigates(headers)
}

fn navigates(headers: &HeaderMap) -> bool {
    headers.get(&SEC_FETCH_MODE).is_some_and(|mode| mode == "navigate")
}
