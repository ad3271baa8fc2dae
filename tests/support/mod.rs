//! Shared parts of the tests: a browser's cookie jar, a recorder of events, and a client for services in this process.
#![allow(dead_code, unreachable_pub, unused_imports)] // each test file uses a part

mod deadlines;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use hyper::service::Service;
use hyper_session::{Error, Event, EventKind, Observer, Refusal};

pub(crate) use self::deadlines::UNHURRIED;

pub(crate) type Body = Full<Bytes>;

/// Runs the part of a test that would wait for ever if something never happened. It then fails, after a time in which a busy
/// machine is done.
pub(crate) async fn in_time<T>(test: impl Future<Output = T>) -> T {
    tokio::time::timeout(4 * UNHURRIED, test).await.expect("it waits for what never happens")
}

/// The result of a test handler: its own failures are the test's.
pub(crate) type Answer = Result<Response<Body>, Error>;

/// Sees every event as one line, without what the line must not hold.
#[derive(Clone, Default)]
pub(crate) struct Events(Arc<Mutex<Vec<String>>>);

impl Events {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The events since the last call, as `kind` or `kind:reason`.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Observer for Events {
    fn event(&self, event: &Event<'_>) {
        let line = match event.kind {
            EventKind::InsecureCookie => "insecure_cookie".to_owned(),
            EventKind::Refused { refusal, .. } => format!("refused:{refusal}"),
            EventKind::CookieFormat { format, refusal: None, .. } => format!("format:{}", format.as_str()),
            EventKind::CookieFormat { format, refusal: Some(refusal), .. } => {
                format!("format:{}:{refusal}", format.as_str())
            }
            EventKind::SeveralSessions { sessions, subjects_differ, .. } => {
                let subjects = if subjects_differ { "differ" } else { "same" };
                format!("several_sessions:{sessions}:{subjects}")
            }
            EventKind::TooManyCandidates => "too_many_candidates".to_owned(),
            EventKind::OldKey { .. } => "old_key".to_owned(),
            EventKind::ChangesDropped { reason, .. } => format!("dropped:{}", reason.as_str()),
            EventKind::HandlerFailed { error, .. } => format!("handler_failed:{}", error.label()),
            EventKind::CookieWithheld { .. } => "cookie_withheld".to_owned(),
            EventKind::ConflictMerged { conflicts, .. } => format!("conflict_merged:{conflicts}"),
            EventKind::Migrating { from, .. } => format!("migrating:{}", from.as_str()),
            EventKind::ValueUnreadable { .. } => "value_unreadable".to_owned(),
            EventKind::StoreFailed { .. } => "store_failed".to_owned(),
            EventKind::CacheControlReplaced => "cache_control_replaced".to_owned(),
            EventKind::SetCookieReplaced => "set_cookie_replaced".to_owned(),
            EventKind::SubjectLimit { ended, .. } => format!("subject_limit:{ended}"),
            EventKind::EvictionPolicy { policy, .. } => format!("eviction_policy:{policy}"),
            EventKind::NearCacheEmptied { why, .. } => format!("near_cache_emptied:{}", why.as_str()),
            EventKind::Interrupted { completing, .. } => format!("interrupted:{completing}"),
            // Events of success have tests of their own: tests/observability/.
            EventKind::Created { .. }
            | EventKind::LoggedIn { .. }
            | EventKind::Regenerated { .. }
            | EventKind::Destroyed { .. }
            | EventKind::StoreAnswered { .. } => return,
            other => format!("unknown:{other:?}"),
        };
        self.0.lock().unwrap().push(line);
    }
}

/// True if a server-side store wrote `value` for a session, and not for what a regenerated one leaves behind or a list.
pub(crate) fn is_session(value: &[u8]) -> bool {
    value.first() == Some(&1)
}

pub(crate) fn refused(refusal: Refusal) -> String {
    format!("refused:{refusal}")
}

/// A browser's cookie jar for one host: names to values, removed by an empty Max-Age.
#[derive(Clone, Debug, Default)]
pub(crate) struct Jar(pub BTreeMap<String, String>);

impl Jar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn with(name: &str, value: &str) -> Self {
        Self(BTreeMap::from([(name.to_owned(), value.to_owned())]))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The `Cookie` header that this jar sends, if it is not empty.
    pub(crate) fn header(&self) -> Option<String> {
        let pairs: Vec<_> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }

    /// Takes in the `Set-Cookie` fields of a response.
    pub(crate) fn store(&mut self, headers: &HeaderMap) {
        for line in set_cookies(headers) {
            let cookie = cookie::Cookie::parse(line).expect("a Set-Cookie line that another library reads");
            if cookie.max_age().is_some_and(cookie::time::SignedDuration::is_zero) {
                self.0.remove(cookie.name());
            } else {
                self.0.insert(cookie.name().to_owned(), cookie.value().to_owned());
            }
        }
    }
}

/// The `Set-Cookie` lines of a response, in order.
pub(crate) fn set_cookies(headers: &HeaderMap) -> Vec<String> {
    headers.get_all(SET_COOKIE).iter().map(|line| line.to_str().unwrap().to_owned()).collect()
}

/// A request for `path` with this `Cookie` header.
pub(crate) fn request(path: &str, cookie: Option<&str>) -> Request<Body> {
    let mut request = Request::builder().uri(path);
    if let Some(cookie) = cookie {
        request = request.header(COOKIE, cookie);
    }
    request.body(Body::default()).unwrap()
}

/// Sends a request as the browser with this jar, and keeps what it is told.
pub(crate) async fn visit<S>(service: &S, path: &str, jar: &mut Jar) -> Response<Body>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Error: std::fmt::Debug,
{
    let response = service.call(request(path, jar.header().as_deref())).await.expect("a response");
    jar.store(response.headers());
    response
}

/// An empty response of this status.
pub(crate) fn status(code: u16) -> Response<Body> {
    Response::builder().status(code).body(Body::default()).unwrap()
}

/// The text of a response body.
pub(crate) async fn text<B: hyper::body::Body<Error: std::fmt::Debug>>(response: Response<B>) -> String {
    use http_body_util::BodyExt;
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs a test's future on one thread.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
