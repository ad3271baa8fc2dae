//! Side by side: Go and Rust serve the same browser, and both write Astra's cookie.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::go_peer::{ASTRA_KEY, NAME, START, World, astra_jar, astra_json, look};
use crate::independent;
use crate::support::Jar;

#[test]
fn go_and_rust_serve_the_same_user() {
    let world = World::beside();
    let mut jar = astra_jar(r#"{"user":"ada","visits":41}"#);
    let (_, lines) = world.visit(&mut jar, |session| {
        assert_eq!(session.get_str("user")?.as_deref(), Some("ada"));
        session.update("visits", |old: Option<i64>| old.unwrap_or(0) + 1)?;
        session.set("note", "<b>&\u{2028}")
    });
    assert!(lines[0].ends_with("; Max-Age=86400; Path=/; Secure; HttpOnly; SameSite=Lax"), "{lines:?}");
    assert_eq!(
        astra_json(&jar).unwrap(),
        r#"{"note":"\u003cb\u003e\u0026\u2028","user":"ada","visits":42}"#,
        "byte for byte what Go would have written"
    );
    // Go changes it, and it comes back.
    jar = astra_jar(&astra_json(&jar).unwrap().replace("42", "43"));
    assert_eq!(world.values(&jar)["visits"], 43);
    assert_eq!(world.events.take(), ["format:astra", "format:astra"]);
}

#[test]
fn a_new_session_is_astras_from_the_start() {
    let world = World::beside();
    let mut jar = Jar::new();
    world.visit(&mut jar, |session| session.set("user", "ada"));
    assert_eq!(astra_json(&jar).unwrap(), r#"{"user":"ada"}"#);
    world.visit(&mut jar, |session| session.delete("user").map(drop));
    assert_eq!(jar.get(NAME), None, "where Astra would keep a cookie of {{}}");
}

// A request that only reads writes nothing: as in Astra, whose Max-Age counts from the last save.
#[test]
fn t20_reading_renews_nothing_and_nothing_but_max_age_ends_it() {
    let world = World::beside();
    let mut jar = astra_jar(r#"{"user":"ada"}"#);
    for day in [0, 1, 30, 400] {
        world.clock.set(START + day * 86_400);
        assert!(world.visit(&mut jar, look).1.is_empty());
        assert_eq!(world.load(jar.get(NAME).unwrap()), Ok(()), "there is no deadline that could be enforced");
    }
}

#[test]
fn a_native_session_goes_back_to_astra_with_its_next_request() {
    let mut jar = Jar::new();
    World::native().visit(&mut jar, |session| session.set("user", "ada"));
    assert_eq!(astra_json(&jar), None);
    let world = World::beside();
    world.visit(&mut jar, look);
    assert_eq!(world.events.take(), ["format:native"]);
    assert_eq!(astra_json(&jar).unwrap(), r#"{"user":"ada"}"#);
    // A deadline that is sealed in it is kept up to then.
    let mut jar = Jar::new();
    World::native().visit(&mut jar, |session| session.set("user", "ada"));
    world.clock.set(START + 86_400);
    world.visit(&mut jar, look);
    assert_eq!(world.events.take(), ["format:native:expired", "refused:expired"]);
}

#[test]
fn what_astra_cannot_hold_stays_native_until_it_is_changed() {
    let mut jar = Jar::new();
    let blob = bytes::Bytes::from_static(b"\xff");
    World::native().visit(&mut jar, move |session| session.set("blob", blob.clone()));
    let native = jar.get(NAME).unwrap().to_owned();
    let world = World::beside();
    for seconds in [0, 43_200] {
        world.clock.set(START + seconds);
        assert_eq!(world.visit(&mut jar, look), (200, Vec::new()), "reading it works, and changes nothing");
    }
    let (status, lines) = world.visit(&mut jar, |session| session.set("user", "ada"));
    assert_eq!((status, lines.len()), (500, 0));
    assert_eq!(jar.get(NAME), Some(&*native));
    // Without what stands in the way, it changes over.
    world.visit(&mut jar, |session| {
        session.delete("blob")?;
        session.set("user", "ada")
    });
    assert_eq!(astra_json(&jar).unwrap(), r#"{"user":"ada"}"#);
}

#[test]
fn what_cannot_be_mapped_names_key_and_kind_and_changes_nothing() {
    let world = World::beside();
    let cookie = astra_jar(r#"{"user":"ada"}"#);
    let store = std::sync::Arc::clone(&world.store);
    let service = hyper_session::session_fn(
        store,
        |_: http::Request<crate::support::Body>, session: hyper_session::SessionHandle| async move {
            let session = session.load().await?;
            session.set("id", u64::MAX)?;
            let error = session.save().await.unwrap_err();
            assert!(error.is_value());
            assert_eq!(
                error.to_string(),
                "the value under session key \"id\" is or contains an integer beyond 2^53 that a float64 cannot hold, which the session's JSON cannot hold"
            );
            session.delete("id")?;
            Ok::<_, hyper_session::Error>(crate::support::status(200))
        },
    );
    let mut jar = cookie.clone();
    assert_eq!(crate::support::block_on(crate::go_peer::call(&service, &mut jar)), 200);
    assert_eq!(jar.get(NAME), cookie.get(NAME));
}

#[test]
fn one_cookie_has_to_do() {
    let world = World::beside();
    // 4,096 bytes, the name included: 3,064 of token, of which 60 are not JSON.
    let fits = "x".repeat((4096 - NAME.len()) / 4 * 3 - 60 - r#"{"a":""}"#.len());
    let mut jar = Jar::new();
    let largest = fits.clone();
    assert_eq!(world.visit(&mut jar, move |session| session.set("a", &*largest)).0, 200);
    assert!(jar.get(NAME).unwrap().len() + NAME.len() <= 4096 && jar.0.len() == 1);
    let before = jar.get(NAME).unwrap().to_owned();
    assert_eq!(world.visit(&mut jar, move |session| session.set("a", format!("{fits}x"))).0, 500);
    assert_eq!(jar.get(NAME), Some(&*before));
    // A native session of several cookies that fits in none of Astra's stays what it is.
    let mut jar = Jar::new();
    World::native().visit(&mut jar, |session| session.set("a", "x".repeat(5_000)));
    assert_eq!(jar.0.len(), 2);
    assert_eq!(world.visit(&mut jar, look), (200, Vec::new()));
}

#[test]
fn an_empty_session_is_a_session_without_values() {
    let world = World::beside();
    for json in ["{}", "null"] {
        let mut jar = astra_jar(json);
        assert_eq!(world.visit(&mut jar, look), (200, Vec::new()));
        assert_eq!(world.events.take(), ["format:astra"]);
        world.visit(&mut jar, |session| session.set("a", 1));
        assert_eq!(astra_json(&jar).unwrap(), r#"{"a":1}"#);
        world.events.take();
    }
}

#[test]
fn regenerate_seals_anew_and_destroy_removes() {
    let world = World::beside();
    let mut jar = astra_jar(r#"{"user":"ada"}"#);
    let before = jar.get(NAME).unwrap().to_owned();
    world.visit(&mut jar, hyper_session::Session::regenerate);
    assert_ne!(jar.get(NAME), Some(&*before));
    assert_eq!(astra_json(&jar).unwrap(), r#"{"user":"ada"}"#);
    let (_, lines) = world.visit(&mut jar, hyper_session::Session::destroy);
    assert!(lines[0].starts_with("astra_session=; Max-Age=0; Expires=Thu, 01 Jan 1970"), "{lines:?}");
}

#[test]
fn of_several_cookies_the_native_one_counts_whatever_their_order() {
    let world = World::beside();
    let mut native = Jar::new();
    World::native().visit(&mut native, |session| session.set("user", "native"));
    let (astra, native) = (astra_jar(r#"{"user":"astra"}"#), native.get(NAME).unwrap().to_owned());
    let astra = astra.get(NAME).unwrap();
    let broken = format!("{}AAAA", &astra[..astra.len() - 4]);
    for (header, user, events) in [
        // Astra's has no date: a browser that has both was given the native one since.
        (
            format!("{astra}; {NAME}={native}"),
            "native",
            vec!["format:astra", "format:native", "several_sessions:2:same"],
        ),
        (
            format!("{native}; {NAME}={astra}"),
            "native",
            vec!["format:native", "format:astra", "several_sessions:2:same"],
        ),
        (
            format!("{broken}; {NAME}={native}"),
            "native",
            vec!["format:astra:ciphertext", "refused:ciphertext", "format:native"],
        ),
    ] {
        let values = world.values(&Jar::with(NAME, &header));
        assert_eq!(values["user"], user);
        assert_eq!(world.events.take(), events);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Go(String, Value),
    GoFlash(String),
    Rust(String, Value),
    RustFlash(String),
}

fn step() -> impl Strategy<Value = Step> {
    let value = || {
        prop_oneof![
            any::<bool>().prop_map(Value::from),
            (-1000_i64..1000).prop_map(Value::from),
            any::<f64>().prop_filter("JSON has no other", |f| f.is_finite()).prop_map(Value::from),
            "[<&a\u{2028}é]{0,4}".prop_map(Value::from),
            Just(json!([])),
            Just(json!({"k": [1.5, {}]})),
        ]
    };
    prop_oneof![
        ("[abc]", value()).prop_map(|(key, value)| Step::Go(key, value)),
        ("[abc]", value()).prop_map(|(key, value)| Step::Rust(key, value)),
        "[abc]".prop_map(Step::GoFlash),
        "[abc]".prop_map(Step::RustFlash),
    ]
}

/// Every number as Go has it.
fn as_go(value: &Value) -> Value {
    match value {
        Value::Number(number) => Value::from(number.as_f64().unwrap()),
        Value::Array(values) => values.iter().map(as_go).collect(),
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), as_go(value))).collect(),
        other => other.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    // Whichever program serves a request, the browser's session is the sum of all their changes.
    #[test]
    fn requests_to_both_in_any_order_are_one_session(steps in proptest::collection::vec(step(), 1..12)) {
        let (world, mut jar) = (World::beside(), Jar::new());
        let mut model = serde_json::Map::new();
        let mut nonce = [7; 12];
        for step in steps {
            // Go's process knows nothing of the session but the cookie.
            let mut go: serde_json::Map<String, Value> =
                astra_json(&jar).map(|json| serde_json::from_str(&json).unwrap()).unwrap_or_default();
            let go_writes = matches!(step, Step::Go(..) | Step::GoFlash(_));
            match step {
                Step::Go(key, value) => {
                    model.insert(key.clone(), value.clone());
                    go.insert(key, value);
                }
                Step::GoFlash(key) => prop_assert_eq!(
                    go.remove(&key).map(|value| as_go(&value)),
                    model.remove(&key).map(|value| as_go(&value))
                ),
                Step::Rust(key, value) => {
                    model.insert(key.clone(), value.clone());
                    world.visit(&mut jar, move |session| session.set_flash(&key, &value));
                }
                Step::RustFlash(key) => {
                    let expected = model.remove(&key).map(|value| as_go(&value));
                    world.visit(&mut jar, move |session| {
                        let value = session.flash::<Value>(&key)?.map(|value| as_go(&value));
                        assert_eq!(value, expected);
                        Ok(())
                    });
                }
            }
            if go_writes {
                nonce[0] += 1;
                let json = serde_json::to_vec(&go).unwrap();
                jar = Jar::with(NAME, &independent::seal(ASTRA_KEY, nonce, &json));
            }
            let held: Value = serde_json::from_str(&astra_json(&jar).unwrap_or("{}".to_owned())).unwrap();
            prop_assert_eq!(as_go(&held), as_go(&Value::Object(model.clone())));
        }
    }
}
