//! The steps of a session through its request, as the layer above calls them: new, commit, close.

use std::sync::{Arc, Mutex, Weak};

use super::circumstances::Circumstances;
use super::commit_table::{Decision, Disposition, Standing};
use super::session::{Committer, Inner};
use super::state::{Continued, Former, Reply, State};
use super::{Place, Record, Saved, Session, SessionId};

impl Session {
    /// Creates a session on the loaded record, or an empty one, for a request whose token led to no session for the reason `former`.
    pub(crate) fn new(
        base: Option<Record>,
        former: Former,
        reply: Reply,
        circumstances: Circumstances,
        committer: Weak<dyn Committer>,
    ) -> Self {
        let state = Mutex::new(State::new(base, former, reply));
        Self { inner: Arc::new(Inner { state, circumstances, committer }) }
    }

    /// Returns the session as the store holds it, as far as this request knows.
    pub(crate) fn stored_record(&self) -> Option<Record> {
        self.read_state().base().cloned()
    }

    /// Returns true if flash values are plain values.
    pub(super) fn shares_flash(&self) -> bool {
        self.inner.circumstances.shared_flash
    }

    /// Prepares the commit after which the other sessions of the subject end, or with which they end `on_save`, under a new token
    /// for this one. Returns false if they were to end `on_save`, and the session has no subject.
    ///
    /// It is asked when the commit begins, and also of a session that was closed and discarded since: what was set earlier might be
    /// dropped before that.
    pub(crate) fn begin_end_of_others(&self, on_save: bool) -> bool {
        let mut state = self.lock();
        if on_save && !state.has_subject() {
            return false;
        }
        if on_save {
            state.end_others();
        } else if state.base().is_some_and(|base| base.place() == Some(Place::OldStore)) {
            // A session in the old store of a migration moves first: that store may be unable to keep it.
            state.regenerate();
        }
        true
    }

    /// Makes the session read-only.
    pub(crate) fn close(&self) {
        self.lock().close();
    }

    /// Closes the session as [`close`](Self::close) does, at the end of a request. Returns the reply to the client if there
    /// is nothing to commit, and `None` otherwise. `standing` is called with the stored session.
    ///
    /// If the response already contains a statement about the cookie (`spoken_for`), the token of an earlier save is not sent
    /// before both are compared.
    pub(crate) fn conclude(
        &self,
        spoken_for: bool,
        standing: impl FnOnce(&Record) -> Standing,
    ) -> Option<Reply> {
        let mut state = self.lock();
        state.close();
        if spoken_for && state.has_token() || !state.is_settled(standing) {
            return None;
        }
        // An update that changed nothing is still in the log, and its closure may hold this session.
        let leftovers = state.discard();
        let reply = state.take_reply();
        drop(state);
        drop(leftovers);
        Some(reply)
    }

    /// Drops the changes that were not saved, for good. A closure that was given to [`update`](Self::update) may hold this
    /// session.
    pub(crate) fn discard_for_good(&self) {
        let leftovers = self.lock().discard();
        drop(leftovers);
    }

    /// Returns true if the session is read-only.
    pub(crate) fn is_closed(&self) -> bool {
        self.read_state().is_closed()
    }

    /// Decides what to commit, and returns all that the commit needs. [`commit_done`](Self::commit_done) or
    /// [`commit_failed`](Self::commit_failed) must follow.
    pub(crate) fn begin_commit(
        &self,
        answer: Disposition,
        last: bool,
        standing: impl FnOnce(&Record) -> Standing,
    ) -> Decision {
        let (commit, leftovers) = self.lock().begin_commit(answer, last, standing);
        drop(leftovers);
        commit
    }

    /// Takes the result of the store, if it was called.
    pub(crate) fn commit_done(&self, saved: Option<Saved>) {
        let leftovers = self.lock().commit_done(saved);
        drop(leftovers);
    }

    /// Restores the session as it was before the commit, with all its changes.
    pub(crate) fn commit_failed(&self) {
        let leftovers = self.lock().commit_failed();
        drop(leftovers);
    }

    /// Notes that the handler got the error of a failed save.
    pub(crate) fn failure_was_told(&self) {
        self.lock().failure_was_told();
    }

    /// Continues from `record`. A service inside of this one has the same session, and the response sets the cookie to the
    /// token of `record`. The changes of this session are applied to that record, unless this handler has saved a stronger
    /// statement: a login to another session, or the end of one. `came` is the session that came with the request, and
    /// `accepts` is true if changes of values count.
    pub(crate) fn go_on_from(&self, record: Record, came: Option<SessionId>, accepts: bool) -> Continued {
        self.lock().go_on_from(record, came, accepts)
    }

    /// Works as [`go_on_from`](Self::go_on_from), if the store could not look up the record. Returns the session whose token was
    /// given up, and true if nothing was to be saved, so that the failure concerns no change.
    pub(crate) fn go_on_from_unknown(&self, came: Option<SessionId>) -> (Option<SessionId>, bool) {
        let mut state = self.lock();
        (state.go_on_from_unknown(came), state.has_nothing_to_save())
    }

    /// Ends the session, because the response removes its cookie: `by_service` if a session service inside of this one said so.
    /// Returns true if changes of this handler are dropped by that.
    pub(crate) fn end_by_response(&self, by_service: bool) -> bool {
        let (drops, leftovers) = self.lock().end_by_response(by_service);
        drop(leftovers);
        drops
    }

    /// Returns true if the handler ended a session, and the store has acknowledged that.
    pub(crate) fn was_ended_by_handler(&self) -> bool {
        self.read_state().was_ended_by_handler()
    }

    /// Returns true if the browser should delete the data of the session, because the handler ended more than its flash values.
    pub(crate) fn was_logged_out(&self) -> bool {
        self.read_state().was_logged_out()
    }

    /// Takes the pending reply. The caller must send it.
    pub(crate) fn take_reply(&self) -> Reply {
        self.lock().take_reply()
    }
}
