//! `Slot`: what one request and its response know about one session, and how the session is loaded.

use std::cmp::Reverse;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use http::header::{COOKIE, HeaderName, HeaderValue};
use http::{HeaderMap, Uri};
use smallvec::SmallVec;
use tokio::sync::{Semaphore, SemaphorePermit};

use zeroize::Zeroizing;

use super::connection::Connection;
#[cfg(feature = "device-bound")]
use super::device_evidence::DeviceEvidence;
use super::stopwatch::Stopwatch;
use crate::clock::Timestamp;
use crate::cookie::{
    Assembly, CookieTemplate, FoundCookies, MAX_ASSEMBLIES, MAX_CANDIDATES, RetiredCookie, SetCookies,
    Target, chunk_size, trim,
};
use crate::error::Error;
use crate::event::{EventKind, MigrationSource, Operation, Refusal};
use crate::lock::lock;
use crate::session::{
    Changes, Circumstances, Committer, CookieLifetime, DeviceCheck, Former, Place, Recency, Record, Reply,
    Saved, Session, SessionId, Standing, Weight,
};
use crate::store::{LoadFuture, StoreFuture};

/// Returns true for a header by which a browser, or a script in a page, declares that it loads a page ahead.
///
/// `Sec-Purpose` is in the Fetch standard. Chromium, Firefox and Safari sent `Purpose`, `X-Moz` and `X-Purpose` before, and
/// scripts that load pages ahead still do. A script cannot set `Sec-Purpose`, so some set `X-Sec-Purpose`.
fn is_purpose(name: &HeaderName) -> bool {
    matches!(name.as_str(), "sec-purpose" | "x-sec-purpose" | "purpose" | "x-purpose" | "x-moz")
}

/// The state of one session for one request and its response.
pub(super) struct Slot {
    pub(super) connection: Arc<Connection>,
    pub(super) found: FoundCookies,
    /// The cookies under each retired name.
    pub(super) found_retired: Vec<FoundCookies>,
    /// The host and path of the request, if the scope of its cookies depends on them.
    target: Option<Box<Target>>,
    /// The permit to wait for the store: to load, to commit for [`Session::save`], or to commit at the end. One task at a
    /// time holds it.
    pub(super) permit: Semaphore,
    loaded: OnceLock<Loaded>,
    several: OnceLock<Several>,
    /// The tokens that were superseded moments ago.
    superseded: Mutex<Vec<Zeroizing<Vec<u8>>>>,
    /// The tokens of sessions that have ended only for this request: they have expired, or this host cannot judge them.
    unusable: Mutex<Vec<Zeroizing<Vec<u8>>>>,
    #[cfg(feature = "device-bound")]
    pub(super) device: DeviceEvidence,
    /// The session belonged to a subject when it was loaded.
    had_subject: AtomicBool,
    speculative: bool,
    /// The options say that this request does not keep its session alive by reading it.
    only_looks: bool,
    /// The options say that this request came over plain http.
    plain_http: bool,
    asked: AtomicBool,
    closed: AtomicBool,
    /// The response already contained a token of this store, and the session goes on from that.
    follows_response: AtomicBool,
}

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
}

/// Whether the loaded session is renewed although its handler did not ask for that.
#[derive(Clone, Copy)]
pub(super) enum Renewal {
    /// When its deadline, its key or its name require it.
    WhenDue,
    /// Never, because a newer session may be among the cookies that were not tried.
    Never,
}

/// Which of the other sessions of a request end.
#[derive(Clone, Copy)]
enum Ending {
    All,
    /// The authentic sessions, which the request could use.
    Authentic,
}

/// The rest of what the request brought: other authentic sessions, or cookies that were not tried.
struct Several {
    /// All authentic sessions, the newest first.
    sessions: Vec<Record>,
    /// The first one is the session of the request. Otherwise all are older than a session whose token the request does not
    /// have.
    has_newest: bool,
    /// See [`Opened::hidden`].
    #[cfg(feature = "device-bound")]
    hidden: Option<Recency>,
}

/// The result of opening the cookies of a request.
enum Opening<'a> {
    /// Another task has loaded the session meanwhile.
    Loaded(&'a Loaded),
    Opened(Opened),
}

