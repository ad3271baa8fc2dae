//! Two hosts of a cookie store: a session that one host binds is bound on the other, and its old cookie ends there, too.

use std::time::Duration;

use hyper_session::revocation::{Page, Revocation, RevocationLog};
use hyper_session::testing::FakeClock;
use hyper_session::{Clock, Error, Revocations};

use crate::browser::Browser;
use crate::device::Device;
use crate::shared_log::SharedLog;
use crate::site::{GRACE, LIFETIME, START, Site, block_on};

async fn host(log: &(impl RevocationLog + Clone), clock: &FakeClock) -> Site {
    // Long enough for any follower on a busy machine.
    let revocations = Revocations::open(log.clone()).await.unwrap().max_staleness(Duration::from_secs(20));
    Site::on_cookies_with(clock.clone(), |builder| builder.revocations(revocations))
}

#[test]
fn a_cookie_from_before_the_registration_ends_on_every_host() {
    block_on(async {
        let (log, clock) = (SharedLog::default(), FakeClock::at(START));
        let (one, two) = (host(&log, &clock).await, host(&log, &clock).await);
        let mut victim = Browser::new();
        let offer = victim.log_in(&one).await;
        let mut thief = Browser { device: Device::new(), cookies: victim.cookies.clone(), bound: None };
        victim.bind_by(&one, &offer).await;
        log.settled().await;

        // In the grace the other host reads the old cookie, and gives it neither another id nor a key.
        assert_eq!(thief.read(&two, "/").await, "ada unbound 0");
        let copy = thief.cookies.header();
        thief.visit(&two, "/regenerate").await;
        assert_eq!(thief.register(&two, &offer).await.status(), 401);
        assert_eq!(thief.cookies.header(), copy);
        assert_eq!(victim.read(&two, "/visit").await, "ada bound 1");

        clock.advance(GRACE);
        for site in [&one, &two] {
            assert!(thief.read(site, "/").await.starts_with("stranger"));
            assert_eq!(victim.read(site, "/").await, "ada bound 1");
        }
        clock.advance(LIFETIME);
        assert_eq!(victim.refresh(&two).await, 200);
        assert_eq!(victim.read(&one, "/").await, "ada bound 1");
    });
}

// A logout on another host ends the session under its new id.
#[test]
fn a_logout_of_a_bound_session_is_final_on_every_host() {
    block_on(async {
        let (log, clock) = (SharedLog::default(), FakeClock::at(START));
        let (one, two) = (host(&log, &clock).await, host(&log, &clock).await);
        let mut victim = Browser::new();
        let offer = victim.log_in(&one).await;
        let old = victim.cookies.clone();
        victim.bind_by(&one, &offer).await;
        let copy =
            Browser { device: Device::new(), cookies: victim.cookies.clone(), bound: victim.bound.clone() };
        log.settled().await;
        victim.visit(&two, "/logout").await;
        log.settled().await;
        for site in [&one, &two] {
            for cookies in [&old, &copy.cookies] {
                let mut thief = Browser { device: Device::new(), cookies: cookies.clone(), bound: None };
                assert!(thief.read(site, "/").await.starts_with("stranger"), "within the grace, too");
            }
        }
    });
}

// The log is written by a host whose clock is an hour ahead: its minute does not last for an hour here.
#[test]
fn a_cookie_from_before_the_registration_ends_although_the_clock_of_the_log_is_ahead() {
    block_on(async {
        let (log, clock) = (SharedLog::default(), FakeClock::at(START - 3_600));
        let (one, two) = (host(&log, &clock).await, host(&log, &clock).await);
        let mut victim = Browser::new();
        let offer = victim.log_in(&one).await;
        let mut thief = Browser { device: Device::new(), cookies: victim.cookies.clone(), bound: None };
        victim.bind_by(&one, &offer).await;
        log.settled().await;
        clock.advance(GRACE);
        for site in [&one, &two] {
            assert!(thief.read(site, "/").await.starts_with("stranger"));
            assert_eq!(victim.read(site, "/").await, "ada bound 0");
        }
        // It is known as the cookie of a session that goes on, so its logout ends that session.
        thief.visit(&two, "/logout").await;
        log.settled().await;
        assert!(victim.read(&one, "/").await.starts_with("stranger"));
    });
}

/// A log whose entries are dated ahead, as by Redis for two hours after a failover or its first start. Readers get the present
/// time instead.
#[derive(Clone)]
struct DatedAhead(SharedLog, FakeClock);

impl RevocationLog for DatedAhead {
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
        let mut page = self.0.read(after, wait).await?;
        page.entries.iter_mut().for_each(|entry| entry.written = self.1.now());
        Ok(page)
    }

    async fn trim(&self, age: Duration) -> Result<(), Error> {
        self.0.trim(age).await
    }
}

#[test]
fn a_process_that_begins_later_gives_no_second_grace() {
    block_on(async {
        let clock = FakeClock::at(START);
        let log = DatedAhead(SharedLog::default(), clock.clone());
        let one = host(&log, &clock).await;
        let mut victim = Browser::new();
        let offer = victim.log_in(&one).await;
        let mut thief = Browser { device: Device::new(), cookies: victim.cookies.clone(), bound: None };
        victim.bind_by(&one, &offer).await;
        log.0.settled().await;
        assert_eq!(thief.read(&one, "/").await, "ada unbound 0", "in its grace");
        clock.advance(GRACE);
        let two = host(&log, &clock).await;
        for site in [&one, &two] {
            assert!(thief.read(site, "/").await.starts_with("stranger"));
            assert_eq!(victim.read(site, "/").await, "ada bound 0");
        }
    });
}
