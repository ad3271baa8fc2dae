//! Users who come back after their bound cookie has expired: by a link of another site, or with a browser that has lost its key.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::header::{HeaderMap, SET_COOKIE};
use http::{Request, Response};
use hyper_session::store::Memory;
use hyper_session::testing::{Fault, Faulty, Primitive};

use crate::browser::{Browser, with_cookies};
use crate::site::{BOUND, Body, GRACE, LIFETIME, NAME, Site, block_on, text};
use crate::thefts::with_only;

const RETRY: &str = "__Host-session.retry";
const LINK: [(&str, &str); 2] = [("sec-fetch-mode", "navigate"), ("sec-fetch-site", "cross-site")];

async fn send(site: &Site, browser: &mut Browser, path: &str, fields: &[(&str, &str)]) -> Response<Body> {
    let mut request = Request::get(path);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let response = site.call(with_cookies(request, &browser.cookies)).await;
    browser.cookies.receive(response.headers());
    response
}

/// A browser whose bound cookie has expired.
async fn away(site: &Site) -> Browser {
    away_with_value(site).await.0
}

/// The same, with the value of the bound cookie.
async fn away_with_value(site: &Site) -> (Browser, String) {
    let mut browser = Browser::new();
    browser.bind(site).await;
    let value = value(&browser);
    site.clock.advance(LIFETIME);
    browser.cookies = with_only(NAME, &browser.cookies).cookies;
    site.events();
    (browser, value)
}

/// The value of a browser's bound cookie.
fn value(browser: &Browser) -> String {
    String::from_utf8(browser.cookies.get(BOUND).unwrap().to_vec()).unwrap()
}

/// Gives the browser a bound cookie with this value.
fn plant(browser: &mut Browser, value: &str) {
    let line = format!("{BOUND}={value}").parse().unwrap();
    browser.cookies.receive(&HeaderMap::from_iter([(SET_COOKIE, line)]));
}

// Browsers do not refresh for a request that another site has caused.
#[test]
fn a_link_of_another_site_leads_to_a_page_that_asks_again() {
    for site in Site::all() {
        block_on(async {
            for from in ["cross-site", "same-site"] {
                let mut browser = away(&site).await;
                let fields = [LINK[0], ("sec-fetch-site", from)];
                // The path begins like another host.
                let response = send(&site, &mut browser, "//elsewhere.example/visit?a=1", &fields).await;
                assert_eq!(
                    (response.status().as_u16(), response.headers()["refresh"].to_str().unwrap()),
                    (200, "1; url=?a=1")
                );
                assert_eq!(response.headers()["cache-control"], "no-store");
                assert_eq!(response.headers()["vary"], "Cookie");
                let page = text(response).await;
                assert!(page.contains("src=\"/device-bound/present\""), "{page}");
                assert!(site.events().is_empty(), "the browser is about to show that it has the key");

                // The image: the browser refreshes before it.
                assert_eq!(browser.refresh(&site).await, 200);
                let image = send(&site, &mut browser, "/device-bound/present", &[]).await;
                assert_eq!(
                    (image.status().as_u16(), image.headers()["cache-control"].to_str().unwrap()),
                    (204, "no-store")
                );
                let again = send(&site, &mut browser, "/", &fields).await;
                assert_eq!(text(again).await, "ada bound 0", "{}", site.kind);
            }
        });
    }
}

#[test]
fn a_browser_that_does_not_refresh_is_asked_once() {
    for site in Site::all() {
        block_on(async {
            let mut browser = away(&site).await;
            assert!(send(&site, &mut browser, "/", &LINK).await.headers().contains_key("refresh"));
            assert!(browser.cookies.get(RETRY).is_some());
            let again = send(&site, &mut browser, "/visit", &LINK).await;
            assert!(!again.headers().contains_key("refresh"));
            assert_eq!(text(again).await, "stranger lapsed 1", "{}", site.kind);
            // It was not allowed to refresh, and may do so before the next request.
            assert_eq!(site.events(), ["lapsed", "dropped:session_ended"]);
            assert_eq!(browser.refresh(&site).await, 200);
            assert_eq!(browser.read(&site, "/").await, "ada bound 0");
        });
    }
}

