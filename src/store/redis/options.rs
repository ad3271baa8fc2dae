//! Building a `RedisStore`: options, and connecting.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::backend::{Redis, Settings};
use super::cluster::Cluster;
use super::credentials::{Credentials, Provider};
use super::dialer::{Access, Dialer, Sentinels, Target};
use super::fault::Failure;
use super::near_cache_options::NearCache;
use super::node::{Node, patience};
use super::stats::Counters;
use super::tls::Tls;
use super::tracker::Tracking;
use super::transport::Transport;
use super::url::{Kind, Url};
use crate::clock::Timestamp;
use crate::error::Error;
use crate::event::EventKind;
use crate::runtime::check_runtime;
use crate::store::near_cache::RecordCache;
use crate::store::server::format::SharedFormat;
use crate::store::server::session_list::SessionList;
use crate::store::{Builder, ServerKind, ServerStore, Store as _};

/// A store that keeps sessions in Redis. The cookie holds an opaque token of 256 random bits; Redis sees a hash of it.
///
/// It needs Redis 6.2 or Valkey 7.2, or later. Loading, saving, renewing and ending a session take one round trip each,
/// regenerating takes two. Logging in and out takes a few more, for the session list.
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
        Builder::new(RedisOptions::new(url.into()))
    }
}

impl RedisOptions {
    pub(super) fn new(url: String) -> Self {
        Self {
            url,
            prefix: None,
            connections: 2,
            connect_timeout: Duration::from_secs(1),
            checkout_timeout: Duration::from_millis(500),
            command_timeout: Duration::from_millis(500),
            max_entry_len: MAX_ENTRY_LEN,
            credentials: None,
            provider: None,
            tls: Tls::default(),
            sentinel_credentials: None,
            sentinel_tls: None,
            sentinel_root: None,
            scripts_only: false,
            near_cache: None,
        }
    }
}

/// 1 MiB: a hundred times the size that a session should have, and small enough to be read by mistake.
pub(super) const MAX_ENTRY_LEN: usize = 1 << 20;

/// Redis refuses longer strings.
const LONGEST_ENTRY: usize = 512 << 20;

/// The options of a [`RedisStore`], from [`RedisStore::builder`].
#[derive(Clone)]
pub struct RedisOptions {
    pub(super) url: String,
    prefix: Option<String>,
    pub(super) connections: u32,
    pub(super) connect_timeout: Duration,
    checkout_timeout: Duration,
    pub(super) command_timeout: Duration,
    max_entry_len: usize,
    pub(super) credentials: Option<Credentials>,
    pub(super) provider: Option<Provider>,
    pub(super) tls: Tls,
    pub(super) sentinel_credentials: Option<Credentials>,
    pub(super) sentinel_tls: Option<bool>,
    pub(super) sentinel_root: Option<Vec<u8>>,
    scripts_only: bool,
    near_cache: Option<NearCache>,
}

impl ServerKind for RedisOptions {}
impl crate::store::builder::sealed::Sealed for RedisOptions {}

