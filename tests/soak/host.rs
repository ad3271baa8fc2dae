//! A host: a process that serves the sessions of one store over HTTP, and takes orders on its standard input.
//!
//! Orders: `clock SITE SECONDS` sets by how much the clock of a site is wrong, `deploy SITE CONFIGURATION` replaces its store.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_session::cookie::CookieOptions;
use hyper_session::store::redis::NearCache;
use hyper_session::store::{Builder, Memory, Store};
use hyper_session::testing::FakeClock;
use hyper_session::{
    AppKey, Clock, CookieStore, Error, FailureResponse, Keyring, PayloadFormat, RedisStore, Revocations,
    ServerStore, SessionHandle, SqliteStore, StatusOnly, SystemClock, session_fn,
};
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::rows::{Kind, Row};
use crate::support::Body;

pub(crate) const ROW: &str = "HYPER_SESSION_SOAK_ROW";
pub(crate) const PLACE: &str = "HYPER_SESSION_SOAK_PLACE";
/// The number of the configuration of each site, separated by commas.
pub(crate) const SITES: &str = "HYPER_SESSION_SOAK_SITES";

/// The header field that says why a request failed.
pub(crate) const WHY: &str = "x-why";

/// The longest that a session lasts. Short, so that a long run sees what expires, and what is forgotten then.
const LONGEST: Duration = Duration::from_secs(900);
/// Deadlines that a busy machine meets.
pub(crate) const PATIENT: Duration = Duration::from_secs(6);
const CONNECTING: Duration = Duration::from_secs(30);

/// The configuration of a site. Any two of them may run side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Configuration {
    Usual,
    OtherKey,
    ShorterTimeouts,
    Json,
    FewerChunks,
}

impl Configuration {
    pub(crate) const ALL: [Self; 5] =
        [Self::Usual, Self::OtherKey, Self::ShorterTimeouts, Self::Json, Self::FewerChunks];

    /// The key that seals is the first one, the other one is accepted.
    fn keys(self) -> Keyring {
        let [mut sealing, mut accepted] = ["one key of the soak", "another key of the soak"]
            .map(|text| AppKey::danger_from_any_bytes(text.as_bytes()).unwrap());
        if self == Self::OtherKey {
            std::mem::swap(&mut sealing, &mut accepted);
        }
        Keyring::new(sealing).accept(accepted)
    }

    fn apply<K>(self, builder: Builder<K>, clock: &FakeClock) -> Builder<K> {
        let shorter = if self == Self::ShorterTimeouts { 2 } else { 1 };
        let format = if self == Self::Json { PayloadFormat::Json } else { PayloadFormat::MessagePack };
        let chunks = if self == Self::FewerChunks { 1 } else { 3 };
        builder
            .cookie(CookieOptions::development().max_chunks(chunks))
            .payload_format(format)
            .idle_timeout(LONGEST * 2 / 3 / shorter)
            .absolute_timeout(LONGEST / shorter)
            .longest_lifetime(LONGEST)
            .renewal_threshold(Duration::from_secs(5))
            .clock(clock.clone())
    }
}

/// The store of a site.
#[derive(Clone)]
struct Deployed {
    store: Arc<dyn Store>,
    /// The same, if it has a near-cache.
    near: Option<RedisStore>,
}

impl Deployed {
    fn of(store: impl Store) -> Self {
        Self { store: Arc::new(store), near: None }
    }
}

/// Where the sessions of this process are.
enum Place {
    /// In this process.
    Revocations(Revocations),
    Memory(Arc<Memory>),
    /// A path, or the URL of a Redis.
    Elsewhere(String),
}

impl Place {
    fn of(row: &Row) -> Self {
        match row.kind {
            Kind::CookieMemory => Self::Revocations(Revocations::in_memory()),
            Kind::Memory => Self::Memory(Arc::new(Memory::new())),
            _ => Self::Elsewhere(std::env::var(PLACE).unwrap()),
        }
    }

    async fn store(
        &self,
        row: &Row,
        configuration: Configuration,
        clock: &FakeClock,
    ) -> Result<Deployed, Error> {
        let place = match self {
            Self::Revocations(revocations) => return cookies(configuration, clock, revocations.clone()),
            Self::Memory(memory) => {
                let builder = configuration.apply(ServerStore::with_backend(Arc::clone(memory)), clock);
                return Ok(Deployed::of(builder.seal_records(configuration.keys()).build()?));
            }
            Self::Elsewhere(place) => place.clone(),
        };
        match row.kind {
            Kind::CookieSqlite => {
                let revocations = Revocations::sqlite(PathBuf::from(place)).await?;
                cookies(configuration, clock, revocations.max_staleness(row.bound))
            }
            Kind::CookieRedis => {
                let revocations = Revocations::redis(place).prefix("soak");
                let revocations = revocations.connect_timeout(CONNECTING).command_timeout(PATIENT);
                cookies(configuration, clock, revocations.connect().await?.max_staleness(row.bound))
            }
            Kind::Sqlite => {
                let builder = configuration.apply(SqliteStore::builder(place), clock);
                let builder = builder.busy_timeout(PATIENT / 2).seal_records(configuration.keys());
                Ok(Deployed::of(builder.sweep_interval(Duration::from_secs(5)).open()?))
            }
            Kind::Redis { near_cache, check_list } => {
                let mut builder = configuration.apply(RedisStore::builder(place), clock);
                builder = builder.prefix("soak").check_session_list(check_list);
                builder =
                    builder.connect_timeout(CONNECTING).checkout_timeout(PATIENT).command_timeout(PATIENT);
                if near_cache {
                    builder = builder.near_cache(NearCache::new().max_staleness(row.bound));
                    // Of the rows of Redis, some are sealed.
                    builder = builder.seal_records(configuration.keys());
                }
                let store = builder.connect().await?;
                Ok(Deployed { near: near_cache.then(|| store.clone()), ..Deployed::of(store) })
            }
            Kind::CookieMemory | Kind::Memory => unreachable!("it is in this process"),
        }
    }
}

