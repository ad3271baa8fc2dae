//! "Remember me", "until the browser closes", kiosks, and visitors: the lifetime of one session.

use hyper::service::Service;
use hyper_session::cookie::CookieOptions;
use hyper_session::testing::FakeClock;
use hyper_session::{
    AppKey, CookieStore, Error, Lifetime, Session, SessionHandle, Timeouts, Timestamp, session_fn,
};

use crate::stores::{
    Act, Kind, Options, Reading, START, TestStore, everywhere, everywhere_with, max_age, seconds,
};
use crate::support::{Jar, block_on, request, set_cookies, status};

const LONGEST: u64 = 3_000;

fn remember_me() -> Options {
    Options { longest: Some(seconds(LONGEST)), ..Options::default() }
}

#[test]
fn remember_me_outlasts_the_timeouts_and_is_kept_by_the_browser() {
    everywhere_with(remember_me(), |world| async move {
        let mut jar = Jar::new();
        let log_in = |session: &Session| {
            session.login("ada")?;
            session.set_lifetime(Lifetime::persistent(seconds(2_000)))
        };
        let (response, ()) = world.visit(&mut jar, Reading::Renews, log_in).await;
        assert_eq!(max_age(&response), Some(2_000));
        // No request comes for longer than both timeouts of the store.
        world.clock.set(START + 1_999);
        assert!(world.is_alive(&jar).await);
        assert_eq!(world.look(&jar, Session::remaining).await, Some(seconds(1)));
        world.clock.set(START + 2_000);
        assert!(!world.is_alive(&jar).await, "a lifetime is not moved by being used");
    });
}

#[test]
fn until_the_browser_closes_there_is_no_max_age_and_the_server_s_timeouts() {
    everywhere(|world| async move {
        let mut jar = Jar::new();
        let act = |session: &Session| {
            session.login("ada")?;
            session.set_lifetime(Lifetime::until_browser_closes())
        };
        let (response, ()) = world.visit(&mut jar, Reading::Renews, act).await;
        assert_eq!(max_age(&response), None);
        world.clock.set(START + 50);
        let (renewal, ()) = world.visit(&mut jar, Reading::Renews, |_| Ok(())).await;
        assert_eq!(max_age(&renewal), None, "a renewal says nothing else");
        assert_eq!(world.look(&jar, Session::remaining).await, Some(seconds(100)));
        world.clock.set(START + 150);
        assert!(!world.is_alive(&jar).await);
    });
}

#[test]
fn a_kiosk_is_logged_out_soon_and_is_renewed_in_proportion() {
    everywhere(|world| async move {
        let mut jar = Jar::new();
        let kiosk = Lifetime::until_browser_closes().idle_timeout(seconds(20)).absolute_timeout(seconds(60));
        world.edit(&mut jar, |session| session.login("ada").and_then(|()| session.set_lifetime(kiosk))).await;
        // The store's threshold is 10 of 100 seconds: 2 of 20.
        world.clock.set(START + 2);
        world.edit(&mut jar, |_| Ok(())).await;
        world.clock.set(START + 21);
        assert!(world.is_alive(&jar).await, "the read at 2 s has renewed it");
        for now in [21, 38, 55, 59] {
            world.clock.set(START + now);
            world.edit(&mut jar, |_| Ok(())).await;
        }
        world.clock.set(START + 60);
        assert!(!world.is_alive(&jar).await, "the absolute timeout");
    });
}

