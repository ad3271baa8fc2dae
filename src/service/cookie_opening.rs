//! Opening the cookies of a request: which of them lead to authentic sessions, within limits on the work.

use smallvec::SmallVec;
use tokio::sync::SemaphorePermit;

use super::brought_sessions::UnusedToken;
use super::slot::{Loaded, Slot};
use super::stopwatch::Stopwatch;
use crate::clock::Timestamp;
use crate::cookie::{
    Assemblies, Assembly, FoundCookies, MAX_ASSEMBLIES, MAX_CANDIDATES, RetiredCookie, chunk_size,
};
use crate::error::Error;
use crate::event::{EventKind, Operation, Refusal};
use crate::session::{Recency, Record};
use crate::store::{LoadFuture, StoreFuture};

/// The reason why the cookies of a request are not opened.
pub(super) enum Stop<'a> {
    /// Another task has loaded the session meanwhile.
    Loaded(&'a Loaded),
    Failed(Error),
}

impl From<Error> for Stop<'_> {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// The contents of the cookies of a request.
pub(super) struct OpenedCookies {
    /// The authentic sessions.
    pub(super) candidates: SmallVec<[Candidate; 1]>,
    /// The newest tombstone, or session of a host whose clock is ahead. Sessions that were not written after it do not count.
    pub(super) hidden: Option<Recency>,
    /// Each cookie of the session's name is known to be dead.
    pub(super) all_dead: bool,
    /// Some cookies were not tried.
    pub(super) exhausted: bool,
    /// The tokens that were superseded moments ago.
    pub(super) superseded: Vec<UnusedToken>,
    /// The tokens of sessions that may go on elsewhere.
    pub(super) unusable: Vec<UnusedToken>,
}

pub(super) struct Candidate {
    pub(super) record: Record,
    assembly: Assembly,
    /// It is from the connection memo.
    recalled: bool,
    /// The retired name under which it came.
    pub(super) retired: Option<usize>,
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

/// A cookie that leads to no session which this request can use.
struct RefusedCookie {
    refusal: Refusal,
    event: EventKind<'static>,
    /// When it was written, if it hides sessions that were not written after that.
    hidden: Option<Recency>,
    /// The token, if a handler may have to end the session behind it.
    token: Option<UnusedToken>,
    /// Not all ways to join its chunks were tried.
    exhausted: bool,
}

impl Slot {
    /// Opens the cookies of the session's name, including those of retired names.
    ///
    /// All cookies are opened, not only the first authentic one: no rule may depend on their order, which depends on the
    /// browser and on other hosts of the domain (RFC 6265bis section 5.8.3). A cookie that is refused by its form costs
    /// almost nothing and does not count. The number of other cookies is limited.
    ///
    /// A task that has to wait for the store takes the permit first, and then uses the session that an earlier task has
    /// loaded.
    pub(super) async fn open_cookies<'a>(
        &'a self,
        now: Timestamp,
        permit: &mut Option<SemaphorePermit<'a>>,
    ) -> Result<OpenedCookies, Stop<'a>> {
        let config = self.connection.config();
        let retired = config.cookie.retired_cookies();
        let mut opened = OpenedCookies {
            candidates: SmallVec::new(),
            hidden: None,
            all_dead: true,
            exhausted: false,
            superseded: Vec::new(),
            unusable: Vec::new(),
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
                    Ok(candidate) => opened.candidates.push(candidate),
                    Err(refused) => self.note_refused(&mut opened, refused),
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
        Ok(opened)
    }

