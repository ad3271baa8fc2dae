//! Building a `SqliteStore`: options, and opening the file.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use super::backend::Sqlite;
use super::fault::Failure;
use super::process_lock::ProcessLock;
use super::queue::{Queue, Worker};
use super::readers::{Opening, Read, Readers, Reading, serve};
use super::schema::{ROW, open_writer, opening, unusable};
use super::stats::Counters;
use super::synchronous::Synchronous;
use super::writer::{Answer, Write, Writer};
use crate::clock::{Clock, SystemClock};
use crate::error::Error;
use crate::file_identity::FileIdentity;
use crate::sqlite_file::create_for_owner;
use crate::store::server::ServerStore;
use crate::store::{Builder, ServerKind, Stored};

/// A store that keeps sessions in one SQLite file. The cookie holds an opaque token of 256 random bits, the file a hash
/// of it.
///
/// It needs no server: SQLite is compiled in. Several processes of one machine may share the file. Loading a session
/// takes microseconds, in the caller's thread. Writes go through one thread, which commits concurrent changes together,
/// so that one sync of the disk serves many requests.
///
/// # Durability
///
/// By default, a change is on the disk before the response is sent, and survives a power cut. See [`Synchronous`].
///
/// # Failure
///
/// A write that is not done within [`busy_timeout`](Builder::busy_timeout) fails with
/// [`is_unavailable`](Error::is_unavailable). So do reads and writes while the disk is full or fails, or the file is
/// damaged or locked by another program. The [source](std::error::Error::source) gives the cause. Once the cause is
/// gone, the store works again.
///
/// # Security
///
/// Anyone who can read the file can read the sessions, unless [`seal_records`](Builder::seal_records) is on. They
/// cannot log in with it: entries are named by a hash of the token. On Unix, only its owner can read a new file.
///
/// # Limits
///
/// - The file must be on a local disk. A network file system is not safe for SQLite's write-ahead log.
/// - SQLite keeps two files beside it (`-wal` and `-shm`), and the processes that share it two more (`-lock` and `-next`). The
///   last changes are only in `-wal`. Processes of several users need rights for the file, and for the folder. The four files beside
///   it get the rights of the file when they are made. SQLite gives `-wal` and `-shm` the group of the file only as root. So set the
///   setgid bit of the folder (`chmod g+s`), and new files get the group of the folder.
/// - While a store has them open, the file, `-wal` and `-shm` must not be moved, replaced or deleted: writes then fail at once, and
///   reads within 100 ms, until they are back or the service is restarted.
/// - Space of deleted sessions is reused. The file does not shrink.
///
/// # Examples
///
/// ```
/// use hyper_session::SqliteStore;
/// use std::time::Duration;
///
/// # fn main() -> Result<(), hyper_session::Error> {
/// # let folder = std::env::temp_dir().join(format!("hyper-session-open-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder).unwrap();
/// # let path = folder.join("sessions.db");
/// let store = SqliteStore::builder(&path)
///     .idle_timeout(Duration::from_secs(30 * 60))
///     .open()?;
/// assert!(path.exists());
/// # drop(store);
/// # std::fs::remove_dir_all(folder).unwrap();
/// # Ok(())
/// # }
/// ```
///
/// A backup while the store is in use, from a shell: `sqlite3 sessions.db "VACUUM INTO 'copy.db'"`.
pub type SqliteStore = ServerStore<Sqlite>;

impl SqliteStore {
    /// Returns a builder for a store in the file at `path`, which is created if it is missing.
    pub fn builder(path: impl Into<PathBuf>) -> Builder<SqliteOptions> {
        Builder::new(SqliteOptions {
            path: path.into(),
            synchronous: Synchronous::Full,
            read_threads: 0,
            busy_timeout: Duration::from_secs(5),
            sweep_interval: Duration::from_secs(60),
            max_entry_len: 1 << 20,
            machine: Arc::new(SystemClock),
        })
    }
}

/// The options of a [`SqliteStore`], from [`SqliteStore::builder`].
pub struct SqliteOptions {
    path: PathBuf,
    synchronous: Synchronous,
    read_threads: usize,
    busy_timeout: Duration,
    sweep_interval: Duration,
    max_entry_len: usize,
    /// The machine's clock, by which expired entries are deleted.
    pub(super) machine: Arc<dyn Clock>,
}

