//! Revocations beside other things: hosts without them, services around services, several cookies of one name.

use http::header::COOKIE;
use http::{Request, Response};
use hyper::service::Service;
use hyper_session::testing::{Cookies, FakeClock};
use hyper_session::{
    Error, Refusal, Revocations, Session, SessionExt, SessionHandle, SessionService, session_fn,
};

use crate::requests::{NAME, START, Site};
use crate::support::block_on;

type Nothing = http_body_util::Empty<bytes::Bytes>;

/// Two hosts of one deployment with one key, in the middle of a rollout: one keeps revocations, the other does not.
fn with_and_without() -> (Site, Site) {
    let clock = FakeClock::at(START);
    let with = Site::built(clock.clone(), |builder| builder.revocations(Revocations::in_memory()));
    (with, Site::built(clock, |builder| builder))
}

#[test]
fn a_host_without_revocations_keeps_sessions_revocable() {
    block_on(async {
        for end in ["logout", "end_sessions_of", "end_labelled"] {
            let (with, without) = with_and_without();
            let mut browser = with.logged_in("ada").await;
            with.visit(&mut browser, |session| async move { session.label("device", "phone") }).await;
            let mut copies = vec![browser.clone()];
            without.set(&mut browser, "a").await;
            copies.push(browser.clone());
            without.regenerate(&mut browser).await;
            copies.push(browser.clone());
            without.regenerate(&mut browser).await;
            without.clock.advance(std::time::Duration::from_secs(4 * 3_600));
            without.visit(&mut browser, |_| async { Ok(()) }).await; // renewed
            copies.push(browser.clone());
            assert!(with.accepts(&browser).await);
            match end {
                "logout" => with.logout(&mut browser).await,
                "end_sessions_of" => with.store.end_sessions_of("ada").await.unwrap(),
                _ => with.store.end_labelled("device", "phone").await.unwrap(),
            }
            for (number, copy) in copies.iter().enumerate() {
                assert_eq!(with.refusal(copy).await, Some(Refusal::Revoked), "{end}: copy {number}");
                assert!(without.accepts(copy).await, "as documented: that host does not know");
            }
        }
    });
}

#[test]
fn a_login_on_a_host_without_revocations_belongs_to_its_own_user() {
    block_on(async {
        let (with, without) = with_and_without();
        let mut browser = with.logged_in("ada").await;
        with.visit(&mut browser, |session| async move { session.label("device", "phone") }).await;
        without.login(&mut browser, "bob").await;
        with.store.end_sessions_of("ada").await.unwrap();
        with.store.end_labelled("device", "phone").await.unwrap();
        assert_eq!(with.user(&browser).await.as_deref(), Some("bob"));
        with.store.end_sessions_of("bob").await.unwrap();
        assert!(!with.accepts(&browser).await);
    });
}

// Its position is nought, so an end from before it counts: sessions are refused that might be kept, and not the other way round.
#[test]
fn a_login_on_a_host_without_revocations_is_older_than_each_end() {
    block_on(async {
        let (with, without) = with_and_without();
        with.store.end_sessions_of("ada").await.unwrap();
        let mut browser = without.logged_in("ada").await;
        assert!(without.accepts(&browser).await);
        assert_eq!(with.refusal(&browser).await, Some(Refusal::Revoked), "as documented");
        // The next login is behind it.
        with.login(&mut browser, "ada").await;
        assert!(with.accepts(&browser).await);
    });
}

#[test]
fn a_logout_on_a_host_without_revocations_is_not_final_and_does_no_harm() {
    block_on(async {
        let (with, without) = with_and_without();
        let mut browser = with.logged_in("ada").await;
        let copy = browser.clone();
        without.logout(&mut browser).await;
        assert!(with.accepts(&copy).await, "as documented: switch it on everywhere");
        with.logout(&mut copy.clone()).await;
        assert!(!with.accepts(&copy).await);
    });
}

