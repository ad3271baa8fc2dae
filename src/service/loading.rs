//! Loading the session of a request: the newest authentic session counts.

use std::cmp::Reverse;
use std::sync::{Arc, Weak};

use super::brought_sessions::{BroughtSessions, UnusedToken};
use super::cookie_opening::{Candidate, OpenedCookies, Stop};
use super::slot::{Loaded, Renewal, Slot};
use crate::clock::Timestamp;
use crate::error::Error;
use crate::event::{EventKind, MigrationSource};
use crate::session::{Circumstances, Committer, DeviceCheck, Former, Record, Reply, Session, Weight};

impl Slot {
    /// Loads the session, unless it was loaded meanwhile.
    pub(super) async fn load(self: &Arc<Self>) -> Result<&Loaded, Error> {
        let now = self.connection.config().now();
        let mut permit = None;
        match self.open_cookies(now, &mut permit).await {
            Ok(opened) => {
                let loaded = self.loaded_from(opened, now);
                // If two tasks load at once, the first one counts.
                Ok(self.loaded.get_or_init(|| loaded))
            }
            Err(Stop::Loaded(loaded)) => Ok(loaded),
            Err(Stop::Failed(error)) => Err(error),
        }
    }

    /// Chooses the session of the request among the sessions of its cookies.
    fn loaded_from(self: &Arc<Self>, mut opened: OpenedCookies, now: Timestamp) -> Loaded {
        let settings = &self.connection.config().settings;
        // Times and sequences may be equal. The order must not depend on the order of cookies.
        opened.candidates.sort_by_key(|candidate| {
            let record = &candidate.record;
            Reverse((record.recency(), record.created(), record.expires(), record.id().to_bytes()))
        });
        let newest = opened.candidates.first().map(|newest| newest.record.recency()).max(opened.hidden);
        self.prefer_expected(&mut opened);
        let counts = self.newest_that_counts(&opened, now);
        self.report_found(counts, &opened);
        let device = self.binding_check(counts.map(|newest| &newest.record), now);
        let lapsed = device == DeviceCheck::Failed;
        let record = counts.filter(|_| !lapsed).map(|newest| newest.record.clone());
        // While the browser may still bring the bound cookie, the request counts as overtaken.
        let overtaken =
            record.is_none() && !opened.superseded.is_empty() || lapsed && self.bound_cookie_may_follow(now);
        let has_newest = counts.is_some();
        let brings_others = opened.candidates.len() > usize::from(has_newest);
        let former = match &record {
            None if overtaken => Former::Superseded,
            None if lapsed => Former::Lapsed,
            None if opened.exhausted || brings_others || !opened.unusable.is_empty() => Former::Unusable,
            _ => Former::None,
        };
        // A dead cookie is removed, unless the handler replaces it. But a response to a request that came before a login
        // must not remove the cookie of the login, nor that of a bound session that came without its bound cookie.
        let dead = record.is_none() && opened.all_dead && !opened.exhausted && !overtaken && !lapsed;
        let reply = if dead { Reply::Remove { weight: Weight::DeadCookie } } else { Reply::Nothing };
        let (id, place) = (record.as_ref().map(Record::id), record.as_ref().and_then(Record::place));
        let belongs = |record: &Record| record.payload().subject().is_some();
        let had_subject = settings.private_pages_no_store && record.as_ref().is_some_and(belongs);
        // A newer session may be among the cookies that were not tried, and a renewal would cover it.
        let renewal = if opened.exhausted { Renewal::Never } else { Renewal::WhenDue };
        let several = brings_others || opened.exhausted;
        Loaded {
            session: self.session_of(record, former, reply, device, now),
            now,
            id,
            place,
            renewal,
            newest,
            had_subject,
            brought: brought_beside(opened, several, has_newest),
        }
    }

    /// Returns the first of the authentic sessions, which are in order, unless a newer one hides it.
    fn newest_that_counts<'a>(&self, opened: &'a OpenedCookies, now: Timestamp) -> Option<&'a Candidate> {
        let newest = opened.candidates.first();
        let newest =
            newest.filter(|newest| opened.hidden.is_none_or(|hidden| newest.record.recency() > hidden))?;
        // The session that continues from a superseded token is newer than one from before that.
        let store = self.connection.store();
        let is_outdated = |token: &UnusedToken| store.is_outdated(&newest.record, token, now);
        (!opened.superseded.iter().any(is_outdated)).then_some(newest)
    }

    /// Creates the session that the handler gets.
    fn session_of(
        self: &Arc<Self>,
        record: Option<Record>,
        former: Former,
        reply: Reply,
        device: DeviceCheck,
        now: Timestamp,
    ) -> Session {
        let config = self.connection.config();
        let committer: Weak<dyn Committer> = Arc::downgrade(self) as _;
        let circumstances = Circumstances {
            now,
            speculative: self.speculative,
            shared_flash: config.settings.shared_flash,
            revocable: config.revocable,
            device,
        };
        Session::new(record, former, reply, circumstances, committer)
    }

    /// Emits the events about the sessions that were found.
    fn report_found(&self, newest: Option<&Candidate>, opened: &OpenedCookies) {
        if opened.exhausted {
            self.emit(EventKind::TooManyCandidates);
        }
        let Some(newest) = newest else { return };
        let id = newest.record.id();
        if newest.retired.is_some() {
            self.emit(EventKind::Migrating { id, from: MigrationSource::RetiredName });
        }
        if newest.record.with_old_key() {
            self.emit(EventKind::OldKey { id });
        }
        if opened.candidates.len() > 1 {
            let subjects: Vec<String> = opened
                .candidates
                .iter()
                .filter_map(|candidate| candidate.record.payload().subject())
                .collect();
            let subjects_differ = subjects.iter().any(|subject| Some(subject) != subjects.first());
            let sessions = opened.candidates.len();
            self.emit(EventKind::SeveralSessions { id, sessions, subjects_differ });
        }
    }
}

/// Returns what the cookies hold beside the session of the request. `None`, as for most requests, if there is nothing.
fn brought_beside(opened: OpenedCookies, several: bool, has_newest: bool) -> Option<Arc<BroughtSessions>> {
    if !several && opened.superseded.is_empty() && opened.unusable.is_empty() {
        return None;
    }
    let candidates = opened.candidates.into_iter().filter(|_| several);
    Some(Arc::new(BroughtSessions {
        several: candidates.map(|candidate| candidate.record).collect(),
        has_newest,
        hidden: opened.hidden,
        superseded: opened.superseded,
        unusable: opened.unusable,
    }))
}
