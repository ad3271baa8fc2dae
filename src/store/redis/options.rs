//! Building a `RedisStore`: options, and connecting.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::backend::Redis;
use super::connection_options::{ConnectionOptions, connection_setters};
use super::eviction::evicting_policy;
use super::fault::Failure;
use super::limits::patience;
use super::near_cache_options::NearCache;
use super::resolver::Resolver;
use super::settings::{EntrySettings, MAX_ENTRY_LEN, TIMEOUT};
use super::stats::Counters;
use super::tracker::Tracking;
use crate::clock::Clock;
use crate::error::Error;
use crate::event::EventKind;
use crate::runtime::check_runtime;
use crate::store::near_cache::RecordCache;
use crate::store::server::ServerStore;
use crate::store::server::format::SharedFormat;
use crate::store::{Builder, ServerKind, Verbs as _};

/// A store that keeps sessions in Redis. The cookie holds an opaque token of 256 random bits; Redis sees a hash of it.
///
/// It needs Redis 6.2 or Valkey 7.2, or later. Loading, saving, renewing and ending a session take one round trip each.
/// Regenerating takes two. If a user is logged in, it takes five, because of the session list. Logging in takes four to nine.
///
/// # Failure
///
/// No step takes longer than [`checkout_timeout`](Builder::checkout_timeout) and
/// [`command_timeout`](Builder::command_timeout) together. A command whose connection is lost, or silent for half of the
/// command timeout, is sent again over another connection within that time. While a server does not answer, requests
/// that need a session on it fail at once, and one request in a tenth of a second tries it. In a Cluster, the sessions
/// of other nodes are served as usual.
///
/// # Security
///
/// A reader of Redis cannot log in with its contents: entries are named by a hash of the token. With
/// [`seal_records`](Builder::seal_records) the sessions' values are hidden, too. Redis replicates asynchronously: a
/// master that dies within milliseconds of a logout can lose the logout. `min-replicas-to-write` narrows that; the
/// guide on deployment has the settings.
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
    /// Returns a builder for a store in the Redis at `url`: `redis://[user:password@]host[:port][/db]`, `unix:///path`,
    /// `redis+sentinel://host,host,host/master-name` or `redis-cluster://host,host`; with TLS `rediss://`,
    /// `rediss+sentinel://` or `rediss-cluster://`. `?protocol=resp3` at the end selects RESP3.
    pub fn builder(url: impl Into<String>) -> Builder<RedisOptions> {
        Builder::new(RedisOptions {
            connection: ConnectionOptions::new(url.into()),
            prefix: None,
            checkout_timeout: TIMEOUT,
            command_timeout: TIMEOUT,
            max_entry_len: MAX_ENTRY_LEN,
            scripts_only: false,
            near_cache: None,
        })
    }
}

/// The options of a [`RedisStore`], from [`RedisStore::builder`].
#[derive(Clone)]
pub struct RedisOptions {
    connection: ConnectionOptions,
    prefix: Option<String>,
    checkout_timeout: Duration,
    command_timeout: Duration,
    max_entry_len: usize,
    scripts_only: bool,
    near_cache: Option<NearCache>,
}

impl ServerKind for RedisOptions {}
impl crate::store::server_builder::sealed::Sealed for RedisOptions {}

impl Builder<RedisOptions> {
    connection_setters!(kind.connection);

