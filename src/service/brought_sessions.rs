//! The sessions that a request brought beside its own: a handler that ends or replaces its session ends these, too.

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::clock::Timestamp;
use crate::session::{Recency, Record};
use crate::store::{EndedBy, Store, StoreFuture};

/// A token of the request, of a session that it cannot use.
pub(super) type UnusedToken = Zeroizing<Vec<u8>>;

/// The sessions that a request brought beside its own, as one load of its session found them.
pub(super) struct BroughtSessions {
    /// All authentic sessions, the newest first. On a registration of a device, the session to which it was offered comes before
    /// the others. Empty if there is only the session of the request, and all cookies were tried.
    pub(super) several: Vec<Record>,
    /// The first of `several` is the session of the request. Otherwise all are older than a session whose token the request does
    /// not have.
    pub(super) has_newest: bool,
    /// Sessions that were not written after this do not count.
    #[cfg_attr(not(feature = "device-bound"), allow(dead_code))]
    pub(super) hidden: Option<Recency>,
    /// The tokens that were superseded moments ago.
    pub(super) superseded: Vec<UnusedToken>,
    /// The tokens of sessions that have ended only for this request: they have expired, or this host cannot judge them.
    pub(super) unusable: Vec<UnusedToken>,
}

impl BroughtSessions {
    /// Ends the authentic sessions among these in `store`. If an action of the user ends more, `beyond_authentic` is that action: it
    /// also ends the sessions behind superseded tokens, and sessions that may live elsewhere. Tokens that lead to the session `unless`
    /// do not count. `None` if there are none.
    pub(super) fn end(
        &self,
        beyond_authentic: Option<EndedBy>,
        unless: Option<&Record>,
        store: &Arc<dyn Store>,
        now: Timestamp,
    ) -> Option<StoreFuture<()>> {
        let others = self.several.get(usize::from(self.has_newest)..).unwrap_or_default().to_vec();
        let has_tokens = !self.superseded.is_empty() || !self.unusable.is_empty();
        let tokens = beyond_authentic
            .filter(|_| has_tokens)
            .map(|by| (by, self.superseded.clone(), self.unusable.clone()));
        if others.is_empty() && tokens.is_none() {
            return None;
        }
        let (store, unless) = (Arc::clone(store), unless.cloned());
        Some(StoreFuture::boxed(async move {
            // All are tried, even if one fails.
            let mut ended = Ok(());
            for other in others {
                ended = ended.and(store.destroy(other, now).await);
            }
            let Some((by, superseded, unusable)) = tokens else { return ended };
            for token in superseded {
                ended = ended.and(store.end_superseded(&token, unless.as_ref(), by, now).await);
            }
            for token in unusable {
                ended = ended.and(store.end_unusable(&token, unless.as_ref(), now).await);
            }
            ended
        }))
    }
}
