//! The protocol with an honest browser, from the login to the logout.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Request;
use http::header::{COOKIE, SET_COOKIE};
use hyper_session::store::{Backend, Memory, Replaced, Stored};
use hyper_session::testing::{Cookies, FakeClock, Fault, Faulty, Primitive};
use hyper_session::{Clock, DeviceBound, Keyring};
use serde_json::{Value, json};

use crate::browser::{Browser, IDENTIFIER, PROOF, post, with_cookies};
use crate::device::{Device, Offer, challenge, offer};
use crate::site::{BOUND, Body, GRACE, LIFETIME, NAME, START, Site, block_on, key, text};
use crate::thefts::with_only;

#[test]
fn a_session_is_bound_after_the_login() {
    for site in Site::all() {
        block_on(async {
            let mut browser = Browser::new();
            assert_eq!(browser.read(&site, "/").await, "stranger unbound 0");
            let before = browser.cookies.get(NAME).map(<[u8]>::to_vec);
            let offered = browser.log_in(&site).await;
            assert_eq!(offered.path, "/device-bound/register");
            assert_eq!(browser.read(&site, "/").await, "ada unbound 0");

            let response = browser.register(&site, &offered).await;
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()["content-type"], "application/json");
            assert_eq!(response.headers()["cache-control"], "no-store");
            let lines: Vec<_> = response.headers().get_all(SET_COOKIE).iter().collect();
            let bound = lines.iter().find(|line| line.to_str().unwrap().starts_with(BOUND)).unwrap();
            assert!(bound.is_sensitive());
            let attributes = "; Max-Age=600; Path=/; Secure; HttpOnly; SameSite=Lax";
            assert!(bound.to_str().unwrap().ends_with(attributes), "{bound:?}");

            let instructions: Value = serde_json::from_str(&text(response).await).unwrap();
            let identifier = instructions["session_identifier"].as_str().unwrap();
            assert!(identifier.starts_with('b') && identifier.len() == 23);
            let expected = json!({
                "session_identifier": identifier,
                "refresh_url": "/device-bound/refresh",
                "scope": { "include_site": false, "scope_specification": [] },
                "credentials": [{
                    "type": "cookie",
                    "name": BOUND,
                    "attributes": "Path=/; Secure; HttpOnly; SameSite=Lax",
                }],
            });
            assert_eq!(instructions, expected);
            assert_eq!(browser.read(&site, "/").await, "ada bound 0");
            // A cookie store gives the session another token, since a copy of the old one is not bound.
            let events = if site.is_in_cookies() { "bound:new_id" } else { "bound" };
            assert_eq!(site.events(), [events]);
            assert_ne!(browser.cookies.get(NAME).map(<[u8]>::to_vec), before);
        });
    }
}

#[test]
fn a_binding_lasts_as_long_as_its_session_by_refreshes() {
    for site in Site::all() {
        block_on(async {
            let mut browser = Browser::new();
            browser.bind(&site).await;
            for round in 1..=20 {
                site.clock.advance(LIFETIME);
                site.events();
                assert_eq!(browser.read(&site, "/").await, "stranger lapsed 0");
                assert_eq!(browser.refresh(&site).await, 200);
                assert_eq!(site.events(), ["lapsed", "proved"], "a refresh is not a lapse");
                assert_eq!(browser.read(&site, "/visit").await, format!("ada bound {round}"));
            }
        });
    }
}

#[test]
fn values_that_the_login_page_sets_meanwhile_are_kept_on_the_server() {
    for site in Site::all().into_iter().filter(|site| !site.is_in_cookies()) {
        block_on(async {
            let mut browser = Browser::new();
            let offered = browser.log_in(&site).await;
            let mut page = Browser { cookies: browser.cookies.clone(), ..Browser::new() };
            assert_eq!(page.read(&site, "/visit").await, "ada unbound 1");
            assert_eq!(browser.register(&site, &offered).await.status(), 200);
            // Without the bound cookie, in the grace.
            assert_eq!(page.read(&site, "/visit").await, "ada bound 2", "{}", site.kind);
            assert_eq!(browser.read(&site, "/").await, "ada bound 2");
        });
    }
}

