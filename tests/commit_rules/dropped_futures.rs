//! Futures that are dropped or kept around a commit, and sessions that end meanwhile.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use hyper_session::__internals::Saved;
use hyper_session::{Clock, Error, Session};

use crate::spy_store::{
    Ask, Form, Gate, Kind, Setup, Verb, World, assert_set, on_server, pairs, poll, settle,
};
use crate::support::{Answer, Jar, block_on, status};

/// Polls a response until it is ready. A response that never becomes ready fails the test, and does not hang it.
pub(crate) async fn finish<F: Future + ?Sized>(response: &mut Pin<Box<F>>) -> F::Output {
    for _ in 0..1_000 {
        if let Poll::Ready(answer) = poll(response) {
            return answer;
        }
        tokio::task::yield_now().await;
    }
    panic!("the response waits for ever");
}

/// Another request of this session, which does `act` and is done.
pub(crate) async fn meanwhile<A>(world: &World, jar: &Jar, act: A)
where
    A: Fn(&Session) -> Result<(), Error> + Clone + Send + Sync + 'static,
{
    world.edit(&mut jar.clone(), act).await;
}

// Futures that are dropped, or kept.

/// The cookies of several devices of one user.
async fn devices_of_a_user<const N: usize>(world: &World) -> [Jar; N] {
    let mut jars = std::array::from_fn(|_| Jar::new());
    for jar in &mut jars {
        world.edit(jar, |session| session.login("ada")).await;
    }
    world.events.take();
    jars
}

/// The client hangs up while its handler ends the other sessions of its user: before the first write of that, or after it. They end
/// all the same.
#[test]
fn other_sessions_end_although_the_client_hangs_up() {
    for gate in [Gate::Before(Verb::Replace), Gate::After(Verb::Replace)] {
        on_server(|world| async move {
            let jars = devices_of_a_user::<3>(&world).await;
            world.gate(gate);
            let mut response = world.start(&jars[0], |ask: Ask| async move {
                let session = ask.session().await?;
                session.set("changed", 1_u64)?;
                session.end_other_sessions().await?;
                Ok(status(200))
            });
            assert!(poll(&mut response).is_pending());
            settle().await;
            assert!(poll(&mut response).is_pending());
            drop(response);
            assert_eq!(world.events.take(), ["interrupted:true"], "{gate:?}");
            world.gate(Gate::Open);
            settle().await;
            for (at, jar) in jars.iter().enumerate() {
                let subject = world.look(jar, |session| session.subject().map(String::from)).await;
                assert_eq!(subject.is_some(), at == 0, "{gate:?}: {at}");
            }
        });
    }
}

/// The client hangs up while the end of the other sessions waits for a save that another task has begun: it is completed all the same.
#[test]
fn other_sessions_end_although_the_client_hangs_up_before_their_turn() {
    for changes in [true, false] {
        on_server(|world| async move {
            let jars = devices_of_a_user::<2>(&world).await;
            world.gate(Gate::Before(Verb::Create));
            let mut response = world.start(&jars[0], move |ask: Ask| async move {
                let session = ask.session().await?;
                session.reauthenticate()?;
                let mut save = Box::pin(async { session.save().await });
                assert!(poll(&mut save).is_pending());
                drop(save);
                if changes {
                    session.set("changed", 1_u64)?;
                }
                session.end_other_sessions().await?;
                Ok(status(200))
            });
            assert!(poll(&mut response).is_pending());
            settle().await;
            assert!(poll(&mut response).is_pending());
            drop(response);
            assert_eq!(world.events.take(), ["interrupted:true"; 2], "the save, and the end of the others");
            world.gate(Gate::Open);
            settle().await;
            assert!(!world.look(&jars[1], |session| session.subject().is_some()).await);
        });
    }
}

