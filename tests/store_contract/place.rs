//! Where the entries of these tests are: in this process, or, for what runs within `on_redis`, in a real Redis.

use bytes::Bytes;
use hyper_session::store::{Backend, EntryId, Memory, Replaced, Stored};
use hyper_session::{Error, Timestamp};

pub(crate) enum Place {
    Memory(Memory),
    #[cfg(feature = "redis")]
    Redis(redis::Corner),
}

impl Default for Place {
    fn default() -> Self {
        #[cfg(feature = "redis")]
        if let Some(corner) = redis::Corner::new() {
            return Self::Redis(corner);
        }
        Self::Memory(Memory::new())
    }
}

/// Calls the method of whichever place it is. On Redis the call is over when it returns, as it is in memory: the tests
/// decide on the order of calls by the order in which they poll.
macro_rules! call {
    ($place:ident . $method:ident ( $id:ident $(, $argument:expr)* )) => {
        match $place {
            Place::Memory(memory) => memory.$method($id, $($argument),*).await,
            #[cfg(feature = "redis")]
            Place::Redis(corner) => corner.wait(corner.backend().$method(corner.place($id), $($argument),*)),
        }
    };
}

impl Backend for Place {
    async fn fetch(&self, id: EntryId, now: Timestamp) -> Result<Option<Stored>, Error> {
        call!(self.fetch(id, now))
    }

    async fn create(&self, id: EntryId, entry: Stored, now: Timestamp) -> Result<bool, Error> {
        call!(self.create(id, entry, now))
    }

    async fn replace(
        &self,
        id: EntryId,
        expected: Bytes,
        entry: Option<Stored>,
        now: Timestamp,
    ) -> Result<Replaced, Error> {
        call!(self.replace(id, expected, entry, now))
    }

    async fn touch(&self, id: EntryId, expires: Timestamp, now: Timestamp) -> Result<bool, Error> {
        call!(self.touch(id, expires, now))
    }

    async fn renew(
        &self,
        id: EntryId,
        seen: Stored,
        expires: Timestamp,
        now: Timestamp,
    ) -> Result<Replaced, Error> {
        call!(self.renew(id, seen, expires, now))
    }

    async fn exchange(
        &self,
        id: EntryId,
        seen: Stored,
        entry: Option<Stored>,
        now: Timestamp,
    ) -> Result<Replaced, Error> {
        call!(self.exchange(id, seen, entry, now))
    }

    async fn delete(&self, id: EntryId) -> Result<(), Error> {
        call!(self.delete(id))
    }
}

#[cfg(feature = "redis")]
pub(crate) use redis::on_redis;

#[cfg(feature = "redis")]
mod redis {
    use std::cell::RefCell;
    use std::future::Future;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use hyper_session::RedisStore;
    use hyper_session::store::EntryId;
    use hyper_session::store::redis::Redis;
    use tokio::runtime::Runtime;

    use crate::server::Server;

    thread_local! {
        static CURRENT: RefCell<Option<Arc<Blocking>>> = const { RefCell::new(None) };
    }

    /// A store in Redis, and a runtime on which each of its calls runs to its end.
    struct Blocking {
        store: RedisStore,
        runtime: Runtime,
    }

    /// A part of it for one backend: the same ids are at other places than those of any other.
    pub(crate) struct Corner(Arc<Blocking>, u128);

    impl Corner {
        pub(super) fn new() -> Option<Self> {
            static NEXT: AtomicU64 = AtomicU64::new(1);
            let number = u128::from(NEXT.fetch_add(1, Ordering::SeqCst));
            CURRENT.with_borrow(Clone::clone).map(|redis| Self(redis, number))
        }

        pub(super) fn backend(&self) -> &Redis {
            self.0.store.backend()
        }

        pub(super) fn place(&self, id: EntryId) -> EntryId {
            EntryId::from_bytes((u128::from_be_bytes(id.to_bytes()) ^ self.1).to_be_bytes())
        }

        pub(super) fn wait<T>(&self, call: impl Future<Output = T>) -> T {
            self.0.runtime.block_on(call)
        }
    }

    /// Runs a test whose backends are all in one Redis.
    pub(crate) fn on_redis(test: impl FnOnce()) {
        let server = Server::start();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let builder = RedisStore::builder(server.url()).prefix("test").development();
        let store = runtime.block_on(builder.connect()).unwrap();
        CURRENT.set(Some(Arc::new(Blocking { store, runtime })));
        test();
        assert!(server.cli(&["INFO", "commandstats"]).contains("cmdstat_evalsha"), "it ran on Redis");
        CURRENT.set(None);
    }
}
