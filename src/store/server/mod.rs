//! Sessions on the server, over any backend: identity, deadlines, merging and the order of writes.

mod conflict_queue;
pub(crate) mod format;
mod join;
mod list_memo;
mod native_format;
mod regenerate;
pub(crate) mod session_list;
mod subjects;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

pub use self::subjects::SubjectSession;

use self::conflict_queue::ConflictQueues;
use self::format::{EntryValue, StoredFormat};
use self::join::join;
use self::list_memo::ListMemo;
use self::native_format::NativeFormat;
use super::builder::ServerOptions;
use super::{Backend, Builder, Replaced, Saved, Store, StoreFuture, Stored};
use crate::clock::Timestamp;
use crate::config::Config;
use crate::crypto::{Purpose, Random, Sealer, SecretText, SystemRandom, Token};
use crate::error::{Error, Kind};
use crate::event::Refusal;
use crate::id::EntryId;
use crate::session::{Changes, Origin, Payload, Record, SessionId};

/// How often a save takes in newer state before it gives up. Those of one process take turns, so this many other
/// processes must be in the way, each time.
const MAX_ATTEMPTS: u32 = 256;

/// Keeps sessions in a [`Backend`]. The cookie holds an opaque token of 256 random bits; the backend sees a hash of it.
///
/// Concurrent requests lose nothing: a save replaces exactly what was loaded, and if another request came first, the
/// changes are applied to the newer state. A session that was ended stays ended.
///
/// A clone is the same store.
///
/// # Examples
///
/// `examples/custom_store.rs` has a backend of its own. With the one behind `MemoryStore`:
///
/// ```
/// # #[cfg(feature = "memory")]
/// # fn main() -> Result<(), hyper_session::Error> {
/// use hyper_session::ServerStore;
/// use hyper_session::store::Memory;
///
/// let store = ServerStore::with_backend(Memory::new()).development().build()?;
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "memory"))]
/// # fn main() {}
/// ```
pub struct ServerStore<B> {
    inner: Arc<Inner<B>>,
}

struct Inner<B> {
    config: Config,
    backend: B,
    format: Box<dyn StoredFormat>,
    max_sessions_per_subject: usize,
    /// Present if a session of a subject counts only while it is on that subject's list.
    list_memo: Option<ListMemo>,
    queues: ConflictQueues,
    /// Those of session lists. A task may wait in one of these while it holds a permit of the others, never the other way
    /// round.
    list_queues: ConflictQueues,
}

/// What a save found and did.
enum Step {
    Done(Saved),
    /// Another request was first; this is what it left.
    Conflict(Payload, Stored),
}

impl<B: Backend> ServerStore<B> {
    /// A builder for a store that keeps its sessions in `backend`.
    pub fn with_backend(backend: B) -> Builder<B> {
        Builder::new(backend)
    }

    /// The backend.
    pub fn backend(&self) -> &B {
        &self.inner.backend
    }
}

impl<B: Backend> Builder<B> {
    /// Checks the options and builds the store.
    ///
    /// # Errors
    ///
    /// [`is_config`](Error::is_config) if options do not fit together; the message says what to change.
    pub fn build(self) -> Result<ServerStore<B>, Error> {
        let inner = Inner::new(self, Arc::new(SystemRandom))?;
        Ok(ServerStore { inner: Arc::new(inner) })
    }
}

impl<B: Backend> Inner<B> {
    fn new(builder: Builder<B>, random: Arc<dyn Random>) -> Result<Self, Error> {
        let (backend, config, options) = builder.validate()?;
        let ServerOptions { record_keys, max_sessions_per_subject, check_session_list, shared_format } =
            options;
        let format: Box<dyn StoredFormat> = match (shared_format, record_keys) {
            (Some(shared), Some(_)) => {
                return Err(Error::config(format!(
                    "{} reads no sealed sessions: drop seal_records(), or the shared format once {0} is gone",
                    shared.program
                )));
            }
            (Some(shared), None) => (shared.create)(&config, random),
            (None, keys) => {
                let name = config.cookie_name();
                let seal = |keys| Sealer::new(&keys, Purpose::Record, name, Arc::clone(&random));
                let (payload_format, sealer) = (config.format, keys.map(seal).transpose()?);
                Box::new(NativeFormat { payload_format, sealer, random, cookie_name: name.into() })
            }
        };
        if check_session_list && !format.has_session_lists() {
            return Err(Error::config(
                "check_session_list() must be off where sessions are shared with another program: it keeps no lists",
            ));
        }
        let list_memo = check_session_list.then(ListMemo::new);
        let (queues, list_queues) = (ConflictQueues::new(), ConflictQueues::new());
        Ok(Self { config, backend, format, max_sessions_per_subject, list_memo, queues, list_queues })
    }

