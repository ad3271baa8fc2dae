//! `Slot`: the state of one session for one request and its response.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use http::header::COOKIE;
use http::{HeaderMap, Uri};
use tokio::sync::Semaphore;

use super::brought_sessions::BroughtSessions;
use super::connection::Connection;
use super::device_bound::DeviceEvidence;
use super::fetch_metadata::Cause;
use crate::clock::Timestamp;
use crate::cookie::{FoundCookies, Target};
use crate::error::Error;
use crate::event::EventKind;
use crate::session::{Place, Recency, Record, Session, SessionId, Standing};

/// The state of one session for one request and its response.
#[allow(clippy::struct_excessive_bools)] // independent facts
pub(super) struct Slot {
    pub(super) connection: Arc<Connection>,
    pub(super) found: FoundCookies,
    /// The cookies under each retired name.
    pub(super) found_retired: Vec<FoundCookies>,
    /// The host and path of the request, if the scope of its cookies depends on them.
    pub(super) target: Option<Box<Target>>,
    /// The permit to wait for the store: to load, to commit for [`Session::save`], or to commit at the end. One task at a
    /// time holds it.
    pub(super) permit: Semaphore,
    pub(super) loaded: OnceLock<Loaded>,
    pub(super) device: DeviceEvidence,
    pub(super) speculative: bool,
    /// The browser may have withheld the session's cookie, because another site caused the request.
    pub(super) may_lack_cookie: bool,
    /// The options say that this request does not keep its session alive by reading it.
    only_looks: bool,
    /// The options say that this request came over plain http.
    pub(super) plain_http: bool,
    asked: AtomicBool,
    /// The handler reads the session as one that is in use.
    renews: AtomicBool,
    closed: AtomicBool,
    /// The response already contained a token of this store, and the session goes on from that.
    follows_response: AtomicBool,
}

/// The session of a request, and the facts of its loading.
#[derive(Clone)]
pub(super) struct Loaded {
    pub(super) session: Session,
    /// When it was loaded.
    pub(super) now: Timestamp,
    /// The id of the loaded session, if there was one. The client has its token.
    pub(super) id: Option<SessionId>,
    /// The place that it was taken from, if any. It ends there when it is saved.
    pub(super) place: Option<Place>,
    pub(super) renewal: Renewal,
    /// The newest cookie of the request, tombstones included. A session that begins is newer.
    pub(super) newest: Option<Recency>,
    /// It belonged to a subject, and the options ask for that.
    pub(super) had_subject: bool,
    /// The sessions that the request brought beside it, if it did.
    pub(super) brought: Option<Arc<BroughtSessions>>,
}

/// Whether the loaded session is renewed although its handler did not ask for that.
#[derive(Clone, Copy)]
pub(super) enum Renewal {
    /// When its deadline, its key or its name require it.
    WhenDue,
    /// Never, because a newer session may be among the cookies that were not tried.
    Never,
}

impl Slot {
    /// Creates the slot of a request with this URI and these headers.
    pub(super) fn new(connection: &Arc<Connection>, uri: &Uri, headers: &HeaderMap) -> Self {
        let config = connection.config();
        let find = |finder: &crate::cookie::CookieFinder| finder.find(headers.get_all(COOKIE));
        let found = find(&config.finder);
        let found_retired: Vec<FoundCookies> = config.retired_finders.iter().map(find).collect();
        // Without a cookie, a speculative request cannot consume a flash value.
        let present = found.is_present() || found_retired.iter().any(FoundCookies::is_present);
        let cause = if present { Cause::of(headers) } else { Cause::default() };
        let plain_http =
            config.plain_http.as_ref().filter(|(rule, _)| rule(uri, headers)).map(|(_, plain)| plain);
        let cookie = plain_http.unwrap_or(&config.cookie);
        let depends = present && config.cookie.depends_on_target();
        let device =
            if present { DeviceEvidence::new(config, headers, &found) } else { DeviceEvidence::default() };
        let only_looks =
            present && config.settings.no_renewal_rule.as_ref().is_some_and(|rule| rule(uri, headers));
        Self {
            connection: Arc::clone(connection),
            found,
            found_retired,
            target: depends.then(|| Box::new(Target::of(uri, headers))),
            permit: Semaphore::const_new(1),
            loaded: OnceLock::new(),
            device,
            speculative: cause.is_speculative,
            may_lack_cookie: present && cause.may_withhold(cookie, uri, headers),
            only_looks,
            plain_http: plain_http.is_some(),
            asked: AtomicBool::new(false),
            renews: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            follows_response: AtomicBool::new(false),
        }
    }

