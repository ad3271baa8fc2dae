//! The commit rules, row by row: what a handler did, how it answered, and what happens to its session.
//!
//! Each rule is held to on both kinds of store and through both forms of the adapter.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    clippy::large_enum_variant,
    clippy::doc_markdown,
    clippy::print_stdout,
    unreachable_pub
)]

mod support;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, HeaderName, HeaderValue, RETRY_AFTER, SET_COOKIE, VARY};
use http::{HeaderMap, Request, Response, Version};
use hyper::service::{Service, service_fn};
use hyper_session::cookie::{CookieOptions, SameSite};
use hyper_session::store::{Backend, Builder, Memory, Replaced, Store, Stored};
use hyper_session::testing::FakeClock;
use hyper_session::{
    AppKey, Clock, CookieStore, Error, Refusal, ServerStore, Session, SessionExt, SessionHandle, SessionId,
    SessionService, Timestamp, session_fn,
};
use tokio::sync::watch;

use support::{Answer, Body, Events, Jar, block_on, refused, request, set_cookies, status, text};

/// What a handler does to its session.
type Act = fn(&Session) -> Result<(), Error>;

const START: u64 = 1_700_000_000;
const IDLE: Duration = Duration::from_secs(1_000);
const ABSOLUTE: Duration = Duration::from_secs(5_000);
const RENEWAL: Duration = Duration::from_secs(100);
const SECOND: Duration = Duration::from_secs(1);

// The world of a test: a store, a form of the adapter, a clock.

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verb {
    Fetch,
    Create,
    Replace,
    Touch,
    Delete,
}

/// A backend in memory that writes down what it is asked, fails when told to, and waits when told to.
struct Spy {
    memory: Memory,
    calls: Mutex<Vec<(Verb, SessionId)>>,
    ids: Mutex<BTreeSet<SessionId>>,
    failing: Mutex<Vec<Verb>>,
    gate: watch::Sender<Gate>,
}

/// Where calls of a verb wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Open,
    Before(Verb),
    After(Verb),
}

impl Spy {
    fn new() -> Self {
        Self {
            memory: Memory::new(),
            calls: Mutex::default(),
            ids: Mutex::default(),
            failing: Mutex::default(),
            gate: watch::channel(Gate::Open).0,
        }
    }

    async fn step<T>(
        &self,
        verb: Verb,
        id: SessionId,
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
    async fn fetch(&self, id: SessionId, now: Timestamp) -> Result<Option<Stored>, Error> {
        self.step(Verb::Fetch, id, self.memory.fetch(id, now)).await
    }

    async fn create(&self, id: SessionId, entry: Stored, now: Timestamp) -> Result<bool, Error> {
        self.step(Verb::Create, id, self.memory.create(id, entry, now)).await
    }

    async fn replace(
        &self,
        id: SessionId,
        expected: Bytes,
        entry: Option<Stored>,
        now: Timestamp,
    ) -> Result<Replaced, Error> {
        self.step(Verb::Replace, id, self.memory.replace(id, expected, entry, now)).await
    }

    async fn touch(&self, id: SessionId, expires: Timestamp, now: Timestamp) -> Result<bool, Error> {
        self.step(Verb::Touch, id, self.memory.touch(id, expires, now)).await
    }

    async fn delete(&self, id: SessionId) -> Result<(), Error> {
        self.step(Verb::Delete, id, self.memory.delete(id)).await
    }
}

/// The options of a test's store.
#[derive(Clone)]
struct Setup {
    cookie: CookieOptions,
    keep_values: bool,
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
enum Kind {
    Cookie,
    Server,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// `SessionService` and `req.session()`.
    Service,
    /// `session_fn` and `SessionHandle`.
    Function,
}

#[derive(Clone)]
struct World {
    store: Arc<dyn Store>,
    /// The backend, if there is one.
    server: Option<ServerStore<Spy>>,
    form: Form,
    clock: FakeClock,
    events: Events,
}

/// What a handler is given, in either form.
enum Ask {
    Request(Request<Body>),
    Handle(SessionHandle),
}

impl Ask {
    async fn session(&self) -> Result<Session, Error> {
        match self {
            Self::Request(request) => request.session().await,
            Self::Handle(handle) => handle.load().await,
        }
    }
}

type Responding = Pin<Box<dyn Future<Output = Answer> + Send>>;

impl World {
    fn new(kind: Kind, form: Form, setup: &Setup) -> Self {
        let (clock, events) = (FakeClock::at(START), Events::new());
        let (store, server): (Arc<dyn Store>, _) = match kind {
            Kind::Cookie => {
                let builder = CookieStore::builder(AppKey::generate().unwrap());
                (Arc::new(setup.apply(builder, &clock, &events).build().unwrap()), None)
            }
            Kind::Server => {
                let builder = ServerStore::with_backend(Spy::new());
                let store = setup.apply(builder, &clock, &events).build().unwrap();
                (Arc::new(store.clone()), Some(store))
            }
        };
        Self { store, server, form, clock, events }
    }

    fn name(&self) -> &str {
        self.store.config().cookie_name()
    }

    fn spy(&self) -> &Spy {
        self.server.as_ref().expect("a server-side store").backend()
    }

    /// The verbs that the backend was asked since the last call; none on a cookie store.
    fn calls(&self) -> Vec<Verb> {
        let Some(server) = &self.server else {
            return Vec::new();
        };
        std::mem::take(&mut *server.backend().calls.lock().unwrap())
            .into_iter()
            .map(|(verb, _)| verb)
            .collect()
    }

    /// How many sessions the backend holds, of all it ever heard of.
    async fn rows(&self) -> usize {
        let spy = self.spy();
        let ids = spy.ids.lock().unwrap().clone();
        let mut rows = 0;
        for id in ids {
            rows += usize::from(spy.memory.fetch(id, self.clock.now()).await.unwrap().is_some());
        }
        rows
    }

    fn fail(&self, verbs: &[Verb]) {
        *self.spy().failing.lock().unwrap() = verbs.to_vec();
    }

    fn gate(&self, gate: Gate) {
        self.spy().gate.send_replace(gate);
    }

    /// A response under way: nothing has happened yet.
    fn start<H, T>(&self, jar: &Jar, handler: H) -> Responding
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

    async fn visit<H, T>(&self, jar: &mut Jar, handler: H) -> Response<Body>
    where
        H: Fn(Ask) -> T + Send + 'static,
        T: Future<Output = Answer> + Send + 'static,
    {
        let response = self.start(jar, handler).await.expect("a response");
        jar.store(response.headers());
        response
    }

    /// A visit whose handler does `act` to its session and answers with `code`.
    async fn answer<A>(&self, jar: &mut Jar, code: u16, act: A) -> Response<Body>
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

    async fn edit<A>(&self, jar: &mut Jar, act: A) -> Response<Body>
    where
        A: Fn(&Session) -> Result<(), Error> + Clone + Send + Sync + 'static,
    {
        self.answer(jar, 200, act).await
    }

    /// What `look` sees in the session of this jar, in a request that changes nothing.
    async fn look<R, L>(&self, jar: &Jar, look: L) -> R
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

    async fn values(&self, jar: &Jar) -> Vec<(String, u64)> {
        self.look(jar, |session| {
            let value = |key: String| (session.get(&key).unwrap().unwrap(), key);
            session.keys().into_iter().map(value).map(|(value, key)| (key, value)).collect()
        })
        .await
    }

    async fn facts(&self, jar: &Jar) -> (SessionId, Timestamp, Timestamp) {
        let facts = |session: &Session| {
            (session.id().unwrap(), session.created_at().unwrap(), session.expires_at().unwrap())
        };
        self.look(jar, facts).await
    }

