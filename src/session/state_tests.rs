//! Tests of the state of a session.

use super::super::locked::Locked;
use super::super::{Origin, Payload, SessionId};
use super::*;

const GOES_ON: Standing = Standing { absolute_passed: false, expired: false, renewal_due: false };

fn one() -> Bytes {
    Bytes::from_static(b"\x01")
}

/// A session in a cookie with the id of `byte` and the value `a`.
fn record(byte: u8) -> Record {
    let payload = Payload::merge(None, [("a", Some(&*one()))].into_iter()).unwrap();
    let (id, time) = (SessionId::from_bytes([byte; 16]), Timestamp::from_unix);
    Record::new(id, time(10), time(20), payload, Origin::native(false))
}

fn stored() -> State {
    State::new(Some(record(1)), Former::None, Reply::Nothing)
}

fn commit(state: &mut State, standing: Standing) -> Decision {
    let (commit, leftovers) = state.begin_commit(Disposition::Accept, false, |_| standing);
    drop(leftovers);
    commit
}

type Wish = fn(&mut State);

const WISHES: [Wish; 4] =
    [|_| {}, |state| state.put("b", Some(one())), |state| state.regenerate(), |state| state.destroy()];

#[test]
fn a_failed_commit_leaves_what_it_was_to_do_beside_what_was_asked_meanwhile() {
    use Outcome::{Destroy, Keep, Regenerate, Save};
    // Before the commit: nothing, a value, regenerate, destroy; in each row the same during it.
    let outcomes = [
        [Keep, Save, Regenerate, Destroy],
        [Save, Save, Regenerate, Destroy],
        [Regenerate, Regenerate, Regenerate, Destroy],
        // A value after `destroy` belongs to a session that begins.
        [Destroy, Regenerate, Destroy, Destroy],
    ];
    for (before, expected) in WISHES.iter().zip(outcomes) {
        for (during, expected) in WISHES.iter().zip(expected) {
            let mut state = stored();
            before(&mut state);
            let first = commit(&mut state, GOES_ON).outcome;
            during(&mut state);
            drop(state.commit_failed());
            let second = commit(&mut state, GOES_ON).outcome;
            assert_eq!(second, expected, "after {first:?}");
            drop(state.commit_done(None));
            assert_eq!(commit(&mut state, GOES_ON).outcome, Keep, "only once, after {first:?}");
        }
    }
}

#[test]
fn a_failed_commit_of_a_request_that_has_ended_leaves_nothing() {
    let mut state = stored();
    state.put("b", Some(one()));
    state.regenerate();
    assert_eq!(commit(&mut state, GOES_ON).outcome, Outcome::Regenerate);
    drop(state.discard());
    drop(state.commit_failed());
    assert_eq!(commit(&mut state, GOES_ON).outcome, Outcome::Keep);
}

#[test]
fn a_renewal_that_failed_is_not_tried_again_and_a_save_that_failed_does_not_forbid_one() {
    let due = Standing { renewal_due: true, ..GOES_ON };
    let mut state = stored();
    assert_eq!(commit(&mut state, due).outcome, Outcome::Renew);
    drop(state.commit_failed());
    assert_eq!(commit(&mut state, due).outcome, Outcome::Keep);
    drop(state.commit_failed());
    assert_eq!(commit(&mut state, due).outcome, Outcome::Keep);

    let mut state = stored();
    state.put("b", Some(one()));
    assert_eq!(commit(&mut state, due).outcome, Outcome::Save);
    drop(state.commit_failed());
    drop(state.forget_changes());
    assert_eq!(commit(&mut state, due).outcome, Outcome::Renew);
}

