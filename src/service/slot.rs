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
use crate::session::{Circumstances, Committer, Record, Reply, Session};

static SEC_PURPOSE: HeaderName = HeaderName::from_static("sec-purpose");

/// All that one request and its response need to know about one session.
pub(super) struct Slot {
    pub(super) connection: Arc<Connection>,
    pub(super) found: Found,
    /// One task at a time waits for the store: to load, to commit for [`Session::save`], to commit at the end.
    pub(super) permit: Semaphore,
    loaded: OnceLock<Loaded>,
    speculative: bool,
    asked: AtomicBool,
    closed: AtomicBool,
}

#[derive(Clone)]
pub(super) struct Loaded {
    pub(super) session: Session,
    /// Reading the session is worth renewing it.
    pub(super) renewal_due: bool,
    /// The moment in which this request lives.
    pub(super) now: Timestamp,
}

/// What looking for a session comes to.
enum First<'a> {
    /// Another task has loaded it meanwhile.
    Loaded(&'a Loaded),
    /// Beside it, whether a token on the way to it was replaced by a new one moments ago.
    Found { record: Option<Record>, regenerated: bool },
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
            speculative,
            asked: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    /// Loads the session, or returns the one that was loaded before. Unless it `renews`, reading the session leaves its
    /// deadline where it is.
    pub(super) async fn session(self: &Arc<Self>, renews: bool) -> Result<Session, Error> {
        let loaded = if let Some(loaded) = self.loaded.get() {
            loaded
        } else {
            self.asked.store(true, Ordering::SeqCst);
            self.load().await?
        };
        if renews && loaded.renewal_due {
            loaded.session.request_renewal();
        }
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
        let (record, regenerated) = match self.load_first_authentic(now, &mut permit).await? {
            First::Loaded(loaded) => return Ok(loaded),
            First::Found { record, regenerated } => (record, regenerated),
        };
        let renewal_due =
            record.as_ref().is_some_and(|record| record.is_outdated() || config.renewal_due(record, now));
        // A cookie that is no session is removed, if the handler puts no other in its place; but the answer to a request
        // that was overtaken by a login must not take away the cookie that the login gave.
        let dead = record.is_none() && self.found.is_present();
        let overtaken = dead && regenerated;
        let reply = if dead && !overtaken { Reply::Remove } else { Reply::Nothing };
        let committer: Weak<dyn Committer> = Arc::downgrade(self) as _;
        let circumstances =
            Circumstances { now, speculative: self.speculative, shared_flash: config.shared_flash };
        let session = Session::new(record, renewal_due, overtaken, reply, circumstances, committer);
        // Of two that a store answered at once, the first one counts.
        Ok(self.loaded.get_or_init(|| Loaded { session, renewal_due, now }))
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
        let mut regenerated = false;
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
                    regenerated |= refusal == Refusal::Regenerated;
                    self.emit(&Event::Refused { cookie, refusal });
                }
            }
        }
        Ok(First::Found { record: None, regenerated })
    }

    fn found(&self, record: Record, regenerated: bool) -> First<'_> {
        if record.with_old_key() {
            self.emit(&Event::OldKey { cookie: self.cookie_name(), id: record.id() });
        }
        First::Found { record: Some(record), regenerated }
    }
}

/// True if the browser asks ahead, on a guess that the user may come here.
///
/// `Sec-Purpose` is a structured field of the Fetch standard whose token is `prefetch`; prerendering adds a parameter.
fn is_speculative(headers: &HeaderMap) -> bool {
    let purpose = headers.get(&SEC_PURPOSE).map(HeaderValue::as_bytes);
    purpose.is_some_and(|purpose| purpose == b"prefetch" || purpose.starts_with(b"prefetch;"))
}
