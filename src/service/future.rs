//! The future of a response: the handler, then the commit, in one named type without a box.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;
use pin_project_lite::pin_project;

use super::commit::Commit;
use super::failure::FailureResponse;
use super::finish;
use super::handle::{Conclusion, SessionHandle};
use crate::error::Error;

pin_project! {
    /// What [`SessionService`](super::SessionService) and [`SessionFn`](super::SessionFn) return.
    ///
    /// # Cancel safety
    ///
    /// Dropped before the handler is done, nothing is saved. Dropped afterwards, a save is done or not done, never in
    /// parts; destroying and regenerating go on to their end in the background.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, R, F> {
        // Until it is done: what it holds is not to outlive it.
        #[pin]
        handler: Option<S>,
        handle: SessionHandle,
        // The handler is done, and its session closed.
        concluded: bool,
        failure: F,
        // The response, while its session is being committed by a store that does not answer at once.
        committing: Option<Box<(Response<R>, Commit)>>,
    }

    impl<S, R, F> PinnedDrop for ResponseFuture<S, R, F> {
        // A task that outlives the handler must not believe that what it writes will be kept.
        fn drop(this: Pin<&mut Self>) {
            if !this.concluded {
                this.handle.discard();
            }
        }
    }
}

impl<S, R, F> ResponseFuture<S, R, F> {
    pub(crate) fn new(handler: S, handle: SessionHandle, failure: F) -> Self {
        Self { handler: Some(handler), handle, concluded: false, failure, committing: None }
    }
}

impl<S, R, E, F> Future for ResponseFuture<S, R, F>
where
    S: Future<Output = Result<Response<R>, E>>,
    F: FailureResponse<R>,
{
    type Output = Result<Response<R>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let slot = this.handle.slot();
        let (mut response, reply) = if let Some(committing) = this.committing.as_deref_mut() {
            let (_, commit) = committing;
            let committed = ready!(Pin::new(commit).poll(cx));
            #[allow(clippy::expect_used)] // it was there two lines above
            let (response, _) = *this.committing.take().expect("the response that is being committed");
            (response, committed.map(|()| finish::reply(slot)))
        } else {
            #[allow(clippy::expect_used)] // the contract of `Future::poll`; no input reaches this
            let handler =
                this.handler.as_mut().as_pin_mut().expect("ResponseFuture polled after it was ready");
            let answer = ready!(handler.poll(cx));
            this.handler.set(None);
            let conclusion = this.handle.conclude();
            *this.concluded = true;
            match (conclusion, answer) {
                (Conclusion::Untouched, answer) => return Poll::Ready(answer),
                // An error of the handler passes as it is: nothing is saved.
                (_, Err(error)) => {
                    this.handle.discard();
                    return Poll::Ready(Err(error));
                }
                (Conclusion::Asked(reply), Ok(response)) => (response, Ok(reply)),
                (Conclusion::Unsettled(loaded), Ok(response)) => {
                    let mut commit = finish::commit(slot, loaded, response.status());
                    match Pin::new(&mut commit).poll(cx) {
                        Poll::Ready(committed) => (response, committed.map(|()| finish::reply(slot))),
                        Poll::Pending => {
                            *this.committing = Some(Box::new((response, commit)));
                            return Poll::Pending;
                        }
                    }
                }
            }
        };
        let written: Result<(), Error> =
            reply.and_then(|reply| finish::write_head(slot, reply, &mut response));
        if let Err(error) = written {
            response = this.failure.response(&error);
            finish::write_failure_head(slot, &mut response);
        }
        Poll::Ready(Ok(response))
    }
}

impl<S, R, F> fmt::Debug for ResponseFuture<S, R, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").field("handle", &self.handle).finish_non_exhaustive()
    }
}
