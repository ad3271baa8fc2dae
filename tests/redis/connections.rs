//! Connections that are lost, slow, cut or too few (F1 to F8).

use std::time::{Duration, Instant};

use hyper_session::store::redis::Redis;
use hyper_session::store::{Backend, EntryId, Replaced, Stored};
use hyper_session::testing::{Cut, Relay};
use hyper_session::{Clock, ServerStore, SystemClock};

use crate::app::{App, BOUND, behind_relay, builder};
use crate::host_names::{Answer, Name, URL, leads_to};
use crate::load::{Load, audit};
use crate::server::{Server, wait_for};
use crate::support::{Events, Jar, set_cookies};
use crate::values::Raw;

const CUTS: [Cut; 4] = [Cut::BeforeRequest, Cut::BeforeReply, Cut::InReply, Cut::Reset];

/// Bytes that are in each request that creates an entry, and in each that compares before it writes.
pub(crate) fn writes(server: &Server) -> (&'static str, &'static str) {
    if server.compares_and_sets() { ("\r\nNX\r\n", "IFEQ") } else { ("EVALSHA", "EVALSHA") }
}

const DURABLE: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f01_a_server_that_is_back_before_the_next_request_was_never_missed() {
    let mut server = Server::with(&DURABLE);
    for connections in [1, 2, 5] {
        let app = App::with(builder(server.url()).connections(connections)).await;
        let mut jar = app.jar().await;
        for n in 2..=4 {
            // A connection that is still being made would meet the server while it is gone.
            app.is_whole(connections).await;
            server.restart();
            assert_eq!(app.ok("/add", &mut jar).await, n.to_string());
            app.is_whole(connections).await;
            server.restart();
            assert_eq!(app.ok("/read", &mut jar).await, n.to_string());
        }
        assert_eq!(app.store.backend().stats().failures, 0);
        app.is_whole(connections).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f01_r12_a_server_that_is_gone_fails_fast_and_is_found_again() {
    let mut server = Server::with(&DURABLE);
    let app = App::connect(server.url()).await;
    let mut jar = app.jar().await;
    server.kill();
    app.fails_closed(&jar).await;
    assert!(!app.store.backend().stats().up);
    // A request that is turned away does not wait, so two thousand of them end within the bound.
    let (before, start) = (app.store.backend().stats(), Instant::now());
    for _ in 0..2_000 {
        app.fails("/read", &jar).await;
    }
    let after = app.store.backend().stats();
    assert!(start.elapsed() < BOUND, "{:?}", start.elapsed());
    assert!(after.turned_away > before.turned_away + 1_000, "{after:?}");
    assert!(!app.cause(&jar).await.contains("hunter2"));
    server.run();
    server.wait_until_ready();
    assert_eq!(app.recovers("/read", &mut jar).await, "1");
    assert_eq!(app.recovers("/add", &mut jar).await, "2");
    app.is_whole(2).await;
}

/// Requests are on their way when the server dies, and then wait for a connection until it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f01_requests_that_wait_while_the_server_comes_back_are_served() {
    let mut server = Server::with(&DURABLE);
    // While its name is looked up, an attempt to connect waits, and is not refused.
    let name = Name::of(&server);
    let app = App::with(name.resolve(builder(URL))).await;
    let jar = app.jar().await;
    for _ in 0..3 {
        app.is_whole(2).await;
        server.freeze();
        let requests: Vec<_> = (0..20)
            .map(|_| {
                let (app, mut jar) = (app.clone(), jar.clone());
                tokio::spawn(async move { app.ok("/read", &mut jar).await })
            })
            .collect();
        app.until("a request is on its way", async || app.store.backend().stats().idle_connections < 2).await;
        name.set(Answer::Silence);
        let waited = app.store.backend().stats().checkouts_waited;
        server.kill();
        app.until("requests wait", async || app.store.backend().stats().connections == 0).await;
        assert!(requests.iter().all(|request| !request.is_finished()));
        server.run();
        server.wait_until_ready();
        name.set(leads_to(&server));
        for request in requests {
            assert_eq!(request.await.unwrap(), "1");
        }
        let stats = app.store.backend().stats();
        assert!(stats.checkouts_waited > waited, "{stats:?}");
        assert_eq!((stats.failures, stats.turned_away), (0, 0), "{stats:?}");
    }
    app.is_whole(2).await;
}

/// Cut before, after and in the middle of each step, of each kind of request: what was asked for is done once, or not at
/// all and said so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f02_a_connection_cut_in_the_middle_of_a_step_does_it_once() {
    let server = Server::start();
    let (relay, url) = behind_relay(&server);
    let (create, exchange) = writes(&server);
    let app = App::connect(url).await;
    for cut in CUTS {
        for (path, step) in [
            ("/read", "GET"),
            ("/add", "GET"),
            ("/add", exchange),
            ("/regenerate", create),
            ("/regenerate", exchange),
            ("/logout", exchange),
            ("/clear", exchange),
        ] {
            let mut jar = app.jar().await;
            let old = jar.clone();
            relay.cut_next(step, cut);
            let response = app.visit(path, &mut jar).await;
            let case = format!("{path} {step} {cut:?} {:?}", app.events.take());
            assert!(relay.is_done(), "{case}");
            assert_eq!(response.status(), 200, "{case}");
            let cookies = set_cookies(response.headers()).len();
            match path {
                "/read" => assert_eq!(cookies, 0, "{case}"),
                "/logout" | "/clear" => assert!(jar.0.is_empty(), "{case}"),
                _ => assert_eq!(cookies, 1, "{case}"),
            }
            let expected = match path {
                "/add" => "2",
                "/logout" | "/clear" => "none",
                _ => "1",
            };
            assert_eq!(app.ok("/read", &mut jar).await, expected, "{case}");
            if path != "/add" && path != "/read" {
                assert_eq!(app.ok("/read", &mut old.clone()).await, "none", "{case}");
            }
        }
    }
    assert_eq!(app.store.backend().stats().timeouts, 0);
    app.is_whole(2).await;
}

