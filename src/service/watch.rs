//! `SessionWatch`: a session as a connection sees it that outlives its request.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, Weak};

use super::connection::Connection;
use super::slot::Slot;
use crate::clock::Timestamp;
use crate::error::Error;
use crate::event::{EventKind, Operation, Refusal};
use crate::lock::lock;
use crate::session::{
    Changes, Circumstances, Committer, DeviceCheck, Former, Record, Reply, Saved, Session, SessionId,
    SessionView,
};

/// The session of a connection that outlives its request: a WebSocket, a stream of server-sent events, a long poll.
///
/// Each call loads the session from the store again. Nothing that it does reaches the browser, so it sets no cookie. Take it
/// from [`SessionHandle::watch`](super::SessionHandle::watch) before the response is returned.
///
/// # Limits
///
/// It follows one token. When the session is given a new token ([`regenerate`](Session::regenerate),
/// [`login`](Session::login), [`reauthenticate`](Session::reauthenticate); or when values are set after
/// [`destroy`](Session::destroy), or after [`clear`](Session::clear) of a subject's session), it has ended for this connection
/// ([`Refusal::Regenerated`]), and the browser connects again with the new cookie.
///
/// A [`CookieStore`](crate::CookieStore) has no copy of a session. There a watch shows the session as it was when it was taken,
/// and cannot renew it. With [revocations](crate::store::Builder::revocations) it ends with a logout, after
/// [`max_staleness`](crate::Revocations::max_staleness) at the latest if that happened on another host. Without them it ends
/// only at the deadline that the session then had.
///
/// # Examples
///
/// See the guide [`connections`](crate::guide::connections).
pub struct SessionWatch {
    connection: Arc<Connection>,
    record: Mutex<Record>,
}

impl SessionWatch {
    pub(super) fn new(connection: &Arc<Connection>, record: Record) -> Self {
        Self { connection: Arc::clone(connection), record: Mutex::new(record) }
    }

    /// Returns the id that the session had when the watch was taken.
    pub fn id(&self) -> SessionId {
        self.record().id()
    }

    /// Loads the session as it is now, without keeping it alive. Returns the reason if it has ended.
    ///
    /// # Errors
    ///
    /// [`is_unavailable`](Error::is_unavailable) if the store is unavailable.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(all(feature = "memory", feature = "testing"))]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), hyper_session::Error> {
    /// # use http::{Request, Response};
    /// # use hyper::service::Service;
    /// # use hyper_session::{Error, SessionHandle, session_fn, testing};
    /// use hyper_session::{MemoryStore, Refusal};
    ///
    /// let store = MemoryStore::builder().build()?;
    /// # let service = session_fn(store.clone(), |_: Request<()>, session: SessionHandle| async move {
    /// #     Ok::<_, Error>(Response::new(session.watch().await?))
    /// # });
    /// # let request = testing::with_session(Request::new(()), &store, |session| session.login("ada")).await?;
    /// # let watch = service.call(request).await?.into_body().expect("a session");
    /// // `watch` is of a session that logged in as ada.
    /// let session = watch.reload().await?.expect("it is alive");
    /// assert_eq!(session.subject().unwrap(), "ada");
    /// store.end_sessions_of("ada", None).await?;
    /// assert_eq!(watch.reload().await?.unwrap_err(), Refusal::UnknownId);
    /// # Ok(())
    /// # }
    /// # #[cfg(not(all(feature = "memory", feature = "testing")))]
    /// # fn main() {}
    /// ```
    pub async fn reload(&self) -> Result<Result<SessionView, Refusal>, Error> {
        let now = self.connection.config().now();
        Ok(self.look(now).await?.map(|record| self.view(record, now)))
    }

    /// Returns true if the session still lives, without keeping it alive.
    ///
    /// # Errors
    ///
    /// [`is_unavailable`](Error::is_unavailable) if the store is unavailable.
    pub async fn is_alive(&self) -> Result<bool, Error> {
        Ok(self.look(self.connection.config().now()).await?.is_ok())
    }

