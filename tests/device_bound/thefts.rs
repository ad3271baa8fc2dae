//! Thefts of cookies, proofs and challenges: each is worthless after a bounded time.

use std::time::Duration;

use http::header::COOKIE;
use http::{Request, Response};
use hyper::service::Service;
use hyper_session::Clock;
use hyper_session::store::Memory;
use hyper_session::testing::{Cookies, FakeClock, Fault, Faulty, Primitive};

use crate::browser::{Browser, IDENTIFIER, PROOF, post};
use crate::device::{Device, Offer, challenge, offer};
use crate::dice::Dice;
use crate::site::{BOUND, Body, GRACE, LIFETIME, NAME, START, Site, block_on, text};

const SECOND: Duration = Duration::from_secs(1);
/// A second before the end of each.
const NEARLY_LIFETIME: Duration = Duration::from_secs(599);
const NEARLY_GRACE: Duration = Duration::from_secs(59);

/// Another client, with a copy of the cookies.
fn thief(browser: &Browser) -> Browser {
    Browser { device: Device::new(), cookies: browser.cookies.clone(), bound: browser.bound.clone() }
}

/// A client with only the cookie of this name.
pub(crate) fn with_only(name: &str, of: &Cookies) -> Browser {
    let mut headers = http::HeaderMap::new();
    let value = std::str::from_utf8(of.get(name).unwrap()).unwrap();
    headers.insert("set-cookie", format!("{name}={value}").parse().unwrap());
    let mut browser = Browser::new();
    browser.cookies.receive(&headers);
    browser
}

#[test]
fn both_cookies_copied_to_another_client_are_refused_after_the_life_of_the_bound_one() {
    for site in Site::all() {
        block_on(async {
            let mut victim = Browser::new();
            victim.bind(&site).await;
            let mut thief = thief(&victim);
            site.clock.advance(NEARLY_LIFETIME);
            assert_eq!(thief.read(&site, "/").await, "ada bound 0", "{}", site.kind);
            site.clock.advance(SECOND);
            site.events();
            let kept = thief.cookies.header();
            assert_eq!(thief.read(&site, "/visit").await, "stranger lapsed 1", "{}", site.kind);
            assert_eq!(site.events(), ["lapsed", "dropped:session_ended"]);
            assert_eq!(thief.cookies.header(), kept, "the cookie stays");
            // The victim's device refreshes, and nothing has changed for it.
            assert_eq!(victim.refresh(&site).await, 200);
            assert_eq!(victim.read(&site, "/visit").await, "ada bound 1");
            assert_eq!(thief.read(&site, "/").await, "stranger lapsed 0");
        });
    }
}

#[test]
fn the_session_cookie_alone_is_refused_at_once_after_the_grace() {
    for site in Site::all() {
        block_on(async {
            let mut victim = Browser::new();
            victim.bind(&site).await;
            site.clock.advance(GRACE);
            for name in [NAME, BOUND] {
                let page = with_only(name, &victim.cookies).read(&site, "/").await;
                assert!(page.starts_with("stranger"), "{} {name} {page}", site.kind);
            }
            assert_eq!(victim.read(&site, "/").await, "ada bound 0");
        });
    }
}

// Where another host reads the session, whose clock is an hour behind, the grace does not last for that hour.
#[test]
fn a_host_whose_clock_is_behind_gives_no_longer_grace() {
    for site in Site::all().into_iter().filter(|site| !site.is_in_cookies()) {
        block_on(async {
            let start = site.clock.now().as_unix();
            site.clock.advance(Duration::from_secs(3_600));
            let mut victim = Browser::new();
            victim.bind(&site).await;
            site.clock.set(start);
            let thief = with_only(NAME, &victim.cookies).read(&site, "/").await;
            assert_eq!(thief, "stranger lapsed 0", "{}", site.kind);
            assert_eq!(victim.read(&site, "/").await, "ada bound 0", "{}", site.kind);
        });
    }
}

