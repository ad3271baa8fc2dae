//! Revocations in an SQLite file: shared by processes, killed, locked, full, damaged, taken for something else.

use std::path::Path;
use std::time::{Duration, Instant};

use hyper_session::revocation::{Revocation, RevocationLog, SqliteLog};
use hyper_session::testing::{Cookies, FakeClock, check_revocation_log};
use hyper_session::{Clock, Refusal, Revocations, SystemClock};

use crate::folder::Folder;
use crate::requests::{Site, until};
use crate::support::block_on;

/// For a busy machine.
const PATIENT: Duration = Duration::from_secs(20);

async fn host(path: &Path) -> Site {
    let revocations = Revocations::sqlite(path).await.unwrap().max_staleness(PATIENT);
    Site::built(FakeClock::at(SystemClock.now().as_unix()), |builder| builder.revocations(revocations))
}

#[test]
fn the_file_keeps_the_contract_of_logs() {
    let folder = Folder::new();
    block_on(async {
        let log = async || SqliteLog::open(folder.file()).await.unwrap();
        check_revocation_log(&log().await, &log().await).await;
    });
}

#[test]
fn what_one_process_ends_another_refuses_and_a_later_one_remembers() {
    let folder = Folder::new();
    block_on(async {
        let (one, two) = (host(&folder.file()).await, host(&folder.file()).await);
        let mut copies: Vec<Cookies> = Vec::new();
        for number in 0..20 {
            let mut browser = one.logged_in(&number.to_string()).await;
            copies.push(browser.clone());
            assert!(two.accepts(&browser).await);
            one.logout(&mut browser).await;
            let copy = copies.last().unwrap();
            until("the logout to be known", async || !two.accepts(copy).await).await;
        }
        let alive = one.logged_in("ada").await;
        drop((one, two));
        let three = host(&folder.file()).await;
        for copy in &copies {
            assert_eq!(three.refusal(copy).await, Some(Refusal::Revoked));
        }
        assert!(three.accepts(&alive).await);
        three.store.end_all().await.unwrap();
        assert!(!three.accepts(&alive).await);
        assert!(three.accepts(&three.logged_in("ada").await).await);
    });
}

/// The times in the file are by the machine's clock. That of a store in a test can be ahead of it.
#[test]
fn a_store_whose_clock_is_ahead_forgets_nothing_too_early() {
    let folder = Folder::new();
    block_on(async {
        let revocations = Revocations::sqlite(folder.file()).await.unwrap().max_staleness(PATIENT);
        let ahead = SystemClock.now().as_unix() + 30 * 86_400;
        let site = Site::built(FakeClock::at(ahead), |builder| builder.revocations(revocations));
        let mut browser = site.logged_in("ada").await;
        let copy = browser.clone();
        site.logout(&mut browser).await;
        let other = SqliteLog::open(folder.file()).await.unwrap();
        let known = async |count: usize| {
            let mut name = [1; Revocation::LEN];
            name[0] = u8::try_from(count).unwrap();
            other.append(vec![Revocation::from_bytes(&name).unwrap()], 0).await.unwrap();
            until("the follower to read on", async || site.revoked() == count).await;
        };
        // The follower notes the time. A minute later, it forgets what has expired, after a read and before the next one.
        known(2).await;
        known(3).await;
        site.clock.advance(Duration::from_secs(61));
        known(4).await;
        known(5).await;
        assert_eq!(site.refusal(&copy).await, Some(Refusal::Revoked));
    });
}

#[test]
fn ending_all_and_logging_in_within_one_request_on_two_processes() {
    let folder = Folder::new();
    block_on(async {
        let hosts = [host(&folder.file()).await, host(&folder.file()).await];
        let mut browser = hosts[0].logged_in("ada").await;
        for turn in 0..60 {
            let (here, there) = (&hosts[turn % 2], &hosts[(turn + 1) % 2]);
            let copy = browser.clone();
            let store = here.store.clone();
            here.visit(&mut browser, |session| {
                let store = store.clone();
                async move {
                    store.end_sessions_of("ada").await?;
                    session.login("ada")
                }
            })
            .await;
            assert!(here.accepts(&browser).await && there.accepts(&browser).await, "turn {turn}");
            assert!(!here.accepts(&copy).await && !there.accepts(&copy).await, "turn {turn}");
        }
    });
}

