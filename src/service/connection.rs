//! `Connection`: the store and the last cookie, which the requests of one connection share.

use std::sync::Arc;

use super::memo::Memo;
use crate::clock::Timestamp;
use crate::config::Config;
use crate::session::{PayloadFormat, Record};
use crate::store::Store;

/// A store, as one connection sees it.
pub(crate) struct Connection {
    store: Arc<dyn Store>,
    memo: Option<Memo>,
    /// A session may end while the memo has it.
    revocable: bool,
}

impl Connection {
    /// The first connection of a service, with a memo where the store wants one.
    pub(crate) fn new(store: impl Store) -> Arc<Self> {
        let memo = store.config().connection_memo.then(Memo::default);
        let revocable = store.config().revocable;
        Arc::new(Self { store: Arc::new(store), memo, revocable })
    }

    /// For services that are cloned for each request: what one clone learned, no other would ever use.
    #[cfg(any(feature = "tower", feature = "testing"))]
    pub(crate) fn without_memo(store: impl Store) -> Arc<Self> {
        Arc::new(Self { store: Arc::new(store), memo: None, revocable: false })
    }

    /// Another connection to the same service. Nothing that one connection learned is used for another connection.
    pub(crate) fn another(self: &Arc<Self>) -> Arc<Self> {
        match self.memo {
            None => Arc::clone(self),
            Some(_) => Arc::new(Self {
                store: Arc::clone(&self.store),
                memo: Some(Memo::default()),
                revocable: self.revocable,
            }),
        }
    }

    /// Returns true if both are of one store: clones of a store share their options.
    pub(super) fn is_of_same_store(&self, other: &Self) -> bool {
        std::ptr::eq(self.config(), other.config())
    }

    pub(super) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    pub(crate) fn config(&self) -> &Config {
        self.store.config()
    }

    /// The record in `token`, if this connection brought the same one last time.
    pub(super) fn recall(&self, token: &[u8], now: Timestamp) -> Option<Record> {
        let record = self.memo.as_ref()?.recall(token, now)?;
        // A record that the memo does not vouch for is loaded, and refused by the store.
        (!self.revocable || self.store.is_still_valid(&record, now)).then_some(record)
    }

    /// `record` was found in `token`.
    pub(super) fn opened(&self, token: &[u8], record: &Record, now: Timestamp) {
        if let Some(memo) = &self.memo {
            memo.keep(token, record, now);
        }
    }

    /// `record` was put into `token`, which the client will bring back.
    pub(super) fn sealed(&self, token: &[u8], record: &Record, now: Timestamp) {
        // JSON has no form for some values (not a number becomes null): what is read back is not quite what was written.
        if self.config().format == PayloadFormat::MessagePack {
            self.opened(token, record, now);
        }
    }

    /// The session was ended.
    pub(super) fn ended(&self) {
        if let Some(memo) = &self.memo {
            memo.forget();
        }
    }
}