impl ServerKind for SqliteOptions {}
impl crate::store::server_builder::sealed::Sealed for SqliteOptions {}

/// How long a read in the caller's thread may wait for another process. It blocks a runtime thread meanwhile.
const MAX_INLINE_WAIT: Duration = Duration::from_millis(250);

const MAX_READ_THREADS: usize = 256;

/// SQLite's own limit for a row.
const MAX_ROW: usize = 1_000_000_000;

impl Builder<SqliteOptions> {
    /// Sets when a change is on the disk. Default: [`Synchronous::Full`], before the response is sent.
    #[doc(alias = "fsync")]
    pub fn synchronous(mut self, synchronous: Synchronous) -> Self {
        self.kind.synchronous = synchronous;
        self
    }

    /// Sets how many threads read the file. Default: 0, which means that reads happen in the caller's thread.
    ///
    /// A read takes microseconds while the operating system has the file in memory, less than a hand-over to another
    /// thread. If the file does not fit in memory, or the disk is slow, use some threads: otherwise runtime threads
    /// wait for the disk.
    #[doc(alias = "spawn_blocking")]
    pub fn read_threads(mut self, threads: usize) -> Self {
        self.kind.read_threads = threads;
        self
    }

    /// Sets how long a call may wait: for other processes that write, and for the disk. Default: 5 seconds.
    ///
    /// A read in the caller's thread waits for other processes for at most 250 ms. Its wait for the disk is not
    /// limited; see [`read_threads`](Self::read_threads).
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.kind.busy_timeout = timeout;
        self
    }

    /// Sets how often expired entries are looked for and deleted, in steps of at most 256. Default: once a minute.
    ///
    /// An expired entry is not returned in any case. The first sweep that comes 17 to 34 minutes after it has expired frees
    /// its space.
    pub fn sweep_interval(mut self, interval: Duration) -> Self {
        self.kind.sweep_interval = interval;
        self
    }

    /// Sets the length of the longest entry in bytes. Default: 1 MiB. A longer entry is not written
    /// ([`is_too_large`](Error::is_too_large)) or read ([`is_unavailable`](Error::is_unavailable)).
    ///
    /// # Limits
    ///
    /// At most 999,999,872 bytes, and long enough for a session list of
    /// [`max_sessions_per_subject`](Self::max_sessions_per_subject) sessions (66 bytes each, and 648 more). A list that
    /// was written under a higher limit is still read, if it has at most 1 MiB.
    pub fn max_entry_len(mut self, len: usize) -> Self {
        self.kind.max_entry_len = len;
        self
    }

    /// Checks the options, opens the file, and creates it if it is missing.
    ///
    /// Blocks for the disk, some milliseconds, and needs no runtime: call it while the service starts.
    ///
    /// # Errors
    ///
    /// [`is_config`](Error::is_config) if options do not fit together, or the file cannot be used: it is read-only,
    /// damaged, belongs to another program or a newer release, or its folder is missing.
    /// [`is_unavailable`](Error::is_unavailable) if opening may succeed later: the disk is full, or another program
    /// holds a lock.
    pub fn open(self) -> Result<SqliteStore, Error> {
        let (options, builder) = self.with_kind(());
        let sqlite = options.open()?;
        let ((), builder) = builder.with_kind(sqlite);
        builder.build()
    }
}

impl SqliteOptions {
    fn check(&self) -> Result<(), Error> {
        let path = self.path.as_os_str();
        if path.is_empty() || path == ":memory:" {
            return Err(Error::config(
                "builder() takes the path of a file; for sessions in memory, use MemoryStore",
            ));
        }
        if self.busy_timeout.is_zero() || self.sweep_interval.is_zero() {
            return Err(Error::config("busy_timeout() and sweep_interval() must be more than zero"));
        }
        if self.max_entry_len == 0 || self.max_entry_len > MAX_ROW - ROW {
            return Err(Error::config(
                "max_entry_len() must be 1 to 999,999,872 bytes, which is what SQLite can store",
            ));
        }
        if self.read_threads > MAX_READ_THREADS {
            return Err(Error::config("read_threads() must be at most 256"));
        }
        Ok(())
    }

