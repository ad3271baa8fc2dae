//! When an expired entry may be deleted, and the deletion in small steps.

use std::time::{Duration, Instant};

use rusqlite::{Connection, Statement};

use crate::clock::Timestamp;

// An entry is deleted when two clocks agree. By the clock of the store's callers it has expired. By the machine's clock
// its whole lifetime has passed since it was written. The second protects entries of a process that runs on another
// clock (a test's, say), which look as if they had expired in 1970. `sweep` holds a moment of the machine's clock,
// counted in periods. Periods are coarse for two reasons: the index changes only when the period does, and a clock that
// was set back by some minutes deletes nothing.

/// The length of a period in seconds.
const PERIOD: u64 = 1_024;

/// How many entries a step looks at.
const STEP: i64 = 256;

/// Returns the period in which an entry may be deleted that was written at `machine`, the machine's time, and lives for
/// `lifetime`.
pub(super) fn period_after(machine: Timestamp, lifetime: Duration) -> i64 {
    // Two more: this one has begun already, and a whole one is the margin.
    let period = machine.saturating_add(lifetime).as_unix() / PERIOD + 2;
    i64::try_from(period).unwrap_or(i64::MAX)
}

/// An entry that has expired only by the machine's clock is checked again after this long at the latest.
const LATER: Duration = Duration::from_secs(86_400);

/// The statements of a step.
pub(super) struct Sweep<'c> {
    due: Statement<'c>,
    delete: Statement<'c>,
    postpone: Statement<'c>,
}

/// The result of a step.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Swept {
    pub(super) deleted: u64,
    /// True if there may be more to do.
    pub(super) more: bool,
}

impl<'c> Sweep<'c> {
    pub(super) fn prepare(connection: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            due: connection
                .prepare("SELECT id, expires FROM entries WHERE sweep <= ?1 ORDER BY sweep LIMIT ?2")?,
            delete: connection.prepare("DELETE FROM entries WHERE id = ?1")?,
            postpone: connection.prepare("UPDATE entries SET sweep = ?2 WHERE id = ?1")?,
        })
    }

    /// Deletes expired entries, within the transaction of the caller. `callers` is the earliest time that a recent
    /// caller had, `machine` the machine's time.
    pub(super) fn step(&mut self, callers: Timestamp, machine: Timestamp) -> rusqlite::Result<Swept> {
        let period = i64::try_from(machine.as_unix() / PERIOD).unwrap_or(i64::MAX);
        let due = self.due.query_map((period, STEP), |row| {
            Ok((row.get::<_, Vec<u8>>(0)?, super::schema::timestamp(row.get(1)?)))
        })?;
        let due = due.collect::<rusqlite::Result<Vec<_>>>()?;
        let more = i64::try_from(due.len()).is_ok_and(|found| found == STEP);
        let mut deleted = 0;
        for (id, expires) in due {
            if expires <= callers {
                self.delete.execute([&id])?;
                deleted += 1;
            } else {
                // The callers' clock is behind the machine's, or the entry belongs to another clock: it is checked
                // again.
                let period = period_after(machine, expires.saturating_since(callers).min(LATER));
                self.postpone.execute((&id, period))?;
            }
        }
        Ok(Swept { deleted, more })
    }
}

/// Decides when the next step is due. Writes drive it: without writes, no new entry needs their space.
pub(super) struct Schedule {
    interval: Duration,
    next: Option<Instant>,
    /// The earliest time of a caller since the last step.
    callers: Option<Timestamp>,
}

impl Schedule {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, next: Instant::now().checked_add(interval), callers: None }
    }

    /// Notes the time of a caller.
    pub(super) fn saw(&mut self, now: Timestamp) {
        self.callers = Some(self.callers.map_or(now, |earliest| earliest.min(now)));
    }

    /// Returns the callers' time for a step, if one is due.
    pub(super) fn due(&self) -> Option<Timestamp> {
        self.next.is_some_and(|next| next <= Instant::now()).then_some(self.callers).flatten()
    }

    pub(super) fn done(&mut self, more: bool) {
        if !more {
            self.next = Instant::now().checked_add(self.interval);
            self.callers = None;
        }
    }
}

#[cfg(test)]
#[path = "sweep_tests.rs"]
mod tests;
