//! Failover of a master under sentinels, under load (F14).

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::Duration;

use hyper_session::RedisStore;

use crate::app::{App, builder};
use crate::deployment::Deployment;
use crate::load::{Load, audit};
use crate::server::{PATIENCE, cli, free_port, signal, wait_for};
use crate::support::Jar;

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

/// A sentinel that was cut off from the others: it names the server on this port, for good. Returns its own port.
fn sentinel_with_an_old_view(master: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
    let hello = format!("*4\r\n{}{}{}{}", bulk("mode"), bulk("sentinel"), bulk("role"), bulk("master"));
    let named = format!("*2\r\n{}{}", bulk("127.0.0.1"), bulk(&master.to_string()));
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let (hello, named) = (hello.clone(), named.clone());
            std::thread::spawn(move || {
                let mut request = [0; 4096];
                while let Ok(len @ 1..) = client.read(&mut request) {
                    let asks = request[..len].windows(8).any(|window| window == b"SENTINEL");
                    let _ = client.write_all(if asks { named.as_bytes() } else { hello.as_bytes() });
                }
            });
        }
    });
    port
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

/// The sentinel that answered last is asked first. It may be the only one that missed the failover.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f14_a_failover_that_one_sentinel_missed() {
    let deployment = tokio::task::block_in_place(Deployment::start);
    let before = deployment.master_port().unwrap();
    let url = url_with(sentinel_with_an_old_view(before), &deployment);
    let app = App::connect(url).await;
    let mut jar = app.jar().await;
    tokio::task::block_in_place(|| {
        deployment.fail_over();
        wait_for("the old master to follow", || cli(before, &["ROLE"]).starts_with("slave"));
    });
    app.recovers("/add", &mut jar).await;
}
