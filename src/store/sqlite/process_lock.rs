//! The lock that makes processes which share a file write one after the other.

use std::fs::File;
#[cfg(unix)]
use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};

/// A lock that every process which writes takes around its transactions.
///
/// SQLite's own lock is polled: a process that sleeps between two attempts loses against one that does not, for
/// seconds. `flock` sleeps in the kernel. With a single lock, a process that has just released it could take it again
/// before a waiting one has woken up. So there are two: to take the second, a process holds the first, and keeps it
/// until it has the second. A process that releases the second then finds the first one taken, if another process
/// waits.
///
/// They are separate files, since closing any descriptor of the database file would drop the locks that SQLite holds on
/// it.
#[cfg(unix)]
pub(super) struct ProcessLock {
    next: File,
    writer: File,
}

/// On this system, SQLite's own lock is the only one.
#[cfg(not(unix))]
pub(super) struct ProcessLock;

/// The right to write, until it is dropped.
pub(super) struct Held<'a>(Option<&'a File>);

#[cfg(unix)]
impl ProcessLock {
    /// Opens the lock's files beside the database at `path`, and creates them if they are missing. An error comes with the file
    /// that it is about.
    pub(super) fn open(path: &Path) -> Result<Self, (PathBuf, io::Error)> {
        let open = |suffix| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            let name = PathBuf::from(name);
            lock_file(path, &name).map_err(|error| (name, error))
        };
        Ok(Self { next: open("-next")?, writer: open("-lock")? })
    }

    /// Waits until no other process writes. The wait is not limited.
    pub(super) fn acquire(&self) -> io::Result<Held<'_>> {
        lock(&self.next)?;
        let acquired = lock(&self.writer);
        unlock(&self.next);
        acquired.map(|()| Held(Some(&self.writer)))
    }
}

#[cfg(not(unix))]
impl ProcessLock {
    pub(super) fn open(_: &Path) -> Result<Self, (PathBuf, io::Error)> {
        Ok(Self)
    }

    pub(super) fn acquire(&self) -> io::Result<Held<'_>> {
        Ok(Held(None))
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(file) = self.0 {
            unlock(file);
        }
    }
}

/// Opens the file `name`. A new one gets the rights of the database, as SQLite's `-wal` and `-shm` do: another user of the database
/// needs the lock, too.
#[cfg(unix)]
fn lock_file(database: &Path, name: &Path) -> io::Result<File> {
    use std::fs::Permissions;
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};

    let mut options = OpenOptions::new();
    options.read(true).write(true);
    match options.open(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened,
    }
    let database = std::fs::metadata(database).ok();
    let mode = database.as_ref().map_or(0o600, |database| database.mode() & 0o666);
    match options.clone().create_new(true).mode(mode).open(name) {
        // Another process has just created it.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => options.open(name),
        Ok(file) => {
            // Only root can change the owner. For other users the group is enough.
            if let Some(database) = database {
                if fchown(&file, Some(database.uid()), Some(database.gid())).is_err() {
                    let _ = fchown(&file, None, Some(database.gid()));
                }
            }
            // The umask may have taken rights away. A file system without such rights refuses to change them.
            let _ = file.set_permissions(Permissions::from_mode(mode));
            Ok(file)
        }
        Err(error) => Err(error),
    }
}

#[cfg(unix)]
fn lock(file: &File) -> io::Result<()> {
    use rustix::fs::{FlockOperation, flock};

    Ok(rustix::io::retry_on_intr(|| flock(file, FlockOperation::LockExclusive))?)
}

#[cfg(unix)]
fn unlock(file: &File) {
    use rustix::fs::{FlockOperation, flock};

    // It does not fail for a file that is open; if it did, closing the file would release the lock.
    let _ = flock(file, FlockOperation::Unlock);
}

#[cfg(not(unix))]
fn unlock(_: &File) {}

#[cfg(all(test, unix))]
#[path = "process_lock_tests.rs"]
mod tests;
