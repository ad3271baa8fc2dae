//! Tokens: forged ones, altered ones, and authentic ones with any contents.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use arbitrary::{Arbitrary, Unstructured};
use base64::prelude::{
    BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD, Engine,
};
use http::header::{COOKIE, HeaderValue, SET_COOKIE};
use http::{Request, Response};
use http_body_util::Empty;
use hyper::service::Service;
use hyper_session::__internals::Verbs;
use hyper_session::cookie::CookieOptions;
use hyper_session::store::{Builder, CookieKeys};
use hyper_session::testing::FakeClock;
use hyper_session::{AppKey, CookieStore, Error, Refusal, SessionHandle, Timestamp, session_fn};
use serde::Serialize;

use crate::seal::seal;
use crate::{APP_KEY, NAME, NOW, run};

type Body = Empty<bytes::Bytes>;
type Values = BTreeMap<String, u64>;

static STORE: LazyLock<CookieStore> = LazyLock::new(|| builder().build().unwrap());

/// A store with the key and the clock of these checks.
pub fn builder() -> Builder<CookieKeys> {
    CookieStore::builder(AppKey::danger_from_any_bytes(APP_KEY).unwrap())
        .cookie(CookieOptions::development().name(NAME))
        .clock(FakeClock::at(NOW))
}

/// A genuine token.
pub fn token() -> String {
    static TOKEN: LazyLock<String> = LazyLock::new(|| sealed(&Values::from([("a".to_owned(), 1)])));
    TOKEN.clone()
}

/// The token that a service with this store sets for a session with these values.
fn sealed(values: &Values) -> String {
    seal_values(&STORE, values)
}

/// The same for another store, and values of any kind; a large session's cookies are put together.
pub fn seal_values<T>(store: &CookieStore, values: &BTreeMap<String, T>) -> String
where
    T: Serialize + Clone + Send + Sync + 'static,
{
    let values = values.clone();
    let service = session_fn(store.clone(), move |_: Request<Body>, session: SessionHandle| {
        let values = values.clone();
        async move {
            let session = session.load().await?;
            for (key, value) in &values {
                session.set(key, value)?;
            }
            Ok::<_, Error>(Response::new(Body::new()))
        }
    });
    let response = run(service.call(Request::new(Body::new()))).unwrap();
    let lines = response.headers().get_all(SET_COOKIE).iter().map(|line| line.to_str().unwrap());
    lines.map(|line| line.split(';').next().unwrap().split_once('=').unwrap().1).collect()
}

/// Opens `token`. If that fails: the client learns only whether the cookie is removed, and an attacker's megabyte is not worth
/// more than itself.
fn load(token: &[u8]) -> Result<(), Refusal> {
    let mut loaded = Err(Refusal::Encoding);
    let genuine = self::token(); // made before anything is counted
    let counted = allocation_counter::measure(|| {
        loaded = run(STORE.load(token, Timestamp::from_unix(NOW)))
            .expect("a cookie store is always there")
            .map(drop);
    });
    let longest = token.len().max(genuine.len()) as u64;
    assert!(counted.bytes_max <= 4 * longest + 1024, "{} bytes for {longest}", counted.bytes_max);
    if let (Err(refusal), Some(head)) = (&loaded, answer(token)) {
        // Removed, or left alone: the reasons in each of the two groups look the same.
        static KEPT: LazyLock<String> = LazyLock::new(|| answer(b"no token").unwrap());
        static REMOVED: LazyLock<String> = LazyLock::new(|| {
            let mut forged = self::token().as_bytes().to_vec();
            forged[60] = if forged[60] == b'A' { b'B' } else { b'A' };
            answer(&forged).unwrap()
        });
        let expected = if refusal.removes_cookie() { &*REMOVED } else { &*KEPT };
        assert_eq!(head, *expected, "the client can distinguish {refusal}");
    }
    loaded
}

