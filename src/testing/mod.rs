//! Tools for tests of applications and of stores: requests that carry sessions, responses read as a browser would, a
//! clock to move, faulty backends and networks, and test suites for the contracts of backends and revocation logs.
//!
//! The guide [`testing`](crate::guide::testing) shows them together.

mod clock;
mod contract;
mod faults;
mod relay;
mod revocation_log;
mod sessions;

pub use self::clock::FakeClock;
pub use self::contract::check_backend;
pub use self::faults::{Call, Fault, Faulty, Primitive};
pub use self::relay::{Cut, Relay};
pub use self::revocation_log::check_revocation_log;
pub use self::sessions::{Cookies, session_in, with_session};