    /// A jar with a stored session `{a: 1}`; calls and events so far are forgotten.
    async fn jar(&self) -> Jar {
        let mut jar = Jar::new();
        self.edit(&mut jar, |session| session.set("a", 1_u64)).await;
        assert!(jar.get(self.name()).is_some());
        self.calls();
        self.events.take();
        jar
    }
}

fn pairs(values: &[(&str, u64)]) -> Vec<(String, u64)> {
    values.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect()
}

/// Runs a scenario in every world: both stores, both forms.
fn everywhere_with<T: Future<Output = ()>>(setup: &Setup, scenario: impl Fn(World) -> T) {
    for kind in [Kind::Cookie, Kind::Server] {
        for form in [Form::Service, Form::Function] {
            println!("{kind:?} store, {form:?} form"); // shown if the scenario fails
            block_on(scenario(World::new(kind, form, setup)));
        }
    }
}

fn everywhere<T: Future<Output = ()>>(scenario: impl Fn(World) -> T) {
    everywhere_with(&Setup::default(), scenario);
}

/// Runs a scenario on the server-side store, in both forms.
fn on_server<T: Future<Output = ()>>(scenario: impl Fn(World) -> T) {
    for form in [Form::Service, Form::Function] {
        println!("{form:?} form");
        block_on(scenario(World::new(Kind::Server, form, &Setup::default())));
    }
}

fn poll<F: Future + ?Sized>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// Lets the tasks in the background run until they wait for something that nobody brings.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

fn assert_no_cookie(response: &Response<Body>) {
    assert_eq!(set_cookies(response.headers()), [""; 0]);
}

/// The one line that sets the session's cookie to a value.
#[track_caller]
fn assert_set(world: &World, response: &Response<Body>) {
    let lines = set_cookies(response.headers());
    assert_eq!(lines.len(), 1, "{lines:?}");
    let value = lines[0].strip_prefix(&format!("{}=", world.name())).unwrap();
    assert!(!value.starts_with(';') && !value.contains("Max-Age=0"), "{lines:?}");
    assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
    assert_eq!(response.headers()[VARY], "Cookie");
}

/// The one line that removes the session's cookie.
#[track_caller]
fn assert_removed(world: &World, response: &Response<Body>) {
    let lines = set_cookies(response.headers());
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with(&format!("{}=; Max-Age=0; ", world.name())), "{lines:?}");
    assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
    assert_eq!(response.headers()[VARY], "Cookie");
}

fn ordered(headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}

// Never asked.

/// "never asked for the session | no decode, no store call, response untouched byte for byte"
#[test]
fn never_asked_leaves_the_response_as_it_is() {
    #[derive(Clone, Debug, PartialEq)]
    struct Marker(u32);

    fn original() -> Response<Body> {
        Response::builder()
            .status(203)
            .version(Version::HTTP_10)
            .header("set-cookie", "a=1; Path=/")
            .header("vary", " Accept ,\tx")
            .header("set-cookie", "__Host-s=handler")
            .header("cache-control", "public, max-age=60")
            .header("x-bytes", HeaderValue::from_bytes(b"\xff\tq").unwrap())
            .extension(Marker(7))
            .body(Body::from("exactly this"))
            .unwrap()
    }

    everywhere(|world| async move {
        let valid = world.jar().await;
        for jar in [valid, Jar::new(), Jar::with(world.name(), "garbage")] {
            let response = world.visit(&mut jar.clone(), |_| async { Ok(original()) }).await;
            assert_eq!(response.status(), 203);
            assert_eq!(response.version(), Version::HTTP_10);
            assert_eq!(ordered(response.headers()), ordered(original().headers()));
            assert_eq!(response.extensions().get::<Marker>(), Some(&Marker(7)));
            assert_eq!(text(response).await, "exactly this");
        }
        assert_eq!(world.calls(), [] as [Verb; 0]);
        assert_eq!(world.events.take(), [""; 0]);
    });
}

// Read only.

/// "read only | `Vary: Cookie` merged in; no `Set-Cookie` unless the renewal threshold is passed"
#[test]
fn read_only_sets_no_cookie_until_the_renewal_threshold_then_one() {
    everywhere(|world| async move {
        let mut jar = world.jar().await;
        let read = |session: &Session| {
            assert_eq!(session.get::<u64>("a")?, Some(1));
            Ok(())
        };
        for seconds in [0, 1, 99] {
            world.clock.set(START + seconds);
            let response = world.edit(&mut jar, read).await;
            assert_no_cookie(&response);
            assert_eq!(response.headers()[VARY], "Cookie");
            assert!(!response.headers().contains_key(CACHE_CONTROL));
        }
        assert!(world.calls().iter().all(|verb| *verb == Verb::Fetch));

        world.clock.set(START + RENEWAL.as_secs());
        assert_set(&world, &world.edit(&mut jar, read).await);
        assert_no_cookie(&world.edit(&mut jar, read).await);
        if world.server.is_some() {
            assert_eq!(world.calls(), [Verb::Fetch, Verb::Touch, Verb::Fetch], "renewed without a rewrite");
        }
        let (_, created, expires) = world.facts(&jar).await;
        assert_eq!(created.as_unix(), START);
        assert_eq!(expires, world.clock.now().saturating_add(IDLE));
    });
}

/// "read only | `Vary: Cookie` merged in"
#[test]
fn vary_is_merged_not_replaced() {
    let cases: [(&[&str], &[&str]); 7] = [
        (&[], &["Cookie"]),
        (&["Accept"], &["Accept", "Cookie"]),
        (&["Accept", "X-A, x-b"], &["Accept", "X-A, x-b", "Cookie"]),
        (&["cookie"], &["cookie"]),
        (&["Accept,\tCOOKIE ,x"], &["Accept,\tCOOKIE ,x"]),
        (&["*"], &["*"]),
        (&["X-Cookie, Cookies"], &["X-Cookie, Cookies", "Cookie"]),
    ];
    everywhere(|world| async move {
        let jar = world.jar().await;
        for (given, expected) in cases {
            let handler = move |ask: Ask| async move {
                ask.session().await?;
                let mut response = status(200);
                for field in given {
                    response.headers_mut().append(VARY, field.parse().unwrap());
                }
                Ok(response)
            };
            let response = world.visit(&mut jar.clone(), handler).await;
            let vary: Vec<_> = response.headers().get_all(VARY).iter().map(|v| v.to_str().unwrap()).collect();
            assert_eq!(vary, expected, "{given:?}");
        }
    });
}

// Changed.

/// "changed a value | saved; one `Set-Cookie` for this name; `Cache-Control: no-store` unless the handler set something
/// at least as strict"
#[test]
fn a_changed_value_is_saved_with_one_cookie() {
    everywhere(|world| async move {
        let mut jar = world.jar().await;
        assert_set(&world, &world.edit(&mut jar, |session| session.set("b", 2_u64)).await);
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1), ("b", 2)]));
        assert_set(&world, &world.edit(&mut jar, |session| session.delete("a").map(drop)).await);
        assert_eq!(world.values(&jar).await, pairs(&[("b", 2)]));
        let add = |session: &Session| session.update("b", |old: Option<u64>| old.unwrap_or(0) + 5).map(drop);
        assert_set(&world, &world.edit(&mut jar, add).await);
        assert_eq!(world.values(&jar).await, pairs(&[("b", 7)]));
        if world.server.is_some() {
            assert_eq!(world.rows().await, 1);
        }
    });
}

/// "`Cache-Control: no-store` unless the handler set something at least as strict"
#[test]
fn a_response_with_our_cookie_is_stored_by_no_cache() {
    let cases: [(&[&str], &[&str], bool); 7] = [
        (&[], &["no-store"], false),
        (&["no-store"], &["no-store"], false),
        (&["private, No-Store , max-age=0"], &["private, No-Store , max-age=0"], false),
        (&["max-age=0", "no-store"], &["max-age=0", "no-store"], false),
        (&["public, max-age=60"], &["no-store"], true),
        (&["private"], &["no-store"], true),
        (&["private=\"x, no-store\""], &["no-store"], true),
    ];
    everywhere(|world| async move {
        for (given, expected, replaced) in cases {
            let handler = move |ask: Ask| async move {
                ask.session().await?.set("a", 1_u64)?;
                let mut response = status(200);
                for field in given {
                    response.headers_mut().append(CACHE_CONTROL, field.parse().unwrap());
                }
                Ok(response)
            };
            let response = world.visit(&mut Jar::new(), handler).await;
            let fields: Vec<_> =
                response.headers().get_all(CACHE_CONTROL).iter().map(|v| v.to_str().unwrap()).collect();
            assert_eq!(fields, expected, "{given:?}");
            let told = world.events.take().contains(&"cache_control_replaced".to_owned());
            assert_eq!(told, replaced, "{given:?}");
        }
    });
}

/// "one `Set-Cookie` for this name"
#[test]
fn the_handlers_cookie_of_our_name_is_replaced_and_others_stay() {
    everywhere(|world| async move {
        let handler = |ask: Ask| async move {
            ask.session().await?.set("a", 1_u64)?;
            let mut response = status(200);
            for line in ["x=1", "__Host-s=mine; Path=/", "__Host-sx=2", " __Host-s =mine", "y=3, z=4"] {
                response.headers_mut().append(SET_COOKIE, line.parse().unwrap());
            }
            Ok(response)
        };
        let mut jar = Jar::new();
        let response = world.visit(&mut jar, handler).await;
        let lines = set_cookies(response.headers());
        assert_eq!(lines[..3], ["x=1", "__Host-sx=2", "y=3, z=4"]);
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert!(world.events.take().contains(&"set_cookie_replaced".to_owned()));
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]));
    });
}

