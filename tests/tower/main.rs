//! Sessions in tower's stacks: readiness and clones, axum, hyper-util, tonic; with real servers and real connections.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub
)]

#[path = "../support/mod.rs"]
mod support;

mod axum_app;
mod readiness;
mod stacks;
