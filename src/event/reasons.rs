//! Enumerations in events: reasons, operations, formats. Each has a name for metric labels.

use std::fmt;

/// The reason why a near-cache was emptied.
///
/// # Examples
///
/// ```
/// use hyper_session::NearCacheEmptied;
///
/// assert_eq!(NearCacheEmptied::Stale.as_str(), "stale"); // a label that stays the same
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NearCacheEmptied {
    /// The connection that reports changes was lost, or replaced because a server may have taken over.
    Lost,
    /// The server did not answer within `max_staleness`.
    Stale,
    /// All keys of the server were deleted.
    Flushed,
}

impl NearCacheEmptied {
    /// Returns a short, stable name, for metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Stale => "stale",
            Self::Flushed => "flushed",
        }
    }
}

/// The reason why the proof of a device was refused.
///
/// # Examples
///
/// ```
/// use hyper_session::ProofRefusal;
///
/// assert_eq!(ProofRefusal::OtherBinding.as_str(), "other_binding"); // a label that stays the same
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProofRefusal {
    /// The request has no session with a subject, or a refresh has a session that is not bound.
    NoSession,
    /// The session is bound already.
    AlreadyBound,
    /// The request is not one of the protocol, or has another algorithm than ES256.
    Malformed,
    /// The identifier names another binding than that of the session.
    OtherBinding,
    /// The challenge is not one of this store for this session, or its time is five minutes or more from that of this host.
    Challenge,
    /// The challenge was answered before.
    Replayed,
    /// The key did not sign the challenge.
    Signature,
}

impl ProofRefusal {
    /// Returns a short, stable name, for metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoSession => "no_session",
            Self::AlreadyBound => "already_bound",
            Self::Malformed => "malformed",
            Self::OtherBinding => "other_binding",
            Self::Challenge => "challenge",
            Self::Replayed => "replayed",
            Self::Signature => "signature",
        }
    }
}

/// A change of the revocations of a store.
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
    /// There were more than [`max_revocations`](crate::Revocations::max_revocations), so a floor replaced the oldest ones.
    /// All sessions from before the floor have ended, revoked or not.
    Floor,
    /// The log cannot be read, or the task that follows it has ended with its runtime. After `max_staleness` the failure policy applies.
    Unreachable,
    /// The log can be read again.
    Reachable,
    /// The log had lost entries, or ended before a position that it had returned: a failover, or a restored backup. This
    /// process has written the lost entries that it knew again.
    RolledBack,
    /// A session was accepted although the store could not check whether it was revoked, because of
    /// [`FailurePolicy::Trust`](crate::revocation::FailurePolicy::Trust).
    Trusted,
    /// One subject caused more revocations than it may. Further ones were joined into one that ends all its sessions, or
    /// were left out if a session only got a new id.
    SubjectLimit,
}

impl RevocationChange {
    /// Returns a short, stable name, for metric labels.
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

/// The reason why a request of another origin was refused: a browser's statement about the page that made it.
///
/// # Examples
///
/// ```
/// use hyper_session::CrossOriginReason;
///
/// assert_eq!(CrossOriginReason::CrossSite.as_str(), "cross_site"); // a label that stays the same
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CrossOriginReason {
    /// A page of another site (`Sec-Fetch-Site: cross-site`).
    CrossSite,
    /// A page of another origin of the same site: a sibling subdomain, or another scheme or port
    /// (`Sec-Fetch-Site: same-site`).
    SameSite,
    /// A browser without `Sec-Fetch-Site`, whose `Origin` is not the request's host. If there are many, a proxy changes
    /// `Host`.
    OtherOrigin,
    /// The fields are repeated, or have a value that no browser sends.
    Malformed,
}

impl CrossOriginReason {
    /// Returns a short, stable name, for metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CrossSite => "cross_site",
            Self::SameSite => "same_site",
            Self::OtherOrigin => "other_origin",
            Self::Malformed => "malformed",
        }
    }
}

