//! A disk that a test can fill.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use hyper_session::store::{Builder, sqlite::SqliteOptions};

use crate::folder::Folder;

/// A file system of one MiB, in memory. Root can make one, and root runs the tests in CI.
pub(crate) struct SmallDisk(pub(crate) Folder);

impl SmallDisk {
    pub(crate) fn mount() -> Option<Self> {
        let folder = Folder::new();
        let mounted =
            run("mount", &["-t", "tmpfs", "-o", "size=1m", "none", folder.path().to_str().unwrap()]);
        if !mounted {
            println!(
                "no file system can be mounted here: a limit of the file's size, in full_disk.rs, stands for the disk's"
            );
        }
        mounted.then(|| Self(folder))
    }

    pub(crate) fn builder(&self) -> Builder<SqliteOptions> {
        self.0.builder()
    }

    pub(crate) fn ballast(&self) -> PathBuf {
        self.0.path().join("ballast")
    }

    /// Fills the disk, but for `bytes`.
    pub(crate) fn leave(&self, bytes: u64) {
        let _ = fs::remove_file(self.ballast());
        let mut len = 1 << 20;
        while fs::write(self.ballast(), vec![0; len]).is_err() {
            len -= 4_096;
        }
        let len = u64::try_from(len).unwrap().saturating_sub(bytes);
        fs::File::options().write(true).open(self.ballast()).unwrap().set_len(len).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Also if a store still has its file open: it is gone from the folder at once, which can then be removed.
        run("umount", &["-l", self.0.path().to_str().unwrap()]);
    }
}

pub(crate) fn run(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
