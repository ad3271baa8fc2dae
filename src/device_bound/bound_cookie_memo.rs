//! The bound cookie that a connection brought last, so that its MAC is not computed for each request.

use std::sync::Mutex;

use constant_time_eq::constant_time_eq;
use zeroize::Zeroizing;

use super::bound_cookie;
use crate::clock::Timestamp;
use crate::crypto::PublicKey;

/// A memo of one entry: the value that was read last, its device, and until when this device counts as present.
///
/// It skips no check. The same characters were authenticated on this connection for the same device, under keys that a store
/// never changes. The caller compares the time each time.
#[derive(Default)]
pub(crate) struct BoundCookieMemo {
    entry: Mutex<Option<LastValue>>,
}

struct LastValue {
    value: Zeroizing<[u8; bound_cookie::TEXT_LEN]>,
    key: PublicKey,
    until: Timestamp,
}

impl BoundCookieMemo {
    /// Returns until when the device that holds `key` counts as present, if `value` is the last value of this device. The time of
    /// the comparison does not depend on how much of the value matches.
    pub(super) fn recall(&self, key: &PublicKey, value: &[u8]) -> Option<Timestamp> {
        // If another request of the same connection holds the lock, computing the MAC is faster than waiting.
        let entry = self.entry.try_lock().ok()?;
        let entry = entry.as_ref()?;
        (entry.key == *key && constant_time_eq(&*entry.value, value)).then_some(entry.until)
    }

    /// Keeps a value that was authenticated for the device that holds `key`.
    pub(super) fn keep(&self, key: &PublicKey, value: &[u8], until: Timestamp) {
        let (Ok(value), Ok(mut entry)) = (value.try_into(), self.entry.try_lock()) else { return };
        *entry = Some(LastValue { value: Zeroizing::new(value), key: *key, until });
    }

    /// Drops the entry.
    pub(crate) fn forget(&self) {
        if let Ok(mut entry) = self.entry.try_lock() {
            *entry = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::bound_cookie::tests::{read, tagger};
    use super::*;
    use crate::crypto::Tagger;

    impl BoundCookieMemo {
        /// Recalls the value, or reads and keeps it.
        fn read(&self, tagger: &Tagger, key: &PublicKey, value: &[u8]) -> Option<Timestamp> {
            self.recall(key, value).or_else(|| {
                let until = read(tagger, key, value)?;
                self.keep(key, value, until);
                Some(until)
            })
        }
    }

    // The keys of `other` made none of the values: what is read with them was remembered.
    #[test]
    fn only_the_last_value_of_its_device_is_known() {
        let (own, other) = (tagger(b"one"), tagger(b"two"));
        let [one, two] = [1, 2].map(|byte| PublicKey::of(true, &[byte; 32]));
        let [first, second] = [600, 601].map(Timestamp::from_unix);
        let write = |key, until| bound_cookie::write(&own, key, until).unwrap().into_bytes();
        let (value, later, of_two) = (write(&one, first), write(&one, second), write(&two, first));
        let memo = BoundCookieMemo::default();
        assert_eq!(memo.read(&other, &one, &value), None, "it knows nothing at first");
        assert_eq!(memo.read(&own, &one, &value), Some(first));
        assert_eq!(memo.read(&other, &one, &value), Some(first));
        // Another device, another value.
        assert_eq!(memo.read(&own, &two, &value), None);
        assert_eq!(memo.read(&other, &one, &later), None);
        for at in 0..value.len() {
            let mut altered = value.clone();
            altered[at] ^= 1;
            assert_eq!(memo.read(&own, &one, &altered), None, "{at}");
        }
        for bad in [&value[1..], &[&value[..], b"A"].concat(), b""] {
            assert_eq!(memo.read(&own, &one, bad), None);
        }
        // A value that is refused does not displace the last one, and a value that is accepted does.
        assert_eq!(memo.read(&other, &one, &value), Some(first));
        assert_eq!(memo.read(&own, &one, &later), Some(second));
        assert_eq!(memo.read(&other, &one, &value), None);
        assert_eq!(memo.read(&own, &two, &of_two), Some(first));
        assert_eq!(memo.read(&other, &one, &later), None);
        memo.forget();
        assert_eq!(memo.read(&other, &two, &of_two), None);
    }

    #[test]
    fn a_request_that_finds_the_memo_locked_computes() {
        let (own, key, until) = (tagger(b"one"), PublicKey::of(true, &[1; 32]), Timestamp::from_unix(600));
        let value = bound_cookie::write(&own, &key, until).unwrap();
        let memo = BoundCookieMemo::default();
        let _locked = memo.entry.lock().unwrap();
        assert_eq!(memo.read(&own, &key, value.as_bytes()), Some(until));
    }
}
