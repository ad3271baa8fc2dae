//! Endings by an old token or an old id: they end the session that continues from it.

use bytes::Bytes;

use super::super::end::{LastRead, Leaves};
use super::super::format::EntryValue;
use super::*;
use crate::crypto::AppKey;
use crate::session::SUPERSEDED_FOR;
use crate::store::backend::EVEN_IF_EXPIRED;
use crate::store::{EndedBy, Memory};

const VISITOR: &[u8] = b"\x81\xa1a\x01";
const ADA: &[u8] = b"\x81\xa2\x01s\xa3ada";

/// The reserved key of the subject.
const SUBJECT: &str = "\u{1}s";

/// A backend in memory that does not compare one of its entries, and may not read it either.
#[derive(Default)]
struct Refusing {
    memory: Memory,
    refuses: std::sync::Mutex<Option<EntryId>>,
    read_error: std::sync::Mutex<Option<fn() -> Error>>,
}

impl Backend for Refusing {
    async fn fetch(&self, id: EntryId, now: Timestamp) -> Result<Option<Stored>, Error> {
        let refuses = *self.refuses.lock().unwrap() == Some(id);
        let error = self.read_error.lock().unwrap().filter(|_| refuses);
        match error {
            Some(error) => Err(error()),
            None => self.memory.fetch(id, now).await,
        }
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
        if *self.refuses.lock().unwrap() == Some(id) {
            return Err(Error::unavailable("comparing is not permitted"));
        }
        self.memory.replace(id, expected, entry, now).await
    }

    async fn touch(&self, id: EntryId, expires: Timestamp, now: Timestamp) -> Result<bool, Error> {
        self.memory.touch(id, expires, now).await
    }

    async fn delete(&self, id: EntryId) -> Result<(), Error> {
        self.memory.delete(id).await
    }
}

const TOO_LONG: fn() -> Error = || Error::unreadable("too long");
const DOWN: fn() -> Error = || Error::unavailable("down");

type World = ServerStore<Refusing>;

fn world() -> World {
    ServerStore { inner: inner(Refusing::default(), &system_random()) }
}

fn sealed() -> World {
    let builder = ServerStore::with_backend(Refusing::default()).clock(TestClock::at(NOW.as_unix()));
    builder.seal_records(AppKey::generate().unwrap()).build().unwrap()
}

fn begin(store: &World, values: &'static [u8]) -> Record {
    run(store.inner.create(payload(values), None, NOW)).unwrap().unwrap()
}

fn login(subject: &'static [u8]) -> Changes {
    login_after(Changes::default(), subject)
}

fn login_after(mut changes: Changes, subject: &'static [u8]) -> Changes {
    changes.put(SUBJECT, Some(Bytes::from_static(subject)), None);
    changes
}

fn moved(store: &World, base: &Record, changes: &Changes) -> Record {
    let saved = run(store.inner.regenerate(base.clone(), changes, NOW)).unwrap();
    let Saved::Stored { record, .. } = saved else { panic!("{saved:?}") };
    record
}

fn regenerated(store: &World, base: &Record) -> Record {
    moved(store, base, &Changes::default())
}

/// A session that was given so many tokens, as it was at first and as it is by now.
fn chain(store: &World, tokens: usize) -> (Record, Record) {
    let first = begin(store, ADA);
    let last = (0..tokens).fold(first.clone(), |last, _| regenerated(store, &last));
    (first, last)
}

fn stored(store: &World, record: &Record) -> Option<EntryValue> {
    let stored = run(store.inner.backend.memory.fetch(entry_of_record(record), EVEN_IF_EXPIRED)).unwrap()?;
    store.inner.format.decode(entry_of_record(record), &stored.value)
}

fn lives(store: &World, record: &Record) -> bool {
    matches!(stored(store, record), Some(EntryValue::Session(..)))
}

fn listed(store: &World) -> Vec<SessionId> {
    let list = run(store.inner.list("ada", NOW)).unwrap();
    list.entries.iter().map(|entry| entry.id).collect()
}

fn token(record: &Record) -> Vec<u8> {
    token_of(record).unwrap().to_text().expose().to_vec()
}

