//! The proof of a device at a registration, against a reading by serde_json and a signature by RustCrypto.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use bytes::Bytes;
use http::header::{COOKIE, HeaderValue};
use http::{Request, Response, StatusCode};
use hyper::service::Service;
use hyper_session::cookie::CookieOptions;
use hyper_session::testing::{Cookies, FakeClock};
use hyper_session::{AppKey, CookieStore, DeviceBound, Error, SessionHandle, session_fn};
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use serde_json::{Value, json};

use crate::{APP_KEY, NOW, run};

const PROOF: &str = "secure-session-response";
const BOUND: &str = "__Host-session.bound";

/// The longest proof that is read.
const MAX_LEN: usize = 2_048;

/// A session is bound if and only if the input is a proof of the protocol: `header NUL payload`, in which `KEY` and `CHALLENGE`
/// stand for the genuine ones, and which is signed here. An input that begins with `=` is a field as it is.
pub fn device_proof(data: &[u8]) {
    let site = Site::at(NOW);
    let (offer, mut cookies) = site.log_in();
    let (field, expected) = match data {
        [b'=', field @ ..] => (field.to_vec(), Some(false)),
        _ => {
            let (header, payload) = split(data);
            let header = replaced(&header, b"KEY", jwk().to_string().as_bytes());
            let payload = replaced(&payload, b"CHALLENGE", offer.challenge.as_bytes());
            let expected = expected(&header, &payload, &offer.challenge);
            // A signature takes most of the time. Parts that are not objects are refused whatever their signature is. All others
            // are signed: they must be refused for what they say.
            let text = compact(&header, &payload, is_object(&header) && is_object(&payload));
            let fits = text.len() <= MAX_LEN;
            (text.into_bytes(), if fits { expected } else { Some(false) })
        }
    };
    let Ok(field) = HeaderValue::from_bytes(&field) else { return };
    let response = site.call(Request::post(&offer.path).header(PROOF, field.clone()), &cookies);
    let accepted = response.status() == StatusCode::OK;
    if let Some(expected) = expected {
        assert_eq!(accepted, expected, "{:?}", field);
    }
    if !accepted {
        assert!(matches!(response.status().as_u16(), 400 | 401), "{}", response.status());
        assert!(!response.headers().contains_key("set-cookie"));
        assert!(response.body().is_empty());
    }
    let before = cookies.clone();
    cookies.receive(response.headers());
    let page = site.call(Request::get("/"), &cookies);
    assert_eq!(*page.body(), if accepted { "bound" } else { "unbound" });
    // A minute later, the session needs its bound cookie.
    let later = Site::at(NOW + 60);
    assert_eq!(*later.call(Request::get("/"), &cookies).body(), if accepted { "bound" } else { "unbound" });
    // Whatever it was, it binds once. Sent again for the bound session, it is worth what it was worth.
    let post = || Request::post(&offer.path).header(PROOF, field.clone());
    assert_ne!(site.call(post(), &before).status(), StatusCode::OK);
    let again = site.call(post(), &cookies);
    assert_eq!(again.status() == StatusCode::OK, accepted);
    if accepted {
        let mut set = Cookies::new();
        set.receive(again.headers());
        assert_eq!((set.get(BOUND), set.get(BOUND).is_some()), (cookies.get(BOUND), true));
        cookies.receive(later.call(Request::get("/logout"), &cookies).headers());
        assert_eq!(cookies.header(), None);
    }
}

fn is_object(text: &[u8]) -> bool {
    serde_json::from_slice::<Value>(text).is_ok_and(|value| value.is_object())
}

