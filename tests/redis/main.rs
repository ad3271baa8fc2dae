//! Sessions in real Redis servers, started and stopped by the tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod cluster;
mod contract;
mod load;
mod sentinel;
mod server;
mod subjects;
