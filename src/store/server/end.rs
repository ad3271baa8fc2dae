//! Ending sessions: that of a request, and those of a subject outside of their requests.

use std::sync::Arc;

use super::conflict_queue::Conflicts;
use super::format::EntryValue;
use super::session_list::{ListedSession, SessionList};
use super::stored_list::{IfUnreadable, Known};
use super::subjects::FetchedSession;
use super::{Inner, entry_of_record, entry_of_session, entry_of_token, seen, session_id};
use crate::clock::Timestamp;
use crate::crypto::ServerToken;
use crate::error::Error;
use crate::id::EntryId;
use crate::join::{join, join_all};
use crate::session::{Record, SessionId};
use crate::store::backend::EVEN_IF_EXPIRED;
use crate::store::{Backend, Replaced, Stored};

/// How many tombstones an ending follows, one read after the other. A client could leave any number of them, and those of a damaged
/// storage could lead in a circle. A session is given two or three tokens in the minute that a tombstone lasts. A request can bring
/// four superseded tokens, so its logout reads at most 20 entries for them.
const MAX_FOLLOWED: usize = 4;

/// The entry of a session that is to end, as it was last read.
pub(super) struct LastRead {
    id: SessionId,
    key: EntryId,
    entry: Stored,
}

impl LastRead {
    pub(super) fn of(record: &Record) -> Result<Self, Error> {
        Ok(Self { id: record.id(), key: entry_of_record(record), entry: seen(record)? })
    }
}

/// The entries that the end of a session leaves under its ids.
#[derive(Clone, Copy)]
pub(super) enum Leaves {
    Nothing,
    /// Tombstones: the browser is given the token of a different session.
    Tombstones,
}

impl<B: Backend> Inner<B> {
    /// Ends the session for good.
    pub(super) async fn end_for_good(self: &Arc<Self>, record: &Record, now: Timestamp) -> Result<(), Error> {
        self.end_with_successors(LastRead::of(record)?, Leaves::Nothing, None, now).await
    }

    /// Ends the session that `token` leads to, although this request cannot use it: it has expired, this host cannot read it, or it
    /// continues under another token. Does nothing if it continues as the session `unless`. The backend keeps the entry of an expired
    /// session for slow requests.
    pub(super) async fn end_behind(
        self: &Arc<Self>,
        token: &ServerToken,
        unless: Option<SessionId>,
        now: Timestamp,
    ) -> Result<(), Error> {
        let (id, key) = (session_id(token), entry_of_token(token));
        let Some(found) = self.read_to_end(id, key).await? else { return Ok(()) };
        let value = &found.entry.value;
        // Another host may read what this one cannot, and must not find it.
        if self.format.decode(key, value).is_some()
            || self.format.refusal(key, value).may_be_of_another_host()
        {
            self.end_with_successors(found, Leaves::Nothing, unless, now).await?;
        }
        Ok(())
    }

    /// Ends a session for good, also under the ids that it has by now: as far as tombstones name them, or up to the session `unless`.
    pub(super) async fn end_with_successors(
        self: &Arc<Self>,
        first: LastRead,
        leaves: Leaves,
        unless: Option<SessionId>,
        now: Timestamp,
    ) -> Result<(), Error> {
        let (mut reached, mut ids, mut subject) = (Some(first), Vec::new(), None);
        while let Some(read) = reached.take() {
            let (id, key, mut next) = (read.id, read.key, None);
            ids.push(id);
            let mut ends = |present: &Stored| match self.format.decode(key, &present.value) {
                Some(EntryValue::Session(_, payload)) => {
                    subject = self.listed_subject(&payload);
                    true
                }
                Some(EntryValue::Tombstone(successor)) => {
                    next = successor;
                    false
                }
                Some(EntryValue::List(_)) => false,
                None => true,
            };
            if ends(&read.entry) {
                let left = match leaves {
                    Leaves::Nothing => None,
                    Leaves::Tombstones => Some(self.tombstone(key, None, now)?),
                };
                let leaves_entry = left.is_some();
                let outcome = self.end_entry(read, left, now, &mut ends).await?;
                // Where an entry is left, an expired one counts as missing. A slow request may find a tombstone that has expired.
                if leaves_entry && outcome == Replaced::Missing {
                    let expired = self.read_to_end(id, key).await?;
                    if let Some(expired) = expired.filter(|expired| ends(&expired.entry)) {
                        self.end_entry(expired, None, now, ends).await?;
                    }
                }
            }
            if let Some(next) = next.filter(|next| Some(*next) != unless && ids.len() <= MAX_FOLLOWED) {
                reached = self.read_to_end(next, entry_of_session(next)).await?;
            }
        }
        if let Some(subject) = subject {
            self.unlist_all(subject, ids, now).await;
        }
        Ok(())
    }