    pub(super) fn open(self) -> Result<Sqlite, Error> {
        self.check()?;
        let path = create(&self.path)?;
        let counters = Arc::new(Counters::default());
        let writes: Arc<Queue<Write, Answer>> = Arc::new(Queue::new(self.busy_timeout));
        let worker = writes.worker();
        let (opened, opening_ends) = mpsc::channel();
        let thread = {
            let (options, path, counters) = (self.writer_options(), path.clone(), Arc::clone(&counters));
            // The thread opens the file, since that waits for other processes, and for the disk.
            spawn("sqlite-writer", move || options.run(&path, counters, &worker, &opened))?
        };
        let thread = thread.thread().id();
        match opening_ends.recv_timeout(self.busy_timeout) {
            Ok(opened) => opened?,
            Err(mpsc::RecvTimeoutError::Timeout) => return Err(Failure::TimedOut.into()),
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err(Failure::Stopped.into()),
        }
        // From here on, dropping `sqlite` closes the file.
        let mut sqlite =
            Sqlite { reading: None, writes, writer: thread, max_entry_len: self.max_entry_len, counters };
        watch(&sqlite.writes)?;
        sqlite.reading = Some(self.reading(path)?);
        Ok(sqlite)
    }

    fn writer_options(&self) -> WriterOptions {
        WriterOptions {
            synchronous: self.synchronous,
            busy_timeout: self.busy_timeout,
            max_entry_len: self.max_entry_len,
            sweep_interval: self.sweep_interval,
            machine: Arc::clone(&self.machine),
        }
    }

    fn reading(&self, path: PathBuf) -> Result<Reading, Error> {
        let inline = self.read_threads == 0;
        let busy_timeout = if inline { self.busy_timeout.min(MAX_INLINE_WAIT) } else { self.busy_timeout };
        let file = FileIdentity::of(&path);
        let opening = Opening { path, file, busy_timeout, max_entry_len: self.max_entry_len };
        // An unreadable file fails now, and not at the first request.
        opening.open().map_err(|failure| unusable(&opening.path, &failure))?;
        if inline {
            return Ok(Reading::Inline(Readers::new(opening)));
        }
        let queue: Arc<Queue<Read, Option<Stored>>> = Arc::new(Queue::new(self.busy_timeout));
        for _ in 0..self.read_threads {
            let (worker, opening) = (queue.worker(), opening.clone());
            let spawned = spawn("sqlite-reader", move || serve(&worker, &opening));
            if let Err(error) = spawned {
                queue.close();
                return Err(error);
            }
        }
        if let Err(error) = watch(&queue) {
            queue.close();
            return Err(error);
        }
        Ok(Reading::Threads(queue))
    }
}

/// The options of the writing thread.
struct WriterOptions {
    synchronous: Synchronous,
    busy_timeout: Duration,
    max_entry_len: usize,
    sweep_interval: Duration,
    machine: Arc<dyn Clock>,
}

impl WriterOptions {
    /// Runs the writing thread: opens the file, reports the result, and serves.
    fn run(
        self,
        path: &Path,
        counters: Arc<Counters>,
        worker: &Worker<Write, Answer>,
        opened: &mpsc::Sender<Result<(), Error>>,
    ) {
        match self.open(path, counters) {
            Ok(writer) => {
                // If it took too long, the caller no longer waits.
                if opened.send(Ok(())).is_ok() {
                    writer.serve(worker);
                }
            }
            Err(error) => {
                let _ = opened.send(Err(error));
            }
        }
    }

