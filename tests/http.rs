//! Sessions over real sockets: HTTP/1.1 and HTTP/2, keep-alive, pipelining, crumbs, streams, shutdown and hang-ups.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]
#![allow(unreachable_pub, clippy::redundant_closure_for_method_calls, clippy::too_many_lines)]

mod support;

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, COOKIE, HeaderValue, SET_COOKIE, VARY};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Body as HttpBody, Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper_session::cookie::{CookieOptions, MAX_CHUNKS};
use hyper_session::store::{Backend, Memory, Replaced, Store, Stored};
use hyper_session::{
    AppKey, CookieStore, Error, Event, MemoryStore, Refusal, ServerStore, Session, SessionExt, SessionHandle,
    SessionId, SessionService, Timestamp, session_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use support::{Answer, Body, Events, Jar, block_on, refused, set_cookies};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Runs a test. The timeout is a net under tests that hang: none of them waits for time to pass.
fn run(test: impl Future<Output = ()>) {
    block_on(async {
        tokio::time::timeout(Duration::from_secs(30), test).await.expect("the test hangs");
    });
}

// --------------------------------------------------------------------------------------------------------- servers

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Serves on a port of its own, each connection as HTTP/1 or HTTP/2 as it comes, until the test ends.
async fn serve<S, R>(service: S) -> SocketAddr
where
    S: Service<Request<Incoming>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    R: HttpBody + Send + 'static,
    R::Data: Send,
    R::Error: Into<BoxError>,
{
    serve_with(auto::Builder::new(TokioExecutor::new()), service).await
}

async fn serve_with<S, R>(builder: auto::Builder<TokioExecutor>, service: S) -> SocketAddr
where
    S: Service<Request<Incoming>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    R: HttpBody + Send + 'static,
    R::Data: Send,
    R::Error: Into<BoxError>,
{
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (builder, service) = (builder.clone(), service.clone());
            tokio::spawn(async move {
                // A client that hangs up is an error here, and what some tests are about.
                drop(builder.serve_connection(TokioIo::new(stream), service).await);
            });
        }
    });
    address
}

/// What the handlers of most tests do, by path. Only `/ping` never asks for its session.
async fn app<B>(request: &Request<B>, session: impl Future<Output = Result<Session, Error>>) -> Answer {
    let fields = request.headers().get_all(COOKIE).iter().count();
    let (path, argument) =
        request.uri().path()[1..].split_once('/').unwrap_or((&request.uri().path()[1..], ""));
    let mut response = Response::new(Body::default());
    if path != "ping" {
        let session = session.await?;
        match path {
            "count" => {
                let visits = session.update("visits", |old: Option<u64>| old.unwrap_or(0) + 1)?;
                *response.body_mut() = format!("visit {visits}\n").into();
            }
            "login" => session.set("user", argument)?,
            "fill" => session.set("blob", "x".repeat(argument.parse().unwrap()))?,
            "size" => {
                let blob = session.get_str("blob")?;
                *response.body_mut() = blob.map_or(0, |blob| blob.len()).to_string().into();
            }
            "who" => *response.body_mut() = session.get::<String>("user")?.unwrap_or_default().into(),
            "logout" => session.destroy()?,
            "status" => {
                session.set("user", argument)?;
                *response.status_mut() = argument.parse().unwrap();
            }
            other => panic!("no such path: {other}"),
        }
    }
    response.headers_mut().insert("x-cookie-fields", fields.into());
    Ok(response)
}

/// The app behind both adapters.
async fn serve_both(store: impl Store + Clone) -> [SocketAddr; 2] {
    let with_handle =
        session_fn(store.clone(), |request: Request<Incoming>, session: SessionHandle| async move {
            app(&request, async move { session.load().await }).await
        });
    let with_extension = service_fn(|request: Request<Incoming>| async move {
        let session = request.session();
        app(&request, session).await
    });
    [serve(with_handle).await, serve(SessionService::new(with_extension, store)).await]
}

fn cookie_store(name: &str, events: &Events) -> CookieStore {
    let options = CookieOptions::development().max_chunks(MAX_CHUNKS).name(name);
    let keys = AppKey::generate().unwrap();
    CookieStore::builder(keys).cookie(options).observer(events.clone()).build().unwrap()
}

fn memory_store(name: &str, events: &Events) -> MemoryStore {
    let options = CookieOptions::development().max_chunks(MAX_CHUNKS).name(name);
    MemoryStore::builder().cookie(options).observer(events.clone()).build().unwrap()
}

/// The app on both kinds of store, behind both adapters, with the cookie `s`.
async fn servers() -> Vec<(SocketAddr, Events)> {
    let (cookie, memory) = (Events::new(), Events::new());
    let mut servers = Vec::new();
    servers.extend(serve_both(cookie_store("s", &cookie)).await.map(|address| (address, cookie.clone())));
    servers.extend(serve_both(memory_store("s", &memory)).await.map(|address| (address, memory.clone())));
    cookie.take();
    memory.take();
    servers
}

// --------------------------------------------------------------------------------------------------------- clients

