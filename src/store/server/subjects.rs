//! The sessions of a subject: entering and leaving, listing, ending them from elsewhere.

use std::time::Duration;

use super::format::EntryValue;
use super::session_limit::{self, SessionLimit};
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
    /// When the session began.
    pub created: Timestamp,
    /// When the session was last known to be in use: exact to the renewal threshold, and not moved any more within an idle
    /// timeout of the absolute deadline.
    pub last_seen: Timestamp,
    /// The first moment at which it is over, if it is not used again.
    pub expires: Timestamp,
    /// What [`Session::describe`](crate::Session::describe) said.
    pub description: Option<String>,
}

impl<B: Backend> ServerStore<B> {
    /// The live sessions that [`Session::login`](crate::Session::login) bound to `subject`, in the order of their logins.
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
        let list = inner.list(subject, now).await?;
        let (mut sessions, mut over) = (Vec::new(), Vec::new());
        for entry in list.live() {
            match inner.session_of(subject, entry, now).await? {
                Some(session) => sessions.push(session),
                None if entry.entered.saturating_add(GRACE) <= now => over.push(entry.id),
                None => {}
            }
        }
        if !over.is_empty() || list.is_unfinished() {
            // Not just taken off: one that appears after all must not live without being listed.
            inner.end(subject, now, |entry| over.contains(&entry.id)).await?;
        }
        Ok(sessions)
    }

    /// Ends the session `id` if it is one of `subject`'s; false if it is not, or not any more.
    ///
    /// # Errors
    ///
    /// As [`end_sessions_of`](Self::end_sessions_of).
    pub async fn end_session_of(&self, subject: &str, id: SessionId) -> Result<bool, Error> {
        Ok(self.inner.end(subject, self.config().now(), |entry| entry.id == id).await? > 0)
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
    /// Where the future is dropped, some may be ended and others not yet. Whoever lists or ends sessions of `subject` next
    /// ends those, too, as does the next login.
    pub async fn end_sessions_of(&self, subject: &str, keep: Option<SessionId>) -> Result<usize, Error> {
        self.inner.end(subject, self.config().now(), |entry| Some(entry.id) != keep).await
    }
}

impl<B: Backend> Inner<B> {
    /// The subject under which a session with these values is listed. Sessions that are shared with Astra are not: it
    /// would not keep the list, and its ids in a list would be logins.
    pub(super) fn listed_subject(&self, payload: &Payload) -> Option<String> {
        if self.format.has_session_lists() { payload.subject() } else { None }
    }

    /// Enters a session that is about to be written, and that ends by `until` at the latest. `instead_of` is one that it replaces, which does not count. False if
    /// somebody is ending that one.
    pub(super) async fn enter(
        &self,
        subject: &str,
        id: SessionId,
        instead_of: Option<SessionId>,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<bool, Error> {
        // When it is entered may be long after the request began.
        let entry = ListedSession { id, entered: now.max(self.config.now()), until, ending: false };
        let counts = |entry: &&ListedSession| Some(entry.id) != instead_of;
        let add = |list: &mut SessionList| {
            list.prune(now);
            let goes_on = instead_of.is_some_and(|id| list.has(id));
            let entered = list.enter(entry, instead_of);
            let surplus = list.live().filter(counts).count().saturating_sub(self.max_sessions_per_subject);
            // One that is there already is not refused, although fewer are allowed by now.
            let stays = goes_on && self.at_session_limit == SessionLimit::RefuseLogin;
            (entered, if stays { 0 } else { surplus }, list.is_unfinished())
        };
        let (entered, surplus, unfinished) = self.edit(subject, now, Unreadable::IsOverwritten, add).await?;
        if !entered {
            return Ok(false);
        }
        if surplus > 0 {
            self.make_room(subject, id, counts, now).await?;
        } else if unfinished {
            self.end(subject, now, |_| false).await?;
        }
        Ok(true)
    }

    /// Ends sessions beyond those that the subject may have, or refuses `login`, the one that was just entered. Some may
    /// have expired by now.
    async fn make_room(
        &self,
        subject: &str,
        login: SessionId,
        counts: impl Fn(&&ListedSession) -> bool,
        now: Timestamp,
    ) -> Result<(), Error> {
        let (mut live, mut over) = (Vec::new(), Vec::new());
        for entry in self.list(subject, now).await?.live().filter(counts) {
            let fresh = entry.entered.saturating_add(GRACE) > now;
            if entry.id == login {
                live.push((Timestamp::MAX, login)); // about to be written, and used
                continue;
            }
            match self.session_of(subject, entry, now).await? {
                Some(session) => live.push((session.last_seen, entry.id)),
                None if fresh => live.push((entry.entered, entry.id)),
                None => over.push(entry.id),
            }
        }
        match self.at_session_limit {
            SessionLimit::EndLeastRecentlyUsed => {
                over.extend(session_limit::surplus(live, self.max_sessions_per_subject));
            }
            SessionLimit::RefuseLogin => {
                if session_limit::came_too_late(&live, self.max_sessions_per_subject, login) {
                    let forget = |list: &mut SessionList| list.remove(&[login]);
                    self.edit(subject, now, Unreadable::IsAnError, forget).await?;
                    return Err(Error::new(Kind::SessionLimit));
                }
            }
        }
        let ended = self.end(subject, now, |entry| over.contains(&entry.id)).await?;
        if ended > 0 {
            self.config.emit(&Event::SubjectLimit { cookie: self.config.cookie_name(), ended });
        }
        Ok(())
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
            let _ = self.edit(&subject, now, Unreadable::IsAnError, forget).await;
        }
    }

