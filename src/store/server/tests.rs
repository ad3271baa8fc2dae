//! The order of steps, and faults that no real backend can be made to show.

use std::time::Duration;

use bytes::Bytes;

use super::format::EntryValue;
use super::native_format::StoredHeader;
use super::*;
use crate::clock::TestClock;
use crate::crypto::{CountingRandom, NoRandom, Random, SystemRandom};
#[cfg(feature = "memory")]
use crate::event::Refusal;
use crate::join::tests::run;
use crate::store::Replaced;

#[cfg(feature = "memory")]
mod conflicts;
#[cfg(feature = "memory")]
mod later_kinds;
#[cfg(feature = "memory")]
mod subjects;
#[cfg(feature = "memory")]
mod successors;

/// A backend in which every id is in use.
struct Full;

impl Backend for Full {
    async fn fetch(&self, _: EntryId, _: Timestamp) -> Result<Option<Stored>, Error> {
        Ok(None)
    }

    async fn create(&self, _: EntryId, _: Stored, _: Timestamp) -> Result<bool, Error> {
        Ok(false)
    }

    async fn replace(
        &self,
        _: EntryId,
        _: Bytes,
        _: Option<Stored>,
        _: Timestamp,
    ) -> Result<Replaced, Error> {
        Ok(Replaced::Missing)
    }

    async fn touch(&self, _: EntryId, _: Timestamp, _: Timestamp) -> Result<bool, Error> {
        Ok(false)
    }

    async fn delete(&self, _: EntryId) -> Result<(), Error> {
        Ok(())
    }
}

fn system_random() -> Arc<dyn Random> {
    Arc::new(SystemRandom)
}

fn inner<B: Backend>(backend: B, random: &Arc<dyn Random>) -> Arc<Inner<B>> {
    let mut builder = ServerStore::with_backend(backend).clock(TestClock::at(NOW.as_unix()));
    builder.server.random = Arc::clone(random);
    Arc::new(Inner::new(builder).unwrap())
}

const NOW: Timestamp = Timestamp::from_unix(1);

fn payload(bytes: &'static [u8]) -> Payload {
    Payload::parse(Bytes::from_static(bytes)).unwrap()
}

fn create(random: &Arc<dyn Random>) -> Result<Record, Error> {
    run(inner(Full, random).create(payload(b"\x81\xa1a\x01"), None, NOW)).map(Option::unwrap)
}

/// A format that counts how often it decodes, and whose entries may have no lifetime, as those of another program.
#[cfg(feature = "memory")]
struct DecodeCounter {
    format: Box<dyn StoredFormat>,
    has_lifetime: bool,
    decoded: Arc<std::sync::atomic::AtomicU32>,
}

#[cfg(feature = "memory")]
impl StoredFormat for DecodeCounter {
    fn parse_token(&self, cookie_name: &str, text: &[u8]) -> Option<ServerToken> {
        self.format.parse_token(cookie_name, text)
    }

    fn generate_token(&self, cookie_name: &str) -> Result<ServerToken, Error> {
        self.format.generate_token(cookie_name)
    }

    fn encode_session(
        &self,
        id: EntryId,
        created: Timestamp,
        payload: &Payload,
        from: Option<&Bytes>,
        written: Recency,
        now: Timestamp,
    ) -> Result<Bytes, Error> {
        self.format.encode_session(id, created, payload, from, written, now)
    }

    fn encode_tombstone(&self, id: EntryId, next: Option<SessionId>, now: Timestamp) -> Result<Bytes, Error> {
        self.format.encode_tombstone(id, next, now)
    }

    fn encode_list(
        &self,
        id: EntryId,
        list: &session_list::SessionList,
        now: Timestamp,
    ) -> Result<Bytes, Error> {
        self.format.encode_list(id, list, now)
    }

    fn decode(&self, id: EntryId, value: &Bytes) -> Option<EntryValue> {
        self.decoded.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        match self.format.decode(id, value) {
            Some(EntryValue::Session(age, payload)) if !self.has_lifetime => {
                Some(EntryValue::Session(format::EntryAge { lifetime: None, ..age }, payload))
            }
            other => other,
        }
    }

