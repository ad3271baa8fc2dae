//! Two hosts that share a log: what one ends, the other refuses, whatever happens to the log and to the clocks.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper_session::revocation::{FailurePolicy, Page, Revocation, RevocationLog};
use hyper_session::testing::{Cookies, FakeClock, check_revocation_log};
use hyper_session::{AppKey, CookieStore, Error, Refusal, Revocations, Session};

use crate::requests::{NAME, START, Site};
use crate::shared_log::{Call, Fault, SharedLog};
use crate::support::block_on;

const HOUR: u64 = 3_600;

/// Long enough for any follower on a busy machine: what is confirmed later than that is a bug.
const PATIENT: Duration = Duration::from_secs(20);

/// For a log that is to be missed: a test waits for this, and a follower on a busy machine is faster.
const IMPATIENT: Duration = Duration::from_secs(5);

async fn host(log: &SharedLog, clock: u64) -> Site {
    with_policy(log, clock, FailurePolicy::Refuse, PATIENT).await
}

async fn with_policy(log: &SharedLog, clock: u64, policy: FailurePolicy, staleness: Duration) -> Site {
    let revocations = Revocations::open(log.clone()).await.unwrap();
    let revocations = revocations.failure_policy(policy).max_staleness(staleness);
    Site::built(FakeClock::at(clock), |builder| {
        builder.revocations(revocations).idle_timeout(Duration::from_secs(7 * 86_400))
    })
}

#[test]
fn the_log_of_these_tests_keeps_the_contract() {
    block_on(async {
        let log = SharedLog::default();
        check_revocation_log(&log, &log.clone()).await;
    });
}

#[test]
fn what_one_host_ends_the_other_refuses_though_their_clocks_are_an_hour_apart() {
    block_on(async {
        for (here, there) in [(START, START), (START + HOUR, START), (START, START + HOUR)] {
            let log = SharedLog::default();
            let (one, two) = (host(&log, here).await, host(&log, there).await);
            // A token from a host whose clock is ahead is from the future: that is refused, as ever.
            let mut browser =
                if here <= there { one.logged_in("ada").await } else { two.logged_in("ada").await };
            let copy = browser.clone();
            assert!(two.accepts(&copy).await);
            if here <= there {
                one.logout(&mut browser).await;
            } else {
                two.logout(&mut browser).await;
            }
            log.settled().await;
            assert_eq!(one.refusal(&copy).await, Some(Refusal::Revoked));
            assert_eq!(two.refusal(&copy).await, Some(Refusal::Revoked));
        }
    });
}

#[test]
fn a_session_from_the_end_of_the_log_is_waited_for_and_not_refused() {
    block_on(async {
        let log = SharedLog::default();
        let (one, two) = (host(&log, START).await, host(&log, START).await);
        for number in 0..200 {
            // Each moves the end of the log, which the other host has not read yet.
            one.store.end_sessions_of(&number.to_string()).await.unwrap();
            let browser = one.logged_in("ada").await;
            assert!(two.accepts(&browser).await);
        }
    });
}

#[test]
fn ending_all_and_logging_in_ten_thousand_times_over_two_hosts() {
    block_on(async {
        let log = SharedLog::default();
        let hosts = [host(&log, START + 30).await, host(&log, START).await];
        let mut browser = hosts[0].logged_in("ada").await;
        let mut copies: Vec<Cookies> = Vec::new();
        for turn in 0..10_000 {
            let (here, there) = (&hosts[turn % 2], &hosts[(turn + 1) % 2]);
            copies.push(browser.clone());
            here.end_all_and_log_in(&mut browser, "ada").await;
            assert!(here.accepts(&browser).await, "turn {turn}, on the host that began it");
            assert!(there.accepts(&browser).await, "turn {turn}, on the other host");
            if turn % 1_000 == 0 {
                for old in copies.drain(..) {
                    assert!(!here.accepts(&old).await && !there.accepts(&old).await, "turn {turn}");
                }
            }
        }
    });
}

