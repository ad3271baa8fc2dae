//! The task that follows a log, so that this process knows the revocations of all processes. It also restores entries
//! that the log lost.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::log::{AnyLog, Page};
use super::register::Register;
use super::revocation::{Key, Mark, Revocation};
use crate::error::Error;
use crate::event::RevocationChange;

/// How long a read waits for new entries. While the log works, what this process knows is at most this old.
pub(super) const WAIT: Duration = Duration::from_millis(100);
/// A read has failed if it takes this much longer than it was told to wait.
const GRACE: Duration = Duration::from_millis(400);
/// Connecting again, or reading the whole log as at the start, may take longer.
const FIRST_GRACE: Duration = Duration::from_secs(10);
/// The pause between two attempts while the log cannot be read.
const PAUSE: Duration = Duration::from_millis(100);
/// How often old entries are forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// How many lost revocations are written at once.
const BATCH: usize = 256;

/// Reads the whole log into `register`, and returns its end.
pub(super) async fn load(log: &dyn AnyLog, register: &Register) -> Result<u64, Error> {
    let mut after = 0;
    loop {
        let began = Instant::now();
        let page = read(log, after, Duration::ZERO, FIRST_GRACE).await?;
        register.take_in(&page.entries);
        after = page.entries.last().map_or(after, |last| last.position);
        if !page.more {
            register.confirmed(page.top, began);
            return Ok(page.top.max(after));
        }
    }
}

/// Runs until the register is dropped.
pub(super) async fn follow(log: Arc<dyn AnyLog>, register: Weak<Register>, mut after: u64) {
    let mut swept = Instant::now();
    loop {
        // The register is not held while the task waits for the log: dropping its last handle ends this task.
        let Some((seen, failing)) =
            register.upgrade().map(|register| (register.highest(), register.is_failing()))
        else {
            return;
        };
        let began = Instant::now();
        // A new connection takes longer than a reply.
        let (wait, grace) = if failing { (Duration::ZERO, FIRST_GRACE) } else { (WAIT, GRACE) };
        let page = read(&*log, after, wait, grace).await;
        let Some(register) = register.upgrade() else { return };
        let caught_up = match page {
            Ok(page) if failing || page.top < seen => heal(&*log, &register, page.top < seen).await,
            Ok(page) => {
                register.take_in(&page.entries);
                let last = page.entries.last().map_or(after, |last| last.position);
                if page.more {
                    Ok(last)
                } else if register.has_lost_entries(page.top) {
                    heal(&*log, &register, false).await
                } else {
                    register.confirmed(page.top, began);
                    Ok(last.max(page.top))
                }
            }
            Err(error) => Err(error),
        };
        let Ok(last) = caught_up else {
            register.failed();
            drop(register);
            sleep(PAUSE).await;
            continue;
        };
        after = last;
        if swept.elapsed() >= SWEEP_EVERY {
            swept = Instant::now();
            register.sweep();
            let horizon = register.horizon();
            drop(register);
            if horizon < Duration::MAX {
                // If it fails, the next sweep tries again.
                let _ = timeout(FIRST_GRACE, log.trim(horizon)).await;
            }
        }
    }
}

/// Reads the log again after it was unavailable or came back shorter, and writes the entries that it lacks.
///
/// A server that took over may lack entries that the one before it acknowledged. Revocations only add up, so every
/// process that knows them can write them again, at their old positions.
async fn heal(log: &dyn AnyLog, register: &Register, shorter: bool) -> Result<u64, Error> {
    let highest = register.highest();
    let (start, ours) = if shorter {
        register.report(RevocationChange::RolledBack);
        (0, register.everything_known())
    } else {
        (register.before_recent(highest), register.recent())
    };
    let mut theirs: HashMap<Key, Mark> = HashMap::new();
    let mut after = start;
    let (top, began) = loop {
        let began = Instant::now();
        let page = read(log, after, Duration::ZERO, FIRST_GRACE).await?;
        for entry in &page.entries {
            let mark = entry.revocation.mark(entry.position);
            theirs.entry(entry.revocation.key()).and_modify(|known| *known = known.and(mark)).or_insert(mark);
        }
        register.take_in(&page.entries);
        after = page.entries.last().map_or(after, |last| last.position);
        if !page.more {
            break (page.top, began);
        }
    };
    let lacks = |(key, mark): &(Key, Mark)| theirs.get(key).is_none_or(|known| known.and(*mark) != *known);
    let lost: Vec<Revocation> =
        ours.into_iter().filter(lacks).map(|(key, mark)| Revocation::again(key, mark)).collect();
    for batch in lost.chunks(BATCH) {
        timeout(FIRST_GRACE, log.append(batch.to_vec(), highest)).await.map_err(Error::unavailable)??;
    }
    // Also if no entry was lost: the next entry must come behind the positions of all sessions.
    timeout(FIRST_GRACE, log.top(highest)).await.map_err(Error::unavailable)??;
    // Every entry that this process appended is in the log, or was written again.
    register.has_lost_entries(highest);
    register.confirmed(top, began);
    // Not from `highest` on: other processes may have written below it before the log was raised.
    Ok(after.max(top))
}

async fn read(log: &dyn AnyLog, after: u64, wait: Duration, grace: Duration) -> Result<Page, Error> {
    timeout(wait + grace, log.read(after, wait)).await.map_err(Error::unavailable)?
}
