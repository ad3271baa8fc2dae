//! Each way to end a session, and a copied cookie that is presented afterwards.

use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;
use std::time::Duration;

use http::header::COOKIE;
use http::{Request, Response};
use hyper::service::Service;
use hyper_session::revocation::Position;
use hyper_session::testing::{Cookies, FakeClock};
use hyper_session::{
    AppKey, CookieStore, Error, PayloadFormat, Refusal, Revocations, Session, SessionHandle, SessionId,
    session_fn,
};

use crate::requests::{NAME, START, Site};
use crate::support::block_on;

#[test]
fn a_copied_cookie_is_refused_after_the_logout() {
    block_on(async {
        let site = Site::in_memory();
        let mut browser = site.logged_in("ada").await;
        let copy = browser.clone();
        assert!(site.accepts(&copy).await);
        site.logout(&mut browser).await;
        assert_eq!(site.refusal(&copy).await, Some(Refusal::Revoked));
        // Whatever it is asked for, it gives an empty session, and the response does not touch the cookie.
        let response = site
            .visit(&mut copy.clone(), |session| async move {
                assert!(session.is_empty() && session.id().is_none());
                Ok(())
            })
            .await;
        assert!(!response.headers().contains_key("set-cookie"));
    });
}

#[test]
fn without_the_option_it_works_until_its_deadline() {
    block_on(async {
        let site = Site::built(FakeClock::at(START), |builder| builder);
        let mut browser = site.logged_in("ada").await;
        let copy = browser.clone();
        site.logout(&mut browser).await;
        assert!(site.accepts(&copy).await);
        assert!(site.store.revocations().is_none());
        for result in [
            site.store.end_sessions_of("ada").await,
            site.store.end_labelled("a", "b").await,
            site.store.end_session("ab".repeat(16).parse().unwrap()).await,
            site.store.revocation_position().await.map(drop),
        ] {
            assert!(result.unwrap_err().is_config());
        }
        let response = site.visit(&mut browser, |session| async move { session.label("oidc", "x") }).await;
        assert_eq!(response.status(), 500, "a label would have no effect");
    });
}

#[test]
fn every_copy_of_a_session_ends_with_it() {
    block_on(async {
        let site = Site::in_memory();
        let mut browser = site.logged_in("ada").await;
        let mut copies = vec![browser.clone()];
        for step in ["a", "b"] {
            site.set(&mut browser, step).await;
            copies.push(browser.clone());
            site.clock.advance(Duration::from_secs(4 * 3_600));
            site.visit(&mut browser, |_| async { Ok(()) }).await; // renewed
            copies.push(browser.clone());
            site.regenerate(&mut browser).await;
            for old in &copies {
                assert!(!site.accepts(old).await);
            }
            copies.push(browser.clone());
        }
        assert!(site.accepts(&browser).await);
        site.logout(&mut browser).await;
        for copy in &copies {
            assert!(!site.accepts(copy).await);
        }
    });
}

#[test]
fn a_login_ends_the_session_from_before_it_and_a_regenerated_id_says_so_for_a_minute() {
    block_on(async {
        let site = Site::in_memory();
        let mut browser = site.logged_in("ada").await;
        let before = browser.clone();
        site.set(&mut browser, "cart").await;
        site.login(&mut browser, "ada").await;
        site.visit(&mut browser, |session| async move {
            assert!(session.has("cart"), "the values of the same subject stay");
            Ok(())
        })
        .await;
        // Late requests with the old cookie must not take the new one away.
        assert_eq!(site.refusal(&before).await, Some(Refusal::Regenerated));
        let late = site.answer(&before, |session| async move { session.set("lost", 1) }).await;
        assert!(!late.headers().contains_key("set-cookie"));
        site.clock.advance(Duration::from_secs(120));
        assert_eq!(site.refusal(&before).await, Some(Refusal::Revoked));
        assert!(site.accepts(&browser).await);
    });
}

