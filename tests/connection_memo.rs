//! The memo of a connection's last cookie: nothing but the time that a request takes may tell whether there is one.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::doc_markdown
)]

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response};
use hyper::service::{Service, service_fn};
use hyper_session::__internals::MAX_CHUNKS;
use hyper_session::cookie::CookieOptions;
use hyper_session::testing::FakeClock;
use hyper_session::{
    AppKey, Clock, CookieStore, Error, Keyring, PayloadFormat, Session, SessionExt, SessionService,
};
use proptest::prelude::*;
use support::{Answer, Body, Events, Jar, block_on, set_cookies, text, visit};

const START: u64 = 1_700_000_000;
const IDLE: u64 = 1_000;
const NAME: &str = "__Host-session";

fn key(byte: u8) -> AppKey {
    let bytes: [u8; 32] =
        std::array::from_fn(|at| (at as u8).wrapping_mul(151).rotate_left(at as u32) ^ byte.wrapping_mul(91));
    AppKey::from_bytes(&bytes).unwrap()
}

/// Acts on the session by the path of the request; the answer is all that the handler saw.
fn act(session: &Session, path: &str) -> Answer {
    let seen = format!(
        "{:?} {:?} {:?} {:?} {:?} {:?}",
        session.id(),
        session.created_at(),
        session.expires_at(),
        session.get::<u64>("n")?,
        session.get::<Option<f64>>("odd")?,
        session.get_str("large")?.map(|text| text.len()),
    );
    match path {
        "/count" => drop(session.update("n", |n: Option<u64>| n.unwrap_or(0) + 1)?),
        "/large" => session.set("large", "x".repeat(5_000))?,
        "/small" => drop(session.delete("large")?),
        "/odd" => session.set("odd", f64::NAN)?, // JSON has no form for it
        "/regenerate" => session.regenerate()?,
        "/destroy" => session.destroy()?,
        _ => {}
    }
    Ok(Response::new(Body::from(seen)))
}

/// A service of one connection, and what its store told.
fn connection(
    keys: Keyring,
    clock: &FakeClock,
    format: PayloadFormat,
    memo: bool,
) -> (impl Service<Request<Body>, Response = Response<Body>, Error = Error, Future: Send> + Clone, Events) {
    let events = Events::new();
    let store = CookieStore::builder(keys)
        .cookie(CookieOptions::new().max_chunks(MAX_CHUNKS))
        .idle_timeout(Duration::from_secs(IDLE))
        .absolute_timeout(Duration::from_secs(5 * IDLE))
        .payload_format(format)
        .clock(clock.clone())
        .observer(events.clone())
        .connection_memo(memo)
        .build()
        .unwrap();
    let handler =
        service_fn(
            |request: Request<Body>| async move { act(&request.session().await?, request.uri().path()) },
        );
    (SessionService::new(handler, store), events)
}

fn body(response: Response<Body>) -> String {
    block_on(text(response))
}

/// The fields of a response that a browser acts on, without their random parts.
fn told(response: &Response<Body>) -> String {
    let lines = set_cookies(response.headers());
    let attributes = lines.iter().map(|line| {
        let (name, value) = line.split_once('=').unwrap();
        let (token, attributes) = value.split_once(';').unwrap();
        format!("{name} {} {attributes}", token.len())
    });
    let plain = |name| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    format!(
        "{} {:?} {:?} {:?}",
        response.status(),
        attributes.collect::<Vec<_>>(),
        plain("vary"),
        plain("cache-control")
    )
}

#[derive(Clone, Debug)]
enum Cookie {
    /// The cookie that the last response set, or an earlier one.
    Kept(usize),
    /// With one character changed.
    Altered(usize, usize),
    /// Another one before it: the first authentic one counts.
    After(usize, usize),
    None,
}

