//! "My devices": descriptions, ending others, and what happens at the limit.

use std::sync::Mutex;

use hyper::service::Service;
use hyper_session::store::{SessionLimit, Store};
use hyper_session::{Error, Session, SessionHandle, SessionId, session_fn};

use crate::stores::{Act, KINDS, Kind, Options, START, TestStore, everywhere, seconds};
use crate::support::{Jar, block_on, request, status};

async fn log_in(world: &TestStore, device: &str) -> Jar {
    let mut jar = Jar::new();
    world
        .edit(&mut jar, |session| {
            session.login("ada")?;
            session.describe(device)
        })
        .await;
    jar
}

/// The descriptions of ada's sessions, through the trait object that services hold.
async fn devices(world: &TestStore) -> Vec<String> {
    let sessions = world.store.sessions_of("ada").await.unwrap();
    sessions.into_iter().map(|session| session.description.unwrap_or_default()).collect()
}

#[test]
fn a_description_stays_with_its_session_and_is_no_value() {
    everywhere(|world| async move {
        let mut jar = log_in(&world, "Firefox on Linux").await;
        world.edit(&mut jar, Session::regenerate).await;
        world.edit(&mut jar, |session| session.login("ada")).await;
        let seen = world.look(&jar, |session| (session.description(), session.keys())).await;
        assert_eq!((seen.0.as_deref(), seen.1.len()), (Some("Firefox on Linux"), 0));
        world.edit(&mut jar, |session| session.login("bob")).await;
        assert_eq!(world.look(&jar, Session::description).await, None, "it was ada's");
        let mut nobody = Jar::new();
        world.edit(&mut nobody, |session| session.describe("alone")).await;
        assert!(nobody.0.is_empty());
    });
}

#[test]
fn a_user_agent_of_any_length_describes_a_device() {
    everywhere(|world| async move {
        let mut jar = Jar::new();
        for (given, shown) in [
            ("x".repeat(256), Some("x".repeat(256))),
            ("x".repeat(257), Some("x".repeat(256))),
            (format!("{}\u{e9}\u{e9}", "x".repeat(255)), Some("x".repeat(255))), // no half of a character
            ("\u{1f4f1}".repeat(9_000), Some("\u{1f4f1}".repeat(64))),
            (String::new(), None),
        ] {
            world
                .edit(&mut jar, |session| {
                    session.login("ada")?;
                    session.describe(&given)
                })
                .await;
            let text = |session: &Session| session.description().map(|text| text.to_string());
            assert_eq!(world.look(&jar, text).await, shown);
        }
    });
}

#[test]
fn devices_are_listed_with_their_descriptions_and_looking_ends_nothing() {
    block_on(async {
        let world = TestStore::new(Kind::Server, Options::default()).await;
        let phone = log_in(&world, "phone").await;
        let laptop = log_in(&world, "laptop").await;
        let mut plain = Jar::new();
        world.edit(&mut plain, |session| session.login("ada")).await;
        for _ in 0..3 {
            assert_eq!(devices(&world).await, ["phone", "laptop", ""]);
        }
        for jar in [&phone, &laptop, &plain] {
            assert!(world.is_alive(jar).await);
        }
        let id = world.store.sessions_of("ada").await.unwrap()[0].id;
        assert!(!world.store.end_session_of("bob", id).await.unwrap(), "not bob's");
        assert!(world.store.end_session_of("ada", id).await.unwrap());
        assert!(!world.is_alive(&phone).await);
        assert_eq!(world.store.end_sessions_of("ada", None).await.unwrap(), Some(2));
        assert_eq!(devices(&world).await, [""; 0]);
    });
}

