//! A change is synced to the disk before it is acknowledged, as the system calls show.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};

use crate::child::{ARGUMENTS, Process, command};
use crate::folder::Folder;

const WRITES: u64 = 50;

/// Of the acknowledgements of a process, how many came after a sync of all that had been written to the log.
fn synced(body: &str) -> u64 {
    let folder = Folder::new();
    let trace = folder.path().join("trace");
    let mut traced = command("strace", body, &folder.file(), WRITES);
    traced.args([
        "-f",
        "-y",
        "-s",
        "16",
        "-e",
        "signal=none",
        "-e",
        "trace=write,pwrite64,pwritev,fsync,fdatasync",
        "-o",
    ]);
    traced.arg(&trace).arg(std::env::current_exe().unwrap()).args(ARGUMENTS);
    let mut process = Process::of(&mut traced);
    process.wait_for_line("ready");
    process.succeeds();

    let (mut synced, mut acknowledged) = (0, 0);
    // Whether the log has writes that are not synced, and which thread is in the middle of a sync.
    let (mut written, mut dirty, mut syncing) = (false, false, BTreeSet::new());
    for line in fs::read_to_string(trace).unwrap().lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        let of_the_log = call.contains("-wal>");
        if call.starts_with("pwrite") && of_the_log {
            (written, dirty) = (true, true);
        }
        let is_sync = call.starts_with("fsync") || call.starts_with("fdatasync");
        if is_sync && of_the_log {
            syncing.insert(thread.to_owned());
        }
        let ends = is_sync || (call.starts_with("<... f") && call.contains("sync resumed"));
        if ends && call.ends_with("= 0") && syncing.remove(thread) {
            dirty = false;
        }
        if call.starts_with("write(1<") && call.contains("body: done") {
            acknowledged += 1;
            synced += u64::from(written && !dirty);
            written = false;
        }
    }
    assert_eq!(acknowledged, WRITES, "the trace shows every acknowledgement");
    synced
}

#[test]
fn each_change_is_synced_before_it_is_acknowledged_unless_the_option_says_less() {
    let there = Command::new("strace").arg("-V").stdout(Stdio::null()).status();
    assert!(there.is_ok_and(|status| status.success()), "strace is missing: tests/run installs it");
    assert_eq!(synced("write durably"), WRITES);
    assert_eq!(
        synced("write less durably"),
        0,
        "the same look at a process that does not sync finds that it does not"
    );
}
