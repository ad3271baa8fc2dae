//! The five primitives on Redis: one round trip each, within a deadline.

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bb8_redis::bb8::{ManageConnection, Pool};
use bb8_redis::redis::aio::ConnectionLike;
use bb8_redis::redis::{Cmd, RedisError, Value, cmd};
use bytes::Bytes;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::connection::Connection;
use super::fault::{Failure, Remedy, remedy};
use super::health::Health;
use super::manager::Manager;
use super::scripts::{Call, Framing, NATIVE, Scripts};
use super::shared_connections::SharedConnections;
use super::stats::{Counters, RedisStats};
use crate::clock::Timestamp;
use crate::error::Error;
use crate::id::EntryId;
use crate::store::{Backend, Replaced, Stored};

/// The [`Backend`] behind [`RedisStore`](super::RedisStore), over a pool of connections that `M` makes.
pub struct Redis<M: ManageConnection = Manager> {
    pub(super) pool: Pool<M>,
    /// Handles of the pool's connections that need no checkout, where the pool is our own.
    pub(super) handles: Option<Arc<SharedConnections>>,
    pub(super) health: Arc<Health>,
    pub(super) settings: Settings,
    pub(super) scripts: Scripts,
    pub(super) counters: Counters,
}

/// How entries are named, and how long anything may take.
pub(super) struct Settings {
    pub(super) prefix: String,
    pub(super) checkout_timeout: Duration,
    pub(super) command_timeout: Duration,
    pub(super) max_entry_len: usize,
}

/// What repeating a step whose answer was lost would do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    /// The same as doing it once.
    Harmless,
    /// Find nothing, and take that for somebody else's doing.
    Misleading,
}

/// Between two attempts while a server is loading, electing or being replaced: the first pause, which doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

