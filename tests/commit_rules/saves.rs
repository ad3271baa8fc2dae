//! Explicit saves, and their races with what the handler does meanwhile.

use std::sync::{Arc, Mutex};

use hyper_session::cookie::CookieOptions;
use hyper_session::{Lifetime, ServerStore, Session};

use crate::spy_store::{
    ABSOLUTE, Act, Ask, Form, Gate, Kind, Setup, Spy, Verb, World, assert_set, everywhere, on_server, pairs,
    poll, settle,
};
use crate::support::{Jar, block_on, set_cookies, status};

/// Saves while each write of the backend fails.
async fn save_in_vain(store: &ServerStore<Arc<Spy>>, session: &Session) {
    *store.backend().failing.lock().unwrap() = vec![Verb::Create, Verb::Replace, Verb::Delete];
    assert!(session.save().await.unwrap_err().is_unavailable());
    store.backend().failing.lock().unwrap().clear();
}

/// `save().await` mid-handler is seen at once by others; what is changed afterwards is saved with the answer.
#[test]
fn an_explicit_save_and_changes_after_it_are_both_saved() {
    everywhere(|world| async move {
        let mut jar = Jar::new();
        let response = world.visit(&mut jar, |ask| async move {
            let session = ask.session().await?;
            session.set("a", 1_u64)?;
            session.save().await?;
            let id = session.id().expect("a saved session has an id");
            assert_eq!(session.get::<u64>("a")?, Some(1));
            session.set("b", 2_u64)?;
            session.delete("a")?;
            session.update("n", |old: Option<u64>| old.unwrap_or(0) + 1)?;
            session.save().await?;
            session.update("n", |old: Option<u64>| old.unwrap_or(0) + 1)?;
            assert_eq!(session.id(), Some(id));
            Ok(status(200))
        });
        assert_set(&world, &response.await);
        assert_eq!(world.values(&jar).await, pairs(&[("b", 2), ("n", 2)]));
        if world.server.is_some() {
            assert_eq!(world.calls()[..3], [Verb::Create, Verb::Replace, Verb::Replace]);
        }
    });
}

/// An explicit save counts although the handler fails afterwards, and its cookie is sent.
#[test]
fn an_explicit_save_outlives_a_server_error() {
    everywhere(|world| async move {
        let mut jar = Jar::new();
        let response = world.visit(&mut jar, |ask| async move {
            let session = ask.session().await?;
            session.set("a", 1_u64)?;
            session.save().await?;
            session.set("a", 2_u64)?;
            Ok(status(500))
        });
        assert_set(&world, &response.await);
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]));
        assert_eq!(world.events.take(), ["dropped:server_error"]);
    });
}

/// An explicit save of a session that was ended, and then begun again, is another session.
#[test]
fn explicit_saves_around_a_destroy_are_two_sessions() {
    everywhere(|world| async move {
        let mut jar = world.jar().await;
        let old = jar.clone();
        let response = world.visit(&mut jar, |ask| async move {
            let session = ask.session().await?;
            let id = session.id();
            session.destroy()?;
            session.save().await?;
            assert_eq!(session.id(), None);
            assert!(session.is_empty());
            session.set("b", 2_u64)?;
            session.save().await?;
            assert!(session.id().is_some() && session.id() != id);
            Ok(status(200))
        });
        assert_set(&world, &response.await);
        assert_eq!(world.values(&jar).await, pairs(&[("b", 2)]));
        if world.server.is_some() {
            assert!(world.look(&old, Session::is_empty).await);
            assert_eq!(world.rows().await, 1);
        }
    });
}

/// A save that failed leaves its changes in the session: the handler reads them, and they are saved with the answer.
#[test]
fn a_failed_explicit_save_leaves_the_changes_in_the_session() {
    on_server(|world| async move {
        for mut jar in [Jar::new(), world.jar().await] {
            let store = world.server.clone().unwrap();
            let handler = move |ask: Ask| {
                let store = store.clone();
                async move {
                    let session = ask.session().await?;
                    session.set("b", 2_u64)?;
                    *store.backend().failing.lock().unwrap() = vec![Verb::Create, Verb::Replace];
                    assert!(session.save().await.unwrap_err().is_unavailable());
                    assert_eq!(session.get::<u64>("b")?, Some(2));
                    session.set("c", 3_u64)?;
                    assert!(session.save().await.unwrap_err().is_unavailable());
                    store.backend().failing.lock().unwrap().clear();
                    session.save().await?;
                    Ok(status(200))
                }
            };
            let response = world.visit(&mut jar, handler).await;
            assert_set(&world, &response);
            let values = world.values(&jar).await;
            assert!(values.ends_with(&pairs(&[("b", 2), ("c", 3)])), "{values:?}");
        }
    });
}