#[test]
fn only_links_to_lapsed_sessions_are_asked_again() {
    for site in Site::all() {
        block_on(async {
            let mut browser = away(&site).await;
            for fields in [
                &[][..],
                &LINK[..1],
                &LINK[1..],
                &[LINK[0], ("sec-fetch-site", "same-origin")],
                &[LINK[0], ("sec-fetch-site", "none")],
                &[("sec-fetch-mode", "cors"), LINK[1]],
            ] {
                let response = send(&site, &mut browser, "/", fields).await;
                assert_eq!(text(response).await, "stranger lapsed 0", "{} {fields:?}", site.kind);
            }
            let mut unbound = Browser::new();
            unbound.log_in(&site).await;
            assert_eq!(text(send(&site, &mut unbound, "/", &LINK).await).await, "ada unbound 0");
            assert_eq!(text(send(&site, &mut Browser::new(), "/", &LINK).await).await, "stranger unbound 0");
            // A handler that does not ask for its session.
            let ping = send(&site, &mut unbound, "/ping", &LINK).await;
            assert!(ping.headers().is_empty(), "{:?}", ping.headers());
            assert_eq!(text(ping).await, "pong");
            let mut bound = Browser::new();
            bound.bind(&site).await;
            site.clock.advance(GRACE);
            assert_eq!(text(send(&site, &mut bound, "/", &LINK).await).await, "ada bound 0");
        });
    }
}

// The key is gone: the browser was refused once, or its profile came from another machine. The cookie of the session stays, and must
// not stand in the way of a login that needs a session before it.
#[test]
fn a_browser_that_has_lost_its_key_can_log_in_by_a_form() {
    for by_link in [false, true] {
        log_in_by_a_form_without_the_key(&Planted::Nothing, by_link);
    }
}

/// A bound cookie that a sibling subdomain plants.
#[derive(Debug)]
enum Planted {
    Nothing,
    Value(String),
    /// That of an account and a device of the attacker's own.
    OfAnotherDevice,
}

// A sibling subdomain plants a value of the right form. It is not of the session's device, so the browser is not about to return.
#[test]
fn a_planted_bound_cookie_does_not_prevent_a_login_by_a_form() {
    // Of another version, and of this one with the id of an unknown key.
    for planted in ["A".repeat(56), format!("AQ{}", "A".repeat(54))] {
        for by_link in [false, true] {
            log_in_by_a_form_without_the_key(&Planted::Value(planted.clone()), by_link);
        }
    }
    // Behind a link, that value still counts as one of the session's device: the image of the page is answered without a session.
    log_in_by_a_form_without_the_key(&Planted::OfAnotherDevice, false);
}

fn log_in_by_a_form_without_the_key(planted: &Planted, by_link: bool) {
    for site in Site::all() {
        block_on(async {
            let mut browser = away(&site).await;
            browser.bound = None;
            match planted {
                Planted::Nothing => {}
                Planted::Value(value) => plant(&mut browser, value),
                Planted::OfAnotherDevice => {
                    let mut attacker = Browser::new();
                    attacker.bind(&site).await;
                    site.events();
                    plant(&mut browser, &value(&attacker));
                }
            }
            let token = if by_link {
                let page = send(&site, &mut browser, "/form", &LINK).await;
                assert!(page.headers().contains_key("refresh"));
                send(&site, &mut browser, "/device-bound/present", &[]).await;
                text(send(&site, &mut browser, "/form", &LINK).await).await
            } else {
                browser.read(&site, "/form").await
            };
            assert_eq!(site.events(), ["lapsed"], "{} {planted:?}", site.kind);
            let page = browser.read(&site, &format!("/submit/{token}")).await;
            assert_eq!(page, "ada unbound 0", "{} {planted:?}", site.kind);
            assert_eq!(browser.read(&site, "/").await, "ada unbound 0", "{} {planted:?}", site.kind);
        });
    }
}

#[test]
fn what_is_written_beside_a_lapsed_session_does_not_replace_it_while_its_browser_may_return() {
    for site in Site::all() {
        block_on(async {
            for (fields, has_bound_cookie) in [
                (&[][..], true),
                (&[("secure-session-skipped", "server_error;session_identifier=\"b\"")], false),
                (&[("sec-fetch-site", "cross-site")], false),
            ] {
                let (mut browser, expired) = away_with_value(&site).await;
                if has_bound_cookie {
                    plant(&mut browser, &expired);
                }
                let kept = browser.cookies.header();
                let response = send(&site, &mut browser, "/visit", fields).await;
                assert_eq!(text(response).await, "stranger lapsed 1", "{} {fields:?}", site.kind);
                assert_eq!(browser.cookies.header(), kept, "{} {fields:?}", site.kind);
                assert_eq!(site.events(), ["lapsed", "dropped:session_ended"]);
                assert_eq!(browser.refresh(&site).await, 200);
                assert_eq!(browser.read(&site, "/").await, "ada bound 0");
            }
        });
    }
}

