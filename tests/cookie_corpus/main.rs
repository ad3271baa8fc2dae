//! The `Cookie` parser and the `Set-Cookie` writer against what the suites of other projects expect (`vectors/cookies`),
//! and against headers made to hurt.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]
#![allow(unreachable_pub, clippy::cast_possible_wrap, clippy::redundant_closure_for_method_calls)]

#[path = "../support/mod.rs"]
mod support;

mod bounds;
mod corpus;
mod reading;
mod writing;
