//! A store of either kind, a clock, a browser, and a backend whose rows can be read.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::header::{COOKIE, HeaderValue};
use http::{Request, Response};
use hyper::service::{Service, service_fn};
use hyper_session::__internals::MAX_CHUNKS;
use hyper_session::cookie::CookieOptions;
use hyper_session::store::{Backend, Builder, EntryId, Replaced, Store, Stored};
use hyper_session::testing::FakeClock;
use hyper_session::{
    AppKey, CookieStore, Error, Keyring, MemoryStore, ServerStore, Session, SessionExt, SessionId,
    SessionService, Timestamp,
};

use crate::support::{Body, Events, Jar, block_on, is_session, request, set_cookies, status};

/// An action of a handler on its session.
pub(crate) type Act = fn(&Session) -> Result<(), Error>;

pub(crate) const START: u64 = 1_700_000_000;
pub(crate) const IDLE: u64 = 1_000;
pub(crate) const ABSOLUTE: u64 = 5_000;
pub(crate) const NAME: &str = "__Host-session";
/// The value that the tests look for where it must not be.
pub(crate) const VALUE: &str = "hunter2-hunter2";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Cookie,
    Memory,
}

pub(crate) const KINDS: [Kind; 2] = [Kind::Cookie, Kind::Memory];

/// A store, its clock, and what it told.
#[derive(Clone)]
pub(crate) struct TestStore {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: FakeClock,
    pub(crate) events: Events,
}

pub(crate) struct Options {
    pub(crate) cookie: CookieOptions,
    pub(crate) keys: Keyring,
    pub(crate) idle: Duration,
    pub(crate) absolute: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cookie: CookieOptions::new().max_chunks(MAX_CHUNKS),
            keys: AppKey::generate().unwrap().into(),
            idle: Duration::from_secs(IDLE),
            absolute: Duration::from_secs(ABSOLUTE),
        }
    }
}

impl Options {
    pub(crate) fn with_cookie(cookie: CookieOptions) -> Self {
        Self { cookie, ..Self::default() }
    }

    pub(crate) fn with_keys(keys: impl Into<Keyring>) -> Self {
        Self { keys: keys.into(), ..Self::default() }
    }

    fn apply<K>(&self, builder: Builder<K>, clock: &FakeClock, events: &Events) -> Builder<K> {
        let builder =
            builder.cookie(self.cookie.clone()).idle_timeout(self.idle).absolute_timeout(self.absolute);
        builder.clock(clock.clone()).observer(events.clone())
    }

    pub(crate) fn build(self, kind: Kind) -> TestStore {
        let (clock, events) = (FakeClock::at(START), Events::new());
        let store: Arc<dyn Store> = match kind {
            Kind::Cookie => {
                let builder = CookieStore::builder(self.keys.clone());
                Arc::new(self.apply(builder, &clock, &events).build().unwrap())
            }
            Kind::Memory => Arc::new(self.apply(MemoryStore::builder(), &clock, &events).build().unwrap()),
        };
        TestStore { store, clock, events }
    }

    /// A server-side store over rows that the test can see and change.
    pub(crate) fn over(self, rows: &Rows) -> TestStore {
        let (clock, events) = (FakeClock::at(START), Events::new());
        let builder = ServerStore::with_backend(rows.clone());
        TestStore { store: Arc::new(self.apply(builder, &clock, &events).build().unwrap()), clock, events }
    }
}

impl TestStore {
    pub(crate) fn new(kind: Kind) -> Self {
        Options::default().build(kind)
    }

    pub(crate) async fn send<A>(&self, request: Request<Body>, act: A) -> Response<Body>
    where
        A: Fn(&Session) -> Result<Response<Body>, Error> + Clone,
    {
        let handler = service_fn(|request: Request<Body>| {
            let act = act.clone();
            async move { act(&request.session().await?) }
        });
        SessionService::new(handler, Arc::clone(&self.store)).call(request).await.expect("a response")
    }

    pub(crate) async fn edit<A>(&self, jar: &mut Jar, act: A) -> Response<Body>
    where
        A: Fn(&Session) -> Result<(), Error> + Clone,
    {
        let request = request("/", jar.header().as_deref());
        let response = self.send(request, |session| act(session).map(|()| status(200))).await;
        jar.store(response.headers());
        response
    }

    /// The value that a request with this `Cookie` header sees under `a`, and the response to it.
    pub(crate) async fn present(&self, cookie: &[u8]) -> (Option<String>, Response<Body>) {
        let seen = Mutex::new(None);
        let mut request = request("/", None);
        request.headers_mut().insert(COOKIE, HeaderValue::from_bytes(cookie).unwrap());
        let response = self
            .send(request, |session| {
                assert_eq!(session.is_empty(), session.id().is_none());
                *seen.lock().unwrap() = session.get::<String>("a")?;
                Ok(Response::new(Body::from(session.keys().join(","))))
            })
            .await;
        (seen.into_inner().unwrap(), response)
    }

