//! The mapping from positions to times: which revocations are old enough to be forgotten, and which are recent.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Timestamp;

/// The resolution of old times: forgetting is late by this share of the horizon at most.
const STEPS: u64 = 64;
/// For how long times are kept exactly.
pub(super) const RECENT: Duration = Duration::from_secs(300);
/// The step until it is known how long sessions last.
const LONGEST_STEP: u64 = 12 * 3_600;
/// Fewer points are not worth joining.
const FEW: usize = 512;

/// Returns by how much forgetting may be late.
pub(super) fn step(horizon: Duration) -> Duration {
    Duration::from_secs((horizon.as_secs() / STEPS).clamp(1, LONGEST_STEP))
}

/// The position that the log had reached at each time. Both only grow.
#[derive(Default)]
pub(super) struct Timeline {
    points: VecDeque<(Timestamp, u64)>,
    /// How many points there may be before they are joined.
    limit: usize,
}

impl Timeline {
    /// Notes that `position` was written at `time`.
    pub(super) fn note(&mut self, time: Timestamp, position: u64, horizon: Duration) {
        let time = self.points.back().map_or(time, |(last, _)| time.max(*last));
        match self.points.back_mut() {
            Some((last, reached)) if *last == time => *reached = position.max(*reached),
            _ => self.points.push_back((time, position)),
        }
        self.thin(time, horizon);
    }

    /// Joins old points, so that there are a few hundred at most. Of the points in one step, the last one stays.
    fn thin(&mut self, now: Timestamp, horizon: Duration) {
        if self.points.len() < self.limit.max(FEW) {
            return;
        }
        let step = step(horizon).as_secs();
        let recent = now.as_unix().saturating_sub(RECENT.as_secs());
        let mut kept: VecDeque<(Timestamp, u64)> = VecDeque::with_capacity(self.points.len());
        for (time, position) in self.points.drain(..) {
            match kept.back_mut() {
                Some(last) if time.as_unix() < recent && last.0.as_unix() / step == time.as_unix() / step => {
                    *last = (time, position);
                }
                _ => kept.push_back((time, position)),
            }
        }
        self.points = kept;
        self.limit = 2 * self.points.len();
    }

    /// Returns when `position` was written, or `None` if no position from there on was noted.
    pub(super) fn written(&self, position: u64) -> Option<Timestamp> {
        let before = self.points.partition_point(|(_, reached)| *reached < position);
        self.points.get(before).map(|(written, _)| *written)
    }

    /// Returns the last position that was surely written at `time` or before, or zero.
    pub(super) fn reached_by(&self, time: Timestamp) -> u64 {
        let after = self.points.partition_point(|(written, _)| *written <= time);
        after.checked_sub(1).and_then(|at| self.points.get(at)).map_or(0, |(_, position)| *position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_step_is_a_64th_of_the_horizon_within_bounds() {
        for (horizon, expected) in [(0, 1), (640, 10), (64 * 86_400, 12 * 3_600), (u64::MAX, 12 * 3_600)] {
            assert_eq!(step(Duration::from_secs(horizon)), Duration::from_secs(expected));
        }
    }

    #[test]
    fn positions_of_one_second_are_one_point() {
        let (mut line, time) = (Timeline::default(), Timestamp::from_unix(9));
        for position in [3, 5, 4] {
            line.note(time, position, Duration::from_secs(640));
        }
        assert_eq!(line.points, [(time, 5)]);
    }

    /// Points are joined when there are many, not at each note; and again when their number has doubled.
    #[test]
    fn old_points_are_joined_now_and_then_and_recent_ones_never() {
        let mut line = Timeline::default();
        let mut now = 0;
        let mut note = |line: &mut Timeline| {
            line.note(Timestamp::from_unix(now), now, Duration::from_secs(640));
            now += 1;
            line.points.len()
        };
        for expected in 1..FEW {
            assert_eq!(note(&mut line), expected);
        }
        // Of the seconds 0 to 210, one point in each step of ten seconds stays; 211 to 511 are recent.
        assert_eq!(note(&mut line), 22 + 301);
        for expected in 324..646 {
            assert_eq!(note(&mut line), expected);
        }
        assert!(note(&mut line) < 400);
    }

    proptest! {
        #[test]
        fn it_never_says_that_something_is_older_than_it_is(gaps in proptest::collection::vec(0..5_000_u64, 1..2_000)) {
            let horizon = Duration::from_secs(7 * 86_400);
            let (mut line, mut written, mut now) = (Timeline::default(), Vec::new(), 1_000_000);
            for (position, gap) in (1_u64..).zip(gaps) {
                now += gap;
                written.push((now, position));
                line.note(Timestamp::from_unix(now), position, horizon);
            }
            prop_assert!(line.points.len() <= 1_000);
            for ago in [0, 1, 60, 3_600, 86_400, 7 * 86_400] {
                let time = now.saturating_sub(ago);
                let reached = line.reached_by(Timestamp::from_unix(time));
                let exact = written.iter().rev().find(|(at, _)| *at <= time).map_or(0, |(_, position)| *position);
                prop_assert!(reached <= exact);
                // It is late by one step at most.
                let step = step(horizon).as_secs();
                let late = written.iter().rev().find(|(at, _)| *at + step < time).map_or(0, |(_, position)| *position);
                prop_assert!(reached >= late, "{reached} < {late} at -{ago}");
            }
        }
    }
}