/// "set a value equal to the present one | not a change"
#[test]
fn an_equal_value_is_no_change() {
    everywhere(|world| async move {
        let mut jar = world.jar().await;
        let edits: [Act; 6] = [
            |session| session.set("a", 1_u64),
            |session| session.set("a", 2_u64).and_then(|()| session.set("a", 1_u64)),
            |session| session.delete("a").and_then(|_| session.set("a", 1_u64)),
            |session| session.update("a", |old: Option<u64>| old.unwrap()).map(drop),
            |session| session.set("b", 2_u64).and_then(|()| session.delete("b")).map(drop),
            |session| session.delete("absent").map(drop),
        ];
        for (number, edit) in edits.into_iter().enumerate() {
            assert_no_cookie(&world.edit(&mut jar, edit).await);
            assert!(world.calls().iter().all(|verb| *verb == Verb::Fetch), "edit {number}");
        }
    });
}

// Left empty.

/// "left it empty (clear, last delete) | destroyed, cookie removed"
#[test]
fn left_empty_is_destroyed() {
    everywhere(|world| async move {
        let edits: [Act; 3] = [
            Session::clear,
            |session| session.delete("a").map(drop),
            |session| session.set("b", 2_u64).and_then(|()| session.clear()),
        ];
        for edit in edits {
            let mut jar = world.jar().await;
            let old = jar.clone();
            assert_removed(&world, &world.edit(&mut jar, edit).await);
            assert!(jar.0.is_empty());
            if world.server.is_some() {
                assert_eq!(world.rows().await, 0);
                assert!(world.look(&old, Session::is_empty).await);
                assert_eq!(world.events.take(), [refused(Refusal::UnknownId)]);
            }
        }
        // The last flash value, taken, leaves it empty, too.
        let mut jar = Jar::new();
        world.edit(&mut jar, |session| session.set_flash("f", 1_u64)).await;
        assert_removed(&world, &world.edit(&mut jar, |session| session.flash::<u64>("f").map(drop)).await);
    });
}

/// "never stored anything (anonymous) | nothing is created, anywhere" (T71)
#[test]
fn t71_anonymous_requests_create_nothing_anywhere() {
    everywhere(|world| async move {
        let edits: [(&str, Act); 13] = [
            ("nothing", |_| Ok(())),
            ("get", |session| session.get::<u64>("a").map(drop)),
            ("has, keys, is_empty", |session| {
                assert!(!session.has("a") && session.keys().is_empty() && session.is_empty());
                Ok(())
            }),
            ("id", |session| {
                assert_eq!((session.id(), session.created_at(), session.expires_at()), (None, None, None));
                Ok(())
            }),
            ("peek", |session| session.peek::<u64>("f").map(drop)),
            ("flash", |session| session.flash::<u64>("f").map(drop)),
            ("regenerate", Session::regenerate),
            ("destroy", Session::destroy),
            ("destroy, regenerate", |session| session.destroy().and_then(|()| session.regenerate())),
            ("clear", Session::clear),
            ("delete", |session| session.delete("a").map(drop)),
            ("set, delete", |session| session.set("a", 1).and_then(|()| session.delete("a")).map(drop)),
            ("set, destroy", |session| session.set("a", 1).and_then(|()| session.destroy())),
        ];
        for (name, edit) in edits {
            for code in [200, 500] {
                let response = world.answer(&mut Jar::new(), code, edit).await;
                assert_no_cookie(&response);
                assert_eq!(response.headers()[VARY], "Cookie", "{name}");
                assert_eq!(world.calls(), [] as [Verb; 0], "{name}");
                assert_eq!(world.events.take(), [""; 0], "{name}");
            }
        }
        let save = |ask: Ask| async move {
            let session = ask.session().await?;
            session.save().await?;
            session.regenerate()?;
            session.save().await?;
            assert_eq!(session.id(), None);
            Ok(status(200))
        };
        assert_no_cookie(&world.visit(&mut Jar::new(), save).await);
        assert_eq!(world.calls(), [] as [Verb; 0]);
    });
}

// Regenerate and destroy.

/// "`regenerate` | new token, same data, same absolute deadline; the old token is refused from then on"
#[test]
fn regenerate_keeps_data_and_deadline_under_a_new_token() {
    everywhere(|world| async move {
        let mut jar = world.jar().await;
        let old = jar.clone();
        let (old_id, created, _) = world.facts(&jar).await;
        world.calls();
        world.clock.advance(10 * SECOND);
        let response =
            world.edit(&mut jar, |session| session.regenerate().and_then(|()| session.set("b", 2_u64)));
        assert_set(&world, &response.await);
        if world.server.is_some() {
            assert_eq!(
                world.calls(),
                [Verb::Fetch, Verb::Create, Verb::Replace],
                "written before the old is removed"
            );
        }
        let (id, still_created, _) = world.facts(&jar).await;
        assert_ne!(id, old_id);
        assert_ne!(jar.get(world.name()), old.get(world.name()));
        assert_eq!(still_created, created);
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1), ("b", 2)]));

        // However busy and however often regenerated: over at the absolute deadline.
        for _ in 0..ABSOLUTE.as_secs() / 500 - 1 {
            world.clock.advance(500 * SECOND);
            world.edit(&mut jar, Session::regenerate).await;
        }
        world.clock.set(START + ABSOLUTE.as_secs() - 1);
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1), ("b", 2)]));
        world.clock.advance(SECOND);
        assert!(world.look(&jar, Session::is_empty).await);
    });
}

/// "the old token is refused from then on"
#[test]
fn a_server_side_store_refuses_the_token_from_before_regenerate() {
    on_server(|world| async move {
        let mut jar = world.jar().await;
        let old = jar.clone();
        world.edit(&mut jar, Session::regenerate).await;
        assert_eq!(world.rows().await, 1);
        assert!(world.look(&old, Session::is_empty).await);
        assert_eq!(world.events.take(), [refused(Refusal::UnknownId)]);
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]));
    });
}

/// The attributes of a `Set-Cookie` line but for the value and the age.
fn attributes(line: &str) -> Vec<String> {
    let aged = |part: &&str| !part.starts_with("Max-Age=") && !part.starts_with("Expires=");
    line.split("; ").skip(1).filter(aged).map(str::to_owned).collect()
}

/// "`destroy` | store entry deleted, cookie cleared with the same Path, Domain, Secure, SameSite, Partitioned it was set
/// with"
#[test]
fn destroy_clears_the_cookie_with_the_attributes_it_was_set_with() {
    let odd = CookieOptions::new()
        .name("__Secure-s")
        .path("/app")
        .domain("example.com")
        .same_site(SameSite::None)
        .partitioned(true)
        .http_only(false);
    let strict = CookieOptions::new().same_site(SameSite::Strict).max_age(None);
    let expected_odd = ["Path=/app", "Domain=example.com", "Secure", "SameSite=None", "Partitioned"];
    let expected_strict = ["Path=/", "Secure", "HttpOnly", "SameSite=Strict"];
    let cases: [(CookieOptions, &[&str]); 2] = [(odd, &expected_odd), (strict, &expected_strict)];
    for (cookie, expected) in cases {
        everywhere_with(&Setup { cookie, ..Setup::default() }, |world| async move {
            let mut jar = Jar::new();
            let set = world.edit(&mut jar, |session| session.set("a", 1_u64)).await;
            let removed = world.edit(&mut jar, Session::destroy).await;
            assert_removed(&world, &removed);
            let [set, removed] =
                [set, removed].map(|response| attributes(&set_cookies(response.headers())[0]));
            assert_eq!(set, expected);
            assert_eq!(removed, expected);
            if world.server.is_some() {
                assert_eq!(world.rows().await, 0);
            }
        });
    }
}

/// "`destroy` | store entry deleted": what is set afterwards is another session.
#[test]
fn destroy_then_set_is_a_new_session() {
    everywhere(|world| async move {
        let mut jar = world.jar().await;
        let old = jar.clone();
        let (old_id, ..) = world.facts(&jar).await;
        world.clock.advance(50 * SECOND);
        let restart = |session: &Session| {
            session.destroy()?;
            assert!(session.is_empty());
            session.set("b", 2_u64)
        };
        assert_set(&world, &world.edit(&mut jar, restart).await);
        let (id, created, expires) = world.facts(&jar).await;
        assert_ne!(id, old_id);
        assert_eq!(created.as_unix(), START + 50, "a new beginning");
        assert_eq!(expires.as_unix(), START + 50 + IDLE.as_secs());
        assert_eq!(world.values(&jar).await, pairs(&[("b", 2)]));
        if world.server.is_some() {
            assert!(world.look(&old, Session::is_empty).await);
            assert_eq!(world.rows().await, 1);
        }
    });
}

