//! Sessions in the memory of this process: for tests, and for services of a single process.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use bytes::Bytes;

use super::backend::RETENTION;
use super::server::ServerStore;
use super::{Backend, Builder, Replaced, Stored};
use crate::clock::{Clock, Timestamp};
use crate::error::Error;
use crate::id::EntryId;
use crate::lock::lock;

/// A store that keeps sessions in memory, under the same contract as any server-side store. They end with the process.
///
/// # Limits
///
/// An entry takes about 150 bytes beside its value. As in every backend, an expired entry is kept for another quarter of an
/// hour, for requests that loaded its session in time. Then a background thread frees it, in small steps, whether or not
/// there are requests. The store's clock decides. A request waits for a few of them at most.
///
/// # Examples
///
/// ```
/// use http::{Request, Response};
/// use hyper::service::Service;
/// use hyper_session::{Error, MemoryStore, SessionHandle, session_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Error> {
/// let store = MemoryStore::builder().build()?;
/// let service = session_fn(store.clone(), |_: Request<()>, session: SessionHandle| async move {
///     session.load().await?.login("ada")?;
///     Ok::<_, Error>(Response::new(()))
/// });
/// service.call(Request::new(())).await?;
/// assert_eq!(store.sessions_of("ada").await?.len(), 1);
/// # Ok(())
/// # }
/// ```
pub type MemoryStore = ServerStore<Memory>;

impl MemoryStore {
    /// Returns a builder for a store in memory.
    pub fn builder() -> Builder<Memory> {
        Self::with_backend(Memory::new())
    }
}

/// The backend of [`MemoryStore`].
///
/// The `now` of each call decides whether an entry has expired. Its memory is freed by the earliest clock of the stores
/// that use this backend: a test that moves a [fake clock](crate::testing::FakeClock) moves both.
pub struct Memory {
    shared: Arc<Shared>,
}

/// The number of parts the entries are divided into, so that requests rarely wait for each other.
const SHARDS: usize = 64;

/// How many expired entries are freed while a shard is locked: some microseconds.
const BATCH: usize = 32;

/// How many expired entries a request frees when it creates one. The background thread frees the others; this bounds
/// the memory where the thread cannot run.
const BATCH_OF_REQUEST: usize = 2;

/// How often the background thread looks for expired entries.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

struct Shared {
    shards: Box<[Mutex<Shard>]>,
    /// The clocks of the stores that use these entries.
    clocks: Mutex<Vec<Weak<dyn Clock>>>,
    has_clock: AtomicBool,
    /// True once the background thread knows of these entries.
    is_swept: AtomicBool,
}

/// Trees, since a hash map stalls one request to grow, and never gives memory back without stalling another.
#[derive(Default)]
struct Shard {
    entries: BTreeMap<EntryId, Stored>,
    /// Each entry once, ordered by the time at which its memory may be freed.
    to_free: BTreeSet<(Timestamp, EntryId)>,
}

/// Returns when the memory of an entry may be freed: some time after it expired, since a request that loaded the session in time may
/// still save it.
fn free_at(entry: &Stored) -> Timestamp {
    entry.expires.saturating_add(RETENTION)
}

/// The effect of a step on an entry.
enum Op {
    Keep,
    Put(Stored),
    Remove,
}

impl Shard {
    fn put(&mut self, id: EntryId, entry: Stored) {
        let after = free_at(&entry);
        let before = self.entries.insert(id, entry).map(|before| free_at(&before));
        if before == Some(after) {
            return;
        }
        self.to_free.insert((after, id));
        if let Some(before) = before {
            self.to_free.remove(&(before, id));
        }
    }

    fn remove(&mut self, id: EntryId) {
        if let Some(entry) = self.entries.remove(&id) {
            self.to_free.remove(&(free_at(&entry), id));
        }
    }

    fn is_due(&self, now: Timestamp) -> bool {
        self.to_free.first().is_some_and(|(free_at, _)| *free_at <= now)
    }

