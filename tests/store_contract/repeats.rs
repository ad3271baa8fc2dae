//! Steps whose answers are lost: repeated by the backend, or reported as failed although they were done.

use std::sync::Mutex;

use bytes::Bytes;
use http::Request;
use hyper::service::service_fn;
use hyper_session::store::{Backend, EntryId, Memory, Replaced, Stored};
use hyper_session::testing::FakeClock;
use hyper_session::{Clock, Error, ServerStore, Session, SessionExt, SessionService, Timestamp};

use crate::concurrent_requests::{START, run};
use crate::support::{Body, Jar, is_session, status, visit};

/// The consequence of an answer that is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lost {
    /// The step is done again, as a backend may that lost its connection.
    Repeated,
    /// The step was done, and the store gets an error.
    Reported,
}

/// Memory behind a connection that loses the answer to one write.
struct Lossy {
    memory: Memory,
    lost: Lost,
    /// How many writes pass before the one whose answer is lost.
    countdown: Mutex<Option<usize>>,
    sessions: Mutex<Vec<EntryId>>,
}

impl Lossy {
    fn new(lost: Lost) -> Self {
        Self { memory: Memory::new(), lost, countdown: Mutex::default(), sessions: Mutex::default() }
    }

    fn loses_this_one(&self) -> bool {
        let mut countdown = self.countdown.lock().unwrap();
        let now = *countdown == Some(0);
        *countdown = countdown.and_then(|left| left.checked_sub(1));
        now
    }

    /// The consequence for a step that was done just now, if its answer is lost.
    fn fate(&self) -> Option<Lost> {
        let lost = self.loses_this_one();
        lost.then_some(self.lost)
    }

    /// The sessions that are there, of all that ever were.
    async fn live(&self, now: Timestamp) -> usize {
        let mut live = 0;
        let ids = self.sessions.lock().unwrap().clone();
        for id in ids {
            let stored = self.memory.fetch(id, now).await.unwrap();
            live += usize::from(stored.is_some_and(|stored| is_session(&stored.value)));
        }
        live
    }
}

fn lost() -> Error {
    Error::unavailable("the answer was lost")
}

impl Backend for Lossy {
    async fn fetch(&self, id: EntryId, now: Timestamp) -> Result<Option<Stored>, Error> {
        self.memory.fetch(id, now).await
    }

    async fn create(&self, id: EntryId, entry: Stored, now: Timestamp) -> Result<bool, Error> {
        self.sessions.lock().unwrap().push(id);
        let answer = self.memory.create(id, entry.clone(), now).await;
        match self.fate() {
            Some(Lost::Repeated) => self.memory.create(id, entry.clone(), now).await,
            Some(Lost::Reported) => Err(lost()),
            None => answer,
        }
    }

    async fn replace(
        &self,
        id: EntryId,
        expected: Bytes,
        entry: Option<Stored>,
        now: Timestamp,
    ) -> Result<Replaced, Error> {
        // A removal that is repeated finds nothing, and would look like the removal of another request.
        let answer = self.memory.replace(id, expected.clone(), entry.clone(), now).await;
        match self.fate() {
            Some(Lost::Repeated) if entry.is_some() => self.memory.replace(id, expected, entry, now).await,
            Some(Lost::Reported) => Err(lost()),
            _ => answer,
        }
    }

    async fn touch(&self, id: EntryId, expires: Timestamp, now: Timestamp) -> Result<bool, Error> {
        let answer = self.memory.touch(id, expires, now).await;
        match self.fate() {
            Some(Lost::Repeated) => self.memory.touch(id, expires, now).await,
            Some(Lost::Reported) => Err(lost()),
            None => answer,
        }
    }

    async fn delete(&self, id: EntryId) -> Result<(), Error> {
        let answer = self.memory.delete(id).await;
        match self.fate() {
            Some(Lost::Repeated) => self.memory.delete(id).await,
            Some(Lost::Reported) => Err(lost()),
            None => answer,
        }
    }
}

