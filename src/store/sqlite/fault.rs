//! The mapping from SQLite's errors to those of the caller.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use rusqlite::ErrorCode;

use crate::error::Error;

/// Why a step failed. It quotes neither SQL nor values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Another program holds SQLite's own lock.
    Locked,
    /// The disk is full, or the file has reached its largest size.
    Full,
    /// The file cannot be written.
    ReadOnly,
    /// The file's contents are invalid.
    Damaged,
    /// The file is not an SQLite database.
    NotADatabase,
    /// The operating system refused to open the file.
    CannotOpen,
    /// The operating system failed to read, write or sync. SQLite's extended code says which.
    Io(i32),
    /// The lock between processes could not be taken.
    ProcessLock(io::ErrorKind),
    /// The file, `-wal` or `-shm` was moved, replaced or deleted: a later process opens a different file at its path.
    Moved,
    /// The entry is longer than the option allows.
    TooLarge,
    /// The reply did not come in time. Whether a write happened is unknown.
    TimedOut,
    /// The queue is full.
    QueueFull,
    /// The thread that serves the calls has stopped.
    Stopped,
    /// Any other error, by SQLite's extended code.
    Other(i32),
}

impl Failure {
    pub(super) fn of(error: &rusqlite::Error) -> Self {
        // All other errors mean that a row has other types than the schema.
        let Some(failure) = error.sqlite_error() else { return Self::Damaged };
        match failure.code {
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Self::Locked,
            ErrorCode::DiskFull => Self::Full,
            ErrorCode::ReadOnly => Self::ReadOnly,
            ErrorCode::DatabaseCorrupt => Self::Damaged,
            ErrorCode::NotADatabase => Self::NotADatabase,
            ErrorCode::CannotOpen | ErrorCode::PermissionDenied => Self::CannotOpen,
            ErrorCode::SystemIoFailure => Self::Io(failure.extended_code),
            ErrorCode::TooBig => Self::TooLarge,
            _ => Self::Other(failure.extended_code),
        }
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::of(&error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked => f.write_str("another program holds a lock on the session file"),
            Self::Full => f.write_str("the disk that holds the session file is full"),
            Self::ReadOnly => f.write_str("the session file is read-only"),
            Self::Damaged => f.write_str("the session file is damaged"),
            Self::NotADatabase => f.write_str("the session file is not an SQLite database"),
            Self::CannotOpen => f.write_str("the session file cannot be opened"),
            Self::Io(code) => write!(f, "the session file could not be read or written (SQLite code {code})"),
            Self::ProcessLock(kind) => {
                write!(f, "the lock beside the session file could not be taken: {kind}")
            }
            Self::Moved => f.write_str(
                "the session file, or its -wal or -shm, was moved, replaced or deleted while it was in use",
            ),
            Self::TooLarge => {
                f.write_str("an entry of the session file is longer than max_entry_len() allows")
            }
            Self::TimedOut => f.write_str("the session file was not read or written in time"),
            Self::QueueFull => f.write_str("too many writes wait for the session file"),
            Self::Stopped => f.write_str("the thread that serves the session file has stopped"),
            Self::Other(code) => write!(f, "SQLite failed with code {code}"),
        }
    }
}

impl StdError for Failure {}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            // Whatever happens, this process will not read the entry.
            Failure::TooLarge => Self::unreadable(failure),
            _ => Self::unavailable(failure),
        }
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    #[test]
    fn each_code_of_sqlite_is_the_failure_that_it_stands_for() {
        for (code, failure) in [
            (ffi::SQLITE_BUSY, Failure::Locked),
            (ffi::SQLITE_LOCKED, Failure::Locked),
            (ffi::SQLITE_FULL, Failure::Full),
            (ffi::SQLITE_READONLY, Failure::ReadOnly),
            (ffi::SQLITE_CORRUPT, Failure::Damaged),
            (ffi::SQLITE_NOTADB, Failure::NotADatabase),
            (ffi::SQLITE_CANTOPEN, Failure::CannotOpen),
            (ffi::SQLITE_PERM, Failure::CannotOpen),
            (ffi::SQLITE_IOERR_FSYNC, Failure::Io(ffi::SQLITE_IOERR_FSYNC)),
            (ffi::SQLITE_TOOBIG, Failure::TooLarge),
            (ffi::SQLITE_CONSTRAINT, Failure::Other(ffi::SQLITE_CONSTRAINT)),
        ] {
            let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
            assert_eq!(Failure::of(&error), failure, "{code}");
        }
        assert_eq!(Failure::of(&rusqlite::Error::InvalidQuery), Failure::Damaged, "a row of other types");
    }

    #[test]
    fn only_an_entry_that_is_too_long_is_never_read_later() {
        for (failure, unreadable) in
            [(Failure::TooLarge, true), (Failure::Full, false), (Failure::Other(1), false)]
        {
            let error = Error::from(failure);
            assert!(error.is_unavailable());
            assert_eq!(error.is_unreadable(), unreadable);
        }
    }
}
