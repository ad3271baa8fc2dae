//! Sealing a session makes no system call: neither for a nonce nor to find out whether the process was forked.
#![cfg(target_os = "linux")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::process::Command;
use std::task::{Context, Poll, Waker};

use http::{Request, Response};
use hyper::service::Service;
use hyper_session::{AppKey, CookieStore, Error, SessionHandle, session_fn};

const CHILD: &str = "HYPER_SESSION_SEALS";
const SEALED: usize = 10_000;

fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("a cookie store answers at once"),
    }
}

/// Seals sessions of 256 bytes, between two lines on standard output.
fn seal() {
    let store = CookieStore::builder(AppKey::generate().unwrap()).build().unwrap();
    let service = session_fn(store, |_: Request<()>, session: SessionHandle| async move {
        session.load().await?.set("text", "x".repeat(248))?;
        Ok::<_, Error>(Response::new(()))
    });
    let round = || {
        let response = ready(service.call(Request::new(()))).unwrap();
        assert!(response.headers().contains_key("set-cookie"));
    };
    (0..100).for_each(|_| round()); // keys are derived, the generator is seeded
    println!("sealing begins");
    (0..SEALED).for_each(|_| round());
    println!("sealing ends");
}

// T16: a batch of nonces serves 64 tokens, and what tells copies of it apart costs no system call.
#[test]
fn t16_sealing_makes_no_system_call() {
    if std::env::var_os(CHILD).is_some() {
        return seal();
    }
    let calls = std::env::temp_dir().join(format!("hyper-session-calls-{}", std::process::id()));
    let output = Command::new("strace")
        .args(["--follow-forks", "--quiet=all", "--output"])
        .arg(&calls)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "t16_sealing_makes_no_system_call", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .expect("strace is installed (./tests/run installs it)");
    let text = std::fs::read_to_string(&calls).unwrap_or_default();
    let _ = std::fs::remove_file(&calls);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (_, after) = text.split_once("sealing begins").expect("the line that begins");
    let (during, _) = after.split_once("sealing ends").expect("the line that ends");
    let mut counts = BTreeMap::new();
    for line in during.lines().skip(1) {
        let name = line.split_whitespace().nth(1).and_then(|call| call.split('(').next()).unwrap_or_default();
        *counts.entry(name).or_insert(0_usize) += 1;
    }
    counts.remove("write"); // the line that ends
    // The generator seeds itself anew now and then, and memory may grow: a handful in ten thousand.
    assert!(counts.values().sum::<usize>() < SEALED / 100, "{counts:?}");
}
