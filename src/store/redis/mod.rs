//! Sessions in Redis: one server, the master that Sentinel names, or a Cluster.
//!
//! From the outside in: options and connecting, the primitives, the scripts they run, the pool's connections,
//! and what is done about faults.

mod backend;
mod connection;
mod fault;
mod health;
mod manager;
mod options;
mod revocation_log;
mod scripts;
mod shared_connections;
mod stats;
mod tls;
mod topology;

pub use self::backend::Redis;
pub use self::connection::Connection;
pub use self::manager::Manager;
pub use self::options::{RedisOptions, RedisStore};
pub use self::revocation_log::{RedisLog, RedisRevocations};
pub use self::stats::RedisStats;

pub(crate) use self::scripts::Framing;
