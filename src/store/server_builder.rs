//! The options of server-side stores on their builder.

use super::{Backend, Builder, SessionLimit};
use crate::clock::Timestamp;
use crate::crypto::Keyring;

/// A kind of store that keeps sessions on the server: a [`Backend`], or the options from which one is made.
pub trait ServerKind: sealed::Sealed {}

impl<B: Backend> ServerKind for B {}

pub(super) mod sealed {
    #[allow(unnameable_types)] // that is how it is sealed
    pub trait Sealed {}

    impl<B: super::Backend> Sealed for B {}
}

impl<K: ServerKind> Builder<K> {
    /// Seals the entries of the backend under keys of this ring. A copy of the backend's data then reveals no session,
    /// and a value that was altered, planted or moved to another id is refused. Default: entries are not sealed.
    ///
    /// Once it is on, sessions that were stored without it are refused, so switching it on logs everyone out, unless
    /// [`accept_unsealed_until`](Self::accept_unsealed_until) a date is called, too. Their cookies stay, because a host that
    /// does not seal yet may still read them. To change the key, [accept](Keyring::accept) the old one for as long as sessions
    /// last.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(all(feature = "memory", feature = "testing"))]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), hyper_session::Error> {
    /// use hyper_session::store::{Backend, EntryId};
    /// use hyper_session::{AppKey, Clock, MemoryStore, SystemClock, testing};
    /// use http::Request;
    ///
    /// let open = MemoryStore::builder().build()?;
    /// let sealed = MemoryStore::builder().seal_records(AppKey::generate()?).build()?;
    /// for (store, shows) in [(open, true), (sealed, false)] {
    ///     testing::with_session(Request::new(()), &store, |session| session.login("ada@example.com")).await?;
    ///     let id = store.sessions_of("ada@example.com").await?[0].id;
    ///     let entry = store.backend().fetch(EntryId::from_bytes(id.to_bytes()), SystemClock.now()).await?;
    ///     let value = entry.expect("the session's entry").value;
    ///     assert_eq!(value.windows(3).any(|bytes| bytes == b"ada"), shows);
    /// }
    /// # Ok(())
    /// # }
    /// # #[cfg(not(all(feature = "memory", feature = "testing")))]
    /// # fn main() {}
    /// ```
    pub fn seal_records(mut self, keys: impl Into<Keyring>) -> Self {
        self.server.record_keys = Some(keys.into());
        self
    }

    /// Sets whether each load of a session also looks it up in its subject's session list, and refuses it if it is
    /// missing there. This concerns sessions that [`Session::login`](crate::Session::login) bound to a subject.
    /// Default: false.
    ///
    /// With it, ending fails closed. If the list is lost (evicted when memory was full, or lost with a server),
    /// [`end_sessions_of`](crate::ServerStore::end_sessions_of) finds nothing to end, but every session of that list is
    /// refused. Without it, such a session lives on, and is entered in the list again when it is renewed or written.
    ///
    /// The list is read together with the session, in the same round trip, once this process has loaded the session
    /// before. A process remembers about 8,000 sessions for that. The load of any other session takes a second round trip.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(all(feature = "memory", feature = "testing"))]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), hyper_session::Error> {
    /// use hyper_session::store::{Backend, EntryId, Memory};
    /// use hyper_session::{Clock, MemoryStore, ServerStore, SystemClock, testing};
    /// use http::{Request, Response, header::COOKIE, header::SET_COOKIE};
    /// use std::sync::Arc;
    ///
    /// let store = MemoryStore::builder().build()?;
    /// let request = testing::with_session(Request::new(()), &store, |session| session.login("ada")).await?;
    /// let cookie = &request.headers()[COOKIE];
    ///
    /// // A server that has the session, and has lost its subject's list.
    /// let id = EntryId::from_bytes(store.sessions_of("ada").await?[0].id.to_bytes());
    /// let now = SystemClock.now();
    /// let (entry, lossy) = (store.backend().fetch(id, now).await?, Arc::new(Memory::new()));
    /// lossy.create(id, entry.expect("the session's entry"), now).await?;
    ///
    /// for check in [true, false] {
    ///     let store = ServerStore::with_backend(lossy.clone()).check_session_list(check).build()?;
    ///     let response = Response::builder().header(SET_COOKIE, cookie).body(()).unwrap();
    ///     assert_eq!(testing::session_in(&response, &store).await?.is_some(), !check);
    /// }
    /// # Ok(())
    /// # }
    /// # #[cfg(not(all(feature = "memory", feature = "testing")))]
    /// # fn main() {}
    /// ```
    pub fn check_session_list(mut self, yes: bool) -> Self {
        self.server.check_session_list = yes;
        self
    }

