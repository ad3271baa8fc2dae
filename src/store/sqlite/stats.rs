//! Figures for metrics: how many changes were written, in how many commits.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts, since the store was opened.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) changes: AtomicU64,
    pub(super) commits: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) swept: AtomicU64,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

/// Figures of a [`Sqlite`](super::Sqlite) backend since it was opened.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), hyper_session::Error> {
/// # let folder = std::env::temp_dir().join(format!("hyper-session-stats-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder).unwrap();
/// # let path = folder.join("sessions.db");
/// let store = hyper_session::SqliteStore::builder(path).open()?;
/// assert_eq!(store.backend().stats().commits, 0);
/// # drop(store);
/// # std::fs::remove_dir_all(folder).unwrap();
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SqliteStats {
    /// Calls of `create`, `replace`, `touch` and `delete` that were answered from a transaction.
    pub changes: u64,
    /// The transactions that committed them.
    pub commits: u64,
    /// Calls that failed.
    pub failures: u64,
    /// Expired entries that were deleted.
    pub swept: u64,
}

impl SqliteStats {
    pub(super) fn of(counters: &Counters) -> Self {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Self {
            changes: read(&counters.changes),
            commits: read(&counters.commits),
            failures: read(&counters.failures),
            swept: read(&counters.swept),
        }
    }
}
