//! The responses to the requests by which a browser binds a session to its device.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, SET_COOKIE};
use http::{Response, StatusCode};

use crate::cookie::SetCookies;

/// Returns an empty response.
pub(super) fn empty(status: StatusCode) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    response
}

/// Returns a text of this type, with these lines.
pub(super) fn text(text: String, content_type: &'static str, lines: SetCookies) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    set_cookies(&mut response, lines);
    response
}

/// Adds these lines.
pub(super) fn set_cookies(response: &mut Response<Bytes>, lines: SetCookies) {
    response.headers_mut().extend(lines.into_iter().map(|line| (SET_COOKIE, line)));
}