// The handler failed.

/// "returned a 5xx | data changes dropped, `destroy` and `regenerate` still done"
#[test]
fn a_server_error_drops_values_and_still_ends_or_regenerates() {
    everywhere(|world| async move {
        for code in [500, 503, 599] {
            // Values of an existing session, and a session that would begin.
            let mut jar = world.jar().await;
            let before = jar.clone();
            assert_no_cookie(&world.answer(&mut jar, code, |session| session.set("a", 9_u64)).await);
            assert_no_cookie(&world.answer(&mut jar, code, Session::clear).await);
            assert_no_cookie(&world.answer(&mut Jar::new(), code, |session| session.set("a", 9_u64)).await);
            assert_eq!(world.events.take(), ["dropped:server_error"; 3]);
            assert!(world.calls().iter().all(|verb| *verb == Verb::Fetch));
            assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]));

            let both = |session: &Session| session.set("a", 9_u64).and_then(|()| session.regenerate());
            assert_set(&world, &world.answer(&mut jar, code, both).await);
            assert_ne!(jar.0, before.0);
            assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]), "the new id has the old values");

            let restart = |session: &Session| session.destroy().and_then(|()| session.set("a", 9_u64));
            assert_removed(&world, &world.answer(&mut jar, code, restart).await);
            if world.server.is_some() {
                assert_eq!(world.rows().await, 0);
            }
        }
        // 4xx answers are answers.
        let mut jar = Jar::new();
        assert_set(&world, &world.answer(&mut jar, 499, |session| session.set("a", 1_u64)).await);
    });
}

/// "returned a 5xx | … (option to keep data too)"
#[test]
fn keep_values_on_server_error_saves_them() {
    everywhere_with(&Setup { keep_values: true, ..Setup::default() }, |world| async move {
        let mut jar = Jar::new();
        assert_set(&world, &world.answer(&mut jar, 500, |session| session.set("a", 1_u64)).await);
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]));
        assert_removed(&world, &world.answer(&mut jar, 500, Session::clear).await);
        assert_eq!(world.events.take(), [""; 0]);
    });
}

/// "returned a 5xx": reading renews as ever, since the user was here.
#[test]
fn a_server_error_still_renews() {
    everywhere(|world| async move {
        let mut jar = world.jar().await;
        world.clock.advance(RENEWAL);
        assert_set(&world, &world.answer(&mut jar, 500, |session| session.set("a", 9_u64)).await);
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]));
    });
}

/// What a handler can do to its session, for the rows in which none of it counts.
const DEEDS: [Act; 4] =
    [|session| session.set("a", 9_u64), Session::clear, Session::regenerate, Session::destroy];

/// "returned `Err`, panicked, or was dropped | nothing saved"
#[test]
fn nothing_is_saved_when_the_handler_returns_an_error() {
    everywhere(|world| async move {
        let jar = world.jar().await;
        for (jar, deed) in [Jar::new(), jar.clone()].iter().flat_map(|jar| DEEDS.map(|deed| (jar, deed))) {
            let fails = move |ask: Ask| async move {
                deed(&ask.session().await?)?;
                Err(Error::unavailable("the handler's own trouble"))
            };
            let error = world.start(jar, fails).await.expect_err("the handler's error passes as it is");
            assert!(error.is_unavailable());
        }
        assert!(world.calls().iter().all(|verb| *verb == Verb::Fetch));
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]));
    });
}

/// "returned `Err`, panicked, or was dropped | nothing saved"
#[test]
fn nothing_is_saved_when_the_handler_panics() {
    everywhere(|world| async move {
        let jar = world.jar().await;
        for (jar, deed) in [Jar::new(), jar.clone()].iter().flat_map(|jar| DEEDS.map(|deed| (jar, deed))) {
            let panics = move |ask: Ask| async move {
                deed(&ask.session().await?)?;
                panic!("as this test wants");
            };
            let outcome = tokio::spawn(world.start(jar, panics)).await;
            assert!(outcome.unwrap_err().is_panic());
        }
        assert!(world.calls().iter().all(|verb| *verb == Verb::Fetch));
        assert_eq!(world.events.take(), [""; 0]);
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]), "the next request is served as ever");
    });
}

/// "returned `Err`, panicked, or was dropped | nothing saved"
#[test]
fn nothing_is_saved_when_the_handler_is_dropped() {
    everywhere(|world| async move {
        let jar = world.jar().await;
        for (jar, deed) in [Jar::new(), jar.clone()].iter().flat_map(|jar| DEEDS.map(|deed| (jar, deed))) {
            let hangs = move |ask: Ask| async move {
                deed(&ask.session().await?)?;
                std::future::pending().await
            };
            let mut response = world.start(jar, hangs);
            assert!(poll(&mut response).is_pending());
            drop(response);
        }
        settle().await;
        assert!(world.calls().iter().all(|verb| *verb == Verb::Fetch));
        assert_eq!(world.events.take(), [""; 0]);
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]));
    });
}

/// How a handler ends that leaves its session to a task.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Error,
    Panic,
    Drop,
}

/// "returned `Err`, panicked, or was dropped | nothing saved", and what comes too late is "a typed error, never silence":
/// for a task, too, that goes on with the session of a request that is over.
fn a_task_that_goes_on_is_told(end: End) {
    everywhere(|world| async move {
        let jar = world.jar().await;
        let left = Arc::new(Mutex::new(None));
        let sink = Arc::clone(&left);
        let handler = move |ask: Ask| {
            let sink = Arc::clone(&sink);
            async move {
                let session = ask.session().await?;
                session.set("a", 9_u64)?;
                // The task holds whatever the handler had: the request or the handle, and the session.
                *sink.lock().unwrap() = Some((ask, session));
                match end {
                    End::Error => Err(Error::unavailable("the handler's own trouble")),
                    End::Panic => panic!("as this test wants"),
                    End::Drop => std::future::pending().await,
                }
            }
        };
        let mut response = world.start(&jar, handler);
        match end {
            End::Panic => drop(tokio::spawn(response).await.unwrap_err()),
            End::Error | End::Drop => {
                assert_eq!(poll(&mut response).is_pending(), end == End::Drop);
                drop(response);
            }
        }
        let (ask, session) = left.lock().unwrap().take().unwrap();
        let set = session.set("a", 10_u64).map_err(|error| error.is_head_sent());
        let saved = session.save().await.map_err(|error| error.is_head_sent());
        drop(ask);
        assert_eq!((set, saved), (Err(true), Err(true)));
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]));
    });
}

#[test]
fn a_task_that_goes_on_after_the_handlers_error_is_told() {
    a_task_that_goes_on_is_told(End::Error);
}

#[test]
fn a_task_that_goes_on_after_the_handlers_panic_is_told() {
    a_task_that_goes_on_is_told(End::Panic);
}

#[test]
fn a_task_that_goes_on_after_the_handler_was_dropped_is_told() {
    a_task_that_goes_on_is_told(End::Drop);
}

// After the head.

/// "writes after the head is sent (streaming body) | a typed error, never silence"
#[test]
fn writes_after_the_head_are_errors_and_reads_go_on() {
    everywhere(|world| async move {
        let mut jar = world.jar().await;
        world.edit(&mut jar, |session| session.set_flash("f", 3_u64)).await;
        let left = Arc::new(Mutex::new(None));
        let sink = Arc::clone(&left);
        let handler = move |ask: Ask| {
            let sink = Arc::clone(&sink);
            async move {
                let session = ask.session().await?;
                session.set("b", 2_u64)?;
                *sink.lock().unwrap() = Some((ask, session));
                Ok(status(200))
            }
        };
        assert_set(&world, &world.visit(&mut jar, handler).await);
        let (ask, session) = left.lock().unwrap().take().unwrap();
        world.calls();
        for session in [session, ask.session().await.unwrap()] {
            let errors = [
                session.set("c", 1).unwrap_err(),
                session.set("b", 2_u64).unwrap_err(),
                session.set_flash("g", 1).unwrap_err(),
                session.delete("a").unwrap_err(),
                session.delete("absent").unwrap_err(),
                session.clear().unwrap_err(),
                session.flash::<u64>("f").unwrap_err(),
                session.update("a", |old: Option<u64>| old.unwrap()).unwrap_err(),
                session.regenerate().unwrap_err(),
                session.destroy().unwrap_err(),
                session.save().await.unwrap_err(),
            ];
            assert!(errors.iter().all(Error::is_head_sent), "{errors:?}");
            assert_eq!(session.get::<u64>("a").unwrap(), Some(1));
            assert_eq!(session.get::<u64>("b").unwrap(), Some(2));
            assert_eq!(session.peek::<u64>("f").unwrap(), Some(3));
            assert!(session.id().is_some());
        }
        assert_eq!(world.calls(), [] as [Verb; 0]);
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1), ("b", 2)]));
    });
}

