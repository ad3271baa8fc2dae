//! A bounded cache of opened entries, into which nothing goes that changed between the question and the answer.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Instant;

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::Lease;
use crate::event::{EventKind, NearCacheEmptied, Reporter};
use crate::id::EntryId;
use crate::lock::lock;
use crate::session::Record;
use crate::store::server::session_list::SessionList;

pub(crate) struct RecordCache {
    entries: Cache<EntryId, Arc<Kept>, EntryWeigher>,
    stripes: Box<[Stripe]>,
    emptied: AtomicU64,
    /// Known once the store is built.
    reporter: OnceLock<Reporter>,
}

/// An entry as it was decoded.
pub(crate) enum OpenedEntry {
    Session {
        record: Record,
        /// The session list that must name the session, if lists are checked.
        list: Option<EntryId>,
    },
    List(SessionList),
}

/// An opened entry, which counts while the lease of its connection lasts.
pub(crate) struct Kept {
    opened: OpenedEntry,
    lease: Arc<Lease>,
    epoch: u64,
    weight: u64,
}

/// The permission to keep an entry that is being fetched, unless it changes meanwhile.
pub struct Ticket {
    cache: Arc<RecordCache>,
    lease: Arc<Lease>,
    id: EntryId,
    epoch: u64,
    changes: u64,
}

/// The state of all ids that share it. A separate cache line for each, since every read counts.
#[repr(align(64))]
#[derive(Default)]
struct Stripe {
    /// The number of changes of the entries with one of these ids.
    changes: Mutex<u64>,
    hits: AtomicU64,
    misses: AtomicU64,
}

const STRIPES: usize = 1024;

/// The bytes that a session takes beside its values: the record, its index, its token, and its place in the cache.
const OVERHEAD: u64 = 640;

/// Figures since the cache was made.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    pub(crate) emptied: u64,
    pub(crate) entries: u64,
}

#[derive(Clone)]
struct EntryWeigher;

impl Weighter<EntryId, Arc<Kept>> for EntryWeigher {
    fn weight(&self, _: &EntryId, kept: &Arc<Kept>) -> u64 {
        kept.weight
    }
}

impl RecordCache {
    /// Creates a cache that takes at most this many bytes.
    pub(crate) fn new(bytes: u64) -> Self {
        let likely = usize::try_from(bytes / (2 * OVERHEAD)).unwrap_or(usize::MAX);
        Self {
            entries: Cache::with_weighter(likely.max(1), bytes, EntryWeigher),
            stripes: (0..STRIPES).map(|_| Stripe::default()).collect(),
            emptied: AtomicU64::new(0),
            reporter: OnceLock::new(),
        }
    }

    /// Sets where events go.
    pub(crate) fn report_to(&self, reporter: Reporter) {
        // A cache belongs to one store.
        let _ = self.reporter.set(reporter);
    }

    /// Returns an entry that the backend would return, too, or would have returned at most the lease's bound ago.
    pub(crate) fn get(&self, id: EntryId) -> Option<Arc<Kept>> {
        let now = Instant::now();
        let found = self.entries.get(&id)?;
        if !found.lease.covers(now) {
            return None;
        }
        // Which lease to ask is known only from the entry. Changes that the lease vouches for, but that came in after the
        // first look, have removed the entry by now.
        let kept = self.entries.peek(&id)?;
        (Arc::ptr_eq(&kept, &found) && kept.epoch == kept.lease.epoch()).then_some(kept)
    }

    /// Counts a load of this session.
    pub(crate) fn count(&self, id: EntryId, hit: bool) {
        let stripe = self.stripe(id);
        (if hit { &stripe.hits } else { &stripe.misses }).fetch_add(1, Ordering::Relaxed);
    }

    /// Returns a ticket for an entry that is about to be fetched over the connection of `lease`.
    pub(crate) fn ticket(self: &Arc<Self>, id: EntryId, lease: &Arc<Lease>) -> Ticket {
        let epoch = lease.epoch();
        let changes = *self.changes(id);
        Ticket { cache: Arc::clone(self), lease: Arc::clone(lease), id, epoch, changes }
    }

    /// Drops an entry that has changed, and voids the tickets for it.
    pub(crate) fn invalidate(&self, id: EntryId) {
        let mut changes = self.changes(id);
        *changes = changes.wrapping_add(1);
        // Under the lock, so that no ticket from before is used after it.
        self.entries.remove(&id);
    }

