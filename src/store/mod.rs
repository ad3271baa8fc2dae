//! Where sessions live between requests: the contract, and the stores that keep it.
//!
//! A [`Store`] has four verbs: load, save, destroy, regenerate. There are two kinds. [`CookieStore`] keeps the session in
//! the cookie itself. [`ServerStore`] keeps it in a [`Backend`], which only has to offer five primitives on opaque bytes;
//! identity, deadlines, merging of concurrent changes and the order of writes are done once, above them. To keep sessions
//! somewhere else, implement [`Backend`].

mod backend;
mod builder;
mod cookie;
mod future;
#[cfg(feature = "memory")]
mod memory;
mod migrating;
#[cfg(feature = "redis")]
pub mod redis;
mod server;

use std::sync::Arc;

pub use self::backend::{Backend, Replaced, Stored};
pub use self::builder::{Builder, ServerKind};
pub use self::cookie::{CookieKeys, CookieStore};
pub use self::future::StoreFuture;
#[cfg(feature = "memory")]
pub use self::memory::{Memory, MemoryStore};
pub use self::migrating::MigratingStore;
#[cfg(feature = "redis")]
pub use self::redis::RedisStore;
pub use self::server::{ServerStore, SessionLimit, SubjectSession};
pub use crate::id::EntryId;

// What a room for a foreign format builds on.
#[cfg(feature = "astra")]
pub(crate) use self::{
    cookie::format::ForeignFormat,
    server::format::{EntryValue, SharedFormat, StoredFormat},
    server::session_list::SessionList,
};

use crate::clock::Timestamp;
use crate::config::Config;
pub use crate::crypto::SecretText;
use crate::error::Error;
use crate::event::Refusal;
use crate::session::{Changes, Record, SessionId};

/// Loads and keeps sessions. Implemented by this crate's stores; for storage of your own see [`Backend`].
///
/// The futures borrow nothing, so that a service can hold them in a future of its own; those of [`CookieStore`] are ready
/// at once and cost no allocation.
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
    /// The options that the store was built with.
    fn config(&self) -> &Config;

    /// The session that `token` stands for, or why it stands for none. A token that is not known is never adopted.
    fn load(&self, token: &[u8], now: Timestamp) -> StoreFuture<Result<Record, Refusal>>;

    /// Loads a session again that was loaded before, as it is now; or says why it is none any more. For a connection that
    /// outlives its request.
    fn reload(&self, base: Record, now: Timestamp) -> StoreFuture<Result<Record, Refusal>>;

    /// Applies `changes` to `base`, or to the newer state that another request left, and keeps the result. Without `base` a
    /// session is created. Without changes its deadline is renewed.
    fn save(&self, base: Option<Record>, changes: Arc<Changes>, now: Timestamp) -> StoreFuture<Saved>;

    /// Ends the session.
    fn destroy(&self, base: Record, now: Timestamp) -> StoreFuture<()>;

    /// As [`save`](Self::save), under a new id and token. The new ones are stored before the old ones are removed.
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
}

fn no_session_lists() -> Error {
    Error::config(
        "this store keeps no session lists: use a server-side store to list or end the sessions of a subject",
    )
}

/// How saving ended.
#[derive(Debug)]
#[non_exhaustive]
#[allow(clippy::large_enum_variant)] // moved once, and a box would cost more than the move
pub enum Saved {
    /// The session is stored.
    #[non_exhaustive]
    Stored {
        /// As it is stored now.
        record: Record,
        /// What the client shall hold: a secret.
        token: SecretText,
        /// How often another request had been first.
        conflicts: u32,
    },
    /// After the changes nothing was left, so the session was ended.
    Removed,
    /// The session was ended by another request meanwhile. Nothing was written: a slow request does not bring it back.
    Ended,
}

impl<T: Store + ?Sized> Store for Arc<T> {
    fn config(&self) -> &Config {
        (**self).config()
    }

    fn load(&self, token: &[u8], now: Timestamp) -> StoreFuture<Result<Record, Refusal>> {
        (**self).load(token, now)
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

mod sealed {
    /// The verbs take and give types that only this crate can make sense of.
    #[allow(unnameable_types)] // that is how it is sealed
    pub trait Sealed {}

    impl Sealed for super::CookieStore {}
    impl Sealed for super::MigratingStore {}
    impl<B: super::Backend> Sealed for super::ServerStore<B> {}
    impl<T: super::Store + ?Sized> Sealed for std::sync::Arc<T> {}
}
