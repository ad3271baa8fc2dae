//! The sessions that a request brought: a handler that ends or replaces its session ends the others, too.

use std::sync::Arc;

#[cfg(feature = "device-bound")]
use smallvec::SmallVec;

use super::slot::Slot;
#[cfg(feature = "device-bound")]
use super::slot::{Loaded, Renewal, Several};
use crate::clock::Timestamp;
use crate::lock::lock;
#[cfg(feature = "device-bound")]
use crate::session::Session;
use crate::session::{Changes, Record, Saved};
use crate::store::StoreFuture;

/// Which of the other sessions of a request end.
#[derive(Clone, Copy)]
enum Ending {
    All,
    /// The authentic sessions, which the request could use.
    Authentic,
}

impl Slot {
    /// Saves the session in the store. If no value is left, this and the [other sessions](Self::end_others_if_removed) of the
    /// request end.
    pub(super) fn save(
        &self,
        base: Option<Record>,
        changes: Arc<Changes>,
        now: Timestamp,
    ) -> StoreFuture<Saved> {
        let others = base.as_ref().and_then(|base| self.end_others_if_removed(base, &changes, now));
        let changes = if base.is_some() { changes } else { self.newer_than_all(changes) };
        and_others_if_removed(self.connection.store().save(base, changes, now), others)
    }

    /// Makes the session that `changes` begin newer than all that the request brought, although the clock of this host may be behind.
    fn newer_than_all(&self, mut changes: Arc<Changes>) -> Arc<Changes> {
        let newest = self.loaded().and_then(|loaded| loaded.newest);
        if newest.is_some() {
            Arc::make_mut(&mut changes).set_after(newest);
        }
        changes
    }

    /// Regenerates the session in the store. If a new session begins instead, all other sessions of the request end, too. If no
    /// value is left, the [other sessions](Self::end_others_if_removed) end.
    pub(super) fn regenerate(
        &self,
        base: Record,
        changes: Arc<Changes>,
        now: Timestamp,
    ) -> StoreFuture<Saved> {
        let store = Arc::clone(self.connection.store());
        if !changes.restarts() {
            let others = self.end_others_if_removed(&base, &changes, now);
            return and_others_if_removed(store.regenerate(base, changes, now), others);
        }
        // The store itself ends the session of `base`, in the same step as the new one begins.
        match self.end_others(Ending::All, Some(&base), now) {
            None => store.regenerate(base, changes, now),
            // First: if it fails, the client still has a session that is as it was. The store is called afterwards, so that the
            // new session has a position behind the revocations of the others.
            Some(ending) => StoreFuture::boxed(async move {
                ending.await?;
                store.regenerate(base, changes, now).await
            }),
        }
    }

    /// Ends the session and all other sessions of the request, because the user may be logged in with any of them.
    pub(super) fn destroy(&self, base: Record, now: Timestamp) -> StoreFuture<()> {
        let destroying = self.connection.store().destroy(base, now);
        match self.end_others(Ending::All, None, now) {
            None => destroying,
            Some(ending) => StoreFuture::boxed(async move {
                // Both are completed, even if the first one fails.
                let (destroyed, ended) = (destroying.await, ending.await);
                destroyed.and(ended)
            }),
        }
    }

    /// Ends the sessions behind the empty session that the handler ended: the session that has lapsed, the superseded session, the
    /// hidden authentic sessions, and the sessions that may live elsewhere.
    pub(super) fn end_former(&self, now: Timestamp) -> StoreFuture<()> {
        #[cfg(feature = "device-bound")]
        if let Some(lapsed) = self.device.lapsed() {
            // With the other sessions of the request, as for any session that the handler ends.
            return self.destroy(lapsed.clone(), now);
        }
        self.end_others(Ending::All, None, now).unwrap_or_else(|| StoreFuture::ready(Ok(())))
    }

    /// Ends the sessions behind the empty session, then saves the new session. The store is called afterwards, so that the new
    /// session has a position behind the revocations of the others.
    pub(super) fn replace_former(&self, changes: Arc<Changes>, now: Timestamp) -> StoreFuture<Saved> {
        let (ending, store) = (self.end_former(now), Arc::clone(self.connection.store()));
        let changes = self.newer_than_all(changes);
        StoreFuture::boxed(async move {
            ending.await?;
            store.save(None, changes, now).await
        })
    }

    /// Returns what ends if `changes` leave no value in `base`. After a logout, these are all other sessions of the request. If only
    /// flash values were shown, a session that this request cannot use goes on.
    fn end_others_if_removed(
        &self,
        base: &Record,
        changes: &Changes,
        now: Timestamp,
    ) -> Option<StoreFuture<()>> {
        let logs_out = changes.clears() || base.payload().has_lasting_values();
        self.end_others(if logs_out { Ending::All } else { Ending::Authentic }, None, now)
    }

    /// Ends the sessions that the request brought beside its own: the authentic sessions, the sessions behind superseded tokens, and
    /// sessions that may live elsewhere. A superseded token of the session `unless` does not count. `None` if there are none.
    fn end_others(&self, ending: Ending, unless: Option<&Record>, now: Timestamp) -> Option<StoreFuture<()>> {
        let several = self.several.get();
        let others = several.and_then(|several| several.sessions.get(usize::from(several.has_newest)..));
        let others = others.unwrap_or_default().to_vec();
        let (superseded, unusable) = match ending {
            Ending::All => (lock(&self.superseded).clone(), lock(&self.unusable).clone()),
            Ending::Authentic => (Vec::new(), Vec::new()),
        };
        if others.is_empty() && superseded.is_empty() && unusable.is_empty() {
            return None;
        }
        let (store, unless) = (Arc::clone(self.connection.store()), unless.cloned());
        Some(StoreFuture::boxed(async move {
            // All are tried, even if one fails.
            let mut ended = Ok(());
            for other in others {
                ended = ended.and(store.destroy(other, now).await);
            }
            for token in superseded {
                ended = ended.and(store.end_superseded(&token, unless.as_ref(), now).await);
            }
            for token in unusable {
                ended = ended.and(store.end_unusable(&token, now).await);
            }
            ended
        }))
    }

    /// Returns the authentic sessions of the request that count, the newest first. `session` is the loaded session.
    #[cfg(feature = "device-bound")]
    pub(super) fn authentic_sessions(&self, session: &Session) -> SmallVec<[Record; 1]> {
        match self.several.get() {
            Some(Several { sessions, hidden, .. }) => {
                let counts = |record: &&Record| hidden.is_none_or(|hidden| record.recency() > hidden);
                sessions.iter().filter(counts).cloned().collect()
            }
            None => session.stored_record().or_else(|| self.device.lapsed().cloned()).into_iter().collect(),
        }
    }

    /// Returns true if cookies of the loaded session's name were not tried.
    #[cfg(feature = "device-bound")]
    pub(super) fn has_untried(&self) -> bool {
        matches!(self.loaded(), Some(Loaded { renewal: Renewal::Never, .. }))
    }

    /// Returns true if the request came with a token that was superseded moments ago.
    #[cfg(feature = "device-bound")]
    pub(super) fn superseded(&self) -> bool {
        !lock(&self.superseded).is_empty()
    }
}

/// Ends the other sessions of a request after `saving`, if that left no value in its session.
fn and_others_if_removed(saving: StoreFuture<Saved>, others: Option<StoreFuture<()>>) -> StoreFuture<Saved> {
    let Some(ending) = others else { return saving };
    StoreFuture::boxed(async move {
        let saved = saving.await?;
        if matches!(saved, Saved::Removed) {
            ending.await?;
        }
        Ok(saved)
    })
}
