//! The test suite for the contract of revocation logs.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::crypto::{Random, SystemRandom};
use crate::join::join;
use crate::revocation::{Entry, GRACE, Revocation, RevocationLog};

/// Checks a log against the [contract](RevocationLog#contract) of logs. `one` and `other` are the same log, as two
/// processes open it.
///
/// The check adds entries, raises the positions, and trims the log to nothing: give it a log of its own, and never one that a
/// service uses.
///
/// # Panics
///
/// If the log breaks the contract, with a description. Outside of a tokio runtime with timers, which a log is followed in, too.
///
/// # Examples
///
/// `examples/custom_revocation_log.rs` checks its own log.
#[allow(clippy::panic)] // reports a failed check
pub async fn check_revocation_log<L: RevocationLog>(one: &L, other: &L) {
    assert_eq!(one.incarnation(), other.incarnation(), "both processes count in one incarnation");
    let suite = Suite { one, other };
    suite.appended_is_read_elsewhere().await;
    suite.positions_rise_above_what_the_caller_has_seen().await;
    suite.raised_without_an_entry_of_the_caller().await;
    suite.many_come_in_pages().await;
    suite.appended_at_once().await;
    suite.a_reader_is_woken().await;
    suite.a_reader_waits_as_long_as_it_was_told().await;
    suite.the_history_is_one().await;
    suite.young_entries_are_not_trimmed().await;
}

struct Suite<'a, L> {
    one: &'a L,
    other: &'a L,
}

