//! Processes of their own: this test program, started again as one of the bodies below.

use std::env;
use std::io::{BufRead, BufReader, ErrorKind, Write, stdout};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper_session::SqliteStore;
use hyper_session::store::sqlite::Synchronous;
use hyper_session::store::{Backend, Replaced, Stored};

use crate::contract::block_on;
use crate::folder::{NOW, UNHURRIED, entry, id, said};
use crate::kill::{Step, content, entry_id, step};

const BODY: &str = "HYPER_SESSION_TEST_BODY";
const FILE: &str = "HYPER_SESSION_TEST_FILE";
const NUMBER: &str = "HYPER_SESSION_TEST_NUMBER";

/// The shared counter.
pub(crate) const COUNTER: u64 = 1;

/// The arguments of this program that run a body and nothing else.
pub(crate) const ARGUMENTS: [&str; 4] = ["child::body", "--exact", "--ignored", "--nocapture"];

/// `program`, told to run `body` on `file`. `number` is a body's own affair.
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>, body: &str, file: &Path, number: u64) -> Command {
    let mut command = Command::new(program);
    command.env(BODY, body).env(FILE, file).env(NUMBER, number.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// A process that runs a body.
pub(crate) struct Process {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Process {
    pub(crate) fn start(body: &str, file: &Path, number: u64) -> Self {
        Self::of(command(env::current_exe().unwrap(), body, file, number).args(ARGUMENTS))
    }

    pub(crate) fn of(command: &mut Command) -> Self {
        let start = Instant::now();
        let mut child = loop {
            match command.spawn() {
                Ok(child) => break child,
                // A test wrote the program. A process that another test starts has the file open for writing, too, until it runs
                // its own program.
                Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => {
                    assert!(start.elapsed() < UNHURRIED, "{error}");
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(error) => panic!("{error}"),
            }
        };
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// The next line that the body wrote, without what the test harness writes. None at its end.
    pub(crate) fn line(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if let Some((_, said)) = line.split_once("body: ") {
                return Some(said.trim_end().to_owned());
            }
        }
    }

    /// Skips the lines before this one.
    pub(crate) fn wait_for_line(&mut self, wanted: &str) {
        while let Some(line) = self.line() {
            if line == wanted {
                return;
            }
        }
        panic!("the process has ended without {wanted:?}");
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn succeeds(mut self) {
        while self.line().is_some() {}
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One write, which the pipe takes whole.
fn say(line: &str) {
    stdout().write_all(format!("body: {line}\n").as_bytes()).unwrap();
}

fn number() -> u64 {
    env::var(NUMBER).unwrap().parse().unwrap()
}

fn builder() -> hyper_session::store::Builder<hyper_session::store::sqlite::SqliteOptions> {
    SqliteStore::builder(env::var(FILE).unwrap()).busy_timeout(UNHURRIED).development()
}

#[test]
#[ignore = "the body of processes that other tests start"]
fn body() {
    match env::var(BODY).as_deref() {
        Ok("write until killed") => write_until_killed(),
        Ok("count") => count(),
        Ok("write durably") => write_one_after_another(Synchronous::Full),
        Ok("write less durably") => write_one_after_another(Synchronous::Normal),
        Ok("write until refused") => write_until_refused(),
        Ok("open") => match builder().open() {
            Ok(_) => say("opened"),
            Err(error) => say(&format!("config {} {}", error.is_config(), said(&error))),
        },
        other => panic!("no body: {other:?}"),
    }
}

/// Runs tasks that each write and delete entries of their own, and a task that counts in an entry of all processes. Prints a line
/// for each acknowledgement.
fn write_until_killed() {
    let store = builder().open().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..4 {
            let store = store.clone();
            tasks.spawn(async move {
                for index in 0.. {
                    let (generation, doing) = step(index);
                    let id = entry_id(number(), task, generation);
                    let backend = store.backend();
                    match doing {
                        Step::Create => {
                            assert!(backend.create(id, entry(content(index)), NOW).await.unwrap());
                        }
                        Step::Replace => {
                            let replaced = backend
                                .replace(id, content(index - 1), Some(entry(content(index))), NOW)
                                .await;
                            assert_eq!(replaced.unwrap(), Replaced::Done);
                        }
                        Step::Delete => backend.delete(id).await.unwrap(),
                    }
                    say(&format!("done {task} {index}"));
                }
            });
        }
        tasks.spawn(async move {
            loop {
                increment(&store, number()).await;
                say("counted");
            }
        });
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
    });
}

/// Adds one to the shared counter. No two writes have the same value, as the contract wants it.
async fn increment(store: &SqliteStore, process: u64) {
    let backend = store.backend();
    // True for one process, and for another that comes at once with the same value.
    let _ = backend.create(id(COUNTER), entry(vec![0; 24]), NOW).await.unwrap();
    let mut expected = backend.fetch(id(COUNTER), NOW).await.unwrap().unwrap().value;
    loop {
        let next = counted(&expected) + 1;
        let mut value = next.to_be_bytes().to_vec();
        value.extend(process.to_be_bytes());
        value.extend(revision().to_be_bytes());
        match backend.replace(id(COUNTER), expected, Some(entry(value)), NOW).await.unwrap() {
            Replaced::Done => return,
            Replaced::Conflict(Stored { value, .. }) => expected = value,
            Replaced::Missing => panic!("no deletion was asked for"),
        }
    }
}

fn revision() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

pub(crate) fn counted(value: &Bytes) -> u64 {
    u64::from_be_bytes(*value.first_chunk().unwrap())
}

/// How often each process adds one to the counter, by eight tasks.
pub(crate) const COUNTS: u64 = 8 * 50;

fn count() {
    let store = builder().open().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let store = store.clone();
            tasks.spawn(async move {
                for _ in 0..COUNTS / 8 {
                    increment(&store, number()).await;
                }
            });
        }
        tasks.join_all().await;
    });
}

fn write_one_after_another(synchronous: Synchronous) {
    let store = builder().synchronous(synchronous).open().unwrap();
    let mut value = Bytes::new();
    block_on(store.backend().create(id(1), entry(value.clone()), NOW)).unwrap();
    say("ready");
    for number in 0..number() {
        let next = Bytes::from(number.to_be_bytes().repeat(40));
        let replaced = block_on(store.backend().replace(id(1), value, Some(entry(next.clone())), NOW));
        assert_eq!(replaced.unwrap(), Replaced::Done);
        value = next;
        say("done");
    }
}

fn write_until_refused() {
    let store = builder().open().unwrap();
    for index in 0..100_000 {
        match block_on(store.backend().create(id(index), entry(content(index)), NOW)) {
            Ok(created) => {
                assert!(created);
                say(&format!("done {index}"));
            }
            Err(error) => {
                say(&format!("unavailable {} {}", error.is_unavailable(), said(&error)));
                break;
            }
        }
    }
    // Not torn, and still there to read.
    assert_eq!(block_on(store.backend().fetch(id(0), NOW)).unwrap().unwrap().value, content(0));
}
