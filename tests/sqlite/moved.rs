//! A file that is moved, replaced or deleted while it is open: a later process would find another file at its path.

use std::fs;
use std::time::{Duration, Instant};

use hyper_session::Error;
use hyper_session::store::{Backend, Stored};

use crate::contract::block_on;
use crate::folder::{Folder, NOW, entry, id, said};

fn is_moved(error: &Error) -> bool {
    error.is_unavailable() && said(error).contains("was moved, replaced or deleted")
}

/// Reads until the read fails. The limit only tells "late" from "never".
fn failed_read(backend: &impl Backend) -> Error {
    let start = Instant::now();
    loop {
        match block_on(backend.fetch(id(1), NOW)) {
            Err(error) => return error,
            Ok(_) => assert!(start.elapsed() < Duration::from_secs(60), "reads go on"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn nothing_is_acknowledged_that_a_later_process_would_not_find() {
    for threads in [0, 1] {
        let folder = Folder::new();
        let store = folder.builder().read_threads(threads).open().unwrap();
        let backend = store.backend();
        let fetch = || block_on(backend.fetch(id(1), NOW)).map(|found: Option<Stored>| found.is_some());
        assert!(block_on(backend.create(id(1), entry("here"), NOW)).unwrap());
        assert!(fetch().unwrap());

        let elsewhere = folder.path().join("elsewhere.db");
        fs::rename(folder.file(), &elsewhere).unwrap();
        assert!(is_moved(&block_on(backend.delete(id(1))).unwrap_err()));
        assert!(is_moved(&block_on(backend.create(id(2), entry("lost"), NOW)).unwrap_err()));
        let stats = backend.stats();
        assert_eq!((stats.changes, stats.failures), (1, 2));
        assert!(is_moved(&failed_read(backend)));

        fs::write(folder.file(), "another file").unwrap();
        assert!(is_moved(&block_on(backend.delete(id(1))).unwrap_err()));
        assert!(is_moved(&failed_read(backend)));

        fs::rename(&elsewhere, folder.file()).unwrap();
        assert!(fetch().unwrap(), "it is back, and nothing was written meanwhile");
        assert_eq!(block_on(backend.fetch(id(2), NOW)).unwrap(), None);
        block_on(backend.delete(id(1))).unwrap();
        assert!(!fetch().unwrap());

        fs::remove_file(folder.file()).unwrap();
        assert!(is_moved(&block_on(backend.create(id(3), entry("lost"), NOW)).unwrap_err()));
        assert!(is_moved(&failed_read(backend)));
    }
}

/// The last changes are in the write-ahead log. A process that opens the file after its deletion finds none of them, and with
/// another index of it, two processes would write over each other.
#[test]
fn a_write_ahead_log_that_is_deleted_or_replaced_is_noticed() {
    for suffix in ["-wal", "-shm"] {
        let folder = Folder::new();
        let store = folder.store();
        let backend = store.backend();
        let log = folder.path().join(format!("sessions.db{suffix}"));
        assert!(block_on(backend.create(id(1), entry("here"), NOW)).unwrap());

        let elsewhere = folder.path().join("elsewhere");
        fs::rename(&log, &elsewhere).unwrap();
        assert!(is_moved(&block_on(backend.delete(id(1))).unwrap_err()), "{suffix}");
        assert!(is_moved(&failed_read(backend)), "{suffix}");
        fs::copy(&elsewhere, &log).unwrap();
        assert!(is_moved(&block_on(backend.delete(id(1))).unwrap_err()), "{suffix}");

        fs::rename(&elsewhere, &log).unwrap();
        block_on(backend.delete(id(1))).unwrap();
        assert_eq!(block_on(backend.fetch(id(1), NOW)).unwrap(), None);

        fs::remove_file(&log).unwrap();
        assert!(is_moved(&block_on(backend.create(id(2), entry("lost"), NOW)).unwrap_err()), "{suffix}");
    }
}
