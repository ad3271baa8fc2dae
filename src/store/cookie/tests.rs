//! Sealed tokens: deadlines to the second, hostile contents under a good key, and no token without randomness.

use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::clock::{Clock, TestClock};
use crate::crypto::{AppKey, CountingRandom, NoRandom};
use crate::join::tests::run;

const IDLE: u64 = 100;
const ABSOLUTE: u64 = 1_000;
const START: u64 = 1_000_000;

fn key() -> AppKey {
    AppKey::danger_from_any_bytes(b"a key for tests").unwrap()
}

fn builder() -> Builder<CookieKeys> {
    CookieStore::builder(key())
        .idle_timeout(Duration::from_secs(IDLE))
        .absolute_timeout(Duration::from_secs(ABSOLUTE))
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_unix(seconds)
}

fn payload() -> Payload {
    Payload::parse(Bytes::from_static(b"\x81\xa1a\x01")).unwrap()
}

/// The token of a session that began at `created` and was last used at `issued`.
fn token(store: &CookieStore, created: u64, issued: u64) -> Bytes {
    let id = SessionId::from_bytes([7; 16]);
    match store.inner.seal(id, at(created), payload(), None, at(issued)).unwrap() {
        Saved::Stored { token, .. } => Bytes::copy_from_slice(token.expose()),
        other => panic!("{other:?}"),
    }
}

fn opened(store: &CookieStore, token: &[u8], now: u64) -> Result<Timestamp, Refusal> {
    store.inner.open(token, at(now)).map(|record| record.expires())
}

/// A token that is authentic, whatever its contents.
fn authentic(plaintext: &[u8]) -> String {
    authentic_at(START, plaintext)
}

/// The same as [`authentic`], sealed in the hour of this moment.
fn authentic_at(issued: u64, plaintext: &[u8]) -> String {
    let sealer =
        Sealer::new(&key().into(), Purpose::Session, "__Host-session", Arc::new(SystemRandom)).unwrap();
    sealer.seal(at(issued), &[plaintext]).unwrap()
}

fn header(created: u64, issued: u64, expires: u64) -> Vec<u8> {
    let id = SessionId::from_bytes([7; 16]);
    SealedHeader::new(id, at(created), Recency::at(at(issued)), at(expires)).to_bytes().to_vec()
}

#[test]
fn t69_the_longest_token_is_opened_and_no_longer_one_is_decoded() {
    let store = builder().build().unwrap();
    let longest = store.inner.config.cookie.longest_token();
    let plaintext = |len: usize| vec![0; len * 3 / 4 - 69]; // the envelope's overhead
    let tokens = [longest, longest + 1].map(|len| authentic(&plaintext(len)));
    assert_eq!(tokens.each_ref().map(String::len), [longest, longest + 1]);
    // Authentic, and expired in the second in which it was issued. The other one is not looked at.
    assert_eq!(opened(&store, tokens[0].as_bytes(), START), Err(Refusal::Expired));
    assert_eq!(opened(&store, tokens[1].as_bytes(), START), Err(Refusal::Length));
    assert_eq!(opened(&store, &vec![b'A'; 2 * longest], START), Err(Refusal::Length));
}

#[test]
fn what_fits_in_the_cookies_is_sealed_and_a_byte_more_is_not() {
    let store = builder().build().unwrap();
    let mut fits = 0;
    let sealed = |len: usize| {
        let bytes =
            [&b"\x81\xa1a\xc5"[..], &u16::try_from(len).unwrap().to_be_bytes(), &vec![0; len]].concat();
        let payload = Payload::parse(Bytes::from(bytes)).unwrap();
        store.inner.seal(SessionId::from_bytes([7; 16]), at(START), payload, None, at(START))
    };
    // Three cookies of 4096 bytes; 69 bytes of envelope, 26 of header, 6 of map around the value.
    for len in 9_060..9_120 {
        match sealed(len) {
            Ok(Saved::Stored { token, .. }) => fits = fits.max(token.expose().len()),
            Ok(other) => panic!("{other:?}"),
            Err(error) => assert!(error.is_too_large()),
        }
    }
    let room = 3 * 4096 - "__Host-session".len() - "__Host-session.1__Host-session.2".len();
    assert_eq!(fits, room, "the largest that fits");
    assert!(sealed(60_000).is_err());
}