/// The states of a request without a session: whether another session begins when a handler asks for one, saves it
/// while it is empty, and then sets a value.
#[test]
fn another_session_begins_only_for_a_request_that_was_overtaken_or_whose_session_expired() {
    let overtaken = || State::new(None, Former::Superseded, Reply::Nothing);
    let expired = || {
        let mut state = stored();
        let expired = Standing { absolute_passed: true, ..GOES_ON };
        assert_eq!(commit(&mut state, expired).outcome, Outcome::Expire);
        drop(state.commit_done(None));
        state
    };
    let ended = || {
        let mut state = stored();
        state.put("b", Some(one()));
        assert_eq!(commit(&mut state, GOES_ON).outcome, Outcome::Save);
        drop(state.commit_done(Some(Saved::Ended)));
        state
    };
    for (state, regenerates, begins) in [
        (overtaken(), true, true),
        (overtaken(), false, false),
        (expired(), true, true),
        (expired(), false, false),
        (ended(), true, false),
        (ended(), false, false),
    ] {
        let mut state = state;
        if regenerates {
            state.regenerate();
        }
        assert_eq!(commit(&mut state, GOES_ON).outcome, Outcome::Keep);
        drop(state.commit_done(None));
        state.put("c", Some(one()));
        let commit = commit(&mut state, GOES_ON);
        assert_eq!(commit.outcome == Outcome::Save, begins);
        assert_eq!(commit.dropped.is_none(), begins);
    }
}

/// The same, if the value is set before the request for another session is committed.
#[test]
fn another_session_that_an_overtaken_request_asked_for_is_saved_with_the_same_commit() {
    for former in [Former::Superseded, Former::None] {
        let mut state = State::new(None, former, Reply::Nothing);
        state.regenerate();
        state.put("c", Some(one()));
        let commit = commit(&mut state, GOES_ON);
        assert!(commit.outcome == Outcome::Save && commit.dropped.is_none());
    }
}

/// Commits what `wish` asks for. The store saves it as the session of `byte`.
fn save(state: &mut State, wish: Wish, byte: u8) {
    wish(state);
    let _ = commit(state, GOES_ON);
    let token = SecretText::new(Bytes::from_static(b"token"));
    drop(state.commit_done(Some(Saved::Stored { record: record(byte), token, conflicts: 0 })));
    assert!(state.has_token());
}

fn destroyed() -> State {
    let mut state = stored();
    state.destroy();
    assert_eq!(commit(&mut state, GOES_ON).outcome, Outcome::Destroy);
    drop(state.commit_done(Some(Saved::Removed)));
    state
}

fn fail(state: &mut State, wish: Wish) {
    wish(state);
    let _ = commit(state, GOES_ON);
    drop(state.commit_failed());
}

const BOTH: Wish = |state| {
    state.destroy();
    state.put("b", Some(one()));
};

#[test]
fn a_commit_that_failed_leaves_something_to_save_unless_it_was_empty() {
    for (wish, leaves) in WISHES.into_iter().zip([false, true, true, true]) {
        let mut state = stored();
        fail(&mut state, wish);
        assert_eq!(state.has_nothing_to_save(), !leaves);
    }
}

#[test]
fn a_failure_that_the_handler_got_is_reported_at_the_end_if_it_lost_changes_of_values() {
    let [_, value, regenerate, destroy] = WISHES;
    for (wish, reported) in [(value, true), (regenerate, false), (destroy, false), (BOTH, true)] {
        for meanwhile in [false, true] {
            let mut state = stored();
            fail(&mut state, wish);
            state.failure_was_told();
            if meanwhile {
                state.force("flash", Some(one()));
            }
            let (last, leftovers) = state.begin_commit(Disposition::Accept, true, |_| GOES_ON);
            drop(leftovers);
            assert_eq!(last.outcome, if meanwhile { Outcome::Save } else { Outcome::Keep });
            assert_eq!(last.dropped, reported.then_some(DropReason::SaveFailed));
        }
    }
}

