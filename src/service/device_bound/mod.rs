//! Device-bound sessions: the service that answers the requests by which a browser binds a session to its device, and proves that
//! it is still there.
//!
//! `check` decides whether any other request comes from the device of its session. Builds without the feature have `absent` instead.

mod check;
mod evidence;
mod handler_service;
mod other_origin;
mod response;
mod retry;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode};
use hyper::service::Service;
use pin_project_lite::pin_project;
use smallvec::SmallVec;

pub(super) use self::evidence::DeviceEvidence;
pub use self::handler_service::HandlerService;
use self::other_origin::{comes_by_link, is_fetched_elsewhere};
use self::response::empty;
use self::retry::again;
use super::extension;
use super::handle::SessionHandle;
use super::slot::{Loaded, Renewal, Slot};
use crate::clock::Timestamp;
use crate::device_bound::{Binder, Endpoint, PublicKey, Refreshed, headers, is_named};
use crate::error::Error;
use crate::event::{EventKind, ProofRefusal, Refusal};
use crate::session::{Record, Session, SessionId};

/// A service that answers the browsers whose sessions are bound to their devices, and passes all other requests on. Made by
/// [`SessionService::device_bound`](super::SessionService::device_bound), inside of which it is.
#[derive(Clone)]
pub struct DeviceBoundService<S, G> {
    pub(crate) inner: S,
    pub(crate) body: G,
}

impl<S, G> DeviceBoundService<S, G> {
    pub(crate) fn new(inner: S, body: G) -> Self {
        Self { inner, body }
    }
}

/// The work on one request of a browser. `None`: the request is the inner service's.
type Answer = Pin<Box<dyn Future<Output = Option<Response<Bytes>>> + Send>>;

/// The treatment of a request that is not passed on at once.
enum Step {
    /// It is answered here.
    Answered(Answer),
    /// It is passed on, unless that answers it.
    AskedFirst(Answer),
}

impl<S, G: Clone> DeviceBoundService<S, G> {
    /// Answers the request, or passes it on by `call`.
    pub(crate) fn respond<B, T>(
        body: &G,
        request: Request<B>,
        call: impl FnOnce(Request<B>) -> T,
    ) -> DeviceBoundFuture<T, G> {
        match step(&request) {
            None => DeviceBoundFuture { passed: Some(call(request)), answer: None },
            Some(Step::Answered(answer)) => {
                DeviceBoundFuture { passed: None, answer: Some((answer, body.clone())) }
            }
            Some(Step::AskedFirst(answer)) => {
                DeviceBoundFuture { passed: Some(call(request)), answer: Some((answer, body.clone())) }
            }
        }
    }
}

fn step<B>(request: &Request<B>) -> Option<Step> {
    let mut handles = extension::innermost_first(request.extensions()).map(SessionHandle::slot);
    let slot = handles.next()?;
    let binder = slot.connection.config().device_bound.as_ref()?;
    if let Some(error) = handles.find_map(|outer| slot.conflict_with(outer, binder)) {
        let answer = std::future::ready(Some(error.into_http_response()));
        return Some(Step::Answered(Box::pin(answer)));
    }
    slot.device.note_answered();
    if is_fetched_elsewhere(request.headers()) {
        slot.device.note_fetched_elsewhere();
    }
    if let Some(endpoint) = binder.endpoint(request.method(), request.uri().path()) {
        let (slot, binder, fields) = (Arc::clone(slot), Arc::clone(binder), request.headers().clone());
        let answer = async move { Some(slot.answer_device(&binder, endpoint, &fields).await) };
        return Some(Step::Answered(Box::pin(answer)));
    }
    let may_retry = comes_by_link(request) && slot.may_retry(binder);
    may_retry.then(|| {
        let answer = Arc::clone(slot).retry(Arc::clone(binder), again(request.uri()));
        Step::AskedFirst(Box::pin(answer))
    })
}

impl<S, G, B, R> Service<Request<B>> for DeviceBoundService<S, G>
where
    S: Service<Request<B>, Response = Response<R>>,
    G: Fn(Bytes) -> R + Clone,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = DeviceBoundFuture<S::Future, G>;

    fn call(&self, request: Request<B>) -> Self::Future {
        Self::respond(&self.body, request, |request| self.inner.call(request))
    }
}

