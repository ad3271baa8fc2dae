//! The sessions of a subject: entering and leaving, listing, ending them from elsewhere.

use std::time::Duration;

use super::codec::Value;
use super::server::{Inner, MAX_ATTEMPTS};
use super::subject_index::{Entry, Index};
use super::{Backend, Replaced, ServerStore, Store, Stored};
use crate::clock::Timestamp;
use crate::crypto::subject_id;
use crate::error::{Error, Kind};
use crate::event::Event;
use crate::session::{Payload, Record, SessionId};

/// An entered session may be missing for so long: whoever entered it is about to write it.
const GRACE: Duration = Duration::from_mins(1);

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
}

impl<B: Backend> ServerStore<B> {
    /// The live sessions that [`Session::login`](crate::Session::login) bound to `subject`, oldest first.
    ///
    /// # Errors
    ///
    /// [`is_unavailable`](Error::is_unavailable) if the backend cannot tell. For this and the other two:
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
        let (mut sessions, mut missing) = (Vec::new(), Vec::new());
        for entry in inner.index(subject, now).await?.live() {
            match inner.session_of(subject, entry, now).await? {
                Some(session) => sessions.push(session),
                None if entry.entered.saturating_add(GRACE) <= now => missing.push(entry.id),
                None => {}
            }
        }
        if !missing.is_empty() {
            inner.edit(subject, now, |index| index.remove(&missing)).await?;
        }
        Ok(sessions)
    }

    /// Ends the session `id` if it is one of `subject`'s; false if it is not.
    ///
    /// # Errors
    ///
    /// [`is_unavailable`](Error::is_unavailable) if the backend did not confirm it: ask again.
    pub async fn end_session_of(&self, subject: &str, id: SessionId) -> Result<bool, Error> {
        let now = self.config().now();
        let held = self.inner.index(subject, now).await?.has(id);
        self.inner.end(subject, now, |entry| entry.id == id).await?;
        Ok(held)
    }

    /// Ends all sessions of `subject`, except one to keep: "log out everywhere", or everywhere else. The number of those
    /// that were ended.
    ///
    /// A login that is under way at the same time either is ended, too, or happens after this.
    ///
    /// # Errors
    ///
    /// [`is_unavailable`](Error::is_unavailable) if the backend did not confirm it: ask again; none that was not ended is
    /// forgotten.
    pub async fn end_sessions_of(&self, subject: &str, keep: Option<SessionId>) -> Result<usize, Error> {
        self.inner.end(subject, self.config().now(), |entry| Some(entry.id) != keep).await
    }
}

impl<B: Backend> Inner<B> {
    /// The subject under which a session with these values is listed. Sessions that are shared with Astra are not: it
    /// would not keep the list, and its ids in a list would be logins.
    pub(super) fn listed_subject(&self, payload: &Payload) -> Option<String> {
        if self.codec.with_astra { None } else { payload.subject() }
    }

