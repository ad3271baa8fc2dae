//! The `Cookie` header: against a naive reading, and in one field or in many.

use arbitrary::{Arbitrary, Unstructured};
use http::header::{COOKIE, HeaderValue};
use http::{Request, Response};
use http_body_util::Empty;
use hyper::service::Service;
use hyper_session::cookie::pairs;
use hyper_session::{CookieStore, Error, SessionHandle, session_fn};

use crate::unseal::{builder, token};
use crate::{NAME, Refusals, run};

type Body = Empty<bytes::Bytes>;

/// `pairs` reads what splitting and trimming reads, as slices of the input, in order; and reads its own output again.
pub fn cookie_header(data: &[u8]) {
    let read: Vec<_> = pairs(data).collect();
    let naive: Vec<_> = data
        .split(|byte| *byte == b';')
        .filter_map(|segment| {
            let equals = segment.iter().position(|byte| *byte == b'=')?;
            let (name, value) = (trim(&segment[..equals]), trim(&segment[equals + 1..]));
            (!name.is_empty()).then_some((name, value))
        })
        .collect();
    assert_eq!(read, naive);

    let mut last = data.as_ptr_range().start;
    for (name, value) in &read {
        let (name, value) = (name.as_ptr_range(), value.as_ptr_range());
        assert!(
            name.start >= last
                && value.start > name.end.wrapping_sub(1)
                && value.end <= data.as_ptr_range().end
        );
        last = value.end;
    }

    let joined = read
        .iter()
        .map(|(name, value)| [name, &b"="[..], value].concat())
        .collect::<Vec<_>>()
        .join(&b"; "[..]);
    assert_eq!(pairs(&joined).collect::<Vec<_>>(), read, "reading what was read");
}

fn trim(bytes: &[u8]) -> &[u8] {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = bytes.iter().position(|byte| !blank(byte)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|byte| !blank(byte)).map_or(start, |last| last + 1);
    &bytes[start..end]
}

#[derive(Arbitrary, Debug)]
enum Piece<'a> {
    Bytes(&'a [u8]),
    Genuine,
    Name,
    Chunk(u8),
    Equals,
    Semicolon,
}

/// A request with several `Cookie` fields finds the session that one with all of them joined finds, and refuses the same.
pub fn cookie_multi_field(data: &[u8]) {
    let Ok(fields) = Vec::<Vec<Piece<'_>>>::arbitrary(&mut Unstructured::new(data)) else { return };
    let genuine = token();
    let fields: Vec<HeaderValue> = fields
        .iter()
        .take(8)
        .filter_map(|pieces| {
            HeaderValue::from_bytes(
                &pieces.iter().flat_map(|piece| spell(piece, &genuine)).collect::<Vec<_>>(),
            )
            .ok()
        })
        .collect();
    let joined = fields.iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b"; "[..]);
    let naive = pairs(&joined).filter(|(name, _)| *name == NAME.as_bytes()).take(4);
    let genuine_is_there = naive.clone().any(|(_, value)| value == genuine.as_bytes());
    let tries = naive.take_while(|(_, value)| *value != genuine.as_bytes()).count();

    let split = look(&fields);
    let whole = look(&[HeaderValue::from_bytes(&joined).unwrap()]);
    assert_eq!(split, whole);
    // The genuine cookie fills no chunk, so it is found wherever it stands among the first four; nothing else ever is.
    assert_eq!(split.0, genuine_is_there);
    assert_eq!(split.1.len(), tries);
}

fn spell(piece: &Piece<'_>, genuine: &str) -> Vec<u8> {
    match piece {
        Piece::Bytes(bytes) => bytes.to_vec(),
        Piece::Genuine => genuine.as_bytes().to_vec(),
        Piece::Name => NAME.as_bytes().to_vec(),
        Piece::Chunk(number) => format!("{NAME}.{}", number % 10).into_bytes(),
        Piece::Equals => b"=".to_vec(),
        Piece::Semicolon => b"; ".to_vec(),
    }
}

/// Whether a session is found, and what was refused on the way.
fn look(fields: &[HeaderValue]) -> (bool, Vec<String>) {
    let refusals = Refusals::default();
    let store: CookieStore = builder().observer(refusals.clone()).build().unwrap();
    let service = session_fn(store, |_: Request<Body>, session: SessionHandle| async move {
        let found = !session.load().await?.is_empty();
        Ok::<_, Error>(Response::builder().header("found", found.to_string()).body(Body::new()).unwrap())
    });
    let mut request = Request::new(Body::new());
    for field in fields {
        request.headers_mut().append(COOKIE, field.clone());
    }
    let response = run(service.call(request)).unwrap();
    (response.headers()["found"] == "true", refusals.take())
}
