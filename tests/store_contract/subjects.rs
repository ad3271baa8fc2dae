//! The sessions of a subject: listed, limited, ended from elsewhere.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use hyper::service::service_fn;
use hyper_session::store::{Backend, EntryId, Stored};
use hyper_session::{Clock, Error, Refusal, ServerStore, Session, SessionExt, SessionService, Timestamp};

use crate::concurrent_requests::{ABSOLUTE, IDLE, RENEWAL, START, Watched, poll_once, run};
use crate::subject_fixture::{World, list_id};
use crate::support::{Body, Jar, refused, status, visit};

#[test]
pub(crate) fn sessions_are_listed_with_their_times_in_the_order_of_logins() {
    let world = World::new();
    let one = world.login("ada");
    world.wait(10);
    let mut two = world.login("ada");
    let _elsewhere = world.login("bob");
    let sessions = run(world.store.sessions_of("ada")).unwrap();
    assert_eq!(sessions.len(), 2);
    assert_eq!([sessions[0].id, sessions[1].id], [world.id(&one), world.id(&two)]);
    let t = Timestamp::from_unix;
    assert_eq!((sessions[0].created, sessions[1].created), (t(START), t(START + 10)));
    assert_eq!((sessions[0].last_seen, sessions[1].last_seen), (t(START), t(START + 10)));
    assert_eq!(sessions[0].expires, t(START + IDLE));

    // Used: exact to the renewal threshold.
    world.wait(RENEWAL - 10);
    world.edit(&mut two, |_| Ok(()));
    assert_eq!(run(world.store.sessions_of("ada")).unwrap()[1].last_seen, t(START + 10));
    world.wait(10);
    world.edit(&mut two, |_| Ok(()));
    let seen = &run(world.store.sessions_of("ada")).unwrap()[1];
    assert_eq!((seen.created, seen.last_seen), (t(START + 10), t(START + RENEWAL + 10)));
    assert_eq!(seen.expires, t(START + RENEWAL + 10 + IDLE));
    assert_eq!(world.listed("nobody"), []);
    assert_eq!(world.listed(""), []);
}

#[test]
pub(crate) fn t26_ending_all_but_one_leaves_that_one_and_other_subjects() {
    let world = World::new();
    let jars = [world.login("ada"), world.login("ada"), world.login("ada")];
    let (bob, mut anonymous) = (world.login("bob"), Jar::new());
    world.edit(&mut anonymous, |session| session.set("cart", 1));
    let keep = world.id(&jars[1]);
    assert_eq!(world.end_all("ada", Some(keep)), 2);
    assert_eq!(world.listed("ada"), [keep]);
    let alive = |jar: &Jar| world.subject(jar).is_some();
    assert_eq!([alive(&jars[0]), alive(&jars[1]), alive(&jars[2]), alive(&bob)], [false, true, false, true]);
    assert_eq!(world.look(&anonymous, |session| session.get::<u8>("cart").unwrap()), Some(1));
    world.events.take();
    // To "keep" the session of another subject keeps none.
    assert_eq!(world.end_all("ada", Some(world.id(&bob))), 1);
    assert_eq!((world.end_all("ada", None), world.end_all("nobody", None)), (0, 0));
    assert_eq!(world.store.backend().ids().len(), 2);
    assert!(world.list("ada").is_none(), "a list of nothing is none");
    assert_eq!(world.subject(&jars[1]), None);
    assert_eq!(world.events.take(), [refused(Refusal::UnknownId)]);
    // And login goes on.
    let again = world.login("ada");
    assert_eq!(world.listed("ada"), [world.id(&again)]);
}

#[test]
fn t37_one_ends_only_ones_own() {
    let world = World::new();
    let (ada, bob) = (world.login("ada"), world.login("bob"));
    assert!(!world.end_one("bob", world.id(&ada)));
    assert!(!world.end_one("", world.id(&ada)) && !world.end_one("ad", world.id(&ada)));
    assert_eq!(world.subject(&ada).as_deref(), Some("ada"));
    assert!(!world.end_one("ada", list_id("bob").to_string().parse().unwrap()), "a list is not a session");
    assert_eq!(world.listed("bob").len(), 1);
    let id = world.id(&ada);
    assert!(world.end_one("ada", id));
    assert!(!world.end_one("ada", id), "not twice");
    assert_eq!((world.subject(&ada), world.subject(&bob).as_deref()), (None, Some("bob")));
}

