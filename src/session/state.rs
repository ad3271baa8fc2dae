//! The state of a session between loading and committing: the stored record, the changes, the requests of the handler.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::changes::{Changes, Displaced, Lookup, UpdateStep};
use super::commit_table::{Decision, Disposition, Facts, Outcome, Standing, Weight};
use super::encoded_value::EncodedValue;
#[cfg(feature = "device-bound")]
use super::key::BINDING;
use super::key::{CSRF_SECRETS, LABELS, SUBJECT, is_bookkeeping};
use super::lineage::{Name, Position, labels_among, name_of_subject, no_labels, with_label};
use super::{Payload, Record, Saved, SessionId};
use crate::clock::Timestamp;
use crate::crypto::SecretText;
use crate::error::Error;
use crate::event::DropReason;

/// The state behind a [`Session`](super::Session).
#[allow(clippy::struct_excessive_bools)] // independent facts, not one state in disguise
pub(super) struct State {
    /// The record in the store.
    base: Option<Record>,
    /// The commit in progress.
    pending: Option<Pending>,
    /// The changes and requests of a commit that failed, until the next one.
    failed: Option<Box<Failed>>,
    /// The changes since then. `None` if there are none, as in most requests: then nothing is moved, or dropped.
    changes: Option<Arc<Changes>>,
    requested: Requested,
    /// The session that the request's token led to, if it does not get that.
    former: Former,
    /// The absolute timeout passed while the request was running.
    expired: bool,
    /// Another request ended the session, as far as this request knows. Changes are dropped, and nothing brings the session
    /// back.
    ended: bool,
    /// The response head was sent: reads still work, writes fail.
    closed: bool,
    /// The request has ended: nothing is committed after this.
    discarded: bool,
    /// A renewal failed. It is not attempted again in this request.
    renewal_failed: bool,
    reply: Reply,
    /// This stays if the handler then begins a new session.
    ended_by_handler: EndByHandler,
    /// The labels that the handler has set in this request, saved, discarded or not. They stay if it then logs in another user.
    labelled: Vec<Name>,
}

/// How the handler ended a session in this request, once the store has carried it out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum EndByHandler {
    No,
    /// It read the last flash value, and the session had no other value. Or it replaced the session of a visitor.
    Quietly,
    /// It asked for the end, or deleted more than flash values, or replaced the session of a subject.
    Logout,
}

/// A session that the request's token led to, and that it does not get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Former {
    /// None is known.
    None,
    /// It has another token since moments ago, or is bound to a device that may still show that it is there: the client has a
    /// cookie that is not ours to remove or to replace, unless the handler says so.
    Superseded,
    /// It is bound to a device, and the client can no longer show that it is on that: another session may begin.
    #[cfg_attr(not(feature = "device-bound"), allow(dead_code))]
    Lapsed,
    /// It has expired, or this host cannot judge it. A slow request that loaded it in time, or another host, may still keep it.
    Unusable,
}

/// The requests of a handler other than changes of values.
#[derive(Clone, Copy, Debug, Default)]
struct Requested {
    regenerate: bool,
    destroy: bool,
}

struct Pending {
    changes: Arc<Changes>,
    requested: Requested,
    outcome: Outcome,
}

/// The changes and requests of a commit that failed.
struct Failed {
    changes: Arc<Changes>,
    requested: Requested,
    /// The handler got the error, and answers for it: they are committed again only if it asks for that.
    acknowledged: bool,
}

impl Failed {
    fn is_nothing(&self) -> bool {
        self.changes.is_empty() && !self.requested.destroy && !self.requested.regenerate
    }

    /// Returns true if there are changes other than the end of the session.
    fn has_changes(&self) -> bool {
        let only_destroyed = self.requested.destroy && self.changes.keys().next().is_none();
        !self.changes.is_empty() && !only_destroyed
    }
}

