//! One server: its connections, its health, and repeating commands over a fresh connection when one is silent or lost.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use bb8_redis::redis::{Cmd, RedisResult, Value};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};

use super::connection::{Connection, Waiting};
use super::dialer::Dialer;
use super::fault::{Failure, Remedy, Trouble, breaks_connection, remedy};
use super::health::{Health, PROBE_EVERY};
use super::limits::Limits;
use super::stats::{Connected, Counters};
use super::tracker::{Tracker, Tracking};
use crate::id::EntryId;
use crate::lock::{read, write};
use crate::store::near_cache::Ticket;

/// For this many milliseconds all commands use the same connection, and then the next one: commands that are written
/// together cost client and server less than separate ones.
const ROTATION_MILLIS: u128 = 5;

/// A task that makes a connection is replaced if it was not run for twice the connect timeout, and for this long.
const LATE: Duration = Duration::from_secs(1);

pub(super) struct Node {
    dialer: Arc<Dialer>,
    /// Present if there is a near-cache.
    tracker: Option<Tracker>,
    pool: RwLock<Vec<PooledConnection>>,
    health: Health,
    /// Wakes tasks that wait for a connection, when one was made or could not be made.
    changed: Notify,
    /// How many tasks wait for a connection.
    waiting: AtomicU32,
    /// The number of the next task that makes a connection.
    next_dialing: AtomicU64,
    since: Instant,
    counters: Arc<Counters>,
}

/// A place of the pool: one connection, or the attempt to make it.
#[derive(Default)]
struct PooledConnection {
    /// A silent connection stays here while no connection works: it is used if none can be made, and works again once it answers.
    connection: Option<Arc<Connection>>,
    /// The task that makes the connection.
    dialing: Option<Attending>,
    /// When it last could not be made, and why.
    failed: Option<(Instant, Failure)>,
}

/// The task that makes the connection of a place.
struct Attending {
    number: u64,
    /// When it was last run. A runtime that no thread drives does not run it.
    ran: Instant,
}

impl PooledConnection {
    fn is_dialed_by(&self, number: u64) -> bool {
        self.dialing.as_ref().is_some_and(|dialing| dialing.number == number)
    }

    fn working(&self) -> Option<&Arc<Connection>> {
        self.connection.as_ref().filter(|connection| connection.works())
    }
}

/// Drops the connections that are lost, and if one works, the silent ones, too.
///
/// A command that was sent again over a connection that works must not reach the server later over a silent one. A connection that
/// is dropped is closed by a reset.
fn drop_unused(pool: &mut [PooledConnection]) {
    let one_works = pool.iter().any(|pooled| pooled.working().is_some());
    for pooled in pool {
        pooled.connection.take_if(|connection| connection.is_broken() || one_works && !connection.works());
    }
}

/// Returns one of the connections that are `usable`, a different one for each `turn`.
fn pick(
    pool: &[PooledConnection],
    turn: u128,
    usable: impl Fn(&Arc<Connection>) -> bool,
) -> Option<Arc<Connection>> {
    let all = || pool.iter().filter_map(|pooled| pooled.connection.as_ref()).filter(|found| usable(found));
    let place = usize::try_from(turn.checked_rem(all().count() as u128)?).ok()?;
    all().nth(place).cloned()
}

/// The result of an attempt on one connection.
enum Attempt {
    Over(Result<Value, Trouble>),
    /// The connection is lost. Whether the command was executed is unknown.
    Lost(Failure),
}

impl Node {
    pub(super) fn new(
        dialer: Dialer,
        connections: u32,
        counters: Arc<Counters>,
        tracking: Option<Arc<Tracking>>,
    ) -> Self {
        let dialer = Arc::new(dialer);
        let tracker = tracking.map(|tracking| Tracker::new(tracking, Arc::clone(&dialer)));
        let pool = (0..connections.max(1)).map(|_| PooledConnection::default()).collect();
        Self {
            dialer,
            tracker,
            pool: RwLock::new(pool),
            health: Health::new(),
            changed: Notify::new(),
            waiting: AtomicU32::new(0),
            next_dialing: AtomicU64::new(0),
            since: Instant::now(),
            counters,
        }
    }

