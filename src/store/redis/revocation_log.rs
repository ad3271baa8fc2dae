//! A log of revocations in Redis: one stream for each prefix, which every process appends to and follows.

use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bb8_redis::redis::{Cmd, FromRedisValue, Value, cmd};
use bytes::Bytes;
use tokio::time::{Instant, sleep_until};

use super::connection_options::{ConnectionOptions, connection_setters};
use super::eviction::evicting_policy;
use super::fault::{Failure, Trouble, a_replica};
use super::limits::{Limits, patience};
use super::scripts::{Call, HashedScript};
use super::settings::TIMEOUT;
use super::stats::Counters;
use super::transport::Transport;
use crate::clock::{Timestamp, bounded};
use crate::error::Error;
use crate::revocation::{Entry, Page, Revocation, RevocationLog, Revocations, SETTLE};

/// How many entries one read returns at most. The server answers other clients in between.
const PAGE: u64 = 1_000;

/// A position is milliseconds and number of an entry's id, in 42 and 20 bits: enough until the year 2109.
const SEQUENCE_BITS: u32 = 20;

/// The longest that one read waits for entries.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// The incarnation of all positions. It is constant, since the milliseconds of ids continue in an emptied Redis.
const INCARNATION: u64 = 0x72_65_64_69_73; // "redis"

/// The first lines of the scripts that append. They set `ms` and `seq`, the next id, which is above the server's clock,
/// the last entry and the position that the caller has seen. They also set `history`, a part of the names of fields.
///
/// The last entry may have been written by another server process, or be missing. Then a failover, a restart or a restored
/// backup may have lost entries behind it, whose positions sessions hold already. The next id leaves room for all of them:
/// it is two hours above the server's clock, which covers a former server whose clock was ahead. A new `history` tells
/// followers about it. The first half of a history names the server process, the second half is the time at which it
/// began, as the lower 32 bits of milliseconds.
///
/// ARGV: milliseconds and number that the caller has seen.
macro_rules! next_id {
    () => {
        "\
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x%x%x%x%x%x%x%x)') or '00000000'
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local seen_ms, seen_seq = tonumber(ARGV[1]), tonumber(ARGV[2])
local last_ms, last_seq, history = 0, 0, ''
if last then
  last_ms, last_seq = string.match(last[1], '(%d+)-(%d+)')
  last_ms, last_seq, history = tonumber(last_ms), tonumber(last_seq), string.sub(last[2][1], 2)
end
local ms, seq = now, 0
local function above(m, s)
  if m > ms or (m == ms and s >= seq) then ms, seq = m, s + 1 end
end
above(seen_ms, seen_seq)
above(last_ms, last_seq)
local goes_on = string.sub(history, 1, 8) == run
if not goes_on then
  ms, seq = math.max(ms, now + 7200000) + 60000, 0
  history = run .. string.format('%08x', now % 4294967296)
end
local function add(kind, value)
  if seq > 1048575 then ms, seq = ms + 1, 0 end
  local id = string.format('%.0f-%.0f', ms, seq)
  redis.call('XADD', KEYS[1], id, kind .. history, value)
  seq = seq + 1
  return id
end
"
    };
}

/// ARGV: as above, then the values. Returns the id of the last entry.
const APPEND_CODE: &str = concat!(
    next_id!(),
    "\
local id
for i = 3, #ARGV do id = add('r', ARGV[i]) end
return id"
);
static APPEND: LazyLock<HashedScript> = LazyLock::new(|| HashedScript::new(APPEND_CODE));

/// ARGV: as above. If the log ends before that, or another history begins, writes an entry that is not a revocation.
/// Returns the id of the last entry.
const TOP_CODE: &str = concat!(
    next_id!(),
    "\
if goes_on and (last_ms > seen_ms or (last_ms == seen_ms and last_seq >= seen_seq)) then return last[1] end
return add('t', '')"
);
static TOP: LazyLock<HashedScript> = LazyLock::new(|| HashedScript::new(TOP_CODE));

/// ARGV: the milliseconds for which entries are kept, by the server's clock. The last entry stays: it holds the
/// position.
const TRIM_CODE: &str = "\
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
if not last then return 0 end
local time = redis.call('TIME')
local ms = time[1] * 1000 + math.floor(time[2] / 1000) - tonumber(ARGV[1])
if ms <= 0 then return 0 end
local m = tonumber(string.match(last[1], '(%d+)-'))
local id = last[1]
if ms <= m then id = string.format('%.0f', ms) end
return redis.call('XTRIM', KEYS[1], 'MINID', '~', id)";
static TRIM: LazyLock<HashedScript> = LazyLock::new(|| HashedScript::new(TRIM_CODE));