/// Whether a session goes on from the session of a service inside of this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Continued {
    Yes {
        /// The session that this handler had saved before, if the client loses that.
        lost: Option<SessionId>,
    },
    /// No: what this handler has saved is stronger, and its reply replaces that of the other service.
    No,
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
#[derive(Default)]
pub(super) struct Leftovers {
    _changes: Option<Arc<Changes>>,
    _failed: Option<Box<Failed>>,
}

impl Leftovers {
    fn of(changes: Option<Arc<Changes>>) -> Self {
        Self { _changes: changes, _failed: None }
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
    /// Takes the closures that the log of changes no longer needs, to drop them after the state is unlocked.
    pub(super) fn take_displaced(&mut self) -> Displaced {
        // A log that is shared was not changed under this lock.
        self.changes.as_mut().and_then(Arc::get_mut).map(Changes::take_displaced).unwrap_or_default()
    }

    pub(super) fn new(base: Option<Record>, former: Former, reply: Reply) -> Self {
        Self {
            base,
            pending: None,
            failed: None,
            changes: None,
            requested: Requested::default(),
            former,
            expired: false,
            ended: former == Former::Superseded,
            closed: false,
            discarded: false,
            renewal_failed: false,
            reply,
            ended_by_handler: EndByHandler::No,
            labelled: Vec::new(),
        }
    }

    pub(super) fn put(&mut self, key: &str, value: Option<Bytes>) {
        self.retry_if_of_key(key);
        let mut below = below(self.pending.as_ref(), self.base.as_ref(), key);
        // A value that a failed save was to delete reads as absent. Setting it is a change, and so is deleting it.
        if value.is_some() && self.reads_as_cleared() {
            below = Value::Absent;
        }
        log(&mut self.changes).put(key, value, below.as_slice());
    }

    pub(super) fn update(&mut self, key: &str, step: UpdateStep, value: Bytes) {
        self.retry_if_of_key(key);
        let below = below(self.pending.as_ref(), self.base.as_ref(), key);
        // `value` was computed without the values that a failed save was to delete, so it is a change in any case.
        let below = if self.reads_as_cleared() { Value::Absent } else { below };
        log(&mut self.changes).update(key, step, value, below.as_slice());
    }

    /// Binds the session to the device that `step` stores.
    #[cfg(feature = "device-bound")]
    pub(super) fn bind_device(&mut self, step: UpdateStep, value: Bytes) {
        self.update(BINDING, step, value);
        log(&mut self.changes).bind_device();
    }

    /// Records `value`, or a deletion, whatever is there: newer values must not lack it.
    pub(super) fn force(&mut self, key: &str, value: Option<Bytes>) {
        self.retry_if_of_key(key);
        log(&mut self.changes).force(key, value);
    }

    /// Takes the changes of a failed save back into the log before `key` is changed, if one of them is of that key: the
    /// handler corrects what failed, for example by deleting the value that was too large. A change of another key (a flash
    /// value that reports the failure) does not repeat them. Nor does the token of a form on the page that reports it, although a
    /// login has deleted the secrets of earlier forms.
    fn retry_if_of_key(&mut self, key: &str) {
        let is_of_key = |failed: &Failed| key != CSRF_SECRETS && failed.changes.has_entry(key);
        if self.failed.as_ref().is_some_and(|failed| !failed.acknowledged || is_of_key(failed)) {
            self.retry_failed();
        }
    }

    /// Returns true if the value of `key` is one of a failed save, and is stored only if the handler asks for it again.
    pub(super) fn has_lost(&self, key: &str) -> bool {
        let is_changed = |changes: &Arc<Changes>| changes.has_entry(key);
        let is_lost = |failed: &Failed| failed.acknowledged && failed.changes.has_entry(key);
        self.failed.as_deref().is_some_and(is_lost) && !self.changes.as_ref().is_some_and(is_changed)
    }

    /// Returns true if a failed save was to delete the values that are still stored.
    fn reads_as_cleared(&self) -> bool {
        self.failed.as_ref().is_some_and(|failed| failed.changes.clears())
    }

    fn retry_failed(&mut self) {
        if let Some(failed) = self.failed.take() {
            let Failed { changes, requested, .. } = *failed;
            match &mut self.changes {
                None => self.changes = Some(changes),
                Some(later) => Arc::make_mut(later).follow(Arc::unwrap_or_clone(changes)),
            }
            self.requested.regenerate |= requested.regenerate && !self.requested.destroy;
            self.requested.destroy |= requested.destroy;
        }
    }

    /// Deletes all values. A label is not a value, and stays.
    pub(super) fn clear(&mut self) {
        if self.known_keys().next().is_some() {
            self.retry_failed();
            let labels = self.get(LABELS).map(Bytes::copy_from_slice);
            log(&mut self.changes).clear();
            if labels.is_some() {
                self.put(LABELS, labels);
            }
        }
    }

    /// Adds a label, instead of the label of the same namespace if there is one.
    pub(super) fn label(&mut self, name: Name) -> Result<(), Error> {
        let labels = with_label(self.get(LABELS), name)?;
        self.put(LABELS, Some(labels));
        if !self.labelled.contains(&name) {
            self.labelled.push(name);
        }
        Ok(())
    }

    /// Binds the session to `subject`.
    pub(super) fn login(&mut self, subject: Bytes, position: Option<Position>) -> Result<(), Error> {
        let of_another = self.get(SUBJECT).is_some_and(|present| *present != *subject);
        if of_another || self.get(LABELS).is_some() && self.belonged_to_another(&subject) {
            // A label that the handler has set before it calls this is meant for the session of the login.
            let mut labels = labels_among(self.get(LABELS), &self.labelled)?;
            if of_another {
                let labelled = std::mem::take(&mut self.labelled);
                self.destroy();
                self.labelled = labelled;
            } else if labels.is_none() {
                // `clear` has deleted the subject, and kept its labels. An empty list replaces theirs in the store.
                labels = Some(no_labels()?);
            }
            if labels.is_some() {
                self.put(LABELS, labels);
            }
        }
        self.retry_if_of_key(SUBJECT);
        let changes = log(&mut self.changes);
        changes.login(subject);
        changes.set_login_position(position);
        self.regenerate();
        Ok(())
    }

    /// Returns true if the last login of the stored session was that of another subject.
    fn belonged_to_another(&self, subject: &[u8]) -> bool {
        let owner = self.base.as_ref().and_then(|base| base.payload().lineage().owner);
        owner.is_some() && owner != name_of_subject(subject)
    }

    /// Notes that the subject was authenticated again: a new token, and the absolute timeout begins again.
    pub(super) fn reauthenticate(&mut self) {
        log(&mut self.changes).reauthenticate();
        self.regenerate();
    }

    pub(super) fn regenerate(&mut self) {
        self.requested.regenerate = true;
    }

    /// Notes that the other sessions of the subject end with the next save, which gives this one a new token.
    pub(super) fn end_others(&mut self) {
        log(&mut self.changes).end_others();
        self.regenerate();
    }

    pub(super) fn destroy(&mut self) {
        self.retry_failed();
        log(&mut self.changes).restart();
        self.labelled.clear();
        self.requested = Requested { destroy: true, regenerate: false };
    }

    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Drops the changes and requests since the last save. The caller must drop the returned value after unlocking.
    pub(super) fn forget_changes(&mut self) -> Leftovers {
        self.requested = Requested::default();
        Leftovers { _failed: self.failed.take(), _changes: self.changes.take() }
    }

    /// Works as [`forget_changes`](Self::forget_changes), for good: a commit that fails does not bring the changes back.
    pub(super) fn discard(&mut self) -> Leftovers {
        self.discarded = true;
        self.forget_changes()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Returns true if the client has, or is about to get, a better cookie than that of the request.
    fn is_overtaken(&self) -> bool {
        self.former == Former::Superseded
    }

    /// Returns true if another request ended the session, and this request has not begun a new one since.
    fn is_ended(&self) -> bool {
        let begins_another =
            self.restarts() || self.requested.regenerate && (self.is_overtaken() || self.expired);
        self.ended && !begins_another
    }

    /// Returns true if the reply is the token of an earlier save.
    pub(super) fn has_token(&self) -> bool {
        matches!(self.reply, Reply::Set { .. })
    }

    /// Returns true if there is nothing to commit.
    pub(super) fn is_settled(&self, standing: impl FnOnce(&Record) -> Standing) -> bool {
        let renewal_due = || self.base.as_ref().is_some_and(|base| self.renewal_due(standing(base)));
        self.has_nothing_to_save() && !renewal_due()
    }

    /// Returns true if no change and no request of the handler waits to be saved.
    pub(super) fn has_nothing_to_save(&self) -> bool {
        let requested = self.requested.destroy || self.requested.regenerate;
        let none_open =
            self.pending.is_none() && self.failed.as_ref().is_none_or(|failed| failed.is_nothing());
        !requested && !self.is_modified() && none_open
    }

    /// Returns true if applying the changes would change a value.
    fn is_modified(&self) -> bool {
        self.changes.as_ref().is_some_and(|changes| !changes.is_empty())
    }

    /// Returns true if the session is to be renewed. A token that an earlier save returned is renewed, too, if it has
    /// expired by now, so that the response does not set a dead cookie.
    fn renewal_due(&self, standing: Standing) -> bool {
        let expired = standing.expired && self.has_token();
        !self.renewal_failed && !standing.absolute_passed && (standing.renewal_due || expired)
    }

    pub(super) fn base(&self) -> Option<&Record> {
        self.base.as_ref()
    }

    pub(super) fn was_ended_by_handler(&self) -> bool {
        self.ended_by_handler != EndByHandler::No
    }

    pub(super) fn was_logged_out(&self) -> bool {
        self.ended_by_handler == EndByHandler::Logout
    }

    /// Takes the reply that the response has to carry.
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
            Lookup::Unchanged => match self.failed.as_ref().map(|failed| failed.changes.get(key)) {
                Some(Lookup::Value(value)) => Value::Changed(value),
                Some(Lookup::Absent) => Value::Absent,
                Some(Lookup::Unchanged) | None => below(self.pending.as_ref(), self.base.as_ref(), key),
            },
        }
    }