    /// Makes all connections, or fails.
    pub(super) async fn connect(&self) -> Result<(), Failure> {
        let places = self.read().len();
        for place in 0..places {
            let (connection, _) = self.dialer.dial().await?;
            Counters::add(&self.counters.connections_created);
            if let Some(pooled) = self.write().get_mut(place) {
                pooled.connection = Some(Arc::new(connection));
            }
        }
        if let Some(tracker) = &self.tracker {
            tracker.connect().await?;
        }
        Ok(())
    }

    /// Reads an entry for the near-cache. `None` if there is none, or it does not work at present.
    pub(super) async fn read_tracked(
        &self,
        key: &str,
        id: EntryId,
        limits: &Limits,
    ) -> Option<(Value, Ticket)> {
        self.tracker.as_ref()?.read(key, id, limits.patience).await
    }

    pub(super) fn is_connected(&self) -> bool {
        self.read().iter().any(|pooled| pooled.working().is_some())
    }

    pub(super) fn is_up(&self) -> bool {
        self.health.is_up()
    }

    /// Adds the figures of this server.
    pub(super) fn count(&self, connected: &mut Connected) {
        connected.servers += 1;
        connected.servers_down += u32::from(!self.is_up());
        for connection in self.read().iter().filter_map(PooledConnection::working) {
            connected.connections += 1;
            connected.idle += u32::from(connection.is_idle());
        }
    }

    /// Sends `command` and waits for its reply until the deadline.
    ///
    /// If the connection is lost, the command is sent again over another connection. If it is silent for the limit's
    /// patience, the command is sent once more over a newer connection, and the first reply counts. Each write has a
    /// unique value, so executing it twice has the same effect as executing it once.
    pub(super) async fn send(
        self: &Arc<Self>,
        command: &Cmd,
        asking: bool,
        limits: &Limits,
    ) -> Result<Value, Trouble> {
        if Instant::now() >= limits.deadline {
            return Err(Failure::TimedOut.into());
        }
        if !self.health.admits() {
            Counters::add(&self.counters.turned_away);
            return Err(self.health.cause().into());
        }
        let mut lost = 0;
        loop {
            let begun = Instant::now();
            let connection = match self.ready(begun) {
                Some(connection) => connection,
                None => Box::pin(self.missing(begun, limits)).await?,
            };
            let sent = Instant::now();
            let mut first = pin!(connection.send(command, asking));
            let patience = limits.deadline.min(sent + limits.patience);
            let Ok(outcome) = timeout_at(patience, &mut first).await else {
                if !limits.is_silence(sent, Instant::now()) {
                    return Err(Failure::TimedOut.into());
                }
                // Boxed: it is rare, and unboxed it would make the future of every command three times as large.
                return Box::pin(self.despite_silence(&connection, first, command, asking, begun, limits))
                    .await;
            };
            match self.judge(&connection, outcome) {
                Attempt::Over(result) => return result,
                Attempt::Lost(failure) => {
                    lost += 1;
                    if lost > self.read().len() || Instant::now() >= limits.deadline {
                        return Err(failure.into());
                    }
                }
            }
            limits.repetition.note(&self.counters);
        }
    }

    /// Asks over a working connection, if there is one. The result does not change the server's health.
    pub(super) async fn query(self: &Arc<Self>, question: &Cmd, deadline: Instant) -> Option<Value> {
        let connection = self.ready(Instant::now())?;
        timeout_at(deadline, connection.send(question, false)).await.ok()?.ok()
    }

    /// Takes the connection out of use, and sends the command again over a fresh one, unless the reply arrives after
    /// all.
    async fn despite_silence(
        self: &Arc<Self>,
        silent: &Arc<Connection>,
        mut first: Pin<&mut impl Future<Output = RedisResult<Value>>>,
        command: &Cmd,
        asking: bool,
        begun: Instant,
        limits: &Limits,
    ) -> Result<Value, Trouble> {
        self.fall_silent(silent);
        let mut second = pin!(self.over_fresh(silent, command, asking, begun, limits));
        let (result, first_is_pending) = tokio::select! {
            biased;
            outcome = &mut first => match self.judge(silent, outcome) {
                Attempt::Over(result) => (result, false),
                Attempt::Lost(_) => (second.await, false),
            },
            result = &mut second => (result, true),
        };
        let failure = match result {
            Err(Trouble::Failed(failure)) => failure,
            answered => return answered,
        };
        if first_is_pending {
            // There is no fresh connection, but the server may still be about to answer.
            if let Ok(outcome) = timeout_at(limits.deadline, first).await {
                if let Attempt::Over(result) = self.judge(silent, outcome) {
                    return result;
                }
            }
        }
        // The command was sent, and not answered.
        Counters::add(&self.counters.timeouts);
        match failure {
            Failure::TimedOut | Failure::NoConnection => {
                self.health.timed_out(Failure::TimedOut);
                return Err(Failure::TimedOut.into());
            }
            Failure::Lost(_) => {}
            // No connection can be made, and the former ones are silent.
            _ if !self.is_connected() => self.health.down(failure.clone()),
            _ => {}
        }
        Err(failure.into())
    }

