//! Typed events about the work of the session layer, for logs, metrics and tests.

#[cfg(feature = "metrics")]
pub(crate) mod count;
#[cfg(feature = "tracing")]
mod journal;
#[cfg(feature = "tracing")]
mod log;
mod reasons;

use std::sync::Arc;
use std::time::Duration;

pub use self::reasons::{
    CookieFormat, CrossOriginReason, DropReason, MigrationSource, NearCacheEmptied, Operation, ProofRefusal,
    Refusal, RevocationChange,
};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::error::Error;
use crate::id::{KeyId, SessionId};

/// An event to be counted or logged. It never contains a token, a key or a session value. Sessions are identified by their
/// ids, which do not give access.
///
/// With the features `tracing` and `metrics`, every event is logged and counted automatically: see the guide
/// [`observability`](crate::guide::observability). An [`Observer`] receives the events in any case.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Event<'a> {
    /// Name of the session cookie. It tells the stores of one application apart.
    pub cookie: &'a str,
    /// The kind of event, with its facts.
    pub kind: EventKind<'a>,
}

/// The kind of an [`Event`], with the facts about it.
///
/// Kinds and facts may be added in any release: match with a wildcard arm.
///
/// # Examples
///
/// See [`Builder::observer`](crate::store::Builder::observer).
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum EventKind<'a> {
    /// A store was built with a cookie that is not `Secure`, which anyone on the network can read over plain http.
    InsecureCookie,
    /// A handler asked for its session, but no session service wraps it, or none with that cookie name (empty if the handler
    /// named none). There is no store, and so no observer: this event is only logged and counted.
    NotWrapped,
    /// A [`CrossOriginProtection`](crate::CrossOriginProtection) refused a request that another site may have made. It belongs to
    /// no store, and so to no observer and no cookie name: this event is only logged and counted.
    #[non_exhaustive]
    CrossOriginRefused {
        /// The reason.
        reason: CrossOriginReason,
    },
    /// The cookie of a request was refused. The handler gets an empty session.
    #[non_exhaustive]
    Refused {
        /// The reason.
        refusal: Refusal,
        /// The key that the cookie names, if that is the reason. A client can name any key.
        key: Option<KeyId>,
    },
    /// A store that reads Astra's cookies beside its own got a cookie of this format. It measures the progress of a
    /// migration. A refused cookie also causes a [`Refused`](Self::Refused).
    #[non_exhaustive]
    CookieFormat {
        /// The format, by the form of the cookie.
        format: CookieFormat,
        /// Why it was refused. `None` if it was accepted.
        refusal: Option<Refusal>,
    },
    /// A request carried several authentic sessions under the session's name. The newest one counts.
    ///
    /// Browsers send such cookies after a change of the session cookie's `Domain` or `Path`. If the subjects differ, it may
    /// be an attack: another host of the domain has set the cookie of its own session, so that the user acts in it.
    #[non_exhaustive]
    SeveralSessions {
        /// The session that counts.
        id: SessionId,
        /// The number of sessions.
        sessions: usize,
        /// True if two of them belong to different subjects ([`Session::login`](crate::Session::login)).
        subjects_differ: bool,
    },
    /// A request carried more cookies of the session's name than are tried: more than four that could be authentic, or more
    /// than 64 in all. Or its chunks can be joined in more ways than are tried: more than 16, or ways that differ from the likeliest
    /// in more than two chunks. Further cookies and ways were ignored. No cookie is removed, unless the handler ends the session.
    TooManyCandidates,
    /// A session was opened with a key that no longer seals. Unless the handler fails or ends it, it is sealed with the
    /// sealing key on this response.
    #[non_exhaustive]
    OldKey {
        /// The session.
        id: SessionId,
    },
    /// A new session was stored.
    #[non_exhaustive]
    Created {
        /// The session.
        id: SessionId,
    },
    /// A session was bound to a subject and stored: a login. On a store that gives the session a new id, a
    /// [`Created`](Self::Created) or a [`Regenerated`](Self::Regenerated) accompanies it.
    #[non_exhaustive]
    LoggedIn {
        /// The session.
        id: SessionId,
    },
    /// A session was given a new id, as at a login. Or it was ended, and a new one began in the same response.
    #[non_exhaustive]
    Regenerated {
        /// Its id before.
        from: SessionId,
        /// Its id now.
        id: SessionId,
    },
    /// A session was ended: it was destroyed, or no value was left.
    #[non_exhaustive]
    Destroyed {
        /// The session.
        id: SessionId,
    },
    /// Changes were dropped on purpose.
    #[non_exhaustive]
    ChangesDropped {
        /// The session, if it was stored.
        id: Option<SessionId>,
        /// The reason.
        reason: DropReason,
    },
    /// Another request saved the session first. This request's changes were applied to the newer state.
    #[non_exhaustive]
    ConflictMerged {
        /// The session.
        id: SessionId,
        /// The number of newer states that had to be loaded.
        conflicts: u32,
    },
    /// A session was loaded that is still to be moved: from the old store of a
    /// [`MigratingStore`](crate::store::MigratingStore), under a
    /// [retired name](crate::cookie::CookieOptions::retired_name) of the cookie, or from an entry that was stored without sealing.
    #[non_exhaustive]
    Migrating {
        /// The session.
        id: SessionId,
        /// Where it is from.
        from: MigrationSource,
    },
    /// A value did not decode as the type that [`Session::get_lenient`](crate::Session::get_lenient) asked for, and was read
    /// as absent.
    #[non_exhaustive]
    ValueUnreadable {
        /// The session, if it was stored.
        id: Option<SessionId>,
        /// Names the key, the kind of value that was found, and the type that was asked for.
        error: &'a Error,
    },
    /// The store answered. Emitted only by stores that take time (a [`CookieStore`](crate::CookieStore) answers at once), and only
    /// if the duration is wanted: by an observer, a `tracing` subscriber at this level, or the feature `metrics`.
    #[non_exhaustive]
    StoreAnswered {
        /// The operation.
        operation: Operation,
        /// The duration, including conflicts and repetitions.
        elapsed: Duration,
        /// False if it failed. [`StoreFailed`](Self::StoreFailed) has the reason.
        ok: bool,
    },
    /// The store could not load or save a session, or the session is too large. If the store could not renew a session
    /// ([`Operation::Renew`]), the response is sent unchanged, because no handler asked for the renewal.
    #[non_exhaustive]
    StoreFailed {
        /// The session, if it was stored.
        id: Option<SessionId>,
        /// The operation.
        operation: Operation,
        /// The error.
        error: &'a Error,
    },
    /// A handler returned an error of this crate. By default the response is a 503, a 403 or a 500. Values are not saved.
    /// Of several session services around the handler, the observer of the innermost one's store gets it.
    #[non_exhaustive]
    HandlerFailed {
        /// The error.
        error: &'a Error,
    },
    /// A session was saved under a token that the client does not get, because a 1xx response carries no cookie.
    #[non_exhaustive]
    CookieWithheld {
        /// The session.
        id: Option<SessionId>,
    },
    /// A handler's `Cache-Control` would have let a cache store a response that sets the session cookie. It was replaced by
    /// `no-store`.
    CacheControlReplaced,
    /// A `Set-Cookie` for the session's name was replaced, because a response sets each cookie once: a handler's own, or that of
    /// another session service whose session did not go on.
    SetCookieReplaced,
    /// A subject had as many sessions as it may have: the least recently used ones were ended.
    #[non_exhaustive]
    SubjectLimit {
        /// The number of ended sessions.
        ended: usize,
    },
    /// The backend may delete sessions in use when its memory is full. Such sessions end early, and a session that is
    /// deleted from its subject's list is not ended with the others. Reported when the store connects.
    ///
    /// For [`Revocations`](crate::Revocations) in Redis: revocations may be deleted. After a restart of all processes, a cookie that
    /// was copied before a logout then works again. Reported when a store with them is built.
    #[non_exhaustive]
    EvictionPolicy {
        /// The policy, as the backend names it. Only `noeviction` keeps all sessions.
        policy: &'a str,
    },
    /// The near-cache of a store was emptied of the sessions of one server. They are read from the server again.
    #[non_exhaustive]
    NearCacheEmptied {
        /// The reason.
        why: NearCacheEmptied,
    },
    /// The client went away during the commit of its session, which ends or regenerates it, or may do so. Or it went away, or its
    /// handler stopped waiting, during a [`save`](crate::Session::save) that ends or regenerates the session, or during
    /// [`end_other_sessions`](crate::Session::end_other_sessions).
    #[non_exhaustive]
    Interrupted {
        /// The session, if it was stored.
        id: Option<SessionId>,
        /// True if the commit is completed in the background. False if there was no runtime for that.
        completing: bool,
    },
    /// A session was bound to a device, so that only this device can use it (feature `device-bound`).
    #[non_exhaustive]
    DeviceBound {
        /// Its id before. A cookie store with revocations gives it another id.
        from: SessionId,
        /// Its id now.
        id: SessionId,
    },
    /// A device proved that it still holds the key of its session.
    #[non_exhaustive]
    DeviceProved {
        /// The session.
        id: SessionId,
    },
    /// A proof of a device was refused, at a registration or later. Nothing was changed. A refresh that brings no proof is not
    /// reported: after a logout, browsers ask once more.
    #[non_exhaustive]
    DeviceProofRefused {
        /// The session, if there is one.
        id: Option<SessionId>,
        /// The reason.
        refusal: ProofRefusal,
    },
    /// A request came with a session that is bound to a device, and without a valid bound cookie. The handler got an empty
    /// session. The cookie stays.
    ///
    /// A browser sends such requests if it could not reach the service for a refresh. A thief with a copied cookie sends
    /// them, too.
    #[non_exhaustive]
    BindingLapsed {
        /// The session.
        id: SessionId,
    },
    /// The state of the revocations of a [`CookieStore`](crate::CookieStore) changed.
    #[non_exhaustive]
    Revocations {
        /// The change.
        change: RevocationChange,
    },
}

