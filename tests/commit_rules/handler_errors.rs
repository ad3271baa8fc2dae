//! Errors that handlers return: this crate's are responses, others are the handler's own.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use http::header::{CACHE_CONTROL, RETRY_AFTER, VARY};
use http::{Request, Response, StatusCode};
use hyper::service::{Service, service_fn};
use hyper_session::cookie::CookieOptions;
use hyper_session::{
    AppKey, CookieStore, Error, Session, SessionExt, SessionHandle, SessionService, session_fn,
};

use crate::spy_store::{
    Act, Ask, Setup, Verb, assert_no_cookie, assert_removed, assert_set, everywhere, everywhere_with,
    on_server, pairs,
};
use crate::support::{Body, Events, Jar, block_on, request, set_cookies, status, text};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Hyper gets a response: 503 where trying again may help, 500 where a value has another type.
#[test]
fn b9_an_error_of_this_crate_is_a_response() {
    let cases: [(Act, u16, &str); 3] = [
        (|_| Err(Error::unavailable("connection refused")), 503, "unavailable"),
        (|session| session.set("n", 1).and_then(|()| session.get::<String>("n").map(drop)), 500, "value"),
        (|session| session.set("\u{1}mine", 1), 500, "value"),
    ];
    everywhere(|world| async move {
        for (fails, code, label) in cases {
            let mut jar = world.jar().await;
            let before = jar.clone();
            // The second failure is preceded by a change, which is dropped.
            let acts: [Act; 2] = [|_| Ok(()), |session| session.set("b", 2_u64)];
            for act in acts {
                let response = world.visit(&mut jar, move |ask| async move {
                    let session = ask.session().await?;
                    act(&session)?;
                    fails(&session)?;
                    Ok(status(200))
                });
                let response = response.await;
                assert_eq!(response.status().as_u16(), code);
                assert_eq!(response.headers().contains_key(RETRY_AFTER), code == 503);
                assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
                assert_eq!(response.headers()[VARY], "Cookie");
                assert_no_cookie(&response);
                let mut events = world.events.take();
                events.retain(|event| event != "dropped:server_error");
                assert_eq!(events, [format!("handler_failed:{label}")]);
                assert_eq!(jar.0, before.0);
            }
            assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]), "no value is saved");
        }
    });
}

/// An error is treated as the 5xx that it becomes: a logout stays a logout, a new token is a new token, and values are dropped,
/// also if the application keeps those of a 5xx. So it is if the handler makes the response of the error itself, and if the
/// response is a 403.
#[test]
fn b9_a_logout_before_an_error_is_a_logout() {
    type Fails = fn(&Session) -> Error;
    let errors: [(Fails, &str); 2] = [
        (|_| Error::unavailable("afterwards"), "handler_failed:unavailable"),
        (|session| session.verify_csrf("").unwrap_err(), "handler_failed:forgery"),
    ];
    for keep_values in [false, true] {
        everywhere_with(&Setup { keep_values, ..Setup::default() }, |world| async move {
            for (error, told) in errors {
                for returns in [true, false] {
                    let fails = move |act: Act| {
                        move |ask: Ask| async move {
                            let session = ask.session().await?;
                            act(&session)?;
                            let error = error(&session);
                            if returns { Err(error) } else { Ok(error.into_http_response()) }
                        }
                    };
                    let mut jar = world.jar().await;
                    let old = jar.clone();
                    let regenerated = world.visit(&mut jar, fails(Session::regenerate)).await;
                    assert!(!regenerated.status().is_success());
                    assert_set(&world, &regenerated);
                    assert_ne!(jar.0, old.0);
                    assert_eq!(world.events.take(), [told]);

                    let before = jar.clone();
                    let changed = world.visit(&mut jar, fails(|session| session.set("a", 2_u64))).await;
                    assert_no_cookie(&changed);
                    assert_eq!(world.events.take(), [told, "dropped:server_error"]);
                    assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]));

                    let ended = world.visit(&mut jar, fails(Session::destroy)).await;
                    assert_removed(&world, &ended);
                    assert_eq!(world.events.take(), [told]);
                    assert!(jar.0.is_empty());
                    if world.server.is_some() {
                        assert_eq!(world.values(&before).await, [], "a copy of the cookie is worth nothing");
                        world.events.take();
                    }
                }
            }
        });
    }
}

