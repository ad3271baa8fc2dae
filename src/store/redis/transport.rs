//! The connections to one server or to the nodes of a Cluster, or a pool of the application.

use std::sync::Arc;
use std::time::Duration;

use bb8_redis::redis::{Cmd, Value};
use tokio::time::{Instant, sleep_until};

use super::application_pool::ApplicationPool;
use super::cluster::Cluster;
use super::fault::{Failure, Remedy, Trouble, remedy};
use super::limits::Limits;
use super::node::Node;
use super::stats::{Connected, Counters};
use crate::id::EntryId;
use crate::runtime::check_runtime;
use crate::store::near_cache::Ticket;

/// The first pause between two attempts while a server is loading, electing or being replaced. It doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

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
            Self::One(node) => Box::pin(node.connect()).await,
            Self::Cluster(cluster) => Box::pin(cluster.connect()).await,
            Self::Pool(_) => Ok(()),
        }
    }

    /// Sends `command`, which concerns `key`, to the server that the key is on, and waits for its reply until the
    /// deadline. While the server refuses temporarily, it is sent again.
    pub(super) async fn send(
        &self,
        key: &str,
        command: &Cmd,
        limits: &Limits,
        counters: &Counters,
    ) -> Result<Value, Trouble> {
        inside_a_runtime()?;
        let (mut pause, mut refusal) = (FIRST_PAUSE, None);
        loop {
            let is_late = !limits.is_silence(Instant::now(), limits.deadline);
            // Boxed: the futures around it are moved more often than this one is made.
            let error = match (Box::pin(self.attempt(key, command, limits)).await, refusal) {
                (Err(Trouble::Reply(error)), _) => error,
                // There was no time for another reply, so the last one is the reason.
                (Err(Trouble::Failed(Failure::TimedOut | Failure::NoConnection)), Some(error)) if is_late => {
                    return Err(Trouble::Reply(error));
                }
                (answered, _) => return answered,
            };
            if !matches!(remedy(&error), Remedy::Wait | Remedy::Elsewhere) {
                return Err(Trouble::Reply(error));
            }
            // The server refused the command, so it did not execute it.
            let next = Instant::now() + pause;
            pause *= 2;
            if next >= limits.deadline {
                return Err(Trouble::Reply(error));
            }
            refusal = Some(error);
            sleep_until(next).await;
            Counters::add(&counters.retries);
        }
    }

    /// Returns true if a connection leads to the server that `key` is on.
    pub(super) fn is_connected(&self, key: &str) -> bool {
        match self {
            Self::One(node) => node.is_connected(),
            Self::Cluster(cluster) => cluster.is_connected(key),
            Self::Pool(_) => true,
        }
    }

    /// Asks each server that a connection leads to, for so long: the masters of a Cluster, or the one server. Returns their
    /// replies, and nothing for a pool of the application.
    pub(super) async fn ask_each(&self, question: &Cmd, patience: Duration) -> Vec<Value> {
        match self {
            Self::One(node) => node.query(question, Instant::now() + patience).await.into_iter().collect(),
            Self::Cluster(cluster) => cluster.ask_each(question, patience).await,
            Self::Pool(_) => Vec::new(),
        }
    }

    async fn attempt(&self, key: &str, command: &Cmd, limits: &Limits) -> Result<Value, Trouble> {
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
