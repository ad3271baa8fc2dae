//! How long revocations are remembered, what happens when there are too many, and which clients can cause that.

use std::time::Duration;

use hyper_session::Revocations;
use hyper_session::testing::{Cookies, FakeClock};

use crate::requests::{START, Site};
use crate::support::block_on;

#[test]
fn what_was_never_logged_in_writes_nothing() {
    block_on(async {
        let site = Site::in_memory();
        let mut browser = Cookies::new();
        site.set(&mut browser, "cart").await;
        site.regenerate(&mut browser).await;
        site.login(&mut browser, "ada").await;
        assert_eq!(site.revoked(), 0);
        site.set(&mut Cookies::new(), "cart").await;
        let mut other = Cookies::new();
        site.set(&mut other, "cart").await;
        site.logout(&mut other).await;
        assert_eq!(site.revoked(), 0);
        site.logout(&mut browser).await;
        assert_eq!(site.revoked(), 1);
    });
}

#[test]
fn the_same_logout_is_written_once() {
    block_on(async {
        let site = Site::in_memory();
        let browser = site.logged_in("ada").await;
        for _ in 0..20 {
            site.visit(&mut browser.clone(), |session| async move { session.destroy() }).await;
        }
        assert_eq!(site.revoked(), 1);
    });
}

#[test]
fn a_subject_that_logs_out_in_a_loop_ends_only_its_own_sessions() {
    block_on(async {
        let site = Site::with(Revocations::in_memory().max_per_subject(10).max_revocations(100));
        let (bob, elsewhere) = (site.logged_in("bob").await, site.logged_in("mallory").await);
        for _ in 0..1_000 {
            let mut mallory = site.logged_in("mallory").await;
            let copy = mallory.clone();
            site.logout(&mut mallory).await;
            assert!(!site.accepts(&copy).await);
        }
        assert!(site.revoked() <= 11, "{}", site.revoked());
        assert!(site.accepts(&bob).await);
        assert!(!site.accepts(&elsewhere).await);
        assert_eq!(site.changes().iter().filter(|change| **change == "subject_limit").count(), 990);
        // It can still log in, and stays logged in.
        let mut mallory = site.logged_in("mallory").await;
        site.regenerate(&mut mallory).await;
        let copy = mallory.clone();
        site.login(&mut mallory, "mallory").await;
        assert!(site.accepts(&mallory).await);
        // As the guide says, the old id is not revoked then. A logout ends it.
        assert!(site.accepts(&copy).await);
        site.logout(&mut mallory).await;
        assert!(!site.accepts(&copy).await);
    });
}

#[test]
fn too_many_become_a_floor_and_nothing_is_lost_silently() {
    block_on(async {
        let site = Site::with(Revocations::in_memory().max_revocations(64));
        let mut ended = Vec::new();
        let early = site.logged_in("early").await;
        for number in 0..100 {
            let user = format!("user-{number}");
            let mut browser = site.logged_in(&user).await;
            ended.push(browser.clone());
            site.logout(&mut browser).await;
        }
        assert!(site.changes().contains(&"floor"));
        assert!(site.revoked() <= 64);
        for copy in &ended {
            assert!(!site.accepts(copy).await);
        }
        assert!(!site.accepts(&early).await, "it is from before the floor");
        assert!(site.accepts(&site.logged_in("late").await).await);
    });
}

#[test]
fn a_revocation_is_remembered_as_long_as_a_session_could_live_and_not_much_longer() {
    block_on(async {
        let day = Duration::from_secs(86_400);
        let site = Site::built(FakeClock::at(START), |builder| {
            builder.revocations(Revocations::in_memory()).idle_timeout(7 * day).absolute_timeout(7 * day)
        });
        let mut browser = site.logged_in("ada").await;
        let copy = browser.clone();
        site.logout(&mut browser).await;
        // A host whose clock is an hour behind believes the copy an hour longer.
        site.clock.set(START + 7 * 86_400 - 1);
        let mut other = site.logged_in("bob").await;
        site.logout(&mut other).await;
        assert_eq!(site.revoked(), 2);
        assert!(!site.accepts(&copy).await);
        site.clock.advance(Duration::from_secs(3 * 3_600));
        let mut other = site.logged_in("bob").await;
        site.logout(&mut other).await;
        assert_eq!(site.revoked(), 2, "the first one is forgotten");
    });
}
