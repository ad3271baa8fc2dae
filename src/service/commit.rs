//! Carries out a decided commit: calls the store, and updates the session with the result.

use std::fmt;
use std::future::Future;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::SemaphorePermit;

use super::other_sessions::{EndOfOthers, EndingOthers};
use super::response_head::Said;
use super::slot::{Loaded, Slot};
use super::stopwatch::Stopwatch;
use crate::clock::Timestamp;
use crate::error::{Error, Kind};
use crate::event::{DropReason, EventKind, Operation, Refusal};
use crate::session::{
    Changes, Committer, Continued, Disposition, Outcome, Record, Saved, Session, SessionId,
};
use crate::store::{EndedBy, LoadFuture, StoreFuture};

/// A commit of one session. If it ends or regenerates the session, it is completed even if it is dropped, so that a user
/// whose client disconnects does not stay logged in.
#[allow(clippy::struct_excessive_bools)] // independent facts
pub(super) struct Commit {
    slot: Arc<Slot>,
    loaded: Loaded,
    stage: Stage,
    caller: Caller,
    answer: Disposition,
    /// The permit to commit, held until the session knows the result.
    permit: Option<Permit>,
    outcome: Outcome,
    must_finish: bool,
    /// The id of the stored session before the commit.
    before: Option<SessionId>,
    /// The time of the decision. Timeouts count from it.
    now: Timestamp,
    /// The handler called `login`.
    logs_in: bool,
    stopwatch: Option<Stopwatch>,
    /// The last commit of the request, whichever caller waits for it: nothing is committed after it.
    is_last: bool,
    /// The response already contains a statement about the cookie.
    is_spoken_for: bool,
    /// It is being polled. If that is still so when it is dropped, it has panicked.
    is_polled: bool,
}

/// The caller that waits for a commit.
enum Caller {
    /// [`Session::save`].
    Handler,
    /// [`Session::end_other_sessions`], of which the commit is the first step.
    EndOfOthers(Arc<EndOfOthers>),
    /// The end of the request.
    Request,
    /// None: a background task completes it, for as long as its runtime lives.
    Background,
}

impl Caller {
    /// Returns true if a handler gets the error of a session that has ended.
    fn gets_errors(&self) -> bool {
        matches!(self, Self::Handler | Self::EndOfOthers(_))
    }
}

#[allow(clippy::large_enum_variant)] // made once for each commit, and a box would cost more
enum Stage {
    /// Another commit of this session is in progress.
    Waiting(Pin<Box<dyn Future<Output = Option<Permit>> + Send>>),
    /// The store looks up the session of a cookie that the response already sets.
    LookingUp(LoadFuture),
    Destroying(StoreFuture<()>),
    Saving(StoreFuture<Saved>),
    Failed(Error),
    Done,
}

/// The permit to commit a session. One task at a time holds it. Dropping it releases it.
struct Permit(Arc<Slot>);

impl Permit {
    fn try_acquire(slot: &Arc<Slot>) -> Option<Self> {
        slot.permit.try_acquire().ok().map(|permit| Self::own(slot, permit))
    }

    /// Waits for the permit. Returns `None` if the semaphore is closed.
    async fn acquire(slot: Arc<Slot>) -> Option<Self> {
        let permit = slot.permit.acquire().await.ok()?;
        Some(Self::own(&slot, permit))
    }

    fn own(slot: &Arc<Slot>, permit: SemaphorePermit<'_>) -> Self {
        permit.forget(); // `drop` returns it
        Self(Arc::clone(slot))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.permit.add_permits(1);
    }
}

impl Commit {
    /// Creates the commit at the end of a request, which is `now`. `said` is what the response already says about the cookie.
    pub(super) fn last(
        slot: Arc<Slot>,
        loaded: Loaded,
        now: Timestamp,
        answer: Disposition,
        said: Said,
    ) -> Self {
        Self::start(slot, loaded, now, answer, Caller::Request, said)
    }

    fn start(
        slot: Arc<Slot>,
        loaded: Loaded,
        now: Timestamp,
        answer: Disposition,
        caller: Caller,
        said: Said,
    ) -> Self {
        let permit = Permit::try_acquire(&slot);
        let is_last = matches!(caller, Caller::Request);
        let mut commit = Self {
            slot,
            loaded,
            stage: Stage::Done,
            caller,
            answer,
            permit,
            outcome: Outcome::Keep,
            must_finish: false,
            before: None,
            now,
            logs_in: false,
            stopwatch: None,
            is_last,
            is_spoken_for: !matches!(said, Said::Nothing),
            is_polled: false,
        };
        commit.stage = match said {
            Said::Session { token } => Stage::LookingUp(commit.slot.connection.store().load(&token, now)),
            Said::EndOfSession { by_service } => {
                commit.end_by_response(by_service);
                commit.begin()
            }
            Said::Other | Said::Nothing => commit.begin(),
        };
        commit
    }

