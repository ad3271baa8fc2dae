//! The encryption keys of the hours in use, which are read without a write to memory that processors share.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use aws_lc_rs::aead::LessSafeKey;

/// Four days of hours. A token of an hour without a place costs one more derivation (half a microsecond).
pub(super) const HOURS_KEPT: usize = 96;

/// The keys of one application key, one place for each hour of four days.
///
/// An hour shares its place with the hours that are a multiple of four days away from it. Of these, the place keeps the key of the
/// latest: a token from long ago must not evict the key of the present hour.
pub(super) struct HourKeys {
    places: [ArcSwapOption<HourKey>; HOURS_KEPT],
}

struct HourKey {
    epoch: u32,
    key: LessSafeKey,
}

impl HourKeys {
    pub(super) fn new() -> Self {
        Self { places: std::array::from_fn(|_| ArcSwapOption::empty()) }
    }

    /// Calls `use_key` with the key of `epoch`, which `derive` makes if there is none. Returns `None` if that fails.
    pub(super) fn with<R>(
        &self,
        epoch: u32,
        derive: impl FnOnce() -> Option<LessSafeKey>,
        use_key: impl FnOnce(&LessSafeKey) -> R,
    ) -> Option<R> {
        let place = self.places.get(epoch as usize % HOURS_KEPT)?;
        // A lock would be written to by each reader, and its cache line would move from processor to processor.
        let kept = place.load();
        if let Some(kept) = kept.as_deref().filter(|kept| kept.epoch == epoch) {
            return Some(use_key(&kept.key));
        }
        let derived = Arc::new(HourKey { epoch, key: derive()? });
        let result = use_key(&derived.key);
        // Another thread may have put a key there meanwhile.
        place.rcu(|kept| match kept {
            Some(kept) if kept.epoch >= epoch => Some(Arc::clone(kept)),
            _ => Some(Arc::clone(&derived)),
        });
        Some(result)
    }

    /// Returns the hours whose keys are kept, in order.
    #[cfg(test)]
    pub(super) fn epochs(&self) -> Vec<u32> {
        let kept = self.places.iter().filter_map(|place| place.load().as_deref().map(|kept| kept.epoch));
        let mut epochs: Vec<u32> = kept.collect();
        epochs.sort_unstable();
        epochs
    }

    /// Replaces the key of an hour.
    #[cfg(test)]
    pub(super) fn plant(&self, epoch: u32, key: LessSafeKey) {
        self.places[epoch as usize % HOURS_KEPT].store(Some(Arc::new(HourKey { epoch, key })));
    }
}
