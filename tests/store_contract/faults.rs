//! Backends with one fault each, and the suite that finds it.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use hyper_session::store::{Backend, EntryId, Memory, Replaced, Stored};
use hyper_session::testing::{Faulty, Primitive, check_backend};
use hyper_session::{Error, Timestamp};
use tokio::task::yield_now;

use crate::concurrent_requests::{START, Watched};
use crate::support::block_on;

/// The simplest backend that keeps the contract, and one mistake at a time.
#[derive(Default)]
struct Plain {
    entries: Mutex<HashMap<Vec<u8>, Stored>>,
    fault: Fault,
    creates: AtomicUsize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Fault {
    #[default]
    None,
    FetchIgnoresId,
    FetchShowsExpired,
    CreateOverwrites,
    CreateFailsRepeated,
    CreateWritesThoughItFails,
    CreateIsTwoSteps,
    CreateIsBlockedByExpired,
    CreateForgetsTheDeadline,
    ReplaceIgnoresExpected,
    ReplaceFailsRepeated,
    ReplaceCreates,
    ReplaceWritesThoughMissing,
    ReplaceWritesThoughInConflict,
    ReplaceShowsWhatWasExpected,
    ReplaceRemovesUncompared,
    ReplaceRemovesNothing,
    ReplaceComparesLengths,
    ReplaceComparesLengthsButToRemove,
    ReplaceComparesUpToNul,
    ReplaceComparesAsText,
    ReplaceIsTwoSteps,
    ReplaceFindsExpired,
    ReplaceKeepsTheDeadline,
    TouchRewrites,
    TouchCreates,
    TouchWritesThoughMissing,
    TouchMovesNothing,
    TouchOnlyExtends,
    TouchFindsExpired,
    DeleteLeavesTheEntry,
    DeleteLeavesAnEmptyEntry,
    IdsIgnoreCase,
    IdsEndAtNul,
    IdsAreTrimmed,
    IdsArePadded,
    IdsAreText,
    CreateIsTwoStepsNowAndThen,
    RemovalIsTwoSteps,
    TouchIsTwoSteps,
    RenewIsTwoSteps,
    FetchFreesExpired,
}

impl Plain {
    fn with(fault: Fault) -> Self {
        Self { fault, ..Self::default() }
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    /// The key of the entry, with this backend's fault.
    fn key(&self, id: EntryId) -> Vec<u8> {
        let bytes = id.to_bytes();
        match self.fault {
            Fault::IdsIgnoreCase => bytes.to_ascii_lowercase(),
            Fault::IdsEndAtNul => bytes.split(|byte| *byte == 0).next().unwrap().to_vec(),
            Fault::IdsAreTrimmed => bytes.trim_ascii_end().to_vec(),
            Fault::IdsArePadded => {
                let end = bytes.iter().rposition(|byte| ![0, b' '].contains(byte)).map_or(0, |last| last + 1);
                bytes[..end].to_vec()
            }
            Fault::IdsAreText => String::from_utf8_lossy(&bytes).into_owned().into_bytes(),
            _ => bytes.to_vec(),
        }
    }

    /// One atomic step: sees the entry that is there at `now`, and leaves what is to be there.
    fn step<R>(&self, id: EntryId, now: Timestamp, step: impl FnOnce(&mut Option<Stored>) -> R) -> R {
        let mut entries = self.entries.lock().unwrap();
        // An entry that is over stays until it is overwritten: purging it would hide mistakes in what comes next.
        let key = self.key(id);
        let (mut entry, over) = match entries.remove(&key) {
            Some(stored) if stored.expires > now => (Some(stored), None),
            over => (None, over),
        };
        let answer = step(&mut entry);
        entry.or(over).map(|entry| entries.insert(key, entry));
        answer
    }

    /// Moves the deadline by reading the entry and writing it back: a fault.
    async fn written_back(
        &self,
        id: EntryId,
        expires: Timestamp,
        now: Timestamp,
    ) -> Result<Option<Stored>, Error> {
        let found = self.fetch(id, now).await?;
        yield_now().await;
        if let Some(found) = found.clone() {
            self.step(id, now, |entry| *entry = Some(Stored { expires, ..found }));
        }
        Ok(found)
    }

    /// True if the entry is what `replace` would make of it.
    fn is_repeated(current: &Stored, new: Option<&Stored>) -> bool {
        new.is_some_and(|new| new.value == current.value)
    }

    /// The result of the comparison in `replace`, with this backend's fault.
    fn is_expected(&self, current: &[u8], expected: &[u8], removing: bool) -> bool {
        let until_nul = |value: &[u8]| value.split(|byte| *byte == 0).next().unwrap().to_vec();
        match self.fault {
            Fault::ReplaceIgnoresExpected => true,
            Fault::ReplaceRemovesUncompared if removing => true,
            Fault::ReplaceComparesLengths => current.len() == expected.len(),
            Fault::ReplaceComparesLengthsButToRemove if !removing => current.len() == expected.len(),
            Fault::ReplaceComparesUpToNul => until_nul(current) == until_nul(expected),
            Fault::ReplaceComparesAsText => {
                String::from_utf8_lossy(current) == String::from_utf8_lossy(expected)
            }
            _ => current == expected,
        }
    }
}

impl Backend for Plain {
    async fn fetch(&self, id: EntryId, now: Timestamp) -> Result<Option<Stored>, Error> {
        let (key, mut entries) = (self.key(id), self.entries.lock().unwrap());
        if self.has(Fault::FetchFreesExpired) && entries.get(&key).is_some_and(|stored| stored.expires <= now)
        {
            entries.remove(&key);
        }
        let found = if self.has(Fault::FetchIgnoresId) { entries.values().next() } else { entries.get(&key) };
        Ok(found.filter(|stored| stored.expires > now || self.has(Fault::FetchShowsExpired)).cloned())
    }

