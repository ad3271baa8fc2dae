//! One multiplexed connection of the pool, to a server or to a cluster, that knows when it is broken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bb8_redis::redis::aio::{ConnectionLike, MultiplexedConnection};
use bb8_redis::redis::cluster_async::ClusterConnection;
use bb8_redis::redis::{Cmd, Pipeline, RedisFuture, RedisResult, Value};

use super::fault::breaks_connection;
use super::health::Health;

/// A connection that many requests share: commands are sent as they come, and answers are matched in order. A request that
/// goes away leaves an answer that nobody receives, never one that another receives.
#[derive(Clone)]
pub struct Connection {
    link: Link,
    /// Shared by all clones: who meets the fault tells the others.
    state: Arc<State>,
}

/// Counted among the working connections from its making to its first fault, or to its end without one.
struct State {
    broken: AtomicBool,
    health: Arc<Health>,
}

impl State {
    fn new(health: &Arc<Health>) -> Arc<Self> {
        health.connected();
        Arc::new(Self { broken: AtomicBool::new(false), health: Arc::clone(health) })
    }

    fn break_once(&self) {
        if !self.broken.swap(true, Ordering::AcqRel) {
            self.health.disconnected();
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.break_once();
    }
}

#[derive(Clone)]
#[allow(clippy::large_enum_variant)] // one of each connection of the pool
enum Link {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    pub(super) fn one(connection: MultiplexedConnection, health: &Arc<Health>) -> Self {
        Self { link: Link::One(connection), state: State::new(health) }
    }

    pub(super) fn cluster(connection: ClusterConnection, health: &Arc<Health>) -> Self {
        Self { link: Link::Cluster(connection), state: State::new(health) }
    }

    pub(super) fn is_broken(&self) -> bool {
        self.state.broken.load(Ordering::Acquire)
    }

    /// Sends `cmd`, and waits for its answer.
    pub(super) async fn send(&mut self, cmd: &Cmd) -> RedisResult<Value> {
        let (result, whole) = match &mut self.link {
            Link::One(connection) => (connection.send_packed_command(cmd).await, true),
            // One node of many: the connection mends itself, and another one would know no more.
            Link::Cluster(connection) => (connection.req_packed_command(cmd).await, false),
        };
        // The server's refusals come as values.
        let result = result.and_then(Value::extract_error);
        if whole && result.as_ref().is_err_and(breaks_connection) {
            self.state.break_once();
        }
        result
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(self.send(cmd))
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        cmd: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match &mut self.link {
            Link::One(connection) => connection.req_packed_commands(cmd, offset, count),
            Link::Cluster(connection) => connection.req_packed_commands(cmd, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match &self.link {
            Link::One(connection) => connection.get_db(),
            Link::Cluster(connection) => connection.get_db(),
        }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("broken", &self.is_broken()).finish_non_exhaustive()
    }
}
