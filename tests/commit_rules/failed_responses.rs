//! Which responses say that a handler failed, so that its half-done changes are dropped; and a handler that knows better.

use std::sync::Arc;

use http::{Request, Response};
use hyper::service::Service;
use hyper_session::cookie::CookieOptions;
use hyper_session::store::{Builder, Memory, Store};
use hyper_session::{AppKey, CookieStore, ServerStore, Session, SessionHandle, session_fn};

use crate::spy_store::{Act, assert_no_cookie, assert_removed, assert_set, everywhere, pairs};
use crate::support::{Answer, Body, Events, Jar, block_on, request, set_cookies, status};

fn response(code: u16, grpc_status: Option<&str>) -> Response<Body> {
    let mut response = status(code);
    if let Some(grpc_status) = grpc_status {
        response.headers_mut().insert("grpc-status", grpc_status.parse().unwrap());
    }
    response
}

/// The default: 5xx, 408, and gRPC calls whose trailers came as headers and say that they failed.
#[test]
fn b10_half_done_changes_are_dropped_by_what_the_response_says() {
    let cases = [
        (200, None, true),
        (303, None, true),
        (400, None, true),
        (404, None, true),
        (408, None, false),
        (429, None, true),
        (499, None, true),
        (500, None, false),
        (504, None, false),
        (200, Some("0"), true),
        (200, Some("1"), false),
        (200, Some("13"), false),
        (200, Some("x"), false),
    ];
    everywhere(|world| async move {
        for (code, grpc, saved) in cases {
            println!("{code} {grpc:?}");
            let mut jar = world.jar().await;
            let handler = move |act: Act| {
                move |ask: crate::spy_store::Ask| async move {
                    act(&ask.session().await?)?;
                    Ok(response(code, grpc))
                }
            };
            let set = world.visit(&mut jar, handler(|session| session.set("a", 2_u64))).await;
            assert_eq!(!set_cookies(set.headers()).is_empty(), saved);
            assert_eq!(world.events.take().is_empty(), saved);
            assert_eq!(world.values(&jar).await, pairs(&[("a", if saved { 2 } else { 1 })]));
            // A new token and an end are done in any case.
            let before = jar.clone();
            assert_set(&world, &world.visit(&mut jar, handler(Session::regenerate)).await);
            assert_ne!(jar.0, before.0);
            assert_removed(&world, &world.visit(&mut jar, handler(Session::destroy)).await);
        }
    });
}

fn stores(build: impl Fn(Events) -> Arc<dyn Store>) -> (Arc<dyn Store>, Events) {
    let events = Events::new();
    (build(events.clone()), events)
}

fn rule<K>(builder: Builder<K>, events: Events) -> Builder<K> {
    builder
        .cookie(CookieOptions::new().name("s").secure(true))
        .observer(events)
        .discard_changes_on(|status, headers| status.is_client_error() || headers.contains_key("x-failed"))
}

/// A rule of the application replaces the default.
#[test]
fn b10_an_application_names_the_responses() {
    let cookie = stores(|events| {
        Arc::new(rule(CookieStore::builder(AppKey::generate().unwrap()), events).build().unwrap())
    });
    let server =
        stores(|events| Arc::new(rule(ServerStore::with_backend(Memory::new()), events).build().unwrap()));
    for (store, events) in [cookie, server] {
        block_on(async {
            let service = session_fn(store, |request: Request<Body>, session: SessionHandle| async move {
                session.load().await?.set("a", 1)?;
                let mut response = status(request.uri().path()[1..4].parse().unwrap());
                if request.uri().path().ends_with("failed") {
                    response.headers_mut().insert("x-failed", "1".parse().unwrap());
                }
                Answer::Ok(response)
            });
            for (path, saved) in
                [("/200", true), ("/200failed", false), ("/400", false), ("/404", false), ("/500", true)]
            {
                let response = service.call(request(path, None)).await.unwrap();
                assert_eq!(set_cookies(response.headers()).len(), usize::from(saved), "{path}");
                let told: &[&str] = if saved { &[] } else { &["dropped:server_error"] };
                assert_eq!(events.take(), told, "{path}");
            }
        });
    }
}

/// A 1xx response cannot carry the new token, so the session keeps the old one: an event says that.
#[test]
fn b10_a_new_token_that_a_1xx_cannot_carry_is_reported() {
    everywhere(|world| async move {
        for act in [Session::regenerate as Act, |session| session.login("ada")] {
            let mut jar = world.jar().await;
            let before = jar.clone();
            let upgraded = world.answer(&mut jar, 101, act).await;
            assert_no_cookie(&upgraded);
            assert_eq!(world.events.take(), ["dropped:informational"]);
            assert_eq!(jar.0, before.0);
            assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]));
            assert_eq!(world.events.take(), [""; 0]);
        }
        // Where there is no session, none has a token to be replaced.
        assert_no_cookie(&world.answer(&mut Jar::new(), 101, Session::regenerate).await);
        assert_eq!(world.events.take(), [""; 0]);
    });
}

