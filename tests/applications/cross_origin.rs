//! Requests of other origins, over real sockets.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_session::{AppKey, CookieStore, CrossOriginProtection, Error, SessionHandle, session_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Body, block_on};

/// A server that counts what reaches its handler.
async fn serve(protection: CrossOriginProtection) -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let handled = Arc::new(AtomicUsize::new(0));
    let store = CookieStore::builder(AppKey::generate().unwrap()).development().build().unwrap();
    let count = Arc::clone(&handled);
    let service = protection.wrap(session_fn(store, move |_: Request<Incoming>, session: SessionHandle| {
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            session.load().await.and_then(|session| session.set("a", 1)).unwrap();
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        }
    }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service.clone();
            tokio::spawn(async move {
                let _ = auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    (address, handled)
}

async fn answer(address: std::net::SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[test]
fn csrf_a_refused_request_does_not_reach_the_handler() {
    block_on(async {
        let protection = CrossOriginProtection::new()
            .trust_origin("https://pay.example")
            .and_then(|protection| protection.exempt("POST /hooks/"))
            .unwrap();
        let (address, handled) = serve(protection).await;
        let mut expected = 0;
        for (line, fields, ok) in [
            ("POST /", "Sec-Fetch-Site: same-origin", true),
            ("POST /", "sec-fetch-site: cross-site", false),
            ("POST /", "Sec-Fetch-Site: same-site", false),
            ("POST /", "Origin: http://app.example:81", false),
            ("POST /", "Origin: http://app.example", true),
            ("POST /", "X-No: browser", true),
            ("POST /", "Sec-Fetch-Site: cross-site\r\nOrigin: https://pay.example", true),
            ("POST /hooks/a", "Sec-Fetch-Site: cross-site", true),
            ("POST /hooks/../a", "Sec-Fetch-Site: cross-site", false),
            ("GET /", "Sec-Fetch-Site: cross-site", true),
            ("GET /", "Upgrade: websocket\r\nOrigin: https://evil.example", false),
        ] {
            let connection = if fields.starts_with("Upgrade") { "Upgrade, close" } else { "close" };
            let request = format!(
                "{line} HTTP/1.1\r\nHost: app.example\r\nConnection: {connection}\r\n{fields}\r\nContent-Length: 0\r\n\r\n"
            );
            let answer = answer(address, &request).await;
            expected += usize::from(ok);
            assert!(
                answer.starts_with(if ok { "HTTP/1.1 200" } else { "HTTP/1.1 403" }),
                "{line} {fields}: {answer}"
            );
            assert_eq!(answer.contains("set-cookie"), ok, "{answer}");
            assert_eq!(handled.load(Ordering::SeqCst), expected, "{line} {fields}");
        }
    });
}

#[test]
fn the_response_can_be_the_application_s() {
    block_on(async {
        use hyper::service::{Service, service_fn};
        let handler =
            service_fn(|_: Request<Body>| async { Ok::<_, Error>(Response::new("done".to_owned())) });
        let service = CrossOriginProtection::new().wrap(handler).on_refusal(|error: &Error| {
            assert!(error.is_forgery());
            Response::builder().status(403).body("from elsewhere".to_owned()).unwrap()
        });
        let post =
            |site: &str| Request::post("/").header("sec-fetch-site", site).body(Body::default()).unwrap();
        assert_eq!(*service.call(post("cross-site")).await.unwrap().body(), "from elsewhere");
        assert_eq!(*service.call(post("none")).await.unwrap().body(), "done");
    });
}
