//! A Redis that Astra filled, by hand-written commands: real servers, started by the tests.

use std::time::Duration;

use hyper_session::__internals::Verbs;
use hyper_session::cookie::CookieOptions;
use hyper_session::store::redis::{Redis, RedisOptions};
use hyper_session::store::{Backend, Builder};
use hyper_session::testing::{FakeClock, check_backend};
use hyper_session::{
    Clock, Error, RedisStore, Refusal, ServerStore, Session, SessionHandle, SystemClock, session_fn,
};
use serde_json::{Value, json};

use crate::go_peer::NAME;
use crate::server::{Server, unhurried};
use crate::support::{Body, Events, Jar, UNHURRIED, set_cookies, status, visit};

const ID: &str = "00112233445566778899aabbccddeeff";
const KEY: &str = "astra:session:00112233445566778899aabbccddeeff";

fn builder(server: &Server) -> Builder<RedisOptions> {
    unhurried(RedisStore::builder(server.url()).cookie(CookieOptions::astra()).beside_astra())
}

async fn connect(server: &Server) -> RedisStore {
    builder(server).connect().await.unwrap()
}

/// One request of this browser: the Set-Cookie lines.
async fn edit<A>(store: &RedisStore, jar: &mut Jar, act: A) -> (u16, Vec<String>)
where
    A: Fn(&Session) -> Result<(), Error> + Clone + Send + Sync + 'static,
{
    let service = session_fn(store.clone(), move |_: http::Request<Body>, session: SessionHandle| {
        let act = act.clone();
        async move {
            act(&session.load().await?)?;
            Ok::<_, Error>(status(200))
        }
    });
    let response = visit(&service, "/", jar).await;
    (response.status().as_u16(), set_cookies(response.headers()))
}

fn jar() -> Jar {
    Jar::with(NAME, ID)
}

/// The value under `key`, decoded as JSON: the decoder takes all of it, or the test fails.
fn decoded(server: &Server, key: &str) -> Value {
    let text = server.cli(&["GET", key]);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
}

fn ttl(server: &Server) -> u64 {
    server.cli(&["TTL", KEY]).parse().unwrap()
}

