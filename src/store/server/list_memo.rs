//! Remembers the session list of each session that this process loaded, so that the next load can fetch both at once.

use std::sync::{Mutex, MutexGuard};

use crate::id::EntryId;
use crate::lock::lock;

/// A set-associative table of bounded size. A session is forgotten once [`WAYS`] others of its set were loaded since, and its next
/// load then costs a round trip more.
pub(super) struct ListMemo(Box<[Mutex<Vec<Pair>>]>);

/// The entry ids of a session and of its session list.
type Pair = (EntryId, EntryId);

/// 600 kB, once they are filled. Ids are random, so some sets are full before others. Of 4,000 sessions that take turns, one in a
/// thousand is forgotten before its turn, and of 8,000 one in twenty (by the Poisson distribution).
const SETS: usize = 2_048;
const WAYS: usize = 8;

impl ListMemo {
    pub(super) fn new() -> Self {
        Self((0..SETS).map(|_| Mutex::default()).collect())
    }

    /// Returns the list of the session whose entry is `id`.
    pub(super) fn get(&self, id: EntryId) -> Option<EntryId> {
        let mut set = self.set_of(id)?;
        let place = set.iter().position(|(session, _)| *session == id)?;
        // The pairs are in the order of their last use.
        set.get_mut(..=place)?.rotate_right(1);
        set.first().map(|(_, list)| *list)
    }

    pub(super) fn set(&self, id: EntryId, list: EntryId) {
        let Some(mut set) = self.set_of(id) else { return };
        set.retain(|(session, _)| *session != id);
        set.truncate(WAYS - 1);
        set.insert(0, (id, list));
    }

    fn set_of(&self, id: EntryId) -> Option<MutexGuard<'_, Vec<Pair>>> {
        let [first, second, ..] = id.to_bytes();
        let set = self.0.get(usize::from(u16::from_be_bytes([first, second])) % SETS)?;
        Some(lock(set))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first bytes choose the set, as those of a hash do.
    fn id(set: u16, number: u16) -> EntryId {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&set.to_be_bytes());
        bytes[2..4].copy_from_slice(&number.to_be_bytes());
        EntryId::from_bytes(bytes)
    }

    #[test]
    fn a_full_set_forgets_the_session_that_was_not_loaded_for_the_longest_time() {
        let (memo, list) = (ListMemo::new(), |number| id(u16::MAX, number));
        for number in 0..8 {
            memo.set(id(1, number), list(number));
        }
        memo.set(id(2, 0), list(90)); // of another set
        assert_eq!(memo.get(id(1, 0)), Some(list(0)));
        memo.set(id(1, 8), list(8));
        assert_eq!(memo.get(id(1, 1)), None);
        for number in [0, 2, 3, 4, 5, 6, 7, 8] {
            assert_eq!(memo.get(id(1, number)), Some(list(number)), "{number}");
        }
        // The session logged in as another user.
        memo.set(id(1, 4), list(44));
        assert_eq!(memo.get(id(1, 4)), Some(list(44)));
        assert_eq!(memo.set_of(id(1, 0)).unwrap().len(), WAYS);
    }
}
