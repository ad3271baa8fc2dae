//! Cookie sessions that can be revoked: how they are loaded, written and ended in a request.

use std::future::Future;
use std::sync::Arc;

use super::plan::Plan;
use super::revoking::{Revoking, UNREAD};
use super::{CookieStore, Inner, root};
use crate::clock::Timestamp;
use crate::error::{Error, Kind};
use crate::revocation::{Continuation, Verdict};
use crate::session::{Changes, Record, Saved};
use crate::store::{LoadFuture, StoreFuture};

/// The verbs of a store whose sessions can be revoked.
impl CookieStore {
    pub(super) fn load_revocable(&self, revoking: &Revoking, record: Record, now: Timestamp) -> LoadFuture {
        let verdict = revoking.judge(&record, now);
        if verdict != Verdict::Unconfirmed {
            return StoreFuture::ready(revoking.verdict(verdict, record));
        }
        self.later(move |revoking, _| async move {
            let position = record.payload().lineage().position;
            revoking.register.confirm(position, revoking.max_staleness).await;
            revoking.verdict(revoking.judge(&record, now), record)
        })
    }

    pub(super) fn save_revocable(
        &self,
        revoking: &Revoking,
        base: Option<Record>,
        changes: &Changes,
        now: Timestamp,
    ) -> StoreFuture<Saved> {
        let Some(base) = base else {
            return self.carry_out(revoking, self.inner.plan_new(revoking, changes, now), now);
        };
        // Copies of the cookie are not bound to the device, so they must end: the session gets another id.
        if changes.binds_device() {
            return self.regenerate_revocable(revoking, &base, changes, now);
        }
        if revoking.has_ended(&base, now) {
            return StoreFuture::ready(Ok(Saved::Ended));
        }
        match self.inner.plan_renewed(&base, changes, now) {
            // Nothing is left: the session ends.
            Ok(None) => self.end(revoking, &base, now, || Saved::Removed),
            Ok(Some(plan)) => StoreFuture::ready(self.inner.seal_plan(plan, None, now)),
            Err(error) => StoreFuture::ready(Err(error)),
        }
    }

    pub(super) fn regenerate_revocable(
        &self,
        revoking: &Revoking,
        base: &Record,
        changes: &Changes,
        now: Timestamp,
    ) -> StoreFuture<Saved> {
        let goes_on = !changes.logs_in() && !changes.restarts();
        if goes_on && revoking.has_ended(base, now) {
            return StoreFuture::ready(Ok(Saved::Ended));
        }
        match self.inner.plan_regenerated(revoking, base, changes, now) {
            Ok(None) => self.end(revoking, base, now, || Saved::Removed),
            Ok(Some(plan)) => self.carry_out(revoking, Ok(Some(plan)), now),
            Err(error) => StoreFuture::ready(Err(error)),
        }
    }

    pub(super) fn adopt_revocable(
        &self,
        revoking: &Revoking,
        record: &Record,
        changes: &Changes,
        now: Timestamp,
    ) -> StoreFuture<Saved> {
        self.carry_out(revoking, self.inner.plan_adopted(revoking, record, changes, now), now)
    }

    /// Ends the session of `base`, which goes on in another store. Returns false if it had ended.
    ///
    /// The other store does not know of an end of the session. So an end that this host has not read yet is looked for, up to the
    /// position of this one.
    pub(super) fn supersede_revocable(
        &self,
        revoking: &Revoking,
        base: &Record,
        now: Timestamp,
    ) -> StoreFuture<bool> {
        // Before the session is judged, which covers all revocations up to here.
        let judged = revoking.register.known_position();
        if revoking.has_ended(base, now) {
            return StoreFuture::ready(Ok(false));
        }
        let revocations = revoking.supersede(base, true);
        let has_login = base.payload().lineage().owner.is_some();
        // A session without a login that has labels may have been ended by one of them elsewhere, so it is looked for, too.
        let is_visitor = !has_login && base.payload().labels().names().next().is_none();
        let nothing_to_do = revocations.is_empty() && is_visitor;
        if nothing_to_do || revoking.register.revoke_at_once(&revocations).is_some() {
            return StoreFuture::ready(Ok(true));
        }
        let base = base.clone();
        self.later(move |revoking, _| async move {
            let (payload, is_recorded) = (base.payload(), !revocations.is_empty());
            let (lineage, labels, staleness) = (payload.lineage(), payload.labels(), revoking.max_staleness);
            let register = &revoking.register;
            let moved = register.end_moved(base.id(), &lineage, &labels, judged, is_recorded, staleness);
            match moved.await? {
                Continuation::At(_) => Ok(true),
                Continuation::Nowhere => Ok(false),
                // Whatever the policy is: the other store would never learn of the end.
                Continuation::Unconfirmed => Err(Error::unavailable(UNREAD)),
            }
        })
    }

