//! Giving a session another token: first the new entry is written, then the old one is replaced by a tombstone.

use std::sync::Arc;

use super::conflict_queue::Conflicts;
use super::end::{LastRead, Leaves};
use super::format::EntryValue;
use super::{Expected, Inner, Predecessor, SaveAttempt, ended_or_stored, entry_of_record, seen, stored};
use crate::clock::Timestamp;
use crate::error::Error;
use crate::id::EntryId;
use crate::session::{Changes, Payload, Record, SUPERSEDED_FOR, Saved, SessionId};
use crate::store::{Backend, Replaced, Stored};

impl<B: Backend> Inner<B> {
    /// Writes the new entry, then replaces the old one if it is unchanged. If it changed meanwhile, the new entry takes
    /// in the change first. If it is missing, the session was ended, and the new entry is deleted, too.
    pub(super) async fn regenerate(
        self: &Arc<Self>,
        base: Record,
        changes: &Changes,
        now: Timestamp,
    ) -> Result<Saved, Error> {
        for _ in 0..2 {
            match self.move_or_withdraw(&base, changes, now).await {
                // A login does not depend on the session that it came with. It tries again, because only the new session's place on the
                // list may have been lost.
                Ok(Saved::Ended) if changes.logs_in() => {}
                moved => return moved,
            }
        }
        self.log_in_anew(&base, changes, now).await
    }

    async fn move_or_withdraw(
        self: &Arc<Self>,
        base: &Record,
        changes: &Changes,
        now: Timestamp,
    ) -> Result<Saved, Error> {
        let mut new = None;
        let result = self.move_to_new(base, changes, now, &mut new).await;
        // An entry whose token no client has is useless.
        if let Some(new) = new.filter(|_| !matches!(result, Ok(Saved::Stored { .. }))) {
            if !result.as_ref().is_err_and(Error::is_unavailable) {
                // If that fails, the entry's deadline removes it. The result reports what happened to the session.
                let _ = self.end_for_good(&new, now).await;
            } else if self.listed_subject(new.payload()).is_some() {
                self.withdraw(new, now).await;
            }
        }
        result
    }

    /// Begins a session for a login whose session `base` has ended, or has another token by now. It has no values of `base`, as if the
    /// browser had brought no session: the user has authenticated.
    async fn log_in_anew(
        self: &Arc<Self>,
        base: &Record,
        changes: &Changes,
        now: Timestamp,
    ) -> Result<Saved, Error> {
        let payload = changes.replay(None)?;
        let begun = self.create(payload, Some(base.recency()), now).await?;
        if begun.is_some() {
            // Where another call is ending it, it may be there still. The browser no longer has its token.
            let _ = self.supersede(base, now).await;
        }
        ended_or_stored(begun)
    }

    /// Ends a session whose token no client has, without waiting long for it: it takes a place on its subject's list. If it fails, the
    /// deadline of the entry ends it.
    pub(super) async fn withdraw(self: &Arc<Self>, record: Record, now: Timestamp) {
        let inner = Arc::clone(self);
        let ending = async move { drop(inner.end_for_good(&record, now).await) };
        self.finish_soon(ending).await;
    }

    async fn move_to_new(
        self: &Arc<Self>,
        base: &Record,
        changes: &Changes,
        now: Timestamp,
        new: &mut Option<Record>,
    ) -> Result<Saved, Error> {
        if changes.restarts() {
            return self.start_over(base, changes, now, new).await;
        }
        let mut expected = Expected::of(base)?;
        let mut payload = changes.apply(Some(base.payload()))?;
        // The absolute timeout begins anew when a user authenticates (NIST SP 800-63B-4 section 5.2).
        let created = changes.beginning(base, now);
        let mut conflicts = Conflicts::new(self.queues.of(base.id()), &*self.backend);
        let is_login = changes.logs_in();
        let mut known = None;
        loop {
            let keeps_subject = base.payload().subject() == payload.subject();
            // Where only listed sessions count, one that is not listed has ended. Unless the user has just authenticated.
            let must_be_listed = self.list_memo.is_some() && !changes.begins_anew() && keeps_subject;
            if !self.rewrite(new, &payload, &expected, now).await?
                && !self.config.leaves_nothing(created, &payload, now)
            {
                // At the session limit this may end another session, and wait for a permit of that one.
                conflicts.release();
                let predecessor = Predecessor { id: base.id(), must_be_listed, is_login };
                let (after, from) = (Some(expected.written), &expected.entry.value);
                let Some(begun) =
                    self.begin(created, payload, after, Some(predecessor), Some(from), now).await?
                else {
                    return Ok(Saved::Ended);
                };
                (*new, known) = (Some(begun.record), begun.known);
            }
            // If no value is left, there is no new entry, and the old one is deleted without a tombstone. The tombstone of a visitor's
            // session does not name the session of the user who has logged in: the visitor's token must not end that session.
            let tombstone = match new {
                Some(new) => {
                    Some(self.tombstone(entry_of_record(base), keeps_subject.then_some(new.id()), now)?)
                }
                None => None,
            };
            match self.backend.exchange(entry_of_record(base), expected.entry, tombstone, now).await? {
                Replaced::Done => {
                    self.unlist(base, now).await;
                    let Some(new) = new.clone() else { return Ok(Saved::Removed) };
                    if let Some(known) = known.filter(|_| is_login) {
                        conflicts.release();
                        self.end_surplus(&new, known, Some(base.id()), now).await;
                    }
                    return stored(new, conflicts.count());
                }
                Replaced::Missing => return Ok(Saved::Ended),
                Replaced::Conflict(current) => {
                    let Some(EntryValue::Session(age, newer)) =
                        self.format.decode(entry_of_record(base), &current.value)
                    else {
                        return Ok(Saved::Ended);
                    };
                    payload = changes.replay(Some(&newer))?;
                    let written = age.written.unwrap_or(expected.written);
                    expected = Expected { entry: current, written };
                    conflicts.next().await?;
                }
            }
        }
    }

