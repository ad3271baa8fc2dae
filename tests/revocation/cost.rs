//! The cost of the option: bytes of a token, allocations of a look-up, and nothing where it is off.

use hyper_session::__internals::Verbs;
use hyper_session::testing::{Cookies, FakeClock};
use hyper_session::{Clock, Revocations};

use crate::requests::{NAME, START, Site};
use crate::support::block_on;

/// A token of a session whose values take so many bytes: envelope and header are 95 bytes, in base64url.
fn token_len(values: usize) -> usize {
    (4 * (95 + values)).div_ceil(3)
}

#[test]
fn a_session_without_the_option_holds_its_values_and_nothing_else() {
    block_on(async {
        let site = Site::built(FakeClock::at(START), |builder| builder);
        let mut browser = Cookies::new();
        site.set(&mut browser, "a").await;
        assert_eq!(browser.get(NAME).unwrap().len(), token_len(b"\x81\xa1a\x01".len()));
        site.login(&mut browser, "ada").await;
        assert_eq!(
            browser.get(NAME).unwrap().len(),
            token_len(b"\x83\xa2\x01a\xce\0\0\0\0\xa2\x01s\xa3ada\xa1a\x01".len())
        );
    });
}

#[test]
fn what_it_adds_to_a_token_is_what_the_builder_says() {
    block_on(async {
        let site = Site::in_memory();
        let mut browser = Cookies::new();
        let without = [
            token_len(b"\x81\xa1a\x01".len()),
            token_len(b"\x83\xa2\x01a\xce\0\0\0\0\xa2\x01s\xa3ada\xa1a\x01".len()),
            token_len(b"\x83\xa2\x01a\xce\0\0\0\0\xa2\x01s\xa3ada\xa1a\x01".len()),
        ];
        let mut with = Vec::new();
        site.set(&mut browser, "a").await;
        with.push(browser.get(NAME).unwrap().len());
        site.login(&mut browser, "ada").await;
        with.push(browser.get(NAME).unwrap().len());
        site.regenerate(&mut browser).await;
        with.push(browser.get(NAME).unwrap().len());
        for (with, without) in with.iter().zip(without) {
            let bytes = (with - without) * 3 / 4;
            assert!((10..=58).contains(&bytes), "{bytes}");
        }
        let before = browser.get(NAME).unwrap().len();
        site.visit(&mut browser, |session| async move { session.label("oidc", "issuer#sid") }).await;
        let bytes = (browser.get(NAME).unwrap().len() - before) * 3 / 4;
        assert!(bytes <= 24, "{bytes}");
    });
}

#[test]
fn a_look_up_allocates_nothing() {
    block_on(async {
        let revocations = Revocations::in_memory();
        for number in 0..10_000 {
            revocations.end_sessions_of(&number.to_string()).await.unwrap();
        }
        let site = Site::with(revocations);
        let mut browser = site.logged_in("ada").await;
        site.visit(&mut browser, |session| async move {
            ["a", "b", "c", "d"].iter().try_for_each(|namespace| session.label(namespace, "value"))
        })
        .await;
        site.regenerate(&mut browser).await;
        let now = site.clock.now();
        let record = site.store.load(browser.get(NAME).unwrap(), now).await.unwrap().unwrap();
        let counted = allocation_counter::measure(|| {
            for _ in 0..100 {
                assert!(site.store.is_still_valid(&record, now));
            }
        });
        assert_eq!(counted.count_total, 0);
    });
}
