//! A cluster of three masters and three replicas: resharding and losing a master under load (F15).

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response};
use hyper_session::store::redis::{NearCache, RedisOptions};
use hyper_session::store::{Backend as _, Builder, EntryId, Replaced, Stored};
use hyper_session::testing::{FakeClock, Relay};
use hyper_session::{Clock as _, Error, RedisStore, SessionHandle, SystemClock, session_fn};
use sha2::{Digest as _, Sha256};

use crate::app::{App, builder};
use crate::session_lists::{list_keys, log_in};
use crate::support::{Body, Jar, UNHURRIED, visit};
use crate::values::Raw;

use crate::load::{Load, audit};
use crate::sentinel::{calm, progress};
use crate::server::{PATIENCE, Server, cli, stop_writes, wait_for};

pub(crate) struct Cluster {
    nodes: Vec<Server>,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        Self::of(3, 1)
    }

    /// Masters, each with so many replicas. No node is replaced because a busy machine did not let it run.
    pub(crate) fn of(masters: usize, replicas: usize) -> Self {
        let args = [
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "60000",
            "--repl-diskless-sync-delay",
            "0",
        ];
        let nodes: Vec<_> = (0..masters * (replicas + 1)).map(|_| Server::with(&args)).collect();
        let cluster = Self { nodes };
        let addresses: Vec<_> = cluster.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        let mut create = vec!["--cluster", "create"];
        create.extend(addresses.iter().map(String::as_str));
        let replicas = replicas.to_string();
        create.extend(["--cluster-replicas", &replicas, "--cluster-yes"]);
        redis_cli(&create).unwrap();
        cluster.wait_until_whole();
        cluster
    }

    fn wait_until_whole(&self) {
        wait_for("the cluster to agree", || {
            self.nodes.iter().filter(|node| !node.cli(&["PING"]).is_empty()).all(|node| {
                let info = node.cli(&["CLUSTER", "INFO"]);
                info.contains("cluster_state:ok") && info.contains("cluster_slots_ok:16384")
            })
        });
        let first = format!("127.0.0.1:{}", self.nodes[0].port);
        wait_for("redis-cli to find the nodes in agreement", || {
            redis_cli(&["--cluster", "check", &first]).is_ok()
        });
    }

    /// Puts a relay before each node: the nodes name it instead of themselves.
    pub(crate) fn behind_relays(&self) -> Vec<Relay> {
        let relays = self.nodes.iter().map(|node| {
            let relay = Relay::before(("127.0.0.1", node.port)).unwrap();
            let bus = (node.port + 10_000).to_string();
            assert_eq!(node.cli(&["CONFIG", "SET", "cluster-announce-bus-port", &bus]), "OK");
            let port = relay.address().port().to_string();
            assert_eq!(node.cli(&["CONFIG", "SET", "cluster-announce-port", &port]), "OK");
            relay
        });
        let relays: Vec<_> = relays.collect();
        wait_for("all nodes to name the relays", || {
            let named = |node: &Server, relay: &Relay| {
                let port = relay.address().port().to_string();
                node.cli(&["CLUSTER", "SLOTS"]).lines().any(|line| line == port)
            };
            self.nodes.iter().all(|node| relays.iter().all(|relay| named(node, relay)))
        });
        relays
    }

    pub(crate) async fn connect(&self) -> RedisStore {
        builder(self.url()).connect().await.unwrap()
    }

    pub(crate) fn servers(&self) -> &[Server] {
        &self.nodes
    }

    pub(crate) fn ports(&self) -> Vec<u16> {
        self.nodes.iter().map(|node| node.port).collect()
    }

    pub(crate) fn url(&self) -> String {
        let hosts: Vec<_> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        format!("redis-cluster://{}", hosts.join(","))
    }

    /// Moves so many slots from the first master to the second.
    pub(crate) fn reshard(&self, slots: &str) {
        let masters = self.masters();
        let ((from, port), (to, _)) = (&masters[0], &masters[1]);
        let address = format!("127.0.0.1:{port}");
        let moved = ["--cluster", "reshard", &address, "--cluster-from", from, "--cluster-to", to];
        let moved =
            [&moved[..], &["--cluster-slots", slots, "--cluster-yes", "--cluster-pipeline", "20"]].concat();
        if let Err(report) = redis_cli(&moved) {
            // On a machine that is short of time a node may miss a step: that is for redis-cli to mend, under load as well.
            let mut fixed = redis_cli(&["--cluster", "fix", &address]);
            for _ in 0..30 {
                if fixed.is_ok() {
                    break;
                }
                // Its replica may be too late for writes.
                std::thread::sleep(Duration::from_secs(1));
                fixed = redis_cli(&["--cluster", "fix", &address]);
            }
            let end = report.lines().rev().take(5).collect::<Vec<_>>().join("\n");
            fixed.unwrap_or_else(|fix| panic!("{end}\n{fix}"));
        }
        self.wait_until_whole();
    }

    /// Moves the first thousand slots from the first master to the second, all at once. Returns false if these servers move slots
    /// only key by key.
    pub(crate) fn migrate_atomically(&self) -> bool {
        let masters = self.masters();
        let node = |port| self.nodes.iter().find(|node| node.port == port).unwrap();
        let owner =
            |nodes: &str| nodes.lines().find(|line| line.contains(" 0-")).map(|line| line[..40].to_owned());
        let from = owner(&self.nodes[0].cli(&["CLUSTER", "NODES"])).unwrap();
        let from = masters.iter().find(|(id, _)| *id == from).unwrap();
        let to = masters.iter().find(|(id, _)| *id != from.0).unwrap();
        let answer = if node(from.1).knows("cluster|migrateslots") {
            let order = ["CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", "0", "999", "NODE", &to.0];
            node(from.1).cli(&order)
        } else if node(to.1).knows("cluster|migration") {
            node(to.1).cli(&["CLUSTER", "MIGRATION", "IMPORT", "0", "999"])
        } else {
            return false;
        };
        assert!(!answer.is_empty() && !answer.contains("ERR"), "{answer}");
        wait_for("all nodes to know the new owner", || {
            self.nodes.iter().all(|node| owner(&node.cli(&["CLUSTER", "NODES"])).as_ref() == Some(&to.0))
        });
        self.wait_until_whole();
        true
    }

    /// Begins to move the slot of `key` to another master, and moves the key. Returns the slot, and the id and the port of that
    /// master.
    pub(crate) fn move_key(&self, key: &str) -> (String, (String, u16)) {
        let holds = |port: u16| cli(port, &["EXISTS", key]) == "1";
        let (from, mut to): (Vec<_>, Vec<_>) = self.masters().into_iter().partition(|(_, port)| holds(*port));
        let ((from_id, from), to) = (&from[0], to.remove(0));
        let slot = cli(*from, &["CLUSTER", "KEYSLOT", key]);
        assert_eq!(cli(to.1, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", from_id]), "OK");
        assert_eq!(cli(*from, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to.0]), "OK");
        assert_eq!(cli(*from, &["MIGRATE", "127.0.0.1", &to.1.to_string(), key, "0", "60000"]), "OK");
        (slot, to)
    }

    /// The masters' ids and ports.
    pub(crate) fn masters(&self) -> Vec<(String, u16)> {
        let nodes =
            self.nodes.iter().map(|node| node.cli(&["CLUSTER", "NODES"])).find(|nodes| !nodes.is_empty());
        masters(&nodes.unwrap())
    }

    /// Kills the master on this port, and has its replica take over at once.
    pub(crate) fn replace(&mut self, master: u16) {
        let replica = self.replicas_of(master)[0];
        self.kill(master);
        assert_eq!(cli(replica, &["CLUSTER", "FAILOVER", "TAKEOVER"]), "OK");
        self.wait_until_replaced(master);
    }

    fn replicas_of(&self, master: u16) -> Vec<u16> {
        let masters = self.masters();
        let (id, _) = masters.iter().find(|(_, port)| *port == master).unwrap();
        let follows = format!("slave {id}");
        let is_replica = |port: &u16| {
            cli(*port, &["CLUSTER", "NODES"])
                .lines()
                .any(|line| line.contains("myself") && line.contains(&follows))
        };
        self.ports().into_iter().filter(is_replica).collect()
    }

    /// The nodes that run take one for failed that has not answered for so many milliseconds. Only while a node is to be missed, it
    /// is less than a busy machine takes.
    fn set_node_timeout(&self, millis: &str) {
        for node in self.nodes.iter().filter(|node| node.is_running()) {
            assert_eq!(node.cli(&["CONFIG", "SET", "cluster-node-timeout", millis]), "OK");
        }
    }

    fn kill(&mut self, port: u16) {
        self.nodes.iter_mut().find(|node| node.port == port).unwrap().kill();
    }

    fn wait_until_replaced(&self, master: u16) {
        wait_for("the replica to take over", || {
            self.nodes.iter().filter(|node| node.is_running()).all(|node| {
                let masters = masters(&node.cli(&["CLUSTER", "NODES"]));
                masters.len() == 3
                    && masters.iter().all(|(_, port)| *port != master)
                    && node.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
            })
        });
    }
}

