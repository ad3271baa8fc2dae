//! The threats that a session layer has met before, tried on whole services. Each test is named after its numbers.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    clippy::print_stdout,
    unreachable_pub
)]

mod support;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD as BASE64, Engine};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, COOKIE, HeaderName, HeaderValue, SET_COOKIE, VARY};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::service::{Service, service_fn};
use hyper_session::cookie::{CookieOptions, MAX_CHUNKS, MAX_NAME_VALUE};
use hyper_session::store::{Backend, Builder, Replaced, Store, Stored};
use hyper_session::testing::FakeClock;
use hyper_session::{
    AppKey, Clock, CookieStore, Error, Event, Keyring, MemoryStore, Refusal, ServerStore, Session,
    SessionExt, SessionHandle, SessionId, SessionService, Timestamp, session_fn,
};
use proptest::prelude::*;

use support::{Body, Events, Jar, block_on, refused, request, set_cookies, status, text};

/// What a handler does to its session.
type Act = fn(&Session) -> Result<(), Error>;

const START: u64 = 1_700_000_000;
const IDLE: u64 = 1_000;
const ABSOLUTE: u64 = 5_000;
const NAME: &str = "__Host-session";
/// What the tests look for where it must not be.
const VALUE: &str = "hunter2-hunter2";

// The world of a test.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Cookie,
    Memory,
}

const KINDS: [Kind; 2] = [Kind::Cookie, Kind::Memory];

/// A store, its clock, and what it told.
#[derive(Clone)]
struct World {
    store: Arc<dyn Store>,
    clock: FakeClock,
    events: Events,
}

struct Options {
    cookie: CookieOptions,
    keys: Keyring,
    idle: Duration,
    absolute: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cookie: CookieOptions::new().max_chunks(MAX_CHUNKS),
            keys: AppKey::generate().unwrap().into(),
            idle: Duration::from_secs(IDLE),
            absolute: Duration::from_secs(ABSOLUTE),
        }
    }
}

impl Options {
    fn with_cookie(cookie: CookieOptions) -> Self {
        Self { cookie, ..Self::default() }
    }

    fn with_keys(keys: impl Into<Keyring>) -> Self {
        Self { keys: keys.into(), ..Self::default() }
    }

    fn apply<K>(&self, builder: Builder<K>, clock: &FakeClock, events: &Events) -> Builder<K> {
        let builder =
            builder.cookie(self.cookie.clone()).idle_timeout(self.idle).absolute_timeout(self.absolute);
        builder.clock(clock.clone()).observer(events.clone())
    }

    fn build(self, kind: Kind) -> World {
        let (clock, events) = (FakeClock::at(START), Events::new());
        let store: Arc<dyn Store> = match kind {
            Kind::Cookie => {
                let builder = CookieStore::builder(self.keys.clone());
                Arc::new(self.apply(builder, &clock, &events).build().unwrap())
            }
            Kind::Memory => Arc::new(self.apply(MemoryStore::builder(), &clock, &events).build().unwrap()),
        };
        World { store, clock, events }
    }

    /// A server-side store over rows that the test can see and change.
    fn over(self, rows: &Rows) -> World {
        let (clock, events) = (FakeClock::at(START), Events::new());
        let builder = ServerStore::with_backend(rows.clone());
        World { store: Arc::new(self.apply(builder, &clock, &events).build().unwrap()), clock, events }
    }
}

impl World {
    fn new(kind: Kind) -> Self {
        Options::default().build(kind)
    }

    async fn send<A>(&self, request: Request<Body>, act: A) -> Response<Body>
    where
        A: Fn(&Session) -> Result<Response<Body>, Error> + Clone,
    {
        let handler = service_fn(|request: Request<Body>| {
            let act = act.clone();
            async move { act(&request.session().await?) }
        });
        SessionService::new(handler, Arc::clone(&self.store)).call(request).await.expect("a response")
    }

    async fn edit<A>(&self, jar: &mut Jar, act: A) -> Response<Body>
    where
        A: Fn(&Session) -> Result<(), Error> + Clone,
    {
        let request = request("/", jar.header().as_deref());
        let response = self.send(request, |session| act(session).map(|()| status(200))).await;
        jar.store(response.headers());
        response
    }

    /// What a request with this `Cookie` header sees under `a`, and the response to it.
    async fn present(&self, cookie: &[u8]) -> (Option<String>, Response<Body>) {
        let seen = Mutex::new(None);
        let mut request = request("/", None);
        request.headers_mut().insert(COOKIE, HeaderValue::from_bytes(cookie).unwrap());
        let response = self
            .send(request, |session| {
                assert_eq!(session.is_empty(), session.id().is_none());
                *seen.lock().unwrap() = session.get::<String>("a")?;
                Ok(Response::new(Body::from(session.keys().join(","))))
            })
            .await;
        (seen.into_inner().unwrap(), response)
    }

    /// What this jar's session holds under `a`, in a request whose response the jar does not get.
    async fn value(&self, jar: &Jar) -> Option<String> {
        self.present(jar.header().unwrap_or_default().as_bytes()).await.0
    }

    async fn id(&self, jar: &Jar) -> Option<SessionId> {
        let id = Mutex::new(None);
        self.edit(&mut jar.clone(), |session| {
            *id.lock().unwrap() = session.id();
            Ok(())
        })
        .await;
        id.into_inner().unwrap()
    }

    /// A jar with the stored session `{a: VALUE}`. Events so far are forgotten.
    async fn jar(&self) -> Jar {
        let mut jar = Jar::new();
        self.edit(&mut jar, |session| session.set("a", VALUE)).await;
        assert_eq!(self.value(&jar).await.as_deref(), Some(VALUE));
        self.events.take();
        jar
    }

    async fn token(&self) -> String {
        self.jar().await.0.into_values().next().unwrap()
    }
}

fn on_both<T: Future<Output = ()>>(scenario: impl Fn(Kind, World) -> T) {
    for kind in KINDS {
        println!("{kind:?}"); // shown if the scenario fails
        block_on(scenario(kind, World::new(kind)));
    }
}

/// A backend whose rows a test can see and change.
#[derive(Clone, Default)]
struct Rows(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    rows: BTreeMap<SessionId, Stored>,
    fetched: Vec<SessionId>,
    /// Each deadline that was written: when, and which.
    deadlines: Vec<(Timestamp, Timestamp)>,
    /// Breaks the contract: entries that are over are handed out all the same.
    keeps_for_ever: bool,
}

impl Table {
    fn live(&self, id: SessionId, now: Timestamp) -> Option<&Stored> {
        self.rows.get(&id).filter(|stored| self.keeps_for_ever || stored.expires > now)
    }

    fn put(&mut self, id: SessionId, entry: Stored, now: Timestamp) {
        self.deadlines.push((now, entry.expires));
        self.rows.insert(id, entry);
    }
}

impl Rows {
    fn with<R>(&self, work: impl FnOnce(&mut Table) -> R) -> R {
        work(&mut self.0.lock().unwrap())
    }

    fn ids(&self) -> Vec<SessionId> {
        self.with(|table| table.rows.keys().copied().collect())
    }

    /// Puts `value` in the place of that of the only row.
    fn tamper(&self, value: &[u8]) {
        self.with(|table| {
            assert_eq!(table.rows.len(), 1);
            table.rows.values_mut().for_each(|stored| stored.value = Bytes::copy_from_slice(value));
        });
    }

    fn only_value(&self) -> Bytes {
        self.with(|table| {
            assert_eq!(table.rows.len(), 1);
            table.rows.values().next().unwrap().value.clone()
        })
    }
}

impl Backend for Rows {
    async fn fetch(&self, id: SessionId, now: Timestamp) -> Result<Option<Stored>, Error> {
        Ok(self.with(|table| {
            table.fetched.push(id);
            table.live(id, now).cloned()
        }))
    }

    async fn create(&self, id: SessionId, entry: Stored, now: Timestamp) -> Result<bool, Error> {
        Ok(self.with(|table| {
            let free = table.live(id, now).is_none();
            if free {
                table.put(id, entry, now);
            }
            free
        }))
    }