fn cookies(
    configuration: Configuration,
    clock: &FakeClock,
    revocations: Revocations,
) -> Result<Deployed, Error> {
    let builder = configuration.apply(CookieStore::builder(configuration.keys()), clock);
    Ok(Deployed::of(builder.revocations(revocations).build()?))
}

/// A port, the store behind it at present, and its clock.
struct Site {
    listener: Arc<TcpListener>,
    clock: FakeClock,
    /// By how many seconds the clock is wrong.
    wrong_by: Arc<AtomicI64>,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Site {
    async fn new() -> Self {
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
        let clock = FakeClock::at(SystemClock.now().as_unix());
        let site = Self { listener, clock: clock.clone(), wrong_by: Arc::default(), running: None };
        let wrong_by = Arc::clone(&site.wrong_by);
        tokio::spawn(async move {
            loop {
                set(&clock, &wrong_by);
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        site
    }

    /// Serves with another store. Returns when the requests of the one before have been answered, and its connections closed.
    async fn deploy(&mut self, deployed: Deployed) {
        let (stop, stopped) = oneshot::channel();
        if let Some((stop, ended)) = self.running.take() {
            let _ = stop.send(());
            ended.await.unwrap();
        }
        self.running = Some((stop, tokio::spawn(serve(Arc::clone(&self.listener), deployed, stopped))));
    }
}

fn set(clock: &FakeClock, wrong_by: &AtomicI64) {
    clock.set(SystemClock.now().as_unix().saturating_add_signed(wrong_by.load(Ordering::Relaxed)));
}

async fn serve(listener: Arc<TcpListener>, deployed: Deployed, mut stop: oneshot::Receiver<()>) {
    let graceful = GracefulShutdown::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted.unwrap().0,
            _ = &mut stop => break,
        };
        let (store, deployed) = (Arc::clone(&deployed.store), deployed.clone());
        let service = session_fn(store, move |request: Request<Incoming>, session: SessionHandle| {
            let deployed = deployed.clone();
            async move { answer(request.uri().path(), &session, &deployed).await }
        })
        .on_failure(|error: &Error| {
            if error.is_too_large() {
                return Response::builder().status(413).body(Body::default()).unwrap();
            }
            let mut response: Response<Body> = StatusOnly.response(error);
            response.headers_mut().insert(WHY, format!("{error:?}").parse().unwrap());
            response
        });
        // Clients that hang up are a part of it.
        let connection =
            graceful.watch(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move { drop(connection.await) });
    }
    graceful.shutdown().await;
}

async fn answer(path: &str, handle: &SessionHandle, deployed: &Deployed) -> Result<Response<Body>, Error> {
    let (deed, user) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
    let text = match deed {
        "end" => {
            deployed.store.end_sessions_of(user, None).await?;
            String::new()
        }
        "list" => deployed.store.sessions_of(user).await?.len().to_string(),
        "hits" => deployed.near.as_ref().map_or(0, |near| near.backend().stats().near_cache_hits).to_string(),
        _ => {
            let session = handle.load().await?;
            match deed {
                "login" => {
                    session.login(user)?;
                    session.set("n", 0_u64)?;
                }
                "read" => {}
                "add" => _ = session.update("n", |n: Option<u64>| n.unwrap_or(0) + 1)?,
                "grow" => session.set("blob", "x".repeat(5_000))?,
                "shrink" => _ = session.delete("blob")?,
                "regenerate" => session.regenerate()?,
                "logout" => session.destroy()?,
                "others" => _ = session.end_other_sessions().await?,
                _ => panic!("no such page: {path}"),
            }
            session.get::<u64>("n")?.map_or_else(|| "none".to_owned(), |n| n.to_string())
        }
    };
    Ok(Response::new(Body::from(text)))
}

/// Serves until its standard input ends.
pub(crate) async fn run() {
    // A file that may grow no further is an error, and not the end of the process.
    let ignored = tokio::signal::unix::SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());
    let _ignored = tokio::signal::unix::signal(ignored).unwrap();
    let row = Row::named(&std::env::var(ROW).unwrap());
    let place = Place::of(row);
    let mut sites = Vec::new();
    for number in std::env::var(SITES).unwrap().split(',') {
        let mut site = Site::new().await;
        let configuration = Configuration::ALL[number.parse::<usize>().unwrap()];
        site.deploy(place.store(row, configuration, &site.clock).await.unwrap()).await;
        sites.push(site);
    }
    let ports = sites.iter().map(|site| site.listener.local_addr().unwrap().port().to_string());
    say(&ports.collect::<Vec<_>>().join(","));

    let (sender, mut orders) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        std::io::stdin().lock().lines().try_for_each(|line| sender.send(line.unwrap()))
    });
    while let Some(order) = orders.recv().await {
        let words: Vec<_> = order.split(' ').collect();
        let [what, site, value] = words[..] else { panic!("no such order: {order}") };
        let site = &mut sites[site.parse::<usize>().unwrap()];
        match what {
            "clock" => {
                site.wrong_by.store(value.parse().unwrap(), Ordering::Relaxed);
                set(&site.clock, &site.wrong_by);
            }
            "deploy" => {
                let configuration = Configuration::ALL[value.parse::<usize>().unwrap()];
                let store = place.store(row, configuration, &site.clock).await.unwrap();
                site.deploy(store).await;
            }
            _ => panic!("no such order: {order}"),
        }
        say("done");
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}