    /// Reads entries that were written without sealing, too, until a date, so that switching on
    /// [`seal_records`](Self::seal_records) logs no user out. Each write seals its entry; an entry that is only read and renewed
    /// stays as it is. [`EventKind::Migrating`](crate::EventKind::Migrating) reports each load of an unsealed entry. Default: never.
    ///
    /// No user is logged out if the date lies a [longest lifetime](Self::longest_lifetime) ahead, by default the absolute
    /// timeout.
    ///
    /// # Security
    ///
    /// Until the date, anyone who can write to the backend can put sessions there, as without sealing.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "memory")] {
    /// use hyper_session::{AppKey, MemoryStore, Timestamp};
    ///
    /// let store = MemoryStore::builder()
    ///     .seal_records(AppKey::generate()?)
    ///     .accept_unsealed_until(Timestamp::from_unix(1_900_000_000))
    ///     .build()?;
    /// # }
    /// # Ok::<(), hyper_session::Error>(())
    /// ```
    pub fn accept_unsealed_until(mut self, until: Timestamp) -> Self {
        self.server.accept_unsealed = Some(until);
        self
    }

    /// Sets how many sessions one subject may have at a time. The rule for one more is
    /// [`at_session_limit`](Self::at_session_limit). Default: 100.
    ///
    /// It bounds what one user's logins cost (OWASP ASVS 5.0, 7.1.2): each login rewrites the session list.
    ///
    /// # Limits
    ///
    /// At least 1. A backend with a limit for entries must have room for the list: `build` returns an error otherwise.
    pub fn max_sessions_per_subject(mut self, max: usize) -> Self {
        self.server.max_sessions_per_subject = max;
        self
    }

    /// Names another session cookie whose sessions are in the same backend, and whose subjects are the same users: an
    /// administration beside a shop, for example. [`sessions_of`](crate::ServerStore::sessions_of),
    /// [`end_session_of`](crate::ServerStore::end_session_of), [`end_sessions_of`](crate::ServerStore::end_sessions_of) and
    /// [`Session::end_other_sessions`](crate::Session::end_other_sessions) then include its sessions. Can be called several
    /// times. Default: none.
    ///
    /// Sessions under a [retired name](crate::cookie::CookieOptions::retired_name) are included in any case. The other
    /// service's sessions must have the same keys, if entries are [sealed](Self::seal_records).
    /// [`max_sessions_per_subject`](Self::max_sessions_per_subject) counts each cookie's sessions separately.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "memory")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), hyper_session::Error> {
    /// use http::Request;
    /// use hyper_session::cookie::CookieOptions;
    /// use hyper_session::{ServerStore, store::Memory, testing};
    /// use std::sync::Arc;
    ///
    /// let memory = Arc::new(Memory::new());
    /// let shop = ServerStore::with_backend(memory.clone()).linked_cookie("__Host-admin").build()?;
    /// let admin = ServerStore::with_backend(memory).cookie(CookieOptions::new().name("__Host-admin")).build()?;
    /// testing::with_session(Request::new(()), &shop, |session| session.login("ada")).await?;
    /// testing::with_session(Request::new(()), &admin, |session| session.login("ada")).await?;
    /// assert_eq!(shop.end_sessions_of("ada", None).await?, 2);
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "memory"))]
    /// # fn main() {}
    /// ```
    pub fn linked_cookie(mut self, name: impl Into<String>) -> Self {
        self.server.linked.push(name.into());
        self
    }

    /// Sets what happens when a subject with the maximum number of sessions logs in. Default:
    /// [`SessionLimit::EndLeastRecentlyUsed`].
    ///
    /// Another session ends once the login is complete. The response waits 50 ms for that at most. If it cannot be ended, because its
    /// server hangs for example, the login succeeds, and the next one ends it.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(all(feature = "memory", feature = "testing"))]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), hyper_session::Error> {
    /// use http::Request;
    /// use hyper_session::store::SessionLimit;
    /// use hyper_session::{MemoryStore, testing};
    ///
    /// let builder = || MemoryStore::builder().max_sessions_per_subject(1);
    /// let store = builder().at_session_limit(SessionLimit::RefuseLogin).build()?;
    /// testing::with_session(Request::new(()), &store, |session| session.login("ada")).await?;
    /// let second = testing::with_session(Request::new(()), &store, |session| session.login("ada")).await;
    /// assert!(second.unwrap_err().is_session_limit());
    ///
    /// let store = builder().build()?; // ends the first session
    /// for _ in 0..2 {
    ///     testing::with_session(Request::new(()), &store, |session| session.login("ada")).await?;
    /// }
    /// assert_eq!(store.sessions_of("ada").await?.len(), 1);
    /// # Ok(())
    /// # }
    /// # #[cfg(not(all(feature = "memory", feature = "testing")))]
    /// # fn main() {}
    /// ```
    pub fn at_session_limit(mut self, limit: SessionLimit) -> Self {
        self.server.at_session_limit = limit;
        self
    }
}