    async fn replace(
        &self,
        id: SessionId,
        expected: Bytes,
        entry: Option<Stored>,
        now: Timestamp,
    ) -> Result<Replaced, Error> {
        Ok(self.with(|table| match table.live(id, now).cloned() {
            None => Replaced::Missing,
            Some(current) if current.value != expected => Replaced::Conflict(current),
            Some(_) => {
                match entry {
                    Some(entry) => table.put(id, entry, now),
                    None => drop(table.rows.remove(&id)),
                }
                Replaced::Done
            }
        }))
    }

    async fn touch(&self, id: SessionId, expires: Timestamp, now: Timestamp) -> Result<bool, Error> {
        Ok(self.with(|table| match table.live(id, now).cloned() {
            None => false,
            Some(stored) => {
                table.put(id, Stored { expires, ..stored }, now);
                true
            }
        }))
    }

    async fn delete(&self, id: SessionId) -> Result<(), Error> {
        self.with(|table| table.rows.remove(&id));
        Ok(())
    }
}

fn ordered(headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// All that a client can see of a response.
async fn visible(response: Response<Body>) -> (StatusCode, Vec<(HeaderName, HeaderValue)>, String) {
    (response.status(), ordered(response.headers()), text(response).await)
}

fn assert_removed(response: &Response<Body>) {
    let lines = set_cookies(response.headers());
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with(&format!("{NAME}=; Max-Age=0; ")), "{lines:?}");
}

// Forged, altered and cut tokens.

