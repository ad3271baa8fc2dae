//! The writing thread: commits waiting changes in one transaction, and then answers them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, Statement};

use super::fault::Failure;
use super::process_lock::ProcessLock;
use super::queue::{Taken, Worker};
use super::schema::{seconds, timestamp};
use super::stats::Counters;
use super::sweep::{Schedule, Sweep, Swept, period_after};
use crate::clock::{Clock, Timestamp};
use crate::file_identity::FileIdentity;
use crate::store::{Replaced, Stored};

/// How many changes one transaction takes. More would keep other processes waiting, and save little.
const MAX_GROUP: usize = 1_024;

/// After how many changes the log is copied into the database. A change is about two pages of it.
const CHECKPOINT_AFTER: u64 = 1_000;

/// How long the thread waits between two steps of a long sweep, while there is nothing else to do.
const SWEEP_PAUSE: Duration = Duration::from_millis(10);

/// A call of one of the four primitives that write.
pub(super) struct Write {
    pub(super) id: [u8; 16],
    pub(super) step: Step,
}

pub(super) enum Step {
    Create {
        entry: Stored,
        now: Timestamp,
    },
    Replace {
        expected: Bytes,
        entry: Stored,
        now: Timestamp,
    },
    Touch {
        expires: Timestamp,
        now: Timestamp,
    },
    /// `replace` without a new entry.
    DeleteIf {
        expected: Bytes,
        now: Timestamp,
    },
    Delete,
}

/// The answer to a [`Write`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The reply to `create`, `touch` and `delete`, whose result is true.
    Done(bool),
    /// The reply to `replace`.
    Replaced(Replaced),
}

impl Write {
    /// Returns the number of bytes it holds.
    pub(super) fn size(&self) -> usize {
        let entry = |entry: &Stored| entry.value.len();
        64 + match &self.step {
            Step::Create { entry: created, .. } => entry(created),
            Step::Replace { expected, entry: new, .. } => expected.len() + entry(new),
            Step::DeleteIf { expected, .. } => expected.len(),
            Step::Touch { .. } | Step::Delete => 0,
        }
    }

    /// Returns the time of the caller, from which the deadline of an entry counts. `None` if the call sets no deadline: the time
    /// of a deletion may be earlier than its caller's, because a session is also ended if it has expired.
    pub(super) fn callers_time(&self) -> Option<Timestamp> {
        match self.step {
            Step::Create { now, .. } | Step::Replace { now, .. } | Step::Touch { now, .. } => Some(now),
            Step::DeleteIf { .. } | Step::Delete => None,
        }
    }
}

/// The writing thread.
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) file: FileIdentity,
    pub(super) lock: ProcessLock,
    pub(super) machine: Arc<dyn Clock>,
    pub(super) sweep_interval: Duration,
    pub(super) counters: Arc<Counters>,
}

impl Writer {
    /// Prepares every statement. It fails if a table or a column is missing.
    pub(super) fn check(connection: &Connection) -> rusqlite::Result<()> {
        Statements::prepare(connection).map(drop)
    }

    /// Runs the thread.
    pub(super) fn serve(&self, worker: &Worker<Write, Answer>) {
        let Ok(mut statements) = Statements::prepare(&self.connection) else { return };
        let mut schedule = Schedule::new(self.sweep_interval);
        let mut since_checkpoint = 0;
        let mut pause = None;
        loop {
            match worker.queue().take(MAX_GROUP, pause) {
                Taken::Jobs(group) => {
                    group
                        .iter()
                        .filter_map(|(_, write)| write.callers_time())
                        .for_each(|now| schedule.saw(now));
                    worker.queue().answer(self.commit(&mut statements, &group));
                    since_checkpoint += group.len() as u64;
                }
                Taken::Idle => {}
                Taken::Closed => return,
            }
            // After the answers: no caller waits for these.
            if since_checkpoint >= CHECKPOINT_AFTER {
                since_checkpoint = 0;
                // Where it fails, the log grows until it succeeds.
                let _ = self.connection.execute_batch("PRAGMA wal_checkpoint(PASSIVE)");
            }
            pause = None;
            if let Some(callers) = schedule.due() {
                // A step that fails is tried again after the interval.
                let swept = self.sweep(&mut statements, callers).unwrap_or(Swept { deleted: 0, more: false });
                Counters::add(&self.counters.swept, swept.deleted);
                since_checkpoint += swept.deleted;
                schedule.done(swept.more);
                pause = swept.more.then_some(SWEEP_PAUSE);
            }
        }
    }