/// The head of the response to a request with this cookie, whose handler looks at its session; nothing if no cookie
/// has this value.
fn answer(token: &[u8]) -> Option<String> {
    let other_value = token.contains(&b';') || matches!(token, [b' ' | b'\t', ..] | [.., b' ' | b'\t']);
    let field = HeaderValue::from_bytes(&[b"s=", token].concat()).ok().filter(|_| !other_value)?;
    let service = session_fn(STORE.clone(), |_: Request<Body>, session: SessionHandle| async move {
        session.load().await?;
        Ok::<_, Error>(Response::new(Body::new()))
    });
    let mut request = Request::new(Body::new());
    request.headers_mut().insert(COOKIE, field);
    let (head, _) = run(service.call(request)).unwrap().into_parts();
    let fields = head.headers.iter().map(|(name, value)| (name, value.to_str().unwrap()));
    Some(format!("{} {:?}", head.status, fields.collect::<Vec<_>>()))
}

/// Input of the fuzzer is refused: it does not hold the key. (It knows it, but has not the time.)
pub fn unseal_raw(data: &[u8]) {
    assert!(load(data).is_err(), "a forgery");
    // The same bytes in the right alphabet, so that they get further.
    assert!(load(BASE64_URL_SAFE_NO_PAD.encode(data).as_bytes()).is_err(), "a forgery");
    // And behind a genuine header.
    let mut token = BASE64_URL_SAFE_NO_PAD.decode(token()).unwrap();
    token.truncate(21);
    token.extend_from_slice(data);
    assert!(load(BASE64_URL_SAFE_NO_PAD.encode(token).as_bytes()).is_err(), "a forgery");
}

#[derive(Arbitrary, Debug)]
enum Mutation {
    None,
    Flip { at: usize, bit: u8 },
    FlipText { at: usize, to: u8 },
    Truncate(usize),
    Extend(Vec<u8>),
    ExtendText(Vec<u8>),
    Splice(usize),
    Pad,
    OtherAlphabet,
    OtherAlphabetPadded,
    Case,
    WhiteSpace(usize),
    UnusedBits(u8),
}

#[derive(Arbitrary, Debug)]
struct Tampering {
    values: BTreeMap<String, u64>,
    mutation: Mutation,
}

/// A sealed session has one spelling: every other is refused.
pub fn unseal_mutated(data: &[u8]) {
    let Ok(Tampering { mut values, mutation }) = Tampering::arbitrary(&mut Unstructured::new(data)) else {
        return;
    };
    values.retain(|key, _| !key.starts_with('\u{1}'));
    while values.len() > 20 || values.keys().map(String::len).sum::<usize>() > 1_000 {
        values.pop_last();
    }
    values.insert("always".to_owned(), 1);

    let text = sealed(&values);
    // A second token of the same session: what is cut together from both may be one of them, and is nothing else.
    let other = sealed(&values);
    let tampered = tamper(&text, &mutation, &other);
    let genuine = [&text, &other].iter().any(|token| token.as_bytes() == tampered);
    assert_eq!(load(&tampered).is_ok(), genuine, "{mutation:?}");
    if tampered == text.as_bytes() {
        assert_eq!(read(&text), values, "{mutation:?}");
    }
}

fn tamper(text: &str, mutation: &Mutation, other: &str) -> Vec<u8> {
    let raw = BASE64_URL_SAFE_NO_PAD.decode(text).unwrap();
    let encode = |raw: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(raw).into_bytes();
    match mutation {
        Mutation::None => text.as_bytes().to_vec(),
        Mutation::Flip { at, bit } => {
            let mut raw = raw;
            let at = at % raw.len();
            raw[at] ^= 1 << (bit % 8);
            encode(&raw)
        }
        Mutation::FlipText { at, to } => {
            let mut text = text.as_bytes().to_vec();
            let at = at % text.len();
            text[at] = *to;
            text
        }
        Mutation::Truncate(len) => text.as_bytes()[..len % text.len()].to_vec(),
        Mutation::Extend(more) => encode(&[&raw[..], more].concat()),
        Mutation::ExtendText(more) => [text.as_bytes(), more].concat(),
        Mutation::Splice(at) => {
            let other = BASE64_URL_SAFE_NO_PAD.decode(other).unwrap();
            let at = at % raw.len();
            encode(&[&raw[..at], &other[at.min(other.len())..]].concat())
        }
        Mutation::Pad => BASE64_URL_SAFE.encode(&raw).into_bytes(),
        Mutation::OtherAlphabet => BASE64_STANDARD_NO_PAD.encode(&raw).into_bytes(),
        Mutation::OtherAlphabetPadded => BASE64_STANDARD.encode(&raw).into_bytes(),
        Mutation::Case => text.to_ascii_lowercase().into_bytes(),
        Mutation::WhiteSpace(at) => {
            let mut text = text.as_bytes().to_vec();
            text.insert(at % (text.len() + 1), b' ');
            text
        }
        Mutation::UnusedBits(bits) => {
            const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
            let mut text = text.as_bytes().to_vec();
            let unused = match text.len() % 4 {
                2 => 0b1111,
                3 => 0b11,
                _ => 0,
            };
            if let Some(last) = text.last_mut() {
                let value = ALPHABET.iter().position(|letter| letter == last).unwrap();
                *last = ALPHABET[value | usize::from(bits & unused)];
            }
            text
        }
    }
}

