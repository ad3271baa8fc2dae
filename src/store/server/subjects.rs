//! The sessions of a subject: entering them in the session list, listing them, and ending them outside of their
//! requests.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::format::EntryValue;
use super::optional::OptionalWork;
use super::session_limit::{self, SessionLimit};
use super::session_list::{ListedSession, SessionList};
use super::{Inner, MAX_ATTEMPTS, Predecessor, ServerStore, entry_of};
use crate::clock::Timestamp;
use crate::crypto::subject_id;
use crate::error::{Error, Kind};
use crate::event::{EventKind, Operation, Refusal};
use crate::id::EntryId;
use crate::join::join_all;
use crate::session::{Payload, Record, SessionId};
use crate::store::backend::EVEN_IF_EXPIRED;
use crate::store::{Backend, Replaced, Stored, Verbs};

/// For how long a listed session may be missing: the request that entered it is about to write it.
const WRITE_GRACE: Duration = Duration::from_secs(60);

/// A session list, and the entry that it was read from.
#[derive(Default)]
struct Known {
    list: SessionList,
    stored: Option<Stored>,
}

/// A listed session, and the backend's entry under its id.
struct FetchedSession {
    listed: ListedSession,
    stored: Result<Option<Stored>, Error>,
}

/// The outcome for a session list that is unreadable.
#[derive(Clone, Copy)]
enum Unreadable {
    /// The call fails: it cannot vouch for sessions that it cannot list.
    IsAnError,
    /// The list is overwritten: a login must succeed.
    IsOverwritten,
}

/// One of the sessions of a subject.
///
/// # Examples
///
/// See [`ServerStore::sessions_of`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubjectSession {
    /// The public id of the session, which gives no access to it.
    pub id: SessionId,
    /// The name of its cookie. It differs only with a [retired](crate::cookie::CookieOptions::retired_name) or a
    /// [linked](crate::store::Builder::linked_cookie) cookie.
    pub cookie: String,
    /// When the session began: at its last login.
    pub created: Timestamp,
    /// When the session was last known to be in use, exact to the renewal threshold.
    pub last_seen: Timestamp,
    /// The first moment at which it has expired, if it is not used again.
    pub expires: Timestamp,
    /// The description of the device, from [`Session::describe`](crate::Session::describe).
    pub description: Option<String>,
    /// False if the backend has the session, but this store cannot read it: it was sealed under a key that is not on the
    /// ring, or written by a newer release. Its times are then taken from the list and the backend.
    pub readable: bool,
}

impl SubjectSession {
    /// Describes a session whose entry cannot be read, by the list.
    fn unreadable(listed: &ListedSession, cookie: &str, expires: Timestamp) -> Self {
        Self {
            id: listed.id,
            cookie: cookie.to_owned(),
            created: listed.entered,
            last_seen: listed.entered,
            expires,
            readable: false,
            description: None,
        }
    }
}

