//! A limit on the revocations of one subject, so that logging out in a loop cannot fill the log.

use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::lock::lock;
use crate::session::Name;

/// Counts the revocations of each subject within a horizon, approximately and never too low. It is a count-min sketch
/// in two generations, of which the older one is dropped after each horizon.
///
/// Subjects share the counters. There are so many of them that as many revocations as a process remembers, in each of two
/// horizons, count for another subject as a quarter of its limit at most, unless [`MOST_COLUMNS`] would be exceeded.
pub(super) struct Budget {
    limit: u16,
    /// How many counters a row has.
    columns: usize,
    /// A user who chooses the name of its account must not choose the counters.
    hasher: RandomState,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    began: u64,
    generations: [Option<Box<[u16]>>; 2],
}

const ROWS: usize = 4;
/// 32 MB in each generation. The system provides the parts of them that are used.
const MOST_COLUMNS: usize = 1 << 22;
const FEWEST_COLUMNS: usize = 1 << 14;

impl Budget {
    /// Creates a budget of `limit` for each subject, in a process that remembers `max` revocations.
    pub(super) fn new(limit: u16, max: usize) -> Self {
        let columns = max.saturating_mul(8) / usize::from(limit.max(1));
        let columns = columns.clamp(FEWEST_COLUMNS, MOST_COLUMNS).next_power_of_two();
        Self { limit, columns, hasher: RandomState::new(), state: Mutex::default() }
    }

    /// Counts one revocation of `owner`. Returns false if there were too many.
    pub(super) fn spend(&self, owner: Name, now: Timestamp, horizon: Duration) -> bool {
        let mut state = lock(&self.state);
        let age = now.as_unix().saturating_sub(state.began);
        if age > horizon.as_secs() {
            let current = state.generations[0].take();
            // If nothing was revoked for another horizon, the counts are older than one.
            let is_old = age > horizon.as_secs().saturating_mul(2);
            state.generations = [None, current.filter(|_| !is_old)];
            state.began = now.as_unix();
        }
        let [current, previous] = &mut state.generations;
        let current = current.get_or_insert_with(|| vec![0; ROWS * self.columns].into_boxed_slice());
        let mut least = u16::MAX;
        for at in cells(self.hashed(owner), self.columns) {
            let before = previous.as_ref().and_then(|counts| counts.get(at)).copied().unwrap_or(0);
            if let Some(count) = current.get_mut(at) {
                *count = count.saturating_add(1);
                least = least.min(count.saturating_add(before));
            }
        }
        least <= self.limit
    }

    /// Returns a hash of the name that differs in each process.
    fn hashed(&self, owner: Name) -> Name {
        let [high, low] = [0_u8, 1].map(|half| self.hasher.hash_one((half, owner)));
        (u128::from(high) << 64 | u128::from(low)).to_be_bytes()
    }
}

/// Returns a cell in each row. The bytes of the hash serve as four hashes.
fn cells(owner: Name, columns: usize) -> [usize; ROWS] {
    let owner = u128::from_be_bytes(owner);
    std::array::from_fn(|row| {
        let hash = usize::try_from(owner >> (32 * row) & 0xffff_ffff).unwrap_or(0);
        row * columns + hash % columns
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::subject_name;

    const HORIZON: Duration = Duration::from_secs(1_000);

    #[test]
    fn one_subject_is_stopped_and_the_others_are_not() {
        let budget = Budget::new(300, 1_000_000);
        let now = Timestamp::from_unix(5_000);
        for number in 0..200_000 {
            let owner = subject_name(&(number % 50_000).to_string());
            assert!(budget.spend(owner, now, HORIZON), "{number}");
        }
        let mallory = subject_name("mallory");
        let granted = (0..1_000).filter(|_| budget.spend(mallory, now, HORIZON)).count();
        assert!((200..=300).contains(&granted), "{granted}");
        // After one horizon half of it is forgotten, after two all of it.
        let later = |horizons: u64| Timestamp::from_unix(5_000 + horizons * 1_001);
        assert!(!budget.spend(mallory, later(1), HORIZON));
        assert!(budget.spend(mallory, later(3), HORIZON));
        assert!(budget.spend(mallory, later(5), HORIZON));
    }

    #[test]
    fn after_two_horizons_without_a_revocation_nothing_counts() {
        let mallory = subject_name("mallory");
        for (quiet, granted) in [(1_000, false), (1_001, false), (2_000, false), (2_001, true)] {
            let budget = Budget::new(1, 1_000);
            assert!(budget.spend(mallory, Timestamp::from_unix(5_000), HORIZON));
            let later = Timestamp::from_unix(5_000 + quiet);
            assert_eq!(budget.spend(mallory, later, HORIZON), granted, "after {quiet} seconds");
        }
    }

    #[test]
    fn each_quarter_of_a_name_chooses_a_cell_of_its_own_row() {
        let name = 0x0000_0004_0000_0003_0000_0002_ffff_0001_u128.to_be_bytes();
        let columns = FEWEST_COLUMNS;
        let of_rows = cells(name, columns);
        assert_eq!(of_rows.map(|cell| cell / columns), [0, 1, 2, 3]);
        assert_eq!(of_rows.map(|cell| cell % columns), [0xffff_0001 % columns, 2, 3, 4]);
    }

    #[test]
    fn a_small_limit_stops_no_subject_that_logs_out_once() {
        let now = Timestamp::from_unix(5_000);
        for (limit, max) in [(10, 100_000), (50, 1_000_000)] {
            let budget = Budget::new(limit, max);
            for number in 0..200_000 {
                assert!(budget.spend(subject_name(&number.to_string()), now, HORIZON), "{number} of {limit}");
            }
            let mallory = subject_name("mallory");
            let granted = (0..1_000).filter(|_| budget.spend(mallory, now, HORIZON)).count();
            assert!((1..=usize::from(limit)).contains(&granted), "{granted} of {limit}");
        }
    }
}
