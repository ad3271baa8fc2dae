//! A Redis Cluster: a key's node, redirections, and finding the masters again when they change.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use bb8_redis::redis::{Cmd, ConnectionAddr, RedisError, Value, cmd};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::attempts::{Pauses, side_by_side};
use super::dialer::{Access, Dialer, Target, not_a_cluster, server_address};
use super::fault::{Failure, Remedy, Trouble, is_of_a_former_master, remedy};
use super::limits::Limits;
use super::node::Node;
use super::refreshing::{LONGEST, Refresh, Refreshing, Views};
use super::slot_map::{SLOTS, SlotRange, parse_slots, parse_target, slot_of};
use super::stats::{Connected, Counters};
use super::tracker::Tracking;
use crate::id::EntryId;
use crate::join::join_all;
use crate::lock::{lock, read, write};
use crate::store::near_cache::Ticket;

/// A resharding redirects once or twice. After more, the nodes do not agree yet: the next redirection is followed after
/// a pause, which doubles.
const QUICK_REDIRECTIONS: u32 = 2;
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// How long one node may take to list which node has which slots.
const REFRESH_TIMEOUT: Duration = Duration::from_millis(250);

/// While a node is silent, the next one is asked after this time.
const ASK_NEXT_AFTER: Duration = Duration::from_millis(50);

/// The store's own client for a Cluster. Each node has its own connections and its own failure detection, so a node
/// that hangs does not affect the sessions of the other nodes.
pub(super) struct Cluster {
    seeds: Vec<(String, u16)>,
    access: Arc<Access>,
    connections: u32,
    counters: Arc<Counters>,
    /// Present if there is a near-cache.
    tracking: Option<Arc<Tracking>>,
    nodes: RwLock<HashMap<Address, Arc<Member>>>,
    owners: RwLock<Arc<Owners>>,
    refreshing: Mutex<Refreshing>,
    /// Wakes tasks that wait for a refresh, when it has ended.
    refreshed: Notify,
}

type Address = (String, u16);

struct Member {
    address: Address,
    node: Arc<Node>,
}

/// The master of each slot.
struct Owners(Vec<Option<Arc<Member>>>);

impl Cluster {
    pub(super) fn new(
        seeds: Vec<Address>,
        access: Arc<Access>,
        connections: u32,
        counters: Arc<Counters>,
        tracking: Option<Arc<Tracking>>,
    ) -> Self {
        Self {
            seeds,
            access,
            connections,
            counters,
            tracking,
            nodes: RwLock::default(),
            owners: RwLock::new(Arc::new(Owners(vec![None; SLOTS]))),
            refreshing: Mutex::default(),
            refreshed: Notify::new(),
        }
    }

    /// Finds the masters by the seeds, and connects to each.
    pub(super) async fn connect(&self) -> Result<(), Failure> {
        let ask = async |number: usize| self.ask_seed(number).await;
        let view = side_by_side(self.seeds.len(), self.access.pauses, || false, ask).await?;
        self.adopt(&view);
        self.connect_masters().await
    }

    /// Connects to all masters at once. A master that is down affects its own sessions only.
    async fn connect_masters(&self) -> Result<(), Failure> {
        let masters = self.masters();
        let outcomes = join_all(&masters, async |master| match master.node.connect().await {
            Ok(()) => self.check_asking(&master.node).await,
            Err(failure) => Err(failure),
        })
        .await;
        let (mut is_connected, mut failure) = (false, Failure::NoConnection);
        for outcome in outcomes {
            match outcome {
                Ok(()) => is_connected = true,
                Err(Failure::Setup(what)) => return Err(Failure::Setup(what)),
                Err(other) => failure = failure.or_more_useful(other),
            }
        }
        if is_connected {
            return Ok(());
        }
        Err(Failure::Connect(format!(
            "none of the masters that the seed named could be reached ({failure}): each must announce an address that this host \
             reaches (cluster-announce-ip, cluster-announce-hostname)"
        )))
    }

