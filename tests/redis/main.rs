//! Sessions in real Redis servers, started and stopped by the tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod app;
mod cancellation;
mod cluster;
mod commands;
mod concurrency;
mod connecting;
mod connections;
mod contract;
mod load;
mod proxy;
mod refusals;
mod sealing;
mod sentinel;
mod server;
mod subjects;
#[cfg(feature = "redis-tls")]
mod tls;
mod values;
