//! The challenges that were answered moments ago in this process: each is accepted once.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use super::challenge::LIFE;
use crate::clock::Timestamp;

/// The end of a sealed challenge, which is its signature: 132 bits.
type Mark = [u8; 22];

/// How many challenges are remembered: at one refresh in eight minutes, those of half a million devices. Beyond that, the
/// oldest are forgotten. An answer that is replayed then gains nothing, because the bound cookie that it is worth does not
/// last longer than that of the first one.
const MAX: usize = 1 << 16;

#[derive(Default)]
pub(super) struct Answered {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    known: HashSet<Mark>,
    /// In the order of their answers.
    order: VecDeque<(Timestamp, Mark)>,
}

impl Answered {
    /// Notes that the challenge of this text was answered at `now`. Returns false if it was answered before.
    pub(super) fn first(&self, challenge: &str, now: Timestamp) -> bool {
        let Some(&mark) = challenge.as_bytes().last_chunk() else { return false };
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Inner { known, order } = &mut *inner;
        // A challenge is accepted for `LIFE` after its time, and for as long before it.
        let over = |(at, _): &&(Timestamp, Mark)| now.saturating_since(*at).as_secs() >= 2 * LIFE;
        while order.front().as_ref().is_some_and(over) || order.len() >= MAX {
            let Some((_, oldest)) = order.pop_front() else { break };
            known.remove(&oldest);
        }
        if !known.insert(mark) {
            return false;
        }
        order.push_back((now, mark));
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
        assert!(answered.first(&text(1), at(100)));
        assert!(answered.first(&text(2), at(101)));
        assert!(!answered.first(&text(1), at(100 + 2 * LIFE - 1)));
        assert!(answered.first(&text(1), at(100 + 2 * LIFE)));
        assert!(!answered.first(&text(2), at(100 + 2 * LIFE)), "a second later");
        assert!(!answered.first("short", at(100)));
    }

    #[test]
    fn memory_is_bounded() {
        let answered = Answered::default();
        let now = Timestamp::from_unix(100);
        assert!((0..MAX + 10).all(|number| answered.first(&text(number), now)));
        let inner = answered.inner.lock().unwrap();
        assert_eq!((inner.known.len(), inner.order.len()), (MAX, MAX));
    }
}
