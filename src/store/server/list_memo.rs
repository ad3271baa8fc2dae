//! Remembers the session list of each session that this process loaded, so that the next load can fetch both at once.

use std::sync::{Mutex, PoisonError};

use crate::id::EntryId;

/// A table of fixed size. A session that is loaded replaces another entry now and then, whose session then costs a
/// round trip more.
pub(super) struct ListMemo(Box<[Pair]>);

/// The entry ids of a session and of its session list, once a session of this place was loaded.
type Pair = Mutex<Option<(EntryId, EntryId)>>;

/// 4,096 sessions, in 200 kB.
const PAIRS: usize = 4_096;

impl ListMemo {
    pub(super) fn new() -> Self {
        Self((0..PAIRS).map(|_| Mutex::new(None)).collect())
    }

    /// Returns the list of the session whose entry is `id`.
    pub(super) fn get(&self, id: EntryId) -> Option<EntryId> {
        let known = *self.pair(id)?.lock().unwrap_or_else(PoisonError::into_inner);
        known.filter(|(session, _)| *session == id).map(|(_, list)| list)
    }

    pub(super) fn set(&self, id: EntryId, list: EntryId) {
        if let Some(pair) = self.pair(id) {
            *pair.lock().unwrap_or_else(PoisonError::into_inner) = Some((id, list));
        }
    }

    fn pair(&self, id: EntryId) -> Option<&Pair> {
        let [first, second, ..] = id.to_bytes();
        self.0.get(usize::from(u16::from_be_bytes([first, second])) % PAIRS)
    }
}