// A long poll or a slow upload of the login page asks for its session when the minute has passed. It has no bound cookie, and must not
// replace the cookie of the session.
#[test]
fn a_request_from_before_the_registration_does_not_replace_the_session() {
    for site in Site::all().into_iter().filter(|site| !site.follows_a_log()) {
        for seconds in [60, 150, 299] {
            block_on(async {
                let mut browser = Browser::new();
                let offered = browser.log_in(&site).await;
                let mut page = Browser { cookies: browser.cookies.clone(), ..Browser::new() };
                browser.bind_by(&site, &offered).await;
                site.clock.advance(Duration::from_secs(seconds));
                let response = page.visit(&site, "/visit").await;
                browser.cookies.receive(response.headers());
                let page = text(response).await;
                assert!(page.starts_with("stranger"), "{} {seconds} {page}", site.kind);
                assert_eq!(browser.read(&site, "/").await, "ada bound 0", "{} {seconds}", site.kind);
            });
        }
    }
}

// Cookies know no order: the response of a page that was loading during the registration can arrive last.
#[test]
fn a_binding_that_a_page_of_the_login_replaced_is_offered_again() {
    let site = Site::on_cookies_with(FakeClock::at(START), |builder| builder);
    block_on(async {
        let mut browser = Browser::new();
        let offered = browser.log_in(&site).await;
        let mut page = Browser { cookies: browser.cookies.clone(), ..Browser::new() };
        assert_eq!(browser.register(&site, &offered).await.status(), 200);
        let late = page.visit(&site, "/visit").await;
        assert!(offer(late.headers()).is_none(), "an offer for each page would be one too many");
        browser.cookies.receive(late.headers());
        assert_eq!(browser.read(&site, "/").await, "ada unbound 1");

        let response = browser.visit(&site, "/visit").await;
        let offered = offer(response.headers()).expect("another offer");
        assert_eq!(browser.register(&site, &offered).await.status(), 200);
        assert_eq!(browser.read(&site, "/").await, "ada bound 2");
        assert!(offer(browser.visit(&site, "/visit").await.headers()).is_none(), "bound");
    });
}

#[test]
fn a_session_keeps_its_binding_under_each_new_token() {
    for site in Site::all() {
        for deed in ["/regenerate", "/reauthenticate", "/login"] {
            block_on(async {
                let mut browser = Browser::new();
                browser.bind(&site).await;
                site.clock.advance(GRACE);
                let before = browser.cookies.get(NAME).map(<[u8]>::to_vec);
                let response = browser.visit(&site, deed).await;
                assert!(offer(response.headers()).is_none(), "bound already");
                assert_ne!(browser.cookies.get(NAME).map(<[u8]>::to_vec), before);
                assert_eq!(browser.read(&site, "/").await, "ada bound 0", "{} {deed}", site.kind);
                site.clock.advance(LIFETIME);
                assert_eq!(browser.refresh(&site).await, 200, "{} {deed}", site.kind);
                assert_eq!(browser.read(&site, "/").await, "ada bound 0");
            });
        }
    }
}

// A refresh that overlaps with a new token must not end the binding in the browser.
#[test]
fn a_refresh_with_a_token_that_was_superseded_moments_ago_is_to_be_sent_again() {
    for site in Site::all() {
        block_on(async {
            let mut browser = Browser::new();
            browser.bind(&site).await;
            let before = Browser {
                cookies: browser.cookies.clone(),
                bound: browser.bound.clone(),
                device: Device::new(),
            };
            browser.visit(&site, "/regenerate").await;
            assert_eq!(before.ask(&site).await.status(), 503, "{}", site.kind);
            assert_eq!(browser.refresh(&site).await, 200);
        });
    }
}

