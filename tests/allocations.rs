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
use hyper_session::__internals::Verbs;
use hyper_session::cookie::CookieOptions;
use hyper_session::{
    AppKey, Clock, CookieStore, Error, Session, SessionExt, SessionHandle, SessionService, SystemClock,
    session_fn,
};
use support::{Body, Jar, status};

const NAME: &str = "__Host-session";

/// A store that opens each cookie.
fn store() -> CookieStore {
    CookieStore::builder(AppKey::generate().unwrap()).connection_memo(false).build().unwrap()
}

/// A store whose connections know their last cookie again.
fn store_with_memo() -> CookieStore {
    CookieStore::builder(AppKey::generate().unwrap()).build().unwrap()
}

/// The output of a future that is ready at its first poll, as every future of a cookie session is.
fn ready<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a cookie session never waits"),
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
    // Version, key id, epoch, nonce, tag and MAC are 69 bytes, id and times 26.
    assert_eq!(token.len(), ((256 + 69 + 26) * 8_usize).div_ceil(6), "the payload does not have 256 bytes");
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

/// The session cookie as the only one, among twenty others in one field, and among twenty others in fields of their own.
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
        // The bytes, the record, the session.
        assert!(opening <= 3, "{name}: {opening}");
        let again = inside(&store, &cookies, |request| {
            drop(ready(request.session()).unwrap());
            measure(|| drop(ready(request.session()).unwrap())).count_total
        });
        assert_eq!(again, 0, "{name}: the second time");
    }
}

#[test]
fn refusing_a_token_allocates_nothing() {
    let store = store();
    let cookie = session_of_256_bytes(&store);
    let token = cookie.as_bytes().strip_prefix(b"__Host-session=").unwrap();
    let now = SystemClock.now();
    let open = |token: &[u8]| ready(store.load(token, now)).unwrap();
    assert!(open(token).is_ok());
    for place in [0, 5, 20, 40, token.len() / 2, token.len() - 2] {
        let (mut forged, mut opened) = (token.to_vec(), true);
        forged[place] = if forged[place] == b'A' { b'B' } else { b'A' };
        let refusing = measure(|| opened = open(&forged).is_ok());
        assert_eq!((opened, refusing.count_total), (false, 0), "{place}");
    }
}

/// The allocations of `read` on an open session, the first time and after that.
fn reading(read: impl Fn(&Session) + Send + Sync + 'static) -> [u64; 2] {
    let store = store();
    inside(&store, &[session_of_256_bytes(&store)], move |request| {
        let session = ready(request.session()).unwrap();
        [(); 2].map(|()| measure(|| read(&session)).count_total)
    })
}

#[test]
fn reading_an_open_session_allocates_nothing_but_what_views_share() {
    // The first view of the session's buffer makes it one that is shared.
    let get_str = reading(|session| assert_eq!(session.get_str("user").unwrap().unwrap().as_str(), "ada"));
    assert_eq!(get_str, [1, 0]);
    let long = reading(|session| assert_eq!(session.get_str("text").unwrap().unwrap().len(), TEXT));
    assert_eq!(long, [1, 0]);
    let reads = [
        ("get::<u64>", reading(|session| assert_eq!(session.get::<u64>("visits").unwrap(), Some(1_000)))),
        ("get_i64", reading(|session| assert_eq!(session.get_i64("visits").unwrap(), Some(1_000)))),
        ("has", reading(|session| assert!(session.has("user") && !session.has("nobody")))),
        ("get of nothing", reading(|session| assert_eq!(session.get::<u64>("nothing").unwrap(), None))),
    ];
    assert_eq!(reads.map(|(name, _)| (name, [0, 0])), reads);
}

/// A whole request, beyond the bare service: `do_it` to the loaded session, and the response finished.
fn whole(store: &CookieStore, do_it: fn(&Session) -> Result<(), Error>) -> u64 {
    let cookies = [session_of_256_bytes(store)];
    let handler = service_fn(move |request: Request<Body>| async move {
        do_it(&request.session().await?)?;
        Ok::<_, Error>(status(200))
    });
    count(&SessionService::new(handler, store.clone()), &cookies) - bare(&cookies)
}

#[test]
fn a_request_that_reads_costs_nine_allocations() {
    let allocations = whole(&store(), |session| session.get::<u64>("visits").map(drop));
    // Four for the handle, three to open, two for `Vary` in a response that had no header.
    assert!(allocations <= 9, "{allocations}");
}

