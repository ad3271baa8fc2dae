//! The deletion of expired entries: its margins, its small steps, and clocks that differ.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use proptest::prelude::*;

use super::super::schema::{open_writer, seconds};
use super::super::synchronous::Synchronous;
use super::super::writer::{Step, Write};
use super::*;
use crate::store::Stored;

/// A separate database, removed at the end.
struct Database {
    connection: Option<Connection>,
    path: PathBuf,
}

impl Database {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("hyper-session-sweep-{}-{number}.db", std::process::id()));
        std::fs::File::create_new(&path).unwrap();
        let connection = open_writer(&path, Synchronous::Normal, Duration::from_secs(5), 1_000).unwrap();
        Self { connection: Some(connection), path }
    }

    fn connection(&self) -> &Connection {
        self.connection.as_ref().unwrap()
    }

    /// An entry that was written at `now`, by the clock of its writer, and `machine`.
    fn insert(&self, id: u64, now: u64, machine: u64, lifetime: u64) {
        let sweep = period_after(at(machine), Duration::from_secs(lifetime));
        let expires = seconds(at(now).saturating_add(Duration::from_secs(lifetime)));
        let sql = "INSERT OR REPLACE INTO entries (id, expires, sweep, value) VALUES (?1, ?2, ?3, x'')";
        self.connection().execute(sql, (id.to_be_bytes(), expires, sweep)).unwrap();
    }

    fn step(&self, callers: u64, machine: u64) -> Swept {
        Sweep::prepare(self.connection()).unwrap().step(at(callers), at(machine)).unwrap()
    }

    fn ids(&self) -> Vec<u64> {
        let mut statement = self.connection().prepare("SELECT id FROM entries ORDER BY id").unwrap();
        let ids = statement.query_map([], |row| row.get::<_, [u8; 8]>(0)).unwrap();
        ids.map(|id| u64::from_be_bytes(id.unwrap())).collect()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.connection = None;
        let _ = std::fs::remove_file(&self.path);
    }
}

fn at(moment: u64) -> Timestamp {
    Timestamp::from_unix(moment)
}

const NOW: u64 = 1_800_000_000;

#[test]
fn an_expired_entry_is_deleted_after_a_margin_and_a_live_one_is_not() {
    let database = Database::new();
    database.insert(1, NOW, NOW, 60);
    database.insert(2, NOW, NOW, 86_400);
    for later in [0, 60, 60 + PERIOD - 1] {
        assert_eq!(database.step(NOW + later, NOW + later), Swept { deleted: 0, more: false }, "{later}");
    }
    let later = NOW + 60 + 3 * PERIOD;
    assert_eq!(database.step(later, later), Swept { deleted: 1, more: false });
    assert_eq!(database.ids(), [2]);
}

#[test]
fn a_step_is_small_and_says_that_there_is_more() {
    let database = Database::new();
    let many = u64::try_from(STEP).unwrap() + 10;
    for id in 0..many {
        database.insert(id, NOW, NOW, 1);
    }
    let later = NOW + 10 * PERIOD;
    assert_eq!(database.step(later, later), Swept { deleted: 256, more: true });
    assert_eq!(database.step(later, later), Swept { deleted: 10, more: false });
}

#[test]
fn entries_of_a_clock_far_in_the_past_are_not_deleted_by_the_machines() {
    let database = Database::new();
    // A test whose clock stands at the first day of 1970.
    database.insert(1, 1_000, NOW, 600);
    assert_eq!(database.step(NOW, NOW).deleted, 0, "though it looks expired since decades");
    // Its own process, later: its clock did not move.
    let later = NOW + 10 * PERIOD;
    assert_eq!(database.step(1_000, later).deleted, 0);
    assert_eq!(database.step(NOW, later).deleted, 0, "what is left of its lifetime was given again");
    assert_eq!(database.ids(), [1]);
}

#[test]
fn a_clock_far_in_the_future_deletes_no_entry_of_others() {
    let database = Database::new();
    database.insert(1, NOW, NOW, 600);
    assert_eq!(database.step(u64::MAX, NOW).deleted, 0);
    assert_eq!(database.ids(), [1]);
}

#[test]
fn moments_at_the_ends_of_time_do_not_overflow() {
    assert_eq!(period_after(Timestamp::MAX, Duration::MAX), i64::try_from(u64::MAX / PERIOD + 2).unwrap());
    assert_eq!(period_after(at(0), Duration::ZERO), 2);
    let mut never = Schedule::new(Duration::MAX);
    never.saw(at(1));
    assert_eq!(never.due(), None);
}

#[test]
fn a_step_is_due_after_writes_and_takes_the_earliest_time_of_theirs() {
    let mut schedule = Schedule::new(Duration::ZERO);
    assert_eq!(schedule.due(), None, "nothing was written, so no clock is known");
    for moment in [30, 10, 20] {
        schedule.saw(at(moment));
    }
    assert_eq!(schedule.due(), Some(at(10)));
    schedule.done(true);
    assert_eq!(schedule.due(), Some(at(10)), "the same, until all is done");
    schedule.done(false);
    assert_eq!(schedule.due(), None);
}

// A session that has expired is ended as of 1970. By that time no entry has expired.
#[test]
fn a_deletion_does_not_tell_the_time() {
    let time = |step| Write { id: [1; 16], step }.callers_time();
    let (expected, entry) = (Bytes::new(), Stored { value: Bytes::new(), expires: at(NOW) });
    assert_eq!(time(Step::DeleteIf { expected: expected.clone(), now: at(0) }), None);
    assert_eq!(time(Step::Delete), None);
    for step in [
        Step::Create { entry: entry.clone(), now: at(7) },
        Step::Replace { expected, entry, now: at(7) },
        Step::Touch { expires: at(NOW), now: at(7) },
    ] {
        assert_eq!(time(step), Some(at(7)));
    }
}

#[derive(Clone, Debug)]
enum Event {
    Write { id: u64, process: usize, lifetime: u64 },
    Sweep { process: usize },
    Pass { seconds: u64 },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0..8_u64, 0..3_usize, 0..5 * PERIOD).prop_map(|(id, process, lifetime)| Event::Write {
            id,
            process,
            lifetime
        }),
        (0..3_usize).prop_map(|process| Event::Sweep { process }),
        (0..2 * PERIOD).prop_map(|seconds| Event::Pass { seconds }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Processes whose clocks are years apart share a file: whichever process sweeps, an entry lives as long as its
    /// writer intended.
    #[test]
    fn no_live_entry_is_ever_deleted_whatever_the_clocks(
        clocks in [0..2 * NOW, 0..2 * NOW, NOW..NOW + 1],
        events in prop::collection::vec(event(), 1..60),
    ) {
        let database = Database::new();
        let mut passed = 0;
        // By id: the machine's moment at which the entry has expired.
        let mut written = std::collections::BTreeMap::new();
        for event in events {
            match event {
                Event::Write { id, process, lifetime } => {
                    database.insert(id, clocks[process] + passed, NOW + passed, lifetime);
                    written.insert(id, passed + lifetime);
                }
                Event::Sweep { process } => {
                    database.step(clocks[process] + passed, NOW + passed);
                    let ids = database.ids();
                    for (id, expired) in &written {
                        prop_assert!(ids.contains(id) || *expired <= passed, "{id} at {passed}: {expired}");
                    }
                }
                Event::Pass { seconds } => passed += seconds,
            }
        }
        // And in the end, it is gone.
        passed += LATER.as_secs() + 10 * PERIOD;
        database.step(2 * NOW + passed, NOW + passed);
        prop_assert_eq!(database.ids(), Vec::<u64>::new());
    }
}
