//! The connection over which a server reports the changes of entries to the near-cache.
//!
//! The near-cache reads over this connection, too: then entries and reports come from the same server in one order, also
//! while a failover is under way. A heartbeat gives the cache a [`Lease`]. If it stays out, or the connection is lost or
//! replaced, the cache is emptied.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bb8_redis::redis::aio::AsyncPushSender;
use bb8_redis::redis::{Cmd, PushInfo, PushKind, Value, cmd};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::commands::get;
use super::connection::Connection;
use super::dialer::{Dialer, greeting};
use super::fault::Failure;
use super::health::PROBE_EVERY;
use crate::event::NearCacheEmptied;
use crate::id::EntryId;
use crate::lock::lock;
use crate::store::near_cache::{Lease, RecordCache, Ticket};

/// The pause between attempts to connect to a server that is gone doubles up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The settings that the trackers of all servers share.
pub(super) struct Tracking {
    pub(super) cache: Arc<RecordCache>,
    /// The beginning of the keys of all entries, colon included.
    pub(super) prefix: String,
    pub(super) max_staleness: Duration,
    /// A connection that is silent for so long is replaced.
    pub(super) patience: Duration,
    pub(super) connect_timeout: Duration,
}

/// The tracking connection to one server. A task keeps it; dropping the tracker ends the task.
pub(super) struct Tracker {
    shared: Arc<Shared>,
    task: Mutex<Option<AbortHandle>>,
}

struct Shared {
    tracking: Arc<Tracking>,
    dialer: Arc<Dialer>,
    lease: Arc<Lease>,
    line: Mutex<Option<Arc<Connection>>>,
    /// In a Cluster: the key that was read last.
    last_key: Mutex<Option<String>>,
    /// How often the connections for commands were made again.
    redialed: AtomicU64,
}

/// A connection on which tracking is on.
struct Line {
    connection: Arc<Connection>,
    /// [`Shared::redialed`] before it was made.
    redialed: u64,
}

impl Tracker {
    pub(super) fn new(tracking: Arc<Tracking>, dialer: Arc<Dialer>) -> Self {
        let shared = Shared {
            tracking,
            dialer,
            lease: Arc::new(Lease::new()),
            line: Mutex::default(),
            last_key: Mutex::default(),
            redialed: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared), task: Mutex::default() }
    }

    /// Makes the connection, to check that the user may track, and keeps it from then on.
    pub(super) async fn connect(&self) -> Result<(), Failure> {
        let line = self.shared.dial().await?;
        self.run(Some(line));
        Ok(())
    }

    /// Notes that a connection for commands was made again. It may lead to another server, to which this one then moves.
    pub(super) fn redialed(&self) {
        self.shared.redialed.fetch_add(1, Ordering::AcqRel);
    }

    /// Reads the entry `id`, whose key is `key`, if the lease lasts. `None` if the caller has to ask in the usual way.
    pub(super) async fn read(&self, key: &str, id: EntryId, patience: Duration) -> Option<(Value, Ticket)> {
        let shared = &self.shared;
        if !shared.lease.covers(Instant::now()) {
            self.run(None);
            return None;
        }
        // Before the connection is taken: a ticket is void if another connection has taken over since.
        let ticket = shared.tracking.cache.ticket(id, &shared.lease);
        let connection = lock(&shared.line).clone()?;
        let reply = timeout(patience, connection.send(&get(key), false)).await.ok()?.ok()?;
        if shared.dialer.is_to_cluster() {
            *lock(&shared.last_key) = Some(key.to_owned());
        }
        Some((reply, ticket))
    }

    /// Starts the task, unless it runs. The runtime that it ran in may have ended.
    fn run(&self, first: Option<Line>) {
        let Ok(runtime) = Handle::try_current() else { return };
        let mut task = lock(&self.task);
        if task.as_ref().is_none_or(AbortHandle::is_finished) {
            let shared = Arc::clone(&self.shared);
            *task = Some(runtime.spawn(async move { shared.run(first).await }).abort_handle());
        }
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        self.shared.lease.end();
        if let Some(task) = lock(&self.task).take() {
            task.abort();
        }
    }
}

