//! Events as structured log lines, with the target `hyper_session`.

use super::{Event, Refusal};

const TARGET: &str = "hyper_session";

/// True if somebody reads the lines that say how long the store took.
#[inline]
pub(super) fn wants_timings() -> bool {
    tracing::enabled!(target: TARGET, tracing::Level::TRACE)
}

/// One line for each event. The field `event` is its name, `session` an id: enough to follow a session through a log, and
/// no use to whoever reads it.
//= ASVS 5.0 16.3.3: "Verify that the application logs the security events that are defined in the documentation and also
//# logs attempts to bypass the security controls"
//= ASVS 5.0 16.2.5: "Other data, such as session tokens, may only be logged by being hashed or masked, either in full or
//# partially."
pub(super) fn log(event: &Event<'_>) {
    match *event {
        Event::InsecureCookie { cookie } => {
            tracing::warn!(target: TARGET, event = "insecure_cookie", cookie, "the session cookie is not Secure");
        }
        // The most frequent one, and nobody's fault.
        Event::Refused { cookie, refusal: refusal @ Refusal::Expired } => {
            tracing::debug!(target: TARGET, event = "refused", cookie, reason = refusal.as_str(), "session cookie refused");
        }
        Event::Refused { cookie, refusal } => {
            tracing::info!(target: TARGET, event = "refused", cookie, reason = refusal.as_str(), "session cookie refused");
        }
        Event::CookieFormat { cookie, format, refusal } => {
            let reason = refusal.map(Refusal::as_str);
            tracing::debug!(target: TARGET, event = "cookie_format", cookie, format = format.as_str(), reason, "session cookie of this format");
        }
        Event::TooManyCandidates { cookie } => {
            tracing::info!(target: TARGET, event = "too_many_candidates", cookie, "too many cookies of the session's name");
        }
        Event::OldKey { cookie, id } => {
            tracing::debug!(target: TARGET, event = "old_key", cookie, session = %id, "session opened with an old key");
        }
        Event::Created { cookie, id } => {
            tracing::info!(target: TARGET, event = "created", cookie, session = %id, "session created");
        }
        Event::Regenerated { cookie, from, id } => {
            tracing::info!(target: TARGET, event = "regenerated", cookie, from = %from, session = %id, "session regenerated");
        }
        Event::Destroyed { cookie, id } => {
            tracing::info!(target: TARGET, event = "destroyed", cookie, session = %id, "session destroyed");
        }
        Event::ChangesDropped { cookie, id, reason } => {
            let session = id.map(tracing::field::display);
            tracing::info!(target: TARGET, event = "changes_dropped", cookie, session, reason = reason.as_str(), "session changes dropped");
        }
        Event::ConflictMerged { cookie, id, conflicts } => {
            tracing::debug!(target: TARGET, event = "conflict_merged", cookie, session = %id, conflicts, "concurrent session changes merged");
        }
        Event::Migrating { cookie, id, from } => {
            tracing::debug!(target: TARGET, event = "migrating", cookie, session = %id, from = from.as_str(), "session still to be moved");
        }
        Event::ValueUnreadable { cookie, id, error } => {
            let session = id.map(tracing::field::display);
            tracing::warn!(target: TARGET, event = "value_unreadable", cookie, session, reason = error.label(), "{error}");
        }
        Event::StoreAnswered { cookie, operation, elapsed, ok } => {
            let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
            tracing::trace!(target: TARGET, event = "store_answered", cookie, operation = operation.as_str(), micros, ok, "session store answered");
        }
        Event::StoreFailed { cookie, id, operation, error } => {
            let session = id.map(tracing::field::display);
            let cause = std::error::Error::source(error).map(tracing::field::display);
            tracing::error!(target: TARGET, event = "store_failed", cookie, session, operation = operation.as_str(), reason = error.label(), cause, "{error}");
        }
        Event::CacheControlReplaced { cookie } => {
            tracing::warn!(target: TARGET, event = "cache_control_replaced", cookie, "a handler's Cache-Control would have let caches keep a session cookie");
        }
        Event::SetCookieReplaced { cookie } => {
            tracing::warn!(target: TARGET, event = "set_cookie_replaced", cookie, "a handler's own Set-Cookie of the session's name was replaced");
        }
        Event::SubjectLimit { cookie, ended } => {
            tracing::info!(target: TARGET, event = "subject_limit", cookie, ended, "a subject had too many sessions: the least recently used were ended");
        }
        Event::Interrupted { cookie, id, completing } => {
            let session = id.map(tracing::field::display);
            if completing {
                tracing::info!(target: TARGET, event = "interrupted", cookie, session, completing, "client gone, the session's end goes on");
            } else {
                tracing::error!(target: TARGET, event = "interrupted", cookie, session, completing, "client gone, the session's end was lost");
            }
        }
    }
}
