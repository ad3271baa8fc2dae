//! A store over a backend that records its calls, behind either form of the adapter, with what to assert.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, HeaderName, HeaderValue, VARY};
use http::{HeaderMap, Request, Response};
use hyper::service::{Service, service_fn};
use hyper_session::cookie::CookieOptions;
use hyper_session::store::{Backend, Builder, EntryId, Memory, Replaced, Store, Stored};
use hyper_session::testing::FakeClock;
use hyper_session::{
    AppKey, Clock, CookieStore, Error, ServerStore, Session, SessionExt, SessionHandle, SessionId,
    SessionService, Timestamp, session_fn,
};
use tokio::sync::watch;

use crate::support::{Answer, Body, Events, Jar, block_on, is_session, request, set_cookies, status};

/// An action of a handler on its session.
pub(crate) type Act = fn(&Session) -> Result<(), Error>;

pub(crate) const START: u64 = 1_700_000_000;
pub(crate) const IDLE: Duration = Duration::from_secs(1_000);
pub(crate) const ABSOLUTE: Duration = Duration::from_secs(5_000);
pub(crate) const RENEWAL: Duration = Duration::from_secs(100);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verb {
    Fetch,
    Create,
    Replace,
    Touch,
    Delete,
}

/// A backend in memory that writes down what it is asked, fails when told to, and waits when told to.
pub(crate) struct Spy {
    memory: Memory,
    /// The only clock that `memory` knows. It stands still, so that `memory` frees nothing: without a clock, `create` frees
    /// what expired in its shard, and which shard that is depends on random ids.
    _still: Arc<dyn Clock>,
    calls: Mutex<Vec<(Verb, EntryId)>>,
    ids: Mutex<BTreeSet<EntryId>>,
    pub(crate) failing: Mutex<Vec<Verb>>,
    pub(crate) gate: watch::Sender<Gate>,
}

/// Where calls of a verb wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    Open,
    Before(Verb),
    After(Verb),
}

impl Spy {
    fn new() -> Self {
        let (memory, still) = (Memory::new(), Arc::new(FakeClock::at(0)) as Arc<dyn Clock>);
        memory.__use_clock(&still);
        Self {
            memory,
            _still: still,
            calls: Mutex::default(),
            ids: Mutex::default(),
            failing: Mutex::default(),
            gate: watch::channel(Gate::Open).0,
        }
    }

    async fn step<T>(
        &self,
        verb: Verb,
        id: EntryId,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        self.calls.lock().unwrap().push((verb, id));
        self.ids.lock().unwrap().insert(id);
        self.pass(Gate::Before(verb)).await;
        if self.failing.lock().unwrap().contains(&verb) {
            return Err(Error::unavailable("the spy was told to fail"));
        }
        let result = work.await;
        self.pass(Gate::After(verb)).await;
        result
    }

    async fn pass(&self, here: Gate) {
        self.gate.subscribe().wait_for(|gate| *gate != here).await.unwrap();
    }
}

impl Backend for Spy {
    async fn fetch(&self, id: EntryId, now: Timestamp) -> Result<Option<Stored>, Error> {
        self.step(Verb::Fetch, id, self.memory.fetch(id, now)).await
    }

    async fn create(&self, id: EntryId, entry: Stored, now: Timestamp) -> Result<bool, Error> {
        self.step(Verb::Create, id, self.memory.create(id, entry, now)).await
    }

    async fn replace(
        &self,
        id: EntryId,
        expected: Bytes,
        entry: Option<Stored>,
        now: Timestamp,
    ) -> Result<Replaced, Error> {
        self.step(Verb::Replace, id, self.memory.replace(id, expected, entry, now)).await
    }

    async fn touch(&self, id: EntryId, expires: Timestamp, now: Timestamp) -> Result<bool, Error> {
        self.step(Verb::Touch, id, self.memory.touch(id, expires, now)).await
    }

    async fn delete(&self, id: EntryId) -> Result<(), Error> {
        self.step(Verb::Delete, id, self.memory.delete(id)).await
    }
}

/// The options of a test's store.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) cookie: CookieOptions,
    pub(crate) keep_values: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self { cookie: CookieOptions::new().name("__Host-s"), keep_values: false }
    }
}

