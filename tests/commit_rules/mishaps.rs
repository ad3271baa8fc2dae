//! What goes wrong around a commit, and must not go further: panics, futures that are dropped or kept, and closures that
//! misbehave.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper_session::store::{Backend, Replaced, Saved, Stored};
use hyper_session::{Clock, Error, Event, ServerStore, Session, SessionId, Timestamp};

use crate::support::{Answer, Jar, block_on, status};
use crate::world::{
    Ask, Form, Gate, Kind, Setup, Verb, World, assert_no_cookie, assert_set, everywhere, on_server, pairs,
    poll, settle,
};

/// Lets a response go on until it is there. One that waits for what nobody brings fails the test, and does not hang it.
async fn finish<F: Future + ?Sized>(response: &mut Pin<Box<F>>) -> F::Output {
    for _ in 0..1_000 {
        if let Poll::Ready(answer) = poll(response) {
            return answer;
        }
        tokio::task::yield_now().await;
    }
    panic!("the response waits for ever");
}

/// Another request of this session, which does `act` and is done.
async fn meanwhile<A>(world: &World, jar: &Jar, act: A)
where
    A: Fn(&Session) -> Result<(), Error> + Clone + Send + Sync + 'static,
{
    world.edit(&mut jar.clone(), act).await;
}

/// What an `update` closure holds, to see that it was dropped.
#[derive(Clone, Debug)]
struct Held(Arc<()>);

impl Held {
    fn new() -> Self {
        Self(Arc::new(()))
    }

    fn is_gone(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    /// Adds one to `n`, by a closure that holds this and the session itself: each keeps the other alive.
    fn hold(&self, session: &Session) -> Result<(), Error> {
        let (held, own) = (self.clone(), session.clone());
        let add = move |old: Option<u64>| {
            let _ = (&held, &own);
            old.unwrap_or(0) + 1
        };
        session.update("n", add).map(drop)
    }
}

// Futures that are dropped, or kept.

/// The end of a request waits for a save of the handler, its client goes away, and then the runtime: what would have gone
/// on in the background is dropped once, and not handed to that runtime again and again.
#[test]
fn a_runtime_that_shuts_down_ends_what_waits_for_a_save() {
    use tokio::runtime::{Builder, Runtime};
    let runtimes: [fn() -> Runtime; 2] = [
        || Builder::new_current_thread().build().unwrap(),
        || Builder::new_multi_thread().worker_threads(1).build().unwrap(),
    ];
    let cases = runtimes.iter().flat_map(|new| [(new, true), (new, false)]);
    for (form, (new_runtime, hangs_up)) in [Form::Service, Form::Function]
        .into_iter()
        .flat_map(|form| cases.clone().map(move |case| (form, case)))
    {
        let world = World::new(Kind::Server, form, &Setup::default());
        let runtime = new_runtime();
        let (begun, saving) = tokio::sync::oneshot::channel();
        let begun = Arc::new(Mutex::new(Some(begun)));
        world.gate(Gate::Before(Verb::Create));
        let mut response = world.start(&Jar::new(), move |ask| {
            let begun = Arc::clone(&begun);
            async move {
                let session = ask.session().await?;
                session.set("a", 1_u64)?;
                let mut save = Box::pin(async move { session.save().await });
                // By now it is this save's turn.
                assert!(poll(&mut save).is_pending());
                tokio::spawn(save);
                begun.lock().unwrap().take().unwrap().send(()).unwrap();
                Ok(status(200))
            }
        });
        runtime.block_on(async {
            assert!(poll(&mut response).is_pending());
            saving.await.unwrap();
            if hangs_up {
                drop(response);
            } else {
                tokio::spawn(response);
            }
            settle().await;
        });
        assert_eq!(world.events.take(), if hangs_up { &["interrupted:true"][..] } else { &[] });
        drop(runtime);
        assert_eq!(world.events.take(), if hangs_up { &[] } else { &["interrupted:true"][..] });
        assert_eq!(block_on(world.rows()), 0);
    }
}

/// A handler that is ready, and still owns a save that it polled: it holds the turn of the commit at the end.
struct Keeping(Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>);

impl Future for Keeping {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        assert!(self.0.as_mut().poll(cx).is_pending());
        Poll::Ready(Ok(status(200)))
    }
}

