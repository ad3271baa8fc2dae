//! An application with sessions in Redis, and what must hold of it whatever Redis does.

use std::convert::Infallible;
use std::error::Error as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::header::{RETRY_AFTER, SET_COOKIE};
use http::{Request, Response, StatusCode};
use hyper::service::Service;
use hyper_session::store::redis::RedisOptions;
use hyper_session::store::{Backend, Builder};
use hyper_session::testing::Relay;
use hyper_session::{
    Error, FailureResponse, RedisStore, ServerStore, Session, SessionHandle, StatusOnly, session_fn,
};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::server::{PATIENCE, Server, unhurried};
use crate::support::{Body, Events, Jar, request, set_cookies, text};

/// The deadlines of a store that is to meet them. A busy machine may meet them as well, so such a store promises a test
/// failures, and successes only after some time ([`App::recovers`]).
const HURRIED: Duration = Duration::from_millis(400);

/// A request that would hang takes longer than this. A request that ends takes less, however busy the machine is.
pub(crate) const BOUND: Duration = PATIENCE;

/// A store whose deadlines are not met.
pub(crate) fn builder(url: impl Into<String>) -> Builder<RedisOptions> {
    unhurried(named(url))
}

/// A store whose deadlines are short enough for a test to wait for.
pub(crate) fn hurried(url: impl Into<String>) -> Builder<RedisOptions> {
    named(url).checkout_timeout(HURRIED).command_timeout(HURRIED)
}

fn named(url: impl Into<String>) -> Builder<RedisOptions> {
    RedisStore::builder(url).prefix("test").development()
}

/// A relay before the server, and its URL.
pub(crate) fn behind_relay(server: &Server) -> (Relay, String) {
    let relay = Relay::before(("127.0.0.1", server.port)).unwrap();
    let url = format!("redis://{}", relay.address());
    (relay, url)
}

/// The handlers of paths that begin with `/late` wait here with their session loaded, until they are let go.
pub(crate) struct Gate {
    pub(crate) arrived: Semaphore,
    pub(crate) go: Semaphore,
}

pub(crate) struct App<B = hyper_session::store::redis::Redis> {
    pub(crate) store: ServerStore<B>,
    pub(crate) events: Events,
    pub(crate) gate: Arc<Gate>,
    /// How many handlers came to their end.
    pub(crate) handled: Arc<AtomicU64>,
}

impl<B> Clone for App<B> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            events: self.events.clone(),
            gate: Arc::clone(&self.gate),
            handled: Arc::clone(&self.handled),
        }
    }
}

impl App {
    pub(crate) async fn connect(url: impl Into<String>) -> Self {
        Self::with(builder(url)).await
    }

    pub(crate) async fn with(builder: Builder<RedisOptions>) -> Self {
        let events = Events::new();
        Self::over(builder.observer(events.clone()).connect().await.unwrap(), events)
    }

    /// Over a [`hurried`] store.
    pub(crate) async fn hurried(url: &str) -> Self {
        Self::hurried_with(url, |builder| builder).await
    }

    /// Over a [`hurried`] store with more options.
    pub(crate) async fn hurried_with(
        url: &str,
        options: impl Fn(Builder<RedisOptions>) -> Builder<RedisOptions>,
    ) -> Self {
        Self::in_the_end(|| options(hurried(url))).await
    }

    /// Over a store with these options, whose deadlines a busy machine may miss while it connects: it tries again.
    pub(crate) async fn in_the_end(options: impl Fn() -> Builder<RedisOptions>) -> Self {
        let start = Instant::now();
        loop {
            let events = Events::new();
            match options().observer(events.clone()).connect().await {
                Ok(store) => return Self::over(store, events),
                Err(error) => assert!(start.elapsed() < PATIENCE, "it cannot connect: {error:?}"),
            }
        }
    }