impl<B: Backend> ServerStore<B> {
    /// Lists the live sessions that [`Session::login`](crate::Session::login) bound to `subject`, in the order of their
    /// logins, or of their beginnings if the store has several cookie names.
    ///
    /// This only reads: a process with other timeouts or keys than the service's ends no session by it. Sessions that
    /// this store cannot read are [marked as unreadable](SubjectSession::readable).
    ///
    /// # Errors
    ///
    /// [`is_unavailable`](Error::is_unavailable) if the backend is unavailable, or the list is damaged or sealed under
    /// a key that is not on the ring. The next login then begins a new list. [`is_config`](Error::is_config) if the
    /// sessions are shared with Astra, which keeps no lists. The same holds for the other two methods.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(all(feature = "memory", feature = "testing"))]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), hyper_session::Error> {
    /// use http::Request;
    /// use hyper_session::{MemoryStore, testing};
    ///
    /// let store = MemoryStore::builder().build()?;
    /// for browser in ["Firefox on Linux", "Safari on iOS"] {
    ///     let login = testing::with_session(Request::new(()), &store, |session| {
    ///         session.login("ada")?;
    ///         session.describe(browser)
    ///     });
    ///     login.await?;
    /// }
    /// let devices = store.sessions_of("ada").await?;
    /// assert_eq!(devices.len(), 2);
    /// assert_eq!(devices[0].description.as_deref(), Some("Firefox on Linux"));
    /// assert!(store.sessions_of("eve").await?.is_empty());
    /// # Ok(())
    /// # }
    /// # #[cfg(not(all(feature = "memory", feature = "testing")))]
    /// # fn main() {}
    /// ```
    pub async fn sessions_of(&self, subject: &str) -> Result<Vec<SubjectSession>, Error> {
        let now = self.config().now();
        let mut sessions = Vec::new();
        for inner in self.inner.of_each_name() {
            sessions.append(&mut inner.sessions_of(subject, now).await?);
        }
        // One list is in order already, also where `created` cannot be read.
        if self.inner.of_each_name().nth(1).is_some() {
            sessions.sort_by_key(|session| session.created);
        }
        Ok(sessions)
    }

    /// Ends the session `id` if it belongs to `subject`. Returns false if it does not, or has ended already.
    ///
    /// # Errors
    ///
    /// The same as for [`end_sessions_of`](Self::end_sessions_of).
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(all(feature = "memory", feature = "testing"))]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), hyper_session::Error> {
    /// use http::Request;
    /// use hyper_session::{MemoryStore, testing};
    ///
    /// let store = MemoryStore::builder().build()?;
    /// testing::with_session(Request::new(()), &store, |session| session.login("ada")).await?;
    /// let id = store.sessions_of("ada").await?[0].id;
    /// assert!(!store.end_session_of("eve", id).await?); // it is not hers
    /// assert!(store.end_session_of("ada", id).await?);
    /// assert!(!store.end_session_of("ada", id).await?); // it has ended already
    /// # Ok(())
    /// # }
    /// # #[cfg(not(all(feature = "memory", feature = "testing")))]
    /// # fn main() {}
    /// ```
    pub async fn end_session_of(&self, subject: &str, id: SessionId) -> Result<bool, Error> {
        Ok(self.end_where(subject, |entry| entry.id == id).await? > 0)
    }

    /// Ends all sessions of `subject`, except one to keep: "log out everywhere", or everywhere else. Returns how many
    /// were ended.
    ///
    /// A concurrent login is either ended, too, or happens after this. A session that is given another token at the
    /// same time is ended under both. So is the session to keep, if `keep` is its old id.
    ///
    /// [`Store::end_sessions_of`](crate::store::Store::end_sessions_of) does the same for a store whose type is not known, and
    /// returns an `Option`. [`CookieStore::end_sessions_of`](crate::CookieStore::end_sessions_of) can neither keep a session nor
    /// count.
    ///
    /// # Errors
    ///
    /// - [`is_unavailable`](Error::is_unavailable) if the backend did not confirm it. Call it again: the list keeps each
    ///   session that was not ended. Also if [the list](Self::sessions_of) is unreadable: then only their deadlines end
    ///   the sessions that were on it.
    /// - [`is_transient`](Error::is_transient) if other requests changed the list during each attempt: no session was ended.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, some sessions may have ended and others not yet. The next call that ends a session of
    /// `subject`, or the next login, ends the others.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(all(feature = "memory", feature = "testing"))]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), hyper_session::Error> {
    /// use http::Request;
    /// use hyper_session::{MemoryStore, testing};
    ///
    /// let store = MemoryStore::builder().build()?;
    /// for _ in 0..3 {
    ///     testing::with_session(Request::new(()), &store, |session| session.login("ada")).await?;
    /// }
    /// let this = store.sessions_of("ada").await?[0].id;
    /// assert_eq!(store.end_sessions_of("ada", Some(this)).await?, 2); // everywhere else
    /// assert_eq!(store.end_sessions_of("ada", None).await?, 1);
    /// assert!(store.sessions_of("ada").await?.is_empty());
    /// # Ok(())
    /// # }
    /// # #[cfg(not(all(feature = "memory", feature = "testing")))]
    /// # fn main() {}
    /// ```
    pub async fn end_sessions_of(&self, subject: &str, keep: Option<SessionId>) -> Result<usize, Error> {
        self.end_where(subject, |entry| Some(entry.id) != keep).await
    }

    /// Ends these sessions under each name, also if that fails for one of them.
    async fn end_where(&self, subject: &str, which: impl Fn(&ListedSession) -> bool) -> Result<usize, Error> {
        let (now, mut ended) = (self.config().now(), Ok(0));
        for inner in self.inner.of_each_name() {
            let more = inner.end(subject, now, None, &[], &which).await;
            ended = ended.and_then(|ended| Ok(ended + more?));
        }
        ended
    }
}

