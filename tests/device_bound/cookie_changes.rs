//! Deployments that change the name or the scope of the session's cookie while sessions are bound.

use std::sync::Arc;

use http::Request;
use http::header::{COOKIE, HeaderMap};
use hyper_session::cookie::CookieOptions;
use hyper_session::store::{Memory, Store};
use hyper_session::testing::FakeClock;
use hyper_session::{CookieStore, DeviceBound, Revocations, ServerStore};
use serde_json::Value;

use crate::browser::{Browser, IDENTIFIER, PROOF};
use crate::device::{Device, challenge, offer};
use crate::scoped;
use crate::site::{Body, Events, GRACE, LIFETIME, START, Site, block_on, key, observer, text};

/// The clock and the places of sessions that the deployments of one site share.
struct Deployed {
    clock: FakeClock,
    memory: Option<Arc<Memory>>,
    revocations: Revocations,
}

impl Deployed {
    /// One on a store of each kind.
    fn all() -> [Self; 2] {
        [None, Some(Arc::default())].map(|memory| Self {
            clock: FakeClock::at(START),
            memory,
            revocations: Revocations::in_memory(),
        })
    }

    fn with(&self, cookie: CookieOptions, options: DeviceBound) -> Site {
        let (clock, events) = (self.clock.clone(), Events::default());
        let (kind, store): (_, Arc<dyn Store>) = if let Some(memory) = &self.memory {
            let builder = ServerStore::with_backend(Arc::clone(memory)).cookie(cookie).clock(clock.clone());
            let builder = builder.observer(observer(&events)).device_bound(options.keys(key()));
            ("memory", Arc::new(builder.build().unwrap()))
        } else {
            let builder = CookieStore::builder(key()).revocations(self.revocations.clone()).cookie(cookie);
            let builder = builder.clock(clock.clone()).observer(observer(&events)).device_bound(options);
            ("cookies", Arc::new(builder.build().unwrap()))
        };
        Site { kind, store, clock, events, place: None }
    }

    /// Before and after the cookie is renamed.
    fn renamed(&self) -> [Site; 2] {
        let named = |cookie| self.with(cookie, DeviceBound::new());
        let new = CookieOptions::new().name("new");
        [named(CookieOptions::new().name("old")), named(new.retired_name("old"))]
    }
}

#[test]
fn a_session_that_was_bound_under_its_former_name_is_refreshed_and_logged_out() {
    for deployed in Deployed::all() {
        block_on(async {
            let [before, after] = deployed.renamed();
            let mut browser = Browser::new();
            browser.bind(&before).await;
            for _ in 0..2 {
                deployed.clock.advance(LIFETIME);
                assert_eq!(browser.read(&after, "/").await, "stranger lapsed 0", "{}", after.kind);
                assert_eq!(browser.refresh(&after).await, 200, "{}", after.kind);
                assert_eq!(browser.read(&after, "/").await, "ada bound 0", "{}", after.kind);
            }
            // The browser still has the previous bound cookie.
            assert!(browser.cookies.get("old.bound").is_some() && browser.cookies.get("new.bound").is_some());
            let copy = browser.cookies.clone();
            browser.visit(&after, "/logout").await;
            assert_eq!(browser.cookies.header(), None, "{}", after.kind);
            for site in [&before, &after] {
                let mut thief = Browser { cookies: copy.clone(), ..Browser::new() };
                assert!(thief.read(site, "/").await.starts_with("stranger"), "{}", site.kind);
            }
        });
    }
}

// A browser that has not refreshed since: only the previous cookies.
#[test]
fn a_logout_under_the_new_name_removes_the_bound_cookie_of_the_former_one() {
    for deployed in Deployed::all() {
        block_on(async {
            let [before, after] = deployed.renamed();
            let mut browser = Browser::new();
            browser.bind(&before).await;
            deployed.clock.advance(GRACE);
            assert_eq!(browser.read(&after, "/logout").await, "stranger unbound 0", "{}", after.kind);
            assert_eq!(browser.cookies.header(), None, "{}", after.kind);
        });
    }
}

// Its bound cookie has expired on its way, and the browser is about to refresh it.
#[test]
fn what_is_written_beside_a_session_that_lapsed_under_its_former_name_does_not_replace_it() {
    for deployed in Deployed::all() {
        block_on(async {
            let [before, after] = deployed.renamed();
            let mut browser = Browser::new();
            browser.bind(&before).await;
            deployed.clock.advance(LIFETIME);
            let kept = browser.cookies.header();
            assert_eq!(browser.read(&after, "/visit").await, "stranger lapsed 1", "{}", after.kind);
            assert_eq!(browser.cookies.header(), kept, "{}", after.kind);
            assert_eq!(browser.refresh(&after).await, 200, "{}", after.kind);
            assert_eq!(browser.read(&after, "/").await, "ada bound 0", "{}", after.kind);
        });
    }
}

