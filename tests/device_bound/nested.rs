//! Services inside of services: which service answers browsers, and which sessions are bound.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::Full;
use hyper::service::{Service, service_fn};
use hyper_session::cookie::CookieOptions;
use hyper_session::store::Store;
use hyper_session::testing::{Cookies, FakeClock};
use hyper_session::{
    AppKey, CookieStore, DeviceBound, Error, Event, EventKind, MemoryStore, Revocations, SessionExt,
    SessionService,
};
use serde_json::Value;

use crate::browser::{Bound, IDENTIFIER, PROOF, with_cookies};
use crate::device::{Device, Offer, challenge, offers};
use crate::site::{Body, GRACE, LIFETIME, START, block_on, key, text};

/// A service around another service.
struct Nested {
    outer: Arc<dyn Store>,
    inner: Arc<dyn Store>,
    /// Whether they answer browsers.
    answers: [bool; 2],
    clock: FakeClock,
    failures: Failures,
}

/// The texts of errors that handlers returned.
type Failures = Arc<Mutex<Vec<String>>>;

/// The options of the session with this name, on a store of each kind.
fn stores(name: &str, options: &DeviceBound, clock: &FakeClock, failures: &Failures) -> [Arc<dyn Store>; 2] {
    let observer = || {
        let failures = Arc::clone(failures);
        move |event: &Event<'_>| {
            if let EventKind::HandlerFailed { error, .. } = event.kind {
                failures.lock().unwrap().push(error.to_string());
            }
        }
    };
    let cookie = || CookieOptions::new().name(name);
    let in_cookies = CookieStore::builder(key()).revocations(Revocations::in_memory()).cookie(cookie());
    let in_memory = MemoryStore::builder().seal_records(key()).cookie(cookie());
    let in_cookies = in_cookies.clock(clock.clone()).observer(observer()).device_bound(options.clone());
    let in_memory = in_memory.clock(clock.clone()).observer(observer()).device_bound(options.clone());
    [Arc::new(in_cookies.build().unwrap()), Arc::new(in_memory.build().unwrap())]
}

impl Nested {
    /// Two sessions with these names and options, on stores of each kind.
    fn all(sessions: [(&str, DeviceBound); 2]) -> Vec<Self> {
        let (clock, failures) = (FakeClock::at(START), Failures::default());
        let [outer, inner] = sessions.map(|(name, options)| stores(name, &options, &clock, &failures));
        let nested = |(outer, inner)| {
            let (clock, failures) = (clock.clone(), Arc::clone(&failures));
            Self { outer, inner, answers: [true, true], clock, failures }
        };
        outer.into_iter().zip(inner).map(nested).collect()
    }

    async fn call(&self, request: Request<Body>) -> Response<Body> {
        let app = SessionService::new(service_fn(page), Arc::clone(&self.inner));
        let outer = Arc::clone(&self.outer);
        let response = match self.answers {
            [true, true] => {
                let inside = app.device_bound(Full::new);
                SessionService::new(inside, outer).device_bound(Full::new).call(request).await
            }
            [true, false] => SessionService::new(app, outer).device_bound(Full::new).call(request).await,
            [false, true] => SessionService::new(app.device_bound(Full::new), outer).call(request).await,
            [false, false] => SessionService::new(app, outer).call(request).await,
        };
        response.unwrap()
    }

    fn failures(&self) -> Vec<String> {
        std::mem::take(&mut self.failures.lock().unwrap())
    }
}

/// `/login/NAME/…` logs in to the sessions of these names, and `/logout/…` out. Each page shows all sessions of the request.
async fn page(request: Request<Body>) -> Result<Response<Body>, Error> {
    let mut shown = Vec::new();
    for name in ["outer", "inner"] {
        let session = match request.session_named(name).await {
            Err(error) if error.is_not_wrapped() => continue,
            session => session?,
        };
        let path = request.uri().path();
        if path.contains(name) && path.starts_with("/login") {
            session.login("ada")?;
        } else if path.contains(name) && path.starts_with("/logout") {
            session.destroy()?;
        }
        let binding = format!("{:?}", session.binding());
        let binding = binding.split([' ', '{']).next().unwrap_or_default().to_lowercase();
        let user = session.subject();
        shown.push(format!("{name} {} {binding}", user.as_deref().unwrap_or("stranger")));
    }
    Ok(Response::new(shown.join(", ").into()))
}

/// A browser with a key for each binding.
#[derive(Default)]
struct Browser {
    cookies: Cookies,
    bindings: Vec<(Device, Bound)>,
}

impl Browser {
    async fn send(&mut self, site: &Nested, request: http::request::Builder) -> Response<Body> {
        let response = site.call(with_cookies(request, &self.cookies)).await;
        self.cookies.receive(response.headers());
        response
    }

    /// Opens a page, and accepts what it offers. Returns its text.
    async fn visit(&mut self, site: &Nested, path: &str) -> String {
        let response = self.send(site, Request::get(path)).await;
        for offer in offers(response.headers()) {
            let (status, _) = self.register(site, &offer).await;
            assert_eq!(status, 200, "{offer:?}");
        }
        text(response).await
    }

