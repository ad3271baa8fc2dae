//! The device of a browser that binds sessions: a key pair, the proofs that it signs, and the fields that it reads.
#![allow(dead_code, unreachable_pub)] // each test uses a part

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use http::header::HeaderMap;
use serde_json::{Value, json};

/// A key pair in the hardware of a device.
pub(crate) struct Device(EcdsaKeyPair);

impl Device {
    pub(crate) fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    pub(crate) fn jwk(&self) -> Value {
        let point = self.0.public_key().as_ref();
        let coordinate = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        json!({ "crv": "P-256", "kty": "EC", "x": coordinate(&point[1..33]), "y": coordinate(&point[33..]) })
    }

    /// A signature in compact form over this header and payload.
    pub(crate) fn sign(&self, header: &Value, payload: &Value) -> String {
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(payload));
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }

    /// The proof of a registration, as Chromium writes it.
    pub(crate) fn registration(&self, challenge: &str) -> String {
        let header = json!({ "alg": "ES256", "jwk": self.jwk(), "typ": "dbsc+jwt" });
        self.sign(&header, &json!({ "jti": challenge }))
    }

    /// The proof of a refresh, as Chromium writes it.
    pub(crate) fn refresh(&self, challenge: &str) -> String {
        self.sign(&json!({ "alg": "ES256", "typ": "dbsc+jwt" }), &json!({ "jti": challenge }))
    }
}

/// The offer of a response: where to register, and the challenge.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    pub(crate) path: String,
    pub(crate) challenge: String,
}

/// Reads the offer of a response. Two services can make one each.
pub(crate) fn offer(headers: &HeaderMap) -> Option<Offer> {
    let mut offers = offers(headers);
    assert!(offers.len() <= 1, "{offers:?}");
    offers.pop()
}

/// Reads the offers of a response, each of them `(ES256);path="…";challenge="…"`.
pub(crate) fn offers(headers: &HeaderMap) -> Vec<Offer> {
    let fields = headers.get_all("secure-session-registration").iter();
    fields.map(|field| read_offer(field.to_str().unwrap())).collect()
}

fn read_offer(field: &str) -> Offer {
    let parameters = field.strip_prefix("(ES256);").expect("the algorithm");
    let (path, challenge) = parameters.split_once(';').expect("two parameters");
    let value = |parameter: &str, name: &str| {
        let value = parameter.strip_prefix(name).and_then(|value| value.strip_prefix("=\""));
        value.and_then(|value| value.strip_suffix('"')).expect(name).to_owned()
    };
    Offer { path: value(path, "path"), challenge: value(challenge, "challenge") }
}

/// Reads the challenge of a response: `"…";id="…"`.
pub(crate) fn challenge(headers: &HeaderMap) -> String {
    let field = headers["secure-session-challenge"].to_str().unwrap();
    field.strip_prefix('"').and_then(|field| field.split_once('"')).expect("a string").0.to_owned()
}
