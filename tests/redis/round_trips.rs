//! The cost of logging in, listing and ending over a line with latency (A7, A12), as it shows on the clock.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use hyper_session::testing::{FakeClock, Relay};
use hyper_session::{Clock, SystemClock};

use crate::app::{App, behind_relay, builder};
use crate::server::Server;
use crate::session_lists::{log_in, user};

/// So much that the machine's own time counts little.
const ROUND_TRIP: Duration = Duration::from_millis(200);

/// `store_contract` counts the steps one after the other, whatever time they take. Here is what they come to on a socket: it is
/// printed, and bounded with much room for a machine that is busy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a7_a12_logging_in_listing_ending_and_renewing_cost_few_round_trips() {
    let server = Server::start();
    let (relay, url) = behind_relay(&server);
    let clock = FakeClock::at(SystemClock.now().as_unix());
    let long = Duration::from_secs(20);
    let options = builder(url).clock(clock.clone());
    let app = App::with(options.command_timeout(long).checkout_timeout(long)).await;
    for _ in 0..99 {
        log_in(&app.store, "ada").await;
    }
    let mut jar = log_in(&app.store, "ada").await;
    relay.set_latency(ROUND_TRIP / 2);
    let measure = |what: &str, start: Instant| {
        let round_trips = start.elapsed().as_secs_f64() / ROUND_TRIP.as_secs_f64();
        println!("{what}: {round_trips:.2} round trips");
        round_trips
    };

    let start = Instant::now();
    let newest = log_in(&app.store, "ada").await;
    assert!(measure("login at the session limit", start) < 30.0);
    assert_eq!(app.events.take().last().map(String::as_str), Some("subject_limit:1"));
    let start = Instant::now();
    let sessions = app.store.sessions_of("ada").await.unwrap();
    assert!(measure("list 100", start) < 10.0);
    assert_eq!(sessions.len(), 100);
    let start = Instant::now();
    assert_eq!(app.ok("/read", &mut jar).await, "none");
    let plain = measure("a page that reads", start);
    clock.advance(Duration::from_secs(3 * 3_600));
    let start = Instant::now();
    app.ok("/read", &mut jar).await;
    let renewing = measure("a page that reads, renewal due", start);
    assert!(plain < 10.0 && renewing < 10.0, "{renewing} {plain}");
    let start = Instant::now();
    assert_eq!(app.store.end_sessions_of("ada", Some(sessions[99].id)).await.unwrap(), 99);
    assert!(measure("end 99", start) < 30.0);
    assert_eq!(user(&app.store, &newest).await.as_deref(), Some("ada"));
}

/// The median round trip of a socket with nothing above it: on a busy machine, the relay takes more than its latency.
fn round_trip_of(relay: &Relay) -> Duration {
    let mut socket = TcpStream::connect(relay.address()).unwrap();
    socket.set_nodelay(true).unwrap();
    let mut times: Vec<_> = (0..20)
        .map(|_| {
            let start = Instant::now();
            socket.write_all(b"PING\r\n").unwrap();
            socket.read_exact(&mut [0; 7]).unwrap();
            start.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

/// Many tasks share a connection: each waits for its own round trip, and not for those of others. Printed, as above.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a1_sixteen_tasks_on_one_connection_wait_one_round_trip_each() {
    let server = Server::start();
    for connections in [1, 2] {
        let (relay, url) = behind_relay(&server);
        let long = Duration::from_secs(20);
        let options = builder(url).connections(connections);
        let app = App::with(options.command_timeout(long).checkout_timeout(long)).await;
        let mut jars = Vec::new();
        for _ in 0..16 {
            jars.push(app.jar().await);
        }
        let round_trip = Duration::from_millis(50);
        relay.set_latency(round_trip / 2);
        let line = round_trip_of(&relay);
        let tasks: Vec<_> = jars
            .into_iter()
            .map(|mut jar| {
                let app = app.clone();
                tokio::spawn(async move {
                    let mut times = Vec::new();
                    for _ in 0..20 {
                        let start = Instant::now();
                        app.ok("/read", &mut jar).await;
                        times.push(start.elapsed());
                    }
                    times
                })
            })
            .collect();
        let mut times = Vec::new();
        for task in tasks {
            times.extend(task.await.unwrap());
        }
        times.sort();
        let median = times[times.len() / 2];
        println!(
            "median GET at 50 ms, 16 tasks, {connections} connections: {median:?}, {:.2} round trips of {line:?}",
            median.as_secs_f64() / line.as_secs_f64()
        );
        assert!(median >= round_trip && median < 10 * round_trip, "{median:?}");
    }
}