/// A removal that is repeated finds nothing, and knows that it was itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f02_a_compared_removal_that_was_cut_is_done_once() {
    let server = Server::start();
    let (relay, url) = behind_relay(&server);
    let app = App::connect(url).await;
    let (backend, now) = (app.store.backend(), SystemClock.now());
    for (number, cut) in (1..).zip(CUTS) {
        let (id, value) = (EntryId::from_bytes([number; 16]), bytes::Bytes::from_static(b"value"));
        let entry = Stored { value: value.clone(), expires: now.saturating_add(BOUND) };
        assert!(backend.create(id, entry.clone(), now).await.unwrap());
        relay.cut_next(writes(&server).1, cut);
        assert_eq!(backend.exchange(id, entry, None, now).await.unwrap(), Replaced::Done, "{cut:?}");
        assert!(relay.is_done() && backend.fetch(id, now).await.unwrap().is_none(), "{cut:?}");
        assert_eq!(backend.replace(id, value, None, now).await.unwrap(), Replaced::Missing, "{cut:?}");
    }
}

/// Creating is repeated, too: one session comes of it, not two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f02_a_session_whose_creation_was_cut_is_created_once() {
    let server = Server::start();
    let (relay, url) = behind_relay(&server);
    let app = App::connect(url).await;
    let mut first = app.jar().await;
    for (number, cut) in CUTS.into_iter().enumerate() {
        relay.cut_next(writes(&server).0, cut);
        let mut jar = app.jar().await;
        assert!(relay.is_done(), "{cut:?}");
        assert_eq!(app.ok("/read", &mut jar).await, "1");
        assert_eq!(server.cli(&["DBSIZE"]), (number + 2).to_string());
    }
    assert_eq!(app.ok("/read", &mut first).await, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f03_a_hung_server_costs_the_deadline_and_then_nothing() {
    let mut server = Server::with(&DURABLE);
    let app = App::hurried(&server.url()).await;
    let mut jar = App::connect(server.url()).await.jar().await;
    for by_signal in [true, false] {
        if by_signal {
            server.freeze();
        } else {
            // It pauses its own end, too: only a restart ends it.
            server.cli(&["CLIENT", "PAUSE", "3600000", "ALL"]);
        }
        let start = Instant::now();
        // All at once: they wait for the deadline together, not one after the other.
        let crowd: Vec<_> = (0..100)
            .map(|_| {
                let (app, jar) = (app.clone(), jar.clone());
                tokio::spawn(async move { app.fails("/read", &jar).await })
            })
            .collect();
        for request in crowd {
            request.await.unwrap();
        }
        assert!(start.elapsed() < BOUND, "{:?}", start.elapsed());
        app.fails_closed(&jar).await;
        let turned_away = app.store.backend().stats().turned_away;
        for _ in 0..100 {
            app.fails("/read", &jar).await;
        }
        assert!(app.store.backend().stats().turned_away > turned_away, "nobody queues");
        assert!(start.elapsed() < 2 * BOUND, "{:?}", start.elapsed());
        if by_signal {
            server.thaw();
        } else {
            server.restart();
        }
        assert_eq!(app.recovers("/read", &mut jar).await, "1");
        app.is_whole(2).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f04_while_writes_are_paused_reads_are_served_and_saves_fail_loudly() {
    let server = Server::start();
    let (app, unhurried) = (App::hurried(&server.url()).await, App::connect(server.url()).await);
    let mut jar = unhurried.jar().await;
    server.cli(&["CLIENT", "PAUSE", "600000", "WRITE"]);
    for _ in 0..3 {
        app.fails("/add", &jar).await;
        app.untouched(&jar).await;
        assert_eq!(app.recovers("/read", &mut jar).await, "1");
    }
    server.cli(&["CLIENT", "UNPAUSE"]);
    app.recovers("/set/x", &mut jar).await;
    // Each of the three failed increments may have happened after all. The write of `x` did happen.
    let n: u64 = app.recovers("/read", &mut jar).await.parse().unwrap();
    assert!((1..=4).contains(&n), "{n}");
    assert_eq!(unhurried.ok("/add", &mut jar).await, (n + 1).to_string());
    // A logout that was not confirmed says so, and is asked for again; whether it had happened makes no difference.
    server.cli(&["CLIENT", "PAUSE", "600000", "WRITE"]);
    app.fails("/logout", &jar).await;
    server.cli(&["CLIENT", "UNPAUSE"]);
    let old = jar.clone();
    app.recovers("/logout", &mut jar).await;
    assert_eq!(app.recovers("/read", &mut old.clone()).await, "none");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f05_one_byte_segments_and_slow_replies_are_read_right() {
    let server = Server::start();
    let (relay, url) = behind_relay(&server);
    let app = App::connect(url).await;
    for (piece_len, latency) in [(1, Duration::ZERO), (usize::MAX, Duration::from_millis(3))] {
        relay.set_piece_len(piece_len);
        relay.set_latency(latency);
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let app = app.clone();
                tokio::spawn(async move {
                    let mut jar = app.jar().await;
                    for n in 2..6 {
                        assert_eq!(app.ok("/add", &mut jar).await, n.to_string());
                        assert_eq!(app.ok("/read", &mut jar).await, n.to_string());
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    }
    relay.set_latency(Duration::ZERO);
    let mut jar = app.jar().await;
    app.ok("/big", &mut jar).await;
    relay.set_piece_len(1);
    assert_eq!(app.ok("/read", &mut jar).await, "1");
    assert_eq!(app.store.backend().stats().failures, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f05_a_line_that_resets_or_swallows_is_an_unavailable_store() {
    let server = Server::start();
    let (relay, url) = behind_relay(&server);
    let app = App::hurried(&url).await;
    let mut jar = App::connect(server.url()).await.jar().await;
    for set_broken in [Relay::set_resets, Relay::set_silent] {
        set_broken(&relay, true);
        app.fails_closed(&jar).await;
        let turned_away = app.store.backend().stats().turned_away;
        app.until("requests fail fast", async || {
            app.fails("/read", &jar).await;
            app.store.backend().stats().turned_away > turned_away
        })
        .await;
        set_broken(&relay, false);
        assert_eq!(app.recovers("/read", &mut jar).await, "1", "nothing of what failed was done later");
        app.is_whole(2).await;
        app.until("lost connections are closed", async || {
            app.is_whole(2).await;
            relay.connections() == 2
        })
        .await;
    }
}

/// As the soak does for longer: of a hundred requests the connection of one is cut, somewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f05_a_line_that_breaks_again_and_again_loses_and_doubles_nothing() {
    let server = Server::start();
    let (relay, url) = behind_relay(&server);
    let app = App::connect(url).await;
    relay.cut_one_in(100);
    let load = Load::start(&app.store, 8);
    let books = {
        app.until("the load has had its faults", async || {
            load.successes() > 2_000 && app.store.backend().stats().connections_broken > 20
        })
        .await;
        load.stop().await
    };
    relay.cut_one_in(0);
    app.is_whole(2).await;
    audit(&app.store, &books).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f06_killed_connections_fail_no_request() {
    let server = Server::start();
    let app = App::with(builder(server.url()).connections(3)).await;
    let mut jar = app.jar().await;
    for n in 2..=6 {
        server.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        assert_eq!(app.ok("/add", &mut jar).await, n.to_string());
    }
    // The server closes connections that are idle.
    app.is_whole(3).await;
    server.cli(&["CONFIG", "SET", "timeout", "1"]);
    wait_for("idle connections to be closed", || server.other_clients() == 0);
    assert_eq!(app.ok("/read", &mut jar).await, "6");
    let stats = app.store.backend().stats();
    assert_eq!(stats.failures, 0, "{stats:?}");
    assert!(stats.connections_broken >= 6, "{stats:?}");
}

/// Commands go over the pool's connections without asking the pool, which must not keep them open after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_dropped_closes_its_connections() {
    let server = Server::start();
    let clients = || server.other_clients();
    let app = App::with(builder(server.url()).connections(3)).await;
    let mut jar = app.jar().await;
    server.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    assert_eq!(app.ok("/add", &mut jar).await, "2");
    // A connection that was killed shows when it is used.
    app.until("all connections are made anew", async || {
        app.ok("/read", &mut jar).await;
        clients() == 3
    })
    .await;
    drop(app);
    wait_for("connections to be closed", || clients() == 0);
}

/// With one connection where there were to be two, all requests are served over that one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f07_a_server_without_room_for_another_client_does_not_take_the_store_down() {
    let server = Server::start();
    let (relay, url) = behind_relay(&server);
    let app = App::connect(url).await;
    let mut jar = app.jar().await;
    let mut admin = Raw::of(&server);
    // Room for this one and one more: the connection that is lost does not come back.
    admin.config("maxclients", "2");
    relay.cut_next("GET", Cut::BeforeRequest);
    for n in 2..=60 {
        assert_eq!(app.ok("/add", &mut jar).await, n.to_string());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let stats = app.store.backend().stats();
    assert!(relay.is_done() && stats.connections_broken == 1 && stats.connections == 1, "{stats:?}");
    assert_eq!((stats.failures, stats.turned_away, stats.up), (0, 0, true), "{stats:?}");
    // A store that connects now gets an error.
    let error = builder(server.url()).connect().await.unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    admin.config("maxclients", "100");
    app.is_whole(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f08_an_exhausted_pool_is_an_error_in_time_that_says_so() {
    let server = Server::start();
    let manager = bb8_redis::RedisConnectionManager::new(server.url()).unwrap();
    let pool = bb8_redis::bb8::Pool::builder().max_size(1).build(manager).await.unwrap();
    let events = Events::new();
    let store = ServerStore::with_backend(Redis::from_pool(pool.clone(), "test").unwrap())
        .development()
        .observer(events.clone())
        .build()
        .unwrap();
    let app = App::over(store, events);
    let unhurried = App::connect(server.url()).await;
    let mut jar = unhurried.jar().await;
    let held = pool.get().await.unwrap();
    assert!(app.cause(&jar).await.contains("no connection to Redis came free in time"));
    app.fails_closed(&jar).await;
    let stats = app.store.backend().stats();
    assert!(stats.failures >= 5 && stats.idle_connections == 0 && stats.connections == 1, "{stats:?}");
    app.until("requests do not queue after three timeouts", async || {
        app.fails("/read", &jar).await;
        app.store.backend().stats().turned_away > 0
    })
    .await;
    drop(held);
    assert_eq!(app.recovers("/read", &mut jar).await, "1");
    assert_eq!(unhurried.ok("/add", &mut jar).await, "2");
    let stats = app.store.backend().stats();
    assert!(stats.up && stats.idle_connections == 1, "{stats:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_outlives_the_runtime_that_connected_it() {
    let server = Server::start();
    let url = server.url();
    let app = std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(App::connect(url))
    })
    .join()
    .unwrap();
    // Its connections died with that runtime; they are made anew in this one.
    let mut jar = app.jar().await;
    assert_eq!(app.ok("/add", &mut jar).await, "2");
    app.is_whole(2).await;
    // And without any runtime it can be dropped.
    std::thread::spawn(move || drop(app)).join().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_that_the_server_forgot_are_sent_again() {
    let server = Server::start();
    let app = App::connect(server.url()).await;
    let mut jar = app.jar().await;
    for n in 2..5 {
        server.cli(&["SCRIPT", "FLUSH"]);
        assert_eq!(app.ok("/add", &mut jar).await, n.to_string());
        server.cli(&["SCRIPT", "FLUSH"]);
        app.ok("/regenerate", &mut jar).await;
    }
    assert_eq!(app.ok("/read", &mut jar).await, "4");
    assert_eq!(app.store.backend().stats().failures, 0);
    assert_eq!(Jar::new().header(), None);
}