/// `discard` forgets all that is not saved, whatever the response: the session is as it was loaded.
#[test]
fn b10_a_handler_discards_what_it_did() {
    let acts: [Act; 6] = [
        |session| session.set("a", 2_u64),
        |session| session.update("a", |_: Option<u64>| 3_u64).map(drop),
        Session::clear,
        Session::regenerate,
        Session::destroy,
        |session| session.login("ada"),
    ];
    everywhere(|world| async move {
        for stored in [true, false] {
            for act in acts {
                let mut jar = if stored { world.jar().await } else { Jar::new() };
                let before = jar.clone();
                let response = world.visit(&mut jar, move |ask| async move {
                    let session = ask.session().await?;
                    act(&session)?;
                    session.discard()?;
                    assert_eq!(session.get::<u64>("a")?, stored.then_some(1));
                    assert_eq!(session.subject(), None);
                    Ok(status(409))
                });
                assert_no_cookie(&response.await);
                assert_eq!(jar.0, before.0);
                assert_eq!(world.events.take(), [""; 0]);
                if stored {
                    assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]));
                }
            }
        }
    });
}

/// A change that was saved before stays, and a value that is set afterwards is saved.
#[test]
fn b10_a_discard_is_no_end() {
    everywhere(|world| async move {
        let mut jar = world.jar().await;
        let response = world.visit(&mut jar, |ask| async move {
            let session = ask.session().await?;
            session.set("b", 2_u64)?;
            session.save().await?;
            session.set("c", 3_u64)?;
            session.discard()?;
            session.set("d", 4_u64)?;
            Ok(status(200))
        });
        assert_set(&world, &response.await);
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1), ("b", 2), ("d", 4)]));
    });
}

/// A cookie that is dead is removed after a discard, too; and a session that another request gave a new token to is
/// left alone, although its destroy was discarded.
#[test]
fn b10_a_discard_takes_back_a_destroy() {
    everywhere(|world| async move {
        let mut jar = world.jar().await;
        world.clock.advance(crate::spy_store::IDLE);
        let taken_back = |session: &Session| session.destroy().and_then(|()| session.discard());
        assert_removed(&world, &world.edit(&mut jar, taken_back).await);
        if world.server.is_some() {
            let mut jar = world.jar().await;
            let mut old = jar.clone();
            world.edit(&mut jar, Session::regenerate).await;
            assert_no_cookie(&world.edit(&mut old, taken_back).await);
            let logs_in_and_takes_back =
                |session: &Session| session.login("bob").and_then(|()| session.discard());
            assert_no_cookie(&world.edit(&mut old, logs_in_and_takes_back).await);
            world.events.take();
            assert_no_cookie(
                &world
                    .edit(&mut old, move |session| {
                        logs_in_and_takes_back(session)?;
                        session.set("b", 2_u64)
                    })
                    .await,
            );
            assert!(world.events.take().contains(&"dropped:session_ended".to_owned()));
        }
    });
}

/// Two options about the same: they combine, or the store does not build. Neither silently undoes the other.
#[test]
fn b22_a_rule_is_not_undone_by_an_option() {
    let rule = |status: http::StatusCode, _: &http::HeaderMap| status == 400;
    let builder = || CookieStore::builder(AppKey::generate().unwrap());
    for both in [
        builder().discard_changes_on(rule).keep_values_on_server_error(true),
        builder().keep_values_on_server_error(true).discard_changes_on(rule),
    ] {
        let error = both.build().map(drop).unwrap_err();
        assert!(
            error.is_config() && error.to_string().contains("keep_values_on_server_error(true)"),
            "{error}"
        );
    }
    for ruled in [
        builder().discard_changes_on(rule).keep_values_on_server_error(false),
        builder().keep_values_on_server_error(false).discard_changes_on(rule),
    ] {
        let store = ruled.build().unwrap();
        for (code, saves) in [(400, false), (500, true)] {
            let handler = move |_: Request<Body>, handle: SessionHandle| async move {
                handle.load().await?.set("a", 1)?;
                Answer::Ok(status(code))
            };
            let response = block_on(session_fn(store.clone(), handler).call(request("/", None))).unwrap();
            assert_eq!(!set_cookies(response.headers()).is_empty(), saves, "{code}");
        }
    }
}