#[derive(Clone, Copy, Debug, PartialEq)]
enum Version {
    One,
    Two,
}

const VERSIONS: [Version; 2] = [Version::One, Version::Two];

enum Sender {
    One(http1::SendRequest<Body>),
    Two(http2::SendRequest<Body>),
}

/// One connection, closed when it is dropped.
struct Client {
    sender: Sender,
    connection: JoinHandle<()>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Client {
    async fn connect(version: Version, address: SocketAddr) -> Self {
        let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
        match version {
            Version::One => {
                let (sender, connection) = http1::handshake(io).await.unwrap();
                let connection = tokio::spawn(async { drop(connection.await) });
                Self { sender: Sender::One(sender), connection }
            }
            Version::Two => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
                let connection = tokio::spawn(async { drop(connection.await) });
                Self { sender: Sender::Two(sender), connection }
            }
        }
    }

    /// Starts a request with these `Cookie` fields.
    fn send(&mut self, method: Method, path: &str, cookies: &[String]) -> Answering {
        let uri = match self.sender {
            Sender::One(_) => path.to_owned(),
            Sender::Two(_) => format!("http://localhost{path}"),
        };
        let mut request = Request::builder().method(method).uri(uri).header("host", "localhost");
        for cookie in cookies {
            request = request.header(COOKIE, cookie);
        }
        let request = request.body(Body::default()).unwrap();
        match &mut self.sender {
            Sender::One(sender) => Box::pin(sender.send_request(request)),
            Sender::Two(sender) => Box::pin(sender.send_request(request)),
        }
    }

    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        cookies: &[String],
    ) -> (StatusCode, HeaderMap, String) {
        let (head, body) = self.send(method, path, cookies).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head.status, head.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn get(&mut self, path: &str, cookies: &[String]) -> String {
        let (status, _, body) = self.ask(Method::GET, path, cookies).await;
        assert_eq!(status, 200, "{path}");
        body
    }

    /// As the browser with this jar.
    async fn visit(&mut self, path: &str, jar: &mut Jar) -> String {
        let cookies: Vec<_> = jar.header().into_iter().collect();
        let (status, headers, body) = self.ask(Method::GET, path, &cookies).await;
        assert_eq!(status, 200, "{path}");
        jar.store(&headers);
        body
    }
}

type Answering = Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>>;

/// All that a server sends to these bytes until it closes the connection.
async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

/// A jar that is logged in as `user`.
async fn logged_in(address: SocketAddr, user: &str) -> Jar {
    let mut jar = Jar::new();
    Client::connect(Version::One, address).await.visit(&format!("/login/{user}"), &mut jar).await;
    assert!(jar.get("s").is_some());
    jar
}

// ------------------------------------------------------------------------------------------------- one connection

#[test]
fn a_counter_counts_over_a_hundred_requests_of_one_connection() {
    run(async {
        for (address, events) in servers().await {
            for version in VERSIONS {
                let (mut client, mut jar) = (Client::connect(version, address).await, Jar::new());
                for visit in 1..=100 {
                    assert_eq!(client.visit("/count", &mut jar).await, format!("visit {visit}\n"));
                }
                client.visit("/logout", &mut jar).await;
                assert_eq!(jar.get("s"), None);
            }
            assert_eq!(events.take(), Vec::<String>::new());
        }
    });
}

#[test]
fn t38_users_who_share_a_connection_share_nothing_else() {
    run(async {
        for (address, _) in servers().await {
            for version in VERSIONS {
                let mut client = Client::connect(version, address).await;
                let (mut ada, mut bob, mut nobody) = (Jar::new(), Jar::new(), Jar::new());
                client.visit("/login/ada", &mut ada).await;
                client.visit("/login/bob", &mut bob).await;
                for visit in 1..=10 {
                    assert_eq!(client.visit("/count", &mut ada).await, format!("visit {visit}\n"));
                    assert_eq!(client.visit("/who", &mut nobody).await, "");
                    assert_eq!(client.visit("/who", &mut bob).await, "bob");
                    assert_eq!(client.visit("/who", &mut ada).await, "ada");
                }
                assert_eq!(client.visit("/count", &mut bob).await, "visit 1\n");
                client.visit("/logout", &mut bob).await;
                assert_eq!(client.visit("/who", &mut ada).await, "ada");
                assert_eq!(nobody.0.len() + bob.0.len(), 0);
            }
        }
    });
}

// Requests that are answered out of order on one HTTP/2 connection have each their own session.
#[test]
fn t38_concurrent_streams_share_nothing() {
    run(async {
        for (address, _) in servers().await {
            let mut client = Client::connect(Version::Two, address).await;
            let users: Vec<_> = (0..20).map(|n| format!("user{n}")).collect();
            let mut logins = Vec::new();
            for user in &users {
                logins.push(client.send(Method::GET, &format!("/login/{user}"), &[]));
            }
            let mut jars = Vec::new();
            for login in logins {
                jars.push(Jar::new());
                jars.last_mut().unwrap().store(login.await.unwrap().headers());
            }
            let asked: Vec<_> =
                jars.iter().map(|jar| client.send(Method::GET, "/who", &[jar.header().unwrap()])).collect();
            for (answer, user) in asked.into_iter().zip(&users).rev() {
                let body = answer.await.unwrap().into_body().collect().await.unwrap().to_bytes();
                assert_eq!(body, user.as_bytes());
            }
        }
    });
}

