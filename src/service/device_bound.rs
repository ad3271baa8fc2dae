//! The service that answers the requests by which a browser binds a session to its device, and proves that it is still there.

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

use super::device_response::{self, empty};
use super::device_retry::again;
use super::extension;
use super::fetch_metadata::comes_by_link;
use super::handle::SessionHandle;
use super::slot::Slot;
use crate::clock::Timestamp;
use crate::device_bound::{Binder, Endpoint, PublicKey, Refreshed, headers};
use crate::error::Error;
use crate::event::{EventKind, ProofRefusal, Refusal};
use crate::session::{Record, SessionId};

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
    if let Some(outer) = handles.find(|outer| outer.answers_for(binder, slot)) {
        let answer = std::future::ready(Some(unreachable_behind(outer, slot)));
        return Some(Step::Answered(Box::pin(answer)));
    }
    slot.device.note_answered();
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

/// Returns the response of a service whose browsers `outer` answers. It would never see a registration, and none of its sessions would
/// be bound.
fn unreachable_behind(outer: &Slot, inner: &Slot) -> Response<Bytes> {
    Error::config(format!(
        "the session service of the cookie {} answers browsers under the same path as that of {} inside of it: set another DeviceBound::path() for one of them",
        outer.cookie_name(),
        inner.cookie_name()
    ))
    .into_http_response()
}

impl Slot {
    /// Returns true if a service answers the browsers of this session under a path of `binder`, which belongs to the session of
    /// another cookie, `inner`.
    fn answers_for(&self, binder: &Binder, inner: &Self) -> bool {
        let own = self.connection.config().device_bound.as_ref().filter(|_| self.device.is_answered());
        self.cookie_name() != inner.cookie_name() && own.is_some_and(|own| own.shares_paths(binder))
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
        let session = self.session(false).await?;
        let now = self.connection.config().now();
        let record = session.stored_record().filter(|record| record.payload().has_subject());
        let Some(record) = record else {
            // A bound session that has lapsed is not another device's to register for.
            let bound = self.device.lapsed().map(|lapsed| (lapsed.id(), ProofRefusal::AlreadyBound));
            let (id, refusal) = bound.map_or((None, ProofRefusal::NoSession), |(id, why)| (Some(id), why));
            return Ok(self.refuse_device(id, refusal));
        };
        let from = record.id();
        if record.payload().device_binding() != Ok(None) {
            return Ok(self.refuse_device(Some(from), ProofRefusal::AlreadyBound));
        }
        let (key, issued) = match binder.registered(fields, from, now) {
            Ok(registered) => registered,
            Err(refusal) => return Ok(self.refuse_device(Some(from), refusal)),
        };
        session.bind_device(key)?;
        match session.save().await {
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
        let mut record = session.stored_record().or_else(|| self.device.lapsed().cloned());
        let mut is_superseded = self.superseded();
        let unbound = record.as_ref().filter(|record| record.payload().device_binding() == Ok(None));
        // Another host may have bound it since this one put it into its cache. Status 401 would end the binding.
        if let Some(loading) = unbound.and_then(|record| self.connection.store().load_past_cache(record, now))
        {
            let loaded = self.reported(loading.await)?;
            is_superseded |= matches!(loaded, Err(Refusal::Regenerated));
            if let Err(refusal) = &loaded {
                self.device.note_refusal(*refusal);
            }
            record = loaded.ok();
        }
        let binding = record.as_ref().and_then(|record| record.payload().device_binding().ok().flatten());
        let id = record.as_ref().map(Record::id);
        let (Some(binding), Some(record)) = (binding, record) else {
            if is_superseded || self.device.has_unjudged() {
                // The browser is about to get the new cookie, or another host knows its session. It asks again after a server
                // error.
                return Ok(empty(StatusCode::SERVICE_UNAVAILABLE));
            }
            return Ok(self.refuse_device(id, ProofRefusal::NoSession));
        };
        match binder.refreshed(fields, &binding.key, now)? {
            Refreshed::Proved(issued) => {
                self.emit(EventKind::DeviceProved { id: record.id() });
                accept_device(binder, &binding.key, issued, now)
            }
            Refreshed::Challenged(challenge, refusal) => {
                if let Some(refusal) = refusal {
                    self.report_refusal(id, refusal);
                }
                let mut response = empty(StatusCode::FORBIDDEN);
                response.headers_mut().insert(headers::CHALLENGE, challenge);
                Ok(response)
            }
            Refreshed::Refused(refusal) => Ok(self.refuse_device(id, refusal)),
        }
    }

    /// Returns the response to a proof that was refused. Status 401 ends the binding in the browser; the session stays.
    fn refuse_device(&self, id: Option<SessionId>, refusal: ProofRefusal) -> Response<Bytes> {
        self.report_refusal(id, refusal);
        empty(match refusal {
            ProofRefusal::Malformed => StatusCode::BAD_REQUEST,
            _ => StatusCode::UNAUTHORIZED,
        })
    }

    fn report_refusal(&self, id: Option<SessionId>, refusal: ProofRefusal) {
        self.emit(EventKind::DeviceProofRefused { id, refusal });
    }
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
    Ok(device_response::text(binder.instructions(key), "application/json", lines))
}