/// Why a value that is not a token of this store is refused, by the format alone: an oracle that knows no key.
fn refusal(kind: Kind, value: &[u8], genuine: &str) -> Refusal {
    let value = value.split(|&byte| byte == b';').next().unwrap();
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().position(|byte| !blank(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !blank(byte)).map_or(start, |at| at + 1);
    let decoded = BASE64.decode(&value[start..end]);
    let genuine = BASE64.decode(genuine).unwrap();
    match (kind, decoded) {
        (_, Err(_)) => Refusal::Encoding,
        (Kind::Memory, Ok(token)) if token.len() != 32 => Refusal::Encoding,
        (Kind::Memory, Ok(_)) => Refusal::UnknownId,
        (Kind::Cookie, Ok(token)) if token.len() < 21 => Refusal::Length,
        (Kind::Cookie, Ok(token)) if token[0] != 1 => Refusal::Version,
        (Kind::Cookie, Ok(token)) if token.len() < 21 + 16 + 32 => Refusal::Length,
        (Kind::Cookie, Ok(token)) if token[1..5] != genuine[1..5] => Refusal::UnknownKey,
        (Kind::Cookie, Ok(_)) => Refusal::Signature,
    }
}

/// Presents each of `values` as the session cookie: an empty session, one event that says why, and one and the same
/// response, whatever is wrong.
async fn all_refused_alike(
    kind: Kind,
    world: &World,
    genuine: &str,
    values: impl Iterator<Item = Vec<u8>>,
) -> usize {
    let expected = visible(world.present(format!("{NAME}=?").as_bytes()).await.1).await;
    assert_eq!(expected.1.iter().filter(|(name, _)| name == SET_COOKIE).count(), 1, "removed");
    world.events.take();
    let mut tried = 0;
    for value in values {
        let shown = String::from_utf8_lossy(&value).into_owned();
        let header = [NAME.as_bytes(), b"=", &value].concat();
        let (seen, response) = world.present(&header).await;
        assert_eq!(seen, None, "{shown}");
        assert_eq!(world.events.take(), [refused(refusal(kind, &value, genuine))], "{shown}");
        assert_eq!(visible(response).await, expected, "{shown}");
        tried += 1;
    }
    tried
}

#[test]
fn t02_t70_every_flipped_bit_of_the_text_is_refused_alike() {
    on_both(|kind, world| async move {
        let token = world.token().await;
        let flipped = (0..token.len() * 8).map(|bit| {
            let mut bytes = token.clone().into_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        });
        // Some control characters cannot be in a header at all.
        let flipped = flipped.filter(|bytes| HeaderValue::from_bytes(bytes).is_ok());
        let tried = all_refused_alike(kind, &world, &token, flipped).await;
        assert!(tried > token.len() * 6, "{tried} of {}", token.len() * 8);
    });
}

#[test]
fn t02_every_flipped_bit_of_the_sealed_bytes_is_refused_alike() {
    on_both(|kind, world| async move {
        let token = world.token().await;
        let bytes = BASE64.decode(&token).unwrap();
        let flipped = (0..bytes.len() * 8).map(|bit| {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            BASE64.encode(bytes).into_bytes()
        });
        assert_eq!(all_refused_alike(kind, &world, &token, flipped).await, bytes.len() * 8);
    });
}

#[test]
fn t70_cut_and_stretched_at_every_byte_is_refused_alike() {
    on_both(|kind, world| async move {
        let token = world.token().await;
        let places = 0..token.len();
        let cut_end = places.clone().map(|at| token[..at].to_owned());
        let cut_start = places.clone().skip(1).map(|at| token[at..].to_owned());
        let left_out = places.clone().map(|at| [&token[..at], &token[at + 1..]].concat());
        let put_in = (0..=token.len()).flat_map(|at| {
            let (before, after) = token.split_at(at);
            ["A", "_", "=", "AAAA"].map(|extra| [before, extra, after].concat())
        });
        let twice = std::iter::once(token.repeat(2));
        let all = cut_end.chain(cut_start).chain(left_out).chain(put_in).chain(twice).map(String::into_bytes);
        assert_eq!(
            all_refused_alike(kind, &world, &token, all).await,
            3 * token.len() + 4 * (token.len() + 1)
        );
    });
}

#[test]
fn t03_a_shorter_tag_or_signature_is_refused() {
    block_on(async {
        let world = World::new(Kind::Cookie);
        let token = world.token().await;
        let bytes = BASE64.decode(&token).unwrap();
        let mac = bytes.len() - 32;
        let tag = mac - 16;
        // All lengths of the signature, with and without the GCM tag before it; all lengths of the tag, with the
        // whole signature and with none.
        let short_mac = (0..32).map(|len| bytes[..mac + len].to_vec());
        let no_tag = (0..=32).map(|len| [&bytes[..tag], &bytes[mac..mac + len]].concat());
        let short_tag = (0..16).map(|len| [&bytes[..tag + len], &bytes[mac..]].concat());
        let tag_alone = (0..16).map(|len| bytes[..tag + len].to_vec());
        let all = short_mac.chain(no_tag).chain(short_tag).chain(tag_alone);
        let all = all.map(|bytes| BASE64.encode(bytes).into_bytes());
        assert_eq!(all_refused_alike(Kind::Cookie, &world, &token, all).await, 32 + 33 + 16 + 16);
    });
}

#[test]
fn t01_t33_t67_plain_data_is_no_session() {
    // What a session holds, unsealed, in every dress that some store of the past would have taken.
    let msgpack: &[u8] = b"\x81\xa1a\xa1x";
    let json: &[u8] = br#"{"a":"x"}"#;
    let header = [&[1_u8][..], &[0; 68]].concat();
    let mut values: Vec<Vec<u8>> = vec![json.to_vec(), b"{}".to_vec(), b"%7B%7D".to_vec(), b"null".to_vec()];
    for plain in [msgpack, json, b"{}", b"\x80", b"", b"null", &[0; 32], &[0; 200]] {
        values.push(BASE64.encode(plain).into_bytes());
        values.push(BASE64.encode([&header, plain].concat()).into_bytes());
    }
    on_both(|kind, world| {
        let values = values.clone();
        async move {
            let token = world.token().await;
            // A JSON object holds no `;`, but is a valid header: each value goes in as it is.
            assert_eq!(all_refused_alike(kind, &world, &token, values.into_iter()).await, 20);
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// No input that was not made by a held key ever yields data.
    #[test]
    fn t01_random_tokens_are_refused(noise in proptest::collection::vec(any::<u8>(), 0..300), mine in any::<bool>()) {
        for kind in KINDS {
            block_on(async {
                let world = World::new(kind);
                let token = world.token().await;
                let mut bytes = noise.clone();
                if mine && bytes.len() >= 5 {
                    // The first bytes of a genuine token: version and key id fit.
                    bytes[..5].copy_from_slice(&BASE64.decode(&token).unwrap()[..5]);
                }
                let value = BASE64.encode(bytes).into_bytes();
                all_refused_alike(kind, &world, &token, std::iter::once(value)).await;
            });
        }
    }
}

/// The lines of a source file without the items that only tests are built with.
fn without_tests(source: &str) -> Vec<&str> {
    let mut code = Vec::new();
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        if line == "#[cfg(test)]" {
            lines.by_ref().find(|line| *line == "}" || (!line.starts_with(' ') && line.ends_with(';')));
        } else {
            code.push(line);
        }
    }
    code
}

/// Signature bytes are made in one place, to be appended, and checked in one place, by the library's constant-time
/// comparison. With no second place that makes them, no code here has any to compare by `==`.
#[test]
fn t05_signatures_are_only_compared_by_the_library() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/crypto");
    let mut made = Vec::new();
    let mut checked = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        if file.ends_with("_tests.rs") || file == "vectors.rs" {
            continue;
        }
        let source = std::fs::read_to_string(&path).unwrap();
        let code = without_tests(&source);
        for line in code.into_iter().map(str::trim).filter(|line| !line.starts_with("//")) {
            for maker in ["hmac::sign(", "hmac::Context", "HMAC_SHA256,", ".finalize("] {
                if line.contains(maker) {
                    made.push(format!("{file} {maker}"));
                }
            }
            if line.contains("hmac::verify(") {
                checked.push(file.clone());
            }
            let lower = line.to_ascii_lowercase();
            let compares =
                ["==", "!=", ".eq(", ".ne(", ".cmp("].iter().any(|operator| lower.contains(operator));
            let secret = ["mac", "tag", "signature", "prk"].iter().any(|word| lower.contains(word));
            assert!(!(compares && secret), "{file}: {line}");
        }
    }
    made.sort();
    // One key, one signature.
    assert_eq!(made, ["seal.rs HMAC_SHA256,", "seal.rs hmac::sign("]);
    assert_eq!(checked, ["seal.rs"]);
}

// Names and keys.

fn named(name: &str) -> CookieOptions {
    CookieOptions::new().name(name)
}

#[test]
fn t09_a_cookie_moved_to_another_name_is_refused() {
    block_on(async {
        let keys = Keyring::new(AppKey::generate().unwrap());
        let world = |name| {
            Options { cookie: named(name), keys: keys.clone(), ..Options::default() }.build(Kind::Cookie)
        };
        let names = ["__Host-session", "__Host-sessio", "__Host-session2", "session", "Session"];
        for from in names {
            let token = world(from).token().await;
            for to in names.into_iter().filter(|to| *to != from) {
                let world = world(to);
                assert_eq!(world.value(&Jar::with(to, &token)).await, None);
                let mut events = world.events.take();
                events.retain(|event| event != "insecure_cookie");
                assert_eq!(events, [refused(Refusal::Signature)], "{from} as {to}");
            }
        }
    });
}

#[test]
fn t08_a_token_of_one_kind_of_store_is_none_of_the_other() {
    block_on(async {
        let [cookie, memory] = KINDS.map(World::new);
        let (sealed, opaque) = (cookie.token().await, memory.token().await);
        assert_eq!(memory.value(&Jar::with(NAME, &sealed)).await, None);
        assert_eq!(memory.events.take(), [refused(Refusal::Encoding)]);
        assert_eq!(cookie.value(&Jar::with(NAME, &opaque)).await, None);
        assert_eq!(cookie.events.take().len(), 1);
    });
}

#[test]
fn t10_two_names_on_one_service_do_not_read_each_other() {
    for kind in KINDS {
        block_on(async {
            let keys = Keyring::new(AppKey::generate().unwrap());
            let build =
                |name| Options { cookie: named(name), keys: keys.clone(), ..Options::default() }.build(kind);
            let (one, two) = (build("__Host-one"), build("__Host-two"));
            let mut jar = one.jar().await;
            assert_eq!(two.value(&jar).await, None);
            assert_eq!(two.events.take(), [""; 0], "another cookie's name is not even looked at");
            two.edit(&mut jar, |session| session.set("a", "second")).await;
            assert_eq!(one.value(&jar).await.as_deref(), Some(VALUE));
            assert_eq!(two.value(&jar).await.as_deref(), Some("second"));
        });
    }
}

/// As with CVE-2022-46170: the same token under another cookie name, over the same storage.
#[test]
fn t10_two_names_over_one_backend_do_not_read_each_other() {
    block_on(async {
        let rows = Rows::default();
        let one = Options::with_cookie(named("__Host-one")).over(&rows);
        let two = Options::with_cookie(named("__Host-two")).over(&rows);
        let token = one.token().await;
        assert_eq!(two.value(&Jar::with("__Host-two", &token)).await, None);
        assert_eq!(two.events.take(), [refused(Refusal::UnknownId)]);
    });
}

#[test]
fn t12_t17_keys_that_seal_open_or_are_no_longer_trusted() {
    let text = |key: &AppKey| key.to_text().to_string();
    let (old, new) = (AppKey::generate().unwrap(), AppKey::generate().unwrap());
    let (old_id, new_id) = (old.id(), new.id());
    let (old_text, new_text) = (text(&old), text(&new));
    let key = |text: &str| text.parse::<AppKey>().unwrap();
    let key_of = |jar: &Jar| BASE64.decode(jar.get(NAME).unwrap()).unwrap()[1..5].to_vec();
    let id_bytes =
        |id: hyper_session::KeyId| u32::from_str_radix(&id.to_string(), 16).unwrap().to_be_bytes().to_vec();
    block_on(async {
        let before = Options::with_keys(old).build(Kind::Cookie);
        let original = before.jar().await;
        assert_eq!(key_of(&original), id_bytes(old_id));

        // Accepted: read, and sealed anew on this response, once.
        let rotated = Options::with_keys(Keyring::new(new).accept(key(&old_text))).build(Kind::Cookie);
        let mut jar = original.clone();
        let response = rotated
            .edit(&mut jar, |session| session.get::<String>("a").map(|a| assert_eq!(a.unwrap(), VALUE)));
        assert_eq!(set_cookies(response.await.headers()).len(), 1);
        assert_eq!(rotated.events.take(), ["old_key"]);
        assert_eq!(key_of(&jar), id_bytes(new_id), "the sealing key seals, not the oldest");
        assert_eq!(set_cookies(rotated.edit(&mut jar, |_| Ok(())).await.headers()), [""; 0]);
        assert_eq!(rotated.events.take(), [""; 0]);
        assert_eq!(rotated.id(&jar).await, before.id(&original).await, "still the same session");
        assert_eq!(rotated.value(&jar).await.as_deref(), Some(VALUE));
        // What begins now is sealed with the new key, too.
        assert_eq!(key_of(&rotated.jar().await), id_bytes(new_id));

        // Dropped from the ring, revoked, revoked although still on the ring.
        let dropped = Keyring::new(key(&new_text));
        let revoked = Keyring::new(key(&new_text)).revoke(old_id);
        let both = Keyring::new(key(&new_text)).accept(key(&old_text)).revoke(old_id);
        for (keys, why) in
            [(dropped, Refusal::UnknownKey), (revoked, Refusal::RevokedKey), (both, Refusal::RevokedKey)]
        {
            let world = Options::with_keys(keys).build(Kind::Cookie);
            let mut replayed = original.clone();
            assert_removed(
                &world
                    .edit(&mut replayed, |session| {
                        assert!(session.is_empty());
                        Ok(())
                    })
                    .await,
            );
            assert_eq!(world.events.take(), [refused(why)]);
            assert_eq!(world.value(&jar).await.as_deref(), Some(VALUE), "sealed anew, it lives on");
        }
    });
}

// Deadlines.

#[test]
fn t18_t22_the_idle_deadline_holds_to_the_second() {
    on_both(|kind, world| async move {
        for (seconds, alive) in [(IDLE - 1, true), (IDLE, false), (IDLE + 1, false), (IDLE * 4, false)] {
            world.clock.set(START);
            let jar = world.jar().await;
            world.clock.set(START + seconds);
            assert_eq!(world.value(&jar).await.is_some(), alive, "after {seconds} s");
            let why = if kind == Kind::Cookie { Refusal::Expired } else { Refusal::UnknownId };
            assert_eq!(world.events.take(), if alive { vec![] } else { vec![refused(why)] });
        }
    });
}

#[test]
fn t18_t22_t30_the_absolute_deadline_holds_to_the_second_however_busy() {
    let busy: [Act; 4] = [
        |_| Ok(()),
        |session| session.update("n", |old: Option<u64>| old.unwrap_or(0) + 1).map(drop),
        Session::regenerate,
        |session| session.regenerate().and_then(|()| session.set("b", 1)),
    ];
    on_both(|_, world| async move {
        for act in busy {
            for (seconds, alive) in [(ABSOLUTE - 1, true), (ABSOLUTE, false), (ABSOLUTE + 1, false)] {
                world.clock.set(START);
                let mut jar = world.jar().await;
                for step in 1..=ABSOLUTE / 400 {
                    world.clock.set(START + step * 400);
                    world.edit(&mut jar, act).await;
                    assert_eq!(world.value(&jar).await.as_deref(), Some(VALUE));
                }
                world.clock.set(START + seconds);
                assert_eq!(world.value(&jar).await.is_some(), alive, "after {seconds} s");
            }
        }
    });
}

#[test]
fn t18_t25_a_cookie_from_before_logout_is_worth_nothing_at_once_or_at_its_deadline() {
    on_both(|kind, world| async move {
        let mut jar = world.jar().await;
        let stolen = jar.clone();
        world.edit(&mut jar, Session::destroy).await;
        assert!(jar.0.is_empty());
        if kind == Kind::Memory {
            assert_eq!(world.value(&stolen).await, None);
        }
        world.clock.set(START + IDLE);
        assert_eq!(world.value(&stolen).await, None);
    });
}

#[test]
fn t19_a_backend_that_keeps_rows_for_too_long_keeps_no_sessions_for_too_long() {
    block_on(async {
        let rows = Rows::default();
        rows.with(|table| table.keeps_for_ever = true);
        let world = Options::default().over(&rows);
        for (seconds, alive) in [(IDLE - 1, true), (IDLE, false)] {
            world.clock.set(START);
            let jar = world.jar().await;
            world.clock.set(START + seconds);
            let before = rows.with(|table| table.rows.clone());
            assert_eq!(world.value(&jar).await.is_some(), alive);
            if !alive {
                assert_eq!(world.events.take(), [refused(Refusal::Expired)]);
                assert!(rows.with(|table| table.rows == before), "loading revives nothing");
            }
        }
        // The row says "for ever": the age says no.
        world.clock.set(START);
        let jar = world.jar().await;
        rows.with(|table| table.rows.values_mut().for_each(|stored| stored.expires = Timestamp::MAX));
        world.clock.set(START + ABSOLUTE - 1);
        assert_eq!(world.value(&jar).await.as_deref(), Some(VALUE));
        rows.with(|table| table.rows.values_mut().for_each(|stored| stored.expires = Timestamp::MAX));
        world.clock.set(START + ABSOLUTE);
        assert_eq!(world.value(&jar).await, None);
    });
}

#[test]
fn t20_a_cookie_without_max_age_has_a_deadline_inside() {
    for kind in KINDS {
        block_on(async {
            let world = Options::with_cookie(CookieOptions::new().max_age(None)).build(kind);
            let mut jar = Jar::new();
            let response = world.edit(&mut jar, |session| session.set("a", VALUE)).await;
            let line = &set_cookies(response.headers())[0];
            assert!(!line.contains("Max-Age") && !line.contains("Expires"), "{line}");
            world.clock.set(START + IDLE);
            assert_eq!(world.value(&jar).await, None);
        });
    }
}

#[test]
fn t21_an_expired_cookie_is_an_ordinary_anonymous_request_and_is_removed() {
    on_both(|_, world| async move {
        let mut jar = world.jar().await;
        world.clock.set(START + IDLE);
        let response = world
            .edit(&mut jar, |session| {
                assert!(session.is_empty());
                Ok(())
            })
            .await;
        assert_eq!(response.status(), 200);
        assert_removed(&response);
        assert!(jar.0.is_empty());
    });
}

#[test]
fn t23_the_longest_durations_and_the_last_moments_do_not_overflow() {
    for kind in KINDS {
        for now in [0, 1, START, u64::from(u32::MAX) * 3600 - 1, i64::MAX as u64, u64::MAX - 1] {
            block_on(async {
                let cookie = CookieOptions::new().max_age(Duration::MAX);
                let options =
                    Options { cookie, idle: Duration::MAX, absolute: Duration::MAX, ..Options::default() };
                let world = options.build(kind);
                world.clock.set(now);
                let mut jar = Jar::new();
                let response = world.edit(&mut jar, |session| session.set("a", VALUE)).await;
                let line = set_cookies(response.headers()).remove(0);
                let age = line.split("; ").find_map(|part| part.strip_prefix("Max-Age=")).unwrap();
                assert!(age.parse::<u64>().unwrap() <= 400 * 86_400, "{line}");
                if now < u64::MAX - 1 {
                    assert_eq!(world.value(&jar).await.as_deref(), Some(VALUE), "{kind:?} at {now}");
                    world.edit(&mut jar, Session::regenerate).await;
                    assert_eq!(world.value(&jar).await.as_deref(), Some(VALUE), "{kind:?} at {now}");
                }
                // The last moment of all: whatever it is, it is no panic.
                world.clock.set(u64::MAX);
                assert_eq!(world.value(&jar).await, None);
                assert_eq!(
                    world.edit(&mut Jar::new(), |session| session.set("a", VALUE)).await.status(),
                    200
                );
            });
        }
    }
}

#[test]
fn t24_a_cookie_from_the_future_is_refused() {
    block_on(async {
        for (ahead, accepted) in [(60, true), (61, false), (IDLE, false), (10 * ABSOLUTE, false)] {
            let world = World::new(Kind::Cookie);
            world.clock.set(START + ahead);
            let jar = world.jar().await;
            world.clock.set(START);
            assert_eq!(world.value(&jar).await.is_some(), accepted, "{ahead} s ahead");
            let told = if accepted { vec![] } else { vec![refused(Refusal::IssuedInFuture)] };
            assert_eq!(world.events.take(), told);
        }
    });
}

#[test]
fn t24_a_clock_that_goes_back_lengthens_no_session() {
    on_both(|kind, world| async move {
        world.clock.set(START + 2_000);
        let mut jar = world.jar().await;
        for back in [30, 60, 2_000] {
            world.clock.set(START + 2_000 - back);
            let before = jar.clone();
            world.edit(&mut jar, |_| Ok(())).await;
            if kind == Kind::Cookie && back > 60 {
                assert!(jar.0.is_empty(), "issued in the future");
                jar = before;
            } else {
                assert_eq!(jar.0, before.0, "nothing is gained by renewing");
                assert_eq!(world.value(&jar).await.as_deref(), Some(VALUE));
            }
        }
        world.clock.set(START + 2_000 + IDLE - 1);
        assert!(world.value(&jar.clone()).await.is_some());
        // That read renewed the entry of a server-side store; the absolute deadline is where it was.
        world.clock.set(START + 2_000 + ABSOLUTE);
        assert_eq!(world.value(&jar).await, None);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn t31_every_deadline_written_is_the_nearer_of_idle_and_absolute(
        steps in proptest::collection::vec((0..700_u64, 0..5_usize), 1..20),
    ) {
        block_on(async {
            let rows = Rows::default();
            let world = Options::default().over(&rows);
            let mut jar = world.jar().await;
            let mut born = START;
            let acts: [Act; 5] = [
                |session| session.set("a", VALUE),
                |session| session.update("n", |old: Option<u64>| old.unwrap_or(0) + 1).map(drop),
                Session::regenerate,
                |_| Ok(()),
                |session| session.set_flash("f", 1),
            ];
            for (seconds, act) in steps {
                world.clock.advance(Duration::from_secs(seconds));
                rows.with(|table| table.deadlines.clear());
                let created = Mutex::new(None);
                world.edit(&mut jar, |session| {
                    *created.lock().unwrap() = session.created_at();
                    acts[act](session)
                }).await;
                let now = world.clock.now();
                // Where the old session was over, a new one may have begun.
                born = created.into_inner().unwrap().map_or(now.as_unix(), Timestamp::as_unix).max(born);
                let expected = now.as_unix().saturating_add(IDLE).min(born + ABSOLUTE);
                for (at, expires) in rows.with(|table| table.deadlines.clone()) {
                    assert_eq!((at, expires.as_unix()), (now, expected));
                }
            }
        });
    }
}

#[test]
fn t30_regenerate_renewal_and_merge_keep_the_beginning() {
    on_both(|_, world| async move {
        let mut jar = world.jar().await;
        let acts: [Act; 4] = [
            Session::regenerate,
            |_| Ok(()),
            |session| session.set("b", 2),
            |session| {
                session.clear().and_then(|()| session.set("a", VALUE)).and_then(|()| session.regenerate())
            },
        ];
        for act in acts {
            world.clock.advance(Duration::from_secs(500));
            world.edit(&mut jar, act).await;
            let created = Mutex::new(None);
            world
                .edit(&mut jar.clone(), |session| {
                    *created.lock().unwrap() = session.created_at();
                    Ok(())
                })
                .await;
            assert_eq!(created.into_inner().unwrap(), Some(Timestamp::from_unix(START)));
        }
    });
}

// Identity.

#[test]
fn t28_clearing_to_empty_is_written() {
    block_on(async {
        for act in [Session::clear, |session: &Session| session.delete("a").map(drop)] {
            let rows = Rows::default();
            let world = Options::default().over(&rows);
            let mut jar = world.jar().await;
            assert_removed(&world.edit(&mut jar, act).await);
            assert_eq!(rows.ids(), []);
        }
    });
}

#[test]
fn t32_an_unknown_token_is_never_adopted() {
    block_on(async {
        let rows = Rows::default();
        let world = Options::default().over(&rows);
        let planted = BASE64.encode([0x5a; 32]);
        let mut victim = Jar::with(NAME, &planted);
        world.edit(&mut victim, |session| session.set("a", VALUE)).await;
        assert_ne!(victim.get(NAME), Some(planted.as_str()));
        assert_eq!(world.events.take(), [refused(Refusal::UnknownId)]);
        let (asked, stored) = (rows.with(|table| table.fetched.clone()), rows.ids());
        assert_eq!((asked.len(), stored.len()), (1, 1));
        assert!(!stored.contains(&asked[0]), "the attacker's id is not in the store");
        assert_eq!(world.value(&Jar::with(NAME, &planted)).await, None);
        // Nor is the token of a session that ended.
        let ended = victim.clone();
        world.edit(&mut victim, Session::destroy).await;
        let mut again = ended.clone();
        world.edit(&mut again, |session| session.set("a", VALUE)).await;
        assert_ne!(again.0, ended.0);
        assert_eq!(world.value(&ended).await, None);
    });
}

#[test]
fn t33_a_row_that_is_no_session_is_refused() {
    block_on(async {
        let rows = Rows::default();
        let world = Options::default().over(&rows);
        let jar = world.jar().await;
        let good = rows.only_value();
        let header = &good[..9];
        let with = |payload: &[u8]| [header, payload].concat();
        let mut bad = vec![
            Vec::new(),
            b"{}".to_vec(),
            br#"{"a":"x"}"#.to_vec(),
            with(b"{}"),
            with(b"\x80"),
            with(b"[]"),
            with(b"null"),
            with(b"\xc0"),
            with(b"\x91\xa1a"),
            with(b"\x82\xa1a\x01\xa1a\x02"),
            with(b"\x82\xa1b\x01\xa1a\x02"),
            with(b"\x81\xa1\xff\x01"),
            with(b"\x81\x01\x01"),
            [&good[..], b"\0"].concat(),
            [&[2], &good[1..]].concat(),
        ];
        bad.extend((0..good.len()).map(|len| good[..len].to_vec()));
        for row in bad {
            rows.tamper(&row);
            let (value, response) = world.present(jar.header().unwrap().as_bytes()).await;
            assert_eq!(value, None, "{row:?}");
            assert_eq!(world.events.take(), [refused(Refusal::Payload)], "{row:?}");
            assert_removed(&response);
        }
        rows.tamper(&good);
        assert_eq!(world.value(&jar).await.as_deref(), Some(VALUE));
    });
}

#[test]
fn t38_requests_share_nothing_but_their_cookies() {
    on_both(|_, world| async move {
        // One service, one task, users in turn: with a session, without one, and with a handler that fails.
        let handler = service_fn(|request: Request<Body>| async move {
            let session = request.session().await?;
            let seen = session.get::<String>("a")?.unwrap_or_default();
            match request.uri().path() {
                "/fail" => {
                    session.set("a", "left behind")?;
                    Err(Error::unavailable("the handler's own trouble"))
                }
                path if path.len() > 1 => {
                    session.set("a", &path[1..])?;
                    Ok(Response::new(Body::from(seen)))
                }
                _ => Ok(Response::new(Body::from(seen))),
            }
        });
        let service = SessionService::new(handler, Arc::clone(&world.store));
        let mut jars = vec![Jar::new(); 5];
        for round in 0..3 {
            for (user, jar) in jars.iter_mut().enumerate() {
                let before = if round == 0 { String::new() } else { format!("user{user}") };
                let path = format!("/user{user}");
                assert_eq!(text(support::visit(&service, &path, jar).await).await, before);
                assert!(service.call(request("/fail", jar.header().as_deref())).await.is_err());
                assert_eq!(text(support::visit(&service, "/", &mut Jar::new()).await).await, "");
            }
        }
        let tokens: std::collections::BTreeSet<_> = jars.iter().map(|jar| jar.get(NAME).unwrap()).collect();
        assert_eq!(tokens.len(), jars.len());
    });
}

#[test]
fn t38_requests_that_interleave_keep_apart() {
    on_both(|_, world| async move {
        let (store, jars) = (Arc::clone(&world.store), [world.jar().await, Jar::new(), world.jar().await]);
        let barrier = Arc::new(tokio::sync::Barrier::new(jars.len()));
        let service = Arc::new(session_fn(store, move |request: Request<Body>, handle: SessionHandle| {
            let barrier = Arc::clone(&barrier);
            async move {
                let session = handle.load().await?;
                session.set("who", request.uri().path())?;
                barrier.wait().await;
                let seen = format!("{:?} {:?}", session.get::<String>("a")?, session.get::<String>("who")?);
                Ok::<_, Error>(Response::new(Body::from(seen)))
            }
        }));
        let visits = jars.iter().enumerate().map(|(user, jar)| {
            let request = request(&format!("/{user}"), jar.header().as_deref());
            tokio::spawn(service.call(request))
        });
        for (user, visit) in visits.collect::<Vec<_>>().into_iter().enumerate() {
            let a = if user == 1 { None } else { Some(VALUE) };
            let response = visit.await.unwrap().unwrap();
            assert_eq!(text(response).await, format!("{a:?} {:?}", Some(format!("/{user}"))));
        }
    });
}

// Caches and headers.

/// A way to look at a session, and what it saw.
type Look = fn(&Session) -> String;

#[test]
fn t41_every_way_to_look_at_a_session_sets_vary() {
    let looks: [(&str, Look); 16] = [
        ("session() alone", |_| String::new()),
        ("get", |session| format!("{:?}", session.get::<String>("a"))),
        ("get of another type", |session| format!("{:?}", session.get::<u64>("a"))),
        ("get_str", |session| format!("{:?}", session.get_str("a"))),
        ("get_bytes", |session| format!("{:?}", session.get_bytes("a"))),
        ("get_i64", |session| format!("{:?}", session.get_i64("a"))),
        ("get_bool", |session| format!("{:?}", session.get_bool("a"))),
        ("has", |session| format!("{:?}", session.has("a"))),
        ("keys", |session| format!("{:?}", session.keys())),
        ("is_empty", |session| format!("{:?}", session.is_empty())),
        ("id", |session| format!("{:?}", session.id())),
        ("created_at", |session| format!("{:?}", session.created_at())),
        ("expires_at", |session| format!("{:?}", session.expires_at())),
        ("peek", |session| format!("{:?}", session.peek::<String>("f"))),
        ("flash of nothing", |session| format!("{:?}", session.flash::<String>("f"))),
        ("delete of nothing", |session| format!("{:?}", session.delete("absent"))),
    ];
    on_both(|_, world| async move {
        for jar in [world.jar().await, Jar::new(), Jar::with(NAME, "garbage")] {
            for (name, look) in looks {
                for code in [200, 304, 404, 500] {
                    let request = request("/", jar.header().as_deref());
                    let response = world
                        .send(request, |session| {
                            let mut response = status(code);
                            *response.body_mut() = look(session).into();
                            Ok(response)
                        })
                        .await;
                    let vary: Vec<_> = response.headers().get_all(VARY).iter().collect();
                    assert_eq!(vary, ["Cookie"], "{name}, {code}");
                }
            }
        }
    });
}

/// The response that stands for one that could not be saved was chosen by the session, too.
#[test]
fn t41_the_response_of_the_failure_hook_sets_vary() {
    block_on(async {
        let world = Options::with_cookie(CookieOptions::new().max_chunks(1)).build(Kind::Cookie);
        let handler = service_fn(|request: Request<Body>| async move {
            request.session().await?.set("a", "x".repeat(5_000))?;
            Ok::<_, Error>(status(200))
        });
        let hook = |_: &Error| Response::builder().status(404).body(Body::default()).unwrap();
        let service = SessionService::new(handler, Arc::clone(&world.store)).on_failure(hook);
        let response = service.call(request("/", None)).await.unwrap();
        assert_eq!(response.status(), 404);
        assert_eq!(response.headers().get(VARY).map(HeaderValue::as_bytes), Some(&b"Cookie"[..]));
    });
}

/// Whatever made us set a cookie.
const SETTERS: [Act; 5] = [
    |session| session.set("a", "other"),
    |session| session.set_flash("f", 1),
    Session::regenerate,
    Session::destroy,
    Session::clear,
];

#[test]
fn t43_t44_no_cache_may_keep_a_response_with_our_cookie() {
    let laxer = [
        "public",
        "public, max-age=3600",
        "s-maxage=60",
        "private",
        "max-age=0",
        "no-cache",
        "no-store-x",
        "",
    ];
    let strict = ["no-store", "NO-STORE", "private, no-store", "public, no-store"];
    on_both(|_, world| async move {
        for setter in SETTERS {
            for (given, kept) in
                laxer.map(|given| (given, false)).into_iter().chain(strict.map(|given| (given, true)))
            {
                let jar = world.jar().await;
                let response = world
                    .send(request("/", jar.header().as_deref()), |session| {
                        setter(session)?;
                        Ok(Response::builder().header(CACHE_CONTROL, given).body(Body::default()).unwrap())
                    })
                    .await;
                assert_eq!(set_cookies(response.headers()).len(), 1);
                let fields: Vec<_> = response.headers().get_all(CACHE_CONTROL).iter().collect();
                assert_eq!(fields, [if kept { given } else { "no-store" }], "{given}");
                let told = world.events.take().iter().any(|event| event == "cache_control_replaced");
                assert_eq!(told, !kept, "{given}");
            }
        }
    });
}

#[test]
fn t45_t46_t47_one_line_of_ours_and_all_else_untouched() {
    let given = [
        ("x-first", "1"),
        ("set-cookie", "theme=dark; Path=/"),
        ("set-cookie", "__Host-session=the handler's"),
        ("link", "</a>; rel=preload, </b>"),
        ("set-cookie", "__Host-Session=another name"),
        ("link", "</c>"),
        ("set-cookie", "a=b, c=d"),
        ("vary", "accept"),
    ];
    on_both(|_, world| async move {
        for setter in SETTERS {
            let jar = world.jar().await;
            let response = world
                .send(request("/", jar.header().as_deref()), |session| {
                    setter(session)?;
                    let mut response = status(200);
                    for (name, value) in given {
                        response.headers_mut().append(name, value.parse().unwrap());
                    }
                    Ok(response)
                })
                .await;
            let headers = response.headers();
            let lines = set_cookies(headers);
            assert_eq!(lines[..3], ["theme=dark; Path=/", "__Host-Session=another name", "a=b, c=d"]);
            assert_eq!(lines.len(), 4, "{lines:?}");
            assert!(
                lines[3].starts_with("__Host-session=") && lines[3].contains("; Path=/; Secure; HttpOnly")
            );
            assert!(world.events.take().contains(&"set_cookie_replaced".to_owned()));
            assert_eq!(headers["x-first"], "1");
            assert_eq!(
                headers.get_all("link").iter().collect::<Vec<_>>(),
                ["</a>; rel=preload, </b>", "</c>"]
            );
            assert_eq!(headers.get_all(VARY).iter().collect::<Vec<_>>(), ["accept", "Cookie"]);
            assert_eq!(headers.keys().len(), 5, "{:?}", headers.keys());
        }
    });
}

#[test]
fn t48_secure_is_not_inferred_from_the_request() {
    on_both(|_, world| async move {
        for uri in ["/", "http://example.com/", "https://example.com/", "http://localhost/"] {
            let mut request = request(uri, None);
            request.headers_mut().insert("x-forwarded-proto", "http".parse().unwrap());
            let response = world.send(request, |session| session.set("a", 1).map(|()| status(200))).await;
            let lines = set_cookies(response.headers());
            assert!(lines[0].contains("; Secure;") && lines[0].contains("; HttpOnly;"), "{lines:?}");
        }
    });
}

#[test]
fn t49_statuses_and_methods() {
    on_both(|_, world| async move {
        for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::POST] {
            for code in [100, 101, 103, 199, 200, 204, 205, 206, 304, 404] {
                let send = async |jar: &mut Jar, act: Act| {
                    let mut request = request("/", jar.header().as_deref());
                    *request.method_mut() = method.clone();
                    let response = world.send(request, |session| act(session).map(|()| status(code))).await;
                    jar.store(response.headers());
                    assert_eq!(response.status(), code);
                    set_cookies(response.headers()).len()
                };
                let informational = code < 200;
                let expected = usize::from(!informational);
                let case = format!("{method} {code}");

                // A new session, a changed one, a regenerated one: with the cookie, or not at all.
                let mut jar = Jar::new();
                assert_eq!(send(&mut jar, |session| session.set("a", VALUE)).await, expected, "{case}");
                let told = if informational { vec!["dropped:informational".to_owned()] } else { vec![] };
                assert_eq!(world.events.take(), told, "{case}");
                let mut jar = world.jar().await;
                assert_eq!(send(&mut jar, |session| session.set("a", "changed")).await, expected, "{case}");
                let value = if informational { VALUE } else { "changed" };
                assert_eq!(world.value(&jar).await.as_deref(), Some(value), "{case}");
                assert_eq!(send(&mut jar, Session::regenerate).await, expected, "{case}");
                assert_eq!(
                    world.value(&jar).await.as_deref(),
                    Some(value),
                    "{case}: no client is locked out"
                );
                assert_eq!(send(&mut jar, Session::destroy).await, expected, "{case}");
                assert_eq!(send(&mut Jar::with(NAME, "garbage"), |_| Ok(())).await, expected, "{case}");
                world.events.take();
            }
        }
    });
}

#[test]
fn t49_a_destroy_under_1xx_is_done_in_the_store() {
    block_on(async {
        let rows = Rows::default();
        let world = Options::default().over(&rows);
        let jar = world.jar().await;
        let request = request("/", jar.header().as_deref());
        let response = world.send(request, |session| session.destroy().map(|()| status(101))).await;
        assert_eq!(set_cookies(response.headers()), [""; 0]);
        assert_eq!(rows.ids(), []);
    });
}

// Several cookies of our name.

#[test]
fn t60_t64_the_first_authentic_cookie_wins_and_four_are_tried() {
    on_both(|_, world| async move {
        let good = world.token().await;
        let other = {
            let mut jar = Jar::new();
            world.edit(&mut jar, |session| session.set("a", "the attacker's")).await;
            jar.get(NAME).unwrap().to_owned()
        };
        for before in 0..6 {
            let tossed = format!("{NAME}=tossed; ").repeat(before);
            let (value, response) =
                world.present(format!("{tossed}{NAME}={good}; {NAME}={other}").as_bytes()).await;
            let found = before < 4;
            assert_eq!(value.as_deref(), found.then_some(VALUE), "{before} tossed");
            assert_eq!(set_cookies(response.headers()).len(), usize::from(!found));
            let events = world.events.take();
            assert_eq!(
                events.iter().filter(|event| **event == refused(Refusal::Encoding)).count(),
                before.min(4)
            );
            assert_eq!(events.contains(&"too_many_candidates".to_owned()), before + 2 > 4, "{events:?}");
        }
    });
}

// Chunks.

/// Text that neither repeats nor compresses, different for each `seed`.
fn filler(seed: u64, len: usize) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'a' + (state % 26) as u8)
    };
    (0..len).map(|_| next()).collect()
}