    async fn create(&self, id: EntryId, mut new: Stored, now: Timestamp) -> Result<bool, Error> {
        let now_and_then = self.creates.fetch_add(1, Ordering::Relaxed) % 15 == 14;
        if self.has(Fault::CreateIsTwoSteps) || now_and_then && self.has(Fault::CreateIsTwoStepsNowAndThen) {
            let present = self.fetch(id, now).await?;
            yield_now().await;
            return Ok(match present {
                Some(present) => present.value == new.value,
                None => self.step(id, now, |entry| {
                    *entry = Some(new);
                    true
                }),
            });
        }
        if self.has(Fault::CreateForgetsTheDeadline) {
            new.expires = Timestamp::MAX;
        }
        let seen_from = if self.has(Fault::CreateIsBlockedByExpired) { Timestamp::from_unix(0) } else { now };
        Ok(self.step(id, seen_from, |entry| {
            let same = entry.as_ref().is_some_and(|present| present.value == new.value);
            let free = entry.is_none()
                || self.has(Fault::CreateOverwrites)
                || same && !self.has(Fault::CreateFailsRepeated);
            if free || self.has(Fault::CreateWritesThoughItFails) {
                *entry = Some(new);
            }
            free
        }))
    }

    async fn replace(
        &self,
        id: EntryId,
        expected: Bytes,
        mut new: Option<Stored>,
        now: Timestamp,
    ) -> Result<Replaced, Error> {
        if self.has(Fault::ReplaceIsTwoSteps) || new.is_none() && self.has(Fault::RemovalIsTwoSteps) {
            let current = self.fetch(id, now).await?;
            yield_now().await;
            return Ok(match current {
                None => Replaced::Missing,
                Some(current) if current.value != expected && !Self::is_repeated(&current, new.as_ref()) => {
                    Replaced::Conflict(current)
                }
                Some(_) => self.step(id, now, |entry| {
                    *entry = new;
                    Replaced::Done
                }),
            });
        }
        let seen_from = if self.has(Fault::ReplaceFindsExpired) { Timestamp::from_unix(0) } else { now };
        Ok(self.step(id, seen_from, |entry| match entry {
            None if self.has(Fault::ReplaceCreates) => {
                *entry = new;
                Replaced::Done
            }
            None => {
                if self.has(Fault::ReplaceWritesThoughMissing) {
                    *entry = new;
                }
                Replaced::Missing
            }
            Some(current)
                if !self.is_expected(&current.value, &expected, new.is_none())
                    && (self.has(Fault::ReplaceFailsRepeated)
                        || !Self::is_repeated(current, new.as_ref())) =>
            {
                let mut shown = current.clone();
                if self.has(Fault::ReplaceShowsWhatWasExpected) {
                    shown.value = expected;
                }
                if self.has(Fault::ReplaceWritesThoughInConflict) {
                    *entry = new;
                }
                Replaced::Conflict(shown)
            }
            Some(current) => {
                if let (Fault::ReplaceKeepsTheDeadline, Some(new)) = (self.fault, &mut new) {
                    new.expires = current.expires;
                }
                if new.is_some() || !self.has(Fault::ReplaceRemovesNothing) {
                    *entry = new;
                }
                Replaced::Done
            }
        }))
    }