/// The ids and ports of the masters in a reply to CLUSTER NODES.
fn masters(nodes: &str) -> Vec<(String, u16)> {
    // A master that was replaced has no slots: eight fields, and none for a range.
    let has_slots = |line: &&str| line.split(' ').count() > 8;
    let masters =
        nodes.lines().filter(|line| line.contains("master") && !line.contains("fail")).filter(has_slots);
    masters
        .map(|line| {
            let mut fields = line.split(' ');
            let id = fields.next().unwrap().to_owned();
            let address = fields.next().unwrap().split('@').next().unwrap();
            (id, address.rsplit(':').next().unwrap().parse().unwrap())
        })
        .collect()
}

fn redis_cli(args: &[&str]) -> Result<(), String> {
    let output = Command::new("redis-cli").args(args).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(()) } else { Err(text) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_cluster_keeps_the_contract() {
    let cluster = tokio::task::block_in_place(Cluster::start);
    let store = cluster.connect().await;
    let now = hyper_session::Clock::now(&hyper_session::SystemClock);
    hyper_session::testing::check_backend(store.backend(), now).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f15_resharding_under_load_loses_nothing() {
    let cluster = tokio::task::block_in_place(Cluster::start);
    let store = cluster.connect().await;
    let load = Load::start(&store, 16);
    progress(&load, 300).await;
    tokio::task::block_in_place(|| cluster.reshard("400"));
    progress(&load, 300).await;
    let failed = load.failures();
    let books = load.stop().await;
    assert_eq!(failed, 0, "redirections are followed");
    audit(&store, &books).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f15_a_killed_master_recovers() {
    let mut cluster = tokio::task::block_in_place(Cluster::start);
    let store = cluster.connect().await;
    let load = Load::start(&store, 16);
    progress(&load, 300).await;
    tokio::task::block_in_place(|| {
        let (_, port) = cluster.masters()[0].clone();
        // Replication is not synchronous: what was confirmed just before a crash may be lost.
        stop_writes(port, &cluster.replicas_of(port));
        cluster.kill(port);
        cluster.set_node_timeout("4000");
        cluster.wait_until_replaced(port);
        cluster.set_node_timeout("60000");
    });
    calm(&load).await;
    let books = load.stop().await;
    audit(&store, &books).await;
}

/// A node of a slot on the move answers TRYAGAIN to a command with several keys of which it has only some. Each step of the store
/// has one key, so none gets that answer, wherever its key is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f15_no_step_gets_tryagain_from_a_slot_on_the_move() {
    let cluster = tokio::task::block_in_place(|| Cluster::of(3, 0));
    let now = SystemClock.now();
    let entry = |value: &'static [u8], seconds| Stored {
        value: Bytes::from_static(value),
        expires: now.saturating_add(Duration::from_secs(seconds)),
    };
    let refusals = || {
        let errors = cluster.nodes.iter().map(|node| node.cli(&["INFO", "errorstats"]));
        errors.filter(|errors| errors.contains("TRYAGAIN")).count()
    };
    for (number, options) in [(1, builder(cluster.url())), (2, builder(cluster.url()).scripts_only())] {
        let store = options.connect().await.unwrap();
        let backend = store.backend();
        let id = EntryId::from_bytes([number; 16]);
        let key = format!("test:{id}");
        let slot = cluster.nodes[0].cli(&["CLUSTER", "KEYSLOT", &key]);
        let masters = cluster.masters();
        let at = |port| cluster.nodes.iter().find(|node| node.port == port).unwrap();
        let has_slot = |port: u16| !at(port).cli(&["GET", &key]).contains("MOVED");
        let (from, to): (Vec<_>, Vec<_>) = masters.iter().partition(|(_, port)| has_slot(*port));
        let ((from_id, from), (to_id, to)) = ((&from[0].0, at(from[0].1)), (&to[0].0, at(to[0].1)));
        let each_step = async |place: &str| {
            assert_eq!(backend.fetch(id, now).await.unwrap(), Some(entry(b"1", 60)), "{place}");
            let changed = backend.exchange(id, entry(b"1", 60), Some(entry(b"2", 60)), now).await;
            assert_eq!(changed.unwrap(), Replaced::Done, "{place}");
            let renewed = backend.renew(id, entry(b"2", 60), entry(b"2", 90).expires, now).await;
            assert_eq!(renewed.unwrap(), Replaced::Done, "{place}");
            assert!(backend.touch(id, entry(b"2", 120).expires, now).await.unwrap(), "{place}");
            let ended = backend.exchange(id, entry(b"2", 120), None, now).await;
            assert_eq!(ended.unwrap(), Replaced::Done, "{place}");
            // An entry that Valkey 8 removes is there for a millisecond more.
            let start = Instant::now();
            while !backend.create(id, entry(b"3", 60), now).await.unwrap() {
                assert!(start.elapsed() < PATIENCE, "{place}");
            }
            backend.delete(id).await.unwrap();
            assert_eq!(backend.fetch(id, now).await.unwrap(), None, "{place}");
        };
        assert_eq!(to.cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", from_id]), "OK");
        assert!(backend.create(id, entry(b"1", 60), now).await.unwrap());
        assert_eq!(from.cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", to_id]), "OK");
        assert!(from.cli(&["MGET", &key, &format!("{{{key}}}")]).contains("TRYAGAIN"));
        cluster.nodes.iter().for_each(|node| drop(node.cli(&["CONFIG", "RESETSTAT"])));
        each_step("where it was").await;
        // The old node no longer has the key, and names the new one.
        assert!(backend.create(id, entry(b"1", 60), now).await.unwrap());
        assert_eq!(from.cli(&["GET", &key]).split(' ').next(), Some("ASK"));
        each_step("where it is going").await;
        assert_eq!(refusals(), 0);
        for node in [to, from] {
            assert_eq!(node.cli(&["CLUSTER", "SETSLOT", &slot, "NODE", to_id]), "OK");
        }
        assert!(backend.create(id, entry(b"1", 60), now).await.unwrap());
        each_step("where it is").await;
    }
}

/// One node of three hangs: the sessions of the others are served as if nothing were (A2).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a2_a_node_that_hangs_costs_the_sessions_of_the_others_nothing() {
    one_node_hangs(|options| options).await;
}

/// With a near-cache, too; and what it has from the node that hangs does not outlive its bound.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a2_a_node_that_hangs_with_a_near_cache() {
    let bound = NearCache::new().max_staleness(Duration::from_secs(2));
    let app = one_node_hangs(|options| options.near_cache(bound)).await;
    let stats = app.store.backend().stats();
    assert!(stats.near_cache_hits > 0, "{stats:?}");
}

/// A master without a replica is gone for good: the Cluster goes on without its slots, as docs/REDIS.md has it configured.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a2_a_node_that_is_down_costs_the_sessions_of_the_others_nothing() {
    let mut cluster = tokio::task::block_in_place(|| Cluster::of(3, 0));
    for node in cluster.servers() {
        assert_eq!(node.cli(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]), "OK");
    }
    let app = App::connect(cluster.url()).await;
    let mut jars = Vec::new();
    for _ in 0..60 {
        jars.push(app.jar().await);
    }
    let (those, mut others): (Vec<_>, Vec<_>) = {
        let keys = cluster.nodes[0].cli(&["KEYS", "test:*"]);
        jars.into_iter().partition(|jar| keys.contains(&key_of(jar)))
    };
    assert!(those.len() > 5 && others.len() > 20, "{} {}", those.len(), others.len());
    let port = cluster.nodes[0].port;
    tokio::task::block_in_place(|| {
        cluster.kill(port);
        cluster.set_node_timeout("4000");
        wait_for("the other nodes to notice", || {
            let is_noticed = |node: &Server| {
                let nodes = node.cli(&["CLUSTER", "NODES"]);
                nodes.lines().any(|line| line.contains(&format!(":{port}@")) && line.contains("master,fail "))
            };
            cluster.nodes[1..].iter().all(is_noticed)
        });
        cluster.set_node_timeout("60000");
    });
    for jar in &mut others {
        assert_eq!(app.ok("/add", jar).await, "2");
    }
    for jar in &those {
        app.fails("/read", jar).await;
    }
    for jar in &mut others {
        assert_eq!(app.ok("/read", jar).await, "2");
    }
}