async fn fill(world: &World, jar: &mut Jar, seed: u64, len: usize) -> Response<Body> {
    let value = filler(seed, len);
    world.edit(jar, move |session| session.set("a", &value)).await
}

fn chunk(number: usize) -> String {
    if number == 0 { NAME.to_owned() } else { format!("{NAME}.{number}") }
}

#[test]
fn t69_twenty_kilobytes_go_there_and_back_in_chunks() {
    block_on(async {
        let world = World::new(Kind::Cookie);
        let mut jar = Jar::new();
        let response = fill(&world, &mut jar, 1, 20_000).await;
        assert_eq!(set_cookies(response.headers()).len(), jar.0.len());
        assert_eq!(jar.0.keys().cloned().collect::<Vec<_>>(), (0..7).map(chunk).collect::<Vec<_>>());
        assert!(jar.0.iter().all(|(name, value)| name.len() + value.len() <= MAX_NAME_VALUE));
        assert_eq!(world.value(&jar).await, Some(filler(1, 20_000)));
        // In any order, and in several fields, as HTTP/2 clients send them.
        let mut request = request("/", None);
        for (name, value) in jar.0.iter().rev() {
            request.headers_mut().append(COOKIE, format!("{name}={value}").parse().unwrap());
        }
        let response = world.send(request, |session| {
            assert_eq!(session.get::<String>("a")?, Some(filler(1, 20_000)));
            Ok(status(200))
        });
        assert_eq!(set_cookies(response.await.headers()), [""; 0]);
        assert_eq!(world.events.take(), [""; 0]);
    });
}