    fn open(self, path: &Path, counters: Arc<Counters>) -> Result<Writer, Error> {
        let lock = ProcessLock::open(path).map_err(|(file, error)| no_lock(&file, &error))?;
        let held = lock.acquire().map_err(|error| {
            Error::config(format!(
                "the file system of {path:?} has no flock ({error}): put the file on a local disk"
            ))
        })?;
        let connection = open_writer(path, self.synchronous, self.busy_timeout, self.max_entry_len)?;
        // It fails if tables are missing or have other columns.
        Writer::check(&connection).map_err(|error| match Failure::of(&error) {
            Failure::Other(_) => unusable(path, &Failure::Damaged),
            _ => opening(path, &error),
        })?;
        drop(held);
        let Self { sweep_interval, machine, .. } = self;
        let file = FileIdentity::of(path);
        Ok(Writer { connection, file, lock, machine, sweep_interval, counters })
    }
}

/// Starts the thread that answers calls of `queue` whose time is up.
fn watch<J: Send + 'static, A: Send + 'static>(queue: &Arc<Queue<J, A>>) -> Result<(), Error> {
    let queue = Arc::clone(queue);
    spawn("sqlite-watch", move || queue.watch()).map(drop)
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<thread::JoinHandle<()>, Error> {
    thread::Builder::new().name(name.to_owned()).spawn(body).map_err(Error::unavailable)
}

/// Creates the file if it is missing, readable by its owner only. Returns its absolute path, so that a later change of the
/// working directory does not matter.
fn create(path: &Path) -> Result<PathBuf, Error> {
    create_for_owner(path).map_err(|error| no_access(path, &error))?;
    if path.is_dir() {
        return Err(Error::config(format!("{path:?} is a folder: name a file in it")));
    }
    path.canonicalize().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::config(format!(
            "the session file {path:?} is a symbolic link to a file that does not exist: mount the volume that it leads to, or \
             remove the link"
        )),
        _ => no_access(path, &error),
    })
}

/// Returns the error for a file of the lock between processes.
fn no_lock(file: &Path, error: &io::Error) -> Error {
    match no_access(file, error) {
        full if full.is_unavailable() => full,
        _ => Error::config(format!(
            "{file:?} cannot be created or opened: {error}. All processes that share the session file lock this file, so let \
             this process write it"
        )),
    }
}

fn no_access(path: &Path, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Failure::Full.into(),
        io::ErrorKind::NotFound => {
            Error::config(format!("the folder of the session file {path:?} does not exist: create it"))
        }
        _ => Error::config(format!("the session file {path:?} cannot be created or opened: {error}")),
    }
}

impl fmt::Debug for SqliteOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteOptions").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_at_their_limits_are_accepted() {
        let accepts = |set: &dyn Fn(Builder<SqliteOptions>) -> Builder<SqliteOptions>| {
            set(SqliteStore::builder("sessions.db")).kind.check().is_ok()
        };
        let threads = |threads| accepts(&|builder| builder.read_threads(threads));
        assert_eq!([0, 256, 257].map(threads), [true, true, false]);
        let len = |len| accepts(&|builder| builder.max_entry_len(len));
        assert_eq!([0, 1, 999_999_872, 999_999_873].map(len), [false, true, true, false]);
        let least = Duration::from_nanos(1);
        assert_eq!(
            [Duration::ZERO, least].map(|time| accepts(&|builder| builder.busy_timeout(time))),
            [false, true]
        );
        assert_eq!(
            [Duration::ZERO, least].map(|time| accepts(&|builder| builder.sweep_interval(time))),
            [false, true]
        );
    }

    #[test]
    fn an_error_of_the_system_is_a_mistake_unless_the_disk_is_full() {
        let path = Path::new("sessions.db");
        for (kind, said) in [
            (io::ErrorKind::StorageFull, None),
            (io::ErrorKind::QuotaExceeded, None),
            (io::ErrorKind::NotFound, Some("the folder")),
            (io::ErrorKind::PermissionDenied, Some("cannot be created or opened")),
        ] {
            let error = no_access(path, &io::Error::from(kind));
            assert_eq!(error.is_config(), said.is_some(), "{kind:?}");
            assert_eq!(error.is_unavailable(), said.is_none(), "{kind:?}");
            assert!(said.is_none_or(|said| error.to_string().contains(said)), "{error}");
            let error = no_lock(path, &io::Error::from(kind));
            assert_eq!(error.is_unavailable(), said.is_none(), "{kind:?}");
            assert_eq!(error.is_config() && error.to_string().contains("lock this file"), said.is_some());
        }
    }
}
