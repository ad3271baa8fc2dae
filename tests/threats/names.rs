//! Names, keys and kinds of store that a token is bound to, and several cookies of one name.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD as BASE64, Engine};
use hyper_session::cookie::CookieOptions;
use hyper_session::{AppKey, Keyring, Refusal};

use crate::attack_fixture::{KINDS, Kind, NAME, Options, Rows, TestStore, VALUE, assert_removed, on_both};
use crate::support::{Jar, block_on, refused, set_cookies};

// Names and keys.

fn named(name: &str) -> CookieOptions {
    CookieOptions::new().name(name)
}

#[test]
fn t09_a_cookie_moved_to_another_name_is_refused() {
    block_on(async {
        let keys = Keyring::new(AppKey::generate().unwrap());
        let world = |name| {
            Options { cookie: named(name), keys: keys.clone(), ..Options::default() }.build(Kind::Cookie)
        };
        let names = ["__Host-session", "__Host-sessio", "__Host-session2", "session", "Session"];
        for from in names {
            let token = world(from).token().await;
            for to in names.into_iter().filter(|to| *to != from) {
                let world = world(to);
                assert_eq!(world.value(&Jar::with(to, &token)).await, None);
                let mut events = world.events.take();
                events.retain(|event| event != "insecure_cookie");
                assert_eq!(events, [refused(Refusal::Signature)], "{from} as {to}");
            }
        }
    });
}

#[test]
fn t08_a_token_of_one_kind_of_store_is_none_of_the_other() {
    block_on(async {
        let [cookie, memory] = KINDS.map(TestStore::new);
        let (sealed, opaque) = (cookie.token().await, memory.token().await);
        assert_eq!(memory.value(&Jar::with(NAME, &sealed)).await, None);
        assert_eq!(memory.events.take(), [refused(Refusal::Encoding)]);
        assert_eq!(cookie.value(&Jar::with(NAME, &opaque)).await, None);
        assert_eq!(cookie.events.take().len(), 1);
    });
}

#[test]
fn t10_two_names_on_one_service_do_not_read_each_other() {
    for kind in KINDS {
        block_on(async {
            let keys = Keyring::new(AppKey::generate().unwrap());
            let build =
                |name| Options { cookie: named(name), keys: keys.clone(), ..Options::default() }.build(kind);
            let (one, two) = (build("__Host-one"), build("__Host-two"));
            let mut jar = one.jar().await;
            assert_eq!(two.value(&jar).await, None);
            assert_eq!(two.events.take(), [""; 0], "another cookie's name is not even looked at");
            two.edit(&mut jar, |session| session.set("a", "second")).await;
            assert_eq!(one.value(&jar).await.as_deref(), Some(VALUE));
            assert_eq!(two.value(&jar).await.as_deref(), Some("second"));
        });
    }
}

/// As with CVE-2022-46170: the same token under another cookie name, over the same storage.
#[test]
fn t10_two_names_over_one_backend_do_not_read_each_other() {
    block_on(async {
        let rows = Rows::default();
        let one = Options::with_cookie(named("__Host-one")).over(&rows);
        let two = Options::with_cookie(named("__Host-two")).over(&rows);
        let token = one.token().await;
        assert_eq!(two.value(&Jar::with("__Host-two", &token)).await, None);
        assert_eq!(two.events.take(), [refused(Refusal::UnknownId)]);
    });
}

