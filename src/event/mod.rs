//! What the session layer did and why: typed events for logs, metrics and tests.

#[cfg(feature = "metrics")]
pub(crate) mod count;
#[cfg(feature = "tracing")]
mod journal;
#[cfg(feature = "tracing")]
mod log;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, SystemClock, Timestamp};
use crate::error::Error;
use crate::id::{KeyId, SessionId};

/// Something worth counting or logging. It never carries a token, a key or a session value; sessions are named by their
/// ids, which open nothing.
///
/// With the features `tracing` and `metrics` every event is logged and counted by itself: the guide
/// [`observability`](crate::guide::observability) has the names. An [`Observer`] hears of them in any case.
///
/// New kinds may be added: match with a wildcard arm.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A store was built with a cookie that any plain-http listener on the way can read.
    #[non_exhaustive]
    InsecureCookie {
        /// Name of the session cookie.
        cookie: &'a str,
    },
    /// A handler asked for its session, and no session service wraps it, or none of that name. There is no store, and so no
    /// observer: this event is only logged and counted.
    #[non_exhaustive]
    NotWrapped {
        /// The name that the handler asked for; empty if it named none.
        cookie: &'a str,
    },
    /// A presented cookie was not accepted. The handler sees an empty session.
    #[non_exhaustive]
    Refused {
        /// Name of the session cookie.
        cookie: &'a str,
        /// Why.
        refusal: Refusal,
        /// The key that the cookie names, if it is refused for its key. A client can name any.
        key: Option<KeyId>,
    },
    /// A store that reads Astra's cookies beside its own was shown a cookie of this format. Counts how far a migration has
    /// come; what was refused is in an [`Event::Refused`], too.
    #[non_exhaustive]
    CookieFormat {
        /// Name of the session cookie.
        cookie: &'a str,
        /// By its form, before anything else is looked at.
        format: CookieFormat,
        /// Why it is no session; `None` if it is one.
        refusal: Option<Refusal>,
    },
    /// A request carried several authentic sessions under the session's name. The newest of them counts.
    ///
    /// Browsers send such cookies after the `Domain` or `Path` of the session cookie was changed. If subjects differ, it may be an
    /// attack: another host of the domain has set a cookie of its own session, to have the user act in it.
    #[non_exhaustive]
    SeveralSessions {
        /// Name of the session cookie.
        cookie: &'a str,
        /// The session that counts.
        id: SessionId,
        /// How many there are.
        sessions: usize,
        /// True if two of them belong to different subjects ([`Session::login`](crate::Session::login)).
        subjects_differ: bool,
    },
    /// A request carried more cookies of the session's name than are tried: more than four that could be authentic, or more
    /// than 64 in all. Those beyond were ignored. No cookie is removed.
    #[non_exhaustive]
    TooManyCandidates {
        /// Name of the session cookie.
        cookie: &'a str,
    },
    /// A session was opened with a key that no longer seals; unless the handler fails or ends it, it is sealed anew on this
    /// response.
    #[non_exhaustive]
    OldKey {
        /// Name of the session cookie.
        cookie: &'a str,
        /// The session.
        id: SessionId,
    },
    /// A session was stored that was not stored before.
    #[non_exhaustive]
    Created {
        /// Name of the session cookie.
        cookie: &'a str,
        /// The session.
        id: SessionId,
    },
    /// A session was bound to a subject and stored: a login. Beside it comes a [`Created`](Self::Created) or a
    /// [`Regenerated`](Self::Regenerated) on a store that gives the session a new id.
    #[non_exhaustive]
    LoggedIn {
        /// Name of the session cookie.
        cookie: &'a str,
        /// The session.
        id: SessionId,
    },
    /// A session was given a new id, as at a login; or it was ended and another one begun in the same response.
    #[non_exhaustive]
    Regenerated {
        /// Name of the session cookie.
        cookie: &'a str,
        /// Its id before.
        from: SessionId,
        /// Its id now.
        id: SessionId,
    },
    /// A session was ended: destroyed, or left without any value.
    #[non_exhaustive]
    Destroyed {
        /// Name of the session cookie.
        cookie: &'a str,
        /// The session.
        id: SessionId,
    },
    /// Changes were not saved, on purpose.
    #[non_exhaustive]
    ChangesDropped {
        /// Name of the session cookie.
        cookie: &'a str,
        /// The session, if it was stored.
        id: Option<SessionId>,
        /// Why.
        reason: DropReason,
    },
    /// Another request had changed the session meanwhile; this request's changes were applied to the newer state.
    #[non_exhaustive]
    ConflictMerged {
        /// Name of the session cookie.
        cookie: &'a str,
        /// The session.
        id: SessionId,
        /// How many times the newer state had to be taken in.
        conflicts: u32,
    },
    /// A session was loaded that is still to be moved: from the old store of a
    /// [`MigratingStore`](crate::store::MigratingStore), or one that was stored without sealing. Counts what still comes.
    Migrating {
        /// Name of the session cookie.
        cookie: &'a str,
        /// The session.
        id: SessionId,
        /// Where it is from.
        from: MigrationSource,
    },
    /// A value did not decode as the type that [`Session::get_lenient`](crate::Session::get_lenient) asked for, and was read
    /// as absent.
    ValueUnreadable {
        /// Name of the session cookie.
        cookie: &'a str,
        /// The session, if it was stored.
        id: Option<SessionId>,
        /// Names the key, the kind of value that was found, and the type that was asked for.
        error: &'a Error,
    },
    /// The store answered. Told only of stores that take their time (a [`CookieStore`](crate::CookieStore) answers at once), and
    /// measured only where somebody listens: an observer, a `tracing` subscriber that wants this, or the feature `metrics`.
    #[non_exhaustive]
    StoreAnswered {
        /// Name of the session cookie.
        cookie: &'a str,
        /// What it was asked to do.
        operation: Operation,
        /// How long that took, conflicts and their repetitions included.
        elapsed: Duration,
        /// False if it failed; [`StoreFailed`](Self::StoreFailed) says why.
        ok: bool,
    },
    /// The store could not load or save a session, or it is too large to be saved. If it could not renew one
    /// ([`Operation::Touch`]), the response is sent as it is: no handler asked for that.
    #[non_exhaustive]
    StoreFailed {
        /// Name of the session cookie.
        cookie: &'a str,
        /// The session, if it was stored.
        id: Option<SessionId>,
        /// What it was asked to do.
        operation: Operation,
        /// What it said.
        error: &'a Error,
    },
    /// A handler returned an error of this crate. It was answered by a 503 or 500, and nothing was saved.
    #[non_exhaustive]
    HandlerFailed {
        /// Name of the session cookie.
        cookie: &'a str,
        /// The error.
        error: &'a Error,
    },
    /// A session was saved under a token that the client does not get, since a 1xx response carries no cookie.
    #[non_exhaustive]
    CookieWithheld {
        /// Name of the session cookie.
        cookie: &'a str,
        /// The session.
        id: Option<SessionId>,
    },
    /// A handler's `Cache-Control` would have let a cache keep a response that sets the session cookie; it was
    /// replaced by `no-store`.
    #[non_exhaustive]
    CacheControlReplaced {
        /// Name of the session cookie.
        cookie: &'a str,
    },
    /// A handler's own `Set-Cookie` for the session's name was replaced: a response sets one cookie of one name.
    #[non_exhaustive]
    SetCookieReplaced {
        /// Name of the session cookie.
        cookie: &'a str,
    },
    /// A subject had as many sessions as it may have: the least recently used ones were ended.
    #[non_exhaustive]
    SubjectLimit {
        /// Name of the session cookie.
        cookie: &'a str,
        /// How many were ended.
        ended: usize,
    },
    /// The backend may delete sessions that are in use when its memory is full: sessions end early, and a session that is
    /// deleted from its subject's list is not ended with the others. Reported when the store connects.
    #[non_exhaustive]
    EvictionPolicy {
        /// Name of the session cookie.
        cookie: &'a str,
        /// The policy, as the backend names it. `noeviction` is the one that keeps sessions.
        policy: &'a str,
    },
    /// The client went away while its session was being committed, and the commit ends or regenerates it, or may.
    #[non_exhaustive]
    Interrupted {
        /// Name of the session cookie.
        cookie: &'a str,
        /// The session, if it was stored.
        id: Option<SessionId>,
        /// True if the store operation goes on in the background; false where no runtime was there to carry it.
        completing: bool,
    },
    /// Something happened to the revocations of a [`CookieStore`](crate::CookieStore).
    Revocations {
        /// Name of the session cookie.
        cookie: &'a str,
        /// What happened.
        change: RevocationChange,
    },
}