#[test]
fn t69_missing_swapped_and_stale_chunks_are_no_session() {
    block_on(async {
        let world = World::new(Kind::Cookie);
        let mut jar = Jar::new();
        fill(&world, &mut jar, 1, 20_000).await;
        let older = jar.clone();
        fill(&world, &mut jar, 2, 20_000).await;
        let count = jar.0.len();
        assert_eq!((count, older.0.len()), (7, 7));

        let mut cases = Vec::new();
        for number in 0..count {
            let name = chunk(number);
            let change = |what: &str, change: &dyn Fn(&mut Jar)| {
                let mut jar = jar.clone();
                change(&mut jar);
                (format!("{what} {number}"), jar)
            };
            let at = |jar: &Jar, name: &str| jar.get(name).unwrap().to_owned();
            cases.push(change("missing", &|jar| drop(jar.0.remove(&name))));
            cases.push(change("empty", &|jar| drop(jar.0.insert(name.clone(), String::new()))));
            cases.push(change("stale", &|jar| drop(jar.0.insert(name.clone(), at(&older, &name)))));
            cases.push(change("cut", &|jar| {
                jar.0.get_mut(&name).unwrap().pop();
            }));
            cases.push(change("longer", &|jar| jar.0.get_mut(&name).unwrap().push('A')));
            for other in number + 1..count {
                let other = chunk(other);
                cases.push(change(&format!("swapped with {other}"), &|jar| {
                    let (one, two) = (at(jar, &name), at(jar, &other));
                    jar.0.extend([(name.clone(), two), (other.clone(), one)]);
                }));
                cases.push(change(&format!("copied to {other}"), &|jar| {
                    let value = at(jar, &name);
                    jar.0.insert(other.clone(), value);
                }));
            }
        }
        for (case, broken) in &cases {
            let (value, response) = world.present(broken.header().unwrap().as_bytes()).await;
            assert_eq!(value, None, "{case}");
            // Removed are the head and the chunks that the client holds.
            let held = broken.0.keys().filter(|name| **name != NAME).count();
            assert_eq!(set_cookies(response.headers()).len(), 1 + held, "{case}");
            let events = world.events.take();
            // Without a head there is no candidate to refuse.
            assert_eq!(events.len(), usize::from(broken.get(NAME).is_some()), "{case}: {events:?}");
        }
        assert_eq!(cases.len(), 7 * 5 + 2 * 21);
        assert_eq!(world.value(&jar).await, Some(filler(2, 20_000)));
        assert_eq!(
            world.value(&older).await,
            Some(filler(1, 20_000)),
            "a whole older version is authentic: see the docs"
        );
    });
}

