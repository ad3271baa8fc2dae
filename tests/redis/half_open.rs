//! Connections that are open and carry nothing (A3): they cost time, and no request.

use std::time::{Duration, Instant};

use hyper_session::store::redis::NearCache;
use hyper_session::testing::Relay;
use tokio::task::JoinHandle;

use crate::app::{App, behind_relay, builder};
use crate::cluster::Cluster;
use crate::server::{PATIENCE, Server};
use crate::session_lists::{log_in, user};
use crate::support::{Jar, UNHURRIED};

/// A connection that is silent for half of this is replaced. The step goes on for [`UNHURRIED`] beside it.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a3_half_open_connections_fail_no_request() {
    let server = Server::start();
    for connections in [1, 2, 4] {
        for burst in [1, 100] {
            let (relay, url) = behind_relay(&server);
            let options = builder(url).connections(connections);
            let app = App::with(options.command_timeout(COMMAND_TIMEOUT)).await;
            let jars: Vec<_> = {
                let mut jars = Vec::new();
                for _ in 0..12 {
                    jars.push(app.jar().await);
                }
                jars
            };
            relay.silence_open_connections();
            let start = Instant::now();
            let mut tasks = Vec::new();
            for number in 0..12.max(burst) {
                let (app, mut jar) = (app.clone(), jars[number % 12].clone());
                let path =
                    ["/read", "/add", "/set/x", "/regenerate"][if burst == 1 { number % 4 } else { 0 }];
                let task = tokio::spawn(async move { app.visit(path, &mut jar).await.status() });
                if burst == 1 {
                    assert_eq!(task.await.unwrap(), 200, "{path}, {connections} connections");
                } else {
                    tasks.push(task);
                }
            }
            for task in tasks {
                assert_eq!(task.await.unwrap(), 200, "{connections} connections");
            }
            let stats = app.store.backend().stats();
            println!(
                "{connections} half-open connections, {} requests: {} failed, {:?} in all",
                12.max(burst),
                stats.failures,
                start.elapsed()
            );
            assert_eq!(
                (stats.failures, stats.timeouts, stats.turned_away, stats.up),
                (0, 0, 0, true),
                "{stats:?}"
            );
            app.is_whole(connections).await;
        }
    }
}

/// A write that both connections carried is done once: the server executed it, and its reply comes too late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a3_a_reply_that_is_late_changes_nothing() {
    let server = Server::start();
    let (relay, url) = behind_relay(&server);
    let app = App::with(builder(url).command_timeout(COMMAND_TIMEOUT).checkout_timeout(2 * UNHURRIED)).await;
    for (path, expected, of_old_token) in
        [("/late/add", "2", "2"), ("/late/regenerate", "1", "none"), ("/late/logout", "none", "none")]
    {
        // On a busy machine the reply may come before it is held up.
        app.until("a write is sent twice", async || {
            relay.set_latency(Duration::ZERO);
            let mut jar = app.jar().await;
            let (old, retries) = (jar.clone(), app.store.backend().stats().retries);
            let visitor = app.clone();
            let visit = tokio::spawn(async move {
                visitor.ok(path, &mut jar).await;
                jar
            });
            app.gate.arrived.acquire().await.unwrap().forget();
            let requests = relay.requests();
            relay.set_latency(COMMAND_TIMEOUT / 8);
            assert_eq!(server.cli(&["CONFIG", "RESETSTAT"]), "OK");
            app.gate.go.add_permits(1);
            app.until("the write is under way", async || relay.requests() > requests).await;
            relay.set_latency(4 * COMMAND_TIMEOUT);
            app.until("it was executed", async || !server.command_counts().is_empty()).await;
            relay.set_latency(Duration::ZERO);
            let new = visit.await.unwrap();
            assert_eq!(app.ok("/read", &mut new.clone()).await, expected, "{path}");
            assert_eq!(app.ok("/read", &mut old.clone()).await, of_old_token, "{path}");
            app.store.backend().stats().retries > retries
        })
        .await;
    }
    let stats = app.store.backend().stats();
    assert_eq!(stats.failures, 0, "{stats:?}");
}