/// The contents of the cookies of a request.
struct Opened {
    /// The authentic sessions.
    candidates: SmallVec<[Candidate; 1]>,
    /// The newest tombstone, or session of a host whose clock is ahead. Sessions that were not written after it do not count.
    hidden: Option<Recency>,
    /// Each cookie of the session's name is known to be dead.
    all_dead: bool,
    /// One of the tokens was superseded moments ago.
    regenerated: bool,
    /// Some cookies were not tried.
    exhausted: bool,
}

struct Candidate {
    record: Record,
    assembly: Assembly,
    /// The retired name under which it came.
    retired: Option<usize>,
}

/// The work spent on the cookies of one request.
#[derive(Default)]
struct Tries {
    /// Cookies whose signature was checked, or that the backend was asked for.
    candidates: usize,
    /// The same for each way to join the chunks of a cookie, and tokens that were joined and then refused by form.
    signatures: usize,
    /// Refusals by form that were reported.
    reported: usize,
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
        let speculative = present && is_speculative(headers);
        let depends = present && config.cookie.depends_on_target();
        #[cfg(feature = "device-bound")]
        let device = match &config.device_bound {
            Some(_) if present => DeviceEvidence::new(headers, &found),
            _ => DeviceEvidence::default(),
        };
        let only_looks =
            present && config.settings.no_renewal_rule.as_ref().is_some_and(|rule| rule(uri, headers));
        Self {
            connection: Arc::clone(connection),
            found,
            found_retired,
            target: depends.then(|| Box::new(Target::of(uri, headers))),
            permit: Semaphore::const_new(1),
            loaded: OnceLock::new(),
            several: OnceLock::new(),
            superseded: Mutex::default(),
            unusable: Mutex::default(),
            #[cfg(feature = "device-bound")]
            device,
            had_subject: AtomicBool::new(false),
            speculative,
            only_looks,
            plain_http: config.plain_http.as_ref().is_some_and(|(rule, _)| rule(uri, headers)),
            asked: AtomicBool::new(false),
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
            loaded.session.request_renewal();
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
        match self.loaded.get() {
            Some(loaded) => Ok(loaded),
            None => self.load().await,
        }
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

    /// Returns the standing of `record` at `now`, by the options. No renewal is due if the response already sets or removes the
    /// cookie (`spoken_for`).
    pub(super) fn standing(&self, record: &Record, now: Timestamp, spoken_for: bool) -> Standing {
        let mut standing = self.connection.config().standing(record, now);
        if let Some(Renewal::Never) = self.loaded().map(|loaded| loaded.renewal) {
            standing.renewal_due = false;
        }
        if spoken_for {
            (standing.renewal_due, standing.expired) = (false, false);
        }
        standing
    }

    /// Notes that the session goes on from the token that the response already contains.
    pub(super) fn follow_response(&self) {
        self.follows_response.store(true, Ordering::SeqCst);
    }

    pub(super) fn follows_response(&self) -> bool {
        self.follows_response.load(Ordering::SeqCst)
    }

    /// Notes that the response depends on the session.
    pub(super) fn note_asked(&self) {
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

    /// Loads the session, unless it was loaded meanwhile.
    async fn load(self: &Arc<Self>) -> Result<&Loaded, Error> {
        let config = self.connection.config();
        let now = config.now();
        let mut permit = None;
        let mut opened = match self.open_cookies(now, &mut permit).await? {
            Opening::Loaded(loaded) => return Ok(loaded),
            Opening::Opened(opened) => opened,
        };
        // Times and sequences may be equal. The order must not depend on the order of cookies.
        opened.candidates.sort_by_key(|candidate| {
            let record = &candidate.record;
            Reverse((record.recency(), record.created(), record.expires(), record.id().to_bytes()))
        });
        let newest = opened.candidates.first();
        let newest =
            newest.filter(|newest| opened.hidden.is_none_or(|hidden| newest.record.recency() > hidden));
        // The session that continues from a superseded token is newer than one from before that.
        let outdated =
            newest.filter(|_| opened.regenerated).is_some_and(|newest| self.is_outdated(&newest.record, now));
        let newest = newest.filter(|_| !outdated);
        let has_newest = newest.is_some();
        self.report(newest, &opened);
        let newest_of_all =
            opened.candidates.first().map(|newest| newest.record.recency()).max(opened.hidden);
        let device = self.check_device(newest.map(|newest| &newest.record), now);
        let lapsed = device == DeviceCheck::Failed;
        let newest = newest.filter(|_| !lapsed);
        let record = newest.map(|newest| newest.record.clone());
        // A newer session may be among the cookies that were not tried, and a renewal would cover it.
        let renewal = if opened.exhausted { Renewal::Never } else { Renewal::WhenDue };
        // A dead cookie is removed, unless the handler replaces it. But a response to a request that came before a login
        // must not remove the cookie of the login, nor that of a bound session that came without its bound cookie. While the
        // browser may still bring that, the request counts as overtaken.
        let overtaken = record.is_none() && opened.regenerated || lapsed && self.may_bring_bound_cookie();
        let dead = record.is_none() && opened.all_dead && !opened.exhausted;
        let removal = Reply::Remove { weight: Weight::DeadCookie };
        let reply = if dead && !overtaken && !lapsed { removal } else { Reply::Nothing };
        let (id, place) = (record.as_ref().map(Record::id), record.as_ref().and_then(Record::place));
        let subject = record.as_ref().filter(|_| config.settings.private_pages_no_store);
        let has_subject = subject.is_some_and(|record| record.payload().subject().is_some());
        self.had_subject.fetch_or(has_subject, Ordering::SeqCst);
        let brings_others = opened.candidates.len() > usize::from(has_newest);
        if brings_others || opened.exhausted && !opened.candidates.is_empty() {
            let sessions = opened.candidates.into_iter().map(|candidate| candidate.record).collect();
            // If two tasks load at once, both find the same sessions.
            let _ = self.several.set(Several {
                sessions,
                has_newest,
                #[cfg(feature = "device-bound")]
                hidden: opened.hidden,
            });
        }
        let committer: Weak<dyn Committer> = Arc::downgrade(self) as _;
        let circumstances = Circumstances {
            now,
            speculative: self.speculative,
            shared_flash: config.settings.shared_flash,
            revocable: config.revocable,
            device,
        };
        let former = match &record {
            None if overtaken => Former::Superseded,
            None if lapsed => Former::Lapsed,
            None if opened.exhausted || brings_others || !lock(&self.unusable).is_empty() => Former::Unusable,
            _ => Former::None,
        };
        let session = Session::new(record, former, reply, circumstances, committer);
        // If two tasks load at once, the first one counts.
        Ok(self.loaded.get_or_init(|| Loaded { session, now, id, place, renewal, newest: newest_of_all }))
    }

    /// Emits the events about the sessions that were found.
    fn report(&self, newest: Option<&Candidate>, opened: &Opened) {
        if opened.exhausted {
            self.emit(EventKind::TooManyCandidates);
        }
        let Some(newest) = newest else { return };
        let id = newest.record.id();
        if newest.retired.is_some() {
            self.emit(EventKind::Migrating { id, from: MigrationSource::RetiredName });
        }
        if newest.record.with_old_key() {
            self.emit(EventKind::OldKey { id });
        }
        if opened.candidates.len() > 1 {
            let subjects: Vec<String> = opened
                .candidates
                .iter()
                .filter_map(|candidate| candidate.record.payload().subject())
                .collect();
            let subjects_differ = subjects.iter().any(|subject| Some(subject) != subjects.first());
            let sessions = opened.candidates.len();
            self.emit(EventKind::SeveralSessions { id, sessions, subjects_differ });
        }
    }

    /// Opens the cookies of the session's name, including those of retired names.
    ///
    /// All cookies are opened, not only the first authentic one: no rule may depend on their order, which depends on the
    /// browser and on other hosts of the domain (RFC 6265bis section 5.8.3). A cookie that is refused by its form costs
    /// almost nothing and does not count. The number of other cookies is limited.
    ///
    /// A task that has to wait for the store takes the permit first, and then uses the session that an earlier task has
    /// loaded.
    async fn open_cookies<'a>(
        &'a self,
        now: Timestamp,
        permit: &mut Option<SemaphorePermit<'a>>,
    ) -> Result<Opening<'a>, Error> {
        let config = self.connection.config();
        let retired = config.cookie.retired_cookies();
        let mut opened = Opened {
            candidates: SmallVec::new(),
            hidden: None,
            all_dead: true,
            regenerated: false,
            exhausted: false,
        };
        let mut tries = Tries::default();
        let mut heads = 0;
        let retired_names = self.found_retired.iter().enumerate().map(|(name, found)| (Some(name), found));
        for (name, found) in std::iter::once((None, &self.found)).chain(retired_names) {
            let cookie_name = match name.and_then(|name| retired.get(name)) {
                None => config.cookie.name(),
                Some(retired) => RetiredCookie::name(retired),
            };
            heads += found.len();
            opened.exhausted |= found.overflowed();
            // One of the two belongs to another cookie.
            opened.all_dead &= !found.has_twins();
            let mut judged: SmallVec<[usize; MAX_CANDIDATES]> = SmallVec::new();
            for head in 0..found.len() {
                if judged.iter().any(|earlier| found.are_equal(*earlier, head)) {
                    continue; // one cookie in two scopes
                }
                if tries.candidates >= MAX_CANDIDATES || tries.signatures >= MAX_ASSEMBLIES {
                    opened.exhausted = true;
                    break;
                }
                let assemblies = found.assemblies(head, |number| chunk_size(cookie_name, number));
                let signatures = tries.signatures;
                match self.open_cookie(name, found, assemblies, &mut tries, now, permit).await? {
                    Attempt::Loaded(loaded) => return Ok(Opening::Loaded(loaded)),
                    Attempt::Opened(candidate) => opened.candidates.push(candidate),
                    Attempt::Refused { refusal, hidden, exhausted } => {
                        opened.hidden = opened.hidden.max(hidden);
                        opened.regenerated |= refusal == Refusal::Regenerated;
                        opened.all_dead &= refusal.removes_cookie();
                        #[cfg(feature = "device-bound")]
                        self.device.note_refusal(refusal);
                        // Other servers on `localhost` use this name, too, and the backend does not know their tokens.
                        let is_strange = refusal == Refusal::UnknownId && config.has_shared_name;
                        opened.all_dead &= !is_strange;
                        opened.exhausted |= exhausted;
                    }
                }
                // A cookie that counts against the limits counts once, in however many scopes it is.
                if tries.signatures > signatures {
                    judged.push(head);
                }
            }
        }
        // Chunks without a first one may be planted or left behind, so they do not show that a session is dead.
        opened.all_dead &= heads > 0;
        self.remember(opened.candidates.as_slice(), now);
        Ok(Opening::Opened(opened))
    }

