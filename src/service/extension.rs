//! `SessionExt`: gets the session from the extensions of a request.

use std::future::Future;
use std::sync::Arc;

use http::{Extensions, Request, request};
use smallvec::SmallVec;

use super::connection::Connection;
use super::handle::SessionHandle;
use crate::error::{Error, Kind};
use crate::event::{Event, EventKind, publish_without_store};
use crate::session::Session;

/// The sessions of a request, outermost first. Almost every service has one. The second place does not increase the size.
#[derive(Clone, Debug)]
struct Handles(SmallVec<[SessionHandle; 2]>);

/// Returns the session of `request` in the store of `connection`. The second value is true if the caller has to commit it,
/// and false if a session service around the caller has the same session.
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

/// Access to the session of a request that came through a [`SessionService`](super::SessionService).
///
/// Implemented for [`Request`], for [`Parts`](request::Parts) if the body was taken already, and for [`Extensions`],
/// because some frameworks (tonic) show only these. The futures borrow nothing.
///
/// Write helpers for any body, not for hyper's `Incoming`, which only a connection can make. Then [tests can call
/// them](crate::guide::testing#handlers-for-any-body).
///
/// # Examples
///
/// ```
/// use hyper::Request;
/// use hyper_session::{Error, SessionExt};
///
/// async fn user<B>(request: &Request<B>) -> Result<Option<String>, Error> {
///     request.session().await?.get("user")
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// // This request came through no session service:
/// assert!(user(&Request::new(())).await.unwrap_err().is_not_wrapped());
/// # }
/// ```
pub trait SessionExt: sealed::Sealed {
    /// Returns the session, loaded by the first call. If several session services wrap the handler, it is the session of
    /// the innermost one.
    ///
    /// # Errors
    ///
    /// [`is_unavailable`](Error::is_unavailable) if the store is unavailable, [`is_not_wrapped`](Error::is_not_wrapped) if
    /// no session service wraps this handler.
    #[doc(alias = "get_session")]
    fn session(&self) -> impl Future<Output = Result<Session, Error>> + Send + 'static {
        load(find(self.session_extensions(), |_| true), String::new())
    }

    /// Returns the session as [`session`](Self::session) does, but reading does not keep it alive: see
    /// [`SessionHandle::load_without_renewal`].
    ///
    /// # Errors
    ///
    /// The same as [`session`](Self::session).
    fn session_without_renewal(&self) -> impl Future<Output = Result<Session, Error>> + Send + 'static {
        let handle = find(self.session_extensions(), |_| true);
        async move {
            match handle {
                Some(handle) => handle.load_without_renewal().await,
                None => Err(not_wrapped("")),
            }
        }
    }

    /// Returns the session whose cookie has this name.
    ///
    /// # Errors
    ///
    /// The same as [`session`](Self::session).
    fn session_named(&self, cookie: &str) -> impl Future<Output = Result<Session, Error>> + Send + 'static {
        load(find(self.session_extensions(), |handle| handle.cookie_name() == cookie), cookie.to_owned())
    }

    /// Returns the handle of the session, which is not loaded yet, for code that does not get the request. Returns `None`
    /// if no [`SessionService`](super::SessionService) wraps this handler.
    fn session_handle(&self) -> Option<SessionHandle> {
        find(self.session_extensions(), |_| true)
    }
}

impl<B> SessionExt for Request<B> {}

impl SessionExt for request::Parts {}

impl SessionExt for Extensions {}

mod sealed {
    use super::{Extensions, Request, request};

    #[allow(unnameable_types)] // that is how it is sealed
    pub trait Sealed {
        /// Returns the extensions in which session services leave their handles.
        fn session_extensions(&self) -> &Extensions;
    }

    impl<B> Sealed for Request<B> {
        fn session_extensions(&self) -> &Extensions {
            self.extensions()
        }
    }

    impl Sealed for request::Parts {
        fn session_extensions(&self) -> &Extensions {
            &self.extensions
        }
    }

    impl Sealed for Extensions {
        fn session_extensions(&self) -> &Extensions {
            self
        }
    }
}

/// Returns the handles of the session services around the caller, innermost first.
pub(super) fn innermost_first(extensions: &Extensions) -> impl Iterator<Item = &SessionHandle> {
    let handles: &[_] = extensions.get::<Handles>().map_or(&[], |Handles(handles)| handles);
    handles.iter().rev()
}

fn find(extensions: &Extensions, wanted: impl Fn(&SessionHandle) -> bool) -> Option<SessionHandle> {
    innermost_first(extensions).find(|handle| wanted(handle)).cloned()
}

async fn load(handle: Option<SessionHandle>, cookie: String) -> Result<Session, Error> {
    match handle {
        Some(handle) => handle.load().await,
        None => Err(not_wrapped(&cookie)),
    }
}

/// Returns the error for a handler that no session service wraps. It is logged, too, because frameworks turn errors into
/// empty responses.
pub(crate) fn not_wrapped(cookie: &str) -> Error {
    publish_without_store(&Event { cookie, kind: EventKind::NotWrapped });
    Error::new(Kind::NotWrapped)
}