impl Builder<RedisOptions> {
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
        self.kind.connections = connections;
        self
    }

    /// Sets how long making a connection may take, TLS and login included. Default: 1 second.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.kind.connect_timeout = timeout;
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
    /// [`max_sessions_per_subject`](Self::max_sessions_per_subject) sessions (about 70 bytes each).
    pub fn max_entry_len(mut self, len: usize) -> Self {
        self.kind.max_entry_len = len;
        self
    }

    /// Sets user and password, instead of those in the URL. They are not escaped here.
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.kind.credentials = Some(credentials);
        self
    }

    /// Sets a function that is asked for user and password before each connection is made: for passwords that change, such
    /// as the tokens of a cloud's IAM.
    ///
    /// A connection stays logged in when the password changes. The function should answer from a cache, within the
    /// [`connect_timeout`](Self::connect_timeout). Its error is not logged, since it may hold a secret.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use hyper_session::RedisStore;
    /// use hyper_session::store::redis::Credentials;
    ///
    /// # async fn iam_token() -> Result<String, std::io::Error> { Ok(String::new()) }
    /// # async fn example() -> Result<(), hyper_session::Error> {
    /// let store = RedisStore::builder("rediss://sessions.example.com")
    ///     .prefix("shop:session")
    ///     .credentials_provider(|| async { Ok(Credentials::new("sessions", iam_token().await?)) })
    ///     .connect()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn credentials_provider<F>(mut self, provide: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Credentials, Box<dyn StdError + Send + Sync>>> + Send + 'static,
    {
        self.kind.provider = Some(Provider::new(provide));
        self
    }

    /// Sets user and password of the sentinels. Default: none. The URL's are for Redis itself.
    pub fn sentinel_credentials(mut self, credentials: Credentials) -> Self {
        self.kind.sentinel_credentials = Some(credentials);
        self
    }

    /// Sets whether the sentinels are asked with TLS. Default: the same as for Redis, by the URL's scheme.
    pub fn sentinel_tls(mut self, yes: bool) -> Self {
        self.kind.sentinel_tls = Some(yes);
        self
    }

    /// Sets the authorities whose certificates the sentinels must have, as PEM. Default: the authorities of
    /// [`root_certificates`](Self::root_certificates).
    pub fn sentinel_root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.kind.sentinel_root = Some(pem.into());
        self
    }

    /// Sets the authorities whose certificates the servers must have, as PEM. Default: the authorities that the system
    /// trusts.
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.kind.tls.root = Some(pem.into());
        self
    }

    /// Sets the certificate that authenticates this client, and its private key, both as PEM.
    pub fn client_certificate(mut self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.kind.tls.client = Some((certificate.into(), key.into()));
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
    pub fn near_cache(mut self, options: NearCache) -> Self {
        self.kind.near_cache = Some(options);
        self
    }

    /// Checks the options, connects, and checks that Redis permits every command that the store needs.
    ///
    /// An [`EventKind::EvictionPolicy`] reports a Redis that may delete sessions in use to free memory.
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
        let now = self.options.settings.clock.now();
        let max_sessions = self.server.max_sessions_per_subject;
        let (options, builder) = self.with_kind(());
        let redis = options.connect(shared, max_sessions, now).await?;
        let policy = redis.eviction_policy().await;
        let near_cache = redis.near_cache.clone();
        let ((), mut builder) = builder.with_kind(redis);
        builder.server.near_cache.clone_from(&near_cache);
        let store = builder.build()?;
        if let Some(near_cache) = near_cache {
            near_cache.report_to(store.config().reporter());
        }
        if let Some(policy) = policy.filter(|policy| policy != "noeviction") {
            store.config().emit(EventKind::EvictionPolicy { policy: &policy });
        }
        Ok(store)
    }
}

impl RedisOptions {
    async fn connect(
        self,
        shared: Option<SharedFormat>,
        max_sessions: usize,
        now: Timestamp,
    ) -> Result<Redis, Error> {
        let default = shared.map(|shared| shared.redis_prefix);
        let prefix = self.prefix.as_deref().or(default).ok_or_else(|| {
            Error::config("the names of this application's sessions must have a prefix: set prefix(), for example \"shop:session\"")
        })?;
        let settings =
            Settings::new(prefix, self.checkout_timeout, self.command_timeout, self.max_entry_len)?;
        // Sessions that are shared with another program have no lists.
        if shared.is_none() && SessionList::max_len(max_sessions) > self.max_entry_len {
            return Err(Error::config(
                "max_entry_len() must be long enough for the list of as many sessions as max_sessions_per_subject() allows: \
                 raise the one or lower the other",
            ));
        }
        if self.connections == 0 || self.connect_timeout.is_zero() {
            return Err(Error::config("connections() and connect_timeout() must be more than zero"));
        }
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
        let transport = self.transport(&counters, tracking.clone())?;
        transport.connect().await.map_err(Failure::at_startup)?;
        let mut redis = Redis::new(transport, counters, settings);
        redis.near_cache = tracking.map(|tracking| Arc::clone(&tracking.cache));
        if let Some(shared) = shared {
            redis = redis.with_framing(shared.redis_framing);
        }
        redis.check(scripts_only, now).await?;
        Ok(redis)
    }

