//! Sessions that Chromium binds to a key, over TLS: the protocol as a browser speaks it.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper_session::cookie::{CookieOptions, Priority};
use hyper_session::store::{Builder, CookieKeys, Store};
use hyper_session::{AppKey, Clock, CookieStore, DeviceBound, SystemClock, Timestamp};
use hyper_session_browser_tests::{Browser, Cookie, Deployments, Engine, Exchange, Exchanges, OUTER, Server};

const ENGINE: Engine = Engine::ChromiumWithKeys;
const REGISTER: &str = "/device-bound/register";
const REFRESH: &str = "/device-bound/refresh";
const BOUND: &str = "__Host-session.bound";
const RETRY: &str = "__Host-session.retry";

/// A browser whose user has logged in, and whose session is bound.
fn bound() -> (Server, Exchanges, Browser) {
    let (server, exchanges) = Server::device_bound();
    let browser = Browser::launch(ENGINE, &server);
    browser.open(&server.url("/"));
    let seen = log_in(&exchanges, &browser, "Ada");
    let registration = seen.iter().find(|exchange| exchange.path == REGISTER).unwrap();
    assert_eq!(registration.method, "POST");
    assert!(registration.headers.contains_key("secure-session-response"), "{registration:#?}");
    browser.open(&server.url("/api/session"));
    browser.wait_for("\"bound\":true");
    exchanges.take();
    (server, exchanges, browser)
}

/// Logs in, and waits until the browser has bound the session. Returns the exchanges until then.
fn log_in(exchanges: &Exchanges, browser: &Browser, name: &str) -> Vec<Exchange> {
    // Sessions in cookies know no order: the page after a login shows a message once, so it sets the session's cookie, too. If that
    // came after the registration's cookie, the session would not be bound.
    exchanges.hold(REGISTER);
    browser.fill("#name", name);
    browser.click("form[action='/login'] button");
    browser.wait_for(&format!("Welcome, {name}"));
    exchanges.release(REGISTER);
    let seen = exchanges.wait_for(REGISTER, 200);
    // The exchange is noted before the browser has its response.
    wait_until("the bound cookie", || cookie(browser, BOUND).is_some());
    seen
}

fn cookie(browser: &Browser, name: &str) -> Option<Cookie> {
    browser.cookies().into_iter().find(|cookie| cookie.name == name)
}

/// The paths and statuses of exchanges, in order.
fn lines(exchanges: &[Exchange]) -> Vec<String> {
    exchanges.iter().map(|exchange| format!("{} {}", exchange.path, exchange.status)).collect()
}

#[test]
fn the_session_is_bound_after_the_login() {
    let (_server, _, browser) = bound();
    let cookies = browser.cookies();
    assert_eq!(cookies.len(), 2, "{cookies:?}");
    let cookie = cookie(&browser, BOUND).expect("the bound cookie");
    assert_eq!(
        (&*cookie.path, cookie.secure, cookie.http_only, &*cookie.same_site),
        ("/", true, true, "Lax")
    );
    assert_eq!(browser.run("return document.cookie"), "");
}

#[test]
fn requests_wait_for_one_refresh() {
    let (server, exchanges, browser) = bound();
    browser.remove_cookie(BOUND, &server.url("/"));
    browser.open(&server.url("/"));
    browser.wait_for("Ada");
    let seen = exchanges.take();
    assert_eq!(lines(&seen), [format!("{REFRESH} 403"), format!("{REFRESH} 200"), "/ 200".to_owned()]);
    assert!(!seen[0].headers.contains_key("secure-session-response"));
    assert!(seen[1].headers.contains_key("secure-session-response"));
    assert!(seen[2].headers["cookie"].contains(BOUND), "the page's request waited");

    // Four at once.
    browser.open(&server.url("/api/session"));
    browser.wait_for("bound");
    exchanges.take();
    browser.remove_cookie(BOUND, &server.url("/"));
    let fetches = "return Promise.all([1, 2, 3, 4].map(() => fetch('/api/session').then(a => a.json()))).then(all => all.every(a => a.bound))";
    assert_eq!(browser.run(fetches), true);
    let seen = exchanges.take();
    let refreshes = lines(&seen).iter().filter(|line| **line == format!("{REFRESH} 200")).count();
    assert_eq!((refreshes, seen.len()), (1, 6), "{:#?}", lines(&seen));
}

