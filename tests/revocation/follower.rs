//! The task that follows a log: what it confirms while other calls are slow, and how it goes on after its runtime or its log failed.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use hyper_session::__internals::Verbs;
use hyper_session::revocation::{FailurePolicy, Page, Revocation, RevocationLog};
use hyper_session::testing::FakeClock;
use hyper_session::{Clock, Error, Refusal, Revocations};

use crate::requests::{NAME, START, Site};
use crate::shared_log::{Call, Fault, SharedLog};
use crate::support::{block_on, in_time};

/// Long enough for any follower on a busy machine.
const PATIENT: Duration = Duration::from_secs(60);

async fn host(log: &SharedLog) -> Site {
    let revocations = Revocations::open(log.clone()).await.unwrap().max_staleness(PATIENT);
    Site::built(FakeClock::at(START), |builder| builder.revocations(revocations))
}

async fn until_reported(site: &Site, change: &str) -> Vec<&'static str> {
    let mut changes = Vec::new();
    in_time(async {
        while !changes.contains(&change) {
            changes.extend(site.changes());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    changes
}

/// A log whose reads take some time, as over a network.
struct Distant(SharedLog);

impl RevocationLog for Distant {
    fn incarnation(&self) -> u64 {
        self.0.incarnation()
    }

    async fn append(&self, revocations: Vec<Revocation>, above: u64) -> Result<u64, Error> {
        self.0.append(revocations, above).await
    }

    async fn top(&self, at_least: u64) -> Result<u64, Error> {
        self.0.top(at_least).await
    }

    async fn read(&self, after: u64, wait: Duration) -> Result<Page, Error> {
        tokio::time::sleep(Duration::from_millis(5)).await;
        self.0.read(after, wait).await
    }

    async fn trim(&self, age: Duration) -> Result<(), Error> {
        self.0.trim(age).await
    }
}

/// A machine that is suspended, or a share of the CPU that is used up: the log works, and this process did not read it.
#[test]
fn a_pause_of_the_process_fails_no_request() {
    block_on(async {
        let log = SharedLog::default();
        let site = Site::with(Revocations::open(Distant(log.clone())).await.unwrap());
        log.hold(Call::Read);
        log.is_holding(1).await;
        site.store.end_sessions_of("bob").await.unwrap();
        // This session began behind what the process has read, so a request waits for the read.
        let ada = site.logged_in("ada").await;
        let mut request = pin!(site.user(&ada));
        let waits = poll_fn(|context| Poll::Ready(request.as_mut().poll(context).is_pending())).await;
        assert!(waits);
        // This thread runs all there is, and its timers.
        std::thread::sleep(Duration::from_millis(1_100));
        log.release();
        assert_eq!(request.await.as_deref(), Some("ada"));
    });
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

/// A log that is to be missed: a test waits for this, and a follower on a busy machine is faster.
const IMPATIENT: Duration = Duration::from_secs(5);

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// In a program of tests, each test has a runtime of its own, and they share a store.
#[test]
fn the_first_request_of_a_runtime_does_not_pay_for_the_end_of_the_one_before() {
    for policy in [FailurePolicy::Refuse, FailurePolicy::Trust] {
        let log = SharedLog::default();
        let first = runtime();
        let site = first.block_on(async {
            let revocations = Revocations::open(log.clone()).await.unwrap();
            let revocations = revocations.max_staleness(IMPATIENT).failure_policy(policy);
            Site::built(FakeClock::at(START), |builder| builder.revocations(revocations))
        });
        let browser = first.block_on(site.logged_in("ada"));
        drop(first);
        let token = browser.get(NAME).unwrap().to_vec();
        let record = runtime().block_on(site.store.load(&token, site.clock.now())).unwrap().unwrap();
        // Until what is known is too old. Nothing follows the log meanwhile.
        let begun = Instant::now();
        while site.store.is_still_valid(&record, site.clock.now()) {
            assert!(begun.elapsed() < PATIENT, "it stays valid");
            std::thread::sleep(Duration::from_millis(10));
        }
        // A runtime that ends before its task has read anything.
        runtime().block_on(site.store.revocation_position()).unwrap();
        let response = runtime().block_on(site.answer(&browser, |_| async { Ok(()) }));
        assert_eq!(response.status(), 200, "{policy:?}");
        assert!(!site.changes().contains(&"trusted"));
    }
}

/// One thread for each core, each with a runtime of its own: that in which the store was built may no longer do anything.
#[test]
fn a_log_is_followed_although_the_runtime_that_opened_it_is_not_driven() {
    let log = SharedLog::default();
    let idle = runtime();
    let site = idle.block_on(async {
        let revocations = Revocations::open(log.clone()).await.unwrap().max_staleness(IMPATIENT);
        Site::built(FakeClock::at(START), |builder| builder.revocations(revocations))
    });
    let serving = runtime();
    let other = serving.block_on(host(&log));
    let newer = async |user: &str| {
        // It is behind that revocation, so it must be confirmed.
        other.store.end_sessions_of("bob").await.unwrap();
        other.logged_in(user).await
    };
    serving.block_on(async {
        for _ in 0..2 {
            let browser = newer("ada").await;
            assert_eq!(site.answer(&browser, |_| async { Ok(()) }).await.status(), 200);
        }
    });
    // The first task ends when its runtime is driven again, and when that ends. The log is followed all the same.
    idle.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
    serving.block_on(async { assert!(site.accepts(&newer("ada").await).await) });
    drop(idle);
    serving.block_on(async { assert!(site.accepts(&newer("ada").await).await) });
    assert!(site.changes().is_empty());
}

/// Of several entries of one call, only the position of the last one is known at first.
#[test]
fn entries_of_one_call_are_not_taken_for_lost_ones() {
    block_on(async {
        for is_read_before in [true, false] {
            let log = SharedLog::default();
            let site = host(&log).await;
            let (mut ada, bob) = (site.logged_in("ada").await, site.logged_in("bob").await);
            let bobs = site.store.load(bob.get(NAME).unwrap(), site.clock.now()).await.unwrap().unwrap().id();
            if !is_read_before {
                log.set(Fault::Unreadable);
                until_reported(&site, "unreachable").await;
            }
            site.store.end_session(bobs).await.unwrap();
            if is_read_before {
                // With two entries, too: the old id, and the subject.
                site.end_others(&mut ada).await;
                log.settled().await;
            }
            let written = log.top_now();
            if is_read_before {
                log.set(Fault::Refuses);
                until_reported(&site, "unreachable").await;
            }
            log.set(Fault::None);
            assert_eq!(until_reported(&site, "reachable").await, ["reachable"]);
            // Another server takes over that has lost nothing.
            log.fail_over(written);
            log.settled().await;
            site.store.end_sessions_of("eve").await.unwrap();
            let later = site.logged_in("eve").await;
            assert!(site.accepts(&later).await);
            assert_eq!(site.changes(), [""; 0]);
            assert_eq!(log.top_now(), written + 1, "nothing was written again");
            assert_eq!(site.refusal(&bob).await, Some(Refusal::Revoked));
        }
    });
}

#[test]
fn no_duration_is_too_long() {
    block_on(in_time(async {
        let log = SharedLog::default();
        let revocations = Revocations::open(log.clone()).await.unwrap().max_staleness(Duration::MAX);
        let site = Site::built(FakeClock::at(START), |builder| builder.revocations(revocations));
        let other = host(&log).await;
        for fault in [Fault::Refuses, Fault::None] {
            log.set(Fault::None);
            other.store.end_sessions_of("bob").await.unwrap();
            let browser = other.logged_in("ada").await;
            log.set(fault);
            if fault == Fault::Refuses {
                until_reported(&site, "unreachable").await;
                log.set(Fault::None);
            }
            assert!(site.accepts(&browser).await);
        }
    }));
}