    /// Starts the commit, or waits until another commit of this session has ended.
    fn begin(&mut self) -> Stage {
        if self.permit.is_some() {
            return self.decide();
        }
        Stage::Waiting(Box::pin(Permit::acquire(Arc::clone(&self.slot))))
    }

    /// Decides what to do, and calls the store.
    fn decide(&mut self) -> Stage {
        let session = &self.loaded.session;
        let refused = match &self.caller {
            // The commit at the end of the request came first, and saved the changes.
            Caller::Handler if session.is_closed() => Some(Kind::HeadSent),
            Caller::EndOfOthers(end) if session.is_closed() && !end.goes_on_alone() => Some(Kind::HeadSent),
            Caller::EndOfOthers(end) if !session.begin_end_of_others(end.on_save) => Some(Kind::NotLoggedIn),
            _ => None,
        };
        if let Some(refused) = refused {
            self.permit = None;
            return Stage::Failed(Error::new(refused));
        }
        let now = self.now;
        let spoken_for = self.is_spoken_for;
        let decision = self
            .loaded
            .session
            .begin_commit(self.answer, self.is_last, |record| self.slot.standing(record, now, spoken_for));
        self.before = decision.base.as_ref().map(Record::id);
        if let Some(reason) = decision.dropped {
            self.slot.emit(EventKind::ChangesDropped { id: self.before, reason });
        }
        self.must_finish = decision.must_finish;
        self.outcome = decision.outcome;
        self.logs_in = decision.changes.logs_in();
        match (decision.outcome, decision.base) {
            (Outcome::Save, None) if decision.ends_former => {
                self.timed(self.slot.replace_former(decision.changes, now), Stage::Saving)
            }
            (Outcome::Save, base) => self.timed(self.slot.save(base, decision.changes, now), Stage::Saving),
            (Outcome::Renew, Some(base)) => self.timed(
                self.slot.connection.store().save(Some(base), Arc::new(Changes::default()), now),
                Stage::Saving,
            ),
            (Outcome::Regenerate, Some(base)) => {
                self.timed(self.slot.regenerate(base, decision.changes, now), Stage::Saving)
            }
            (Outcome::Destroy, Some(base)) => self.timed(self.slot.destroy(base, now), Stage::Destroying),
            (_, None) if decision.ends_former => {
                self.outcome = Outcome::Destroy;
                self.timed(self.slot.end_former(EndedBy::Logout, now), Stage::Destroying)
            }
            (
                Outcome::Keep | Outcome::Renew | Outcome::Regenerate | Outcome::Destroy | Outcome::Expire,
                _,
            ) => {
                self.settle(None);
                match decision.dropped {
                    Some(DropReason::SessionEnded) if self.caller.gets_errors() => {
                        Stage::Failed(Error::new(Kind::Ended))
                    }
                    _ => Stage::Done,
                }
            }
        }
    }

    /// Goes on from the session of the cookie that the response already sets, which the store has looked up. If the store failed,
    /// this is the end of the commit.
    fn looked_up(&mut self, found: Result<Result<Record, Refusal>, Error>) -> ControlFlow<Result<(), Error>> {
        match found {
            Ok(Ok(record)) => {
                let accepts = self.answer == Disposition::Accept;
                let came = self.loaded.id;
                if let Continued::Yes { lost } = self.loaded.session.go_on_from(record, came, accepts) {
                    self.slot.follow_response();
                    self.report_lost(lost);
                }
            }
            Ok(Err(Refusal::Ended)) => {
                self.slot.follow_response();
                self.end_by_response(true);
            }
            // Another cookie of the same name: the handler's own, or of another store. It is reported if it is replaced.
            Ok(Err(_)) => {}
            Err(error) => {
                let operation = Operation::Load;
                self.slot.emit(EventKind::StoreFailed { id: None, operation, error: &error });
                let (lost, optional) = self.loaded.session.go_on_from_unknown(self.loaded.id);
                self.report_lost(lost);
                return ControlFlow::Break(if optional { Ok(()) } else { Err(error) });
            }
        }
        ControlFlow::Continue(())
    }

    /// Notes that the response removes the cookie of the session that came with the request, if one came.
    fn end_by_response(&self, by_service: bool) {
        let id = self.loaded.id;
        if id.is_some() && self.loaded.session.end_by_response(by_service) {
            let reason = if by_service { DropReason::SessionEnded } else { DropReason::CookieRemoved };
            self.slot.emit(EventKind::ChangesDropped { id, reason });
        }
    }

