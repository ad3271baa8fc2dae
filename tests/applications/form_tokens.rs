//! Form tokens: bound to a session, masked anew on each page.

use std::collections::BTreeSet;

use hyper_session::{Error, Session};

use crate::stores::{Act, Reading, START, everywhere};
use crate::support::{Jar, set_cookies};

fn is_forged(session: &Session, token: &str) -> bool {
    match session.verify_csrf(token) {
        Ok(()) => false,
        Err(error) => {
            assert!(error.is_forgery() && !error.is_value() && error.label() == "forgery");
            assert!(!format!("{error} {error:?}").contains(token) || token.is_empty());
            true
        }
    }
}

#[test]
fn a_form_comes_back_with_a_token_of_its_page() {
    everywhere(|world| async move {
        let mut jar = Jar::new();
        let token = world.edit(&mut jar, Session::csrf_token).await;
        assert!(!jar.0.is_empty(), "a visitor with a form has a session");
        world.clock.set(START + 50);
        assert!(!world.look(&jar, |session| is_forged(session, &token)).await);
        // Pages that only show it set nothing, and show another text each time.
        let mut texts = BTreeSet::from([token.clone()]);
        for _ in 0..50 {
            let (response, text) =
                world.visit(&mut jar, Reading::LeavesTheDeadline, Session::csrf_token).await;
            assert_eq!(set_cookies(response.headers()), [""; 0]);
            assert!(texts.insert(text));
        }
        world.edit(&mut jar, Session::regenerate).await;
        for text in texts {
            assert!(text.len() == 43 && !world.look(&jar, |session| is_forged(session, &text)).await);
        }
    });
}

#[test]
fn csrf_a_token_of_another_session_or_none_is_refused() {
    everywhere(|world| async move {
        let (mut ada, mut mallory) = (Jar::new(), Jar::new());
        let token =
            world.edit(&mut ada, |session| session.login("ada").and_then(|()| session.csrf_token())).await;
        let planted = world
            .edit(&mut mallory, |session| session.login("mallory").and_then(|()| session.csrf_token()))
            .await;
        for text in ["", "0", &planted, &token[1..], &format!("{token}A"), &token.to_lowercase()] {
            assert!(world.look(&ada, |session| is_forged(session, text)).await, "{text:?}");
        }
        assert!(world.look(&Jar::new(), |session| is_forged(session, &token)).await, "no session, no token");
    });
}

// A visitor's session may have been planted with its token: an attacker knows both.
#[test]
fn t35_a_login_refuses_the_tokens_of_the_visitor() {
    let logins: [Act; 2] = [
        |session| session.login("ada"),
        |session| session.login("ada").and_then(|()| session.reauthenticate()),
    ];
    for log_in in logins {
        everywhere(|world| async move {
            let mut jar = Jar::new();
            let planted = world.edit(&mut jar, Session::csrf_token).await;
            world.edit(&mut jar, log_in).await;
            assert!(world.look(&jar, |session| is_forged(session, &planted)).await);
            let token = world.edit(&mut jar, Session::csrf_token).await;
            assert!(!world.look(&jar, |session| is_forged(session, &token)).await);
            assert_eq!(world.look(&jar, Session::keys).await, [""; 0]);
        });
    }
}

#[test]
fn two_pages_that_are_loaded_at_once_can_both_be_sent() {
    crate::support::block_on(async {
        use crate::stores::{Kind, Options, TestStore};
        use hyper::service::Service;
        let world = TestStore::new(Kind::Server, Options::default()).await;
        let mut jar = Jar::new();
        world.edit(&mut jar, |session| session.login("ada")).await;
        let gate = std::sync::Arc::new(tokio::sync::Barrier::new(2));
        let tokens = std::sync::Mutex::new(Vec::new());
        let service = hyper_session::session_fn(
            world.store.clone(),
            |_: http::Request<crate::support::Body>, handle: hyper_session::SessionHandle| {
                let (gate, tokens) = (gate.clone(), &tokens);
                async move {
                    let session = handle.load().await?;
                    tokens.lock().unwrap().push(session.csrf_token()?);
                    gate.wait().await; // both have loaded the session without a secret
                    Ok::<_, Error>(crate::support::status(200))
                }
            },
        );
        let get = || service.call(crate::support::request("/", jar.header().as_deref()));
        let (one, two) = tokio::join!(get(), get());
        assert!(one.unwrap().status() == 200 && two.unwrap().status() == 200);
        for token in tokens.into_inner().unwrap() {
            assert!(!world.look(&jar, |session| is_forged(session, &token)).await);
        }
    });
}
