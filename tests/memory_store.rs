//! The memory of expired sessions: freed by the store's clock, at no request's cost.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub
)]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use hyper::service::Service;
use hyper_session::store::{Backend, EntryId, Memory, Stored};
use hyper_session::testing::{FakeClock, Faulty, with_session};
use hyper_session::{Clock, Error, MemoryStore, ServerStore, SessionHandle, session_fn};

use crate::support::block_on;

const IDLE: Duration = Duration::from_secs(600);

/// How long an entry is kept after it has expired, at the most.
const RETENTION: Duration = Duration::from_secs(15 * 60);

fn builder(clock: &FakeClock) -> hyper_session::store::Builder<Memory> {
    MemoryStore::builder().idle_timeout(IDLE).clock(clock.clone())
}

/// A request whose handler reads the user, and writes it again.
async fn user(store: &MemoryStore, request: Request<()>) -> Option<String> {
    let service = session_fn(store.clone(), |_: Request<()>, session: SessionHandle| async move {
        let session = session.load().await?;
        let user = session.get::<String>("user")?;
        session.set("visited", true)?;
        Ok::<_, Error>(Response::new(user))
    });
    service.call(request).await.unwrap().into_body()
}

/// Stores `count` entries that expire with the idle timeout.
fn fill(memory: &impl Backend, count: u32, now: &FakeClock) {
    let now = now.now();
    let expires = now.saturating_add(IDLE);
    block_on(async {
        for number in 0..count {
            let mut id = [0; 16];
            // Spread as hashes are.
            id[..4].copy_from_slice(&number.wrapping_mul(0x9e37_79b1).to_be_bytes());
            id[4..8].copy_from_slice(&number.to_be_bytes());
            let value = Bytes::copy_from_slice(&[7; 100]);
            assert!(memory.create(EntryId::from_bytes(id), Stored { value, expires }, now).await.unwrap());
        }
    });
}

fn has_entries(memory: &impl std::fmt::Debug, entries: usize) -> bool {
    format!("{memory:?}").contains(&format!("entries: {entries},"))
}

/// A clock that is moved without anyone being told, as the machine's clock is.
struct Silent(FakeClock);

impl Clock for Silent {
    fn now(&self) -> hyper_session::Timestamp {
        self.0.now()
    }
}

#[test]
fn expired_sessions_are_freed_without_a_request() {
    let clock = FakeClock::at(1_000_000);
    let store = builder(&clock).build().unwrap();
    fill(store.backend(), 20_000, &clock);
    block_on(with_session(Request::new(()), &store, |session| session.set("user", "ada"))).unwrap();
    clock.advance(IDLE.saturating_sub(Duration::from_secs(1)));
    let kept =
        block_on(with_session(Request::new(()), &store, |session| session.set("user", "bob"))).unwrap();
    // Only the clock moves. An expired entry is kept for a quarter of an hour, for requests that loaded it in time.
    let until_freed = IDLE + RETENTION;
    clock.advance(Duration::from_secs(1));
    for _ in 0..2 {
        assert_eq!(block_on(user(&store, kept.clone())).as_deref(), Some("bob"));
        clock.advance(RETENTION / 2);
    }
    assert!(has_entries(store.backend(), 1), "{:?}", store.backend());
    assert_eq!(block_on(user(&store, kept)).as_deref(), Some("bob"));
    // And again, after a while without any.
    clock.advance(until_freed);
    assert!(has_entries(store.backend(), 0), "{:?}", store.backend());
    fill(store.backend(), 100, &clock);
    clock.advance(until_freed);
    assert!(has_entries(store.backend(), 0), "{:?}", store.backend());
}

#[test]
fn shared_and_wrapped_memory_is_freed_too() {
    let clock = FakeClock::at(1_000_000);
    let shared = Arc::new(Memory::new());
    let one = ServerStore::with_backend(Arc::clone(&shared))
        .clock(clock.clone())
        .idle_timeout(IDLE)
        .build()
        .unwrap();
    let behind = FakeClock::at(1_000_000 - 120);
    let two = ServerStore::with_backend(Arc::clone(&shared))
        .clock(behind.clone())
        .idle_timeout(IDLE)
        .build()
        .unwrap();
    fill(one.backend(), 1_000, &clock);
    clock.advance(IDLE + RETENTION);
    behind.advance(IDLE + RETENTION + Duration::from_secs(120));
    assert!(has_entries(&shared, 0), "{shared:?}");
    drop((one, two));

    let faulty = Faulty::new(Memory::new());
    let store =
        ServerStore::with_backend(faulty.clone()).clock(clock.clone()).idle_timeout(IDLE).build().unwrap();
    fill(store.backend(), 1_000, &clock);
    clock.advance(IDLE + RETENTION);
    assert!(has_entries(&faulty, 0), "{faulty:?}");
}

/// The background thread frees what has expired by a clock that does not say when it moves.
#[test]
fn the_background_thread_frees_expired_sessions() {
    let clock = FakeClock::at(1_000_000);
    let store = builder(&clock).clock(Silent(clock.clone())).build().unwrap();
    fill(store.backend(), 20_000, &clock);
    clock.advance(IDLE + RETENTION);
    // The time limit is for a thread that never comes.
    let end = Instant::now() + Duration::from_secs(120);
    while !has_entries(store.backend(), 0) {
        assert!(Instant::now() < end, "{:?}", store.backend());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// One rule for all backends, however short the session: a request that loaded it in time has a quarter of an hour.
#[test]
fn an_entry_is_kept_for_a_quarter_of_an_hour_after_it_expired() {
    for lifetime in [1, 2, 60, 86_400] {
        let clock = FakeClock::at(1_000_000);
        let idle = Duration::from_secs(lifetime);
        let store = MemoryStore::builder().idle_timeout(idle).clock(clock.clone()).build().unwrap();
        block_on(with_session(Request::new(()), &store, |session| session.set("user", "ada"))).unwrap();
        clock.advance((idle + RETENTION).saturating_sub(Duration::from_secs(1)));
        assert!(has_entries(store.backend(), 1), "{lifetime} s");
        clock.advance(Duration::from_secs(1));
        assert!(has_entries(store.backend(), 0), "{lifetime} s");
    }
}

/// How long requests take while a million sessions expire. The numbers are printed, not judged:
/// `cargo test --release --features memory,testing --test memory_store -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn one_million_sessions_that_expire() {
    let clock = FakeClock::at(1_000_000);
    let store = builder(&clock).build().unwrap();
    let started = Instant::now();
    fill(store.backend(), 1_000_000, &clock);
    println!("created in {:?}, resident {} MB", started.elapsed(), resident());
    clock.advance(IDLE + RETENTION);
    let request =
        block_on(with_session(Request::new(()), &store, |session| session.set("user", "ada"))).unwrap();
    let expired = Instant::now();
    let (mut slowest, mut requests) = (Duration::ZERO, 0);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    while !format!("{:?}", store.backend()).contains("entries: 1,")
        && expired.elapsed() < Duration::from_secs(60)
    {
        let started = Instant::now();
        assert!(runtime.block_on(user(&store, request.clone())).is_some());
        slowest = slowest.max(started.elapsed());
        requests += 1;
    }
    println!("freed in {:?}; {requests} requests meanwhile, the slowest took {slowest:?}", expired.elapsed());
    // The freed memory belongs to the allocator, which keeps it for later.
    println!("resident {} MB", resident());
}

/// The memory of this process, in megabytes. Linux only.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}