    /// Drops the entry again when this process has written it, whether or not the write is acknowledged: a later load
    /// must see it, and the report of the write may take longer than its reply.
    pub(crate) fn writing(&self, id: EntryId) -> Writing<'_> {
        Writing { cache: self, id }
    }

    /// Drops all entries of a lease whose epoch has ended, and reports why.
    pub(crate) fn empty(&self, lease: &Arc<Lease>, why: NearCacheEmptied) {
        self.entries.retain(|_, kept| !Arc::ptr_eq(&kept.lease, lease));
        self.emptied.fetch_add(1, Ordering::Relaxed);
        if let Some(reporter) = self.reporter.get() {
            reporter.report(EventKind::NearCacheEmptied { why });
        }
    }

    pub(crate) fn figures(&self) -> Figures {
        let sum = |count: fn(&Stripe) -> &AtomicU64| {
            self.stripes.iter().map(|stripe| count(stripe).load(Ordering::Relaxed)).sum()
        };
        Figures {
            hits: sum(|stripe| &stripe.hits),
            misses: sum(|stripe| &stripe.misses),
            emptied: self.emptied.load(Ordering::Relaxed),
            entries: u64::try_from(self.entries.len()).unwrap_or(u64::MAX),
        }
    }

    fn changes(&self, id: EntryId) -> MutexGuard<'_, u64> {
        lock(&self.stripe(id).changes)
    }

    #[allow(clippy::indexing_slicing)] // there are STRIPES
    fn stripe(&self, id: EntryId) -> &Stripe {
        let [first, second, ..] = id.to_bytes();
        &self.stripes[usize::from(u16::from_be_bytes([first, second])) % STRIPES]
    }
}

impl Kept {
    pub(crate) fn opened(&self) -> &OpenedEntry {
        &self.opened
    }
}

impl Ticket {
    /// Keeps the entry, unless a change was reported since the ticket was made. `len` is the length of its value.
    pub(crate) fn keep(self, opened: OpenedEntry, len: usize) {
        let index = match &opened {
            OpenedEntry::Session { record, .. } => record.payload().index_size(),
            OpenedEntry::List(_) => 0,
        };
        // The value, and its plaintext if it is sealed. An index of many tiny values is larger than both.
        let bytes = len.saturating_mul(2).saturating_add(index);
        let weight = OVERHEAD.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        let Self { cache, lease, id, epoch, changes } = self;
        let now = cache.changes(id);
        if *now == changes && lease.epoch() == epoch {
            cache.entries.insert(id, Arc::new(Kept { opened, lease, epoch, weight }));
        }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").finish_non_exhaustive()
    }
}

