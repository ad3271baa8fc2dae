//! A backend that fails on command.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::clock::{Clock, Timestamp};
use crate::error::Error;
use crate::id::EntryId;
use crate::store::{Backend, Replaced, Stored};

/// A primitive of a [`Backend`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(clippy::exhaustive_enums)] // the primitives of a backend
pub enum Primitive {
    /// [`Backend::fetch`].
    Fetch,
    /// [`Backend::create`].
    Create,
    /// [`Backend::replace`].
    Replace,
    /// [`Backend::touch`].
    Touch,
    /// [`Backend::delete`].
    Delete,
}

/// The way in which a primitive fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// It is not executed: the storage cannot be reached.
    Unreachable,
    /// It is executed, and its reply is lost.
    AnswerLost,
}

/// A wrapper around a backend that fails on command, with [`Error::unavailable`]. A clone is the same backend.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "memory")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), hyper_session::Error> {
/// use http::{Request, Response};
/// use hyper::service::Service;
/// use hyper_session::store::Memory;
/// use hyper_session::testing::{Fault, Faulty, Primitive};
/// use hyper_session::{Error, ServerStore, SessionHandle, session_fn};
///
/// let backend = Faulty::new(Memory::new());
/// let store = ServerStore::with_backend(backend.clone()).build()?;
/// let service = session_fn(store, |_: Request<()>, session: SessionHandle| async move {
///     session.load().await?.set("user", "Ada")?;
///     Ok::<_, Error>(Response::new(()))
/// });
///
/// backend.fail(Primitive::Create, Fault::Unreachable);
/// let response = service.call(Request::new(())).await?;
/// assert_eq!(response.status(), 503);
/// assert!(!response.headers().contains_key("set-cookie"), "nothing was stored, so nothing is promised");
///
/// backend.repair();
/// assert_eq!(service.call(Request::new(())).await?.status(), 200);
/// assert_eq!(backend.calls(Primitive::Create), 2);
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "memory"))]
/// # fn main() {}
/// ```
#[derive(Debug)]
pub struct Faulty<B> {
    inner: Arc<Inner<B>>,
}

#[derive(Debug)]
struct Inner<B> {
    backend: B,
    plan: Mutex<Plan>,
}

#[derive(Debug, Default)]
struct Plan {
    faults: BTreeMap<Primitive, Fault>,
    calls: BTreeMap<Primitive, usize>,
}

impl<B> Faulty<B> {
    /// Wraps `backend`, without faults so far.
    pub fn new(backend: B) -> Self {
        Self { inner: Arc::new(Inner { backend, plan: Mutex::default() }) }
    }

    /// Makes `primitive` fail like this from now on.
    pub fn fail(&self, primitive: Primitive, fault: Fault) {
        self.plan().faults.insert(primitive, fault);
    }

    /// Makes all primitives work from now on.
    pub fn repair(&self) {
        self.plan().faults.clear();
    }

    /// Returns how often `primitive` was called, whether it failed or not.
    pub fn calls(&self, primitive: Primitive) -> usize {
        self.plan().calls.get(&primitive).copied().unwrap_or(0)
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.inner.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Executes `call`, unless the present fault prevents it.
    async fn run<T>(
        &self,
        primitive: Primitive,
        call: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let fault = {
            let mut plan = self.plan();
            *plan.calls.entry(primitive).or_default() += 1;
            plan.faults.get(&primitive).copied()
        };
        match fault {
            None => call.await,
            Some(Fault::Unreachable) => Err(Error::unavailable("the test made the backend unreachable")),
            Some(Fault::AnswerLost) => {
                call.await?;
                Err(Error::unavailable("the test lost the backend's reply"))
            }
        }
    }
}

impl<B: Backend> Backend for Faulty<B> {
    async fn fetch(&self, id: EntryId, now: Timestamp) -> Result<Option<Stored>, Error> {
        self.run(Primitive::Fetch, self.inner.backend.fetch(id, now)).await
    }

    async fn create(&self, id: EntryId, entry: Stored, now: Timestamp) -> Result<bool, Error> {
        self.run(Primitive::Create, self.inner.backend.create(id, entry, now)).await
    }

    async fn replace(
        &self,
        id: EntryId,
        expected: Bytes,
        entry: Option<Stored>,
        now: Timestamp,
    ) -> Result<Replaced, Error> {
        self.run(Primitive::Replace, self.inner.backend.replace(id, expected, entry, now)).await
    }

    async fn touch(&self, id: EntryId, expires: Timestamp, now: Timestamp) -> Result<bool, Error> {
        self.run(Primitive::Touch, self.inner.backend.touch(id, expires, now)).await
    }

    async fn delete(&self, id: EntryId) -> Result<(), Error> {
        self.run(Primitive::Delete, self.inner.backend.delete(id)).await
    }

    fn __use_clock(&self, clock: &Arc<dyn Clock>) {
        self.inner.backend.__use_clock(clock);
    }
}

impl<B> Clone for Faulty<B> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}
