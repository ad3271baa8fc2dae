//! Requests that take longer than their session has left: what is written counts from when it is written.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper_session::{Clock, Session};

use crate::spy_store::{
    ABSOLUTE, Act, Form, IDLE, Kind, RENEWAL, START, Setup, World, assert_no_cookie, assert_removed,
    assert_set, everywhere, on_server, pairs,
};
use crate::support::{Jar, block_on, refused, set_cookies, status};

const SECOND: Duration = Duration::from_secs(1);
/// A second less than sessions may be idle.
const NEARLY: Duration = Duration::from_secs(IDLE.as_secs() - 1);

/// `Max-Age` of the one `Set-Cookie` line.
fn max_age(response: &http::Response<crate::support::Body>) -> u64 {
    let lines = set_cookies(response.headers());
    assert_eq!(lines.len(), 1, "{lines:?}");
    let age = lines[0].split("; ").find_map(|part| part.strip_prefix("Max-Age=")).unwrap();
    age.parse().unwrap()
}

/// The handler takes `time` between loading its session and `act`.
async fn slow(
    world: &World,
    jar: &mut Jar,
    time: Duration,
    act: Act,
) -> http::Response<crate::support::Body> {
    let clock = world.clock.clone();
    world
        .visit(jar, move |ask| {
            let clock = clock.clone();
            async move {
                let session = ask.session().await?;
                clock.advance(time);
                act(&session)?;
                Ok(status(200))
            }
        })
        .await
}

/// However long the request takes, the session lasts from its end: whether it is changed, given a new token, or only read.
#[test]
fn b5_a_request_that_began_in_time_keeps_its_session() {
    let acts: [Act; 4] = [
        |session| session.set("b", 2_u64),
        |session| session.regenerate().and_then(|()| session.set("b", 2_u64)),
        |session| session.login("ada").and_then(|()| session.set("b", 2_u64)),
        |session| session.update("b", |_: Option<u64>| 2_u64).map(drop),
    ];
    everywhere(|world| async move {
        for time in [SECOND, NEARLY, IDLE, IDLE + SECOND, 3 * IDLE] {
            for act in acts {
                let mut jar = world.jar().await;
                // Begins in the last second.
                world.clock.advance(NEARLY);
                let response = slow(&world, &mut jar, time, act).await;
                assert_set(&world, &response);
                assert_eq!(max_age(&response), IDLE.as_secs(), "from the end of the request");
                assert_eq!(world.values(&jar).await, pairs(&[("a", 1), ("b", 2)]));
                let (_, _, expires) = world.facts(&jar).await;
                assert_eq!(expires.saturating_since(world.clock.now()), IDLE);
                world.clock.advance(NEARLY);
                assert_eq!(
                    world.values(&jar.clone()).await,
                    pairs(&[("a", 1), ("b", 2)]),
                    "to the last second"
                );
                world.events.take();
                world.clock.advance(SECOND);
            }
        }
    });
}

/// A request that only reads renews the session at its end, if that is when it is due.
#[test]
fn b5_a_slow_read_renews_at_its_end() {
    everywhere(|world| async move {
        for (wait, time, renewed) in [
            (0, RENEWAL.as_secs() - 1, false),
            (0, RENEWAL.as_secs(), true),
            (RENEWAL.as_secs() - 1, 1, true),
            (10, IDLE.as_secs() - 10, true),
            (IDLE.as_secs() - 1, 2 * IDLE.as_secs(), true),
        ] {
            let mut jar = world.jar().await;
            world.clock.advance(Duration::from_secs(wait));
            let response = slow(&world, &mut jar, Duration::from_secs(time), |_| Ok(())).await;
            if renewed {
                assert_set(&world, &response);
                assert_eq!(max_age(&response), IDLE.as_secs());
                world.clock.advance(NEARLY);
            } else {
                assert_no_cookie(&response);
            }
            assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]), "{wait} {time}");
        }
    });
}

/// A session that `save` wrote early in a slow request is written again at its end, before its cookie is sent expired.
#[test]
fn b5_no_expired_cookie_is_sent() {
    everywhere(|world| async move {
        for stored in [false, true] {
            for time in [NEARLY, IDLE, 2 * IDLE] {
                let mut jar = if stored { world.jar().await } else { Jar::new() };
                let clock = world.clock.clone();
                let response = world.visit(&mut jar, move |ask| {
                    let clock = clock.clone();
                    async move {
                        let session = ask.session().await?;
                        session.set("b", 2_u64)?;
                        session.save().await?;
                        clock.advance(time);
                        Ok(status(200))
                    }
                });
                let response = response.await;
                assert_set(&world, &response);
                assert_eq!(max_age(&response), IDLE.as_secs());
                world.clock.advance(NEARLY);
                assert!(world.look(&jar, |session| session.has("b")).await);
                world.clock.advance(2 * IDLE);
            }
        }
    });
}

