//! Services around services: how the outer service treats the session cookie that the inner one set.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::header::SET_COOKIE;
use http::{Request, Response};
use hyper::service::{Service, service_fn};
use hyper_session::cookie::CookieOptions;
use hyper_session::store::{Memory, Store};
use hyper_session::testing::FakeClock;
use hyper_session::{
    AppKey, CookieStore, Error, ServerStore, Session, SessionExt, SessionHandle, SessionService, session_fn,
};

use crate::spy_store::{
    ABSOLUTE, Act, IDLE, RENEWAL, START, Verb, assert_no_cookie, assert_removed, assert_set, everywhere,
    on_server, pairs,
};
use crate::support::{Answer, Body, Events, Jar, block_on, request, set_cookies, status};

type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// Two stores of every kind, which are clones of one.
struct Nested {
    store: Arc<dyn Store>,
    clock: FakeClock,
    events: Events,
}

fn nested(scenario: impl AsyncFn(Nested)) {
    let cookie = CookieOptions::new().name("__Host-s");
    for kind in ["cookie", "server"] {
        println!("{kind}");
        let (clock, events) = (FakeClock::at(START), Events::new());
        let store: Arc<dyn Store> = if kind == "cookie" {
            let builder = CookieStore::builder(AppKey::generate().unwrap()).cookie(cookie.clone());
            let builder = builder.idle_timeout(IDLE).absolute_timeout(ABSOLUTE).renewal_threshold(RENEWAL);
            Arc::new(builder.clock(clock.clone()).observer(events.clone()).build().unwrap())
        } else {
            let builder = ServerStore::with_backend(Memory::new()).cookie(cookie.clone());
            let builder = builder.idle_timeout(IDLE).absolute_timeout(ABSOLUTE).renewal_threshold(RENEWAL);
            Arc::new(builder.clock(clock.clone()).observer(events.clone()).build().unwrap())
        };
        block_on(scenario(Nested { store, clock, events }));
    }
}

/// How the outer service reaches the inner one.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outer {
    /// A `SessionService` around a function that passes the request on.
    Service,
    /// A `session_fn` whose handler passes the request on: the inner service cannot know of it.
    Function,
    /// The same, over a network: only the text of request and response arrives.
    Network,
}

const OUTERS: [Outer; 3] = [Outer::Service, Outer::Function, Outer::Network];

impl Nested {
    fn inner(
        &self,
        act: Act,
        code: u16,
    ) -> impl Fn(Request<Body>) -> Answering + Clone + Send + Sync + use<> {
        let store = Arc::clone(&self.store);
        move |request| {
            let handler = service_fn(move |request: Request<Body>| async move {
                act(&request.session().await?)?;
                Ok::<_, Error>(status(code))
            });
            Box::pin(SessionService::new(handler, Arc::clone(&store)).call(request))
        }
    }

    /// A request to a service that does `before` to its session, calls an inner service that does `act`, and then does `after`.
    async fn visit(&self, outer: Outer, jar: &mut Jar, before: Act, act: Act, after: Act) -> Response<Body> {
        let (inner, request) = (self.inner(act, 200), request("/", jar.header().as_deref()));
        let response = match outer {
            Outer::Service => {
                let gateway = service_fn(move |request: Request<Body>| {
                    let inner = inner.clone();
                    async move {
                        let session = request.session().await?;
                        before(&session)?;
                        let response = inner(request).await?;
                        after(&session)?;
                        Ok::<_, Error>(response)
                    }
                });
                SessionService::new(gateway, Arc::clone(&self.store)).call(request).await
            }
            Outer::Function | Outer::Network => {
                let gateway = move |request: Request<Body>, handle: SessionHandle| {
                    let inner = inner.clone();
                    async move {
                        let session = handle.load().await?;
                        before(&session)?;
                        let mut response = inner(request).await?;
                        if outer == Outer::Network {
                            response.headers_mut().values_mut().for_each(|field| field.set_sensitive(false));
                        }
                        after(&session)?;
                        Ok::<_, Error>(response)
                    }
                };
                session_fn(Arc::clone(&self.store), gateway).call(request).await
            }
        };
        let response = response.unwrap();
        jar.store(response.headers());
        response
    }

