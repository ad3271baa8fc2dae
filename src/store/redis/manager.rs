//! Makes connections for the pool, and tells it which are broken.

use std::sync::Arc;
use std::time::Duration;

use bb8_redis::bb8::ManageConnection;
use bb8_redis::redis::{AsyncConnectionConfig, RedisError, RedisResult};
use tokio::time::{sleep, timeout};

use super::connection::Connection;
use super::fault::Failure;
use super::health::{Health, PROBE_EVERY};
use super::shared_connections::SharedConnections;
use super::topology::Target;

/// A [`ManageConnection`] over one server, Sentinel or Cluster.
///
/// bb8-redis's own manager asks with a PING before each request, and takes every connection for whole. This one needs no
/// round trip: a connection on which a command failed says so itself.
pub struct Manager {
    target: Target,
    config: AsyncConnectionConfig,
    connect_timeout: Duration,
    health: Arc<Health>,
    handles: Option<Arc<SharedConnections>>,
}

impl Manager {
    pub(super) fn new(
        target: Target,
        config: AsyncConnectionConfig,
        connect_timeout: Duration,
        health: Arc<Health>,
        handles: Option<Arc<SharedConnections>>,
    ) -> Self {
        Self { target, config, connect_timeout, health, handles }
    }

    /// A connection to whoever is the master now.
    pub(super) async fn try_connect(&self) -> RedisResult<Connection> {
        match &self.target {
            Target::One(client) => {
                let connection = client.get_multiplexed_async_connection_with_config(&self.config).await?;
                Ok(Connection::one(connection, &self.health))
            }
            Target::Sentinel(sentinel) => {
                let mut sentinel = sentinel.lock().await;
                let connection = sentinel.get_async_connection_with_config(&self.config).await?;
                Ok(Connection::one(connection, &self.health))
            }
            Target::Cluster(client) => {
                Ok(Connection::cluster(client.get_async_connection().await?, &self.health))
            }
        }
    }

    async fn refused(&self, error: &RedisError) {
        // The pool asks for a missing connection each time it gives out another. While there is another, nobody waits
        // for this one, and there is no hurry to be refused again.
        if self.health.is_connected() {
            sleep(PROBE_EVERY).await;
        }
        if !self.health.is_connected() {
            self.health.down(Failure::connecting(error));
        }
    }
}

impl ManageConnection for Manager {
    type Connection = Connection;
    type Error = RedisError;

    async fn connect(&self) -> Result<Connection, RedisError> {
        // Several sentinels may have to be asked, one after the other.
        let limit = self.connect_timeout.saturating_mul(self.target.hops());
        let connected = match timeout(limit, self.try_connect()).await {
            Ok(connected) => connected,
            Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        };
        match (&connected, &self.handles) {
            (Ok(connection), Some(handles)) => handles.add(connection),
            (Ok(_), None) => {}
            (Err(error), _) => self.refused(error).await,
        }
        connected
    }

    async fn is_valid(&self, connection: &mut Connection) -> Result<(), RedisError> {
        if connection.is_broken() {
            return Err(std::io::Error::from(std::io::ErrorKind::ConnectionAborted).into());
        }
        Ok(())
    }

    fn has_broken(&self, connection: &mut Connection) -> bool {
        connection.is_broken()
    }
}

impl std::fmt::Debug for Manager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Manager").field("connect_timeout", &self.connect_timeout).finish_non_exhaustive()
    }
}
