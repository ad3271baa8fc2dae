//! Processes that are killed lose nothing that they acknowledged, leave nothing half done, and hold up no other process.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hyper_session::SqliteStore;
use hyper_session::store::{Backend, EntryId};
use rusqlite::Connection;

use crate::child::{COUNTER, Process, counted};
use crate::contract::block_on;
use crate::folder::{Folder, NOW, id};

/// The steps of a task on its entry, over and over: create, replace four times, delete; then the same with a new one.
pub(crate) enum Step {
    Create,
    Replace,
    Delete,
}

const STEPS: u64 = 6;

pub(crate) fn step(index: u64) -> (u64, Step) {
    let step = match index % STEPS {
        0 => Step::Create,
        5 => Step::Delete,
        _ => Step::Replace,
    };
    (index / STEPS, step)
}

pub(crate) fn entry_id(process: u64, task: u64, generation: u64) -> EntryId {
    EntryId::from_bytes(
        ((u128::from(process) << 96) | (u128::from(task) << 64) | u128::from(generation)).to_be_bytes(),
    )
}

/// The value that step `index` writes: up to 3,000 bytes, of which each follows from the index, so that halves of two would show.
pub(crate) fn content(index: u64) -> Bytes {
    let len = usize::try_from(index.wrapping_mul(7_919) % 3_000).unwrap();
    let mut bytes = index.to_be_bytes().to_vec();
    let mut state = index;
    bytes.extend((0..len).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    }));
    bytes.into()
}

/// A process that is or was writing, and what it has acknowledged.
struct Writer {
    process: Process,
    number: u64,
    /// By task: the last step.
    done: [Option<u64>; 4],
    counted: u64,
}

impl Writer {
    fn start(folder: &Folder, number: u64) -> Self {
        let process = Process::start("write until killed", &folder.file(), number);
        Self { process, number, done: [None; 4], counted: 0 }
    }

    /// Takes in one acknowledgement. False if there are no more.
    fn hear(&mut self) -> bool {
        let Some(line) = self.process.line() else { return false };
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["counted"] => self.counted += 1,
            ["done", task, index] => {
                let task: usize = task.parse().unwrap();
                let index = index.parse().unwrap();
                assert_eq!(self.done[task].map_or(0, |last| last + 1), index);
                self.done[task] = Some(index);
            }
            _ => panic!("{line}"),
        }
        true
    }

    /// Ends it, takes in what it had said before, and looks whether all of that is in the file.
    fn kill_and_check(&mut self, store: &SqliteStore, seed: u64) {
        self.process.kill();
        while self.hear() {}
        for (task, done) in (0..).zip(self.done) {
            // The step after the last one that was acknowledged may have been done.
            let next = done.map_or(0, |last| last + 1);
            let found = |index: u64| {
                let id = entry_id(self.number, task, index / STEPS);
                block_on(store.backend().fetch(id, NOW)).unwrap().map(|stored| stored.value)
            };
            let as_after = |index: u64| {
                let is_deleted = matches!(step(index).1, Step::Delete);
                found(index) == (!is_deleted).then(|| content(index))
            };
            let right = match done {
                None => found(0).is_none_or(|value| value == content(0)),
                Some(done) => {
                    as_after(done) && (next % STEPS != 0 || found(next).is_none()) || as_after(next)
                }
            };
            assert!(right, "process {}, task {task}: {done:?} was acknowledged; seed {seed}", self.number);
            // Deleted entries did not come back.
            for generation in (next / STEPS).saturating_sub(3)..(next / STEPS) {
                assert_eq!(found(generation * STEPS), None, "generation {generation}; seed {seed}");
            }
        }
    }
}

#[test]
fn processes_that_are_killed_at_random_moments_lose_nothing_and_tear_nothing() {
    let kills: u64 = std::env::var("HYPER_SESSION_KILLS").map_or(24, |kills| kills.parse().unwrap());
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos().into();
    let mut state = seed;
    let mut random = move |below: u64| {
        state = u64::wrapping_mul(state, 6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let folder = Folder::new();
    let mut acknowledged = 0;
    let (mut counted_by_all, mut killed) = (0, 0);
    while killed < kills {
        let (number, other) = (killed + 1, killed + 2);
        let mut writers = [Writer::start(&folder, number), Writer::start(&folder, other)];
        let first = usize::try_from(random(2)).unwrap();
        for _ in 0..=random(100) {
            assert!(writers[first].hear());
        }
        std::thread::sleep(Duration::from_micros(random(3_000)));
        // Opened after the first has died, as by the process that replaces it, or long before.
        let before = (random(2) == 0).then(|| folder.store());
        writers[first].process.kill();
        let store = before.unwrap_or_else(|| folder.store());
        writers[first].kill_and_check(&store, seed);
        // The other one goes on, whatever the first was doing.
        let survivor = 1 - first;
        for _ in 0..20 + random(50) {
            assert!(writers[survivor].hear(), "the other process has stopped; seed {seed}");
        }
        std::thread::sleep(Duration::from_micros(random(3_000)));
        writers[survivor].kill_and_check(&store, seed);
        killed += 2;
        counted_by_all += writers.iter().map(|writer| writer.counted).sum::<u64>();
        acknowledged +=
            writers.iter().flat_map(|writer| writer.done).flatten().map(|last| last + 1).sum::<u64>();
        let value = block_on(store.backend().fetch(id(COUNTER), NOW)).unwrap();
        let value = value.map_or(0, |stored| counted(&stored.value));
        // Each that was killed may have added one more, without saying so.
        assert!(
            (counted_by_all..=counted_by_all + killed).contains(&value),
            "{value} of {counted_by_all}; seed {seed}"
        );
    }
    let file = Connection::open(folder.file()).unwrap();
    let verdict: String = file.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
    println!(
        "{killed} processes killed, {} writes acknowledged, all there; seed {seed}",
        acknowledged + counted_by_all
    );
    assert!(acknowledged > kills, "they were killed while they wrote");
}
