//! The adapter for hyper: it adds a session to any hyper service.
//!
//! `handle` finds the cookie and puts a handle beside the request. The handler runs, and if it asks for its session, `loading`
//! loads it into the request's `slot`. `finish` commits the changes and writes the response head. If the handler does not
//! ask, the request costs only the search in the header and one handle.

mod brought_sessions;
mod commit;
mod connection;
mod cookie_lines;
mod cookie_opening;
mod cross_origin;
#[cfg(feature = "device-bound")]
mod device_bound;
#[cfg(not(feature = "device-bound"))]
#[path = "device_bound/absent.rs"]
mod device_bound;
mod error_response;
mod extension;
mod fetch_metadata;
mod finish;
mod function;
mod future;
mod handle;
mod loading;
mod memo;
mod other_sessions;
mod response_head;
mod slot;
mod stopwatch;
mod store_calls;
mod watch;

use std::sync::Arc;

#[cfg(feature = "device-bound")]
use bytes::Bytes;
use http::{Request, Response};
use hyper::service::Service;

pub(crate) use self::connection::Connection;
pub use self::cross_origin::{CrossOriginFuture, CrossOriginProtection, CrossOriginService};
#[cfg(feature = "device-bound")]
pub use self::device_bound::{DeviceBoundFuture, DeviceBoundService, HandlerService};
pub use self::error_response::{FailureResponse, StatusOnly};
pub use self::extension::SessionExt;
#[cfg(feature = "axum")]
pub(crate) use self::extension::not_wrapped;
pub use self::function::{SessionFn, session_fn};
pub use self::future::ResponseFuture;
pub use self::handle::SessionHandle;
pub use self::watch::SessionWatch;

use crate::store::Store;

