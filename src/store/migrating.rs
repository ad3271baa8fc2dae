//! `MigratingStore`: moves sessions from one store to another, without logging anyone out.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::take_over::{begins_another, take_over};
use super::verbs::Sealed;
use super::{EndedBy, LoadFuture, Store, StoreFuture, SubjectFuture, SubjectSession, Verbs};
use crate::clock::Timestamp;
use crate::config::Config;
use crate::cookie::CookieName;
use crate::crypto::{KeyId, SecretText};
use crate::error::{Error, Kind};
use crate::event::{EventKind, MigrationSource, Refusal};
use crate::session::{Changes, Place, Recency, Record, Saved, SessionId};

/// A store that takes over the sessions of an old store, until a date: from cookies to a server, from a server to cookies, or
/// from one server to another.
///
/// A token is looked up in the new store first, then in the old one. A session of the old store is read there, and moved when
/// it is saved or renewed: it gets a new id and a new token of the new store, keeps its values, its beginning and its
/// lifetime, and ends in the old store. [`EventKind::Migrating`] reports each load from the old store.
///
/// From the date on, the old store is no longer asked. No user is logged out if the date lies a
/// [longest lifetime](super::Builder::longest_lifetime) ahead, by default the absolute timeout.
///
/// # Limits
///
/// - The new store's cookie has the name of the old one's, or [retires](crate::cookie::CookieOptions::retired_name) it. A name
///   that the old store retires is read if the new store retires it, too. The new store's options apply to what it writes.
/// - A request that carries the old token while a second request moves the session sees an empty session, as after a
///   [`regenerate`](crate::Session::regenerate), and the cookie stays.
/// - An old [`CookieStore`](crate::CookieStore) cannot end its cookies: a copy works until its deadline or the date. Two requests
///   that move one cookie at once make two sessions, and the browser keeps the one whose response arrives last.
/// - [`end_sessions_of`](Store::end_sessions_of) and [`Session::end_other_sessions`](crate::Session::end_other_sessions) do not
///   reach sessions that are still in an old `CookieStore` without revocations. One with revocations can only end all:
///   `end_sessions_of` ends none and [fails](Error::is_config) if the session to keep has not moved yet. `end_other_sessions`
///   moves it first.
/// - If the reply to the end of a session in an old server-side store is lost, the request that moves the session fails, and the
///   session may be in neither store.
/// - While the log of revocations of an old `CookieStore` cannot be read, a save that moves a session fails. The session stays,
///   unless the log failed after it was written to.
/// - If a store fails during `end_other_sessions`, the call fails, and some of the other sessions may have ended. This session
///   stays, unless the log of revocations of a `CookieStore` failed after it was written to. The call can be repeated.
/// - Between two cookie stores with revocations, `end_other_sessions` in the request that moves its session misses a second
///   session of the subject that moves at the same time.
/// - Both stores must not share a backend: to switch on sealing, use
///   [`accept_unsealed_until`](super::Builder::accept_unsealed_until). Two cookie stores must not share a key: the new one would
///   open the tokens of the old one itself, without its revocations.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "memory")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), hyper_session::Error> {
/// use http::{Request, Response};
/// use hyper::service::Service;
/// use hyper_session::store::MigratingStore;
/// use hyper_session::{AppKey, CookieStore, Error, MemoryStore, SessionHandle, Timestamp, session_fn, testing};
///
/// let cookies = CookieStore::builder(AppKey::generate()?).build()?;
/// let server = MemoryStore::builder().build()?;
/// let until = Timestamp::from_unix(4_000_000_000);
/// let store = MigratingStore::new(server.clone(), cookies.clone(), until)?;
///
/// let service = session_fn(store, |_: Request<()>, session: SessionHandle| async move {
///     let session = session.load().await?;
///     session.set("seen", true)?;
///     Ok::<_, Error>(Response::new(session.subject()))
/// });
/// let request = testing::with_session(Request::new(()), &cookies, |session| session.login("ada")).await?;
/// let response = service.call(request).await?;
/// assert_eq!(response.body().as_deref(), Some("ada"));
/// assert!(testing::session_in(&response, &server).await?.unwrap().has("seen"), "moved");
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "memory"))]
/// # fn main() {}
/// ```
#[derive(Clone)]
pub struct MigratingStore {
    inner: Arc<Inner>,
}

