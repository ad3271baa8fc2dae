//! Building a `RedisStore`: options, and connecting.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bb8_redis::bb8::{ManageConnection, Pool};
use bb8_redis::redis::aio::ConnectionLike;
use bb8_redis::redis::{AsyncConnectionConfig, RedisError};
use bytes::Bytes;

use super::backend::{Redis, Settings};
use super::fault::{Failure, is_misconfigured};
use super::health::Health;
use super::manager::Manager;
use super::shared_connections::SharedConnections;
use super::tls::Tls;
use super::topology::{Target, target};
use crate::clock::Timestamp;
use crate::crypto::{Random, SystemRandom};
use crate::error::Error;
use crate::id::EntryId;
use crate::store::server::format::SharedFormat;
use crate::store::{Backend, Builder, ServerKind, ServerStore, Stored};

/// Keeps sessions in Redis. The cookie holds an opaque token of 256 random bits, Redis sees a hash of it.
///
/// It needs Redis 6.2, Valkey 7.2 or later. Each of load, save and destroy is one round trip; renewing a deadline and
/// regenerating are two; logging in and out takes a few more, for the list of a subject's sessions.
///
/// # Failure
///
/// No step takes longer than [`checkout_timeout`](Builder::checkout_timeout) and
/// [`command_timeout`](Builder::command_timeout) together. While Redis cannot be reached, requests that need their session
/// get an error at once, those that do not are served as ever, and one in a tenth of a second tries whether it is back. A
/// command whose connection was lost is sent again over another one, at most as many times as the pool has connections.
///
/// # Security
///
/// What is in Redis logs nobody in: entries are named by a hash of the token. With
/// [`seal_records`](Builder::seal_records) it does not reveal sessions either. Redis replicates asynchronously: a master
/// that dies within milliseconds of a logout can take the logout with it. `min-replicas-to-write` narrows that; the guide
/// on deployment has the settings.
///
/// # Examples
///
/// ```no_run
/// use hyper_session::RedisStore;
/// use std::time::Duration;
///
/// # async fn example() -> Result<(), hyper_session::Error> {
/// let store = RedisStore::builder("redis://127.0.0.1:6379")
///     .prefix("shop:session")
///     .idle_timeout(Duration::from_secs(30 * 60))
///     .connect()
///     .await?;
/// # Ok(())
/// # }
/// ```
pub type RedisStore = ServerStore<Redis>;

impl RedisStore {
    /// A builder for a store in the Redis at `url`: `redis://[user:password@]host[:port][/db]`, `unix:///path`,
    /// `redis+sentinel://host,host,host/master-name` or `redis-cluster://host,host`; with TLS `rediss://`,
    /// `rediss+sentinel://` or `rediss-cluster://`.
    pub fn builder(url: impl Into<String>) -> Builder<RedisOptions> {
        Builder::new(RedisOptions {
            url: url.into(),
            prefix: None,
            connections: 2,
            connect_timeout: Duration::from_secs(1),
            checkout_timeout: Duration::from_millis(500),
            command_timeout: Duration::from_millis(500),
            max_entry_len: MAX_ENTRY_LEN,
            tls: Tls::default(),
        })
    }
}

/// 1 MiB: a hundred times what a session should be, and little enough to be read by mistake.
const MAX_ENTRY_LEN: usize = 1 << 20;

/// What a [`RedisStore`] is built from; [`RedisStore::builder`] makes one.
pub struct RedisOptions {
    url: String,
    prefix: Option<String>,
    connections: u32,
    connect_timeout: Duration,
    checkout_timeout: Duration,
    command_timeout: Duration,
    max_entry_len: usize,
    tls: Tls,
}

impl ServerKind for RedisOptions {}

