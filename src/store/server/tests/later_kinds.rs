//! Values that a newer release or another host wrote, and that this one cannot read. They are not taken for damaged ones.

use bytes::Bytes;

use super::super::format::EntryValue;
use super::*;
use crate::crypto::{AppKey, Purpose};
use crate::store::Memory;
use crate::store::backend::EVEN_IF_EXPIRED;

const ADA: &[u8] = b"\x81\xa2\x01s\xa3ada";

type World = ServerStore<Arc<Memory>>;

fn key() -> AppKey {
    AppKey::from_bytes(b"6o2Wx9Qk1Zr8Lp4Tn7Vb3Hd5Jf0Sg2Mc").unwrap()
}

fn builder(memory: &Arc<Memory>) -> Builder<Arc<Memory>> {
    ServerStore::with_backend(Arc::clone(memory)).clock(TestClock::at(NOW.as_unix()))
}

fn worlds() -> [(World, bool); 2] {
    let memories = [(); 2].map(|()| Arc::new(Memory::new()));
    let [clear, sealed] = memories.map(|memory| builder(&memory).check_session_list(true));
    [(clear.build().unwrap(), false), (sealed.seal_records(key()).build().unwrap(), true)]
}

fn begin(store: &World) -> Record {
    run(store.inner.create(payload(ADA), None, NOW)).unwrap().unwrap()
}

/// Seals a value as a release does that has other kinds.
fn sealed_as(purpose: Purpose, name: &str, id: EntryId, plaintext: &[u8]) -> Vec<u8> {
    let sealer = Sealer::new(&key().into(), purpose, name, system_random()).unwrap();
    [&[4][..], &sealer.seal_bytes(NOW, &id.to_bytes(), &[plaintext]).unwrap()].concat()
}

fn sealed(store: &World, id: EntryId, plaintext: &[u8]) -> Vec<u8> {
    sealed_as(Purpose::Record, &store.inner.name, id, plaintext)
}

/// Puts this value into the entry. Returns the value that was there.
fn put(store: &World, id: EntryId, value: &[u8]) -> Bytes {
    let backend = &store.inner.backend;
    let there = run(backend.fetch(id, NOW)).unwrap().unwrap();
    run(backend.delete(id)).unwrap();
    let entry = Stored { value: Bytes::copy_from_slice(value), ..there };
    assert!(run(backend.create(id, entry, NOW)).unwrap());
    there.value
}

fn load(store: &World, record: &Record) -> Result<SessionId, Refusal> {
    run(store.inner.load(token_of(record).unwrap().clone(), NOW)).unwrap().map(|record| record.id())
}

fn exists(store: &World, id: EntryId) -> bool {
    run(store.inner.backend.fetch(id, EVEN_IF_EXPIRED)).unwrap().is_some()
}

/// The session's entry, or the session list that decides.
#[test]
fn b2_a_value_of_a_later_kind_keeps_its_cookie_whether_or_not_it_is_sealed() {
    for (store, seals) in worlds() {
        let record = begin(&store);
        for id in [entry_of_record(&record), store.inner.list_of("ada")] {
            for kind in [6, 0x1f] {
                for clear in [vec![kind], [&[kind][..], b"revision and more"].concat()] {
                    let mut values = vec![clear.clone()];
                    if seals {
                        values.push(sealed(&store, id, &clear));
                    }
                    for value in values {
                        let there = put(&store, id, &value);
                        let refusal = load(&store, &record).unwrap_err();
                        assert_eq!(refusal, Refusal::Version, "{value:?}");
                        assert!(!refusal.removes_cookie());
                        put(&store, id, &there);
                    }
                }
            }
        }
        assert_eq!(load(&store, &record), Ok(record.id()));
    }
}

/// It may be a session that a newer host reads.
#[test]
fn a_logout_ends_an_entry_of_a_later_kind_whether_or_not_it_is_sealed() {
    for (store, seals) in worlds() {
        let (record, other) = (begin(&store), begin(&store));
        let id = entry_of_record(&record);
        let clear = b"\x06revision";
        put(&store, id, &if seals { sealed(&store, id, clear) } else { clear.to_vec() });
        put(&store, entry_of_record(&other), b"\x20revision");
        for record in [&record, &other] {
            let token = token_of(record).unwrap().to_text();
            run(store.end_unusable(token.expose(), None, NOW)).unwrap();
        }
        assert!(!exists(&store, id));
        assert!(exists(&store, entry_of_record(&other)), "no release writes that kind");
    }
}

/// As docs/WIRE.md has it: a login must succeed, although the list may name other sessions.
#[test]
fn a_login_overwrites_a_list_of_a_later_kind_whether_or_not_it_is_sealed() {
    for (store, seals) in worlds() {
        let (record, list) = (begin(&store), store.inner.list_of("ada"));
        let clear = b"\x06revision";
        put(&store, list, &if seals { sealed(&store, list, clear) } else { clear.to_vec() });
        assert!(run(store.sessions_of("ada")).is_err(), "it does not count as empty");
        assert_eq!(load(&store, &record), Err(Refusal::Version));
        let login = begin(&store);
        assert_eq!(load(&store, &login), Ok(login.id()));
        assert_eq!(load(&store, &record), Err(Refusal::UnknownId));
    }
}

