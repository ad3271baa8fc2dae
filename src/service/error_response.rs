//! Errors as responses: for a session that could not be saved, and for a handler that failed.

use std::any::Any;
use std::error::Error as StdError;
use std::sync::Arc;

use http::header::{CACHE_CONTROL, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};

use crate::error::{Error, Kind};

/// Makes the response for an [`Error`]. The error was returned by a handler, or its response replaces a response that must
/// not be sent because the session was not saved.
///
/// Implemented for any `Fn(&Error) -> Response<R>`.
#[diagnostic::on_unimplemented(
    message = "there is no response with the body `{R}` for a session that could not be saved",
    note = "a body type without a `Default` needs `.on_failure(|error: &hyper_session::Error| ...)` on the session service"
)]
pub trait FailureResponse<R> {
    /// Returns the response for `error`. It must not reveal anything of the response that it replaces.
    fn response(&self, error: &Error) -> Response<R>;
}

impl<R, F: Fn(&Error) -> Response<R>> FailureResponse<R> for F {
    fn response(&self, error: &Error) -> Response<R> {
        self(error)
    }
}

/// The default [`FailureResponse`]: an empty response with a status for the kind of error. It is `503 Service Unavailable` with
/// `Retry-After: 1` if a later attempt may help, `403 Forbidden` for a [forgery](Error::is_forgery), and
/// `500 Internal Server Error` otherwise.
///
/// # Examples
///
/// ```
/// use http::{Response, StatusCode};
/// use hyper_session::{Error, FailureResponse, StatusOnly};
///
/// let response: Response<String> = StatusOnly.response(&Error::unavailable("connection refused"));
/// assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
/// assert_eq!(response.headers()["retry-after"], "1");
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct StatusOnly;

impl<R: Default> FailureResponse<R> for StatusOnly {
    fn response(&self, error: &Error) -> Response<R> {
        let mut response = Response::new(R::default());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if error.is_transient() {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        } else if error.is_forgery() {
            *response.status_mut() = StatusCode::FORBIDDEN;
        }
        response
    }
}

/// Marks a response that was made from an error. The session service then saves no value, as for a handler that returns the
/// error.
#[derive(Clone)]
pub(super) struct MadeFrom {
    error: Arc<Error>,
    /// A session service has emitted the event about the error. The services around it have to drop values, too.
    reported: bool,
}

impl MadeFrom {
    pub(super) fn new(error: Error) -> Self {
        Self { error: Arc::new(error), reported: false }
    }

    /// Returns the error the first time, to be reported.
    pub(super) fn report(&mut self) -> Option<Arc<Error>> {
        let first = !std::mem::replace(&mut self.reported, true);
        first.then(|| Arc::clone(&self.error))
    }

    /// Marks `response`, for the session services around this one.
    pub(super) fn mark<R>(self, response: &mut Response<R>) {
        response.extensions_mut().insert(self);
    }
}

impl Error {
    /// Makes an empty response from the error: a 503 with `Retry-After: 1` where trying again may help, a 403 for a
    /// [forgery](Error::is_forgery), and a 500 otherwise. The response does not say what went wrong, because an error may name
    /// keys of the session.
    ///
    /// A session service treats the response as the error: it saves no value, and emits an
    /// [event](crate::EventKind::HandlerFailed) with the error. `destroy` and `regenerate` are carried out, as for any 5xx.
    ///
    /// This method is for handlers with an error type of their own. A handler that returns `Err` of this type does not need it.
    ///
    /// # Examples
    ///
    /// ```
    /// use http::{Response, StatusCode};
    /// use hyper_session::{Error, SessionHandle};
    ///
    /// enum AppError {
    ///     NotFound,
    ///     Session(Error),
    /// }
    ///
    /// impl From<Error> for AppError {
    ///     fn from(error: Error) -> Self {
    ///         Self::Session(error)
    ///     }
    /// }
    ///
    /// impl From<AppError> for Response<String> {
    ///     fn from(error: AppError) -> Self {
    ///         match error {
    ///             AppError::NotFound => Response::builder().status(404).body(String::new()).unwrap_or_default(),
    ///             AppError::Session(error) => error.into_http_response(),
    ///         }
    ///     }
    /// }
    ///
    /// async fn page(session: SessionHandle) -> Result<Response<String>, AppError> {
    ///     let user: String = session.load().await?.get("user")?.ok_or(AppError::NotFound)?;
    ///     Ok(Response::new(user))
    /// }
    ///
    /// async fn handler(session: SessionHandle) -> Result<Response<String>, std::convert::Infallible> {
    ///     Ok(page(session).await.unwrap_or_else(Response::from)) // no other conversion is needed
    /// }
    ///
    /// let response = Response::from(AppError::Session(Error::unavailable("connection refused")));
    /// assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    /// ```
    pub fn into_http_response<R: Default>(self) -> Response<R> {
        let mut response = StatusOnly.response(&self);
        MadeFrom::new(self).mark(&mut response);
        response
    }
}

