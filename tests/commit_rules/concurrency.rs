//! Sessions beside each other: requests at once, and several names around one handler.

use std::sync::{Arc, Mutex};
use std::task::Poll;

use http::Request;
use http::header::VARY;
use hyper::service::service_fn;
use hyper_session::cookie::CookieOptions;
use hyper_session::{Error, Session, SessionExt, SessionService};

use crate::spy_store::{
    Act, Form, Gate, Kind, Setup, Verb, World, assert_no_cookie, assert_removed, on_server, ordered, pairs,
    poll, settle,
};
use crate::support::{self, Body, Jar, block_on, request, set_cookies, status};

// Requests at once.

fn increment(session: &Session) -> Result<(), Error> {
    session.update("n", |old: Option<u64>| old.unwrap_or(0) + 1).map(drop)
}

/// An `update` is replayed on the value that another request left: no increment is lost.
#[test]
fn an_update_is_replayed_on_what_another_request_left() {
    on_server(|world| async move {
        let mut jar = world.jar().await;
        let mut other = jar.clone();
        world.gate(Gate::Before(Verb::Replace));
        let mut slow = world.start(&jar, |ask| async move {
            let session = ask.session().await?;
            increment(&session)?;
            session.set("slow", 1_u64)?;
            increment(&session)?;
            Ok(status(200))
        });
        assert!(poll(&mut slow).is_pending());
        world.gate(Gate::Before(Verb::Touch)); // wakes the slow request, which is not polled
        let quick = |session: &Session| increment(session).and_then(|()| session.set("quick", 1_u64));
        world.edit(&mut other, quick).await;
        jar.store(slow.await.unwrap().headers());
        assert_eq!(world.events.take(), ["conflict_merged:1"]);
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1), ("n", 3), ("quick", 1), ("slow", 1)]));
    });
}

/// The same for an update that was made while an earlier one was being saved, and met another request's.
#[test]
fn an_update_during_a_save_that_meets_a_conflict_is_replayed_once() {
    on_server(|world| async move {
        let mut jar = world.jar().await;
        let mut other = jar.clone();
        world.gate(Gate::Before(Verb::Replace));
        let mut slow = world.start(&jar, |ask| async move {
            let session = ask.session().await?;
            increment(&session)?;
            let saving = session.clone();
            let save = tokio::spawn(async move { saving.save().await });
            tokio::task::yield_now().await;
            increment(&session)?;
            save.await.unwrap()?;
            assert_eq!(session.get::<u64>("a")?, Some(1));
            increment(&session)?;
            Ok(status(200))
        });
        for _ in 0..3 {
            assert!(poll(&mut slow).is_pending());
            settle().await;
        }
        // The gate opens for a moment in which the slow task does not run.
        world.gate(Gate::Open);
        let mut quick = world.start(&other, |ask| async move {
            increment(&ask.session().await?)?;
            Ok(status(200))
        });
        let Poll::Ready(quick) = poll(&mut quick) else { panic!("nothing to wait for") };
        other.store(quick.unwrap().headers());
        jar.store(slow.await.unwrap().headers());
        assert_eq!(world.events.take(), ["conflict_merged:1"]);
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1), ("n", 4)]));
    });
}

/// A slow request does not bring back a session that a faster request ended.
#[test]
fn t34_a_slow_request_does_not_bring_back_a_session_that_was_ended() {
    let deeds: [Act; 3] = [|session| session.set("b", 2_u64), increment, Session::regenerate];
    let ends: [Act; 2] = [Session::destroy, Session::clear];
    on_server(|world| async move {
        for (deed, end) in deeds.into_iter().flat_map(|deed| ends.map(|end| (deed, end))) {
            let jar = world.jar().await;
            let (open, gate) = tokio::sync::oneshot::channel::<()>();
            let gate = Mutex::new(Some(gate));
            let mut slow = world.start(&jar, move |ask| {
                let gate = gate.lock().unwrap().take().unwrap();
                async move {
                    let session = ask.session().await?;
                    gate.await.unwrap();
                    deed(&session)?;
                    Ok(status(200))
                }
            });
            assert!(poll(&mut slow).is_pending());
            assert_removed(&world, &world.edit(&mut jar.clone(), end).await);
            open.send(()).unwrap();
            let response = slow.await.unwrap();
            assert_eq!(response.status(), 200);
            assert_no_cookie(&response);
            assert_eq!(world.rows().await, 0);
            assert_eq!(world.events.take(), ["dropped:session_ended"]);
        }
    });
}