/// Only the key makes a value that keeps its cookie, and only for its entry.
#[test]
fn b2_a_sealed_value_that_is_forged_moved_or_damaged_removes_the_cookie() {
    let [_, (store, _)] = worlds();
    let (record, other) = (begin(&store), begin(&store));
    let (id, name) = (entry_of_record(&record), &*store.inner.name);
    let later = b"\x06revision";
    let genuine = sealed(&store, id, later);
    // After the version and the key's id, which are public, each byte is signed.
    let altered = (6..genuine.len()).map(|at| {
        let mut altered = genuine.clone();
        altered[at] ^= 1;
        altered
    });
    let cut = (1..genuine.len()).map(|len| genuine[..len].to_vec());
    let mut bad: Vec<Vec<u8>> = altered.chain(cut).collect();
    bad.push([&genuine[..], b"\0"].concat());
    bad.push(sealed(&store, entry_of_record(&other), later));
    bad.push(sealed(&store, store.inner.list_of("ada"), later));
    bad.push(sealed_as(Purpose::Session, name, id, later));
    bad.push(sealed_as(Purpose::Record, "other", id, later));
    // Of no kind, of a kind that is not reserved, sealed twice, and of a kind that this release reads.
    for plaintext in [&b""[..], b"\0", b"\x20revision", &genuine, b"\x01", b"\x02", b"\x03revision.", b"\x05"]
    {
        bad.push(sealed(&store, id, plaintext));
    }
    for value in bad {
        let there = put(&store, id, &value);
        assert_eq!(load(&store, &record), Err(Refusal::Payload), "{value:?}");
        put(&store, id, &there);
    }
    assert!(Refusal::Payload.removes_cookie());
    assert_eq!(load(&store, &record), Ok(record.id()));
}

/// A host that seals, and one that does not yet.
#[test]
fn b2_a_value_that_is_sealed_in_a_later_version_keeps_its_cookie() {
    for (store, _) in worlds() {
        let record = begin(&store);
        let id = entry_of_record(&record);
        let mut value = sealed(&store, id, b"\x01");
        value[1] = 2;
        put(&store, id, &value);
        assert_eq!(load(&store, &record), Err(Refusal::Version));
        // No version is as short as that.
        put(&store, id, &value[..21]);
        assert_eq!(load(&store, &record), Err(Refusal::Payload));
    }
}

/// While unsealed entries are accepted, an unsealed list is as good as any: a session that is not on it has ended.
#[test]
fn a_session_that_an_unsealed_list_does_not_name_has_ended() {
    let memory = Arc::new(Memory::new());
    let before = builder(&memory).check_session_list(true).build().unwrap();
    let until = NOW.saturating_add(Duration::from_secs(1));
    let seals = builder(&memory).check_session_list(true).seal_records(key()).accept_unsealed_until(until);
    let seals = seals.build().unwrap();
    let (one, two) = (begin(&before), begin(&before));
    assert_eq!((load(&seals, &one), load(&seals, &two)), (Ok(one.id()), Ok(two.id())));
    run(before.inner.unlist(&one, NOW));
    for store in [&before, &seals] {
        assert_eq!((load(store, &one), load(store, &two)), (Err(Refusal::UnknownId), Ok(two.id())));
    }
}

/// As docs/DESIGN.md has it: the host cannot distinguish the tombstone from a session.
#[test]
fn a_host_that_cannot_read_a_tombstone_deletes_it_and_the_session_goes_on() {
    let memory = Arc::new(Memory::new());
    let [ahead, behind] = [key(), AppKey::generate().unwrap()].map(|key| builder(&memory).seal_records(key));
    let (ahead, behind) = (ahead.build().unwrap(), behind.build().unwrap());
    let first = begin(&ahead);
    let Saved::Stored { record: second, .. } =
        run(ahead.inner.regenerate(first.clone(), &Changes::default(), NOW)).unwrap()
    else {
        panic!("not stored");
    };
    let left = run(memory.fetch(entry_of_record(&first), NOW)).unwrap().unwrap();
    let names = ahead.inner.format.decode(entry_of_record(&first), &left.value);
    assert!(matches!(names, Some(EntryValue::Tombstone(Some(next))) if next == second.id()));
    assert_eq!(load(&behind, &first), Err(Refusal::UnknownKey));
    let token = token_of(&first).unwrap().to_text();
    run(behind.end_unusable(token.expose(), None, NOW)).unwrap();
    assert!(!exists(&ahead, entry_of_record(&first)));
    assert_eq!(load(&ahead, &second), Ok(second.id()));
}
