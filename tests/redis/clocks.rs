//! Hosts whose clocks disagree (A8): Redis has a clock, and that one decides.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper_session::__internals::look_up_names_by;
use hyper_session::store::Builder;
use hyper_session::store::redis::{Redis, RedisOptions};
use hyper_session::testing::FakeClock;
use hyper_session::{
    Clock, Error, RedisStore, ServerStore, SessionHandle, SystemClock, Timestamp, session_fn,
};

use crate::app::{App, builder};
use crate::server::Server;
use crate::session_lists::{as_browser, log_in, user};
use crate::support::{Body, Events, Jar, UNHURRIED, visit};

/// A host whose clock is off by so many seconds.
async fn host(
    server: &Server,
    off: i64,
    options: impl Fn(Builder<RedisOptions>) -> Builder<RedisOptions>,
) -> (App, FakeClock) {
    let clock = FakeClock::at(SystemClock.now().as_unix().saturating_add_signed(off));
    (App::with(options(builder(server.url()).clock(clock.clone()))).await, clock)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a8_hosts_minutes_apart_serve_each_others_sessions() {
    let ten_minutes = |builder: Builder<RedisOptions>| builder.idle_timeout(Duration::from_secs(600));
    for right_to_ask_the_time in [true, false] {
        let server = Server::start();
        if !right_to_ask_the_time {
            server.cli(&["ACL", "SETUSER", "default", "-time"]);
        }
        for (one, two) in [(300, -300), (-300, 300), (900, 0), (0, 900)] {
            let ((a, _), (b, _)) =
                (host(&server, one, ten_minutes).await, host(&server, two, ten_minutes).await);
            let mut jar = b.jar().await;
            for n in 2..5 {
                let app = if n % 2 == 0 { &a } else { &b };
                assert_eq!(app.ok("/add", &mut jar).await, n.to_string(), "{one} {two}");
                assert_eq!(app.ok("/read", &mut jar).await, n.to_string(), "{one} {two}");
            }
            assert!(!jar.0.is_empty());
        }
    }
}

/// On a host whose clock is ahead a session is renewed as often as on any other, and not late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a8_a_host_that_is_behind_renews_in_time() {
    let server = Server::start();
    let options = |builder: Builder<RedisOptions>| {
        builder.idle_timeout(Duration::from_secs(600)).renewal_threshold(Duration::from_secs(60))
    };
    let ((ahead, _), (behind, clock)) =
        (host(&server, 550, options).await, host(&server, -300, options).await);
    let mut jar = ahead.jar().await;
    let key = server.cli(&["KEYS", "test:*"]);
    server.cli(&["PEXPIRE", &key, "530000"]);
    clock.advance(Duration::from_secs(70));
    behind.ok("/read", &mut jar).await;
    let left: i64 = server.cli(&["PTTL", &key]).parse().unwrap();
    assert!(left > 590_000, "{left}");
}

/// Connecting takes long where names are looked up slowly, or a sentinel hangs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a8_the_time_that_connecting_takes_is_no_difference_of_the_clocks() {
    let server = Server::start();
    let start = SystemClock.now().as_unix();
    let clock = FakeClock::at(start - 400);
    let address = SocketAddr::from(([127, 0, 0, 1], server.port));
    let options = {
        let clock = clock.clone();
        let options = builder("redis://redis.example").clock(clock.clone());
        look_up_names_by(options.idle_timeout(Duration::from_secs(600)), move |_, _| {
            clock.set(start);
            async move { Ok(vec![address]) }
        })
    };
    App::with(options).await.jar().await;
    let deadline = deadline_of_the_entry(&server);
    // By the clock of Redis, which both clocks agree with.
    assert!((start + 599..=SystemClock.now().as_unix() + 601).contains(&deadline), "{}", deadline - start);
}

/// The clock of a process that is stopped for ten minutes after each look at it, until it is told otherwise.
#[derive(Clone)]
struct OftenStopped {
    clock: FakeClock,
    stops: Arc<AtomicBool>,
}

