//! Sessions that Astra stores, on a backend in this process: ids, JSON, time to live, and other writers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper_session::__internals::Verbs;
use hyper_session::cookie::CookieOptions;
use hyper_session::store::{Backend, Builder, Memory, Stored};
use hyper_session::testing::FakeClock;
use hyper_session::{Error, ServerStore, Session, SessionHandle, SessionId, Timestamp, session_fn};

use crate::go_peer::{NAME, START};
use crate::support::{Body, Events, Jar, block_on, set_cookies, status, visit};

const ID: &str = "00112233445566778899aabbccddeeff";
const DAY: u64 = 86_400;

struct World {
    store: ServerStore<Arc<Memory>>,
    rows: Arc<Memory>,
    clock: FakeClock,
    events: Events,
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_unix(seconds)
}

impl World {
    fn new() -> Self {
        Self::with(|builder| builder)
    }

    fn with(options: impl Fn(Builder<Arc<Memory>>) -> Builder<Arc<Memory>>) -> Self {
        let (clock, events, rows) = (FakeClock::at(START), Events::new(), Arc::new(Memory::new()));
        let builder = ServerStore::with_backend(Arc::clone(&rows)).cookie(CookieOptions::astra());
        let builder = builder.clock(clock.clone()).observer(events.clone()).beside_astra();
        Self { store: options(builder).build().unwrap(), rows, clock, events }
    }

    /// Astra's own `SET key value EX ttl`.
    fn set(&self, id: &str, json: &str) {
        let now = hyper_session::Clock::now(&self.clock);
        let entry = Stored {
            value: Bytes::copy_from_slice(json.as_bytes()),
            expires: now.saturating_add(Duration::from_secs(DAY)),
        };
        block_on(async {
            self.rows.delete(id.parse()?).await?;
            assert!(self.rows.create(id.parse()?, entry, now).await?);
            Ok::<_, Error>(())
        })
        .unwrap();
    }

    /// Astra's own `GET key`, and when it will be gone.
    fn get(&self, id: &str) -> Option<(String, Timestamp)> {
        let row = block_on(self.rows.fetch(id.parse().unwrap(), hyper_session::Clock::now(&self.clock)));
        row.unwrap().map(|row| (String::from_utf8(row.value.to_vec()).unwrap(), row.expires))
    }

    /// Without the white space behind it, which Go skips.
    fn json(&self, id: &str) -> Option<String> {
        self.get(id).map(|(json, _)| json.trim_ascii_end().to_owned())
    }

    fn visit<A>(&self, jar: &mut Jar, act: A) -> (u16, Vec<String>)
    where
        A: Fn(&Session) -> Result<(), Error> + Clone + Send + Sync + 'static,
    {
        let service =
            session_fn(self.store.clone(), move |_: http::Request<Body>, session: SessionHandle| {
                let act = act.clone();
                async move {
                    act(&session.load().await?)?;
                    Ok::<_, Error>(status(200))
                }
            });
        let response = block_on(visit(&service, "/", jar));
        (response.status().as_u16(), set_cookies(response.headers()))
    }
}

fn jar() -> Jar {
    Jar::with(NAME, ID)
}