// Several sessions.

/// Two named sessions around one handler: each has its cookie, its store and its end.
#[test]
fn named_sessions_live_side_by_side() {
    block_on(async {
        let named = |name: &str| Setup { cookie: CookieOptions::new().name(name), ..Setup::default() };
        let outer = World::new(Kind::Cookie, Form::Service, &named("__Host-o"));
        let inner = World::new(Kind::Server, Form::Service, &named("__Host-i"));
        let handler = service_fn(|request: Request<Body>| async move {
            let (parts, _) = request.into_parts();
            match parts.uri.path() {
                "/both" => {
                    parts.session_named("__Host-o").await?.set("a", 1_u64)?;
                    parts.session_named("__Host-i").await?.set("a", 2_u64)?;
                    parts.session().await?.set("innermost", 1_u64)?;
                }
                "/end-outer" => parts.session_named("__Host-o").await?.destroy()?,
                "/fail" => {
                    parts.session_named("__Host-o").await?.set("a", 8_u64)?;
                    parts.session_named("__Host-i").await?.set("a", 9_u64)?;
                }
                "/absent" => {
                    assert!(parts.session_named("__Host-x").await.unwrap_err().is_not_wrapped());
                    assert!(parts.session_named("__Host-").await.unwrap_err().is_not_wrapped());
                }
                _ => {}
            }
            Ok::<_, Error>(status(200))
        });
        let service = SessionService::new(
            SessionService::new(handler, Arc::clone(&inner.store)),
            Arc::clone(&outer.store),
        );

        let mut jar = Jar::new();
        let response = support::visit(&service, "/both", &mut jar).await;
        let lines = set_cookies(response.headers());
        assert!(lines[0].starts_with("__Host-i=") && lines[1].starts_with("__Host-o="), "{lines:?}");
        assert_eq!(lines.len(), 2);
        assert_eq!(ordered(response.headers()).iter().filter(|(name, _)| name == VARY).count(), 1);
        assert_eq!(outer.values(&jar).await, pairs(&[("a", 1)]));
        assert_eq!(inner.values(&jar).await, pairs(&[("a", 2), ("innermost", 1)]));

        assert!(support::visit(&service, "/", &mut jar).await.headers().is_empty());
        assert!(support::visit(&service, "/absent", &mut jar).await.headers().is_empty());

        // If the inner one cannot be saved, the answer is a 503, and so the outer one drops its values, too.
        inner.fail(&[Verb::Replace]);
        let response = support::visit(&service, "/fail", &mut jar).await;
        inner.fail(&[]);
        assert_eq!(response.status(), 503);
        assert_no_cookie(&response);
        assert_eq!(outer.values(&jar).await, pairs(&[("a", 1)]));
        assert_eq!(inner.values(&jar).await, pairs(&[("a", 2), ("innermost", 1)]));

        assert_removed(&outer, &support::visit(&service, "/end-outer", &mut jar).await);
        assert_eq!(jar.0.keys().collect::<Vec<_>>(), ["__Host-i"]);
        assert_eq!(inner.values(&jar).await, pairs(&[("a", 2), ("innermost", 1)]));
    });
}

#[test]
fn without_a_session_service_the_handler_is_told() {
    block_on(async {
        assert!(request("/", None).session().await.unwrap_err().is_not_wrapped());
        assert!(request("/", None).session_named("session").await.unwrap_err().is_not_wrapped());
    });
}
