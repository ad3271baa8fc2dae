//! Processes that are killed: a logout that they have answered stays, and is on the disk before the answer.
//!
//! `HYPER_SESSION_KILLS=500 cargo test --all-features --test revocation kill` kills as many.

#![allow(clippy::print_stdout)] // says how much a long run has shown

use std::io::{BufRead, BufReader, Lines, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use hyper_session::__internals::Verbs;
use hyper_session::testing::FakeClock;
use hyper_session::{Clock, Refusal, Revocations, SystemClock};

use crate::folder::Folder;
use crate::requests::{NAME, Site};
#[cfg(feature = "redis")]
use crate::server::{Server, unhurried_revocations};
use crate::support::block_on;

/// Names the log: a path, or the URL of a Redis.
const LOG: &str = "REVOCATIONS";

async fn host(log: &str) -> Site {
    let revocations = match log {
        #[cfg(feature = "redis")]
        url if url.contains("://") => unhurried_revocations(url, "test").connect().await,
        path => Revocations::sqlite(path).await,
    };
    let revocations = revocations.unwrap().max_staleness(Duration::from_secs(20));
    Site::built(FakeClock::at(SystemClock.now().as_unix()), |builder| builder.revocations(revocations))
}

/// A process that logs in and out until it is killed or has done it `LOGOUTS` times, and prints the cookies that it ended.
#[test]
#[ignore = "run by the tests below, as a process of its own"]
fn child() {
    let log = std::env::var(LOG).expect("the parent names the log");
    let logouts = std::env::var("LOGOUTS").map_or(u64::MAX, |logouts| logouts.parse().unwrap());
    block_on(async {
        let site = host(&log).await;
        let mut out = std::io::stdout();
        for number in 0..logouts {
            let mut browser = site.logged_in(&format!("{}-{number}", std::process::id())).await;
            let token = String::from_utf8(browser.get(NAME).unwrap().to_vec()).unwrap();
            site.logout(&mut browser).await;
            write!(out, "\nended {token}\n").unwrap();
            out.flush().unwrap();
        }
    });
}

const ARGUMENTS: [&str; 4] = ["--ignored", "--exact", "kill::child", "--nocapture"];

fn spawn(mut command: Command, log: &str) -> (Child, Lines<BufReader<ChildStdout>>) {
    command.env(LOG, log).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines)
}

/// Kills processes in the middle of their work, and presents every cookie that they said was ended.
fn killed_at_random_moments(log: &str) {
    let kills = std::env::var("HYPER_SESSION_KILLS").map_or(20, |kills| kills.parse().unwrap());
    let mut ended: Vec<String> = Vec::new();
    for kill in 0..kills {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(ARGUMENTS);
        let (mut child, lines) = spawn(command, log);
        // Random enough: some microseconds into one of the first hundred logouts.
        let wanted = 1 + kill * 37 % 100;
        let mut seen = 0;
        for line in lines {
            let Some(token) = line.unwrap().strip_prefix("ended ").map(str::to_owned) else { continue };
            ended.push(token);
            seen += 1;
            if seen == wanted {
                std::thread::sleep(Duration::from_micros(kill * 7_919 % 2_000));
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
    }
    block_on(async {
        let site = host(log).await;
        for token in &ended {
            let loaded = site.store.load(token.as_bytes(), SystemClock.now()).await;
            assert_eq!(loaded.unwrap().unwrap_err(), Refusal::Revoked);
        }
        assert!(ended.len() as u64 >= kills, "the children logged out");
        println!("{} answered logouts, {kills} killed processes, none lost", ended.len());
    });
}

#[test]
fn answered_logouts_survive_killed_processes_in_a_file() {
    let folder = Folder::new();
    killed_at_random_moments(folder.file().to_str().unwrap());
}

#[cfg(feature = "redis")]
#[test]
fn answered_logouts_survive_killed_processes_in_redis() {
    let server = Server::start();
    killed_at_random_moments(&server.url());
}

#[test]
fn a_logout_is_synced_to_the_disk_before_it_is_answered() {
    const LOGOUTS: usize = 40;
    let there = Command::new("strace").arg("-V").stdout(Stdio::null()).status();
    assert!(there.is_ok_and(|status| status.success()), "strace is missing: tests/run installs it");
    let folder = Folder::new();
    let trace = folder.file().with_extension("trace");
    let mut command = Command::new("strace");
    command.args([
        "-f",
        "-y",
        "-s",
        "8",
        "-e",
        "signal=none",
        "-e",
        "trace=write,pwrite64,fsync,fdatasync",
        "-o",
    ]);
    command.arg(&trace).arg(std::env::current_exe().unwrap()).args(ARGUMENTS);
    command.env("LOGOUTS", LOGOUTS.to_string());
    let (mut child, lines) = spawn(command, folder.file().to_str().unwrap());
    assert_eq!(lines.filter(|line| line.as_ref().unwrap().starts_with("ended ")).count(), LOGOUTS);
    assert!(child.wait().unwrap().success());

    // Of each answer: was something written to the log since the last one, and all of it synced?
    let (mut written, mut dirty, mut synced, mut syncing) = (false, false, 0, None);
    for line in std::fs::read_to_string(trace).unwrap().lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        let of_the_log = call.contains("-wal>");
        let is_sync = call.starts_with("fsync") || call.starts_with("fdatasync");
        if call.starts_with("pwrite64") && of_the_log {
            (written, dirty) = (true, true);
        } else if is_sync && of_the_log {
            syncing = Some(thread.to_owned());
        }
        let ends = is_sync || call.contains("sync resumed");
        if ends && call.ends_with("= 0") && syncing.as_deref() == Some(thread) {
            (dirty, syncing) = (false, None);
        }
        if call.starts_with("write(1<") && call.contains("\"ended") {
            assert!(written && !dirty, "answer {synced}");
            written = false;
            synced += 1;
        }
    }
    assert_eq!(synced, LOGOUTS, "the trace shows every answer");
}