/// The next seed is asked beside one that hangs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a2_a_process_starts_although_the_first_seed_is_silent() {
    let cluster = tokio::task::block_in_place(|| Cluster::of(3, 0));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = cluster.url().replace("://", &format!("://{},", silent.local_addr().unwrap()));
    // The next seed is asked after half of the checkout timeout.
    let options = builder(url).connect_timeout(PATIENCE * 5 / 4).checkout_timeout(Duration::from_secs(1));
    tokio::time::timeout(PATIENCE, App::with(options)).await.unwrap();
}

/// Whatever key the process tries first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a2_a_process_starts_while_a_node_hangs() {
    let cluster = tokio::task::block_in_place(|| Cluster::of(3, 0));
    cluster.servers()[0].freeze();
    for _ in 0..8 {
        // It waits for so long for the node that hangs. A busy machine may take longer for the others.
        let options = || builder(cluster.url()).connect_timeout(Duration::from_secs(1));
        let app = App::in_the_end(options).await;
        let stats = app.store.backend().stats();
        assert_eq!((stats.servers, stats.failures), (3, 0), "{stats:?}");
    }
}

/// A node that refuses costs the sessions of the others nothing either, and no connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a2_a_node_that_refuses_costs_the_sessions_of_the_others_nothing() {
    let cluster = tokio::task::block_in_place(|| Cluster::of(3, 0));
    let app = App::connect(cluster.url()).await;
    let node = &cluster.servers()[0];
    let set = |name: &str, value: &str| assert_eq!(node.cli(&["CONFIG", "SET", name, value]), "OK");
    let mut jars = Vec::new();
    for _ in 0..30 {
        jars.push((app.jar().await, 1));
    }
    let keys = node.cli(&["KEYS", "test:*"]);
    for name in ["maxmemory", "min-replicas-to-write"] {
        set(name, "1");
        for (jar, count) in &mut jars {
            if keys.contains(&key_of(jar)) {
                app.fails("/add", jar).await;
            } else {
                *count += 1;
                assert_eq!(app.ok("/add", jar).await, count.to_string(), "{name}");
            }
            assert_eq!(app.ok("/read", jar).await, count.to_string(), "{name}");
        }
        set(name, "0");
    }
    let stats = app.store.backend().stats();
    assert_eq!((stats.up, stats.turned_away, stats.connections_broken), (true, 0, 0), "{stats:?}");
    assert!(stats.failures > 0, "{stats:?}");
}