impl<S: fmt::Debug, G> fmt::Debug for DeviceBoundService<S, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceBoundService").field("inner", &self.inner).finish_non_exhaustive()
    }
}

pin_project! {
    /// The future that a [`DeviceBoundService`] returns.
    #[must_use = "futures do nothing unless polled"]
    pub struct DeviceBoundFuture<T, G> {
        #[pin]
        passed: Option<T>,
        // Comes first.
        answer: Option<(Answer, G)>,
    }
}

impl<T, G, R, E> Future for DeviceBoundFuture<T, G>
where
    T: Future<Output = Result<Response<R>, E>>,
    G: Fn(Bytes) -> R,
{
    type Output = Result<Response<R>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Some((answer, body)) = this.answer {
            if let Some(response) = ready!(answer.as_mut().poll(cx)) {
                return Poll::Ready(Ok(response.map(body)));
            }
            *this.answer = None;
        }
        match this.passed.as_pin_mut() {
            Some(passed) => passed.poll(cx),
            // A request that is not passed on is answered.
            None => Poll::Pending,
        }
    }
}

impl<T, G> fmt::Debug for DeviceBoundFuture<T, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceBoundFuture").finish_non_exhaustive()
    }
}

impl Slot {
    /// Returns why the sessions of this service, with this binder, cannot be bound inside of the service `outer`.
    ///
    /// If `outer` answers browsers under the same path, this service never sees a registration. If the bound cookie of one has the
    /// name of the other one's session cookie, each replaces the other.
    fn conflict_with(&self, outer: &Self, binder: &Binder) -> Option<Error> {
        let (own, other) = (self.cookie_name(), outer.cookie_name());
        if own == other {
            return None; // one session
        }
        let of_outer = outer.connection.config().device_bound.as_deref();
        if of_outer.filter(|_| outer.device.is_answered()).is_some_and(|outer| outer.shares_paths(binder)) {
            return Some(Error::config(format!(
                "the session service of the cookie {other} answers browsers under the same path as that of {own} inside of it: set another DeviceBound::path() for one of them"
            )));
        }
        let (session, of) = if binder.sets_cookie(other) {
            (other, own)
        } else if of_outer.is_some_and(|outer| outer.sets_cookie(own)) {
            (own, other)
        } else {
            return None;
        };
        Some(Error::config(format!(
            "device_bound() of the session service of the cookie {of} sets a cookie named {session}, which is the session cookie of another service around or inside of it: choose another name()"
        )))
    }

