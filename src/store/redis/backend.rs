//! The primitives on Redis: one round trip each, within a deadline.

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};
use std::time::Duration;

use bb8_redis::bb8::{ManageConnection, Pool};
use bb8_redis::redis::aio::ConnectionLike;
use bb8_redis::redis::{Cmd, RedisError, Value, cmd};
use bytes::Bytes;

use super::application_pool::Bb8Pool;
use super::commands::get;
use super::compare_and_set::Way;
use super::fault::{Failure, Trouble, code, is_out_of_memory, unexpected};
use super::health::Health;
use super::limits::Limits;
use super::scripts::{DEADLINE_LEN, Framing, NATIVE, Scripts};
use super::settings::{EntrySettings, MAX_ENTRY_LEN, TIMEOUT};
use super::stats::{Counters, RedisStats};
use super::transport::Transport;
use crate::clock::Timestamp;
use crate::error::{Error, Kind};
use crate::id::EntryId;
use crate::store::backend::{EVEN_IF_EXPIRED, RETENTION};
use crate::store::near_cache::{RecordCache, Ticket, Writing};
use crate::store::server::session_list::LONGEST_LIST;
use crate::store::{Backend, Replaced, Stored};

/// The [`Backend`] behind [`RedisStore`](crate::RedisStore).
pub struct Redis {
    pub(super) transport: Transport,
    pub(super) settings: EntrySettings,
    pub(super) scripts: Scripts,
    pub(super) counters: Arc<Counters>,
    pub(super) near_cache: Option<Arc<RecordCache>>,
    /// The code of the [`Way`] that the next step takes.
    way: AtomicU8,
    /// That of the way which the server supported when the store connected.
    best: AtomicU8,
    /// By how many seconds the server's clock is ahead of this host's.
    ahead: AtomicI64,
}

/// Redis' time to live decides whether an entry is alive. A live entry whose deadline has passed by this host's clock
/// is read as expiring this much later, so that its renewal is due.
const ALIVE: Duration = Duration::from_secs(1);

/// How long an answer waits for a step that it does not depend on: longer than Redis takes in the same region, and too short for
/// a user to notice.
const OPTIONAL: Duration = Duration::from_millis(50);

impl Redis {
    pub(super) fn new(transport: Transport, counters: Arc<Counters>, settings: EntrySettings) -> Self {
        Self {
            transport,
            settings,
            scripts: Scripts::new(&NATIVE),
            counters,
            near_cache: None,
            way: AtomicU8::new(Way::Scripts.to_code()),
            best: AtomicU8::new(Way::Scripts.to_code()),
            ahead: AtomicI64::new(0),
        }
    }

    /// Creates a backend over a pool of the application, with its entries under `prefix`. For
    /// [`ServerStore::with_backend`](crate::ServerStore::with_backend).
    ///
    /// The timeouts are the defaults of [`RedisStore::builder`](crate::RedisStore::builder), unless
    /// [`with_timeouts`](Self::with_timeouts) sets others. Entries are compared and set by scripts. The pool's manager decides
    /// when a connection is broken. That of bb8-redis sends a PING before each request; without it
    /// (`test_on_check_out(false)`), it never notices. A silent connection fails the requests that use it.
    ///
    /// # Errors
    ///
    /// [`is_config`](Error::is_config) if the prefix is not valid. This method does not connect.
    ///
    /// # Limits
    ///
    /// - A master that became a replica refuses writes for as long as the pool keeps the connections to it: READONLY retires none
    ///   of them.
    /// - The sockets have the options that the manager gives them. That of bb8-redis leaves `TCP_NODELAY` off, so a request may wait
    ///   until an earlier one of the same connection was acknowledged.
    pub fn from_pool<M>(pool: Pool<M>, prefix: &str) -> Result<Self, Error>
    where
        M: ManageConnection<Error = RedisError>,
        M::Connection: ConnectionLike + Clone + Sync,
    {
        let settings = EntrySettings::new(prefix, TIMEOUT, TIMEOUT, MAX_ENTRY_LEN)?;
        let counters = Arc::new(Counters::default());
        let pool = Bb8Pool { pool, health: Health::new(), counters: Arc::clone(&counters) };
        Ok(Self::new(Transport::Pool(Box::new(pool)), counters, settings))
    }

