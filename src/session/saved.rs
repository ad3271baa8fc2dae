//! `Saved`: the result of a store's save.

use super::Record;
use crate::crypto::SecretText;

/// The result of a save.
#[derive(Debug)]
#[non_exhaustive]
#[allow(clippy::large_enum_variant)] // moved once, and a box would cost more than the move
pub enum Saved {
    /// The session is stored.
    #[non_exhaustive]
    Stored {
        /// The session as it is stored now.
        record: Record,
        /// The new token of the client: a secret.
        token: SecretText,
        /// How often another request saved first.
        conflicts: u32,
    },
    /// No value was left after the changes, so the session was ended.
    Removed,
    /// Another request ended the session meanwhile. Nothing was written, so a slow request does not bring it back.
    Ended,
}
