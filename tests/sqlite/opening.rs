//! Opening says what is wrong, and touches no file that is not ours.

use std::fs;
use std::path::Path;
use std::time::Duration;

use hyper_session::store::Backend;
use hyper_session::{Error, SqliteStore};
use rusqlite::Connection;

use crate::contract::block_on;
use crate::folder::{Folder, NOW, UNHURRIED, entry, id};

fn open(path: &Path) -> Result<SqliteStore, Error> {
    SqliteStore::builder(path).development().open()
}

/// Refused as a mistake in the set-up, in words that name it.
fn refused(opened: Result<SqliteStore, Error>, word: &str) {
    let error = opened.unwrap_err();
    assert!(error.is_config() && error.to_string().contains(word), "{word}: {error:?}");
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let folder = Folder::new();
    refused(folder.builder().busy_timeout(Duration::ZERO).open(), "busy_timeout");
    refused(folder.builder().sweep_interval(Duration::ZERO).open(), "sweep_interval");
    refused(folder.builder().max_entry_len(0).open(), "max_entry_len");
    refused(folder.builder().max_entry_len(1_000).open(), "max_sessions_per_subject");
    refused(folder.builder().max_entry_len(1_000_000_000).open(), "max_entry_len");
    refused(folder.builder().max_sessions_per_subject(100_000).open(), "max_sessions_per_subject");
    refused(folder.builder().max_sessions_per_subject(usize::MAX).open(), "max_sessions_per_subject");
    refused(folder.builder().max_entry_len(4_096).open(), "max_sessions_per_subject");
    refused(folder.builder().read_threads(257).open(), "read_threads");
    refused(folder.builder().max_sessions_per_subject(0).open(), "max_sessions_per_subject");
    for path in ["", ":memory:"] {
        refused(open(Path::new(path)), "MemoryStore");
    }
    refused(open(folder.path()), "folder");
    refused(open(&folder.path().join("missing/sessions.db")), "the folder of the session file");
    assert_eq!(
        folder.names(),
        ["sessions.db", "sessions.db-lock", "sessions.db-next"],
        "by the last builder"
    );
}

/// SQLite counts milliseconds in 32 bits: 24 days.
#[test]
fn the_longest_busy_timeout_is_accepted() {
    for read_threads in [0, 1] {
        let folder = Folder::new();
        let builder = folder.builder().busy_timeout(Duration::MAX).read_threads(read_threads);
        let store = builder.open().unwrap();
        assert!(block_on(store.backend().create(id(1), entry("one"), NOW)).unwrap());
        assert_eq!(block_on(store.backend().fetch(id(1), NOW)).unwrap(), Some(entry("one")));
    }
}

#[test]
fn a_file_of_another_program_is_refused_and_left_as_it_is() {
    let folder = Folder::new();
    let path = folder.file();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE entries (id BLOB); INSERT INTO entries VALUES (x'01')").unwrap();
    drop(other);
    let before = fs::read(&path).unwrap();
    refused(open(&path), "another program");
    assert_eq!(fs::read(&path).unwrap(), before);

    let other = Connection::open(&path).unwrap();
    other.execute_batch("DROP TABLE entries; PRAGMA application_id = 7; PRAGMA user_version = 1").unwrap();
    drop(other);
    refused(open(&path), "another program");
}

#[test]
fn a_file_of_a_newer_release_is_refused() {
    let folder = Folder::new();
    drop(folder.store());
    let newer = Connection::open(folder.file()).unwrap();
    newer.pragma_update(None, "user_version", 2).unwrap();
    drop(newer);
    refused(open(&folder.file()), "version 2");
}

#[test]
fn what_is_no_database_is_refused_and_left_as_it_is() {
    let folder = Folder::new();
    for content in [&b"name,value\n"[..], &[0x5a; 10_000], b"SQLite format 3\0"] {
        fs::write(folder.file(), content).unwrap();
        let error = open(&folder.file()).unwrap_err();
        assert!(error.is_config(), "{error:?}");
        assert_eq!(fs::read(folder.file()).unwrap(), content);
    }
}

