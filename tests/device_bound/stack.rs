//! The same in an axum application, whose layer answers browsers before the router.

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::{Request, Response, StatusCode};
use hyper_session::testing::Cookies;
use hyper_session::{DeviceBound, MemoryStore, Session, SessionLayer};
use tower::ServiceExt;

use crate::device::{Device, offer};
use crate::site::{BOUND, block_on, key};

async fn call(app: &Router, request: http::request::Builder, cookies: &mut Cookies) -> Response<Body> {
    let mut request = request.body(Body::empty()).unwrap();
    request.headers_mut().extend(cookies.header().map(|cookies| (http::header::COOKIE, cookies)));
    let response = app.clone().oneshot(request).await.unwrap();
    cookies.receive(response.headers());
    response
}

#[test]
fn a_layer_binds_sessions() {
    let store = MemoryStore::builder().device_bound(DeviceBound::new().keys(key())).build().unwrap();
    let app = Router::new()
        .route("/login", get(|session: Session| async move { session.login("ada") }))
        .route("/", get(|session: Session| async move { session.binding().is_bound().to_string() }))
        .layer(SessionLayer::new(store).device_bound(Body::from));
    block_on(async {
        let mut cookies = Cookies::new();
        let response = call(&app, Request::get("/login"), &mut cookies).await;
        let offer = offer(response.headers()).expect("an offer");
        let proof = Device::new().registration(&offer.challenge);
        let request = Request::post(&offer.path).header("secure-session-response", proof);
        assert_eq!(call(&app, request, &mut cookies).await.status(), StatusCode::OK);
        assert!(cookies.get(BOUND).is_some());
        let page = call(&app, Request::get("/"), &mut cookies).await.into_body();
        assert_eq!(axum::body::to_bytes(page, 99).await.unwrap(), "true");
        // The router answers another method on the same path.
        let other = call(&app, Request::get(&offer.path), &mut cookies).await;
        assert_eq!(other.status(), StatusCode::NOT_FOUND);
    });
}
