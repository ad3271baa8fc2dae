//! A session's way through its request, as the layer above drives it: made, committed, closed.

use std::sync::{Arc, Mutex, Weak};

use super::commit_table::{Commit, Disposition, Standing};
use super::session::{Circumstances, Committer, Inner};
use super::state::{Reply, State};
use super::{Record, Saved, Session};

impl Session {
    /// A session on what was loaded: `base`, or nothing.
    pub(crate) fn new(
        base: Option<Record>,
        overtaken: bool,
        reply: Reply,
        circumstances: Circumstances,
        committer: Weak<dyn Committer>,
    ) -> Self {
        let state = Mutex::new(State::new(base, overtaken, reply));
        Self { inner: Arc::new(Inner { state, circumstances, committer }) }
    }

    /// The session as the store holds it, as far as this request knows.
    pub(crate) fn stored_record(&self) -> Option<Record> {
        self.lock().base().cloned()
    }

    /// The handler reads the session as one that is in use: reading renews it, if that is due.
    pub(crate) fn request_renewal(&self) {
        self.lock().request_renewal();
    }

    /// Returns true if flash values are plain values.
    pub(super) fn shares_flash(&self) -> bool {
        self.inner.circumstances.shared_flash
    }

    /// From now on the session can only be read.
    pub(crate) fn close(&self) {
        self.lock().close();
    }

    /// As [`close`](Self::close), at the end of a request: what to tell the client if there is nothing to commit; `None` if
    /// there is. `standing` is asked about the stored session.
    pub(crate) fn conclude(&self, standing: impl FnOnce(&Record) -> Standing) -> Option<Reply> {
        let mut state = self.lock();
        state.close();
        if !state.is_settled(standing) {
            return None;
        }
        // An update that changed nothing is in the log all the same, and its closure may hold this very session.
        let leftovers = state.discard();
        let reply = state.take_reply();
        drop(state);
        drop(leftovers);
        Some(reply)
    }

    /// Forgets what was changed and not saved, for good: a closure given to [`update`](Self::update) may hold this very
    /// session.
    pub(crate) fn discard_for_good(&self) {
        let leftovers = self.lock().discard();
        drop(leftovers);
    }

    /// Returns true if the session can only be read.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().is_closed()
    }

    /// Decides what is to be done, and hands out what doing it needs. [`commit_done`](Self::commit_done) or
    /// [`commit_failed`](Self::commit_failed) must follow.
    pub(crate) fn begin_commit(
        &self,
        answer: Disposition,
        last: bool,
        standing: impl FnOnce(&Record) -> Standing,
    ) -> Commit {
        let (commit, leftovers) = self.lock().begin_commit(answer, last, standing);
        drop(leftovers);
        commit
    }

    /// Takes in what the store answered, if it was asked.
    pub(crate) fn commit_done(&self, saved: Option<Saved>) {
        let leftovers = self.lock().commit_done(saved);
        drop(leftovers);
    }

    /// The session is as it was before the commit, with all its changes.
    pub(crate) fn commit_failed(&self) {
        let leftovers = self.lock().commit_failed();
        drop(leftovers);
    }

    /// The handler was told that what it asked for failed.
    pub(crate) fn failure_was_told(&self) {
        self.lock().failure_was_told();
    }

    /// The response sets the cookie to the token of `record` already: a service inside of this one has this session, too. What
    /// was changed here is applied to what that one left.
    pub(crate) fn go_on_from(&self, record: Record) {
        self.lock().go_on_from(record);
    }

    /// The response removes the cookie already: a service inside of this one ended the session.
    pub(crate) fn end_by_response(&self) {
        self.lock().end_by_response();
    }

    /// Returns true if the handler ended a session, and the store has acknowledged that.
    pub(crate) fn was_ended_by_handler(&self) -> bool {
        self.lock().was_ended_by_handler()
    }

    /// Takes what to tell the client. The caller must tell it.
    pub(crate) fn take_reply(&self) -> Reply {
        self.lock().take_reply()
    }
}