#[test]
fn a_cookie_that_is_about_to_expire_is_refreshed_in_the_background() {
    let (server, exchanges, browser) = bound();
    let before = cookie(&browser, BOUND).unwrap();
    browser.age_cookie(&before, &server.url("/"), 90);
    browser.open(&server.url("/"));
    browser.wait_for("Ada");
    let seen = exchanges.wait_for(REFRESH, 200);
    let page = seen.iter().find(|exchange| exchange.path == "/").expect("the page");
    assert!(page.headers["cookie"].contains(&before.value), "it did not wait");
}

#[test]
fn the_binding_survives_restarts_of_the_server_and_of_the_browser() {
    let (mut server, exchanges, browser) = bound();
    server.restart();
    browser.remove_cookie(BOUND, &server.url("/"));
    browser.open(&server.url("/api/session"));
    browser.wait_for("\"bound\":true");
    assert!(lines(&exchanges.take()).contains(&format!("{REFRESH} 200")), "the server kept nothing");

    browser.remove_cookie(BOUND, &server.url("/"));
    let browser = browser.restart(ENGINE, &server);
    browser.open(&server.url("/api/session"));
    browser.wait_for("\"bound\":true");
    assert!(lines(&exchanges.take()).contains(&format!("{REFRESH} 200")), "the key is kept");
}

#[test]
fn a_refresh_that_fails_is_tried_again() {
    let (server, exchanges, browser) = bound();
    exchanges.answer(REFRESH, Some(500));
    browser.remove_cookie(BOUND, &server.url("/"));
    browser.open(&server.url("/api/session"));
    let seen = exchanges.wait_for("/api/session", 200);
    let page = seen.iter().find(|exchange| exchange.path == "/api/session").unwrap();
    let skipped = page.headers.get("secure-session-skipped").expect("the browser says why");
    assert!(skipped.starts_with("server_error"), "{skipped}");
    assert!(cookie(&browser, "__Host-session").is_some(), "the session's cookie stays");

    exchanges.answer(REFRESH, None);
    browser.open(&server.url("/api/session"));
    browser.wait_for("\"bound\":true");
    assert!(cookie(&browser, BOUND).is_some());
}

#[test]
fn a_refresh_that_is_refused_ends_the_binding_in_the_browser() {
    let (server, exchanges, browser) = bound();
    exchanges.answer(REFRESH, Some(401));
    browser.remove_cookie(BOUND, &server.url("/"));
    browser.open(&server.url("/"));
    exchanges.wait_for("/", 200);
    exchanges.answer(REFRESH, None);
    browser.open(&server.url("/"));
    let seen = exchanges.wait_for("/", 200);
    assert!(seen.iter().all(|exchange| exchange.path != REFRESH), "{:#?}", lines(&seen));
}

#[test]
fn a_logout_ends_the_binding_and_another_login_begins_one() {
    let (server, exchanges, browser) = bound();
    browser.open(&server.url("/"));
    browser.click("form[action='/logout'] button");
    browser.wait_for("nobody yet");
    assert_eq!(browser.cookies(), []);
    exchanges.take();
    log_in(&exchanges, &browser, "Bob");
    browser.open(&server.url("/api/session"));
    browser.wait_for("\"bound\":true");
    browser.wait_for("Bob");
}

#[test]
fn the_network_log_of_the_browser_shows_each_step() {
    let (server, exchanges, browser) = bound();
    browser.remove_cookie(BOUND, &server.url("/"));
    browser.open(&server.url("/api/session"));
    browser.wait_for("\"bound\":true");
    exchanges.answer(REFRESH, Some(500));
    browser.remove_cookie(BOUND, &server.url("/"));
    browser.open(&server.url("/api/session"));
    exchanges.wait_for("/api/session", 200);
    let results = browser.close().into_iter().filter(|(name, _)| name.ends_with("_RESULT"));
    let mut results: Vec<_> = results
        .map(|(name, params)| format!("{name} {}", params["status"].as_str().unwrap_or("?")))
        .collect();
    // Each request may try again.
    results.dedup();
    let expected = [
        "DBSC_REGISTRATION_RESULT registered",
        "DBSC_REFRESH_RESULT refreshed",
        "DBSC_REFRESH_RESULT failed_continue",
    ];
    assert_eq!(results, expected);
}

