//! Whole programs, written as a user of the crate would write them, from its guides, and driven over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../revocation/shared_log.rs"]
#[allow(dead_code)] // a part of it is used here
mod shared_log;
#[path = "../support/mod.rs"]
mod support;

// Used in part: one server, and its commands.
#[cfg(feature = "redis")]
#[path = "../redis/server.rs"]
#[allow(dead_code, clippy::duplicate_mod)]
mod redis_server;

/// When the entries of the shared log are written.
const START: u64 = 1_000_000_000;

mod members;
mod members_visits;
mod notes;
mod notes_visits;
#[path = "../../examples/oidc_logout.rs"]
mod oidc_logout;
mod oidc_logout_visits;
mod shop;
mod shop_visits;
