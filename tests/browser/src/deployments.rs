//! A service that is deployed again with other options for its session cookie, while browsers hold the previous cookies.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper::{Method, Request, Response};
use hyper_session::cookie::CookieOptions;
use hyper_session::store::{Memory, Store};
use hyper_session::{
    AppKey, CookieStore, Error, ServerStore, Session, SessionExt, SessionHandle, SessionService, session_fn,
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::Server;

/// A host with a parent domain, both of this machine.
const HOST: &str = "app.house.localhost";

/// The cookie of a service around the other one.
pub const OUTER: &str = "__Host-outer";

/// Where the sessions are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// In the cookies.
    Cookies,
    /// In the memory of the service, which outlives its deployments.
    Memory,
}

/// The stores of two deployments with these options for the cookie: the same key, and the same memory.
pub fn stores(keeping: Keeping, options: [CookieOptions; 2]) -> [Arc<dyn Store>; 2] {
    let key = AppKey::generate().expect("a key").to_text();
    let memory = Arc::new(Memory::new());
    options.map(|cookie| -> Arc<dyn Store> {
        match keeping {
            Keeping::Cookies => {
                let key = key.parse::<AppKey>().expect("a key");
                Arc::new(CookieStore::builder(key).cookie(cookie).build().expect("options that fit"))
            }
            Keeping::Memory => {
                let store = ServerStore::with_backend(Arc::clone(&memory)).cookie(cookie);
                Arc::new(store.build().expect("options that fit"))
            }
        }
    })
}

/// A service behind TLS. `/login/NAME` logs in, `/logout` logs out, and every page under `/` and `/area/` shows the user.
pub struct Deployments {
    server: Server,
    present: Present,
    _runtime: Runtime,
}

/// The store of the present deployment, and that of a service around it, if there is one.
type Present = Arc<Mutex<(Arc<dyn Store>, Option<Arc<dyn Store>>)>>;

impl Deployments {
    pub fn start(store: &Arc<dyn Store>) -> Self {
        Self::start_within(store, None)
    }

    /// Starts a service inside of one with the cookie [`OUTER`]. A login logs in to both sessions, and a page shows both users.
    pub fn start_within(store: &Arc<dyn Store>, outer: Option<&Arc<dyn Store>>) -> Self {
        let present = Arc::new(Mutex::new((Arc::clone(store), outer.cloned())));
        let runtime = Runtime::new().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("its number");
        runtime.spawn(serve(listener, Arc::clone(&present)));
        Self { server: Server::in_front_of(HOST, address), present, _runtime: runtime }
    }

    /// Goes on with this store.
    pub fn deploy(&self, store: &Arc<dyn Store>) {
        *self.present.lock().expect("no panic") = (Arc::clone(store), None);
    }

    pub fn server(&self) -> &Server {
        &self.server
    }
}

async fn serve(listener: TcpListener, present: Present) {
    while let Ok((stream, _)) = listener.accept().await {
        let present = Arc::clone(&present);
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                // Each request asks the present deployment, also over a connection that is older than it.
                let (store, outer) = present.lock().expect("no panic").clone();
                let service = session_fn(store, page).device_bound(Full::new);
                async move {
                    match outer {
                        Some(outer) => {
                            SessionService::new(service, outer).device_bound(Full::new).call(request).await
                        }
                        None => service.call(request).await,
                    }
                }
            });
            let connection = hyper::server::conn::http1::Builder::new();
            let _ = connection.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn page(
    request: Request<Incoming>,
    handle: SessionHandle,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() == Method::POST {
        return Ok(Response::builder().status(404).body(Full::default()).unwrap_or_default());
    }
    let shown = show(&request, &handle).await;
    let text = shown.unwrap_or_else(|error| format!("failed: {error}"));
    let html = format!("<!doctype html><title>Sessions</title><body>{text}</body>");
    let response =
        Response::builder().header("content-type", "text/html").header("cache-control", "no-store");
    Ok(response.body(Full::from(html)).unwrap_or_default())
}

async fn show(request: &Request<Incoming>, handle: &SessionHandle) -> Result<String, Error> {
    let own = use_session(request.uri().path(), &handle.load().await?)?;
    match request.session_named(OUTER).await {
        Ok(outer) => Ok(format!("{own}, outer {}", use_session(request.uri().path(), &outer)?)),
        Err(error) if error.is_not_wrapped() => Ok(own),
        Err(error) => Err(error),
    }
}

fn use_session(path: &str, session: &Session) -> Result<String, Error> {
    if let Some((_, name)) = path.split_once("/login/") {
        session.login(name)?;
    } else if path.ends_with("/logout") {
        session.destroy()?;
    }
    Ok(session.subject().map_or("logged out".to_owned(), |user| format!("logged in: {user}")))
}