/// A session that does not fit says so to the handler, which can make it fit.
#[test]
fn a_handler_can_act_on_a_session_that_is_too_large() {
    let setup = Setup { cookie: CookieOptions::new().max_chunks(1), ..Setup::default() };
    for form in [Form::Service, Form::Function] {
        block_on(async {
            let world = World::new(Kind::Cookie, form, &setup);
            let mut jar = world.jar().await;
            let response = world.visit(&mut jar, |ask| async move {
                let session = ask.session().await?;
                session.set("b", 2_u64)?;
                session.set("big", "x".repeat(5_000))?;
                assert!(session.save().await.unwrap_err().is_too_large());
                assert!(session.has("big"));
                session.delete("big")?;
                Ok(status(200))
            });
            assert_set(&world, &response.await);
            assert_eq!(world.values(&jar).await, pairs(&[("a", 1), ("b", 2)]));
        });
    }
}

/// Two saves at once are two saves in turn: one session comes of them.
#[test]
fn two_saves_at_once_make_one_session() {
    everywhere(|world| async move {
        let mut jar = Jar::new();
        let response = world.visit(&mut jar, |ask| async move {
            let session = ask.session().await?;
            session.set("a", 1_u64)?;
            let (one, two) = tokio::join!(session.save(), async {
                session.set("b", 2_u64)?;
                session.save().await
            });
            one.and(two)?;
            Ok(status(200))
        });
        assert_set(&world, &response.await);
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1), ("b", 2)]));
        if world.server.is_some() {
            assert_eq!(world.rows().await, 1);
        }
    });
}

/// An action of a handler while a task's save is under way, and the values that the next request then finds.
struct Race {
    deed: Act,
    code: u16,
    values: &'static [(&'static str, u64)],
    /// Whether the token from before still leads to the session.
    same_token: bool,
}

/// A task saves `{a: 1, b: 2}`, which lasts; the handler does something meanwhile, and answers.
fn race(races: &'static [Race]) {
    on_server(|world| async move {
        for (number, race) in races.iter().enumerate() {
            println!("race {number}");
            let mut jar = world.jar().await;
            let old = jar.clone();
            let rows = world.rows().await - 1;
            world.gate(Gate::Before(Verb::Replace));
            let mut response = world.start(&jar, move |ask| async move {
                let session = ask.session().await?;
                session.set("b", 2_u64)?;
                let saving = session.clone();
                tokio::spawn(async move { saving.save().await });
                tokio::task::yield_now().await;
                (race.deed)(&session)?;
                Ok(status(race.code))
            });
            for _ in 0..3 {
                assert!(poll(&mut response).is_pending());
                settle().await;
            }
            world.gate(Gate::Open);
            let response = response.await.unwrap();
            assert_eq!(response.status(), race.code);
            assert_eq!(set_cookies(response.headers()).len(), 1);
            jar.store(response.headers());
            assert_eq!(jar.0.is_empty(), race.values.is_empty());
            assert_eq!(world.values(&jar).await, pairs(race.values));
            assert_eq!(world.rows().await - rows, usize::from(!race.values.is_empty()));
            assert_eq!(!world.look(&old, Session::is_empty).await, race.same_token);
        }
    });
}

#[test]
fn a_save_of_a_task_races_with_changes_and_loses_nothing() {
    race(&[
        Race { deed: |_| Ok(()), code: 200, values: &[("a", 1), ("b", 2)], same_token: true },
        Race {
            deed: |s| s.set("c", 3_u64),
            code: 200,
            values: &[("a", 1), ("b", 2), ("c", 3)],
            same_token: true,
        },
        Race { deed: |s| s.set("b", 7_u64), code: 200, values: &[("a", 1), ("b", 7)], same_token: true },
        Race { deed: |s| s.delete("b").map(drop), code: 200, values: &[("a", 1)], same_token: true },
        Race { deed: |s| s.set("c", 3_u64), code: 500, values: &[("a", 1), ("b", 2)], same_token: true },
        Race { deed: Session::clear, code: 200, values: &[], same_token: false },
    ]);
}

#[test]
fn a_destroy_during_a_save_of_a_task_is_done() {
    race(&[
        Race { deed: Session::destroy, code: 200, values: &[], same_token: false },
        Race { deed: Session::destroy, code: 500, values: &[], same_token: false },
    ]);
}

