//! The stores that keep sessions between requests, and the contract that they implement.
//!
//! There are two kinds of [`Store`]. [`CookieStore`] keeps the session in the cookie itself. [`ServerStore`] keeps it in a
//! [`Backend`], which only has to offer five primitives on opaque bytes. `ServerStore` adds identity, deadlines, merging of
//! concurrent changes and the order of writes. To keep sessions elsewhere, implement [`Backend`].
//!
//! [`CookieStore`]: crate::CookieStore
//! [`ServerStore`]: crate::ServerStore

mod backend;
mod builder;
pub(crate) mod cookie;
pub(crate) mod future;
#[cfg(feature = "memory")]
pub(crate) mod memory;
mod migrating;
pub(crate) mod near_cache;
#[cfg(feature = "redis")]
pub mod redis;
pub(crate) mod server;
mod server_builder;
mod server_options;
#[cfg(feature = "sqlite")]
pub mod sqlite;
mod take_over;
pub(crate) mod verbs;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

pub use self::backend::{Backend, Replaced, Stored};
pub use self::builder::Builder;
pub use self::cookie::CookieKeys;
#[cfg(feature = "memory")]
pub use self::memory::Memory;
pub use self::migrating::MigratingStore;
#[doc(hidden)]
pub use self::near_cache::Ticket;
pub use self::server::{SessionLimit, SubjectSession};
pub use self::server_builder::ServerKind;
pub use crate::id::EntryId;

// Public only for the tests and benchmarks of this project.
pub(crate) use self::future::StoreFuture;
pub(crate) use self::verbs::{EndedBy, LoadFuture, Verbs};

// The parts that a foreign format builds on.
#[cfg(feature = "astra")]
pub(crate) use self::{
    cookie::format::ForeignFormat,
    server::format::{EntryAge, EntryValue, SharedFormat, StoredFormat},
    server::session_list::SessionList,
};

use crate::error::Error;
use crate::session::SessionId;

/// A store of sessions: a [`CookieStore`](crate::CookieStore), a [`ServerStore`](crate::ServerStore) or a
/// [`MigratingStore`].
///
/// A service takes any store, also as `Arc<dyn Store>`. The trait is sealed: to keep sessions in your own storage, implement
/// [`Backend`].
///
/// # Examples
///
/// A store that is chosen when the program starts:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), hyper_session::Error> {
/// # #[cfg(feature = "memory")] {
/// use hyper_session::store::Store;
/// use hyper_session::{AppKey, CookieStore, Error, MemoryStore};
/// use std::sync::Arc;
///
/// fn store(key: Option<AppKey>) -> Result<Arc<dyn Store>, Error> {
///     Ok(match key {
///         Some(key) => Arc::new(CookieStore::builder(key).build()?),
///         None => Arc::new(MemoryStore::builder().build()?),
///     })
/// }
///
/// let in_cookies = store(Some(AppKey::generate()?))?;
/// assert!(in_cookies.sessions_of("ada").await.unwrap_err().is_config()); // only the browsers have them
/// let in_memory = store(None)?;
/// assert!(in_memory.sessions_of("ada").await?.is_empty());
/// # }
/// # Ok(())
/// # }
/// ```
pub trait Store: Verbs {
    /// Lists the live sessions of a subject: [`ServerStore::sessions_of`](crate::ServerStore::sessions_of).
    ///
    /// # Errors
    ///
    /// For this and the other two: [`is_config`](Error::is_config) if the store keeps no session lists, and those of the
    /// method of [`ServerStore`](crate::ServerStore).
    fn sessions_of(
        &self,
        subject: &str,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<SubjectSession>, Error>> + Send>> {
        let _ = subject;
        Box::pin(std::future::ready(Err(no_session_lists())))
    }

    /// Ends one session of a subject: [`ServerStore::end_session_of`](crate::ServerStore::end_session_of).
    ///
    /// # Errors
    ///
    /// The same as [`sessions_of`](Self::sessions_of).
    fn end_session_of(
        &self,
        subject: &str,
        id: SessionId,
    ) -> Pin<Box<dyn Future<Output = Result<bool, Error>> + Send>> {
        let _ = (subject, id);
        Box::pin(std::future::ready(Err(no_session_lists())))
    }

    /// Ends the sessions of a subject, except one to keep, as
    /// [`ServerStore::end_sessions_of`](crate::ServerStore::end_sessions_of) does. Returns how many, or `None` if the store
    /// cannot count them.
    ///
    /// A [`CookieStore`](crate::CookieStore) with [revocations](Builder::revocations) can end all sessions of a subject, and
    /// cannot keep one by its id. [`Session::end_other_sessions`](crate::Session::end_other_sessions) ends all others on each
    /// of these stores. The stores also have methods of this name, with their own signatures, which are called where the type
    /// of the store is known.
    ///
    /// # Errors
    ///
    /// The same as [`sessions_of`](Self::sessions_of). [`is_config`](Error::is_config) also for a `CookieStore` that is to keep
    /// one.
    fn end_sessions_of(
        &self,
        subject: &str,
        keep: Option<SessionId>,
    ) -> Pin<Box<dyn Future<Output = Result<Option<usize>, Error>> + Send>> {
        let _ = (subject, keep);
        Box::pin(std::future::ready(Err(no_session_lists())))
    }
}

fn no_session_lists() -> Error {
    Error::config(
        "this store keeps no session lists: use a server-side store to list the sessions of a subject, or to end one of them",
    )
}

/// The future of a step on the sessions of one subject.
type SubjectFuture<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

impl<T: Store + ?Sized> Store for Arc<T> {
    fn sessions_of(&self, subject: &str) -> SubjectFuture<Vec<SubjectSession>> {
        (**self).sessions_of(subject)
    }

    fn end_session_of(&self, subject: &str, id: SessionId) -> SubjectFuture<bool> {
        (**self).end_session_of(subject, id)
    }

    fn end_sessions_of(&self, subject: &str, keep: Option<SessionId>) -> SubjectFuture<Option<usize>> {
        (**self).end_sessions_of(subject, keep)
    }
}