type Act = fn(&Session) -> Result<(), Error>;

fn add(session: &Session) -> Result<(), Error> {
    session.update("n", |old: Option<i64>| old.unwrap_or(0) + 1).map(drop)
}

const ACTS: [(&str, Act); 5] = [
    ("update", add),
    ("regenerate", |session| add(session).and_then(|()| session.regenerate())),
    ("login", |session| add(session).and_then(|()| session.login("ada"))),
    ("login again", |session| session.login("ada").and_then(|()| add(session))),
    ("another login", |session| session.login("bob").and_then(|()| session.set("n", 6))),
];

struct Served {
    code: u16,
    jar: Jar,
}

async fn serve(store: &ServerStore<Lossy>, mut jar: Jar, act: Act) -> Served {
    let handler = service_fn(move |request: Request<Body>| async move {
        act(&request.session().await?)?;
        Ok::<_, Error>(status(200))
    });
    let service = SessionService::new(handler, store.clone());
    let code = visit(&service, "/", &mut jar).await.status().as_u16();
    Served { code, jar }
}

async fn number(store: &ServerStore<Lossy>, jar: &Jar) -> Option<i64> {
    let found = std::sync::Arc::new(Mutex::new(None));
    let to_fill = std::sync::Arc::clone(&found);
    let handler = service_fn(move |request: Request<Body>| {
        let found = std::sync::Arc::clone(&to_fill);
        async move {
            *found.lock().unwrap() = request.session().await?.get::<i64>("n")?;
            Ok::<_, Error>(status(200))
        }
    });
    visit(&SessionService::new(handler, store.clone()), "/", &mut jar.clone()).await;
    found.lock().unwrap().take()
}

/// Loses the answer to each write of each act in turn, on a session without a subject and on one of "ada"; `check` judges.
/// Returns how many answers were lost.
fn lose_each_answer(lost: Lost, check: impl Fn(&str, &Served, Option<i64>, Option<i64>, usize)) -> usize {
    let mut count = 0;
    for (name, act) in ACTS {
        for begin in [(|session| session.set("n", 5)) as Act, |session| {
            session.set("n", 5).and_then(|()| session.login("ada"))
        }] {
            for nth in 0.. {
                let clock = FakeClock::at(START);
                let store = ServerStore::with_backend(Lossy::new(lost)).clock(clock.clone()).build().unwrap();
                let begun = run(serve(&store, Jar::new(), begin));
                *store.backend().countdown.lock().unwrap() = Some(nth);
                let served = run(serve(&store, begun.jar.clone(), act));
                if store.backend().countdown.lock().unwrap().take().is_some() {
                    assert_eq!(served.code, 200);
                    break; // it has fewer writes
                }
                count += 1;
                let (old, new) = (run(number(&store, &begun.jar)), run(number(&store, &served.jar)));
                let live = run(store.backend().live(clock.now()));
                check(&format!("{name}, write {nth}"), &served, old, new, live);
            }
        }
    }
    count
}

/// The backend does the step again: it is counted once, and the request succeeds.
#[test]
fn r2_a_step_that_is_repeated_is_done_once() {
    let lost = lose_each_answer(Lost::Repeated, |context, served, _, new, live| {
        assert_eq!((served.code, new, live), (200, Some(6), 1), "{context}");
    });
    assert!(lost >= 20, "{lost}");
}

/// The store gets an error, and the change was made once or not at all.
#[test]
fn r12_an_answer_that_is_lost_is_a_failure_and_counts_nothing_twice() {
    let lost = lose_each_answer(Lost::Reported, |context, served, old, new, live| {
        // A step that only tidies up may fail in silence.
        if served.code == 200 {
            assert_eq!((new, live), (Some(6), 1), "{context}");
        } else {
            assert_eq!(served.code, 503, "{context}");
            assert!(matches!(old, None | Some(5 | 6)) && old == new, "{context}: {old:?} {new:?}");
        }
    });
    assert!(lost >= 20, "{lost}");
}
