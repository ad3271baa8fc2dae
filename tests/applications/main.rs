//! Tasks of applications, on cookie stores and server-side stores, through the public API.
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
#[cfg(feature = "sqlite")]
#[path = "../sqlite/folder.rs"]
#[allow(dead_code)] // a part of it is used here
mod folder;
mod form_tokens;
mod lifetimes;
mod lifetimes_model;
mod migrating;
mod migrating_failures;
mod plain_http;
mod reading;
mod renamed;
#[cfg(feature = "redis")]
#[path = "../redis/server.rs"]
#[allow(dead_code)] // a part of it is used here
mod server;
#[path = "../revocation/shared_log.rs"]
#[allow(dead_code)] // a part of it is used here
mod shared_log;
mod stores;

use self::stores::START;