#[test]
fn t69_names_that_only_look_like_chunks_are_none() {
    block_on(async {
        let world = World::new(Kind::Cookie);
        let mut jar = Jar::new();
        fill(&world, &mut jar, 1, 5_000).await;
        assert_eq!(jar.0.len(), 2);
        let tail = jar.get(&chunk(1)).unwrap().to_owned();
        for lookalike in [".01", ".1 x", ".1.1", "_1", "1", ".8", ".0", ".2", "%2e1", ".%31"] {
            let mut broken = jar.clone();
            broken.0.remove(&chunk(1));
            broken.0.insert(format!("{NAME}{lookalike}"), tail.clone());
            assert_eq!(world.value(&broken).await, None, "{lookalike}");
        }
        assert_eq!(world.value(&jar).await, Some(filler(1, 5_000)));
    });
}

#[test]
fn t69_shrinking_and_ending_remove_the_tail() {
    block_on(async {
        let world = World::new(Kind::Cookie);
        let mut jar = Jar::new();
        for (seed, len, count) in [(1, 20_000, 7), (2, 10_000, 4), (3, 5_000, 2), (4, 15_000, 5), (5, 10, 1)]
        {
            fill(&world, &mut jar, seed, len).await;
            assert_eq!(jar.0.keys().cloned().collect::<Vec<_>>(), (0..count).map(chunk).collect::<Vec<_>>());
            assert_eq!(world.value(&jar).await, Some(filler(seed, len)));
        }
        // A chunk behind the end, left by a client that lost a removal, is not read, and removed with the next cookie.
        jar.0.insert(chunk(3), "stale".to_owned());
        assert_eq!(world.value(&jar).await, Some(filler(5, 10)));
        fill(&world, &mut jar, 6, 10).await;
        assert_eq!(jar.0.len(), 1);
        fill(&world, &mut jar, 7, 20_000).await;
        world.edit(&mut jar, Session::destroy).await;
        assert!(jar.0.is_empty());
    });
}

