//! Connections that many requests share: keep-alive, pipelines, streams, and cookies in crumbs.

use std::net::SocketAddr;

use http::header::{COOKIE, HeaderValue};
use http::{Method, Request};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_session::{Refusal, SessionHandle, session_fn};
use hyper_util::rt::TokioExecutor;
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;

use crate::servers::{
    Client, VERSIONS, Version, app, cookie_store, logged_in, raw, run, serve_both, serve_with, servers,
};
use crate::support::{Events, Jar, refused};

// ------------------------------------------------------------------------------------------------- one connection

#[test]
fn a_counter_counts_over_a_hundred_requests_of_one_connection() {
    run(async {
        for (address, events) in servers().await {
            for version in VERSIONS {
                let (mut client, mut jar) = (Client::connect(version, address).await, Jar::new());
                for visit in 1..=100 {
                    assert_eq!(client.visit("/count", &mut jar).await, format!("visit {visit}\n"));
                }
                client.visit("/logout", &mut jar).await;
                assert_eq!(jar.get("s"), None);
            }
            assert_eq!(events.take(), Vec::<String>::new());
        }
    });
}

#[test]
fn t38_users_who_share_a_connection_share_nothing_else() {
    run(async {
        for (address, _) in servers().await {
            for version in VERSIONS {
                let mut client = Client::connect(version, address).await;
                let (mut ada, mut bob, mut nobody) = (Jar::new(), Jar::new(), Jar::new());
                client.visit("/login/ada", &mut ada).await;
                client.visit("/login/bob", &mut bob).await;
                for visit in 1..=10 {
                    assert_eq!(client.visit("/count", &mut ada).await, format!("visit {visit}\n"));
                    assert_eq!(client.visit("/who", &mut nobody).await, "");
                    assert_eq!(client.visit("/who", &mut bob).await, "bob");
                    assert_eq!(client.visit("/who", &mut ada).await, "ada");
                }
                assert_eq!(client.visit("/count", &mut bob).await, "visit 1\n");
                client.visit("/logout", &mut bob).await;
                assert_eq!(client.visit("/who", &mut ada).await, "ada");
                assert_eq!(nobody.0.len() + bob.0.len(), 0);
            }
        }
    });
}

// Requests that are answered out of order on one HTTP/2 connection have each their own session.
#[test]
fn t38_concurrent_streams_share_nothing() {
    run(async {
        for (address, _) in servers().await {
            let mut client = Client::connect(Version::Two, address).await;
            let users: Vec<_> = (0..20).map(|n| format!("user{n}")).collect();
            let mut logins = Vec::new();
            for user in &users {
                logins.push(client.send(Method::GET, &format!("/login/{user}"), &[]));
            }
            let mut jars = Vec::new();
            for login in logins {
                jars.push(Jar::new());
                jars.last_mut().unwrap().store(login.await.unwrap().headers());
            }
            let asked: Vec<_> =
                jars.iter().map(|jar| client.send(Method::GET, "/who", &[jar.header().unwrap()])).collect();
            for (answer, user) in asked.into_iter().zip(&users).rev() {
                let body = answer.await.unwrap().into_body().collect().await.unwrap().to_bytes();
                assert_eq!(body, user.as_bytes());
            }
        }
    });
}

#[test]
fn t53_t62_pipelined_requests_in_odd_but_legal_forms_find_the_session() {
    run(async {
        for (address, events) in servers().await {
            let token = logged_in(address, "ada").await.get("s").unwrap().to_owned();
            events.take();
            let forms = [
                format!("Cookie: s={token}\r\n"),
                format!("cOoKiE:s={token}\r\n"),
                format!("COOKIE:\t \ta=1;\ts\t=\t{token}\t \r\n"),
                format!("Cookie: a=1\r\nX-Between: y\r\ncookie: b=2; s={token}; c=3\r\nCookie: d\r\n"),
                format!("Cookie: \r\nCookie: ;;; ;\r\nCookie: s={token};\r\n"),
                format!("Cookie: s2=x; as=y; =s; s; \"s\"=z\r\nCookie: $Version=1; s={token}; $Path=/\r\n"),
                format!("Cookie: caf\u{e9}=\u{2000}; q=\"; s={token}; \"\r\n"),
            ];
            let last = "Connection: close\r\nCookie: S=x; s2=y\r\n";
            let heads = forms.iter().map(String::as_str).chain([last]);
            let bytes: String =
                heads.flat_map(|form| ["GET /who HTTP/1.1\r\nHost: x\r\n", form, "\r\n"]).collect();
            let answer = raw(address, bytes.as_bytes()).await;
            let bodies: Vec<_> = answer
                .split("HTTP/1.1 200 OK\r\n")
                .skip(1)
                .map(|response| response.split_once("\r\n\r\n").unwrap().1)
                .collect();
            assert_eq!(bodies, [vec!["ada"; forms.len()], vec![""]].concat());
            assert_eq!(events.take(), Vec::<String>::new());
        }
    });
}

// --------------------------------------------------------------------------------------------------------- crumbs

