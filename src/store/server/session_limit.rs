//! The session limit: the outcome of a login of a subject with the maximum number of sessions.

use crate::clock::Timestamp;
use crate::session::SessionId;

/// The outcome of a login of a subject with the maximum number of sessions
/// ([`max_sessions_per_subject`](crate::store::Builder::max_sessions_per_subject)).
///
/// # Examples
///
/// See [`at_session_limit`](crate::store::Builder::at_session_limit).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SessionLimit {
    /// Ends the session that was not used for the longest time. The default.
    #[default]
    EndLeastRecentlyUsed,
    /// Refuses the login: saving it fails with [`is_session_limit`](crate::Error::is_session_limit). A handler that wants to
    /// say so calls [`Session::save`](crate::Session::save).
    RefuseLogin,
}

/// Returns the sessions to end so that `max` are left: first the sessions that were not used for the longest time, and, of
/// sessions that were used at the same time, the earliest logins. `live` is in the order of logins.
pub(super) fn surplus(mut live: Vec<(Timestamp, SessionId)>, max: usize) -> Vec<SessionId> {
    let surplus = live.len().saturating_sub(max);
    live.sort_by_key(|(last_seen, _)| *last_seen); // stable: the order of logins stays
    live.into_iter().take(surplus).map(|(_, id)| id).collect()
}

/// Returns true if `id` is one of the logins that came too late: of two at once, one is not refused because of the other.
pub(super) fn came_too_late(live: &[(Timestamp, SessionId)], max: usize, id: SessionId) -> bool {
    live.iter().skip(max).any(|(_, late)| *late == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(last_seen: &[u64]) -> Vec<(Timestamp, SessionId)> {
        let id = |number| SessionId::from_bytes([number; 16]);
        (0..).zip(last_seen).map(|(number, at)| (Timestamp::from_unix(*at), id(number))).collect()
    }

    fn numbers(ids: &[SessionId]) -> Vec<u8> {
        ids.iter().map(|id| id.to_bytes()[0]).collect()
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        assert_eq!(numbers(&surplus(live(&[5, 9, 1, 7]), 2)), [2, 0]);
        assert_eq!(numbers(&surplus(live(&[5, 5, 5]), 2)), [0]);
        assert_eq!(numbers(&surplus(live(&[5, 5]), 2)), [0; 0]);
    }

    #[test]
    fn of_two_logins_at_once_the_first_one_on_the_list_stays() {
        let live = live(&[5, 5, 5]);
        assert!(!came_too_late(&live, 2, live[1].1) && came_too_late(&live, 2, live[2].1));
        assert!(!came_too_late(&live, 3, live[2].1));
    }
}
