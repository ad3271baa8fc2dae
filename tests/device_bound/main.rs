//! Sessions that are bound to a device: the protocol, and what a thief can do with copied cookies.
#![cfg(all(feature = "device-bound", feature = "memory", feature = "testing"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod browser;
mod cost;
mod options;
mod protocol;
mod site;
mod thefts;
