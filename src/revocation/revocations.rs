//! `Revocations`: the option of a cookie store, and the handle that revokes sessions.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::follower::{self, Follower, WAIT};
use super::log::{AnyLog, RevocationLog};
use super::register::{Register, StoreLimits};
use super::{Position, Revocation};
use crate::clock::{Clock, bounded};
use crate::crypto::SystemRandom;
use crate::error::Error;
use crate::event::{EventKind, Reporter};
use crate::runtime::check_runtime;
use crate::session::SessionId;

/// The revocations of a [`CookieStore`](crate::CookieStore): an option of it, and a handle that revokes sessions.
///
/// A clone is the same log. Stores with the same log share its subjects and labels, too: give each application a log of
/// its own. Of several stores, the clock, the observer and the limits of the first store count. If the sessions of a
/// later one last for longer, those end whose revocations may have been forgotten. [`refuse_unknown`](Self::refuse_unknown) of one
/// store counts for all.
///
/// # Limits
///
/// - This process refuses a revoked session as soon as the revocation has returned. Other processes do so within
///   [`max_staleness`](Self::max_staleness).
/// - A revocation takes 36 to 45 bytes of each process, for as long as sessions can last. Beyond
///   [`max_revocations`](Self::max_revocations) the oldest ones are replaced by a floor, which ends all sessions from
///   before it.
/// - One subject can cause [`max_per_subject`](Self::max_per_subject) revocations. Sessions that were never logged in
///   cause none.
/// - It does not stop a client from presenting an older cookie of a session that continues.
///
/// # Examples
///
/// ```
/// use hyper_session::{AppKey, CookieStore, Revocations};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), hyper_session::Error> {
/// let store = CookieStore::builder(AppKey::generate()?).revocations(Revocations::in_memory()).build()?;
/// // In a handler: `session.destroy()?` is final now. From elsewhere, "log out everywhere":
/// store.end_sessions_of("user-42").await?;
/// assert_eq!(store.revocations().map(Revocations::len), Some(1));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "revocations do nothing until they are given to a store"]
pub struct Revocations {
    /// An error if there was no randomness, which the builder of the store reports.
    register: Result<Arc<Register>, NoRandomness>,
    /// `None` in memory.
    follower: Option<Arc<Follower>>,
    options: Options,
    /// The eviction policy of a log that may lose entries by it, which each store reports.
    pub(crate) eviction_policy: Option<Arc<str>>,
}

#[derive(Clone, Copy)]
struct NoRandomness;

#[derive(Clone, Copy, Debug)]
struct Options {
    max_revocations: usize,
    max_per_subject: u16,
    max_staleness: Duration,
    failure_policy: FailurePolicy,
    refuse_unknown: bool,
}

/// The policy for sessions of which it cannot be confirmed that they have not ended: see
/// [`failure_policy`](Revocations::failure_policy).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailurePolicy {
    /// Loading such a session is an [unavailable](Error::is_unavailable) error, and the response of a request that asks
    /// for it a 503. The default.
    #[default]
    Refuse,
    /// The session is accepted, with an [event](crate::RevocationChange::Trusted): availability before finality.
    Trust,
}

/// A revocation reaches other processes within three times the wait of a read.
const SHORTEST_STALENESS: Duration = Duration::from_millis(300);

impl Revocations {
    /// Creates revocations that are kept in this process. No server is needed.
    ///
    /// # Security
    ///
    /// A restart forgets them: a cookie that was copied before a logout then works again, unless the application key is
    /// new, too, or [`refuse_unknown`](Self::refuse_unknown) is on. Other processes do not know them.
    ///
    /// # Examples
    ///
    /// ```
    /// use hyper_session::{AppKey, CookieStore, Revocations};
    ///
    /// let revocations = Revocations::in_memory().max_revocations(100_000);
    /// let store = CookieStore::builder(AppKey::generate()?).revocations(revocations).build()?;
    /// # Ok::<(), hyper_session::Error>(())
    /// ```
    pub fn in_memory() -> Self {
        Self::with(Register::in_memory(&SystemRandom).map(Arc::new).map_err(|_| NoRandomness), None)
    }