    /// Emits the event about a session that the handler had saved, and whose token the client does not get.
    fn report_lost(&self, lost: Option<SessionId>) {
        if lost.is_some() {
            self.slot.emit(EventKind::ChangesDropped { id: lost, reason: DropReason::OtherSession });
        }
    }

    fn operation(&self) -> Operation {
        match self.outcome {
            Outcome::Keep | Outcome::Save | Outcome::Expire => Operation::Save,
            Outcome::Renew => Operation::Renew,
            Outcome::Regenerate => Operation::Regenerate,
            Outcome::Destroy => Operation::Destroy,
        }
    }

    /// Returns the stage in which the store works on `answer`.
    fn timed<T>(&mut self, answer: StoreFuture<T>, stage: fn(StoreFuture<T>) -> Stage) -> Stage {
        self.stopwatch = Stopwatch::start(self.slot.connection.config(), self.operation(), &answer);
        stage(answer)
    }

    /// Reports how long the store took, if that is measured.
    fn stop_stopwatch(&mut self, ok: bool) {
        if let Some(stopwatch) = self.stopwatch.take() {
            stopwatch.stop(self.slot.connection.config(), ok);
        }
    }

    /// Gives the session the result, and lets the next commit begin.
    fn settle(&mut self, saved: Option<Saved>) {
        self.loaded.session.commit_done(saved);
        self.permit = None;
    }

    /// Handles the result of the store.
    fn store_answered(&mut self, answer: Result<Saved, Error>) -> Result<(), Error> {
        match answer {
            Ok(saved) => {
                let ended = matches!(saved, Saved::Ended);
                let events = self.events_of(&saved);
                // The session is updated before events are emitted, because an observer may panic.
                self.settle(Some(saved));
                self.stop_stopwatch(true);
                for event in events.into_iter().flatten() {
                    self.slot.emit(event);
                }
                // At the end of a request, only the event reports it: the response no longer depends on this session.
                if ended && self.caller.gets_errors() { Err(Error::new(Kind::Ended)) } else { Ok(()) }
            }
            Err(error) => {
                // A failure of work that no handler asked for does not fail the request. A response that already reports a
                // failure need not be replaced by another error response.
                let optional =
                    self.outcome.is_optional() || self.is_last && self.answer == Disposition::DropValues;
                self.loaded.session.commit_failed();
                self.permit = None;
                self.stop_stopwatch(false);
                let operation = self.operation();
                self.slot.emit(EventKind::StoreFailed { id: self.before, operation, error: &error });
                if optional {
                    return Ok(());
                }
                // Not before the event: if an observer panics, the handler gets no error. The end of other sessions may by now go
                // on without the handler: it notes itself that it handed the error out.
                if matches!(self.caller, Caller::Handler) {
                    self.loaded.session.failure_was_told();
                }
                Err(error)
            }
        }
    }

    /// Returns the events about the result, in their order.
    fn events_of(&self, saved: &Saved) -> [Option<EventKind<'static>>; 3] {
        match (saved, self.before) {
            (Saved::Stored { record, conflicts, .. }, before) => {
                let (id, conflicts) = (record.id(), *conflicts);
                let became = match before {
                    None => Some(EventKind::Created { id }),
                    Some(from) if self.outcome == Outcome::Regenerate => {
                        Some(EventKind::Regenerated { from, id })
                    }
                    Some(_) => None,
                };
                [
                    (conflicts > 0).then_some(EventKind::ConflictMerged { id, conflicts }),
                    became,
                    self.logs_in.then_some(EventKind::LoggedIn { id }),
                ]
            }
            (Saved::Removed, id) => [None, id.map(|id| EventKind::Destroyed { id }), None],
            // A renewal that finds the session ended drops no changes.
            (Saved::Ended, id) => {
                let reason = DropReason::SessionEnded;
                let dropped = !self.outcome.is_optional();
                [None, dropped.then_some(EventKind::ChangesDropped { id, reason }), None]
            }
        }
    }

    /// Keeps the saved session in the connection memo.
    fn remember(&self, saved: &Saved) {
        if let Saved::Stored { record, token, .. } = saved {
            self.slot.connection.sealed(token.expose(), record, self.now);
        }
    }