impl<B: Backend> Inner<B> {
    /// Returns the sessions under each cookie name whose subjects are the same.
    fn of_each_name(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(self.retired.iter().chain(&self.linked).map(AsRef::as_ref))
    }

    async fn sessions_of(&self, subject: &str, now: Timestamp) -> Result<Vec<SubjectSession>, Error> {
        let known = self.known(subject, now).await?;
        let mut sessions = Vec::new();
        // Sessions that an interrupted call began to end are alive until the next call ends them.
        for found in self.find(known.list.entries.iter(), now).await {
            let listed = found.listed;
            match found.stored {
                Err(error) if error.is_unreadable() => {
                    sessions.push(SubjectSession::unreadable(&listed, &self.name, listed.until));
                }
                stored => sessions.extend(self.session_of(subject, &listed, stored?, now)),
            }
        }
        Ok(sessions)
    }

    /// Returns the subject under which a session with these values is listed. Sessions that are shared with Astra are
    /// not listed: Astra would not maintain the list, and its ids in a list could be used to log in.
    pub(super) fn listed_subject(&self, payload: &Payload) -> Option<String> {
        if self.format.has_session_lists() { payload.subject() } else { None }
    }

    /// Enters a session that is about to be written, and that ends by `until` at the latest. `instead_of` is a session that it
    /// replaces, which does not count. Returns false if the replaced session has ended, or another call is ending it.
    pub(super) async fn enter(
        &self,
        subject: &str,
        id: SessionId,
        instead_of: Option<Predecessor>,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<bool, Error> {
        // When it is entered may be long after the request began.
        let entered = self.backend.time(now.max(self.config.now()));
        let entry = ListedSession { id, entered, until, ending: false };
        let must_be_listed = instead_of.filter(|predecessor| predecessor.must_be_listed);
        let instead_of = instead_of.map(|predecessor| predecessor.id);
        let counts = all_but(instead_of);
        let add = |list: &mut SessionList| {
            if must_be_listed.is_some_and(|predecessor| !list.has(predecessor.id)) {
                return (false, 0);
            }
            list.prune(now);
            // A session that is listed already is not refused, although fewer are allowed by now.
            let stays = self.is_exempt_from_limit(list, instead_of);
            let entered = list.enter(entry, instead_of);
            let surplus = list.live().filter(counts).count().saturating_sub(self.max_sessions_per_subject);
            (entered, if stays { 0 } else { surplus })
        };
        let ((entered, surplus), known) = self.edit_with_room(subject, id, instead_of, now, add).await?;
        if !entered {
            return Ok(false);
        }
        if surplus > 0 {
            self.make_room(subject, known, id, instead_of, now).await?;
        } else if known.list.is_unfinished() {
            // A session that another call began to end must not make a login fail. The next call tries again.
            let _ = self.end(subject, now, Some(known), &[], |_| false).await;
        }
        Ok(true)
    }

    /// Returns true if the session limit refuses new logins, and the successor of `instead_of` is none, since that is on the list.
    fn is_exempt_from_limit(&self, list: &SessionList, instead_of: Option<SessionId>) -> bool {
        self.at_session_limit == SessionLimit::RefuseLogin && instead_of.is_some_and(|id| list.has(id))
    }

    /// Changes the list as a login does. While more logins are under way than the longest entry has room for, it first ends
    /// sessions beyond the number that the subject may have, as if `login` was entered.
    async fn edit_with_room<R>(
        &self,
        subject: &str,
        login: SessionId,
        instead_of: Option<SessionId>,
        now: Timestamp,
        mut edit: impl FnMut(&mut SessionList) -> R,
    ) -> Result<(R, Known), Error> {
        for _ in 0..MAX_ATTEMPTS {
            let mut len = 0;
            let edit = |list: &mut SessionList| {
                let result = edit(list);
                len = list.entries.len();
                result
            };
            match self.edit(subject, now, Unreadable::IsOverwritten, None, edit).await {
                Err(error) if error.is_too_large() => {
                    let known = self.known(subject, now).await?;
                    let live = known.list.live().filter(all_but(instead_of)).count();
                    let is_shorter = known.list.entries.len() + 1 < len;
                    if live < self.max_sessions_per_subject && !is_shorter && !known.list.is_unfinished() {
                        // The backend has no room for as many sessions as the options allow.
                        return Err(error);
                    }
                    // Otherwise the logins that came too late leave the list.
                    let has_room = Box::pin(self.make_room(subject, known, login, instead_of, now)).await?;
                    if !has_room && !is_shorter {
                        return Err(error);
                    }
                }
                edited => return edited,
            }
        }
        Err(Error::new(Kind::Conflict { attempts: MAX_ATTEMPTS }))
    }

    /// Ends sessions beyond the number that the subject may have, or refuses `login`, which was just entered, or is about to be.
    /// Some may have expired by now. Returns false if that makes no room: nothing was to end, and no other login is under way
    /// that may yet be refused.
    async fn make_room(
        &self,
        subject: &str,
        known: Known,
        login: SessionId,
        instead_of: Option<SessionId>,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let (mut live, mut over) = (Vec::new(), Vec::new());
        let found = self.find(known.list.live().filter(all_but(instead_of)), now).await;
        let mut has_room = known.list.is_unfinished();
        // It is about to be written, and used.
        let entered_last = (!known.list.names(login)).then_some((Timestamp::MAX, login));
        for FetchedSession { listed, stored } in &found {
            if listed.id == login {
                live.push((Timestamp::MAX, login));
                continue;
            }
            let Ok(stored) = stored else {
                live.push((listed.entered, listed.id)); // whatever it is, it takes a place
                continue;
            };
            let session = self.session_of(subject, listed, stored.clone(), now);
            match session.filter(|session| session.readable) {
                Some(session) => live.push((session.last_seen, listed.id)),
                None if !self.is_settled(listed, now) => {
                    live.push((listed.entered, listed.id));
                    has_room = true; // once that login is refused
                }
                None => over.push(listed.id),
            }
        }
        live.extend(entered_last);
        match self.at_session_limit {
            SessionLimit::EndLeastRecentlyUsed => {
                over.extend(session_limit::surplus(live, self.max_sessions_per_subject));
            }
            SessionLimit::RefuseLogin if self.is_exempt_from_limit(&known.list, instead_of) => {}
            SessionLimit::RefuseLogin => {
                if session_limit::came_too_late(&live, self.max_sessions_per_subject, login) {
                    let forget = |list: &mut SessionList| list.remove(&[login]);
                    self.edit(subject, now, Unreadable::IsAnError, Some(known), forget).await?;
                    return Err(Error::new(Kind::SessionLimit));
                }
            }
        }
        has_room |= !over.is_empty();
        let ended = self.end(subject, now, Some(known), &found, |entry| over.contains(&entry.id)).await?;
        if ended > 0 {
            self.config.emit(EventKind::SubjectLimit { ended });
        }
        Ok(has_room)
    }

    /// Waits for `writing`, which writes or renews the session of `base`, and reads the session list at the same time. If the
    /// session is missing there, and `is_listed` after that write, it is entered again. No answer waits long for that.
    pub(super) async fn beside_the_list<T>(
        self: &Arc<Self>,
        subject: String,
        base: &Record,
        writing: impl Future<Output = Result<T, Error>>,
        is_listed: impl FnOnce(&T) -> bool,
        now: Timestamp,
    ) -> Result<T, Error> {
        let (tell, told) = oneshot::channel();
        let (inner, base) = (Arc::clone(self), base.clone());
        let mut healing = OptionalWork::new(async move {
            let list = inner.list(&subject, now).await;
            if told.await.is_ok() {
                inner.enter_again(&subject, &base, list, now).await;
            }
        });
        let outcome = healing.beside(writing).await?;
        if is_listed(&outcome) && tell.send(()).is_ok() {
            healing.finish(self.backend.__patience()).await;
        }
        Ok(outcome)
    }

    /// Enters a session that is missing from `list` again. If that fails, its next renewal tries again.
    async fn enter_again(
        &self,
        subject: &str,
        record: &Record,
        list: Result<SessionList, Error>,
        now: Timestamp,
    ) {
        if list.is_ok_and(|list| !list.names(record.id())) {
            let until = self.config.latest_deadline(record.created());
            let entered = self.backend.time(now);
            let entry = ListedSession { id: record.id(), entered, until, ending: false };
            let add = |list: &mut SessionList| list.enter(entry, None);
            let _ = self.edit(subject, now, Unreadable::IsAnError, None, add).await;
        }
    }

    /// Returns why the session is refused by the list in a backend's reply. `None` if it is on the list. An unreadable list
    /// has no session: one that cannot be confirmed is refused. The reason is that of the list if another host may be able to
    /// read it, so that the cookie stays.
    pub(super) fn refusal_by_list(
        &self,
        list: EntryId,
        answer: Result<Option<Stored>, Error>,
        id: SessionId,
    ) -> Result<Option<Refusal>, Error> {
        let stored = match answer {
            Err(error) if error.is_unreadable() => return Ok(Some(Refusal::Unreadable)),
            answer => answer?,
        };
        if self.read_list(list, stored.as_ref()).is_ok_and(|list| list.has(id)) {
            return Ok(None);
        }
        let refusal = stored.map(|stored| self.format.refusal(&stored.value));
        let undecided = refusal.filter(|refusal| refusal.may_be_of_another_host());
        Ok(Some(undecided.unwrap_or(Refusal::UnknownId)))
    }

    /// Returns true if the session was entered so long ago that it must have been written, if it ever is.
    fn is_settled(&self, entry: &ListedSession, now: Timestamp) -> bool {
        entry.entered.saturating_add(WRITE_GRACE) <= self.backend.time(now)
    }

    /// Returns the backend's entries of these sessions. Whether one has expired is for the backend to say, which may know
    /// the time better than this host.
    async fn find<'a>(
        &self,
        entries: impl Iterator<Item = &'a ListedSession>,
        now: Timestamp,
    ) -> Vec<FetchedSession> {
        join_all(entries.copied().collect::<Vec<_>>(), async |listed| {
            let id = entry_of(listed.id);
            FetchedSession { listed, stored: self.backend.fetch(id, now).await }
        })
        .await
    }

