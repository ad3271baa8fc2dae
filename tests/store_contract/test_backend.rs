//! The backend of these tests: in this process, or, within `on_redis` or `on_sqlite`, in a real Redis or SQLite file.

use bytes::Bytes;
use hyper_session::store::{Backend, EntryId, Memory, Replaced, Stored};
use hyper_session::{Error, Timestamp};

pub(crate) enum Place {
    Memory(Memory),
    #[cfg(feature = "redis")]
    Redis(shared::Corner<hyper_session::store::redis::Redis>),
    #[cfg(feature = "sqlite")]
    Sqlite(shared::Corner<hyper_session::store::sqlite::Sqlite>),
}

impl Default for Place {
    fn default() -> Self {
        #[cfg(feature = "redis")]
        if let Some(corner) = redis::corner() {
            return Self::Redis(corner);
        }
        #[cfg(feature = "sqlite")]
        if let Some(corner) = sqlite::corner() {
            return Self::Sqlite(corner);
        }
        Self::Memory(Memory::new())
    }
}

/// Calls the method of whichever place it is. On Redis and SQLite the call is over when it returns, as it is in memory: the tests
/// decide on the order of calls by the order in which they poll.
macro_rules! call {
    ($place:ident . $method:ident ( $id:ident $(, $argument:expr)* )) => {
        match $place {
            Place::Memory(memory) => memory.$method($id, $($argument),*).await,
            #[cfg(feature = "redis")]
            Place::Redis(corner) => corner.wait(corner.backend().$method(corner.place($id), $($argument),*)),
            #[cfg(feature = "sqlite")]
            Place::Sqlite(corner) => corner.wait(corner.backend().$method(corner.place($id), $($argument),*)),
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

/// A store in a server or a file, which all backends of a test share.
#[cfg(any(feature = "redis", feature = "sqlite"))]
mod shared {
    use std::future::Future;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use hyper_session::ServerStore;
    use hyper_session::store::{Backend, EntryId};
    use tokio::runtime::Runtime;

    /// The store, and a runtime on which each of its calls runs to its end.
    pub(super) struct Shared<B> {
        pub(super) store: ServerStore<B>,
        pub(super) runtime: Runtime,
    }

    /// A part of it for one backend: the same ids are at other places than those of any other.
    pub(crate) struct Corner<B>(Arc<Shared<B>>, u128);

    impl<B: Backend> Corner<B> {
        pub(super) fn of(shared: Arc<Shared<B>>) -> Self {
            static NEXT: AtomicU64 = AtomicU64::new(1);
            Self(shared, u128::from(NEXT.fetch_add(1, Ordering::SeqCst)))
        }

        pub(super) fn backend(&self) -> &B {
            self.0.store.backend()
        }

        pub(super) fn place(&self, id: EntryId) -> EntryId {
            EntryId::from_bytes((u128::from_be_bytes(id.to_bytes()) ^ self.1).to_be_bytes())
        }

        pub(super) fn wait<T>(&self, call: impl Future<Output = T>) -> T {
            self.0.runtime.block_on(call)
        }
    }

    pub(super) fn runtime() -> Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }
}

#[cfg(feature = "redis")]
pub(crate) use redis::on_redis;

#[cfg(feature = "redis")]
mod redis {
    use std::cell::RefCell;
    use std::sync::Arc;

    use hyper_session::RedisStore;
    use hyper_session::store::redis::Redis;

    use super::shared::{Corner, Shared, runtime};
    use crate::server::{Server, unhurried};

    thread_local! {
        static CURRENT: RefCell<Option<Arc<Shared<Redis>>>> = const { RefCell::new(None) };
    }

    pub(super) fn corner() -> Option<Corner<Redis>> {
        CURRENT.with_borrow(Clone::clone).map(Corner::of)
    }

    /// Runs a test whose backends are all in one Redis.
    pub(crate) fn on_redis(test: impl FnOnce()) {
        let server = Server::start();
        let runtime = runtime();
        let builder = RedisStore::builder(server.url()).prefix("test").development();
        let store = runtime.block_on(unhurried(builder).connect()).unwrap();
        CURRENT.set(Some(Arc::new(Shared { store, runtime })));
        // Connecting writes, too.
        server.cli(&["CONFIG", "RESETSTAT"]);
        test();
        assert!(server.command_counts().contains_key("set"), "it ran on Redis");
        CURRENT.set(None);
    }
}

#[cfg(feature = "sqlite")]
pub(crate) use sqlite::on_sqlite;

#[cfg(feature = "sqlite")]
mod sqlite {
    use std::cell::RefCell;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use hyper_session::SqliteStore;
    use hyper_session::store::sqlite::{Sqlite, Synchronous};

    use super::shared::{Corner, Shared, runtime};
    use crate::support::UNHURRIED;

    thread_local! {
        static CURRENT: RefCell<Option<Arc<Shared<Sqlite>>>> = const { RefCell::new(None) };
    }

    pub(super) fn corner() -> Option<Corner<Sqlite>> {
        CURRENT.with_borrow(Clone::clone).map(Corner::of)
    }

    /// Runs a test whose backends are all in one SQLite file.
    pub(crate) fn on_sqlite(test: impl FnOnce()) {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("hyper-session-contract-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        // These tests are not about power cuts, and syncs are most of the time.
        let builder = SqliteStore::builder(folder.join("sessions.db")).synchronous(Synchronous::Normal);
        let store = builder.busy_timeout(UNHURRIED).development().open().unwrap();
        CURRENT.set(Some(Arc::new(Shared { store: store.clone(), runtime: runtime() })));
        test();
        assert!(store.backend().stats().commits > 0, "it ran on SQLite");
        CURRENT.set(None);
        drop(store);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