/// What happened to the revocations of a store.
///
/// # Examples
///
/// ```
/// use hyper_session::RevocationChange;
///
/// assert_eq!(RevocationChange::Unreachable.as_str(), "unreachable"); // a label that stays the same
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RevocationChange {
    /// There were more than [`max_revocations`](crate::Revocations::max_revocations): the oldest were replaced by a floor. All
    /// sessions from before it have ended, revoked or not.
    Floor,
    /// The log cannot be read. After `max_staleness` the failure policy applies.
    Unreachable,
    /// The log can be read again.
    Reachable,
    /// The log ended before a position that it had given: a failover or a restored backup lost its last entries. What this
    /// process knew of them was written again.
    RolledBack,
    /// A session was accepted although it could not be confirmed that nothing ended it, by
    /// [`FailurePolicy::Trust`](crate::revocation::FailurePolicy::Trust).
    Trusted,
    /// One subject caused more revocations than it may: its further ones were joined into one that ends all its sessions, or,
    /// where a session only got a new id, left out.
    SubjectLimit,
}

impl RevocationChange {
    /// A stable short name, for metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Unreachable => "unreachable",
            Self::Reachable => "reachable",
            Self::RolledBack => "rolled_back",
            Self::Trusted => "trusted",
            Self::SubjectLimit => "subject_limit",
        }
    }
}

