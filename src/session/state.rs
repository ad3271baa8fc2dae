//! The state of a session between loading and committing: the stored record, the changes, the requests of the handler.

use std::collections::BTreeSet;
use std::ops::{Deref, DerefMut, Range};
use std::sync::{Arc, MutexGuard};

use bytes::Bytes;

use super::changes::{Changes, Displaced, Lookup, Step};
use super::commit_table::{Commit, Disposition, Facts, Outcome, Standing, Weight};
use super::encoded_value::EncodedValue;
use super::key::is_bookkeeping;
use super::lineage::Position;
use super::{Record, Saved};
use crate::clock::Timestamp;
use crate::crypto::SecretText;
use crate::event::DropReason;

/// The state behind a [`Session`](super::Session).
#[allow(clippy::struct_excessive_bools)] // independent facts, not one state in disguise
pub(super) struct State {
    /// The record in the store.
    base: Option<Record>,
    /// The commit in progress.
    pending: Option<Pending>,
    /// The changes since then. `None` if there are none, as in most requests: then nothing is moved, or dropped.
    changes: Option<Arc<Changes>>,
    wishes: Wishes,
    /// The handler reads the session as one that is in use.
    renews: bool,
    /// The request came with a token that another one replaced moments ago: the client has a cookie that is not ours to
    /// remove or to replace, unless the handler says so.
    overtaken: bool,
    /// The absolute timeout passed while the request was running.
    expired: bool,
    /// Another request ended the session, as far as this request knows. Changes are dropped, and nothing brings the session
    /// back.
    ended: bool,
    /// The response head was sent: reads still work, writes fail.
    closed: bool,
    /// The request has ended: nothing is committed after this.
    discarded: bool,
    /// A save failed, the handler got the error, and has changed nothing since. The response is the handler's decision.
    failure_told: bool,
    /// A renewal failed. It is not attempted again in this request.
    renewal_failed: bool,
    reply: Reply,
    /// The handler ended a session, and the store carried it out. This stays true if the handler then begins a new session.
    ended_by_handler: bool,
}

/// The requests of a handler other than changes of values.
#[derive(Clone, Copy, Debug, Default)]
struct Wishes {
    regenerate: bool,
    destroy: bool,
}

struct Pending {
    changes: Arc<Changes>,
    wishes: Wishes,
    outcome: Outcome,
}

/// The reply to the client about its cookie, which the response carries.
pub(crate) enum Reply {
    Nothing,
    Set { token: SecretText, expires: Timestamp, weight: Weight },
    Remove { weight: Weight },
}

/// The remains of a commit, which must be dropped without the lock of the session: they may hold closures of the
/// application.
#[must_use = "closures of the application must be dropped after unlocking"]
pub(super) struct Leftovers {
    _changes: [Option<Arc<Changes>>; 2],
}

/// The locked state. Closures of the application that the state no longer needs are dropped after it is unlocked, because
/// dropping a closure may run code that uses this session.
pub(super) struct Locked<'a> {
    // Fields are dropped in this order.
    state: MutexGuard<'a, State>,
    displaced: Displaced,
}

impl<'a> Locked<'a> {
    pub(super) fn new(state: MutexGuard<'a, State>) -> Self {
        Self { state, displaced: Displaced::default() }
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // A log that is shared was not changed under this lock.
        if let Some(changes) = self.state.changes.as_mut().and_then(Arc::get_mut) {
            self.displaced = changes.take_displaced();
        }
    }
}

impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

/// The undecoded value of a key, not copied.
enum Value<'a> {
    Changed(&'a Bytes),
    Stored(&'a Record, Range<usize>),
    Absent,
}

impl<'a> Value<'a> {
    fn as_slice(&self) -> Option<&'a [u8]> {
        match self {
            Self::Changed(value) => Some(value),
            Self::Stored(record, range) => Some(record.payload().slice(range.clone())),
            Self::Absent => None,
        }
    }
}

/// Returns the log of changes, to record a change. Only a commit shares it, and takes it out of the state first, so it is
/// not copied.
fn log(changes: &mut Option<Arc<Changes>>) -> &mut Changes {
    Arc::make_mut(changes.get_or_insert_with(Arc::default))
}