#[test]
fn a_lifetime_is_kept_through_renewals_regenerates_and_deployments() {
    everywhere_with(remember_me(), |mut world| async move {
        let lifetime = Lifetime::persistent(seconds(2_500)).idle_timeout(seconds(1_000));
        let mut jar = Jar::new();
        world
            .edit(&mut jar, |session| session.login("ada").and_then(|()| session.set_lifetime(lifetime)))
            .await;
        let steps: [Act; 4] = [
            |_| Ok(()),
            |session| session.set("a", 1),
            Session::regenerate,
            |session| session.delete("a").map(drop),
        ];
        for (step, act) in steps.into_iter().enumerate() {
            world.clock.set(START + 500 * (step as u64 + 1));
            world.deploy(Options { format: hyper_session::PayloadFormat::Json, ..remember_me() }).await;
            let (response, ()) = world.visit(&mut jar, Reading::Renews, act).await;
            let expires = (START + 500 * (step as u64 + 1) + 1_000).min(START + 2_500);
            assert_eq!(world.expires(&jar).await.unwrap().as_unix(), expires, "step {step}");
            assert_eq!(max_age(&response), Some(expires - world.now().as_unix()));
            assert_eq!(world.look(&jar, Session::lifetime).await, lifetime);
        }
    });
}

#[test]
fn no_lifetime_is_longer_than_the_store_allows_also_when_that_is_lowered() {
    everywhere(|world| async move {
        let mut jar = Jar::new();
        let greedy = |session: &Session| {
            session.login("ada")?;
            session.set_lifetime(Lifetime::persistent(seconds(u64::MAX)))
        };
        let (response, ()) = world.visit(&mut jar, Reading::Renews, greedy).await;
        assert_eq!(max_age(&response), Some(400), "without longest_lifetime, the absolute timeout");
    });
    everywhere_with(remember_me(), |mut world| async move {
        let mut jar = Jar::new();
        world
            .edit(&mut jar, |session| {
                session.login("ada")?;
                session.set_lifetime(Lifetime::persistent(seconds(9_999)))
            })
            .await;
        assert_eq!(world.expires(&jar).await.unwrap().as_unix(), START + LONGEST);
        world.deploy(Options { longest: Some(seconds(500)), ..Options::default() }).await;
        assert_eq!(world.expires(&jar).await.unwrap().as_unix(), START + 500);
        world.clock.set(START + 500);
        assert!(!world.is_alive(&jar).await);
    });
}

#[test]
fn a_lifetime_can_be_changed_and_taken_back() {
    everywhere_with(remember_me(), |world| async move {
        let mut jar = Jar::new();
        world.edit(&mut jar, |session| session.set("a", 1)).await;
        for (lifetime, expires) in [
            (Lifetime::persistent(seconds(1_000)), 1_000),
            (Lifetime::new().idle_timeout(seconds(5)), 5),
            (Lifetime::new().absolute_timeout(seconds(50)), 50),
            (Lifetime::new(), 100),
        ] {
            world.edit(&mut jar, |session| session.set_lifetime(lifetime)).await;
            assert_eq!(world.expires(&jar).await.unwrap().as_unix(), START + expires, "{lifetime:?}");
        }
    });
}

#[test]
fn nothing_but_a_lifetime_is_not_stored_and_nothing_else_ends_the_session() {
    everywhere(|world| async move {
        let mut jar = Jar::new();
        world.edit(&mut jar, |session| session.set_lifetime(Lifetime::until_browser_closes())).await;
        assert!(jar.0.is_empty());
        world.edit(&mut jar, |session| session.set("a", 1)).await;
        world.edit(&mut jar, |session| session.set_lifetime(Lifetime::until_browser_closes())).await;
        let token = jar.clone();
        world.edit(&mut jar, |session| session.delete("a")).await;
        assert!(jar.0.is_empty());
        if world.kind.lists() {
            assert!(!world.is_alive(&token).await);
        }
    });
}

// The client has no cookie of it, so there is none to remove.
#[test]
fn a_new_session_whose_lifetime_has_passed_sets_and_removes_no_cookie() {
    block_on(async {
        // At the end of time every deadline has passed.
        let clock = FakeClock::at(u64::MAX);
        let store = CookieStore::builder(AppKey::generate().unwrap()).clock(clock).build().unwrap();
        let service = session_fn(store, |_: http::Request<_>, session: SessionHandle| async move {
            session.load().await?.set("a", 1)?;
            Ok::<_, Error>(status(200))
        });
        let response = service.call(request("/", None)).await.unwrap();
        assert_eq!((response.status().as_u16(), set_cookies(response.headers()).len()), (200, 0));
    });
}