#[test]
fn a_cookie_copied_before_the_registration_is_refused_after_the_grace() {
    for site in Site::all() {
        block_on(async {
            let mut victim = Browser::new();
            let offer = victim.log_in(&site).await;
            let mut thief = thief(&victim);
            assert_eq!(victim.register(&site, &offer).await.status(), 200);
            let since = site.clock.now();
            // The requests of the login page, which are on their way.
            site.clock.advance(NEARLY_GRACE);
            assert!(thief.read(&site, "/").await.starts_with("ada"), "{}", site.kind);
            site.end_grace(since);
            assert!(thief.is_stranger(&site).await, "{}", site.kind);
            assert_eq!(victim.read(&site, "/").await, "ada bound 0", "{}", site.kind);
        });
    }
}

// During the grace the copy can be read. It must not become a session that lasts.
#[test]
fn a_copy_in_its_grace_does_not_become_a_session_of_its_own() {
    for site in Site::all() {
        for deed in ["/visit", "/regenerate", "/reauthenticate", "/"] {
            block_on(async {
                let mut victim = Browser::new();
                let offer = victim.log_in(&site).await;
                let mut thief = thief(&victim);
                assert_eq!(victim.register(&site, &offer).await.status(), 200);
                let since = site.clock.now();
                // A third of the idle timeout is not reached, so no renewal is due; the deeds are what writes.
                thief.visit(&site, deed).await;
                site.end_grace(since);
                assert!(thief.is_stranger(&site).await, "{} {deed}", site.kind);
            });
        }
    }
}

#[test]
fn a_copy_from_before_the_registration_registers_no_key() {
    for site in Site::all() {
        block_on(async {
            let mut victim = Browser::new();
            let offer = victim.log_in(&site).await;
            let mut thief = thief(&victim);
            assert_eq!(victim.register(&site, &offer).await.status(), 200);
            let since = site.clock.now();
            site.events();
            let response = thief.register(&site, &offer).await;
            assert_eq!(response.status(), 401, "{}", site.kind);
            assert!(!response.headers().contains_key("set-cookie"));
            assert_eq!(thief.read(&site, "/").await.split(' ').next(), Some("ada"), "it is in its grace");
            site.end_grace(since);
            assert!(thief.is_stranger(&site).await, "{}", site.kind);
            assert_eq!(victim.read(&site, "/").await, "ada bound 0");
        });
    }
}

#[test]
fn a_bound_session_is_not_bound_again_by_a_thief_with_both_cookies() {
    for site in Site::all() {
        block_on(async {
            let mut victim = Browser::new();
            let offer = victim.log_in(&site).await;
            victim.register(&site, &offer).await;
            let mut thief = thief(&victim);
            for wait in [Duration::ZERO, LIFETIME] {
                site.clock.advance(wait);
                site.events();
                let response = thief.register(&site, &offer).await;
                assert_eq!(response.status(), 401, "{}", site.kind);
                assert!(site.events().contains(&"refused:already_bound".to_owned()), "{}", site.kind);
            }
        });
    }
}

#[test]
fn of_two_devices_that_register_at_the_same_time_one_is_bound() {
    for site in Site::all() {
        block_on(async {
            let mut victim = Browser::new();
            let offer = victim.log_in(&site).await;
            let mut thief = thief(&victim);
            let (first, second) = tokio::join!(victim.register(&site, &offer), thief.register(&site, &offer));
            let mut statuses = [first.status().as_u16(), second.status().as_u16()];
            statuses.sort_unstable();
            assert_eq!(statuses, [200, 401], "{}", site.kind);
        });
    }
}

