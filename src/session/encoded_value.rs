//! An undecoded value, in a form that outlives the lock of the session.

use std::ops::{Deref, Range};

use bytes::Bytes;

use super::Record;

/// The MessagePack bytes of one value. Decoding runs code of the application, so it must not borrow locked data.
pub(super) enum EncodedValue {
    /// From the log of changes.
    Changed(Bytes),
    /// The position in a record's payload, which is cheaper to hold than a view.
    Stored(Record, Range<usize>),
}

impl EncodedValue {
    /// Returns the same bytes as a view that can be sliced.
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
