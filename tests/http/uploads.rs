//! Uploads that take longer than their session may be idle.

use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_session::cookie::CookieOptions;
use hyper_session::store::{Builder, Store};
use hyper_session::testing::FakeClock;
use hyper_session::{AppKey, CookieStore, Error, MemoryStore, SessionHandle, session_fn};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::servers::{Client, Version, run, serve};
#[cfg(feature = "sqlite")]
use crate::support::UNHURRIED;
use crate::support::{Body, Jar};

async fn app(request: Request<Incoming>, session: SessionHandle) -> Result<Response<Body>, Error> {
    let session = session.load().await?;
    match request.uri().path() {
        "/login" => session.login("ada")?,
        "/upload" => {
            // The session was loaded when the upload began.
            let body = request.into_body().collect().await;
            let len = body.map_err(Error::unavailable)?.to_bytes().len();
            session.set("uploaded", len)?;
        }
        _ => {}
    }
    let seen = format!("{:?} {:?}", session.subject().as_deref(), session.get::<usize>("uploaded")?);
    Ok(Response::new(Body::from(seen)))
}

fn options<K>(builder: Builder<K>, clock: &FakeClock) -> Builder<K> {
    let cookie = CookieOptions::development().name("s");
    builder.cookie(cookie).idle_timeout(Duration::from_secs(2)).clock(clock.clone())
}

async fn a_slow_upload_keeps_its_session(store: impl Store + Clone, clock: FakeClock) {
    let address = serve(session_fn(store, app)).await;
    let mut jar = Jar::new();
    let mut client = Client::connect(Version::One, address).await;
    client.visit("/login", &mut jar).await;

    // Half of the body, then three seconds on the service's clock, then the rest.
    let mut upload = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /upload HTTP/1.1\r\nhost: localhost\r\ncookie: {}\r\ncontent-length: 10\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n",
        jar.header().unwrap()
    );
    upload.write_all(head.as_bytes()).await.unwrap();
    // The service asks for the body when its handler does: by then the session is loaded.
    let mut go_on = [0; 25];
    upload.read_exact(&mut go_on).await.unwrap();
    assert!(go_on.starts_with(b"HTTP/1.1 100 Continue"));
    upload.write_all(b"01234").await.unwrap();
    clock.advance(Duration::from_secs(3));
    upload.write_all(b"56789").await.unwrap();
    let mut answer = String::new();
    upload.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let line = answer.lines().find_map(|line| line.strip_prefix("set-cookie: ")).expect("a cookie");
    assert!(line.contains("Max-Age=2"), "it lasts from now: {line}");
    let mut headers = http::HeaderMap::new();
    headers.insert("set-cookie", line.parse().unwrap());
    jar.store(&headers);

    clock.advance(Duration::from_secs(1));
    assert_eq!(client.visit("/", &mut jar).await, "Some(\"ada\") Some(10)");
}

#[test]
fn b5_an_upload_longer_than_the_idle_timeout_keeps_its_session_in_a_cookie() {
    run(async {
        let clock = FakeClock::at(1_700_000_000);
        let builder = CookieStore::builder(AppKey::generate().unwrap());
        a_slow_upload_keeps_its_session(options(builder, &clock).build().unwrap(), clock).await;
    });
}

#[test]
fn b5_an_upload_longer_than_the_idle_timeout_keeps_its_session_in_memory() {
    run(async {
        let clock = FakeClock::at(1_700_000_000);
        a_slow_upload_keeps_its_session(options(MemoryStore::builder(), &clock).build().unwrap(), clock)
            .await;
    });
}

#[cfg(feature = "sqlite")]
#[test]
fn b5_an_upload_longer_than_the_idle_timeout_keeps_its_session_in_a_file() {
    let folder = std::env::temp_dir().join(format!("hyper-session-uploads-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    run(async {
        let clock = FakeClock::at(1_700_000_000);
        let builder = hyper_session::SqliteStore::builder(folder.join("sessions.db"));
        let store = options(builder.busy_timeout(UNHURRIED), &clock).open().unwrap();
        a_slow_upload_keeps_its_session(store, clock).await;
    });
    std::fs::remove_dir_all(folder).unwrap();
}

/// The store counts by the clock of Redis, which it takes to be as far ahead of its own as when it connected.
#[cfg(feature = "redis")]
#[test]
fn b5_an_upload_longer_than_the_idle_timeout_keeps_its_session_in_redis() {
    let server = crate::server::Server::start();
    run(async {
        let clock = FakeClock::at(1_700_000_000);
        let builder = hyper_session::RedisStore::builder(server.url()).prefix("uploads");
        let builder = crate::server::unhurried(builder);
        a_slow_upload_keeps_its_session(options(builder, &clock).connect().await.unwrap(), clock).await;
    });
}
