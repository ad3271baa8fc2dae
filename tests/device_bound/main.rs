//! Sessions that are bound to a device: the protocol, and what a thief can do with copied cookies.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod browser;
mod cookie_changes;
mod cost;
mod deployments;
#[path = "../support/device.rs"]
mod device;
#[path = "../support/dice.rs"]
mod dice;
#[cfg(feature = "sqlite")]
#[path = "../sqlite/folder.rs"]
#[allow(dead_code)] // a part of it is used here
mod folder;
#[cfg(feature = "sqlite")]
mod full_disk;
mod hosts;
#[cfg(feature = "redis")]
mod near_cache;
mod nested;
mod options;
mod protocol;
mod returns;
#[path = "../support/browser.rs"]
mod scoped;
#[cfg(feature = "redis")]
#[path = "../redis/server.rs"]
#[allow(dead_code)] // these tests need a server, and do nothing to it
mod server;
#[path = "../revocation/shared_log.rs"]
#[allow(dead_code)] // a part of it is used here
mod shared_log;
mod site;
#[cfg(feature = "sqlite")]
#[path = "../sqlite/small_disk.rs"]
#[allow(dead_code, clippy::print_stdout)] // a part of it is used here; it says why it is not there
mod small_disk;
#[cfg(feature = "axum")]
mod stack;
mod store_kinds;
#[cfg(any(feature = "redis", feature = "sqlite"))]
#[path = "../support/deadlines.rs"]
mod support;
mod thefts;
mod vectors;

use self::site::START;
