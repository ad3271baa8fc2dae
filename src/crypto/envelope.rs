//! The byte layout of a sealed token, without keys.
//!
//! ```text
//! offset  bytes  field
//!      0      1  version, 0x01
//!      1      4  key id
//!      5      4  epoch: hours since 1970, big-endian
//!      9     12  nonce
//!     21      n  ciphertext                (associated data: bytes 0..21; for a record, then its id)
//!   21+n     16  AES-256-GCM tag
//!   37+n     32  HMAC-SHA256 over bytes 0..37+n
//! ```

use super::KeyId;
use super::random::NONCE_LEN;
use crate::event::Refusal;

pub(crate) const VERSION: u8 = 1;
pub(super) const HEADER_LEN: usize = 21;
pub(crate) const TAG_LEN: usize = 16;
pub(crate) const MAC_LEN: usize = 32;

/// The number of bytes that sealing adds to a plaintext.
pub(super) const OVERHEAD: usize = HEADER_LEN + TAG_LEN + MAC_LEN;

pub(crate) const EPOCH_SECONDS: u64 = 3600;

/// The clear part of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) key: KeyId,
    pub(super) epoch: u32,
    pub(super) nonce: [u8; NONCE_LEN],
}

impl Header {
    pub(super) fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut bytes = [VERSION; HEADER_LEN];
        let [_, rest @ ..] = &mut bytes;
        let (key, rest) = rest.split_at_mut(4);
        let (epoch, nonce) = rest.split_at_mut(4);
        key.copy_from_slice(&self.key.to_bytes());
        epoch.copy_from_slice(&self.epoch.to_be_bytes());
        nonce.copy_from_slice(&self.nonce);
        bytes
    }

    /// Reads the header of a token that is long enough to be one. Its content must not be trusted before the signature over
    /// it is checked.
    pub(super) fn read(token: &[u8]) -> Result<Self, Refusal> {
        let Some((&[version, k0, k1, k2, k3, e0, e1, e2, e3, ref nonce @ ..], sealed)) =
            token.split_first_chunk::<HEADER_LEN>()
        else {
            return Err(Refusal::Length);
        };
        if version != VERSION {
            return Err(Refusal::Version);
        }
        if sealed.len() < TAG_LEN + MAC_LEN {
            return Err(Refusal::Length);
        }
        Ok(Self {
            key: KeyId::from_bytes([k0, k1, k2, k3]),
            epoch: u32::from_be_bytes([e0, e1, e2, e3]),
            nonce: *nonce,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_read_back() {
        let header =
            Header { key: KeyId::from_bytes([1, 2, 3, 4]), epoch: 0x0506_0708, nonce: [9; NONCE_LEN] };
        let mut token = header.to_bytes().to_vec();
        assert_eq!(token[..9], [1, 1, 2, 3, 4, 5, 6, 7, 8]);
        token.extend_from_slice(&[0; TAG_LEN + MAC_LEN]);
        assert_eq!(Header::read(&token), Ok(header));
    }

    // T03, T70: every truncation is refused before anything else is checked.
    #[test]
    fn t03_every_truncation_is_refused() {
        let token = [VERSION; OVERHEAD];
        assert!(Header::read(&token).is_ok());
        for len in 0..token.len() {
            assert_eq!(Header::read(&token[..len]), Err(Refusal::Length), "{len}");
        }
    }

    #[test]
    fn other_versions_are_refused() {
        let mut token = [0; OVERHEAD];
        for version in 0..=255 {
            token[0] = version;
            assert_eq!(Header::read(&token).is_ok(), version == VERSION);
        }
    }
}