/// The session names its subject, and not the list: a session whose subject was cleared cannot be ended as the subject's.
#[test]
fn t37_a_session_that_was_cleared_is_not_the_subjects_any_more() {
    let world = World::with(|builder| builder.max_sessions_per_subject(1));
    let mut jar = world.login("ada");
    world.edit(&mut jar, |session| session.clear().and_then(|()| session.set("cart", 1)));
    assert_eq!(world.subject(&jar), None);
    let id = world.id(&jar);
    assert_eq!(world.listed("ada"), []);
    assert!(!world.end_one("ada", id));
    assert_eq!(world.end_all("ada", None), 0);
    world.wait(61);
    world.login("ada");
    assert_eq!(world.events.take(), [""; 0], "it does not count");
    assert_eq!(world.look(&jar, |session| session.get::<u8>("cart").unwrap()), Some(1));
}

#[test]
fn t35_login_gives_a_new_token_and_keeps_what_was_anonymous() {
    let world = World::new();
    let mut jar = Jar::new();
    world.edit(&mut jar, |session| session.set("cart", 1));
    let planted = jar.clone();
    world.edit(&mut jar, |session| session.login("ada"));
    assert_ne!(jar.0, planted.0);
    assert_eq!(world.look(&jar, |session| session.get::<u8>("cart").unwrap()), Some(1));
    world.events.take();
    assert_eq!(world.subject(&planted), None);
    assert_eq!(world.events.take(), [refused(Refusal::Regenerated)]);
    // Again, for a rise of privilege: the same session, which is the last login now.
    let second = world.login("ada");
    let before = jar.clone();
    world.edit(&mut jar, |session| session.login("ada"));
    assert_ne!(jar.0, before.0);
    assert_eq!(world.listed("ada"), [world.id(&second), world.id(&jar)]);
}

#[test]
fn t35_another_subject_gets_nothing_of_the_one_before() {
    let world = World::new();
    let mut jar = world.login("ada");
    world.edit(&mut jar, |session| session.set("address", "12 St James's Square"));
    let ada = jar.clone();
    world.wait(100);
    world.edit(&mut jar, |session| session.login("bob"));
    assert_eq!(world.subject(&jar).as_deref(), Some("bob"));
    assert_eq!(world.look(&jar, Session::keys), [""; 0]);
    assert_eq!(world.look(&jar, Session::created_at), Some(Timestamp::from_unix(START + 100)));
    assert_eq!((world.listed("ada"), world.listed("bob")), (vec![], vec![world.id(&jar)]));
    assert_eq!(world.subject(&ada), None);
    assert_eq!(world.store.backend().ids().len(), 1);
}

/// A login that failed halfway is none: not bound, not listed, but the old id is gone all the same.
#[test]
fn a_server_error_drops_the_login_and_keeps_the_new_token() {
    let world = World::new();
    let mut jar = Jar::new();
    world.edit(&mut jar, |session| session.set("cart", 1));
    let before = jar.clone();
    let failing = service_fn(|request: Request<Body>| async move {
        request.session().await?.login("ada")?;
        Ok::<_, Error>(status(500))
    });
    run(visit(&SessionService::new(failing, world.store.clone()), "/", &mut jar));
    assert_ne!(jar.0, before.0);
    assert_eq!((world.subject(&jar), world.listed("ada")), (None, vec![]));
}

#[test]
pub(crate) fn regenerate_and_logout_keep_the_list_right() {
    let world = World::new();
    let (mut one, mut two) = (world.login("ada"), world.login("ada"));
    for _ in 0..3 {
        world.edit(&mut one, Session::regenerate);
        assert_eq!(world.listed("ada"), [world.id(&one), world.id(&two)]);
    }
    world.edit(&mut one, Session::destroy);
    assert_eq!(world.listed("ada"), [world.id(&two)]);
    world.edit(&mut two, Session::clear);
    assert!(world.list("ada").is_none());
    // Emptied by a last delete, or by starting over without a subject.
    let (mut three, mut four) = (world.login("ada"), world.login("ada"));
    world.edit(&mut three, |session| session.destroy().and_then(|()| session.set("cart", 1)));
    world.edit(&mut four, |session| session.regenerate().and_then(|()| session.clear()));
    assert_eq!(world.listed("ada"), []);
    assert!(world.list("ada").is_none());
    assert_eq!(world.store.backend().ids().len(), 1);
}

#[test]
pub(crate) fn t71_beyond_the_limit_the_oldest_session_ends_and_an_event_says_so() {
    let world = World::with(|builder| builder.max_sessions_per_subject(3));
    let mut jars: Vec<_> = (0..3).map(|_| world.login("ada")).collect();
    world.login("bob");
    // A new token is not a new session.
    world.edit(&mut jars[0], Session::regenerate);
    world.edit(&mut jars[1], |session| session.login("ada"));
    assert_eq!(world.events.take(), [""; 0]);
    assert_eq!(world.listed("ada").len(), 3);

    jars.push(world.login("ada"));
    assert_eq!(world.events.take(), ["subject_limit:1"]);
    assert_eq!(world.subject(&jars[0]), None);
    assert_eq!(world.listed("ada"), [world.id(&jars[2]), world.id(&jars[1]), world.id(&jars[3])]);
    assert!(
        ServerStore::with_backend(Watched::default())
            .max_sessions_per_subject(0)
            .build()
            .unwrap_err()
            .is_config()
    );
}