/// A new session, too, begins when it is written.
#[test]
fn b5_a_new_session_begins_when_it_is_written() {
    everywhere(|world| async move {
        let mut jar = Jar::new();
        let began = world.clock.now();
        let response = slow(&world, &mut jar, 3 * IDLE, |session| session.set("a", 1_u64)).await;
        assert_eq!(max_age(&response), IDLE.as_secs());
        let (_, created, expires) = world.facts(&jar).await;
        assert_eq!(created, began.saturating_add(3 * IDLE));
        assert_eq!(expires, began.saturating_add(4 * IDLE));
    });
}

/// The absolute timeout is absolute: a session that reaches it during a request ends, and its cookie is not set.
/// A login in that request begins it anew, and so does starting over.
#[test]
fn b5_b6_the_absolute_timeout_ends_a_slow_request_unless_it_logs_in() {
    let ends: [Act; 4] = [
        |session| session.set("b", 2_u64),
        Session::regenerate,
        |session| session.set("a", 1_u64).and_then(|()| session.regenerate()),
        |session| session.update("b", |_: Option<u64>| 2_u64).map(drop),
    ];
    let begins: [Act; 2] = [
        |session| session.login("ada").and_then(|()| session.set("b", 2_u64)),
        |session| {
            session.destroy().and_then(|()| session.set("a", 1_u64)).and_then(|()| session.set("b", 2_u64))
        },
    ];
    everywhere(|world| async move {
        for (act, ends) in ends.map(|act| (act, true)).into_iter().chain(begins.map(|act| (act, false))) {
            let mut jar = world.jar().await;
            use_until_the_last_second(&world, &mut jar).await;
            assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]));
            world.events.take();
            let response = slow(&world, &mut jar, SECOND, act).await;
            assert_eq!(response.status(), 200);
            if ends {
                assert_no_cookie(&response);
                assert!(world.look(&jar, Session::is_empty).await);
            } else {
                assert_set(&world, &response);
                assert_eq!(world.facts(&jar).await.1, world.clock.now(), "a new beginning");
                assert_eq!(world.values(&jar).await, pairs(&[("a", 1), ("b", 2)]));
                assert_eq!(max_age(&response), IDLE.as_secs());
            }
        }
    });
}

/// Uses the session of `jar` until a second before its absolute timeout.
async fn use_until_the_last_second(world: &World, jar: &mut Jar) {
    let born = world.facts(jar).await.1.as_unix();
    for step in 1..ABSOLUTE.as_secs() / 500 {
        world.clock.set(born + step * 500);
        world.edit(jar, |_| Ok(())).await;
    }
    world.clock.set(born + ABSOLUTE.as_secs() - 1);
}

/// A slow request whose session ends meanwhile does not log out the user who has just logged in again in another tab.
#[test]
fn b5_r3_a_request_past_the_absolute_timeout_leaves_the_cookie_of_a_login() {
    everywhere(|world| async move {
        let mut jar = world.jar().await;
        use_until_the_last_second(&world, &mut jar).await;
        let browser = Arc::new(Mutex::new(jar.clone()));
        let (inner, tab) = (world.clone(), Arc::clone(&browser));
        let slow = world.start(&jar, move |ask| {
            let (world, tab) = (inner.clone(), Arc::clone(&tab));
            async move {
                let session = ask.session().await?;
                let mut jar = tab.lock().unwrap().clone();
                world.edit(&mut jar, |session| session.login("ada")).await;
                *tab.lock().unwrap() = jar;
                world.clock.advance(SECOND);
                session.set("b", 2_u64)?;
                Ok(status(200))
            }
        });
        let response = slow.await.unwrap();
        let mut browser = browser.lock().unwrap().clone();
        browser.store(response.headers());
        assert!(world.look(&browser, |session| session.subject().as_deref() == Some("ada")).await);
        assert_eq!(world.values(&browser).await, pairs(&[("a", 1)]), "nothing of the session that has ended");
    });
}