#[test]
fn another_user_begins_an_unbound_session() {
    for site in Site::all() {
        block_on(async {
            let mut browser = Browser::new();
            browser.bind(&site).await;
            let response = browser.visit(&site, "/login-bob").await;
            let offered = offer(response.headers()).expect("an offer");
            assert_eq!(browser.read(&site, "/").await, "bob unbound 0");
            // The browser's previous binding has ended, as its next refresh tells.
            assert_eq!(browser.refresh(&site).await, 401);
            // Each binding has a key of its own.
            browser.device = Device::new();
            assert_eq!(browser.register(&site, &offered).await.status(), 200);
            assert_eq!(browser.read(&site, "/").await, "bob bound 0");
            assert_eq!(browser.refresh(&site).await, 401, "the previous binding");
        });
    }
}

#[test]
fn a_logout_removes_both_cookies_and_ends_the_binding() {
    for site in Site::all() {
        block_on(async {
            let mut browser = Browser::new();
            browser.bind(&site).await;
            let copy = browser.cookies.clone();
            assert_eq!(browser.read(&site, "/logout").await, "stranger unbound 0");
            assert_eq!(browser.cookies.header(), None);
            assert_eq!(browser.refresh(&site).await, 401);
            let mut thief = Browser { cookies: copy, ..Browser::new() };
            assert!(thief.read(&site, "/").await.starts_with("stranger"));
        });
    }
}

// A user whose bound cookie could not be refreshed wants to be logged out all the same.
#[test]
fn a_logout_of_a_lapsed_session_ends_it() {
    for site in Site::all() {
        block_on(async {
            let mut browser = Browser::new();
            browser.bind(&site).await;
            site.clock.advance(LIFETIME);
            let copy = browser.cookies.clone();
            browser.visit(&site, "/logout").await;
            assert_eq!(browser.cookies.header(), None, "{}", site.kind);
            browser.cookies = copy;
            assert_eq!(browser.refresh(&site).await, 401, "{}: the session has ended", site.kind);
        });
    }
}

/// An older session that is not bound, and a newer one that is bound. One browser may send both.
async fn older_beside_bound(site: &Site) -> (Browser, Browser) {
    let mut older = Browser::new();
    older.log_in(site).await;
    site.clock.advance(Duration::from_secs(5));
    let mut bound = Browser::new();
    bound.bind(site).await;
    (older, bound)
}

/// A cookie of a browser, as in a `Cookie` field.
fn pair(browser: &Browser, name: &str) -> String {
    format!("{name}={}", std::str::from_utf8(browser.cookies.get(name).unwrap()).unwrap())
}

// The browser sends an older session, too. If it stayed alive, the next request would be logged in again.
#[test]
fn a_logout_of_a_lapsed_session_ends_the_other_sessions_of_the_request() {
    for site in Site::all() {
        block_on(async {
            let (mut older, browser) = older_beside_bound(&site).await;
            site.clock.advance(LIFETIME);
            assert_eq!(older.read(&site, "/").await, "ada unbound 0", "{}", site.kind);

            let both = [pair(&browser, NAME), pair(&older, NAME)].join("; ");
            let logout = Request::get("/logout").header(COOKIE, both).body(Body::default()).unwrap();
            assert_eq!(site.call(logout).await.status(), 200);
            assert!(older.read(&site, "/").await.starts_with("stranger"), "{}", site.kind);
        });
    }
}

/// A cookie store then sets a tombstone instead of removing the session's cookie.
#[test]
fn t27_a_logout_with_several_cookies_removes_the_bound_cookie() {
    for site in Site::all() {
        block_on(async {
            let (older, mut browser) = older_beside_bound(&site).await;
            let cookies = [pair(&browser, NAME), pair(&older, NAME), pair(&browser, BOUND)].join("; ");
            let logout = Request::get("/logout").header(COOKIE, cookies).body(Body::default()).unwrap();
            browser.cookies.receive(site.call(logout).await.headers());
            assert_eq!(browser.cookies.get(BOUND), None, "{}", site.kind);
        });
    }
}

