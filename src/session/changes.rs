//! The changes of a handler: a log with one entry for each key, which can be applied to newer values than it was made on.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::key::{LABELS, SUBJECT};
use super::key_map::KeyMap;
use super::lineage::{Name, share_label};
use super::value_equality::is_same_value;
use super::{Payload, Position, Recency, Record};
use crate::clock::Timestamp;
use crate::error::Error;

/// A step of [`Session::update`](super::Session::update), from the old value to the new one. `None` leaves the value as it is.
pub(super) type UpdateStep = Arc<dyn Fn(Option<&[u8]>) -> Result<Option<Bytes>, Error> + Send + Sync>;

/// The changes that one request made to a session.
///
/// A store applies them to the entry that it holds, and again to the newer entry if another request saved first.
#[derive(Clone, Default)]
#[allow(clippy::struct_excessive_bools)] // independent facts
pub struct Changes {
    start: Start,
    /// The user authenticated, so the absolute timeout begins again.
    logged_in: bool,
    /// The same user authenticated again, so the absolute timeout begins again.
    reauthenticated: bool,
    /// The session is bound to a device: what was given to the client before must not last.
    binds_device: bool,
    /// The values below moved since updates were recorded: their results must not be taken from the log.
    outdated: bool,
    /// The position in the log of revocations at which the login takes place, if the handler passed one.
    login_position: Option<Position>,
    /// A session that these changes begin is newer than this, if the store keeps its age in the token.
    after: Option<Recency>,
    /// The subject whose labels the log keeps in the session of a visitor.
    labels_of: Option<Name>,
    /// The other sessions of the subject end with this save, in a store that does both in one step.
    ends_others: bool,
    keys: KeyMap<Change>,
    displaced: Displaced,
}

/// The beginning of a log. Of two logs that are joined, the later value in this order counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Start {
    /// The values below.
    #[default]
    Kept,
    /// No values: `clear` was called.
    Cleared,
    /// A new session: `destroy` was called, or `clear` on the session of a subject, or on one with a lifetime of its own.
    Restarted,
}

#[derive(Clone)]
enum Change {
    Set(Bytes),
    Delete,
    /// It was set to the value that it had. That is a change only of a session that begins without the values below.
    Same(Bytes),
    /// The result of `steps` was `value` when they were recorded. `idle`: that is equal to the value before.
    Update {
        steps: Vec<UpdateStep>,
        value: Bytes,
        idle: bool,
    },
}

/// Entries that hold closures of the application and are no longer in the log. Dropping a closure runs code of the
/// application. So a caller that holds a lock around the log takes them out, and drops them after unlocking.
#[derive(Default)]
pub(super) struct Displaced(Vec<Change>);

impl Clone for Displaced {
    /// A copy of a log starts without displaced entries.
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// The entry of the log for one key.
pub(super) enum Lookup<'a> {
    Value(&'a Bytes),
    Absent,
    Unchanged,
}

/// Returns true if `value`, or its absence, equals the value below.
fn is_unchanged(value: Option<&[u8]>, below: Option<&[u8]>) -> bool {
    match (value, below) {
        (Some(value), Some(below)) => is_same_value(value, below),
        (None, None) => true,
        _ => false,
    }
}

impl Changes {
    pub(super) fn get(&self, key: &str) -> Lookup<'_> {
        match self.keys.get(key) {
            Some(Change::Set(value) | Change::Update { value, .. }) => Lookup::Value(value),
            Some(Change::Delete) => Lookup::Absent,
            None if self.clears() => Lookup::Absent,
            Some(Change::Same(_)) | None => Lookup::Unchanged,
        }
    }

    /// Returns true if applying the log would change nothing. Updates that changed nothing are still in the log: if other
    /// updates do change a value, all run again on newer values.
    pub(crate) fn is_empty(&self) -> bool {
        !self.clears()
            && self
                .keys
                .iter()
                .all(|(_, change)| matches!(change, Change::Same(_) | Change::Update { idle: true, .. }))
    }

    /// Makes a session that these changes begin newer than `after`.
    pub(crate) fn set_after(&mut self, after: Option<Recency>) {
        self.after = after;
    }

    pub(crate) fn after(&self) -> Option<Recency> {
        self.after
    }

    /// Sets the position in the log of revocations at which the login takes place, if the handler passed one.
    pub(super) fn set_login_position(&mut self, position: Option<Position>) {
        self.login_position = position;
    }

    /// Returns true if the user authenticated.
    pub(crate) fn logs_in(&self) -> bool {
        self.logged_in
    }

    /// Returns the position in the log of revocations at which the login takes place, if the handler passed one.
    pub(crate) fn login_position(&self) -> Option<Position> {
        self.login_position
    }

    /// Returns true if the session starts over with a new id, a new beginning and none of the old values. Whether the former session
    /// has ended already makes no difference to it.
    pub(crate) fn restarts(&self) -> bool {
        self.start == Start::Restarted
    }

