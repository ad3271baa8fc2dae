//! `Slot`: what one request and its response know about one session, and how the session is loaded.

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
use crate::session::{Circumstances, Committer, Record, Reply, Session, SessionId, Standing, Weight};
use crate::store::StoreFuture;

static SEC_PURPOSE: HeaderName = HeaderName::from_static("sec-purpose");

/// All that one request and its response need to know about one session.
pub(super) struct Slot {
    pub(super) connection: Arc<Connection>,
    pub(super) found: Found,
    /// One task at a time waits for the store: to load, to commit for [`Session::save`], to commit at the end.
    pub(super) permit: Semaphore,
    loaded: OnceLock<Loaded>,
    /// Which of the cookies was replaced by a new token moments ago.
    superseded: OnceLock<usize>,
    speculative: bool,
    asked: AtomicBool,
    closed: AtomicBool,
}

#[derive(Clone)]
pub(super) struct Loaded {
    pub(super) session: Session,
    /// When it was loaded.
    pub(super) now: Timestamp,
    /// The id of the session that was loaded, if there was one: the client has its token.
    pub(super) id: Option<SessionId>,
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
    /// The slot of a request with these headers.
    pub(super) fn new(connection: &Arc<Connection>, headers: &HeaderMap) -> Self {
        let found = connection.config().finder.find(headers.get_all(COOKIE));
        // Without a cookie there is nothing that a speculative request could use up.
        let speculative = found.is_present() && is_speculative(headers);
        Self {
            connection: Arc::clone(connection),
            found,
            permit: Semaphore::const_new(1),
            loaded: OnceLock::new(),
            superseded: OnceLock::new(),
            speculative,
            asked: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    /// Loads the session, or returns the one that was loaded before.
    pub(super) async fn session(self: &Arc<Self>) -> Result<Session, Error> {
        let loaded = if let Some(loaded) = self.loaded.get() {
            loaded
        } else {
            self.asked.store(true, Ordering::SeqCst);
            self.load().await?
        };
        // The response may have gone out meanwhile: it closes what it finds loaded, this closes what is loaded afterwards.
        if self.closed.load(Ordering::SeqCst) {
            loaded.session.close();
        }
        Ok(loaded.session.clone())
    }

    /// Closes whatever is loaded from now on.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// The present moment, for a session that was loaded at `loaded`. A clock that goes back takes no time from it.
    pub(super) fn now_since(&self, loaded: Timestamp) -> Timestamp {
        self.connection.config().now().max(loaded)
    }

    /// What the options say about `record` at `now`. No renewal is due where the response says something about the cookie
    /// already (`spoken_for`).
    pub(super) fn standing(&self, record: &Record, now: Timestamp, spoken_for: bool) -> Standing {
        let mut standing = self.connection.config().timeouts.standing(record, now);
        if spoken_for {
            (standing.renewal_due, standing.expired) = (false, false);
        }
        standing
    }

    /// Returns true if the handler asked for the session.
    pub(super) fn was_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

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
        let mut permit = None;
        let (record, regenerated, revoked) = match self.load_first_authentic(now, &mut permit).await? {
            First::Loaded(loaded) => return Ok(loaded),
            First::Found { record, regenerated, revoked } => (record, regenerated, revoked),
        };
        // A cookie that is no session is removed, if the handler puts no other in its place; but the answer to a request
        // that was overtaken by a login must not take away the cookie that the login gave.
        let dead = record.is_none() && self.found.is_present();
        let overtaken = dead && regenerated;
        // A revoked one may stand in a browser that was given another one since: the response to this request may be late.
        let removal = Reply::Remove { weight: Weight::DeadCookie };
        let reply = if dead && !overtaken && !revoked { removal } else { Reply::Nothing };
        let id = record.as_ref().map(Record::id);
        let committer: Weak<dyn Committer> = Arc::downgrade(self) as _;
        let circumstances = Circumstances {
            now,
            speculative: self.speculative,
            shared_flash: config.shared_flash,
            revocable: config.revocable,
        };
        let session = Session::new(record, overtaken, reply, circumstances, committer);
        // Of two that a store answered at once, the first one counts.
        Ok(self.loaded.get_or_init(|| Loaded { session, now, id }))
    }

    /// Tries the cookies of the session's name in order: the first authentic one wins, and none that is not is adopted.
    /// Beside it, whether one of them was replaced by a new token moments ago.
    ///
    /// Who has to wait for the store takes a turn first, and finds what those before it have loaded.
    async fn load_first_authentic<'a>(
        &'a self,
        now: Timestamp,
        permit: &mut Option<SemaphorePermit<'a>>,
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
            if permit.is_none() && !loading.is_immediate() {
                *permit = self.permit.acquire().await.ok();
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