    async fn look<R: Send + 'static>(&self, jar: &Jar, look: fn(&Session) -> R) -> R {
        let seen = Arc::new(std::sync::Mutex::new(None));
        let sink = Arc::clone(&seen);
        let handler = move |_: Request<Body>, handle: SessionHandle| {
            let sink = Arc::clone(&sink);
            async move {
                *sink.lock().unwrap() = Some(look(&handle.load().await?));
                Answer::Ok(status(200))
            }
        };
        let service = session_fn(Arc::clone(&self.store), handler);
        service.call(request("/", jar.header().as_deref())).await.unwrap();
        seen.lock().unwrap().take().unwrap()
    }

    async fn values(&self, jar: &Jar) -> Vec<(String, u64)> {
        self.look(jar, |session| {
            let value = |key: String| (session.get(&key).unwrap().unwrap(), key);
            session.keys().into_iter().map(value).map(|(value, key)| (key, value)).collect()
        })
        .await
    }

    /// A jar whose session is due for a renewal.
    async fn due(&self) -> Jar {
        let mut jar = Jar::new();
        self.visit(Outer::Function, &mut jar, NOTHING, |session| session.set("a", 1_u64), NOTHING).await;
        self.clock.advance(RENEWAL);
        self.events.take();
        jar
    }
}

const NOTHING: Act = |_| Ok(());

/// A gateway that only reads renews the session. A cookie that the inner service sets overrides the renewal.
#[test]
fn b8_a_renewal_yields_to_what_the_response_says() {
    nested(async |nested| {
        for outer in OUTERS {
            let mut jar = nested.due().await;
            let response = nested.visit(outer, &mut jar, NOTHING, Session::destroy, NOTHING).await;
            assert!(jar.0.is_empty(), "{outer:?}: logged out");
            assert_eq!(set_cookies(response.headers()).len(), 1);

            let mut jar = nested.due().await;
            nested.visit(outer, &mut jar, NOTHING, |session| session.login("ada"), NOTHING).await;
            assert_eq!(
                nested.look(&jar, |session| session.subject().map(String::from)).await.as_deref(),
                Some("ada")
            );

            let mut jar = nested.due().await;
            nested.visit(outer, &mut jar, NOTHING, |session| session.set("b", 2_u64), NOTHING).await;
            assert_eq!(nested.values(&jar).await, pairs(&[("a", 1), ("b", 2)]));
            assert_eq!(nested.events.take(), [""; 0]);
        }
    });
}

/// A dead cookie is removed, unless the response sets a new one of its name.
#[test]
fn b8_the_removal_of_a_dead_cookie_yields_to_a_login() {
    nested(async |nested| {
        for outer in OUTERS {
            let mut jar = nested.due().await;
            nested.clock.advance(IDLE);
            let login: Act = |session| session.login("ada");
            nested.visit(outer, &mut jar, NOTHING, login, NOTHING).await;
            assert_eq!(
                nested.look(&jar, |session| session.subject().map(String::from)).await.as_deref(),
                Some("ada")
            );
            nested.clock.advance(IDLE);
            nested.visit(outer, &mut jar, NOTHING, NOTHING, NOTHING).await;
            assert!(jar.0.is_empty(), "nothing else was said");
        }
    });
}

/// The same session twice in one request is one session: what both services change is there afterwards, whatever the order.
#[test]
fn b8_the_same_session_twice_is_one_session() {
    let (set_b, set_c): (Act, Act) = (|session| session.set("b", 2_u64), |session| session.set("c", 3_u64));
    nested(async |nested| {
        for outer in OUTERS {
            for stored in [false, true] {
                for (before, after) in [(set_b, NOTHING), (NOTHING, set_b)] {
                    let mut jar = if stored { nested.due().await } else { Jar::new() };
                    let response = nested.visit(outer, &mut jar, before, set_c, after).await;
                    assert_eq!(response.status(), 200);
                    assert_eq!(set_cookies(response.headers()).len(), 1);
                    let mut expected = pairs(&[("b", 2), ("c", 3)]);
                    if stored {
                        expected.insert(0, ("a".to_owned(), 1));
                    }
                    assert_eq!(nested.values(&jar).await, expected, "{outer:?}");
                    assert_eq!(nested.events.take(), [""; 0]);
                }
            }
        }
    });
}

/// Counters of both count: an update of the outer service runs on what the inner one left.
#[test]
fn b8_updates_of_both_services_count() {
    let add: Act = |session| session.update("a", |old: Option<u64>| old.unwrap_or(0) + 1).map(drop);
    nested(async |nested| {
        for outer in OUTERS {
            let mut jar = nested.due().await;
            nested.visit(outer, &mut jar, add, add, add).await;
            assert_eq!(nested.values(&jar).await, pairs(&[("a", 4)]), "{outer:?}");
        }
    });
}