    /// Sets how long a request waits for a connection, and then for a reply. For [`from_pool`](Self::from_pool); a
    /// [`RedisStore`](crate::RedisStore) has [options](crate::store::Builder::command_timeout) for that.
    ///
    /// # Errors
    ///
    /// [`is_config`](Error::is_config) if one of them is zero.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use hyper_session::ServerStore;
    /// use hyper_session::store::redis::Redis;
    /// use std::time::Duration;
    ///
    /// # fn example(
    /// #     pool: bb8_redis::bb8::Pool<bb8_redis::RedisConnectionManager>,
    /// # ) -> Result<(), hyper_session::Error> {
    /// let second = Duration::from_secs(1);
    /// let backend = Redis::from_pool(pool, "shop:session")?.with_timeouts(second, second)?;
    /// let store = ServerStore::with_backend(backend).build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_timeouts(mut self, checkout: Duration, command: Duration) -> Result<Self, Error> {
        let EntrySettings { prefix, max_entry_len, .. } = &self.settings;
        self.settings = EntrySettings::new(prefix, checkout, command, *max_entry_len)?;
        Ok(self)
    }

    /// Returns the same backend with another framing of its entries.
    pub(crate) fn with_framing(mut self, framing: &'static Framing) -> Self {
        self.scripts = Scripts::new(framing);
        self.set_way(Way::Scripts);
        self
    }

    /// Returns the figures of connections and commands since the store was made.
    pub fn stats(&self) -> RedisStats {
        RedisStats::new(&self.transport.connected(), &self.counters, self.near_cache.as_deref())
    }

    pub(super) fn way(&self) -> Way {
        Way::from_code(self.way.load(Ordering::Relaxed))
    }

    pub(super) fn set_way(&self, way: Way) {
        self.best.store(way.to_code(), Ordering::Relaxed);
        self.way.store(way.to_code(), Ordering::Relaxed);
    }

    pub(super) fn set_ahead(&self, seconds: i64) {
        self.ahead.store(seconds, Ordering::Relaxed);
    }

    pub(super) fn key(&self, id: EntryId) -> String {
        let prefix = &self.settings.prefix;
        let mut key = String::with_capacity(prefix.len() + 33);
        let _ = write!(key, "{prefix}:{id}"); // a String takes everything
        key
    }

    /// Returns a guard for a write of the entry. When it is dropped, the near-cache drops its copy.
    fn writing(&self, id: EntryId) -> Option<Writing<'_>> {
        self.near_cache.as_ref().map(|cache| cache.writing(id))
    }

    /// Returns the limits of a step that begins now.
    pub(super) fn limits(&self) -> Limits {
        Limits::of_step(self.settings.checkout_timeout, self.settings.command_timeout)
    }

    pub(super) async fn send(&self, key: &str, command: &Cmd, limits: &Limits) -> Result<Value, Trouble> {
        Counters::add(&self.counters.commands);
        self.transport.send(key, command, limits, &self.counters).await
    }

    pub(super) fn failed(&self, trouble: Trouble) -> Error {
        Counters::add(&self.counters.failures);
        trouble.into()
    }

    /// Returns the way in which a step is to be sent again that was sent in the way `used` and failed. Later steps take it, too.
    ///
    /// It is the scripts if the server does not support the command, since an older server may have taken over. It is the server's
    /// own way again if the user may not run scripts: that server may have been replaced, or only one node of a Cluster is older.
    fn other_way(&self, used: Way, trouble: &Trouble) -> Option<Way> {
        let Trouble::Reply(error) = trouble else { return None };
        let other = match (code(error), used) {
            (Some("ERR"), Way::CompareAndSet(_)) => Way::Scripts,
            (Some("NOPERM"), Way::Scripts) => Way::from_code(self.best.load(Ordering::Relaxed)),
            _ => return None,
        };
        // Judged by the way that was used, and not by the present one, which another step may have switched meanwhile.
        (other != used).then(|| {
            self.way.store(other.to_code(), Ordering::Relaxed);
            other
        })
    }

    /// Checks a replacement, which may be too long if it is not longer than what it replaces: a list that was written under a
    /// higher limit shrinks, and its sessions are flagged.
    fn check_growth(&self, seen: &Stored, entry: &Stored) -> Result<(), Error> {
        if entry.value.len() > seen.value.len() { self.__check_len(entry.value.len()) } else { Ok(()) }
    }

    /// Returns the entry in a reply, if it has at most `longest` bytes. `None` if the value is too short for an entry.
    fn entry(&self, answer: Value, now: Timestamp, longest: usize) -> Result<Option<Stored>, Error> {
        // Checked before it is copied or decoded (T78): no session has that size.
        let len = match &answer {
            Value::BulkString(frame) => frame.len(),
            Value::Array(parts) => match parts.first() {
                Some(Value::BulkString(value)) => value.len(),
                _ => return Err(self.failed(unexpected().into())),
            },
            _ => return Err(self.failed(unexpected().into())),
        };
        if len > longest {
            return Err(self.failed(Failure::TooLarge(len).into()));
        }
        let found = (self.scripts.framing.unframe)(answer, now);
        Ok(found.map(|stored| self.by_this_clock(stored)))
    }

    /// Returns the same entry with its deadline by this host's clock.
    fn by_this_clock(&self, stored: Stored) -> Stored {
        if !self.scripts.framing.has_deadline {
            return stored;
        }
        Stored { expires: shifted(stored.expires, -self.ahead.load(Ordering::Relaxed)), ..stored }
    }

    /// Returns an entry whose deadline has passed by this host's clock, unless Redis keeps it only for requests that
    /// loaded it in time. The clocks may have drifted since they were compared: Redis' time to live decides.
    async fn if_alive(
        &self,
        key: &str,
        found: Stored,
        now: Timestamp,
        limits: &Limits,
    ) -> Result<Option<Stored>, Error> {
        let mut ask = cmd("PTTL");
        ask.arg(key);
        let left = match self.send(key, &ask, limits).await {
            Ok(Value::Int(millis)) => u64::try_from(millis).map_or(Duration::ZERO, Duration::from_millis),
            Ok(_) => return Err(self.failed(unexpected().into())),
            // Where the user may not ask, or the server does not support the command, the host's clock decides.
            Err(Trouble::Reply(error)) if is_unsupported(&error) => return Ok(None),
            Err(trouble) => return Err(self.failed(trouble)),
        };
        Ok((left > RETENTION).then(|| Stored { expires: now.saturating_add(ALIVE), ..found }))
    }

    /// Returns the same entry with its deadline by the server's clock.
    fn by_server_clock(&self, stored: Stored) -> Stored {
        Stored { expires: shifted(stored.expires, self.ahead.load(Ordering::Relaxed)), ..stored }
    }

    async fn fetch_within(
        &self,
        key: &str,
        now: Timestamp,
        longest: usize,
        limits: &Limits,
    ) -> Result<Option<Stored>, Error> {
        let answer = match self.scripts.fetch(key) {
            Some(call) => self.run(&call, limits).await,
            None => self.send(key, &get(key), limits).await,
        };
        let found = self.unframed(answer.map_err(|trouble| self.failed(trouble))?, now, longest)?;
        self.alive(found, key, now, limits).await
    }

    /// Returns the entry in the answer to a fetch.
    fn unframed(&self, answer: Value, now: Timestamp, longest: usize) -> Result<Option<Stored>, Error> {
        match answer {
            Value::Nil => Ok(None),
            answer => self.entry(answer, now, longest),
        }
    }

    /// Returns the entry that was fetched, if it is alive.
    async fn alive(
        &self,
        found: Option<Stored>,
        key: &str,
        now: Timestamp,
        limits: &Limits,
    ) -> Result<Option<Stored>, Error> {
        match found {
            Some(found) if found.expires <= now => self.if_alive(key, found, now, limits).await,
            found => Ok(found),
        }
    }

    /// Replaces or deletes an entry. `new` is the entry with its time to live. Deadlines are by the server's clock.
    async fn try_exchange(
        &self,
        way: Way,
        key: &str,
        seen: &Stored,
        new: Option<(&Stored, &Bytes)>,
        now: Timestamp,
        limits: &Limits,
    ) -> Result<Replaced, Trouble> {
        let answer = match new {
            Some((entry, lifetime)) => {
                let is_renewal = entry.value == seen.value;
                match self.replace_frame(way, key, seen, entry, lifetime, limits).await {
                    Err(Trouble::Reply(error))
                        if is_renewal && is_out_of_memory(&error) && self.scripts.framing.has_deadline =>
                    {
                        let outcome = Box::pin(self.extend(key, &entry.value, lifetime, limits)).await?;
                        return Ok(match outcome {
                            Replaced::Conflict(present) => Replaced::Conflict(self.by_this_clock(present)),
                            other => other,
                        });
                    }
                    answer => answer?,
                }
            }
            None => match self.remove_frame(way, key, seen, limits).await? {
                // The first attempt removed it, and its reply was lost.
                Some(Value::Int(0) | Value::Nil) if limits.repetition.is_noted() => None,
                answer => answer,
            },
        };
        match answer {
            None | Some(Value::Int(1)) => Ok(Replaced::Done),
            Some(Value::Int(0) | Value::Nil) => Ok(Replaced::Missing),
            Some(answer) => match (self.scripts.framing.unframe)(answer, now) {
                Some(present) => Ok(Replaced::Conflict(self.by_this_clock(present))),
                None => Ok(Replaced::Missing),
            },
        }
    }
}

