//! Ending the other sessions of a subject from a handler.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use super::slot::Slot;
use crate::error::{Error, Kind};
use crate::event::{EventKind, Operation};
use crate::session::{Session, SessionId};

type Ending = Pin<Box<dyn Future<Output = Result<Option<usize>, Failure>> + Send>>;

/// The step that failed.
enum Failure {
    /// The session has no subject.
    NotLoggedIn,
    /// The save of this session, before the other sessions were touched. If it was the store, the commit has emitted the event.
    Saving(Error),
    /// The end of the other sessions.
    Others(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        if error.is_not_logged_in() { Self::NotLoggedIn } else { Self::Saving(error) }
    }
}

/// The facts about an end of other sessions that its first step needs.
pub(super) struct EndOfOthers {
    /// The store ends them when it saves this session.
    pub(super) on_save: bool,
    in_background: AtomicBool,
}

impl EndOfOthers {
    /// Returns true if no handler waits for it: it is completed although the session was closed, because the client has gone, or
    /// the handler has given it up.
    pub(super) fn goes_on_alone(&self) -> bool {
        self.in_background.load(Ordering::SeqCst)
    }
}

/// The future of the end of the other sessions. If it is dropped, it is completed in the background: otherwise a client that
/// disconnects between its steps would leave the other devices logged in.
pub(super) struct EndingOthers {
    slot: Arc<Slot>,
    session: Session,
    end: Arc<EndOfOthers>,
    /// The id of the session at the call.
    id: Option<SessionId>,
    /// `None` when it is done, or has panicked.
    ending: Option<Ending>,
}

impl EndingOthers {
    pub(super) fn new(slot: Arc<Slot>, session: Session) -> Self {
        let id = session.id();
        let on_save = slot.connection.store().ends_others_on_save();
        let end = Arc::new(EndOfOthers { on_save, in_background: AtomicBool::new(false) });
        let ending = Box::pin(Slot::end_other_sessions(Arc::clone(&slot), session.clone(), Arc::clone(&end)));
        Self { slot, session, end, id, ending: Some(ending) }
    }
}

impl Future for EndingOthers {
    type Output = Result<Option<usize>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // Taken out, so that a future that has panicked is not polled again in the background.
        let Some(mut ending) = self.ending.take() else {
            return Poll::Ready(Err(Error::new(Kind::Internal(
                "the end of other sessions was polled twice",
            ))));
        };
        match ending.as_mut().poll(cx) {
            Poll::Pending => {
                self.ending = Some(ending);
                Poll::Pending
            }
            Poll::Ready(ended) => Poll::Ready(ended.map_err(|failure| match failure {
                Failure::NotLoggedIn => Error::new(Kind::NotLoggedIn),
                Failure::Saving(error) => {
                    // The changes are the handler's from here on. In the background they stay for the end of the request.
                    self.session.failure_was_told();
                    error
                }
                Failure::Others(error) => error,
            })),
        }
    }
}

impl Drop for EndingOthers {
    fn drop(&mut self) {
        let Some(ending) = self.ending.take() else { return };
        self.end.in_background.store(true, Ordering::SeqCst);
        let runtime = tokio::runtime::Handle::try_current().ok();
        let completing = runtime.is_some();
        if let Some(runtime) = runtime {
            let (slot, id) = (Arc::clone(&self.slot), self.id);
            drop(runtime.spawn(async move {
                // No handler gets this error.
                if let Err(Failure::Others(error)) = ending.await {
                    let operation = Operation::Destroy;
                    slot.emit(EventKind::StoreFailed { id, operation, error: &error });
                }
            }));
        }
        // Emitted last, because an observer may panic.
        if !std::thread::panicking() {
            self.slot.emit(EventKind::Interrupted { id: self.id, completing });
        }
    }
}

impl Slot {
    /// Saves the session first, which settles its id, and ends the other sessions of its subject. Some stores do both in one
    /// step.
    async fn end_other_sessions(
        self: Arc<Self>,
        session: Session,
        end: Arc<EndOfOthers>,
    ) -> Result<Option<usize>, Failure> {
        let Some(subject) = session.subject() else { return Err(Failure::NotLoggedIn) };
        let saved = Arc::clone(&self).commit_to_end_others(session.clone(), Arc::clone(&end)).await;
        let keep = match saved.map_err(Failure::from) {
            Ok(()) if end.on_save => return Ok(None),
            Ok(()) => session.id(),
            // The client has gone, and with it the login that was to be saved. Or the handler has given this up, and then ended the
            // session. No session of the subject stays.
            Err(Failure::NotLoggedIn) if end.goes_on_alone() || session.is_closed() => None,
            Err(failure) => return Err(failure),
        };
        let ended = self.connection.store().end_sessions_of(&subject, keep).await;
        ended.map_err(Failure::Others)
    }
}
