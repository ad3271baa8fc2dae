//! A site whose sessions are bound to devices, on each kind of store.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::service::Service;
use hyper_session::store::{Backend, Builder, CookieKeys, Store};
use hyper_session::testing::FakeClock;
use hyper_session::{
    AppKey, Clock, CookieStore, DeviceBound, Error, Event, EventKind, Operation, Revocations, ServerStore,
    SessionHandle, SystemClock, Timestamp, session_fn,
};
use tokio::runtime::Runtime;

use crate::store_kinds::SharedStorage;

pub(crate) type Body = Full<Bytes>;

pub(crate) const START: u64 = 1_800_000_000;
pub(crate) const NAME: &str = "__Host-session";
pub(crate) const BOUND: &str = "__Host-session.bound";
/// The lifetime of the bound cookie.
pub(crate) const LIFETIME: Duration = Duration::from_secs(600);
/// The time in which a session counts without its bound cookie, and an old token beside the new one.
pub(crate) const GRACE: Duration = Duration::from_secs(60);

/// The events about devices, a line each.
pub(crate) type Events = Arc<Mutex<Vec<String>>>;

/// One process of a site.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) kind: &'static str,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: FakeClock,
    pub(crate) events: Events,
    /// `None` if no other host has what it keeps.
    pub(crate) place: Option<SharedStorage>,
}

pub(crate) fn key() -> AppKey {
    AppKey::danger_from_any_bytes(b"a key for tests").unwrap()
}

impl Site {
    /// The site on each kind of store. Those on cookie stores have revocations.
    pub(crate) fn all() -> Vec<Self> {
        let site =
            |place: SharedStorage| block_on(place.host(&SharedStorage::clock(), Some(DeviceBound::new())));
        SharedStorage::all().into_iter().map(site).collect()
    }

    pub(crate) fn on_cookies() -> Self {
        Self::on_cookies_with(FakeClock::at(START), |builder| builder.revocations(Revocations::in_memory()))
    }

    pub(crate) fn on_cookies_with(
        clock: FakeClock,
        options: impl FnOnce(Builder<CookieKeys>) -> Builder<CookieKeys>,
    ) -> Self {
        let events = Events::default();
        let builder = CookieStore::builder(key()).clock(clock.clone()).observer(observer(&events));
        let store = options(builder.device_bound(DeviceBound::new())).build().unwrap();
        Self { kind: "cookies", store: Arc::new(store), clock, events, place: None }
    }

    /// The site on this backend.
    pub(crate) fn on_backend(backend: impl Backend) -> Self {
        let (clock, events) = (FakeClock::at(START), Events::default());
        let builder = ServerStore::with_backend(backend).clock(clock.clone()).observer(observer(&events));
        let store = builder.device_bound(DeviceBound::new().keys(key())).build().unwrap();
        Self { kind: "a backend", store: Arc::new(store), clock, events, place: None }
    }

    /// Returns true if the sessions are in the cookies.
    pub(crate) fn is_in_cookies(&self) -> bool {
        self.kind.starts_with("cookies")
    }

    /// Returns true if the revocations are in a log, which has a clock of its own and is read by a task.
    pub(crate) fn follows_a_log(&self) -> bool {
        self.kind.starts_with("cookies, ")
    }

    /// Moves the clock to the end of the grace of a registration at `since`.
    pub(crate) fn end_grace(&self, since: Timestamp) {
        // The time of a revocation is that of the log, whose clock did not stand still meanwhile.
        let latest = if self.follows_a_log() { since.max(SystemClock.now()) } else { since };
        self.clock.set(latest.saturating_add(GRACE).as_unix());
    }

    /// Another process of the site, with the same options and the same clock.
    pub(crate) async fn another_host(&self) -> Self {
        let place = self.place.as_ref().expect("a place that hosts share");
        place.host(&self.clock, Some(DeviceBound::new())).await
    }

    /// The events about devices since the last call.
    pub(crate) fn events(&self) -> Vec<String> {
        std::mem::take(&mut self.events.lock().unwrap())
    }

    /// Answers the request as the first one of a connection.
    pub(crate) async fn call(&self, request: Request<Body>) -> Response<Body> {
        self.connection().call(request).await.unwrap()
    }

    /// The service of one connection.
    pub(crate) fn connection(
        &self,
    ) -> impl Service<Request<Body>, Response = Response<Body>, Error = Error, Future: Send> + use<> {
        session_fn(Arc::clone(&self.store), handler).device_bound(Full::new)
    }
}

pub(crate) fn observer(events: &Events) -> impl Fn(&Event<'_>) + Send + Sync + 'static {
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
            EventKind::StoreFailed { operation: Operation::Load, .. } => "load_failed".to_owned(),
            _ => return,
        };
        events.lock().unwrap().push(line);
    }
}

async fn handler(request: Request<Body>, handle: SessionHandle) -> Result<Response<Body>, Error> {
    let path = request.uri().path();
    // As an application answers what it does not know.
    if request.method() == Method::POST && (path.ends_with("/register") || path.ends_with("/refresh")) {
        return Ok(Response::builder().status(404).body(Body::default()).unwrap_or_default());
    }
    if path == "/ping" {
        return Ok(Response::new("pong".into()));
    }
    let session = handle.load().await?;
    match path.strip_prefix("/app").unwrap_or(path) {
        "/form" => return Ok(Response::new(session.csrf_token()?.into())),
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
        path => {
            if let Some(token) = path.strip_prefix("/submit/") {
                session.verify_csrf(token)?;
                session.login("ada")?;
            }
        }
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

/// Runs a future. The tasks that it starts, such as those of connections, go on after it.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    });
    runtime.block_on(future)
}
