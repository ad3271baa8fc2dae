//! Events say what happened, and nothing that did not.

use std::sync::{Arc, Mutex};

use http::Request;
use hyper::service::Service;
use hyper_session::store::{Memory, MigratingStore, Store};
use hyper_session::{
    AppKey, CookieStore, Event, EventKind, Revocations, ServerStore, Session, SessionHandle, Timestamp,
    session_fn,
};

use crate::spy_store::Act;
use crate::support::{Answer, Body, Jar, block_on, request, set_cookies, status};

type Log = Arc<Mutex<Vec<String>>>;

fn observer(log: &Log) -> impl Fn(&Event<'_>) + Send + Sync + 'static + use<> {
    let log = Arc::clone(log);
    move |event| {
        let line = match event.kind {
            EventKind::Created { .. } => "created".to_owned(),
            EventKind::Destroyed { .. } => "destroyed".to_owned(),
            EventKind::Regenerated { .. } => "regenerated".to_owned(),
            EventKind::LoggedIn { .. } => "logged_in".to_owned(),
            EventKind::ChangesDropped { reason, .. } => format!("dropped:{}", reason.as_str()),
            EventKind::CookieWithheld { id, .. } => format!("withheld:{}", id.is_some()),
            EventKind::StoreAnswered { .. } | EventKind::Migrating { .. } => return,
            other => format!("{other:?}"),
        };
        log.lock().unwrap().push(line);
    }
}

const DROPPED: &str = "dropped:informational";

struct Case {
    act: Act,
    saves: bool,
    /// The events for a session in a cookie, on a server, in a cookie that can be revoked, and for one that moves from a cookie
    /// to a server, and back.
    told: [&'static [&'static str]; 5],
    /// Whether the old cookie still leads to a session.
    lives: [bool; 5],
}

/// Under a 101: what a session in a cookie did does not happen, since the cookie stays; what a server did has happened.
#[test]
fn b14_under_a_1xx_each_event_is_a_fact() {
    let cases = [
        Case {
            act: Session::destroy,
            saves: false,
            told: [&[DROPPED], &["destroyed"], &["destroyed"], &[DROPPED], &["destroyed"]],
            lives: [true, false, false, true, false],
        },
        Case { act: |session| session.set("a", 2), saves: false, told: [&[DROPPED]; 5], lives: [true; 5] },
        // Saved, and the client has the token already.
        Case {
            act: |session| session.set("a", 2),
            saves: true,
            told: [&[DROPPED], &[], &[DROPPED], &["withheld:true"], &["withheld:true"]],
            lives: [true, true, true, true, false],
        },
        // Saved under a token that the client does not get.
        Case {
            act: Session::regenerate,
            saves: true,
            told: [
                &["regenerated", DROPPED],
                &["regenerated", "withheld:true"],
                &["regenerated", "withheld:true"],
                &["regenerated", "withheld:true"],
                &["regenerated", "withheld:true"],
            ],
            lives: [true, false, false, true, false],
        },
        Case { act: |_| Ok(()), saves: false, told: [&[]; 5], lives: [true; 5] },
    ];
    for (at, kind) in
        ["cookie", "server", "revocable", "moving", "moving back", "visitor"].into_iter().enumerate()
    {
        // A visitor's session cannot be revoked: it is as in a cookie.
        let at = at % 5;
        block_on(async {
            let log = Log::default();
            let in_cookie = || CookieStore::builder(AppKey::generate().unwrap()).observer(observer(&log));
            let on_server =
                || ServerStore::with_backend(Memory::new()).observer(observer(&log)).build().unwrap();
            let first: Arc<dyn Store> = match kind {
                "server" | "moving back" => Arc::new(on_server()),
                "revocable" | "visitor" => {
                    Arc::new(in_cookie().revocations(Revocations::in_memory()).build().unwrap())
                }
                _ => Arc::new(in_cookie().build().unwrap()),
            };
            let next: Option<Arc<dyn Store>> = match kind {
                "moving" => Some(Arc::new(on_server())),
                "moving back" => Some(Arc::new(in_cookie().build().unwrap())),
                _ => None,
            };
            let store: Arc<dyn Store> = match next {
                Some(next) => Arc::new(
                    MigratingStore::new(next, first.clone(), Timestamp::from_unix(u64::MAX)).unwrap(),
                ),
                None => Arc::clone(&first),
            };
            for (number, case) in cases.iter().enumerate() {
                println!("{kind} {number}");
                let (act, saves) = (case.act, case.saves);
                let mut jar = Jar::new();
                let service = |store: &Arc<dyn Store>, code: u16, act: Act, saves: bool| {
                    session_fn(Arc::clone(store), move |_: Request<Body>, handle: SessionHandle| async move {
                        let session = handle.load().await?;
                        act(&session)?;
                        if saves {
                            session.save().await?;
                        }
                        Answer::Ok(status(code))
                    })
                };
                let visit: Act = |session| session.set("a", 1);
                let login: Act = |session| session.login("ada");
                let fill = service(&first, 200, if kind == "revocable" { login } else { visit }, false);
                jar.store(fill.call(request("/", None)).await.unwrap().headers());
                log.lock().unwrap().clear();
                let refusing = service(&store, 101, act, saves);
                let response = refusing.call(request("/", jar.header().as_deref())).await.unwrap();
                assert_eq!(set_cookies(response.headers()), [""; 0]);
                let told = std::mem::take(&mut *log.lock().unwrap());
                assert_eq!(told, case.told[at]);
                let lives = service(&store, if case.lives[at] { 200 } else { 410 }, |_| Ok(()), false);
                let seen = lives.call(request("/", jar.header().as_deref())).await.unwrap();
                let alive = !set_cookies(seen.headers()).iter().any(|line| line.contains("Max-Age=0"));
                let refused = log.lock().unwrap().iter().any(|line| line.contains("Refused"));
                assert_eq!(alive && !refused, case.lives[at]);
                log.lock().unwrap().clear();
            }
        });
    }
}

