//! Events as structured log lines, with the target `session`.

use std::error::Error;

use tracing::Level;

use super::journal::{Journal, Recovery};
use super::{Event, EventKind, Refusal, RevocationChange};
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
/// Clients, applications and a failing store can cause some events at any rate. These are counted: the first, the tenth, the
/// hundredth … of a minute have their level and the number. All others have the level DEBUG.
//= ASVS 5.0 16.3.3: "Verify that the application logs the security events that are defined in the documentation and also
//# logs attempts to bypass the security controls"
//= ASVS 5.0 16.2.5: "Other data, such as session tokens, may only be logged by being hashed or masked, either in full or
//# partially."
#[allow(clippy::too_many_lines)] // one arm for each event
pub(super) fn log(journal: &Journal, event: &Event<'_>, now: impl Fn() -> Timestamp) {
    let Event { cookie, kind } = *event;
    /// Counts an event by name and reason, and writes its line. `$level` is a function of the count.
    macro_rules! counted {
        ($level:expr, $name:literal, $reason:expr, $message:expr $(, $($fields:tt)+)?) => {{
            let tally = journal.count($name, $reason, now());
            let level = tally.map_or(Level::DEBUG, |tally| $level(tally.count));
            let (count, previous) = (tally.map(|tally| tally.count), tally.and_then(|tally| tally.previous));
            line!(level, event = $name, cookie, $($($fields)+,)? count, previous, "{}", $message);
        }};
    }
    let (error, warn, info) = (|_| Level::ERROR, |_| Level::WARN, |_| Level::INFO);
    match kind {
        EventKind::InsecureCookie => {
            tracing::warn!(target: TARGET, event = "insecure_cookie", cookie, "the session cookie is not Secure");
        }
        EventKind::CrossOriginRefused { reason } => counted!(
            warn,
            "cross_origin_refused",
            reason.as_str(),
            "a request that another site may have made was refused",
            reason = reason.as_str()
        ),
        EventKind::NotWrapped => counted!(
            error,
            "not_wrapped",
            "",
            "a handler asked for its session, but no SessionService or SessionLayer wraps it: wrap the service, or put the layer around this route"
        ),
        EventKind::Refused { refusal, key } => counted!(
            |count| refusal_level(refusal, count),
            "refused",
            refusal.as_str(),
            format_args!("session cookie refused{}", hint(refusal)),
            reason = refusal.as_str(),
            key = key.map(display)
        ),
        EventKind::CookieFormat { format, refusal } => {
            let reason = refusal.map(Refusal::as_str);
            tracing::debug!(target: TARGET, event = "cookie_format", cookie, format = format.as_str(), reason, "format of a session cookie");
        }
        EventKind::SeveralSessions { id, sessions, subjects_differ } => counted!(
            if subjects_differ { warn } else { info },
            "several_sessions",
            if subjects_differ { "subjects_differ" } else { "" },
            "several sessions in one request: the newest counts",
            session = %id,
            sessions,
            subjects_differ
        ),
        EventKind::TooManyCandidates => counted!(
            info,
            "too_many_candidates",
            "",
            "too many cookies with the session's name: some were ignored"
        ),
        EventKind::OldKey { id } => {
            tracing::debug!(target: TARGET, event = "old_key", cookie, session = %id, "session opened with an old key");
        }
        EventKind::Created { id } => {
            tracing::info!(target: TARGET, event = "created", cookie, session = %id, "session created");
        }
        EventKind::LoggedIn { id } => {
            tracing::info!(target: TARGET, event = "logged_in", cookie, session = %id, "session bound to a subject");
        }
        EventKind::Regenerated { from, id } => {
            tracing::info!(target: TARGET, event = "regenerated", cookie, from = %from, session = %id, "session regenerated");
        }
        EventKind::Destroyed { id } => {
            tracing::info!(target: TARGET, event = "destroyed", cookie, session = %id, "session destroyed");
        }
        EventKind::ChangesDropped { id, reason } => counted!(
            info,
            "changes_dropped",
            reason.as_str(),
            "session changes dropped",
            session = id.map(display),
            reason = reason.as_str()
        ),
        EventKind::ConflictMerged { id, conflicts } => {
            tracing::debug!(target: TARGET, event = "conflict_merged", cookie, session = %id, conflicts, "concurrent session changes merged");
        }
        EventKind::Migrating { id, from } => counted!(
            info,
            "migrating",
            from.as_str(),
            "session still to be moved",
            session = %id,
            from = from.as_str()
        ),
        EventKind::ValueUnreadable { id, error } => counted!(
            warn,
            "value_unreadable",
            error.label(),
            error,
            session = id.map(display),
            reason = error.label()
        ),
        EventKind::StoreAnswered { operation, elapsed, ok } => {
            let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
            let operation = operation.as_str();
            tracing::trace!(target: TARGET, event = "store_answered", cookie, operation, micros, ok, "session store answered");
            let recovery = if ok { journal.worked(operation, &now) } else { None };
            if let Some(Recovery { failures, seconds }) = recovery {
                counted!(
                    warn,
                    "store_recovered",
                    operation,
                    "the session store works again",
                    operation,
                    failures,
                    seconds
                );
            }
        }
        EventKind::StoreFailed { id, operation, error: failure } => {
            if failure.is_unavailable() {
                journal.failed(operation.as_str(), now());
            }
            counted!(
                error,
                "store_failed",
                failure.label(),
                failure,
                session = id.map(display),
                operation = operation.as_str(),
                reason = failure.label(),
                cause = failure.source().map(display)
            );
        }
        EventKind::HandlerFailed { error: failure } => counted!(
            error,
            "handler_failed",
            failure.label(),
            failure,
            reason = failure.label(),
            cause = failure.source().map(display)
        ),
        EventKind::CookieWithheld { id } => counted!(
            warn,
            "cookie_withheld",
            "",
            "session saved under a token that the client does not get",
            session = id.map(display)
        ),
        EventKind::CacheControlReplaced => counted!(
            warn,
            "cache_control_replaced",
            "",
            "replaced a handler's Cache-Control, which allows caches to store the session cookie"
        ),
        EventKind::SetCookieReplaced => counted!(
            warn,
            "set_cookie_replaced",
            "",
            "replaced a handler's own Set-Cookie with the session's name"
        ),
        EventKind::SubjectLimit { ended } => {
            tracing::info!(target: TARGET, event = "subject_limit", cookie, ended, "a subject had too many sessions: the least recently used were ended");
        }
        EventKind::EvictionPolicy { policy } => {
            tracing::warn!(target: TARGET, event = "eviction_policy", cookie, policy, "the store may delete sessions in use, or revocations, when its memory is full: set maxmemory-policy to noeviction");
        }
        EventKind::NearCacheEmptied { why } => counted!(
            info,
            "near_cache_emptied",
            why.as_str(),
            "the near-cache was emptied: sessions are read from the store",
            reason = why.as_str()
        ),
        EventKind::DeviceBound { from, id } => {
            tracing::info!(target: TARGET, event = "device_bound", cookie, from = %from, session = %id, "session bound to a device");
        }
        EventKind::DeviceProved { id } => {
            tracing::debug!(target: TARGET, event = "device_proved", cookie, session = %id, "the device of a session proved that it holds its key");
        }
        EventKind::DeviceProofRefused { id, refusal } => counted!(
            warn,
            "device_proof_refused",
            refusal.as_str(),
            "the proof of a device was refused",
            session = id.map(display),
            reason = refusal.as_str()
        ),
        EventKind::BindingLapsed { id } => counted!(
            warn,
            "binding_lapsed",
            "",
            "a session that is bound to a device came without the proof that it comes from there",
            session = %id
        ),
        EventKind::Revocations { change } => counted!(
            // Each request causes `trusted` while the log is away, and a client can cause `subject_limit` in a loop.
            |_| if change == RevocationChange::Reachable { Level::INFO } else { Level::WARN },
            "revocations",
            change.as_str(),
            format_args!("session revocations: {}", revocation_hint(change)),
            change = change.as_str()
        ),
        EventKind::Interrupted { id, completing: true } => counted!(
            info,
            "interrupted",
            "completing",
            "client disconnected, or handler stopped waiting: the commit that ends or regenerates sessions continues",
            session = id.map(display),
            completing = true
        ),
        EventKind::Interrupted { id, completing: false } => counted!(
            error,
            "interrupted",
            "lost",
            "client disconnected, or handler stopped waiting: the commit that ends or regenerates sessions was lost",
            session = id.map(display),
            completing = false
        ),
    }
}

/// Returns the level of a refusal. An expired cookie is routine. A missing key, an unknown format version and a clock that
/// is behind log out all users at once. Forgeries are routine until there are many.
fn refusal_level(refusal: Refusal, count: u64) -> Level {
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
        Refusal::Unreadable => {
            ": its entry is too long, or not sealed (do the instances have the same options?)"
        }
        _ => "",
    }
}

/// Returns what a change means for operators.
fn revocation_hint(change: RevocationChange) -> &'static str {
    match change {
        RevocationChange::Floor => {
            "there were too many, so the sessions from before the newer ones have all ended: raise max_revocations"
        }
        RevocationChange::Unreachable => "the log cannot be read",
        RevocationChange::Reachable => "the log can be read again",
        RevocationChange::RolledBack => {
            "the log had lost entries (a failover, a restored backup), and this process wrote the known ones again"
        }
        RevocationChange::Trusted => "a session was accepted without a check, because the log cannot be read",
        RevocationChange::SubjectLimit => "one subject logs out in a loop: limit its logins",
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
