//! Deployments host by host. While two hosts of a site differ in their options, each request reaches either of them, and no
//! user is logged out.

use std::sync::Arc;
use std::time::Duration;

use http::Response;
use http::header::{HeaderMap, HeaderValue, SET_COOKIE};
use hyper_session::cookie::CookieOptions;
use hyper_session::store::MigratingStore;
use hyper_session::testing::FakeClock;
use hyper_session::{AppKey, Clock, CookieStore, DeviceBound, Keyring, MemoryStore, Revocations, Timestamp};

use crate::browser::Browser;
use crate::device::{Device, Offer, challenge, offer};
use crate::dice::Dice;
use crate::site::{Body, Events, GRACE, LIFETIME, START, Site, block_on, key, observer, text};
use crate::store_kinds::{Options, SharedStorage};

/// The options of a host in one step of a deployment.
#[derive(Clone)]
enum Step {
    Off,
    AnswerOnly,
    On(DeviceBound),
    OnWith(Options),
}

struct Host {
    site: Site,
    /// It offers bindings, and refuses bound sessions without their bound cookie.
    enforces: bool,
}

impl Host {
    async fn deploy(place: &SharedStorage, clock: &FakeClock, step: &Step) -> Self {
        let (options, enforces) = match step.clone() {
            Step::Off => (Options::new(None), false),
            Step::AnswerOnly => (Options::new(Some(DeviceBound::new().answer_only(true))), false),
            Step::On(options) => (Options::new(Some(options)), true),
            Step::OnWith(options) => (options, true),
        };
        Self { site: place.host_with(clock, options).await, enforces }
    }
}

/// A user with a browser that does what Chromium does: it registers where that is offered, refreshes a cookie that has expired
/// before it sends a request, and ends a binding whose refresh is refused.
struct User {
    browser: Browser,
    /// Its session was bound, although the browser may have ended the binding since.
    is_bound: bool,
    /// The end of the bound cookie.
    until: Timestamp,
    visits: u64,
}

impl User {
    fn new() -> Self {
        Self { browser: Browser::new(), is_bound: false, until: Timestamp::from_unix(0), visits: 0 }
    }

    /// Sends a request, and what a browser sends before and after it. `pick` is the host that a request reaches.
    async fn visit<'h>(&mut self, path: &str, mut pick: impl FnMut() -> &'h Host) {
        self.refresh_if_due(&mut pick).await;
        let host = pick();
        let response = self.browser.visit(&host.site, path).await;
        assert_eq!(response.status(), 200, "{}", host.site.kind);
        let offered = offer(response.headers());
        let page = text(response).await;
        self.visits += u64::from(path == "/visit");
        let binding = match (self.is_bound, host.enforces) {
            (false, _) => "unbound",
            (true, true) => "bound",
            (true, false) => "unchecked",
        };
        assert_eq!(page, format!("ada {binding} {}", self.visits), "{} {path}", host.site.kind);
        if let Some(offered) = offered {
            assert!(host.enforces, "{} offers", host.site.kind);
            self.register(&offered, pick()).await;
        }
    }

    async fn register(&mut self, offered: &Offer, host: &Host) {
        self.browser.device = Device::new();
        let response = self.browser.register(&host.site, offered).await;
        match response.status().as_u16() {
            200 => self.obey(response, host).await,
            // The next renewal offers it again.
            404 => {}
            status => panic!("{}: {status} of a registration", host.site.kind),
        }
    }

    async fn refresh_if_due<'h>(&mut self, pick: &mut impl FnMut() -> &'h Host) {
        let asked = pick();
        if self.browser.bound.is_none() || asked.site.clock.now() < self.until {
            return;
        }
        let response = self.browser.ask(&asked.site).await;
        assert_ne!(response.status(), 503);
        if response.status() != 403 {
            self.browser.bound = None;
            return;
        }
        let proof = self.browser.device.refresh(&challenge(response.headers()));
        let host = pick();
        let response = self.browser.prove(&host.site, &proof).await;
        match response.status().as_u16() {
            200 => self.obey(response, host).await,
            503 => panic!("{}: 503 of a refresh", host.site.kind),
            _ => self.browser.bound = None,
        }
    }

    async fn obey(&mut self, response: Response<Body>, host: &Host) {
        self.browser.obey(response).await;
        self.is_bound = true;
        self.until = host.site.clock.now().saturating_add(LIFETIME);
    }
}

