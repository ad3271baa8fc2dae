//! Reads and writes after the head of the response was sent, and after the client hung up.

use std::sync::{Arc, Mutex};

use hyper_session::{Error, Refusal, Session};

use crate::spy_store::{
    Act, Ask, Form, Gate, Kind, Setup, Verb, World, assert_set, everywhere, on_server, pairs, poll, settle,
};
use crate::support::{Jar, block_on, refused, status};

// After the head.

/// "writes after the head is sent (streaming body) | a typed error, never silence"
#[test]
fn writes_after_the_head_are_errors_and_reads_go_on() {
    everywhere(|world| async move {
        let mut jar = world.jar().await;
        world.edit(&mut jar, |session| session.set_flash("f", 3_u64)).await;
        let left = Arc::new(Mutex::new(None));
        let sink = Arc::clone(&left);
        let handler = move |ask: Ask| {
            let sink = Arc::clone(&sink);
            async move {
                let session = ask.session().await?;
                session.set("b", 2_u64)?;
                *sink.lock().unwrap() = Some((ask, session));
                Ok(status(200))
            }
        };
        assert_set(&world, &world.visit(&mut jar, handler).await);
        let (ask, session) = left.lock().unwrap().take().unwrap();
        world.calls();
        for session in [session, ask.session().await.unwrap()] {
            let errors = [
                session.set("c", 1).unwrap_err(),
                session.set("b", 2_u64).unwrap_err(),
                session.set_flash("g", 1).unwrap_err(),
                session.delete("a").unwrap_err(),
                session.delete("absent").unwrap_err(),
                session.clear().unwrap_err(),
                session.flash::<u64>("f").unwrap_err(),
                session.update("a", |old: Option<u64>| old.unwrap()).unwrap_err(),
                session.regenerate().unwrap_err(),
                session.destroy().unwrap_err(),
                session.save().await.unwrap_err(),
            ];
            assert!(errors.iter().all(Error::is_head_sent), "{errors:?}");
            assert_eq!(session.get::<u64>("a").unwrap(), Some(1));
            assert_eq!(session.get::<u64>("b").unwrap(), Some(2));
            assert_eq!(session.peek::<u64>("f").unwrap(), Some(3));
            assert!(session.id().is_some());
        }
        assert_eq!(world.calls(), [] as [Verb; 0]);
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1), ("b", 2)]));
    });
}

/// "writes after the head is sent (streaming body) | a typed error, never silence", if the handler did not ask before.
#[test]
fn a_session_first_loaded_after_the_head_can_be_read_alone() {
    everywhere(|world| async move {
        for (jar, value) in [(world.jar().await, Some(1)), (Jar::new(), None)] {
            let left = Arc::new(Mutex::new(None));
            let sink = Arc::clone(&left);
            let handler = move |ask: Ask| {
                *sink.lock().unwrap() = Some(ask);
                async { Ok(status(200)) }
            };
            let response = world.visit(&mut jar.clone(), handler).await;
            assert!(response.headers().is_empty());
            let ask = left.lock().unwrap().take().unwrap();
            let session = ask.session().await.unwrap();
            assert_eq!(session.get::<u64>("a").unwrap(), value);
            assert!(session.set("b", 2).unwrap_err().is_head_sent());
            assert!(session.destroy().unwrap_err().is_head_sent());
            assert!(session.save().await.unwrap_err().is_head_sent());
        }
        assert!(world.calls().iter().all(|verb| *verb == Verb::Fetch));
    });
}

/// "writes after the head is sent": the head is on its way as soon as the handler is done, also while it waits for the
/// store.
#[test]
fn writes_while_the_store_is_saving_the_answer_are_errors() {
    on_server(|world| async move {
        let mut jar = world.jar().await;
        let left = Arc::new(Mutex::new(None));
        let sink = Arc::clone(&left);
        let handler = move |ask: Ask| {
            let sink = Arc::clone(&sink);
            async move {
                let session = ask.session().await?;
                session.set("b", 2_u64)?;
                *sink.lock().unwrap() = Some(session);
                Ok(status(200))
            }
        };
        world.gate(Gate::Before(Verb::Replace));
        let mut response = world.start(&jar, handler);
        assert!(poll(&mut response).is_pending());
        let session: Session = left.lock().unwrap().take().unwrap();
        assert!(session.set("c", 3_u64).unwrap_err().is_head_sent());
        assert_eq!(session.get::<u64>("b").unwrap(), Some(2));
        world.gate(Gate::Open);
        jar.store(response.await.unwrap().headers());
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1), ("b", 2)]));
    });
}

// The client went away.

