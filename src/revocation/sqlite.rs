//! A log of revocations in an SQLite file: durable, for the processes of one machine.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior, params};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Revocations;
use super::log::{Entry, Page, RevocationLog};
use super::revocation::{MAX_POSITION, Revocation};
use crate::clock::{Clock, SystemClock, Timestamp, bounded};
use crate::crypto::{Random, SystemRandom};
use crate::error::Error;
use crate::file_identity::FileIdentity;
use crate::runtime::check_runtime;
use crate::sqlite_file::{create_for_owner, make_careful, make_durable};

/// "hsrv": marks the file as one of this crate.
const APPLICATION_ID: i64 = 0x6873_7276;
const SCHEMA_VERSION: i64 = 1;

const SCHEMA: &str = "
CREATE TABLE revocation (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    written INTEGER NOT NULL,
    value BLOB NOT NULL
) STRICT;
CREATE TABLE incarnation (number INTEGER NOT NULL) STRICT;
";

/// How often the file is checked for commits of other processes, which takes a microsecond.
const POLL_EVERY: Duration = Duration::from_millis(20);

/// How long a write waits for the writes of other processes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a caller waits for a reply.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How many callers share one commit at most.
const GROUP: usize = 1_024;

/// How many entries one read returns at most.
const PAGE: usize = 10_000;

/// How many writes wait at most. More of them would time out anyway.
const MAX_WRITES: usize = 16_384;

/// How many reads wait at most. A log has one follower, whose read may have timed out.
const MAX_READS: usize = 16;

/// How many entries one step of a deletion looks at, between the writes of callers.
const TRIM_STEP: usize = 1_000;

/// How many positions are left out at least each time that the file is opened.
const ROOM: u64 = 1 << 20;

impl Revocations {
    /// Opens revocations in the SQLite file at `path`, for the processes of one machine. No server is needed. A missing
    /// file is created. The file must be on a local disk, and hold nothing else.
    ///
    /// A logout is on the disk before it returns; concurrent logouts share a commit. Another process refuses a session
    /// about 20 ms after it was revoked. A login only reads the file, also while another process writes.
    ///
    /// # Errors
    ///
    /// [`is_config`](Error::is_config) if the file cannot be used: it is not a log of revocations, damaged or read-only, or its folder
    /// is missing; or outside of a tokio runtime. [`is_unavailable`](Error::is_unavailable) if opening may succeed later: the disk is
    /// full, or another program holds a lock. The source gives the reason.
    ///
    /// # Panics
    ///
    /// In a tokio runtime that was built without timers (`enable_time`, or `enable_all`).
    ///
    /// # Limits
    ///
    /// - The file is followed by a task of the present runtime, as [`open`](Self::open) says. A process that is forked has
    ///   neither that task nor the threads that read and write.
    /// - SQLite keeps `-wal` and `-shm` beside the file. While a process uses them, none of the three must be moved, replaced or deleted:
    ///   writes and reads then fail until they are back or the process is restarted.
    ///
    /// # Examples
    ///
    /// ```
    /// use hyper_session::{AppKey, CookieStore, Revocations};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), hyper_session::Error> {
    /// # let folder = std::env::temp_dir().join(format!("hyper-session-doc-{}", std::process::id()));
    /// # std::fs::create_dir_all(&folder).unwrap();
    /// let path = folder.join("revocations.db");
    /// let store = CookieStore::builder(AppKey::generate()?)
    ///     .revocations(Revocations::sqlite(&path).await?)
    ///     .build()?;
    /// store.end_sessions_of("user-42").await?;
    /// # drop(store);
    /// # std::fs::remove_dir_all(&folder).unwrap();
    /// # Ok(())
    /// # }
    /// ```
    pub async fn sqlite(path: impl Into<PathBuf>) -> Result<Self, Error> {
        Self::open(SqliteLog::open(path).await?).await.map_err(lasting)
    }
}

/// An SQLite file as a [`RevocationLog`].
///
/// Two threads have a connection each: one writes, the other reads and waits for new entries.
pub struct SqliteLog {
    path: PathBuf,
    incarnation: u64,
    writes: SyncSender<Write>,
    reads: SyncSender<Read>,
    /// The process that has the threads. A process that forks from it has none.
    process: u32,
}