#[test]
fn a_destroy_and_set_during_a_save_of_a_task_is_a_new_session() {
    race(&[Race {
        deed: |session| session.destroy().and_then(|()| session.set("c", 3_u64)),
        code: 200,
        values: &[("c", 3)],
        same_token: false,
    }]);
}

#[test]
fn a_regenerate_during_a_save_of_a_task_is_done() {
    race(&[
        Race { deed: Session::regenerate, code: 200, values: &[("a", 1), ("b", 2)], same_token: false },
        Race { deed: Session::regenerate, code: 500, values: &[("a", 1), ("b", 2)], same_token: false },
    ]);
}

/// A save that the handler gave up waiting for leaves its changes in the session, for the answer.
#[test]
fn a_save_that_was_given_up_is_made_up_for() {
    on_server(|world| async move {
        let mut jar = world.jar().await;
        world.gate(Gate::Before(Verb::Replace));
        let store = world.server.clone().unwrap();
        let handler = move |ask: Ask| {
            let store = store.clone();
            async move {
                let session = ask.session().await?;
                session.set("b", 2_u64)?;
                let mut save = Box::pin(session.save());
                assert!(poll(&mut save).is_pending());
                drop(save);
                assert_eq!(session.get::<u64>("b")?, Some(2));
                store.backend().gate.send_replace(Gate::Open);
                Ok(status(200))
            }
        };
        assert_set(&world, &world.visit(&mut jar, handler).await);
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1), ("b", 2)]));
    });
}

/// A handler that was told of a failure answers for it: its page is sent, and what failed is not tried again, although the
/// store would do it now.
#[test]
fn b27_a_handler_that_was_told_answers_for_it() {
    // An ending that could not compare looks at the entry, and deletes it.
    let acts: [(Act, usize); 4] = [
        (|session| session.set("b", 2_u64), 1),
        (Session::clear, 3),
        (Session::destroy, 3),
        (Session::regenerate, 1),
    ];
    on_server(|world| async move {
        for (act, steps) in acts {
            for code in [200, 413, 503] {
                let mut jar = world.jar().await;
                let before = jar.clone();
                let store = world.server.clone().unwrap();
                world.calls();
                let response = world.visit(&mut jar, move |ask| {
                    let store = store.clone();
                    async move {
                        let session = ask.session().await?;
                        act(&session)?;
                        save_in_vain(&store, &session).await;
                        Ok(status(code))
                    }
                });
                let response = response.await;
                assert_eq!(response.status(), code);
                assert_eq!(set_cookies(response.headers()), [""; 0]);
                assert_eq!(world.calls().len(), 1 + steps, "loaded, and tried once");
                assert_eq!(jar.0, before.0);
                assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]));
                let events = world.events.take();
                assert_eq!(events[0], "store_failed");
                assert!(events[1..].iter().all(|event| event == "dropped:save_failed"), "{events:?}");
            }
        }
    });
}

/// A session that is too large: the handler says so in its own words, and the client keeps what it has.
#[test]
fn b27_a_page_that_says_too_large_is_sent() {
    let setup = Setup { cookie: CookieOptions::new().max_chunks(1), ..Setup::default() };
    for form in [Form::Service, Form::Function] {
        block_on(async {
            let world = World::new(Kind::Cookie, form, &setup);
            let mut jar = world.jar().await;
            let response = world.visit(&mut jar, |ask| async move {
                let session = ask.session().await?;
                session.set("big", "x".repeat(9_000))?;
                let too_large = session.save().await.is_err_and(|error| error.is_too_large());
                Ok(status(if too_large { 413 } else { 200 }))
            });
            let response = response.await;
            assert_eq!(response.status(), 413);
            assert_eq!(set_cookies(response.headers()), [""; 0]);
            assert_eq!(world.events.take(), ["store_failed", "dropped:save_failed"]);
            assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]));
        });
    }
}