impl Shared {
    async fn run(&self, mut first: Option<Line>) {
        let mut pause = PROBE_EVERY;
        loop {
            let dialed = match first.take() {
                Some(line) => Ok(line),
                None => self.dial().await,
            };
            if let Ok(line) = dialed {
                *lock(&self.line) = Some(Arc::clone(&line.connection));
                let served = self.follow(&line).await;
                *lock(&self.line) = None;
                self.empty(NearCacheEmptied::Lost);
                if served {
                    pause = PROBE_EVERY;
                }
            }
            sleep(pause).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }

    /// Connects, and switches tracking on.
    async fn dial(&self) -> Result<Line, Failure> {
        // The reports of this connection say nothing about entries that an earlier connection read.
        self.empty(NearCacheEmptied::Lost);
        let Tracking { prefix, connect_timeout, .. } = &*self.tracking;
        let redialed = self.redialed.load(Ordering::Acquire);
        *lock(&self.last_key) = None;
        let connection = Arc::new(self.dialer.dial_with_reports(self.reports()).await?);
        // BCAST: the server keeps nothing for each key, and reports changes of keys that were not read here, too.
        let mut track = cmd("CLIENT");
        track.arg("TRACKING").arg("ON").arg("BCAST").arg("PREFIX").arg(prefix);
        let answer = timeout(*connect_timeout, connection.send(&track, false)).await;
        match answer.map_err(|_| Failure::TimedOut)? {
            Ok(_) => Ok(Line { connection, redialed }),
            Err(error) if error.code() == Some("NOPERM") => Err(Failure::Setup(
                "the user may not run CLIENT TRACKING, which near_cache() needs: give it +client|tracking".to_owned(),
            )),
            Err(error) if error.code() == Some("ERR") => Err(Failure::Setup(
                "the server does not support CLIENT TRACKING, which near_cache() needs: drop near_cache(), or use a server \
                 or a proxy that supports it"
                    .to_owned(),
            )),
            Err(error) => Err(Failure::connecting(&error)),
        }
    }

    /// Returns the receiver of the server's reports. redis-rs calls it for each report before it passes on the replies
    /// that came after it.
    fn reports(&self) -> Arc<dyn AsyncPushSender> {
        let (tracking, lease) = (Arc::clone(&self.tracking), Arc::clone(&self.lease));
        Arc::new(move |report: PushInfo| {
            match report.kind {
                PushKind::Invalidate => {
                    if let Some(Value::Array(keys)) = report.data.first() {
                        let changed = keys.iter().filter_map(|key| tracking.entry_of(key));
                        changed.for_each(|id| tracking.cache.invalidate(id));
                    } else {
                        // FLUSHALL and FLUSHDB name no keys.
                        lease.renew();
                        tracking.cache.empty(&lease, NearCacheEmptied::Flushed);
                    }
                }
                PushKind::Disconnection if lease.end() => {
                    tracking.cache.empty(&lease, NearCacheEmptied::Lost);
                }
                _ => {}
            }
            Ok::<(), std::convert::Infallible>(())
        })
    }

    /// Extends the lease for as long as the server answers. Returns true if it answered at all.
    ///
    /// An answer vouches for the moment at which the heartbeat *before* it was sent. A server reports the changes of one
    /// turn of its event loop at the end of the turn, after the replies of that turn have been queued: the answer of the
    /// next heartbeat is surely behind them. So heartbeats are sent one after the other.
    async fn follow(&self, line: &Line) -> bool {
        let Tracking { max_staleness, patience, .. } = *self.tracking;
        let mut before: Option<Instant> = None;
        while self.redialed.load(Ordering::Acquire) == line.redialed {
            let (epoch, sent) = (self.lease.epoch(), Instant::now());
            let heartbeat = self.heartbeat();
            let answering = timeout(patience, line.connection.send(&heartbeat, false));
            tokio::pin!(answering);
            let mut answer = None;
            if let Some(left) = self.lease.left(sent) {
                answer = timeout(left, &mut answering).await.ok();
                if answer.is_none() {
                    self.empty(NearCacheEmptied::Stale);
                }
            }
            let answer = match answer {
                Some(answer) => answer,
                None => answering.await,
            };
            if !answer.is_ok_and(|answer| answer.is_ok_and(|reply| is_of_master(&reply))) {
                break;
            }
            if let Some(vouched) = before.replace(sent) {
                self.lease.extend(epoch, vouched + max_staleness);
                sleep((max_staleness / 4).saturating_sub(sent.elapsed())).await;
            }
        }
        before.is_some()
    }

    /// Returns the question that a server answers only while it may serve the entries that were read from it.
    fn heartbeat(&self) -> Cmd {
        match &*lock(&self.last_key) {
            // Its slot is that of the last key, so a node that lost its slots, or the majority, answers with an error.
            // There is no such entry.
            Some(key) => get(&format!("{}{{{key}}}", self.tracking.prefix)),
            // The reply has the server's role. It needs no right, and a server that runs a script answers it.
            None => cmd("HELLO"),
        }
    }

    /// Ends the lease, and empties the cache if it lasted until now.
    fn empty(&self, why: NearCacheEmptied) {
        if self.lease.end() {
            self.tracking.cache.empty(&self.lease, why);
        }
    }
}

impl Tracking {
    /// Returns the id of the entry under `key`. Keys of another form belong to another application, whose prefix begins
    /// with this one.
    fn entry_of(&self, key: &Value) -> Option<EntryId> {
        let Value::BulkString(key) = key else { return None };
        let id = key.strip_prefix(self.prefix.as_bytes())?;
        std::str::from_utf8(id).ok()?.parse().ok()
    }
}

/// Returns true if a heartbeat's reply does not come from a replica.
fn is_of_master(reply: &Value) -> bool {
    greeting(reply).role.is_none_or(|role| role == "master")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    /// The prefix of another application may begin with that of this one.
    #[test]
    fn a_report_names_an_entry_by_its_whole_key() {
        let tracking = Tracking {
            cache: Arc::new(RecordCache::new(1 << 20)),
            prefix: "shop:".to_owned(),
            max_staleness: Duration::ZERO,
            patience: Duration::ZERO,
            connect_timeout: Duration::ZERO,
        };
        let id = EntryId::from_bytes([7; 16]);
        assert!(tracking.entry_of(&text(&format!("shop:{id}"))) == Some(id));
        for other in [format!("shop:eu:{id}"), format!("sho:{id}"), id.to_string(), "shop:".to_owned()] {
            assert!(tracking.entry_of(&text(&other)).is_none(), "{other}");
        }
        assert!(tracking.entry_of(&Value::Int(7)).is_none());
    }

    #[test]
    fn a_replica_does_not_vouch_for_what_was_read() {
        let role = |role| Value::Map(vec![(text("role"), text(role))]);
        assert_eq!([role("master"), role("replica")].map(|reply| is_of_master(&reply)), [true, false]);
        assert!(is_of_master(&Value::Nil), "the reply of another command");
    }
}
