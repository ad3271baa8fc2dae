//! `Connection`: the store and the last cookie, which the requests of one connection share.

use std::sync::Arc;

use super::memo::Memo;
use crate::clock::Timestamp;
use crate::config::Config;
#[cfg(feature = "device-bound")]
use crate::device_bound::BoundCookieMemo;
use crate::session::{PayloadFormat, Record};
use crate::store::Store;

/// A store with the memo of one connection.
pub(crate) struct Connection {
    store: Arc<dyn Store>,
    memo: Option<Memo>,
    /// A session in the memo may have ended, through another connection or host.
    may_end_elsewhere: bool,
    /// Services that are cloned for each request share it.
    is_shared: bool,
}

impl Connection {
    /// Creates the first connection of a service. It has a memo if the store wants one.
    pub(crate) fn new(store: impl Store) -> Arc<Self> {
        let memo = store.config().settings.connection_memo.then(Memo::default);
        let may_end_elsewhere = !store.config().only_in_cookie;
        Arc::new(Self { store: Arc::new(store), memo, may_end_elsewhere, is_shared: false })
    }

    /// Creates a connection for services that are cloned for each request. A memo would be lost with each clone.
    #[cfg(any(feature = "tower", feature = "testing"))]
    pub(crate) fn without_memo(store: impl Store) -> Arc<Self> {
        Arc::new(Self { store: Arc::new(store), memo: None, may_end_elsewhere: false, is_shared: true })
    }

    /// Returns another connection to the same service. Nothing that one connection learned is used for another connection.
    pub(crate) fn another(self: &Arc<Self>) -> Arc<Self> {
        if self.is_shared {
            return Arc::clone(self);
        }
        // Also without a memo: each request counts a reference to its connection, and processors must not share that count.
        Arc::new(Self {
            store: Arc::clone(&self.store),
            memo: self.memo.as_ref().map(|_| Memo::default()),
            may_end_elsewhere: self.may_end_elsewhere,
            is_shared: false,
        })
    }

    /// Returns true if both have the same store. Clones of a store share their options.
    pub(super) fn is_of_same_store(&self, other: &Self) -> bool {
        std::ptr::eq(self.config(), other.config())
    }

    pub(super) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    pub(crate) fn config(&self) -> &Config {
        self.store.config()
    }

    /// Returns the record in `token`, if the last request of this connection had the same token.
    pub(super) fn recall(&self, token: &[u8], now: Timestamp) -> Option<Record> {
        let record = self.memo.as_ref()?.recall(token, now)?;
        // A record that the memo does not vouch for is loaded, and refused by the store.
        (!self.may_end_elsewhere || self.store.is_still_valid(&record, now)).then_some(record)
    }

    /// Returns true if [`opened`](Self::opened) keeps what it is given.
    pub(super) fn has_memo(&self) -> bool {
        self.memo.is_some()
    }

    /// Returns the memo of the bound cookie.
    #[cfg(feature = "device-bound")]
    pub(super) fn bound_cookie_memo(&self) -> Option<&BoundCookieMemo> {
        self.memo.as_ref()?.bound_cookie()
    }

    /// Keeps `record`, which was found in `token`.
    pub(super) fn opened(&self, token: &[u8], record: &Record, now: Timestamp) {
        if let Some(memo) = &self.memo {
            memo.keep(token, record, now);
        }
    }

    /// Keeps `record`, which was written into `token`. The client will send it with the next request.
    pub(super) fn sealed(&self, token: &[u8], record: &Record, now: Timestamp) {
        // A session that was saved as JSON may read back in another form: a number as another type of the same value.
        if self.config().settings.format == PayloadFormat::MessagePack {
            self.opened(token, record, now);
        }
    }

    /// Drops what the memo keeps, because the session was ended.
    pub(super) fn ended(&self) {
        if let Some(memo) = &self.memo {
            memo.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AppKey;
    use crate::CookieStore;

    // Each request writes to the reference count of its connection, so connections on several processors must not share it.
    #[test]
    fn each_connection_has_a_reference_count_of_its_own() {
        for memo in [true, false] {
            let store =
                CookieStore::builder(AppKey::generate().unwrap()).connection_memo(memo).build().unwrap();
            let first = Connection::new(store);
            let (second, third) = (first.another(), first.another());
            for (one, other) in [(&first, &second), (&first, &third), (&second, &third)] {
                assert!(!Arc::ptr_eq(one, other) && one.is_of_same_store(other), "{memo}");
            }
            assert_eq!((second.has_memo(), second.may_end_elsewhere), (memo, first.may_end_elsewhere));
        }
    }

    #[cfg(any(feature = "tower", feature = "testing"))]
    #[test]
    fn services_that_are_cloned_for_each_request_share_a_connection() {
        let store = CookieStore::builder(AppKey::generate().unwrap()).build().unwrap();
        let first = Connection::without_memo(store);
        assert!(Arc::ptr_eq(&first, &first.another()) && !first.has_memo());
    }
}