/// Returns the undecoded value under `key` without the changes that are not being committed yet.
fn below<'a>(pending: Option<&'a Pending>, base: Option<&'a Record>, key: &str) -> Value<'a> {
    match pending.map_or(Lookup::Unchanged, |pending| pending.changes.get(key)) {
        Lookup::Value(value) => Value::Changed(value),
        Lookup::Absent => Value::Absent,
        Lookup::Unchanged => match base.and_then(|base| Some((base, base.payload().find(key)?))) {
            Some((base, range)) => Value::Stored(base, range),
            None => Value::Absent,
        },
    }
}

impl State {
    pub(super) fn new(base: Option<Record>, overtaken: bool, reply: Reply) -> Self {
        Self {
            base,
            pending: None,
            changes: None,
            wishes: Wishes::default(),
            renews: false,
            overtaken,
            expired: false,
            ended: overtaken,
            closed: false,
            discarded: false,
            failure_told: false,
            renewal_failed: false,
            reply,
            ended_by_handler: false,
        }
    }

    pub(super) fn put(&mut self, key: &str, value: Option<Bytes>) {
        self.failure_told = false;
        let below = below(self.pending.as_ref(), self.base.as_ref(), key);
        log(&mut self.changes).put(key, value, below.as_slice());
    }

    pub(super) fn update(&mut self, key: &str, step: Step, value: Bytes) {
        self.failure_told = false;
        let below = below(self.pending.as_ref(), self.base.as_ref(), key);
        log(&mut self.changes).update(key, step, value, below.as_slice());
    }

    /// Records `value`, or a deletion, whatever is there: newer values must not lack it.
    pub(super) fn force(&mut self, key: &str, value: Option<Bytes>) {
        self.failure_told = false;
        log(&mut self.changes).force(key, value);
    }

    pub(super) fn clear(&mut self) {
        self.failure_told = false;
        if !self.is_empty() {
            log(&mut self.changes).clear();
        }
    }

    /// Binds the session to `subject`, which is kept under `key`.
    pub(super) fn login(&mut self, key: &str, subject: Bytes, position: Option<Position>) {
        if self.get(key).is_some_and(|present| *present != *subject) {
            self.destroy();
        }
        let changes = log(&mut self.changes);
        changes.login(key, subject);
        changes.set_login_position(position);
        self.regenerate();
    }

    /// The subject was authenticated again: a new token, and the absolute timeout begins anew.
    pub(super) fn reauthenticate(&mut self) {
        log(&mut self.changes).reauthenticate();
        self.regenerate();
    }

    pub(super) fn regenerate(&mut self) {
        self.failure_told = false;
        self.wishes.regenerate = true;
    }

    pub(super) fn destroy(&mut self) {
        self.failure_told = false;
        log(&mut self.changes).restart();
        self.wishes = Wishes { destroy: true, regenerate: false };
    }

    pub(super) fn request_renewal(&mut self) {
        self.renews = true;
    }

    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Drops the changes and requests since the last save. The caller must drop the returned value after unlocking.
    pub(super) fn forget_changes(&mut self) -> Leftovers {
        self.failure_told = false;
        self.wishes = Wishes::default();
        Leftovers { _changes: [self.changes.take(), None] }
    }

    /// Works as [`forget_changes`](Self::forget_changes), for good: a commit that fails does not bring the changes back.
    pub(super) fn discard(&mut self) -> Leftovers {
        self.discarded = true;
        self.forget_changes()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Returns true if another request ended the session, and this request has not begun a new one since.
    fn is_ended(&self) -> bool {
        let restarts = self.changes.as_ref().is_some_and(|changes| changes.restarts());
        let begins_another = restarts || self.wishes.regenerate && (self.overtaken || self.expired);
        self.ended && !begins_another
    }

    /// Returns true if there is nothing to commit.
    pub(super) fn is_settled(&self, standing: impl FnOnce(&Record) -> Standing) -> bool {
        let wished = self.wishes.destroy || self.wishes.regenerate;
        let renewal_due = || self.base.as_ref().is_some_and(|base| self.renewal_due(standing(base)));
        !wished && !self.is_modified() && self.pending.is_none() && !renewal_due()
    }

    /// Returns true if applying the changes would change a value.
    fn is_modified(&self) -> bool {
        self.changes.as_ref().is_some_and(|changes| !changes.is_empty())
    }

    /// Returns true if the session is to be renewed. A token that an earlier save returned is renewed, too, if it has
    /// expired by now, so that the response does not set a dead cookie.
    fn renewal_due(&self, standing: Standing) -> bool {
        let expired = standing.expired && matches!(self.reply, Reply::Set { .. });
        !self.renewal_failed && !standing.over && (standing.renewal_due && self.renews || expired)
    }

    pub(super) fn base(&self) -> Option<&Record> {
        self.base.as_ref()
    }

    pub(super) fn was_ended_by_handler(&self) -> bool {
        self.ended_by_handler
    }

    /// Takes what the response has to tell the client.
    pub(super) fn take_reply(&mut self) -> Reply {
        std::mem::replace(&mut self.reply, Reply::Nothing)
    }

    /// Returns the undecoded value under `key`.
    pub(super) fn get(&self, key: &str) -> Option<&[u8]> {
        self.look_up(key).as_slice()
    }

    /// Returns the undecoded value under `key`, to be decoded without the lock.
    pub(super) fn get_encoded(&self, key: &str) -> Option<EncodedValue> {
        match self.look_up(key) {
            Value::Changed(value) => Some(EncodedValue::Changed(value.clone())),
            Value::Stored(record, range) => Some(EncodedValue::Stored(record.clone(), range)),
            Value::Absent => None,
        }
    }

    fn look_up(&self, key: &str) -> Value<'_> {
        match self.changes.as_ref().map_or(Lookup::Unchanged, |changes| changes.get(key)) {
            Lookup::Value(value) => Value::Changed(value),
            Lookup::Absent => Value::Absent,
            Lookup::Unchanged => below(self.pending.as_ref(), self.base.as_ref(), key),
        }
    }