    async fn answer_device(
        self: Arc<Self>,
        binder: &Binder,
        endpoint: Endpoint,
        fields: &HeaderMap,
    ) -> Response<Bytes> {
        self.device.expect_proof();
        let answered = match endpoint {
            Endpoint::Register => self.register_device(binder, fields).await,
            Endpoint::Refresh => self.refresh_device(binder, fields).await,
            Endpoint::Present => self.answer_image(binder, fields),
        };
        let mut response = answered.unwrap_or_else(Error::into_http_response);
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    /// Binds the session to the device whose key the request brings.
    async fn register_device(
        self: &Arc<Self>,
        binder: &Binder,
        fields: &HeaderMap,
    ) -> Result<Response<Bytes>, Error> {
        if let Some(id) = binder.offered_to(fields) {
            self.device.expect_session(id);
        }
        let session = self.session(false).await?;
        let now = self.connection.config().now();
        let record = session.stored_record().filter(|record| record.payload().has_subject());
        let Some(record) = record.or_else(|| self.device.lapsed().cloned()) else {
            return Ok(self.refuse_device(None, ProofRefusal::NoSession));
        };
        let from = record.id();
        match record.payload().device_binding() {
            Ok(None) => {}
            // The response to the registration was lost, and the request came again. Another device cannot register for a bound
            // session, whether or not that has lapsed.
            Ok(Some(binding)) => {
                return match binder.registered(fields, from, Some(binding.key), now) {
                    Ok((key, issued)) => {
                        self.emit(EventKind::DeviceProved { id: from });
                        accept_device(binder, &key, issued, now)
                    }
                    Err(_) => Ok(self.refuse_device(Some(from), ProofRefusal::AlreadyBound)),
                };
            }
            Err(_) => return Ok(self.refuse_device(Some(from), ProofRefusal::AlreadyBound)),
        }
        let (key, issued) = match binder.registered(fields, from, None, now) {
            Ok(registered) => registered,
            Err(refusal) => return Ok(self.refuse_device(Some(from), refusal)),
        };
        session.bind_device(key)?;
        let mut saved = session.save().await;
        if saved.as_ref().is_err_and(Error::is_transient) {
            // The step may have been carried out, and its reply lost. The session would be bound, and the browser would not know. On
            // a server-side store the same step finds its own key. If it was not carried out, this is a second attempt.
            saved = session.save().await;
        }
        match saved {
            Ok(()) => {}
            // Another registration was faster, or the session has ended.
            Err(error) if error.is_ended() => {
                return Ok(self.refuse_device(Some(from), ProofRefusal::NoSession));
            }
            Err(error) => return Err(error),
        }
        let record = session.stored_record();
        let bound = record.filter(|record| is_bound_to(record, &key));
        let Some(record) = bound else {
            return Ok(self.refuse_device(Some(from), ProofRefusal::AlreadyBound));
        };
        self.emit(EventKind::DeviceBound { from, id: record.id() });
        accept_device(binder, &key, issued, now)
    }

    /// Sets the bound cookie again, if the device proves that it holds its key.
    async fn refresh_device(
        self: &Arc<Self>,
        binder: &Binder,
        fields: &HeaderMap,
    ) -> Result<Response<Bytes>, Error> {
        // A refresh shows that the device is there, and not that its user is.
        let session = self.session(false).await?;
        let now = self.connection.config().now();
        let identifier = Binder::identifier(fields);
        let named = |record: &Record| {
            let binding = record.payload().device_binding().ok().flatten()?;
            identifier.as_deref().is_some_and(|id| is_named(id, &binding.key)).then_some(binding)
        };
        // Another session may be newer: that of another user, or one that another host of the domain planted under this path.
        let mut sessions = self.authentic_sessions(&session);
        let mut found = sessions.iter().find_map(|record| Some((named(record)?, record.id())));
        let mut is_superseded = self.superseded();
        if found.is_none() {
            is_superseded |= self.reload_unbound(&mut sessions, now).await?;
            found = sessions.iter().find_map(|record| Some((named(record)?, record.id())));
        }
        let Some((binding, id)) = found else {
            return Ok(self.answer_unknown(fields, identifier.is_some(), &sessions, is_superseded));
        };
        match binder.refreshed(fields, &binding.key, now)? {
            Refreshed::Proved(issued) => {
                self.emit(EventKind::DeviceProved { id });
                accept_device(binder, &binding.key, issued, now)
            }
            Refreshed::Challenged(challenge, refusal) => {
                if let Some(refusal) = refusal {
                    self.report_refusal(Some(id), refusal);
                }
                let mut response = empty(StatusCode::FORBIDDEN);
                response.headers_mut().insert(headers::CHALLENGE, challenge);
                Ok(response)
            }
            Refreshed::Unjudged(refusal) => {
                self.report_refusal(Some(id), refusal);
                Ok(empty(StatusCode::SERVICE_UNAVAILABLE))
            }
            Refreshed::Refused(refusal) => Ok(self.refuse_device(Some(id), refusal)),
        }
    }

    /// Answers a refresh of a binding that none of the `sessions` of the request has.
    fn answer_unknown(
        &self,
        fields: &HeaderMap,
        has_identifier: bool,
        sessions: &[Record],
        is_superseded: bool,
    ) -> Response<Bytes> {
        // A newer release has bound it.
        let has_unreadable = sessions.iter().any(|record| record.payload().device_binding().is_err());
        let may_be_known = self.device.has_unjudged() || self.has_untried() || has_unreadable;
        if has_identifier && (is_superseded || may_be_known) {
            // The browser is about to get the new cookie, or another host knows its session, or it is among the cookies that
            // were not tried. The browser asks again after a server error.
            return empty(StatusCode::SERVICE_UNAVAILABLE);
        }
        let bound = sessions.iter().find(|record| record.payload().device_binding() != Ok(None));
        if bound.is_some() && Binder::has_unreadable_identifier(fields) {
            // A newer release has given it to the browser.
            return empty(StatusCode::SERVICE_UNAVAILABLE);
        }
        let refusal = match bound {
            None => ProofRefusal::NoSession,
            // The browser asks about another session of its, which has ended since.
            Some(_) if has_identifier => ProofRefusal::OtherBinding,
            Some(_) => ProofRefusal::Malformed,
        };
        // After a logout, or after a login of another user, browsers ask once more for the previous binding. They have
        // proved nothing wrong.
        if Binder::has_proof(fields) {
            let id = bound.or_else(|| sessions.first()).map(Record::id);
            self.report_refusal(id, refusal);
        }
        refused(refusal)
    }

    /// Returns the authentic sessions of the request that count. `session` is the loaded session.
    fn authentic_sessions(&self, session: &Session) -> SmallVec<[Record; 1]> {
        match self.brought().filter(|brought| !brought.several.is_empty()) {
            Some(brought) => {
                let counts = |record: &&Record| brought.hidden.is_none_or(|hidden| record.recency() > hidden);
                brought.several.iter().filter(counts).cloned().collect()
            }
            None => session.stored_record().or_else(|| self.device.lapsed().cloned()).into_iter().collect(),
        }
    }

    /// Returns true if cookies of the loaded session's name were not tried.
    fn has_untried(&self) -> bool {
        matches!(self.loaded(), Some(Loaded { renewal: Renewal::Never, .. }))
    }

    /// Returns true if the request came with a token that was superseded moments ago.
    fn superseded(&self) -> bool {
        self.brought().is_some_and(|brought| !brought.superseded.is_empty())
    }

    /// Loads the sessions among these that look unbound past a near-cache: another host may have bound them since, and status 401 would
    /// end the binding. Returns true if one of their tokens was superseded moments ago.
    async fn reload_unbound(&self, sessions: &mut [Record], now: Timestamp) -> Result<bool, Error> {
        let mut is_superseded = false;
        for record in sessions.iter_mut().filter(|record| record.payload().device_binding() == Ok(None)) {
            let Some(loading) = self.connection.store().load_past_cache(record, now) else { continue };
            match self.report_failure(loading.await)? {
                Ok(loaded) => *record = loaded,
                Err(refusal) => {
                    is_superseded |= refusal == Refusal::Regenerated;
                    self.device.note_refusal(refusal);
                }
            }
        }
        Ok(is_superseded)
    }

    /// Reports a proof that was refused, and returns the response to it.
    fn refuse_device(&self, id: Option<SessionId>, refusal: ProofRefusal) -> Response<Bytes> {
        self.report_refusal(id, refusal);
        refused(refusal)
    }

    fn report_refusal(&self, id: Option<SessionId>, refusal: ProofRefusal) {
        self.emit(EventKind::DeviceProofRefused { id, refusal });
    }
}

/// Returns the response to a proof that is refused. Status 401 ends the binding in the browser; the session stays.
fn refused(refusal: ProofRefusal) -> Response<Bytes> {
    empty(match refusal {
        ProofRefusal::Malformed => StatusCode::BAD_REQUEST,
        _ => StatusCode::UNAUTHORIZED,
    })
}

fn is_bound_to(record: &Record, key: &PublicKey) -> bool {
    matches!(record.payload().device_binding(), Ok(Some(binding)) if binding.key == *key)
}

fn accept_device(
    binder: &Binder,
    key: &PublicKey,
    issued: Timestamp,
    now: Timestamp,
) -> Result<Response<Bytes>, Error> {
    let lines = binder.set_cookie(key, issued, now)?;
    Ok(response::text(binder.instructions(key), "application/json", lines))
}
