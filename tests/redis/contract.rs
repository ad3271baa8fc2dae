//! The backend's contract, the names of entries, and what each verb costs.

use std::time::Duration;

use hyper_session::store::redis::Redis;
use hyper_session::store::{Backend, Builder, EntryId, Replaced, Stored};
use hyper_session::testing::check_backend;
use hyper_session::{Clock, ServerStore, SystemClock};

use crate::server::Server;
use crate::support::UNHURRIED;

pub(crate) fn builder(server: &Server) -> Builder<hyper_session::store::redis::RedisOptions> {
    crate::app::builder(server.url())
}

/// By scripts, and by the server's own compare-and-set where it has it.
#[tokio::test]
async fn redis_keeps_the_contract_in_both_ways() {
    let server = Server::start();
    for builder in [builder(&server), builder(&server).scripts_only()] {
        let store = builder.connect().await.unwrap();
        server.cli(&["CONFIG", "RESETSTAT"]);
        check_backend(store.backend(), SystemClock.now()).await;
    }
    assert!(server.command_counts().contains_key("evalsha"));
    let store = builder(&server).connect().await.unwrap();
    server.cli(&["CONFIG", "RESETSTAT"]);
    check_backend(store.backend(), SystemClock.now()).await;
    assert_eq!(server.command_counts().contains_key("evalsha"), !server.compares_and_sets());
}

/// Renewals of other requests move the deadline between a load and its save: this does not count as a conflict.
#[tokio::test]
async fn a_renewal_between_is_no_conflict_in_both_ways() {
    let server = Server::start();
    for builder in [builder(&server), builder(&server).scripts_only()] {
        let store = builder.connect().await.unwrap();
        let (backend, now) = (store.backend(), SystemClock.now());
        let at = |value: &'static str, seconds| Stored {
            value: value.into(),
            expires: now.saturating_add(Duration::from_secs(seconds)),
        };
        let id = EntryId::from_bytes([9; 16]);
        backend.delete(id).await.unwrap();
        assert!(backend.create(id, at("one", 60), now).await.unwrap());
        let renewed = backend.exchange(id, at("one", 60), Some(at("one", 90)), now).await.unwrap();
        assert_eq!(renewed, Replaced::Done);
        let saved = backend.exchange(id, at("one", 60), Some(at("two", 100)), now).await.unwrap();
        assert_eq!(saved, Replaced::Done);
        assert_eq!(backend.fetch(id, now).await.unwrap(), Some(at("two", 100)));
        // Renewing what has changed renews nothing, and tells what is there.
        let renewed = backend.exchange(id, at("one", 60), Some(at("one", 200)), now).await.unwrap();
        assert_eq!(renewed, Replaced::Conflict(at("two", 100)));
        assert_eq!(backend.exchange(id, at("two", 1), None, now).await.unwrap(), Replaced::Done);
        assert_eq!(backend.fetch(id, now).await.unwrap(), None);
        let renewed = backend.exchange(id, at("two", 100), Some(at("two", 200)), now).await.unwrap();
        assert_eq!(renewed, Replaced::Missing);
    }
}

#[tokio::test]
async fn a_pool_of_the_applications_own_does_as_well() {
    let server = Server::start();
    let manager = bb8_redis::RedisConnectionManager::new(server.url()).unwrap();
    let pool = bb8_redis::bb8::Pool::builder().max_size(2).build(manager).await.unwrap();
    for (checkout, command) in [(Duration::ZERO, UNHURRIED), (UNHURRIED, Duration::ZERO)] {
        let backend = Redis::from_pool(pool.clone(), "test").unwrap();
        assert!(backend.with_timeouts(checkout, command).unwrap_err().is_config());
    }
    let backend = Redis::from_pool(pool, "test").unwrap().with_timeouts(UNHURRIED, UNHURRIED).unwrap();
    let store = ServerStore::with_backend(backend).build().unwrap();
    check_backend(store.backend(), SystemClock.now()).await;
}

#[tokio::test]
async fn redis_forgets_an_entry_a_quarter_of_an_hour_after_it_expired() {
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
    assert!((901_000..=960_000).contains(&left(&server)), "{}", left(&server));
    let later = now.saturating_add(Duration::from_secs(600));
    assert!(store.backend().touch(id, later, now).await.unwrap());
    assert!((1_401_000..=1_500_000).contains(&left(&server)), "{}", left(&server));
}

/// An entry that has expired and is still kept does not block a create: the session list of a user who comes back has the id
/// that it had before.
#[tokio::test]
async fn b5_an_expired_entry_that_is_kept_can_be_created_again() {
    let server = Server::start();
    let store = builder(&server).connect().await.unwrap();
    let (id, now) = (hyper_session::store::EntryId::from_bytes([8; 16]), SystemClock.now());
    let entry = |value: &'static str, seconds| hyper_session::store::Stored {
        value: value.into(),
        expires: now.saturating_add(Duration::from_secs(seconds)),
    };
    assert!(store.backend().create(id, entry("old", 60), now).await.unwrap());
    assert!(!store.backend().create(id, entry("new", 600), now).await.unwrap(), "it is alive");
    // A minute later.
    let key = "test:08080808080808080808080808080808";
    assert_eq!(server.cli(&["PEXPIRE", key, "900000"]), "1");
    let later = now.saturating_add(Duration::from_secs(60));
    assert_eq!(store.backend().fetch(id, later).await.unwrap(), None);
    assert!(store.backend().create(id, entry("new", 600), later).await.unwrap());
    assert_eq!(store.backend().fetch(id, later).await.unwrap().unwrap().value, "new");
}
