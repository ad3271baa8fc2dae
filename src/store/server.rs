//! Sessions on the server, over any backend: identity, deadlines, merging and the order of writes.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::builder::ServerOptions;
use super::codec::{Codec, Value};
use super::turns::Turns;
use super::{Backend, Builder, Replaced, Saved, Store, StoreFuture, Stored};
use crate::clock::Timestamp;
use crate::config::Config;
use crate::crypto::{Purpose, Random, Sealer, SecretText, SystemRandom, Token};
use crate::error::{Error, Kind};
use crate::event::Refusal;
use crate::session::{Changes, Origin, Payload, Record, SessionId};

/// How often a save takes in newer state before it gives up. Those of one process take turns, so this many other
/// processes must be in the way, each time.
pub(super) const MAX_ATTEMPTS: u32 = 256;

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
    pub(super) inner: Arc<Inner<B>>,
}

pub(super) struct Inner<B> {
    pub(super) config: Config,
    pub(super) backend: B,
    pub(super) codec: Codec,
    pub(super) max_sessions_per_subject: usize,
    pub(super) turns: Turns,
    /// Those of subjects' lists: they are taken while a turn of a session is held, never the other way round.
    pub(super) list_turns: Turns,
    random: Arc<dyn Random>,
}

/// What a save found and did.
pub(super) enum Step {
    Done(Saved),
    /// Another request was first; this is what it left.
    Conflict(Payload, Bytes),
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
        let (backend, config, ServerOptions { record_keys, max_sessions_per_subject }) =
            builder.validate()?;
        if config.with_astra && record_keys.is_some() {
            return Err(Error::config(
                "Astra reads no sealed sessions: drop seal_records(), or beside_astra() once Astra is gone",
            ));
        }
        let seal = |keys| Sealer::new(&keys, Purpose::Record, config.cookie_name(), Arc::clone(&random));
        let sealer = record_keys.map(seal).transpose()?;
        let with_astra = config.with_astra;
        let codec = Codec { format: config.format, sealer, random: Arc::clone(&random), with_astra };
        let (turns, list_turns) = (Turns::new(), Turns::new());
        Ok(Self { config, backend, codec, max_sessions_per_subject, turns, list_turns, random })
    }

    fn id(&self, token: &Token) -> SessionId {
        SessionId::from_bytes(token.id(self.config.cookie_name()))
    }

    /// The token of this text, if it has the form: anything else never reaches the backend (T39).
    #[cfg_attr(not(feature = "astra"), allow(clippy::unused_self))]
    fn parse(&self, text: &[u8]) -> Option<Token> {
        #[cfg(feature = "astra")]
        if self.codec.with_astra {
            return Token::parse_astra(text);
        }
        Token::parse(text)
    }

    /// A new token, straight from the generator.
    fn generate(&self) -> Result<Token, Error> {
        #[cfg(feature = "astra")]
        if self.codec.with_astra {
            return Token::generate_astra(&*self.random);
        }
        Token::generate(&*self.random)
    }

    async fn load(&self, token: Token, now: Timestamp) -> Result<Result<Record, Refusal>, Error> {
        let id = self.id(&token);
        let Some(stored) = self.backend.fetch(key(&token, id), now).await? else {
            return Ok(Err(Refusal::UnknownId));
        };
        Ok(self.decode(id, token, stored, now))
    }

    fn decode(&self, id: SessionId, token: Token, stored: Stored, now: Timestamp) -> Result<Record, Refusal> {
        let (created, payload) = match self.codec.read(id, &stored.value) {
            Some(Value::Session(created, payload)) => (created.unwrap_or(now), payload),
            Some(Value::Regenerated) => return Err(Refusal::Regenerated),
            Some(Value::Index(_)) | None => return Err(Refusal::Payload),
        };
        // A backend that keeps entries for too long does not keep sessions for too long.
        let expires = stored.expires.min(created.saturating_add(self.config.timeouts.absolute));
        if now >= expires {
            return Err(Refusal::Expired);
        }
        Ok(Record::new(id, created, expires, payload, Origin::Stored { token, value: stored.value }))
    }

    /// The entry of these values, which came from the stored value `from`, if they did.
    fn encode(
        &self,
        id: SessionId,
        created: Timestamp,
        payload: &Payload,
        from: Option<&Bytes>,
        now: Timestamp,
    ) -> Result<Stored, Error> {
        let value = self.codec.session(id, created, payload, from, now)?;
        Ok(Stored { value, expires: self.config.timeouts.deadline(created, now) })
    }

    /// Stores a session that was not there, under a new token. One that belongs to a subject is entered among that
    /// subject's sessions first, so that whoever ends them all finds it, and counts only if it is still there afterwards.
    /// `instead_of` is the id that it is about to replace, `from` the stored value that its values came from. `None` if the
    /// subject's sessions were ended meanwhile.
    pub(super) async fn create(
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
            let token = self.generate()?;
            let id = self.id(&token);
            let entry = self.encode(id, created, &payload, from, now)?;
            if let Some(subject) = &subject
                && !self.enter(subject, id, instead_of, created, now).await?
            {
                return Ok(None);
            }
            if self.backend.create(key(&token, id), entry.clone(), now).await? {
                if let Some(subject) = &subject
                    && !self.is_entered(subject, id, now).await?
                {
                    self.backend.delete(key(&token, id)).await?;
                    return Ok(None);
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
            return self.create(now, payload, None, None, now).await.map(ended_or_stored);
        };
        if changes.is_empty() {
            return self.touch(base, now).await;
        }
        let (_, mut expected) = origin(&base)?;
        let mut payload = changes.apply(Some(base.payload()))?;
        let mut turn = None;
        for conflicts in 0..MAX_ATTEMPTS {
            match self.replace(&base, expected.clone(), payload, &expected, now, conflicts).await? {
                Step::Done(saved) => return Ok(saved),
                Step::Conflict(current, value) => {
                    payload = changes.replay(Some(&current))?;
                    expected = value;
                    if turn.is_none() {
                        turn = Some(self.turns.of(base.id()).lock().await);
                    }
                }
            }
        }
        Err(Error::new(Kind::Conflict { attempts: MAX_ATTEMPTS }))
    }

    /// Puts `payload`, which came from the stored value `from`, in the place of `expected`, or removes the entry if nothing
    /// is left.
    pub(super) async fn replace(
        &self,
        base: &Record,
        expected: Bytes,
        payload: Payload,
        from: &Bytes,
        now: Timestamp,
        conflicts: u32,
    ) -> Result<Step, Error> {
        let (token, _) = origin(base)?;
        let entry = if payload.is_empty() {
            None
        } else {
            Some(self.encode(base.id(), base.created(), &payload, Some(from), now)?)
        };
        let outcome = self.backend.replace(key(&token, base.id()), expected, entry.clone(), now).await?;
        Ok(match (outcome, entry) {
            (Replaced::Missing, _) => Step::Done(Saved::Ended),
            (Replaced::Conflict(current), _) => match self.codec.read(base.id(), &current.value) {
                Some(Value::Session(_, payload)) => Step::Conflict(payload, current.value),
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

    async fn touch(&self, base: Record, now: Timestamp) -> Result<Saved, Error> {
        let expires = self.config.timeouts.deadline(base.created(), now);
        if !self.backend.touch(key_of(&base), expires, now).await? {
            return Ok(Saved::Ended);
        }
        // What was touched may be what a regenerate left in the session's place: the answer must not take away the cookie
        // that the regenerate gave.
        let present = self.backend.fetch(key_of(&base), now).await?;
        match present.and_then(|stored| self.codec.read(base.id(), &stored.value)) {
            Some(Value::Session(..)) => Ok(stored(base.until(expires), 0)),
            Some(Value::Regenerated) => {
                // A mark is no session, and is not to last as long as one.
                self.backend.touch(key_of(&base), self.mark_expires(now), now).await?;
                Ok(Saved::Ended)
            }
            _ => Ok(Saved::Ended),
        }
    }

    /// Ends the session for good.
    pub(super) async fn remove(&self, record: &Record, now: Timestamp) -> Result<(), Error> {
        self.backend.delete(key_of(record)).await?;
        self.leave(record, now).await;
        Ok(())
    }
}

/// What the backend knows the session of this token by.
fn key(token: &Token, id: SessionId) -> SessionId {
    token.stored_under().map_or(id, SessionId::from_bytes)
}

/// What the backend knows this session by.
pub(super) fn key_of(record: &Record) -> SessionId {
    record.origin().stored().map_or(record.id(), |(token, _)| key(token, record.id()))
}

pub(super) fn origin(record: &Record) -> Result<(Token, Bytes), Error> {
    let (token, value) = record
        .origin()
        .stored()
        .ok_or_else(|| Error::new(Kind::Internal("a record of another kind of store")))?;
    Ok((token.clone(), value.clone()))
}

pub(super) fn ended_or_stored(created: Option<Record>) -> Saved {
    created.map_or(Saved::Ended, |record| stored(record, 0))
}

pub(super) fn stored(record: Record, conflicts: u32) -> Saved {
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
        let Some(token) = self.inner.parse(token) else {
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
#[path = "server_tests.rs"]
mod tests;