    fn tracking(&self, options: NearCache, settings: &Settings) -> Result<Tracking, Error> {
        options.check()?;
        Ok(Tracking {
            cache: Arc::new(RecordCache::new(options.max_bytes)),
            prefix: format!("{}:", settings.prefix),
            max_staleness: options.max_staleness,
            patience: patience(settings.command_timeout),
            connect_timeout: self.connect_timeout,
        })
    }

    pub(super) fn transport(
        self,
        counters: &Arc<Counters>,
        tracking: Option<Arc<Tracking>>,
    ) -> Result<Transport, Error> {
        let url = Url::parse(&self.url)?;
        if url.tls {
            self.tls.check()?;
        } else if self.tls.is_configured() && self.sentinel_tls != Some(true) {
            return Err(Error::config(
                "certificates are given for a Redis without TLS: the URL must begin with rediss://, rediss+sentinel:// or \
                 rediss-cluster://",
            ));
        }
        let access = Access {
            credentials: self.credentials.or(url.credentials),
            provider: self.provider,
            db: url.db,
            protocol: url.protocol,
            tls: url.tls.then(|| self.tls.clone()),
            timeout: self.connect_timeout,
        };
        let sentinel_tls = self.sentinel_tls.unwrap_or(url.tls);
        let about_sentinels = self.sentinel_credentials.is_some()
            || self.sentinel_tls.is_some()
            || self.sentinel_root.is_some();
        if about_sentinels && !matches!(url.kind, Kind::Sentinels(..)) {
            return Err(Error::config(
                "sentinel_credentials(), sentinel_tls() and sentinel_root_certificates() need a URL that names sentinels: \
                 redis+sentinel://host,…/master-name",
            ));
        }
        if self.sentinel_root.is_some() && !sentinel_tls {
            return Err(Error::config(
                "sentinel_root_certificates() is given for sentinels without TLS: call sentinel_tls(true), or begin the URL \
                 with rediss+sentinel://",
            ));
        }
        let counters = Arc::clone(counters);
        let target = match url.kind {
            Kind::Cluster(seeds) => {
                let cluster = Cluster::new(seeds, Arc::new(access), self.connections, counters, tracking);
                return Ok(Transport::Cluster(Arc::new(cluster)));
            }
            Kind::Server(address) => Target::Server(address),
            Kind::Sentinels(addresses, master) => {
                let root = self.sentinel_root.or(self.tls.root);
                let tls = sentinel_tls.then_some(Tls { root, client: self.tls.client });
                if let Some(tls) = &tls {
                    tls.check()?;
                }
                let addresses =
                    addresses.into_iter().map(|address| with_tls(address, sentinel_tls)).collect();
                let sentinel_access = Access {
                    credentials: self.sentinel_credentials,
                    provider: None,
                    db: 0,
                    protocol: url.protocol,
                    tls,
                    timeout: self.connect_timeout,
                };
                Target::Sentinels(Sentinels::new(addresses, &master, sentinel_access, url.tls))
            }
        };
        let dialer = Dialer::new(target, Arc::new(access));
        Ok(Transport::One(Arc::new(Node::new(dialer, self.connections, counters, tracking))))
    }
}

/// Returns the same address, with TLS or without.
fn with_tls(address: bb8_redis::redis::ConnectionAddr, tls: bool) -> bb8_redis::redis::ConnectionAddr {
    use bb8_redis::redis::ConnectionAddr::{Tcp, TcpTls};
    match address {
        Tcp(host, port) | TcpTls { host, port, .. } => super::dialer::server_address(&host, port, tls),
        other => other,
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
            return Err(Error::config("prefix() must be 1 to 64 letters, digits, and : _ - . /"));
        }
        if checkout_timeout.is_zero() || command_timeout.is_zero() {
            return Err(Error::config("checkout_timeout() and command_timeout() must be more than zero"));
        }
        if max_entry_len == 0 || max_entry_len > LONGEST_ENTRY {
            return Err(Error::config("max_entry_len() must be more than zero and at most 512 MiB"));
        }
        Ok(Self { prefix: prefix.to_owned(), checkout_timeout, command_timeout, max_entry_len })
    }
}

impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL may hold a password.
        f.debug_struct("RedisOptions").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}
