//! Closures given to `update`: what they hold, what they change, and when they run again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use hyper_session::{Error, Session};

use crate::spy_store::{
    Gate, Verb, assert_no_cookie, assert_set, everywhere, on_server, pairs, poll, settle,
};
use crate::support::{Jar, status};

use crate::dropped_futures::{finish, meanwhile};

/// A value that an `update` closure holds, so that a test sees the closure dropped.
#[derive(Clone, Debug)]
pub(crate) struct Held(Arc<()>);

impl Held {
    pub(crate) fn new() -> Self {
        Self(Arc::new(()))
    }

    pub(crate) fn is_gone(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    /// Adds one to `n`, by a closure that holds this and the session itself: each keeps the other alive.
    pub(crate) fn hold(&self, session: &Session) -> Result<(), Error> {
        let (held, own) = (self.clone(), session.clone());
        let add = move |old: Option<u64>| {
            let _ = (&held, &own);
            old.unwrap_or(0) + 1
        };
        session.update("n", add).map(drop)
    }
}

#[test]
fn an_update_that_holds_its_session_is_dropped_with_its_request() {
    everywhere(|world| async move {
        for code in [200, 500, 103] {
            let held = Held::new();
            let kept = held.clone();
            world.answer(&mut Jar::new(), code, move |session| kept.hold(session)).await;
            assert!(held.is_gone(), "answered with {code}");
        }

        let held = Held::new();
        let kept = held.clone();
        let failed = world.start(&Jar::new(), move |ask| {
            let kept = kept.clone();
            async move {
                kept.hold(&ask.session().await?)?;
                Err(Error::unavailable("the handler failed"))
            }
        });
        assert_eq!(failed.await.unwrap().status(), 503);
        assert!(held.is_gone(), "the handler failed");

        let held = Held::new();
        let kept = held.clone();
        let mut midway = world.start(&Jar::new(), move |ask| {
            let kept = kept.clone();
            async move {
                kept.hold(&ask.session().await?)?;
                std::future::pending().await
            }
        });
        assert!(poll(&mut midway).is_pending());
        assert!(!held.is_gone());
        drop(midway);
        assert!(held.is_gone(), "the handler was dropped midway");
    });
}

/// The same where the store fails, or the client goes away while the store is asked, at the end or by a save before.
#[test]
fn an_update_that_holds_its_session_is_dropped_where_it_was_not_saved() {
    on_server(|world| async move {
        world.fail(&[Verb::Create]);
        let held = Held::new();
        let kept = held.clone();
        let response = world.edit(&mut Jar::new(), move |session| kept.hold(session)).await;
        assert_eq!(response.status(), 503);
        assert!(held.is_gone(), "the store failed");
        world.fail(&[]);

        for saves in [false, true] {
            let held = Held::new();
            let kept = held.clone();
            world.gate(Gate::Before(Verb::Create));
            let mut response = world.start(&Jar::new(), move |ask| {
                let kept = kept.clone();
                async move {
                    let session = ask.session().await?;
                    kept.hold(&session)?;
                    if saves {
                        session.save().await?;
                    }
                    Ok(status(200))
                }
            });
            assert!(poll(&mut response).is_pending());
            drop(response);
            world.gate(Gate::Open);
            settle().await;
            assert!(held.is_gone(), "the client went away; saves: {saves}");
        }

        // Replacing its token goes on in the background, and fails there.
        let (jar, held) = (world.jar().await, Held::new());
        let kept = held.clone();
        world.gate(Gate::Before(Verb::Create));
        let mut response = world.start(&jar, move |ask| {
            let kept = kept.clone();
            async move {
                let session = ask.session().await?;
                kept.hold(&session)?;
                session.regenerate()?;
                Ok(status(200))
            }
        });
        assert!(poll(&mut response).is_pending());
        drop(response);
        world.fail(&[Verb::Create]);
        world.gate(Gate::Open);
        settle().await;
        assert!(world.events.take().contains(&"store_failed".to_owned()));
        assert!(held.is_gone(), "the store failed in the background");
    });
}

/// A closure that changes the very key whose new value it is asked for would be run for ever.
#[test]
fn an_update_that_changes_its_own_key_is_an_error() {
    everywhere(|world| async move {
        let mut jar = Jar::new();
        let response = world.edit(&mut jar, |session| {
            let (own, runs) = (session.clone(), AtomicU32::new(0));
            let change = move |old: Option<u64>| {
                let runs = runs.fetch_add(1, Ordering::SeqCst);
                assert!(runs < 10_000, "it runs for ever");
                own.set("n", runs).unwrap();
                old.unwrap_or(0) + 1
            };
            assert_eq!(session.update("n", change).unwrap_err().label(), "conflict");
            session.delete("n")?;
            // One whose change is the same each time is done at the second run.
            let own = session.clone();
            let change = move |old: Option<u64>| {
                own.set("n", 5_u64).unwrap();
                old.unwrap_or(0) + 1
            };
            assert_eq!(session.update("n", change)?, 6);
            Ok(())
        });
        assert_eq!(response.await.status(), 200);
        assert_eq!(world.values(&jar).await, pairs(&[("n", 6)]));
    });
}

fn at_least_ten(session: &Session) -> Result<(), Error> {
    session.update("n", |old: Option<u64>| old.unwrap_or(0).max(10)).map(drop)
}

fn at_most_ten(session: &Session) -> Result<(), Error> {
    session.update("n", |old: Option<u64>| old.unwrap_or(0).min(10)).map(drop)
}

#[test]
fn an_update_that_changed_nothing_is_run_again_with_what_is_saved_beside_it() {
    on_server(|world| async move {
        for saves in [false, true] {
            let mut jar = world.jar().await;
            world.edit(&mut jar, |session| session.set("n", 10_u64)).await;
            world.events.take();
            let (inner, other) = (world.clone(), jar.clone());
            let response = world.visit(&mut jar, move |ask| {
                let (world, other) = (inner.clone(), other.clone());
                async move {
                    let session = ask.session().await?;
                    at_least_ten(&session)?;
                    session.set("b", 2_u64)?;
                    meanwhile(&world, &other, |session| session.set("n", 1_u64)).await;
                    if saves {
                        session.save().await?;
                        assert_eq!(session.get::<u64>("n")?, Some(10));
                    }
                    Ok(status(200))
                }
            });
            assert_set(&world, &response.await);
            assert_eq!(world.events.take(), ["conflict_merged:1"]);
            assert_eq!(world.values(&jar).await, pairs(&[("a", 1), ("b", 2), ("n", 10)]));
        }
    });
}

#[test]
fn an_update_that_changed_nothing_writes_nothing_alone() {
    everywhere(|world| async move {
        let mut jar = world.jar().await;
        world.edit(&mut jar, |session| session.set("n", 10_u64)).await;
        world.calls();
        let response = world.visit(&mut jar, |ask| async move {
            let session = ask.session().await?;
            at_least_ten(&session)?;
            at_most_ten(&session)?;
            session.save().await?;
            at_least_ten(&session)?;
            Ok(status(200))
        });
        assert_no_cookie(&response.await);
        assert!(world.calls().iter().all(|verb| *verb == Verb::Fetch));
    });
}

/// An update that changed nothing, made while a save is under way that then takes in what another request left: what that
/// one wrote is not undone by a later change to something else.
#[test]
fn an_update_that_changed_nothing_does_not_undo_what_another_request_did() {
    on_server(|world| async move {
        let mut jar = world.jar().await;
        world.edit(&mut jar, |session| session.set("n", 10_u64)).await;
        let (inner, other) = (world.clone(), jar.clone());
        world.gate(Gate::Before(Verb::Replace));
        let mut response = world.start(&jar, move |ask| {
            let (world, other) = (inner.clone(), other.clone());
            async move {
                let session = ask.session().await?;
                session.set("b", 2_u64)?;
                let saving = session.clone();
                let save = tokio::spawn(async move { saving.save().await });
                settle().await;
                at_most_ten(&session)?;
                // The gate opens for a moment in which the task of the save does not run.
                world.gate(Gate::Open);
                meanwhile(&world, &other, |session| session.set("n", 5_u64)).await;
                save.await.unwrap()?;
                session.set("c", 3_u64)?;
                Ok(status(200))
            }
        });
        jar.store(finish(&mut response).await.unwrap().headers());
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1), ("b", 2), ("c", 3), ("n", 5)]));
    });
}