    async fn register(&mut self, site: &Nested, offer: &Offer) -> (u16, String) {
        let device = Device::new();
        let proof = device.registration(&offer.challenge);
        let response = self.send(site, Request::post(&offer.path).header(PROOF, proof)).await;
        let (status, body) = (response.status().as_u16(), text(response).await);
        if status == 200 {
            let instructions: Value = serde_json::from_str(&body).unwrap();
            let string = |name: &str| instructions[name].as_str().unwrap().to_owned();
            let bound =
                Bound { identifier: string("session_identifier"), refresh_url: string("refresh_url") };
            self.bindings.push((device, bound));
        }
        (status, body)
    }

    /// Refreshes each binding.
    async fn refresh(&mut self, site: &Nested) {
        for (device, bound) in std::mem::take(&mut self.bindings) {
            let ask = || Request::post(&bound.refresh_url).header(IDENTIFIER, &bound.identifier);
            let asked = self.send(site, ask()).await;
            assert_eq!(asked.status(), 403, "{bound:?}");
            let proof = device.refresh(&challenge(asked.headers()));
            assert_eq!(self.send(site, ask().header(PROOF, proof)).await.status(), 200, "{bound:?}");
            self.bindings.push((device, bound));
        }
    }

    /// Comes by a link of another site.
    async fn follow_link(&mut self, site: &Nested) -> Response<Body> {
        let fields = [("sec-fetch-mode", "navigate"), ("sec-fetch-site", "cross-site")];
        let request =
            fields.into_iter().fold(Request::get("/"), |request, (name, value)| request.header(name, value));
        self.send(site, request).await
    }

    fn remove(&mut self, name: &str) {
        let line = format!("{name}=; Max-Age=0").parse().unwrap();
        self.cookies.receive(&[(http::header::SET_COOKIE, line)].into_iter().collect());
    }
}