/// The format of a session cookie, where a store reads more than one.
///
/// # Examples
///
/// ```
/// use hyper_session::CookieFormat;
///
/// assert_eq!(CookieFormat::Astra.as_str(), "astra"); // a label that stays the same
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CookieFormat {
    /// This crate's own.
    Native,
    /// That of Astra's cookie store.
    Astra,
}

impl CookieFormat {
    /// A stable short name, for metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Astra => "astra",
        }
    }
}

/// Where a session is from that is still to be moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MigrationSource {
    /// The old store of a [`MigratingStore`](crate::store::MigratingStore).
    Store,
    /// An entry that was written before [`seal_records`](crate::store::Builder::seal_records) was called.
    Unsealed,
}

impl MigrationSource {
    /// A stable short name, for metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Unsealed => "unsealed",
        }
    }
}

/// What a store is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Look up what a token stands for.
    Load,
    /// Keep changed values, or begin a session.
    Save,
    /// Renew the idle deadline, or seal the token anew.
    Touch,
    /// Move the session to a new id and token.
    Regenerate,
    /// End the session.
    Destroy,
}

impl Operation {
    /// A stable short name, for metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Save => "save",
            Self::Touch => "touch",
            Self::Regenerate => "regenerate",
            Self::Destroy => "destroy",
        }
    }
}

