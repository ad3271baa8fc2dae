//! Lists of sessions that are lost (A5): they heal, or, where they are checked, their sessions have ended.

use std::sync::Arc;
use std::time::Duration;

use hyper_session::testing::FakeClock;
use hyper_session::{Clock, Error, RedisStore, Session, SessionHandle, SystemClock, session_fn};
use tokio::sync::Semaphore;

use crate::app::{App, builder};
use crate::cluster::Cluster;
use crate::server::{Server, cli};
use crate::support::{Body, Jar, visit};
use crate::values::Raw;

pub(crate) async fn as_browser<F>(store: &RedisStore, jar: &mut Jar, act: F)
where
    F: Fn(&Session) -> Result<(), Error> + Clone + Send + Sync + 'static,
{
    let service = session_fn(store.clone(), move |_: http::Request<Body>, session: SessionHandle| {
        let act = act.clone();
        async move {
            act(&session.load().await?)?;
            Ok::<_, Error>(http::Response::new(Body::default()))
        }
    });
    assert_eq!(visit(&service, "/", jar).await.status(), 200);
}

pub(crate) async fn log_in(store: &RedisStore, user: &str) -> Jar {
    let (mut jar, user) = (Jar::new(), user.to_owned());
    as_browser(store, &mut jar, move |session| session.login(&user)).await;
    jar
}

/// The user of this jar's session, as a request that only reads finds out.
pub(crate) async fn user(store: &RedisStore, jar: &Jar) -> Option<String> {
    let seen = Arc::new(std::sync::Mutex::new(None));
    let note = seen.clone();
    as_browser(store, &mut jar.clone(), move |session| {
        *note.lock().unwrap() = session.subject().map(|user| user.to_string());
        Ok(())
    })
    .await;
    seen.lock().unwrap().take()
}

/// The keys of lists.
pub(crate) fn list_keys(raw: &mut Raw) -> Vec<String> {
    let keys = raw.keys();
    keys.into_iter().filter(|key| raw.get(key).get(8) == Some(&3)).collect()
}

fn evict_lists(server: &Server) -> usize {
    let mut raw = Raw::of(server);
    let lists = list_keys(&mut raw);
    for key in &lists {
        raw.delete(key);
    }
    lists.len()
}