#[test]
fn a_file_without_its_tables_is_damaged() {
    let folder = Folder::new();
    for sql in ["DROP TABLE entries", "ALTER TABLE entries RENAME COLUMN value TO other"] {
        drop(folder.store());
        let other = Connection::open(folder.file()).unwrap();
        other.execute_batch(sql).unwrap();
        drop(other);
        refused(open(&folder.file()), "damaged");
        fs::remove_file(folder.file()).unwrap();
    }
}

#[test]
fn an_empty_file_becomes_ours_and_is_found_again() {
    let folder = Folder::new();
    fs::write(folder.file(), b"").unwrap();
    let store = folder.store();
    assert!(block_on(store.backend().create(id(1), entry("one"), NOW)).unwrap());
    // While it is open, too.
    let second = folder.store();
    assert_eq!(block_on(second.backend().fetch(id(1), NOW)).unwrap(), Some(entry("one")));
    drop((store, second));
    assert_eq!(block_on(folder.store().backend().fetch(id(1), NOW)).unwrap(), Some(entry("one")));
    let header = fs::read(folder.file()).unwrap();
    assert_eq!(header[68..72], *b"hses", "what `file` shows");
    assert_eq!(header[60..64], [0, 0, 0, 1]);
}

#[test]
fn many_may_open_and_create_it_at_once() {
    let folder = Folder::new();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let folder = &folder;
            scope.spawn(move || {
                let store = folder.store();
                assert!(block_on(store.backend().create(id(number), entry("x"), NOW)).unwrap());
            });
        }
    });
    let store = folder.store();
    for number in 0..8 {
        assert!(block_on(store.backend().fetch(id(number), NOW)).unwrap().is_some());
    }
}

#[cfg(unix)]
#[test]
fn only_the_owner_can_read_a_new_file() {
    use std::os::unix::fs::PermissionsExt;

    let folder = Folder::new();
    let store = folder.store();
    assert!(block_on(store.backend().create(id(1), entry("one"), NOW)).unwrap());
    let names = folder.names();
    assert_eq!(names.len(), 5, "{names:?}");
    for name in names {
        let mode = fs::metadata(folder.path().join(&name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

/// Another user of the file must be able to lock it, whichever user came first, and under any umask.
#[cfg(unix)]
#[test]
fn what_is_beside_the_file_has_its_rights() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

    let folder = Folder::new();
    drop(folder.store());
    let beside = ["sessions.db-lock", "sessions.db-next"].map(|name| folder.path().join(name));
    let is_root = chown(folder.file(), Some(1_234), Some(2_345)).is_ok();
    for mode in [0o666, 0o660, 0o600] {
        fs::set_permissions(folder.file(), fs::Permissions::from_mode(mode)).unwrap();
        for path in &beside {
            fs::remove_file(path).unwrap();
        }
        let store = folder.store();
        assert!(block_on(store.backend().create(id(1), entry("one"), NOW)).unwrap());
        assert_eq!(folder.names().len(), 5);
        for name in folder.names() {
            let file = fs::metadata(folder.path().join(&name)).unwrap();
            assert_eq!(file.permissions().mode() & 0o777, mode, "{name}");
            if is_root {
                assert_eq!((file.uid(), file.gid()), (1_234, 2_345), "{name}");
            }
        }
    }
}

#[cfg(unix)]
#[test]
fn an_error_names_the_file_that_it_is_about() {
    let folder = Folder::new();
    fs::create_dir(folder.path().join("sessions.db-next")).unwrap();
    refused(open(&folder.file()), "sessions.db-next");
    let link = folder.path().join("link.db");
    std::os::unix::fs::symlink("/no/such/volume/sessions.db", &link).unwrap();
    refused(open(&link), "symbolic link");
}

#[test]
fn it_is_not_lost_when_the_working_directory_changes() {
    // Readers are opened later, by the path that was given. It is made absolute at the start.
    let folder = Folder::new();
    let relative = pathdiff(&std::env::current_dir().unwrap(), &folder.file());
    let store = SqliteStore::builder(relative).busy_timeout(UNHURRIED).development().open().unwrap();
    assert!(block_on(store.backend().create(id(1), entry("one"), NOW)).unwrap());
    assert_eq!(folder.names().len(), 5);
}

/// `target`, as seen from `base`.
fn pathdiff(base: &Path, target: &Path) -> std::path::PathBuf {
    let up: std::path::PathBuf = base.components().skip(1).map(|_| "..").collect();
    up.join(target.strip_prefix("/").unwrap())
}
