//! `SessionHandle`: the session of a request before it is loaded.

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, Uri};

use super::connection::Connection;
use super::slot::{Loaded, Slot};
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

/// The state of the session when the handler is done.
pub(super) enum Conclusion<'a> {
    /// The handler never asked for its session.
    Untouched,
    /// The handler asked for it, and there is nothing to commit.
    Asked(Reply),
    /// There is something to commit.
    Unsettled(&'a Loaded),
}

impl SessionHandle {
    pub(crate) fn begin(connection: &Arc<Connection>, uri: &Uri, headers: &HeaderMap) -> Self {
        Self { slot: Arc::new(Slot::new(connection, uri, headers)) }
    }

    /// Loads the session. Later calls, also on clones, return the same session.
    ///
    /// If the cookie is missing, not authentic, expired or unknown, the session is empty.
    ///
    /// # Errors
    ///
    /// [`is_unavailable`](Error::is_unavailable) if the store is unavailable. Never falls back to an empty session, because
    /// a write to it could overwrite the real one.
    pub async fn load(&self) -> Result<Session, Error> {
        Slot::session(&self.slot).await
    }

    /// Returns the name of the session's cookie.
    pub fn cookie_name(&self) -> &str {
        self.slot.cookie_name()
    }

    /// Ends the handler's part and makes its session read-only. `spoken_for` is true if the response already contains a
    /// statement about the cookie, so that a renewal is not due.
    pub(super) fn conclude(&self, spoken_for: bool) -> Conclusion<'_> {
        self.slot.close();
        match self.slot.loaded() {
            Some(loaded) => {
                // Read before the session is locked, because the clock may be code of the application.
                let now = self.slot.now_since(loaded.now);
                match loaded.session.conclude(|record| self.slot.standing(record, now, spoken_for)) {
                    Some(reply) => Conclusion::Asked(reply),
                    None => Conclusion::Unsettled(loaded),
                }
            }
            None if self.slot.was_asked() => Conclusion::Asked(Reply::Nothing),
            None => Conclusion::Untouched,
        }
    }

    /// Ends the handler's part as [`conclude`](Self::conclude) does, and drops all changes that were not saved.
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
