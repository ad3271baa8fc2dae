//! Events as counters and one histogram, through the `metrics` facade.

use metrics::{Unit, counter, describe_counter, describe_histogram, histogram};

use super::Event;

/// What there is to count: name, and what it says.
const COUNTERS: [(&str, &str); 23] = [
    ("hyper_session_refused_total", "Session cookies that were not accepted, by reason."),
    (
        "hyper_session_cookie_format_total",
        "Session cookies shown to a store that reads several formats, by format.",
    ),
    (
        "hyper_session_several_sessions_total",
        "Requests with several authentic sessions, by whether their subjects differ.",
    ),
    (
        "hyper_session_too_many_candidates_total",
        "Requests with more cookies of the session's name than are tried.",
    ),
    ("hyper_session_old_key_total", "Sessions opened with a key that no longer seals."),
    ("hyper_session_created_total", "Sessions created."),
    ("hyper_session_logins_total", "Sessions bound to a subject."),
    (
        "hyper_session_not_wrapped_total",
        "Handlers that asked for their session where no session service wraps them.",
    ),
    ("hyper_session_regenerated_total", "Sessions that were given a new id."),
    ("hyper_session_destroyed_total", "Sessions ended."),
    (
        "hyper_session_changes_dropped_total",
        "Responses whose session changes were dropped on purpose, by reason.",
    ),
    ("hyper_session_conflicts_total", "Times that a save took in what a concurrent request had changed."),
    ("hyper_session_migrating_total", "Sessions loaded that are still to be moved, by where they are from."),
    ("hyper_session_values_unreadable_total", "Values that did not decode, and were read as absent."),
    (
        "hyper_session_store_errors_total",
        "Failures of the store and oversize sessions, by operation and reason.",
    ),
    ("hyper_session_handler_errors_total", "Errors of this crate that handlers returned, by reason."),
    ("hyper_session_cookies_withheld_total", "Sessions saved under a token that the client does not get."),
    ("hyper_session_headers_replaced_total", "Headers of handlers that were replaced for safety, by header."),
    ("hyper_session_subject_limit_total", "Sessions ended because their subject had too many."),
    (
        "hyper_session_interrupted_total",
        "Clients that went away while their session was being ended or regenerated.",
    ),
    (
        "hyper_session_near_cache_emptied_total",
        "Times that a near-cache was emptied of the sessions of a server, by reason.",
    ),
    ("hyper_session_revocations_total", "What happened to the revocations of cookie stores, by change."),
    ("hyper_session_insecure_stores_total", "Stores built with a cookie that is not Secure."),
];

const STORE_SECONDS: &str = "hyper_session_store_seconds";

/// Gives exporters the units and descriptions of this crate's metrics. Call it once, after the recorder is installed.
///
/// # Examples
///
/// ```
/// hyper_session::describe_metrics(); // without a recorder, nothing happens
/// ```
pub fn describe_metrics() {
    for (name, description) in COUNTERS {
        describe_counter!(name, Unit::Count, description);
    }
    describe_histogram!(STORE_SECONDS, Unit::Seconds, "How long the store took to answer, by operation.");
}