    async fn ask_seed(&self, number: usize) -> Result<Vec<SlotRange>, Failure> {
        let seed = self.seeds.get(number).ok_or(Failure::NoConnection)?;
        let dialer = self.dialer(seed);
        let (connection, _) = dialer.dial().await?;
        let asking = tokio::time::timeout(self.access.timeout, connection.send(&question(), false)).await;
        let reply = asking.map_err(|_| Failure::TimedOut)?.map_err(|error| match error.code() {
            Some("NOPERM") => {
                Failure::Setup("the user may not run CLUSTER SLOTS: give it +cluster|slots".to_owned())
            }
            Some("ERR") => not_a_cluster(),
            _ => Failure::connecting(&error),
        })?;
        parse_slots(&reply, &seed.0).ok_or(Failure::Connect("the nodes assign no slots".to_owned()))
    }

    /// Checks that the user may run ASKING. It is needed only while a slot moves: without this check, a missing right would
    /// show at the first resharding.
    async fn check_asking(&self, node: &Arc<Node>) -> Result<(), Failure> {
        let timeout = self.access.timeout;
        // The user has shown that it may ask this. As the next command, it takes the effect of the ASKING.
        let limits = Limits::new(Instant::now() + timeout, timeout, timeout);
        let sent = node.send(&question(), true, &limits).await;
        match sent {
            Err(Trouble::Reply(error)) if error.code() == Some("NOPERM") => Err(Failure::Setup(
                "the user may not run ASKING, which a Cluster needs while slots move: give it +asking"
                    .to_owned(),
            )),
            _ => Ok(()),
        }
    }

    /// Asks each master that a connection leads to, for so long. Returns their replies.
    pub(super) async fn ask_each(&self, question: &Cmd, patience: Duration) -> Vec<Value> {
        let masters = self.masters();
        let replies =
            join_all(&masters, |master| master.node.query(question, Instant::now() + patience)).await;
        replies.into_iter().flatten().collect()
    }

    /// Returns true if a connection leads to the node that `key` is on.
    pub(super) fn is_connected(&self, key: &str) -> bool {
        self.owner(slot_of(key)).is_some_and(|member| member.node.is_connected())
    }

    pub(super) fn count(&self, connected: &mut Connected) {
        for member in self.masters() {
            member.node.count(connected);
        }
    }

    /// Sends `command` to the node that `key` is on, and follows redirections.
    pub(super) async fn send(
        self: &Arc<Self>,
        key: &str,
        command: &Cmd,
        limits: &Limits,
    ) -> Result<Value, Trouble> {
        let slot = slot_of(key);
        let (mut asking, mut redirections) = (false, 0);
        if self.owner(slot).is_none() {
            self.refresh(None, limits.deadline).await;
        }
        let mut member = self.owner(slot).ok_or(Failure::Lost("no node has the slot"))?;
        loop {
            let was_up = member.node.is_up();
            let trouble = match member.node.send(command, asking, limits).await {
                Ok(value) => return Ok(value),
                Err(trouble) => trouble,
            };
            match &trouble {
                Trouble::Reply(error) if remedy(error) == Remedy::Redirect => {
                    redirections += 1;
                    let Some((target, moved)) = self.target(error, &member) else { return Err(trouble) };
                    if redirections > QUICK_REDIRECTIONS {
                        let doubled = (redirections - QUICK_REDIRECTIONS - 1).min(8);
                        let next = Instant::now() + FIRST_PAUSE * (1 << doubled);
                        if next >= limits.deadline {
                            return Err(trouble);
                        }
                        sleep_until(next).await;
                    }
                    if moved {
                        self.move_slot(slot, &target);
                    }
                    (member, asking) = (target, !moved);
                    Counters::add(&self.counters.retries);
                }
                Trouble::Reply(error) => {
                    if is_of_a_former_master(error) {
                        self.start_refresh(Some(&member));
                    }
                    return Err(trouble);
                }
                Trouble::Failed(_) => {
                    // Another node may have taken over by now. A request that was turned away does not wait for the
                    // refresh.
                    let failed = Arc::clone(&member);
                    if was_up && Instant::now() < limits.deadline {
                        self.refresh(Some(&failed), limits.deadline).await;
                    } else {
                        self.start_refresh(Some(&failed));
                    }
                    match self.owner(slot) {
                        Some(other)
                            if other.address != failed.address && Instant::now() < limits.deadline =>
                        {
                            (member, asking) = (other, false);
                            limits.repetition.note(&self.counters);
                        }
                        _ => return Err(trouble),
                    }
                }
            }
        }
    }