#[test]
fn a_login_in_a_lapsed_session_begins_another_one() {
    for site in Site::all() {
        block_on(async {
            let mut browser = Browser::new();
            browser.bind(&site).await;
            site.clock.advance(LIFETIME);
            let copy = browser.cookies.clone();
            let response = browser.visit(&site, "/login").await;
            assert!(offer(response.headers()).is_some());
            assert_eq!(text(response).await, "ada unbound 0", "in the same request");
            assert_eq!(browser.read(&site, "/").await, "ada unbound 0");
            browser.cookies = copy;
            assert_eq!(browser.refresh(&site).await, 401, "{}: the lapsed one has ended", site.kind);
        });
    }
}

// The browser sends a superseded token, too. The new token may reach it after that of the login.
#[test]
fn a_login_in_a_lapsed_session_ends_no_session_whose_new_token_is_on_its_way() {
    for (path, page) in [("/login", "ada unbound 0"), ("/logout", "stranger unbound 0")] {
        for site in Site::all().into_iter().filter(|site| !site.is_in_cookies()) {
            block_on(async {
                let (mut other, mut bound) = (Browser::new(), Browser::new());
                other.log_in(&site).await;
                bound.bind(&site).await;
                site.clock.advance(GRACE);
                let both = [pair(&bound, NAME), pair(&other, NAME)].join("; ");
                other.visit(&site, "/regenerate").await;
                site.events();
                let request = Request::get(path).header(COOKIE, both).body(Body::default()).unwrap();
                assert_eq!(site.call(request).await.status(), 200);
                assert!(site.events().contains(&"lapsed".to_owned()), "{}", site.kind);
                assert_eq!(other.read(&site, "/").await, page, "{} {path}", site.kind);
            });
        }
    }
}

#[test]
fn a_browser_that_cannot_bind_notices_nothing() {
    for site in Site::all() {
        block_on(async {
            let mut other = Browser::new();
            other.log_in(&site).await;
            let response = other.visit(&site, "/logout").await;
            assert_eq!(response.headers().get_all(SET_COOKIE).iter().count(), 1, "it had no bound cookie");
            let mut browser = Browser::new();
            browser.log_in(&site).await;
            site.events();
            for hours in 1..=20 {
                site.clock.advance(Duration::from_secs(3600));
                assert_eq!(browser.read(&site, "/visit").await, format!("ada unbound {hours}"));
            }
            assert_eq!(site.events(), [""; 0]);
        });
    }
}

#[test]
fn an_unbound_session_is_offered_a_binding_again_when_it_is_renewed() {
    for site in Site::all() {
        block_on(async {
            let mut browser = Browser::new();
            browser.log_in(&site).await;
            assert!(offer(browser.visit(&site, "/visit").await.headers()).is_none(), "a change of a value");
            site.clock.advance(Duration::from_secs(3 * 3600));
            let response = browser.visit(&site, "/").await;
            let offered = offer(response.headers()).expect("a renewal");
            browser.bind_by(&site, &offered).await;
            assert_eq!(browser.read(&site, "/").await, "ada bound 1");
            site.clock.advance(Duration::from_secs(3 * 3600));
            assert_eq!(browser.refresh(&site).await, 200);
            assert!(offer(browser.visit(&site, "/").await.headers()).is_none(), "bound already");
        });
    }
}

// Browsers do not refresh for such requests: ten minutes later, the user would look logged out in each of them.
#[test]
fn a_page_of_another_origin_that_fetches_a_response_is_offered_nothing() {
    for site in Site::all() {
        block_on(async {
            for (from, mode, offers) in [
                ("same-site", "cors", false),
                ("cross-site", "cors", false),
                ("same-site", "no-cors", false),
                ("same-origin", "cors", true),
                // The way back from a provider, or a form of a sibling.
                ("same-site", "navigate", true),
                ("cross-site", "navigate", true),
                ("none", "navigate", true),
            ] {
                let fields =
                    |path| Request::get(path).header("sec-fetch-site", from).header("sec-fetch-mode", mode);
                let login = site.call(fields("/login").body(Body::default()).unwrap()).await;
                assert_eq!(offer(login.headers()).is_some(), offers, "{} {from} {mode}", site.kind);
                // A renewal.
                let mut browser = Browser::new();
                browser.cookies.receive(login.headers());
                site.clock.advance(Duration::from_secs(3 * 3600));
                let renewal = site.call(with_cookies(fields("/"), &browser.cookies)).await;
                assert!(renewal.headers().contains_key(SET_COOKIE));
                assert_eq!(offer(renewal.headers()).is_some(), offers, "{} {from} {mode}", site.kind);
            }
        });
    }
}