/// ARGV: the exclusive beginning and the largest number of entries. Returns the server's time in milliseconds, the id and the
/// field of the last entry, the id of the last entry that was read, how many were read, and the revocations among them in
/// one string: the client library takes a microsecond for each part of a reply. Entries that arrive in between are among
/// them.
///
/// The XTRIM removes nothing, but is a write, which a replica refuses, and a master that was cut off from its replicas: their data
/// may be old. A master that refuses writes because it could not save them to disk (MISCONF) has the newest data, so sessions stay
/// readable. That refusal may hide the other two: Valkey 9 checks the disk before the role, and all check it before the replicas.
const PAGE_CODE: &str = "\
local written = redis.pcall('XTRIM', KEYS[1], 'MINID', '0')
if type(written) == 'table' and written.err then
  if not string.find(written.err, 'MISCONF', 1, true) then return written end
  local replication = redis.call('INFO', 'replication')
  if not string.find(replication, 'role:master', 1, true) then
    return redis.error_reply('READONLY A replica may be behind.')
  end
  if string.find(replication, 'min_slaves_good_slaves:0', 1, true) then
    return redis.error_reply('NOREPLICAS Not enough good replicas to read.')
  end
end
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local entries = redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', ARGV[2])
local parts, n, reached = {}, 0, ''
for i = 1, #entries do
  local fields = entries[i][2]
  reached = entries[i][1]
  if string.byte(fields[1]) == 114 and #fields[2] == 25 then
    parts[n + 1], parts[n + 2] = reached, fields[2]
    n = n + 2
  end
