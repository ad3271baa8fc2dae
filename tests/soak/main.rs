//! A long run of every store on a bad day. `tests/soak/run` starts it, and README.md says what it shows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]
#![allow(clippy::print_stdout)] // the figures

mod client;
#[path = "../redis/deployment.rs"]
#[allow(dead_code)] // of what the tests share, this uses a part
mod deployment;
#[path = "../support/dice.rs"]
mod dice;
mod faults;
#[path = "../sqlite/folder.rs"]
#[allow(dead_code)]
mod folder;
mod host;
mod process;
mod rows;
#[path = "../redis/server.rs"]
#[allow(dead_code)]
mod server;
#[path = "../support/mod.rs"]
mod support;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle};

use crate::client::{Client, Shared};
use crate::faults::TestBed;
use crate::process::measure;
use crate::rows::{Kind, ROWS, Row};
use crate::server::PATIENCE;

const CLIENTS: u64 = 8;
/// Between two faults, when no request may fail.
const QUIET: Duration = Duration::from_secs(2);
/// In a shorter run, memory is not judged.
const JUDGES_MEMORY: Duration = Duration::from_secs(60);

fn main() {
    let runtime = |threads| Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap();
    if std::env::var(host::ROW).is_ok() {
        runtime(2).block_on(host::run());
        return;
    }
    let Ok(seconds) = std::env::var("HYPER_SESSION_SOAK") else {
        println!("not a part of every run: ./tests/soak/run starts it");
        return;
    };
    let length = Duration::from_secs(seconds.parse().expect("a number of seconds"));
    let names = std::env::var("HYPER_SESSION_SOAK_STORES").unwrap_or_default();
    let mut rows: Vec<_> = names.split_whitespace().map(Row::named).collect();
    if rows.is_empty() {
        rows = ROWS.iter().collect();
    }
    let runtime = runtime(4);
    let running: Vec<_> = rows
        .into_iter()
        .map(|row| {
            let handle = runtime.handle().clone();
            (row, std::thread::spawn(move || soak(row, length, &handle)))
        })
        .collect();
    let failed: Vec<_> =
        running.into_iter().filter_map(|(row, thread)| thread.join().is_err().then_some(row.name)).collect();
    assert!(failed.is_empty(), "failed: {failed:?}");
    println!("all is well");
}

/// Memory in kB and descriptors, each second.
type Samples = Arc<Mutex<Vec<(u64, u64)>>>;

fn soak(row: &'static Row, length: Duration, runtime: &Handle) {
    let shared = Arc::new(Shared::new(row));
    let mut bed = TestBed::start(row, &shared);
    let mut probe = Client::new(Arc::clone(&shared), CLIENTS);
    let clients: Vec<_> =
        (0..CLIENTS).map(|number| runtime.spawn(Client::new(Arc::clone(&shared), number).run())).collect();
    let samples = Samples::default();
    let measuring = runtime.spawn(sample(bed.oldest(), Arc::clone(&samples)));
    let start = Instant::now();
    let mut said = start;
    let mut rounds = 0;
    while rounds == 0 || start.elapsed() < length {
        for fault in bed.round() {
            std::thread::sleep(QUIET);
            shared.window.open();
            let failures = shared.failures();
            bed.suffer(fault, &shared);
            let healed = Instant::now();
            for _ in 0..2 {
                while !runtime.block_on(probe.sees_both_sites_work()) {
                    assert!(healed.elapsed() < PATIENCE, "{}: {fault:?} has no end", row.name);
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
            shared.window.close();
            let failed = shared.failures() > failures;
            shared.count(format!("fault {fault:?}{}", if failed { ", with failures" } else { "" }));
            assert!(clients.iter().all(|client| !client.is_finished()), "{}: see above", row.name);
        }
        rounds += 1;
        if said.elapsed() >= Duration::from_secs(60) {
            said = Instant::now();
            let (memory, descriptors) = *samples.lock().unwrap().last().unwrap();
            println!(
                "{} after {} s: {rounds} rounds of faults, {memory} kB, {descriptors} descriptors",
                row.name,
                start.elapsed().as_secs()
            );
        }
    }
    std::thread::sleep(QUIET);
    shared.stop.store(true, Ordering::SeqCst);
    measuring.abort();
    if matches!(row.kind, Kind::Redis { near_cache: true, .. }) {
        let hits = runtime.block_on(probe.near_cache_hits());
        println!("{}: {hits} loads from the near-caches since the last deployments", row.name);
        assert!(hits > 0, "{}: the near-cache did nothing", row.name);
    }
    runtime.block_on(async {
        let mut audits = Vec::new();
        for client in clients {
            audits.push(tokio::spawn(client.await.unwrap().audit()));
        }
        for audit in audits {
            audit.await.unwrap();
        }
    });
    report(row, start.elapsed(), rounds, &shared, &bed, &samples.lock().unwrap());
}

async fn sample(pid: u32, samples: Samples) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        samples.lock().unwrap().push(measure(pid));
    }
}