    /// Returns true if no key has a value, those of the crate included, but for bookkeeping.
    pub(super) fn is_empty(&self) -> bool {
        self.known_keys().filter(|key| !is_bookkeeping(key.as_bytes())).all(|key| self.get(key).is_none())
    }

    /// Returns the keys that have a value, including reserved keys.
    pub(super) fn keys(&self) -> BTreeSet<String> {
        self.known_keys().filter(|key| self.get(key).is_some()).map(str::to_owned).collect()
    }

    /// Returns every key in the record, the commit or the changes, with or without a value. Keys may be repeated.
    fn known_keys(&self) -> impl Iterator<Item = &str> {
        // The changes come first: the first value that is found shows that a session is not empty.
        let changes = self.changes.iter().flat_map(|changes| changes.keys());
        let pending = self.pending.iter().flat_map(|pending| pending.changes.keys());
        let failed = self.failed.iter().flat_map(|failed| failed.changes.keys());
        let stored = self.base.iter().flat_map(|base| base.payload().iter()).map(|(key, _)| key);
        changes.chain(failed).chain(pending).chain(stored)
    }

    /// Decides what to commit. `last` is true at the end of the request. The changes of a save whose failure the handler got as
    /// an error are not tried again then, because the handler has decided on the response. They are tried
    /// again if a later login, for example, [needs them](Changes::is_needed_by).
    pub(super) fn begin_commit(
        &mut self,
        answer: Disposition,
        last: bool,
        standing: impl FnOnce(&Record) -> Standing,
    ) -> (Decision, Leftovers) {
        let later = self.changes.as_deref();
        let is_given_up = |failed: &Failed| {
            failed.acknowledged && !later.is_some_and(|later| failed.changes.is_needed_by(later))
        };
        let acknowledged = if last { self.failed.take_if(|failed| is_given_up(failed)) } else { None };
        self.retry_failed();
        if acknowledged.is_some() {
            self.outdate();
        }
        self.begin_visitors_session();
        let (modified, ended) = (self.is_modified(), self.is_ended());
        let standing = self.base.as_ref().map(standing);
        let renewal_due = standing.is_some_and(|standing| self.renewal_due(standing));
        let empty = modified && self.is_empty();
        let requested = std::mem::take(&mut self.requested);
        let facts = Facts {
            stored: self.base.is_some(),
            changed: modified && !ended,
            empty,
            cleared: self.changes.as_ref().is_some_and(|changes| changes.clears()),
            regenerate: requested.regenerate || answer == Disposition::Accept && self.restarts(),
            login: self.changes.as_ref().is_some_and(|changes| changes.begins_anew()),
            destroyed: requested.destroy,
            absolute_passed: standing.is_some_and(|standing| standing.absolute_passed),
            renewal_due,
        };
        let outcome = facts.decide(answer);
        let not_saved = acknowledged.as_ref().is_some_and(|failed| failed.has_changes());
        let dropped = self.dropped(answer, outcome, requested, ended, not_saved);
        let recorded = self.changes.take();
        let accepted = answer == Disposition::Accept && outcome != Outcome::Expire;
        let (changes, refused) = if accepted { (recorded, None) } else { (None, recorded) };
        let changes = changes.unwrap_or_default();
        self.pending = Some(Pending { changes: Arc::clone(&changes), requested, outcome });
        let ends_former = self.base.is_none()
            && (requested.destroy && self.former != Former::None
                || changes.logs_in() && matches!(self.former, Former::Superseded | Former::Lapsed));
        let must_finish = match outcome {
            _ if ends_former => true,
            Outcome::Destroy | Outcome::Regenerate => true,
            Outcome::Save => facts.empty,
            Outcome::Keep | Outcome::Renew | Outcome::Expire => false,
        };
        let commit =
            Decision { outcome, base: self.base.clone(), changes, dropped, ends_former, must_finish };
        (commit, Leftovers { _failed: acknowledged, _changes: refused })
    }

