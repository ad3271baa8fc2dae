//! Graceful shutdown, handlers that fail, and clients that hang up.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_session::cookie::CookieOptions;
use hyper_session::store::{Backend, EntryId, Memory, Replaced, Stored};
use hyper_session::{Error, Event, EventKind, ServerStore, SessionHandle, Timestamp, session_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::servers::{Client, VERSIONS, Version, listen, memory_store, run, serve};
use crate::support::{Body, Events, Jar, is_session, set_cookies};

#[test]
fn graceful_shutdown_waits_for_the_session_to_be_saved() {
    run(async {
        for version in VERSIONS {
            let (started, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
            let gates = (started.clone(), release.clone());
            let store = memory_store("s", &Events::new());
            let service = session_fn(store, move |_: Request<Incoming>, session: SessionHandle| {
                let (started, release) = gates.clone();
                async move {
                    session.load().await?.set("user", "ada")?;
                    started.notify_one();
                    release.notified().await;
                    Ok::<_, Error>(Response::new(Body::from("done")))
                }
            });
            let (listener, address) = listen().await;
            let graceful = GracefulShutdown::new();
            let connecting = tokio::spawn(async move { Client::connect(version, address).await });
            let (stream, _) = listener.accept().await.unwrap();
            let builder = auto::Builder::new(TokioExecutor::new());
            let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
            let served = tokio::spawn(graceful.watch(connection));
            let mut client = connecting.await.unwrap();

            let answer = tokio::spawn(client.send(Method::GET, "/", &[]));
            started.notified().await;
            let mut shutdown = pin!(graceful.shutdown());
            let waits = poll_fn(|cx| Poll::Ready(shutdown.as_mut().poll(cx).is_pending())).await;
            assert!(waits, "a request is under way");
            release.notify_one();
            let response = answer.await.unwrap().unwrap();
            assert_eq!(set_cookies(response.headers()).len(), 1);
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "done");
            shutdown.await;
            served.await.unwrap().unwrap();
        }
    });
}

/// Memory that counts what it is asked to write, and holds back what ends a session until it is let go.
#[derive(Clone, Default)]
struct Spy(Arc<SpyInner>);

#[derive(Default)]
struct SpyInner {
    memory: Memory,
    writes: AtomicUsize,
    holding: AtomicBool,
    held: Notify,
    release: Notify,
    ended: Notify,
}

impl Spy {
    fn writes(&self) -> usize {
        self.0.writes.load(Ordering::SeqCst)
    }

    fn count(&self) {
        self.0.writes.fetch_add(1, Ordering::SeqCst);
    }

    async fn hold(&self) {
        if self.0.holding.load(Ordering::SeqCst) {
            self.0.held.notify_one();
            self.0.release.notified().await;
        }
    }
}

impl Backend for Spy {
    async fn fetch(&self, id: EntryId, now: Timestamp) -> Result<Option<Stored>, Error> {
        self.0.memory.fetch(id, now).await
    }

    async fn create(&self, id: EntryId, entry: Stored, now: Timestamp) -> Result<bool, Error> {
        self.count();
        self.0.memory.create(id, entry, now).await
    }

    async fn replace(
        &self,
        id: EntryId,
        expected: Bytes,
        entry: Option<Stored>,
        now: Timestamp,
    ) -> Result<Replaced, Error> {
        self.count();
        // Removed, or replaced by an entry that is not a session.
        let ends = entry.as_ref().is_none_or(|entry| !is_session(&entry.value));
        if ends {
            self.hold().await;
        }
        let replaced = self.0.memory.replace(id, expected, entry, now).await;
        if ends {
            self.0.ended.notify_one();
        }
        replaced
    }

    async fn touch(&self, id: EntryId, expires: Timestamp, now: Timestamp) -> Result<bool, Error> {
        self.count();
        self.0.memory.touch(id, expires, now).await
    }

    async fn delete(&self, id: EntryId) -> Result<(), Error> {
        self.count();
        self.hold().await;
        let deleted = self.0.memory.delete(id).await;
        self.0.ended.notify_one();
        deleted
    }
}

/// How a client goes away.
#[derive(Clone, Copy, Debug)]
enum HangUp {
    /// The connection is lost.
    Wire(Version),
    /// HTTP/2: the stream is reset, the connection goes on.
    Stream,
}

const HANG_UPS: [HangUp; 3] = [HangUp::Wire(Version::One), HangUp::Wire(Version::Two), HangUp::Stream];

/// A client that is waiting for its answer.
struct Waiting {
    how: HangUp,
    wire: JoinHandle<()>,
    answer: JoinHandle<hyper::Result<Response<Incoming>>>,
    client: Client,
}

impl Waiting {
    /// Sends the request over a wire that can be cut.
    async fn send(how: HangUp, address: SocketAddr, path: &str, cookies: &[String]) -> Self {
        let (listener, near) = listen().await;
        let wire = tokio::spawn(async move {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut server = TcpStream::connect(address).await.unwrap();
            drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
        });
        let version = if let HangUp::Wire(version) = how { version } else { Version::Two };
        let mut client = Client::connect(version, near).await;
        let answer = tokio::spawn(client.send(Method::GET, path, cookies));
        Self { how, wire, answer, client }
    }

    /// Goes away. The client that this returns keeps alive what is left of the connection.
    async fn hang_up(self) -> Client {
        match self.how {
            HangUp::Wire(_) => {
                self.wire.abort();
                assert!(self.answer.await.unwrap().is_err());
            }
            HangUp::Stream => {
                self.answer.abort();
                assert!(self.answer.await.unwrap_err().is_cancelled());
            }
        }
        self.client
    }
}

/// Tells when it is dropped.
struct OnDrop(Option<oneshot::Sender<()>>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        let _ = self.0.take().unwrap().send(());
    }
}

