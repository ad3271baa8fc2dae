//! Sessions in one SQLite file, which several processes of one machine may share.
//!
//! From the outside in: options and opening, the primitives, the connections that read, the thread that writes and the queue
//! before it, the lock between processes, the schema, the sweep of expired entries, and what errors mean.

// Errors name paths in their `Debug` form, which escapes control characters.
#![allow(clippy::unnecessary_debug_formatting)]

mod backend;
mod fault;
pub(crate) mod options;
mod process_lock;
mod queue;
mod readers;
mod schema;
mod stats;
mod sweep;
mod synchronous;
mod writer;

pub use self::backend::Sqlite;
pub use self::options::SqliteOptions;
pub use self::stats::SqliteStats;
pub use self::synchronous::Synchronous;
