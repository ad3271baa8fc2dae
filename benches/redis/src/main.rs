//! Sessions in a real Redis on the loopback interface: loading one, and changing one value of it, at 1 to 256 tasks. Each
//! task has a session of its own. A change is also made by the bare connection as the store makes it, with a comparison, by the
//! bare connection in the bare service, and by the store without the service. And reading a value in a whole request, without a task beside it: what the near-cache adds
//! to a request, and what a cookie adds with the connection memo. Prints one JSON object a line.
//!
//! A change of hyper-session is a whole request, so the arm to compare it with is "bare in the bare service": `GET` and `SET` by
//! the bare connection in the handler of the same hyper service, from request to response, without sessions. The difference
//! between the two is the session: its cookie, its token, decoding, merging, encoding, and the comparison before the write.
//! A load of hyper-session is a call of the store without a request, so the arm to compare it with is "bare".
//!
//! A server that is 1 or 50 ms away is one behind a relay that delays what it passes on.
//!
//! `hyper-session-benches-redis [--quick] [--arm=NAME] [--scripts-only] [CASE]...`, where a case is `load/256`, `change/1`, `read/1`,
//! `distance/1` or `distance/50`; all of them by default. A single arm is for a profiler. The server is `redis-server`, or what `HYPER_SESSION_REDIS_SERVER`
//! names; by `--scripts-only` the store does not use a server's own compare-and-set. Without the default feature `peers`, the
//! stores of other crates are left out, which takes a third of the time to build.

#[cfg(feature = "peers")]
mod peers;

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{COOKIE, HeaderValue};
use http::{Request, Response};
use hyper::service::{Service, service_fn};
use hyper_session::__internals::REDIS_REPLACE_SCRIPT;
use hyper_session::store::redis::NearCache;
use hyper_session::store::redis::Redis;
use hyper_session::store::{Backend, EntryId, Replaced, Stored};
use hyper_session::testing::Relay;
use hyper_session::{Clock, RedisStore, SystemClock};
use hyper_session_benches::results::{DISTANCES, IN_SERVICE, RedisRun};
use hyper_session_benches::services::{Action, Body, MEMO, NEAR, bare, by_extension, hello, request};
use hyper_session_benches::stores::{Operation, StoreArm, median, operation, run};
use hyper_session_benches::tokens::{cookie_pair, default_store};
use redis::IntoConnectionInfo;
use redis::io::tcp::TcpSettings;

const TASKS: [usize; 4] = [1, 16, 64, 256];

