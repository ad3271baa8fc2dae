//! The shop as its visitors see it: on a cookie store, with and without revocations, and in memory, by one line each.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_session::store::{Builder, Store};
use hyper_session::testing::{self, FakeClock};
use hyper_session::{
    AppKey, CookieStore, CrossOriginProtection, MemoryStore, Revocations, Timeouts, session_fn,
};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;

use crate::shop::{DAY, Shop};
use crate::support::{Jar, block_on, set_cookies};

const START: u64 = 1_700_000_000;
const MINUTE: u64 = 60;

/// The options of the shop, the same for any store.
fn options<K>(builder: Builder<K>, clock: &FakeClock) -> Builder<K> {
    let visitors = Timeouts {
        idle: Duration::from_secs(20 * MINUTE),
        absolute: Duration::from_secs(120 * MINUTE),
        renewal: Duration::from_secs(2 * MINUTE),
    };
    builder
        .development()
        .timeouts(Timeouts::owasp_low_value())
        .anonymous_timeouts(visitors)
        .longest_lifetime(30 * DAY)
        .clock(clock.clone())
}

fn stores(clock: &FakeClock) -> [Arc<dyn Store>; 3] {
    let cookies = || CookieStore::builder(AppKey::generate().unwrap());
    [
        Arc::new(options(cookies(), clock).build().unwrap()),
        Arc::new(options(cookies().revocations(Revocations::in_memory()), clock).build().unwrap()),
        Arc::new(options(MemoryStore::builder(), clock).build().unwrap()),
    ]
}

