//! The operator's view: every event in the log and in the metrics, under the names that the guide documents, and nothing
//! that must not be there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub
)]

#[path = "../support/device.rs"]
mod device;
#[path = "../redis/server.rs"]
#[allow(dead_code)]
mod server;
#[path = "../support/mod.rs"]
mod support;

mod every_event;
mod floods;
mod log;
mod metrics;
mod prometheus;

use std::sync::{Mutex, MutexGuard, PoisonError};

use self::every_event::{SECRETS, cause_every_event};
use self::log::Log;
use self::metrics::Recorder;

/// One test at a time: which callsites of `tracing` are of interest is known to the process, not to the thread.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) const GUIDE: &str = include_str!("../../src/guide/observability.md");

/// The names in backquotes that the guide's table rows begin with.
fn documented(prefix: &str) -> Vec<&'static str> {
    let cell = |line: &'static str| line.strip_prefix("| `")?.split('`').next();
    GUIDE.lines().filter_map(cell).filter(|name| name.starts_with(prefix)).collect()
}

#[test]
fn every_metric_is_counted_described_and_documented() {
    let _turn = alone();
    let recorder = Recorder::default();
    ::metrics::with_local_recorder(&recorder, || {
        hyper_session::describe_metrics();
        cause_every_event();
    });
    let described = recorder.described();
    let mut documented = documented("hyper_session_");
    documented.sort_unstable();
    assert_eq!(described, documented, "the guide has what there is");
    for name in described {
        assert!(recorder.total(&name) > 0.0, "{name} was never counted:\n{}", recorder.text());
    }
    for (metric, times) in [
        (r#"hyper_session_refused_total{cookie="__Host-session",reason="unknown_id"}"#, 2.0),
        (r#"hyper_session_refused_total{cookie="__Host-session",reason="signature"}"#, 1.0),
        (
            r#"hyper_session_store_errors_total{cookie="__Host-session",operation="load",reason="unavailable"}"#,
            1.0,
        ),
        (
            r#"hyper_session_store_errors_total{cookie="__Host-session",operation="save",reason="too_large"}"#,
            1.0,
        ),
        (r#"hyper_session_changes_dropped_total{cookie="__Host-session",reason="session_ended"}"#, 1.0),
        (r#"hyper_session_conflicts_total{cookie="__Host-session"}"#, 1.0),
        (r#"hyper_session_interrupted_total{cookie="__Host-session",completing="true"}"#, 1.0),
    ] {
        assert_eq!(recorder.get(metric), Some(times), "{metric} in\n{}", recorder.text());
    }
    let text = recorder.text();
    for operation in ["load", "save", "renew", "regenerate", "destroy"] {
        let timed = format!(r#"operation="{operation}",outcome="ok""#);
        assert!(text.contains(&timed), "{operation} is not timed:\n{text}");
    }
    assert!(text.contains(r#"operation="load",outcome="error""#), "{text}");
    assert_no_secrets(&text);
}

#[test]
fn every_event_is_logged_and_documented() {
    let _turn = alone();
    let log = Log::default();
    tracing::subscriber::with_default(log.clone(), cause_every_event);
    let text = log.text();
    let mut names: Vec<String> = log.names();
    names.sort_unstable();
    names.dedup();
    let mut documented: Vec<_> =
        documented("").into_iter().filter(|name| !name.starts_with("hyper_session_")).collect();
    documented.sort_unstable();
    assert_eq!(names, documented, "the guide has what there is");
    assert!(text.contains("ERROR event=store_failed cookie=__Host-session operation=load"), "{text}");
    assert!(
        text.contains(
            "reason=unavailable cause=the test made the backend unreachable count=1: the session store is unavailable"
        ),
        "{text}"
    );
    assert!(text.lines().any(|line| line.contains("event=created") && line.contains("session=")), "{text}");
    assert_no_secrets(&text);
}

// T75: ids only.
#[track_caller]
fn assert_no_secrets(text: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{secret} in\n{text}");
    }
    // A token is 43 characters of base64url or more; nothing here is as long a word.
    let token = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let words = text.as_bytes().split(|&byte| !token(byte));
    let longest = words.filter(|word| word.iter().any(u8::is_ascii_digit)).map(<[u8]>::len).max().unwrap();
    assert!(longest < 43, "a word of {longest} characters in\n{text}");
}

// "Nothing compiled in when off" has its other half in `.ci/run`: without the features, neither crate is a dependency.
#[test]
fn a_store_that_answers_at_once_is_not_timed() {
    let _turn = alone();
    let recorder = Recorder::default();
    ::metrics::with_local_recorder(&recorder, every_event::one_cookie_session);
    assert!(recorder.total("hyper_session_created_total") > 0.0);
    assert!(!recorder.text().contains("store_seconds"), "{}", recorder.text());
}
