//! Reading without renewing.

use hyper::service::{Service, service_fn};
use hyper_session::{Error, Session, SessionExt, SessionService};

use crate::stores::{Kind, Options, Reading, START, World, everywhere, seconds};
use crate::support::{Jar, block_on, request, set_cookies, status};

#[test]
fn a_page_that_polls_does_not_keep_its_session_alive() {
    everywhere(|world| async move {
        let mut jar = Jar::new();
        world.edit(&mut jar, |session| session.login("ada")).await;
        for after in (10..100).step_by(10) {
            world.clock.set(START + after);
            let (response, remaining) =
                world.visit(&mut jar, Reading::LeavesTheDeadline, |session| Ok(session.remaining())).await;
            assert_eq!(remaining, Some(seconds(100 - after)), "the countdown counts down");
            assert_eq!(set_cookies(response.headers()), [""; 0]);
            assert_eq!(response.headers()["vary"], "Cookie");
        }
        world.clock.set(START + 100);
        assert!(!world.is_alive(&jar).await);
    });
}

#[test]
fn what_it_changes_is_saved_and_a_second_reader_renews() {
    everywhere(|world| async move {
        let mut jar = Jar::new();
        world.edit(&mut jar, |session| session.login("ada")).await;
        world.clock.set(START + 50);
        world.visit(&mut jar, Reading::LeavesTheDeadline, |session| session.set("a", 1)).await;
        assert_eq!(world.expires(&jar).await.unwrap().as_unix(), START + 150);
        world.clock.set(START + 90);
        world.visit(&mut jar, Reading::Renews, |_| Ok(())).await;
        assert_eq!(world.expires(&jar).await.unwrap().as_unix(), START + 190);
    });
}

#[test]
fn one_request_that_reads_both_ways_renews_once() {
    block_on(async {
        for kind in [Kind::Cookie, Kind::Server] {
            let world = World::new(kind, Options::default());
            let mut jar = Jar::new();
            world.edit(&mut jar, |session| session.login("ada")).await;
            world.clock.set(START + 50);
            let inner = service_fn(|request: http::Request<crate::support::Body>| async move {
                let quiet = request.session_without_renewal().await?;
                let loud =
                    if request.uri().path() == "/loud" { Some(request.session().await?) } else { None };
                assert!(loud.is_none_or(|loud| loud.id() == quiet.id()));
                Ok::<_, Error>(status(200))
            });
            let service = SessionService::new(inner, world.store.clone());
            let get = |path| request(path, jar.header().as_deref());
            assert_eq!(set_cookies(service.call(get("/")).await.unwrap().headers()).len(), 0);
            assert_eq!(set_cookies(service.call(get("/loud")).await.unwrap().headers()).len(), 1);
        }
    });
}

#[test]
fn without_a_layer_it_says_so() {
    block_on(async {
        let error = request("/", None).session_without_renewal().await.map(|_: Session| ()).unwrap_err();
        assert!(error.is_not_wrapped());
    });
}