/// Returns if a session is bound by a proof of these parts. `None` if that depends on whether a name occurs twice, which
/// serde_json does not tell, or on how deep it reads.
fn expected(header: &[u8], payload: &[u8], challenge: &str) -> Option<bool> {
    let header_read = match serde_json::from_slice::<Value>(header) {
        Ok(value) => value,
        Err(error) => return (!error.to_string().contains("recursion")).then_some(false),
    };
    let payload_read = match serde_json::from_slice::<Value>(payload) {
        Ok(value) => value,
        Err(error) => return (!error.to_string().contains("recursion")).then_some(false),
    };
    let (Some(fields), Some(claims)) = (header_read.as_object(), payload_read.as_object()) else {
        return Some(false);
    };
    let key = fields.get("jwk").and_then(Value::as_object);
    let is_key = key.is_some_and(|key| {
        let genuine = jwk();
        let same = |name: &str| key.get(name) == Some(&genuine[name]);
        ["kty", "crv", "x", "y"].into_iter().all(same) && !key.contains_key("d")
    });
    let holds = fields.get("alg") == Some(&json!("ES256"))
        && fields.get("typ") == Some(&json!("dbsc+jwt"))
        && !fields.contains_key("crit")
        && is_key
        && claims.get("jti") == Some(&json!(challenge));
    // Written again, an object with a name that occurs twice is shorter.
    let unique =
        |text: &[u8], value: &Value| serde_json::to_vec(value).is_ok_and(|again| again.len() == text.len());
    match holds {
        false => Some(false),
        true => (unique(header, &header_read) && unique(payload, &payload_read)).then_some(true),
    }
}

struct Site {
    store: CookieStore,
}

struct Offer {
    path: String,
    challenge: String,
}

impl Site {
    /// Returns the site at this moment.
    fn at(now: u64) -> Self {
        // Made once: their keys take longer to derive than a proof takes to read.
        static STORES: Mutex<BTreeMap<u64, CookieStore>> = Mutex::new(BTreeMap::new());
        let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
        let store = stores.entry(now).or_insert_with(|| {
            CookieStore::builder(AppKey::danger_from_any_bytes(APP_KEY).unwrap())
                .clock(FakeClock::at(now))
                .cookie(CookieOptions::new().retired_name("retired"))
                .device_bound(DeviceBound::new())
                .build()
                .unwrap()
        });
        Self { store: store.clone() }
    }

    fn call(&self, request: http::request::Builder, cookies: &Cookies) -> Response<Bytes> {
        let service =
            session_fn(self.store.clone(), |request: Request<()>, handle: SessionHandle| async move {
                let session = handle.load().await?;
                match request.uri().path() {
                    "/login" => session.login("ada")?,
                    "/logout" => session.destroy()?,
                    _ => {}
                }
                let page = if session.binding().is_bound() { "bound" } else { "unbound" };
                Ok::<_, Error>(Response::new(Bytes::from_static(page.as_bytes())))
            })
            .device_bound(|json| json);
        let mut request = request.body(()).unwrap();
        request.headers_mut().extend(cookies.header().map(|cookies| (COOKIE, cookies)));
        run(service.call(request)).unwrap()
    }

    fn log_in(&self) -> (Offer, Cookies) {
        let mut cookies = Cookies::new();
        let response = self.call(Request::get("/login"), &cookies);
        cookies.receive(response.headers());
        let field = response.headers()["secure-session-registration"].to_str().unwrap();
        let texts: Vec<&str> = field.split('"').collect();
        (Offer { path: texts[1].to_owned(), challenge: texts[3].to_owned() }, cookies)
    }
}

fn key() -> SigningKey {
    SigningKey::from_slice(&[7; 32]).unwrap()
}

fn jwk() -> Value {
    let point = key().verifying_key().to_encoded_point(false);
    let text = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    json!({ "crv": "P-256", "kty": "EC", "x": text(point.x().unwrap()), "y": text(point.y().unwrap()) })
}

fn compact(header: &[u8], payload: &[u8], sign: bool) -> String {
    let text = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let signed = format!("{}.{}", text(header), text(payload));
    let signature = if sign {
        let signature: Signature = key().sign(signed.as_bytes());
        signature.to_bytes().to_vec()
    } else {
        vec![1; 64]
    };
    format!("{signed}.{}", text(&signature))
}

fn split(data: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    (parts.next().unwrap_or_default().to_vec(), parts.next().unwrap_or_default().to_vec())
}

/// Puts `by` where `name` is first.
fn replaced(text: &[u8], name: &[u8], by: &[u8]) -> Vec<u8> {
    match text.windows(name.len()).position(|part| part == name) {
        Some(at) => [&text[..at], by, &text[at + name.len()..]].concat(),
        None => text.to_vec(),
    }
}
