//! The contract of a storage for sessions: five atomic primitives on opaque bytes.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::near_cache::Ticket;
use crate::clock::{Clock, Timestamp};
use crate::error::Error;
use crate::id::EntryId;

/// For how long a backend keeps an expired entry, for requests that loaded it in time.
#[cfg_attr(not(any(feature = "memory", feature = "redis")), allow(dead_code))]
pub(crate) const RETENTION: Duration = Duration::from_secs(15 * 60);

/// The `now` of a call that is meant for an expired entry, too: no deadline is before it.
pub(crate) const EVEN_IF_EXPIRED: Timestamp = Timestamp::from_unix(0);

/// A storage for sessions on the server, to be given to [`ServerStore`](crate::ServerStore).
///
/// # Contract
///
/// - Each of `fetch`, `create`, `replace`, `touch` and `delete` is one atomic step on one id: all of it happens or none. No
///   other step on that id happens in between.
/// - An entry whose `expires` is not after `now` has expired: it is not returned, replaced or touched. A storage that
///   expires entries by its own clock may decide by that clock instead. Free its memory a quarter of an hour later, not
///   at once: a long request saves the session that it loaded in time. That save fails if the entry was freed. It is an
///   [`exchange`](Self::exchange) or a [`renew`](Self::renew), whose defaults pass a `now` from before the deadline to `replace`
///   and `touch`. A call that is meant for expired entries, too, has a `now` of 1970.
/// - Every later call sees an acknowledged write.
/// - A future that is dropped before it is ready may or may not have had its effect. It must not let another call
///   receive its reply.
/// - A write can be repeated when its reply was lost. If the entry already has the value that `create` or `replace`
///   would give it, the call succeeds. No two writes of a store have the same value, so another request's write is
///   never mistaken for this one. A backend that repeats a deletion itself, and then finds no entry, reports success.
/// - A method does not wait for ever: it has a timeout, and returns [`Error::unavailable`] past it. "Not known now" is
///   an error, never `None`.
/// - Ids are hashes, except beside Astra, where an id is what logs a client in. Values hold the application's data:
///   keep them out of logs.
///
/// The feature `testing` has a test suite for this contract.
///
/// # Examples
///
/// `examples/custom_store.rs` is a complete backend in fewer than 100 lines.
#[doc(alias = "SessionStore")]
pub trait Backend: Send + Sync + 'static {
    /// Returns the entry, if there is one.
    fn fetch(
        &self,
        id: EntryId,
        now: Timestamp,
    ) -> impl Future<Output = Result<Option<Stored>, Error>> + Send;

    /// Stores `entry` if the id has none. Returns false if it has an entry with another value.
    fn create(
        &self,
        id: EntryId,
        entry: Stored,
        now: Timestamp,
    ) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Replaces the entry by `entry`, or deletes it if that is `None`, provided that its value is `expected`, byte for
    /// byte. Also succeeds if the value is already that of `entry`.
    fn replace(
        &self,
        id: EntryId,
        expected: Bytes,
        entry: Option<Stored>,
        now: Timestamp,
    ) -> impl Future<Output = Result<Replaced, Error>> + Send;

    /// Does the same as [`replace`](Self::replace), for a caller that also knows the deadline of the entry that it
    /// loaded. Only values decide: the deadline may have moved since. An entry that has expired since it was loaded counts as
    /// alive.
    ///
    /// The default calls `replace`, with a `now` from before the deadline that the caller knows. A backend whose storage
    /// compares whole entries, deadline included, saves a round trip by implementing it. A backend whose storage counts a time to
    /// live implements it, and counts from this `now`, which is the present.
    fn exchange(
        &self,
        id: EntryId,
        seen: Stored,
        entry: Option<Stored>,
        now: Timestamp,
    ) -> impl Future<Output = Result<Replaced, Error>> + Send {
        let as_of = as_of(&seen, now);
        self.replace(id, seen.value, entry, as_of)
    }

    /// Sets the deadline of the entry if it still has the value that the caller loaded. Otherwise returns the present
    /// entry. An entry that has expired since it was loaded counts as alive.
    ///
    /// The default calls [`touch`](Self::touch) and [`fetch`](Self::fetch), and so may also have set the deadline of
    /// the entry that it returns. A backend whose storage can do it in one step saves a round trip by implementing it. As for
    /// [`exchange`](Self::exchange), `now` is the present.
    fn renew(
        &self,
        id: EntryId,
        seen: Stored,
        expires: Timestamp,
        now: Timestamp,
    ) -> impl Future<Output = Result<Replaced, Error>> + Send {
        async move {
            let as_of = as_of(&seen, now);
            if !self.touch(id, expires, as_of).await? {
                return Ok(Replaced::Missing);
            }
            Ok(match self.fetch(id, as_of).await? {
                None => Replaced::Missing,
                Some(present) if present.value == seen.value => Replaced::Done,
                Some(present) => Replaced::Conflict(present),
            })
        }
    }

    /// Returns what the storage's own clock shows when this host's clock shows `now`.
    ///
    /// The default is `now`. A backend whose storage has a clock implements it, so that hosts whose clocks differ agree
    /// on the age of an entry.
    fn time(&self, now: Timestamp) -> Timestamp {
        now
    }

    /// Sets the deadline of the entry, if there is one, without changing its value. Returns false if there is none.
    fn touch(
        &self,
        id: EntryId,
        expires: Timestamp,
        now: Timestamp,
    ) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Deletes the entry, if there is one.
    fn delete(&self, id: EntryId) -> impl Future<Output = Result<(), Error>> + Send;

    /// Works as [`fetch`](Self::fetch). Also returns a ticket, under which the store may keep the entry until the backend
    /// reports a change of it. `None` if the backend would not report it.
    #[doc(hidden)]
    fn __fetch_watched(
        &self,
        id: EntryId,
        now: Timestamp,
    ) -> impl Future<Output = Result<(Option<Stored>, Option<Ticket>), Error>> + Send {
        async move { Ok((self.fetch(id, now).await?, None)) }
    }

    /// Works as [`fetch`](Self::fetch) for the entry of a session list, which may be longer than the limit for entries: the
    /// limit may have been lowered since.
    #[doc(hidden)]
    fn __fetch_list(
        &self,
        id: EntryId,
        now: Timestamp,
    ) -> impl Future<Output = Result<Option<Stored>, Error>> + Send {
        self.fetch(id, now)
    }

    /// Is ready when a caller has waited long enough for a step that its answer does not depend on. Never, by default: such a
    /// backend answers at once, or its other entries do not answer either.
    #[doc(hidden)]
    fn __patience(&self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }

    /// Is ready after the longest time that so many steps of the storage may take. Never, by default: such a backend answers at
    /// once, or how long it may take is not known.
    #[doc(hidden)]
    fn __after_steps(&self, _: u32) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }

    /// Checks that no method would refuse an entry for a value of this length.
    #[doc(hidden)]
    fn __check_len(&self, _: usize) -> Result<(), Error> {
        Ok(())
    }

    /// Receives the clock of a store that is built on this backend. Only the memory backend uses it.
    #[doc(hidden)]
    fn __use_clock(&self, _: &Arc<dyn Clock>) {}
}