struct Write {
    deed: Deed,
    answer: oneshot::Sender<Result<u64, Error>>,
}

enum Deed {
    Append {
        revocations: Vec<Revocation>,
        above: u64,
    },
    Top {
        at_least: u64,
    },
    /// Deletes entries that are older than `age`, of a step behind the position `after`. The answer is the `after` of the next
    /// step, or zero if there is none.
    Trim {
        age: Duration,
        after: u64,
    },
}

struct Read {
    after: u64,
    wait: Duration,
    answer: oneshot::Sender<Result<Page, Error>>,
}

impl SqliteLog {
    /// Opens or creates the file.
    ///
    /// # Errors
    ///
    /// The same as for [`Revocations::sqlite`].
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        let (opened, is_open) = oneshot::channel();
        let (writes, writer_queue) = sync_channel(MAX_WRITES);
        let (reads, reader_queue) = sync_channel(MAX_READS);
        let file = path.clone();
        let start = move || {
            let connections = create_patiently(&file).and_then(|(for_writes, incarnation)| {
                // A later change of the working directory must not matter.
                let file = file.canonicalize().map_err(Error::unavailable)?;
                let identity = FileIdentity::of(&file);
                Ok((for_writes, connect(&file)?, incarnation, identity))
            });
            let (for_writes, for_reads, incarnation, identity) = match connections {
                Ok(connections) => connections,
                Err(error) => {
                    let _ = opened.send(Err(error)); // the caller may be gone
                    return;
                }
            };
            let followed =
                std::thread::Builder::new().name("hyper-session-revocations-read".to_owned()).spawn({
                    let identity = identity.clone();
                    move || serve_reads(&for_reads, &reader_queue, &identity)
                });
            if let Err(error) = followed {
                let _ = opened.send(Err(Error::unavailable(error)));
                return;
            }
            let _ = opened.send(Ok(incarnation));
            serve_writes(for_writes, &writer_queue, &identity);
        };
        let thread = std::thread::Builder::new().name("hyper-session-revocations-write".to_owned());
        drop(thread.spawn(start).map_err(Error::unavailable)?);
        let incarnation = is_open.await.map_err(Error::unavailable)??;
        Ok(Self { path, incarnation, writes, reads, process: std::process::id() })
    }

    fn check_process(&self) -> Result<(), Error> {
        if std::process::id() == self.process { Ok(()) } else { Err(stopped()) }
    }

    async fn write(&self, deed: Deed) -> Result<u64, Error> {
        check_runtime()?;
        self.check_process()?;
        let (answer, answered) = oneshot::channel();
        self.writes.try_send(Write { deed, answer }).map_err(|error| not_sent(&error))?;
        timeout(ANSWER_TIMEOUT, answered).await.map_err(Error::unavailable)?.map_err(|_| stopped())?
    }
}

impl RevocationLog for SqliteLog {
    fn incarnation(&self) -> u64 {
        self.incarnation
    }

    async fn append(&self, revocations: Vec<Revocation>, above: u64) -> Result<u64, Error> {
        self.write(Deed::Append { revocations, above }).await
    }

    async fn top(&self, at_least: u64) -> Result<u64, Error> {
        self.write(Deed::Top { at_least }).await
    }

    async fn read(&self, after: u64, wait: Duration) -> Result<Page, Error> {
        self.check_process()?;
        let (answer, answered) = oneshot::channel();
        self.reads.try_send(Read { after, wait, answer }).map_err(|error| not_sent(&error))?;
        timeout(bounded(wait) + ANSWER_TIMEOUT, answered)
            .await
            .map_err(Error::unavailable)?
            .map_err(|_| stopped())?
    }

    async fn trim(&self, age: Duration) -> Result<(), Error> {
        let mut after = 0;
        loop {
            after = self.write(Deed::Trim { age, after }).await?;
            if after == 0 {
                return Ok(());
            }
        }
    }
}

