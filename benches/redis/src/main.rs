//! Sessions in a real Redis on the loopback interface: loading one, and changing one value of it, at 1 to 256 tasks. Each
//! task has a session of its own. Prints one JSON object a line.
//!
//! `hyper-session-benches-redis [--quick] [--arm=NAME] [--scripts-only] [CASE]...`, where a case is `load/256`, or `change/1`;
//! all of them by default. A single arm is for a profiler. The server is `redis-server`, or what `HYPER_SESSION_REDIS_SERVER`
//! names; by `--scripts-only` the store does not use a server's own compare-and-set.

use std::collections::HashMap;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_session::storage::{RedisSessionStore, SessionKey, SessionStore as _};
use axum_session::DatabasePool;
use axum_session_redis_bb8_pool::SessionRedisPool;
use bb8_redis::RedisConnectionManager;
use bb8_redis::bb8::Pool;
use hyper_session::{Clock, RedisStore, SystemClock};
use hyper_session_benches::results::RedisRun;
use hyper_session_benches::services::{USER, VISITS, text};
use hyper_session_benches::stores::{StoreArm, median, operation, run};
use serde_json::{Value, json};
use tower_sessions_core::SessionStore;
use tower_sessions_core::session::{Id, Record};
use tower_sessions_redis_store::fred::prelude::{ClientLike, Config, Pool as FredPool};

const TASKS: [usize; 4] = [1, 16, 64, 256];

/// The connections of an arm that shares them: what `RedisStore` takes by default.
const SHARED: usize = 2;

#[tokio::main(worker_threads = 2)]
async fn main() {
    let (flags, cases): (Vec<_>, Vec<_>) =
        std::env::args().skip(1).partition(|argument| argument.starts_with("--"));
    let quick = flags.iter().any(|flag| flag == "--quick");
    let server = Server::start();
    let mut arms = vec![
        bare(&server.url()).await,
        ours(&server.url(), flags.iter().any(|flag| flag == "--scripts-only")).await,
        bb8_pool(&server.url(), true).await,
        bb8_pool(&server.url(), false).await,
        fred(server.port).await,
        actix(&server.url()).await,
    ];
    if let Some(name) = flags.iter().find_map(|flag| flag.strip_prefix("--arm=")) {
        arms.retain(|arm| arm.name == name);
    }
    let (rounds, duration) = if quick { (1, 0.02) } else { (10, 0.5) };
    let duration = Duration::from_secs_f64(duration);
    let mut monitor =
        redis::Client::open(server.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    for change in [false, true] {
        for tasks in TASKS {
            let name = if change { "change" } else { "load" };
            if !cases.is_empty() && !cases.contains(&format!("{name}/{tasks}")) {
                continue;
            }
            let mut runs = vec![Vec::new(); arms.len()];
            let mut commands = vec![0.0; arms.len()];
            for round in 0..rounds {
                // Each round begins with a different arm, so that no arm always runs after the same one.
                for place in (0..arms.len()).map(|turn| (turn + round) % arms.len()) {
                    let arm = &arms[place];
                    let operation = if change { &arm.change } else { &arm.load };
                    let before = processed(&mut monitor).await;
                    let (done, seconds) = run(operation, tasks, tasks, duration).await;
                    // The question itself is a command, too.
                    commands[place] = (processed(&mut monitor).await - before - 1) as f64 / done as f64;
                    runs[place].push(done as f64 / seconds);
                }
            }
            for ((arm, rounds), commands) in arms.iter().zip(runs).zip(commands) {
                let result = RedisRun {
                    operation: name.to_owned(),
                    tasks,
                    arm: arm.name.to_owned(),
                    per_second: median(&rounds),
                    rounds,
                    commands,
                };
                println!("{}", serde_json::to_string(&result).unwrap());
            }
        }
    }
}

/// One multiplexed connection: `GET`, and `GET` then `SET`, of as many bytes, without a look at them.
async fn bare(url: &str) -> StoreArm {
    let connection = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    for number in 0..TASKS[3] {
        let mut connection = connection.clone();
        let () = redis::cmd("SET")
            .arg(format!("bare:{number}"))
            .arg(vec![b'x'; 270])
            .query_async(&mut connection)
            .await
            .unwrap();
    }
    let other = connection.clone();
    StoreArm {
        name: "bare",
        load: operation(move |number| {
            let mut connection = connection.clone();
            async move {
                let value: Vec<u8> = redis::cmd("GET")
                    .arg(format!("bare:{number}"))
                    .query_async(&mut connection)
                    .await
                    .unwrap();
                assert_eq!(value.len(), 270);
            }
        }),
        change: operation(move |number| {
            let mut connection = other.clone();
            async move {
                let key = format!("bare:{number}");
                let value: Vec<u8> = redis::cmd("GET").arg(&key).query_async(&mut connection).await.unwrap();
                let () = redis::cmd("SET")
                    .arg(&key)
                    .arg(value)
                    .arg("EX")
                    .arg(86_400)
                    .query_async(&mut connection)
                    .await
                    .unwrap();
            }
        }),
    }
}

async fn ours(url: &str, scripts_only: bool) -> StoreArm {
    let mut builder = RedisStore::builder(url).prefix("bench:session");
    if scripts_only {
        builder = builder.scripts_only();
    }
    StoreArm::ours("hyper-session", builder.connect().await.unwrap(), TASKS[3]).await
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

/// Commands that the server has processed so far; those inside of a script count, too.
async fn processed(connection: &mut redis::aio::MultiplexedConnection) -> u64 {
    let info: String = redis::cmd("INFO").arg("stats").query_async(connection).await.unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix("total_commands_processed:")).unwrap();
    line.trim().parse().unwrap()
}

/// A Redis without persistence, which ends with this program.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let program =
            std::env::var("HYPER_SESSION_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        let child = Command::new(program)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(10), "redis-server does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, port }
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