    /// Goes on until the store, or another commit, has to be waited for.
    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            match &mut self.stage {
                Stage::LookingUp(looking) => {
                    let found = ready!(Pin::new(looking).poll(cx));
                    // From here on, that future is not polled again.
                    self.stage = Stage::Done;
                    if let ControlFlow::Break(result) = self.looked_up(found) {
                        return Poll::Ready(result);
                    }
                    self.now = self.slot.now_since(self.loaded.now);
                    self.stage = self.begin();
                }
                Stage::Waiting(permit) => {
                    let permit = ready!(permit.as_mut().poll(cx));
                    self.permit = permit;
                    self.stage = Stage::Done;
                    self.now = self.slot.now_since(self.loaded.now);
                    self.stage = if self.permit.is_some() {
                        self.decide()
                    } else {
                        Stage::Failed(Error::new(Kind::Internal("the permit to commit was closed")))
                    };
                }
                Stage::Saving(saving) => {
                    let saved = ready!(Pin::new(saving).poll(cx));
                    self.stage = Stage::Done;
                    let saved = saved.inspect(|saved| self.remember(saved));
                    return Poll::Ready(self.store_answered(saved));
                }
                Stage::Destroying(destroying) => {
                    let destroyed = ready!(Pin::new(destroying).poll(cx));
                    self.stage = Stage::Done;
                    self.slot.connection.ended();
                    return Poll::Ready(self.store_answered(destroyed.map(|()| Saved::Removed)));
                }
                Stage::Failed(_) | Stage::Done => {
                    return Poll::Ready(match std::mem::replace(&mut self.stage, Stage::Done) {
                        Stage::Failed(error) => Err(error),
                        _ => Ok(()),
                    });
                }
            }
        }
    }
}

impl Future for Commit {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.is_polled = true;
        let polled = self.advance(cx);
        self.is_polled = false;
        polled
    }
}

impl Drop for Commit {
    /// Handles a disconnected client, a handler that stopped waiting, and a panic.
    fn drop(&mut self) {
        let stage = std::mem::replace(&mut self.stage, Stage::Done);
        let goes_on = match &stage {
            // A future that has panicked must not be polled again.
            _ if self.is_polled => false,
            // The commit is not decided yet, and may end the session.
            Stage::Waiting(_) | Stage::LookingUp(_) => matches!(self.caller, Caller::Request),
            // A runtime that drops a background task is shutting down, and would drop the next one, too.
            Stage::Saving(_) | Stage::Destroying(_) => {
                self.must_finish && !matches!(self.caller, Caller::Background)
            }
            Stage::Failed(_) | Stage::Done => false,
        };
        let runtime = if goes_on { tokio::runtime::Handle::try_current().ok() } else { None };
        let completing = runtime.is_some();
        match runtime {
            Some(runtime) => {
                let rest = Self {
                    slot: Arc::clone(&self.slot),
                    loaded: self.loaded.clone(),
                    stage,
                    caller: Caller::Background,
                    permit: self.permit.take(),
                    stopwatch: self.stopwatch.take(),
                    ..*self
                };
                drop(runtime.spawn(rest));
            }
            // An operation that was not acknowledged counts as not done, so its changes stay in the session. The permit is
            // dropped afterwards.
            None if self.permit.is_some() => self.loaded.session.commit_failed(),
            None => {}
        }
        if self.is_last && !completing {
            self.loaded.session.discard_for_good();
        }
        // Emitted last, because an observer may panic.
        let is_a_step = matches!(self.caller, Caller::EndOfOthers(_));
        if goes_on && !is_a_step && !std::thread::panicking() {
            self.slot.emit(EventKind::Interrupted { id: self.before, completing });
        }
    }
}

impl Slot {
    /// Starts a commit that the `caller` waits for.
    fn commit_for(self: Arc<Self>, session: Session, caller: Caller) -> Result<Commit, Error> {
        let loaded = self.loaded().cloned().ok_or_else(|| Error::new(Kind::HeadSent))?;
        let loaded = Loaded { session, ..loaded };
        let now = self.now_since(loaded.now);
        Ok(Commit::start(self, loaded, now, Disposition::Accept, caller, Said::Nothing))
    }

    /// Commits as the first step of `end`.
    ///
    /// # Errors
    ///
    /// [`is_not_logged_in`](Error::is_not_logged_in) if the others were to end on save, and the session has lost its subject since.
    /// Those of [`Session::save`].
    pub(super) async fn commit_to_end_others(
        self: Arc<Self>,
        session: Session,
        end: Arc<EndOfOthers>,
    ) -> Result<(), Error> {
        self.commit_for(session, Caller::EndOfOthers(end))?.await
    }
}

impl Committer for Slot {
    fn commit_now(
        self: Arc<Self>,
        session: Session,
    ) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send>> {
        Box::pin(async move { self.commit_for(session, Caller::Handler)?.await })
    }

    fn unreadable(&self, id: Option<SessionId>, error: &Error) {
        self.emit(EventKind::ValueUnreadable { id, error });
    }

    fn now(&self, loaded: Timestamp) -> Timestamp {
        self.now_since(loaded)
    }

    fn end_others(
        self: Arc<Self>,
        session: Session,
    ) -> Pin<Box<dyn Future<Output = Result<Option<usize>, Error>> + Send>> {
        Box::pin(EndingOthers::new(self, session))
    }
}

impl fmt::Debug for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commit").finish_non_exhaustive()
    }
}
