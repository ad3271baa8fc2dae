//! Stores that wait for a server or a disk: their arms, and many tasks that use one at a time.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::header::{COOKIE, HeaderValue};
use hyper::service::Service;
use hyper_session::__internals::Verbs;
use hyper_session::store::Backend;
use hyper_session::{Clock, ServerStore, SystemClock};

use crate::services::{Action, by_argument, request};
use crate::tokens::cookie_pair;

/// The logins that run at the same time while sessions are created.
const LOGINS: usize = 64;

type Step = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One operation on the session with this number.
pub type Operation = Arc<dyn Fn(usize) -> Step + Send + Sync>;

/// Makes an operation from an asynchronous closure.
pub fn operation<F: Future<Output = ()> + Send + 'static>(
    run: impl Fn(usize) -> F + Send + Sync + 'static,
) -> Operation {
    Arc::new(move |number| Box::pin(run(number)))
}

/// A store with its sessions.
pub struct StoreArm {
    pub name: &'static str,
    pub load: Operation,
    pub change: Operation,
}

impl StoreArm {
    /// Creates `sessions` sessions in a store of this crate. Loading calls the store; changing calls the whole service,
    /// from request to response.
    pub async fn ours<B: Backend>(name: &'static str, store: ServerStore<B>, sessions: usize) -> Self {
        let service = by_argument(store.clone());
        let mut cookies = Vec::new();
        while cookies.len() < sessions {
            let logins: Vec<_> =
                (0..LOGINS).map(|_| tokio::spawn(service.call(request(Action::Login, None)))).collect();
            for login in logins {
                let response = login.await.unwrap().unwrap();
                cookies.push(HeaderValue::from_str(&cookie_pair(response.headers())).unwrap());
            }
        }
        let tokens: Vec<Vec<u8>> = cookies
            .iter()
            .map(|pair| pair.as_bytes().split(|&byte| byte == b'=').nth(1).unwrap().to_vec())
            .collect();
        Self {
            name,
            load: operation(move |number| {
                let load = store.load(&tokens[number], SystemClock.now());
                async move { assert!(load.await.unwrap().is_ok()) }
            }),
            change: operation(move |number| {
                let mut request = request(Action::Change, None);
                request.headers_mut().insert(COOKIE, cookies[number].clone());
                let call = service.call(request);
                async move { assert!(call.await.unwrap().headers().contains_key("set-cookie")) }
            }),
        }
    }
}

/// Runs an operation in `tasks` tasks at the same time. Returns how many operations they did, and in how many seconds. Each task
/// begins at a session of its own, and continues with the sessions that no other task uses.
pub async fn run(operation: &Operation, tasks: usize, sessions: usize, duration: Duration) -> (usize, f64) {
    let start = Instant::now();
    let over = Arc::new(AtomicBool::new(false));
    let running: Vec<_> = (0..tasks)
        .map(|task| {
            let (operation, over) = (operation.clone(), Arc::clone(&over));
            tokio::spawn(async move {
                let mut done = 0;
                // Reading the clock here would be a tenth of the fastest operation.
                while !over.load(Ordering::Relaxed) {
                    operation((task + done * tasks) % sessions).await;
                    done += 1;
                    // An operation that is ready at once would keep the thread for its task.
                    if done % 32 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
                done
            })
        })
        .collect();
    tokio::time::sleep(duration).await;
    over.store(true, Ordering::Relaxed);
    let mut done = 0;
    for task in running {
        done += task.await.unwrap();
    }
    (done, start.elapsed().as_secs_f64())
}

/// Returns the median.
pub fn median(runs: &[f64]) -> f64 {
    let mut runs = runs.to_vec();
    runs.sort_by(f64::total_cmp);
    runs[runs.len() / 2]
}
