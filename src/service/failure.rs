//! The response of last resort: what a client gets whose session could not be saved.

use http::header::{CACHE_CONTROL, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};

use crate::error::Error;

/// Makes a response in the place of one that must not be sent, since its session was not saved.
///
/// Any `Fn(&Error) -> Response<R>` is one.
#[diagnostic::on_unimplemented(
    message = "there is no response with the body `{R}` for a session that could not be saved",
    note = "a body type without a `Default` needs `.on_failure(|error: &hyper_session::Error| ...)` on the session service"
)]
pub trait FailureResponse<R> {
    /// The response for `error`. It must tell nothing of the response that it replaces.
    fn response(&self, error: &Error) -> Response<R>;
}

impl<R, F: Fn(&Error) -> Response<R>> FailureResponse<R> for F {
    fn response(&self, error: &Error) -> Response<R> {
        self(error)
    }
}

/// An empty `503 Service Unavailable`, with `Retry-After: 1` where trying again may help.
///
/// # Examples
///
/// ```
/// use http::{Response, StatusCode};
/// use hyper_session::{Error, FailureResponse, ServiceUnavailable};
///
/// let response: Response<String> = ServiceUnavailable.response(&Error::unavailable("connection refused"));
/// assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
/// assert_eq!(response.headers()["retry-after"], "1");
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct ServiceUnavailable;

impl<R: Default> FailureResponse<R> for ServiceUnavailable {
    fn response(&self, error: &Error) -> Response<R> {
        let mut response = Response::new(R::default());
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if error.is_transient() {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
