//! The crate's only error type: opaque, one word wide, with predicates.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

type Source = Box<dyn StdError + Send + Sync>;

/// The error type of this crate.
///
/// It is opaque: its `is_*` methods say what went wrong. [`Display`](fmt::Display) describes only this level. The cause, if
/// there is one, is in [`source`](StdError::source). The text of an error and the type of its cause may change in any
/// release.
///
/// An error never holds a token, a key or a session value. It may name the *key under which* a value is stored.
///
/// # Examples
///
/// ```
/// use hyper_session::{AppKey, CookieStore};
///
/// let error = AppKey::from_bytes(b"too short").unwrap_err();
/// assert!(error.is_config());
/// assert!(error.to_string().contains("32 bytes"));
/// # let _ = CookieStore::builder(AppKey::generate()?);
/// # Ok::<(), hyper_session::Error>(())
/// ```
pub struct Error {
    inner: Box<Inner>,
}

struct Inner {
    kind: Kind,
    source: Option<Source>,
}

/// Grouped by origin: the application's set-up, a value, a limit, the world outside.
pub(crate) enum Kind {
    Config(Cow<'static, str>),
    NotWrapped,
    HeadSent,
    Ended,
    ReservedKey {
        key: String,
    },
    Subject,
    Label,
    Lifetime,
    AuthenticationContext,
    TimeOutOfRange,
    SessionLimit,
    NotLoggedIn,
    Forgery,
    Encode {
        key: String,
    },
    Decode {
        key: String,
        found: &'static str,
        expected: &'static str,
    },
    TooDeep {
        key: String,
    },
    NoJson {
        key: String,
        found: &'static str,
    },
    TooLarge {
        size: usize,
        limit: usize,
    },
    // The backends with a limit.
    #[cfg_attr(not(any(feature = "redis", feature = "sqlite")), allow(dead_code))]
    EntryTooLarge {
        size: usize,
        limit: usize,
    },
    Random,
    Unavailable,
    /// The store is unavailable for good: the entry is not one that this store writes.
    Unreadable,
    Conflict {
        attempts: u32,
    },
    Internal(&'static str),
}

impl Error {
    #[cold]
    #[inline(never)]
    pub(crate) fn new(kind: Kind) -> Self {
        Self { inner: Box::new(Inner { kind, source: None }) }
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn with_source(kind: Kind, source: impl Into<Source>) -> Self {
        Self { inner: Box::new(Inner { kind, source: Some(source.into()) }) }
    }

    pub(crate) fn config(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Config(message.into()))
    }

    /// Creates an error for a [`Backend`](crate::store::Backend) whose storage cannot be reached or did not answer in time.
    ///
    /// The session layer treats the session as unknown: the handler gets the error, no cookie is removed, and nothing is
    /// written.
    ///
    /// # Examples
    ///
    /// ```
    /// let error = hyper_session::Error::unavailable("connection refused");
    /// assert!(error.is_unavailable());
    /// ```
    pub fn unavailable(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::with_source(Kind::Unavailable, source)
    }

    /// Creates an error as [`unavailable`](Self::unavailable) does, for an entry that no later attempt will read either.
    #[cfg_attr(not(any(feature = "redis", feature = "sqlite")), allow(dead_code))] // backends that limit entries
    pub(crate) fn unreadable(source: impl Into<Source>) -> Self {
        Self::with_source(Kind::Unreadable, source)
    }

    /// Returns true if no later attempt will read the entry either.
    pub(crate) fn is_unreadable(&self) -> bool {
        matches!(self.inner.kind, Kind::Unreadable)
    }

    /// Returns a short, stable name of what went wrong, for metric labels and structured logs: one of `config`, `not_wrapped`,
    /// `head_sent`, `ended`, `value`, `not_logged_in`, `session_limit`, `forgery`, `too_large`, `random`, `unavailable`,
    /// `conflict` and `internal`.
    ///
    /// # Examples
    ///
    /// ```
    /// let error = hyper_session::Error::unavailable("connection refused");
    /// assert_eq!(error.label(), "unavailable");
    /// ```
    pub fn label(&self) -> &'static str {
        match self.inner.kind {
            Kind::Config(_) => "config",
            Kind::NotWrapped => "not_wrapped",
            Kind::HeadSent => "head_sent",
            Kind::Ended => "ended",
            Kind::ReservedKey { .. }
            | Kind::Subject
            | Kind::Label
            | Kind::Lifetime
            | Kind::AuthenticationContext
            | Kind::TimeOutOfRange
            | Kind::Encode { .. }
            | Kind::Decode { .. }
            | Kind::TooDeep { .. }
            | Kind::NoJson { .. } => "value",
            Kind::NotLoggedIn => "not_logged_in",
            Kind::SessionLimit => "session_limit",
            Kind::Forgery => "forgery",
            Kind::TooLarge { .. } | Kind::EntryTooLarge { .. } => "too_large",
            Kind::Random => "random",
            Kind::Unavailable | Kind::Unreadable => "unavailable",
            Kind::Conflict { .. } => "conflict",
            Kind::Internal(_) => "internal",
        }
    }

    /// Returns true if options were refused while something was built. The message says what to change.
    pub fn is_config(&self) -> bool {
        matches!(self.inner.kind, Kind::Config(_))
    }

    /// Returns true if a request was asked for its session outside of any session service, or under a name that no session
    /// service has.
    pub fn is_not_wrapped(&self) -> bool {
        matches!(self.inner.kind, Kind::NotWrapped)
    }

    /// Returns true if a session was changed after the response head had been handed over. The change cannot be kept.
    pub fn is_head_sent(&self) -> bool {
        matches!(self.inner.kind, Kind::HeadSent)
    }

    /// Returns true if [`save`](crate::Session::save) found that the session has ended: another request ended it, or its
    /// absolute timeout passed. Nothing was written.
    pub fn is_ended(&self) -> bool {
        matches!(self.inner.kind, Kind::Ended)
    }

    /// Returns true if a value could not be stored or read as asked: it does not serialize, is nested deeper than 64
    /// levels, has a type other than the requested one, or has no form in the format of the store. Also true if a key is
    /// reserved, or if a subject, a label, a description, a lifetime or another argument is out of its bounds.
    pub fn is_value(&self) -> bool {
        self.label() == "value"
    }

    /// Returns true if a method needs the subject of the session, and the session has none: call
    /// [`login`](crate::Session::login) first.
    pub fn is_not_logged_in(&self) -> bool {
        matches!(self.inner.kind, Kind::NotLoggedIn)
    }

    /// Returns true if a login was refused because its subject has as many sessions as it may have, with
    /// [`SessionLimit::RefuseLogin`](crate::store::SessionLimit::RefuseLogin).
    pub fn is_session_limit(&self) -> bool {
        matches!(self.inner.kind, Kind::SessionLimit)
    }

    /// Returns true if a request may have been made by another site in the user's name: the token of its form is not one of
    /// the session's, or it comes from another origin. The response for it is a 403.
    pub fn is_forgery(&self) -> bool {
        matches!(self.inner.kind, Kind::Forgery)
    }

    /// Returns true if the session is larger than its cookies, or an entry of its store, may be. The stored session stays as it
    /// was. [`size_and_limit`](Self::size_and_limit) has both numbers.
    pub fn is_too_large(&self) -> bool {
        matches!(self.inner.kind, Kind::TooLarge { .. } | Kind::EntryTooLarge { .. })
    }

    /// Returns the needed size and the limit, in bytes, if [`is_too_large`](Self::is_too_large).
    pub fn size_and_limit(&self) -> Option<(usize, usize)> {
        match self.inner.kind {
            Kind::TooLarge { size, limit } | Kind::EntryTooLarge { size, limit } => Some((size, limit)),
            _ => None,
        }
    }

    /// Returns true if the store could not be reached, did not answer in time, or holds an entry that it cannot read. If a
    /// later attempt may succeed, [`is_transient`](Self::is_transient) is true, too.
    pub fn is_unavailable(&self) -> bool {
        matches!(self.inner.kind, Kind::Unavailable | Kind::Unreadable)
    }

    /// Returns true if every attempt to save the session met a concurrent change by another request, until the number of
    /// attempts was used up.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self.inner.kind, Kind::Conflict { .. })
    }