/// If the store fails, too, the handler's answer is sent, and a copy of the cookie is still a session.
#[test]
fn b9_a_logout_that_fails_under_an_error_leaves_the_answer() {
    on_server(|world| async move {
        let mut jar = world.jar().await;
        world.fail(&[Verb::Replace, Verb::Delete]);
        let response = world.visit(&mut jar, |ask| async move {
            ask.session().await?.destroy()?;
            Err(Error::unavailable("another service"))
        });
        let response = response.await;
        world.fail(&[]);
        assert_eq!(response.status(), 503);
        assert_no_cookie(&response);
        assert_eq!(world.events.take(), ["handler_failed:unavailable", "store_failed"]);
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]));
    });
}

/// A store that is down: the `?` of every example.
#[test]
fn b9_a_store_that_is_down_is_a_503() {
    on_server(|world| async move {
        let mut jar = world.jar().await;
        world.fail(&[Verb::Fetch]);
        let response = world.edit(&mut jar, |session| session.set("b", 2_u64)).await;
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()[RETRY_AFTER], "1");
        assert_no_cookie(&response);
        assert_eq!(world.events.take(), ["store_failed", "handler_failed:unavailable"]);
        world.fail(&[]);
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]));
    });
}

/// A token that `save` promised the client before the handler failed is still sent: the client's old token may be dead.
#[test]
fn b9_a_token_that_was_saved_before_the_error_is_sent() {
    everywhere(|world| async move {
        let mut jar = world.jar().await;
        let response = world.visit(&mut jar, |ask| async move {
            let session = ask.session().await?;
            session.login("ada")?;
            session.save().await?;
            session.set("b", 2_u64)?;
            Err(Error::unavailable("afterwards"))
        });
        let response = response.await;
        assert_eq!(response.status(), 503);
        assert_set(&world, &response);
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]));
        assert!(world.look(&jar, |session| session.subject().is_some()).await);
    });
}

/// The hook makes these responses, too.
#[test]
fn b9_the_failure_hook_makes_the_response() {
    fn page(error: &Error) -> Response<Body> {
        Response::builder().status(418).body(Body::from(error.label())).unwrap()
    }
    everywhere(|world| async move {
        let fails = |ask: Ask| async move {
            ask.session().await?.get::<String>("none")?.ok_or_else(|| Error::unavailable("x"))
        };
        let store = Arc::clone(&world.store);
        let response = match world.form {
            crate::spy_store::Form::Service => {
                let inner = service_fn(move |request| async move {
                    fails(Ask::Request(request)).await.map(|_| status(200))
                });
                SessionService::new(inner, store).on_failure(page).call(request("/", None)).await
            }
            crate::spy_store::Form::Function => {
                let handler = move |_: Request<Body>, handle| async move {
                    fails(Ask::Handle(handle)).await.map(|_| status(200))
                };
                session_fn(store, handler).on_failure(page).call(request("/", None)).await
            }
        };
        let response = response.unwrap();
        assert_eq!(response.status(), 418);
        assert_eq!(text(response).await, "unavailable");
    });
}

