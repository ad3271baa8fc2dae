//! Sessions on the server, over any backend: identity, deadlines, merging and the order of writes.

use std::fmt;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::Mutex;

use super::{Backend, Builder, Replaced, Saved, Store, StoreFuture, Stored};
use crate::clock::Timestamp;
use crate::config::Config;
use crate::crypto::{Random, SecretText, SystemRandom, Token};
use crate::error::{Error, Kind};
use crate::event::Refusal;
use crate::session::{Changes, Origin, Payload, Record, SessionId, StoredHeader};

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
    random: Arc<dyn Random>,
    turns: Turns,
}

/// What a save found and did.
enum Step {
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
        let (backend, config) = self.validate()?;
        Ok(ServerStore {
            inner: Arc::new(Inner { config, backend, random: Arc::new(SystemRandom), turns: Turns::new() }),
        })
    }
}

impl<B: Backend> Inner<B> {
    fn id(&self, token: &Token) -> SessionId {
        SessionId::from_bytes(token.id(self.config.cookie_name()))
    }

    async fn load(&self, token: Token, now: Timestamp) -> Result<Result<Record, Refusal>, Error> {
        let id = self.id(&token);
        let Some(stored) = self.backend.fetch(id, now).await? else {
            return Ok(Err(Refusal::UnknownId));
        };
        Ok(self.decode(token, stored, now))
    }

    fn decode(&self, token: Token, stored: Stored, now: Timestamp) -> Result<Record, Refusal> {
        let (created, payload) = decode_value(&stored.value).ok_or(Refusal::Payload)?;
        // A backend that keeps entries for too long does not keep sessions for too long.
        let expires = stored.expires.min(created.saturating_add(self.config.timeouts.absolute));
        if now >= expires {
            return Err(Refusal::Expired);
        }
        let id = self.id(&token);
        Ok(Record { id, created, expires, payload, origin: Origin::Stored { token, value: stored.value } })
    }

    fn encode(&self, created: Timestamp, payload: &Payload, now: Timestamp) -> Result<Stored, Error> {
        let body = payload.to_format(self.config.format)?;
        let mut value = BytesMut::with_capacity(StoredHeader::LEN + body.len());
        value.put_slice(&StoredHeader { created }.to_bytes());
        value.put_slice(&body);
        Ok(Stored { value: value.freeze(), expires: self.config.timeouts.deadline(created, now) })
    }

