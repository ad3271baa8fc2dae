//! The verbs of a store, and its session lists, by the operations on one cookie name.

use std::sync::Arc;

use super::{Predecessor, ServerStore, SubjectSession, ended_or_stored, token_of};
use crate::clock::{MAX_CLOCK_SKEW, Timestamp};
use crate::config::Config;
use crate::event::Refusal;
use crate::session::{Changes, Place, Record, SUPERSEDED_FOR, Saved, SessionId};
use crate::store::verbs::Sealed;
use crate::store::{Backend, EndedBy, LoadFuture, Store, StoreFuture, SubjectFuture, Verbs};

impl<B: Backend> Store for ServerStore<B> {
    fn sessions_of(&self, subject: &str) -> SubjectFuture<Vec<SubjectSession>> {
        let (store, subject) = (self.clone(), subject.to_owned());
        Box::pin(async move { store.sessions_of(&subject).await })
    }

    fn end_session_of(&self, subject: &str, id: SessionId) -> SubjectFuture<bool> {
        let (store, subject) = (self.clone(), subject.to_owned());
        Box::pin(async move { store.end_session_of(&subject, id).await })
    }

    fn end_sessions_of(&self, subject: &str, keep: Option<SessionId>) -> SubjectFuture<Option<usize>> {
        let (store, subject) = (self.clone(), subject.to_owned());
        Box::pin(async move { store.end_sessions_of(&subject, keep).await.map(Some) })
    }
}

impl<B: Backend> Sealed for ServerStore<B> {}

impl<B: Backend> Verbs for ServerStore<B> {
    fn config(&self) -> &Config {
        &self.inner.config
    }

    fn load(&self, token: &[u8], now: Timestamp) -> LoadFuture {
        let Some(token) = self.inner.parse_token(token) else {
            return StoreFuture::ready(Ok(Err(Refusal::Encoding)));
        };
        if let Some(record) = self.inner.recall(&token, now) {
            return StoreFuture::ready(Ok(Ok(record)));
        }
        let inner = Arc::clone(&self.inner);
        StoreFuture::boxed(async move { inner.load(token, now).await })
    }

    fn load_retired(&self, name: usize, token: &[u8], now: Timestamp) -> LoadFuture {
        let former = self.under_retired(name);
        let parsed = former.as_ref().and_then(|former| former.inner.parse_token(token));
        let (Some(former), Some(token)) = (former, parsed) else {
            return StoreFuture::ready(Ok(Err(Refusal::Encoding)));
        };
        StoreFuture::boxed(async move {
            let loaded = former.inner.load(token, now).await?;
            Ok(loaded.map(|record| record.taken_from(Place::RetiredName(name))))
        })
    }

    fn reload(&self, base: Record, now: Timestamp) -> LoadFuture {
        let (place, former) = (base.place(), self.former(&base));
        let (inner, base) =
            former.map_or_else(|| (Arc::clone(&self.inner), base), |(former, base)| (former.inner, base));
        StoreFuture::boxed(async move {
            let token = token_of(&base)?;
            let loaded = match inner.recall(token, now) {
                Some(record) => Ok(record),
                None => inner.load(token.clone(), now).await?,
            };
            Ok(loaded.map(|record| match place {
                Some(place) => record.taken_from(place),
                None => record,
            }))
        })
    }

    fn load_past_cache(&self, base: &Record, now: Timestamp) -> Option<LoadFuture> {
        // Under a retired name nothing is looked up in the near-cache.
        if self.inner.near_cache.is_none() || base.place().is_some() {
            return None;
        }
        let token = base.origin().token()?.clone();
        let inner = Arc::clone(&self.inner);
        Some(StoreFuture::boxed(async move { inner.load(token, now).await }))
    }

    fn is_still_valid(&self, record: &Record, now: Timestamp) -> bool {
        self.inner.vouches_for(record, now)
    }

    fn save(&self, base: Option<Record>, changes: Arc<Changes>, now: Timestamp) -> StoreFuture<Saved> {
        if let Some((former, old)) = base.as_ref().and_then(|base| self.former(base)) {
            return self.take_over(former, old, changes, now);
        }
        let inner = Arc::clone(&self.inner);
        StoreFuture::boxed(async move { inner.save(base, &changes, now).await })
    }

    fn destroy(&self, base: Record, now: Timestamp) -> StoreFuture<()> {
        if let Some((former, old)) = self.former(&base) {
            return former.destroy(old, now);
        }
        let inner = Arc::clone(&self.inner);
        StoreFuture::boxed(async move { inner.end_for_good(&base, now).await })
    }

    fn regenerate(&self, base: Record, changes: Arc<Changes>, now: Timestamp) -> StoreFuture<Saved> {
        if let Some((former, old)) = self.former(&base) {
            return self.take_over(former, old, changes, now);
        }
        let inner = Arc::clone(&self.inner);
        StoreFuture::boxed(async move { inner.regenerate(base, &changes, now).await })
    }

    /// A login does not end the session: its token may reach the browser after that of the login.
    fn end_superseded(
        &self,
        token: &[u8],
        unless: Option<&Record>,
        by: EndedBy,
        now: Timestamp,
    ) -> StoreFuture<()> {
        match by {
            EndedBy::Login => StoreFuture::ready(Ok(())),
            EndedBy::Logout => self.end_behind(token, unless.map(Record::id), now),
        }
    }

    fn end_unusable(&self, token: &[u8], unless: Option<&Record>, now: Timestamp) -> StoreFuture<()> {
        self.end_behind(token, unless.map(Record::id), now)
    }

    /// A tombstone lasts for a minute, and clocks may differ by a minute. A session that was written before that is older.
    fn is_outdated(&self, record: &Record, _: &[u8], now: Timestamp) -> bool {
        let superseded = now.saturating_sub(SUPERSEDED_FOR + MAX_CLOCK_SKEW);
        record.recency().written < superseded
    }

    fn adopt(&self, record: Record, changes: Arc<Changes>, now: Timestamp) -> StoreFuture<Saved> {
        let inner = Arc::clone(&self.inner);
        StoreFuture::boxed(async move {
            let payload = changes.apply(Some(record.payload()))?;
            let created = changes.beginning(&record, now);
            if inner.config.leaves_nothing(created, &payload, now) {
                return Ok(Saved::Removed);
            }
            // On no list of this store: where it is taken from has others.
            let is_login = changes.logs_in();
            let predecessor = Predecessor { id: record.id(), must_be_listed: false, is_login };
            let after = Some(record.recency());
            let begun = inner.begin(created, payload, after, Some(predecessor), None, now).await?;
            ended_or_stored(begun.map(|begun| begun.record))
        })
    }

    fn end_surplus(&self, login: Record, now: Timestamp) -> StoreFuture<()> {
        let inner = Arc::clone(&self.inner);
        StoreFuture::boxed(async move {
            if let Some(subject) = inner.listed_subject(login.payload()) {
                let known = inner.known(&subject, now).await?;
                inner.end_surplus(&login, known, None, now).await;
            }
            Ok(())
        })
    }

    fn supersede(&self, base: Record, now: Timestamp) -> StoreFuture<bool> {
        if let Some((former, old)) = self.former(&base) {
            return former.supersede(old, now);
        }
        let inner = Arc::clone(&self.inner);
        StoreFuture::boxed(async move { inner.supersede(&base, now).await })
    }
}