/// `save` says that the session has ended; what is set afterwards is not kept, unless the handler logs in.
#[test]
fn b5_a_save_past_the_absolute_timeout_says_so() {
    everywhere(|world| async move {
        for logs_in in [false, true] {
            let mut jar = world.jar().await;
            let clock = world.clock.clone();
            let response = world.visit(&mut jar, move |ask| {
                let clock = clock.clone();
                async move {
                    let session = ask.session().await?;
                    clock.advance(ABSOLUTE);
                    session.set("b", 2_u64)?;
                    assert!(session.save().await.unwrap_err().is_ended());
                    assert!(session.is_empty() && session.id().is_none());
                    if logs_in {
                        session.login("ada")?;
                    }
                    session.set("b", 3_u64)?;
                    Ok(status(200))
                }
            });
            let response = response.await;
            if logs_in {
                assert_set(&world, &response);
                assert_eq!(world.values(&jar).await, pairs(&[("b", 3)]));
            } else {
                assert_no_cookie(&response);
                assert_eq!(world.events.take(), ["dropped:session_ended"; 2]);
            }
        }
    });
}

/// While a slow request keeps a session that has expired, others do not find it, and what ends it ends it.
#[test]
fn b5_t26_an_expired_session_of_a_slow_request_is_ended_with_the_others() {
    for form in [Form::Service, Form::Function] {
        block_on(async {
            let world = World::new(Kind::Server, form, &Setup::default());
            let mut jar = world.jar().await;
            world.edit(&mut jar, |session| session.login("ada")).await;
            world.events.take();
            let (inner, other) = (world.clone(), jar.clone());
            let response = world.visit(&mut jar, move |ask| {
                let (world, other) = (inner.clone(), other.clone());
                async move {
                    let session = ask.session().await?;
                    world.clock.advance(2 * IDLE);
                    assert!(world.look(&other, Session::is_empty).await);
                    assert_eq!(world.events.take(), [refused(hyper_session::Refusal::UnknownId)]);
                    let store = world.server.clone().unwrap();
                    assert_eq!(store.end_sessions_of("ada", None).await?, 0, "none was alive");
                    session.set("b", 2_u64)?;
                    Ok(status(200))
                }
            });
            assert_no_cookie(&response.await);
            assert_eq!(world.events.take(), ["dropped:session_ended"]);
            assert_eq!(world.rows().await, 0, "nothing brings it back (T34)");
        });
    }
}

/// A destroy of another request that began in time, too, is not undone.
#[test]
fn b5_t34_a_logout_is_not_undone_by_a_slow_request() {
    on_server(|world| async move {
        let mut jar = world.jar().await;
        let (inner, other) = (world.clone(), jar.clone());
        let response = world.visit(&mut jar, move |ask| {
            let (world, mut other) = (inner.clone(), other.clone());
            async move {
                let session = ask.session().await?;
                world.edit(&mut other, Session::destroy).await;
                world.clock.advance(2 * IDLE);
                session.set("b", 2_u64)?;
                Ok(status(200))
            }
        });
        assert_no_cookie(&response.await);
        assert_eq!(world.rows().await, 0);
    });
}

/// The request of the logout also brings a token that was superseded moments ago, from another path of the site.
#[test]
fn b5_t34_a_logout_ends_a_slow_request_also_beside_a_superseded_token() {
    on_server(|world| async move {
        let mut jar = world.jar().await;
        let (inner, expired) = (world.clone(), jar.clone());
        let response = world.visit(&mut jar, move |ask| {
            let (world, expired) = (inner.clone(), expired.clone());
            async move {
                let session = ask.session().await?;
                world.clock.advance(2 * IDLE);
                let mut other = world.jar().await;
                let superseded = other.clone();
                world.edit(&mut other, Session::regenerate).await;
                let (name, token) = expired.0.first_key_value().unwrap();
                let both = format!("{token}; {name}={}", superseded.get(name).unwrap());
                world.edit(&mut Jar::with(name, &both), Session::destroy).await;
                session.set("b", 2_u64)?;
                Ok(status(200))
            }
        });
        assert_no_cookie(&response.await);
    });
}

