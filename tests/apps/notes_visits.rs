//! The notes as gRPC clients with a cookie jar see them.

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_session::store::Memory;
use hyper_session::testing::{Fault, Faulty, Primitive};
use hyper_session::{ServerStore, SessionLayer};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;

use crate::notes::Notes;
use crate::support::{Jar, block_on};

type Store = ServerStore<Faulty<Memory>>;

async fn serve(store: &Store) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tonic::transport::Server::builder().layer(SessionLayer::new(store.clone()));
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    tokio::spawn(async move { server.clone().add_service(Notes).serve_with_incoming(incoming).await });
    address
}

/// A client that keeps cookies.
struct Caller {
    address: SocketAddr,
    jar: Jar,
}

impl Caller {
    fn new(address: SocketAddr) -> Self {
        Self { address, jar: Jar::new() }
    }

    /// Calls a method over HTTP/2. Returns the message, or the code of the failure.
    async fn call(&mut self, method: &str, text: &str) -> Result<String, u16> {
        let mut frame = BytesMut::new();
        frame.put_u8(0); // not compressed
        frame.put_u32(u32::try_from(text.len()).unwrap());
        frame.put_slice(text.as_bytes());
        let mut request = Request::post(format!("http://{}/test.Notes/{method}", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if let Some(cookies) = self.jar.header() {
            request = request.header("cookie", cookies);
        }
        let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
        let response =
            client.request(request.body(Full::<Bytes>::from(frame.freeze())).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200, "gRPC answers 200 in any case");
        self.jar.store(response.headers());
        let in_head = response.headers().get("grpc-status").cloned();
        let body = response.into_body().collect().await.unwrap();
        let in_trailers = body.trailers().and_then(|trailers| trailers.get("grpc-status")).cloned();
        let code: u16 = in_head.or(in_trailers).unwrap().to_str().unwrap().parse().unwrap();
        let bytes = body.to_bytes();
        match code {
            0 => Ok(String::from_utf8(bytes[5..].to_vec()).unwrap()),
            code => Err(code),
        }
    }
}

const INVALID_ARGUMENT: u16 = 3;
const UNAVAILABLE: u16 = 14;
const UNAUTHENTICATED: u16 = 16;

#[test]
fn notes_are_kept_from_login_to_logout() {
    block_on(async {
        let store = ServerStore::with_backend(Faulty::new(Memory::new())).development().build().unwrap();
        let address = serve(&store).await;
        let (mut ada, mut eve) = (Caller::new(address), Caller::new(address));
        assert_eq!(ada.call("List", "").await, Err(UNAUTHENTICATED));
        assert!(ada.jar.0.is_empty());
        assert_eq!(ada.call("LogIn", "ada").await.as_deref(), Ok("welcome, ada"));
        assert_eq!(ada.call("Add", "buy tea").await.as_deref(), Ok("1"));
        // A call that fails saves nothing of what it did.
        assert_eq!(ada.call("Add", "").await, Err(INVALID_ARGUMENT));
        assert_eq!(ada.call("Add", "pay rent").await.as_deref(), Ok("2"));
        assert_eq!(ada.call("List", "").await.as_deref(), Ok("buy tea\npay rent"));
        assert_eq!(eve.call("List", "").await, Err(UNAUTHENTICATED));

        let copied = ada.jar.clone();
        assert_eq!(ada.call("LogOut", "").await.as_deref(), Ok(""));
        assert!(ada.jar.0.is_empty());
        eve.jar = copied;
        assert_eq!(eve.call("List", "").await, Err(UNAUTHENTICATED), "a copied cookie");
    });
}

#[test]
fn a_call_after_a_logout_elsewhere_is_unauthenticated() {
    block_on(async {
        let store = ServerStore::with_backend(Faulty::new(Memory::new())).development().build().unwrap();
        let mut ada = Caller::new(serve(&store).await);
        ada.call("LogIn", "ada").await.unwrap();
        assert_eq!(ada.call("List", "").await.as_deref(), Ok(""));
        assert_eq!(store.end_sessions_of("ada", None).await.unwrap(), 1);
        assert_eq!(ada.call("List", "").await, Err(UNAUTHENTICATED));
    });
}

#[test]
fn a_store_that_is_down_is_unavailable_and_logs_nobody_out() {
    block_on(async {
        let backend = Faulty::new(Memory::new());
        let store = ServerStore::with_backend(backend.clone()).development().build().unwrap();
        let mut ada = Caller::new(serve(&store).await);
        ada.call("LogIn", "ada").await.unwrap();
        backend.fail(Primitive::Fetch, Fault::Unreachable);
        assert_eq!(ada.call("List", "").await, Err(UNAVAILABLE));
        backend.repair();
        assert_eq!(ada.call("List", "").await.as_deref(), Ok(""));
    });
}