    /// Loads the session, or returns the session that was loaded before. Unless it `renews`, reading the session leaves its
    /// deadline where it is.
    pub(super) async fn session(self: &Arc<Self>, renews: bool) -> Result<Session, Error> {
        self.note_asked();
        let loaded = self.look().await?;
        if renews && !self.only_looks {
            self.renews.store(true, Ordering::Relaxed);
        }
        // The response may have been sent meanwhile. It closes a session that it finds loaded. This closes one that was loaded
        // afterwards.
        if self.closed.load(Ordering::SeqCst) {
            loaded.session.close();
        }
        Ok(loaded.session.clone())
    }

    /// Loads the session for the service itself. The response is that of a handler that does not ask for its session.
    pub(super) async fn look(self: &Arc<Self>) -> Result<&Loaded, Error> {
        if let Some(loaded) = self.loaded.get() {
            return Ok(loaded);
        }
        if let Some(error) = self.device.take_failure() {
            return Err(error);
        }
        self.load().await
    }

    /// Closes each session that is loaded from now on.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Returns the present moment, for a session that was loaded at `loaded`. It is never before `loaded`, even if the
    /// clock goes back.
    pub(super) fn now_since(&self, loaded: Timestamp) -> Timestamp {
        self.connection.config().now().max(loaded)
    }

    /// Returns the standing of `record` at `now`, by the options. No renewal is due if the handler did not read the session as one
    /// in use, if the response already sets or removes the cookie (`spoken_for`), or if it would cover a cookie that was not tried
    /// or did not come.
    pub(super) fn standing(&self, record: &Record, now: Timestamp, spoken_for: bool) -> Standing {
        let mut standing = self.connection.config().standing(record, now);
        let never = self.loaded().is_some_and(|loaded| matches!(loaded.renewal, Renewal::Never));
        standing.renewal_due &= self.renews.load(Ordering::Relaxed) && !never && !self.may_lack_cookie;
        if spoken_for {
            (standing.renewal_due, standing.expired) = (false, false);
        }
        standing
    }

    /// Notes that the session goes on from the token that the response already contains.
    pub(super) fn follow_response(&self) {
        self.follows_response.store(true, Ordering::Release);
    }

    pub(super) fn follows_response(&self) -> bool {
        self.follows_response.load(Ordering::Acquire)
    }

    /// Notes that the response depends on the session.
    pub(super) fn note_asked(&self) {
        // In one order with `closed`, by each thread's store before its load: a handler's task that asks while the response is
        // concluded is noticed, or notices it.
        self.asked.store(true, Ordering::SeqCst);
    }

    /// Returns true if the handler asked for the session.
    pub(super) fn was_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    pub(super) fn emit(&self, event: EventKind<'_>) {
        self.connection.config().emit(event);
    }

    pub(super) fn cookie_name(&self) -> &str {
        self.connection.config().cookie_name()
    }

    pub(super) fn loaded(&self) -> Option<&Loaded> {
        self.loaded.get()
    }

    /// Returns the sessions that the request brought beside its own, if it did.
    pub(super) fn brought(&self) -> Option<&BroughtSessions> {
        self.loaded()?.brought.as_deref()
    }

    /// Returns [all authentic sessions](BroughtSessions::several) of the request, if there are several or cookies that were not
    /// tried.
    pub(super) fn several(&self) -> &[Record] {
        self.brought().map_or(&[], |brought| &brought.several)
    }

    /// Returns true if the client holds the only copy of the session.
    pub(super) fn is_only_copy(&self) -> bool {
        match self.loaded().and_then(|loaded| loaded.session.stored_record()) {
            Some(record) => self.connection.store().is_only_copy(&record),
            None => self.connection.config().only_in_cookie,
        }
    }

    /// Returns true if the response must not be stored, because the handler read or began the session of a subject.
    pub(super) fn is_private(&self) -> bool {
        self.connection.config().settings.private_pages_no_store
            && self.loaded().is_some_and(|loaded| loaded.had_subject || loaded.session.subject().is_some())
    }
}
