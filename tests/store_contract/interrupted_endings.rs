//! Endings of sessions that are interrupted: unreadable lists, failing backends, callers that give up.

use std::sync::{Arc, Mutex};

use hyper_session::testing::{Fault, Faulty, Primitive};
use hyper_session::{ServerStore, Session};

use crate::concurrent_requests::{NAME, poll_once, run};
use crate::subject_fixture::{World, list_id};
use crate::support::Jar;

/// A list that cannot be read is an error, and not "nothing": a user who logs out everywhere must learn that it did not happen.
#[test]
pub(crate) fn t26_a_damaged_list_is_an_error_until_the_next_login() {
    for damage in [&b""[..], b"\x03", b"\x03revision\0", b"{}", b"\x01revision", &[3; 9 + 33]] {
        let world = World::new();
        let jar = world.login("ada");
        let id = world.id(&jar);
        world.overwrite_list("ada", damage);
        assert!(run(world.store.sessions_of("ada")).unwrap_err().is_unavailable(), "{damage:?}");
        assert!(run(world.store.end_sessions_of("ada", None)).unwrap_err().is_unavailable());
        assert!(run(world.store.end_session_of("ada", id)).unwrap_err().is_unavailable());
        assert_eq!(world.events.take(), [""; 0]);
        assert_eq!(world.subject(&jar).as_deref(), Some("ada"), "requests go on");
        // The login works, and says that something was lost.
        let mut new = world.login("ada");
        assert_eq!(world.events.take(), ["store_failed"]);
        assert_eq!(world.listed("ada"), [world.id(&new)]);
        // A session that was lost comes back to the list with its next token.
        let mut jar = jar;
        world.edit(&mut jar, Session::regenerate);
        assert_eq!(world.listed("ada"), [world.id(&new), world.id(&jar)]);
        // Logging out works in any case.
        world.overwrite_list("ada", damage);
        world.edit(&mut new, Session::destroy);
        assert_eq!(new.get(NAME), None);
        assert_eq!(world.store.backend().ids().len(), 1);
    }
}

/// A call began to end them, and was dropped: they are listed while they live, and ended by the next call that writes.
#[test]
fn t26_what_was_begun_to_be_ended_is_ended_by_whoever_comes_next() {
    type Next = fn(&World, &Jar);
    let nexts: [Next; 4] = [
        |world, _| drop(world.login("ada")),
        // On a device whose session is to end.
        |world, device| {
            let mut device = device.clone();
            world.edit(&mut device, |session| session.login("ada"));
            assert_eq!(world.subject(&device).as_deref(), Some("ada"));
        },
        |world, _| assert_eq!(world.end_all("ada", None), 2),
        |world, _| assert!(!world.end_one("ada", list_id("ada").to_string().parse().unwrap())),
    ];
    for next in nexts {
        let world = World::new();
        let jars = [world.login("ada"), world.login("ada")];
        let backend = world.store.backend().taking_turns();
        let dying = ServerStore::with_backend(backend).clock(world.clock.clone()).build().unwrap();
        let mut ending = Box::pin(dying.end_sessions_of("ada", None));
        // To the look at the list, and to its mark; not to the sessions.
        for _ in 0..3 {
            assert!(poll_once(ending.as_mut()).is_pending());
        }
        drop(ending);
        assert!(world.subject(&jars[0]).is_some(), "not ended yet");
        assert_eq!(world.listed("ada").len(), 2, "listing shows what lives, and ends nothing");
        next(&world, &jars[0]);
        assert_eq!((world.subject(&jars[0]), world.subject(&jars[1])), (None, None));
    }
}

#[test]
fn t26_a_backend_that_fails_in_the_middle_is_an_error_and_asking_again_ends_all() {
    for steps in 0_usize.. {
        let world = World::new();
        let jars = [world.login("ada"), world.login("ada")];
        let backend = Faulty::new(world.store.backend().clone());
        let left = Mutex::new(steps);
        backend.intercept(move |_| {
            let mut left = left.lock().unwrap();
            let Some(fewer) = left.checked_sub(1) else { return Some(Fault::Unreachable) };
            *left = fewer;
            None
        });
        let store = ServerStore::with_backend(backend).clock(world.clock.clone()).build().unwrap();
        match run(store.end_sessions_of("ada", None)) {
            Ok(ended) => {
                assert_eq!(ended, 2);
                // The list's entry, its mark, two sessions, their ends. To forget them is the next one's, if it fails.
                assert!(steps >= 6, "{steps}");
                break;
            }
            Err(error) => assert!(error.is_unavailable()),
        }
        assert!(world.end_all("ada", None) <= 2);
        assert_eq!((world.subject(&jars[0]), world.subject(&jars[1])), (None, None), "after {steps} steps");
        assert!(world.list("ada").is_none());
    }
}

/// The list cannot be marked, as in a backend whose memory is full for a moment. A login comes before the session is ended, or before
/// the list is taken away.
#[test]
fn t26_an_ending_that_could_not_mark_the_list_leaves_a_login_on_it() {
    for login_before in [1, 2] {
        let world = Arc::new(World::with(|builder| builder.check_session_list(true)));
        let old = world.login("ada");
        let (backend, new) = (Faulty::new(world.store.backend().clone()), Arc::new(Mutex::new(None)));
        backend.intercept({
            let (world, new, writes) = (Arc::clone(&world), Arc::clone(&new), Mutex::new(0));
            move |call| {
                if !matches!(call.primitive, Primitive::Replace | Primitive::Delete) {
                    return None;
                }
                let mut writes = writes.lock().unwrap();
                let write = *writes;
                *writes += 1;
                if write == login_before {
                    *new.lock().unwrap() = Some(world.login("ada"));
                }
                (write == 0).then_some(Fault::Unreachable)
            }
        });
        let ending = ServerStore::with_backend(backend).clock(world.clock.clone()).build().unwrap();
        assert_eq!(run(ending.end_sessions_of("ada", None)).unwrap(), 1);
        assert_eq!(world.subject(&old), None);
        let new = new.lock().unwrap().take().expect("a login");
        assert_eq!(world.subject(&new).as_deref(), Some("ada"), "before write {login_before}");
        assert_eq!(world.listed("ada"), [world.id(&new)]);
    }
}
