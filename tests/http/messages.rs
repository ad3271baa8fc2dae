//! Messages of all kinds: heads without bodies, streamed bodies, several cookies, and body types that must compile.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderValue, SET_COOKIE, VARY};
use http::{Method, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Body as HttpBody, Frame, Incoming};
use hyper::service::{Service, service_fn};
use hyper_session::store::Store;
use hyper_session::{Error, Session, SessionExt, SessionHandle, SessionService, session_fn};
use tokio::sync::{Notify, mpsc};

use crate::servers::{
    BoxError, Client, VERSIONS, Version, cookie_store, memory_store, raw, run, serve, servers,
};
use crate::support::{Body, Events, Jar};

// ----------------------------------------------------------------------------------------- heads, bodies, several

#[test]
fn t49_heads_without_a_body_carry_the_cookie_and_keep_the_connection() {
    run(async {
        for (address, _) in servers().await {
            for version in VERSIONS {
                let mut client = Client::connect(version, address).await;
                for (method, path, code) in [
                    // hyper leaves it to the handler to send no body to a HEAD over HTTP/2.
                    (Method::HEAD, if version == Version::One { "/count" } else { "/login/200" }, 200),
                    (Method::HEAD, "/status/404", 404),
                    (Method::GET, "/status/204", 204),
                    (Method::GET, "/status/304", 304),
                    (Method::OPTIONS, "/status/204", 204),
                    (Method::DELETE, "/status/205", 205),
                ] {
                    let mut jar = Jar::new();
                    let (status, headers, body) = client.ask(method.clone(), path, &[]).await;
                    assert_eq!((status.as_u16(), &body[..]), (code, ""), "{method} {path}");
                    assert_eq!(headers[VARY], "Cookie");
                    assert_eq!(headers["cache-control"], "no-store");
                    if path == "/count" {
                        assert_eq!(headers[CONTENT_LENGTH], "8", "the length of the body that GET has");
                    }
                    jar.store(&headers);
                    let user = if path == "/count" { String::new() } else { code.to_string() };
                    assert_eq!(client.visit("/who", &mut jar).await, user, "{method} {path}");
                }
                // A response that asks nothing of the session says nothing of it, HEAD or not.
                let (_, headers, _) = client.ask(Method::HEAD, "/ping", &[]).await;
                assert!(!headers.contains_key(SET_COOKIE) && !headers.contains_key(VARY));
            }
        }
    });
}

#[test]
fn a_server_error_over_the_wire_drops_values_and_sets_no_cookie() {
    run(async {
        for (address, events) in servers().await {
            for version in VERSIONS {
                let (status, headers, _) =
                    Client::connect(version, address).await.ask(Method::GET, "/status/500", &[]).await;
                assert_eq!(status, 500);
                assert!(!headers.contains_key(SET_COOKIE), "{headers:?}");
                assert_eq!(events.take(), ["dropped:server_error"]);
            }
        }
    });
}

/// A body that hands on what it is sent, as it comes.
struct Stream(mpsc::Receiver<Bytes>);

impl HttpBody for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|data| data.map(|data| Ok(Frame::data(data))))
    }
}

/// Tries all that changes a session; what each attempt said.
async fn write_late(session: &Session) -> Vec<Error> {
    vec![
        session.set("late", true).unwrap_err(),
        session.delete("user").unwrap_err(),
        session.clear().unwrap_err(),
        session.update("n", |old: Option<u64>| old.unwrap_or(0) + 1).unwrap_err(),
        session.set_flash("late", true).unwrap_err(),
        session.regenerate().unwrap_err(),
        session.destroy().unwrap_err(),
        session.save().await.unwrap_err(),
    ]
}