/// A new session that is saved before a 101 is stored, and its client is not told: that is what the event says.
#[test]
fn b14_a_new_session_before_a_1xx_is_withheld() {
    block_on(async {
        let log = Log::default();
        let store = ServerStore::with_backend(Memory::new()).observer(observer(&log)).build().unwrap();
        let service = session_fn(store, |_: Request<Body>, handle: SessionHandle| async move {
            let session = handle.load().await?;
            session.set("a", 1)?;
            session.save().await?;
            Answer::Ok(status(101))
        });
        service.call(request("/", None)).await.unwrap();
        assert_eq!(*log.lock().unwrap(), ["created", "withheld:true"]);
    });
}

/// Each event once, and only if it happened: a session that goes on is neither created nor destroyed.
#[test]
fn each_event_of_an_ordinary_response_is_a_fact() {
    // Deeds of a handler with a session that has a value, or with none, and the events of each.
    let cases: [(bool, Act, &[&str]); 12] = [
        (false, |_| Ok(()), &[]),
        (false, |session| session.set("a", 1), &["created"]),
        (false, Session::regenerate, &[]),
        (false, |session| session.set("a", 1).and_then(|()| session.regenerate()), &["created"]),
        // Nothing was stored, so nothing is destroyed.
        (false, |session| session.set("a", 1).and_then(|()| session.destroy()), &[]),
        (true, |session| session.set("a", 2), &[]),
        (true, Session::regenerate, &["regenerated"]),
        (false, |session| session.login("ada"), &["created", "logged_in"]),
        (true, |session| session.login("ada"), &["regenerated", "logged_in"]),
        (true, Session::destroy, &["destroyed"]),
        (true, Session::clear, &["destroyed"]),
        // The store finds that no value is left.
        (true, |session| session.delete("a").map(drop), &["destroyed"]),
    ];
    for in_cookie in [true, false] {
        block_on(async {
            let log = Log::default();
            let store: Arc<dyn Store> = if in_cookie {
                let builder = CookieStore::builder(AppKey::generate().unwrap());
                Arc::new(builder.observer(observer(&log)).build().unwrap())
            } else {
                Arc::new(ServerStore::with_backend(Memory::new()).observer(observer(&log)).build().unwrap())
            };
            let service = |act: Act| {
                session_fn(Arc::clone(&store), move |_: Request<Body>, handle: SessionHandle| async move {
                    act(&handle.load().await?)?;
                    Answer::Ok(status(200))
                })
            };
            for (number, (stored, act, told)) in cases.into_iter().enumerate() {
                let mut jar = Jar::new();
                if stored {
                    let response = service(|session| session.set("a", 1)).call(request("/", None)).await;
                    jar.store(response.unwrap().headers());
                }
                log.lock().unwrap().clear();
                service(act).call(request("/", jar.header().as_deref())).await.unwrap();
                assert_eq!(*log.lock().unwrap(), told, "case {number}, in a cookie: {in_cookie}");
            }
        });
    }
}
