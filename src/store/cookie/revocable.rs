//! Cookie sessions that can be revoked: what they seal, and how they are written and ended.

use std::future::Future;
use std::sync::Arc;

use super::header::SealedHeader;
use super::revoking::{Revoking, UNREAD};
use super::{CookieKeys, CookieStore, Inner};
use crate::clock::Timestamp;
use crate::crypto::{Sealer, subject_name};
use crate::error::{Error, Kind};
use crate::revocation::{Continued, Revocation, Revocations, Verdict};
use crate::session::{Changes, Lineage, Payload, Position, Recency, Record, Saved, SessionId};
use crate::store::{Builder, LoadFuture, StoreFuture};

/// A session to be sealed once its position in the log is known.
struct Plan {
    id: SessionId,
    created: Timestamp,
    payload: Payload,
    /// When the token was written that this one is to be newer than.
    previous: Option<Recency>,
    /// The session whose labels it keeps, unless it has its own.
    labelled: Option<Record>,
    lineage: Lineage,
    /// True at a login: the session then begins at the present end of the log.
    asks_position: bool,
    /// True if the other sessions of its subject end.
    ends_others: bool,
    /// The revocations that must be durable before the session is sealed.
    revocations: Vec<Revocation>,
}

impl Plan {
    fn to_payload(&self, lineage: &Lineage) -> Result<Payload, Error> {
        self.payload.with_lineage(lineage, self.labelled.as_ref().map(Record::payload))
    }
}

impl Builder<CookieKeys> {
    /// Sets where revocations are kept, so that a logout is final: a cookie that was copied before it is refused from
    /// then on. Default: none.
    ///
    /// If a user was logged in, [`destroy`](crate::Session::destroy), [`regenerate`](crate::Session::regenerate) and
    /// [`login`](crate::Session::login) then revoke the session or its old id. The response waits until that is
    /// durable. [`end_session`](CookieStore::end_session), [`end_sessions_of`](CookieStore::end_sessions_of),
    /// [`end_labelled`](CookieStore::end_labelled) and [`end_all`](CookieStore::end_all) end sessions outside of their
    /// requests.
    ///
    /// # Limits
    ///
    /// A token grows by 16 to 57 bytes, and by 18 bytes for each label. It cannot be combined with Astra's cookies.
    ///
    /// # Examples
    ///
    /// ```
    /// use http::{Request, Response};
    /// use hyper::service::Service;
    /// use hyper_session::{AppKey, CookieStore, Error, Revocations, SessionHandle, session_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Error> {
    /// let store = CookieStore::builder(AppKey::generate()?).revocations(Revocations::in_memory()).build()?;
    /// let service = session_fn(store, |request: Request<()>, session: SessionHandle| async move {
    ///     let session = session.load().await?;
    ///     match request.uri().path() {
    ///         "/login" => session.login("ada")?,
    ///         "/logout" => session.destroy()?,
    ///         _ => {}
    ///     }
    ///     Ok::<_, Error>(Response::new(session.subject().is_some()))
    /// });
    /// let login = service.call(Request::get("/login").body(()).unwrap()).await?;
    /// let copy = login.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap();
    /// let with_copy = |path| Request::get(path).header("cookie", copy).body(()).unwrap();
    /// assert!(service.call(with_copy("/")).await?.into_body());
    ///
    /// service.call(with_copy("/logout")).await?;
    /// assert!(!service.call(with_copy("/")).await?.into_body());
    /// # Ok(())
    /// # }
    /// ```
    pub fn revocations(mut self, revocations: Revocations) -> Self {
        self.kind.revocations = Some(revocations);
        self
    }
}

impl CookieStore {
    /// Returns the revocations of this store, or `None` if it was built without.
    pub fn revocations(&self) -> Option<&Revocations> {
        self.inner.revoking.as_ref().map(|revoking| &revoking.revocations)
    }

