//! Sealing and opening tokens: the signature is checked before AES-256-GCM decrypts, with a key for each hour.

use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use bytes::Bytes;
use smallvec::SmallVec;

use super::KeyId;
use super::Random;
use super::base64url;
use super::derive::Info;
use super::envelope::{EPOCH_SECONDS, HEADER_LEN, Header, MAC_LEN, OVERHEAD, TAG_LEN};
use super::hour_keys::HourKeys;
use super::keyring::{Keyring, RingKey};
use super::random::IdStart;
use super::secret_text::SecretText;
use crate::clock::Timestamp;
use crate::error::{Error, Kind};
use crate::event::Refusal;

/// The purpose of a sealed value. A token for one purpose never opens for another (T08).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A session in a cookie.
    Session,
    /// An entry of a server-side store.
    Record,
    /// A challenge that a device signs.
    #[cfg(feature = "device-bound")]
    Challenge,
    /// The cookie by which a device shows that it has signed a challenge moments ago.
    #[cfg(feature = "device-bound")]
    BoundCookie,
    /// For tests that purposes are separate.
    #[cfg(test)]
    Test,
}

impl Purpose {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Record => "record",
            #[cfg(feature = "device-bound")]
            Self::Challenge => "challenge",
            #[cfg(feature = "device-bound")]
            Self::BoundCookie => "bound cookie",
            #[cfg(test)]
            Self::Test => "test",
        }
    }
}

/// Seals and opens for one purpose under one name.
pub(crate) struct Sealer {
    /// The first one seals.
    keys: SmallVec<[SealKey; 2]>,
    revoked: Vec<KeyId>,
    random: Arc<dyn Random>,
}

/// One application key, bound to a purpose and a name.
struct SealKey {
    ring: Arc<RingKey>,
    purpose: Purpose,
    name: Box<str>,
    mac: hmac::Key,
    hours: HourKeys,
}

/// The plaintext of a token whose signature was checked. Only [`Sealer::open`] makes one, so only authentic plaintexts can
/// be decoded.
pub(crate) struct Unsealed {
    plaintext: Bytes,
    old_key: bool,
    epoch: u32,
}

impl Unsealed {
    /// Returns the first second of the hour in which the token was sealed.
    pub(crate) fn hour(&self) -> Timestamp {
        Timestamp::from_unix(u64::from(self.epoch) * EPOCH_SECONDS)
    }

    pub(crate) fn into_plaintext(self) -> Bytes {
        self.plaintext
    }

    /// Returns true if it was opened with a key that no longer seals.
    pub(crate) fn with_old_key(&self) -> bool {
        self.old_key
    }
}

impl std::fmt::Debug for Unsealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unsealed").field("len", &self.plaintext.len()).finish_non_exhaustive()
    }
}

impl Sealer {
    pub(crate) fn new(
        keyring: &Keyring,
        purpose: Purpose,
        name: &str,
        random: Arc<dyn Random>,
    ) -> Result<Self, Error> {
        keyring.validate()?;
        let keys =
            keyring.keys().iter().map(|ring| SealKey::new(ring, purpose, name)).collect::<Result<_, _>>()?;
        Ok(Self { keys, revoked: keyring.revoked().to_vec(), random })
    }

    /// Returns the length in characters of the token for `plaintext` bytes.
    pub(crate) const fn token_len(plaintext: usize) -> usize {
        base64url::encoded_len(plaintext + OVERHEAD)
    }

    /// Seals the concatenation of `parts` into a token.
    ///
    /// # Errors
    ///
    /// `is_random` if there is no fresh nonce.
    pub(crate) fn seal_text(&self, now: Timestamp, parts: &[&[u8]]) -> Result<SecretText, Error> {
        self.seal_bytes(now, &[], parts).map(|token| SecretText::new(base64url::encode_to_vec(&token)))
    }

    /// Works as [`seal_text`](Self::seal_text), without the text. The result opens only together with the same `place`.
    pub(crate) fn seal_bytes(&self, now: Timestamp, place: &[u8], parts: &[&[u8]]) -> Result<Vec<u8>, Error> {
        let key = self.keys.first().ok_or_else(|| Error::new(Kind::Internal("a keyring without a key")))?;
        let nonce = self.random.nonce(id_of(place, parts))?;
        let header = Header { key: key.ring.id, epoch: epoch_of(now), nonce };
        key.seal(header, place, parts)
    }

