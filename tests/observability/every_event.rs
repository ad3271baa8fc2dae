//! One run in which every event occurs.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::service::Service;
use hyper_session::store::redis::NearCache;
use hyper_session::store::{Memory, MigratingStore, Store};
use hyper_session::testing::{Cookies, FakeClock, Fault, Faulty, Primitive};
use hyper_session::{
    AppKey, CookieStore, CrossOriginProtection, DeviceBound, Error, Event, EventKind, Keyring, RedisStore,
    Revocations, ServerStore, Session, SessionExt, SessionHandle, Timestamp, session_fn,
};
use tokio::sync::Notify;
use tokio::task::yield_now;

use crate::device::{Device, challenge, offer};
use crate::server::{PATIENCE, Server};
use crate::support::block_on;

const IDLE: Duration = Duration::from_secs(600);

/// Values that handlers store, and that must not show.
pub(crate) const SECRETS: [&str; 2] = ["hunter2", "planted"];

/// A request by the browser with these cookies, whose handler is `deed`.
async fn visit<S, D, F>(store: &S, cookies: &mut Cookies, deed: D) -> Response<()>
where
    S: Store + Clone,
    D: Fn(Session) -> F,
    F: Future<Output = Result<Response<()>, Error>>,
{
    let deed = &deed;
    let service = session_fn(store.clone(), |_: Request<()>, handle: SessionHandle| async move {
        deed(handle.load().await?).await
    });
    let mut request = Request::new(());
    request.headers_mut().extend(cookies.header().map(|cookies| (http::header::COOKIE, cookies)));
    // Where loading failed, the handler passes the error on, which becomes a response.
    let response = service.call(request).await.unwrap();
    cookies.receive(response.headers());
    response
}

#[allow(clippy::unnecessary_wraps)] // handlers end with it
fn ok() -> Result<Response<()>, Error> {
    Ok(Response::new(()))
}

async fn set<S: Store + Clone>(store: &S, cookies: &mut Cookies, key: &'static str) {
    visit(store, cookies, |session| async move {
        session.set(key, SECRETS[0])?;
        ok()
    })
    .await;
}

async fn end<S: Store + Clone>(store: &S, cookies: &mut Cookies) {
    visit(store, cookies, |session| async move { session.destroy().and_then(|()| ok()) }).await;
}

fn presenting(cookie: &str) -> Cookies {
    let mut headers = http::HeaderMap::new();
    headers.insert("set-cookie", format!("__Host-session={cookie}").parse().unwrap());
    let mut cookies = Cookies::new();
    cookies.receive(&headers);
    cookies
}

/// A cookie session's beginning, and nothing else.
pub(crate) fn one_cookie_session() {
    let store = CookieStore::builder(AppKey::generate().unwrap()).build().unwrap();
    block_on(set(&store, &mut Cookies::new(), "a"));
}

/// Logs in twice where one session is allowed.
async fn subjects() {
    let store = ServerStore::with_backend(Memory::new()).max_sessions_per_subject(1).build().unwrap();
    for _ in 0..2 {
        visit(&store, &mut Cookies::new(), |session| async move { session.login("ada").and_then(|()| ok()) })
            .await;
    }
}

/// Two logins of visitors without a session, and one of a visitor who has one.
pub(crate) fn three_logins() {
    let store = ServerStore::with_backend(Memory::new()).build().unwrap();
    let login = |session: Session| async move { session.login("ada").and_then(|()| ok()) };
    block_on(async {
        for _ in 0..2 {
            visit(&store, &mut Cookies::new(), login).await;
        }
        let cookies = &mut Cookies::new();
        set(&store, cookies, "cart").await;
        visit(&store, cookies, login).await;
    });
}