fn not_sent<T>(error: &TrySendError<T>) -> Error {
    match error {
        TrySendError::Full(_) => Error::unavailable("too many callers wait for the file of revocations"),
        TrySendError::Disconnected(_) => stopped(),
    }
}

fn stopped() -> Error {
    Error::unavailable("the thread that serves the file of revocations has ended")
}

/// Connects to an existing file.
fn connect(path: &Path) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    prepared(Connection::open_with_flags(path, flags))
}

fn prepared(connection: rusqlite::Result<Connection>) -> Result<Connection, Error> {
    let connection = connection.map_err(failed)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    // FULL: a commit is on the disk before it returns.
    make_durable(&connection, "FULL").and_then(|()| make_careful(&connection)).map_err(failed)?;
    Ok(connection)
}

fn failed(error: rusqlite::Error) -> Error {
    unusable(&error).unwrap_or_else(|| Error::unavailable(error))
}

/// Does the same as [`failed`] for an error of the first reading.
fn lasting(error: Error) -> Error {
    let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref());
    source.and_then(unusable).unwrap_or(error)
}

/// Returns the error for a file that cannot be used until an operator mends it.
fn unusable(error: &rusqlite::Error) -> Option<Error> {
    use rusqlite::ErrorCode;

    let mistake = match error.sqlite_error_code()? {
        ErrorCode::NotADatabase => "the file for revocations is not an SQLite database: give another path",
        ErrorCode::DatabaseCorrupt => {
            "the file for revocations is damaged: restore a backup, or move the file away, and rotate the key"
        }
        ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly => {
            "the file for revocations cannot be opened: let this process read and write the file and its folder, which must exist"
        }
        _ => return None,
    };
    Some(Error::config(mistake))
}

/// Does the same as [`create`], and tries again while another process does so, too. SQLite does not wait for the change of a new
/// file to a WAL.
fn create_patiently(path: &Path) -> Result<(Connection, u64), Error> {
    let start = Instant::now();
    loop {
        match create(path) {
            Err(error) if is_busy(&error) && start.elapsed() < BUSY_TIMEOUT => {
                std::thread::sleep(POLL_EVERY);
            }
            created => return created,
        }
    }
}

fn is_busy(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<rusqlite::Error>());
    let code = source.and_then(rusqlite::Error::sqlite_error_code);
    matches!(code, Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked))
}

/// Connects to a file, creates it if it is missing, and returns the incarnation of its positions.
fn create(path: &Path) -> Result<(Connection, u64), Error> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if path != Path::new(":memory:") {
        // If it fails, SQLite says why.
        let _ = create_for_owner(path);
    }
    let mut connection = prepared(Connection::open_with_flags(path, flags))?;
    is_new(&connection)?; // the next step changes the file, which may be that of another program
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0)).map_err(failed)?;
    if mode != "wal" {
        return Err(Error::config(
            "the file for revocations must be on a local disk, where SQLite can use a WAL",
        ));
    }
    let mut fresh = [0; 8];
    SystemRandom.fill(&mut fresh)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    if is_new(&transaction)? {
        transaction.execute_batch(SCHEMA).map_err(failed)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(failed)?;
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(failed)?;
        let number = i64::from_be_bytes(fresh);
        transaction.execute("INSERT INTO incarnation VALUES (?1)", [number]).map_err(failed)?;
    }
    let incarnation: i64 =
        transaction.query_row("SELECT number FROM incarnation", (), |row| row.get(0)).map_err(failed)?;
    let top = top_of(&transaction).map_err(failed)?;
    raise(&transaction, top, first_position(top, SystemTime::now())).map_err(failed)?;
    transaction.commit().map_err(failed)?;
    Ok((connection, u64::from_be_bytes(incarnation.to_be_bytes())))
}

/// Returns true if the file holds nothing yet, and false if it holds revocations. Anything else is an error.
fn is_new(connection: &Connection) -> Result<bool, Error> {
    let pragma = |name: &str| -> Result<i64, Error> {
        connection.pragma_query_value(None, name, |row| row.get(0)).map_err(failed)
    };
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0)).map_err(failed)?;
    match (tables, pragma("application_id")?, pragma("user_version")?) {
        (0, 0, 0) => Ok(true),
        (_, APPLICATION_ID, SCHEMA_VERSION) => Ok(false),
        (_, APPLICATION_ID, _) => Err(Error::config(
            "the file for revocations was written by another release of this crate: give another path",
        )),
        _ => Err(Error::config("the file for revocations holds other data: give another path")),
    }
}

