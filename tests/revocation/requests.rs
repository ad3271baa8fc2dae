//! A site with revocable cookie sessions, and the requests of its browsers, whose handlers are closures.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::header::COOKIE;
use http::{Request, Response};
use hyper::service::Service;
use hyper_session::__internals::Verbs;
use hyper_session::store::{Builder, CookieKeys};
use hyper_session::testing::{Cookies, FakeClock};
use hyper_session::{
    AppKey, Clock, CookieStore, Error, Event, EventKind, Refusal, Revocations, Session, SessionHandle,
    session_fn,
};

pub(crate) const NAME: &str = "__Host-session";
pub(crate) const START: u64 = 1_000_000_000;

/// Waits for another process or thread.
pub(crate) async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !done().await {
        assert!(start.elapsed() < Duration::from_secs(120), "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// One process of a site.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) store: CookieStore,
    pub(crate) clock: FakeClock,
    changes: Arc<Mutex<Vec<&'static str>>>,
}

impl Site {
    pub(crate) fn in_memory() -> Self {
        Self::with(Revocations::in_memory())
    }

    pub(crate) fn with(revocations: Revocations) -> Self {
        Self::built(FakeClock::at(START), |builder| builder.revocations(revocations))
    }

    pub(crate) fn built(
        clock: FakeClock,
        options: impl FnOnce(Builder<CookieKeys>) -> Builder<CookieKeys>,
    ) -> Self {
        let changes = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&changes);
        let observer = move |event: &Event<'_>| {
            if let EventKind::Revocations { change, .. } = event.kind {
                seen.lock().unwrap().push(change.as_str());
            }
        };
        let builder = CookieStore::builder(AppKey::danger_from_any_bytes(b"a key for tests").unwrap());
        let store = options(builder.clock(clock.clone()).observer(observer)).build().unwrap();
        Self { store, clock, changes }
    }

    /// Takes the changes of the revocations since the last call.
    pub(crate) fn changes(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.changes.lock().unwrap())
    }

    pub(crate) fn revoked(&self) -> usize {
        self.store.revocations().map_or(0, Revocations::len)
    }

    /// A request of the browser with these cookies, whose handler is `deed`.
    pub(crate) async fn visit<D, F>(&self, cookies: &mut Cookies, deed: D) -> Response<()>
    where
        D: Fn(Session) -> F,
        F: Future<Output = Result<(), Error>>,
    {
        let response = self.answer(cookies, deed).await;
        cookies.receive(response.headers());
        response
    }

    /// As `visit`, of a browser that has not received the response yet.
    pub(crate) async fn answer<D, F>(&self, cookies: &Cookies, deed: D) -> Response<()>
    where
        D: Fn(Session) -> F,
        F: Future<Output = Result<(), Error>>,
    {
        let deed = &deed;
        let service = session_fn(self.store.clone(), |_: Request<()>, handle: SessionHandle| async move {
            deed(handle.load().await?).await?;
            Ok::<_, Error>(Response::new(()))
        });
        let mut request = Request::new(());
        request.headers_mut().extend(cookies.header().map(|cookies| (COOKIE, cookies)));
        service.call(request).await.unwrap_or_else(|error| {
            let status = if error.is_unavailable() { 503 } else { 500 };
            Response::builder().status(status).body(()).unwrap()
        })
    }

    pub(crate) async fn login(&self, cookies: &mut Cookies, user: &str) {
        let response = self.visit(cookies, |session| async move { session.login(user) }).await;
        assert_eq!(response.status(), 200);
    }

    pub(crate) async fn logged_in(&self, user: &str) -> Cookies {
        let mut cookies = Cookies::new();
        self.login(&mut cookies, user).await;
        cookies
    }

    /// In one request, as after a reset of a password.
    pub(crate) async fn end_all_and_log_in(&self, cookies: &mut Cookies, user: &str) {
        let deed = async |session: Session| {
            self.store.end_sessions_of(user).await?;
            session.login(user)
        };
        let response = self.visit(cookies, deed).await;
        assert_eq!(response.status(), 200);
    }

    pub(crate) async fn set(&self, cookies: &mut Cookies, key: &'static str) -> Response<()> {
        self.visit(cookies, |session| async move { session.set(key, 1) }).await
    }

    pub(crate) async fn regenerate(&self, cookies: &mut Cookies) {
        let response = self.visit(cookies, |session| async move { session.regenerate() }).await;
        assert_eq!(response.status(), 200);
    }

    pub(crate) async fn end_others(&self, cookies: &mut Cookies) -> Response<()> {
        self.visit(cookies, |session| async move { session.end_other_sessions().await.map(drop) }).await
    }

    pub(crate) async fn logout(&self, cookies: &mut Cookies) {
        let response = self.visit(cookies, |session| async move { session.destroy() }).await;
        assert_eq!(response.status(), 200);
        assert!(cookies.header().is_none(), "the cookie is removed");
    }

    /// The user that these cookies log in.
    pub(crate) async fn user(&self, cookies: &Cookies) -> Option<String> {
        let user = Mutex::new(None);
        self.answer(cookies, |session| {
            *user.lock().unwrap() = session.subject().map(|subject| subject.to_string());
            async { Ok(()) }
        })
        .await;
        user.into_inner().unwrap()
    }

    /// Why the store refuses these cookies; `None` if it does not.
    pub(crate) async fn refusal(&self, cookies: &Cookies) -> Option<Refusal> {
        let token = cookies.get(NAME).expect("a cookie");
        self.store.load(token, self.clock.now()).await.expect("the store is available").err()
    }

    pub(crate) async fn accepts(&self, cookies: &Cookies) -> bool {
        self.refusal(cookies).await.is_none()
    }
}
