//! Saving a session: creating, replacing and renewing its entry, and merging with the changes of other requests.

use std::sync::Arc;

use bytes::Bytes;

use super::conflict_queue::Conflicts;
use super::format::EntryValue;
use super::stored_list::Known;
use super::{
    Expected, Inner, Predecessor, SaveAttempt, ended_or_stored, entry_of_record, entry_of_token, seen,
    session_id, stored, token_of,
};
use crate::clock::Timestamp;
use crate::error::{Error, Kind};
use crate::id::EntryId;
use crate::session::{Changes, EntryLifetime, Origin, Payload, Recency, Record, Saved};
use crate::store::{Backend, Replaced, Stored};

/// A session that was just stored.
pub(super) struct Begun {
    pub(super) record: Record,
    /// The list of its subject, which it is on.
    pub(super) known: Option<Known>,
}

impl<B: Backend> Inner<B> {
    /// Returns true if moving only the entry's deadline would leave a false lifetime in it.
    fn has_other_lifetime(&self, base: &Record, now: Timestamp) -> bool {
        let Origin::Stored { value, lifetime, .. } = base.origin() else { return false };
        let lifetime = match *lifetime {
            EntryLifetime::Decoded(lifetime) => lifetime,
            EntryLifetime::NotDecoded => match self.format.decode(entry_of_record(base), value) {
                Some(EntryValue::Session(age, _)) => age.lifetime,
                _ => None,
            },
        };
        let Some(lifetime) = lifetime else { return false };
        self.config.deadline(base.created(), base.payload(), now).saturating_since(now) != lifetime
    }

    /// Encodes an entry of these values, which came from the stored value `from`, if there is one. `written` is a
    /// [`Recency::after`] what it replaces.
    fn encode(
        &self,
        id: EntryId,
        created: Timestamp,
        payload: &Payload,
        from: Option<&Bytes>,
        written: Recency,
        now: Timestamp,
    ) -> Result<Stored, Error> {
        let value = self.format.encode_session(id, created, payload, from, written, now)?;
        Ok(Stored { value, expires: self.config.deadline(created, payload, now) })
    }

    /// [Begins](Self::begin) a session that replaces none. Returns `None` if the subject's sessions were ended meanwhile.
    pub(super) async fn create(
        self: &Arc<Self>,
        payload: Payload,
        after: Option<Recency>,
        now: Timestamp,
    ) -> Result<Option<Record>, Error> {
        let Some(Begun { record, known }) = self.begin(now, payload, after, None, None, now).await? else {
            return Ok(None);
        };
        if let Some(known) = known {
            self.end_surplus(&record, known, None, now).await;
        }
        Ok(Some(record))
    }

    /// Stores a new session, under a new token. A session of a subject is first entered in the subject's session list,
    /// so that a call that ends all of them finds it. It counts only if it is still on the list afterwards. The session is newer
    /// than `after`. `instead_of` is the session that it is about to replace, `from` the stored value that its values came
    /// from. Returns `None` if the subject's sessions were ended meanwhile.
    pub(super) async fn begin(
        self: &Arc<Self>,
        created: Timestamp,
        payload: Payload,
        after: Option<Recency>,
        instead_of: Option<Predecessor>,
        from: Option<&Bytes>,
        now: Timestamp,
    ) -> Result<Option<Begun>, Error> {
        let subject = self.listed_subject(&payload);
        let written = Recency::after(after, now);
        // Of 2^128 ids, a second round has never been observed; a third would mean a broken generator.
        for _ in 0..3 {
            let token = self.format.generate_token(&self.name)?;
            let id = session_id(&token);
            let key = entry_of_token(&token);
            let entry = self.encode(key, created, &payload, from, written, now)?;
            // A login that cannot be stored must not take a place on the list.
            if subject.is_some() {
                self.backend.__check_len(entry.value.len())?;
            }
            let until = self.config.latest_deadline(created);
            let storing = async {
                if let Some(subject) = &subject {
                    if !self.enter(subject, id, instead_of, until, now).await? {
                        return Ok(None);
                    }
                }
                self.backend.create(key, entry.clone(), now).await.map(Some)
            };
            let is_stored = match (storing.await, &subject) {
                (Ok(None), _) => return Ok(None),
                (Ok(Some(is_stored)), _) => is_stored,
                (Err(error), Some(subject)) if error.is_unavailable() => {
                    self.give_up(subject.clone(), id, key, now).await;
                    return Err(error);
                }
                (Err(error), _) => return Err(error),
            };
            if is_stored {
                let Stored { value, expires } = entry;
                let origin =
                    Origin::Stored { token, value, deadline: expires, lifetime: EntryLifetime::NotDecoded };
                let record = Record::written(id, created, expires, payload, origin, written);
                let Some(subject) = &subject else {
                    return Ok(Some(Begun { record, known: None }));
                };
                return match self.known(subject, now).await {
                    Ok(known) if known.list.has(id) => Ok(Some(Begun { record, known: Some(known) })),
                    Ok(_) => self.backend.delete(key).await.map(|()| None),
                    Err(error) => {
                        self.withdraw(record, now).await;
                        Err(error)
                    }
                };
            }
        }
        Err(Error::new(Kind::Random))
    }

