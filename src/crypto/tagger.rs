//! Short values that a client may read and must not change: authenticated by HMAC-SHA256, not encrypted.

use std::fmt;

use aws_lc_rs::hmac::{self, HMAC_SHA256};
use smallvec::SmallVec;

use super::derive::Info;
use super::seal::Purpose;
use super::{KeyId, Keyring};
use crate::error::{Error, Kind};

/// The number of bytes of a tag.
pub(crate) const TAG_LEN: usize = 32;

/// Makes and checks tags for one purpose under one name. Its keys have nothing to do with those of a
/// [`Sealer`](super::Sealer) for another purpose.
pub(crate) struct Tagger {
    /// The first one makes tags. Revoked keys are not among them.
    keys: SmallVec<[(KeyId, hmac::Key); 2]>,
}

impl Tagger {
    pub(crate) fn new(keyring: &Keyring, purpose: Purpose, name: &str) -> Result<Self, Error> {
        keyring.validate()?;
        let info = Info { label: "mac", purpose: purpose.as_str(), name };
        let keys = keyring.keys().iter().filter(|key| !keyring.revoked().contains(&key.id));
        let keys = keys.map(|key| Ok((key.id, hmac::Key::new(HMAC_SHA256, &*key.root.key(info, None)?))));
        Ok(Self { keys: keys.collect::<Result<_, Error>>()? })
    }

    /// Returns the tag of `message`, and the id of the key that made it.
    pub(crate) fn tag(&self, message: &[u8]) -> Result<(KeyId, [u8; TAG_LEN]), Error> {
        let internal = || Error::new(Kind::Internal("a keyring without a key"));
        let (id, key) = self.keys.first().ok_or_else(internal)?;
        let tag = hmac::sign(key, message).as_ref().try_into().map_err(|_| internal())?;
        Ok((*id, tag))
    }

    /// Returns true if tags of the key `id` can be checked.
    pub(crate) fn has_key(&self, id: KeyId) -> bool {
        self.keys.iter().any(|(known, _)| *known == id)
    }

    /// Returns true if the key `id` made `tag` for `message`. Takes the same time for each tag.
    pub(crate) fn verify(&self, id: KeyId, message: &[u8], tag: &[u8; TAG_LEN]) -> bool {
        // Key ids are public, so the comparison need not take constant time.
        let key = self.keys.iter().find(|(known, _)| *known == id);
        key.is_some_and(|(_, key)| hmac::verify(key, message, tag).is_ok())
    }
}

impl fmt::Debug for Tagger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.keys.iter().map(|(id, _)| id).collect();
        f.debug_struct("Tagger").field("keys", &ids).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::AppKey;
    use super::*;

    fn key(seed: &[u8]) -> AppKey {
        AppKey::danger_from_any_bytes(seed).unwrap()
    }

    fn tagger(keyring: &Keyring, name: &str) -> Tagger {
        Tagger::new(keyring, Purpose::BoundCookie, name).unwrap()
    }

    #[test]
    fn a_tag_is_of_one_message_one_name_one_purpose_and_one_key() {
        let one = Keyring::new(key(b"one"));
        let (id, tag) = tagger(&one, "s").tag(b"message").unwrap();
        assert_eq!(id, key(b"one").id());
        assert!(tagger(&one, "s").verify(id, b"message", &tag));
        assert!(!tagger(&one, "s").verify(id, b"massage", &tag));
        assert!(!tagger(&one, "t").verify(id, b"message", &tag));
        assert!(!Tagger::new(&one, Purpose::Session, "s").unwrap().verify(id, b"message", &tag));
        assert!(!tagger(&Keyring::new(key(b"two")), "s").verify(id, b"message", &tag));
        for at in 0..TAG_LEN {
            let mut altered = tag;
            altered[at] ^= 1;
            assert!(!tagger(&one, "s").verify(id, b"message", &altered), "{at}");
        }
    }

    // T17.
    #[test]
    fn t17_accepted_keys_check_tags_and_revoked_ones_do_not() {
        let (id, tag) = tagger(&Keyring::new(key(b"old")), "s").tag(b"m").unwrap();
        let ring = Keyring::new(key(b"new")).accept(key(b"old"));
        assert!(tagger(&ring, "s").verify(id, b"m", &tag));
        assert!(tagger(&ring, "s").has_key(id));
        let revoked = tagger(&ring.revoke(id), "s");
        assert!(!revoked.verify(id, b"m", &tag) && !revoked.has_key(id));
    }
}
