//! Saves that conflict, on a backend that is slow.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::super::conflict_queue::{ConflictQueues, Conflicts};
use super::*;
use crate::store::Memory;

/// A backend in memory. The test says how long its steps take.
#[derive(Default)]
struct Slow {
    memory: Memory,
    replaced: AtomicU32,
    conflicts: AtomicU32,
    /// The number of the replacement that is never answered, from 1.
    hangs_at: AtomicU32,
    /// Another request changes this entry before each replacement.
    contested: Mutex<Option<EntryId>>,
    /// So many replacements of that entry succeed first.
    uncontested: AtomicU32,
    /// How many steps' time a replacement takes.
    steps: AtomicU32,
    /// How many steps' time has passed.
    passed: AtomicU32,
}

impl Slow {
    fn contest(&self, id: EntryId, steps: u32) {
        *self.contested.lock().unwrap() = Some(id);
        self.steps.store(steps, Ordering::SeqCst);
        self.passed.store(0, Ordering::SeqCst);
        self.conflicts.store(0, Ordering::SeqCst);
    }

    fn has(&self, id: EntryId) -> bool {
        run(self.memory.fetch(id, NOW)).unwrap().is_some()
    }
}

impl Backend for Slow {
    async fn fetch(&self, id: EntryId, now: Timestamp) -> Result<Option<Stored>, Error> {
        self.memory.fetch(id, now).await
    }

    async fn create(&self, id: EntryId, entry: Stored, now: Timestamp) -> Result<bool, Error> {
        self.memory.create(id, entry, now).await
    }

    async fn replace(
        &self,
        id: EntryId,
        expected: Bytes,
        entry: Option<Stored>,
        now: Timestamp,
    ) -> Result<Replaced, Error> {
        let is_contested = *self.contested.lock().unwrap() == Some(id);
        let one_less = |left: u32| left.checked_sub(1);
        if is_contested
            && self.uncontested.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_err()
        {
            self.passed.fetch_add(self.steps.load(Ordering::SeqCst), Ordering::SeqCst);
            self.conflicts.fetch_add(1, Ordering::SeqCst);
            let present = self.memory.fetch(id, now).await?;
            return Ok(present.map_or(Replaced::Missing, Replaced::Conflict));
        }
        if self.replaced.fetch_add(1, Ordering::SeqCst) + 1 == self.hangs_at.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        self.memory.replace(id, expected, entry, now).await
    }

    async fn touch(&self, id: EntryId, expires: Timestamp, now: Timestamp) -> Result<bool, Error> {
        self.memory.touch(id, expires, now).await
    }

    async fn delete(&self, id: EntryId) -> Result<(), Error> {
        self.memory.delete(id).await
    }

