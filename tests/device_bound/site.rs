//! A site whose sessions are bound to devices, on each kind of store.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::service::Service;
use hyper_session::store::{Builder, CookieKeys, Store};
use hyper_session::testing::FakeClock;
use hyper_session::{
    AppKey, CookieStore, DeviceBound, Error, Event, EventKind, MemoryStore, Revocations, SessionHandle,
    session_fn,
};

pub(crate) type Body = Full<Bytes>;

pub(crate) const START: u64 = 1_800_000_000;
pub(crate) const NAME: &str = "__Host-session";
pub(crate) const BOUND: &str = "__Host-session.bound";
/// The lifetime of the bound cookie.
pub(crate) const LIFETIME: Duration = Duration::from_secs(600);
/// The time in which a session counts without its bound cookie, and an old token beside the new one.
pub(crate) const GRACE: Duration = Duration::from_secs(60);

/// One process of a site.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) kind: &'static str,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: FakeClock,
    pub(crate) events: Arc<Mutex<Vec<String>>>,
}

pub(crate) fn key() -> AppKey {
    AppKey::danger_from_any_bytes(b"a key for tests").unwrap()
}

impl Site {
    /// The site on a cookie store with revocations, and on a server-side store.
    pub(crate) fn all() -> [Self; 2] {
        [Self::on_cookies(), Self::on_memory()]
    }

    pub(crate) fn on_cookies() -> Self {
        Self::on_cookies_with(FakeClock::at(START), |builder| builder.revocations(Revocations::in_memory()))
    }

    pub(crate) fn on_cookies_with(
        clock: FakeClock,
        options: impl FnOnce(Builder<CookieKeys>) -> Builder<CookieKeys>,
    ) -> Self {
        let events = Arc::default();
        let builder = CookieStore::builder(key()).clock(clock.clone()).observer(observer(&events));
        let store = options(builder.device_bound(DeviceBound::new())).build().unwrap();
        Self { kind: "cookies", store: Arc::new(store), clock, events }
    }

    pub(crate) fn on_memory() -> Self {
        let (clock, events) = (FakeClock::at(START), Arc::default());
        let builder = MemoryStore::builder().clock(clock.clone()).observer(observer(&events));
        let store = builder.device_bound(DeviceBound::new().keys(key())).build().unwrap();
        Self { kind: "memory", store: Arc::new(store), clock, events }
    }

    /// The events about devices since the last call.
    pub(crate) fn events(&self) -> Vec<String> {
        std::mem::take(&mut self.events.lock().unwrap())
    }

    pub(crate) async fn call(&self, request: Request<Body>) -> Response<Body> {
        let service = session_fn(Arc::clone(&self.store), handler).device_bound(Full::new);
        service.call(request).await.unwrap()
    }
}

fn observer(events: &Arc<Mutex<Vec<String>>>) -> impl Fn(&Event<'_>) + Send + Sync + 'static {
    let events = Arc::clone(events);
    move |event| {
        let line = match event.kind {
            EventKind::DeviceBound { from, id, .. } if from == id => "bound".to_owned(),
            EventKind::DeviceBound { .. } => "bound:new_id".to_owned(),
            EventKind::DeviceProved { .. } => "proved".to_owned(),
            EventKind::DeviceProofRefused { refusal, .. } => format!("refused:{}", refusal.as_str()),
            EventKind::BindingLapsed { .. } => "lapsed".to_owned(),
            EventKind::Refused { refusal, .. } => format!("cookie:{refusal}"),
            EventKind::ChangesDropped { reason, .. } => format!("dropped:{}", reason.as_str()),
            EventKind::Destroyed { .. } => "destroyed".to_owned(),
            _ => return,
        };
        events.lock().unwrap().push(line);
    }
}

async fn handler(request: Request<Body>, handle: SessionHandle) -> Result<Response<Body>, Error> {
    let path = request.uri().path();
    if path == "/ping" {
        return Ok(Response::new("pong".into()));
    }
    let session = handle.load().await?;
    match path {
        "/login" => session.login("ada")?,
        "/login-bob" => session.login("bob")?,
        "/logout" => session.destroy()?,
        "/regenerate" => session.regenerate()?,
        "/reauthenticate" => session.reauthenticate()?,
        "/visit" => {
            session.update("visits", |old: Option<u64>| old.unwrap_or(0) + 1)?;
        }
        "/fail" => {
            session.login("ada")?;
            return Err(Error::unavailable("as the test wants"));
        }
        _ => {}
    }
    let (subject, visits) = (session.subject(), session.get::<u64>("visits")?.unwrap_or(0));
    let binding = format!("{:?}", session.binding());
    let binding = binding.split([' ', '{']).next().unwrap_or_default().to_lowercase();
    let page = format!("{} {binding} {visits}", subject.as_deref().unwrap_or("stranger"));
    Ok(Response::new(page.into()))
}

pub(crate) async fn text(response: Response<Body>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
