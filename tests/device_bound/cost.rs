//! The cost of the option: characters of a token, and no allocation where the session is not asked for.

use crate::browser::{Browser, with_cookies};
use crate::site::{BOUND, NAME, Site, block_on};

#[test]
fn a_binding_adds_at_most_64_characters_to_a_token_beside_what_a_new_id_adds() {
    block_on(async {
        let site = Site::on_cookies_with(hyper_session::testing::FakeClock::at(crate::site::START), |b| b);
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
                let future = site.call(request);
                let counted = allocation_counter::measure(|| {
                    let mut future = std::pin::pin!(future);
                    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
                    assert!(future.as_mut().poll(&mut context).is_ready());
                });
                counts.push(counted.count_total);
            }
            assert_eq!(counts[0], counts[1], "{}", site.kind);
        });
    }
}