    async fn __after_steps(&self, steps: u32) {
        poll_fn(|_| {
            let is_over = self.passed.load(Ordering::SeqCst) >= steps;
            if is_over { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

fn put(key: &str) -> Changes {
    let mut changes = Changes::default();
    changes.put(key, Some(Bytes::from_static(b"\x01")), None);
    changes
}

fn session_of_ada(inner: &Arc<Inner<Slow>>) -> Record {
    let values = payload(b"\x81\xa2\x01s\xa3ada");
    run(inner.create(values, None, NOW)).unwrap().unwrap()
}

fn poll<F: Future + ?Sized>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// The holder of the permit waits for a reply that does not come.
#[test]
fn a_save_waits_for_a_permit_as_long_as_a_step_takes() {
    let inner = inner(Slow::default(), &system_random());
    let base = run(inner.create(payload(b"\x81\xa1a\x01"), None, NOW)).unwrap().unwrap();
    run(inner.save(Some(base.clone()), &put("b"), NOW)).unwrap();
    let (holder, waiting) = (put("c"), put("d"));
    let mut holder = Box::pin(inner.save(Some(base.clone()), &holder, NOW));
    inner.backend.hangs_at.store(3, Ordering::SeqCst);
    assert!(poll(&mut holder).is_pending());
    let mut waiting = Box::pin(inner.save(Some(base), &waiting, NOW));
    assert!(poll(&mut waiting).is_pending() && poll(&mut waiting).is_pending());
    inner.backend.passed.store(1, Ordering::SeqCst);
    let Poll::Ready(Ok(Saved::Stored { record, conflicts: 1, .. })) = poll(&mut waiting) else {
        panic!("it waits on")
    };
    assert_eq!(record.payload().iter().map(|(key, _)| key).collect::<Vec<_>>(), ["a", "b", "d"]);
    assert!(poll(&mut holder).is_pending());
}

#[test]
fn a_save_that_conflicts_ends_after_many_attempts_or_a_long_time() {
    for (steps, attempts) in [(0, 256), (1, 16), (3, 6), (16, 1)] {
        let inner = inner(Slow::default(), &system_random());
        let base = session_of_ada(&inner);
        let has_ended = |error: &Error| {
            assert!(error.is_conflict(), "{error}");
            assert_eq!(inner.backend.conflicts.load(Ordering::SeqCst), attempts, "{error}");
            assert!(error.to_string().contains(&format!(" {attempts} attempts")), "{error}");
        };
        inner.backend.contest(entry_of_record(&base), steps);
        has_ended(&run(inner.save(Some(base.clone()), &put("b"), NOW)).unwrap_err());
        inner.backend.contest(inner.list_of("ada"), steps);
        has_ended(&run(inner.regenerate(base.clone(), &Changes::default(), NOW)).unwrap_err());
        inner.backend.contest(entry_of_record(&base), steps);
        has_ended(&run(inner.regenerate(base.clone(), &Changes::default(), NOW)).unwrap_err());
        let listed = run(inner.list("ada", NOW)).unwrap();
        assert_eq!(listed.entries.iter().map(|entry| entry.id).collect::<Vec<_>>(), [base.id()]);
    }
}

#[test]
fn t26_a_session_that_changes_all_the_time_is_ended() {
    for steps in [0, 1, 16] {
        let store = ServerStore { inner: inner(Slow::default(), &system_random()) };
        let base = session_of_ada(&store.inner);
        store.inner.backend.contest(entry_of_record(&base), steps);
        assert_eq!(run(store.end_sessions_of("ada", None)).unwrap(), 1);
        assert!(!store.inner.backend.has(entry_of_record(&base)));

        let base = session_of_ada(&store.inner);
        store.inner.backend.contest(entry_of_record(&base), steps);
        assert!(run(store.inner.supersede(&base, NOW)).unwrap());
        assert!(!store.inner.backend.has(entry_of_record(&base)));
    }
}

#[test]
fn sessions_are_spread_over_the_queues_and_each_has_one() {
    let queues = ConflictQueues::new();
    let queue = |first: u8, last: u8| {
        let mut id = [first; 16];
        id[15] = last;
        std::ptr::from_ref(queues.of(SessionId::from_bytes(id)))
    };
    let all: std::collections::BTreeSet<_> = (0..=255).map(|first| queue(first, 0)).collect();
    assert_eq!(all.len(), 64);
    assert!((0..=255).all(|first| queue(first, 0) == queue(first, 1)));
}

/// The backend answers none in time.
#[test]
fn a_task_that_goes_on_without_a_permit_keeps_its_place_in_the_queue() {
    let (queue, backend) = (tokio::sync::Mutex::new(()), Slow::default());
    let passed = |steps| backend.passed.store(steps, Ordering::SeqCst);
    let [mut first, mut second] = [(); 2].map(|()| Conflicts::new(&queue, &backend));
    let holder = queue.try_lock().unwrap();
    {
        let mut next = Box::pin(first.next());
        assert!(poll(&mut next).is_pending());
        passed(1);
        assert!(poll(&mut next).is_ready(), "it goes on without a permit");
    }
    passed(0);
    let mut second = Box::pin(second.next());
    assert!(poll(&mut second).is_pending());
    drop(holder);
    assert!(poll(&mut second).is_pending(), "the first task is before it");
    assert!(poll(&mut Box::pin(first.next())).is_ready());
    assert!(poll(&mut second).is_pending());
    first.release();
    assert!(poll(&mut second).is_ready());
}

#[test]
fn a_task_that_waits_for_another_queue_keeps_no_place_in_this_one() {
    let (queue, backend) = (tokio::sync::Mutex::new(()), Slow::default());
    let mut conflicts = Conflicts::new(&queue, &backend);
    let holder = queue.try_lock().unwrap();
    backend.passed.store(1, Ordering::SeqCst);
    assert!(poll(&mut Box::pin(conflicts.next())).is_ready(), "it goes on without a permit");
    drop(holder);
    assert!(queue.try_lock().is_err(), "the permit has come to it");
    conflicts.release();
    assert!(queue.try_lock().is_ok());
}

/// The sessions are ended by then. The next call takes them off the list.
#[test]
fn t26_an_ending_does_not_fail_if_only_its_tidying_conflicts() {
    for steps in [0, 1, 16] {
        let store = ServerStore { inner: inner(Slow::default(), &system_random()) };
        let base = session_of_ada(&store.inner);
        let list = store.inner.list_of("ada");
        store.inner.backend.contest(list, steps);
        assert!(run(store.end_sessions_of("ada", None)).unwrap_err().is_conflict(), "it could not begin");
        assert!(store.inner.backend.has(entry_of_record(&base)));
        store.inner.backend.contest(list, steps);
        store.inner.backend.uncontested.store(1, Ordering::SeqCst);
        assert_eq!(run(store.end_sessions_of("ada", None)).unwrap(), 1);
        assert!(!store.inner.backend.has(entry_of_record(&base)) && store.inner.backend.has(list));
    }
}