    /// Makes a log that clears the session of a subject, or one with a lifetime of its own, begin a new session. Otherwise the rest
    /// would go on from the beginning of that session, and might be older than a visitor's session may be. And its token, also in a
    /// copied cookie, would still lead to it.
    fn begin_visitors_session(&mut self) {
        let (Some(base), Some(changes)) = (&self.base, &mut self.changes) else { return };
        if !changes.clears() || changes.restarts() || changes.logs_in() {
            return;
        }
        let payload = base.payload();
        if payload.has_subject() || payload.has_lifetime() {
            Arc::make_mut(changes).begin_visitors_session(payload);
        }
    }

    /// Returns true if the log begins a new session.
    fn restarts(&self) -> bool {
        self.changes.as_ref().is_some_and(|changes| changes.restarts())
    }

    /// Returns why this commit drops changes or requests of the handler. `None` if it drops nothing. `ended` is true if another
    /// request ended the session, and `not_saved` if changes of an earlier save are given up.
    fn dropped(
        &self,
        answer: Disposition,
        outcome: Outcome,
        requested: Requested,
        ended: bool,
        not_saved: bool,
    ) -> Option<DropReason> {
        let only_destroyed = requested.destroy && !self.has_entries();
        // The session is stored and goes on, but under the old token.
        let keeps_token =
            requested.regenerate && self.base.is_some() && matches!(outcome, Outcome::Keep | Outcome::Expire);
        let not_saved = not_saved.then_some(DropReason::SaveFailed);
        match answer {
            // The cookie still leads to the session.
            Disposition::Unreachable if requested.destroy => Some(DropReason::Informational),
            _ if (!self.is_modified() || only_destroyed) && !keeps_token => not_saved,
            _ if ended || outcome == Outcome::Expire => Some(DropReason::SessionEnded),
            Disposition::Accept => not_saved,
            Disposition::DropValues => Some(DropReason::ServerError),
            Disposition::NoCookie | Disposition::Unreachable => Some(DropReason::Informational),
        }
    }

