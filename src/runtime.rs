//! The check for a tokio runtime, whose timers connections and logs need.

use crate::error::Error;

/// Checks that the caller runs inside of a tokio runtime, by whose timers deadlines are kept. Without one, tokio would panic.
pub(crate) fn check_runtime() -> Result<(), Error> {
    tokio::runtime::Handle::try_current().map(drop).map_err(|_| {
        Error::config(
            "Redis and revocations must be used inside of a tokio runtime, since their deadlines are tokio's: call this from a task of one",
        )
    })
}
