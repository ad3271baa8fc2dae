//! Sealed records: what an attacker who reads or writes the backend can learn and do.

use std::sync::{Arc, Mutex};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD as BASE64, Engine};
use bytes::Bytes;
use hyper_session::cookie::CookieOptions;
use hyper_session::store::EntryId;
use hyper_session::store::{MigratingStore, Store};
use hyper_session::testing::FakeClock;
use hyper_session::{
    AppKey, CookieStore, Keyring, PayloadFormat, Refusal, ServerStore, Session, SessionId, Timestamp,
};
use sha2::Digest as _;

use crate::attack_fixture::{NAME, Options, Rows, START, TestStore, VALUE, assert_removed};
use crate::support::{Events, Jar, block_on, refused, request, set_cookies, status};

const SUBJECT: &str = "ada@example.com";

fn store(rows: &Rows, keys: Option<Keyring>, events: &Events) -> ServerStore<Rows> {
    let builder =
        ServerStore::with_backend(rows.clone()).clock(FakeClock::at(START)).observer(events.clone());
    match keys {
        Some(keys) => builder.seal_records(keys),
        None => builder,
    }
    .build()
    .unwrap()
}

/// An application reads its key from its environment, as often as it likes.
fn copy(key: &AppKey) -> AppKey {
    key.to_text().parse().unwrap()
}

/// The world of a server whose records are sealed under the first of `keys`.
fn sealed(rows: &Rows, keys: impl Into<Keyring>) -> (TestStore, ServerStore<Rows>) {
    let events = Events::new();
    let store = store(rows, Some(keys.into()), &events);
    (TestStore { store: Arc::new(store.clone()), clock: FakeClock::at(START), events }, store)
}

/// In a rotation, or where one host does not seal yet: each of these entries costs a round trip, so few are asked for.
#[test]
fn entries_that_this_host_cannot_open_are_fetched_within_the_limit_of_candidates() {
    let (old, new) = (AppKey::generate().unwrap(), AppKey::generate().unwrap());
    let rows = Rows::default();
    let (ahead, _) = sealed(&rows, Keyring::new(new).accept(copy(&old)));
    let tokens: Vec<_> = block_on(async {
        let mut tokens = Vec::new();
        for _ in 0..10 {
            tokens.push(ahead.token().await);
        }
        tokens
    });
    let header = tokens.iter().map(|token| format!("{NAME}={token}")).collect::<Vec<_>>().join("; ");
    let events = Events::new();
    let unsealed = Arc::new(store(&rows, None, &events));
    let unsealed = TestStore { store: unsealed, clock: FakeClock::at(START), events };
    for behind in [sealed(&rows, old).0, unsealed] {
        rows.with(|table| table.fetched.clear());
        let (seen, response) = block_on(behind.present(header.as_bytes()));
        assert_eq!((seen, set_cookies(response.headers())), (None, vec![]));
        assert_eq!(rows.with(|table| table.fetched.len()), 4);
        let mut expected = vec![refused(Refusal::UnknownKey); 4];
        expected.push("too_many_candidates".to_owned());
        assert_eq!(behind.events.take(), expected);
        assert_eq!(rows.with(|table| table.rows.len()), 10);
    }
}

/// Each of the four candidates may be a superseded token, and each tombstone that it leads to is a read after the one before. An ending
/// follows four of them.
#[test]
fn a_logout_with_four_superseded_tokens_reads_twenty_entries_at_most() {
    for tokens in [5, 9] {
        let rows = Rows::default();
        let world = Options::default().over(&rows);
        block_on(async {
            let (mut first, mut last) = (Vec::new(), Vec::new());
            for _ in 0..6 {
                let mut jar = world.jar().await;
                first.push(format!("{NAME}={}", jar.get(NAME).unwrap()));
                for _ in 1..tokens {
                    world.edit(&mut jar, Session::regenerate).await;
                }
                last.push(jar);
            }
            rows.with(|table| table.fetched.clear());
            world.present(first.join("; ").as_bytes()).await;
            let loads = rows.with(|table| std::mem::take(&mut table.fetched).len());
            let request = request("/", Some(&first.join("; ")));
            let response = world.send(request, |session| session.destroy().map(|()| status(200))).await;
            assert_eq!((loads, response.status().as_u16()), (4, 200));
            assert_eq!(rows.with(|table| table.fetched.len()), loads + 20);
            let mut live = 0;
            for jar in &last {
                live += usize::from(world.value(jar).await.is_some());
            }
            assert_eq!(live, if tokens == 5 { 2 } else { 6 }, "four tombstones lead to the fifth token");
        });
    }
}