    fn refusal(&self, id: EntryId, value: &[u8]) -> Refusal {
        self.format.refusal(id, value)
    }

    fn has_session_lists(&self) -> bool {
        self.format.has_session_lists()
    }

    fn is_to_be_sealed(&self, value: &Bytes) -> bool {
        self.format.is_to_be_sealed(value)
    }
}

/// The renewal of a loaded session knows the lifetime in its entry, also that there is none: it does not decode the entry again.
#[cfg(feature = "memory")]
#[test]
fn a_renewal_does_not_decode_again_what_was_loaded() {
    for has_lifetime in [true, false] {
        let decoded = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let inner = Arc::into_inner(inner(super::super::Memory::new(), &system_random())).unwrap();
        let format = DecodeCounter { format: inner.format, has_lifetime, decoded: Arc::clone(&decoded) };
        let inner = Arc::new(Inner { format: Box::new(format), ..inner });
        let record = run(inner.create(payload(b"\x81\xa1a\x01"), None, NOW)).unwrap().unwrap();
        let token = token_of(&record).unwrap().clone();
        let loaded = run(inner.load(token, NOW)).unwrap().unwrap();
        assert_eq!(decoded.load(std::sync::atomic::Ordering::SeqCst), 1);
        let later = NOW.saturating_add(Duration::from_secs(9_000));
        let saved = run(inner.save(Some(loaded), &Changes::default(), later)).unwrap();
        assert!(matches!(saved, Saved::Stored { record, .. } if record.expires() > NOW));
        assert_eq!(decoded.load(std::sync::atomic::Ordering::SeqCst), 1, "{has_lifetime}");
    }
}

/// A backend that loses the new entry of a regenerate while another request changes the old one.
#[derive(Default)]
struct Evicting {
    created: std::sync::Mutex<Vec<(EntryId, Bytes)>>,
    replaced: std::sync::atomic::AtomicU32,
    tombstone: std::sync::Mutex<Option<(EntryId, Bytes)>>,
}

impl Backend for Evicting {
    async fn fetch(&self, _: EntryId, _: Timestamp) -> Result<Option<Stored>, Error> {
        Ok(None)
    }

    async fn create(&self, id: EntryId, entry: Stored, _: Timestamp) -> Result<bool, Error> {
        self.created.lock().unwrap().push((id, entry.value));
        Ok(true)
    }

    async fn replace(
        &self,
        id: EntryId,
        _: Bytes,
        entry: Option<Stored>,
        now: Timestamp,
    ) -> Result<Replaced, Error> {
        let round = self.replaced.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Ok(match (round, entry) {
            (0, Some(_)) => {
                let value = [
                    &StoredHeader {
                        created: now,
                        written: Recency::at(now),
                        lifetime: u32::MAX,
                        revision: 0,
                    }
                    .to_bytes()[..],
                    b"\x81\xa1a\x02",
                ]
                .concat();
                Replaced::Conflict(Stored { value: value.into(), expires: Timestamp::MAX })
            }
            (1, Some(_)) => Replaced::Missing,
            (2, Some(entry)) => {
                *self.tombstone.lock().unwrap() = Some((id, entry.value));
                Replaced::Done
            }
            other => panic!("{other:?}"),
        })
    }

    async fn touch(&self, _: EntryId, _: Timestamp, _: Timestamp) -> Result<bool, Error> {
        Ok(false)
    }

    async fn delete(&self, _: EntryId) -> Result<(), Error> {
        Ok(())
    }
}

#[test]
fn a_new_entry_that_was_evicted_is_written_again() {
    let inner = inner(Evicting::default(), &system_random());
    let first = run(inner.create(payload(b"\x81\xa1a\x01"), None, NOW)).unwrap().unwrap();
    let saved = run(inner.regenerate(first, &Changes::default(), NOW)).unwrap();
    assert!(matches!(saved, Saved::Stored { .. }), "{saved:?}");
    let created = inner.backend.created.lock().unwrap();
    // The session, its new entry, and the new entry again, with what the other request had changed.
    let values: Vec<_> = created.iter().map(|(_, value)| value.last().copied()).collect();
    assert_eq!(values, [Some(1), Some(1), Some(2)]);
    // A logout with the old token finds the session where it is now.
    let (id, tombstone) = inner.backend.tombstone.lock().unwrap().clone().unwrap();
    let Some(EntryValue::Tombstone(Some(next))) = inner.format.decode(id, &tombstone) else {
        panic!("{tombstone:?}");
    };
    assert_eq!(entry_of_session(next), created[2].0);
}

