//! Logs of an application that keep parts of the contract: what the suite says of them, and what they cost the process.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use hyper_session::revocation::{Page, Revocation, RevocationLog};
use hyper_session::testing::check_revocation_log;
use hyper_session::{Error, Revocations};

use crate::requests::Site;
use crate::shared_log::SharedLog;
use crate::support::{UNHURRIED, block_on};

#[derive(Clone, Copy)]
enum Carelessness {
    /// A read never waits.
    ReturnsAtOnce,
    /// A read works for as long as the follower pauses, and never waits.
    Works,
    /// A read waits for longer than it was told.
    IsLate,
    /// Its top is that of the entries that are there.
    ForgetsItsTop,
}

#[derive(Clone)]
struct Careless {
    log: SharedLog,
    carelessness: Carelessness,
}

impl Careless {
    fn new(carelessness: Carelessness) -> Self {
        Self { log: SharedLog::default(), carelessness }
    }

    async fn forgetful_top(&self) -> Result<u64, Error> {
        let page = self.log.read(0, Duration::ZERO).await?;
        Ok(if page.entries.is_empty() { 0 } else { page.top })
    }
}

impl RevocationLog for Careless {
    fn incarnation(&self) -> u64 {
        1
    }

    async fn append(&self, revocations: Vec<Revocation>, above: u64) -> Result<u64, Error> {
        self.log.append(revocations, above).await
    }

    async fn top(&self, at_least: u64) -> Result<u64, Error> {
        let top = self.log.top(at_least).await?;
        match self.carelessness {
            Carelessness::ForgetsItsTop => Ok(self.forgetful_top().await?.max(at_least)),
            _ => Ok(top),
        }
    }

    async fn read(&self, after: u64, wait: Duration) -> Result<Page, Error> {
        let more = Duration::from_millis(450);
        match self.carelessness {
            Carelessness::ReturnsAtOnce => Ok(self.log.page(after)),
            Carelessness::Works => {
                let begun = Instant::now();
                while begun.elapsed() < Duration::from_millis(10) {
                    std::hint::spin_loop();
                }
                Ok(self.log.page(after))
            }
            Carelessness::IsLate if wait.is_zero() => self.log.read(after, wait).await,
            Carelessness::IsLate => self.log.read(after, wait + more).await,
            Carelessness::ForgetsItsTop => {
                let page = self.log.read(after, wait).await?;
                Ok(Page { top: self.forgetful_top().await?.max(after), ..page })
            }
        }
    }

    async fn trim(&self, age: Duration) -> Result<(), Error> {
        self.log.trim(age).await
    }
}

fn check(carelessness: Carelessness) {
    let log = Careless::new(carelessness);
    block_on(check_revocation_log(&log, &log.clone()));
}

#[test]
#[should_panic(expected = "a read must wait for entries")]
fn a_log_whose_read_returns_at_once_is_refused() {
    check(Carelessness::ReturnsAtOnce);
}

#[test]
#[should_panic(expected = "longer than `wait`")]
fn a_log_whose_read_waits_for_too_long_is_refused() {
    check(Carelessness::IsLate);
}

#[test]
#[should_panic(expected = "the top must not go back")]
fn a_log_whose_top_goes_back_is_refused() {
    check(Carelessness::ForgetsItsTop);
}

/// Nothing in such a log waits, so the task that follows it must.
#[test]
fn a_log_whose_read_returns_at_once_leaves_the_runtime_to_others() {
    let (done, is_done) = mpsc::channel();
    // In a thread that is left behind if the runtime hangs.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let reads = runtime.block_on(async {
            let log = Careless::new(Carelessness::ReturnsAtOnce);
            let site = Site::with(Revocations::open(log.clone()).await.unwrap().max_staleness(UNHURRIED));
            let (start, before) = (Instant::now(), log.log.reads());
            for _ in 0..20 {
                let mut ada = site.logged_in("ada").await;
                let copy = ada.clone();
                site.logout(&mut ada).await;
                assert!(!site.accepts(&copy).await);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            // Each logout is one read with news, and after any other read there is a pause.
            let pauses = start.elapsed().as_millis() / 10;
            let reads = log.log.reads() - before;
            assert!(u128::from(reads) <= 20 + pauses + 2, "{reads} reads beside {pauses} pauses");
            reads
        });
        done.send(reads).unwrap();
    });
    is_done
        .recv_timeout(Duration::from_secs(120))
        .expect("the runtime goes on, and the thread does not panic");
}

/// No pause is left after the read.
#[test]
fn a_log_whose_read_works_for_long_lets_others_in_after_each_read() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let log = Careless::new(Carelessness::Works);
        let _site = Site::with(Revocations::open(log.clone()).await.unwrap());
        let (begun, first) = (Instant::now(), log.log.reads());
        let mut before = first;
        while before < first + 5 {
            assert!(begun.elapsed() < Duration::from_secs(60));
            tokio::task::yield_now().await;
            let reads = log.log.reads();
            assert!(reads <= before + 1, "{} reads in a row", reads - before);
            before = reads;
        }
    });
}
