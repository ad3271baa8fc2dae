//! Carrying out what was decided: the store's verb, and what the session learns from it.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::SemaphorePermit;

use super::slot::{Loaded, Slot};
use super::stopwatch::Stopwatch;
use crate::error::{Error, Kind};
use crate::event::{DropReason, Event, Operation};
use crate::session::{Changes, Committed, Committer, Disposition, Outcome, Record, Session, SessionId};
use crate::store::{Saved, StoreFuture};

/// One commit of one session. It finishes although it is dropped, if it ends or regenerates the session: a client that
/// hangs up does not stay logged in.
pub(super) struct Commit {
    slot: Arc<Slot>,
    loaded: Loaded,
    stage: Stage,
    caller: Caller,
    /// It is this commit's turn, which [`settle`](Self::settle) gives back. Whatever panics in between, the turn is not lost:
    /// dropping gives it back, too.
    has_turn: Cell<bool>,
    /// The store did what it was asked to, and the session knows.
    acknowledged: bool,
    must_finish: bool,
    /// The stored session that this began with.
    before: Option<SessionId>,
    operation: Operation,
    stopwatch: Option<Stopwatch>,
    /// The request's last one, whoever waits for it: after it, nobody commits.
    is_last: bool,
}

/// Who waits for a commit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Caller {
    /// [`Session::save`].
    Handler,
    /// The end of the request.
    Request,
    /// Nobody any more: it goes on by itself, for as long as its runtime does.
    Nobody,
}

#[allow(clippy::large_enum_variant)] // made once for each commit, and a box would cost more
enum Stage {
    /// Another commit of this session is under way.
    Waiting {
        turn: Pin<Box<dyn Future<Output = bool> + Send>>,
        answer: Disposition,
    },
    Destroying(StoreFuture<()>),
    Saving(StoreFuture<Saved>),
    Failed(Error),
    Done,
}

impl Commit {
    /// The commit at the end of a request.
    pub(super) fn last(slot: Arc<Slot>, loaded: Loaded, answer: Disposition) -> Self {
        Self::start(slot, loaded, answer, Caller::Request)
    }

    fn start(slot: Arc<Slot>, loaded: Loaded, answer: Disposition, caller: Caller) -> Self {
        let has_turn = slot.permit.try_acquire().map(SemaphorePermit::forget).is_ok();
        let mut commit = Self {
            slot,
            loaded,
            stage: Stage::Done,
            caller,
            has_turn: Cell::new(has_turn),
            acknowledged: false,
            must_finish: false,
            before: None,
            operation: Operation::Save,
            stopwatch: None,
            is_last: caller == Caller::Request,
        };
        commit.stage = if has_turn {
            commit.decide(answer)
        } else {
            let slot = Arc::clone(&commit.slot);
            let turn = async move { slot.permit.acquire().await.map(SemaphorePermit::forget).is_ok() };
            Stage::Waiting { turn: Box::pin(turn), answer }
        };
        commit
    }

    /// Starts the store's verb.
    fn decide(&mut self, answer: Disposition) -> Stage {
        if self.caller == Caller::Handler && self.loaded.session.is_closed() {
            // The end of the request came first, and took what there was to save.
            self.give_turn_back();
            return Stage::Failed(Error::new(Kind::HeadSent));
        }
        let now = self.loaded.now;
        let commit = self.loaded.session.begin_commit(answer);
        let cookie = self.slot.cookie_name();
        self.before = commit.base.as_ref().map(Record::id);
        if let Some(reason) = commit.dropped {
            self.slot.emit(&Event::ChangesDropped { cookie, id: self.before, reason });
        }
        self.must_finish = commit.must_finish;
        self.operation = operation(commit.outcome);
        match (commit.outcome, commit.base) {
            (Outcome::Save, base) => {
                self.timed(self.slot.connection.store().save(base, commit.changes, now), Stage::Saving)
            }
            (Outcome::Touch, Some(base)) => self.timed(
                self.slot.connection.store().save(Some(base), Arc::new(Changes::default()), now),
                Stage::Saving,
            ),
            (Outcome::Regenerate, Some(base)) => {
                self.timed(self.slot.connection.store().regenerate(base, commit.changes, now), Stage::Saving)
            }
            (Outcome::Destroy, Some(base)) => {
                self.timed(self.slot.connection.store().destroy(base, now), Stage::Destroying)
            }
            (Outcome::Keep | Outcome::Touch | Outcome::Regenerate | Outcome::Destroy, _) => {
                self.settle(Ok(Committed::Kept));
                match commit.dropped {
                    Some(DropReason::SessionEnded) if self.caller == Caller::Handler => {
                        Stage::Failed(Error::new(Kind::Ended))
                    }
                    _ => Stage::Done,
                }
            }
        }
    }