#[test]
fn writes_while_the_body_is_streamed_are_typed_errors_and_reads_go_on() {
    run(async {
        let events = Events::new();
        for store in
            [Arc::new(cookie_store("s", &events)) as Arc<dyn Store>, Arc::new(memory_store("s", &events))]
        {
            let head_is_out = Arc::new(Notify::new());
            let gate = head_is_out.clone();
            let service = session_fn(store, move |request: Request<Incoming>, handle: SessionHandle| {
                let gate = gate.clone();
                async move {
                    let session = handle.load().await?;
                    if request.uri().path() == "/read" {
                        let keys = Full::from(session.keys().join(","));
                        return Ok::<_, Error>(Response::new(BoxBody::new(keys)));
                    }
                    session.set("user", "ada")?;
                    let (sender, receiver) = mpsc::channel(1);
                    tokio::spawn(async move {
                        sender.send("first ".into()).await.unwrap();
                        gate.notified().await;
                        let errors = write_late(&session).await;
                        let typed = errors.iter().filter(|error| error.is_head_sent()).count();
                        // Asking again gives the same closed session.
                        let again = handle.load().await.unwrap().set("late", true).unwrap_err();
                        let user: String = session.get("user").unwrap().unwrap();
                        let said = format!("{typed} of {} {} {user}", errors.len(), again.is_head_sent());
                        sender.send(said.into()).await.unwrap();
                    });
                    Ok(Response::new(BoxBody::new(Stream(receiver))))
                }
            });
            let address = serve(service).await;
            for version in VERSIONS {
                let mut client = Client::connect(version, address).await;
                let (head, mut body) = client.send(Method::GET, "/", &[]).await.unwrap().into_parts();
                let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
                assert_eq!(first, "first ");
                head_is_out.notify_one();
                let rest = body.collect().await.unwrap().to_bytes();
                assert_eq!(rest, "8 of 8 true ada", "{version:?}");
                let mut jar = Jar::new();
                jar.store(&head.headers);
                assert_eq!(client.visit("/read", &mut jar).await, "user");
            }
        }
    });
}

/// A task that loads the session for the first time when the head is out gets it, closed.
#[test]
fn a_session_first_asked_for_while_the_body_is_streamed_can_only_be_read() {
    run(async {
        let head_is_out = Arc::new(Notify::new());
        let gate = head_is_out.clone();
        let service = session_fn(
            memory_store("s", &Events::new()),
            move |_: Request<Incoming>, handle: SessionHandle| {
                let gate = gate.clone();
                async move {
                    let (sender, receiver) = mpsc::channel(1);
                    tokio::spawn(async move {
                        sender.send("first ".into()).await.unwrap();
                        gate.notified().await;
                        let session = handle.load().await.unwrap();
                        let closed = session.set("late", true).unwrap_err().is_head_sent();
                        sender.send(format!("{closed} {}", session.is_empty()).into()).await.unwrap();
                    });
                    Ok::<_, Error>(Response::new(BoxBody::new(Stream(receiver))))
                }
            },
        );
        let address = serve(service).await;
        for version in VERSIONS {
            let mut client = Client::connect(version, address).await;
            let (head, mut body) = client.send(Method::GET, "/", &[]).await.unwrap().into_parts();
            body.frame().await.unwrap().unwrap();
            assert!(!head.headers.contains_key(SET_COOKIE));
            head_is_out.notify_one();
            assert_eq!(body.collect().await.unwrap().to_bytes(), "true true");
        }
    });
}