    /// Opens one cookie. Of the ways to join its chunks, the first authentic one counts.
    async fn open_cookie<'a>(
        &'a self,
        name: Option<usize>,
        found: &FoundCookies,
        assemblies: SmallVec<[Assembly; 1]>,
        tries: &mut Tries,
        now: Timestamp,
        permit: &mut Option<SemaphorePermit<'a>>,
    ) -> Result<Attempt<'a>, Error> {
        let mut joined = Vec::new();
        let mut first = None;
        let mut counted = false;
        let mut exhausted = false;
        for assembly in assemblies {
            if tries.signatures >= MAX_ASSEMBLIES {
                exhausted = true;
                break;
            }
            let token = found.token(&assembly, &mut joined);
            let outcome = match name {
                None => self.connection.recall(token, now).map(Ok),
                Some(_) => None,
            };
            let outcome = match outcome {
                Some(recalled) => recalled,
                // A cookie store answers at once: that is not worth a future.
                None => match self.ask_store(name, token, now).into_immediate() {
                    Ok(answer) => self.reported(answer)?,
                    Err(loading) => match self.wait_for_store(loading, permit).await? {
                        Ok(outcome) => outcome,
                        Err(loaded) => return Ok(Attempt::Loaded(loaded)),
                    },
                },
            };
            let by_form = outcome.as_ref().err().is_some_and(|refusal| refusal.is_by_form());
            if !by_form && !counted {
                counted = true;
                tries.candidates += 1;
            }
            if !by_form || assembly.is_joined() {
                tries.signatures += 1;
            }
            let refusal = match outcome {
                Ok(record) => return Ok(Attempt::Opened(Candidate { record, assembly, retired: name })),
                Err(refusal) => refusal,
            };
            if refusal == Refusal::Regenerated {
                lock(&self.superseded).push(Zeroizing::new(token.to_vec()));
            }
            if self.may_live_elsewhere(refusal) {
                lock(&self.unusable).push(Zeroizing::new(token.to_vec()));
            }
            let hides = matches!(refusal, Refusal::Ended | Refusal::IssuedInFuture);
            let hidden = if hides { self.connection.store().hidden_by(token, now) } else { None };
            // Joined in another way, the token may be authentic. Any other reason holds for each token that begins the same
            // way.
            if matches!(refusal, Refusal::Encoding | Refusal::Length | Refusal::Signature) {
                first.get_or_insert((refusal, hidden, None));
            } else {
                let by_key = matches!(refusal, Refusal::UnknownKey | Refusal::RevokedKey);
                let key = if by_key { self.connection.store().key_of(token) } else { None };
                first = Some((refusal, hidden, key));
                break;
            }
        }
        let (refusal, hidden, key) = first.unwrap_or((Refusal::Encoding, None, None));
        // A client can send many cookies that are not tokens. Their events are limited.
        tries.reported += usize::from(refusal.is_by_form());
        if !refusal.is_by_form() || tries.reported <= MAX_CANDIDATES {
            self.emit(EventKind::Refused { refusal, key });
        }
        Ok(Attempt::Refused { refusal, hidden, exhausted })
    }

    /// Returns true if the session behind a token may go on elsewhere: in a slow request that loaded it in time, or on a host with
    /// another clock, another key or a newer release.
    fn may_live_elsewhere(&self, refusal: Refusal) -> bool {
        match refusal {
            Refusal::Expired | Refusal::UnknownId | Refusal::Unreadable | Refusal::IssuedInFuture => true,
            // A cookie of this form may be that of another server, where servers share the name.
            Refusal::UnknownKey | Refusal::Version => !self.connection.config().has_shared_name,
            _ => false,
        }
    }

    /// Calls the store to open a token.
    fn ask_store(&self, name: Option<usize>, token: &[u8], now: Timestamp) -> LoadFuture {
        let store = self.connection.store();
        match name {
            None => store.load(token, now),
            Some(_) if !self.connection.config().reads_retired_names(now) => {
                StoreFuture::ready(Ok(Err(Refusal::RetiredFormat)))
            }
            Some(name) => store.load_retired(name, token, now),
        }
    }

    /// Waits for the store. The outer `Err` is a failure of the store. The inner `Err` is a session that another task has
    /// loaded meanwhile.
    async fn wait_for_store<'a>(
        &'a self,
        loading: LoadFuture,
        permit: &mut Option<SemaphorePermit<'a>>,
    ) -> Result<Result<Result<Record, Refusal>, &'a Loaded>, Error> {
        if permit.is_none() {
            *permit = self.permit.acquire().await.ok();
            if let Some(loaded) = self.loaded.get() {
                return Ok(Err(loaded));
            }
        }
        let config = self.connection.config();
        let stopwatch = Stopwatch::start(config, Operation::Load, &loading);
        let answer = loading.await;
        if let Some(stopwatch) = stopwatch {
            stopwatch.stop(config, answer.is_ok());
        }
        self.reported(answer).map(Ok)
    }

    /// Emits the event about a store that failed.
    pub(super) fn reported<T>(&self, answer: Result<T, Error>) -> Result<T, Error> {
        answer.inspect_err(|error| {
            self.emit(EventKind::StoreFailed { id: None, operation: Operation::Load, error });
        })
    }

    /// Keeps the newest session in the connection memo.
    fn remember(&self, candidates: &[Candidate], now: Timestamp) {
        if !self.connection.has_memo() {
            return;
        }
        let newest = candidates.iter().max_by_key(|candidate| candidate.record.recency());
        if let Some(Candidate { record, assembly, retired: None }) = newest {
            let mut joined = Vec::new();
            self.connection.opened(self.found.token(assembly, &mut joined), record, now);
        }
    }

    /// Saves the session in the store. If no value is left, this and the [other sessions](Self::end_others_if_removed) of the
    /// request end.
    pub(super) fn save(
        &self,
        base: Option<Record>,
        changes: Arc<Changes>,
        now: Timestamp,
    ) -> StoreFuture<Saved> {
        let others = base.as_ref().and_then(|base| self.end_others_if_removed(base, &changes, now));
        let changes = if base.is_some() { changes } else { self.newer_than_all(changes) };
        and_others_if_removed(self.connection.store().save(base, changes, now), others)
    }

    /// Makes the session that `changes` begin newer than all that the request brought, although the clock of this host may be behind.
    fn newer_than_all(&self, mut changes: Arc<Changes>) -> Arc<Changes> {
        let newest = self.loaded().and_then(|loaded| loaded.newest);
        if newest.is_some() {
            Arc::make_mut(&mut changes).set_after(newest);
        }
        changes
    }

    /// Regenerates the session in the store. If a new session begins instead, all other sessions of the request end, too. If no
    /// value is left, the [other sessions](Self::end_others_if_removed) end.
    pub(super) fn regenerate(
        &self,
        base: Record,
        changes: Arc<Changes>,
        now: Timestamp,
    ) -> StoreFuture<Saved> {
        let store = Arc::clone(self.connection.store());
        if !changes.restarts() {
            let others = self.end_others_if_removed(&base, &changes, now);
            return and_others_if_removed(store.regenerate(base, changes, now), others);
        }
        // The store itself ends the session of `base`, in the same step as the new one begins.
        match self.end_others(Ending::All, Some(&base), now) {
            None => store.regenerate(base, changes, now),
            // First: if it fails, the client still has a session that is as it was. The store is called afterwards, so that the
            // new session has a position behind the revocations of the others.
            Some(ending) => StoreFuture::boxed(async move {
                ending.await?;
                store.regenerate(base, changes, now).await
            }),
        }
    }

    /// Ends the session and all other sessions of the request, because the user may be logged in with any of them.
    pub(super) fn destroy(&self, base: Record, now: Timestamp) -> StoreFuture<()> {
        let destroying = self.connection.store().destroy(base, now);
        match self.end_others(Ending::All, None, now) {
            None => destroying,
            Some(ending) => StoreFuture::boxed(async move {
                // Both are completed, even if the first one fails.
                let (destroyed, ended) = (destroying.await, ending.await);
                destroyed.and(ended)
            }),
        }
    }

    /// Checks that the request comes from the device that its session is bound to.
    #[cfg_attr(not(feature = "device-bound"), allow(clippy::unused_self))]
    fn check_device(&self, record: Option<&Record>, now: Timestamp) -> DeviceCheck {
        #[cfg(feature = "device-bound")]
        return self.binding_check(record, now);
        #[cfg(not(feature = "device-bound"))]
        {
            let _ = (record, now);
            DeviceCheck::Unchecked
        }
    }

    /// Returns true if the request came without a valid bound cookie, and the next one may come with one.
    #[cfg_attr(not(feature = "device-bound"), allow(clippy::unused_self))]
    fn may_bring_bound_cookie(&self) -> bool {
        #[cfg(feature = "device-bound")]
        return self.device.lacks_refresh() || self.has_bound_cookie();
        #[cfg(not(feature = "device-bound"))]
        false
    }

    /// Ends the sessions behind the empty session that the handler ended: the session that has lapsed, the superseded session, the
    /// hidden authentic sessions, and the sessions that may live elsewhere.
    pub(super) fn end_former(&self, now: Timestamp) -> StoreFuture<()> {
        #[cfg(feature = "device-bound")]
        if let Some(lapsed) = self.device.lapsed() {
            // With the other sessions of the request, as for any session that the handler ends.
            return self.destroy(lapsed.clone(), now);
        }
        self.end_others(Ending::All, None, now).unwrap_or_else(|| StoreFuture::ready(Ok(())))
    }

    /// Ends the sessions behind the empty session, then saves the new session. The store is called afterwards, so that the new
    /// session has a position behind the revocations of the others.
    pub(super) fn replace_former(&self, changes: Arc<Changes>, now: Timestamp) -> StoreFuture<Saved> {
        let (ending, store) = (self.end_former(now), Arc::clone(self.connection.store()));
        let changes = self.newer_than_all(changes);
        StoreFuture::boxed(async move {
            ending.await?;
            store.save(None, changes, now).await
        })
    }

    /// Returns true if the session that continues from a superseded token of the request is newer than `record`.
    fn is_outdated(&self, record: &Record, now: Timestamp) -> bool {
        let store = self.connection.store();
        lock(&self.superseded).iter().any(|token| store.is_outdated(record, token, now))
    }

    /// Returns true if the request has a cookie of the session's name, or of a retired one.
    #[cfg(feature = "device-bound")]
    pub(super) fn has_cookie(&self) -> bool {
        self.cookies().any(FoundCookies::is_present)
    }

    /// Returns the cookies of the session's name, and those of each retired one.
    #[cfg(feature = "device-bound")]
    pub(super) fn cookies(&self) -> impl Iterator<Item = &FoundCookies> {
        std::iter::once(&self.found).chain(&self.found_retired)
    }

    /// Returns the authentic sessions of the request that count, the newest first. `session` is the loaded session.
    #[cfg(feature = "device-bound")]
    pub(super) fn authentic_sessions(&self, session: &Session) -> SmallVec<[Record; 1]> {
        match self.several.get() {
            Some(Several { sessions, hidden, .. }) => {
                let counts = |record: &&Record| hidden.is_none_or(|hidden| record.recency() > hidden);
                sessions.iter().filter(counts).cloned().collect()
            }
            None => session.stored_record().or_else(|| self.device.lapsed().cloned()).into_iter().collect(),
        }
    }

    /// Returns true if cookies of the loaded session's name were not tried.
    #[cfg(feature = "device-bound")]
    pub(super) fn has_untried(&self) -> bool {
        matches!(self.loaded(), Some(Loaded { renewal: Renewal::Never, .. }))
    }

    /// Returns true if the request came with a token that was superseded moments ago.
    #[cfg(feature = "device-bound")]
    pub(super) fn superseded(&self) -> bool {
        !lock(&self.superseded).is_empty()
    }

    /// Returns what ends if `changes` leave no value in `base`. After a logout, these are all other sessions of the request. If only
    /// flash values were shown, a session that this request cannot use goes on.
    fn end_others_if_removed(
        &self,
        base: &Record,
        changes: &Changes,
        now: Timestamp,
    ) -> Option<StoreFuture<()>> {
        let logs_out = changes.clears() || base.payload().has_lasting_values();
        self.end_others(if logs_out { Ending::All } else { Ending::Authentic }, None, now)
    }

    /// Ends the sessions that the request brought beside its own: the authentic sessions, the sessions behind superseded tokens, and
    /// sessions that may live elsewhere. A superseded token of the session `unless` does not count. `None` if there are none.
    fn end_others(&self, ending: Ending, unless: Option<&Record>, now: Timestamp) -> Option<StoreFuture<()>> {
        let several = self.several.get();
        let others = several.and_then(|several| several.sessions.get(usize::from(several.has_newest)..));
        let others = others.unwrap_or_default().to_vec();
        let (superseded, unusable) = match ending {
            Ending::All => (lock(&self.superseded).clone(), lock(&self.unusable).clone()),
            Ending::Authentic => (Vec::new(), Vec::new()),
        };
        if others.is_empty() && superseded.is_empty() && unusable.is_empty() {
            return None;
        }
        let (store, unless) = (Arc::clone(self.connection.store()), unless.cloned());
        Some(StoreFuture::boxed(async move {
            // All are tried, even if one fails.
            let mut ended = Ok(());
            for other in others {
                ended = ended.and(store.destroy(other, now).await);
            }
            for token in superseded {
                ended = ended.and(store.end_superseded(&token, unless.as_ref(), now).await);
            }
            for token in unusable {
                ended = ended.and(store.end_unusable(&token, now).await);
            }
            ended
        }))
    }

    /// Returns the lines that set the cookie to `token`, after the lines that expire it in other scopes and under other names.
    pub(super) fn set_cookie(
        &self,
        token: &[u8],
        lifetime: std::time::Duration,
        kept: CookieLifetime,
    ) -> Result<SetCookies, Error> {
        let (template, held) = (self.template(), self.found.tail_mask());
        let mut lines = self.expirations()?;
        let setting = match kept {
            CookieLifetime::Configured => template.set(token, lifetime, held)?,
            CookieLifetime::Persistent => template.set_until(token, Some(lifetime), held)?,
            CookieLifetime::BrowserSession => template.set_until(token, None, held)?,
        };
        if lines.is_empty() {
            return Ok(setting);
        }
        lines.extend(setting);
        Ok(lines)
    }

    /// Returns the lines that remove the cookie.
    ///
    /// If the handler ended a session, and the request brought several sessions or more cookies than were tried, a browser
    /// may hold one of them in an unknown scope, and send it again. So a tombstone is set instead, which hides older
    /// sessions.
    pub(super) fn remove_cookie(&self) -> Result<SetCookies, Error> {
        let config = self.connection.config();
        let several = self.several.get().filter(|_| self.was_ended());
        let tombstone = several
            .and_then(|several| self.connection.store().tombstone(&several.sessions, config.now()))
            .transpose()?;
        let mut lines;
        if let Some((token, lifetime)) = tombstone {
            // For as long as a browser may keep what it hides, whatever the options say of the cookies of sessions.
            lines = self.set_cookie(token.expose(), lifetime, CookieLifetime::Persistent)?;
        } else {
            lines = self.expirations()?;
            if !self.may_remove() {
                return Ok(lines);
            }
            lines.extend(self.template().remove(self.found.tail_mask())?);
        }
        #[cfg(feature = "device-bound")]
        lines.extend(self.remove_bound_cookie()?);
        Ok(lines)
    }

    /// Returns false if the cookie to be removed did not come with the request: only one of a retired name did, or its path does not
    /// cover the request's. Then one may be in use where it is sent.
    fn may_remove(&self) -> bool {
        let covers = |target| self.template().covers(target);
        self.was_ended() || self.found.is_present() && self.target.as_deref().is_none_or(covers)
    }

    /// Returns the lines that expire the cookie in the scopes of earlier options. They precede the line that sets it, for
    /// clients that do not distinguish scopes.
    fn expirations(&self) -> Result<SetCookies, Error> {
        let template = self.template();
        let held = self.found.tail_mask();
        let mut lines = SetCookies::new();
        if template.retires() {
            let held_under = |name| self.found_retired.get(name).map_or(0, FoundCookies::tail_mask);
            template.expire_retired(held, held_under, &mut lines)?;
        }
        if self.found.is_present() && self.was_ended() {
            let several = self.several.get().is_some();
            template.expire_elsewhere(self.target.as_deref(), several, held, &mut lines)?;
        }
        Ok(lines)
    }

    /// Returns what the lines of this request's cookie are made of.
    pub(super) fn template(&self) -> &CookieTemplate {
        let config = self.connection.config();
        match &config.plain_http {
            Some((_, plain)) if self.plain_http => plain,
            _ => &config.cookie,
        }
    }

    /// Returns true if the client holds the only copy of the session.
    pub(super) fn is_only_copy(&self) -> bool {
        match self.loaded().and_then(|loaded| loaded.session.stored_record()) {
            Some(record) => self.connection.store().is_only_copy(&record),
            None => self.connection.config().only_in_cookie,
        }
    }

    fn was_ended(&self) -> bool {
        self.loaded.get().is_some_and(|loaded| loaded.session.was_ended_by_handler())
    }

    /// Returns true if the response must not be stored, because the handler read or began the session of a subject.
    pub(super) fn is_private(&self) -> bool {
        self.connection.config().settings.private_pages_no_store
            && (self.had_subject.load(Ordering::SeqCst)
                || self.loaded.get().is_some_and(|loaded| loaded.session.subject().is_some()))
    }
}

