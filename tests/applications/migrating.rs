//! Moving sessions from one store to another, and switching on sealing, without logging anyone out.

use std::sync::Arc;
use std::time::Duration;

use hyper::service::Service;
use hyper_session::cookie::CookieOptions;
use hyper_session::store::{Backend, MigratingStore, Store};
use hyper_session::testing::FakeClock;
use hyper_session::{
    AppKey, Clock, CookieStore, Error, Lifetime, MemoryStore, Revocations, Session, SessionHandle, Timestamp,
    session_fn,
};

use crate::stores::{Act, START, seconds};
use crate::support::{Body, Events, Jar, block_on, request, set_cookies, status};

const UNTIL: u64 = START + 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Cookie,
    /// A cookie store with revocations.
    Revocable,
    Server,
}

const MOVES: [(Kind, Kind); 4] = [
    (Kind::Cookie, Kind::Server),
    (Kind::Server, Kind::Cookie),
    (Kind::Server, Kind::Server),
    (Kind::Cookie, Kind::Cookie),
];

struct TestStore {
    clock: FakeClock,
    events: Events,
    old: Arc<dyn Store>,
    new: Arc<dyn Store>,
    both: MigratingStore,
}

impl TestStore {
    fn new(from: Kind, to: Kind) -> Self {
        println!("{from:?} to {to:?}");
        let (clock, events) = (FakeClock::at(START), Events::new());
        let build = |kind| -> Arc<dyn Store> {
            match kind {
                Kind::Cookie | Kind::Revocable => {
                    let mut builder =
                        CookieStore::builder(AppKey::generate().unwrap()).idle_timeout(seconds(1_000));
                    if kind == Kind::Revocable {
                        builder = builder.revocations(Revocations::in_memory());
                    }
                    Arc::new(builder.clock(clock.clone()).observer(events.clone()).build().unwrap())
                }
                Kind::Server => {
                    let builder = MemoryStore::builder().idle_timeout(seconds(1_000));
                    Arc::new(builder.clock(clock.clone()).observer(events.clone()).build().unwrap())
                }
            }
        };
        let (old, new) = (build(from), build(to));
        let both = MigratingStore::new(new.clone(), old.clone(), Timestamp::from_unix(UNTIL)).unwrap();
        Self { clock, events, old, new, both }
    }
}

/// Sends a request with this `Cookie` header. Its handler returns what `act` returns.
async fn send<R: Send>(
    store: &(impl Store + Clone),
    cookies: Option<&str>,
    act: impl Fn(&Session) -> Result<R, Error> + Send + Sync,
) -> (http::Response<Body>, R) {
    let seen = std::sync::Mutex::new(None);
    let service = session_fn(store.clone(), |_: http::Request<_>, handle: SessionHandle| async {
        let handle = handle;
        *seen.lock().unwrap() = Some(act(&handle.load().await?)?);
        Ok::<_, Error>(status(200))
    });
    let response = service.call(request("/", cookies)).await.unwrap();
    assert_eq!(response.status(), 200);
    let seen = seen.lock().unwrap().take().unwrap();
    (response, seen)
}

pub(crate) async fn edit<R: Send>(
    store: &(impl Store + Clone),
    jar: &mut Jar,
    act: impl Fn(&Session) -> Result<R, Error> + Send + Sync,
) -> (Vec<String>, R) {
    let (response, seen) = send(store, jar.header().as_deref(), act).await;
    jar.store(response.headers());
    (set_cookies(response.headers()), seen)
}

#[allow(clippy::unnecessary_wraps)] // what a handler does
pub(crate) fn user(session: &Session) -> Result<Option<String>, Error> {
    Ok(session.subject().map(|user| user.to_string()))
}

/// A session of the old store.
async fn log_in(world: &TestStore) -> Jar {
    let mut jar = Jar::new();
    edit(&world.old, &mut jar, |session| {
        session.login("ada")?;
        session.set_lifetime(Lifetime::persistent(seconds(9_000)))?;
        session.set("cart", 3)
    })
    .await;
    jar
}

