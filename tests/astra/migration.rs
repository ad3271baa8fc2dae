//! Migration: both formats are read, native is written, and Astra's is refused from a deadline on.

use crate::go_peer::{NAME, START, World, astra_jar, astra_json, builder, key, look};
use crate::independent::vectors;
use crate::support::Jar;
use hyper_session::cookie::CookieOptions;
use hyper_session::{Event, EventKind, Refusal, Timestamp};
use serde_json::Value;

#[test]
fn a_session_changes_over_with_its_next_request() {
    let world = World::migrating(1_000);
    let mut jar = astra_jar(r#"{"cart":[1,2],"user":"ada"}"#);
    let (_, lines) = world.visit(&mut jar, look);
    assert_eq!(world.events.take(), ["format:astra"]);
    assert_eq!(lines.len(), 1);
    assert!(lines[0].ends_with("; Max-Age=86400; Path=/; Secure; HttpOnly; SameSite=Lax"), "{lines:?}");
    assert_eq!(astra_json(&jar), None, "the cookie is still Astra's");

    let values = world.values(&jar);
    assert_eq!(world.events.take(), ["format:native"]);
    assert_eq!(values["user"], "ada");
    assert_eq!(values["cart"], serde_json::json!([1, 2]));
    // From here on it is a native session like any other.
    assert!(World::native().load(jar.get(NAME).unwrap()).is_ok());
    assert!(world.visit(&mut jar, look).1.is_empty(), "written once, and not on each request");
    world.clock.set(START + 86_400);
    world.visit(&mut jar, look);
    assert_eq!(jar.get(NAME), None);
}

/// The guide's last step.
#[test]
fn a_better_name_logs_nobody_out_after_the_migration() {
    let world = World::migrating(1_000);
    let mut jar = astra_jar(r#"{"user":"ada"}"#);
    world.visit(&mut jar, look);
    let renamed = World::of(builder().cookie(CookieOptions::new().retired_name(NAME)));
    assert_eq!(renamed.values(&jar)["user"], "ada");
    renamed.visit(&mut jar, look);
    assert_eq!(jar.0.keys().collect::<Vec<_>>(), ["__Host-session"]);
    assert_eq!(renamed.values(&jar)["user"], "ada");
}

#[test]
fn every_vector_changes_over() {
    for vector in vectors() {
        let world = World::of(builder().migrate_from_astra(key(&vector.app_key), Timestamp::MAX));
        let mut jar = Jar::with(NAME, &vector.cookie);
        world.visit(&mut jar, look);
        let expected: std::collections::BTreeMap<String, Value> = serde_json::from_str(&vector.json).unwrap();
        assert_eq!(jar.get(NAME).is_none(), expected.is_empty(), "an empty session is no longer a session");
        assert_eq!(world.values(&jar), expected, "{}", vector.json);
    }
}

// T20: Astra's cookies have no expiry of their own.
#[test]
fn t20_the_deadline_ends_what_has_no_end() {
    let world = World::migrating(1_000_000);
    let mut jar = astra_jar(r#"{"user":"ada"}"#);
    let mut migrated = jar.clone();
    world.visit(&mut migrated, look);
    world.events.take();

    // Eleven days later, long after both timeouts, it is a session still: nothing in it says otherwise.
    world.clock.set(START + 999_999);
    assert_eq!(world.load(jar.get(NAME).unwrap()), Ok(()));
    // The migrated session has the deadlines of this store.
    world.visit(&mut migrated, look);
    assert_eq!(world.events.take(), ["format:astra", "format:native:expired", "refused:expired"]);

    world.clock.set(START + 1_000_000);
    let (_, lines) = world.visit(&mut jar, |session| {
        assert!(session.is_empty());
        Ok(())
    });
    assert_eq!(world.events.take(), ["format:astra:retired_format", "refused:retired_format"]);
    assert!(lines[0].starts_with("astra_session=; Max-Age=0;"), "{lines:?}");
}

#[test]
fn the_deadline_leaves_native_sessions_alone() {
    let world = World::migrating(10);
    let mut jar = Jar::new();
    world.visit(&mut jar, |session| session.set("user", "ada"));
    world.clock.set(START + 10);
    assert_eq!(world.values(&jar)["user"], "ada");
    // A forged one of Astra's form is not even looked at.
    let world = World::migrating(0);
    let mut jar = astra_jar("{}");
    let cookie = jar.get(NAME).unwrap().replace('A', "B");
    jar = Jar::with(NAME, &cookie);
    world.visit(&mut jar, look);
    assert_eq!(world.events.take()[0], "format:astra:retired_format");
}

// T01: no cookie is tried as another format after it failed: one event, with the reason of one format.
#[test]
fn t01_an_altered_cookie_is_refused_as_what_it_is() {
    let world = World::migrating(1_000);
    let mut native = Jar::new();
    world.visit(&mut native, |session| session.set("user", "ada"));
    world.events.take();
    for (cookie, format, reason) in
        [(astra_jar(r#"{"user":"ada"}"#), "astra", "ciphertext"), (native, "native", "signature")]
    {
        let cookie = cookie.get(NAME).unwrap();
        for at in 12..cookie.trim_end_matches('=').len() - 1 {
            let mut altered = cookie.as_bytes().to_vec();
            altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
            let mut jar = Jar::with(NAME, std::str::from_utf8(&altered).unwrap());
            world.visit(&mut jar, |session| {
                assert!(session.is_empty());
                Ok(())
            });
            assert_eq!(
                world.events.take(),
                [format!("format:{format}:{reason}"), format!("refused:{reason}")],
                "{at}"
            );
            // An altered cookie of Astra's and one under another key look the same: it is left alone.
            assert_eq!(jar.get(NAME).is_some(), format == "astra");
        }
    }
}

// The mode is chosen: without it, a cookie of Astra's is nothing.
#[test]
fn without_the_mode_astra_cookies_are_refused() {
    let world = World::native();
    for vector in vectors() {
        assert!(world.load(&vector.cookie).is_err());
    }
    let mut jar = astra_jar(r#"{"user":"ada"}"#);
    world.visit(&mut jar, look);
    let events = world.events.take();
    assert!(matches!(&*events, [event] if event.starts_with("refused:")), "no event of a format: {events:?}");
}

#[test]
fn a_cookie_of_another_astra_key_is_refused() {
    let world = World::of(builder().migrate_from_astra(key(b"another"), Timestamp::MAX));
    assert_eq!(world.load(astra_jar("{\"a\":1}").get(NAME).unwrap()), Err("ciphertext".to_owned()));
}

// T08: a key of Astra's that is also the native one makes no cookie fit for both.
#[test]
fn t08_one_key_for_both_formats_confuses_nothing() {
    let world = World::of(builder().migrate_from_astra(key(crate::go_peer::NATIVE_KEY), Timestamp::MAX));
    let mut jar = Jar::new();
    world.visit(&mut jar, |session| session.set("user", "ada"));
    let native = jar.get(NAME).unwrap();
    let beside = World::of(builder().beside_astra(key(crate::go_peer::NATIVE_KEY)));
    assert_eq!(beside.load(native), Ok(()));
    let padded = format!("{native}{}", "=".repeat((4 - native.len() % 4) % 4));
    if padded != native {
        assert_eq!(beside.load(&padded), Err("ciphertext".to_owned()));
    }
}

#[test]
fn a_failed_handler_leaves_the_cookie_as_it_is() {
    let world = World::migrating(1_000);
    let jar = astra_jar(r#"{"user":"ada"}"#);
    let store = std::sync::Arc::clone(&world.store);
    let service = hyper_session::session_fn(
        store,
        |_: http::Request<crate::support::Body>, session: hyper_session::SessionHandle| async move {
            session.load().await?.set("user", "eve")?;
            Ok::<_, hyper_session::Error>(crate::support::status(500))
        },
    );
    let mut after = jar.clone();
    assert_eq!(crate::support::block_on(crate::go_peer::call(&service, &mut after)), 500);
    assert_eq!(world.values(&after)["user"], "ada");
}

#[test]
fn regenerate_and_destroy_work_on_what_came_from_astra() {
    let world = World::migrating(1_000);
    let mut jar = astra_jar(r#"{"user":"ada"}"#);
    world.visit(&mut jar, |session| {
        assert!(session.id().is_some());
        session.regenerate()
    });
    assert_eq!(world.values(&jar)["user"], "ada");
    let mut jar = astra_jar(r#"{"user":"ada"}"#);
    world.visit(&mut jar, hyper_session::Session::destroy);
    assert_eq!(jar.get(NAME), None);
}

#[test]
fn events_name_format_and_reason() {
    let labels: Vec<_> = [Refusal::RetiredFormat, Refusal::Ciphertext].map(Refusal::as_str).into();
    assert_eq!(labels, ["retired_format", "ciphertext"]);
    // An observer that counts, as the guide shows.
    let counts = std::sync::Arc::new(std::sync::Mutex::new(std::collections::BTreeMap::new()));
    let to = std::sync::Arc::clone(&counts);
    let observer = move |event: &Event<'_>| {
        if let EventKind::CookieFormat { format, refusal, .. } = event.kind {
            let label = (format.as_str(), refusal.map_or("opened", Refusal::as_str));
            *to.lock().unwrap().entry(label).or_insert(0) += 1;
        }
    };
    let until = Timestamp::from_unix(START + 1);
    let store = builder()
        .migrate_from_astra(key(crate::go_peer::ASTRA_KEY), until)
        .observer(observer)
        .build()
        .unwrap();
    let cookie = astra_jar("{\"a\":1}").get(NAME).unwrap().to_owned();
    for now in [START, START, START + 1] {
        let loaded =
            hyper_session::__internals::Verbs::load(&store, cookie.as_bytes(), Timestamp::from_unix(now));
        let _ = crate::support::block_on(loaded).unwrap();
    }
    let counts = counts.lock().unwrap();
    assert_eq!(*counts, [(("astra", "opened"), 2), (("astra", "retired_format"), 1)].into());
}

/// The browser holds a cookie in a scope that no response can remove, and a second one in the present scope.
#[test]
fn b3_a_logout_stays_although_a_former_cookie_comes_again() {
    let world = World::migrating(1_000_000);
    let mut native = Jar::new();
    World::native().visit(&mut native, |session| session.set("user", "ada"));
    for stuck in [native.clone(), astra_jar(r#"{"user":"ada"}"#)] {
        let stuck = stuck.get(NAME).unwrap();
        let mut present = Jar::new();
        world.clock.advance(std::time::Duration::from_secs(1));
        world.visit(&mut present, |session| session.set("user", "bob"));
        let both =
            |present: &Jar| Jar::with(NAME, &format!("{stuck}; {NAME}={}", present.get(NAME).unwrap()));
        assert_eq!(world.values(&both(&present))["user"], "bob");
        let mut left = both(&present);
        world.visit(&mut left, hyper_session::Session::destroy);
        assert!(world.values(&both(&left)).is_empty(), "it stays");
    }
}