    pub(super) async fn save(
        self: &Arc<Self>,
        base: Option<Record>,
        changes: &Changes,
        now: Timestamp,
    ) -> Result<Saved, Error> {
        let Some(base) = base else {
            let payload = changes.apply(None)?;
            if payload.is_empty() {
                return Ok(Saved::Removed);
            }
            let mut created = Box::pin(self.create(payload.clone(), changes.after(), now)).await?;
            if created.is_none() && changes.logs_in() {
                // The sessions of its user were ended meanwhile, or their list was lost: it happens after that.
                created = Box::pin(self.create(payload, changes.after(), now)).await?;
            }
            return ended_or_stored(created);
        };
        if changes.is_empty() && !self.has_other_lifetime(&base, now) {
            return Box::pin(self.renew(base, now)).await;
        }
        let mut expected = Expected::of(&base)?;
        let mut payload = changes.apply(Some(base.payload()))?;
        let mut subject = self.subject_to_look_up(&base, now);
        let mut conflicts = Conflicts::new(self.queues.of(base.id()), &*self.backend);
        loop {
            let from = expected.entry.value.clone();
            let replacing = self.replace(&base, expected, payload, &from, now, conflicts.count());
            let step = match subject.take() {
                None => replacing.await?,
                Some(subject) => {
                    let of = subject.clone();
                    let is_listed = |attempt: &SaveAttempt| match attempt {
                        SaveAttempt::Done(Saved::Stored { record, .. }) => {
                            self.listed_subject(record.payload()).is_some_and(|subject| subject == of)
                        }
                        _ => false,
                    };
                    Box::pin(self.beside_the_list(subject, &base, replacing, is_listed, now)).await?
                }
            };
            match step {
                SaveAttempt::Done(saved) => return Ok(saved),
                SaveAttempt::Conflict(current, newer) => {
                    payload = changes.replay(Some(&current))?;
                    expected = newer;
                    conflicts.next().await?;
                }
            }
        }
    }

    /// Returns the subject whose session list a write of `base` looks up, as a renewal does. If only listed sessions
    /// count, a session that is not listed was ended.
    fn subject_to_look_up(&self, base: &Record, now: Timestamp) -> Option<String> {
        if self.list_memo.is_some() || !self.config.is_first_write_of_span(base, now) {
            return None;
        }
        self.listed_subject(base.payload())
    }

    /// Replaces `expected` by `payload`, which came from the stored value `from`. Deletes the entry if no value is
    /// left.
    pub(super) async fn replace(
        &self,
        base: &Record,
        expected: Expected,
        payload: Payload,
        from: &Bytes,
        now: Timestamp,
        conflicts: u32,
    ) -> Result<SaveAttempt, Error> {
        let token = token_of(base)?.clone();
        let written = Recency::after(Some(expected.written), now);
        let entry = if self.config.leaves_nothing(base.created(), &payload, now) {
            None
        } else {
            Some(self.encode(entry_of_token(&token), base.created(), &payload, Some(from), written, now)?)
        };
        let outcome =
            self.backend.exchange(entry_of_token(&token), expected.entry, entry.clone(), now).await?;
        Ok(match (outcome, entry) {
            (Replaced::Missing, _) => SaveAttempt::Done(Saved::Ended),
            (Replaced::Conflict(current), _) => {
                match self.format.decode(entry_of_record(base), &current.value) {
                    Some(EntryValue::Session(age, payload)) => {
                        let written = age.written.unwrap_or(expected.written);
                        SaveAttempt::Conflict(payload, Expected { entry: current, written })
                    }
                    // The session continues under another token, or a foreign writer overwrote it. In both cases it has
                    // ended here.
                    _ => SaveAttempt::Done(Saved::Ended),
                }
            }
            (Replaced::Done, None) => SaveAttempt::Done(Saved::Removed),
            (Replaced::Done, Some(Stored { value, expires })) => {
                let origin =
                    Origin::Stored { token, value, deadline: expires, lifetime: EntryLifetime::NotDecoded };
                let record = Record::written(base.id(), base.created(), expires, payload, origin, written);
                SaveAttempt::Done(stored(record, conflicts)?)
            }
        })
    }

    /// Renews the session: the same value with a later deadline, in one step. If the session is missing from its
    /// subject's list (evicted or lost), it is entered again.
    async fn renew(self: &Arc<Self>, base: Record, now: Timestamp) -> Result<Saved, Error> {
        let seen = seen(&base)?;
        let expires = self.config.deadline(base.created(), base.payload(), now);
        let renewing = self.backend.renew(entry_of_record(&base), seen, expires, now);
        // If only listed sessions count, a session that is not listed was ended.
        let subject = if self.list_memo.is_none() { self.listed_subject(base.payload()) } else { None };
        let outcome = match subject {
            None => renewing.await?,
            Some(subject) => {
                let is_listed = |outcome: &Replaced| *outcome == Replaced::Done;
                self.beside_the_list(subject, &base, renewing, is_listed, now).await?
            }
        };
        match outcome {
            Replaced::Done => stored(base.until(expires), 0),
            Replaced::Missing => Ok(Saved::Ended),
            // Another request wrote the session, and so renewed it, or gave the browser another token. In that case
            // this response must not remove the new cookie.
            Replaced::Conflict(present) => {
                let own = match self.format.decode(entry_of_record(&base), &present.value) {
                    Some(EntryValue::Session(age, payload)) => {
                        let created = age.created.unwrap_or(base.created());
                        Some(self.config.deadline(created, &payload, now))
                    }
                    Some(EntryValue::Tombstone(_)) => None,
                    _ => return Ok(Saved::Ended),
                };
                let mut deadline = present.expires;
                if deadline == expires {
                    // The backend moved its deadline, too. A tombstone must not last as long as a session, nor a session as long as
                    // it would have by the lifetime that this request loaded.
                    deadline = own.unwrap_or_else(|| self.tombstone_expires(now));
                    if deadline != expires {
                        let corrected = self.backend.touch(entry_of_record(&base), deadline, now).await;
                        // That the session ended is known without it.
                        if own.is_some() {
                            corrected?;
                        }
                    }
                }
                if own.is_some() { stored(base.until(deadline.min(expires)), 0) } else { Ok(Saved::Ended) }
            }
        }
    }
}