#[test]
fn a_session_is_read_in_the_old_store_and_moved_when_it_is_saved() {
    for (from, to) in MOVES {
        block_on(async {
            let world = TestStore::new(from, to);
            let mut jar = log_in(&world).await;
            let before = jar.clone();
            world.events.take();
            world.clock.advance(seconds(10));
            let (lines, who) = edit(&world.both, &mut jar, user).await;
            assert_eq!((lines.len(), who.as_deref()), (0, Some("ada")), "reading moves nothing");
            assert_eq!(world.events.take(), ["migrating:store"]);

            edit(&world.both, &mut jar, |session| session.set("cart", 4)).await;
            assert_ne!(jar.0, before.0);
            world.events.take();
            let facts = |session: &Session| {
                Ok((
                    user(session)?,
                    session.get::<u8>("cart")?,
                    session.lifetime(),
                    session.created_at().unwrap().as_unix(),
                    session.authenticated_at().unwrap().as_unix(),
                    session.remaining().unwrap(),
                ))
            };
            let (_, moved) = edit(&world.new, &mut jar, facts).await;
            let lifetime = Lifetime::persistent(seconds(9_000));
            assert_eq!(moved, (Some("ada".into()), Some(4), lifetime, START, START, seconds(8_990)));
            assert_eq!(world.events.take(), [""; 0], "the old store is not asked");
            if from == Kind::Server {
                assert_eq!(edit(&world.old, &mut before.clone(), user).await.1, None, "it has ended there");
                let (lines, who) = edit(&world.both, &mut before.clone(), user).await;
                assert_eq!((lines.len(), who), (0, None), "and the cookie of a late request is not removed");
            }
        });
    }
}

#[test]
fn each_way_to_write_moves_a_session() {
    let ways: [Act; 3] = [Session::regenerate, Session::reauthenticate, |session| session.login("ada")];
    for (from, to) in MOVES {
        for way in ways {
            block_on(async {
                let world = TestStore::new(from, to);
                let mut jar = log_in(&world).await;
                edit(&world.both, &mut jar, way).await;
                assert_eq!(edit(&world.new, &mut jar, user).await.1.as_deref(), Some("ada"));
                assert_eq!(edit(&world.new, &mut jar, |session| session.get::<u8>("cart")).await.1, Some(3));
            });
        }
        block_on(async {
            let world = TestStore::new(from, to);
            let mut jar = log_in(&world).await;
            edit(&world.both, &mut jar, |session| session.login("bob")).await;
            let (_, seen) =
                edit(&world.new, &mut jar, |session| Ok((user(session)?, session.has("cart")))).await;
            assert_eq!(seen, (Some("bob".into()), false), "another subject gets nothing");
            let mut jar = log_in(&world).await;
            world.clock.advance(seconds(5_000));
            let (lines, ()) = edit(&world.both, &mut jar, |_| Ok(())).await;
            assert_eq!(lines.len(), 0, "a persistent session is not renewed");
        });
    }
}

/// The user who is seen with these cookies, which the browser holds in different scopes.
async fn seen_with(world: &TestStore, cookies: &[&Jar]) -> Option<String> {
    let header = cookies.iter().filter_map(|jar| jar.header()).collect::<Vec<_>>().join("; ");
    let seen = std::sync::Mutex::new(None);
    let service = session_fn(world.both.clone(), |_: http::Request<_>, handle: SessionHandle| async {
        let handle = handle;
        *seen.lock().unwrap() = user(&handle.load().await?)?;
        Ok::<_, Error>(status(200))
    });
    service.call(request("/", Some(&header))).await.unwrap();
    seen.lock().unwrap().take()
}

/// The browser holds two cookies, one of them in a scope that no response can remove.
#[test]
fn b3_a_logout_stays_although_a_cookie_of_the_old_store_comes_again() {
    for (from, to) in MOVES {
        for before_the_migration in [true, false] {
            block_on(async {
                let world = TestStore::new(from, to);
                let stuck = log_in(&world).await;
                let present = log_in(&world).await;
                let header = [stuck.header().unwrap(), present.header().unwrap()].join("; ");
                let store: Arc<dyn Store> =
                    if before_the_migration { world.old.clone() } else { Arc::new(world.both.clone()) };
                let logout = session_fn(store, |_: http::Request<_>, handle: SessionHandle| async move {
                    handle.load().await?.destroy()?;
                    Ok::<_, Error>(status(200))
                });
                let response = logout.call(request("/", Some(&header))).await.unwrap();
                let mut left = Jar::new();
                left.store(response.headers());
                for cookies in [[&stuck, &left], [&left, &stuck]] {
                    assert_eq!(seen_with(&world, &cookies).await, None, "it stays");
                }
                world.clock.advance(seconds(1));
                edit(&world.both, &mut left, |session| session.login("bob")).await;
                for cookies in [[&stuck, &left], [&left, &stuck]] {
                    assert_eq!(seen_with(&world, &cookies).await.as_deref(), Some("bob"), "until a login");
                }
            });
        }
    }
}

