//! The log of revocations behind Sentinel and in a Cluster: failovers that lose its end (F14, F15), and a slot that moves. And on
//! a server that takes no writes (F13), or evicts (A5).

use std::time::{Duration, Instant};

use hyper_session::__internals::Verbs;
use hyper_session::revocation::RevocationLog;
use hyper_session::testing::{Cookies, FakeClock, check_revocation_log};
use hyper_session::{AppKey, Clock, CookieStore, Revocations, Session, SystemClock};

use crate::cluster::Cluster;
use crate::deployment::Deployment;
use crate::requests::{NAME, Site};
use crate::server::{PATIENCE, Server, cli, unhurried_revocations, wait_for};
use crate::support::Events;

const STREAM: &str = "test:revoked";
const HOLDS_UP: Duration = Duration::from_secs(5);
const MAX_STALENESS: Duration = Duration::from_secs(1);

async fn log(url: String) -> impl RevocationLog {
    unhurried_revocations(url, "test").into_log().await.unwrap()
}

async fn host(url: &str) -> Site {
    let start = Instant::now();
    let revocations = loop {
        let revocations = Revocations::redis(url).prefix("test");
        // A host whose server is gone waits for as long as a busy machine gets.
        let revocations = revocations.connect_timeout(HOLDS_UP).command_timeout(HOLDS_UP);
        match revocations.connect().await {
            Ok(revocations) => break revocations,
            Err(error) => assert!(start.elapsed() < PATIENCE, "{error:?}"),
        }
    };
    let clock = FakeClock::at(SystemClock.now().as_unix());
    Site::built(clock, |builder| builder.revocations(revocations.max_staleness(MAX_STALENESS)))
}

/// Returns true if the cookies open a session. A store that cannot confirm that they do counts as false.
async fn opens(site: &Site, cookies: &Cookies) -> bool {
    site.store.load(cookies.get(NAME).unwrap(), site.clock.now()).await.is_ok_and(|loaded| loaded.is_ok())
}

