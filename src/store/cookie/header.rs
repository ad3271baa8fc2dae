//! The header that a cookie token seals before the payload.
//!
//! `docs/WIRE.md` owns this layout.

use bytes::{Buf, BufMut, Bytes};

use crate::clock::Timestamp;
use crate::session::SessionId;

/// What a cookie token seals before the payload. A token without a deadline cannot be written: the type has no room for
/// one that is missing (T20).
///
/// ```text
/// offset  bytes  field
///      0     16  id
///     16      8  created, seconds since 1970, big-endian
///     24      8  issued
///     32      8  expires: the first moment at which the session is over
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SealedHeader {
    pub(crate) id: SessionId,
    pub(crate) created: Timestamp,
    pub(crate) issued: Timestamp,
    pub(crate) expires: Timestamp,
}

impl SealedHeader {
    pub(crate) const LEN: usize = 40;

    pub(crate) fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let mut out = &mut bytes[..];
        out.put_slice(&self.id.to_bytes());
        for time in [self.created, self.issued, self.expires] {
            out.put_u64(time.as_unix());
        }
        bytes
    }

    /// Takes the header off the front of `plaintext`.
    pub(crate) fn take(plaintext: &mut Bytes) -> Option<Self> {
        if plaintext.len() < Self::LEN {
            return None;
        }
        let mut id = [0; 16];
        plaintext.copy_to_slice(&mut id);
        let mut time = || Timestamp::from_unix(plaintext.get_u64());
        Some(Self { id: SessionId::from_bytes(id), created: time(), issued: time(), expires: time() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back_and_its_truncations_do_not() {
        let t = Timestamp::from_unix;
        let header = SealedHeader {
            id: SessionId::from_bytes([5; 16]),
            created: t(1),
            issued: t(2),
            expires: t(u64::MAX),
        };
        let bytes = header.to_bytes();
        assert_eq!(SealedHeader::take(&mut Bytes::copy_from_slice(&bytes)), Some(header));
        for len in 0..bytes.len() {
            assert_eq!(SealedHeader::take(&mut Bytes::copy_from_slice(&bytes[..len])), None);
        }
    }
}
