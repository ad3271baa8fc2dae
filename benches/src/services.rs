//! The services that are compared. Each does the same for the same path, with a session of the same values.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::header::COOKIE;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::service::{Service, service_fn};
use hyper_session::store::Store;
use hyper_session::{Error, Session, SessionExt, SessionHandle, SessionService, session_fn};

use crate::ready;
use crate::tokens::{cookie_pair, plain_store, text_of};

/// The body of requests in process, and of all responses.
pub type Body = Full<Bytes>;

/// An action of a handler on its session, by the path of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Puts the session's values in: 256 bytes of them, as the crate encodes them.
    Login,
    /// Does not ask for the session.
    Untouched,
    /// Reads one number.
    Read,
    /// Reads one number and writes it back, changed.
    Change,
    /// Ends the session.
    Destroy,
}

impl Action {
    pub const ALL: [Self; 5] = [Self::Login, Self::Untouched, Self::Read, Self::Change, Self::Destroy];

    pub const fn path(self) -> &'static str {
        match self {
            Self::Login => "/login",
            Self::Untouched => "/untouched",
            Self::Read => "/read",
            Self::Change => "/change",
            Self::Destroy => "/destroy",
        }
    }

    /// The action of a request. Every handler pays for this look at its path, the bare one, too.
    pub fn of<B>(request: &Request<B>) -> Self {
        match request.uri().path().as_bytes() {
            [_, b'l', ..] => Self::Login,
            [_, b'r', ..] => Self::Read,
            [_, b'c', ..] => Self::Change,
            [_, b'd', ..] => Self::Destroy,
            _ => Self::Untouched,
        }
    }
}

/// The values of a session: 256 bytes in the crate's encoding, which has 27 bytes of keys, lengths and the other two.
pub const USER: &str = "ada";
pub const VISITS: u64 = 1_000;

pub fn text() -> String {
    text_of(256 - 27)
}

pub fn hello() -> Response<Body> {
    Response::new(Full::new(Bytes::from_static(b"hello, world!")))
}

/// The answer to a read: an error if the session was not there.
pub fn checked(visits: Option<u64>) -> Response<Body> {
    let mut response = hello();
    if visits != Some(VISITS) {
        *response.status_mut() = StatusCode::IM_A_TEAPOT;
    }
    response
}

/// The service without a session layer.
pub fn bare<B>() -> impl Service<
    Request<B>,
    Response = Response<Body>,
    Error = Error,
    Future = impl Future<Output = Result<Response<Body>, Error>> + Send,
> + Clone
where
    B: hyper::body::Body + Send + 'static,
{
    service_fn(|request: Request<B>| async move {
        std::hint::black_box(Action::of(&request));
        Ok(hello())
    })
}

/// The service without a session layer, whose response to a change has the head of ours: what any service spends that sets such a
/// cookie. Each response has another cookie.
pub fn with_head_of_change<B>() -> impl Service<
    Request<B>,
    Response = Response<Body>,
    Error = Error,
    Future = impl Future<Output = Result<Response<Body>, Error>> + Send,
> + Clone
where
    B: hyper::body::Body + Send + 'static,
{
    let heads: Arc<[HeaderMap]> = heads_of_changes().into();
    let next = Arc::new(AtomicUsize::new(0));
    service_fn(move |request: Request<B>| {
        let (heads, next) = (Arc::clone(&heads), Arc::clone(&next));
        async move {
            let mut response = hello();
            if Action::of(&request) == Action::Change {
                let head = &heads[next.fetch_add(1, Ordering::Relaxed) % heads.len()];
                for (name, value) in head {
                    response.headers_mut().append(name, value.clone());
                }
            }
            Ok(response)
        }
    })
}

/// The heads of as many changes as are under way at once.
fn heads_of_changes() -> Vec<HeaderMap> {
    let mut ours = Arm::hyper("hyper-session", by_extension(plain_store()));
    let cookie = ours.login();
    let change = |_| ours.call(request(Action::Change, cookie.as_ref())).headers().clone();
    (0..32).map(change).collect()
}

fn act(session: &Session, action: Action) -> Result<Response<Body>, Error> {
    match action {
        Action::Login => {
            session.set("user", USER)?;
            session.set("visits", VISITS)?;
            session.set("text", text())?;
        }
        Action::Untouched => {}
        Action::Read => return Ok(checked(session.get("visits")?)),
        Action::Change => {
            let visits: Option<u64> = session.get("visits")?;
            session.set("visits", visits.unwrap_or(0) + 1)?;
            return Ok(checked(visits));
        }
        Action::Destroy => session.destroy()?,
    }
    Ok(hello())
}