    /// Commits the changes of a group, and returns the answers to its calls.
    fn commit(
        &self,
        statements: &mut Statements<'_>,
        group: &[(u64, Write)],
    ) -> Vec<(u64, Result<Answer, Failure>)> {
        let answers = match self.lock.acquire() {
            Err(error) => group.iter().map(|_| Err(Failure::ProcessLock(error.kind()))).collect(),
            Ok(_) if !self.file.is_in_place() => group.iter().map(|_| Err(Failure::Moved)).collect(),
            Ok(_held) => self.commit_or_part(statements, group),
        };
        let failures = answers.iter().filter(|answer| answer.is_err()).count() as u64;
        Counters::add(&self.counters.failures, failures);
        Counters::add(&self.counters.changes, group.len() as u64 - failures);
        group.iter().map(|(number, _)| *number).zip(answers).collect()
    }

    fn commit_or_part(
        &self,
        statements: &mut Statements<'_>,
        group: &[(u64, Write)],
    ) -> Vec<Result<Answer, Failure>> {
        match self.transaction(statements, |statements| self.apply_all(statements, group)) {
            Ok(answers) => {
                Counters::add(&self.counters.commits, 1);
                answers
            }
            // A large change must not fail the small ones in its group, or the deletions. Nothing of the group was
            // written.
            Err(Failure::Full) if group.len() > 1 => {
                group.chunks(1).flat_map(|one| self.commit_or_part(statements, one)).collect()
            }
            Err(failure) => group.iter().map(|_| Err(failure.clone())).collect(),
        }
    }

    /// Runs `body` in a transaction, which is rolled back if it fails.
    fn transaction<T>(
        &self,
        statements: &mut Statements<'_>,
        body: impl FnOnce(&mut Statements<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        statements.begin.execute([])?;
        let done = body(statements).and_then(|result| {
            statements.commit.execute([])?;
            Ok(result)
        });
        // After some errors SQLite has rolled back automatically.
        if done.is_err() && !self.connection.is_autocommit() {
            let _ = statements.rollback.execute([]);
        }
        done
    }

    fn apply_all(
        &self,
        statements: &mut Statements<'_>,
        group: &[(u64, Write)],
    ) -> Result<Vec<Result<Answer, Failure>>, Failure> {
        let machine = self.machine.now();
        let mut answers = Vec::with_capacity(group.len());
        for (_, write) in group {
            // Each change has one statement that writes. SQLite undoes a statement that fails.
            let answer = statements.apply(write, machine).map_err(|error| Failure::of(&error));
            match answer {
                Err(failure) if self.connection.is_autocommit() => return Err(failure),
                answer => answers.push(answer),
            }
        }
        Ok(answers)
    }

    fn sweep(&self, statements: &mut Statements<'_>, callers: Timestamp) -> Result<Swept, Failure> {
        let _held = self.lock.acquire().map_err(|error| Failure::ProcessLock(error.kind()))?;
        let machine = self.machine.now();
        self.transaction(statements, |statements| Ok(statements.sweep.step(callers, machine)?))
    }
}

/// The statements of the primitives, parsed once.
struct Statements<'c> {
    begin: Statement<'c>,
    commit: Statement<'c>,
    rollback: Statement<'c>,
    find: Statement<'c>,
    find_deadline: Statement<'c>,
    put: Statement<'c>,
    change: Statement<'c>,
    change_period: Statement<'c>,
    touch: Statement<'c>,
    touch_period: Statement<'c>,
    delete: Statement<'c>,
    sweep: Sweep<'c>,
}

impl<'c> Statements<'c> {
    fn prepare(connection: &'c Connection) -> rusqlite::Result<Self> {
        let prepare = |sql| connection.prepare(sql);
        Ok(Self {
            // Immediate: a transaction that reads before it writes would fail if another process wrote in between.
            begin: prepare("BEGIN IMMEDIATE")?,
            commit: prepare("COMMIT")?,
            rollback: prepare("ROLLBACK")?,
            find: prepare("SELECT expires, sweep, value FROM entries WHERE id = ?1")?,
            find_deadline: prepare("SELECT expires, sweep FROM entries WHERE id = ?1")?,
            put: prepare(
                "INSERT OR REPLACE INTO entries (id, expires, sweep, value) VALUES (?1, ?2, ?3, ?4)",
            )?,
            // Without `sweep` where it stays as it is: the index is then not written.
            change: prepare("UPDATE entries SET expires = ?2, value = ?3 WHERE id = ?1")?,
            change_period: prepare("UPDATE entries SET expires = ?2, value = ?3, sweep = ?4 WHERE id = ?1")?,
            touch: prepare("UPDATE entries SET expires = ?2 WHERE id = ?1")?,
            touch_period: prepare("UPDATE entries SET expires = ?2, sweep = ?3 WHERE id = ?1")?,
            delete: prepare("DELETE FROM entries WHERE id = ?1")?,
            sweep: Sweep::prepare(connection)?,
        })
    }