    /// Sets the beginning of the names of all entries, followed by `:` and the id. It must be set: it separates this
    /// application's sessions from other data in that Redis.
    ///
    /// # Limits
    ///
    /// 1 to 64 letters, digits, and `:`, `_`, `-`, `.`, `/`. No braces: in a Cluster they would put all sessions on one node.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.kind.prefix = Some(prefix.into());
        self
    }

    /// Sets how many connections are kept to each server, or to each node of a Cluster. Default: 2. Requests share
    /// them, so this does not limit requests.
    pub fn connections(mut self, connections: u32) -> Self {
        self.kind.connection.connections = connections;
        self
    }

    /// Sets how long an attempt to make a connection may take, TLS and login included. Default: 1 second.
    ///
    /// A server or proxy that closes the connection at HELLO needs three connections, each of which may take this long.
    ///
    /// While requests wait for a connection, another attempt begins beside a silent one after a quarter of it, or after half of the
    /// [`checkout_timeout`](Self::checkout_timeout) if that is shorter. The pauses double up to a sixteenth of it, if that is longer.
    /// The first connection counts. At most four attempts are under way. Behind Sentinel, each attempt asks the next sentinel, they
    /// begin after half of that time, and there is one for each sentinel in any case.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.kind.connection.connect_timeout = timeout;
        self
    }

    /// Sets how long a request waits for a connection. Default: 500 ms. A request waits only while connections are
    /// being made.
    pub fn checkout_timeout(mut self, timeout: Duration) -> Self {
        self.kind.checkout_timeout = timeout;
        self
    }

    /// Sets how long a request waits for a reply. Default: 500 ms, a thousand times what Redis takes. After half of it, the
    /// command is sent once more over a fresh connection.
    pub fn command_timeout(mut self, timeout: Duration) -> Self {
        self.kind.command_timeout = timeout;
        self
    }

    /// Sets the length of the longest entry, in bytes. Default: 1 MiB. Saving a longer session fails with
    /// [`is_too_large`](Error::is_too_large).
    ///
    /// # Limits
    ///
    /// At most 512 MiB, and long enough for a session list of
    /// [`max_sessions_per_subject`](Self::max_sessions_per_subject) sessions (66 bytes each, and 656 more). A list that
    /// was written under a higher limit is still read, if it has at most 1 MiB.
    pub fn max_entry_len(mut self, len: usize) -> Self {
        self.kind.max_entry_len = len;
        self
    }

    /// Compares and sets entries by scripts even if the server can do it itself (`SET … IFEQ`: Valkey 8.1, Redis 8.4).
    /// Default: the server's own way, if it has one.
    pub fn scripts_only(mut self) -> Self {
        self.kind.scripts_only = true;
        self
    }

    /// Keeps sessions that were read in the memory of this process, for as long as Redis reports their changes. Default: off.
    ///
    /// A read of such a session takes no round trip. In return, a session that another process has ended can still be
    /// accepted here, for at most [`max_staleness`](NearCache::max_staleness): see [`NearCache`].
    #[doc(alias = "CachingSessionStore")]
    pub fn near_cache(mut self, options: NearCache) -> Self {
        self.kind.near_cache = Some(options);
        self
    }

    /// Checks the options, connects, and checks that Redis permits every command that the store needs.
    ///
    /// An [`EventKind::EvictionPolicy`] reports a Redis that may delete sessions in use to free memory. In a Cluster, each master is
    /// asked.
    ///
    /// # Errors
    ///
    /// [`is_config`](Error::is_config) if options do not fit together, the URL is not valid or names servers of another
    /// kind, no tokio runtime runs, or Redis refuses the password or the commands. The message names what to change.
    /// [`is_unavailable`](Error::is_unavailable) if Redis cannot be reached or does not answer; the
    /// [source](std::error::Error::source) gives the reason.
    ///
    /// # Panics
    ///
    /// In a tokio runtime without timers or I/O, as tokio's own connections do. `enable_all` of tokio's builder enables both.
    pub async fn connect(self) -> Result<RedisStore, Error> {
        check_runtime()?;
        let shared = self.server.shared_format;
        let clock = Arc::clone(&self.options.settings.clock);
        let (options, builder) = self.with_kind(());
        let redis = options.connect(shared, &*clock).await?;
        let evicts = |policy: &str| policy != "noeviction";
        let policy = evicting_policy(&redis.transport, redis.settings.command_timeout, evicts).await;
        let near_cache = redis.near_cache.clone();
        let ((), mut builder) = builder.with_kind(redis);
        builder.server.near_cache.clone_from(&near_cache);
        let store = builder.build()?;
        if let Some(near_cache) = near_cache {
            near_cache.report_to(store.config().reporter());
        }
        if let Some(policy) = policy {
            store.config().emit(EventKind::EvictionPolicy { policy: &policy });
        }
        Ok(store)
    }
}

impl RedisOptions {
    async fn connect(self, shared: Option<SharedFormat>, clock: &dyn Clock) -> Result<Redis, Error> {
        let default = shared.map(|shared| shared.redis_prefix);
        let prefix = self.prefix.as_deref().or(default).ok_or_else(|| {
            Error::config("the names of this application's sessions must have a prefix: set prefix(), for example \"shop:session\"")
        })?;
        let settings =
            EntrySettings::new(prefix, self.checkout_timeout, self.command_timeout, self.max_entry_len)?;
        self.connection.check()?;
        let scripts_only = self.scripts_only;
        let counters = Arc::new(Counters::default());
        let tracking = match self.near_cache {
            Some(_) if shared.is_some() => {
                return Err(Error::config(
                    "near_cache() must be off where sessions are shared with another program, which does not compare before \
                     it writes",
                ));
            }
            Some(options) => Some(Arc::new(self.tracking(options, &settings)?)),
            None => None,
        };
        let transport = self.connection.transport(&counters, tracking.clone(), self.checkout_timeout)?;
        transport.connect().await.map_err(Failure::at_startup)?;
        let mut redis = Redis::new(transport, counters, settings);
        redis.near_cache = tracking.map(|tracking| Arc::clone(&tracking.cache));
        if let Some(shared) = shared {
            redis = redis.with_framing(shared.redis_framing);
        }
        redis.check(scripts_only, clock).await?;
        Ok(redis)
    }

    fn tracking(&self, options: NearCache, settings: &EntrySettings) -> Result<Tracking, Error> {
        options.check()?;
        Ok(Tracking {
            cache: Arc::new(RecordCache::new(options.max_bytes)),
            prefix: format!("{}:", settings.prefix),
            max_staleness: options.max_staleness,
            patience: patience(settings.command_timeout),
            connect_timeout: self.connection.connect_timeout,
        })
    }
}

/// Returns the builder of a store that asks `look_up` for the addresses of a host and a port, instead of the system's resolver.
/// For tests.
pub fn look_up_names_by<F>(
    mut builder: Builder<RedisOptions>,
    look_up: impl Fn(String, u16) -> F + Send + Sync + 'static,
) -> Builder<RedisOptions>
where
    F: Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static,
{
    builder.kind.connection.resolver = Resolver::new(look_up);
    builder
}

impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL may hold a password.
        f.debug_struct("RedisOptions").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}