/// "writes after the head is sent (streaming body) | a typed error, never silence", where nobody asked before.
#[test]
fn a_session_first_loaded_after_the_head_can_be_read_alone() {
    everywhere(|world| async move {
        for (jar, value) in [(world.jar().await, Some(1)), (Jar::new(), None)] {
            let left = Arc::new(Mutex::new(None));
            let sink = Arc::clone(&left);
            let handler = move |ask: Ask| {
                *sink.lock().unwrap() = Some(ask);
                async { Ok(status(200)) }
            };
            let response = world.visit(&mut jar.clone(), handler).await;
            assert!(response.headers().is_empty());
            let ask = left.lock().unwrap().take().unwrap();
            let session = ask.session().await.unwrap();
            assert_eq!(session.get::<u64>("a").unwrap(), value);
            assert!(session.set("b", 2).unwrap_err().is_head_sent());
            assert!(session.destroy().unwrap_err().is_head_sent());
            assert!(session.save().await.unwrap_err().is_head_sent());
        }
        assert!(world.calls().iter().all(|verb| *verb == Verb::Fetch));
    });
}

/// "writes after the head is sent": the head is on its way as soon as the handler is done, also while it waits for the
/// store.
#[test]
fn writes_while_the_store_is_saving_the_answer_are_errors() {
    on_server(|world| async move {
        let mut jar = world.jar().await;
        let left = Arc::new(Mutex::new(None));
        let sink = Arc::clone(&left);
        let handler = move |ask: Ask| {
            let sink = Arc::clone(&sink);
            async move {
                let session = ask.session().await?;
                session.set("b", 2_u64)?;
                *sink.lock().unwrap() = Some(session);
                Ok(status(200))
            }
        };
        world.gate(Gate::Before(Verb::Replace));
        let mut response = world.start(&jar, handler);
        assert!(poll(&mut response).is_pending());
        let session: Session = left.lock().unwrap().take().unwrap();
        assert!(session.set("c", 3_u64).unwrap_err().is_head_sent());
        assert_eq!(session.get::<u64>("b").unwrap(), Some(2));
        world.gate(Gate::Open);
        jar.store(response.await.unwrap().headers());
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1), ("b", 2)]));
    });
}

// The store failed.

/// "save failed | the response is replaced by 503 …; no cookie leaves before the store has acknowledged"
#[test]
fn a_failed_save_is_a_503_without_a_cookie_and_without_the_answer() {
    let cases: [(Verb, bool, Act); 6] = [
        (Verb::Create, false, |session| session.set("a", 9_u64)),
        (Verb::Replace, true, |session| session.set("a", 9_u64)),
        (Verb::Delete, true, Session::destroy),
        (Verb::Delete, true, Session::clear),
        (Verb::Create, true, Session::regenerate),
        (Verb::Replace, true, Session::regenerate),
    ];
    on_server(|world| async move {
        for (number, (verb, stored, deed)) in cases.into_iter().enumerate() {
            println!("case {number}");
            let mut jar = if stored { world.jar().await } else { Jar::new() };
            let before = jar.clone();
            world.fail(&[verb]);
            let handler = move |ask: Ask| async move {
                deed(&ask.session().await?)?;
                let secret = Response::builder().header("x-secret", "1").header(SET_COOKIE, "x=secret");
                Ok(secret.extension(7_u32).body(Body::from("secret")).unwrap())
            };
            let response = world.visit(&mut jar, handler).await;
            world.fail(&[]);
            assert_eq!(response.status(), 503);
            assert_no_cookie(&response);
            assert_eq!(response.headers()[RETRY_AFTER], "1");
            assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
            assert!(!response.headers().contains_key("x-secret"));
            assert_eq!(response.extensions().get::<u32>(), None);
            assert_eq!(text(response).await, "");
            assert_eq!(world.events.take(), ["store_failed"]);
            assert_eq!(jar.0, before.0);
            if stored {
                assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]), "what is stored is as it was");
            }
        }
    });
}

/// "save failed": also one that would only have moved the deadline.
#[test]
fn a_failed_renewal_sets_no_cookie() {
    on_server(|world| async move {
        let mut jar = world.jar().await;
        world.clock.advance(RENEWAL);
        world.fail(&[Verb::Touch]);
        let response = world.edit(&mut jar, |_| Ok(())).await;
        assert_eq!(response.status(), 503);
        assert_no_cookie(&response);
    });
}

/// "save failed | the response is replaced by 503 (hook to build it)"
#[test]
fn the_failure_hook_makes_the_response() {
    fn sorry(error: &Error) -> Response<Body> {
        let mut response = Response::new(Body::from(format!("sorry: {}", error.is_unavailable())));
        *response.status_mut() = http::StatusCode::IM_A_TEAPOT;
        response
    }

    on_server(|world| async move {
        world.fail(&[Verb::Create]);
        let set = |ask: Ask| async move {
            ask.session().await?.set("a", 1)?;
            Ok::<_, Error>(status(200))
        };
        let (store, request) = (Arc::clone(&world.store), request("/", None));
        let response = match world.form {
            Form::Service => {
                let inner = service_fn(move |request| set(Ask::Request(request)));
                SessionService::new(inner, store).on_failure(sorry).call(request).await
            }
            Form::Function => {
                let handler = move |_: Request<Body>, handle| set(Ask::Handle(handle));
                session_fn(store, handler).on_failure(sorry).call(request).await
            }
        }
        .unwrap();
        assert_eq!(response.status(), 418);
        assert_no_cookie(&response);
        assert_eq!(text(response).await, "sorry: true");
    });
}

/// "save failed": a session that is too large is no trouble that passes, so the client is not told to try again.
#[test]
fn a_session_too_large_for_its_cookies_is_a_503_and_the_old_one_goes_on() {
    let setup = Setup { cookie: CookieOptions::new().max_chunks(1), ..Setup::default() };
    for form in [Form::Service, Form::Function] {
        block_on(async {
            let world = World::new(Kind::Cookie, form, &setup);
            let mut jar = world.jar().await;
            let response = world.edit(&mut jar, |session| session.set("b", "x".repeat(5_000))).await;
            assert_eq!(response.status(), 503);
            assert!(!response.headers().contains_key(RETRY_AFTER));
            assert_no_cookie(&response);
            assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]));
            assert_eq!(world.events.take(), ["store_failed"]);
        });
    }
}

/// "load failed (store down) | the handler gets the error; the cookie is never cleared for a transient error"
#[test]
fn a_failed_load_is_the_handlers_to_know_and_clears_nothing() {
    on_server(|world| async move {
        let mut jar = world.jar().await;
        let before = jar.clone();
        world.fail(&[Verb::Fetch]);
        for code in [200, 404, 500] {
            let handler = move |ask: Ask| async move {
                let error = ask.session().await.unwrap_err();
                assert!(error.is_unavailable() && error.is_transient());
                Ok(status(code))
            };
            let response = world.visit(&mut jar, handler).await;
            assert_eq!(response.status(), code);
            assert_no_cookie(&response);
            assert_eq!(response.headers()[VARY], "Cookie");
            assert_eq!(world.events.take(), ["store_failed"]);
        }
        assert_eq!(world.calls(), [Verb::Fetch; 3]);
        world.fail(&[]);
        assert_eq!(jar.0, before.0);
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]));
    });
}

/// "load failed": asking again in the same request asks the store again.
#[test]
fn a_load_that_failed_can_be_tried_again() {
    on_server(|world| async move {
        let mut jar = world.jar().await;
        world.fail(&[Verb::Fetch]);
        let store = world.server.clone().unwrap();
        let handler = move |ask: Ask| {
            let store = store.clone();
            async move {
                assert!(ask.session().await.is_err());
                store.backend().failing.lock().unwrap().clear();
                ask.session().await?.set("b", 2_u64)?;
                Ok(status(200))
            }
        };
        assert_set(&world, &world.visit(&mut jar, handler).await);
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1), ("b", 2)]));
    });
}

/// "load failed": with one good cookie among several, a store that cannot tell is not taken for "no session".
#[test]
fn a_store_that_fails_on_one_of_two_cookies_clears_nothing() {
    on_server(|world| async move {
        let good = world.jar().await;
        let name = world.name();
        // The first is refused without the store, the second cannot be looked up.
        let cookies = format!("{name}=garbage; {name}={}", good.get(name).unwrap());
        world.fail(&[Verb::Fetch]);
        let inner = service_fn(|request: Request<Body>| async move {
            assert!(request.session().await.unwrap_err().is_unavailable());
            Ok::<_, Error>(status(200))
        });
        let service = SessionService::new(inner, Arc::clone(&world.store));
        assert_no_cookie(&service.call(request("/", Some(&cookies))).await.unwrap());
    });
}

