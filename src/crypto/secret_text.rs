//! The text of a token, of any store, on its way into a cookie.

use std::fmt;

use bytes::Bytes;

/// The text of a token, to be set as a cookie. `Debug` shows none of it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(Bytes);

impl SecretText {
    pub(crate) fn new(text: impl Into<Bytes>) -> Self {
        Self(text.into())
    }

    /// Returns the text. It authenticates the client, so keep it out of logs.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(..)")
    }
}
