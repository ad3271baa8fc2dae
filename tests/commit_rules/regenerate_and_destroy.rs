//! Sessions that are regenerated or destroyed, and cookies that lead to no session.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::Response;
use hyper_session::cookie::{CookieOptions, SameSite};
use hyper_session::{Clock, Refusal, Session};

use crate::spy_store::{
    ABSOLUTE, Act, IDLE, Kind, START, Setup, Verb, World, assert_no_cookie, assert_removed, assert_set,
    everywhere, everywhere_with, on_server, pairs,
};
use crate::support::{Jar, refused, set_cookies, status};

const SECOND: Duration = Duration::from_secs(1);

// Regenerate and destroy.

/// "`regenerate` | new token, same data, same absolute deadline; the old token is refused from then on"
#[test]
fn regenerate_keeps_data_and_deadline_under_a_new_token() {
    everywhere(|world| async move {
        let mut jar = world.jar().await;
        let old = jar.clone();
        let (old_id, created, _) = world.facts(&jar).await;
        world.calls();
        world.clock.advance(10 * SECOND);
        let response =
            world.edit(&mut jar, |session| session.regenerate().and_then(|()| session.set("b", 2_u64)));
        assert_set(&world, &response.await);
        if world.server.is_some() {
            assert_eq!(
                world.calls(),
                [Verb::Fetch, Verb::Create, Verb::Replace],
                "written before the old is removed"
            );
        }
        let (id, still_created, _) = world.facts(&jar).await;
        assert_ne!(id, old_id);
        assert_ne!(jar.get(world.name()), old.get(world.name()));
        assert_eq!(still_created, created);
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1), ("b", 2)]));

        // However busy and however often regenerated: over at the absolute deadline.
        for _ in 0..ABSOLUTE.as_secs() / 500 - 1 {
            world.clock.advance(500 * SECOND);
            world.edit(&mut jar, Session::regenerate).await;
        }
        world.clock.set(START + ABSOLUTE.as_secs() - 1);
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1), ("b", 2)]));
        world.clock.advance(SECOND);
        assert!(world.look(&jar, Session::is_empty).await);
    });
}

/// "the old token is refused from then on"
#[test]
fn a_server_side_store_refuses_the_token_from_before_regenerate() {
    on_server(|world| async move {
        let mut jar = world.jar().await;
        let old = jar.clone();
        world.edit(&mut jar, Session::regenerate).await;
        assert_eq!(world.rows().await, 1);
        assert!(world.look(&old, Session::is_empty).await);
        assert_eq!(world.events.take(), [refused(Refusal::Regenerated)]);
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]));
    });
}

/// Requests that a login overtook still carry the old token. Their answers must not take away the cookie that the login
/// gave. A minute later none of them are left, and a client that comes with the old token has no other.
#[test]
fn r3_t40_the_cookie_of_an_overtaken_request_is_not_removed_for_a_minute() {
    let starts_over = |session: &Session| session.destroy().and_then(|()| session.set("a", 1_u64));
    let acts: [Act; 3] = [Session::regenerate, |session| session.login("ada"), starts_over];
    on_server(|world| async move {
        for act in acts {
            let mut jar = world.jar().await;
            let old = jar.clone();
            world.edit(&mut jar, act).await;
            for (seconds, refusal) in
                [(0, Refusal::Regenerated), (59, Refusal::Regenerated), (1, Refusal::UnknownId)]
            {
                world.clock.advance(seconds * SECOND);
                world.events.take();
                let mut overtaken = old.clone();
                let sees_nothing = |session: &Session| {
                    assert!(session.is_empty() && session.id().is_none());
                    Ok(())
                };
                let response = world.edit(&mut overtaken, sees_nothing).await;
                assert_eq!(world.events.take(), [refused(refusal)], "after {seconds} more seconds");
                match refusal {
                    Refusal::Regenerated => assert_no_cookie(&response),
                    _ => assert_removed(&world, &response),
                }
            }
            assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]));
        }
    });
}

