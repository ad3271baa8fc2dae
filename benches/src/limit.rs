//! The limit: the primitives that a token is made of, called bare on the same bytes in one buffer. No library that does
//! the same work with them can be faster.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use aws_lc_rs::rand;
use base64::engine::general_purpose::NO_PAD;
use base64::engine::{Engine, Simd};

const HEADER: usize = 21;
const TAG: usize = 16;
const MAC: usize = 32;

/// How many nonces are drawn at once, as the crate does.
const BATCH: usize = 64;

/// The keys of one cookie name in one hour.
pub struct Limit {
    base64: Simd,
    head: [u8; 9],
    mac: hmac::Key,
    key: LessSafeKey,
    nonces: [[u8; 12]; BATCH],
    left: usize,
}

impl Limit {
    /// The keys that `token` was sealed with, for the cookie `name`, under [`KEY`](crate::KEY).
    pub fn of(token: &[u8], name: &str) -> Self {
        let base64 = Simd::url_safe(NO_PAD);
        let bytes = base64.decode(token).unwrap();
        let head: [u8; 9] = bytes[..9].try_into().unwrap();
        let mac = derive(&[b"mac", b"session", name.as_bytes()]);
        let key = derive(&[b"encrypt", b"session", name.as_bytes(), &head[5..]]);
        Self {
            base64,
            head,
            mac: hmac::Key::new(HMAC_SHA256, &mac),
            key: LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).unwrap()),
            nonces: [[0; 12]; BATCH],
            left: 0,
        }
    }

    /// The plaintext of `token`, in `buffer`.
    pub fn open<'b>(&self, token: &[u8], buffer: &'b mut [u8]) -> &'b [u8] {
        let len = self.base64.decode_slice(token, buffer).unwrap();
        let (signed, mac) = buffer[..len].split_at_mut(len - MAC);
        hmac::verify(&self.mac, signed, mac).unwrap();
        let (head, body) = signed.split_at_mut(HEADER);
        let nonce = Nonce::try_assume_unique_for_key(&head[9..]).unwrap();
        self.key.open_in_place(nonce, Aad::from(&*head), body).unwrap()
    }

    /// The length of the plaintext of `token`.
    pub fn plaintext_len(&self, token: &[u8]) -> usize {
        token.len() * 3 / 4 - HEADER - TAG - MAC
    }

    /// The token for `plaintext`, in `text`; `buffer` holds the bytes meanwhile.
    pub fn seal<'b>(&mut self, plaintext: &[u8], buffer: &mut [u8], text: &'b mut [u8]) -> &'b [u8] {
        if self.left == 0 {
            rand::fill(self.nonces.as_flattened_mut()).unwrap();
            self.left = BATCH;
        }
        self.left -= 1;
        let end = HEADER + plaintext.len();
        buffer[..9].copy_from_slice(&self.head);
        buffer[9..HEADER].copy_from_slice(&self.nonces[self.left]);
        buffer[HEADER..end].copy_from_slice(plaintext);
        let (head, body) = buffer.split_at_mut(HEADER);
        let nonce = Nonce::assume_unique_for_key(self.nonces[self.left]);
        let body = &mut body[..plaintext.len()];
        let tag = self.key.seal_in_place_separate_tag(nonce, Aad::from(&*head), body).unwrap();
        buffer[end..end + TAG].copy_from_slice(tag.as_ref());
        let mac = hmac::sign(&self.mac, &buffer[..end + TAG]);
        buffer[end + TAG..end + TAG + MAC].copy_from_slice(mac.as_ref());
        let len = self.base64.encode_slice(&buffer[..end + TAG + MAC], text).unwrap();
        &text[..len]
    }
}

/// The derivation that `docs/WIRE.md` describes.
fn derive(parts: &[&[u8]]) -> [u8; 32] {
    struct Len;
    impl KeyType for Len {
        fn len(&self) -> usize {
            32
        }
    }
    let mut info = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            info.push(0);
        }
        info.extend_from_slice(&(part.len() as u16).to_be_bytes());
        info.extend_from_slice(part);
    }
    let prk = Salt::new(HKDF_SHA256, b"hyper-session v1").extract(&crate::KEY);
    let mut out = [0; 32];
    prk.expand(&[&info], Len).unwrap().fill(&mut out).unwrap();
    out
}
