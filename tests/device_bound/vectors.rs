//! The answers of the service, held against the specification and the web platform tests: `tests/vectors/dbsc`.

use std::time::Duration;

use http::Response;
use http::header::SET_COOKIE;
use hyper_session::cookie::{CookieOptions, Priority, SameSite};
use hyper_session::store::Memory;
use hyper_session::testing::{FakeClock, Fault, Faulty, Primitive};
use hyper_session::{DeviceBound, Revocations};
use serde_json::{Value, json};

use crate::browser::{Browser, IDENTIFIER, PROOF, post};
use crate::device::{challenge, offer};
use crate::site::{Body, LIFETIME, START, Site, block_on, text};

fn specification() -> Value {
    serde_json::from_str(include_str!("../vectors/dbsc/specification.json")).unwrap()
}

fn web_platform_tests() -> Value {
    serde_json::from_str(include_str!("../vectors/dbsc/web-platform-tests.json")).unwrap()
}

/// Sites with cookies of different names and attributes, and the path below which they are.
fn sites() -> Vec<(&'static str, Site)> {
    let with = |cookie: CookieOptions, path: &str| {
        Site::on_cookies_with(FakeClock::at(START), |builder| {
            let builder = builder.cookie(cookie).device_bound(DeviceBound::new().path(path));
            builder.revocations(Revocations::in_memory())
        })
    };
    let renamed = || CookieOptions::new().name("shop");
    vec![
        ("", Site::on_cookies()),
        ("", with(renamed(), "/device")),
        ("/app", with(renamed().path("/app"), "/app/device")),
        ("", with(renamed().same_site(SameSite::Strict).retired_name("old-shop"), "/device")),
        ("", with(renamed().priority(Priority::High), "/device")),
        ("", Site::on_backend(Memory::new())),
    ]
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect()
}

fn assert_members(value: &Value, rules: &Value) {
    let of = |kind: &str| rules[kind].as_object().unwrap();
    let object = value.as_object().unwrap();
    assert!(of("required").keys().all(|name| object.contains_key(name)), "{value}");
    for (name, member) in object {
        let expected = of("required").get(name).or(of("optional").get(name)).expect(name);
        let kind = match member {
            Value::String(_) => "string",
            Value::Bool(_) => "boolean",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
            _ => "another type",
        };
        assert_eq!(expected, kind, "{name}");
    }
}

/// Checks that the instructions have the members that the specification knows, and that the browser finds the cookie of the
/// response by them.
async fn assert_instructions(response: Response<Body>) {
    let lines: Vec<String> =
        response.headers().get_all(SET_COOKIE).iter().map(|line| line.to_str().unwrap().to_owned()).collect();
    let instructions: Value = serde_json::from_str(&text(response).await).unwrap();
    let specification = specification();
    assert_members(&instructions, &specification["instructions"]);
    assert_members(&instructions["scope"], &specification["scope"]);
    let [credential] = &**instructions["credentials"].as_array().unwrap() else { panic!("{instructions}") };
    assert_members(credential, &specification["credential"]);
    assert_eq!(credential["type"], "cookie");

    let cookie = format!("{}=", credential["name"].as_str().unwrap());
    let line = lines.iter().find(|line| line.starts_with(&cookie)).expect(&cookie);
    let ignored = names(&specification["ignored_attributes"]);
    let name_of = |attribute: &str| attribute.split('=').next().unwrap().to_owned();
    let (compared, rest): (Vec<&str>, Vec<&str>) =
        line.split("; ").skip(1).partition(|attribute| !ignored.contains(&&*name_of(attribute)));
    assert_eq!(credential["attributes"], compared.join("; "), "{line}");
    assert!(rest.iter().any(|attribute| name_of(attribute) == "Max-Age"), "it ends: {line}");
    let known = names(&specification["compared_attributes"]);
    assert!(compared.iter().all(|attribute| known.contains(&&*name_of(attribute))), "{line}");
    for row in web_platform_tests()["cookie_attributes"].as_array().unwrap() {
        let has = |list: &[&str]| list.iter().any(|attribute| row["attribute"] == *name_of(attribute));
        assert!(!has(if row["refreshes"] == true { &rest } else { &compared }), "{row}: {line}");
    }
}

#[test]
fn the_instructions_describe_the_bound_cookie_whatever_its_name_and_attributes() {
    for (base, site) in sites() {
        block_on(async {
            let mut browser = Browser::new();
            let login = browser.visit(&site, &format!("{base}/login")).await;
            let offered = offer(login.headers()).expect("an offer");
            assert!(offered.path.starts_with(&format!("{base}/")));
            assert_instructions(browser.register(&site, &offered).await).await;
            assert_eq!(browser.read(&site, &format!("{base}/")).await, "ada bound 0");
        });
    }
}