#[test]
fn a_subject_a_label_an_id_and_everything() {
    block_on(async {
        let site = Site::in_memory();
        let labelled = |label: &'static str| {
            let site = site.clone();
            async move {
                let mut cookies = Cookies::new();
                site.visit(&mut cookies, |session| async move {
                    session.login("ada")?;
                    session.label("oidc", label)
                })
                .await;
                cookies
            }
        };
        let (one, two, bob) = (labelled("one").await, labelled("two").await, site.logged_in("bob").await);
        let mut anonymous = Cookies::new();
        site.set(&mut anonymous, "cart").await;

        site.store.end_labelled("oidc", "three").await.unwrap();
        site.store.end_labelled("saml", "one").await.unwrap();
        site.store.end_sessions_of("adam").await.unwrap();
        assert!(site.accepts(&one).await, "nothing of it was named");
        site.store.end_labelled("oidc", "one").await.unwrap();
        assert_eq!(site.refusal(&one).await, Some(Refusal::Revoked));
        assert!(site.accepts(&two).await);
        let again = labelled("one").await;
        assert!(site.accepts(&again).await, "it was logged in afterwards");

        site.store.end_sessions_of("ada").await.unwrap();
        assert!(!site.accepts(&two).await && !site.accepts(&again).await && site.accepts(&bob).await);

        let token = bob.get(NAME).unwrap();
        let record = hyper_session::__internals::Verbs::load(
            &site.store,
            token,
            hyper_session::Clock::now(&site.clock),
        );
        site.store.end_session(record.await.unwrap().unwrap().id()).await.unwrap();
        assert!(!site.accepts(&bob).await && site.accepts(&anonymous).await);

        site.store.end_all().await.unwrap();
        assert!(!site.accepts(&anonymous).await);
        assert!(site.accepts(&site.logged_in("ada").await).await);
        let mut anonymous = Cookies::new();
        site.set(&mut anonymous, "cart").await;
        assert!(site.accepts(&anonymous).await);
    });
}

#[test]
fn a_label_can_be_ended_before_the_login() {
    block_on(async {
        let site = Site::in_memory();
        site.store.end_labelled_for_good("oidc", "issuer#sid").await.unwrap();
        let mut browser = Cookies::new();
        site.visit(&mut browser, |session| async move {
            session.login("ada")?;
            session.label("oidc", "issuer#sid")
        })
        .await;
        assert!(!site.accepts(&browser).await, "the provider's logout came before the callback");
    });
}

#[test]
fn labels_survive_what_the_session_survives() {
    block_on(async {
        for format in [PayloadFormat::MessagePack, PayloadFormat::Json] {
            let site = Site::built(FakeClock::at(START), |builder| {
                builder.revocations(Revocations::in_memory()).payload_format(format)
            });
            let mut browser = site.logged_in("ada").await;
            site.visit(&mut browser, |session| async move { session.label("device", "phone") }).await;
            site.regenerate(&mut browser).await;
            site.login(&mut browser, "ada").await;
            site.visit(&mut browser, |session| async move {
                session.clear()?;
                session.set("other", 1)
            })
            .await;
            assert!(site.accepts(&browser).await);
            site.store.end_labelled("device", "phone").await.unwrap();
            assert!(!site.accepts(&browser).await, "{format:?}");

            // Not the login of another subject.
            let mut browser = site.logged_in("ada").await;
            site.visit(&mut browser, |session| async move { session.label("device", "phone") }).await;
            site.login(&mut browser, "bob").await;
            site.store.end_labelled("device", "phone").await.unwrap();
            assert!(site.accepts(&browser).await);
        }
    });
}

/// The callback of an OpenID Connect provider, in a browser that still has the session of another user.
#[test]
fn a_label_is_that_of_the_login_in_its_request() {
    type Deed = fn(Session) -> Pin<Box<dyn Future<Output = Result<(), Error>>>>;
    let deeds: [(&str, Deed); 4] = [
        ("before the login", |session| {
            Box::pin(async move {
                session.label("oidc", "sid of bob")?;
                session.login("bob")
            })
        }),
        ("after the login", |session| {
            Box::pin(async move {
                session.login("bob")?;
                session.label("oidc", "sid of bob")
            })
        }),
        ("saved before the login", |session| {
            Box::pin(async move {
                session.label("oidc", "sid of bob")?;
                session.save().await?;
                session.login("bob")
            })
        }),
        ("twice before the login", |session| {
            Box::pin(async move {
                session.label("oidc", "sid of eve")?;
                session.label("oidc", "sid of bob")?;
                session.login("eve")?;
                session.login("bob")
            })
        }),
    ];
    block_on(async {
        for (when, deed) in deeds {
            let site = Site::in_memory();
            let mut browser = site.logged_in("ada").await;
            site.visit(&mut browser, |session| async move {
                session.label("oidc", "sid of ada")?;
                session.label("device", "phone of ada")
            })
            .await;
            assert_eq!(site.visit(&mut browser, deed).await.status(), 200);
            assert_eq!(site.user(&browser).await.as_deref(), Some("bob"), "{when}");
            for (namespace, value) in
                [("oidc", "sid of ada"), ("oidc", "sid of eve"), ("device", "phone of ada")]
            {
                site.store.end_labelled_for_good(namespace, value).await.unwrap();
                assert!(site.accepts(&browser).await, "{when}: {value}");
            }
            site.store.end_labelled_for_good("oidc", "sid of bob").await.unwrap();
            assert_eq!(site.refusal(&browser).await, Some(Refusal::Revoked), "{when}");
        }
    });
}

