//! The exact set of revocations: read without locks, without allocations, and without a write to shared memory.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use arc_swap::{ArcSwap, Guard};

use super::revocation::{Key, Mark};

use crate::lock::lock;

/// The number of parts. Each grows separately, so that an insert copies a 64th of the set at most.
const PARTS: usize = 64;

/// A map from [`Key`] to [`Mark`] with one writer at a time and any number of readers.
///
/// Readers load one pointer and then plain atomics, which the processor keeps in each core's cache until a writer changes
/// them. A mark takes 25 bytes and its share of the free buckets: 36 to 45 in all.
pub(super) struct Set {
    parts: ArcSwap<Parts>,
    writer: Mutex<()>,
    len: AtomicUsize,
    /// Mixed into the hash: a client that chooses its own name cannot choose the bucket.
    seed: [u64; 2],
}

type Parts = [Arc<Table>; PARTS];

/// A view of the set for the names of one session.
pub(super) struct View {
    parts: Guard<Arc<Parts>>,
    seed: [u64; 2],
}

/// Open addressing over groups of eight buckets, of which eight tags fit one word.
struct Table {
    /// A tag for each bucket: zero if it is free, otherwise seven bits of the hash and a one above them.
    tags: Box<[AtomicU64]>,
    buckets: Box<[Bucket]>,
    used: AtomicUsize,
}

#[derive(Default)]
struct Bucket {
    high: AtomicU64,
    low: AtomicU64,
    mark: AtomicU64,
}

const ONES: u64 = 0x0101_0101_0101_0101;
const TOPS: u64 = 0x8080_8080_8080_8080;
const GROUP: usize = 8;

impl Set {
    pub(super) fn new(seed: [u64; 2]) -> Self {
        let parts = std::array::from_fn(|_| Arc::new(Table::new(1)));
        let parts = ArcSwap::from_pointee(parts);
        Self { parts, writer: Mutex::new(()), len: AtomicUsize::new(0), seed }
    }

    #[inline]
    pub(super) fn view(&self) -> View {
        View { parts: self.parts.load(), seed: self.seed }
    }

    /// Returns how many keys there are.
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Adds `mark`. A mark that is already there under that key stays in force.
    pub(super) fn insert(&self, key: Key, mark: Mark) {
        let writer = self.lock();
        self.insert_locked(&writer, key, mark);
    }

    fn insert_locked(&self, _: &MutexGuard<'_, ()>, key: Key, mark: Mark) {
        let hash = hash(key, self.seed);
        let parts = self.parts.load();
        let Some(table) = parts.get(part(hash)) else { return };
        if let Some(bucket) = table.find(key, hash) {
            let both = Mark::from_bits(bucket.mark.load(Ordering::Relaxed)).and(mark);
            bucket.mark.store(both.to_bits(), Ordering::Release);
            return;
        }
        self.len.fetch_add(1, Ordering::Relaxed);
        if table.has_room() {
            table.add(key, hash, mark);
            return;
        }
        let larger = table.rebuilt(table.tags.len() + table.tags.len().div_ceil(4), self.seed, |_| true);
        larger.add(key, hash, mark);
        self.replace(&parts, part(hash), larger);
    }

    /// Forgets the marks that `keep` rejects. Readers continue meanwhile; writers wait for one part at a time.
    pub(super) fn retain(&self, keep: impl Fn(Mark) -> bool) {
        for at in 0..PARTS {
            let _writer = self.lock();
            let parts = self.parts.load();
            let Some(table) = parts.get(at) else { return };
            let kept = table.marks().filter(|(_, mark)| keep(*mark)).count();
            let before = table.used.load(Ordering::Relaxed);
            if kept == before {
                continue;
            }
            let smaller = table.rebuilt(Table::groups_for(kept), self.seed, &keep);
            self.replace(&parts, at, smaller);
            self.len.fetch_sub(before - kept, Ordering::Relaxed);
        }
    }

