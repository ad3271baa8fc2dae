//! `Saved`: how a store's save ended, as the session learns of it.

use super::Record;
use crate::crypto::SecretText;

/// How saving ended.
#[derive(Debug)]
#[non_exhaustive]
#[allow(clippy::large_enum_variant)] // moved once, and a box would cost more than the move
pub enum Saved {
    /// The session is stored.
    #[non_exhaustive]
    Stored {
        /// As it is stored now.
        record: Record,
        /// What the client shall hold: a secret.
        token: SecretText,
        /// How often another request had been first.
        conflicts: u32,
    },
    /// After the changes nothing was left, so the session was ended.
    Removed,
    /// The session was ended by another request meanwhile. Nothing was written: a slow request does not bring it back.
    Ended,
}
