//! A store that fails while sessions move from it, or to it: "log out my other devices" can be repeated.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::service::Service;
use hyper_session::store::{Memory, MigratingStore, Store};
use hyper_session::testing::{FakeClock, Fault, Faulty, Primitive};
use hyper_session::{
    AppKey, CookieStore, Error, Revocations, ServerStore, SessionHandle, Timestamp, session_fn,
};

use crate::migrating::{edit, user};
use crate::shared_log::{self, SharedLog};
use crate::stores::START;
use crate::support::{Jar, block_on, request, status};

const UNTIL: Timestamp = Timestamp::from_unix(START + 10_000);

/// The kinds of store that can end the sessions of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A cookie store with revocations.
    Revocable,
    Server,
}

/// A store whose storage fails on command.
struct Frail {
    store: Arc<dyn Store>,
    storage: Storage,
}

enum Storage {
    Log(SharedLog),
    Entries(Faulty<Memory>),
}

impl Frail {
    async fn new(kind: Kind, clock: &FakeClock) -> Self {
        match kind {
            Kind::Revocable => {
                let log = SharedLog::default();
                let revocations = Revocations::open(log.clone()).await.unwrap();
                let store = CookieStore::builder(AppKey::generate().unwrap())
                    .revocations(revocations.max_staleness(Duration::from_secs(20)))
                    .clock(clock.clone())
                    .build()
                    .unwrap();
                Self { store: Arc::new(store), storage: Storage::Log(log) }
            }
            Kind::Server => {
                let backend = Faulty::new(Memory::new());
                let store = ServerStore::with_backend(backend.clone()).clock(clock.clone()).build().unwrap();
                Self { store: Arc::new(store), storage: Storage::Entries(backend) }
            }
        }
    }

    /// From now on it can be read, and not be written to.
    fn refuse_writes(&self) {
        match &self.storage {
            Storage::Log(log) => log.set(shared_log::Fault::Full),
            Storage::Entries(backend) => {
                for primitive in [Primitive::Create, Primitive::Replace, Primitive::Delete] {
                    backend.fail(primitive, Fault::Unreachable);
                }
            }
        }
    }

    fn repair(&self) {
        match &self.storage {
            Storage::Log(log) => log.set(shared_log::Fault::None),
            Storage::Entries(backend) => backend.repair(),
        }
    }
}

/// A request whose handler ends the other sessions, and answers for what became of that.
async fn end_others(store: &MigratingStore, jar: &mut Jar) -> Result<Option<usize>, Error> {
    let ended = Mutex::new(None);
    let service = session_fn(store.clone(), |_: http::Request<_>, handle: SessionHandle| async {
        let handle = handle;
        *ended.lock().unwrap() = Some(handle.load().await?.end_other_sessions().await);
        Ok::<_, Error>(status(200))
    });
    let response = service.call(request("/", jar.header().as_deref())).await.unwrap();
    jar.store(response.headers());
    let ended = ended.lock().unwrap().take();
    ended.unwrap()
}

async fn is_logged_in(store: &MigratingStore, jar: &Jar) -> bool {
    edit(store, &mut jar.clone(), user).await.1.is_some()
}

#[test]
fn a_call_that_failed_leaves_the_session_of_its_request_and_can_be_repeated() {
    use Kind::{Revocable, Server};
    let moves = [(Revocable, Server), (Server, Revocable), (Server, Server), (Revocable, Revocable)];
    for (from, to) in moves {
        for (moved, old_fails) in [(false, false), (false, true), (true, false), (true, true)] {
            let context = format!("{from:?} to {to:?}, moved: {moved}, the old store fails: {old_fails}");
            block_on(async {
                let clock = FakeClock::at(START);
                let (old, new) = (Frail::new(from, &clock).await, Frail::new(to, &clock).await);
                let both = MigratingStore::new(new.store.clone(), old.store.clone(), UNTIL).unwrap();
                let mut jars = [Jar::new(), Jar::new(), Jar::new()];
                for jar in &mut jars {
                    edit(&old.store, jar, |session| session.login("ada")).await;
                }
                let [mut mine, in_old, mut in_new] = jars;
                edit(&both, &mut in_new, |session| session.set("a", 1)).await;
                if moved {
                    edit(&both, &mut mine, |session| session.set("a", 1)).await;
                }
                let failing = if old_fails { &old } else { &new };
                failing.refuse_writes();
                let error = end_others(&both, &mut mine).await.unwrap_err();
                assert!(error.is_unavailable(), "{context}: {error}");
                failing.repair();
                assert!(is_logged_in(&both, &mine).await, "{context}");
                end_others(&both, &mut mine).await.unwrap();
                assert!(is_logged_in(&both, &mine).await, "{context}");
                for other in [&in_old, &in_new] {
                    assert!(!is_logged_in(&both, other).await, "{context}");
                }
            });
        }
    }
}

