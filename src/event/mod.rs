//! What the session layer did and why: typed events for logs, metrics and tests.

#[cfg(feature = "metrics")]
pub(crate) mod count;
#[cfg(feature = "tracing")]
mod log;

use std::fmt;
use std::time::Duration;

use crate::error::Error;
use crate::id::SessionId;

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
    InsecureCookie {
        /// Name of the session cookie.
        cookie: &'a str,
    },
    /// A presented cookie was not accepted. The handler sees an empty session.
    Refused {
        /// Name of the session cookie.
        cookie: &'a str,
        /// Why.
        refusal: Refusal,
    },
    /// A store that reads Astra's cookies beside its own was shown a cookie of this format. Counts how far a migration has
    /// come; what was refused is in an [`Event::Refused`], too.
    CookieFormat {
        /// Name of the session cookie.
        cookie: &'a str,
        /// By its form, before anything else is looked at.
        format: CookieFormat,
        /// Why it is no session; `None` if it is one.
        refusal: Option<Refusal>,
    },
    /// A request carried more cookies of the session's name than are looked at (four); the rest was ignored.
    TooManyCandidates {
        /// Name of the session cookie.
        cookie: &'a str,
    },
    /// A session was opened with a key that no longer seals; unless the handler fails or ends it, it is sealed anew on this
    /// response.
    OldKey {
        /// Name of the session cookie.
        cookie: &'a str,
        /// The session.
        id: SessionId,
    },
    /// A session was stored that was not stored before.
    Created {
        /// Name of the session cookie.
        cookie: &'a str,
        /// The session.
        id: SessionId,
    },
    /// A session was given a new id, as at a login; or it was ended and another one begun in the same response.
    Regenerated {
        /// Name of the session cookie.
        cookie: &'a str,
        /// Its id before.
        from: SessionId,
        /// Its id now.
        id: SessionId,
    },
    /// A session was ended: destroyed, or left without any value.
    Destroyed {
        /// Name of the session cookie.
        cookie: &'a str,
        /// The session.
        id: SessionId,
    },
    /// Changes were not saved, on purpose.
    ChangesDropped {
        /// Name of the session cookie.
        cookie: &'a str,
        /// The session, if it was stored.
        id: Option<SessionId>,
        /// Why.
        reason: DropReason,
    },
    /// Another request had changed the session meanwhile; this request's changes were applied to the newer state.
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
    /// The store could not load or save a session, or it is too large to be saved.
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
    /// A handler's `Cache-Control` would have let a cache keep a response that sets the session cookie; it was
    /// replaced by `no-store`.
    CacheControlReplaced {
        /// Name of the session cookie.
        cookie: &'a str,
    },
    /// A handler's own `Set-Cookie` for the session's name was replaced: a response sets one cookie of one name.
    SetCookieReplaced {
        /// Name of the session cookie.
        cookie: &'a str,
    },
    /// A subject had as many sessions as it may have: the least recently used ones were ended.
    SubjectLimit {
        /// Name of the session cookie.
        cookie: &'a str,
        /// How many were ended.
        ended: usize,
    },
    /// The client went away while its session was being committed, and the commit ends or regenerates it, or may.
    Interrupted {
        /// Name of the session cookie.
        cookie: &'a str,
        /// The session, if it was stored.
        id: Option<SessionId>,
        /// True if the store operation goes on in the background; false where no runtime was there to carry it.
        completing: bool,
    },
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
    /// Renew the idle deadline.
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
        }
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
    /// The handler answered with a 5xx status.
    ServerError,
    /// The handler answered with a 1xx status, which carries no `Set-Cookie`.
    Informational,
    /// The session was ended by another request: a slow request does not bring it back.
    SessionEnded,
}

impl DropReason {
    /// A stable short name, for metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ServerError => "server_error",
            Self::Informational => "informational",
            Self::SessionEnded => "session_ended",
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

impl<F: Fn(&Event<'_>) + Send + Sync + 'static> Observer for F {
    fn event(&self, event: &Event<'_>) {
        self(event);
    }
}

/// Hands `event` to the facades that are compiled in.
#[cfg_attr(
    not(any(feature = "tracing", feature = "metrics")),
    allow(unused_variables, clippy::missing_const_for_fn)
)]
#[inline]
pub(crate) fn publish(event: &Event<'_>) {
    #[cfg(feature = "tracing")]
    log::log(event);
    #[cfg(feature = "metrics")]
    count::count(event);
}

/// True if a facade wants to know how long the store takes.
#[inline]
pub(crate) fn wants_timings() -> bool {
    #[cfg(feature = "tracing")]
    let traced = log::wants_timings();
    #[cfg(not(feature = "tracing"))]
    let traced = false;
    traced || cfg!(feature = "metrics")
}