// Two hosts that share a store: both load the session before either of them saves it.
#[test]
fn of_two_registrations_that_overlap_on_two_hosts_one_counts() {
    let backend = Faulty::new(Memory::new());
    let [site, other] = [backend.clone(), backend.clone()].map(Site::on_backend);
    block_on(async {
        let mut victim = Browser::new();
        let offer = victim.log_in(&site).await;
        let mut thief = thief(&victim);
        backend.fail(Primitive::Replace, Fault::Delayed);
        let (first, second) = tokio::join!(victim.register(&site, &offer), thief.register(&other, &offer));
        let mut results =
            [(first.status().as_u16(), site.events()), (second.status().as_u16(), other.events())];
        results.sort_unstable();
        let expected = [(200, "bound"), (401, "refused:already_bound")];
        assert_eq!(results, expected.map(|(status, event)| (status, vec![event.to_owned()])));
        backend.repair();
        site.clock.advance(GRACE);
        let mut pages = [victim.read(&site, "/").await, thief.read(&site, "/").await];
        pages.sort_unstable();
        assert_eq!(pages, ["ada bound 0", "stranger lapsed 0"]);
    });
}

/// A proof that was sent, and the response.
async fn refreshed(site: &Site, browser: &mut Browser) -> (String, Response<Body>) {
    let asked = browser.ask(site).await;
    let proof = browser.device.refresh(&challenge(asked.headers()));
    let response = browser.prove(site, &proof).await;
    (proof, response)
}

#[test]
fn a_refresh_that_is_replayed_is_refused() {
    for site in Site::all() {
        block_on(async {
            let mut victim = Browser::new();
            victim.bind(&site).await;
            site.clock.advance(LIFETIME);
            let mut thief = thief(&victim);
            let (proof, response) = refreshed(&site, &mut victim).await;
            assert_eq!(response.status(), 200);
            site.events();
            for (wait, reason) in
                [(0, "replayed"), (60, "replayed"), (239, "replayed"), (1, "challenge"), (3600, "challenge")]
            {
                site.clock.advance(Duration::from_secs(wait));
                let response = thief.prove(&site, &proof).await;
                assert_eq!(response.status(), 403, "{}", site.kind);
                assert!(!response.headers().contains_key("set-cookie"));
                let events = site.events();
                assert!(events.contains(&format!("refused:{reason}")), "{} {events:?}", site.kind);
            }
        });
    }
}

// Where another process has not seen the first one, the replay is worth what was there to steal already.
#[test]
fn a_refresh_that_is_replayed_on_another_host_ends_with_the_first_one() {
    for site in Site::all() {
        block_on(async {
            let mut victim = Browser::new();
            victim.bind(&site).await;
            let other = site.another_host().await;
            let mut thief = thief(&victim);
            let (proof, _) = refreshed(&site, &mut victim).await;
            site.clock.advance(Duration::from_secs(299));
            assert_eq!(thief.prove(&other, &proof).await.status(), 200);
            site.clock.advance(Duration::from_secs(300));
            assert_eq!(thief.read(&other, "/").await, "ada bound 0");
            site.clock.advance(SECOND);
            assert_eq!(thief.read(&other, "/").await, "stranger lapsed 0");
        });
    }
}