#[test]
fn what_a_cookie_store_cannot_do_is_an_error_that_names_the_way() {
    block_on(async {
        let says = |error: Error, way: &str| {
            assert!(error.is_config() && error.to_string().contains(way), "{error}");
        };
        for kind in [Kind::Cookie, Kind::Revocable] {
            let world = TestStore::new(kind, Options::default()).await;
            let jar = log_in(&world, "phone").await;
            let id = world.look(&jar, Session::id).await.unwrap();
            says(world.store.sessions_of("ada").await.unwrap_err(), "server-side");
            says(world.store.end_session_of("ada", id).await.unwrap_err(), "server-side");
            let keeping = world.store.end_sessions_of("ada", Some(id)).await.unwrap_err();
            says(keeping, if kind == Kind::Cookie { "revocations()" } else { "end_other_sessions()" });
            assert!(world.is_alive(&jar).await);
        }
        let world = TestStore::new(Kind::Cookie, Options::default()).await;
        let mut jar = log_in(&world, "phone").await;
        says(world.store.end_sessions_of("ada", None).await.unwrap_err(), "revocations()");
        says(world.end_others(&mut jar, |_| Ok(())).await.unwrap_err(), "revocations()");
        assert!(world.is_alive(&jar).await);
    });
}

#[test]
fn all_sessions_of_a_subject_end_through_the_trait_object() {
    block_on(async {
        for (kind, ended) in [(Kind::Revocable, None), (Kind::Server, Some(2))] {
            let world = TestStore::new(kind, Options::default()).await;
            let (phone, laptop) = (log_in(&world, "phone").await, log_in(&world, "laptop").await);
            let mut bob = Jar::new();
            world.edit(&mut bob, |session| session.login("bob")).await;
            assert_eq!(world.store.end_sessions_of("ada", None).await.unwrap(), ended);
            assert!(!world.is_alive(&phone).await && !world.is_alive(&laptop).await);
            assert!(world.is_alive(&bob).await && world.is_alive(&log_in(&world, "new").await).await);
        }
    });
}

#[test]
fn my_other_devices_end_and_this_one_stays_under_its_new_token() {
    block_on(async {
        for &kind in KINDS.iter().filter(|kind| **kind != Kind::Cookie) {
            println!("{kind:?}");
            let world = TestStore::new(kind, Options::default()).await;
            let counted = |number| kind.lists().then_some(number);
            let others = [log_in(&world, "phone").await, log_in(&world, "laptop").await];
            let mut mine = log_in(&world, "mine").await;
            world.edit(&mut mine, |session| session.set("cart", 3)).await;
            let before = mine.clone();
            world.clock.advance(seconds(5));
            // The id of a session changes at a login: the one to keep is the new one.
            assert_eq!(world.end_others(&mut mine, Session::reauthenticate).await.unwrap(), counted(2));
            assert!(world.is_alive(&mine).await && !world.is_alive(&before).await);
            for other in &others {
                assert!(!world.is_alive(other).await);
            }
            if kind.lists() {
                assert_eq!(devices(&world).await, ["mine"]);
            }
            let cart = |session: &Session| {
                (session.get::<u8>("cart").unwrap(), session.description().map(|text| text.to_string()))
            };
            assert_eq!(world.look(&mine, cart).await, (Some(3), Some("mine".to_owned())));
            // Without a proof of who it is: what an authentication began stays as it is.
            let another = log_in(&world, "another").await;
            let times = |session: &Session| (session.created_at(), session.authenticated_at());
            let began = world.look(&mine, times).await;
            world.clock.advance(seconds(5));
            assert_eq!(world.end_others(&mut mine, |_| Ok(())).await.unwrap(), counted(1));
            assert!(world.is_alive(&mine).await && !world.is_alive(&another).await);
            assert_eq!(world.look(&mine, times).await, began);
            // In the request of the login itself.
            let mut fresh = Jar::new();
            assert_eq!(
                world.end_others(&mut fresh, |session| session.login("ada")).await.unwrap(),
                counted(1)
            );
            assert!(world.is_alive(&fresh).await && !world.is_alive(&mine).await);
            // A session that has ended ends no others.
            let late = world.end_others(&mut mine, |_| Ok(())).await;
            assert!(late.unwrap_err().is_not_logged_in() && world.is_alive(&fresh).await);
            let visitor = world.end_others(&mut Jar::new(), |session| session.set("a", 1)).await;
            assert!(visitor.unwrap_err().is_not_logged_in());
        }
    });
}