/// Down is only what was tried over a fresh connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a3_a_server_that_is_silent_on_fresh_connections_is_down() {
    let server = Server::start();
    let (relay, url) = behind_relay(&server);
    let app = App::hurried(&url).await;
    let mut jar = App::connect(server.url()).await.jar().await;
    relay.set_silent(true);
    app.until("it is taken for down", async || {
        app.fails("/read", &jar).await;
        !app.store.backend().stats().up
    })
    .await;
    let before = app.store.backend().stats();
    for _ in 0..50 {
        app.fails("/read", &jar).await;
    }
    let after = app.store.backend().stats();
    assert!(after.turned_away > before.turned_away);
    // Figures count what their names say.
    assert_eq!(after.failures - before.failures, 50);
    assert!(after.timeouts - before.timeouts <= 50 - (after.turned_away - before.turned_away), "{after:?}");
    relay.set_silent(false);
    app.recovers("/read", &mut jar).await;
    app.is_whole(2).await;
}

/// The attempts to connect that were swallowed never end. When the network is back, a later attempt succeeds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a3_after_a_silence_no_request_waits_for_attempts_that_were_swallowed() {
    let server = Server::start();
    let (relay, url) = behind_relay(&server);
    // Longer than the test waits. A later attempt begins after a sixteenth of it at the latest.
    let app = App::hurried_with(&url, |options| options.connect_timeout(PATIENCE * 5 / 4)).await;
    let mut jar = App::connect(server.url()).await.jar().await;
    relay.set_silent(true);
    app.until("no connection can be made", async || {
        app.fails("/read", &jar).await;
        let stats = app.store.backend().stats();
        !stats.up && stats.connections == 0 && relay.connections() >= 2
    })
    .await;
    relay.silence_open_connections();
    relay.set_silent(false);
    assert_eq!(app.recovers("/read", &mut jar).await, "1");
}

/// Both connections to one of the masters, for each kind of step: one step at a time, and many at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a3_half_open_connections_to_one_node_of_a_cluster_fail_no_request() {
    let cluster = tokio::task::block_in_place(|| Cluster::of(3, 0));
    let relays = cluster.behind_relays();
    let plain = || builder(cluster.url()).command_timeout(COMMAND_TIMEOUT / 2);
    let near_cache = NearCache::new().max_staleness(Duration::from_secs(2));
    for (kind, options) in
        [("plain", plain()), ("all options", plain().near_cache(near_cache).check_session_list(true))]
    {
        let app = App::with(options).await;
        let mut jars = Vec::new();
        for number in 0..18 {
            jars.push(if number % 3 == 0 { log_in(&app.store, "ada").await } else { app.jar().await });
        }
        for (relay, path) in relays.iter().cycle().zip(["/read", "/add", "/regenerate", "/set/x", "/read"]) {
            silence(relay, &app, &jars).await;
            let visits = jars.into_iter().map(|mut jar| {
                let app = app.clone();
                tokio::spawn(async move {
                    let status = app.visit(path, &mut jar).await.status();
                    assert_eq!(status, 200, "{kind}, {path}: {:?}", app.events.take());
                    jar
                })
            });
            jars = join_all(visits).await;
            silence(relay, &app, &jars).await;
            assert_eq!(app.store.sessions_of("ada").await.unwrap().len(), 6, "{kind}, {path}");
            silence(relay, &app, &jars).await;
            let jar = log_in(&app.store, "bob").await;
            silence(relay, &app, &jars).await;
            assert_eq!(app.store.end_sessions_of("bob", None).await.unwrap(), 1, "{kind}, {path}");
            assert_eq!(user(&app.store, &jar).await, None);
        }
        let stats = app.store.backend().stats();
        assert_eq!(
            (stats.failures, stats.timeouts, stats.turned_away, stats.up),
            (0, 0, 0, true),
            "{stats:?}"
        );
        app.store.end_sessions_of("ada", None).await.unwrap();
    }
}

/// Silences the connections to one node, once the store has two to each of the three. A connection that is being made is not
/// half-open: it would keep its place until another attempt is made, a quarter of the timeout of connecting later.
async fn silence(relay: &Relay, app: &App, jars: &[Jar]) {
    app.until("no connection is being made", async || {
        let is_whole = app.store.backend().stats().connections == 6;
        if !is_whole {
            for jar in jars {
                app.ok("/read", &mut jar.clone()).await;
            }
        }
        is_whole
    })
    .await;
    relay.silence_open_connections();
}

async fn join_all<T>(tasks: impl Iterator<Item = JoinHandle<T>>) -> Vec<T> {
    let (tasks, mut results): (Vec<_>, _) = (tasks.collect(), Vec::new());
    for task in tasks {
        results.push(task.await.unwrap());
    }
    results
}