// T18, T20, T22: at t-1 the session is there, at t it has expired.
#[test]
fn t18_t22_idle_and_absolute_deadline_to_the_second() {
    let store = builder().build().unwrap();
    let idle = token(&store, START, START);
    assert_eq!(opened(&store, &idle, START + IDLE - 1), Ok(at(START + IDLE)));
    assert_eq!(opened(&store, &idle, START + IDLE), Err(Refusal::Expired));
    assert_eq!(opened(&store, &idle, START + IDLE + 1), Err(Refusal::Expired));

    let busy = token(&store, START, START + ABSOLUTE - 10);
    assert_eq!(opened(&store, &busy, START + ABSOLUTE - 1), Ok(at(START + ABSOLUTE)));
    assert_eq!(opened(&store, &busy, START + ABSOLUTE), Err(Refusal::Expired));
    assert_eq!(opened(&store, &busy, START + ABSOLUTE + 1), Err(Refusal::Expired));
}

#[test]
fn t24_issued_in_the_future_is_refused_beyond_the_skew() {
    let store = builder().build().unwrap();
    let ahead = token(&store, START + 60, START + 60);
    assert!(opened(&store, &ahead, START).is_ok(), "sixty seconds are no more than clocks differ");
    let ahead = token(&store, START + 61, START + 61);
    assert_eq!(opened(&store, &ahead, START), Err(Refusal::IssuedInFuture));
    // A clock that is set back an hour refuses tokens that were issued before.
    let token = token(&store, START, START);
    assert_eq!(opened(&store, &token, START - 3_600), Err(Refusal::IssuedInFuture));
}

#[test]
fn a_shorter_timeout_holds_at_once_and_a_longer_one_revives_nothing() {
    let (long, short) =
        (builder().idle_timeout(Duration::from_secs(500)).build().unwrap(), builder().build().unwrap());
    let sealed_long = token(&long, START, START);
    assert_eq!(opened(&short, &sealed_long, START + IDLE), Err(Refusal::Expired));
    let sealed_short = token(&short, START, START);
    assert_eq!(opened(&long, &sealed_short, START + IDLE), Err(Refusal::Expired));
}

// T23: the ends of time neither overflow nor open.
#[test]
fn t23_extreme_times_saturate() {
    let store = builder().build().unwrap();
    for (created, issued, expires) in
        [(0, 0, u64::MAX), (u64::MAX, 0, u64::MAX), (0, u64::MAX, u64::MAX), (u64::MAX, START, 0)]
    {
        let plaintext = [header(created, issued, expires), b"\x81\xa1a\x01".to_vec()].concat();
        let token = authentic_at(issued, &plaintext);
        for now in [0, START, u64::MAX - 1, u64::MAX] {
            let _ = opened(&store, token.as_bytes(), now); // must not panic
        }
        assert!(opened(&store, token.as_bytes(), START).is_err(), "{created} {issued} {expires}");
    }
}

// T33, T65, T66, T67: an authentic token is decoded with as little trust as any.
#[test]
fn t33_t65_t66_hostile_contents_under_a_good_key() {
    let store = builder().build().unwrap();
    let head = header(START, START, START + IDLE);
    let open = |payload: &[u8]| opened(&store, authentic(&[&head, payload].concat()).as_bytes(), START);
    assert!(open(b"\x81\xa1a\x01").is_ok());
    assert!(open(b"{\"a\":1}").is_ok(), "JSON is read, too");
    let deep = [b"\x81\xa1a".to_vec(), vec![0x91; 10_000], vec![0xc0]].concat();
    // Without a payload it is a tombstone.
    assert_eq!(open(b""), Err(Refusal::Ended));
    let bad: [&[u8]; 8] = [
        b"{}",
        b"\x80",
        b"\x81\xa1a",
        b"\x81\xa1a\x01\x01",
        b"\xdf\xff\xff\xff\xff",
        b"\x81\xa1a\xdb\xff\xff\xff\xff",
        &deep,
        b"{\"a\":",
    ];
    for payload in bad {
        assert_eq!(
            open(payload),
            Err(Refusal::Payload),
            "{}",
            payload.get(..20.min(payload.len())).unwrap().escape_ascii()
        );
    }
    for cut in 0..head.len() {
        let token = authentic(&head[..cut]);
        assert_eq!(opened(&store, token.as_bytes(), START), Err(Refusal::Payload), "{cut}");
    }
}