/// A write of this process. Dropping it, at its end or before, invalidates the entry.
pub(crate) struct Writing<'a> {
    cache: &'a RecordCache,
    id: EntryId,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.cache.invalidate(self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    use super::*;
    use crate::clock::Timestamp;
    use crate::session::{Origin, Payload, PayloadFormat, SessionId};

    const ID: EntryId = EntryId::from_bytes([7; 16]);

    fn lease() -> Arc<Lease> {
        let lease = Arc::new(Lease::new());
        lease.extend(lease.epoch(), Instant::now() + Duration::from_secs(3600));
        lease
    }

    /// A session whose version is the second in which it began.
    fn version(second: u64) -> OpenedEntry {
        let at = Timestamp::from_unix(second);
        let record =
            Record::new(SessionId::from_bytes([7; 16]), at, at, Payload::default(), Origin::native(false));
        OpenedEntry::Session { record, list: None }
    }

    fn seen(cache: &RecordCache) -> Option<u64> {
        match cache.get(ID)?.opened() {
            OpenedEntry::Session { record, .. } => Some(record.created().as_unix()),
            OpenedEntry::List(_) => None,
        }
    }

    #[test]
    fn an_entry_that_changed_while_it_was_fetched_is_not_kept() {
        let (cache, lease) = (Arc::new(RecordCache::new(1 << 20)), lease());
        cache.ticket(ID, &lease).keep(version(1), 100);
        assert_eq!(seen(&cache), Some(1));
        let late = cache.ticket(ID, &lease);
        cache.invalidate(ID);
        assert_eq!(seen(&cache), None);
        late.keep(version(1), 100);
        assert_eq!(seen(&cache), None, "the answer is from before the change");
        cache.ticket(ID, &lease).keep(version(2), 100);
        assert_eq!(seen(&cache), Some(2));
        drop(cache.writing(ID));
        assert_eq!(seen(&cache), None, "this process wrote it");
    }

    #[test]
    fn entries_count_as_long_as_their_lease() {
        let (cache, short, other) = (Arc::new(RecordCache::new(1 << 20)), lease(), lease());
        let late = cache.ticket(ID, &short);
        cache.ticket(ID, &short).keep(version(1), 100);
        // The lease lapses.
        short.extend(short.epoch(), Instant::now());
        assert_eq!(seen(&cache), None);
        // It lasts again, and its entries with it: the connection had only been slow.
        short.extend(short.epoch(), Instant::now() + Duration::from_secs(3600));
        assert_eq!(seen(&cache), Some(1));
        // Reports may have been missed.
        assert!(short.end());
        short.extend(short.epoch(), Instant::now() + Duration::from_secs(3600));
        assert_eq!(seen(&cache), None);
        late.keep(version(1), 100);
        assert_eq!(seen(&cache), None, "it was asked for before");
        // Of two servers, the loss of one empties its own entries only.
        let second = EntryId::from_bytes([8; 16]);
        cache.ticket(ID, &short).keep(version(2), 100);
        cache.ticket(second, &other).keep(version(3), 100);
        short.end();
        cache.empty(&short, NearCacheEmptied::Lost);
        assert!(cache.get(second).is_some());
        let figures = cache.figures();
        assert_eq!((figures.entries, figures.emptied), (1, 1));
    }

    /// Ids that share a stripe wait for each other, and a change of one voids the tickets of all.
    #[test]
    fn ids_are_spread_over_all_stripes() {
        let cache = RecordCache::new(1 << 20);
        let stripes: std::collections::HashSet<usize> = (0..=u16::MAX)
            .map(|number| {
                let id = EntryId::from_bytes((u128::from(number) << 112).to_be_bytes());
                std::ptr::from_ref(cache.stripe(id)).addr()
            })
            .collect();
        assert_eq!(stripes.len(), STRIPES);
    }

    #[test]
    fn loads_are_counted_by_what_answered_them() {
        let cache = RecordCache::new(1 << 20);
        for (number, hit) in [(1, true), (2, true), (3, false), (1, true)] {
            cache.count(EntryId::from_bytes([number; 16]), hit);
        }
        let figures = cache.figures();
        assert_eq!((figures.hits, figures.misses, figures.entries, figures.emptied), (3, 1, 0, 0));
    }

    #[test]
    fn the_cache_is_bounded_by_bytes() {
        let (cache, lease) = (Arc::new(RecordCache::new(1 << 20)), lease());
        for number in 0..100_000_u128 {
            let id = EntryId::from_bytes((number << 64 | number).to_be_bytes());
            cache.ticket(id, &lease).keep(version(1), 500);
        }
        let entries = cache.figures().entries;
        assert!((1..700).contains(&entries), "{entries}");
    }

    /// The index of a value takes four times as many bytes as the shortest value.
    #[test]
    fn the_cache_is_bounded_by_bytes_whatever_the_number_of_values_is() {
        const VALUES: usize = 10_000;
        let keys: Vec<String> = (0..VALUES).map(|number| format!("{number:04}")).collect();
        let values = keys.iter().map(|key| (key.as_str(), Some(&b"\x01"[..])));
        let payload = Payload::merge(None, values).unwrap();
        let len = payload.to_format(PayloadFormat::MessagePack).unwrap().len();
        let at = Timestamp::from_unix(1);
        let max = 1 << 23;
        let (cache, lease) = (Arc::new(RecordCache::new(max)), lease());
        for number in 0..1_000_u128 {
            let id = EntryId::from_bytes((number << 64 | number).to_be_bytes());
            let payload = Payload::merge(Some(&payload), std::iter::empty()).unwrap();
            let record = Record::new(SessionId::from_bytes([7; 16]), at, at, payload, Origin::native(false));
            cache.ticket(id, &lease).keep(OpenedEntry::Session { record, list: None }, len);
        }
        let entries = usize::try_from(cache.figures().entries).unwrap();
        // Twelve bytes for each value, beside the values and their plaintext.
        let bytes = entries * (2 * len + 12 * VALUES);
        assert!((1..=1 << 23).contains(&bytes), "{entries} entries, {bytes} bytes");
    }

    /// A hundred thousand changes while other threads fetch and keep: what is read afterwards is never older than a change
    /// that was reported.
    #[test]
    fn no_reader_sees_what_was_invalidated_before() {
        let (cache, lease) = (Arc::new(RecordCache::new(1 << 20)), lease());
        let (stored, reported, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        let mut hits = 0_u64;
                        while !stop.load(Ordering::SeqCst) {
                            let floor = reported.load(Ordering::SeqCst);
                            if let Some(seen) = seen(&cache) {
                                assert!(seen >= floor, "{seen} after {floor}");
                                hits += 1;
                            } else {
                                let ticket = cache.ticket(ID, &lease);
                                let value = stored.load(Ordering::SeqCst);
                                std::thread::yield_now();
                                ticket.keep(version(value), 100);
                            }
                        }
                        hits
                    })
                })
                .collect();
            for change in 1..=100_000 {
                stored.store(change, Ordering::SeqCst);
                cache.invalidate(ID);
                reported.store(change, Ordering::SeqCst);
                if change % 64 == 0 {
                    std::thread::yield_now();
                }
            }
            stop.store(true, Ordering::SeqCst);
            let hits: u64 = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
            println!("{hits} hits");
        });
        assert!(seen(&cache).is_none_or(|seen| seen == 100_000));
    }
}