    /// Returns true if the operating system gave no random bytes. No id, token or nonce was made.
    pub(crate) fn is_random(&self) -> bool {
        matches!(self.inner.kind, Kind::Random)
    }

    /// Returns true if the same request may succeed later: the store could not be reached or did not answer in time, every
    /// attempt to save met a concurrent change of another request, or the operating system gave no random bytes.
    pub fn is_transient(&self) -> bool {
        matches!(self.inner.kind, Kind::Unavailable) || self.is_conflict() || self.is_random()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.inner.kind {
            Kind::Config(message) => f.write_str(message),
            Kind::NotWrapped => {
                f.write_str("no SessionService of that name wraps this handler (a session_fn hands its session over as an argument)")
            }
            Kind::HeadSent => f.write_str("the response head was sent already: this change cannot be kept"),
            Kind::Ended => f.write_str("the session has ended: nothing was saved"),
            Kind::ReservedKey { key } => {
                write!(f, "the session key {key:?} is reserved: keys must not start with U+0001")
            }
            Kind::Subject => f.write_str("a subject must be 1 to 512 bytes long"),
            Kind::Label => f.write_str(
                "the namespace of a label must be 1 to 64 bytes long and its value 1 to 4096 bytes, and a session must not have labels in more than four namespaces",
            ),
            Kind::Lifetime => f.write_str("the timeouts of a lifetime must be a second or longer"),
            Kind::AuthenticationContext => f.write_str(
                "an acr must be at most 256 bytes long, and an amr must name at most 16 methods of at most 64 bytes",
            ),
            Kind::TimeOutOfRange => f.write_str("the moment is outside of the range of the system's clock"),
            Kind::SessionLimit => f.write_str("the subject has as many sessions as it may have"),
            Kind::NotLoggedIn => f.write_str("the session has no subject: call login() first"),
            Kind::Forgery => f.write_str("the request was not sent by a page of this session"),
            Kind::Encode { key } => write!(f, "the value for session key {key:?} could not be serialized"),
            Kind::Decode { key, found, expected } => {
                write!(f, "the value under session key {key:?} is {found}, and cannot be read as {expected}")
            }
            Kind::NoJson { key, found } => {
                write!(f, "the value under session key {key:?} is or contains {found}, which the session's JSON cannot hold")
            }
            Kind::TooDeep { key } => {
                write!(f, "the value for session key {key:?} is nested deeper than 64 levels")
            }
            Kind::TooLarge { size, limit } => write!(
                f,
                "the sealed session needs {size} bytes of cookie, the limit is {limit}: store less, or use a server-side store"
            ),
            Kind::EntryTooLarge { size, limit } => write!(
                f,
                "the session needs {size} bytes in its store, the limit is {limit}: store less, or raise max_entry_len()"
            ),
            Kind::Random => f.write_str("the operating system gave no random bytes"),
            Kind::Unavailable => f.write_str("the session store is unavailable"),
            Kind::Unreadable => f.write_str("an entry of the session store cannot be read"),
            Kind::Conflict { attempts } => {
                write!(
                    f,
                    "the session was changed by other requests during each of {attempts} attempts to save it"
                )
            }
            Kind::Internal(what) => write!(f, "{what}: this is a bug in hyper-session"),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_tuple("Error");
        debug.field(&format_args!("{self}"));
        if let Some(source) = &self.inner.source {
            debug.field(source);
        }
        debug.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner.source.as_ref().map(|source| &**source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_word_wide_and_shareable() {
        fn shareable<T: Send + Sync + 'static>() {}
        shareable::<Error>();
        assert_eq!(size_of::<Error>(), size_of::<usize>());
        assert_eq!(size_of::<Result<(), Error>>(), size_of::<usize>());
    }

    #[test]
    fn display_is_this_level_and_source_is_the_next() {
        let error = Error::unavailable("connection refused");
        assert_eq!(error.to_string(), "the session store is unavailable");
        assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("connection refused"));
        assert!(error.is_transient());
    }

    #[test]
    fn an_entry_that_no_attempt_will_read_is_unavailable_for_good() {
        let error = Error::unreadable("the entry is not one of this store");
        assert!(error.is_unavailable() && !error.is_transient());
        assert_eq!(error.label(), "unavailable");
        assert_eq!(error.to_string(), "an entry of the session store cannot be read");
    }

    #[test]
    fn too_large_names_size_and_limit() {
        let error = Error::new(Kind::TooLarge { size: 40_000, limit: 32_768 });
        assert_eq!(error.size_and_limit(), Some((40_000, 32_768)));
        let text = error.to_string();
        assert!(text.contains("40000") && text.contains("32768"), "{text}");
    }
}
