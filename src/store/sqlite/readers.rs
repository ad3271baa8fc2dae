//! Connections that read: one for each runtime thread, used in the caller's thread, or threads that only read.

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rusqlite::Connection;

use super::fault::Failure;
use super::queue::{Queue, Taken, Worker};
use super::schema::{open_reader, timestamp};
use crate::clock::Timestamp;
use crate::file_identity::FileIdentity;
use crate::lock::lock;
use crate::store::Stored;
use crate::store::server::session_list::LONGEST_LIST;

const FETCH: &str = "SELECT expires, value FROM entries WHERE id = ?1";

/// How a reading connection is opened.
#[derive(Clone)]
pub(super) struct Opening {
    pub(super) path: PathBuf,
    pub(super) file: FileIdentity,
    /// How long a read may wait for another process that recovers or closes the file.
    pub(super) busy_timeout: Duration,
    pub(super) max_entry_len: usize,
}

/// How often a connection checks that its file is still in place, which takes a microsecond.
const CHECK_EVERY: Duration = Duration::from_millis(100);

/// An open connection that reads.
pub(super) struct Reader {
    connection: Connection,
    /// When the file was last seen in place.
    checked: Instant,
}

/// A request to read an entry.
#[derive(Clone, Copy)]
pub(super) struct Read {
    pub(super) id: [u8; 16],
    pub(super) now: Timestamp,
    /// A session list may be longer than the limit for entries.
    pub(super) is_list: bool,
}

impl Opening {
    pub(super) fn open(&self) -> Result<Connection, Failure> {
        Ok(open_reader(&self.path, self.busy_timeout, self.max_entry_len)?)
    }

    /// Reads an entry. Each read is a transaction of its own, so it sees every commit before it.
    pub(super) fn read(&self, reader: &mut Option<Reader>, read: Read) -> Result<Option<Stored>, Failure> {
        let now = Instant::now();
        let is_checked = |reader: &Reader| now.saturating_duration_since(reader.checked) < CHECK_EVERY;
        let opened = match reader {
            Some(reader) if is_checked(reader) => reader,
            _ if !self.file.is_in_place() => return Err(Failure::Moved),
            Some(reader) => {
                reader.checked = now;
                reader
            }
            None => reader.insert(Reader { connection: self.open()?, checked: now }),
        };
        let found = fetch(&opened.connection, read, self.max_entry_len);
        if matches!(found, Err(ref failure) if *failure != Failure::TooLarge) {
            // The next read begins with a new connection, in case the old one is at fault.
            *reader = None;
        }
        found
    }
}

fn fetch(connection: &Connection, read: Read, max_entry_len: usize) -> Result<Option<Stored>, Failure> {
    let mut statement = connection.prepare_cached(FETCH)?;
    let mut rows = statement.query([&read.id[..]])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let expires = timestamp(row.get(0)?);
    if expires <= read.now {
        return Ok(None);
    }
    let value = row.get_ref(1)?.as_blob().map_err(|_| Failure::Damaged)?;
    if value.len() > if read.is_list { max_entry_len.max(LONGEST_LIST) } else { max_entry_len } {
        return Err(Failure::TooLarge);
    }
    Ok(Some(Stored { value: Bytes::copy_from_slice(value), expires }))
}

/// Reading connections by thread. A thread uses the connection of its slot. With more threads than slots, some share.
///
/// They belong to the store and are closed with it, which a thread-local connection would not be.
pub(super) struct Readers {
    opening: Opening,
    slots: Box<[Mutex<Option<Reader>>]>,
}

impl Readers {
    pub(super) fn new(opening: Opening) -> Self {
        let threads = std::thread::available_parallelism().map_or(4, usize::from);
        let slots = (0..threads.saturating_mul(2).clamp(4, 64)).map(|_| Mutex::default()).collect();
        Self { opening, slots }
    }

    /// Reads an entry in the caller's thread.
    pub(super) fn read(&self, read: Read) -> Result<Option<Stored>, Failure> {
        let Some(mut slot) = self.slot() else { return Err(Failure::Stopped) };
        self.opening.read(&mut slot, read)
    }