/// Returns the position behind which entries are appended to a file that is opened at `now`, and ends at `top`.
///
/// A restored backup lacks the last entries, whose positions sessions hold already. A later revocation must come behind all of
/// them, however often the lost file was opened. So positions follow the time: they begin at the nanoseconds since 1970, and
/// no file gets a billion entries a second. If the clock was set back, the room behind `top` is all that there is.
fn first_position(top: u64, now: SystemTime) -> u64 {
    let nanos = now.duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_nanos());
    // A clock that shows a year after 2100 is wrong. It must not use up the positions.
    let nanos = u64::try_from(nanos).ok().filter(|nanos| *nanos < MAX_POSITION / 10 * 9);
    top.saturating_add(ROOM).max(nanos.unwrap_or(0))
}

/// Commits the writes that wait, as many as there are in one commit, until the last sender is dropped.
fn serve_writes(mut connection: Connection, queue: &Receiver<Write>, identity: &FileIdentity) {
    while let Ok(first) = queue.recv() {
        let waiting = std::iter::once(first).chain(queue.try_iter().take(GROUP - 1));
        // The others gave up.
        let mut writes: Vec<Write> = waiting.filter(|write| !write.answer.is_closed()).collect();
        let answers = check(identity)
            .and_then(|()| answer_questions(&connection, &mut writes).map_err(Error::unavailable))
            .and_then(|()| commit(&mut connection, &writes).map_err(Error::unavailable));
        match answers {
            Ok(answers) => {
                for (write, answer) in writes.into_iter().zip(answers) {
                    let _ = write.answer.send(Ok(answer)); // the caller may be gone
                }
            }
            Err(error) => {
                // Errors cannot be copied, but their text can.
                let text = std::error::Error::source(&error).map_or_else(String::new, ToString::to_string);
                for write in writes {
                    let _ = write.answer.send(Err(Error::unavailable(text.clone())));
                }
            }
        }
    }
}

/// Answers the questions for the end of the log, and leaves what must be written. A login asks such a question: it waits for no
/// other process that writes, and does not fail because the disk is full.
///
/// The read includes every commit so far. So the end is behind each revocation that was acknowledged before.
fn answer_questions(connection: &Connection, writes: &mut Vec<Write>) -> rusqlite::Result<()> {
    if !writes.iter().any(|write| matches!(write.deed, Deed::Top { .. })) {
        return Ok(());
    }
    let top = top_of(connection)?;
    let is_known = |write: &Write| matches!(write.deed, Deed::Top { at_least } if at_least <= top);
    let (answered, left): (Vec<Write>, Vec<Write>) = writes.drain(..).partition(is_known);
    for write in answered {
        let _ = write.answer.send(Ok(top)); // the caller may be gone
    }
    *writes = left;
    Ok(())
}