    /// Reads an entry for the near-cache from the node that `key` is on. `None` if that has to be found out, or the cache
    /// does not work at present.
    pub(super) async fn read_tracked(
        &self,
        key: &str,
        id: EntryId,
        limits: &Limits,
    ) -> Option<(Value, Ticket)> {
        self.owner(slot_of(key))?.node.read_tracked(key, id, limits).await
    }

    /// Returns the target of a redirection, and whether the slot has moved there for good.
    fn target(&self, error: &RedisError, from: &Member) -> Option<(Arc<Member>, bool)> {
        let (target, _) = error.redirect_node()?;
        let address = parse_target(target, &from.address.0)?;
        Some((self.member(&address), error.code() == Some("MOVED")))
    }

    fn owner(&self, slot: usize) -> Option<Arc<Member>> {
        let owners = Arc::clone(&read(&self.owners));
        owners.0.get(slot).cloned().flatten()
    }

    fn move_slot(&self, slot: usize, member: &Arc<Member>) {
        let mut owners = write(&self.owners);
        let mut moved = owners.0.clone();
        if let Some(owner) = moved.get_mut(slot) {
            *owner = Some(Arc::clone(member));
        }
        *owners = Arc::new(Owners(moved));
    }

    /// Returns the masters that have slots.
    fn masters(&self) -> Vec<Arc<Member>> {
        let owners = Arc::clone(&read(&self.owners));
        let mut masters: Vec<Arc<Member>> = Vec::new();
        for member in owners.0.iter().flatten() {
            if masters.iter().all(|known| !Arc::ptr_eq(known, member)) {
                masters.push(Arc::clone(member));
            }
        }
        masters
    }

    /// Returns the node at `address`, which connects when it is first used.
    fn member(&self, address: &Address) -> Arc<Member> {
        let known = read(&self.nodes).get(address).cloned();
        known.unwrap_or_else(|| {
            let mut nodes = write(&self.nodes);
            let member = nodes.entry(address.clone()).or_insert_with(|| {
                let counters = Arc::clone(&self.counters);
                let tracking = self.tracking.clone();
                let node = Node::new(self.dialer(address), self.connections, counters, tracking);
                let node = Arc::new(node);
                Arc::new(Member { address: address.clone(), node })
            });
            Arc::clone(member)
        })
    }

    fn dialer(&self, (host, port): &Address) -> Dialer {
        let address: ConnectionAddr = server_address(host, *port, self.access.tls.is_some());
        Dialer::new(Target::ClusterNode(address), Arc::clone(&self.access))
    }

    /// Starts a task that asks which node has which slots, unless one does so already; at most ten times a second. It does not
    /// end with the request that needs it. Returns false if there is nothing to wait for.
    fn start_refresh(self: &Arc<Self>, failed: Option<&Arc<Member>>) -> bool {
        let Ok(runtime) = Handle::try_current() else { return false };
        let now = Instant::now();
        let refresh = lock(&self.refreshing).begin(now);
        let number = match refresh {
            Refresh::Begins { number } => number,
            Refresh::IsUnderWay => return true,
            Refresh::JustDone => return false,
        };
        let asking = Asking { cluster: Arc::clone(self), number };
        let failed = failed.map(|failed| failed.address.clone());
        // Not under the lock: a runtime that is shutting down drops the task at once.
        drop(runtime.spawn(async move { asking.cluster.ask(failed, now + LONGEST).await }));
        true
    }