/// A visitor's request that shows the last notice also brings the token of a session that this host takes for expired. That is not a
/// logout, unless the handler clears the session or deletes a value.
#[test]
fn b5_t34_a_notice_that_is_shown_ends_no_session_beside_it() {
    let notice: Act = |session| session.set_flash("notice", 1_u64);
    let shows: Act = |session| session.flash::<u64>("notice").map(drop);
    let clears: Act = |session| session.clear();
    let notice_and_value: Act =
        |session| session.set("a", 1_u64).and_then(|()| session.set_flash("notice", 1_u64));
    let deletes: Act = |session| session.delete("a").and_then(|_| session.flash::<u64>("notice")).map(drop);
    on_server(|world| async move {
        for regenerates in [false, true] {
            let acts = [(notice, shows, true), (notice, clears, false), (notice_and_value, deletes, false)];
            for (before, act, goes_on) in acts {
                let mut jar = world.jar().await;
                let (inner, expired) = (world.clone(), jar.clone());
                let response = world.visit(&mut jar, move |ask| {
                    let (world, expired) = (inner.clone(), expired.clone());
                    async move {
                        let session = ask.session().await?;
                        world.clock.advance(2 * IDLE);
                        let mut visitor = Jar::new();
                        world.edit(&mut visitor, before).await;
                        let (name, token) = visitor.0.first_key_value().unwrap();
                        let both = format!("{token}; {name}={}", expired.get(name).unwrap());
                        let mut jar = Jar::with(name, &both);
                        let response = world.edit(&mut jar, move |session| {
                            if regenerates {
                                session.regenerate()?;
                            }
                            act(session)
                        });
                        assert_removed(&world, &response.await);
                        session.set("b", 2_u64)?;
                        Ok(status(200))
                    }
                });
                let response = response.await;
                if goes_on {
                    assert_set(&world, &response);
                    assert_eq!(world.values(&jar).await, pairs(&[("a", 1), ("b", 2)]));
                } else {
                    assert_no_cookie(&response);
                }
            }
        }
    });
}

/// A destroy of another request that comes too late to find the session ends it for the slow one, too: the user has logged
/// out. The slow request may change the session, read it, or give it a new token.
#[test]
fn b5_t34_a_logout_after_the_deadline_ends_a_slow_request() {
    let acts: [Act; 4] = [
        |session| session.set("b", 2_u64),
        |session| session.regenerate().and_then(|()| session.set("b", 2_u64)),
        |session| session.update("a", |old: Option<u64>| old.unwrap_or(0) + 1).map(drop),
        |_| Ok(()),
    ];
    on_server(|world| async move {
        for act in acts {
            for subject in [None, Some("ada")] {
                for late in [IDLE, 2 * IDLE, ABSOLUTE] {
                    let mut jar = world.jar().await;
                    if let Some(subject) = subject {
                        let login = |session: &Session| session.login(subject);
                        world.answer(&mut jar, 200, login).await;
                    }
                    let (inner, other) = (world.clone(), jar.clone());
                    let response = world.visit(&mut jar, move |ask| {
                        let (world, mut other) = (inner.clone(), other.clone());
                        async move {
                            let session = ask.session().await?;
                            world.clock.advance(late);
                            let logout = world.edit(&mut other, Session::destroy).await;
                            assert_removed(&world, &logout);
                            act(&session)?;
                            Ok(status(200))
                        }
                    });
                    let response = response.await;
                    let lines = set_cookies(response.headers());
                    assert!(lines.iter().all(|line| line.contains("Max-Age=0")), "{lines:?}");
                    assert_eq!(world.rows().await, 0, "{subject:?} {late:?}");
                    assert!(world.look(&jar, Session::is_empty).await);
                }
            }
        }
    });
}

/// A request that begins a new session after the deadline does not log out a slow request that loaded the old session in time.
#[test]
fn b5_a_new_session_after_the_deadline_ends_no_slow_request() {
    let begins: [Act; 2] = [|session| session.set("c", 3_u64), |session| session.login("ada")];
    on_server(|world| async move {
        for begin in begins {
            let mut jar = world.jar().await;
            let (inner, other) = (world.clone(), jar.clone());
            let response = world.visit(&mut jar, move |ask| {
                let (world, mut other) = (inner.clone(), other.clone());
                async move {
                    let session = ask.session().await?;
                    world.clock.advance(2 * IDLE);
                    let begun = world.edit(&mut other, begin).await;
                    assert_set(&world, &begun);
                    session.set("b", 2_u64)?;
                    Ok(status(200))
                }
            });
            assert_set(&world, &response.await);
            assert_eq!(world.values(&jar).await, pairs(&[("a", 1), ("b", 2)]));
        }
    });
}

/// A clock that goes back during a request takes no time from the session.
#[test]
fn b5_a_clock_that_goes_back_shortens_nothing() {
    everywhere(|world| async move {
        let mut jar = Jar::new();
        let clock = world.clock.clone();
        let response = world.visit(&mut jar, move |ask| {
            let clock = clock.clone();
            async move {
                let session = ask.session().await?;
                clock.set(START - 30);
                session.set("a", 1_u64)?;
                Ok(status(200))
            }
        });
        assert_set(&world, &response.await);
        assert_eq!(world.facts(&jar).await.2.as_unix(), START + IDLE.as_secs());
        world.clock.set(START);
    });
}