#[test]
fn a_client_that_hangs_up_while_the_handler_runs_changes_nothing() {
    run(async {
        for how in HANG_UPS {
            for path in ["/set", "/destroy", "/regenerate"] {
                let spy = Spy::default();
                let options = CookieOptions::development().name("s");
                let store = ServerStore::with_backend(spy.clone()).cookie(options).build().unwrap();
                let gates = Arc::new((Notify::new(), Notify::new()));
                let (dropped, on_drop) = mpsc::channel(9);
                let (gate, mut on_drop) = (gates.clone(), on_drop);
                let service = session_fn(store, move |request: Request<Incoming>, session: SessionHandle| {
                    let (gate, dropped) = (gate.clone(), dropped.clone());
                    async move {
                        let session = session.load().await?;
                        match request.uri().path() {
                            "/who" => {
                                let user = session.get::<String>("user")?.unwrap_or_default();
                                return Ok(Response::new(Body::from(user)));
                            }
                            "/login" => {
                                session.set("user", "ada")?;
                                return Ok(Response::default());
                            }
                            "/set" => session.set("user", "mallory")?,
                            "/destroy" => session.destroy()?,
                            "/regenerate" => session.regenerate()?,
                            other => panic!("no such path: {other}"),
                        }
                        let (sender, receiver) = oneshot::channel();
                        let guard = OnDrop(Some(sender));
                        dropped.send(receiver).await.unwrap();
                        gate.0.notify_one();
                        gate.1.notified().await;
                        drop(guard);
                        Ok::<_, Error>(Response::new(Body::from("done")))
                    }
                });
                let address = serve(service).await;
                let mut jar = Jar::new();
                let mut other = Client::connect(Version::One, address).await;
                other.visit("/login", &mut jar).await;
                let cookie = [jar.header().unwrap()];
                let before = spy.writes();

                let client = Waiting::send(how, address, path, &cookie).await;
                gates.0.notified().await;
                let _client = client.hang_up().await;
                on_drop.recv().await.unwrap().await.unwrap();
                // A request later, whatever the hang-up might have left running has had its turn.
                assert_eq!(other.get("/who", &cookie).await, "ada");
                assert_eq!(spy.writes(), before, "{how:?} {path}");

                // The same handler, let go: the spy does see what it writes.
                gates.1.notify_one();
                other.visit(path, &mut jar).await;
                assert!(spy.writes() > before, "{how:?} {path}");
            }
        }
    });
}

