//! When and how a subject was authenticated.

use hyper_session::{Session, Timestamp};

use crate::stores::{Act, Kind, START, everywhere, seconds};
use crate::support::Jar;

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

// T35: each authentication leaves the token of before behind.
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
            if world.kind == Kind::Server {
                assert!(!world.is_alive(&old).await, "the token of before is refused");
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
