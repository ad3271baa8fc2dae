//! A backend that fails on command.

use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;

use bytes::Bytes;

use crate::clock::{Clock, Timestamp};
use crate::error::Error;
use crate::id::EntryId;
use crate::lock::lock;
use crate::store::{Backend, Replaced, Stored};

/// A primitive of a [`Backend`], for [`Faulty`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Primitive {
    /// [`Backend::fetch`].
    Fetch,
    /// [`Backend::create`].
    Create,
    /// [`Backend::replace`] and [`Backend::exchange`].
    Replace,
    /// [`Backend::touch`] and [`Backend::renew`].
    Touch,
    /// [`Backend::delete`].
    Delete,
}

/// The way in which a primitive fails, for [`Faulty`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// It is not executed: the storage cannot be reached.
    Unreachable,
    /// It is executed, and its reply is lost.
    AnswerLost,
    /// It is executed twice, as by a client that sends a lost command again. The second reply counts.
    Repeated,
    /// It is executed when the task is polled again. A client may go away in between.
    Delayed,
}

/// A call of a primitive, before it is executed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Call {
    /// The primitive.
    pub primitive: Primitive,
    /// The entry that it is about.
    pub id: EntryId,
    /// The entry that `create`, `replace` or `exchange` would write. `None` if it would delete the entry.
    pub entry: Option<Stored>,
}

/// Decides how a call fails.
type Rule = dyn Fn(&Call) -> Option<Fault> + Send + Sync;

/// A wrapper around a backend that fails on command. Its errors are [`Error::unavailable`]. A clone is the same backend.
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

#[derive(Default)]
struct Plan {
    faults: BTreeMap<Primitive, Fault>,
    rule: Option<Arc<Rule>>,
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

    /// Lets `rule` decide from now on how each call fails, if it does. It sees every call in order, so that a test can note
    /// them, or let the third one fail. A fault from [`fail`](Self::fail) takes precedence.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "memory")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), hyper_session::Error> {
    /// use http::Request;
    /// use hyper_session::ServerStore;
    /// use hyper_session::store::Memory;
    /// use hyper_session::testing::{self, Fault, Faulty, Primitive};
    ///
    /// let backend = Faulty::new(Memory::new());
    /// let store = ServerStore::with_backend(backend.clone()).build()?;
    ///
    /// // A write that is sent twice creates one session.
    /// backend.intercept(|call| (call.primitive == Primitive::Create).then_some(Fault::Repeated));
    /// let request = testing::with_session(Request::new(()), &store, |session| session.set("user", "Ada")).await?;
    /// assert!(request.headers().contains_key("cookie"));
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "memory"))]
    /// # fn main() {}
    /// ```
    pub fn intercept(&self, rule: impl Fn(&Call) -> Option<Fault> + Send + Sync + 'static) {
        self.plan().rule = Some(Arc::new(rule));
    }

    /// Makes all primitives work from now on.
    pub fn repair(&self) {
        let mut plan = self.plan();
        plan.faults.clear();
        plan.rule = None;
    }

    /// Returns how often `primitive` was called, whether it failed or not.
    pub fn calls(&self, primitive: Primitive) -> usize {
        self.plan().calls.get(&primitive).copied().unwrap_or(0)
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        lock(&self.inner.plan)
    }

    /// Executes `work`, unless a fault prevents it.
    async fn run<T, W: Future<Output = Result<T, Error>> + Send>(
        &self,
        call: Call,
        work: impl Fn() -> W + Send,
    ) -> Result<T, Error> {
        let (fault, rule) = {
            let mut plan = self.plan();
            *plan.calls.entry(call.primitive).or_default() += 1;
            (plan.faults.get(&call.primitive).copied(), plan.rule.clone())
        };
        // The rule may use this backend.
        let decided = rule.and_then(|rule| rule(&call));
        match fault.or(decided) {
            None => work().await,
            Some(Fault::Unreachable) => Err(Error::unavailable("the test made the backend unreachable")),
            Some(Fault::AnswerLost) => {
                work().await?;
                Err(Error::unavailable("the test lost the backend's reply"))
            }
            Some(Fault::Repeated) => {
                work().await?;
                work().await
            }
            Some(Fault::Delayed) => {
                next_poll().await;
                work().await
            }
        }
    }
}

/// Waits until the task is polled again.
async fn next_poll() {
    let mut polled = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut polled, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("faults", &self.faults)
            .field("calls", &self.calls)
            .finish_non_exhaustive()
    }
}

impl<B: Backend> Backend for Faulty<B> {
    async fn fetch(&self, id: EntryId, now: Timestamp) -> Result<Option<Stored>, Error> {
        let call = Call { primitive: Primitive::Fetch, id, entry: None };
        self.run(call, || self.inner.backend.fetch(id, now)).await
    }

    async fn create(&self, id: EntryId, entry: Stored, now: Timestamp) -> Result<bool, Error> {
        let call = Call { primitive: Primitive::Create, id, entry: Some(entry.clone()) };
        self.run(call, || self.inner.backend.create(id, entry.clone(), now)).await
    }

    async fn replace(
        &self,
        id: EntryId,
        expected: Bytes,
        entry: Option<Stored>,
        now: Timestamp,
    ) -> Result<Replaced, Error> {
        let call = Call { primitive: Primitive::Replace, id, entry: entry.clone() };
        self.run(call, || self.inner.backend.replace(id, expected.clone(), entry.clone(), now)).await
    }

    async fn touch(&self, id: EntryId, expires: Timestamp, now: Timestamp) -> Result<bool, Error> {
        let call = Call { primitive: Primitive::Touch, id, entry: None };
        self.run(call, || self.inner.backend.touch(id, expires, now)).await
    }

    async fn exchange(
        &self,
        id: EntryId,
        seen: Stored,
        entry: Option<Stored>,
        now: Timestamp,
    ) -> Result<Replaced, Error> {
        let call = Call { primitive: Primitive::Replace, id, entry: entry.clone() };
        self.run(call, || self.inner.backend.exchange(id, seen.clone(), entry.clone(), now)).await
    }

    async fn renew(
        &self,
        id: EntryId,
        seen: Stored,
        expires: Timestamp,
        now: Timestamp,
    ) -> Result<Replaced, Error> {
        let call = Call { primitive: Primitive::Touch, id, entry: None };
        self.run(call, || self.inner.backend.renew(id, seen.clone(), expires, now)).await
    }

    fn time(&self, now: Timestamp) -> Timestamp {
        self.inner.backend.time(now)
    }

    async fn delete(&self, id: EntryId) -> Result<(), Error> {
        let call = Call { primitive: Primitive::Delete, id, entry: None };
        self.run(call, || self.inner.backend.delete(id)).await
    }

    async fn __fetch_list(&self, id: EntryId, now: Timestamp) -> Result<Option<Stored>, Error> {
        let call = Call { primitive: Primitive::Fetch, id, entry: None };
        self.run(call, || self.inner.backend.__fetch_list(id, now)).await
    }

    async fn __patience(&self) {
        self.inner.backend.__patience().await;
    }

    async fn __after_steps(&self, steps: u32) {
        self.inner.backend.__after_steps(steps).await;
    }

    fn __check_len(&self, len: usize) -> Result<(), Error> {
        self.inner.backend.__check_len(len)
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
