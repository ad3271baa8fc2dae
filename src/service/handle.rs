//! `SessionHandle`: the session of a request before it is loaded.

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, Uri};

use super::connection::Connection;
use super::slot::{Loaded, Slot};
use super::watch::SessionWatch;
use crate::clock::Timestamp;
use crate::error::Error;
use crate::session::{Reply, Session};

/// The session of one request, not yet loaded.
///
/// It costs nothing until [`load`](Self::load) is called. Clones are handles of the same session.
///
/// # Examples
///
/// ```
/// use http::{Request, Response};
/// use hyper::service::Service;
/// use hyper_session::{AppKey, CookieStore, Error, SessionHandle, session_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Error> {
/// let store = CookieStore::builder(AppKey::generate()?).build()?;
/// let service = session_fn(store, |request: Request<()>, session: SessionHandle| async move {
///     if request.uri().path() != "/ping" {
///         session.load().await?.set("seen", true)?;
///     }
///     Ok::<_, Error>(Response::new(()))
/// });
/// let untouched = service.call(Request::builder().uri("/ping").body(()).unwrap()).await?;
/// assert!(untouched.headers().is_empty());
/// let changed = service.call(Request::new(())).await?;
/// assert!(changed.headers().contains_key("set-cookie"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SessionHandle {
    slot: Arc<Slot>,
}

/// The state in which a handler leaves its session.
pub(super) enum Conclusion<'a> {
    /// The handler never asked for its session.
    Untouched,
    /// The handler asked for it, and there is nothing to commit.
    Asked(Reply),
    /// There is something to commit, at this moment.
    Unsettled(&'a Loaded, Timestamp),
}

impl SessionHandle {
    pub(crate) fn begin(connection: &Arc<Connection>, uri: &Uri, headers: &HeaderMap) -> Self {
        Self { slot: Arc::new(Slot::new(connection, uri, headers)) }
    }

