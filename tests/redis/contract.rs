//! The backend's contract, the names of entries, and what each verb costs.

use std::time::Duration;

use hyper_session::store::redis::Redis;
use hyper_session::store::{Backend, Builder, ServerStore};
use hyper_session::testing::check_backend;
use hyper_session::{Clock, SystemClock};

use crate::server::Server;

pub(crate) fn builder(server: &Server) -> Builder<hyper_session::store::redis::RedisOptions> {
    crate::app::builder(server.url())
}

#[tokio::test]
async fn redis_keeps_the_contract() {
    let server = Server::start();
    let store = builder(&server).connect().await.unwrap();
    check_backend(store.backend(), SystemClock.now()).await;
}

#[tokio::test]
async fn a_pool_of_the_applications_own_does_as_well() {
    let server = Server::start();
    let manager = bb8_redis::RedisConnectionManager::new(server.url()).unwrap();
    let pool = bb8_redis::bb8::Pool::builder().max_size(2).build(manager).await.unwrap();
    let store = ServerStore::with_backend(Redis::from_pool(pool, "test").unwrap()).build().unwrap();
    check_backend(store.backend(), SystemClock.now()).await;
}

#[tokio::test]
async fn redis_forgets_what_is_over() {
    let server = Server::start();
    let store = builder(&server).connect().await.unwrap();
    let (id, now) = (hyper_session::store::EntryId::from_bytes([7; 16]), SystemClock.now());
    let entry = hyper_session::store::Stored {
        value: "x".into(),
        expires: now.saturating_add(Duration::from_secs(60)),
    };
    assert!(store.backend().create(id, entry, now).await.unwrap());
    let key = "test:07070707070707070707070707070707";
    let left = |server: &Server| server.cli(&["PTTL", key]).parse::<u64>().unwrap();
    assert!((59_000..=60_000).contains(&left(&server)), "{}", left(&server));
    let later = now.saturating_add(Duration::from_secs(600));
    assert!(store.backend().touch(id, later, now).await.unwrap());
    assert!((599_000..=600_000).contains(&left(&server)), "{}", left(&server));
}