fn under_two_paths() -> [(&'static str, DeviceBound); 2] {
    [("outer", DeviceBound::new().path("/outer-device")), ("inner", DeviceBound::new())]
}

#[test]
fn sessions_of_two_names_are_bound_each() {
    for site in Nested::all(under_two_paths()) {
        block_on(async {
            let mut browser = Browser::default();
            assert_eq!(
                browser.visit(&site, "/login/outer/inner").await,
                "outer ada unbound, inner ada unbound"
            );
            let urls: Vec<_> = browser.bindings.iter().map(|(_, bound)| &*bound.refresh_url).collect();
            assert_eq!(urls, ["/device-bound/refresh", "/outer-device/refresh"], "both were offered");
            site.clock.advance(GRACE);
            assert_eq!(browser.visit(&site, "/").await, "outer ada bound, inner ada bound");

            // Each needs its own bound cookie.
            let mut thief = Browser { cookies: browser.cookies.clone(), ..Browser::default() };
            thief.remove("outer.bound");
            assert_eq!(thief.visit(&site, "/").await, "outer stranger lapsed, inner ada bound");
            let mut thief = Browser { cookies: browser.cookies.clone(), ..Browser::default() };
            thief.remove("inner.bound");
            assert_eq!(thief.visit(&site, "/").await, "outer ada bound, inner stranger lapsed");

            for _ in 0..3 {
                site.clock.advance(LIFETIME);
                assert_eq!(browser.visit(&site, "/").await, "outer stranger lapsed, inner stranger lapsed");
                browser.refresh(&site).await;
                assert_eq!(browser.visit(&site, "/").await, "outer ada bound, inner ada bound");
            }
            assert_eq!(
                browser.visit(&site, "/logout/inner").await,
                "outer ada bound, inner stranger unbound"
            );
            assert!(
                browser.cookies.get("outer.bound").is_some() && browser.cookies.get("inner.bound").is_none()
            );
            assert_eq!(site.failures(), [""; 0]);
        });
    }
}

#[test]
fn a_link_leads_to_the_page_of_each_session_that_lapsed() {
    for site in Nested::all(under_two_paths()) {
        block_on(async {
            let mut browser = Browser::default();
            browser.visit(&site, "/login/outer/inner").await;
            site.clock.advance(LIFETIME);
            browser.remove("outer.bound");
            browser.remove("inner.bound");
            let copy = browser.cookies.clone();
            // The browser refreshes both for the image of the outer one.
            let page = text(browser.follow_link(&site).await).await;
            assert!(page.contains("\"/outer-device/present\""), "{page}");
            browser.refresh(&site).await;
            assert_eq!(browser.send(&site, Request::get("/outer-device/present")).await.status(), 204);
            let page = text(browser.follow_link(&site).await).await;
            assert_eq!(page, "outer ada bound, inner ada bound");

            // Neither: each asks once.
            let mut browser = Browser { cookies: copy, ..Browser::default() };
            for path in ["/outer-device/present", "/device-bound/present"] {
                let page = text(browser.follow_link(&site).await).await;
                assert!(page.contains(&format!("\"{path}\"")), "{page}");
                assert_eq!(browser.send(&site, Request::get(path)).await.status(), 204);
            }
            let page = text(browser.follow_link(&site).await).await;
            assert_eq!(page, "outer stranger lapsed, inner stranger lapsed");
        });
    }
}

// The outer service would refuse the registrations of the inner session, and end its bindings.
#[test]
fn services_under_one_path_are_an_error_of_each_request() {
    let [one, two] = ["/one", "/two"].map(|path| DeviceBound::new().path(path));
    for options in [
        [DeviceBound::new(), DeviceBound::new()],
        [one.clone(), two.clone().accept_path("/one")],
        [one.accept_path("/two"), two],
    ] {
        let [outer, inner] = options;
        for mut site in Nested::all([("outer", outer), ("inner", inner)]) {
            block_on(async {
                for path in ["/", "/login/inner"] {
                    let response = Browser::default().send(&site, Request::get(path)).await;
                    assert_eq!(response.status(), 500);
                    assert!(!response.headers().contains_key("set-cookie"));
                    let failures = site.failures();
                    assert_eq!(failures.len(), 1, "{failures:?}");
                    for part in ["cookie outer", "that of inner", "DeviceBound::path()"] {
                        assert!(failures[0].contains(part), "{failures:?}");
                    }
                }
                // A service that answers no browser is not in the way, and binds nothing.
                for answers in [[true, false], [false, true]] {
                    site.answers = answers;
                    let mut browser = Browser::default();
                    browser.visit(&site, "/login/outer/inner").await;
                    let bound = answers.map(|bound| if bound { "bound" } else { "unbound" });
                    let expected = format!("outer ada {}, inner ada {}", bound[0], bound[1]);
                    assert_eq!(browser.visit(&site, "/").await, expected);
                    assert_eq!(site.failures(), [""; 0]);
                }
            });
        }
    }
}

// Each would replace the other in the browser.
#[test]
fn a_service_whose_session_is_in_the_bound_cookie_of_another_one_is_an_error_of_each_request() {
    for names in [["s", "s.bound"], ["s.bound", "s"], ["s", "s.retry"]] {
        let options = ["/one", "/two"].map(|path| DeviceBound::new().path(path));
        let [one, two] = options;
        for site in Nested::all([(names[0], one), (names[1], two)]) {
            block_on(async {
                let response = Browser::default().send(&site, Request::get("/")).await;
                assert_eq!(response.status(), 500);
                let failures = site.failures();
                assert_eq!(failures.len(), 1, "{failures:?}");
                let longer = names.into_iter().max_by_key(|name| name.len()).unwrap();
                assert!(failures[0].contains(&format!("named {longer},")), "{failures:?}");
            });
        }
    }
}

// One session, which the outer service saves. It is offered if either of the two answers.
#[test]
fn one_store_twice_is_one_session_that_is_bound_once() {
    let both = || [("inner", DeviceBound::new()), ("inner", DeviceBound::new())];
    for answers in [[true, true], [true, false], [false, true], [false, false]] {
        for mut site in Nested::all(both()) {
            site.outer = Arc::clone(&site.inner);
            site.answers = answers;
            block_on(async {
                let mut browser = Browser::default();
                browser.visit(&site, "/login/inner").await;
                let is_bound = answers != [false, false];
                assert_eq!(browser.bindings.len(), usize::from(is_bound), "{answers:?}");
                let page = if is_bound { "inner ada bound" } else { "inner ada unbound" };
                assert_eq!(browser.visit(&site, "/").await, page, "{answers:?}");
                site.clock.advance(LIFETIME);
                browser.refresh(&site).await;
                assert_eq!(browser.visit(&site, "/").await, page, "{answers:?}");
            });
        }
    }
}

// Two stores with the same options are like two hosts: the outer service answers for both.
#[test]
fn two_stores_that_keep_one_session_are_answered_by_the_outer_service() {
    let (clock, failures) = (FakeClock::at(START), Failures::default());
    let revocations = Revocations::in_memory();
    let store = |key: AppKey| -> Arc<dyn Store> {
        let builder = CookieStore::builder(key).cookie(CookieOptions::new().name("inner"));
        let builder = builder.revocations(revocations.clone()).clock(clock.clone());
        Arc::new(builder.device_bound(DeviceBound::new()).build().unwrap())
    };
    let site = Nested {
        outer: store(key()),
        inner: store(key()),
        answers: [true, true],
        clock: clock.clone(),
        failures,
    };
    block_on(async {
        let mut browser = Browser::default();
        assert_eq!(browser.visit(&site, "/login/inner").await, "inner ada unbound");
        clock.advance(GRACE);
        assert_eq!(browser.visit(&site, "/").await, "inner ada bound");
        clock.advance(LIFETIME);
        browser.refresh(&site).await;
        clock.advance(Duration::from_secs(1));
        assert_eq!(browser.visit(&site, "/").await, "inner ada bound");
    });
}