#[test]
fn ending_the_others_on_two_hosts_whose_clocks_differ() {
    block_on(async {
        let log = SharedLog::default();
        let hosts = [host(&log, START + 30).await, host(&log, START).await];
        let mut browser = hosts[0].logged_in("ada").await;
        for turn in 0..8 {
            let (here, there) = (&hosts[turn % 2], &hosts[(turn + 1) % 2]);
            let (copy, other) = (browser.clone(), there.logged_in("ada").await);
            assert_eq!(here.end_others(&mut browser).await.status(), 200);
            assert!(here.accepts(&browser).await && there.accepts(&browser).await, "turn {turn}");
            log.settled().await;
            for ended in [&copy, &other] {
                assert!(!here.accepts(ended).await && !there.accepts(ended).await, "turn {turn}");
            }
        }
    });
}

// The end of the subject is in the log, and this host has not read it when the request is loaded.
#[test]
fn a_session_that_ends_the_others_does_not_outrun_an_end_on_another_host() {
    block_on(async {
        for turn in 0..50 {
            let log = SharedLog::default();
            let (here, there) = (host(&log, START).await, host(&log, START).await);
            let mut browser = here.logged_in("ada").await;
            let elsewhere = &there.store;
            here.visit(&mut browser, |session| async move {
                if turn % 2 == 0 {
                    elsewhere.end_sessions_of("ada").await?;
                } else {
                    elsewhere.end_session(session.id().unwrap()).await?;
                }
                let error = session.end_other_sessions().await.unwrap_err();
                assert!(error.is_ended(), "turn {turn}: {error}");
                Ok(())
            })
            .await;
            assert!(!here.accepts(&browser).await && !there.accepts(&browser).await, "turn {turn}");
        }
    });
}

