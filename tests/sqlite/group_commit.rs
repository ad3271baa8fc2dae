//! Changes that came in together are one transaction, and a change that fails does not fail the others.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use hyper_session::SqliteStore;
use hyper_session::store::sqlite::Synchronous;
use hyper_session::store::{Backend, Replaced};

use crate::contract::block_on;
use crate::folder::{Folder, NOW, entry, id};
use crate::waiting::OtherProcess;

/// Polls each future once. While another process writes, none is ready after that.
pub(crate) fn start<F: Future + Unpin>(futures: &mut [F]) {
    for future in futures {
        assert!(matches!(pin!(future).poll(&mut Context::from_waker(Waker::noop())), Poll::Pending));
    }
}

fn commits(store: &SqliteStore) -> u64 {
    store.backend().stats().commits
}

#[test]
fn changes_that_came_in_together_share_a_commit() {
    let folder = Folder::new();
    let store = folder.store();
    let other = OtherProcess::writing(&folder);
    let backend = store.backend();
    let mut creates: Vec<_> =
        (0..64).map(|number| Box::pin(backend.create(id(number), entry(vec![1; 300]), NOW))).collect();
    start(&mut creates);
    assert_eq!(commits(&store), 0, "another process writes");
    drop(other);
    for create in creates {
        assert!(block_on(create).unwrap());
    }
    // The first may have been in a group of its own.
    assert!(commits(&store) <= 2, "{}", commits(&store));
    assert_eq!(store.backend().stats().changes, 64);
}

/// If it were copied too rarely, it would take the room of the disk. If it were copied after each change, changes would be slow.
#[test]
fn the_write_ahead_log_is_copied_back_after_a_thousand_changes() {
    let folder = Folder::new();
    let store = folder.builder().synchronous(Synchronous::Normal).open().unwrap();
    let log = || std::fs::metadata(folder.path().join("sessions.db-wal")).unwrap().len();
    let create = |number| {
        assert!(block_on(store.backend().create(id(number), entry(vec![1; 300]), NOW)).unwrap());
    };
    (0..900).for_each(create);
    let before = log();
    assert!(before > 900 * 4_096, "each change is in it: {before}");
    (900..4_000).for_each(create);
    assert!(log() < 3 * before, "it began again: {} after {before}", log());
}

#[test]
fn within_a_group_each_step_sees_those_before_it() {
    let folder = Folder::new();
    let store = folder.store();
    let backend = store.backend();
    let other = OtherProcess::writing(&folder);
    let (one, two, three) = (entry("one"), entry("two"), entry("three"));
    let mut create = Box::pin(backend.create(id(1), one.clone(), NOW));
    let mut again = Box::pin(backend.create(id(1), two.clone(), NOW));
    let mut replace = Box::pin(backend.replace(id(1), one.value.clone(), Some(two.clone()), NOW));
    let mut late = Box::pin(backend.replace(id(1), one.value.clone(), Some(three.clone()), NOW));
    let mut delete = Box::pin(backend.delete(id(1)));
    let mut touch = Box::pin(backend.touch(id(1), one.expires, NOW));
    start(std::slice::from_mut(&mut create));
    start(std::slice::from_mut(&mut again));
    start(std::slice::from_mut(&mut replace));
    start(std::slice::from_mut(&mut late));
    start(std::slice::from_mut(&mut delete));
    start(std::slice::from_mut(&mut touch));
    drop(other);
    assert!(block_on(create).unwrap());
    assert!(!block_on(again).unwrap());
    assert_eq!(block_on(replace).unwrap(), Replaced::Done);
    assert_eq!(block_on(late).unwrap(), Replaced::Conflict(two));
    block_on(delete).unwrap();
    assert!(!block_on(touch).unwrap());
}

#[test]
fn a_call_that_is_dropped_takes_no_answer_from_another() {
    let folder = Folder::new();
    let store = folder.store();
    let backend = store.backend();
    let other = OtherProcess::writing(&folder);
    let mut kept = Vec::new();
    for number in 0..100 {
        let mut create = Box::pin(backend.create(id(number), entry(number.to_string()), NOW));
        start(std::slice::from_mut(&mut create));
        // An id twice is an answer of another kind, so a mix-up would show.
        let mut again = Box::pin(backend.create(id(number), entry("other"), NOW));
        start(std::slice::from_mut(&mut again));
        if number % 3 != 0 {
            kept.push((create, again));
        }
    }
    drop(other);
    for (create, again) in kept {
        assert!(block_on(create).unwrap());
        assert!(!block_on(again).unwrap());
    }
}
