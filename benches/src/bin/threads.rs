//! Requests in process on one thread, and on two at the same time: what threads share costs the second one. Prints one JSON object
//! a line.
//!
//! `threads [--quick]`

use std::hint::black_box;
use std::time::{Duration, Instant};

use http::HeaderValue;
use hyper::service::Service;
use hyper_session::Error;
use hyper_session_benches::ready;
use hyper_session_benches::results::ThreadsRun;
use hyper_session_benches::services::{Action, Body, MEMO, by_extension, request};
use hyper_session_benches::tokens::{cookie_pair, default_store, plain_store, revocable_store};

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let (rounds, duration) = if quick { (1, 0.02) } else { (41, 0.25) };
    for (name, store) in [
        ("hyper-session", plain_store()),
        (MEMO, default_store()),
        ("hyper-session, revocations", revocable_store()),
    ] {
        let service = by_extension(store);
        for action in [Action::Untouched, Action::Read] {
            let duration = Duration::from_secs_f64(duration);
            let mut ratios: Vec<_> = (0..rounds)
                .map(|_| {
                    let one = per_second(&service, action, 1, duration);
                    let two = per_second(&service, action, 2, duration);
                    two / one
                })
                .collect();
            ratios.sort_by(f64::total_cmp);
            let result = ThreadsRun {
                arm: name.to_owned(),
                action: format!("{action:?}").to_lowercase(),
                ratio: ratios[rounds / 2],
            };
            println!("{}", serde_json::to_string(&result).unwrap());
        }
    }
}

/// Requests a second of processor time of each thread, added up. The time of a thread does not count the work of other programs.
fn per_second<S>(service: &S, action: Action, threads: usize, duration: Duration) -> f64
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Error> + Clone + Send + Sync,
{
    let run = || {
        // Of its own, as each connection has one.
        let service = service.clone();
        let login = ready(service.call(request(Action::Login, None))).unwrap();
        let cookie = HeaderValue::from_str(&cookie_pair(login.headers())).unwrap();
        let (start, processor, mut done) = (Instant::now(), processor_time(), 0.0);
        while start.elapsed() < duration {
            for _ in 0..64 {
                let response = ready(service.call(request(action, Some(&cookie)))).unwrap();
                assert_eq!(black_box(response).status(), 200);
            }
            done += 64.0;
        }
        done / (processor_time() - processor)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

/// Seconds that this thread has been running so far.
fn processor_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}