/// While sessions move to cookies, the old store is asked for tokens whose form is not that of a cookie.
#[test]
fn tokens_that_a_migration_looks_up_are_fetched_within_the_limit_of_candidates() {
    // By the first byte, a token of a server has the version of a cookie, or another.
    for (first, refusal) in [(1, Refusal::Length), (2, Refusal::Version)] {
        let (rows, events) = (Rows::default(), Events::new());
        let old = store(&rows, None, &events);
        let new = CookieStore::builder(AppKey::generate().unwrap())
            .clock(FakeClock::at(START))
            .observer(events.clone())
            .build()
            .unwrap();
        let both = Arc::new(MigratingStore::new(new, old, Timestamp::MAX).unwrap());
        let world = TestStore { store: both, clock: FakeClock::at(START), events };
        let tokens = (0..10).map(|number| {
            let mut token = [number; 32];
            token[0] = first;
            format!("{NAME}={}", BASE64.encode(token))
        });
        let header = tokens.collect::<Vec<_>>().join("; ");
        let (seen, response) = block_on(world.present(header.as_bytes()));
        assert_eq!((seen, set_cookies(response.headers())), (None, vec![]));
        assert_eq!(rows.with(|table| table.fetched.len()), 4, "{refusal}");
        let mut expected = vec![refused(refusal); 4];
        expected.push("too_many_candidates".to_owned());
        assert_eq!(world.events.take(), expected);
    }
}