#[test]
fn t53_t62_pipelined_requests_in_odd_but_legal_forms_find_the_session() {
    run(async {
        for (address, events) in servers().await {
            let token = logged_in(address, "ada").await.get("s").unwrap().to_owned();
            events.take();
            let forms = [
                format!("Cookie: s={token}\r\n"),
                format!("cOoKiE:s={token}\r\n"),
                format!("COOKIE:\t \ta=1;\ts\t=\t{token}\t \r\n"),
                format!("Cookie: a=1\r\nX-Between: y\r\ncookie: b=2; s={token}; c=3\r\nCookie: d\r\n"),
                format!("Cookie: \r\nCookie: ;;; ;\r\nCookie: s={token};\r\n"),
                format!("Cookie: s2=x; as=y; =s; s; \"s\"=z\r\nCookie: $Version=1; s={token}; $Path=/\r\n"),
                format!("Cookie: caf\u{e9}=\u{2000}; q=\"; s={token}; \"\r\n"),
            ];
            let last = "Connection: close\r\nCookie: S=x; s2=y\r\n";
            let heads = forms.iter().map(String::as_str).chain([last]);
            let bytes: String =
                heads.flat_map(|form| ["GET /who HTTP/1.1\r\nHost: x\r\n", form, "\r\n"]).collect();
            let answer = raw(address, bytes.as_bytes()).await;
            let bodies: Vec<_> = answer
                .split("HTTP/1.1 200 OK\r\n")
                .skip(1)
                .map(|response| response.split_once("\r\n\r\n").unwrap().1)
                .collect();
            assert_eq!(bodies, [vec!["ada"; forms.len()], vec![""]].concat());
            assert_eq!(events.take(), Vec::<String>::new());
        }
    });
}

// --------------------------------------------------------------------------------------------------------- crumbs

/// Sends one request by the h2 crate, each crumb as a field of its own: the answer's fields seen and body.
async fn crumbs(address: SocketAddr, path: &str, crumbs: &[String]) -> (String, String) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(async { drop(connection.await) });
    let mut request = Request::builder().uri(format!("http://localhost{path}")).body(()).unwrap();
    for crumb in crumbs {
        request.headers_mut().append(COOKIE, HeaderValue::from_str(crumb).unwrap());
    }
    let (response, _) = client.send_request(request, true).unwrap();
    let (head, mut body) = response.await.unwrap().into_parts();
    assert_eq!(head.status, 200, "{path}");
    let mut text = Vec::new();
    while let Some(data) = body.data().await {
        text.extend_from_slice(&data.unwrap());
    }
    connection.abort();
    let seen = head.headers["x-cookie-fields"].to_str().unwrap().to_owned();
    (seen, String::from_utf8(text).unwrap())
}

#[test]
fn t62_the_session_is_found_among_crumbs_in_any_place() {
    run(async {
        for (address, events) in servers().await {
            let ours = logged_in(address, "ada").await.header().unwrap();
            events.take();
            for place in 0..4 {
                let mut fields: Vec<_> = ["a=1", "b=2; c=3", "s2=x"].map(str::to_owned).into();
                fields.insert(place, ours.clone());
                assert_eq!(crumbs(address, "/who", &fields).await, ("4".into(), "ada".into()));
                // The same as fields of HTTP/1.
                assert_eq!(Client::connect(Version::One, address).await.get("/who", &fields).await, "ada");
            }
            assert_eq!(events.take(), Vec::<String>::new());
        }
    });
}

#[test]
fn t62_t64_of_two_candidates_the_authentic_one_wins_and_the_other_is_reported() {
    run(async {
        for (n, (address, events)) in servers().await.into_iter().enumerate() {
            let ours = logged_in(address, "ada").await.header().unwrap();
            events.take();
            // One character changed: well-formed, and nothing that this server ever handed out.
            let at = ours.len() - 9;
            let other = if ours.as_bytes()[at] == b'A' { "B" } else { "A" };
            let forged = format!("{}{other}{}", &ours[..at], &ours[at + 1..]);
            let why = if n < 2 { Refusal::Signature } else { Refusal::UnknownId };
            let fields = ["a=1".to_owned(), forged, "b=2".to_owned(), ours];
            assert_eq!(crumbs(address, "/who", &fields).await.1, "ada");
            assert_eq!(events.take(), [refused(why)]);
            for version in VERSIONS {
                assert_eq!(Client::connect(version, address).await.get("/who", &fields).await, "ada");
                assert_eq!(events.take(), [refused(why)]);
                // Nobody asks, nobody looks.
                Client::connect(version, address).await.get("/ping", &fields).await;
                assert_eq!(events.take(), Vec::<String>::new());
            }
        }
    });
}

