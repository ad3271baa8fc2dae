//! The same in an axum application, whose layer answers browsers before the router.

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::{Request, Response, StatusCode};
use hyper_session::cookie::CookieOptions;
use hyper_session::testing::{Cookies, FakeClock};
use hyper_session::{
    CookieStore, DeviceBound, Error, MemoryStore, Revocations, Session, SessionExt, SessionLayer,
};
use serde_json::Value;
use tower::ServiceExt;

use crate::browser::{IDENTIFIER, PROOF};
use crate::device::{Device, challenge, offer, offers};
use crate::site::{BOUND, GRACE, LIFETIME, START, block_on, key};

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

async fn text(response: Response<Body>) -> String {
    let bytes = axum::body::to_bytes(response.into_body(), 9_999).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// `/login` logs in to both sessions. Each page shows both.
async fn both_sessions(request: axum::extract::Request) -> Result<String, Error> {
    let mut shown = Vec::new();
    for name in ["outer", "inner"] {
        let session = request.session_named(name).await?;
        if request.uri().path() == "/login" {
            session.login("ada")?;
        }
        let user = session.subject();
        shown.push(format!(
            "{name} {} {}",
            user.as_deref().unwrap_or("stranger"),
            session.binding().is_bound()
        ));
    }
    Ok(shown.join(", "))
}

// Two stores, each with its own path.
#[test]
fn two_layers_bind_their_sessions_each() {
    let clock = FakeClock::at(START);
    let cookie = |name| CookieOptions::new().name(name);
    let outer = CookieStore::builder(key()).cookie(cookie("outer")).clock(clock.clone());
    let outer =
        outer.revocations(Revocations::in_memory()).device_bound(DeviceBound::new().path("/outer-device"));
    let inner = MemoryStore::builder().cookie(cookie("inner")).clock(clock.clone());
    let inner = inner.device_bound(DeviceBound::new().keys(key()));
    let app = Router::new()
        .fallback(both_sessions)
        .layer(SessionLayer::new(inner.build().unwrap()).device_bound(Body::from))
        .layer(SessionLayer::new(outer.build().unwrap()).device_bound(Body::from));
    block_on(async {
        let mut cookies = Cookies::new();
        let response = call(&app, Request::get("/login"), &mut cookies).await;
        let mut bindings = Vec::new();
        for offer in offers(response.headers()) {
            let device = Device::new();
            let request = Request::post(&offer.path).header(PROOF, device.registration(&offer.challenge));
            let response = call(&app, request, &mut cookies).await;
            assert_eq!(response.status(), StatusCode::OK, "{offer:?}");
            let instructions: Value = serde_json::from_str(&text(response).await).unwrap();
            let string = |name: &str| instructions[name].as_str().unwrap().to_owned();
            bindings.push((device, string("session_identifier"), string("refresh_url")));
        }
        assert_eq!(bindings.len(), 2);
        clock.advance(GRACE);
        for _ in 0..2 {
            let page = text(call(&app, Request::get("/"), &mut cookies).await).await;
            assert_eq!(page, "outer ada true, inner ada true");
            clock.advance(LIFETIME);
            let page = text(call(&app, Request::get("/"), &mut cookies).await).await;
            assert_eq!(page, "outer stranger false, inner stranger false");
            for (device, identifier, path) in &bindings {
                let ask = || Request::post(path).header(IDENTIFIER, identifier);
                let asked = call(&app, ask(), &mut cookies).await;
                assert_eq!(asked.status(), StatusCode::FORBIDDEN, "{path}");
                let proof = device.refresh(&challenge(asked.headers()));
                let proved = call(&app, ask().header(PROOF, proof), &mut cookies).await;
                assert_eq!(proved.status(), StatusCode::OK, "{path}");
            }
        }
        assert!(cookies.get("outer.bound").is_some() && cookies.get("inner.bound").is_some());
    });
}