struct Inner {
    new: Arc<dyn Store>,
    old: Arc<dyn Store>,
    until: Timestamp,
}

impl MigratingStore {
    /// Creates a store that keeps sessions in `new`, and takes over those of `old` until a date.
    ///
    /// # Errors
    ///
    /// [`is_config`](Error::is_config) if the new store's cookie neither has the old one's name nor
    /// [retires](crate::cookie::CookieOptions::retired_name) it.
    pub fn new(new: impl Store, old: impl Store, until: Timestamp) -> Result<Self, Error> {
        let (present, former) = (&new.config().cookie, old.config().cookie_name());
        let retires = present.retired_cookies().iter().any(|retired| retired.name().as_str() == former);
        if present.name().as_str() != former && !retires {
            return Err(Error::config(
                "the new store of a migration must have the old store's cookie name, or name it with retired_name(): change cookie()",
            ));
        }
        Ok(Self { inner: Arc::new(Inner { new: Arc::new(new), old: Arc::new(old), until }) })
    }
}

impl Inner {
    fn load(self: &Arc<Self>, token: &[u8], now: Timestamp) -> LoadFuture {
        let (in_new, token) = (self.new.load(token, now), token.to_vec());
        self.or_in_old(in_new, now, move |inner| {
            let is_same = inner.old.config().cookie_name() == inner.new.config().cookie_name();
            is_same.then(|| inner.old.load(&token, now))
        })
    }

    /// Loads the session of a token that came under the `name`-th retired name of the new store's options. In the old store
    /// that may be the present name, or a retired one with another index.
    fn load_retired(self: &Arc<Self>, name: usize, token: &[u8], now: Timestamp) -> LoadFuture {
        let (in_new, token) = (self.new.load_retired(name, token, now), token.to_vec());
        self.or_in_old(in_new, now, move |inner| {
            let (new, old) = (&inner.new.config().cookie, &inner.old.config().cookie);
            let retired = new.retired_cookies().get(name)?;
            let is_same = |other: &CookieName| other.as_str() == retired.name().as_str();
            if is_same(old.name()) {
                return Some(inner.old.load(&token, now));
            }
            let name = old.retired_cookies().iter().position(|retired| is_same(retired.name()))?;
            Some(inner.old.load_retired(name, &token, now))
        })
    }

    /// Looks in the old store for a token that the new one refuses. `in_old` returns `None` if it is not to be asked.
    ///
    /// If both stores answer at once, so does this: a token that both refuse by its form has cost no wait.
    fn or_in_old(
        self: &Arc<Self>,
        in_new: LoadFuture,
        now: Timestamp,
        in_old: impl FnOnce(&Self) -> Option<LoadFuture> + Send + 'static,
    ) -> LoadFuture {
        match in_new.into_immediate() {
            Ok(in_new) => self.after_new(in_new, now, in_old),
            Err(waiting) => {
                let inner = Arc::clone(self);
                StoreFuture::boxed(async move {
                    let in_new = waiting.await;
                    inner.after_new(in_new, now, in_old).await
                })
            }
        }
    }

    fn after_new(
        self: &Arc<Self>,
        in_new: Result<Result<Record, Refusal>, Error>,
        now: Timestamp,
        in_old: impl FnOnce(&Self) -> Option<LoadFuture>,
    ) -> LoadFuture {
        let refusal = match in_new {
            Ok(Err(refusal)) if now < self.until => refusal,
            loaded => return StoreFuture::ready(loaded),
        };
        let Some(in_old) = in_old(self) else { return StoreFuture::ready(Ok(Err(refusal))) };
        match in_old.into_immediate() {
            Ok(in_old) => StoreFuture::ready(in_old.map(|loaded| self.judge_old(loaded, refusal))),
            Err(waiting) => {
                let inner = Arc::clone(self);
                StoreFuture::boxed(async move { Ok(inner.judge_old(waiting.await?, refusal)) })
            }
        }
    }

    /// Returns the result of the old store, or else the `refusal` of the new one.
    fn judge_old(&self, loaded: Result<Record, Refusal>, refusal: Refusal) -> Result<Record, Refusal> {
        match loaded {
            Ok(record) => {
                let event = EventKind::Migrating { id: record.id(), from: MigrationSource::Store };
                self.new.config().emit(event);
                Ok(record.taken_from(Place::OldStore))
            }
            // It was a token of the old store, which knows more about it.
            Err(of_old @ (Refusal::Regenerated | Refusal::Expired | Refusal::Ended)) => Err(of_old),
            // The new store does not know it, and this host cannot judge whether the old one does.
            Err(of_old) if refusal == Refusal::UnknownId && of_old.may_be_of_another_host() => Err(of_old),
            Err(_) => Err(refusal),
        }
    }