#[test]
fn nothing_is_offered_to_visitors_nor_by_responses_that_save_nothing() {
    for site in Site::all() {
        block_on(async {
            let mut browser = Browser::new();
            for path in ["/", "/ping", "/visit", "/regenerate", "/fail"] {
                assert!(offer(browser.visit(&site, path).await.headers()).is_none(), "{path}");
            }
        });
    }
}

#[test]
fn requests_that_do_not_ask_for_their_session_pay_nothing() {
    for site in Site::all() {
        block_on(async {
            let mut browser = Browser::new();
            browser.bind(&site).await;
            site.clock.advance(LIFETIME);
            site.events();
            let response = browser.visit(&site, "/ping").await;
            assert!(response.headers().is_empty(), "{:?}", response.headers());
            assert_eq!(site.events(), [""; 0], "not even looked at");
        });
    }
}

#[test]
fn both_spellings_of_a_field_are_read() {
    for site in Site::all() {
        block_on(async {
            let mut browser = Browser::new();
            let offered = browser.log_in(&site).await;
            let proof = format!("\"{}\"", browser.device.registration(&offered.challenge));
            let response = post(&site, &offered.path, &browser.cookies, &[(PROOF, &proof)]).await;
            assert_eq!(response.status(), 200);
            browser.cookies.receive(response.headers());
            let instructions: Value = serde_json::from_str(&text(response).await).unwrap();
            let identifier = format!("\"{}\"", instructions["session_identifier"].as_str().unwrap());
            let path = instructions["refresh_url"].as_str().unwrap();
            let asked = post(&site, path, &browser.cookies, &[(IDENTIFIER, &identifier)]).await;
            assert_eq!(asked.status(), 403);
            let field = asked.headers()["secure-session-challenge"].to_str().unwrap();
            assert!(field.ends_with(&format!(";id={identifier}")), "{field}");
            let proof = format!("\"{}\"", browser.device.refresh(&challenge(asked.headers())));
            let fields = [(IDENTIFIER, &*identifier), (PROOF, &proof)];
            assert_eq!(post(&site, path, &browser.cookies, &fields).await.status(), 200);
        });
    }
}

#[test]
fn malformed_proofs_are_refused_and_change_nothing() {
    for site in Site::all() {
        block_on(async {
            let mut browser = Browser::new();
            let offered = browser.log_in(&site).await;
            let device = &browser.device;
            let jti = json!({ "jti": offered.challenge });
            let header = |alg: &str, typ: &str| json!({ "alg": alg, "typ": typ, "jwk": device.jwk() });
            let good = device.registration(&offered.challenge);
            let no_key = device.refresh(&offered.challenge);
            let bad = [
                device.sign(&header("none", "dbsc+jwt"), &jti),
                device.sign(&header("HS256", "dbsc+jwt"), &jti),
                device.sign(&header("ES256", "jwt"), &jti),
                device.sign(&header("ES256", "dbsc+jwt"), &json!({ "aud": "x" })),
                device.sign(&json!({ "alg": "ES256", "typ": "dbsc+jwt", "jwk": "key" }), &jti),
                device.sign(
                    &json!({ "alg": "ES256", "typ": "dbsc+jwt", "jwk": device.jwk(), "crit": ["x"] }),
                    &jti,
                ),
                no_key,
                good[1..].to_owned(),
                format!("{good}="),
                format!("{good}.{good}"),
                "a".repeat(5_000),
            ];
            for proof in &bad {
                let response = post(&site, &offered.path, &browser.cookies, &[(PROOF, proof)]).await;
                assert_eq!(response.status(), 400, "{proof}");
                assert!(!response.headers().contains_key(SET_COOKIE));
            }
            assert_eq!(post(&site, &offered.path, &browser.cookies, &[]).await.status(), 400);
            let twice = [(PROOF, &*good), (PROOF, &*good)];
            assert_eq!(post(&site, &offered.path, &browser.cookies, &twice).await.status(), 400);
            assert_eq!(browser.register(&site, &offered).await.status(), 200, "none of it used up the offer");
        });
    }
}

