//! The lock between processes: one writes at a time, and a process that waits comes next.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::*;

fn path() -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("hyper-session-lock-{}-{number}", std::process::id()))
}

/// Closes the lock's files and removes them.
fn remove(path: &Path) {
    for suffix in ["-next", "-lock"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        let _ = std::fs::remove_file(name);
    }
}

/// Returns true once another process holds `next` and so writes next.
fn another_waits(lock: &ProcessLock) -> bool {
    let free = flock(&lock.next, FlockOperation::NonBlockingLockExclusive).is_ok();
    if free {
        unlock(&lock.next);
    }
    !free
}

/// With one `flock`, a process that releases it and takes it again at once wins nearly each time.
#[test]
fn a_process_that_waits_comes_before_one_that_has_just_written() {
    let path = path();
    // Each opening is locked separately, as by a process.
    let (busy, patient) = (ProcessLock::open(&path).unwrap(), ProcessLock::open(&path).unwrap());
    let writes = AtomicU64::new(0);
    for _ in 0..200 {
        let held = busy.acquire().unwrap();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let _held = patient.acquire().unwrap();
                writes.load(Ordering::SeqCst)
            });
            let start = Instant::now();
            while !another_waits(&busy) {
                assert!(start.elapsed() < Duration::from_secs(60), "it waits without the first lock");
                thread::yield_now();
            }
            let before = writes.load(Ordering::SeqCst);
            drop(held);
            for _ in 0..3 {
                let _held = busy.acquire().unwrap();
                writes.fetch_add(1, Ordering::SeqCst);
            }
            assert_eq!(
                waiting.join().unwrap(),
                before,
                "the busy store wrote again before the waiting store"
            );
        });
    }
    remove(&path);
}

#[test]
fn one_process_writes_at_a_time() {
    let path = path();
    let (inside, total) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let lock = ProcessLock::open(&path).unwrap();
                for _ in 0..200 {
                    let _held = lock.acquire().unwrap();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    total.fetch_add(1, Ordering::SeqCst);
                    thread::yield_now();
                    assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1);
                }
            });
        }
    });
    assert_eq!(total.into_inner(), 800);
    remove(&path);
}

/// Another process may create the file between two steps. Here, a link does so that leads nowhere: it cannot be opened, and no
/// new file can be created under its name.
#[test]
fn a_file_that_came_meanwhile_is_opened() {
    let path = path();
    let mut name = path.as_os_str().to_owned();
    name.push("-next");
    std::os::unix::fs::symlink("/no/such/folder/file", &name).unwrap();
    let (file, error) = ProcessLock::open(&path).err().unwrap();
    assert_eq!((file, error.kind()), (PathBuf::from(name), io::ErrorKind::NotFound));
    remove(&path);
}
