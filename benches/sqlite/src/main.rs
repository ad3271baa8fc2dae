//! Sessions in SQLite files on the disk, in WAL mode with `synchronous = FULL`: loading one, changing one value of it, and several
//! processes' worth of stores on one file. Prints one JSON object a line, then the ratios that count.
//!
//! `CARGO_TARGET_DIR=../target/sqlite cargo run --locked --release [-- [--quick] [--ours] [CASE]...]`, where a case is `load`, `beside`,
//! `change`, `commit` or `shared`; all of them by default. For the goal on one core: `taskset -c 1`, and `load`. `--ours` leaves
//! out the other arms, for a profiler.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hyper_session::store::{Backend, EntryId, Replaced, Stored};
use hyper_session::{SqliteStore, Timestamp};
use hyper_session_benches::services::{USER, VISITS, text};
use hyper_session_benches::stores::{Operation, StoreArm, median, operation, run};
use rusqlite::Connection;
use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use tower_sessions_core::SessionStore;
use tower_sessions_core::session::{Id, Record};

/// Sessions in each file, as many for each task.
const SESSIONS: usize = 157 * 64;
const TASKS: [usize; 2] = [1, 64];

#[tokio::main(worker_threads = 2)]
async fn main() {
    let (flags, cases): (Vec<_>, Vec<_>) =
        std::env::args().skip(1).partition(|argument| argument.starts_with("--"));
    let quick = flags.iter().any(|flag| flag == "--quick");
    let (rounds, duration) = if quick { (1, 0.05) } else { (7, 0.7) };
    let duration = Duration::from_secs_f64(duration);
    let wanted = |case: &str| cases.is_empty() || cases.iter().any(|wanted| wanted == case);
    // Beside the program, so on a disk: many systems have /tmp in memory.
    let folder = Folder::new();

    let only_ours = flags.iter().any(|flag| flag == "--ours");
    let mut arms = vec![ours(&folder, false).await];
    if !only_ours {
        arms.extend([ours(&folder, true).await, sqlx(&folder).await]);
    }
    for (case, of) in [("load", false), ("beside", false), ("change", true)] {
        if !wanted(case) {
            continue;
        }
        for tasks in TASKS {
            // While another connection commits all the time.
            let writes = (case == "beside").then(|| Background::start(&arms));
            let mut runs = vec![Vec::new(); arms.len()];
            let mut cpu = vec![Vec::new(); arms.len()];
            for round in 0..rounds {
                for place in (0..arms.len()).map(|turn| (turn + round) % arms.len()) {
                    let operation = if of { &arms[place].change } else { &arms[place].load };
                    let before = cpu_time();
                    let per_second = per_second(operation, tasks, duration).await;
                    cpu[place].push((cpu_time() - before) / (per_second * duration.as_secs_f64()) * 1e6);
                    runs[place].push(per_second);
                }
            }
            drop(writes);
            let medians: Vec<f64> = runs.iter().map(|runs| median(runs)).collect();
            let cpu: Vec<f64> = cpu.iter().map(|cpu| median(cpu)).collect();
            for ((arm, per_second), cpu) in arms.iter().zip(&medians).zip(&cpu) {
                println!(
                    "{}",
                    json!({ "case": case, "tasks": tasks, "arm": arm.name, "per_second": per_second.round(), "cpu_us": cpu })
                );
            }
            let peer = medians.len() - 1;
            println!(
                "# {case}, {tasks} tasks: hyper-session is {:.1} times {} ({:.1} by CPU time), {:.2} µs each, of CPU {:.2}",
                medians[0] / medians[peer],
                arms[peer].name,
                cpu[peer] / cpu[0],
                1e6 / medians[0],
                cpu[0],
            );
        }
    }
    drop(arms);
    if wanted("commit") {
        commits(&folder, rounds, duration).await;
    }
    if wanted("shared") {
        shared(&folder, if quick { duration } else { Duration::from_secs(5) }).await;
    }
}

fn print(case: &str, tasks: usize, arm: &str, per_second: f64) {
    println!("{}", json!({ "case": case, "tasks": tasks, "arm": arm, "per_second": per_second.round() }));
}

/// Seconds that the threads of this program have been running so far. Unlike the clock, that does not count the work of other programs.
fn cpu_time() -> f64 {
    let threads = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let nanos = threads.filter_map(|thread| {
        let schedstat = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        schedstat.split(' ').next()?.parse::<f64>().ok()
    });
    nanos.sum::<f64>() / 1e9
}

