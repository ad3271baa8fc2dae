//! Failover of a master under sentinels, under load (F14).

use std::net::TcpListener;
use std::time::Duration;

use hyper_session::RedisStore;
use hyper_session::store::Builder;
use hyper_session::store::redis::RedisOptions;
use hyper_session::testing::{Cut, Relay};

use crate::app::{App, builder};
use crate::deployment::Deployment;
use crate::load::{Load, audit};
use crate::server::{PATIENCE, answering, array, cli, free_port, signal, wait_for};
use crate::support::Jar;

/// A store whose steps have the default deadlines. Connecting may take longer.
pub(crate) async fn connect(deployment: &Deployment) -> RedisStore {
    let options = || RedisStore::builder(deployment.url()).prefix("test").development();
    App::in_the_end(|| options().connect_timeout(PATIENCE)).await.store
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
    // Replication is not synchronous: what was confirmed just before a crash may be lost.
    tokio::task::block_in_place(|| {
        deployment.stop_writes();
        deployment.replace_master();
    });
    calm(&load).await;
    assert!(load.failures() > 0, "the master was killed under load");
    let books = load.stop().await;
    assert!(books.iter().filter(|book| book.ended).count() > 10);
    audit(&store, &books).await;
}

/// The default deadlines as multiples: a connection may take twice as long to make as a request waits for it.
fn in_proportion(checkout: Duration, url: &str) -> Builder<RedisOptions> {
    builder(url).connect_timeout(2 * checkout).checkout_timeout(checkout).command_timeout(checkout)
}

/// The next sentinel is asked beside one that hangs, long before the request gives up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a3_a_sentinel_that_hangs_fails_no_request() {
    let deployment = tokio::task::block_in_place(Deployment::start);
    let [(hung, _, first), (_, asked, second), (_, _, third)] = &deployment.sentinels[..] else {
        panic!("three sentinels")
    };
    let master = deployment.ask(*asked, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster"]);
    let master = master.lines().nth(1).unwrap().parse().unwrap();
    for ports in [&[first, second][..], &[first, second, third]] {
        let hosts: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let url = format!("redis+sentinel://{}/mymaster", hosts.join(","));
        let app = App::with(in_proportion(Duration::from_secs(15), &url)).await;
        let mut jar = app.jar().await;
        signal(hung.id(), "STOP");
        for n in 2..5 {
            cli(master, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
            assert_eq!(app.ok("/add", &mut jar).await, n.to_string());
        }
        assert_eq!(app.store.backend().stats().failures, 0);
        signal(hung.id(), "CONT");
    }
}

/// Each of five sentinels takes longer than a fifth of the time for a connection. None is given up for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a3_sentinels_that_are_far_away_fail_no_request() {
    let deployment = tokio::task::block_in_place(Deployment::start);
    let ports = deployment.sentinels.iter().cycle().take(5).map(|(_, _, port)| *port);
    let relays: Vec<_> = ports.map(|port| Relay::before(("127.0.0.1", port)).unwrap()).collect();
    let hosts: Vec<_> = relays.iter().map(|relay| relay.address().to_string()).collect();
    let url = format!("redis+sentinel://{}/mymaster", hosts.join(","));
    let app = App::with(builder(url).connect_timeout(Duration::from_secs(20))).await;
    let mut jar = app.jar().await;
    for relay in &relays {
        // Two round trips for the answer: 4.4 seconds of 20.
        relay.set_latency(Duration::from_millis(1_100));
    }
    let master = deployment.master_port().unwrap();
    cli(master, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    assert_eq!(app.ok("/add", &mut jar).await, "2");
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

/// A sentinel that was cut off from the others: it names the server on this port, for good. Returns its own port.
fn sentinel_with_an_old_view(master: u16) -> u16 {
    let hello = array(&["mode", "sentinel", "role", "master"]);
    let named = array(&["127.0.0.1", &master.to_string()]);
    answering(move |request| Some(if request.contains("SENTINEL") { named.clone() } else { hello.clone() }))
}

/// The URL of this sentinel, and then two of the deployment.
fn url_with(first: u16, deployment: &Deployment) -> String {
    let [_, (_, second, _), (_, third, _)] = &deployment.sentinels[..] else { panic!("three sentinels") };
    format!("redis+sentinel://127.0.0.1:{first},127.0.0.1:{second},127.0.0.1:{third}/mymaster")
}

/// The server that it names is a replica by now, is gone, or was cut off and swallows packets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a10_a_sentinel_with_an_old_view_is_passed_over_at_connect() {
    let deployment = tokio::task::block_in_place(Deployment::start);
    let master = deployment.master_port().unwrap();
    let replica = deployment.servers().iter().find(|server| server.port != master).unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    for named in [replica.port, free_port(), silent.local_addr().unwrap().port()] {
        let url = url_with(sentinel_with_an_old_view(named), &deployment);
        // The silent server costs its share of this.
        let app = App::hurried_with(&url, |options| options.connect_timeout(Duration::from_secs(9))).await;
        let mut jar = Jar::new();
        assert_eq!(app.recovers("/add", &mut jar).await, "1");
    }
}

/// The sentinel that named the master last is asked first. It may be the only one that missed the failover. A connection that was cut
/// at HELLO does not switch off the question for the role.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f14_a_failover_that_one_sentinel_missed() {
    let deployment = tokio::task::block_in_place(Deployment::start);
    let before = deployment.master_port().unwrap();
    let relay = Relay::before(("127.0.0.1", before)).unwrap();
    relay.cut_next("HELLO", Cut::BeforeReply);
    let url = url_with(sentinel_with_an_old_view(relay.address().port()), &deployment);
    // So long that the next sentinel is asked because the first one's answer is wrong, and not because it is late.
    let options = builder(url).connect_timeout(PATIENCE * 30).checkout_timeout(PATIENCE);
    let app = App::with(options).await;
    assert!(relay.is_done());
    let mut jar = app.jar().await;
    tokio::task::block_in_place(|| {
        deployment.fail_over();
        wait_for("the old master to follow", || cli(before, &["ROLE"]).starts_with("slave"));
    });
    app.recovers("/add", &mut jar).await;
}
