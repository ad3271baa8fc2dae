//! Requests of one session at the same time lose nothing (R2), and none of them brings back what was ended (R1).

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use hyper::service::Service;
use hyper_session::testing::Cut;
use tokio::sync::SemaphorePermit;

use crate::app::{App, behind_relay};
use crate::connections::writes;
use crate::server::Server;
use crate::support::{Jar, request};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r02_64_tasks_that_count_200_times_each_count_to_12_800() {
    let server = Server::start();
    // Two instances of the application: what one of them queues, the other does not know of.
    count_to_12_800([App::connect(server.url()).await, App::connect(server.url()).await]).await;
}

pub(crate) async fn count_to_12_800(apps: [App; 2]) {
    let mut jar = Jar::new();
    apps[0].ok("/set/x", &mut jar).await;
    let tasks: Vec<_> = (0..64)
        .map(|task| {
            let (app, mut jar) = (apps[task % 2].clone(), jar.clone());
            tokio::spawn(async move {
                for _ in 0..200 {
                    app.ok("/add", &mut jar).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(apps[0].ok("/read", &mut jar).await, "12800");
}

/// A known limit (docs/DESIGN.md). The server executes the write of a request, and its reply is lost. While no other request writes,
/// the repetition recognizes the value. After one, the value is that of the other request, and does not say what it was made from.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_runs_again_if_another_request_wrote_between_a_lost_reply_and_the_repetition() {
    let server = Server::start();
    let write = writes(&server).1;
    let (relay, url) = behind_relay(&server);
    let (app, other) = (App::connect(url).await, App::connect(server.url()).await);
    for (other_writes, expected) in [(false, "2"), (true, "4")] {
        let jar = other.jar().await;
        let mut of_app = jar.clone();
        {
            let mut visit = pin!(app.ok("/late/add", &mut of_app));
            // The request repeats the command only when it is polled.
            let mut poll = async || poll_fn(|context| Poll::Ready(visit.as_mut().poll(context))).await;
            app.until("the session is loaded", async || {
                assert!(poll().await.is_pending());
                app.gate.arrived.try_acquire().map(SemaphorePermit::forget).is_ok()
            })
            .await;
            server.freeze();
            relay.cut_next(write, Cut::BeforeReply);
            app.gate.go.add_permits(1);
            app.until("the write is under way", async || {
                assert!(poll().await.is_pending());
                relay.is_done()
            })
            .await;
            server.thaw();
            let executed = async || other.ok("/read", &mut jar.clone()).await == "2";
            other.until("the first write is executed", executed).await;
            if other_writes {
                assert_eq!(other.ok("/add", &mut jar.clone()).await, "3");
            }
            assert_eq!(visit.await, "2");
        }
        assert_eq!(other.ok("/read", &mut jar.clone()).await, expected);
    }
    assert_eq!(app.store.backend().stats().failures, 0);
}

/// Both have loaded before either saves, each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r02_two_requests_that_set_different_keys_both_keep_them_a_thousand_times() {
    let server = Server::start();
    let app = App::connect(server.url()).await;
    let barrier = Arc::new(tokio::sync::Barrier::new(2));
    let service = {
        let barrier = Arc::clone(&barrier);
        Arc::new(hyper_session::session_fn(
            app.store.clone(),
            move |request: http::Request<crate::support::Body>, session: hyper_session::SessionHandle| {
                let barrier = Arc::clone(&barrier);
                async move {
                    let session = session.load().await?;
                    barrier.wait().await;
                    session.set(request.uri().path(), 1_u64)?;
                    Ok::<_, hyper_session::Error>(http::Response::new(crate::support::Body::default()))
                }
            },
        ))
    };
    let jar = app.jar().await;
    let cookie = jar.header();
    for round in 0..1_000 {
        let [a, b] = ["a", "b"].map(|key| {
            let (service, request) =
                (Arc::clone(&service), request(&format!("/{key}{round}"), cookie.as_deref()));
            tokio::spawn(async move { service.call(request).await.unwrap().status() })
        });
        assert_eq!((a.await.unwrap().as_u16(), b.await.unwrap().as_u16()), (200, 200));
        // Few keys at a time, so that the session stays small; each is looked at.
        let keys = app.ok("/take", &mut jar.clone()).await;
        assert_eq!(keys, format!("/a{round},/b{round},n"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r01_a_request_that_loaded_before_a_logout_does_not_undo_it() {
    let server = Server::start();
    let app = App::connect(server.url()).await;
    for end in ["/logout", "/regenerate", "/clear"] {
        for _ in 0..20 {
            let jar = app.jar().await;
            let late = {
                let (app, mut jar) = (app.clone(), jar.clone());
                tokio::spawn(async move {
                    let response = app.visit("/late/add", &mut jar).await;
                    (response.status(), response.headers().contains_key("set-cookie"))
                })
            };
            app.gate.arrived.acquire().await.unwrap().forget();
            let mut other = jar.clone();
            app.ok(end, &mut other).await;
            app.gate.go.add_permits(1);
            assert_eq!(late.await.unwrap(), (http::StatusCode::OK, false), "{end}");
            assert_eq!(app.ok("/read", &mut jar.clone()).await, "none", "{end}");
            if end == "/regenerate" {
                assert_eq!(app.ok("/read", &mut other).await, "1");
            }
        }
    }
}