    /// Returns true if no key has a value, those of the crate included, but for bookkeeping.
    pub(super) fn is_empty(&self) -> bool {
        self.mentioned().filter(|key| !is_bookkeeping(key.as_bytes())).all(|key| self.get(key).is_none())
    }

    /// Returns the keys that have a value, including reserved keys.
    pub(super) fn keys(&self) -> BTreeSet<String> {
        self.mentioned().filter(|key| self.get(key).is_some()).map(str::to_owned).collect()
    }

    /// Returns every key in the record, the commit or the changes, with or without a value. Keys may be repeated.
    fn mentioned(&self) -> impl Iterator<Item = &str> {
        // The changes come first: the first value that is found shows that a session is not empty.
        let changes = self.changes.iter().flat_map(|changes| changes.keys());
        let pending = self.pending.iter().flat_map(|pending| pending.changes.keys());
        let stored = self.base.iter().flat_map(|base| base.payload().iter()).map(|(key, _)| key);
        changes.chain(pending).chain(stored)
    }

    /// Decides what to commit. `last` is true at the end of the request. A failure that the handler got as an error is not
    /// tried again then, because the handler has decided on the response.
    pub(super) fn begin_commit(
        &mut self,
        answer: Disposition,
        last: bool,
        standing: impl FnOnce(&Record) -> Standing,
    ) -> (Commit, Leftovers) {
        let told = last && self.failure_told;
        let (modified, ended) = (self.is_modified(), self.is_ended());
        let standing = self.base.as_ref().map(standing);
        let renewal_due = standing.is_some_and(|standing| self.renewal_due(standing));
        let empty = modified && self.is_empty();
        let wishes = std::mem::take(&mut self.wishes);
        let wishes = if told { Wishes::default() } else { wishes };
        let facts = Facts {
            stored: self.base.is_some(),
            changed: modified && !ended && !told,
            empty,
            cleared: self.changes.as_ref().is_some_and(|changes| changes.clears()),
            regenerate: wishes.regenerate,
            login: !told && self.changes.as_ref().is_some_and(|changes| changes.begins_anew()),
            destroyed: wishes.destroy,
            over: standing.is_some_and(|standing| standing.over),
            renewal_due,
        };
        let outcome = facts.decide(answer);
        let only_destroyed = wishes.destroy && !self.names_keys();
        let dropped = match answer {
            // The cookie still leads to the session.
            Disposition::Unreachable if wishes.destroy => Some(DropReason::Informational),
            _ if !modified || only_destroyed => None,
            _ if told => Some(DropReason::SaveFailed),
            _ if ended || outcome == Outcome::Expire => Some(DropReason::SessionEnded),
            Disposition::Accept => None,
            Disposition::DropValues => Some(DropReason::ServerError),
            Disposition::NoCookie | Disposition::Unreachable => Some(DropReason::Informational),
        };
        let recorded = self.changes.take();
        let accepted = answer == Disposition::Accept && !told && outcome != Outcome::Expire;
        let (changes, refused) = if accepted { (recorded, None) } else { (None, recorded) };
        let changes = changes.unwrap_or_default();
        self.pending = Some(Pending { changes: Arc::clone(&changes), wishes, outcome });
        let ends = wishes.destroy || changes.logs_in();
        let ends_superseded = ends && self.overtaken && self.base.is_none();
        let must_finish = match outcome {
            _ if ends_superseded => true,
            Outcome::Destroy | Outcome::Regenerate => true,
            Outcome::Save => facts.empty,
            Outcome::Keep | Outcome::Touch | Outcome::Expire => false,
        };
        let commit =
            Commit { outcome, base: self.base.clone(), changes, dropped, ends_superseded, must_finish };
        (commit, Leftovers { _changes: [refused, None] })
    }