    /// Reads `log` to its end, and follows it from now on, in a task of the present tokio runtime. The task ends when
    /// the last clone is dropped. If its runtime ends earlier, or the log panics, [`RevocationChange::Unreachable`] reports it.
    /// The next request that must wait for the log then starts the task again, in its own runtime. It also does so if
    /// threads no longer drive the runtime of the task.
    ///
    /// [`RevocationChange::Unreachable`]: crate::RevocationChange::Unreachable
    ///
    /// # Errors
    ///
    /// The errors of the log. [`is_config`](Error::is_config) outside of a tokio runtime.
    ///
    /// # Panics
    ///
    /// In a tokio runtime that was built without timers (`enable_time`, or `enable_all`).
    pub async fn open(log: impl RevocationLog) -> Result<Self, Error> {
        if check_runtime().is_err() {
            return Err(Error::config(
                "revocations must be opened inside a tokio runtime, where a task follows them",
            ));
        }
        let log: Arc<dyn AnyLog> = Arc::new(log);
        let register = Arc::new(Register::over(Arc::clone(&log), &SystemRandom)?);
        let end = follower::load(&*log, &register).await?;
        let follower = Follower::new(log, end);
        follower.run(&register);
        Ok(Self::with(Ok(register), Some(follower)))
    }

    /// Does `work`, which may wait for the log. Follows the log in the present runtime, if the task that did so has ended, or
    /// if its runtime does not run it.
    pub(crate) async fn while_following<T>(&self, work: impl Future<Output = T>) -> T {
        let (Ok(register), Some(follower)) = (&self.register, &self.follower) else { return work.await };
        let mut work = pin!(work);
        // Without a runtime, there are no timers, and the work fails.
        while check_runtime().is_ok() {
            follower.run(register);
            if let Ok(done) = timeout(WAIT, work.as_mut()).await {
                return done;
            }
        }
        work.await
    }

    fn with(register: Result<Arc<Register>, NoRandomness>, follower: Option<Arc<Follower>>) -> Self {
        let options = Options {
            max_revocations: 1_000_000,
            max_per_subject: 1_000,
            max_staleness: Duration::from_secs(1),
            failure_policy: FailurePolicy::Refuse,
            refuse_unknown: false,
        };
        Self { register, follower, options, eviction_policy: None }
    }

    /// Sets how many revocations each process remembers. Default: a million, which take less than 60 MB.
    ///
    /// Beyond it, the oldest are replaced by a floor: all sessions from before it end, with an
    /// [event](crate::RevocationChange::Floor).
    pub fn max_revocations(mut self, max: usize) -> Self {
        self.options.max_revocations = max;
        self
    }

    /// Sets how many revocations one subject can cause by logging out, logging in again and regenerating. They are
    /// counted in each process, over the longest time that a session lasts. Default: 1000.
    ///
    /// The count is approximate and never too low, in counters that subjects share. They take 0.3 MB by default, and more with a
    /// lower limit or a higher [`max_revocations`](Self::max_revocations), up to 64 MB.
    ///
    /// Beyond it, a logout revokes all sessions of that subject, which needs one entry however often it happens, and
    /// regenerating does not revoke the old id. An [event](crate::RevocationChange::SubjectLimit) reports it.
    pub fn max_per_subject(mut self, max: u16) -> Self {
        self.options.max_per_subject = max;
        self
    }

    /// Sets how old the revocations that a process knows may be. Beyond that, the [failure
    /// policy](Self::failure_policy) applies. Default: 1 second. At least 300 ms. It has no effect in memory.
    ///
    /// A read of the log has failed if it takes a tenth of a second and two fifths of this: half a second at least, and ten
    /// seconds and a tenth at most. Of a time in which the process does not run, a quarter of these limits counts at most.
    pub fn max_staleness(mut self, max: Duration) -> Self {
        self.options.max_staleness = bounded(max);
        self
    }

    /// Sets what happens to sessions while the log cannot be read. Default: [`FailurePolicy::Refuse`].
    pub fn failure_policy(mut self, policy: FailurePolicy) -> Self {
        self.options.failure_policy = policy;
        self
    }

    /// Sets whether sessions that the log knows nothing of are refused: sessions that were sealed before revocations
    /// were switched on and, in memory, sessions from before the last start. It counts for all stores that share the log.
    /// Default: false.
    pub fn refuse_unknown(mut self, yes: bool) -> Self {
        self.options.refuse_unknown = yes;
        self
    }

