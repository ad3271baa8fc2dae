//! The contract of backends, however the store is opened, and what it promises beyond that about reading and closing.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake};
use std::thread::{self, Thread};

use bytes::Bytes;
use http::Request;
use hyper_session::store::sqlite::Synchronous;
use hyper_session::store::{Backend, Replaced};
use hyper_session::testing::{check_backend, with_session};
use hyper_session::{Clock, Session, SqliteStore, SystemClock};

use crate::folder::{Folder, NOW, entry, id};

#[tokio::test]
async fn it_keeps_the_contract() {
    let folder = Folder::new();
    check_backend(folder.store().backend(), SystemClock.now()).await;
}

#[tokio::test]
async fn it_keeps_the_contract_by_any_clock() {
    let folder = Folder::new();
    let store = folder.store();
    for moment in [1_000_000, 4_000_000_000, 253_402_300_799] {
        check_backend(store.backend(), hyper_session::Timestamp::from_unix(moment)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_keeps_the_contract_with_threads_that_read_and_less_durability() {
    let folder = Folder::new();
    let builder = folder.builder().read_threads(3).synchronous(Synchronous::Normal);
    let store = builder.open().unwrap();
    check_backend(store.backend(), SystemClock.now()).await;
}

/// Wakes the thread that waits for a future.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn it_keeps_the_contract_without_a_runtime() {
    let folder = Folder::new();
    for read_threads in [0, 1] {
        let store = folder.builder().read_threads(read_threads).open().unwrap();
        block_on(check_backend(store.backend(), SystemClock.now()));
    }
}

#[test]
fn what_was_written_is_seen_by_every_thread_and_every_store_at_once() {
    let folder = Folder::new();
    let stores = [folder.store(), folder.builder().read_threads(2).open().unwrap(), folder.store()];
    let written = AtomicU64::new(0);
    let mut old = Bytes::new();
    block_on(stores[0].backend().create(id(1), entry(old.clone()), NOW)).unwrap();
    thread::scope(|scope| {
        for reader in 0..4 {
            let (store, written) = (&stores[reader % 3], &written);
            scope.spawn(move || {
                loop {
                    let before = written.load(Ordering::SeqCst);
                    let found = block_on(store.backend().fetch(id(1), NOW)).unwrap().unwrap();
                    let found = found.value.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
                    assert!(found >= before, "{found} was read after {before} had been acknowledged");
                    if before == 500 {
                        break;
                    }
                }
            });
        }
        for number in 1..=500_u64 {
            let new = Bytes::copy_from_slice(&number.to_be_bytes());
            // By one store after the other, as by processes that share the file.
            let store = &stores[usize::try_from(number).unwrap() % 3];
            let replaced = block_on(store.backend().replace(id(1), old, Some(entry(new.clone())), NOW));
            assert_eq!(replaced.unwrap(), Replaced::Done);
            old = new;
            written.store(number, Ordering::SeqCst);
        }
    });
}

#[test]
fn a_dropped_store_leaves_nothing_open_and_its_file_whole() {
    let folder = Folder::new();
    for read_threads in [0, 2] {
        let store = folder.builder().read_threads(read_threads).open().unwrap();
        thread::scope(|scope| {
            for number in 0..20 {
                let store = &store;
                scope.spawn(move || {
                    let value = Bytes::from(vec![7; 100]);
                    block_on(store.backend().create(id(number), entry(value), NOW)).unwrap();
                    assert!(block_on(store.backend().fetch(id(number), NOW)).unwrap().is_some());
                });
            }
        });
        assert!(!folder.open_files().is_empty());
        assert!(folder.names().contains(&"sessions.db-wal".to_owned()));
        drop(store);
        if read_threads == 0 {
            assert_eq!(folder.open_files(), [""; 0]);
            assert_eq!(folder.names(), ["sessions.db", "sessions.db-lock", "sessions.db-next"]);
        }
    }
    let store = folder.store();
    for number in 0..20 {
        assert!(block_on(store.backend().fetch(id(number), NOW)).unwrap().is_some());
    }
}

/// A store with a lower limit, and so with fewer sessions of a subject.
fn narrow(folder: &Folder) -> SqliteStore {
    folder.builder().max_entry_len(1_000).max_sessions_per_subject(5).open().unwrap()
}

#[tokio::test]
async fn an_entry_that_is_too_long_is_neither_written_nor_read() {
    let folder = Folder::new();
    let narrow = narrow(&folder);
    let wide = folder.store();
    let fits = vec![1; 1_000];
    assert!(narrow.backend().create(id(1), entry(fits.clone()), NOW).await.unwrap());
    assert_eq!(narrow.backend().fetch(id(1), NOW).await.unwrap().unwrap().value, fits);
    let error = narrow.backend().create(id(2), entry(vec![1; 1_001]), NOW).await.unwrap_err();
    assert!(error.is_too_large());
    assert_eq!(error.size_and_limit(), Some((1_001, 1_000)));
    let error = narrow.backend().replace(id(1), fits.clone().into(), Some(entry(vec![1; 1_001])), NOW).await;
    assert!(error.unwrap_err().is_too_large());
    assert_eq!(narrow.backend().fetch(id(1), NOW).await.unwrap().unwrap().value, fits, "it is as it was");

    // Another process has another limit. One byte too many, and far too many.
    for (number, len) in [(3, 1_001), (4, 500_000)] {
        assert!(wide.backend().create(id(number), entry(vec![1; len]), NOW).await.unwrap());
        let error = narrow.backend().fetch(id(number), NOW).await.unwrap_err();
        assert!(error.is_unavailable() && crate::folder::said(&error).contains("max_entry_len"), "{error:?}");
        assert_eq!(narrow.backend().fetch(id(1), NOW).await.unwrap().unwrap().value, fits);
        narrow.backend().delete(id(number)).await.unwrap();
        assert_eq!(wide.backend().fetch(id(number), NOW).await.unwrap(), None, "it can be deleted");
    }
}

#[tokio::test]
async fn the_shortest_list_has_room_for_each_login() {
    let folder = Folder::new();
    let options = |len| folder.builder().max_entry_len(len).max_sessions_per_subject(7);
    let shortest = 66 * 7 + 648;
    assert!(options(shortest - 1).open().unwrap_err().is_config());
    let narrow = options(shortest).open().unwrap();
    for logins in 1..=20 {
        with_session(Request::new(()), &narrow, |session| session.login("ada")).await.unwrap();
        assert_eq!(narrow.sessions_of("ada").await.unwrap().len(), logins.min(7));
    }
}

/// A host whose limit is lower lists and ends the sessions of a host whose limit is higher, and users can log in to it.
#[tokio::test]
async fn t26_sessions_that_are_too_long_for_a_host_are_ended_by_it() {
    let folder = Folder::new();
    let (wide, narrow) = (folder.store(), narrow(&folder));
    let long = |session: &Session| {
        session.login("ada")?;
        session.set("notes", "x".repeat(2_000))
    };
    with_session(Request::new(()), &wide, long).await.unwrap();
    let listed = narrow.sessions_of("ada").await.unwrap();
    assert_eq!(listed.iter().map(|session| session.readable).collect::<Vec<_>>(), [false]);
    assert_eq!(narrow.end_sessions_of("ada", None).await.unwrap(), 1);
    assert_eq!(wide.sessions_of("ada").await.unwrap(), []);

    // A session list that is longer than the lower limit. The next login of the narrow host makes room on it.
    for _ in 0..40 {
        with_session(Request::new(()), &wide, |session| session.login("bob")).await.unwrap();
    }
    let listed = narrow.sessions_of("bob").await.unwrap();
    assert_eq!(listed.len(), 40);
    assert!(narrow.end_session_of("bob", listed[7].id).await.unwrap());
    assert_eq!(wide.sessions_of("bob").await.unwrap().len(), 39);
    with_session(Request::new(()), &narrow, |session| session.login("bob")).await.unwrap();
    assert_eq!(wide.sessions_of("bob").await.unwrap().len(), 5);
    assert_eq!(narrow.end_sessions_of("bob", None).await.unwrap(), 5);
    assert_eq!(wide.sessions_of("bob").await.unwrap(), []);
}