    /// Returns true if the session is still on the list.
    pub(super) async fn is_entered(
        &self,
        subject: &str,
        id: SessionId,
        now: Timestamp,
    ) -> Result<bool, Error> {
        Ok(self.list(subject, now).await?.has(id))
    }

    /// Takes a session that has ended off its subject's list, without waiting long for it. If that fails, the next call that edits
    /// the list does it.
    pub(super) async fn leave(self: &Arc<Self>, record: &Record, now: Timestamp) {
        let Some(subject) = self.listed_subject(record.payload()) else { return };
        let (inner, id) = (Arc::clone(self), record.id());
        let leaving = OptionalWork::new(async move {
            let forget = |list: &mut SessionList| list.remove(&[id]);
            let _ = inner.edit(&subject, now, Unreadable::IsAnError, None, forget).await;
        });
        leaving.finish(self.backend.__patience()).await;
    }

    /// Flags the sessions as being ended, deletes their entries, then takes them off the list. A concurrent login sees
    /// the flag; the next call finishes what an interrupted one began. Returns how many of the sessions that `which`
    /// picks this ended. `known` is the list and `found` its sessions, as they were last read.
    async fn end(
        &self,
        subject: &str,
        now: Timestamp,
        known: Option<Known>,
        found: &[FetchedSession],
        which: impl Fn(&ListedSession) -> bool,
    ) -> Result<usize, Error> {
        let marked = self.edit(subject, now, Unreadable::IsAnError, known, |list| list.end(&which)).await;
        let (ending, known) = match marked {
            Ok(marked) => marked,
            // The backend may have no room to write the list, and still delete entries.
            Err(error) if error.is_unavailable() && !error.is_unreadable() => {
                return self.end_unmarked(subject, now, which, error).await;
            }
            Err(error) => return Err(error),
        };
        let ended = self.end_all(subject, &ending, found, &which, now).await?;
        if !ending.is_empty() {
            let ids: Vec<_> = ending.iter().map(|entry| entry.id).collect();
            let forget = |list: &mut SessionList| list.remove(&ids);
            let forgotten = self.edit(subject, now, Unreadable::IsAnError, Some(known), forget).await;
            // The sessions are ended. The next call takes them off the list.
            forgotten.map(drop).or_else(|error| if error.is_unavailable() { Ok(()) } else { Err(error) })?;
        }
        Ok(ended)
    }