impl Backend for Redis {
    async fn fetch(&self, id: EntryId, now: Timestamp) -> Result<Option<Stored>, Error> {
        self.fetch_within(&self.key(id), now, self.settings.max_entry_len, &self.limits()).await
    }

    async fn __fetch_list(&self, id: EntryId, now: Timestamp) -> Result<Option<Stored>, Error> {
        let longest = self.settings.max_entry_len.max(LONGEST_LIST);
        self.fetch_within(&self.key(id), now, longest, &self.limits()).await
    }

    async fn __fetch_watched(
        &self,
        id: EntryId,
        now: Timestamp,
    ) -> Result<(Option<Stored>, Option<Ticket>), Error> {
        let (key, limits, longest) = (self.key(id), self.limits(), self.settings.max_entry_len);
        if self.near_cache.is_some() {
            if let Some((answer, ticket)) = Box::pin(self.transport.read_tracked(&key, id, &limits)).await {
                Counters::add(&self.counters.commands);
                let found = self.unframed(answer, now, longest)?;
                // Of an entry that outlives its deadline, Redis is asked each time.
                let ticket = found.as_ref().filter(|found| found.expires > now).map(|_| ticket);
                return Ok((self.alive(found, &key, now, &limits).await?, ticket));
            }
        }
        Ok((self.fetch_within(&key, now, longest, &limits).await?, None))
    }