#[test]
fn the_same_cookie_again_costs_one_allocation_to_load() {
    let (store, reads) = (store_with_memo(), |session: &Session| session.get::<u64>("visits").map(drop));
    assert_eq!(whole(&store, reads), 4 + 1 + 2);
    // A memo serves its own connection only: a clone opens the cookie, once.
    let (loads, cookie) = (Arc::new(Mutex::new(Vec::new())), session_of_256_bytes(&store));
    let to_fill = Arc::clone(&loads);
    let service = session_fn(store, move |_: Request<Body>, handle: SessionHandle| {
        let loading = measure(|| drop(ready(handle.load()).unwrap())).count_total;
        to_fill.lock().unwrap().push(loading);
        async { Ok::<_, Error>(status(200)) }
    });
    let other = service.clone();
    for connection in [&service, &service, &service, &other, &other, &service] {
        ready(connection.call(request(std::slice::from_ref(&cookie)))).unwrap();
    }
    let loads = loads.lock().unwrap();
    assert!(loads[0] >= 3 && loads[3] >= 3, "{loads:?}");
    assert_eq!([loads[1], loads[2], loads[4], loads[5]], [1; 4]);
}

/// The allocations that loading each of these cookies costs, one after the other on one connection.
fn loads(store: &CookieStore, cookies: &[&HeaderValue]) -> Vec<u64> {
    let loads = Arc::new(Mutex::new(Vec::new()));
    let to_fill = Arc::clone(&loads);
    let service = session_fn(store.clone(), move |_: Request<Body>, handle: SessionHandle| {
        let loading = measure(|| drop(ready(handle.load()).unwrap())).count_total;
        to_fill.lock().unwrap().push(loading);
        async { Ok::<_, Error>(status(200)) }
    });
    for &cookie in cookies {
        ready(service.call(request(std::slice::from_ref(cookie)))).unwrap();
    }
    drop(service);
    Arc::into_inner(loads).unwrap().into_inner().unwrap()
}

#[test]
fn a_connection_of_many_users_gives_up() {
    let store = store_with_memo();
    let (one, other) = (&session_of_256_bytes(&store), &session_of_256_bytes(&store));
    // Sixteen in a row that were not the last one, the first of all included.
    let taking_turns: Vec<_> = [one, other].into_iter().cycle().take(16).collect();
    let fifteen = [&taking_turns[..15], &[one, one][..]].concat();
    let sixteen = [&taking_turns[..], &[other, other][..]].concat();
    assert_eq!(loads(&store, &fifteen)[15..], [1, 1]);
    let costs = loads(&store, &sixteen);
    assert!(costs[16] >= 3 && costs[17] >= 3, "{costs:?}");
}

#[test]
fn a_request_that_changes_a_value_costs_twenty_allocations() {
    let allocations = whole(&store(), |session| session.set("visits", 1_001_u64));
    assert!(allocations <= 20, "{allocations}");
}

/// A logout looks for the former paths of its cookie above the path of the request, which a client chooses.
#[test]
fn a_logout_below_thousands_of_folders_allocates_as_much_as_below_a_few() {
    let options = CookieOptions::new().name("__Secure-s");
    let store = CookieStore::builder(AppKey::generate().unwrap()).cookie(options).build().unwrap();
    let service = |path: &str, cookie: Option<&str>| {
        let handler = service_fn(|request: Request<Body>| async move {
            let session = request.session().await?;
            if session.subject().is_some() {
                session.destroy()?;
            } else {
                session.login("ada")?;
            }
            Ok::<_, Error>(status(200))
        });
        (SessionService::new(handler, store.clone()), support::request(path, cookie))
    };
    let (login, first) = service("/", None);
    let mut jar = Jar::new();
    jar.store(ready(login.call(first)).unwrap().headers());
    let cookie = jar.header().unwrap();
    let count = |path: &str| {
        let measured = || {
            let (logout, request) = service(path, Some(&cookie));
            let mut lines = 0;
            let allocations = measure(|| {
                let response = ready(logout.call(request)).unwrap();
                lines = black_box(&response).headers().len();
            });
            (allocations.count_total, lines)
        };
        measured();
        measured()
    };
    let few = count("/a/b/c/d/e");
    assert!(few.1 > 5, "{few:?}");
    assert_eq!(count(&"/a".repeat(20_000)), few);
}

#[test]
fn walking_a_cookie_header_allocates_nothing() {
    let [_, (_, one_field), _] = cookie_headers(&store());
    let mut pairs = 0;
    let walking = measure(|| pairs = hyper_session::__internals::pairs(one_field[0].as_bytes()).count());
    assert_eq!((pairs, walking.count_total), (21, 0));
}
