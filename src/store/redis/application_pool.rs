//! A connection pool of the application, whose connections the store shares.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bb8_redis::bb8::{ManageConnection, Pool};
use bb8_redis::redis::aio::ConnectionLike;
use bb8_redis::redis::{Cmd, RedisError, Value};
use tokio::time::{Instant, timeout_at};

use super::fault::{Failure, Remedy, Trouble, remedy};
use super::health::Health;
use super::limits::Limits;
use super::stats::{Connected, Counters};

/// A pool of any manager.
pub(super) trait ApplicationPool: Send + Sync {
    fn send<'a>(
        &'a self,
        command: &'a Cmd,
        limits: &'a Limits,
    ) -> Pin<Box<dyn Future<Output = Result<Value, Trouble>> + Send + 'a>>;

    fn count(&self, connected: &mut Connected);
}

pub(super) struct Bb8Pool<M: ManageConnection> {
    pub(super) pool: Pool<M>,
    pub(super) health: Health,
    pub(super) counters: Arc<Counters>,
}

impl<M> ApplicationPool for Bb8Pool<M>
where
    M: ManageConnection<Error = RedisError>,
    M::Connection: ConnectionLike + Clone + Sync,
{
    fn send<'a>(
        &'a self,
        command: &'a Cmd,
        limits: &'a Limits,
    ) -> Pin<Box<dyn Future<Output = Result<Value, Trouble>> + Send + 'a>> {
        Box::pin(self.run(command, limits))
    }

    fn count(&self, connected: &mut Connected) {
        let state = self.pool.state();
        connected.servers = 1;
        connected.servers_down = u32::from(!self.health.is_up());
        connected.connections = state.connections;
        connected.idle = state.idle_connections;
    }
}

impl<M> Bb8Pool<M>
where
    M: ManageConnection<Error = RedisError>,
    M::Connection: ConnectionLike + Clone + Sync,
{
    /// Runs a command as over a store's own connections. Only the application's pool knows which connection is fresh,
    /// so an unanswered command fails at the deadline.
    async fn run(&self, command: &Cmd, limits: &Limits) -> Result<Value, Trouble> {
        let mut lost = 0;
        loop {
            let mut connection = self.checkout(limits).await?;
            let begun = Instant::now();
            let sent = timeout_at(limits.deadline, connection.req_packed_command(command)).await;
            let error = match sent.map(|reply| reply.and_then(Value::extract_error)) {
                Ok(Ok(value)) => {
                    self.health.answered();
                    return Ok(value);
                }
                Ok(Err(error)) => error,
                Err(_) if limits.is_silence(begun, Instant::now()) => return Err(self.timed_out().into()),
                Err(_) => return Err(Failure::TimedOut.into()),
            };
            match remedy(&error) {
                Remedy::TimedOut => return Err(self.timed_out().into()),
                Remedy::Reconnect => {
                    lost += 1;
                    if lost > self.pool.state().connections.max(1) {
                        return Err(Failure::of(&error).into());
                    }
                }
                Remedy::Redirect => {
                    self.health.answered();
                    return Err(Failure::Setup(
                        "the pool leads to a node of a Redis Cluster, and another node has the key: use \
                         RedisStore::builder() with redis-cluster:// instead of Redis::from_pool()"
                            .to_owned(),
                    )
                    .into());
                }
                _ => {
                    self.health.answered();
                    return Err(Trouble::Reply(error));
                }
            }
            limits.repetition.note(&self.counters);
        }
    }

    /// Takes a handle of a pooled connection. The connection goes back to the pool at once, so that the commands of many
    /// requests share it.
    async fn checkout(&self, limits: &Limits) -> Result<M::Connection, Failure> {
        if !self.health.admits() {
            Counters::add(&self.counters.turned_away);
            return Err(self.health.cause());
        }
        let begun = Instant::now();
        let checkout = timeout_at(limits.deadline.min(begun + limits.checkout), self.pool.get()).await;
        let Ok(Ok(connection)) = checkout else {
            self.counters.waited(begun.elapsed(), true);
            self.health.timed_out(Failure::NoConnection);
            return Err(Failure::NoConnection);
        };
        Ok(connection.clone())
    }

    fn timed_out(&self) -> Failure {
        Counters::add(&self.counters.timeouts);
        self.health.timed_out(Failure::TimedOut);
        Failure::TimedOut
    }
}