impl Clock for OftenStopped {
    fn now(&self) -> Timestamp {
        let now = self.clock.now();
        if self.stops.load(Ordering::SeqCst) {
            self.clock.advance(Duration::from_secs(600));
        }
        now
    }
}

/// A process may be stopped, or the reply late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a8_a_slow_reply_to_the_question_for_the_time_is_no_difference_of_the_clocks() {
    let server = Server::start();
    let start = SystemClock.now().as_unix();
    let clock = OftenStopped { clock: FakeClock::at(start - 300), stops: Arc::new(AtomicBool::new(true)) };
    let options = builder(server.url()).clock(clock.clone()).idle_timeout(Duration::from_secs(600));
    let app = App::with(options).await;
    clock.stops.store(false, Ordering::SeqCst);
    clock.clock.set(start);
    app.jar().await;
    assert_eq!(deadline_of_the_entry(&server), start + 600, "by the clock of this host, which is right");
}

/// The deadline of the only entry, as Redis has it.
fn deadline_of_the_entry(server: &Server) -> u64 {
    let entry = crate::values::Raw::of(server).get(&server.cli(&["KEYS", "test:*"]));
    u64::from_be_bytes(entry[..8].try_into().unwrap())
}

/// The host's clock decides, as where the user may not ask.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a8_a_session_that_has_expired_is_none_where_the_server_does_not_support_pttl() {
    let server = Server::with(&["--rename-command", "PTTL", ""]);
    let options = |builder: Builder<RedisOptions>| builder.idle_timeout(Duration::from_secs(600));
    let (app, clock) = host(&server, 0, options).await;
    let mut jar = app.jar().await;
    clock.advance(Duration::from_secs(700));
    assert_eq!(app.ok("/read", &mut jar).await, "none");
}

/// A list that is read meanwhile does not take a login for an abandoned one, though the clock of the list's host says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a8_a_list_on_a_host_that_is_ahead_ends_no_login_under_way() {
    let server = Server::start();
    let ((ahead, _), (behind, _)) = (host(&server, 61, |b| b).await, host(&server, 0, |b| b).await);
    let lister = {
        let store: RedisStore = ahead.store.clone();
        tokio::spawn(async move {
            loop {
                store.sessions_of("ada").await.unwrap();
                tokio::task::yield_now().await;
            }
        })
    };
    for _ in 0..200 {
        let mut jar = log_in(&behind.store, "ada").await;
        assert_eq!(user(&behind.store, &jar).await.as_deref(), Some("ada"));
        as_browser(&behind.store, &mut jar, hyper_session::Session::destroy).await;
    }
    lister.abort();
}

/// An idle timeout of N seconds is N seconds, and not up to one less.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a14_an_idle_timeout_is_as_long_as_it_says() {
    let server = Server::start();
    let app = App::with(builder(server.url()).idle_timeout(Duration::from_secs(100))).await;
    let begun = Instant::now();
    let mut jar = app.jar().await;
    let key = server.cli(&["KEYS", "test:*"]);
    let left: i64 = server.cli(&["PTTL", &key]).parse().unwrap();
    // It is kept for a quarter of an hour longer, for requests that loaded it in time.
    let passed = i64::try_from(begun.elapsed().as_millis()).unwrap() + 1;
    assert!((1_000_000 - passed..=1_000_000).contains(&left), "{left} after {passed}");
    // Past the second in which this host counts the session out, Redis has it, and so it is there.
    let mut raw = crate::values::Raw::of(&server);
    let mut entry = raw.get(&key);
    entry[..8].copy_from_slice(&(SystemClock.now().as_unix() - 1).to_be_bytes());
    raw.set(&key, &entry);
    server.cli(&["PEXPIRE", &key, &left.to_string()]);
    assert_eq!(app.ok("/read", &mut jar).await, "1");
}