    /// Returns true if the absolute timeout begins again: the session starts over, or its user authenticated.
    pub(crate) fn begins_anew(&self) -> bool {
        self.restarts() || self.logged_in || self.reauthenticated
    }

    /// Returns when the session begins that `record` becomes by these changes.
    pub(crate) fn beginning(&self, record: &Record, now: Timestamp) -> Timestamp {
        if self.begins_anew() { now } else { record.created() }
    }

    /// Records `value`, or a deletion. `below` is the value without this log.
    pub(crate) fn put(&mut self, key: &str, value: Option<Bytes>, below: Option<&[u8]>) {
        let below = if self.clears() { None } else { below };
        match value {
            value if !is_unchanged(value.as_deref(), below) => self.force(key, value),
            Some(value) => self.insert(key, Change::Same(value)),
            None => {
                let displaced = self.keys.remove(key);
                self.displaced.keep(displaced);
            }
        }
    }

    /// Records the login of a user even if it is the same one: newer values must contain it, too.
    pub(super) fn login(&mut self, subject: Bytes) {
        self.insert(SUBJECT, Change::Set(subject));
        self.logged_in = true;
    }

    /// Records that the session is bound to a device.
    #[cfg(feature = "device-bound")]
    pub(super) fn bind_device(&mut self) {
        self.binds_device = true;
    }

    /// Returns true if the session is bound to a device.
    pub(crate) fn binds_device(&self) -> bool {
        self.binds_device
    }

    /// Records that the same user authenticated again.
    pub(super) fn reauthenticate(&mut self) {
        self.reauthenticated = true;
    }

    /// Returns changes that only end the other sessions of the subject.
    pub(crate) fn ending_others() -> Self {
        Self { ends_others: true, ..Self::default() }
    }

    /// Records that the other sessions of the subject end.
    pub(super) fn end_others(&mut self) {
        self.ends_others = true;
    }

    /// Returns true if the other sessions of the subject end with this save.
    pub(crate) fn ends_others(&self) -> bool {
        self.ends_others
    }

    /// Records `value`, or a deletion, whatever is there.
    pub(super) fn force(&mut self, key: &str, value: Option<Bytes>) {
        self.insert(key, value.map_or(Change::Delete, Change::Set));
    }

    /// Records a step that led to `value`, where `below` is what is there without this log.
    pub(super) fn update(&mut self, key: &str, step: UpdateStep, value: Bytes, below: Option<&[u8]>) {
        let clears = self.clears();
        match self.keys.get_mut(key) {
            Some(Change::Update { steps, value: result, idle }) => {
                steps.push(step);
                *idle = is_unchanged(Some(&value), below);
                *result = value;
            }
            // If this log itself set or deleted the value, the result is known.
            Some(Change::Set(_) | Change::Delete) => self.put(key, Some(value), below),
            _ if clears => self.put(key, Some(value), None),
            Some(Change::Same(_)) | None => {
                let idle = is_unchanged(Some(&value), below);
                self.insert(key, Change::Update { steps: vec![step], value, idle });
            }
        }
    }

    pub(super) fn clear(&mut self) {
        let before = std::mem::take(&mut self.keys);
        for (_, change) in before {
            self.displaced.keep(Some(change));
        }
        self.start = self.start.max(Start::Cleared);
        (self.logged_in, self.reauthenticated) = (false, false);
        (self.binds_device, self.ends_others) = (false, false);
        self.login_position = None;
    }

    /// Returns true if no earlier value is left.
    pub(crate) fn clears(&self) -> bool {
        self.start >= Start::Cleared
    }

    /// Returns the changes of a handler that has called `destroy`.
    #[cfg(all(test, feature = "memory"))]
    pub(crate) fn restarted() -> Self {
        let mut changes = Self::default();
        changes.restart();
        changes
    }

    pub(super) fn restart(&mut self) {
        self.clear();
        self.start = Start::Restarted;
        self.labels_of = None;
    }

    /// Makes a log that clears the session of `payload` begin a new session instead. It keeps the labels, which are those of
    /// `payload` unless the log has its own.
    pub(super) fn begin_visitors_session(&mut self, payload: &Payload) {
        self.start = Start::Restarted;
        let former = payload.get(LABELS);
        if !self.has_entry(LABELS) {
            self.put(LABELS, former.clone(), None);
        }
        let keeps_label = match self.get(LABELS) {
            Lookup::Value(labels) => share_label(former.as_deref(), labels),
            Lookup::Absent | Lookup::Unchanged => false,
        };
        self.labels_of = if keeps_label { payload.lineage().owner } else { None };
    }

    /// Returns the subject whose labels the log keeps in the session of a visitor.
    pub(crate) fn labels_of(&self) -> Option<Name> {
        self.labels_of
    }