/// Why a presented cookie is no session. The client cannot tell one from another.
///
/// # Examples
///
/// ```
/// use hyper_session::Refusal;
///
/// assert_eq!(Refusal::UnknownKey.as_str(), "unknown_key"); // a label that stays the same
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// Not the one spelling of base64url without padding that the token has.
    Encoding,
    /// Shorter or longer than any token.
    Length,
    /// A format version that this release does not know.
    Version,
    /// Sealed by a key that the keyring does not hold.
    UnknownKey,
    /// Sealed by a key that was revoked.
    RevokedKey,
    /// The signature does not fit: altered, made by someone else, or moved here from another cookie name or purpose.
    Signature,
    /// The signature fits, but the ciphertext does not open.
    Ciphertext,
    /// What was sealed or stored is not a session.
    Payload,
    /// Idle for too long, or older than the absolute timeout.
    Expired,
    /// Issued further in the future than clocks may differ.
    IssuedInFuture,
    /// Well-formed, but no such session is stored. Such an id is never adopted.
    UnknownId,
    /// The session was given a new token moments ago. Other requests of the same browser may still carry the old one; so
    /// may whoever stole it. The cookie is not removed: the new one is in the client, or on its way.
    Regenerated,
    /// Of a format that is read until a deadline, which has passed.
    RetiredFormat,
    /// Ended before its deadline: by a logout, or because its subject, a label of it or everything was revoked. The cookie is
    /// not removed by the response that finds it: the browser may have got another one meanwhile.
    Revoked,
    /// A tombstone in a cookie: the handler ended a session in a request with several cookies of its name. It hides the older
    /// ones, and so stays.
    Ended,
}

impl Refusal {
    /// A stable short name, for metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Encoding => "encoding",
            Self::Length => "length",
            Self::Version => "version",
            Self::UnknownKey => "unknown_key",
            Self::RevokedKey => "revoked_key",
            Self::Signature => "signature",
            Self::Ciphertext => "ciphertext",
            Self::Payload => "payload",
            Self::Expired => "expired",
            Self::IssuedInFuture => "issued_in_future",
            Self::UnknownId => "unknown_id",
            Self::Regenerated => "regenerated",
            Self::RetiredFormat => "retired_format",
            Self::Revoked => "revoked",
            Self::Ended => "ended",
        }
    }

    /// Returns true if a cookie that was refused for this reason is known to be dead, so that a response may remove it: expired,
    /// ended, revoked or forged.
    ///
    /// A cookie is never removed for "I cannot tell". It may be in a format of a newer release, under a key that another host has
    /// already, issued by a host whose clock is ahead, or the cookie of another application on the same host.
    ///
    /// # Examples
    ///
    /// ```
    /// use hyper_session::Refusal;
    ///
    /// assert!(Refusal::Expired.removes_cookie());
    /// assert!(!Refusal::UnknownKey.removes_cookie());
    /// ```
    pub const fn removes_cookie(self) -> bool {
        match self {
            Self::RevokedKey
            | Self::Signature
            | Self::Payload
            | Self::Expired
            | Self::UnknownId
            | Self::RetiredFormat => true,
            // Another application's.
            Self::Encoding
            | Self::Length
            // Another host's, which is ahead of this one.
            | Self::Version
            | Self::UnknownKey
            | Self::IssuedInFuture
            // Altered, or under another key: Astra's cookies do not name theirs. (A native token gets so far only if the holder of
            // the key made it.)
            | Self::Ciphertext
            // The browser has the new token, or it is on its way.
            | Self::Regenerated
            // The browser may have got another one since: the response to this request may be late.
            | Self::Revoked
            // It would bring back what it hides.
            | Self::Ended => false,
        }
    }

    /// Returns true if it was decided by the form of the token alone, before a signature was checked or a backend was asked.
    pub(crate) const fn is_by_form(self) -> bool {
        matches!(
            self,
            Self::Encoding
                | Self::Length
                | Self::Version
                | Self::UnknownKey
                | Self::RevokedKey
                | Self::RetiredFormat
        )
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why changes were dropped on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// The response says that the handler failed: a 5xx status, or what
    /// [`discard_changes_on`](crate::store::Builder::discard_changes_on) names.
    ServerError,
    /// The handler answered with a 1xx status, which carries no `Set-Cookie`.
    Informational,
    /// The session was ended by another request, or its absolute timeout passed, while the request was running: a slow
    /// request does not bring it back.
    SessionEnded,
    /// [`save`](crate::Session::save) failed, and the handler, which was told, did not ask again.
    SaveFailed,
}

