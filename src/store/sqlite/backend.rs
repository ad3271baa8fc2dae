//! The five primitives on a file: reads happen in the caller's thread, writes in the writing thread.

use std::fmt;
use std::sync::Arc;
use std::thread::{self, ThreadId};

use bytes::Bytes;

use super::fault::Failure;
use super::queue::Queue;
use super::readers::{Read, Reading};
use super::stats::{Counters, SqliteStats};
use super::writer::{Answer, Step, Write};
use crate::clock::Timestamp;
use crate::error::{Error, Kind};
use crate::id::EntryId;
use crate::store::{Backend, Replaced, Stored};

/// The [`Backend`] behind [`SqliteStore`](crate::SqliteStore).
///
/// Dropping it closes the file, after the writes that are under way.
pub struct Sqlite {
    /// None while it is being dropped: the reading connections close first, so that the writing connection removes the log.
    pub(super) reading: Option<Reading>,
    pub(super) writes: Arc<Queue<Write, Answer>>,
    pub(super) writer: ThreadId,
    pub(super) max_entry_len: usize,
    pub(super) counters: Arc<Counters>,
}

impl Sqlite {
    /// Returns the figures since the store was opened.
    pub fn stats(&self) -> SqliteStats {
        SqliteStats::of(&self.counters)
    }

    async fn write(&self, id: EntryId, step: Step) -> Result<Answer, Error> {
        let write = Write { id: id.to_bytes(), step };
        let size = write.size();
        Ok(self.writes.call(write, size).await?)
    }

    async fn read(&self, read: Read) -> Result<Option<Stored>, Error> {
        let found = match &self.reading {
            // SQLite does not allow that a connection is used in a process that was forked.
            Some(Reading::Inline(_)) if self.writes.is_forked() => Err(Failure::Stopped),
            Some(Reading::Inline(readers)) => readers.read(read),
            Some(Reading::Threads(queue)) => queue.call(read, size_of::<Read>()).await,
            None => Err(Failure::Stopped),
        };
        if found.is_err() {
            Counters::add(&self.counters.failures, 1);
        }
        Ok(found?)
    }
}

impl Backend for Sqlite {
    async fn fetch(&self, id: EntryId, now: Timestamp) -> Result<Option<Stored>, Error> {
        self.read(Read { id: id.to_bytes(), now, is_list: false }).await
    }

    async fn __fetch_list(&self, id: EntryId, now: Timestamp) -> Result<Option<Stored>, Error> {
        self.read(Read { id: id.to_bytes(), now, is_list: true }).await
    }

    async fn create(&self, id: EntryId, entry: Stored, now: Timestamp) -> Result<bool, Error> {
        self.__check_len(entry.value.len())?;
        done(&self.write(id, Step::Create { entry, now }).await?)
    }

    async fn replace(
        &self,
        id: EntryId,
        expected: Bytes,
        entry: Option<Stored>,
        now: Timestamp,
    ) -> Result<Replaced, Error> {
        let step = match entry {
            Some(entry) => {
                // A list that was written under a higher limit shrinks, and its sessions are flagged.
                if entry.value.len() > expected.len() {
                    self.__check_len(entry.value.len())?;
                }
                Step::Replace { expected, entry, now }
            }
            None => Step::DeleteIf { expected, now },
        };
        match self.write(id, step).await? {
            Answer::Replaced(replaced) => Ok(replaced),
            Answer::Done(_) => Err(Error::new(Kind::Internal("an answer to another primitive"))),
        }
    }

    async fn touch(&self, id: EntryId, expires: Timestamp, now: Timestamp) -> Result<bool, Error> {
        done(&self.write(id, Step::Touch { expires, now }).await?)
    }

    async fn delete(&self, id: EntryId) -> Result<(), Error> {
        done(&self.write(id, Step::Delete).await?).map(drop)
    }

    fn __check_len(&self, size: usize) -> Result<(), Error> {
        let limit = self.max_entry_len;
        if size > limit { Err(Error::new(Kind::EntryTooLarge { size, limit })) } else { Ok(()) }
    }
}

