//! How much memory a session costs: the allocations that are promised, counted on one thread without a server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use allocation_counter::measure;
use http::header::{COOKIE, HeaderValue};
use http::{Request, Response};
use hyper::service::{Service, service_fn};
use hyper_session::{
    AppKey, CookieStore, Error, Session, SessionExt, SessionHandle, SessionService, session_fn,
};
use support::{Body, Jar, status};

const NAME: &str = "__Host-session";

fn store() -> CookieStore {
    CookieStore::builder(AppKey::generate().unwrap()).build().unwrap()
}

/// The output of a future that waits for nothing: a cookie session never does.
fn ready<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a cookie session waits for nothing"),
    }
}

/// The `Cookie` value of a session whose values, encoded, are 256 bytes.
fn session_of_256_bytes(store: &CookieStore) -> HeaderValue {
    let service = SessionService::new(
        service_fn(|request: Request<Body>| async move {
            let session = request.session().await?;
            session.set("user", "ada")?;
            session.set("visits", 1_000_u64)?;
            session.set("text", "x".repeat(TEXT))?;
            Ok::<_, Error>(status(200))
        }),
        store.clone(),
    );
    let mut jar = Jar::new();
    let response = ready(service.call(support::request("/", None))).unwrap();
    jar.store(response.headers());
    let token = jar.get(NAME).unwrap();
    // Version, key id, epoch, nonce, tag and MAC are 69 bytes, id and times 40.
    assert_eq!(token.len(), ((256 + 69 + 40) * 8_usize).div_ceil(6), "the payload has not 256 bytes");
    HeaderValue::from_str(&format!("{NAME}={token}")).unwrap()
}

/// As much text as makes the payload 256 bytes: map 1, "user" 5 + "ada" 4, "visits" 7 + 3, "text" 5 + 2.
const TEXT: usize = 256 - 27;

fn request(cookies: &[HeaderValue]) -> Request<Body> {
    let mut request = support::request("/", None);
    for cookie in cookies {
        request.headers_mut().append(COOKIE, cookie.clone());
    }
    request
}

/// The allocations of a call, its response included, once everything is warm.
fn count<S>(service: &S, cookies: &[HeaderValue]) -> u64
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Error>,
{
    let count = || {
        let request = request(cookies);
        measure(|| {
            black_box(ready(service.call(request)).unwrap());
        })
        .count_total
    };
    for _ in 0..100 {
        count();
    }
    let counts = [count(), count(), count()];
    assert_eq!(counts, [counts[0]; 3], "the count is not steady");
    counts[0]
}

fn bare(cookies: &[HeaderValue]) -> u64 {
    count(&service_fn(|_: Request<Body>| async { Ok::<_, Error>(status(200)) }), cookies)
}

fn through_service(store: &CookieStore, cookies: &[HeaderValue]) -> u64 {
    let handler = service_fn(|_: Request<Body>| async { Ok::<_, Error>(status(200)) });
    count(&SessionService::new(handler, store.clone()), cookies)
}

fn through_function(store: &CookieStore, cookies: &[HeaderValue]) -> u64 {
    let handler = |_: Request<Body>, _: SessionHandle| async { Ok::<_, Error>(status(200)) };
    count(&session_fn(store.clone(), handler), cookies)
}

/// The session cookie alone, among twenty others in one field, and among twenty others in fields of their own.
fn cookie_headers(store: &CookieStore) -> [(&'static str, Vec<HeaderValue>); 3] {
    let session = session_of_256_bytes(store);
    let others: Vec<_> =
        (0..20).map(|n| HeaderValue::from_str(&format!("other{n}=value{n}")).unwrap()).collect();
    let line: Vec<_> = others[..10].iter().chain([&session]).chain(&others[10..]).collect();
    let one_line: Vec<_> = line.iter().map(|value| value.to_str().unwrap()).collect();
    [
        ("alone", vec![session.clone()]),
        ("one field", vec![HeaderValue::from_str(&one_line.join("; ")).unwrap()]),
        ("a field each", line.into_iter().cloned().collect()),
    ]
}

#[test]
fn an_untouched_session_costs_four_allocations_through_the_service() {
    let store = store();
    for (name, cookies) in cookie_headers(&store) {
        let (with, without) = (through_service(&store, &cookies), bare(&cookies));
        assert!(with <= without + 4, "{name}: {with} instead of {without}");
    }
}

#[test]
fn an_untouched_session_costs_one_allocation_through_the_function() {
    let store = store();
    for (name, cookies) in cookie_headers(&store) {
        let (with, without) = (through_function(&store, &cookies), bare(&cookies));
        assert!(with <= without + 1, "{name}: {with} instead of {without}");
    }
}

/// Runs `look` inside a handler, where the session is not loaded yet, and returns what it returned.
fn inside<T: Send + 'static>(
    store: &CookieStore,
    cookies: &[HeaderValue],
    look: impl Fn(&Request<Body>) -> T + Send + Sync + 'static,
) -> T {
    let look = Arc::new(look);
    let seen = Arc::new(Mutex::new(None));
    let to_fill = Arc::clone(&seen);
    let service = SessionService::new(
        service_fn(move |request: Request<Body>| {
            let (look, seen) = (Arc::clone(&look), Arc::clone(&to_fill));
            async move {
                *seen.lock().unwrap() = Some(look(&request));
                Ok::<_, Error>(status(200))
            }
        }),
        store.clone(),
    );
    for _ in 0..100 {
        ready(service.call(request(cookies))).unwrap();
    }
    seen.lock().unwrap().take().unwrap()
}

