//! Entering a session in its subject's list: at a login, within the session limit, and again if it is missing there.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::conflict_queue::MAX_ATTEMPTS;
use super::optional::OptionalWork;
use super::session_limit::{self, SessionLimit};
use super::session_list::{ListedSession, SessionList};
use super::stored_list::{IfUnreadable, Known};
use super::subjects::FetchedSession;
use super::{Inner, Predecessor};
use crate::clock::Timestamp;
use crate::error::{Error, Kind};
use crate::event::EventKind;
use crate::session::{Record, SessionId};
use crate::store::Backend;

/// For how long a listed session may be missing: the request that entered it is about to write it.
const WRITE_GRACE: Duration = Duration::from_secs(60);

impl<B: Backend> Inner<B> {
    /// Enters a session that is about to be written, and that ends by `until` at the latest. `instead_of` is a session that it
    /// replaces, which does not count. Returns false if that has ended, or another call is ending it: then the session is not entered.
    pub(super) async fn enter(
        self: &Arc<Self>,
        subject: &str,
        id: SessionId,
        instead_of: Option<Predecessor>,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<bool, Error> {
        // When it is entered may be long after the request began.
        let entered = self.backend.time(now.max(self.config.now()));
        let entry = ListedSession { id, entered, until, ending: false };
        let must_be_listed = instead_of.filter(|predecessor| predecessor.must_be_listed);
        let is_login = instead_of.is_none_or(|predecessor| predecessor.is_login);
        let instead_of = instead_of.map(|predecessor| predecessor.id);
        let counts = all_but(instead_of);
        let add = |list: &mut SessionList| {
            if must_be_listed.is_some_and(|predecessor| !list.has(predecessor.id)) {
                return (false, false);
            }
            list.prune(now);
            // A session that is listed already is not refused, although fewer are allowed by now.
            let counts_here = is_login && !self.is_exempt_from_limit(list, instead_of);
            let entered = list.enter(entry, instead_of, is_login);
            let is_beyond = list.live().filter(counts).count() > self.max_sessions_per_subject;
            (entered, counts_here && is_beyond)
        };
        let ((entered, is_beyond), known) = self.edit_with_room(subject, id, instead_of, now, add).await?;
        if !entered {
            return Ok(false);
        }
        if is_beyond && self.at_session_limit == SessionLimit::RefuseLogin {
            self.make_room(subject, known, id, instead_of, now).await?;
        } else if known.list.is_unfinished() {
            // A session that another call began to end must neither make a login fail nor delay it. The next call tries again.
            let (inner, subject) = (Arc::clone(self), subject.to_owned());
            let ending = async move { drop(inner.end(&subject, now, Some(known), &[], |_| false).await) };
            self.finish_soon(ending).await;
        }
        Ok(true)
    }

    /// Ends the sessions that are beyond the limit, now that the session of `login` is stored, and has replaced the session `replaced` if
    /// there was one. `known` is the list with both. The answer does not wait long for it, and if it fails, the next login does it: this
    /// login has happened, and a session that it could not end must not cost its user another device.
    pub(super) async fn end_surplus(
        self: &Arc<Self>,
        login: &Record,
        known: Known,
        replaced: Option<SessionId>,
        now: Timestamp,
    ) {
        let live = known.list.live().filter(all_but(replaced)).count();
        let has_surplus = live > self.max_sessions_per_subject;
        if !has_surplus || self.at_session_limit == SessionLimit::RefuseLogin {
            return;
        }
        if let Some(subject) = self.listed_subject(login.payload()) {
            let (inner, login) = (Arc::clone(self), login.id());
            let ending = async move { drop(inner.make_room(&subject, known, login, replaced, now).await) };
            self.finish_soon(ending).await;
        }
    }

    /// Returns true if `RefuseLogin` does not concern this session: it replaces `instead_of`, which is on the list, so its subject
    /// gets no further session.
    fn is_exempt_from_limit(&self, list: &SessionList, instead_of: Option<SessionId>) -> bool {
        self.at_session_limit == SessionLimit::RefuseLogin && instead_of.is_some_and(|id| list.has(id))
    }

    /// Changes the list as a login does. While more logins are under way than the longest entry has room for, it first ends
    /// sessions beyond the number that the subject may have, as if `login` was entered.
    async fn edit_with_room<R>(
        &self,
        subject: &str,
        login: SessionId,
        instead_of: Option<SessionId>,
        now: Timestamp,
        mut edit: impl FnMut(&mut SessionList) -> R,
    ) -> Result<(R, Known), Error> {
        for _ in 0..MAX_ATTEMPTS {
            let mut len = 0;
            let edit = |list: &mut SessionList| {
                let result = edit(list);
                len = list.entries.len();
                result
            };
            match self.edit(subject, now, IfUnreadable::IsOverwritten, None, edit).await {
                Err(error) if error.is_too_large() => {
                    let known = self.known(subject, now).await?;
                    let live = known.list.live().filter(all_but(instead_of)).count();
                    let is_shorter = known.list.entries.len() + 1 < len;
                    if live < self.max_sessions_per_subject && !is_shorter && !known.list.is_unfinished() {
                        // The backend has no room for as many sessions as the options allow.
                        return Err(error);
                    }
                    // Otherwise the logins that came too late leave the list.
                    let has_room = Box::pin(self.make_room(subject, known, login, instead_of, now)).await?;
                    if !has_room && !is_shorter {
                        return Err(error);
                    }
                }
                edited => return edited,
            }
        }
        Err(Error::new(Kind::Conflict { attempts: MAX_ATTEMPTS }))
    }

    /// Ends sessions beyond the number that the subject may have, or refuses `login`, which was just entered, or is about to be.
    /// Logins that came later do so themselves: otherwise two at once could end each other. Some sessions may have expired by now.
    /// Returns false if that makes no room: nothing was to end, and no other login is under way that may yet be refused.
    async fn make_room(
        &self,
        subject: &str,
        known: Known,
        login: SessionId,
        instead_of: Option<SessionId>,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let (mut candidates, mut to_end) = (Vec::new(), Vec::new());
        let found = self.find(known.list.live_up_to(login).filter(all_but(instead_of)), now).await;
        let mut has_room = known.list.is_unfinished();
        // It is about to be written, and used.
        let entered_last = (!known.list.names(login)).then_some((Timestamp::MAX, login));
        for FetchedSession { listed, stored } in &found {
            if listed.id == login {
                candidates.push((Timestamp::MAX, login));
                continue;
            }
            let Ok(stored) = stored else {
                candidates.push((listed.entered, listed.id)); // whatever it is, it takes a place
                continue;
            };
            let session = self.session_of(subject, listed, stored.clone(), now);
            match session {
                Some(session) if session.readable => candidates.push((session.last_seen, listed.id)),
                // Another host may be able to read it.
                Some(_) if self.at_session_limit == SessionLimit::EndLeastRecentlyUsed => {
                    candidates.push((listed.entered, listed.id));
                }
                None if !self.is_settled(listed, now) => {
                    candidates.push((listed.entered, listed.id));
                    has_room = true; // once that login is refused
                }
                Some(_) | None => to_end.push(listed.id),
            }
        }
        candidates.extend(entered_last);
        match self.at_session_limit {
            SessionLimit::EndLeastRecentlyUsed => {
                to_end.extend(session_limit::surplus(candidates, self.max_sessions_per_subject));
            }
            SessionLimit::RefuseLogin if self.is_exempt_from_limit(&known.list, instead_of) => {}
            SessionLimit::RefuseLogin => {
                if session_limit::came_too_late(&candidates, self.max_sessions_per_subject, login) {
                    let forget = |list: &mut SessionList| list.remove(&[login]);
                    self.edit(subject, now, IfUnreadable::IsAnError, Some(known), forget).await?;
                    return Err(Error::new(Kind::SessionLimit));
                }
            }
        }
        has_room |= !to_end.is_empty();
        let ended = self.end(subject, now, Some(known), &found, |entry| to_end.contains(&entry.id)).await?;
        if ended > 0 {
            self.config.emit(EventKind::SubjectLimit { ended });
        }
        Ok(has_room)
    }

    /// Waits for `writing`, which writes or renews the session of `base`, and reads the session list at the same time. If the
    /// session is missing there, and `is_listed` after that write, it is entered again. No answer waits long for that.
    pub(super) async fn beside_the_list<T>(
        self: &Arc<Self>,
        subject: String,
        base: &Record,
        writing: impl Future<Output = Result<T, Error>>,
        is_listed: impl FnOnce(&T) -> bool,
        now: Timestamp,
    ) -> Result<T, Error> {
        let (tell, told) = oneshot::channel();
        let (inner, base) = (Arc::clone(self), base.clone());
        let mut healing = OptionalWork::new(async move {
            let list = inner.list(&subject, now).await;
            if told.await.is_ok() {
                inner.enter_again(&subject, &base, list, now).await;
            }
        });
        let outcome = healing.beside(writing).await?;
        if is_listed(&outcome) && tell.send(()).is_ok() {
            healing.finish(self.backend.__patience()).await;
        }
        Ok(outcome)
    }

    /// Enters a session that is missing from `list` again. If that fails, its next renewal tries again.
    async fn enter_again(
        &self,
        subject: &str,
        record: &Record,
        list: Result<SessionList, Error>,
        now: Timestamp,
    ) {
        if list.is_ok_and(|list| !list.names(record.id())) {
            let until = self.config.latest_deadline(record.created());
            let entered = self.backend.time(now);
            let entry = ListedSession { id: record.id(), entered, until, ending: false };
            let add = |list: &mut SessionList| list.enter(entry, None, false);
            let _ = self.edit(subject, now, IfUnreadable::IsAnError, None, add).await;
        }
    }

    /// Returns true if the session was entered so long ago that it must have been written, if it ever is.
    fn is_settled(&self, entry: &ListedSession, now: Timestamp) -> bool {
        entry.entered.saturating_add(WRITE_GRACE) <= self.backend.time(now)
    }
}

/// Picks the sessions that count beside the successor of `replaced`.
fn all_but(replaced: Option<SessionId>) -> impl Fn(&&ListedSession) -> bool + Copy {
    move |entry| Some(entry.id) != replaced
}
