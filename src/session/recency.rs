//! `Recency`: which of several sessions in one request is the newest.

use crate::clock::Timestamp;

/// The time of the last write of a session. Of several authentic sessions in one request, the one with the greatest value
/// counts.
///
/// Clocks have seconds, and the clocks of two hosts differ. So a token that is written in response to another token gets a
/// greater value than that one, whatever the clock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Recency {
    /// The time of the write.
    pub written: Timestamp,
    /// The number of the write within that second, up to `MAX_SEQUENCE`.
    pub sequence: u8,
}

impl Recency {
    pub(crate) const MAX_SEQUENCE: u8 = 15;

    /// Returns the first write of this second.
    pub(crate) const fn at(written: Timestamp) -> Self {
        Self { written, sequence: 0 }
    }

    /// Returns a write at `now`, in response to a session that was written at `previous`.
    ///
    /// The sequence saturates and does not carry into the seconds. Otherwise a session that is written often would run
    /// ahead of the clock, until it is refused as issued in the future.
    pub(crate) fn after(previous: Option<Self>, now: Timestamp) -> Self {
        match previous {
            Some(Self { written, sequence }) if written >= now => {
                Self { written, sequence: Self::MAX_SEQUENCE.min(sequence.saturating_add(1)) }
            }
            _ => Self::at(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix(seconds)
    }

    #[test]
    fn what_is_written_later_is_newer_whatever_the_clock_says() {
        let first = Recency::after(None, at(100));
        assert_eq!(first, Recency::at(at(100)));
        // In the same second, or on a host whose clock is behind.
        for now in [100, 99, 40, 0] {
            let next = Recency::after(Some(first), at(now));
            assert!(next > first, "{now}");
            assert_eq!(next.written, at(100), "{now}");
        }
        assert_eq!(Recency::after(Some(first), at(101)), Recency::at(at(101)));
    }

    #[test]
    fn many_writes_in_a_second_do_not_run_ahead_of_the_clock() {
        let mut recency = Recency::at(at(100));
        for _ in 0..1_000 {
            recency = Recency::after(Some(recency), at(100));
        }
        assert_eq!(recency, Recency { written: at(100), sequence: Recency::MAX_SEQUENCE });
        assert!(Recency::after(Some(recency), at(101)) > recency);
    }
}