/// Leads two hosts of each place through `route`, one after the other. Returns the user of each place, and the last hosts.
async fn roll_out(place: &SharedStorage, route: &[Step], seed: u64) -> (User, [Host; 2]) {
    let clock = SharedStorage::clock();
    let mut dice = Dice(seed);
    let first = &route[0];
    let mut hosts = [Host::deploy(place, &clock, first).await, Host::deploy(place, &clock, first).await];
    let mut user = User::new();
    user.browser.visit(&hosts[0].site, "/login").await;
    let steps = route.iter().skip(1).flat_map(|step| [(0, step), (1, step)]);
    for (which, step) in [(0, first)].into_iter().chain(steps) {
        hosts[which] = Host::deploy(place, &clock, step).await;
        for _ in 0..40 {
            clock.advance(Duration::from_secs(dice.roll(480)));
            let path = match dice.roll(10) {
                0 => "/regenerate",
                1 => "/reauthenticate",
                2..=4 => "/visit",
                5 => "/login",
                _ => "/",
            };
            user.visit(path, || &hosts[usize::try_from(dice.roll(2)).unwrap()]).await;
        }
    }
    (user, hosts)
}

fn each_place(route: &[Step], check: impl AsyncFn(User, [Host; 2])) {
    for seed in [1, 2] {
        for place in SharedStorage::all() {
            block_on(async {
                let (user, hosts) = roll_out(&place, route, seed).await;
                check(user, hosts).await;
            });
        }
    }
}

#[test]
fn no_user_is_logged_out_while_it_is_switched_on() {
    let route = [Step::Off, Step::AnswerOnly, Step::On(DeviceBound::new())];
    each_place(&route, async |user, hosts| {
        assert!(user.browser.bound.is_some(), "{}", hosts[0].site.kind);
        let mut thief = Browser { cookies: user.browser.cookies.clone(), ..Browser::new() };
        hosts[0].site.clock.advance(LIFETIME);
        for host in &hosts {
            assert!(thief.is_stranger(&host.site).await, "{}", host.site.kind);
        }
    });
}

#[test]
fn no_user_is_logged_out_while_it_is_switched_off() {
    let route = [Step::On(DeviceBound::new()), Step::AnswerOnly, Step::Off];
    each_place(&route, async |user, hosts| {
        assert!(user.browser.bound.is_none(), "the refresh was answered with 404: {}", hosts[0].site.kind);
    });
}

#[test]
fn no_user_is_logged_out_while_its_path_changes() {
    let options = || DeviceBound::new().path("/old");
    let after = || DeviceBound::new().path("/auth/new");
    let route = [options(), options().accept_path("/auth/new"), after().accept_path("/old"), after()];
    each_place(&route.map(Step::On), async |user, hosts| {
        let bound = user.browser.bound.expect(hosts[0].site.kind);
        assert_eq!(bound.refresh_url, "/auth/new/refresh", "{}", hosts[0].site.kind);
    });
}

fn next_key() -> AppKey {
    AppKey::danger_from_any_bytes(b"another key").unwrap()
}

/// A host with these keys for bound cookies and challenges.
fn with_keys(keys: Keyring) -> Options {
    Options { keys, ..Options::new(Some(DeviceBound::new())) }
}

#[test]
fn no_user_is_logged_out_while_its_keys_change() {
    let route = [
        key().into(),
        Keyring::new(key()).accept(next_key()),
        Keyring::new(next_key()).accept(key()),
        next_key().into(),
    ];
    each_place(&route.map(with_keys).map(Step::OnWith), async |user, hosts| {
        assert!(user.browser.bound.is_some(), "{}", hosts[0].site.kind);
    });
}

// The first of the steps above avoids this.
#[test]
fn a_bound_cookie_with_a_key_that_another_host_does_not_know_lapses_there() {
    for site in Site::all() {
        block_on(async {
            let place = site.place.as_ref().unwrap();
            let next = place.host_with(&site.clock, with_keys(Keyring::new(next_key()).accept(key()))).await;
            let mut browser = bound(&next).await;
            site.clock.advance(GRACE);
            assert_eq!(browser.read(&site, "/").await, "stranger lapsed 0", "{}", site.kind);
            assert_eq!(browser.read(&next, "/").await, "ada bound 0", "{}", site.kind);
        });
    }
}

