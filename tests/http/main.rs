//! Sessions over real sockets: HTTP/1.1 and HTTP/2, keep-alive, pipelining, crumbs, streams, shutdown and hang-ups.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]
#![allow(unreachable_pub, clippy::redundant_closure_for_method_calls, clippy::too_many_lines)]

#[path = "../support/mod.rs"]
mod support;

#[cfg(feature = "redis")]
#[path = "../redis/server.rs"]
#[allow(dead_code)] // a part of it is used here
mod server;

mod connections;
mod errors;
mod messages;
mod servers;
mod shutdown_and_hang_up;
mod uploads;