    /// Frees up to `most` entries that have expired at `now`. Returns true if there may be more.
    fn free(&mut self, now: Timestamp, most: usize) -> bool {
        for _ in 0..most {
            match self.to_free.first() {
                Some(&(free_at, id)) if free_at <= now => self.remove(id),
                _ => return false,
            }
        }
        true
    }
}

impl Shared {
    fn shard(&self, id: EntryId) -> Result<MutexGuard<'_, Shard>, Error> {
        let [first, ..] = id.to_bytes();
        let shard = self.shards.get(usize::from(first) % SHARDS);
        shard.map(lock).ok_or_else(|| Error::unavailable("an entry id leads to no shard"))
    }

    /// Returns the earliest time of the stores' clocks: an entry that has expired by then has expired for each store.
    fn time(&self) -> Option<Timestamp> {
        let clocks: Vec<_> = lock(&self.clocks).iter().filter_map(Weak::upgrade).collect();
        clocks.iter().map(Clock::now).min()
    }

    /// Frees all expired entries in small steps: one batch of each shard after the other, so that requests can use the
    /// other shards meanwhile, and this one before its next batch.
    fn sweep(&self) {
        let Some(now) = self.time() else { return };
        let mut due: Vec<_> = self.shards.iter().collect();
        while !due.is_empty() {
            due.retain(|shard| lock(shard).free(now, BATCH));
        }
    }
}

impl Memory {
    /// Creates a backend without entries.
    pub fn new() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        let no = || AtomicBool::new(false);
        let shared = Shared { shards, clocks: Mutex::default(), has_clock: no(), is_swept: no() };
        Self { shared: Arc::new(shared) }
    }

    /// Runs one atomic step on the entry of `id`. The step sees the entry only if it has not expired.
    fn step<R>(
        &self,
        id: EntryId,
        now: Timestamp,
        step: impl FnOnce(Option<&Stored>) -> (R, Op),
    ) -> Result<R, Error> {
        let mut shard = self.shared.shard(id)?;
        let present = shard.entries.get(&id);
        let (result, op) = step(present.filter(|stored| stored.expires > now));
        match op {
            Op::Keep => {}
            Op::Put(stored) => shard.put(id, stored),
            Op::Remove => shard.remove(id),
        }
        Ok(result)
    }
}

impl Backend for Memory {
    async fn fetch(&self, id: EntryId, now: Timestamp) -> Result<Option<Stored>, Error> {
        self.step(id, now, |present| (present.cloned(), Op::Keep))
    }

    async fn create(&self, id: EntryId, entry: Stored, now: Timestamp) -> Result<bool, Error> {
        if self.shared.has_clock.load(Ordering::Relaxed) {
            sweeper::register(&self.shared);
        }
        if self.shared.shard(id)?.is_due(now) {
            let now = self.shared.time().map_or(now, |time| time.min(now));
            self.shared.shard(id)?.free(now, BATCH_OF_REQUEST);
        }
        self.step(id, now, |present| match present {
            Some(present) => (present.value == entry.value, Op::Keep),
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
            None => (Replaced::Missing, Op::Keep),
            Some(current)
                if current.value == expected
                    || entry.as_ref().is_some_and(|entry| entry.value == current.value) =>
            {
                (Replaced::Done, entry.map_or(Op::Remove, Op::Put))
            }
            Some(current) => (Replaced::Conflict(current.clone()), Op::Keep),
        })
    }

    async fn touch(&self, id: EntryId, expires: Timestamp, now: Timestamp) -> Result<bool, Error> {
        self.step(id, now, |present| match present {
            None => (false, Op::Keep),
            Some(stored) => (true, Op::Put(Stored { expires, value: stored.value.clone() })),
        })
    }

    async fn delete(&self, id: EntryId) -> Result<(), Error> {
        self.step(id, Timestamp::MAX, |_| ((), Op::Remove))
    }

