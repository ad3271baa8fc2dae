//! Stacks that are not axum: hyper-util's server with tower middleware, and a gRPC server.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_session::testing::Cookies;
use hyper_session::{AppKey, CookieStore, Error, MemoryStore, SessionExt, SessionLayer};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tower::{Service, ServiceBuilder, service_fn};

use crate::support::block_on;

/// A client with cookies.
pub(crate) struct Browser {
    client: Client<HttpConnector, Full<Bytes>>,
    address: SocketAddr,
    pub(crate) cookies: Cookies,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Browser {
    pub(crate) fn http1(address: SocketAddr) -> Self {
        Self::new(address, false)
    }

    fn new(address: SocketAddr, http2: bool) -> Self {
        let client = Client::builder(TokioExecutor::new()).http2_only(http2).build_http();
        Self { client, address, cookies: Cookies::new() }
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.send(Method::GET, path, "").await
    }

    pub(crate) async fn post(&mut self, path: &str, body: &str) -> Answer {
        self.send(Method::POST, path, body).await
    }

    async fn send(&mut self, method: Method, path: &str, body: &str) -> Answer {
        self.send_with(method, path, body, &[]).await
    }

    async fn send_with(&mut self, method: Method, path: &str, body: &str, flags: &[&str]) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        for flag in flags {
            request = request.header(*flag, "1");
        }
        if let Some(cookies) = self.cookies.header() {
            request = request.header("cookie", cookies);
        }
        let request = request.body(Full::from(body.to_owned())).unwrap();
        let (head, body) = self.client.request(request).await.unwrap().into_parts();
        self.cookies.receive(&head.headers);
        let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        Answer { status: head.status, version: head.version, headers: head.headers, body }
    }
}

/// Runs a server in the background, for as long as the test's runtime.
pub(crate) fn serving(server: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(server));
}

async fn count<B>(request: Request<B>) -> Result<Response<String>, Error> {
    let session = request.session().await?;
    let visits = session.update("visits", |old: Option<u64>| old.unwrap_or(0) + 1)?;
    Ok(Response::new(visits.to_string()))
}

#[test]
fn a_tower_stack_on_hyper_utils_server() {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = ServiceBuilder::new()
            .concurrency_limit(2)
            .layer(SessionLayer::new(MemoryStore::builder().build().unwrap()))
            .map_request(|request: Request<Incoming>| request)
            .service(service_fn(count));
        serving(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = TowerToHyperService::new(service.clone());
                serving(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        for (http2, version) in [(false, Version::HTTP_11), (true, Version::HTTP_2)] {
            let mut browser = Browser::new(address, http2);
            for visit in 1..=3 {
                let answer = browser.get("/").await;
                assert_eq!((answer.status, answer.version), (StatusCode::OK, version));
                assert_eq!(answer.body, visit.to_string());
            }
        }
    });
}

/// A gRPC service as tonic generates them, down to the trait that its server asks for.
#[derive(Clone)]
struct Counter;

impl tonic::server::NamedService for Counter {
    const NAME: &'static str = "test.Counter";
}

impl Service<Request<tonic::body::Body>> for Counter {
    type Response = Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        Box::pin(async move {
            // A handler of tonic sees only the extensions.
            let request = tonic::Request::from_http(request);
            let answer = match request.extensions().session().await {
                Ok(session) => session.update("calls", |old: Option<u64>| old.unwrap_or(0) + 1),
                Err(error) => Err(error),
            };
            let fails = request.metadata().contains_key("fails");
            let status = match answer {
                Ok(calls) if fails => tonic::Status::already_exists(calls.to_string()),
                Ok(calls) => tonic::Status::new(tonic::Code::Ok, calls.to_string()),
                Err(error) => tonic::Status::internal(error.label()),
            };
            Ok(status.into_http())
        })
    }
}

#[test]
fn a_tonic_server() {
    block_on(async {
        let store = CookieStore::builder(AppKey::generate().unwrap()).build().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        serving(async move {
            let server = tonic::transport::Server::builder().layer(SessionLayer::new(store));
            server.clone().add_service(Counter).serve_with_incoming(incoming).await.unwrap();
        });
        let mut client = Browser::new(address, true);
        for calls in 1..=3 {
            let answer = client.post("/test.Counter/Count", "").await;
            assert_eq!(answer.headers["grpc-status"], "0", "{:?}", answer.headers);
            assert_eq!(answer.headers["grpc-message"], calls.to_string());
            // A call that fails answers 200, and keeps nothing of what it did.
            let failed = client.send_with(Method::POST, "/test.Counter/Count", "", &["fails"]).await;
            assert_eq!(failed.status, StatusCode::OK);
            assert_eq!(failed.headers["grpc-status"], "6", "{:?}", failed.headers);
            assert_eq!(failed.headers["grpc-message"], (calls + 1).to_string());
            assert!(!failed.headers.contains_key("set-cookie"));
        }
    });
}

/// A tower service whose error is this crate's is answered, not torn down.
#[test]
fn b9_an_error_of_a_tower_service_is_a_response() {
    block_on(async {
        let store = MemoryStore::builder().development().build().unwrap();
        let fails = service_fn(|request: Request<Full<Bytes>>| async move {
            let session = request.session().await?;
            session.set("a", "text")?;
            session.get::<u64>("a")?;
            Ok::<_, Error>(Response::new(Full::<Bytes>::default()))
        });
        let mut service = ServiceBuilder::new().layer(SessionLayer::new(store)).service(fails);
        let response = service.call(Request::new(Full::default())).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!response.headers().contains_key("set-cookie"));
    });
}