/// Counts an event. Every label has few values: the cookie's name is chosen by the application, and the others are names in
/// this crate. Ids of sessions are not labels, because each would be a time series.
pub(super) fn count(event: &Event<'_>) {
    let plain = |name: &'static str, cookie: &str| counter!(name, "cookie" => cookie.to_owned());
    match *event {
        Event::InsecureCookie { cookie } => plain("hyper_session_insecure_stores_total", cookie).increment(1),
        Event::NotWrapped { cookie } => plain("hyper_session_not_wrapped_total", cookie).increment(1),
        // Without the key: a client can name any key, and each would be a time series.
        Event::Refused { cookie, refusal, .. } => {
            counter!("hyper_session_refused_total", "cookie" => cookie.to_owned(), "reason" => refusal.as_str()).increment(1);
        }
        Event::CookieFormat { cookie, format, refusal } => {
            let outcome = if refusal.is_none() { "opened" } else { "refused" };
            counter!("hyper_session_cookie_format_total", "cookie" => cookie.to_owned(), "format" => format.as_str(), "outcome" => outcome)
                .increment(1);
        }
        Event::SeveralSessions { cookie, subjects_differ, .. } => {
            let subjects = if subjects_differ { "differ" } else { "same" };
            counter!("hyper_session_several_sessions_total", "cookie" => cookie.to_owned(), "subjects" => subjects).increment(1);
        }
        Event::TooManyCandidates { cookie } => {
            plain("hyper_session_too_many_candidates_total", cookie).increment(1);
        }
        Event::OldKey { cookie, .. } => plain("hyper_session_old_key_total", cookie).increment(1),
        Event::Created { cookie, .. } => plain("hyper_session_created_total", cookie).increment(1),
        Event::LoggedIn { cookie, .. } => plain("hyper_session_logins_total", cookie).increment(1),
        Event::Regenerated { cookie, .. } => plain("hyper_session_regenerated_total", cookie).increment(1),
        Event::Destroyed { cookie, .. } => plain("hyper_session_destroyed_total", cookie).increment(1),
        Event::ChangesDropped { cookie, reason, .. } => {
            counter!("hyper_session_changes_dropped_total", "cookie" => cookie.to_owned(), "reason" => reason.as_str()).increment(1);
        }
        Event::ConflictMerged { cookie, conflicts, .. } => {
            plain("hyper_session_conflicts_total", cookie).increment(conflicts.into());
        }
        Event::Migrating { cookie, from, .. } => {
            counter!("hyper_session_migrating_total", "cookie" => cookie.to_owned(), "from" => from.as_str())
                .increment(1);
        }
        Event::ValueUnreadable { cookie, .. } => {
            plain("hyper_session_values_unreadable_total", cookie).increment(1);
        }
        Event::StoreAnswered { cookie, operation, elapsed, ok } => {
            let outcome = if ok { "ok" } else { "error" };
            histogram!(STORE_SECONDS, "cookie" => cookie.to_owned(), "operation" => operation.as_str(), "outcome" => outcome)
                .record(elapsed.as_secs_f64());
        }
        Event::StoreFailed { cookie, operation, error, .. } => {
            counter!("hyper_session_store_errors_total", "cookie" => cookie.to_owned(), "operation" => operation.as_str(), "reason" => error.label()).increment(1);
        }
        Event::HandlerFailed { cookie, error } => {
            counter!("hyper_session_handler_errors_total", "cookie" => cookie.to_owned(), "reason" => error.label()).increment(1);
        }
        Event::CookieWithheld { cookie, .. } => {
            plain("hyper_session_cookies_withheld_total", cookie).increment(1);
        }
        Event::CacheControlReplaced { cookie } => {
            counter!("hyper_session_headers_replaced_total", "cookie" => cookie.to_owned(), "header" => "cache-control").increment(1);
        }
        Event::SetCookieReplaced { cookie } => {
            counter!("hyper_session_headers_replaced_total", "cookie" => cookie.to_owned(), "header" => "set-cookie").increment(1);
        }
        Event::SubjectLimit { cookie, ended } => {
            plain("hyper_session_subject_limit_total", cookie)
                .increment(ended.try_into().unwrap_or(u64::MAX));
        }
        // Once for each store that connects: for a log, and nothing to count.
        Event::EvictionPolicy { .. } => {}
        Event::NearCacheEmptied { cookie, why } => {
            counter!("hyper_session_near_cache_emptied_total", "cookie" => cookie.to_owned(), "reason" => why.as_str()).increment(1);
        }
        Event::Revocations { cookie, change } => {
            counter!("hyper_session_revocations_total", "cookie" => cookie.to_owned(), "change" => change.as_str()).increment(1);
        }
        Event::Interrupted { cookie, completing, .. } => {
            let completing = if completing { "true" } else { "false" };
            counter!("hyper_session_interrupted_total", "cookie" => cookie.to_owned(), "completing" => completing).increment(1);
        }
    }
}
