//! The near-cache (T29): what it answers, and that no ended session is seen after the bound, whatever happens to the line.
//!
//! No test depends on how fast the machine is. A read that finds an ended session must have *begun* before the bound, by
//! the clock of the same process: a slow machine makes such reads fewer.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bb8_redis::redis;
use hyper::service::Service;
use hyper_session::__internals::Verbs;
use hyper_session::store::Builder;
use hyper_session::store::redis::{NearCache, RedisOptions};
use hyper_session::testing::{Cut, FakeClock};
use hyper_session::{Clock, Error, RedisStore, SessionHandle, SystemClock, session_fn};
use tokio::sync::Notify;

use crate::acl::documented;
use crate::app::{App, behind_relay, builder};
use crate::cluster::Cluster;
use crate::concurrency::count_to_12_800;
use crate::deployment::Deployment;
use crate::load::{Load, audit, end};
use crate::sentinel::{calm, progress};
use crate::server::{Server, cli, wait_for};
use crate::session_lists::{list_keys, log_in};
use crate::support::{Body, Jar, request, text};
use crate::values::Raw;

const BOUND: Duration = Duration::from_millis(100);

fn cached(builder: Builder<RedisOptions>) -> Builder<RedisOptions> {
    builder.near_cache(NearCache::new().max_staleness(BOUND))
}

fn token(jar: &Jar) -> String {
    jar.0.values().next().expect("a session").clone()
}

async fn is_alive(store: &RedisStore, token: &str) -> bool {
    matches!(store.load(token.as_bytes(), SystemClock.now()).await, Ok(Ok(_)))
}

fn hits(store: &RedisStore) -> u64 {
    store.backend().stats().near_cache_hits
}

/// Loads the session until the near-cache answers.
async fn warm(store: &RedisStore, token: &str) {
    let start = Instant::now();
    let before = hits(store);
    while hits(store) == before {
        assert!(start.elapsed() < crate::app::BOUND, "{:?}", store.backend().stats());
        let _ = is_alive(store, token).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Reads a session all the time, and notes when the last read began that found it.
struct Watcher {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Option<Instant>>,
}

impl Watcher {
    async fn of(store: &RedisStore, token: &str) -> Self {
        let (store, token) = (store.clone(), token.to_owned());
        Self::reading(move || {
            let (store, token) = (store.clone(), token.clone());
            async move { is_alive(&store, &token).await }
        })
        .await
    }

    /// Returns once `read` has found the session.
    async fn reading<F>(read: impl Fn() -> F + Send + 'static) -> Self
    where
        F: Future<Output = bool> + Send,
    {
        let (stop, found) = (Arc::new(AtomicBool::new(false)), Arc::new(Notify::new()));
        let first = Arc::clone(&found);
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut last = None;
            while !stopped.load(Ordering::SeqCst) {
                let begun = Instant::now();
                if read().await {
                    last = Some(begun);
                    first.notify_one();
                }
                tokio::time::sleep(Duration::from_micros(500)).await;
            }
            last
        });
        found.notified().await;
        Self { stop, task }
    }

    /// Goes on for a while after `ended`, and checks that no read which began after the bound found the session.
    async fn check(self, what: &str, ended: Instant) {
        tokio::time::sleep((ended + 4 * BOUND).saturating_duration_since(Instant::now())).await;
        self.stop.store(true, Ordering::SeqCst);
        let last = self.task.await.unwrap().expect("it was alive before");
        let late = last.saturating_duration_since(ended);
        assert!(late < BOUND, "{what}: an ended session was seen after {late:?}");
    }
}

/// Ends the session of `jar` in another process, and returns when that was confirmed.
async fn ended(other: &RedisStore, jar: &Jar) -> Instant {
    let mut jar = jar.clone();
    while end(other, &mut jar).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!is_alive(other, &token(&jar)).await);
    Instant::now()
}

