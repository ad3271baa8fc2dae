//! A backend that records what is stored, requests that do one deed, and what is stored afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use hyper::service::service_fn;
use hyper_session::store::{Backend, EntryId, Replaced, Stored};
use hyper_session::testing::FakeClock;
use hyper_session::{Error, ServerStore, Session, SessionExt, SessionId, SessionService, Timestamp};
use tokio::task::yield_now;

use crate::support::{Body, Events, Jar, is_session, status, visit};
use crate::test_backend::Place;

pub(crate) const NAME: &str = "__Host-session";
pub(crate) const START: u64 = 1_000_000;

pub(crate) const IDLE: u64 = 600;
pub(crate) const ABSOLUTE: u64 = 2_000;
pub(crate) const RENEWAL: u64 = 60;

/// The shared session began at `START`; the requests come later, when its renewal is due.
pub(crate) const NOW: u64 = START + RENEWAL;

pub(crate) type Values = BTreeMap<String, i64>;

/// `Memory`, with a list of the ids of sessions that are stored; each call waits for its turn, once, where `in_turns` is true. A clone
/// is the same backend, so that several servers can share it.
#[derive(Clone, Default)]
pub(crate) struct Watched {
    pub(crate) memory: Arc<Place>,
    stored: Arc<Mutex<BTreeSet<EntryId>>>,
    in_turns: bool,
}

impl Watched {
    pub(crate) fn in_turns() -> Self {
        Self { in_turns: true, ..Self::default() }
    }

    /// The same backend, taking turns.
    pub(crate) fn taking_turns(&self) -> Self {
        Self { in_turns: true, ..self.clone() }
    }

    /// Every poll of a request is a permit to make one call: the test that polls decides on the order of all calls.
    async fn turn(&self) {
        if self.in_turns {
            yield_now().await;
        }
    }

    pub(crate) fn ids(&self) -> BTreeSet<SessionId> {
        let stored = self.stored.lock().unwrap();
        stored.iter().map(|id| SessionId::from_bytes(id.to_bytes())).collect()
    }
}

impl Backend for Watched {
    async fn fetch(&self, id: EntryId, now: Timestamp) -> Result<Option<Stored>, Error> {
        self.turn().await;
        self.memory.fetch(id, now).await
    }

    async fn create(&self, id: EntryId, entry: Stored, now: Timestamp) -> Result<bool, Error> {
        self.turn().await;
        let is_session = is_session(&entry.value);
        let created = self.memory.create(id, entry, now).await?;
        if created && is_session {
            self.stored.lock().unwrap().insert(id);
        }
        Ok(created)
    }

    async fn replace(
        &self,
        id: EntryId,
        expected: Bytes,
        entry: Option<Stored>,
        now: Timestamp,
    ) -> Result<Replaced, Error> {
        self.turn().await;
        let is_session = entry.as_ref().is_some_and(|entry| is_session(&entry.value));
        let replaced = self.memory.replace(id, expected, entry, now).await?;
        if replaced == Replaced::Done {
            let mut stored = self.stored.lock().unwrap();
            if is_session {
                stored.insert(id)
            } else {
                stored.remove(&id)
            };
        }
        Ok(replaced)
    }

    async fn touch(&self, id: EntryId, expires: Timestamp, now: Timestamp) -> Result<bool, Error> {
        self.turn().await;
        self.memory.touch(id, expires, now).await
    }

    async fn renew(
        &self,
        id: EntryId,
        seen: Stored,
        expires: Timestamp,
        now: Timestamp,
    ) -> Result<Replaced, Error> {
        self.turn().await;
        self.memory.renew(id, seen, expires, now).await
    }

    async fn delete(&self, id: EntryId) -> Result<(), Error> {
        self.turn().await;
        self.memory.delete(id).await?;
        self.stored.lock().unwrap().remove(&id);
        Ok(())
    }
}

/// The action of one of several requests on the session that they share, which is `n = 5` at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    Set,
    Update,
    DeleteLast,
    Clear,
    Regenerate,
    RegenerateAndSet,
    Destroy,
    DestroyAndSet,
    Touch,
    /// Not in `DEEDS`: it has a test of its own.
    RegenerateAndDeleteLast,
}

/// A session: when it began, and its values.
pub(crate) type State = (u64, Values);

