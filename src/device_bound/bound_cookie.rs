//! The value of the bound cookie: until when the device of a session counts as present.
//!
//! ```text
//! offset  bytes  field
//!      0      1  version, 0x01
//!      1      4  key id
//!      5      5  until: seconds since 1970, big-endian
//!     10     32  HMAC-SHA256 over the version, until, and the public key of the device (33 bytes)
//! ```
//!
//! The MAC does not cover the session's id, so that a session keeps its bound cookie when it is given another id.

use crate::clock::Timestamp;
use crate::crypto::{BOUND_TAG_LEN, KeyId, PublicKey, Tagger, decode_base64url_array, encode_base64url};
use crate::error::Error;

const VERSION: u8 = 1;
const UNTIL_LEN: usize = 5;
const LEN: usize = 1 + 4 + UNTIL_LEN + BOUND_TAG_LEN;
/// The number of characters of a value.
pub(super) const TEXT_LEN: usize = (LEN * 4).div_ceil(3);
/// The largest value of five bytes: the year 36,812.
const MAX_UNTIL: u64 = (1 << (8 * UNTIL_LEN)) - 1;

type Until = [u8; UNTIL_LEN];

/// Writes a value for the device that holds `key`.
pub(super) fn write(tagger: &Tagger, key: &PublicKey, until: Timestamp) -> Result<String, Error> {
    let [_, _, _, until @ ..] = until.as_unix().min(MAX_UNTIL).to_be_bytes();
    let (id, tag) = tagger.tag(&message(until, key))?;
    let value = std::iter::once(VERSION).chain(id.to_bytes()).chain(until).chain(tag);
    Ok(encode_base64url(&value.collect::<Vec<_>>()))
}

/// Returns true if the value has the form of a bound cookie, of this version or another.
pub(super) fn has_form(value: &[u8]) -> bool {
    decode_base64url_array::<LEN>(value).is_some()
}

/// A value of this version, whose tag is not checked yet.
pub(super) struct Untested {
    id: KeyId,
    end: Until,
    tag: [u8; BOUND_TAG_LEN],
}

impl Untested {
    /// Reads a value. `None` if it does not have the form of one, or a key that the tagger does not have.
    pub(super) fn read(tagger: &Tagger, value: &[u8]) -> Option<Self> {
        let bytes: [u8; LEN] = decode_base64url_array(value)?;
        let [VERSION, k0, k1, k2, k3, rest @ ..] = bytes else { return None };
        let (end, tag) = rest.split_first_chunk::<UNTIL_LEN>()?;
        let id = KeyId::from_bytes([k0, k1, k2, k3]);
        tagger.has_key(id).then_some(Self { id, end: *end, tag: *tag.first_chunk()? })
    }

    /// Returns until when the device counts as present, if the tag is genuine.
    pub(super) fn until(&self) -> Timestamp {
        Timestamp::from_unix(self.end.iter().fold(0, |until, byte| until << 8 | u64::from(*byte)))
    }

    /// Returns true if the tag is genuine, and the value is for the device that holds `key`.
    pub(super) fn is_of(&self, tagger: &Tagger, key: &PublicKey) -> bool {
        tagger.verify(self.id, &message(self.end, key), &self.tag)
    }
}

fn message(until: Until, key: &PublicKey) -> [u8; 1 + UNTIL_LEN + PublicKey::LEN] {
    let mut message = [VERSION; 1 + UNTIL_LEN + PublicKey::LEN];
    let [_, rest @ ..] = &mut message;
    let (end, point) = rest.split_at_mut(UNTIL_LEN);
    end.copy_from_slice(&until);
    point.copy_from_slice(key.as_bytes());
    message
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::crypto::{AppKey, Keyring, Purpose};

    pub(in super::super) fn tagger(seed: &[u8]) -> Tagger {
        let ring = Keyring::new(AppKey::danger_from_any_bytes(seed).unwrap());
        Tagger::new(&ring, Purpose::BoundCookie, "s").unwrap()
    }

    /// Returns until when the device that holds `key` counts as present. `None` if the value is not for this device.
    pub(in super::super) fn read(tagger: &Tagger, key: &PublicKey, value: &[u8]) -> Option<Timestamp> {
        let untested = Untested::read(tagger, value)?;
        untested.is_of(tagger, key).then(|| untested.until())
    }

    #[test]
    fn a_value_is_for_one_device_and_one_moment() {
        let (tagger, until) = (tagger(b"one"), Timestamp::from_unix(1_800_000_600));
        let (key, other) = (PublicKey::of(true, &[7; 32]), PublicKey::of(false, &[7; 32]));
        let value = write(&tagger, &key, until).unwrap();
        assert_eq!((value.len(), TEXT_LEN), (56, 56));
        assert_eq!(read(&tagger, &key, value.as_bytes()), Some(until));
        assert_eq!(read(&tagger, &other, value.as_bytes()), None);
        assert_eq!(read(&super::tests::tagger(b"two"), &key, value.as_bytes()), None);
        // Every character counts.
        for at in 0..value.len() {
            let mut altered = value.clone().into_bytes();
            altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(read(&tagger, &key, &altered), None, "{at}");
        }
        for bad in ["", &value[1..], &format!("{value}A"), &format!("{}=", &value[1..])] {
            assert_eq!(read(&tagger, &key, bad.as_bytes()), None, "{bad}");
            assert!(!has_form(bad.as_bytes()), "{bad}");
        }
        assert!(has_form(value.as_bytes()));
    }

    #[test]
    fn what_is_refused_before_its_tag_is_checked() {
        let (tagger, key) = (tagger(b"one"), PublicKey::of(true, &[7; 32]));
        let value = write(&tagger, &key, Timestamp::from_unix(600)).unwrap();
        let forged = format!("{}{}", &value[..54], if value.ends_with("AA") { "BA" } else { "AA" });
        for (value, is_tested) in [(&*value, true), (&forged, true), (&"A".repeat(56), false), ("x", false)] {
            assert_eq!(Untested::read(&tagger, value.as_bytes()).is_some(), is_tested, "{value}");
        }
        assert!(Untested::read(&super::tests::tagger(b"two"), value.as_bytes()).is_none(), "another key");
    }

    #[test]
    fn times_that_do_not_fit_end_earlier() {
        let (tagger, key) = (tagger(b"one"), PublicKey::of(true, &[7; 32]));
        let value = write(&tagger, &key, Timestamp::from_unix(u64::MAX)).unwrap();
        assert_eq!(read(&tagger, &key, value.as_bytes()), Some(Timestamp::from_unix(MAX_UNTIL)));
    }
}