/// Commits all writes or none.
fn commit(connection: &mut Connection, writes: &[Write]) -> rusqlite::Result<Vec<u64>> {
    if writes.is_empty() {
        return Ok(Vec::new());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let now = i64::try_from(SystemClock.now().as_unix()).unwrap_or(i64::MAX);
    let answers = writes
        .iter()
        .map(|write| {
            let mut top = top_of(&transaction)?;
            match &write.deed {
                Deed::Append { revocations, above } => {
                    raise(&transaction, top, *above)?;
                    let mut insert = transaction
                        .prepare_cached("INSERT INTO revocation (written, value) VALUES (?1, ?2)")?;
                    for revocation in revocations {
                        insert.execute(params![now, &revocation.to_bytes()[..]])?;
                    }
                    top_of(&transaction)
                }
                Deed::Top { at_least } => {
                    raise(&transaction, top, *at_least)?;
                    top = top.max(*at_least);
                    Ok(top)
                }
                Deed::Trim { age, after } => trim(&transaction, now, *age, *after),
            }
        })
        .collect::<rusqlite::Result<Vec<u64>>>()?;
    transaction.commit()?;
    Ok(answers)
}

/// Deletes entries behind `after` that are older than `age`, and looks at a limited number. Returns the position of the last of
/// them, or zero if no old ones are behind it.
fn trim(connection: &Connection, now: i64, age: Duration, after: u64) -> rusqlite::Result<u64> {
    let youngest = now.saturating_sub(i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let limit = i64::try_from(TRIM_STEP).unwrap_or(i64::MAX);
    let mut query = connection.prepare_cached(
        "SELECT position, written FROM revocation WHERE position > ?1 ORDER BY position LIMIT ?2",
    )?;
    let step: Vec<(i64, i64)> = query
        .query_map([after, limit], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    // The entries behind a young one are young, too. One of the future says nothing: it was written by a clock that was wrong.
    let is_young = |written: i64| (youngest..=now).contains(&written);
    let reached = step.iter().position(|(_, written)| is_young(*written));
    let mut delete = connection.prepare_cached("DELETE FROM revocation WHERE position = ?1")?;
    for (position, written) in step.iter().take(reached.unwrap_or(step.len())) {
        if *written < youngest {
            delete.execute([position])?;
        }
    }
    let is_last = reached.is_some() || step.len() < TRIM_STEP;
    let last = step.last().filter(|_| !is_last).map_or(0, |(position, _)| *position);
    Ok(u64::try_from(last).unwrap_or(0))
}

/// Returns the highest position that was ever given. AUTOINCREMENT keeps it when the entry is deleted.
fn top_of(connection: &Connection) -> rusqlite::Result<u64> {
    let mut query = connection.prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'revocation'")?;
    let top: Option<i64> = query.query_row((), |row| row.get(0)).optional()?;
    Ok(top.and_then(|top| u64::try_from(top).ok()).unwrap_or(0))
}

/// Raises the next position above `at_least`.
fn raise(connection: &Connection, top: u64, at_least: u64) -> rusqlite::Result<()> {
    if top >= at_least {
        return Ok(());
    }
    let at_least = i64::try_from(at_least.min(MAX_POSITION)).unwrap_or(i64::MAX);
    let changed =
        connection.execute("UPDATE sqlite_sequence SET seq = ?1 WHERE name = 'revocation'", [at_least])?;
    if changed == 0 {
        connection
            .execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('revocation', ?1)", [at_least])?;
    }
    Ok(())
}

fn serve_reads(connection: &Connection, queue: &Receiver<Read>, identity: &FileIdentity) {
    while let Ok(Read { after, wait, answer }) = queue.recv() {
        if answer.is_closed() {
            continue; // the follower asks again
        }
        let _ = answer.send(read(connection, after, wait, identity)); // the caller may be gone
    }
}

fn read(connection: &Connection, after: u64, wait: Duration, identity: &FileIdentity) -> Result<Page, Error> {
    let deadline = Instant::now() + bounded(wait);
    loop {
        check(identity)?;
        // Read first: every later commit changes it.
        let version = data_version(connection)?;
        let page = page(connection, after).map_err(Error::unavailable)?;
        if !page.entries.is_empty() || page.top != after {
            return Ok(page);
        }
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(page);
            }
            std::thread::sleep(POLL_EVERY.min(left));
            if data_version(connection)? != version {
                break;
            }
        }
    }
}

/// Returns a number that changes with each commit of another connection.
fn data_version(connection: &Connection) -> Result<i64, Error> {
    connection.pragma_query_value(None, "data_version", |row| row.get(0)).map_err(Error::unavailable)
}

fn page(connection: &Connection, after: u64) -> rusqlite::Result<Page> {
    // One snapshot for both queries.
    let transaction = connection.unchecked_transaction()?;
    let top = top_of(&transaction)?;
    let mut query = transaction.prepare_cached(
        "SELECT position, written, value FROM revocation WHERE position > ?1 ORDER BY position",
    )?;
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let mut rows = query.query([after])?;
    let mut page = Page { entries: Vec::new(), top, more: false, history: 0 };
    while let Some(row) = rows.next()? {
        if page.entries.len() == PAGE {
            page.more = true;
            break;
        }
        let number = |at| row.get::<_, i64>(at).map(|number| u64::try_from(number).unwrap_or(0));
        let (position, written) = (number(0)?, Timestamp::from_unix(number(1)?));
        let value = row.get_ref(2)?.as_blob()?;
        // Skips entries of a later release.
        if let Some(revocation) = Revocation::from_bytes(value) {
            page.entries.push(Entry { position, written, revocation });
        }
    }
    drop(rows);
    drop(query);
    transaction.commit()?;
    Ok(page)
}

fn check(file: &FileIdentity) -> Result<(), Error> {
    if file.is_in_place() {
        Ok(())
    } else {
        Err(Error::unavailable(
            "the file of revocations, or its -wal or -shm, was deleted or replaced while it was in use",
        ))
    }
}

impl fmt::Debug for SqliteLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteLog").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;
    const AGE: Duration = Duration::from_secs(1_000);

    fn log(entries: impl IntoIterator<Item = i64>) -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(SCHEMA).unwrap();
        for written in entries {
            connection
                .execute("INSERT INTO revocation (written, value) VALUES (?1, x'')", [written])
                .unwrap();
        }
        connection
    }

    fn left(connection: &Connection) -> i64 {
        connection.query_row("SELECT count(*) FROM revocation", (), |row| row.get(0)).unwrap()
    }

    #[test]
    fn a_long_deletion_is_done_in_steps() {
        let old = 2_500;
        let entries = std::iter::repeat_n(NOW - 1_001, old).chain(std::iter::repeat_n(NOW - 1_000, 2_500));
        let connection = log(entries);
        let (mut after, mut steps) = (0, Vec::new());
        loop {
            let before = left(&connection);
            after = trim(&connection, NOW, AGE, after).unwrap();
            steps.push(before - left(&connection));
            if after == 0 {
                break;
            }
        }
        // The entries behind the first young one are not looked at.
        assert_eq!((steps, left(&connection)), (vec![1_000, 1_000, 500], 2_500));
    }

    #[test]
    fn an_entry_of_the_future_is_passed_over() {
        let connection = log([NOW - 5_000, NOW + 5_000, NOW - 4_000, NOW, NOW - 3_000]);
        assert_eq!(trim(&connection, NOW, AGE, 0).unwrap(), 0);
        assert_eq!(left(&connection), 3);
    }

    // Without fullfsync, a power cut on macOS takes back a logout that was acknowledged.
    #[test]
    fn each_connection_is_durable_and_careful() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("revocations.db");
        let connections = [create(&path).unwrap().0, connect(&path).unwrap()];
        for connection in &connections {
            let shown = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
            let names =
                ["synchronous", "fullfsync", "checkpoint_fullfsync", "cell_size_check", "trusted_schema"];
            assert_eq!(names.map(shown), [2, 1, 1, 1, 0]);
        }
        drop(connections);
    }

    #[test]
    fn positions_follow_the_clock_and_never_go_back() {
        let at = |nanos| UNIX_EPOCH + Duration::from_nanos(nanos);
        let today = 1_800_000_000_000_000_000;
        assert_eq!(first_position(0, at(today)), today);
        assert_eq!(first_position(today + 5, at(today)), today + 5 + ROOM);
        // A clock that is wrong, in either direction.
        assert_eq!(first_position(7, at(u64::MAX)), 7 + ROOM);
        assert_eq!(first_position(7, UNIX_EPOCH - Duration::from_secs(1)), 7 + ROOM);
        assert!(first_position(0, at(MAX_POSITION / 10 * 9 - 1)) < MAX_POSITION);
    }

    #[test]
    fn a_file_that_another_process_locks_is_tried_again_and_an_unusable_one_is_not() {
        use rusqlite::ffi;

        let busy =
            |code| is_busy(&Error::unavailable(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)));
        assert_eq!(
            [ffi::SQLITE_BUSY, ffi::SQLITE_LOCKED, ffi::SQLITE_FULL, ffi::SQLITE_NOTADB].map(busy),
            [true, true, false, false]
        );
        assert!(!is_busy(&stopped()));
    }

    #[test]
    fn each_opening_raises_the_one_end_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("revocations.db");
        let mut before = 0;
        for _ in 0..3 {
            let (connection, _) = create(&path).unwrap();
            let top = top_of(&connection).unwrap();
            assert!(top > before.max(1_000_000_000_000_000_000), "positions follow the time: {top}");
            let ends: i64 =
                connection.query_row("SELECT count(*) FROM sqlite_sequence", (), |row| row.get(0)).unwrap();
            assert_eq!(ends, 1);
            before = top;
        }
    }

    #[test]
    fn each_commit_of_another_connection_shows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("revocations.db");
        let (writes, _) = create(&path).unwrap();
        let reads = connect(&path).unwrap();
        let mut before = data_version(&reads).unwrap();
        assert_eq!(data_version(&reads).unwrap(), before);
        for number in 1..=3 {
            raise(&writes, 0, MAX_POSITION - 10 + number).unwrap();
            let after = data_version(&reads).unwrap();
            assert_ne!(after, before);
            before = after;
        }
    }

    #[test]
    fn a_reader_is_woken_by_an_entry_and_by_a_raised_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("revocations.db");
        let (writes, _) = create(&path).unwrap();
        let identity = FileIdentity::of(&path);
        let hour = Duration::from_secs(3_600);
        for entries in [1, 0] {
            let before = top_of(&writes).unwrap();
            let (page, after) = std::thread::scope(|scope| {
                let reading = scope.spawn(|| {
                    let reads = connect(&path).unwrap();
                    read(&reads, before, hour, &identity).unwrap()
                });
                if entries > 0 {
                    writes
                        .execute("INSERT INTO revocation (written, value) VALUES (1, zeroblob(25))", ())
                        .unwrap();
                } else {
                    raise(&writes, before, before + 7).unwrap();
                }
                (reading.join().unwrap(), top_of(&writes).unwrap())
            });
            assert_eq!((page.entries.len(), page.top), (entries, after));
            assert!(after > before);
        }
    }

    fn write(answer: oneshot::Sender<Result<u64, Error>>) -> Write {
        let revocations = vec![Revocation::of_owner([7; 16])];
        Write { deed: Deed::Append { revocations, above: 0 }, answer }
    }

    #[test]
    fn a_write_whose_caller_gave_up_is_not_done() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("revocations.db");
        let (connection, _) = create(&path).unwrap();
        let (writes, queue) = sync_channel(8);
        let (answer, mut answered) = oneshot::channel();
        for answer in [oneshot::channel().0, answer, oneshot::channel().0] {
            writes.send(write(answer)).unwrap();
        }
        drop(writes);
        serve_writes(connection, &queue, &FileIdentity::of(&path));
        answered.try_recv().unwrap().unwrap();
        assert_eq!(left(&connect(&path).unwrap()), 1);
    }

    #[tokio::test]
    async fn callers_beyond_the_length_of_the_queue_are_refused() {
        let (writes, _queue) = sync_channel(1);
        let (reads, _read_queue) = sync_channel(1);
        writes.send(write(oneshot::channel().0)).unwrap();
        reads.send(Read { after: 0, wait: Duration::ZERO, answer: oneshot::channel().0 }).unwrap();
        let process = std::process::id();
        let mut log = SqliteLog { path: PathBuf::new(), incarnation: 1, writes, reads, process };
        for error in [log.top(0).await.unwrap_err(), log.read(0, Duration::ZERO).await.unwrap_err()] {
            assert!(error.is_unavailable());
            assert!(std::error::Error::source(&error).unwrap().to_string().contains("too many callers"));
        }
        // A process that was forked has no threads that would answer.
        log.process ^= 1;
        for error in [log.top(0).await.unwrap_err(), log.read(0, Duration::ZERO).await.unwrap_err()] {
            assert!(std::error::Error::source(&error).unwrap().to_string().contains("has ended"));
        }
    }
}
