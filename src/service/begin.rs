//! The way in: find the cookie, and load the session when the handler asks.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use http::HeaderMap;
use http::header::{COOKIE, HeaderName, HeaderValue};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::connection::Connection;
use super::stopwatch::Stopwatch;
use crate::clock::Timestamp;
use crate::cookie::Found;
use crate::error::Error;
use crate::event::{Event, Operation, Refusal};
use crate::session::{Circumstances, Committer, Record, Reply, Session};
use crate::store::StoreFuture;

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
    pub(super) connection: Arc<Connection>,
    pub(super) found: Found,
    /// One at a time waits for the store: to load, to commit what the handler's own `save` asks for, to commit at the end.
    pub(super) turns: Semaphore,
    loaded: OnceLock<Loaded>,
    /// Which of the cookies was replaced by a new token moments ago.
    superseded: OnceLock<usize>,
    speculative: bool,
    asked: AtomicBool,
    closed: AtomicBool,
}

/// What a handler leaves behind.
pub(super) enum Conclusion<'a> {
    /// It never asked for its session.
    Untouched,
    /// It asked, and there is nothing to commit.
    Asked(Reply),
    /// There is something to commit.
    Unsettled(&'a Loaded),
}

#[derive(Clone)]
pub(super) struct Loaded {
    pub(super) session: Session,
    /// The moment in which this request lives.
    pub(super) now: Timestamp,
}

impl SessionHandle {
    pub(crate) fn begin(connection: &Arc<Connection>, headers: &HeaderMap) -> Self {
        let found = connection.config().cookie.finder().find(headers.get_all(COOKIE));
        // Without a cookie there is nothing that looking ahead could use up.
        let speculative = found.is_present() && is_speculative(headers);
        Self {
            slot: Arc::new(Slot {
                connection: Arc::clone(connection),
                found,
                turns: Semaphore::const_new(1),
                loaded: OnceLock::new(),
                superseded: OnceLock::new(),
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
        let loaded = if let Some(loaded) = slot.loaded.get() {
            loaded
        } else {
            slot.asked.store(true, Ordering::SeqCst);
            slot.load().await?
        };
        // The response may have gone out meanwhile: it closes what it finds loaded, we what we load afterwards.
        if slot.closed.load(Ordering::SeqCst) {
            loaded.session.close();
        }
        Ok(loaded.session.clone())
    }

    /// The name of the session's cookie.
    pub fn cookie_name(&self) -> &str {
        self.slot.cookie_name()
    }

    /// Ends the handler's part: from now on its session can only be read.
    pub(super) fn conclude(&self) -> Conclusion<'_> {
        self.slot.closed.store(true, Ordering::SeqCst);
        match self.slot.loaded.get() {
            Some(loaded) => match loaded.session.conclude() {
                Some(reply) => Conclusion::Asked(reply),
                None => Conclusion::Unsettled(loaded),
            },
            None if self.slot.asked.load(Ordering::SeqCst) => Conclusion::Asked(Reply::Nothing),
            None => Conclusion::Untouched,
        }
    }

    /// As [`conclude`](Self::conclude), and nobody commits any more: what was changed and not saved is forgotten.
    pub(super) fn discard(&self) {
        self.slot.closed.store(true, Ordering::SeqCst);
        if let Some(loaded) = self.slot.loaded.get() {
            loaded.session.close();
            loaded.session.discard();
        }
    }

    pub(super) fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }
}

/// What looking for a session comes to.
enum First<'a> {
    /// Another task has loaded it meanwhile.
    Loaded(&'a Loaded),
    /// Beside it, whether a token on the way to it was replaced by a new one moments ago.
    /// And whether one of them was revoked.
    Found { record: Option<Record>, regenerated: bool, revoked: bool },
}

impl Slot {
    pub(super) fn emit(&self, event: &Event<'_>) {
        self.connection.config().emit(event);
    }

    pub(super) fn cookie_name(&self) -> &str {
        self.connection.config().cookie_name()
    }

    pub(super) fn loaded(&self) -> Option<&Loaded> {
        self.loaded.get()
    }

