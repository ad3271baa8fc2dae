//! The sessions of a subject: entering and leaving, listing, ending them from elsewhere.

use std::time::Duration;

use super::format::EntryValue;
use super::join::join_all;
use super::session_list::{ListedSession, SessionList};
use super::{Inner, MAX_ATTEMPTS, ServerStore};
use crate::clock::Timestamp;
use crate::crypto::subject_id;
use crate::error::{Error, Kind};
use crate::event::{Event, Operation};
use crate::id::EntryId;
use crate::session::{Payload, Record, SessionId};
use crate::store::{Backend, Replaced, Store, Stored};

/// An entered session may be missing for so long: whoever entered it is about to write it.
const GRACE: Duration = Duration::from_secs(60);

/// A list, and the entry that it was read from.
#[derive(Default)]
struct Known {
    list: SessionList,
    stored: Option<Stored>,
}

/// An entered session, and what the backend has under its id.
struct Found {
    listed: ListedSession,
    stored: Result<Option<Stored>, Error>,
}

/// A moment before each deadline.
const ALWAYS: Timestamp = Timestamp::from_unix(0);

/// What becomes of a list that does not read back.
#[derive(Clone, Copy)]
enum Unreadable {
    /// Whoever asks is told: nothing can be promised of sessions that are not known.
    IsAnError,
    /// Somebody logs in: that must go on.
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
    /// The id, which names the session and gives no access to it.
    pub id: SessionId,
    /// When the session began: at its last login.
    pub created: Timestamp,
    /// When the session was last known to be in use: exact to the renewal threshold.
    pub last_seen: Timestamp,
    /// The first moment at which it is over, if it is not used again.
    pub expires: Timestamp,
    /// False if the backend has the session, but this store cannot read it: it was sealed under a key that is not on the
    /// ring, or written by a newer release. Its times are then those that the list and the backend know.
    pub readable: bool,
}

impl SubjectSession {
    /// A session of which only the list tells, since its entry cannot be read.
    fn unreadable(listed: &ListedSession, expires: Timestamp) -> Self {
        Self { id: listed.id, created: listed.entered, last_seen: listed.entered, expires, readable: false }
    }
}

impl<B: Backend> ServerStore<B> {
    /// Lists the live sessions that [`Session::login`](crate::Session::login) bound to `subject`, in the order of their
    /// logins.
    ///
    /// This only reads: an administrator's process with other timeouts or keys than the service's ends no session by it.
    /// Sessions that this store cannot read are [said to be unreadable](SubjectSession::readable).
    ///
    /// # Errors
    ///
    /// [`is_unavailable`](Error::is_unavailable) if the backend cannot tell, or what it has is no list: damaged, or sealed
    /// under a key that is not on the ring; the next login begins a new one. For this and the other two:
    /// [`is_config`](Error::is_config) if the sessions are shared with Astra, which keeps no such list.
    ///
    /// # Examples
    ///
    /// "Where you are logged in", and a button to log out everywhere else:
    ///
    /// ```
    /// use hyper_session::store::Backend;
    /// use hyper_session::{Error, ServerStore, Session};
    ///
    /// async fn log_out_elsewhere<B: Backend>(store: &ServerStore<B>, session: &Session) -> Result<usize, Error> {
    ///     let Some(user) = session.subject() else { return Ok(0) };
    ///     for device in store.sessions_of(&user).await? {
    ///         println!("since {}{}", device.created.as_unix(), if Some(device.id) == session.id() { ", this one" } else { "" });
    ///     }
    ///     store.end_sessions_of(&user, session.id()).await
    /// }
    /// ```
    pub async fn sessions_of(&self, subject: &str) -> Result<Vec<SubjectSession>, Error> {
        let (inner, now) = (&self.inner, self.config().now());
        let known = inner.known(subject, now).await?;
        let mut sessions = Vec::new();
        // Those that an interrupted call began to end are alive until the next one ends them.
        for found in inner.find(known.list.entries.iter()).await {
            let listed = found.listed;
            match found.stored {
                Err(error) if error.is_unreadable() => {
                    sessions.push(SubjectSession::unreadable(&listed, listed.until))
                }
                stored => sessions.extend(inner.session_of(subject, &listed, stored?, now)),
            }
        }
        Ok(sessions)
    }

    /// Ends the session `id` if it is one of `subject`'s; false if it is not, or not any more.
    ///
    /// # Errors
    ///
    /// As [`end_sessions_of`](Self::end_sessions_of).
    pub async fn end_session_of(&self, subject: &str, id: SessionId) -> Result<bool, Error> {
        Ok(self.inner.end(subject, self.config().now(), None, &[], |entry| entry.id == id).await? > 0)
    }

