//! What a session is between loading and committing: what the store holds, what changed, what is asked for.

use std::collections::BTreeSet;
use std::ops::{Deref, DerefMut, Range};
use std::sync::{Arc, MutexGuard};

use bytes::Bytes;

use super::changes::{Changes, Displaced, Lookup, Step};
use super::commit_table::{Commit, Disposition, Facts, Outcome, Standing, Weight};
use super::encoded_value::EncodedValue;
use super::lineage::{Position, is_lineage};
use super::{Record, Saved};
use crate::clock::Timestamp;
use crate::crypto::SecretText;
use crate::event::DropReason;

/// The state behind a [`Session`](super::Session).
#[allow(clippy::struct_excessive_bools)] // independent facts, not one state in disguise
pub(super) struct State {
    /// What the store holds.
    base: Option<Record>,
    /// What is being committed right now.
    pending: Option<Pending>,
    /// What was changed since.
    changes: Changes,
    wishes: Wishes,
    /// The request came with a token that another one replaced moments ago: the client has a cookie that is not ours to
    /// remove or to replace, unless the handler says so.
    overtaken: bool,
    /// The absolute timeout passed while the request was running.
    expired: bool,
    /// Ended by another request, as far as this one can tell: what is set is dropped, and nothing brings it back.
    ended: bool,
    /// The response head is out: reads go on, writes fail.
    closed: bool,
    /// The request is over: nothing is committed any more.
    discarded: bool,
    /// A save failed, the handler was told, and it asked for nothing since: the answer is the handler's.
    failure_told: bool,
    /// A renewal failed: one attempt in a request is enough.
    renewal_failed: bool,
    reply: Reply,
    /// The handler ended a session, and that was done. What it began afterwards does not change that.
    ended_by_handler: bool,
}

/// What the handler asked for beside changing values.
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

/// What the response will tell the client about its cookie.
pub(crate) enum Reply {
    Nothing,
    Set { token: SecretText, expires: Timestamp, weight: Weight },
    Remove { weight: Weight },
}

/// What a commit leaves to be dropped without the lock of the session: closures of the application may be in it.
#[must_use = "closures of the application must be dropped after unlocking"]
pub(super) struct Leftovers {
    _changes: (Option<Arc<Changes>>, Changes),
}

/// The state, locked. Closures of the application that the state no longer needs are dropped after it is unlocked: dropping
/// one may run code that uses this very session.
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
        self.displaced = self.state.changes.take_displaced();
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

/// The undecoded value of a key, where it lies.
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