    /// Opens one cookie. Of the ways to join its chunks, the first authentic one counts.
    async fn open_cookie<'a>(
        &'a self,
        name: Option<usize>,
        found: &FoundCookies,
        assemblies: Assemblies,
        tries: &mut Tries,
        now: Timestamp,
        permit: &mut Option<SemaphorePermit<'a>>,
    ) -> Result<Result<Candidate, RefusedCookie>, Stop<'a>> {
        let mut joined = Vec::new();
        let mut first = None;
        let mut counted = false;
        let mut exhausted = assemblies.has_more;
        let mut waited = false;
        for assembly in assemblies.ways {
            if tries.signatures >= MAX_ASSEMBLIES {
                exhausted = true;
                break;
            }
            let token = found.token(&assembly, &mut joined);
            let memo = match name {
                None => self.connection.recall(token, now),
                Some(_) => None,
            };
            let recalled = memo.is_some();
            let outcome = match memo {
                Some(record) => Ok(record),
                // A cookie store answers at once: that is not worth a future.
                None => match self.ask_store(name, token, now).into_immediate() {
                    Ok(answer) => self.report_failure(answer)?,
                    Err(loading) => {
                        waited = true;
                        self.wait_for_store(loading, permit).await?
                    }
                },
            };
            let by_form = outcome.as_ref().err().is_some_and(|refusal| refusal.is_by_form(waited));
            if !by_form && !counted {
                counted = true;
                tries.candidates += 1;
            }
            if !by_form || assembly.is_joined() {
                tries.signatures += 1;
            }
            let refusal = match outcome {
                Ok(record) => return Ok(Ok(Candidate { record, assembly, recalled, retired: name })),
                Err(refusal) => refusal,
            };
            // Joined in another way, the token may be authentic. Any other reason holds for each token that begins the same
            // way.
            let may_differ = matches!(refusal, Refusal::Encoding | Refusal::Length | Refusal::Signature);
            if !may_differ || first.is_none() {
                first = Some(self.refused(refusal, token, now));
            }
            if !may_differ {
                exhausted = false;
                break;
            }
        }
        let refused = first.unwrap_or_else(|| self.refused(Refusal::Encoding, &[], now));
        let refusal = refused.refusal;
        // A client can send many cookies that are not tokens. Their events are limited.
        let by_form = refusal.is_by_form(waited);
        tries.reported += usize::from(by_form);
        if !by_form || tries.reported <= MAX_CANDIDATES {
            self.emit(refused.event);
        }
        Ok(Err(RefusedCookie { exhausted, ..refused }))
    }

    /// Describes the cookie of `token`, which the store has refused.
    fn refused(&self, refusal: Refusal, token: &[u8], now: Timestamp) -> RefusedCookie {
        let store = self.connection.store();
        let by_key = matches!(refusal, Refusal::UnknownKey | Refusal::RevokedKey);
        let key = if by_key { store.key_of(token) } else { None };
        let hides = matches!(refusal, Refusal::Ended | Refusal::IssuedInFuture);
        let may_go_on = refusal == Refusal::Regenerated || self.may_live_elsewhere(refusal);
        RefusedCookie {
            refusal,
            event: EventKind::Refused { refusal, key },
            hidden: if hides { store.hidden_by(token, now) } else { None },
            token: may_go_on.then(|| UnusedToken::new(token.to_vec())),
            exhausted: false,
        }
    }

    /// Notes what a refused cookie says of the others of its request.
    fn note_refused(&self, opened: &mut OpenedCookies, refused: RefusedCookie) {
        let refusal = refused.refusal;
        opened.hidden = opened.hidden.max(refused.hidden);
        match refusal {
            Refusal::Regenerated => opened.superseded.extend(refused.token),
            _ => opened.unusable.extend(refused.token),
        }
        opened.all_dead &= refusal.removes_cookie();
        self.device.note_refusal(refusal);
        // Other servers on `localhost` use this name, too, and the backend does not know their tokens.
        let is_strange = refusal == Refusal::UnknownId && self.connection.config().has_shared_name;
        opened.all_dead &= !is_strange;
        opened.exhausted |= refused.exhausted;
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

    /// Waits for the store, unless another task loads the session meanwhile.
    async fn wait_for_store<'a>(
        &'a self,
        loading: LoadFuture,
        permit: &mut Option<SemaphorePermit<'a>>,
    ) -> Result<Result<Record, Refusal>, Stop<'a>> {
        if permit.is_none() {
            *permit = self.permit.acquire().await.ok();
            if let Some(loaded) = self.loaded.get() {
                return Err(Stop::Loaded(loaded));
            }
        }
        let config = self.connection.config();
        let stopwatch = Stopwatch::start(config, Operation::Load, &loading);
        let answer = loading.await;
        if let Some(stopwatch) = stopwatch {
            stopwatch.stop(config, answer.is_ok());
        }
        Ok(self.report_failure(answer)?)
    }

    /// Emits the event about a store that failed.
    pub(super) fn report_failure<T>(&self, answer: Result<T, Error>) -> Result<T, Error> {
        answer.inspect_err(|error| {
            self.emit(EventKind::StoreFailed { id: None, operation: Operation::Load, error });
        })
    }

    /// Keeps the newest session in the connection memo, unless it is from there.
    fn remember(&self, candidates: &[Candidate], now: Timestamp) {
        if !self.connection.has_memo() {
            return;
        }
        let newest = candidates.iter().max_by_key(|candidate| candidate.record.recency());
        if let Some(Candidate { record, assembly, recalled: false, retired: None }) = newest {
            let mut joined = Vec::new();
            self.connection.opened(self.found.token(assembly, &mut joined), record, now);
        }
    }
}