#[test]
fn t69_every_length_around_a_chunk_boundary_goes_there_and_back() {
    block_on(async {
        let world = World::new(Kind::Cookie);
        let mut jar = Jar::new();
        let mut counts = std::collections::BTreeSet::new();
        // Four thirds of these cross from one cookie to two, and from two to three.
        for len in (2_930..2_970).chain(5_995..6_050) {
            fill(&world, &mut jar, len as u64, len).await;
            assert_eq!(world.value(&jar).await, Some(filler(len as u64, len)), "{len}");
            counts.insert(jar.0.len());
        }
        assert_eq!(counts.into_iter().collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(world.events.take(), [""; 0]);
    });
}

#[test]
fn t69_over_the_limit_is_a_typed_error_and_the_old_cookie_goes_on() {
    for chunks in [1, 2, MAX_CHUNKS] {
        block_on(async {
            let world = Options::with_cookie(CookieOptions::new().max_chunks(chunks)).build(Kind::Cookie);
            let mut jar = world.jar().await;
            let before = jar.clone();
            let limit = usize::from(chunks) * MAX_NAME_VALUE;
            let value = filler(1, limit);
            let service = service_fn(|request: Request<Body>| {
                let value = value.clone();
                async move {
                    let session = request.session().await?;
                    session.set("b", &value)?;
                    let error = session.save().await.unwrap_err();
                    assert!(error.is_too_large() && !error.is_transient());
                    let (size, told) = error.size_and_limit().unwrap();
                    assert_eq!(told, limit);
                    // Base64 of the value, the rest of the session, and the names.
                    assert!((limit * 4 / 3..limit * 4 / 3 + 500).contains(&size), "{size}");
                    Ok::<_, Error>(status(200))
                }
            });
            let service = SessionService::new(service, Arc::clone(&world.store));
            let response = support::visit(&service, "/", &mut jar).await;
            assert_eq!(response.status(), 503);
            assert_eq!(set_cookies(response.headers()), [""; 0]);
            assert_eq!(jar.0, before.0);
            assert_eq!(world.value(&jar).await.as_deref(), Some(VALUE));
        });
    }
}

// What leaks.

#[test]
fn t06_t74_no_row_and_no_command_holds_what_a_client_holds() {
    block_on(async {
        let rows = Rows::default();
        let world = Options::default().over(&rows);
        let token = world.token().await;
        let secret = BASE64.decode(&token).unwrap();
        let (id, value) = rows.with(|table| {
            assert!(table.fetched.iter().all(|id| table.rows.contains_key(id)));
            table.rows.iter().next().map(|(id, stored)| (*id, stored.value.clone())).unwrap()
        });
        let contains =
            |haystack: &[u8], needle: &[u8]| haystack.windows(needle.len()).any(|window| window == needle);
        for part in secret.chunks(8) {
            assert!(!contains(&value, part) && !contains(&id.to_bytes(), part));
        }
        assert!(!contains(&value, token.as_bytes()));
        // Whoever dumps the rows is not logged in by anything in them.
        let dumped = [
            BASE64.encode(id.to_bytes()),
            id.to_string(),
            BASE64.encode(&value),
            BASE64.encode([&value, &value[..4]].concat()),
        ];
        for stolen in dumped
            .iter()
            .map(String::as_str)
            .chain([&*BASE64.encode([id.to_bytes(), id.to_bytes()].concat())])
        {
            assert_eq!(world.value(&Jar::with(NAME, stolen)).await, None);
        }
    });
}

#[test]
fn t76_a_row_holds_what_was_set_and_nothing_of_the_request() {
    block_on(async {
        let rows = Rows::default();
        let world = Options::default().over(&rows);
        let mut request = request("/secret-path?secret-query", Some("other=secret-cookie"));
        for name in ["authorization", "user-agent", "x-forwarded-for", "referer"] {
            request.headers_mut().insert(name, "secret-header".parse().unwrap());
        }
        world.send(request, |session| session.set("a", "b").map(|()| status(200))).await;
        // Version, when it began, and the map {"a": "b"}.
        let expected = [&[1][..], &START.to_be_bytes(), b"\x81\xa1a\xa1b"].concat();
        assert_eq!(rows.only_value(), expected);
    });
}

/// Everything that can be printed, printed.
#[test]
fn t75_t77_nothing_that_is_printed_shows_a_key_a_token_or_a_value() {
    let key = AppKey::generate().unwrap();
    let key_text = key.to_text().to_string();
    let key_bytes = BASE64.decode(&key_text["hsk1_".len()..]).unwrap();
    let printed =
        Arc::new(Mutex::new(vec![format!("{key:?} {:?}", Keyring::new(key_text.parse().unwrap()))]));
    let print = |text: String| printed.lock().unwrap().push(text);
    let sink = Arc::clone(&printed);
    let observer = move |event: &Event<'_>| sink.lock().unwrap().push(format!("{event:?}"));
    let mut secrets =
        vec![VALUE.to_owned(), key_text["hsk1_".len()..].to_owned(), format!("{:?}", &key_bytes[..4])];

    block_on(async {
        let rows = Rows::default();
        let sealed = CookieStore::builder(key).observer(observer.clone());
        print(format!("{sealed:?}"));
        let sealed = sealed.build().unwrap();
        let server = ServerStore::with_backend(rows.clone()).observer(observer).build().unwrap();
        print(format!("{sealed:?} {server:?} {sealed:#?} {server:#?} {:?}", server.config()));
        let stores: [Arc<dyn Store>; 2] = [Arc::new(sealed), Arc::new(server)];
        for store in stores {
            let mut jar = Jar::new();
            for _ in 0..2 {
                let sink = Arc::clone(&printed);
                let handler = move |request: Request<Body>, handle: SessionHandle| {
                    let sink = Arc::clone(&sink);
                    async move {
                        let session = handle.load().await?;
                        session.set("a", VALUE)?;
                        session.set_flash("f", VALUE)?;
                        let error = session.get::<u64>("a").unwrap_err();
                        let printed = format!(
                            "{handle:?} {session:?} {session:#?} {error} {error:?} {:?}",
                            session.id()
                        );
                        sink.lock().unwrap().extend([printed, format!("{:?}", request.extensions())]);
                        session.save().await?;
                        Ok::<_, Error>(status(200))
                    }
                };
                let service = session_fn(Arc::clone(&store), handler);
                print(format!("{service:?}"));
                let response = support::visit(&service, "/", &mut jar).await;
                print(format!("{:?}", response.headers()));
            }
            // Refusals tell why, and not what.
            let token = jar.get(NAME).unwrap().to_owned();
            let handler = service_fn(|request: Request<Body>| async move {
                request.session().await.map(|session| Response::new(Body::from(format!("{session:?}"))))
            });
            let service = SessionService::new(handler, store);
            let mut altered = Jar::with(NAME, &format!("{token}AAAA"));
            print(format!("{:?}", support::visit(&service, "/", &mut altered).await));
            let decoded = BASE64.decode(&token).unwrap();
            secrets.extend([token[..16].to_owned(), token[token.len() - 16..].to_owned()]);
            secrets.push(format!("{:?}", &decoded[decoded.len() - 8..]));
        }
        rows.with(|table| print(format!("{:?}", table.rows)));
    });

    let printed = printed.lock().unwrap();
    assert!(printed.len() > 12 && printed.iter().any(|line| line.contains("Refused")), "{printed:?}");
    for secret in &secrets {
        let secret = secret.trim_matches(['[', ']']);
        for line in printed.iter() {
            assert!(!line.contains(secret), "{secret} in {line}");
        }
    }
    assert_eq!(secrets.len(), 9);
}