/// A backend that creates entries, and fails when an entry is to be replaced.
struct Failing {
    error: fn() -> Error,
    deleted: std::sync::atomic::AtomicU32,
}

impl Backend for Failing {
    async fn fetch(&self, _: EntryId, _: Timestamp) -> Result<Option<Stored>, Error> {
        Ok(Some(Stored { value: Bytes::from_static(b"the new entry"), expires: Timestamp::MAX }))
    }

    async fn create(&self, _: EntryId, _: Stored, _: Timestamp) -> Result<bool, Error> {
        Ok(true)
    }

    async fn replace(
        &self,
        _: EntryId,
        _: Bytes,
        _: Option<Stored>,
        _: Timestamp,
    ) -> Result<Replaced, Error> {
        Err((self.error)())
    }

    async fn touch(&self, _: EntryId, _: Timestamp, _: Timestamp) -> Result<bool, Error> {
        Ok(true)
    }

    async fn delete(&self, _: EntryId) -> Result<(), Error> {
        self.deleted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Ok(())
    }
}

// The clock of this host may be behind that of the host which wrote what the request brought.
#[test]
fn a_session_that_begins_is_newer_than_what_the_request_brought() {
    let inner =
        inner(Failing { error: || Error::unavailable("it is away"), deleted: 0.into() }, &system_random());
    let newest = Recency::at(NOW.saturating_add(Duration::from_secs(30)));
    let mut changes = Changes::default();
    changes.put("a", Some(Bytes::from_static(b"\x01")), None);
    changes.set_after(Some(newest));
    let saved = run(inner.save(None, &changes, NOW)).unwrap();
    let Saved::Stored { record, .. } = saved else { panic!("{saved:?}") };
    assert!(record.recency() > newest, "{record:?}");
}

// If the reply was lost, the old entry may be gone: then only the new one is left of the session.
#[test]
fn a_failed_regenerate_removes_the_new_entry_unless_the_backend_is_away() {
    let cases: [(fn() -> Error, u32); 2] =
        [(|| Error::unavailable("it is away"), 0), (|| Error::new(Kind::Internal("it is broken")), 1)];
    for (error, removed) in cases {
        let inner = inner(Failing { error, deleted: 0.into() }, &system_random());
        let base = run(inner.create(payload(b"\x81\xa1a\x01"), None, NOW)).unwrap().unwrap();
        let error = run(inner.regenerate(base, &Changes::default(), NOW)).unwrap_err();
        assert_eq!(inner.backend.deleted.load(std::sync::atomic::Ordering::Relaxed), removed, "{error}");
    }
}

// Found by fuzzing: a tombstone was touched, and the response then set the old token again, over the new one.
#[cfg(feature = "memory")]
#[test]
fn a_renewal_that_a_regenerate_overtook_sets_no_cookie() {
    let inner = inner(super::super::Memory::new(), &system_random());
    let base = run(inner.create(payload(b"\x81\xa1a\x01"), None, NOW)).unwrap().unwrap();
    let renewed = run(inner.save(Some(base.clone()), &Changes::default(), NOW)).unwrap();
    assert!(matches!(renewed, Saved::Stored { .. }), "{renewed:?}");
    run(inner.regenerate(base.clone(), &Changes::default(), NOW)).unwrap();
    let renewed = run(inner.save(Some(base), &Changes::default(), NOW)).unwrap();
    assert!(matches!(renewed, Saved::Ended), "{renewed:?}");
}