#[test]
fn a_challenge_is_answered_by_its_device_for_its_session_and_its_purpose_once() {
    for site in Site::all() {
        block_on(async {
            let (mut ada, mut eve) = (Browser::new(), Browser::new());
            ada.bind(&site).await;
            eve.bind(&site).await;
            let of_ada = challenge(ada.ask(&site).await.headers());
            let of_eve = challenge(eve.ask(&site).await.headers());
            site.events();

            // Another key, with and without bringing it along.
            let mut thief = thief(&ada);
            let response = thief.prove(&site, &thief.device.refresh(&of_ada)).await;
            assert_eq!(
                (response.status().as_u16(), site.events()),
                (401, vec!["refused:signature".to_owned()])
            );
            let response = thief.prove(&site, &thief.device.registration(&of_ada)).await;
            assert_eq!(
                (response.status().as_u16(), site.events()),
                (401, vec!["refused:signature".to_owned()])
            );

            // Another session's proof, and another session's challenge.
            let proof = eve.device.refresh(&of_eve);
            assert_eq!(thief.prove(&site, &proof).await.status(), 403);
            assert_eq!(ada.prove(&site, &ada.device.refresh(&of_eve)).await.status(), 403);
            assert_eq!(site.events(), ["refused:challenge"; 2]);
            // Another session's identifier.
            let mut mixed = Browser { bound: eve.bound.clone(), ..self::thief(&ada) };
            assert_eq!(mixed.prove(&site, &proof).await.status(), 401);
            assert_eq!(site.events(), ["refused:other_binding"]);

            // The challenge of a registration.
            let mut fresh = Browser::new();
            let offered: Offer = fresh.log_in(&site).await;
            assert_eq!(ada.prove(&site, &ada.device.refresh(&offered.challenge)).await.status(), 403);
            let of_refresh = Offer { challenge: of_ada.clone(), ..offered };
            assert_eq!(fresh.register(&site, &of_refresh).await.status(), 401);
            site.events();

            // None of this used it up. It is answered once.
            let proof = ada.device.refresh(&of_ada);
            assert_eq!(ada.prove(&site, &proof).await.status(), 200);
            assert_eq!(ada.prove(&site, &proof).await.status(), 403);
            assert_eq!(site.events(), ["proved", "refused:replayed"]);
        });
    }
}

#[test]
fn the_offer_of_another_session_registers_nothing() {
    for site in Site::all() {
        block_on(async {
            let (mut ada, mut eve) = (Browser::new(), Browser::new());
            let _ = ada.log_in(&site).await;
            let of_eve = eve.log_in(&site).await;
            assert_eq!(ada.register(&site, &of_eve).await.status(), 401);
            assert_eq!(site.events(), ["refused:challenge"]);
            assert_eq!(ada.read(&site, "/").await, "ada unbound 0");
        });
    }
}

#[test]
fn an_offer_ends_after_five_minutes() {
    for site in Site::all() {
        block_on(async {
            let mut browser = Browser::new();
            let offer = browser.log_in(&site).await;
            site.clock.advance(Duration::from_secs(300));
            assert_eq!(browser.register(&site, &offer).await.status(), 401);
            assert_eq!(site.events(), ["refused:challenge"]);
        });
    }
}

#[test]
fn bound_cookies_of_two_sessions_are_not_exchanged() {
    for site in Site::all() {
        block_on(async {
            let (mut ada, mut eve) = (Browser::new(), Browser::new());
            ada.bind(&site).await;
            eve.bind(&site).await;
            site.clock.advance(GRACE);
            let mut mixed = with_only(NAME, &ada.cookies);
            let bound = std::str::from_utf8(eve.cookies.get(BOUND).unwrap()).unwrap();
            let mut headers = http::HeaderMap::new();
            headers.insert("set-cookie", format!("{BOUND}={bound}").parse().unwrap());
            mixed.cookies.receive(&headers);
            assert_eq!(mixed.read(&site, "/").await, "stranger lapsed 0", "{}", site.kind);
        });
    }
}

// A connection remembers the bound cookie that it checked last. A proxy may send the requests of a victim and of a thief over it.
#[test]
fn a_connection_that_remembers_a_bound_cookie_refuses_what_another_one_refuses() {
    let site = Site::on_cookies();
    block_on(async {
        let mut browsers = [Browser::new(), Browser::new()];
        for browser in &mut browsers {
            browser.bind(&site).await;
        }
        let value = |browser: &Browser, name| String::from_utf8(browser.cookies.get(name).unwrap().to_vec());
        let sessions = browsers.each_ref().map(|browser| value(browser, NAME).unwrap());
        let [one, two] = browsers.each_ref().map(|browser| value(browser, BOUND).unwrap());
        let altered = format!("{}{}", &one[..55], if one.ends_with('A') { 'B' } else { 'A' });
        let bound = [one, two, altered, String::new()];
        let mut dice = Dice(7);
        let mut pick = |sides| usize::try_from(dice.roll(sides)).unwrap();
        let connection = site.connection();
        for seconds in [60, 599, 600, 900] {
            site.clock.set(START + seconds);
            let mut accepted = 0;
            for _ in 0..200 {
                // Often the same ones again, as of one browser.
                let session = pick(2);
                let cookie = if pick(2) == 0 { session } else { pick(4) };
                for _ in 0..=pick(3) {
                    let fields = format!("{NAME}={}; {BOUND}={}", sessions[session], bound[cookie]);
                    let request = Request::get("/").header(COOKIE, fields).body(Body::default()).unwrap();
                    let page = text(connection.call(request).await.unwrap()).await;
                    let is_accepted = session == cookie && seconds < LIFETIME.as_secs();
                    accepted += usize::from(is_accepted);
                    let expected = if is_accepted { "ada bound 0" } else { "stranger lapsed 0" };
                    assert_eq!(page, expected, "{seconds} {session} {cookie}");
                }
            }
            assert_eq!(accepted > 100, seconds < LIFETIME.as_secs());
        }
    });
}

