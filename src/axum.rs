//! Extractors for axum: the session, a view of it, and the handle that is not loaded yet.

use axum_core::extract::FromRequestParts;
use axum_core::response::{IntoResponse, Response};
use http::request::Parts;

use crate::error::{Error, Kind};
use crate::service::{FailureResponse, ServiceUnavailable, SessionExt, SessionHandle};
use crate::session::{Session, SessionView};

/// The session, loaded. Needs a [`SessionLayer`](crate::SessionLayer) around the route.
///
/// # Rejection
///
/// The [`Error`] of [`SessionExt::session`]: take a `Result<Session, Error>` to answer it yourself. As a response it is
/// an empty 503 where trying again may help, and an empty 500 otherwise.
///
/// # Examples
///
/// ```
/// use axum::{Router, routing::get};
/// use hyper_session::{AppKey, CookieStore, Error, Session, SessionLayer, SessionView};
///
/// async fn count(session: Session) -> Result<String, Error> {
///     let visits = session.update("visits", |old: Option<u64>| old.unwrap_or(0) + 1)?;
///     Ok(format!("visit {visits}"))
/// }
///
/// async fn show(session: SessionView) -> Result<String, Error> {
///     Ok(format!("{} visits", session.get::<u64>("visits")?.unwrap_or(0)))
/// }
///
/// let store = CookieStore::builder(AppKey::generate()?).build()?;
/// let app: Router = Router::new()
///     .route("/", get(count))
///     .route("/visits", get(show))
///     .layer(SessionLayer::new(store));
/// # Ok::<(), Error>(())
/// ```
impl<S: Sync> FromRequestParts<S> for Session {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        parts.session().await
    }
}

/// The session, loaded, to look at: for handlers that change nothing. See [`Session`] for rejections.
impl<S: Sync> FromRequestParts<S> for SessionView {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        parts.session().await.map(|session| session.view())
    }
}

/// The session, not loaded: for handlers that do not always look at it. Rejected with
/// [`is_not_wrapped`](Error::is_not_wrapped) where there is no layer.
impl<S: Sync> FromRequestParts<S> for SessionHandle {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        parts.session_handle().ok_or_else(|| Error::new(Kind::NotWrapped))
    }
}

/// An empty 503 with `Retry-After` where trying again may help, an empty 403 for a [forgery](Error::is_forgery), an empty 500
/// otherwise. What went wrong is for the log: an
/// error may name keys of the session.
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response: Response = ServiceUnavailable.response(&self);
        if self.is_forgery() {
            *response.status_mut() = http::StatusCode::FORBIDDEN;
        } else if !self.is_transient() {
            *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
        }
        response
    }
}