/// A receiver of every [`Event`] of a store and of the services that use it. It is called inline, so it must be fast.
///
/// Implemented for any `Fn(&Event<'_>)`.
///
/// # Examples
///
/// ```
/// use hyper_session::cookie::CookieOptions;
/// use hyper_session::{AppKey, CookieStore, Event, EventKind, Observer};
/// use std::sync::mpsc::{Sender, channel};
///
/// /// Reports cookies that anyone on the network can read.
/// struct Alarm(Sender<String>);
///
/// impl Observer for Alarm {
///     fn event(&self, event: &Event<'_>) {
///         if let EventKind::InsecureCookie = event.kind {
///             let _ = self.0.send(event.cookie.to_owned());
///         }
///     }
/// }
///
/// let (alarm, raised) = channel();
/// let cookie = CookieOptions::new().name("session").secure(false);
/// CookieStore::builder(AppKey::generate()?).observer(Alarm(alarm)).cookie(cookie).build()?;
/// assert_eq!(raised.recv().unwrap(), "session");
/// # Ok::<(), hyper_session::Error>(())
/// ```
///
/// [`Builder::observer`](crate::store::Builder::observer) has an example with a closure.
pub trait Observer: Send + Sync + 'static {
    /// Receives `event`.
    fn event(&self, event: &Event<'_>);
}