    /// Ends the session with this id. The id from its login also ends the ids that the session was given since.
    ///
    /// # Errors
    ///
    /// [`is_config`](Error::is_config) if the store was built without [`revocations`](Builder::revocations).
    /// [`is_unavailable`](Error::is_unavailable) if the log cannot be written to: the session may or may not have
    /// ended.
    ///
    /// # Examples
    ///
    /// ```
    /// use hyper_session::{AppKey, CookieStore, Revocations, SessionId};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), hyper_session::Error> {
    /// let store = CookieStore::builder(AppKey::generate()?).revocations(Revocations::in_memory()).build()?;
    /// let from_the_audit_log = "abababababababababababababababab";
    /// store.end_session(from_the_audit_log.parse()?).await?;
    ///
    /// let without = CookieStore::builder(AppKey::generate()?).build()?;
    /// assert!(without.end_all().await.unwrap_err().is_config());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn end_session(&self, id: SessionId) -> Result<(), Error> {
        self.revoking()?.end_session(id).await
    }

    /// Ends all sessions that [`login`](crate::Session::login) has bound to `subject` so far: "log out everywhere". A
    /// later login, also in the same request, begins a session that stays.
    ///
    /// Only a [`ServerStore`](crate::ServerStore) can list the sessions.
    ///
    /// # Errors
    ///
    /// The same as for [`end_session`](Self::end_session).
    ///
    /// # Examples
    ///
    /// A reset of a forgotten password ends every session, and begins one.
    /// [`Session::end_other_sessions`](crate::Session::end_other_sessions) keeps the session of the request.
    ///
    /// ```
    /// use hyper_session::{CookieStore, Error, Session};
    ///
    /// async fn password_was_reset(store: &CookieStore, session: &Session, user: &str) -> Result<(), Error> {
    ///     store.end_sessions_of(user).await?;
    ///     session.login(user)
    /// }
    /// ```
    pub async fn end_sessions_of(&self, subject: &str) -> Result<(), Error> {
        self.revoking()?.end_sessions_of(subject).await
    }

    /// Ends all sessions with this [label](crate::Session::label) that have logged in so far.
    ///
    /// # Errors
    ///
    /// The same as for [`end_session`](Self::end_session), and [`is_value`](Error::is_value) if it cannot be a label.
    ///
    /// # Examples
    ///
    /// See the guide [`revocation`](crate::guide::revocation#labels-and-openid-connect).
    pub async fn end_labelled(&self, namespace: &str, value: &str) -> Result<(), Error> {
        self.revoking()?.end_labelled(namespace, value).await
    }

    /// Ends all sessions with this [label](crate::Session::label), also those of later logins. It is meant for values
    /// that are never used again, such as the `sid` of an OpenID Connect provider, whose logout may arrive before the
    /// browser returns with the login.
    ///
    /// # Errors
    ///
    /// The same as for [`end_labelled`](Self::end_labelled).
    pub async fn end_labelled_for_good(&self, namespace: &str, value: &str) -> Result<(), Error> {
        self.revoking()?.end_labelled_for_good(namespace, value).await
    }

    /// Ends all sessions that have begun so far.
    ///
    /// # Errors
    ///
    /// The same as for [`end_session`](Self::end_session).
    pub async fn end_all(&self) -> Result<(), Error> {
        self.revoking()?.end_all().await
    }

    /// Returns the present end of the log, for [`Session::login_at`](crate::Session::login_at). Ask for it before you
    /// check the password.
    ///
    /// # Errors
    ///
    /// The same as for [`end_session`](Self::end_session).
    pub async fn revocation_position(&self) -> Result<Position, Error> {
        self.revoking()?.position().await
    }

    pub(super) fn revoking(&self) -> Result<&Revocations, Error> {
        self.revocations().ok_or_else(|| {
            Error::config("this store keeps no revocations: call revocations() on its builder")
        })
    }
}

/// The verbs of a store whose sessions can be revoked.
impl CookieStore {
    pub(super) fn load_revocable(&self, revoking: &Revoking, record: Record, now: Timestamp) -> LoadFuture {
        let verdict = revoking.judge(&record, now);
        if verdict != Verdict::Unconfirmed {
            return StoreFuture::ready(revoking.verdict(verdict, record));
        }
        self.later(move |revoking, _| async move {
            let position = record.payload().lineage().position;
            revoking.register.confirm(position, revoking.max_staleness).await;
            revoking.verdict(revoking.judge(&record, now), record)
        })
    }

    pub(super) fn save_revocable(
        &self,
        revoking: &Revoking,
        base: Option<Record>,
        changes: &Changes,
        now: Timestamp,
    ) -> StoreFuture<Saved> {
        let Some(base) = base else {
            return self.carry_out(revoking, self.inner.plan_new(revoking, changes, now), now);
        };
        // Copies of the cookie are not bound to the device, so they must end: the session gets another id.
        if changes.binds_device() {
            return self.regenerate_revocable(revoking, &base, changes, now);
        }
        if revoking.has_ended(&base, now) {
            return StoreFuture::ready(Ok(Saved::Ended));
        }
        match self.inner.plan_renewed(&base, changes, now) {
            // Nothing is left: the session ends.
            Ok(None) => self.end(revoking, &base, now, || Saved::Removed),
            Ok(Some(plan)) => StoreFuture::ready(self.inner.seal_plan(plan, None, now)),
            Err(error) => StoreFuture::ready(Err(error)),
        }
    }

