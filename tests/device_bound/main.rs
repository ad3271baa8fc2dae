//! Sessions that are bound to a device: the protocol, and what a thief can do with copied cookies.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod browser;
mod cost;
#[path = "../support/device.rs"]
mod device;
mod options;
mod protocol;
mod site;
mod thefts;