/// The value of a cookie of this browser.
fn value(browser: &Browser, name: &str) -> String {
    String::from_utf8(browser.cookies.get(name).unwrap().to_vec()).unwrap()
}

/// A request with this `Cookie` field.
fn with_header(path: &str, header: &str) -> Request<Body> {
    Request::get(path).header(COOKIE, header).body(Body::default()).unwrap()
}

// A sibling subdomain can plant cookies beside the genuine one, if its name has no prefix.
#[test]
fn a_planted_bound_cookie_does_not_lock_the_user_out() {
    for site in Site::all() {
        block_on(async {
            let (mut browser, mut eve) = (Browser::new(), Browser::new());
            browser.bind(&site).await;
            eve.bind(&site).await;
            site.clock.advance(GRACE);
            let genuine = browser.cookies.header().unwrap();
            let genuine = genuine.to_str().unwrap();
            for planted in ["x", "", &"A".repeat(56), &value(&eve, BOUND)] {
                for count in [1, 4, 40] {
                    let planted = vec![format!("{BOUND}={planted}"); count].join("; ");
                    for header in [format!("{planted}; {genuine}"), format!("{genuine}; {planted}")] {
                        let page = text(site.call(with_header("/", &header)).await).await;
                        assert_eq!(page, "ada bound 0", "{} {count}", site.kind);
                    }
                }
            }
        });
    }
}

/// The two requests of a refresh whose `Cookie` field is this one. Returns the status of each.
async fn refresh_with(site: &Site, browser: &Browser, header: &str) -> (u16, Option<u16>) {
    let bound = browser.bound.as_ref().unwrap();
    let request = |proof: Option<String>| {
        let request = Request::post(&bound.refresh_url).header(IDENTIFIER, &bound.identifier);
        let request = proof.into_iter().fold(request, |request, proof| request.header(PROOF, proof));
        request.header(COOKIE, header).body(Body::default()).unwrap()
    };
    let asked = site.call(request(None)).await;
    if asked.status() != 403 {
        return (asked.status().as_u16(), None);
    }
    let proof = browser.device.refresh(&challenge(asked.headers()));
    (403, Some(site.call(request(Some(proof))).await.status().as_u16()))
}

// Status 401 would end the binding. A sibling subdomain can plant a cookie for the path of the refresh only.
#[test]
fn a_planted_session_does_not_end_a_binding() {
    for site in Site::all() {
        block_on(async {
            let mut victim = Browser::new();
            victim.bind(&site).await;
            site.clock.advance(GRACE);
            let (mut unbound, mut bound) = (Browser::new(), Browser::new());
            unbound.log_in(&site).await;
            bound.bind(&site).await;
            site.clock.advance(LIFETIME);
            let genuine = value(&victim, NAME);
            for planted in [&unbound, &bound].map(|planted| value(planted, NAME)) {
                for header in [
                    format!("{NAME}={planted}; {NAME}={genuine}"),
                    format!("{NAME}={genuine}; {NAME}={planted}"),
                ] {
                    assert_eq!(
                        refresh_with(&site, &victim, &header).await,
                        (403, Some(200)),
                        "{}",
                        site.kind
                    );
                }
                let alone = format!("{NAME}={planted}");
                assert_eq!(refresh_with(&site, &victim, &alone).await, (401, None), "{}", site.kind);
            }
        });
    }
}

