//! A session as a store holds it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{Payload, Recency, SessionId};
use crate::clock::Timestamp;
use crate::crypto::ServerToken;

/// A session as a store returned it: id, times and values. Clones share one record.
#[derive(Clone)]
pub struct Record {
    // Shared, because a record is passed between store and session, and a view of a value keeps all of it in memory.
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    id: SessionId,
    created: Timestamp,
    expires: Timestamp,
    payload: Payload,
    origin: Origin,
    recency: Recency,
}

/// Data for the store that made the record.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// From a sealed token.
    Sealed {
        /// The key that opened it no longer seals.
        old_key: bool,
        /// It is to be written again: under the present key, or in the present format.
        rewrite: bool,
    },
    /// From a token in the format of another program.
    #[cfg_attr(not(feature = "astra"), allow(dead_code))] // the only such format
    Foreign {
        /// It is to be written in the native format.
        rewrite: bool,
    },
    /// From a server-side store: the secret token, and the stored value that a replacement must find unchanged.
    Stored {
        token: ServerToken,
        value: Bytes,
        /// The deadline of the entry, which may be later than that of the session.
        deadline: Timestamp,
        lifetime: EntryLifetime,
    },
    /// From a place whose sessions are taken over: as it was loaded there.
    Elsewhere(Place, Record),
}

/// The lifetime in the value of an entry: how long it was to last when it was written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum EntryLifetime {
    /// This request wrote the value, and did not decode it.
    NotDecoded,
    /// `None` if the format has none.
    Decoded(Option<Duration>),
}

/// A place whose sessions are taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The old store of a migration.
    OldStore,
    /// The entries under a retired name of the cookie: the one with this index in the options.
    RetiredName(usize),
}

impl Origin {
    /// Returns the origin of a native token.
    pub(crate) fn native(old_key: bool) -> Self {
        Self::Sealed { old_key, rewrite: old_key }
    }

    /// Returns the token of a record of a server-side store.
    pub(crate) fn token(&self) -> Option<&ServerToken> {
        let Self::Stored { token, .. } = self else { return None };
        Some(token)
    }

    /// Returns the value and the deadline of the entry that a record of a server-side store was loaded from.
    pub(crate) fn entry(&self) -> Option<(&Bytes, Timestamp)> {
        let Self::Stored { value, deadline, .. } = self else { return None };
        Some((value, *deadline))
    }
}

impl Record {
    /// Creates the record of a session that was not written since it began.
    #[cfg(test)]
    pub(crate) fn new(
        id: SessionId,
        created: Timestamp,
        expires: Timestamp,
        payload: Payload,
        origin: Origin,
    ) -> Self {
        Self::written(id, created, expires, payload, origin, Recency::at(created))
    }

    /// Creates the record of a session that was written at `recency`.
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

    fn with(&self, change: impl FnOnce(&mut Inner)) -> Self {
        let mut inner = Inner::clone(&self.inner);
        change(&mut inner);
        Self { inner: Arc::new(inner) }
    }

    /// Returns the same record with another deadline.
    pub(crate) fn until(&self, expires: Timestamp) -> Self {
        self.with(|inner| {
            inner.expires = expires;
            if let Origin::Stored { deadline, .. } = &mut inner.origin {
                *deadline = expires;
            }
        })
    }

    /// Returns the place that the session is taken over from, if any.
    pub(crate) fn place(&self) -> Option<Place> {
        match self.origin() {
            Origin::Elsewhere(place, _) => Some(*place),
            _ => None,
        }
    }

    /// Returns the session in this place if the record is from there.
    pub(crate) fn in_place(&self, place: Place) -> Option<&Self> {
        match self.origin() {
            Origin::Elsewhere(of, record) if *of == place => Some(record),
            _ => None,
        }
    }

    /// Returns this record as one that a store takes over from `place`.
    pub(crate) fn taken_from(self, place: Place) -> Self {
        self.with_origin(Origin::Elsewhere(place, self.clone()))
    }

    /// Returns the same record with a different origin.
    pub(crate) fn with_origin(&self, origin: Origin) -> Self {
        self.with(|inner| inner.origin = origin)
    }

    /// Returns the same record, due to be written again because it came under a retired name of the cookie.
    pub(crate) fn to_be_rewritten(&self) -> Self {
        self.with(|inner| {
            if let Origin::Sealed { rewrite, .. } = &mut inner.origin {
                *rewrite = true;
            }
        })
    }

    /// Returns when the session was written, to compare it with others of the same request.
    pub(crate) fn recency(&self) -> Recency {
        self.inner.recency
    }

    /// Returns true if both are clones of one record.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Returns the id of the session.
    pub fn id(&self) -> SessionId {
        self.inner.id
    }

    /// Returns when the session began. Regenerating it does not change that.
    pub fn created(&self) -> Timestamp {
        self.inner.created
    }

    /// Returns the first moment at which the session has expired: the earlier one of its idle and its absolute deadline.
    pub fn expires(&self) -> Timestamp {
        self.inner.expires
    }

    /// Returns the values.
    pub(crate) fn payload(&self) -> &Payload {
        &self.inner.payload
    }

    /// Returns the data for the store that made the record.
    pub(crate) fn origin(&self) -> &Origin {
        &self.inner.origin
    }

    /// Returns true if a native token held it or led to it.
    pub(crate) fn is_of_native_token(&self) -> bool {
        matches!(self.inner.origin, Origin::Sealed { .. } | Origin::Stored { .. })
    }

    /// Returns true if its cookie holds the values.
    pub(crate) fn is_in_cookie(&self) -> bool {
        matches!(self.inner.origin, Origin::Sealed { .. } | Origin::Foreign { .. })
    }

    /// Returns true if the key that opened it no longer seals.
    pub(crate) fn with_old_key(&self) -> bool {
        matches!(self.inner.origin, Origin::Sealed { old_key: true, .. })
    }

    /// Returns true if it is to be written again whatever its deadline: under the present key, or in the present format.
    pub(crate) fn is_outdated(&self) -> bool {
        match self.inner.origin {
            Origin::Sealed { rewrite, .. } | Origin::Foreign { rewrite } => rewrite,
            Origin::Stored { .. } | Origin::Elsewhere(..) => false,
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