    /// Sends the command over a connection whose making began after `begun`. If none can be made, over a different
    /// connection than the silent one.
    async fn over_fresh(
        self: &Arc<Self>,
        silent: &Arc<Connection>,
        command: &Cmd,
        asking: bool,
        begun: Instant,
        limits: &Limits,
    ) -> Result<Value, Trouble> {
        let mut lost = false;
        loop {
            let connection = self.fresh(silent, begun, limits).await?;
            limits.repetition.note(&self.counters);
            let sent = Instant::now();
            let Ok(outcome) = timeout_at(limits.deadline, connection.send(command, asking)).await else {
                if limits.is_silence(sent, Instant::now()) {
                    self.fall_silent(&connection);
                }
                return Err(Failure::TimedOut.into());
            };
            match self.judge(&connection, outcome) {
                Attempt::Over(result) => return result,
                Attempt::Lost(failure) if lost => return Err(failure.into()),
                Attempt::Lost(_) => lost = true,
            }
        }
    }

    fn judge(&self, connection: &Arc<Connection>, outcome: RedisResult<Value>) -> Attempt {
        let error = match outcome {
            Ok(value) => {
                self.health.answered();
                self.speak(connection);
                return Attempt::Over(Ok(value));
            }
            Err(error) => error,
        };
        if error.code().is_some() {
            // A refusal is a reply, too.
            self.health.answered();
        }
        if breaks_connection(&error) {
            self.retire(connection);
        } else {
            self.speak(connection);
        }
        match remedy(&error) {
            // The kernel gave the connection up (TCP_USER_TIMEOUT): it is lost.
            Remedy::Reconnect | Remedy::TimedOut => Attempt::Lost(Failure::of(&error)),
            _ => Attempt::Over(Err(Trouble::Reply(error))),
        }
    }

    fn retire(&self, connection: &Connection) {
        if connection.retire() {
            Counters::add(&self.counters.connections_broken);
        }
    }

    /// Takes a silent connection out of use, until it answers.
    fn fall_silent(&self, connection: &Connection) {
        if connection.fall_silent() {
            Counters::add(&self.counters.connections_broken);
            drop_unused(&mut self.write());
        }
    }

    /// Takes a connection into use again that was silent and has answered, unless a newer one replaced it.
    fn speak(&self, connection: &Arc<Connection>) {
        if !connection.is_silent() {
            return;
        }
        {
            let mut pool = self.write();
            let is_own = |pooled: &&mut PooledConnection| {
                pooled.connection.as_ref().is_some_and(|own| Arc::ptr_eq(own, connection))
            };
            if pool.iter_mut().find(is_own).is_none() {
                drop_unused(&mut pool);
                // A newer connection may lead to the new master, and this one to the former.
                if pool
                    .iter()
                    .filter_map(PooledConnection::working)
                    .any(|other| other.begun > connection.begun)
                {
                    return;
                }
                let Some(free) = pool.iter_mut().find(|pooled| pooled.connection.is_none()) else { return };
                free.connection = Some(Arc::clone(connection));
            }
            connection.speak();
            drop_unused(&mut pool);
        }
        self.changed.notify_waiters();
    }

    /// Returns the working connection to use now, and starts to make missing ones.
    fn ready(self: &Arc<Self>, now: Instant) -> Option<Arc<Connection>> {
        let (chosen, all_work) = {
            let pool = self.read();
            let chosen = pick(&pool, self.turn(now), |connection| connection.works());
            (chosen, pool.iter().all(|pooled| pooled.working().is_some()))
        };
        if !all_work {
            self.mend(None);
        }
        chosen
    }