#[test]
fn t62_t69_chunks_in_separate_crumbs_are_one_session() {
    run(async {
        let events = Events::new();
        for address in serve_both(cookie_store("s", &events)).await {
            let mut jar = Jar::new();
            Client::connect(Version::Two, address).await.visit("/fill/8000", &mut jar).await;
            assert_eq!(jar.0.keys().collect::<Vec<_>>(), ["s", "s.1", "s.2"]);
            events.take();
            let chunks: Vec<_> = jar.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let mut orders = vec![chunks.clone(), chunks.iter().rev().cloned().collect()];
            orders.push(
                [
                    "x=1".to_owned(),
                    chunks[1].clone(),
                    "y=2; z=3".to_owned(),
                    chunks[2].clone(),
                    chunks[0].clone(),
                ]
                .into(),
            );
            orders.push(vec![format!("{}; {}", chunks[2], chunks[0]), chunks[1].clone()]);
            for order in &orders {
                assert_eq!(crumbs(address, "/size", order).await, (order.len().to_string(), "8000".into()));
                assert_eq!(Client::connect(Version::One, address).await.get("/size", order).await, "8000");
            }
            assert_eq!(events.take(), Vec::<String>::new());
            for missing in 0..3 {
                let mut rest = chunks.clone();
                rest.remove(missing);
                assert_eq!(crumbs(address, "/size", &rest).await.1, "0", "without chunk {missing}");
            }
            // A smaller session takes the tail away with it, chunk by chunk.
            Client::connect(Version::Two, address).await.visit("/fill/10", &mut jar).await;
            assert_eq!(jar.0.keys().collect::<Vec<_>>(), ["s"]);
        }
    });
}

// The whole header list is then larger than the 16 KiB that hyper takes over HTTP/2 unless it is told otherwise.
#[test]
fn t62_t69_eight_chunks_are_one_session_where_the_server_takes_such_headers() {
    run(async {
        let events = Events::new();
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http2().max_header_list_size(64 << 10);
        let service = session_fn(
            cookie_store("s", &events),
            |request: Request<Incoming>, session: SessionHandle| async move {
                app(&request, async move { session.load().await }).await
            },
        );
        let address = serve_with(builder, service).await;
        events.take();
        let mut jar = Jar::new();
        let mut client = Client::connect(Version::One, address).await;
        client.visit("/fill/24000", &mut jar).await;
        assert_eq!(jar.0.len(), 8);
        let chunks: Vec<_> = jar.0.iter().rev().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(crumbs(address, "/size", &chunks).await, ("8".into(), "24000".into()));
        assert_eq!(client.get("/size", &chunks).await, "24000");
        assert_eq!(events.take(), Vec::<String>::new());
        client.visit("/logout", &mut jar).await;
        assert_eq!(jar.0.len(), 0);
    });
}

// ----------------------------------------------------------------------------------------- heads, bodies, several

#[test]
fn t49_heads_without_a_body_carry_the_cookie_and_keep_the_connection() {
    run(async {
        for (address, _) in servers().await {
            for version in VERSIONS {
                let mut client = Client::connect(version, address).await;
                for (method, path, code) in [
                    // hyper leaves it to the handler to send no body to a HEAD over HTTP/2.
                    (Method::HEAD, if version == Version::One { "/count" } else { "/login/200" }, 200),
                    (Method::HEAD, "/status/404", 404),
                    (Method::GET, "/status/204", 204),
                    (Method::GET, "/status/304", 304),
                    (Method::OPTIONS, "/status/204", 204),
                    (Method::DELETE, "/status/205", 205),
                ] {
                    let mut jar = Jar::new();
                    let (status, headers, body) = client.ask(method.clone(), path, &[]).await;
                    assert_eq!((status.as_u16(), &body[..]), (code, ""), "{method} {path}");
                    assert_eq!(headers[VARY], "Cookie");
                    assert_eq!(headers["cache-control"], "no-store");
                    if path == "/count" {
                        assert_eq!(headers[CONTENT_LENGTH], "8", "the length of the body that GET has");
                    }
                    jar.store(&headers);
                    let user = if path == "/count" { String::new() } else { code.to_string() };
                    assert_eq!(client.visit("/who", &mut jar).await, user, "{method} {path}");
                }
                // A response that asks nothing of the session says nothing of it, HEAD or not.
                let (_, headers, _) = client.ask(Method::HEAD, "/ping", &[]).await;
                assert!(!headers.contains_key(SET_COOKIE) && !headers.contains_key(VARY));
            }
        }
    });
}

#[test]
fn a_server_error_over_the_wire_drops_values_and_sets_no_cookie() {
    run(async {
        for (address, events) in servers().await {
            for version in VERSIONS {
                let (status, headers, _) =
                    Client::connect(version, address).await.ask(Method::GET, "/status/500", &[]).await;
                assert_eq!(status, 500);
                assert!(!headers.contains_key(SET_COOKIE), "{headers:?}");
                assert_eq!(events.take(), ["dropped:server_error"]);
            }
        }
    });
}

/// A body that hands on what it is sent, as it comes.
struct Stream(mpsc::Receiver<Bytes>);