    /// Until the pool has all its connections again, and Redis is taken for up.
    pub(crate) async fn is_whole(&self, connections: u32) {
        let mut jar = Jar::new();
        self.until("the pool is whole", async || {
            let _ = self.visit("/read", &mut jar.clone()).await;
            let _ = self.visit("/add", &mut jar).await;
            let stats = self.store.backend().stats();
            stats.up && stats.connections == connections && stats.idle_connections == connections
        })
        .await;
    }
}

impl<B: Backend> App<B> {
    pub(crate) fn over(store: ServerStore<B>, events: Events) -> Self {
        let gate = Arc::new(Gate { arrived: Semaphore::new(0), go: Semaphore::new(0) });
        Self { store, events, gate, handled: Arc::default() }
    }

    pub(crate) fn service(
        &self,
    ) -> impl Service<
        Request<Body>,
        Response = Response<Body>,
        Error = Infallible,
        Future: Future<Output = Result<Response<Body>, Infallible>> + Send,
    > {
        let (gate, handled) = (Arc::clone(&self.gate), Arc::clone(&self.handled));
        session_fn(self.store.clone(), move |request: Request<Body>, session: SessionHandle| {
            let (gate, handled) = (Arc::clone(&gate), Arc::clone(&handled));
            async move {
                let answer = match act(request.uri().path(), &session, &gate).await {
                    Ok(text) => Response::new(Body::from(text)),
                    // The load failed. The application answers as the hook does.
                    Err(error) => StatusOnly.response(&error),
                };
                handled.fetch_add(1, Ordering::SeqCst);
                Ok::<_, Infallible>(answer)
            }
        })
    }

    pub(crate) async fn visit(&self, path: &str, jar: &mut Jar) -> Response<Body> {
        let response = self.service().call(request(path, jar.header().as_deref())).await.unwrap();
        assert!(
            set_cookies(response.headers()).len() <= 1,
            "one Set-Cookie at most: {:?}",
            response.headers()
        );
        jar.store(response.headers());
        response
    }