    /// Returns true if the log has an entry for a key.
    fn names_keys(&self) -> bool {
        self.changes.as_ref().is_some_and(|changes| changes.keys().next().is_some())
    }

    /// Notes that the values below the changes are newer than the values that the changes were made on.
    fn outdate(&mut self) {
        if let Some(changes) = &mut self.changes {
            Arc::make_mut(changes).outdate();
        }
    }

    pub(super) fn go_on_from(&mut self, record: Record) {
        self.base = Some(record);
        self.ended = false;
        self.outdate();
    }

    pub(super) fn end_by_response(&mut self) {
        // If the handler ends the session, too, the store ends it.
        if self.base.is_some() && !self.wishes.destroy {
            self.base = None;
            self.ended = true;
            self.reply = Reply::Nothing;
        }
    }

    /// Notes that the commit failed: all that it was to do remains to be done.
    pub(super) fn commit_failed(&mut self) -> Leftovers {
        let Some(Pending { changes, wishes, outcome }) = self.pending.take() else {
            return Leftovers { _changes: [None, None] };
        };
        self.renewal_failed |= outcome == Outcome::Touch;
        if self.discarded {
            return Leftovers { _changes: [Some(changes), None] };
        }
        self.wishes.regenerate |= wishes.regenerate && !self.wishes.destroy;
        self.wishes.destroy |= wishes.destroy;
        let (both, leftovers) = match self.changes.take() {
            None => (changes, [None, None]),
            Some(later) => (Arc::new(changes.then(&later)), [Some(changes), Some(later)]),
        };
        self.changes = Some(both);
        Leftovers { _changes: leftovers }
    }

    /// Notes that the handler got the error of a failed save. It is not tried again until the handler changes the session.
    pub(super) fn failure_was_told(&mut self) {
        self.failure_told = true;
    }

    /// Notes that the commit succeeded. `saved` is the result of the store, if it was called.
    pub(super) fn commit_done(&mut self, saved: Option<Saved>) -> Leftovers {
        let pending = self.pending.take();
        let outcome = pending.as_ref().map_or(Outcome::Keep, |pending| pending.outcome);
        let destroyed = pending.as_ref().is_some_and(|pending| pending.wishes.destroy);
        if destroyed || matches!(saved, Some(Saved::Removed)) {
            self.ended_by_handler = true;
            self.ended = false; // a later change begins another session
        }
        // The handler asked for another session, which is stored with its first value: that may come after this commit.
        let begins_another = pending.as_ref().is_some_and(|pending| pending.wishes.regenerate)
            && self.base.is_none()
            && (self.overtaken || self.expired);
        self.ended &= !begins_another;
        self.outdate();
        match saved {
            None if outcome == Outcome::Expire => {
                self.base = None;
                self.expired = true;
                self.ended = true;
                self.reply = Reply::Remove { weight: Weight::DeadCookie };
            }
            // The handler ended a session that has a new token from another request: its user wants to be logged out here.
            None if destroyed && self.overtaken && self.base.is_none() => {
                self.reply = Reply::Remove { weight: Weight::End };
            }
            None => {}
            Some(Saved::Stored { record, token, .. }) => {
                let said = match self.reply {
                    Reply::Set { weight, .. } => weight,
                    _ => Weight::DeadCookie,
                };
                let (expires, weight) = (record.expires(), outcome.weight().max(said));
                self.reply = Reply::Set { token, expires, weight };
                self.base = Some(record);
                self.ended = false;
            }
            Some(Saved::Removed) => {
                self.reply = Reply::Remove { weight: Weight::End };
                self.base = None;
            }
            Some(Saved::Ended) => {
                self.base = None;
                self.ended = true;
                // The token from an earlier save is dead, and must not overwrite a live one.
                self.reply = Reply::Nothing;
            }
        }
        Leftovers { _changes: [pending.map(|pending| pending.changes), None] }
    }
}
