//! The future of a response: first the handler, then the commit, in one named type without a box.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;
use pin_project_lite::pin_project;

use super::commit::Commit;
use super::error_response::{self, FailureResponse, MadeFrom};
use super::handle::{Conclusion, SessionHandle};
use super::slot::Slot;
use crate::error::Error;
use crate::event::EventKind;
use crate::session::{Disposition, Reply};

pin_project! {
    /// The future that [`SessionService`](super::SessionService) and [`SessionFn`](super::SessionFn) return.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped before the handler is done, nothing is saved. If it is dropped afterwards, a save is done
    /// completely or not at all. Destroying and regenerating are completed in the background.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, R, F> {
        // The first field, because it is dropped first: the handler must not change the session when it is dropped.
        session: HandlerSession,
        // Dropped when it is done, so that it does not outlive the handler.
        #[pin]
        handler: Option<S>,
        failure: F,
        // The response, while the store works on the commit of its session.
        committing: Option<Box<(Response<R>, Commit)>>,
    }
}

impl<S, R, F> ResponseFuture<S, R, F> {
    pub(crate) fn new(handler: S, handle: SessionHandle, commits: bool, failure: F) -> Self {
        let session = HandlerSession { handle, commits, concluded: false };
        Self { session, handler: Some(handler), failure, committing: None }
    }
}

/// The session of a handler. If it is dropped before it was concluded, its changes are forgotten.
struct HandlerSession {
    handle: SessionHandle,
    /// False for a service inside of another session service with the same session, which commits it.
    commits: bool,
    /// The handler is done, its session is closed, and a commit has all that is to be saved.
    concluded: bool,
}

impl Drop for HandlerSession {
    fn drop(&mut self) {
        // Closed, so that a task that outlives the handler gets an error for a write that would be lost.
        if self.commits && !self.concluded {
            self.handle.discard();
        }
    }
}

impl<S, R, E, F> Future for ResponseFuture<S, R, F>
where
    S: Future<Output = Result<Response<R>, E>>,
    E: 'static,
    F: FailureResponse<R>,
{
    type Output = Result<Response<R>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let HandlerSession { handle, commits, concluded } = this.session;
        let slot = handle.slot();
        if let Some(committing) = this.committing.as_deref_mut() {
            let (_, commit) = committing;
            let committed = ready!(Pin::new(commit).poll(cx));
            #[allow(clippy::expect_used)] // it is checked above
            let (mut response, _) = *this.committing.take().expect("the response that is being committed");
            finish_committed(slot, committed, &mut response, this.failure);
            return Poll::Ready(Ok(response));
        }
        #[allow(clippy::expect_used)] // the contract of `Future::poll`; no input reaches this
        let handler = this.handler.as_mut().as_pin_mut().expect("ResponseFuture polled after it was ready");
        let answer = ready!(handler.poll(cx));
        this.handler.set(None);
        if !*commits {
            return Poll::Ready(answer);
        }
        let conclusion = handle
            .conclude(|slot| answer.as_ref().is_ok_and(|response| slot.is_spoken_for(response.headers())));
        let (mut response, made_from) = match respond(answer, this.failure) {
            Ok(responded) => responded,
            Err(error) => {
                handle.discard();
                return Poll::Ready(Err(error));
            }
        };
        let failed = made_from.is_some();
        if let Some(mut made_from) = made_from {
            if let Some(error) = made_from.report() {
                slot.emit(EventKind::HandlerFailed { error: &error });
            }
            made_from.mark(&mut response);
        }
        match conclusion {
            Conclusion::Untouched => *concluded = true,
            Conclusion::Asked(reply) => {
                *concluded = true;
                finish(slot, Ok(reply), &mut response, this.failure);
            }
            Conclusion::Unsettled(loaded, now) => {
                // Whatever rule there is for responses: the handler did not get to its end.
                let disposition = if failed { Disposition::DropValues } else { slot.disposition(&response) };
                let mut commit = slot.last_commit(loaded, now, &response, disposition);
                // From here on, the commit discards what it does not save. Before, code of the application may panic: an observer,
                // `on_failure`, or the rule for responses.
                *concluded = true;
                match Pin::new(&mut commit).poll(cx) {
                    Poll::Ready(committed) => finish_committed(slot, committed, &mut response, this.failure),
                    Poll::Pending => {
                        *this.committing = Some(Box::new((response, commit)));
                        return Poll::Pending;
                    }
                }
            }
        }
        Poll::Ready(Ok(response))
    }
}

/// Returns the response to the handler's answer, and the error that it was made from: one that the handler returned, or one that a
/// framework or a session service inside of this one has converted. An error of another type is returned.
fn respond<R, E: 'static>(
    answer: Result<Response<R>, E>,
    failure: &impl FailureResponse<R>,
) -> Result<(Response<R>, Option<MadeFrom>), E> {
    match answer {
        Ok(mut response) => {
            let made_from = error_response::take_mark(&mut response);
            Ok((response, made_from))
        }
        Err(error) => {
            let error = error_response::own(error)?;
            Ok((failure.response(&error), Some(MadeFrom::new(error))))
        }
    }
}

/// Writes the head of a response whose session was committed, or replaces the response.
fn finish_committed<R>(
    slot: &Slot,
    committed: Result<(), Error>,
    response: &mut Response<R>,
    failure: &impl FailureResponse<R>,
) {
    finish(slot, committed.map(|()| slot.take_reply()), response, failure);
}

/// Writes the head that carries `reply`, or replaces the response.
fn finish<R>(
    slot: &Slot,
    reply: Result<Reply, Error>,
    response: &mut Response<R>,
    failure: &impl FailureResponse<R>,
) {
    if let Err(error) = reply.and_then(|reply| slot.write_head(reply, response)) {
        let replacement = failure.response(&error);
        slot.replace(response, replacement);
    }
}

impl<S, R, F> fmt::Debug for ResponseFuture<S, R, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").field("handle", &self.session.handle).finish_non_exhaustive()
    }
}