#[tokio::test]
async fn what_astra_stored_loads_changes_and_is_plain_json_again() {
    let server = Server::start();
    let json = r#"{"big":9007199254740991,"cart":[1,2.5,null],"f":622728.3173637044,"m":{},"text":"\u003cb\u003e\u2028é","user":"ada","visits":41}"#;
    assert_eq!(server.cli(&["SET", KEY, json, "EX", "1000"]), "OK");
    // The clock stands still, so that `Max-Age` is whole.
    let clock = FakeClock::at(SystemClock.now().as_unix());
    let store = builder(&server).clock(clock).connect().await.unwrap();
    let (_, lines) = edit(&store, &mut jar(), |session| {
        assert_eq!(session.get_str("user")?.as_deref(), Some("ada"));
        assert_eq!(session.get_str("text")?.as_deref(), Some("<b>\u{2028}é"));
        session.update("visits", |old: Option<i64>| old.unwrap_or(0) + 1).map(drop)
    })
    .await;
    assert_eq!(lines, [format!("{NAME}={ID}; Max-Age=86400; Path=/; Secure; HttpOnly; SameSite=Lax")]);
    assert_eq!(server.cli(&["GET", KEY]).trim_ascii_end(), json.replace("41", "42"));
    assert!(decoded(&server, KEY)["visits"].is_u64(), "a number stays one");
    assert!((86_000..=86_400).contains(&ttl(&server)), "a save sets the whole time to live again");

    // Go writes over it, whatever was there.
    server.cli(&["SET", KEY, r#"{"user":"ada","visits":50.0}"#, "EX", "1000"]);
    edit(&store, &mut jar(), |session| {
        assert_eq!(session.get_i64("visits")?, Some(50));
        Ok(())
    })
    .await;
    assert_eq!(server.cli(&["GET", KEY]), r#"{"user":"ada","visits":50.0}"#, "reading writes nothing");
    assert!(ttl(&server) <= 1_000);
}

#[tokio::test]
async fn sessions_end_when_redis_says_so() {
    let server = Server::start();
    let events = Events::new();
    let store = builder(&server).observer(events.clone()).connect().await.unwrap();
    server.cli(&["SET", KEY, r#"{"user":"ada"}"#, "EX", "1000"]);
    let now = SystemClock.now();
    let record = store.load(ID.as_bytes(), now).await.unwrap().unwrap();
    let left = record.expires().saturating_since(now);
    assert!((Duration::from_secs(900)..=Duration::from_secs(1_000)).contains(&left), "{left:?}");

    assert_eq!(server.cli(&["PEXPIREAT", KEY, "1"]), "1");
    let (_, lines) = edit(&store, &mut jar(), |session| {
        assert!(session.is_empty());
        Ok(())
    })
    .await;
    assert_eq!(events.take(), ["refused:unknown_id"]);
    assert!(lines[0].starts_with("astra_session=; Max-Age=0"), "{lines:?}");

    // An entry without a deadline, which Astra does not write, is a session as well.
    server.cli(&["SET", KEY, r#"{"user":"ada"}"#]);
    assert_eq!(edit(&store, &mut jar(), |session| session.set("n", 1)).await.0, 200);
    assert!((86_000..=86_400).contains(&ttl(&server)));
}

#[tokio::test]
async fn reading_renews_where_a_threshold_is_asked_for() {
    let server = Server::start();
    let store = builder(&server).renewal_threshold(Duration::from_secs(60)).connect().await.unwrap();
    server.cli(&["SET", KEY, r#"{"user":"ada"}"#, "EX", "1000"]);
    assert_eq!(edit(&store, &mut jar(), |session| session.get_str("user").map(drop)).await.1.len(), 1);
    assert_eq!(server.cli(&["GET", KEY]), r#"{"user":"ada"}"#);
    assert!((86_000..=86_400).contains(&ttl(&server)));
}

// T32, T39
#[tokio::test]
async fn t32_t39_unknown_ids_are_never_adopted() {
    let server = Server::start();
    let store = connect(&server).await;
    let mut browser = jar();
    edit(&store, &mut browser, |session| session.set("user", "ada")).await;
    let id = browser.get(NAME).unwrap();
    assert_ne!(id, ID);
    assert_eq!(server.cli(&["KEYS", "*"]), format!("astra:session:{id}"));
    assert_eq!(decoded(&server, &format!("astra:session:{id}")), json!({"user": "ada"}));
}

#[tokio::test]
async fn what_go_changed_meanwhile_is_merged_and_what_it_ended_stays_ended() {
    let server = std::sync::Arc::new(Server::start());
    let events = Events::new();
    let store = builder(&server).observer(events.clone()).connect().await.unwrap();
    server.cli(&["SET", KEY, r#"{"visits":1}"#, "EX", "1000"]);
    let go = std::sync::Arc::clone(&server);
    edit(&store, &mut jar(), move |session| {
        go.cli(&["SET", KEY, r#"{"big":9007199254740993,"visits":2}"#, "EX", "1000"]);
        session.update("visits", |old: Option<i64>| old.unwrap_or(0) + 1).map(drop)
    })
    .await;
    assert_eq!(server.cli(&["GET", KEY]).trim_ascii_end(), r#"{"big":9007199254740993,"visits":3}"#);
    assert_eq!(events.take(), ["conflict_merged:1"]);

    let go = std::sync::Arc::clone(&server);
    edit(&store, &mut jar(), move |session| {
        go.cli(&["DEL", KEY]);
        session.set("late", 1)
    })
    .await;
    assert_eq!(server.cli(&["EXISTS", KEY]), "0");
    assert_eq!(events.take(), ["dropped:session_ended"]);
}

// Two processes, and requests of one session at once, each of which makes the same JSON of the same JSON.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_increment_is_lost() {
    let server = Server::start();
    server.cli(&["SET", KEY, r#"{"visits":0}"#, "EX", "1000"]);
    let stores = [connect(&server).await, connect(&server).await];
    let requests: Vec<_> = (0..100)
        .map(|n| {
            let store = stores[n % 2].clone();
            tokio::spawn(async move {
                let count = |session: &Session| {
                    session.update("visits", |old: Option<i64>| old.unwrap_or(0) + 1).map(drop)
                };
                edit(&store, &mut jar(), count).await.0
            })
        })
        .collect();
    for request in requests {
        assert_eq!(request.await.unwrap(), 200);
    }
    assert_eq!(decoded(&server, KEY), json!({"visits": 100}));
}

#[tokio::test]
async fn everything_in_redis_is_json_whatever_was_done() {
    let server = Server::start();
    let store = connect(&server).await;
    server.cli(&["SET", KEY, r#"{"user":"ada"}"#, "EX", "1000"]);
    let mut browser = jar();
    edit(&store, &mut browser, |session| session.login("ada")).await;
    edit(&store, &mut browser, |session| session.set_flash("success", "Saved.")).await;
    edit(&store, &mut browser, Session::regenerate).await;
    let failed =
        edit(&store, &mut browser, |session| session.set("blob", bytes::Bytes::from_static(b"\xff"))).await;
    assert_eq!(failed, (500, Vec::new()));
    let mut other = Jar::new();
    edit(&store, &mut other, |session| session.set("n", 1.0)).await;
    edit(&store, &mut other, Session::destroy).await;

    let keys = server.cli(&["KEYS", "*"]);
    let mut objects = 0;
    for key in keys.lines() {
        assert!(key.starts_with("astra:session:"), "{key}");
        assert_eq!(server.cli(&["TYPE", key]), "string");
        match decoded(&server, key) {
            Value::String(mark) => assert_eq!(mark, "regenerated"),
            mut object => {
                assert!(object["\u{1}a"].is_u64(), "the time of the login: {object}");
                object.as_object_mut().unwrap().remove("\u{1}a");
                assert_eq!(object, json!({"\u{1}s": "ada", "success": "Saved.", "user": "ada"}));
                objects += 1;
            }
        }
    }
    assert_eq!((keys.lines().count(), objects), (3, 1), "{keys}");
}

#[tokio::test]
async fn what_is_no_session_of_astra_is_left_alone() {
    let server = Server::start();
    let events = Events::new();
    let store = builder(&server).max_entry_len(100).observer(events.clone()).connect().await.unwrap();
    server.cli(&["SET", KEY, "[1]", "EX", "1000"]);
    edit(&store, &mut jar(), |session| session.get_str("user").map(drop)).await;
    assert_eq!(events.take(), ["refused:payload"]);
    assert_eq!(server.cli(&["GET", KEY]), "[1]");
    // No cookie is cleared for an entry that is not a string, or that is too long.
    for command in [vec!["HSET", "other", "a", "1"], vec!["SET", "huge", &"x".repeat(200)]] {
        server.cli(&command);
        server.cli(&["RENAME", command[1], KEY]);
        let loaded = store.load(ID.as_bytes(), SystemClock.now()).await;
        assert_eq!(loaded.unwrap().unwrap_err(), Refusal::Unreadable, "{command:?}");
        assert!(!Refusal::Unreadable.removes_cookie());
    }
}

#[tokio::test]
async fn plain_entries_keep_the_contract_of_backends() {
    let server = Server::start();
    check_backend(connect(&server).await.backend(), SystemClock.now()).await;
}

#[tokio::test]
async fn a_pool_and_a_prefix_of_the_applications_own_do_as_well() {
    let server = Server::start();
    let manager = bb8_redis::RedisConnectionManager::new(server.url()).unwrap();
    let pool = bb8_redis::bb8::Pool::builder().max_size(2).build(manager).await.unwrap();
    let redis = Redis::from_pool(pool, "shop").unwrap().with_timeouts(UNHURRIED, UNHURRIED).unwrap().plain();
    let store =
        ServerStore::with_backend(redis).cookie(CookieOptions::astra()).beside_astra().build().unwrap();
    let key = format!("shop:{ID}");
    server.cli(&["SET", &key, r#"{"user":"ada"}"#, "EX", "1000"]);
    let record = store.load(ID.as_bytes(), SystemClock.now()).await.unwrap().unwrap();
    store.backend().delete(ID.parse().unwrap()).await.unwrap();
    assert_eq!(server.cli(&["EXISTS", &key]), "0");
    drop(record);
}