end
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
if not last then return {now, '', '', reached, #entries, ''} end
return {now, last[1], last[2][1], reached, #entries, table.concat(parts, ' ')}";
static PAGES: LazyLock<HashedScript> = LazyLock::new(|| HashedScript::new(PAGE_CODE));

impl Revocations {
    /// Keeps revocations in the Redis at `url`, for any number of machines. The forms of the URL are those of
    /// [`RedisStore::builder`](crate::RedisStore::builder).
    ///
    /// All processes of an application use one stream, `{prefix}:revoked`, and follow it. Another process refuses a
    /// session about a tenth of a millisecond after it was revoked. Reads cost no round trip; a logout costs one, and
    /// so does a login.
    ///
    /// # Security
    ///
    /// The stream holds hashes and random ids. Anyone who can write to it can end sessions, but not begin any.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use hyper_session::{AppKey, CookieStore, Revocations};
    ///
    /// # async fn example(key: AppKey) -> Result<(), hyper_session::Error> {
    /// let revocations = Revocations::redis("redis://127.0.0.1:6379").prefix("shop").connect().await?;
    /// let store = CookieStore::builder(key).revocations(revocations).build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn redis(url: impl Into<String>) -> RedisRevocations {
        RedisRevocations {
            prefix: None,
            connection: ConnectionOptions::new(url.into()),
            command_timeout: TIMEOUT,
        }
    }
}

/// The options of [`Revocations`] in Redis, from [`Revocations::redis`].
#[must_use = "a builder does nothing until it connects"]
pub struct RedisRevocations {
    prefix: Option<String>,
    connection: ConnectionOptions,
    command_timeout: Duration,
}

impl RedisRevocations {
    connection_setters!(connection);

    /// Sets the beginning of the stream's name: 1 to 64 letters, digits, and `:`, `_`, `-`, `.`, `/`. It must be set:
    /// it separates this application from other data in that Redis.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = Some(prefix.into());
        self
    }

    /// Sets how long making a connection may take, and waiting for one. Default: 1 second.
    ///
    /// A server or proxy that closes the connection at HELLO needs three connections, each of which may take this long.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connection.connect_timeout = timeout;
        self
    }

    /// Sets how long a logout or a login waits for a reply. A connection that is silent for half of it is replaced, that which
    /// follows the revocations, too. Default: 500 ms.
    ///
    /// Half of it must be longer than the round trip. Half of it and the time to connect together must be shorter than two fifths of
    /// [`max_staleness`](Revocations::max_staleness), and than ten seconds.
    pub fn command_timeout(mut self, timeout: Duration) -> Self {
        self.command_timeout = timeout;
        self
    }

    /// Connects, reads all revocations, and follows them from now on, in a task of the present tokio runtime, or of a later one
    /// as [`Revocations::open`] says. If Redis was started, or a replica took over, less than a second ago, this waits for a second: other processes write again what
    /// Redis may have lost.
    ///
    /// Each store that is built with these revocations reports a Redis that may delete them to free memory, as
    /// [`EventKind::EvictionPolicy`](crate::EventKind::EvictionPolicy).
    ///
    /// # Errors
    ///
    /// [`is_config`](Error::is_config) if options do not fit together, the URL is not valid, or Redis refuses the
    /// password or the commands. [`is_unavailable`](Error::is_unavailable) if Redis cannot be reached or does not
    /// answer.
    ///
    /// # Panics
    ///
    /// In a tokio runtime that was built without timers and I/O (`enable_all`).
    pub async fn connect(self) -> Result<Revocations, Error> {
        let log = self.into_log().await?;
        // The stream has no time to live, so policies for entries that have one do not evict it.
        let evicts = |policy: &str| policy.starts_with("allkeys");
        let policy = evicting_policy(&log.writer.transport, log.writer.command_timeout, evicts).await;
        let mut revocations = Revocations::open(log).await?;
        revocations.eviction_policy = policy.map(Arc::from);
        Ok(revocations)
    }

    /// Connects to the log only, which [`Revocations::open`] takes: for tools and tests.
    ///
    /// # Errors
    ///
    /// The same as for [`connect`](Self::connect).
    pub async fn into_log(self) -> Result<RedisLog, Error> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":_-./".contains(&byte);
        let prefix = self.prefix.unwrap_or_default();
        if prefix.is_empty() || prefix.len() > 64 || !prefix.bytes().all(allowed) {
            return Err(Error::config(
                "revocations in Redis need a prefix() of 1 to 64 letters, digits, and : _ - . /, for example \"shop\"",
            ));
        }
        let (connect_timeout, command_timeout) = (self.connection.connect_timeout, self.command_timeout);
        if connect_timeout.is_zero() || command_timeout.is_zero() {
            return Err(Error::config("connect_timeout() and command_timeout() must be more than zero"));
        }
        let (connect_timeout, command_timeout) = (bounded(connect_timeout), bounded(command_timeout));
        let link = async |connections: u32| {
            let counters = Arc::new(Counters::default());
            let mut options = self.connection.clone();
            options.connections = connections;
            let transport = options.transport(&counters, None, connect_timeout)?;
            transport.connect().await.map_err(Failure::at_startup)?;
            Ok::<_, Error>(Link { transport, counters, connect_timeout, command_timeout })
        };
        let log = RedisLog {
            key: format!("{prefix}:revoked"),
            writer: link(self.connection.connections).await?,
            // A read that blocks must not hold up a logout, so it has a connection of its own. A second one would be as dead as
            // the first after a fault of the network, and cost the follower as much time again.
            reader: link(1).await?,
        };
        // Tries each command once. An entry that is not a revocation shows that the log can be written to.
        let top = log.top(0).await.map_err(not_allowed)?;
        let top = log.top(top.saturating_add(1)).await.map_err(not_allowed)?;
        log.trim(Duration::from_secs(u64::from(u32::MAX))).await.map_err(not_allowed)?;
        // While the log is followed, a lost connection is not a failure of this command. Here it is.
        let waiting_read = log.waiting_read(top, Duration::from_millis(1));
        log.reader.send(&log.key, &waiting_read).await.map_err(Error::from).map_err(not_allowed)?;
        if log.page(top).await.map_err(not_allowed)?.1 < SETTLE {
            // Processes that were there before write again what the log may have lost.
            tokio::time::sleep(SETTLE).await;
        }
        Ok(log)
    }
}

/// Returns a configuration error for a refusal that lasts until the set-up is changed.
fn not_allowed(error: Error) -> Error {
    let failure = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<Failure>());
    match failure {
        Some(failure) if failure.is_of_a_replica() => a_replica().into(),
        Some(failure) if failure.is_lasting() => Error::config(format!(
            "{failure}, but revocations need EVALSHA, EVAL and XREAD, and in scripts INFO, TIME, XADD, XRANGE, XREVRANGE and \
             XTRIM, on the stream of their prefix"
        )),
        _ => error,
    }
}

