//! The challenges that were answered moments ago in this process: each is accepted once.

use std::collections::{HashSet, VecDeque};
use std::sync::Mutex;

use crate::clock::Timestamp;
use crate::lock::lock;

/// The end of a sealed challenge, which is its signature: 132 bits.
type ChallengeTail = [u8; 22];

/// How many challenges are remembered: at one refresh in eight minutes, those of a hundred thousand devices. Beyond that, the
/// oldest are forgotten. An answer that is replayed then gains nothing, because the bound cookie that it is worth does not
/// last longer than that of the first one.
const MAX: usize = 1 << 16;

#[derive(Default)]
pub(super) struct Answered {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    known: HashSet<ChallengeTail>,
    /// With the time from which on each is too old, in the order of their answers.
    order: VecDeque<(Timestamp, ChallengeTail)>,
}

impl Answered {
    /// Notes that the challenge of this text was answered at `now`. It is remembered until `end`, when it is too old. Returns
    /// false if it was answered before.
    pub(super) fn first(&self, challenge: &str, end: Timestamp, now: Timestamp) -> bool {
        let Some(&tail) = challenge.as_bytes().last_chunk() else { return false };
        let mut inner = lock(&self.inner);
        let Inner { known, order } = &mut *inner;
        // A challenge of a host whose clock is ahead keeps the challenges behind it for longer.
        let is_too_old = |(end, _): &&(Timestamp, ChallengeTail)| *end <= now;
        while order.front().as_ref().is_some_and(is_too_old) || order.len() >= MAX {
            let Some((_, oldest)) = order.pop_front() else { break };
            known.remove(&oldest);
        }
        if !known.insert(tail) {
            return false;
        }
        order.push_back((end, tail));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(number: usize) -> String {
        format!("challenge-{number:022}")
    }

    #[test]
    fn a_challenge_is_answered_once_while_it_lives() {
        let answered = Answered::default();
        let at = Timestamp::from_unix;
        assert!(answered.first(&text(1), at(400), at(100)));
        assert!(answered.first(&text(2), at(401), at(101)));
        assert!(!answered.first(&text(1), at(400), at(399)));
        assert!(answered.first(&text(1), at(400), at(400)));
        assert!(!answered.first(&text(2), at(401), at(400)), "a second later");
        assert!(!answered.first("short", at(400), at(100)));
    }

    #[test]
    fn a_challenge_of_a_host_whose_clock_is_behind_shortens_no_other_ones_memory() {
        let at = Timestamp::from_unix;
        for (now, known) in [(119, [true; 4]), (120, [false, true, true, true]), (699, [false; 4])] {
            let answered = Answered::default();
            for (number, end) in [(1, 120), (2, 699), (3, 120), (4, 400)] {
                assert!(answered.first(&text(number), at(end), at(100)));
            }
            let firsts = [1, 2, 3, 4].map(|number| answered.first(&text(number), at(now + 300), at(now)));
            assert_eq!(firsts.map(|first| !first), known, "{now}");
        }
    }

    #[test]
    fn memory_is_bounded() {
        let answered = Answered::default();
        let now = Timestamp::from_unix(100);
        let end = Timestamp::from_unix(400);
        assert!((0..MAX + 10).all(|number| answered.first(&text(number), end, now)));
        let inner = answered.inner.lock().unwrap();
        assert_eq!((inner.known.len(), inner.order.len()), (MAX, MAX));
    }
}