/// Every way in which a request ends its session, or one whose token was superseded.
fn endings() -> [fn(&World, &Record, Timestamp); 4] {
    [
        |store, old, now| run(store.inner.end_for_good(old, now)).unwrap(),
        |store, old, now| run(store.end_superseded(&token(old), None, EndedBy::Logout, now)).unwrap(),
        |store, old, now| run(store.end_unusable(&token(old), None, now)).unwrap(),
        |store, old, now| {
            let mut changes = Changes::restarted();
            changes.put("notice", Some(Bytes::from_static(b"\x01")), None);
            let saved = run(store.inner.regenerate(old.clone(), &changes, now)).unwrap();
            assert!(matches!(saved, Saved::Stored { .. }), "{saved:?}");
        },
    ]
}

#[test]
fn r1_a_logout_with_an_old_token_ends_the_session_that_continues_from_it() {
    for world in [world as fn() -> World, sealed] {
        for values in [VISITOR, ADA] {
            for (number, end) in endings().into_iter().enumerate() {
                for tokens in 1..4 {
                    let store = world();
                    let first = begin(&store, values);
                    let mut last = first.clone();
                    for _ in 0..tokens {
                        last = regenerated(&store, &last);
                    }
                    assert!(lives(&store, &last));
                    end(&store, &first, NOW);
                    assert!(!lives(&store, &last), "ending {number} after {tokens} tokens");
                    assert_eq!(listed(&store), []);
                    // Late requests with the token before the last one leave the cookie of a new login as it is.
                    let refused = run(store.inner.load(token_of(&first).unwrap().clone(), NOW)).unwrap();
                    assert!(matches!(refused, Err(Refusal::Regenerated)), "{refused:?}");
                }
            }
        }
    }
}

/// A new beginning leaves its tombstone where the session was: late requests with that token must not remove its cookie.
#[test]
fn a_new_beginning_leaves_a_tombstone_under_the_latest_token() {
    let store = world();
    let first = begin(&store, ADA);
    let last = regenerated(&store, &first);
    run(store.inner.end_with_successors(LastRead::of(&first).unwrap(), Leaves::Tombstones, None, NOW))
        .unwrap();
    assert!(matches!(stored(&store, &last), Some(EntryValue::Tombstone(None))));
    assert!(matches!(stored(&store, &first), Some(EntryValue::Tombstone(Some(next))) if next == last.id()));
}

/// The token of a visitor may be known to an attacker, who has planted it. A login of another user begins another session.
#[test]
fn a_logout_with_an_old_token_ends_no_session_of_another_subject() {
    for end in endings() {
        let store = world();
        let visitor = begin(&store, VISITOR);
        let user = moved(&store, &visitor, &login(b"\xa3ada"));
        assert!(matches!(stored(&store, &visitor), Some(EntryValue::Tombstone(None))));
        end(&store, &visitor, NOW);
        assert!(lives(&store, &user));
        assert_eq!(listed(&store), [user.id()]);

        let again = moved(&store, &user, &login(b"\xa3ada"));
        let bob = moved(&store, &again, &login_after(Changes::restarted(), b"\xa3bob"));
        end(&store, &user, NOW);
        assert!(lives(&store, &bob));
    }
}

/// The same user has logged in again: the browser that logs out is the same.
#[test]
fn a_logout_with_an_old_token_ends_the_session_of_a_further_login() {
    for end in endings() {
        let store = world();
        let user = begin(&store, ADA);
        let again = moved(&store, &user, &login(b"\xa3ada"));
        end(&store, &user, NOW);
        assert!(!lives(&store, &again));
    }
}

#[test]
fn a_login_with_an_old_token_leaves_the_session_alone_and_so_does_the_session_of_the_request() {
    let store = world();
    let first = begin(&store, ADA);
    let second = regenerated(&store, &first);
    let third = regenerated(&store, &second);
    run(store.end_superseded(&token(&first), None, EndedBy::Login, NOW)).unwrap();
    run(store.end_superseded(&token(&first), Some(&third), EndedBy::Logout, NOW)).unwrap();
    run(store.end_unusable(&token(&first), Some(&third), NOW)).unwrap();
    assert!(lives(&store, &third));
    assert_eq!(listed(&store), [third.id()]);
    run(store.end_superseded(&token(&first), Some(&begin(&store, ADA)), EndedBy::Logout, NOW)).unwrap();
    assert!(!lives(&store, &third));
}