    /// A visit that must succeed; the text of its answer.
    pub(crate) async fn ok(&self, path: &str, jar: &mut Jar) -> String {
        let response = self.visit(path, jar).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}: {:?}", self.events.take());
        text(response).await
    }

    /// A jar with a session that holds `n = 1`.
    pub(crate) async fn jar(&self) -> Jar {
        let mut jar = Jar::new();
        assert_eq!(self.ok("/add", &mut jar).await, "1");
        jar
    }

    /// A visit that must fail as a store that does not work fails: 503, try again, no word of the cookie.
    pub(crate) async fn fails(&self, path: &str, jar: &Jar) {
        let start = Instant::now();
        let response = self.service().call(request(path, jar.header().as_deref())).await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert_eq!(response.headers()[RETRY_AFTER], "1", "{path}");
        assert!(!response.headers().contains_key(SET_COOKIE), "{path}: {:?}", response.headers());
        assert!(start.elapsed() < BOUND, "{path} took {:?}", start.elapsed());
    }

    /// Fails closed: while the store is unavailable, a handler that asks for its session gets neither that session nor an empty
    /// one to write to, and the cookie stays. A handler that does not ask is served. Neither is it said that a subject has no
    /// sessions.
    pub(crate) async fn fails_closed(&self, jar: &Jar) {
        for path in ["/read", "/add", "/logout", "/regenerate", "/clear"] {
            self.fails(path, jar).await;
        }
        // A visitor without a cookie has no session to load, and the value that the handler sets cannot be kept.
        self.fails("/add", &Jar::new()).await;
        let listed = self.store.sessions_of("ada").await.unwrap_err();
        let ended = self.store.end_sessions_of("ada", None).await.unwrap_err();
        assert!(listed.is_unavailable() && ended.is_unavailable(), "{listed:?} {ended:?}");
        self.untouched(jar).await;
    }

    pub(crate) async fn untouched(&self, jar: &Jar) {
        for path in ["/untouched", "/nothing"] {
            let jar = if path == "/nothing" { &Jar::new() } else { jar };
            let response = self.service().call(request(path, jar.header().as_deref())).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK, "{path}");
            assert!(!response.headers().contains_key(SET_COOKIE), "{path}");
        }
    }

    /// Returns the source of the store's error, when a session is loaded and changed.
    pub(crate) async fn cause(&self, jar: &Jar) -> String {
        static FRESH: AtomicU64 = AtomicU64::new(0);
        let cause = Arc::new(Mutex::new(String::new()));
        let told = Arc::clone(&cause);
        let tell = move |error: &Error| *told.lock().unwrap() = error.source().unwrap().to_string();
        let handler = |_: Request<Body>, session: SessionHandle| async move {
            session.load().await?.set("tried", FRESH.fetch_add(1, Ordering::SeqCst))?;
            Ok::<_, Error>(Response::new(Body::default()))
        };
        let also_tell = tell.clone();
        let service = session_fn(self.store.clone(), handler).on_failure(move |error: &Error| {
            also_tell(error);
            StatusOnly.response(error)
        });
        if let Err(error) = service.call(request("/", jar.header().as_deref())).await {
            tell(&error);
        }
        cause.lock().unwrap().clone()
    }

    /// Until the store's error names this cause. On a busy machine it may name a deadline first.
    pub(crate) async fn names(&self, cause: &str, jar: &Jar) {
        self.until(cause, async || self.cause(jar).await.contains(cause)).await;
    }

    /// Until this visit succeeds: what it answers.
    pub(crate) async fn recovers(&self, path: &str, jar: &mut Jar) -> String {
        let start = Instant::now();
        loop {
            let response = self.visit(path, jar).await;
            if response.status() == StatusCode::OK {
                return text(response).await;
            }
            assert!(start.elapsed() < PATIENCE, "{path} does not recover: {:?}", self.cause(jar).await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Begins a request that loads its session and waits for the gate before it adds. Returns its status, whether it set a cookie, and
    /// the cookies afterwards.
    pub(crate) fn late_add(&self, jar: &Jar) -> JoinHandle<(StatusCode, bool, Jar)> {
        let (app, mut jar) = (self.clone(), jar.clone());
        tokio::spawn(async move {
            let response = app.visit("/late/add", &mut jar).await;
            (response.status(), response.headers().contains_key("set-cookie"), jar)
        })
    }

    pub(crate) async fn until(&self, what: &str, mut done: impl AsyncFnMut() -> bool) {
        let start = Instant::now();
        while !done().await {
            assert!(start.elapsed() < PATIENCE, "waited too long until {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn act(path: &str, handle: &SessionHandle, gate: &Gate) -> Result<String, Error> {
    if path == "/untouched" {
        return Ok("untouched".to_owned());
    }
    let session = handle.load().await?;
    let path = match path.strip_prefix("/late") {
        Some(path) => {
            gate.arrived.add_permits(1);
            gate.go.acquire().await.unwrap().forget();
            path
        }
        None => path,
    };
    let add = |session: &Session| session.update("n", |n: Option<u64>| n.unwrap_or(0) + 1);
    match path {
        "/nothing" => return Ok("nothing".to_owned()),
        "/read" => {}
        "/add" => {
            add(&session)?;
        }
        "/big" => session.set("big", "x".repeat(100_000))?,
        "/logout" => session.destroy()?,
        "/regenerate" => session.regenerate()?,
        "/clear" => session.clear()?,
        "/keys" => return Ok(session.keys().join(",")),
        "/take" => {
            let keys = session.keys();
            for key in keys.iter().filter(|key| key.starts_with('/')) {
                session.delete(key)?;
            }
            return Ok(keys.join(","));
        }
        path => match path.strip_prefix("/set/") {
            Some(key) => session.set(key, 1_u64)?,
            None => panic!("no such page: {path}"),
        },
    }
    let n: Option<u64> = session.get("n")?;
    Ok(n.map_or("none".to_owned(), |n| n.to_string()))
}
