//! The stores that keep sessions between requests, and the contract that they implement.
//!
//! A [`Store`] has four verbs: load, save, destroy, regenerate. There are two kinds. [`CookieStore`] keeps the session
//! in the cookie itself. [`ServerStore`] keeps it in a [`Backend`], which only has to offer five primitives on opaque
//! bytes. `ServerStore` adds identity, deadlines, merging of concurrent changes and the order of writes. To keep
//! sessions elsewhere, implement [`Backend`].

mod backend;
mod builder;
mod cookie;
mod future;
pub(crate) mod join;
#[cfg(feature = "memory")]
mod memory;
mod migrating;
pub(crate) mod near_cache;
#[cfg(feature = "redis")]
pub mod redis;
mod server;
#[cfg(feature = "sqlite")]
pub mod sqlite;

use std::sync::Arc;

pub use self::backend::{Backend, Replaced, Stored};
pub use self::builder::{Builder, ServerKind};
pub use self::cookie::{CookieKeys, CookieStore};
pub use self::future::StoreFuture;
#[cfg(feature = "memory")]
pub use self::memory::{Memory, MemoryStore};
pub use self::migrating::MigratingStore;
#[doc(hidden)]
pub use self::near_cache::Ticket;
#[cfg(feature = "redis")]
pub use self::redis::RedisStore;
pub use self::server::{ServerStore, SessionLimit, SubjectSession};
#[cfg(feature = "sqlite")]
pub use self::sqlite::SqliteStore;
pub use crate::id::EntryId;

// The parts that a foreign format builds on.
#[cfg(feature = "astra")]
pub(crate) use self::{
    cookie::format::ForeignFormat,
    server::format::{EntryAge, EntryValue, SharedFormat, StoredFormat},
    server::session_list::SessionList,
};

use crate::clock::Timestamp;
use crate::config::Config;
pub use crate::crypto::{KeyId, SecretText};
use crate::error::Error;
use crate::event::Refusal;
pub use crate::session::Saved;
use crate::session::{Changes, Record, SessionId};

/// Loads and saves sessions. This crate's stores implement it. To keep sessions in your own storage, implement
/// [`Backend`].
///
/// The futures borrow nothing, so that a service can hold them. Those of [`CookieStore`] are ready at once and allocate
/// nothing.
///
/// # Examples
///
/// Looking at a token outside of a request, as a tool would:
///
/// ```
/// use hyper_session::store::Store;
/// use hyper_session::{AppKey, CookieStore, Refusal, SystemClock, Clock};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), hyper_session::Error> {
/// let store = CookieStore::builder(AppKey::generate()?).build()?;
/// let loaded = store.load(b"not a token", SystemClock.now()).await?;
/// assert_eq!(loaded.unwrap_err(), Refusal::Encoding);
/// # Ok(())
/// # }
/// ```
pub trait Store: sealed::Sealed + Send + Sync + 'static {
    /// Returns the options that the store was built with.
    fn config(&self) -> &Config;

    /// Loads the session of `token`, or returns why there is none. An unknown token is never adopted.
    fn load(&self, token: &[u8], now: Timestamp) -> LoadFuture;

    /// Returns the key that a refused token names, for the log. `None` if tokens name no key.
    #[doc(hidden)]
    fn __key_of(&self, _token: &[u8]) -> Option<KeyId> {
        None
    }

    /// Loads a session again that was loaded before, as it is now; or says why it is none any more. For a connection that
    /// outlives its request.
    fn reload(&self, base: Record, now: Timestamp) -> StoreFuture<Result<Record, Refusal>>;

    /// Applies `changes` to `base`, or to the newer state that another request left, and keeps the result. Without `base` a
    /// session is created. Without changes its deadline is renewed.
    fn save(&self, base: Option<Record>, changes: Arc<Changes>, now: Timestamp) -> StoreFuture<Saved>;

    /// Ends the session.
    fn destroy(&self, base: Record, now: Timestamp) -> StoreFuture<()>;

    /// Does the same as [`save`](Self::save), under a new id and token. The new entry is stored before the old one is
    /// deleted.
    fn regenerate(&self, base: Record, changes: Arc<Changes>, now: Timestamp) -> StoreFuture<Saved>;

    /// Keeps a session that another store loaded, with these changes, under a new id and token. Its beginning stays.
    fn adopt(&self, record: Record, changes: Arc<Changes>, now: Timestamp) -> StoreFuture<Saved>;

    /// Ends a session whose browser was given the token of another one. False if it had ended, or was given another token,
    /// already.
    fn supersede(&self, base: Record, now: Timestamp) -> StoreFuture<bool>;

    /// Lists the live sessions of a subject: [`ServerStore::sessions_of`].
    ///
    /// # Errors
    ///
    /// For this and the other two: [`is_config`](Error::is_config) if the store keeps no session lists, and those of the
    /// method of [`ServerStore`].
    fn sessions_of(&self, subject: &str) -> StoreFuture<Vec<SubjectSession>> {
        let _ = subject;
        StoreFuture::ready(Err(no_session_lists()))
    }

    /// Ends one session of a subject: [`ServerStore::end_session_of`].
    ///
    /// # Errors
    ///
    /// As [`sessions_of`](Self::sessions_of).
    fn end_session_of(&self, subject: &str, id: SessionId) -> StoreFuture<bool> {
        let _ = (subject, id);
        StoreFuture::ready(Err(no_session_lists()))
    }

    /// Ends the sessions of a subject, except one to keep: [`ServerStore::end_sessions_of`].
    ///
    /// # Errors
    ///
    /// As [`sessions_of`](Self::sessions_of).
    fn end_sessions_of(&self, subject: &str, keep: Option<SessionId>) -> StoreFuture<usize> {
        let _ = (subject, keep);
        StoreFuture::ready(Err(no_session_lists()))
    }

    /// Ends the session that `token` stood for until it was given another one moments ago ([`Refusal::Regenerated`]). Does
    /// nothing where the old token does not lead to the session any more.
    fn end_superseded(&self, token: &[u8], now: Timestamp) -> StoreFuture<()> {
        let _ = (token, now);
        StoreFuture::ready(Ok(()))
    }

    /// Returns false if `record`, which this store loaded earlier, may have ended since: it must then be loaded again.
    /// The service asks only stores that can end sessions whose tokens are still in use.
    fn is_still_valid(&self, record: &Record, now: Timestamp) -> bool {
        let _ = (record, now);
        true
    }

    /// Loads the session of a token that came under a retired cookie name: the `name`-th of the options.
    #[doc(hidden)]
    fn load_retired(
        &self,
        name: usize,
        token: &[u8],
        now: Timestamp,
    ) -> StoreFuture<Result<Record, Refusal>> {
        let _ = (name, token, now);
        StoreFuture::ready(Ok(Err(Refusal::Encoding)))
    }

    /// Returns a token that hides older tokens of these sessions, which the handler has ended, and for how long it is needed.
    /// `None` if the store itself knows which sessions have ended.
    #[doc(hidden)]
    fn tombstone(
        &self,
        ended: &[Record],
        now: Timestamp,
    ) -> Option<Result<(SecretText, std::time::Duration), Error>> {
        let _ = (ended, now);
        None
    }

    /// Returns which sessions a [tombstone](Self::tombstone) hides: all that were not written after this moment.
    #[doc(hidden)]
    fn hidden_by(&self, token: &[u8], now: Timestamp) -> Option<(Timestamp, u8)> {
        let _ = (token, now);
        None
    }
}

