//! When the masters of a Cluster are asked for, and which of the nodes' views counts.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::health::PROBE_EVERY;
use super::slot_map::{SLOTS, SlotRange};
use crate::lock::lock;

/// The longest time that a task takes to ask for the masters.
pub(super) const LONGEST: Duration = Duration::from_secs(1);

/// A task that asks for the masters is replaced after this time: its runtime does not run it.
const LATE: Duration = Duration::from_secs(2);

/// While the known nodes name masters that have failed, the seeds are asked this often. That takes new connections.
const SEEDS_EVERY: Duration = Duration::from_secs(1);

/// When the masters were last asked for, and which task does so now.
#[derive(Default)]
pub(super) struct Refreshing {
    last: Option<Instant>,
    /// The number of the task, and when it began.
    asking: Option<(u64, Instant)>,
    next: u64,
    seeds_asked: Option<Instant>,
}

/// The answer to a call that needs the masters.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refresh {
    /// A task with this number is to ask for them.
    Begins { number: u64 },
    /// A task asks for them already.
    IsUnderWay,
    /// They were asked for less than a tenth of a second ago.
    JustDone,
}

impl Refreshing {
    pub(super) fn begin(&mut self, now: Instant) -> Refresh {
        let is_within = |time: Instant, limit| now.saturating_duration_since(time) < limit;
        if self.asking.is_some_and(|(_, begun)| is_within(begun, LATE)) {
            return Refresh::IsUnderWay;
        }
        if self.last.is_some_and(|last| is_within(last, PROBE_EVERY)) {
            return Refresh::JustDone;
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.last = Some(now);
        self.asking = Some((number, now));
        Refresh::Begins { number }
    }

    /// Notes that the task with this number has ended. Returns false if it was replaced.
    pub(super) fn end(&mut self, number: u64) -> bool {
        let is_own = self.asking.is_some_and(|(asking, _)| asking == number);
        if is_own {
            self.asking = None;
        }
        is_own
    }

    /// Returns true if the seeds may be asked `now`: always if no known node has answered.
    pub(super) fn may_ask_seeds(&mut self, is_unanswered: bool, now: Instant) -> bool {
        let is_due = self.seeds_asked.is_none_or(|asked| now.saturating_duration_since(asked) >= SEEDS_EVERY);
        if is_due || is_unanswered {
            self.seeds_asked = Some(now);
        }
        is_due || is_unanswered
    }
}

/// The views of a Cluster that nodes gave in one search for its masters.
///
/// A node that is cut off from the others still answers, and names the masters of that time. A view cannot be told from an older
/// one, except by the masters in it that have failed.
pub(super) struct Views<F> {
    /// The addresses of the nodes that do not answer.
    suspects: HashSet<(String, u16)>,
    /// Returns true if the address is that of the present owner of the slot.
    is_owner: F,
    best: Mutex<Option<Best>>,
}

struct Best {
    rank: Rank,
    /// `None` once it was taken.
    view: Option<Vec<SlotRange>>,
}

/// The lowest is the best.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// The slots whose master is a suspect, or missing.
    unusable: usize,
    /// The slots that would get another owner. If nothing is known to be better, nothing should change.
    changed: usize,
}

impl<F: Fn(usize, &(String, u16)) -> bool> Views<F> {
    pub(super) fn new(suspects: HashSet<(String, u16)>, is_owner: F) -> Self {
        Self { suspects, is_owner, best: Mutex::new(None) }
    }

    /// Keeps this view if it is the best so far. Returns true if it has a usable master for each slot.
    pub(super) fn add(&self, view: Vec<SlotRange>) -> bool {
        let rank = self.rank(&view);
        let mut best = lock(&self.best);
        if best.as_ref().is_none_or(|best| rank < best.rank) {
            *best = Some(Best { rank, view: Some(view) });
        }
        rank.unusable == 0
    }

    /// Takes the best view, if one was added that is better than what was taken before.
    pub(super) fn take_best(&self) -> Option<Vec<SlotRange>> {
        lock(&self.best).as_mut()?.view.take()
    }

