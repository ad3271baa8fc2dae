//! Connections that outlive their request: what a watch sees, and a socket that is closed by a logout elsewhere.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_session::store::Memory;
use hyper_session::testing::{FakeClock, Fault, Faulty, Primitive};
use hyper_session::{
    AppKey, CookieStore, Error, Refusal, Revocations, ServerStore, Session, SessionHandle, SessionWatch,
    session_fn,
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::stores::{Act, Kind, Options, START, TestStore, everywhere, seconds};
use crate::support::{Events, Jar, block_on, request, set_cookies};

/// The watch that a handler takes for its connection, in a request that sets no cookie.
async fn watch(world: &TestStore, jar: &Jar) -> Option<SessionWatch> {
    let service = session_fn(world.store.clone(), |_: Request<_>, session: SessionHandle| async move {
        Ok::<_, Error>(Response::new(session.watch().await?))
    });
    let response = service.call(request("/", jar.header().as_deref())).await.unwrap();
    assert_eq!(set_cookies(response.headers()), [""; 0]);
    response.into_body()
}

#[test]
fn without_a_session_there_is_nothing_to_watch() {
    everywhere(|world| async move {
        assert!(watch(&world, &Jar::new()).await.is_none());
    });
}

#[test]
fn a_watch_sees_what_others_change() {
    block_on(async {
        let world = TestStore::new(Kind::Server, Options::default()).await;
        let mut jar = Jar::new();
        world
            .edit(&mut jar, |session| session.login("ada").and_then(|()| session.set("role", "admin")))
            .await;
        let watch = watch(&world, &jar).await.unwrap();
        let role =
            |view: &hyper_session::SessionView| view.get_str("role").unwrap().map(|role| role.to_string());
        assert_eq!(role(&watch.reload().await.unwrap().unwrap()).as_deref(), Some("admin"));
        world.edit(&mut jar, |session| session.delete("role")).await;
        let view = watch.reload().await.unwrap().unwrap();
        assert_eq!((role(&view), view.subject().as_deref()), (None, Some("ada")), "no stale roles");
        let facts = |session: &Session| (session.id(), session.created_at(), session.expires_at());
        let facts = world.look(&jar, facts).await;
        assert_eq!((view.id(), view.created_at(), view.expires_at()), facts);
        assert!(facts.0 == Some(watch.id()) && facts.1.is_some() && facts.2.is_some());
    });
}

#[test]
fn looking_does_not_keep_a_session_alive_and_renewing_does() {
    block_on(async {
        let world = TestStore::new(Kind::Server, Options::default()).await;
        let mut jar = Jar::new();
        world.edit(&mut jar, |session| session.login("ada")).await;
        let watch = watch(&world, &jar).await.unwrap();
        world.clock.set(START + 50);
        assert!(watch.is_alive().await.unwrap());
        assert_eq!(watch.reload().await.unwrap().unwrap().remaining(), Some(seconds(50)));
        assert!(watch.renew().await.unwrap());
        assert_eq!(watch.reload().await.unwrap().unwrap().remaining(), Some(seconds(100)));
        for now in [140, 230, 320, 399] {
            world.clock.set(START + now);
            assert!(watch.renew().await.unwrap(), "{now}");
        }
        world.clock.set(START + 400);
        assert!(!watch.renew().await.unwrap(), "the absolute timeout holds for sockets, too");
        assert_eq!(watch.reload().await.unwrap().map(drop).unwrap_err(), Refusal::UnknownId);
        assert!(!watch.is_alive().await.unwrap());
    });
}

#[test]
fn a_cookie_is_watched_until_its_deadline() {
    block_on(async {
        let world = TestStore::new(Kind::Cookie, Options::default()).await;
        let mut jar = Jar::new();
        world.edit(&mut jar, |session| session.login("ada")).await;
        let watch = watch(&world, &jar).await.unwrap();
        world.clock.set(START + 50);
        world.edit(&mut jar, Session::destroy).await;
        assert!(watch.is_alive().await.unwrap(), "a cookie store does not know of a logout");
        let error = watch.renew().await.unwrap_err();
        assert!(error.is_config() && error.to_string().contains("server-side"), "{error}");
        world.clock.set(START + 100);
        assert_eq!(watch.ended(|| async { unreachable!() }).await.unwrap(), Refusal::Expired);
    });
}

/// Waits for the end of a session, which `end` brings about between the first look and the second.
async fn seen_to_end<F: Future<Output = ()>>(
    world: &TestStore,
    jar: &Jar,
    end: impl FnOnce() -> F,
) -> Refusal {
    let watch = watch(world, jar).await.unwrap();
    let (looked, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let waiting = tokio::spawn({
        let (looked, go_on) = (looked.clone(), go_on.clone());
        async move {
            let pause = || {
                looked.notify_one();
                let go_on = go_on.clone();
                async move { go_on.notified().await }
            };
            watch.ended(pause).await
        }
    });
    looked.notified().await;
    end().await;
    go_on.notify_one();
    waiting.await.unwrap().unwrap()
}

#[test]
fn each_way_to_end_is_seen_after_one_pause() {
    block_on(async {
        let world = TestStore::new(Kind::Server, Options::default()).await;
        let log_in = || async {
            let mut jar = Jar::new();
            world.edit(&mut jar, |session| session.login("ada")).await;
            jar
        };
        let mut jar = log_in().await;
        let stolen = jar.clone();
        let why =
            seen_to_end(&world, &stolen, || async { world.edit(&mut jar, Session::destroy).await }).await;
        assert_eq!(why, Refusal::UnknownId);

        let mut jar = log_in().await;
        let old = jar.clone();
        let why =
            seen_to_end(&world, &old, || async { world.edit(&mut jar, Session::reauthenticate).await }).await;
        assert_eq!(why, Refusal::Regenerated);

        let jar = log_in().await;
        let end = || async { assert!(world.store.end_sessions_of("ada", None).await.unwrap() > Some(0)) };
        assert_eq!(seen_to_end(&world, &jar, end).await, Refusal::UnknownId);

        let jar = log_in().await;
        let why = seen_to_end(&world, &jar, || async { world.clock.advance(seconds(100)) }).await;
        assert_eq!(why, Refusal::UnknownId, "the deadline");
    });
}

// "The store is unavailable" is not an end.
#[test]
fn r12_an_unreachable_store_is_an_error_and_not_an_end() {
    block_on(async {
        let backend = Faulty::new(Memory::new());
        let events = Events::new();
        let builder = ServerStore::with_backend(backend.clone()).clock(FakeClock::at(START));
        let store = builder.observer(events.clone()).build().unwrap();
        let service = session_fn(store, |_: Request<()>, handle: SessionHandle| async move {
            let session = handle.load().await?;
            session.login("ada")?;
            session.save().await?;
            Ok::<_, Error>(Response::new(handle.watch().await?))
        });
        let watch = service.call(Request::new(())).await.unwrap().into_body().expect("saved in this request");
        backend.fail(Primitive::Fetch, Fault::Unreachable);
        assert!(watch.is_alive().await.unwrap_err().is_unavailable());
        assert!(watch.reload().await.map(drop).unwrap_err().is_unavailable());
        assert!(watch.renew().await.unwrap_err().is_unavailable());
        assert!(watch.ended(|| async {}).await.unwrap_err().is_unavailable());
        assert_eq!(events.take(), ["store_failed"; 4]);
        backend.repair();
        assert!(watch.is_alive().await.unwrap());
        assert_eq!(events.take(), [""; 0]);
    });
}

/// A server whose `/socket` speaks a protocol of its own after a 101, and closes it when the session has ended.
async fn serve(store: ServerStore<Arc<Memory>>, pause: Arc<Notify>) -> std::net::SocketAddr {
    let service = session_fn(store, move |mut request: Request<Incoming>, handle: SessionHandle| {
        let pause = Arc::clone(&pause);
        async move {
            let answer = |status| Response::builder().status(status);
            match request.uri().path() {
                "/login" => handle.load().await.unwrap().login("ada").unwrap(),
                "/logout" => handle.load().await.unwrap().destroy().unwrap(),
                _ => {
                    let Some(watch) = handle.watch().await.unwrap() else {
                        return Ok(answer(401).body(Full::<Bytes>::default()).unwrap());
                    };
                    let upgraded = hyper::upgrade::on(&mut request);
                    tokio::spawn(async move {
                        let mut socket = TokioIo::new(upgraded.await.unwrap());
                        socket.write_all(b"hello\n").await.unwrap();
                        let pause = || async { pause.notified().await };
                        let why = watch.ended(pause).await.unwrap();
                        socket.write_all(format!("bye: {why}\n").as_bytes()).await.unwrap();
                        socket.shutdown().await.unwrap();
                    });
                    let switched = answer(101).header("connection", "upgrade").header("upgrade", "chat");
                    return Ok(switched.body(Full::default()).unwrap());
                }
            }
            Ok::<_, Infallible>(answer(200).body(Full::default()).unwrap())
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service.clone();
            tokio::spawn(async move {
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                let _ = connection.with_upgrades().await;
            });
        }
    });
    address
}

async fn send(address: std::net::SocketAddr, path: &str, fields: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        text.push(stream.read_u8().await.unwrap_or_else(|_| panic!("closed after {}", text.escape_ascii())));
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn a_socket_is_closed_by_a_logout_elsewhere() {
    block_on(async {
        let store = ServerStore::with_backend(Arc::new(Memory::new())).development().build().unwrap();
        let pause = Arc::new(Notify::new());
        let address = serve(store, Arc::clone(&pause)).await;
        let head = read_until(&mut send(address, "/login", "Connection: close\r\n").await, "\r\n\r\n").await;
        let cookie = head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
        let cookie = format!("Cookie: {}\r\n", cookie.split(';').next().unwrap());

        let upgrade = "Connection: Upgrade\r\nUpgrade: chat\r\n";
        let refused = read_until(&mut send(address, "/socket", upgrade).await, "\r\n\r\n").await;
        assert!(refused.starts_with("HTTP/1.1 401"), "{refused}");
        let mut socket = send(address, "/socket", &format!("{upgrade}{cookie}")).await;
        let head = read_until(&mut socket, "\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 101") && !head.contains("set-cookie"), "{head}");
        assert_eq!(read_until(&mut socket, "\n").await, "hello\n");

        // While the session lives, a look changes nothing.
        pause.notify_one();
        let close = format!("Connection: close\r\n{cookie}");
        read_until(&mut send(address, "/logout", &close).await, "\r\n\r\n").await;
        pause.notify_one();
        assert_eq!(read_until(&mut socket, "\n").await, "bye: unknown_id\n");
        assert_eq!(socket.read(&mut [0]).await.unwrap(), 0, "closed");
    });
}

/// A cookie store has no copy of a session, but its revocations say what has ended.
#[test]
fn a_watch_over_a_cookie_store_ends_with_a_revocation() {
    let build = |revoking: bool| {
        let builder = CookieStore::builder(AppKey::generate().unwrap()).clock(FakeClock::at(START));
        let builder = if revoking { builder.revocations(Revocations::in_memory()) } else { builder };
        builder.build().unwrap()
    };
    let ends: [Act; 3] = [Session::destroy, Session::regenerate, |session| session.login("bob")];
    block_on(async {
        for revoking in [true, false] {
            for end in ends {
                let store = build(revoking);
                let visit = async |jar: &mut Jar, act: Act| {
                    let service =
                        session_fn(store.clone(), |_: Request<_>, handle: SessionHandle| async move {
                            let watch = handle.watch().await?;
                            act(&handle.load().await?)?;
                            Ok::<_, Error>(Response::new(watch))
                        });
                    let response = service.call(request("/", jar.header().as_deref())).await.unwrap();
                    jar.store(response.headers());
                    response.into_body()
                };
                let mut jar = Jar::new();
                visit(&mut jar, |session| session.login("ada")).await;
                let watch = visit(&mut jar, |_| Ok(())).await.unwrap();
                assert!(watch.is_alive().await.unwrap());
                visit(&mut jar, end).await;
                assert_eq!(watch.is_alive().await.unwrap(), !revoking);
                if revoking {
                    let why = watch.ended(std::future::pending).await.unwrap();
                    assert!(matches!(why, Refusal::Revoked | Refusal::Regenerated), "{why}");
                }
            }
            // "Log out everywhere", from outside of a request.
            if revoking {
                let store = build(true);
                let service = session_fn(store.clone(), |_: Request<_>, handle: SessionHandle| async move {
                    let session = handle.load().await?;
                    session.login("ada")?;
                    session.save().await?;
                    Ok::<_, Error>(Response::new(handle.watch().await?))
                });
                let watch = service.call(request("/", None)).await.unwrap().into_body().unwrap();
                assert!(watch.is_alive().await.unwrap());
                store.end_sessions_of("ada").await.unwrap();
                assert_eq!(watch.ended(std::future::pending).await.unwrap(), Refusal::Revoked);
            }
        }
    });
}