// T14: without random bytes there is an error, and no token.
#[test]
fn t14_no_random_no_session() {
    let good = builder().build().unwrap();
    let store = builder().random(Arc::new(NoRandom)).build().unwrap();
    let record = good.inner.open(&token(&good, START, START), at(START)).unwrap();
    let changes = Changes::default();
    assert!(store.inner.save(Some(&record), &changes, at(START)).unwrap_err().is_random());
    assert!(store.inner.regenerate(&record, &changes, at(START)).unwrap_err().is_random());
}

#[test]
fn json_is_written_where_it_is_asked_for() {
    use crate::session::PayloadFormat;
    let json = builder().payload_format(PayloadFormat::Json).build().unwrap();
    let text = token(&json, START, START);
    let sealer =
        Sealer::new(&key().into(), Purpose::Session, "__Host-session", Arc::new(SystemRandom)).unwrap();
    let plaintext = sealer.open(&text).unwrap().into_plaintext();
    assert_eq!(&plaintext[SealedHeader::LEN..], b"{\"a\":1}");
    assert!(opened(&builder().build().unwrap(), &text, START).is_ok());
}

// Everything beside the payload: what a token costs.
#[test]
fn a_token_has_127_characters_beside_its_payload() {
    let store = builder().build().unwrap();
    let payload = payload();
    let token = token(&store, START, START);
    assert_eq!(
        token.len(),
        ((payload.to_format(store.inner.config.settings.format).unwrap().len() + 95) * 4).div_ceil(3)
    );
    assert_eq!(Sealer::token_len(SealedHeader::LEN), 127);
}

fn stored(saved: Saved) -> (Record, Vec<u8>) {
    match saved {
        Saved::Stored { record, token, .. } => (record, token.expose().to_vec()),
        other => panic!("{other:?}"),
    }
}

// Of several tokens the newest counts, so a token that was made from another must be newer: also in the same second,
// and on a host whose clock is behind.
#[test]
fn a_token_is_newer_than_the_one_that_it_replaces() {
    let store = builder().build().unwrap();
    let changes = Changes::default();
    let (mut record, _) = stored(
        store.inner.seal(SessionId::from_bytes([7; 16]), at(START), payload(), None, at(START)).unwrap(),
    );
    for now in [START, START, START - 59, START + 1, START + 1, START] {
        let (next, token) = stored(store.inner.save(Some(&record), &changes, at(now)).unwrap());
        assert!(next.recency() > record.recency(), "{now}");
        let read = store.inner.open(&token, at(now)).unwrap();
        assert_eq!(
            (read.recency(), read.created(), read.expires()),
            (next.recency(), next.created(), next.expires())
        );
        let (new, _) = stored(store.inner.regenerate(&record, &changes, at(now)).unwrap());
        assert!(new.recency() > record.recency(), "{now}");
        record = next;
    }
}

