//! Astra's cookies: forged cookies, and authentic cookies with any contents.

use std::sync::LazyLock;

use aes_gcm::aead::{Aead, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use base64::prelude::{BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD, Engine};
use hmac::{Hmac, Mac};
use http::header::{COOKIE, SET_COOKIE};
use http::{Request, Response};
use http_body_util::Empty;
use hyper::service::Service;
use hyper_session::__internals::Verbs;
use hyper_session::{AppKey, CookieStore, Error, Refusal, SessionHandle, Timestamp, session_fn};
use serde_json::Value;
use sha2::Sha256;

use crate::unseal::builder;
use crate::{APP_KEY, NAME, NOW, run};

static STORE: LazyLock<CookieStore> = LazyLock::new(|| {
    builder().beside_astra(AppKey::danger_from_any_bytes(APP_KEY).unwrap()).build().unwrap()
});

fn load(token: &[u8]) -> Result<(), Refusal> {
    run(STORE.load(token, Timestamp::from_unix(NOW))).expect("a cookie store is always there").map(drop)
}

/// Input of the fuzzer is refused, whichever format it is taken for. An authentic cookie is refused or is a session, and
/// saving another value leaves its values as Go reads them.
pub fn astra_open(data: &[u8]) {
    assert!(load(data).is_err(), "a forgery");
    for text in [BASE64_URL_SAFE.encode(data), BASE64_URL_SAFE_NO_PAD.encode(data)] {
        assert!(load(text.as_bytes()).is_err(), "a forgery");
    }
    let token = seal(data);
    let before: Option<Value> = serde_json::from_slice(&repaired(data)).ok();
    if load(token.as_bytes()).is_err() {
        return;
    }
    let mut expected = match before {
        Some(Value::Object(map)) => map,
        Some(Value::Null) => serde_json::Map::new(),
        other => panic!("{other:?} is not a session"),
    };
    expected.insert("fuzz".to_owned(), Value::from(1));
    // Too large for one cookie, or the same already.
    let Some(text) = saved(&token) else { return };
    let after: Value =
        serde_json::from_slice(&open(&text).expect("another implementation opens it")).unwrap();
    assert_eq!(as_go(&after), as_go(&Value::Object(expected)));
}

/// The cookie of this session after a handler set `fuzz`, if the cookie changed.
fn saved(token: &str) -> Option<String> {
    type Body = Empty<bytes::Bytes>;
    let service = session_fn(STORE.clone(), |_: Request<Body>, session: SessionHandle| async move {
        session.load().await?.set("fuzz", 1)?;
        Ok::<_, Error>(Response::new(Body::new()))
    });
    let request = Request::builder().header(COOKIE, format!("{NAME}={token}")).body(Body::new()).unwrap();
    let response = run(service.call(request)).unwrap();
    let line = response.headers().get(SET_COOKIE)?.to_str().unwrap();
    Some(line.split(';').next().unwrap().strip_prefix("s=").unwrap().to_owned())
}

/// The JSON with U+FFFD for what Go reads as that: bytes that belong to no letter, and escapes of half a letter.
fn repaired(data: &[u8]) -> Vec<u8> {
    let mut text = String::new();
    for chunk in data.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    let unit = |text: &str| {
        let digits = text.strip_prefix("\\u")?.get(..4)?;
        digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok())?
    };
    let (mut json, mut rest) = (String::new(), text.as_str());
    while let Some(letter) = rest.chars().next() {
        let taken = match (letter, unit(rest)) {
            ('\\', Some(high @ 0xd800..0xe000)) => {
                let low = rest.get(6..).and_then(unit);
                if high < 0xdc00 && low.is_some_and(|low| (0xdc00..0xe000).contains(&low)) {
                    json.push_str(&rest[..12]);
                    12
                } else {
                    json.push_str("\\ufffd");
                    6
                }
            }
            ('\\', _) => {
                let escaped = rest[1..].chars().next().map_or(0, char::len_utf8);
                json.push_str(&rest[..=escaped]);
                1 + escaped
            }
            _ => {
                json.push(letter);
                letter.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
    json.into_bytes()
}

/// Every number as Go has it.
fn as_go(value: &Value) -> Value {
    match value {
        Value::Number(number) => Value::from(number.as_f64().unwrap()),
        Value::Array(values) => values.iter().map(as_go).collect(),
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), as_go(value))).collect(),
        other => other.clone(),
    }
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(key).unwrap();
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

fn key(label: &str) -> Vec<u8> {
    hmac(APP_KEY, &[&hmac(APP_KEY, &[label.as_bytes()]), &[1]])
}

fn cipher() -> Aes256Gcm {
    Aes256Gcm::new_from_slice(&key("astra-session-enc")).unwrap()
}

/// The cookie for `json`, whatever it is, after docs/WIRE.md.
fn seal(json: &[u8]) -> String {
    let plaintext = [json, &hmac(&key("astra-session-sig"), &[json])].concat();
    let body = cipher().encrypt(Nonce::from_slice(&[7; 12]), &plaintext[..]).unwrap();
    BASE64_URL_SAFE.encode([&[7; 12][..], &body].concat())
}

fn open(text: &str) -> Option<Vec<u8>> {
    let token = BASE64_URL_SAFE.decode(text).ok()?;
    let (nonce, body) = token.split_at_checked(12)?;
    let plaintext = cipher().decrypt(Nonce::from_slice(nonce), body).ok()?;
    let (json, mac) = plaintext.split_at_checked(plaintext.len().checked_sub(32)?)?;
    (hmac(&key("astra-session-sig"), &[json]) == mac).then(|| json.to_vec())
}
