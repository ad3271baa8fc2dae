//! `Verbs`: the operations that the services call on a store.

use std::sync::Arc;
use std::time::Duration;

use super::StoreFuture;
use crate::clock::Timestamp;
use crate::config::Config;
use crate::crypto::{KeyId, SecretText};
use crate::error::Error;
use crate::event::Refusal;
use crate::session::{Changes, Recency, Record, Saved};

/// The action of a user that ends the session of a superseded token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedBy {
    /// A logout: the session ends whatever token it has by now.
    Logout,
    /// A login, which begins another session. A store may keep a session whose new token is on its way to the browser.
    Login,
}

/// The verbs of a [`Store`](super::Store). They take and return types that are not a part of the public API.
///
/// The futures borrow nothing, so that a service can hold them. Those of [`CookieStore`](crate::CookieStore) are ready at once
/// and allocate nothing.
#[doc(hidden)] // also the implementations, on the pages of the stores
pub trait Verbs: sealed::Sealed + Send + Sync + 'static {
    /// Returns the options that the store was built with.
    fn config(&self) -> &Config;

    /// Loads the session of `token`, or returns why there is none. An unknown token is never adopted.
    fn load(&self, token: &[u8], now: Timestamp) -> LoadFuture;

    /// Returns the key that a refused token names, for the log. `None` if tokens name no key.
    fn key_of(&self, _token: &[u8]) -> Option<KeyId> {
        None
    }

    /// Loads the present state of a session that was loaded before, or returns the reason that it has ended. For a connection
    /// that outlives its request.
    fn reload(&self, base: Record, now: Timestamp) -> LoadFuture;

    /// Loads the present state of a session that a cache of this process may have answered for. `None` if no cache did.
    fn load_past_cache(&self, base: &Record, now: Timestamp) -> Option<LoadFuture> {
        let _ = (base, now);
        None
    }

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

    /// Ends the sessions that a subject has beyond the session limit, once a login that was [adopted](Self::adopt) has left its former
    /// place.
    fn end_surplus(&self, login: Record, now: Timestamp) -> StoreFuture<()> {
        let _ = (login, now);
        StoreFuture::ready(Ok(()))
    }

    /// Returns true if the client holds the only copy of the session: an ending that no response tells it does not happen.
    fn is_only_copy(&self, record: &Record) -> bool {
        let _ = record;
        false
    }

    /// Returns true if saving ends the other sessions of a subject, where the changes [ask for
    /// it](Changes::ends_others), in the same step. Otherwise they are ended by the session list.
    fn ends_others_on_save(&self) -> bool {
        false
    }

    /// Ends a session whose browser was given the token of a different session. Returns false if it had already ended, or had
    /// already been given a new token.
    fn supersede(&self, base: Record, now: Timestamp) -> StoreFuture<bool>;

    /// Ends the session of a token that was superseded moments ago ([`Refusal::Regenerated`]). Does nothing if the old token no
    /// longer leads to the session, or if that is the session `unless`.
    fn end_superseded(
        &self,
        token: &[u8],
        unless: Option<&Record>,
        by: EndedBy,
        now: Timestamp,
    ) -> StoreFuture<()>;

    /// Returns true if `record` was certainly written before the session that continues from the `superseded` token of the same
    /// request ([`Refusal::Regenerated`]).
    fn is_outdated(&self, record: &Record, superseded: &[u8], now: Timestamp) -> bool {
        let _ = (record, superseded, now);
        false
    }

    /// Ends the session that `token` stands for, although it has expired, or this host cannot judge it: a slower request that loaded
    /// it in time, or another host, must not keep it. Does nothing if it continues as the session `unless`.
    fn end_unusable(&self, token: &[u8], unless: Option<&Record>, now: Timestamp) -> StoreFuture<()> {
        let _ = (token, unless, now);
        StoreFuture::ready(Ok(()))
    }

    /// Returns false if `record`, which this store loaded earlier, may have ended since: it must then be loaded again.
    /// The service asks only stores that can end sessions whose tokens are still in use.
    fn is_still_valid(&self, record: &Record, now: Timestamp) -> bool {
        let _ = (record, now);
        true
    }

    /// Loads the session of a token that came under a retired cookie name: the `name`-th of the options.
    fn load_retired(&self, name: usize, token: &[u8], now: Timestamp) -> LoadFuture {
        let _ = (name, token, now);
        StoreFuture::ready(Ok(Err(Refusal::Encoding)))
    }

    /// Returns a token that hides older tokens of these sessions, which the handler has ended, and for how long it is needed.
    /// `None` if the store itself knows which sessions have ended.
    fn tombstone(&self, ended: &[Record], now: Timestamp) -> Option<Result<(SecretText, Duration), Error>> {
        let _ = (ended, now);
        None
    }

    /// Returns when a token was written, if it is a [tombstone](Self::tombstone), or was sealed by a host whose clock is ahead.
    /// Sessions that were not written after that do not count.
    fn hidden_by(&self, token: &[u8], now: Timestamp) -> Option<Recency> {
        let _ = (token, now);
        None
    }
}