#[test]
fn a_tombstone_is_newer_than_what_it_hides_and_lasts_as_long() {
    let store = builder().build().unwrap();
    let open = |token: &[u8]| store.inner.open(token, at(START + 5)).unwrap();
    let (older, newer) = (open(&token(&store, START, START)), open(&token(&store, START, START + 5)));
    let sessions = [newer.clone(), older.clone()];
    let (text, lifetime) = store.tombstone(&sessions, at(START + 5)).unwrap().unwrap();
    assert_eq!(lifetime, newer.expires().saturating_since(at(START + 5)));
    assert_eq!(opened(&store, text.expose(), START + 5), Err(Refusal::Ended));
    assert!(store.hidden_by(text.expose(), at(START + 5)).unwrap() > newer.recency());
    // The sessions that it hides have expired by then.
    assert_eq!(opened(&store, text.expose(), newer.expires().as_unix()), Err(Refusal::Expired));
    assert_eq!(store.hidden_by(text.expose(), newer.expires()), None);
    // A session hides nothing.
    assert_eq!(store.hidden_by(&token(&store, START, START), at(START)), None);
}

#[test]
fn the_machines_clock_is_the_default() {
    let store = builder().build().unwrap();
    let now = crate::clock::SystemClock.now();
    assert!(store.config().now().saturating_since(now) < Duration::from_secs(60));
}

// aws-lc gathers entropy for 22 to 53 ms before its first random number: not in a request.
#[test]
fn the_first_random_number_is_drawn_while_the_store_is_built() {
    let random = Arc::new(CountingRandom::default());
    CookieStore::builder(AppKey::generate().unwrap()).random(random.clone()).build().unwrap();
    assert!(random.calls() > 0);
}

/// Counts up, so that what is written is the same each time.
#[derive(Default)]
struct Sequence(std::sync::atomic::AtomicU64);

impl Random for Sequence {
    fn fill(&self, out: &mut [u8]) -> Result<(), Error> {
        for byte in out {
            *byte = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_le_bytes()[0];
        }
        Ok(())
    }
}

/// A clock that stands still, and counts how often it is read.
struct Stopped {
    seconds: u64,
    reads: Arc<std::sync::atomic::AtomicU64>,
}

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        self.reads.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        at(self.seconds)
    }
}