impl Setup {
    fn apply<K>(&self, builder: Builder<K>, clock: &FakeClock, events: &Events) -> Builder<K> {
        builder
            .cookie(self.cookie.clone())
            .keep_values_on_server_error(self.keep_values)
            .idle_timeout(IDLE)
            .absolute_timeout(ABSOLUTE)
            .renewal_threshold(RENEWAL)
            .clock(clock.clone())
            .observer(events.clone())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Cookie,
    Server,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `SessionService` and `req.session()`.
    Service,
    /// `session_fn` and `SessionHandle`.
    Function,
}

#[derive(Clone)]
pub(crate) struct World {
    pub(crate) store: Arc<dyn Store>,
    /// The backend, if there is one.
    pub(crate) server: Option<ServerStore<Arc<Spy>>>,
    pub(crate) form: Form,
    pub(crate) clock: FakeClock,
    pub(crate) events: Events,
}

/// The argument of a handler, in either form.
pub(crate) enum Ask {
    Request(Request<Body>),
    Handle(SessionHandle),
}

impl Ask {
    pub(crate) async fn session(&self) -> Result<Session, Error> {
        match self {
            Self::Request(request) => request.session().await,
            Self::Handle(handle) => handle.load().await,
        }
    }
}

type Responding = Pin<Box<dyn Future<Output = Answer> + Send>>;

impl World {
    pub(crate) fn new(kind: Kind, form: Form, setup: &Setup) -> Self {
        let (clock, events) = (FakeClock::at(START), Events::new());
        let (store, server): (Arc<dyn Store>, _) = match kind {
            Kind::Cookie => {
                let builder = CookieStore::builder(AppKey::generate().unwrap());
                (Arc::new(setup.apply(builder, &clock, &events).build().unwrap()), None)
            }
            Kind::Server => {
                let builder = ServerStore::with_backend(Arc::new(Spy::new()));
                let store = setup.apply(builder, &clock, &events).build().unwrap();
                (Arc::new(store.clone()), Some(store))
            }
        };
        Self { store, server, form, clock, events }
    }

    pub(crate) fn name(&self) -> &str {
        self.store.config().cookie_name()
    }

    fn spy(&self) -> &Spy {
        self.server.as_ref().expect("a server-side store").backend()
    }

    /// The verbs that the backend was asked since the last call; none on a cookie store.
    pub(crate) fn calls(&self) -> Vec<Verb> {
        let Some(server) = &self.server else {
            return Vec::new();
        };
        std::mem::take(&mut *server.backend().calls.lock().unwrap())
            .into_iter()
            .map(|(verb, _)| verb)
            .collect()
    }

    /// How many sessions the backend holds, of all it ever heard of.
    pub(crate) async fn rows(&self) -> usize {
        let spy = self.spy();
        let ids = spy.ids.lock().unwrap().clone();
        let mut rows = 0;
        for id in ids {
            let stored = spy.memory.fetch(id, self.clock.now()).await.unwrap();
            rows += usize::from(stored.is_some_and(|stored| is_session(&stored.value)));
        }
        rows
    }

    pub(crate) fn fail(&self, verbs: &[Verb]) {
        *self.spy().failing.lock().unwrap() = verbs.to_vec();
    }

    /// Deletes the entry of this session.
    pub(crate) async fn delete(&self, id: SessionId) {
        self.spy().memory.delete(EntryId::from_bytes(id.to_bytes())).await.unwrap();
    }

    pub(crate) fn gate(&self, gate: Gate) {
        self.spy().gate.send_replace(gate);
    }

    /// A response under way: nothing has happened yet.
    pub(crate) fn start<H, T>(&self, jar: &Jar, handler: H) -> Responding
    where
        H: Fn(Ask) -> T + Send + 'static,
        T: Future<Output = Answer> + Send + 'static,
    {
        let request = request("/", jar.header().as_deref());
        let store = Arc::clone(&self.store);
        match self.form {
            Form::Service => {
                let inner = service_fn(move |request| handler(Ask::Request(request)));
                Box::pin(SessionService::new(inner, store).call(request))
            }
            Form::Function => {
                let handler = move |_: Request<Body>, handle| handler(Ask::Handle(handle));
                Box::pin(session_fn(store, handler).call(request))
            }
        }
    }

    pub(crate) async fn visit<H, T>(&self, jar: &mut Jar, handler: H) -> Response<Body>
    where
        H: Fn(Ask) -> T + Send + 'static,
        T: Future<Output = Answer> + Send + 'static,
    {
        let response = self.start(jar, handler).await.expect("a response");
        jar.store(response.headers());
        response
    }