/// A failed save is tried again if the handler asks for it: by another save, or by mending one of the keys that failed.
#[test]
fn b27_what_is_asked_again_is_tried_again() {
    let asks: [Act; 5] = [
        |session| session.set("b", 2_u64).and_then(|()| session.set("c", 3_u64)),
        |session| session.set("b", 2_u64),
        |session| session.update("b", |_: Option<u64>| 2_u64).map(drop),
        |session| session.delete("big").map(drop),
        Session::clear,
    ];
    on_server(|world| async move {
        for (number, again) in asks.into_iter().enumerate() {
            let mut jar = world.jar().await;
            let store = world.server.clone().unwrap();
            let response = world.visit(&mut jar, move |ask| {
                let store = store.clone();
                async move {
                    let session = ask.session().await?;
                    session.set("b", 1_u64)?;
                    session.set("big", 9_u64)?;
                    session.set("c", 3_u64)?;
                    *store.backend().failing.lock().unwrap() = vec![Verb::Replace];
                    assert!(session.save().await.is_err());
                    store.backend().failing.lock().unwrap().clear();
                    again(&session)?;
                    Ok(status(200))
                }
            });
            assert_eq!(set_cookies(response.await.headers()).len(), 1);
            let (b, c) = (if number < 3 { 2 } else { 1 }, ("c", 3));
            let expected = match number {
                4 => Vec::new(),
                3 => pairs(&[("a", 1), ("b", b), c]),
                _ => pairs(&[("a", 1), ("b", b), ("big", 9), c]),
            };
            assert_eq!(world.values(&jar).await, expected, "{number}");
        }
    });
}

/// A handler that reports the failure, with a flash value for example, saves only that. The failed changes, login or end
/// are not tried again, although the store would do it now.
#[test]
fn b27_a_report_of_the_failure_is_saved_without_what_failed() {
    let fails: [Act; 6] = [
        |session| session.set("b", 2_u64),
        |session| session.update("a", |old: Option<u64>| old.unwrap_or(0) + 5).map(drop),
        |session| session.login("eve").and_then(|()| session.set("b", 2_u64)),
        Session::clear,
        Session::destroy,
        Session::regenerate,
    ];
    let reports: [Act; 3] = [
        |session| session.set("note", 7_u64),
        |session| session.update("note", |old: Option<u64>| old.unwrap_or(0) + 7).map(drop),
        |session| session.set_flash("note", 7_u64),
    ];
    on_server(|world| async move {
        for fail in fails {
            for report in reports {
                let mut jar = world.jar().await;
                let before = jar.clone();
                let store = world.server.clone().unwrap();
                let response = world.visit(&mut jar, move |ask| {
                    let store = store.clone();
                    async move {
                        let session = ask.session().await?;
                        fail(&session)?;
                        save_in_vain(&store, &session).await;
                        report(&session)?;
                        Ok(status(303))
                    }
                });
                let response = response.await;
                assert_eq!(response.status(), 303, "the handler's page is sent");
                assert_eq!(set_cookies(response.headers()).len(), 1);
                let token = |jar: &Jar| jar.header();
                assert_eq!(token(&jar), token(&before), "no login, no new token");
                let seen = world.look(&jar, |session| {
                    let note = session.get::<u64>("note").unwrap();
                    let flash = session.flash::<u64>("note").unwrap();
                    (session.get::<u64>("a").unwrap(), session.has("b"), session.subject(), note.or(flash))
                });
                assert_eq!(seen.await, (Some(1), false, None, Some(7)));
            }
        }
    });
}

/// A counter that another request moves while a save fails: no increment is lost, and none is counted twice.
#[test]
fn b27_an_update_after_a_failure_runs_on_what_is_there() {
    on_server(|world| async move {
        let mut jar = world.jar().await;
        let store = world.server.clone().unwrap();
        let response = world.visit(&mut jar, move |ask| {
            let store = store.clone();
            async move {
                let session = ask.session().await?;
                session.clear()?;
                save_in_vain(&store, &session).await;
                // The session reads as cleared, but `a` is still 1 in the store.
                assert_eq!(session.update("a", |old: Option<u64>| old.unwrap_or(0) + 1)?, 1);
                Ok(status(200))
            }
        });
        assert_eq!(set_cookies(response.await.headers()).len(), 1);
        assert_eq!(world.values(&jar).await, pairs(&[("a", 2)]));
    });
}

/// A logout that failed, and then a login: the session of the login has nothing of the one before.
#[test]
fn b27_a_login_after_a_logout_that_failed_begins_another_session() {
    let ends: [Act; 2] = [Session::destroy, Session::clear];
    on_server(|world| async move {
        let store = world.server.clone().unwrap();
        for end in ends {
            for user in ["bob", "ada"] {
                let mut jar = Jar::new();
                let log_in: Act = |session| {
                    session.login("ada")?;
                    session.set_lifetime(Lifetime::persistent(2 * ABSOLUTE))?;
                    session.set("cart", 3_u64)
                };
                world.edit(&mut jar, log_in).await;
                world.events.take();
                let failing = store.clone();
                let response = world.visit(&mut jar, move |ask| {
                    let store = failing.clone();
                    async move {
                        let session = ask.session().await?;
                        end(&session)?;
                        save_in_vain(&store, &session).await;
                        session.login(user)?;
                        Ok(status(200))
                    }
                });
                assert_set(&world, &response.await);
                assert!(!world.events.take().contains(&"dropped:save_failed".to_owned()));
                let seen = world.look(&jar, |session| {
                    let subject = session.subject().map(|subject| subject.to_string());
                    (subject, session.has("cart"), session.lifetime())
                });
                assert_eq!(seen.await, (Some(user.to_owned()), false, Lifetime::new()));
                let of_ada = store.sessions_of("ada").await.unwrap();
                assert_eq!(of_ada.len(), usize::from(user == "ada"), "the former one has ended");
                assert_eq!(store.end_sessions_of(user, None).await.unwrap(), 1);
            }
        }
    });
}

