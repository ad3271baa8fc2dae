//! How a handler reaches its session: through the extensions of the request.

use std::future::Future;
use std::sync::Arc;

use http::{Extensions, Request, request};
use smallvec::SmallVec;

use super::connection::Connection;
use super::handle::SessionHandle;
use crate::error::{Error, Kind};
use crate::event::{Event, publish_without_store};
use crate::session::Session;

/// The sessions of a request, outermost first. One in almost every service: the second place is for free.
#[derive(Clone, Debug)]
struct Handles(SmallVec<[SessionHandle; 2]>);

/// The session of `request` in the store of `connection`. The second value is true if the caller has to commit it, false if a
/// session service around the caller has the same session.
pub(super) fn begin<B>(connection: &Arc<Connection>, request: &Request<B>) -> (SessionHandle, bool) {
    match find(request.extensions(), |handle| handle.is_open_in(connection)) {
        Some(handle) => (handle, false),
        None => (SessionHandle::begin(connection, request.uri(), request.headers()), true),
    }
}

pub(super) fn insert(extensions: &mut Extensions, handle: SessionHandle) {
    match extensions.get_mut::<Handles>() {
        Some(Handles(handles)) => handles.push(handle),
        None => drop(extensions.insert(Handles(SmallVec::from_iter([handle])))),
    }
}

/// The session of a request that came through a [`SessionService`](super::SessionService).
///
/// Implemented for [`Request`], for [`Parts`](request::Parts) where the body was taken already, and for [`Extensions`], which
/// is all that some frameworks (tonic) show of a request. The futures borrow nothing.
///
/// # Examples
///
/// ```
/// use hyper::{Request, body::Incoming};
/// use hyper_session::{Error, SessionExt};
///
/// async fn user(request: &Request<Incoming>) -> Result<Option<String>, Error> {
///     request.session().await?.get("user")
/// }
/// ```
pub trait SessionExt {
    /// The session, decoded at this call; at a later one it is there already. With several session services, the
    /// innermost one's.
    ///
    /// # Errors
    ///
    /// [`is_unavailable`](Error::is_unavailable) if the store cannot tell, [`is_not_wrapped`](Error::is_not_wrapped) if no
    /// session service wraps this handler.
    fn session(&self) -> impl Future<Output = Result<Session, Error>> + Send + 'static {
        load(find(self.session_extensions(), |_| true), String::new())
    }

    /// As [`session`](Self::session), but reading does not keep the session alive: see
    /// [`SessionHandle::load_without_renewal`].
    ///
    /// # Errors
    ///
    /// As [`session`](Self::session).
    fn session_without_renewal(&self) -> impl Future<Output = Result<Session, Error>> + Send + 'static {
        let handle = find(self.session_extensions(), |_| true);
        async move {
            match handle {
                Some(handle) => handle.load_without_renewal().await,
                None => Err(Error::new(Kind::NotWrapped)),
            }
        }
    }

    /// The session whose cookie has this name.
    ///
    /// # Errors
    ///
    /// As [`session`](Self::session).
    fn session_named(&self, cookie: &str) -> impl Future<Output = Result<Session, Error>> + Send + 'static {
        load(find(self.session_extensions(), |handle| handle.cookie_name() == cookie), cookie.to_owned())
    }

    /// The handle of the session, not yet loaded: to hand on to code that does not see the request. `None` if no
    /// [`SessionService`](super::SessionService) wraps this handler.
    fn session_handle(&self) -> Option<SessionHandle> {
        find(self.session_extensions(), |_| true)
    }

    /// Where the session services leave their handles.
    #[doc(hidden)]
    fn session_extensions(&self) -> &Extensions;
}

impl<B> SessionExt for Request<B> {
    fn session_extensions(&self) -> &Extensions {
        self.extensions()
    }
}

impl SessionExt for request::Parts {
    fn session_extensions(&self) -> &Extensions {
        &self.extensions
    }
}

impl SessionExt for Extensions {
    fn session_extensions(&self) -> &Extensions {
        self
    }
}

fn find(extensions: &Extensions, wanted: impl Fn(&SessionHandle) -> bool) -> Option<SessionHandle> {
    let Handles(handles) = extensions.get::<Handles>()?;
    handles.iter().rev().find(|handle| wanted(handle)).cloned()
}

async fn load(handle: Option<SessionHandle>, cookie: String) -> Result<Session, Error> {
    match handle {
        Some(handle) => handle.load().await,
        None => Err(not_wrapped(&cookie)),
    }
}

/// The error where no session service wraps a handler. The log says it, too: frameworks turn errors into empty responses.
pub(crate) fn not_wrapped(cookie: &str) -> Error {
    publish_without_store(&Event::NotWrapped { cookie });
    Error::new(Kind::NotWrapped)
}
