//! A logout that stays: what is refused afterwards, what is not, and what fills the log.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod careless_logs;
mod cost;
mod endings;
#[cfg(feature = "sqlite")]
#[path = "../sqlite/folder.rs"]
#[allow(dead_code)] // a part of it is used here
mod folder;
mod follower;
mod hosts;
mod interleavings;
mod interplay;
#[cfg(feature = "sqlite")]
mod kill;
mod limits;
#[cfg(feature = "memory")]
mod moves;
#[cfg(feature = "redis")]
mod on_redis;
#[cfg(feature = "sqlite")]
mod on_sqlite;
mod requests;
#[cfg(feature = "redis")]
#[path = "../redis/server.rs"]
#[allow(dead_code)] // a part of it is used here
mod server;
mod shared_log;
#[path = "../support/mod.rs"]
mod support;

use self::requests::START;
