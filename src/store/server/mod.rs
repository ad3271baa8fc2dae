//! Sessions on the server, over any backend: identity, deadlines, merging and the order of writes.

mod conflict_queue;
pub(crate) mod format;
mod list_memo;
mod native_format;
mod near_cache;
mod optional;
mod regenerate;
mod session_limit;
pub(crate) mod session_list;
mod subjects;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use self::session_limit::SessionLimit;
pub use self::subjects::SubjectSession;

use self::conflict_queue::ConflictQueues;
use self::format::{EntryAge, EntryValue, SharedFormat, StoredFormat};
use self::list_memo::ListMemo;
use self::native_format::NativeFormat;
use self::session_list::SessionList;
use super::backend::EVEN_IF_EXPIRED;
use super::builder::ServerOptions;
use super::near_cache::{RecordCache, Ticket};
use super::take_over::take_over;
use super::verbs::Sealed;
use super::{Backend, Builder, Listing, LoadFuture, Replaced, Store, StoreFuture, Stored, Verbs};
use crate::clock::Timestamp;
use crate::config::{Config, MAX_CLOCK_SKEW};
use crate::cookie::CookieName;
use crate::crypto::{Purpose, Random, Sealer, ServerToken, SystemRandom, warm_up};
use crate::error::{Error, Kind};
use crate::event::{EventKind, MigrationSource, Operation, Refusal};
use crate::id::EntryId;
use crate::join::join;
use crate::session::{Changes, EntryLifetime, Origin, Payload, Place, Recency, Record, Saved, SessionId};

/// How often a save retries on newer state before it gives up. Saves of one process queue, so this many other processes
/// would have to be faster, each time.
const MAX_ATTEMPTS: u32 = 256;

/// For how long a tombstone lasts: longer than any request that still carries the old token.
const REGENERATED_FOR: Duration = Duration::from_secs(60);

/// A store that keeps sessions in a [`Backend`]. The cookie holds an opaque token of 256 random bits; the backend sees
/// a hash of it.
///
/// Concurrent requests lose no changes. A save replaces exactly the state that it loaded; if another request was first,
/// the changes are applied to the newer state. A session that was ended stays ended.
///
/// A clone is the same store.
///
/// # Examples
///
/// `examples/custom_store.rs` implements a backend. With that of `MemoryStore`:
///
/// ```
/// # #[cfg(feature = "memory")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), hyper_session::Error> {
/// use hyper_session::ServerStore;
/// use hyper_session::store::Memory;
///
/// let store = ServerStore::with_backend(Memory::new()).build()?;
/// assert!(store.sessions_of("ada").await?.is_empty());
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "memory"))]
/// # fn main() {}
/// ```
pub struct ServerStore<B> {
    inner: Arc<Inner<B>>,
}

/// The sessions of a backend under one cookie name.
struct Inner<B> {
    config: Arc<Config>,
    backend: Arc<B>,
    /// The cookie name that tokens, sealed entries and session lists are bound to.
    name: Box<str>,
    format: Box<dyn StoredFormat>,
    max_sessions_per_subject: usize,
    at_session_limit: SessionLimit,
    /// Present if a session of a subject counts only while it is on that subject's session list.
    list_memo: Option<ListMemo>,
    near_cache: Option<Arc<RecordCache>>,
    queues: ConflictQueues,
    /// The queues of session lists. A task may wait in one of these while it holds a permit of `queues`, never the
    /// reverse.
    list_queues: ConflictQueues,
    /// The sessions under each retired name of the cookie, in the order of the options.
    retired: Vec<Arc<Self>>,
    /// The sessions under other cookies, whose subjects are the same.
    linked: Vec<Arc<Self>>,
}

/// The session that a new one replaces.
#[derive(Clone, Copy)]
struct Predecessor {
    id: SessionId,
    /// True if the new session does not begin unless this one is on the session list.
    must_be_listed: bool,
}

/// The entry that a write is to replace, and when that was written.
struct Expected {
    entry: Stored,
    written: Recency,
}

/// The result of an attempt to save.
enum SaveAttempt {
    Done(Saved),
    /// Another request was first, and left this entry.
    Conflict(Payload, Expected),
}

impl<B: Backend> ServerStore<B> {
    /// Returns a builder for a store that keeps its sessions in `backend`.
    pub fn with_backend(backend: B) -> Builder<B> {
        Builder::new(backend)
    }