#[test]
fn a_label_of_a_session_that_ends_or_that_is_discarded_is_not_that_of_the_next_login() {
    block_on(async {
        for discards in [true, false] {
            let site = Site::in_memory();
            let mut browser = site.logged_in("ada").await;
            site.visit(&mut browser, |session| async move {
                session.label("oidc", "sid")?;
                if discards {
                    session.discard()?;
                } else {
                    session.destroy()?;
                }
                session.login("bob")
            })
            .await;
            site.store.end_labelled_for_good("oidc", "sid").await.unwrap();
            assert_eq!(site.user(&browser).await.as_deref(), Some("bob"));
        }
    });
}

/// The request of another login also brings a token of the same session that was superseded moments ago, from another scope.
#[test]
fn a_login_beside_a_superseded_token_of_its_session_ends_that_as_any_login_does() {
    type Deed = fn(&Session, Position) -> Result<(), Error>;
    async fn send(site: &Site, [one, two]: [&Cookies; 2], deed: Deed) -> Response<()> {
        let position = site.store.revocation_position().await.unwrap();
        let both =
            Request::builder().header(COOKIE, one.header().unwrap()).header(COOKIE, two.header().unwrap());
        let service = session_fn(site.store.clone(), |_: Request<()>, handle: SessionHandle| async move {
            deed(&handle.load().await?, position)?;
            Ok::<_, Error>(Response::new(()))
        });
        service.call(both.body(()).unwrap()).await.unwrap_or_else(|error| {
            assert!(error.is_too_large(), "{error}");
            Response::builder().status(500).body(()).unwrap()
        })
    }
    async fn twice_over(site: &Site) -> [Cookies; 2] {
        let mut browser = site.logged_in("ada").await;
        let superseded = browser.clone();
        site.clock.advance(Duration::from_secs(1));
        site.regenerate(&mut browser).await;
        [superseded, browser]
    }
    block_on(async {
        for turned in [false, true] {
            let order = |[one, two]: &[Cookies; 2]| {
                let both = [one.clone(), two.clone()];
                if turned { both.into_iter().rev().collect::<Vec<_>>() } else { both.to_vec() }
            };
            // Late requests with either token say so, and do not cover the cookie of bob.
            let site = Site::in_memory();
            let both = twice_over(&site).await;
            let sent = order(&both);
            let response = send(&site, [&sent[0], &sent[1]], |session, _| session.login("bob")).await;
            let mut browser = Cookies::new();
            browser.receive(response.headers());
            assert_eq!(site.user(&browser).await.as_deref(), Some("bob"));
            for late in &both {
                assert_eq!(site.refusal(late).await, Some(Refusal::Regenerated));
                let response = site.answer(late, |session| async move { session.set("lost", 1) }).await;
                assert!(!response.headers().contains_key("set-cookie"));
            }

            // A login that cannot be sealed ends nothing.
            let site = Site::in_memory();
            let both = twice_over(&site).await;
            let sent = order(&both);
            let too_large: Deed = |session, _| {
                session.login("bob")?;
                session.set("large", "x".repeat(100_000))
            };
            let response = send(&site, [&sent[0], &sent[1]], too_large).await;
            assert!(!response.headers().contains_key("set-cookie"));
            assert!(site.accepts(&both[1]).await);

            // Beyond the limit of its subject, a login from before that does not end with it.
            let site = Site::with(Revocations::in_memory().max_per_subject(1));
            let both = twice_over(&site).await;
            let sent = order(&both);
            let again: Deed = |session, position| {
                session.destroy()?;
                session.login_at("ada", position)
            };
            let response = send(&site, [&sent[0], &sent[1]], again).await;
            let mut browser = Cookies::new();
            browser.receive(response.headers());
            assert_eq!(site.user(&browser).await.as_deref(), Some("ada"));
        }
    });
}

