//! Each kind of store, which can be deployed anew with other options, and a browser.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Response;
use hyper::service::Service;
use hyper_session::store::{Builder, Memory, ServerKind, SessionLimit, Store};
use hyper_session::testing::FakeClock;
use hyper_session::{
    AppKey, Clock, CookieStore, Error, PayloadFormat, Revocations, ServerStore, Session, SessionHandle,
    Timeouts, Timestamp, session_fn,
};

#[cfg(feature = "sqlite")]
use crate::folder::Folder;
use crate::support::{Body, Events, Jar, block_on, request, set_cookies, status};

pub(crate) const START: u64 = 1_000_000;

pub(crate) const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Cookie,
    /// A cookie store with revocations.
    Revocable,
    Server,
    #[cfg(feature = "sqlite")]
    Sqlite,
    #[cfg(feature = "redis")]
    Redis,
}

/// Each kind that this build has and that needs no server.
pub(crate) const KINDS: &[Kind] = &[
    Kind::Cookie,
    Kind::Revocable,
    Kind::Server,
    #[cfg(feature = "sqlite")]
    Kind::Sqlite,
];

impl Kind {
    /// Returns true if the store keeps session lists.
    pub(crate) fn lists(self) -> bool {
        !matches!(self, Self::Cookie | Self::Revocable)
    }

    /// Returns true if the storage has a clock of its own.
    #[cfg_attr(not(feature = "redis"), allow(clippy::unused_self))]
    pub(crate) fn has_own_clock(self) -> bool {
        #[cfg(feature = "redis")]
        if self == Self::Redis {
            return true;
        }
        false
    }
}

/// The options of one deployment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) timeouts: Timeouts,
    pub(crate) anonymous: Option<Timeouts>,
    pub(crate) longest: Option<Duration>,
    pub(crate) format: PayloadFormat,
    pub(crate) max_sessions: usize,
    pub(crate) at_limit: SessionLimit,
}

impl Default for Options {
    fn default() -> Self {
        let timeouts = Timeouts { idle: seconds(100), absolute: seconds(400), renewal: seconds(10) };
        Self {
            timeouts,
            anonymous: None,
            longest: None,
            format: PayloadFormat::MessagePack,
            max_sessions: 100,
            at_limit: SessionLimit::default(),
        }
    }
}

/// An action of a handler on its session.
pub(crate) type Act = fn(&Session) -> Result<(), Error>;

/// How a handler asks for its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    Renews,
    LeavesTheDeadline,
}

pub(crate) struct TestStore {
    pub(crate) kind: Kind,
    pub(crate) clock: FakeClock,
    pub(crate) events: Events,
    pub(crate) store: Arc<dyn Store>,
    kept: Arc<Kept>,
}

/// The keys and entries of a site, which outlive its processes.
struct Kept {
    key: String,
    revocations: Revocations,
    memory: Arc<Memory>,
    #[cfg(feature = "sqlite")]
    folder: Folder,
    /// The URL of the Redis server.
    #[cfg(feature = "redis")]
    redis: String,
}

impl Kept {
    fn new() -> Self {
        Self {
            key: AppKey::generate().unwrap().to_text().to_string(),
            revocations: Revocations::in_memory(),
            memory: Arc::new(Memory::new()),
            #[cfg(feature = "sqlite")]
            folder: Folder::new(),
            #[cfg(feature = "redis")]
            redis: String::new(),
        }
    }
}

impl TestStore {
    pub(crate) async fn new(kind: Kind, options: Options) -> Self {
        Self::with(kind, options, Kept::new()).await
    }

    #[cfg(feature = "redis")]
    pub(crate) async fn on_redis(url: String, options: Options) -> Self {
        Self::with(Kind::Redis, options, Kept { redis: url, ..Kept::new() }).await
    }

    async fn with(kind: Kind, options: Options, kept: Kept) -> Self {
        Self::host(kind, options, START, Arc::new(kept)).await
    }

    async fn host(kind: Kind, options: Options, time: u64, kept: Arc<Kept>) -> Self {
        let (clock, events) = (FakeClock::at(time), Events::new());
        let store = build(kind, options, &clock, &events, &kept).await;
        Self { kind, clock, events, store, kept }
    }

    /// A second host with the same keys and entries, whose clock shows `time`.
    pub(crate) async fn other_host(&self, options: Options, time: u64) -> Self {
        Self::host(self.kind, options, time, Arc::clone(&self.kept)).await
    }