/// The ids that a handler sees before and after it saves what `act` does.
async fn ids(
    world: &TestStore,
    jar: &mut Jar,
    act: impl Fn(&Session) -> Result<(), Error> + Send + Sync,
) -> ([Option<SessionId>; 2], Result<(), Error>) {
    let seen = Mutex::new(None);
    let service = session_fn(world.store.clone(), |_: http::Request<_>, handle: SessionHandle| async {
        let handle = handle;
        let session = handle.load().await?;
        act(&session)?;
        let before = session.id();
        let saved = session.save().await;
        *seen.lock().unwrap() = Some(([before, session.id()], saved));
        Ok::<_, Error>(status(200))
    });
    let response = service.call(request("/", jar.header().as_deref())).await.unwrap();
    jar.store(response.headers());
    seen.lock().unwrap().take().unwrap()
}

#[test]
fn an_id_is_that_of_the_stored_session_until_the_next_one_is_stored() {
    everywhere(|world| async move {
        let mut jar = Jar::new();
        let ([none, first], saved) = ids(&world, &mut jar, |session| session.login("ada")).await;
        assert!(saved.is_ok() && none.is_none() && first.is_some());
        assert_eq!(world.look(&jar, Session::id).await, first, "the client has that session");
        for act in [Session::reauthenticate as Act, Session::regenerate, |session| session.login("ada")] {
            let known = world.look(&jar, Session::id).await;
            let ([before, after], saved) = ids(&world, &mut jar, act).await;
            assert!(saved.is_ok() && before == known && after.is_some() && after != known);
            assert_eq!(world.look(&jar, Session::id).await, after);
            if world.kind.lists() {
                // The store knows the session by that id.
                let listed = world.store.sessions_of("ada").await.unwrap();
                assert_eq!(listed.iter().map(|session| Some(session.id)).collect::<Vec<_>>(), [after]);
            }
        }
        if world.kind == Kind::Server {
            return; // memory has no limit
        }
        // A login that cannot be saved leaves the previous id.
        let known = world.look(&jar, Session::id).await;
        let too_large = |session: &Session| {
            session.login("ada")?;
            session.set("page", "x".repeat(2_000_000))
        };
        let (seen, saved) = ids(&world, &mut jar, too_large).await;
        assert!(saved.unwrap_err().is_too_large());
        assert_eq!(seen, [known; 2]);
        assert_eq!(world.look(&jar, Session::id).await, known);
    });
}

#[test]
fn a_login_that_the_limit_refuses_leaves_the_id_of_before() {
    block_on(async {
        for &kind in KINDS.iter().filter(|kind| kind.lists()) {
            let refusing =
                Options { max_sessions: 1, at_limit: SessionLimit::RefuseLogin, ..Options::default() };
            let world = TestStore::new(kind, refusing).await;
            log_in(&world, "one").await;
            let mut visitor = Jar::new();
            world.edit(&mut visitor, |session| session.set("cart", 1)).await;
            let known = world.look(&visitor, Session::id).await;
            let (ids, saved) = ids(&world, &mut visitor, |session| session.login("ada")).await;
            assert!(saved.unwrap_err().is_session_limit());
            assert_eq!(ids, [known; 2]);
            assert_eq!(
                world.look(&visitor, |session| (session.id(), session.subject())).await,
                (known, None)
            );
        }
    });
}

/// A handler that logs in again, and ends the others by the id that it knows so far.
#[test]
fn the_id_from_before_a_login_keeps_the_session_through_it() {
    block_on(async {
        for &kind in KINDS.iter().filter(|kind| kind.lists()) {
            let world = TestStore::new(kind, Options::default()).await;
            let other = log_in(&world, "other").await;
            let mut mine = log_in(&world, "mine").await;
            let ended = Mutex::new(None);
            let service =
                session_fn(world.store.clone(), |_: http::Request<_>, handle: SessionHandle| async {
                    let handle = handle;
                    let session = handle.load().await?;
                    session.login("ada")?;
                    *ended.lock().unwrap() = world.store.end_sessions_of("ada", session.id()).await?;
                    Ok::<_, Error>(status(200))
                });
            let response = service.call(request("/", mine.header().as_deref())).await.unwrap();
            mine.store(response.headers());
            assert_eq!(ended.lock().unwrap().take(), Some(1));
            assert!(world.is_alive(&mine).await && !world.is_alive(&other).await);
        }
    });
}

