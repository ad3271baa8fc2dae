//! A backup by `VACUUM INTO` while the store is in use, as the guide says.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hyper_session::SqliteStore;
use hyper_session::store::Backend;
use rusqlite::Connection;

use crate::contract::block_on;
use crate::folder::{Folder, NOW, UNHURRIED, entry, id};

#[test]
fn a_backup_beside_a_writer_ends_and_holds_one_state() {
    let folder = Folder::new();
    let store = folder.store();
    let (acknowledged, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                let next = acknowledged.load(Ordering::SeqCst) + 1;
                assert!(block_on(store.backend().create(id(next), entry(next.to_string()), NOW)).unwrap());
                acknowledged.store(next, Ordering::SeqCst);
            }
        });
        let other = Connection::open(folder.file()).unwrap();
        for number in 0..3 {
            // The writer goes on between the copies.
            let before = acknowledged.load(Ordering::SeqCst);
            while acknowledged.load(Ordering::SeqCst) < before + 50 {
                std::thread::yield_now();
            }
            let known = acknowledged.load(Ordering::SeqCst);
            let path = folder.path().join(format!("copy-{number}.db"));
            other.execute("VACUUM INTO ?1", [path.to_str().unwrap()]).unwrap();
            let copy = SqliteStore::builder(&path).busy_timeout(UNHURRIED).development().open().unwrap();
            let has = |number| {
                let found = block_on(copy.backend().fetch(id(number), NOW)).unwrap();
                found.inspect(|found| assert_eq!(found.value, number.to_string())).is_some()
            };
            assert!((1..=known).all(has), "what was acknowledged before is in copy {number}");
            let mut last = known;
            while has(last + 1) {
                last += 1;
            }
            assert!((last + 1..last + 100).all(|later| !has(later)), "copy {number} has no gap");
        }
        stop.store(true, Ordering::SeqCst);
    });
}
