//! Revocations in a place of your own: a log that processes append to and follow.
//!
//! ```text
//! cargo run --features testing --example custom_revocation_log
//! ```
//!
//! This one lives in one process, for two stores that stand for two hosts. A real one is durable.
#![allow(clippy::print_stdout)] // it is a program

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_session::revocation::{Entry, Page, Revocation, RevocationLog};
use hyper_session::testing::check_revocation_log;
use hyper_session::{AppKey, Clock, CookieStore, Error, Revocations, SystemClock};
use tokio::sync::Notify;

/// Entries in the order of their positions.
#[derive(Default)]
struct Log {
    state: Mutex<State>,
    appended: Notify,
}

#[derive(Default)]
struct State {
    entries: Vec<Entry>,
    top: u64,
}

impl Log {
    fn with<T>(&self, step: impl FnOnce(&mut State) -> T) -> T {
        step(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn page(&self, after: u64) -> Page {
        self.with(|state| Page {
            entries: state.entries.iter().filter(|entry| entry.position > after).copied().collect(),
            top: state.top,
            more: false,
            history: 0, // it never loses entries
        })
    }
}

impl RevocationLog for Log {
    fn incarnation(&self) -> u64 {
        1 // a place that can be emptied draws a random number when it is
    }

    async fn append(&self, revocations: Vec<Revocation>, above: u64) -> Result<u64, Error> {
        let written = SystemClock.now();
        let last = self.with(|state| {
            state.top = state.top.max(above);
            for revocation in revocations {
                state.top += 1;
                state.entries.push(Entry { position: state.top, written, revocation });
            }
            state.top
        });
        self.appended.notify_waiters();
        Ok(last)
    }

    async fn top(&self, at_least: u64) -> Result<u64, Error> {
        Ok(self.with(|state| {
            state.top = state.top.max(at_least);
            state.top
        }))
    }

    async fn read(&self, after: u64, wait: Duration) -> Result<Page, Error> {
        let appended = self.appended.notified();
        let page = self.page(after);
        if page.entries.is_empty() && tokio::time::timeout(wait, appended).await.is_ok() {
            return Ok(self.page(after));
        }
        Ok(page)
    }

    async fn trim(&self, age: Duration) -> Result<(), Error> {
        let now = SystemClock.now();
        self.with(|state| state.entries.retain(|entry| now.saturating_since(entry.written) <= age));
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let log = Arc::new(Log::default());
    check_revocation_log(&log, &log.clone()).await;

    let key = AppKey::generate()?.to_text();
    let here = CookieStore::builder(key.parse::<AppKey>()?)
        .revocations(Revocations::open(log.clone()).await?)
        .build()?;
    let there =
        CookieStore::builder(key.parse::<AppKey>()?).revocations(Revocations::open(log).await?).build()?;
    here.end_sessions_of("user-42").await?;
    println!("both hosts have {:?} from {:?}", here.revocations(), there.revocation_position().await?);
    Ok(())
}
