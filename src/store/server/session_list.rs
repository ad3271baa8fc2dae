//! The session list of a subject: the value of one entry of the backend, and the operations on it.

use bytes::{Buf, BufMut};

use crate::clock::Timestamp;
use crate::session::SessionId;

/// The longest entry that is read as a session list, in bytes, even if an option limits the entries that are written. The option may
/// have been lowered since the list was written, and the list is what ends its sessions.
#[cfg_attr(not(any(feature = "redis", feature = "sqlite")), allow(dead_code))] // the backends with a limit
pub(crate) const LONGEST_LIST: usize = 1 << 20;

/// The sessions of one subject, in the order of their logins.
///
/// ```text
/// offset  bytes  field, repeated for each session
///      0     16  id
///     16      8  entered: when the session got this id, seconds since 1970, big-endian
///     24      8  until: its absolute deadline
///     32      1  0x00 live, 0x01 being ended
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SessionList {
    pub(crate) entries: Vec<ListedSession>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ListedSession {
    pub(crate) id: SessionId,
    pub(crate) entered: Timestamp,
    pub(crate) until: Timestamp,
    /// True once a call has begun to end the session, which then no longer counts.
    pub(crate) ending: bool,
}

impl ListedSession {
    const LEN: usize = 33;
}

impl SessionList {
    /// Returns the length of the longest value that holds the list of `sessions` sessions. Concurrent logins can exceed that
    /// number for a moment, and so can sessions that are being ended.
    pub(crate) const fn max_len(sessions: usize) -> usize {
        const HEADER_AND_SEAL: usize = 120;
        let entries = sessions.saturating_mul(2).saturating_add(16);
        entries.saturating_mul(ListedSession::LEN).saturating_add(HEADER_AND_SEAL)
    }

    pub(crate) fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        if bytes.len() % ListedSession::LEN != 0 {
            return None;
        }
        let mut entries = Vec::with_capacity(bytes.len() / ListedSession::LEN);
        while bytes.has_remaining() {
            let mut id = [0; 16];
            bytes.copy_to_slice(&mut id);
            let mut time = || Timestamp::from_unix(bytes.get_u64());
            let (entered, until) = (time(), time());
            let ending = match bytes.get_u8() {
                0 => false,
                1 => true,
                _ => return None,
            };
            entries.push(ListedSession { id: SessionId::from_bytes(id), entered, until, ending });
        }
        Some(Self { entries })
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.entries.len() * ListedSession::LEN);
        for entry in &self.entries {
            bytes.put_slice(&entry.id.to_bytes());
            bytes.put_u64(entry.entered.as_unix());
            bytes.put_u64(entry.until.as_unix());
            bytes.put_u8(u8::from(entry.ending));
        }
        bytes
    }

    /// Returns the sessions that no call has begun to end.
    pub(crate) fn live(&self) -> impl Iterator<Item = &ListedSession> {
        self.entries.iter().filter(|entry| !entry.ending)
    }

    /// Returns the sessions among these up to the login `id`, which was entered after the others. If it is not on the list, it comes
    /// last. The order of the list decides, because hosts and seconds disagree on times.
    pub(crate) fn live_up_to(&self, id: SessionId) -> impl Iterator<Item = &ListedSession> {
        let own = self.entries.iter().position(|entry| entry.id == id);
        let count = own.map_or(self.entries.len(), |at| at + 1);
        self.entries.iter().take(count).filter(|entry| !entry.ending)
    }

    /// Returns true if the session is on the list, whether or not it is being ended.
    pub(crate) fn names(&self, id: SessionId) -> bool {
        self.entries.iter().any(|entry| entry.id == id)
    }

    pub(crate) fn has(&self, id: SessionId) -> bool {
        self.live().any(|entry| entry.id == id)
    }

    /// Enters a session: a login comes last, and a session under another token next to the one under the old token. Returns false if
    /// the session that it replaces is being ended: it must not continue under another id.
    pub(crate) fn enter(
        &mut self,
        entry: ListedSession,
        instead_of: Option<SessionId>,
        is_login: bool,
    ) -> bool {
        let replaced = self.entries.iter().position(|entry| Some(entry.id) == instead_of);
        if replaced.and_then(|at| self.entries.get(at)).is_some_and(|entry| entry.ending) {
            return false;
        }
        // If it is there already, the reply to the step that entered it was lost. It may be being ended by now.
        if self.entries.iter().all(|present| present.id != entry.id) {
            let place = replaced.filter(|_| !is_login).map_or(self.entries.len(), |at| at + 1);
            self.entries.insert(place, entry);
        }
        true
    }

    /// Returns true if a call began to end a session, and is still at it or gave up.
    pub(crate) fn is_unfinished(&self) -> bool {
        self.entries.iter().any(|entry| entry.ending)
    }

    /// Drops sessions that have expired.
    pub(crate) fn prune(&mut self, now: Timestamp) {
        self.entries.retain(|entry| entry.until > now);
    }

    pub(crate) fn remove(&mut self, ids: &[SessionId]) {
        self.entries.retain(|entry| !ids.contains(&entry.id));
    }

    /// Flags the sessions that `which` picks as being ended. Returns them, and any that an earlier call left
    /// unfinished.
    pub(crate) fn end(&mut self, which: impl Fn(&ListedSession) -> bool) -> Vec<ListedSession> {
        for entry in &mut self.entries {
            entry.ending |= which(entry);
        }
        self.entries.iter().filter(|entry| entry.ending).copied().collect()
    }

    /// Returns the latest deadline of the listed sessions.
    pub(crate) fn until(&self) -> Option<Timestamp> {
        self.entries.iter().map(|entry| entry.until).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(id: u8, until: u64) -> ListedSession {
        let time = Timestamp::from_unix;
        ListedSession {
            id: SessionId::from_bytes([id; 16]),
            entered: time(1),
            until: time(until),
            ending: false,
        }
    }

    #[test]
    fn a_list_reads_back_as_it_was_written() {
        let list = SessionList { entries: vec![entry(1, 5), ListedSession { ending: true, ..entry(2, 9) }] };
        let bytes = list.to_bytes();
        assert_eq!(bytes.len(), 2 * 33);
        assert_eq!(
            bytes[33..],
            [&[2; 16][..], &[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 1]].concat()
        );
        assert_eq!(SessionList::from_bytes(&bytes), Some(list));
        assert_eq!(SessionList::from_bytes(&bytes[1..]), None);
        assert_eq!(SessionList::from_bytes(&[&bytes[..65], &[2]].concat()), None);
    }

    #[test]
    fn ending_takes_what_was_left_behind_along() {
        let mut list = SessionList { entries: vec![entry(1, 9), entry(2, 9), entry(3, 9)] };
        let ended = list.end(|entry| entry.id == SessionId::from_bytes([2; 16]));
        assert_eq!(ended, [ListedSession { ending: true, ..entry(2, 9) }]);
        assert_eq!(list.end(|entry| entry.id == SessionId::from_bytes([1; 16])).len(), 2);
        assert!(!list.has(entry(2, 9).id) && list.has(entry(3, 9).id));
        assert!(
            list.names(entry(2, 9).id) && !list.names(entry(4, 9).id),
            "a session that is being ended is listed"
        );
        list.remove(&[entry(1, 9).id, entry(2, 9).id]);
        assert_eq!(list.entries, [entry(3, 9)]);
    }

    #[test]
    fn what_replaces_a_session_takes_its_place_and_ends_with_it() {
        let mut list = SessionList { entries: vec![entry(1, 9), entry(2, 9)] };
        assert!(list.enter(entry(3, 9), Some(entry(1, 9).id), false));
        assert!(list.enter(entry(3, 9), Some(entry(1, 9).id), false), "a step that is repeated");
        assert!(list.enter(entry(4, 9), Some(entry(7, 9).id), false));
        assert!(list.enter(entry(6, 9), Some(entry(1, 9).id), true), "a login");
        let ids =
            |list: &SessionList| list.entries.iter().map(|entry| entry.id.to_bytes()[0]).collect::<Vec<_>>();
        assert_eq!(ids(&list), [1, 3, 2, 4, 6]);
        assert!(!list.is_unfinished());
        list.end(|ended| ended.id == entry(2, 9).id);
        assert!(list.is_unfinished());
        assert!(!list.enter(entry(5, 9), Some(entry(2, 9).id), false));
        assert_eq!(ids(&list), [1, 3, 2, 4, 6]);
        assert!(
            list.enter(entry(2, 9), None, false) && !list.has(entry(2, 9).id),
            "what is being ended stays so"
        );
    }

    #[test]
    fn deadlines_prune() {
        let mut list = SessionList { entries: vec![entry(1, 5), entry(2, 9)] };
        assert_eq!(list.until(), Some(Timestamp::from_unix(9)));
        list.prune(Timestamp::from_unix(5));
        assert_eq!(list.entries, [entry(2, 9)]);
        list.prune(Timestamp::from_unix(9));
        assert_eq!(list.until(), None);
    }

    proptest! {
        #[test]
        fn any_bytes_read_back_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(list) = SessionList::from_bytes(&bytes) {
                prop_assert_eq!(list.to_bytes(), bytes);
            }
        }
    }
}