impl Deed {
    pub(crate) fn perform(self, session: &Session, client: usize) -> Result<(), Error> {
        let set = || session.set(&format!("client{client}"), 1);
        match self {
            Self::Set => set(),
            Self::Update => session.update("n", |old: Option<i64>| old.unwrap_or(0) + 1).map(drop),
            Self::DeleteLast => session.delete("n").map(drop),
            Self::Clear => session.clear(),
            Self::Regenerate => session.regenerate(),
            Self::RegenerateAndSet => session.regenerate().and_then(|()| set()),
            Self::Destroy => session.destroy(),
            Self::DestroyAndSet => session.destroy().and_then(|()| set()),
            Self::RegenerateAndDeleteLast => {
                session.regenerate().and_then(|()| session.delete("n").map(drop))
            }
            Self::Touch => session.get::<i64>("n").map(drop),
        }
    }

    fn sets(self) -> bool {
        matches!(self, Self::Set | Self::RegenerateAndSet | Self::DestroyAndSet)
    }

    pub(crate) fn regenerates(self) -> bool {
        matches!(
            self,
            Self::Regenerate | Self::RegenerateAndSet | Self::RegenerateAndDeleteLast | Self::DestroyAndSet
        )
    }

    pub(crate) fn starts_over(self) -> bool {
        self == Self::DestroyAndSet
    }

    pub(crate) fn ends(self) -> bool {
        matches!(self, Self::DeleteLast | Self::RegenerateAndDeleteLast | Self::Clear | Self::Destroy)
    }

    /// The result of this action without the others, at `NOW`: the session after it, if there is one.
    pub(crate) fn alone(self, client: usize, (created, mut values): State) -> Option<State> {
        let created = if self == Self::DestroyAndSet { NOW } else { created };
        if matches!(self, Self::Clear | Self::Destroy | Self::DestroyAndSet) {
            values.clear();
        }
        if self == Self::Update {
            *values.entry("n".to_owned()).or_default() += 1;
        }
        if matches!(self, Self::DeleteLast | Self::RegenerateAndDeleteLast) {
            values.remove("n");
        }
        if self.sets() {
            values.insert(format!("client{client}"), 1);
        }
        (!values.is_empty()).then_some((created, values))
    }
}

pub(crate) fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Polls to the end: nothing here waits for anything but a turn.
pub(crate) fn run<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    for _ in 0..10_000 {
        if let Poll::Ready(output) = poll_once(future.as_mut()) {
            return output;
        }
    }
    panic!("a future that does not end");
}

/// A server's store over `backend`. Requests that are interleaved each have a server of their own, as no server can rely
/// on seeing the others' requests.
pub(crate) fn server(backend: &Watched, clock: &FakeClock, events: &Events) -> ServerStore<Watched> {
    ServerStore::with_backend(backend.clone())
        .idle_timeout(Duration::from_secs(IDLE))
        .renewal_threshold(Duration::from_secs(RENEWAL))
        .clock(clock.clone())
        .observer(events.clone())
        .build()
        .unwrap()
}

/// The jar of a client that has the shared session.
pub(crate) fn shared_session(store: &ServerStore<Watched>) -> Jar {
    let service = SessionService::new(
        service_fn(|request: Request<Body>| async move {
            request.session().await?.set("n", 5)?;
            Ok::<_, Error>(status(200))
        }),
        store.clone(),
    );
    let mut jar = Jar::new();
    run(visit(&service, "/", &mut jar));
    jar
}

/// The session that a cookie leads to.
#[derive(Clone)]
pub(crate) struct Found {
    pub(crate) id: SessionId,
    pub(crate) expires: u64,
    pub(crate) state: State,
}

pub(crate) fn look(store: &ServerStore<Watched>, jar: &Jar) -> Option<Found> {
    let found = Arc::new(Mutex::new(None));
    let to_fill = Arc::clone(&found);
    let service = SessionService::new(
        service_fn(move |request: Request<Body>| {
            let found = Arc::clone(&to_fill);
            async move {
                let session = request.session().await?;
                let values = session.keys().into_iter().map(|key| {
                    let value = session.get(&key).unwrap().unwrap();
                    (key, value)
                });
                *found.lock().unwrap() = session.id().map(|id| Found {
                    id,
                    expires: session.expires_at().unwrap().as_unix(),
                    state: (session.created_at().unwrap().as_unix(), values.collect()),
                });
                Ok::<_, Error>(status(200))
            }
        }),
        store.clone(),
    );
    run(visit(&service, "/", &mut jar.clone()));
    found.lock().unwrap().take()
}