/// Hosts before, between and after the steps by which the cookie gets another name.
fn renamed() -> [Options; 4] {
    let old = || CookieOptions::new().name("old");
    let new = || CookieOptions::new().name("new");
    let cookies = [old(), old().retired_name("new"), new().retired_name("old"), new()];
    cookies.map(|cookie| Options { cookie, ..Options::new(Some(DeviceBound::new())) })
}

#[test]
fn no_user_is_logged_out_while_its_cookie_is_renamed() {
    each_place(&renamed().map(Step::OnWith), async |user, hosts| {
        assert!(user.browser.bound.is_some(), "{}", hosts[0].site.kind);
    });
}

// One host issues the challenge, and the other one gets the proof: neither is one of the five that end a binding.
#[test]
fn hosts_with_the_former_and_the_new_name_accept_the_challenges_of_each_other() {
    for place in SharedStorage::all() {
        block_on(async {
            let clock = SharedStorage::clock();
            let [_, former, new, _] = renamed();
            let former = place.host_with(&clock, former).await;
            let new = place.host_with(&clock, new).await;
            for hosts in [[&former, &new], [&new, &former]] {
                for binding in hosts {
                    let mut browser = bound(binding).await;
                    clock.advance(LIFETIME);
                    assert_eq!(refresh_in_turn(&mut browser, hosts).await, (200, 1), "{}", place.kind());
                    for host in hosts {
                        assert_eq!(browser.read(host, "/").await, "ada bound 0", "{}", place.kind());
                    }
                }
            }
        });
    }
}

/// A session that one host has bound, and its user.
async fn bound(host: &Site) -> Browser {
    let mut browser = Browser::new();
    browser.bind(host).await;
    browser
}

// The steps above avoid this.
#[test]
fn without_the_step_between_a_refresh_reaches_a_host_that_does_not_know_it() {
    for site in Site::all() {
        block_on(async {
            let without = site.place.as_ref().unwrap().host(&site.clock, None).await;
            let browser = bound(&site).await;
            assert_eq!(browser.ask(&without).await.status(), 404, "{}", site.kind);
        });
    }
}

#[test]
fn a_host_without_the_option_accepts_bound_sessions_unchecked_and_keeps_them_bound() {
    for site in Site::all() {
        for options in [None, Some(DeviceBound::new().answer_only(true))] {
            block_on(async {
                let without = site.place.as_ref().unwrap().host(&site.clock, options).await;
                let mut browser = bound(&site).await;
                site.clock.advance(LIFETIME);
                assert_eq!(browser.read(&without, "/").await, "ada unchecked 0", "{}", site.kind);
                for (visits, deed) in (1..).zip(["/regenerate", "/reauthenticate", "/login"]) {
                    browser.visit(&without, deed).await;
                    let page = browser.read(&without, "/visit").await;
                    assert_eq!(page, format!("ada unchecked {visits}"), "{} {deed}", site.kind);
                    let page = browser.read(&site, "/").await;
                    assert_eq!(page, "stranger lapsed 0", "{} {deed}: it is as bound as before", site.kind);
                }
                assert_eq!(without.events(), [""; 0], "{}", site.kind);
                assert_eq!(browser.refresh(&site).await, 200, "{}", site.kind);
                assert_eq!(browser.read(&site, "/").await, "ada bound 3", "{}", site.kind);
                // Another user's session begins unbound, and a logout ends it, there as anywhere.
                browser.visit(&without, "/login-bob").await;
                assert_eq!(browser.read(&without, "/").await, "bob unbound 0", "{}", site.kind);
                browser.visit(&without, "/logout").await;
                assert!(browser.is_stranger(&site).await, "{}", site.kind);
            });
        }
    }
}