    /// Notes that the values below are newer than the values that this log was made on.
    pub(crate) fn outdate(&mut self) {
        self.outdated = true;
    }

    /// Takes out the entries that must not be dropped under a lock.
    pub(super) fn take_displaced(&mut self) -> Displaced {
        std::mem::take(&mut self.displaced)
    }

    fn insert(&mut self, key: &str, change: Change) {
        let displaced = self.keys.insert(key, change);
        self.displaced.keep(displaced);
    }

    /// Puts `earlier` in front of this log.
    pub(super) fn follow(&mut self, earlier: Self) {
        let both = earlier.then(self);
        let later = std::mem::replace(self, both);
        for log in [earlier, later] {
            self.displaced.keep_all(log);
        }
    }

    /// Returns true if this log changes `key`.
    pub(super) fn has_entry(&self, key: &str) -> bool {
        self.keys.get(key).is_some_and(Change::is_one)
    }

    /// Returns this log followed by `later`.
    pub(super) fn then(&self, later: &Self) -> Self {
        if later.clears() {
            let labels_of = later.labels_of.or(self.labels_of);
            return Self { start: self.start.max(later.start), labels_of, ..later.clone() };
        }
        let mut both = self.clone();
        both.outdated |= later.outdated;
        both.logged_in |= later.logged_in;
        both.reauthenticated |= later.reauthenticated;
        both.binds_device |= later.binds_device;
        both.ends_others |= later.ends_others;
        both.login_position = later.login_position.or(both.login_position);
        for (key, change) in later.keys.iter() {
            let merged = match (both.keys.remove(key), change) {
                (
                    Some(Change::Update { mut steps, idle, .. }),
                    Change::Update { steps: more, value, idle: idle_too },
                ) => {
                    steps.extend(more.iter().cloned());
                    Change::Update { steps, value: value.clone(), idle: idle && *idle_too }
                }
                (Some(Change::Set(_) | Change::Delete), Change::Update { value, .. }) => {
                    Change::Set(value.clone())
                }
                (Some(earlier), Change::Same(_)) if earlier.is_one() => earlier,
                (_, change) => change.clone(),
            };
            both.keys.insert(key, merged);
        }
        both
    }

    /// Applies the changes to the values that they were recorded on.
    pub(crate) fn apply(&self, base: Option<&Payload>) -> Result<Payload, Error> {
        self.merge(base, self.outdated)
    }

    /// Applies the changes to newer values: every update runs again.
    pub(crate) fn replay(&self, base: Option<&Payload>) -> Result<Payload, Error> {
        self.merge(base, true)
    }

    fn merge(&self, base: Option<&Payload>, rerun: bool) -> Result<Payload, Error> {
        if let (Some(base), false, None) = (base, self.clears(), self.keys().next()) {
            return Ok(base.clone());
        }
        let base = if self.clears() { None } else { base };
        let changes = self
            .keys
            .iter()
            .filter(|(_, change)| base.is_none() || change.is_one())
            .map(|(key, change)| {
                let value = match change {
                    Change::Set(value) | Change::Same(value) => Some(Cow::Borrowed(value)),
                    Change::Delete => None,
                    Change::Update { value, .. } if !rerun => Some(Cow::Borrowed(value)),
                    Change::Update { steps, .. } => {
                        let mut value = base.and_then(|base| base.get(key));
                        for step in steps {
                            value = step(value.as_deref())?.or(value);
                        }
                        value.map(Cow::Owned)
                    }
                };
                Ok((key, value))
            })
            .collect::<Result<SmallVec<[_; 4]>, Error>>()?;
        Payload::merge(base, changes.iter().map(|(key, value)| (*key, value.as_deref().map(AsRef::as_ref))))
    }

    /// Returns true if `later` must not be saved without this log, which could not be saved: it says whose session this is, and
    /// `later` goes on from there. A login after `destroy`, for example, would otherwise get the values of the user before.
    pub(super) fn is_needed_by(&self, later: &Self) -> bool {
        self.clears() && (later.logged_in || later.has_entry(LABELS))
            || self.logged_in && later.reauthenticated
    }

    /// Returns the keys that this log changes.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().filter(|(_, change)| change.is_one()).map(|(key, _)| key)
    }
}

impl Change {
    /// Returns false for a value that was set to what it was.
    fn is_one(&self) -> bool {
        !matches!(self, Self::Same(_))
    }
}

impl Displaced {
    fn keep(&mut self, change: Option<Change>) {
        // Other changes are bytes, and can be dropped under a lock.
        if let Some(change @ Change::Update { .. }) = change {
            self.0.push(change);
        }
    }

    fn keep_all(&mut self, log: Changes) {
        for (_, change) in log.keys {
            self.keep(Some(change));
        }
        self.0.extend(log.displaced.0);
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes")
            .field("start", &self.start)
            .field("keys", &self.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "changes_tests.rs"]
mod tests;