    /// Returns all keys and marks, one part after the other.
    pub(super) fn marks(&self) -> Vec<(Key, Mark)> {
        let parts = self.parts.load();
        parts.iter().flat_map(|table| table.marks()).collect()
    }

    fn replace(&self, parts: &Parts, at: usize, table: Table) {
        let mut parts = parts.clone();
        if let Some(part) = parts.get_mut(at) {
            *part = Arc::new(table);
        }
        self.parts.store(Arc::new(parts));
    }

    /// Locks the set for a writer. No foreign code runs under this lock, so poisoning is harmless.
    fn lock(&self) -> MutexGuard<'_, ()> {
        lock(&self.writer)
    }

    /// Returns the number of bytes that the set holds.
    #[cfg(test)]
    fn size(&self) -> usize {
        let buckets: usize = self.parts.load().iter().map(|table| table.buckets.len()).sum();
        buckets * (1 + size_of::<Bucket>())
    }
}

impl View {
    /// Returns the mark of `key`, if there is one.
    #[inline]
    pub(super) fn get(&self, key: Key) -> Option<Mark> {
        let hash = hash(key, self.seed);
        let bucket = self.parts.get(part(hash))?.find(key, hash)?;
        Some(Mark::from_bits(bucket.mark.load(Ordering::Acquire)))
    }
}

impl Table {
    fn new(groups: usize) -> Self {
        Self {
            tags: (0..groups).map(|_| AtomicU64::new(0)).collect(),
            buckets: (0..groups * GROUP).map(|_| Bucket::default()).collect(),
            used: AtomicUsize::new(0),
        }
    }

    /// Returns true if fewer than seven tenths of the buckets are used: a search then ends after one or two groups.
    fn has_room(&self) -> bool {
        (self.used.load(Ordering::Relaxed) + 1) * 10 <= self.buckets.len() * 7
    }

    fn groups_for(keys: usize) -> usize {
        (keys * 10).div_ceil(7 * GROUP).max(1)
    }

    #[inline]
    fn first_group(&self, hash: u64) -> usize {
        // Scales the lower half of the hash to the number of groups.
        let groups = u64::try_from(self.tags.len()).unwrap_or(u64::MAX);
        usize::try_from(((hash & 0xffff_ffff) * groups) >> 32).unwrap_or(0)
    }

    #[inline]
    fn find(&self, key: Key, hash: u64) -> Option<&Bucket> {
        let wanted = tag(hash) * ONES;
        let [high, low] = key.0;
        let first = self.first_group(hash);
        let mut group = first;
        loop {
            let tags = self.tags.get(group)?.load(Ordering::Acquire);
            // A byte of `differs` is zero if the tag matches. Bytes above a match may seem to match, too: each is
            // checked.
            let differs = tags ^ wanted;
            let mut candidates = differs.wrapping_sub(ONES) & !differs & TOPS;
            while candidates != 0 {
                let bucket = self.buckets.get(group * GROUP + candidates.trailing_zeros() as usize / 8)?;
                if bucket.low.load(Ordering::Relaxed) == low && bucket.high.load(Ordering::Relaxed) == high {
                    return Some(bucket);
                }
                candidates &= candidates - 1;
            }
            if tags & TOPS != TOPS {
                return None; // the key would be in this free bucket
            }
            group = if group + 1 == self.tags.len() { 0 } else { group + 1 };
            if group == first {
                return None; // all groups are full
            }
        }
    }

    /// Adds a key that is missing, to a table that has room.
    fn add(&self, key: Key, hash: u64, mark: Mark) {
        let mut group = self.first_group(hash);
        for _ in 0..self.tags.len() {
            let Some(word) = self.tags.get(group) else { return };
            let tags = word.load(Ordering::Relaxed);
            let free = !tags & TOPS;
            if free != 0 {
                let byte = free.trailing_zeros() / 8;
                let Some(bucket) = self.buckets.get(group * GROUP + byte as usize) else { return };
                let [high, low] = key.0;
                bucket.high.store(high, Ordering::Relaxed);
                bucket.low.store(low, Ordering::Relaxed);
                bucket.mark.store(mark.to_bits(), Ordering::Relaxed);
                // Last: a reader that sees the tag sees the bucket.
                word.store(tags | tag(hash) << (8 * byte), Ordering::Release);
                self.used.fetch_add(1, Ordering::Relaxed);
                return;
            }
            group = if group + 1 == self.tags.len() { 0 } else { group + 1 };
        }
    }

