//! Moving a session from one place to another: between stores, or between names of the cookie.

use std::sync::Arc;

use super::{Store, StoreFuture};
use crate::clock::Timestamp;
use crate::error::Error;
use crate::session::{Changes, Record, Saved};

/// Writes the session `record` of the store `old` to `new`, with these changes. Then `leave` ends it in the old store, or returns
/// false if another request ended or moved it meanwhile: then it is not brought back, unless the changes begin another session. A
/// login begins a session of its own then.
pub(super) async fn take_over(
    new: &dyn Store,
    old: &dyn Store,
    record: Record,
    mut changes: Arc<Changes>,
    now: Timestamp,
    leave: impl FnOnce(Record) -> StoreFuture<bool>,
) -> Result<Saved, Error> {
    let begins_another = begins_another(old, &changes);
    let login = changes.logs_in().then(|| Arc::clone(&changes));
    let saved = if changes.restarts() {
        Arc::make_mut(&mut changes).set_after(Some(record.recency()));
        new.save(None, changes, now).await?
    } else {
        new.adopt(record.clone(), changes, now).await?
    };
    let left = match leave(record.clone()).await {
        // Where it goes on under another token, it ends, too.
        Ok(false) if begins_another => old.destroy(record, now).await.map(|()| true),
        left => left,
    };
    let moved = match (saved, left) {
        (saved, Ok(true)) => saved,
        // No value is left, so both mean that the session has ended.
        (Saved::Removed, Ok(false)) => Saved::Removed,
        (saved, left) => {
            if let Saved::Stored { record, .. } = saved {
                // If that fails, its deadline removes it: no client was given its token.
                let _ = new.destroy(record, now).await;
            }
            left.map(|_| Saved::Ended)?
        }
    };
    match (&moved, login) {
        (Saved::Ended, Some(mut login)) => {
            // Nothing is taken over from the session that has ended, nor what was computed from its values.
            Arc::make_mut(&mut login).outdate();
            new.save(None, login, now).await
        }
        (Saved::Stored { record, .. }, Some(_)) => {
            // If that fails, the next login does it.
            let _ = new.end_surplus(record.clone(), now).await;
            Ok(moved)
        }
        _ => Ok(moved),
    }
}

/// Returns true if these changes of a session in `old` begin another session, which stays although that one has ended. In a cookie
/// store with revocations, a login does, too: it is behind the revocations that ended the session.
pub(super) fn begins_another(old: &dyn Store, changes: &Changes) -> bool {
    changes.restarts() || changes.logs_in() && old.ends_others_on_save()
}