#[test]
fn what_astra_stored_is_loaded_changed_and_left_as_plain_json() {
    let world = World::new();
    world.set(ID, r#"{"cart":[1,2.5],"user":"ada","visits":41}"#);
    let (_, lines) = world.visit(&mut jar(), |session| {
        assert_eq!(session.get_str("user")?.as_deref(), Some("ada"));
        session.update("visits", |old: Option<i64>| old.unwrap_or(0) + 1)?;
        session.set("note", "<b>")
    });
    assert_eq!(
        lines,
        [format!("{NAME}={ID}; Max-Age=86400; Path=/; Secure; HttpOnly; SameSite=Lax")],
        "the id stays, as in Astra"
    );
    assert_eq!(
        world.json(ID).unwrap(),
        r#"{"cart":[1,2.5],"note":"\u003cb\u003e","user":"ada","visits":42}"#
    );
}

#[test]
fn a_new_session_has_an_id_of_astras_form_and_plain_json() {
    let world = World::new();
    let mut jar = Jar::new();
    world.visit(&mut jar, |session| session.set("user", "ada"));
    let id = jar.get(NAME).unwrap().to_owned();
    assert!(id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{id}");
    assert_eq!(world.json(&id).unwrap(), r#"{"user":"ada"}"#);
    // A session of Astra that was emptied by its last delete is removed, not stored as {}.
    world.visit(&mut jar, |session| session.delete("user").map(drop));
    assert_eq!((world.json(&id), jar.get(NAME)), (None, None));
}

// T32, T39: Astra adopts whatever id a client brings; nothing here does, and most is not even looked up.
#[test]
fn t32_t39_unknown_ids_are_never_adopted() {
    let world = World::new();
    let planted = "deadbeefdeadbeefdeadbeefdeadbeef";
    let mut jar = Jar::with(NAME, planted);
    world.visit(&mut jar, |session| session.set("user", "ada"));
    assert_eq!(world.events.take(), ["refused:unknown_id"]);
    assert_ne!(jar.get(NAME), Some(planted));
    assert_eq!(world.json(planted), None);
    for bad in [
        "",
        "admin",
        &ID.to_uppercase(),
        &ID[1..],
        &format!("{ID}0"),
        "*",
        "../../etc/passwd",
        "astra:session:x",
    ] {
        let loaded = block_on(world.store.load(bad.as_bytes(), at(START))).unwrap();
        assert_eq!(loaded.unwrap_err(), hyper_session::Refusal::Encoding, "{bad:?}");
    }
}

// T75: the id that Astra stores is the secret itself, so the id for the logs is a different one.
#[test]
fn t75_the_public_id_does_not_tell_the_secret() {
    let world = World::new();
    world.set(ID, r#"{"user":"ada"}"#);
    world.visit(&mut jar(), |session| {
        let id = session.id().unwrap();
        assert_ne!(id, ID.parse::<SessionId>().unwrap());
        assert!(!format!("{session:?}").contains("00112233"));
        Ok(())
    });
    let record = block_on(world.store.load(ID.as_bytes(), at(START))).unwrap().unwrap();
    assert!(!format!("{record:?}").contains("00112233"));
}

#[test]
fn saving_renews_the_time_to_live_and_reading_does_not() {
    let world = World::new();
    world.set(ID, r#"{"user":"ada"}"#);
    world.clock.set(START + DAY / 2);
    assert!(world.visit(&mut jar(), |session| session.get_str("user").map(drop)).1.is_empty());
    assert_eq!(world.get(ID).unwrap().1, at(START + DAY));
    world.visit(&mut jar(), |session| session.set("n", 0));
    assert_eq!(world.get(ID).unwrap().1, at(START + DAY / 2 + DAY));
    // As in Astra, there is no other end to it.
    for day in 1..20 {
        world.clock.set(START + day * (DAY - 1));
        assert_eq!(world.visit(&mut jar(), move |session| session.set("n", day)).0, 200);
    }
    assert_eq!(world.json(ID).unwrap(), r#"{"n":19,"user":"ada"}"#);
    world.clock.set(START + 19 * (DAY - 1) + DAY);
    world.visit(&mut jar(), |session| {
        assert!(session.is_empty());
        Ok(())
    });
    assert_eq!(world.events.take(), ["refused:unknown_id"]);
}

#[test]
fn reading_renews_where_a_threshold_is_asked_for() {
    let world = World::with(|builder| builder.renewal_threshold(Duration::from_secs(3_600)));
    world.set(ID, r#"{"user":"ada"}"#);
    world.clock.set(START + DAY / 2);
    assert_eq!(world.visit(&mut jar(), |session| session.get_str("user").map(drop)).1.len(), 1);
    let (json, expires) = world.get(ID).unwrap();
    assert_eq!(
        (&*json, expires),
        (r#"{"user":"ada"}"#, at(START + DAY / 2 + DAY)),
        "the value is not rewritten"
    );
}

#[test]
fn what_go_changed_meanwhile_is_merged_and_what_it_ended_stays_ended() {
    let world = Arc::new(World::new());
    world.set(ID, r#"{"user":"ada","visits":1}"#);
    let go = Arc::clone(&world);
    world.visit(&mut jar(), move |session| {
        // While this handler runs, Go serves another request of the same user.
        std::thread::scope(|scope| {
            scope.spawn(|| go.set(ID, r#"{"big":9007199254740993,"theme":"dark","user":"ada","visits":2}"#));
        });
        session.update("visits", |old: Option<i64>| old.unwrap_or(0) + 1).map(drop)
    });
    assert_eq!(world.json(ID).unwrap(), r#"{"big":9007199254740993,"theme":"dark","user":"ada","visits":3}"#);
    assert_eq!(world.events.take(), ["conflict_merged:1"]);

    let go = Arc::clone(&world);
    world.visit(&mut jar(), move |session| {
        std::thread::scope(|scope| {
            scope.spawn(|| block_on(go.rows.delete(ID.parse().unwrap())).unwrap());
        });
        session.set("late", 1)
    });
    assert_eq!(world.json(ID), None, "a slow request brings no session back");
    assert_eq!(world.events.take(), ["dropped:session_ended"]);
}

// Both requests make the same JSON of the same JSON: that it is there already must not look like success.
#[test]
fn two_requests_that_do_the_same_are_both_counted() {
    let world = Arc::new(World::new());
    world.set(ID, r#"{"visits":41}"#);
    let other = Arc::clone(&world);
    let count =
        |session: &Session| session.update("visits", |old: Option<i64>| old.unwrap_or(0) + 1).map(drop);
    world.visit(&mut jar(), move |session| {
        std::thread::scope(|scope| {
            scope.spawn(|| other.visit(&mut jar(), count));
        });
        count(session)
    });
    assert_eq!(world.json(ID).unwrap(), r#"{"visits":43}"#);
    assert_eq!(world.events.take(), ["conflict_merged:1"]);
}

#[test]
fn values_are_json_and_white_space_that_tells_writes_apart() {
    let world = World::new();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let mut jar = Jar::new();
        world.visit(&mut jar, |session| session.set("a", 1));
        let (value, _) = world.get(jar.get(NAME).unwrap()).unwrap();
        let (json, space) = value.split_at(7);
        assert_eq!(json, r#"{"a":1}"#);
        assert!(space.len() == 32 && space.bytes().all(|byte| byte == b' ' || byte == b'\t'), "{space:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&value).unwrap(), serde_json::json!({"a": 1}));
        assert!(seen.insert(value), "two writes that look the same");
    }
}

#[test]
fn what_does_not_go_together_does_not_build() {
    let keys = crate::go_peer::key(b"a key for records");
    let builder = ServerStore::with_backend(Memory::new()).seal_records(keys).beside_astra();
    let error = builder.build().unwrap_err();
    assert!(error.is_config() && error.to_string().contains("seal_records()"), "{error}");
    let builder = ServerStore::with_backend(Memory::new()).linked_cookie("__Host-admin").beside_astra();
    let error = builder.build().unwrap_err();
    assert!(error.is_config() && error.to_string().contains("linked_cookie()"), "{error}");
}

// A list of a subject's sessions would hold what logs in, and miss those of Astra.
#[test]
fn logins_are_not_listed_by_subject() {
    let world = World::new();
    let mut jar = Jar::new();
    world.visit(&mut jar, |session| session.set("cart", 1));
    let anonymous = jar.get(NAME).unwrap().to_owned();
    world.visit(&mut jar, |session| session.login("ada"));
    let id = jar.get(NAME).unwrap();
    assert_ne!(id, anonymous);
    assert_eq!(world.json(id).unwrap(), r#"{"\u0001a":1800000000,"\u0001s":"ada","cart":1}"#);
    assert!(block_on(world.store.sessions_of("ada")).unwrap_err().is_config());
    assert!(block_on(world.store.end_sessions_of("ada", None)).unwrap_err().is_config());
    world.visit(&mut jar, Session::destroy);
    assert_eq!(jar.get(NAME), None);
}

#[test]
fn regenerate_moves_the_session_and_destroy_deletes_it() {
    let world = World::new();
    world.set(ID, r#"{"id":9007199254740993,"user":"ada"}"#);
    let mut jar = jar();
    world.visit(&mut jar, Session::regenerate);
    let id = jar.get(NAME).unwrap().to_owned();
    assert_ne!(id, ID);
    assert_eq!(
        world.json(ID).unwrap(),
        "\"regenerated\"",
        "no object, so that Astra begins a session under a new id"
    );
    assert_eq!(world.json(&id).unwrap(), r#"{"id":9007199254740993,"user":"ada"}"#);
    // A request that was on its way with the old id finds nothing, and does not take away the new cookie.
    let (_, lines) = world.visit(&mut Jar::with(NAME, ID), |session| {
        assert!(session.is_empty());
        Ok(())
    });
    assert_eq!(world.events.take(), ["refused:regenerated"]);
    assert!(lines.is_empty(), "{lines:?}");
    world.clock.set(START + 60);
    assert_eq!(world.json(ID), None);
    world.visit(&mut jar, Session::destroy);
    assert_eq!((world.json(&id), jar.get(NAME)), (None, None));
}

#[test]
fn regenerate_takes_in_what_go_changed_meanwhile() {
    let world = Arc::new(World::new());
    world.set(ID, r#"{"user":"ada"}"#);
    let go = Arc::clone(&world);
    let mut jar = jar();
    world.visit(&mut jar, move |session| {
        std::thread::scope(|scope| {
            scope.spawn(|| go.set(ID, r#"{"id":9007199254740993,"user":"ada"}"#));
        });
        session.set("admin", true)?;
        session.regenerate()
    });
    let id = jar.get(NAME).unwrap();
    assert_eq!(world.json(id).unwrap(), r#"{"admin":true,"id":9007199254740993,"user":"ada"}"#);
    assert_eq!(world.json(ID).unwrap(), "\"regenerated\"");
}

#[test]
fn what_cannot_be_mapped_changes_nothing() {
    let world = World::new();
    world.set(ID, r#"{"user":"ada"}"#);
    let blob = Bytes::from_static(b"\xff");
    assert_eq!(world.visit(&mut jar(), move |session| session.set("blob", blob.clone())).0, 500);
    assert_eq!(world.visit(&mut jar(), |session| session.set("n", f64::NAN)).0, 500);
    assert_eq!(world.json(ID).unwrap(), r#"{"user":"ada"}"#);
    let mut jar = Jar::new();
    assert_eq!(world.visit(&mut jar, |session| session.set("n", u64::MAX)).0, 500);
    assert_eq!(jar.get(NAME), None);
}

// T33: an entry that is not Astra's JSON is refused, and is left alone.
#[test]
fn t33_values_that_are_no_json_object_are_refused() {
    let world = World::new();
    for bad in ["", "[1]", "1", "{\"a\":", "\u{1}\0\0\0\0\0\0\0\0", "{\"a\":1}{}"] {
        world.set(ID, bad);
        world.visit(&mut jar(), |session| {
            assert!(session.is_empty());
            Ok(())
        });
        assert_eq!(world.events.take(), ["refused:payload"], "{bad:?}");
        assert_eq!(world.get(ID).unwrap().0, bad);
    }
    for empty in ["{}", "null", " { } "] {
        world.set(ID, empty);
        assert_eq!(world.visit(&mut jar(), |session| session.set("a", 1)).0, 200);
        assert_eq!(world.json(ID).as_deref(), Some("{\"a\":1}"));
    }
    assert!(world.events.take().is_empty());
}

#[test]
fn flash_values_are_plain_values() {
    let world = World::new();
    world.set(ID, r#"{"success":"Saved.","user":"ada"}"#);
    world.visit(&mut jar(), |session| {
        assert_eq!(session.flash::<String>("success")?.as_deref(), Some("Saved."));
        session.set_flash("error", "No.")
    });
    assert_eq!(world.json(ID).unwrap(), r#"{"error":"No.","user":"ada"}"#);
}

#[test]
fn a_native_store_on_the_same_backend_sees_none_of_it() {
    let world = World::new();
    world.set(ID, r#"{"user":"ada"}"#);
    let native = ServerStore::with_backend(Arc::clone(&world.rows)).build().unwrap();
    let loaded = block_on(native.load(ID.as_bytes(), at(START))).unwrap();
    assert_eq!(loaded.unwrap_err(), hyper_session::Refusal::Encoding);
}