    /// Opens `text` if [`seal_text`](Self::seal_text) returned exactly this text under a key of this ring.
    pub(crate) fn open(&self, text: &[u8]) -> Result<Unsealed, Refusal> {
        base64url::decoded(text, |token| self.open_bytes(token, &[])).unwrap_or(Err(Refusal::Encoding))
    }

    /// Checks that these bytes have the form of a token, under any key.
    pub(crate) fn check_form(token: &[u8]) -> Result<(), Refusal> {
        Header::read(token).map(drop)
    }

    /// Opens a token that [`seal_bytes`](Self::seal_bytes) made for the same `place`.
    pub(crate) fn open_bytes(&self, token: &[u8], place: &[u8]) -> Result<Unsealed, Refusal> {
        let header = Header::read(token)?;
        if self.revoked.contains(&header.key) {
            return Err(Refusal::RevokedKey);
        }
        // Key ids are public, so the comparison need not take constant time.
        let found = self.keys.iter().enumerate().find(|(_, key)| key.ring.id == header.key);
        let (age, key) = found.ok_or(Refusal::UnknownKey)?;
        let plaintext = key.open(header, place, token)?;
        Ok(Unsealed { plaintext, old_key: age > 0, epoch: header.epoch })
    }
}

/// Returns the id in a token, which need not be of this ring, if the text has the form of a token.
pub(crate) fn key_of(text: &[u8]) -> Option<KeyId> {
    base64url::decoded(text, |token| Header::read(token).ok().map(|header| header.key)).flatten()
}

#[cfg(feature = "astra")]
impl Sealer {
    /// Returns true if these bytes are the id of a key of this ring, revoked or not.
    pub(crate) fn names_a_key(&self, id: &[u8]) -> bool {
        let ids = self.keys.iter().map(|key| key.ring.id).chain(self.revoked.iter().copied());
        ids.map(KeyId::to_bytes).any(|known| known == id)
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids: Vec<_> = self.keys.iter().map(|key| key.ring.id).collect();
        f.debug_struct("Sealer").field("keys", &ids).finish_non_exhaustive()
    }
}

impl SealKey {
    fn new(ring: &Arc<RingKey>, purpose: Purpose, name: &str) -> Result<Self, Error> {
        let info = Info { label: "mac", purpose: purpose.as_str(), name };
        let mac = hmac::Key::new(HMAC_SHA256, &*ring.root.key(info, None)?);
        Ok(Self { ring: Arc::clone(ring), purpose, name: name.into(), mac, hours: HourKeys::new() })
    }

    fn seal(&self, header: Header, place: &[u8], parts: &[&[u8]]) -> Result<Vec<u8>, Error> {
        let failed = || Error::new(Kind::Internal("AES-256-GCM refused to seal"));
        let clear = header.to_bytes();
        let plaintext = parts.iter().map(|part| part.len()).sum::<usize>();
        let mut token = Vec::with_capacity(plaintext + OVERHEAD);
        token.extend_from_slice(&clear);
        for part in parts {
            token.extend_from_slice(part);
        }

        let body = token.get_mut(HEADER_LEN..).ok_or_else(failed)?;
        let mut joined = SmallVec::new();
        let associated = associated(&clear, place, &mut joined);
        let tag = self.with_epoch_key(header.epoch, |key| {
            key.seal_in_place_separate_tag(nonce(header), Aad::from(associated), body)
        });
        token.extend_from_slice(tag.and_then(Result::ok).ok_or_else(failed)?.as_ref());

        let mac = hmac::sign(&self.mac, &token);
        token.extend_from_slice(mac.as_ref());
        Ok(token)
    }

