//! When a change is on the disk.

/// The moment at which a change is on the disk: SQLite's `PRAGMA synchronous` in a write-ahead log.
///
/// # Examples
///
/// ```
/// use hyper_session::SqliteStore;
/// use hyper_session::store::sqlite::Synchronous;
///
/// let builder = SqliteStore::builder("sessions.db").synchronous(Synchronous::Normal);
/// # let _ = builder;
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Synchronous {
    /// Before the call returns: a power cut loses no acknowledged change.
    #[default]
    Full,
    /// Some time after the call returns. A crash of the process loses nothing. A power cut takes back the last changes,
    /// so a session that was ended can live again; the file stays intact.
    Normal,
}

impl Synchronous {
    pub(super) fn as_sql(self) -> &'static str {
        match self {
            Self::Full => "FULL",
            Self::Normal => "NORMAL",
        }
    }
}