/// Sends one request by the h2 crate, each crumb as a field of its own: the answer's fields seen and body.
async fn crumbs(address: SocketAddr, path: &str, crumbs: &[String]) -> (String, String) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(async { drop(connection.await) });
    let mut request = Request::builder().uri(format!("http://localhost{path}")).body(()).unwrap();
    for crumb in crumbs {
        request.headers_mut().append(COOKIE, HeaderValue::from_str(crumb).unwrap());
    }
    let (response, _) = client.send_request(request, true).unwrap();
    let (head, mut body) = response.await.unwrap().into_parts();
    assert_eq!(head.status, 200, "{path}");
    let mut text = Vec::new();
    while let Some(data) = body.data().await {
        text.extend_from_slice(&data.unwrap());
    }
    connection.abort();
    let seen = head.headers["x-cookie-fields"].to_str().unwrap().to_owned();
    (seen, String::from_utf8(text).unwrap())
}

#[test]
fn t62_the_session_is_found_among_crumbs_in_any_place() {
    run(async {
        for (address, events) in servers().await {
            let ours = logged_in(address, "ada").await.header().unwrap();
            events.take();
            for place in 0..4 {
                let mut fields: Vec<_> = ["a=1", "b=2; c=3", "s2=x"].map(str::to_owned).into();
                fields.insert(place, ours.clone());
                assert_eq!(crumbs(address, "/who", &fields).await, ("4".into(), "ada".into()));
                // The same as fields of HTTP/1.
                assert_eq!(Client::connect(Version::One, address).await.get("/who", &fields).await, "ada");
            }
            assert_eq!(events.take(), Vec::<String>::new());
        }
    });
}

#[test]
fn t62_t64_of_two_candidates_the_authentic_one_wins_and_the_other_is_reported() {
    run(async {
        for (n, (address, events)) in servers().await.into_iter().enumerate() {
            let ours = logged_in(address, "ada").await.header().unwrap();
            events.take();
            // One character changed: well-formed, and nothing that this server ever handed out.
            let at = ours.len() - 9;
            let other = if ours.as_bytes()[at] == b'A' { "B" } else { "A" };
            let forged = format!("{}{other}{}", &ours[..at], &ours[at + 1..]);
            let why = if n < 2 { Refusal::Signature } else { Refusal::UnknownId };
            let fields = ["a=1".to_owned(), forged, "b=2".to_owned(), ours];
            assert_eq!(crumbs(address, "/who", &fields).await.1, "ada");
            assert_eq!(events.take(), [refused(why)]);
            for version in VERSIONS {
                assert_eq!(Client::connect(version, address).await.get("/who", &fields).await, "ada");
                assert_eq!(events.take(), [refused(why)]);
                // If no handler asks for the session, its cookies are not examined.
                Client::connect(version, address).await.get("/ping", &fields).await;
                assert_eq!(events.take(), Vec::<String>::new());
            }
        }
    });
}

#[test]
fn t62_t69_chunks_in_separate_crumbs_are_one_session() {
    run(async {
        let events = Events::new();
        for address in serve_both(cookie_store("s", &events)).await {
            let mut jar = Jar::new();
            Client::connect(Version::Two, address).await.visit("/fill/8000", &mut jar).await;
            assert_eq!(jar.0.keys().collect::<Vec<_>>(), ["s", "s.1", "s.2"]);
            events.take();
            let chunks: Vec<_> = jar.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let mut orders = vec![chunks.clone(), chunks.iter().rev().cloned().collect()];
            orders.push(
                [
                    "x=1".to_owned(),
                    chunks[1].clone(),
                    "y=2; z=3".to_owned(),
                    chunks[2].clone(),
                    chunks[0].clone(),
                ]
                .into(),
            );
            orders.push(vec![format!("{}; {}", chunks[2], chunks[0]), chunks[1].clone()]);
            for order in &orders {
                assert_eq!(crumbs(address, "/size", order).await, (order.len().to_string(), "8000".into()));
                assert_eq!(Client::connect(Version::One, address).await.get("/size", order).await, "8000");
            }
            assert_eq!(events.take(), Vec::<String>::new());
            for missing in 0..3 {
                let mut rest = chunks.clone();
                rest.remove(missing);
                assert_eq!(crumbs(address, "/size", &rest).await.1, "0", "without chunk {missing}");
            }
            // A smaller session takes the tail away with it, chunk by chunk.
            Client::connect(Version::Two, address).await.visit("/fill/10", &mut jar).await;
            assert_eq!(jar.0.keys().collect::<Vec<_>>(), ["s"]);
        }
    });
}

// The whole header list is then larger than the 16 KiB that hyper takes over HTTP/2 unless it is told otherwise.
#[test]
fn t62_t69_eight_chunks_are_one_session_where_the_server_takes_such_headers() {
    run(async {
        let events = Events::new();
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http2().max_header_list_size(64 << 10);
        let service = session_fn(
            cookie_store("s", &events),
            |request: Request<Incoming>, session: SessionHandle| async move {
                app(&request, async move { session.load().await }).await
            },
        );
        let address = serve_with(builder, service).await;
        events.take();
        let mut jar = Jar::new();
        let mut client = Client::connect(Version::One, address).await;
        client.visit("/fill/24000", &mut jar).await;
        assert_eq!(jar.0.len(), 8);
        let chunks: Vec<_> = jar.0.iter().rev().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(crumbs(address, "/size", &chunks).await, ("8".into(), "24000".into()));
        assert_eq!(client.get("/size", &chunks).await, "24000");
        assert_eq!(events.take(), Vec::<String>::new());
        client.visit("/logout", &mut jar).await;
        assert_eq!(jar.0.len(), 0);
    });
}