    /// Ends all sessions of `subject`, except one to keep: "log out everywhere", or everywhere else. The number of those
    /// that were ended.
    ///
    /// A login that is under way at the same time either is ended, too, or happens after this. A session that is given
    /// another token at the same time is ended under both; so is one to keep, if that is the old one.
    ///
    /// # Errors
    ///
    /// [`is_unavailable`](Error::is_unavailable) if the backend did not confirm it: ask again; none that was not ended is
    /// forgotten. So, too, if [the list](Self::sessions_of) does not read: then only deadlines end what was on it.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, some sessions may be ended and others not yet. The next call that ends a session of `subject`
    /// ends those, too, as does the next login.
    pub async fn end_sessions_of(&self, subject: &str, keep: Option<SessionId>) -> Result<usize, Error> {
        self.inner.end(subject, self.config().now(), None, &[], |entry| Some(entry.id) != keep).await
    }
}

impl<B: Backend> Inner<B> {
    /// The subject under which a session with these values is listed. Sessions that are shared with Astra are not: it
    /// would not keep the list, and its ids in a list would be logins.
    pub(super) fn listed_subject(&self, payload: &Payload) -> Option<String> {
        if self.format.has_session_lists() { payload.subject() } else { None }
    }

    /// Enters a session that is about to be written. `instead_of` is one that it replaces, which does not count. False if
    /// somebody is ending that one.
    pub(super) async fn enter(
        &self,
        subject: &str,
        id: SessionId,
        instead_of: Option<SessionId>,
        created: Timestamp,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let until = created.saturating_add(self.config.timeouts.absolute);
        // When it is entered may be long after the request began.
        let entered = self.backend.time(now.max(self.config.now()));
        let entry = ListedSession { id, entered, until, ending: false };
        let counts = |entry: &&ListedSession| Some(entry.id) != instead_of;
        let add = |list: &mut SessionList| {
            list.prune(now);
            let entered = list.enter(entry, instead_of);
            let surplus = list.live().filter(counts).count().saturating_sub(self.max_sessions_per_subject);
            (entered, surplus)
        };
        let ((entered, surplus), known) =
            self.edit(subject, now, Unreadable::IsOverwritten, None, add).await?;
        if !entered {
            return Ok(false);
        }
        if surplus > 0 {
            self.make_room(subject, known, counts, now).await?;
        } else if known.list.is_unfinished() {
            self.end(subject, now, Some(known), &[], |_| false).await?;
        }
        Ok(true)
    }

    /// Ends the oldest sessions beyond those that the subject may have; but some may be over by now.
    async fn make_room(
        &self,
        subject: &str,
        known: Known,
        counts: impl Fn(&&ListedSession) -> bool,
        now: Timestamp,
    ) -> Result<(), Error> {
        let (mut live, mut over) = (Vec::new(), Vec::new());
        let found = self.find(known.list.live().filter(&counts)).await;
        for Found { listed, stored } in &found {
            let is_session = match stored {
                Ok(stored) => {
                    self.session_of(subject, listed, stored.clone(), now).is_some_and(|found| found.readable)
                }
                // Whatever it is, it takes a place.
                Err(_) => true,
            };
            if is_session || !self.is_settled(listed, now) {
                live.push(listed.id);
            } else {
                over.push(listed.id);
            }
        }
        let surplus = live.len().saturating_sub(self.max_sessions_per_subject);
        over.extend(live.iter().take(surplus));
        let ended = self.end(subject, now, Some(known), &found, |entry| over.contains(&entry.id)).await?;
        if ended > 0 {
            self.config.emit(&Event::SubjectLimit { cookie: self.config.cookie_name(), ended });
        }
        Ok(())
    }

    /// Enters a session again that is missing from `list`. If that fails, its next renewal tries again.
    pub(super) async fn enter_again(
        &self,
        subject: &str,
        record: &Record,
        list: Result<SessionList, Error>,
        now: Timestamp,
    ) {
        if list.is_ok_and(|list| !list.names(record.id())) {
            let until = record.created().saturating_add(self.config.timeouts.absolute);
            let entered = self.backend.time(now);
            let entry = ListedSession { id: record.id(), entered, until, ending: false };
            let add = |list: &mut SessionList| {
                if !list.names(entry.id) {
                    list.enter(entry, None);
                }
            };
            let _ = self.edit(subject, now, Unreadable::IsAnError, None, add).await;
        }
    }