// The browser goes on with the bound cookie of the former name until it has expired, and with the identifier for longer.
#[test]
fn a_bound_session_stays_bound_when_its_cookie_is_renamed() {
    block_on(async {
        let clock = FakeClock::at(START);
        let named = |cookie| Site::on_cookies_with(clock.clone(), |builder| builder.cookie(cookie));
        let before = named(CookieOptions::new().name("old"));
        let after = named(CookieOptions::new().name("new").retired_name("old"));
        let mut browser = Browser::new();
        browser.bind(&before).await;
        clock.advance(GRACE);
        let mut thief = Browser { cookies: browser.cookies.clone(), ..Browser::new() };
        let removal = HeaderMap::from_iter([(SET_COOKIE, HeaderValue::from_static("old.bound=; Max-Age=0"))]);
        thief.cookies.receive(&removal);
        assert_eq!(thief.read(&after, "/").await, "stranger lapsed 0", "without the bound cookie");

        assert_eq!(browser.read(&after, "/").await, "ada bound 0");
        assert!(browser.cookies.get("new").is_some() && browser.cookies.get("new.bound").is_none());
        for _ in 0..2 {
            clock.advance(LIFETIME);
            assert_eq!(browser.read(&after, "/").await, "stranger lapsed 0");
            assert_eq!(browser.refresh(&after).await, 200);
            assert!(browser.cookies.get("new.bound").is_some());
            assert_eq!(browser.read(&after, "/").await, "ada bound 0");
        }
        let last = named(CookieOptions::new().name("new"));
        assert_eq!(browser.read(&last, "/").await, "ada bound 0", "without the retired name");
        clock.advance(LIFETIME);
        assert_eq!(browser.refresh(&last).await, 200);
    });
}

// A refresh that is answered with 401 ends the binding in the browser, and the session with it.
#[test]
fn b2_a_host_that_cannot_judge_a_session_does_not_end_its_binding() {
    for place in SharedStorage::all() {
        block_on(async {
            let clock = SharedStorage::clock();
            let host = place.host(&clock, Some(DeviceBound::new())).await;
            let mut browser = bound(&host).await;
            let behind = FakeClock::at(clock.now().as_unix() - 120);
            let other = place.host(&behind, Some(DeviceBound::new())).await;
            let asked = browser.ask(&other).await.status();
            assert_eq!(asked, if host.is_in_cookies() { 503 } else { 403 }, "{}", host.kind);
            assert_eq!(browser.refresh(&host).await, 200, "{}", host.kind);
        });
    }
    // The session has a key that the other host does not have yet.
    let revocations = Revocations::in_memory();
    let site = |keys: Keyring| {
        let (clock, events) = (FakeClock::at(START), Events::default());
        let builder = CookieStore::builder(keys).clock(clock.clone()).observer(observer(&events));
        let builder = builder.revocations(revocations.clone()).device_bound(DeviceBound::new());
        Site { kind: "cookies", store: Arc::new(builder.build().unwrap()), clock, events, place: None }
    };
    let next = AppKey::generate().unwrap();
    let (before, after) = (site(key().into()), site(Keyring::new(next).accept(key())));
    block_on(async {
        let mut browser = bound(&after).await;
        assert_eq!(browser.ask(&before).await.status(), 503);
        assert_eq!(browser.refresh(&after).await, 200);
    });
}

/// Refreshes by way of two hosts in turn, as Chromium does: it ends the binding at the fifth challenge. Returns the last status, and
/// the number of proofs.
async fn refresh_in_turn(browser: &mut Browser, hosts: [&Site; 2]) -> (u16, usize) {
    let mut turns = hosts.into_iter().cycle();
    let mut response = browser.ask(turns.next().unwrap()).await;
    let mut proofs = 0;
    while response.status() == 403 {
        proofs += 1;
        assert!(proofs < 5, "{}: a fifth challenge", hosts[0].kind);
        let proof = browser.device.refresh(&challenge(response.headers()));
        response = browser.prove(turns.next().unwrap(), &proof).await;
    }
    (response.status().as_u16(), proofs)
}

#[test]
fn b2_hosts_whose_clocks_differ_do_not_end_a_binding() {
    for place in SharedStorage::all() {
        for apart in [59, 60, 61, 120, 299, 300, 301, 3_600] {
            block_on(async {
                let clock = SharedStorage::clock();
                let behind = FakeClock::at(clock.now().as_unix() - apart);
                let ahead = place.host(&clock, Some(DeviceBound::new())).await;
                let behind = place.host(&behind, Some(DeviceBound::new())).await;
                // A host that is ahead accepts the cookies of one that is behind.
                let mut browser = bound(&behind).await;
                for (hosts, too_far) in [([&behind, &ahead], 2), ([&ahead, &behind], 1)] {
                    let answer = refresh_in_turn(&mut browser, hosts).await;
                    let expected = if apart < 300 { (200, 1) } else { (503, too_far) };
                    assert_eq!(answer, expected, "{} {apart}", place.kind());
                    // The next one reaches one host.
                    assert_eq!(browser.refresh(hosts[0]).await, 200, "{} {apart}", place.kind());
                    // From the host that is behind, a bound cookie lasts for that much less.
                    let page = browser.read(&behind, "/").await;
                    assert_eq!(page, "ada bound 0", "{} {apart}", place.kind());
                }

                let mut other = Browser::new();
                let offer = other.log_in(&behind).await;
                let status = other.register(&ahead, &offer).await.status();
                assert_eq!(status, if apart < 300 { 200 } else { 401 }, "{} {apart}", place.kind());
            });
        }
    }
}