/// A hyper service with sessions.
///
/// Handlers get their session with [`SessionExt::session`]. If a handler does not ask for it, request and response are
/// passed through unchanged. Neither service futures nor anything else on the path of a cookie session is boxed.
///
/// Several session services with different cookie names can wrap one service: see [`SessionExt::session_named`]. If two of
/// them have the same store, they share one session, which the outer one saves. A statement of the inner service about the
/// cookie stays, unless the outer service has a stronger one: a renewal yields to a change, a change to a new token, and a
/// new token to a logout.
///
/// Clone it for each connection, like any hyper service. A clone keeps the last session cookie that it opened or set, and
/// the session in it, until it is dropped. A browser sends the same cookie many times, and from the second time on it is
/// compared instead of decrypted ([`connection_memo`](crate::store::Builder::connection_memo)).
///
/// If the session cannot be saved, the handler's response is replaced. If the handler returns an [`Error`] (boxed or
/// plain), the service responds to that, and no value is saved; `destroy` and `regenerate` are carried out, as for any 5xx.
/// In both cases, the response is by default an empty 503 with `Retry-After` if a later attempt may help, and an empty 500
/// otherwise. [`on_failure`](Self::on_failure) makes another response. It is needed if the response's body has no `Default`.
/// Errors of any other type are passed through. Handlers with such a type can use
/// [`Error::into_http_response`](crate::Error::into_http_response).
///
/// [`Error`]: crate::Error
///
/// # Examples
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use hyper::service::{Service, service_fn};
/// use hyper::{Request, Response};
/// use hyper_session::{AppKey, CookieStore, Error, SessionExt, SessionService};
///
/// // In a server, the body is hyper's `Incoming`.
/// async fn count(request: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, Error> {
///     let session = request.session().await?;
///     let visits = session.update("visits", |old: Option<u64>| old.unwrap_or(0) + 1)?;
///     Ok(Response::new(format!("visit {visits}").into()))
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Error> {
/// let store = CookieStore::builder(AppKey::generate()?).build()?;
/// let service = SessionService::new(service_fn(count), store);
/// // hyper's `serve_connection(io, service)` would call it for each request:
/// let response = service.call(Request::new(Full::default())).await?;
/// assert!(response.headers().contains_key("set-cookie"));
/// # Ok(())
/// # }
/// ```
pub struct SessionService<S, F = StatusOnly> {
    pub(crate) inner: S,
    pub(crate) connection: Arc<Connection>,
    pub(crate) failure: F,
}

impl<S> SessionService<S> {
    /// Wraps `inner` with sessions from `store`.
    pub fn new(inner: S, store: impl Store) -> Self {
        Self { inner, connection: Connection::new(store), failure: StatusOnly }
    }
}

impl<S, F> SessionService<S, F> {
    /// Sets how the response is made when the session could not be saved, or when the handler returned an
    /// [`Error`](crate::Error). Default: [`StatusOnly`].
    ///
    /// Of the replaced response, only the `Set-Cookie` fields of session services are kept, because their sessions were
    /// saved by then. These fields are recognized by being marked [sensitive](http::HeaderValue::is_sensitive).
    ///
    /// # Examples
    ///
    /// ```
    /// # use bytes::Bytes;
    /// # use http_body_util::Full;
    /// # use hyper::{Request, Response, StatusCode, service::service_fn};
    /// # use hyper_session::{AppKey, CookieStore, Error, SessionService};
    /// # let handler = service_fn(|_: Request<Full<Bytes>>| async { Ok::<_, Error>(Response::new(Full::<Bytes>::default())) });
    /// # let store = CookieStore::builder(AppKey::generate()?).build()?;
    /// let service = SessionService::new(handler, store).on_failure(|error: &Error| {
    ///     let mut response = Response::new(Full::<Bytes>::from("Please try again."));
    ///     *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    ///     response
    /// });
    /// # Ok::<(), Error>(())
    /// ```
    pub fn on_failure<G>(self, failure: G) -> SessionService<S, G> {
        SessionService { inner: self.inner, connection: self.connection, failure }
    }

    /// Offers browsers to [bind sessions to their devices](crate::store::Builder::device_bound), and answers them. `body` makes
    /// a response body from the bytes of a JSON or HTML text.
    ///
    /// Without it, the service accepts sessions that are bound, and binds none. Without the option of the store, it does
    /// nothing.
    ///
    /// # Errors
    ///
    /// Inside of another service that answers browsers under the same path for the sessions of another cookie, it answers every
    /// request with an [`is_config`](crate::Error::is_config) error: set another [`DeviceBound::path`](crate::DeviceBound::path).
    ///
    /// # Examples
    ///
    /// ```
    /// use bytes::Bytes;
    /// use http_body_util::Full;
    /// use hyper::{Request, Response, body::Incoming, service::service_fn};
    /// use hyper_session::{AppKey, CookieStore, DeviceBound, Error, Revocations, SessionService};
    ///
    /// let store = CookieStore::builder(AppKey::generate()?)
    ///     .revocations(Revocations::in_memory())
    ///     .device_bound(DeviceBound::new())
    ///     .build()?;
    /// let app = service_fn(|_: Request<Incoming>| async { Ok::<_, Error>(Response::new(Full::<Bytes>::default())) });
    /// let service = SessionService::new(app, store).device_bound(Full::new);
    /// # fn is_service<S: hyper::service::Service<Request<Incoming>>>(_: &S) {}
    /// # is_service(&service);
    /// # Ok::<(), Error>(())
    /// ```
    #[cfg(feature = "device-bound")]
    pub fn device_bound<G, R>(self, body: G) -> SessionService<DeviceBoundService<S, G>, F>
    where
        G: Fn(Bytes) -> R + Clone,
    {
        let Self { inner, connection, failure } = self;
        SessionService { inner: DeviceBoundService::new(inner, body), connection, failure }
    }

    /// Puts a handle beside the request, for both traits that a session service implements.
    ///
    /// The second value is false if a service around this one has the same session, and commits it.
    pub(crate) fn begin<B>(&self, request: &mut Request<B>) -> (SessionHandle, bool) {
        let (handle, commits) = extension::begin(&self.connection, request);
        extension::insert(request.extensions_mut(), handle.clone());
        (handle, commits)
    }
}

impl<S, F, B, R> Service<Request<B>> for SessionService<S, F>
where
    S: Service<Request<B>, Response = Response<R>>,
    // Needed to find this crate's error in it.
    S::Error: 'static,
    F: FailureResponse<R> + Clone,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, R, F>;

    fn call(&self, mut request: Request<B>) -> Self::Future {
        let (handle, commits) = self.begin(&mut request);
        ResponseFuture::new(self.inner.call(request), handle, commits, self.failure.clone())
    }
}

impl<S: Clone, F: Clone> Clone for SessionService<S, F> {
    fn clone(&self) -> Self {
        let (inner, connection) = (self.inner.clone(), self.connection.another());
        Self { inner, connection, failure: self.failure.clone() }
    }
}

impl<S: std::fmt::Debug, F> std::fmt::Debug for SessionService<S, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionService")
            .field("inner", &self.inner)
            .field("config", self.connection.config())
            .finish_non_exhaustive()
    }
}
