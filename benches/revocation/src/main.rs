//! The cost of revocations. Prints one figure a line, beside its goal.
//!
//! ```text
//! cargo run --release --manifest-path benches/revocation/Cargo.toml
//! ```
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used)] // it is a program

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::service::Service;
use hyper_session::__internals::{Record, Verbs};
use hyper_session::revocation::{Revocation, RevocationLog, SqliteLog};
use hyper_session::testing::Cookies;
use hyper_session::{
    AppKey, Clock, CookieStore, Error, Revocations, Session, SessionHandle, SystemClock, session_fn,
};

const MILLION: u64 = 1_000_000;
const NAME: &str = "__Host-session";

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    memory_and_look_up().await;
    let folder = std::env::temp_dir().join(format!("hyper-session-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    on_sqlite(&folder).await;
    std::fs::remove_dir_all(&folder).unwrap();
    on_redis().await;
}

fn store(revocations: Revocations) -> CookieStore {
    let key = AppKey::danger_from_any_bytes(b"a key for benchmarks").unwrap();
    // A busy machine must not end the measurement.
    CookieStore::builder(key).revocations(revocations.max_staleness(Duration::from_secs(60))).build().unwrap()
}

/// The cookies of a browser whose session `fill` filled.
async fn browser(store: &CookieStore, fill: impl Fn(&Session) -> Result<(), Error>) -> Cookies {
    let service = session_fn(store.clone(), |_: Request<()>, handle: SessionHandle| {
        let fill = &fill;
        async move {
            fill(&handle.load().await?)?;
            Ok::<_, Error>(Response::new(()))
        }
    });
    let mut cookies = Cookies::new();
    cookies.receive(service.call(Request::new(())).await.unwrap().headers());
    cookies
}

async fn record(store: &CookieStore, cookies: &Cookies) -> Result<Record, hyper_session::Refusal> {
    store.load(cookies.get(NAME).unwrap(), SystemClock.now()).await.unwrap()
}

fn resident_kilobytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

async fn memory_and_look_up() {
    println!("a cycle of this machine, as busy as it is: {:.2} ns", cycle());
    let revocations = Revocations::in_memory().max_revocations(2_000_000);
    let store = store(revocations.clone());
    let before = resident_kilobytes();
    let (mut slowest, start) = (Duration::ZERO, Instant::now());
    for number in 0..MILLION {
        let one = Instant::now();
        revocations.end_sessions_of(&number.to_string()).await.unwrap();
        slowest = slowest.max(one.elapsed());
    }
    let each = start.elapsed().as_nanos() / u128::from(MILLION);
    println!(
        "memory for {} revocations: {} MB (goal 60)",
        revocations.len(),
        (resident_kilobytes() - before) / 1_000
    );
    println!("a revocation in memory: {each} ns, the slowest {slowest:?}");
    let plain = browser(&store, |session| session.login("ada")).await;
    let labelled = browser(&store, |session| {
        session.login("ada")?;
        ["a", "b", "c", "d"].iter().try_for_each(|namespace| session.label(namespace, "value"))
    })
    .await;
    for (what, cookies) in [("id, root and subject", plain), ("the same and four labels", labelled)] {
        let record = record(&store, &cookies).await.unwrap();
        let allocated =
            allocation_counter::measure(|| assert!(store.is_still_valid(&record, SystemClock.now())));
        for threads in [1, 2] {
            println!(
                "look-up of {what}, {threads} threads: {:.1} ns, {} allocations (goal 40, 0)",
                look_up(&store, &record, threads),
                allocated.count_total
            );
        }
    }
}

/// Nanoseconds for each look-up: the fastest of many short rounds, which other programs of a busy machine leave alone.
fn look_up(store: &CookieStore, record: &Record, threads: usize) -> f64 {
    const TIMES: u32 = 20_000;
    let now = SystemClock.now();
    let mut rounds: Vec<f64> = (0..300)
        .map(|_| {
            std::thread::scope(|scope| {
                let run = || {
                    let start = Instant::now();
                    for _ in 0..TIMES {
                        assert!(
                            std::hint::black_box(store).is_still_valid(std::hint::black_box(record), now)
                        );
                    }
                    start.elapsed().as_secs_f64() * 1e9 / f64::from(TIMES)
                };
                let threads: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).fold(0.0, f64::max)
            })
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[0]
}

/// Nanoseconds for a cycle: a multiplication that waits for the one before takes three, an xor one.
fn cycle() -> f64 {
    let rounds = (0..300).map(|_| {
        let (start, mut number) = (Instant::now(), std::hint::black_box(3_u64));
        for _ in 0..20_000 {
            number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 1;
        }
        std::hint::black_box(number);
        start.elapsed().as_secs_f64() * 1e9 / 20_000.0 / 4.0
    });
    rounds.fold(f64::INFINITY, f64::min)
}

fn some(count: u64, from: u64) -> Vec<Revocation> {
    (from..from + count)
        .map(|number| {
            let mut bytes = [0; Revocation::LEN];
            let spread = (u128::from(number) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
            bytes[..16].copy_from_slice(&spread.to_be_bytes());
            Revocation::from_bytes(&bytes).unwrap()
        })
        .collect()
}

async fn fill(log: &impl RevocationLog) {
    for from in (0..MILLION).step_by(1_000) {
        log.append(some(1_000, from), 0).await.unwrap();
    }
}

/// From the answer to a logout on one process to its refusal by another.
async fn way(here: Revocations, there: Revocations, times: usize) -> (Duration, Duration) {
    let (here, there) = (store(here), store(there));
    let mut ways = Vec::new();
    for number in 0..times {
        let user = number.to_string();
        let cookies = browser(&here, |session| session.login(&user)).await;
        let known = record(&there, &cookies).await.unwrap();
        // Not in step with whatever the other one does at intervals.
        tokio::time::sleep(Duration::from_micros(number as u64 * 7_919 % 60_000)).await;
        here.end_sessions_of(&user).await.unwrap();
        let start = Instant::now();
        while there.is_still_valid(&known, SystemClock.now()) {
            tokio::task::yield_now().await;
        }
        ways.push(start.elapsed());
    }
    ways.sort();
    (ways[times / 2], ways[times * 99 / 100])
}

async fn on_sqlite(folder: &std::path::Path) {
    let path: PathBuf = folder.join("rate.db");
    let log = Arc::new(SqliteLog::open(&path).await.unwrap());
    let rate = async |tasks: u64, seconds: f64| {
        let until = Instant::now() + Duration::from_secs_f64(seconds);
        let tasks: Vec<_> = (0..tasks)
            .map(|task| {
                let log = Arc::clone(&log);
                tokio::spawn(async move {
                    let mut done = 0_u64;
                    while Instant::now() < until {
                        log.append(some(1, task << 32 | done), 0).await.unwrap();
                        done += 1;
                    }
                    done
                })
            })
            .collect();
        let mut done = 0;
        for task in tasks {
            done += task.await.unwrap();
        }
        done as f64 / seconds
    };
    let (one, many) = (rate(1, 3.0).await, rate(64, 3.0).await);
    println!(
        "SQLite, durable revocations a second: {one:.0} with one task, {many:.0} with 64: {:.1} times (goal 10)",
        many / one
    );

    let path = folder.join("start.db");
    fill(&SqliteLog::open(&path).await.unwrap()).await;
    let start = Instant::now();
    let revocations = Revocations::sqlite(&path).await.unwrap();
    println!("SQLite, start with {} revocations: {:?} (goal 2 s)", revocations.len(), start.elapsed());
    drop(revocations);

    let path = folder.join("way.db");
    let open = async || Revocations::sqlite(&path).await.unwrap();
    let (median, p99) = way(open().await, open().await, 300).await;
    println!("SQLite, logout known to another process: p50 {median:?}, p99 {p99:?} (goal p99 150 ms)");
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn on_redis() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is installed");
    let _server = Server(server);
    let url = format!("redis://127.0.0.1:{port}");
    let log = loop {
        if let Ok(log) = Revocations::redis(&*url).prefix("start").into_log().await {
            break log;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    fill(&log).await;
    let start = Instant::now();
    let revocations = Revocations::redis(&*url).prefix("start").connect().await.unwrap();
    println!("Redis, start with {} revocations: {:?} (goal 2 s)", revocations.len(), start.elapsed());
    drop(revocations);
    let open = async || Revocations::redis(&*url).prefix("way").connect().await.unwrap();
    let (median, p99) = way(open().await, open().await, 1_000).await;
    println!("Redis, logout known to another process: p50 {median:?}, p99 {p99:?} (goal p99 10 ms)");
}
