//! A session as a store holds it.

use std::fmt;

use bytes::Bytes;

use super::{Payload, SessionId};
use crate::clock::Timestamp;
use crate::crypto::Token;

/// One stored session: who, since when, until when, and the values.
#[derive(Clone)]
pub struct Record {
    pub(crate) id: SessionId,
    pub(crate) created: Timestamp,
    pub(crate) expires: Timestamp,
    pub(crate) payload: Payload,
    pub(crate) origin: Origin,
}

/// What the store that made a record wants back with it.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// From a sealed token.
    Sealed {
        /// A key opened it that does not seal any more.
        old_key: bool,
        /// It is to be written anew: under the present key, or in the format that the store writes.
        rewrite: bool,
    },
    /// From a cookie of Astra's.
    #[cfg(feature = "astra")]
    Astra { rewrite: bool },
    /// From a server-side store: the secret that led there, and the stored value that a replacement must find unchanged.
    Stored { token: Token, value: Bytes },
}

impl Origin {
    /// Of a native token.
    pub(crate) fn native(old_key: bool) -> Self {
        Self::Sealed { old_key, rewrite: old_key }
    }

    /// What led to a record of a server-side store, and the stored value.
    pub(crate) fn stored(&self) -> Option<(&Token, &Bytes)> {
        let Self::Stored { token, value } = self else { return None };
        Some((token, value))
    }
}

impl Record {
    /// The id.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// When the session began. Regenerating its id does not change that.
    pub fn created(&self) -> Timestamp {
        self.created
    }

    /// The first moment at which the session is over: the nearer of its idle and its absolute deadline.
    pub fn expires(&self) -> Timestamp {
        self.expires
    }

    /// True if a key opened it that does not seal any more.
    pub(crate) fn with_old_key(&self) -> bool {
        matches!(self.origin, Origin::Sealed { old_key: true, .. })
    }

    /// True if it is to be written anew, whatever its deadline: under the present key, or in the present format.
    pub(crate) fn is_outdated(&self) -> bool {
        match self.origin {
            Origin::Sealed { rewrite, .. } => rewrite,
            #[cfg(feature = "astra")]
            Origin::Astra { rewrite } => rewrite,
            Origin::Stored { .. } => false,
        }
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("id", &self.id)
            .field("created", &self.created)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}
