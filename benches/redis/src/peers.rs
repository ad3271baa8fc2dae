//! The stores of other crates.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix_session::storage::{RedisSessionStore, SessionKey, SessionStore as _};
use axum_session::DatabasePool;
use axum_session_redis_bb8_pool::SessionRedisPool;
use bb8_redis::RedisConnectionManager;
use bb8_redis::bb8::Pool;
use hyper_session::{Clock, SystemClock};
use hyper_session_benches::services::{USER, VISITS, text};
use serde_json::{Value, json};
use tower_sessions_core::SessionStore;
use tower_sessions_core::session::{Id, Record};
use tower_sessions_redis_store::fred::prelude::{ClientLike, Config, Pool as FredPool};

use hyper_session_benches::stores::{StoreArm, operation};

use super::TASKS;

/// The connections of an arm that shares them: what `RedisStore` takes by default.
const SHARED: usize = 2;

/// Each of them, with sessions in the server on this port.
pub async fn arms(port: u16) -> Vec<StoreArm> {
    let url = format!("redis://127.0.0.1:{port}");
    vec![bb8_pool(&url, true).await, bb8_pool(&url, false).await, fred(port).await, actix(&url).await]
}

fn values() -> Value {
    json!({ "user": USER, "visits": VISITS, "text": text() })
}

fn add_one(value: &mut Value) {
    value["visits"] = json!(value["visits"].as_u64().unwrap() + 1);
}

/// axum_session's store on bb8: a connection is one task's until its command is answered. As shipped it is asked `PING` each
/// time.
async fn bb8_pool(url: &str, ping: bool) -> StoreArm {
    let manager = RedisConnectionManager::new(url).unwrap();
    let pool = Pool::builder()
        .test_on_check_out(ping)
        .connection_timeout(Duration::from_secs(30))
        .build(manager)
        .await
        .unwrap();
    let pool = SessionRedisPool::from(pool);
    let prefix = if ping { "ping" } else { "quiet" };
    let expires = i64::try_from(SystemClock.now().as_unix()).unwrap() + 86_400;
    for number in 0..TASKS[3] {
        pool.store(&format!("{prefix}{number}"), &values().to_string(), expires, "sessions").await.unwrap();
    }
    let other = pool.clone();
    let load = move |pool: SessionRedisPool, number: usize| async move {
        let id = format!("{prefix}{number}");
        let text = pool.load(&id, "sessions").await.unwrap().unwrap();
        serde_json::from_str::<Value>(&text).unwrap()
    };
    StoreArm {
        name: if ping { "axum_session bb8" } else { "axum_session bb8, no PING" },
        load: operation(move |number| {
            let value = load(pool.clone(), number);
            async move { assert_eq!(value.await["user"], USER) }
        }),
        change: operation(move |number| {
            let pool = other.clone();
            async move {
                let mut value = load(pool.clone(), number).await;
                add_one(&mut value);
                pool.store(&format!("{prefix}{number}"), &value.to_string(), expires, "sessions")
                    .await
                    .unwrap();
            }
        }),
    }
}

/// tower-sessions' store on fred, which shares its connections as we do.
async fn fred(port: u16) -> StoreArm {
    let config = Config::from_url(&format!("redis://127.0.0.1:{port}")).unwrap();
    let pool = FredPool::new(config, None, None, None, SHARED).unwrap();
    pool.connect();
    pool.wait_for_connect().await.unwrap();
    let store = tower_sessions_redis_store::RedisStore::new(pool);
    let mut ids: Vec<Id> = Vec::new();
    for _ in 0..TASKS[3] {
        let Value::Object(values) = values() else { unreachable!() };
        let mut record = Record {
            id: Id::default(),
            data: HashMap::from_iter(values),
            expiry_date: time::OffsetDateTime::now_utc() + time::Duration::days(1),
        };
        store.create(&mut record).await.unwrap();
        ids.push(record.id);
    }
    let (other, same) = (store.clone(), ids.clone());
    StoreArm {
        name: "tower-sessions-redis-store",
        load: operation(move |number| {
            let (store, id) = (store.clone(), ids[number]);
            async move { assert_eq!(store.load(&id).await.unwrap().unwrap().data["user"], USER) }
        }),
        change: operation(move |number| {
            let (store, id) = (other.clone(), same[number]);
            async move {
                let mut record = store.load(&id).await.unwrap().unwrap();
                let visits = record.data["visits"].as_u64().unwrap();
                record.data.insert("visits".to_owned(), json!(visits + 1));
                store.save(&record).await.unwrap();
            }
        }),
    }
}

/// actix-session's store: one connection that all tasks share, by an older release of the client that ours uses. A session is a
/// map of JSON texts in a JSON text.
async fn actix(url: &str) -> StoreArm {
    let store = RedisSessionStore::builder(url).build().await.unwrap();
    let expires = actix_web::cookie::time::Duration::days(1);
    let mut keys = Vec::new();
    for _ in 0..TASKS[3] {
        let Value::Object(values) = values() else { unreachable!() };
        let state = values.into_iter().map(|(key, value)| (key, value.to_string())).collect();
        keys.push(String::from(store.save(state, &expires).await.unwrap()));
    }
    let (store, keys) = (Arc::new(store), Arc::new(keys));
    let (other, same) = (store.clone(), keys.clone());
    let key = |text: &str| SessionKey::try_from(text.to_owned()).unwrap();
    StoreArm {
        name: "actix-session",
        load: operation(move |number| {
            let (store, key) = (store.clone(), key(&keys[number]));
            async move {
                let state = store.load(&key).await.unwrap().unwrap();
                assert_eq!(serde_json::from_str::<String>(&state["user"]).unwrap(), USER);
            }
        }),
        change: operation(move |number| {
            let (store, key) = (other.clone(), key(&same[number]));
            async move {
                let mut state = store.load(&key).await.unwrap().unwrap();
                let visits: u64 = serde_json::from_str(&state["visits"]).unwrap();
                state.insert("visits".to_owned(), json!(visits + 1).to_string());
                store.update(key, state, &expires).await.unwrap();
            }
        }),
    }
}
