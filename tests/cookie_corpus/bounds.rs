//! Bounds on headers made to hurt: a megabyte, ten thousand fields, bytes that only look like blanks.

use http::header::{COOKIE, HeaderValue};
use http::{Request, Response};
use hyper::service::Service;
use hyper_session::__internals::pairs;
use hyper_session::cookie::CookieOptions;
use hyper_session::{AppKey, CookieStore, Error, SessionHandle, session_fn};
use proptest::prelude::*;

use crate::corpus::{cases, check_slices, naive, ours};
use crate::support::{self, Body, Events, block_on, request, set_cookies};

const MIB: usize = 1 << 20;

/// 1 MiB or close to it, and how many cookies named `s` are in it. A reading in quadratic time would take 2^40 steps for
/// each: that these tests end at all is their clock.
fn huge() -> Vec<(&'static str, Vec<u8>, usize)> {
    let repeat = |unit: &str| unit.repeat(MIB / unit.len()).into_bytes();
    let spaces = " \t".repeat(50_000);
    let around = |before: &str, after: &str| {
        [before.as_bytes(), &vec![b'x'; MIB - before.len() - after.len()], after.as_bytes()].concat()
    };
    vec![
        ("one giant value", around("s=", ""), 1),
        ("one giant name", around("", "=s"), 0),
        ("one giant quoted value", around("s=\"", "\""), 1),
        ("one giant bare word", around("", ""), 0),
        ("65,535 semicolons", vec![b';'; 65_535], 0),
        ("a megabyte of semicolons", repeat(";"), 0),
        ("100,000 blanks", format!("{spaces}s{spaces}={spaces}v{spaces}").into_bytes(), 1),
        ("nothing but blanks", spaces.into_bytes(), 0),
        ("the cookie again and again", repeat("s=v;"), MIB / 4),
        ("the cookie between blanks", repeat("  s  =  v  ;"), MIB / 12),
        ("its second chunk again and again", repeat("s.1=v;"), 0),
        ("its name as one word", repeat("s"), 0),
        ("its name among blanks", repeat("s "), 0),
        ("its name as bare words", repeat("s;"), 0),
        ("its name as values", repeat("s=s="), 1),
        ("its name as values of others", repeat("a=s;"), 0),
        ("equals signs", repeat("="), 0),
        ("nameless pairs", repeat("=s;"), 0),
        ("quotes", repeat("\""), 0),
        ("quotes and semicolons", repeat("\";s=\"v"), MIB / 6),
        ("obs-text", vec![0xff; MIB], 0),
    ]
}

#[test]
fn t60_a_megabyte_is_read_in_one_pass_and_without_memory() {
    for (what, field, expected) in huge() {
        let mut found = 0;
        let used =
            allocation_counter::measure(|| found = pairs(&field).filter(|(name, _)| *name == b"s").count());
        assert_eq!(found, expected, "{what}");
        assert_eq!(used.count_total, 0, "{what}");
        check_slices(&field);
        assert_eq!(ours(&field), naive(&field, &[]), "{what}");
    }
}

/// A service whose session cookie is `s`, that says who is logged in; what it reported; and Ada's cookie.
struct Asked {
    service: hyper_session::SessionFn<fn(Request<Body>, SessionHandle) -> Answering>,
    events: Events,
    cookie: Vec<u8>,
}

type Answering = std::pin::Pin<Box<dyn Future<Output = Result<Response<Body>, Error>> + Send>>;

fn login_or_name(request: Request<Body>, session: SessionHandle) -> Answering {
    Box::pin(async move {
        let session = session.load().await?;
        if request.uri().path() == "/login" {
            session.set("user", "ada")?;
        }
        let user = session.get::<String>("user")?.unwrap_or_default();
        Ok(Response::new(user.into()))
    })
}

impl Asked {
    fn new() -> Self {
        let events = Events::new();
        let store = CookieStore::builder(AppKey::generate().unwrap())
            .cookie(CookieOptions::development().name("s"))
            .observer(events.clone())
            .build()
            .unwrap();
        let service = session_fn(store, login_or_name as fn(_, _) -> _);
        let response = block_on(service.call(request("/login", None))).unwrap();
        let cookie = set_cookies(response.headers())[0].split(';').next().unwrap().as_bytes().to_vec();
        assert!(cookie.starts_with(b"s="));
        events.take();
        Self { service, events, cookie }
    }

    /// True if these fields log Ada in; and the events.
    fn ask<'a>(&self, fields: impl IntoIterator<Item = &'a [u8]>) -> (bool, Vec<String>) {
        let mut request = request("/", None);
        for field in fields {
            request.headers_mut().append(COOKIE, HeaderValue::from_bytes(field).unwrap());
        }
        let user = block_on(async { support::text(self.service.call(request).await.unwrap()).await });
        (user == "ada", self.events.take())
    }

    /// Ada's cookie after `field`, in one field with it.
    fn behind(&self, field: &[u8]) -> Vec<u8> {
        [field, b"; ", &self.cookie].concat()
    }
}

/// How many cookies of the session's name are looked at, and how many chunks.
const LOOKS: usize = 64;

/// Checks the reports on a request with so many cookies that are not tokens, and a genuine one behind them. `many` is true if
/// there are more cookies of the session's name, or chunks, than are looked at.
fn check_bounded(candidates: usize, many: bool, (found, events): (bool, Vec<String>), what: &str) {
    let refused = events.iter().filter(|event| event.starts_with("refused:")).count();
    let too_many = events.iter().filter(|event| *event == "too_many_candidates").count();
    assert_eq!(found, candidates < LOOKS, "{what}");
    assert_eq!(refused, candidates.min(4), "{what}");
    assert_eq!(too_many, usize::from(many), "{what}");
    assert_eq!(events.len(), refused + too_many, "{what}: {events:?}");
}

