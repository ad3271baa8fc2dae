//! A request's `Cookie` fields, and the sessions in them: whole, in chunks, or neither.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use arbitrary::{Arbitrary, Unstructured};
use http::header::{COOKIE, HeaderValue, SET_COOKIE};
use http::{Request, Response};
use http_body_util::Empty;
use hyper::service::Service;
use hyper_session::__internals::pairs;
use hyper_session::cookie::CookieOptions;
use hyper_session::{CookieStore, Error, SessionHandle, session_fn};

use crate::unseal::{builder, seal_values};
use crate::{NAME, Refusals, run};

type Body = Empty<bytes::Bytes>;

/// Sizes of a payload, in the order of [`TOKENS`]: in one cookie, filling one to the byte, in two, in three, in three again.
const FILLERS: [usize; 5] = [1, 2970, 5_000, 7_000, 8_000];

/// Genuine tokens. The value of the session says which one it is: its length.
static TOKENS: LazyLock<[String; FILLERS.len()]> = LazyLock::new(|| {
    FILLERS.map(|size| {
        let store = builder().cookie(CookieOptions::development().name(NAME)).build().unwrap();
        seal_values(&store, &BTreeMap::from([("a".to_owned(), "x".repeat(size))]))
    })
});

thread_local! {
    /// The store that looks, and what it refused.
    static LOOKING: (CookieStore, Refusals) = {
        let refusals = Refusals::default();
        (builder().observer(refusals.clone()).build().unwrap(), refusals)
    };
}

#[derive(Arbitrary, Debug)]
enum Piece<'a> {
    Bytes(&'a [u8]),
    Name,
    Chunk(u8),
    Equals,
    Semicolon,
    /// The value of one cookie of a genuine token.
    Value(u8, u8),
    /// That cookie, with its name.
    Cookie(u8, u8),
    /// A cookie that fills the place of a chunk, or one byte less.
    Planted(u8, bool),
}

/// A request with several `Cookie` fields is read as all of them joined. The session that it finds is one whose chunks are all
/// there, and it finds one if there is any, unless there is too much to try. A cookie is removed only if each is known to be
/// dead.
pub fn cookie_multi_field(data: &[u8]) {
    let Ok(fields) = Vec::<Vec<Piece<'_>>>::arbitrary(&mut Unstructured::new(data)) else { return };
    let fields: Vec<HeaderValue> = fields
        .iter()
        .take(8)
        .filter_map(|pieces| {
            HeaderValue::from_bytes(&pieces.iter().take(16).flat_map(spell).collect::<Vec<_>>()).ok()
        })
        .collect();
    let joined = fields.iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b"; "[..]);
    let seen = Seen::by_service(&fields);
    assert_eq!(Seen::by_service(&[HeaderValue::from_bytes(&joined).unwrap()]), seen);
    Model::of(&joined).check(&seen);
}

/// How many bytes the cookie `s` (0) or `s.n` holds: name and value are 4096 at most.
fn room(number: usize) -> usize {
    4096 - name(number).len()
}

fn name(number: usize) -> String {
    if number == 0 { NAME.to_owned() } else { format!("{NAME}.{number}") }
}

fn spell(piece: &Piece<'_>) -> Vec<u8> {
    let value = |token: u8, number: u8| {
        let token = TOKENS[usize::from(token) % TOKENS.len()].as_bytes();
        let number = usize::from(number % 3);
        let start: usize = (0..number).map(room).sum();
        token.get(start..).map(|rest| rest[..rest.len().min(room(number))].to_vec()).unwrap_or_default()
    };
    match *piece {
        Piece::Bytes(bytes) => bytes.to_vec(),
        Piece::Name => NAME.into(),
        Piece::Chunk(number) => name(usize::from(number % 10)).into(),
        Piece::Equals => b"=".to_vec(),
        Piece::Semicolon => b"; ".to_vec(),
        Piece::Value(token, number) => value(token, number),
        Piece::Cookie(token, number) => {
            let name = name(usize::from(number % 3));
            [b"; ", name.as_bytes(), b"=", &value(token, number), b"; "].concat()
        }
        Piece::Planted(number, full) => {
            let number = usize::from(number % 8);
            format!("; {}={}; ", name(number), "A".repeat(room(number) - usize::from(!full))).into()
        }
    }
}

