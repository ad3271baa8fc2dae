//! The login example as a person meets it: a browser, TLS, two tabs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper_session_browser_tests::{Browser, Cookie, Engine, Server};

fn log_in(browser: &Browser, server: &Server, name: &str) {
    browser.open(&server.url("/"));
    browser.fill("#name", name);
    browser.click("form[action='/login'] button");
    browser.wait_for("Welcome");
}

fn log_out(browser: &Browser) {
    browser.click("form[action='/logout'] button");
    browser.wait_for("nobody yet");
}

#[test]
fn the_browser_keeps_the_cookie_as_it_was_meant() {
    let server = Server::start();
    let browser = Browser::start(&server);
    browser.open(&server.url("/"));
    assert!(browser.text().contains("nobody yet"), "{}", browser.text());
    assert_eq!(browser.cookies(), [], "looking around sets no cookie");

    log_in(&browser, &server, "Ada");
    let cookies = browser.cookies();
    let [Cookie { value, expiry, .. }] = &cookies[..] else { panic!("one cookie: {cookies:?}") };
    let expected = Cookie {
        name: "__Host-session".to_owned(),
        value: value.clone(),
        domain: "localhost".to_owned(), // a host; a domain would begin with a dot
        path: "/".to_owned(),
        secure: true,
        http_only: true,
        same_site: "Lax".to_owned(),
        expiry: *expiry,
    };
    assert_eq!(cookies, [expected]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let left = Duration::from_secs(expiry.unwrap()).saturating_sub(now);
    assert!(left > Duration::from_secs(23 * 3600) && left <= Duration::from_secs(24 * 3600), "{left:?}");

    // Scripts can neither read it nor replace it.
    assert_eq!(browser.run("return document.cookie"), "");
    assert_eq!(browser.run("return cookieStore.getAll().then(all => all.length)"), 0);
    browser.run("document.cookie = '__Host-session=planted; Path=/; Secure'");
    assert_eq!(browser.cookies(), cookies);
}

#[test]
fn login_flash_once_two_tabs_logout_back() {
    let server = Server::start();
    let browser = Browser::start(&server);
    log_in(&browser, &server, "Ada");
    assert!(browser.text().contains("Welcome, Ada"), "{}", browser.text());
    browser.reload();
    assert!(browser.text().contains("Ada") && !browser.text().contains("Welcome"), "seen once");

    // Another tab is the same session.
    let first = browser.tab();
    let second = browser.new_tab();
    browser.open(&server.url("/"));
    assert!(browser.text().contains("Ada") && !browser.text().contains("Welcome"), "{}", browser.text());
    browser.click("form[action='/visits'] button");
    browser.wait_for("Visits counted\n1");
    browser.switch_to(&first);
    browser.reload();
    assert_eq!(browser.run("return document.querySelector('#visits').innerText"), "1");

    // A page of another site sends a form here: the user stays logged in.
    let forged = format!(
        "data:text/html,<form method=post action='{}'><button>win</button></form>",
        server.url("/logout")
    );
    browser.new_tab();
    browser.open(&forged);
    browser.click("button");
    browser.wait_for("another site sent this");
    browser.open(&server.url("/"));
    assert!(browser.text().contains("Ada"), "{}", browser.text());

    // Logged out in one tab is logged out in the other, and the back button shows nothing of what was: neither the page,
    // nor an answer that said nothing about caches itself.
    browser.switch_to(&second);
    browser.open(&server.url("/api/session"));
    browser.wait_for("\"user\":\"Ada\"");
    browser.open(&server.url("/"));
    browser.back();
    browser.wait_for("\"user\":\"Ada\"");
    browser.open(&server.url("/"));
    log_out(&browser);
    assert_eq!(browser.cookies(), []);
    browser.back();
    browser.wait_for("nobody yet");
    browser.back();
    browser.wait_for("\"user\":null");
    browser.switch_to(&first);
    browser.reload();
    browser.wait_for("nobody yet");
    browser.back();
    assert!(!browser.text().contains("Ada"), "back: {}", browser.text());
}

/// A cookie that was copied before the logout opens nothing after it.
fn a_cookie_that_is_put_back_after_the_logout(engine: Engine) {
    let server = Server::start();
    let browser = Browser::launch(engine, &server);
    log_in(&browser, &server, "Ada");
    let saved = browser.cookies();
    let [copy] = &saved[..] else { panic!("one cookie: {saved:?}") };
    // While the session goes on, the copy is as good as the cookie.
    browser.forget_cookies();
    browser.reload();
    browser.wait_for("nobody yet");
    browser.put_back(copy);
    browser.reload();
    browser.wait_for("Ada");
    log_out(&browser);
    browser.put_back(copy);
    assert_eq!(browser.cookies().iter().map(|cookie| &*cookie.value).collect::<Vec<_>>(), [&*copy.value]);
    browser.reload();
    browser.wait_for("nobody yet");
    assert!(!browser.text().contains("Ada"), "{}", browser.text());
    log_in(&browser, &server, "Ada");
    browser.reload();
    browser.wait_for("Ada");
}

#[test]
fn t25_a_cookie_that_is_put_back_after_the_logout_in_chromium() {
    a_cookie_that_is_put_back_after_the_logout(Engine::Chromium);
}

#[test]
fn t25_a_cookie_that_is_put_back_after_the_logout_in_firefox() {
    a_cookie_that_is_put_back_after_the_logout(Engine::Firefox);
}

#[test]
fn t25_a_cookie_that_is_put_back_after_the_logout_in_webkit() {
    a_cookie_that_is_put_back_after_the_logout(Engine::WebKit);
}

#[test]
fn the_page_fits_a_desk_and_a_phone() {
    let server = Server::start();
    let browser = Browser::start(&server);
    for (device, phone) in [("desk", false), ("phone", true)] {
        browser.pretend_phone(phone);
        for (colours, dark) in [("light", false), ("dark", true)] {
            browser.prefer_dark(dark);
            let shoot = |state: &str| {
                let [page, window] = ["document.documentElement.scrollWidth", "innerWidth"]
                    .map(|width| browser.run(&format!("return {width}")).as_u64().unwrap());
                assert!(page <= window, "{state} on a {device} is {page} wide, and shown {window} wide");
                let shot = browser.screenshot(&format!("login-{device}-{colours}-{state}"));
                assert!(std::fs::metadata(shot).unwrap().len() > 5_000, "an empty picture");
            };
            browser.open(&server.url("/"));
            shoot("out");
            log_in(&browser, &server, "Ada Lovelace, Countess of a rather long title and name");
            shoot("in");
            log_out(&browser);
        }
    }
    // The targets of a touch are large enough (WCAG 2.2, 2.5.8: 24 by 24 CSS pixels).
    let smallest = browser.run(
        "return Math.min(...[...document.querySelectorAll('input, button')].filter(e => e.offsetHeight).map(e => e.offsetHeight))",
    );
    assert!(smallest.as_u64().unwrap() >= 24, "{smallest}");
}

/// The rules that hold in every engine: the session is kept, seen in a second tab, hidden from scripts, and gone after the logout.
fn a_session_from_login_to_logout(engine: Engine) {
    let server = Server::start();
    let browser = Browser::launch(engine, &server);
    log_in(&browser, &server, "Ada");
    assert!(browser.text().contains("Welcome, Ada"), "{}", browser.text());
    browser.reload();
    assert!(browser.text().contains("Ada") && !browser.text().contains("Welcome"), "seen once");
    let cookies = browser.cookies();
    let [cookie] = &cookies[..] else { panic!("one cookie: {cookies:?}") };
    assert_eq!(
        (&*cookie.name, &*cookie.path, cookie.secure, cookie.http_only),
        ("__Host-session", "/", true, true)
    );
    assert_eq!(browser.run("return document.cookie"), "");
    let first = browser.tab();
    browser.new_tab();
    browser.open(&server.url("/"));
    browser.wait_for("Ada");
    log_out(&browser);
    assert_eq!(browser.cookies(), []);
    browser.switch_to(&first);
    browser.reload();
    browser.wait_for("nobody yet");
}

#[test]
fn a_session_from_login_to_logout_in_firefox() {
    a_session_from_login_to_logout(Engine::Firefox);
}

#[test]
fn a_session_from_login_to_logout_in_webkit() {
    a_session_from_login_to_logout(Engine::WebKit);
}
