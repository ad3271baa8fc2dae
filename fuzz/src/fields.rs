//! A request's `Cookie` fields, and the sessions in them: whole, in chunks, or neither.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::LazyLock;

use arbitrary::{Arbitrary, Unstructured};
use http::header::{COOKIE, HeaderValue, SET_COOKIE};
use http::{Request, Response};
use http_body_util::Empty;
use hyper::service::Service;
use hyper_session::cookie::{CookieOptions, pairs};
use hyper_session::{CookieStore, Error, SessionHandle, session_fn};

use crate::unseal::{builder, seal_values};
use crate::{NAME, Refusals, run};

type Body = Empty<bytes::Bytes>;

/// Sizes of a payload, in the order of [`TOKENS`]: in one cookie, filling one to the byte, in two, in three, in three again.
const FILLERS: [usize; 5] = [1, 2956, 5_000, 7_000, 8_000];

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

/// A request with several `Cookie` fields finds the session that a plain model finds in all of them joined, refuses as many
/// tokens before it, and removes what the client holds if there is none.
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
    let expected = Seen::in_model(&joined);
    assert_eq!(Seen::by_service(&fields), expected);
    assert_eq!(Seen::by_service(&[HeaderValue::from_bytes(&joined).unwrap()]), expected);
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

/// What a request's cookies lead to.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    /// Which of the tokens is the session.
    session: Option<usize>,
    /// How many tokens were refused.
    refused: usize,
    /// Names of cookies that the response removes.
    removed: Vec<String>,
}

impl Seen {
    /// As the documents have it: the values of each name wait in a queue of four. Each head in turn takes the next of `s.1`
    /// if it fills its cookie, then the next of `s.2` if that one is full, and so on.
    fn in_model(field: &[u8]) -> Self {
        let mut queues: Vec<VecDeque<&[u8]>> = (0..8)
            .map(|number| {
                let values = pairs(field).filter(|(of, _)| *of == name(number).as_bytes());
                values.map(|(_, value)| value).take(4).collect()
            })
            .collect();
        let held: Vec<_> = (1..8).filter(|number| !queues[*number].is_empty()).map(name).collect();
        let present = !queues[0].is_empty() || !held.is_empty();

        let mut seen = Self::default();
        while let Some(head) = queues[0].pop_front() {
            let (mut token, mut last) = (head.to_vec(), head);
            for number in 1..8 {
                if last.len() != room(number - 1) {
                    break;
                }
                let Some(next) = queues[number].pop_front() else { break };
                token.extend_from_slice(next);
                last = next;
            }
            seen.session = TOKENS.iter().position(|genuine| genuine.as_bytes() == token);
            if seen.session.is_some() {
                return seen;
            }
            seen.refused += 1;
        }
        if present {
            seen.removed = [vec![NAME.to_owned()], held].concat();
        }
        seen
    }

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
            refused: refusals.take().len(),
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
