//! The settings of SQLite that a file needs to lose nothing, to harm nothing, and to show nothing: for sessions and for
//! revocations.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;

use rusqlite::Connection;

/// Creates the file if it is missing, readable by its owner only. SQLite gives the files beside it the same permissions.
pub(crate) fn create_for_owner(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    // An existing file is not opened: closing it would drop the locks that SQLite holds for another store of this process.
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Makes a commit last as `synchronous` says, on macOS, too.
pub(crate) fn make_durable(connection: &Connection, synchronous: &str) -> rusqlite::Result<()> {
    // On macOS, fsync leaves data in the disk's own cache. fullfsync writes it out, as fsync does on other systems.
    connection.execute_batch("PRAGMA fullfsync = ON; PRAGMA checkpoint_fullfsync = ON;")?;
    connection.pragma_update(None, "synchronous", synchronous)
}

/// Makes SQLite careful with a file that is damaged, or that another program has written.
pub(crate) fn make_careful(connection: &Connection) -> rusqlite::Result<()> {
    // Not mapped into memory: there, a failing disk would raise a signal, and reads are slower while pages change.
    connection
        .execute_batch("PRAGMA mmap_size = 0; PRAGMA cell_size_check = ON; PRAGMA trusted_schema = OFF;")
}
