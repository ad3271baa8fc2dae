//! Random bytes: directly from the library for secrets, in batches for nonces.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand;

use crate::error::{Error, Kind};

pub(crate) const NONCE_LEN: usize = 12;

/// The number of nonces that are drawn at once. The cost is the call of the generator, not the number of bytes.
const BATCH: usize = 64;

/// The first bytes of the id of the sealed entry or session.
pub(crate) type IdStart = [u8; 4];

/// A source of random bytes. There is one implementation for users. Tests add others.
pub(crate) trait Random: Send + Sync {
    /// Fills `out` with random bytes, or fails.
    fn fill(&self, out: &mut [u8]) -> Result<(), Error>;

    /// Returns a nonce. It is public, and must never be used twice under one key. `id` is the beginning of the id of
    /// the sealed entry or session, or zeros.
    fn nonce(&self, id: IdStart) -> Result<[u8; NONCE_LEN], Error> {
        let _ = id;
        let mut nonce = [0; NONCE_LEN];
        self.fill(&mut nonce)?;
        Ok(nonce)
    }
}

/// Draws the first random number of the process. That takes aws-lc some 50 ms, because it gathers entropy from the CPU's
/// jitter, so the store does it when it is built, and not during the first login. An error is ignored: the next call
/// returns it again.
pub(crate) fn warm_up(random: &dyn Random) {
    let _ = random.fill(&mut [0]);
}

/// The random generator of the cryptographic library, which the operating system seeds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SystemRandom;

/// Bytes that a test chooses.
#[cfg(feature = "testing")]
pub(crate) struct ChosenBytes<F>(pub(crate) F);

#[cfg(feature = "testing")]
impl<F: Fn(&mut [u8]) + Send + Sync> Random for ChosenBytes<F> {
    fn fill(&self, out: &mut [u8]) -> Result<(), Error> {
        let Self(fill) = self;
        fill(out);
        Ok(())
    }
}

/// Nonces that one thread has drawn in advance.
struct Batch {
    nonces: [[u8; NONCE_LEN]; BATCH],
    left: usize,
}

thread_local! {
    static NONCES: RefCell<Batch> =
        const { RefCell::new(Batch { nonces: [[0; NONCE_LEN]; BATCH], left: 0 }) };
}

impl Random for SystemRandom {
    fn fill(&self, out: &mut [u8]) -> Result<(), Error> {
        rand::fill(out).map_err(|_| Error::new(Kind::Random))
    }

    /// Nonces are public, so they may wait in memory. Ids, tokens and keys are never drawn in advance.
    fn nonce(&self, id: IdStart) -> Result<[u8; NONCE_LEN], Error> {
        let drawn = NONCES.with_borrow_mut(|batch| batch.next(self))?;
        // Reading the clock is not a system call where the kernel shares it with processes (vDSO), as Linux does.
        let nanoseconds =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_nanos());
        #[allow(clippy::cast_possible_truncation)] // the low 64 bits are enough to differ
        Ok(hedge(drawn, nanoseconds as u64, id))
    }
}

/// Makes nonces differ where batches are equal: in a forked child, and in machines that were restored from one memory
/// image.
///
/// A batch is uniformly random and used once, so its XOR with a value that does not depend on it is uniformly random, too.
/// Two copies of one batch give the same nonce only for the same nanosecond and the same first bytes of an id.
fn hedge(drawn: [u8; NONCE_LEN], nanoseconds: u64, id: IdStart) -> [u8; NONCE_LEN] {
    let mut context = [0; NONCE_LEN];
    let (moment, start) = context.split_at_mut(8);
    moment.copy_from_slice(&nanoseconds.to_be_bytes());
    start.copy_from_slice(&id);
    let mut nonce = drawn;
    nonce.iter_mut().zip(context).for_each(|(byte, context)| *byte ^= context);
    nonce
}

