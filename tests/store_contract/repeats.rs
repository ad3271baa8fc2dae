//! Steps whose answers are lost: repeated by the backend, or reported as failed although they were done.

use std::sync::{Arc, Mutex};

use http::{Request, Response};
use hyper::service::{Service, service_fn};
use hyper_session::store::{Backend, EntryId, Memory};
use hyper_session::testing::{FakeClock, Fault, Faulty, Primitive};
use hyper_session::{Clock, Error, ServerStore, Session, SessionExt, SessionService, Timestamp};

use crate::concurrent_requests::{START, run};
use crate::support::{Body, Jar, is_session, request, set_cookies, status, visit};

/// Memory behind a connection that loses the reply to one write.
struct Lossy {
    memory: Arc<Memory>,
    backend: Faulty<Arc<Memory>>,
    /// The number of writes before the one whose reply is lost.
    countdown: Arc<Mutex<Option<usize>>>,
    created: Arc<Mutex<Vec<EntryId>>>,
}

impl Lossy {
    fn new(fault: Fault) -> Self {
        let memory = Arc::new(Memory::new());
        let backend = Faulty::new(Arc::clone(&memory));
        let (countdown, created) = (Arc::<Mutex<Option<usize>>>::default(), Arc::<Mutex<Vec<_>>>::default());
        let (left, ids) = (Arc::clone(&countdown), Arc::clone(&created));
        backend.intercept(move |call| {
            if call.primitive == Primitive::Fetch {
                return None;
            }
            if call.primitive == Primitive::Create {
                ids.lock().unwrap().push(call.id);
            }
            let mut left = left.lock().unwrap();
            let lost = *left == Some(0);
            *left = left.and_then(|left| left.checked_sub(1));
            // A removal that is repeated finds nothing, and would take that for another client's doing.
            let removes = call.primitive == Primitive::Replace && call.entry.is_none();
            (lost && !(removes && fault == Fault::Repeated)).then_some(fault)
        });
        Self { memory, backend, countdown, created }
    }

    /// The sessions that are stored, of all that ever were.
    async fn live(&self, now: Timestamp) -> usize {
        let mut live = 0;
        let ids = self.created.lock().unwrap().clone();
        for id in ids {
            let stored = self.memory.fetch(id, now).await.unwrap();
            live += usize::from(stored.is_some_and(|stored| is_session(&stored.value)));
        }
        live
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

async fn serve(store: &ServerStore<Faulty<Arc<Memory>>>, mut jar: Jar, act: Act) -> Served {
    let handler = service_fn(move |request: Request<Body>| async move {
        act(&request.session().await?)?;
        Ok::<_, Error>(status(200))
    });
    let service = SessionService::new(handler, store.clone());
    let code = visit(&service, "/", &mut jar).await.status().as_u16();
    Served { code, jar }
}

async fn number(store: &ServerStore<Faulty<Arc<Memory>>>, jar: &Jar) -> Option<i64> {
    let found = Arc::new(Mutex::new(None));
    let to_fill = Arc::clone(&found);
    let handler = service_fn(move |request: Request<Body>| {
        let found = Arc::clone(&to_fill);
        async move {
            *found.lock().unwrap() = request.session().await?.get::<i64>("n")?;
            Ok::<_, Error>(status(200))
        }
    });
    visit(&SessionService::new(handler, store.clone()), "/", &mut jar.clone()).await;
    found.lock().unwrap().take()
}

/// Loses the answer to each write of each act in turn, on an anonymous session and on one of "ada"; `check` judges. Returns
/// how many answers were lost.
fn lose_each_answer(fault: Fault, check: impl Fn(&str, &Served, Option<i64>, Option<i64>, usize)) -> usize {
    let mut count = 0;
    for (name, act) in ACTS {
        for begin in [(|session| session.set("n", 5)) as Act, |session| {
            session.set("n", 5).and_then(|()| session.login("ada"))
        }] {
            for nth in 0.. {
                let clock = FakeClock::at(START);
                let lossy = Lossy::new(fault);
                let builder = ServerStore::with_backend(lossy.backend.clone());
                let store = builder.clock(clock.clone()).build().unwrap();
                let begun = run(serve(&store, Jar::new(), begin));
                *lossy.countdown.lock().unwrap() = Some(nth);
                let served = run(serve(&store, begun.jar.clone(), act));
                if lossy.countdown.lock().unwrap().take().is_some() {
                    assert_eq!(served.code, 200);
                    break; // it has fewer writes
                }
                count += 1;
                let (old, new) = (run(number(&store, &begun.jar)), run(number(&store, &served.jar)));
                let live = run(lossy.live(clock.now()));
                check(&format!("{name}, write {nth}"), &served, old, new, live);
            }
        }
    }
    count
}

/// The backend does the step again: it is counted once, and the request succeeds.
#[test]
fn r2_a_step_that_is_repeated_is_done_once() {
    let lost = lose_each_answer(Fault::Repeated, |context, served, _, new, live| {
        assert_eq!((served.code, new, live), (200, Some(6), 1), "{context}");
    });
    assert!(lost >= 20, "{lost}");
}

/// The store gets an error, and the change was made once or not at all.
#[test]
fn r12_an_answer_that_is_lost_is_a_failure_and_counts_nothing_twice() {
    let lost = lose_each_answer(Fault::AnswerLost, |context, served, old, new, live| {
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

/// The load of a request with a token that this host does not know fails at the second cookie, and the handler loads again: the
/// failed load leaves nothing behind, so the logout ends each session once.
#[test]
fn a_logout_after_a_load_that_failed_ends_each_session_once() {
    async fn handle(request: Request<Body>) -> Result<Response<Body>, Error> {
        let session = match request.session().await {
            Ok(session) => session,
            Err(_) => request.session().await?,
        };
        match request.uri().path() {
            "/login" => session.set("user", "ada")?,
            _ => session.destroy()?,
        }
        Ok(status(200))
    }
    // The calls of the backend in such a logout.
    let logout = |fails: bool| {
        let backend = Faulty::new(Memory::new());
        let store = ServerStore::with_backend(backend.clone()).build().unwrap();
        let send = |path: &str, cookie: Option<&str>| {
            let service = SessionService::new(service_fn(handle), store.clone());
            let response = run(service.call(request(path, cookie))).unwrap();
            assert_eq!(response.status(), 200, "{path}");
            let lines = set_cookies(response.headers());
            lines.first().map(|line| line.split(';').next().unwrap().to_owned()).unwrap_or_default()
        };
        let (ended, other) = (send("/login", None), send("/login", None));
        send("/logout", Some(&ended));
        let calls = Arc::<Mutex<Vec<Primitive>>>::default();
        let noted = Arc::clone(&calls);
        backend.intercept(move |call| {
            let mut noted = noted.lock().unwrap();
            noted.push(call.primitive);
            (fails && noted.len() == 2).then_some(Fault::Unreachable)
        });
        send("/logout", Some(&format!("{ended}; {other}")));
        calls.lock().unwrap().clone()
    };
    let failed_load = vec![Primitive::Fetch; 2];
    let ended = logout(false);
    assert!(ended.contains(&Primitive::Replace), "{ended:?}");
    assert_eq!(logout(true), [failed_load, ended].concat());
}