    pub(super) fn regenerate_revocable(
        &self,
        revoking: &Revoking,
        base: &Record,
        changes: &Changes,
        now: Timestamp,
    ) -> StoreFuture<Saved> {
        let goes_on = !changes.logs_in() && !changes.restarts();
        if goes_on && revoking.has_ended(base, now) {
            return StoreFuture::ready(Ok(Saved::Ended));
        }
        match self.inner.plan_regenerated(revoking, base, changes, now) {
            Ok(None) => self.end(revoking, base, now, || Saved::Removed),
            Ok(Some(plan)) => self.carry_out(revoking, Ok(Some(plan)), now),
            Err(error) => StoreFuture::ready(Err(error)),
        }
    }

    pub(super) fn adopt_revocable(
        &self,
        revoking: &Revoking,
        record: &Record,
        changes: &Changes,
        now: Timestamp,
    ) -> StoreFuture<Saved> {
        self.carry_out(revoking, self.inner.plan_adopted(revoking, record, changes, now), now)
    }

    /// Ends the session of `base`, which goes on in another store. Returns false if it had ended.
    ///
    /// The other store does not know of an end of the session. So an end that this host has not read yet is looked for, up to the
    /// position of this one.
    pub(super) fn supersede_revocable(
        &self,
        revoking: &Revoking,
        base: &Record,
        now: Timestamp,
    ) -> StoreFuture<bool> {
        // Before the session is judged, which covers all revocations up to here.
        let judged = revoking.register.known_position();
        if revoking.has_ended(base, now) {
            return StoreFuture::ready(Ok(false));
        }
        let revocations = revoking.supersede(base, true);
        let has_login = base.payload().lineage().owner.is_some();
        // A session without a login that has labels may have been ended by one of them elsewhere, so it is looked for, too.
        let is_visitor = !has_login && base.payload().labels().names().next().is_none();
        let nothing_to_do = revocations.is_empty() && is_visitor;
        if nothing_to_do || revoking.register.revoke_at_once(&revocations).is_some() {
            return StoreFuture::ready(Ok(true));
        }
        let base = base.clone();
        self.later(move |revoking, _| async move {
            let (payload, is_recorded) = (base.payload(), !revocations.is_empty());
            let (lineage, labels, staleness) = (payload.lineage(), payload.labels(), revoking.max_staleness);
            let register = &revoking.register;
            let moved = register.end_moved(base.id(), &lineage, &labels, judged, is_recorded, staleness);
            match moved.await? {
                Continued::At(_) => Ok(true),
                Continued::Nowhere => Ok(false),
                // Whatever the policy is: the other store would never learn of the end.
                Continued::Unconfirmed => Err(Error::unavailable(UNREAD)),
            }
        })
    }

    pub(super) fn destroy_revocable(
        &self,
        revoking: &Revoking,
        base: &Record,
        now: Timestamp,
    ) -> StoreFuture<()> {
        self.end(revoking, base, now, || ())
    }

    /// Ends the session of `base`, and returns `ended` when that is durable.
    fn end<T: Send + 'static>(
        &self,
        revoking: &Revoking,
        base: &Record,
        now: Timestamp,
        ended: fn() -> T,
    ) -> StoreFuture<T> {
        // A session that was superseded is ended under its other ids, too.
        let is_over = revoking.judge(base, now) == Verdict::Revoked;
        let revocations = if is_over { Vec::new() } else { revoking.logout(base) };
        if revocations.is_empty() || revoking.register.revoke_at_once(&revocations).is_some() {
            return StoreFuture::ready(Ok(ended()));
        }
        self.later(
            move |revoking, _| async move { revoking.register.revoke(revocations).await.map(|_| ended()) },
        )
    }

    /// Records the revocations of the plan, and seals its session. Without a session, the cookie is removed.
    fn carry_out(
        &self,
        revoking: &Revoking,
        plan: Result<Option<Plan>, Error>,
        now: Timestamp,
    ) -> StoreFuture<Saved> {
        let mut plan = match plan {
            Ok(Some(plan)) => plan,
            Ok(None) => return StoreFuture::ready(Ok(Saved::Removed)),
            Err(error) => return StoreFuture::ready(Err(error)),
        };
        if plan.ends_others {
            return self
                .later(move |revoking, inner| async move { inner.end_others(&revoking, plan, now).await });
        }
        let register = &revoking.register;
        let revocations = std::mem::take(&mut plan.revocations);
        let at_once = match (revocations.is_empty(), plan.asks_position) {
            (true, false) => Some(None),
            (true, true) => register.is_immediate().then(|| Some(register.known_position())),
            (false, _) => register.revoke_at_once(&revocations).map(Some),
        };
        if let Some(position) = at_once {
            return StoreFuture::ready(self.inner.seal_plan(plan, position, now));
        }
        self.later(move |revoking, inner| async move {
            let position = if revocations.is_empty() {
                revoking.register.position().await?
            } else {
                revoking.register.revoke(revocations).await?
            };
            inner.seal_plan(plan, Some(position), now)
        })
    }

    /// Returns a future that owns the parts of the store that it needs.
    fn later<T, F>(
        &self,
        work: impl FnOnce(Arc<Revoking>, Arc<Inner>) -> F + Send + 'static,
    ) -> StoreFuture<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        match inner.revoking.clone() {
            Some(revoking) => {
                let work = work(Arc::clone(&revoking), inner);
                StoreFuture::boxed(async move { revoking.revocations.while_following(work).await })
            }
            None => {
                StoreFuture::ready(Err(Error::new(Kind::Internal("a store without revocations revoked"))))
            }
        }
    }
}

