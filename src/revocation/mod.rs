//! Revocations: a logout that stays, for sessions that live in cookies.
//!
//! A cookie that was copied before a logout is authentic until its deadline. With [`Revocations`], a
//! [`CookieStore`](crate::CookieStore) remembers which sessions were ended for as long as such a copy could live, and
//! refuses it. Revocations are in the memory of each process, so that a read costs no round trip, and in a log that all
//! processes follow.
//!
//! The guide [`revocation`](crate::guide::revocation) shows how to use it.

mod budget;
mod follower;
mod freshness;
mod log;
mod memory;
mod recent;
mod register;
#[allow(clippy::module_inception)] // the one type that the module is named for
mod revocation;
pub(crate) mod revocations;
mod set;
#[cfg(feature = "sqlite")]
mod sqlite;
mod time_limit;
mod timeline;

pub use self::log::{Entry, Page, RevocationLog};
pub use self::revocation::Revocation;
pub use self::revocations::FailurePolicy;
#[cfg(feature = "sqlite")]
pub use self::sqlite::SqliteLog;
pub use crate::session::Position;

#[cfg(any(feature = "testing", all(test, feature = "redis")))]
pub(crate) use self::follower::GRACE;
#[cfg(feature = "redis")]
pub(crate) use self::follower::SETTLE;
pub(crate) use self::register::{Continuation, Register, Verdict};
pub(crate) use self::revocations::Revocations; // public at the root of the crate