#[derive(Clone, Debug)]
enum Step {
    Request(&'static str, Cookie),
    Wait(i64),
}

fn step() -> impl Strategy<Value = Step> {
    let cookie = prop_oneof![
        8 => prop_oneof![4 => Just(0_usize), 1 => 0..4_usize].prop_map(Cookie::Kept),
        2 => (0..4_usize, 0..600_usize).prop_map(|(which, at)| Cookie::Altered(which, at)),
        1 => (0..4_usize, 0..4_usize).prop_map(|(one, other)| Cookie::After(one, other)),
        1 => Just(Cookie::None),
    ];
    let path = prop_oneof![
        6 => Just("/read"),
        4 => Just("/count"),
        1 => Just("/large"),
        1 => Just("/small"),
        1 => Just("/odd"),
        1 => Just("/regenerate"),
        1 => Just("/destroy"),
    ];
    let wait = prop_oneof![3 => 0..50_i64, 2 => 400..600_i64, 1 => 990..1_010_i64, 1 => -1_000..0_i64];
    prop_oneof![5 => (path, cookie).prop_map(|(path, cookie)| Step::Request(path, cookie)), 1 => wait.prop_map(Step::Wait)]
}

/// The `Cookie` header of a step, from the jars so far, the newest first.
fn header(cookie: &Cookie, jars: &[Jar]) -> Option<String> {
    let jar = |which: usize| jars.iter().rev().nth(which).and_then(Jar::header);
    match cookie {
        Cookie::Kept(which) => jar(*which),
        Cookie::Altered(which, at) => jar(*which).map(|header| {
            let start = NAME.len() + 1;
            let at = start + at % (header.len() - start);
            let altered = header.char_indices().map(|(index, old)| match (index == at, old) {
                (true, 'A') => 'B',
                (true, _) => 'A',
                (false, old) => old,
            });
            altered.collect()
        }),
        Cookie::After(one, other) => {
            let both: Vec<_> = [jar(*one), jar(*other)].into_iter().flatten().collect();
            (!both.is_empty()).then(|| both.join("; "))
        }
        Cookie::None => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_memo_changes_nothing_that_can_be_seen(steps in proptest::collection::vec(step(), 1..40), json: bool) {
        let clock = FakeClock::at(START);
        let format = if json { PayloadFormat::Json } else { PayloadFormat::MessagePack };
        // Some cookies were sealed with a key that no longer seals.
        let (before, _) = connection(key(1).into(), &clock, format, false);
        let ring = || Keyring::new(key(2)).accept(key(1));
        let (with, events_with) = connection(ring(), &clock, format, true);
        let (without, events_without) = connection(ring(), &clock, format, false);
        let mut old = Jar::new();
        block_on(visit(&before, "/count", &mut old));
        let mut jars = vec![old];
        for step in steps {
            match step {
                Step::Wait(seconds) => clock.set(clock.now().as_unix().saturating_add_signed(seconds)),
                Step::Request(path, cookie) => {
                    let cookie = header(&cookie, &jars);
                    let request = || support::request(path, cookie.as_deref());
                    let one = block_on(with.call(request())).unwrap();
                    let other = block_on(without.call(request())).unwrap();
                    prop_assert_eq!(told(&one), told(&other), "{} {:?}", path, &cookie);
                    prop_assert_eq!(events_with.take(), events_without.take());
                    let mut jar = Jar::new();
                    jar.store(one.headers());
                    if jar.header().is_some() {
                        jars.push(jar);
                    }
                    prop_assert_eq!(body(one), body(other), "{} {:?}", path, cookie);
                }
            }
        }
    }
}

// T20, T22: a deadline holds for a cookie that was just looked at, too, to the second.
#[test]
fn t20_a_known_cookie_is_over_when_its_deadline_says() {
    let clock = FakeClock::at(START);
    let (service, events) = connection(key(1).into(), &clock, PayloadFormat::MessagePack, true);
    let mut jar = Jar::new();
    block_on(visit(&service, "/count", &mut jar));
    let read = |jar: &Jar| body(block_on(visit(&service, "/read", &mut jar.clone())));
    for _ in 0..3 {
        assert!(read(&jar).contains("Some(1)"));
    }
    // Nothing is read in between: that would renew it, and the connection would know the newer one.
    clock.advance(Duration::from_secs(IDLE));
    assert!(events.take().is_empty());
    assert!(!read(&jar).contains("Some(1)"));
    assert_eq!(events.take(), ["refused:expired"]);
}

// T03: whatever bit of a known cookie is changed, it is no longer the known one.
#[test]
fn t03_no_spelling_of_a_known_cookie_is_taken_for_it() {
    let clock = FakeClock::at(START);
    let (service, _) = connection(key(1).into(), &clock, PayloadFormat::MessagePack, true);
    let mut jar = Jar::new();
    block_on(visit(&service, "/count", &mut jar));
    let token = jar.get(NAME).unwrap().to_owned();
    let read = |token: &str| {
        // A connection that gave up looks at nothing but signatures: each spelling meets a fresh one that knows the cookie.
        let connection = service.clone();
        let see = |token: &str| body(block_on(visit(&connection, "/read", &mut Jar::with(NAME, token))));
        assert!(see(jar.get(NAME).unwrap()).contains("Some(1)"));
        see(token)
    };
    assert!(read(&token).contains("Some(1)"));
    for at in 0..token.len() {
        let mut altered = token.clone().into_bytes();
        altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
        assert!(!read(std::str::from_utf8(&altered).unwrap()).contains("Some(1)"), "{at}");
        assert!(!read(&token[..at]).contains("Some(1)"), "{at}");
    }
    for longer in [format!("{token}A"), format!("{token}="), format!("A{token}"), format!("{token}{token}")] {
        assert!(!read(&longer).contains("Some(1)"));
    }
}

// T24: a clock that is set back does not make a token from the future one of the past.
#[test]
fn t24_a_clock_that_is_set_back_is_noticed() {
    let clock = FakeClock::at(START);
    let (service, events) = connection(key(1).into(), &clock, PayloadFormat::MessagePack, true);
    let mut jar = Jar::new();
    block_on(visit(&service, "/count", &mut jar));
    block_on(visit(&service, "/read", &mut jar));
    clock.set(START - 86_400);
    let seen = body(block_on(visit(&service, "/read", &mut jar)));
    assert!(!seen.contains("Some(1)"), "{seen}");
    assert_eq!(events.take().len(), 1);
}

/// Requests of one connection at once, as HTTP/2 sends them: each sees its own session.
#[test]
fn requests_at_once_do_not_see_each_other() {
    let clock = FakeClock::at(START);
    let (service, _) = connection(key(1).into(), &clock, PayloadFormat::MessagePack, true);
    let jars: Vec<Jar> = (0..8)
        .map(|visits| {
            let mut jar = Jar::new();
            (0..=visits).for_each(|_| drop(block_on(visit(&service, "/count", &mut jar))));
            jar
        })
        .collect();
    let wrong = Arc::new(Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (jars, service, wrong) = (&jars, &service, &wrong);
            scope.spawn(move || {
                for round in 0..2_000 {
                    // Often the same one twice, so that it is known.
                    let which = (thread + round / 2) % jars.len();
                    let seen = body(block_on(visit(service, "/read", &mut jars[which].clone())));
                    if !seen.contains(&format!("Some({})", which + 1)) {
                        wrong.lock().unwrap().push((which, seen));
                    }
                }
            });
        }
    });
    assert_eq!(*wrong.lock().unwrap(), []);
}
