//! Sessions in real Redis servers, started and stopped by the tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod acl;
mod app;
mod cancellation;
mod clocks;
mod cluster;
mod commands;
mod concurrency;
mod connecting;
mod connections;
mod contract;
mod full_memory;
mod half_open;
mod limits;
mod load;
mod proxy;
mod refusals;
mod round_trips;
mod sealing;
mod sentinel;
mod server;
mod session_lists;
mod sockets;
mod subjects;
#[cfg(feature = "redis-tls")]
mod tls;
mod values;
