//! A folder for one test's file, and what a test knows about the files in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hyper_session::store::EntryId;
use hyper_session::store::Stored;
use hyper_session::store::sqlite::SqliteOptions;
use hyper_session::{SqliteStore, Timestamp};

pub(crate) const NOW: Timestamp = Timestamp::from_unix(1_800_000_000);

pub(crate) const UNHURRIED: Duration = Duration::from_secs(120);

/// Removed with what is in it, at the end of the test.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("hyper-session-sqlite-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.0.join("sessions.db")
    }

    /// A store whose writes a busy machine does in time.
    pub(crate) fn builder(&self) -> hyper_session::store::Builder<SqliteOptions> {
        SqliteStore::builder(self.file()).busy_timeout(UNHURRIED).development()
    }

    pub(crate) fn store(&self) -> SqliteStore {
        self.builder().open().unwrap()
    }

    /// The names of its files that this process has open, one for each descriptor.
    pub(crate) fn open_files(&self) -> Vec<String> {
        let links = fs::read_dir("/proc/self/fd").unwrap().flatten();
        let targets = links.filter_map(|link| fs::read_link(link.path()).ok());
        let mut names: Vec<_> = targets
            .filter_map(|target| Some(target.strip_prefix(&self.0).ok()?.to_str()?.to_owned()))
            .collect();
        names.sort();
        names
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn id(number: u64) -> EntryId {
    EntryId::from_bytes(u128::from(number).to_be_bytes())
}

/// An entry of this value that lives for an hour.
pub(crate) fn entry(value: impl Into<Bytes>) -> Stored {
    Stored { value: value.into(), expires: NOW.saturating_add(Duration::from_secs(3_600)) }
}

/// The text of an error and of its cause.
pub(crate) fn said(error: &hyper_session::Error) -> String {
    let source = std::error::Error::source(error).map_or_else(String::new, ToString::to_string);
    format!("{error}: {source}")
}