/// The id of the client whose connection tracks.
fn tracking_client(port: u16) -> Option<String> {
    let list = cli(port, &["CLIENT", "LIST"]);
    let line = list.lines().find(|line| {
        line.split(' ').any(|field| field.strip_prefix("flags=").is_some_and(|flags| flags.contains('t')))
    })?;
    Some(line.split(' ').next()?.strip_prefix("id=")?.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t29_a_read_of_a_cached_session_sends_no_command() {
    let server = Server::start();
    let app = App::with(cached(builder(server.url()))).await;
    let jar = app.jar().await;
    let token = token(&jar);
    warm(&app.store, &token).await;
    server.cli(&["CONFIG", "RESETSTAT"]);
    let before = app.store.backend().stats();
    for _ in 0..10_000 {
        assert!(is_alive(&app.store, &token).await);
    }
    assert_eq!(app.ok("/read", &mut jar.clone()).await, "1");
    let after = app.store.backend().stats();
    let commands = server.command_counts();
    let (hits, misses) =
        (after.near_cache_hits - before.near_cache_hits, after.near_cache_misses - before.near_cache_misses);
    println!("{hits} hits, {misses} misses, {commands:?}");
    assert_eq!(hits + misses, 10_001);
    // On a machine without time for the heartbeat there are misses.
    assert_eq!(commands.get("get").copied().unwrap_or_default(), misses);
    let others: Vec<_> = commands.keys().filter(|name| !["get", "hello"].contains(&&***name)).collect();
    assert!(others.is_empty(), "{commands:?}");
    assert!(hits > 0 && after.near_cache_entries == 1, "{after:?}");
}

/// The line is killed, cut, hangs, is slow, or nothing is wrong: the bound holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t29_no_ended_session_is_seen_after_the_bound_whatever_the_line_does() {
    let server = Server::start();
    let (relay, url) = behind_relay(&server);
    let app = App::hurried_with(&url, cached).await;
    let other = App::connect(server.url()).await;
    for what in [
        "nothing",
        "killed",
        "all killed",
        "cut",
        "cut in the reply",
        "reset",
        "hung",
        "hung for good",
        "slow",
        "very slow",
    ] {
        for _ in 0..3 {
            let jar = other.jar().await;
            let token = token(&jar);
            warm(&app.store, &token).await;
            let watcher = Watcher::of(&app.store, &token).await;
            match what {
                "killed" => {
                    if let Some(client) = tracking_client(server.port) {
                        server.cli(&["CLIENT", "KILL", "ID", &client]);
                    }
                }
                "all killed" => {
                    server.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
                }
                "cut" | "cut in the reply" => {
                    let cut = if what == "cut" { Cut::BeforeReply } else { Cut::InReply };
                    relay.cut_next("HELLO", cut);
                    wait_for("the cut", || relay.is_done());
                }
                "reset" => relay.set_resets(true),
                "hung" => relay.silence_open_connections(),
                "hung for good" => relay.set_silent(true),
                "slow" => relay.set_latency(Duration::from_millis(15)),
                "very slow" => relay.set_latency(Duration::from_millis(150)),
                _ => {}
            }
            let ended = ended(&other.store, &jar).await;
            watcher.check(what, ended).await;
            relay.set_silent(false);
            relay.set_resets(false);
            relay.set_latency(Duration::ZERO);
        }
    }
    let events = app.events.take();
    for why in ["lost", "stale"] {
        assert!(events.contains(&format!("near_cache_emptied:{why}")), "{events:?}");
    }
    assert!(app.store.backend().stats().near_cache_emptied >= 6);
}

/// A connection keeps the cookie that came last, with its record: only as long as the near-cache has that record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t29_a_connection_remembers_nothing_that_the_near_cache_does_not_vouch_for() {
    let server = Server::start();
    let app = App::with(cached(builder(server.url()))).await;
    let other = App::connect(server.url()).await;
    // One connection, for all requests.
    let service = Arc::new(session_fn(
        app.store.clone(),
        |_: http::Request<Body>, session: SessionHandle| async move {
            let found = session.load().await?.has("n");
            Ok::<_, Error>(http::Response::new(Body::from(if found { "found" } else { "" })))
        },
    ));
    for by_other in [true, false] {
        let jar = other.jar().await;
        warm(&app.store, &token(&jar)).await;
        let (service, cookie) = (Arc::clone(&service), jar.header().unwrap());
        let found = move || {
            let reply = service.call(request("/", Some(&cookie)));
            async move { text(reply.await.unwrap()).await == "found" }
        };
        for _ in 0..100 {
            let before = hits(&app.store);
            assert!(found().await);
            assert!(hits(&app.store) <= before + 1, "one load");
        }
        if by_other {
            let watcher = Watcher::reading(found).await;
            watcher.check("ended elsewhere", ended(&other.store, &jar).await).await;
        } else {
            let mut changed = jar.clone();
            app.ok("/add", &mut changed).await;
            assert!(found().await);
            end(&app.store, &mut changed).await.unwrap();
            assert!(!found().await, "ended here: at once");
        }
    }
}

