//! Sessions in Redis: one server, the master that Sentinel names, or a Cluster.
//!
//! From the outside in: options and connecting, the primitives, the two ways to compare and set, the connections to each
//! server, and the remedies for faults.

mod application_pool;
mod atomic_steps;
mod attempts;
mod backend;
mod cluster;
mod commands;
mod compare_and_set;
mod connection;
mod connection_options;
mod credentials;
mod dialer;
mod eviction;
mod fault;
mod health;
mod limits;
mod near_cache_options;
mod node;
pub(crate) mod options;
mod refreshing;
mod repetition;
mod resolver;
mod revocation_log;
mod scripts;
mod settings;
mod slot_map;
mod startup;
mod stats;
mod tls;
mod tracker;
mod transport;
mod url;

pub use self::backend::Redis;
pub use self::credentials::Credentials;
pub use self::near_cache_options::NearCache;
pub use self::options::RedisOptions;
pub use self::revocation_log::{RedisLog, RedisRevocations};
pub use self::stats::RedisStats;

pub(crate) use self::scripts::Framing;
#[doc(hidden)]
pub use self::{options::look_up_names_by, scripts::REPLACE};