    /// Returns true if the log has an entry for any key.
    fn has_entries(&self) -> bool {
        self.changes.as_ref().is_some_and(|changes| changes.keys().next().is_some())
    }

    /// Notes that the values below the changes are newer than the values that the changes were made on.
    fn outdate(&mut self) {
        if let Some(changes) = &mut self.changes {
            Arc::make_mut(changes).outdate();
        }
    }

    /// Continues from `record`, whose token the response sets. `came` is the session that came with the request, and
    /// `accepts` is true if changes of values count.
    pub(super) fn go_on_from(&mut self, record: Record, came: Option<SessionId>, accepts: bool) -> Continued {
        let is_same = self.base.as_ref().is_some_and(|base| base.id() == record.id());
        // An ending that the store has carried out is stronger than all that the other service said. Later changes of
        // the handler are made to the other session.
        let has_ended = matches!(self.reply, Reply::Remove { weight: Weight::End });
        if has_ended && !self.asks_for_more(accepts) || !is_same && !self.yields() {
            return Continued::No;
        }
        let lost = self.give_up_token(if is_same { Some(record.id()) } else { came });
        self.base = Some(record);
        self.ended = false;
        self.outdate();
        Continued::Yes { lost }
    }

    /// Returns true if the handler asked for more than it has saved.
    fn asks_for_more(&self, accepts: bool) -> bool {
        let unsaved = self.failed.as_ref().is_some_and(|failed| !failed.acknowledged);
        unsaved || self.requested.destroy || self.requested.regenerate || accepts && self.is_modified()
    }