    /// Ends the session with this id. The id from its login also ends the ids that the session was given since.
    ///
    /// # Errors
    ///
    /// [`is_unavailable`](Error::is_unavailable) if the log cannot be written to. The session may or may not have
    /// ended.
    pub async fn end_session(&self, id: SessionId) -> Result<(), Error> {
        self.revoke(vec![Revocation::of_id(id, false), Revocation::of_root(id, false)]).await
    }

    /// Ends all sessions that [`login`](crate::Session::login) has bound to `subject` so far. A later login, also in
    /// the same request, begins a session that stays.
    ///
    /// # Errors
    ///
    /// The same as for [`end_session`](Self::end_session).
    pub async fn end_sessions_of(&self, subject: &str) -> Result<(), Error> {
        self.revoke(vec![Revocation::of_subject(subject)]).await
    }

    /// Ends all sessions with this [label](crate::Session::label) that have logged in so far.
    ///
    /// # Errors
    ///
    /// The same as for [`end_session`](Self::end_session), and [`is_value`](Error::is_value) if it cannot be a label.
    pub async fn end_labelled(&self, namespace: &str, value: &str) -> Result<(), Error> {
        self.revoke(vec![Revocation::of_label(namespace, value, false)?]).await
    }

    /// Ends all sessions with this [label](crate::Session::label), also those of later logins.
    ///
    /// It is meant for values that are never used again, such as the `sid` of an OpenID Connect provider, whose logout
    /// may arrive before the browser returns with the login.
    ///
    /// # Errors
    ///
    /// The same as for [`end_labelled`](Self::end_labelled).
    pub async fn end_labelled_for_good(&self, namespace: &str, value: &str) -> Result<(), Error> {
        self.revoke(vec![Revocation::of_label(namespace, value, true)?]).await
    }

    /// Ends all sessions that have begun so far.
    ///
    /// # Errors
    ///
    /// The same as for [`end_session`](Self::end_session).
    pub async fn end_all(&self) -> Result<(), Error> {
        self.revoke(vec![Revocation::of_everything()]).await
    }

    /// Returns the present end of the log, for [`Session::login_at`](crate::Session::login_at).
    ///
    /// # Errors
    ///
    /// [`is_unavailable`](Error::is_unavailable) if the log does not answer.
    pub async fn position(&self) -> Result<Position, Error> {
        self.register()?.position().await
    }

    /// Returns how many names of sessions, subjects and labels this process knows to be revoked.
    pub fn len(&self) -> usize {
        self.register.as_ref().map_or(0, |register| register.len())
    }

    /// Returns true if this process knows of no revocation: neither of a name, nor of all sessions.
    pub fn is_empty(&self) -> bool {
        self.register.as_ref().is_ok_and(|register| register.is_empty())
    }

    async fn revoke(&self, revocations: Vec<Revocation>) -> Result<(), Error> {
        self.register()?.revoke(revocations).await.map(drop)
    }

    pub(crate) fn register(&self) -> Result<&Arc<Register>, Error> {
        self.register.as_ref().map_err(|NoRandomness| Error::new(crate::error::Kind::Random))
    }

    /// Applies the options for a store whose sessions last for `horizon` at most.
    pub(crate) fn attach(
        &self,
        horizon: Duration,
        clock: Arc<dyn Clock>,
        reporter: Reporter,
    ) -> Result<(), Error> {
        let Options { max_revocations: max, max_per_subject, max_staleness, refuse_unknown, .. } =
            self.options;
        let register = self.register()?;
        if max == 0 || max_per_subject == 0 {
            return Err(Error::config("max_revocations() and max_per_subject() must be more than zero"));
        }
        if !register.is_immediate() && max_staleness < SHORTEST_STALENESS {
            return Err(Error::config(
                "max_staleness() must be at least 300 ms: other processes learn of a revocation within 100 ms",
            ));
        }
        if let Some(policy) = &self.eviction_policy {
            reporter.report(EventKind::EvictionPolicy { policy });
        }
        let limits = StoreLimits { max, max_per_subject, max_staleness, refuse_unknown };
        register.attach(limits, horizon, clock, reporter);
        Ok(())
    }

    pub(crate) fn max_stale(&self) -> Duration {
        self.options.max_staleness
    }

    pub(crate) fn policy(&self) -> FailurePolicy {
        self.options.failure_policy
    }
}

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revocations")
            .field("len", &self.len())
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for NoRandomness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NoRandomness")
    }
}
