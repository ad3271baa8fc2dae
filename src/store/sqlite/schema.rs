//! The tables of the file, and how another program's file is recognized.

use std::path::Path;
use std::time::Duration;

use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags};

use super::fault::Failure;
use super::synchronous::Synchronous;
use crate::clock::Timestamp;
use crate::error::Error;
use crate::sqlite_file::{make_careful, make_durable};
use crate::store::server::session_list::LONGEST_LIST;

/// Marks the file as one of this crate: `hses` in ASCII.
const APPLICATION_ID: i32 = 0x6873_6573;

/// The version of the tables below, kept as `user_version`.
const VERSION: i32 = 1;

/// The longest time that SQLite waits for its own lock. It counts milliseconds in 32 bits, and rusqlite panics above that.
const MAX_BUSY_TIMEOUT: Duration = Duration::from_millis(i32::MAX as u64);

// The table is stored by its primary key: one look-up finds the entry.
const CREATE: &str = "
CREATE TABLE entries (
    id      BLOB NOT NULL PRIMARY KEY,
    expires INTEGER NOT NULL,
    sweep   INTEGER NOT NULL,
    value   BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX entries_by_sweep ON entries (sweep);
";

/// Opens the connection that writes.
pub(super) fn open_writer(
    path: &Path,
    synchronous: Synchronous,
    busy_timeout: Duration,
    max_entry_len: usize,
) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| opening(path, &error))?;
    connection.busy_timeout(busy_timeout.min(MAX_BUSY_TIMEOUT)).map_err(|error| opening(path, &error))?;
    prepare_file(path, &connection)?;
    let set_up = || {
        limit(&connection, max_entry_len);
        // secure_delete: a deleted session does not stay in the file's free space. The writer checkpoints after it has
        // answered; SQLite does so automatically only if that failed for long.
        connection.execute_batch(
            "PRAGMA secure_delete = ON; PRAGMA wal_autocheckpoint = 10000; PRAGMA journal_size_limit = 67108864;",
        )?;
        make_durable(&connection, synchronous.as_sql())?;
        make_careful(&connection)
    };
    set_up().map_err(|error| opening(path, &error))?;
    Ok(connection)
}

/// Opens a connection that reads.
pub(super) fn open_reader(
    path: &Path,
    busy_timeout: Duration,
    max_entry_len: usize,
) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(busy_timeout.min(MAX_BUSY_TIMEOUT))?;
    limit(&connection, max_entry_len);
    connection.pragma_update(None, "cache_size", -READER_CACHE)?;
    make_careful(&connection)?;
    Ok(connection)
}

/// The pages that a reading connection keeps until the next commit, in KiB. They take memory only once they were read.
const READER_CACHE: i32 = 8 << 10;

/// Makes SQLite refuse rows that are longer than an entry or a session list may be, before it allocates memory for them.
fn limit(connection: &Connection, max_entry_len: usize) {
    let longest = max_entry_len.max(LONGEST_LIST);
    let row = i32::try_from(longest.saturating_add(ROW)).unwrap_or(i32::MAX);
    // It fails for negative numbers only.
    let _ = connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, row);
}

/// The bytes of a row beside its value, at most.
pub(super) const ROW: usize = 128;

/// Checks that the file belongs to this crate, and creates the tables in an empty one.
fn prepare_file(path: &Path, connection: &Connection) -> Result<(), Error> {
    let look = || {
        let number = |name| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i32>(0));
        let objects =
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))?;
        Ok((number("application_id")?, number("user_version")?, objects))
    };
    match look().map_err(|error| opening(path, &error))? {
        (0, 0, 0) => create(connection).map_err(|error| opening(path, &error)),
        (APPLICATION_ID, VERSION, _) => {
            enter_wal(connection).and_then(|()| may_write(connection)).map_err(|error| opening(path, &error))
        }
        (APPLICATION_ID, version, _) => Err(Error::config(format!(
            "the session file {path:?} has schema version {version}, which a newer release of hyper-session wrote; this one \
             reads version {VERSION}: upgrade it, or name another file"
        ))),
        _ => Err(Error::config(format!(
            "the file {path:?} is a database of another program: name a file for the sessions only"
        ))),
    }
}