/// A change that says whose session it is, and failed, is not given up if a later one goes on from there: whether that came before the
/// failure or after it.
#[test]
fn a_login_is_not_saved_without_the_end_before_it_that_failed() {
    let [_, value, _, destroy] = WISHES;
    let login: Wish = |state| state.login(one(), None).unwrap();
    let label: Wish = |state| state.label([7; 16]).unwrap();
    let reauthenticate: Wish = State::reauthenticate;
    let restarts: fn(&Changes) -> bool = Changes::restarts;
    let has_login: fn(&Changes) -> bool = |changes| changes.has_entry(SUBJECT);
    let has_value: fn(&Changes) -> bool = |changes| changes.has_entry("b");
    for (failed, later, outcome, is_kept, kept) in [
        (destroy, login, Outcome::Regenerate, restarts, true),
        // Only a label is not a session.
        (destroy, label, Outcome::Destroy, restarts, true),
        (destroy, value, Outcome::Save, restarts, false),
        (login, reauthenticate, Outcome::Regenerate, has_login, true),
        (login, label, Outcome::Save, has_login, false),
        (value, login, Outcome::Regenerate, has_value, false),
        (value, label, Outcome::Save, has_value, false),
    ] {
        for meanwhile in [false, true] {
            let mut state = stored();
            failed(&mut state);
            let _ = commit(&mut state, GOES_ON);
            if meanwhile {
                later(&mut state);
            }
            drop(state.commit_failed());
            state.failure_was_told();
            if !meanwhile {
                later(&mut state);
            }
            let (last, leftovers) = state.begin_commit(Disposition::Accept, true, |_| GOES_ON);
            drop(leftovers);
            assert_eq!((last.outcome, is_kept(&last.changes)), (outcome, kept), "{:?}", last.changes);
        }
    }
}

/// A server error takes back what a handler did: of a logout, nothing is lost.
#[test]
fn a_server_error_drops_the_values_of_a_session_that_began_after_a_destroy() {
    let [_, value, _, destroy] = WISHES;
    for (wish, drops) in [(value, true), (destroy, false), (BOTH, true)] {
        let mut state = stored();
        wish(&mut state);
        let (last, leftovers) = state.begin_commit(Disposition::DropValues, true, |_| GOES_ON);
        drop(leftovers);
        assert_eq!(last.dropped, drops.then_some(DropReason::ServerError));
    }
}

/// Its failure reached no caller, so the end of the request is the last attempt.
#[test]
fn an_end_that_failed_is_done_under_a_server_error_too() {
    let mut state = stored();
    fail(&mut state, WISHES[3]);
    let (last, leftovers) = state.begin_commit(Disposition::DropValues, true, |_| GOES_ON);
    drop(leftovers);
    assert_eq!(last.outcome, Outcome::Destroy);
}

/// A new session whose lifetime passes before it is stored: the client never had a cookie of it.
#[test]
fn a_session_that_was_never_stored_is_not_removed_from_the_client() {
    let mut state = State::new(None, Former::None, Reply::Nothing);
    state.put("a", Some(one()));
    assert_eq!(commit(&mut state, GOES_ON).outcome, Outcome::Save);
    drop(state.commit_done(Some(Saved::Removed)));
    assert!(matches!(state.take_reply(), Reply::Nothing) && !state.was_ended_by_handler());
    // A stored one is.
    let mut state = stored();
    state.put("a", None);
    assert_eq!(commit(&mut state, GOES_ON).outcome, Outcome::Save);
    drop(state.commit_done(Some(Saved::Removed)));
    assert!(matches!(state.take_reply(), Reply::Remove { weight: Weight::End }));
    assert!(state.was_ended_by_handler());
}

/// After an ending that the store carried out, the session of another service is taken up only by a handler that asked
/// for more since.
#[test]
fn an_ending_yields_to_another_session_if_the_handler_asks_for_more() {
    let [nothing, value, regenerate, destroy] = WISHES;
    let failed: Wish = |state| fail(state, WISHES[1]);
    let told: Wish = |state| {
        fail(state, WISHES[1]);
        state.failure_was_told();
    };
    for (wish, accepts, goes_on) in [
        (nothing, true, false),
        (nothing, false, false),
        (value, true, true),
        (value, false, false),
        (regenerate, false, true),
        (destroy, false, true),
        (failed, false, true),
        (told, true, false),
    ] {
        let mut state = destroyed();
        wish(&mut state);
        let continued = state.go_on_from(record(2), None, accepts);
        assert_eq!(continued == Continued::Yes { lost: None }, goes_on);
        assert_eq!(state.base().map(Record::id), goes_on.then(|| record(2).id()));
    }
    // Without an ending, it is taken up in any case.
    assert_eq!(stored().go_on_from(record(2), None, true), Continued::Yes { lost: None });
}

