//! The sessions of a subject on real servers: listed, ended from elsewhere, and gone from Redis afterwards.

use hyper_session::store::redis::NearCache;
use hyper_session::{AppKey, RedisStore};

use crate::app::{App, behind_relay, builder as unhurried};
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

/// One in ten pieces that are sent is cut, before, in or after its step: what a subject does is done once. Steps that go out together
/// share a connection, and on a busy machine each is a piece of its own: there are enough connections for all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f05_a_line_that_breaks_again_and_again_ends_and_lists_what_it_should() {
    let server = Server::start();
    let (relay, url) = behind_relay(&server);
    let plain = || unhurried(url.clone()).connections(16).max_sessions_per_subject(4);
    let near_cache = NearCache::new();
    for options in [plain(), plain().check_session_list(true), plain().near_cache(near_cache)] {
        let app = App::with(options).await;
        relay.cut_one_in(10);
        let mut jars = Vec::new();
        for number in 1..=28 {
            let mut jar = log_in(&app.store, "ada").await;
            app.ok("/add", &mut jar).await;
            let old = jar.clone();
            app.ok("/regenerate", &mut jar).await;
            assert_eq!(user(&app.store, &old).await, None);
            assert_eq!(user(&app.store, &jar).await.as_deref(), Some("ada"));
            jars.push(jar);
            let listed = app.store.sessions_of("ada").await.unwrap();
            assert_eq!(listed.len(), jars.len().min(4));
            if number % 7 == 0 {
                assert!(app.store.end_session_of("ada", listed[0].id).await.unwrap());
                assert_eq!(app.store.end_sessions_of("ada", Some(listed[3].id)).await.unwrap(), 2);
                let newest = jars.pop().unwrap();
                for jar in &jars {
                    assert_eq!(user(&app.store, jar).await, None);
                }
                jars = vec![newest];
            }
        }
        relay.cut_one_in(0);
        let stats = app.store.backend().stats();
        assert!(stats.failures == 0 && stats.connections_broken > 20, "{stats:?}");
        app.store.end_sessions_of("ada", None).await.unwrap();
    }
}

/// The response with the new token was lost, or slower than the logout. By scripts and by the server's own comparison, sealed, and
/// with sessions that stay in the process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1_a_logout_with_the_token_from_before_a_new_one_ends_the_session() {
    let server = Server::start();
    let plain = || unhurried(server.url());
    let sealed = plain().seal_records(AppKey::generate().unwrap());
    for options in [plain(), plain().scripts_only(), plain().near_cache(NearCache::new()), sealed] {
        let app = App::with(options).await;
        let mut jar = log_in(&app.store, "ada").await;
        let mut old = jar.clone();
        for _ in 0..2 {
            app.ok("/regenerate", &mut jar).await;
        }
        assert_eq!(user(&app.store, &jar).await.as_deref(), Some("ada"));
        app.ok("/logout", &mut old).await;
        assert_eq!(user(&app.store, &jar).await, None);

        let mut jar = log_in(&app.store, "ada").await;
        let old = app.store.sessions_of("ada").await.unwrap()[0].id;
        app.ok("/regenerate", &mut jar).await;
        assert!(app.store.end_session_of("ada", old).await.unwrap());
        assert_eq!(user(&app.store, &jar).await, None);
        assert_eq!(app.store.sessions_of("ada").await.unwrap(), []);
        server.cli(&["FLUSHALL"]);
    }
}