    async fn touch(&self, id: EntryId, expires: Timestamp, now: Timestamp) -> Result<bool, Error> {
        if self.has(Fault::TouchIsTwoSteps) {
            return self.written_back(id, expires, now).await.map(|found| found.is_some());
        }
        let seen_from = if self.has(Fault::TouchFindsExpired) { Timestamp::from_unix(0) } else { now };
        Ok(self.step(id, seen_from, |entry| {
            let empty = Stored { value: Bytes::new(), expires };
            match (entry, self.fault) {
                (entry @ None, Fault::TouchWritesThoughMissing) => {
                    *entry = Some(empty);
                    false
                }
                (entry @ None, Fault::TouchCreates) | (entry @ Some(_), Fault::TouchRewrites) => {
                    *entry = Some(empty);
                    true
                }
                (None, _) => false,
                (Some(_), Fault::TouchMovesNothing) => true,
                (Some(stored), Fault::TouchOnlyExtends) => {
                    stored.expires = stored.expires.max(expires);
                    true
                }
                (Some(stored), _) => {
                    stored.expires = expires;
                    true
                }
            }
        }))
    }

    async fn renew(
        &self,
        id: EntryId,
        seen: Stored,
        expires: Timestamp,
        now: Timestamp,
    ) -> Result<Replaced, Error> {
        let as_of = now.min(Timestamp::from_unix(seen.expires.as_unix().saturating_sub(1)));
        let present = if self.has(Fault::RenewIsTwoSteps) {
            self.written_back(id, expires, as_of).await?
        } else {
            let present = self.fetch(id, as_of).await?;
            self.touch(id, expires, as_of).await?;
            present
        };
        Ok(match present {
            None => Replaced::Missing,
            Some(present) if present.value == seen.value => Replaced::Done,
            Some(present) => Replaced::Conflict(present),
        })
    }