    /// Stores a session that was not there, under a new token.
    async fn create(&self, created: Timestamp, payload: Payload, now: Timestamp) -> Result<Record, Error> {
        let entry = self.encode(created, &payload, now)?;
        // 2^128 ids: the second round has never been seen, and the third would mean a broken generator.
        for _ in 0..3 {
            let token = Token::generate(&*self.random)?;
            let id = self.id(&token);
            if self.backend.create(id, entry.clone(), now).await? {
                let Stored { value, expires } = entry;
                return Ok(Record { id, created, expires, payload, origin: Origin::Stored { token, value } });
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
            return self.create(now, payload, now).await.map(|record| stored(record, 0));
        };
        if changes.is_empty() {
            return self.touch(base, now).await;
        }
        let (token, mut expected) = origin(&base)?;
        let mut payload = changes.apply(Some(&base.payload))?;
        let mut turn = None;
        for conflicts in 0..MAX_ATTEMPTS {
            match self.replace(&base, &token, expected, payload, now, conflicts).await? {
                Step::Done(saved) => return Ok(saved),
                Step::Conflict(current, value) => {
                    payload = changes.replay(Some(&current))?;
                    expected = value;
                    if turn.is_none() {
                        turn = Some(self.turns.of(base.id).lock().await);
                    }
                }
            }
        }
        Err(Error::new(Kind::Conflict { attempts: MAX_ATTEMPTS }))
    }

    /// Puts `payload` in the place of `expected`, or removes the entry if nothing is left.
    async fn replace(
        &self,
        base: &Record,
        token: &Token,
        expected: Bytes,
        payload: Payload,
        now: Timestamp,
        conflicts: u32,
    ) -> Result<Step, Error> {
        let entry = if payload.is_empty() { None } else { Some(self.encode(base.created, &payload, now)?) };
        let outcome = self.backend.replace(base.id, expected, entry.clone(), now).await?;
        Ok(match (outcome, entry) {
            (Replaced::Missing, _) => Step::Done(Saved::Ended),
            (Replaced::Conflict(current), _) => match decode_value(&current.value) {
                Some((_, payload)) => Step::Conflict(payload, current.value),
                // Not ours any more: whoever overwrote it ended the session.
                None => Step::Done(Saved::Ended),
            },
            (Replaced::Done, None) => Step::Done(Saved::Removed),
            (Replaced::Done, Some(Stored { value, expires })) => {
                let origin = Origin::Stored { token: token.clone(), value };
                let record = Record { id: base.id, created: base.created, expires, payload, origin };
                Step::Done(stored(record, conflicts))
            }
        })
    }

    async fn touch(&self, base: Record, now: Timestamp) -> Result<Saved, Error> {
        let expires = self.config.timeouts.deadline(base.created, now);
        if self.backend.touch(base.id, expires, now).await? {
            Ok(stored(Record { expires, ..base }, 0))
        } else {
            Ok(Saved::Ended)
        }
    }

    /// Writes the new entry, then removes the old one if it is still what the new one was made from. If it changed
    /// meanwhile, the new entry takes that in first; if it is gone, the session was ended, and the new one goes, too.
    async fn regenerate(&self, base: Record, changes: &Changes, now: Timestamp) -> Result<Saved, Error> {
        let mut new = None;
        let result = self.renew(&base, changes, now, &mut new).await;
        // An entry whose token nobody was given is debris. Where the backend does not answer, its deadline removes it.
        let useless = match &result {
            Ok(saved) => !matches!(saved, Saved::Stored { .. }),
            Err(error) => !error.is_unavailable(),
        };
        if let Some(Record { id, .. }) = new.filter(|_| useless) {
            // If that fails, its deadline removes it; what happened to the session is the answer.
            let _ = self.backend.delete(id).await;
        }
        result
    }

    async fn renew(
        &self,
        base: &Record,
        changes: &Changes,
        now: Timestamp,
        new: &mut Option<Record>,
    ) -> Result<Saved, Error> {
        if changes.restarts() {
            return self.start_over(base, changes, now).await;
        }
        let (_, mut expected) = origin(base)?;
        let mut payload = changes.apply(Some(&base.payload))?;
        let mut turn = None;
        for conflicts in 0..MAX_ATTEMPTS {
            self.write_new(new, base.created, payload, now).await?;
            match self.backend.replace(base.id, expected, None, now).await? {
                Replaced::Done => {
                    return Ok(new.clone().map_or(Saved::Removed, |new| stored(new, conflicts)));
                }
                Replaced::Missing => return Ok(Saved::Ended),
                Replaced::Conflict(current) => {
                    let Some((_, newer)) = decode_value(&current.value) else { return Ok(Saved::Ended) };
                    payload = changes.replay(Some(&newer))?;
                    expected = current.value;
                    if turn.is_none() {
                        turn = Some(self.turns.of(base.id).lock().await);
                    }
                }
            }
        }
        Err(Error::new(Kind::Conflict { attempts: MAX_ATTEMPTS }))
    }

    /// Ends the session and begins another one, which has nothing of it: whether it had ended already makes no difference.
    async fn start_over(&self, base: &Record, changes: &Changes, now: Timestamp) -> Result<Saved, Error> {
        let payload = changes.apply(None)?;
        let new = if payload.is_empty() { None } else { Some(self.create(now, payload, now).await?) };
        self.backend.delete(base.id).await?;
        Ok(new.map_or(Saved::Removed, |new| stored(new, 0)))
    }

    /// Makes the new entry hold `payload`, or be none if that is empty. Nobody else knows its token.
    async fn write_new(
        &self,
        new: &mut Option<Record>,
        created: Timestamp,
        payload: Payload,
        now: Timestamp,
    ) -> Result<(), Error> {
        let Some(written) = new.take() else {
            if !payload.is_empty() {
                *new = Some(self.create(created, payload, now).await?);
            }
            return Ok(());
        };
        let (token, value) = origin(&written)?;
        *new = match self.replace(&written, &token, value, payload.clone(), now, 0).await? {
            Step::Done(Saved::Stored { record, .. }) => Some(record),
            _ if payload.is_empty() => None,
            // The backend lost it meanwhile (eviction): the session must not be lost with it.
            _ => Some(self.create(created, payload, now).await?),
        };
        Ok(())
    }
}

/// Who met a conflict waits for others of this process that did, so that each gets through: without turns, those that
/// come back at once starve those that are late. The first attempt waits for nobody.
struct Turns([Mutex<()>; 64]);

impl Turns {
    fn new() -> Self {
        Self([const { Mutex::const_new(()) }; 64])
    }

    /// The queue of this session. Another session may share it, which costs time and nothing else.
    fn of(&self, id: SessionId) -> &Mutex<()> {
        let [first, ..] = id.to_bytes();
        let Self(queues) = self;
        queues.get(usize::from(first) % queues.len()).unwrap_or(&queues[0])
    }
}

/// Reads header and payload of a stored value.
fn decode_value(value: &Bytes) -> Option<(Timestamp, Payload)> {
    let mut rest = value.clone();
    let header = StoredHeader::take(&mut rest)?;
    Some((header.created, Payload::parse(rest)?))
}

fn origin(record: &Record) -> Result<(Token, Bytes), Error> {
    match &record.origin {
        Origin::Stored { token, value } => Ok((token.clone(), value.clone())),
        Origin::Sealed { .. } => Err(Error::new(Kind::Internal("a record of another kind of store"))),
    }
}

fn stored(record: Record, conflicts: u32) -> Saved {
    let token = match &record.origin {
        Origin::Stored { token, .. } => token.to_text(),
        Origin::Sealed { .. } => SecretText::new(String::new()),
    };
    Saved::Stored { record, token, conflicts }
}

impl<B: Backend> Store for ServerStore<B> {
    fn config(&self) -> &Config {
        &self.inner.config
    }