#[test]
fn r1_an_old_id_ends_the_session_that_continues_from_it() {
    let store = world();
    let first = begin(&store, ADA);
    let second = regenerated(&store, &first);
    let third = regenerated(&store, &second);
    let end = |subject, id| run(store.end_session_of(subject, id)).unwrap();
    assert!(!end("eve", first.id()) && lives(&store, &third), "it is not hers");
    assert!(end("ada", first.id()));
    assert!(!lives(&store, &third));
    assert_eq!(listed(&store), []);
    assert!(!end("ada", first.id()) && !end("ada", third.id()), "it has ended already");
}

/// The session to keep is not ended by way of its old id, which the list may still have.
#[test]
fn ending_the_others_keeps_a_session_that_was_just_given_another_token() {
    let store = world();
    let first = begin(&store, ADA);
    let second = regenerated(&store, &first);
    // As if the list could not be written when the session left it.
    let entered = run(store.inner.enter("ada", first.id(), None, Timestamp::MAX, NOW));
    assert!(entered.unwrap());
    assert_eq!(run(store.end_sessions_of("ada", Some(second.id()))).unwrap(), 0);
    assert!(lives(&store, &second));
    assert_eq!(listed(&store), [second.id()]);
}

/// A slow request may have loaded it in time.
#[test]
fn a_logout_with_an_old_token_ends_a_session_that_has_expired_meanwhile() {
    let store = world();
    let first = begin(&store, ADA);
    let second = regenerated(&store, &first);
    let now = second.expires().saturating_add(Duration::from_secs(1));
    let slow = run(store.inner.backend.memory.fetch(entry_of_record(&second), now)).unwrap();
    assert!(slow.is_none());
    run(store.inner.end_for_good(&first, now)).unwrap();
    assert!(stored(&store, &second).is_none());
}

/// Deleting may be permitted where comparing is not.
#[test]
fn a_logout_that_may_not_compare_deletes() {
    let store = world();
    for refused in 0..2 {
        let first = begin(&store, ADA);
        let second = regenerated(&store, &first);
        let refused = [&first, &second][refused];
        *store.inner.backend.refuses.lock().unwrap() = Some(entry_of_record(refused));
        run(store.inner.end_for_good(&first, NOW)).unwrap();
        assert!(stored(&store, &second).is_none());
        assert_eq!(listed(&store), []);
    }
}

/// A foreign writer has overwritten the entry since it was loaded.
#[test]
fn a_logout_deletes_an_entry_that_became_unreadable() {
    let store = world();
    let record = begin(&store, ADA);
    *store.inner.backend.refuses.lock().unwrap() = Some(entry_of_record(&record));
    *store.inner.backend.read_error.lock().unwrap() = Some(TOO_LONG);
    run(store.inner.end_for_good(&record, NOW)).unwrap();
    assert!(stored(&store, &record).is_none());
    assert_eq!(listed(&store), []);
}

/// A repetition then finds the session.
#[test]
fn an_ending_that_cannot_read_an_old_token_is_an_error_and_deletes_nothing() {
    let store = world();
    let first = begin(&store, ADA);
    let second = regenerated(&store, &first);
    *store.inner.backend.refuses.lock().unwrap() = Some(entry_of_record(&first));
    *store.inner.backend.read_error.lock().unwrap() = Some(DOWN);
    let ended = run(store.end_superseded(&token(&first), None, EndedBy::Logout, NOW));
    assert!(ended.unwrap_err().is_unavailable());
    assert!(run(store.inner.end_by_id("ada", first.id(), NOW)).unwrap_err().is_unavailable());
    assert!(matches!(stored(&store, &first), Some(EntryValue::Tombstone(Some(_)))) && lives(&store, &second));
    // An entry of a foreign program under that id is not a session of the user.
    *store.inner.backend.read_error.lock().unwrap() = Some(TOO_LONG);
    assert!(!run(store.inner.end_by_id("ada", first.id(), NOW)).unwrap());
}

/// The tombstone that the browser's old token needs cannot be left without comparing.
#[test]
fn a_new_beginning_that_may_not_compare_is_an_error_and_leaves_the_session() {
    let store = world();
    let first = begin(&store, ADA);
    *store.inner.backend.refuses.lock().unwrap() = Some(entry_of_record(&first));
    let begun = run(store.inner.regenerate(first.clone(), &Changes::restarted(), NOW));
    assert!(begun.unwrap_err().is_unavailable() && lives(&store, &first));
}

