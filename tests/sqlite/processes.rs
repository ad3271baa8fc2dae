//! Processes that share a file lose none of each other's changes.

use hyper_session::store::Backend;

use crate::child::{COUNTER, COUNTS, Process, counted};
use crate::contract::block_on;
use crate::folder::{Folder, NOW, id};

#[test]
fn three_processes_that_count_together_lose_no_count() {
    let folder = Folder::new();
    let processes = [1, 2, 3].map(|number| Process::start("count", &folder.file(), number));
    for process in processes {
        process.succeeds();
    }
    let store = folder.store();
    let stored = block_on(store.backend().fetch(id(COUNTER), NOW)).unwrap().unwrap();
    assert_eq!(counted(&stored.value), 3 * COUNTS);
}
