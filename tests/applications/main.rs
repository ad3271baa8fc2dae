//! Tasks of applications, on the cookie store and on a server-side store, through the public API.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

#[path = "../support/mod.rs"]
mod support;

mod authentication;
mod connections;
mod cross_origin;
mod devices;
mod form_tokens;
mod lifetimes;
mod lifetimes_model;
mod migrating;
mod plain_http;
mod reading;
mod renamed;
mod stores;