impl Inner {
    /// Plans a session that is not stored yet. `None` if it is empty.
    fn plan_new(
        &self,
        revoking: &Revoking,
        changes: &Changes,
        now: Timestamp,
    ) -> Result<Option<Plan>, Error> {
        let payload = changes.apply(None)?;
        if payload.is_empty() {
            return Ok(None);
        }
        let place = begin(revoking, changes, &payload);
        self.plan_under_new_id(now, payload, place, changes).map(Some)
    }

    /// Plans a session that another store loaded. Its position is the end of the log: older revocations do not concern it.
    fn plan_adopted(
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
        let created = if changes.begins_anew() { now } else { record.created() };
        let place = (Lineage { position, owner, root: None }, owner.is_some() && known.is_none());
        let mut plan = self.plan_under_new_id(created, payload, place, changes)?;
        plan.previous = Some(record.recency());
        Ok(Some(plan))
    }

    /// Plans the session of `base` under another id, or a session that begins instead; `None` if there is nothing left in it.
    fn plan_regenerated(
        &self,
        revoking: &Revoking,
        base: &Record,
        changes: &Changes,
        now: Timestamp,
    ) -> Result<Option<Plan>, Error> {
        let payload = changes.apply(Some(base.payload()))?;
        let created = if changes.begins_anew() { now } else { base.created() };
        if self.config.leaves_nothing(created, &payload, now) {
            return Ok(None);
        }
        let (logs_in, restarts) = (changes.logs_in(), changes.restarts());
        let place = if logs_in || restarts {
            begin(revoking, changes, &payload)
        } else {
            let lineage = base.payload().lineage();
            (Lineage { root: lineage.root.or(Some(base.id())), ..lineage }, false)
        };
        let mut plan = self.plan_under_new_id(created, payload, place, changes)?;
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

    /// Plans a session under a new id. `place` is where it stands in the log, and whether its position is still to be asked for.
    fn plan_under_new_id(
        &self,
        created: Timestamp,
        payload: Payload,
        place: (Lineage, bool),
        changes: &Changes,
    ) -> Result<Plan, Error> {
        let (lineage, asks_position) = place;
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
    fn plan_renewed(&self, base: &Record, changes: &Changes, now: Timestamp) -> Result<Option<Plan>, Error> {
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
    async fn end_others(&self, revoking: &Revoking, mut plan: Plan, now: Timestamp) -> Result<Saved, Error> {
        let Some(subject) = plan.payload.subject() else { return Err(Error::new(Kind::NotLoggedIn)) };
        let owner = subject_name(&subject);
        let from = (!plan.asks_position).then_some(plan.lineage.position);
        let revocations = std::mem::take(&mut plan.revocations);
        let register = &revoking.register;
        let position = match register.end_others(revocations, owner, from, revoking.max_staleness).await? {
            Continued::At(position) => position,
            Continued::Nowhere => return Ok(Saved::Ended),
            // Whatever the policy is: a session that was sealed behind an end that this host has not read would outlive it.
            Continued::Unconfirmed => return Err(Error::unavailable(UNREAD)),
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
    fn seal_plan(&self, plan: Plan, position: Option<Position>, now: Timestamp) -> Result<Saved, Error> {
        let mut lineage = plan.lineage;
        if let Some(position) = position.filter(|_| plan.asks_position) {
            lineage.position = position;
        }
        let payload = plan.to_payload(&lineage)?;
        self.seal(plan.id, plan.created, payload, plan.previous, now)
    }
}

/// Returns where a session stands that begins with `changes`, and whether its position must still be asked for.
fn begin(revoking: &Revoking, changes: &Changes, payload: &Payload) -> (Lineage, bool) {
    let position = revoking.register.known_position();
    if !changes.logs_in() {
        return (Lineage { position, owner: None, root: None }, false);
    }
    let owner = payload.subject().map(|subject| subject_name(&subject));
    match changes.login_position() {
        Some(position) => (Lineage { position, owner, root: None }, false),
        None => (Lineage { position, owner, root: None }, true),
    }
}