    /// Returns true if what this handler has saved yields to a session of another service. A login does not.
    fn yields(&self) -> bool {
        !matches!(self.reply, Reply::Set { weight, .. } if weight > Weight::Change)
    }

    /// Gives up the token of an earlier save, because the response has another token. Returns its session if the client loses by
    /// that what was saved: the values are in the cookie, or the session is not the `known` one.
    fn give_up_token(&mut self, known: Option<SessionId>) -> Option<SessionId> {
        let saved = self.base.as_ref().filter(|_| self.has_token());
        let lost = saved.filter(|base| base.is_in_cookie() || Some(base.id()) != known).map(Record::id);
        if self.has_token() {
            self.reply = Reply::Nothing;
        }
        lost
    }

    /// Works as [`go_on_from`](Self::go_on_from), if the store could not look up the record.
    pub(super) fn go_on_from_unknown(&mut self, came: Option<SessionId>) -> Option<SessionId> {
        if self.yields() { self.give_up_token(came) } else { None }
    }

    /// Ends the session, because the response removes its cookie: `by_service` if a session service inside of this one said so.
    /// Otherwise it may be a line of the handler. Returns true if changes of this handler are dropped by that.
    pub(super) fn end_by_response(&mut self, by_service: bool) -> (bool, Leftovers) {
        // The inner service did not end a session that this handler has begun since.
        let began_another = self.was_ended_by_handler() || self.expired;
        if self.base.is_none() || began_another {
            return (false, Leftovers::default());
        }
        let had_token = self.has_token();
        // The token of an earlier save yields to that, whatever becomes of the rest.
        self.reply = Reply::Nothing;
        // If the handler ends the session, too, the store ends it.
        if self.requested.destroy {
            return (false, Leftovers::default());
        }
        let drops = self.is_modified() || self.requested.regenerate || !by_service && had_token;
        self.base = None;
        self.ended = true;
        self.requested = Requested::default();
        (drops, Leftovers::of(self.changes.take()))
    }