    /// Ends sessions without flagging them first. A concurrent login happens after this.
    async fn end_unmarked(
        &self,
        subject: &str,
        now: Timestamp,
        which: impl Fn(&ListedSession) -> bool,
        error: Error,
    ) -> Result<usize, Error> {
        let Ok(Known { mut list, .. }) = self.known(subject, now).await else { return Err(error) };
        let ending = list.end(&which);
        let Ok(ended) = self.end_all(subject, &ending, &[], which, now).await else { return Err(error) };
        if ending.len() == list.entries.len() {
            self.backend.delete(self.list_of(subject)).await?;
        }
        Ok(ended)
    }

    /// Ends these sessions, and returns how many of them `which` picks.
    async fn end_all(
        &self,
        subject: &str,
        ending: &[ListedSession],
        found: &[FetchedSession],
        which: impl Fn(&ListedSession) -> bool,
        now: Timestamp,
    ) -> Result<usize, Error> {
        let done = join_all(ending, async |entry| {
            let known = found.iter().find(|found| found.listed.id == entry.id);
            let id = entry_of(entry.id);
            let mut found = match known.and_then(|found| found.stored.as_ref().ok()?.clone()) {
                Some(stored) => Ok(Some(stored)),
                None => self.backend.fetch(id, now).await,
            };
            if matches!(found, Ok(None)) {
                // Even if it has expired: a request that loaded the session in time could renew it.
                found = self.backend.fetch(id, EVEN_IF_EXPIRED).await;
            }
            self.end_one(subject, entry.id, found, now).await
        })
        .await;
        let mut ended = 0;
        for (entry, done) in ending.iter().zip(done) {
            ended += usize::from(done? && which(entry));
        }
        Ok(ended)
    }