impl Builder<RedisOptions> {
    /// What the names of all entries begin with, followed by `:` and the id. It must be given: it keeps this application's
    /// sessions apart from whatever else is in that Redis.
    ///
    /// 1 to 64 letters, digits, and `:`, `_`, `-`, `.`, `/`. No braces: in a Cluster they would put all sessions on one node.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.kind.prefix = Some(prefix.into());
        self
    }

    /// How many connections are kept. Requests share them, so it is not a limit on requests. Default is 2.
    pub fn connections(mut self, connections: u32) -> Self {
        self.kind.connections = connections;
        self
    }

    /// How long making a connection may take, TLS and login included. Default is 1 second.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.kind.connect_timeout = timeout;
        self
    }

    /// How long a request waits for a connection. Default is 500 ms; it only ever waits while connections are being made.
    pub fn checkout_timeout(mut self, timeout: Duration) -> Self {
        self.kind.checkout_timeout = timeout;
        self
    }

    /// How long a request waits for an answer. Default is 500 ms: a thousand times what Redis takes, and what somebody who
    /// waits for a page still bears.
    pub fn command_timeout(mut self, timeout: Duration) -> Self {
        self.kind.command_timeout = timeout;
        self
    }

    /// The longest entry that is read, in bytes. Default is 1 MiB.
    pub fn max_entry_len(mut self, len: usize) -> Self {
        self.kind.max_entry_len = len;
        self
    }

    /// Whom to trust with TLS: PEM certificates of authorities, instead of those that the system trusts.
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.kind.tls.root = Some(pem.into());
        self
    }

    /// How to prove with TLS who calls: a PEM certificate and its private key.
    pub fn client_certificate(mut self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.kind.tls.client = Some((certificate.into(), key.into()));
        self
    }

    /// Checks the options, connects, and sees that Redis lets the store do what it needs.
    ///
    /// # Errors
    ///
    /// [`is_config`](Error::is_config) if options do not fit together, the URL is not one, or Redis refuses the password or
    /// the commands. [`is_unavailable`](Error::is_unavailable) if Redis cannot be reached or does not answer; the
    /// [source](std::error::Error::source) says why.
    pub async fn connect(self) -> Result<RedisStore, Error> {
        let shared = self.server.shared_format;
        let (options, builder) = self.with_kind(());
        let redis = options.connect(shared).await?;
        let ((), builder) = builder.with_kind(redis);
        builder.build()
    }
}

impl RedisOptions {
    async fn connect(self, shared: Option<SharedFormat>) -> Result<Redis, Error> {
        let default = shared.map(|shared| shared.redis_prefix);
        let prefix = self.prefix.as_deref().or(default).ok_or_else(|| {
            Error::config("which sessions are this application's? Name them with prefix(), for example \"shop:session\"")
        })?;
        let settings =
            Settings::new(prefix, self.checkout_timeout, self.command_timeout, self.max_entry_len)?;
        if self.connections == 0 || self.connect_timeout.is_zero() {
            return Err(Error::config("connections() and connect_timeout() are more than zero"));
        }
        let target = target(&self.url, &self.tls, self.connect_timeout, self.command_timeout)?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout))
            .set_response_timeout(Some(self.command_timeout));
        let health = Arc::new(Health::new());
        // A cluster's connection has several timers one after the other, and so is no good without ours.
        let handles = (!matches!(target, Target::Cluster(_))).then(|| Arc::new(SharedConnections::new()));
        let manager =
            Manager::new(target, config, self.connect_timeout, Arc::clone(&health), handles.clone());
        let pool = Pool::builder()
            .max_size(self.connections)
            .min_idle(self.connections)
            // Connections are shared and never idle. One that breaks says so, which costs no round trip to find out.
            .max_lifetime(None)
            .idle_timeout(None)
            .test_on_check_out(true)
            // Whoever waits is told at once that there is none; the next request tries again.
            .retry_connection(false)
            .connection_timeout(self.checkout_timeout)
            .build(manager)
            .await
            .map_err(|error| refused(&error))?;
        let mut redis = Redis::new(pool, health, settings);
        redis.handles = handles;
        if let Some(shared) = shared {
            redis = redis.with_framing(shared.redis_framing);
        }
        redis.check().await.map_err(not_allowed)?;
        Ok(redis)
    }
}

