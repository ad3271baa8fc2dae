//! The way in: find the cookie, and load the session when the handler asks.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use http::HeaderMap;
use http::header::{COOKIE, HeaderName, HeaderValue};
use tokio::sync::{OnceCell, Semaphore};

use super::stopwatch::Stopwatch;
use crate::clock::Timestamp;
use crate::cookie::Found;
use crate::error::Error;
use crate::event::{Event, Operation, Refusal};
use crate::session::{Circumstances, Committer, Record, Reply, Session};
use crate::store::Store;

static SEC_PURPOSE: HeaderName = HeaderName::from_static("sec-purpose");

/// The session of one request, not yet loaded.
///
/// It costs nothing until [`load`](Self::load) is called. Clones are the same session.
///
/// # Examples
///
/// ```
/// use http::{Request, Response};
/// use hyper::service::Service;
/// use hyper_session::{AppKey, CookieStore, Error, SessionHandle, session_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Error> {
/// let store = CookieStore::builder(AppKey::generate()?).build()?;
/// let service = session_fn(store, |request: Request<()>, session: SessionHandle| async move {
///     if request.uri().path() != "/ping" {
///         session.load().await?.set("seen", true)?;
///     }
///     Ok::<_, Error>(Response::new(()))
/// });
/// let untouched = service.call(Request::builder().uri("/ping").body(()).unwrap()).await?;
/// assert!(untouched.headers().is_empty());
/// let changed = service.call(Request::new(())).await?;
/// assert!(changed.headers().contains_key("set-cookie"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SessionHandle {
    slot: Arc<Slot>,
}

/// All that one request and its response need to know about one session.
pub(super) struct Slot {
    pub(super) store: Arc<dyn Store>,
    pub(super) found: Found,
    /// One commit at a time: the handler's own `save`, and the one at the end.
    pub(super) commits: Semaphore,
    loaded: OnceCell<Loaded>,
    speculative: bool,
    asked: AtomicBool,
    closed: AtomicBool,
}

#[derive(Clone)]
pub(super) struct Loaded {
    pub(super) session: Session,
    /// The moment in which this request lives.
    pub(super) now: Timestamp,
}

impl SessionHandle {
    pub(crate) fn begin(store: &Arc<dyn Store>, headers: &HeaderMap) -> Self {
        let found = store.config().cookie.finder().find(headers.get_all(COOKIE));
        // Without a cookie there is nothing that looking ahead could use up.
        let speculative = found.is_present() && is_speculative(headers);
        Self {
            slot: Arc::new(Slot {
                store: Arc::clone(store),
                found,
                commits: Semaphore::const_new(1),
                loaded: OnceCell::const_new(),
                speculative,
                asked: AtomicBool::new(false),
                closed: AtomicBool::new(false),
            }),
        }
    }

    /// Decodes the session; the second time, and for a clone, it is there already.
    ///
    /// Without a cookie, or with one that is not authentic, expired or unknown, the session is empty.
    ///
    /// # Errors
    ///
    /// [`is_unavailable`](Error::is_unavailable) if the store cannot tell. Never an empty session in its place: writing to
    /// it could overwrite the real one.
    pub async fn load(&self) -> Result<Session, Error> {
        let slot = &self.slot;
        slot.asked.store(true, Ordering::SeqCst);
        let loaded = slot.loaded.get_or_try_init(|| slot.load()).await?;
        // The response may have gone out meanwhile: it closes what it finds loaded, we what we load afterwards.
        if slot.closed.load(Ordering::SeqCst) {
            loaded.session.close();
        }
        Ok(loaded.session.clone())
    }

    /// The name of the session's cookie.
    pub fn cookie_name(&self) -> &str {
        self.slot.store.config().cookie_name()
    }

