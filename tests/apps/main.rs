//! Whole programs, written as a user of the crate would write them, from its guides, and driven over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../support/mod.rs"]
mod support;

mod members;
mod members_visits;
#[path = "../../examples/oidc_logout.rs"]
mod oidc_logout;
mod oidc_logout_visits;
mod shop;
mod shop_visits;