fn builder() -> Builder<CookieKeys> {
    let key = "b2c1f0437a9d5e8624fb0913ce75a86ddf1ab3709456e2c8130ff6a5427d9be8".parse::<AppKey>();
    CookieStore::builder(key.expect("a key"))
}

/// A cookie store with these options. Its key is that of all of them.
fn store(options: Option<DeviceBound>) -> Arc<dyn Store> {
    let builder = builder();
    let builder = match options {
        Some(options) => builder.device_bound(options),
        None => builder,
    };
    Arc::new(builder.build().expect("options that fit"))
}

/// A browser whose session was bound under the path `/old`.
fn bound_under_the_old_path() -> (Deployments, Browser) {
    let deployments = Deployments::start(&store(Some(DeviceBound::new().path("/old"))));
    let browser = Browser::launch(ENGINE, deployments.server());
    browser.open(&deployments.server().url("/login/ada"));
    browser.wait_for("logged in: ada");
    wait_until("the bound cookie", || cookie(&browser, BOUND).is_some());
    (deployments, browser)
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..1_200 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("waited too long for {what}");
}

/// Opens a page after the bound cookie has expired. Returns true if the browser has refreshed it.
fn refreshes(deployments: &Deployments, browser: &Browser) -> bool {
    let page = deployments.server().url("/");
    browser.remove_cookie(BOUND, &page);
    browser.open(&page);
    browser.wait_for("logged in: ada");
    cookie(browser, BOUND).is_some()
}

// The guide: device_bound, "Deploying host by host".
#[test]
fn a_browser_follows_a_path_that_changes() {
    let (deployments, browser) = bound_under_the_old_path();
    deployments.deploy(&store(Some(DeviceBound::new().path("/new").accept_path("/old"))));
    assert!(refreshes(&deployments, &browser), "under the old path");
    deployments.deploy(&store(Some(DeviceBound::new().path("/new"))));
    assert!(refreshes(&deployments, &browser), "under the new one, of which the last refresh told");
}

#[test]
fn a_browser_ends_a_binding_whose_refresh_is_not_found() {
    let (deployments, browser) = bound_under_the_old_path();
    deployments.deploy(&store(None));
    assert!(!refreshes(&deployments, &browser));
    deployments.deploy(&store(Some(DeviceBound::new().path("/old"))));
    assert!(!refreshes(&deployments, &browser), "it does not try again");
}

/// A store that binds the sessions of this cookie, under this path.
fn store_of(cookie: CookieOptions, path: &str) -> Arc<dyn Store> {
    let builder = builder().cookie(cookie).device_bound(DeviceBound::new().path(path));
    Arc::new(builder.build().expect("options that fit"))
}

// The browser watches the bound cookie of the former name until it has refreshed it.
#[test]
fn a_browser_follows_a_cookie_that_is_renamed() {
    let named = |cookie| store_of(cookie, "/device-bound");
    let deployments = Deployments::start(&named(CookieOptions::new().name("__Host-old")));
    let page = deployments.server().url("/");
    let browser = Browser::launch(ENGINE, deployments.server());
    browser.open(&deployments.server().url("/login/ada"));
    browser.wait_for("logged in: ada");
    wait_until("the bound cookie", || cookie(&browser, "__Host-old.bound").is_some());
    deployments.deploy(&named(CookieOptions::new().name("__Host-new").retired_name("__Host-old")));
    browser.open(&page);
    browser.wait_for("logged in: ada");
    assert!(cookie(&browser, "__Host-new").is_some() && cookie(&browser, "__Host-old").is_none());
    for name in ["__Host-old.bound", "__Host-new.bound"] {
        browser.remove_cookie(name, &page);
        browser.open(&page);
        browser.wait_for("logged in: ada");
        assert!(cookie(&browser, "__Host-new.bound").is_some(), "{name}");
    }
    browser.open(&deployments.server().url("/logout"));
    assert_eq!(browser.cookies(), []);
}

// Chromium refuses a binding whose instructions name an attribute that it does not compare, although the server has made it.
#[test]
fn a_cookie_with_a_priority_is_bound_and_refreshed() {
    let cookie_options = CookieOptions::new().priority(Priority::High);
    let deployments = Deployments::start(&store_of(cookie_options, "/device-bound"));
    let browser = Browser::launch(ENGINE, deployments.server());
    browser.open(&deployments.server().url("/login/ada"));
    browser.wait_for("logged in: ada");
    wait_until("the bound cookie", || cookie(&browser, BOUND).is_some());
    assert!(refreshes(&deployments, &browser));
}