    /// Checks the signature first, over all bytes, in constant time. So forged bytes never reach the cipher, never cause a
    /// key to be derived, and never cause an allocation.
    fn open(&self, header: Header, place: &[u8], token: &[u8]) -> Result<Bytes, Refusal> {
        let (signed, mac) = token.split_last_chunk::<MAC_LEN>().ok_or(Refusal::Length)?;
        hmac::verify(&self.mac, signed, mac).map_err(|_| Refusal::Signature)?;

        let (clear, sealed) = signed.split_first_chunk::<HEADER_LEN>().ok_or(Refusal::Length)?;
        let (body, tag) = sealed.split_last_chunk::<TAG_LEN>().ok_or(Refusal::Length)?;
        let mut joined = SmallVec::new();
        let associated = associated(clear, place, &mut joined);
        // A buffer of the right length. Its content does not matter, but a copy is several times as fast as `calloc`.
        let mut plaintext = body.to_vec();
        let opened = self.with_epoch_key(header.epoch, |key| {
            key.open_separate_gather(nonce(header), Aad::from(associated), body, tag, &mut plaintext).is_ok()
        });
        if opened != Some(true) {
            return Err(Refusal::Ciphertext);
        }
        Ok(Bytes::from(plaintext))
    }

    /// Calls `use_key` with the encryption key of `epoch`.
    fn with_epoch_key<R>(&self, epoch: u32, use_key: impl FnMut(&LessSafeKey) -> R) -> Option<R> {
        let derive = || {
            let info = Info { label: "encrypt", purpose: self.purpose.as_str(), name: &self.name };
            let bytes = self.ring.root.key(info, Some(epoch)).ok()?;
            Some(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &*bytes).ok()?))
        };
        self.hours.with(epoch, derive, use_key)
    }
}

/// Returns the beginning of the id of the sealed entry, to which the token is bound, or of the sealed session, with which the
/// first part begins.
fn id_of(place: &[u8], parts: &[&[u8]]) -> IdStart {
    let id = if place.is_empty() { parts.first().copied().unwrap_or_default() } else { place };
    id.first_chunk().copied().unwrap_or_default()
}

/// Returns the associated data: the clear header, and the place to which the token is bound. That is empty for a cookie,
/// and the id for a stored entry.
fn associated<'a>(clear: &'a [u8; HEADER_LEN], place: &[u8], joined: &'a mut SmallVec<[u8; 64]>) -> &'a [u8] {
    if place.is_empty() {
        return clear;
    }
    joined.extend_from_slice(clear);
    joined.extend_from_slice(place);
    joined
}

fn nonce(header: Header) -> Nonce {
    Nonce::assume_unique_for_key(header.nonce)
}

/// Returns the hours since 1970. Saturates in the year 491,936.
fn epoch_of(now: Timestamp) -> u32 {
    u32::try_from(now.as_unix() / EPOCH_SECONDS).unwrap_or(u32::MAX)
}

/// The last second of the last hour that a token can name.
pub(crate) const LAST_SECOND: Timestamp = Timestamp::from_unix((u32::MAX as u64 + 1) * EPOCH_SECONDS - 1);

// The primitives as they are called above, for published test vectors.

#[cfg(test)]
pub(super) fn gcm_seal(key: &[u8], nonce: [u8; 12], aad: &[u8], body: &mut [u8]) -> [u8; TAG_LEN] {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap());
    let nonce = Nonce::assume_unique_for_key(nonce);
    let tag = key.seal_in_place_separate_tag(nonce, Aad::from(aad), body);
    tag.unwrap().as_ref().try_into().unwrap()
}

#[cfg(test)]
pub(super) fn gcm_open(key: &[u8], nonce: [u8; 12], aad: &[u8], body_and_tag: &mut [u8]) -> bool {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap());
    let nonce = Nonce::assume_unique_for_key(nonce);
    key.open_in_place(nonce, Aad::from(aad), body_and_tag).is_ok()
}

#[cfg(test)]
pub(super) fn hmac_sign(key: &[u8], message: &[u8]) -> [u8; MAC_LEN] {
    let tag = hmac::sign(&hmac::Key::new(HMAC_SHA256, key), message);
    tag.as_ref().try_into().unwrap()
}

#[cfg(test)]
pub(super) fn hmac_verify(key: &[u8], message: &[u8], tag: &[u8]) -> bool {
    hmac::verify(&hmac::Key::new(HMAC_SHA256, key), message, tag).is_ok()
}

#[cfg(test)]
#[path = "seal_tests/mod.rs"]
mod tests;