#[test]
fn a_renewal_moves_a_session() {
    for (from, to) in MOVES {
        block_on(async {
            let world = TestStore::new(from, to);
            let mut jar = Jar::new();
            edit(&world.old, &mut jar, |session| session.login("ada")).await;
            world.clock.advance(seconds(500));
            edit(&world.both, &mut jar, |_| Ok(())).await;
            world.clock.advance(seconds(999));
            assert_eq!(edit(&world.new, &mut jar, user).await.1.as_deref(), Some("ada"));
        });
    }
}

/// A session that was given a lifetime that has passed already ends, as it would without a migration.
#[test]
fn a_session_whose_lifetime_has_passed_ends_instead_of_moving() {
    for (from, to) in MOVES {
        block_on(async {
            let world = TestStore::new(from, to);
            let mut jar = log_in(&world).await;
            world.clock.advance(seconds(100));
            let passed = Lifetime::persistent(seconds(50));
            edit(&world.both, &mut jar, |session| session.set_lifetime(passed)).await;
            assert!(jar.0.is_empty());
        });
    }
}

#[test]
fn a_logout_ends_the_session_in_the_old_store() {
    for (from, to) in MOVES {
        block_on(async {
            let world = TestStore::new(from, to);
            let mut jar = log_in(&world).await;
            let stolen = jar.clone();
            edit(&world.both, &mut jar, Session::destroy).await;
            assert!(jar.0.is_empty());
            if from == Kind::Server {
                assert_eq!(edit(&world.both, &mut stolen.clone(), user).await.1, None);
            }
        });
    }
}

// T34: a slow request brings nothing back, neither in the old store nor in the new one.
/// A logout in a request with several cookies sets a tombstone, which hides a cookie that the browser keeps in an unknown scope. It
/// hides it during a migration, too: whether the logout came before or during it.
#[test]
fn t27_a_logout_of_several_cookies_stays_one_while_sessions_move() {
    for to in [Kind::Server, Kind::Cookie, Kind::Revocable] {
        for is_before in [true, false] {
            block_on(async {
                let world = TestStore::new(Kind::Cookie, to);
                let mut cookies = Vec::new();
                for _ in 0..2 {
                    cookies.push(log_in(&world).await.header().unwrap());
                    world.clock.advance(seconds(10));
                }
                let several = cookies.join("; ");
                let (ended, ()) = if is_before {
                    send(&world.old, Some(&several), Session::destroy).await
                } else {
                    send(&world.both, Some(&several), Session::destroy).await
                };
                let mut tombstone = Jar::new();
                tombstone.store(ended.headers());
                let kept = format!("{}; {}", cookies[0], tombstone.header().unwrap());
                assert_eq!(send(&world.both, Some(&kept), user).await.1, None, "before: {is_before}");
                // A login is not hidden.
                world.clock.advance(seconds(1));
                let (login, ()) = send(&world.both, Some(&kept), |session| session.login("bob")).await;
                tombstone.store(login.headers());
                let kept = format!("{}; {}", cookies[0], tombstone.header().unwrap());
                assert_eq!(send(&world.both, Some(&kept), user).await.1.as_deref(), Some("bob"));
            });
        }
    }
}

/// No cookie is set with a 1xx. Where the session has not moved yet decides whether it can be ended, and not where it would move.
#[test]
fn t49_a_logout_under_1xx_ends_what_the_old_store_can_end() {
    for (from, to) in
        MOVES.into_iter().chain([(Kind::Revocable, Kind::Server), (Kind::Revocable, Kind::Cookie)])
    {
        block_on(async {
            let world = TestStore::new(from, to);
            let jar = log_in(&world).await;
            let service =
                session_fn(world.both.clone(), |_: http::Request<_>, handle: SessionHandle| async move {
                    handle.load().await?.destroy()?;
                    Ok::<_, Error>(status(101))
                });
            world.events.take();
            service.call(request("/", jar.header().as_deref())).await.unwrap();
            let ends = from != Kind::Cookie;
            assert_eq!(world.events.take().contains(&"dropped:informational".to_owned()), !ends);
            assert_eq!(edit(&world.both, &mut jar.clone(), user).await.1.is_none(), ends);
        });
    }
}