impl<M> Redis<M>
where
    M: ManageConnection<Error = RedisError>,
    M::Connection: ConnectionLike + Clone + Sync,
{
    pub(super) fn new(pool: Pool<M>, health: Arc<Health>, settings: Settings) -> Self {
        Self {
            pool,
            handles: None,
            health,
            settings,
            scripts: Scripts::new(&NATIVE),
            counters: Counters::default(),
        }
    }

    /// The same backend with another framing of its entries.
    pub(crate) fn with_framing(mut self, framing: &'static Framing) -> Self {
        self.scripts = Scripts::new(framing);
        self
    }

    /// Figures of the pool and of the commands, since the start.
    pub fn stats(&self) -> RedisStats {
        RedisStats::of(&self.pool.state(), &self.counters, self.health.is_up())
    }

    fn key(&self, id: EntryId) -> String {
        let prefix = &self.settings.prefix;
        let mut key = String::with_capacity(prefix.len() + 33);
        let _ = write!(key, "{prefix}:{id}"); // a String takes everything
        key
    }

    /// When a step that begins now has taken too long.
    fn deadline(&self) -> Instant {
        Instant::now() + self.settings.checkout_timeout + self.settings.command_timeout
    }

    /// A step of one command, which may be done twice.
    async fn step(&self, command: &Cmd) -> Result<Option<Value>, Error> {
        let deadline = self.deadline();
        self.send(command, Repeat::Harmless, deadline, self.at_hand(deadline)).await
    }

    /// Runs a script by its hash, or whole where the server does not have it.
    async fn run(&self, call: &Call<'_>, repeat: Repeat) -> Result<Value, Error> {
        let deadline = self.deadline();
        match self.send(&call.by_hash(), repeat, deadline, self.at_hand(deadline)).await? {
            Some(value) => Ok(value),
            None => match self.send(&call.whole(), repeat, deadline, None).await? {
                Some(value) => Ok(value),
                None => Err(Failure::Refused("NOSCRIPT".to_owned()).into()),
            },
        }
    }

    /// Sends `command` and waits for its answer until `deadline`. `None` if the server does not have the script.
    /// The first attempt is over the connection `at_hand`, if there is one.
    async fn send(
        &self,
        command: &Cmd,
        repeat: Repeat,
        deadline: Instant,
        mut at_hand: Option<Connection>,
    ) -> Result<Option<Value>, Error> {
        let mut pause = FIRST_PAUSE;
        let (mut lost, connections) = (0, self.pool.state().connections);
        self.counters.commands.fetch_add(1, Ordering::Relaxed);
        loop {
            let answer = match at_hand.take() {
                // Its own timer is enough: the step begins here, and has at least the time of a command.
                Some(mut connection) => Ok(connection.send(command).await),
                None => match self.checkout(deadline).await {
                    Ok(mut connection) => timeout_at(deadline, connection.req_packed_command(command)).await,
                    Err(failure) => return Err(self.failed(failure)),
                },
            };
            let error = match answer.map(|answer| answer.and_then(Value::extract_error)) {
                Ok(Ok(value)) => {
                    self.health.answered();
                    return Ok(Some(value));
                }
                Ok(Err(error)) => error,
                Err(_) => return Err(self.timed_out(Failure::TimedOut)),
            };
            if error.code().is_some() {
                // A refusal is an answer, too.
                self.health.answered();
            }
            let again = match remedy(&error) {
                Remedy::SendScript => return Ok(None),
                Remedy::TimedOut => return Err(self.timed_out(Failure::TimedOut)),
                // Whether it was done before the connection was lost is not known: doing it again must make no difference.
                // When a server has gone, each connection in the pool is lost, those that the pool has found out about and let
                // go included; the next one is made anew.
                Remedy::Reconnect => {
                    lost += 1;
                    let connections = connections.max(self.pool.state().connections).max(1);
                    repeat == Repeat::Harmless && lost <= connections
                }
                // Refused, so not done.
                Remedy::Wait | Remedy::Elsewhere => {
                    let next = Instant::now() + pause;
                    pause *= 2;
                    if next < deadline {
                        sleep_until(next).await;
                    }
                    next < deadline
                }
                Remedy::GiveUp => false,
            };
            if !again {
                return Err(self.failed(Failure::of(&error)));
            }
            self.counters.retries.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A handle that is had at once, while all is well, for a step that begins now.
    fn at_hand(&self, deadline: Instant) -> Option<Connection> {
        let connection = self.handles.as_ref().filter(|_| self.health.is_up())?.at(deadline)?;
        self.counters.at_hand.fetch_add(1, Ordering::Relaxed);
        Some(connection)
    }

    /// A handle of a pooled connection. The connection goes back to the pool at once, so that commands of many requests
    /// share it.
    async fn checkout(&self, deadline: Instant) -> Result<M::Connection, Failure> {
        // First: what goes wrong from here on wakes us.
        let failure = self.health.failure();
        if !self.health.admits() {
            self.counters.turned_away.fetch_add(1, Ordering::Relaxed);
            return Err(self.health.cause());
        }
        let deadline = deadline.min(Instant::now() + self.settings.checkout_timeout);
        tokio::select! {
            biased;
            checkout = timeout_at(deadline, self.pool.get()) => {
                if let Ok(Ok(connection)) = checkout {
                    return Ok(connection.clone());
                }
                self.health.timed_out(Failure::NoConnection);
                Err(Failure::NoConnection)
            }
            () = failure => Err(self.health.cause()),
        }
    }

    fn timed_out(&self, failure: Failure) -> Error {
        self.health.timed_out(failure.clone());
        self.failed(failure)
    }

    fn failed(&self, failure: Failure) -> Error {
        self.counters.failures.fetch_add(1, Ordering::Relaxed);
        if matches!(failure, Failure::TimedOut) {
            self.counters.timeouts.fetch_add(1, Ordering::Relaxed);
        }
        failure.into()
    }

    /// The entry in an answer. `None` if what lies there is too short to be one.
    fn entry(&self, answer: Value, now: Timestamp) -> Result<Option<Stored>, Error> {
        // Before anything is made of it (T78): nobody stores sessions of that size.
        let len = match &answer {
            Value::BulkString(frame) => frame.len(),
            Value::Array(parts) => match parts.first() {
                Some(Value::BulkString(value)) => value.len(),
                _ => return Err(self.failed(unexpected(None))),
            },
            _ => return Err(self.failed(unexpected(None))),
        };
        if len > self.settings.max_entry_len {
            return Err(self.failed(Failure::TooLarge(len)));
        }
        Ok(self.scripts.entry(answer, now))
    }
}

impl<M> Backend for Redis<M>
where
    M: ManageConnection<Error = RedisError>,
    M::Connection: ConnectionLike + Clone + Sync,
{
    async fn fetch(&self, id: EntryId, now: Timestamp) -> Result<Option<Stored>, Error> {
        let key = self.key(id);
        if let Some(call) = self.scripts.fetch(&key) {
            return match self.run(&call, Repeat::Harmless).await? {
                Value::Nil => Ok(None),
                answer => self.entry(answer, now),
            };
        }
        let mut get = Cmd::with_capacity(2, 3 + key.len());
        get.arg("GET").arg(key);
        match self.step(&get).await? {
            Some(Value::Nil) => Ok(None),
            Some(answer @ Value::BulkString(_)) => {
                Ok(self.entry(answer, now)?.filter(|stored| stored.expires > now))
            }
            other => Err(self.failed(unexpected(other.as_ref()))),
        }
    }

    async fn create(&self, id: EntryId, entry: Stored, now: Timestamp) -> Result<bool, Error> {
        let key = self.key(id);
        self.yes_or_no(self.scripts.create(&key, &entry, now)).await
    }

    async fn replace(
        &self,
        id: EntryId,
        expected: Bytes,
        entry: Option<Stored>,
        now: Timestamp,
    ) -> Result<Replaced, Error> {
        let key = self.key(id);
        let repeat = if entry.is_some() { Repeat::Harmless } else { Repeat::Misleading };
        let call = self.scripts.replace(&key, expected, entry.as_ref(), now);
        match self.run(&call, repeat).await? {
            Value::Int(1) => Ok(Replaced::Done),
            Value::Int(0) => Ok(Replaced::Missing),
            answer => Ok(self.entry(answer, now)?.map_or(Replaced::Missing, Replaced::Conflict)),
        }
    }

    async fn touch(&self, id: EntryId, expires: Timestamp, now: Timestamp) -> Result<bool, Error> {
        let key = self.key(id);
        self.yes_or_no(self.scripts.touch(&key, expires, now)).await
    }

    async fn delete(&self, id: EntryId) -> Result<(), Error> {
        let mut delete = cmd("DEL");
        delete.arg(self.key(id));
        match self.step(&delete).await? {
            Some(Value::Int(_)) => Ok(()),
            other => Err(self.failed(unexpected(other.as_ref()))),
        }
    }
}

impl<M> Redis<M>
where
    M: ManageConnection<Error = RedisError>,
    M::Connection: ConnectionLike + Clone + Sync,
{
    async fn yes_or_no(&self, call: Call<'_>) -> Result<bool, Error> {
        match self.run(&call, Repeat::Harmless).await? {
            Value::Int(answer @ (0 | 1)) => Ok(answer == 1),
            other => Err(self.failed(unexpected(Some(&other)))),
        }
    }
}

fn unexpected(_: Option<&Value>) -> Failure {
    Failure::Lost("the answer was not of the kind that was asked for")
}

impl<M: ManageConnection> fmt::Debug for Redis<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("prefix", &self.settings.prefix).finish_non_exhaustive()
    }
}