    async fn load(&self, token: Token, now: Timestamp) -> Result<Result<Record, Refusal>, Error> {
        // Boxed: what few stores do would make the future of every load larger.
        if let Some(memo) = &self.list_memo {
            return Box::pin(self.load_listed(memo, token, now)).await;
        }
        let Some(stored) = self.backend.fetch(entry_id(&token), now).await? else {
            return Ok(Err(Refusal::UnknownId));
        };
        Ok(self.decode(token, stored, now))
    }

    /// Loads a session, which counts only if it is on the list of its subject, if it has one. The list is read at the same
    /// time where this process knows it.
    async fn load_listed(
        &self,
        memo: &ListMemo,
        token: Token,
        now: Timestamp,
    ) -> Result<Result<Record, Refusal>, Error> {
        let id = entry_id(&token);
        let (stored, list) = match memo.get(id) {
            Some(known) => {
                let (stored, list) = join(self.backend.fetch(id, now), self.backend.fetch(known, now)).await;
                (stored?, Some((known, list)))
            }
            None => (self.backend.fetch(id, now).await?, None),
        };
        let Some(stored) = stored else { return Ok(Err(Refusal::UnknownId)) };
        let record = match self.decode(token, stored, now) {
            Ok(record) => record,
            refused => return Ok(refused),
        };
        let Some(subject) = self.listed_subject(record.payload()) else { return Ok(Ok(record)) };
        let list_id = self.list_of(&subject);
        let list = match list {
            Some((known, list)) if known == list_id => list,
            _ => {
                memo.set(id, list_id);
                self.backend.fetch(list_id, now).await
            }
        };
        Ok(if self.is_on(list_id, list, record.id())? { Ok(record) } else { Err(Refusal::UnknownId) })
    }

    fn decode(&self, token: Token, stored: Stored, now: Timestamp) -> Result<Record, Refusal> {
        let (created, payload) = match self.format.decode(entry_id(&token), &stored.value) {
            Some(EntryValue::Session(created, payload)) => (created.unwrap_or(now), payload),
            Some(EntryValue::Tombstone) => return Err(Refusal::Regenerated),
            Some(EntryValue::List(_)) | None => return Err(Refusal::Payload),
        };
        // A backend that keeps entries for too long does not keep sessions for too long.
        let expires = stored.expires.min(created.saturating_add(self.config.timeouts.absolute));
        #[cfg(hyper_session_planted)] // the backend's deadline alone
        let expires = if planted!("record_decode") { stored.expires } else { expires };
        if now >= expires {
            return Err(Refusal::Expired);
        }
        Ok(Record::new(
            session_id(&token),
            created,
            expires,
            payload,
            Origin::Stored { token, value: stored.value },
        ))
    }

    /// The entry of these values, which came from the stored value `from`, if they did.
    fn encode(
        &self,
        id: EntryId,
        created: Timestamp,
        payload: &Payload,
        from: Option<&Bytes>,
        now: Timestamp,
    ) -> Result<Stored, Error> {
        let value = self.format.encode_session(id, created, payload, from, now)?;
        Ok(Stored { value, expires: self.config.timeouts.deadline(created, now) })
    }