    fn rank(&self, view: &[SlotRange]) -> Rank {
        let mut rank = Rank { unusable: SLOTS, changed: 0 };
        for range in view {
            let address = (range.host.clone(), range.port);
            let slots = range.first..=range.last;
            if !self.suspects.contains(&address) {
                rank.unusable = rank.unusable.saturating_sub(slots.clone().count());
            }
            rank.changed += slots.filter(|slot| !(self.is_owner)(*slot, &address)).count();
        }
        rank
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_millis(1);

    #[test]
    fn the_masters_are_asked_for_by_one_task_and_at_most_ten_times_a_second() {
        let (mut refreshing, begun) = (Refreshing::default(), Instant::now());
        assert_eq!(refreshing.begin(begun), Refresh::Begins { number: 0 });
        assert_eq!(refreshing.begin(begun + 2 * PROBE_EVERY), Refresh::IsUnderWay);
        assert!(refreshing.end(0) && !refreshing.end(0));
        assert_eq!(refreshing.begin(begun + PROBE_EVERY - MOMENT), Refresh::JustDone);
        assert_eq!(refreshing.begin(begun + PROBE_EVERY), Refresh::Begins { number: 1 });
    }

    /// The runtime of the first task is there, and no thread drives it.
    #[test]
    fn a_task_that_is_not_run_is_replaced_and_does_not_end_the_next_one() {
        let (mut refreshing, begun) = (Refreshing::default(), Instant::now());
        assert_eq!(refreshing.begin(begun), Refresh::Begins { number: 0 });
        assert_eq!(refreshing.begin(begun + LATE - MOMENT), Refresh::IsUnderWay);
        assert_eq!(refreshing.begin(begun + LATE), Refresh::Begins { number: 1 });
        assert!(!refreshing.end(0), "it runs again");
        assert_eq!(refreshing.begin(begun + LATE + PROBE_EVERY), Refresh::IsUnderWay);
        assert!(refreshing.end(1));
    }

    #[test]
    fn seeds_are_asked_once_a_second_while_known_nodes_answer() {
        let (mut refreshing, begun) = (Refreshing::default(), Instant::now());
        assert!(refreshing.may_ask_seeds(false, begun));
        assert!(!refreshing.may_ask_seeds(false, begun + SEEDS_EVERY - MOMENT));
        assert!(refreshing.may_ask_seeds(false, begun + SEEDS_EVERY));
        assert!(refreshing.may_ask_seeds(true, begun + SEEDS_EVERY));
        assert!(!refreshing.may_ask_seeds(false, begun + SEEDS_EVERY + MOMENT));
    }

    /// The ports of the masters of the two halves of the slots. 0 if it has none.
    fn view(low: u16, high: u16) -> Vec<SlotRange> {
        [(0, SLOTS / 2 - 1, low), (SLOTS / 2, SLOTS - 1, high)]
            .into_iter()
            .filter(|(.., port)| *port > 0)
            .map(|(first, last, port)| SlotRange { first, last, host: "h".to_owned(), port })
            .collect()
    }

    #[test]
    fn the_view_with_the_fewest_failed_masters_counts_and_then_the_one_that_changes_least() {
        let present = [1, 2];
        for (views, expected) in [
            (vec![view(1, 9)], view(1, 9)),
            (vec![view(1, 9), view(1, 3)], view(1, 3)),
            (vec![view(1, 3), view(1, 9)], view(1, 3)),
            (vec![view(1, 0), view(1, 3)], view(1, 3)),
            (vec![view(8, 9), view(4, 9), view(1, 9), view(5, 9)], view(1, 9)),
            (vec![view(8, 9), view(8, 2), view(8, 5)], view(8, 2)),
        ] {
            let suspects = [8, 9].map(|port| ("h".to_owned(), port)).into_iter().collect();
            let is_owner = |slot: usize, (_, port): &(String, u16)| present[slot * 2 / SLOTS] == *port;
            let all = Views::new(suspects, is_owner);
            assert_eq!(all.take_best(), None);
            let is_whole = views.into_iter().map(|view| all.add(view)).fold(false, |any, whole| any | whole);
            assert_eq!(is_whole, expected == view(1, 3));
            let best = all.take_best().unwrap();
            assert_eq!(best, expected);
            all.add(best);
            assert_eq!(all.take_best(), None, "it was taken");
            assert!(!all.add(view(8, 9)));
            assert_eq!(all.take_best(), None, "it is no better");
        }
    }
}