    /// Keeps the session alive, as a request would: moves its idle deadline. Returns false if it has ended.
    ///
    /// Call it when the user did something, not because the connection is open: otherwise an abandoned page is never logged
    /// out. The cookie in the browser keeps its `Max-Age` until the next request.
    ///
    /// # Errors
    ///
    /// [`is_unavailable`](Error::is_unavailable) if the store cannot be reached. [`is_config`](Error::is_config) on a
    /// [`CookieStore`](crate::CookieStore), whose deadlines are in the cookie, and for a session that has not moved yet from the old
    /// store of a migration or from a retired name of the cookie.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(all(feature = "memory", feature = "testing"))]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), hyper_session::Error> {
    /// # use http::{Request, Response};
    /// # use hyper::service::Service;
    /// # use hyper_session::{Error, SessionHandle, session_fn, testing};
    /// use hyper_session::MemoryStore;
    /// use hyper_session::testing::FakeClock;
    /// use std::time::Duration;
    ///
    /// let clock = FakeClock::at(1_900_000_000);
    /// let store = MemoryStore::builder().clock(clock.clone()).build()?; // an idle timeout of 24 hours
    /// # let service = session_fn(store.clone(), |_: Request<()>, session: SessionHandle| async move {
    /// #     Ok::<_, Error>(Response::new(session.watch().await?))
    /// # });
    /// # let request = testing::with_session(Request::new(()), &store, |session| session.login("ada")).await?;
    /// # let watch = service.call(request).await?.into_body().expect("a session");
    /// // Twice 23 hours, with a renewal in between.
    /// clock.advance(Duration::from_secs(23 * 3600));
    /// assert!(watch.renew().await?);
    /// clock.advance(Duration::from_secs(23 * 3600));
    /// assert!(watch.is_alive().await?);
    /// clock.advance(Duration::from_secs(3600));
    /// assert!(!watch.renew().await?); // it has expired
    /// # Ok(())
    /// # }
    /// # #[cfg(not(all(feature = "memory", feature = "testing")))]
    /// # fn main() {}
    /// ```
    #[doc(alias = "touch")]
    pub async fn renew(&self) -> Result<bool, Error> {
        let now = self.connection.config().now();
        let Ok(record) = self.look(now).await? else { return Ok(false) };
        if record.origin().token().is_none() {
            return Err(Error::config(
                "only a response can renew this session: its deadline is in its cookie (use a server-side store), or it has not moved from an old store or name yet",
            ));
        }
        if !self.connection.config().standing(&record, now).renewal_due {
            return Ok(true);
        }
        let saving = self.connection.store().save(Some(record), Arc::new(Changes::default()), now);
        let saved = saving.await.inspect_err(|error| self.failed(Operation::Renew, error))?;
        let Saved::Stored { record, .. } = saved else { return Ok(false) };
        self.keep(record);
        Ok(true)
    }

    /// Waits until the session has ended, and says how: by a logout, by an administrator, by a deadline, or under another
    /// token.
    ///
    /// The store is asked at once, and after each `pause`: so a session that ended is noticed after one pause and one load, at
    /// most. With revocations or a near-cache, their `max_staleness` is added.
    ///
    /// # Errors
    ///
    /// [`is_unavailable`](Error::is_unavailable) as soon as the store is unavailable. Whether the connection stays open then is
    /// for the application to decide.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(all(feature = "memory", feature = "testing"))]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), hyper_session::Error> {
    /// # use http::{Request, Response};
    /// # use hyper::service::Service;
    /// # use hyper_session::{Error, SessionHandle, session_fn, testing};
    /// use hyper_session::{MemoryStore, Refusal};
    /// use std::sync::atomic::{AtomicUsize, Ordering};
    ///
    /// let store = MemoryStore::builder().build()?;
    /// # let service = session_fn(store.clone(), |_: Request<()>, session: SessionHandle| async move {
    /// #     Ok::<_, Error>(Response::new(session.watch().await?))
    /// # });
    /// # let request = testing::with_session(Request::new(()), &store, |session| session.login("ada")).await?;
    /// # let watch = service.call(request).await?.into_body().expect("a session");
    /// // `watch` is of a session that logged in as ada. An application sleeps for some seconds in each pause.
    /// let pauses = AtomicUsize::new(0);
    /// let pause = async || {
    ///     if pauses.fetch_add(1, Ordering::Relaxed) == 1 {
    ///         store.end_sessions_of("ada", None).await.unwrap(); // meanwhile, elsewhere
    ///     }
    /// };
    /// assert_eq!(watch.ended(pause).await?, Refusal::UnknownId);
    /// assert_eq!(pauses.into_inner(), 2);
    /// # Ok(())
    /// # }
    /// # #[cfg(not(all(feature = "memory", feature = "testing")))]
    /// # fn main() {}
    /// ```
    pub async fn ended<P, F>(&self, pause: P) -> Result<Refusal, Error>
    where
        P: Fn() -> F,
        F: Future<Output = ()>,
    {
        loop {
            if let Err(refusal) = self.look(self.connection.config().now()).await? {
                return Ok(refusal);
            }
            pause().await;
        }
    }

    /// Loads the session from the store again, and keeps the record.
    async fn look(&self, now: Timestamp) -> Result<Result<Record, Refusal>, Error> {
        let reloading = self.connection.store().reload(self.record(), now);
        let looked = reloading.await.inspect_err(|error| self.failed(Operation::Load, error))?;
        if let Ok(record) = &looked {
            self.keep(record.clone());
        }
        Ok(looked)
    }

    /// Returns a session that can only be read, and that belongs to no response.
    fn view(&self, record: Record, now: Timestamp) -> SessionView {
        let config = self.connection.config();
        let circumstances = Circumstances {
            now,
            speculative: true,
            shared_flash: config.settings.shared_flash,
            device: DeviceCheck::Unchecked,
            revocable: config.revocable,
        };
        let committer: Weak<dyn Committer> = Weak::<Slot>::new();
        let session = Session::new(Some(record), Former::None, Reply::Nothing, circumstances, committer);
        session.close();
        session.view()
    }

    fn record(&self) -> Record {
        lock(&self.record).clone()
    }

    fn keep(&self, record: Record) {
        *lock(&self.record) = record;
    }

    fn failed(&self, operation: Operation, error: &Error) {
        let id = Some(self.id());
        self.connection.config().emit(EventKind::StoreFailed { id, operation, error });
    }
}

impl fmt::Debug for SessionWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionWatch").field("id", &self.id()).finish_non_exhaustive()
    }
}
