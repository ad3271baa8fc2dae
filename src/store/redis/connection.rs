//! One multiplexed connection to one server, which notices when it breaks.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use bb8_redis::redis::aio::MultiplexedConnection;
use bb8_redis::redis::{Cmd, Pipeline, RedisResult, Value};
use tokio::time::Instant;

/// The states of a connection.
const WORKS: u8 = 0;
const SILENT: u8 = 1;
const BROKEN: u8 = 2;

/// A connection that many requests share: commands are sent as they come, and replies are matched in order. A request that
/// is dropped leaves a reply that no request receives, never one that another request receives.
pub(super) struct Connection {
    inner: MultiplexedConnection,
    /// When a task began to make it. The network may fail while it is being made: only a connection that was begun after a
    /// failure is sure not to be affected by it.
    pub(super) begun: Instant,
    state: AtomicU8,
    /// Commands that wait for their reply.
    waiting: AtomicU32,
}

impl Connection {
    pub(super) fn new(inner: MultiplexedConnection, begun: Instant) -> Self {
        Self { inner, begun, state: AtomicU8::new(WORKS), waiting: AtomicU32::new(0) }
    }

    pub(super) fn works(&self) -> bool {
        self.state.load(Ordering::Acquire) == WORKS
    }

    pub(super) fn is_silent(&self) -> bool {
        self.state.load(Ordering::Acquire) == SILENT
    }

    pub(super) fn is_broken(&self) -> bool {
        self.state.load(Ordering::Acquire) == BROKEN
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) == 0
    }

    /// Keeps further commands off this connection, while others work. Returns true if it worked until now.
    pub(super) fn fall_silent(&self) -> bool {
        self.state.compare_exchange(WORKS, SILENT, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Notes that a silent connection has answered.
    pub(super) fn speak(&self) {
        let _ = self.state.compare_exchange(SILENT, WORKS, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Keeps further commands off this connection for good. Returns true if it worked until now.
    pub(super) fn retire(&self) -> bool {
        self.state.swap(BROKEN, Ordering::AcqRel) == WORKS
    }

    /// Sends `command` and waits for its reply. With `asking`, an ASKING is sent in front of it in the same piece,
    /// since the server applies it to the next command of the connection.
    pub(super) async fn send(&self, command: &Cmd, asking: bool) -> RedisResult<Value> {
        let _waiting = Waiting::new(&self.waiting);
        let mut connection = self.inner.clone();
        let reply = if asking {
            let mut pipeline = Pipeline::with_capacity(2);
            pipeline.cmd("ASKING");
            pipeline.add_command(command.clone());
            // Boxed: it is rare, and the future of every command would be larger by it.
            let replies = Box::pin(connection.send_packed_commands(&pipeline, 0, 2)).await?;
            // A user that may not ask gets a redirection as the second reply, which hides the reason.
            let mut replies = replies.into_iter().map(Value::extract_error);
            replies.try_fold(Value::Nil, |_, reply| reply)?
        } else {
            connection.send_packed_command(command).await?
        };
        // Errors of the server arrive as values.
        reply.extract_error()
    }
}

/// Counts a command or a task while it waits.
pub(super) struct Waiting<'a>(&'a AtomicU32);

impl<'a> Waiting<'a> {
    pub(super) fn new(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