fn log_in(session: &Session) -> Result<(), hyper_session::Error> {
    session.set("a", VALUE)?;
    session.set("secret-key", 1)?;
    session.login(SUBJECT)
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

fn entry_of(id: SessionId) -> EntryId {
    EntryId::from_bytes(id.to_bytes())
}

fn value_of(rows: &Rows, id: SessionId) -> Bytes {
    rows.with(|table| table.rows[&entry_of(id)].value.clone())
}

fn put(rows: &Rows, id: SessionId, value: &[u8]) {
    rows.with(|table| table.rows.get_mut(&entry_of(id)).unwrap().value = Bytes::copy_from_slice(value));
}

/// The id of what is there of a subject's sessions: the one row that no session has.
fn list(rows: &Rows, sessions: &[SessionId]) -> SessionId {
    let others: Vec<_> = rows.ids().into_iter().filter(|id| !sessions.contains(id)).collect();
    assert_eq!(others.len(), 1);
    others[0]
}

#[test]
fn t74_t78_a_dump_of_sealed_rows_reveals_no_value_and_no_subject() {
    block_on(async {
        for keys in [None, Some(AppKey::generate().unwrap())] {
            let (rows, events) = (Rows::default(), Events::new());
            let seals = keys.is_some();
            let store = Arc::new(store(&rows, keys.map(Keyring::new), &events));
            let world = TestStore { store, clock: FakeClock::at(START), events };
            let mut jar = Jar::new();
            world.edit(&mut jar, log_in).await;
            world.edit(&mut jar, Session::regenerate).await;
            let token = BASE64.decode(jar.get(NAME).unwrap()).unwrap();
            // The session, what it left when it was regenerated, the list.
            let dump = rows.with(|table| {
                let rows = table.rows.iter();
                rows.map(|(id, stored)| [&id.to_bytes()[..], &stored.value].concat()).collect::<Vec<_>>()
            });
            assert_eq!(dump.len(), 3);
            let id = world.id(&jar).await.unwrap();
            let shows = |needle: &[u8]| dump.iter().any(|row| contains(row, needle));
            for clear in [VALUE.as_bytes(), SUBJECT.as_bytes(), b"secret-key", &START.to_be_bytes()[3..]] {
                assert_eq!(shows(clear), !seals, "{clear:?}");
            }
            assert!(!shows(&token[..8]) && !shows(&token[24..]));
            // Only a list and a tombstone that are not sealed show which sessions are one person's.
            let naming = dump.iter().filter(|row| contains(&row[16..], &id.to_bytes())).count();
            assert_eq!(naming, if seals { 0 } else { 2 });
            assert_eq!(world.value(&jar).await.as_deref(), Some(VALUE));
        }
    });
}

#[test]
fn t78_rows_that_are_swapped_do_not_open() {
    block_on(async {
        let rows = Rows::default();
        let (world, store) = sealed(&rows, AppKey::generate().unwrap());
        let (mut ada, mut eve) = (Jar::new(), Jar::new());
        world.edit(&mut ada, log_in).await;
        world.edit(&mut eve, |session| session.login("eve")).await;
        let ids = [world.id(&ada).await.unwrap(), world.id(&eve).await.unwrap()];
        let values = ids.map(|id| value_of(&rows, id));
        world.events.take();
        put(&rows, ids[0], &values[1]);
        put(&rows, ids[1], &values[0]);
        for jar in [&ada, &eve] {
            let (value, response) = world.present(jar.header().unwrap().as_bytes()).await;
            assert_eq!(value, None);
            assert_removed(&response);
            assert_eq!(world.events.take(), [refused(Refusal::Payload)]);
        }
        put(&rows, ids[0], &values[0]);
        put(&rows, ids[1], &values[1]);
        assert_eq!(world.value(&ada).await.as_deref(), Some(VALUE));

        // Nor do lists: eve's list under the id of ada's would have eve's sessions shown and ended as ada's.
        let all: Vec<_> = rows.ids().into_iter().filter(|id| !ids.contains(id)).collect();
        let lists = [value_of(&rows, all[0]), value_of(&rows, all[1])];
        put(&rows, all[0], &lists[1]);
        put(&rows, all[1], &lists[0]);
        for subject in [SUBJECT, "eve"] {
            assert!(store.sessions_of(subject).await.unwrap_err().is_unavailable());
            assert!(store.end_sessions_of(subject, None).await.unwrap_err().is_unavailable());
        }
        // A list where a session should be, and the other way round.
        put(&rows, ids[0], &lists[0]);
        put(&rows, all[0], &values[0]);
        assert_eq!(world.value(&ada).await, None);
        assert_eq!(world.events.take(), [refused(Refusal::Payload)]);
    });
}

#[test]
fn t02_t78_a_row_that_was_altered_planted_or_clear_is_no_session() {
    block_on(async {
        let key = AppKey::generate().unwrap();
        let rows = Rows::default();
        let (world, _) = sealed(&rows, copy(&key));
        let jar = world.jar().await;
        let good = rows.only_value();
        assert_eq!(good[0], 4);

        let mut bad: Vec<Vec<u8>> = (0..good.len() * 8)
            .map(|bit| {
                let mut altered = good.to_vec();
                altered[bit / 8] ^= 1 << (bit % 8);
                altered
            })
            .collect();
        bad.extend((0..good.len()).map(|len| good[..len].to_vec()));
        bad.push([&good[..], b"\0"].concat());
        // In clear, as it was before sealing was turned on; marks and lists, too.
        let header = [&[1][..], &START.to_be_bytes()[3..], &[0; 4], b"revision"].concat();
        bad.push([&header[..], b"\x81\xa1a\xa1b"].concat());
        bad.push(b"\x02revision".to_vec());
        bad.push(b"\x03revision".to_vec());
        bad.push(b"\x05revisionsixteen bytes id".to_vec());
        // Sealed: under another key, for another cookie, at another place, for another purpose.
        for (other_key, name) in
            [(AppKey::generate().unwrap(), NAME), (copy(&key), "__Host-other"), (copy(&key), NAME)]
        {
            let other = Rows::default();
            let options = CookieOptions::new().name(name);
            let store = ServerStore::with_backend(other.clone())
                .cookie(options)
                .clock(FakeClock::at(START))
                .seal_records(other_key)
                .build()
                .unwrap();
            let planter =
                TestStore { store: Arc::new(store), clock: FakeClock::at(START), events: Events::new() };
            planter.edit(&mut Jar::new(), |session| session.set("a", VALUE)).await;
            bad.push(other.only_value().to_vec());
        }
        let cookie = CookieStore::builder(key).clock(FakeClock::at(START)).build().unwrap();
        let planter =
            TestStore { store: Arc::new(cookie), clock: FakeClock::at(START), events: Events::new() };
        let mut sealed_cookie = Jar::new();
        planter.edit(&mut sealed_cookie, |session| session.set("a", VALUE)).await;
        let token = BASE64.decode(sealed_cookie.get(NAME).unwrap()).unwrap();
        bad.push([&[4][..], &token].concat());

        for row in bad {
            rows.tamper(&row);
            // In another version, or under a key that is not known here, it may be another host's.
            let why = match row.as_slice() {
                [4, version, ..] if *version != 1 && row.len() > 21 => Refusal::Version,
                [4, 1, ..] if row.len() >= 70 && row[2..6] != good[2..6] => Refusal::UnknownKey,
                [6..=0x1f, ..] => Refusal::Version,
                // In clear, it may be from a host that does not seal yet.
                [1..=3 | 5, ..] => Refusal::Unreadable,
                _ => Refusal::Payload,
            };
            let (value, response) = world.present(jar.header().unwrap().as_bytes()).await;
            assert_eq!(value, None, "{row:?}");
            assert_eq!(world.events.take(), [refused(why)], "{row:?}");
            let removed = usize::from(why.removes_cookie());
            assert_eq!(set_cookies(response.headers()).len(), removed, "{why}: {row:?}");
        }
        rows.tamper(&good);
        assert_eq!(world.value(&jar).await.as_deref(), Some(VALUE));
    });
}

/// An entry, or the session list that decides, in a kind of a later release or under a key that this host does not have yet: the
/// session is refused, and the cookie stays for the hosts that can read it.
#[test]
fn b2_an_entry_that_a_host_cannot_judge_keeps_its_cookie() {
    let (old, new) = (AppKey::generate().unwrap(), AppKey::generate().unwrap());
    let build = |rows: &Rows, keys: Option<Keyring>, events: &Events| -> Arc<dyn Store> {
        let builder = ServerStore::with_backend(rows.clone()).clock(FakeClock::at(START));
        let builder = builder.observer(events.clone()).check_session_list(true);
        let builder = match keys {
            Some(keys) => builder.seal_records(keys),
            None => builder,
        };
        Arc::new(builder.build().unwrap())
    };
    block_on(async {
        for seals in [false, true] {
            let (rows, events) = (Rows::default(), Events::new());
            let keys = |key: &AppKey| seals.then(|| Keyring::new(copy(key)));
            let world = |store| TestStore { store, clock: FakeClock::at(START), events: events.clone() };
            let behind = world(build(&rows, keys(&old), &events));
            let ahead = world(build(&rows, Some(Keyring::new(copy(&new)).accept(copy(&old))), &events));
            let mut jar = Jar::new();
            behind.edit(&mut jar, log_in).await;
            let id = behind.id(&jar).await.unwrap();
            let list = list(&rows, &[id]);
            let good = [id, list].map(|id| value_of(&rows, id));
            let later: Vec<(Vec<u8>, Refusal)> =
                [6_u8, 0x1f].map(|kind| ([&[kind], &good[0][1..]].concat(), Refusal::Version)).into();
            // Written by the host that is ahead, if this entry had its id.
            let mut other = Jar::new();
            ahead.edit(&mut other, |session| session.set("a", VALUE)).await;
            let sealed = value_of(&rows, ahead.id(&other).await.unwrap());
            let sealed = (sealed.to_vec(), Refusal::UnknownKey);
            events.take();
            for (value, why) in later.into_iter().chain([sealed]) {
                for (row, good) in [id, list].into_iter().zip(&good) {
                    put(&rows, row, &value);
                    let (seen, response) = behind.present(jar.header().unwrap().as_bytes()).await;
                    assert_eq!(seen, None);
                    assert_eq!(events.take(), [refused(why)], "sealed: {seals}");
                    assert_eq!(set_cookies(response.headers()), [""; 0], "{why}, sealed: {seals}");
                    put(&rows, row, good);
                }
            }
            assert_eq!(behind.value(&jar).await.as_deref(), Some(VALUE), "no user was logged out");
        }
    });
}

#[test]
fn t78_turning_sealing_on_refuses_what_was_stored_before() {
    block_on(async {
        let rows = Rows::default();
        let before = Options::default().over(&rows);
        let mut jar = Jar::new();
        before.edit(&mut jar, log_in).await;
        let (world, store) = sealed(&rows, AppKey::generate().unwrap());
        let (value, response) = world.present(jar.header().unwrap().as_bytes()).await;
        assert_eq!(value, None);
        assert_eq!(world.events.take(), [refused(Refusal::Unreadable)]);
        assert_eq!(set_cookies(response.headers()), [""; 0], "a host that does not seal yet may read it");
        // The previous list is unreadable, too, until the next login.
        assert!(store.sessions_of(SUBJECT).await.unwrap_err().is_unavailable());
        world.edit(&mut Jar::new(), log_in).await;
        assert_eq!(world.events.take(), ["store_failed"]);
        assert_eq!(store.sessions_of(SUBJECT).await.unwrap().len(), 1);
        // And the other way round: what is sealed does not open without the key.
        let (old, new) = (Options::default().over(&rows), world.jar().await);
        assert_eq!(old.value(&new).await, None);
        assert_eq!(old.events.take(), [refused(Refusal::UnknownKey)]);
        // A logout ends what this host cannot read.
        world.edit(&mut jar.clone(), hyper_session::Session::destroy).await;
        assert_eq!(before.value(&jar).await, None);
    });
}

#[test]
fn t12_t17_rotation_keeps_sessions_and_revocation_ends_them() {
    block_on(async {
        let (old, new) = (AppKey::generate().unwrap(), AppKey::generate().unwrap());
        let rows = Rows::default();
        let (world, _) = sealed(&rows, copy(&old));
        let (mut jar, mut idle) = (Jar::new(), Jar::new());
        world.edit(&mut jar, log_in).await;
        world.edit(&mut idle, log_in).await;
        let id = world.id(&jar).await.unwrap();
        let key_of = |id: SessionId| rows.with(|table| table.rows[&entry_of(id)].value[2..6].to_vec());
        let first = key_of(id);

        let (world, store) = sealed(&rows, Keyring::new(copy(&new)).accept(copy(&old)));
        assert_eq!(world.value(&jar).await.as_deref(), Some(VALUE));
        assert_eq!(store.sessions_of(SUBJECT).await.unwrap().len(), 2);
        world.edit(&mut jar, |session| session.set("b", 2)).await;
        assert_ne!(key_of(id), first, "what is written is sealed with the new key");

        let (world, _) = sealed(&rows, copy(&new));
        assert_eq!(world.value(&jar).await.as_deref(), Some(VALUE));
        let (value, response) = world.present(idle.header().unwrap().as_bytes()).await;
        assert_eq!(value, None, "not written since");
        assert_eq!(world.events.take(), [refused(Refusal::UnknownKey)]);
        assert_eq!(set_cookies(response.headers()), [""; 0], "another host may have the key");

        let (world, _) = sealed(&rows, Keyring::new(copy(&new)).accept(copy(&old)).revoke(old.id()));
        assert_eq!(world.value(&idle).await, None);
        let (world, _) = sealed(&rows, Keyring::new(AppKey::generate().unwrap()).revoke(new.id()));
        assert_eq!(world.value(&jar).await, None);
    });
}

/// A session that one server cannot read may be readable for a server with other keys: "log out everywhere" ends it all the same.
#[test]
fn t26_ending_all_sessions_ends_those_under_keys_that_are_not_on_the_ring() {
    block_on(async {
        let (old, new) = (AppKey::generate().unwrap(), AppKey::generate().unwrap());
        let rows = Rows::default();
        let (before, _) = sealed(&rows, copy(&old));
        let (mut one, mut two) = (Jar::new(), Jar::new());
        before.edit(&mut one, log_in).await;
        let (both, _) = sealed(&rows, Keyring::new(copy(&new)).accept(old));
        both.edit(&mut two, log_in).await;
        let (_, store) = sealed(&rows, new);
        assert_eq!(store.end_sessions_of(SUBJECT, None).await.unwrap(), 1, "only one is readable here");
        assert_eq!((both.value(&one).await, both.value(&two).await), (None, None));
        assert_eq!(rows.ids(), []);
    });
}

#[test]
fn t35_t36_subjects_are_kept_in_either_format() {
    block_on(async {
        for format in [PayloadFormat::MessagePack, PayloadFormat::Json] {
            let rows = Rows::default();
            let store = ServerStore::with_backend(rows.clone())
                .clock(FakeClock::at(START))
                .payload_format(format)
                .build()
                .unwrap();
            let store_of = Arc::new(store.clone()) as Arc<dyn Store>;
            let world = TestStore { store: store_of, clock: FakeClock::at(START), events: Events::new() };
            let mut jar = Jar::new();
            world.edit(&mut jar, log_in).await;
            let subject = Mutex::new(None);
            world
                .edit(&mut jar, |session| {
                    *subject.lock().unwrap() = session.subject().map(|subject| subject.to_string());
                    Ok(())
                })
                .await;
            assert_eq!(subject.into_inner().unwrap().as_deref(), Some(SUBJECT));
            let id = world.id(&jar).await.unwrap();
            assert_eq!(store.sessions_of(SUBJECT).await.unwrap()[0].id, id);
            // The list, under an id that no token hashes to, and that is different under another cookie's name.
            let named = |name: &str| {
                let hash = sha2::Sha256::new()
                    .chain_update(b"hyper-session subject v1\0")
                    .chain_update(name)
                    .chain_update([0])
                    .chain_update(SUBJECT);
                SessionId::from_bytes(hash.finalize()[..16].try_into().unwrap())
            };
            assert_eq!(list(&rows, &[id]), named(NAME));
            assert_ne!(named(NAME), named("other"));
        }
    });
}