impl HttpBody for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|data| data.map(|data| Ok(Frame::data(data))))
    }
}

/// Tries all that changes a session; what each attempt said.
async fn write_late(session: &Session) -> Vec<Error> {
    vec![
        session.set("late", true).unwrap_err(),
        session.delete("user").unwrap_err(),
        session.clear().unwrap_err(),
        session.update("n", |old: Option<u64>| old.unwrap_or(0) + 1).unwrap_err(),
        session.set_flash("late", true).unwrap_err(),
        session.regenerate().unwrap_err(),
        session.destroy().unwrap_err(),
        session.save().await.unwrap_err(),
    ]
}

#[test]
fn writes_while_the_body_is_streamed_are_typed_errors_and_reads_go_on() {
    run(async {
        let events = Events::new();
        for store in
            [Arc::new(cookie_store("s", &events)) as Arc<dyn Store>, Arc::new(memory_store("s", &events))]
        {
            let head_is_out = Arc::new(Notify::new());
            let gate = head_is_out.clone();
            let service = session_fn(store, move |request: Request<Incoming>, handle: SessionHandle| {
                let gate = gate.clone();
                async move {
                    let session = handle.load().await?;
                    if request.uri().path() == "/read" {
                        let keys = Full::from(session.keys().join(","));
                        return Ok::<_, Error>(Response::new(BoxBody::new(keys)));
                    }
                    session.set("user", "ada")?;
                    let (sender, receiver) = mpsc::channel(1);
                    tokio::spawn(async move {
                        sender.send("first ".into()).await.unwrap();
                        gate.notified().await;
                        let errors = write_late(&session).await;
                        let typed = errors.iter().filter(|error| error.is_head_sent()).count();
                        // Asking again gives the same closed session.
                        let again = handle.load().await.unwrap().set("late", true).unwrap_err();
                        let user: String = session.get("user").unwrap().unwrap();
                        let said = format!("{typed} of {} {} {user}", errors.len(), again.is_head_sent());
                        sender.send(said.into()).await.unwrap();
                    });
                    Ok(Response::new(BoxBody::new(Stream(receiver))))
                }
            });
            let address = serve(service).await;
            for version in VERSIONS {
                let mut client = Client::connect(version, address).await;
                let (head, mut body) = client.send(Method::GET, "/", &[]).await.unwrap().into_parts();
                let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
                assert_eq!(first, "first ");
                head_is_out.notify_one();
                let rest = body.collect().await.unwrap().to_bytes();
                assert_eq!(rest, "8 of 8 true ada", "{version:?}");
                let mut jar = Jar::new();
                jar.store(&head.headers);
                assert_eq!(client.visit("/read", &mut jar).await, "user");
            }
        }
    });
}

/// A task that loads the session for the first time when the head is out gets it, closed.
#[test]
fn a_session_first_asked_for_while_the_body_is_streamed_can_only_be_read() {
    run(async {
        let head_is_out = Arc::new(Notify::new());
        let gate = head_is_out.clone();
        let service = session_fn(
            memory_store("s", &Events::new()),
            move |_: Request<Incoming>, handle: SessionHandle| {
                let gate = gate.clone();
                async move {
                    let (sender, receiver) = mpsc::channel(1);
                    tokio::spawn(async move {
                        sender.send("first ".into()).await.unwrap();
                        gate.notified().await;
                        let session = handle.load().await.unwrap();
                        let closed = session.set("late", true).unwrap_err().is_head_sent();
                        sender.send(format!("{closed} {}", session.is_empty()).into()).await.unwrap();
                    });
                    Ok::<_, Error>(Response::new(BoxBody::new(Stream(receiver))))
                }
            },
        );
        let address = serve(service).await;
        for version in VERSIONS {
            let mut client = Client::connect(version, address).await;
            let (head, mut body) = client.send(Method::GET, "/", &[]).await.unwrap().into_parts();
            body.frame().await.unwrap().unwrap();
            assert!(!head.headers.contains_key(SET_COOKIE));
            head_is_out.notify_one();
            assert_eq!(body.collect().await.unwrap().to_bytes(), "true true");
        }
    });
}

