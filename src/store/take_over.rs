//! Moving a session from one place to another: between stores, or between names of the cookie.

use std::sync::Arc;

use super::{Store, StoreFuture};
use crate::clock::Timestamp;
use crate::error::Error;
use crate::session::{Changes, Record, Saved};

/// Writes the session `record` of another store to `new`, with these changes. Then `leave` ends it in the other store, or returns
/// false if another request ended or moved it meanwhile: then it is not brought back.
pub(super) async fn take_over(
    new: &dyn Store,
    record: Record,
    mut changes: Arc<Changes>,
    now: Timestamp,
    leave: impl FnOnce(Record) -> StoreFuture<bool>,
) -> Result<Saved, Error> {
    let saved = if changes.restarts() {
        Arc::make_mut(&mut changes).set_after(Some(record.recency()));
        new.save(None, changes, now).await?
    } else {
        new.adopt(record.clone(), changes, now).await?
    };
    let superseded = leave(record).await;
    match (saved, superseded) {
        (saved, Ok(true)) => Ok(saved),
        // No value is left, so both mean that the session has ended.
        (Saved::Removed, Ok(false)) => Ok(Saved::Removed),
        (saved, superseded) => {
            if let Saved::Stored { record, .. } = saved {
                // If that fails, its deadline removes it: no client was given its token.
                let _ = new.destroy(record, now).await;
            }
            superseded.map(|_| Saved::Ended)
        }
    }
}