/// Returns how many operations a second `tasks` tasks do.
async fn per_second(operation: &Operation, tasks: usize, duration: Duration) -> f64 {
    let (done, seconds) = run(operation, tasks, SESSIONS, duration).await;
    done as f64 / seconds
}

/// Changes in each arm's file, one after another, until it is dropped.
struct Background(Arc<AtomicBool>);

impl Background {
    fn start(arms: &[StoreArm]) -> Self {
        let running = Arc::new(AtomicBool::new(true));
        for arm in arms {
            let (change, running) = (arm.change.clone(), running.clone());
            tokio::spawn(async move {
                let mut number = 0;
                while running.load(Ordering::Relaxed) {
                    change(number % SESSIONS).await;
                    number += 1;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            });
        }
        Self(running)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

async fn ours(folder: &Folder, off_runtime: bool) -> StoreArm {
    let name = if off_runtime { "hyper-session, 2 read threads" } else { "hyper-session" };
    let path = folder.file(if off_runtime { "ours-threads.db" } else { "ours.db" });
    let store = SqliteStore::builder(path).read_threads(if off_runtime { 2 } else { 0 }).open().unwrap();
    StoreArm::ours(name, store, SESSIONS).await
}

/// tower-sessions' store on sqlx. Changing is loading and saving, which loses an update where two come at once.
async fn sqlx(folder: &Folder) -> StoreArm {
    let options = SqliteConnectOptions::new()
        .filename(folder.file("sqlx.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(60));
    let pool = SqlitePoolOptions::new()
        .acquire_timeout(Duration::from_secs(60))
        .connect_with(options)
        .await
        .unwrap();
    let store = tower_sessions_sqlx_store::SqliteStore::new(pool);
    store.migrate().await.unwrap();
    let mut ids: Vec<Id> = Vec::new();
    for _ in 0..SESSIONS {
        let Value::Object(values) = json!({ "user": USER, "visits": VISITS, "text": text() }) else {
            unreachable!()
        };
        let mut record = Record {
            id: Id::default(),
            data: HashMap::from_iter(values),
            expiry_date: time::OffsetDateTime::now_utc() + time::Duration::days(1),
        };
        store.create(&mut record).await.unwrap();
        ids.push(record.id);
    }
    let (other, same) = (store.clone(), ids.clone());
    StoreArm {
        name: "tower-sessions-sqlx-store",
        load: operation(move |number| {
            let (store, id) = (store.clone(), ids[number]);
            async move { assert_eq!(store.load(&id).await.unwrap().unwrap().data["user"], USER) }
        }),
        change: operation(move |number| {
            let (store, id) = (other.clone(), same[number]);
            async move {
                let mut record = store.load(&id).await.unwrap().unwrap();
                let visits = record.data["visits"].as_u64().unwrap();
                record.data.insert("visits".to_owned(), json!(visits + 1));
                store.save(&record).await.unwrap();
            }
        }),
    }
}

/// Compare-and-set of 300 bytes by 64 tasks, durable: grouped by the store, and one commit each over bare SQLite.
async fn commits(folder: &Folder, rounds: usize, duration: Duration) {
    let store = SqliteStore::builder(folder.file("grouped.db")).open().unwrap();
    let values = Arc::new(Mutex::new(vec![entry(0); SESSIONS]));
    for number in 0..256 {
        assert!(store.backend().create(id(number), entry(0), NOW).await.unwrap());
    }
    let grouped = {
        let store = store.clone();
        operation(move |number| {
            let (store, values, number) = (store.clone(), values.clone(), number % 64);
            async move {
                let expected = values.lock().unwrap()[number].clone();
                let next = entry(count(&expected.value) + 1);
                let replaced =
                    store.backend().replace(id(number), expected.value, Some(next.clone()), NOW).await;
                assert_eq!(replaced.unwrap(), Replaced::Done);
                values.lock().unwrap()[number] = next;
            }
        })
    };
    let bare = Arc::new(Mutex::new(bare(&folder.file("one-each.db"))));
    let one_each = operation(move |number| {
        let bare = bare.clone();
        async move { compare_and_set(&bare.lock().unwrap(), number % 64) }
    });
    let mut runs = [Vec::new(), Vec::new()];
    let before = store.backend().stats();
    for _ in 0..rounds {
        runs[0].push(per_second(&grouped, 64, duration).await);
        runs[1].push(per_second(&one_each, 64, duration).await);
    }
    let after = store.backend().stats();
    let medians = runs.map(|runs| median(&runs));
    print("commit", 64, "hyper-session", medians[0]);
    print("commit", 64, "bare SQLite, one commit each", medians[1]);
    println!(
        "# commit, 64 tasks: {:.1} changes a commit, {:.1} times one commit each",
        (after.changes - before.changes) as f64 / (after.commits - before.commits) as f64,
        medians[0] / medians[1],
    );
}

/// How long writers wait that share a file: four stores with 16 tasks each, as four processes would, and four connections with only
/// `busy_timeout`.
async fn shared(folder: &Folder, duration: Duration) {
    let path = folder.file("shared.db");
    let stores: Vec<_> = (0..4).map(|_| SqliteStore::builder(&path).open().unwrap()).collect();
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..64 {
        let store = stores[number % 4].clone();
        tasks.spawn(async move {
            let mut waits = Vec::new();
            let mut value = entry(0);
            assert!(store.backend().create(id(number), value.clone(), NOW).await.unwrap());
            while start.elapsed() < duration {
                let next = entry(count(&value.value) + 1);
                let asked = Instant::now();
                let replaced =
                    store.backend().replace(id(number), value.value, Some(next.clone()), NOW).await;
                assert_eq!(replaced.unwrap(), Replaced::Done);
                waits.push(asked.elapsed());
                value = next;
            }
            waits
        });
    }
    waits("four stores", tasks.join_all().await, duration);

    let path = folder.file("busy.db");
    drop(bare(&path));
    let threads: Vec<_> = (0..4)
        .map(|number| {
            let path = path.clone();
            std::thread::spawn(move || {
                let connection = open(&path);
                let (start, mut waits) = (Instant::now(), Vec::new());
                while start.elapsed() < duration {
                    let asked = Instant::now();
                    compare_and_set(&connection, number);
                    waits.push(asked.elapsed());
                }
                waits
            })
        })
        .collect();
    waits(
        "four connections with busy_timeout",
        threads.into_iter().map(|thread| thread.join().unwrap()).collect(),
        duration,
    );
}

fn waits(arm: &str, waits: Vec<Vec<Duration>>, duration: Duration) {
    let mut waits: Vec<_> = waits.into_iter().flatten().collect();
    waits.sort();
    let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    print("shared", 64, arm, waits.len() as f64 / duration.as_secs_f64());
    println!(
        "# shared, {arm}: waits of {:.2} ms (median), {:.1} (99 %), {:.1} (longest)",
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

/// A table as the crate's, of 256 entries.
fn bare(path: &Path) -> Connection {
    let connection = open(path);
    connection
        .execute_batch(
            "CREATE TABLE entries (id BLOB PRIMARY KEY, expires INTEGER, value BLOB) WITHOUT ROWID",
        )
        .unwrap();
    for number in 0..256 {
        let sql = "INSERT INTO entries VALUES (?1, 0, ?2)";
        connection.execute(sql, (&id(number).to_bytes()[..], &entry(0).value[..])).unwrap();
    }
    connection
}

fn open(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.busy_timeout(Duration::from_secs(60)).unwrap();
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL").unwrap();
    connection
}

fn compare_and_set(connection: &Connection, number: usize) {
    let id = id(number).to_bytes();
    connection.prepare_cached("BEGIN IMMEDIATE").unwrap().execute([]).unwrap();
    let value: Vec<u8> = connection
        .prepare_cached("SELECT value FROM entries WHERE id = ?1")
        .unwrap()
        .query_row([&id[..]], |row| row.get(0))
        .unwrap();
    connection
        .prepare_cached("UPDATE entries SET value = ?2 WHERE id = ?1")
        .unwrap()
        .execute((&id[..], &entry(count(&value) + 1).value[..]))
        .unwrap();
    connection.prepare_cached("COMMIT").unwrap().execute([]).unwrap();
}

const NOW: Timestamp = Timestamp::from_unix(1_800_000_000);

/// Spread over the table, as hashes are.
fn id(number: usize) -> EntryId {
    EntryId::from_bytes(
        (number as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834).to_be_bytes(),
    )
}

/// 300 bytes that begin with a count.
fn entry(count: u64) -> Stored {
    let mut value = count.to_be_bytes().to_vec();
    value.resize(300, 7);
    Stored { value: value.into(), expires: NOW.saturating_add(Duration::from_secs(86_400)) }
}

fn count(value: &[u8]) -> u64 {
    u64::from_be_bytes(*value.first_chunk().unwrap())
}

/// A folder that ends with this program.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let beside = std::env::current_exe().unwrap();
        let path = beside.parent().unwrap().join(format!("sqlite-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
