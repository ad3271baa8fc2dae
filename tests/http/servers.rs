//! Servers on ports of their own, the service that they run, and clients of either version of HTTP.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use http::header::COOKIE;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper_session::__internals::MAX_CHUNKS;
use hyper_session::cookie::CookieOptions;
use hyper_session::store::Store;
use hyper_session::{
    AppKey, CookieStore, Error, MemoryStore, Session, SessionExt, SessionHandle, SessionService, session_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::support::{Answer, Body, Events, Jar, block_on};

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Runs a test. The timeout is a net under tests that hang: none of them waits for time to pass.
pub(crate) fn run(test: impl Future<Output = ()>) {
    block_on(async {
        tokio::time::timeout(Duration::from_secs(120), test).await.expect("the test hangs");
    });
}

pub(crate) async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Serves on a port of its own, each connection as HTTP/1 or HTTP/2 as it comes, until the test ends.
pub(crate) async fn serve<S, R>(service: S) -> SocketAddr
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

pub(crate) async fn serve_with<S, R>(builder: auto::Builder<TokioExecutor>, service: S) -> SocketAddr
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

/// The handlers of most tests, by path. Only `/ping` never asks for its session.
pub(crate) async fn app<B>(
    request: &Request<B>,
    session: impl Future<Output = Result<Session, Error>>,
) -> Answer {
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
pub(crate) async fn serve_both(store: impl Store + Clone) -> [SocketAddr; 2] {
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

pub(crate) fn cookie_store(name: &str, events: &Events) -> CookieStore {
    let options = CookieOptions::development().max_chunks(MAX_CHUNKS).name(name);
    let keys = AppKey::generate().unwrap();
    CookieStore::builder(keys).cookie(options).observer(events.clone()).build().unwrap()
}

pub(crate) fn memory_store(name: &str, events: &Events) -> MemoryStore {
    let options = CookieOptions::development().max_chunks(MAX_CHUNKS).name(name);
    MemoryStore::builder().cookie(options).observer(events.clone()).build().unwrap()
}

/// The app on both kinds of store, behind both adapters, with the cookie `s`.
pub(crate) async fn servers() -> Vec<(SocketAddr, Events)> {
    let (cookie, memory) = (Events::new(), Events::new());
    let mut servers = Vec::new();
    servers.extend(serve_both(cookie_store("s", &cookie)).await.map(|address| (address, cookie.clone())));
    servers.extend(serve_both(memory_store("s", &memory)).await.map(|address| (address, memory.clone())));
    cookie.take();
    memory.take();
    servers
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Version {
    One,
    Two,
}

pub(crate) const VERSIONS: [Version; 2] = [Version::One, Version::Two];

enum Sender {
    One(http1::SendRequest<Body>),
    Two(http2::SendRequest<Body>),
}

/// One connection, closed when it is dropped.
pub(crate) struct Client {
    sender: Sender,
    connection: JoinHandle<()>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Client {
    pub(crate) async fn connect(version: Version, address: SocketAddr) -> Self {
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
    pub(crate) fn send(&mut self, method: Method, path: &str, cookies: &[String]) -> Answering {
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

    pub(crate) async fn ask(
        &mut self,
        method: Method,
        path: &str,
        cookies: &[String],
    ) -> (StatusCode, HeaderMap, String) {
        let (head, body) = self.send(method, path, cookies).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head.status, head.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    pub(crate) async fn get(&mut self, path: &str, cookies: &[String]) -> String {
        let (status, _, body) = self.ask(Method::GET, path, cookies).await;
        assert_eq!(status, 200, "{path}");
        body
    }

    /// As the browser with this jar.
    pub(crate) async fn visit(&mut self, path: &str, jar: &mut Jar) -> String {
        let cookies: Vec<_> = jar.header().into_iter().collect();
        let (status, headers, body) = self.ask(Method::GET, path, &cookies).await;
        assert_eq!(status, 200, "{path}");
        jar.store(&headers);
        body
    }
}

type Answering = Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>>;

/// All that a server sends to these bytes until it closes the connection.
pub(crate) async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

/// A jar that is logged in as `user`.
pub(crate) async fn logged_in(address: SocketAddr, user: &str) -> Jar {
    let mut jar = Jar::new();
    Client::connect(Version::One, address).await.visit(&format!("/login/{user}"), &mut jar).await;
    assert!(jar.get("s").is_some());
    jar
}
