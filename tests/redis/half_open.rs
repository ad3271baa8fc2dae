//! Connections that are open and carry nothing (A3): they cost time, and no request.

use std::time::{Duration, Instant};

use crate::app::{App, behind_relay, builder};
use crate::server::Server;
use crate::support::UNHURRIED;

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

/// A write that both connections carried is done once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a3_a_reply_that_is_late_changes_nothing() {
    let server = Server::start();
    let (relay, url) = behind_relay(&server);
    let app = App::with(builder(url).command_timeout(COMMAND_TIMEOUT).checkout_timeout(2 * UNHURRIED)).await;
    let mut jar = app.jar().await;
    // A round trip takes longer than a connection may be silent, and in the end both attempts arrive.
    relay.set_latency(COMMAND_TIMEOUT / 2);
    let mut n = 1;
    app.until("a step is sent twice", async || {
        n += 1;
        assert_eq!(app.ok("/add", &mut jar).await, n.to_string());
        app.store.backend().stats().retries > 0
    })
    .await;
    assert_eq!(app.ok("/regenerate", &mut jar).await, n.to_string());
    let old = jar.clone();
    app.ok("/logout", &mut jar).await;
    relay.set_latency(Duration::ZERO);
    assert_eq!(app.ok("/read", &mut old.clone()).await, "none");
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