    /// The stage in which the store works on `answer`.
    fn timed<T>(&mut self, answer: StoreFuture<T>, stage: fn(StoreFuture<T>) -> Stage) -> Stage {
        self.stopwatch = Stopwatch::start(self.slot.connection.config(), self.operation, &answer);
        stage(answer)
    }

    /// Tells the session how it went, and lets the next commit begin.
    fn settle(&self, result: Result<Committed, &Error>) {
        self.loaded.session.end_commit(result);
        self.give_turn_back();
    }

    fn give_turn_back(&self) {
        if self.has_turn.take() {
            self.slot.permit.add_permits(1);
        }
    }

    /// The store has answered.
    fn finish(&mut self, answer: Result<Committed, Error>) -> Result<(), Error> {
        self.acknowledged = answer.is_ok();
        let stopwatch = self.stopwatch.take();
        let stop = |ok| stopwatch.map(|stopwatch| stopwatch.stop(self.slot.connection.config(), ok));
        let (cookie, operation) = (self.slot.cookie_name(), self.operation);
        match answer {
            Ok(committed) => {
                let ended = matches!(committed, Committed::Ended);
                let news = self.news(&committed, operation, cookie);
                // First the session, then those who are told of it: an observer may panic.
                self.settle(Ok(committed));
                stop(true);
                if let Some(event) = news {
                    self.slot.emit(&event);
                }
                // At the end of a request the event says it: the response is not about this session any more.
                if ended && self.caller == Caller::Handler { Err(Error::new(Kind::Ended)) } else { Ok(()) }
            }
            Err(error) => {
                self.settle(Err(&error));
                stop(false);
                self.slot.emit(&Event::StoreFailed { cookie, id: self.before, operation, error: &error });
                Err(error)
            }
        }
    }

    /// What became of the session, for who keeps a record of such things.
    fn news<'a>(&self, committed: &Committed, operation: Operation, cookie: &'a str) -> Option<Event<'a>> {
        match (committed, self.before) {
            (Committed::Stored { record, .. }, None) => Some(Event::Created { cookie, id: record.id() }),
            (Committed::Stored { record, .. }, Some(from)) if operation == Operation::Regenerate => {
                Some(Event::Regenerated { cookie, from, id: record.id() })
            }
            (Committed::Removed, Some(id)) => Some(Event::Destroyed { cookie, id }),
            _ => None,
        }
    }

    fn committed(&self, saved: Saved) -> Committed {
        let cookie = self.slot.cookie_name();
        match saved {
            Saved::Stored { record, token, conflicts } => {
                if conflicts > 0 {
                    self.slot.emit(&Event::ConflictMerged { cookie, id: record.id(), conflicts });
                }
                self.slot.connection.sealed(token.expose(), &record, self.loaded.now);
                let lifetime = record.expires().saturating_since(self.loaded.now);
                Committed::Stored { record, token, lifetime }
            }
            Saved::Removed => Committed::Removed,
            Saved::Ended => {
                let (id, reason) = (self.before, DropReason::SessionEnded);
                self.slot.emit(&Event::ChangesDropped { cookie, id, reason });
                Committed::Ended
            }
        }
    }
}

/// What the store is asked to do for this outcome. For `Keep` that is nothing, and nobody will hear of it.
fn operation(outcome: Outcome) -> Operation {
    match outcome {
        Outcome::Keep | Outcome::Save => Operation::Save,
        Outcome::Touch => Operation::Touch,
        Outcome::Regenerate => Operation::Regenerate,
        Outcome::Destroy => Operation::Destroy,
    }
}