/// In a box, as `main` and many handlers return it, it is the same error. Any other box passes.
#[test]
fn b9_a_boxed_error_of_this_crate_is_a_response() {
    everywhere(|world| async move {
        let handler = |request: Request<Body>, handle: SessionHandle| async move {
            handle.load().await?.set("a", 1)?;
            match request.uri().path() {
                "/ours" => Err::<Response<Body>, BoxError>(Error::unavailable("x").into()),
                _ => Err("theirs".into()),
            }
        };
        let service = session_fn(Arc::clone(&world.store), handler);
        let response = service.call(request("/ours", None)).await.unwrap();
        assert_eq!(response.status(), 503);
        assert_eq!(world.events.take(), ["handler_failed:unavailable", "dropped:server_error"]);
        let error = service.call(request("/theirs", None)).await.unwrap_err();
        assert_eq!(error.to_string(), "theirs");
        assert_eq!(world.events.take(), [""; 0]);
    });
}

/// A handler that never asks for its session is answered all the same, and its response says nothing of cookies.
#[test]
fn b9_an_error_of_a_handler_that_never_asked_is_a_response() {
    everywhere(|world| async move {
        let response = world.visit(&mut Jar::new(), |_| async { Err(Error::unavailable("x")) }).await;
        assert_eq!(response.status(), 503);
        assert!(!response.headers().contains_key(VARY));
        assert_eq!(world.calls(), [] as [Verb; 0]);
    });
}

#[derive(Debug)]
enum AppError {
    NotFound,
    Session(Error),
}

impl fmt::Display for AppError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the application's error")
    }
}

impl std::error::Error for AppError {}

impl From<Error> for AppError {
    fn from(error: Error) -> Self {
        Self::Session(error)
    }
}

impl From<AppError> for Response<Body> {
    fn from(error: AppError) -> Self {
        match error {
            AppError::NotFound => status(404),
            AppError::Session(error) => error.into_http_response(),
        }
    }
}

/// An application with an error type of its own: its errors pass, or one line makes responses of them. Errors of this
/// crate inside them have the same effect as if they were returned: no value is saved.
#[test]
fn b9_an_application_error_passes_or_is_converted_by_one_line() {
    async fn page(path: &str, session: &SessionHandle) -> Result<Response<Body>, AppError> {
        let session = session.load().await?;
        session.set("b", 2_u64)?;
        session.regenerate()?;
        match path {
            "/none" => Err(AppError::NotFound),
            "/type" => {
                session.get::<String>("b")?;
                Ok(status(200))
            }
            _ => Ok(status(200)),
        }
    }

    everywhere(|world| async move {
        let passes = session_fn(
            Arc::clone(&world.store),
            |request: Request<Body>, session: SessionHandle| async move {
                page(request.uri().path(), &session).await
            },
        );
        assert!(matches!(passes.call(request("/none", None)).await, Err(AppError::NotFound)));
        assert!(matches!(passes.call(request("/type", None)).await, Err(AppError::Session(_))));

        let converts = session_fn(
            Arc::clone(&world.store),
            |request: Request<Body>, session: SessionHandle| async move {
                Ok::<_, Infallible>(page(request.uri().path(), &session).await.unwrap_or_else(Response::from))
            },
        );
        let jar = world.jar().await;
        let response = converts.call(request("/type", jar.header().as_deref())).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        // The new token that it asked for, without the value.
        assert_set(&world, &response);
        assert_eq!(world.events.take(), ["handler_failed:value", "dropped:server_error"]);
        let mut jar = jar;
        jar.store(response.headers());
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]));
        // A 4xx is an answer: the application says with `discard` that it is none.
        let response = converts.call(request("/none", jar.header().as_deref())).await.unwrap();
        assert_eq!((response.status().as_u16(), set_cookies(response.headers()).len()), (404, 1));
    });
}

/// Nested: the outer service answers, once.
#[test]
fn b9_an_error_through_two_services_is_answered_once() {
    everywhere(|world| async move {
        let handler = service_fn(|request: Request<Body>| async move {
            request.session().await?.set("a", 1)?;
            Err::<Response<Body>, _>(Error::unavailable("x"))
        });
        let inner = SessionService::new(handler, Arc::clone(&world.store));
        let outer = SessionService::new(inner, Arc::clone(&world.store));
        assert_eq!(outer.call(request("/", None)).await.unwrap().status(), 503);
        assert_eq!(world.events.take(), ["handler_failed:unavailable", "dropped:server_error"]);
    });
}

