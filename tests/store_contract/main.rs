//! Every store against one contract: backends and their suite, a model of all stores, every interleaving of requests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]
#![allow(clippy::type_complexity, clippy::struct_excessive_bools, clippy::enum_glob_use)]

#[path = "../support/mod.rs"]
mod support;

#[cfg(feature = "redis")]
#[path = "../redis/server.rs"]
#[allow(dead_code)] // these tests need a server, and do nothing to it
mod server;

#[path = "../../examples/custom_store.rs"]
#[allow(dead_code)] // its service
mod custom_store;

mod cancellation;
mod comparison;
mod concurrent_requests;
mod example;
mod failed_logins;
mod faults;
mod interleavings;
mod interrupted_endings;
mod model;
#[cfg(feature = "redis")]
mod on_redis;
#[cfg(feature = "sqlite")]
mod on_sqlite;
#[cfg(any(feature = "redis", feature = "sqlite"))]
mod real_backends;
mod repeats;
mod subject_fixture;
mod subject_races;
mod subjects;
mod test_backend;
