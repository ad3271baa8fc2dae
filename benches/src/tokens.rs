//! Sessions whose values have a given size, and the tokens that they are sealed in.

use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::service::Service;
use hyper_session::__internals::{Changes, Record, Verbs};
use hyper_session::testing::FakeClock;
use hyper_session::{
    AppKey, Clock, CookieStore, Error, Keyring, Revocations, SessionHandle, SystemClock, Timestamp,
    session_fn,
};

use crate::{KEY, ready};

/// The cookie that the crate sets by default.
pub const NAME: &str = "__Host-session";

/// The moment in which everything is measured that can be told the time.
pub const NOW: Timestamp = Timestamp::from_unix(1_800_000_000);

pub fn app_key() -> AppKey {
    AppKey::from_bytes(&KEY).unwrap()
}

/// A key of its own for each number.
pub fn other_key(number: u8) -> AppKey {
    let mut bytes = KEY;
    bytes.iter_mut().for_each(|byte| *byte = byte.rotate_left(3) ^ number);
    AppKey::from_bytes(&bytes).unwrap()
}

/// A store under one key, in whose world it is always [`NOW`].
pub fn store(keys: impl Into<Keyring>) -> CookieStore {
    CookieStore::builder(keys).clock(FakeClock::at(NOW.as_unix())).build().unwrap()
}

/// A store under one key, with the machine's clock, that opens each cookie: as if no connection ever brought the same one
/// again.
pub fn plain_store() -> CookieStore {
    CookieStore::builder(app_key()).connection_memo(false).build().unwrap()
}

/// The same with revocations, of which there are none yet: what they cost each request.
pub fn revocable_store() -> CookieStore {
    let builder = CookieStore::builder(app_key()).connection_memo(false);
    builder.revocations(Revocations::in_memory()).build().unwrap()
}

/// A store under one key, with the machine's clock and all the defaults.
pub fn default_store() -> CookieStore {
    CookieStore::builder(app_key()).build().unwrap()
}

/// The token of a session whose encoded values have `size` bytes: a user, a number, a text.
pub fn token(store: &CookieStore, size: usize) -> Vec<u8> {
    // Map 1, "user" 5 + "ada" 4, "visits" 7 + 3, "text" 5 + its length.
    let text = match size - 25 {
        rest @ 0..34 => rest - 1,
        rest @ 34..258 => rest - 2,
        rest => rest - 3,
    };
    let token = token_of(store, move |session| {
        session.set("user", "ada")?;
        session.set("visits", 1_000_u64)?;
        session.set("text", text_of(text))
    });
    let bytes = (token.len() * 6) / 8;
    // Version, key id, epoch, nonce, tag and MAC are 69 bytes, id and times 26.
    assert_eq!(bytes, size + 69 + 26, "the values have another size");
    token
}

/// The record of a session with seven names by which it can be revoked: its id, its root, its subject, and four labels.
pub fn labelled_record(store: &CookieStore, user: &str) -> Record {
    let token = token_of(store, |session| {
        session.login(user)?;
        ["a", "b", "c", "d"].iter().try_for_each(|namespace| session.label(namespace, user))
    });
    ready(store.load(&token, SystemClock.now())).unwrap().unwrap()
}

/// The token of a session with `count` values, numbers.
pub fn token_with_keys(store: &CookieStore, count: usize) -> Vec<u8> {
    token_of(store, move |session| {
        (0..count).try_for_each(|number| session.set(&key(number), number as u64 + 1_000))
    })
}

/// The name of the value with this number.
pub fn key(number: usize) -> String {
    format!("key{number:02}")
}

/// So many characters of text.
pub fn text_of(len: usize) -> String {
    "The quick brown fox jumps over the lazy dog. ".chars().cycle().take(len).collect()
}

fn token_of(store: &CookieStore, fill: impl Fn(&hyper_session::Session) -> Result<(), Error>) -> Vec<u8> {
    let service = session_fn(store.clone(), |_: Request<()>, handle: SessionHandle| {
        let filled = ready(handle.load()).and_then(|session| fill(&session));
        std::future::ready(filled.map(|()| Response::new(())))
    });
    let response = ready(service.call(Request::new(()))).unwrap();
    // A large one is split over several cookies.
    let lines = response.headers().get_all(SET_COOKIE).iter().map(|line| line.to_str().unwrap());
    let values = lines.map(|line| line.split_once('=').unwrap().1.split(';').next().unwrap());
    values.collect::<String>().into_bytes()
}

/// `name=value` of the cookie that a response sets.
pub fn cookie_pair(headers: &HeaderMap) -> String {
    let line = headers.get(SET_COOKIE).expect("a response that sets a cookie").to_str().unwrap();
    line.split(';').next().unwrap().to_owned()
}

/// A `Cookie` field with the session's cookie in the middle of `others` more.
pub fn cookie_field(pair: &str, others: usize) -> HeaderValue {
    let other = |number| format!("other{number}=value-of-the-cookie-{number}");
    let before = (0..others / 2).map(other);
    let after = (others / 2..others).map(other);
    let pairs: Vec<_> = before.chain([pair.to_owned()]).chain(after).collect();
    HeaderValue::from_str(&pairs.join("; ")).unwrap()
}

/// The record that the token stands for.
pub fn record(store: &CookieStore, token: &[u8]) -> Record {
    ready(store.load(token, NOW)).unwrap().unwrap()
}

/// No changes: saving seals what there is.
pub fn no_changes() -> std::sync::Arc<Changes> {
    std::sync::Arc::new(Changes::default())
}