#[allow(clippy::expect_used, clippy::panic)] // reports a failed check
impl<L: RevocationLog> Suite<'_, L> {
    fn some(count: usize) -> Vec<Revocation> {
        let revocation = |_| {
            let mut bytes = [0; Revocation::LEN];
            SystemRandom.fill(&mut bytes[..16]).expect("random names for the test");
            bytes[16] = 1;
            Revocation::from_bytes(&bytes).expect("a revocation")
        };
        (0..count).map(revocation).collect()
    }

    /// Returns all entries behind `after`, in as many pages as it takes.
    async fn read_all(log: &L, mut after: u64) -> (Vec<Entry>, u64) {
        let mut all: Vec<Entry> = Vec::new();
        loop {
            let page = log.read(after, Duration::ZERO).await.expect("read");
            assert!(!page.more || !page.entries.is_empty(), "a page with more behind it must not be empty");
            for entry in page.entries {
                assert!(
                    entry.position > after,
                    "entries must be in the order of their positions, behind `after`"
                );
                assert!(entry.position < 1 << 62, "positions must be below 2^62");
                after = entry.position;
                all.push(entry);
            }
            if !page.more {
                assert!(page.top >= after, "the top must not be before the last entry");
                return (all, page.top);
            }
        }
    }

    fn revocations(entries: &[Entry]) -> Vec<Revocation> {
        entries.iter().map(|entry| entry.revocation).collect()
    }

    async fn appended_is_read_elsewhere(&self) {
        let before = self.one.top(0).await.expect("top");
        let three = Self::some(3);
        let last = self.one.append(three.clone(), 0).await.expect("append");
        let (entries, top) = Self::read_all(self.other, before).await;
        assert_eq!(Self::revocations(&entries), three, "appended entries must be read unchanged, in order");
        assert_eq!(
            entries.last().map(|entry| entry.position),
            Some(last),
            "append must return the last position"
        );
        assert_eq!(top, last);
        assert_eq!(
            self.other.top(0).await.expect("top"),
            last,
            "the top must be the position of the last entry"
        );
        let (nothing, _) = Self::read_all(self.one, last).await;
        assert!(nothing.is_empty(), "there must be nothing behind the last entry");
    }

    async fn positions_rise_above_what_the_caller_has_seen(&self) {
        let top = self.one.top(0).await.expect("top");
        let one = Self::some(1);
        let position = self.other.append(one.clone(), top + 1_000).await.expect("append");
        assert!(position > top + 1_000, "a position must be above `above`, not {position}");
        let next = self.one.append(Self::some(1), 0).await.expect("append");
        assert!(next > position, "positions must rise");
        let (entries, _) = Self::read_all(self.one, top).await;
        assert!(
            Self::revocations(&entries).ends_with(&one) || Self::revocations(&entries).starts_with(&one),
            "the appended entry must be there"
        );
    }

    async fn raised_without_an_entry_of_the_caller(&self) {
        let top = self.one.top(0).await.expect("top");
        let raised = self.one.top(top + 500).await.expect("top");
        assert!(raised >= top + 500, "top must raise the log to `at_least`");
        let one = Self::some(1);
        let position = self.other.append(one.clone(), 0).await.expect("append");
        assert!(position > raised, "an entry that is appended afterwards must come behind it");
        let (entries, _) = Self::read_all(self.other, raised).await;
        assert_eq!(Self::revocations(&entries), one, "raising the log must not add a revocation");
    }

    async fn many_come_in_pages(&self) {
        let before = self.one.top(0).await.expect("top");
        let many = Self::some(3_000);
        for batch in many.chunks(256) {
            self.one.append(batch.to_vec(), 0).await.expect("append");
        }
        let (entries, _) = Self::read_all(self.other, before).await;
        assert_eq!(Self::revocations(&entries), many);
    }

    async fn appended_at_once(&self) {
        let before = self.one.top(0).await.expect("top");
        let (mut positions, mut expected) = (BTreeSet::new(), BTreeSet::new());
        for _ in 0..20 {
            let (a, b) = (Self::some(2), Self::some(2));
            let (first, second) = join(self.one.append(a.clone(), 0), self.other.append(b.clone(), 0)).await;
            positions.extend([first.expect("append"), second.expect("append")]);
            expected.extend([a, b].concat().iter().map(|revocation| revocation.to_bytes()));
        }
        assert_eq!(positions.len(), 40, "no two appends may get the same position");
        let (entries, _) = Self::read_all(self.other, before).await;
        let read: BTreeSet<_> = entries.iter().map(|entry| entry.revocation.to_bytes()).collect();
        assert_eq!(read, expected, "no appended entry may be lost");
        assert_eq!(entries.len(), 80, "no appended entry may be there twice");
    }

    async fn a_reader_is_woken(&self) {
        let top = self.one.top(0).await.expect("top");
        let one = Self::some(1);
        let (page, appended) =
            join(self.other.read(top, Duration::from_secs(20)), self.one.append(one.clone(), 0)).await;
        appended.expect("append");
        // It may have been woken without a new entry, or just before it.
        let page = page.expect("read");
        let (rest, _) =
            Self::read_all(self.other, page.entries.last().map_or(top, |last| last.position)).await;
        assert_eq!(Self::revocations(&[page.entries, rest].concat()), one);
    }

    /// A read that returns too early costs work, and one that returns too late is taken for a failure.
    async fn a_reader_waits_as_long_as_it_was_told(&self) {
        const WAIT: Duration = Duration::from_millis(200);
        let top = self.one.top(0).await.expect("top");
        // A busy machine may be late, though not so often. That may hide a read that returns too early, though not twice.
        let mut in_time = 0;
        for _ in 0..20 {
            let start = Instant::now();
            let read = timeout(Duration::from_secs(60), self.one.read(top, WAIT)).await;
            let page = read.expect("a read must not wait for much longer than `wait`").expect("read");
            assert!(page.entries.is_empty(), "nothing was appended");
            let waited = start.elapsed();
            assert!(waited >= WAIT / 2, "a read must wait for entries, and not return after {waited:?}");
            if waited <= WAIT + GRACE {
                in_time += 1;
            }
            if in_time == 2 {
                return;
            }
        }
        panic!("a read must not wait for more than {GRACE:?} longer than `wait`");
    }

    async fn the_history_is_one(&self) {
        let top = self.one.top(0).await.expect("top");
        let before = self.one.read(top, Duration::ZERO).await.expect("read");
        self.other.append(Self::some(1), 0).await.expect("append");
        for log in [self.one, self.other] {
            let after = log.read(top, Duration::ZERO).await.expect("read");
            assert_eq!(
                after.history, before.history,
                "the history must stay while no entry can have been lost"
            );
        }
    }

    async fn young_entries_are_not_trimmed(&self) {
        let before = self.one.top(0).await.expect("top");
        let some = Self::some(5);
        self.one.append(some.clone(), 0).await.expect("append");
        self.one.trim(Duration::from_secs(3_600)).await.expect("trim");
        let (entries, _) = Self::read_all(self.other, before).await;
        assert_eq!(Self::revocations(&entries), some);
        self.one.trim(Duration::ZERO).await.expect("trim");
        let last = entries.last().map_or(before, |last| last.position);
        for log in [self.one, self.other] {
            let top = log.top(0).await.expect("top");
            let page = log.read(last, Duration::ZERO).await.expect("read");
            assert!(top.min(page.top) >= last, "the top must not go back when its entry is trimmed");
        }
        let next = self.one.append(Self::some(1), 0).await.expect("append");
        assert!(next > last, "positions must not begin anew after trimming");
    }
}