#[test]
fn a_renewal_is_due_when_the_options_say_so_and_for_a_token_that_has_expired() {
    let [due, expired] = [Standing { renewal_due: true, ..GOES_ON }, Standing { expired: true, ..GOES_ON }];
    for (standing, has_token, renews) in
        [(GOES_ON, true, false), (due, false, true), (expired, false, false), (expired, true, true)]
    {
        let mut state = stored();
        if has_token {
            save(&mut state, WISHES[1], 1);
        }
        assert_eq!(state.is_settled(|_| standing), !renews);
        assert_eq!(commit(&mut state, standing).outcome == Outcome::Renew, renews);
    }
}

/// A logout must not depend on whether the client waits for it.
#[test]
fn the_end_of_the_former_session_must_finish() {
    let login: Wish = |state| state.login(one(), None).unwrap();
    for (former, wish, ends) in [
        (Former::Superseded, WISHES[3], true),
        (Former::Lapsed, WISHES[3], true),
        (Former::Unusable, WISHES[3], true),
        (Former::None, WISHES[3], false),
        (Former::Superseded, login, true),
        (Former::Lapsed, login, true),
        (Former::Unusable, login, false),
        (Former::None, login, false),
    ] {
        let mut state = State::new(None, former, Reply::Nothing);
        wish(&mut state);
        let commit = commit(&mut state, GOES_ON);
        assert_eq!((commit.ends_former, commit.must_finish), (ends, ends));
    }
}

/// A closure that a later change displaced is dropped at once, and after unlocking.
#[test]
fn a_displaced_closure_is_dropped_when_the_state_is_unlocked() {
    let state = std::sync::Mutex::new(stored());
    let held = Arc::new(());
    let kept = Arc::clone(&held);
    let step: UpdateStep = Arc::new(move |_| {
        let _ = &kept;
        Ok(None)
    });
    let mut locked = Locked::new(state.lock().unwrap());
    locked.update("n", step, one());
    locked.put("n", None);
    assert_eq!(Arc::strong_count(&held), 2);
    drop(locked);
    assert_eq!(Arc::strong_count(&held), 1);
}

/// A value that an application keeps in a closure may use the session when it is dropped.
#[test]
fn a_closure_of_a_failure_that_the_handler_got_is_dropped_when_the_state_is_unlocked() {
    struct Looks(std::sync::Weak<std::sync::Mutex<State>>, Arc<std::sync::Mutex<Option<bool>>>);
    impl Drop for Looks {
        fn drop(&mut self) {
            let state = self.0.upgrade().unwrap();
            *self.1.lock().unwrap() = Some(state.try_lock().is_ok());
        }
    }
    let state = Arc::new(std::sync::Mutex::new(stored()));
    let was_free = Arc::default();
    let held = Looks(Arc::downgrade(&state), Arc::clone(&was_free));
    let step: UpdateStep = Arc::new(move |_| {
        let _ = &held;
        Ok(None)
    });
    let mut locked = state.lock().unwrap();
    locked.update("n", step, one());
    drop(commit(&mut locked, GOES_ON));
    drop(locked.commit_failed());
    locked.failure_was_told();
    let (last, leftovers) = locked.begin_commit(Disposition::Accept, true, |_| GOES_ON);
    drop(locked);
    assert_eq!(*was_free.lock().unwrap(), None);
    drop((last, leftovers));
    assert_eq!(*was_free.lock().unwrap(), Some(true));
}