    async fn delete(&self, id: EntryId) -> Result<(), Error> {
        self.step(id, Timestamp::from_unix(0), |entry| match (entry, self.fault) {
            (_, Fault::DeleteLeavesTheEntry) => {}
            (Some(stored), Fault::DeleteLeavesAnEmptyEntry) => stored.value = Bytes::new(),
            (entry, _) => *entry = None,
        });
        Ok(())
    }
}

/// The complaint of the suite about `backend`: `None` if it finds nothing.
fn verdict(backend: &impl Backend) -> Option<String> {
    let check = || block_on(check_backend(backend, Timestamp::from_unix(START)));
    let panic = std::panic::catch_unwind(AssertUnwindSafe(check)).err()?;
    Some(match panic.downcast::<String>() {
        Ok(message) => *message,
        Err(panic) => (*panic.downcast_ref::<&str>().expect("a panic with a message")).to_owned(),
    })
}

#[test]
fn backends_that_keep_the_contract_pass_the_suite() {
    assert_eq!(verdict(&Memory::new()), None);
    assert_eq!(verdict(&Plain::default()), None);
    assert_eq!(verdict(&Watched::default()), None);
    assert_eq!(verdict(&Faulty::new(Memory::new())), None);
}

/// Each mistake is found, and named for what it is.
fn assert_found(cases: &[(Fault, &str)]) {
    let missed: Vec<_> = cases
        .iter()
        .filter_map(|(fault, why)| match verdict(&Plain::with(*fault)) {
            Some(message) if message.contains(why) => None,
            other => Some(format!("{fault:?}: {other:?} instead of {why:?}")),
        })
        .collect();
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn the_suite_finds_broken_backends() {
    use Fault::*;
    assert_found(&[
        (FetchIgnoresId, "entries of other ids must not show"),
        (FetchShowsExpired, "an entry that expires now must not be returned"),
        (CreateOverwrites, "create of an id that exists must fail"),
        (CreateFailsRepeated, "a repeated create must succeed"),
        (ReplaceFailsRepeated, "a repeated replace must succeed"),
        (CreateWritesThoughItFails, "a failed create must not write"),
        (CreateIsTwoSteps, "of two concurrent creates one must win"),
        (CreateIsBlockedByExpired, "the id of an expired entry must be free again"),
        (CreateForgetsTheDeadline, "an entry that expires now must not be returned"),
        (ReplaceIgnoresExpected, "another value must be a conflict"),
        (ReplaceCreates, "replace must not create"),
        (ReplaceWritesThoughMissing, "a replace that found nothing must not write"),
        (ReplaceWritesThoughInConflict, "a conflict must not write"),
        (ReplaceShowsWhatWasExpected, "a conflict must show the present value"),
        (ReplaceRemovesUncompared, "a deletion must compare, too"),
        (ReplaceRemovesNothing, "a replace without a new entry must delete it"),
        (ReplaceComparesLengths, "a deletion must compare, too"),
        (ReplaceComparesLengthsButToRemove, "a different value must be a different write"),
        (ReplaceIsTwoSteps, "of two concurrent replaces of one value one must win"),
        (ReplaceFindsExpired, "an entry that expires now must not be replaced"),
        (TouchRewrites, "touch must keep the value"),
        (TouchCreates, "touch must not create"),
        (TouchWritesThoughMissing, "a touch that found nothing must not write"),
        (TouchMovesNothing, "touch must move the deadline"),
        (TouchFindsExpired, "an entry that expires now must not be touched"),
        (DeleteLeavesTheEntry, "a deleted entry must be gone"),
        (DeleteLeavesAnEmptyEntry, "a deleted entry must be gone"),
    ]);
}

/// The contract says "byte for byte": Redis scripts and SQL collations have gone wrong here.
#[test]
fn the_suite_finds_backends_that_do_not_compare_every_byte() {
    use Fault::*;
    assert_found(&[(ReplaceComparesUpToNul, "compare"), (ReplaceComparesAsText, "compare")]);
}

/// An entry that keeps its first deadline logs busy users out; one that cannot be shortened outlives its session.
#[test]
fn the_suite_finds_backends_that_set_no_deadline() {
    use Fault::*;
    assert_found(&[(ReplaceKeepsTheDeadline, "deadline"), (TouchOnlyExtends, "deadline")]);
}

#[test]
fn the_suite_finds_backends_that_take_ids_for_text() {
    use Fault::*;
    let faults = [IdsIgnoreCase, IdsEndAtNul, IdsAreTrimmed, IdsArePadded, IdsAreText];
    assert_found(&faults.map(|fault| (fault, "ids that differ in one bit must be different entries")));
}

/// Steps that are two steps, each in the order in which that shows.
#[test]
fn the_suite_finds_backends_whose_steps_are_not_atomic() {
    use Fault::*;
    assert_found(&[
        (CreateIsTwoStepsNowAndThen, "of two concurrent creates one must win"),
        (RemovalIsTwoSteps, "of a concurrent replace and deletion of one value one must win"),
        (TouchIsTwoSteps, "a concurrent touch must not bring back a deleted entry"),
        (RenewIsTwoSteps, "a concurrent renewal must not bring back a deleted entry"),
    ]);
}

/// A session lasts as long as its requests, also if another request finds it expired meanwhile.
#[test]
fn the_suite_finds_backends_that_free_what_they_read() {
    assert_found(&[(Fault::FetchFreesExpired, "a fetch must not free")]);
}

/// Has a reply of its own where other backends have the default.
#[derive(Default)]
struct Own(Plain);

impl Backend for Own {
    async fn fetch(&self, id: EntryId, now: Timestamp) -> Result<Option<Stored>, Error> {
        self.0.fetch(id, now).await
    }

    async fn create(&self, id: EntryId, entry: Stored, now: Timestamp) -> Result<bool, Error> {
        self.0.create(id, entry, now).await
    }

    async fn replace(
        &self,
        id: EntryId,
        expected: Bytes,
        entry: Option<Stored>,
        now: Timestamp,
    ) -> Result<Replaced, Error> {
        self.0.replace(id, expected, entry, now).await
    }

    async fn exchange(
        &self,
        _: EntryId,
        seen: Stored,
        _: Option<Stored>,
        _: Timestamp,
    ) -> Result<Replaced, Error> {
        Ok(Replaced::Conflict(seen))
    }

    async fn renew(
        &self,
        _: EntryId,
        seen: Stored,
        expires: Timestamp,
        _: Timestamp,
    ) -> Result<Replaced, Error> {
        Ok(Replaced::Conflict(Stored { expires, ..seen }))
    }

    fn time(&self, _: Timestamp) -> Timestamp {
        Timestamp::from_unix(7)
    }

    async fn touch(&self, id: EntryId, expires: Timestamp, now: Timestamp) -> Result<bool, Error> {
        self.0.touch(id, expires, now).await
    }

    async fn delete(&self, id: EntryId) -> Result<(), Error> {
        self.0.delete(id).await
    }
}

#[test]
fn a_faulty_backend_keeps_what_the_backend_implements_itself() {
    let backend = Faulty::new(Own::default());
    let (id, now) = (EntryId::from_bytes([1; 16]), Timestamp::from_unix(START));
    let [seen, later] = [60, 120].map(|seconds| Stored {
        value: Bytes::from_static(b"one"),
        expires: Timestamp::from_unix(START + seconds),
    });
    block_on(async {
        assert_eq!(backend.time(now), Timestamp::from_unix(7));
        let exchanged = backend.exchange(id, seen.clone(), None, now).await.unwrap();
        assert_eq!(exchanged, Replaced::Conflict(seen.clone()));
        let renewed = backend.renew(id, seen.clone(), later.expires, now).await.unwrap();
        assert_eq!(renewed, Replaced::Conflict(later.clone()));
        let calls = [Primitive::Fetch, Primitive::Replace, Primitive::Touch].map(|it| backend.calls(it));
        assert_eq!(calls, [0, 1, 1], "an exchange counts as a replace, and a renewal as a touch");
        backend.fail(Primitive::Replace, hyper_session::testing::Fault::Unreachable);
        backend.fail(Primitive::Touch, hyper_session::testing::Fault::Unreachable);
        assert!(backend.exchange(id, seen.clone(), None, now).await.is_err());
        assert!(backend.renew(id, seen, later.expires, now).await.is_err());
    });
}