    /// Ends the session `id` if its own values name the subject (T37). Returns true if they do. `found` is the
    /// backend's entry under its id.
    async fn end_one(
        &self,
        subject: &str,
        id: SessionId,
        found: Result<Option<Stored>, Error>,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let entry = entry_of(id);
        let mut current = match found {
            // An unreadable session cannot name its subject: that it is on the list must do.
            Err(error) if error.is_unreadable() => {
                self.backend.delete(entry).await?;
                return Ok(true);
            }
            found => found?,
        };
        let is_alive = current.as_ref().is_some_and(|found| found.expires > now);
        let mut lock = None;
        for _ in 0..MAX_ATTEMPTS {
            let Some(seen) = current else { return Ok(false) };
            let is_alive = is_alive || seen.expires > now;
            let is_session = match self.format.decode(entry, &seen.value) {
                Some(EntryValue::Session(_, payload)) if payload.subject().as_deref() == Some(subject) => {
                    is_alive
                }
                // The session continues under another id, which is also on the list, or it belongs to no subject now.
                Some(_) => return Ok(false),
                // A host with other keys might read this session.
                None => false,
            };
            current = match self.backend.exchange(entry, seen, None, EVEN_IF_EXPIRED).await {
                // If it is missing now, a concurrent call ended it first.
                Ok(Replaced::Done | Replaced::Missing) => return Ok(is_session),
                Ok(Replaced::Conflict(newer)) => Some(newer),
                // Deleting may be permitted where comparing is not.
                Err(error) => {
                    return match self.backend.delete(entry).await {
                        Ok(()) => Ok(is_session),
                        Err(_) => Err(error),
                    };
                }
            };
            if lock.is_none() {
                lock = Some(self.queues.of(id).lock().await);
            }
        }
        // A client cannot stay logged in by writing all the time.
        self.backend.delete(entry).await?;
        Ok(true)
    }