#[test]
fn a_locked_file_a_full_one_and_a_deleted_one() {
    let folder = Folder::new();
    block_on(async {
        let site = host(&folder.file()).await;
        let mut browser = site.logged_in("ada").await;
        let copy = browser.clone();
        // Another program holds the file for longer than anybody waits.
        let other = rusqlite::Connection::open(folder.file()).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let response = site.visit(&mut browser, |session| async move { session.destroy() }).await;
        assert_eq!(response.status(), 503);
        assert!(site.accepts(&browser).await, "reads go on");
        assert!(site.accepts(&site.logged_in("bob").await).await, "a login writes nothing to the file");
        other.execute_batch("ROLLBACK").unwrap();
        site.logout(&mut browser).await;
        assert!(!site.accepts(&copy).await);

        // A write to a file that other hosts no longer see fails.
        std::fs::rename(folder.file(), folder.path().join("moved.db")).unwrap();
        assert!(site.store.end_sessions_of("ada").await.unwrap_err().is_unavailable());
        until("the follower to notice", async || site.changes().contains(&"unreachable")).await;
        std::fs::rename(folder.path().join("moved.db"), folder.file()).unwrap();
        until("it to be back", async || site.changes().contains(&"reachable")).await;
        site.store.end_sessions_of("ada").await.unwrap();

        // The last revocations are in the write-ahead log.
        std::fs::remove_file(folder.path().join("sessions.db-wal")).unwrap();
        assert!(site.store.end_sessions_of("ada").await.unwrap_err().is_unavailable());
        until("the follower to notice", async || site.changes().contains(&"unreachable")).await;
    });
}

#[test]
fn what_is_no_log_is_left_alone() {
    let folder = Folder::new();
    block_on(async {
        let text = folder.path().join("notes.txt");
        std::fs::write(
            &text,
            "not a database, but long enough to be taken for one by a store that ignores the first bytes",
        )
        .unwrap();
        assert!(Revocations::sqlite(&text).await.unwrap_err().is_config());
        let other = folder.path().join("other.db");
        rusqlite::Connection::open(&other).unwrap().execute_batch("CREATE TABLE mine (a)").unwrap();
        // Its tables may come later.
        let empty = folder.path().join("empty.db");
        rusqlite::Connection::open(&empty).unwrap().execute_batch("PRAGMA application_id = 7").unwrap();
        for path in [other, empty] {
            let before = std::fs::read(&path).unwrap();
            assert!(Revocations::sqlite(&path).await.unwrap_err().is_config());
            assert!(std::fs::read(&path).unwrap() == before, "a file of another program is not changed");
        }
        let newer = folder.path().join("newer.db");
        drop(Revocations::sqlite(&newer).await.unwrap());
        rusqlite::Connection::open(&newer).unwrap().execute_batch("PRAGMA user_version = 2").unwrap();
        let error = Revocations::sqlite(&newer).await.unwrap_err();
        assert!(error.is_config() && error.to_string().contains("another release"), "{error}");
        assert!(Revocations::sqlite(folder.path().join("no/such/folder.db")).await.unwrap_err().is_config());
    });
}

#[test]
fn a_damaged_file_is_an_error_and_no_empty_log() {
    let folder = Folder::new();
    block_on(async {
        {
            let log = SqliteLog::open(folder.file()).await.unwrap();
            let revocation = Revocation::from_bytes(&[1; Revocation::LEN]).unwrap();
            for _ in 0..40 {
                log.append(vec![revocation; 256], 0).await.unwrap();
            }
        }
        let connection = rusqlite::Connection::open(folder.file()).unwrap();
        connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        drop(connection);
        let mut bytes = std::fs::read(folder.file()).unwrap();
        assert!(bytes.len() > 100_000);
        bytes[8_192..].fill(0xa5);
        std::fs::write(folder.file(), bytes).unwrap();
        assert!(Revocations::sqlite(folder.file()).await.unwrap_err().is_config());
    });
}

#[test]
fn what_is_revoked_after_a_backup_was_restored_ends_the_sessions_from_before() {
    let folder = Folder::new();
    block_on(async {
        let backup = folder.path().join("backup.db");
        let (copy, alive) = {
            let site = host(&folder.file()).await;
            site.store.end_sessions_of("somebody").await.unwrap();
            let connection = rusqlite::Connection::open(folder.file()).unwrap();
            connection.execute("VACUUM INTO ?1", [backup.to_str().unwrap()]).unwrap();
            let mut browser = site.logged_in("ada").await;
            let copy = browser.clone();
            site.logout(&mut browser).await;
            (copy, site.logged_in("bob").await)
        };
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(folder.path().join(format!("sessions.db{suffix}")));
        }
        std::fs::rename(backup, folder.file()).unwrap();
        let site = host(&folder.file()).await;
        // The file never gave the position of this login, and does not give it to a revocation either.
        assert!(site.accepts(&alive).await);
        site.store.end_sessions_of("bob").await.unwrap();
        assert!(!site.accepts(&alive).await);
        assert!(site.accepts(&copy).await, "as documented: a restored backup forgets");
    });
}