/// The client hangs up while the end of the other sessions waits for a save of its handler.
#[test]
fn others_end_although_the_client_hangs_up_before_their_turn() {
    block_on(async {
        let log = SharedLog::default();
        let here = host(&log, START).await;
        let (browser, other) = (here.logged_in("ada").await, here.logged_in("ada").await);
        log.hold(Call::Append);
        let mut response = Box::pin(here.answer(&browser, |session| async move {
            session.reauthenticate()?;
            let mut save = Box::pin(async { session.save().await });
            assert!(poll_once(&mut save).is_pending(), "the log holds it");
            drop(save);
            session.end_other_sessions().await.map(drop)
        }));
        assert!(poll_once(&mut response).is_pending());
        log.is_holding(1).await;
        assert!(poll_once(&mut response).is_pending());
        drop(response);
        assert!(here.accepts(&other).await);
        log.release();
        let begun = std::time::Instant::now();
        while here.accepts(&other).await {
            assert!(begun.elapsed() < Duration::from_secs(120), "the other session goes on");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
}

/// The handler gives up the end of the other sessions, which waits for a save, and then logs its user out.
#[test]
fn others_end_although_the_handler_gives_that_up_and_ends_its_session() {
    type End = fn(&Session) -> Result<(), Error>;
    let ends: [End; 2] = [Session::destroy, Session::clear];
    for end in ends {
        block_on(async {
            let log = SharedLog::default();
            let here = host(&log, START).await;
            let (mut browser, other) = (here.logged_in("ada").await, here.logged_in("ada").await);
            let copy = browser.clone();
            log.hold(Call::Append);
            let held = &log;
            let response = here
                .visit(&mut browser, |session| async move {
                    session.reauthenticate()?;
                    let mut save = Box::pin(async { session.save().await });
                    assert!(poll_once(&mut save).is_pending(), "the log holds it");
                    let mut ending = Box::pin(async { session.end_other_sessions().await });
                    assert!(poll_once(&mut ending).is_pending(), "the save is before it");
                    drop(ending);
                    end(&session)?;
                    held.release();
                    save.await?;
                    for _ in 0..100 {
                        tokio::task::yield_now().await;
                    }
                    Ok(())
                })
                .await;
            assert_eq!(response.status(), 200);
            assert!(browser.header().is_none() && !here.accepts(&copy).await);
            let begun = std::time::Instant::now();
            while here.accepts(&other).await {
                assert!(begun.elapsed() < Duration::from_secs(20), "the other session goes on");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
    }
}

/// The handler logs its user out while the end of the other sessions still waits for a save. It is told, and the others stay.
#[test]
fn no_others_end_if_the_session_has_lost_its_subject_and_the_handler_waits() {
    block_on(async {
        let log = SharedLog::default();
        let here = host(&log, START).await;
        let (mut browser, other) = (here.logged_in("ada").await, here.logged_in("ada").await);
        log.hold(Call::Append);
        let held = &log;
        let response = here
            .visit(&mut browser, |session| async move {
                session.reauthenticate()?;
                let mut save = Box::pin(async { session.save().await });
                assert!(poll_once(&mut save).is_pending(), "the log holds it");
                let mut ending = Box::pin(async { session.end_other_sessions().await });
                assert!(poll_once(&mut ending).is_pending(), "the save is before it");
                session.destroy()?;
                held.release();
                save.await?;
                assert!(ending.await.unwrap_err().is_not_logged_in());
                Ok(())
            })
            .await;
        assert_eq!(response.status(), 200);
        assert!(browser.header().is_none() && here.accepts(&other).await);
    });
}

fn poll_once<F: Future + ?Sized>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_log_that_is_away_ends_no_others_and_says_so() {
    block_on(async {
        let log = SharedLog::default();
        let here = host(&log, START).await;
        let (mut browser, other) = (here.logged_in("ada").await, here.logged_in("ada").await);
        log.set(Fault::Full);
        assert_eq!(here.end_others(&mut browser).await.status(), 503);
        assert!(here.accepts(&browser).await && here.accepts(&other).await, "nothing has ended");
        log.set(Fault::None);
        assert_eq!(here.end_others(&mut browser).await.status(), 200);
        assert!(here.accepts(&browser).await && !here.accepts(&other).await);
    });
}

#[test]
fn while_the_log_is_away_requests_that_ask_are_refused_and_logouts_say_so() {
    block_on(async {
        for fault in [Fault::Refuses, Fault::Hangs] {
            let log = SharedLog::default();
            let site = with_policy(&log, START, FailurePolicy::Refuse, IMPATIENT).await;
            let mut browser = site.logged_in("ada").await;
            log.set(fault);
            while site.visit(&mut browser, |_| async { Ok(()) }).await.status() != 503 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert!(browser.header().is_some(), "the cookie stays");
            assert!(site.changes().contains(&"unreachable"));
            log.set(Fault::None);
            while site.visit(&mut browser, |_| async { Ok(()) }).await.status() != 200 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert!(site.changes().contains(&"reachable"));
            assert!(site.accepts(&browser).await);
        }
    });
}

/// The second host has a read that failed behind it when it is asked for a session that is newer than what it has read.
#[test]
fn a_read_that_failed_costs_no_request_while_what_is_known_is_not_too_old() {
    block_on(async {
        let log = SharedLog::default();
        let (one, two) = (host(&log, START).await, host(&log, START).await);
        for _ in 0..3 {
            log.set(Fault::Refuses);
            while !two.changes().contains(&"unreachable") {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            log.set(Fault::None);
            let mut browser = one.logged_in("ada").await;
            assert_eq!(two.visit(&mut browser, |_| async { Ok(()) }).await.status(), 200);
            // Or the next failure would be the same one to this host, and not a change.
            while !two.changes().contains(&"reachable") {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            log.settled().await;
        }
    });
}

#[test]
fn a_logout_that_is_not_durable_is_not_answered() {
    block_on(async {
        let log = SharedLog::default();
        let site = host(&log, START).await;
        let mut browser = site.logged_in("ada").await;
        log.set(Fault::Full);
        let response = site.visit(&mut browser, |session| async move { session.destroy() }).await;
        assert_eq!(response.status(), 503);
        assert!(site.accepts(&browser).await, "the browser still has its session");
        log.set(Fault::None);
        let copy = browser.clone();
        site.logout(&mut browser).await;
        assert!(!site.accepts(&copy).await);
    });
}

/// A session that is trusted while the log cannot be read is judged again afterwards. A session that was sealed behind an end that
/// its host had not read would not be.
#[test]
fn trust_seals_no_session_behind_an_end_that_is_not_known() {
    block_on(async {
        let log = SharedLog::default();
        let here = with_policy(&log, START, FailurePolicy::Trust, IMPATIENT).await;
        let there = host(&log, START).await;
        let mut stolen = here.logged_in("ada").await;
        log.settled().await;
        log.set(Fault::Unreadable);
        there.store.end_sessions_of("ada").await.unwrap();
        assert_eq!(here.end_others(&mut stolen).await.status(), 503);
        log.set(Fault::None);
        log.settled().await;
        assert!(!here.accepts(&stolen).await);
    });
}

#[test]
fn trust_accepts_what_cannot_be_confirmed_and_says_so() {
    block_on(async {
        let log = SharedLog::default();
        let site = with_policy(&log, START, FailurePolicy::Trust, IMPATIENT).await;
        let mut ended = site.logged_in("bob").await;
        let (browser, copy) = (site.logged_in("ada").await, ended.clone());
        site.logout(&mut ended).await;
        log.set(Fault::Refuses);
        while !site.changes().contains(&"trusted") {
            assert!(site.accepts(&browser).await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(!site.accepts(&copy).await, "what is known counts in any case");
    });
}

#[test]
fn a_tail_that_a_failover_lost_is_written_again() {
    block_on(async {
        let log = SharedLog::default();
        let (one, two) = (host(&log, START).await, host(&log, START).await);
        for number in 0..150 {
            one.store.end_sessions_of(&number.to_string()).await.unwrap();
        }
        let before = log.top_now();
        let mut browser = one.logged_in("ada").await;
        let copy = browser.clone();
        one.logout(&mut browser).await;
        // In one request: ended, and logged in again. Both were answered, and the log forgets the first.
        let store = one.store.clone();
        let mut bob = one.logged_in("bob").await;
        let bobs_copy = bob.clone();
        one.visit(&mut bob, |session| {
            let store = store.clone();
            async move {
                store.end_sessions_of("bob").await?;
                session.login("bob")
            }
        })
        .await;
        let highest = log.top_now();
        log.fail_over(before);
        // A process that starts now knows only what the log has.
        let three = loop {
            let three = host(&log, START).await;
            if !three.accepts(&copy).await && !three.accepts(&bobs_copy).await {
                break three;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        while two.accepts(&copy).await || two.accepts(&bobs_copy).await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(log.top_now() >= highest);
        for site in [&one, &two, &three] {
            assert!(!site.accepts(&copy).await && !site.accepts(&bobs_copy).await);
            assert!(site.accepts(&bob).await, "its login keeps its place behind the end of its subject");
        }
        // And what is ended now is behind all sessions that there are.
        two.store.end_sessions_of("bob").await.unwrap();
        log.settled().await;
        for site in [&one, &two, &three] {
            assert!(!site.accepts(&bob).await);
        }
    });
}

#[test]
fn a_tail_is_written_again_although_the_new_log_has_grown_past_it() {
    block_on(async {
        let log = SharedLog::default();
        let (one, two) = (host(&log, START).await, host(&log, START).await);
        let before = log.top_now();
        let mut browser = one.logged_in("ada").await;
        let copy = browser.clone();
        one.logout(&mut browser).await;
        log.settled().await;
        // While the log is unreadable for this host, another server takes over, and other hosts write to it.
        log.set(Fault::Refuses);
        while !(one.changes().contains(&"unreachable")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        log.fail_over(before);
        let newcomer = Revocations::open(log.clone()).await.unwrap();
        for number in 0..20 {
            newcomer.end_sessions_of(&number.to_string()).await.unwrap();
        }
        let mut changes = Vec::new();
        while !changes.contains(&"reachable") {
            changes.extend(one.changes());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        log.settled().await;
        changes.extend(one.changes());
        changes.extend(two.changes());
        assert!(changes.contains(&"rolled_back"), "one of them wrote it again: {changes:?}");
        let three = host(&log, START).await;
        for site in [&one, &two, &three] {
            assert!(!site.accepts(&copy).await);
        }
    });
}

#[test]
fn a_position_that_the_log_does_not_reach_is_refused_once_and_the_log_is_raised() {
    block_on(async {
        let log = SharedLog::default();
        let one = host(&log, START).await;
        for number in 0..10 {
            one.store.end_sessions_of(&number.to_string()).await.unwrap();
        }
        let browser = one.logged_in("ada").await;
        drop(one);
        log.fail_over(3); // a backup was restored, and no host is left that knows better
        let two = host(&log, START).await;
        let response = two.answer(&browser, |_| async { Ok(()) }).await;
        assert_eq!(response.status(), 503);
        assert!(log.top_now() >= 10);
        assert!(two.changes().contains(&"rolled_back"));
        log.settled().await;
        assert!(two.accepts(&browser).await);
        two.store.end_sessions_of("ada").await.unwrap();
        assert!(!two.accepts(&browser).await);
    });
}

#[test]
fn starting_without_the_log_is_an_error() {
    block_on(async {
        let log = SharedLog::default();
        log.set(Fault::Refuses);
        assert!(Revocations::open(log.clone()).await.unwrap_err().is_unavailable());
        log.set(Fault::None);
        let revocations =
            Revocations::open(log.clone()).await.unwrap().max_staleness(Duration::from_millis(200));
        let key = AppKey::danger_from_any_bytes(b"a key for tests").unwrap();
        assert!(CookieStore::builder(key).revocations(revocations).build().unwrap_err().is_config());
    });
    // The task that follows the log needs a runtime.
    let log = SharedLog::default();
    let mut open = std::pin::pin!(Revocations::open(log));
    let context = &mut std::task::Context::from_waker(std::task::Waker::noop());
    match std::future::Future::poll(open.as_mut(), context) {
        std::task::Poll::Ready(Err(error)) => assert!(error.is_config()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn requests_that_do_not_ask_never_notice() {
    use hyper::service::Service;
    use hyper_session::{SessionHandle, session_fn};
    block_on(async {
        let log = SharedLog::default();
        let site = with_policy(&log, START, FailurePolicy::Refuse, IMPATIENT).await;
        let browser = site.logged_in("ada").await;
        log.set(Fault::Hangs);
        while site.visit(&mut browser.clone(), |_| async { Ok(()) }).await.status() != 503 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let service = session_fn(site.store.clone(), |_: http::Request<()>, _: SessionHandle| async {
            Ok::<_, Error>(http::Response::new(()))
        });
        let request = http::Request::builder().header("cookie", format!("{NAME}=whatever"));
        let response = service.call(request.body(()).unwrap()).await.unwrap();
        assert!(response.status() == 200 && response.headers().is_empty());
    });
}

#[test]
fn a_follower_ends_with_its_last_user() {
    block_on(async {
        let log = SharedLog::default();
        let held = Arc::new(());
        let revocations = Revocations::open(Held(log, Arc::clone(&held))).await.unwrap();
        drop(revocations);
        while Arc::strong_count(&held) > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}

/// `SharedLog`, with a count of its holders.
struct Held(SharedLog, #[allow(dead_code)] Arc<()>);

impl RevocationLog for Held {
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
        self.0.read(after, wait).await
    }

    async fn trim(&self, age: Duration) -> Result<(), Error> {
        self.0.trim(age).await
    }
}

#[test]
fn the_first_sessions_of_an_empty_log_are_not_unknown() {
    block_on(async {
        let log = SharedLog::default();
        let revocations = Revocations::open(log.clone()).await.unwrap();
        let revocations = revocations.refuse_unknown(true).max_staleness(PATIENT);
        let site = Site::built(FakeClock::at(START), |builder| builder.revocations(revocations));
        let mut visitor = Cookies::new();
        site.set(&mut visitor, "a").await;
        assert!(site.accepts(&visitor).await);
        let browser = site.logged_in("ada").await;
        assert!(site.accepts(&browser).await);
    });
}
