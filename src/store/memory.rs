//! Sessions in this process: for tests, and for tools that run alone.

use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;
use moka::Expiry;
use moka::ops::compute::Op;
use moka::sync::Cache;

use super::backend::RETENTION;
use super::{Backend, Builder, Replaced, ServerStore, Stored};
use crate::clock::Timestamp;
use crate::error::Error;
use crate::id::EntryId;

/// Keeps sessions in memory, under the same contract as any server-side store. They end with the process.
///
/// # Examples
///
/// ```
/// use hyper_session::MemoryStore;
///
/// let store = MemoryStore::builder().development().build()?;
/// # Ok::<(), hyper_session::Error>(())
/// ```
pub type MemoryStore = ServerStore<Memory>;

impl MemoryStore {
    /// A builder for a store in memory.
    pub fn builder() -> Builder<Memory> {
        Self::with_backend(Memory::new())
    }
}

/// The backend of [`MemoryStore`].
///
/// Whether an entry is over is told by the `now` that each call brings, so tests can move time. The memory of entries that
/// are over is freed by the machine's clock.
pub struct Memory {
    entries: Cache<EntryId, Entry>,
}

#[derive(Clone)]
struct Entry {
    stored: Stored,
    lifetime: Duration,
}

struct FreeWhenOver;

impl Expiry<EntryId, Entry> for FreeWhenOver {
    fn expire_after_create(&self, _: &EntryId, entry: &Entry, _: Instant) -> Option<Duration> {
        Some(entry.lifetime)
    }

    fn expire_after_update(
        &self,
        _: &EntryId,
        entry: &Entry,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(entry.lifetime)
    }
}

impl Memory {
    /// No sessions.
    pub fn new() -> Self {
        Self { entries: Cache::builder().expire_after(FreeWhenOver).build() }
    }

    /// Runs one atomic step on the entry of `id`: what it answers, and what becomes of the entry.
    fn step<R>(
        &self,
        id: EntryId,
        now: Timestamp,
        step: impl FnOnce(Option<Stored>) -> (R, Op<Stored>),
    ) -> Result<R, Error> {
        let mut answer = None;
        self.entries.entry(id).and_compute_with(|entry| {
            let present = entry.map(|entry| entry.into_value().stored).filter(|stored| stored.expires > now);
            let (result, op) = step(present);
            answer = Some(result);
            match op {
                Op::Put(stored) => {
                    // moka counts in nanoseconds from start-up: cap what it is told to free later.
                    let lifetime = stored.expires.saturating_since(now).saturating_add(RETENTION);
                    let lifetime = lifetime.min(Duration::from_secs(1 << 33));
                    Op::Put(Entry { stored, lifetime })
                }
                Op::Remove => Op::Remove,
                Op::Nop => Op::Nop,
            }
        });
        answer.ok_or_else(|| Error::unavailable("the cache did not run the step"))
    }
}

impl Backend for Memory {
    async fn fetch(&self, id: EntryId, now: Timestamp) -> Result<Option<Stored>, Error> {
        Ok(self.entries.get(&id).map(|entry| entry.stored).filter(|stored| stored.expires > now))
    }

    async fn create(&self, id: EntryId, entry: Stored, now: Timestamp) -> Result<bool, Error> {
        self.step(id, now, |present| match present {
            Some(present) => (present.value == entry.value, Op::Nop),
            None => (true, Op::Put(entry)),
        })
    }

    async fn replace(
        &self,
        id: EntryId,
        expected: Bytes,
        entry: Option<Stored>,
        now: Timestamp,
    ) -> Result<Replaced, Error> {
        self.step(id, now, |present| match present {
            None => (Replaced::Missing, Op::Nop),
            Some(current)
                if current.value == expected
                    || entry.as_ref().is_some_and(|entry| entry.value == current.value) =>
            {
                (Replaced::Done, entry.map_or(Op::Remove, Op::Put))
            }
            Some(current) => (Replaced::Conflict(current), Op::Nop),
        })
    }

    async fn touch(&self, id: EntryId, expires: Timestamp, now: Timestamp) -> Result<bool, Error> {
        self.step(id, now, |present| match present {
            None => (false, Op::Nop),
            Some(stored) => (true, Op::Put(Stored { expires, ..stored })),
        })
    }

    async fn delete(&self, id: EntryId) -> Result<(), Error> {
        // Not `invalidate`: it does not wait for a step that is running on the same entry, and would be undone by it.
        self.step(id, Timestamp::MAX, |_| ((), Op::Remove))
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("entries", &self.entries.entry_count()).finish_non_exhaustive()
    }
}
