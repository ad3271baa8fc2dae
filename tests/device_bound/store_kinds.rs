//! The kinds of stores that these tests run on, and what the hosts of a site share of each.

use std::sync::Arc;
#[cfg(feature = "redis")]
use std::sync::{Mutex, Weak};

use hyper_session::cookie::CookieOptions;
use hyper_session::store::{Builder, Memory};
use hyper_session::testing::FakeClock;
use hyper_session::{Clock, CookieStore, DeviceBound, Keyring, Revocations, ServerStore, SystemClock};

#[cfg(feature = "sqlite")]
use crate::folder::Folder;
#[cfg(feature = "redis")]
use crate::server::Server;
use crate::site::{Events, Site, key, observer};
#[cfg(any(feature = "redis", feature = "sqlite"))]
use crate::support::UNHURRIED;

/// A place for sessions that hosts share.
#[derive(Clone)]
pub(crate) enum SharedStorage {
    /// Nowhere but in the cookies.
    Cookies(Revoked),
    Memory(Arc<Memory>),
    #[cfg(feature = "sqlite")]
    Sqlite(Arc<Folder>),
    #[cfg(feature = "redis")]
    Redis(Arc<Server>, String),
}

/// A place for the revocations of a cookie store.
#[derive(Clone)]
pub(crate) enum Revoked {
    Memory(Revocations),
    #[cfg(feature = "sqlite")]
    Sqlite(Arc<Folder>),
    #[cfg(feature = "redis")]
    Redis(Arc<Server>, String),
}

/// The options of a host.
#[derive(Clone)]
pub(crate) struct Options {
    /// Without these it binds no session, and its service answers no browser.
    pub(crate) device_bound: Option<DeviceBound>,
    /// The keys of bound cookies and challenges.
    pub(crate) keys: Keyring,
    pub(crate) cookie: CookieOptions,
}

impl Options {
    pub(crate) fn new(device_bound: Option<DeviceBound>) -> Self {
        Self { device_bound, keys: key().into(), cookie: CookieOptions::new() }
    }
}

impl SharedStorage {
    /// One of each kind, with nothing in it.
    pub(crate) fn all() -> Vec<Self> {
        vec![
            Self::Cookies(Revoked::Memory(Revocations::in_memory())),
            #[cfg(feature = "sqlite")]
            Self::Cookies(Revoked::Sqlite(Arc::new(Folder::new()))),
            #[cfg(feature = "redis")]
            Self::Cookies(Revoked::Redis(server(), prefix())),
            Self::Memory(Arc::default()),
            #[cfg(feature = "sqlite")]
            Self::Sqlite(Arc::new(Folder::new())),
            #[cfg(feature = "redis")]
            Self::Redis(server(), prefix()),
        ]
    }

    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Cookies(Revoked::Memory(_)) => "cookies",
            #[cfg(feature = "sqlite")]
            Self::Cookies(Revoked::Sqlite(_)) => "cookies, revoked in SQLite",
            #[cfg(feature = "redis")]
            Self::Cookies(Revoked::Redis(..)) => "cookies, revoked in Redis",
            Self::Memory(_) => "memory",
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => "SQLite",
            #[cfg(feature = "redis")]
            Self::Redis(..) => "Redis",
        }
    }

    /// A clock that begins now: Redis has a clock, too.
    pub(crate) fn clock() -> FakeClock {
        FakeClock::at(SystemClock.now().as_unix())
    }

    /// A host whose sessions are here. Without options it binds none, and its service answers no browser.
    pub(crate) async fn host(&self, clock: &FakeClock, options: Option<DeviceBound>) -> Site {
        self.host_with(clock, Options::new(options)).await
    }

    pub(crate) async fn host_with(&self, clock: &FakeClock, options: Options) -> Site {
        let events = Events::default();
        match self {
            Self::Cookies(revoked) => {
                let builder = CookieStore::builder(key()).revocations(revoked.open().await);
                let store = with_options(builder, clock, &events, options).build().unwrap();
                self.site(Arc::new(store), clock, events)
            }
            Self::Memory(memory) => {
                let builder = ServerStore::with_backend(Arc::clone(memory));
                let store = with_options(builder, clock, &events, options).build().unwrap();
                self.site(Arc::new(store), clock, events)
            }
            #[cfg(feature = "sqlite")]
            Self::Sqlite(folder) => {
                let builder = hyper_session::SqliteStore::builder(folder.file());
                // These tests are not about power cuts, and syncs are most of the time.
                let builder = builder.synchronous(hyper_session::store::sqlite::Synchronous::Normal);
                let builder = builder.busy_timeout(UNHURRIED);
                let store = with_options(builder, clock, &events, options).open().unwrap();
                self.site(Arc::new(store), clock, events)
            }
            #[cfg(feature = "redis")]
            Self::Redis(server, prefix) => {
                let builder = hyper_session::RedisStore::builder(server.url()).prefix(prefix);
                let builder = crate::server::unhurried(builder);
                let store = with_options(builder, clock, &events, options).connect().await.unwrap();
                self.site(Arc::new(store), clock, events)
            }
        }
    }

    fn site(&self, store: Arc<dyn hyper_session::store::Store>, clock: &FakeClock, events: Events) -> Site {
        Site { kind: self.kind(), store, clock: clock.clone(), events, place: Some(self.clone()) }
    }
}

impl Revoked {
    #[cfg_attr(not(any(feature = "sqlite", feature = "redis")), allow(clippy::unused_async))]
    async fn open(&self) -> Revocations {
        match self {
            Self::Memory(revocations) => revocations.clone(),
            #[cfg(feature = "sqlite")]
            Self::Sqlite(folder) => {
                Revocations::sqlite(folder.file()).await.unwrap().max_staleness(UNHURRIED)
            }
            #[cfg(feature = "redis")]
            Self::Redis(server, prefix) => {
                let revocations = crate::server::unhurried_revocations(server.url(), prefix);
                revocations.connect().await.unwrap().max_staleness(UNHURRIED)
            }
        }
    }
}

fn with_options<K>(builder: Builder<K>, clock: &FakeClock, events: &Events, options: Options) -> Builder<K> {
    let builder = builder.clock(clock.clone()).observer(observer(events)).cookie(options.cookie);
    match options.device_bound {
        Some(device_bound) => builder.device_bound(device_bound.keys(options.keys)),
        None => builder,
    }
}

/// The server of all tests that run at the moment.
#[cfg(feature = "redis")]
fn server() -> Arc<Server> {
    static SERVER: Mutex<Weak<Server>> = Mutex::new(Weak::new());
    let mut running = SERVER.lock().unwrap();
    running.upgrade().unwrap_or_else(|| {
        let server = Arc::new(Server::start());
        *running = Arc::downgrade(&server);
        server
    })
}

/// A part of the server for one place.
#[cfg(feature = "redis")]
fn prefix() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("place-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
