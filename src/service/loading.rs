//! Loading the session of a request: the newest authentic session counts.

use std::cmp::Reverse;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use super::cookie_opening::{Candidate, Opened, Opening};
use super::slot::{Loaded, Renewal, Several, Slot};
use crate::clock::Timestamp;
use crate::error::Error;
use crate::event::{EventKind, MigrationSource};
use crate::lock::lock;
use crate::session::{Circumstances, Committer, DeviceCheck, Former, Record, Reply, Session, Weight};

impl Slot {
    /// Loads the session, unless it was loaded meanwhile.
    pub(super) async fn load(self: &Arc<Self>) -> Result<&Loaded, Error> {
        let config = self.connection.config();
        let now = config.now();
        let mut permit = None;
        let mut opened = match self.open_cookies(now, &mut permit).await? {
            Opening::Loaded(loaded) => return Ok(loaded),
            Opening::Opened(opened) => opened,
        };
        // Times and sequences may be equal. The order must not depend on the order of cookies.
        opened.candidates.sort_by_key(|candidate| {
            let record = &candidate.record;
            Reverse((record.recency(), record.created(), record.expires(), record.id().to_bytes()))
        });
        let newest = opened.candidates.first();
        let newest =
            newest.filter(|newest| opened.hidden.is_none_or(|hidden| newest.record.recency() > hidden));
        // The session that continues from a superseded token is newer than one from before that.
        let outdated =
            newest.filter(|_| opened.regenerated).is_some_and(|newest| self.is_outdated(&newest.record, now));
        let newest = newest.filter(|_| !outdated);
        let has_newest = newest.is_some();
        self.report(newest, &opened);
        let newest_of_all =
            opened.candidates.first().map(|newest| newest.record.recency()).max(opened.hidden);
        let device = self.check_device(newest.map(|newest| &newest.record), now);
        let lapsed = device == DeviceCheck::Failed;
        let newest = newest.filter(|_| !lapsed);
        let record = newest.map(|newest| newest.record.clone());
        // A newer session may be among the cookies that were not tried, and a renewal would cover it.
        let renewal = if opened.exhausted { Renewal::Never } else { Renewal::WhenDue };
        // A dead cookie is removed, unless the handler replaces it. But a response to a request that came before a login
        // must not remove the cookie of the login, nor that of a bound session that came without its bound cookie. While the
        // browser may still bring that, the request counts as overtaken.
        let overtaken = record.is_none() && opened.regenerated || lapsed && self.may_bring_bound_cookie();
        let dead = record.is_none() && opened.all_dead && !opened.exhausted;
        let removal = Reply::Remove { weight: Weight::DeadCookie };
        let reply = if dead && !overtaken && !lapsed { removal } else { Reply::Nothing };
        let (id, place) = (record.as_ref().map(Record::id), record.as_ref().and_then(Record::place));
        let subject = record.as_ref().filter(|_| config.settings.private_pages_no_store);
        let has_subject = subject.is_some_and(|record| record.payload().subject().is_some());
        self.had_subject.fetch_or(has_subject, Ordering::SeqCst);
        let brings_others = opened.candidates.len() > usize::from(has_newest);
        if brings_others || opened.exhausted && !opened.candidates.is_empty() {
            let sessions = opened.candidates.into_iter().map(|candidate| candidate.record).collect();
            // If two tasks load at once, both find the same sessions.
            let _ = self.several.set(Several {
                sessions,
                has_newest,
                #[cfg(feature = "device-bound")]
                hidden: opened.hidden,
            });
        }
        let committer: Weak<dyn Committer> = Arc::downgrade(self) as _;
        let circumstances = Circumstances {
            now,
            speculative: self.speculative,
            shared_flash: config.settings.shared_flash,
            revocable: config.revocable,
            device,
        };
        let former = match &record {
            None if overtaken => Former::Superseded,
            None if lapsed => Former::Lapsed,
            None if opened.exhausted || brings_others || !lock(&self.unusable).is_empty() => Former::Unusable,
            _ => Former::None,
        };
        let session = Session::new(record, former, reply, circumstances, committer);
        // If two tasks load at once, the first one counts.
        Ok(self.loaded.get_or_init(|| Loaded { session, now, id, place, renewal, newest: newest_of_all }))
    }

    /// Emits the events about the sessions that were found.
    fn report(&self, newest: Option<&Candidate>, opened: &Opened) {
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

    /// Returns true if the session that continues from a superseded token of the request is newer than `record`.
    fn is_outdated(&self, record: &Record, now: Timestamp) -> bool {
        let store = self.connection.store();
        lock(&self.superseded).iter().any(|token| store.is_outdated(record, token, now))
    }

    /// Checks that the request comes from the device that its session is bound to.
    #[cfg_attr(not(feature = "device-bound"), allow(clippy::unused_self))]
    fn check_device(&self, record: Option<&Record>, now: Timestamp) -> DeviceCheck {
        #[cfg(feature = "device-bound")]
        return self.binding_check(record, now);
        #[cfg(not(feature = "device-bound"))]
        {
            let _ = (record, now);
            DeviceCheck::Unchecked
        }
    }

    /// Returns true if the request came without a valid bound cookie, and the next one may come with one.
    #[cfg_attr(not(feature = "device-bound"), allow(clippy::unused_self))]
    fn may_bring_bound_cookie(&self) -> bool {
        #[cfg(feature = "device-bound")]
        return self.device.lacks_refresh() || self.has_bound_cookie();
        #[cfg(not(feature = "device-bound"))]
        false
    }
}
