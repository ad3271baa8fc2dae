//! Round trips over a line with latency, counted by the relay: logging in, listing, ending, renewing (A7, A12), and many tasks on
//! one connection (A1).

use std::time::{Duration, Instant};

use hyper_session::testing::{FakeClock, Relay};
use hyper_session::{Clock, SystemClock};

use crate::app::{App, behind_relay, builder};
use crate::server::Server;
use crate::session_lists::{as_browser, log_in, user};
use crate::support::UNHURRIED;

/// A machine that holds up a request for longer than this adds a round trip to the count.
const ROUND_TRIP: Duration = Duration::from_millis(200);

/// A deed that takes more round trips than expected is repeated at most so often.
const ATTEMPTS: u64 = 20;

/// Counts the round trips of a deed. A busy machine only adds, so the least of some attempts counts.
async fn takes(what: &str, relay: &Relay, expected: u64, mut deed: impl AsyncFnMut()) {
    let mut least = u64::MAX;
    for _ in 0..ATTEMPTS {
        let before = relay.round_trips();
        deed().await;
        least = least.min(relay.round_trips() - before);
        if least <= expected {
            break;
        }
    }
    assert_eq!(least, expected, "{what}");
}

/// Waits until the user has so many sessions: a login does not wait for the end of another session.
async fn has_sessions(app: &App, user: &str, count: usize) {
    let start = Instant::now();
    while app.store.sessions_of(user).await.unwrap().len() != count {
        assert!(start.elapsed() < UNHURRIED, "{count} sessions of {user}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// `store_contract` counts the steps of every store, one after the other. This is what they come to on a socket.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a7_a12_logging_in_listing_ending_and_renewing_cost_few_round_trips() {
    let server = Server::start();
    let (relay, url) = behind_relay(&server);
    let clock = FakeClock::at(SystemClock.now().as_unix());
    let app = App::with(builder(url).clock(clock.clone())).await;
    for _ in 0..99 {
        log_in(&app.store, "ada").await;
    }
    let mut jar = log_in(&app.store, "ada").await;
    relay.set_latency(ROUND_TRIP / 2);

    takes("a page that reads", &relay, 1, async || {
        assert_eq!(app.ok("/read", &mut jar).await, "none");
    })
    .await;
    // To load and to move the deadline.
    takes("a page that reads, renewal due", &relay, 2, async || {
        clock.advance(Duration::from_secs(3 * 3_600));
        app.ok("/read", &mut jar).await;
    })
    .await;
    let mut newest = jar;
    takes("login at the session limit", &relay, 4, async || {
        newest = log_in(&app.store, "ada").await;
    })
    .await;
    has_sessions(&app, "ada", 100).await;
    assert_eq!(app.events.take().last().map(String::as_str), Some("subject_limit:1"));
    let mut sessions = Vec::new();
    takes("list 100", &relay, 2, async || {
        sessions = app.store.sessions_of("ada").await.unwrap();
    })
    .await;
    assert_eq!(sessions.len(), 100);

    // It cannot be tried again. One after the other would be 200.
    let before = relay.round_trips();
    assert_eq!(app.store.end_sessions_of("ada", Some(sessions[99].id)).await.unwrap(), 99);
    let end = relay.round_trips() - before;
    println!("end 99: {end} round trips");
    assert!(end < 50, "{end}");
    assert_eq!(user(&app.store, &newest).await.as_deref(), Some("ada"));
}

/// A browser that has a session already: it is loaded first, and its old token is replaced last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a7_new_tokens_cost_few_round_trips() {
    let server = Server::start();
    let (relay, url) = behind_relay(&server);
    let app = App::with(builder(url).max_sessions_per_subject(2)).await;
    let (mut visitor, mut user) = (app.jar().await, log_in(&app.store, "bob").await);
    let mut visitors = Vec::new();
    for _ in 0..ATTEMPTS {
        visitors.push(app.jar().await);
    }
    for _ in 0..2 {
        log_in(&app.store, "ada").await;
    }
    relay.set_latency(ROUND_TRIP / 2);

    takes("regenerate, visitor", &relay, 3, async || {
        app.ok("/regenerate", &mut visitor).await;
    })
    .await;
    takes("regenerate, logged in", &relay, 6, async || {
        app.ok("/regenerate", &mut user).await;
    })
    .await;
    app.events.take();
    let mut visitors = visitors.into_iter();
    takes("login at the session limit, visitor", &relay, 6, async || {
        as_browser(&app.store, &mut visitors.next().unwrap(), |session| session.login("ada")).await;
    })
    .await;
    has_sessions(&app, "ada", 2).await;
    assert!(app.events.take().contains(&"subject_limit:1".to_owned()));
}

/// However many sessions a subject may have, the steps for them go out together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a7_a_thousand_sessions_cost_as_few_round_trips_as_a_hundred() {
    let server = Server::start();
    let (relay, url) = behind_relay(&server);
    let app = App::with(builder(url).max_sessions_per_subject(1_000)).await;
    for _ in 0..1_000 {
        log_in(&app.store, "ada").await;
    }
    relay.set_latency(ROUND_TRIP / 2);
    takes("login at the session limit of 1,000", &relay, 4, async || {
        log_in(&app.store, "ada").await;
    })
    .await;
    has_sessions(&app, "ada", 1_000).await;
    let mut sessions = Vec::new();
    takes("list 1,000", &relay, 2, async || {
        sessions = app.store.sessions_of("ada").await.unwrap();
    })
    .await;
    assert_eq!(sessions.len(), 1_000);
    let mut next = sessions.iter();
    takes("end one of them", &relay, 5, async || {
        assert!(app.store.end_session_of("ada", next.next().unwrap().id).await.unwrap());
    })
    .await;
}

/// Many tasks share a connection: each waits for its own round trip, and not for those of others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a1_sixteen_tasks_on_one_connection_wait_one_round_trip_each() {
    const READS: u64 = 20;
    let server = Server::start();
    for connections in [1, 2] {
        let (relay, url) = behind_relay(&server);
        let app = App::with(builder(url).connections(connections)).await;
        let mut jars = Vec::new();
        for _ in 0..16 {
            jars.push(app.jar().await);
        }
        relay.set_latency(ROUND_TRIP / 4);
        let before = relay.round_trips();
        let tasks: Vec<_> = jars
            .into_iter()
            .map(|mut jar| {
                let app = app.clone();
                tokio::spawn(async move {
                    for _ in 0..READS {
                        app.ok("/read", &mut jar).await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let waited = relay.round_trips() - before;
        println!("16 tasks that read {READS} times, {connections} connections: {waited} round trips");
        // One task after the other would be 320.
        assert!((READS..8 * READS).contains(&waited), "{waited}");
    }
}