// The cookie is no session.

/// "cookie invalid, expired, unknown id | an empty session and an event saying why; the value is never adopted as an id;
/// removed from the client if the handler looked"
#[test]
fn a_cookie_that_is_no_session_is_empty_told_and_removed_if_looked_at() {
    everywhere(|world| async move {
        let form = world.form;
        let kind = if world.server.is_some() { Kind::Server } else { Kind::Cookie };
        let expired = world.jar().await;
        world.clock.advance(IDLE);
        // Well-formed, of the same name, and made by another store.
        let foreign = World::new(kind, form, &Setup::default()).jar().await;
        let (unknown, gone) = match kind {
            Kind::Cookie => (Refusal::UnknownKey, Refusal::Expired),
            Kind::Server => (Refusal::UnknownId, Refusal::UnknownId), // the backend has forgotten it
        };
        let garbage = Jar::with(world.name(), "garbage!");
        for (jar, why) in [(garbage, Refusal::Encoding), (foreign, unknown), (expired, gone)] {
            let mut ignored = jar.clone();
            let response = world.visit(&mut ignored, |_| async { Ok(status(200)) }).await;
            assert!(response.headers().is_empty(), "nobody looked");
            assert_eq!(ignored.0, jar.0);
            assert_eq!((world.events.take(), world.calls()), (vec![], vec![]));

            let mut read = jar.clone();
            let response = world.edit(&mut read, |session| {
                assert!(session.is_empty());
                assert_eq!(session.id(), None);
                Ok(())
            });
            assert_removed(&world, &response.await);
            assert_eq!(world.events.take(), [refused(why)]);

            let mut failed = jar.clone();
            assert_removed(&world, &world.answer(&mut failed, 500, |_| Ok(())).await);

            // What is set begins a session of its own.
            let mut adopted = jar.clone();
            assert_set(&world, &world.edit(&mut adopted, |session| session.set("b", 2_u64)).await);
            assert_ne!(adopted.get(world.name()), jar.get(world.name()));
            assert_eq!(world.values(&adopted).await, pairs(&[("b", 2)]));
            assert_eq!(world.facts(&adopted).await.1, world.clock.now());
            assert!(world.look(&jar, Session::is_empty).await, "the old value stays what it was: nothing");
            world.events.take();
            world.calls();
        }
    });
}

/// "removed from the client if the handler looked": also the regenerate or destroy of a session that is none.
#[test]
fn ending_a_session_that_is_none_removes_the_cookie() {
    everywhere(|world| async move {
        for deed in [Session::regenerate, Session::destroy, Session::clear] {
            let mut jar = Jar::with(world.name(), "garbage");
            assert_removed(&world, &world.edit(&mut jar, deed).await);
        }
        assert_eq!(world.calls(), [] as [Verb; 0]);
    });
}

// The client went away.

/// "client disconnects after the handler returned | a destroy or regenerate still completes"
#[test]
fn a_disconnect_after_the_handler_does_not_keep_a_session_alive() {
    let cases: [(Verb, Act, usize); 6] = [
        (Verb::Delete, Session::destroy, 0),
        (Verb::Delete, Session::clear, 0),
        // A last delete compares: what another request set meanwhile is not this one's to remove.
        (Verb::Replace, |session| session.delete("a").map(drop), 0),
        (Verb::Create, Session::regenerate, 1),
        (Verb::Replace, Session::regenerate, 1),
        (Verb::Replace, |session| session.destroy().and_then(|()| session.set("b", 2)), 1),
    ];
    on_server(|world| async move {
        for (number, (verb, deed, rows)) in cases.into_iter().enumerate() {
            println!("case {number}");
            let jar = world.jar().await;
            let rows_before = world.rows().await - 1;
            world.gate(Gate::Before(verb));
            let mut response = world.start(&jar, move |ask| async move {
                deed(&ask.session().await?)?;
                Ok(status(200))
            });
            assert!(poll(&mut response).is_pending());
            drop(response);
            assert_eq!(world.events.take(), ["interrupted:true"]);
            settle().await;
            assert!(!world.look(&jar, Session::is_empty).await, "not done yet: the store has not answered");
            world.gate(Gate::Open);
            settle().await;
            assert!(world.look(&jar, Session::is_empty).await, "the old token is refused");
            assert_eq!(world.rows().await, rows_before + rows);
            assert_eq!(world.events.take(), [refused(Refusal::UnknownId)]);
        }
    });
}

/// "client disconnects after the handler returned": a save is done or not done, never in parts.
#[test]
fn a_plain_save_that_is_dropped_is_all_or_nothing() {
    let after = pairs(&[("b", 2), ("c", 3)]);
    let before = pairs(&[("a", 1)]);
    on_server(move |world| {
        let (before, after) = (before.clone(), after.clone());
        async move {
            for (gate, expected) in
                [(Gate::Before(Verb::Replace), before), (Gate::After(Verb::Replace), after)]
            {
                let jar = world.jar().await;
                world.gate(gate);
                let mut response = world.start(&jar, |ask| async move {
                    let session = ask.session().await?;
                    session.delete("a")?;
                    session.set("b", 2_u64)?;
                    session.set("c", 3_u64)?;
                    Ok(status(200))
                });
                assert!(poll(&mut response).is_pending());
                drop(response);
                world.gate(Gate::Open);
                settle().await;
                assert_eq!(world.values(&jar).await, expected, "{gate:?}");
                assert_eq!(world.events.take(), [""; 0]);
            }
        }
    });
}

/// "client disconnects after the handler returned": with no runtime to carry the rest, the event says that it was lost.
#[test]
fn a_disconnect_outside_of_a_runtime_is_told() {
    for form in [Form::Service, Form::Function] {
        let world = World::new(Kind::Server, form, &Setup::default());
        let jar = block_on(world.jar());
        world.gate(Gate::Before(Verb::Delete));
        let mut response = world.start(&jar, |ask| async move {
            ask.session().await?.destroy()?;
            Ok(status(200))
        });
        assert!(poll(&mut response).is_pending());
        drop(response);
        assert_eq!(world.events.take(), ["interrupted:false"]);
    }
}

/// "client disconnects after the handler returned | a destroy or regenerate still completes", also where the answer
/// waits for a save that the handler began.
#[test]
fn a_disconnect_while_the_end_waits_for_a_save_does_not_keep_a_session_alive() {
    let deeds: [Act; 3] = [Session::destroy, Session::clear, Session::regenerate];
    on_server(|world| async move {
        for (number, deed) in deeds.into_iter().enumerate() {
            println!("deed {number}");
            let jar = world.jar().await;
            world.gate(Gate::Before(Verb::Replace));
            let mut response = world.start(&jar, move |ask| async move {
                let session = ask.session().await?;
                session.set("b", 2_u64)?;
                let saving = session.clone();
                tokio::spawn(async move { saving.save().await });
                tokio::task::yield_now().await;
                deed(&session)?;
                Ok(status(200))
            });
            assert!(poll(&mut response).is_pending());
            settle().await;
            assert!(poll(&mut response).is_pending());
            drop(response);
            world.gate(Gate::Open);
            settle().await;
            assert!(world.look(&jar, Session::is_empty).await, "the old token is refused");
        }
    });
}

// Explicit saves.

/// `save().await` mid-handler is seen at once by others; what is changed afterwards is saved with the answer.
#[test]
fn an_explicit_save_and_changes_after_it_are_both_saved() {
    everywhere(|world| async move {
        let mut jar = Jar::new();
        let response = world.visit(&mut jar, |ask| async move {
            let session = ask.session().await?;
            session.set("a", 1_u64)?;
            session.save().await?;
            let id = session.id().expect("a saved session has an id");
            assert_eq!(session.get::<u64>("a")?, Some(1));
            session.set("b", 2_u64)?;
            session.delete("a")?;
            session.update("n", |old: Option<u64>| old.unwrap_or(0) + 1)?;
            session.save().await?;
            session.update("n", |old: Option<u64>| old.unwrap_or(0) + 1)?;
            assert_eq!(session.id(), Some(id));
            Ok(status(200))
        });
        assert_set(&world, &response.await);
        assert_eq!(world.values(&jar).await, pairs(&[("b", 2), ("n", 2)]));
        if world.server.is_some() {
            assert_eq!(world.calls()[..3], [Verb::Create, Verb::Replace, Verb::Replace]);
        }
    });
}