/// A value that an overtaken request sets is dropped with an event, and an error from `save`: its cookie would replace that
/// of the login. A login of its own begins a session of its own.
#[test]
fn r3_an_overtaken_request_does_not_displace_the_login() {
    on_server(|world| async move {
        let mut jar = world.jar().await;
        let old = jar.clone();
        world.edit(&mut jar, |session| session.login("ada")).await;
        world.events.take();

        let response = world.edit(&mut old.clone(), |session| session.set("seen", 1_u64)).await;
        assert_no_cookie(&response);
        assert_eq!(world.events.take(), [refused(Refusal::Regenerated), "dropped:session_ended".to_owned()]);
        assert_eq!(world.rows().await, 1);
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]));

        let logins: [Act; 2] = [
            |session| session.set("b", 2_u64).and_then(|()| session.login("bob")),
            |session| session.regenerate().and_then(|()| session.set("b", 2_u64)),
        ];
        for login in logins {
            let mut own = old.clone();
            world.edit(&mut own, login).await;
            assert_eq!(world.values(&own).await, pairs(&[("b", 2)]));
            assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]));
        }
    });
}

#[test]
fn r3_an_overtaken_save_says_that_it_is_none() {
    on_server(|world| async move {
        let mut jar = world.jar().await;
        let old = jar.clone();
        world.edit(&mut jar, Session::regenerate).await;
        let saves = |session: &Session| {
            session.set("seen", 1_u64)?;
            // The store need not be asked: nothing is waited for.
            let saved = pin!(session.save()).poll(&mut Context::from_waker(Waker::noop()));
            let Poll::Ready(Err(error)) = saved else { panic!("{saved:?}") };
            assert!(error.is_ended(), "{error}");
            assert!(!session.has("seen"));
            Ok(())
        };
        assert_no_cookie(&world.edit(&mut old.clone(), saves).await);
        assert_eq!(world.rows().await, 1);
    });
}

/// A user who logs out is logged out in this browser, whatever a request before it did.
#[test]
fn r3_t25_an_overtaken_logout_removes_the_cookie() {
    on_server(|world| async move {
        let mut jar = world.jar().await;
        let mut old = jar.clone();
        world.edit(&mut jar, Session::regenerate).await;
        let response = world.edit(&mut old, Session::destroy).await;
        assert_removed(&world, &response);
        assert_eq!(old.0, Jar::new().0);
    });
}

/// The reply with the new token was lost, or was slower than the logout: the session ends under the new token, too. A session
/// of another user, or one that a request began instead, does not.
#[test]
fn r1_a_logout_with_a_superseded_token_ends_the_session() {
    let starts_over = |session: &Session| session.destroy().and_then(|()| session.set("b", 2_u64));
    let acts: [(Act, Act, bool); 5] = [
        (|session| session.set("a", 1_u64), Session::regenerate, true),
        (|session| session.login("ada"), Session::regenerate, true),
        (|session| session.login("ada"), |session| session.login("ada"), true),
        (|session| session.set("a", 1_u64), |session| session.login("ada"), false),
        (|session| session.login("ada"), starts_over, false),
    ];
    let logouts: [Act; 2] =
        [Session::destroy, |session| session.destroy().and_then(|()| session.set("c", 3_u64))];
    on_server(|world| async move {
        // A tombstone expires after a minute, and is kept for a quarter of an hour more.
        for (later, (begins, act, ends)) in
            [0, 120].map(Duration::from_secs).into_iter().flat_map(|later| acts.map(|act| (later, act)))
        {
            for (logout, rows_after) in logouts.into_iter().zip([0, 1]) {
                let mut jar = Jar::new();
                world.edit(&mut jar, begins).await;
                let mut old = jar.clone();
                world.edit(&mut jar, act).await;
                let before = world.rows().await;
                world.clock.advance(later);
                world.edit(&mut old, logout).await;
                let ended = world.look(&jar, Session::is_empty).await;
                assert_eq!(ended, ends);
                assert_eq!(world.rows().await, before - usize::from(ends) + rows_after);
                world.edit(&mut jar, Session::destroy).await;
                world.edit(&mut old, Session::destroy).await;
                assert_eq!(world.rows().await, 0);
            }
        }
    });
}