/// A sender of events of one store outside of its calls.
pub(crate) struct Reporter {
    pub(crate) cookie: String,
    pub(crate) observer: Option<Arc<dyn Observer>>,
}

impl Reporter {
    pub(crate) fn report(&self, kind: EventKind<'_>) {
        let event = Event { cookie: &self.cookie, kind };
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

/// The facades that are compiled in, for one store.
#[derive(Default)]
pub(crate) struct Facades {
    #[cfg(feature = "tracing")]
    journal: journal::Journal,
}

/// The facades for events without a store.
static NO_STORE: Facades = Facades {
    #[cfg(feature = "tracing")]
    journal: journal::Journal::new(),
};

impl Facades {
    /// Passes `event` to each facade. `now` is the time of the store.
    #[cfg_attr(not(feature = "tracing"), allow(unused_variables, clippy::unused_self))]
    #[inline]
    pub(crate) fn publish(&self, event: &Event<'_>, now: impl Fn() -> Timestamp) {
        #[cfg(feature = "tracing")]
        log::log(&self.journal, event, now);
        #[cfg(feature = "metrics")]
        count::count(event);
    }

    /// Returns true if a facade needs to know how long the store takes, or whether it works again.
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

/// Passes an event without a store to the facades.
pub(crate) fn publish_without_store(event: &Event<'_>) {
    NO_STORE.publish(event, || SystemClock.now());
}
