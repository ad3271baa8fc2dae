//! When and how a subject was authenticated.

use hyper::service::Service;
use hyper_session::testing::FakeClock;
use hyper_session::{AppKey, CookieStore, Error, Revocations, Session, SessionHandle, Timestamp, session_fn};

use crate::stores::{Act, START, everywhere, seconds};
use crate::support::{Jar, block_on, request, status};

fn within(age: u64) -> impl Fn(&Session) -> bool + Send + Sync {
    move |session| session.authenticated_within(seconds(age))
}

#[test]
fn a_login_is_stamped_and_ages() {
    everywhere(|world| async move {
        let mut jar = Jar::new();
        world.edit(&mut jar, |session| session.set("cart", 1)).await;
        assert!(!world.look(&jar, within(u64::MAX)).await, "a visitor is not authenticated");
        world.clock.set(START + 7);
        world.edit(&mut jar, |session| session.login("ada")).await;
        let at = Some(Timestamp::from_unix(START + 7));
        for (after, recent) in [(0, true), (30, true), (31, false)] {
            world.clock.set(START + 7 + after);
            world.edit(&mut jar, |_| Ok(())).await; // a renewal moves nothing
            assert_eq!(world.look(&jar, Session::authenticated_at).await, at);
            assert_eq!(world.look(&jar, within(30)).await, recent, "after {after} s");
        }
        world.edit(&mut jar, Session::regenerate).await;
        assert_eq!(world.look(&jar, Session::authenticated_at).await, at);
    });
}

// A user may take minutes to approve a login on another device, in a request that waits.
#[test]
fn a_login_is_stamped_with_its_own_time_and_not_with_that_of_its_request() {
    let ways: [(Act, Act); 2] = [
        (|_| Ok(()), |session| session.login("ada")),
        (|session| session.login("ada"), Session::reauthenticate),
    ];
    for (before, act) in ways {
        everywhere(|world| async move {
            let mut jar = Jar::new();
            world.edit(&mut jar, before).await;
            let at = Some(Timestamp::from_unix(START + 95));
            world
                .edit(&mut jar, |session| {
                    world.clock.advance(seconds(95));
                    act(session)?;
                    assert_eq!(session.authenticated_at(), at);
                    assert!(session.authenticated_within(seconds(0)), "not before this request");
                    // A clock that goes back does not move it before the request.
                    world.clock.set(START - 10);
                    act(session)?;
                    assert_eq!(session.authenticated_at(), Some(Timestamp::from_unix(START)));
                    world.clock.set(START + 95);
                    act(session)
                })
                .await;
            assert_eq!(world.look(&jar, Session::authenticated_at).await, at);
            world.clock.set(START + 95 + 60);
            assert!(world.look(&jar, within(60)).await);
            assert!(!world.look(&jar, within(59)).await);
        });
    }
}

// T35: each authentication leaves the previous token behind.
#[test]
fn t35_reauthentication_stamps_anew_under_a_new_token() {
    let ways: [Act; 2] = [Session::reauthenticate, |session| session.login("ada")];
    for again in ways {
        everywhere(|world| async move {
            let mut jar = Jar::new();
            world
                .edit(&mut jar, |session| {
                    session.login("ada")?;
                    session.set_authentication_context(Some("aal2"), &["pwd", "otp"])?;
                    session.set("cart", 3)
                })
                .await;
            let context = world.look(&jar, Session::authentication).await.unwrap();
            assert_eq!(
                (context.acr.as_deref(), context.amr),
                (Some("aal2"), vec!["pwd".into(), "otp".into()])
            );
            let (old, id) = (jar.clone(), world.look(&jar, Session::id).await);
            world.clock.set(START + 60);
            world.edit(&mut jar, again).await;
            assert_ne!(world.look(&jar, Session::id).await, id);
            assert_eq!(
                world.look(&jar, Session::authenticated_at).await,
                Some(Timestamp::from_unix(START + 60))
            );
            assert_eq!(world.look(&jar, |session| session.get::<u8>("cart").unwrap()).await, Some(3));
            assert_eq!(world.look(&jar, Session::authentication).await.unwrap().acr, None);
            if world.kind.lists() {
                assert!(!world.is_alive(&old).await, "the previous token is refused");
            }
        });
    }
}

