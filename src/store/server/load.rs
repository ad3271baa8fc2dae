//! Loading a session: its entry, its subject's list where that counts, and its deadlines.

use super::format::{EntryAge, EntryValue};
use super::list_memo::ListMemo;
use super::{Inner, entry_of_token, session_id};
use crate::clock::Timestamp;
use crate::crypto::ServerToken;
use crate::error::Error;
use crate::event::{EventKind, MigrationSource, Operation, Refusal};
use crate::id::EntryId;
use crate::join::join;
use crate::session::{EntryLifetime, Origin, Payload, Recency, Record};
use crate::store::near_cache::Ticket;
use crate::store::{Backend, Stored};

impl<B: Backend> Inner<B> {
    /// Reads a token of this cookie name. `None` if the text does not have the form of a token.
    pub(super) fn parse_token(&self, text: &[u8]) -> Option<ServerToken> {
        self.format.parse_token(&self.name, text)
    }

    pub(super) async fn load(
        &self,
        token: ServerToken,
        now: Timestamp,
    ) -> Result<Result<Record, Refusal>, Error> {
        // Boxed: what few stores do would make the future of every load larger.
        if let Some(memo) = &self.list_memo {
            return Box::pin(self.load_listed(memo, token, now)).await;
        }
        let fetched = self.backend.__fetch_watched(entry_of_token(&token), now).await;
        let (stored, ticket) = match self.found(fetched)? {
            Ok(found) => found,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let len = stored.value.len();
        Ok(self.decode(token, stored, now).inspect(|record| self.keep(ticket, len, record, None)))
    }

    /// Loads a session, which counts only if it is on the list of its subject, if it has one. The list is read at the same
    /// time where this process knows it.
    async fn load_listed(
        &self,
        memo: &ListMemo,
        token: ServerToken,
        now: Timestamp,
    ) -> Result<Result<Record, Refusal>, Error> {
        let id = entry_of_token(&token);
        let fetching = self.backend.__fetch_watched(id, now);
        let (fetched, list) = match memo.get(id) {
            Some(known) => {
                let (fetched, list) = join(fetching, self.fetch_list_watched(known, now)).await;
                (fetched, Some((known, list)))
            }
            None => (fetching.await, None),
        };
        let (stored, ticket) = match self.found(fetched)? {
            Ok(found) => found,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let len = stored.value.len();
        let record = match self.decode(token, stored, now) {
            Ok(record) => record,
            refused => return Ok(refused),
        };
        let Some(subject) = self.listed_subject(record.payload()) else {
            self.keep(ticket, len, &record, None);
            return Ok(Ok(record));
        };
        let list_id = self.list_of(&subject);
        let list = match list {
            Some((known, list)) if known == list_id => list,
            _ => {
                memo.set(id, list_id);
                self.fetch_list_watched(list_id, now).await
            }
        };
        let (list, list_ticket) = match list {
            Ok((list, ticket)) => (Ok(list), ticket),
            Err(error) => (Err(error), None),
        };
        let listed = list.as_ref().ok().cloned().flatten();
        if let Some(refusal) = self.refusal_by_list(list_id, list, record.id())? {
            return Ok(Err(refusal));
        }
        self.keep_list(list_ticket, list_id, listed.as_ref());
        self.keep(ticket, len, &record, Some(list_id));
        Ok(Ok(record))
    }

    /// Fetches a session list, under a ticket unless it is longer than the limit for entries.
    async fn fetch_list_watched(
        &self,
        id: EntryId,
        now: Timestamp,
    ) -> Result<(Option<Stored>, Option<Ticket>), Error> {
        match self.backend.__fetch_watched(id, now).await {
            Err(error) if error.is_unreadable() => Ok((self.backend.__fetch_list(id, now).await?, None)),
            fetched => fetched,
        }
    }

    /// Returns what was fetched, or why there is no session. An entry that is too long or of another type does not stand in the way:
    /// its user can log in, and log out. An event reports it.
    fn found(
        &self,
        fetched: Result<(Option<Stored>, Option<Ticket>), Error>,
    ) -> Result<Result<(Stored, Option<Ticket>), Refusal>, Error> {
        match fetched {
            Ok((stored, ticket)) => Ok(stored.map(|stored| (stored, ticket)).ok_or(Refusal::UnknownId)),
            Err(error) if error.is_unreadable() => {
                let operation = Operation::Load;
                self.config.emit(EventKind::StoreFailed { id: None, operation, error: &error });
                Ok(Err(Refusal::Unreadable))
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn decode(
        &self,
        token: ServerToken,
        stored: Stored,
        now: Timestamp,
    ) -> Result<Record, Refusal> {
        let key = entry_of_token(&token);
        let (age, payload) = match self.format.decode(key, &stored.value) {
            Some(EntryValue::Session(age, payload)) => (age, payload),
            Some(EntryValue::Tombstone(_)) => return Err(Refusal::Regenerated),
            Some(EntryValue::List(_)) => return Err(Refusal::Payload),
            None => return Err(self.format.refusal(key, &stored.value)),
        };
        let created = age.created.unwrap_or(now);
        // Without dates, each write sets the idle deadline anew.
        let without_dates = || stored.expires.saturating_sub(self.config.timeouts_of(&payload).idle);
        let recency = age.written.unwrap_or_else(|| Recency::at(without_dates()));
        let expires = self.expires(stored.expires, created, age, &payload);
        if now >= expires {
            return Err(Refusal::Expired);
        }
        let id = session_id(&token);
        if self.format.is_to_be_sealed(&stored.value) {
            self.config.emit(EventKind::Migrating { id, from: MigrationSource::Unsealed });
        }
        let (value, deadline) = (stored.value, stored.expires);
        let lifetime = EntryLifetime::Decoded(age.lifetime);
        let origin = Origin::Stored { token, value, deadline, lifetime };
        Ok(Record::written(id, created, expires, payload, origin, recency))
    }

    /// Returns the deadline of a session: its entry's, or what the present options allow if that is earlier. A backend that keeps
    /// entries for too long does not keep sessions for too long, and a shorter timeout applies to sessions that exist.
    pub(super) fn expires(
        &self,
        stored: Timestamp,
        created: Timestamp,
        age: EntryAge,
        payload: &Payload,
    ) -> Timestamp {
        let allowed = match age.lifetime {
            Some(lifetime) => self.config.deadline(created, payload, stored.saturating_sub(lifetime)),
            None => created.saturating_add(self.config.timeouts_of(payload).absolute),
        };
        stored.min(allowed)
    }
}
