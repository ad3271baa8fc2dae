//! "My devices": descriptions, ending others, and what happens at the limit.

use std::sync::Mutex;

use hyper::service::Service;
use hyper_session::store::{SessionLimit, Store};
use hyper_session::{Error, Session, SessionHandle, session_fn};

use crate::stores::{Kind, Options, START, World, everywhere, seconds};
use crate::support::{Jar, block_on, request, status};

async fn log_in(world: &World, device: &str) -> Jar {
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
async fn devices(world: &World) -> Vec<String> {
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
fn descriptions_have_bounds() {
    everywhere(|world| async move {
        world
            .edit(&mut Jar::new(), |session| {
                assert!(session.describe("").unwrap_err().is_value());
                assert!(session.describe(&"x".repeat(257)).unwrap_err().is_value());
                session.describe(&"x".repeat(256))
            })
            .await;
    });
}

#[test]
fn devices_are_listed_with_their_descriptions_and_looking_ends_nothing() {
    block_on(async {
        let world = World::new(Kind::Server, Options::default());
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
        assert_eq!(world.store.end_sessions_of("ada", None).await.unwrap(), 2);
        assert_eq!(devices(&world).await, [""; 0]);
    });
}

#[test]
fn a_store_without_lists_says_so() {
    block_on(async {
        let world = World::new(Kind::Cookie, Options::default());
        let mut jar = log_in(&world, "phone").await;
        let id = world.look(&jar, Session::id).await.unwrap();
        assert!(world.store.sessions_of("ada").await.unwrap_err().is_config());
        assert!(world.store.end_session_of("ada", id).await.unwrap_err().is_config());
        assert!(world.store.end_sessions_of("ada", None).await.unwrap_err().is_config());
        let error = end_others(&world, &mut jar, |_| Ok(())).await.unwrap_err();
        assert!(error.is_config() && error.to_string().contains("server-side"), "{error}");
        assert!(world.is_alive(&jar).await);
    });
}

/// A handler that does `act`, then ends the other sessions.
async fn end_others(
    world: &World,
    jar: &mut Jar,
    act: impl Fn(&Session) -> Result<(), Error> + Send + Sync,
) -> Result<usize, Error> {
    let ended = Mutex::new(None);
    let service = session_fn(world.store.clone(), |_: http::Request<_>, handle: SessionHandle| async {
        let handle = handle;
        let session = handle.load().await?;
        act(&session)?;
        *ended.lock().unwrap() = Some(session.end_other_sessions().await);
        Ok::<_, Error>(status(200))
    });
    let response = service.call(request("/", jar.header().as_deref())).await.unwrap();
    jar.store(response.headers());
    ended.lock().unwrap().take().unwrap()
}

// The id of a session changes at a login: the one to keep is the new one.
#[test]
fn my_other_devices_end_and_this_one_stays_under_its_new_token() {
    block_on(async {
        let world = World::new(Kind::Server, Options::default());
        let others = [log_in(&world, "phone").await, log_in(&world, "laptop").await];
        let mut mine = log_in(&world, "mine").await;
        let before = mine.clone();
        assert_eq!(end_others(&world, &mut mine, Session::reauthenticate).await.unwrap(), 2);
        assert!(world.is_alive(&mine).await && !world.is_alive(&before).await);
        for other in &others {
            assert!(!world.is_alive(other).await);
        }
        assert_eq!(devices(&world).await, ["mine"]);
        // In the request of the login itself.
        let mut fresh = Jar::new();
        assert_eq!(end_others(&world, &mut fresh, |session| session.login("ada")).await.unwrap(), 1);
        assert!(world.is_alive(&fresh).await && !world.is_alive(&mine).await);
        let visitor = end_others(&world, &mut Jar::new(), |session| session.set("a", 1)).await;
        assert!(visitor.unwrap_err().is_not_logged_in());
    });
}

#[test]
fn at_the_limit_the_least_recently_used_session_ends() {
    block_on(async {
        let world = World::new(Kind::Server, Options { max_sessions: 3, ..Options::default() });
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
async fn try_log_in(world: &World, jar: &mut Jar) -> Result<(), Error> {
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
        let mut world = World::new(Kind::Server, refusing);
        let mut one = log_in(&world, "one").await;
        let two = log_in(&world, "two").await;
        let mut third = Jar::new();
        let error = try_log_in(&world, &mut third).await.unwrap_err();
        assert!(error.is_session_limit() && error.label() == "session_limit");
        assert!(third.0.is_empty());
        assert_eq!(devices(&world).await, ["one", "two"]);
        // The sessions that exist can be authenticated again, also when fewer are allowed.
        world.deploy(Options { max_sessions: 1, ..refusing });
        world.edit(&mut one, Session::reauthenticate).await;
        assert!(world.is_alive(&one).await && world.is_alive(&two).await);
        // A place that is free again can be taken.
        world.deploy(refusing);
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
        let world = World::new(Kind::Server, refusing);
        let (mut one, mut two) = (Jar::new(), Jar::new());
        let (first, second) = tokio::join!(try_log_in(&world, &mut one), try_log_in(&world, &mut two));
        assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
        assert_eq!(devices(&world).await.len(), 1);
    });
}
