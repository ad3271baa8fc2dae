//! A server that takes no write that grows (A6): pages are served, and sessions end.

use std::time::Duration;

use hyper_session::store::redis::NearCache;
use hyper_session::testing::FakeClock;
use hyper_session::{AppKey, Clock, SystemClock};

use crate::app::{App, builder};
use crate::server::Server;
use crate::session_lists::{log_in, user};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a6_with_memory_full_reads_renew_and_sessions_end() {
    for scripts_only in [false, true] {
        let server = Server::start();
        let clock = FakeClock::at(SystemClock.now().as_unix());
        let mut options = builder(server.url()).clock(clock.clone());
        if scripts_only {
            options = options.scripts_only();
        }
        let app = App::with(options).await;
        let mut jar = app.jar().await;
        let jars = [log_in(&app.store, "ada").await, log_in(&app.store, "ada").await];
        let key = server.cli(&["KEYS", "test:*"]).lines().next().unwrap().to_owned();
        server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
        clock.advance(Duration::from_secs(3 * 3_600));
        // The renewal is done, as far as there is room: the time to live is Redis' own.
        server.cli(&["PEXPIRE", &key, "100000000"]);
        assert_eq!(app.ok("/read", &mut jar).await, "1");
        assert_eq!(user(&app.store, &jars[0]).await.as_deref(), Some("ada"));
        app.fails("/add", &jar).await;
        assert_eq!(app.store.end_sessions_of("ada", None).await.unwrap(), 2);
        for jar in &jars {
            assert_eq!(user(&app.store, jar).await, None);
        }
        app.ok("/logout", &mut jar).await;
        server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
        assert_eq!(app.store.sessions_of("ada").await.unwrap(), []);
        server.has_entries(0);
    }
}

/// Whatever the reason why the server takes no write: a page that only reads is served, though its renewal is due.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a6_a_renewal_that_the_server_refuses_fails_no_page() {
    let server = Server::start();
    let clock = FakeClock::at(SystemClock.now().as_unix());
    // A refusal that may pass is tried again until the deadline.
    let deadline = Duration::from_secs(3);
    let options =
        builder(server.url()).clock(clock.clone()).checkout_timeout(deadline).command_timeout(deadline);
    let app = App::with(options).await;
    let mut jar = app.jar().await;
    let logged_in = log_in(&app.store, "ada").await;
    let set = |name: &str, value: &str| assert_eq!(server.cli(&["CONFIG", "SET", name, value]), "OK");
    for code in ["NOREPLICAS", "READONLY", "NOPERM"] {
        match code {
            "NOREPLICAS" => set("min-replicas-to-write", "1"),
            "READONLY" => _ = server.cli(&["REPLICAOF", "127.0.0.1", "1"]),
            _ => _ = server.cli(&["ACL", "SETUSER", "default", "-@write", "-@scripting"]),
        }
        clock.advance(Duration::from_secs(3 * 3_600));
        assert_eq!(app.ok("/read", &mut jar).await, "1", "{code}");
        assert_eq!(user(&app.store, &logged_in).await.as_deref(), Some("ada"), "{code}");
        app.names(code, &jar).await;
        match code {
            "NOREPLICAS" => set("min-replicas-to-write", "0"),
            "READONLY" => _ = server.cli(&["REPLICAOF", "NO", "ONE"]),
            _ => _ = server.cli(&["ACL", "SETUSER", "default", "+@all"]),
        }
        assert_eq!(app.ok("/read", &mut jar).await, "1", "{code}");
    }
}

/// With some kept: their list entry stays, and what is over is tidied up later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a6_with_memory_full_all_others_end() {
    let server = Server::start();
    let app = App::connect(server.url()).await;
    let jars = [log_in(&app.store, "ada").await, log_in(&app.store, "ada").await];
    let kept = app.store.sessions_of("ada").await.unwrap()[1].id;
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(app.store.end_sessions_of("ada", Some(kept)).await.unwrap(), 1);
    assert_eq!(user(&app.store, &jars[0]).await, None);
    assert_eq!(user(&app.store, &jars[1]).await.as_deref(), Some("ada"));
    assert_eq!(app.store.sessions_of("ada").await.unwrap().len(), 1);
    assert!(app.store.end_session_of("ada", kept).await.unwrap());
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(app.store.sessions_of("ada").await.unwrap(), []);
}

/// Each way to end a session, under each option that takes part in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a6_with_memory_full_every_way_to_end_a_session_works() {
    for what in ["by the server", "by scripts", "near-cache", "lists checked", "sealed"] {
        let server = Server::start();
        let clock = FakeClock::at(SystemClock.now().as_unix());
        let plain = builder(server.url()).clock(clock.clone());
        let options = match what {
            "by scripts" => plain.scripts_only(),
            "near-cache" => plain.near_cache(NearCache::new()),
            "lists checked" => plain.check_session_list(true),
            "sealed" => plain.seal_records(AppKey::from_bytes(&crate::values::key(7)).unwrap()),
            _ => plain,
        };
        let app = App::with(options).await;
        let mut jars = Vec::new();
        for _ in 0..6 {
            jars.push(log_in(&app.store, "ada").await);
        }
        let mut anonymous = app.jar().await;
        server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
        clock.advance(Duration::from_secs(3 * 3_600));
        app.ok("/clear", &mut anonymous).await;
        assert!(anonymous.0.is_empty(), "{what}");
        app.ok("/clear", &mut jars[0].clone()).await;
        app.ok("/logout", &mut jars[1].clone()).await;
        app.fails("/regenerate", &jars[2]).await;
        app.ok("/read", &mut jars[2]).await;
        let listed = app.store.sessions_of("ada").await.unwrap();
        assert_eq!(listed.len(), 4, "{what}");
        assert!(app.store.end_session_of("ada", listed[0].id).await.unwrap(), "{what}");
        assert_eq!(app.store.end_sessions_of("ada", None).await.unwrap(), 3, "{what}");
        for jar in &jars {
            assert_eq!(user(&app.store, jar).await, None, "{what}");
        }
        server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
        assert_eq!(app.store.sessions_of("ada").await.unwrap(), []);
        server.has_entries(0);
    }
}
