//! How long the store takes, measured where somebody listens.

use std::time::Instant;

use crate::config::Config;
use crate::event::{Event, Operation};
use crate::store::StoreFuture;

/// Runs while the store does. Tells nobody if it is dropped: what was interrupted took no time of its own.
pub(super) struct Stopwatch {
    operation: Operation,
    started: Instant,
}

impl Stopwatch {
    /// `None` where nobody listens, or the store has answered at once, as a cookie store does: then there is nothing to
    /// measure, and reading the time would cost more than it tells.
    pub(super) fn start<T>(config: &Config, operation: Operation, answer: &StoreFuture<T>) -> Option<Self> {
        let wanted = !answer.is_immediate() && config.wants_timings();
        wanted.then(|| Self { operation, started: Instant::now() })
    }

    /// The store answered.
    pub(super) fn stop(self, config: &Config, ok: bool) {
        let (cookie, operation, elapsed) = (config.cookie_name(), self.operation, self.started.elapsed());
        config.emit(&Event::StoreAnswered { cookie, operation, elapsed, ok });
    }
}