impl Batch {
    fn next(&mut self, random: &impl Random) -> Result<[u8; NONCE_LEN], Error> {
        if self.left == 0 {
            random.fill(self.nonces.as_flattened_mut())?; // after an error, no nonce is left
            self.left = BATCH;
        }
        self.left -= 1;
        self.nonces
            .get(self.left)
            .copied()
            .ok_or_else(|| Error::new(Kind::Internal("a nonce batch ran over")))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A generator that always fails (T14).
    pub(crate) struct NoRandom;

    impl Random for NoRandom {
        fn fill(&self, _: &mut [u8]) -> Result<(), Error> {
            Err(Error::new(Kind::Random))
        }
    }

    /// A generator that counts its calls.
    #[derive(Default)]
    pub(crate) struct CountingRandom(AtomicUsize);

    impl CountingRandom {
        pub(crate) fn calls(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    impl Random for CountingRandom {
        fn fill(&self, out: &mut [u8]) -> Result<(), Error> {
            self.0.fetch_add(1, Ordering::Relaxed);
            SystemRandom.fill(out)
        }
    }

    // T16: a million nonces over several threads are all different.
    #[test]
    fn t16_nonces_do_not_repeat() {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                std::thread::spawn(|| {
                    (0..250_000).map(|_| SystemRandom.nonce([7; 4]).unwrap()).collect::<Vec<_>>()
                })
            })
            .collect();
        let mut seen = HashSet::new();
        for nonce in threads.into_iter().flat_map(|thread| thread.join().unwrap()) {
            assert!(seen.insert(nonce));
        }
        assert_eq!(seen.len(), 1_000_000);
    }

    #[test]
    fn t14_a_failing_generator_gives_an_error_each_time_and_no_old_nonce() {
        let mut batch = Batch { nonces: [[0; NONCE_LEN]; BATCH], left: 0 };
        assert!(batch.next(&NoRandom).unwrap_err().is_random());
        assert!(batch.next(&NoRandom).unwrap_err().is_random());
        batch.next(&SystemRandom).unwrap();
        batch.left = 0;
        assert!(batch.next(&NoRandom).unwrap_err().is_random());
        assert!(batch.next(&NoRandom).unwrap_err().is_random());
    }

    // A fork and a restored memory image both make two copies of one batch. Neither the process id (two forks into
    // PID namespaces are both 1) nor anything else in memory tells them apart.
    #[test]
    fn t16_copies_of_one_batch_give_different_nonces() {
        let drawn = [0x5a; NONCE_LEN];
        let moments = [0, 1, 1_800_000_000_000_000_000, 1_800_000_000_000_000_001, u64::MAX];
        let ids = [[0; 4], [0, 0, 0, 1], [1, 0, 0, 0], [0xff; 4]];
        let mut seen = HashSet::new();
        for nanoseconds in moments {
            for id in ids {
                assert!(seen.insert(hedge(drawn, nanoseconds, id)), "{nanoseconds} {id:?}");
            }
        }
        assert_eq!(seen.len(), moments.len() * ids.len());
    }

    // The other half: one moment and one session, sealed twice, depend on the batch only.
    #[test]
    fn t16_a_hedged_nonce_is_as_random_as_its_batch() {
        let (nanoseconds, id) = (1_800_000_000_123_456_789, *b"sess");
        let mut seen = HashSet::new();
        for byte in 0..=255_u8 {
            for at in 0..NONCE_LEN {
                let mut drawn = [0; NONCE_LEN];
                drawn[at] = byte;
                let nonce = hedge(drawn, nanoseconds, id);
                // XOR with a constant: a second XOR undoes it, so it is one to one.
                assert_eq!(hedge(nonce, nanoseconds, id), drawn);
                seen.insert(nonce);
            }
        }
        assert_eq!(seen.len(), 255 * NONCE_LEN + 1);
    }

    // The path in production: a thread's batch is restored from an image, and the same nonce of it used again.
    #[test]
    fn t16_a_restored_batch_does_not_repeat_a_nonce() {
        SystemRandom.nonce([0; 4]).unwrap();
        let image = NONCES.with_borrow(|batch| (batch.nonces, batch.left));
        let restored = |id| {
            NONCES.with_borrow_mut(|batch| (batch.nonces, batch.left) = image);
            SystemRandom.nonce(id).unwrap()
        };
        let seen: HashSet<_> = (0..1_000_u32).map(|n| restored(n.to_be_bytes())).collect();
        assert_eq!(seen.len(), 1_000);
    }
}