/// Entries change a hundred thousand times while they are read, and are ended one after the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t29_no_ended_session_is_seen_while_a_hundred_thousand_invalidations_race_the_reads() {
    let server = Server::start();
    let app = App::with(cached(builder(server.url()))).await;
    let other = App::connect(server.url()).await;
    let mut jars = Vec::new();
    for _ in 0..50 {
        jars.push(other.jar().await);
    }
    let keys = Raw::of(&server).keys();
    let stop = Arc::new(AtomicBool::new(false));
    let invalidating = {
        let (url, stop) = (server.url(), Arc::clone(&stop));
        std::thread::spawn(move || {
            let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
            let mut round = 0;
            while round < 10_000 || !stop.load(Ordering::SeqCst) {
                let mut pipeline = redis::pipe();
                // Some change all the time, and the others now and then.
                for key in keys[..9].iter().chain([&keys[round % keys.len()]]) {
                    pipeline.cmd("PEXPIRE").arg(key).arg(86_400_000).ignore();
                }
                pipeline.exec(&mut connection).unwrap();
                round += 1;
            }
        })
    };
    let mut watchers = Vec::new();
    for jar in &jars {
        watchers.push(Watcher::of(&app.store, &token(jar)).await);
    }
    wait_for("reads", || app.store.backend().stats().near_cache_misses > 500);
    let mut checks = Vec::new();
    for (number, (jar, watcher)) in jars.iter().zip(watchers).enumerate() {
        let ended = ended(&other.store, jar).await;
        checks.push(tokio::spawn(async move { watcher.check(&format!("session {number}"), ended).await }));
    }
    for check in checks {
        check.await.unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    invalidating.join().unwrap();
    println!("{:?}", app.store.backend().stats());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r02_two_processes_with_near_caches_count_to_12_800() {
    let server = Server::start();
    let app = async || App::with(cached(builder(server.url()))).await;
    let apps = [app().await, app().await];
    count_to_12_800(apps.clone()).await;
    println!("{:?}", apps.map(|app| app.store.backend().stats()));
}

/// The tracking line hangs, within a long bound: a change of another process is not seen, and not lost either. A change of this
/// process is seen at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t29_a_stale_read_loses_no_change_and_own_writes_are_seen_at_once() {
    let server = Server::start();
    let (relay, url) = behind_relay(&server);
    let near_cache = NearCache::new().max_staleness(Duration::from_secs(10));
    let app = App::with(builder(url).command_timeout(Duration::from_secs(2)).near_cache(near_cache)).await;
    let other = App::connect(server.url()).await;
    let mut jar = other.jar().await;
    warm(&app.store, &token(&jar)).await;
    relay.silence_open_connections();
    assert_eq!(other.ok("/add", &mut jar).await, "2");
    app.ok("/add", &mut jar).await;
    assert_eq!(other.ok("/read", &mut jar).await, "3");
    assert_eq!(app.ok("/read", &mut jar).await, "3", "its own write");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t29_flushed_evicted_expired_and_replicas() {
    let server = Server::start();
    let app = App::with(cached(builder(server.url()))).await;
    let mut raw = Raw::of(&server);
    for what in ["deleted", "flushed", "database flushed", "moved", "renamed", "expired", "evicted"] {
        let jar = app.jar().await;
        let token = token(&jar);
        warm(&app.store, &token).await;
        let watcher = Watcher::of(&app.store, &token).await;
        let key = raw.keys().remove(0);
        match what {
            "deleted" => raw.delete(&key),
            "flushed" => assert_eq!(server.cli(&["FLUSHALL"]), "OK"),
            "database flushed" => assert_eq!(server.cli(&["FLUSHDB", "ASYNC"]), "OK"),
            "moved" => assert_eq!(server.cli(&["MOVE", &key, "1"]), "1"),
            "renamed" => {
                assert_eq!(server.cli(&["RENAME", &key, "another"]), "OK");
                raw.delete("another");
            }
            "expired" => assert_eq!(server.cli(&["PEXPIRE", &key, "1"]), "1"),
            _ => {
                raw.config("maxmemory-policy", "allkeys-lru");
                raw.config("maxmemory", "1");
            }
        }
        server.has_entries(0);
        watcher.check(what, Instant::now()).await;
    }
    assert!(app.events.take().contains(&"near_cache_emptied:flushed".to_owned()));
    raw.config("maxmemory", "0");
    // A server that becomes a replica gives no leases.
    let jar = app.jar().await;
    warm(&app.store, &token(&jar)).await;
    let master = Server::start();
    let port = master.port.to_string();
    drop(master);
    assert_eq!(server.cli(&["REPLICAOF", "127.0.0.1", &port]), "OK");
    // The last lease that the master gave ends with the bound.
    tokio::time::sleep(2 * BOUND).await;
    let hits = hits(&app.store);
    for _ in 0..100 {
        assert!(is_alive(&app.store, &token(&jar)).await, "the replica has it");
    }
    assert_eq!(self::hits(&app.store), hits);
}

/// The server's table of tracked keys is for clients that have it remember keys. A near-cache does not depend on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t29_a_server_whose_table_of_tracked_keys_is_full() {
    let server = Server::start();
    server.cli(&["CONFIG", "SET", "tracking-table-max-keys", "10"]);
    let app = App::with(cached(builder(server.url()))).await;
    let other = App::connect(server.url()).await;
    let jar = other.jar().await;
    let token = token(&jar);
    warm(&app.store, &token).await;
    let client = redis::Client::open(format!("{}?protocol=resp3", server.url())).unwrap();
    let mut tracking = client.get_connection().unwrap();
    redis::cmd("CLIENT").arg("TRACKING").arg("ON").exec(&mut tracking).unwrap();
    for number in 0..1_000 {
        redis::cmd("GET").arg(format!("test:{number}")).exec(&mut tracking).unwrap();
    }
    wait_for("the table to be bounded", || {
        let stats = server.cli(&["INFO", "stats"]);
        stats.lines().any(|line| {
            line.strip_prefix("tracking_total_keys:").is_some_and(|keys| keys.parse::<u64>().unwrap() <= 10)
        })
    });
    warm(&app.store, &token).await;
    let watcher = Watcher::of(&app.store, &token).await;
    watcher.check("a full table", ended(&other.store, &jar).await).await;
}

