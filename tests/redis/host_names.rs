//! Names of servers (A16) that lead nowhere, take forever, have a dead address, or lead elsewhere after a failover.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bb8_redis::redis::io::tcp::socket2::{Domain, Socket, Type};
use hyper_session::__internals::look_up_names_by;
use hyper_session::store::Builder;
use hyper_session::store::redis::RedisOptions;
use tokio::sync::{oneshot, watch};

use crate::app::{App, builder, hurried};
use crate::server::{Server, wait_for};
use crate::support::UNHURRIED;

pub(crate) const URL: &str = "redis://redis.example";

/// A name, and where it leads.
#[derive(Clone)]
pub(crate) struct Name(watch::Sender<Answer>);

#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Addresses(Vec<SocketAddr>),
    Unknown,
    /// The resolver does not answer until it has another answer.
    Silence,
}

impl Name {
    fn with(answer: Answer) -> Self {
        Self(watch::Sender::new(answer))
    }

    pub(crate) fn of(server: &Server) -> Self {
        Self::with(leads_to(server))
    }

    pub(crate) fn set(&self, answer: Answer) {
        self.0.send_replace(answer);
    }

    pub(crate) fn resolve(&self, options: Builder<RedisOptions>) -> Builder<RedisOptions> {
        let Self(answer) = self.clone();
        look_up_names_by(options, move |host, _| {
            assert_eq!(host, "redis.example");
            let mut answer = answer.subscribe();
            async move {
                let given = answer.wait_for(|answer| !matches!(answer, Answer::Silence)).await;
                match given.as_deref() {
                    Ok(Answer::Addresses(addresses)) => Ok(addresses.clone()),
                    _ => Err(io::Error::new(io::ErrorKind::NotFound, "name not known")),
                }
            }
        })
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

pub(crate) fn leads_to(server: &Server) -> Answer {
    Answer::Addresses(vec![local(server.port)])
}

/// An address whose packets are dropped: the server accepts no connections, and the kernel's queue of connections is full.
struct Silent {
    address: SocketAddr,
    _listener: TcpListener,
    _waiting: Vec<TcpStream>,
}

impl Silent {
    fn new() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&local(0).into()).unwrap();
        socket.listen(0).unwrap();
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().unwrap();
        let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(300));
        let mut waiting = Vec::new();
        while let Ok(client) = connect() {
            waiting.push(client);
            assert!(waiting.len() < 100, "the queue of connections has no end");
        }
        Self { address, _listener: listener, _waiting: waiting }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a16_a_name_that_cannot_be_resolved_is_an_error_that_says_so() {
    for (answer, says) in [
        (Answer::Unknown, "name not known"),
        (Answer::Addresses(Vec::new()), "the name has no address"),
        (Answer::Silence, "no reply in time"),
    ] {
        // Only silence is to outlast the deadline.
        let deadline = if matches!(answer, Answer::Silence) { Duration::from_millis(200) } else { UNHURRIED };
        let options = Name::with(answer).resolve(builder(URL).connect_timeout(deadline));
        let error = options.connect().await.unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(error.is_unavailable() && cause.contains(says), "{cause}");
    }
}

/// Runs `round` while the name has this answer, until no connection was made meanwhile. An attempt may be under way that had the
/// address before: its connection counts in the first round only.
async fn no_connection_is_made(
    app: &App,
    name: &Name,
    server: &Server,
    answer: &Answer,
    mut round: impl AsyncFnMut(),
) {
    app.until("no connection is made", async || {
        name.set(leads_to(server));
        app.is_whole(2).await;
        name.set(answer.clone());
        let created = app.store.backend().stats().connections_created;
        round().await;
        app.store.backend().stats().connections_created == created
    })
    .await;
}

/// Open connections need no name. Where they are lost, requests fail within their deadlines until the name leads to the server
/// again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a16_a_name_that_cannot_be_resolved_costs_nothing_until_a_connection_is_lost() {
    let server = Server::start();
    let name = Name::of(&server);
    let app = App::hurried_with(URL, |options| name.resolve(options)).await;
    let mut jar = App::connect(server.url()).await.jar().await;
    for answer in [Answer::Unknown, Answer::Addresses(Vec::new()), Answer::Silence] {
        no_connection_is_made(&app, &name, &server, &answer, async || {
            assert_eq!(app.recovers("/read", &mut jar).await, "1", "{answer:?}");
        })
        .await;
        server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
        app.fails_closed(&jar).await;
        name.set(leads_to(&server));
        assert_eq!(app.recovers("/read", &mut jar).await, "1", "{answer:?}");
    }
}

/// The server stalls, and no new connection can be made: the open ones are used again when it answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a16_a_stall_while_a_name_cannot_be_resolved_costs_no_request_that_outlasts_it() {
    let server = Server::start();
    let name = Name::of(&server);
    // A connection that is silent for half of this is replaced. The step goes on for longer.
    let app = App::with(name.resolve(builder(URL)).command_timeout(Duration::from_secs(1))).await;
    let mut jar = app.jar().await;
    for answer in [Answer::Unknown, Answer::Silence] {
        no_connection_is_made(&app, &name, &server, &answer, async || {
            let broken = app.store.backend().stats().connections_broken;
            server.freeze();
            let requests: Vec<_> = (0..20)
                .map(|_| {
                    let (app, mut jar) = (app.clone(), jar.clone());
                    tokio::spawn(async move { app.ok("/read", &mut jar).await })
                })
                .collect();
            let is_silent = async || app.store.backend().stats().connections_broken > broken;
            app.until("a connection is silent", is_silent).await;
            server.thaw();
            for request in requests {
                assert_eq!(request.await.unwrap(), "1", "{answer:?}");
            }
            assert_eq!(app.ok("/read", &mut jar).await, "1", "{answer:?}");
            let stats = app.store.backend().stats();
            assert_eq!((stats.failures, stats.turned_away, stats.up), (0, 0, true), "{stats:?}");
        })
        .await;
    }
}