/// Where the backend's own clock expires entries, a test cannot make time pass: not on Redis.
#[test]
fn t71_a_session_that_has_expired_makes_room_and_no_other_is_ended() {
    let world = World::with(|builder| builder.max_sessions_per_subject(3));
    let mut jars: Vec<_> = (0..4).map(|_| world.login("ada")).collect();
    world.events.take();
    world.wait(IDLE - 1);
    world.edit(&mut jars[3], |_| Ok(()));
    world.wait(1);
    let more = [world.login("ada"), world.login("ada")];
    assert_eq!(world.events.take(), [""; 0]);
    assert_eq!(world.listed("ada"), [world.id(&jars[3]), world.id(&more[0]), world.id(&more[1])]);
}

/// Counts how often the backend is waited for, one step after the other: each poll is a round trip in which every step that
/// is under way comes to its end.
fn round_trips<T>(future: impl Future<Output = T>) -> (T, usize) {
    let mut future = std::pin::pin!(future);
    for round_trips in 0..1_000 {
        if let std::task::Poll::Ready(output) = poll_once(future.as_mut()) {
            return (output, round_trips);
        }
    }
    panic!("a future that does not end");
}

/// A7, A12: whatever the number of sessions.
#[test]
fn a7_a12_a_bounded_number_of_round_trips_each() {
    for sessions in [10, 100] {
        let world = World::with(|builder| builder.max_sessions_per_subject(sessions));
        let jars: Vec<_> = (0..sessions).map(|_| world.login("ada")).collect();
        world.events.take();
        let backend = world.store.backend().taking_turns();
        let store = ServerStore::with_backend(backend)
            .max_sessions_per_subject(sessions)
            .idle_timeout(Duration::from_secs(IDLE))
            .absolute_timeout(Duration::from_secs(ABSOLUTE))
            .renewal_threshold(Duration::from_secs(RENEWAL))
            .clock(world.clock.clone())
            .observer(world.events.clone())
            .build()
            .unwrap();
        let service = |login: bool| {
            let handler = service_fn(move |request: Request<Body>| async move {
                let session = request.session().await?;
                if login {
                    session.login("ada")?;
                } else {
                    session.get::<u8>("cart").map(drop)?;
                }
                Ok::<_, Error>(status(200))
            });
            SessionService::new(handler, store.clone())
        };
        let (login, list, end) = {
            let (_, login) = round_trips(visit(&service(true), "/", &mut Jar::new()));
            assert_eq!(world.events.take(), ["subject_limit:1"]);
            let (listed, list) = round_trips(store.sessions_of("ada"));
            assert_eq!(listed.unwrap().len(), sessions);
            world.wait(RENEWAL);
            let mut jar = jars[1].clone();
            let (_, renewal) = round_trips(visit(&service(false), "/", &mut jar));
            assert_eq!(renewal, 2, "to load and to renew, with the look at the list");
            let keep = world.id(&jars[1]);
            let (ended, end) = round_trips(store.end_sessions_of("ada", Some(keep)));
            assert_eq!(ended.unwrap(), sessions - 1);
            (login, list, end)
        };
        println!(
            "{sessions} sessions: login at the limit {login}, list {list}, end all but one {end} round trips"
        );
        assert!(login < 10 && list <= 3 && end <= 6, "{login} {list} {end}");
    }
}

#[test]
fn t26_a_lower_limit_holds_from_the_next_login_on() {
    let world = World::new();
    let jars: Vec<_> = (0..5).map(|_| world.login("ada")).collect();
    let stricter = ServerStore::with_backend(world.store.backend().clone())
        .clock(world.clock.clone())
        .observer(world.events.clone())
        .max_sessions_per_subject(2)
        .build()
        .unwrap();
    let world = World { store: stricter, ..world };
    let newest = world.login("ada");
    assert_eq!(world.events.take(), ["subject_limit:4"]);
    assert_eq!(world.listed("ada"), [world.id(&jars[4]), world.id(&newest)]);
    assert_eq!(world.store.backend().ids().len(), 2);
}