/// "client disconnects after the handler returned | a destroy or regenerate still completes"
#[test]
fn a_disconnect_after_the_handler_does_not_keep_a_session_alive() {
    let (gone, replaced) = (Refusal::UnknownId, Refusal::Regenerated);
    let cases: [(Verb, Act, usize, Refusal); 6] = [
        (Verb::Replace, Session::destroy, 0, gone),
        (Verb::Replace, Session::clear, 0, gone),
        // A last delete compares: what another request set meanwhile is not this one's to remove.
        (Verb::Replace, |session| session.delete("a").map(drop), 0, gone),
        (Verb::Create, Session::regenerate, 1, replaced),
        (Verb::Replace, Session::regenerate, 1, replaced),
        (Verb::Replace, |session| session.destroy().and_then(|()| session.set("b", 2)), 1, replaced),
    ];
    on_server(|world| async move {
        for (number, (verb, deed, rows, refusal)) in cases.into_iter().enumerate() {
            println!("case {number}");
            let jar = world.jar().await;
            let rows_before = world.rows().await - 1;
            world.gate(Gate::Before(verb));
            let mut response = world.start(&jar, move |ask| async move {
                deed(&ask.session().await?)?;
                Ok(status(200))
            });
            assert!(poll(&mut response).is_pending());
            drop(response);
            assert_eq!(world.events.take(), ["interrupted:true"]);
            settle().await;
            assert!(!world.look(&jar, Session::is_empty).await, "not done yet: the store has not answered");
            world.gate(Gate::Open);
            settle().await;
            assert!(world.look(&jar, Session::is_empty).await, "the old token is refused");
            assert_eq!(world.rows().await, rows_before + rows);
            assert_eq!(world.events.take(), [refused(refusal)]);
        }
    });
}

/// "client disconnects after the handler returned": a save is done or not done, never in parts.
#[test]
fn a_plain_save_that_is_dropped_is_all_or_nothing() {
    let after = pairs(&[("b", 2), ("c", 3)]);
    let before = pairs(&[("a", 1)]);
    on_server(move |world| {
        let (before, after) = (before.clone(), after.clone());
        async move {
            for (gate, expected) in
                [(Gate::Before(Verb::Replace), before), (Gate::After(Verb::Replace), after)]
            {
                let jar = world.jar().await;
                world.gate(gate);
                let mut response = world.start(&jar, |ask| async move {
                    let session = ask.session().await?;
                    session.delete("a")?;
                    session.set("b", 2_u64)?;
                    session.set("c", 3_u64)?;
                    Ok(status(200))
                });
                assert!(poll(&mut response).is_pending());
                drop(response);
                world.gate(Gate::Open);
                settle().await;
                assert_eq!(world.values(&jar).await, expected, "{gate:?}");
                assert_eq!(world.events.take(), [""; 0]);
            }
        }
    });
}

/// "client disconnects after the handler returned": with no runtime to carry the rest, the event says that it was lost.
#[test]
fn a_disconnect_outside_of_a_runtime_is_told() {
    for form in [Form::Service, Form::Function] {
        let world = World::new(Kind::Server, form, &Setup::default());
        let jar = block_on(world.jar());
        world.gate(Gate::Before(Verb::Replace));
        let mut response = world.start(&jar, |ask| async move {
            ask.session().await?.destroy()?;
            Ok(status(200))
        });
        assert!(poll(&mut response).is_pending());
        drop(response);
        assert_eq!(world.events.take(), ["interrupted:false"]);
    }
}

/// "client disconnects after the handler returned | a destroy or regenerate still completes", also where the answer
/// waits for a save that the handler began.
#[test]
fn a_disconnect_while_the_end_waits_for_a_save_does_not_keep_a_session_alive() {
    let deeds: [Act; 3] = [Session::destroy, Session::clear, Session::regenerate];
    on_server(|world| async move {
        for (number, deed) in deeds.into_iter().enumerate() {
            println!("deed {number}");
            let jar = world.jar().await;
            world.gate(Gate::Before(Verb::Replace));
            let mut response = world.start(&jar, move |ask| async move {
                let session = ask.session().await?;
                session.set("b", 2_u64)?;
                let saving = session.clone();
                tokio::spawn(async move { saving.save().await });
                tokio::task::yield_now().await;
                deed(&session)?;
                Ok(status(200))
            });
            assert!(poll(&mut response).is_pending());
            settle().await;
            assert!(poll(&mut response).is_pending());
            drop(response);
            world.gate(Gate::Open);
            settle().await;
            assert!(world.look(&jar, Session::is_empty).await, "the old token is refused");
        }
    });
}
