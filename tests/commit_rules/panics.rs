//! Panics of observers and closures: they end what they happen in, and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use hyper_session::{Error, Event, ServerStore, Session};

use crate::spy_store::{Form, Gate, Kind, Setup, Verb, World, on_server, pairs, settle};
use crate::support::{Jar, block_on, status};

use crate::closures::Held;
use crate::dropped_futures::{finish, meanwhile};

/// A world whose observer panics, once, at the next event after the flag was set.
fn with_panicking_observer(form: Form) -> (World, Arc<AtomicBool>) {
    let world = World::new(Kind::Server, form, &Setup::default());
    let armed = Arc::new(AtomicBool::new(false));
    let fuse = Arc::clone(&armed);
    let observer = move |event: &Event<'_>| {
        assert!(!fuse.swap(false, Ordering::SeqCst), "the observer panics: {event:?}");
    };
    let store = ServerStore::with_backend(Arc::clone(world.server.as_ref().unwrap().backend()))
        .cookie(Setup::default().cookie)
        .clock(world.clock.clone())
        .observer(observer)
        .build()
        .unwrap();
    (World { store: Arc::new(store), ..world }, armed)
}

/// The reason for which a save calls its observer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cause {
    Conflict,
    Ended,
    EndedBefore,
    Failure,
}

#[test]
fn an_observer_that_panics_during_a_save_does_not_block_the_answer() {
    let all = [Cause::Conflict, Cause::Ended, Cause::EndedBefore, Cause::Failure];
    let cases = all.into_iter().flat_map(|cause| [(cause, Form::Service), (cause, Form::Function)]);
    for (cause, form) in cases {
        println!("{form:?} {cause:?}");
        block_on(async move {
            let (world, armed) = with_panicking_observer(form);
            let mut jar = world.jar().await;
            let (inner, other) = (world.clone(), jar.clone());
            let mut response = world.start(&jar, move |ask| {
                let (world, other, armed) = (inner.clone(), other.clone(), Arc::clone(&armed));
                async move {
                    let session = ask.session().await?;
                    match cause {
                        Cause::Conflict => meanwhile(&world, &other, |session| session.set("c", 3_u64)).await,
                        Cause::Ended => meanwhile(&world, &other, Session::destroy).await,
                        Cause::EndedBefore => {
                            meanwhile(&world, &other, Session::destroy).await;
                            session.set("b", 1_u64)?;
                            assert!(session.save().await.unwrap_err().is_ended());
                        }
                        Cause::Failure => world.fail(&[Verb::Replace]),
                    }
                    session.set("b", 2_u64)?;
                    armed.store(true, Ordering::SeqCst);
                    let saving = session.clone();
                    let save = tokio::spawn(async move { saving.save().await });
                    assert!(save.await.unwrap_err().is_panic());
                    world.fail(&[]);
                    Ok(status(200))
                }
            });
            let response = finish(&mut response).await.unwrap();
            assert_eq!(response.status(), 200);
            jar.store(response.headers());
            let expected = match cause {
                Cause::Conflict => pairs(&[("a", 1), ("b", 2), ("c", 3)]),
                Cause::Failure => pairs(&[("a", 1), ("b", 2)]),
                Cause::Ended | Cause::EndedBefore => Vec::new(),
            };
            assert_eq!(world.values(&jar).await, expected);
        });
    }
}

/// The same where it panics because it is told of a save that was given up although it ends a token.
#[test]
fn an_observer_that_panics_when_a_save_is_given_up_does_not_block_the_answer() {
    for form in [Form::Service, Form::Function] {
        block_on(async move {
            let (world, armed) = with_panicking_observer(form);
            let mut jar = world.jar().await;
            let old = jar.clone();
            world.gate(Gate::Before(Verb::Replace));
            let inner = world.clone();
            let mut response = world.start(&jar, move |ask| {
                let (world, armed) = (inner.clone(), Arc::clone(&armed));
                async move {
                    let session = ask.session().await?;
                    session.regenerate()?;
                    let saving = session.clone();
                    let save = tokio::spawn(async move { saving.save().await });
                    settle().await;
                    armed.store(true, Ordering::SeqCst);
                    save.abort();
                    assert!(save.await.is_err());
                    assert!(!armed.load(Ordering::SeqCst), "the observer was told");
                    world.gate(Gate::Open);
                    session.set("b", 2_u64)?;
                    Ok(status(200))
                }
            });
            jar.store(finish(&mut response).await.unwrap().headers());
            assert_eq!(world.values(&jar).await, pairs(&[("a", 1), ("b", 2)]));
            assert!(world.look(&old, Session::is_empty).await, "the old token is refused");
        });
    }
}

/// An `update` that panics when it is run again on what another request left. The save that met it is lost; the answer is
/// not held up, and where it does not panic a second time, neither is anything lost.
#[test]
fn an_update_that_panics_when_it_is_run_again_does_not_block_the_answer() {
    on_server(|world| async move {
        let mut jar = world.jar().await;
        let (inner, other) = (world.clone(), jar.clone());
        let mut response = world.start(&jar, move |ask| {
            let (world, other) = (inner.clone(), other.clone());
            async move {
                let session = ask.session().await?;
                let runs = AtomicU32::new(0);
                session.update("n", move |old: Option<u64>| {
                    assert_ne!(runs.fetch_add(1, Ordering::SeqCst), 1, "the second run panics");
                    old.unwrap_or(0) + 1
                })?;
                meanwhile(&world, &other, |session| session.set("n", 5_u64)).await;
                let saving = session.clone();
                let save = tokio::spawn(async move { saving.save().await });
                assert!(save.await.unwrap_err().is_panic());
                Ok(status(200))
            }
        });
        let response = finish(&mut response).await.unwrap();
        assert_eq!(response.status(), 200);
        jar.store(response.headers());
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1), ("n", 6)]));
    });
}

/// Where it panics each time, the request ends in that panic, as if the handler had; other requests go on.
#[test]
fn an_update_that_always_panics_ends_its_own_request_alone() {
    on_server(|world| async move {
        let jar = world.jar().await;
        let held = Held::new();
        let (inner, other, kept) = (world.clone(), jar.clone(), held.clone());
        let response = world.start(&jar, move |ask| {
            let (world, other, kept) = (inner.clone(), other.clone(), kept.clone());
            async move {
                let session = ask.session().await?;
                let own = session.clone();
                session.update("n", move |old: Option<u64>| {
                    assert!(old.is_none(), "{kept:?} {own:?}");
                    1
                })?;
                meanwhile(&world, &other, |session| session.set("n", 5_u64)).await;
                Ok(status(200))
            }
        });
        assert!(tokio::spawn(response).await.unwrap_err().is_panic());
        assert!(held.is_gone());
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1), ("n", 5)]));
    });
}

/// The closure of an update may hold its session, so that only the end of the request drops it.
#[test]
fn an_observer_that_panics_after_the_handler_leaves_no_closure_behind() {
    for form in [Form::Service, Form::Function] {
        block_on(async move {
            let (world, armed) = with_panicking_observer(form);
            let held = Held::new();
            let kept = held.clone();
            let response = world.start(&Jar::new(), move |ask| {
                let (kept, armed) = (kept.clone(), Arc::clone(&armed));
                async move {
                    kept.hold(&ask.session().await?)?;
                    armed.store(true, Ordering::SeqCst);
                    Err(Error::unavailable("the handler failed"))
                }
            });
            assert!(tokio::spawn(response).await.unwrap_err().is_panic());
            assert!(held.is_gone(), "{form:?}");
        });
    }
}