    /// Stores a session that was not there, under a new token. One that belongs to a subject is entered among that
    /// subject's sessions first, so that whoever ends them all finds it, and counts only if it is still there afterwards.
    /// `instead_of` is the id that it is about to replace, `from` the stored value that its values came from. `None` if the
    /// subject's sessions were ended meanwhile.
    async fn create(
        &self,
        created: Timestamp,
        payload: Payload,
        instead_of: Option<SessionId>,
        from: Option<&Bytes>,
        now: Timestamp,
    ) -> Result<Option<Record>, Error> {
        let subject = self.listed_subject(&payload);
        // 2^128 ids: the second round has never been seen, and the third would mean a broken generator.
        for _ in 0..3 {
            let token = self.format.generate_token()?;
            let id = session_id(&token);
            let entry = self.encode(entry_id(&token), created, &payload, from, now)?;
            if let Some(subject) = &subject {
                if !self.enter(subject, id, instead_of, created, now).await? {
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
                let origin = Origin::Stored { token, value };
                return Ok(Some(Record::new(id, created, expires, payload, origin)));
            }
        }
        Err(Error::new(Kind::Random))
    }

    async fn save(&self, base: Option<Record>, changes: &Changes, now: Timestamp) -> Result<Saved, Error> {
        let Some(base) = base else {
            let payload = changes.apply(None)?;
            if payload.is_empty() {
                return Ok(Saved::Removed);
            }
            return Box::pin(self.create(now, payload, None, None, now)).await.map(ended_or_stored);
        };
        if changes.is_empty() {
            return Box::pin(self.renew(base, now)).await;
        }
        let mut expected = seen(&base)?;
        let mut payload = changes.apply(Some(base.payload()))?;
        let mut turn = None;
        for conflicts in 0..MAX_ATTEMPTS {
            let from = expected.value.clone();
            match self.replace(&base, expected, payload, &from, now, conflicts).await? {
                Step::Done(saved) => return Ok(saved),
                Step::Conflict(current, stored) => {
                    payload = changes.replay(Some(&current))?;
                    #[cfg(hyper_session_planted)] // an update lost
                    if planted!("session_model") {
                        payload = changes.apply(Some(base.payload()))?;
                    }
                    expected = stored;
                    if turn.is_none() {
                        turn = Some(self.queues.of(base.id()).lock().await);
                    }
                }
            }
        }
        Err(Error::new(Kind::Conflict { attempts: MAX_ATTEMPTS }))
    }

    /// Puts `payload`, which came from the stored value `from`, in the place of `expected`, or removes the entry if nothing
    /// is left.
    async fn replace(
        &self,
        base: &Record,
        expected: Stored,
        payload: Payload,
        from: &Bytes,
        now: Timestamp,
        conflicts: u32,
    ) -> Result<Step, Error> {
        let (token, _) = origin(base)?;
        let entry = if payload.is_empty() {
            None
        } else {
            Some(self.encode(entry_id(&token), base.created(), &payload, Some(from), now)?)
        };
        let outcome = self.backend.exchange(entry_id(&token), expected, entry.clone(), now).await?;
        Ok(match (outcome, entry) {
            (Replaced::Missing, _) => Step::Done(Saved::Ended),
            (Replaced::Conflict(current), _) => match self.format.decode(key_of(base), &current.value) {
                Some(EntryValue::Session(_, payload)) => Step::Conflict(payload, current),
                // It goes on under another token, or whoever overwrote it ended it: not ours any more.
                _ => Step::Done(Saved::Ended),
            },
            (Replaced::Done, None) => Step::Done(Saved::Removed),
            (Replaced::Done, Some(Stored { value, expires })) => {
                let origin = Origin::Stored { token, value };
                let record = Record::new(base.id(), base.created(), expires, payload, origin);
                Step::Done(stored(record, conflicts))
            }
        })
    }

    /// Renews the session: the same value with a later deadline, in one step. A session of a subject that is missing from
    /// the subject's list, since that was evicted or lost, is entered again.
    async fn renew(&self, base: Record, now: Timestamp) -> Result<Saved, Error> {
        let seen = seen(&base)?;
        let expires = self.config.timeouts.deadline(base.created(), now);
        let renewing = self.backend.renew(key_of(&base), seen, expires, now);
        // Where only listed sessions count, what is not listed was ended.
        let subject = if self.list_memo.is_none() { self.listed_subject(base.payload()) } else { None };
        let outcome = match &subject {
            None => renewing.await?,
            Some(subject) => {
                let (outcome, list) = join(renewing, self.list(subject, now)).await;
                let outcome = outcome?;
                if outcome == Replaced::Done {
                    self.enter_again(subject, &base, list, now).await;
                }
                outcome
            }
        };
        match outcome {
            Replaced::Done => Ok(stored(base.until(expires), 0)),
            Replaced::Missing => Ok(Saved::Ended),
            // Another request wrote it, and so renewed it; or gave the browser another token: the answer must not take away
            // the cookie that came with that.
            Replaced::Conflict(present) => match self.format.decode(key_of(&base), &present.value) {
                Some(EntryValue::Session(..)) => Ok(stored(base.until(present.expires.min(expires)), 0)),
                Some(EntryValue::Tombstone) if present.expires == expires => {
                    // The backend moved its deadline, too. A tombstone is not to last as long as a session.
                    self.backend.touch(key_of(&base), self.tombstone_expires(now), now).await?;
                    Ok(Saved::Ended)
                }
                _ => Ok(Saved::Ended),
            },
        }
    }

    /// Ends the session for good.
    async fn remove(&self, record: &Record, now: Timestamp) -> Result<(), Error> {
        self.backend.delete(key_of(record)).await?;
        self.leave(record, now).await;
        Ok(())
    }
}

/// The id of the entry that this token leads to.
fn entry_id(token: &Token) -> EntryId {
    EntryId::from_bytes(token.entry_id())
}

/// The public id of the session that this token leads to.
fn session_id(token: &Token) -> SessionId {
    SessionId::from_bytes(token.session_id())
}

/// The id of the entry that holds this session.
fn key_of(record: &Record) -> EntryId {
    let of_session = || EntryId::from_bytes(record.id().to_bytes());
    record.origin().stored().map_or_else(of_session, |(token, _)| entry_id(token))
}

fn origin(record: &Record) -> Result<(Token, Bytes), Error> {
    let (token, value) = record
        .origin()
        .stored()
        .ok_or_else(|| Error::new(Kind::Internal("a record of another kind of store")))?;
    Ok((token.clone(), value.clone()))
}

/// The entry of the session as it was loaded.
fn seen(record: &Record) -> Result<Stored, Error> {
    let (_, value) = origin(record)?;
    Ok(Stored { value, expires: record.expires() })
}

fn ended_or_stored(created: Option<Record>) -> Saved {
    created.map_or(Saved::Ended, |record| stored(record, 0))
}

fn stored(record: Record, conflicts: u32) -> Saved {
    let token = match record.origin().stored() {
        Some((token, _)) => token.to_text(),
        None => SecretText::new(String::new()),
    };
    Saved::Stored { record, token, conflicts }
}

impl<B: Backend> Store for ServerStore<B> {
    fn config(&self) -> &Config {
        &self.inner.config
    }

    fn load(&self, token: &[u8], now: Timestamp) -> StoreFuture<Result<Record, Refusal>> {
        let Some(token) = self.inner.format.parse_token(token) else {
            return StoreFuture::ready(Ok(Err(Refusal::Encoding)));
        };
        let inner = Arc::clone(&self.inner);
        StoreFuture::boxed(async move { inner.load(token, now).await })
    }

    fn save(&self, base: Option<Record>, changes: Arc<Changes>, now: Timestamp) -> StoreFuture<Saved> {
        let inner = Arc::clone(&self.inner);
        StoreFuture::boxed(async move { inner.save(base, &changes, now).await })
    }

    fn destroy(&self, base: Record, now: Timestamp) -> StoreFuture<()> {
        let inner = Arc::clone(&self.inner);
        StoreFuture::boxed(async move { inner.remove(&base, now).await })
    }

    fn regenerate(&self, base: Record, changes: Arc<Changes>, now: Timestamp) -> StoreFuture<Saved> {
        let inner = Arc::clone(&self.inner);
        StoreFuture::boxed(async move { inner.regenerate(base, &changes, now).await })
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
