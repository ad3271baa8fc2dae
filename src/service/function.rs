//! A service from a function that takes the session as an argument.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use http::{Request, Response};
use hyper::service::Service;

use super::connection::Connection;
use super::error_response::{FailureResponse, StatusOnly};
use super::extension;
use super::future::ResponseFuture;
use super::handle::SessionHandle;
use crate::store::Store;

/// Makes a hyper service from `handler`, which takes each request and the handle of its session.
///
/// Works as [`SessionService`](super::SessionService), without request extensions: a request whose handler does not ask for
/// the session costs one allocation. The result is a service if the response's body has a `Default`, as `Full`, `String` and
/// `BoxBody` do. For any other body, set [`on_failure`](SessionFn::on_failure).
///
/// # Examples
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use hyper::service::Service;
/// use hyper::{Request, Response};
/// use hyper_session::{AppKey, CookieStore, Error, SessionHandle, session_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Error> {
/// let store = CookieStore::builder(AppKey::generate()?).build()?;
/// // In a server, the body is hyper's `Incoming`.
/// let service = session_fn(store, |request: Request<()>, session: SessionHandle| async move {
///     if request.uri().path() == "/ping" {
///         return Ok(Response::new(Full::<Bytes>::from("pong"))); // the cookie is not even decoded
///     }
///     let session = session.load().await?;
///     session.set("seen", true)?;
///     Ok::<_, Error>(Response::new("hello".into()))
/// });
/// let get = |path| Request::get(path).body(()).unwrap();
/// assert!(service.call(get("/")).await?.headers().contains_key("set-cookie"));
/// assert!(!service.call(get("/ping")).await?.headers().contains_key("set-cookie"));
/// # Ok(())
/// # }
/// ```
pub fn session_fn<H>(store: impl Store, handler: H) -> SessionFn<H> {
    SessionFn { handler, connection: Connection::new(store), failure: StatusOnly }
}

/// The service that [`session_fn`] returns.
///
/// Clone it for each connection, like any hyper service: see [`SessionService`](super::SessionService).
pub struct SessionFn<H, F = StatusOnly> {
    pub(super) handler: H,
    pub(super) connection: Arc<Connection>,
    pub(super) failure: F,
}

impl<H, F> SessionFn<H, F> {
    /// Sets how the response is made when the session could not be saved, or when the handler returned an
    /// [`Error`](crate::Error). See [`SessionService::on_failure`](super::SessionService::on_failure).
    pub fn on_failure<G>(self, failure: G) -> SessionFn<H, G> {
        SessionFn { handler: self.handler, connection: self.connection, failure }
    }
}

impl<H, F, B, T, R, E> Service<Request<B>> for SessionFn<H, F>
where
    H: Fn(Request<B>, SessionHandle) -> T,
    T: Future<Output = Result<Response<R>, E>>,
    // Needed to find this crate's error in it.
    E: 'static,
    F: FailureResponse<R> + Clone,
{
    type Response = Response<R>;
    type Error = E;
    type Future = ResponseFuture<T, R, F>;

    fn call(&self, request: Request<B>) -> Self::Future {
        let (handle, commits) = extension::begin(&self.connection, &request);
        ResponseFuture::new((self.handler)(request, handle.clone()), handle, commits, self.failure.clone())
    }
}

impl<H: Clone, F: Clone> Clone for SessionFn<H, F> {
    fn clone(&self) -> Self {
        let (handler, connection) = (self.handler.clone(), self.connection.another());
        Self { handler, connection, failure: self.failure.clone() }
    }
}

impl<H, F> fmt::Debug for SessionFn<H, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionFn").field("config", self.connection.config()).finish_non_exhaustive()
    }
}
