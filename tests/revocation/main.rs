//! A logout that stays: what is refused afterwards, what is not, and what fills the log.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod endings;
mod hosts;
mod interleavings;
mod limits;
mod requests;
mod shared_log;
