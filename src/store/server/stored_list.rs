//! The entry of a session list: reading it, and changing it in one atomic step.

use super::Inner;
use super::conflict_queue::Conflicts;
use super::format::EntryValue;
use super::session_list::SessionList;
use crate::clock::Timestamp;
use crate::crypto::subject_id;
use crate::error::Error;
use crate::event::{EventKind, Operation, Refusal};
use crate::id::EntryId;
use crate::session::SessionId;
use crate::store::{Backend, Replaced, Stored};

/// A session list, and the entry that it was read from.
#[derive(Default)]
pub(super) struct Known {
    pub(super) list: SessionList,
    pub(super) stored: Option<Stored>,
}

/// The outcome of an edit if the session list is unreadable.
#[derive(Clone, Copy)]
pub(super) enum IfUnreadable {
    /// The call fails: it cannot vouch for sessions that it cannot list.
    IsAnError,
    /// The list is overwritten: a login must succeed.
    IsOverwritten,
}

impl<B: Backend> Inner<B> {
    /// Returns an error if this store keeps no session lists: that differs from an empty list.
    fn check_listed(&self) -> Result<(), Error> {
        if !self.format.has_session_lists() {
            return Err(Error::config(
                "session lists need a store that no other program shares: build it without beside_astra()",
            ));
        }
        Ok(())
    }

    pub(super) async fn list(&self, subject: &str, now: Timestamp) -> Result<SessionList, Error> {
        self.known(subject, now).await.map(|known| known.list)
    }

    pub(super) async fn known(&self, subject: &str, now: Timestamp) -> Result<Known, Error> {
        self.check_listed()?;
        let id = self.list_of(subject);
        let stored = self.backend.__fetch_list(id, now).await?;
        Ok(Known { list: self.read_list(id, stored.as_ref())?, stored })
    }

    pub(super) fn list_of(&self, subject: &str) -> EntryId {
        EntryId::from_bytes(subject_id(&self.name, subject))
    }

    /// Decodes the list. If it is unreadable, the sessions on it are unknown.
    pub(super) fn read_list(&self, id: EntryId, stored: Option<&Stored>) -> Result<SessionList, Error> {
        let Some(stored) = stored else { return Ok(SessionList::default()) };
        match self.format.decode(id, &stored.value) {
            Some(EntryValue::List(list)) => Ok(list),
            _ => Err(Error::unreadable("the session list of the subject is unreadable")),
        }
    }

    /// Decodes the list in order to edit it. If it is unreadable and may be overwritten, an event reports the loss.
    fn list_to_edit(
        &self,
        id: EntryId,
        current: Option<Stored>,
        if_unreadable: IfUnreadable,
    ) -> Result<Known, Error> {
        let error = match self.read_list(id, current.as_ref()) {
            Ok(list) => return Ok(Known { list, stored: current }),
            Err(error) => error,
        };
        if !self.may_overwrite(&error, if_unreadable) {
            return Err(error);
        }
        Ok(Known { list: SessionList::default(), stored: current })
    }

    /// Returns true if the unreadable list may be overwritten. An event then reports the loss.
    fn may_overwrite(&self, error: &Error, if_unreadable: IfUnreadable) -> bool {
        match if_unreadable {
            IfUnreadable::IsAnError => false,
            IfUnreadable::IsOverwritten => {
                let operation = Operation::Load;
                self.config.emit(EventKind::StoreFailed { id: None, operation, error });
                true
            }
        }
    }

    /// Fetches the list's entry. If it is too long or of another kind, it is deleted, provided that it may be
    /// overwritten.
    async fn fetch_to_edit(
        &self,
        id: EntryId,
        now: Timestamp,
        if_unreadable: IfUnreadable,
    ) -> Result<Option<Stored>, Error> {
        match self.backend.__fetch_list(id, now).await {
            Err(error) if error.is_unreadable() => {
                if !self.may_overwrite(&error, if_unreadable) {
                    return Err(error);
                }
                self.backend.delete(id).await?;
                Ok(None)
            }
            fetched => fetched,
        }
    }

    /// Changes the session list of `subject` in one atomic step, whatever it is by then. Begins with `known` if the
    /// list was just read.
    pub(super) async fn edit<R>(
        &self,
        subject: &str,
        now: Timestamp,
        if_unreadable: IfUnreadable,
        known: Option<Known>,
        mut edit: impl FnMut(&mut SessionList) -> R,
    ) -> Result<(R, Known), Error> {
        self.check_listed()?;
        let id = self.list_of(subject);
        let queue = self.list_queues.of(SessionId::from_bytes(id.to_bytes()));
        let mut conflicts = Conflicts::new(queue, &*self.backend);
        let mut current = match known {
            Some(known) => known.stored,
            None => self.fetch_to_edit(id, now, if_unreadable).await?,
        };
        loop {
            let before = self.list_to_edit(id, current, if_unreadable)?;
            let mut after = before.list.clone();
            let result = edit(&mut after);
            if after == before.list {
                return Ok((result, before));
            }
            let entry = match after.until() {
                Some(expires) => Some(Stored { value: self.format.encode_list(id, &after, now)?, expires }),
                None => None,
            };
            let outcome = match (before.stored, entry.clone()) {
                (Some(seen), entry) => self.backend.exchange(id, seen, entry, now).await?,
                (None, None) => Replaced::Done,
                (None, Some(entry)) => {
                    let created = self.backend.create(id, entry, now).await?;
                    if created { Replaced::Done } else { Replaced::Missing }
                }
            };
            current = match outcome {
                Replaced::Done => return Ok((result, Known { list: after, stored: entry })),
                Replaced::Conflict(newer) => Some(newer),
                Replaced::Missing => self.fetch_to_edit(id, now, if_unreadable).await?,
            };
            conflicts.next().await?;
        }
    }

    /// Returns why the session is refused by the list in a backend's reply. `None` if it is on the list. An unreadable list
    /// has no session: one that cannot be confirmed is refused. The reason is that of the list if another host may be able to
    /// read it, so that the cookie stays.
    pub(super) fn refusal_by_list(
        &self,
        list: EntryId,
        answer: Result<Option<Stored>, Error>,
        id: SessionId,
    ) -> Result<Option<Refusal>, Error> {
        let stored = match answer {
            Err(error) if error.is_unreadable() => return Ok(Some(Refusal::Unreadable)),
            answer => answer?,
        };
        let unreadable = match self.read_list(list, stored.as_ref()) {
            Ok(list) if list.has(id) => return Ok(None),
            Ok(_) => None,
            Err(_) => stored.map(|stored| self.format.refusal(list, &stored.value)),
        };
        let undecided = unreadable.filter(|refusal| refusal.may_be_of_another_host());
        Ok(Some(undecided.unwrap_or(Refusal::UnknownId)))
    }
}