    /// Returns the backend.
    pub fn backend(&self) -> &B {
        &self.inner.backend
    }

    /// Returns the sessions under the retired name of this index, as a store.
    fn under_retired(&self, name: usize) -> Option<Self> {
        self.inner.retired.get(name).map(|inner| Self { inner: Arc::clone(inner) })
    }

    /// Returns the session of `base` under its retired name, and the store that has it, if it came under one.
    fn former(&self, base: &Record) -> Option<(Self, Record)> {
        let Some(Place::RetiredName(name)) = base.place() else { return None };
        Some((self.under_retired(name)?, base.in_place(Place::RetiredName(name))?.clone()))
    }

    /// Moves a session from a retired name to the present one.
    fn take_over(
        &self,
        former: Self,
        old: Record,
        changes: Arc<Changes>,
        now: Timestamp,
    ) -> StoreFuture<Saved> {
        let store = self.clone();
        StoreFuture::boxed(async move {
            take_over(&store, old, changes, now, |old| former.supersede(old, now)).await
        })
    }
}

impl<B: Backend> Builder<B> {
    /// Checks the options and builds the store.
    ///
    /// # Errors
    ///
    /// [`is_config`](Error::is_config) if options do not fit together. The message names what to change.
    pub fn build(self) -> Result<ServerStore<B>, Error> {
        let random: Arc<dyn Random> = Arc::new(SystemRandom);
        let inner = Inner::new(self, &random)?;
        Ok(ServerStore { inner: Arc::new(inner) })
    }
}

impl<B: Backend> Inner<B> {
    fn new(builder: Builder<B>, random: &Arc<dyn Random>) -> Result<Self, Error> {
        let shared = builder.server.shared_format.is_some();
        let (backend, mut config, options) =
            builder.validate(|_, options| options.record_keys.clone(), shared)?;
        let ServerOptions {
            record_keys,
            accept_unsealed,
            max_sessions_per_subject,
            at_session_limit,
            check_session_list,
            shared_format,
            linked,
            near_cache,
        } = options;
        let accept_unsealed = accept_unsealed.map(|until| (until, Arc::clone(config.clock())));
        let retired: Vec<String> =
            config.cookie.retired_cookies().iter().map(|cookie| cookie.name().as_str().to_owned()).collect();
        check_linked(&linked, &retired, config.cookie_name())?;
        backend.__use_clock(config.clock());
        warm_up(&**random);
        if shared_format.is_none() {
            check_list_len(&backend, max_sessions_per_subject)?;
        }
        if let Some(shared) = shared_format {
            check_shared(&shared, record_keys.is_some(), check_session_list)?;
            if !retired.is_empty() || !linked.is_empty() {
                return Err(Error::config(format!(
                    "{} shares sessions under one cookie name: drop retired_name() and linked_cookie()",
                    shared.program
                )));
            }
        }
        // The near-cache vouches for what a connection remembers.
        config.settings.connection_memo = near_cache.is_some();
        let (config, backend) = (Arc::new(config), Arc::new(backend));
        let under = |name: &str| -> Result<Self, Error> {
            let format: Box<dyn StoredFormat> = if let Some(shared) = &shared_format {
                (shared.create)(&config, Arc::clone(random))
            } else {
                let seal = |keys| Sealer::new(keys, Purpose::Record, name, Arc::clone(random));
                Box::new(NativeFormat {
                    payload_format: config.settings.format,
                    sealer: record_keys.as_ref().map(seal).transpose()?,
                    accept_unsealed: accept_unsealed.clone(),
                    random: Arc::clone(random),
                    cookie_name: name.into(),
                    limits: *config.limits(),
                })
            };
            Ok(Self {
                config: Arc::clone(&config),
                backend: Arc::clone(&backend),
                name: name.into(),
                format,
                max_sessions_per_subject,
                at_session_limit,
                list_memo: check_session_list.then(ListMemo::new),
                queues: ConflictQueues::new(),
                list_queues: ConflictQueues::new(),
                near_cache: None,
                retired: Vec::new(),
                linked: Vec::new(),
            })
        };
        let each = |names: &[String]| {
            names.iter().map(|name| under(name).map(Arc::new)).collect::<Result<_, Error>>()
        };
        let (retired, linked) = (each(&retired)?, each(&linked)?);
        Ok(Self { near_cache, retired, linked, ..under(config.cookie_name())? })
    }