// NIST SP 800-63B-4 section 5.2: re-authentication begins both timeouts anew.
#[test]
fn the_absolute_timeout_counts_from_the_last_authentication() {
    everywhere(|world| async move {
        let mut jar = Jar::new();
        world.edit(&mut jar, |session| session.set("cart", 1)).await;
        for step in 1..=3 {
            world.clock.set(START + 99 * step);
            world.edit(&mut jar, |_| Ok(())).await;
        }
        world.clock.set(START + 390);
        world.edit(&mut jar, |session| session.login("ada")).await;
        assert_eq!(
            world.look(&jar, Session::remaining).await,
            Some(seconds(100)),
            "not the visitor's last 10 s"
        );
        for step in 1..=4 {
            world.clock.set(START + 390 + 90 * step);
            world.edit(&mut jar, |_| Ok(())).await;
        }
        assert_eq!(world.look(&jar, Session::remaining).await, Some(seconds(40)));
        world.edit(&mut jar, Session::reauthenticate).await;
        assert_eq!(world.look(&jar, Session::remaining).await, Some(seconds(100)));
    });
}

#[test]
fn what_is_no_login_cannot_be_renewed() {
    everywhere(|world| async move {
        let mut jar = Jar::new();
        world
            .edit(&mut jar, |session| {
                session.set("a", 1)?;
                assert!(session.reauthenticate().unwrap_err().is_not_logged_in());
                assert_eq!(session.reauthenticate().unwrap_err().label(), "not_logged_in");
                Ok(())
            })
            .await;
        world.edit(&mut jar, |session| session.login("ada")).await;
        world.edit(&mut jar, Session::clear).await;
        assert!(jar.0.is_empty(), "nothing is left of a login");
    });
}

// T34: a session that was revoked while its request ran is not brought back by a password. A login begins a new session.
#[test]
fn t34_reauthentication_does_not_bring_a_revoked_session_back() {
    let acts: [(Act, bool); 3] = [
        (Session::reauthenticate, false),
        (|session| session.reauthenticate().and_then(|()| session.set("a", 1)), false),
        (|session| session.login("ada"), true),
    ];
    block_on(async {
        for (act, lives) in acts {
            let store = CookieStore::builder(AppKey::generate().unwrap())
                .revocations(Revocations::in_memory())
                .clock(FakeClock::at(START))
                .build()
                .unwrap();
            let visit = async |jar: &mut Jar, revoke: bool, act: Act| {
                let outer = store.clone();
                let service = session_fn(store.clone(), |_: http::Request<_>, handle: SessionHandle| {
                    let store = outer.clone();
                    async move {
                        let session = handle.load().await?;
                        if revoke {
                            store.end_sessions_of("ada").await?;
                        }
                        act(&session)?;
                        Ok::<_, Error>(status(200))
                    }
                });
                let response = service.call(request("/", jar.header().as_deref())).await.unwrap();
                assert_eq!(response.status(), 200);
                jar.store(response.headers());
            };
            let mut jar = Jar::new();
            visit(&mut jar, false, |session| session.login("ada")).await;
            visit(&mut jar, true, act).await;
            let seen = std::sync::Mutex::new(None);
            let look = session_fn(store.clone(), |_: http::Request<_>, handle: SessionHandle| async {
                let handle = handle;
                *seen.lock().unwrap() = Some(handle.load().await?.subject().is_some());
                Ok::<_, Error>(status(200))
            });
            look.call(request("/", jar.header().as_deref())).await.unwrap();
            assert_eq!(seen.lock().unwrap().take(), Some(lives));
        }
    });
}