    /// The value under `a` of this jar's session, in a request whose response the jar does not get.
    pub(crate) async fn value(&self, jar: &Jar) -> Option<String> {
        self.present(jar.header().unwrap_or_default().as_bytes()).await.0
    }

    pub(crate) async fn id(&self, jar: &Jar) -> Option<SessionId> {
        let id = Mutex::new(None);
        self.edit(&mut jar.clone(), |session| {
            *id.lock().unwrap() = session.id();
            Ok(())
        })
        .await;
        id.into_inner().unwrap()
    }

    /// A jar with the stored session `{a: VALUE}`. Events so far are forgotten.
    pub(crate) async fn jar(&self) -> Jar {
        let mut jar = Jar::new();
        self.edit(&mut jar, |session| session.set("a", VALUE)).await;
        assert_eq!(self.value(&jar).await.as_deref(), Some(VALUE));
        self.events.take();
        jar
    }

    pub(crate) async fn token(&self) -> String {
        self.jar().await.0.into_values().next().unwrap()
    }
}

pub(crate) fn on_both<T: Future<Output = ()>>(scenario: impl Fn(Kind, TestStore) -> T) {
    for kind in KINDS {
        println!("{kind:?}"); // shown if the scenario fails
        block_on(scenario(kind, TestStore::new(kind)));
    }
}

/// A backend whose rows a test can see and change.
#[derive(Clone, Default)]
pub(crate) struct Rows(Arc<Mutex<Table>>);

#[derive(Default)]
pub(crate) struct Table {
    pub(crate) rows: BTreeMap<EntryId, Stored>,
    pub(crate) fetched: Vec<EntryId>,
    /// Each deadline of a session that was written: when, and which.
    pub(crate) deadlines: Vec<(Timestamp, Timestamp)>,
    /// As `deadlines`, of what a regenerated session leaves behind.
    pub(crate) marks: Vec<(Timestamp, Timestamp)>,
    /// Breaks the contract: entries that are over are handed out all the same.
    pub(crate) keeps_for_ever: bool,
}

impl Table {
    fn live(&self, id: EntryId, now: Timestamp) -> Option<&Stored> {
        self.rows.get(&id).filter(|stored| self.keeps_for_ever || stored.expires > now)
    }

    fn put(&mut self, id: EntryId, entry: Stored, now: Timestamp) {
        let deadlines = if is_session(&entry.value) { &mut self.deadlines } else { &mut self.marks };
        deadlines.push((now, entry.expires));
        self.rows.insert(id, entry);
    }
}

impl Rows {
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut Table) -> R) -> R {
        work(&mut self.0.lock().unwrap())
    }

    pub(crate) fn ids(&self) -> Vec<SessionId> {
        self.with(|table| table.rows.keys().map(|id| SessionId::from_bytes(id.to_bytes())).collect())
    }

    /// Replaces the value of the only row by `value`.
    pub(crate) fn tamper(&self, value: &[u8]) {
        self.with(|table| {
            assert_eq!(table.rows.len(), 1);
            table.rows.values_mut().for_each(|stored| stored.value = Bytes::copy_from_slice(value));
        });
    }

    pub(crate) fn only_value(&self) -> Bytes {
        self.with(|table| {
            assert_eq!(table.rows.len(), 1);
            table.rows.values().next().unwrap().value.clone()
        })
    }
}

impl Backend for Rows {
    async fn fetch(&self, id: EntryId, now: Timestamp) -> Result<Option<Stored>, Error> {
        Ok(self.with(|table| {
            table.fetched.push(id);
            table.live(id, now).cloned()
        }))
    }

    async fn create(&self, id: EntryId, entry: Stored, now: Timestamp) -> Result<bool, Error> {
        Ok(self.with(|table| {
            if let Some(present) = table.live(id, now) {
                return present.value == entry.value;
            }
            table.put(id, entry, now);
            true
        }))
    }

    async fn replace(
        &self,
        id: EntryId,
        expected: Bytes,
        entry: Option<Stored>,
        now: Timestamp,
    ) -> Result<Replaced, Error> {
        Ok(self.with(|table| match table.live(id, now).cloned() {
            None => Replaced::Missing,
            Some(current)
                if current.value != expected
                    && entry.as_ref().is_none_or(|entry| entry.value != current.value) =>
            {
                Replaced::Conflict(current)
            }
            Some(_) => {
                match entry {
                    Some(entry) => table.put(id, entry, now),
                    None => drop(table.rows.remove(&id)),
                }
                Replaced::Done
            }
        }))
    }

    async fn touch(&self, id: EntryId, expires: Timestamp, now: Timestamp) -> Result<bool, Error> {
        Ok(self.with(|table| match table.live(id, now).cloned() {
            None => false,
            Some(stored) => {
                table.put(id, Stored { expires, ..stored }, now);
                true
            }
        }))
    }

    async fn delete(&self, id: EntryId) -> Result<(), Error> {
        self.with(|table| table.rows.remove(&id));
        Ok(())
    }
}

pub(crate) fn assert_removed(response: &Response<Body>) {
    let lines = set_cookies(response.headers());
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with(&format!("{NAME}=; Max-Age=0; ")), "{lines:?}");
}
