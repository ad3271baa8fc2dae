//! Astra's cookie format once more, from docs/WIRE.md and with RustCrypto, and the vectors that Astra's own code made.
//! It shares no code with the crate.
#![allow(dead_code, unreachable_pub)] // each test file uses a part

use aes_gcm::aead::Aead as _;
use aes_gcm::{Aes256Gcm, KeyInit as _};
use base64::prelude::{BASE64_URL_SAFE, Engine as _};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

/// A cookie that Astra's Go code made.
pub(crate) struct Vector {
    pub(crate) app_key: Vec<u8>,
    pub(crate) cookie: String,
    pub(crate) json: String,
    pub(crate) cipher_key: Vec<u8>,
    pub(crate) mac_key: Vec<u8>,
}

pub(crate) fn vectors() -> Vec<Vector> {
    let lines = include_str!("../vectors/astra-cookies.jsonl").lines();
    let vectors: Vec<_> = lines
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let text = |name: &str| line[name].as_str().unwrap().to_owned();
            let hex = |name: &str| {
                let text = text(name);
                let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
                (0..text.len()).step_by(2).map(byte).collect::<Vec<u8>>()
            };
            assert_eq!(text("cookie_name"), "astra_session");
            Vector {
                app_key: hex("app_key_hex"),
                cookie: text("cookie_value"),
                json: text("json"),
                cipher_key: hex("enc_key_hex"),
                mac_key: hex("sign_key_hex"),
            }
        })
        .collect();
    assert_eq!(vectors.len(), 40, "a vector went missing");
    vectors
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mac = <Hmac<Sha256> as hmac::Mac>::new_from_slice(key).unwrap();
    parts.iter().fold(mac, hmac::Mac::chain_update).finalize().into_bytes().into()
}

/// One of Astra's keys: `HMAC(app key, HMAC(app key, label) ‖ 0x01)`.
pub(crate) fn derive(app_key: &[u8], label: &str) -> [u8; 32] {
    hmac(app_key, &[&hmac(app_key, &[label.as_bytes()]), &[1]])
}

/// The bytes of a cookie with this HMAC, whatever it is.
pub(crate) fn encrypt(app_key: &[u8], nonce: [u8; 12], json: &[u8], mac: &[u8]) -> Vec<u8> {
    let cipher = Aes256Gcm::new(&derive(app_key, "astra-session-enc").into());
    let body = cipher.encrypt(&nonce.into(), &[json, mac].concat()[..]).unwrap();
    [&nonce[..], &body].concat()
}

pub(crate) fn seal(app_key: &[u8], nonce: [u8; 12], json: &[u8]) -> String {
    let mac = hmac(&derive(app_key, "astra-session-sig"), &[json]);
    encode(&encrypt(app_key, nonce, json, &mac))
}

pub(crate) fn open(app_key: &[u8], text: &[u8]) -> Option<Vec<u8>> {
    let token = BASE64_URL_SAFE.decode(text).ok()?;
    let (nonce, body) = token.split_first_chunk::<12>()?;
    let cipher = Aes256Gcm::new(&derive(app_key, "astra-session-enc").into());
    let plaintext = cipher.decrypt(nonce.into(), body).ok()?;
    let (json, mac) = plaintext.split_last_chunk::<32>()?;
    (hmac(&derive(app_key, "astra-session-sig"), &[json]) == *mac).then(|| json.to_vec())
}

pub(crate) fn encode(token: &[u8]) -> String {
    BASE64_URL_SAFE.encode(token)
}

pub(crate) fn decode(text: &str) -> Vec<u8> {
    BASE64_URL_SAFE.decode(text).unwrap()
}