// The challenge names the session that was offered a binding. Status 401 would leave it unbound.
#[test]
fn a_planted_session_does_not_prevent_a_registration() {
    for site in Site::all() {
        for (is_bound, is_first) in [(false, false), (false, true), (true, false), (true, true)] {
            block_on(async {
                let mut victim = Browser::new();
                let offered = victim.log_in(&site).await;
                site.clock.advance(SECOND);
                let mut eve = Browser::new();
                let of_eve = offer(eve.visit(&site, "/login-bob").await.headers()).unwrap();
                if is_bound {
                    eve.bind_by(&site, &of_eve).await;
                }
                site.events();
                let [planted, own] =
                    [&eve, &victim].map(|browser| format!("{NAME}={}", value(browser, NAME)));
                let header = if is_first { format!("{planted}; {own}") } else { format!("{own}; {planted}") };
                let proof = victim.device.registration(&offered.challenge);
                let request = Request::post(&offered.path).header(PROOF, proof).header(COOKIE, &header);
                let response = site.call(request.body(Body::default()).unwrap()).await;
                assert_eq!(response.status(), 200, "{} {is_bound}", site.kind);
                let bound = if site.is_in_cookies() { "bound:new_id" } else { "bound" };
                assert_eq!(site.events(), [bound], "{} {is_bound}", site.kind);
                victim.cookies.receive(response.headers());
                victim.obey(response).await;
                assert_eq!(victim.read(&site, "/").await, "ada bound 0", "{} {is_bound}", site.kind);
                site.clock.advance(LIFETIME);
                assert_eq!(victim.refresh(&site).await, 200, "{} {is_bound}", site.kind);
                assert_eq!(victim.read(&site, "/").await, "ada bound 0", "{} {is_bound}", site.kind);
            });
        }
    }
}

// As many as are tried come before the genuine one.
#[test]
fn planted_cookies_that_leave_the_genuine_one_untried_do_not_end_a_binding() {
    for site in Site::all() {
        block_on(async {
            let mut victim = Browser::new();
            victim.bind(&site).await;
            site.clock.advance(LIFETIME);
            let genuine = value(&victim, NAME);
            let at = genuine.len() - 8;
            let mut altered =
                ["A", "B", "C", "D", "E"].map(|one| format!("{}{one}{}", &genuine[..at], &genuine[at + 1..]));
            altered.sort_by_key(|altered| *altered == genuine);
            let mut pairs: Vec<_> = altered[..4].iter().map(|altered| format!("{NAME}={altered}")).collect();
            pairs.push(format!("{NAME}={genuine}"));
            let header = pairs.join("; ");
            assert_eq!(refresh_with(&site, &victim, &header).await, (503, None), "{}", site.kind);
            assert_eq!(victim.refresh(&site).await, 200, "{}", site.kind);
        });
    }
}

// A tombstone hides the sessions of the browser that are older than the logout.
#[test]
fn a_session_that_a_tombstone_hides_is_not_refreshed() {
    let site = Site::on_cookies_with(FakeClock::at(START), |builder| builder);
    block_on(async {
        let (mut older, mut browser) = (Browser::new(), Browser::new());
        older.log_in(&site).await;
        site.clock.advance(SECOND);
        browser.bind(&site).await;
        site.clock.advance(GRACE);
        let both = [&browser, &older].map(|browser| format!("{NAME}={}", value(browser, NAME))).join("; ");
        assert_eq!(refresh_with(&site, &browser, &both).await, (403, Some(200)));
        let logout = site.call(with_header("/logout", &both)).await;
        let mut after = Browser::new();
        after.cookies.receive(logout.headers());
        let tombstone = value(&after, NAME);
        for header in [format!("{NAME}={tombstone}; {both}"), format!("{both}; {NAME}={tombstone}")] {
            assert_eq!(refresh_with(&site, &browser, &header).await, (401, None));
        }
    });
}