#[test]
fn another_subject_gets_the_store_s_lifetime() {
    everywhere_with(remember_me(), |world| async move {
        let mut jar = Jar::new();
        world
            .edit(&mut jar, |session| {
                session.login("ada")?;
                session.set_lifetime(Lifetime::persistent(seconds(2_000)))
            })
            .await;
        world.edit(&mut jar, |session| session.login("bob")).await;
        assert_eq!(world.look(&jar, Session::lifetime).await, Lifetime::new());
        assert_eq!(world.look(&jar, Session::remaining).await, Some(seconds(100)));
    });
}

#[test]
fn visitors_have_timeouts_of_their_own_until_they_log_in() {
    let anonymous = Timeouts { idle: seconds(30), absolute: seconds(60), renewal: seconds(3) };
    everywhere_with(Options { anonymous: Some(anonymous), ..Options::default() }, |world| async move {
        let mut jar = Jar::new();
        world.edit(&mut jar, |session| session.set("cart", 1)).await;
        assert_eq!(world.look(&jar, Session::remaining).await, Some(seconds(30)));
        world.clock.set(START + 29);
        world.edit(&mut jar, |_| Ok(())).await;
        assert_eq!(world.look(&jar, Session::remaining).await, Some(seconds(30)));
        world.clock.set(START + 58);
        let visitor = jar.clone();
        world.edit(&mut jar, |session| session.login("ada")).await;
        assert_eq!(world.look(&jar, Session::remaining).await, Some(seconds(100)), "counted from the login");
        world.clock.set(START + 60);
        assert!(world.is_alive(&jar).await && !world.is_alive(&visitor).await);
        world
            .edit(&mut jar, |session| session.set_lifetime(Lifetime::new().idle_timeout(seconds(300))))
            .await;
        assert_eq!(world.look(&jar, Session::remaining).await, Some(seconds(300)));
    });
}

/// A value that is set after `clear` is in a visitor's session. By the timeouts of visitors the session from before would be too old.
#[test]
fn values_that_are_set_after_a_clear_begin_a_visitor_s_session() {
    let options = Options {
        anonymous: Some(Timeouts { idle: seconds(30), absolute: seconds(60), renewal: seconds(3) }),
        ..remember_me()
    };
    let befores: [(Act, u64); 3] = [
        (|session| session.login("ada"), 70),
        (
            |session| {
                session.login("ada").and_then(|()| session.set_lifetime(Lifetime::persistent(seconds(2_000))))
            },
            1_500,
        ),
        (
            |session| {
                session
                    .set("cart", 1)
                    .and_then(|()| session.set_lifetime(Lifetime::persistent(seconds(2_000))))
            },
            1_500,
        ),
    ];
    let clears: [Act; 4] = [
        |session| session.clear().and_then(|()| session.set("b", 2)),
        |session| session.clear().and_then(|()| session.set("b", 2)).and_then(|()| session.regenerate()),
        |session| session.regenerate().and_then(|()| session.clear()).and_then(|()| session.set("b", 2)),
        |session| {
            session.clear()?;
            session.set("a", 1)?;
            session.clear()?;
            session.set("b", 2)
        },
    ];
    for (before, after) in befores {
        for clear in clears {
            everywhere_with(options, |world| async move {
                let mut jar = Jar::new();
                world.edit(&mut jar, before).await;
                let (copy, id) = (jar.clone(), world.look(&jar, Session::id).await);
                world.clock.set(START + after);
                world.edit(&mut jar, clear).await;
                let now = world.now();
                let seen =
                    world.look(&jar, |session| (session.keys(), session.created_at(), session.remaining()));
                assert_eq!(seen.await, (vec!["b".to_owned()], Some(now), Some(seconds(30))));
                assert_eq!(world.look(&jar, Session::lifetime).await, Lifetime::new());
                assert_ne!(world.look(&jar, Session::id).await, id);
                let had_subject = world.look(&copy, |session| session.subject().is_some()).await;
                assert!(!had_subject || world.kind == Kind::Cookie, "a copy of the token");
                assert!(!world.kind.lists() || !world.is_alive(&copy).await);
            });
        }
    }
}