/// A request that takes twice the idle timeout: the time to live counts from its end, not from when its session expired.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b5_after_a_slow_request_a_session_lasts_for_its_idle_timeout_and_no_longer() {
    let server = Server::start();
    let idle = |builder: Builder<RedisOptions>| builder.idle_timeout(Duration::from_secs(600));
    // By scripts, and where the server compares and sets.
    for scripts in [true, false] {
        for (path, longest) in
            [("/late/add", 1_500_000), ("/late/read", 1_500_000), ("/late/regenerate", 960_000)]
        {
            let options = |builder| if scripts { idle(builder).scripts_only() } else { idle(builder) };
            let (app, clock) = host(&server, 0, options).await;
            let mut jar = app.jar().await;
            let key = server.cli(&["KEYS", "test:*"]);
            let slow = {
                let (app, mut jar) = (app.clone(), jar.clone());
                tokio::spawn(async move {
                    app.ok(path, &mut jar).await;
                    jar
                })
            };
            app.gate.arrived.acquire().await.unwrap().forget();
            clock.advance(Duration::from_secs(1_200));
            app.gate.go.add_permits(1);
            jar = slow.await.unwrap();
            // The old entry, which a regeneration replaces by a tombstone for a minute, and the new one.
            let left = |key: &str| server.cli(&["PTTL", key]).parse::<i64>().unwrap();
            assert!(left(&key) <= longest, "{path}: {}", left(&key));
            let keys = server.cli(&["KEYS", "test:*"]);
            assert!(keys.lines().all(|key| (900_000..=1_500_000).contains(&left(key))), "{path}");
            app.ok("/read", &mut jar).await;
            // Redis has it for its retention only.
            for key in keys.lines() {
                server.cli(&["PEXPIRE", key, &(left(key) - 600_000).to_string()]);
            }
            clock.advance(Duration::from_secs(601));
            assert_eq!(app.ok("/read", &mut jar).await, "none", "{path}");
            server.cli(&["FLUSHALL"]);
        }
    }
}

/// Hosts with pools of their own measure no clock. A session that Redis has is alive for them all the same: it is listed, and
/// counts as ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a8_hosts_with_pools_of_their_own_list_and_end_each_others_sessions() {
    let server = Server::start();
    let mut apps = Vec::new();
    for off in [900, 0] {
        let manager = bb8_redis::RedisConnectionManager::new(server.url()).unwrap();
        let pool = bb8_redis::bb8::Pool::builder().max_size(2).build(manager).await.unwrap();
        let backend = Redis::from_pool(pool, "test").unwrap().with_timeouts(UNHURRIED, UNHURRIED).unwrap();
        let events = Events::new();
        let store = ServerStore::with_backend(backend)
            .idle_timeout(Duration::from_secs(600))
            .clock(FakeClock::at(SystemClock.now().as_unix() + off))
            .observer(events.clone())
            .development()
            .build()
            .unwrap();
        apps.push(App::over(store, events));
    }
    let [ahead, behind] = &apps[..] else { panic!("two hosts") };
    for ending in [ahead, behind] {
        let jar = log_in_at(behind, "ada").await;
        assert_eq!(ahead.ok("/add", &mut jar.clone()).await, "1");
        log_in_at(behind, "ada").await;
        for app in [ahead, behind] {
            assert_eq!(app.store.sessions_of("ada").await.unwrap().len(), 2);
        }
        assert_eq!(ending.store.end_sessions_of("ada", None).await.unwrap(), 2);
        assert_eq!(behind.ok("/read", &mut jar.clone()).await, "none");
    }
}

async fn log_in_at(app: &App<Redis>, user: &'static str) -> Jar {
    let service = session_fn(app.store.clone(), move |_: Request<Body>, session: SessionHandle| async move {
        session.load().await?.login(user)?;
        Ok::<_, Error>(Response::new(Body::default()))
    });
    let mut jar = Jar::new();
    assert_eq!(visit(&service, "/", &mut jar).await.status(), 200);
    jar
}