/// Waits until so many sessions of "ada" are listed. A list that answers late is written after the response.
async fn are_listed(app: &App, count: usize) {
    let listed = async || app.store.sessions_of("ada").await.unwrap().len() == count;
    app.until("the sessions are listed", listed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a5_a_renewal_enters_a_session_again_that_was_lost_from_its_list() {
    let server = Server::start();
    let clock = FakeClock::at(SystemClock.now().as_unix());
    let app = App::with(builder(server.url()).clock(clock.clone())).await;
    let jars = [log_in(&app.store, "ada").await, log_in(&app.store, "ada").await];
    assert_eq!(evict_lists(&server), 1);
    assert_eq!(app.store.sessions_of("ada").await.unwrap(), []);
    clock.advance(Duration::from_secs(3 * 3_600));
    for jar in &jars {
        assert_eq!(user(&app.store, jar).await.as_deref(), Some("ada"));
    }
    are_listed(&app, 2).await;
    assert_eq!(app.store.end_sessions_of("ada", None).await.unwrap(), 2);
    assert_eq!(user(&app.store, &jars[0]).await, None);
    // A session that was ended is not entered again.
    clock.advance(Duration::from_secs(3 * 3_600));
    assert_eq!(user(&app.store, &jars[1]).await, None);
    server.has_entries(0);
}

/// A session that is written all the time is never renewed: its writes enter it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a5_a_write_enters_a_session_again_that_was_lost_from_its_list() {
    let server = Server::start();
    let clock = FakeClock::at(SystemClock.now().as_unix());
    let app = App::with(builder(server.url()).clock(clock.clone())).await;
    let mut jar = log_in(&app.store, "ada").await;
    assert_eq!(evict_lists(&server), 1);
    let mut looked = 0;
    // A day, of which a tenth is the renewal threshold.
    for _ in 0..96 {
        clock.advance(Duration::from_secs(900));
        let before = app.store.backend().stats().commands;
        app.ok("/add", &mut jar).await;
        // Beside the load and the write. The first time it also writes the list.
        if app.store.backend().stats().commands - before > 2 {
            looked += 1;
            are_listed(&app, 1).await;
        }
    }
    assert_eq!(looked, 10, "no oftener than a renewal would");
    assert_eq!(app.store.end_sessions_of("ada", None).await.unwrap(), 1);
    clock.advance(Duration::from_secs(3 * 3_600));
    assert_eq!(app.ok("/read", &mut jar).await, "none");
    server.has_entries(0);
}

/// The list is lost and the sessions are ended while a request is under way: its session has ended, whatever it does. If its
/// user authenticates anew, that is a new session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a5_with_the_list_checked_no_request_brings_its_session_back() {
    let server = Server::start();
    let app = App::with(builder(server.url()).check_session_list(true)).await;
    for (act, expected) in [("write", None), ("regenerate", None), ("login", Some("ada"))] {
        let mut jar = log_in(&app.store, "ada").await;
        let lists = list_keys(&mut Raw::of(&server));
        let (store, port) = (app.store.clone(), server.port);
        let service = session_fn(app.store.clone(), move |_: http::Request<Body>, session: SessionHandle| {
            let (store, lists) = (store.clone(), lists.clone());
            async move {
                let session = session.load().await?;
                assert_eq!(session.subject().as_deref(), Some("ada"));
                for list in &lists {
                    cli(port, &["DEL", list]);
                }
                assert_eq!(store.end_sessions_of("ada", None).await?, 0);
                match act {
                    "write" => session.set("x", 1)?,
                    "regenerate" => session.regenerate()?,
                    _ => session.login("ada")?,
                }
                Ok::<_, Error>(http::Response::new(Body::default()))
            }
        });
        let old = jar.clone();
        visit(&service, "/", &mut jar).await;
        assert_eq!(user(&app.store, &jar).await.as_deref(), expected, "{act}");
        assert_eq!(user(&app.store, &old).await, None, "{act}");
        app.store.end_sessions_of("ada", None).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a5_with_the_list_checked_no_session_outlives_the_loss_of_its_list() {
    const USERS: usize = 2_000;
    let server = Server::start();
    let long = Duration::from_secs(20);
    let options = builder(server.url()).check_session_list(true).command_timeout(long).checkout_timeout(long);
    let app = App::with(options).await;
    let width = Arc::new(Semaphore::new(32));
    let logins: Vec<_> = (0..USERS)
        .map(|number| {
            let (store, width) = (app.store.clone(), Arc::clone(&width));
            tokio::spawn(async move {
                let _permit = width.acquire().await.unwrap();
                log_in(&store, &format!("user{number}")).await
            })
        })
        .collect();
    let mut jars = Vec::new();
    for login in logins {
        jars.push(login.await.unwrap());
    }
    assert_eq!(user(&app.store, &jars[7]).await.as_deref(), Some("user7"));
    assert_eq!(evict_lists(&server), USERS);
    let (mut ended, mut alive) = (0, 0);
    for (number, jar) in jars.iter().enumerate() {
        let subject = format!("user{number}");
        ended += app.store.end_sessions_of(&subject, None).await.unwrap();
        alive += usize::from(user(&app.store, jar).await.is_some());
    }
    println!("{USERS} sessions, lists evicted: end_sessions_of found {ended}, and left {alive} alive");
    assert_eq!(alive, 0);
    // Logging in again works.
    let jar = log_in(&app.store, "user7").await;
    assert_eq!(user(&app.store, &jar).await.as_deref(), Some("user7"));
    assert_eq!(app.store.end_sessions_of("user7", None).await.unwrap(), 1);
    assert_eq!(user(&app.store, &jar).await, None);
}

/// The check costs a command, and no round trip once the session was seen. Sessions without a subject cost nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a5_checking_the_list_takes_part_in_everything_a_session_does() {
    let server = Server::start();
    let app = App::with(builder(server.url()).check_session_list(true)).await;
    let mut anonymous = app.jar().await;
    let mut jar = log_in(&app.store, "ada").await;
    server.cli(&["CONFIG", "RESETSTAT"]);
    app.ok("/read", &mut anonymous).await;
    assert_eq!(server.command_counts()["get"], 1);
    for path in ["/add", "/regenerate", "/set/x", "/read"] {
        app.ok(path, &mut jar).await;
        assert_eq!(user(&app.store, &jar).await.as_deref(), Some("ada"), "{path}");
    }
    server.cli(&["CONFIG", "RESETSTAT"]);
    app.ok("/read", &mut jar).await;
    assert_eq!(server.command_counts()["get"], 2);
    let old = jar.clone();
    app.ok("/logout", &mut jar).await;
    assert_eq!(user(&app.store, &old).await, None);
    assert_eq!(app.store.sessions_of("ada").await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a5_a_policy_that_evicts_sessions_is_reported_when_connecting() {
    for (policy, events) in [("noeviction", vec![]), ("volatile-lru", vec!["eviction_policy:volatile-lru"])] {
        let server = Server::with(&["--maxmemory", "100mb", "--maxmemory-policy", policy]);
        let app = App::connect(server.url()).await;
        let seen: Vec<_> =
            app.events.take().into_iter().filter(|event| event.starts_with("eviction")).collect();
        assert_eq!(seen, events);
    }
}

/// Each master has a policy of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a5_in_a_cluster_the_policy_of_any_master_is_reported() {
    let cluster = tokio::task::block_in_place(|| Cluster::of(3, 0));
    for node in cluster.servers() {
        let set = |policy| assert_eq!(node.cli(&["CONFIG", "SET", "maxmemory-policy", policy]), "OK");
        set("allkeys-lru");
        let app = App::connect(cluster.url()).await;
        assert!(app.events.take().contains(&"eviction_policy:allkeys-lru".to_owned()), "{}", node.port);
        set("noeviction");
    }
}