    /// Reads an entry that is to end, also if it has expired. If it is too long or of another type, it is deleted: its session has
    /// ended, whatever it is.
    async fn read_to_end(&self, id: SessionId, key: EntryId) -> Result<Option<LastRead>, Error> {
        match self.backend.fetch(key, EVEN_IF_EXPIRED).await {
            Err(error) if error.is_unreadable() => self.backend.delete(key).await.map(|()| None),
            fetched => Ok(fetched?.map(|entry| LastRead { id, key, entry })),
        }
    }

    /// Deletes an entry, or replaces it by `left`. If it has changed since it was read, `ends` decides whether this is done to the
    /// present entry, too. Otherwise the present entry is returned as a conflict.
    pub(super) async fn end_entry(
        &self,
        read: LastRead,
        left: Option<Stored>,
        now: Timestamp,
        mut ends: impl FnMut(&Stored) -> bool,
    ) -> Result<Replaced, Error> {
        let LastRead { id, key, mut entry } = read;
        // Even if the session has expired: a request that loaded it in time could renew it.
        let as_of = if left.is_some() { now } else { EVEN_IF_EXPIRED };
        let mut conflicts = Conflicts::new(self.queues.of(id), &*self.backend);
        loop {
            let (present, failure) = match self.backend.exchange(key, entry, left.clone(), as_of).await {
                Ok(Replaced::Conflict(present)) => (present, None),
                // Deleting may be permitted where comparing is not.
                Err(error) if left.is_none() => match self.read_to_end(id, key).await {
                    Ok(Some(read)) => (read.entry, Some(error)),
                    Ok(None) => return Ok(Replaced::Missing),
                    Err(_) => return Err(error),
                },
                outcome => return outcome,
            };
            if !ends(&present) {
                return Ok(Replaced::Conflict(present));
            }
            // A client cannot stay logged in by writing all the time.
            if failure.is_some() || conflicts.next().await.is_err() {
                let deleted = self.backend.delete(key).await;
                return deleted.map(|()| Replaced::Done).map_err(|error| failure.unwrap_or(error));
            }
            entry = present;
        }
    }

    /// Ends a session that failed to begin, without waiting long for it. Its place on the list would count at the next login. Each step
    /// may have been carried out although its reply was lost.
    pub(super) async fn give_up(
        self: &Arc<Self>,
        subject: String,
        id: SessionId,
        key: EntryId,
        now: Timestamp,
    ) {
        let inner = Arc::clone(self);
        let ending = async move {
            let forget = |list: &mut SessionList| list.remove(&[id]);
            // The entry may be on a server that hangs. No client has its token, so it need not be on the list.
            let unlisting = inner.edit(&subject, now, IfUnreadable::IsAnError, None, forget);
            let _ = join(inner.backend.delete(key), unlisting).await;
        };
        self.finish_soon(ending).await;
    }

    /// Takes a session that has ended off its subject's list.
    pub(super) async fn unlist(self: &Arc<Self>, record: &Record, now: Timestamp) {
        if let Some(subject) = self.listed_subject(record.payload()) {
            self.unlist_all(subject, vec![record.id()], now).await;
        }
    }

    /// Takes sessions that have ended off the subject's list, without waiting long for it. If that fails, the next call that edits
    /// the list does it.
    async fn unlist_all(self: &Arc<Self>, subject: String, ids: Vec<SessionId>, now: Timestamp) {
        let inner = Arc::clone(self);
        let leaving = async move {
            let forget = |list: &mut SessionList| list.remove(&ids);
            let _ = inner.edit(&subject, now, IfUnreadable::IsAnError, None, forget).await;
        };
        self.finish_soon(leaving).await;
    }

    /// Ends the session of this id, or the session that continues from it by now, if it is one of the subject. Returns false if it is
    /// not, or has ended already.
    pub(super) async fn end_by_id(
        &self,
        subject: &str,
        mut id: SessionId,
        now: Timestamp,
    ) -> Result<bool, Error> {
        for _ in 0..=MAX_FOLLOWED {
            if self.end(subject, now, None, &[], |entry| entry.id == id).await? > 0 {
                return Ok(true);
            }
            let key = entry_of_session(id);
            let found = match self.backend.fetch(key, EVEN_IF_EXPIRED).await {
                Err(error) if error.is_unreadable() => None,
                found => found?,
            };
            match found.and_then(|found| self.format.decode(key, &found.value)) {
                Some(EntryValue::Tombstone(Some(next))) => id = next,
                _ => break,
            }
        }
        Ok(false)
    }