/// A logout inside wins over a change or a login outside; a logout outside over whatever was said inside.
#[test]
fn b8_an_ending_wins() {
    let others: [Act; 3] =
        [|session| session.set("b", 2_u64), |session| session.login("ada"), Session::regenerate];
    nested(async |nested| {
        for other in others {
            for outer in [Outer::Function, Outer::Network] {
                let mut jar = nested.due().await;
                nested.visit(outer, &mut jar, other, Session::destroy, NOTHING).await;
                assert!(jar.0.is_empty(), "ended inside: {outer:?}");
                // A line that came over a network may be a handler's.
                let reason = if outer == Outer::Network { "cookie_removed" } else { "session_ended" };
                assert_eq!(nested.events.take(), [format!("dropped:{reason}")], "{outer:?}");
            }
            for outer in OUTERS {
                let mut jar = nested.due().await;
                nested.visit(outer, &mut jar, NOTHING, other, Session::destroy).await;
                assert!(jar.0.is_empty(), "ended outside: {outer:?}");
            }
        }
    });
}

/// A login inside gives the session another token: what the service around it changes goes there.
#[test]
fn b8_a_change_goes_to_the_session_that_logged_in() {
    nested(async |nested| {
        for outer in OUTERS {
            let mut jar = nested.due().await;
            let old = jar.clone();
            let login: Act = |session| session.login("ada");
            nested.visit(outer, &mut jar, |session| session.set("b", 2_u64), login, NOTHING).await;
            assert_eq!(nested.values(&jar).await, pairs(&[("a", 1), ("b", 2)]), "{outer:?}");
            assert_eq!(
                nested.look(&jar, |session| session.subject().map(String::from)).await.as_deref(),
                Some("ada")
            );
            assert_ne!(jar.0, old.0);
        }
    });
}

/// The inner service of a pair says nothing of its own: the outer one's answer decides what is saved.
#[test]
fn b8_the_outer_response_decides() {
    nested(async |nested| {
        let store = Arc::clone(&nested.store);
        let inner = nested.inner(|session| session.set("b", 2_u64), 200);
        let service = SessionService::new(
            service_fn(move |request| {
                let inner = inner.clone();
                async move {
                    let mut response = inner(request).await?;
                    *response.status_mut() = http::StatusCode::BAD_GATEWAY;
                    Ok::<_, Error>(response)
                }
            }),
            store,
        );
        let response = service.call(request("/", None)).await.unwrap();
        assert_no_cookie(&response);
        assert_eq!(nested.events.take(), ["dropped:server_error"]);
    });
}

/// A handler that writes the cookie itself: a renewal yields to that, too, a change replaces it.
#[test]
fn b8_a_renewal_yields_to_a_handlers_own_cookie() {
    everywhere(|world| async move {
        for act in [NOTHING, |session: &Session| session.set("b", 2_u64)] {
            let mut jar = world.jar().await;
            world.clock.advance(RENEWAL);
            let name = world.name().to_owned();
            let response = world.visit(&mut jar, move |ask| {
                let line = format!("{name}=handler; Path=/");
                async move {
                    act(&ask.session().await?)?;
                    Ok(Response::builder().header(SET_COOKIE, line).body(Body::default()).unwrap())
                }
            });
            let response = response.await;
            let events = world.events.take();
            if events.is_empty() {
                assert_eq!(set_cookies(response.headers()), [format!("{}=handler; Path=/", world.name())]);
            } else {
                assert_set(&world, &response);
                assert_eq!(events, ["set_cookie_replaced"]);
            }
        }
    });
}