/// `clear` keeps the labels for the session, and for its user. They are not those of another user who logs in to it then.
#[test]
fn a_label_of_a_user_is_not_that_of_another_who_logs_in_after_a_clear() {
    type Deed = fn(Session) -> Pin<Box<dyn Future<Output = Result<(), Error>>>>;
    let deeds: [(&str, Deed); 4] = [
        ("cleared", |session| Box::pin(async move { session.clear() })),
        ("cleared and saved", |session| {
            Box::pin(async move {
                session.clear()?;
                session.set("later", 1)?;
                session.save().await
            })
        }),
        ("regenerated and saved", |session| {
            Box::pin(async move {
                session.clear()?;
                session.set("later", 1)?;
                session.regenerate()?;
                session.save().await
            })
        }),
        ("eve meanwhile", |session| {
            Box::pin(async move {
                session.clear()?;
                session.login("eve")?;
                session.clear()
            })
        }),
    ];
    block_on(async {
        for in_one_request in [true, false] {
            for (when, deed) in deeds {
                // The login of eve has dropped them, also for later logins of ada.
                for (user, goes_on) in [("bob", false), ("ada", when != "eve meanwhile")] {
                    let site = Site::in_memory();
                    let mut browser = site.logged_in("ada").await;
                    site.visit(&mut browser, |session| async move { session.label("device", "phone") }).await;
                    site.visit(&mut browser, |session| async move {
                        deed(session.clone()).await?;
                        session.set("later", 1)?;
                        if in_one_request {
                            session.label("oidc", "sid")?;
                            session.login(user)?;
                        }
                        Ok(())
                    })
                    .await;
                    if !in_one_request {
                        site.visit(&mut browser, |session| async move {
                            session.label("oidc", "sid")?;
                            session.login(user)
                        })
                        .await;
                    }
                    assert_eq!(site.user(&browser).await.as_deref(), Some(user), "{when}");
                    let response = site.answer(&browser, |session| async move {
                        if session.has("later") { Ok(()) } else { Err(Error::unavailable("lost")) }
                    });
                    assert_eq!(response.await.status(), 200, "{when}: values that were set after it stay");
                    site.store.end_labelled_for_good("device", "phone").await.unwrap();
                    assert_eq!(site.accepts(&browser).await, !goes_on, "{when}, {user}, {in_one_request}");
                    site.store.end_labelled_for_good("oidc", "sid").await.unwrap();
                    assert!(!site.accepts(&browser).await, "{when}, {user}, {in_one_request}");
                }
            }
        }
    });
}

/// After a `clear`, a label that the session did not have before is the visitor's. It goes on with the login, and does not end with the
/// sessions of the user before.
#[test]
fn a_label_that_a_visitor_gets_after_a_clear_is_not_that_of_the_user_before() {
    block_on(async {
        for replaces in [false, true] {
            let site = Site::in_memory();
            let mut browser = site.logged_in("ada").await;
            site.visit(&mut browser, |session| async move {
                if replaces { session.label("oidc", "old") } else { Ok(()) }
            })
            .await;
            site.visit(&mut browser, |session| async move {
                session.clear()?;
                session.label("oidc", "sid")?;
                session.set("later", 1)
            })
            .await;
            site.store.end_sessions_of("ada").await.unwrap();
            assert!(site.accepts(&browser).await, "replaces: {replaces}");
            site.login(&mut browser, "bob").await;
            assert_eq!(site.user(&browser).await.as_deref(), Some("bob"));
            site.store.end_labelled_for_good("oidc", "sid").await.unwrap();
            assert!(!site.accepts(&browser).await, "replaces: {replaces}");
        }
    });
}

/// A label is not a value: `clear` deletes neither those of the session nor those of the request.
#[test]
fn labels_before_and_after_a_clear_all_count() {
    block_on(async {
        for (namespace, value) in [("oidc", "old"), ("device", "new"), ("place", "new")] {
            let site = Site::in_memory();
            let mut browser = site.logged_in("ada").await;
            site.visit(&mut browser, |session| async move { session.label("oidc", "old") }).await;
            site.visit(&mut browser, |session| async move {
                session.label("device", "new")?;
                session.clear()?;
                session.clear()?;
                session.label("place", "new")?;
                session.set("other", 1)
            })
            .await;
            assert!(site.accepts(&browser).await);
            site.store.end_labelled(namespace, value).await.unwrap();
            assert!(!site.accepts(&browser).await, "{namespace}");
        }
    });
}