/// Returns the effect of a refresh that is answered with this status on the browser's binding.
fn outcome(status: u16) -> String {
    let specification = specification();
    let ranges = specification["refresh_statuses"].as_array().unwrap();
    let fits = |range: &&Value| {
        let bound = |name: &str| range[name].as_u64().unwrap();
        (bound("from")..=bound("to")).contains(&u64::from(status))
    };
    ranges.iter().find(fits).expect("a status")["binding"].as_str().unwrap().to_owned()
}

#[test]
fn each_refresh_is_answered_as_the_web_platform_tests_answer_it() {
    for (base, site) in sites() {
        for row in web_platform_tests()["refresh"].as_array().unwrap() {
            block_on(async {
                let mut browser = Browser::new();
                let login = browser.visit(&site, &format!("{base}/login")).await;
                browser.bind_by(&site, &offer(login.headers()).expect("an offer")).await;
                site.clock.advance(LIFETIME);
                let bound = browser.bound.clone().unwrap();
                let proof = if row["proof"] == true {
                    browser.device.refresh(&challenge(browser.ask(&site).await.headers()))
                } else {
                    String::new()
                };
                let fields = [(IDENTIFIER, &*bound.identifier), (PROOF, &*proof)];
                let sent: Vec<_> = fields
                    .into_iter()
                    .zip([&row["identifier"], &row["proof"]])
                    .filter_map(|(field, sent)| (*sent == true).then_some(field))
                    .collect();
                let response = post(&site, &bound.refresh_url, &browser.cookies, &sent).await;
                assert_eq!(response.status().as_u16(), row["status"], "{row}");
                match response.status().as_u16() {
                    200 => assert_instructions(response).await,
                    403 => {
                        let field = response.headers()["secure-session-challenge"].to_str().unwrap();
                        assert!(field.ends_with(&format!("\";id=\"{}\"", bound.identifier)), "{field}");
                    }
                    _ => {}
                }
            });
        }
    }
}

// The status says what becomes of the binding, and a binding that ends in the browser cannot be made again.
#[test]
fn a_binding_ends_in_the_browser_only_if_it_has_ended_here() {
    let backend = Faulty::new(Memory::new());
    for site in [Site::on_cookies(), Site::on_backend(backend.clone())] {
        block_on(async {
            let mut browser = Browser::new();
            browser.bind(&site).await;
            site.clock.advance(LIFETIME);
            let asked = browser.ask(&site).await;
            assert_eq!(outcome(asked.status().as_u16()), "is asked for a proof");
            let late = browser.device.refresh(&challenge(asked.headers()));
            site.clock.advance(Duration::from_secs(300));
            let answered = browser.prove(&site, &late).await.status();
            assert_eq!(outcome(answered.as_u16()), "is asked for a proof", "a challenge that was too old");
            assert_eq!(outcome(browser.refresh(&site).await), "continues");

            if !site.is_in_cookies() {
                backend.fail(Primitive::Fetch, Fault::Unreachable);
                assert_eq!(outcome(browser.ask(&site).await.status().as_u16()), "continues", "no backend");
                backend.repair();
            }
            let before =
                Browser { cookies: browser.cookies.clone(), bound: browser.bound.clone(), ..Browser::new() };
            browser.visit(&site, "/regenerate").await;
            let answered = before.ask(&site).await.status();
            assert_eq!(outcome(answered.as_u16()), "continues", "a token that was superseded moments ago");

            let bound = browser.bound.clone().unwrap();
            browser.visit(&site, "/logout").await;
            let gone =
                post(&site, &bound.refresh_url, &browser.cookies, &[(IDENTIFIER, &bound.identifier)]).await;
            assert_eq!(outcome(gone.status().as_u16()), "ends");
        });
    }
}

// Members that other drafts have, and the claim that answers `authorization`, which this service does not ask for.
#[test]
fn further_claims_of_a_proof_are_left_alone() {
    for (base, site) in sites() {
        block_on(async {
            let mut browser = Browser::new();
            let login = browser.visit(&site, &format!("{base}/login")).await;
            let offered = offer(login.headers()).expect("an offer");
            let header = json!({ "alg": "ES256", "typ": "dbsc+jwt", "jwk": browser.device.jwk() });
            let claims = json!({
                "aud": "https://example.com/reg",
                "jti": offered.challenge,
                "iat": "1725579055",
                "key": browser.device.jwk(),
                "authorization": "ac",
                "sub": "b",
            });
            let proof = browser.device.sign(&header, &claims);
            let response = post(&site, &offered.path, &browser.cookies, &[(PROOF, &proof)]).await;
            assert_eq!(response.status(), 200);
        });
    }
}
