//! Handlers that answer with a server error, return an error, panic, or are dropped.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use hyper_session::{Error, Session};

use crate::spy_store::{
    Act, Ask, RENEWAL, Setup, Verb, assert_no_cookie, assert_removed, assert_set, everywhere,
    everywhere_with, pairs, poll, settle,
};
use crate::support::Jar;

/// "returned a 5xx | data changes dropped, `destroy` and `regenerate` still done"
#[test]
fn a_server_error_drops_values_and_still_ends_or_regenerates() {
    everywhere(|world| async move {
        for code in [500, 503, 599] {
            // Values of an existing session, and a session that would begin.
            let mut jar = world.jar().await;
            let before = jar.clone();
            assert_no_cookie(&world.answer(&mut jar, code, |session| session.set("a", 9_u64)).await);
            assert_no_cookie(&world.answer(&mut jar, code, Session::clear).await);
            assert_no_cookie(&world.answer(&mut Jar::new(), code, |session| session.set("a", 9_u64)).await);
            assert_eq!(world.events.take(), ["dropped:server_error"; 3]);
            assert!(world.calls().iter().all(|verb| *verb == Verb::Fetch));
            assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]));

            let both = |session: &Session| session.set("a", 9_u64).and_then(|()| session.regenerate());
            assert_set(&world, &world.answer(&mut jar, code, both).await);
            assert_ne!(jar.0, before.0);
            assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]), "the new id has the old values");

            let restart = |session: &Session| session.destroy().and_then(|()| session.set("a", 9_u64));
            assert_removed(&world, &world.answer(&mut jar, code, restart).await);
            if world.server.is_some() {
                assert_eq!(world.rows().await, 0);
            }
        }
        // 4xx answers are answers.
        let mut jar = Jar::new();
        assert_set(&world, &world.answer(&mut jar, 499, |session| session.set("a", 1_u64)).await);
    });
}

/// "returned a 5xx | … (option to keep data too)"
#[test]
fn keep_values_on_server_error_saves_them() {
    everywhere_with(&Setup { keep_values: true, ..Setup::default() }, |world| async move {
        let mut jar = Jar::new();
        assert_set(&world, &world.answer(&mut jar, 500, |session| session.set("a", 1_u64)).await);
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]));
        assert_removed(&world, &world.answer(&mut jar, 500, Session::clear).await);
        assert_eq!(world.events.take(), [""; 0]);
    });
}

/// "returned a 5xx": reading renews as ever, since the user was here.
#[test]
fn a_server_error_still_renews() {
    everywhere(|world| async move {
        let mut jar = world.jar().await;
        world.clock.advance(RENEWAL);
        assert_set(&world, &world.answer(&mut jar, 500, |session| session.set("a", 9_u64)).await);
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]));
    });
}

/// All that a handler can do to its session, for the rows in which none of it counts.
const DEEDS: [Act; 4] =
    [|session| session.set("a", 9_u64), Session::clear, Session::regenerate, Session::destroy];

/// An `Err` of this crate is treated as the 5xx that it becomes: no value is saved.
/// (`b9_a_logout_before_an_error_is_a_logout` has the end and the new token of a stored session.)
#[test]
fn no_value_is_saved_when_the_handler_returns_an_error() {
    everywhere(|world| async move {
        let jar = world.jar().await;
        let [set, clear, ..] = DEEDS;
        let stored = [(jar.clone(), set), (jar.clone(), clear)];
        for (jar, deed) in DEEDS.map(|deed| (Jar::new(), deed)).into_iter().chain(stored) {
            let fails = move |ask: Ask| async move {
                deed(&ask.session().await?)?;
                Err(Error::unavailable("the handler's own trouble"))
            };
            let mut jar = jar.clone();
            let response = world.visit(&mut jar, fails).await;
            assert_eq!(response.status(), 503);
            assert_no_cookie(&response);
            assert_eq!(world.events.take()[0], "handler_failed:unavailable");
        }
        assert!(world.calls().iter().all(|verb| *verb == Verb::Fetch));
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]));
    });
}

/// "panicked, or was dropped | nothing saved"
#[test]
fn nothing_is_saved_when_the_handler_panics() {
    everywhere(|world| async move {
        let jar = world.jar().await;
        for (jar, deed) in [Jar::new(), jar.clone()].iter().flat_map(|jar| DEEDS.map(|deed| (jar, deed))) {
            let panics = move |ask: Ask| async move {
                deed(&ask.session().await?)?;
                panic!("as this test wants");
            };
            let outcome = tokio::spawn(world.start(jar, panics)).await;
            assert!(outcome.unwrap_err().is_panic());
        }
        assert!(world.calls().iter().all(|verb| *verb == Verb::Fetch));
        assert_eq!(world.events.take(), [""; 0]);
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]), "the next request is served as ever");
    });
}

/// "returned `Err`, panicked, or was dropped | nothing saved"
#[test]
fn nothing_is_saved_when_the_handler_is_dropped() {
    everywhere(|world| async move {
        let jar = world.jar().await;
        for (jar, deed) in [Jar::new(), jar.clone()].iter().flat_map(|jar| DEEDS.map(|deed| (jar, deed))) {
            let hangs = move |ask: Ask| async move {
                deed(&ask.session().await?)?;
                std::future::pending().await
            };
            let mut response = world.start(jar, hangs);
            assert!(poll(&mut response).is_pending());
            drop(response);
        }
        settle().await;
        assert!(world.calls().iter().all(|verb| *verb == Verb::Fetch));
        assert_eq!(world.events.take(), [""; 0]);
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]));
    });
}

/// How a handler ends that leaves its session to a task.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Error,
    Panic,
    Drop,
}

/// "returned `Err`, panicked, or was dropped | nothing saved", and what comes too late is "a typed error, never silence":
/// for a task, too, that goes on with the session of a request that has ended.
fn a_task_that_goes_on_is_told(end: End) {
    everywhere(|world| async move {
        let jar = world.jar().await;
        let left = Arc::new(Mutex::new(None));
        let sink = Arc::clone(&left);
        let handler = move |ask: Ask| {
            let sink = Arc::clone(&sink);
            async move {
                let session = ask.session().await?;
                session.set("a", 9_u64)?;
                // The task holds whatever the handler had: the request or the handle, and the session.
                *sink.lock().unwrap() = Some((ask, session));
                match end {
                    End::Error => Err(Error::unavailable("the handler's own trouble")),
                    End::Panic => panic!("as this test wants"),
                    End::Drop => std::future::pending().await,
                }
            }
        };
        let mut response = world.start(&jar, handler);
        match end {
            End::Panic => drop(tokio::spawn(response).await.unwrap_err()),
            End::Error | End::Drop => {
                assert_eq!(poll(&mut response).is_pending(), end == End::Drop);
                drop(response);
            }
        }
        let (ask, session) = left.lock().unwrap().take().unwrap();
        let set = session.set("a", 10_u64).map_err(|error| error.is_head_sent());
        let saved = session.save().await.map_err(|error| error.is_head_sent());
        drop(ask);
        assert_eq!((set, saved), (Err(true), Err(true)));
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]));
    });
}

#[test]
fn a_task_that_goes_on_after_the_handlers_error_is_told() {
    a_task_that_goes_on_is_told(End::Error);
}

#[test]
fn a_task_that_goes_on_after_the_handlers_panic_is_told() {
    a_task_that_goes_on_is_told(End::Panic);
}

#[test]
fn a_task_that_goes_on_after_the_handler_was_dropped_is_told() {
    a_task_that_goes_on_is_told(End::Drop);
}