#[test]
fn opening_a_session_of_256_bytes_costs_three_allocations() {
    let store = store();
    for (name, cookies) in cookie_headers(&store) {
        let opening = inside(&store, &cookies, |request| {
            let mut session = None;
            let opening = measure(|| session = Some(ready(request.session()).unwrap()));
            assert!(session.unwrap().has("user"), "the session was not opened");
            opening.count_total
        });
        assert!(opening <= 3, "{name}: {opening}");
        let again = inside(&store, &cookies, |request| {
            drop(ready(request.session()).unwrap());
            measure(|| drop(ready(request.session()).unwrap())).count_total
        });
        assert_eq!(again, 0, "{name}: the second time");
    }
}

/// What `read` allocates on an open session.
fn reading(read: impl Fn(&Session) + Send + Sync + 'static) -> u64 {
    let store = store();
    inside(&store, &[session_of_256_bytes(&store)], move |request| {
        let session = ready(request.session()).unwrap();
        measure(|| read(&session)).count_total
    })
}

#[test]
fn reading_an_open_session_allocates_nothing() {
    let reads: [(&str, u64); 6] = [
        ("get_str", reading(|session| assert_eq!(session.get_str("user").unwrap().unwrap().as_str(), "ada"))),
        (
            "get_str, long",
            reading(|session| assert_eq!(session.get_str("text").unwrap().unwrap().len(), TEXT)),
        ),
        ("get::<u64>", reading(|session| assert_eq!(session.get::<u64>("visits").unwrap(), Some(1_000)))),
        ("get_i64", reading(|session| assert_eq!(session.get_i64("visits").unwrap(), Some(1_000)))),
        ("has", reading(|session| assert!(session.has("user") && !session.has("nobody")))),
        ("get of nothing", reading(|session| assert_eq!(session.get::<u64>("nothing").unwrap(), None))),
    ];
    assert_eq!(reads.map(|(name, _)| (name, 0)), reads);
}

/// A whole request, beyond the bare service: `do_it` to the loaded session, and the response finished.
fn whole(do_it: fn(&Session) -> Result<(), Error>) -> u64 {
    let store = store();
    let cookies = [session_of_256_bytes(&store)];
    let handler = service_fn(move |request: Request<Body>| async move {
        do_it(&request.session().await?)?;
        Ok::<_, Error>(status(200))
    });
    count(&SessionService::new(handler, store.clone()), &cookies) - bare(&cookies)
}

#[test]
fn a_request_that_reads_costs_nine_allocations() {
    let allocations = whole(|session| session.get::<u64>("visits").map(drop));
    // Four for the handle, three to open, two for `Vary` in a response that had no header.
    assert!(allocations <= 9, "{allocations}");
}

#[test]
fn a_request_that_changes_a_value_costs_thirty_allocations() {
    let allocations = whole(|session| session.set("visits", 1_001_u64));
    assert!(allocations <= 30, "{allocations}");
}

#[test]
fn walking_a_cookie_header_allocates_nothing() {
    let [_, (_, one_field), _] = cookie_headers(&store());
    let mut pairs = 0;
    let walking = measure(|| pairs = hyper_session::cookie::pairs(one_field[0].as_bytes()).count());
    assert_eq!((pairs, walking.count_total), (21, 0));
}