/// Both logins come with the same token. The reply to the first one may arrive last.
#[test]
fn r3_an_overtaken_login_of_the_same_user_does_not_end_the_first_one() {
    on_server(|world| async move {
        let mut jar = Jar::new();
        world.edit(&mut jar, |session| session.login("ada")).await;
        let mut second = jar.clone();
        world.edit(&mut jar, |session| session.login("ada")).await;
        world.edit(&mut second, |session| session.login("ada")).await;
        for jar in [&jar, &second] {
            assert!(!world.look(jar, Session::is_empty).await);
        }
    });
}

/// The minute begins when the new token is given, however long the request took.
#[test]
fn r3_a_slow_login_leaves_its_minute_too() {
    on_server(|world| async move {
        let mut jar = world.jar().await;
        let old = jar.clone();
        let clock = world.clock.clone();
        let slow = move |session: &Session| {
            clock.advance(120 * SECOND);
            session.regenerate()
        };
        world.edit(&mut jar, slow).await;
        world.clock.advance(59 * SECOND);
        world.events.take();
        assert_no_cookie(&world.edit(&mut old.clone(), |_| Ok(())).await);
        assert_eq!(world.events.take(), [refused(Refusal::Regenerated)]);
    });
}

/// The attributes of a `Set-Cookie` line but for the value and the age.
fn attributes(line: &str) -> Vec<String> {
    let aged = |part: &&str| !part.starts_with("Max-Age=") && !part.starts_with("Expires=");
    line.split("; ").skip(1).filter(aged).map(str::to_owned).collect()
}

/// "`destroy` | store entry deleted, cookie cleared with the same Path, Domain, Secure, SameSite, Partitioned it was set
/// with"
#[test]
fn destroy_clears_the_cookie_with_the_attributes_it_was_set_with() {
    let odd = CookieOptions::new()
        .name("__Secure-s")
        .path("/app")
        .domain("example.com")
        .same_site(SameSite::None)
        .partitioned(true)
        .http_only(false);
    let strict = CookieOptions::new().same_site(SameSite::Strict).max_age(None);
    let expected_odd = ["Path=/app", "Domain=example.com", "Secure", "SameSite=None", "Partitioned"];
    let expected_strict = ["Path=/", "Secure", "HttpOnly", "SameSite=Strict"];
    let cases: [(CookieOptions, &[&str]); 2] = [(odd, &expected_odd), (strict, &expected_strict)];
    for (cookie, expected) in cases {
        everywhere_with(&Setup { cookie, ..Setup::default() }, |world| async move {
            let mut jar = Jar::new();
            let set = world.edit(&mut jar, |session| session.set("a", 1_u64)).await;
            let removed = world.edit(&mut jar, Session::destroy).await;
            // Before it, the same cookie in the scopes in which earlier options may have set it.
            let lines = set_cookies(removed.headers());
            assert!(lines.iter().all(|line| line.starts_with(&format!("{}=; Max-Age=0; ", world.name()))));
            assert!(jar.0.is_empty());
            let [set, removed] =
                [set, removed].map(|response| attributes(set_cookies(response.headers()).last().unwrap()));
            assert_eq!(set, expected);
            assert_eq!(removed, expected);
            if world.server.is_some() {
                assert_eq!(world.rows().await, 0);
            }
        });
    }
}

