//! The log of revocations behind Sentinel and in a Cluster: failovers that lose its end (F14, F15), and a slot that moves.

use std::time::{Duration, Instant};

use hyper_session::__internals::Verbs;
use hyper_session::revocation::RevocationLog;
use hyper_session::testing::{Cookies, FakeClock, check_revocation_log};
use hyper_session::{Clock, Revocations, SystemClock};

use crate::cluster::Cluster;
use crate::deployment::Deployment;
use crate::requests::{NAME, Site};
use crate::server::{PATIENCE, cli, unhurried_revocations, wait_for};

const STREAM: &str = "test:revoked";
const HOLDS_UP: Duration = Duration::from_secs(5);

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
    Site::built(clock, |builder| builder.revocations(revocations.max_staleness(Duration::from_secs(1))))
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
    let store = one.store.clone();
    one.visit(&mut stays, |session| {
        let store = store.clone();
        async move {
            store.end_sessions_of("ada").await?;
            session.login("ada")
        }
    })
    .await;
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
    three.store.end_sessions_of("orphan").await.unwrap();
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
        let killed = deployment.kill_master();
        wait_for("a new master", || deployment.master_port().is_some_and(|port| port != killed));
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
    let masters = cluster.masters();
    let holds = |port: u16| cli(port, &["EXISTS", STREAM]) == "1";
    let (from, to): (Vec<_>, Vec<_>) = masters.into_iter().partition(|(_, port)| holds(*port));
    let ((from_id, from), (to_id, to)) = (&from[0], &to[0]);
    let slot = cli(*from, &["CLUSTER", "KEYSLOT", STREAM]);
    assert_eq!(cli(*to, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", from_id]), "OK");
    assert_eq!(cli(*from, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", to_id]), "OK");
    assert_eq!(cli(*from, &["MIGRATE", "127.0.0.1", &to.to_string(), STREAM, "0", "5000"]), "OK");
    for port in cluster.masters().into_iter().map(|(_, port)| port) {
        cli(port, &["CLUSTER", "SETSLOT", &slot, "NODE", to_id]);
    }
    wait_for("the slot to have moved", || holds(*to));
    *to
}
