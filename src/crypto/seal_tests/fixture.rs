//! Keys, names and sealers of these tests, and the expected refusals.

use std::sync::Arc;

use bytes::Bytes;

use super::independent::{Keys, decode, encode};
use crate::clock::Timestamp;
use crate::crypto::keyring::Keyring;
use crate::crypto::random::{NONCE_LEN, SystemRandom};
use crate::crypto::seal::{Purpose, Sealer, Unsealed};
use crate::crypto::{AppKey, Random};
use crate::error::Error;
use crate::event::Refusal;

pub(super) const APP_KEY: &[u8] = b"hyper-session example key, public";
pub(super) const OTHER_KEY: &[u8] = b"another key that is of no use to anyone, of a length of its own.";
pub(super) const NAME: &str = "__Host-session";

pub(super) const NOW: Timestamp = Timestamp::from_unix(1_800_000_000);
pub(super) const EPOCH: u32 = 500_000;
pub(super) const NONCE: [u8; NONCE_LEN] = *b"twelve bytes";

pub(super) const PLAINTEXT: &[u8] = b"forty bytes that no other reader may see";

/// A generator that returns the same nonce each time, so that a token is known beforehand.
struct FixedNonce([u8; NONCE_LEN]);

impl Random for FixedNonce {
    fn fill(&self, out: &mut [u8]) -> Result<(), Error> {
        out.copy_from_slice(&self.0);
        Ok(())
    }
}

impl Sealer {
    /// Works as `seal_text`, in the clear.
    pub(crate) fn seal(&self, now: Timestamp, parts: &[&[u8]]) -> Result<String, Error> {
        self.seal_text(now, parts).map(|text| String::from_utf8(text.expose().to_vec()).unwrap())
    }
}

pub(super) fn app_key(bytes: &[u8]) -> AppKey {
    AppKey::danger_from_any_bytes(bytes).unwrap()
}

pub(super) fn ring(keys: &[&[u8]]) -> Keyring {
    let (first, others) = keys.split_first().unwrap();
    let ring = Keyring::new(app_key(first));
    others.iter().fold(ring, |ring, key| ring.accept(app_key(key)))
}

pub(super) fn sealer_of(keyring: &Keyring) -> Sealer {
    Sealer::new(keyring, Purpose::Session, NAME, Arc::new(SystemRandom)).unwrap()
}

pub(super) fn sealer() -> Sealer {
    sealer_of(&ring(&[APP_KEY]))
}

pub(super) fn fixed_sealer(app_key: &[u8], purpose: Purpose, name: &str, nonce: [u8; NONCE_LEN]) -> Sealer {
    Sealer::new(&ring(&[app_key]), purpose, name, Arc::new(FixedNonce(nonce))).unwrap()
}

/// Returns the keys of [`sealer`], from the independent implementation.
pub(super) fn keys() -> Keys {
    Keys::new(APP_KEY, "session", NAME, EPOCH)
}

pub(super) fn hour(epoch: u32) -> Timestamp {
    Timestamp::from_unix(u64::from(epoch) * 3600)
}

pub(super) fn open(sealer: &Sealer, text: impl AsRef<[u8]>) -> Result<Bytes, Refusal> {
    sealer.open(text.as_ref()).map(Unsealed::into_plaintext)
}

pub(super) fn open_raw(sealer: &Sealer, token: &[u8]) -> Result<Bytes, Refusal> {
    open(sealer, encode(token))
}

/// Returns the hours whose encryption keys the sealing key holds.
pub(super) fn cached(sealer: &Sealer) -> Vec<u32> {
    sealer.keys[0].hours.epochs()
}

/// Returns why [`sealer`], whose key has this `id`, refuses a forged text, by the order of checks in docs/WIRE.md.
pub(super) fn reason(text: &[u8], id: [u8; 4]) -> Refusal {
    let Some(token) = decode(text) else {
        return Refusal::Encoding;
    };
    match token.as_slice() {
        token if token.len() < 21 => Refusal::Length,
        token if token[0] != 1 => Refusal::Version,
        token if token.len() < 69 => Refusal::Length,
        token if token[1..5] != id => Refusal::UnknownKey,
        _ => Refusal::Signature,
    }
}

/// Asserts that `sealer` refuses each of `texts` for the documented reason, and derives no key for any. Returns the number
/// of texts.
pub(super) fn refuses_all(sealer: &Sealer, texts: impl IntoIterator<Item = Vec<u8>>) -> usize {
    let (before, id) = (cached(sealer), keys().id);
    let mut count = 0;
    for text in texts {
        let shown = text.escape_ascii();
        assert_eq!(open(sealer, &text), Err(reason(&text, id)), "{shown}");
        count += 1;
    }
    assert_eq!(cached(sealer), before, "a forged token had a key derived");
    count
}

/// Returns a session as docs/WIRE.md lays it out, for programs that read cookies: 10 minutes into its hour, 10 minutes old,
/// with half an hour left.
pub(super) fn session_plaintext(payload: &[u8]) -> Vec<u8> {
    let issued = (600_u16 << 4).to_be_bytes();
    let [age, lifetime] = [600_u32, 1_800].map(u32::to_be_bytes);
    [b"sixteen byte id.", &issued[..], &age, &lifetime, payload].concat()
}
