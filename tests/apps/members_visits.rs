//! The members' area as its visitors see it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_session::MemoryStore;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::members::{Members, app, provider};
use crate::support::{Jar, block_on};

struct Site {
    app: SocketAddr,
    look: Arc<Notify>,
    store: MemoryStore,
}

async fn site() -> Site {
    let listen = || async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        (listener.local_addr().unwrap(), listener)
    };
    let ((at_app, app_listener), (at_provider, provider_listener)) = (listen().await, listen().await);
    let (look, store) = (Arc::new(Notify::new()), MemoryStore::builder().development().build().unwrap());
    let members = Members { provider: at_provider, look: Arc::clone(&look) };
    let app = app(members, store.clone());
    tokio::spawn(async move { axum::serve(app_listener, app).await.unwrap() });
    tokio::spawn(async move { axum::serve(provider_listener, provider(at_app)).await.unwrap() });
    Site { app: at_app, look, store }
}

/// A request by the browser with these cookies; those of the provider are not kept apart, since it sets none.
async fn send(jar: &mut Jar, method: &str, url: &str) -> Response<Incoming> {
    let mut request = Request::builder().method(method).uri(url).header("sec-fetch-site", "same-origin");
    if let Some(cookies) = jar.header() {
        request = request.header("cookie", cookies);
    }
    let client = Client::builder(TokioExecutor::new()).build_http();
    let response = client.request(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap();
    jar.store(response.headers());
    response
}

fn location(response: &Response<Incoming>) -> String {
    assert!(response.status().is_redirection(), "{}", response.status());
    response.headers()["location"].to_str().unwrap().to_owned()
}

async fn text(response: Response<Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

impl Site {
    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.app)
    }

    /// Goes to the provider and back, and returns the address of the last step.
    async fn log_in(&self, jar: &mut Jar) -> String {
        let at_provider = location(&send(jar, "GET", &self.url("/login")).await);
        let back = location(&send(jar, "GET", &at_provider).await);
        assert_eq!(location(&send(jar, "GET", &back).await), "/");
        back
    }
}

async fn next_event(stream: &mut Incoming) -> String {
    let frame = stream.frame().await.expect("an event").unwrap();
    String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()
}

#[test]
fn a_member_comes_back_from_the_provider_logged_in() {
    block_on(async {
        let site = site().await;
        let mut jar = Jar::new();
        assert_eq!(location(&send(&mut jar, "GET", &site.url("/")).await), "/login");
        let back = site.log_in(&mut jar).await;
        assert_eq!(text(send(&mut jar, "GET", &site.url("/")).await).await, "hello, ada");
        // The way back leads nowhere a second time, nor in another browser.
        assert_eq!(send(&mut jar, "GET", &back).await.status(), 403, "a state from before the login");
        assert_eq!(send(&mut Jar::new(), "GET", &back).await.status(), 403);
        let mut other = Jar::new();
        send(&mut other, "GET", &site.url("/login")).await;
        assert_eq!(send(&mut other, "GET", &back).await.status(), 403, "the state of another session");
    });
}

#[test]
fn a_stream_sees_roles_change_and_ends_with_a_logout_elsewhere() {
    block_on(async {
        let site = site().await;
        let mut jar = Jar::new();
        assert_eq!(send(&mut Jar::new(), "GET", &site.url("/events")).await.status(), 401);
        site.log_in(&mut jar).await;
        let response = send(&mut jar.clone(), "GET", &site.url("/events")).await;
        assert!(!response.headers().contains_key("set-cookie"));
        let mut stream = response.into_body();
        assert_eq!(next_event(&mut stream).await, "data: reader\n\n");
        assert_eq!(send(&mut jar, "POST", &site.url("/role")).await.status(), 200);
        site.look.notify_one();
        assert_eq!(next_event(&mut stream).await, "data: editor\n\n");
        assert_eq!(send(&mut jar, "POST", &site.url("/logout")).await.status(), 200);
        site.look.notify_one();
        assert_eq!(next_event(&mut stream).await, "event: end\ndata: unknown_id\n\n");
        assert!(stream.frame().await.is_none(), "closed");
    });
}

#[test]
fn a_stream_ends_when_the_browser_has_left() {
    block_on(async {
        let site = site().await;
        let mut jar = Jar::new();
        site.log_in(&mut jar).await;
        let before = Arc::strong_count(&site.look);
        let mut stream = send(&mut jar, "GET", &site.url("/events")).await.into_body();
        assert_eq!(next_event(&mut stream).await, "data: reader\n\n");
        assert!(Arc::strong_count(&site.look) > before, "the task of the stream has it");
        drop(stream);
        let has_ended = async {
            while Arc::strong_count(&site.look) > before {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), has_ended).await.expect("the stream ends");
    });
}

/// Opens the WebSocket of a page that the site sent, or of another site.
async fn open_socket(jar: &Jar, site: &Site, from: &str) -> Response<Incoming> {
    let request = Request::get(site.url("/socket"))
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("sec-fetch-site", from)
        .header("cookie", jar.header().unwrap_or_default());
    let client = Client::builder(TokioExecutor::new()).build_http();
    client.request(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap()
}

#[test]
fn a_websocket_is_closed_by_a_logout_elsewhere() {
    block_on(async {
        let site = site().await;
        let mut jar = Jar::new();
        assert_eq!(open_socket(&jar, &site, "same-origin").await.status(), 401);
        site.log_in(&mut jar).await;
        assert_eq!(open_socket(&jar, &site, "cross-site").await.status(), 403);
        let response = open_socket(&jar, &site, "same-origin").await;
        assert_eq!(response.status(), 101);
        // The example of RFC 6455 section 1.3.
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let mut socket = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        let mut text = [0; 7];
        socket.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"\x81\x05hello");

        site.look.notify_one();
        assert_eq!(site.store.end_sessions_of("ada", None).await.unwrap(), 1);
        site.look.notify_one();
        let mut rest = Vec::new();
        socket.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, [0x88, 2, 0x03, 0xf0]);
    });
}

#[test]
fn an_administrator_ends_the_streams_of_a_member() {
    block_on(async {
        let site = site().await;
        let mut jar = Jar::new();
        site.log_in(&mut jar).await;
        let mut stream = send(&mut jar, "GET", &site.url("/events")).await.into_body();
        next_event(&mut stream).await;
        assert_eq!(site.store.end_sessions_of("ada", None).await.unwrap(), 1);
        site.look.notify_one();
        assert_eq!(next_event(&mut stream).await, "event: end\ndata: unknown_id\n\n");
        assert_eq!(location(&send(&mut jar, "GET", &site.url("/")).await), "/login");
    });
}