/// Two services with different stores: the outer one drops its values, too, whatever status the inner one answers with, and
/// whatever rule the outer one has. A failure of the inner store does not hide the error.
#[test]
fn b9_an_error_through_two_stores_saves_no_value_in_either() {
    type Fails = fn(&Session) -> Error;
    let forged: Fails = |session| session.verify_csrf("").unwrap_err();
    let unavailable: Fails = |_| Error::unavailable("afterwards");
    let cases = [(forged, "forgery", 403), (unavailable, "unavailable", 503)];
    for (keep_values, returns, uses_inner) in (0..8).map(|case| (case & 1 != 0, case & 2 != 0, case & 4 != 0))
    {
        let setup = Setup { keep_values, ..Setup::default() };
        everywhere_with(&setup, |world| async move {
            for (fails, label, code) in cases {
                let carts = CookieStore::builder(AppKey::generate().unwrap())
                    .cookie(CookieOptions::new().name("__Host-cart"))
                    .build()
                    .unwrap();
                let outer = world.name().to_owned();
                let handler = service_fn(move |request: Request<Body>| {
                    let outer = outer.clone();
                    async move {
                        let login = request.session_named(&outer).await?;
                        login.set("email", "x")?;
                        if uses_inner {
                            request.session_named("__Host-cart").await?.set("tea", 1)?;
                        }
                        let error = fails(&login);
                        if returns { Err(error) } else { Ok(error.into_http_response()) }
                    }
                });
                let inner = SessionService::new(handler, carts.clone());
                let service = SessionService::new(inner, Arc::clone(&world.store));
                let response = service.call(request("/", None)).await.unwrap();
                assert_eq!(response.status().as_u16(), code);
                assert_no_cookie(&response);
                // The inner service, which has no observer, has reported the error.
                assert_eq!(world.events.take(), ["dropped:server_error"], "{label}");

                // An error page that does not look like one.
                let handler = service_fn(move |request: Request<Body>| async move {
                    request.session_named("__Host-s").await?.set("email", "x")?;
                    Err::<Response<Body>, _>(Error::unavailable("x"))
                });
                let inner = SessionService::new(handler, carts).on_failure(|_: &Error| status(200));
                let service = SessionService::new(inner, Arc::clone(&world.store));
                let response = service.call(request("/", None)).await.unwrap();
                assert_eq!(response.status(), 200);
                assert_no_cookie(&response);
                world.events.take();
            }
        });
    }
}

/// An observer that both stores share hears of an error once.
#[test]
fn b9_an_error_through_two_stores_is_reported_once() {
    let events = Events::new();
    let store = |name: &'static str| {
        let builder = CookieStore::builder(AppKey::generate().unwrap()).observer(events.clone());
        builder.cookie(CookieOptions::new().name(name)).build().unwrap()
    };
    let handler = service_fn(|_: Request<Body>| async { Err::<Response<Body>, _>(Error::unavailable("x")) });
    let service = SessionService::new(SessionService::new(handler, store("__Host-a")), store("__Host-b"));
    assert_eq!(block_on(service.call(request("/", None))).unwrap().status(), 503);
    assert_eq!(events.take(), ["handler_failed:unavailable"]);
}

// A service makes a response of the error, and a test that fills a session wants to hear of it.
#[test]
fn b9_the_testing_helper_returns_the_errors_of_filling_and_saving() {
    let store = CookieStore::builder(AppKey::generate().unwrap()).build().unwrap();
    let filled = |fill: fn(&Session) -> Result<(), Error>| {
        block_on(hyper_session::testing::with_session(Request::new(()), &store, fill)).unwrap_err()
    };
    assert!(filled(|session| session.set("a", "x".repeat(100_000))).is_too_large());
    assert!(filled(|_| Err(Error::unavailable("as this test wants"))).is_unavailable());
}
