//! Requests whose future is dropped (F9): nothing leaks, and no answer reaches another request (T79: CVE-2023-28858).

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use hyper::service::Service;
use tokio::time::sleep;

use crate::app::{App, behind_relay};
use crate::server::Server;
use crate::support::{Jar, request};

/// Drops `future` once it was pending `polls` times; its output if it was ready before.
async fn drop_after<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(move |cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if left <= 1 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

/// At every await of every kind of request: what is stored afterwards is what was there before or what was asked for; if
/// the handler had come to its end, a logout or a new token is seen through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f09_t79_a_request_dropped_at_any_await_is_done_or_not_done() {
    let server = Server::start();
    let (relay, url) = behind_relay(&server);
    let app = App::connect(url).await;
    relay.set_latency(Duration::from_micros(500));
    for path in ["/read", "/add", "/clear", "/regenerate", "/logout"] {
        // Where a busy machine did not let this thread run for as long as a reply takes, a future was not pending.
        let is_enough = async || dropped_at_each_await(&app, path).await > usize::from(path != "/read");
        app.until("a request waits as often as it sends", is_enough).await;
    }
    let stats = app.store.backend().stats();
    assert_eq!((stats.failures, stats.connections_broken), (0, 0), "{stats:?}");
    app.is_whole(2).await;
}

/// Drops requests at their first await, at their second, and so on. Returns how many.
async fn dropped_at_each_await(app: &App, path: &str) -> usize {
    for polls in 1..200 {
        let jar = app.jar().await;
        let handled = app.handled.load(Ordering::SeqCst);
        let call = app.service().call(request(path, jar.header().as_deref()));
        let response = drop_after(polls, call).await;
        let handled = app.handled.load(Ordering::SeqCst) > handled;
        if let Some(response) = response {
            assert_eq!(response.unwrap().status(), 200);
            return polls - 1;
        }
        let read = app.ok("/read", &mut jar.clone()).await;
        let case = format!("{path} dropped after {polls} polls, handled: {handled}");
        match path {
            _ if !handled => assert_eq!(read, "1", "{case}"),
            "/read" => assert_eq!(read, "1", "{case}"),
            "/add" => assert!(read == "1" || read == "2", "{case}: {read}"),
            "/clear" => assert!(read == "1" || read == "none", "{case}: {read}"),
            _ => {
                let gone = async || app.ok("/read", &mut jar.clone()).await == "none";
                app.until("it is seen through", gone).await;
            }
        }
    }
    panic!("{path} never ends");
}

/// How many requests are dropped: `HYPER_SESSION_DROPS=100000` for the long run.
fn drops() -> u64 {
    std::env::var("HYPER_SESSION_DROPS").ok().and_then(|count| count.parse().ok()).unwrap_or(8_000)
}

/// Each client has a session that says whose it is. Its requests are dropped at random over a line that delays replies; what
/// any of them is ever told is about itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f09_t79_requests_dropped_at_random_never_receive_each_others_answers() {
    const CLIENTS: u64 = 32;
    let server = Server::start();
    let (relay, url) = behind_relay(&server);
    let app = App::connect(url).await;
    relay.set_latency(Duration::from_micros(500));
    let (dropped, answered) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (app, dropped, answered) = (app.clone(), Arc::clone(&dropped), Arc::clone(&answered));
            tokio::spawn(async move {
                let mine = format!("/set/client{client}");
                let mut jar = Jar::new();
                app.ok(&mine, &mut jar).await;
                let expected = format!("client{client}");
                let mut random = client + 1;
                while dropped.load(Ordering::SeqCst) < drops() {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    let path = ["/keys", "/add", "/keys"][usize::try_from(random >> 60).unwrap() % 3];
                    let call = app.service().call(request(path, jar.header().as_deref()));
                    // On a machine where few get through in that time, more is given.
                    let few = answered.load(Ordering::SeqCst) < dropped.load(Ordering::SeqCst) / 50;
                    let longest = if few { 400_000 } else { 4_000 };
                    let patience = sleep(Duration::from_micros((random >> 40) % longest));
                    tokio::select! {
                        biased;
                        () = patience => { dropped.fetch_add(1, Ordering::SeqCst); }
                        response = call => {
                            let response = response.unwrap();
                            assert_eq!(response.status(), 200);
                            answered.fetch_add(1, Ordering::SeqCst);
                            let text = crate::support::text(response).await;
                            if path == "/keys" {
                                assert_eq!(text.trim_end_matches(",n"), expected);
                            } else {
                                assert!(text.parse::<u64>().is_ok(), "{text}");
                            }
                        }
                    }
                }
                jar
            })
        })
        .collect();
    let mut jars = Vec::new();
    for client in clients {
        jars.push(client.await.unwrap());
    }
    relay.set_latency(Duration::ZERO);
    for (client, jar) in jars.iter_mut().enumerate() {
        assert_eq!(app.ok("/keys", jar).await.trim_end_matches(",n"), format!("client{client}"));
    }
    assert_eq!(server.cli(&["DBSIZE"]), CLIENTS.to_string(), "no session more, none less");
    let stats = app.store.backend().stats();
    assert_eq!((stats.failures, stats.connections_broken, stats.connections), (0, 0, 2), "{stats:?}");
    assert!(answered.load(Ordering::SeqCst) > drops() / 100, "some of them get through: {answered:?}");
    app.is_whole(2).await;
}