/// An error of this crate is treated as the 5xx that it becomes: a logout before it counts. A panic undoes all.
#[test]
fn b9_a_logout_counts_if_its_handler_fails_and_not_if_it_panics() {
    run(async {
        for version in VERSIONS {
            let spy = Spy::default();
            let options = CookieOptions::development().name("s");
            let store = ServerStore::with_backend(spy.clone()).cookie(options).build().unwrap();
            let service =
                session_fn(store, |request: Request<Incoming>, session: SessionHandle| async move {
                    let session = session.load().await?;
                    match request.uri().path() {
                        "/login" => session.set("user", "ada")?,
                        "/who" => {
                            return Ok(Response::new(Body::from(
                                session.get::<String>("user")?.unwrap_or_default(),
                            )));
                        }
                        _ => session.destroy()?,
                    }
                    match request.uri().path() {
                        "/fail" => Err(Error::unavailable("the handler's own failure")),
                        "/panic" => panic!("the handler's own panic, as this test wants it"),
                        _ => Ok(Response::default()),
                    }
                });
            let address = serve(service).await;
            let mut jar = Jar::new();
            Client::connect(version, address).await.visit("/login", &mut jar).await;
            let before = spy.writes();
            let mut client = Client::connect(version, address).await;
            assert!(client.send(Method::GET, "/panic", &[jar.header().unwrap()]).await.is_err());
            assert_eq!(Client::connect(version, address).await.visit("/who", &mut jar).await, "ada");
            assert_eq!(spy.writes(), before, "{version:?}");

            let mut client = Client::connect(version, address).await;
            let response = client.send(Method::GET, "/fail", &[jar.header().unwrap()]).await.unwrap();
            assert_eq!((response.status().as_u16(), spy.writes()), (503, before + 1), "{version:?}");
            assert_eq!(Client::connect(version, address).await.visit("/who", &mut jar.clone()).await, "");
            jar.store(response.headers());
            assert!(jar.0.is_empty());
        }
    });
}

#[test]
fn a_client_that_hangs_up_while_its_session_is_ended_does_not_stay_logged_in() {
    run(async {
        for how in HANG_UPS {
            for path in ["/destroy", "/clear", "/regenerate"] {
                let spy = Spy::default();
                let (interrupted, mut events) = mpsc::unbounded_channel();
                let store = ServerStore::with_backend(spy.clone())
                    .cookie(CookieOptions::development().name("s"))
                    .observer(move |event: &Event<'_>| {
                        if let EventKind::Interrupted { completing, .. } = event.kind {
                            interrupted.send(completing).unwrap();
                        }
                    })
                    .build()
                    .unwrap();
                let service =
                    session_fn(store, |request: Request<Incoming>, session: SessionHandle| async move {
                        let session = session.load().await?;
                        match request.uri().path() {
                            "/login" => session.set("user", "ada")?,
                            "/destroy" => session.destroy()?,
                            "/clear" => session.clear()?,
                            "/regenerate" => session.regenerate()?,
                            _ => {}
                        }
                        Ok::<_, Error>(Response::new(Body::from(
                            session.get::<String>("user")?.unwrap_or_default(),
                        )))
                    });
                let address = serve(service).await;
                let mut jar = Jar::new();
                let mut other = Client::connect(Version::One, address).await;
                other.visit("/login", &mut jar).await;
                let cookie = [jar.header().unwrap()];

                spy.0.holding.store(true, Ordering::SeqCst);
                let client = Waiting::send(how, address, path, &cookie).await;
                spy.0.held.notified().await;
                assert_eq!(other.get("/who", &cookie).await, "ada", "not ended yet");
                let _client = client.hang_up().await;
                assert_eq!(events.recv().await, Some(true), "{how:?} {path}");
                spy.0.release.notify_one();
                spy.0.ended.notified().await;
                assert_eq!(other.get("/who", &cookie).await, "", "{how:?} {path}");
            }
        }
    });
}