impl Settings {
    pub(super) fn new(
        prefix: &str,
        checkout_timeout: Duration,
        command_timeout: Duration,
        max_entry_len: usize,
    ) -> Result<Self, Error> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":_-./".contains(&byte);
        if prefix.is_empty() || prefix.len() > 64 || !prefix.bytes().all(allowed) {
            return Err(Error::config("a prefix has 1 to 64 letters, digits, and : _ - . /"));
        }
        if checkout_timeout.is_zero() || command_timeout.is_zero() {
            return Err(Error::config("checkout_timeout() and command_timeout() are more than zero"));
        }
        Ok(Self { prefix: prefix.to_owned(), checkout_timeout, command_timeout, max_entry_len })
    }
}

impl<M> Redis<M>
where
    M: ManageConnection<Error = RedisError>,
    M::Connection: ConnectionLike + Clone + Sync,
{
    /// A backend over a pool that the application has already, with its entries under `prefix`. For
    /// [`ServerStore::with_backend`].
    ///
    /// Deadlines are the defaults of [`RedisStore::builder`]. What the pool's manager takes for a broken connection is its
    /// own affair: bb8-redis' manager finds out by a PING before each request, and without that
    /// (`test_on_check_out(false)`) never.
    ///
    /// # Errors
    ///
    /// [`is_config`](Error::is_config) if the prefix is not one. It does not connect.
    pub fn from_pool(pool: Pool<M>, prefix: &str) -> Result<Self, Error> {
        let timeout = Duration::from_millis(500);
        let settings = Settings::new(prefix, timeout, timeout, MAX_ENTRY_LEN)?;
        Ok(Self::new(pool, Arc::new(Health::new()), settings))
    }

    /// Goes through the life of an entry: whoever may not do that, or talks to a replica, will not be able to keep
    /// sessions either. The entry is nobody's session, and gone afterwards.
    async fn check(&self) -> Result<(), Error> {
        let mut id = [0; 16];
        SystemRandom.fill(&mut id)?;
        let id = EntryId::from_bytes(id);
        let lived = self.live(id).await;
        // Also where it did not come to its end. What cannot be removed goes by itself, after seconds.
        self.delete(id).await.and(lived)
    }

    async fn live(&self, id: EntryId) -> Result<(), Error> {
        let now = Timestamp::from_unix(0);
        let entry = |value: &'static [u8], expires| Stored {
            value: Bytes::from_static(value),
            expires: Timestamp::from_unix(expires),
        };
        self.create(id, entry(b"1", 5), now).await?;
        self.replace(id, Bytes::from_static(b"1"), Some(entry(b"2", 5)), now).await?;
        self.touch(id, Timestamp::from_unix(10), now).await?;
        if self.fetch(id, now).await?.is_none_or(|found| found.value != entry(b"2", 10).value) {
            return Err(Failure::Lost("an entry was not found again as it was written").into());
        }
        Ok(())
    }
}

/// What Redis will not allow later either is for whoever set it up.
fn not_allowed(error: Error) -> Error {
    let failure = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<Failure>());
    match failure {
        Some(failure) if failure.is_lasting() => Error::config(format!(
            "{failure}, but the store needs GET, DEL, EVALSHA and EVAL, and in scripts SET, GETRANGE, SETRANGE and PEXPIRE, \
             on keys that begin with its prefix"
        )),
        _ => error,
    }
}

fn refused(error: &RedisError) -> Error {
    let failure = Failure::connecting(error);
    if is_misconfigured(error) { Error::config(failure.to_string()) } else { failure.into() }
}

impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL may hold a password.
        f.debug_struct("RedisOptions").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}