// A host that starts finds all that it must know in the cookies, in the store, and in the log of revocations.
#[test]
fn the_server_keeps_nothing_and_survives_its_restart() {
    for site in Site::all() {
        block_on(async {
            let mut browser = Browser::new();
            let offered = browser.log_in(&site).await;
            browser.bind_by(&site.another_host().await, &offered).await;
            site.clock.advance(LIFETIME);
            let asked = browser.ask(&site.another_host().await).await;
            let proof = browser.device.refresh(&challenge(asked.headers()));
            let response = browser.prove(&site.another_host().await, &proof).await;
            assert_eq!(response.status(), 200, "{}", site.kind);
            assert_eq!(browser.read(&site.another_host().await, "/").await, "ada bound 0", "{}", site.kind);
        });
    }
}

// Status 401 would end the binding that the browser has just made. After a server error there is none, and the session goes on.
#[test]
fn a_registration_that_cannot_be_saved_is_a_server_error() {
    let backend = Faulty::new(Memory::new());
    let site = Site::on_backend(backend.clone());
    block_on(async {
        let mut browser = Browser::new();
        let offered = browser.log_in(&site).await;
        backend.fail(Primitive::Replace, Fault::Unreachable);
        site.events();
        assert_eq!(browser.register(&site, &offered).await.status(), 503);
        assert_eq!(site.events(), ["dropped:save_failed"]);
        backend.repair();
        assert_eq!(browser.read(&site, "/").await, "ada unbound 0");
        assert_eq!(browser.cookies.get(BOUND), None);
    });
}

// The entry is bound, and only the reply says so.
#[test]
fn a_registration_whose_reply_from_the_store_was_lost_counts() {
    let backend = Faulty::new(Memory::new());
    let site = Site::on_backend(backend.clone());
    block_on(async {
        let mut browser = Browser::new();
        let offered = browser.log_in(&site).await;
        let lost = AtomicUsize::new(0);
        backend.intercept(move |call| {
            let is_first = call.primitive == Primitive::Replace && lost.fetch_add(1, Ordering::SeqCst) == 0;
            is_first.then_some(Fault::AnswerLost)
        });
        site.events();
        browser.bind_by(&site, &offered).await;
        assert_eq!(site.events(), ["bound"]);
        site.clock.advance(GRACE);
        assert_eq!(browser.read(&site, "/").await, "ada bound 0");
        // Another registration with the same offer does not replace its key.
        browser.device = Device::new();
        assert_eq!(browser.register(&site, &offered).await.status(), 401);
    });
}

/// Registers with this proof, and returns the status and the cookies of the response.
async fn registered(site: &Site, offered: &Offer, cookies: &Cookies, proof: &str) -> (u16, Cookies) {
    let response = post(site, &offered.path, cookies, &[(PROOF, proof)]).await;
    let mut set = Cookies::new();
    set.receive(response.headers());
    (response.status().as_u16(), set)
}