/// The outcome of a request with certain cookies.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    /// Which of the tokens is the session.
    session: Option<usize>,
    /// Why tokens were refused.
    refused: Vec<String>,
    /// Names of cookies that the response removes.
    removed: Vec<String>,
}

/// The pairs of a request, by the plainest reading.
struct Model {
    /// The values of `s` (0) and of `s.1` to `s.7`.
    values: [Vec<Vec<u8>>; 8],
}

impl Model {
    fn of(field: &[u8]) -> Self {
        let values = std::array::from_fn(|number| {
            let values = pairs(field).filter(|(of, _)| *of == name(number).as_bytes());
            values.map(|(_, value)| value.to_vec()).collect()
        });
        Self { values }
    }

    /// Returns true if each chunk of this token is there.
    fn has(&self, token: &str) -> bool {
        let mut rest = token.as_bytes();
        self.values.iter().enumerate().all(|(number, values)| {
            let (chunk, after) = rest.split_at(rest.len().min(room(number)));
            rest = after;
            chunk.is_empty() || values.iter().any(|value| value == chunk)
        })
    }

    fn check(&self, seen: &Seen) {
        let heads: BTreeSet<_> = self.values[0].iter().collect();
        let tails: Vec<_> = self.values[1..].iter().map(Vec::len).collect();
        let twins = tails.iter().any(|count| *count > 1);
        let present: Vec<_> = TOKENS.iter().map(|token| self.has(token)).collect();
        if let Some(session) = seen.session {
            assert!(present[session], "a session that is not there");
            assert_eq!(seen.removed, [""; 0]);
        } else if heads.len() <= 4 && tails.iter().sum::<usize>() <= 4 && self.values[0].len() <= 64 {
            assert!(!present.contains(&true), "a session that was not found: {present:?}");
        }
        if seen.removed.is_empty() {
            return;
        }
        // Removed are the cookie and the chunks that the client holds: all of them tokens of ours, and broken.
        let held = (1..8).filter(|number| tails[number - 1] > 0).map(name);
        assert_eq!(seen.removed, std::iter::once(NAME.to_owned()).chain(held).collect::<Vec<_>>());
        assert!(!twins && !heads.is_empty(), "which of them is dead is not known");
        // Version and key id, in the alphabet of the text.
        assert!(
            heads.iter().all(|head| head.starts_with(&TOKENS[0].as_bytes()[..6])),
            "another application's"
        );
    }
}

impl Seen {
    fn by_service(fields: &[HeaderValue]) -> Self {
        let (store, refusals) = LOOKING.with(Clone::clone);
        let service = session_fn(store, |_: Request<Body>, session: SessionHandle| async move {
            let found = session.load().await?.get_str("a")?.map_or(0, |value| value.len());
            Ok::<_, Error>(Response::builder().header("found", found).body(Body::new()).unwrap())
        });
        let mut request = Request::new(Body::new());
        for field in fields {
            request.headers_mut().append(COOKIE, field.clone());
        }
        let response = run(service.call(request)).unwrap();
        let found: usize = response.headers()["found"].to_str().unwrap().parse().unwrap();
        let lines = response.headers().get_all(SET_COOKIE).iter().map(|line| line.to_str().unwrap());
        let removed = lines.map(|line| {
            assert!(line.contains("=; Max-Age=0; "), "{line}");
            line.split('=').next().unwrap().to_owned()
        });
        Self {
            session: FILLERS.iter().position(|size| *size == found),
            removed: removed.collect(),
            refused: refusals.take(),
        }
    }
}

/// The tokens are what their names say: of one, one, two, three and three cookies.
#[test]
fn tokens_fill_their_cookies() {
    let cookies = |token: &String| (1..).find(|count| (0..*count).map(room).sum::<usize>() >= token.len());
    assert_eq!(TOKENS.each_ref().map(|token| cookies(token).unwrap()), [1, 1, 2, 3, 3]);
    assert_eq!(TOKENS[1].len(), room(0));
    let whole = (0..3).flat_map(|number| spell(&Piece::Cookie(4, number))).collect::<Vec<_>>();
    let seen = Seen::by_service(&[HeaderValue::from_bytes(&whole).unwrap()]);
    assert_eq!(seen, Seen { session: Some(4), ..Seen::default() });
    assert_eq!(BTreeSet::from_iter(TOKENS.iter()).len(), TOKENS.len());
}