/// The same for a stall that is longer than requests wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a16_a_long_stall_while_a_name_cannot_be_resolved_ends_with_the_stall() {
    let server = Server::start();
    let name = Name::of(&server);
    let app = App::hurried_with(URL, |options| name.resolve(options)).await;
    let mut jar = App::connect(server.url()).await.jar().await;
    for answer in [Answer::Unknown, Answer::Silence] {
        no_connection_is_made(&app, &name, &server, &answer, async || {
            server.freeze();
            app.until("no connection works, and requests fail at once", async || {
                app.fails("/read", &jar).await;
                let stats = app.store.backend().stats();
                stats.connections == 0 && !stats.up
            })
            .await;
            server.thaw();
            assert_eq!(app.recovers("/read", &mut jar).await, "1", "{answer:?}");
        })
        .await;
    }
}

/// A resolver as that of the operating system: a look-up holds a thread, also when no task waits for it.
#[derive(Clone, Default)]
struct HoldsThreads {
    is_hung: Arc<(Mutex<bool>, Condvar)>,
    held: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl HoldsThreads {
    async fn look_up(self, address: SocketAddr) -> io::Result<Vec<SocketAddr>> {
        let (answer, answered) = oneshot::channel();
        std::thread::spawn(move || {
            self.most.fetch_max(self.held.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let (is_hung, changed) = &*self.is_hung;
            drop(changed.wait_while(is_hung.lock().unwrap(), |is_hung| *is_hung).unwrap());
            self.held.fetch_sub(1, Ordering::SeqCst);
            let _ = answer.send(vec![address]);
        });
        answered.await.map_err(io::Error::other)
    }

    fn hang(&self, yes: bool) {
        *self.is_hung.0.lock().unwrap() = yes;
        self.is_hung.1.notify_all();
    }
}

/// Each attempt to connect would hold one more thread, until the runtime has none left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a16_a_resolver_that_hangs_holds_one_thread() {
    let server = Server::start();
    let (resolver, address) = (HoldsThreads::default(), local(server.port));
    let app = App::hurried_with(URL, |options| {
        let resolver = resolver.clone();
        look_up_names_by(options, move |_, _| resolver.clone().look_up(address))
    })
    .await;
    let mut jar = App::connect(server.url()).await.jar().await;
    // Those of the connections that exist are no longer under way.
    wait_for("the look-ups to end", || resolver.held.load(Ordering::SeqCst) == 0);
    resolver.most.store(0, Ordering::SeqCst);
    resolver.hang(true);
    server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    app.until("requests have waited for connections", async || {
        app.fails("/read", &jar).await;
        app.store.backend().stats().checkouts_timed_out >= 5
    })
    .await;
    let most = resolver.most.load(Ordering::SeqCst);
    resolver.hang(false);
    assert_eq!(most, 1);
    assert_eq!(app.recovers("/read", &mut jar).await, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a16_of_several_addresses_one_may_be_dead() {
    let server = Server::start();
    // A port that is taken, and on which no server listens.
    let taken = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    taken.bind(&local(0).into()).unwrap();
    let closed = taken.local_addr().unwrap().as_socket().unwrap();
    let silent = Silent::new();
    for dead in [closed, silent.address] {
        for addresses in [vec![dead, local(server.port)], vec![local(server.port), dead]] {
            // The addresses share the time for connecting, which is longer than this test takes.
            let app = App::with(Name::with(Answer::Addresses(addresses)).resolve(builder(URL))).await;
            let mut jar = app.jar().await;
            server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
            assert_eq!(app.ok("/add", &mut jar).await, "2");
        }
    }
    let name = Name::with(Answer::Addresses(vec![closed, silent.address]));
    assert!(name.resolve(hurried(URL)).connect().await.unwrap_err().is_unavailable());
}

/// The name is looked up for each new connection, so it may lead to the new master after a failover.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a16_a_name_that_leads_to_another_server_after_a_failover_is_followed() {
    for fate in ["dies", "hangs", "becomes a replica"] {
        let mut old = Server::start();
        let new = Server::start();
        let name = Name::of(&old);
        // A connection that is silent for half of this is replaced.
        let options = builder(URL).command_timeout(Duration::from_secs(1));
        let app = App::with(name.resolve(options)).await;
        let mut jar = app.jar().await;
        let copy = |from: &Server, to: &Server| {
            let order = ["REPLICAOF", "127.0.0.1", &from.port.to_string()];
            assert_eq!(to.cli(&order), "OK");
        };
        copy(&old, &new);
        new.has_entries(1);
        assert_eq!(new.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
        match fate {
            "dies" => old.kill(),
            "hangs" => old.freeze(),
            _ => copy(&new, &old),
        }
        name.set(leads_to(&new));
        assert_eq!(app.ok("/add", &mut jar).await, "2", "{fate}");
        assert_eq!(app.ok("/regenerate", &mut jar).await, "2", "{fate}");
        assert_eq!(App::connect(new.url()).await.ok("/read", &mut jar).await, "2", "{fate}");
        let stats = app.store.backend().stats();
        assert_eq!((stats.failures, stats.timeouts, stats.turned_away), (0, 0, 0), "{fate}: {stats:?}");
    }
}
