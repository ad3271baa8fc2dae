//! What a session is between loading and committing: what the store holds, what changed, what is asked for.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::Record;
use super::changes::{Changes, Lookup, Step};
use super::commit_table::{Commit, Disposition, Facts, Outcome};
use super::encoded_value::EncodedValue;
use super::key::is_bookkeeping;
use crate::crypto::SecretText;
use crate::error::Error;
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
    renewal_due: bool,
    /// The handler reads the session as one that is in use.
    renews: bool,
    /// The request came with a token that another one replaced moments ago: the client has a cookie that is not ours to
    /// remove or to replace, unless the handler says so.
    overtaken: bool,
    /// Ended by another request, as far as this one can tell: what is set is dropped, and nothing brings it back.
    ended: bool,
    /// The response head is out: reads go on, writes fail.
    closed: bool,
    /// The request is over: nobody commits any more.
    discarded: bool,
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
}

/// What the response will tell the client about its cookie.
pub(crate) enum Reply {
    Nothing,
    Set { token: SecretText, lifetime: Duration },
    Remove,
}

/// How a commit ended.
#[allow(clippy::large_enum_variant)] // moved once, and a box would cost more than the move
pub(crate) enum Committed {
    Kept,
    Stored { record: Record, token: SecretText, lifetime: Duration },
    Removed,
    Ended,
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
    pub(super) fn new(base: Option<Record>, renewal_due: bool, overtaken: bool, reply: Reply) -> Self {
        Self {
            base,
            pending: None,
            changes: Changes::default(),
            wishes: Wishes::default(),
            renewal_due,
            renews: false,
            overtaken,
            ended: overtaken,
            closed: false,
            discarded: false,
            reply,
            ended_by_handler: false,
        }
    }

    pub(super) fn put(&mut self, key: &str, value: Option<Bytes>) {
        let below = below(self.pending.as_ref(), self.base.as_ref(), key);
        self.changes.put(key, value, below.as_slice());
    }

    pub(super) fn update(&mut self, key: &str, step: Step, value: Bytes) {
        let below = below(self.pending.as_ref(), self.base.as_ref(), key);
        self.changes.update(key, step, value, below.as_slice());
    }

    /// Records `value`, or a deletion, whatever is there: newer values must not lack it.
    pub(super) fn force(&mut self, key: &str, value: Option<Bytes>) {
        self.changes.force(key, value);
    }

    pub(super) fn clear(&mut self) {
        if !self.is_empty() {
            self.changes.clear();
        }
    }

    /// Under `key` the session keeps whose it is.
    pub(super) fn login(&mut self, key: &str, subject: Bytes) {
        if self.get(key).is_some_and(|present| *present != *subject) {
            self.destroy();
        }
        self.changes.set(key, subject);
        self.regenerate();
    }

    pub(super) fn regenerate(&mut self) {
        self.wishes.regenerate = true;
        if self.overtaken && self.base.is_none() {
            self.ended = false; // a session of its own is what the handler asks for
        }
    }

    pub(super) fn destroy(&mut self) {
        self.changes.restart();
        self.wishes = Wishes { destroy: true, regenerate: false };
        self.ended = false; // what follows is another session
        if self.overtaken && self.base.is_none() {
            // Otherwise the store is asked first.
            self.reply = Reply::Remove;
        }
    }

    pub(super) fn request_renewal(&mut self) {
        self.renews = true;
    }

    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    pub(super) fn discard(&mut self) -> Changes {
        self.discarded = true;
        self.wishes = Wishes::default();
        std::mem::take(&mut self.changes)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(super) fn is_settled(&self) -> bool {
        let wished = self.wishes.destroy || self.wishes.regenerate;
        !wished && !self.renews_now() && self.changes.is_empty() && self.pending.is_none()
    }

    fn renews_now(&self) -> bool {
        self.renewal_due && self.renews
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

    /// True if no key has a value, those of the crate included, but for bookkeeping.
    pub(super) fn is_empty(&self) -> bool {
        self.mentioned().filter(|key| !is_bookkeeping(key)).all(|key| self.get(key).is_none())
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

    pub(super) fn begin_commit(&mut self, answer: Disposition) -> Commit {
        let modified = !self.changes.is_empty();
        let wishes = std::mem::take(&mut self.wishes);
        let facts = Facts {
            stored: self.base.is_some(),
            changed: modified && !self.ended,
            empty: modified && self.is_empty(),
            cleared: self.changes.clears(),
            regenerate: wishes.regenerate,
            destroyed: wishes.destroy,
            renewal_due: self.renews_now(),
        };
        let outcome = facts.decide(answer);
        let only_destroyed = wishes.destroy && self.changes.keys().next().is_none();
        let dropped = match answer {
            _ if !modified || only_destroyed => None,
            _ if self.ended => Some(DropReason::SessionEnded),
            Disposition::Accept => None,
            Disposition::DropValues => Some(DropReason::ServerError),
            Disposition::NoCookie => Some(DropReason::Informational),
        };
        let recorded = std::mem::take(&mut self.changes);
        let changes = Arc::new(if answer == Disposition::Accept { recorded } else { Changes::default() });
        self.pending = Some(Pending { changes: Arc::clone(&changes), wishes });
        let must_finish = match outcome {
            Outcome::Destroy | Outcome::Regenerate => true,
            Outcome::Save => facts.empty,
            Outcome::Keep | Outcome::Touch => false,
        };
        Commit { outcome, base: self.base.clone(), changes, dropped, must_finish }
    }

    pub(super) fn end_commit(&mut self, result: Result<Committed, &Error>) {
        let pending = self.pending.take();
        let Ok(committed) = result else {
            if let Some(Pending { changes, wishes }) = pending.filter(|_| !self.discarded) {
                self.changes = changes.then(&self.changes);
                self.wishes.regenerate |= wishes.regenerate && !self.wishes.destroy;
                self.wishes.destroy |= wishes.destroy;
            }
            return;
        };
        let destroyed = pending.is_some_and(|pending| pending.wishes.destroy);
        self.ended_by_handler |= destroyed || matches!(committed, Committed::Removed);
        if self.changes.keys().next().is_some() {
            self.changes.outdate();
        }
        match committed {
            Committed::Kept => {}
            Committed::Stored { record, token, lifetime } => {
                self.reply = Reply::Set { token, lifetime };
                self.base = Some(record);
                self.renewal_due = false;
            }
            Committed::Removed => {
                self.reply = Reply::Remove;
                self.base = None;
            }
            Committed::Ended => {
                self.base = None;
                // Unless the handler has begun another session meanwhile.
                self.ended = !self.changes.restarts();
                // A token that an earlier save was given is dead, and may not overwrite one that is not.
                self.reply = Reply::Nothing;
            }
        }
    }
}