    fn slot(&self) -> Option<MutexGuard<'_, Option<Reader>>> {
        let own = thread_number() % self.slots.len().max(1);
        let (before, from) = self.slots.split_at_checked(own)?;
        for slot in from.iter().chain(before) {
            match slot.try_lock() {
                Ok(free) => return Some(free),
                Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        // All slots are in use: a read takes microseconds.
        from.first().map(|slot| lock(slot))
    }
}

/// Returns a number that this thread keeps.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<usize> = Cell::new(NEXT.fetch_add(1, Ordering::Relaxed));
    }
    NUMBER.with(Cell::get)
}

/// Serves reads for callers, as the body of a thread.
pub(super) fn serve(worker: &Worker<Read, Option<Stored>>, opening: &Opening) {
    let mut reader = None;
    loop {
        match worker.queue().take(1, None) {
            Taken::Jobs(jobs) => {
                let answers: Vec<_> = jobs
                    .into_iter()
                    .map(|(number, read)| (number, opening.read(&mut reader, read)))
                    .collect();
                worker.queue().answer(answers);
            }
            Taken::Idle => {}
            Taken::Closed => return,
        }
    }
}

/// Where reads happen.
pub(super) enum Reading {
    /// In the caller's thread.
    Inline(Readers),
    /// In separate threads.
    Threads(Arc<Queue<Read, Option<Stored>>>),
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::path::Path;

    use super::super::schema::open_writer;
    use super::super::synchronous::Synchronous;
    use super::*;

    fn readers() -> Readers {
        Readers::new(Opening {
            path: PathBuf::new(),
            file: FileIdentity::of(Path::new("")),
            busy_timeout: Duration::ZERO,
            max_entry_len: 1,
        })
    }

    /// Threads that shared a connection would wait for each other.
    #[test]
    fn threads_are_spread_over_the_connections() {
        let readers = readers();
        let own = || std::ptr::from_ref::<Option<Reader>>(&readers.slot().unwrap()).addr();
        assert_eq!(own(), own(), "a thread keeps its connection");
        let used: HashSet<usize> =
            (0..256).map(|_| std::thread::scope(|scope| scope.spawn(own).join().unwrap())).collect();
        // Threads of other tests have numbers, too.
        assert!(used.len() * 2 > readers.slots.len(), "{} of {}", used.len(), readers.slots.len());
    }

    #[test]
    fn a_connection_in_use_is_passed_over_while_there_is_a_free_one() {
        let readers = readers();
        let held: Vec<_> = (0..readers.slots.len()).map(|_| readers.slot().unwrap()).collect();
        let used: HashSet<usize> =
            held.iter().map(|slot| std::ptr::from_ref::<Option<Reader>>(slot).addr()).collect();
        assert_eq!(used.len(), readers.slots.len());
    }

    #[test]
    fn a_connection_looks_for_its_file_ten_times_a_second() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sessions.db");
        std::fs::write(&path, "").unwrap();
        let patience = Duration::from_secs(120);
        let writer = open_writer(&path, Synchronous::Normal, patience, 1_000).unwrap();
        let file = FileIdentity::of(&path);
        let opening = Opening { path: path.clone(), file, busy_timeout: patience, max_entry_len: 1_000 };
        let mut reader: Option<Reader> = None;
        let mut read_when = |checked: Option<Instant>| {
            if let (Some(reader), Some(checked)) = (&mut reader, checked) {
                reader.checked = checked;
            }
            opening.read(&mut reader, Read { id: [7; 16], now: Timestamp::from_unix(1), is_list: false })
        };
        assert_eq!(read_when(None), Ok(None));
        std::fs::rename(&path, folder.path().join("moved.db")).unwrap();
        let now = Instant::now();
        assert_eq!(read_when(now.checked_add(Duration::from_secs(3_600))), Ok(None));
        assert_eq!(read_when(now.checked_sub(CHECK_EVERY)), Err(Failure::Moved));
        drop(writer);
    }
}
