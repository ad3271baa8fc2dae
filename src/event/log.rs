//! Events as structured log lines, with the target `session`.

use tracing::Level;

use super::journal::{Journal, Recovery, Tally};
use super::{Event, Refusal, RevocationChange};
use crate::clock::Timestamp;

/// Not the name of the crate: `EnvFilter` compares prefixes, and `hyper_session` begins with `hyper`, so
/// `RUST_LOG=info,hyper=warn` would silence the audit trail.
const TARGET: &str = "session";

/// Returns true if a subscriber reads the lines with the time that the store took.
#[inline]
pub(super) fn wants_timings() -> bool {
    tracing::enabled!(target: TARGET, Level::TRACE)
}

/// Writes a line whose level is known only at run time.
macro_rules! line {
    ($level:expr, $($fields:tt)*) => {
        match $level {
            Level::ERROR => tracing::error!(target: TARGET, $($fields)*),
            Level::WARN => tracing::warn!(target: TARGET, $($fields)*),
            Level::INFO => tracing::info!(target: TARGET, $($fields)*),
            _ => tracing::debug!(target: TARGET, $($fields)*),
        }
    };
}

/// Writes one line for each event. The field `event` is its name, and `session` is an id. With it, an operator can follow a
/// session through a log, and an attacker cannot use it.
///
/// Clients, applications and a failing store can cause some events at any rate. The first, the tenth, the hundredth … of a
/// minute have their level and the number. All others have the level DEBUG.
//= ASVS 5.0 16.3.3: "Verify that the application logs the security events that are defined in the documentation and also
//# logs attempts to bypass the security controls"
//= ASVS 5.0 16.2.5: "Other data, such as session tokens, may only be logged by being hashed or masked, either in full or
//# partially."
#[allow(clippy::too_many_lines)] // one arm for each event
pub(super) fn log(journal: &Journal, event: &Event<'_>, now: impl Fn() -> Timestamp) {
    let tally = |event, reason| journal.count(event, reason, now());
    let level = |tally: Option<Tally>, level| if tally.is_some() { level } else { Level::DEBUG };
    let count = |tally: Option<Tally>| tally.map(|tally| tally.count);
    let previous = |tally: Option<Tally>| tally.and_then(|tally| tally.previous);
    match *event {
        Event::InsecureCookie { cookie } => {
            tracing::warn!(target: TARGET, event = "insecure_cookie", cookie, "the session cookie is not Secure");
        }
        Event::NotWrapped { cookie } => {
            let tally = tally("not_wrapped", "");
            line!(
                level(tally, Level::ERROR),
                event = "not_wrapped",
                cookie,
                count = count(tally),
                previous = previous(tally),
                "a handler asked for its session, and no SessionService or SessionLayer wraps it: wrap the service, or put the layer around this route"
            );
        }
        Event::Refused { cookie, refusal, key } => {
            let tally = tally("refused", refusal.as_str());
            let key = key.map(tracing::field::display);
            line!(
                refusal_level(refusal, tally),
                event = "refused",
                cookie,
                reason = refusal.as_str(),
                key,
                count = count(tally),
                previous = previous(tally),
                "session cookie refused{}",
                hint(refusal)
            );
        }
        Event::CookieFormat { cookie, format, refusal } => {
            let reason = refusal.map(Refusal::as_str);
            tracing::debug!(target: TARGET, event = "cookie_format", cookie, format = format.as_str(), reason, "session cookie of this format");
        }
        Event::SeveralSessions { cookie, id, sessions, subjects_differ: false } => {
            tracing::info!(target: TARGET, event = "several_sessions", cookie, session = %id, sessions, subjects_differ = false, "several sessions in one request: the newest counts");
        }
        Event::SeveralSessions { cookie, id, sessions, subjects_differ: true } => {
            tracing::warn!(target: TARGET, event = "several_sessions", cookie, session = %id, sessions, subjects_differ = true, "sessions of different subjects in one request: the newest counts");
        }
        Event::TooManyCandidates { cookie } => {
            let tally = tally("too_many_candidates", "");
            line!(
                level(tally, Level::INFO),
                event = "too_many_candidates",
                cookie,
                count = count(tally),
                previous = previous(tally),
                "too many cookies of the session's name"
            );
        }
        Event::OldKey { cookie, id } => {
            tracing::debug!(target: TARGET, event = "old_key", cookie, session = %id, "session opened with an old key");
        }
        Event::Created { cookie, id } => {
            tracing::info!(target: TARGET, event = "created", cookie, session = %id, "session created");
        }
        Event::LoggedIn { cookie, id } => {
            tracing::info!(target: TARGET, event = "logged_in", cookie, session = %id, "session bound to a subject");
        }
        Event::Regenerated { cookie, from, id } => {
            tracing::info!(target: TARGET, event = "regenerated", cookie, from = %from, session = %id, "session regenerated");
        }
        Event::Destroyed { cookie, id } => {
            tracing::info!(target: TARGET, event = "destroyed", cookie, session = %id, "session destroyed");
        }
        Event::ChangesDropped { cookie, id, reason } => {
            let session = id.map(tracing::field::display);
            let tally = tally("changes_dropped", reason.as_str());
            line!(
                level(tally, Level::INFO),
                event = "changes_dropped",
                cookie,
                session,
                reason = reason.as_str(),
                count = count(tally),
                previous = previous(tally),
                "session changes dropped"
            );
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
            let operation = operation.as_str();
            tracing::trace!(target: TARGET, event = "store_answered", cookie, operation, micros, ok, "session store answered");
            let recovery = if ok { journal.worked(operation, &now) } else { None };
            if let Some(Recovery { failures, seconds }) = recovery {
                let tally = tally("store_recovered", operation);
                line!(
                    level(tally, Level::WARN),
                    event = "store_recovered",
                    cookie,
                    operation,
                    failures,
                    seconds,
                    count = count(tally),
                    previous = previous(tally),
                    "the session store works again"
                );
            }
        }
        Event::StoreFailed { cookie, id, operation, error } => {
            let session = id.map(tracing::field::display);
            let cause = std::error::Error::source(error).map(tracing::field::display);
            let tally = tally("store_failed", error.label());
            if error.is_unavailable() {
                journal.failed(operation.as_str(), now());
            }
            line!(
                level(tally, Level::ERROR),
                event = "store_failed",
                cookie,
                session,
                operation = operation.as_str(),
                count = count(tally),
                previous = previous(tally),
                reason = error.label(),
                cause,
                "{error}"
            );
        }
        Event::HandlerFailed { cookie, error } => {
            let cause = std::error::Error::source(error).map(tracing::field::display);
            let tally = tally("handler_failed", error.label());
            line!(
                level(tally, Level::ERROR),
                event = "handler_failed",
                cookie,
                count = count(tally),
                previous = previous(tally),
                reason = error.label(),
                cause,
                "{error}"
            );
        }
        Event::CookieWithheld { cookie, id } => {
            let session = id.map(tracing::field::display);
            let tally = tally("cookie_withheld", "");
            line!(
                level(tally, Level::WARN),
                event = "cookie_withheld",
                cookie,
                session,
                count = count(tally),
                previous = previous(tally),
                "a session was saved that the client cannot learn of"
            );
        }
        Event::CacheControlReplaced { cookie } => {
            let tally = tally("cache_control_replaced", "");
            line!(
                level(tally, Level::WARN),
                event = "cache_control_replaced",
                cookie,
                count = count(tally),
                previous = previous(tally),
                "a handler's Cache-Control would have let caches keep a session cookie"
            );
        }
        Event::SetCookieReplaced { cookie } => {
            let tally = tally("set_cookie_replaced", "");
            line!(
                level(tally, Level::WARN),
                event = "set_cookie_replaced",
                cookie,
                count = count(tally),
                previous = previous(tally),
                "a handler's own Set-Cookie of the session's name was replaced"
            );
        }
        Event::SubjectLimit { cookie, ended } => {
            tracing::info!(target: TARGET, event = "subject_limit", cookie, ended, "a subject had too many sessions: the least recently used were ended");
        }
        Event::EvictionPolicy { cookie, policy } => {
            tracing::warn!(target: TARGET, event = "eviction_policy", cookie, policy, "the store may delete sessions in use when its memory is full: set maxmemory-policy to noeviction");
        }
        Event::NearCacheEmptied { cookie, why } => {
            let tally = tally("near_cache_emptied", why.as_str());
            line!(
                level(tally, Level::INFO),
                event = "near_cache_emptied",
                cookie,
                reason = why.as_str(),
                count = count(tally),
                previous = previous(tally),
                "the near-cache was emptied: sessions are read from the store"
            );
        }
        Event::Revocations {
            cookie,
            change: change @ (RevocationChange::Reachable | RevocationChange::Trusted),
        } => {
            tracing::info!(target: TARGET, event = "revocations", cookie, change = change.as_str(), "session revocations");
        }
        Event::Revocations { cookie, change } => {
            tracing::warn!(target: TARGET, event = "revocations", cookie, change = change.as_str(), "session revocations");
        }
        Event::Interrupted { cookie, id, completing } => {
            let session = id.map(tracing::field::display);
            let (reason, wanted, message) = if completing {
                ("completing", Level::INFO, "client gone, the session's end goes on")
            } else {
                ("lost", Level::ERROR, "client gone, the session's end was lost")
            };
            let tally = tally("interrupted", reason);
            line!(
                level(tally, wanted),
                event = "interrupted",
                cookie,
                session,
                completing,
                count = count(tally),
                previous = previous(tally),
                "{message}"
            );
        }
    }
}