fn done(answer: &Answer) -> Result<bool, Error> {
    match answer {
        Answer::Done(done) => Ok(*done),
        Answer::Replaced(_) => Err(Error::new(Kind::Internal("an answer to another primitive"))),
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        if self.writes.is_forked() {
            // Neither locks nor connections may be touched, and closing a connection touches it.
            std::mem::forget(self.reading.take());
            return;
        }
        if let Some(Reading::Threads(queue)) = self.reading.take() {
            queue.close();
        }
        self.writes.close();
        // The writing thread may hold the last reference for a moment, if the caller that it wakes is gone.
        if thread::current().id() != self.writer {
            self.writes.wait_for_workers();
        }
    }
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqlite").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Wake, Waker};
    use std::time::Duration;

    use super::super::queue::Taken;
    use super::*;
    use crate::SqliteStore;
    use crate::clock::{Clock, SystemClock};

    /// Wakes the thread that waits for a future.
    struct Unpark(thread::Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    fn block_on<F: Future>(future: F) -> F::Output {
        let waker = Arc::new(Unpark(thread::current())).into();
        let mut future = pin!(future);
        loop {
            match future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(output) => return output,
                Poll::Pending => thread::park(),
            }
        }
    }

    /// A session list that was written under a higher limit is flagged and shrinks.
    #[test]
    fn a_value_beyond_the_limit_is_replaced_by_one_that_is_not_longer() {
        let folder = tempfile::tempdir().unwrap();
        let builder =
            SqliteStore::builder(folder.path().join("sessions.db")).busy_timeout(Duration::from_secs(120));
        let mut sqlite = builder.kind.open().unwrap();
        let now = SystemClock.now();
        let id = EntryId::from_bytes([7; 16]);
        let stored = |len| Stored {
            value: Bytes::from(vec![7; len]),
            expires: now.saturating_add(Duration::from_secs(3_600)),
        };
        assert!(block_on(sqlite.create(id, stored(100), now)).unwrap());
        sqlite.max_entry_len = 50;
        for (from, to, fits) in
            [(100, 101, false), (100, 100, true), (100, 99, true), (99, 50, true), (50, 51, false)]
        {
            let replaced = block_on(sqlite.replace(id, stored(from).value, Some(stored(to)), now));
            match replaced {
                Ok(replaced) => assert!(fits && replaced == Replaced::Done, "{from} to {to}"),
                Err(error) => assert!(!fits && error.is_too_large(), "{from} to {to}"),
            }
        }
        let other = EntryId::from_bytes([8; 16]);
        assert!(block_on(sqlite.create(other, stored(51), now)).unwrap_err().is_too_large());
        assert!(block_on(sqlite.create(other, stored(50), now)).unwrap());
        drop(sqlite);
    }

    /// The reading connections of a forked process are those of the process that it was forked from.
    #[test]
    fn a_process_that_was_forked_reads_nothing_and_leaves_the_file_open() {
        let folder = tempfile::tempdir().unwrap();
        let mut sqlite = SqliteStore::builder(folder.path().join("sessions.db")).kind.open().unwrap();
        let read = |sqlite: &Sqlite| {
            let fetch = pin!(sqlite.fetch(EntryId::from_bytes([7; 16]), SystemClock.now()));
            let Poll::Ready(found) = fetch.poll(&mut Context::from_waker(Waker::noop())) else {
                panic!("it is read in this thread")
            };
            found
        };
        assert_eq!(read(&sqlite).unwrap(), None);
        let mut forked = Queue::new(Duration::from_secs(5));
        forked.process ^= 1;
        let forked = Arc::new(forked);
        let writes = std::mem::replace(&mut sqlite.writes, Arc::clone(&forked));
        assert!(read(&sqlite).unwrap_err().is_unavailable());
        drop(sqlite);
        assert!(matches!(forked.take(1, Some(Duration::ZERO)), Taken::Idle), "it was not closed");
        writes.close();
        writes.wait_for_workers();
    }
}