    /// True if the list in a backend's answer has the session. A list that does not read has none: what is not known to be
    /// a session is none.
    pub(super) fn is_on(
        &self,
        list: EntryId,
        answer: Result<Option<Stored>, Error>,
        id: SessionId,
    ) -> Result<bool, Error> {
        match answer {
            Err(error) if error.is_unreadable() => Ok(false),
            answer => Ok(self.read_list(list, answer?.as_ref()).is_ok_and(|list| list.has(id))),
        }
    }

    /// True if the session was entered so long ago that it has been written, if it ever is.
    fn is_settled(&self, entry: &ListedSession, now: Timestamp) -> bool {
        entry.entered.saturating_add(GRACE) <= self.backend.time(now)
    }

    /// What the backend has under the ids of these sessions.
    async fn find<'a>(&self, entries: impl Iterator<Item = &'a ListedSession>) -> Vec<Found> {
        join_all(entries.copied().collect::<Vec<_>>(), async |listed| {
            let id = EntryId::from_bytes(listed.id.to_bytes());
            Found { listed, stored: self.backend.fetch(id, ALWAYS).await }
        })
        .await
    }

    /// True if nobody ended the session since it was entered.
    pub(super) async fn is_entered(
        &self,
        subject: &str,
        id: SessionId,
        now: Timestamp,
    ) -> Result<bool, Error> {
        Ok(self.list(subject, now).await?.has(id))
    }

    /// Takes a session off its subject's list that is not there any more. If that fails, whoever reads the list next does
    /// it.
    pub(super) async fn leave(&self, record: &Record, now: Timestamp) {
        if let Some(subject) = self.listed_subject(record.payload()) {
            let forget = |list: &mut SessionList| list.remove(&[record.id()]);
            let _ = self.edit(&subject, now, Unreadable::IsAnError, None, forget).await;
        }
    }

    /// First marks what is to be ended, then removes it, then forgets it: a login under way sees the mark, and what was
    /// begun and not finished is finished by the next one who comes here. The number of sessions that this ended of those
    /// that `which` picks. `known` is the list as it was seen last, `found` what was seen of its sessions.
    async fn end(
        &self,
        subject: &str,
        now: Timestamp,
        known: Option<Known>,
        found: &[Found],
        which: impl Fn(&ListedSession) -> bool,
    ) -> Result<usize, Error> {
        let marked = self.edit(subject, now, Unreadable::IsAnError, known, |list| list.end(&which)).await;
        let (ending, known) = match marked {
            Ok(marked) => marked,
            // The backend may have no room for a mark, and still delete.
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
            // They are ended, and the next one who comes here forgets them.
            forgotten.map(drop).or_else(|error| if error.is_unavailable() { Ok(()) } else { Err(error) })?;
        }
        Ok(ended)
    }

    /// Ends sessions without marking them first. A login that is under way meanwhile happens after this.
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

    /// Ends these sessions, and counts those that `which` picks.
    async fn end_all(
        &self,
        subject: &str,
        ending: &[ListedSession],
        found: &[Found],
        which: impl Fn(&ListedSession) -> bool,
        now: Timestamp,
    ) -> Result<usize, Error> {
        let done = join_all(ending, async |entry| {
            let known = found.iter().find(|found| found.listed.id == entry.id);
            let found = match known.and_then(|found| found.stored.as_ref().ok()?.clone()) {
                Some(stored) => Ok(Some(stored)),
                // Whatever is there, expired or not: a request that loaded the session in time could renew it.
                None => self.backend.fetch(EntryId::from_bytes(entry.id.to_bytes()), ALWAYS).await,
            };
            self.end_one(subject, entry.id, found, now).await
        })
        .await;
        let mut ended = 0;
        for (entry, done) in ending.iter().zip(done) {
            ended += usize::from(done? && which(entry));
        }
        Ok(ended)
    }

    /// Ends the session `id`, if it is the subject's: that is for the session to say (T37). True if it was one. `found` is
    /// what the backend had under its id.
    async fn end_one(
        &self,
        subject: &str,
        id: SessionId,
        found: Result<Option<Stored>, Error>,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let entry = EntryId::from_bytes(id.to_bytes());
        let mut current = match found {
            // It cannot say whose it is. That it is on the list has to do.
            Err(error) if error.is_unreadable() => {
                self.backend.delete(entry).await?;
                return Ok(true);
            }
            found => found?,
        };
        let mut turn = None;
        for _ in 0..MAX_ATTEMPTS {
            let Some(seen) = current else { return Ok(false) };
            let expires = seen.expires;
            let is_session = match self.format.decode(entry, &seen.value) {
                Some(EntryValue::Session(_, payload)) if payload.subject().as_deref() == Some(subject) => {
                    expires > now
                }
                // It goes on under another id, which is on the list, too; or is nobody's any more.
                Some(_) => return Ok(false),
                // What this server cannot read, another one with other keys might.
                None => false,
            };
            current = match self.backend.exchange(entry, seen, None, ALWAYS).await {
                // If it is missing now, somebody else who was asked to end it was faster.
                Ok(Replaced::Done | Replaced::Missing) => return Ok(is_session),
                Ok(Replaced::Conflict(newer)) => Some(newer),
                // Deleting may be allowed where comparing is not.
                Err(error) if error.is_unavailable() => {
                    return match self.backend.delete(entry).await {
                        Ok(()) => Ok(is_session),
                        Err(_) => Err(error),
                    };
                }
                Err(error) => return Err(error),
            };
            if turn.is_none() {
                turn = Some(self.queues.of(id).lock().await);
            }
        }
        // Nobody stays logged in by writing all the time.
        self.backend.delete(entry).await?;
        Ok(true)
    }

    /// No list is another answer than an empty one.
    fn check_listed(&self) -> Result<(), Error> {
        if !self.format.has_session_lists() {
            return Err(Error::config(
                "subjects have no session lists where sessions are shared with another program",
            ));
        }
        Ok(())
    }

    /// What became of an entered session. The session itself says whose it is, not the list (T37: CVE-2024-51996).
    fn session_of(
        &self,
        subject: &str,
        entry: &ListedSession,
        stored: Option<Stored>,
        now: Timestamp,
    ) -> Option<SubjectSession> {
        let (id, stored) = (EntryId::from_bytes(entry.id.to_bytes()), stored?);
        let (age, payload) = match self.format.decode(id, &stored.value) {
            Some(EntryValue::Session(age, payload)) => (age, payload),
            Some(_) => return None,
            None => return Some(SubjectSession::unreadable(entry, stored.expires.min(entry.until))),
        };
        let created = age.created?;
        let expires = self.expires(stored.expires, created, age);
        if payload.subject().as_deref() != Some(subject) || expires <= now {
            return None;
        }
        let lifetime = age.lifetime.unwrap_or(self.config.timeouts.idle);
        let last_seen = stored.expires.saturating_sub(lifetime).max(created);
        Some(SubjectSession { id: entry.id, created, last_seen, expires, readable: true })
    }

    pub(super) async fn list(&self, subject: &str, now: Timestamp) -> Result<SessionList, Error> {
        self.known(subject, now).await.map(|known| known.list)
    }

    async fn known(&self, subject: &str, now: Timestamp) -> Result<Known, Error> {
        self.check_listed()?;
        let id = self.list_of(subject);
        let stored = self.backend.fetch(id, now).await?;
        Ok(Known { list: self.read_list(id, stored.as_ref())?, stored })
    }

    pub(super) fn list_of(&self, subject: &str) -> EntryId {
        EntryId::from_bytes(subject_id(self.config.cookie_name(), subject))
    }

    /// A list that cannot be read is lost: what was on it is not known.
    fn read_list(&self, id: EntryId, stored: Option<&Stored>) -> Result<SessionList, Error> {
        let Some(stored) = stored else { return Ok(SessionList::default()) };
        match self.format.decode(id, &stored.value) {
            Some(EntryValue::List(list)) => Ok(list),
            _ => Err(Error::unreadable("the list of a subject's sessions does not read back")),
        }
    }

    /// Reads the list, to be edited. Where it does not read and may be overwritten, an event says that it is lost.
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
                let (cookie, operation) = (self.config.cookie_name(), Operation::Load);
                self.config.emit(&Event::StoreFailed { cookie, id: None, operation, error });
                Ok(())
            }
        }
    }

    /// The entry of the list. One that is too long for an entry, or of another kind, is deleted if it may be overwritten.
    async fn fetch_to_edit(
        &self,
        id: EntryId,
        now: Timestamp,
        unreadable: Unreadable,
    ) -> Result<Option<Stored>, Error> {
        match self.backend.fetch(id, now).await {
            Err(error) if error.is_unreadable() => {
                self.lose(&error, unreadable).map_err(|()| error)?;
                self.backend.delete(id).await?;
                Ok(None)
            }
            fetched => fetched,
        }
    }

    /// Changes the list of `subject`'s sessions in one atomic step, on whatever it is by then. Begins with `known`, where
    /// the list was looked at just before.
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
        let mut turn = None;
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
            if turn.is_none() {
                turn = Some(self.list_queues.of(SessionId::from_bytes(id.to_bytes())).lock().await);
            }
        }
        Err(Error::new(Kind::Conflict { attempts: MAX_ATTEMPTS }))
    }
}