/// Returns the level of a refusal. An expired cookie is routine. A missing key, an unknown format version and a clock that
/// is behind log out all users at once. Forgeries are routine until there are many.
fn refusal_level(refusal: Refusal, tally: Option<Tally>) -> Level {
    let Some(Tally { count, .. }) = tally else { return Level::DEBUG };
    let warned_from = match refusal {
        Refusal::UnknownKey | Refusal::RevokedKey | Refusal::Version | Refusal::IssuedInFuture => 1,
        Refusal::Signature | Refusal::Ciphertext | Refusal::Payload => 10,
        _ => 100,
    };
    if count >= warned_from { Level::WARN } else { Level::INFO }
}

/// Returns the likely cause, for operators.
fn hint(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::UnknownKey => {
            ": the keyring does not have the key that sealed it (was an old key dropped too early, or does this instance lack a new one?)"
        }
        Refusal::RevokedKey => ": the key that sealed it is revoked",
        Refusal::Version => ": this release does not know its version (does a newer one run beside it?)",
        Refusal::IssuedInFuture => ": it was issued in the future (do the instances' clocks agree?)",
        Refusal::Expired => " (if there are many: is the clock ahead, or was a timeout lowered?)",
        Refusal::UnknownId => " (if there are many: did the store lose its data, or change its prefix?)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::TARGET;

    // `EnvFilter` applies `hyper=warn` to all targets that begin with `hyper`.
    #[test]
    fn no_filter_for_a_dependency_silences_the_log() {
        let lock = include_str!("../../Cargo.lock");
        let names = lock.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
        let mut count = 0;
        for name in names {
            let target = name.replace('-', "_");
            assert!(!TARGET.starts_with(&target), "{target}=off silences {TARGET}");
            count += 1;
        }
        assert!(count > 100, "{count}");
    }
}