    /// Returns a table of `groups` groups with the keys that `keep` accepts.
    fn rebuilt(&self, groups: usize, seed: [u64; 2], keep: impl Fn(Mark) -> bool) -> Self {
        let table = Self::new(groups);
        for (key, mark) in self.marks().filter(|(_, mark)| keep(*mark)) {
            table.add(key, hash(key, seed), mark);
        }
        table
    }

    fn marks(&self) -> impl Iterator<Item = (Key, Mark)> {
        let used = |(at, _): &(usize, &Bucket)| {
            let tags = self.tags.get(at / GROUP).map_or(0, |word| word.load(Ordering::Acquire));
            tags >> (8 * (at % GROUP)) & 0x80 != 0
        };
        self.buckets.iter().enumerate().filter(used).map(|(_, bucket)| {
            let key = Key([bucket.high.load(Ordering::Relaxed), bucket.low.load(Ordering::Relaxed)]);
            (key, Mark::from_bits(bucket.mark.load(Ordering::Relaxed)))
        })
    }
}

/// Mixes a secret of this process into the key. Clients can influence hashed keys and search for some that share a
/// bucket. One wide multiplication by the secret prevents that.
#[inline]
fn hash(key: Key, [a, b]: [u64; 2]) -> u64 {
    let [high, low] = key.0;
    let wide = u128::from(high ^ a) * u128::from(low ^ b);
    #[allow(clippy::cast_possible_truncation)] // both halves are used
    let folded = (wide >> 64) as u64 ^ wide as u64;
    folded
}

#[inline]
fn part(hash: u64) -> usize {
    usize::try_from(hash >> 58).unwrap_or(0) // the upper six bits
}

