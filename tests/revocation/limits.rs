//! How long revocations are remembered, what happens when there are too many, and which clients can cause that.

use std::time::Duration;

use http::header::COOKIE;
use http::{Request, Response};
use hyper::service::Service;
use hyper_session::revocation::Position;
use hyper_session::testing::{Cookies, FakeClock};
use hyper_session::{AppKey, CookieStore, Error, Refusal, Revocations, Session, SessionHandle, session_fn};

use crate::requests::{START, Site};
use crate::shared_log::SharedLog;
use crate::support::{UNHURRIED, block_on};

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
        let is_empty = || site.store.revocations().is_some_and(Revocations::is_empty);
        assert!(is_empty());
        site.logout(&mut browser).await;
        assert_eq!(site.revoked(), 1);
        assert!(!is_empty());
    });
}

// A log must be read in time, so a short time is refused for it. In memory, there is nothing to wait for.
#[test]
fn in_memory_no_revocation_may_be_late() {
    block_on(async {
        let site = Site::with(Revocations::in_memory().max_staleness(Duration::ZERO));
        let mut browser = site.logged_in("ada").await;
        let copy = browser.clone();
        assert!(site.accepts(&copy).await);
        site.logout(&mut browser).await;
        assert!(!site.accepts(&copy).await);
    });
}