/// A stream of Redis as a [`RevocationLog`].
pub struct RedisLog {
    key: String,
    writer: Link,
    reader: Link,
}

/// The connections of a reader or of a writer, and how long a connection and a reply may take.
struct Link {
    transport: Transport,
    counters: Arc<Counters>,
    connect_timeout: Duration,
    command_timeout: Duration,
}

impl Link {
    /// Sends `command`, which may be executed twice without harm.
    async fn send(&self, key: &str, command: &Cmd) -> Result<Value, Trouble> {
        let limits = Limits::of_step(self.connect_timeout, self.command_timeout);
        self.transport.send(key, command, &limits, &self.counters).await
    }

    /// Sends `command`, which the server answers after `wait` at the latest. A connection that is silent for longer is replaced.
    /// After a silence, the command is not sent again.
    async fn send_once(&self, key: &str, command: &Cmd, wait: Duration) -> Result<Value, Trouble> {
        let patience = wait + patience(self.command_timeout);
        let limits = Limits::new(Instant::now() + patience, patience, patience);
        self.transport.send(key, command, &limits, &self.counters).await
    }

    /// Runs a script by its hash, or sends the whole script if the server does not have it.
    async fn run<T: FromRedisValue>(&self, call: &Call<'_>) -> Result<T, Error> {
        let answer = match self.send(call.key, &call.by_hash()).await {
            Err(Trouble::Reply(error)) if error.code() == Some("NOSCRIPT") => {
                self.send(call.key, &call.whole()).await
            }
            answer => answer,
        };
        T::from_redis_value(answer?).map_err(|_| not_understood())
    }
}

fn not_understood() -> Error {
    Failure::Lost("the reply was not of the kind that was asked for").into()
}

impl RedisLog {
    async fn script<T: FromRedisValue>(
        &self,
        script: &HashedScript,
        arguments: Vec<Vec<u8>>,
    ) -> Result<T, Error> {
        self.writer.run(&self.call(script, arguments)).await
    }

    fn call<'a>(&'a self, script: &'a HashedScript, arguments: Vec<Vec<u8>>) -> Call<'a> {
        script.call(&self.key, arguments.into_iter().map(|argument| Bytes::from(argument).into()).collect())
    }

    /// Returns the command that waits until there is an entry behind `after`, but not longer than `wait`.
    fn waiting_read(&self, after: u64, wait: Duration) -> Cmd {
        let (ms, number) = unpack(after);
        let mut command = cmd("XREAD");
        let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
        command.arg("COUNT").arg(1).arg("BLOCK").arg(millis);
        command.arg("STREAMS").arg(&self.key).arg(format!("{ms}-{number}"));
        command
    }

    /// Waits until there is an entry behind `after`, but not longer than `wait`.
    async fn wait_for_entry(&self, after: u64, wait: Duration) -> Result<(), Error> {
        let begun = Instant::now();
        match self.reader.send_once(&self.key, &self.waiting_read(after, wait), wait).await {
            Ok(_) => Ok(()),
            Err(refusal @ Trouble::Reply(_)) => Err(refusal.into()),
            // Without a reply, nothing is known: the page that is read next says what is there, over another connection. A proxy
            // that always closes the connection at this command must not make the follower connect without a pause.
            Err(Trouble::Failed(_)) => {
                sleep_until(begun + wait).await;
                Ok(())
            }
        }
    }

    /// Reads without waiting. Returns how long ago the history began, too.
    async fn page(&self, mut after: u64) -> Result<(Page, Duration), Error> {
        loop {
            let (ms, number) = unpack(after);
            let arguments = vec![format!("({ms}-{number}").into_bytes(), number_text(PAGE)];
            let (now, last, field, reached, count, packed): (u64, String, String, String, u64, Vec<u8>) =
                self.reader.run(&self.call(&PAGES, arguments)).await?;
            let entries = unpack_entries(&packed, Timestamp::from_unix(now / 1_000))?;
            let more = count == PAGE;
            if more && entries.is_empty() {
                // Only entries that raised the log, or are of a later release.
                after = position(&reached)?;
                continue;
            }
            let top = if last.is_empty() { 0 } else { position(&last)? };
            let history = field.get(1..).and_then(|history| u64::from_str_radix(history, 16).ok());
            let history = history.unwrap_or(0);
            let age = Duration::from_millis(now.wrapping_sub(history) & 0xffff_ffff);
            return Ok((Page { entries, top, more, history }, age));
        }
    }
}