fn no_session_lists() -> Error {
    Error::config(
        "this store keeps no session lists: use a server-side store to list or end the sessions of a subject",
    )
}

impl<T: Store + ?Sized> Store for Arc<T> {
    fn config(&self) -> &Config {
        (**self).config()
    }

    fn load(&self, token: &[u8], now: Timestamp) -> LoadFuture {
        (**self).load(token, now)
    }

    fn __key_of(&self, token: &[u8]) -> Option<KeyId> {
        (**self).__key_of(token)
    }

    fn reload(&self, base: Record, now: Timestamp) -> StoreFuture<Result<Record, Refusal>> {
        (**self).reload(base, now)
    }

    fn save(&self, base: Option<Record>, changes: Arc<Changes>, now: Timestamp) -> StoreFuture<Saved> {
        (**self).save(base, changes, now)
    }

    fn destroy(&self, base: Record, now: Timestamp) -> StoreFuture<()> {
        (**self).destroy(base, now)
    }

    fn regenerate(&self, base: Record, changes: Arc<Changes>, now: Timestamp) -> StoreFuture<Saved> {
        (**self).regenerate(base, changes, now)
    }

    fn end_superseded(&self, token: &[u8], now: Timestamp) -> StoreFuture<()> {
        (**self).end_superseded(token, now)
    }

    fn is_still_valid(&self, record: &Record, now: Timestamp) -> bool {
        (**self).is_still_valid(record, now)
    }

    fn load_retired(
        &self,
        name: usize,
        token: &[u8],
        now: Timestamp,
    ) -> StoreFuture<Result<Record, Refusal>> {
        (**self).load_retired(name, token, now)
    }

    fn tombstone(
        &self,
        ended: &[Record],
        now: Timestamp,
    ) -> Option<Result<(SecretText, std::time::Duration), Error>> {
        (**self).tombstone(ended, now)
    }

    fn hidden_by(&self, token: &[u8], now: Timestamp) -> Option<(Timestamp, u8)> {
        (**self).hidden_by(token, now)
    }

    fn adopt(&self, record: Record, changes: Arc<Changes>, now: Timestamp) -> StoreFuture<Saved> {
        (**self).adopt(record, changes, now)
    }

    fn supersede(&self, base: Record, now: Timestamp) -> StoreFuture<bool> {
        (**self).supersede(base, now)
    }

    fn sessions_of(&self, subject: &str) -> StoreFuture<Vec<SubjectSession>> {
        (**self).sessions_of(subject)
    }

    fn end_session_of(&self, subject: &str, id: SessionId) -> StoreFuture<bool> {
        (**self).end_session_of(subject, id)
    }

    fn end_sessions_of(&self, subject: &str, keep: Option<SessionId>) -> StoreFuture<usize> {
        (**self).end_sessions_of(subject, keep)
    }
}

/// The future of [`Store::load`]: the session, or why the token stands for none.
pub type LoadFuture = StoreFuture<Result<Record, Refusal>>;

mod sealed {
    /// The verbs take and give types that only this crate can make sense of.
    #[allow(unnameable_types)] // that is how it is sealed
    pub trait Sealed {}

    impl Sealed for super::CookieStore {}
    impl Sealed for super::MigratingStore {}
    impl<B: super::Backend> Sealed for super::ServerStore<B> {}
    impl<T: super::Store + ?Sized> Sealed for std::sync::Arc<T> {}
}
