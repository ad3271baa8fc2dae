//! Ending the sessions of a subject outside of their requests.

use std::sync::Arc;

use super::conflict_queue::Conflicts;
use super::format::EntryValue;
use super::optional::OptionalWork;
use super::session_list::{ListedSession, SessionList};
use super::stored_list::{IfUnreadable, Known};
use super::subjects::FetchedSession;
use super::{Inner, entry_of};
use crate::clock::Timestamp;
use crate::error::Error;
use crate::join::join_all;
use crate::session::{Record, SessionId};
use crate::store::backend::EVEN_IF_EXPIRED;
use crate::store::{Backend, Replaced, Stored};

impl<B: Backend> Inner<B> {
    /// Takes a session that has ended off its subject's list, without waiting long for it. If that fails, the next call that edits
    /// the list does it.
    pub(super) async fn leave(self: &Arc<Self>, record: &Record, now: Timestamp) {
        let Some(subject) = self.listed_subject(record.payload()) else { return };
        let (inner, id) = (Arc::clone(self), record.id());
        let leaving = OptionalWork::new(async move {
            let forget = |list: &mut SessionList| list.remove(&[id]);
            let _ = inner.edit(&subject, now, IfUnreadable::IsAnError, None, forget).await;
        });
        leaving.finish(self.backend.__patience()).await;
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
        let marked = self.edit(subject, now, IfUnreadable::IsAnError, known, |list| list.end(&which)).await;
        let (ending, known) = match marked {
            Ok(marked) => marked,
            // The backend may have no room to write the list, and still delete entries.
            Err(error) if error.is_unavailable() && !error.is_unreadable() => {
                return self.end_unmarked(subject, now, which, error).await;
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
    async fn end_unmarked(
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
            let id = entry_of(entry.id);
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
        let entry = entry_of(id);
        let mut current = match found {
            // An unreadable session cannot name its subject: that it is on the list must do.
            Err(error) if error.is_unreadable() => {
                self.backend.delete(entry).await?;
                return Ok(true);
            }
            found => found?,
        };
        let is_alive = current.as_ref().is_some_and(|found| found.expires > now);
        let mut conflicts = Conflicts::new(self.queues.of(id), &*self.backend);
        let mut gives_up = false;
        loop {
            let Some(seen) = current else { return Ok(false) };
            let is_alive = is_alive || seen.expires > now;
            let is_session = match self.format.decode(entry, &seen.value) {
                Some(EntryValue::Session(_, payload)) if payload.subject().as_deref() == Some(subject) => {
                    is_alive
                }
                // The session continues under another id, which is also on the list, or it belongs to no subject now.
                Some(_) => return Ok(false),
                // A host with other keys might read this session.
                None => false,
            };
            if gives_up {
                // A client cannot stay logged in by writing all the time.
                self.backend.delete(entry).await?;
                return Ok(is_session);
            }
            current = match self.backend.exchange(entry, seen, None, EVEN_IF_EXPIRED).await {
                // If it is missing now, a concurrent call ended it first.
                Ok(Replaced::Done | Replaced::Missing) => return Ok(is_session),
                Ok(Replaced::Conflict(newer)) => Some(newer),
                // Deleting may be permitted where comparing is not.
                Err(error) => {
                    return match self.backend.delete(entry).await {
                        Ok(()) => Ok(is_session),
                        Err(_) => Err(error),
                    };
                }
            };
            gives_up = conflicts.next().await.is_err();
        }
    }
}
