//! A session as a store holds it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::{Payload, Recency, SessionId};
use crate::clock::Timestamp;
use crate::crypto::Token;

/// A session as a store returned it: id, times and values. A clone is the same record.
#[derive(Clone)]
pub struct Record {
    // Shared: it is handed from store to session and back, and a view of a value keeps all of it.
    inner: Arc<Inner>,
}

struct Inner {
    id: SessionId,
    created: Timestamp,
    expires: Timestamp,
    payload: Payload,
    origin: Origin,
    recency: Recency,
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
    /// From a token of another program's format.
    #[cfg_attr(not(feature = "astra"), allow(dead_code))] // the one such format
    Foreign {
        /// It is to be written in the native format.
        rewrite: bool,
    },
    /// From a server-side store: the secret that led there, and the stored value that a replacement must find unchanged.
    Stored {
        token: Token,
        value: Bytes,
        /// The deadline of the entry, which may be later than that of the session.
        deadline: Timestamp,
    },
    /// From a store whose sessions are taken over: as it was loaded there.
    Elsewhere(Record),
}

impl Origin {
    /// Of a native token.
    pub(crate) fn native(old_key: bool) -> Self {
        Self::Sealed { old_key, rewrite: old_key }
    }

    /// What led to a record of a server-side store, and the stored value.
    pub(crate) fn stored(&self) -> Option<(&Token, &Bytes)> {
        let Self::Stored { token, value, .. } = self else { return None };
        Some((token, value))
    }

    /// The value and the deadline of the entry that a record of a server-side store was loaded from.
    pub(crate) fn entry(&self) -> Option<(&Bytes, Timestamp)> {
        let Self::Stored { value, deadline, .. } = self else { return None };
        Some((value, *deadline))
    }
}

impl Record {
    pub(crate) fn new(
        id: SessionId,
        created: Timestamp,
        expires: Timestamp,
        payload: Payload,
        origin: Origin,
    ) -> Self {
        Self::written(id, created, expires, payload, origin, Recency::at(created))
    }

    /// As [`new`](Self::new), of a session that is known to have been written at another moment than it was created.
    pub(crate) fn written(
        id: SessionId,
        created: Timestamp,
        expires: Timestamp,
        payload: Payload,
        origin: Origin,
        recency: Recency,
    ) -> Self {
        Self { inner: Arc::new(Inner { id, created, expires, payload, origin, recency }) }
    }

    /// The same, until another moment.
    pub(crate) fn until(&self, expires: Timestamp) -> Self {
        let Inner { id, created, payload, origin, recency, .. } = &*self.inner;
        let mut origin = origin.clone();
        if let Origin::Stored { deadline, .. } = &mut origin {
            *deadline = expires;
        }
        Self::written(*id, *created, expires, payload.clone(), origin, *recency)
    }

    /// The same, with another origin.
    pub(crate) fn with_origin(&self, origin: Origin) -> Self {
        let Inner { id, created, expires, payload, recency, .. } = &*self.inner;
        Self::written(*id, *created, *expires, payload.clone(), origin, *recency)
    }

    /// The same, due to be written anew: it came under a retired name of the cookie.
    pub(crate) fn to_be_rewritten(&self) -> Self {
        let Inner { id, created, expires, payload, origin, recency } = &*self.inner;
        let origin = match origin {
            Origin::Sealed { old_key, .. } => Origin::Sealed { old_key: *old_key, rewrite: true },
            other => other.clone(),
        };
        Self::written(*id, *created, *expires, payload.clone(), origin, *recency)
    }

    /// When the session was written, to compare it with others of the same request.
    pub(crate) fn recency(&self) -> Recency {
        self.inner.recency
    }

    /// Returns true if both are one record: clones of each other.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// The id.
    pub fn id(&self) -> SessionId {
        self.inner.id
    }

    /// When the session began. Regenerating its id does not change that.
    pub fn created(&self) -> Timestamp {
        self.inner.created
    }

    /// The first moment at which the session is over: the nearer of its idle and its absolute deadline.
    pub fn expires(&self) -> Timestamp {
        self.inner.expires
    }

    /// The values.
    pub(crate) fn payload(&self) -> &Payload {
        &self.inner.payload
    }

    /// What the store that made it wants back.
    pub(crate) fn origin(&self) -> &Origin {
        &self.inner.origin
    }

    /// True if it is the content of a native token.
    pub(crate) fn is_sealed(&self) -> bool {
        matches!(self.inner.origin, Origin::Sealed { .. })
    }

    /// True if a key opened it that does not seal any more.
    pub(crate) fn with_old_key(&self) -> bool {
        matches!(self.inner.origin, Origin::Sealed { old_key: true, .. })
    }

    /// True if it is to be written anew, whatever its deadline: under the present key, or in the present format.
    pub(crate) fn is_outdated(&self) -> bool {
        match self.inner.origin {
            Origin::Sealed { rewrite, .. } | Origin::Foreign { rewrite } => rewrite,
            Origin::Stored { .. } | Origin::Elsewhere(_) => false,
        }
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("id", &self.inner.id)
            .field("created", &self.inner.created)
            .field("expires", &self.inner.expires)
            .finish_non_exhaustive()
    }
}
