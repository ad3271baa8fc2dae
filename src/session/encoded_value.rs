//! A value that is not decoded yet, in a form that outlives the lock of the session.

use std::ops::{Deref, Range};

use bytes::Bytes;

use super::Record;

/// The MessagePack bytes of one value. Decoding runs code of the application, so it must not borrow from what is locked.
pub(super) enum EncodedValue {
    /// From the log of changes.
    Changed(Bytes),
    /// Where it lies in a record's payload: cheaper to hold than a view of its own.
    Stored(Record, Range<usize>),
}

impl EncodedValue {
    /// The same bytes as a view that can be cut.
    pub(super) fn into_bytes(self) -> Bytes {
        match self {
            Self::Changed(bytes) => bytes,
            Self::Stored(record, range) => record.payload().view(range),
        }
    }
}

impl Deref for EncodedValue {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Changed(bytes) => bytes,
            Self::Stored(record, range) => record.payload().slice(range.clone()),
        }
    }
}