/// Two sessions, of two cookies: where one cannot be saved, what the other one was promised is still sent.
#[test]
fn b8_a_503_keeps_the_cookies_of_other_sessions() {
    on_server(|world| async move {
        for logs_out in [false, true] {
            let mut jar = world.jar().await;
            let clock = world.clock.clone();
            let carts = CookieStore::builder(AppKey::generate().unwrap())
                .cookie(CookieOptions::new().name("__Host-cart").max_age(Duration::from_secs(9_000)))
                .idle_timeout(Duration::from_secs(9_000))
                .clock(clock)
                .build()
                .unwrap();
            let inner = service_fn(move |request: Request<Body>| async move {
                request.session_named("__Host-s").await?.set("a", 2_u64)?;
                let cart = request.session_named("__Host-cart").await?;
                if logs_out {
                    cart.destroy()?;
                } else {
                    cart.set("items", 3)?;
                }
                let secret = Response::builder().header(SET_COOKIE, "x=secret").header("x-secret", "1");
                Ok::<_, Error>(secret.body(Body::from("secret")).unwrap())
            });
            let fill = session_fn(carts.clone(), |_: Request<Body>, handle: SessionHandle| async move {
                handle.load().await?.set("items", 1)?;
                Answer::Ok(status(200))
            });
            jar.store(fill.call(request("/", None)).await.unwrap().headers());
            let service = SessionService::new(SessionService::new(inner, carts), Arc::clone(&world.store));
            world.fail(&[Verb::Replace]);
            let response = service.call(request("/", jar.header().as_deref())).await.unwrap();
            world.fail(&[]);
            assert_eq!(response.status(), 503);
            let lines = set_cookies(response.headers());
            assert_eq!(lines.len(), 1, "{lines:?}");
            assert_eq!(lines[0].starts_with("__Host-cart=; Max-Age=0"), logs_out, "{lines:?}");
            assert!(lines[0].starts_with("__Host-cart="));
            assert_eq!(response.headers()["cache-control"], "no-store");
            assert!(!response.headers().contains_key("x-secret"));
        }
    });
}

/// A service around an inner service: its handler does `before`, saves that, and passes the request on to a service that does `act`.
async fn saves_first(nested: &Nested, jar: &mut Jar, before: Act, act: Act) {
    let inner = nested.inner(act, 200);
    let gateway = move |request: Request<Body>, handle: SessionHandle| {
        let inner = inner.clone();
        async move {
            let session = handle.load().await?;
            before(&session)?;
            session.save().await?;
            inner(request).await
        }
    };
    let request = request("/", jar.header().as_deref());
    let response = session_fn(Arc::clone(&nested.store), gateway).call(request).await.unwrap();
    assert_eq!(set_cookies(response.headers()).len(), 1);
    jar.store(response.headers());
}

/// A token that the outer handler has saved already is a statement of the outer service like any other.
#[test]
fn b8_an_earlier_save_yields_to_a_stronger_statement_inside() {
    nested(async |nested| {
        let subject = |session: &Session| session.subject().map(String::from);
        let change: Act = |session| session.set("b", 2_u64);
        let mut jar = nested.due().await;
        saves_first(&nested, &mut jar, change, Session::destroy).await;
        assert!(jar.0.is_empty(), "ended inside");

        let mut jar = nested.due().await;
        saves_first(&nested, &mut jar, change, |session| session.login("ada")).await;
        assert_eq!(nested.look(&jar, subject).await.as_deref(), Some("ada"));

        // Without a cookie, each of the two begins a session. The login counts.
        for (before, act) in
            [(change, (|session| session.login("ada")) as Act), (|session| session.login("ada"), change)]
        {
            let mut jar = Jar::new();
            saves_first(&nested, &mut jar, before, act).await;
            assert_eq!(nested.look(&jar, subject).await.as_deref(), Some("ada"));
        }
    });
}

/// The outer handler saves a change, the inner one ends the session, and then the store fails to end it for the outer one, too.
#[test]
fn b8_an_earlier_save_yields_to_an_end_inside_if_the_end_outside_fails() {
    on_server(|world| async move {
        let mut jar = world.jar().await;
        let inner =
            session_fn(Arc::clone(&world.store), |_: Request<Body>, handle: SessionHandle| async move {
                handle.load().await?.destroy()?;
                Answer::Ok(status(200))
            });
        let inner = Arc::new(inner);
        let failing = world.clone();
        let gateway = move |request: Request<Body>, handle: SessionHandle| {
            let (inner, world) = (Arc::clone(&inner), failing.clone());
            async move {
                let session = handle.load().await?;
                session.set("b", 2_u64)?;
                session.save().await?;
                let response = inner.call(request).await?;
                world.fail(&[Verb::Replace, Verb::Fetch]);
                session.destroy()?;
                Ok::<_, Error>(response)
            }
        };
        let request = request("/", jar.header().as_deref());
        let response = session_fn(Arc::clone(&world.store), gateway).call(request).await.unwrap();
        world.fail(&[]);
        assert_eq!(response.status(), 503);
        assert_removed(&world, &response);
        jar.store(response.headers());
        assert!(jar.0.is_empty(), "the token of a session that has ended");
    });
}

