//! Sessions that are bound to a device: the protocol, and what a thief can do with copied cookies.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod browser;
mod cost;
#[path = "../support/device.rs"]
mod device;
mod hosts;
mod options;
mod protocol;
#[path = "../revocation/shared_log.rs"]
#[allow(dead_code)] // a part of it is used here
mod shared_log;
mod site;
#[cfg(feature = "axum")]
mod stack;
mod thefts;

use self::site::START;