#[test]
fn t46_t61_several_sessions_set_their_cookies_on_lines_of_their_own() {
    run(async {
        let events = Events::new();
        let handler = service_fn(|request: Request<Incoming>| async move {
            let (user, cart) = (request.session_named("user").await?, request.session_named("cart").await?);
            let said = format!("{} {}", user.has("name"), cart.has("item"));
            user.set("name", "ada")?;
            cart.set("item", 7)?;
            assert!(request.session_named("other").await.unwrap_err().is_not_wrapped());
            let mut response = Response::new(Body::from(said));
            for cookie in ["theme=dark; Path=/", "cart=planted", "lang=en, US"] {
                response.headers_mut().append(SET_COOKIE, HeaderValue::from_static(cookie));
            }
            for n in 0..5_000_u32 {
                response.headers_mut().append("x-fill", n.into());
            }
            Ok::<_, Error>(response)
        });
        let inner = SessionService::new(handler, memory_store("cart", &events));
        let address = serve(SessionService::new(inner, cookie_store("user", &events))).await;
        events.take();
        let answer = raw(address, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, "false false");
        let lines: Vec<_> = head.lines().filter_map(|line| line.strip_prefix("set-cookie: ")).collect();
        let names: Vec<_> = lines.iter().map(|line| line.split_once('=').unwrap().0).collect();
        assert_eq!(names, ["theme", "lang", "cart", "user"]);
        assert_eq!((lines[0], lines[1]), ("theme=dark; Path=/", "lang=en, US"));
        assert!(!answer.contains("planted"));
        assert_eq!(events.take(), ["set_cookie_replaced"]);
        assert_eq!(head.lines().filter(|line| line.starts_with("x-fill: ")).count(), 5_000);
        assert_eq!(head.lines().filter(|line| line.to_ascii_lowercase().starts_with("vary")).count(), 1);

        let sent: Vec<_> = lines[2..].iter().map(|line| line.split(';').next().unwrap().to_owned()).collect();
        let again =
            format!("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nCookie: {}\r\n\r\n", sent.join("; "));
        assert!(raw(address, again.as_bytes()).await.ends_with("true true"));
        // A token under the other's name is nobody's.
        let swapped = again.replace("user=", "u=").replace("cart=", "user=").replace("u=", "cart=");
        assert!(raw(address, swapped.as_bytes()).await.ends_with("false false"));
    });
}

// ----------------------------------------------------------------------------------------------- ends of all kinds

#[test]
fn graceful_shutdown_waits_for_the_session_to_be_saved() {
    run(async {
        for version in VERSIONS {
            let (started, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
            let gates = (started.clone(), release.clone());
            let store = memory_store("s", &Events::new());
            let service = session_fn(store, move |_: Request<Incoming>, session: SessionHandle| {
                let (started, release) = gates.clone();
                async move {
                    session.load().await?.set("user", "ada")?;
                    started.notify_one();
                    release.notified().await;
                    Ok::<_, Error>(Response::new(Body::from("done")))
                }
            });
            let (listener, address) = listen().await;
            let graceful = GracefulShutdown::new();
            let connecting = tokio::spawn(async move { Client::connect(version, address).await });
            let (stream, _) = listener.accept().await.unwrap();
            let builder = auto::Builder::new(TokioExecutor::new());
            let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
            let served = tokio::spawn(graceful.watch(connection));
            let mut client = connecting.await.unwrap();

            let answer = tokio::spawn(client.send(Method::GET, "/", &[]));
            started.notified().await;
            let mut shutdown = pin!(graceful.shutdown());
            let waits = poll_fn(|cx| Poll::Ready(shutdown.as_mut().poll(cx).is_pending())).await;
            assert!(waits, "a request is under way");
            release.notify_one();
            let response = answer.await.unwrap().unwrap();
            assert_eq!(set_cookies(response.headers()).len(), 1);
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "done");
            shutdown.await;
            served.await.unwrap().unwrap();
        }
    });
}

/// Memory that counts what it is asked to write, and holds back what ends a session until it is let go.
#[derive(Clone, Default)]
struct Spy(Arc<SpyInner>);

#[derive(Default)]
struct SpyInner {
    memory: Memory,
    writes: AtomicUsize,
    holding: AtomicBool,
    held: Notify,
    release: Notify,
    ended: Notify,
}

impl Spy {
    fn writes(&self) -> usize {
        self.0.writes.load(Ordering::SeqCst)
    }

    fn count(&self) {
        self.0.writes.fetch_add(1, Ordering::SeqCst);
    }

    async fn hold(&self) {
        if self.0.holding.load(Ordering::SeqCst) {
            self.0.held.notify_one();
            self.0.release.notified().await;
        }
    }
}

impl Backend for Spy {
    async fn fetch(&self, id: SessionId, now: Timestamp) -> Result<Option<Stored>, Error> {
        self.0.memory.fetch(id, now).await
    }

    async fn create(&self, id: SessionId, entry: Stored, now: Timestamp) -> Result<bool, Error> {
        self.count();
        self.0.memory.create(id, entry, now).await
    }

    async fn replace(
        &self,
        id: SessionId,
        expected: Bytes,
        entry: Option<Stored>,
        now: Timestamp,
    ) -> Result<Replaced, Error> {
        self.count();
        let ends = entry.is_none();
        if ends {
            self.hold().await;
        }
        let replaced = self.0.memory.replace(id, expected, entry, now).await;
        if ends {
            self.0.ended.notify_one();
        }
        replaced
    }

    async fn touch(&self, id: SessionId, expires: Timestamp, now: Timestamp) -> Result<bool, Error> {
        self.count();
        self.0.memory.touch(id, expires, now).await
    }

    async fn delete(&self, id: SessionId) -> Result<(), Error> {
        self.count();
        self.hold().await;
        let deleted = self.0.memory.delete(id).await;
        self.0.ended.notify_one();
        deleted
    }
}

/// How a client goes away.
#[derive(Clone, Copy, Debug)]
enum HangUp {
    /// The connection is lost.
    Wire(Version),
    /// HTTP/2: the stream is reset, the connection goes on.
    Stream,
}

