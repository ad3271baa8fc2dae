//! The contract of a log of revocations, which every process appends to and follows.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use super::Revocation;
use crate::clock::Timestamp;
use crate::error::Error;

/// A durable log of revocations, shared by all processes that read the same sessions, to be given to
/// [`Revocations::open`](super::Revocations::open).
///
/// # Contract
///
/// - Each appended revocation gets a position: a number from 1 to 2^62 - 1, larger than any before it.
/// - Positions never go back within an [incarnation](Self::incarnation). A log that lost entries (a failover) must
///   still give positions above `above`, the highest position that the caller knows. It should leave out more positions
///   than it can have lost: a revocation must come behind all earlier logins, including lost ones.
/// - When [`append`](Self::append) has returned, the entries are durable, and every later [`read`](Self::read) of any
///   process returns them.
/// - A `read` that returns a page without `more` has returned all entries that were appended before it was called.
/// - A future that is dropped before it is ready may or may not have had its effect.
/// - A method does not wait for ever: it has a timeout, and returns [`Error::unavailable`] past it.
///
/// The feature `testing` has a test suite for this contract.
///
/// # Examples
///
/// `examples/custom_revocation_log.rs` is a complete log.
pub trait RevocationLog: Send + Sync + 'static {
    /// Returns which history the positions count in. In another incarnation, earlier positions have no meaning: all
    /// earlier sessions then count as older than every entry of the log.
    fn incarnation(&self) -> u64;

    /// Appends `revocations` in this order, all or none, at positions above `above`. Returns the position of the last
    /// one.
    fn append(
        &self,
        revocations: Vec<Revocation>,
        above: u64,
    ) -> impl Future<Output = Result<u64, Error>> + Send;

    /// Returns the position of the last entry. If that is below `at_least`, the log first raises it to `at_least`, so
    /// that later entries come behind it.
    fn top(&self, at_least: u64) -> impl Future<Output = Result<u64, Error>> + Send;

    /// Returns entries behind `after`, in order. If there are none, the log waits for some, but not longer than `wait`. It does not
    /// return at once: the caller would then ask it again a hundred times a second.
    fn read(&self, after: u64, wait: Duration) -> impl Future<Output = Result<Page, Error>> + Send;

    /// Deletes entries that are older than `age`. A log may keep them for longer.
    fn trim(&self, age: Duration) -> impl Future<Output = Result<(), Error>> + Send;
}

/// A page of a [`RevocationLog`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)] // logs make these: a further field would break them in any case
pub struct Page {
    /// The entries, in the order of their positions.
    pub entries: Vec<Entry>,
    /// The position of the log's last entry, as of this read.
    pub top: u64,
    /// True if there are further entries, which were not read. The page then has an entry.
    pub more: bool,
    /// Which server's writes the log ends with, or zero if a log never loses entries. When it changes, entries may have been
    /// lost that were acknowledged before, for example because a server took over. Each process then writes the entries
    /// again that it knows and the log lacks.
    pub history: u64,
}

/// A revocation and its position in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)] // as above
pub struct Entry {
    /// The position.
    pub position: u64,
    /// When it was appended, by the clock of the appending process. It decides when the entry is forgotten. For a session that was
    /// given another id, it also decides until when its old id is one that was replaced moments ago, and not a revoked one: for a
    /// minute, or for five if the session was bound to a device.
    pub written: Timestamp,
    /// The appended revocation.
    pub revocation: Revocation,
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// The object-safe form of [`RevocationLog`].
pub(super) trait AnyLog: Send + Sync {
    fn incarnation(&self) -> u64;
    fn append(&self, revocations: Vec<Revocation>, above: u64) -> Answer<'_, u64>;
    fn top(&self, at_least: u64) -> Answer<'_, u64>;
    fn read(&self, after: u64, wait: Duration) -> Answer<'_, Page>;
    fn trim(&self, age: Duration) -> Answer<'_, ()>;
}

impl<L: RevocationLog> AnyLog for L {
    fn incarnation(&self) -> u64 {
        RevocationLog::incarnation(self)
    }

    fn append(&self, revocations: Vec<Revocation>, above: u64) -> Answer<'_, u64> {
        Box::pin(RevocationLog::append(self, revocations, above))
    }

    fn top(&self, at_least: u64) -> Answer<'_, u64> {
        Box::pin(RevocationLog::top(self, at_least))
    }

    fn read(&self, after: u64, wait: Duration) -> Answer<'_, Page> {
        Box::pin(RevocationLog::read(self, after, wait))
    }

    fn trim(&self, age: Duration) -> Answer<'_, ()> {
        Box::pin(RevocationLog::trim(self, age))
    }
}

impl<L: RevocationLog> RevocationLog for std::sync::Arc<L> {
    fn incarnation(&self) -> u64 {
        (**self).incarnation()
    }

    fn append(
        &self,
        revocations: Vec<Revocation>,
        above: u64,
    ) -> impl Future<Output = Result<u64, Error>> + Send {
        (**self).append(revocations, above)
    }

    fn top(&self, at_least: u64) -> impl Future<Output = Result<u64, Error>> + Send {
        (**self).top(at_least)
    }

    fn read(&self, after: u64, wait: Duration) -> impl Future<Output = Result<Page, Error>> + Send {
        (**self).read(after, wait)
    }

    fn trim(&self, age: Duration) -> impl Future<Output = Result<(), Error>> + Send {
        (**self).trim(age)
    }
}