/// The old token is dead, so the browser needs the new one, whatever happened afterwards.
#[test]
fn b8_a_token_that_was_saved_is_sent_with_the_response_to_an_error() {
    nested(async |nested| {
        let mut jar = nested.due().await;
        let handler = |_: Request<Body>, handle: SessionHandle| async move {
            let session = handle.load().await?;
            session.login("ada")?;
            session.save().await?;
            Answer::Err(Error::unavailable("another service"))
        };
        let request = request("/", jar.header().as_deref());
        let response = session_fn(Arc::clone(&nested.store), handler).call(request).await.unwrap();
        assert_eq!(response.status(), 503);
        jar.store(response.headers());
        let subject = nested.look(&jar, |session| session.subject().map(String::from)).await;
        assert_eq!(subject.as_deref(), Some("ada"));
    });
}

/// A change that the outer handler has saved, and that the client does not get, is reported: the values are in a cookie that the
/// inner service's cookie replaces, or in a session that the client never hears of.
#[test]
fn b8_a_saved_change_that_yields_is_reported() {
    let (set_b, set_c): (Act, Act) = (|session| session.set("b", 2_u64), |session| session.set("c", 3_u64));
    nested(async |nested| {
        let mut jar = Jar::new();
        saves_first(&nested, &mut jar, set_b, set_c).await;
        assert_eq!(nested.values(&jar).await, pairs(&[("c", 3)]));
        assert_eq!(nested.events.take(), ["dropped:other_session"]);

        let mut jar = nested.due().await;
        saves_first(&nested, &mut jar, set_b, set_c).await;
        let kept = nested.values(&jar).await.contains(&("b".to_owned(), 2));
        let told: &[&str] = if kept { &[] } else { &["dropped:other_session"] };
        assert_eq!(nested.events.take(), told);
    });
}

/// The outer handler ended its session and saved that; the inner one then began another. The ending is the stronger statement,
/// whatever the response. Later changes of the outer handler go to the session that began.
#[test]
fn b8_a_saved_ending_stays_over_a_session_that_begins_inside() {
    let cases: [(u16, Act, bool); 4] = [
        (200, NOTHING, false),
        (500, NOTHING, false),
        (500, |session| session.set("c", 3_u64), false),
        (200, |session| session.set("c", 3_u64), true),
    ];
    nested(async |nested| {
        for (code, after, goes_on) in cases {
            let mut jar = nested.due().await;
            let inner = nested.inner(|session| session.set("b", 2_u64), code);
            let gateway = move |request: Request<Body>, handle: SessionHandle| {
                let inner = inner.clone();
                async move {
                    let session = handle.load().await?;
                    session.destroy()?;
                    session.save().await?;
                    let response = inner(request).await?;
                    after(&session)?;
                    Ok::<_, Error>(response)
                }
            };
            let request = request("/", jar.header().as_deref());
            let response = session_fn(Arc::clone(&nested.store), gateway).call(request).await.unwrap();
            assert_eq!(set_cookies(response.headers()).len(), usize::from(code == 200 || !goes_on));
            jar.store(response.headers());
            assert_eq!(!jar.0.is_empty(), goes_on, "{code}");
            if goes_on {
                let values = nested.values(&jar).await;
                assert!(pairs(&[("b", 2), ("c", 3)]).iter().all(|pair| values.contains(pair)), "{values:?}");
            }
            nested.events.take();
        }
    });
}

/// A line that the handler writes to remove the cookie is stronger than what it changes in the session. That is reported.
#[test]
fn b8_changes_beside_a_handwritten_removal_are_reported() {
    let acts: [(Act, bool); 4] = [
        (|session| session.set("b", 2_u64), false),
        (Session::regenerate, false),
        (|session| session.login("ada"), false),
        (|session| session.set("b", 2_u64), true),
    ];
    everywhere(|world| async move {
        let mut jar = world.jar().await;
        let logout = world.edit(&mut jar, Session::destroy).await;
        let line = set_cookies(logout.headers()).remove(0);
        for (act, saves) in acts {
            let mut jar = world.jar().await;
            world.events.take();
            let line = line.clone();
            let response = world.visit(&mut jar, move |ask| {
                let line = line.clone();
                async move {
                    let session = ask.session().await?;
                    act(&session)?;
                    if saves {
                        session.save().await?;
                    }
                    Ok(Response::builder().header(SET_COOKIE, line).body(Body::default()).unwrap())
                }
            });
            assert_eq!(set_cookies(response.await.headers()).len(), 1);
            assert!(jar.0.is_empty());
            assert_eq!(world.events.take(), ["dropped:cookie_removed"]);
        }
        // Beside nothing, it says what happens.
        let mut jar = world.jar().await;
        world
            .visit(&mut jar, move |ask| {
                let line = line.clone();
                async move {
                    ask.session().await?;
                    Ok(Response::builder().header(SET_COOKIE, line).body(Body::default()).unwrap())
                }
            })
            .await;
        assert_eq!(world.events.take(), [""; 0]);
    });
}