#[test]
fn ending_all_sessions_and_logging_in_within_one_request() {
    block_on(async {
        let site = Site::in_memory();
        let other_device = site.logged_in("ada").await;
        let mut browser = site.logged_in("ada").await;
        site.set(&mut browser, "cart").await;
        let copy = browser.clone();
        for _ in 0..100 {
            let store = site.store.clone();
            let response = site
                .visit(&mut browser, |session| {
                    let store = store.clone();
                    async move {
                        store.end_sessions_of("ada").await?;
                        session.login("ada")
                    }
                })
                .await;
            assert_eq!(response.status(), 200);
            assert!(site.accepts(&browser).await, "it was begun afterwards");
        }
        assert!(!site.accepts(&copy).await && !site.accepts(&other_device).await);
    });
}

#[test]
fn a_password_that_was_checked_before_the_end_leads_nowhere_after_it() {
    block_on(async {
        let site = Site::in_memory();
        let position = site.store.revocation_position().await.unwrap();
        // The password is being checked; meanwhile it is changed, and all sessions are ended.
        site.store.end_sessions_of("ada").await.unwrap();
        let mut thief = Cookies::new();
        site.visit(&mut thief, |session| async move { session.login_at("ada", position) }).await;
        assert!(!site.accepts(&thief).await);
        // Without it, the login is after the end.
        assert!(site.accepts(&site.logged_in("ada").await).await);
    });
}

#[test]
fn a_regenerated_session_does_not_outrun_the_end_of_its_subject() {
    block_on(async {
        let site = Site::in_memory();
        let browser = site.logged_in("ada").await;
        let store = site.store.clone();
        let mut other = browser.clone();
        site.visit(&mut other, |session| {
            let store = store.clone();
            async move {
                store.end_sessions_of("ada").await?;
                session.regenerate()
            }
        })
        .await;
        assert!(!site.accepts(&other).await);
        assert!(!site.accepts(&browser).await);
    });
}

#[test]
fn ending_the_others_keeps_this_session_and_none_of_its_copies() {
    block_on(async {
        let site = Site::in_memory();
        let (mut mine, other) = (site.logged_in("ada").await, site.logged_in("ada").await);
        let bob = site.logged_in("bob").await;
        let copy = mine.clone();
        for _ in 0..100 {
            let response = site.end_others(&mut mine).await;
            assert_eq!(response.status(), 200);
            assert_eq!(site.user(&mine).await.as_deref(), Some("ada"));
        }
        assert_eq!(site.refusal(&other).await, Some(Refusal::Revoked));
        assert_eq!(
            site.refusal(&copy).await,
            Some(Refusal::Regenerated),
            "its token was replaced moments ago"
        );
        site.clock.advance(Duration::from_secs(61));
        assert_eq!(site.refusal(&copy).await, Some(Refusal::Revoked));
        assert!(site.accepts(&bob).await);
        // It is the same session as before: its logout ends it.
        let copy = mine.clone();
        site.logout(&mut mine).await;
        assert!(!site.accepts(&copy).await);
    });
}

// The request could continue behind an end that came after it was loaded.
#[test]
fn a_session_that_ends_the_others_does_not_outrun_its_own_end() {
    type End = fn(CookieStore, SessionId) -> Pin<Box<dyn Future<Output = Result<(), Error>>>>;
    let ends: [(&str, End); 4] = [
        ("subject", |store, _| Box::pin(async move { store.end_sessions_of("ada").await })),
        ("label", |store, _| Box::pin(async move { store.end_labelled("device", "phone").await })),
        ("id", |store, id| Box::pin(async move { store.end_session(id).await })),
        ("everything", |store, _| Box::pin(async move { store.end_all().await })),
    ];
    block_on(async {
        for (what, end) in ends {
            let site = Site::in_memory();
            let mut browser = Cookies::new();
            site.visit(&mut browser, |session| async move {
                session.login("ada")?;
                session.label("device", "phone")
            })
            .await;
            let store = &site.store;
            let response = site
                .visit(&mut browser, |session| async move {
                    // Meanwhile another request ends the session.
                    end(store.clone(), session.id().unwrap()).await?;
                    let error = session.end_other_sessions().await.unwrap_err();
                    assert!(error.is_ended(), "{what}: {error}");
                    Ok(())
                })
                .await;
            assert_eq!(response.status(), 200);
            assert!(!site.accepts(&browser).await, "{what}");
        }
    });
}