    async fn create(&self, id: EntryId, entry: Stored, now: Timestamp) -> Result<bool, Error> {
        self.__check_len(entry.value.len())?;
        // An entry that has expired does not count.
        let Some(lifetime) = self.scripts.framing.lifetime(entry.expires, now) else { return Ok(true) };
        let (key, limits) = (self.key(id), self.limits());
        let _writing = self.writing(id);
        let frame = self.scripts.frame(&self.by_server_clock(entry.clone()));
        let way = self.way();
        let mut created = self.create_frame(way, &key, &frame, lifetime.clone(), &limits).await;
        if let Some(other) = created.as_ref().err().and_then(|trouble| self.other_way(way, trouble)) {
            created = Box::pin(self.create_frame(other, &key, &frame, lifetime, &limits)).await;
        }
        if created.map_err(|trouble| self.failed(trouble))? {
            return Ok(true);
        }
        // The present entry may have expired: a session list always has the same id.
        let Some(present) = self.__fetch_list(id, EVEN_IF_EXPIRED).await? else { return Ok(false) };
        if present.expires > now || self.__fetch_list(id, now).await?.is_some() {
            return Ok(false);
        }
        Ok(self.exchange(id, present, Some(entry), now).await? == Replaced::Done)
    }

    async fn replace(
        &self,
        id: EntryId,
        expected: Bytes,
        entry: Option<Stored>,
        now: Timestamp,
    ) -> Result<Replaced, Error> {
        // The entry's deadline is unknown: with the new one, a first comparison fails and returns it.
        let expires = entry.as_ref().map_or(now, |entry| entry.expires);
        self.exchange(id, Stored { value: expected, expires }, entry, now).await
    }

