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
}

/// Returns how long a silent connection is waited for before its command is sent again: half of the command timeout.
pub(super) fn patience(command_timeout: Duration) -> Duration {
    command_timeout / 2
}
