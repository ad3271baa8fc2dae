//! The threats that a session layer has met before, tried on whole services. Each test is named after its numbers.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    clippy::print_stdout,
    unreachable_pub
)]

#[path = "../support/browser.rs"]
mod browser;
#[path = "../support/mod.rs"]
mod support;

mod attack_fixture;
mod chunks;
mod expiry;
mod headers;
mod identity;
mod leaks;
mod names;
mod reading;
mod records;
mod scopes;
mod sealing;