/// A request to a store without revocations, with fixed random bytes. Returns the new token, the random bytes that it drew, and
/// how often it read the clock.
fn visit_without_revocations(
    token: Option<&str>,
    now: u64,
    act: fn(&crate::Session) -> Result<(), Error>,
) -> (Option<String>, u64, u64) {
    use std::sync::atomic::Ordering::Relaxed;

    use hyper::service::Service;

    let (random, reads) = (Arc::new(Sequence::default()), Arc::new(std::sync::atomic::AtomicU64::new(0)));
    let clock = Stopped { seconds: now, reads: Arc::clone(&reads) };
    let store = builder().clock(clock).random(random.clone()).build().unwrap();
    let drawn = random.0.load(Relaxed);
    reads.store(0, Relaxed);
    let service =
        crate::session_fn(store, move |_: http::Request<()>, handle: crate::SessionHandle| async move {
            act(&handle.load().await?)?;
            Ok::<_, Error>(http::Response::new(()))
        });
    let mut request = http::Request::new(());
    if let Some(token) = token {
        let cookie = format!("__Host-session={token}").parse().unwrap();
        request.headers_mut().insert(http::header::COOKIE, cookie);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let response = runtime.block_on(service.call(request)).unwrap();
    let line = response.headers().get(http::header::SET_COOKIE).map(|line| line.to_str().unwrap());
    let token = line.map(|line| line.split(['=', ';']).nth(1).unwrap().to_owned());
    (token, random.0.load(Relaxed) - drawn, reads.load(Relaxed))
}

// The option is not paid for where it is off: the same bytes, no random number and no reading of the clock more.
#[test]
fn without_revocations_each_request_writes_the_recorded_bytes() {
    // The action, the token that it writes, the random bytes that it draws, and how often it reads the clock.
    type Step = (u64, fn(&crate::Session) -> Result<(), Error>, Option<&'static str>, u64, u64);
    let steps: [Step; 6] = [
        (
            START,
            |session| session.set("a", 1),
            Some(
                "AaKFffsAAAEVERITFBUWFxgZGhschHkH-ewzGTJAY3LUcOI95CVtGhqwSijZHSqK6HIjPHFAJ9tGe6FYjepFrXLDqNwqX40Mlu-ksqAUXsdj6yJ5e0Yr43vPByZTVar7BvvW",
            ),
            28,
            3,
        ),
        (
            START + 1,
            |session| session.login("ada"),
            Some(
                "AaKFffsAAAEVERITFBUWFxgZGhschHkH-ewzGTJAY3LUcOI95CV9GhqwSijZHSqI6xJDKJ_8hqURQMLc5Bitxz032J9Tsqpc_6X5eVEUlldWlSGX-ejfvIBwRE1Mc7bpfhxG9rc5GTXxhhW948kfLYpa",
            ),
            28,
            4, // also for the stamp of the login
        ),
        (
            START + 2,
            crate::Session::regenerate,
            Some(
                "AaKFffsAAAEVERITFBUWFxgZGhschHkH-ewzGTJAY3LUcOI95CVNGhqwSyjZHSqI6xJDKJ_8hqURQMLc5Bitxz03OfyFFH1FbUhQxisIqbMd1uFIukfdUoGpowv6s8TtN9gVomf6nUWK-xwN7VWhDoLF",
            ),
            28,
            3,
        ),
        (START + 3, |_| Ok(()), None, 0, 2),
        (
            START + 50,
            |_| Ok(()),
            Some(
                "AaKFffsAAAEVAQIDBAUGBwgJCgsMMD-z4YedwG1e4uIDHzHat1YwRIS-4peQ2kZeRdahI4atFCFvazVQoxAmdBEoIkbyDijNovZ_a1Z18qPxTi-LNcFC5OV5RZXruA0xioqDTfqyYXqGWgV3zjRM7wlW",
            ),
            12,
            3,
        ),
        (START + 51, crate::Session::destroy, Some(""), 0, 2),
    ];
    let mut present: Option<String> = None;
    for (now, act, expected, draws, reads) in steps {
        let (token, drawn, read) = visit_without_revocations(present.as_deref(), now, act);
        assert_eq!((token.as_deref(), drawn, read), (expected, draws, reads), "at {now}");
        present = token.or(present);
    }
}

/// Does this in a request with this token, and returns the token of the response.
fn visit(store: &CookieStore, token: &str, act: fn(&crate::Session) -> Result<(), Error>) -> String {
    use hyper::service::Service;

    let service = crate::session_fn(
        store.clone(),
        move |_: http::Request<()>, handle: crate::SessionHandle| async move {
            act(&handle.load().await?)?;
            Ok::<_, Error>(http::Response::new(()))
        },
    );
    let request = http::Request::builder().header(http::header::COOKIE, format!("__Host-session={token}"));
    let response = run(service.call(request.body(()).unwrap())).unwrap();
    let line = response.headers()[http::header::SET_COOKIE].to_str().unwrap();
    line.split(['=', ';']).nth(1).unwrap().to_owned()
}

/// A handler that ends its session and sets values ends the sessions of its other cookies first. If the new session then fails, its own
/// must be as it was, although a token of it from before came in another cookie.
#[test]
fn an_old_token_does_not_end_the_session_to_leave() {
    let store = builder().clock(TestClock::at(START)).revocations(Revocations::in_memory()).build().unwrap();
    let login = || visit(&store, "", |session| session.login("ada"));
    let (old, other) = (login(), login());
    let new = visit(&store, &old, crate::Session::regenerate);
    let loaded = |token: &str| run(store.load(token.as_bytes(), at(START))).unwrap();
    let (new_record, other) = (loaded(&new).unwrap(), loaded(&other).unwrap());
    let old = old.as_bytes();
    run(store.end_unusable(old, Some(&new_record), at(START))).unwrap();
    run(store.end_superseded(old, Some(&new_record), EndedBy::Logout, at(START))).unwrap();
    assert!(loaded(&new).is_ok());
    run(store.end_unusable(old, Some(&other), at(START))).unwrap();
    assert_eq!(loaded(&new).unwrap_err(), Refusal::Revoked);
}
