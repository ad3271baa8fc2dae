//! The connections to one server or to the nodes of a Cluster, or a pool of the application.

use std::sync::Arc;

use bb8_redis::redis::{Cmd, Value};

use super::application_pool::ApplicationPool;
use super::cluster::Cluster;
use super::fault::{Failure, Trouble};
use super::limits::Limits;
use super::node::Node;
use super::stats::Connected;
use crate::id::EntryId;
use crate::runtime::check_runtime;
use crate::store::near_cache::Ticket;

pub(super) enum Transport {
    One(Arc<Node>),
    Cluster(Arc<Cluster>),
    Pool(Box<dyn ApplicationPool>),
}

fn inside_a_runtime() -> Result<(), Failure> {
    check_runtime().map_err(|error| Failure::Setup(error.to_string()))
}

impl Transport {
    /// Makes the first connections, to check that the servers are there and of the kind that the URL names.
    pub(super) async fn connect(&self) -> Result<(), Failure> {
        inside_a_runtime()?;
        match self {
            // Boxed, so that the types of a caller's futures stay below the compiler's limit of depth.
            Self::One(node) => Box::pin(node.connect()).await.map(drop),
            Self::Cluster(cluster) => Box::pin(cluster.connect()).await,
            Self::Pool(_) => Ok(()),
        }
    }

    /// Sends `command`, which concerns `key`, to the server that the key is on.
    pub(super) async fn send(&self, key: &str, command: &Cmd, limits: &Limits) -> Result<Value, Trouble> {
        inside_a_runtime()?;
        match self {
            Self::One(node) => node.send(command, false, limits).await,
            Self::Cluster(cluster) => Box::pin(cluster.send(key, command, limits)).await,
            Self::Pool(pool) => pool.send(command, limits).await,
        }
    }

    /// Reads the entry `id` over the connection that reports its changes. `None` if there is no near-cache, or it does not
    /// work at present.
    pub(super) async fn read_tracked(
        &self,
        key: &str,
        id: EntryId,
        limits: &Limits,
    ) -> Option<(Value, Ticket)> {
        inside_a_runtime().ok()?;
        match self {
            Self::One(node) => node.read_tracked(key, id, limits).await,
            Self::Cluster(cluster) => cluster.read_tracked(key, id, limits).await,
            Self::Pool(_) => None,
        }
    }

    pub(super) fn connected(&self) -> Connected {
        let mut connected = Connected::default();
        match self {
            Self::One(node) => node.count(&mut connected),
            Self::Cluster(cluster) => cluster.count(&mut connected),
            Self::Pool(pool) => pool.count(&mut connected),
        }
        connected
    }
}
