//! A log that two hosts share, which fails, hangs, forgets its tail and runs ahead on command.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper_session::revocation::{Entry, Page, Revocation, RevocationLog};
use hyper_session::{Error, Timestamp};
use tokio::sync::Notify;

use crate::START;

#[derive(Clone, Default)]
pub(crate) struct SharedLog(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    entries: Vec<Entry>,
    top: u64,
    /// How many servers there were before this one.
    history: u64,
    fault: Fault,
    reads: u64,
    /// How many of the next appends are refused.
    refused_appends: u32,
    /// The calls that wait for the test before they return.
    held: Option<Call>,
    /// How many calls have waited so far.
    holds: u64,
    /// How many reads there were while the last of them waited.
    reads_while_held: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Append,
    Read,
    Trim,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fault {
    #[default]
    None,
    /// Every call is refused.
    Refuses,
    /// No call is answered.
    Hangs,
    /// Reads go on, writes are refused.
    Full,
    /// Writes go on, reads are refused.
    Unreadable,
    /// Reads panic.
    Panics,
}

/// A call that waits, until it is dropped.
struct Waiting<'a> {
    log: &'a SharedLog,
    reads: u64,
}

impl<'a> Waiting<'a> {
    fn new(log: &'a SharedLog) -> Self {
        let reads = log.with(|state| {
            state.holds += 1;
            state.reads
        });
        Self { log, reads }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.log.with(|state| state.reads_while_held = state.reads - self.reads);
    }
}

impl SharedLog {
    fn with<T>(&self, step: impl FnOnce(&mut State) -> T) -> T {
        step(&mut self.0.state.lock().unwrap())
    }

    pub(crate) fn set(&self, fault: Fault) {
        self.with(|state| state.fault = fault);
        self.0.changed.notify_waiters();
    }

    /// Another server takes over, which has what was there at `position` and goes on from there.
    pub(crate) fn fail_over(&self, position: u64) {
        self.with(|state| {
            state.entries.retain(|entry| entry.position <= position);
            state.top = position;
            state.history += 1;
            state.fault = Fault::None;
        });
    }

    /// Forgets what is behind `position`, and does not say so by its history.
    pub(crate) fn roll_back(&self, position: u64) {
        self.with(|state| {
            state.entries.retain(|entry| entry.position <= position);
            state.top = position;
        });
    }

    pub(crate) fn refuse_appends(&self, count: u32) {
        self.with(|state| state.refused_appends = count);
    }

    /// From now on, calls of this kind do what they do, and wait for `release` before they return.
    pub(crate) fn hold(&self, call: Call) {
        self.with(|state| (state.held, state.holds) = (Some(call), 0));
    }

    pub(crate) fn release(&self) {
        self.with(|state| state.held = None);
        self.0.changed.notify_waiters();
    }

    /// Waits until so many calls wait.
    pub(crate) async fn is_holding(&self, calls: u64) {
        while self.with(|state| state.holds) < calls {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub(crate) fn reads_while_held(&self) -> u64 {
        self.with(|state| state.reads_while_held)
    }

    async fn pass(&self, call: Call) {
        let mut waiting = None;
        loop {
            let changed = self.0.changed.notified();
            if self.with(|state| state.held) != Some(call) {
                return;
            }
            waiting.get_or_insert_with(|| Waiting::new(self));
            changed.await;
        }
    }

    pub(crate) fn reads(&self) -> u64 {
        self.with(|state| state.reads)
    }

    pub(crate) fn top_now(&self) -> u64 {
        self.with(|state| state.top)
    }

    /// Waits until every follower has read the log again.
    pub(crate) async fn settled(&self) {
        let reads = self.with(|state| state.reads);
        let begun = std::time::Instant::now();
        while self.with(|state| state.reads) < reads + 6 {
            assert!(begun.elapsed() < Duration::from_secs(120), "the log is not read");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn admitted(&self, writes: bool) -> Result<(), Error> {
        match self.with(|state| state.fault) {
            Fault::None => Ok(()),
            Fault::Full if !writes => Ok(()),
            Fault::Unreadable | Fault::Panics if writes => Ok(()),
            Fault::Panics => panic!("the test says so"),
            Fault::Hangs => std::future::pending().await,
            Fault::Full | Fault::Unreadable | Fault::Refuses => Err(Error::unavailable("the test says so")),
        }
    }

    pub(crate) fn page(&self, after: u64) -> Page {
        self.with(|state| {
            state.reads += 1;
            let mut behind = state.entries.iter().filter(|entry| entry.position > after).copied();
            // Small pages, so that there are several.
            let entries: Vec<Entry> = behind.by_ref().take(100).collect();
            Page { entries, top: state.top, more: behind.next().is_some(), history: state.history }
        })
    }
}

impl RevocationLog for SharedLog {
    fn incarnation(&self) -> u64 {
        1
    }

    async fn append(&self, revocations: Vec<Revocation>, above: u64) -> Result<u64, Error> {
        self.admitted(true).await?;
        let refused = self.with(|state| {
            let left = state.refused_appends.checked_sub(1);
            state.refused_appends = left.unwrap_or(0);
            left.is_some()
        });
        if refused {
            return Err(Error::unavailable("the test says so"));
        }
        let last = self.with(|state| {
            state.top = state.top.max(above);
            for revocation in revocations {
                state.top += 1;
                let written = Timestamp::from_unix(START);
                state.entries.push(Entry { position: state.top, written, revocation });
            }
            state.top
        });
        self.0.changed.notify_waiters();
        self.pass(Call::Append).await;
        Ok(last)
    }

    async fn top(&self, at_least: u64) -> Result<u64, Error> {
        self.admitted(at_least > self.top_now()).await?;
        Ok(self.with(|state| {
            state.top = state.top.max(at_least);
            state.top
        }))
    }

    async fn read(&self, after: u64, wait: Duration) -> Result<Page, Error> {
        self.admitted(false).await?;
        let changed = self.0.changed.notified();
        let mut page = self.page(after);
        if page.entries.is_empty() && tokio::time::timeout(wait, changed).await.is_ok() {
            page = self.page(after);
        }
        self.admitted(false).await?;
        self.pass(Call::Read).await;
        Ok(page)
    }

    async fn trim(&self, age: Duration) -> Result<(), Error> {
        if age.is_zero() {
            self.with(|state| state.entries.clear());
        }
        self.pass(Call::Trim).await;
        Ok(())
    }
}