    /// Loads the session. Later calls, also on clones, return the same session.
    ///
    /// If the cookie is missing, not authentic, expired or unknown, the session is empty. Whether it has expired is decided now:
    /// load the session before you read a long body.
    ///
    /// # Errors
    ///
    /// [`is_unavailable`](Error::is_unavailable) if the store is unavailable. Never falls back to an empty session: writing to
    /// it could overwrite the real one.
    ///
    /// # Examples
    ///
    /// ```
    /// use http::{Request, Response};
    /// use hyper::service::Service;
    /// use hyper_session::{AppKey, CookieStore, Error, SessionHandle, session_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Error> {
    /// let store = CookieStore::builder(AppKey::generate()?).build()?;
    /// let service = session_fn(store, |_: Request<()>, handle: SessionHandle| async move {
    ///     handle.load().await?.set("seen", true)?;
    ///     Ok::<_, Error>(Response::new(handle.load().await?.has("seen"))) // the same session
    /// });
    /// assert!(service.call(Request::new(())).await?.into_body());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn load(&self) -> Result<Session, Error> {
        Slot::session(&self.slot, true).await
    }

    /// Works as [`load`](Self::load), but reading does not keep the session alive: its idle deadline stays where it is, and the
    /// response sets no cookie. For a page that polls while its user may be away (notifications, a countdown), or that
    /// fetches ahead.
    ///
    /// A change of a value is saved as usual, and renews. So does a call of [`load`](Self::load) in the same request.
    ///
    /// # Errors
    ///
    /// The same as [`load`](Self::load).
    ///
    /// # Examples
    ///
    /// ```
    /// use http::{Request, Response};
    /// use hyper::service::Service;
    /// use hyper_session::{AppKey, CookieStore, Error, SessionHandle, session_fn};
    /// use std::time::Duration;
    ///
    /// # #[cfg(feature = "testing")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Error> {
    /// use hyper_session::testing::{self, FakeClock};
    ///
    /// let clock = FakeClock::at(0);
    /// let store = CookieStore::builder(AppKey::generate()?).clock(clock.clone()).build()?;
    /// let service = session_fn(store.clone(), |request: Request<()>, handle: SessionHandle| async move {
    ///     let session = match request.uri().path() {
    ///         "/countdown" => handle.load_without_renewal().await?,
    ///         _ => handle.load().await?,
    ///     };
    ///     Ok::<_, Error>(Response::new(session.remaining().unwrap_or_default().as_secs()))
    /// });
    ///
    /// let request = |path| Request::builder().uri(path).body(()).unwrap();
    /// let polling = testing::with_session(request("/countdown"), &store, |session| session.login("ada")).await?;
    /// clock.advance(Duration::from_secs(20 * 3600)); // of 24 hours
    /// let response = service.call(polling).await?;
    /// assert_eq!(*response.body(), 4 * 3600);
    /// assert!(!response.headers().contains_key("set-cookie"));
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "testing"))]
    /// # fn main() {}
    /// ```
    #[doc(alias = "poll")]
    pub async fn load_without_renewal(&self) -> Result<Session, Error> {
        Slot::session(&self.slot, false).await
    }

    /// Returns a watch on the stored session, for a connection that outlives this request; `None` if nothing is stored. Loads
    /// the session, without keeping it alive.
    ///
    /// # Errors
    ///
    /// The same as [`load`](Self::load).
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(all(feature = "memory", feature = "testing"))]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), hyper_session::Error> {
    /// use http::{Request, Response};
    /// use hyper::service::Service;
    /// use hyper_session::{Error, MemoryStore, SessionHandle, session_fn, testing};
    ///
    /// let store = MemoryStore::builder().build()?;
    /// // What a handler does before it upgrades a connection; here the watch is the response's body.
    /// let service = session_fn(store.clone(), |_: Request<()>, session: SessionHandle| async move {
    ///     Ok::<_, Error>(Response::new(session.watch().await?))
    /// });
    /// assert!(service.call(Request::new(())).await?.into_body().is_none());
    ///
    /// let request = testing::with_session(Request::new(()), &store, |session| session.login("ada")).await?;
    /// let watch = service.call(request).await?.into_body().expect("a session");
    /// assert!(watch.is_alive().await?);
    /// store.end_sessions_of("ada", None).await?;
    /// assert!(!watch.is_alive().await?);
    /// # Ok(())
    /// # }
    /// # #[cfg(not(all(feature = "memory", feature = "testing")))]
    /// # fn main() {}
    /// ```
    #[doc(alias = "websocket")]
    #[doc(alias = "sse")]
    pub async fn watch(&self) -> Result<Option<SessionWatch>, Error> {
        let session = self.load_without_renewal().await?;
        let record = session.stored_record();
        Ok(record.map(|record| SessionWatch::new(&self.slot.connection, record)))
    }

    /// Returns the name of the session's cookie.
    pub fn cookie_name(&self) -> &str {
        self.slot.cookie_name()
    }

    /// Ends the handler's part and makes its session read-only. `is_spoken_for` returns true if the response already contains
    /// a statement about the cookie, so that a renewal is not due.
    pub(super) fn conclude(&self, is_spoken_for: impl FnOnce(&Slot) -> bool) -> Conclusion<'_> {
        self.slot.close();
        match self.slot.loaded().filter(|_| self.slot.was_asked()) {
            Some(loaded) => {
                // Read before the session is locked, because the clock may be code of the application.
                let now = self.slot.now_since(loaded.now);
                let spoken_for = is_spoken_for(&self.slot);
                match loaded
                    .session
                    .conclude(spoken_for, |record| self.slot.standing(record, now, spoken_for))
                {
                    Some(reply) => Conclusion::Asked(reply),
                    None => Conclusion::Unsettled(loaded, now),
                }
            }
            None if self.slot.was_asked() => Conclusion::Asked(Reply::Nothing),
            None => Conclusion::Untouched,
        }
    }

    /// Works as [`conclude`](Self::conclude), and nothing is committed from now on: changes that were not saved are forgotten.
    pub(super) fn discard(&self) {
        self.slot.close();
        if let Some(loaded) = self.slot.loaded() {
            loaded.session.close();
            loaded.session.discard_for_good();
        }
    }

    /// Returns true if this is the session of a request in progress, in the store of `connection`.
    pub(super) fn is_open_in(&self, connection: &Connection) -> bool {
        self.slot.connection.is_of_same_store(connection) && !self.slot.is_closed()
    }

    pub(super) fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }
}

impl fmt::Debug for SessionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionHandle").field("cookie", &self.cookie_name()).finish_non_exhaustive()
    }
}