#[test]
fn a_login_does_not_yield_to_another_session_and_a_change_does() {
    let [_, value, regenerate, _] = WISHES;
    // The values are in the cookie, so the client loses them, whichever session came with the request.
    let (own, lost) = (3, Some(record(3).id()));
    for came in [None, Some(record(1).id()), lost] {
        let mut state = State::new(None, Former::None, Reply::Nothing);
        save(&mut state, value, own);
        assert_eq!(state.go_on_from(record(2), came, true), Continued::Yes { lost });
        assert!(!state.has_token());
        let mut state = State::new(None, Former::None, Reply::Nothing);
        save(&mut state, value, own);
        assert_eq!(state.go_on_from_unknown(came), lost);
        assert!(!state.has_token());
    }
    // A later change does not make a login lighter.
    for later in [false, true] {
        let mut state = stored();
        save(&mut state, regenerate, own);
        if later {
            save(&mut state, value, own);
        }
        assert_eq!(state.go_on_from(record(2), None, true), Continued::No);
        assert_eq!(state.go_on_from_unknown(None), None);
        assert!(state.has_token());
    }
}

#[test]
fn a_removal_in_the_response_ends_the_session_that_came_and_no_other() {
    let [nothing, value, regenerate, _] = WISHES;
    // With a token, the client was to get what was saved. An inner service that ends the session knows what it ends.
    let saved: Wish = |state| save(state, WISHES[1], 1);
    for (wish, by_service, drops) in [
        (nothing, true, false),
        (nothing, false, false),
        (value, true, true),
        (value, false, true),
        (regenerate, true, true),
        (regenerate, false, true),
        (saved, true, false),
        (saved, false, true),
    ] {
        let mut state = stored();
        wish(&mut state);
        let (dropped, leftovers) = state.end_by_response(by_service);
        drop(leftovers);
        assert_eq!((dropped, state.base().is_none()), (drops, true));
        state.put("c", Some(one()));
        assert_eq!(commit(&mut state, GOES_ON).outcome, Outcome::Keep, "it has ended");
    }
    let another: fn() -> State = || {
        let mut state = destroyed();
        save(&mut state, WISHES[1], 2);
        state
    };
    let after_expiry: fn() -> State = || {
        let mut state = stored();
        let _ = commit(&mut state, Standing { absolute_passed: true, ..GOES_ON });
        drop(state.commit_done(None));
        save(&mut state, BOTH, 2);
        state
    };
    let ending: fn() -> State = || {
        let mut state = stored();
        WISHES[3](&mut state);
        state
    };
    let none: fn() -> State = || State::new(None, Former::None, Reply::Nothing);
    for (state, outcome) in [
        (another, Outcome::Save),
        (after_expiry, Outcome::Save),
        (ending, Outcome::Regenerate),
        (none, Outcome::Save),
    ] {
        let mut state = state();
        let (dropped, leftovers) = state.end_by_response(true);
        drop(leftovers);
        assert!(!dropped);
        state.put("c", Some(one()));
        assert_eq!(commit(&mut state, GOES_ON).outcome, outcome, "it goes on");
    }
}

#[test]
fn a_session_that_ends_as_it_begins_does_not_take_back_the_end_of_the_one_before() {
    let mut state = stored();
    state.destroy();
    assert_eq!(commit(&mut state, GOES_ON).outcome, Outcome::Destroy);
    drop(state.commit_done(Some(Saved::Removed)));
    state.put("b", Some(one()));
    assert_eq!(commit(&mut state, GOES_ON).outcome, Outcome::Save);
    drop(state.commit_done(Some(Saved::Ended)));
    assert!(matches!(state.take_reply(), Reply::Remove { weight: Weight::End }));
}

#[test]
fn regenerate_of_a_stored_session_leaves_it_stored() {
    let mut state = stored();
    state.regenerate();
    assert_eq!(commit(&mut state, GOES_ON).outcome, Outcome::Regenerate);
    drop(state.commit_done(Some(Saved::Ended)));
    // It ended meanwhile: nothing begins under its cookie.
    state.put("c", Some(one()));
    assert_eq!(commit(&mut state, GOES_ON).outcome, Outcome::Keep);
}