// The connection broke, or the process was killed after the save. A proxy or the browser itself sends the request once more.
#[test]
fn a_registration_that_is_sent_again_is_answered_again() {
    for site in Site::all().into_iter().filter(|site| !site.is_in_cookies()) {
        for (waits, on_another) in [([0, 0], false), ([0, 0], true), ([1, 59], true), ([99, 200], false)] {
            block_on(async {
                let other = if on_another { site.another_host().await } else { site.clone() };
                let mut browser = Browser::new();
                let offered = browser.log_in(&site).await;
                let proof = browser.device.registration(&offered.challenge);
                site.clock.advance(Duration::from_secs(waits[0]));
                let (first, lost) = registered(&site, &offered, &browser.cookies, &proof).await;
                site.clock.advance(Duration::from_secs(waits[1]));
                other.events();
                let (second, set) = registered(&other, &offered, &browser.cookies, &proof).await;
                assert_eq!((first, second), (200, 200), "{} {waits:?}", site.kind);
                assert!(other.events().contains(&"proved".to_owned()), "{}", site.kind);
                // Each is worth the same: the value contains its end.
                assert!(set.get(BOUND).is_some() && set.get(BOUND) == lost.get(BOUND), "{}", site.kind);

                // Another device gets nothing, with the same offer.
                let stranger = Device::new().registration(&offered.challenge);
                let (status, set) = registered(&other, &offered, &browser.cookies, &stranger).await;
                assert_eq!((status, set.get(BOUND)), (401, None), "{}", site.kind);

                let response = browser.register(&other, &offered).await;
                assert_eq!(response.status(), 200);
                browser.obey(response).await;
                site.clock.advance(GRACE);
                assert_eq!(browser.read(&site, "/").await, "ada bound 0", "{} {waits:?}", site.kind);
                site.clock.advance(LIFETIME);
                assert_eq!(browser.refresh(&site).await, 200, "{}", site.kind);
                let (status, _) = registered(&site, &offered, &browser.cookies, &proof).await;
                assert_eq!(status, 401, "{}: the challenge is too old", site.kind);
            });
        }
    }
}

// The guide: on a cookie store the old cookie is not bound, and its session has another id by then.
#[test]
fn a_registration_that_is_sent_again_with_an_old_cookie_is_refused() {
    for site in Site::all().into_iter().filter(Site::is_in_cookies) {
        block_on(async {
            let mut browser = Browser::new();
            let offered = browser.log_in(&site).await;
            let proof = browser.device.registration(&offered.challenge);
            let (first, _) = registered(&site, &offered, &browser.cookies, &proof).await;
            let (second, set) = registered(&site, &offered, &browser.cookies, &proof).await;
            assert_eq!((first, second), (200, 401), "{}", site.kind);
            assert_eq!(set.header(), None, "{}", site.kind);
        });
    }
}

// A logout ends the binding in the browser by the refresh that follows it. It is not an attack.
#[test]
fn a_refresh_without_a_proof_after_a_logout_is_not_reported() {
    for site in Site::all() {
        for (deed, is_bound_again, why) in [
            ("/logout", false, "refused:no_session"),
            ("/login-bob", false, "refused:no_session"),
            ("/login-bob", true, "refused:other_binding"),
        ] {
            block_on(async {
                let mut browser = Browser::new();
                browser.bind(&site).await;
                let response = browser.visit(&site, deed).await;
                if is_bound_again {
                    let mut again = Browser { cookies: browser.cookies.clone(), ..Browser::new() };
                    again.bind_by(&site, &offer(response.headers()).expect("an offer")).await;
                    browser.cookies = again.cookies;
                }
                site.events();
                assert_eq!(browser.ask(&site).await.status(), 401, "{} {deed}", site.kind);
                assert_eq!(site.events(), [""; 0], "{} {deed}", site.kind);
                let proof = browser.device.refresh("challenge");
                assert_eq!(browser.prove(&site, &proof).await.status(), 401, "{} {deed}", site.kind);
                assert_eq!(site.events(), [why], "{} {deed}", site.kind);
            });
        }
    }
}