// A tombstone lasts a minute, however often the old cookie comes: it is not renewed like a session.
#[cfg(feature = "memory")]
#[test]
fn a_renewal_does_not_keep_alive_what_a_regenerate_left() {
    let inner = inner(super::super::Memory::new(), &system_random());
    let base = run(inner.create(payload(b"\x81\xa1a\x01"), None, NOW)).unwrap().unwrap();
    run(inner.regenerate(base.clone(), &Changes::default(), NOW)).unwrap();
    let mark = || run(inner.backend.fetch(entry_of_record(&base), NOW)).unwrap().unwrap();
    let left = mark();
    assert_eq!(left.expires, inner.tombstone_expires(NOW));
    run(inner.save(Some(base.clone()), &Changes::default(), NOW)).unwrap();
    assert_eq!(mark(), left);
}

// A request that starts over after another request gave the browser a new token finds the tombstone, and does not overwrite
// it.
#[cfg(feature = "memory")]
#[test]
fn starting_over_leaves_the_mark_of_another_request_alone() {
    let inner = inner(super::super::Memory::new(), &system_random());
    let base = run(inner.create(payload(b"\x81\xa1a\x01"), None, NOW)).unwrap().unwrap();
    run(inner.regenerate(base.clone(), &Changes::default(), NOW)).unwrap();
    let mark = || run(inner.backend.fetch(entry_of_record(&base), NOW)).unwrap().unwrap();
    let left = mark();
    assert!(!run(inner.supersede(&base, NOW)).unwrap());
    assert_eq!(mark(), left);
}

#[cfg(feature = "memory")]
#[test]
fn a_session_is_superseded_once() {
    let inner = inner(super::super::Memory::new(), &system_random());
    let create = || run(inner.create(payload(b"\x81\xa1a\x01"), None, NOW)).unwrap().unwrap();
    let (base, missing) = (create(), create());
    run(inner.end_for_good(&missing, NOW)).unwrap();
    let supersede = |base| run(inner.supersede(base, NOW)).unwrap();
    assert_eq!([supersede(&base), supersede(&base), supersede(&missing)], [true, false, false]);
}

// T14: no random bytes, no session. A generator that only gives used ids is broken.
#[test]
fn t14_no_random_no_token() {
    assert!(create(&(Arc::new(NoRandom) as Arc<dyn Random>)).unwrap_err().is_random());
    assert!(create(&system_random()).unwrap_err().is_random());
}

#[test]
fn the_first_random_number_is_drawn_while_the_store_is_built() {
    let random = Arc::new(CountingRandom::default());
    inner(Full, &(random.clone() as Arc<dyn Random>));
    assert!(random.calls() > 0);
}

#[cfg(feature = "memory")]
#[test]
fn an_entry_is_newer_than_what_it_replaces_whatever_the_clock_says() {
    let store = ServerStore { inner: inner(super::super::Memory::new(), &system_random()) };
    let inner = &store.inner;
    let at = Timestamp::from_unix;
    let base = run(inner.create(payload(b"\x81\xa1a\x01"), None, at(120))).unwrap().unwrap();
    let mut last = base.clone();
    for now in [120, 119, 50, 0] {
        let (value, expected) = (seen(&last).unwrap().value, Expected::of(&last).unwrap());
        let written =
            run(inner.replace(&last, expected, payload(b"\x81\xa1a\x02"), &value, at(now), 0)).unwrap();
        let SaveAttempt::Done(Saved::Stored { record, .. }) = written else { panic!("{now}") };
        assert!(record.recency() > last.recency(), "{now}");
        last = record;
        let loaded = run(inner.load(token_of(&last).unwrap().clone(), at(120))).unwrap().unwrap();
        assert_eq!(loaded.recency(), last.recency(), "{now}");
    }
    // Moved here from another place, and given another token.
    let adopted = run(store.adopt(last.clone(), Arc::new(Changes::default()), at(50))).unwrap();
    let moved = run(inner.regenerate(last.clone(), &Changes::default(), at(50))).unwrap();
    for saved in [adopted, moved] {
        let Saved::Stored { record, .. } = saved else { panic!("{saved:?}") };
        assert!(record.recency() > last.recency());
    }
}