/// Ends the other sessions of a request after `saving`, if that left no value in its session.
fn and_others_if_removed(saving: StoreFuture<Saved>, others: Option<StoreFuture<()>>) -> StoreFuture<Saved> {
    let Some(ending) = others else { return saving };
    StoreFuture::boxed(async move {
        let saved = saving.await?;
        if matches!(saved, Saved::Removed) {
            ending.await?;
        }
        Ok(saved)
    })
}

/// The result of opening one cookie.
enum Attempt<'a> {
    /// Another task has loaded the session meanwhile.
    Loaded(&'a Loaded),
    Opened(Candidate),
    Refused {
        refusal: Refusal,
        /// When it was written, if it hides sessions that were not written after that.
        hidden: Option<Recency>,
        /// Not all ways to join its chunks were tried.
        exhausted: bool,
    },
}

/// Returns true if a browser loads the page before the user asks for it.
///
/// The value is a token: `prefetch`, or of some scripts `prerender`, and of Safari `preview`. Prerendering adds a parameter or
/// another token.
fn is_speculative(headers: &HeaderMap) -> bool {
    let is_prefetch = |value: &HeaderValue| {
        let token = value.as_bytes().split(|byte| matches!(byte, b';' | b',')).next().unwrap_or_default();
        matches!(trim(token), b"prefetch" | b"prerender" | b"preview")
    };
    // One look at each name is faster than four look-ups, each of which hashes a name.
    headers.iter().any(|(name, value)| is_purpose(name) && is_prefetch(value))
}