    /// First marks what is to be ended, then removes it, then forgets it: a login under way sees the mark, and what was
    /// begun and not finished is finished by the next one who comes here. The number of sessions that this ended of those
    /// that `which` picks.
    async fn end(
        &self,
        subject: &str,
        now: Timestamp,
        which: impl Fn(&ListedSession) -> bool,
    ) -> Result<usize, Error> {
        let ending = self.edit(subject, now, Unreadable::IsAnError, |list| list.end(&which)).await?;
        let mut ended = 0;
        for entry in &ending {
            let done = self.end_one(subject, entry.id, now).await?;
            ended += usize::from(done && which(entry));
        }
        if !ending.is_empty() {
            let ids: Vec<_> = ending.iter().map(|entry| entry.id).collect();
            self.edit(subject, now, Unreadable::IsAnError, |list| list.remove(&ids)).await?;
        }
        Ok(ended)
    }

    /// Ends the session `id`, if it is the subject's: that is for the session to say (T37). True if it was one.
    async fn end_one(&self, subject: &str, id: SessionId, now: Timestamp) -> Result<bool, Error> {
        let entry = EntryId::from_bytes(id.to_bytes());
        let mut current = self.backend.fetch(entry, now).await?;
        let mut turn = None;
        for _ in 0..MAX_ATTEMPTS {
            let Some(Stored { value, .. }) = current else { return Ok(false) };
            let is_session = match self.format.decode(entry, &value) {
                Some(EntryValue::Session(_, payload)) if payload.subject().as_deref() == Some(subject) => {
                    true
                }
                // It goes on under another id, which is on the list, too; or is nobody's any more.
                Some(_) => return Ok(false),
                // What this server cannot read, another one with other keys might.
                None => false,
            };
            current = match self.backend.replace(entry, value, None, now).await? {
                // If it is missing now, somebody else who was asked to end it was faster.
                Replaced::Done | Replaced::Missing => return Ok(is_session),
                Replaced::Conflict(newer) => Some(newer),
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
    async fn session_of(
        &self,
        subject: &str,
        entry: &ListedSession,
        now: Timestamp,
    ) -> Result<Option<SubjectSession>, Error> {
        let id = EntryId::from_bytes(entry.id.to_bytes());
        let Some(stored) = self.backend.fetch(id, now).await? else { return Ok(None) };
        let Some(EntryValue::Session(Some(created), payload)) = self.format.decode(id, &stored.value) else {
            return Ok(None);
        };
        let expires = stored.expires.min(self.config.absolute_deadline(created, &payload));
        if payload.subject().as_deref() != Some(subject) || expires <= now {
            return Ok(None);
        }
        let last_seen = Timestamp::from_unix(
            expires.as_unix().saturating_sub(self.config.timeouts_of(&payload).idle.as_secs()),
        );
        let description = payload.description();
        Ok(Some(SubjectSession {
            id: entry.id,
            created,
            last_seen: last_seen.max(created),
            expires,
            description,
        }))
    }

    async fn list(&self, subject: &str, now: Timestamp) -> Result<SessionList, Error> {
        self.check_listed()?;
        let id = self.list_of(subject);
        self.read_list(id, self.backend.fetch(id, now).await?.as_ref(), Unreadable::IsAnError)
    }

    fn list_of(&self, subject: &str) -> EntryId {
        EntryId::from_bytes(subject_id(self.config.cookie_name(), subject))
    }

    /// A list that cannot be read is lost: sessions on it end by their deadlines alone, and somebody should know.
    fn read_list(
        &self,
        id: EntryId,
        stored: Option<&Stored>,
        unreadable: Unreadable,
    ) -> Result<SessionList, Error> {
        let Some(stored) = stored else { return Ok(SessionList::default()) };
        if let Some(EntryValue::List(list)) = self.format.decode(id, &stored.value) {
            return Ok(list);
        }
        let error = Error::unavailable("the list of a subject's sessions does not read back");
        match unreadable {
            Unreadable::IsAnError => Err(error),
            Unreadable::IsOverwritten => {
                let (cookie, operation) = (self.config.cookie_name(), Operation::Load);
                self.config.emit(&Event::StoreFailed { cookie, id: None, operation, error: &error });
                Ok(SessionList::default())
            }
        }
    }

    /// Changes the list of `subject`'s sessions in one atomic step, on whatever it is by then.
    async fn edit<R>(
        &self,
        subject: &str,
        now: Timestamp,
        unreadable: Unreadable,
        mut edit: impl FnMut(&mut SessionList) -> R,
    ) -> Result<R, Error> {
        self.check_listed()?;
        let id = self.list_of(subject);
        let mut turn = None;
        let mut current = self.backend.fetch(id, now).await?;
        for _ in 0..MAX_ATTEMPTS {
            let before = self.read_list(id, current.as_ref(), unreadable)?;
            let mut after = before.clone();
            let result = edit(&mut after);
            if after == before {
                return Ok(result);
            }
            let entry = match after.until() {
                Some(expires) => Some(Stored { value: self.format.encode_list(id, &after, now)?, expires }),
                None => None,
            };
            let outcome = match (current, entry) {
                (Some(stored), entry) => self.backend.replace(id, stored.value, entry, now).await?,
                (None, None) => return Ok(result),
                (None, Some(entry)) => {
                    let created = self.backend.create(id, entry, now).await?;
                    if created { Replaced::Done } else { Replaced::Missing }
                }
            };
            current = match outcome {
                Replaced::Done => return Ok(result),
                Replaced::Conflict(newer) => Some(newer),
                Replaced::Missing => self.backend.fetch(id, now).await?,
            };
            if turn.is_none() {
                turn = Some(self.list_queues.of(SessionId::from_bytes(id.to_bytes())).lock().await);
            }
        }
        Err(Error::new(Kind::Conflict { attempts: MAX_ATTEMPTS }))
    }
}