#[test]
fn t34_a_session_that_ended_meanwhile_is_not_moved() {
    for to in [Kind::Cookie, Kind::Server] {
        block_on(async {
            let world = TestStore::new(Kind::Server, to);
            let jar = log_in(&world).await;
            let slow = session_fn(
                world.both.clone(),
                |_: http::Request<crate::support::Body>, handle: SessionHandle| {
                    let (old, mut other) = (world.old.clone(), jar.clone());
                    async move {
                        let session = handle.load().await?;
                        session.set("cart", 9)?;
                        edit(&old, &mut other, Session::destroy).await;
                        assert!(session.save().await.unwrap_err().is_ended());
                        Ok::<_, Error>(status(200))
                    }
                },
            );
            let mut after = jar.clone();
            let response = slow.call(request("/", jar.header().as_deref())).await.unwrap();
            after.store(response.headers());
            assert_eq!(edit(&world.both, &mut after, user).await.1, None);
            assert!(world.events.take().contains(&"dropped:session_ended".to_owned()));
        });
    }
}

/// The ways in which another session begins, and what is then in it.
const BEGINNINGS: [(Act, Option<&str>); 3] = [
    (|session| session.login("bob").and_then(|()| session.set("note", 1)), Some("bob")),
    (|session| session.destroy().and_then(|()| session.set("note", 1)), None),
    (|session| session.clear().and_then(|()| session.set("note", 1)), None),
];

/// Returns what the next request of a browser sees that got this response.
async fn seen_after(world: &TestStore, response: &http::Response<Body>) -> (Option<String>, bool, bool) {
    let mut jar = Jar::new();
    jar.store(response.headers());
    let facts = |session: &Session| Ok((user(session)?, session.has("note"), session.has("cart")));
    edit(&world.both, &mut jar, facts).await.1
}

/// Both cookies are of one session, and a response can only replace one of them. The other one ends first, and the session with it.
#[test]
fn a_session_that_begins_beside_a_second_cookie_of_the_one_before_stays() {
    for to in [Kind::Server, Kind::Cookie, Kind::Revocable] {
        for (begin, subject) in BEGINNINGS {
            block_on(async {
                let world = TestStore::new(Kind::Revocable, to);
                let mut jar = log_in(&world).await;
                let first = jar.header().unwrap();
                world.clock.advance(seconds(10));
                edit(&world.old, &mut jar, |session| session.set("cart", 4)).await;
                let both = format!("{first}; {}", jar.header().unwrap());
                let (response, ()) = send(&world.both, Some(&both), begin).await;
                assert_eq!(seen_after(&world, &response).await, (subject.map(str::to_owned), true, false));
                assert_eq!(send(&world.both, Some(&both), user).await.1, None, "the former one has ended");
            });
        }
    }
}

/// Another request ended the session meanwhile, or gave it another token. That is nothing to a session that begins.
#[test]
fn a_session_that_begins_does_not_depend_on_whether_the_former_one_has_ended() {
    let deeds: [Act; 2] = [Session::destroy, Session::regenerate];
    for from in [Kind::Server, Kind::Revocable] {
        for to in [Kind::Server, Kind::Cookie, Kind::Revocable] {
            for (begin, subject) in BEGINNINGS {
                for deed in deeds {
                    block_on(async {
                        let world = TestStore::new(from, to);
                        let jar = log_in(&world).await;
                        let other = std::sync::Mutex::new(jar.clone());
                        let slow =
                            session_fn(world.both.clone(), |_: http::Request<_>, handle: SessionHandle| {
                                let mut tab = jar.clone();
                                let (old, other) = (&world.old, &other);
                                async move {
                                    let session = handle.load().await?;
                                    edit(old, &mut tab, deed).await;
                                    *other.lock().unwrap() = tab;
                                    begin(&session)?;
                                    Ok::<_, Error>(status(200))
                                }
                            });
                        let response = slow.call(request("/", jar.header().as_deref())).await.unwrap();
                        let subject = subject.map(str::to_owned);
                        assert_eq!(seen_after(&world, &response).await, (subject, true, false));
                        let mut other = other.lock().unwrap().clone();
                        assert_eq!(edit(&world.both, &mut other, user).await.1, None);
                    });
                }
            }
        }
    }
}

