//! Deadlines of tests.

use std::time::Duration;

/// A deadline that must not pass, however busy the machine is. The default ones are too short for that.
pub(crate) const UNHURRIED: Duration = Duration::from_secs(30);
