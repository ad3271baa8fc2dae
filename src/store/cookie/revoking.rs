//! The revocations that a store keeps, and what they mean for a session.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::config::Config;
use crate::error::Error;
use crate::event::{Refusal, RevocationChange};
use crate::revocation::{FailurePolicy, Register, Revocation, Revocations, Verdict};
use crate::session::{Lineage, Name, Record};

pub(super) const UNREAD: &str = "the log of revocations could not be read in time";

/// The revocations of a store, if it keeps any.
pub(super) struct Revoking {
    pub(super) revocations: Revocations,
    pub(super) register: Arc<Register>,
    pub(super) max_staleness: Duration,
}

impl Revoking {
    pub(super) fn new(revocations: Revocations, config: &Config) -> Result<Self, Error> {
        revocations.attach(config.longest(), Arc::clone(config.clock()), config.reporter())?;
        let register = Arc::clone(revocations.register()?);
        let max_staleness = revocations.max_stale();
        Ok(Self { revocations, register, max_staleness })
    }

    pub(super) fn judge(&self, record: &Record, now: Timestamp) -> Verdict {
        let payload = record.payload();
        self.register.judge(record.id(), &payload.lineage(), &payload.labels(), now, self.max_staleness)
    }

    /// Returns true if no revocation ends the session, and the log is known to be current.
    pub(super) fn vouches_for(&self, record: &Record, now: Timestamp) -> bool {
        matches!(self.judge(record, now), Verdict::Valid | Verdict::Retiring)
    }

    /// Returns true if the session must not be written. A retiring session continues in the cookie that the browser got
    /// meanwhile, which this cookie must not replace.
    pub(super) fn has_ended(&self, record: &Record, now: Timestamp) -> bool {
        matches!(self.judge(record, now), Verdict::Revoked | Verdict::Superseded | Verdict::Retiring)
    }

    pub(super) fn verdict(&self, verdict: Verdict, record: Record) -> Result<Result<Record, Refusal>, Error> {
        match verdict {
            Verdict::Valid | Verdict::Retiring => Ok(Ok(record)),
            Verdict::Revoked => Ok(Err(Refusal::Revoked)),
            Verdict::Superseded => Ok(Err(Refusal::Regenerated)),
            Verdict::Unconfirmed => self.trust().map(|()| Ok(record)),
        }
    }

    /// Trusts a session that cannot be confirmed, if the policy says so.
    pub(super) fn trust(&self) -> Result<(), Error> {
        match self.revocations.policy() {
            FailurePolicy::Refuse => Err(Error::unavailable(UNREAD)),
            FailurePolicy::Trust => {
                self.register.report(RevocationChange::Trusted);
                Ok(())
            }
        }
    }

    /// Returns the revocations that end the session of `base`: none if no user was ever logged in to it.
    pub(super) fn logout(&self, base: &Record) -> Vec<Revocation> {
        self.ended(base, false, |_| true)
    }

    /// Returns the revocations that end the session of `base`, instead of which a login begins one with this lineage. The client
    /// gets its cookie, which late requests with the one of `base` must not remove.
    ///
    /// If the subject has caused too many revocations, all its sessions from before the login end. That includes the new one if it
    /// is of the same subject and does not begin at the end of the log (`login_at`): then nothing is revoked.
    pub(super) fn logout_by_login(
        &self,
        base: &Record,
        begins: &Lineage,
        asks_position: bool,
    ) -> Vec<Revocation> {
        self.ended(base, true, |owner| asks_position || begins.owner != Some(owner))
    }

    /// Returns the revocation of the root of `base`, if a user was ever logged in to it. If the subject has caused too many, returns
    /// the revocation of the subject, if that `may_end`.
    fn ended(&self, base: &Record, superseded: bool, may_end: impl FnOnce(Name) -> bool) -> Vec<Revocation> {
        let lineage = base.payload().lineage();
        let Some(owner) = lineage.owner else { return Vec::new() };
        if self.register.spend(owner) {
            return vec![Revocation::of_root(lineage.root.unwrap_or(base.id()), superseded)];
        }
        self.register.report(RevocationChange::SubjectLimit);
        if may_end(owner) { vec![Revocation::of_owner(owner)] } else { Vec::new() }
    }

    /// Returns the revocations of the id of `base`, whose session continues under a new id. At a login, those of all
    /// its ids.
    pub(super) fn supersede(&self, base: &Record, at_login: bool) -> Vec<Revocation> {
        self.replaced(base, |lineage| {
            if at_login {
                Revocation::of_root(lineage.root.unwrap_or(base.id()), true)
            } else {
                Revocation::of_id(base.id(), true)
            }
        })
    }

    /// Returns the revocations of the id of `base` in a minute. Its session continues under a new id.
    pub(super) fn retire(&self, base: &Record) -> Vec<Revocation> {
        self.replaced(base, |_| Revocation::retiring_id(base.id()))
    }

    /// Returns `revocation`, unless no user was ever logged in to the session, or its subject has caused too many.
    pub(super) fn replaced(
        &self,
        base: &Record,
        revocation: impl FnOnce(&Lineage) -> Revocation,
    ) -> Vec<Revocation> {
        let lineage = base.payload().lineage();
        let Some(owner) = lineage.owner else { return Vec::new() };
        if !self.register.spend(owner) {
            self.register.report(RevocationChange::SubjectLimit);
            return Vec::new();
        }
        vec![revocation(&lineage)]
    }
}
