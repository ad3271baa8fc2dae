//! Beside a running Astra fleet: its cookies and its stored sessions, read and written by whole services.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub
)]

#[path = "../support/astra.rs"]
mod independent;
#[path = "../support/mod.rs"]
mod support;

#[cfg(feature = "redis")]
#[allow(dead_code)] // each test file uses a part
#[path = "../redis/server.rs"]
mod server;

mod beside;
mod go_peer;
mod migration;
#[cfg(feature = "redis")]
mod redis;
mod stored;
mod values;
