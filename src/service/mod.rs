//! The adapter: any hyper service, with a session.
//!
//! A request passes through here in one direction. `handle` finds the cookie and puts a handle beside the request. The handler
//! runs, and if it asks for its session, `slot` loads it. `finish` commits what was changed and writes the response head. A request that never asks costs a look at the header and one handle.

mod commit;
mod connection;
mod cross_origin;
mod devices;
mod extension;
mod failure;
mod finish;
mod function;
mod future;
mod handle;
mod head;
mod memo;
mod slot;
mod stopwatch;
mod watch;

use std::sync::Arc;

use http::{Request, Response};
use hyper::service::Service;

pub(crate) use self::connection::Connection;
pub use self::cross_origin::{CrossOriginFuture, CrossOriginProtection, CrossOriginService, Forbidden};
pub use self::extension::SessionExt;
#[cfg(feature = "axum")]
pub(crate) use self::extension::not_wrapped;
pub use self::failure::{FailureResponse, ServiceUnavailable};
pub use self::function::{SessionFn, session_fn};
pub use self::future::ResponseFuture;
pub use self::handle::SessionHandle;
pub use self::watch::SessionWatch;

use crate::store::Store;

/// Gives a hyper service sessions.
///
/// Handlers reach theirs with [`SessionExt::session`]; requests that do not ask are passed through untouched, and so are
/// their responses. Service futures are not boxed, and neither is anything else on the way of a cookie session.
///
/// Several of these around one service, each with a cookie name of its own, work side by side: see
/// [`SessionExt::session_named`]. Two with the same store, one around the other, are one session, which the outer one
/// saves. What a service says about its session's cookie stands, unless a service around it was asked for more: a renewal
/// yields to a change, a change to a new token, and a new token to a logout.
///
/// Clone it for each connection, as hyper's services are. A clone keeps the last session cookie that it opened or set, with
/// what is in it, until it is dropped: a browser sends the same one again and again, and the second time it is compared
/// instead of decrypted ([`connection_memo`](crate::store::Builder::connection_memo)).
///
/// If the session cannot be saved, the handler's response is replaced. If the handler returns an [`Error`] (boxed or as it
/// is), that is answered, too, and nothing is saved. Both give by default an empty 503 with `Retry-After` where trying again
/// may help, and an empty 500 otherwise: see [`on_failure`](Self::on_failure). Errors of any other type pass through as they
/// are; [`Error::into_http_response`](crate::Error::into_http_response) is for handlers with such a type.
///
/// [`Error`]: crate::Error
///
/// # Examples
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use hyper::body::Incoming;
/// use hyper::{Request, Response, service::service_fn};
/// use hyper_session::{AppKey, CookieStore, Error, SessionExt, SessionService};
///
/// async fn count(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Error> {
///     let session = request.session().await?;
///     let visits = session.update("visits", |old: Option<u64>| old.unwrap_or(0) + 1)?;
///     Ok(Response::new(format!("visit {visits}").into()))
/// }
///
/// let store = CookieStore::builder(AppKey::generate()?).build()?;
/// let service = SessionService::new(service_fn(count), store);
/// # fn is_service<S: hyper::service::Service<Request<Incoming>>>(_: &S) {}
/// # is_service(&service); // hand it to hyper's `serve_connection`
/// # Ok::<(), Error>(())
/// ```
pub struct SessionService<S, F = ServiceUnavailable> {
    pub(crate) inner: S,
    pub(crate) connection: Arc<Connection>,
    pub(crate) failure: F,
}

impl<S> SessionService<S> {
    /// Wraps `inner` with sessions from `store`.
    pub fn new(inner: S, store: impl Store) -> Self {
        Self { inner, connection: Connection::new(store), failure: ServiceUnavailable }
    }
}

impl<S, F> SessionService<S, F> {
    /// Makes the response that a client gets when its session could not be saved, or the handler returned an
    /// [`Error`](crate::Error). Default: [`ServiceUnavailable`].
    ///
    /// Nothing of the replaced response is kept, except for `Set-Cookie` fields of session services, whose sessions are saved
    /// by then. They are told from others by being marked [sensitive](http::HeaderValue::is_sensitive).
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

    /// The way in, for both traits that a session service implements.
    ///
    /// The second value is false if a service around this one has the same session: then that one commits it.
    pub(crate) fn begin<B>(&self, request: &mut Request<B>) -> (SessionHandle, bool) {
        let (handle, commits) = extension::begin(&self.connection, request);
        extension::insert(request.extensions_mut(), handle.clone());
        (handle, commits)
    }
}

impl<S, F, B, R> Service<Request<B>> for SessionService<S, F>
where
    S: Service<Request<B>, Response = Response<R>>,
    // To find this crate's error in it.
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
