//! Reading without renewing.

use std::sync::Arc;

use hyper::service::{Service, service_fn};
use hyper_session::store::{Builder, Store};
use hyper_session::testing::FakeClock;
use hyper_session::{AppKey, CookieStore, Error, MemoryStore, Session, SessionExt, SessionService};

use crate::stores::{KINDS, Options, Reading, START, TestStore, everywhere, seconds};
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
        for &kind in KINDS {
            let world = TestStore::new(kind, Options::default()).await;
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

#[test]
fn what_does_not_decode_is_absent_with_an_event() {
    everywhere(|world| async move {
        let mut jar = Jar::new();
        world.edit(&mut jar, |session| session.set("theme", 3)).await;
        world.events.take();
        let read =
            |session: &Session| (session.get_lenient::<String>("theme"), session.get_lenient::<u8>("theme"));
        assert_eq!(world.look(&jar, read).await, (None, Some(3)));
        assert_eq!(world.events.take(), ["value_unreadable"]);
        assert_eq!(world.look(&jar, |session| session.view().get_lenient::<u8>("other")).await, None);
        assert_eq!(world.events.take(), [""; 0], "what is not there is no event");
    });
}

#[test]
fn flash_messages_are_added_and_kept_until_a_page_shows_them() {
    everywhere(|world| async move {
        let mut jar = Jar::new();
        for message in ["one", "two"] {
            let add = move |old: Option<Vec<String>>| {
                old.unwrap_or_default().into_iter().chain([message.to_owned()]).collect()
            };
            world.edit(&mut jar, |session| session.update_flash("notices", add)).await;
        }
        for _ in 0..2 {
            let peek = |session: &Session| session.peek::<Vec<String>>("notices").unwrap().unwrap();
            assert_eq!(world.look(&jar, peek).await, ["one", "two"]);
        }
        let shown = world.edit(&mut jar, |session| session.flash::<Vec<String>>("notices")).await;
        assert_eq!(shown.unwrap(), ["one", "two"]);
        assert!(jar.0.is_empty());
    });
}

/// The same by a rule for requests, so that the handler of a page that polls need not know.
#[test]
fn a_rule_names_the_requests_that_keep_no_session_alive() {
    block_on(async {
        let clock = FakeClock::at(START);
        let build = |cookies: bool| -> Arc<dyn Store> {
            fn quiet<K>(builder: Builder<K>, clock: &FakeClock) -> Builder<K> {
                builder.idle_timeout(seconds(100)).clock(clock.clone()).no_renewal_on(|uri, headers| {
                    uri.path().starts_with("/poll/") || headers.contains_key("x-polling")
                })
            }
            if cookies {
                let builder = CookieStore::builder(AppKey::generate().unwrap());
                Arc::new(quiet(builder, &clock).build().unwrap())
            } else {
                Arc::new(quiet(MemoryStore::builder(), &clock).build().unwrap())
            }
        };
        for cookies in [true, false] {
            clock.set(START);
            let inner = service_fn(|request: http::Request<crate::support::Body>| async move {
                let session = request.session().await?;
                match request.uri().path() {
                    "/login" => session.login("ada")?,
                    "/poll/changes" => session.set("seen", true)?,
                    _ => {}
                }
                Ok::<_, Error>(status(200))
            });
            let service = SessionService::new(inner, build(cookies));
            let mut jar = Jar::new();
            let mut visit = async |path: &str, polling: bool| {
                let mut request = request(path, jar.header().as_deref());
                if polling {
                    request.headers_mut().insert("x-polling", "1".parse().unwrap());
                }
                let response = service.call(request).await.unwrap();
                jar.store(response.headers());
                set_cookies(response.headers()).len()
            };
            assert_eq!(visit("/login", true).await, 1, "what is changed is saved");
            for (after, path, polling, lines) in [
                (50, "/poll/news", false, 0),
                (60, "/", true, 0),
                (70, "/poll/changes", false, 1),
                (71, "/", false, 0), // not due
                (120, "/", false, 1),
                (215, "/poll/news", false, 0),
                (219, "/", true, 0),
            ] {
                clock.set(START + after);
                assert_eq!(visit(path, polling).await, lines, "{path} after {after} s");
            }
            clock.set(START + 220);
            assert_eq!(visit("/", false).await, usize::from(true), "expired: the dead cookie is removed");
        }
    });
}
