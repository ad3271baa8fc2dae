//! The identity of a database that is open: its paths must keep leading to the same files.

use std::path::{Path, PathBuf};

/// The devices and the numbers of the files of an SQLite database: the file at its path, its write-ahead log, and the index of that.
///
/// A file that was moved or deleted stays open, and can still be written. But a later process opens another file at its path.
/// SQLite replaces none of the three while a connection is open: only the last connection that closes deletes the log.
#[derive(Clone)]
pub(crate) struct FileIdentity([(PathBuf, Option<(u64, u64)>); 3]);

impl FileIdentity {
    /// Returns the identity of the database at `path`, which must be open, with a write-ahead log.
    pub(crate) fn of(path: &Path) -> Self {
        Self(["", "-wal", "-shm"].map(|suffix| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            let path = PathBuf::from(name);
            let file = numbers(&path);
            (path, file)
        }))
    }

    /// Returns true if each path still leads to the same file.
    pub(crate) fn is_in_place(&self) -> bool {
        self.0.iter().all(|(path, file)| file.is_some() && numbers(path) == *file)
    }
}

#[cfg(unix)]
fn numbers(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

#[cfg(not(unix))]
fn numbers(path: &Path) -> Option<(u64, u64)> {
    path.exists().then_some((0, 0))
}