#[test]
fn of_two_devices_that_end_each_other_at_most_one_is_left() {
    block_on(async {
        let site = Site::in_memory();
        let (mut one, two) = (site.logged_in("ada").await, site.logged_in("ada").await);
        let other = Mutex::new(two);
        site.visit(&mut one, |session| async {
            let (session, mut two) = (session, other.lock().unwrap().clone());
            assert_eq!(site.end_others(&mut two).await.status(), 200);
            *other.lock().unwrap() = two;
            assert!(session.end_other_sessions().await.unwrap_err().is_ended());
            Ok(())
        })
        .await;
        let two = other.into_inner().unwrap();
        assert!(!site.accepts(&one).await && site.accepts(&two).await);
    });
}

#[test]
fn a_password_that_was_checked_before_the_end_ends_no_others() {
    block_on(async {
        let site = Site::in_memory();
        let position = site.store.revocation_position().await.unwrap();
        site.store.end_sessions_of("ada").await.unwrap();
        let owner = site.logged_in("ada").await;
        let mut thief = Cookies::new();
        site.visit(&mut thief, |session| async move {
            session.login_at("ada", position)?;
            assert!(session.end_other_sessions().await.unwrap_err().is_ended());
            Ok(())
        })
        .await;
        assert!(thief.header().is_none());
        assert!(site.accepts(&owner).await);
        // At a position after the end, the login stays.
        let position = site.store.revocation_position().await.unwrap();
        site.visit(&mut thief, |session| async move {
            session.login_at("ada", position)?;
            session.end_other_sessions().await.map(drop)
        })
        .await;
        assert!(site.accepts(&thief).await);
    });
}

#[test]
fn sessions_from_before_the_option_are_ended_like_others() {
    block_on(async {
        let clock = FakeClock::at(START);
        let before = Site::built(clock.clone(), |builder| builder);
        let (mut one, mut two) = (before.logged_in("ada").await, before.logged_in("ada").await);
        let (copy, three) = (one.clone(), before.logged_in("ada").await);
        let site = Site::built(clock.clone(), |builder| builder.revocations(Revocations::in_memory()));
        assert!(site.accepts(&one).await);
        site.logout(&mut one).await;
        assert!(!site.accepts(&copy).await);

        // Renewed under the option, and then ended: so is the copy that has no root.
        let copy = two.clone();
        site.set(&mut two, "a").await;
        site.regenerate(&mut two).await;
        site.logout(&mut two).await;
        assert!(!site.accepts(&copy).await);

        assert!(site.accepts(&three).await);
        site.store.end_sessions_of("ada").await.unwrap();
        assert!(!site.accepts(&three).await);

        let strict = Revocations::in_memory().refuse_unknown(true);
        let strict = Site::built(clock, |builder| builder.revocations(strict));
        assert!(!strict.accepts(&before.logged_in("ada").await).await);
        assert!(strict.accepts(&strict.logged_in("ada").await).await);
    });
}

#[test]
fn a_connection_does_not_vouch_for_what_it_opened_before() {
    use hyper::service::Service;
    use hyper_session::{Error, SessionHandle, session_fn};
    block_on(async {
        let site = Site::in_memory();
        let browser = site.logged_in("ada").await;
        let service =
            session_fn(site.store.clone(), |_: http::Request<()>, session: SessionHandle| async move {
                let user = session.load().await?.subject().map(|subject| subject.to_string());
                Ok::<_, Error>(http::Response::new(user))
            });
        let ask = || {
            let request = http::Request::builder().header("cookie", browser.header().unwrap());
            service.call(request.body(()).unwrap())
        };
        for _ in 0..3 {
            assert_eq!(ask().await.unwrap().body().as_deref(), Some("ada"));
        }
        site.store.end_sessions_of("ada").await.unwrap();
        assert_eq!(ask().await.unwrap().body().as_deref(), None);
    });
}