/// As without a migration: a login after the end of all sessions of its subject begins a session that stays. The others end with the
/// call that asks for it, although this one had ended.
#[test]
fn a_login_after_the_end_of_its_session_in_an_old_store_with_revocations_stays() {
    for to in [Kind::Server, Kind::Cookie, Kind::Revocable] {
        for (ends_all, ends_others) in [(true, false), (false, false), (false, true)] {
            if ends_others && to == Kind::Cookie {
                continue; // it cannot
            }
            block_on(async {
                let world = TestStore::new(Kind::Revocable, to);
                let (mut jar, other) = (log_in(&world).await, log_in(&world).await);
                let reset = session_fn(world.both.clone(), |_: http::Request<_>, handle: SessionHandle| {
                    let (world, mut tab) = (&world, jar.clone());
                    async move {
                        let session = handle.load().await?;
                        if ends_all {
                            world.old.end_sessions_of("ada", None).await?;
                        } else {
                            edit(&world.old, &mut tab, Session::destroy).await;
                        }
                        session.login("ada")?;
                        if ends_others {
                            session.end_other_sessions().await?;
                        }
                        Ok::<_, Error>(status(200))
                    }
                });
                let response = reset.call(request("/", jar.header().as_deref())).await.unwrap();
                assert_eq!(response.status(), 200);
                drop(reset);
                jar.store(response.headers());
                assert_eq!(edit(&world.new, &mut jar, user).await.1.as_deref(), Some("ada"));
                let is_there = edit(&world.both, &mut other.clone(), user).await.1.is_some();
                assert_eq!(is_there, !ends_all && !ends_others, "the other device");
            });
        }
    }
}

#[test]
fn from_the_date_on_the_old_store_is_not_asked() {
    for (from, to) in MOVES {
        block_on(async {
            let world = TestStore::new(from, to);
            let build = |until| MigratingStore::new(world.new.clone(), world.old.clone(), until).unwrap();
            let jar = log_in(&world).await;
            for (until, alive) in [(START + 1, true), (START, false)] {
                let store = build(Timestamp::from_unix(until));
                assert_eq!(edit(&store, &mut jar.clone(), user).await.1.is_some(), alive);
            }
        });
    }
}

#[test]
fn lists_are_those_of_both_stores() {
    block_on(async {
        let world = TestStore::new(Kind::Server, Kind::Server);
        let mut moved = log_in(&world).await;
        let stays = log_in(&world).await;
        edit(&world.both, &mut moved, |session| session.set("cart", 1)).await;
        assert_eq!(world.both.sessions_of("ada").await.unwrap().len(), 2);
        let id = edit(&world.both, &mut stays.clone(), |session| Ok(session.id().unwrap())).await.1;
        assert!(world.both.end_session_of("ada", id).await.unwrap());
        assert_eq!(edit(&world.both, &mut stays.clone(), user).await.1, None);
        log_in(&world).await;
        assert_eq!(world.both.end_sessions_of("ada", None).await.unwrap(), Some(2));
        assert_eq!(edit(&world.both, &mut moved, user).await.1, None);
        // A cookie store has no list, so only the other one's sessions are on it.
        let world = TestStore::new(Kind::Cookie, Kind::Server);
        edit(&world.both, &mut log_in(&world).await, |session| session.set("cart", 1)).await;
        assert_eq!(world.both.sessions_of("ada").await.unwrap().len(), 1);
        assert!(
            TestStore::new(Kind::Cookie, Kind::Cookie).both.sessions_of("ada").await.unwrap_err().is_config()
        );
    });
}

#[test]
fn a_watch_follows_the_old_store_until_the_date() {
    block_on(async {
        let world = TestStore::new(Kind::Server, Kind::Server);
        let jar = log_in(&world).await;
        let service =
            session_fn(world.both.clone(), |_: http::Request<_>, session: SessionHandle| async move {
                Ok::<_, Error>(http::Response::new(session.watch().await?))
            });
        let response = service.call(request("/", jar.header().as_deref())).await.unwrap();
        let watch = response.into_body().unwrap();
        assert!(watch.is_alive().await.unwrap());
        let error = watch.renew().await.unwrap_err();
        assert!(error.is_config() && error.to_string().contains("not moved"), "{error}");
        edit(&world.old, &mut jar.clone(), Session::destroy).await;
        assert!(!watch.is_alive().await.unwrap());
    });
}

