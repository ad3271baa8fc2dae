//! A browser that binds sessions to its device: the protocol's client, with a key of its own.

use std::time::{Duration, Instant};

use http::header::COOKIE;
use http::{Request, Response};
use hyper_session::testing::Cookies;
use serde_json::Value;

use crate::device::{Device, Offer, challenge, offer};
use crate::site::{Body, Site, text};

/// The instructions that the browser got at the registration.
#[derive(Clone, Debug)]
pub(crate) struct Bound {
    pub(crate) identifier: String,
    pub(crate) refresh_url: String,
}

/// A browser on one device.
pub(crate) struct Browser {
    pub(crate) device: Device,
    pub(crate) cookies: Cookies,
    pub(crate) bound: Option<Bound>,
}

impl Browser {
    pub(crate) fn new() -> Self {
        Self { device: Device::new(), cookies: Cookies::new(), bound: None }
    }

    pub(crate) async fn visit(&mut self, site: &Site, path: &str) -> Response<Body> {
        let response = site.call(with_cookies(Request::get(path), &self.cookies)).await;
        self.cookies.receive(response.headers());
        response
    }

    /// The text of a page.
    pub(crate) async fn read(&mut self, site: &Site, path: &str) -> String {
        text(self.visit(site, path).await).await
    }

    /// Returns true if this is a stranger to the site.
    ///
    /// A host knows the time of a revocation when it has read it in the log, moments later. The limit only tells "late" from
    /// "never".
    pub(crate) async fn is_stranger(&mut self, site: &Site) -> bool {
        let begin = Instant::now();
        loop {
            let page = self.read(site, "/").await;
            let waits = site.follows_a_log() && begin.elapsed() < Duration::from_secs(60);
            if page.starts_with("stranger") || !waits {
                return page.starts_with("stranger");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Logs in, and returns the offer of the response.
    pub(crate) async fn log_in(&mut self, site: &Site) -> Offer {
        offer(self.visit(site, "/login").await.headers()).expect("an offer")
    }

    /// Logs in, and binds the session.
    pub(crate) async fn bind(&mut self, site: &Site) {
        let offer = self.log_in(site).await;
        self.bind_by(site, &offer).await;
    }

    /// Binds the session, as this response offered.
    pub(crate) async fn bind_by(&mut self, site: &Site, offer: &Offer) {
        let response = self.register(site, offer).await;
        assert_eq!(response.status(), 200);
        self.obey(response).await;
    }

    /// Takes in the instructions of a response, which are the same after a registration and after a refresh.
    pub(crate) async fn obey(&mut self, response: Response<Body>) {
        let instructions: Value = serde_json::from_str(&text(response).await).unwrap();
        let string = |name: &str| instructions[name].as_str().unwrap().to_owned();
        self.bound =
            Some(Bound { identifier: string("session_identifier"), refresh_url: string("refresh_url") });
    }

    pub(crate) async fn register(&mut self, site: &Site, offer: &Offer) -> Response<Body> {
        let proof = self.device.registration(&offer.challenge);
        let response = post(site, &offer.path, &self.cookies, &[(PROOF, &proof)]).await;
        self.cookies.receive(response.headers());
        response
    }

    /// The first of the two requests of a refresh: its challenge.
    pub(crate) async fn ask(&self, site: &Site) -> Response<Body> {
        let bound = self.bound.as_ref().expect("a binding");
        post(site, &bound.refresh_url, &self.cookies, &[(IDENTIFIER, &bound.identifier)]).await
    }

    /// The second one.
    pub(crate) async fn prove(&mut self, site: &Site, proof: &str) -> Response<Body> {
        let Bound { identifier, refresh_url } = self.bound.clone().expect("a binding");
        let fields = [(IDENTIFIER, &*identifier), (PROOF, proof)];
        let response = post(site, &refresh_url, &self.cookies, &fields).await;
        self.cookies.receive(response.headers());
        response
    }

    /// Refreshes the bound cookie, and returns the status of the last response.
    pub(crate) async fn refresh(&mut self, site: &Site) -> u16 {
        let asked = self.ask(site).await;
        if asked.status() != 403 {
            return asked.status().as_u16();
        }
        let proof = self.device.refresh(&challenge(asked.headers()));
        self.prove(site, &proof).await.status().as_u16()
    }
}

pub(crate) const PROOF: &str = "secure-session-response";
pub(crate) const IDENTIFIER: &str = "sec-secure-session-id";

/// A request of the browser's network stack: no body, and all cookies.
pub(crate) async fn post(
    site: &Site,
    path: &str,
    cookies: &Cookies,
    fields: &[(&str, &str)],
) -> Response<Body> {
    let mut request = Request::post(path).header("sec-fetch-site", "same-origin");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    site.call(with_cookies(request, cookies)).await
}

pub(crate) fn with_cookies(request: http::request::Builder, cookies: &Cookies) -> Request<Body> {
    let mut request = request.body(Body::default()).unwrap();
    if let Some(cookies) = cookies.header() {
        request.headers_mut().insert(COOKIE, cookies);
    }
    request
}
