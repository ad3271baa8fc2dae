//! The options of every socket, read back from the sockets of this process.

use std::net::SocketAddr;
use std::time::Duration;

use bb8_redis::redis::io::tcp::socket2::Socket;
use hyper_session::store::redis::NearCache;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

use crate::app::{App, builder};
use crate::cluster::Cluster;
use crate::deployment::Deployment;
use crate::server::{Server, unhurried_revocations, wait_for};

/// The sockets of this process that are connected to one of these ports.
fn sockets_to(ports: &[u16]) -> Vec<Socket> {
    let process = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
    let files = std::fs::read_dir("/proc/self/fd").unwrap();
    files
        .filter_map(|file| {
            let file = file.ok()?;
            std::fs::read_link(file.path()).ok().filter(|to| to.to_string_lossy().starts_with("socket:"))?;
            let number = file.file_name().to_str()?.parse().ok()?;
            let socket = Socket::from(pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok()?);
            let peer: SocketAddr = socket.peer_addr().ok()?.as_socket()?;
            ports.contains(&peer.port()).then_some(socket)
        })
        .collect()
}

/// The options that the socket lacks.
fn lacks(socket: &Socket) -> Vec<&'static str> {
    let options = [
        ("TCP_NODELAY", socket.tcp_nodelay().unwrap()),
        ("SO_KEEPALIVE", socket.keepalive().unwrap()),
        ("TCP_KEEPIDLE", socket.tcp_keepalive_time().unwrap() == Duration::from_secs(15)),
        ("TCP_KEEPINTVL", socket.tcp_keepalive_interval().unwrap() == Duration::from_secs(5)),
        ("TCP_USER_TIMEOUT", socket.tcp_user_timeout().unwrap() == Some(Duration::from_secs(10))),
    ];
    options.into_iter().filter(|(_, is_set)| !is_set).map(|(name, _)| name).collect()
}

/// Waits until all sockets to these ports, at least so many, have all options. A socket gets them once it is connected.
fn check(what: &str, ports: &[u16], at_least: usize) {
    tokio::task::block_in_place(|| {
        let mut seen = Vec::new();
        wait_for(&format!("the options of {what}"), || {
            let now: Vec<_> = sockets_to(ports).iter().map(lacks).collect();
            let done = now.len() >= at_least && now.iter().all(Vec::is_empty);
            if now != seen {
                println!("{what}: the sockets lack {now:?}");
                seen = now;
            }
            done
        });
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a1_every_connection_of_every_kind_has_its_options() {
    let server = Server::start();
    let near_cache = NearCache::new();
    let app = App::with(builder(server.url()).connections(3).near_cache(near_cache)).await;
    check("one server and its near-cache", &[server.port], 4);
    // Connections that are made later have them, too.
    server.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    let mut jar = app.jar().await;
    app.until("all connections are made anew", async || {
        app.ok("/add", &mut jar).await;
        sockets_to(&[server.port]).len() >= 3
    })
    .await;
    check("one server, again", &[server.port], 3);
    drop(app);
    let revoked = Server::start();
    let revocations = unhurried_revocations(revoked.url(), "test").connect().await.unwrap();
    check("a log of revocations", &[revoked.port], 2);
    drop(revocations);

    let cluster = tokio::task::block_in_place(Cluster::start);
    let store = cluster.connect().await;
    check("a Cluster", &cluster.ports(), 6);
    drop(store);

    let deployment = tokio::task::block_in_place(Deployment::start);
    let store = crate::sentinel::connect(&deployment).await;
    check("the master behind Sentinel", &[deployment.master_port().unwrap()], 2);
    drop(store);
}

/// The connection to a sentinel lives for a question. A sentinel that hangs keeps it open for as long as the test looks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a1_connections_to_sentinels_have_them_too() {
    let server = Server::start();
    server.freeze();
    let url = format!("redis+sentinel://127.0.0.1:{}/mymaster", server.port);
    let connecting = tokio::spawn(builder(url).connect_timeout(Duration::from_secs(20)).connect());
    check("a sentinel", &[server.port], 1);
    connecting.abort();
}