/// Each store ends its sessions, although the other one fails.
#[test]
fn the_end_of_a_subject_reaches_each_store_that_works() {
    use Kind::{Revocable, Server};
    for (from, to) in [(Revocable, Server), (Server, Revocable), (Server, Server)] {
        for old_fails in [false, true] {
            let context = format!("{from:?} to {to:?}, the old store fails: {old_fails}");
            block_on(async {
                let clock = FakeClock::at(START);
                let (old, new) = (Frail::new(from, &clock).await, Frail::new(to, &clock).await);
                let both = MigratingStore::new(new.store.clone(), old.store.clone(), UNTIL).unwrap();
                let (mut in_old, mut in_new) = (Jar::new(), Jar::new());
                edit(&old.store, &mut in_old, |session| session.login("ada")).await;
                edit(&both, &mut in_new, |session| session.login("ada")).await;
                let failing = if old_fails { &old } else { &new };
                failing.refuse_writes();
                let error = both.end_sessions_of("ada", None).await.unwrap_err();
                assert!(error.is_unavailable(), "{context}: {error}");
                failing.repair();
                assert_eq!(is_logged_in(&both, &in_old).await, old_fails, "{context}");
                assert_eq!(is_logged_in(&both, &in_new).await, !old_fails, "{context}");
                both.end_sessions_of("ada", None).await.unwrap();
                assert!(!is_logged_in(&both, &in_old).await && !is_logged_in(&both, &in_new).await);
            });
        }
    }
}

/// A cookie store can end all sessions of a subject, or none.
#[test]
fn a_session_to_keep_is_never_ended() {
    for to in [Kind::Server, Kind::Revocable] {
        for from in [Kind::Server, Kind::Revocable] {
            block_on(async {
                let clock = FakeClock::at(START);
                let (old, new) = (Frail::new(from, &clock).await, Frail::new(to, &clock).await);
                let both = MigratingStore::new(new.store.clone(), old.store.clone(), UNTIL).unwrap();
                let (mut kept, mut other) = (Jar::new(), Jar::new());
                for jar in [&mut kept, &mut other] {
                    edit(&old.store, jar, |session| session.login("ada")).await;
                }
                for moved in [false, true] {
                    if moved {
                        edit(&both, &mut kept, |session| session.set("a", 1)).await;
                    }
                    let id = edit(&both, &mut kept, |session| Ok(session.id().unwrap())).await.1;
                    let ended = both.end_sessions_of("ada", Some(id)).await;
                    let context = format!("{from:?} to {to:?}, moved: {moved}");
                    assert!(is_logged_in(&both, &kept).await, "{context}");
                    if to == Kind::Server && (from == Kind::Server || moved) {
                        ended.unwrap();
                        assert!(!is_logged_in(&both, &other).await, "{context}");
                    } else {
                        let error = ended.unwrap_err();
                        assert!(error.is_config(), "{context}: {error}");
                        assert!(error.to_string().contains("end_other_sessions()"), "{context}: {error}");
                        assert!(is_logged_in(&both, &other).await, "{context}: nothing has ended");
                    }
                }
            });
        }
    }
}

/// A session whose last value is deleted ends where it is. If that fails, the handler's response does not say that it has ended.
#[test]
fn a_session_that_is_emptied_has_ended_only_if_the_old_store_says_so() {
    block_on(async {
        let clock = FakeClock::at(START);
        let (old, new) = (Frail::new(Kind::Server, &clock).await, Frail::new(Kind::Server, &clock).await);
        let both = MigratingStore::new(new.store.clone(), old.store.clone(), UNTIL).unwrap();
        let mut jar = Jar::new();
        edit(&old.store, &mut jar, |session| session.set("user", "ada")).await;
        let service = session_fn(both.clone(), |_: http::Request<_>, handle: SessionHandle| async move {
            handle.load().await?.delete("user")?;
            Ok::<_, Error>(status(200))
        });
        let visit = || service.call(request("/", jar.header().as_deref()));
        old.refuse_writes();
        let failed = visit().await.unwrap();
        assert_eq!((failed.status().as_u16(), failed.headers().contains_key("set-cookie")), (503, false));
        old.repair();
        assert_eq!(visit().await.unwrap().status(), 200);
        assert!(edit(&old.store, &mut jar.clone(), |session| Ok(session.is_empty())).await.1);
    });
}