#[tokio::main(worker_threads = 2)]
async fn main() {
    let (flags, cases): (Vec<_>, Vec<_>) =
        std::env::args().skip(1).partition(|argument| argument.starts_with("--"));
    let quick = flags.iter().any(|flag| flag == "--quick");
    let scripts_only = flags.iter().any(|flag| flag == "--scripts-only");
    let server = Server::start();
    let mut arms = vec![
        bare_connection(&server.url(), Write::Set).await,
        bare_connection(&server.url(), Write::Script).await,
    ];
    arms.push(in_bare_service(&arms[0]));
    if compares_and_sets(&server.url()).await {
        arms.push(bare_connection(&server.url(), Write::CompareAndSet).await);
    }
    arms.extend([
        backend(&server.url(), scripts_only).await,
        ours(&server.url(), scripts_only, false).await,
        ours(&server.url(), scripts_only, true).await,
    ]);
    #[cfg(feature = "peers")]
    arms.extend(peers::arms(server.port).await);
    if let Some(name) = flags.iter().find_map(|flag| flag.strip_prefix("--arm=")) {
        arms.retain(|arm| arm.name == name);
    }
    let (rounds, duration) = if quick { (1, 0.02) } else { (10, 0.5) };
    let duration = Duration::from_secs_f64(duration);
    let mut monitor =
        redis::Client::open(server.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    for change in [false, true] {
        for tasks in TASKS {
            let name = if change { "change" } else { "load" };
            if !cases.is_empty() && !cases.contains(&format!("{name}/{tasks}")) {
                continue;
            }
            let mut runs = vec![Vec::new(); arms.len()];
            let mut commands = vec![0.0; arms.len()];
            for round in 0..rounds {
                // Each round begins with a different arm, so that no arm always runs after the same one.
                for place in (0..arms.len()).map(|turn| (turn + round) % arms.len()) {
                    let arm = &arms[place];
                    let operation = if change { &arm.change } else { &arm.load };
                    let before = processed(&mut monitor).await;
                    let (done, seconds) = run(operation, tasks, tasks, duration).await;
                    // The question itself is a command, too.
                    commands[place] = (processed(&mut monitor).await - before - 1) as f64 / done as f64;
                    runs[place].push(done as f64 / seconds);
                }
            }
            for ((arm, rounds), commands) in arms.iter().zip(runs).zip(commands) {
                let result = RedisRun {
                    operation: name.to_owned(),
                    tasks,
                    arm: arm.name.to_owned(),
                    per_second: median(&rounds),
                    rounds,
                    commands,
                };
                println!("{}", serde_json::to_string(&result).unwrap());
            }
        }
    }
    if cases.is_empty() || cases.iter().any(|case| case == "read/1") {
        let url = server.url();
        let seconds = if quick { 0.05 } else { 5.0 };
        tokio::spawn(async move { read(&url, Duration::from_secs_f64(seconds)).await }).await.unwrap();
    }
    for milliseconds in DISTANCES {
        if cases.is_empty() || cases.contains(&format!("distance/{milliseconds}")) {
            at_a_distance(server.port, milliseconds, scripts_only, if quick { 0.3 } else { 3.0 }).await;
        }
    }
}

/// Sixteen tasks, with a server that is `milliseconds` away, there and back.
async fn at_a_distance(port: u16, milliseconds: u32, scripts_only: bool, seconds: f64) {
    let relay = Relay::before(("127.0.0.1", port)).unwrap();
    let url = format!("redis://{}", relay.address());
    let mut arms = vec![bare_connection(&url, Write::Set).await];
    for near_cache in [false, true] {
        arms.push(ours(&url, scripts_only, near_cache).await);
    }
    #[cfg(feature = "peers")]
    arms.extend(peers::arms(relay.address().port()).await);
    relay.set_latency(Duration::from_millis(milliseconds.into()) / 2);
    for change in [false, true] {
        for arm in &arms {
            let (name, operation) = if change { ("change", &arm.change) } else { ("load", &arm.load) };
            let (done, took) = run(operation, TASKS[1], TASKS[1], Duration::from_secs_f64(seconds)).await;
            let result = RedisRun {
                operation: format!("{name} at {milliseconds} ms"),
                tasks: TASKS[1],
                arm: arm.name.to_owned(),
                per_second: done as f64 / took,
                rounds: vec![done as f64 / took],
                commands: 0.0,
            };
            println!("{}", serde_json::to_string(&result).unwrap());
        }
    }
}

/// Whole requests that read a value, in turn: without a session, from a cookie that the connection remembers, and from the
/// near-cache.
async fn read(url: &str, duration: Duration) {
    let near =
        RedisStore::builder(url).prefix("bench:read").near_cache(NearCache::new()).connect().await.unwrap();
    let (plain, memo, cached) = (bare(), by_extension(default_store()), by_extension(near.clone()));
    let login = |response: Response<Body>| HeaderValue::from_str(&cookie_pair(response.headers())).unwrap();
    let for_memo = login(memo.call(request(Action::Login, None)).await.unwrap());
    let for_near = login(cached.call(request(Action::Login, None)).await.unwrap());
    let mut samples = [Vec::new(), Vec::new(), Vec::new()];
    let start = Instant::now();
    while start.elapsed() < duration {
        samples[0].push(time(&plain, &for_memo).await);
        samples[1].push(time(&memo, &for_memo).await);
        samples[2].push(time(&cached, &for_near).await);
        // The near-cache's heartbeat is a task of this runtime, too.
        tokio::task::yield_now().await;
    }
    let stats = near.backend().stats();
    assert!(stats.near_cache_hits > 100 * stats.near_cache_misses, "{stats:?}");
    for (arm, mut samples) in ["no session", MEMO, NEAR].into_iter().zip(samples) {
        samples.sort_by(f64::total_cmp);
        let per_second = 1e9 / samples[samples.len() / 2];
        let (operation, arm) = ("read".to_owned(), arm.to_owned());
        let result =
            RedisRun { operation, tasks: 1, arm, per_second, rounds: vec![per_second], commands: 0.0 };
        println!("{}", serde_json::to_string(&result).unwrap());
    }
}

/// Nanoseconds for a request, of fifty.
async fn time<S>(service: &S, cookie: &HeaderValue) -> f64
where
    S: Service<Request<Body>, Response = Response<Body>, Error: std::fmt::Debug>,
{
    const COUNT: u32 = 50;
    let start = Instant::now();
    for _ in 0..COUNT {
        let response = service.call(request(Action::Read, Some(cookie))).await.unwrap();
        assert_eq!(std::hint::black_box(response).status(), 200);
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(COUNT)
}

/// How the bare connection writes what it has read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Write {
    Set,
    /// By the store's script, which compares.
    Script,
    /// By the server's own comparison.
    CompareAndSet,
}

/// The bytes of an entry: those of the deadline, and those of a value.
const ENTRY_LEN: usize = 281;

/// One multiplexed connection: `GET`, and `GET` then a write of as many bytes, without a look at them.
///
/// As in the store, no command waits for the acknowledgement of earlier ones: over a distance, that would be a round trip.
async fn bare_connection(url: &str, write: Write) -> StoreArm {
    let settings = TcpSettings::default().set_nodelay(true);
    let info = url.into_connection_info().unwrap().set_tcp_settings(settings);
    let mut connection = redis::Client::open(info).unwrap().get_multiplexed_async_connection().await.unwrap();
    let (name, prefix) = match write {
        Write::Set => ("bare", "bare"),
        Write::Script => ("bare, compared by script", "script"),
        Write::CompareAndSet => ("bare, compared by the server", "ifeq"),
    };
    for number in 0..TASKS[3] {
        // No two entries are the same: the server's Lua keeps equal strings once.
        let value = [&[b'x'; ENTRY_LEN - 8][..], &number.to_be_bytes()].concat();
        let set = redis::cmd("SET").arg(format!("{prefix}:{number}")).arg(value).to_owned();
        let () = set.query_async(&mut connection).await.unwrap();
    }
    let load = redis::cmd("SCRIPT").arg("LOAD").arg(REDIS_REPLACE_SCRIPT).to_owned();
    let hash: Arc<str> = load.query_async::<String>(&mut connection).await.unwrap().into();
    let other = connection.clone();
    StoreArm {
        name,
        load: operation(move |number| {
            let mut connection = connection.clone();
            async move {
                let key = format!("{prefix}:{number}");
                let value: Vec<u8> = redis::cmd("GET").arg(key).query_async(&mut connection).await.unwrap();
                assert_eq!(value.len(), ENTRY_LEN);
            }
        }),
        change: operation(move |number| {
            let (mut connection, hash) = (other.clone(), Arc::clone(&hash));
            async move {
                let key = format!("{prefix}:{number}");
                let value: Vec<u8> = redis::cmd("GET").arg(&key).query_async(&mut connection).await.unwrap();
                let mut command = match write {
                    Write::Script => {
                        redis::cmd("EVALSHA").arg(&*hash).arg(1).arg(&key).arg(&value[8..]).to_owned()
                    }
                    _ => redis::cmd("SET").arg(&key).to_owned(),
                };
                let mut new = value.clone();
                new[8] = new[8].wrapping_add(1);
                command.arg(new);
                match write {
                    Write::Set => command.arg("EX").arg(86_400),
                    Write::Script => command.arg(86_400_000),
                    Write::CompareAndSet => command.arg("IFEQ").arg(&value).arg("EX").arg(86_400),
                };
                let reply: redis::Value = command.query_async(&mut connection).await.unwrap();
                assert!(matches!(reply, redis::Value::Okay | redis::Value::Int(1)));
            }
        }),
    }
}

/// The operations of an arm in the handler of the bare service: whole requests without a session. The cookie of a request is the
/// number of its entry.
fn in_bare_service(arm: &StoreArm) -> StoreArm {
    let cookies: Arc<[HeaderValue]> = (0..TASKS[3]).map(HeaderValue::from).collect();
    let whole = |action, inner: &Operation| {
        let (inner, cookies) = (Arc::clone(inner), Arc::clone(&cookies));
        let service = service_fn(move |request: Request<Body>| {
            std::hint::black_box(Action::of(&request));
            let done = inner(request.headers()[COOKIE].to_str().unwrap().parse().unwrap());
            async move {
                done.await;
                Ok::<_, std::convert::Infallible>(hello())
            }
        });
        operation(move |number| {
            let call = service.call(request(action, Some(&cookies[number])));
            async move { assert_eq!(call.await.unwrap().status(), 200) }
        })
    };
    let (load, change) = (whole(Action::Read, &arm.load), whole(Action::Change, &arm.change));
    StoreArm { name: IN_SERVICE, load, change }
}

async fn compares_and_sets(url: &str) -> bool {
    let mut connection = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    let set = redis::cmd("SET").arg("none").arg("").arg("IFEQ").arg("none").to_owned();
    set.query_async::<redis::Value>(&mut connection).await.is_ok()
}

/// The store's primitives, without the service and without decoding: an entry is fetched, and exchanged for a new entry.
async fn backend(url: &str, scripts_only: bool) -> StoreArm {
    let mut builder = RedisStore::builder(url).prefix("bench:backend");
    if scripts_only {
        builder = builder.scripts_only();
    }
    let store = builder.connect().await.unwrap();
    let entry = |byte: u8| Stored {
        value: vec![byte; ENTRY_LEN - 8].into(),
        expires: SystemClock.now().saturating_add(Duration::from_secs(86_400)),
    };
    let id = |number: usize| EntryId::from_bytes((number as u128).to_be_bytes());
    for number in 0..TASKS[3] {
        assert!(store.backend().create(id(number), entry(0), SystemClock.now()).await.unwrap());
    }
    let other = store.clone();
    let fetch = move |store: RedisStore, number: usize| async move {
        let backend: &Redis = store.backend();
        backend.fetch(id(number), SystemClock.now()).await.unwrap().unwrap()
    };
    StoreArm {
        name: "the store's primitives",
        load: operation(move |number| {
            let fetched = fetch(store.clone(), number);
            async move { assert_eq!(fetched.await.value.len(), ENTRY_LEN - 8) }
        }),
        change: operation(move |number| {
            let store = other.clone();
            async move {
                let seen = fetch(store.clone(), number).await;
                let new = entry(seen.value[0].wrapping_add(1));
                let outcome = store.backend().exchange(id(number), seen, Some(new), SystemClock.now()).await;
                assert_eq!(outcome.unwrap(), Replaced::Done);
            }
        }),
    }
}

/// Loading through `Store::load`; changing through the whole service, from request to response.
async fn ours(url: &str, scripts_only: bool, near_cache: bool) -> StoreArm {
    let mut builder = RedisStore::builder(url).prefix("bench:session");
    if near_cache {
        builder = builder.near_cache(NearCache::new());
    }
    if scripts_only {
        builder = builder.scripts_only();
    }
    let name = if near_cache { NEAR } else { "hyper-session" };
    StoreArm::ours(name, builder.connect().await.unwrap(), TASKS[3]).await
}

/// Commands that the server has processed so far; those inside of a script count, too.
async fn processed(connection: &mut redis::aio::MultiplexedConnection) -> u64 {
    let info: String = redis::cmd("INFO").arg("stats").query_async(connection).await.unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix("total_commands_processed:")).unwrap();
    line.trim().parse().unwrap()
}

/// A Redis without persistence, which ends with this program.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let program =
            std::env::var("HYPER_SESSION_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        let child = Command::new(program)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(10), "redis-server does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, port }
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
