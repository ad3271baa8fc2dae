//! The task that follows a log: what it confirms while other calls are slow, and how it goes on after its runtime or its log failed.

use std::time::Duration;

use hyper_session::revocation::{Revocation, RevocationLog};
use hyper_session::testing::FakeClock;
use hyper_session::{Refusal, Revocations};

use crate::requests::{START, Site};
use crate::shared_log::{Call, Fault, SharedLog};
use crate::support::block_on;

/// Long enough for any follower on a busy machine.
const PATIENT: Duration = Duration::from_secs(60);

async fn host(log: &SharedLog) -> Site {
    let revocations = Revocations::open(log.clone()).await.unwrap().max_staleness(PATIENT);
    Site::built(FakeClock::at(START), |builder| builder.revocations(revocations))
}

async fn until_reported(site: &Site, change: &str) -> Vec<&'static str> {
    let mut changes = Vec::new();
    while !changes.contains(&change) {
        changes.extend(site.changes());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    changes
}

#[test]
fn a_page_that_was_read_before_an_append_is_no_loss() {
    block_on(async {
        let log = SharedLog::default();
        let site = host(&log).await;
        for number in 0..20 {
            log.hold(Call::Read);
            log.is_holding(1).await;
            site.store.end_sessions_of(&number.to_string()).await.unwrap();
            log.release();
            // It is behind that revocation, so it is confirmed by the next read.
            let browser = site.logged_in("ada").await;
            assert!(site.accepts(&browser).await);
            assert!(!site.changes().contains(&"rolled_back"), "turn {number}");
        }
    });
}

#[test]
fn the_log_is_read_while_it_is_trimmed() {
    block_on(async {
        let log = SharedLog::default();
        let site = host(&log).await;
        log.settled().await;
        log.hold(Call::Trim);
        site.clock.advance(Duration::from_secs(61));
        log.is_holding(1).await;
        site.store.end_sessions_of("bob").await.unwrap();
        let browser = site.logged_in("ada").await;
        assert!(site.accepts(&browser).await);
        log.settled().await;
        log.release();
        log.settled().await;
        assert!(log.reads_while_held() > 0);
    });
}

// The first attempt raises the log, and then fails: from then on, the end of the log shows no loss.
#[test]
fn what_a_log_lost_is_written_again_although_the_first_attempt_fails() {
    block_on(async {
        let log = SharedLog::default();
        let one = host(&log).await;
        let mut browser = one.logged_in("ada").await;
        let copy = browser.clone();
        let before = log.top_now();
        one.logout(&mut browser).await;
        // So many that the logout is not a recent one.
        let another = Revocation::from_bytes(&[1; Revocation::LEN]).unwrap();
        for _ in 0..17 {
            log.append(vec![another; 4_096], 0).await.unwrap();
        }
        let bob = one.logged_in("bob").await;
        assert!(one.accepts(&bob).await, "all of it was read");
        one.changes();
        log.refuse_appends(1);
        log.roll_back(before);
        let changes = until_reported(&one, "reachable").await;
        assert_eq!(changes, ["unreachable", "rolled_back", "reachable"]);
        let two = host(&log).await;
        assert_eq!(two.refusal(&copy).await, Some(Refusal::Revoked));
    });
}

#[test]
fn a_log_is_followed_after_the_runtime_that_opened_it_has_ended() {
    let log = SharedLog::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let site = runtime.block_on(host(&log));
    drop(runtime);
    assert_eq!(site.changes(), ["unreachable"]);
    block_on(async {
        let other = host(&log).await;
        let (mut ended, alive) = (other.logged_in("bob").await, other.logged_in("ada").await);
        let copy = ended.clone();
        other.logout(&mut ended).await;
        let later = other.logged_in("ada").await;
        assert!(site.accepts(&later).await);
        assert_eq!(site.changes(), ["reachable"]);
        assert_eq!(site.refusal(&copy).await, Some(Refusal::Revoked));
        assert!(site.accepts(&alive).await);
    });
}

#[test]
fn a_log_is_followed_after_it_has_panicked() {
    block_on(async {
        let log = SharedLog::default();
        let site = host(&log).await;
        for _ in 0..2 {
            log.set(Fault::Panics);
            until_reported(&site, "unreachable").await;
            log.set(Fault::None);
            site.store.end_sessions_of("bob").await.unwrap();
            let browser = site.logged_in("ada").await;
            assert!(site.accepts(&browser).await);
            assert_eq!(site.changes(), ["reachable"]);
        }
    });
}
