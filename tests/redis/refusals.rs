//! A server that answers, and refuses (F10 to F13).

use std::time::Duration;

use hyper_session::revocation::{Revocation, RevocationLog as _};
use hyper_session::store::redis::NearCache;

use crate::app::{App, behind_relay, builder};
use crate::server::{Server, cli, unhurried_revocations, wait_for};
use crate::session_lists::log_in;
use crate::support::{Jar, set_cookies};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f10_an_evicted_session_is_no_session_and_a_full_server_is_an_error() {
    let server = Server::start();
    let app = App::connect(server.url()).await;
    let mut jar = app.jar().await;
    // Full, and nothing may go.
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(app.ok("/read", &mut jar).await, "1");
    app.fails("/add", &jar).await;
    app.fails("/add", &Jar::new()).await;
    app.fails("/regenerate", &jar).await;
    app.untouched(&jar).await;
    assert!(app.cause(&jar).await.contains("OOM"));
    assert_eq!(app.ok("/read", &mut jar).await, "1", "what was not saved is not there");
    // Logging out works: it takes no memory.
    let mut other = jar.clone();
    app.ok("/logout", &mut other).await;
    assert_eq!(app.ok("/read", &mut jar).await, "none");

    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    let mut jar = app.jar().await;
    let evicted = jar.clone();
    app.events.take();
    server.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    wait_for("the eviction", || {
        server.cli(&["SET", "other", "x"]);
        server.cli(&["DBSIZE"]) == "0"
    });
    assert_eq!(app.ok("/read", &mut jar).await, "none");
    assert_eq!(app.events.take(), ["refused:unknown_id"]);
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    // Its token is not adopted.
    let mut again = evicted.clone();
    assert_eq!(app.ok("/add", &mut again).await, "1");
    assert_ne!(again.0, evicted.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f11_a_master_that_became_a_replica_is_left_and_found_again_when_promoted() {
    let server = Server::start();
    let (app, unhurried) = (App::hurried(&server.url()).await, App::connect(server.url()).await);
    let mut jar = unhurried.jar().await;
    log_in(&unhurried.store, "ada").await;
    let broken = app.store.backend().stats().connections_broken;
    server.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    app.fails("/add", &jar).await;
    app.fails("/logout", &jar).await;
    app.fails("/regenerate", &jar).await;
    assert!(app.store.end_sessions_of("ada", None).await.unwrap_err().is_unavailable());
    app.untouched(&jar).await;
    app.names("READONLY", &jar).await;
    // Each refusal costs a connection: behind the name there may be another server by now.
    let stats = app.store.backend().stats();
    assert!(stats.connections_broken > broken, "{stats:?}");
    // A replica that lost its master knows nothing for sure.
    server.cli(&["CONFIG", "SET", "replica-serve-stale-data", "no"]);
    app.fails_closed(&jar).await;
    app.names("MASTERDOWN", &jar).await;
    server.cli(&["REPLICAOF", "NO", "ONE"]);
    assert_eq!(app.recovers("/read", &mut jar).await, "1");
    assert_eq!(unhurried.ok("/add", &mut jar).await, "2");
    app.is_whole(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f12_a_server_that_is_loading_is_waited_for_within_the_budget() {
    let mut server =
        Server::with(&["--dbfilename", "dump.rdb", "--loading-process-events-interval-bytes", "1024"]);
    let (app, unhurried) = (App::hurried(&server.url()).await, App::connect(server.url()).await);
    let mut jar = unhurried.jar().await;
    server.cli(&["DEBUG", "POPULATE", "100000"]);
    assert_eq!(server.cli(&["SAVE"]), "OK");
    // 100,000 keys at 2 milliseconds: a hundred times as long as all the requests that are to fail take together.
    server.add_args(&["--key-load-delay", "2000"]);
    server.kill();
    server.run();
    wait_for("it to be loading", || server.cli(&["GET", "x"]).contains("LOADING"));
    let start = std::time::Instant::now();
    app.fails("/read", &jar).await;
    assert!(start.elapsed() >= Duration::from_millis(100), "it waits");
    app.fails_closed(&jar).await;
    app.until("refusals were tried again and again", async || {
        app.fails("/read", &jar).await;
        app.store.backend().stats().retries > 5
    })
    .await;
    assert_eq!(server.cli(&["CONFIG", "SET", "key-load-delay", "0"]), "OK");
    assert_eq!(app.recovers("/read", &mut jar).await, "1");
    assert_eq!(unhurried.recovers("/add", &mut jar).await, "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f13_a_server_busy_with_a_script_is_waited_for_within_the_budget() {
    let server = Server::with(&["--busy-reply-threshold", "20"]);
    let (app, unhurried) = (App::hurried(&server.url()).await, App::connect(server.url()).await);
    let mut jar = unhurried.jar().await;
    let port = server.port;
    let busy = std::thread::spawn(move || crate::server::cli(port, &["EVAL", "while true do end", "0"]));
    wait_for("it to be busy", || server.cli(&["GET", "x"]).contains("BUSY"));
    app.fails_closed(&jar).await;
    app.names("BUSY", &jar).await;
    assert!(app.store.backend().stats().retries > 0);
    server.cli(&["SCRIPT", "KILL"]);
    let _ = busy.join();
    assert_eq!(app.recovers("/read", &mut jar).await, "1");
    // Too short to be noticed by anybody.
    let brief = std::thread::spawn(move || {
        let until = "local t = redis.call('TIME') local e = t[1] * 1000000 + t[2] + 100000 \
                     repeat t = redis.call('TIME') until t[1] * 1000000 + t[2] > e";
        crate::server::cli(port, &["EVAL", until, "0"])
    });
    let _ = brief.join();
    assert_eq!(unhurried.recovers("/add", &mut jar).await, "2");
}

/// A logout that is kept in the log of revocations waits, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f13_a_revocation_waits_for_a_server_that_is_busy_with_a_script() {
    let server = Server::with(&["--busy-reply-threshold", "20"]);
    let (relay, url) = behind_relay(&server);
    // Without the task that follows it: nothing else is sent over the relay.
    let log = unhurried_revocations(url, "test").into_log().await.unwrap();
    let port = server.port;
    let busy = std::thread::spawn(move || cli(port, &["EVAL", "while true do end", "0"]));
    wait_for("it to be busy", || server.cli(&["GET", "x"]).contains("BUSY"));
    let answered = relay.round_trips();
    let everything = Revocation::from_bytes(&[0; Revocation::LEN]).unwrap();
    let ending = tokio::spawn(async move { log.append(vec![everything], 0).await });
    // A server that runs a script has no other answer.
    wait_for("the revocation to be refused", || relay.round_trips() > answered);
    server.cli(&["SCRIPT", "KILL"]);
    let _ = busy.join();
    ending.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f13_writes_that_the_server_will_not_take_are_errors() {
    let server = Server::with(&["--enable-protected-configs", "local"]);
    let app = App::connect(server.url()).await;
    let mut jar = app.jar().await;

    server.cli(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    app.fails("/add", &jar).await;
    app.fails("/logout", &jar).await;
    app.fails("/regenerate", &jar).await;
    assert!(app.cause(&jar).await.contains("NOREPLICAS"));
    assert_eq!(app.ok("/read", &mut jar).await, "1");
    server.cli(&["CONFIG", "SET", "min-replicas-to-write", "0"]);

    // A snapshot into a folder that is gone.
    let gone = server.dir().join("gone");
    std::fs::create_dir(&gone).unwrap();
    server.cli(&["CONFIG", "SET", "dir", gone.to_str().unwrap()]);
    std::fs::remove_dir(&gone).unwrap();
    server.cli(&["CONFIG", "SET", "save", "3600 1"]);
    server.cli(&["BGSAVE"]);
    wait_for("the snapshot to fail", || {
        server.cli(&["INFO", "persistence"]).contains("last_bgsave_status:err")
    });
    app.fails("/add", &jar).await;
    app.fails("/logout", &jar).await;
    assert!(app.cause(&jar).await.contains("MISCONF"));
    assert_eq!(app.ok("/read", &mut jar).await, "1");
    server.cli(&["CONFIG", "SET", "stop-writes-on-bgsave-error", "no"]);
    assert_eq!(app.ok("/add", &mut jar).await, "2");
    app.untouched(&jar).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f13_rights_taken_away_are_errors_until_they_are_given_back() {
    let server = Server::start();
    let app = App::connect(server.url()).await;
    let mut jar = app.jar().await;
    let acl =
        |rules: &[&str]| server.cli_as("admin", "root", &[&["ACL", "SETUSER", "default"], rules].concat());
    server.cli(&["ACL", "SETUSER", "admin", "on", ">root", "~*", "&*", "+@all"]);

    acl(&["-@all", "+ping"]);
    app.fails_closed(&jar).await;
    assert!(app.cause(&jar).await.contains("NOPERM"));
    acl(&["+@all"]);
    assert_eq!(app.ok("/read", &mut jar).await, "1");

    acl(&["resetkeys", "~other:*"]);
    app.fails_closed(&jar).await;
    acl(&["allkeys"]);
    assert_eq!(app.ok("/add", &mut jar).await, "2");

    // A password where there was none, and all connections gone.
    acl(&["resetpass", ">secret"]);
    server.cli_as("admin", "root", &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    app.fails_closed(&jar).await;
    assert!(app.cause(&jar).await.contains("NOAUTH"));
    acl(&["nopass"]);
    assert_eq!(app.recovers("/add", &mut jar).await, "3");
    app.untouched(&jar).await;
}

/// A list under the session's key, or a string that is longer than any session: no session, as a damaged entry is, and in no
/// user's way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f13_a4_whatever_is_under_a_sessions_key_its_user_can_log_in_and_out() {
    let server = Server::start();
    let plain = || builder(server.url()).max_entry_len(64 << 10);
    for options in [plain(), plain().check_session_list(true), plain().near_cache(NearCache::new())] {
        let app = App::with(options).await;
        for list in [true, false] {
            for path in ["/read", "/add", "/logout"] {
                let mut jar = app.jar().await;
                let key = server.cli(&["KEYS", "test:*"]);
                server.cli(&["DEL", &key]);
                if list {
                    server.cli(&["RPUSH", &key, "something", "else"]);
                } else {
                    server.cli(&["SETRANGE", &key, "65536", "x"]);
                }
                app.events.take();
                let expected = if path == "/add" { "1" } else { "none" };
                assert_eq!(app.ok(path, &mut jar).await, expected);
                let mut events = app.events.take();
                // On a busy machine, the near-cache may be emptied at any time.
                events.retain(|event| !event.starts_with("near_cache_emptied"));
                assert_eq!(events, ["store_failed", "refused:unreadable"], "{path}");
                assert_eq!(
                    jar.0.is_empty(),
                    path == "/logout",
                    "a host with other options may read it: {path}"
                );
                let is_left = server.cli(&["EXISTS", &key]) == "1";
                assert_eq!(is_left, path != "/logout", "only what is to be ended is deleted: {path}");
                server.cli(&["FLUSHALL"]);
            }
        }
    }
}

/// It got there while a request was under way: whether the session is still there is not known, so the save fails. Trying again does
/// not help, so the status is not 503.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f13_a_foreign_type_that_comes_under_a_sessions_key_fails_the_save() {
    let server = Server::start();
    let app = App::connect(server.url()).await;
    let jar = app.jar().await;
    let request = {
        let (app, jar) = (app.clone(), jar.clone());
        tokio::spawn(async move { app.visit("/late/add", &mut jar.clone()).await })
    };
    app.gate.arrived.acquire().await.unwrap().forget();
    let key = server.cli(&["KEYS", "test:*"]);
    server.cli(&["DEL", &key]);
    server.cli(&["RPUSH", &key, "something", "else"]);
    app.gate.go.add_permits(1);
    let response = request.await.unwrap();
    assert_eq!((response.status().as_u16(), set_cookies(response.headers()).len()), (500, 0));
    assert_eq!(server.cli(&["LLEN", &key]), "2", "it is left alone");
}
