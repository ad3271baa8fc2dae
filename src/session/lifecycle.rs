//! A session's way through its request, as the layer above drives it: made, committed, closed.

use std::sync::{Arc, Mutex, Weak};

use super::commit_table::{Commit, Disposition};
use super::session::{Circumstances, Committer, Inner};
use super::state::{Committed, Reply, State};
use super::{Record, Session};
use crate::error::Error;

impl Session {
    /// A session on what was loaded: `base`, or nothing.
    pub(crate) fn new(
        base: Option<Record>,
        renewal_due: bool,
        overtaken: bool,
        reply: Reply,
        circumstances: Circumstances,
        committer: Weak<dyn Committer>,
    ) -> Self {
        let state = Mutex::new(State::new(base, renewal_due, overtaken, reply));
        Self { inner: Arc::new(Inner { state, circumstances, committer }) }
    }

    /// The session as the store holds it, as far as this request knows.
    pub(crate) fn stored_record(&self) -> Option<Record> {
        self.lock().base().cloned()
    }

    /// Reading the session renews it, if that is due.
    pub(crate) fn request_renewal(&self) {
        self.lock().request_renewal();
    }

    /// True if flash values are plain values.
    pub(super) fn shares_flash(&self) -> bool {
        self.inner.circumstances.shared_flash
    }

    /// From now on the session can be read alone.
    pub(crate) fn close(&self) {
        self.lock().close();
    }

    /// As [`close`](Self::close), at the end of a request: what to tell the client if there is nothing to commit; `None` if
    /// there is.
    pub(crate) fn conclude(&self) -> Option<Reply> {
        let mut state = self.lock();
        state.close();
        state.is_settled().then(|| state.take_reply())
    }

    /// Forgets what was changed and not saved: a closure given to [`update`](Self::update) may hold this very session.
    pub(crate) fn discard(&self) {
        // What a closure holds is dropped without the lock: it may be anything.
        let discarded = self.lock().discard();
        drop(discarded);
    }

    /// True if the session can be read alone.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().is_closed()
    }

    /// Decides what is to be done, and hands out what doing it needs. [`end_commit`](Self::end_commit) must follow.
    pub(crate) fn begin_commit(&self, answer: Disposition) -> Commit {
        self.lock().begin_commit(answer)
    }

    /// Takes in how the commit ended. After a failure the session is as it was before, with all its changes.
    pub(crate) fn end_commit(&self, result: Result<Committed, &Error>) {
        self.lock().end_commit(result);
    }

    /// True if the handler ended a session, and the store has acknowledged that.
    pub(crate) fn was_ended_by_handler(&self) -> bool {
        self.lock().was_ended_by_handler()
    }

    /// What to tell the client: the one who asks tells it.
    pub(crate) fn take_reply(&self) -> Reply {
        self.lock().take_reply()
    }
}