pub(crate) fn cause_every_event() {
    block_on(async {
        Request::new(()).session().await.unwrap_err(); // not_wrapped
        let forged = Request::post("/").header("sec-fetch-site", "cross-site").body(()).unwrap();
        CrossOriginProtection::new().check(&forged).unwrap_err(); // cross_origin_refused
        subjects().await;
        cookie_sessions().await;
        server_sessions().await;
        bound_sessions().await;
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(near_cache());
}

/// Empties the near-cache before a real server: `near_cache_emptied`, and `eviction_policy`.
async fn near_cache() {
    let server = Server::with(&["--maxmemory-policy", "allkeys-lru"]);
    let emptied = Arc::new(Notify::new());
    let note = Arc::clone(&emptied);
    let observer = move |event: &Event<'_>| {
        if matches!(event.kind, EventKind::NearCacheEmptied { .. }) {
            note.notify_one();
        }
    };
    let builder = RedisStore::builder(server.url()).prefix("test").near_cache(NearCache::new());
    let _store = crate::server::unhurried(builder).observer(observer).connect().await.unwrap();
    assert_eq!(server.cli(&["FLUSHALL"]), "OK");
    tokio::time::timeout(PATIENCE, emptied.notified()).await.unwrap();
}

async fn bound_sessions() {
    let clock = FakeClock::at(1_000_000);
    let options = DeviceBound::new();
    let store = CookieStore::builder(AppKey::generate().unwrap()).clock(clock.clone()).device_bound(options);
    let service =
        session_fn(store.build().unwrap(), |request: Request<()>, handle: SessionHandle| async move {
            let session = handle.load().await?;
            if request.uri().path() == "/login" {
                session.login("ada")?;
            }
            Ok::<_, Error>(Response::new(Bytes::new()))
        })
        .device_bound(|json| json);
    let (device, mut cookies) = (Device::new(), Cookies::new());
    let call = async |path: &str, fields: &[(&str, &str)], cookies: &mut Cookies| {
        let method = if path.starts_with("/device-bound") { "POST" } else { "GET" };
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let mut request = request.body(()).unwrap();
        request.headers_mut().extend(cookies.header().map(|cookies| (http::header::COOKIE, cookies)));
        let response = service.call(request).await.unwrap();
        cookies.receive(response.headers());
        response
    };
    let offer = offer(call("/login", &[], &mut cookies).await.headers()).unwrap();
    let proof = device.registration(&offer.challenge);
    let bound = call(&offer.path, &[("secure-session-response", &proof)], &mut cookies).await; // device_bound
    let instructions: serde_json::Value = serde_json::from_slice(bound.body()).unwrap();
    let id = ("sec-secure-session-id", instructions["session_identifier"].as_str().unwrap());
    let refresh = instructions["refresh_url"].as_str().unwrap();
    let asked = call(refresh, &[id], &mut cookies).await;
    let proof = device.refresh(&challenge(asked.headers()));
    for _ in 0..2 {
        call(refresh, &[id, ("secure-session-response", &proof)], &mut cookies).await; // device_proved, ..._refused
    }
    clock.advance(IDLE);
    call("/", &[], &mut cookies).await; // binding_lapsed
}

async fn cookie_sessions() {
    let revocations = Revocations::in_memory().max_revocations(1);
    let revocable =
        CookieStore::builder(AppKey::generate().unwrap()).revocations(revocations).build().unwrap();
    for subject in ["ada", "bob"] {
        revocable.end_sessions_of(subject).await.unwrap(); // a floor
    }
    let clock = FakeClock::at(1_000_000);
    let text = AppKey::generate().unwrap().to_text();
    let old = || text.parse::<AppKey>().unwrap();
    let store = CookieStore::builder(old()).clock(clock.clone()).build().unwrap();
    CookieStore::builder(old()).development().build().unwrap(); // insecure_cookie

    // A response that a cache may keep, and that sets another cookie of the name: both are reported.
    let mut cookies = Cookies::new();
    visit(&store, &mut cookies, |session| async move {
        session.set("a", SECRETS[0])?;
        let response = Response::builder().header("cache-control", "public");
        Ok(response.header("set-cookie", "__Host-session=planted").body(()).unwrap())
    })
    .await;
    let big = |session: Session| async move { session.set("b", "x".repeat(99_999)).and_then(|()| ok()) };
    assert_eq!(visit(&store, &mut cookies, big).await.status(), 500); // too_large

    // Another key seals: old_key. Without the old one: refused.
    let ring = Keyring::new(AppKey::generate().unwrap()).accept(old());
    let rotated = CookieStore::builder(ring).clock(clock.clone()).build().unwrap();
    visit(&rotated, &mut cookies.clone(), |_| async { ok() }).await;
    let token = String::from_utf8(cookies.get("__Host-session").unwrap().to_vec()).unwrap();
    let mut altered = token.clone().into_bytes();
    altered[60] = if altered[60] == b'A' { b'B' } else { b'A' };
    visit(&store, &mut presenting(&String::from_utf8(altered).unwrap()), |_| async { ok() }).await;
    clock.advance(Duration::from_secs(25 * 3_600));
    visit(&store, &mut cookies, |_| async { ok() }).await; // expired

    // A store that reads another format beside its own: cookie_format.
    let keys = || AppKey::generate().unwrap();
    let both = CookieStore::builder(keys()).migrate_from_astra(keys(), Timestamp::MAX).build().unwrap();
    visit(&both, &mut presenting("planted"), |_| async { ok() }).await;

    let server = ServerStore::with_backend(Memory::new()).clock(clock.clone()).build().unwrap();
    set(&store, &mut cookies, "f").await;
    let moving = MigratingStore::new(server, store.clone(), Timestamp::MAX).unwrap();
    visit(&moving, &mut cookies, |_| async { ok() }).await; // migrating

    // Two users in one request: several_sessions. And more cookies than are looked at: too_many_candidates.
    let mut jars = [Cookies::new(), Cookies::new()];
    for (jar, user) in jars.iter_mut().zip(["ada", "bob"]) {
        visit(&store, jar, |session| async move { session.login(user).and_then(|()| ok()) }).await;
    }
    let two = jars.map(|jar| jar.header().unwrap().to_str().unwrap().to_owned()).join("; ");
    let many = ["__Host-session=planted"; 65].join("; ");
    let service = session_fn(store, |_: Request<()>, handle: SessionHandle| async move {
        handle.load().await.and_then(|_| ok())
    });
    for header in [two, many] {
        let request = Request::builder().header("cookie", header).body(()).unwrap();
        service.call(request).await.unwrap();
    }
}

async fn server_sessions() {
    let clock = FakeClock::at(1_000_000);
    let backend = Faulty::new(Memory::new());
    let store =
        ServerStore::with_backend(backend.clone()).idle_timeout(IDLE).clock(clock.clone()).build().unwrap();
    let mut cookies = Cookies::new();
    set(&store, &mut cookies, "a").await; // created

    visit(&store, &mut cookies.clone(), |session| async move {
        assert_eq!(session.get_lenient::<u64>("a"), None); // value_unreadable
        ok()
    })
    .await;

    // Another request comes in between: conflict_merged, then session_ended.
    visit(&store, &mut cookies.clone(), |session| {
        let (store, mut other) = (store.clone(), cookies.clone());
        async move {
            session.set("b", 1)?;
            set(&store, &mut other, "c").await;
            ok()
        }
    })
    .await;
    clock.advance(IDLE / 2);
    visit(&store, &mut cookies, |_| async { ok() }).await; // touched
    visit(&store, &mut cookies, |session| async move { session.regenerate().and_then(|()| ok()) }).await;
    visit(&store, &mut cookies.clone(), |session| {
        let (store, mut other) = (store.clone(), cookies.clone());
        async move {
            session.set("d", 1)?;
            end(&store, &mut other).await; // destroyed
            ok()
        }
    })
    .await;
    visit(&store, &mut cookies, |_| async { ok() }).await; // unknown_id

    set(&store, &mut cookies, "e").await;
    backend.fail(Primitive::Fetch, Fault::Unreachable);
    visit(&store, &mut cookies.clone(), |_| async { ok() }).await; // store_failed
    backend.repair();

    // Saved under a new token, which a 1xx response cannot carry: cookie_withheld.
    visit(&store, &mut Cookies::new(), |session| async move {
        session.set("f", SECRETS[0])?;
        session.save().await?;
        Ok(Response::builder().status(101).body(()).unwrap())
    })
    .await;

    // The client goes away while its session is being ended: interrupted.
    let before = backend.calls(Primitive::Replace);
    backend.fail(Primitive::Replace, Fault::Delayed);
    let mut gone = cookies.clone();
    let mut ending = Box::pin(end(&store, &mut gone));
    poll_fn(|cx| {
        assert!(pin!(&mut ending).poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
    drop(ending);
    while backend.calls(Primitive::Replace) == before {
        yield_now().await;
    }
    for _ in 0..4 {
        yield_now().await;
    }
    assert!(visit(&store, &mut cookies, |_| async { ok() }).await.headers().contains_key("set-cookie"));
}