/// The values of the session that a service finds in this token.
fn read(token: &str) -> Values {
    let found = std::sync::Arc::new(std::sync::Mutex::new(Values::new()));
    let service = session_fn(STORE.clone(), |_: Request<Body>, session: SessionHandle| {
        let found = found.clone();
        async move {
            let session = session.load().await?;
            for key in session.keys() {
                let value = session.get(&key)?.expect("a key that is there");
                found.lock().unwrap().insert(key, value);
            }
            Ok::<_, Error>(Response::new(Body::new()))
        }
    });
    let request = Request::builder().header(COOKIE, format!("s={token}")).body(Body::new()).unwrap();
    run(service.call(request)).unwrap();
    found.lock().unwrap().clone()
}

/// An authentic token is decoded with as little trust as any: it is refused or a session, whose values all decode, and
/// which expires when it says so.
pub fn unseal_past_crypto(data: &[u8]) {
    // The fuzzer's bytes as the whole plaintext, and as the payload behind a good header.
    check_authentic(data, None);
    let issued = NOW - 5;
    let moment = u16::try_from(issued % 3600).unwrap() << 4;
    let [age, lifetime] = [5_u32, 105].map(u32::to_be_bytes);
    let header = [&[9; 16][..], &moment.to_be_bytes(), &age, &lifetime].concat();
    check_authentic(&[&header, data].concat(), Some(NOW + 100));
}

fn check_authentic(plaintext: &[u8], expires: Option<u64>) {
    let text = seal(plaintext);
    let mut loaded = Err(Refusal::Encoding);
    let counted = allocation_counter::measure(|| {
        loaded = run(STORE.load(text.as_bytes(), Timestamp::from_unix(NOW))).unwrap();
    });
    // A JSON payload is a tree of values before it is MessagePack: a byte of text is a node at most.
    let bound = 256 * text.len() as u64 + 4096;
    assert!(counted.bytes_max <= bound, "{} bytes for {}", counted.bytes_max, text.len());
    let Ok(record) = loaded else { return };
    assert!(plaintext.len() > 26, "a session without values");
    assert!(record.expires() > Timestamp::from_unix(NOW), "a session that has expired");
    if let Some(expires) = expires {
        assert_eq!(record.expires().as_unix(), expires);
    }
    let later = run(STORE.load(text.as_bytes(), record.expires())).unwrap();
    assert!(matches!(later, Err(Refusal::Expired)), "open at its deadline");

    // All values can be read as anything, or not, without a panic; and writing one more keeps the others as they are.
    let service = session_fn(STORE.clone(), |_: Request<Body>, session: SessionHandle| async move {
        let session = session.load().await?;
        for key in session.keys() {
            assert!(session.has(&key));
            let _ = session.get::<serde_json::Value>(&key);
            let _ = session.get::<Vec<u64>>(&key);
            let _ = (session.get_str(&key), session.get_bytes(&key), session.get_i64(&key));
        }
        let before = session.keys();
        session.set("one more", 1)?;
        // Too large is an answer, too; a loss is not.
        match session.save().await {
            Ok(()) => assert!(before.iter().all(|key| session.has(key))),
            Err(error) => assert!(error.is_too_large(), "{error}"),
        }
        session.delete("one more")?;
        Ok::<_, Error>(Response::new(Body::new()))
    });
    let request = Request::builder().header(COOKIE, format!("s={text}")).body(Body::new()).unwrap();
    run(service.call(request)).unwrap();
}
