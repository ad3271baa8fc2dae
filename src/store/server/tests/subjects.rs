//! The sessions of a subject, on a backend that fails on some of its entries.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::*;
use crate::store::Memory;

type MakeError = fn() -> Error;

const TOO_LONG: MakeError = || Error::unreadable("the entry is too long");
const AWAY: MakeError = || Error::unavailable("the backend is away");
const CONTESTED: MakeError = || Error::new(Kind::Conflict { attempts: 1 });

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Call {
    Fetch,
    Write,
    Delete,
}

/// A backend in memory that fails as it is told to.
#[derive(Default)]
struct Obstructed {
    /// The length of the longest value. 0 if there is no limit. The store does not learn of it when it is built.
    max_len: AtomicUsize,
    memory: Memory,
    faults: Mutex<BTreeMap<(EntryId, Call), MakeError>>,
    /// Entries as a call fetches them just before another call changes them.
    outdated: Mutex<BTreeMap<EntryId, Stored>>,
    /// The entry that is on a server which hangs.
    hung: Mutex<Option<EntryId>>,
    /// The entry that another call deletes just before the next other one is created.
    doomed: Mutex<Option<EntryId>>,
    calls: Mutex<Vec<(EntryId, Call)>>,
}

impl Obstructed {
    fn fail(&self, id: EntryId, call: Call, error: MakeError) {
        self.faults.lock().unwrap().insert((id, call), error);
    }

    /// Leaves room for lists of so many sessions.
    fn limit_lists(&self, sessions: usize) {
        self.max_len.store(9 + 33 * sessions, Ordering::SeqCst);
    }

    fn check_len(&self, entry: &Stored) -> Result<(), Error> {
        let (size, limit) = (entry.value.len(), self.max_len.load(Ordering::SeqCst));
        if limit > 0 && size > limit { Err(Error::new(Kind::EntryTooLarge { size, limit })) } else { Ok(()) }
    }

    fn recover(&self) {
        self.faults.lock().unwrap().clear();
    }

    fn has(&self, id: EntryId) -> bool {
        run(self.memory.fetch(id, NOW)).unwrap().is_some()
    }

    fn calls(&self, id: EntryId, call: Call) -> usize {
        self.calls.lock().unwrap().iter().filter(|made| **made == (id, call)).count()
    }

    fn hang(&self, id: Option<EntryId>) {
        *self.hung.lock().unwrap() = id;
    }

    /// Waits until the server of this entry does not hang.
    async fn gate(&self, id: EntryId) {
        std::future::poll_fn(|cx| {
            if *self.hung.lock().unwrap() != Some(id) {
                return std::task::Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            std::task::Poll::Pending
        })
        .await;
    }

    fn call(&self, id: EntryId, call: Call) -> Result<(), Error> {
        self.calls.lock().unwrap().push((id, call));
        self.faults.lock().unwrap().get(&(id, call)).map_or(Ok(()), |error| Err(error()))
    }
}

impl Backend for Obstructed {
    async fn fetch(&self, id: EntryId, now: Timestamp) -> Result<Option<Stored>, Error> {
        self.call(id, Call::Fetch)?;
        self.gate(id).await;
        let outdated = self.outdated.lock().unwrap().remove(&id);
        match outdated {
            Some(outdated) => Ok(Some(outdated)),
            None => self.memory.fetch(id, now).await,
        }
    }

    async fn create(&self, id: EntryId, entry: Stored, now: Timestamp) -> Result<bool, Error> {
        self.call(id, Call::Write)?;
        self.check_len(&entry)?;
        let doomed = self.doomed.lock().unwrap().take_if(|doomed| *doomed != id);
        if let Some(doomed) = doomed {
            self.memory.delete(doomed).await?;
        }
        self.memory.create(id, entry, now).await
    }

    async fn replace(
        &self,
        id: EntryId,
        expected: Bytes,
        entry: Option<Stored>,
        now: Timestamp,
    ) -> Result<Replaced, Error> {
        self.call(id, Call::Write)?;
        entry.iter().try_for_each(|entry| self.check_len(entry))?;
        self.memory.replace(id, expected, entry, now).await
    }

    async fn touch(&self, id: EntryId, expires: Timestamp, now: Timestamp) -> Result<bool, Error> {
        self.memory.touch(id, expires, now).await
    }