/// A stored session with a value under each of these keys, which are in order.
fn stored_with(keys: &[&str]) -> State {
    let payload = Payload::merge(None, keys.iter().map(|key| (*key, Some(&b"\xa1a"[..])))).unwrap();
    let time = Timestamp::from_unix;
    let record =
        Record::new(SessionId::from_bytes([1; 16]), time(10), time(20), payload, Origin::native(false));
    State::new(Some(record), Former::None, Reply::Nothing)
}

/// Commits what was asked for, with this result of the store. Returns what was decided, and whether a session has ended, and by a
/// logout.
fn commit_with(state: &mut State, saved: Saved) -> (Outcome, [bool; 2]) {
    let outcome = commit(state, GOES_ON).outcome;
    drop(state.commit_done(Some(saved)));
    (outcome, [state.was_ended_by_handler(), state.was_logged_out()])
}

fn saved() -> Saved {
    Saved::Stored { record: record(2), token: SecretText::new(Bytes::from_static(b"token")), conflicts: 0 }
}

#[test]
fn a_handler_logs_out_if_it_ends_more_than_a_notice_or_a_visitor_s_session() {
    use super::super::key::{FLASH, LIFETIME};
    use Outcome::{Destroy, Regenerate, Save};
    let notice = &*format!("{FLASH}notice");
    let value: Wish = |state| {
        state.clear();
        state.put("b", Some(one()));
    };
    let login: Wish = |state| {
        state.clear();
        state.login(one(), None).unwrap();
    };
    let shown: Wish = |state| state.put(&format!("{FLASH}notice"), None);
    let last: Wish = |state| state.put("a", None);
    let clear: Wish = State::clear;
    let [.., regenerate, destroy] = WISHES;
    let (goes_on, quietly, logout) = ([false, false], [true, false], [true, true]);
    let removed: fn() -> Saved = || Saved::Removed;
    let ended: fn() -> Saved = || Saved::Ended;
    let stored: fn() -> Saved = saved;
    for (number, (keys, wish, outcome, result, end)) in [
        (&["a"][..], value, Save, stored, goes_on),
        (&[SUBJECT, "a"], value, Regenerate, stored, logout),
        (&[LIFETIME, "a"], value, Regenerate, stored, quietly),
        (&[LIFETIME, SUBJECT], value, Regenerate, stored, logout),
        (&[SUBJECT, "a"], value, Regenerate, ended, goes_on),
        (&[SUBJECT, "a"], login, Regenerate, stored, goes_on),
        (&[SUBJECT, "a"], regenerate, Regenerate, stored, goes_on),
        (&["a"], BOTH, Regenerate, stored, logout),
        (&["a"], destroy, Destroy, removed, logout),
        (&["a"], last, Save, removed, logout),
        (&[notice], clear, Destroy, removed, logout),
        (&[notice], shown, Save, removed, quietly),
        (&[LIFETIME, notice], shown, Save, removed, quietly),
        (&[SUBJECT, notice], regenerate, Regenerate, removed, logout),
    ]
    .into_iter()
    .enumerate()
    {
        let mut state = stored_with(keys);
        wish(&mut state);
        assert_eq!(commit_with(&mut state, result()), (outcome, end), "row {number}");
    }
}