    async fn exchange(
        &self,
        id: EntryId,
        seen: Stored,
        entry: Option<Stored>,
        now: Timestamp,
    ) -> Result<Replaced, Error> {
        if let Some(entry) = &entry {
            self.check_growth(&seen, entry)?;
        }
        let (key, limits) = (self.key(id), self.limits());
        let _writing = self.writing(id);
        let lifetime = entry.as_ref().and_then(|entry| self.scripts.framing.lifetime(entry.expires, now));
        let (seen, entry) = (self.by_server_clock(seen), entry.map(|entry| self.by_server_clock(entry)));
        // An entry that has expired does not count.
        let new = entry.as_ref().zip(lifetime.as_ref());
        let way = self.way();
        let mut outcome = self.try_exchange(way, &key, &seen, new, now, &limits).await;
        if let Some(other) = outcome.as_ref().err().and_then(|trouble| self.other_way(way, trouble)) {
            outcome = Box::pin(self.try_exchange(other, &key, &seen, new, now, &limits)).await;
        }
        outcome.map_err(|trouble| self.failed(trouble))
    }

    async fn renew(
        &self,
        id: EntryId,
        seen: Stored,
        expires: Timestamp,
        now: Timestamp,
    ) -> Result<Replaced, Error> {
        let entry = Stored { value: seen.value.clone(), expires };
        self.exchange(id, seen, Some(entry), now).await
    }

    async fn touch(&self, id: EntryId, expires: Timestamp, now: Timestamp) -> Result<bool, Error> {
        let (key, limits) = (self.key(id), self.limits());
        let _writing = self.writing(id);
        let Some(lifetime) = self.scripts.framing.lifetime(expires, now) else {
            let mut delete = cmd("DEL");
            delete.arg(&key);
            let deleted = self.send(&key, &delete, &limits).await.map_err(|trouble| self.failed(trouble))?;
            return Ok(matches!(deleted, Value::Int(1)));
        };
        if self.way() == Way::Scripts {
            let expires = shifted(expires, self.ahead.load(Ordering::Relaxed));
            let call = self.scripts.touch(&key, expires, lifetime);
            match self.run(&call, &limits).await {
                Ok(Value::Int(answer @ (0 | 1))) => return Ok(answer == 1),
                Ok(_) => return Err(self.failed(unexpected().into())),
                Err(trouble) if self.other_way(Way::Scripts, &trouble).is_none() => {
                    return Err(self.failed(trouble));
                }
                Err(_) => {}
            }
        }
        let mut present = self.fetch(id, now).await?;
        while let Some(seen) = present {
            let entry = Stored { value: seen.value.clone(), expires };
            present = match self.exchange(id, seen, Some(entry), now).await? {
                Replaced::Done => return Ok(true),
                Replaced::Missing => None,
                Replaced::Conflict(newer) => Some(newer),
            };
        }
        Ok(false)
    }