// It has ended, although its challenge is known. The newest session is judged, and nothing is bound. A session that began later counts.
#[test]
fn a_session_that_a_tombstone_hides_is_not_registered() {
    let site = Site::on_cookies_with(FakeClock::at(START), |builder| builder);
    block_on(async {
        let (mut older, mut browser, mut later) = (Browser::new(), Browser::new(), Browser::new());
        older.log_in(&site).await;
        site.clock.advance(SECOND);
        let offered = browser.log_in(&site).await;
        site.clock.advance(SECOND);
        let both = [&browser, &older].map(|browser| format!("{NAME}={}", value(browser, NAME))).join("; ");
        let mut after = Browser::new();
        after.cookies.receive(site.call(with_header("/logout", &both)).await.headers());
        site.clock.advance(SECOND);
        let of_later = later.log_in(&site).await;
        site.clock.advance(SECOND);
        let mut planted = Browser::new();
        planted.log_in(&site).await;
        let pair = |browser: &Browser| format!("{NAME}={}", value(browser, NAME));
        let [one, tombstone, newest] = [&later, &after, &planted].map(pair);
        for (device, offered, cookies, status, event) in [
            (&browser.device, &offered, format!("{one}; {tombstone}; {both}"), 401, "refused:challenge"),
            (&browser.device, &offered, format!("{both}; {tombstone}; {one}"), 401, "refused:challenge"),
            (&browser.device, &offered, format!("{tombstone}; {both}"), 401, "refused:no_session"),
            (&later.device, &of_later, format!("{newest}; {tombstone}; {one}; {both}"), 200, "bound"),
        ] {
            site.events();
            let proof = device.registration(&offered.challenge);
            let request = Request::post(&offered.path).header(PROOF, &proof).header(COOKIE, &cookies);
            let response = site.call(request.body(Body::default()).unwrap()).await;
            assert_eq!(response.status(), status, "{cookies}");
            assert_eq!(site.events().last().map(String::as_str), Some(event), "{cookies}");
        }
    });
}

#[test]
fn without_revocations_a_copy_from_before_lasts_as_the_documentation_says() {
    block_on(async {
        let site = Site::on_cookies_with(FakeClock::at(START), |builder| builder);
        let mut victim = Browser::new();
        let offer = victim.log_in(&site).await;
        let mut before = thief(&victim);
        assert_eq!(victim.register(&site, &offer).await.status(), 200);
        let mut after = thief(&victim);
        site.clock.advance(LIFETIME);
        assert_eq!(before.read(&site, "/").await, "ada unbound 0");
        assert_eq!(after.read(&site, "/").await, "stranger lapsed 0");
    });
}

#[test]
fn a_proof_in_a_request_of_another_method_or_path_is_the_handlers() {
    for site in Site::all() {
        block_on(async {
            let mut browser = Browser::new();
            let offered = browser.log_in(&site).await;
            let proof = browser.device.registration(&offered.challenge);
            let get = http::Request::get(&offered.path).header(PROOF, &proof);
            let response = site.call(crate::browser::with_cookies(get, &browser.cookies)).await;
            assert_eq!(text(response).await, "ada unbound 0");
            let elsewhere = post(&site, "/device-bound", &browser.cookies, &[(PROOF, &proof)]).await;
            assert_eq!(text(elsewhere).await, "ada unbound 0");
            assert!(
                offer(browser.visit(&site, "/").await.headers()).is_none(),
                "no second offer without a reason"
            );
            let none = post(&site, "/device-bound/refresh", &browser.cookies, &[(IDENTIFIER, "bx")]).await;
            assert_eq!(none.status(), 401);
        });
    }
}