    /// Loads the session, unless it was loaded meanwhile.
    async fn load(self: &Arc<Self>) -> Result<&Loaded, Error> {
        let config = self.connection.config();
        let now = config.now();
        let mut turn = None;
        let (record, regenerated, revoked) = match self.load_first_authentic(now, &mut turn).await? {
            First::Loaded(loaded) => return Ok(loaded),
            First::Found { record, regenerated, revoked } => (record, regenerated, revoked),
        };
        let renewal_due = record
            .as_ref()
            .is_some_and(|record| record.is_outdated() || config.timeouts.renewal_due(record, now));
        // A cookie that is no session is removed, if the handler puts no other in its place; but the answer to a request
        // that was overtaken by a login must not take away the cookie that the login gave.
        let dead = record.is_none() && self.found.is_present();
        let overtaken = dead && regenerated;
        // A revoked one may stand in a browser that was given another one since: the response to this request may be late.
        let reply = if dead && !overtaken && !revoked { Reply::Remove } else { Reply::Nothing };
        let committer: Weak<dyn Committer> = Arc::downgrade(self) as _;
        let circumstances = Circumstances {
            now,
            speculative: self.speculative,
            shared_flash: config.with_astra,
            revocable: config.revocable,
        };
        let session = Session::new(record, renewal_due, overtaken, reply, circumstances, committer);
        // Of two that a store answered at once, the first one counts.
        Ok(self.loaded.get_or_init(|| Loaded { session, now }))
    }

    /// Tries the cookies of the session's name in order: the first authentic one wins, and none that is not is adopted.
    /// Beside it, whether one of them was replaced by a new token moments ago.
    ///
    /// Who has to wait for the store takes a turn first, and finds what those before it have loaded.
    async fn load_first_authentic<'a>(
        &'a self,
        now: Timestamp,
        turn: &mut Option<SemaphorePermit<'a>>,
    ) -> Result<First<'a>, Error> {
        let (config, cookie) = (self.connection.config(), self.cookie_name());
        if self.found.overflowed() {
            self.emit(&Event::TooManyCandidates { cookie });
        }
        let mut joined = Vec::new();
        let (mut regenerated, mut revoked) = (false, false);
        for candidate in 0..self.found.len() {
            let token = self.found.token(candidate, |number| config.cookie.chunk_size(number), &mut joined);
            if let Some(record) = self.connection.recall(token, now) {
                return Ok(self.found(record, regenerated));
            }
            let loading = self.connection.store().load(token, now);
            if turn.is_none() && !loading.is_immediate() {
                *turn = self.turns.acquire().await.ok();
                if let Some(loaded) = self.loaded.get() {
                    return Ok(First::Loaded(loaded));
                }
            }
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
                    self.connection.opened(token, &record, now);
                    return Ok(self.found(record, regenerated));
                }
                Err(refusal) => {
                    if refusal == Refusal::Regenerated {
                        regenerated = true;
                        // Of two loads at once the first one counts: they find the same.
                        let _ = self.superseded.set(candidate);
                    }
                    revoked |= refusal == Refusal::Revoked;
                    self.emit(&Event::Refused { cookie, refusal });
                }
            }
        }
        Ok(First::Found { record: None, regenerated, revoked })
    }

    /// Ends the session of the cookie that was replaced moments ago: the handler ended what it was shown, which is empty.
    pub(super) fn end_superseded(&self, now: Timestamp) -> StoreFuture<()> {
        let Some(candidate) = self.superseded.get() else { return StoreFuture::ready(Ok(())) };
        let config = self.connection.config();
        let mut joined = Vec::new();
        let token = self.found.token(*candidate, |number| config.cookie.chunk_size(number), &mut joined);
        self.connection.store().end_superseded(token, now)
    }

    fn found(&self, record: Record, regenerated: bool) -> First<'_> {
        if record.with_old_key() {
            self.emit(&Event::OldKey { cookie: self.cookie_name(), id: record.id() });
        }
        First::Found { record: Some(record), regenerated, revoked: false }
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
