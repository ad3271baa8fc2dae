//! The calls of the store for a commit. If one ends or replaces the session of a request, its other sessions end, too.

use std::sync::Arc;

use super::slot::Slot;
use crate::clock::Timestamp;
use crate::session::{Changes, Record, Saved};
use crate::store::{EndedBy, StoreFuture};

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
        match self.end_others(Some(EndedBy::Logout), Some(&base), now) {
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
        self.destroy_with_others(EndedBy::Logout, base, now)
    }

    /// Ends the session and all other sessions of the request.
    fn destroy_with_others(&self, by: EndedBy, base: Record, now: Timestamp) -> StoreFuture<()> {
        let destroying = self.connection.store().destroy(base, now);
        match self.end_others(Some(by), None, now) {
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
    pub(super) fn end_former(&self, by: EndedBy, now: Timestamp) -> StoreFuture<()> {
        if let Some(lapsed) = self.device.lapsed() {
            // With the other sessions of the request, as for any session that the handler ends.
            return self.destroy_with_others(by, lapsed.clone(), now);
        }
        self.end_others(Some(by), None, now).unwrap_or_else(|| StoreFuture::ready(Ok(())))
    }

    /// Ends the sessions behind the empty session, then saves the new session. The store is called afterwards, so that the new
    /// session has a position behind the revocations of the others.
    pub(super) fn replace_former(&self, changes: Arc<Changes>, now: Timestamp) -> StoreFuture<Saved> {
        let by = if changes.restarts() { EndedBy::Logout } else { EndedBy::Login };
        let (ending, store) = (self.end_former(by, now), Arc::clone(self.connection.store()));
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
        self.end_others(logs_out.then_some(EndedBy::Logout), None, now)
    }

    /// Ends the [sessions that the request brought](super::brought_sessions::BroughtSessions::end) beside its own. `None` if there
    /// are none.
    fn end_others(
        &self,
        beyond_authentic: Option<EndedBy>,
        unless: Option<&Record>,
        now: Timestamp,
    ) -> Option<StoreFuture<()>> {
        self.brought()?.end(beyond_authentic, unless, self.connection.store(), now)
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