    /// Waits for no server that hangs, and for the others without end.
    async fn __patience(&self) {
        if self.hung.lock().unwrap().is_none() {
            std::future::pending::<()>().await;
        }
    }

    async fn delete(&self, id: EntryId) -> Result<(), Error> {
        self.call(id, Call::Delete)?;
        // An entry that is gone can be read again as missing.
        self.faults.lock().unwrap().remove(&(id, Call::Fetch));
        self.memory.delete(id).await
    }
}

type Options = Builder<Arc<Obstructed>>;

fn store_on(
    backend: &Arc<Obstructed>,
    options: impl FnOnce(Options) -> Options,
) -> ServerStore<Arc<Obstructed>> {
    let builder = ServerStore::with_backend(Arc::clone(backend)).clock(TestClock::at(NOW.as_unix()));
    ServerStore { inner: Arc::new(Inner::new(options(builder)).unwrap()) }
}

fn store() -> (Arc<Obstructed>, ServerStore<Arc<Obstructed>>) {
    let backend = Arc::default();
    let store = store_on(&backend, |options| options);
    (backend, store)
}

fn try_login(store: &ServerStore<Arc<Obstructed>>) -> Result<Record, Error> {
    let session = payload(b"\x81\xa2\x01s\xa3ada");
    run(store.inner.create(session, None, NOW)).map(Option::unwrap)
}

/// The changes of a handler that sets one value.
fn setting(key: &str) -> Changes {
    let mut changes = Changes::default();
    changes.put(key, Some(Bytes::from_static(b"\x01")), None);
    changes
}

fn login(store: &ServerStore<Arc<Obstructed>>) -> Record {
    try_login(store).unwrap()
}

fn listed(store: &ServerStore<Arc<Obstructed>>) -> Vec<SessionId> {
    run(store.sessions_of("ada")).unwrap().into_iter().map(|session| session.id).collect()
}

fn list_of(store: &ServerStore<Arc<Obstructed>>) -> EntryId {
    store.inner.list_of("ada")
}

#[test]
fn a_session_that_is_too_long_to_be_read_is_listed_as_unreadable() {
    let (backend, store) = store();
    let (one, two) = (login(&store), login(&store));
    backend.fail(entry_of_record(&one), Call::Fetch, TOO_LONG);
    let sessions = run(store.sessions_of("ada")).unwrap();
    let seen: Vec<_> = sessions.iter().map(|session| (session.id, session.readable)).collect();
    assert_eq!(seen, [(one.id(), false), (two.id(), true)]);
    assert_eq!(sessions[0].expires, store.inner.config.latest_deadline(NOW));
}

#[test]
fn a_list_is_not_shown_without_a_session_that_could_not_be_fetched() {
    let (backend, store) = store();
    let (one, _two) = (login(&store), login(&store));
    backend.fail(entry_of_record(&one), Call::Fetch, AWAY);
    assert!(run(store.sessions_of("ada")).unwrap_err().is_unavailable());
}

#[test]
fn t26_a_session_that_is_too_long_to_be_read_is_ended() {
    let (backend, store) = store();
    let one = login(&store);
    backend.fail(entry_of_record(&one), Call::Fetch, TOO_LONG);
    assert!(run(store.end_session_of("ada", one.id())).unwrap());
    assert!(!backend.has(entry_of_record(&one)));
}

// The session names its subject, not the list: without a look at it, the session could be that of another subject.
#[test]
fn t37_a_session_that_cannot_be_fetched_is_not_ended_unseen() {
    let (backend, store) = store();
    let one = login(&store);
    backend.fail(entry_of_record(&one), Call::Fetch, AWAY);
    assert!(run(store.end_session_of("ada", one.id())).unwrap_err().is_unavailable());
    assert!(backend.has(entry_of_record(&one)));
    backend.recover();
    assert_eq!(run(store.end_sessions_of("ada", None)).unwrap(), 1, "the list has kept it");
}

#[test]
fn t26_a_session_that_cannot_be_compared_is_deleted() {
    let (backend, store) = store();
    let one = login(&store);
    backend.fail(entry_of_record(&one), Call::Write, AWAY);
    assert!(run(store.end_session_of("ada", one.id())).unwrap());
    assert!(!backend.has(entry_of_record(&one)));
    // If deleting fails, too, the caller learns that the session may live on.
    let two = login(&store);
    backend.fail(entry_of_record(&two), Call::Write, CONTESTED);
    backend.fail(entry_of_record(&two), Call::Delete, AWAY);
    assert!(
        run(store.end_session_of("ada", two.id())).unwrap_err().is_conflict(),
        "the first reason is told"
    );
    assert!(backend.has(entry_of_record(&two)));
}

// A backend whose memory is full refuses to write the list, and deletes entries.
#[test]
fn t26_sessions_are_ended_although_their_list_cannot_be_written() {
    let (backend, store) = store();
    let (one, two) = (login(&store), login(&store));
    backend.fail(list_of(&store), Call::Write, AWAY);
    assert_eq!(run(store.end_sessions_of("ada", Some(two.id()))).unwrap(), 1);
    assert!(!backend.has(entry_of_record(&one)));
    assert_eq!(listed(&store), [two.id()]);
    assert_eq!(run(store.end_sessions_of("ada", None)).unwrap(), 1);
    assert!(!backend.has(entry_of_record(&two)));
    assert_eq!(listed(&store), []);
}

// Another call may be entering a session: it would not see that the sessions are being ended.
#[test]
fn t26_sessions_whose_list_changes_all_the_time_are_not_ended_behind_it() {
    let (backend, store) = store();
    let one = login(&store);
    backend.fail(list_of(&store), Call::Write, CONTESTED);
    assert!(run(store.end_sessions_of("ada", None)).unwrap_err().is_conflict());
    assert!(backend.has(entry_of_record(&one)));
}

#[test]
fn a_login_overwrites_a_list_that_is_too_long_to_be_read_and_none_that_is_away() {
    let (backend, store) = store();
    let one = login(&store);
    backend.fail(list_of(&store), Call::Fetch, AWAY);
    assert!(try_login(&store).unwrap_err().is_unavailable());
    backend.recover();
    assert_eq!(listed(&store), [one.id()]);

    backend.fail(list_of(&store), Call::Fetch, TOO_LONG);
    assert!(run(store.end_sessions_of("ada", None)).unwrap_err().is_unavailable());
    assert!(backend.has(list_of(&store)), "an ending overwrites no list");
    let two = login(&store);
    assert_eq!(listed(&store), [two.id()]);
}

#[test]
fn t26_where_the_list_decides_a_session_needs_a_list_that_can_be_read() {
    let backend = Arc::default();
    let store = store_on(&backend, |options| options.check_session_list(true));
    let one = login(&store);
    let load = || run(store.inner.load(token_of(&one).unwrap().clone(), NOW));
    assert!(matches!(load(), Ok(Ok(_))));
    backend.fail(list_of(&store), Call::Fetch, TOO_LONG);
    assert!(matches!(load(), Ok(Err(Refusal::Unreadable))));
    backend.fail(list_of(&store), Call::Fetch, AWAY);
    assert!(load().unwrap_err().is_unavailable(), "the session may be listed");
    backend.recover();
    run(backend.memory.delete(list_of(&store))).unwrap();
    assert!(matches!(load(), Ok(Err(Refusal::UnknownId))));
}

#[test]
fn t26_where_the_list_decides_only_a_listed_session_gets_a_new_token() {
    let store = store_on(&Arc::default(), |options| options.check_session_list(true));
    let regenerate = |session| run(store.inner.regenerate(session, &Changes::default(), NOW)).unwrap();
    let saved = regenerate(login(&store));
    let Saved::Stored { record, .. } = saved else { panic!("{saved:?}") };
    assert_eq!(listed(&store), [record.id()]);
    run(store.inner.backend.delete(list_of(&store))).unwrap();
    let saved = regenerate(record);
    assert!(matches!(saved, Saved::Ended), "{saved:?}");
    assert_eq!(listed(&store), []);
}

/// A session that is not listed has ended, also if it is written or renewed.
#[test]
fn t26_where_the_list_decides_no_write_enters_a_session_again() {
    for changes in [Changes::default(), setting("visits")] {
        let backend = Arc::default();
        let store = store_on(&backend, |options| options.check_session_list(true));
        let one = login(&store);
        run(backend.memory.delete(list_of(&store))).unwrap();
        let later = NOW.saturating_add(Duration::from_secs(9_000));
        let _ = run(store.inner.save(Some(one), &changes, later));
        assert!(!backend.has(list_of(&store)));
    }
}

/// A session is looked up in its list when its deadline moves, and not at each write.
#[test]
fn a_second_write_within_a_renewal_threshold_does_not_read_the_list() {
    let (backend, store) = store();
    let one = login(&store);
    let read = backend.calls(list_of(&store), Call::Fetch);
    let saved = run(store.inner.save(Some(one), &setting("visits"), NOW)).unwrap();
    assert!(matches!(saved, Saved::Stored { .. }), "{saved:?}");
    assert_eq!(backend.calls(list_of(&store), Call::Fetch), read);
}

/// All sessions of the subject end after a login has entered its own, and before it writes it.
#[test]
fn t26_a_login_does_not_outlive_an_end_of_all_sessions_that_it_overlaps() {
    let (backend, store) = store();
    *backend.doomed.lock().unwrap() = Some(list_of(&store));
    let session = payload(b"\x81\xa2\x01s\xa3ada");
    assert!(run(store.inner.create(session, None, NOW)).unwrap().is_none());
    let written: Vec<_> = backend.calls.lock().unwrap().iter().map(|(id, _)| *id).collect();
    assert!(written.iter().any(|id| *id != list_of(&store)));
    assert!(!written.into_iter().any(|id| backend.has(id)));
}

#[test]
fn t26_a_login_that_cannot_enter_itself_ends_no_other_session() {
    let backend: Arc<Obstructed> = Arc::default();
    let store = store_on(&backend, |options| options.max_sessions_per_subject(1));
    let one = login(&store);
    backend.fail(list_of(&store), Call::Write, AWAY);
    assert!(try_login(&store).unwrap_err().is_unavailable());
    backend.recover();
    assert_eq!(listed(&store), [one.id()]);
}

/// Each login makes room only for sessions before it on the list, whatever their times, so that two at once do not end each other.
#[test]
fn for_a_login_the_sessions_before_it_on_the_list_count() {
    let mut list = session_list::SessionList::default();
    let id = |number| SessionId::from_bytes([number; 16]);
    let entry = |number, entered| session_list::ListedSession {
        id: id(number),
        entered,
        until: Timestamp::MAX,
        ending: false,
    };
    for number in [1, 2, 3] {
        assert!(list.enter(entry(number, NOW), None, true));
    }
    let up_to = |list: &session_list::SessionList, number| -> Vec<SessionId> {
        list.live_up_to(id(number)).map(|entry| entry.id).collect()
    };
    assert_eq!(up_to(&list, 2), [id(1), id(2)]);
    assert_eq!(up_to(&list, 9), [id(1), id(2), id(3)], "it comes last");
    // On a host whose clock is behind.
    assert!(list.enter(entry(4, NOW.saturating_sub(Duration::from_secs(9))), Some(id(1)), true));
    assert_eq!(up_to(&list, 3), [id(1), id(2), id(3)]);
    assert_eq!(up_to(&list, 4), [id(1), id(2), id(3), id(4)]);
}

/// The session itself names its subject, and its deadline is that of the present options.
#[test]
fn t37_a_list_shows_neither_sessions_of_another_subject_nor_expired_ones() {
    let (backend, store) = store();
    let one = login(&store);
    let session = payload(b"\x81\xa2\x01s\xa3bob");
    let other = run(store.inner.create(session, None, NOW)).unwrap().unwrap();
    run(store.inner.enter("ada", other.id(), None, Timestamp::MAX, NOW)).unwrap();
    assert_eq!(listed(&store), [one.id()]);
    let later = NOW.as_unix() + 3_600;
    let stricter = store_on(&backend, |options| {
        options.clock(TestClock::at(later)).idle_timeout(Duration::from_secs(3_600))
    });
    assert_eq!(listed(&stricter), []);
    assert_eq!(run(store.end_sessions_of("ada", None)).unwrap(), 1);
    assert!(backend.has(entry_of_record(&other)) && !backend.has(entry_of_record(&one)));
}

/// An entry that is too long does not stand in the way of a login. A backend that is away does.
#[test]
fn a_session_that_is_too_long_to_be_read_is_refused_and_no_error() {
    for checked in [false, true] {
        let backend: Arc<Obstructed> = Arc::default();
        let store = store_on(&backend, |options| options.check_session_list(checked));
        let one = login(&store);
        let load = || run(store.inner.load(token_of(&one).unwrap().clone(), NOW));
        backend.fail(entry_of_record(&one), Call::Fetch, TOO_LONG);
        assert!(matches!(load(), Ok(Err(Refusal::Unreadable))));
        backend.fail(entry_of_record(&one), Call::Fetch, AWAY);
        assert!(load().unwrap_err().is_unavailable());
    }
}

/// A session that moves to another store is on no list of this one.
#[test]
fn a_session_that_goes_on_elsewhere_leaves_its_list() {
    let (backend, store) = store();
    let (one, two) = (login(&store), login(&store));
    let list = || run(store.inner.list("ada", NOW)).unwrap();
    assert!(run(store.inner.supersede(&one, NOW)).unwrap());
    assert!(!list().names(one.id()) && list().names(two.id()));
    assert!(!run(store.inner.supersede(&one, NOW)).unwrap(), "it has gone already");
    assert!(backend.has(entry_of_record(&two)));
}

#[test]
fn an_expired_session_is_ended_and_not_counted() {
    for (seconds_left, counted) in [(1, 1), (0, 0), (-1, 0)] {
        let (backend, store) = store();
        let one = login(&store);
        let now = one.expires().as_unix().checked_add_signed(-seconds_left).unwrap();
        let later = store_on(&backend, |options| options.clock(TestClock::at(now)));
        assert_eq!(run(later.end_sessions_of("ada", None)).unwrap(), counted, "{seconds_left}");
        let left = run(backend.memory.fetch(entry_of_record(&one), crate::store::backend::EVEN_IF_EXPIRED));
        assert!(left.unwrap().is_none());
    }
}

// Redis decides by its own clock whether a session has expired. The deadline that it stores may have passed by the clock of
// this host, and is all that a conflict tells.
#[test]
fn a_session_that_changes_while_it_is_ended_counts_if_it_was_alive_at_any_time() {
    let before = |time: Timestamp| Timestamp::from_unix(time.as_unix() - 1);
    for (alive_before, alive_now, counted) in
        [(true, true, 1), (true, false, 1), (false, true, 1), (false, false, 0)]
    {
        let (backend, store) = store();
        let one = login(&store);
        let deadline = one.expires();
        let now = if alive_now { before(deadline) } else { deadline };
        let expires = if alive_before { Timestamp::MAX } else { before(now) };
        let outdated = Stored { value: Bytes::from_static(b"another value"), expires };
        backend.outdated.lock().unwrap().insert(entry_of_record(&one), outdated);
        let later = store_on(&backend, |options| options.clock(TestClock::at(now.as_unix())));
        let ended = run(later.end_sessions_of("ada", None)).unwrap();
        assert_eq!(ended, counted, "alive before: {alive_before}, now: {alive_now}");
    }
}

#[test]
fn thousands_of_sessions_are_loaded_together_with_their_lists() {
    let store = store_on(&Arc::default(), |options| options.check_session_list(true));
    let memo = store.inner.list_memo.as_ref().unwrap();
    // Users with one session each.
    let sessions: Vec<_> = (0..2_000_u16)
        .map(|user| {
            let [high, low] = user.to_be_bytes();
            let values = [b"\x81\xa2\x01s\xa4us".as_slice(), &[b'a' + high, low & 0x7f]].concat();
            let values = Payload::parse(Bytes::from(values)).unwrap();
            run(store.inner.create(values, None, NOW)).unwrap().unwrap()
        })
        .collect();
    let mut in_two_steps = [0, 0];
    for pass in &mut in_two_steps {
        for session in &sessions {
            *pass += usize::from(memo.get(entry_of_record(session)).is_none());
            assert!(run(store.inner.load(token_of(session).unwrap().clone(), NOW)).unwrap().is_ok());
        }
    }
    // The ids are random. A set that is too full is expected in one of 500 runs, and forgets nine sessions.
    assert!(in_two_steps[0] == 2_000 && in_two_steps[1] < 100, "{in_two_steps:?}");
}

// A login tries to finish the ending of another call. If that fails, the login still succeeds.
#[test]
fn a_login_succeeds_although_another_session_cannot_be_ended() {
    for (calls, error) in [(&[Call::Fetch][..], AWAY), (&[Call::Write, Call::Delete], CONTESTED)] {
        let (backend, store) = store();
        let one = login(&store);
        for call in calls {
            backend.fail(entry_of_record(&one), *call, error);
        }
        let failed = run(store.end_sessions_of("ada", None)).unwrap_err();
        assert_eq!(failed.label(), error().label());
        let two = login(&store);
        backend.recover();
        assert!(backend.has(entry_of_record(&one)));
        let three = login(&store);
        assert!(!backend.has(entry_of_record(&one)), "the next login ends it");
        assert_eq!(listed(&store), [two.id(), three.id()]);
    }
}

#[test]
fn a_login_that_is_about_to_be_written_keeps_its_place_for_a_minute() {
    let store = store_on(&Arc::default(), |options| {
        options.max_sessions_per_subject(1).at_session_limit(SessionLimit::RefuseLogin)
    });
    let id = |number| SessionId::from_bytes([number; 16]);
    let enter = |number, seconds| {
        let now = NOW.saturating_add(Duration::from_secs(seconds));
        run(store.inner.enter("ada", id(number), None, Timestamp::MAX, now))
    };
    assert!(enter(1, 0).unwrap());
    assert!(enter(2, 59).unwrap_err().is_session_limit());
    assert!(enter(3, 60).unwrap());
    let list = run(store.inner.list("ada", NOW)).unwrap();
    assert_eq!(list.entries.iter().map(|entry| entry.id).collect::<Vec<_>>(), [id(3)]);
}

/// Nor does that end the others: only a login does.
#[test]
fn under_a_lowered_limit_a_session_is_not_refused_a_new_token() {
    for limit in [SessionLimit::RefuseLogin, SessionLimit::EndLeastRecentlyUsed] {
        let (backend, before) = store();
        let (one, two, three) = (login(&before), login(&before), login(&before));
        let lowered =
            store_on(&backend, |options| options.max_sessions_per_subject(1).at_session_limit(limit));
        let saved = run(lowered.inner.regenerate(two, &Changes::default(), NOW)).unwrap();
        let Saved::Stored { record, .. } = saved else { panic!("{limit:?}: {saved:?}") };
        assert_eq!(listed(&lowered), [one.id(), record.id(), three.id()], "{limit:?}");
    }
}

#[test]
fn a_list_without_room_for_another_session_says_so_and_ends_no_session() {
    let (backend, store) = store();
    backend.limit_lists(7);
    let sessions: Vec<_> = (0..7).map(|_| login(&store).id()).collect();
    assert!(try_login(&store).unwrap_err().is_too_large());
    assert_eq!(listed(&store), sessions);
}

/// A new token needs room for one session more. The session limit refuses logins, and does not refuse it.
#[test]
fn a_new_token_finds_room_on_a_list_with_sessions_that_have_ended() {
    for limit in [SessionLimit::RefuseLogin, SessionLimit::EndLeastRecentlyUsed] {
        for unfinished in [true, false] {
            let (backend, before) = store();
            let (one, two) = (login(&before), login(&before));
            if unfinished {
                let ended = login(&before);
                backend.fail(entry_of_record(&ended), Call::Fetch, AWAY);
                assert!(run(before.end_session_of("ada", ended.id())).unwrap_err().is_unavailable());
                backend.recover();
            } else {
                // The process of this login ended before it wrote the session.
                let lost = SessionId::from_bytes([7; 16]);
                let entered = run(before.inner.enter("ada", lost, None, Timestamp::MAX, NOW));
                assert!(entered.unwrap());
            }
            backend.limit_lists(3);
            let store =
                store_on(&backend, |options| options.max_sessions_per_subject(2).at_session_limit(limit));
            let later = NOW.saturating_add(Duration::from_secs(60));
            let saved = run(store.inner.regenerate(two, &Changes::default(), later));
            let Ok(Saved::Stored { record, .. }) = saved else { panic!("{limit:?}: {saved:?}") };
            assert_eq!(listed(&store), [one.id(), record.id()], "{limit:?}, unfinished: {unfinished}");
        }
    }
}

#[test]
fn a_new_token_that_finds_no_room_on_the_list_says_so_at_once() {
    let (backend, before) = store();
    let sessions = [login(&before), login(&before), login(&before)];
    backend.limit_lists(3);
    let store = store_on(&backend, |options| {
        options.max_sessions_per_subject(1).at_session_limit(SessionLimit::RefuseLogin)
    });
    let fetched = backend.calls(list_of(&store), Call::Fetch);
    let error = run(store.inner.regenerate(sessions[1].clone(), &Changes::default(), NOW)).unwrap_err();
    assert!(error.is_too_large(), "{error:?}");
    assert_eq!(backend.calls(list_of(&store), Call::Fetch) - fetched, 2);
    assert_eq!(listed(&store), sessions.map(|session| session.id()));
}

/// Another request wrote the session meanwhile. Both fit the longest entry, and their values together do not.
#[test]
fn a_new_token_for_a_session_that_grows_too_large_leaves_no_session_behind() {
    let (backend, store) = store();
    let one = login(&store);
    let (theirs, own) = (setting(&"a".repeat(60)), setting(&"b".repeat(60)));
    let written = run(store.inner.save(Some(one.clone()), &theirs, NOW)).unwrap();
    assert!(matches!(written, Saved::Stored { .. }), "{written:?}");
    let creations = backend.calls.lock().unwrap().len();
    backend.max_len.store(120, Ordering::SeqCst);
    let error = run(store.inner.regenerate(one.clone(), &own, NOW)).unwrap_err();
    assert!(error.is_too_large(), "{error:?}");
    assert_eq!(listed(&store), [one.id()]);
    // The entries that were written meanwhile are gone, except the session itself and its list.
    let called: Vec<_> = backend.calls.lock().unwrap()[creations..].iter().map(|(id, _)| *id).collect();
    let new: Vec<_> =
        called.into_iter().filter(|id| *id != entry_of_record(&one) && *id != list_of(&store)).collect();
    assert!(!new.is_empty() && !new.iter().any(|id| backend.has(*id)), "{new:?}");
    assert!(!run(store.inner.list("ada", NOW)).unwrap().names(SessionId::from_bytes(new[0].to_bytes())));
}

#[test]
fn a_login_at_the_limit_reads_the_session_that_it_ends_once() {
    let backend: Arc<Obstructed> = Arc::default();
    let store = store_on(&backend, |options| options.max_sessions_per_subject(1));
    let (one, two) = (login(&store), login(&store));
    assert_eq!(listed(&store), [two.id()]);
    assert!(!backend.has(entry_of_record(&one)));
    assert_eq!(backend.calls(entry_of_record(&one), Call::Fetch), 1);
}

#[test]
fn a_renewal_enters_a_session_that_its_list_lacks() {
    let (backend, store) = store();
    let one = login(&store);
    run(backend.memory.delete(list_of(&store))).unwrap();
    for _ in 0..2 {
        let later = NOW.saturating_add(Duration::from_secs(100));
        let renewed = run(store.inner.save(Some(one.clone()), &Changes::default(), later)).unwrap();
        assert!(matches!(renewed, Saved::Stored { .. }), "{renewed:?}");
        assert_eq!(listed(&store), [one.id()]);
    }
}

/// A session and its list may be on different servers. `run` fails where an answer waits for the list.
#[tokio::test]
async fn no_answer_waits_for_a_list_whose_server_hangs() {
    async fn until(done: impl Fn() -> bool) {
        while !done() {
            tokio::task::yield_now().await;
        }
    }
    let (backend, store) = store();
    let (one, list) = (login(&store), list_of(&store));
    let later = |seconds| NOW.saturating_add(Duration::from_secs(seconds));
    let save = |seconds| run(store.inner.save(Some(one.clone()), &Changes::default(), later(seconds)));
    // The list is lost: a renewal enters the session again, and so does a write. It writes because the rest of the absolute
    // timeout is shorter than the lifetime in the entry.
    for seconds in [9_000, 561_600] {
        run(backend.memory.delete(list)).unwrap();
        backend.hang(Some(list));
        let saved = save(seconds).unwrap();
        assert!(matches!(saved, Saved::Stored { .. }), "{saved:?}");
        backend.hang(None);
        until(|| backend.has(list)).await;
        assert_eq!(listed(&store), [one.id()]);
    }
    // A logout leaves the list later.
    let two = login(&store);
    backend.hang(Some(list));
    run(store.inner.end_for_good(&two, later(9_000))).unwrap();
    assert!(!backend.has(entry_of_record(&two)));
    backend.hang(None);
    until(|| run(store.inner.list("ada", NOW)).is_ok_and(|list| !list.names(two.id()))).await;
    // It is as it was if the write fails: the session is not entered.
    run(backend.memory.delete(list)).unwrap();
    backend.fail(entry_of_record(&one), Call::Write, AWAY);
    assert!(save(561_700).unwrap_err().is_unavailable());
    assert!(!backend.has(list));
}