// The response of the login came from a host with the former name, and the registration reaches one with the new name.
#[test]
fn a_registration_that_was_offered_under_the_former_name_binds() {
    for deployed in Deployed::all() {
        block_on(async {
            let [before, after] = deployed.renamed();
            let mut browser = Browser::new();
            let offered = browser.log_in(&before).await;
            browser.bind_by(&after, &offered).await;
            deployed.clock.advance(GRACE);
            assert_eq!(browser.read(&after, "/").await, "ada bound 0", "{}", after.kind);
        });
    }
}

/// A browser that keeps cookies by their scopes, with one binding.
struct Scoped {
    jar: scoped::Browser,
    device: Device,
    identifier: String,
    refresh_url: String,
}

impl Scoped {
    async fn send(&mut self, site: &Site, mut request: Request<Body>) -> http::Response<Body> {
        if let Some(cookies) = self.jar.header("example.com", request.uri().path(), false) {
            request.headers_mut().insert(COOKIE, cookies.parse().unwrap());
        }
        let response = site.call(request).await;
        self.jar.receive("example.com", response.headers());
        response
    }

    async fn get(&mut self, site: &Site, path: &str) -> (HeaderMap, String) {
        let response = self.send(site, Request::get(path).body(Body::default()).unwrap()).await;
        (response.headers().clone(), text(response).await)
    }

    /// Opens a page, and returns what it says about the binding.
    async fn binding(&mut self, site: &Site, path: &str) -> String {
        self.get(site, path).await.1.split(' ').nth(1).unwrap().to_owned()
    }

    /// Logs in under `/app`, and binds the session.
    async fn bound(site: &Site) -> Self {
        let (jar, device) = (scoped::Browser::default(), Device::new());
        let mut browser = Self { jar, device, identifier: String::new(), refresh_url: String::new() };
        let (headers, _) = browser.get(site, "/app/login").await;
        let offer = offer(&headers).unwrap();
        let proof = browser.device.registration(&offer.challenge);
        browser.post(site, &offer.path, &[(PROOF, &proof)]).await;
        browser
    }

    /// Sends what a browser sends to bind its session, and obeys.
    async fn post(&mut self, site: &Site, path: &str, fields: &[(&str, &str)]) {
        let mut request = Request::post(path);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let response = self.send(site, request.body(Body::default()).unwrap()).await;
        assert_eq!(response.status(), 200, "{} {path}", site.kind);
        let instructions: Value = serde_json::from_str(&text(response).await).unwrap();
        let string = |name: &str| instructions[name].as_str().unwrap().to_owned();
        (self.identifier, self.refresh_url) = (string("session_identifier"), string("refresh_url"));
    }

    async fn refresh(&mut self, site: &Site) {
        let (url, identifier) = (self.refresh_url.clone(), self.identifier.clone());
        let request = Request::post(&url).header(IDENTIFIER, &identifier).body(Body::default()).unwrap();
        let asked = self.send(site, request).await;
        assert_eq!(asked.status(), 403, "{} {url}", site.kind);
        let proof = self.device.refresh(&challenge(asked.headers()));
        self.post(site, &url, &[(IDENTIFIER, &identifier), (PROOF, &proof)]).await;
    }
}

// The guide: device_bound, "Deploying host by host".
#[test]
fn a_session_stays_bound_when_the_path_of_its_cookie_changes() {
    for deployed in Deployed::all() {
        block_on(async {
            let cookie = |path| CookieOptions::new().name("s").path(path);
            let within = || DeviceBound::new().path("/app/device-bound");
            let wide = deployed.with(cookie("/"), DeviceBound::new());
            let ready = deployed.with(cookie("/"), within().accept_path("/device-bound"));
            let narrow = deployed.with(cookie("/app").retired_path("/"), within());
            let wide_again = deployed.with(cookie("/").retired_path("/app"), within());

            let mut browser = Scoped::bound(&wide).await;
            deployed.clock.advance(LIFETIME);
            browser.refresh(&ready).await;
            // Host by host: while the new options are deployed, a request reaches either kind.
            for site in [&narrow, &ready, &narrow, &ready, &narrow, &wide_again] {
                // The session moves to the new scope, before its bound cookie does.
                assert_eq!(browser.binding(site, "/app/visit").await, "bound", "{}", site.kind);
                for _ in 0..2 {
                    deployed.clock.advance(LIFETIME);
                    assert_eq!(browser.binding(site, "/app/").await, "lapsed", "{}", site.kind);
                    browser.refresh(site).await;
                    assert_eq!(browser.binding(site, "/app/").await, "bound", "{}", site.kind);
                }
            }
            assert_eq!(browser.jar.names(), ["s.bound", "s.bound", "s"], "in two scopes");
            browser.get(&wide_again, "/app/logout").await;
            assert_eq!(browser.jar.names(), [""; 0], "{}", wide_again.kind);
        });
    }
}