    fn apply(&mut self, write: &Write, machine: Timestamp) -> rusqlite::Result<Answer> {
        let id = &write.id[..];
        match &write.step {
            Step::Create { entry, now } => self.create(id, entry, *now, machine).map(Answer::Done),
            Step::Replace { expected, entry, now } => {
                self.replace(id, expected, Some(entry), *now, machine).map(Answer::Replaced)
            }
            Step::DeleteIf { expected, now } => {
                self.replace(id, expected, None, *now, machine).map(Answer::Replaced)
            }
            Step::Touch { expires, now } => self.touch(id, *expires, *now, machine).map(Answer::Done),
            Step::Delete => self.delete.execute([id]).map(|_| Answer::Done(true)),
        }
    }

    fn create(
        &mut self,
        id: &[u8],
        entry: &Stored,
        now: Timestamp,
        machine: Timestamp,
    ) -> rusqlite::Result<bool> {
        let mut rows = self.find.query([id])?;
        if let Some((_, value, _)) = live(rows.next()?, now)? {
            return Ok(value == entry.value);
        }
        drop(rows);
        let sweep = period_after(machine, entry.expires.saturating_since(now));
        self.put.execute((id, seconds(entry.expires), sweep, &entry.value[..]))?;
        Ok(true)
    }

    fn replace(
        &mut self,
        id: &[u8],
        expected: &[u8],
        entry: Option<&Stored>,
        now: Timestamp,
        machine: Timestamp,
    ) -> rusqlite::Result<Replaced> {
        let mut rows = self.find.query([id])?;
        let Some((expires, value, present)) = live(rows.next()?, now)? else { return Ok(Replaced::Missing) };
        if value != expected && entry.is_none_or(|entry| entry.value != value) {
            return Ok(Replaced::Conflict(Stored { value: Bytes::copy_from_slice(value), expires }));
        }
        drop(rows);
        match entry {
            None => self.delete.execute([id])?,
            Some(entry) => {
                let (expires, value) = (seconds(entry.expires), &entry.value[..]);
                match period_after(machine, entry.expires.saturating_since(now)) {
                    sweep if sweep == present => self.change.execute((id, expires, value))?,
                    sweep => self.change_period.execute((id, expires, value, sweep))?,
                }
            }
        };
        Ok(Replaced::Done)
    }

    fn touch(
        &mut self,
        id: &[u8],
        expires: Timestamp,
        now: Timestamp,
        machine: Timestamp,
    ) -> rusqlite::Result<bool> {
        let mut rows = self.find_deadline.query([id])?;
        let Some(row) = rows.next()? else { return Ok(false) };
        let (present_expires, present) = (timestamp(row.get(0)?), row.get::<_, i64>(1)?);
        if present_expires <= now {
            return Ok(false);
        }
        drop(rows);
        match period_after(machine, expires.saturating_since(now)) {
            sweep if sweep == present => self.touch.execute((id, seconds(expires)))?,
            sweep => self.touch_period.execute((id, seconds(expires), sweep))?,
        };
        Ok(true)
    }
}

/// Returns deadline, value and period of the entry in a row of `find`, unless it has expired.
fn live<'r>(
    row: Option<&'r Row<'_>>,
    now: Timestamp,
) -> rusqlite::Result<Option<(Timestamp, &'r [u8], i64)>> {
    let Some(row) = row else { return Ok(None) };
    let expires = timestamp(row.get(0)?);
    if expires <= now {
        return Ok(None);
    }
    match row.get_ref(2)? {
        ValueRef::Blob(value) => Ok(Some((expires, value, row.get(1)?))),
        other => Err(rusqlite::Error::InvalidColumnType(2, "value".to_owned(), other.data_type())),
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
