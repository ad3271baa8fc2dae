//! The plan of a revocable session: what is sealed, and what is revoked before.

use super::Inner;
use super::header::SealedHeader;
use super::revoking::{Revoking, UNREAD};
use crate::clock::Timestamp;
use crate::crypto::{Sealer, subject_name};
use crate::error::{Error, Kind};
use crate::revocation::{Continuation, Revocation, Verdict};
use crate::session::{Changes, Lineage, Payload, Position, Recency, Record, Saved, SessionId};

/// A session to be sealed once its position in the log is known.
pub(super) struct Plan {
    id: SessionId,
    created: Timestamp,
    payload: Payload,
    /// When the token was written that this one is to be newer than.
    previous: Option<Recency>,
    /// The session whose labels it keeps, unless it has its own.
    labelled: Option<Record>,
    lineage: Lineage,
    /// True at a login: the session then begins at the present end of the log.
    pub(super) asks_position: bool,
    /// True if the other sessions of its subject end.
    pub(super) ends_others: bool,
    /// The revocations that must be durable before the session is sealed.
    pub(super) revocations: Vec<Revocation>,
}

/// Where a session begins in the log of revocations.
#[derive(Clone, Copy)]
struct Beginning {
    lineage: Lineage,
    /// True if its position is still to be asked for.
    asks_position: bool,
}

impl Plan {
    fn to_payload(&self, lineage: &Lineage) -> Result<Payload, Error> {
        self.payload.with_lineage(lineage, self.labelled.as_ref().map(Record::payload))
    }
}

impl Inner {
    /// Plans a session that is not stored yet. `None` if it is empty.
    pub(super) fn plan_new(
        &self,
        revoking: &Revoking,
        changes: &Changes,
        now: Timestamp,
    ) -> Result<Option<Plan>, Error> {
        let payload = changes.apply(None)?;
        if payload.is_empty() {
            return Ok(None);
        }
        let beginning = begin(revoking, changes, &payload);
        self.plan_under_new_id(now, payload, beginning, changes).map(Some)
    }

    /// Plans a session that another store loaded. Its position is the end of the log: older revocations do not concern it.
    pub(super) fn plan_adopted(
        &self,
        revoking: &Revoking,
        record: &Record,
        changes: &Changes,
        now: Timestamp,
    ) -> Result<Option<Plan>, Error> {
        let payload = changes.apply(Some(record.payload()))?;
        if payload.is_empty() {
            return Ok(None);
        }
        let owner = payload.subject().map(|subject| subject_name(&subject));
        let known = changes.login_position();
        let position = known.unwrap_or_else(|| revoking.register.known_position());
        let created = changes.beginning(record, now);
        let lineage = Lineage { position, owner, root: None };
        let beginning = Beginning { lineage, asks_position: owner.is_some() && known.is_none() };
        let mut plan = self.plan_under_new_id(created, payload, beginning, changes)?;
        plan.previous = Some(record.recency());
        Ok(Some(plan))
    }

    /// Plans the session of `base` under another id, or a session that begins instead; `None` if there is nothing left in it.
    pub(super) fn plan_regenerated(
        &self,
        revoking: &Revoking,
        base: &Record,
        changes: &Changes,
        now: Timestamp,
    ) -> Result<Option<Plan>, Error> {
        let payload = changes.apply(Some(base.payload()))?;
        let created = changes.beginning(base, now);
        if self.config.leaves_nothing(created, &payload, now) {
            return Ok(None);
        }
        let (logs_in, restarts) = (changes.logs_in(), changes.restarts());
        let beginning = if logs_in || restarts {
            begin(revoking, changes, &payload)
        } else {
            let lineage = base.payload().lineage();
            let lineage = Lineage { root: lineage.root.or(Some(base.id())), ..lineage };
            Beginning { lineage, asks_position: false }
        };
        let mut plan = self.plan_under_new_id(created, payload, beginning, changes)?;
        (plan.previous, plan.labelled) = (Some(base.recency()), (!restarts).then(|| base.clone()));
        // A session that is too large to be sealed must not end the present one.
        self.check_plan(&plan)?;
        if revoking.judge(base, now) != Verdict::Revoked {
            plan.revocations = match (logs_in, restarts) {
                (false, true) => revoking.logout(base),
                (true, true) => revoking.logout_by_login(base, &plan.lineage, plan.asks_position),
                (false, false) if changes.binds_device() => revoking.retire(base),
                (_, false) => revoking.supersede(base, logs_in),
            };
        }
        Ok(Some(plan))
    }