    async fn load(&self, token: ServerToken, now: Timestamp) -> Result<Result<Record, Refusal>, Error> {
        // Boxed: what few stores do would make the future of every load larger.
        if let Some(memo) = &self.list_memo {
            return Box::pin(self.load_listed(memo, token, now)).await;
        }
        let fetched = self.backend.__fetch_watched(entry_id(&token), now).await;
        let (stored, ticket) = match self.found(fetched)? {
            Ok(found) => found,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let len = stored.value.len();
        Ok(self.decode(token, stored, now).inspect(|record| self.keep(ticket, len, record, None)))
    }

    /// Loads a session, which counts only if it is on the list of its subject, if it has one. The list is read at the same
    /// time where this process knows it.
    async fn load_listed(
        &self,
        memo: &ListMemo,
        token: ServerToken,
        now: Timestamp,
    ) -> Result<Result<Record, Refusal>, Error> {
        let id = entry_id(&token);
        let fetching = self.backend.__fetch_watched(id, now);
        let (fetched, list) = match memo.get(id) {
            Some(known) => {
                let (fetched, list) = join(fetching, self.fetch_list_watched(known, now)).await;
                (fetched, Some((known, list)))
            }
            None => (fetching.await, None),
        };
        let (stored, ticket) = match self.found(fetched)? {
            Ok(found) => found,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let len = stored.value.len();
        let record = match self.decode(token, stored, now) {
            Ok(record) => record,
            refused => return Ok(refused),
        };
        let Some(subject) = self.listed_subject(record.payload()) else {
            self.keep(ticket, len, &record, None);
            return Ok(Ok(record));
        };
        let list_id = self.list_of(&subject);
        let list = match list {
            Some((known, list)) if known == list_id => list,
            _ => {
                memo.set(id, list_id);
                self.fetch_list_watched(list_id, now).await
            }
        };
        let (list, list_ticket) = match list {
            Ok((list, ticket)) => (Ok(list), ticket),
            Err(error) => (Err(error), None),
        };
        let listed = list.as_ref().ok().cloned().flatten();
        if let Some(refusal) = self.refusal_by_list(list_id, list, record.id())? {
            return Ok(Err(refusal));
        }
        self.keep_list(list_ticket, list_id, listed.as_ref());
        self.keep(ticket, len, &record, Some(list_id));
        Ok(Ok(record))
    }

    /// Fetches a session list, under a ticket unless it is longer than the limit for entries.
    async fn fetch_list_watched(
        &self,
        id: EntryId,
        now: Timestamp,
    ) -> Result<(Option<Stored>, Option<Ticket>), Error> {
        match self.backend.__fetch_watched(id, now).await {
            Err(error) if error.is_unreadable() => Ok((self.backend.__fetch_list(id, now).await?, None)),
            fetched => fetched,
        }
    }

    /// Returns what was fetched, or why there is no session. An entry that is too long or of another type does not stand in the way:
    /// its user can log in, and log out. An event reports it.
    fn found(
        &self,
        fetched: Result<(Option<Stored>, Option<Ticket>), Error>,
    ) -> Result<Result<(Stored, Option<Ticket>), Refusal>, Error> {
        match fetched {
            Ok((stored, ticket)) => Ok(stored.map(|stored| (stored, ticket)).ok_or(Refusal::UnknownId)),
            Err(error) if error.is_unreadable() => {
                let operation = Operation::Load;
                self.config.emit(EventKind::StoreFailed { id: None, operation, error: &error });
                Ok(Err(Refusal::Unreadable))
            }
            Err(error) => Err(error),
        }
    }

    fn decode(&self, token: ServerToken, stored: Stored, now: Timestamp) -> Result<Record, Refusal> {
        let (age, payload) = match self.format.decode(entry_id(&token), &stored.value) {
            Some(EntryValue::Session(age, payload)) => (age, payload),
            Some(EntryValue::Tombstone) => return Err(Refusal::Regenerated),
            Some(EntryValue::List(_)) => return Err(Refusal::Payload),
            None => return Err(self.format.refusal(&stored.value)),
        };
        let created = age.created.unwrap_or(now);
        // Without dates, each write sets the idle deadline anew.
        let without_dates = || stored.expires.saturating_sub(self.config.timeouts_of(&payload).idle);
        let recency = age.written.unwrap_or_else(|| Recency::at(without_dates()));
        let expires = self.expires(stored.expires, created, age, &payload);
        if now >= expires {
            return Err(Refusal::Expired);
        }
        if self.format.is_to_be_sealed(&stored.value) {
            let id = session_id(&token);
            self.config.emit(EventKind::Migrating { id, from: MigrationSource::Unsealed });
        }
        let id = session_id(&token);
        let (value, deadline) = (stored.value, stored.expires);
        let lifetime = EntryLifetime::Decoded(age.lifetime);
        let origin = Origin::Stored { token, value, deadline, lifetime };
        Ok(Record::written(id, created, expires, payload, origin, recency))
    }

    /// Returns the deadline of a session: its entry's, or what the present options allow if that is earlier. A backend that keeps
    /// entries for too long does not keep sessions for too long, and a shorter timeout applies to sessions that exist.
    fn expires(&self, stored: Timestamp, created: Timestamp, age: EntryAge, payload: &Payload) -> Timestamp {
        let allowed = match age.lifetime {
            Some(lifetime) => self.config.deadline(created, payload, stored.saturating_sub(lifetime)),
            None => created.saturating_add(self.config.timeouts_of(payload).absolute),
        };
        stored.min(allowed)
    }

    /// Returns true if moving only the entry's deadline would leave a false lifetime in it.
    fn has_other_lifetime(&self, base: &Record, now: Timestamp) -> bool {
        let Origin::Stored { value, lifetime, .. } = base.origin() else { return false };
        let lifetime = match *lifetime {
            EntryLifetime::Decoded(lifetime) => lifetime,
            EntryLifetime::NotDecoded => match self.format.decode(key_of(base), value) {
                Some(EntryValue::Session(age, _)) => age.lifetime,
                _ => None,
            },
        };
        let Some(lifetime) = lifetime else { return false };
        self.config.deadline(base.created(), base.payload(), now).saturating_since(now) != lifetime
    }

    /// Encodes an entry of these values, which came from the stored value `from`, if there is one. `written` is a
    /// [`Recency::after`] what it replaces.
    fn encode(
        &self,
        id: EntryId,
        created: Timestamp,
        payload: &Payload,
        from: Option<&Bytes>,
        written: Recency,
        now: Timestamp,
    ) -> Result<Stored, Error> {
        let value = self.format.encode_session(id, created, payload, from, written, now)?;
        Ok(Stored { value, expires: self.config.deadline(created, payload, now) })
    }

    /// Stores a new session, under a new token. A session of a subject is first entered in the subject's session list,
    /// so that a call that ends all of them finds it. It counts only if it is still on the list afterwards. The session is newer
    /// than `after`. `instead_of` is the session that it is about to replace, `from` the stored value that its values came
    /// from. Returns `None` if the subject's sessions were ended meanwhile.
    async fn create(
        &self,
        created: Timestamp,
        payload: Payload,
        after: Option<Recency>,
        instead_of: Option<Predecessor>,
        from: Option<&Bytes>,
        now: Timestamp,
    ) -> Result<Option<Record>, Error> {
        let subject = self.listed_subject(&payload);
        let written = Recency::after(after, now);
        // Of 2^128 ids, a second round has never been observed; a third would mean a broken generator.
        for _ in 0..3 {
            let token = self.format.generate_token()?;
            let id = session_id(&token);
            let entry = self.encode(entry_id(&token), created, &payload, from, written, now)?;
            if let Some(subject) = &subject {
                // A login that cannot be stored must not take a place on the list, nor end another session.
                self.backend.__check_len(entry.value.len())?;
                let until = self.config.latest_deadline(created);
                if !self.enter(subject, id, instead_of, until, now).await? {
                    return Ok(None);
                }
            }
            if self.backend.create(entry_id(&token), entry.clone(), now).await? {
                if let Some(subject) = &subject {
                    if !self.is_entered(subject, id, now).await? {
                        self.backend.delete(entry_id(&token)).await?;
                        return Ok(None);
                    }
                }
                let Stored { value, expires } = entry;
                let origin =
                    Origin::Stored { token, value, deadline: expires, lifetime: EntryLifetime::NotDecoded };
                return Ok(Some(Record::written(id, created, expires, payload, origin, written)));
            }
        }
        Err(Error::new(Kind::Random))
    }

    async fn save(
        self: &Arc<Self>,
        base: Option<Record>,
        changes: &Changes,
        now: Timestamp,
    ) -> Result<Saved, Error> {
        let Some(base) = base else {
            let payload = changes.apply(None)?;
            if payload.is_empty() {
                return Ok(Saved::Removed);
            }
            let created = Box::pin(self.create(now, payload, changes.after(), None, None, now)).await?;
            return ended_or_stored(created);
        };
        if changes.is_empty() && !self.has_other_lifetime(&base, now) {
            return Box::pin(self.renew(base, now)).await;
        }
        let mut expected = Expected::of(&base)?;
        let mut payload = changes.apply(Some(base.payload()))?;
        let mut subject = self.subject_to_look_up(&base, now);
        let mut lock = None;
        for conflicts in 0..MAX_ATTEMPTS {
            let from = expected.entry.value.clone();
            let replacing = self.replace(&base, expected, payload, &from, now, conflicts);
            let step = match subject.take() {
                None => replacing.await?,
                Some(subject) => {
                    let of = subject.clone();
                    let is_listed = |attempt: &SaveAttempt| match attempt {
                        SaveAttempt::Done(Saved::Stored { record, .. }) => {
                            self.listed_subject(record.payload()).is_some_and(|subject| subject == of)
                        }
                        _ => false,
                    };
                    Box::pin(self.beside_the_list(subject, &base, replacing, is_listed, now)).await?
                }
            };
            match step {
                SaveAttempt::Done(saved) => return Ok(saved),
                SaveAttempt::Conflict(current, newer) => {
                    payload = changes.replay(Some(&current))?;
                    expected = newer;
                    if lock.is_none() {
                        lock = Some(self.queues.of(base.id()).lock().await);
                    }
                }
            }
        }
        Err(Error::new(Kind::Conflict { attempts: MAX_ATTEMPTS }))
    }

    /// Returns the subject whose session list a write of `base` looks up, as a renewal does. If only listed sessions
    /// count, a session that is not listed was ended.
    fn subject_to_look_up(&self, base: &Record, now: Timestamp) -> Option<String> {
        if self.list_memo.is_some() || !self.config.is_first_write_of_span(base, now) {
            return None;
        }
        self.listed_subject(base.payload())
    }

    /// Replaces `expected` by `payload`, which came from the stored value `from`. Deletes the entry if no value is
    /// left.
    async fn replace(
        &self,
        base: &Record,
        expected: Expected,
        payload: Payload,
        from: &Bytes,
        now: Timestamp,
        conflicts: u32,
    ) -> Result<SaveAttempt, Error> {
        let (token, _) = origin(base)?;
        let written = Recency::after(Some(expected.written), now);
        let entry = if self.config.leaves_nothing(base.created(), &payload, now) {
            None
        } else {
            Some(self.encode(entry_id(&token), base.created(), &payload, Some(from), written, now)?)
        };
        let outcome = self.backend.exchange(entry_id(&token), expected.entry, entry.clone(), now).await?;
        Ok(match (outcome, entry) {
            (Replaced::Missing, _) => SaveAttempt::Done(Saved::Ended),
            (Replaced::Conflict(current), _) => match self.format.decode(key_of(base), &current.value) {
                Some(EntryValue::Session(age, payload)) => {
                    let written = age.written.unwrap_or(expected.written);
                    SaveAttempt::Conflict(payload, Expected { entry: current, written })
                }
                // The session continues under another token, or a foreign writer overwrote it. In both cases it has
                // ended here.
                _ => SaveAttempt::Done(Saved::Ended),
            },
            (Replaced::Done, None) => SaveAttempt::Done(Saved::Removed),
            (Replaced::Done, Some(Stored { value, expires })) => {
                let origin =
                    Origin::Stored { token, value, deadline: expires, lifetime: EntryLifetime::NotDecoded };
                let record = Record::written(base.id(), base.created(), expires, payload, origin, written);
                SaveAttempt::Done(stored(record, conflicts)?)
            }
        })
    }

    /// Renews the session: the same value with a later deadline, in one step. If the session is missing from its
    /// subject's list (evicted or lost), it is entered again.
    async fn renew(self: &Arc<Self>, base: Record, now: Timestamp) -> Result<Saved, Error> {
        let seen = seen(&base)?;
        let expires = self.config.deadline(base.created(), base.payload(), now);
        let renewing = self.backend.renew(key_of(&base), seen, expires, now);
        // If only listed sessions count, a session that is not listed was ended.
        let subject = if self.list_memo.is_none() { self.listed_subject(base.payload()) } else { None };
        let outcome = match subject {
            None => renewing.await?,
            Some(subject) => {
                let is_listed = |outcome: &Replaced| *outcome == Replaced::Done;
                self.beside_the_list(subject, &base, renewing, is_listed, now).await?
            }
        };
        match outcome {
            Replaced::Done => stored(base.until(expires), 0),
            Replaced::Missing => Ok(Saved::Ended),
            // Another request wrote the session, and so renewed it, or gave the browser another token. In that case
            // this response must not remove the new cookie.
            Replaced::Conflict(present) => {
                let own = match self.format.decode(key_of(&base), &present.value) {
                    Some(EntryValue::Session(age, payload)) => {
                        let created = age.created.unwrap_or(base.created());
                        Some(self.config.deadline(created, &payload, now))
                    }
                    Some(EntryValue::Tombstone) => None,
                    _ => return Ok(Saved::Ended),
                };
                let mut deadline = present.expires;
                if deadline == expires {
                    // The backend moved its deadline, too. A tombstone must not last as long as a session, nor a session as long as
                    // it would have by the lifetime that this request loaded.
                    deadline = own.unwrap_or_else(|| self.tombstone_expires(now));
                    if deadline != expires {
                        let corrected = self.backend.touch(key_of(&base), deadline, now).await;
                        // That the session ended is known without it.
                        if own.is_some() {
                            corrected?;
                        }
                    }
                }
                if own.is_some() { stored(base.until(deadline.min(expires)), 0) } else { Ok(Saved::Ended) }
            }
        }
    }

    /// Ends the session that `token` leads to, which has expired, or which this host cannot read. The backend keeps the entry of an
    /// expired session for slow requests.
    async fn end_unusable(self: &Arc<Self>, token: ServerToken, now: Timestamp) -> Result<(), Error> {
        let id = entry_id(&token);
        let fetched = match self.backend.fetch(id, EVEN_IF_EXPIRED).await {
            // Whatever it is, its session has ended.
            Err(error) if error.is_unreadable() => return self.backend.delete(id).await,
            fetched => fetched?,
        };
        let Some(Stored { value, expires }) = fetched else { return Ok(()) };
        let Some(EntryValue::Session(age, payload)) = self.format.decode(id, &value) else {
            // Another host may read it, and must not find it.
            return match self.format.refusal(&value) {
                Refusal::Unreadable | Refusal::UnknownKey | Refusal::Version => self.backend.delete(id).await,
                _ => Ok(()),
            };
        };
        let (session, created) = (session_id(&token), age.created.unwrap_or(now));
        let lifetime = EntryLifetime::Decoded(age.lifetime);
        let origin = Origin::Stored { token, value, deadline: expires, lifetime };
        self.remove(&Record::new(session, created, expires, payload, origin), now).await
    }

    /// Ends the session for good.
    async fn remove(self: &Arc<Self>, record: &Record, now: Timestamp) -> Result<(), Error> {
        self.backend.delete(key_of(record)).await?;
        self.leave(record, now).await;
        Ok(())
    }
}

/// Checks that no cookie is named twice.
fn check_linked(linked: &[String], retired: &[String], present: &str) -> Result<(), Error> {
    for (at, name) in linked.iter().enumerate() {
        CookieName::new(name)?;
        let earlier = linked.iter().take(at).chain(retired).map(String::as_str);
        if earlier.chain([present]).any(|other| other == name) {
            return Err(Error::config(format!(
                "the sessions under the cookie name {name:?} are included already: drop that call of linked_cookie()"
            )));
        }
    }
    Ok(())
}

/// Checks that the backend has room for the longest session list.
fn check_list_len(backend: &impl Backend, max_sessions: usize) -> Result<(), Error> {
    backend.__check_len(SessionList::max_len(max_sessions)).map_err(|_| {
        Error::config(
            "max_entry_len() must be long enough for the list of as many sessions as max_sessions_per_subject() allows: \
             raise the one or lower the other",
        )
    })
}

/// Checks what does not fit to a format that is shared with another program.
fn check_shared(shared: &SharedFormat, seals: bool, checks_lists: bool) -> Result<(), Error> {
    if seals {
        return Err(Error::config(format!(
            "{} reads no sealed sessions: drop seal_records(), or the shared format once {0} is gone",
            shared.program
        )));
    }
    if checks_lists {
        return Err(Error::config(
            "check_session_list() must be off where sessions are shared with another program: it keeps no lists",
        ));
    }
    Ok(())
}

/// Returns the id of the entry that this token leads to.
fn entry_id(token: &ServerToken) -> EntryId {
    EntryId::from_bytes(token.entry_id())
}

/// Returns the public id of the session that this token leads to.
fn session_id(token: &ServerToken) -> SessionId {
    SessionId::from_bytes(token.session_id())
}

/// Returns the id of the entry that holds this session.
fn key_of(record: &Record) -> EntryId {
    let of_session = || EntryId::from_bytes(record.id().to_bytes());
    record.origin().stored().map_or_else(of_session, |(token, _)| entry_id(token))
}

fn origin(record: &Record) -> Result<(ServerToken, Bytes), Error> {
    let (token, value) = record
        .origin()
        .stored()
        .ok_or_else(|| Error::new(Kind::Internal("a record of another kind of store")))?;
    Ok((token.clone(), value.clone()))
}

/// Returns the entry of the session as it was loaded.
fn seen(record: &Record) -> Result<Stored, Error> {
    let entry = record.origin().entry();
    let (value, expires) =
        entry.ok_or_else(|| Error::new(Kind::Internal("a record of another kind of store")))?;
    Ok(Stored { value: value.clone(), expires })
}

impl Expected {
    /// Returns the entry of the session as it was loaded.
    fn of(record: &Record) -> Result<Self, Error> {
        Ok(Self { entry: seen(record)?, written: record.recency() })
    }
}

fn ended_or_stored(created: Option<Record>) -> Result<Saved, Error> {
    created.map_or(Ok(Saved::Ended), |record| stored(record, 0))
}

fn stored(record: Record, conflicts: u32) -> Result<Saved, Error> {
    let (token, _) = origin(&record)?;
    Ok(Saved::Stored { record, token: token.to_text(), conflicts })
}

impl<B: Backend> Store for ServerStore<B> {
    fn sessions_of(&self, subject: &str) -> Listing<Vec<SubjectSession>> {
        let (store, subject) = (self.clone(), subject.to_owned());
        Box::pin(async move { store.sessions_of(&subject).await })
    }

    fn end_session_of(&self, subject: &str, id: SessionId) -> Listing<bool> {
        let (store, subject) = (self.clone(), subject.to_owned());
        Box::pin(async move { store.end_session_of(&subject, id).await })
    }

    fn end_sessions_of(&self, subject: &str, keep: Option<SessionId>) -> Listing<Option<usize>> {
        let (store, subject) = (self.clone(), subject.to_owned());
        Box::pin(async move { store.end_sessions_of(&subject, keep).await.map(Some) })
    }
}

impl<B: Backend> Sealed for ServerStore<B> {}

impl<B: Backend> Verbs for ServerStore<B> {
    fn config(&self) -> &Config {
        &self.inner.config
    }

    fn load(&self, token: &[u8], now: Timestamp) -> LoadFuture {
        let Some(token) = self.inner.format.parse_token(token) else {
            return StoreFuture::ready(Ok(Err(Refusal::Encoding)));
        };
        if let Some(record) = self.inner.recall(&token, now) {
            return StoreFuture::ready(Ok(Ok(record)));
        }
        let inner = Arc::clone(&self.inner);
        StoreFuture::boxed(async move { inner.load(token, now).await })
    }

    fn load_retired(&self, name: usize, token: &[u8], now: Timestamp) -> LoadFuture {
        let former = self.under_retired(name);
        let parsed = former.as_ref().and_then(|former| former.inner.format.parse_token(token));
        let (Some(former), Some(token)) = (former, parsed) else {
            return StoreFuture::ready(Ok(Err(Refusal::Encoding)));
        };
        StoreFuture::boxed(async move {
            let loaded = former.inner.load(token, now).await?;
            Ok(loaded.map(|record| record.taken_from(Place::RetiredName(name))))
        })
    }

    fn reload(&self, base: Record, now: Timestamp) -> LoadFuture {
        let (place, former) = (base.place(), self.former(&base));
        let (inner, base) =
            former.map_or_else(|| (Arc::clone(&self.inner), base), |(former, base)| (former.inner, base));
        StoreFuture::boxed(async move {
            let (token, _) = origin(&base)?;
            let loaded = match inner.recall(&token, now) {
                Some(record) => Ok(record),
                None => inner.load(token, now).await?,
            };
            Ok(loaded.map(|record| match place {
                Some(place) => record.taken_from(place),
                None => record,
            }))
        })
    }

    fn load_past_cache(&self, base: &Record, now: Timestamp) -> Option<LoadFuture> {
        // Under a retired name nothing is looked up in the near-cache.
        if self.inner.near_cache.is_none() || base.place().is_some() {
            return None;
        }
        let (token, _) = base.origin().stored()?;
        let (inner, token) = (Arc::clone(&self.inner), token.clone());
        Some(StoreFuture::boxed(async move { inner.load(token, now).await }))
    }

    fn is_still_valid(&self, record: &Record, now: Timestamp) -> bool {
        self.inner.vouches_for(record, now)
    }

    fn save(&self, base: Option<Record>, changes: Arc<Changes>, now: Timestamp) -> StoreFuture<Saved> {
        if let Some((former, old)) = base.as_ref().and_then(|base| self.former(base)) {
            return self.take_over(former, old, changes, now);
        }
        let inner = Arc::clone(&self.inner);
        StoreFuture::boxed(async move { inner.save(base, &changes, now).await })
    }

    fn destroy(&self, base: Record, now: Timestamp) -> StoreFuture<()> {
        if let Some((former, old)) = self.former(&base) {
            return former.destroy(old, now);
        }
        let inner = Arc::clone(&self.inner);
        StoreFuture::boxed(async move { inner.remove(&base, now).await })
    }

    fn regenerate(&self, base: Record, changes: Arc<Changes>, now: Timestamp) -> StoreFuture<Saved> {
        if let Some((former, old)) = self.former(&base) {
            return self.take_over(former, old, changes, now);
        }
        let inner = Arc::clone(&self.inner);
        StoreFuture::boxed(async move { inner.regenerate(base, &changes, now).await })
    }

    fn end_unusable(&self, token: &[u8], now: Timestamp) -> StoreFuture<()> {
        // The cookie may have come under any of these names.
        let names = std::iter::once(&self.inner).chain(&self.inner.retired);
        let found = names.filter_map(|inner| Some((Arc::clone(inner), inner.format.parse_token(token)?)));
        let found: Vec<_> = found.collect();
        StoreFuture::boxed(async move {
            for (inner, token) in found {
                inner.end_unusable(token, now).await?;
            }
            Ok(())
        })
    }

    /// A tombstone lasts for a minute, and clocks may differ by a minute. A session that was written before that is older.
    fn is_outdated(&self, record: &Record, _: &[u8], now: Timestamp) -> bool {
        let superseded = now.saturating_sub(REGENERATED_FOR + MAX_CLOCK_SKEW);
        record.recency().written < superseded
    }

    fn adopt(&self, record: Record, changes: Arc<Changes>, now: Timestamp) -> StoreFuture<Saved> {
        let inner = Arc::clone(&self.inner);
        StoreFuture::boxed(async move {
            let payload = changes.apply(Some(record.payload()))?;
            let created = if changes.begins_anew() { now } else { record.created() };
            if inner.config.leaves_nothing(created, &payload, now) {
                return Ok(Saved::Removed);
            }
            // On no list of this store: where it is taken from has others.
            let predecessor = Predecessor { id: record.id(), must_be_listed: false };
            inner
                .create(created, payload, Some(record.recency()), Some(predecessor), None, now)
                .await
                .and_then(ended_or_stored)
        })
    }

    fn supersede(&self, base: Record, now: Timestamp) -> StoreFuture<bool> {
        if let Some((former, old)) = self.former(&base) {
            return former.supersede(old, now);
        }
        let inner = Arc::clone(&self.inner);
        StoreFuture::boxed(async move { inner.supersede(&base, now).await })
    }
}

impl<B> Clone for ServerStore<B> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<B> fmt::Debug for ServerStore<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerStore").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