/// As without a migration: a host of the domain can toss cookies that have the form of a token.
#[test]
fn cookies_that_both_stores_refuse_by_their_form_cost_no_try() {
    for retired in [false, true] {
        block_on(async {
            let stranger = CookieStore::builder(AppKey::generate().unwrap()).build().unwrap();
            let clock = FakeClock::at(START);
            let build = |cookie: CookieOptions| {
                let builder = CookieStore::builder(AppKey::generate().unwrap()).cookie(cookie);
                builder.clock(clock.clone()).build().unwrap()
            };
            let names = if retired { ["__Host-new", "__Host-session"] } else { ["__Host-session"; 2] };
            let [new, name] = names;
            let cookie = CookieOptions::new().name(new);
            let new = build(if retired { cookie.retired_name(name) } else { cookie });
            let old = build(CookieOptions::new());
            let both = MigratingStore::new(new, old.clone(), Timestamp::from_unix(UNTIL)).unwrap();
            let mut jar = Jar::new();
            edit(&old, &mut jar, |session| session.login("ada")).await;
            let mut tossed = Vec::new();
            for number in 0..6 {
                let mut jar = Jar::new();
                edit(&stranger, &mut jar, |session| session.set("n", number)).await;
                tossed.push(jar.header().unwrap());
            }
            let header = format!("{}; {}", tossed.join("; "), jar.header().unwrap());
            assert_eq!(
                send(&both, Some(&header), user).await.1.as_deref(),
                Some("ada"),
                "retired: {retired}"
            );
        });
    }
}

#[test]
fn stores_of_different_cookies_are_refused() {
    let named = |name: &str| MemoryStore::builder().cookie(CookieOptions::new().name(name)).build().unwrap();
    let error = MigratingStore::new(named("__Host-a"), named("__Host-b"), Timestamp::MAX).unwrap_err();
    assert!(error.is_config() && error.to_string().contains("cookie"), "{error}");
}

#[test]
fn sealing_is_switched_on_without_logging_anyone_out() {
    block_on(async {
        let (clock, events) = (FakeClock::at(START), Events::new());
        let memory = Arc::new(hyper_session::store::Memory::new());
        let builder = || {
            hyper_session::ServerStore::with_backend(memory.clone())
                .idle_timeout(Duration::from_secs(100_000))
                .clock(clock.clone())
                .observer(events.clone())
        };
        let key = AppKey::generate().unwrap().to_text();
        let clear = builder().build().unwrap();
        let seal = || builder().seal_records(key.parse::<AppKey>().unwrap());
        let until = Timestamp::from_unix(START + 50_000);
        let moving = seal().accept_unsealed_until(until).build().unwrap();
        let (mut reads, mut writes) = (Jar::new(), Jar::new());
        for jar in [&mut reads, &mut writes] {
            edit(&clear, jar, |session| session.login("ada").and_then(|()| session.set("cart", 3))).await;
        }

        assert_eq!(edit(&moving, &mut reads, user).await.1.as_deref(), Some("ada"));
        assert_eq!(events.take(), ["migrating:unsealed"]);
        let id = edit(&moving, &mut writes, |session| Ok(session.id().unwrap())).await.1;
        edit(&moving, &mut writes, |session| session.set("cart", 4)).await;
        let entry = hyper_session::store::EntryId::from_bytes(id.to_bytes());
        assert_eq!(memory.fetch(entry, clock.now()).await.unwrap().unwrap().value[0], 4, "sealed now");
        events.take();
        assert_eq!(edit(&moving, &mut writes, |session| session.get::<u8>("cart")).await.1, Some(4));
        assert_eq!(events.take(), [""; 0]);
        // The previous session list counts.
        edit(&moving, &mut Jar::new(), |session| session.login("ada")).await;
        assert_eq!(moving.sessions_of("ada").await.unwrap().len(), 3);
        events.take();

        clock.set(START + 50_000);
        assert_eq!(edit(&moving, &mut reads, user).await.1, None, "the date has passed");
        assert_eq!(events.take(), ["refused:unreadable"]);
        assert_eq!(edit(&moving, &mut writes, user).await.1.as_deref(), Some("ada"));
        let error = builder().accept_unsealed_until(until).build().unwrap_err();
        assert!(error.is_config() && error.to_string().contains("seal_records()"), "{error}");
    });
}

