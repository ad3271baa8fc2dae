//! Entries that are not as the store left them (F16, F17, F19, F20), and servers that are not Redis (F18).

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bb8_redis::redis;
use hyper_session::testing::FakeClock;
use hyper_session::{AppKey, Clock, Keyring, SystemClock};

use crate::app::{App, BOUND, builder, hurried};
use crate::server::{Server, wait_for};

/// Redis as it is, past the store.
pub(crate) struct Raw(redis::Connection);

impl Raw {
    pub(crate) fn of(server: &Server) -> Self {
        Self(redis::Client::open(server.url()).unwrap().get_connection().unwrap())
    }

    pub(crate) fn keys(&mut self) -> Vec<String> {
        let mut keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut self.0).unwrap();
        keys.sort();
        keys
    }

    pub(crate) fn get(&mut self, key: &str) -> Vec<u8> {
        redis::cmd("GET").arg(key).query::<Option<Vec<u8>>>(&mut self.0).unwrap().unwrap_or_default()
    }

    pub(crate) fn set(&mut self, key: &str, value: &[u8]) {
        redis::cmd("SET").arg(key).arg(value).exec(&mut self.0).unwrap();
    }

    pub(crate) fn delete(&mut self, key: &str) {
        redis::cmd("DEL").arg(key).exec(&mut self.0).unwrap();
    }

    pub(crate) fn config(&mut self, name: &str, value: &str) {
        redis::cmd("CONFIG").arg("SET").arg(name).arg(value).exec(&mut self.0).unwrap();
    }

    pub(crate) fn dump(&mut self, key: &str) -> Vec<u8> {
        redis::cmd("DUMP").arg(key).query(&mut self.0).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f16_a_value_that_is_no_session_is_no_session_and_r11_does_not_stay_in_the_way() {
    let server = Server::start();
    let app = App::connect(server.url()).await;
    let mine = app.jar().await;
    let mut raw = Raw::of(&server);
    let key = &raw.keys()[0];
    let good = raw.get(key);
    app.events.take();

    let mut bad: Vec<Vec<u8>> = (0..good.len()).map(|len| good[..len].to_vec()).collect();
    bad.push([good.as_slice(), b"x"].concat());
    bad.push(vec![0xff; good.len()]);
    bad.push(b"astra-like {\"n\":1}".to_vec());
    for version in [0, 2, 3, 4, 5, 200, 255] {
        let mut other = good.clone();
        other[8] = version;
        bad.push(other);
    }
    for value in bad {
        raw.set(key, &value);
        let mut jar = mine.clone();
        assert_eq!(app.ok("/read", &mut jar).await, "none", "{value:?}");
        let events = app.events.take();
        assert_eq!(events.len(), 1, "told once: {events:?}");
        assert!(events[0].starts_with("refused:"), "{events:?}");
        assert_eq!(raw.get(key), value, "evidence is left alone");
        // The entry is not in the way: the visitor gets a new session under another id.
        let mut jar = mine.clone();
        assert_eq!(app.ok("/add", &mut jar).await, "1");
        assert_eq!(app.ok("/logout", &mut jar).await, "none");
        app.events.take();
    }
    // T78, before it is decoded.
    let value = [good.as_slice(), &vec![0; 2 << 20]].concat();
    raw.set(key, &value);
    assert_eq!(app.ok("/read", &mut mine.clone()).await, "none");
    assert_eq!(app.events.take(), ["store_failed", "refused:unreadable"]);
    assert_eq!(app.ok("/add", &mut mine.clone()).await, "1");
    assert!(raw.get(key) == value, "evidence is left alone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f17_a_session_that_ends_during_a_request_is_not_revived() {
    let server = Server::start();
    let app = App::connect(server.url()).await;
    let jar = app.jar().await;
    app.events.take();
    let key = server.cli(&["KEYS", "test:*"]);
    let late = app.late_add(&jar);
    app.gate.arrived.acquire().await.unwrap().forget();
    server.cli(&["PEXPIRE", &key, "1"]);
    wait_for("the entry to expire", || server.cli(&["EXISTS", &key]) == "0");
    app.gate.go.add_permits(1);
    let (status, set, _) = late.await.unwrap();
    assert_eq!((status, set), (http::StatusCode::OK, false));
    assert_eq!(app.events.take(), ["dropped:session_ended"]);
    assert_eq!(server.cli(&["DBSIZE"]), "0");
    assert_eq!(app.ok("/read", &mut jar.clone()).await, "none");
}

/// An entry that has expired is kept for a quarter of an hour: a request that loaded it in time keeps its session, and no other
/// request finds it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b5_a_request_that_began_in_time_keeps_a_session_that_expires_meanwhile() {
    let server = Server::start();
    let app = App::connect(server.url()).await;
    let jar = app.jar().await;
    app.events.take();
    let key = server.cli(&["KEYS", "test:*"]);
    let late = app.late_add(&jar);
    app.gate.arrived.acquire().await.unwrap().forget();
    // It expired a minute ago.
    let mut raw = Raw::of(&server);
    let mut entry = raw.get(&key);
    entry[..8].copy_from_slice(&(SystemClock.now().as_unix() - 60).to_be_bytes());
    raw.set(&key, &entry);
    server.cli(&["PEXPIRE", &key, "840000"]);
    assert_eq!(app.ok("/read", &mut jar.clone()).await, "none");
    app.gate.go.add_permits(1);
    let (status, set, mut jar) = late.await.unwrap();
    assert_eq!((status, set), (http::StatusCode::OK, true));
    assert_eq!(app.ok("/read", &mut jar).await, "2");
    assert!(server.cli(&["PTTL", &key]).parse::<u64>().unwrap() > 900_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f17_the_servers_ttl_follows_the_deadline_in_the_entry_and_the_nearer_one_counts() {
    let server = Server::start();
    let start = SystemClock.now().as_unix();
    let clock = FakeClock::at(start);
    let minute = Duration::from_secs(60);
    let options =
        builder(server.url()).clock(clock.clone()).idle_timeout(10 * minute).absolute_timeout(30 * minute);
    let app = App::with(options).await;
    let mut jar = app.jar().await;
    let key = server.cli(&["KEYS", "test:*"]);
    // An expired entry is kept for a quarter of an hour, for requests that loaded it in time.
    let ttl = || server.cli(&["PTTL", &key]).parse::<i64>().unwrap() - 900_000;
    assert!((500_000..=600_000).contains(&ttl()), "{}", ttl());
    for minutes in [9, 18, 25] {
        clock.set(start + minutes * 60);
        app.ok("/add", &mut jar).await;
        // T31: never beyond the absolute deadline.
        let rest = 10.min(30 - i64::try_from(minutes).unwrap()) * 60_000;
        assert!((rest - 100_000..=rest).contains(&ttl()), "{minutes}: {}", ttl());
    }
    // The host's clock jumps back: the session is not longer for it.
    clock.set(start + 60);
    app.ok("/read", &mut jar).await;
    assert!(ttl() <= 600_000);
    // It jumps past the deadline: over, though Redis would still have it.
    clock.set(start + 30 * 60);
    assert_eq!(server.cli(&["EXISTS", &key]), "1");
    assert_eq!(app.ok("/read", &mut jar.clone()).await, "none");
    // A request that lives before that moment cannot touch what Redis has removed.
    clock.set(start + 60);
    server.cli(&["PEXPIRE", &key, "1"]);
    wait_for("the entry to expire", || server.cli(&["EXISTS", &key]) == "0");
    assert_eq!(app.ok("/read", &mut jar.clone()).await, "none");
}

/// Answers each request with these bytes, again and again where `endless`; counts what it could send.
fn wrong_server(reply: &'static [u8], endless: bool) -> (u16, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let sent = Arc::new(AtomicU64::new(0));
    let shared = Arc::clone(&sent);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let sent = Arc::clone(&shared);
            std::thread::spawn(move || {
                let (mut client, mut request) = (client, [0; 4096]);
                while let Ok(1..) = client.read(&mut request) {
                    let _ = client.write_all(reply);
                    while endless && client.write_all(&[b'x'; 4096]).is_ok() {
                        sent.fetch_add(4096, Ordering::SeqCst);
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
            });
        }
    });
    (port, sent)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f18_what_is_not_redis_is_an_error_and_does_not_fill_memory() {
    for (reply, endless) in [
        (&b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"[..], false),
        (b"\x15\x03\x01\x00\x02\x02\x46", false), // a TLS alert
        (b"$9999999999\r\n", true),
        (b"$-5\r\n", false),
        (b"*2147483647\r\n", true),
        (b"%9223372036854775807\r\n", false),
        (b"+", true),
        (b"", false),
        (b"-hunter2 you sent hunter2\r\n-hunter2 you sent hunter2\r\n", false),
        (b"+OK\r\n+OK\r\n", false),
        (b":1\r\n:1\r\n", false),
        (b"$-1\r\n$-1\r\n", false),
        (b"*-1\r\n*-1\r\n", false),
        (b"$3\r\nfoo\r\n$3\r\nfoo\r\n", false),
        (b"*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n", false),
    ] {
        let (port, sent) = wrong_server(reply, endless);
        let start = Instant::now();
        let url = format!("redis://:hunter2@127.0.0.1:{port}");
        let quick = Duration::from_millis(300);
        let error = hurried(url).connections(1).connect_timeout(quick).connect().await.unwrap_err();
        let said = format!("{error:?} {error}");
        assert!(!said.contains("hunter2") && !said.contains('\n') && said.len() < 400, "{said}");
        assert!(start.elapsed() < BOUND, "{said}");
        // Once no caller waits for the reply, the store no longer reads it.
        let mut before = u64::MAX;
        wait_for("the connection to be closed", || {
            std::thread::sleep(Duration::from_millis(20));
            std::mem::replace(&mut before, sent.load(Ordering::SeqCst)) == sent.load(Ordering::SeqCst)
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f19_after_a_restart_without_persistence_all_are_anonymous_and_no_id_is_used_again() {
    let mut server = Server::start();
    let app = App::connect(server.url()).await;
    let mut jars = Vec::new();
    for _ in 0..5 {
        jars.push(app.jar().await);
    }
    let keys = Raw::of(&server).keys();
    server.restart();
    for jar in &mut jars {
        let old = jar.clone();
        assert_eq!(app.ok("/read", &mut jar.clone()).await, "none");
        // T32: a token that is unknown now is not adopted.
        assert_eq!(app.ok("/add", jar).await, "1");
        assert_ne!(jar.0, old.0);
        assert_eq!(app.ok("/read", &mut old.clone()).await, "none");
    }
    let new = Raw::of(&server).keys();
    assert_eq!(new.len(), 5);
    assert!(new.iter().all(|key| !keys.contains(key)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f20_two_instances_in_the_middle_of_a_rotation_read_each_other_and_a_third_learns_nothing() {
    let server = Server::start();
    let (old, new) = (|| AppKey::from_bytes(&key(7)).unwrap(), || AppKey::from_bytes(&key(9)).unwrap());
    let with = async |ring: Keyring| App::with(builder(server.url()).seal_records(ring)).await;
    let before = with(Keyring::new(old()).accept(new())).await;
    let after = with(Keyring::new(new()).accept(old())).await;
    let late = with(Keyring::new(old())).await;
    let mut jar = before.jar().await;
    assert_eq!(after.ok("/add", &mut jar).await, "2");
    assert_eq!(before.ok("/add", &mut jar).await, "3");
    assert_eq!(after.ok("/add", &mut jar).await, "4");
    // An instance without the new key cannot open the entry, and leaves the cookie in place.
    let refused = late.visit("/read", &mut jar.clone()).await;
    assert_eq!(refused.status(), http::StatusCode::OK);
    assert!(!refused.headers().contains_key("set-cookie"));
    assert_eq!(after.ok("/read", &mut jar).await, "4", "and it is left alone");
}

/// 32 bytes without a pattern.
pub(crate) fn key(seed: u8) -> [u8; 32] {
    std::array::from_fn(|at| u8::try_from((at * at * 31 + at * 7 + usize::from(seed) * 89) % 251).unwrap())
}