impl Future for Commit {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            match &mut this.stage {
                Stage::Waiting { turn, answer } => {
                    let answer = *answer;
                    let has_turn = ready!(turn.as_mut().poll(cx));
                    this.has_turn.set(has_turn);
                    // Whatever happens from here on, that future is not polled again.
                    this.stage = Stage::Done;
                    this.stage = if has_turn {
                        this.decide(answer)
                    } else {
                        Stage::Failed(Error::new(Kind::Internal("the turn to commit was closed")))
                    };
                }
                Stage::Saving(saving) => {
                    let saved = ready!(Pin::new(saving).poll(cx));
                    this.stage = Stage::Done;
                    let committed = saved.map(|saved| this.committed(saved));
                    return Poll::Ready(this.finish(committed));
                }
                Stage::Destroying(destroying) => {
                    let destroyed = ready!(Pin::new(destroying).poll(cx));
                    this.stage = Stage::Done;
                    this.slot.connection.ended();
                    return Poll::Ready(this.finish(destroyed.map(|()| Committed::Removed)));
                }
                Stage::Failed(_) | Stage::Done => {
                    return Poll::Ready(match std::mem::replace(&mut this.stage, Stage::Done) {
                        Stage::Failed(error) => Err(error),
                        _ => Ok(()),
                    });
                }
            }
        }
    }
}

impl Drop for Commit {
    /// The client went away, or the handler gave up, or something panicked.
    fn drop(&mut self) {
        let stage = std::mem::replace(&mut self.stage, Stage::Done);
        let goes_on = match &stage {
            // What it will do is not decided yet: it may be to end the session.
            Stage::Waiting { .. } => self.caller == Caller::Request,
            // A runtime that drops what it carries on is shutting down: it would drop the next one, too.
            Stage::Saving(_) | Stage::Destroying(_) => self.must_finish && self.caller != Caller::Nobody,
            Stage::Failed(_) | Stage::Done => false,
        };
        let runtime = if goes_on { tokio::runtime::Handle::try_current().ok() } else { None };
        let completing = runtime.is_some();
        match runtime {
            Some(runtime) => {
                let (slot, loaded) = (Arc::clone(&self.slot), self.loaded.clone());
                let has_turn = Cell::new(self.has_turn.take());
                let rest = Self {
                    slot,
                    loaded,
                    stage,
                    caller: Caller::Nobody,
                    has_turn,
                    acknowledged: false,
                    must_finish: false,
                    before: self.before,
                    operation: self.operation,
                    stopwatch: self.stopwatch.take(),
                    is_last: self.is_last,
                };
                drop(runtime.spawn(rest));
            }
            // What was not acknowledged did not happen, as far as this session can tell: its changes stay in it.
            None if self.has_turn.get() => {
                self.settle(Err(&Error::new(Kind::Internal("a commit was dropped"))));
            }
            None => {}
        }
        // What was acknowledged left nothing to discard.
        if self.is_last && !completing && !self.acknowledged {
            self.loaded.session.discard();
        }
        // Last: an observer that panics takes nothing with it.
        if goes_on && !std::thread::panicking() {
            let cookie = self.slot.cookie_name();
            self.slot.emit(&Event::Interrupted { cookie, id: self.before, completing });
        }
    }
}

impl Committer for Slot {
    fn commit_now(
        self: Arc<Self>,
        session: Session,
    ) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send>> {
        Box::pin(async move {
            match self.loaded().cloned() {
                Some(loaded) => {
                    let loaded = Loaded { session, ..loaded };
                    Commit::start(self, loaded, Disposition::Accept, Caller::Handler).await
                }
                None => Err(Error::new(Kind::HeadSent)),
            }
        })
    }

    fn unreadable(&self, id: Option<SessionId>, error: &Error) {
        self.emit(&Event::ValueUnreadable { cookie: self.cookie_name(), id, error });
    }

    fn end_others(
        self: Arc<Self>,
        session: Session,
    ) -> Pin<Box<dyn Future<Output = Result<usize, Error>> + Send>> {
        Box::pin(Slot::end_others(self, session))
    }
}

impl fmt::Debug for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commit").finish_non_exhaustive()
    }
}