#[test]
fn t12_t17_keys_that_seal_open_or_are_no_longer_trusted() {
    let text = |key: &AppKey| key.to_text().to_string();
    let (old, new) = (AppKey::generate().unwrap(), AppKey::generate().unwrap());
    let (old_id, new_id) = (old.id(), new.id());
    let (old_text, new_text) = (text(&old), text(&new));
    let key = |text: &str| text.parse::<AppKey>().unwrap();
    let key_of = |jar: &Jar| BASE64.decode(jar.get(NAME).unwrap()).unwrap()[1..5].to_vec();
    let id_bytes =
        |id: hyper_session::KeyId| u32::from_str_radix(&id.to_string(), 16).unwrap().to_be_bytes().to_vec();
    block_on(async {
        let before = Options::with_keys(old).build(Kind::Cookie);
        let original = before.jar().await;
        assert_eq!(key_of(&original), id_bytes(old_id));

        // Accepted: read, and sealed anew on this response, once.
        let rotated = Options::with_keys(Keyring::new(new).accept(key(&old_text))).build(Kind::Cookie);
        let mut jar = original.clone();
        let response = rotated
            .edit(&mut jar, |session| session.get::<String>("a").map(|a| assert_eq!(a.unwrap(), VALUE)));
        assert_eq!(set_cookies(response.await.headers()).len(), 1);
        assert_eq!(rotated.events.take(), ["old_key"]);
        assert_eq!(key_of(&jar), id_bytes(new_id), "the sealing key seals, not the oldest");
        assert_eq!(set_cookies(rotated.edit(&mut jar, |_| Ok(())).await.headers()), [""; 0]);
        assert_eq!(rotated.events.take(), [""; 0]);
        assert_eq!(rotated.id(&jar).await, before.id(&original).await, "still the same session");
        assert_eq!(rotated.value(&jar).await.as_deref(), Some(VALUE));
        // A session that begins now is sealed with the new key, too.
        assert_eq!(key_of(&rotated.jar().await), id_bytes(new_id));

        // Dropped from the ring, revoked, revoked although still on the ring.
        let dropped = Keyring::new(key(&new_text));
        let revoked = Keyring::new(key(&new_text)).revoke(old_id);
        let both = Keyring::new(key(&new_text)).accept(key(&old_text)).revoke(old_id);
        for (keys, why) in
            [(dropped, Refusal::UnknownKey), (revoked, Refusal::RevokedKey), (both, Refusal::RevokedKey)]
        {
            let world = Options::with_keys(keys).build(Kind::Cookie);
            let mut replayed = original.clone();
            let response = world
                .edit(&mut replayed, |session| {
                    assert!(session.is_empty());
                    Ok(())
                })
                .await;
            // Another host may have a key that this one does not know. A revoked one is revoked everywhere.
            if why.removes_cookie() {
                assert_removed(&response);
            } else {
                assert_eq!(replayed.0, original.0, "{why}");
            }
            assert_eq!(world.events.take(), [refused(why)]);
            assert_eq!(world.value(&jar).await.as_deref(), Some(VALUE), "sealed anew, it lives on");
        }
    });
}

// Several cookies of our name.

/// A token that only its signature, or the store, tells from the genuine one. Each `number` makes another.
fn forged(token: &str, number: usize) -> String {
    let at = 20 + number;
    let other = if token.as_bytes()[at] == b'A' { "B" } else { "A" };
    format!("{}{other}{}", &token[..at], &token[at + 1..])
}

#[test]
fn t60_t64_what_is_no_token_costs_no_try_and_four_forgeries_are_tried() {
    on_both(|_, world| async move {
        let good = world.token().await;
        // Junk does not count, wherever the genuine cookie stands among it.
        for (before, behind) in [(0, 0), (1, 0), (5, 2), (40, 20), (63, 0)] {
            let junk = |count| format!("{NAME}=tossed; ").repeat(count);
            let header = format!("{}{NAME}={good}; {}", junk(before), junk(behind));
            let (value, response) = world.present(header.trim_end_matches("; ").as_bytes()).await;
            assert_eq!(value.as_deref(), Some(VALUE), "{before} before, {behind} behind");
            assert_eq!(set_cookies(response.headers()), [""; 0]);
            let events = world.events.take();
            assert_eq!(
                events,
                vec![refused(Refusal::Encoding); 4.min(before + behind)],
                "bounded all the same"
            );
        }
        let forgeries: Vec<String> = (0..6).map(|number| forged(&good, number)).collect();
        for before in 0..6 {
            let tossed: String =
                forgeries[..before].iter().flat_map(|token| [NAME, "=", token, "; "]).collect();
            let (value, response) = world.present(format!("{tossed}{NAME}={good}").as_bytes()).await;
            let found = value.is_some();
            let events = world.events.take();
            let refusals = events.iter().filter(|event| event.starts_with("refused:")).count();
            assert_eq!(refusals, before.min(4), "{events:?}");
            assert_eq!(found, before < 4, "{before} forged");
            // Which of the cookies is dead, and whether all are, is not known: none is removed.
            assert_eq!(set_cookies(response.headers()), [""; 0], "{before} forged");
            assert_eq!(events.contains(&"too_many_candidates".to_owned()), before >= 4, "{events:?}");
        }
    });
}