/// An explicit save counts although the handler fails afterwards, and its cookie is sent.
#[test]
fn an_explicit_save_outlives_a_server_error() {
    everywhere(|world| async move {
        let mut jar = Jar::new();
        let response = world.visit(&mut jar, |ask| async move {
            let session = ask.session().await?;
            session.set("a", 1_u64)?;
            session.save().await?;
            session.set("a", 2_u64)?;
            Ok(status(500))
        });
        assert_set(&world, &response.await);
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]));
        assert_eq!(world.events.take(), ["dropped:server_error"]);
    });
}

/// An explicit save of a session that was ended, and then begun again, is another session.
#[test]
fn explicit_saves_around_a_destroy_are_two_sessions() {
    everywhere(|world| async move {
        let mut jar = world.jar().await;
        let old = jar.clone();
        let response = world.visit(&mut jar, |ask| async move {
            let session = ask.session().await?;
            let id = session.id();
            session.destroy()?;
            session.save().await?;
            assert_eq!(session.id(), None);
            assert!(session.is_empty());
            session.set("b", 2_u64)?;
            session.save().await?;
            assert!(session.id().is_some() && session.id() != id);
            Ok(status(200))
        });
        assert_set(&world, &response.await);
        assert_eq!(world.values(&jar).await, pairs(&[("b", 2)]));
        if world.server.is_some() {
            assert!(world.look(&old, Session::is_empty).await);
            assert_eq!(world.rows().await, 1);
        }
    });
}

/// A save that failed leaves its changes in the session: the handler reads them, and they are saved with the answer.
#[test]
fn a_failed_explicit_save_leaves_the_changes_in_the_session() {
    on_server(|world| async move {
        for mut jar in [Jar::new(), world.jar().await] {
            let store = world.server.clone().unwrap();
            let handler = move |ask: Ask| {
                let store = store.clone();
                async move {
                    let session = ask.session().await?;
                    session.set("b", 2_u64)?;
                    *store.backend().failing.lock().unwrap() = vec![Verb::Create, Verb::Replace];
                    assert!(session.save().await.unwrap_err().is_unavailable());
                    assert_eq!(session.get::<u64>("b")?, Some(2));
                    session.set("c", 3_u64)?;
                    assert!(session.save().await.unwrap_err().is_unavailable());
                    store.backend().failing.lock().unwrap().clear();
                    Ok(status(200))
                }
            };
            let response = world.visit(&mut jar, handler).await;
            assert_set(&world, &response);
            let values = world.values(&jar).await;
            assert!(values.ends_with(&pairs(&[("b", 2), ("c", 3)])), "{values:?}");
        }
    });
}

/// A session that does not fit says so to the handler, which can make it fit.
#[test]
fn a_handler_can_act_on_a_session_that_is_too_large() {
    let setup = Setup { cookie: CookieOptions::new().max_chunks(1), ..Setup::default() };
    for form in [Form::Service, Form::Function] {
        block_on(async {
            let world = World::new(Kind::Cookie, form, &setup);
            let mut jar = world.jar().await;
            let response = world.visit(&mut jar, |ask| async move {
                let session = ask.session().await?;
                session.set("b", 2_u64)?;
                session.set("big", "x".repeat(5_000))?;
                assert!(session.save().await.unwrap_err().is_too_large());
                assert!(session.has("big"));
                session.delete("big")?;
                Ok(status(200))
            });
            assert_set(&world, &response.await);
            assert_eq!(world.values(&jar).await, pairs(&[("a", 1), ("b", 2)]));
        });
    }
}

/// Two saves at once are two saves in turn: one session comes of them.
#[test]
fn two_saves_at_once_make_one_session() {
    everywhere(|world| async move {
        let mut jar = Jar::new();
        let response = world.visit(&mut jar, |ask| async move {
            let session = ask.session().await?;
            session.set("a", 1_u64)?;
            let (one, two) = tokio::join!(session.save(), async {
                session.set("b", 2_u64)?;
                session.save().await
            });
            one.and(two)?;
            Ok(status(200))
        });
        assert_set(&world, &response.await);
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1), ("b", 2)]));
        if world.server.is_some() {
            assert_eq!(world.rows().await, 1);
        }
    });
}

/// What a handler does to its session while a save of a task is under way, and what the next request finds then.
struct Race {
    deed: Act,
    code: u16,
    values: &'static [(&'static str, u64)],
    /// Whether the token from before still leads to the session.
    same_token: bool,
}

/// A task saves `{a: 1, b: 2}`, which lasts; the handler does something meanwhile, and answers.
fn race(races: &'static [Race]) {
    on_server(|world| async move {
        for (number, race) in races.iter().enumerate() {
            println!("race {number}");
            let mut jar = world.jar().await;
            let old = jar.clone();
            let rows = world.rows().await - 1;
            world.gate(Gate::Before(Verb::Replace));
            let mut response = world.start(&jar, move |ask| async move {
                let session = ask.session().await?;
                session.set("b", 2_u64)?;
                let saving = session.clone();
                tokio::spawn(async move { saving.save().await });
                tokio::task::yield_now().await;
                (race.deed)(&session)?;
                Ok(status(race.code))
            });
            for _ in 0..3 {
                assert!(poll(&mut response).is_pending());
                settle().await;
            }
            world.gate(Gate::Open);
            let response = response.await.unwrap();
            assert_eq!(response.status(), race.code);
            assert_eq!(set_cookies(response.headers()).len(), 1);
            jar.store(response.headers());
            assert_eq!(jar.0.is_empty(), race.values.is_empty());
            assert_eq!(world.values(&jar).await, pairs(race.values));
            assert_eq!(world.rows().await - rows, usize::from(!race.values.is_empty()));
            assert_eq!(!world.look(&old, Session::is_empty).await, race.same_token);
        }
    });
}

#[test]
fn a_save_of_a_task_races_with_changes_and_loses_nothing() {
    race(&[
        Race { deed: |_| Ok(()), code: 200, values: &[("a", 1), ("b", 2)], same_token: true },
        Race {
            deed: |s| s.set("c", 3_u64),
            code: 200,
            values: &[("a", 1), ("b", 2), ("c", 3)],
            same_token: true,
        },
        Race { deed: |s| s.set("b", 7_u64), code: 200, values: &[("a", 1), ("b", 7)], same_token: true },
        Race { deed: |s| s.delete("b").map(drop), code: 200, values: &[("a", 1)], same_token: true },
        Race { deed: |s| s.set("c", 3_u64), code: 500, values: &[("a", 1), ("b", 2)], same_token: true },
        Race { deed: Session::clear, code: 200, values: &[], same_token: false },
    ]);
}

#[test]
fn a_destroy_during_a_save_of_a_task_is_done() {
    race(&[
        Race { deed: Session::destroy, code: 200, values: &[], same_token: false },
        Race { deed: Session::destroy, code: 500, values: &[], same_token: false },
    ]);
}

#[test]
fn a_destroy_and_set_during_a_save_of_a_task_is_a_new_session() {
    race(&[Race {
        deed: |session| session.destroy().and_then(|()| session.set("c", 3_u64)),
        code: 200,
        values: &[("c", 3)],
        same_token: false,
    }]);
}

#[test]
fn a_regenerate_during_a_save_of_a_task_is_done() {
    race(&[
        Race { deed: Session::regenerate, code: 200, values: &[("a", 1), ("b", 2)], same_token: false },
        Race { deed: Session::regenerate, code: 500, values: &[("a", 1), ("b", 2)], same_token: false },
    ]);
}

/// A save that the handler gave up waiting for leaves its changes in the session, for the answer.
#[test]
fn a_save_that_was_given_up_is_made_up_for() {
    on_server(|world| async move {
        let mut jar = world.jar().await;
        world.gate(Gate::Before(Verb::Replace));
        let store = world.server.clone().unwrap();
        let handler = move |ask: Ask| {
            let store = store.clone();
            async move {
                let session = ask.session().await?;
                session.set("b", 2_u64)?;
                let mut save = Box::pin(session.save());
                assert!(poll(&mut save).is_pending());
                drop(save);
                assert_eq!(session.get::<u64>("b")?, Some(2));
                store.backend().gate.send_replace(Gate::Open);
                Ok(status(200))
            }
        };
        assert_set(&world, &world.visit(&mut jar, handler).await);
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1), ("b", 2)]));
    });
}

// Requests at once.

fn increment(session: &Session) -> Result<(), Error> {
    session.update("n", |old: Option<u64>| old.unwrap_or(0) + 1).map(drop)
}

