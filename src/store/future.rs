//! The future of a store's verb: an immediate result, or a boxed future.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::error::Error;

/// The future that a [verb](super::Verbs) of a store returns. An immediate result costs no allocation.
#[must_use = "futures do nothing unless polled"]
pub struct StoreFuture<T> {
    inner: Inner<T>,
}

enum Inner<T> {
    Ready(Option<Result<T, Error>>),
    Boxed(Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>),
}

impl<T> StoreFuture<T> {
    pub(crate) fn ready(value: Result<T, Error>) -> Self {
        Self { inner: Inner::Ready(Some(value)) }
    }

    pub(crate) fn boxed(future: impl Future<Output = Result<T, Error>> + Send + 'static) -> Self {
        Self { inner: Inner::Boxed(Box::pin(future)) }
    }

    /// Returns true if the result is there already.
    pub(crate) fn is_immediate(&self) -> bool {
        matches!(self.inner, Inner::Ready(_))
    }

    /// Returns the result, or the future if it is not there yet.
    pub(crate) fn into_immediate(self) -> Result<Result<T, Error>, Self> {
        match self.inner {
            Inner::Ready(Some(value)) => Ok(value),
            inner => Err(Self { inner }),
        }
    }
}

// No field is pinned structurally: the value is moved out, and the box pins its own contents.
impl<T> Unpin for StoreFuture<T> {}

impl<T> Future for StoreFuture<T> {
    type Output = Result<T, Error>;

    /// # Panics
    ///
    /// If it is polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.inner {
            #[allow(clippy::expect_used)] // the contract of `Future::poll`; no input reaches this
            Inner::Ready(value) => Poll::Ready(value.take().expect("StoreFuture polled after it was ready")),
            Inner::Boxed(future) => future.as_mut().poll(cx),
        }
    }
}

impl<T> fmt::Debug for StoreFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreFuture").finish_non_exhaustive()
    }
}
