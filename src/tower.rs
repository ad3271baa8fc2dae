//! The adapter for tower: a layer, and the session service as a tower service. Requests take the same path as with hyper.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

#[cfg(feature = "device-bound")]
use bytes::Bytes;
use http::{Request, Response};
use tower_layer::Layer;
use tower_service::Service;

use crate::service::{
    Connection, CrossOriginFuture, CrossOriginProtection, CrossOriginService, FailureResponse,
    ResponseFuture, SessionService, StatusOnly,
};
#[cfg(feature = "device-bound")]
use crate::service::{DeviceBoundFuture, DeviceBoundService};
use crate::store::Store;

/// A layer that gives the services it wraps sessions from one store.
///
/// Handlers get their session with [`SessionExt::session`](crate::SessionExt::session), or with the extractors of the
/// feature `axum`. The guide [`frameworks`](crate::guide::frameworks) has the order of layers, timeouts, and tonic.
///
/// # Examples
///
/// ```
/// use hyper_session::{AppKey, CookieStore, Error, SessionExt, SessionLayer};
/// use http::{Request, Response};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
///
/// async fn count(request: Request<()>) -> Result<Response<String>, Error> {
///     let session = request.session().await?;
///     let visits = session.update("visits", |old: Option<u64>| old.unwrap_or(0) + 1)?;
///     Ok(Response::new(format!("visit {visits}")))
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Error> {
/// let store = CookieStore::builder(AppKey::generate()?).build()?;
/// let service = ServiceBuilder::new().layer(SessionLayer::new(store)).service(service_fn(count));
/// let response = service.oneshot(Request::new(())).await?;
/// assert_eq!(response.body(), "visit 1");
/// assert!(response.headers().contains_key("set-cookie"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[doc(alias = "SessionManagerLayer")]
#[doc(alias = "SessionMiddleware")]
pub struct SessionLayer<F = StatusOnly> {
    connection: Arc<Connection>,
    failure: F,
}

impl SessionLayer {
    /// Creates a layer whose sessions are kept in `store`.
    pub fn new(store: impl Store) -> Self {
        Self { connection: Connection::without_memo(store), failure: StatusOnly }
    }
}

impl<F> SessionLayer<F> {
    /// Sets how the response is made when a session could not be saved, or when the service returned an
    /// [`Error`](crate::Error). See [`SessionService::on_failure`].
    pub fn on_failure<G>(self, failure: G) -> SessionLayer<G> {
        SessionLayer { connection: self.connection, failure }
    }
}

#[cfg(feature = "device-bound")]
impl<F> SessionLayer<F> {
    /// Offers browsers to bind sessions to their devices, and answers them. `body` makes a response body from the bytes of a
    /// JSON or HTML text, such as axum's `Body::from`. See [`SessionService::device_bound`].
    ///
    /// # Examples
    ///
    /// ```
    /// use bytes::Bytes;
    /// use http::{Request, Response};
    /// use http_body_util::Full;
    /// use hyper_session::{AppKey, CookieStore, DeviceBound, Error, SessionLayer};
    /// use tower::{ServiceBuilder, service_fn};
    ///
    /// let store = CookieStore::builder(AppKey::generate()?).device_bound(DeviceBound::new()).build()?;
    /// let app = service_fn(|_: Request<()>| async { Ok::<_, Error>(Response::new(Full::<Bytes>::default())) });
    /// let service = ServiceBuilder::new().layer(SessionLayer::new(store).device_bound(Full::new)).service(app);
    /// # fn is_service<S: tower::Service<Request<()>>>(_: &S) {}
    /// # is_service(&service);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn device_bound<G, R>(self, body: G) -> DeviceBoundLayer<F, G>
    where
        G: Fn(Bytes) -> R + Clone,
    {
        DeviceBoundLayer { layer: self, body }
    }
}

/// The layer that [`SessionLayer::device_bound`] returns.
#[cfg(feature = "device-bound")]
#[derive(Clone)]
pub struct DeviceBoundLayer<F, G> {
    layer: SessionLayer<F>,
    body: G,
}

#[cfg(feature = "device-bound")]
impl<S, F: Clone, G: Clone> Layer<S> for DeviceBoundLayer<F, G> {
    type Service = SessionService<DeviceBoundService<S, G>, F>;

    fn layer(&self, inner: S) -> Self::Service {
        self.layer.layer(DeviceBoundService::new(inner, self.body.clone()))
    }
}

#[cfg(feature = "device-bound")]
impl<F, G> fmt::Debug for DeviceBoundLayer<F, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceBoundLayer").field("layer", &self.layer).finish_non_exhaustive()
    }
}

impl<S, F: Clone> Layer<S> for SessionLayer<F> {
    type Service = SessionService<S, F>;

    fn layer(&self, inner: S) -> Self::Service {
        SessionService { inner, connection: self.connection.another(), failure: self.failure.clone() }
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

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    /// Calls the inner service without cloning it: only this instance was polled for readiness.
    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let (handle, commits) = self.begin(&mut request);
        ResponseFuture::new(self.inner.call(request), handle, commits, self.failure.clone())
    }
}

#[cfg(feature = "device-bound")]
impl<S, G, B, R> Service<Request<B>> for DeviceBoundService<S, G>
where
    S: Service<Request<B>, Response = Response<R>>,
    G: Fn(Bytes) -> R + Clone,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = DeviceBoundFuture<S::Future, G>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        Self::respond(&self.body, request, |request| self.inner.call(request))
    }
}

impl<S> Layer<S> for CrossOriginProtection {
    type Service = CrossOriginService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        self.clone().wrap(inner)
    }
}

impl<S, F, B, R> Service<Request<B>> for CrossOriginService<S, F>
where
    S: Service<Request<B>, Response = Response<R>>,
    F: FailureResponse<R>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = CrossOriginFuture<S::Future, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let Self { inner, protection, refusal } = self;
        protection.answer(request, refusal, |request| inner.call(request))
    }
}

impl<F> fmt::Debug for SessionLayer<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionLayer").field("config", self.connection.config()).finish_non_exhaustive()
    }
}