const HANG_UPS: [HangUp; 3] = [HangUp::Wire(Version::One), HangUp::Wire(Version::Two), HangUp::Stream];

/// A client that is waiting for its answer.
struct Waiting {
    how: HangUp,
    wire: JoinHandle<()>,
    answer: JoinHandle<hyper::Result<Response<Incoming>>>,
    client: Client,
}

impl Waiting {
    /// Sends the request over a wire that can be cut.
    async fn send(how: HangUp, address: SocketAddr, path: &str, cookies: &[String]) -> Self {
        let (listener, near) = listen().await;
        let wire = tokio::spawn(async move {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut server = TcpStream::connect(address).await.unwrap();
            drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
        });
        let version = if let HangUp::Wire(version) = how { version } else { Version::Two };
        let mut client = Client::connect(version, near).await;
        let answer = tokio::spawn(client.send(Method::GET, path, cookies));
        Self { how, wire, answer, client }
    }

    /// Goes away. What is returned keeps alive what is left of the connection.
    async fn hang_up(self) -> Client {
        match self.how {
            HangUp::Wire(_) => {
                self.wire.abort();
                assert!(self.answer.await.unwrap().is_err());
            }
            HangUp::Stream => {
                self.answer.abort();
                assert!(self.answer.await.unwrap_err().is_cancelled());
            }
        }
        self.client
    }
}

/// Tells when it is dropped.
struct OnDrop(Option<oneshot::Sender<()>>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        let _ = self.0.take().unwrap().send(());
    }
}

#[test]
fn a_client_that_hangs_up_while_the_handler_runs_changes_nothing() {
    run(async {
        for how in HANG_UPS {
            for path in ["/set", "/destroy", "/regenerate"] {
                let spy = Spy::default();
                let options = CookieOptions::development().name("s");
                let store = ServerStore::with_backend(spy.clone()).cookie(options).build().unwrap();
                let gates = Arc::new((Notify::new(), Notify::new()));
                let (dropped, on_drop) = mpsc::channel(9);
                let (gate, mut on_drop) = (gates.clone(), on_drop);
                let service = session_fn(store, move |request: Request<Incoming>, session: SessionHandle| {
                    let (gate, dropped) = (gate.clone(), dropped.clone());
                    async move {
                        let session = session.load().await?;
                        match request.uri().path() {
                            "/who" => {
                                let user = session.get::<String>("user")?.unwrap_or_default();
                                return Ok(Response::new(Body::from(user)));
                            }
                            "/login" => {
                                session.set("user", "ada")?;
                                return Ok(Response::default());
                            }
                            "/set" => session.set("user", "mallory")?,
                            "/destroy" => session.destroy()?,
                            "/regenerate" => session.regenerate()?,
                            other => panic!("no such path: {other}"),
                        }
                        let (sender, receiver) = oneshot::channel();
                        let guard = OnDrop(Some(sender));
                        dropped.send(receiver).await.unwrap();
                        gate.0.notify_one();
                        gate.1.notified().await;
                        drop(guard);
                        Ok::<_, Error>(Response::new(Body::from("done")))
                    }
                });
                let address = serve(service).await;
                let mut jar = Jar::new();
                let mut other = Client::connect(Version::One, address).await;
                other.visit("/login", &mut jar).await;
                let cookie = [jar.header().unwrap()];
                let before = spy.writes();

                let client = Waiting::send(how, address, path, &cookie).await;
                gates.0.notified().await;
                let _client = client.hang_up().await;
                on_drop.recv().await.unwrap().await.unwrap();
                // A request later, whatever the hang-up might have left running has had its turn.
                assert_eq!(other.get("/who", &cookie).await, "ada");
                assert_eq!(spy.writes(), before, "{how:?} {path}");

                // The same handler, let go: the spy does see what it writes.
                gates.1.notify_one();
                other.visit(path, &mut jar).await;
                assert!(spy.writes() > before, "{how:?} {path}");
            }
        }
    });
}

#[test]
fn a_handler_that_fails_or_panics_saves_nothing() {
    run(async {
        for version in VERSIONS {
            let spy = Spy::default();
            let options = CookieOptions::development().name("s");
            let store = ServerStore::with_backend(spy.clone()).cookie(options).build().unwrap();
            let service =
                session_fn(store, |request: Request<Incoming>, session: SessionHandle| async move {
                    let session = session.load().await?;
                    match request.uri().path() {
                        "/login" => session.set("user", "ada")?,
                        "/who" => {
                            return Ok(Response::new(Body::from(
                                session.get::<String>("user")?.unwrap_or_default(),
                            )));
                        }
                        _ => session.destroy()?,
                    }
                    match request.uri().path() {
                        "/fail" => Err(Error::unavailable("the handler's own failure")),
                        "/panic" => panic!("the handler's own panic, as this test wants it"),
                        _ => Ok(Response::default()),
                    }
                });
            let address = serve(service).await;
            let mut jar = Jar::new();
            Client::connect(version, address).await.visit("/login", &mut jar).await;
            let before = spy.writes();
            for path in ["/fail", "/panic"] {
                let mut client = Client::connect(version, address).await;
                assert!(client.send(Method::GET, path, &[jar.header().unwrap()]).await.is_err());
                assert_eq!(Client::connect(version, address).await.visit("/who", &mut jar).await, "ada");
                assert_eq!(spy.writes(), before, "{version:?} {path}");
            }
            Client::connect(version, address).await.visit("/logout", &mut jar).await;
            assert_eq!((spy.writes(), jar.0.len()), (before + 1, 0));
        }
    });
}

