//! The near-cache: opened records in the memory of this process, kept for as long as the backend reports every change.
//!
//! A backend that can report changes implements [`Backend::__fetch_watched`](super::Backend::__fetch_watched). The store
//! puts what it opened under the [`Ticket`] of that fetch, and looks there before it asks the backend.

#[cfg(not(feature = "redis"))]
mod absent;
#[cfg(feature = "redis")]
mod cache;
#[cfg(feature = "redis")]
mod lease;

#[cfg(not(feature = "redis"))]
pub use self::absent::Ticket;
#[cfg(not(feature = "redis"))]
pub(crate) use self::absent::{OpenedEntry, RecordCache};
#[cfg(feature = "redis")]
pub use self::cache::Ticket;
#[cfg(feature = "redis")]
pub(crate) use self::cache::{OpenedEntry, RecordCache, Writing};
#[cfg(feature = "redis")]
pub(crate) use self::lease::Lease;
