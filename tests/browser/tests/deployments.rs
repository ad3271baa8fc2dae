//! A browser that holds the cookie of a former deployment beside the present one's, in every engine.
//!
//! Browsers keep cookies apart that differ in `Domain` or `Path`, send all that match in an order of their own, and do not
//! say where each came from.

use hyper_session::cookie::CookieOptions;
use hyper_session_browser_tests::{Browser, Deployments, Engine, Keeping, stores};

const NAME: &str = "__Secure-session";
const DOMAIN: &str = "house.localhost";

fn host_only() -> CookieOptions {
    CookieOptions::new().name(NAME)
}

fn of_domain() -> CookieOptions {
    host_only().domain(DOMAIN)
}

/// The page that the browser shows at `path`: the user's name, or `None`.
fn user(browser: &Browser, deployments: &Deployments, path: &str) -> Option<String> {
    browser.open(&deployments.server().url(path));
    let text = browser.text();
    match text.trim().strip_prefix("logged in: ") {
        Some(user) => Some(user.to_owned()),
        None => {
            assert_eq!(text.trim(), "logged out");
            None
        }
    }
}

/// A login under the former options, then the new deployment: it shows the user who logged in last, and its logout logs out.
fn the_present_deployment_decides(engine: Engine) {
    // And how many cookies the browser then holds.
    let changes: [(&str, [CookieOptions; 2], usize); 4] = [
        ("a Domain is dropped", [of_domain(), host_only()], 2),
        ("a Domain is added", [host_only(), of_domain()], 2),
        ("a Domain is dropped, and named as retired", [of_domain(), host_only().retired_domain(DOMAIN)], 1),
        ("the Path is widened", [host_only().path("/area"), host_only()], 2),
    ];
    let mut running: Option<(Deployments, Browser)> = None;
    for keeping in [Keeping::Cookies, Keeping::Memory] {
        for (change, options, cookies) in changes.clone() {
            println!("{engine:?}, {keeping:?}: {change}"); // shown if it fails
            let [former, present] = stores(keeping, options);
            let (deployments, browser) = running.get_or_insert_with(|| {
                let deployments = Deployments::start(&former);
                let browser = Browser::launch(engine, deployments.server());
                (deployments, browser)
            });
            deployments.deploy(&former);
            let look = |path| user(browser, deployments, path);
            assert_eq!(look("/area/"), None);
            assert_eq!(look("/area/login/ada").as_deref(), Some("ada"));
            assert_eq!(look("/area/").as_deref(), Some("ada"), "the browser keeps the cookie");
            deployments.deploy(&present);
            assert_eq!(look("/area/").as_deref(), Some("ada"), "a deployment logs no user out");

            // Ada logs in again, beside her previous cookie, and then Bob.
            assert_eq!(look("/area/login/ada").as_deref(), Some("ada"));
            let held = browser.cookies();
            assert_eq!(held.len(), cookies, "{held:?}");
            assert_eq!(look("/area/").as_deref(), Some("ada"));
            assert_eq!(look("/area/login/bob").as_deref(), Some("bob"));
            for path in ["/area/", "/", "/area/"] {
                assert_eq!(look(path).as_deref(), Some("bob"), "{path}");
            }
            assert_eq!(look("/area/logout"), None);
            for path in ["/area/", "/", "/area/"] {
                assert_eq!(look(path), None, "{path}, after the logout");
            }
            // And again: the browser is not stuck.
            assert_eq!(look("/login/eve").as_deref(), Some("eve"));
            assert_eq!(look("/area/").as_deref(), Some("eve"));
            assert_eq!(look("/logout"), None);
            assert_eq!(look("/area/"), None);
            browser.forget_cookies();
        }
    }
}

#[test]
fn the_present_deployment_decides_in_chromium() {
    the_present_deployment_decides(Engine::Chromium);
}

#[test]
fn the_present_deployment_decides_in_firefox() {
    the_present_deployment_decides(Engine::Firefox);
}

#[test]
fn the_present_deployment_decides_in_webkit() {
    the_present_deployment_decides(Engine::WebKit);
}