/// "`destroy` | store entry deleted": what is set afterwards is another session.
#[test]
fn destroy_then_set_is_a_new_session() {
    everywhere(|world| async move {
        let mut jar = world.jar().await;
        let old = jar.clone();
        let (old_id, ..) = world.facts(&jar).await;
        world.clock.advance(50 * SECOND);
        let restart = |session: &Session| {
            session.destroy()?;
            assert!(session.is_empty());
            session.set("b", 2_u64)
        };
        assert_set(&world, &world.edit(&mut jar, restart).await);
        let (id, created, expires) = world.facts(&jar).await;
        assert_ne!(id, old_id);
        assert_eq!(created.as_unix(), START + 50, "a new beginning");
        assert_eq!(expires.as_unix(), START + 50 + IDLE.as_secs());
        assert_eq!(world.values(&jar).await, pairs(&[("b", 2)]));
        if world.server.is_some() {
            assert!(world.look(&old, Session::is_empty).await);
            assert_eq!(world.rows().await, 1);
        }
    });
}

// The cookie does not lead to a session.

/// "cookie invalid, expired, unknown id | an empty session and an event saying why; the value is never adopted as an id;
/// removed from the client if the handler looked, and it is known to be dead"
#[test]
fn a_cookie_that_is_no_session_is_empty_told_and_removed_if_it_is_known_to_be_dead() {
    everywhere(|world| async move {
        let form = world.form;
        let kind = if world.server.is_some() { Kind::Server } else { Kind::Cookie };
        let expired = world.jar().await;
        world.clock.advance(IDLE);
        // Well-formed, of the same name, and made by another store.
        let foreign = World::new(kind, form, &Setup::default()).jar().await;
        let (unknown, gone) = match kind {
            Kind::Cookie => (Refusal::UnknownKey, Refusal::Expired),
            Kind::Server => (Refusal::UnknownId, Refusal::UnknownId), // the backend has forgotten it
        };
        let garbage = Jar::with(world.name(), "garbage!");
        for (jar, why) in [(garbage, Refusal::Encoding), (foreign, unknown), (expired, gone)] {
            let mut ignored = jar.clone();
            let response = world.visit(&mut ignored, |_| async { Ok(status(200)) }).await;
            assert!(response.headers().is_empty(), "nobody looked");
            assert_eq!(ignored.0, jar.0);
            assert_eq!((world.events.take(), world.calls()), (vec![], vec![]));

            let mut read = jar.clone();
            let response = world.edit(&mut read, |session| {
                assert!(session.is_empty());
                assert_eq!(session.id(), None);
                Ok(())
            });
            let answers = |response: &Response<_>| {
                if why.removes_cookie() {
                    assert_removed(&world, response);
                } else {
                    assert_eq!(set_cookies(response.headers()), [""; 0], "{why}");
                }
            };
            answers(&response.await);
            assert_eq!(world.events.take(), [refused(why)]);

            let mut failed = jar.clone();
            answers(&world.answer(&mut failed, 500, |_| Ok(())).await);

            // Values that the handler sets begin a session of their own.
            let mut adopted = jar.clone();
            assert_set(&world, &world.edit(&mut adopted, |session| session.set("b", 2_u64)).await);
            assert_ne!(adopted.get(world.name()), jar.get(world.name()));
            assert_eq!(world.values(&adopted).await, pairs(&[("b", 2)]));
            assert_eq!(world.facts(&adopted).await.1, world.clock.now());
            assert!(world.look(&jar, Session::is_empty).await, "the old value stays what it was: nothing");
            world.events.take();
            world.calls();
        }
    });
}

/// A cookie that is not in our format may be another application's: even `destroy` does not remove it.
#[test]
fn ending_a_session_that_is_none_leaves_a_cookie_that_is_not_ours() {
    everywhere(|world| async move {
        for deed in [Session::regenerate, Session::destroy, Session::clear] {
            let mut jar = Jar::with(world.name(), "garbage");
            let response = world.edit(&mut jar, deed).await;
            assert_eq!(set_cookies(response.headers()), [""; 0]);
            assert_eq!(jar.get(world.name()), Some("garbage"));
        }
        assert_eq!(world.calls(), [] as [Verb; 0]);
    });
}
