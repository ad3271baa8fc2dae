//! Astra's cookie: AES-256-GCM around a JSON object and its HMAC-SHA256, in base64url with padding.
//!
//! ```text
//! offset  bytes  field
//!      0     12  nonce
//!     12      n  ciphertext of the JSON                  (no associated data)
//!   12+n     32  ciphertext of HMAC-SHA256 over the JSON
//!   44+n     16  AES-256-GCM tag
//! ```
//!
//! It contains no version, key id or time.

use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use bytes::Bytes;
use zeroize::Zeroizing;

use super::padded_base64::{decode_padded, encode_padded, padded_len};
use crate::crypto::{
    AppKey, MAC_LEN, NONCE_LEN, Random, Sealer, TAG_LEN, VERSION, decode_base64url, hashed_id,
};
use crate::error::{Error, Kind};
use crate::event::{CookieFormat, Refusal};

/// The bytes that sealing adds to the JSON.
const OVERHEAD: usize = NONCE_LEN + MAC_LEN + TAG_LEN;

/// The number of characters that hold the version byte and the key id of a native token: six bytes.
const START: usize = 8;

/// Returns the format of `text`, judged only by its form. No other format is tried afterwards.
///
/// 1. Astra pads, so the length of its texts is a multiple of four. Other texts are native.
/// 2. Native tokens have no padding, so a text that ends with `=` is Astra's.
/// 3. Any other text is native if it begins with the version byte and the id of a key of `native`, revoked ones
///    included.
///
/// Texts of the two sealers here are thus always distinguished ([`AstraSealer::seal`] takes no nonce that begins with
/// the version byte). A cookie made by Astra itself is mistaken for a native one, and refused, if it needs no padding
/// and five bytes of its random nonce match rule 3: one in 3 · 2^40 for each key of the ring.
pub(crate) fn format_of(text: &[u8], native: &Sealer) -> CookieFormat {
    if text.len() % 4 != 0 {
        return CookieFormat::Native;
    }
    if text.ends_with(b"=") {
        return CookieFormat::Astra;
    }
    match text.get(..START).and_then(decode_base64url).as_deref() {
        Some([VERSION, id @ .., _]) if native.names_a_key(id) => CookieFormat::Native,
        _ => CookieFormat::Astra,
    }
}

/// Returns the id of the session in this text. Astra's cookies contain none, and that of a stored session is the secret
/// itself.
pub(crate) fn astra_id(cookie_name: &str, text: &[u8]) -> [u8; 16] {
    hashed_id(b"hyper-session astra id v1\0", cookie_name, text)
}

/// Seals and opens Astra's cookies under one application key of Astra.
pub(crate) struct AstraSealer {
    cipher: LessSafeKey,
    mac: hmac::Key,
    random: Arc<dyn Random>,
}

impl AstraSealer {
    pub(crate) fn new(app_key: &AppKey, random: Arc<dyn Random>) -> Result<Self, Error> {
        let cipher = derive(app_key.as_bytes(), "astra-session-enc");
        let cipher = UnboundKey::new(&AES_256_GCM, cipher.as_ref())
            .map_err(|_| Error::new(Kind::Internal("AES-256-GCM refused a key of 32 bytes")))?;
        let mac = derive(app_key.as_bytes(), "astra-session-sig");
        Ok(Self { cipher: LessSafeKey::new(cipher), mac: hmac::Key::new(HMAC_SHA256, mac.as_ref()), random })
    }

    /// Returns how many characters the cookie for `json` bytes has.
    pub(crate) const fn token_len(json: usize) -> usize {
        padded_len(json + OVERHEAD)
    }

    /// Returns the cookie of this JSON object.
    ///
    /// # Errors
    ///
    /// `is_random` if there is no randomness for a nonce.
    pub(crate) fn seal(&self, json: &[u8]) -> Result<String, Error> {
        let failed = || Error::new(Kind::Internal("AES-256-GCM refused to seal"));
        let nonce = self.nonce()?;
        let mut token = Vec::with_capacity(json.len() + OVERHEAD);
        token.extend_from_slice(&nonce);
        token.extend_from_slice(json);
        token.extend_from_slice(hmac::sign(&self.mac, json).as_ref());
        let body = token.get_mut(NONCE_LEN..).ok_or_else(failed)?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.cipher.seal_in_place_separate_tag(nonce, Aad::empty(), body);
        token.extend_from_slice(tag.map_err(|_| failed())?.as_ref());
        Ok(encode_padded(&token))
    }

    /// Returns a nonce that does not begin like a native token: see [`format_of`].
    fn nonce(&self) -> Result<[u8; NONCE_LEN], Error> {
        // Sixteen in a row that do (2^-128) mean a broken generator.
        for _ in 0..16 {
            let nonce = self.random.nonce([0; 4])?;
            if nonce.first() != Some(&VERSION) {
                return Ok(nonce);
            }
        }
        Err(Error::new(Kind::Random))
    }

    /// Returns the JSON of `text`, if Astra or [`seal`](Self::seal) made it under this key and no bit of it has
    /// changed. The GCM tag and the HMAC are both checked, in constant time, before any of the JSON is returned.
    pub(crate) fn open(&self, text: &[u8]) -> Result<Bytes, Refusal> {
        let mut token = decode_padded(text).ok_or(Refusal::Encoding)?;
        let json_len = token.len().checked_sub(OVERHEAD).ok_or(Refusal::Length)?;
        let (nonce, body) = token.split_first_chunk_mut::<NONCE_LEN>().ok_or(Refusal::Length)?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        self.cipher.open_in_place(nonce, Aad::empty(), body).map_err(|_| Refusal::Ciphertext)?;
        let (json, rest) = body.split_at_checked(json_len).ok_or(Refusal::Length)?;
        let mac = rest.get(..MAC_LEN).ok_or(Refusal::Length)?;
        hmac::verify(&self.mac, json, mac).map_err(|_| Refusal::Signature)?;
        Ok(Bytes::from(token).slice(NONCE_LEN..NONCE_LEN + json_len))
    }
}

/// Derives one of Astra's keys. Astra calls this HKDF; it is `HMAC(app key, HMAC(app key, label) ‖ 0x01)`.
fn derive(app_key: &[u8], label: &str) -> Zeroizing<[u8; 32]> {
    let app_key = hmac::Key::new(HMAC_SHA256, app_key);
    let mut expand = hmac::Context::with_key(&app_key);
    expand.update(hmac::sign(&app_key, label.as_bytes()).as_ref());
    expand.update(&[1]);
    let mut key = Zeroizing::new([0; 32]);
    key.iter_mut().zip(expand.sign().as_ref()).for_each(|(to, from)| *to = *from);
    key
}

impl std::fmt::Debug for AstraSealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AstraSealer").finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "cookie_sealer_tests.rs"]
mod tests;
