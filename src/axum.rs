//! Extractors for axum: the session, a read-only view of it, and the handle of a session that is not loaded.

use axum_core::extract::FromRequestParts;
use axum_core::response::{IntoResponse, Response};
use http::request::Parts;

use crate::error::Error;
use crate::service::{SessionExt, SessionHandle, not_wrapped};
use crate::session::{Session, SessionView};

/// Extracts the loaded session. Needs a [`SessionLayer`](crate::SessionLayer) around the route: see the guide
/// [`frameworks`](crate::guide::frameworks).
///
/// # Rejection
///
/// The [`Error`] of [`SessionExt::session`]. Take a `Result<Session, Error>` to make the response yourself. As a response,
/// the error is an empty 503 if a later attempt may help, and an empty 500 otherwise.
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

/// Extracts a read-only view of the loaded session, for handlers that change nothing. See [`Session`] for rejections.
impl<S: Sync> FromRequestParts<S> for SessionView {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        parts.session().await.map(|session| session.view())
    }
}

/// Extracts the session without loading it, for handlers that do not always need it. Rejected with
/// [`is_not_wrapped`](Error::is_not_wrapped) if there is no layer.
impl<S: Sync> FromRequestParts<S> for SessionHandle {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        parts.session_handle().ok_or_else(|| not_wrapped(""))
    }
}

/// Converts the error as [`Error::into_http_response`] does. The layer saves nothing for such a response, as for any
/// handler that fails.
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        self.into_http_response()
    }
}