#[test]
fn a_client_that_hangs_up_while_its_session_is_ended_does_not_stay_logged_in() {
    run(async {
        for how in HANG_UPS {
            for path in ["/destroy", "/clear", "/regenerate"] {
                let spy = Spy::default();
                let (interrupted, mut events) = mpsc::unbounded_channel();
                let store = ServerStore::with_backend(spy.clone())
                    .cookie(CookieOptions::development().name("s"))
                    .observer(move |event: &Event<'_>| {
                        if let Event::Interrupted { completing, .. } = event {
                            interrupted.send(*completing).unwrap();
                        }
                    })
                    .build()
                    .unwrap();
                let service =
                    session_fn(store, |request: Request<Incoming>, session: SessionHandle| async move {
                        let session = session.load().await?;
                        match request.uri().path() {
                            "/login" => session.set("user", "ada")?,
                            "/destroy" => session.destroy()?,
                            "/clear" => session.clear()?,
                            "/regenerate" => session.regenerate()?,
                            _ => {}
                        }
                        Ok::<_, Error>(Response::new(Body::from(
                            session.get::<String>("user")?.unwrap_or_default(),
                        )))
                    });
                let address = serve(service).await;
                let mut jar = Jar::new();
                let mut other = Client::connect(Version::One, address).await;
                other.visit("/login", &mut jar).await;
                let cookie = [jar.header().unwrap()];

                spy.0.holding.store(true, Ordering::SeqCst);
                let client = Waiting::send(how, address, path, &cookie).await;
                spy.0.held.notified().await;
                assert_eq!(other.get("/who", &cookie).await, "ada", "not ended yet");
                let _client = client.hang_up().await;
                assert_eq!(events.recv().await, Some(true), "{how:?} {path}");
                spy.0.release.notify_one();
                spy.0.ended.notified().await;
                assert_eq!(other.get("/who", &cookie).await, "", "{how:?} {path}");
            }
        }
    });
}

// ---------------------------------------------------------------------------------------------------------- types

/// What hyper's connections ask of a service.
fn is_servable<B, R, S>(_: &S)
where
    S: Service<Request<B>, Response = Response<R>, Error = Error> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    R: HttpBody,
{
}

/// Both adapters around a handler of these bodies.
fn serves<B, R>()
where
    B: HttpBody + Send + 'static,
    R: HttpBody + Default + Send + Sync + 'static,
{
    let store = memory_store("s", &Events::new());
    let with_handle = |request: Request<B>, session: SessionHandle| async move {
        session.load().await?.set("k", 1)?;
        drop(request.into_body());
        Ok::<_, Error>(Response::new(R::default()))
    };
    is_servable::<B, R, _>(&session_fn(store.clone(), with_handle));
    let with_extension = service_fn(|request: Request<B>| async move {
        let (parts, _body) = request.into_parts();
        parts.session().await?.set("k", 1)?;
        Ok::<_, Error>(Response::new(R::default()))
    });
    // `ServiceFn` is neither `Clone` nor `Sync` for every body, so it is shared as hyper shares a service.
    is_servable::<B, R, _>(&Arc::new(SessionService::new(with_extension, store)));
}

#[test]
fn any_request_and_response_body_compiles() {
    serves::<Incoming, Full<Bytes>>();
    serves::<Incoming, Empty<Bytes>>();
    serves::<Incoming, BoxBody<Bytes, Infallible>>();
    serves::<Full<Bytes>, String>();
    serves::<Empty<Bytes>, Full<Bytes>>();
    serves::<BoxBody<Bytes, BoxError>, BoxBody<Bytes, BoxError>>();
    serves::<String, Full<std::io::Cursor<Vec<u8>>>>();

    // A body without a default, such as that of a proxied response, needs a way to say "failed".
    let proxy = session_fn(
        memory_store("s", &Events::new()),
        |request: Request<Incoming>, _: SessionHandle| async move {
            Ok::<_, Error>(Response::new(request.into_body().map_err(BoxError::from).boxed()))
        },
    );
    is_servable::<Incoming, BoxBody<Bytes, BoxError>, _>(&proxy);
    let echo = session_fn(
        memory_store("s", &Events::new()),
        |request: Request<Stream>, _: SessionHandle| async move {
            Ok::<_, Error>(Response::new(request.into_body()))
        },
    )
    .on_failure(|_: &Error| Response::new(Stream(mpsc::channel(1).1)));
    is_servable::<Stream, Stream, _>(&echo);
}