    /// Enters a session that is about to be written. `instead_of` is one that it replaces, which does not count.
    pub(super) async fn enter(
        &self,
        subject: &str,
        id: SessionId,
        instead_of: Option<SessionId>,
        created: Timestamp,
        now: Timestamp,
    ) -> Result<(), Error> {
        let until = created.saturating_add(self.config.timeouts.absolute);
        let entry = Entry { id, entered: now, until, ending: false };
        let add = |index: &mut Index| {
            index.prune(now);
            index.entries.push(entry);
            let counts = |entry: &&Entry| Some(entry.id) != instead_of;
            index.live().filter(counts).count().saturating_sub(self.max_sessions_per_subject)
        };
        if self.edit(subject, now, add).await? == 0 {
            return Ok(());
        }
        // Too many; but some may be over by now.
        let (mut live, mut over) = (Vec::new(), Vec::new());
        for entry in self.index(subject, now).await?.live().filter(|entry| Some(entry.id) != instead_of) {
            let fresh = entry.entered.saturating_add(GRACE) > now;
            let alive = fresh || self.session_of(subject, entry, now).await?.is_some();
            if alive { live.push(entry.id) } else { over.push(entry.id) }
        }
        let surplus = live.len().saturating_sub(self.max_sessions_per_subject);
        over.extend(live.iter().take(surplus));
        self.end(subject, now, |entry| over.contains(&entry.id)).await?;
        if surplus > 0 {
            let cookie = self.config.cookie_name();
            self.config.emit(&Event::SubjectLimit { cookie, ended: surplus });
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
        Ok(self.index(subject, now).await?.has(id))
    }

    /// Takes a session off its subject's list that is not there any more. If that fails, whoever reads the list next does
    /// it.
    pub(super) async fn leave(&self, record: &Record, now: Timestamp) {
        if let Some(subject) = self.listed_subject(&record.payload) {
            let _ = self.edit(&subject, now, |index| index.remove(&[record.id])).await;
        }
    }

    /// First marks what is to be ended, then removes it, then forgets it: a login under way sees the mark, and what was
    /// begun and not finished is finished by the next one who ends something.
    async fn end(
        &self,
        subject: &str,
        now: Timestamp,
        which: impl Fn(&Entry) -> bool,
    ) -> Result<usize, Error> {
        let ended = self.edit(subject, now, |index| index.end(&which)).await?;
        for id in &ended {
            self.backend.delete(*id).await?;
        }
        if !ended.is_empty() {
            self.edit(subject, now, |index| index.remove(&ended)).await?;
        }
        Ok(ended.len())
    }

    /// No list is another answer than an empty one.
    fn check_listed(&self) -> Result<(), Error> {
        if self.codec.with_astra {
            return Err(Error::config(
                "the sessions of a subject are not known where Astra has a hand in them",
            ));
        }
        Ok(())
    }

    /// What became of an entered session. The session itself says whose it is, not the list (T37: CVE-2024-51996).
    async fn session_of(
        &self,
        subject: &str,
        entry: &Entry,
        now: Timestamp,
    ) -> Result<Option<SubjectSession>, Error> {
        let Some(stored) = self.backend.fetch(entry.id, now).await? else { return Ok(None) };
        let Some(Value::Session(Some(created), payload)) = self.codec.read(entry.id, &stored.value) else {
            return Ok(None);
        };
        let timeouts = self.config.timeouts;
        let expires = stored.expires.min(created.saturating_add(timeouts.absolute));
        if payload.subject().as_deref() != Some(subject) || expires <= now {
            return Ok(None);
        }
        let last_seen = Timestamp::from_unix(expires.as_unix().saturating_sub(timeouts.idle.as_secs()));
        Ok(Some(SubjectSession { id: entry.id, created, last_seen: last_seen.max(created), expires }))
    }

    async fn index(&self, subject: &str, now: Timestamp) -> Result<Index, Error> {
        self.check_listed()?;
        let id = SessionId::from_bytes(subject_id(self.config.cookie_name(), subject));
        Ok(self.backend.fetch(id, now).await?.map(|stored| self.read_index(id, &stored)).unwrap_or_default())
    }

    /// A list that cannot be read is lost: sessions on it end by their deadlines alone, and somebody should know.
    fn read_index(&self, id: SessionId, stored: &Stored) -> Index {
        if let Some(Value::Index(index)) = self.codec.read(id, &stored.value) {
            return index;
        }
        let error = Error::unavailable("the list of a subject's sessions does not read back, and was lost");
        self.config.emit(&Event::StoreFailed { cookie: self.config.cookie_name(), error: &error });
        Index::default()
    }

    /// Changes the list of `subject`'s sessions in one atomic step, on whatever it is by then.
    async fn edit<R>(
        &self,
        subject: &str,
        now: Timestamp,
        mut edit: impl FnMut(&mut Index) -> R,
    ) -> Result<R, Error> {
        self.check_listed()?;
        let id = SessionId::from_bytes(subject_id(self.config.cookie_name(), subject));
        let mut turn = None;
        let mut current = self.backend.fetch(id, now).await?;
        for _ in 0..MAX_ATTEMPTS {
            let before = current.as_ref().map(|stored| self.read_index(id, stored)).unwrap_or_default();
            let mut after = before.clone();
            let result = edit(&mut after);
            if after == before {
                return Ok(result);
            }
            let entry = match after.until() {
                Some(expires) => Some(Stored { value: self.codec.index(id, &after, now)?, expires }),
                None => None,
            };
            let outcome = match (current, entry) {
                (Some(stored), entry) => self.backend.replace(id, stored.value, entry, now).await?,
                (None, None) => return Ok(result),
                (None, Some(entry)) => match self.backend.create(id, entry, now).await? {
                    true => Replaced::Done,
                    false => Replaced::Missing,
                },
            };
            current = match outcome {
                Replaced::Done => return Ok(result),
                Replaced::Conflict(newer) => Some(newer),
                Replaced::Missing => self.backend.fetch(id, now).await?,
            };
            if turn.is_none() {
                turn = Some(self.turns.of(id).lock().await);
            }
        }
        Err(Error::new(Kind::Conflict { attempts: MAX_ATTEMPTS }))
    }
}
