//! Follows a log, so that what any process revokes is known in this one, and gives back what the log has lost.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::log::{AnyLog, Page};
use super::register::Register;
use super::revocation::{Key, Mark, Revocation};
use crate::error::Error;
use crate::event::RevocationChange;

/// How long a read waits for something new. What is known is at most so old, while all is well.
pub(super) const WAIT: Duration = Duration::from_millis(100);
/// A read that takes longer than it was told to wait, by this much, has failed.
const GRACE: Duration = Duration::from_millis(400);
/// Reading everything, as at the start, and connecting again may take longer.
const FIRST_GRACE: Duration = Duration::from_secs(10);
/// Between two attempts while the log cannot be read.
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

/// Runs for as long as somebody holds the register.
pub(super) async fn follow(log: Arc<dyn AnyLog>, register: Weak<Register>, mut after: u64) {
    let mut swept = Instant::now();
    loop {
        // Not held while the log is waited for: the last one who lets go of the register ends this task.
        let Some((seen, failing)) =
            register.upgrade().map(|register| (register.highest(), register.is_failing()))
        else {
            return;
        };
        let began = Instant::now();
        // A new connection takes longer than an answer.
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
                // If it fails, there is another time.
                let _ = timeout(FIRST_GRACE, log.trim(horizon)).await;
            }
        }
    }
}

/// After the log was away, or came back shorter than it was: reads again what it has, and writes what it lacks.
///
/// A server that took over may lack what the one before it had acknowledged. Revocations only add up, so they can be
/// written again, by every process that knows them, at the positions that they had.
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
    // Also where nothing was lost: what is written next must come behind all positions that sessions have.
    timeout(FIRST_GRACE, log.top(highest)).await.map_err(Error::unavailable)??;
    // What was appended before is there or was written again.
    register.has_lost_entries(highest);
    register.confirmed(top, began);
    // Not from `highest` on: others may have written below it before the log was raised.
    Ok(after.max(top))
}

async fn read(log: &dyn AnyLog, after: u64, wait: Duration, grace: Duration) -> Result<Page, Error> {
    timeout(wait + grace, log.read(after, wait)).await.map_err(Error::unavailable)?
}