/// Of several ends in one request, the strongest counts.
#[test]
fn a_logout_is_one_whatever_ends_before_and_after_it() {
    use super::super::key::FLASH;
    let notice = || format!("{FLASH}notice");
    let mut state = stored_with(&[&notice()]);
    state.put(&notice(), None);
    assert_eq!(commit_with(&mut state, Saved::Removed), (Outcome::Save, [true, false]));
    state.put("a", Some(one()));
    assert_eq!(commit_with(&mut state, saved()), (Outcome::Save, [true, false]));
    state.destroy();
    assert_eq!(commit_with(&mut state, Saved::Removed), (Outcome::Destroy, [true, true]));
    state.put(&notice(), Some(one()));
    let State { base, .. } = stored_with(&[&notice()]);
    let token = SecretText::new(Bytes::from_static(b"token"));
    let stored = Saved::Stored { record: base.unwrap(), token, conflicts: 0 };
    assert_eq!(commit_with(&mut state, stored), (Outcome::Save, [true, true]));
    state.put(&notice(), None);
    assert_eq!(commit_with(&mut state, Saved::Removed), (Outcome::Save, [true, true]));
}

/// A handler that writes to a key again corrects the save that failed, which is then tried again as a whole.
#[test]
fn a_change_of_a_key_repeats_the_save_of_it_that_failed_and_another_change_does_not() {
    let step: fn() -> UpdateStep = || Arc::new(|_| Ok(Some(one())));
    let changes: [fn(&mut State, &str, UpdateStep); 4] = [
        |state, key, _| state.put(key, Some(one())),
        |state, key, step| state.update(key, step, one()),
        |state, key, _| state.force(key, Some(one())),
        // The same user as before: the session of another would begin anew.
        |state, key, step| match key {
            SUBJECT => state.login(Bytes::from_static(b"\x02"), None).unwrap(),
            other => state.update(other, step, one()),
        },
    ];
    for (number, change) in changes.into_iter().enumerate() {
        for (key, told, repeats) in [(SUBJECT, true, true), ("other", true, false), ("other", false, true)] {
            let mut state = stored();
            fail(&mut state, |state| {
                state.put(SUBJECT, Some(Bytes::from_static(b"\x02")));
                state.put("x", Some(one()));
            });
            if told {
                state.failure_was_told();
            }
            change(&mut state, key, step());
            let (last, leftovers) = state.begin_commit(Disposition::Accept, true, |_| GOES_ON);
            drop(leftovers);
            let has_both = matches!(last.changes.get("x"), Lookup::Value(_));
            assert_eq!(has_both, repeats, "change {number} of {key}, told: {told}");
        }
    }
}

/// After another request has ended the session.
#[test]
fn an_ended_session_is_followed_by_one_that_the_handler_or_another_service_begins() {
    let ended = || {
        let mut state = stored();
        state.put("b", Some(one()));
        assert_eq!(commit_with(&mut state, Saved::Ended), (Outcome::Save, [false, false]));
        state
    };
    let destroyed: fn(&mut State) = |state| {
        state.destroy();
        assert_eq!(commit(state, GOES_ON).outcome, Outcome::Keep);
        drop(state.commit_done(None));
        assert!(state.was_logged_out());
    };
    let continued: fn(&mut State) = |state| {
        assert_eq!(state.go_on_from(record(2), None, true), Continued::Yes { lost: None });
    };
    for (follow, begins) in [(destroyed, true), (continued, true), (|_| {}, false)] {
        let mut state = ended();
        follow(&mut state);
        state.put("c", Some(one()));
        let commit = commit(&mut state, GOES_ON);
        assert_eq!((commit.outcome == Outcome::Save, commit.dropped.is_none()), (begins, begins));
    }
}

#[test]
fn a_value_is_lost_from_the_report_of_the_failed_save_until_it_is_set_again() {
    let mut state = stored();
    state.put("b", Some(one()));
    assert!(!state.has_lost("b"), "to be saved");
    commit(&mut state, GOES_ON);
    drop(state.commit_failed());
    assert!(!state.has_lost("b"), "to be saved again");
    state.failure_was_told();
    let lost = |state: &State| ["a", "b", "c"].map(|key| state.has_lost(key));
    assert_eq!(lost(&state), [false, true, false]);
    state.put("c", Some(one()));
    assert_eq!(lost(&state), [false, true, false]);
    state.put("b", Some(one()));
    assert_eq!(lost(&state), [false; 3]);
}
