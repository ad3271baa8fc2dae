//! The identity of a file that is open: its path must keep leading to it.

use std::path::{Path, PathBuf};

/// The device and the number of the file at a path.
///
/// A file that was moved or deleted stays open, and can still be written. But a later process opens another file at its path.
#[derive(Clone)]
pub(crate) struct FileIdentity {
    path: PathBuf,
    file: Option<(u64, u64)>,
}

impl FileIdentity {
    pub(crate) fn of(path: &Path) -> Self {
        Self { path: path.to_owned(), file: numbers(path) }
    }

    /// Returns true if the path still leads to the same file.
    pub(crate) fn is_in_place(&self) -> bool {
        numbers(&self.path) == self.file
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
