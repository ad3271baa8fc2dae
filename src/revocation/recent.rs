//! The entries that a failover may have lost: those of the last minutes, and entries that this process has not read back.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::revocation::{Key, Mark, Revocation};
use crate::lock::lock;

/// For how long an entry is recent.
const RECENT: Duration = Duration::from_secs(120);
const MAX_RECENT: usize = 1 << 16;

/// The recent entries, in the order in which this process learned of them.
#[derive(Default)]
pub(super) struct RecentEntries {
    recent: Mutex<VecDeque<Recent>>,
    /// Entries that this process has appended, and not read back yet.
    unread: Mutex<VecDeque<Unread>>,
}

struct Recent {
    seen: Instant,
    position: u64,
    revocation: Revocation,
    /// True if it was read in the log, and not merely appended.
    read: bool,
}

/// An entry that must appear when the log is read from `above` to `last`. Another entry with its name may be there, too.
#[derive(Clone, Copy)]
pub(super) struct Unread {
    pub(super) above: u64,
    pub(super) last: u64,
    pub(super) revocation: Revocation,
}

impl RecentEntries {
    /// Remembers entries that were read, or merely appended.
    pub(super) fn remember(&self, entries: impl Iterator<Item = (u64, Revocation)>, read: bool) {
        let seen = Instant::now();
        let mut recent = lock(&self.recent);
        let is_old = |first: &Recent| seen.saturating_duration_since(first.seen) > RECENT;
        while recent.front().is_some_and(is_old) {
            recent.pop_front();
        }
        for (position, revocation) in entries {
            if recent.len() >= MAX_RECENT {
                recent.pop_front();
            }
            recent.push_back(Recent { seen, position, revocation, read });
        }
    }

    /// Expects an entry that this process has appended to be read.
    pub(super) fn expect(&self, entry: Unread) {
        let mut unread = lock(&self.unread);
        if unread.len() >= MAX_RECENT {
            // Nothing is read for so long only while the log fails. After that, all recent entries are looked for.
            unread.pop_front();
        }
        unread.push_back(entry);
    }

    /// Returns true if a recent revocation of `key` is behind `from` and before `to`, or there were too many to tell. One like
    /// `own` is by the same call: it was sent again after a reply was lost.
    pub(super) fn may_name_between(&self, key: Key, from: u64, to: u64, own: Revocation) -> bool {
        let recent = lock(&self.recent);
        let is_between = |recent: &Recent| {
            let position = recent.revocation.mark(recent.position).position();
            recent.revocation.key() == key && recent.revocation != own && position > from && position < to
        };
        // Entries that were dropped may lie behind `from`.
        let dropped =
            recent.len() >= MAX_RECENT && recent.front().is_none_or(|oldest| oldest.position > from);
        dropped || recent.iter().any(is_between)
    }

    /// Checks the entries that this process appended, and that the log must have had where it was read to `top`. Returns true if one
    /// was missing. Each entry is checked once.
    pub(super) fn check_off(&self, top: u64) -> bool {
        let mut missing: HashMap<Revocation, Vec<Unread>> = HashMap::new();
        lock(&self.unread).retain(|entry| {
            let due = entry.last <= top;
            if due {
                missing.entry(entry.revocation).or_default().push(*entry);
            }
            !due
        });
        // They are among the last entries, and there may be thousands of them.
        for recent in lock(&self.recent).iter().rev().filter(|recent| recent.read) {
            if missing.is_empty() {
                break;
            }
            if let Some(entries) = missing.get_mut(&recent.revocation) {
                entries.retain(|entry| recent.position <= entry.above || recent.position > entry.last);
                if entries.is_empty() {
                    missing.remove(&recent.revocation);
                }
            }
        }
        !missing.is_empty()
    }

    /// Returns the position before all recent entries, or `top` if there are none.
    pub(super) fn before(&self, top: u64) -> u64 {
        lock(&self.recent)
            .iter()
            .map(|recent| recent.position)
            .min()
            .map_or(top, |first| first.saturating_sub(1))
    }

    /// Returns the recent revocations that are in force.
    pub(super) fn marks(&self) -> Vec<(Key, Mark)> {
        let recent = lock(&self.recent);
        recent
            .iter()
            .map(|recent| (recent.revocation.key(), recent.revocation.mark(recent.position)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Revocation {
        Revocation::of_owner([7; 16])
    }

    #[test]
    fn a_log_that_is_not_read_does_not_fill_the_memory() {
        let entries = RecentEntries::default();
        for _ in 0..=MAX_RECENT {
            entries.expect(Unread { above: 0, last: 1, revocation: owner() });
        }
        assert_eq!(lock(&entries.unread).len(), MAX_RECENT);
        assert!(entries.check_off(1));
        assert_eq!(lock(&entries.unread).len(), 0);
    }

    #[test]
    fn an_entry_is_recent_for_two_minutes() {
        let entries = RecentEntries::default();
        let remember = |position| entries.remember(std::iter::once((position, owner())), true);
        remember(1);
        remember(2);
        assert_eq!((entries.marks().len(), entries.before(9)), (2, 0));
        for recent in lock(&entries.recent).iter_mut().take(1) {
            recent.seen = recent.seen.checked_sub(RECENT + Duration::from_secs(1)).unwrap();
        }
        remember(3);
        assert_eq!((entries.marks().len(), entries.before(9)), (2, 1));
    }

    #[test]
    fn only_another_end_of_the_subject_in_between_counts() {
        let of = |name| Revocation::of_owner([name; 16]);
        let by_call = |call| of(8).by_this_call(call);
        for (position, revocation, counts) in [
            (2, of(8), false),
            (3, of(8), true),
            (4, of(8), true),
            (5, of(8), false),
            (3, of(7), false),
            (3, by_call(1), false),
            (3, by_call(2), true),
        ] {
            let entries = RecentEntries::default();
            entries.remember(std::iter::once((position, revocation)), true);
            let named = entries.may_name_between(Key::of_name([8; 16]), 2, 5, by_call(1));
            assert_eq!(named, counts, "{revocation:?} at {position}");
        }
    }

    // Another end of the subject may have been among them. The session must not continue behind it.
    #[test]
    fn recent_entries_that_were_dropped_may_have_ended_the_subject() {
        let owner = Key::of_name([8; 16]);
        let is_named = |entries: &RecentEntries, from| {
            entries.may_name_between(owner, from, u64::MAX, Revocation::of_everything())
        };
        let entry = |position, name| (position, Revocation::of_owner([name; 16]));
        let last = MAX_RECENT as u64;
        let entries = RecentEntries::default();
        entries.remember((2..=last).map(|position| entry(position, 7)), true);
        assert!(!is_named(&entries, 1), "there is room for one more");
        // On one page, too, the first entry is dropped.
        let entries = RecentEntries::default();
        entries.remember(
            (1..=last + 1).map(|position| entry(position, if position == 1 { 8 } else { 7 })),
            true,
        );
        assert_eq!([0, 2].map(|from| is_named(&entries, from)), [true, false]);
    }

    #[test]
    fn each_of_two_entries_with_one_name_must_be_read() {
        for (there, lost) in [(&[2, 4][..], false), (&[2], true), (&[4], true), (&[], true)] {
            let entries = RecentEntries::default();
            for last in [2, 4] {
                entries.expect(Unread { above: last - 1, last, revocation: owner() });
            }
            entries.remember(there.iter().map(|position| (*position, owner())), true);
            assert_eq!(entries.check_off(4), lost, "{there:?}");
        }
    }
}