    async fn delete(&self, id: EntryId) -> Result<(), Error> {
        let (key, limits) = (self.key(id), self.limits());
        let _writing = self.writing(id);
        let mut delete = cmd("DEL");
        delete.arg(&key);
        match self.send(&key, &delete, &limits).await.map_err(|trouble| self.failed(trouble))? {
            Value::Int(_) => Ok(()),
            _ => Err(self.failed(unexpected().into())),
        }
    }

    async fn __patience(&self) {
        tokio::time::sleep(OPTIONAL).await;
    }

    async fn __after_steps(&self, steps: u32) {
        let step = self.settings.checkout_timeout.saturating_add(self.settings.command_timeout);
        tokio::time::sleep(step.saturating_mul(steps)).await;
    }

    fn __check_len(&self, len: usize) -> Result<(), Error> {
        let deadline = if self.scripts.framing.has_deadline { DEADLINE_LEN } else { 0 };
        let (size, limit) = (len.saturating_add(deadline), self.settings.max_entry_len);
        if size > limit { Err(Error::new(Kind::EntryTooLarge { size, limit })) } else { Ok(()) }
    }

    fn time(&self, now: Timestamp) -> Timestamp {
        shifted(now, self.ahead.load(Ordering::Relaxed))
    }
}

fn shifted(time: Timestamp, seconds: i64) -> Timestamp {
    Timestamp::from_unix(time.as_unix().saturating_add_signed(seconds))
}

/// Returns true if the user may not run a command, or the server or a proxy before it does not have it. Another error of the general
/// kind, such as that of a proxy whose server is gone, says nothing about the command.
fn is_unsupported(error: &RedisError) -> bool {
    let says = |text: &str| error.detail().is_some_and(|detail| detail.to_ascii_lowercase().contains(text));
    match error.code() {
        Some("NOPERM") => true,
        Some("ERR") => says("unknown command") || says("unsupported command"),
        _ => false,
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("prefix", &self.settings.prefix).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use bb8_redis::RedisConnectionManager;
    use bb8_redis::redis::parse_redis_value;

    use super::super::compare_and_set::Removal;
    use super::*;

    #[test]
    fn only_an_unknown_or_denied_command_is_unsupported() {
        for (reply, expected) in [
            ("-ERR unknown command 'PTTL', with args beginning with: 'k' ", true),
            ("-ERR Unknown command", true),
            ("-NOPERM User s has no permissions to run the 'pttl' command", true),
            ("-ERR upstream failure", false),
            ("-ERR", false),
            ("-LOADING unknown command", false),
        ] {
            let reply = parse_redis_value(format!("{reply}\r\n").as_bytes());
            let error = reply.and_then(Value::extract_error).unwrap_err();
            assert_eq!(is_unsupported(&error), expected, "{error}");
        }
    }

    /// An older server takes over, and later a server that compares and sets again.
    #[tokio::test]
    async fn a_user_that_may_not_run_scripts_recovers_when_the_older_server_is_gone() {
        let manager = RedisConnectionManager::new("redis://127.0.0.1").unwrap();
        let redis = Redis::from_pool(Pool::builder().build_unchecked(manager), "test").unwrap();
        let other = |used: Way, reply: &[u8]| {
            let error = parse_redis_value(reply).and_then(Value::extract_error).unwrap_err();
            redis.other_way(used, &Trouble::Reply(error))
        };
        let (unknown, denied) = (&b"-ERR unknown command\r\n"[..], &b"-NOPERM no permissions\r\n"[..]);
        for reply in [unknown, denied] {
            assert_eq!(other(Way::Scripts, reply), None, "there is no other way");
        }
        let best = Way::CompareAndSet(Removal::DelIfEq);
        redis.set_way(best);
        assert_eq!(other(best, denied), None);
        // Of several steps under way, each is sent again.
        for _ in 0..2 {
            assert_eq!((other(best, unknown), redis.way()), (Some(Way::Scripts), Way::Scripts));
        }
        assert_eq!(other(Way::Scripts, unknown), None);
        for _ in 0..2 {
            assert_eq!((other(Way::Scripts, denied), redis.way()), (Some(best), best));
        }
    }
}