    /// Returns true while the old store is asked.
    fn asks_old(&self) -> bool {
        self.new.config().now() < self.until
    }

    /// Asks both stores, also if one fails. The old one is asked first: a session that moves meanwhile is then found in one of
    /// them.
    async fn of_both<T>(
        &self,
        old: impl FnOnce(&dyn Store) -> SubjectFuture<T>,
        new: SubjectFuture<T>,
        both: impl FnOnce(T, T) -> T,
    ) -> Result<T, Error> {
        let of_old = self.of_old(old).await;
        let of_new = new.await?;
        Ok(match of_old? {
            None => of_new,
            Some(of_old) => both(of_old, of_new),
        })
    }

    /// Asks the old store about the sessions of a subject. `None` if it is no longer asked, or has no session lists.
    async fn of_old<T>(&self, ask: impl FnOnce(&dyn Store) -> SubjectFuture<T>) -> Result<Option<T>, Error> {
        if !self.asks_old() {
            return Ok(None);
        }
        match ask(&self.old).await {
            Err(error) if error.is_config() => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// Lets both stores end a session. The old one is asked also if the new one fails.
    async fn end_in_both(
        &self,
        now: Timestamp,
        end: impl Fn(&Arc<dyn Store>) -> StoreFuture<()>,
    ) -> Result<(), Error> {
        let in_new = end(&self.new).await;
        let in_old = if now < self.until { end(&self.old).await } else { Ok(()) };
        in_new.and(in_old)
    }

    /// Returns the session that the old store is to keep when it ends those of the subject.
    async fn kept_in_old(&self, subject: &str, keep: Option<SessionId>) -> Result<Option<SessionId>, Error> {
        let Some(id) = keep else { return Ok(None) };
        if !self.asks_old() || !self.old.ends_others_on_save() {
            return Ok(keep);
        }
        // Such a store can only end all. It must not have the one to keep.
        if self.new.sessions_of(subject).await?.iter().any(|session| session.id == id) {
            return Ok(None);
        }
        Err(Error::config(
            "the session to keep is not in the new store, and the old CookieStore cannot keep one session by its id: call Session::end_other_sessions() in a request of the session to keep",
        ))
    }

    /// Ends the sessions of the subject in the old store.
    async fn end_in_old(&self, subject: &str, keep: Option<SessionId>) -> Result<(), Error> {
        self.of_old(|old| old.end_sessions_of(subject, keep)).await.map(drop)
    }

    async fn take_over(&self, old: Record, changes: Arc<Changes>, now: Timestamp) -> Result<Saved, Error> {
        take_over(&self.new, &self.old, old, changes, now, |old| self.old.supersede(old, now)).await
    }

    /// Saves the session, and ends the others of its subject. They end in the old store first: if that fails, this session stays
    /// as it is.
    async fn end_others(
        &self,
        base: Option<Record>,
        changes: Arc<Changes>,
        now: Timestamp,
    ) -> Result<Saved, Error> {
        let subject = changes.apply(base.as_ref().map(Record::payload))?.subject();
        let Some(subject) = subject else { return Err(Error::new(Kind::NotLoggedIn)) };
        let Some(old) = base.as_ref().and_then(elsewhere) else {
            self.end_in_old(&subject, None).await?;
            return match base {
                Some(base) => self.new.regenerate(base, changes, now).await,
                None => self.new.save(None, changes, now).await,
            };
        };
        let is_of_subject = old.payload().subject().is_some_and(|of_old| of_old == subject);
        if self.old.ends_others_on_save() && is_of_subject && self.asks_old() {
            // The old store cannot keep this session while it ends the others: it goes on in the new store by then.
            // A session that has ended ends no others. A session that a login begins does.
            let begins_another = begins_another(&self.old, &changes);
            let ending = begins_another.then(|| self.old.end_sessions_of(&subject, None));
            let leave = |old| self.leave_with_others(old, ending, now);
            return take_over(&self.new, &self.old, old, changes, now, leave).await;
        }
        let keep = Some(old.id()).filter(|_| !self.old.ends_others_on_save());
        self.end_in_old(&subject, keep).await?;
        self.take_over(old, changes, now).await
    }

    /// Ends `old` and the other sessions of its subject in the old store, in one step. If `old` had ended, `ending` ends the others.
    /// Returns false if it had ended, and there is no `ending`.
    fn leave_with_others(
        &self,
        old: Record,
        ending: Option<SubjectFuture<Option<usize>>>,
        now: Timestamp,
    ) -> StoreFuture<bool> {
        let saving = self.old.regenerate(old, Arc::new(Changes::ending_others()), now);
        StoreFuture::boxed(async move {
            match (saving.await?, ending) {
                // No client gets the new token, so all are at an end.
                (Saved::Stored { .. }, _) => Ok(true),
                (_, Some(ending)) => ending.await.map(|_| true),
                (_, None) => Ok(false),
            }
        })
    }
}

impl MigratingStore {
    fn take_over(&self, old: Record, changes: Arc<Changes>, now: Timestamp) -> StoreFuture<Saved> {
        let inner = Arc::clone(&self.inner);
        StoreFuture::boxed(async move { inner.take_over(old, changes, now).await })
    }

    fn end_others(&self, base: Option<Record>, changes: Arc<Changes>, now: Timestamp) -> StoreFuture<Saved> {
        let inner = Arc::clone(&self.inner);
        StoreFuture::boxed(async move { inner.end_others(base, changes, now).await })
    }
}

/// Returns the record in the old store, if the session is still there.
fn elsewhere(record: &Record) -> Option<Record> {
    record.in_place(Place::OldStore).cloned()
}

impl Store for MigratingStore {
    fn sessions_of(&self, subject: &str) -> SubjectFuture<Vec<SubjectSession>> {
        let (inner, subject) = (Arc::clone(&self.inner), subject.to_owned());
        Box::pin(async move {
            let new = inner.new.sessions_of(&subject);
            let old = |old: &dyn Store| old.sessions_of(&subject);
            inner.of_both(old, new, |old, new| old.into_iter().chain(new).collect()).await
        })
    }

    fn end_session_of(&self, subject: &str, id: SessionId) -> SubjectFuture<bool> {
        let (inner, subject) = (Arc::clone(&self.inner), subject.to_owned());
        Box::pin(async move {
            let new = inner.new.end_session_of(&subject, id);
            let old = |old: &dyn Store| old.end_session_of(&subject, id);
            inner.of_both(old, new, |old, new| old || new).await
        })
    }

    fn end_sessions_of(&self, subject: &str, keep: Option<SessionId>) -> SubjectFuture<Option<usize>> {
        let (inner, subject) = (Arc::clone(&self.inner), subject.to_owned());
        Box::pin(async move {
            let new = inner.new.end_sessions_of(&subject, keep);
            if keep.is_some() && inner.new.ends_others_on_save() {
                return new.await; // an error: it cannot keep one
            }
            let kept_in_old = inner.kept_in_old(&subject, keep).await?;
            let old = |old: &dyn Store| old.end_sessions_of(&subject, kept_in_old);
            inner.of_both(old, new, |old, new| Some(old? + new?)).await
        })
    }
}

impl Sealed for MigratingStore {}

impl Verbs for MigratingStore {
    fn config(&self) -> &Config {
        self.inner.new.config()
    }

    fn load(&self, token: &[u8], now: Timestamp) -> LoadFuture {
        self.inner.load(token, now)
    }

    fn reload(&self, base: Record, now: Timestamp) -> LoadFuture {
        let Some(old) = elsewhere(&base) else { return self.inner.new.reload(base, now) };
        let inner = Arc::clone(&self.inner);
        StoreFuture::boxed(async move {
            if now >= inner.until {
                return Ok(Err(Refusal::Expired));
            }
            let reloaded = inner.old.reload(old, now).await?;
            Ok(reloaded.map(|record| record.taken_from(Place::OldStore)))
        })
    }

    fn load_past_cache(&self, base: &Record, now: Timestamp) -> Option<LoadFuture> {
        match elsewhere(base) {
            Some(old) => self.inner.old.load_past_cache(&old, now),
            None => self.inner.new.load_past_cache(base, now),
        }
    }

    fn save(&self, base: Option<Record>, changes: Arc<Changes>, now: Timestamp) -> StoreFuture<Saved> {
        if changes.ends_others() {
            return self.end_others(base, changes, now);
        }
        match base.as_ref().and_then(elsewhere) {
            None => self.inner.new.save(base, changes, now),
            Some(old) => self.take_over(old, changes, now),
        }
    }

    fn ends_others_on_save(&self) -> bool {
        self.inner.new.ends_others_on_save()
    }

    fn destroy(&self, base: Record, now: Timestamp) -> StoreFuture<()> {
        match elsewhere(&base) {
            Some(old) => self.inner.old.destroy(old, now),
            None => self.inner.new.destroy(base, now),
        }
    }

    fn regenerate(&self, base: Record, changes: Arc<Changes>, now: Timestamp) -> StoreFuture<Saved> {
        if changes.ends_others() {
            return self.end_others(Some(base), changes, now);
        }
        match elsewhere(&base) {
            None => self.inner.new.regenerate(base, changes, now),
            Some(old) => self.take_over(old, changes, now),
        }
    }

    fn key_of(&self, token: &[u8]) -> Option<KeyId> {
        self.inner.new.key_of(token).or_else(|| self.inner.old.key_of(token))
    }

    fn end_superseded(
        &self,
        token: &[u8],
        unless: Option<&Record>,
        by: EndedBy,
        now: Timestamp,
    ) -> StoreFuture<()> {
        let (inner, token, unless) = (Arc::clone(&self.inner), token.to_vec(), unless.cloned());
        StoreFuture::boxed(async move {
            inner.end_in_both(now, |store| store.end_superseded(&token, unless.as_ref(), by, now)).await
        })
    }

    fn end_unusable(&self, token: &[u8], unless: Option<&Record>, now: Timestamp) -> StoreFuture<()> {
        let (inner, token, unless) = (Arc::clone(&self.inner), token.to_vec(), unless.cloned());
        StoreFuture::boxed(async move {
            inner.end_in_both(now, |store| store.end_unusable(&token, unless.as_ref(), now)).await
        })
    }

    fn is_outdated(&self, record: &Record, superseded: &[u8], now: Timestamp) -> bool {
        self.inner.new.is_outdated(record, superseded, now)
            || now < self.inner.until && self.inner.old.is_outdated(record, superseded, now)
    }

    fn is_still_valid(&self, record: &Record, now: Timestamp) -> bool {
        match elsewhere(record) {
            Some(old) => now < self.inner.until && self.inner.old.is_still_valid(&old, now),
            None => self.inner.new.is_still_valid(record, now),
        }
    }

    fn load_retired(&self, name: usize, token: &[u8], now: Timestamp) -> LoadFuture {
        self.inner.load_retired(name, token, now)
    }

    fn is_only_copy(&self, record: &Record) -> bool {
        match elsewhere(record) {
            Some(old) => self.inner.old.is_only_copy(&old),
            None => self.inner.new.is_only_copy(record),
        }
    }

    /// The tombstone of the new store hides sessions of both. If that needs none, the browser may still hold cookies of the old
    /// one.
    fn tombstone(&self, ended: &[Record], now: Timestamp) -> Option<Result<(SecretText, Duration), Error>> {
        let inner = &self.inner;
        inner.new.tombstone(ended, now).or_else(|| {
            let of_old: Vec<Record> = ended.iter().filter_map(elsewhere).collect();
            let asked = now < inner.until && inner.old.config().cookie_name() == self.config().cookie_name();
            if of_old.is_empty() || !asked { None } else { inner.old.tombstone(&of_old, now) }
        })
    }

    fn hidden_by(&self, token: &[u8], now: Timestamp) -> Option<Recency> {
        let inner = &self.inner;
        let of_old = || if now < inner.until { inner.old.hidden_by(token, now) } else { None };
        inner.new.hidden_by(token, now).or_else(of_old)
    }

    fn adopt(&self, record: Record, changes: Arc<Changes>, now: Timestamp) -> StoreFuture<Saved> {
        self.inner.new.adopt(record, changes, now)
    }

    fn supersede(&self, base: Record, now: Timestamp) -> StoreFuture<bool> {
        match elsewhere(&base) {
            Some(old) => self.inner.old.supersede(old, now),
            None => self.inner.new.supersede(base, now),
        }
    }
}

impl fmt::Debug for MigratingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MigratingStore")
            .field("config", self.config())
            .field("until", &self.inner.until)
            .finish_non_exhaustive()
    }
}
