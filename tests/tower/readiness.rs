//! The contract of `tower::Service`: what was polled ready is what is called.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use http::{Request, Response};
use hyper_session::testing::{Fault, Faulty, Primitive};
use hyper_session::{AppKey, CookieStore, Error, ServerStore, SessionExt, SessionLayer, store::Memory};
use tower::buffer::BufferLayer;
use tower::limit::ConcurrencyLimitLayer;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

use crate::support::block_on;

/// Must be polled ready before each call, on the very instance that is called: a clone is not ready.
#[derive(Debug)]
struct Strict {
    ready: bool,
    polls_until_ready: usize,
    calls: Arc<AtomicUsize>,
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self { ready: false, calls: Arc::clone(&self.calls), ..*self }
    }
}

impl Service<Request<()>> for Strict {
    type Response = Response<()>;
    type Error = &'static str;
    type Future = Ready<Result<Response<()>, &'static str>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
        if self.polls_until_ready == usize::MAX {
            return Poll::Ready(Err("broken"));
        }
        if self.polls_until_ready > 0 {
            self.polls_until_ready -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without having been polled ready");
        self.calls.fetch_add(1, Ordering::SeqCst);
        ready(Ok(Response::new(())))
    }
}

fn strict(polls_until_ready: usize) -> (Strict, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    (Strict { ready: false, polls_until_ready, calls: Arc::clone(&calls) }, calls)
}

fn layer() -> SessionLayer {
    SessionLayer::new(CookieStore::builder(AppKey::generate().unwrap()).build().unwrap())
}

#[test]
fn readiness_is_that_of_the_inner_service() {
    let (inner, calls) = strict(2);
    let mut service = layer().layer(inner);
    let cx = &mut Context::from_waker(Waker::noop());
    assert!(service.poll_ready(cx).is_pending() && service.poll_ready(cx).is_pending());
    assert_eq!(service.poll_ready(cx), Poll::Ready(Ok(())));
    block_on(service.call(Request::new(()))).unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 1);

    let (broken, _) = strict(usize::MAX);
    assert_eq!(layer().layer(broken).poll_ready(cx), Poll::Ready(Err("broken")));
}

#[test]
fn the_instance_that_was_ready_is_the_one_that_is_called() {
    let (inner, calls) = strict(1);
    block_on(async {
        let service = ServiceBuilder::new()
            .layer(BufferLayer::new(4))
            .layer(layer())
            .layer(ConcurrencyLimitLayer::new(1))
            .service(inner);
        let mut clones: Vec<_> = (0..8).map(|_| service.clone()).collect();
        for clone in &mut clones {
            clone.ready().await.unwrap().call(Request::new(())).await.unwrap();
        }
    });
    assert_eq!(calls.load(Ordering::SeqCst), 8);
}

#[test]
fn a_clone_has_sessions_of_the_same_store() {
    let service = layer().layer(service_fn(|request: Request<()>| async move {
        let session = request.session().await?;
        let visits = session.update("visits", |old: Option<u64>| old.unwrap_or(0) + 1)?;
        Ok::<_, Error>(Response::new(visits.to_string()))
    }));
    block_on(async {
        let first = service.clone().oneshot(Request::new(())).await.unwrap();
        let cookie = first.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap();
        let request = Request::builder().header("cookie", cookie).body(()).unwrap();
        assert_eq!(service.oneshot(request).await.unwrap().body(), "2");
    });
}

#[test]
fn what_cannot_be_saved_is_answered_by_the_hook() {
    let backend = Faulty::new(Memory::new());
    backend.fail(Primitive::Create, Fault::Unreachable);
    let store = ServerStore::with_backend(backend).build().unwrap();
    let handler = service_fn(|request: Request<()>| async move {
        request.session().await.unwrap().set("user", "Ada").unwrap();
        Ok::<_, Infallible>(Response::new("saved".to_owned()))
    });
    let hook = |error: &Error| Response::builder().status(503).body(error.label().to_owned()).unwrap();
    let response =
        block_on(SessionLayer::new(store.clone()).on_failure(hook).layer(handler).oneshot(Request::new(())));
    let response = response.unwrap();
    assert_eq!((response.status().as_u16(), response.body().as_str()), (503, "unavailable"));
    assert!(!response.headers().contains_key("set-cookie"));

    let default = block_on(SessionLayer::new(store).layer(handler).oneshot(Request::new(()))).unwrap();
    assert_eq!((default.status().as_u16(), default.body().as_str()), (503, ""));
}