async fn serve(store: Arc<dyn Store>) -> SocketAddr {
    let shop = Shop { store: Arc::clone(&store) };
    let service =
        CrossOriginProtection::new().wrap(session_fn(store, move |request: Request<Incoming>, session| {
            let shop = shop.clone();
            async move { Ok::<_, Infallible>(shop.answer(request, session).await) }
        }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service.clone();
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

/// A person with a browser.
struct Visitor {
    shop: SocketAddr,
    agent: &'static str,
    jar: Jar,
    csrf: String,
}

struct Seen {
    status: u16,
    text: String,
    lines: Vec<String>,
}

impl Visitor {
    fn new(shop: SocketAddr, agent: &'static str) -> Self {
        Self { shop, agent, jar: Jar::new(), csrf: String::new() }
    }

    async fn send(&mut self, method: &str, path: &str, form: &[(&str, &str)], site: &str) -> Seen {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.shop))
            .header("user-agent", self.agent)
            .header("sec-fetch-site", site);
        if let Some(cookies) = self.jar.header() {
            request = request.header("cookie", cookies);
        }
        let client = Client::builder(TokioExecutor::new()).build_http();
        let response: Response<Incoming> =
            client.request(request.body(Full::<Bytes>::from(body)).unwrap()).await.unwrap();
        self.jar.store(response.headers());
        let (status, lines) = (response.status().as_u16(), set_cookies(response.headers()));
        let text = response.into_body().collect().await.unwrap().to_bytes();
        Seen { status, text: String::from_utf8(text.to_vec()).unwrap(), lines }
    }

    async fn get(&mut self, path: &str) -> Seen {
        self.send("GET", path, &[], "same-origin").await
    }

    /// Opens the page, and remembers the token of its form.
    async fn home(&mut self) -> Seen {
        let seen = self.get("/").await;
        assert_eq!(seen.status, 200);
        let csrf = seen.text.lines().find_map(|line| line.strip_prefix("csrf=")).unwrap();
        self.csrf = String::from(csrf);
        seen
    }

    /// Sends a form of the page that is open.
    async fn post(&mut self, path: &str, form: &[(&str, &str)]) -> Seen {
        let csrf = self.csrf.clone();
        let form: Vec<_> = form.iter().copied().chain([("csrf", &*csrf)]).collect();
        self.send("POST", path, &form, "same-origin").await
    }

    async fn log_in(&mut self, remember: &str) -> Seen {
        self.home().await;
        let seen = self.post("/login", &[("user", "ada"), ("remember", remember)]).await;
        assert_eq!(seen.status, 303, "{}", seen.text);
        seen
    }

    async fn is_logged_in(&mut self) -> bool {
        self.home().await.text.contains("user=ada\n")
    }
}

async fn fills_a_cart_logs_in_and_out(store: Arc<dyn Store>) {
    let mut ada = Visitor::new(serve(store).await, "Firefox");
    ada.home().await;
    for item in ["tea", "milk"] {
        assert_eq!(ada.post("/cart", &[("item", item)]).await.status, 303);
    }
    let home = ada.home().await.text;
    assert!(home.contains("cart=tea,milk\n"), "{home}");
    assert!(home.contains("notices=It is in your cart.|It is in your cart.\n"), "{home}");
    assert!(ada.home().await.text.contains("notices=\n"), "shown once");
    ada.log_in("").await;
    let home = ada.home().await.text;
    assert!(home.contains("user=ada\ncart=tea,milk\nnotices=Welcome, ada.\n"), "{home}");
    assert_eq!(ada.post("/logout", &[]).await.status, 303);
    assert!(ada.jar.0.is_empty());
    assert!(!ada.is_logged_in().await);
}

async fn lists_devices_and_logs_the_others_out(store: Arc<dyn Store>) {
    let shop = serve(store).await;
    let (mut phone, mut laptop) = (Visitor::new(shop, "phone"), Visitor::new(shop, "laptop"));
    phone.log_in("on").await;
    laptop.log_in("").await;
    assert_eq!(laptop.get("/devices").await.text, "phone\nlaptop (this one)\n");
    logs_the_others_out(&mut laptop, &mut [phone], "1 other devices").await;
}

async fn logs_the_others_out(mine: &mut Visitor, others: &mut [Visitor], notice: &str) {
    mine.home().await;
    assert_eq!(mine.post("/devices/end-others", &[]).await.status, 303);
    let home = mine.home().await.text;
    assert!(home.contains(&format!("notices={notice} are logged out.\n")), "{home}");
    for other in others {
        assert!(!other.is_logged_in().await);
    }
    assert!(mine.is_logged_in().await);
}

#[test]
fn a_visitor_fills_a_cart_logs_in_and_out() {
    block_on(async {
        let clock = FakeClock::at(START);
        for store in stores(&clock) {
            fills_a_cart_logs_in_and_out(store).await;
        }
    });
}

/// The same program on Redis, by another line. Redis' own clock decides there, so nothing waits for a timeout.
#[cfg(feature = "redis")]
#[test]
fn the_shop_on_redis() {
    let server = crate::redis_server::Server::start();
    block_on(async {
        let now = hyper_session::Clock::now(&hyper_session::SystemClock).as_unix();
        let clock = FakeClock::at(now);
        let redis = hyper_session::RedisStore::builder(format!("redis://127.0.0.1:{}", server.port));
        let redis = crate::redis_server::unhurried(redis.prefix("shop"));
        let store = options(redis, &clock).connect().await.unwrap();
        fills_a_cart_logs_in_and_out(Arc::new(store.clone())).await;
        lists_devices_and_logs_the_others_out(Arc::new(store)).await;
    });
}

#[test]
fn forms_of_others_and_of_before_the_login_are_refused() {
    block_on(async {
        let clock = FakeClock::at(START);
        for store in stores(&clock) {
            let mut ada = Visitor::new(serve(store).await, "Firefox");
            ada.log_in("").await;
            assert_eq!(
                ada.post("/cart", &[("item", "x")]).await.status,
                403,
                "the form was from before the login"
            );
            ada.home().await;
            let csrf = ada.csrf.clone();
            for site in ["cross-site", "same-site"] {
                assert_eq!(
                    ada.send("POST", "/cart", &[("item", "x"), ("csrf", &csrf)], site).await.status,
                    403
                );
            }
            assert_eq!(
                ada.send("POST", "/cart", &[("item", "x")], "same-origin").await.status,
                403,
                "no token"
            );
            assert!(ada.home().await.text.contains("cart=\n"));
            assert_eq!(ada.post("/cart", &[("item", "tea")]).await.status, 303);
        }
    });
}

#[test]
fn remember_me_outlasts_the_night_and_a_browser_session_does_not() {
    block_on(async {
        let clock = FakeClock::at(START);
        for store in stores(&clock) {
            clock.set(START);
            let shop = serve(store).await;
            let (mut at_home, mut at_work) = (Visitor::new(shop, "home"), Visitor::new(shop, "work"));
            let kept = at_home.log_in("on").await;
            assert!(kept.lines[0].contains("Max-Age=2592000"), "{:?}", kept.lines);
            let closed = at_work.log_in("").await;
            assert!(!closed.lines[0].contains("Max-Age"), "{:?}", closed.lines);
            clock.set(START + 12 * 3_600);
            assert!(at_home.is_logged_in().await && !at_work.is_logged_in().await);
            clock.set(START + 30 * 24 * 3_600);
            assert!(!at_home.is_logged_in().await);
        }
    });
}

#[test]
fn a_countdown_does_not_keep_anyone_logged_in() {
    block_on(async {
        let clock = FakeClock::at(START);
        for store in stores(&clock) {
            clock.set(START);
            let mut ada = Visitor::new(serve(store).await, "Firefox");
            ada.log_in("").await;
            for minutes in (5..30).step_by(5) {
                clock.set(START + minutes * MINUTE);
                let seen = ada.get("/remaining").await;
                assert_eq!((seen.text, seen.lines.len()), (((30 - minutes) * MINUTE).to_string(), 0));
            }
            clock.set(START + 30 * MINUTE);
            assert_eq!(ada.get("/remaining").await.text, "0");
            assert!(!ada.is_logged_in().await);
        }
    });
}

#[test]
fn an_old_login_is_asked_for_the_password_again() {
    block_on(async {
        let clock = FakeClock::at(START);
        for store in stores(&clock) {
            clock.set(START);
            let mut ada = Visitor::new(serve(store).await, "Firefox");
            ada.log_in("on").await;
            ada.home().await;
            assert_eq!(ada.post("/email", &[("email", "a@example.com")]).await.status, 303);
            clock.set(START + 6 * MINUTE);
            ada.home().await;
            assert_eq!(ada.post("/email", &[("email", "b@example.com")]).await.status, 401);
            let before = ada.jar.clone();
            assert_eq!(ada.post("/password", &[]).await.status, 303);
            assert_ne!(ada.jar.0, before.0, "another token");
            ada.home().await;
            assert_eq!(ada.post("/email", &[("email", "b@example.com")]).await.status, 303);
        }
    });
}

#[test]
fn my_devices_are_listed_and_the_others_logged_out() {
    block_on(async {
        let clock = FakeClock::at(START);
        let [cookies, revocable, memory] = stores(&clock);
        lists_devices_and_logs_the_others_out(memory).await;
        let mut ada = Visitor::new(serve(cookies).await, "phone");
        ada.log_in("").await;
        assert_eq!(ada.get("/devices").await.status, 404);
        // A cookie store with revocations keeps no list of sessions. It can still end the others.
        let shop = serve(revocable).await;
        let (mut phone, mut laptop) = (Visitor::new(shop, "phone"), Visitor::new(shop, "laptop"));
        phone.log_in("on").await;
        laptop.log_in("").await;
        assert_eq!(laptop.get("/devices").await.status, 404);
        let thief = Visitor { jar: laptop.jar.clone(), ..Visitor::new(shop, "thief") };
        logs_the_others_out(&mut laptop, &mut [phone, thief], "All other devices").await;
    });
}

/// The handler without a socket, by the test kit.
#[test]
fn the_shop_is_tested_without_a_socket() {
    block_on(async {
        let clock = FakeClock::at(START);
        let store = options(MemoryStore::builder(), &clock).build().unwrap();
        let shop = Shop { store: Arc::new(store.clone()) };
        let service = session_fn(store.clone(), move |request: Request<Full<Bytes>>, session| {
            let shop = shop.clone();
            async move { Ok::<_, Infallible>(shop.answer(request, session).await) }
        });
        let mut token = String::new();
        let request =
            testing::with_session(Request::post("/cart").body(Full::default()).unwrap(), &store, |session| {
                session.login("ada")?;
                token = session.csrf_token()?;
                Ok(())
            });
        let mut request = request.await.unwrap();
        *request.body_mut() = Full::from(format!("item=tea&csrf={token}"));
        let response = hyper::service::Service::call(&service, request).await.unwrap();
        assert_eq!(response.status(), 303);
        let stored = store.sessions_of("ada").await.unwrap();
        assert_eq!(stored.len(), 1);
    });
}