#[test]
fn a_handler_that_is_ready_and_keeps_its_save_does_not_block_the_answer() {
    on_server(|world| async move {
        world.gate(Gate::Before(Verb::Create));
        let mut response = world.start(&Jar::new(), |ask: Ask| {
            Keeping(Box::pin(async move {
                let session = ask.session().await?;
                session.set("a", 1_u64)?;
                session.save().await
            }))
        });
        assert!(poll(&mut response).is_pending());
        world.gate(Gate::Open);
        let response = finish(&mut response).await.unwrap();
        assert_set(&world, &response);
        let mut jar = Jar::new();
        jar.store(response.headers());
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]));
        assert_eq!(world.rows().await, 1);
    });
}

// A session that another request ended.

#[test]
fn a_save_after_the_session_was_ended_is_an_error_each_time_and_destroy_begins_another() {
    on_server(|world| async move {
        let mut jar = world.jar().await;
        let (inner, other) = (world.clone(), jar.clone());
        let response = world.visit(&mut jar, move |ask| {
            let (world, other) = (inner.clone(), other.clone());
            async move {
                let session = ask.session().await?;
                meanwhile(&world, &other, Session::destroy).await;
                for key in ["b", "c"] {
                    session.set(key, 1_u64)?;
                    assert!(session.save().await.unwrap_err().is_ended(), "{key}");
                    assert_eq!(session.id(), None);
                }
                assert_eq!(world.rows().await, 0);
                session.destroy()?;
                session.set("user", 7_u64)?;
                session.save().await?;
                assert!(session.id().is_some());
                Ok(status(200))
            }
        });
        assert_set(&world, &response.await);
        assert_eq!(world.values(&jar).await, pairs(&[("user", 7)]));
        assert_eq!(world.rows().await, 1);
        assert_eq!(world.events.take(), ["dropped:session_ended"; 2]);
    });
}

#[test]
fn a_new_session_in_the_place_of_one_that_another_request_ended_is_stored() {
    on_server(|world| async move {
        for saves in [false, true] {
            let mut jar = world.jar().await;
            let rows = world.rows().await;
            let (inner, other) = (world.clone(), jar.clone());
            let response = world.visit(&mut jar, move |ask| {
                let (world, other) = (inner.clone(), other.clone());
                async move {
                    let session = ask.session().await?;
                    meanwhile(&world, &other, Session::destroy).await;
                    session.destroy()?;
                    session.set("user", 7_u64)?;
                    if saves {
                        session.save().await?;
                    }
                    Ok(status(200))
                }
            });
            assert_set(&world, &response.await);
            assert_eq!(world.values(&jar).await, pairs(&[("user", 7)]));
            assert_eq!(world.rows().await, rows);
            assert_eq!(world.events.take(), [""; 0]);
        }
    });
}

/// The same where the session was found to be ended by a save that was under way when the handler destroyed it.
#[test]
fn a_new_session_begun_during_a_save_that_finds_the_old_one_ended_is_stored() {
    on_server(|world| async move {
        let mut jar = world.jar().await;
        let (inner, other) = (world.clone(), jar.clone());
        world.gate(Gate::Before(Verb::Replace));
        let response = world.visit(&mut jar, move |ask| {
            let (world, other) = (inner.clone(), other.clone());
            async move {
                let session = ask.session().await?;
                session.set("b", 2_u64)?;
                let saving = session.clone();
                let save = tokio::spawn(async move { saving.save().await });
                settle().await;
                session.destroy()?;
                session.set("user", 7_u64)?;
                meanwhile(&world, &other, Session::destroy).await;
                world.gate(Gate::Open);
                assert!(save.await.unwrap().unwrap_err().is_ended());
                Ok(status(200))
            }
        });
        assert_set(&world, &response.await);
        assert_eq!(world.values(&jar).await, pairs(&[("user", 7)]));
        assert_eq!(world.rows().await, 1);
    });
}

