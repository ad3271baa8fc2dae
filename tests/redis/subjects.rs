//! The sessions of a subject on real servers: listed, ended from elsewhere, and gone from Redis afterwards.

use hyper_session::RedisStore;

use crate::cluster::Cluster;
use crate::contract::builder;
use crate::server::Server;
use crate::session_lists::{log_in, user};

async fn everywhere_but_here(store: &RedisStore) {
    let (laptop, phone, other) =
        (log_in(store, "ada").await, log_in(store, "ada").await, log_in(store, "bob").await);
    let devices = store.sessions_of("ada").await.unwrap();
    assert_eq!(devices.len(), 2);
    assert!(!store.end_session_of("bob", devices[0].id).await.unwrap(), "bob cannot end ada's session");
    assert_eq!(user(store, &laptop).await.as_deref(), Some("ada"));

    assert_eq!(store.end_sessions_of("ada", Some(devices[1].id)).await.unwrap(), 1);
    assert_eq!(user(store, &laptop).await, None, "the older one is ended");
    assert_eq!(user(store, &phone).await.as_deref(), Some("ada"), "this one is kept");
    assert_eq!(user(store, &other).await.as_deref(), Some("bob"));

    assert!(store.end_session_of("ada", devices[1].id).await.unwrap());
    assert_eq!(user(store, &phone).await, None);
    assert_eq!(store.sessions_of("ada").await.unwrap(), []);
}

#[tokio::test]
async fn t26_log_out_everywhere_else() {
    let server = Server::start();
    let store = builder(&server).connect().await.unwrap();
    everywhere_but_here(&store).await;
    // Bob's session and the list that it is on are left.
    server.has_entries(2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t26_log_out_everywhere_else_in_a_cluster() {
    let cluster = tokio::task::block_in_place(Cluster::start);
    let store = cluster.connect().await;
    everywhere_but_here(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r9_logins_at_once_are_all_listed() {
    let server = Server::start();
    let store = builder(&server).connect().await.unwrap();
    let logins: Vec<_> = (0..32)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { log_in(&store, "ada").await })
        })
        .collect();
    for login in logins {
        login.await.unwrap();
    }
    assert_eq!(store.sessions_of("ada").await.unwrap().len(), 32);
}