/// The format of a session cookie, in a store that reads several formats.
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
    /// The format of this crate.
    Native,
    /// The format of Astra's cookie store.
    Astra,
}

impl CookieFormat {
    /// Returns a short, stable name, for metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Astra => "astra",
        }
    }
}

/// The place from which a session is still to be moved, in an [`EventKind::Migrating`](crate::EventKind::Migrating).
///
/// # Examples
///
/// ```
/// use hyper_session::MigrationSource;
///
/// assert_eq!(MigrationSource::RetiredName.as_str(), "retired_name"); // a label that stays the same
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MigrationSource {
    /// The old store of a [`MigratingStore`](crate::store::MigratingStore).
    Store,
    /// A [retired name](crate::cookie::CookieOptions::retired_name) of the cookie.
    RetiredName,
    /// An entry that was written before [`seal_records`](crate::store::Builder::seal_records) was called.
    Unsealed,
}

impl MigrationSource {
    /// Returns a short, stable name, for metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::RetiredName => "retired_name",
            Self::Unsealed => "unsealed",
        }
    }
}

/// An operation of a store, in an [`EventKind::StoreFailed`](crate::EventKind::StoreFailed) for example.
///
/// # Examples
///
/// ```
/// use hyper_session::Operation;
///
/// assert_eq!(Operation::Regenerate.as_str(), "regenerate"); // a label that stays the same
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Loads the session of a token.
    Load,
    /// Saves changed values, or a new session.
    Save,
    /// Renews the idle deadline, or seals the token again.
    Renew,
    /// Moves the session to a new id and token.
    Regenerate,
    /// Ends the session.
    Destroy,
}

impl Operation {
    /// Returns a short, stable name, for metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Save => "save",
            Self::Renew => "renew",
            Self::Regenerate => "regenerate",
            Self::Destroy => "destroy",
        }
    }
}

/// The reason why a cookie was refused. The client cannot distinguish the reasons.
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
    /// Not the only spelling of a token in base64url without padding.
    Encoding,
    /// Shorter or longer than any token.
    Length,
    /// A format version that this release does not know.
    Version,
    /// Sealed by a key that the keyring does not hold.
    UnknownKey,
    /// Sealed by a key that was revoked.
    RevokedKey,
    /// The signature does not match: the token was altered, forged, or moved here from another cookie name or purpose.
    Signature,
    /// The signature matches, but the ciphertext does not open.
    Ciphertext,
    /// The sealed or stored data is not a session.
    Payload,
    /// Idle for longer than the idle timeout, or older than the absolute timeout.
    Expired,
    /// Issued too far in the future, even if clocks differ.
    IssuedInFuture,
    /// Well-formed, but no such session is stored. Such an id is never adopted.
    UnknownId,
    /// The options of this host do not let it read the stored entry: it is longer than `max_entry_len`, or it is not sealed
    /// although entries must be. Or the entry is of a type that no session has. The cookie is not removed, because a host with
    /// other options may read the entry.
    Unreadable,
    /// The session got a new token moments ago. Other requests of the same browser may still carry the old token. So may an
    /// attacker who stole it. The cookie is not removed, because the browser has the new one, or will get it.
    Regenerated,
    /// In a format, or under a name, that is read only until a deadline, which has passed.
    RetiredFormat,
    /// Ended before its deadline: by a logout, or because its subject, one of its labels or all sessions were revoked. The
    /// response does not remove the cookie, because the browser may have got another cookie meanwhile.
    Revoked,
    /// A tombstone in a cookie: the handler ended a session in a request with several cookies of its name. The tombstone
    /// hides older cookies, and so it stays.
    Ended,
}