/// The right to track is taken away while the store is up: sessions are read from Redis, until it is given back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t29_the_right_to_track_is_taken_away_and_given_back() {
    let server = Server::start();
    let app = App::with(cached(builder(server.url()))).await;
    let other = App::connect(server.url()).await;
    let jar = other.jar().await;
    let token = token(&jar);
    warm(&app.store, &token).await;
    let watcher = Watcher::of(&app.store, &token).await;
    server.cli(&["ACL", "SETUSER", "default", "-client|tracking"]);
    server.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    wait_for("the tracking connection to be refused", || server.cli(&["ACL", "LOG"]).contains("tracking"));
    let (mut still, before) = (jar.clone(), hits(&app.store));
    for n in 2..20 {
        assert_eq!(app.ok("/add", &mut still).await, n.to_string());
        assert_eq!(app.ok("/read", &mut still).await, n.to_string());
    }
    assert_eq!(hits(&app.store), before, "read from Redis");
    watcher.check("without the right", ended(&other.store, &still).await).await;
    server.cli(&["ACL", "SETUSER", "default", "+client|tracking"]);
    let jar = other.jar().await;
    warm(&app.store, &self::token(&jar)).await;
}

/// Redis does not report that databases were swapped. An operator who does that has the caches emptied, as docs/REDIS.md says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t29_after_databases_were_swapped_killed_connections_empty_the_cache() {
    let server = Server::start();
    let app = App::with(cached(builder(server.url()))).await;
    let jar = app.jar().await;
    let token = token(&jar);
    warm(&app.store, &token).await;
    let watcher = Watcher::of(&app.store, &token).await;
    assert_eq!(server.cli(&["SWAPDB", "0", "1"]), "OK");
    server.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    watcher.check("swapped", Instant::now()).await;
    assert!(!is_alive(&app.store, &token).await);
}

