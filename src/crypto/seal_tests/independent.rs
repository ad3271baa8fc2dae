//! A second implementation of the token format, from docs/WIRE.md and with RustCrypto. It shares no code with the crate.

use aes_gcm::aead::{Aead as _, Payload};
use aes_gcm::{Aes256Gcm, KeyInit as _};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::Sha256;

pub(super) struct Keys {
    pub(super) id: [u8; 4],
    pub(super) mac: [u8; 32],
    pub(super) encrypt: [u8; 32],
    pub(super) epoch: u32,
}

fn expand<const N: usize>(app_key: &[u8], parts: &[&[u8]]) -> [u8; N] {
    let part = |part: &&[u8]| [&u16::try_from(part.len()).unwrap().to_be_bytes(), *part].concat();
    let info = parts.iter().map(part).collect::<Vec<_>>().join(&0);
    let mut key = [0; N];
    let hkdf = Hkdf::<Sha256>::new(Some(b"hyper-session v1"), app_key);
    hkdf.expand(&info, &mut key).unwrap();
    key
}

impl Keys {
    pub(super) fn new(app_key: &[u8], purpose: &str, name: &str, epoch: u32) -> Self {
        let (purpose, name) = (purpose.as_bytes(), name.as_bytes());
        Self {
            id: expand(app_key, &[b"key id", b"", b""]),
            mac: expand(app_key, &[b"mac", purpose, name]),
            encrypt: expand(app_key, &[b"encrypt", purpose, name, &epoch.to_be_bytes()]),
            epoch,
        }
    }

    pub(super) fn header(&self, nonce: [u8; 12]) -> Vec<u8> {
        [&[1], &self.id[..], &self.epoch.to_be_bytes(), &nonce].concat()
    }

    /// Returns the ciphertext and the GCM tag.
    pub(super) fn encrypt(&self, nonce: [u8; 12], aad: &[u8], msg: &[u8]) -> Vec<u8> {
        let cipher = Aes256Gcm::new(&self.encrypt.into());
        cipher.encrypt(&nonce.into(), Payload { msg, aad }).unwrap()
    }

    fn hmac(&self, signed: &[u8]) -> Hmac<Sha256> {
        <Hmac<Sha256> as Mac>::new_from_slice(&self.mac).unwrap().chain_update(signed)
    }

    /// Returns the token of `signed`, with its true signature.
    pub(super) fn sign(&self, signed: &[u8]) -> Vec<u8> {
        [signed, &self.hmac(signed).finalize().into_bytes()].concat()
    }

    pub(super) fn seal(&self, nonce: [u8; 12], plaintext: &[u8]) -> Vec<u8> {
        let header = self.header(nonce);
        let body = self.encrypt(nonce, &header, plaintext);
        self.sign(&[header, body].concat())
    }
}

pub(super) fn open(app_key: &[u8], purpose: &str, name: &str, text: &str) -> Option<Vec<u8>> {
    let token = decode(text.as_bytes())?;
    let (signed, mac) = token.split_at_checked(token.len().checked_sub(32)?)?;
    let (header, body) = signed.split_at_checked(21)?;
    let keys = Keys::new(app_key, purpose, name, u32::from_be_bytes(header[5..9].try_into().ok()?));
    let nonce: [u8; 12] = header[9..].try_into().ok()?;
    if keys.header(nonce) != header {
        return None;
    }
    keys.hmac(signed).verify_slice(mac).ok()?;
    let cipher = Aes256Gcm::new(&keys.encrypt.into());
    let payload = Payload { msg: body, aad: header };
    cipher.decrypt(&nonce.into(), payload).ok()
}

pub(super) fn encode(token: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(token)
}

pub(super) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    BASE64_URL_SAFE_NO_PAD.decode(text).ok()
}
