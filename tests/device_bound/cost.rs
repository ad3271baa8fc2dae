//! The cost of the option: characters of a token, and no allocation, neither for the check nor where the session is not asked for.

use std::time::Instant;

use allocation_counter::AllocationInfo;
use http::header::{COOKIE, HeaderValue};
use http::{Request, Response};
use hyper::service::Service;
use hyper_session::testing::FakeClock;
use hyper_session::{Error, SessionHandle, session_fn};

use crate::browser::{Browser, with_cookies};
use crate::site::{BOUND, Body, GRACE, NAME, START, Site, block_on};
use crate::thefts::with_only;

#[test]
fn a_binding_adds_at_most_64_characters_to_a_token_beside_what_a_new_id_adds() {
    block_on(async {
        let site = Site::on_cookies_with(FakeClock::at(START), |b| b);
        let mut browser = Browser::new();
        let offered = browser.log_in(&site).await;
        let before = browser.cookies.get(NAME).unwrap().len();
        browser.register(&site, &offered).await;
        let after = browser.cookies.get(NAME).unwrap().len();
        assert!((1..=64).contains(&(after - before)), "{}", after - before);
        assert_eq!(browser.cookies.get(BOUND).unwrap().len(), 56);
    });
}

#[test]
fn a_request_that_does_not_ask_allocates_as_little_as_an_unbound_one() {
    for site in Site::all() {
        block_on(async {
            let mut browser = Browser::new();
            browser.bind(&site).await;
            let mut unbound = Browser::new();
            unbound.log_in(&site).await;
            let mut counts = Vec::new();
            for cookies in [browser.cookies, unbound.cookies] {
                let request = with_cookies(http::Request::get("/ping"), &cookies);
                counts.push(measured(site.call(request)).1.count_total);
            }
            assert_eq!(counts[0], counts[1], "{}", site.kind);
        });
    }
}

/// Completes a future that does not wait, and measures what it allocates.
fn measured<T>(future: impl Future<Output = T>) -> (T, AllocationInfo) {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let mut output = None;
    let counted = allocation_counter::measure(|| output = Some(future.as_mut().poll(&mut context)));
    match output {
        Some(std::task::Poll::Ready(output)) => (output, counted),
        _ => panic!("it waits"),
    }
}

fn pair(browser: &Browser, name: &str) -> String {
    format!("{name}={}", std::str::from_utf8(browser.cookies.get(name).unwrap()).unwrap())
}

// The same request in the grace, where no bound cookie is asked for, and after it. With the memo of the connection and without, and
// also if as many planted cookies come first as are tried beside the genuine one.
#[test]
fn the_check_of_a_bound_cookie_allocates_nothing() {
    for (memo, planted) in [(true, 0), (true, 3), (false, 0), (false, 3)] {
        let site = Site::on_cookies_with(FakeClock::at(START), |builder| builder.connection_memo(memo));
        let mut pairs = Vec::new();
        for _ in 0..planted {
            let mut other = Browser::new();
            block_on(other.bind(&site));
            pairs.push(pair(&other, BOUND));
        }
        let mut browser = Browser::new();
        block_on(browser.bind(&site));
        pairs.extend([pair(&browser, BOUND), pair(&browser, NAME)]);
        let cookies = HeaderValue::try_from(pairs.join("; ")).unwrap();
        let service = session_fn(site.store.clone(), |_: Request<Body>, handle: SessionHandle| async move {
            Ok::<_, Error>(Response::new(handle.load().await?.binding().is_bound()))
        });
        let counts = [0, GRACE.as_secs()].map(|second| {
            site.clock.set(START + second);
            let request = || Request::get("/").header(COOKIE, &cookies).body(Body::default()).unwrap();
            // The first one fills the memo.
            let [_, counted] = [request(), request()].map(|request| {
                let (response, counted) = measured(service.call(request));
                assert!(response.unwrap().into_body(), "it is bound");
                (counted.count_total, counted.bytes_total)
            });
            counted
        });
        assert_eq!(counts[0], counts[1], "memo {memo}, {planted} planted");
    }
}

/// The same request in the grace without its bound cookie, then with it, and after the grace. The first difference is the search for
/// the cookie, the second one its check. With the connection memo, it is compared with the cookie that the connection checked last.
/// Without the memo, its MAC is computed.
///
/// `cargo test --release --features device-bound,memory,testing --test device_bound -- --ignored --nocapture nanoseconds`
#[test]
#[ignore = "a measurement, for a release build on a machine that does nothing else"]
fn nanoseconds_of_the_check() {
    const REQUESTS: u32 = 2_000;
    const ROUNDS: u32 = 500;
    let mut arms = Vec::new();
    for memo in [true, false] {
        let site = Site::on_cookies_with(FakeClock::at(START), |builder| builder.connection_memo(memo));
        let mut browser = Browser::new();
        block_on(browser.bind(&site));
        let service = session_fn(site.store.clone(), |_: Request<Body>, handle: SessionHandle| async move {
            Ok::<_, Error>(Response::new(handle.load().await?.binding().is_bound()))
        });
        let without = with_only(NAME, &browser.cookies).cookies;
        let round = move |kind| {
            let (second, cookies) = match kind {
                0 => (0, &without),
                1 => (0, &browser.cookies),
                _ => (GRACE.as_secs(), &browser.cookies),
            };
            site.clock.set(START + second);
            block_on(async {
                // Requests are made outside of the measurement, which would otherwise contain what a longer header costs.
                let requests: Vec<_> =
                    (0..REQUESTS).map(|_| with_cookies(Request::get("/"), cookies)).collect();
                let begin = Instant::now();
                for request in requests {
                    assert!(service.call(request).await.unwrap().into_body());
                }
                begin.elapsed() / REQUESTS
            })
        };
        arms.push((memo, round, [std::time::Duration::MAX; 3]));
    }
    for _ in 0..ROUNDS {
        for (_, round, least) in &mut arms {
            for (kind, least) in least.iter_mut().enumerate() {
                // Whatever else runs on the machine only adds.
                *least = round(kind).min(*least);
            }
        }
    }
    for (memo, _, [without, found, checked]) in arms {
        println!(
            "memo {memo}: without {without:?}, the search {:?}, the check {:?}: the least of {ROUNDS}",
            found.saturating_sub(without),
            checked.saturating_sub(found)
        );
    }
}