// A request of the login page has no bound cookie. It reaches the other host, where its minute has passed or has not begun.
#[test]
fn b2_a_request_of_the_login_page_on_a_host_with_another_clock_does_not_replace_the_session() {
    for place in SharedStorage::all().into_iter().filter(|place| !matches!(place, SharedStorage::Cookies(_)))
    {
        for apart in [60, 61, 120, 299] {
            block_on(async {
                let clock = SharedStorage::clock();
                let behind = FakeClock::at(clock.now().as_unix() - apart);
                let ahead = place.host(&clock, Some(DeviceBound::new())).await;
                let behind = place.host(&behind, Some(DeviceBound::new())).await;
                for [host, other] in [[&ahead, &behind], [&behind, &ahead]] {
                    let mut browser = Browser::new();
                    let offered = browser.log_in(host).await;
                    let mut page = Browser { cookies: browser.cookies.clone(), ..Browser::new() };
                    browser.bind_by(host, &offered).await;
                    let response = page.visit(other, "/visit").await;
                    browser.cookies.receive(response.headers());
                    let page = browser.read(host, "/").await;
                    assert!(page.starts_with("ada bound"), "{} {apart} {page}", place.kind());
                }
            });
        }
    }
}

// A proof is worth the rest of its challenge's life, whichever clock is right.
#[test]
fn a_bound_cookie_ends_with_its_challenge_whichever_clock_is_right() {
    for place in SharedStorage::all() {
        block_on(async {
            let clock = SharedStorage::clock();
            let late = FakeClock::at(clock.now().as_unix() + 120);
            let (host, ahead) = (
                place.host(&clock, Some(DeviceBound::new())).await,
                place.host(&late, Some(DeviceBound::new())).await,
            );
            let mut browser = bound(&host).await;
            let asked = browser.ask(&host).await;
            let proof = browser.device.refresh(&challenge(asked.headers()));
            assert_eq!(browser.prove(&ahead, &proof).await.status(), 200, "{}", place.kind());
            for (seconds, page) in [(599, "ada bound 0"), (1, "stranger lapsed 0")] {
                clock.advance(Duration::from_secs(seconds));
                assert_eq!(browser.read(&host, "/").await, page, "{}", place.kind());
            }
        });
    }
}

// The guide: changing_stores. The previous bound cookies have other keys.
#[test]
fn a_migration_accepts_the_bound_cookies_of_before_if_it_has_their_key() {
    let clock = FakeClock::at(START);
    let until = Timestamp::from_unix(START + 100_000);
    let cookies = || {
        let builder = CookieStore::builder(key()).clock(clock.clone()).revocations(Revocations::in_memory());
        builder.device_bound(DeviceBound::new()).build().unwrap()
    };
    let migrating = |old: CookieStore, keys: Keyring| {
        let new = MemoryStore::builder().clock(clock.clone()).device_bound(DeviceBound::new().keys(keys));
        let store = MigratingStore::new(new.build().unwrap(), old, until).unwrap();
        Site { store: Arc::new(store), clock: clock.clone(), ..Site::on_cookies() }
    };
    for (keys, page) in [
        (Keyring::new(next_key()), "stranger lapsed 0"),
        (Keyring::new(next_key()).accept(key()), "ada bound 0"),
    ] {
        block_on(async {
            let old = cookies();
            let before = Site { store: Arc::new(old.clone()), clock: clock.clone(), ..Site::on_cookies() };
            let mut browser = bound(&before).await;
            clock.advance(GRACE);
            assert_eq!(browser.read(&before, "/").await, "ada bound 0");
            let after = migrating(old, keys);
            assert_eq!(browser.read(&after, "/").await, page);
            // Either way the key of the device is in the session.
            assert_eq!(browser.refresh(&after).await, 200);
            assert_eq!(browser.read(&after, "/visit").await, "ada bound 1");
        });
    }
}
