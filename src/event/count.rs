//! Events as counters and one histogram, through the `metrics` facade.

use metrics::{Unit, describe_counter, describe_histogram, histogram};

use super::{Event, EventKind};

/// The counters: name and description.
const COUNTERS: [(&str, &str); 27] = [
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
    ("hyper_session_revocations_total", "State changes of the revocations of cookie stores, by change."),
    ("hyper_session_cross_origin_refused_total", "Requests that another site may have made, by reason."),
    ("hyper_session_devices_bound_total", "Sessions bound to a device."),
    (
        "hyper_session_device_proofs_total",
        "Proofs of devices that they still hold their key, and refused proofs by reason.",
    ),
    (
        "hyper_session_bindings_lapsed_total",
        "Requests with a session that is bound to a device, without a valid bound cookie.",
    ),
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
    let Event { cookie, kind } = *event;
    /// Returns the counter with these labels, and the cookie's name as another.
    macro_rules! counter {
        ($name:literal $(, $label:literal => $value:expr)*) => {
            metrics::counter!($name, "cookie" => cookie.to_owned() $(, $label => $value)*)
        };
    }
    match kind {
        EventKind::InsecureCookie => counter!("hyper_session_insecure_stores_total").increment(1),
        EventKind::NotWrapped => counter!("hyper_session_not_wrapped_total").increment(1),
        EventKind::CrossOriginRefused { reason } => {
            metrics::counter!("hyper_session_cross_origin_refused_total", "reason" => reason.as_str())
                .increment(1);
        }
        // Without the key: a client can name any key, and each would be a time series.
        EventKind::Refused { refusal, .. } => {
            counter!("hyper_session_refused_total", "reason" => refusal.as_str()).increment(1);
        }
        EventKind::CookieFormat { format, refusal } => {
            let outcome = if refusal.is_none() { "opened" } else { "refused" };
            counter!("hyper_session_cookie_format_total", "format" => format.as_str(), "outcome" => outcome)
                .increment(1);
        }
        EventKind::SeveralSessions { subjects_differ, .. } => {
            let subjects = if subjects_differ { "differ" } else { "same" };
            counter!("hyper_session_several_sessions_total", "subjects" => subjects).increment(1);
        }
        EventKind::TooManyCandidates => {
            counter!("hyper_session_too_many_candidates_total").increment(1);
        }
        EventKind::OldKey { .. } => counter!("hyper_session_old_key_total").increment(1),
        EventKind::Created { .. } => counter!("hyper_session_created_total").increment(1),
        EventKind::LoggedIn { .. } => counter!("hyper_session_logins_total").increment(1),
        EventKind::Regenerated { .. } => counter!("hyper_session_regenerated_total").increment(1),
        EventKind::Destroyed { .. } => counter!("hyper_session_destroyed_total").increment(1),
        EventKind::ChangesDropped { reason, .. } => {
            counter!("hyper_session_changes_dropped_total", "reason" => reason.as_str()).increment(1);
        }
        EventKind::ConflictMerged { conflicts, .. } => {
            counter!("hyper_session_conflicts_total").increment(conflicts.into());
        }
        EventKind::Migrating { from, .. } => {
            counter!("hyper_session_migrating_total", "from" => from.as_str()).increment(1);
        }
        EventKind::ValueUnreadable { .. } => {
            counter!("hyper_session_values_unreadable_total").increment(1);
        }
        EventKind::StoreAnswered { operation, elapsed, ok } => {
            let outcome = if ok { "ok" } else { "error" };
            histogram!(STORE_SECONDS, "cookie" => cookie.to_owned(), "operation" => operation.as_str(), "outcome" => outcome)
                .record(elapsed.as_secs_f64());
        }
        EventKind::StoreFailed { operation, error, .. } => {
            counter!("hyper_session_store_errors_total", "operation" => operation.as_str(), "reason" => error.label()).increment(1);
        }
        EventKind::HandlerFailed { error } => {
            counter!("hyper_session_handler_errors_total", "reason" => error.label()).increment(1);
        }
        EventKind::CookieWithheld { .. } => {
            counter!("hyper_session_cookies_withheld_total").increment(1);
        }
        EventKind::CacheControlReplaced => {
            counter!("hyper_session_headers_replaced_total", "header" => "cache-control").increment(1);
        }
        EventKind::SetCookieReplaced => {
            counter!("hyper_session_headers_replaced_total", "header" => "set-cookie").increment(1);
        }
        EventKind::SubjectLimit { ended } => {
            counter!("hyper_session_subject_limit_total").increment(ended.try_into().unwrap_or(u64::MAX));
        }
        // Once for each store that connects: for a log, and nothing to count.
        EventKind::EvictionPolicy { .. } => {}
        EventKind::NearCacheEmptied { why } => {
            counter!("hyper_session_near_cache_emptied_total", "reason" => why.as_str()).increment(1);
        }
        EventKind::DeviceBound { .. } => counter!("hyper_session_devices_bound_total").increment(1),
        EventKind::DeviceProved { .. } => {
            counter!("hyper_session_device_proofs_total", "outcome" => "proved").increment(1);
        }
        EventKind::DeviceProofRefused { refusal, .. } => {
            counter!("hyper_session_device_proofs_total", "outcome" => refusal.as_str()).increment(1);
        }
        EventKind::BindingLapsed { .. } => counter!("hyper_session_bindings_lapsed_total").increment(1),
        EventKind::Revocations { change } => {
            counter!("hyper_session_revocations_total", "change" => change.as_str()).increment(1);
        }
        EventKind::Interrupted { completing, .. } => {
            let completing = if completing { "true" } else { "false" };
            counter!("hyper_session_interrupted_total", "completing" => completing).increment(1);
        }
    }
}
