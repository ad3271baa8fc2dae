//! Work on session lists that a response does not depend on: a request waits for it for a limited time, then a task completes it.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use tokio::runtime::Handle;

use super::Inner;
use crate::store::Backend;

/// Work beside a write. The write decides the answer, and the entry that the work is on may lie on a server that hangs.
pub(super) struct OptionalWork(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl OptionalWork {
    pub(super) fn new(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Some(Box::pin(work)))
    }

    /// Waits for `main`, while the work makes progress, too.
    pub(super) async fn beside<T>(&mut self, main: impl Future<Output = T>) -> T {
        let mut main = pin!(main);
        poll_fn(|cx| {
            let polled = main.as_mut().poll(cx);
            if polled.is_pending() {
                let _ = self.poll(cx);
            }
            polled
        })
        .await
    }

    /// Waits until the work is done, or until `patience` is. The runtime then completes the work in the background.
    pub(super) async fn finish(mut self, patience: impl Future<Output = ()>) {
        let mut patience = pin!(patience);
        poll_fn(|cx| if self.poll(cx).is_ready() { Poll::Ready(()) } else { patience.as_mut().poll(cx) })
            .await;
        let Some(work) = self.0 else { return };
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(work)),
            Err(_) => work.await,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let done = self.0.as_mut().is_none_or(|work| work.as_mut().poll(cx).is_ready());
        if !done {
            return Poll::Pending;
        }
        self.0 = None;
        Poll::Ready(())
    }
}

impl<B: Backend> Inner<B> {
    /// Does work that no answer depends on: [finishes](OptionalWork::finish) it with the patience of the backend.
    pub(super) async fn finish_soon(&self, work: impl Future<Output = ()> + Send + 'static) {
        OptionalWork::new(work).finish(self.backend.__patience()).await;
    }
}