    pub(super) fn destroy_revocable(
        &self,
        revoking: &Revoking,
        base: &Record,
        now: Timestamp,
    ) -> StoreFuture<()> {
        self.end(revoking, base, now, || ())
    }

    /// Ends the session of `base`, unless its login is that of the session `unless`. Does nothing if sessions cannot be revoked.
    pub(super) fn revoke_unless(
        &self,
        unless: Option<&Record>,
        now: Timestamp,
        base: impl FnOnce() -> Option<Record>,
    ) -> StoreFuture<()> {
        let Some(revoking) = &self.inner.revoking else { return StoreFuture::ready(Ok(())) };
        match base().filter(|base| unless.is_none_or(|unless| root(unless) != root(base))) {
            Some(base) => self.destroy_revocable(revoking, &base, now),
            None => StoreFuture::ready(Ok(())),
        }
    }

    /// Ends the session of `base`, and returns `ended` when that is durable.
    fn end<T: Send + 'static>(
        &self,
        revoking: &Revoking,
        base: &Record,
        now: Timestamp,
        ended: fn() -> T,
    ) -> StoreFuture<T> {
        // A session that was superseded is ended under its other ids, too.
        let has_ended = revoking.judge(base, now) == Verdict::Revoked;
        let revocations = if has_ended { Vec::new() } else { revoking.logout(base) };
        if revocations.is_empty() || revoking.register.revoke_at_once(&revocations).is_some() {
            return StoreFuture::ready(Ok(ended()));
        }
        self.later(
            move |revoking, _| async move { revoking.register.revoke(revocations).await.map(|_| ended()) },
        )
    }

    /// Records the revocations of the plan, and seals its session. Without a session, the cookie is removed.
    fn carry_out(
        &self,
        revoking: &Revoking,
        plan: Result<Option<Plan>, Error>,
        now: Timestamp,
    ) -> StoreFuture<Saved> {
        let mut plan = match plan {
            Ok(Some(plan)) => plan,
            Ok(None) => return StoreFuture::ready(Ok(Saved::Removed)),
            Err(error) => return StoreFuture::ready(Err(error)),
        };
        if plan.ends_others {
            return self
                .later(move |revoking, inner| async move { inner.end_others(&revoking, plan, now).await });
        }
        let register = &revoking.register;
        let revocations = std::mem::take(&mut plan.revocations);
        let at_once = match (revocations.is_empty(), plan.asks_position) {
            (true, false) => Some(None),
            (true, true) => register.is_immediate().then(|| Some(register.known_position())),
            (false, _) => register.revoke_at_once(&revocations).map(Some),
        };
        if let Some(position) = at_once {
            return StoreFuture::ready(self.inner.seal_plan(plan, position, now));
        }
        self.later(move |revoking, inner| async move {
            let position = if revocations.is_empty() {
                revoking.register.position().await?
            } else {
                revoking.register.revoke(revocations).await?
            };
            inner.seal_plan(plan, Some(position), now)
        })
    }

    /// Returns a future that owns the parts of the store that it needs.
    fn later<T, F>(
        &self,
        work: impl FnOnce(Arc<Revoking>, Arc<Inner>) -> F + Send + 'static,
    ) -> StoreFuture<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        match inner.revoking.clone() {
            Some(revoking) => {
                let work = work(Arc::clone(&revoking), inner);
                StoreFuture::boxed(async move { revoking.revocations.while_following(work).await })
            }
            None => {
                StoreFuture::ready(Err(Error::new(Kind::Internal("a store without revocations revoked"))))
            }
        }
    }
}