impl DropReason {
    /// A stable short name, for metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ServerError => "server_error",
            Self::Informational => "informational",
            Self::SessionEnded => "session_ended",
            Self::SaveFailed => "save_failed",
        }
    }
}

/// Receives every [`Event`] of a store and of the services that use it. Called inline: keep it short.
///
/// Any `Fn(&Event<'_>)` is one.
///
/// # Examples
///
/// ```
/// use hyper_session::{AppKey, CookieStore, Event};
///
/// let store = CookieStore::builder(AppKey::generate()?)
///     .observer(|event: &Event<'_>| {
///         if let Event::Refused { refusal, .. } = event {
///             // count it, labelled with refusal.as_str()
///         }
///     })
///     .build()?;
/// # Ok::<(), hyper_session::Error>(())
/// ```
pub trait Observer: Send + Sync + 'static {
    /// Takes note of `event`.
    fn event(&self, event: &Event<'_>);
}

/// Tells of what happens to one store outside of its calls.
pub(crate) struct Reporter {
    pub(crate) cookie: String,
    pub(crate) observer: Option<Arc<dyn Observer>>,
}

impl Reporter {
    pub(crate) fn report<'a>(&'a self, event: impl FnOnce(&'a str) -> Event<'a>) {
        let event = event(&self.cookie);
        publish_without_store(&event);
        if let Some(observer) = &self.observer {
            observer.event(&event);
        }
    }
}

impl<F: Fn(&Event<'_>) + Send + Sync + 'static> Observer for F {
    fn event(&self, event: &Event<'_>) {
        self(event);
    }
}

/// The facades that are compiled in, as one store uses them.
#[derive(Default)]
pub(crate) struct Facades {
    #[cfg(feature = "tracing")]
    journal: journal::Journal,
}

/// Those of events that belong to no store.
static NO_STORE: Facades = Facades {
    #[cfg(feature = "tracing")]
    journal: journal::Journal::new(),
};

impl Facades {
    /// Hands `event` to each facade. `now` is the time of the store.
    #[cfg_attr(not(feature = "tracing"), allow(unused_variables, clippy::unused_self))]
    #[inline]
    pub(crate) fn publish(&self, event: &Event<'_>, now: impl Fn() -> Timestamp) {
        #[cfg(feature = "tracing")]
        log::log(&self.journal, event, now);
        #[cfg(feature = "metrics")]
        count::count(event);
    }

    /// Returns true if a facade wants to know how long the store takes; or whether it works again.
    #[cfg_attr(not(feature = "tracing"), allow(clippy::unused_self))]
    #[inline]
    pub(crate) fn wants_timings(&self) -> bool {
        #[cfg(feature = "tracing")]
        let traced = log::wants_timings() || self.journal.is_failing();
        #[cfg(not(feature = "tracing"))]
        let traced = false;
        traced || cfg!(feature = "metrics")
    }
}

/// Hands an event that belongs to no store to the facades.
pub(crate) fn publish_without_store(event: &Event<'_>) {
    NO_STORE.publish(event, || SystemClock.now());
}

#[cfg(test)]
mod tests {
    use super::Refusal;

    // The rule itself, as a list: expired, ended, revoked, forged, and nothing else.
    #[test]
    fn a_cookie_is_removed_only_if_it_is_known_to_be_dead() {
        let all = [
            (Refusal::Encoding, false),
            (Refusal::Length, false),
            (Refusal::Version, false),
            (Refusal::UnknownKey, false),
            (Refusal::RevokedKey, true),
            (Refusal::Signature, true),
            (Refusal::Ciphertext, false),
            (Refusal::Payload, true),
            (Refusal::Expired, true),
            (Refusal::IssuedInFuture, false),
            (Refusal::UnknownId, true),
            (Refusal::Regenerated, false),
            (Refusal::RetiredFormat, true),
            (Refusal::Ended, false),
        ];
        for (refusal, removes) in all {
            assert_eq!(refusal.removes_cookie(), removes, "{refusal}");
        }
    }
}