// One response offers both registrations, and a request that lacks both cookies waits for both refreshes.
#[test]
fn sessions_of_two_nested_services_are_bound_each() {
    let outer = store_of(CookieOptions::new().name(OUTER), "/outer-device");
    let deployments = Deployments::start_within(&store(Some(DeviceBound::new())), Some(&outer));
    let page = deployments.server().url("/");
    let both = [BOUND, "__Host-outer.bound"];
    let browser = Browser::launch(ENGINE, deployments.server());
    browser.open(&deployments.server().url("/login/ada"));
    browser.wait_for("logged in: ada, outer logged in: ada");
    for name in both {
        wait_until(name, || cookie(&browser, name).is_some());
    }
    for removed in [&both[..1], &both[1..], &both] {
        removed.iter().for_each(|name| browser.remove_cookie(name, &page));
        browser.open(&page);
        browser.wait_for("logged in: ada, outer logged in: ada");
        for name in both {
            assert!(cookie(&browser, name).is_some(), "{name} of {removed:?}");
        }
    }
}

// Firefox knows nothing of it.
#[test]
fn a_browser_that_cannot_bind_notices_nothing() {
    let (server, exchanges) = Server::device_bound();
    let browser = Browser::launch(Engine::Firefox, &server);
    browser.open(&server.url("/"));
    browser.fill("#name", "Ada");
    browser.click("form[action='/login'] button");
    browser.wait_for("Welcome, Ada");
    browser.open(&server.url("/api/session"));
    browser.wait_for("Ada");
    assert_eq!(browser.cookies().len(), 1);
    assert!(exchanges.take().iter().all(|exchange| !exchange.path.starts_with("/device-bound")));
}

/// Another site, with one link.
fn site_with_link(to: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its number");
    let page = format!("<!doctype html><title>Another site</title><a href=\"{to}\">a link</a>");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Browsers open connections that they do not use.
            let page = page.clone();
            std::thread::spawn(move || answer_with(stream, &page));
        }
    });
    format!("http://{address}/")
}

fn answer_with(mut stream: TcpStream, page: &str) -> std::io::Result<()> {
    let _ = stream.read(&mut [0; 4096])?;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n";
    write!(stream, "{head}Content-Length: {}\r\n\r\n{page}", page.len())
}

/// A clock that can be put forward.
#[derive(Clone, Default)]
struct LateClock(Arc<AtomicU64>);

impl Clock for LateClock {
    fn now(&self) -> Timestamp {
        SystemClock.now().saturating_add(Duration::from_secs(self.0.load(Ordering::SeqCst)))
    }
}

// The user was away for longer than the bound cookie lasts, and comes back by a link in a mail. Mail is often shown in a frame
// without an origin, as this `data:` page has none.
#[test]
fn a_link_of_another_site_finds_the_user_logged_in() {
    let clock = LateClock::default();
    let store =
        builder().clock(clock.clone()).device_bound(DeviceBound::new()).build().expect("options that fit");
    let deployments = Deployments::start(&(Arc::new(store) as Arc<dyn Store>));
    let page = deployments.server().url("/?a=1#part");
    let browser = Browser::launch(ENGINE, deployments.server());
    browser.open(&deployments.server().url("/login/ada"));
    browser.wait_for("logged in: ada");
    wait_until("the bound cookie", || cookie(&browser, BOUND).is_some());
    let data = format!("data:text/html,<!doctype html><a href='{}'>a link</a>", page.replace('#', "%23"));
    for (other, scripts) in [(site_with_link(&page), true), (data.clone(), true), (data, false)] {
        clock.0.fetch_add(100, Ordering::SeqCst);
        // Both have expired.
        browser.remove_cookie(BOUND, &page);
        browser.remove_cookie(RETRY, &page);
        browser.open(&other);
        browser.forbid_scripts(!scripts);
        browser.click("a");
        browser.wait_for("logged in: ada");
        browser.forbid_scripts(false);
        let shown = if scripts { page.clone() } else { page.replace("#part", "") };
        assert_eq!(browser.run("return location.href"), shown, "{other}");
        assert!(cookie(&browser, BOUND).is_some());
    }
}
