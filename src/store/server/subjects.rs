//! The sessions of a subject, for a caller outside of their requests: listing them, and ending them.

use super::format::EntryValue;
use super::session_list::ListedSession;
use super::{Inner, ServerStore, entry_of_session};
use crate::clock::Timestamp;
use crate::error::Error;
use crate::join::join_all;
use crate::session::{Payload, SessionId};
use crate::store::{Backend, Stored, Verbs};

/// A listed session, and the backend's entry under its id.
pub(super) struct FetchedSession {
    pub(super) listed: ListedSession,
    pub(super) stored: Result<Option<Stored>, Error>,
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

    /// Ends the session `id` if it belongs to `subject`. Returns false if it does not, or has ended already. For at least a minute, the
    /// id from before a new token also ends the session. Neither works on sessions that are shared with Astra: see the errors.
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
        let (now, mut ended) = (self.config().now(), Ok(false));
        for inner in self.inner.of_each_name() {
            let more = inner.end_by_id(subject, id, now).await;
            ended = ended.and_then(|ended| Ok(ended | more?));
        }
        ended
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
        let (now, mut ended) = (self.config().now(), Ok(0));
        // Under each name, also if that fails for one of them.
        for inner in self.inner.of_each_name() {
            let more = inner.end(subject, now, None, &[], |entry| Some(entry.id) != keep).await;
            ended = ended.and_then(|ended| Ok(ended + more?));
        }
        ended
    }
}

impl<B: Backend> Inner<B> {
    /// Returns the sessions under each cookie name whose subjects are the same: the retired names first. A session that moves to
    /// the present name meanwhile is found under one of the two.
    fn of_each_name(&self) -> impl Iterator<Item = &Self> {
        let retired = self.retired.iter().map(AsRef::as_ref);
        retired.chain(std::iter::once(self)).chain(self.linked.iter().map(AsRef::as_ref))
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

    /// Returns the backend's entries of these sessions. Whether one has expired is for the backend to say, which may know
    /// the time better than this host.
    pub(super) async fn find<'a>(
        &self,
        entries: impl Iterator<Item = &'a ListedSession>,
        now: Timestamp,
    ) -> Vec<FetchedSession> {
        join_all(entries.copied().collect::<Vec<_>>(), async |listed| {
            let id = entry_of_session(listed.id);
            FetchedSession { listed, stored: self.backend.fetch(id, now).await }
        })
        .await
    }

    /// Returns what became of a listed session. The session itself names its subject, not the list (T37:
    /// CVE-2024-51996).
    pub(super) fn session_of(
        &self,
        subject: &str,
        entry: &ListedSession,
        stored: Option<Stored>,
        now: Timestamp,
    ) -> Option<SubjectSession> {
        let (id, stored) = (entry_of_session(entry.id), stored?);
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
}