/// A closure that changes nothing is in no commit, and is freed with its request all the same.
#[test]
fn b15_an_update_that_changes_nothing_is_dropped_with_its_request() {
    everywhere(|world| async move {
        for code in [200, 404, 500, 101] {
            let mut jar = world.jar().await;
            let held = Held::new();
            let kept = held.clone();
            let response = world.answer(&mut jar, code, move |session| {
                let (kept, own) = (kept.clone(), session.clone());
                let same = move |old: Option<u64>| {
                    let _ = (&kept, &own);
                    old.unwrap()
                };
                session.update("a", same).map(drop)
            });
            assert_no_cookie(&response.await);
            assert!(held.is_gone(), "answered with {code}");
        }
    });
}

/// Looks at its session when it is dropped, as a value of an application may.
struct LooksWhenDropped(Session, Arc<AtomicU32>);

impl Drop for LooksWhenDropped {
    fn drop(&mut self) {
        let _ = (self.0.has("a"), self.0.id(), self.0.keys());
        self.1.fetch_add(1, Ordering::SeqCst);
    }
}

/// Whatever takes a closure out of the session, its values are dropped when the session is not locked.
#[test]
fn b15_what_a_closure_holds_may_use_the_session_when_it_is_dropped() {
    type Then = fn(&Session) -> Result<(), Error>;
    let thens: [Then; 9] = [
        |_| Ok(()),
        |session| session.set("n", 7_u64),
        |session| session.set("n", 1_u64),
        |session| session.delete("n").map(drop),
        |session| session.update("n", |old: Option<u64>| old.unwrap_or(0) + 1).map(drop),
        Session::clear,
        Session::destroy,
        |session| session.login("ada"),
        Session::discard,
    ];
    everywhere(|world| async move {
        for (number, then) in thens.into_iter().enumerate() {
            for (code, saves) in [(200, false), (500, false), (101, false), (200, true)] {
                println!("{number} {code} {saves}");
                let dropped = Arc::new(AtomicU32::new(0));
                let counter = Arc::clone(&dropped);
                let mut jar = world.jar().await;
                world
                    .visit(&mut jar, move |ask| {
                        let counter = Arc::clone(&counter);
                        async move {
                            let session = ask.session().await?;
                            let held = LooksWhenDropped(session.clone(), counter);
                            session.update("n", move |old: Option<u64>| {
                                let _ = &held;
                                old.unwrap_or(0) + 1
                            })?;
                            if saves {
                                session.save().await?;
                            }
                            then(&session)?;
                            Ok(status(code))
                        }
                    })
                    .await;
                assert_eq!(dropped.load(Ordering::SeqCst), 1);
            }
        }
    });
}