    /// A visit whose handler does `act` to its session and answers with `code`.
    pub(crate) async fn answer<A>(&self, jar: &mut Jar, code: u16, act: A) -> Response<Body>
    where
        A: Fn(&Session) -> Result<(), Error> + Clone + Send + Sync + 'static,
    {
        self.visit(jar, move |ask| {
            let act = act.clone();
            async move {
                act(&ask.session().await?)?;
                Ok(status(code))
            }
        })
        .await
    }

    pub(crate) async fn edit<A>(&self, jar: &mut Jar, act: A) -> Response<Body>
    where
        A: Fn(&Session) -> Result<(), Error> + Clone + Send + Sync + 'static,
    {
        self.answer(jar, 200, act).await
    }

    /// Returns the result of `look` on the session of this jar, in a request that changes nothing.
    pub(crate) async fn look<R, L>(&self, jar: &Jar, look: L) -> R
    where
        R: Send + 'static,
        L: Fn(&Session) -> R + Clone + Send + Sync + 'static,
    {
        let seen = Arc::new(Mutex::new(None));
        let sink = Arc::clone(&seen);
        let act = move |session: &Session| {
            *sink.lock().unwrap() = Some(look(session));
            Ok(())
        };
        self.edit(&mut jar.clone(), act).await;
        let seen = seen.lock().unwrap().take();
        seen.unwrap()
    }

    pub(crate) async fn values(&self, jar: &Jar) -> Vec<(String, u64)> {
        self.look(jar, |session| {
            let value = |key: String| (session.get(&key).unwrap().unwrap(), key);
            session.keys().into_iter().map(value).map(|(value, key)| (key, value)).collect()
        })
        .await
    }

    pub(crate) async fn facts(&self, jar: &Jar) -> (SessionId, Timestamp, Timestamp) {
        let facts = |session: &Session| {
            (session.id().unwrap(), session.created_at().unwrap(), session.expires_at().unwrap())
        };
        self.look(jar, facts).await
    }

    /// A jar with a stored session `{a: 1}`; calls and events so far are forgotten.
    pub(crate) async fn jar(&self) -> Jar {
        let mut jar = Jar::new();
        self.edit(&mut jar, |session| session.set("a", 1_u64)).await;
        assert!(jar.get(self.name()).is_some());
        self.calls();
        self.events.take();
        jar
    }
}

pub(crate) fn pairs(values: &[(&str, u64)]) -> Vec<(String, u64)> {
    values.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect()
}

/// Runs a scenario in every world: both stores, both forms.
pub(crate) fn everywhere_with<T: Future<Output = ()>>(setup: &Setup, scenario: impl Fn(World) -> T) {
    for kind in [Kind::Cookie, Kind::Server] {
        for form in [Form::Service, Form::Function] {
            println!("{kind:?} store, {form:?} form"); // shown if the scenario fails
            block_on(scenario(World::new(kind, form, setup)));
        }
    }
}

pub(crate) fn everywhere<T: Future<Output = ()>>(scenario: impl Fn(World) -> T) {
    everywhere_with(&Setup::default(), scenario);
}

/// Runs a scenario on the server-side store, in both forms.
pub(crate) fn on_server<T: Future<Output = ()>>(scenario: impl Fn(World) -> T) {
    for form in [Form::Service, Form::Function] {
        println!("{form:?} form");
        block_on(scenario(World::new(Kind::Server, form, &Setup::default())));
    }
}

pub(crate) fn poll<F: Future + ?Sized>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// Lets the tasks in the background run until they wait for something that does not come.
pub(crate) async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

pub(crate) fn assert_no_cookie(response: &Response<Body>) {
    assert_eq!(set_cookies(response.headers()), [""; 0]);
}

/// The one line that sets the session's cookie to a value.
#[track_caller]
pub(crate) fn assert_set(world: &World, response: &Response<Body>) {
    let lines = set_cookies(response.headers());
    assert_eq!(lines.len(), 1, "{lines:?}");
    let value = lines[0].strip_prefix(&format!("{}=", world.name())).unwrap();
    assert!(!value.starts_with(';') && !value.contains("Max-Age=0"), "{lines:?}");
    assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
    assert_eq!(response.headers()[VARY], "Cookie");
}

/// The one line that removes the session's cookie.
#[track_caller]
pub(crate) fn assert_removed(world: &World, response: &Response<Body>) {
    let lines = set_cookies(response.headers());
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with(&format!("{}=; Max-Age=0; ", world.name())), "{lines:?}");
    assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
    assert_eq!(response.headers()[VARY], "Cookie");
}

pub(crate) fn ordered(headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}
