//! Queues for tasks of this process whose saves of one session conflicted.

use tokio::sync::Mutex;

use crate::session::SessionId;

/// Queues for tasks of this process. A task whose save conflicted queues behind the other tasks whose saves did, so
/// that each of them succeeds: without queues, tasks that retry at once starve late ones. The first attempt does not
/// queue.
pub(super) struct ConflictQueues([Mutex<()>; 64]);

impl ConflictQueues {
    pub(super) fn new() -> Self {
        Self([const { Mutex::const_new(()) }; 64])
    }

    /// Returns the queue of this session. Sessions that share a queue only wait longer.
    pub(super) fn of(&self, id: SessionId) -> &Mutex<()> {
        let [first, ..] = id.to_bytes();
        let Self(queues) = self;
        queues.get(usize::from(first) % queues.len()).unwrap_or(&queues[0])
    }
}