    /// Returns an error if this store keeps no session lists: that differs from an empty list.
    fn check_listed(&self) -> Result<(), Error> {
        if !self.format.has_session_lists() {
            return Err(Error::config(
                "session lists need a store that no other program shares: build it without beside_astra()",
            ));
        }
        Ok(())
    }

    /// Returns what became of a listed session. The session itself names its subject, not the list (T37:
    /// CVE-2024-51996).
    fn session_of(
        &self,
        subject: &str,
        entry: &ListedSession,
        stored: Option<Stored>,
        now: Timestamp,
    ) -> Option<SubjectSession> {
        let (id, stored) = (entry_of(entry.id), stored?);
        let (age, payload) = match self.format.decode(id, &stored.value) {
            Some(EntryValue::Session(age, payload)) => (age, payload),
            Some(_) => return None,
            None => {
                return Some(SubjectSession::unreadable(entry, &self.name, stored.expires.min(entry.until)));
            }
        };
        let created = age.created?;
        let expires = self.expires(stored.expires, created, age, &payload);
        if payload.subject().as_deref() != Some(subject) || expires <= now {
            return None;
        }
        let lifetime = age.lifetime.unwrap_or_else(|| self.config.timeouts_of(&payload).idle);
        let last_seen = stored.expires.saturating_sub(lifetime).max(created);
        let description = payload.description();
        let cookie = self.name.to_string();
        Some(SubjectSession {
            id: entry.id,
            cookie,
            created,
            last_seen,
            expires,
            readable: true,
            description,
        })
    }

    pub(super) async fn list(&self, subject: &str, now: Timestamp) -> Result<SessionList, Error> {
        self.known(subject, now).await.map(|known| known.list)
    }

    async fn known(&self, subject: &str, now: Timestamp) -> Result<Known, Error> {
        self.check_listed()?;
        let id = self.list_of(subject);
        let stored = self.backend.__fetch_list(id, now).await?;
        Ok(Known { list: self.read_list(id, stored.as_ref())?, stored })
    }

    pub(super) fn list_of(&self, subject: &str) -> EntryId {
        EntryId::from_bytes(subject_id(&self.name, subject))
    }