/// The deadline in the record counts, by the store's clock, and what Redis says of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t29_a_cached_session_expires() {
    let server = Server::start();
    let clock = FakeClock::at(SystemClock.now().as_unix());
    let app = App::with(cached(builder(server.url())).clock(clock.clone())).await;
    let jar = app.jar().await;
    let token = token(&jar);
    warm(&app.store, &token).await;
    let record = app.store.load(token.as_bytes(), clock.now()).await.unwrap().unwrap();
    let before = hits(&app.store);
    // Redis' own time goes on: the entry is alive there, and that decides.
    let late = app.store.load(token.as_bytes(), record.expires()).await.unwrap();
    assert_eq!(hits(&app.store), before, "it was asked for");
    assert!(late.unwrap().expires() > record.expires());
    Raw::of(&server).delete(&Raw::of(&server).keys()[0]);
    assert!(app.store.load(token.as_bytes(), record.expires()).await.unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t29_lists_that_are_checked_are_checked_in_the_cache_too() {
    let server = Server::start();
    let app = App::with(cached(builder(server.url())).check_session_list(true)).await;
    let other = App::with(builder(server.url()).check_session_list(true)).await;
    let jar = log_in(&other.store, "ada").await;
    let token = token(&jar);
    warm(&app.store, &token).await;
    // Another login changes the list, and the session is still on it.
    let second = log_in(&other.store, "ada").await;
    assert!(is_alive(&app.store, &token).await);
    warm(&app.store, &token).await;
    // The list is lost, the session is not.
    let watcher = Watcher::of(&app.store, &token).await;
    let mut raw = Raw::of(&server);
    let lists = list_keys(&mut raw);
    assert_eq!(lists.len(), 1);
    raw.delete(&lists[0]);
    watcher.check("list lost", Instant::now()).await;
    drop(second);
    // The list names another session of the subject only, and is in the cache.
    let stays = log_in(&other.store, "cyd").await;
    let list = list_keys(&mut raw).remove(0);
    let without = raw.get(&list);
    let goes = log_in(&other.store, "cyd").await;
    warm(&app.store, &self::token(&goes)).await;
    raw.set(&list, &without);
    warm(&app.store, &self::token(&stays)).await;
    assert!(!is_alive(&app.store, &self::token(&goes)).await);
    // Ended by the list.
    let jar = log_in(&other.store, "bob").await;
    let token = self::token(&jar);
    warm(&app.store, &token).await;
    let watcher = Watcher::of(&app.store, &token).await;
    assert_eq!(other.store.end_sessions_of("bob", None).await.unwrap(), 1);
    watcher.check("all ended", Instant::now()).await;
    // By this process, at once.
    let jar = log_in(&app.store, "eve").await;
    let token = self::token(&jar);
    warm(&app.store, &token).await;
    assert_eq!(app.store.end_sessions_of("eve", None).await.unwrap(), 1);
    assert!(!is_alive(&app.store, &token).await);
}

/// The user needs one right more, and the error says which.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t29_a_user_who_may_not_track_gets_an_error_that_says_so() {
    let server = Server::start();
    let rules = documented("sessions");
    server.cli(&rules.iter().map(String::as_str).collect::<Vec<_>>());
    let url = format!("redis://sessions:password@127.0.0.1:{}", server.port);
    let store = || cached(builder(url.clone()).scripts_only()).connect();
    let error = store().await.unwrap_err();
    assert!(error.is_config() && error.to_string().contains("+client|tracking"), "{error}");
    server.cli(&["ACL", "SETUSER", "sessions", "+client|tracking"]);
    server.cli(&["ACL", "LOG", "RESET"]);
    let app = App::over(store().await.unwrap(), crate::support::Events::new());
    let jar = app.jar().await;
    warm(&app.store, &token(&jar)).await;
    assert_eq!(server.cli(&["ACL", "LOG"]), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t29_options_that_cannot_hold_do_not_connect() {
    let server = Server::start();
    for (options, named) in [
        (NearCache::new().max_staleness(Duration::from_millis(9)), "max_staleness()"),
        (NearCache::new().max_staleness(Duration::from_secs(11)), "max_staleness()"),
        (NearCache::new().max_bytes(1000), "max_bytes()"),
    ] {
        let error = builder(server.url()).near_cache(options).connect().await.unwrap_err();
        assert!(error.is_config() && error.to_string().contains(named), "{error}");
    }
    #[cfg(feature = "astra")]
    {
        let shared = RedisStore::builder(server.url()).beside_astra().near_cache(NearCache::new());
        let error = shared.connect().await.unwrap_err();
        assert!(error.is_config() && error.to_string().contains("near_cache()"), "{error}");
    }
}

/// A connection for commands that is made again may lead to another server: the tracking connection moves, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t29_the_tracking_connection_goes_where_new_connections_go() {
    let mut server = Server::start();
    let app = App::with(cached(builder(server.url()))).await;
    let mut jar = app.jar().await;
    warm(&app.store, &token(&jar)).await;
    let tracking = tracking_client(server.port).unwrap();
    let list = server.cli(&["CLIENT", "LIST"]);
    let ids = list.lines().filter(|line| !line.contains("cmd=client"));
    let ids: Vec<_> =
        ids.map(|line| line[3..].split(' ').next().unwrap()).filter(|id| *id != tracking).collect();
    assert_eq!(ids.len(), 2, "{list}");
    server.cli(&["CLIENT", "KILL", "ID", ids[0]]);
    app.until("the tracking connection has been replaced", async || {
        app.ok("/add", &mut jar).await;
        tracking_client(server.port).is_some_and(|client| client != tracking)
    })
    .await;
    warm(&app.store, &token(&jar)).await;
    // A server that is gone and comes back without its data.
    server.kill();
    wait_for("the cache to be empty", || app.store.backend().stats().near_cache_entries == 0);
    server.run();
    server.wait_until_ready();
    let mut fresh = Jar::new();
    app.recovers("/add", &mut fresh).await;
    warm(&app.store, &token(&fresh)).await;
    assert!(!is_alive(&app.store, &token(&jar)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t29_a_store_that_is_dropped_leaves_no_tracking_connection() {
    let server = Server::start();
    let app = App::with(cached(builder(server.url()))).await;
    assert!(tracking_client(server.port).is_some());
    drop(app);
    wait_for("the tracking connection to end", || tracking_client(server.port).is_none());
}

/// Runs `fault` while sessions are read, and ends some of them before, during and after it.
async fn sessions_end_during(
    app: &App,
    other: &App,
    during: impl Future<Output = ()> + Send + 'static,
    wait: bool,
) {
    let mut jars = Vec::new();
    for _ in 0..45 {
        jars.push(other.jar().await);
    }
    let tokens: Vec<_> = jars.iter().map(token).collect();
    for token in &tokens {
        warm(&app.store, token).await;
    }
    let mut watchers = BTreeMap::new();
    for (number, token) in tokens.iter().enumerate() {
        watchers.insert(number, Watcher::of(&app.store, token).await);
    }
    let checks = Arc::new(Mutex::new(Vec::new()));
    let mut end = async |number: usize, when: &str| {
        let ended = ended(&other.store, &jars[number]).await;
        let (watcher, what) = (watchers.remove(&number).unwrap(), format!("{when}, session {number}"));
        checks.lock().unwrap().push(tokio::spawn(async move { watcher.check(&what, ended).await }));
    };
    for number in 0..15 {
        end(number, "before").await;
    }
    let mut during = tokio::spawn(during);
    if wait {
        (&mut during).await.unwrap();
    }
    for number in 15..30 {
        end(number, "during").await;
    }
    if !wait {
        during.await.unwrap();
    }
    for number in 30..45 {
        end(number, "after").await;
    }
    let checks = std::mem::take(&mut *checks.lock().unwrap());
    for check in checks {
        check.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn f15_resharding_with_near_caches() {
    slots_move_with_near_caches(|cluster| {
        cluster.reshard("1000");
        true
    })
    .await;
}

/// Valkey 9 and Redis 8.4 move slots in one step. The node that loses them deletes their keys without an order of a client.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn f15_atomic_slot_migration_with_near_caches() {
    slots_move_with_near_caches(Cluster::migrate_atomically).await;
}

/// `move_slots` returns false if the servers under test cannot move slots in this way.
async fn slots_move_with_near_caches(move_slots: impl Fn(&Cluster) -> bool + Send + 'static) {
    let cluster = Arc::new(tokio::task::block_in_place(Cluster::start));
    let app = App::with(cached(builder(cluster.url()))).await;
    let other = App::connect(cluster.url()).await;
    let load = Load::start(&app.store, 8);
    progress(&load, 100).await;
    let moving = Arc::clone(&cluster);
    let resharding = async move {
        if !tokio::task::spawn_blocking(move || move_slots(&moving)).await.unwrap() {
            println!("SKIPPED: the server under test moves slots only key by key");
        }
    };
    sessions_end_during(&app, &other, resharding, false).await;
    progress(&load, 100).await;
    let failed = load.failures();
    let books = load.stop().await;
    assert_eq!(failed, 0, "redirections are followed");
    audit(&other.store, &books).await;
    // The sessions that moved are cached again.
    let jar = other.jar().await;
    warm(&app.store, &token(&jar)).await;
}

/// An ordered failover: the demoted master stays, and would answer reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn f14_failover_with_near_caches() {
    let deployment = Arc::new(tokio::task::block_in_place(Deployment::start));
    let connect = async || App::with(cached(builder(deployment.url()))).await;
    let (app, other) = (connect().await, App::connect(deployment.url()).await);
    let load = Load::start(&app.store, 4);
    progress(&load, 100).await;
    let ordered = Arc::clone(&deployment);
    let failover = async move {
        tokio::task::spawn_blocking(move || {
            let before = ordered.master_port().unwrap();
            ordered.fail_over();
            // A write to the old master in between is lost, with a cache or without.
            wait_for("the old master to follow", || cli(before, &["ROLE"]).starts_with("slave"));
        })
        .await
        .unwrap();
    };
    sessions_end_during(&app, &other, failover, true).await;
    calm(&load).await;
    drop(load.stop().await);
    let jar = other.jar().await;
    warm(&app.store, &token(&jar)).await;
    let master = tokio::task::block_in_place(|| deployment.master_port()).unwrap();
    assert!(tracking_client(master).is_some(), "it follows the new master");
}