    /// Notes that the commit failed: all that it was to do remains to be done.
    pub(super) fn commit_failed(&mut self) -> Leftovers {
        let Some(Pending { changes, requested, outcome }) = self.pending.take() else {
            return Leftovers::default();
        };
        self.renewal_failed |= outcome == Outcome::Renew;
        if self.discarded {
            return Leftovers::of(Some(changes));
        }
        self.failed = Some(Box::new(Failed { changes, requested, acknowledged: false }));
        Leftovers::default()
    }

    /// Notes that the handler got the error of the commit that failed. It is not tried again unless the handler asks for it.
    pub(super) fn failure_was_told(&mut self) {
        if let Some(failed) = &mut self.failed {
            failed.acknowledged = true;
        }
    }

    /// Notes that the commit succeeded. `saved` is the result of the store, if it was called.
    pub(super) fn commit_done(&mut self, saved: Option<Saved>) -> Leftovers {
        let Some(done) = self.pending.take() else { return Leftovers::default() };
        let asks_for_token = done.requested.regenerate;
        // A new session whose lifetime has passed already, for example. The client has no cookie of it.
        let is_stillborn = self.base.is_none() && !done.requested.destroy && !self.is_overtaken();
        if let Some(end) = self.end_by(&done, saved.as_ref()).filter(|_| !is_stillborn) {
            self.ended_by_handler = self.ended_by_handler.max(end);
            self.ended = false; // a later change begins another session
        }
        // The handler asked for another session, which is stored with its first value: that may come after this commit.
        let begins_another = asks_for_token && self.base.is_none() && (self.is_overtaken() || self.expired);
        self.ended &= !begins_another;
        self.outdate();
        match saved {
            None if done.outcome == Outcome::Expire => {
                self.base = None;
                self.expired = true;
                self.ended = true;
                // The browser may have the cookie of a login that came meanwhile.
                self.reply = Reply::Nothing;
            }
            None => {}
            Some(Saved::Stored { record, token, .. }) => {
                let said = match self.reply {
                    Reply::Set { weight, .. } => weight,
                    _ => Weight::DeadCookie,
                };
                // A login of a visitor without a session is a save, too.
                let asked = if asks_for_token { Weight::Login } else { Weight::DeadCookie };
                let (expires, weight) = (record.expires(), done.outcome.weight().max(said).max(asked));
                self.reply = Reply::Set { token, expires, weight };
                self.base = Some(record);
                self.ended = false;
            }
            Some(Saved::Removed) if is_stillborn => {}
            Some(Saved::Removed) => {
                self.reply = Reply::Remove { weight: Weight::End };
                self.base = None;
            }
            Some(Saved::Ended) => {
                self.base = None;
                self.ended = true;
                // The token from an earlier save is dead, and must not overwrite a live one. A session that the handler ended
                // before stays ended.
                if self.has_token() {
                    self.reply = Reply::Nothing;
                }
            }
        }
        Leftovers::of(Some(done.changes))
    }

    /// Returns how the handler has ended the session, if it did so by the commit `done`, of which the store's result is `saved`.
    fn end_by(&self, done: &Pending, saved: Option<&Saved>) -> Option<EndByHandler> {
        let former = self.base.as_ref().map(Record::payload);
        let is_logout = match saved {
            _ if done.requested.destroy => true,
            // `clear` ended the session, and another began. A visitor whose values were replaced goes on as a visitor.
            Some(Saved::Stored { .. }) if done.outcome == Outcome::Regenerate && done.changes.restarts() => {
                former.is_some_and(Payload::has_subject)
            }
            Some(Saved::Removed) => done.changes.clears() || former.is_some_and(Payload::has_lasting_values),
            _ => return None,
        };
        Some(if is_logout { EndByHandler::Logout } else { EndByHandler::Quietly })
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