/// Reads the revocations of a page: for each the id and the bytes, with a space between all of them.
fn unpack_entries(mut packed: &[u8], now: Timestamp) -> Result<Vec<Entry>, Error> {
    let mut entries = Vec::with_capacity(packed.len() / (Revocation::LEN + 16));
    while !packed.is_empty() {
        let (id, rest) =
            packed.split_at(packed.iter().position(|byte| *byte == b' ').ok_or_else(not_understood)?);
        let position = position(std::str::from_utf8(id).map_err(|_| not_understood())?)?;
        let (value, rest) = rest.split_at_checked(1 + Revocation::LEN).ok_or_else(not_understood)?;
        packed = rest.strip_prefix(b" ").unwrap_or(rest);
        // A revocation of a later release is skipped.
        if let Some(revocation) = value.get(1..).and_then(Revocation::from_bytes) {
            // A history begins ahead of the server's clock.
            let written = Timestamp::from_unix(unpack(position).0 / 1_000).min(now);
            entries.push(Entry { position, written, revocation });
        }
    }
    Ok(entries)
}

impl RevocationLog for RedisLog {
    fn incarnation(&self) -> u64 {
        INCARNATION
    }

    async fn append(&self, revocations: Vec<Revocation>, above: u64) -> Result<u64, Error> {
        let (ms, number) = unpack(above);
        let values = revocations.iter().map(|revocation| revocation.to_bytes().to_vec());
        let arguments = vec![number_text(ms), number_text(number)].into_iter().chain(values).collect();
        position(&self.script::<String>(&APPEND, arguments).await?)
    }

    async fn top(&self, at_least: u64) -> Result<u64, Error> {
        let (ms, number) = unpack(at_least);
        let arguments = vec![number_text(ms), number_text(number)];
        position(&self.script::<String>(&TOP, arguments).await?)
    }

    async fn read(&self, after: u64, wait: Duration) -> Result<Page, Error> {
        if !wait.is_zero() {
            self.wait_for_entry(after, wait.min(LONGEST_WAIT)).await?;
        }
        Ok(self.page(after).await?.0)
    }

    async fn trim(&self, age: Duration) -> Result<(), Error> {
        let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        self.script::<Value>(&TRIM, vec![number_text(age)]).await.map(drop)
    }
}

/// Returns the position of the entry with this id.
fn position(id: &str) -> Result<u64, Error> {
    let parsed = id.split_once('-');
    let parsed = parsed.and_then(|(ms, number)| Some((ms.parse::<u64>().ok()?, number.parse::<u64>().ok()?)));
    match parsed {
        Some((ms, number)) if ms < 1_u64 << 42 && number < 1_u64 << SEQUENCE_BITS => {
            Ok(ms << SEQUENCE_BITS | number)
        }
        _ => Err(Failure::Lost("the stream of revocations has an entry with an id that is not ours").into()),
    }
}

fn number_text(number: u64) -> Vec<u8> {
    number.to_string().into_bytes()
}

fn unpack(position: u64) -> (u64, u64) {
    (position >> SEQUENCE_BITS, position & ((1 << SEQUENCE_BITS) - 1))
}

impl fmt::Debug for RedisRevocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL may hold a password.
        f.debug_struct("RedisRevocations").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl fmt::Debug for RedisLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisLog").field("key", &self.key).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::revocation::GRACE;

    /// A connection that goes silent is replaced within the time after which a read fails, with room for the reply.
    #[test]
    fn by_default_a_read_survives_a_silent_connection() {
        assert!(patience(TIMEOUT) + Duration::from_millis(100) < GRACE);
    }

    #[test]
    fn ids_are_positions_in_their_order() {
        for (id, expected) in [("0-1", 1), ("1-0", 1 << 20), ("1700000000000-7", 1_700_000_000_000 << 20 | 7)]
        {
            assert_eq!(position(id).unwrap(), expected);
            let (ms, number) = unpack(expected);
            assert_eq!(format!("{ms}-{number}"), id);
        }
        for bad in ["", "1", "x-1", "1-x", "1-1048576", "4398046511104-0"] {
            assert!(position(bad).is_err(), "{bad}");
        }
        assert!(position("4398046511103-1048575").unwrap() < 1 << 62);
    }
}