/// A cookie store with revocations, and the move from it to a server.
fn from_revocable_cookies() -> (CookieStore, MigratingStore) {
    let clock = FakeClock::at(START);
    let cookies = CookieStore::builder(AppKey::generate().unwrap())
        .revocations(hyper_session::Revocations::in_memory())
        .clock(clock.clone())
        .build()
        .unwrap();
    let server = MemoryStore::builder().clock(clock).build().unwrap();
    let both = MigratingStore::new(server, cookies.clone(), Timestamp::from_unix(UNTIL)).unwrap();
    (cookies, both)
}

// A cookie that was copied before the move would be a login again, until its deadline.
#[test]
fn t25_a_copied_cookie_of_a_revocable_store_is_refused_after_the_move() {
    block_on(async {
        let (cookies, both) = from_revocable_cookies();
        let (mut jar, mut ended) = (Jar::new(), Jar::new());
        for jar in [&mut jar, &mut ended] {
            edit(&cookies, jar, |session| session.login("ada")).await;
        }
        let copied = jar.clone();
        edit(&both, &mut jar, |session| session.set("cart", 1)).await;
        assert_eq!(edit(&both, &mut jar, user).await.1.as_deref(), Some("ada"));
        assert_eq!(edit(&both, &mut copied.clone(), user).await.1, None, "not in either store");
        // A session that was ended elsewhere is not moved.
        let copied = ended.clone();
        edit(&cookies, &mut ended, Session::destroy).await;
        edit(&both, &mut copied.clone(), |session| session.set("cart", 1)).await;
        assert_eq!(edit(&both, &mut copied.clone(), user).await.1, None);
    });
}

#[test]
fn t26_sessions_in_an_old_cookie_store_with_revocations_end_with_the_others() {
    block_on(async {
        let (cookies, both) = from_revocable_cookies();
        let (mut moved, mut staying) = (Jar::new(), Jar::new());
        for jar in [&mut moved, &mut staying] {
            edit(&cookies, jar, |session| session.login("ada")).await;
        }
        edit(&both, &mut moved, |session| session.set("cart", 1)).await;
        assert_eq!(
            both.end_sessions_of("ada", None).await.unwrap(),
            None,
            "those in cookies are not counted"
        );
        assert_eq!(edit(&both, &mut moved, user).await.1, None);
        assert_eq!(edit(&both, &mut staying, user).await.1, None);
        edit(&both, &mut staying, |session| session.set("cart", 1)).await;
        assert_eq!(edit(&both, &mut staying, user).await.1, None, "it is not moved");
    });
}

/// The other direction: a session that a revocable cookie store takes over stands behind what was revoked before, and ends
/// with what is revoked afterwards.
#[test]
fn a_session_that_moves_into_a_revocable_cookie_store_can_be_revoked_there() {
    block_on(async {
        let clock = FakeClock::at(START);
        let server = MemoryStore::builder().clock(clock.clone()).build().unwrap();
        let cookies = CookieStore::builder(AppKey::generate().unwrap())
            .revocations(hyper_session::Revocations::in_memory())
            .clock(clock)
            .build()
            .unwrap();
        let both = MigratingStore::new(cookies.clone(), server.clone(), Timestamp::from_unix(UNTIL)).unwrap();
        let ways: [Act; 3] = [|session| session.set("cart", 1), Session::regenerate, Session::reauthenticate];
        for way in ways {
            let mut jar = Jar::new();
            edit(&server, &mut jar, |session| session.login("ada")).await;
            // Sessions in cookies that were revoked before are not this one.
            cookies.end_sessions_of("ada").await.unwrap();
            assert_eq!(edit(&both, &mut jar, user).await.1.as_deref(), Some("ada"), "it is in the old store");
            edit(&both, &mut jar, way).await;
            assert_eq!(edit(&cookies, &mut jar, user).await.1.as_deref(), Some("ada"), "moved");
            assert!(server.sessions_of("ada").await.unwrap().is_empty());
            let copied = jar.clone();
            edit(&both, &mut jar, Session::destroy).await;
            assert_eq!(edit(&both, &mut copied.clone(), user).await.1, None, "a copied cookie");

            let mut jar = Jar::new();
            edit(&server, &mut jar, |session| session.login("ada")).await;
            edit(&both, &mut jar, way).await;
            cookies.end_sessions_of("ada").await.unwrap();
            assert_eq!(edit(&both, &mut jar, user).await.1, None, "log out everywhere");
        }
    });
}