#[test]
fn at_the_limit_the_least_recently_used_session_ends() {
    block_on(async {
        let world = TestStore::new(Kind::Server, Options { max_sessions: 3, ..Options::default() }).await;
        let mut jars = Vec::new();
        for device in ["a", "b", "c"] {
            jars.push(log_in(&world, device).await);
            world.clock.advance(seconds(1));
        }
        // The first one to log in is in use, the others are not.
        world.clock.set(START + 40);
        world.edit(&mut jars[0], |_| Ok(())).await;
        log_in(&world, "d").await;
        assert_eq!(devices(&world).await, ["a", "c", "d"]);
        assert_eq!(world.events.take(), ["subject_limit:1"]);
        log_in(&world, "e").await;
        assert_eq!(devices(&world).await, ["a", "d", "e"]);
        // In one second they are as recent as each other: the login stays, the first of the others ends.
        let mut visitor = Jar::new();
        world.edit(&mut visitor, |session| session.set("cart", 1)).await;
        world.edit(&mut visitor, |session| session.login("ada")).await;
        assert!(world.is_alive(&visitor).await);
        assert_eq!(devices(&world).await, ["d", "e", ""]);
    });
}

/// The result of a login that the handler saves at once.
async fn try_log_in(world: &TestStore, jar: &mut Jar) -> Result<(), Error> {
    let saved = Mutex::new(None);
    let service = session_fn(world.store.clone(), |_: http::Request<_>, handle: SessionHandle| async {
        let handle = handle;
        let session = handle.load().await?;
        session.login("ada")?;
        let result = session.save().await;
        let refused = result.is_err();
        *saved.lock().unwrap() = Some(result);
        if refused {
            session.clear()?;
        }
        Ok::<_, Error>(status(200))
    });
    let response = service.call(request("/", jar.header().as_deref())).await.unwrap();
    jar.store(response.headers());
    saved.lock().unwrap().take().unwrap()
}

#[test]
fn at_the_limit_a_login_can_be_refused() {
    block_on(async {
        let refusing = Options { max_sessions: 2, at_limit: SessionLimit::RefuseLogin, ..Options::default() };
        let mut world = TestStore::new(Kind::Server, refusing).await;
        let mut one = log_in(&world, "one").await;
        let two = log_in(&world, "two").await;
        let mut third = Jar::new();
        let error = try_log_in(&world, &mut third).await.unwrap_err();
        assert!(error.is_session_limit() && error.label() == "session_limit");
        assert!(third.0.is_empty());
        assert_eq!(devices(&world).await, ["one", "two"]);
        // The sessions that exist can be authenticated again, also when fewer are allowed.
        world.deploy(Options { max_sessions: 1, ..refusing }).await;
        world.edit(&mut one, Session::reauthenticate).await;
        assert!(world.is_alive(&one).await && world.is_alive(&two).await);
        // A place that is free again can be taken.
        world.deploy(refusing).await;
        world.store.end_sessions_of("ada", world.look(&one, Session::id).await).await.unwrap();
        try_log_in(&world, &mut third).await.unwrap();
        assert!(world.is_alive(&third).await);
        // So can that of a session that has expired.
        world.clock.advance(seconds(200));
        try_log_in(&world, &mut Jar::new()).await.unwrap();
    });
}

#[test]
fn of_two_logins_at_once_for_one_place_one_is_refused() {
    block_on(async {
        let refusing = Options { max_sessions: 1, at_limit: SessionLimit::RefuseLogin, ..Options::default() };
        let world = TestStore::new(Kind::Server, refusing).await;
        let (mut one, mut two) = (Jar::new(), Jar::new());
        let (first, second) = tokio::join!(try_log_in(&world, &mut one), try_log_in(&world, &mut two));
        assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
        assert_eq!(devices(&world).await.len(), 1);
    });
}