/// An entry of a [`Backend`].
#[derive(Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)] // backends make these: a further field would break them in any case
pub struct Stored {
    /// The encoded session, opaque to the backend.
    pub value: Bytes,
    /// The first moment at which the entry has expired.
    pub expires: Timestamp,
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored")
            .field("len", &self.value.len())
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// Returns the moment at which a backend is asked about an entry that the caller has seen alive. The entry may have expired
/// meanwhile: a session lasts as long as its requests.
fn as_of(seen: &Stored, now: Timestamp) -> Timestamp {
    now.min(seen.expires.saturating_sub(Duration::from_secs(1)))
}

/// The result of [`Backend::replace`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)] // there is no fourth way
pub enum Replaced {
    /// The entry was as expected, and is replaced or deleted.
    Done,
    /// The entry has this other value. Nothing was written.
    Conflict(Stored),
    /// There is no entry. Nothing was written.
    Missing,
}

impl<B: Backend> Backend for Arc<B> {
    fn fetch(
        &self,
        id: EntryId,
        now: Timestamp,
    ) -> impl Future<Output = Result<Option<Stored>, Error>> + Send {
        (**self).fetch(id, now)
    }

    fn create(
        &self,
        id: EntryId,
        entry: Stored,
        now: Timestamp,
    ) -> impl Future<Output = Result<bool, Error>> + Send {
        (**self).create(id, entry, now)
    }

    fn replace(
        &self,
        id: EntryId,
        expected: Bytes,
        entry: Option<Stored>,
        now: Timestamp,
    ) -> impl Future<Output = Result<Replaced, Error>> + Send {
        (**self).replace(id, expected, entry, now)
    }

    fn exchange(
        &self,
        id: EntryId,
        seen: Stored,
        entry: Option<Stored>,
        now: Timestamp,
    ) -> impl Future<Output = Result<Replaced, Error>> + Send {
        (**self).exchange(id, seen, entry, now)
    }

    fn renew(
        &self,
        id: EntryId,
        seen: Stored,
        expires: Timestamp,
        now: Timestamp,
    ) -> impl Future<Output = Result<Replaced, Error>> + Send {
        (**self).renew(id, seen, expires, now)
    }

    fn time(&self, now: Timestamp) -> Timestamp {
        (**self).time(now)
    }

    fn touch(
        &self,
        id: EntryId,
        expires: Timestamp,
        now: Timestamp,
    ) -> impl Future<Output = Result<bool, Error>> + Send {
        (**self).touch(id, expires, now)
    }

    fn delete(&self, id: EntryId) -> impl Future<Output = Result<(), Error>> + Send {
        (**self).delete(id)
    }

    fn __fetch_watched(
        &self,
        id: EntryId,
        now: Timestamp,
    ) -> impl Future<Output = Result<(Option<Stored>, Option<Ticket>), Error>> + Send {
        (**self).__fetch_watched(id, now)
    }

    fn __fetch_list(
        &self,
        id: EntryId,
        now: Timestamp,
    ) -> impl Future<Output = Result<Option<Stored>, Error>> + Send {
        (**self).__fetch_list(id, now)
    }

    fn __patience(&self) -> impl Future<Output = ()> + Send {
        (**self).__patience()
    }

    fn __after_steps(&self, steps: u32) -> impl Future<Output = ()> + Send {
        (**self).__after_steps(steps)
    }

    fn __check_len(&self, len: usize) -> Result<(), Error> {
        (**self).__check_len(len)
    }

    fn __use_clock(&self, clock: &Arc<dyn Clock>) {
        (**self).__use_clock(clock);
    }
}