#[test]
fn t60_a_whole_request_looks_at_a_bounded_part_of_a_megabyte() {
    let asked = Asked::new();
    for (what, field, candidates) in huge() {
        let chunks = pairs(&field).filter(|(name, _)| *name == b"s.1").count();
        let many = candidates >= LOOKS || chunks > LOOKS;
        let behind = asked.behind(&field);
        check_bounded(candidates, many, asked.ask([&behind[..]]), what);
        check_bounded(candidates, many, asked.ask([&field[..], &asked.cookie]), what);
    }
}

// T62, and T61: as many fields as a header map holds well, in and out.
#[test]
fn t60_t61_t62_ten_thousand_fields_are_all_seen() {
    let asked = Asked::new();
    for (field, candidates) in [(&b"a=b; ss=v; s"[..], 0), (b"s=v", 10_000)] {
        let fields = vec![field; 10_000];
        let answer = asked.ask(fields.iter().copied().chain([&asked.cookie[..]]));
        check_bounded(candidates, candidates > 0, answer, &String::from_utf8_lossy(field));
    }
}

// T65: nothing that a header says makes memory grow faster than the header.
#[test]
fn t60_t65_refusing_a_megabyte_allocates_no_more_than_was_sent() {
    let asked = Asked::new();
    for (what, field, _) in huge() {
        let sent = field.len();
        let mut request = request("/", None);
        request.headers_mut().insert(COOKIE, HeaderValue::from_bytes(&field).unwrap());
        let used = allocation_counter::measure(|| {
            block_on(asked.service.call(request)).unwrap();
        });
        assert!(used.bytes_total < (sent + (64 << 10)) as u64, "{what}: {used:?}");
    }
}

// One value in many scopes counts once, even if it is refused before its signature is checked: it fills its cookie, so it is joined
// with a chunk.
#[test]
fn t64_copies_of_a_broken_cookie_hide_no_session() {
    let asked = Asked::new();
    let full = [&b"s="[..], &[b'A'; 4095]].concat();
    let copies = vec![full; 20].join(&b"; "[..]);
    let (found, events) = asked.ask([&b"s.1=x"[..], &asked.behind(&copies)]);
    assert!(found, "{events:?}");
    assert_eq!(events, ["refused:version"]);
}

// `Refusal::Length` is "shorter or longer than any token": what is longer than all chunks together must cost neither a
// decoding nor a signature, however right its header looks.
#[test]
fn t60_a_value_longer_than_any_token_is_refused_for_its_length() {
    let asked = Asked::new();
    let long = vec![b'A'; 8 * 4096 + 4 - asked.cookie.len() % 4];
    let forged = [&b"s="[..], &long].concat();
    let extended = [&asked.cookie[..], &long].concat();
    let answers = [&forged, &extended].map(|field| asked.ask([&field[..]]));
    let too_long = (false, vec!["refused:length".to_owned()]);
    assert_eq!(answers, [too_long.clone(), too_long]);
}

/// Every byte that a header value can hold, as `HeaderValue` has it.
fn header_bytes() -> impl Iterator<Item = u8> {
    (0..=255_u8).filter(|&byte| HeaderValue::from_bytes(&[byte]).is_ok())
}

#[test]
fn t50_to_t56_t63_only_blanks_and_semicolons_may_touch_the_cookie() {
    let asked = Asked::new();
    let (name, value) = (b"s", asked.cookie.strip_prefix(b"s=").unwrap());
    assert_eq!(header_bytes().count(), 224, "HTAB, visible ASCII, SP, obs-text");
    for byte in header_bytes() {
        let b = &[byte][..];
        let blank = matches!(byte, b' ' | b'\t');
        for (place, field, found) in [
            ("before the name", [b, name, b"=", value].concat(), blank || byte == b';'),
            ("behind the name", [name, b, b"=", value].concat(), blank),
            ("before the value", [name, b"=", b, value].concat(), blank),
            ("behind the value", [name, b"=", value, b].concat(), blank || byte == b';'),
            ("in the value", [name, b"=", &value[..9], b, &value[9..]].concat(), false),
            ("around another pair", [b, b"; ", &asked.cookie, b"; ", b].concat(), true),
            ("in another pair", [b"a", b, b"=", b, b"; ", &asked.cookie].concat(), true),
        ] {
            assert_eq!(asked.ask([&field[..]]).0, found, "{byte:#04x} {place}");
        }
    }
}

proptest! {
    #![proptest_config(cases(1024))]

    // Bytes of all kinds before and behind never hide an authentic cookie, and never panic.
    #[test]
    fn t63_any_bytes_around_it_leave_the_cookie_findable(
        before in proptest::collection::vec(header_byte(), 0..60),
        behind in proptest::collection::vec(header_byte(), 0..60),
    ) {
        let asked = ASKED.with(Clone::clone);
        let field = [&before, &b";"[..], &asked.cookie, b";", &behind].concat();
        let others = [&before, &behind].map(|bytes| ours(bytes).iter().filter(|(name, _)| name == b"s").count());
        let (found, events) = asked.ask([&field[..]]);
        prop_assert!(found);
        let refused = events.iter().filter(|event| event.starts_with("refused:")).count();
        prop_assert_eq!(refused, (others[0] + others[1]).min(4));
    }
}

thread_local! {
    static ASKED: std::rc::Rc<Asked> = std::rc::Rc::new(Asked::new());
}

fn header_byte() -> impl Strategy<Value = u8> {
    let any_byte = proptest::sample::select(header_bytes().collect::<Vec<_>>());
    prop_oneof![3 => proptest::sample::select(&b"s=; \t\".1"[..]), 1 => any_byte]
}
