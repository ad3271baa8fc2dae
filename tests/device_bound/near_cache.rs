//! Hosts that read sessions from a near-cache, in which a session may be as it was before another host bound it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, Version};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::service::{Service, service_fn};
use hyper_session::store::redis::NearCache;
use hyper_session::testing::{FakeClock, Relay};
use hyper_session::{AppKey, Keyring, RedisStore};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};

use crate::browser::{Browser, with_cookies};
use crate::device::{Device, Offer};
use crate::server::{Server, unhurried};
use crate::site::{Body, Events, GRACE, LIFETIME, Site, block_on, key, observer, text};
use crate::store_kinds::SharedStorage;

/// A host whose store has a near-cache, if `cache` says so.
async fn host(url: String, clock: &FakeClock, cache: Option<NearCache>) -> (Site, RedisStore) {
    host_with(url, clock, cache, key().into()).await
}

/// The same, which seals its entries by these keys.
async fn host_with(
    url: String,
    clock: &FakeClock,
    cache: Option<NearCache>,
    keys: Keyring,
) -> (Site, RedisStore) {
    let events = Events::default();
    let builder = unhurried(RedisStore::builder(url).prefix("s")).seal_records(keys);
    let builder = match cache {
        // Behind a line that goes silent, a command is sent again after a second.
        Some(cache) => builder.near_cache(cache).command_timeout(Duration::from_secs(2)),
        None => builder,
    };
    let builder = builder
        .clock(clock.clone())
        .observer(observer(&events))
        .device_bound(hyper_session::DeviceBound::new().keys(key()));
    let store = builder.connect().await.unwrap();
    let site =
        Site { kind: "Redis", store: Arc::new(store.clone()), clock: clock.clone(), events, place: None };
    (site, store)
}