    /// Returns a working connection, or one that was silent, but not `silent`.
    fn another(&self, silent: Option<&Arc<Connection>>, now: Instant) -> Option<Arc<Connection>> {
        let is_other =
            |connection: &Arc<Connection>| silent.is_none_or(|silent| !Arc::ptr_eq(silent, connection));
        let (pool, turn) = (self.read(), self.turn(now));
        let working = pick(&pool, turn, |connection| connection.works() && is_other(connection));
        working.or_else(|| pick(&pool, turn, |connection| connection.is_silent() && is_other(connection)))
    }

    fn turn(&self, now: Instant) -> u128 {
        now.saturating_duration_since(self.since).as_millis() / ROTATION_MILLIS
    }

    /// Waits for a connection, where none works. If none can be made, returns one that was silent.
    async fn missing(self: &Arc<Self>, begun: Instant, limits: &Limits) -> Result<Arc<Connection>, Failure> {
        let mut deadline = limits.deadline.min(begun + limits.checkout);
        if self.another(None, begun).is_some() {
            deadline = deadline.min(limits.wait_for_better(begun));
        }
        let mut result = self.wait_for(None, begun, deadline).await;
        if result.is_err() && Instant::now() < limits.deadline {
            result = self.another(None, Instant::now()).map_or(result, Ok);
        }
        self.counters.waited(begun.elapsed(), result.is_err());
        if matches!(result, Err(Failure::NoConnection)) {
            self.health.timed_out(Failure::NoConnection);
        }
        result
    }

    /// Waits for a connection whose making began after `begun`. If none can be made in time, returns a different
    /// connection than `silent`.
    async fn fresh(
        self: &Arc<Self>,
        silent: &Arc<Connection>,
        begun: Instant,
        limits: &Limits,
    ) -> Result<Arc<Connection>, Failure> {
        let waiting = Instant::now();
        let mut result = self.wait_for(Some(begun), waiting, limits.wait_for_better(waiting)).await;
        if result.is_err() && Instant::now() < limits.deadline {
            result = match (self.another(Some(silent), Instant::now()), result) {
                (Some(other), _) => Ok(other),
                (None, Err(Failure::NoConnection)) => self.wait_for(None, waiting, limits.deadline).await,
                (None, result) => result,
            };
        }
        self.counters.waited(waiting.elapsed(), result.is_err());
        result
    }