/// The session of a visitor goes on.
#[test]
fn a_clear_of_a_visitor_s_session_begins_no_other() {
    everywhere(|world| async move {
        let mut jar = Jar::new();
        world.edit(&mut jar, |session| session.set("a", 1)).await;
        let id = world.look(&jar, Session::id).await;
        world.clock.set(START + 70);
        world.edit(&mut jar, |session| session.clear().and_then(|()| session.set("b", 2))).await;
        assert_eq!(world.look(&jar, Session::id).await, id);
        let created = world.look(&jar, Session::created_at).await;
        assert_eq!(created, Some(Timestamp::from_unix(START)));
    });
}

/// A session that is given a longer life after its login stays on its subject's list.
#[test]
fn a_longer_life_is_still_listed() {
    block_on(async {
        let world = TestStore::new(Kind::Server, remember_me()).await;
        let mut jar = Jar::new();
        world.edit(&mut jar, |session| session.login("ada")).await;
        world.edit(&mut jar, |session| session.set_lifetime(Lifetime::persistent(seconds(2_500)))).await;
        world.clock.set(START + 2_400);
        let listed = world.store.sessions_of("ada").await.unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].expires.as_unix(), START + 2_500);
        assert_eq!(world.store.end_sessions_of("ada", None).await.unwrap(), Some(1));
        assert!(!world.is_alive(&jar).await);
    });
}

#[test]
fn options_that_do_not_fit_together_are_refused() {
    let builder = || CookieStore::builder(AppKey::generate().unwrap());
    let error = builder().longest_lifetime(seconds(3_600)).build().unwrap_err();
    assert!(error.is_config() && error.to_string().contains("longest_lifetime"), "{error}");
    let never = Timeouts { idle: seconds(10), absolute: seconds(5), renewal: seconds(1) };
    assert!(builder().anonymous_timeouts(never).build().unwrap_err().is_config());
    let long = Timeouts { idle: seconds(10), absolute: seconds(9_000_000), renewal: seconds(1) };
    assert!(builder().anonymous_timeouts(long).build().is_ok());
    assert!(
        builder()
            .anonymous_timeouts(long)
            .longest_lifetime(seconds(8_000_000))
            .build()
            .unwrap_err()
            .is_config()
    );
}

#[test]
fn a_cookie_that_the_options_keep_until_the_browser_closes_can_be_kept() {
    block_on(async {
        let clock = hyper_session::testing::FakeClock::at(START);
        let store = CookieStore::builder(AppKey::generate().unwrap())
            .cookie(CookieOptions::new().max_age(None))
            .longest_lifetime(seconds(9_000_000))
            .clock(clock)
            .build()
            .unwrap();
        let service = hyper_session::session_fn(
            store,
            |request: http::Request<_>, session: hyper_session::SessionHandle| async move {
                let session = session.load().await?;
                session.login("ada")?;
                if request.uri().path() == "/remember" {
                    session.set_lifetime(Lifetime::persistent(seconds(9_000_000)))?;
                }
                Ok::<_, hyper_session::Error>(crate::support::status(200))
            },
        );
        let response = crate::support::visit(&service, "/", &mut Jar::new()).await;
        assert_eq!(max_age(&response), None);
        let response = crate::support::visit(&service, "/remember", &mut Jar::new()).await;
        assert_eq!(max_age(&response), Some(9_000_000));
    });
}
