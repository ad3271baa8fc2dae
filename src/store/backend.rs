//! What a place for sessions must offer: five primitives on opaque bytes, each of them atomic.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::{Clock, Timestamp};
use crate::error::Error;
use crate::id::EntryId;

/// For how long a backend keeps an entry that has expired, for requests that loaded it in time.
#[cfg_attr(not(any(feature = "memory", feature = "redis")), allow(dead_code))]
pub(crate) const RETENTION: Duration = Duration::from_secs(15 * 60);

/// A place to keep sessions on the server: give it to [`ServerStore`](super::ServerStore).
///
/// # Contract
///
/// - Each method is one atomic step on one id: all of it happens or none, and no other step on that id happens in between.
/// - An entry whose `expires` is not after `now` is gone: it is neither returned nor replaced nor touched. A storage that
///   expires entries by its own clock may decide by that clock instead.
///   Do not free its memory at once, but a quarter of an hour later: a request that loaded a session in time saves it by a
///   `now` from before the deadline, however long it took, and loses it if the entry was freed.
/// - A write that was acknowledged is seen by every later call.
/// - A future that is dropped before it is ready may or may not have had its effect, and must not let another call
///   receive its answer.
/// - A write can be repeated when its answer was lost: where an entry already has the very value that `create` or `replace`
///   would give it, that is success. No two writes of a store have the same value, so it is told from another's write. A
///   backend that repeats a removal itself, and then finds no entry, reports success.
/// - A method does not wait for ever: put a deadline on whatever it does, and return [`Error::unavailable`] past it. "Not
///   known now" is an error, never `None`.
/// - Ids are hashes, except beside Astra, where they are what logs in. Values hold what the application stores: keep them out of logs.
///
/// The feature `testing` has a suite that holds a backend to this contract.
///
/// # Examples
///
/// `examples/custom_store.rs` is a whole backend in fewer than 100 lines.
pub trait Backend: Send + Sync + 'static {
    /// The entry, if there is one.
    fn fetch(
        &self,
        id: EntryId,
        now: Timestamp,
    ) -> impl Future<Output = Result<Option<Stored>, Error>> + Send;

    /// Stores `entry` if there is none of this id; false if there is, unless it is this one.
    fn create(
        &self,
        id: EntryId,
        entry: Stored,
        now: Timestamp,
    ) -> impl Future<Output = Result<bool, Error>> + Send;

    /// If the entry's value is byte for byte `expected`, or that of `entry` already: puts `entry` in its place, or removes it
    /// where that is `None`.
    fn replace(
        &self,
        id: EntryId,
        expected: Bytes,
        entry: Option<Stored>,
        now: Timestamp,
    ) -> impl Future<Output = Result<Replaced, Error>> + Send;

    /// As [`replace`](Self::replace), by a caller that also knows the deadline with which it last saw the entry. Only values
    /// decide: the deadline may have moved since.
    ///
    /// The default calls `replace`. A backend whose storage compares whole entries, deadline included, saves a round trip by
    /// implementing it.
    fn exchange(
        &self,
        id: EntryId,
        seen: Stored,
        entry: Option<Stored>,
        now: Timestamp,
    ) -> impl Future<Output = Result<Replaced, Error>> + Send {
        self.replace(id, seen.value, entry, now)
    }

    /// Sets the deadline of the entry, if it still has the value with which the caller saw it; otherwise tells what is there.
    ///
    /// The default calls [`touch`](Self::touch) and [`fetch`](Self::fetch), and so may also have set the deadline of what it
    /// tells. A backend whose storage can do it in one step saves a round trip by implementing it.
    fn renew(
        &self,
        id: EntryId,
        seen: Stored,
        expires: Timestamp,
        now: Timestamp,
    ) -> impl Future<Output = Result<Replaced, Error>> + Send {
        async move {
            if !self.touch(id, expires, now).await? {
                return Ok(Replaced::Missing);
            }
            Ok(match self.fetch(id, now).await? {
                None => Replaced::Missing,
                Some(present) if present.value == seen.value => Replaced::Done,
                Some(present) => Replaced::Conflict(present),
            })
        }
    }

    /// Returns what the storage's own clock shows when this host's clock shows `now`.
    ///
    /// The default is `now`. A backend whose storage has a clock implements it, so that hosts whose clocks disagree agree on
    /// how long ago something was stored.
    fn time(&self, now: Timestamp) -> Timestamp {
        now
    }

    /// Sets the deadline of the entry, if there is one, without touching its value; false if there is none.
    fn touch(
        &self,
        id: EntryId,
        expires: Timestamp,
        now: Timestamp,
    ) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Removes the entry, if there is one.
    fn delete(&self, id: EntryId) -> impl Future<Output = Result<(), Error>> + Send;

    /// Takes the clock of a store that is built on this backend: only memory frees by it.
    #[doc(hidden)]
    fn __use_clock(&self, _: &Arc<dyn Clock>) {}
}

/// An entry of a [`Backend`].
#[derive(Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)] // backends make these: a further field would break them in any case
pub struct Stored {
    /// The session, encoded. Opaque to the backend.
    pub value: Bytes,
    /// The first moment at which the entry is gone.
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

/// How [`Backend::replace`] ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)] // there is no fourth way
pub enum Replaced {
    /// The entry was as expected, and is replaced or removed.
    Done,
    /// The entry has another value: this one. Nothing was written.
    Conflict(Stored),
    /// There is no such entry. Nothing was written.
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

    fn __use_clock(&self, clock: &Arc<dyn Clock>) {
        (**self).__use_clock(clock);
    }
}