    /// Ends the session and begins an empty one. Whether the old one had ended already makes no difference.
    async fn start_over(
        self: &Arc<Self>,
        base: &Record,
        changes: &Changes,
        now: Timestamp,
        new: &mut Option<Record>,
    ) -> Result<Saved, Error> {
        let payload = changes.apply(None)?;
        let mut known = None;
        if !payload.is_empty() {
            let predecessor = Predecessor { id: base.id(), must_be_listed: false, is_login: true };
            let after = Some(base.recency());
            let Some(begun) = self.begin(now, payload, after, Some(predecessor), None, now).await? else {
                return Ok(Saved::Ended);
            };
            (*new, known) = (Some(begun.record), begun.known);
        }
        self.end_with_successors(LastRead::of(base)?, Leaves::Tombstones, None, now).await?;
        let Some(new) = new.clone() else { return Ok(Saved::Removed) };
        if let Some(known) = known {
            self.end_surplus(&new, known, Some(base.id()), now).await;
        }
        stored(new, 0)
    }

    /// Returns the tombstone for a session whose browser was given another token. It lets a repeated step, whose reply
    /// was lost, recognize its own write. It also distinguishes an old token from an unknown one. `next` is the id under which the
    /// session continues, if a logout with the old token is to end it there.
    pub(super) fn tombstone(
        &self,
        id: EntryId,
        next: Option<SessionId>,
        now: Timestamp,
    ) -> Result<Stored, Error> {
        let value = self.format.encode_tombstone(id, next, now)?;
        Ok(Stored { value, expires: self.tombstone_expires(now) })
    }

    /// Returns the deadline of a tombstone. It counts from the time of writing, which may be long after the request
    /// began.
    pub(super) fn tombstone_expires(&self, now: Timestamp) -> Timestamp {
        now.max(self.config.now()).saturating_add(SUPERSEDED_FOR)
    }

    /// Ends the session, which goes on in another place, whatever it holds by now. Returns false if it had already ended, or has
    /// another token by now.
    pub(super) async fn supersede(self: &Arc<Self>, base: &Record, now: Timestamp) -> Result<bool, Error> {
        let key = entry_of_record(base);
        let tombstone = self.tombstone(key, None, now)?;
        let is_here = |present: &Stored| {
            !matches!(self.format.decode(key, &present.value), Some(EntryValue::Tombstone(_)))
        };
        let outcome = self.end_entry(LastRead::of(base)?, Some(tombstone), now, is_here).await?;
        if !matches!(outcome, Replaced::Conflict(_)) {
            self.unlist(base, now).await;
        }
        Ok(outcome == Replaced::Done)
    }

    /// Makes the new entry, if there is one, hold `payload`, whose values came from `old`. No client has its token yet. Returns
    /// true if it holds them, and false if there is no such entry.
    async fn rewrite(
        self: &Arc<Self>,
        new: &mut Option<Record>,
        payload: &Payload,
        old: &Expected,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let Some(written) = new.clone() else { return Ok(false) };
        let newest = written.recency().max(old.written);
        let expected = Expected { entry: seen(&written)?, written: newest };
        let from = &old.entry.value;
        if let SaveAttempt::Done(Saved::Stored { record, .. }) =
            self.replace(&written, expected, payload.clone(), from, now, 0).await?
        {
            *new = Some(record);
            return Ok(true);
        }
        // No value is left, or the backend evicted the new entry: the session must not be lost with it.
        *new = None;
        self.unlist(&written, now).await;
        Ok(false)
    }
}