/// Waits until the cookies open a session, or no longer do.
async fn until(site: &Site, cookies: &Cookies, opened: bool) {
    let start = Instant::now();
    while opens(site, cookies).await != opened {
        assert!(start.elapsed() < PATIENCE, "the cookies never come to be {opened}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn logged_in(site: &Site, user: &str) -> Cookies {
    let (start, mut cookies) = (Instant::now(), Cookies::new());
    while site.visit(&mut cookies, |session| async move { session.login(user) }).await.status() != 200 {
        assert!(start.elapsed() < PATIENCE, "no login succeeds");
    }
    cookies
}

async fn logged_out(site: &Site, user: &str) -> Cookies {
    let mut cookies = logged_in(site, user).await;
    let copy = cookies.clone();
    let start = Instant::now();
    while site.visit(&mut cookies, |session| async move { session.destroy() }).await.status() != 200 {
        assert!(start.elapsed() < PATIENCE, "no logout succeeds");
    }
    copy
}

/// Stops replication from the server on this port, while its clients notice nothing.
fn cut_off_replicas(port: u16) {
    assert_eq!(cli(port, &["ACL", "SETUSER", "default", "-psync", "-sync"]), "OK");
    wait_for("the replicas to be cut off", || {
        cli(port, &["CLIENT", "KILL", "TYPE", "replica"]);
        cli(port, &["INFO", "replication"]).contains("connected_slaves:0")
    });
}

/// Logs users in and out on a master whose replicas are cut off, replaces it, and presents every copied cookie to hosts that
/// know what was lost, and to one that does not.
async fn a_lost_tail(url: &str, master: u16, replace_master: impl FnOnce()) {
    let (one, two) = (host(url).await, host(url).await);
    let mut copies = vec![logged_out(&one, "before").await];
    tokio::task::block_in_place(|| cut_off_replicas(master));
    for number in 0..20 {
        copies.push(logged_out(if number % 2 == 0 { &one } else { &two }, &number.to_string()).await);
    }
    let mut stays = logged_in(&one, "ada").await;
    copies.push(stays.clone());
    let (store, start) = (one.store.clone(), Instant::now());
    let end_all_and_log_in = |session: Session| {
        let store = store.clone();
        async move {
            store.end_sessions_of("ada").await?;
            session.login("ada")
        }
    };
    while one.visit(&mut stays, end_all_and_log_in).await.status() != 200 {
        assert!(start.elapsed() < PATIENCE, "no login succeeds");
    }
    // The only host that has seen the position of this login ends with it.
    let orphan = logged_in(&host(url).await, "orphan").await;
    for site in [&one, &two] {
        until(site, &stays, true).await;
        for copy in &copies {
            until(site, copy, false).await;
        }
    }

    tokio::task::block_in_place(replace_master);
    for site in [&one, &two] {
        let start = Instant::now();
        while !opens(site, &stays).await {
            assert!(start.elapsed() < PATIENCE, "the session that nothing ended never opens");
            for (number, copy) in copies.iter().enumerate() {
                assert!(!opens(site, copy).await, "copy {number} during the failover");
            }
        }
    }
    let three = host(url).await;
    let start = Instant::now();
    while let Err(error) = three.store.end_sessions_of("orphan").await {
        assert!(start.elapsed() < PATIENCE, "{error:?}");
    }
    for site in [&three, &one, &two] {
        until(site, &orphan, false).await;
        for (number, copy) in copies.iter().enumerate() {
            assert!(!opens(site, copy).await, "copy {number} after the failover");
        }
        until(site, &stays, true).await;
    }
    let later = logged_in(&three, "orphan").await;
    until(&one, &later, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f14_a_failover_of_sentinel_that_loses_revocations_brings_no_session_back() {
    let mut deployment = tokio::task::block_in_place(Deployment::start);
    let url = deployment.url();
    check_revocation_log(&log(url.clone()).await, &log(url.clone()).await).await;
    let master = tokio::task::block_in_place(|| deployment.master_port()).unwrap();
    a_lost_tail(&url, master, || {
        deployment.replace_master();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f15_a_lost_master_of_a_cluster_brings_no_session_back_and_a_slot_that_moves_ends_none() {
    let mut cluster = tokio::task::block_in_place(Cluster::start);
    let url = cluster.url();
    check_revocation_log(&log(url.clone()).await, &log(url.clone()).await).await;

    let (one, two) = (host(&url).await, host(&url).await);
    let (copy, stays) = (logged_out(&one, "bob").await, logged_in(&one, "ada").await);
    let owner = tokio::task::block_in_place(|| move_stream(&cluster));
    let later = logged_out(&two, "eve").await;
    for site in [&one, &two, &host(&url).await] {
        until(site, &later, false).await;
        assert!(!opens(site, &copy).await);
        until(site, &stays, true).await;
    }

    a_lost_tail(&url, owner, || cluster.replace(owner)).await;
}

/// Moves the stream's slot to another master. Returns that master's port.
fn move_stream(cluster: &Cluster) -> u16 {
    let (slot, (to_id, to)) = cluster.move_key(STREAM);
    for port in cluster.masters().into_iter().map(|(_, port)| port) {
        cli(port, &["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]);
    }
    wait_for("the slot to have moved", || cli(to, &["EXISTS", STREAM]) == "1");
    to
}

/// A snapshot that fails stops all writes (MISCONF), and says nothing against the log: sessions stay readable. A server that may
/// have missed revocations does not vouch for any, even then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f13_revocations_are_read_from_a_master_whose_snapshots_fail_and_not_from_one_that_may_be_behind() {
    let server = Server::with(&["--enable-protected-configs", "local"]);
    let set = |name: &str, value: &str| assert_eq!(server.cli(&["CONFIG", "SET", name, value]), "OK");
    let log = log(server.url()).await;
    let site = host(&server.url()).await;
    let cookies = logged_in(&site, "ada").await;
    let said = async || match log.read(0, Duration::ZERO).await {
        Ok(_) => "read".to_owned(),
        Err(error) => std::error::Error::source(&error).unwrap().to_string(),
    };
    let revocations = unhurried_revocations(server.url(), "test").connect().await.unwrap();
    revocations.end_sessions_of("bob").await.unwrap();
    assert_eq!(said().await, "read");

    let gone = server.dir().join("gone");
    std::fs::create_dir(&gone).unwrap();
    set("dir", gone.to_str().unwrap());
    std::fs::remove_dir(&gone).unwrap();
    set("save", "3600 1");
    server.cli(&["BGSAVE"]);
    wait_for("the snapshot to fail", || {
        server.cli(&["INFO", "persistence"]).contains("last_bgsave_status:err")
    });
    let refused = revocations.end_sessions_of("eve").await.unwrap_err();
    assert!(std::error::Error::source(&refused).unwrap().to_string().contains("MISCONF"), "{refused:?}");
    assert_eq!(said().await, "read");
    // The revocations that the process had read before are too old by then.
    tokio::time::sleep(2 * MAX_STALENESS).await;
    until(&site, &cookies, true).await;

    for snapshots in ["fail", "work"] {
        set("min-replicas-to-write", "1");
        assert!(said().await.contains("NOREPLICAS"), "snapshots {snapshots}: {}", said().await);
        until(&site, &cookies, false).await;
        set("min-replicas-to-write", "0");
        until(&site, &cookies, true).await;
        server.cli(&["REPLICAOF", "127.0.0.1", "1"]);
        until(&site, &cookies, false).await;
        server.cli(&["REPLICAOF", "NO", "ONE"]);
        until(&site, &cookies, true).await;
        set("stop-writes-on-bgsave-error", "no");
    }
}

/// A stream has no time to live: only a policy for all keys evicts it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a5_a_redis_that_may_evict_the_revocations_is_reported_by_each_store() {
    let server = Server::start();
    for (policy, expected) in [
        ("noeviction", vec![]),
        ("volatile-lru", vec![]),
        ("allkeys-lru", vec!["eviction_policy:allkeys-lru"]),
    ] {
        assert_eq!(server.cli(&["CONFIG", "SET", "maxmemory-policy", policy]), "OK");
        let revocations = unhurried_revocations(server.url(), "test").connect().await.unwrap();
        for _ in 0..2 {
            let (events, key) = (Events::new(), AppKey::danger_from_any_bytes(b"a key for tests").unwrap());
            let store = CookieStore::builder(key).revocations(revocations.clone()).observer(events.clone());
            drop(store.build().unwrap());
            assert_eq!(events.take(), expected, "{policy}");
        }
    }
}
