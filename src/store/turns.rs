//! Turns: of the tasks of this process that write to one session, one after the other.

use tokio::sync::Mutex;

use crate::session::SessionId;

/// Who met a conflict waits for others of this process that did, so that each gets through: without turns, those that
/// come back at once starve those that are late. The first attempt waits for nobody.
pub(super) struct Turns([Mutex<()>; 64]);

impl Turns {
    pub(super) fn new() -> Self {
        Self([const { Mutex::const_new(()) }; 64])
    }

    /// The queue of this session. Another session may share it, which costs time and nothing else.
    pub(super) fn of(&self, id: SessionId) -> &Mutex<()> {
        let [first, ..] = id.to_bytes();
        let Self(queues) = self;
        queues.get(usize::from(first) % queues.len()).unwrap_or(&queues[0])
    }
}