impl Refusal {
    /// Returns a short, stable name, for metric labels.
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
            Self::Unreadable => "unreadable",
            Self::Regenerated => "regenerated",
            Self::RetiredFormat => "retired_format",
            Self::Revoked => "revoked",
            Self::Ended => "ended",
        }
    }

    /// Returns true if a cookie that was refused for this reason is known to be dead, so that a response may remove it: it
    /// has expired, is not stored, is sealed by a revoked key, is forged, is not a session, or is in a retired format or under a
    /// retired name.
    ///
    /// A cookie is never removed if it may be valid elsewhere: in a format of a newer release, under a key that another
    /// host has already, issued by a host whose clock is ahead, for an entry that another host's options let it read, or the
    /// cookie of another application on the same host. Nor is it removed if the browser may have got another cookie meanwhile. A
    /// handler that calls [`destroy`](crate::Session::destroy) ends such sessions, too.
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
            // It may be the cookie of another application.
            Self::Encoding
            | Self::Length
            // It may be the cookie of another host, with a newer release or key, a clock that is ahead, or other options.
            | Self::Version
            | Self::UnknownKey
            | Self::IssuedInFuture
            | Self::Unreadable
            // Altered, or under another key: Astra's cookies do not name their key. (A native token gets this far only if a
            // holder of the key made it.)
            | Self::Ciphertext
            // The browser has the new token, or will get it.
            | Self::Regenerated
            // The browser may have got another cookie since, because the response to this request may be late.
            | Self::Revoked
            // Its removal would bring back the cookies that it hides.
            | Self::Ended => false,
        }
    }

    /// Returns true if another host may accept the cookie: one with a newer release or key, a clock that is ahead, or other
    /// options.
    pub(crate) const fn may_be_of_another_host(self) -> bool {
        matches!(self, Self::Version | Self::UnknownKey | Self::IssuedInFuture | Self::Unreadable)
    }

    /// Returns true if it was decided only by the form of the token, before a signature was checked or a backend was
    /// called. `waited` is true if the store did not answer at once. A backend may then have been asked: for an entry whose version
    /// or key is unknown, or for a token of the old store whose form is not that of the new one.
    pub(crate) const fn is_by_form(self, waited: bool) -> bool {
        !waited
            && matches!(
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

/// The reason why changes were dropped on purpose, in an [`EventKind::ChangesDropped`](crate::EventKind::ChangesDropped).
///
/// # Examples
///
/// ```
/// use hyper_session::DropReason;
///
/// assert_eq!(DropReason::SessionEnded.as_str(), "session_ended"); // a label that stays the same
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// The handler failed: it returned an [`Error`](crate::Error), or the response has a 5xx status, 408, a failure of gRPC, or is
    /// one that the rule of [`discard_changes_on`](crate::store::Builder::discard_changes_on) names.
    ServerError,
    /// The handler responded with a 1xx status, which carries no `Set-Cookie`.
    Informational,
    /// Another request ended the session, or its absolute timeout passed, while this request was running. A slow request
    /// does not bring it back.
    SessionEnded,
    /// [`save`](crate::Session::save) failed, and the handler did not call it again.
    SaveFailed,
    /// A session service inside of this one, or behind it, set the cookie to another session. The changes that the handler of this
    /// service had saved before in the same request do not reach the browser.
    OtherSession,
    /// The response has a `Set-Cookie` line that removes the session's cookie, and that no session service in this process wrote.
    /// A handler that ends its session calls [`destroy`](crate::Session::destroy) instead of writing such a line.
    CookieRemoved,
}

impl DropReason {
    /// Returns a short, stable name, for metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ServerError => "server_error",
            Self::Informational => "informational",
            Self::SessionEnded => "session_ended",
            Self::SaveFailed => "save_failed",
            Self::OtherSession => "other_session",
            Self::CookieRemoved => "cookie_removed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Refusal;

    // The rule as a list.
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
            (Refusal::Unreadable, false),
            (Refusal::Regenerated, false),
            (Refusal::RetiredFormat, true),
            (Refusal::Ended, false),
            (Refusal::Revoked, false),
        ];
        for (refusal, removes) in all {
            assert_eq!(refusal.removes_cookie(), removes, "{refusal}");
        }
    }
}