    fn load(&self, token: &[u8], now: Timestamp) -> StoreFuture<Result<Record, Refusal>> {
        // What has not the form of a token never reaches the backend.
        let Some(token) = Token::parse(token) else {
            return StoreFuture::ready(Ok(Err(Refusal::Encoding)));
        };
        let inner = Arc::clone(&self.inner);
        StoreFuture::boxed(async move { inner.load(token, now).await })
    }

    fn save(&self, base: Option<Record>, changes: Arc<Changes>, now: Timestamp) -> StoreFuture<Saved> {
        let inner = Arc::clone(&self.inner);
        StoreFuture::boxed(async move { inner.save(base, &changes, now).await })
    }

    fn destroy(&self, base: Record, _: Timestamp) -> StoreFuture<()> {
        let inner = Arc::clone(&self.inner);
        StoreFuture::boxed(async move { inner.backend.delete(base.id).await })
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
mod tests {
    use std::future::Future;

    use super::*;
    use crate::crypto::NoRandom;

    /// A backend whose every id is taken.
    struct Full;

    impl Backend for Full {
        async fn fetch(&self, _: SessionId, _: Timestamp) -> Result<Option<Stored>, Error> {
            Ok(None)
        }

        async fn create(&self, _: SessionId, _: Stored, _: Timestamp) -> Result<bool, Error> {
            Ok(false)
        }

        async fn replace(
            &self,
            _: SessionId,
            _: Bytes,
            _: Option<Stored>,
            _: Timestamp,
        ) -> Result<Replaced, Error> {
            Ok(Replaced::Missing)
        }

        async fn touch(&self, _: SessionId, _: Timestamp, _: Timestamp) -> Result<bool, Error> {
            Ok(false)
        }

        async fn delete(&self, _: SessionId) -> Result<(), Error> {
            Ok(())
        }
    }

    fn inner<B: Backend>(backend: B, random: Arc<dyn Random>) -> Inner<B> {
        let (backend, config) = ServerStore::with_backend(backend).validate().unwrap();
        Inner { config, backend, random, turns: Turns::new() }
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(result) => result,
            std::task::Poll::Pending => panic!("the backend is always ready"),
        }
    }

    const NOW: Timestamp = Timestamp::from_unix(1);

    fn payload(bytes: &'static [u8]) -> Payload {
        Payload::parse(Bytes::from_static(bytes)).unwrap()
    }

    fn create(random: Arc<dyn Random>) -> Result<Record, Error> {
        run(inner(Full, random).create(NOW, payload(b"\x81\xa1a\x01"), NOW))
    }

    /// A backend that loses the new entry of a regenerate while another request changes the old one.
    #[derive(Default)]
    struct Evicting {
        created: std::sync::Mutex<Vec<Bytes>>,
        replaced: std::sync::atomic::AtomicU32,
    }

    impl Backend for Evicting {
        async fn fetch(&self, _: SessionId, _: Timestamp) -> Result<Option<Stored>, Error> {
            Ok(None)
        }

        async fn create(&self, _: SessionId, entry: Stored, _: Timestamp) -> Result<bool, Error> {
            self.created.lock().unwrap().push(entry.value);
            Ok(true)
        }

        async fn replace(
            &self,
            _: SessionId,
            _: Bytes,
            entry: Option<Stored>,
            now: Timestamp,
        ) -> Result<Replaced, Error> {
            let round = self.replaced.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            Ok(match (round, entry) {
                (0, None) => {
                    let value = [&StoredHeader { created: now }.to_bytes()[..], b"\x81\xa1a\x02"].concat();
                    Replaced::Conflict(Stored { value: value.into(), expires: Timestamp::MAX })
                }
                (1, Some(_)) => Replaced::Missing,
                (2, None) => Replaced::Done,
                other => panic!("{other:?}"),
            })
        }

        async fn touch(&self, _: SessionId, _: Timestamp, _: Timestamp) -> Result<bool, Error> {
            Ok(false)
        }

        async fn delete(&self, _: SessionId) -> Result<(), Error> {
            Ok(())
        }
    }

    #[test]
    fn a_new_entry_that_was_evicted_is_written_again() {
        let inner = inner(Evicting::default(), Arc::new(SystemRandom));
        let first = run(inner.create(NOW, payload(b"\x81\xa1a\x01"), NOW)).unwrap();
        let saved = run(inner.regenerate(first, &Changes::default(), NOW)).unwrap();
        assert!(matches!(saved, Saved::Stored { .. }), "{saved:?}");
        let created = inner.backend.created.lock().unwrap();
        // The session, its new entry, and the new entry again, with what the other request had changed.
        let values: Vec<_> = created.iter().map(|value| value.last().copied()).collect();
        assert_eq!(values, [Some(1), Some(1), Some(2)]);
    }

    // T14: no random bytes, no session; and a generator that only gives ids that are taken is a broken one.
    #[test]
    fn t14_no_random_no_token() {
        assert!(create(Arc::new(NoRandom)).unwrap_err().is_random());
        assert!(create(Arc::new(SystemRandom)).unwrap_err().is_random());
    }
}
