//! Measures how long the store takes, if an observer, a log or a metric wants to know.

use std::time::Instant;

use crate::config::Config;
use crate::event::{EventKind, Operation};
use crate::store::StoreFuture;

/// Measures one call of the store. If it is dropped, nothing is reported: an interrupted call has no duration.
pub(super) struct Stopwatch {
    operation: Operation,
    started: Instant,
}

impl Stopwatch {
    /// Starts measuring. Returns `None` if no observer wants timings, or if the store has answered at once, like a cookie
    /// store. Reading the clock would then cost more than it is worth.
    pub(super) fn start<T>(config: &Config, operation: Operation, answer: &StoreFuture<T>) -> Option<Self> {
        let wanted = !answer.is_immediate() && config.wants_timings();
        wanted.then(|| Self { operation, started: Instant::now() })
    }

    /// Reports the duration when the store has answered.
    pub(super) fn stop(self, config: &Config, ok: bool) {
        let (operation, elapsed) = (self.operation, self.started.elapsed());
        config.emit(EventKind::StoreAnswered { operation, elapsed, ok });
    }
}