/// Reads until the near-cache answers.
async fn warm(site: &Site, store: &RedisStore, browser: &mut Browser) {
    let before = store.backend().stats().near_cache_hits;
    while store.backend().stats().near_cache_hits == before {
        assert_eq!(browser.read(site, "/").await, "ada unbound 0");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A host that has a session in its near-cache as it was before another host bound it.
struct Stale {
    bound_by: Site,
    site: Site,
    store: RedisStore,
    browser: Browser,
    /// Another device, which has the previous cookie and the previous offer.
    thief: Browser,
    offer: Offer,
    _running: (Server, Relay),
}

impl Stale {
    async fn new() -> Self {
        let start = Instant::now();
        loop {
            let mut stale = Self::bound_with(key().into()).await;
            let before = stale.hits();
            assert!(stale.browser.read(&stale.site, "/").await.starts_with("ada"));
            if stale.hits() > before {
                return stale;
            }
            assert_may_try_again(start);
        }
    }

    /// The host that binds the session has these keys. The other one has that of the tests.
    async fn bound_with(keys: Keyring) -> Self {
        let (server, clock) = (Server::start(), SharedStorage::clock());
        let relay = Relay::before(("127.0.0.1", server.port)).unwrap();
        let cache = NearCache::new().max_staleness(Duration::from_secs(10));
        let (before, _) = host(server.url(), &clock, None).await;
        let (bound_by, _) = host_with(server.url(), &clock, None, keys).await;
        let (site, store) = host(format!("redis://{}", relay.address()), &clock, Some(cache)).await;
        let mut browser = Browser::new();
        let offer = browser.log_in(&before).await;
        warm(&site, &store, &mut browser).await;
        // The reports of changes do not come through.
        relay.silence_open_connections();
        let thief = Browser { device: Device::new(), cookies: browser.cookies.clone(), bound: None };
        browser.bind_by(&bound_by, &offer).await;
        Self { bound_by, site, store, browser, thief, offer, _running: (server, relay) }
    }

    /// How often the near-cache of the host has answered.
    fn hits(&self) -> u64 {
        self.store.backend().stats().near_cache_hits
    }
}

/// A machine that takes a second to bind a session may have emptied the near-cache: the caller tries again. Fails two minutes after
/// `start`.
fn assert_may_try_again(start: Instant) {
    assert!(start.elapsed() < Duration::from_secs(120), "the near-cache never answers");
}

// Status 401 would end the binding in the browser, and the session with it after the grace.
#[test]
fn a_host_with_a_stale_session_does_not_end_its_binding() {
    block_on(async {
        let mut stale = Stale::new().await;
        assert_eq!(stale.browser.refresh(&stale.site).await, 200);
        stale.site.clock.advance(GRACE);
        assert_eq!(stale.browser.read(&stale.bound_by, "/").await, "ada bound 0");
    });
}

// The host that bound the session has sealed it with a key that the other one does not have yet.
#[test]
fn b2_a_host_with_a_stale_session_that_it_cannot_read_any_more_does_not_end_its_binding() {
    block_on(async {
        let start = Instant::now();
        loop {
            let next = AppKey::danger_from_any_bytes(b"the next key").unwrap();
            let mut stale = Stale::bound_with(Keyring::new(next).accept(key())).await;
            let before = stale.hits();
            let page = stale.browser.read(&stale.site, "/").await;
            assert_eq!(stale.browser.ask(&stale.site).await.status(), 503);
            assert_eq!(stale.browser.refresh(&stale.bound_by).await, 200);
            if stale.hits() >= before + 2 {
                assert!(page.starts_with("ada"), "the near-cache answers: {page}");
                break;
            }
            assert_may_try_again(start);
        }
    });
}

#[test]
fn a_host_with_a_stale_session_binds_it_to_no_other_device() {
    block_on(async {
        let mut stale = Stale::new().await;
        assert_eq!(stale.thief.register(&stale.site, &stale.offer).await.status(), 401);
        assert_eq!(stale.site.events(), ["refused:already_bound"]);
        stale.site.clock.advance(GRACE);
        for site in [&stale.site, &stale.bound_by] {
            assert_eq!(stale.browser.read(site, "/").await, "ada bound 0");
            assert_eq!(stale.thief.read(site, "/").await, "stranger lapsed 0");
        }
    });
}

/// Serves `site` over HTTP/2, and returns a client with one connection.
async fn over_http2(site: &Site) -> http2::SendRequest<Body> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let site = site.clone();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let connection = Arc::new(site.connection());
        let service = service_fn(move |request: Request<Incoming>| {
            let connection = Arc::clone(&connection);
            async move { connection.call(request.map(|_| Body::default())).await }
        });
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = builder.serve_connection(TokioIo::new(stream), service).await;
    });
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// Sends `count` requests at once over one connection, and returns their pages, sorted.
async fn at_once(
    client: &http2::SendRequest<Body>,
    browser: &Browser,
    path: &str,
    count: usize,
) -> Vec<String> {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..count {
        let mut client = client.clone();
        let builder = Request::get(format!("http://localhost{path}")).version(Version::HTTP_2);
        let request = with_cookies(builder, &browser.cookies);
        tasks.spawn(async move {
            let response = client.send_request(request).await.unwrap();
            let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap();
            text(http::Response::new(Body::new(body.to_bytes()))).await
        });
    }
    let mut pages = tasks.join_all().await;
    pages.sort_unstable();
    pages
}

#[test]
fn fifty_requests_at_once_find_the_session_bound_on_a_host_with_a_near_cache() {
    let (server, clock) = (Server::start(), SharedStorage::clock());
    block_on(async {
        let (one, _) = host(server.url(), &clock, None).await;
        let (two, store) = host(server.url(), &clock, Some(NearCache::new())).await;
        let client = over_http2(&two).await;
        let mut browser = Browser::new();
        let offer = browser.log_in(&one).await;
        warm(&two, &store, &mut browser).await;
        browser.bind_by(&one, &offer).await;
        clock.advance(GRACE);
        for round in 0..3 {
            if round > 0 {
                clock.advance(LIFETIME);
                assert_eq!(at_once(&client, &browser, "/", 50).await, ["stranger lapsed 0"; 50]);
                assert_eq!(browser.refresh(&two).await, 200);
            }
            // The report of the binding may still be on its way.
            while browser.read(&two, "/").await.contains("unbound") {}
            assert_eq!(
                at_once(&client, &browser, "/", 50).await,
                vec![format!("ada bound {}", 50 * round); 50]
            );
            let pages = at_once(&client, &browser, "/visit", 50).await;
            assert!(pages.iter().all(|page| page.starts_with("ada bound ")), "{pages:?}");
            let visits = browser.read(&one, "/").await;
            assert_eq!(visits, format!("ada bound {}", 50 * (round + 1)), "no change is lost");
            while browser.read(&two, "/").await != visits {}
        }
    });
}