/// The request took longer than the minute that a tombstone lasts. The backend still has it for slow requests.
#[test]
fn r1_a_slow_logout_follows_a_tombstone_that_has_expired() {
    for end in endings() {
        let store = world();
        let first = begin(&store, ADA);
        let second = regenerated(&store, &first);
        let last = regenerated(&store, &second);
        let late = NOW.saturating_add(SUPERSEDED_FOR + Duration::from_secs(1));
        assert_eq!(run(store.inner.backend.memory.fetch(entry_of_record(&first), late)).unwrap(), None);
        end(&store, &first, late);
        assert!(!lives(&store, &last));
        assert_eq!(listed(&store), []);
    }
}

/// A new beginning also ends a session whose deadline was moved forward, and has passed: a slower request could renew it.
#[test]
fn a_slow_new_beginning_ends_a_session_that_has_expired_earlier() {
    let store = world();
    let first = begin(&store, ADA);
    let sooner = NOW.saturating_add(Duration::from_secs(10));
    assert!(run(store.inner.backend.memory.touch(entry_of_record(&first), sooner, NOW)).unwrap());
    let late = sooner.saturating_add(Duration::from_secs(1));
    run(store.inner.end_with_successors(LastRead::of(&first).unwrap(), Leaves::Tombstones, None, late))
        .unwrap();
    assert!(!lives(&store, &first));
}

#[test]
fn as_many_tombstones_are_followed_as_docs_design_md_says() {
    for (tombstones, is_ended) in [(4, true), (5, false)] {
        for end in endings() {
            let store = world();
            let (first, last) = chain(&store, tombstones);
            end(&store, &first, NOW);
            assert_eq!(!lives(&store, &last), is_ended);
        }
        let store = world();
        let (first, last) = chain(&store, tombstones);
        assert_eq!(run(store.end_session_of("ada", first.id())).unwrap(), is_ended);
        assert_eq!(!lives(&store, &last), is_ended);
    }
}

/// No store writes such tombstones. A program that can write to the backend could.
#[test]
fn tombstones_in_a_circle_are_not_followed_for_ever() {
    let store = world();
    let (one, two) = (begin(&store, ADA), begin(&store, ADA));
    let end = |record: &Record, next: SessionId| {
        let key = entry_of_record(record);
        let tombstone = store.inner.tombstone(key, Some(next), NOW).unwrap();
        run(store.inner.backend.memory.delete(key)).unwrap();
        assert!(run(store.inner.backend.memory.create(key, tombstone, NOW)).unwrap());
    };
    end(&one, two.id());
    end(&two, one.id());
    run(store.inner.end_for_good(&one, NOW)).unwrap();
    assert!(!run(store.end_session_of("ada", one.id())).unwrap());
}

/// As docs/WIRE.md has it.
#[test]
fn a_tombstone_names_the_next_session_id_or_none() {
    let store = world();
    let (first, next) = (begin(&store, ADA), SessionId::from_bytes([7; 16]));
    let encode = |store: &World, next| {
        store.inner.format.encode_tombstone(entry_of_record(&first), next, NOW).unwrap()
    };
    let decode = |store: &World, id, value: &[u8]| {
        store.inner.format.decode(id, &Bytes::copy_from_slice(value)).map(|value| match value {
            EntryValue::Tombstone(next) => next,
            _ => panic!("another kind"),
        })
    };
    let (plain, naming) = (encode(&store, None), encode(&store, Some(next)));
    assert_eq!((plain.len(), plain[0]), (9, 2));
    assert_eq!((naming.len(), naming[0], &naming[9..]), (25, 5, &[7; 16][..]));
    assert_eq!(decode(&store, entry_of_record(&first), &plain), Some(None));
    assert_eq!(decode(&store, entry_of_record(&first), &naming), Some(Some(next)));
    for value in [&plain, &naming] {
        assert_eq!(decode(&store, entry_of_record(&first), &value[..value.len() - 1]), None);
        assert_eq!(decode(&store, entry_of_record(&first), &[value, &[0][..]].concat()), None);
    }

    let sealed = sealed();
    let naming = encode(&sealed, Some(next));
    assert_eq!(naming[0], 4);
    assert!(!naming.windows(16).any(|bytes| bytes == [7; 16]));
    assert_eq!(decode(&sealed, entry_of_record(&first), &naming), Some(Some(next)));
    assert_eq!(decode(&sealed, entry_of_session(next), &naming), None, "it is bound to its entry");
    assert_eq!(
        decode(&sealed, entry_of_record(&first), &encode(&store, Some(next))),
        None,
        "it is not sealed"
    );
}