#[test]
fn what_is_left_without_values_is_ended_too() {
    block_on(async {
        let site = Site::in_memory();
        for deed in ["clear", "delete"] {
            let mut browser = site.logged_in("ada").await;
            let copy = browser.clone();
            site.visit(&mut browser, |session| async move {
                if deed == "clear" {
                    session.clear()
                } else {
                    session.clear()?;
                    session.set("a", 1)
                }
            })
            .await;
            if deed == "delete" {
                assert_eq!(site.refusal(&copy).await, Some(Refusal::Revoked), "a visitor's session began");
                site.visit(&mut browser, |session| async move { session.delete("a").map(drop) }).await;
            }
            assert!(browser.header().is_none());
            assert_eq!(site.refusal(&copy).await, Some(Refusal::Revoked), "{deed}");
        }
    });
}

/// A logout that is written as `clear` with a notice for the next page. The subject may have caused too many revocations.
#[test]
fn a_copied_cookie_is_refused_after_a_clear_that_leaves_a_value_behind() {
    for (max_per_subject, labelled) in [(1_000, false), (1_000, true), (1, false), (1, true)] {
        block_on(async {
            let site = Site::with(Revocations::in_memory().max_per_subject(max_per_subject));
            let mut browser = site.logged_in("ada").await;
            if labelled {
                site.visit(&mut browser, |session| async move { session.label("device", "phone") }).await;
            }
            let mut copies = vec![browser.clone()];
            // A renewal of another tab.
            site.set(&mut browser, "a").await;
            copies.push(browser.clone());
            if max_per_subject == 1 {
                // The second one is joined with the first one.
                let mut other = site.logged_in("ada").await;
                site.logout(&mut other).await;
            }
            site.visit(&mut browser, |session| async move {
                session.clear()?;
                session.set_flash("notice", "good bye")
            })
            .await;
            for copy in &copies {
                assert_eq!(site.refusal(copy).await, Some(Refusal::Revoked));
            }
            let response = site.answer(&browser, |session| async move {
                assert_eq!(session.subject(), None);
                let notice = session.peek::<String>("notice")?;
                if notice.as_deref() == Some("good bye") { Ok(()) } else { Err(Error::unavailable("lost")) }
            });
            assert_eq!(response.await.status(), 200, "{max_per_subject}, {labelled}");
        });
    }
}

#[test]
fn a_session_that_does_not_fit_stays_logged_in() {
    block_on(async {
        let site = Site::in_memory();
        let mut browser = site.logged_in("ada").await;
        let response = site
            .visit(&mut browser, |session| async move {
                session.set("big", "x".repeat(20_000))?;
                session.regenerate()
            })
            .await;
        assert_eq!(response.status(), 500);
        assert!(site.accepts(&browser).await, "nothing was sealed, so nothing was revoked");
    });
}

#[test]
fn it_cannot_be_combined_with_astra_and_needs_room() {
    let builder = || CookieStore::builder(AppKey::danger_from_any_bytes(b"a key for tests").unwrap());
    for revocations in
        [Revocations::in_memory().max_revocations(0), Revocations::in_memory().max_per_subject(0)]
    {
        assert!(builder().revocations(revocations).build().unwrap_err().is_config());
    }
    #[cfg(feature = "astra")]
    {
        let astra = AppKey::danger_from_any_bytes(b"another key for tests").unwrap();
        let both = builder().revocations(Revocations::in_memory()).beside_astra(astra).build();
        assert!(both.unwrap_err().is_config());
    }
}

/// One request logs in, labels, regenerates and ends the others, and saves after each of them. The next request authenticates
/// again.
#[test]
fn each_token_of_requests_that_save_often_ends_with_the_label() {
    block_on(async {
        let site = Site::in_memory();
        let mut browser = site.logged_in("ada").await;
        let mut copies = vec![browser.clone()];
        site.visit(&mut browser, |session| async move {
            session.login("ada")?;
            session.save().await?;
            session.label("oidc", "x")?;
            session.save().await?;
            session.regenerate()?;
            session.save().await?;
            session.end_other_sessions().await?;
            session.set("a", 1)
        })
        .await;
        assert!(site.accepts(&browser).await);
        copies.push(browser.clone());
        site.visit(&mut browser, |session| async move {
            session.reauthenticate()?;
            session.save().await?;
            session.set("b", 2)
        })
        .await;
        assert!(site.accepts(&browser).await);
        copies.push(browser.clone());
        site.store.end_labelled("oidc", "x").await.unwrap();
        for copy in &copies {
            assert!(!site.accepts(copy).await);
        }
    });
}