/// A request with these cookies to `service`, and the cookies that its response leaves in the browser.
async fn send<S, A, B>(service: &S, cookies: &mut Cookies)
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Error: std::fmt::Debug,
    A: Default,
{
    let mut request = Request::new(A::default());
    request.headers_mut().extend(cookies.header().map(|cookies| (COOKIE, cookies)));
    cookies.receive(service.call(request).await.unwrap().headers());
}

#[test]
fn a_logout_in_an_inner_service_is_final_whatever_the_outer_one_does() {
    type Deed = fn(&Session) -> Result<(), Error>;
    let deeds: [(&str, Deed); 4] = [
        ("reads", |_| Ok(())),
        ("sets a value", |session| session.set("a", 1)),
        ("regenerates", Session::regenerate),
        ("logs out, too", Session::destroy),
    ];
    block_on(async {
        for (what, deed) in deeds {
            for before in [true, false] {
                let site = Site::in_memory();
                let mut browser = site.logged_in("ada").await;
                let copy = browser.clone();
                let inner =
                    session_fn(site.store.clone(), |_: Request<()>, handle: SessionHandle| async move {
                        handle.load().await?.destroy()?;
                        Ok::<_, Error>(Response::new(()))
                    });
                let inner = std::sync::Arc::new(inner);
                let outer = session_fn(site.store.clone(), |request: Request<()>, handle: SessionHandle| {
                    let inner = std::sync::Arc::clone(&inner);
                    async move {
                        let session = handle.load().await?;
                        if before {
                            deed(&session)?;
                        }
                        let response = inner.call(request).await?;
                        if !before {
                            deed(&session)?;
                        }
                        Ok::<_, Error>(response)
                    }
                });
                send(&outer, &mut browser).await;
                assert!(!site.accepts(&copy).await, "the outer one {what} (before: {before})");
                if browser.header().is_some() {
                    assert!(!site.accepts(&browser).await, "the outer one {what} (before: {before})");
                }
            }
        }
        // A `SessionService` around a second one: both are one session.
        let site = Site::in_memory();
        let mut browser = site.logged_in("ada").await;
        let copy = browser.clone();
        let handler = hyper::service::service_fn(|request: Request<Nothing>| async move {
            request.session().await?.destroy()?;
            Ok::<_, Error>(Response::new(Nothing::new()))
        });
        let inner = SessionService::new(handler, site.store.clone());
        send(&SessionService::new(inner, site.store.clone()), &mut browser).await;
        assert!(browser.header().is_none() && !site.accepts(&copy).await);
    });
}

#[test]
fn of_two_cookies_of_the_name_a_revoked_one_hides_no_other_and_a_logout_ends_both() {
    block_on(async {
        let site = Site::in_memory();
        let (mut ended, alive, other) =
            (site.logged_in("ada").await, site.logged_in("ada").await, site.logged_in("ada").await);
        let revoked = ended.clone();
        site.logout(&mut ended).await;
        let token = |cookies: &Cookies| String::from_utf8(cookies.get(NAME).unwrap().to_vec()).unwrap();
        let header = |cookies: &[&Cookies]| {
            let pairs: Vec<_> = cookies.iter().map(|one| format!("{NAME}={}", token(one))).collect();
            pairs.join("; ")
        };
        let read = session_fn(site.store.clone(), |_: Request<()>, handle: SessionHandle| async move {
            let user = handle.load().await?.subject().map(|subject| subject.to_string());
            Ok::<_, Error>(Response::new(user))
        });
        for order in [[&revoked, &alive], [&alive, &revoked]] {
            let request = Request::builder().header(COOKIE, header(&order)).body(()).unwrap();
            assert_eq!(read.call(request).await.unwrap().into_body().as_deref(), Some("ada"));
        }
        let log_out = session_fn(site.store.clone(), |_: Request<()>, handle: SessionHandle| async move {
            handle.load().await?.destroy()?;
            Ok::<_, Error>(Response::new(()))
        });
        let request =
            Request::builder().header(COOKIE, header(&[&alive, &revoked, &other])).body(()).unwrap();
        assert_eq!(log_out.call(request).await.unwrap().status(), 200);
        for copy in [&alive, &other, &revoked] {
            assert_eq!(site.refusal(copy).await, Some(Refusal::Revoked));
        }
    });
}