/// The undecoded value under `key` without the changes that are not being committed yet.
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
            changes: Changes::default(),
            wishes: Wishes::default(),
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
        self.changes.put(key, value, below.as_slice());
    }

    pub(super) fn update(&mut self, key: &str, step: Step, value: Bytes) {
        self.failure_told = false;
        let below = below(self.pending.as_ref(), self.base.as_ref(), key);
        self.changes.update(key, step, value, below.as_slice());
    }

    pub(super) fn clear(&mut self) {
        self.failure_told = false;
        if !self.is_empty() {
            self.changes.clear();
        }
    }

    /// Under `key` the session keeps whose it is.
    pub(super) fn login(&mut self, key: &str, subject: Bytes, position: Option<Position>) {
        if self.get(key).is_some_and(|present| *present != *subject) {
            self.destroy();
        }
        self.changes.login(key, subject);
        self.changes.set_login_position(position);
        self.regenerate();
    }

    pub(super) fn regenerate(&mut self) {
        self.failure_told = false;
        self.wishes.regenerate = true;
    }

    pub(super) fn destroy(&mut self) {
        self.failure_told = false;
        self.changes.restart();
        self.wishes = Wishes { destroy: true, regenerate: false };
    }

    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Forgets what was changed and asked for since the last save. What is returned is for the caller to drop, unlocked.
    pub(super) fn forget_changes(&mut self) -> Leftovers {
        self.failure_told = false;
        self.wishes = Wishes::default();
        Leftovers { _changes: (None, std::mem::take(&mut self.changes)) }
    }

    /// As [`forget_changes`](Self::forget_changes), for good: a commit that fails gives nothing back.
    pub(super) fn discard(&mut self) -> Leftovers {
        self.discarded = true;
        self.forget_changes()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Returns true if another request ended the session, and this one has begun no other since.
    fn is_ended(&self) -> bool {
        let begins_another =
            self.changes.restarts() || self.wishes.regenerate && (self.overtaken || self.expired);
        self.ended && !begins_another
    }

    /// Returns true if there is nothing to commit.
    pub(super) fn is_settled(&self, standing: impl FnOnce(&Record) -> Standing) -> bool {
        let wished = self.wishes.destroy || self.wishes.regenerate;
        let renewal_due = self.base.as_ref().is_some_and(|base| self.renewal_due(standing(base)));
        !wished && !renewal_due && self.changes.is_empty() && self.pending.is_none()
    }

    /// A token that an earlier save was given is renewed, too, if it has expired by now: the response sets no dead cookie.
    fn renewal_due(&self, standing: Standing) -> bool {
        let expired = standing.expired && matches!(self.reply, Reply::Set { .. });
        !self.renewal_failed && !standing.over && (standing.renewal_due || expired)
    }

    pub(super) fn base(&self) -> Option<&Record> {
        self.base.as_ref()
    }

    pub(super) fn was_ended_by_handler(&self) -> bool {
        self.ended_by_handler
    }

    /// What to tell the client, once.
    pub(super) fn take_reply(&mut self) -> Reply {
        std::mem::replace(&mut self.reply, Reply::Nothing)
    }

    /// The undecoded value under `key`.
    pub(super) fn get(&self, key: &str) -> Option<&[u8]> {
        self.look_up(key).as_slice()
    }

    /// The undecoded value under `key`, to be decoded without the lock.
    pub(super) fn get_encoded(&self, key: &str) -> Option<EncodedValue> {
        match self.look_up(key) {
            Value::Changed(value) => Some(EncodedValue::Changed(value.clone())),
            Value::Stored(record, range) => Some(EncodedValue::Stored(record.clone(), range)),
            Value::Absent => None,
        }
    }

    fn look_up(&self, key: &str) -> Value<'_> {
        match self.changes.get(key) {
            Lookup::Value(value) => Value::Changed(value),
            Lookup::Absent => Value::Absent,
            Lookup::Unchanged => below(self.pending.as_ref(), self.base.as_ref(), key),
        }
    }

    /// Returns true if no key has a value, those of the crate included, but for what revocation needs.
    pub(super) fn is_empty(&self) -> bool {
        self.mentioned().filter(|key| !is_lineage(key)).all(|key| self.get(key).is_none())
    }

    /// The keys that have a value, those of the crate included.
    pub(super) fn keys(&self) -> BTreeSet<String> {
        self.mentioned().filter(|key| self.get(key).is_some()).map(str::to_owned).collect()
    }

    /// Every key that the store, a commit or a change knows of, some of them more than once, with a value or without.
    fn mentioned(&self) -> impl Iterator<Item = &str> {
        let stored = self.base.iter().flat_map(|base| base.payload().iter()).map(|(key, _)| key);
        let pending = self.pending.iter().flat_map(|pending| pending.changes.keys());
        stored.chain(pending).chain(self.changes.keys())
    }

    /// Decides what is to be done. `last` is true at the end of the request, where a failure that the handler was told of is
    /// not tried again: the handler has answered for it.
    pub(super) fn begin_commit(
        &mut self,
        answer: Disposition,
        last: bool,
        standing: impl FnOnce(&Record) -> Standing,
    ) -> (Commit, Leftovers) {
        let told = last && self.failure_told;
        let (modified, ended) = (!self.changes.is_empty(), self.is_ended());
        let standing = self.base.as_ref().map(standing);
        let renewal_due = standing.is_some_and(|standing| self.renewal_due(standing));
        let empty = modified && self.is_empty();
        let wishes = std::mem::take(&mut self.wishes);
        let wishes = if told { Wishes::default() } else { wishes };
        let facts = Facts {
            stored: self.base.is_some(),
            changed: modified && !ended && !told,
            empty,
            cleared: self.changes.clears(),
            regenerate: wishes.regenerate,
            login: self.changes.begins_anew() && !told,
            destroyed: wishes.destroy,
            over: standing.is_some_and(|standing| standing.over),
            renewal_due,
        };
        let outcome = facts.decide(answer);
        let only_destroyed = wishes.destroy && self.changes.keys().next().is_none();
        let dropped = match answer {
            // The cookie goes on leading to the session.
            Disposition::Unreachable if wishes.destroy => Some(DropReason::Informational),
            _ if !modified || only_destroyed => None,
            _ if told => Some(DropReason::SaveFailed),
            _ if ended || outcome == Outcome::Expire => Some(DropReason::SessionEnded),
            Disposition::Accept => None,
            Disposition::DropValues => Some(DropReason::ServerError),
            Disposition::NoCookie | Disposition::Unreachable => Some(DropReason::Informational),
        };
        let recorded = std::mem::take(&mut self.changes);
        let accepted = answer == Disposition::Accept && !told && outcome != Outcome::Expire;
        let (changes, refused) =
            if accepted { (recorded, Changes::default()) } else { (Changes::default(), recorded) };
        let changes = Arc::new(changes);
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
        (commit, Leftovers { _changes: (None, refused) })
    }

    pub(super) fn go_on_from(&mut self, record: Record) {
        self.base = Some(record);
        self.ended = false;
        self.changes.outdate();
    }

    pub(super) fn end_by_response(&mut self) {
        // A handler that ends the session, too, has the store end it.
        if self.base.is_some() && !self.wishes.destroy {
            self.base = None;
            self.ended = true;
            self.reply = Reply::Nothing;
        }
    }

    /// The commit did not happen: all that it was to do is still to be done.
    pub(super) fn commit_failed(&mut self) -> Leftovers {
        let Some(Pending { changes, wishes, outcome }) = self.pending.take() else {
            return Leftovers { _changes: (None, Changes::default()) };
        };
        self.renewal_failed |= outcome == Outcome::Touch;
        let mut later = Changes::default();
        if !self.discarded {
            let both = changes.then(&self.changes);
            later = std::mem::replace(&mut self.changes, both);
            self.wishes.regenerate |= wishes.regenerate && !self.wishes.destroy;
            self.wishes.destroy |= wishes.destroy;
        }
        Leftovers { _changes: (Some(changes), later) }
    }

    /// The handler was told that a save failed. Until it asks for something else, that is not tried again.
    pub(super) fn failure_was_told(&mut self) {
        self.failure_told = true;
    }

    /// The commit happened. `saved` is what the store answered, if it was asked.
    pub(super) fn commit_done(&mut self, saved: Option<Saved>) -> Leftovers {
        let pending = self.pending.take();
        let outcome = pending.as_ref().map_or(Outcome::Keep, |pending| pending.outcome);
        let destroyed = pending.as_ref().is_some_and(|pending| pending.wishes.destroy);
        if destroyed || matches!(saved, Some(Saved::Removed)) {
            self.ended_by_handler = true;
            self.ended = false; // what follows is another session
        }
        // The handler asked for another session, which is stored with its first value: that may come after this commit.
        let begins_another = pending.as_ref().is_some_and(|pending| pending.wishes.regenerate)
            && self.base.is_none()
            && (self.overtaken || self.expired);
        self.ended &= !begins_another;
        if self.changes.keys().next().is_some() {
            self.changes.outdate();
        }
        match saved {
            None if outcome == Outcome::Expire => {
                self.base = None;
                self.expired = true;
                self.ended = true;
                self.reply = Reply::Remove { weight: Weight::DeadCookie };
            }
            // The handler ends what another request has given a new token to: its user wants to be logged out here.
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
                // A token that an earlier save was given is dead, and may not overwrite one that is not.
                self.reply = Reply::Nothing;
            }
        }
        Leftovers { _changes: (pending.map(|pending| pending.changes), Changes::default()) }
    }
}