/// A task still waits for the end of the other sessions when the response is sent. It gets an error, so the end is not completed.
#[test]
fn a_task_whose_end_of_other_sessions_comes_too_late_is_told() {
    on_server(|world| async move {
        let mut jars = [Jar::new(), Jar::new()];
        for jar in &mut jars {
            world.edit(jar, |session| session.login("ada")).await;
        }
        world.gate(Gate::Before(Verb::Replace));
        let (sink, ended) = tokio::sync::oneshot::channel();
        let sink = Arc::new(Mutex::new(Some(sink)));
        let mut response = world.start(&jars[0], move |ask: Ask| {
            let sink = Arc::clone(&sink);
            async move {
                let session = ask.session().await?;
                session.set("a", 1_u64)?;
                let saving = session.clone();
                tokio::spawn(async move { saving.save().await });
                settle().await;
                let sink = sink.lock().unwrap().take().unwrap();
                tokio::spawn(async move { drop(sink.send(session.end_other_sessions().await)) });
                settle().await;
                Ok(status(200))
            }
        });
        for _ in 0..300 {
            assert!(poll(&mut response).is_pending());
            tokio::task::yield_now().await;
        }
        world.gate(Gate::Open);
        assert_eq!(finish(&mut response).await.unwrap().status(), 200);
        assert!(ended.await.unwrap().unwrap_err().is_head_sent());
        assert!(world.look(&jars[1], |session| session.subject().is_some()).await);
    });
}

/// A task still waits for an earlier save when the response is sent. It gets an error, and its changes are saved with the response.
#[test]
fn a_task_whose_save_comes_too_late_is_told() {
    on_server(|world| async move {
        let mut jar = world.jar().await;
        world.gate(Gate::Before(Verb::Replace));
        let (sink, saved) = tokio::sync::oneshot::channel();
        let sink = Arc::new(Mutex::new(Some(sink)));
        let mut response = world.start(&jar, move |ask: Ask| {
            let sink = Arc::clone(&sink);
            async move {
                let session = ask.session().await?;
                session.set("b", 2_u64)?;
                let saving = session.clone();
                tokio::spawn(async move { saving.save().await });
                settle().await;
                session.set("c", 3_u64)?;
                let sink = sink.lock().unwrap().take().unwrap();
                tokio::spawn(async move { drop(sink.send(session.save().await)) });
                settle().await;
                Ok(status(200))
            }
        });
        for _ in 0..300 {
            assert!(poll(&mut response).is_pending());
            tokio::task::yield_now().await;
        }
        world.gate(Gate::Open);
        jar.store(finish(&mut response).await.unwrap().headers());
        assert!(saved.await.unwrap().unwrap_err().is_head_sent());
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1), ("b", 2), ("c", 3)]));
    });
}

/// A save is given up while it waits for an earlier one. The earlier one goes on, and nothing of it is done twice.
#[test]
fn a_save_that_is_given_up_while_it_waits_leaves_the_other_alone() {
    on_server(|world| async move {
        let mut jar = world.jar().await;
        world.gate(Gate::Before(Verb::Create));
        let mut response = world.start(&jar, |ask: Ask| async move {
            let session = ask.session().await?;
            session.regenerate()?;
            let saving = session.clone();
            tokio::spawn(async move { saving.save().await });
            settle().await;
            let mut save = Box::pin(async { session.save().await });
            assert!(poll(&mut save).is_pending());
            drop(save);
            Ok(status(200))
        });
        for _ in 0..300 {
            assert!(poll(&mut response).is_pending());
            tokio::task::yield_now().await;
        }
        world.gate(Gate::Open);
        jar.store(finish(&mut response).await.unwrap().headers());
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]));
        let new_tokens = world.calls().iter().filter(|verb| **verb == Verb::Create).count();
        assert_eq!((new_tokens, world.events.take()), (1, vec![]));
    });
}

/// The handler gives up waiting for the end of the other sessions, which goes on in the background, and fails. No handler gets that
/// error: so the changes are saved with the response, or an error response reports that they are not.
#[test]
fn changes_whose_save_fails_in_the_background_are_not_lost_without_a_word() {
    /// When the store fails: while the handler runs, and no longer at the end; until the end; or after the handler is done.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Failing {
        Meanwhile,
        UntilTheEnd,
        AtTheEnd,
    }
    for failing in [Failing::Meanwhile, Failing::UntilTheEnd, Failing::AtTheEnd] {
        on_server(|world| async move {
            let mut jars = [Jar::new(), Jar::new()];
            for jar in &mut jars {
                world.edit(jar, |session| session.login("ada")).await;
            }
            world.gate(Gate::Before(Verb::Replace));
            let inner = world.clone();
            let fails = |world: &World| {
                world.fail(&[Verb::Replace]);
                world.gate(Gate::Open);
            };
            let mut response = world.start(&jars[0], move |ask: Ask| {
                let world = inner.clone();
                async move {
                    let session = ask.session().await?;
                    session.set("email", 1_u64)?;
                    let mut ending = Box::pin(async { session.end_other_sessions().await });
                    assert!(poll(&mut ending).is_pending());
                    drop(ending);
                    if failing != Failing::AtTheEnd {
                        fails(&world);
                        settle().await;
                    }
                    if failing == Failing::Meanwhile {
                        world.fail(&[]);
                    }
                    Ok(status(200))
                }
            });
            if failing == Failing::AtTheEnd {
                assert!(poll(&mut response).is_pending());
                fails(&world);
            }
            let response = finish(&mut response).await.unwrap();
            let saved = failing == Failing::Meanwhile;
            assert_eq!(response.status(), if saved { 200 } else { 503 }, "{failing:?}");
            world.fail(&[]);
            assert_eq!(world.values(&jars[0]).await, if saved { pairs(&[("email", 1)]) } else { vec![] });
        });
    }
}