#[inline]
fn tag(hash: u64) -> u64 {
    hash >> 50 & 0x7f | 0x80
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use proptest::prelude::*;

    fn key(number: u64) -> Key {
        // Spread like a hash.
        let spread = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Key([spread, spread.rotate_left(29) ^ number])
    }

    fn mark(position: u64) -> Mark {
        Mark::at(position)
    }

    proptest! {
        #[test]
        fn it_is_a_map(steps in proptest::collection::vec((0..200_u64, 1..50_u64, 0..20_u8), 0..600)) {
            let set = Set::new([7, 11]);
            let mut model: HashMap<u64, u64> = HashMap::new();
            for (number, position, kind) in steps {
                if kind == 0 {
                    set.retain(|mark| mark.position() > position);
                    model.retain(|_, known| *known > position);
                } else {
                    set.insert(key(number), mark(position));
                    let known = model.entry(number).or_default();
                    *known = position.max(*known);
                }
                prop_assert_eq!(set.len(), model.len());
            }
            let view = set.view();
            for number in 0..200 {
                prop_assert_eq!(view.get(key(number)).map(Mark::position), model.get(&number).copied());
            }
            prop_assert_eq!(set.marks().len(), model.len());
        }
    }

    #[test]
    fn keys_that_share_a_tag_and_one_half_are_told_apart() {
        let halves: [fn(u64) -> Key; 2] = [|number| Key([number, 7]), |number| Key([7, number])];
        for key in halves {
            let set = Set::new([3, 5]);
            let looks = |key| (part(hash(key, set.seed)), tag(hash(key, set.seed)));
            let alike = (1..10_000).map(key).find(|other| looks(*other) == looks(key(0))).unwrap();
            set.insert(key(0), mark(9));
            assert!(set.view().get(key(0)).is_some() && set.view().get(alike).is_none());
        }
    }

    /// A client may choose names that are alike, and must not choose the bucket by that.
    #[test]
    fn keys_that_are_alike_are_spread_by_the_secret() {
        // The last secret is even in its lower half: there, only the upper half of the product tells some keys apart.
        let secrets =
            [[0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f], [0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb47]];
        let alike: [fn(u64) -> Key; 4] = [
            |number| Key([number, 7]),
            |number| Key([7, number]),
            |number| Key([number << 52, 7]),
            |number| Key([7, number << 52]),
        ];
        for secret in secrets {
            for key in alike {
                let hashes: Vec<u64> = (0..4_096).map(|number| hash(key(number), secret)).collect();
                let different = |of: fn(u64) -> u64| {
                    hashes.iter().map(|hash| of(*hash)).collect::<std::collections::HashSet<_>>().len()
                };
                assert_eq!(different(|hash| hash), 4_096);
                assert_eq!(different(|hash| part(hash) as u64), PARTS);
                assert_eq!(different(tag), 128);
            }
        }
        let even = [1, 7 ^ (1 << 20)];
        let hashes: std::collections::HashSet<u64> =
            (0..64).map(|number| hash(Key([number << 58, 7]), even)).collect();
        assert_eq!(hashes.len(), 64);
    }

    /// Tables that are fuller make searches long, and tables that are emptier waste memory.
    #[test]
    fn tables_keep_to_their_load_and_spread_their_keys() {
        let set = Set::new([3, 5]);
        let loads = || -> Vec<(usize, usize)> {
            let parts = set.parts.load();
            let load = |table: &Arc<Table>| {
                let used = table.used.load(Ordering::Relaxed);
                assert_eq!(table.marks().count(), used);
                let starts = |(key, _)| table.first_group(hash(key, set.seed));
                let starts: std::collections::HashSet<_> = table.marks().map(starts).collect();
                assert!(starts.iter().all(|group| *group < table.tags.len()));
                assert!(starts.len() * 2 > table.tags.len(), "{} of {}", starts.len(), table.tags.len());
                (used, table.buckets.len())
            };
            parts.iter().map(load).collect()
        };
        for number in 0..20_000 {
            set.insert(key(number), mark(number));
        }
        for (used, buckets) in loads() {
            assert!(used * 10 <= buckets * 7 && used * 2 >= buckets, "{used} of {buckets}");
        }
        set.retain(|mark| mark.position() < 3_000);
        for (used, buckets) in loads() {
            assert!(used * 10 <= buckets * 7 && used * 10 > (buckets - GROUP) * 7, "{used} of {buckets}");
        }
        let view = set.view();
        assert!((0..20_000).all(|number| view.get(key(number)).is_some() == (number < 3_000)));
    }

    #[test]
    fn a_million_take_less_than_sixty_megabytes() {
        let set = Set::new([3, 5]);
        for number in 0..1_000_000 {
            set.insert(key(number), mark(number));
            if number % 50_000 == 0 {
                assert!(set.size() <= 60 * (usize::try_from(number).unwrap() + 40_000), "{}", set.size());
            }
        }
        assert_eq!(set.len(), 1_000_000);
        assert!(set.size() <= 60_000_000, "{}", set.size());
        let view = set.view();
        assert!((0..1_000_000).all(|number| view.get(key(number)).is_some_and(|m| m.position() == number)));
        assert!((1_000_000..1_100_000).all(|number| view.get(key(number)).is_none()));
    }

    #[test]
    fn what_was_inserted_is_seen_while_the_set_grows() {
        let set = Arc::new(Set::new([1, 2]));
        let inserted = Arc::new(AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let (set, inserted) = (Arc::clone(&set), Arc::clone(&inserted));
                scope.spawn(move || {
                    let mut known = 0;
                    while known < 50_000 {
                        known = inserted.load(Ordering::Acquire);
                        let view = set.view();
                        for number in known.saturating_sub(50)..known {
                            assert!(view.get(key(number)).is_some(), "{number} of {known}");
                        }
                    }
                });
            }
            for number in 0..50_000 {
                set.insert(key(number), mark(number));
                inserted.store(number + 1, Ordering::Release);
            }
        });
    }
}
