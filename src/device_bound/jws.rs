//! The proof that a device holds a key: a JSON Web Signature (RFC 7515) over a challenge.
//!
//! Only what the protocol sends is read: the compact form, ES256, the type `dbsc+jwt`, at most [`MAX_LEN`] characters.

use super::json_object::Object;
use super::jwk;
use crate::crypto::{PublicKey, SIGNATURE_LEN, decode_base64url, decode_base64url_array};

/// A proof has about 500 characters at a registration, and 300 at a refresh.
pub(super) const MAX_LEN: usize = 2_048;

/// A proof that was read. Its signature is not checked yet.
pub(super) struct Proof<'a> {
    /// The key that it brings. Only a registration may use it.
    pub(super) key: Option<PublicKey>,
    /// The challenge that was signed.
    pub(super) challenge: String,
    signed: &'a [u8],
    signature: [u8; SIGNATURE_LEN],
}

impl<'a> Proof<'a> {
    /// Reads a proof.
    pub(super) fn read(text: &'a str) -> Option<Self> {
        if text.len() > MAX_LEN {
            return None;
        }
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        // A third part before the signature is refused here, because a dot is not in the alphabet.
        let header = Object::read(&decode_base64url(header.as_bytes())?)?;
        let payload = Object::read(&decode_base64url(payload.as_bytes())?)?;
        let signature = decode_base64url_array(signature.as_bytes())?;
        // RFC 8725 section 3.1: the algorithm is not the sender's choice. RFC 7515 section 4.1.11: `crit` names extensions
        // that must be understood, and none are.
        let understood = header.text("alg") == Some("ES256")
            && header.text("typ") == Some("dbsc+jwt")
            && !header.has("crit");
        if !understood {
            return None;
        }
        let key = match header.object("jwk") {
            Some(jwk) => Some(jwk::read(jwk)?),
            None if header.has("jwk") => return None,
            None => None,
        };
        let challenge = payload.text("jti")?.to_owned();
        Some(Self { key, challenge, signed: signed.as_bytes(), signature })
    }

    /// Returns true if `key` has signed the proof.
    pub(super) fn is_signed_by(&self, key: &PublicKey) -> bool {
        key.verify(self.signed, &self.signature)
    }
}

#[cfg(test)]
#[path = "jws_tests.rs"]
mod tests;
