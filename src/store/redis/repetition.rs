//! Whether a command of a step was sent again, so that the server may have executed it twice.

use std::sync::atomic::{AtomicBool, Ordering};

use super::stats::Counters;

/// A flag that is set once a command of a step is sent again without its first reply. The repetition may then find the effect
/// of the first execution.
#[derive(Default)]
pub(super) struct Repetition(AtomicBool);

impl Repetition {
    /// Notes that a command is sent again.
    pub(super) fn note(&self, counters: &Counters) {
        self.0.store(true, Ordering::Relaxed);
        Counters::add(&counters.retries);
    }

    /// Returns true if a command may have been executed twice.
    pub(super) fn is_noted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