    /// Waits for a connection; if `after` is given, for one whose making began after it. Fails as soon as one could not be
    /// made since `begun` and no other is being made.
    async fn wait_for(
        self: &Arc<Self>,
        after: Option<Instant>,
        begun: Instant,
        deadline: Instant,
    ) -> Result<Arc<Connection>, Failure> {
        let _waiting = Waiting::new(&self.waiting);
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            {
                let pool = self.read();
                let is_wanted = |found: &Connection| after.is_none_or(|after| found.begun > after);
                let found = pool.iter().filter_map(PooledConnection::working).find(|found| is_wanted(found));
                if let Some(connection) = found {
                    return Ok(Arc::clone(connection));
                }
                let failures = pool.iter().filter_map(|pooled| pooled.failed.as_ref());
                let newest = failures.max_by_key(|(at, _)| *at).filter(|(at, _)| *at >= begun);
                if let (Some((_, failure)), true) =
                    (newest, pool.iter().all(|pooled| pooled.dialing.is_none()))
                {
                    return Err(failure.clone());
                }
            }
            self.mend(Some(begun));
            let is_in_time = timeout_at(deadline, changed).await.is_ok() && Instant::now() < deadline;
            // A runtime that is shutting down drops each attempt at once. It ends this task, too, if that lets it.
            yield_now().await;
            if !is_in_time {
                return Err(Failure::NoConnection);
            }
        }
    }

    /// Starts to make missing connections. A connection that could not be made is tried again after a pause, or for a
    /// task that waits since `begun` and has seen no failure yet.
    fn mend(self: &Arc<Self>, begun: Option<Instant>) {
        let Ok(runtime) = Handle::try_current() else { return };
        for (place, number) in self.take_missing(begun, Instant::now()) {
            let dialing = Dialing { node: Arc::clone(self), place, number, outcome: None };
            // Not under the lock: a runtime that is shutting down drops the task at once.
            drop(runtime.spawn(async move {
                let node = Arc::clone(&dialing.node);
                let is_wanted =
                    || node.goes_on_dialing(place, number) && node.waiting.load(Ordering::Relaxed) > 0;
                let dialed = node.dialer.dial_while(is_wanted).await;
                dialing.finish(dialed.map(|(connection, _)| connection));
            }));
        }
    }

    /// Marks the places whose connections are to be made `now` as being dialed, and returns them, each with the number of the task
    /// that is to make its connection. A task that was not run for a long time is replaced.
    fn take_missing(&self, begun: Option<Instant>, now: Instant) -> Vec<(usize, u64)> {
        // A task that runs notes it several times within one connect timeout.
        let late = (2 * self.dialer.access.timeout).max(LATE);
        let mut pool = self.write();
        drop_unused(&mut pool);
        let missing = pool.iter_mut().enumerate().filter_map(|(place, pooled)| {
            let is_due = match pooled.failed {
                Some((at, _)) => at + PROBE_EVERY <= now || begun.is_some_and(|begun| at < begun),
                None => true,
            };
            let is_dialed =
                pooled.dialing.as_ref().is_some_and(|task| now.saturating_duration_since(task.ran) < late);
            if pooled.working().is_some() || is_dialed || !is_due {
                return None;
            }
            let number = self.next_dialing.fetch_add(1, Ordering::Relaxed);
            pooled.dialing = Some(Attending { number, ran: now });
            Some((place, number))
        });
        missing.collect()
    }

    /// Notes that the task with this number is run. Returns false if it was replaced.
    fn goes_on_dialing(&self, place: usize, number: u64) -> bool {
        let mut pool = self.write();
        let own = pool.get_mut(place).filter(|pooled| pooled.is_dialed_by(number));
        let Some(dialing) = own.and_then(|pooled| pooled.dialing.as_mut()) else { return false };
        dialing.ran = Instant::now();
        true
    }

    /// Takes the outcome of the task with this number, unless it was replaced.
    fn dialed(&self, place: usize, number: u64, outcome: Option<Result<Connection, Failure>>) {
        let mut down = None;
        {
            let mut pool = self.write();
            // A full server still serves the connections that it has, and one that was silent may answer. And this attempt may have
            // begun before the network failed: another attempt shows whether the server is there.
            let is_only = pool.iter().enumerate().all(|(other, pooled)| {
                pooled.connection.as_ref().is_none_or(|connection| connection.is_broken())
                    && (other == place || pooled.dialing.is_none())
            });
            let Some(pooled) = pool.get_mut(place).filter(|pooled| pooled.is_dialed_by(number)) else {
                return;
            };
            pooled.dialing = None;
            match outcome {
                Some(Ok(connection)) => {
                    Counters::add(&self.counters.connections_created);
                    pooled.connection = Some(Arc::new(connection));
                    pooled.failed = None;
                    drop_unused(&mut pool);
                    if let Some(tracker) = &self.tracker {
                        tracker.redialed();
                    }
                }
                Some(Err(failure)) => {
                    pooled.failed = Some((Instant::now(), failure.clone()));
                    down = is_only.then_some(failure);
                }
                // A provider of the application panicked. It must not be asked again at once.
                None if std::thread::panicking() => {
                    let failure = Failure::Connect("the credentials provider panicked".to_owned());
                    pooled.failed = Some((Instant::now(), failure.clone()));
                    down = is_only.then_some(failure);
                }
                // The runtime of the task has ended.
                None => {}
            }
        }
        if let Some(failure) = down {
            self.health.down(failure);
        }
        self.changed.notify_waiters();
    }

    fn read(&self) -> RwLockReadGuard<'_, Vec<PooledConnection>> {
        read(&self.pool)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Vec<PooledConnection>> {
        write(&self.pool)
    }
}

/// A connection that is being made. Dropping it updates its place in the pool, so that a task that ends early does not block it.
struct Dialing {
    node: Arc<Node>,
    place: usize,
    number: u64,
    outcome: Option<Result<Connection, Failure>>,
}

impl Dialing {
    fn finish(mut self, outcome: Result<Connection, Failure>) {
        self.outcome = Some(outcome);
    }
}

impl Drop for Dialing {
    fn drop(&mut self) {
        self.node.dialed(self.place, self.number, self.outcome.take());
    }
}

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;
