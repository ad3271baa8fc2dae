//! Stores that cannot load or save: the answer is a 503, and no session is lost.

use std::sync::Arc;

use http::header::{CACHE_CONTROL, RETRY_AFTER, SET_COOKIE, VARY};
use http::{Request, Response};
use hyper::service::{Service, service_fn};
use hyper_session::cookie::CookieOptions;
use hyper_session::{Error, Session, SessionExt, SessionService, session_fn};

use crate::spy_store::{
    Act, Ask, Form, Kind, RENEWAL, Setup, Verb, World, assert_no_cookie, assert_set, on_server, pairs,
};
use crate::support::{Body, Jar, block_on, request, status, text};

/// "save failed | the response is replaced by 503 …; no cookie leaves before the store has acknowledged"
#[test]
fn a_failed_save_is_a_503_without_a_cookie_and_without_the_answer() {
    // A logout deletes where it cannot compare.
    let ends = &[Verb::Replace, Verb::Delete];
    let cases: [(&[Verb], bool, Act); 6] = [
        (&[Verb::Create], false, |session| session.set("a", 9_u64)),
        (&[Verb::Replace], true, |session| session.set("a", 9_u64)),
        (ends, true, Session::destroy),
        (ends, true, Session::clear),
        (&[Verb::Create], true, Session::regenerate),
        (&[Verb::Replace], true, Session::regenerate),
    ];
    on_server(|world| async move {
        for (number, (verbs, stored, deed)) in cases.into_iter().enumerate() {
            println!("case {number}");
            let mut jar = if stored { world.jar().await } else { Jar::new() };
            let before = jar.clone();
            world.fail(verbs);
            let handler = move |ask: Ask| async move {
                deed(&ask.session().await?)?;
                let secret = Response::builder().header("x-secret", "1").header(SET_COOKIE, "x=secret");
                Ok(secret.extension(7_u32).body(Body::from("secret")).unwrap())
            };
            let response = world.visit(&mut jar, handler).await;
            world.fail(&[]);
            assert_eq!(response.status(), 503);
            assert_no_cookie(&response);
            assert_eq!(response.headers()[RETRY_AFTER], "1");
            assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
            assert!(!response.headers().contains_key("x-secret"));
            assert_eq!(response.extensions().get::<u32>(), None);
            assert_eq!(text(response).await, "");
            assert_eq!(world.events.take(), ["store_failed"]);
            assert_eq!(jar.0, before.0);
            if stored {
                assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]), "what is stored is as it was");
            }
        }
    });
}

/// The handler did not ask for the renewal: if it fails, the response and the cookie stay as they are.
#[test]
fn b1_a_failed_renewal_changes_nothing_but_is_told() {
    on_server(|world| async move {
        let mut jar = world.jar().await;
        world.clock.advance(RENEWAL);
        world.fail(&[Verb::Touch]);
        let before = jar.clone();
        for code in [200, 404, 500] {
            let response = world.answer(&mut jar, code, |_| Ok(())).await;
            assert_eq!(response.status(), code);
            assert_no_cookie(&response);
            assert_eq!(jar.0, before.0);
            assert_eq!(world.events.take(), ["store_failed"]);
        }
        world.fail(&[]);
        assert_set(&world, &world.edit(&mut jar, |_| Ok(())).await);
    });
}

/// "save failed | the response is replaced by 503 (hook to build it)"
#[test]
fn the_failure_hook_makes_the_response() {
    fn sorry(error: &Error) -> Response<Body> {
        let mut response = Response::new(Body::from(format!("sorry: {}", error.is_unavailable())));
        *response.status_mut() = http::StatusCode::IM_A_TEAPOT;
        response
    }

    on_server(|world| async move {
        world.fail(&[Verb::Create]);
        let set = |ask: Ask| async move {
            ask.session().await?.set("a", 1)?;
            Ok::<_, Error>(status(200))
        };
        let (store, request) = (Arc::clone(&world.store), request("/", None));
        let response = match world.form {
            Form::Service => {
                let inner = service_fn(move |request| set(Ask::Request(request)));
                SessionService::new(inner, store).on_failure(sorry).call(request).await
            }
            Form::Function => {
                let handler = move |_: Request<Body>, handle| set(Ask::Handle(handle));
                session_fn(store, handler).on_failure(sorry).call(request).await
            }
        }
        .unwrap();
        assert_eq!(response.status(), 418);
        assert_no_cookie(&response);
        assert_eq!(text(response).await, "sorry: true");
    });
}

/// "save failed": a session that is too large stays too large, so the client is not told to try again.
#[test]
fn a_session_too_large_for_its_cookies_is_a_500_and_the_old_one_goes_on() {
    let setup = Setup { cookie: CookieOptions::new().max_chunks(1), ..Setup::default() };
    for form in [Form::Service, Form::Function] {
        block_on(async {
            let world = World::new(Kind::Cookie, form, &setup);
            let mut jar = world.jar().await;
            let response = world.edit(&mut jar, |session| session.set("b", "x".repeat(5_000))).await;
            assert_eq!(response.status(), 500);
            assert!(!response.headers().contains_key(RETRY_AFTER));
            assert_no_cookie(&response);
            assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]));
            assert_eq!(world.events.take(), ["store_failed"]);
        });
    }
}

/// "load failed (store down) | the handler gets the error; the cookie is never cleared for a transient error"
#[test]
fn a_failed_load_is_the_handlers_to_know_and_clears_nothing() {
    on_server(|world| async move {
        let mut jar = world.jar().await;
        let before = jar.clone();
        world.fail(&[Verb::Fetch]);
        for code in [200, 404, 500] {
            let handler = move |ask: Ask| async move {
                let error = ask.session().await.unwrap_err();
                assert!(error.is_unavailable() && error.is_transient());
                Ok(status(code))
            };
            let response = world.visit(&mut jar, handler).await;
            assert_eq!(response.status(), code);
            assert_no_cookie(&response);
            assert_eq!(response.headers()[VARY], "Cookie");
            assert_eq!(world.events.take(), ["store_failed"]);
        }
        assert_eq!(world.calls(), [Verb::Fetch; 3]);
        world.fail(&[]);
        assert_eq!(jar.0, before.0);
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]));
    });
}

/// "load failed": asking again in the same request asks the store again.
#[test]
fn a_load_that_failed_can_be_tried_again() {
    on_server(|world| async move {
        let mut jar = world.jar().await;
        world.fail(&[Verb::Fetch]);
        let store = world.server.clone().unwrap();
        let handler = move |ask: Ask| {
            let store = store.clone();
            async move {
                assert!(ask.session().await.is_err());
                store.backend().failing.lock().unwrap().clear();
                ask.session().await?.set("b", 2_u64)?;
                Ok(status(200))
            }
        };
        assert_set(&world, &world.visit(&mut jar, handler).await);
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1), ("b", 2)]));
    });
}

/// "load failed": with one good cookie among several, a store that is unavailable is not taken for "no session".
#[test]
fn a_store_that_fails_on_one_of_two_cookies_clears_nothing() {
    on_server(|world| async move {
        let good = world.jar().await;
        let name = world.name();
        // The first is refused without the store, the second cannot be looked up.
        let cookies = format!("{name}=garbage; {name}={}", good.get(name).unwrap());
        world.fail(&[Verb::Fetch]);
        let inner = service_fn(|request: Request<Body>| async move {
            assert!(request.session().await.unwrap_err().is_unavailable());
            Ok::<_, Error>(status(200))
        });
        let service = SessionService::new(inner, Arc::clone(&world.store));
        assert_no_cookie(&service.call(request("/", Some(&cookies))).await.unwrap());
    });
}
