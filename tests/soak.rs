//! A long run on a bad line: connections break at random, Redis restarts, requests are dropped. `tests/soak` starts it.
//!
//! It prints figures while it runs, and fails if anything was lost or doubled, or if memory, descriptors or the pool do not
//! come back to where they were.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]
#![allow(clippy::print_stdout, dead_code)] // the figures; and of what the tests share, this uses a part

#[path = "redis/app.rs"]
mod app;
#[path = "redis/server.rs"]
mod server;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hyper::service::Service;

use crate::app::{App, behind_relay, text};
use crate::server::Server;
use crate::support::{Jar, request};

const CLIENTS: u64 = 32;
const RESTART_EVERY: Duration = Duration::from_secs(30);
/// For so long the mark of a regenerated session stays.
const MARKS_LAST: Duration = Duration::from_secs(62);

#[derive(Default)]
struct Counts {
    succeeded: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
    /// Sessions that may have been created without anybody being told their token.
    orphans: AtomicU64,
    /// Logouts that may have happened or not.
    unclear: AtomicU64,
}

/// A client's view of its session.
#[derive(Default)]
struct Client {
    jar: Jar,
    confirmed: u64,
    possible: u64,
}

impl Client {
    /// One request at random, and what must be true of its answer.
    async fn step(&mut self, app: &App, random: u64, counts: &Counts) {
        let fresh = self.jar.0.is_empty();
        let path = match random % 100 {
            _ if fresh => "/add",
            0 => "/logout",
            1..=2 => "/regenerate",
            3..=40 => "/add",
            _ => "/read",
        };
        let call = app.service().call(request(path, self.jar.header().as_deref()));
        // One request in fifty is dropped on its way; not one whose outcome only its answer tells.
        let patience = match (random >> 8) % 50 {
            0 if path == "/add" && !fresh || path == "/read" => Duration::from_micros((random >> 16) % 3_000),
            _ => Duration::from_secs(600),
        };
        let Ok(response) = tokio::time::timeout(patience, call).await else {
            counts.dropped.fetch_add(1, Ordering::Relaxed);
            self.possible += u64::from(path == "/add");
            return;
        };
        let response = response.unwrap();
        if response.status() == 503 {
            counts.failed.fetch_add(1, Ordering::Relaxed);
            match path {
                "/add" if fresh => _ = counts.orphans.fetch_add(1, Ordering::Relaxed),
                "/add" => self.possible += 1,
                "/logout" | "/regenerate" => {
                    // Without a confirmation the client cannot rely on either: it begins anew.
                    counts.unclear.fetch_add(2, Ordering::Relaxed);
                    *self = Self::default();
                }
                _ => {}
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            return;
        }
        counts.succeeded.fetch_add(1, Ordering::Relaxed);
        self.jar.store(response.headers());
        if path == "/logout" {
            *self = Self::default();
            return;
        }
        self.confirmed += u64::from(path == "/add");
        let n: u64 = text(response).await.parse().expect("a session that no request ended is there");
        assert!((self.confirmed..=self.confirmed + self.possible).contains(&n), "{n} of {}", self.confirmed);
        (self.confirmed, self.possible) = (n, self.confirmed + self.possible - n);
    }
}

fn status(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values[values.len() / 2]
}

fn main() {
    let seconds = std::env::var("HYPER_SESSION_SOAK").map_or(600, |text| text.parse().expect("seconds"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(soak(Duration::from_secs(seconds)));
}

async fn soak(length: Duration) {
    let mut server = Server::with(&["--appendonly", "yes", "--appendfsync", "no"]);
    let (relay, url) = behind_relay(&server);
    let app = App::hurried(&url).await;
    let (stop, counts) = (Arc::new(AtomicBool::new(false)), Arc::new(Counts::default()));
    relay.cut_one_in(100);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (app, stop, counts) = (app.clone(), Arc::clone(&stop), Arc::clone(&counts));
            tokio::spawn(async move {
                let (mut client, mut random) = (Client::default(), number + 1);
                while !stop.load(Ordering::Relaxed) {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    client.step(&app, random >> 20, &counts).await;
                    // The events are not what is looked at here.
                    app.events.take();
                }
                client
            })
        })
        .collect();

    let (start, mut restarts, mut memory) = (Instant::now(), 0, Vec::new());
    let (mut next_restart, mut open) = (RESTART_EVERY, Vec::new());
    while start.elapsed() < length {
        tokio::time::sleep(Duration::from_secs(5)).await;
        if start.elapsed() >= next_restart {
            tokio::task::block_in_place(|| server.restart());
            restarts += 1;
            next_restart += RESTART_EVERY;
        }
        let (rss, fds) = (status("VmRSS"), descriptors());
        memory.push(rss);
        open.push(fds as u64);
        let stats = app.store.backend().stats();
        println!(
            "{:>4} s: {} requests, {} failed, {} dropped, {restarts} restarts, {} connections broken, {rss} kB, {fds} descriptors",
            start.elapsed().as_secs(),
            counts.succeeded.load(Ordering::Relaxed),
            counts.failed.load(Ordering::Relaxed),
            counts.dropped.load(Ordering::Relaxed),
            stats.connections_broken,
        );
        assert!(clients.iter().all(|client| !client.is_finished()), "a client found something wrong");
    }
    stop.store(true, Ordering::Relaxed);
    relay.cut_one_in(0);
    let mut live = 0;
    for client in clients {
        let mut client = client.await.unwrap();
        if client.jar.0.is_empty() {
            continue;
        }
        let n: u64 = app.recovers("/read", &mut client.jar).await.parse().expect("the session is there");
        assert!((client.confirmed..=client.confirmed + client.possible).contains(&n));
        live += 1;
    }
    app.until("the pool is idle", async || {
        let _ = app.visit("/read", &mut Jar::new()).await;
        let _ = app.visit("/add", &mut Jar::new()).await;
        let stats = app.store.backend().stats();
        counts.orphans.fetch_add(1, Ordering::Relaxed);
        stats.up && stats.connections == 2 && stats.idle_connections == 2
    })
    .await;
    println!("waiting for the marks of regenerated sessions to expire");
    tokio::time::sleep(MARKS_LAST).await;
    let keys: u64 = server.cli(&["DBSIZE"]).parse().unwrap();
    let (orphans, unclear) = (counts.orphans.load(Ordering::Relaxed), counts.unclear.load(Ordering::Relaxed));
    let third = memory.len() / 3;
    let (first, last) =
        (median(memory[..third.max(1)].to_vec()), median(memory[memory.len() - third.max(1)..].to_vec()));
    let (open_first, open_last) =
        (median(open[..third.max(1)].to_vec()), median(open[open.len() - third.max(1)..].to_vec()));
    println!(
        "{keys} keys, {live} live sessions, at most {orphans} whose token was lost and {unclear} whose end was not confirmed"
    );
    println!("memory {first} kB -> {last} kB, descriptors {open_first} -> {open_last}");
    println!("{:?}", app.store.backend().stats());
    assert!((live..=live + orphans + unclear).contains(&keys), "keys = live sessions");
    assert!(last < first + first / 5 + 4_096, "memory grows");
    assert!(open_last <= open_first + 8, "descriptors leak");
    println!("all is well");
}