    /// Flags the sessions as being ended, deletes their entries, then takes them off the list. A concurrent login sees
    /// the flag; the next call finishes what an interrupted one began. Returns how many of the sessions that `which`
    /// picks this ended. `known` is the list and `found` its sessions, as they were last read.
    pub(super) async fn end(
        &self,
        subject: &str,
        now: Timestamp,
        known: Option<Known>,
        found: &[FetchedSession],
        which: impl Fn(&ListedSession) -> bool,
    ) -> Result<usize, Error> {
        let flagged = self.edit(subject, now, IfUnreadable::IsAnError, known, |list| list.end(&which)).await;
        let (ending, known) = match flagged {
            Ok(flagged) => flagged,
            // The backend may have no room to write the list, and still delete entries.
            Err(error) if error.is_unavailable() && !error.is_unreadable() => {
                return self.end_unflagged(subject, now, which, error).await;
            }
            Err(error) => return Err(error),
        };
        let ended = self.end_all(subject, &ending, found, &which, now).await?;
        if !ending.is_empty() {
            let ids: Vec<_> = ending.iter().map(|entry| entry.id).collect();
            let forget = |list: &mut SessionList| list.remove(&ids);
            let forgotten = self.edit(subject, now, IfUnreadable::IsAnError, Some(known), forget).await;
            match forgotten {
                // The sessions are ended. The next call takes them off the list.
                Err(error) if !error.is_unavailable() && !error.is_conflict() => return Err(error),
                _ => {}
            }
        }
        Ok(ended)
    }

    /// Ends sessions without flagging them first, then takes the list away if nothing else is on it and it is unchanged. A
    /// concurrent login happens after this, and stays on the list.
    async fn end_unflagged(
        &self,
        subject: &str,
        now: Timestamp,
        which: impl Fn(&ListedSession) -> bool,
        error: Error,
    ) -> Result<usize, Error> {
        let Ok(Known { mut list, stored }) = self.known(subject, now).await else { return Err(error) };
        let ending = list.end(&which);
        let Ok(ended) = self.end_all(subject, &ending, &[], which, now).await else { return Err(error) };
        if let Some(stored) = stored.filter(|_| ending.len() == list.entries.len()) {
            // If that fails, or a login has entered itself meanwhile, the list still names the ended sessions. That does no harm,
            // and a call that would end them again takes them off.
            let _ = self.backend.exchange(self.list_of(subject), stored, None, now).await;
        }
        Ok(ended)
    }

    /// Ends these sessions, and returns how many of them `which` picks.
    async fn end_all(
        &self,
        subject: &str,
        ending: &[ListedSession],
        found: &[FetchedSession],
        which: impl Fn(&ListedSession) -> bool,
        now: Timestamp,
    ) -> Result<usize, Error> {
        let done = join_all(ending, async |entry| {
            let known = found.iter().find(|found| found.listed.id == entry.id);
            let id = entry_of_session(entry.id);
            let mut found = match known.and_then(|found| found.stored.as_ref().ok()?.clone()) {
                Some(stored) => Ok(Some(stored)),
                None => self.backend.fetch(id, now).await,
            };
            if matches!(found, Ok(None)) {
                // Even if it has expired: a request that loaded the session in time could renew it.
                found = self.backend.fetch(id, EVEN_IF_EXPIRED).await;
            }
            self.end_one(subject, entry.id, found, now).await
        })
        .await;
        let mut ended = 0;
        for (entry, done) in ending.iter().zip(done) {
            ended += usize::from(done? && which(entry));
        }
        Ok(ended)
    }

    /// Ends the session `id` if its own values name the subject (T37). Returns true if they do. `found` is the
    /// backend's entry under its id.
    async fn end_one(
        &self,
        subject: &str,
        id: SessionId,
        found: Result<Option<Stored>, Error>,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let key = entry_of_session(id);
        let entry = match found {
            // An unreadable session cannot name its subject: that it is on the list must do.
            Err(error) if error.is_unreadable() => {
                self.backend.delete(key).await?;
                return Ok(true);
            }
            found => match found? {
                Some(entry) => entry,
                None => return Ok(false),
            },
        };
        let (mut is_alive, mut is_session) = (false, false);
        let mut ends = |present: &Stored| {
            is_alive |= present.expires > now;
            let (session, ends) = match self.format.decode(key, &present.value) {
                Some(EntryValue::Session(_, payload)) => {
                    let is_theirs = payload.subject().as_deref() == Some(subject);
                    (is_theirs, is_theirs)
                }
                // The session continues under another id, which is also on the list.
                Some(_) => (false, false),
                // A host with other keys might read this session.
                None => (false, true),
            };
            is_session = session;
            ends
        };
        // If it is missing by then, a concurrent call ended it first.
        if ends(&entry) {
            self.end_entry(LastRead { id, key, entry }, None, now, ends).await?;
        }
        Ok(is_session && is_alive)
    }
}
