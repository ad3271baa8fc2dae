//! The settings of SQLite that a file needs to lose nothing, and to harm nothing: for sessions and for revocations.

use rusqlite::Connection;

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
