//! Random bytes: straight from the library for secrets, in batches for nonces.

use std::cell::RefCell;

use aws_lc_rs::rand;

use crate::error::{Error, Kind};

pub(crate) const NONCE_LEN: usize = 12;

/// The call to the generator is the cost, not the bytes: a batch of 64 shares it.
const BATCH: usize = 64;

/// Where random bytes come from. There is one implementation; tests add one that fails.
pub(crate) trait Random: Send + Sync {
    /// Fills `out` with random bytes, or fails: never with anything else.
    fn fill(&self, out: &mut [u8]) -> Result<(), Error>;

    /// A nonce: public, never to be used twice under one key.
    fn nonce(&self) -> Result<[u8; NONCE_LEN], Error> {
        let mut nonce = [0; NONCE_LEN];
        self.fill(&mut nonce)?;
        Ok(nonce)
    }
}

/// Draws the first random number of the process, which takes aws-lc some 50 ms: it gathers entropy from the CPU's jitter. So
/// the store pays that when it is built, not the first login. An error is left to the first one that needs the number.
pub(crate) fn warm_up(random: &dyn Random) {
    let _ = random.fill(&mut [0]);
}

/// The random generator of the cryptographic library, seeded by the operating system.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SystemRandom;

/// Nonces drawn ahead, by and for one thread of one process.
struct Batch {
    nonces: [[u8; NONCE_LEN]; BATCH],
    left: usize,
    process: u32,
}

thread_local! {
    static NONCES: RefCell<Batch> =
        const { RefCell::new(Batch { nonces: [[0; NONCE_LEN]; BATCH], left: 0, process: 0 }) };
}

impl Random for SystemRandom {
    fn fill(&self, out: &mut [u8]) -> Result<(), Error> {
        rand::fill(out).map_err(|_| Error::new(Kind::Random))
    }

    /// Nonces are public, so they may wait in memory; ids, tokens and keys never do.
    fn nonce(&self) -> Result<[u8; NONCE_LEN], Error> {
        NONCES.with_borrow_mut(|batch| batch.next(self))
    }
}

impl Batch {
    /// The next nonce. A batch that a forked parent drew is thrown away: parent and child would use it twice.
    fn next(&mut self, random: &impl Random) -> Result<[u8; NONCE_LEN], Error> {
        let process = std::process::id();
        if self.left == 0 || self.process != process {
            self.left = 0; // stays so if the generator fails
            random.fill(self.nonces.as_flattened_mut())?;
            self.left = BATCH;
            self.process = process;
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

    /// A generator whose operating system has nothing to give (T14).
    pub(crate) struct NoRandom;

    impl Random for NoRandom {
        fn fill(&self, _: &mut [u8]) -> Result<(), Error> {
            Err(Error::new(Kind::Random))
        }
    }

    // T16: a million nonces over several threads, none twice.
    #[test]
    fn t16_nonces_do_not_repeat() {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                std::thread::spawn(|| (0..250_000).map(|_| SystemRandom.nonce().unwrap()).collect::<Vec<_>>())
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
        let mut batch = Batch { nonces: [[0; NONCE_LEN]; BATCH], left: 0, process: 0 };
        assert!(batch.next(&NoRandom).unwrap_err().is_random());
        assert!(batch.next(&NoRandom).unwrap_err().is_random());
        batch.next(&SystemRandom).unwrap();
        batch.left = 0;
        assert!(batch.next(&NoRandom).unwrap_err().is_random());
        assert!(batch.next(&NoRandom).unwrap_err().is_random());
    }

    #[test]
    fn t16_a_batch_of_another_process_is_not_used() {
        let mut batch =
            Batch { nonces: [[7; NONCE_LEN]; BATCH], left: BATCH, process: std::process::id() ^ 1 };
        assert_ne!(batch.next(&SystemRandom).unwrap(), [7; NONCE_LEN]);
        assert_eq!(batch.process, std::process::id());
    }
}
