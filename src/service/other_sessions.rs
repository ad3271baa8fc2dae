//! Ending the other sessions of a subject from a handler.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::slot::Slot;
use crate::error::{Error, Kind};
use crate::event::{EventKind, Operation};
use crate::session::{Place, Session, SessionId};

type Ending = Pin<Box<dyn Future<Output = Result<Option<usize>, Failure>> + Send>>;

/// The step that failed.
enum Failure {
    /// Before the other sessions were touched. If it was the store, the commit has emitted the event.
    Own(Error),
    /// The end of the other sessions.
    Others(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Own(error)
    }
}

/// The end of the other sessions. If it is dropped, it is completed in the background: otherwise a client that disconnects between
/// its steps would leave the other devices logged in.
pub(super) struct EndingOthers {
    slot: Arc<Slot>,
    id: Option<SessionId>,
    /// `None` when it is done, or has panicked.
    ending: Option<Ending>,
}

impl EndingOthers {
    pub(super) fn new(slot: Arc<Slot>, session: Session) -> Self {
        let id = session.id();
        let ending = Box::pin(Slot::end_other_sessions(Arc::clone(&slot), session));
        Self { slot, id, ending: Some(ending) }
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
            Poll::Ready(ended) => {
                Poll::Ready(ended.map_err(|(Failure::Own(error) | Failure::Others(error))| error))
            }
        }
    }
}

impl Drop for EndingOthers {
    fn drop(&mut self) {
        let Some(ending) = self.ending.take() else { return };
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
    async fn end_other_sessions(self: Arc<Self>, session: Session) -> Result<Option<usize>, Failure> {
        let Some(subject) = session.subject() else {
            return Err(Failure::Own(Error::new(Kind::NotLoggedIn)));
        };
        if self.connection.store().ends_others_on_save() {
            session.end_others_on_save()?;
            self.commit_as_a_part(session).await?;
            return Ok(None);
        }
        // A session in the old store of a migration moves first: that store may be unable to keep it.
        if session.stored_record().is_some_and(|record| record.place() == Some(Place::OldStore)) {
            session.regenerate()?;
        }
        Arc::clone(&self).commit_as_a_part(session.clone()).await?;
        let ended = self.connection.store().end_sessions_of(&subject, session.id()).await;
        ended.map_err(Failure::Others)
    }
}