// A later release may keep more of a binding. Status 401 would end it in the browser.
#[test]
fn b2_a_refresh_of_a_binding_of_a_later_release_is_to_be_sent_again() {
    let backend = Faulty::new(Memory::new());
    let site = Site::on_backend(backend.clone());
    block_on(async {
        let mut browser = Browser::new();
        let written = Arc::new(Mutex::new(None));
        let offered = browser.log_in(&site).await;
        let seen = Arc::clone(&written);
        backend.intercept(move |call| {
            if let (Primitive::Replace, Some(entry)) = (call.primitive, &call.entry) {
                *seen.lock().unwrap() = Some((call.id, entry.clone()));
            }
            None
        });
        browser.bind_by(&site, &offered).await;
        let (id, entry) = written.lock().unwrap().take().expect("the bound session");
        // An array of six integers follows the name of the value. The second one says whether y is odd.
        let mut value = entry.value.to_vec();
        let array = value.windows(3).position(|bytes| bytes == [1, b'b', 0x96]).expect("the binding") + 2;
        let odd = array + 1 + 5;
        assert!((value[array + 1], value[odd] < 2) == (0xce, true), "{value:?}");
        value[odd] = 2;
        let later = Stored { value: value.into(), expires: entry.expires };
        let replaced = backend.replace(id, entry.value, Some(later), site.clock.now()).await.unwrap();
        assert_eq!(replaced, Replaced::Done);
        site.clock.advance(GRACE);
        assert_eq!(browser.read(&site, "/").await, "stranger lapsed 0", "not as an unbound one");
        assert_eq!(browser.ask(&site).await.status(), 503);
        // A request of the login page, when the minute has passed: this host does not know when the session was bound.
        let mut page = with_only(NAME, &browser.cookies);
        site.clock.advance(LIFETIME);
        let response = page.visit(&site, "/visit").await;
        assert!(!response.headers().contains_key(SET_COOKIE));
    });
}

// Status 400 would end the binding in the browser.
#[test]
fn b2_a_refresh_with_an_identifier_of_a_later_release_is_to_be_sent_again() {
    for site in Site::all() {
        block_on(async {
            let mut browser = Browser::new();
            browser.bind(&site).await;
            let path = browser.bound.clone().unwrap().refresh_url;
            for (identifier, bound, unbound) in
                [(Some("b".repeat(24)), 503, 401), (Some("(b)".to_owned()), 503, 401), (None, 400, 401)]
            {
                let fields: Vec<_> =
                    identifier.iter().map(|identifier| (IDENTIFIER, identifier.as_str())).collect();
                let status = post(&site, &path, &browser.cookies, &fields).await.status();
                assert_eq!(status, bound, "{} {identifier:?}", site.kind);
                // Without a session, no release knows it.
                let status = post(&site, &path, &Cookies::new(), &fields).await.status();
                assert_eq!(status, unbound, "{} {identifier:?}", site.kind);
            }
            site.clock.advance(LIFETIME);
            assert_eq!(browser.refresh(&site).await, 200, "{}", site.kind);
        });
    }
}

// T17: a new application key logs no user out, and a revoked one logs all out.
#[test]
fn t17_a_binding_outlives_its_application_key() {
    let clock = FakeClock::at(START);
    let new = || hyper_session::AppKey::danger_from_any_bytes(b"another key").unwrap();
    let with = |keys: Keyring| {
        let options = DeviceBound::new().keys(keys.clone());
        let builder = hyper_session::CookieStore::builder(keys).clock(clock.clone());
        Site {
            store: std::sync::Arc::new(builder.device_bound(options).build().unwrap()),
            ..Site::on_cookies()
        }
    };
    block_on(async {
        let mut browser = Browser::new();
        browser.bind(&with(key().into())).await;
        let both = with(Keyring::new(new()).accept(key()));
        clock.advance(GRACE);
        assert_eq!(browser.read(&both, "/").await, "ada bound 0");
        clock.advance(LIFETIME);
        assert_eq!(browser.refresh(&both).await, 200);
        browser.read(&both, "/visit").await;
        // The session has been sealed again. The identifier is a hash, which needs no key.
        let only_new = with(new().into());
        assert_eq!(browser.read(&only_new, "/").await, "ada bound 1");
        clock.advance(LIFETIME);
        assert_eq!(browser.refresh(&only_new).await, 200);
        let revoked = with(Keyring::new(key()).revoke(new().id()));
        assert!(browser.read(&revoked, "/").await.starts_with("stranger"));
    });
}