/// A session that could not be ended, because its node hangs, does not lock its user out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a2_an_ending_that_a_hung_node_holds_up_fails_no_login_on_the_others() {
    let cluster = tokio::task::block_in_place(|| Cluster::of(3, 0));
    let patient = App::connect(cluster.url()).await;
    // The steps on the node that hangs wait for so long.
    let deadline = Duration::from_secs(2);
    let options = || builder(cluster.url()).command_timeout(deadline).checkout_timeout(deadline);
    let app = App::in_the_end(options).await;
    let hung = &cluster.servers()[0];
    let mut users = 0;
    let user = loop {
        users += 1;
        let user = format!("user{users}");
        log_in(&patient.store, &user).await;
        let mut raw = Raw::of(hung);
        if raw.keys().len() == 1 && list_keys(&mut raw).is_empty() {
            break user;
        }
        patient.store.end_sessions_of(&user, None).await.unwrap();
    };
    hung.freeze();
    assert!(app.store.end_sessions_of(&user, None).await.unwrap_err().is_unavailable());
    let name = user.clone();
    let service = session_fn(app.store.clone(), move |_: Request<Body>, session: SessionHandle| {
        let name = name.clone();
        async move {
            session.load().await?.login(&name)?;
            Ok::<_, Error>(Response::new(Body::default()))
        }
    });
    // A third of them come to lie on the node that hangs.
    app.until("a login on another node", async || {
        visit(&service, "/", &mut Jar::new()).await.status() == 200
    })
    .await;
    hung.thaw();
    app.until("all are ended", async || {
        app.store.end_sessions_of(&user, None).await.is_ok()
            && app.store.sessions_of(&user).await.is_ok_and(|listed| listed.is_empty())
    })
    .await;
}