/// The client has gone when the store fails, so no handler gets the error: one event reports it.
#[test]
fn other_sessions_that_cannot_be_ended_in_the_background_are_reported_once() {
    for changes in [true, false] {
        on_server(|world| async move {
            let jars = devices_of_a_user::<2>(&world).await;
            world.gate(Gate::Before(Verb::Replace));
            let mut response = world.start(&jars[0], move |ask: Ask| async move {
                let session = ask.session().await?;
                if changes {
                    // Then the store fails while it saves this session, and not at the list.
                    session.set("changed", 1_u64)?;
                }
                session.end_other_sessions().await?;
                Ok(status(200))
            });
            assert!(poll(&mut response).is_pending());
            settle().await;
            assert!(poll(&mut response).is_pending());
            drop(response);
            assert_eq!(world.events.take(), ["interrupted:true"]);
            world.fail(&[Verb::Fetch, Verb::Replace, Verb::Delete]);
            world.gate(Gate::Open);
            settle().await;
            assert_eq!(world.events.take(), ["store_failed"], "changes: {changes}");
        });
    }
}

/// Without a runtime nothing is completed in the background, and one event says so.
#[test]
fn other_sessions_whose_end_is_dropped_without_a_runtime_are_reported_once() {
    for form in [Form::Service, Form::Function] {
        for (regenerates, gate) in [(true, Verb::Create), (false, Verb::Replace)] {
            let world = World::new(Kind::Server, form, &Setup::default());
            let mut started = None;
            block_on(async {
                let jars = devices_of_a_user::<2>(&world).await;
                world.gate(Gate::Before(gate));
                let mut response = world.start(&jars[0], move |ask: Ask| async move {
                    let session = ask.session().await?;
                    if regenerates {
                        session.regenerate()?;
                    }
                    session.end_other_sessions().await?;
                    Ok(status(200))
                });
                assert!(poll(&mut response).is_pending());
                settle().await;
                assert!(poll(&mut response).is_pending());
                started = Some(response);
            });
            drop(started);
            assert_eq!(world.events.take(), ["interrupted:false"], "regenerates: {regenerates}");
        }
    }
}

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

/// The handler stops waiting for its second save, which has not begun. The first one is saved once.
#[test]
fn a_save_that_is_dropped_while_it_waits_leaves_the_save_before_it_alone() {
    on_server(|world| async move {
        let (inner, mut jar) = (world.clone(), Jar::new());
        world.gate(Gate::Before(Verb::Create));
        let response = world.visit(&mut jar, move |ask| {
            let world = inner.clone();
            async move {
                let session = ask.session().await?;
                session.set("a", 1_u64)?;
                let saving = session.clone();
                let save = tokio::spawn(async move { saving.save().await });
                settle().await;
                let mut second = Box::pin(async { session.save().await });
                assert!(poll(&mut second).is_pending());
                drop(second);
                world.gate(Gate::Open);
                save.await.unwrap()?;
                world.calls();
                Ok(status(200))
            }
        });
        assert_set(&world, &response.await);
        assert_eq!(world.calls(), [], "nothing is left to save");
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]));
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
        let inner = world.clone();
        world.gate(Gate::Before(Verb::Replace));
        let response = world.visit(&mut jar, move |ask| {
            let world = inner.clone();
            async move {
                let session = ask.session().await?;
                session.set("b", 2_u64)?;
                let saving = session.clone();
                let save = tokio::spawn(async move { saving.save().await });
                settle().await;
                session.destroy()?;
                session.set("user", 7_u64)?;
                world.delete(session.id().unwrap()).await;
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

// Output of Debug.

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
