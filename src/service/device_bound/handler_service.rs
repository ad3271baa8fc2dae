//! A service from a function that takes the session as an argument, if its sessions are bound to devices.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use hyper::service::Service;

use super::DeviceBoundService;
use crate::service::connection::Connection;
use crate::service::function::SessionFn;
use crate::service::handle::SessionHandle;
use crate::service::{SessionService, extension};

impl<H, F> SessionFn<H, F> {
    /// Offers browsers to bind sessions to their devices, and answers them: see
    /// [`SessionService::device_bound`].
    pub fn device_bound<G, R>(self, body: G) -> SessionService<DeviceBoundService<HandlerService<H>, G>, F>
    where
        G: Fn(Bytes) -> R + Clone,
    {
        let Self { handler, connection, failure } = self;
        let inner = HandlerService { handler, connection: Arc::clone(&connection) };
        SessionService { inner, connection, failure }.device_bound(body)
    }
}

/// The function that was given to [`session_fn`](crate::session_fn), inside of a [`SessionService`].
#[derive(Clone)]
pub struct HandlerService<H> {
    handler: H,
    connection: Arc<Connection>,
}

impl<H, B, T, R, E> Service<Request<B>> for HandlerService<H>
where
    H: Fn(Request<B>, SessionHandle) -> T,
    T: Future<Output = Result<Response<R>, E>>,
{
    type Response = Response<R>;
    type Error = E;
    type Future = T;

    fn call(&self, request: Request<B>) -> Self::Future {
        let (handle, _) = extension::begin(&self.connection, &request);
        (self.handler)(request, handle)
    }
}

impl<H> fmt::Debug for HandlerService<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerService").field("config", self.connection.config()).finish_non_exhaustive()
    }
}
