//! Which session list a session is on, from its last load in this process, so that the next load can ask for both at once.

use std::sync::{Mutex, PoisonError};

use crate::id::EntryId;

/// A table of fixed size: a session that is loaded takes the place of another one now and then, which costs that one a
/// round trip.
pub(super) struct ListMemo(Box<[Place]>);

/// A session's entry, and that of its list.
type Place = Mutex<Option<(EntryId, EntryId)>>;

/// 4,096 sessions, in 200 kB.
const PLACES: usize = 4_096;

impl ListMemo {
    pub(super) fn new() -> Self {
        Self((0..PLACES).map(|_| Mutex::new(None)).collect())
    }

    /// Returns the list of the session whose entry is `id`.
    pub(super) fn get(&self, id: EntryId) -> Option<EntryId> {
        let known = *self.place(id)?.lock().unwrap_or_else(PoisonError::into_inner);
        known.filter(|(session, _)| *session == id).map(|(_, list)| list)
    }

    pub(super) fn set(&self, id: EntryId, list: EntryId) {
        if let Some(place) = self.place(id) {
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some((id, list));
        }
    }

    fn place(&self, id: EntryId) -> Option<&Place> {
        let [first, second, ..] = id.to_bytes();
        self.0.get(usize::from(u16::from_be_bytes([first, second])) % PLACES)
    }
}