// Each opening leaves out positions. The restored file repeats those of the file that it replaces, unless they follow the time.
#[test]
fn what_is_revoked_after_a_restore_ends_sessions_from_any_number_of_openings_before() {
    let folder = Folder::new();
    block_on(async {
        let backup = folder.path().join("backup.db");
        {
            let site = host(&folder.file()).await;
            site.store.end_sessions_of("somebody").await.unwrap();
            let connection = rusqlite::Connection::open(folder.file()).unwrap();
            connection.execute("VACUUM INTO ?1", [backup.to_str().unwrap()]).unwrap();
            let mut browser = site.logged_in("ada").await;
            site.logout(&mut browser).await;
        }
        for _ in 0..3 {
            host(&folder.file()).await;
        }
        let bob = host(&folder.file()).await.logged_in("bob").await;
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(folder.path().join(format!("sessions.db{suffix}")));
        }
        std::fs::rename(backup, folder.file()).unwrap();
        let site = host(&folder.file()).await;
        site.store.end_sessions_of("bob").await.unwrap();
        for visit in 1..=2 {
            assert_eq!(site.refusal(&bob).await, Some(Refusal::Revoked), "visit {visit}");
        }
        assert!(site.accepts(&site.logged_in("bob").await).await);
    });
}

#[test]
fn what_is_old_is_deleted_and_what_is_young_is_kept() {
    let folder = Folder::new();
    block_on(async {
        let log = SqliteLog::open(folder.file()).await.unwrap();
        let shell = rusqlite::Connection::open(folder.file()).unwrap();
        shell.execute_batch("BEGIN").unwrap();
        for _ in 0..2_500 {
            shell.execute("INSERT INTO revocation (written, value) VALUES (1, zeroblob(25))", ()).unwrap();
        }
        shell.execute_batch("COMMIT").unwrap();
        let young =
            log.append(vec![Revocation::from_bytes(&[1; Revocation::LEN]).unwrap()], 0).await.unwrap();
        log.trim(Duration::from_secs(1_000)).await.unwrap();
        let page = log.read(0, Duration::ZERO).await.unwrap();
        assert_eq!(page.entries.iter().map(|entry| entry.position).collect::<Vec<_>>(), [young]);
    });
}

/// A position of one file means nothing in another.
#[test]
fn each_file_counts_in_an_incarnation_of_its_own() {
    let (one, two) = (Folder::new(), Folder::new());
    block_on(async {
        let incarnation = async |folder: &Folder| SqliteLog::open(folder.file()).await.unwrap().incarnation();
        let first = incarnation(&one).await;
        assert_eq!(incarnation(&one).await, first);
        assert_ne!(incarnation(&two).await, first);
    });
}

#[test]
fn a_new_file_that_stays_locked_is_not_waited_for_without_end() {
    let folder = Folder::new();
    block_on(async {
        let other = rusqlite::Connection::open(folder.file()).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        assert!(SqliteLog::open(folder.file()).await.err().is_some_and(|error| error.is_unavailable()));
        other.execute_batch("ROLLBACK").unwrap();
    });
}

// Another process is about to make a log of the file. SQLite does not wait for it before it changes to a WAL.
#[test]
fn a_new_file_that_is_locked_is_waited_for() {
    block_on(async {
        for _ in 0..20 {
            let folder = Folder::new();
            let other = rusqlite::Connection::open(folder.file()).unwrap();
            other.execute_batch("BEGIN IMMEDIATE").unwrap();
            let release = async {
                tokio::time::sleep(Duration::from_millis(100)).await;
                other.execute_batch("ROLLBACK").unwrap();
            };
            let begun = Instant::now();
            let (opened, ()) = tokio::join!(SqliteLog::open(folder.file()), release);
            match opened {
                Ok(_) => return,
                // A busy machine may release it later than that.
                Err(error) => assert!(begun.elapsed() >= Duration::from_secs(2), "{error:?}"),
            }
        }
        panic!("it is released too late, always");
    });
}

#[test]
#[ignore = "run by the test below, as a process of its own"]
fn child_that_changes_its_folder() {
    block_on(async {
        let site = host(Path::new("revocations.db")).await;
        std::env::set_current_dir("/").unwrap();
        site.store.end_sessions_of("bob").await.unwrap();
        assert!(site.accepts(&site.logged_in("ada").await).await);
    });
}

#[test]
fn a_change_of_the_working_directory_does_not_matter() {
    let folder = Folder::new();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--ignored", "--exact", "on_sqlite::child_that_changes_its_folder"]);
    let done = child.current_dir(folder.path()).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
    assert!(String::from_utf8_lossy(&done.stdout).contains("1 passed"));
    assert!(folder.path().join("revocations.db").exists());
}
