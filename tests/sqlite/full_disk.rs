//! A disk that is full, a file that may grow no further, and a file that may not be written.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;

use hyper_session::SqliteStore;
use hyper_session::store::Backend;

use crate::child::{ARGUMENTS, Process, command};
use crate::contract::block_on;
use crate::folder::{Folder, NOW, entry, id, said};
use crate::group_commit::start;
use crate::kill::content;
use crate::small_disk::{SmallDisk, run};
use crate::waiting::OtherProcess;

fn all_there(store: &SqliteStore, count: u64) {
    for number in 0..count {
        let found = block_on(store.backend().fetch(id(number), NOW)).unwrap();
        assert_eq!(found.map(|stored| stored.value), Some(content(number)), "{number} of {count}");
    }
}

#[test]
fn a_full_disk_is_unavailable_loses_nothing_and_works_again_when_there_is_room() {
    let Some(disk) = SmallDisk::mount() else { return };
    let store = disk.builder().open().unwrap();
    let backend = store.backend();
    let mut written = 0;
    let error = loop {
        match block_on(backend.create(id(written), entry(content(written)), NOW)) {
            Ok(created) => assert!(created),
            Err(error) => break error,
        }
        written += 1;
    };
    assert!(error.is_unavailable() && said(&error).contains("full"), "{error:?}");
    assert!(written > 50, "{written}");
    for _ in 0..10 {
        assert!(
            block_on(backend.create(id(written), entry(content(written)), NOW)).unwrap_err().is_unavailable()
        );
        all_there(&store, written);
    }
    // Another process, and one that starts now, read it, too.
    all_there(&disk.builder().open().unwrap(), written);
    drop(store);

    // More room.
    let path = disk.0.path().to_str().unwrap();
    assert!(run("mount", &["-o", "remount,size=4m", path]));
    let store = disk.builder().open().unwrap();
    all_there(&store, written);
    assert!(block_on(store.backend().create(id(written), entry(content(written)), NOW)).unwrap());
    all_there(&store, written + 1);
}

#[test]
fn what_does_not_fit_does_not_fail_what_came_in_with_it() {
    let Some(disk) = SmallDisk::mount() else { return };
    let store = disk.builder().open().unwrap();
    let backend = store.backend();
    assert!(block_on(backend.create(id(100), entry("old"), NOW)).unwrap());
    disk.leave(100_000);
    let other = OtherProcess::writing(&disk.0);
    let mut calls: Vec<_> = (0..4)
        .map(|number| {
            let value = if number == 1 { vec![1; 300_000] } else { vec![2; 50] };
            Box::pin(backend.create(id(number), entry(value), NOW))
        })
        .collect();
    start(&mut calls);
    let mut delete = Box::pin(backend.delete(id(100)));
    start(std::slice::from_mut(&mut delete));
    drop(other);
    let outcomes: Vec<_> = calls.into_iter().map(block_on).collect();
    block_on(delete).unwrap();
    assert!(outcomes[1].as_ref().is_err_and(|error| said(error).contains("full")), "{outcomes:?}");
    for number in [0, 2, 3] {
        assert_eq!(outcomes[number].as_ref().ok(), Some(&true), "{outcomes:?}");
        assert!(block_on(backend.fetch(id(number as u64), NOW)).unwrap().is_some());
    }
    assert_eq!(block_on(backend.fetch(id(1), NOW)).unwrap(), None);
    assert_eq!(block_on(backend.fetch(id(100), NOW)).unwrap(), None);
    fs::remove_file(disk.ballast()).unwrap();
    assert!(block_on(backend.create(id(1), entry(vec![1; 300_000]), NOW)).unwrap());
}

#[test]
fn a_file_that_may_grow_no_further_is_unavailable_and_loses_nothing() {
    let folder = Folder::new();
    let exe = std::env::current_exe().unwrap();
    // 512 KiB a file. The signal would end the process, and is ignored.
    let script = r#"trap '' XFSZ; ulimit -f 512; exec "$0" "$@""#;
    let mut limited = command("bash", "write until refused", &folder.file(), 0);
    limited.args(["-c", script]).arg(exe).args(ARGUMENTS);
    let mut process = Process::of(&mut limited);
    let mut written = 0;
    let refused = loop {
        let line = process.line().expect("it is refused in the end");
        match line.strip_prefix("done ") {
            Some(index) => {
                assert_eq!(index, written.to_string());
                written += 1;
            }
            None => break line,
        }
    };
    assert!(refused.starts_with("unavailable true"), "{refused}");
    assert!(written > 20, "{written}");
    process.succeeds();
    all_there(&folder.store(), written);
}

#[test]
fn a_file_system_that_is_read_only_is_refused_at_the_start() {
    let Some(disk) = SmallDisk::mount() else { return };
    drop(disk.builder().open().unwrap());
    assert!(run("mount", &["-o", "remount,ro", disk.0.path().to_str().unwrap()]));
    let error = disk.builder().open().unwrap_err();
    assert!(error.is_config() && error.to_string().to_lowercase().contains("read-only"), "{error:?}");
}

#[test]
fn a_file_that_this_user_may_not_write_is_refused_at_the_start() {
    let folder = Folder::new();
    drop(folder.store());
    let open = |mode: u32, of_folder: u32| {
        // Root may write everything, so another user opens the file then.
        let root = fs::metadata("/proc/self").unwrap().uid() == 0;
        let program = folder.path().join("program");
        fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(of_folder)).unwrap();
        for name in folder.names() {
            let mode = if name == "sessions.db" { mode } else { 0o777 };
            fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let mut other = command(&program, "open", &folder.file(), 0);
        if root {
            other.uid(65_534).gid(65_534);
        }
        let mut process = Process::of(other.args(ARGUMENTS));
        let said = process.line().unwrap();
        process.succeeds();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        said
    };
    let said = open(0o444, 0o777);
    assert!(said.starts_with("config true") && said.contains("read-only"), "{said}");
    let said = open(0o000, 0o777);
    assert!(said.starts_with("config true") && said.contains("cannot be opened"), "{said}");
    assert_eq!(open(0o666, 0o777), "opened");
    // SQLite needs to make files beside it.
    let said = open(0o666, 0o555);
    assert!(said.starts_with("config true"), "{said}");
}
