//! The token format by other hands (RustCrypto), after docs/WIRE.md: seals anything, so that the fuzzer gets past the
//! signature.

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::{APP_KEY, NAME, NOW};

/// The token for `plaintext`, authentic to every store of these checks.
pub fn seal(plaintext: &[u8]) -> String {
    let epoch = u32::try_from(NOW / 3600).unwrap().to_be_bytes();
    let mut token = vec![1];
    token.extend_from_slice(&expand(&[b"key id", b"", b""], 4));
    token.extend_from_slice(&epoch);
    token.extend_from_slice(&[7; 12]);
    let cipher =
        Aes256Gcm::new_from_slice(&expand(&[b"encrypt", b"session", NAME.as_bytes(), &epoch], 32)).unwrap();
    let payload = Payload { msg: plaintext, aad: &token };
    let sealed = cipher.encrypt(Nonce::from_slice(&[7; 12]), payload).unwrap();
    token.extend_from_slice(&sealed);
    let mut mac =
        <Hmac<Sha256> as Mac>::new_from_slice(&expand(&[b"mac", b"session", NAME.as_bytes()], 32)).unwrap();
    mac.update(&token);
    token.extend_from_slice(&mac.finalize().into_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(token)
}

fn expand(parts: &[&[u8]], len: usize) -> Vec<u8> {
    let mut info = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            info.push(0);
        }
        info.extend_from_slice(&u16::try_from(part.len()).unwrap().to_be_bytes());
        info.extend_from_slice(part);
    }
    let mut out = vec![0; len];
    hkdf::Hkdf::<Sha256>::new(Some(b"hyper-session v1"), APP_KEY).expand(&info, &mut out).unwrap();
    out
}