/// A session on one node, and the list of its user on the node that hangs: a renewal and a logout do not wait for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a2_a_list_on_a_hung_node_holds_up_no_answer_for_a_session_on_another() {
    let cluster = tokio::task::block_in_place(|| Cluster::of(3, 0));
    let clock = FakeClock::at(SystemClock.now().as_unix());
    let app = App::with(builder(cluster.url()).clock(clock.clone())).await;
    let hung = &cluster.servers()[0];
    let mut users = 0;
    let (user, mut jar) = loop {
        users += 1;
        let user = format!("user{users}");
        let jar = log_in(&app.store, &user).await;
        let mut raw = Raw::of(hung);
        if raw.keys().len() == 1 && list_keys(&mut raw).len() == 1 {
            break (user, jar);
        }
        app.store.end_sessions_of(&user, None).await.unwrap();
    };
    hung.freeze();
    clock.advance(Duration::from_secs(3 * 3_600));
    for path in ["/read", "/logout"] {
        // A step on that node waits for as long as this.
        let start = Instant::now();
        app.ok(path, &mut jar).await;
        assert!(start.elapsed() < UNHURRIED, "{path}: {:?}", start.elapsed());
    }
    hung.thaw();
    assert_eq!(app.store.sessions_of(&user).await.unwrap(), []);
    app.until("the list is left", async || list_keys(&mut Raw::of(hung)).is_empty()).await;
}