/// An `update` is replayed on the value that another request left: no increment is lost.
#[test]
fn an_update_is_replayed_on_what_another_request_left() {
    on_server(|world| async move {
        let mut jar = world.jar().await;
        let mut other = jar.clone();
        world.gate(Gate::Before(Verb::Replace));
        let mut slow = world.start(&jar, |ask| async move {
            let session = ask.session().await?;
            increment(&session)?;
            session.set("slow", 1_u64)?;
            increment(&session)?;
            Ok(status(200))
        });
        assert!(poll(&mut slow).is_pending());
        world.gate(Gate::Before(Verb::Touch)); // wakes the slow one, which nobody polls
        let quick = |session: &Session| increment(session).and_then(|()| session.set("quick", 1_u64));
        world.edit(&mut other, quick).await;
        jar.store(slow.await.unwrap().headers());
        assert_eq!(world.events.take(), ["conflict_merged:1"]);
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1), ("n", 3), ("quick", 1), ("slow", 1)]));
    });
}

/// The same for an update that was made while an earlier one was being saved, and met another request's.
#[test]
fn an_update_during_a_save_that_meets_a_conflict_is_replayed_once() {
    on_server(|world| async move {
        let mut jar = world.jar().await;
        let mut other = jar.clone();
        world.gate(Gate::Before(Verb::Replace));
        let mut slow = world.start(&jar, |ask| async move {
            let session = ask.session().await?;
            increment(&session)?;
            let saving = session.clone();
            let save = tokio::spawn(async move { saving.save().await });
            tokio::task::yield_now().await;
            increment(&session)?;
            save.await.unwrap()?;
            assert_eq!(session.get::<u64>("a")?, Some(1));
            increment(&session)?;
            Ok(status(200))
        });
        for _ in 0..3 {
            assert!(poll(&mut slow).is_pending());
            settle().await;
        }
        // The gate opens for a moment in which the slow task does not run.
        world.gate(Gate::Open);
        let mut quick = world.start(&other, |ask| async move {
            increment(&ask.session().await?)?;
            Ok(status(200))
        });
        let Poll::Ready(quick) = poll(&mut quick) else { panic!("nothing to wait for") };
        other.store(quick.unwrap().headers());
        jar.store(slow.await.unwrap().headers());
        assert_eq!(world.events.take(), ["conflict_merged:1"]);
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1), ("n", 4)]));
    });
}

/// A slow request does not bring back a session that another one ended.
#[test]
fn t34_a_slow_request_does_not_bring_back_a_session_that_was_ended() {
    let deeds: [Act; 3] = [|session| session.set("b", 2_u64), increment, Session::regenerate];
    let ends: [Act; 2] = [Session::destroy, Session::clear];
    on_server(|world| async move {
        for (deed, end) in deeds.into_iter().flat_map(|deed| ends.map(|end| (deed, end))) {
            let jar = world.jar().await;
            let (open, gate) = tokio::sync::oneshot::channel::<()>();
            let gate = Mutex::new(Some(gate));
            let mut slow = world.start(&jar, move |ask| {
                let gate = gate.lock().unwrap().take().unwrap();
                async move {
                    let session = ask.session().await?;
                    gate.await.unwrap();
                    deed(&session)?;
                    Ok(status(200))
                }
            });
            assert!(poll(&mut slow).is_pending());
            assert_removed(&world, &world.edit(&mut jar.clone(), end).await);
            open.send(()).unwrap();
            let response = slow.await.unwrap();
            assert_eq!(response.status(), 200);
            assert_no_cookie(&response);
            assert_eq!(world.rows().await, 0);
            assert_eq!(world.events.take(), ["dropped:session_ended"]);
        }
    });
}

// Several sessions.

/// Two named sessions around one handler: each has its cookie, its store and its end.
#[test]
fn named_sessions_live_side_by_side() {
    block_on(async {
        let named = |name: &str| Setup { cookie: CookieOptions::new().name(name), ..Setup::default() };
        let outer = World::new(Kind::Cookie, Form::Service, &named("__Host-o"));
        let inner = World::new(Kind::Server, Form::Service, &named("__Host-i"));
        let handler = service_fn(|request: Request<Body>| async move {
            let (parts, _) = request.into_parts();
            match parts.uri.path() {
                "/both" => {
                    parts.session_named("__Host-o").await?.set("a", 1_u64)?;
                    parts.session_named("__Host-i").await?.set("a", 2_u64)?;
                    parts.session().await?.set("innermost", 1_u64)?;
                }
                "/end-outer" => parts.session_named("__Host-o").await?.destroy()?,
                "/fail" => {
                    parts.session_named("__Host-o").await?.set("a", 8_u64)?;
                    parts.session_named("__Host-i").await?.set("a", 9_u64)?;
                }
                "/absent" => {
                    assert!(parts.session_named("__Host-x").await.unwrap_err().is_not_wrapped());
                    assert!(parts.session_named("__Host-").await.unwrap_err().is_not_wrapped());
                }
                _ => {}
            }
            Ok::<_, Error>(status(200))
        });
        let service = SessionService::new(
            SessionService::new(handler, Arc::clone(&inner.store)),
            Arc::clone(&outer.store),
        );

        let mut jar = Jar::new();
        let response = support::visit(&service, "/both", &mut jar).await;
        let lines = set_cookies(response.headers());
        assert!(lines[0].starts_with("__Host-i=") && lines[1].starts_with("__Host-o="), "{lines:?}");
        assert_eq!(lines.len(), 2);
        assert_eq!(ordered(response.headers()).iter().filter(|(name, _)| name == VARY).count(), 1);
        assert_eq!(outer.values(&jar).await, pairs(&[("a", 1)]));
        assert_eq!(inner.values(&jar).await, pairs(&[("a", 2), ("innermost", 1)]));

        assert!(support::visit(&service, "/", &mut jar).await.headers().is_empty());
        assert!(support::visit(&service, "/absent", &mut jar).await.headers().is_empty());

        // If the inner one cannot be saved, the answer is a 503, and so the outer one drops its values, too.
        inner.fail(&[Verb::Replace]);
        let response = support::visit(&service, "/fail", &mut jar).await;
        inner.fail(&[]);
        assert_eq!(response.status(), 503);
        assert_no_cookie(&response);
        assert_eq!(outer.values(&jar).await, pairs(&[("a", 1)]));
        assert_eq!(inner.values(&jar).await, pairs(&[("a", 2), ("innermost", 1)]));

        assert_removed(&outer, &support::visit(&service, "/end-outer", &mut jar).await);
        assert_eq!(jar.0.keys().collect::<Vec<_>>(), ["__Host-i"]);
        assert_eq!(inner.values(&jar).await, pairs(&[("a", 2), ("innermost", 1)]));
    });
}

#[test]
fn without_a_session_service_the_handler_is_told() {
    block_on(async {
        assert!(request("/", None).session().await.unwrap_err().is_not_wrapped());
        assert!(request("/", None).session_named("session").await.unwrap_err().is_not_wrapped());
    });
}

// Flash values.

#[test]
fn a_flash_value_is_seen_once() {
    everywhere(|world| async move {
        let mut jar = world.jar().await;
        assert_set(&world, &world.edit(&mut jar, |session| session.set_flash("f", 3_u64)).await);
        let peek = |session: &Session| {
            assert_eq!(session.peek::<u64>("f")?, Some(3));
            assert_eq!(
                (session.keys(), session.has("f")),
                (vec!["a".to_owned()], false),
                "a namespace of its own"
            );
            Ok(())
        };
        assert_no_cookie(&world.edit(&mut jar, peek).await);
        let take = |session: &Session| {
            assert_eq!(session.flash::<u64>("f")?, Some(3));
            assert_eq!(session.flash::<u64>("f")?, None);
            Ok(())
        };
        assert_set(&world, &world.edit(&mut jar, take).await);
        assert_eq!(world.look(&jar, |session| session.peek::<u64>("f").unwrap()).await, None);
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]));
    });
}

/// "returned a 5xx | data changes dropped": a flash value that the user did not see is still there.
#[test]
fn a_flash_value_is_kept_when_the_handler_fails() {
    everywhere(|world| async move {
        let mut jar = world.jar().await;
        world.edit(&mut jar, |session| session.set_flash("f", 3_u64)).await;
        let take = |session: &Session| {
            assert_eq!(session.flash::<u64>("f")?, Some(3));
            Ok(())
        };
        assert_no_cookie(&world.answer(&mut jar, 500, take).await);
        let fails = |ask: Ask| async move {
            assert_eq!(ask.session().await?.flash::<u64>("f")?, Some(3));
            Err(Error::unavailable("the handler's own trouble"))
        };
        assert!(world.start(&jar, fails).await.is_err());
        assert_set(&world, &world.edit(&mut jar, take).await);
        assert_eq!(world.look(&jar, |session| session.peek::<u64>("f").unwrap()).await, None);
    });
}