// The image of the page is always of its own origin. Another origin, which asks for it, causes no refresh: the browser would count
// as one without the key, and then lose its session.
#[test]
fn another_origin_does_not_make_a_browser_give_up() {
    for site in Site::all() {
        block_on(async {
            for from in ["cross-site", "same-site"] {
                let mut browser = away(&site).await;
                let fields = [LINK[0], ("sec-fetch-site", from)];
                let page = send(&site, &mut browser, "/", &fields).await;
                assert!(page.headers().contains_key("refresh"));
                let image = send(&site, &mut browser, "/device-bound/present", &fields[1..]).await;
                assert_eq!(image.status(), 204);
                assert!(!image.headers().contains_key(SET_COOKIE), "{} {from}", site.kind);
                let kept = browser.cookies.header();
                let response = send(&site, &mut browser, "/visit", &fields[1..]).await;
                assert_eq!(text(response).await, "stranger lapsed 1", "{} {from}", site.kind);
                assert_eq!(browser.cookies.header(), kept, "{} {from}", site.kind);
                assert_eq!(browser.refresh(&site).await, 200, "{} {from}", site.kind);
                assert_eq!(browser.read(&site, "/").await, "ada bound 0", "{} {from}", site.kind);
            }
        });
    }
}

// It has expired on its way, or a sibling subdomain has planted it.
#[test]
fn a_bound_cookie_that_cannot_count_does_not_prevent_the_page() {
    for site in Site::all() {
        block_on(async {
            let mut bound = Browser::new();
            bound.bind(&site).await;
            let expired = value(&bound);
            for value in [&*"A".repeat(56), &expired, "x"] {
                let mut browser = away(&site).await;
                plant(&mut browser, value);
                let page = send(&site, &mut browser, "/", &LINK).await;
                assert!(page.headers().contains_key("refresh"), "{} {value}", site.kind);
                assert_eq!(browser.refresh(&site).await, 200, "{} {value}", site.kind);
                let again = send(&site, &mut browser, "/", &LINK).await;
                assert_eq!(text(again).await, "ada bound 0", "{} {value}", site.kind);
            }
        });
    }
}

/// Counts the reads of a backend from now on, each of which fails like this.
fn fetches(backend: &Faulty<Memory>, fault: Option<Fault>) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&count);
    backend.intercept(move |call| {
        let is_fetch = call.primitive == Primitive::Fetch;
        counting.fetch_add(usize::from(is_fetch), Ordering::SeqCst);
        fault.filter(|_| is_fetch)
    });
    count
}

#[test]
fn a_link_loads_the_session_before_its_handler_only_without_a_live_bound_cookie() {
    let backend = Faulty::new(Memory::new());
    let site = Site::on_backend(backend.clone());
    block_on(async {
        let mut browser = Browser::new();
        browser.bind(&site).await;
        site.clock.advance(GRACE);
        let mut without = with_only(NAME, &browser.cookies);
        let count = fetches(&backend, None);
        for (browser, expected) in [(&mut browser, 0), (&mut without, 1)] {
            send(&site, browser, "/ping", &LINK).await;
            assert_eq!(count.swap(0, Ordering::SeqCst), expected);
        }
    });
}

// The session is loaded for the page. A handler that then asks for it must not wait for the same store again.
#[test]
fn a_link_meets_a_store_that_fails_once() {
    let backend = Faulty::new(Memory::new());
    let site = Site::on_backend(backend.clone());
    block_on(async {
        let mut browser = away(&site).await;
        let count = fetches(&backend, Some(Fault::Unreachable));
        assert_eq!(send(&site, &mut browser, "/", &LINK).await.status(), 503);
        assert_eq!((count.load(Ordering::SeqCst), site.events()), (1, vec!["load_failed".to_owned()]));
        // A handler that does not ask for its session.
        assert_eq!(text(send(&site, &mut browser, "/ping", &LINK).await).await, "pong");
    });
}