/// Takes the mark of a `response` that was made from an error.
pub(super) fn take_mark<R>(response: &mut Response<R>) -> Option<MadeFrom> {
    if response.extensions().is_empty() {
        return None; // as in almost every response
    }
    response.extensions_mut().remove::<MadeFrom>()
}

/// Extracts this crate's error from the error of a handler, either plain or boxed.
///
/// # Errors
///
/// Any other error of the handler, unchanged.
pub(super) fn own<E: 'static>(error: E) -> Result<Error, E> {
    // With `Any`, because a generic service cannot require a trait that only some errors have.
    let mut error = Some(error);
    let any: &mut dyn Any = &mut error;
    let own = if let Some(error) = any.downcast_mut::<Option<Error>>() {
        error.take()
    } else if let Some(boxed) = any.downcast_mut::<Option<Box<Error>>>() {
        boxed.take().map(|error| *error)
    } else if let Some(boxed) = any.downcast_mut::<Option<Box<dyn StdError + Send + Sync>>>() {
        unbox(boxed)
    } else if let Some(boxed) = any.downcast_mut::<Option<Box<dyn StdError + Send>>>() {
        unbox(boxed)
    } else if let Some(boxed) = any.downcast_mut::<Option<Box<dyn StdError>>>() {
        unbox(boxed)
    } else {
        None
    };
    match (own, error) {
        (Some(own), _) => Ok(own),
        (None, Some(error)) => Err(error),
        (None, None) => Ok(Error::new(Kind::Internal("an error was lost"))),
    }
}

/// A box of any error. Three kinds are in use.
trait AnyError: Sized {
    fn downcast(self) -> Result<Box<Error>, Self>;
}

macro_rules! any_error {
    ($($error:ty),*) => {
        $(impl AnyError for Box<$error> {
            fn downcast(self) -> Result<Box<Error>, Self> {
                <$error>::downcast(self)
            }
        })*
    };
}

any_error!(dyn StdError + Send + Sync, dyn StdError + Send, dyn StdError);

/// Takes this crate's error out of its box. Another error stays in its box.
fn unbox<B: AnyError>(error: &mut Option<B>) -> Option<Error> {
    match error.take()?.downcast() {
        Ok(own) => Some(*own),
        Err(other) => {
            *error = Some(other);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::fmt;

    use super::*;

    #[derive(Debug)]
    struct Theirs(u32);

    impl fmt::Display for Theirs {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "theirs: {}", self.0)
        }
    }

    impl StdError for Theirs {}

    fn ours() -> Error {
        Error::unavailable("as this test wants")
    }

    #[test]
    fn b9_this_crates_error_is_found_as_itself_and_in_each_kind_of_box() {
        assert!(own(ours()).is_ok_and(|error| error.is_unavailable()));
        assert!(own(Box::new(ours())).is_ok_and(|error| error.is_unavailable()));
        assert!(
            own::<Box<dyn StdError + Send + Sync>>(Box::new(ours()))
                .is_ok_and(|error| error.is_unavailable())
        );
        assert!(own::<Box<dyn StdError + Send>>(Box::new(ours())).is_ok_and(|error| error.is_unavailable()));
        assert!(own::<Box<dyn StdError>>(Box::new(ours())).is_ok_and(|error| error.is_unavailable()));
    }

    #[test]
    fn b9_any_other_error_is_the_handlers() {
        assert_eq!(own(Theirs(7)).unwrap_err().0, 7);
        let boxed = own::<Box<dyn StdError + Send + Sync>>(Box::new(Theirs(8))).unwrap_err();
        assert_eq!(boxed.downcast_ref::<Theirs>().unwrap().0, 8);
        let boxed = own::<Box<dyn StdError + Send>>(Box::new(Theirs(9))).unwrap_err();
        assert_eq!(boxed.to_string(), "theirs: 9");
        assert_eq!(own::<Box<dyn StdError>>("text".into()).unwrap_err().to_string(), "text");
        assert_eq!(own("text").unwrap_err(), "text");
        assert!(own::<Result<Infallible, ()>>(Err(())).is_err());
    }

    #[test]
    fn only_what_may_pass_is_worth_another_attempt() {
        for (error, status, retry) in [
            (ours(), 503, true),
            (Error::new(Kind::Conflict { attempts: 1 }), 503, true),
            (Error::new(Kind::TooLarge { size: 2, limit: 1 }), 500, false),
            (Error::new(Kind::NotWrapped), 500, false),
        ] {
            let response: Response<()> = error.into_http_response();
            assert_eq!(response.status(), status);
            assert_eq!(response.headers().contains_key(RETRY_AFTER), retry);
            assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
        }
    }
}