/// Prints what was counted, and fails if a part of it is missing, or if memory or descriptors grew.
fn report(row: &Row, took: Duration, rounds: u32, shared: &Shared, bed: &TestBed, samples: &[(u64, u64)]) {
    let name = row.name;
    let counts = shared.counts();
    let mut lines = vec![format!("\n{name}: {rounds} rounds of faults in {} s", took.as_secs())];
    lines.extend(counts.iter().map(|(what, count)| format!("{count:>9}  {what}")));
    let (duration, deed) = shared.longest();
    lines.push(format!("longest request: {deed}, {} ms", duration.as_millis()));
    let medians = |samples: &[(u64, u64)]| {
        let median = |mut values: Vec<u64>| {
            values.sort_unstable();
            values[values.len() / 2]
        };
        (median(samples.iter().map(|s| s.0).collect()), median(samples.iter().map(|s| s.1).collect()))
    };
    // The first tenth is warm-up.
    let warm = &samples[samples.len() / 10..];
    let third = warm.len() / 3;
    let ((memory, descriptors), (memory_last, descriptors_last)) =
        (medians(&warm[..third.max(1)]), medians(&warm[warm.len() - third.max(1)..]));
    lines.push(format!(
        "memory {memory} kB -> {memory_last} kB, descriptors {descriptors} -> {descriptors_last}"
    ));
    let left = bed.sessions_in_redis();
    lines.extend(left.map(|left| format!("{left} sessions left in Redis")));
    println!("{}", lines.join("\n"));

    let mut expected = vec![
        "login 200",
        "add 200",
        "read 200",
        "grow 200",
        "shrink 200",
        "regenerate 200",
        "logout 200",
        "others 200",
        "end 200",
        "renewed",
        "hung up",
        "ended session refused",
        "live session at the end",
    ];
    if !row.kind.is_cookie() {
        expected.extend(["list 200", "both sites at once"]);
    }
    for what in expected {
        assert!(counts.contains_key(what), "{name}: not once: {what}");
    }
    for fault in row.faults() {
        let happened = counts.keys().any(|count| count.starts_with(&format!("fault {fault:?}")));
        assert!(happened, "{name}: not once: {fault:?}");
    }
    assert!(left.unwrap_or(0) == 0, "{name}: sessions escaped the end of all sessions of their subject");
    if took < JUDGES_MEMORY {
        println!("{name}: too short to judge memory");
        return;
    }
    let log = if matches!(row.kind, Kind::CookieSqlite | Kind::CookieRedis) {
        let ends = ["login 200", "logout 200", "regenerate 200", "others 200", "end 200"];
        let ends: u64 = ends.iter().filter_map(|what| counts.get(*what)).sum();
        ends / 2
    } else {
        0
    };
    assert!(memory_last < memory + memory / 4 + 8_192 + log, "{name}: memory grows");
    assert!(descriptors_last <= descriptors + 16, "{name}: descriptors leak");
}