    /// Decodes the list. If it is unreadable, the sessions on it are unknown.
    pub(super) fn read_list(&self, id: EntryId, stored: Option<&Stored>) -> Result<SessionList, Error> {
        let Some(stored) = stored else { return Ok(SessionList::default()) };
        match self.format.decode(id, &stored.value) {
            Some(EntryValue::List(list)) => Ok(list),
            _ => Err(Error::unreadable("the session list of the subject is unreadable")),
        }
    }

    /// Decodes the list in order to edit it. If it is unreadable and may be overwritten, an event reports the loss.
    fn list_to_edit(
        &self,
        id: EntryId,
        current: Option<Stored>,
        unreadable: Unreadable,
    ) -> Result<Known, Error> {
        let error = match self.read_list(id, current.as_ref()) {
            Ok(list) => return Ok(Known { list, stored: current }),
            Err(error) => error,
        };
        self.lose(&error, unreadable).map_err(|()| error)?;
        Ok(Known { list: SessionList::default(), stored: current })
    }

    fn lose(&self, error: &Error, unreadable: Unreadable) -> Result<(), ()> {
        match unreadable {
            Unreadable::IsAnError => Err(()),
            Unreadable::IsOverwritten => {
                let operation = Operation::Load;
                self.config.emit(EventKind::StoreFailed { id: None, operation, error });
                Ok(())
            }
        }
    }

    /// Fetches the list's entry. If it is too long or of another kind, it is deleted, provided that it may be
    /// overwritten.
    async fn fetch_to_edit(
        &self,
        id: EntryId,
        now: Timestamp,
        unreadable: Unreadable,
    ) -> Result<Option<Stored>, Error> {
        match self.backend.__fetch_list(id, now).await {
            Err(error) if error.is_unreadable() => {
                self.lose(&error, unreadable).map_err(|()| error)?;
                self.backend.delete(id).await?;
                Ok(None)
            }
            fetched => fetched,
        }
    }

    /// Changes the session list of `subject` in one atomic step, whatever it is by then. Begins with `known` if the
    /// list was just read.
    async fn edit<R>(
        &self,
        subject: &str,
        now: Timestamp,
        unreadable: Unreadable,
        known: Option<Known>,
        mut edit: impl FnMut(&mut SessionList) -> R,
    ) -> Result<(R, Known), Error> {
        self.check_listed()?;
        let id = self.list_of(subject);
        let mut lock = None;
        let mut current = match known {
            Some(known) => known.stored,
            None => self.fetch_to_edit(id, now, unreadable).await?,
        };
        for _ in 0..MAX_ATTEMPTS {
            let before = self.list_to_edit(id, current, unreadable)?;
            let mut after = before.list.clone();
            let result = edit(&mut after);
            if after == before.list {
                return Ok((result, before));
            }
            let entry = match after.until() {
                Some(expires) => Some(Stored { value: self.format.encode_list(id, &after, now)?, expires }),
                None => None,
            };
            let outcome = match (before.stored, entry.clone()) {
                (Some(seen), entry) => self.backend.exchange(id, seen, entry, now).await?,
                (None, None) => Replaced::Done,
                (None, Some(entry)) => {
                    let created = self.backend.create(id, entry, now).await?;
                    if created { Replaced::Done } else { Replaced::Missing }
                }
            };
            current = match outcome {
                Replaced::Done => return Ok((result, Known { list: after, stored: entry })),
                Replaced::Conflict(newer) => Some(newer),
                Replaced::Missing => self.fetch_to_edit(id, now, unreadable).await?,
            };
            if lock.is_none() {
                lock = Some(self.list_queues.of(SessionId::from_bytes(id.to_bytes())).lock().await);
            }
        }
        Err(Error::new(Kind::Conflict { attempts: MAX_ATTEMPTS }))
    }
}

/// Picks the sessions that count beside the successor of `replaced`.
fn all_but(replaced: Option<SessionId>) -> impl Fn(&&ListedSession) -> bool + Copy {
    move |entry| Some(entry.id) != replaced
}
