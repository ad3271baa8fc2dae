//! Queues for tasks of this process whose saves of one session conflicted.

use tokio::sync::Mutex;

use crate::session::SessionId;

/// A task whose save conflicted queues behind the other tasks of this process whose saves did, so that each of them gets
/// through: without queues, tasks that retry at once starve those that are late. The first attempt waits for no task.
pub(super) struct ConflictQueues([Mutex<()>; 64]);

impl ConflictQueues {
    pub(super) fn new() -> Self {
        Self([const { Mutex::const_new(()) }; 64])
    }

    /// Returns the queue of this session. Another session may share it, which costs time and nothing else.
    pub(super) fn of(&self, id: SessionId) -> &Mutex<()> {
        let [first, ..] = id.to_bytes();
        let Self(queues) = self;
        queues.get(usize::from(first) % queues.len()).unwrap_or(&queues[0])
    }
}
