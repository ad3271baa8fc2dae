//! The header that a cookie token seals before the payload.
//!
//! `docs/WIRE.md` owns this layout.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};

use crate::clock::Timestamp;
use crate::crypto::{EPOCH_SECONDS, LAST_SECOND};
use crate::session::{Recency, SessionId};

/// The header that a cookie token seals before the payload. A token without a deadline cannot be written: the type
/// requires one (T20).
///
/// ```text
/// offset  bytes  field
///      0     16  id
///     16      2  issued: seconds since the hour in the token (0 to 3599) * 16 + sequence (0 to 15), big-endian
///     18      4  age: issued - created, in seconds
///     22      4  lifetime: expires - issued, in seconds
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SealedHeader {
    pub(super) id: SessionId,
    pub(super) created: Timestamp,
    pub(super) issued: Recency,
    /// The first moment at which the session has expired.
    pub(super) expires: Timestamp,
}

impl SealedHeader {
    pub(super) const LEN: usize = 26;

    /// Creates a header whose times fit the layout. Where one does not, the session ends earlier, never later: no token
    /// is issued after the last hour that a token can name, and a session lasts at most 2^32 - 1 seconds (136 years).
    pub(super) fn new(id: SessionId, created: Timestamp, issued: Recency, expires: Timestamp) -> Self {
        let issued = Recency { written: issued.written.min(LAST_SECOND), ..issued };
        let created = created.min(issued.written);
        Self { id, created, issued, expires: expires.min(oldest_end(created)).max(issued.written) }
    }

    pub(super) fn to_bytes(self) -> [u8; Self::LEN] {
        let issued = self.issued.written;
        let second = issued.as_unix() % EPOCH_SECONDS;
        // At most 3599 * 16 + 15.
        let moment = u16::try_from(second << 4).unwrap_or(u16::MAX) | u16::from(self.issued.sequence & 15);
        let mut bytes = [0; Self::LEN];
        let mut out = &mut bytes[..];
        out.put_slice(&self.id.to_bytes());
        out.put_u16(moment);
        out.put_u32(seconds(issued.saturating_since(self.created)));
        out.put_u32(seconds(self.expires.saturating_since(issued)));
        bytes
    }

    /// Takes the header from the front of `plaintext`, which was sealed in the hour that begins with `hour`.
    pub(super) fn take(plaintext: &mut Bytes, hour: Timestamp) -> Option<Self> {
        if plaintext.len() < Self::LEN {
            return None;
        }
        let mut id = [0; 16];
        plaintext.copy_to_slice(&mut id);
        let moment = plaintext.get_u16();
        let second = u64::from(moment >> 4);
        if second >= EPOCH_SECONDS {
            return None; // not the canonical form
        }
        let written = hour.saturating_add(Duration::from_secs(second));
        let age = u64::from(plaintext.get_u32());
        let created = Timestamp::from_unix(written.as_unix().checked_sub(age)?);
        let lifetime = Duration::from_secs(plaintext.get_u32().into());
        let expires = written.saturating_add(lifetime).min(oldest_end(created));
        let issued = Recency { written, sequence: (moment & 15) as u8 };
        Some(Self { id: SessionId::from_bytes(id), created, issued, expires })
    }
}

/// Returns the latest end of a session: its age has no more digits.
fn oldest_end(created: Timestamp) -> Timestamp {
    created.saturating_add(Duration::from_secs(u32::MAX.into()))
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix(seconds)
    }

    fn header(created: u64, issued: u64, sequence: u8, expires: u64) -> SealedHeader {
        let issued = Recency { written: at(issued), sequence };
        SealedHeader::new(SessionId::from_bytes([5; 16]), at(created), issued, at(expires))
    }

    fn hour_of(header: SealedHeader) -> Timestamp {
        at(header.issued.written.as_unix() / EPOCH_SECONDS * EPOCH_SECONDS)
    }

    fn read(bytes: &[u8], hour: Timestamp) -> Option<SealedHeader> {
        SealedHeader::take(&mut Bytes::copy_from_slice(bytes), hour)
    }

    #[test]
    fn a_header_reads_back_and_its_truncations_do_not() {
        let header = header(1_799_999_000, 1_800_000_005, 3, 1_800_003_605);
        let bytes = header.to_bytes();
        assert_eq!(bytes[16..], [0, 0x53, 0, 0, 0x03, 0xed, 0, 0, 0x0e, 0x10]);
        assert_eq!(read(&bytes, hour_of(header)), Some(header));
        for len in 0..bytes.len() {
            assert_eq!(read(&bytes[..len], hour_of(header)), None);
        }
    }

    // One spelling for each moment, and no session from before 1970.
    #[test]
    fn other_spellings_are_not_read() {
        let mut bytes = header(0, 7_199, 15, 8_000).to_bytes();
        assert!(read(&bytes, at(3_600)).is_some());
        bytes[16..18].copy_from_slice(&(3_600_u16 << 4).to_be_bytes());
        assert_eq!(read(&bytes, at(3_600)), None);
        let bytes = header(3_600, 3_700, 0, 8_000).to_bytes();
        assert_eq!(read(&bytes, at(0)).unwrap().created, at(0));
        let mut bytes = bytes;
        bytes[18..22].copy_from_slice(&101_u32.to_be_bytes());
        assert_eq!(read(&bytes, at(0)), None);
    }

    // T23: where a time does not fit, the session ends earlier.
    #[test]
    fn t23_times_that_do_not_fit_end_the_session_earlier() {
        let year = 365 * 24 * 3_600;
        // A thousand years of absolute timeout, from the beginning to the end of what fits.
        let began = header(1_000, 1_000, 0, 1_000 * year);
        assert_eq!(began.expires, at(1_000 + u64::from(u32::MAX)));
        let old = header(1_000, 1_000 + 130 * year, 0, 1_000 * year);
        assert_eq!((old.created, old.expires), (at(1_000), began.expires));
        assert_eq!(read(&old.to_bytes(), hour_of(old)), Some(old));
        // Older than any session can be: it has expired.
        let ancient = header(1_000, 1_000 + 140 * year, 0, 1_000 * year);
        let ancient = read(&ancient.to_bytes(), hour_of(ancient)).unwrap();
        assert!(
            ancient.expires <= ancient.issued.written.saturating_add(Duration::from_secs(u32::MAX.into()))
        );
        // After the last hour.
        let last = header(u64::MAX, u64::MAX, 0, u64::MAX);
        assert_eq!((last.created, last.issued.written), (LAST_SECOND, LAST_SECOND));
        assert_eq!(read(&last.to_bytes(), hour_of(last)), Some(last));
        // A clock that went back between login and renewal.
        assert_eq!(header(500, 400, 0, 600).created, at(400));
    }

    proptest! {
        #[test]
        fn headers_read_back(
            created in prop_oneof![any::<u64>(), 0..4_000_000_000_u64],
            age in prop_oneof![any::<u64>(), 0..100_000_u64],
            sequence in 0..16_u8,
            lifetime in prop_oneof![any::<u64>(), 0..100_000_u64],
        ) {
            let issued = created.saturating_add(age);
            let expires = issued.saturating_add(lifetime);
            let header = header(created, issued, sequence, expires);
            let back = read(&header.to_bytes(), hour_of(header)).unwrap();
            prop_assert_eq!(back.issued, header.issued);
            prop_assert!(back.expires <= at(expires).max(header.issued.written));
            if u32::try_from(age).is_ok() && issued <= LAST_SECOND.as_unix() {
                prop_assert_eq!(back, header);
                prop_assert_eq!(back.created, at(created));
            }
        }
    }
}