    /// The same keys and entries under other options, in a new process.
    pub(crate) async fn deploy(&mut self, options: Options) {
        self.store = build(self.kind, options, &self.clock, &self.events, &self.kept).await;
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A request whose handler does `act`; the jar takes in what the response sets.
    pub(crate) async fn visit<A, R>(&self, jar: &mut Jar, reading: Reading, act: A) -> (Response<Body>, R)
    where
        A: Fn(&Session) -> Result<R, Error> + Send + Sync,
        R: Send,
    {
        let seen = Mutex::new(None);
        let service = session_fn(Arc::clone(&self.store), |_, handle: SessionHandle| async {
            let handle = handle;
            let session = match reading {
                Reading::Renews => handle.load().await?,
                Reading::LeavesTheDeadline => handle.load_without_renewal().await?,
            };
            *seen.lock().unwrap() = Some(act(&session)?);
            Ok::<_, Error>(status(200))
        });
        let response = service.call(request("/", jar.header().as_deref())).await.expect("a response");
        assert_eq!(response.status(), 200);
        jar.store(response.headers());
        let seen = seen.lock().unwrap().take();
        (response, seen.unwrap())
    }

    pub(crate) async fn edit<A, R>(&self, jar: &mut Jar, act: A) -> R
    where
        A: Fn(&Session) -> Result<R, Error> + Send + Sync,
        R: Send,
    {
        self.visit(jar, Reading::Renews, act).await.1
    }

    /// A request whose handler does `act`, then ends the other sessions of its subject.
    pub(crate) async fn end_others(
        &self,
        jar: &mut Jar,
        act: impl Fn(&Session) -> Result<(), Error> + Send + Sync,
    ) -> Result<Option<usize>, Error> {
        self.end_others_answered(jar, act).await.1
    }

    /// As `end_others`, with the response.
    pub(crate) async fn end_others_answered(
        &self,
        jar: &mut Jar,
        act: impl Fn(&Session) -> Result<(), Error> + Send + Sync,
    ) -> (Response<Body>, Result<Option<usize>, Error>) {
        let ended = Mutex::new(None);
        let service = session_fn(Arc::clone(&self.store), |_, handle: SessionHandle| async {
            let handle = handle;
            let session = handle.load().await?;
            act(&session)?;
            *ended.lock().unwrap() = Some(session.end_other_sessions().await);
            Ok::<_, Error>(status(200))
        });
        let response = service.call(request("/", jar.header().as_deref())).await.unwrap();
        jar.store(response.headers());
        let ended = ended.lock().unwrap().take();
        (response, ended.unwrap())
    }

    /// Returns the result of `look`, in a request that leaves no trace.
    pub(crate) async fn look<L, R>(&self, jar: &Jar, look: L) -> R
    where
        L: Fn(&Session) -> R + Send + Sync,
        R: Send,
    {
        let look = |session: &Session| Ok(look(session));
        self.visit(&mut jar.clone(), Reading::LeavesTheDeadline, look).await.1
    }

    pub(crate) async fn expires(&self, jar: &Jar) -> Option<Timestamp> {
        self.look(jar, Session::expires_at).await
    }

    pub(crate) async fn is_alive(&self, jar: &Jar) -> bool {
        self.expires(jar).await.is_some()
    }
}

#[cfg_attr(not(feature = "redis"), allow(clippy::unused_async))]
async fn build(
    kind: Kind,
    options: Options,
    clock: &FakeClock,
    events: &Events,
    kept: &Kept,
) -> Arc<dyn Store> {
    let cookies = || apply(CookieStore::builder(kept.key.parse::<AppKey>().unwrap()), options, clock, events);
    match kind {
        Kind::Cookie => Arc::new(cookies().build().unwrap()),
        Kind::Revocable => Arc::new(cookies().revocations(kept.revocations.clone()).build().unwrap()),
        Kind::Server => {
            let builder = ServerStore::with_backend(Arc::clone(&kept.memory));
            let builder = apply(builder, options, clock, events);
            Arc::new(limited(builder, options).build().unwrap())
        }
        #[cfg(feature = "sqlite")]
        Kind::Sqlite => {
            // The disk is not what these tests are about.
            let builder = hyper_session::SqliteStore::builder(kept.folder.file())
                .synchronous(hyper_session::store::sqlite::Synchronous::Normal)
                .busy_timeout(seconds(30));
            Arc::new(limited(apply(builder, options, clock, events), options).open().unwrap())
        }
        #[cfg(feature = "redis")]
        Kind::Redis => {
            let builder = hyper_session::RedisStore::builder(&kept.redis)
                .prefix("test")
                .development()
                .checkout_timeout(seconds(30))
                .command_timeout(seconds(30));
            Arc::new(limited(apply(builder, options, clock, events), options).connect().await.unwrap())
        }
    }
}

fn limited<K: ServerKind>(builder: Builder<K>, options: Options) -> Builder<K> {
    builder.max_sessions_per_subject(options.max_sessions).at_session_limit(options.at_limit)
}

fn apply<K>(builder: Builder<K>, options: Options, clock: &FakeClock, events: &Events) -> Builder<K> {
    let mut builder = builder
        .timeouts(options.timeouts)
        .payload_format(options.format)
        .clock(clock.clone())
        .observer(events.clone());
    if let Some(anonymous) = options.anonymous {
        builder = builder.anonymous_timeouts(anonymous);
    }
    if let Some(longest) = options.longest {
        builder = builder.longest_lifetime(longest);
    }
    builder
}

/// Runs a scenario on each kind of store, in both formats of a payload.
pub(crate) fn everywhere_with<T: Future<Output = ()>>(options: Options, scenario: impl Fn(TestStore) -> T) {
    for &kind in KINDS {
        for format in [PayloadFormat::MessagePack, PayloadFormat::Json] {
            println!("{kind:?} store, {format:?}"); // shown if the scenario fails
            block_on(async { scenario(TestStore::new(kind, Options { format, ..options }).await).await });
        }
    }
}

pub(crate) fn everywhere<T: Future<Output = ()>>(scenario: impl Fn(TestStore) -> T) {
    everywhere_with(Options::default(), scenario);
}

/// The `Max-Age` of the one `Set-Cookie` line of a response; `None` if it has none.
pub(crate) fn max_age(response: &Response<Body>) -> Option<u64> {
    let lines = set_cookies(response.headers());
    assert_eq!(lines.len(), 1, "{lines:?}");
    let (_, after) = lines[0].split_once("; Max-Age=")?;
    after.split(';').next().unwrap().parse().ok()
}