/// Ours, through the extensions of the request.
pub fn by_extension<B>(
    store: impl Store,
) -> impl Service<
    Request<B>,
    Response = Response<Body>,
    Error = Error,
    Future = impl Future<Output = Result<Response<Body>, Error>> + Send,
> + Clone
where
    B: hyper::body::Body + Send + 'static,
{
    let handler = service_fn(|request: Request<B>| async move {
        match Action::of(&request) {
            Action::Untouched => Ok(hello()),
            action => act(&request.session().await?, action),
        }
    });
    SessionService::new(handler, store)
}

/// Ours, through the argument of the handler.
pub fn by_argument<B>(
    store: impl Store,
) -> impl Service<
    Request<B>,
    Response = Response<Body>,
    Error = Error,
    Future = impl Future<Output = Result<Response<Body>, Error>> + Send,
> + Clone
where
    B: hyper::body::Body + Send + 'static,
{
    session_fn(store, |request: Request<B>, session: SessionHandle| async move {
        match Action::of(&request) {
            Action::Untouched => Ok(hello()),
            action => act(&session.load().await?, action),
        }
    })
}

/// A service that is called in process.
pub struct Arm {
    pub name: &'static str,
    call: Box<dyn FnMut(Request<Body>) -> Response<Body>>,
    /// It has a session, and so a cookie.
    pub has_session: bool,
    /// Reading does not mark the cookie's presence in the response, but changing must.
    pub sets_cookie_on_change: bool,
}

impl Arm {
    pub fn new(name: &'static str, call: impl FnMut(Request<Body>) -> Response<Body> + 'static) -> Self {
        Self { name, call: Box::new(call), has_session: true, sets_cookie_on_change: true }
    }

    pub fn hyper<S>(name: &'static str, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Error> + 'static,
    {
        Self::new(name, move |request| ready(service.call(request)).unwrap())
    }

    pub fn call(&mut self, request: Request<Body>) -> Response<Body> {
        (self.call)(request)
    }

    /// Logs in, and returns the `Cookie` field of the session.
    pub fn login(&mut self) -> Option<HeaderValue> {
        let response = self.call(request(Action::Login, None));
        assert_eq!(response.status(), 200, "{}", self.name);
        self.has_session.then(|| HeaderValue::from_str(&cookie_pair(response.headers())).unwrap())
    }

    /// Checks that each action does what its name says.
    pub fn check(&mut self) {
        let set = |headers: &HeaderMap| headers.contains_key("set-cookie");
        let Some(cookie) = self.login() else {
            assert_eq!(self.call(request(Action::Read, None)).status(), 200);
            return;
        };
        let mut call = |action, cookie: Option<&HeaderValue>| self.call(request(action, cookie));
        let untouched = call(Action::Untouched, Some(&cookie));
        assert!(untouched.status() == 200 && !set(untouched.headers()));
        let read = call(Action::Read, Some(&cookie));
        assert!(read.status() == 200 && !set(read.headers()));
        assert_eq!(call(Action::Read, None).status(), 418, "a read without a session");
        let changed = call(Action::Change, Some(&cookie));
        assert_eq!(changed.status(), 200);
        // A cookie store puts the change into a new cookie, and other stores keep it themselves.
        let next = match set(changed.headers()) {
            true => HeaderValue::from_str(&cookie_pair(changed.headers())).unwrap(),
            false => cookie.clone(),
        };
        assert_eq!(call(Action::Read, Some(&next)).status(), 418, "the value was not changed");
        let destroyed = call(Action::Destroy, Some(&next));
        assert!(destroyed.status() == 200 && set(destroyed.headers()));
        let line = destroyed.headers()["set-cookie"].to_str().unwrap();
        assert!(line.contains("Max-Age=0") || line.contains("01 Jan 1970"), "{line}");
        assert_eq!(self.sets_cookie_on_change, set(changed.headers()), "{}", self.name);
    }
}

/// A request of a browser.
pub fn request(action: Action, cookie: Option<&HeaderValue>) -> Request<Body> {
    let mut request = Request::new(Body::default());
    *request.uri_mut() = http::Uri::from_static(action.path());
    request.headers_mut().insert("host", HeaderValue::from_static("localhost"));
    if let Some(cookie) = cookie {
        request.headers_mut().insert(COOKIE, cookie.clone());
    }
    request
}

/// The bare service that sends the head of a change.
pub const WITH_HEAD: &str = "bare with the same head";

/// Ours with all the defaults, on a connection that brings the cookie which it was sent last.
pub const MEMO: &str = "hyper-session-memo";

/// `RedisStore` with a near-cache.
pub const NEAR: &str = "hyper-session, near-cache";
