//! The future of a response: the handler, then the commit, in one named type without a box.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;
use pin_project_lite::pin_project;

use super::begin::SessionHandle;
use super::failure::FailureResponse;
use super::finish::{self, Finishing};

pin_project! {
    /// What [`SessionService`](super::SessionService) and [`SessionFn`](super::SessionFn) return.
    ///
    /// # Cancel safety
    ///
    /// Dropped before the handler is done, nothing is saved. Dropped afterwards, a save is done or not done, never in
    /// parts; destroying and regenerating go on to their end in the background.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, R, F> {
        #[pin]
        handler: S,
        handle: SessionHandle,
        failure: F,
        finishing: Option<(Response<R>, Finishing)>,
    }
}

impl<S, R, F> ResponseFuture<S, R, F> {
    pub(super) fn new(handler: S, handle: SessionHandle, failure: F) -> Self {
        Self {
            handler,
            handle,
            failure,
            finishing: None,
        }
    }
}

impl<S, R, E, F> Future for ResponseFuture<S, R, F>
where
    S: Future<Output = Result<Response<R>, E>>,
    F: FailureResponse<R>,
{
    type Output = Result<Response<R>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if this.finishing.is_none() {
            // An error of the handler passes as it is: nothing is saved.
            let response = ready!(this.handler.poll(cx));
            let asked = this.handle.close();
            let (response, asked) = match (response, asked) {
                (Ok(response), Some(asked)) => (response, asked),
                (response, _) => return Poll::Ready(response),
            };
            let finishing = finish::begin(asked, &response);
            *this.finishing = Some((response, finishing));
        }
        let committed = match this.finishing {
            Some((
                _,
                Finishing {
                    commit: Some((commit, _)),
                    ..
                },
            )) => ready!(Pin::new(commit).poll(cx)),
            _ => Ok(()),
        };
        #[allow(clippy::expect_used)] // the contract of `Future::poll`; no input reaches this
        let (mut response, finishing) = this
            .finishing
            .take()
            .expect("ResponseFuture polled after it was ready");
        let written = committed.and_then(|()| finishing.write_head(&mut response));
        Poll::Ready(Ok(match written {
            Ok(()) => response,
            Err(error) => this.failure.response(&error),
        }))
    }
}

impl<S, R, F> fmt::Debug for ResponseFuture<S, R, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("handle", &self.handle)
            .finish_non_exhaustive()
    }
}