/// All nodes are known by addresses that they no longer have, and the first seed is silent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f15_a_cluster_that_moved_is_found_again_although_a_seed_is_silent() {
    let cluster = tokio::task::block_in_place(|| Cluster::of(3, 0));
    let before = cluster.behind_relays();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let seed = cluster.ports()[0];
    let url = format!("redis-cluster://{},127.0.0.1:{seed}", silent.local_addr().unwrap());
    let app = App::in_the_end(|| builder(&url).connect_timeout(Duration::from_secs(2))).await;
    let mut jar = app.jar().await;
    let _after = cluster.behind_relays();
    for relay in &before {
        relay.set_resets(true);
    }
    assert_eq!(app.recovers("/read", &mut jar).await, "1");
}

async fn one_node_hangs(more: impl FnOnce(Builder<RedisOptions>) -> Builder<RedisOptions>) -> App {
    let cluster = tokio::task::block_in_place(|| Cluster::of(3, 0));
    // The requests for sessions on the hung node wait for as long as a busy machine gets for the others.
    let options = builder(cluster.url()).command_timeout(Duration::from_secs(2));
    let app = App::with(more(options.checkout_timeout(Duration::from_secs(8)))).await;
    let mut jars = Vec::new();
    for _ in 0..60 {
        jars.push(app.jar().await);
    }
    let hung = &cluster.nodes[0];
    let on_hung: std::collections::BTreeSet<_> =
        hung.cli(&["KEYS", "test:*"]).lines().map(ToOwned::to_owned).collect();
    let is_on_hung: Vec<_> = jars.iter().map(|jar| on_hung.contains(&key_of(jar))).collect();
    let (those, others) =
        (is_on_hung.iter().filter(|hung| **hung).count(), is_on_hung.iter().filter(|hung| !**hung).count());
    assert!(those > 5 && others > 20, "{those} {others}");

    hung.freeze();
    let stop = Arc::new(AtomicBool::new(false));
    let [served_by_hung, failed_on_hung, served, failed]: [Arc<AtomicU64>; 4] = Default::default();
    let tasks: Vec<_> = jars
        .iter()
        .zip(&is_on_hung)
        .map(|(jar, is_on_hung)| {
            let (app, mut jar, stop) = (app.clone(), jar.clone(), Arc::clone(&stop));
            let counts = if *is_on_hung { [&served_by_hung, &failed_on_hung] } else { [&served, &failed] };
            let [well, badly] = counts.map(Arc::clone);
            tokio::spawn(async move {
                let mut turn = 0;
                while !stop.load(Ordering::SeqCst) {
                    let path = if turn % 3 == 0 { "/add" } else { "/read" };
                    let is_served = app.visit(path, &mut jar).await.status() == 200;
                    turn += u64::from(is_served);
                    (if is_served { &well } else { &badly }).fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            })
        })
        .collect();
    app.until("the hung node has cost its own sessions enough", async || {
        let stats = app.store.backend().stats();
        let (served, on_hung) = (served.load(Ordering::SeqCst), failed_on_hung.load(Ordering::SeqCst));
        served > 1_000 && on_hung > 100 && stats.turned_away > 0
    })
    .await;
    stop.store(true, Ordering::SeqCst);
    for task in tasks {
        task.await.unwrap();
    }
    let [by_hung, of_its_own, served, failed] =
        [served_by_hung, failed_on_hung, served, failed].map(|count| count.load(Ordering::SeqCst));
    let stats = app.store.backend().stats();
    println!(
        "one node of three hung: sessions of the others {served} served, {failed} failed; of its own {of_its_own} failed"
    );
    assert_eq!((failed, by_hung), (0, 0), "{stats:?}");
    assert_eq!((stats.up, stats.servers, stats.servers_down), (false, 3, 1), "{stats:?}");
    assert!(
        stats.turned_away > 0 && stats.timeouts > 0 && stats.timeouts + stats.turned_away <= stats.failures,
        "{stats:?}"
    );

    for (jar, _) in jars.iter().zip(&is_on_hung).filter(|(_, is_on_hung)| **is_on_hung) {
        app.fails("/read", jar).await;
    }

    hung.thaw();
    for jar in &mut jars {
        app.recovers("/read", jar).await;
    }
    assert!(app.store.backend().stats().up);
    app
}

/// The key of the session in a jar, as `docs/WIRE.md` has it.
pub(crate) fn key_of(jar: &Jar) -> String {
    let (name, token) = jar.0.iter().next().unwrap();
    let token = BASE64_URL_SAFE_NO_PAD.decode(token).unwrap();
    let hash = Sha256::new()
        .chain_update(b"hyper-session id v1\0")
        .chain_update(name)
        .chain_update([0])
        .chain_update(token);
    hash.finalize()[..16].iter().fold("test:".to_owned(), |key, byte| key + &format!("{byte:02x}"))
}
