//! The near-cache before a backend: the loads that it answers, and what goes in.

use super::{Inner, entry_of_token};
use crate::clock::Timestamp;
use crate::crypto::ServerToken;
use crate::id::EntryId;
use crate::session::Record;
use crate::store::near_cache::{OpenedEntry, RecordCache, Ticket};
use crate::store::{Backend, Stored};

impl<B: Backend> Inner<B> {
    /// Returns the session of this token if the near-cache has it, and its session list if that counts.
    pub(super) fn recall(&self, token: &ServerToken, now: Timestamp) -> Option<Record> {
        let cache = self.near_cache.as_deref()?;
        let id = entry_of_token(token);
        let found = recall(cache, id, now);
        cache.count(id, found.is_some());
        found
    }

    /// Returns true if the near-cache has this very record.
    pub(super) fn vouches_for(&self, record: &Record, now: Timestamp) -> bool {
        let (Some(cache), Some(token)) = (self.near_cache.as_deref(), record.origin().token()) else {
            return false;
        };
        let id = entry_of_token(token);
        let found = recall(cache, id, now).is_some_and(|found| found.is(record));
        if found {
            cache.count(id, true);
        }
        found
    }

    /// Keeps a session that was fetched under `ticket`, for later loads.
    pub(super) fn keep(
        &self,
        ticket: Option<Ticket>,
        value_len: usize,
        record: &Record,
        list: Option<EntryId>,
    ) {
        // Under a retired name nothing is looked up in the near-cache.
        let Some(ticket) = ticket.filter(|_| self.near_cache.is_some()) else { return };
        // Each load of what is still to be sealed checks whether that is still accepted.
        let to_be_sealed =
            record.origin().entry().is_some_and(|(value, _)| self.format.is_to_be_sealed(value));
        if !to_be_sealed {
            ticket.keep(OpenedEntry::Session { record: record.clone(), list }, value_len);
        }
    }

    /// Keeps a session list that was fetched under `ticket`.
    pub(super) fn keep_list(&self, ticket: Option<Ticket>, list: EntryId, stored: Option<&Stored>) {
        let ticket = ticket.filter(|_| self.near_cache.is_some());
        let (Some(ticket), Some(stored)) = (ticket, stored) else { return };
        if let Ok(list) = self.read_list(list, Some(stored)) {
            ticket.keep(OpenedEntry::List(list), stored.value.len());
        }
    }
}

fn recall(cache: &RecordCache, id: EntryId, now: Timestamp) -> Option<Record> {
    let kept = cache.get(id)?;
    let OpenedEntry::Session { record, list } = kept.opened() else { return None };
    // The backend decides whether it has expired.
    if now >= record.expires() {
        return None;
    }
    if let Some(list) = list {
        let kept = cache.get(*list)?;
        let OpenedEntry::List(list) = kept.opened() else { return None };
        if !list.has(record.id()) {
            return None;
        }
    }
    Some(record.clone())
}
