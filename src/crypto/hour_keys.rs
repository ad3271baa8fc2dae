//! The encryption keys of the hours in use. A thread finds a key that it has used before without a write to memory that
//! processors share.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use aws_lc_rs::aead::LessSafeKey;

use crate::lock::lock;

/// Four days of hours. Older sessions sometimes cost one more derivation (half a microsecond).
pub(super) const HOURS_KEPT: usize = 96;

/// The keys of one application key.
pub(super) struct HourKeys {
    /// Unique in this process.
    id: usize,
    keys: Mutex<BTreeMap<u32, Arc<HourKey>>>,
}

struct HourKey {
    /// The [`HourKeys`] to which it belongs.
    owner: usize,
    epoch: u32,
    key: LessSafeKey,
}

static NEXT_ID: AtomicUsize = AtomicUsize::new(0);

/// How many keys a thread keeps: those of the present hour, of a few before it, and of other cookies. It keeps them after their
/// store was dropped, until it uses others or ends.
const KEPT_BY_THREAD: usize = 8;

thread_local! {
    static KEPT: RefCell<[Option<Arc<HourKey>>; KEPT_BY_THREAD]> =
        const { RefCell::new([const { None }; KEPT_BY_THREAD]) };
}

impl HourKeys {
    pub(super) fn new() -> Self {
        Self { id: NEXT_ID.fetch_add(1, Ordering::Relaxed), keys: Mutex::default() }
    }

    /// Calls `use_key` with the key of `epoch`, which `derive` makes if there is none. Returns `None` if that fails.
    pub(super) fn with<R>(
        &self,
        epoch: u32,
        derive: impl Fn() -> Option<LessSafeKey>,
        mut use_key: impl FnMut(&LessSafeKey) -> R,
    ) -> Option<R> {
        let place = self.id.wrapping_add(epoch as usize) % KEPT_BY_THREAD;
        let used = KEPT.try_with(|kept| {
            let mut kept = kept.try_borrow_mut().ok()?;
            let kept = kept.get_mut(place)?;
            match kept {
                Some(kept) if kept.epoch == epoch && kept.owner == self.id => Some(use_key(&kept.key)),
                _ => Some(use_key(&kept.insert(self.shared(epoch, &derive)?).key)),
            }
        });
        match used {
            Ok(Some(result)) => Some(result),
            // A thread that ends has dropped what it kept.
            Ok(None) | Err(_) => self.shared(epoch, &derive).map(|key| use_key(&key.key)),
        }
    }

    /// Returns the key of `epoch` that all threads share.
    fn shared(&self, epoch: u32, derive: &impl Fn() -> Option<LessSafeKey>) -> Option<Arc<HourKey>> {
        if let Some(key) = self.lock().get(&epoch) {
            return Some(Arc::clone(key));
        }
        let key = Arc::new(HourKey { owner: self.id, epoch, key: derive()? });
        let mut keys = self.lock();
        keys.insert(epoch, Arc::clone(&key));
        if keys.len() > HOURS_KEPT {
            drop_oldest(&mut keys, epoch);
        }
        Some(key)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<HourKey>>> {
        // A panic while the lock is held leaves a map of complete keys, so poisoning is ignored.
        lock(&self.keys)
    }

    /// Returns the hours whose keys are kept, in order.
    #[cfg(test)]
    pub(super) fn epochs(&self) -> Vec<u32> {
        self.lock().keys().copied().collect()
    }

    /// Replaces the key of an hour, also where this thread keeps it.
    #[cfg(test)]
    pub(super) fn plant(&self, epoch: u32, key: LessSafeKey) {
        self.lock().insert(epoch, Arc::new(HourKey { owner: self.id, epoch, key }));
        KEPT.take();
    }
}

/// Makes room by dropping the oldest hour, but not the hour in use: a token from long ago must not evict the key of the
/// present hour.
fn drop_oldest(keys: &mut BTreeMap<u32, Arc<HourKey>>, in_use: u32) {
    if let Some(&oldest) = keys.keys().find(|&&epoch| epoch != in_use) {
        keys.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::aead::{AES_256_GCM, UnboundKey};

    use super::*;

    fn key(byte: u8) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[byte; 32]).unwrap())
    }

    // A second store whose key has the same place in the thread's memory must not get the key of the first.
    #[test]
    fn a_thread_takes_no_key_for_that_of_another_owner_or_hour() {
        let owners: Vec<HourKeys> = (0..2 * KEPT_BY_THREAD).map(|_| HourKeys::new()).collect();
        let derived = RefCell::new(Vec::new());
        for round in 0..2 {
            for owner in &owners {
                for epoch in 0..2 * u32::try_from(KEPT_BY_THREAD).unwrap() {
                    let derive = || {
                        derived.borrow_mut().push((owner.id, epoch));
                        Some(key(1))
                    };
                    assert!(owner.with(epoch, derive, |_| ()).is_some());
                    // The thread's place holds this one now, and the next call derives nothing.
                    assert!(owner.with(epoch, || None, |_| ()).is_some(), "{round}");
                }
            }
        }
        let mut once = derived.take();
        let all = once.len();
        once.sort_unstable();
        once.dedup();
        assert_eq!((all, once.len()), (4 * KEPT_BY_THREAD * KEPT_BY_THREAD, all));
    }

    // Otherwise, each request would write to memory that processors share.
    #[test]
    fn a_thread_keeps_its_key_apart_from_the_others() {
        const HOUR: u32 = 490_000; // of 2025
        let keys = HourKeys::new();
        assert!(keys.with(HOUR, || Some(key(1)), |_| ()).is_some());
        keys.lock().clear();
        assert!(keys.with(HOUR, || None, |_| ()).is_some());
        let has_same_place = |other: &HourKeys| other.id % KEPT_BY_THREAD == keys.id % KEPT_BY_THREAD;
        let other = std::iter::repeat_with(HourKeys::new).find(has_same_place).unwrap();
        assert!(other.with(HOUR, || None, |_| ()).is_none(), "the key of another owner");
    }

    #[test]
    fn a_key_that_cannot_be_derived_is_not_kept_and_a_nested_use_gets_its_own() {
        let keys = HourKeys::new();
        assert_eq!(keys.with(1, || None, |_| ()), None);
        assert!(keys.epochs().is_empty());
        let nested = keys.with(1, || Some(key(1)), |_| keys.with(2, || Some(key(2)), |_| 2));
        assert_eq!((nested, keys.epochs()), (Some(Some(2)), vec![1, 2]));
    }
}