    /// Ends the handler's part: from now on its session can only be read. True if it ever asked for it.
    pub(super) fn close(&self) -> bool {
        let first = !self.slot.closed.swap(true, Ordering::SeqCst);
        if let Some(loaded) = self.slot.loaded.get().filter(|_| first) {
            loaded.session.close();
        }
        self.slot.asked.load(Ordering::SeqCst)
    }

    /// As [`close`](Self::close), and nobody commits any more: what was changed and not saved is forgotten.
    pub(super) fn discard(&self) {
        self.close();
        if let Some(loaded) = self.slot.loaded.get() {
            loaded.session.discard();
        }
    }

    pub(super) fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }
}

impl Slot {
    pub(super) fn emit(&self, event: &Event<'_>) {
        self.store.config().emit(event);
    }

    pub(super) fn cookie_name(&self) -> &str {
        self.store.config().cookie_name()
    }

    pub(super) fn loaded(&self) -> Option<&Loaded> {
        self.loaded.get()
    }

    async fn load(self: &Arc<Self>) -> Result<Loaded, Error> {
        let config = self.store.config();
        let now = config.now();
        let (record, regenerated) = self.load_first_authentic(now).await?;
        let renewal_due = record
            .as_ref()
            .is_some_and(|record| record.is_outdated() || config.timeouts.renewal_due(record, now));
        // A cookie that is no session is removed, if the handler puts no other in its place; but the answer to a request
        // that was overtaken by a login must not take away the cookie that the login gave.
        let dead = record.is_none() && self.found.is_present();
        let overtaken = dead && regenerated;
        let reply = if dead && !overtaken { Reply::Remove } else { Reply::Nothing };
        let committer: Weak<dyn Committer> = Arc::downgrade(self) as _;
        let circumstances =
            Circumstances { now, speculative: self.speculative, shared_flash: config.with_astra };
        let session = Session::new(record, renewal_due, overtaken, reply, circumstances, committer);
        Ok(Loaded { session, now })
    }

    /// Tries the cookies of the session's name in order: the first authentic one wins, and none that is not is adopted.
    /// Beside it, whether one of them was replaced by a new token moments ago.
    async fn load_first_authentic(&self, now: Timestamp) -> Result<(Option<Record>, bool), Error> {
        let (config, cookie) = (self.store.config(), self.cookie_name());
        if self.found.overflowed() {
            self.emit(&Event::TooManyCandidates { cookie });
        }
        let mut joined = Vec::new();
        let mut regenerated = false;
        for candidate in 0..self.found.len() {
            let token = self.found.token(candidate, |number| config.cookie.chunk_size(number), &mut joined);
            let loading = self.store.load(token, now);
            let stopwatch = Stopwatch::start(config, Operation::Load, &loading);
            let loaded = loading.await;
            if let Some(stopwatch) = stopwatch {
                stopwatch.stop(config, loaded.is_ok());
            }
            let failed = |error: &Error| {
                self.emit(&Event::StoreFailed { cookie, id: None, operation: Operation::Load, error });
            };
            match loaded.inspect_err(failed)? {
                Ok(record) => {
                    if record.with_old_key() {
                        self.emit(&Event::OldKey { cookie, id: record.id() });
                    }
                    return Ok((Some(record), regenerated));
                }
                Err(refusal) => {
                    regenerated |= refusal == Refusal::Regenerated;
                    self.emit(&Event::Refused { cookie, refusal });
                }
            }
        }
        Ok((None, regenerated))
    }
}

/// True if the browser asks ahead, on a guess that the user may come here.
///
/// `Sec-Purpose` is a structured field of the Fetch standard whose token is `prefetch`; prerendering adds a parameter.
fn is_speculative(headers: &HeaderMap) -> bool {
    let purpose = headers.get(&SEC_PURPOSE).map(HeaderValue::as_bytes);
    purpose.is_some_and(|purpose| purpose == b"prefetch" || purpose.starts_with(b"prefetch;"))
}

impl fmt::Debug for SessionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionHandle").field("cookie", &self.cookie_name()).finish_non_exhaustive()
    }
}