fn create(connection: &Connection) -> rusqlite::Result<()> {
    enter_wal(connection)?;
    connection.execute_batch("BEGIN IMMEDIATE")?;
    connection.execute_batch(CREATE)?;
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update(None, "user_version", VERSION)?;
    connection.execute_batch("COMMIT")
}

/// Writes and rolls back: SQLite silently opens a read-only file for reading.
fn may_write(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(&format!("BEGIN IMMEDIATE; PRAGMA user_version = {VERSION}; ROLLBACK"))
}

/// Switches to the write-ahead log: readers do not wait for the writer, and a commit is one write and one sync.
fn enter_wal(connection: &Connection) -> rusqlite::Result<()> {
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode == "wal" { Ok(()) } else { Err(rusqlite::Error::InvalidQuery) }
}

/// Returns the error of a failed opening. It names the mistake if the set-up is wrong.
pub(super) fn opening(path: &Path, error: &rusqlite::Error) -> Error {
    if matches!(error, rusqlite::Error::InvalidQuery) {
        return Error::config(format!(
            "the session file {path:?} cannot be used with a write-ahead log: put it on a local file system"
        ));
    }
    unusable(path, &Failure::of(error))
}

/// Returns the configuration error for a failure that lasts until the set-up is changed.
pub(super) fn unusable(path: &Path, failure: &Failure) -> Error {
    match failure {
        Failure::ReadOnly => Error::config(format!(
            "the session file {path:?} is read-only: let this process write the file and its folder"
        )),
        Failure::NotADatabase => Error::config(format!(
            "the file {path:?} is not an SQLite database: name a file for the sessions only"
        )),
        Failure::Damaged => Error::config(format!(
            "the session file {path:?} is damaged: restore a backup, or move the file away to begin with an empty one"
        )),
        Failure::CannotOpen => Error::config(format!(
            "the session file {path:?} cannot be opened: let this process read and write the file and its folder"
        )),
        other => other.clone().into(),
    }
}

/// Returns a moment as the file stores it. SQLite has no unsigned numbers: the largest one stands for all later
/// moments.
pub(super) fn seconds(moment: Timestamp) -> i64 {
    i64::try_from(moment.as_unix()).unwrap_or(i64::MAX)
}

/// Reverses [`seconds`]. This crate writes no moment before 1970: such a moment counts as expired.
pub(super) fn timestamp(seconds: i64) -> Timestamp {
    match seconds {
        i64::MAX => Timestamp::MAX,
        seconds => Timestamp::from_unix(u64::try_from(seconds).unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ErrorCode;

    use super::*;

    #[test]
    fn moments_are_read_as_they_were_written_up_to_the_last_one() {
        for moment in [0, 1, 1_800_000_000, i64::MAX as u64 - 1, u64::MAX].map(Timestamp::from_unix) {
            assert_eq!(timestamp(seconds(moment)), moment);
        }
        assert_eq!(timestamp(-1), Timestamp::from_unix(0), "it has expired");
    }

    /// A damaged file could name any length, for which memory would be allocated.
    #[test]
    fn connections_refuse_rows_that_are_longer_than_any_entry() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sessions.db");
        std::fs::write(&path, "").unwrap();
        let patience = Duration::from_secs(120);
        for (max_entry_len, longest) in [(1, LONGEST_LIST + ROW), (2 * LONGEST_LIST, 2 * LONGEST_LIST + ROW)]
        {
            let writer = open_writer(&path, Synchronous::Normal, patience, max_entry_len).unwrap();
            let reader = open_reader(&path, patience, max_entry_len).unwrap();
            let cache: i32 = reader.pragma_query_value(None, "cache_size", |row| row.get(0)).unwrap();
            assert_eq!(cache, -8_192, "in KiB");
            for connection in [writer, reader] {
                let of = |len: usize| {
                    let len = i64::try_from(len).unwrap();
                    connection.query_row("SELECT length(zeroblob(?1))", [len], |row| row.get::<_, i64>(0))
                };
                assert!(of(longest).is_ok());
                assert_eq!(of(longest + 1).unwrap_err().sqlite_error_code(), Some(ErrorCode::TooBig));
            }
        }
    }
}