#[test]
fn t46_t61_several_sessions_set_their_cookies_on_lines_of_their_own() {
    run(async {
        let events = Events::new();
        let handler = service_fn(|request: Request<Incoming>| async move {
            let (user, cart) = (request.session_named("user").await?, request.session_named("cart").await?);
            let said = format!("{} {}", user.has("name"), cart.has("item"));
            user.set("name", "ada")?;
            cart.set("item", 7)?;
            assert!(request.session_named("other").await.unwrap_err().is_not_wrapped());
            let mut response = Response::new(Body::from(said));
            for cookie in ["theme=dark; Path=/", "cart=planted", "lang=en, US"] {
                response.headers_mut().append(SET_COOKIE, HeaderValue::from_static(cookie));
            }
            for n in 0..5_000_u32 {
                response.headers_mut().append("x-fill", n.into());
            }
            Ok::<_, Error>(response)
        });
        let inner = SessionService::new(handler, memory_store("cart", &events));
        let address = serve(SessionService::new(inner, cookie_store("user", &events))).await;
        events.take();
        let answer = raw(address, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, "false false");
        let lines: Vec<_> = head.lines().filter_map(|line| line.strip_prefix("set-cookie: ")).collect();
        let names: Vec<_> = lines.iter().map(|line| line.split_once('=').unwrap().0).collect();
        assert_eq!(names, ["theme", "lang", "cart", "user"]);
        assert_eq!((lines[0], lines[1]), ("theme=dark; Path=/", "lang=en, US"));
        assert!(!answer.contains("planted"));
        assert_eq!(events.take(), ["set_cookie_replaced"]);
        assert_eq!(head.lines().filter(|line| line.starts_with("x-fill: ")).count(), 5_000);
        assert_eq!(head.lines().filter(|line| line.to_ascii_lowercase().starts_with("vary")).count(), 1);

        let sent: Vec<_> = lines[2..].iter().map(|line| line.split(';').next().unwrap().to_owned()).collect();
        let again =
            format!("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nCookie: {}\r\n\r\n", sent.join("; "));
        assert!(raw(address, again.as_bytes()).await.ends_with("true true"));
        // A token under the other cookie's name opens no session.
        let swapped = again.replace("user=", "u=").replace("cart=", "user=").replace("u=", "cart=");
        assert!(raw(address, swapped.as_bytes()).await.ends_with("false false"));
    });
}

// ---------------------------------------------------------------------------------------------------------- types

/// The requirements of hyper's connections on a service.
fn is_servable<B, R, S>(_: &S)
where
    S: Service<Request<B>, Response = Response<R>, Error = Error> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    R: HttpBody,
{
}

/// Both adapters around a handler of these bodies.
fn serves<B, R>()
where
    B: HttpBody + Send + 'static,
    R: HttpBody + Default + Send + Sync + 'static,
{
    let store = memory_store("s", &Events::new());
    let with_handle = |request: Request<B>, session: SessionHandle| async move {
        session.load().await?.set("k", 1)?;
        drop(request.into_body());
        Ok::<_, Error>(Response::new(R::default()))
    };
    is_servable::<B, R, _>(&session_fn(store.clone(), with_handle));
    let with_extension = service_fn(|request: Request<B>| async move {
        let (parts, _body) = request.into_parts();
        parts.session().await?.set("k", 1)?;
        Ok::<_, Error>(Response::new(R::default()))
    });
    // `ServiceFn` is neither `Clone` nor `Sync` for every body, so it is shared as hyper shares a service.
    is_servable::<B, R, _>(&Arc::new(SessionService::new(with_extension, store)));
}

#[test]
fn any_request_and_response_body_compiles() {
    serves::<Incoming, Full<Bytes>>();
    serves::<Incoming, Empty<Bytes>>();
    serves::<Incoming, BoxBody<Bytes, Infallible>>();
    serves::<Full<Bytes>, String>();
    serves::<Empty<Bytes>, Full<Bytes>>();
    serves::<BoxBody<Bytes, BoxError>, BoxBody<Bytes, BoxError>>();
    serves::<String, Full<std::io::Cursor<Vec<u8>>>>();

    // A body without a default, such as that of a proxied response, needs a way to say "failed".
    let proxy = session_fn(
        memory_store("s", &Events::new()),
        |request: Request<Incoming>, _: SessionHandle| async move {
            Ok::<_, Error>(Response::new(request.into_body().map_err(BoxError::from).boxed()))
        },
    );
    is_servable::<Incoming, BoxBody<Bytes, BoxError>, _>(&proxy);
    let echo = session_fn(
        memory_store("s", &Events::new()),
        |request: Request<Stream>, _: SessionHandle| async move {
            Ok::<_, Error>(Response::new(request.into_body()))
        },
    )
    .on_failure(|_: &Error| Response::new(Stream(mpsc::channel(1).1)));
    is_servable::<Stream, Stream, _>(&echo);
}
