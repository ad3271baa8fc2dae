//! Sessions in real SQLite files, in one process and in several.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]
#![allow(clippy::print_stdout)] // what was measured, with --nocapture

mod backup;
mod child;
mod contract;
mod damage;
mod durability;
mod folder;
mod full_disk;
mod group_commit;
mod kill;
mod moved;
mod opening;
mod processes;
mod small_disk;
mod waiting;