#[test]
fn r9_what_is_over_leaves_the_list_by_itself() {
    let world = World::new();
    let (_idle, mut busy) = (world.login("ada"), world.login("ada"));
    assert_eq!(world.list("ada").unwrap().value.len(), 9 + 2 * 33);
    world.wait(IDLE - 1);
    world.edit(&mut busy, |_| Ok(()));
    world.wait(1);
    assert_eq!(world.listed("ada"), [world.id(&busy)]);
    assert_eq!(world.list("ada").unwrap().value.len(), 9 + 2 * 33, "listing writes nothing");
    // The list ends with the last session that it could hold, and a login forgets the earlier ones.
    assert_eq!(world.list("ada").unwrap().expires.as_unix(), START + ABSOLUTE);
    world.wait(ABSOLUTE - IDLE - 1);
    let late = world.login("ada");
    world.wait(1);
    assert_eq!(world.listed("ada"), [world.id(&late)]);
    let last = world.login("ada");
    assert_eq!(world.list("ada").unwrap().value.len(), 9 + 2 * 33);
    assert_eq!(world.listed("ada"), [world.id(&late), world.id(&last)]);
    world.wait(ABSOLUTE);
    assert!(world.list("ada").is_none());
    assert_eq!(world.end_all("ada", None), 0);
}

/// An administrator's process whose timeouts or keys are not the service's: what it lists lives on, and what it cannot read is
/// said.
#[test]
fn listing_by_other_timeouts_and_keys_ends_nothing() {
    let world = World::new();
    let jar = world.login("ada");
    world.wait(100);
    let admin = |idle, absolute| {
        ServerStore::with_backend(world.store.backend().clone())
            .clock(world.clock.clone())
            .idle_timeout(Duration::from_secs(idle))
            .absolute_timeout(Duration::from_secs(absolute))
    };
    // By these timeouts the session has expired: listing does not end it.
    for (idle, absolute) in [(10, 10), (10, ABSOLUTE), (1, 50)] {
        let store = admin(idle, absolute).build().unwrap();
        run(store.sessions_of("ada")).unwrap();
        assert_eq!(world.subject(&jar).as_deref(), Some("ada"), "{idle} {absolute}");
        assert_eq!(world.listed("ada"), [world.id(&jar)]);
    }
    // Entries under the session's id that this process cannot read: sealed under another key, of a format to come, damaged.
    let id = world.id(&jar);
    let entry = EntryId::from_bytes(id.to_bytes());
    let now = world.clock.now();
    for value in [&b"\x04 sealed elsewhere"[..], b"\x09 of the future", b""] {
        let stored =
            Stored { value: Bytes::from_static(value), expires: now.saturating_add(Duration::from_secs(60)) };
        run(world.store.backend().delete(entry)).unwrap();
        assert!(run(world.store.backend().create(entry, stored.clone(), now)).unwrap());
        world.wait(0);
        let listed = run(world.store.sessions_of("ada")).unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!((listed[0].id, listed[0].readable, listed[0].expires), (id, false, stored.expires));
        assert_eq!(run(world.store.backend().fetch(entry, now)).unwrap(), Some(stored), "it is left alone");
    }
    assert!(world.end_all("ada", None) <= 1);
    assert_eq!(
        run(world.store.backend().fetch(entry, now)).unwrap(),
        None,
        "ending ends what cannot be read, too"
    );
}

/// A request that waits for long before it logs in is not taken for one that was given up.
#[test]
fn r9_a_login_at_the_end_of_a_slow_request_is_listed() {
    let world = World::new();
    let clock = world.clock.clone();
    let mut jar = Jar::new();
    world.edit(&mut jar, move |session| {
        clock.advance(Duration::from_secs(300));
        session.login("ada")
    });
    assert_eq!(world.listed("ada"), [world.id(&jar)]);
    assert_eq!(world.end_all("ada", None), 1);
}

/// Threads, on a store that they share.
#[test]
fn r9_concurrent_logins_of_one_subject_are_all_listed() {
    const TASKS: usize = 32;
    let world = World::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().unwrap();
    let service = Arc::new(SessionService::new(
        service_fn(|request: Request<Body>| async move {
            request.session().await?.login("ada")?;
            Ok::<_, Error>(status(200))
        }),
        world.store.clone(),
    ));
    let logins: Vec<_> = (0..TASKS)
        .map(|_| {
            let service = Arc::clone(&service);
            runtime.spawn(async move {
                let mut jar = Jar::new();
                assert_eq!(visit(&*service, "/", &mut jar).await.status(), 200);
                jar
            })
        })
        .collect();
    let jars: Vec<_> = logins.into_iter().map(|login| runtime.block_on(login).unwrap()).collect();
    let mut ids: Vec<_> = jars.iter().map(|jar| world.id(jar)).collect();
    let mut listed = world.listed("ada");
    ids.sort();
    listed.sort();
    assert_eq!(listed, ids);
    assert_eq!(world.end_all("ada", None), TASKS);
    assert!(world.store.backend().ids().is_empty());
}
