//! One arm behind hyper on a loopback socket, on one thread: `server ARM h1|h2`. Prints its port, and two cookies for it.

use std::convert::Infallible;
use std::future::Future;
use std::io::Write;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_session_benches::services::{
    Action, Body, MEMO, WITH_HEAD, bare, by_argument, by_extension, with_head_of_change,
};
use hyper_session_benches::tokens::{cookie_pair, default_store, plain_store};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [arm, protocol] = &arguments[..] else { panic!("server ARM h1|h2") };
    let second = protocol == "h2";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        match arm.as_str() {
            "bare" => serve(bare::<Incoming>(), bare(), second, false).await,
            WITH_HEAD => serve(with_head_of_change::<Incoming>(), with_head_of_change(), second, false).await,
            "hyper-session" | MEMO => {
                let store = if arm == MEMO { default_store() } else { plain_store() };
                serve(by_extension::<Incoming>(store.clone()), by_extension(store), second, true).await;
            }
            "hyper-session-fn" => {
                let store = plain_store();
                serve(by_argument::<Incoming>(store.clone()), by_argument(store), second, true).await;
            }
            #[cfg(feature = "peers")]
            "tower-sessions-memory" => {
                use hyper_session_benches::peers::{MemoryStore, tower_sessions};
                let store = MemoryStore::default();
                serve_tower(tower_sessions(store.clone()), tower_sessions(store), second).await;
            }
            #[cfg(feature = "peers")]
            "tower-sessions-cookie-store" => {
                use hyper_session_benches::peers::tower_sessions_cookie;
                serve_tower(tower_sessions_cookie(), tower_sessions_cookie(), second).await;
            }
            #[cfg(feature = "peers")]
            "seshcookie" => {
                use hyper_session_benches::peers::seshcookie;
                serve_tower(seshcookie(), seshcookie(), second).await;
            }
            other => panic!("no such arm: {other}"),
        }
    });
}

#[cfg(feature = "peers")]
async fn serve_tower(
    service: impl hyper_session_benches::peers::Peer<Incoming>,
    login: impl hyper_session_benches::peers::Peer<Body>,
    second: bool,
) {
    use hyper_util::service::TowerToHyperService;
    serve(TowerToHyperService::new(service), TowerToHyperService::new(login), second, true).await;
}

/// `service` on a port of its own; `login` is the same one, for a request in process.
async fn serve<S, L>(service: S, login: L, second: bool, has_session: bool)
where
    S: Service<Request<Incoming>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Future + Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    L: Service<Request<Body>, Response = Response<Body>>,
    L::Error: std::fmt::Debug,
{
    // Two sessions: where they live on the server, one that is changed reads differently.
    let mut cookies = ["-".to_owned(), "-".to_owned()];
    for cookie in cookies.iter_mut().filter(|_| has_session) {
        let request = hyper_session_benches::services::request(Action::Login, None);
        *cookie = cookie_pair(login.call(request).await.unwrap().headers());
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{} {}", listener.local_addr().unwrap().port(), cookies.join(" "));
    std::io::stdout().flush().unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (io, service) = (TokioIo::new(stream), service.clone());
        // A client that closes its connection is not a failure.
        tokio::spawn(async move {
            if second {
                let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await;
            } else {
                let _ = http1::Builder::new().serve_connection(io, service).await;
            }
            Ok::<_, Infallible>(())
        });
    }
}
