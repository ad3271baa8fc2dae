//! The commit rules, row by row: what a handler did, how it answered, and what happens to its session.
//!
//! Each rule is held to on both kinds of store and through both forms of the adapter.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    clippy::large_enum_variant,
    clippy::doc_markdown,
    clippy::print_stdout,
    unreachable_pub
)]

#[path = "../support/dice.rs"]
mod dice;
#[path = "../support/mod.rs"]
mod support;

mod after_the_head;
mod browser_hints;
mod changes;
mod closures;
mod concurrency;
mod deployment_drill;
mod dropped_futures;
mod equal_values;
mod events;
mod failed_responses;
mod handler_errors;
mod handler_failures;
mod lifetimes;
mod nested_services;
mod optional_work;
mod panics;
mod regenerate_and_destroy;
mod saves;
mod slow_requests;
mod spy_store;
mod store_failures;