    fn __use_clock(&self, clock: &Arc<dyn Clock>) {
        {
            // Not held below: a clock that is moved holds its own lock while the entries are swept, which reads this list.
            let mut clocks = lock(&self.shared.clocks);
            clocks.retain(|clock| clock.strong_count() > 0);
            clocks.push(Arc::downgrade(clock));
        }
        self.shared.has_clock.store(true, Ordering::Relaxed);
        let shared = Arc::downgrade(&self.shared);
        clock.__when_set(Box::new(move || {
            let shared = shared.upgrade();
            shared.is_some_and(|shared| {
                shared.sweep();
                true
            })
        }));
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries: usize = self.shared.shards.iter().map(|shard| lock(shard).entries.len()).sum();
        f.debug_struct("Memory").field("entries", &entries).finish_non_exhaustive()
    }
}

/// The background thread that frees expired entries: one for all stores of the process. It needs no runtime, starts with the
/// first session, and ends after the last store.
mod sweeper {
    use super::{Arc, AtomicBool, Mutex, Ordering, SWEEP_INTERVAL, Shared, Weak, lock};

    static STORES: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());
    static RUNS: AtomicBool = AtomicBool::new(false);

    /// Registers these entries with the thread, and starts it if it does not run.
    pub(super) fn register(shared: &Arc<Shared>) {
        if shared.is_swept.load(Ordering::Relaxed) && RUNS.load(Ordering::Relaxed) {
            return;
        }
        let mut stores = lock(&STORES);
        if !shared.is_swept.swap(true, Ordering::Relaxed) {
            stores.push(Arc::downgrade(shared));
        }
        if !RUNS.swap(true, Ordering::Relaxed) {
            let thread = std::thread::Builder::new().name("session-expiry".to_owned());
            // Without a thread, requests that create sessions free expired ones.
            RUNS.store(thread.spawn(run).is_ok(), Ordering::Relaxed);
        }
    }

    fn run() {
        /// Also if an application's clock panics: the next session starts the thread again.
        struct Ends;
        impl Drop for Ends {
            fn drop(&mut self) {
                RUNS.store(false, Ordering::Relaxed);
            }
        }
        let ends = Ends;
        loop {
            std::thread::sleep(SWEEP_INTERVAL);
            let stores: Vec<_> = {
                let mut stores = lock(&STORES);
                stores.retain(|store| store.strong_count() > 0);
                if stores.is_empty() {
                    drop(ends); // before another store can be registered
                    return;
                }
                stores.clone()
            };
            for store in stores.iter().filter_map(Weak::upgrade) {
                store.sweep();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::TestClock;
    use crate::join::tests::run;
    use proptest::prelude::*;

    fn id(number: u64) -> EntryId {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        EntryId::from_bytes(bytes)
    }

    /// Asks for the time of the entries when a store begins to use it, as a clock does that is moved meanwhile.
    struct Moved(Weak<Shared>);

    impl Clock for Moved {
        fn now(&self) -> Timestamp {
            Timestamp::from_unix(1)
        }

        fn __when_set(&self, _: Box<dyn Fn() -> bool + Send + Sync>) {
            let shared = self.0.upgrade().unwrap();
            assert!(shared.clocks.try_lock().is_ok(), "a clock that is moved would wait for ever");
        }
    }

    #[test]
    fn a_clock_may_be_moved_while_a_store_is_built() {
        let memory = Memory::new();
        let clock: Arc<dyn Clock> = Arc::new(Moved(Arc::downgrade(&memory.shared)));
        memory.__use_clock(&clock);
        assert_eq!(memory.shared.time(), Some(clock.now()));
    }

    fn stored(expires: u64) -> Stored {
        Stored { value: Bytes::from_static(b"value"), expires: Timestamp::from_unix(expires) }
    }

    fn entries(memory: &Memory) -> usize {
        memory.shared.shards.iter().map(|shard| lock(shard).entries.len()).sum()
    }

    // The smallest input seen: a million sessions that expire, and one request that frees them all.
    #[test]
    fn no_request_pays_for_more_than_a_few_expired_entries() {
        let memory = Memory::new();
        let (before, after) = (Timestamp::from_unix(0), Timestamp::from_unix(10 + RETENTION.as_secs()));
        for number in 0..10_000 {
            assert!(run(memory.create(id(number), stored(10), before)).unwrap());
        }
        // There is no store, and so no clock and no thread.
        let mut left = entries(&memory);
        for number in 0..1_000 {
            assert_eq!(run(memory.fetch(id(number), after)).unwrap(), None);
            assert!(!run(memory.touch(id(number), after, after)).unwrap());
            let replaced = run(memory.replace(id(number), Bytes::new(), None, after)).unwrap();
            assert_eq!(replaced, Replaced::Missing);
            assert_eq!(entries(&memory), left, "reading frees nothing");
            assert!(run(memory.create(id(1 << 32 | number), stored(2_000), after)).unwrap());
            let now = entries(&memory);
            assert!(now + BATCH_OF_REQUEST > left && now <= left, "{left} -> {now}");
            left = now;
        }
        // Each request that creates an entry frees at least two.
        for number in 1_000..20_000 {
            assert!(run(memory.create(id(1 << 32 | number), stored(2_000), after)).unwrap());
        }
        assert_eq!(entries(&memory), 20_000, "what was left of the first ones is freed");
    }

    #[test]
    fn the_earliest_clock_of_the_stores_decides_what_is_freed() {
        let memory = Memory::new();
        let clocks = [0, 0].map(|now| Arc::new(TestClock::at(now)));
        let shared: Vec<Arc<dyn Clock>> = clocks.iter().map(|clock| Arc::clone(clock) as _).collect();
        for clock in &shared {
            memory.__use_clock(clock);
        }
        assert!(run(memory.create(id(1), stored(10), Timestamp::from_unix(0))).unwrap());
        clocks[0].set(1_000);
        memory.shared.sweep();
        // The store that is ahead frees no entry that is alive for the other store.
        assert!(run(memory.create(id(1 + 64 * 256), stored(2_000), Timestamp::from_unix(1_000))).unwrap());
        assert!(run(memory.fetch(id(1), Timestamp::from_unix(0))).unwrap().is_some());
        clocks[1].set(10 + RETENTION.as_secs() - 1);
        memory.shared.sweep();
        assert_eq!(entries(&memory), 2, "it expired at 10, and is kept for a quarter of an hour");
        clocks[1].set(10 + RETENTION.as_secs());
        memory.shared.sweep();
        assert_eq!(entries(&memory), 1);
        drop((shared, clocks));
        assert_eq!(memory.shared.time(), None, "clocks of dropped stores do not count");
    }

    proptest! {
        /// The tree of deadlines has each entry once, whatever is done to the entries.
        #[test]
        fn deadlines_follow_their_entries(
            steps in proptest::collection::vec((0..4_u8, 0..6_u64, 0..20_u64, 0..20_u64), 1..60),
        ) {
            let memory = Memory::new();
            for (verb, number, expires, now) in steps {
                let (id, now) = (id(number << 8), Timestamp::from_unix(now));
                match verb {
                    0 => drop(run(memory.create(id, stored(expires), now)).unwrap()),
                    1 => drop(run(memory.replace(id, stored(0).value, Some(stored(expires)), now)).unwrap()),
                    2 => drop(run(memory.touch(id, Timestamp::from_unix(expires), now)).unwrap()),
                    _ => run(memory.delete(id)).unwrap(),
                }
                for shard in &memory.shared.shards {
                    let shard = lock(shard);
                    let deadlines: BTreeSet<_> =
                        shard.entries.iter().map(|(id, entry)| (free_at(entry), *id)).collect();
                    prop_assert_eq!(&deadlines, &shard.to_free);
                }
            }
        }
    }
}