    /// Plans a session under a new id.
    fn plan_under_new_id(
        &self,
        created: Timestamp,
        payload: Payload,
        beginning: Beginning,
        changes: &Changes,
    ) -> Result<Plan, Error> {
        let Beginning { lineage, asks_position } = beginning;
        Ok(Plan {
            id: SessionId::generate(&*self.random)?,
            created,
            payload,
            previous: changes.after(),
            labelled: None,
            lineage,
            asks_position,
            ends_others: changes.ends_others(),
            revocations: Vec::new(),
        })
    }

    /// Plans the session of `base` under the same id; `None` if there is nothing left in it.
    pub(super) fn plan_renewed(
        &self,
        base: &Record,
        changes: &Changes,
        now: Timestamp,
    ) -> Result<Option<Plan>, Error> {
        let payload = changes.apply(Some(base.payload()))?;
        Ok((!self.config.leaves_nothing(base.created(), &payload, now)).then(|| Plan {
            id: base.id(),
            created: base.created(),
            payload,
            previous: Some(base.recency()),
            labelled: Some(base.clone()),
            lineage: base.payload().lineage(),
            asks_position: false,
            ends_others: false,
            revocations: Vec::new(),
        }))
    }

    /// Refuses a session that does not fit its cookies, whichever position in the log it will get.
    fn check_plan(&self, plan: &Plan) -> Result<(), Error> {
        let lineage = Lineage { position: Position::LONGEST, ..plan.lineage };
        let payload = plan.to_payload(&lineage)?;
        let body = payload.to_format(self.config.settings.format)?;
        self.config.cookie.check_size(Sealer::token_len(SealedHeader::LEN + body.len()))
    }

    /// Ends the other sessions of the subject, and seals the session behind that revocation. Whatever ended this session since
    /// it was loaded still ends it: only revocations of the subject could be hidden by this one.
    pub(super) async fn end_others(
        &self,
        revoking: &Revoking,
        mut plan: Plan,
        now: Timestamp,
    ) -> Result<Saved, Error> {
        let Some(subject) = plan.payload.subject() else { return Err(Error::new(Kind::NotLoggedIn)) };
        let owner = subject_name(&subject);
        let from = (!plan.asks_position).then_some(plan.lineage.position);
        let revocations = std::mem::take(&mut plan.revocations);
        let register = &revoking.register;
        let position = match register.end_others(revocations, owner, from, revoking.max_staleness).await? {
            Continuation::At(position) => position,
            Continuation::Nowhere => return Ok(Saved::Ended),
            // Whatever the policy is: a session that was sealed behind an end that this host has not read would outlive it.
            Continuation::Unconfirmed => return Err(Error::unavailable(UNREAD)),
        };
        if from.is_some() {
            let lineage = Lineage { owner: None, ..plan.lineage };
            let payload = plan.to_payload(&lineage)?;
            let verdict = register.judge(plan.id, &lineage, &payload.labels(), now, revoking.max_staleness);
            if matches!(verdict, Verdict::Revoked | Verdict::Superseded) {
                return Ok(Saved::Ended);
            }
        }
        (plan.lineage.owner, plan.asks_position) = (Some(owner), true);
        self.seal_plan(plan, Some(position), now)
    }

    #[allow(clippy::needless_pass_by_value)] // a plan is carried out once
    pub(super) fn seal_plan(
        &self,
        plan: Plan,
        position: Option<Position>,
        now: Timestamp,
    ) -> Result<Saved, Error> {
        let mut lineage = plan.lineage;
        if let Some(position) = position.filter(|_| plan.asks_position) {
            lineage.position = position;
        }
        let payload = plan.to_payload(&lineage)?;
        self.seal(plan.id, plan.created, payload, plan.previous, now)
    }
}

/// Returns where a session begins that `changes` begin, with these values.
fn begin(revoking: &Revoking, changes: &Changes, payload: &Payload) -> Beginning {
    let present = revoking.register.known_position();
    if !changes.logs_in() {
        // A visitor with the labels of a subject. The session is behind the revocation that ends the subject's.
        let owner = changes.labels_of();
        let lineage = Lineage { position: present, owner, root: None };
        return Beginning { lineage, asks_position: owner.is_some() };
    }
    let owner = payload.subject().map(|subject| subject_name(&subject));
    let known = changes.login_position();
    let lineage = Lineage { position: known.unwrap_or(present), owner, root: None };
    Beginning { lineage, asks_position: known.is_none() }
}