/// The old store's entry is sealed under a key that this host does not have yet, or is not sealed although this host's entries
/// must be. The new store does not know the token, which does not show that the session is dead.
#[test]
fn b2_a_session_that_this_host_cannot_judge_keeps_its_cookie() {
    let clock = FakeClock::at(START);
    let backend = Arc::new(hyper_session::store::Memory::new());
    let old = |key: Option<AppKey>| {
        let builder = hyper_session::ServerStore::with_backend(Arc::clone(&backend)).clock(clock.clone());
        key.into_iter().fold(builder, hyper_session::store::Builder::seal_records).build().unwrap()
    };
    let new = MemoryStore::builder().clock(clock.clone()).build().unwrap();
    block_on(async {
        for key in [Some(AppKey::generate().unwrap()), None] {
            let mut jar = Jar::new();
            edit(&old(key), &mut jar, |session| session.login("ada")).await;
            let until = Timestamp::from_unix(UNTIL);
            let here = old(Some(AppKey::generate().unwrap()));
            let both = MigratingStore::new(new.clone(), here, until).unwrap();
            let (lines, subject) = edit(&both, &mut jar, |session| Ok(session.subject())).await;
            assert!(subject.is_none() && lines.is_empty(), "{lines:?}");
        }
    });
}

/// Other devices are logged in at the old store and at the new one. So is this one, at either.
#[test]
fn the_other_devices_end_in_both_stores() {
    let moves =
        [(Kind::Revocable, Kind::Server), (Kind::Server, Kind::Revocable), (Kind::Server, Kind::Server)];
    for (from, to) in moves {
        for moved in [false, true] {
            block_on(async {
                let world = TestStore::new(from, to);
                let (mut mine, in_old) = (log_in(&world).await, log_in(&world).await);
                let copy = mine.clone();
                let mut in_new = log_in(&world).await;
                edit(&world.both, &mut in_new, |session| session.set("a", 1)).await;
                if moved {
                    edit(&world.both, &mut mine, |session| session.set("a", 1)).await;
                }
                let ended = std::sync::Mutex::new(None);
                let service =
                    session_fn(world.both.clone(), |_: http::Request<_>, handle: SessionHandle| async {
                        let handle = handle;
                        *ended.lock().unwrap() = handle.load().await?.end_other_sessions().await?;
                        Ok::<_, Error>(status(200))
                    });
                let response = service.call(request("/", mine.header().as_deref())).await.unwrap();
                assert_eq!(response.status(), 200);
                mine.store(response.headers());
                let counted = (from, to) == (Kind::Server, Kind::Server);
                assert_eq!(*ended.lock().unwrap(), counted.then_some(2), "{from:?} to {to:?}, {moved}");
                for other in [in_old, in_new, copy] {
                    assert_eq!(edit(&world.both, &mut other.clone(), user).await.1, None, "{moved}");
                }
                let ada = edit(&world.both, &mut mine, user).await.1;
                assert_eq!(ada.as_deref(), Some("ada"), "{from:?} to {to:?}, {moved}");
            });
        }
    }
}

/// As without a migration: a session that has ended ends no others.
#[test]
fn a_session_of_an_old_store_with_revocations_that_has_ended_ends_no_others() {
    for to in [Kind::Server, Kind::Revocable] {
        block_on(async {
            let world = TestStore::new(Kind::Revocable, to);
            let (jar, other) = (log_in(&world).await, log_in(&world).await);
            let late = session_fn(world.both.clone(), |_: http::Request<Body>, handle: SessionHandle| {
                let (world, mut tab) = (&world, jar.clone());
                async move {
                    let session = handle.load().await?;
                    edit(&world.old, &mut tab, Session::destroy).await;
                    let refused = session.end_other_sessions().await;
                    assert!(refused.is_err_and(|error| error.is_ended()));
                    Ok::<_, Error>(status(200))
                }
            });
            late.call(request("/", jar.header().as_deref())).await.unwrap();
            drop(late);
            let device = edit(&world.both, &mut other.clone(), user).await.1;
            assert_eq!(device.as_deref(), Some("ada"), "the other device");
        });
    }
}