/// A line that removes a cookie of that name in another scope says nothing of the session, whose changes are saved.
#[test]
fn b8_changes_beside_the_removal_of_another_scope_are_saved() {
    everywhere(|world| async move {
        let mut jar = world.jar().await;
        let line = format!("{}=; Max-Age=0; Path=/former; Secure", world.name());
        let response = world.visit(&mut jar, move |ask| {
            let line = line.clone();
            async move {
                ask.session().await?.set("b", 2_u64)?;
                Ok(Response::builder().header(SET_COOKIE, line).body(Body::default()).unwrap())
            }
        });
        assert_set(&world, &response.await);
        assert_eq!(world.events.take(), ["set_cookie_replaced"]);
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1), ("b", 2)]));
    });
}

/// A handler that has saved nothing has nothing to compare with a token in its response, so the store is not asked for that.
#[test]
fn b8_a_session_that_was_only_read_leaves_a_token_in_the_response_alone() {
    on_server(|world| async move {
        let mut jar = world.jar().await;
        let line = format!("{}={}; Path=/; Secure", world.name(), jar.get(world.name()).unwrap());
        let passed_on = line.clone();
        let response = world.visit(&mut jar, move |ask| {
            let line = passed_on.clone();
            async move {
                ask.session().await?;
                Ok(Response::builder().header(SET_COOKIE, line).body(Body::default()).unwrap())
            }
        });
        assert_eq!(set_cookies(response.await.headers()), [line]);
        assert_eq!((world.calls(), world.events.take()), (vec![Verb::Fetch], vec![]));
    });
}

/// The store cannot look up the token of another session that the response sets. A change that was to go there is not saved, which
/// is an error. A session that was saved before yields to that token, and is reported if the client does not get it.
#[test]
fn b8_a_token_in_the_response_that_cannot_be_looked_up() {
    for (saves, knows) in [(false, true), (true, true), (true, false)] {
        on_server(|world| async move {
            let other = world.jar().await;
            let jar = if knows { world.jar().await } else { Jar::new() };
            let line = format!("{}={}; Path=/; Secure", world.name(), other.get(world.name()).unwrap());
            let (inner, passed_on) = (world.clone(), line.clone());
            let mut browser = jar.clone();
            let response = world.visit(&mut browser, move |ask| {
                let (world, line) = (inner.clone(), passed_on.clone());
                async move {
                    let session = ask.session().await?;
                    session.set("b", 2_u64)?;
                    if saves {
                        session.save().await?;
                    }
                    world.fail(&[Verb::Fetch]);
                    Ok(Response::builder().header(SET_COOKIE, line).body(Body::default()).unwrap())
                }
            });
            let response = response.await;
            world.fail(&[]);
            assert_eq!(response.status(), if saves { 200 } else { 503 });
            let lost = saves && !knows;
            assert_eq!(
                world.events.take(),
                if lost { &["store_failed", "dropped:other_session"][..] } else { &["store_failed"] }
            );
            if saves {
                assert_eq!(set_cookies(response.headers()), [line]);
            }
            if knows {
                assert_eq!(world.values(&jar).await.len(), if saves { 2 } else { 1 });
            }
            assert_eq!(world.values(&other).await, pairs(&[("a", 1)]));
        });
    }
}

/// A middleware that sends a request again may keep the extensions of the first one, whose session is closed.
#[test]
fn b8_a_request_with_the_extensions_of_an_earlier_one_has_a_session_of_its_own() {
    let kept = Mutex::new(None);
    let handler = service_fn(|request: Request<Body>| {
        *kept.lock().unwrap() = Some(request.extensions().clone());
        async move {
            request.session().await?.set("a", 1)?;
            Ok::<_, Error>(status(200))
        }
    });
    let service = SessionService::new(handler, ServerStore::with_backend(Memory::new()).build().unwrap());
    for number in 0..2 {
        let mut again = request("/", None);
        *again.extensions_mut() = kept.lock().unwrap().take().unwrap_or_default();
        let response = block_on(service.call(again)).unwrap();
        assert_eq!(set_cookies(response.headers()).len(), 1, "request {number}");
    }
}
