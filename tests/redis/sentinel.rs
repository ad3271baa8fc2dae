//! Failover of a master under sentinels, under load (F14).

use std::time::Duration;

use hyper_session::RedisStore;

use crate::app::{App, builder};
use crate::deployment::Deployment;
use crate::load::{Load, audit};
use crate::server::{PATIENCE, cli, signal, wait_for};

pub(crate) async fn connect(deployment: &Deployment) -> RedisStore {
    let builder = RedisStore::builder(deployment.url()).prefix("test").development();
    builder.connect_timeout(PATIENCE).connect().await.unwrap()
}

/// Until the load has this many more successes; fails after [`PATIENCE`].
pub(crate) async fn progress(load: &Load, more: u64) {
    let target = load.successes() + more;
    let reached = async {
        while load.successes() < target {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.expect("requests succeed again");
}

/// Waits until the faults have ended: a thousand successes in a row, and no failure between them.
pub(crate) async fn calm(load: &Load) {
    for _ in 0..100 {
        let failures = load.failures();
        progress(load, 1_000).await;
        if load.failures() == failures {
            return;
        }
    }
    panic!("failures go on after the failover");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f14_a_killed_master_is_replaced_and_nobody_comes_back_from_logout() {
    let mut deployment = Deployment::start();
    let store = connect(&deployment).await;
    let load = Load::start(&store, 16);
    progress(&load, 500).await;
    let killed = tokio::task::block_in_place(|| deployment.kill_master());
    tokio::task::block_in_place(|| {
        wait_for("a new master", || deployment.master_port().is_some_and(|port| port != killed));
    });
    calm(&load).await;
    assert!(load.failures() > 0, "the master was killed under load");
    let books = load.stop().await;
    assert!(books.iter().filter(|book| book.ended).count() > 10);
    audit(&store, &books).await;
}

/// A sentinel that hangs takes its share of the time for a connection, and the next one is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a3_a_sentinel_that_hangs_fails_no_request() {
    let deployment = tokio::task::block_in_place(Deployment::start);
    let (connecting, waiting) = (Duration::from_secs(30), Duration::from_secs(20));
    let options = builder(deployment.url()).connect_timeout(connecting);
    let app = App::with(options.checkout_timeout(waiting).command_timeout(waiting)).await;
    let mut jar = app.jar().await;
    signal(deployment.sentinels[0].0.id(), "STOP");
    let master = tokio::task::block_in_place(|| {
        // Not by the sentinel that hangs.
        let answer =
            deployment.ask(deployment.sentinels[1].1, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster"]);
        answer.lines().nth(1).unwrap().parse().unwrap()
    });
    for n in 2..5 {
        cli(master, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        assert_eq!(app.ok("/add", &mut jar).await, n.to_string());
    }
    assert_eq!(app.store.backend().stats().failures, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f14_an_ordered_failover_leaves_the_demoted_master_alone() {
    let deployment = Deployment::start();
    let store = connect(&deployment).await;
    let load = Load::start(&store, 8);
    progress(&load, 200).await;
    let before = tokio::task::block_in_place(|| deployment.master_port()).unwrap();
    tokio::task::block_in_place(|| {
        deployment.fail_over();
        wait_for("the new master", || deployment.master_port().is_some_and(|port| port != before));
    });
    progress(&load, 500).await;
    let _ = load.stop().await;
    // Writes go only to the new master: the entries of the old master came from there.
    let role = tokio::task::block_in_place(|| {
        wait_for("the old master to follow", || cli(before, &["ROLE"]).starts_with("slave"));
        cli(before, &["ROLE"])
    });
    assert!(role.contains(&deployment.master_port().unwrap().to_string()), "{role}");
}