#[test]
fn a_log_that_is_followed_may_be_late_by_a_few_reads() {
    block_on(async {
        for (millis, is_accepted) in [(299, false), (300, true)] {
            let revocations = Revocations::open(SharedLog::default()).await.unwrap();
            let revocations = revocations.max_staleness(Duration::from_millis(millis));
            let key = AppKey::danger_from_any_bytes(b"a key for tests").unwrap();
            let built = CookieStore::builder(key).revocations(revocations).build();
            assert_eq!(
                built.map_err(|error| error.is_config()).map(drop),
                if is_accepted { Ok(()) } else { Err(true) }
            );
        }
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

/// A clock that is ahead for a moment, in memory: the next logout forgets what has expired by it.
#[test]
fn what_a_clock_forgot_too_early_is_refused() {
    const DAY: u64 = 86_400;
    block_on(async {
        let site = Site::in_memory();
        let mut ada = site.logged_in("ada").await;
        let copy = ada.clone();
        site.logout(&mut ada).await;
        let alive = site.logged_in("bob").await;
        site.clock.set(START + 8 * DAY);
        site.logout(&mut site.logged_in("bob").await).await;
        assert_eq!(site.revoked(), 1, "that of ada is forgotten");
        site.clock.set(START + 60);
        assert_eq!(site.refusal(&copy).await, Some(Refusal::Revoked));
        // The forgotten revocations did not end a session that began behind them.
        assert!(site.accepts(&alive).await);
        let late = site.logged_in("bob").await;
        assert!(site.accepts(&late).await);
    });
}

/// A process without revocations cannot record the position of a login: any revocation may have been one of that session.
#[test]
fn a_session_without_a_position_is_refused_until_the_clock_shows_again_what_it_showed() {
    const FORGOT: u64 = START + 8 * 86_400;
    block_on(async {
        let site = Site::in_memory();
        site.logout(&mut site.logged_in("ada").await).await;
        site.clock.set(FORGOT);
        site.logout(&mut site.logged_in("ada").await).await;
        assert_eq!(site.revoked(), 1, "the first one is forgotten");
        let without = Site::built(site.clock.clone(), |builder| builder);
        for (now, is_accepted) in [(START, false), (FORGOT - 7_201, false), (FORGOT - 7_200, true)] {
            site.clock.set(now);
            let unknown = without.logged_in("bob").await;
            assert_eq!(site.accepts(&unknown).await, is_accepted, "at {now}");
        }
    });
}

/// The same with a log, which the task that follows it forgets by.
#[test]
fn what_a_clock_forgot_too_early_of_a_log_is_refused() {
    block_on(async {
        let log = SharedLog::default();
        let host =
            async || Site::with(Revocations::open(log.clone()).await.unwrap().max_staleness(UNHURRIED));
        let (one, two) = (host().await, host().await);
        let mut ada = one.logged_in("ada").await;
        let copy = ada.clone();
        one.logout(&mut ada).await;
        log.settled().await;
        one.clock.advance(Duration::from_secs(8 * 86_400));
        while one.revoked() > 0 {
            log.settled().await;
        }
        one.clock.set(START + 60);
        for site in [&one, &two] {
            assert_eq!(site.refusal(&copy).await, Some(Refusal::Revoked));
            assert!(site.accepts(&site.logged_in("ada").await).await);
        }
    });
}

/// A login begins behind the sessions that it ends, also if its subject may cause no further revocation of a single session: then all
/// its sessions so far end.
#[test]
fn a_login_is_not_ended_by_the_end_of_the_sessions_before_it() {
    block_on(async {
        let site = || Site::with(Revocations::in_memory().max_per_subject(1));
        // A request whose token was superseded moments ago.
        let superseded = site();
        let mut browser = superseded.logged_in("ada").await;
        let mut overtaken = browser.clone();
        superseded.regenerate(&mut browser).await;
        superseded.login(&mut overtaken, "ada").await;
        assert_eq!(superseded.user(&overtaken).await.as_deref(), Some("ada"));
        assert!(!superseded.accepts(&browser).await, "it has ended with the others");

        // A request that brings an older session of the user beside one of another user.
        let several = site();
        several.logout(&mut several.logged_in("bob").await).await;
        let bob = several.logged_in("bob").await;
        several.clock.advance(Duration::from_secs(1));
        let ada = several.logged_in("ada").await;
        let both =
            Request::builder().header(COOKIE, bob.header().unwrap()).header(COOKIE, ada.header().unwrap());
        let service = session_fn(several.store.clone(), |_: Request<()>, handle: SessionHandle| async move {
            handle.load().await?.login("bob")?;
            Ok::<_, Error>(Response::new(()))
        });
        several.clock.advance(Duration::from_secs(1));
        let response = service.call(both.body(()).unwrap()).await.unwrap();
        let mut browser = Cookies::new();
        browser.receive(response.headers());
        assert_eq!(several.user(&browser).await.as_deref(), Some("bob"));
        assert!(!several.accepts(&bob).await);
    });
}

/// Beyond the limit, the session that a login replaces ends with all sessions of its subject, as at a logout. The session of the
/// login begins behind that.
#[test]
fn a_session_that_another_login_replaces_ends_beyond_the_limit_too() {
    type Deed = fn(&Session, Position) -> Result<(), Error>;
    let deeds: [(&str, bool, Deed); 4] = [
        ("bob", true, |session, _| session.login("bob")),
        ("bob", true, |session, position| session.login_at("bob", position)),
        ("ada", true, |session, _| {
            session.destroy()?;
            session.login("ada")
        }),
        // Whatever ends all sessions of ada ends this one, too, which is not behind that.
        ("ada", false, |session, position| {
            session.destroy()?;
            session.login_at("ada", position)
        }),
    ];
    block_on(async {
        for (number, (user, ends, deed)) in deeds.into_iter().enumerate() {
            let site = Site::with(Revocations::in_memory().max_per_subject(1));
            let mut browser = site.logged_in("ada").await;
            site.regenerate(&mut browser).await;
            let copy = browser.clone();
            let position = site.store.revocation_position().await.unwrap();
            let response = site.visit(&mut browser, |session| async move { deed(&session, position) }).await;
            assert_eq!(response.status(), 200);
            assert_eq!(site.user(&browser).await.as_deref(), Some(user), "case {number}");
            assert_eq!(site.accepts(&copy).await, !ends, "case {number}");
            assert!(site.changes().contains(&"subject_limit"));
        }
    });
}
