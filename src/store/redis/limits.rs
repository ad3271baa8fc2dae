//! How long a step may take, and when a silent connection is given up.

use std::time::Duration;

use tokio::time::Instant;

use super::repetition::Repetition;

/// How long one step may take, and whether a command of it was sent again.
pub(super) struct Limits {
    pub(super) deadline: Instant,
    /// How long it may wait for a connection.
    pub(super) checkout: Duration,
    /// How long a connection may be silent before the command is sent over a fresh one.
    pub(super) patience: Duration,
    pub(super) repetition: Repetition,
}

impl Limits {
    pub(super) fn new(deadline: Instant, checkout: Duration, patience: Duration) -> Self {
        Self { deadline, checkout, patience, repetition: Repetition::default() }
    }

    /// Returns the limits of a step that begins now, and waits this long for a connection and for a reply.
    pub(super) fn of_step(checkout_timeout: Duration, command_timeout: Duration) -> Self {
        let deadline = Instant::now() + checkout_timeout + command_timeout;
        Self::new(deadline, checkout_timeout, patience(command_timeout))
    }

    /// Returns true if a connection counts as silent that has not answered by `now` a command of `sent`. If the command was sent
    /// shortly before the deadline, a missing reply shows nothing.
    pub(super) fn is_silence(&self, sent: Instant, now: Instant) -> bool {
        now.saturating_duration_since(sent) >= self.patience / 2
    }

    /// Returns until when to wait for a better connection than the present one. The rest of the time is left for a reply over the
    /// present one.
    pub(super) fn wait_for_better(&self, now: Instant) -> Instant {
        let left = self.deadline.saturating_duration_since(now);
        now + (left / 2).max(left.saturating_sub(self.patience))
    }
}

/// Returns how long a silent connection is waited for before its command is sent again: half of the command timeout.
pub(super) fn patience(command_timeout: Duration) -> Duration {
    command_timeout / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_ends_after_both_timeouts_and_half_of_the_second_is_its_patience() {
        let [checkout, command, both] = [300, 500, 800].map(Duration::from_millis);
        let before = Instant::now();
        let limits = Limits::of_step(checkout, command);
        assert!((before + both..=Instant::now() + both).contains(&limits.deadline));
        assert_eq!((limits.checkout, limits.patience), (checkout, Duration::from_millis(250)));
    }

    #[test]
    fn another_connection_has_the_patience_or_half_of_the_time() {
        let now = Instant::now();
        for (left, patience, expected) in [(1_000, 250, 750), (750, 250, 500), (400, 250, 200), (0, 250, 0)] {
            let [left, patience, expected] = [left, patience, expected].map(Duration::from_millis);
            let limits = Limits::new(now + left, left, patience);
            assert_eq!(limits.wait_for_better(now), now + expected);
        }
    }

    #[test]
    fn half_of_the_patience_is_silence_and_less_is_not() {
        let (sent, millis) = (Instant::now(), Duration::from_millis);
        let limits = Limits::new(sent + millis(1_000), millis(500), millis(250));
        for (after, expected) in [(0, false), (124, false), (125, true), (250, true)] {
            assert_eq!(limits.is_silence(sent, sent + millis(after)), expected, "{after}");
        }
    }
}
