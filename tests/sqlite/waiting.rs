//! Waiting has an end: another process that holds a lock, a disk that hangs, and too many calls.

use std::fs::{File, OpenOptions};
use std::time::Duration;

use hyper_session::store::{Backend, Replaced};
use hyper_session::{Clock, SqliteStore, SystemClock, Timestamp};
use rusqlite::Connection;
use rustix::fs::{FlockOperation, flock};

use crate::contract::block_on;
use crate::folder::{Folder, NOW, entry, id, said};

/// Holds the lock between processes, as a process does that is in the middle of a commit, or hangs in it.
pub(crate) struct OtherProcess(File);

impl OtherProcess {
    pub(crate) fn writing(folder: &Folder) -> Self {
        let path = folder.path().join("sessions.db-lock");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap();
        flock(&file, FlockOperation::LockExclusive).unwrap();
        Self(file)
    }
}

impl Drop for OtherProcess {
    fn drop(&mut self) {
        flock(&self.0, FlockOperation::Unlock).unwrap();
    }
}

/// So short that a test can wait for it. A busy machine may neither open a file nor write in this time: what must succeed is done by
/// [`Folder::store`], or tried until it succeeds.
const SHORT: Duration = Duration::from_millis(50);

/// Opens a store, however often that takes longer than [`SHORT`].
fn open_in_the_end(folder: &Folder) -> SqliteStore {
    loop {
        if let Ok(store) = folder.builder().busy_timeout(SHORT).open() {
            return store;
        }
    }
}

/// Creates an entry, however often a write takes longer than [`SHORT`].
fn create_in_the_end(backend: &impl Backend, number: u64, value: &'static str) {
    while block_on(backend.create(id(number), entry(value), NOW)).is_err() {}
    assert_eq!(block_on(backend.fetch(id(number), NOW)).unwrap(), Some(entry(value)));
}

#[test]
fn a_write_that_cannot_be_done_in_time_is_unavailable_and_reads_go_on() {
    let folder = Folder::new();
    let patient = folder.store();
    block_on(patient.backend().create(id(1), entry("here"), NOW)).unwrap();
    let store = open_in_the_end(&folder);
    let backend = store.backend();
    let hung = OtherProcess::writing(&folder);
    for _ in 0..2 {
        let error = block_on(backend.delete(id(1))).unwrap_err();
        assert!(error.is_unavailable() && said(&error).contains("in time"), "{error:?}");
        assert_eq!(block_on(backend.fetch(id(1), NOW)).unwrap(), Some(entry("here")));
    }
    drop(hung);
    // The deletion that was on its way may have happened meanwhile.
    create_in_the_end(backend, 2, "two");
}

#[test]
fn opening_and_closing_do_not_wait_for_ever_either() {
    let folder = Folder::new();
    let _made = folder.store();
    let store = open_in_the_end(&folder);
    let hung = OtherProcess::writing(&folder);
    let error = folder.builder().busy_timeout(SHORT).open().unwrap_err();
    assert!(error.is_unavailable() && said(&error).contains("in time"), "{error:?}");
    assert!(block_on(store.backend().delete(id(1))).unwrap_err().is_unavailable());
    drop(store);
    drop(hung);
    block_on(folder.store().backend().create(id(1), entry("one"), NOW)).unwrap();
}

#[test]
fn a_file_that_another_program_has_locked_is_unavailable_until_it_is_not() {
    let folder = Folder::new();
    let _made = folder.store();
    let store = open_in_the_end(&folder);
    let backend = store.backend();
    // An administrator's shell, which knows nothing of our lock.
    let shell = Connection::open(folder.file()).unwrap();
    shell.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = block_on(backend.create(id(1), entry("one"), NOW)).unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    assert_eq!(block_on(backend.fetch(id(1), NOW)).unwrap(), None);
    let error = folder.builder().busy_timeout(SHORT).open().unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    shell.execute_batch("COMMIT").unwrap();
    create_in_the_end(backend, 2, "two");
}

#[test]
fn calls_beyond_the_bound_are_refused_at_once() {
    let folder = Folder::new();
    let store = folder.store();
    let hung = OtherProcess::writing(&folder);
    let backend = store.backend();
    let value = vec![1; 1 << 20];
    let mut waiting = Vec::new();
    let refused = loop {
        assert!(waiting.len() < 100, "each holds a MiB");
        let mut create = Box::pin(backend.create(id(waiting.len() as u64), entry(value.clone()), NOW));
        let polled = create.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
        match polled {
            std::task::Poll::Ready(refused) => break refused.unwrap_err(),
            std::task::Poll::Pending => waiting.push(create),
        }
    };
    assert!(refused.is_unavailable() && said(&refused).contains("too many"), "{refused:?}");
    drop(hung);
    for create in waiting {
        assert!(block_on(create).unwrap());
    }
    assert!(block_on(backend.create(id(1_000), entry(value), NOW)).unwrap());
}

#[test]
fn expired_entries_are_deleted_beside_writes() {
    let folder = Folder::new();
    let store = folder.builder().sweep_interval(Duration::from_nanos(1)).open().unwrap();
    let backend = store.backend();
    // Written by a process whose clock was hours behind, so that they are due at once.
    let now = SystemClock.now();
    let shell = Connection::open(folder.file()).unwrap();
    for number in 0..600_u64 {
        let id = id(number).to_bytes();
        let expires = i64::try_from(now.as_unix() - 60).unwrap();
        shell.execute("INSERT INTO entries VALUES (?1, ?2, 0, x'00')", (&id[..], expires)).unwrap();
    }
    // Such a call ends a session. It asks whether an entry has expired as of 1970, which is not the time.
    let ended = backend.replace(id(2_000), "none".into(), None, Timestamp::from_unix(0));
    assert_eq!(block_on(ended).unwrap(), Replaced::Missing);
    for number in 1_000..1_003 {
        let expires = now.saturating_add(Duration::from_secs(60));
        let entry = hyper_session::store::Stored { expires, ..entry("alive") };
        assert!(block_on(backend.create(id(number), entry, now)).unwrap());
    }
    let left = || shell.query_row("SELECT count(*) FROM entries", [], |row| row.get::<_, i64>(0)).unwrap();
    let start = std::time::Instant::now();
    // They are counted behind their commit.
    while left() > 3 || backend.stats().swept < 600 {
        assert!(start.elapsed() < Duration::from_secs(60), "{} are left", left());
        std::thread::sleep(Duration::from_millis(5));
    }
    for number in 1_000..1_003 {
        assert!(block_on(backend.fetch(id(number), now)).unwrap().is_some());
    }
    assert_eq!(backend.stats().swept, 600);
}