    /// Waits until the masters were asked for, unless that was just done.
    async fn refresh(self: &Arc<Self>, failed: Option<&Arc<Member>>, deadline: Instant) {
        let mut refreshed = pin!(self.refreshed.notified());
        refreshed.as_mut().enable();
        if self.start_refresh(failed) {
            let _ = timeout_at(deadline, refreshed).await;
        }
    }

    /// Asks nodes which node has which slots, until one names a usable master for each slot: first the known nodes that
    /// answer, except `failed`, then the seeds. If none does, the best view counts.
    async fn ask(&self, failed: Option<Address>, deadline: Instant) {
        let members: Vec<_> = read(&self.nodes).values().cloned().collect();
        let down = members.iter().filter(|member| !member.node.is_up()).map(|member| member.address.clone());
        let suspects: HashSet<Address> = down.chain(failed).collect();
        let members: Vec<_> =
            members.into_iter().filter(|member| !suspects.contains(&member.address)).collect();
        let owners = Arc::clone(&read(&self.owners));
        let views = Views::new(suspects, |slot, address: &Address| {
            owners.0.get(slot).and_then(Option::as_ref).is_some_and(|owner| owner.address == *address)
        });
        let consider = |view: Vec<SlotRange>| {
            views.add(view).then_some(()).ok_or(Failure::Lost("a master does not answer"))
        };
        let ask_member = async |number: usize| {
            let member = members.get(number).ok_or(Failure::NoConnection)?;
            let reply = member.node.query(&question(), Instant::now() + REFRESH_TIMEOUT).await;
            let view = reply.and_then(|reply| parse_slots(&reply, &member.address.0));
            consider(view.ok_or(Failure::NoConnection)?)
        };
        if !members.is_empty() {
            // However many are silent, there is time left for the seeds.
            let pause =
                ASK_NEXT_AFTER.min(REFRESH_TIMEOUT / u32::try_from(members.len()).unwrap_or(u32::MAX));
            let asked = side_by_side(members.len(), Pauses::of(pause), || false, ask_member).await;
            let best = views.take_best();
            if let Some(view) = &best {
                self.adopt(view);
            }
            if asked.is_ok() || !lock(&self.refreshing).may_ask_seeds(best.is_none(), Instant::now()) {
                return;
            }
        }
        // No known node knows all masters: begin again with the seeds.
        let ask_seed = async |number: usize| consider(self.ask_seed(number).await?);
        let asking = side_by_side(self.seeds.len(), Pauses::of(ASK_NEXT_AFTER), || false, ask_seed);
        let _ = timeout_at(deadline, asking).await;
        if let Some(view) = views.take_best() {
            self.adopt(&view);
        }
    }

    /// Makes the masters of this view the owners of their slots.
    fn adopt(&self, view: &[SlotRange]) {
        let mut owners = vec![None; SLOTS];
        for range in view {
            let member = self.member(&(range.host.clone(), range.port));
            for owner in owners.get_mut(range.first..=range.last).into_iter().flatten() {
                *owner = Some(Arc::clone(&member));
            }
        }
        *write(&self.owners) = Arc::new(Owners(owners));
        // Nodes without slots are forgotten, with their connections.
        let masters = self.masters();
        write(&self.nodes).retain(|_, member| masters.iter().any(|master| Arc::ptr_eq(master, member)));
    }
}

/// A task that asks for the masters. Dropping it lets the next one begin, so that a task that ends early does not block it.
struct Asking {
    cluster: Arc<Cluster>,
    number: u64,
}

impl Drop for Asking {
    fn drop(&mut self) {
        if lock(&self.cluster.refreshing).end(self.number) {
            self.cluster.refreshed.notify_waiters();
        }
    }
}

fn question() -> Cmd {
    let mut question = cmd("CLUSTER");
    question.arg("SLOTS");
    question
}

#[cfg(test)]
#[path = "cluster_tests.rs"]
mod tests;