/// The future of [`Verbs::load`]: the session, or the reason that there is none.
pub type LoadFuture = StoreFuture<Result<Record, Refusal>>;

impl<T: Verbs + ?Sized> Verbs for Arc<T> {
    fn config(&self) -> &Config {
        (**self).config()
    }

    fn load(&self, token: &[u8], now: Timestamp) -> LoadFuture {
        (**self).load(token, now)
    }

    fn key_of(&self, token: &[u8]) -> Option<KeyId> {
        (**self).key_of(token)
    }

    fn reload(&self, base: Record, now: Timestamp) -> LoadFuture {
        (**self).reload(base, now)
    }

    fn load_past_cache(&self, base: &Record, now: Timestamp) -> Option<LoadFuture> {
        (**self).load_past_cache(base, now)
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

    fn end_surplus(&self, login: Record, now: Timestamp) -> StoreFuture<()> {
        (**self).end_surplus(login, now)
    }

    fn is_only_copy(&self, record: &Record) -> bool {
        (**self).is_only_copy(record)
    }

    fn ends_others_on_save(&self) -> bool {
        (**self).ends_others_on_save()
    }

    fn end_superseded(
        &self,
        token: &[u8],
        unless: Option<&Record>,
        by: EndedBy,
        now: Timestamp,
    ) -> StoreFuture<()> {
        (**self).end_superseded(token, unless, by, now)
    }

    fn is_outdated(&self, record: &Record, superseded: &[u8], now: Timestamp) -> bool {
        (**self).is_outdated(record, superseded, now)
    }

    fn end_unusable(&self, token: &[u8], unless: Option<&Record>, now: Timestamp) -> StoreFuture<()> {
        (**self).end_unusable(token, unless, now)
    }

    fn is_still_valid(&self, record: &Record, now: Timestamp) -> bool {
        (**self).is_still_valid(record, now)
    }

    fn load_retired(&self, name: usize, token: &[u8], now: Timestamp) -> LoadFuture {
        (**self).load_retired(name, token, now)
    }

    fn tombstone(&self, ended: &[Record], now: Timestamp) -> Option<Result<(SecretText, Duration), Error>> {
        (**self).tombstone(ended, now)
    }

    fn hidden_by(&self, token: &[u8], now: Timestamp) -> Option<Recency> {
        (**self).hidden_by(token, now)
    }

    fn adopt(&self, record: Record, changes: Arc<Changes>, now: Timestamp) -> StoreFuture<Saved> {
        (**self).adopt(record, changes, now)
    }

    fn supersede(&self, base: Record, now: Timestamp) -> StoreFuture<bool> {
        (**self).supersede(base, now)
    }
}

pub(super) use self::sealed::Sealed;

mod sealed {
    #[allow(unnameable_types)] // that is how the stores are sealed
    pub trait Sealed {}

    impl<T: super::Verbs + ?Sized> Sealed for std::sync::Arc<T> {}
}