// Panics.

/// The backend of a world, for a second store with an observer of its own.
struct Shared(World);

impl Shared {
    fn backend(&self) -> &impl Backend {
        self.0.server.as_ref().unwrap().backend()
    }
}

impl Backend for Shared {
    async fn fetch(&self, id: SessionId, now: Timestamp) -> Result<Option<Stored>, Error> {
        self.backend().fetch(id, now).await
    }

    async fn create(&self, id: SessionId, entry: Stored, now: Timestamp) -> Result<bool, Error> {
        self.backend().create(id, entry, now).await
    }

    async fn replace(
        &self,
        id: SessionId,
        expected: Bytes,
        entry: Option<Stored>,
        now: Timestamp,
    ) -> Result<Replaced, Error> {
        self.backend().replace(id, expected, entry, now).await
    }

    async fn touch(&self, id: SessionId, expires: Timestamp, now: Timestamp) -> Result<bool, Error> {
        self.backend().touch(id, expires, now).await
    }

    async fn delete(&self, id: SessionId) -> Result<(), Error> {
        self.backend().delete(id).await
    }
}

/// A world whose observer panics, once, at the next event after the flag was set.
fn with_panicking_observer(form: Form) -> (World, Arc<AtomicBool>) {
    let world = World::new(Kind::Server, form, &Setup::default());
    let armed = Arc::new(AtomicBool::new(false));
    let fuse = Arc::clone(&armed);
    let observer = move |event: &Event<'_>| {
        assert!(!fuse.swap(false, Ordering::SeqCst), "the observer panics: {event:?}");
    };
    let store = ServerStore::with_backend(Shared(world.clone()))
        .cookie(Setup::default().cookie)
        .clock(world.clock.clone())
        .observer(observer)
        .build()
        .unwrap();
    (World { store: Arc::new(store), ..world }, armed)
}

/// What makes a save tell its observer something.
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

// Closures given to `update`.

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
        assert!(failed.await.is_err());
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
            assert!(session.update("n", change).unwrap_err().is_conflict());
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

// What is printed.

#[test]
fn what_a_store_answers_prints_no_token_and_no_value() {
    block_on(async {
        for kind in [Kind::Cookie, Kind::Server] {
            let world = World::new(kind, Form::Service, &Setup::default());
            let mut jar = Jar::new();
            world.edit(&mut jar, |session| session.set("secret", "hunter2")).await;
            let now = world.clock.now();
            let load = || world.store.load(jar.get(world.name()).unwrap().as_bytes(), now);
            let record = load().await.unwrap().unwrap();
            let saved = world.store.save(Some(record.clone()), Arc::default(), now).await.unwrap();
            let renewed = world.store.regenerate(record.clone(), Arc::default(), now).await.unwrap();
            for saved in [saved, renewed] {
                let Saved::Stored { token, .. } = &saved else { panic!("not stored: {saved:?}") };
                let text = std::str::from_utf8(token.expose()).unwrap();
                assert!(text.len() > 40, "a token, to look for");
                let digits = format!("{:?}", token.expose());
                for printed in [
                    format!("{saved:?} {saved:#?} {token:?} {token:#?}"),
                    format!("{record:?} {record:#?} {:?}", load()),
                ] {
                    assert!(!printed.contains(text), "{printed}");
                    assert!(!printed.contains(digits.trim_matches(['[', ']'])), "{printed}");
                    assert!(!printed.contains("hunter2"), "{printed}");
                }
            }
        }
    });
}