/// A page that reports the failure of a login has a form. Its token does not repeat the login, and the forms of other pages stay valid.
#[test]
fn b27_a_form_on_the_page_that_reports_the_failure_does_not_repeat_a_login() {
    on_server(|world| async move {
        let tokens = Arc::new(Mutex::new(Vec::new()));
        let mut jar = Jar::new();
        let kept = Arc::clone(&tokens);
        world
            .edit(&mut jar, move |session| {
                kept.lock().unwrap().push(session.csrf_token()?);
                session.set("a", 1_u64)
            })
            .await;
        let before = jar.header();
        let (store, kept) = (world.server.clone().unwrap(), Arc::clone(&tokens));
        let response = world.visit(&mut jar, move |ask| {
            let (store, kept) = (store.clone(), Arc::clone(&kept));
            async move {
                let session = ask.session().await?;
                session.login("eve")?;
                save_in_vain(&store, &session).await;
                kept.lock().unwrap().push(session.csrf_token()?);
                Ok(status(422))
            }
        });
        assert_eq!(response.await.status(), 422);
        assert_eq!(jar.header(), before, "no login, no new token");
        let tokens = std::mem::take(&mut *tokens.lock().unwrap());
        assert_eq!(tokens.len(), 2);
        let seen = world.look(&jar, move |session| {
            let accepted = tokens.iter().map(|token| session.verify_csrf(token).is_ok()).collect::<Vec<_>>();
            (session.subject().is_none(), session.has("a"), accepted)
        });
        assert_eq!(seen.await, (true, true, vec![true, true]));
    });
}

/// The token of a form is stored although the save that failed had it, too: the page that reports the failure has the form again.
#[test]
fn b27_a_form_on_the_page_that_reports_a_failed_save_has_a_token_that_is_stored() {
    for drawn_before in [true, false] {
        block_on(async {
            let world = World::new(Kind::Cookie, Form::Service, &Setup::default());
            let (mut jar, token) = (Jar::new(), Arc::new(Mutex::new(String::new())));
            let kept = Arc::clone(&token);
            let response = world.visit(&mut jar, move |ask| {
                let kept = Arc::clone(&kept);
                async move {
                    let session = ask.session().await?;
                    if drawn_before {
                        session.csrf_token()?;
                    }
                    session.set("draft", "x".repeat(100_000))?;
                    assert!(session.save().await.unwrap_err().is_too_large());
                    *kept.lock().unwrap() = session.csrf_token()?;
                    Ok(status(200))
                }
            });
            assert_eq!(response.await.status(), 200);
            let seen = world.look(&jar, move |session| {
                (session.has("draft"), session.verify_csrf(&token.lock().unwrap()).is_ok())
            });
            assert_eq!(seen.await, (false, true), "drawn before: {drawn_before}");
        });
    }
}

/// After a clear that failed, the session reads as empty. A value is read as it was set, also if it equals the stored one, and one that
/// was deleted goes.
#[test]
fn b27_what_is_set_or_deleted_after_a_clear_that_failed_is_read_and_saved() {
    on_server(|world| async move {
        for deletes in [false, true] {
            let mut jar = world.jar().await;
            let store = world.server.clone().unwrap();
            let response = world.visit(&mut jar, move |ask| {
                let store = store.clone();
                async move {
                    let session = ask.session().await?;
                    session.set("b", 2_u64)?;
                    session.save().await?;
                    session.clear()?;
                    save_in_vain(&store, &session).await;
                    session.set("b", 2_u64)?;
                    assert_eq!(session.get::<u64>("b")?, Some(2));
                    if deletes {
                        session.delete("b")?;
                        assert!(!session.has("b"));
                    }
                    Ok(status(200))
                }
            });
            response.await;
            let expected = if deletes { &[("a", 1)][..] } else { &[("a", 1), ("b", 2)] };
            assert_eq!(world.values(&jar).await, pairs(expected));
        }
    });
}
