//! Keys by purpose, name, ring and hour, and the tokens that each of them opens.

use std::sync::{Arc, Barrier};
use std::thread;

use aws_lc_rs::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use bytes::Bytes;

use super::fixture::{
    APP_KEY, EPOCH, NAME, NONCE, NOW, OTHER_KEY, PLAINTEXT, app_key, cached, fixed_sealer, hour, keys, open,
    open_raw, reason, refuses_all, ring, sealer, sealer_of,
};
use super::independent::{self, Keys, encode};
use crate::crypto::hour_keys::HOURS_KEPT;
use crate::crypto::random::SystemRandom;
use crate::crypto::seal::{Purpose, Sealer};
use crate::event::Refusal;

// ---- Purposes, names, keys --------------------------------------------------------------------------------------

#[test]
fn t07_t08_t09_a_token_opens_where_it_was_sealed_and_nowhere_else() {
    let long = "n".repeat(256);
    let longer = "n".repeat(255);
    let names = [
        "",
        "s",
        "S",
        "s ",
        "s\0",
        "ss",
        "s.1",
        "session",
        "__Host-session",
        "__host-session",
        &longer,
        &long,
    ];
    let places: Vec<(&[u8], Purpose, &str)> = [APP_KEY, OTHER_KEY]
        .into_iter()
        .flat_map(|key| [(key, Purpose::Session), (key, Purpose::Test)])
        .flat_map(|(key, purpose)| names.map(|name| (key, purpose, name)))
        .collect();
    assert_eq!(places.len(), 48);
    // Nonce, hour and plaintext are the same everywhere, so only purpose, name and key distinguish the tokens.
    let sealers = places.iter().map(|&(key, purpose, name)| fixed_sealer(key, purpose, name, NONCE));
    let sealers: Vec<Sealer> = sealers.collect();
    for (sealed, from) in sealers.iter().zip(&places) {
        let text = sealed.seal(NOW, &[PLAINTEXT]).unwrap();
        for (sealer, to) in sealers.iter().zip(&places) {
            let expected = match () {
                () if from == to => Ok(Bytes::from_static(PLAINTEXT)),
                () if from.0 != to.0 => Err(Refusal::UnknownKey),
                () => Err(Refusal::Signature),
            };
            assert_eq!(open(sealer, &text), expected, "{:?} at {:?}", from.2, to.2);
        }
    }
}

#[test]
fn t01_a_token_of_another_key_that_bears_our_key_id_is_refused() {
    let mut other = Keys::new(OTHER_KEY, "session", NAME, EPOCH);
    assert_eq!(open_raw(&sealer(), &other.seal(NONCE, PLAINTEXT)), Err(Refusal::UnknownKey));
    other.id = keys().id;
    let texts = [encode(&other.seal(NONCE, PLAINTEXT)).into_bytes()];
    assert_eq!(reason(&texts[0], other.id), Refusal::Signature);
    refuses_all(&sealer(), texts);
}

#[test]
fn t12_the_first_key_seals_and_each_key_opens() {
    for size in [1_u8, 4, 16] {
        let app_keys: Vec<Vec<u8>> = (0..size).map(|n| format!("application key {n}").into_bytes()).collect();
        let app_keys: Vec<&[u8]> = app_keys.iter().map(Vec::as_slice).collect();
        let sealer = sealer_of(&ring(&app_keys));

        let text = sealer.seal(NOW, &[PLAINTEXT]).unwrap();
        assert_eq!(independent::open(app_keys[0], "session", NAME, &text).as_deref(), Some(PLAINTEXT));
        for (place, app_key) in app_keys.iter().enumerate() {
            let token = Keys::new(app_key, "session", NAME, EPOCH).seal(NONCE, PLAINTEXT);
            let opened = sealer.open(encode(&token).as_bytes()).unwrap();
            assert_eq!(opened.with_old_key(), place != 0, "key {place} of {size}");
            assert_eq!(opened.into_plaintext(), PLAINTEXT);
            // The first key seals, whichever key opened.
            let again = sealer.seal(NOW, &[PLAINTEXT]).unwrap();
            assert!(independent::open(app_keys[0], "session", NAME, &again).is_some());
        }
        let stranger = Keys::new(APP_KEY, "session", NAME, EPOCH).seal(NONCE, PLAINTEXT);
        assert_eq!(open_raw(&sealer, &stranger), Err(Refusal::UnknownKey));
    }
}

#[test]
fn t12_a_token_is_resealed_out_of_reach_of_the_old_key() {
    let rotated = sealer_of(&ring(&[OTHER_KEY, APP_KEY]));
    let opened = rotated.open(sealer().seal(NOW, &[PLAINTEXT]).unwrap().as_bytes()).unwrap();
    assert!(opened.with_old_key());
    let text = rotated.seal(NOW, &[&opened.into_plaintext()]).unwrap();
    assert!(!rotated.open(text.as_bytes()).unwrap().with_old_key());
    assert_eq!(open(&sealer(), &text), Err(Refusal::UnknownKey));
    assert_eq!(open(&sealer_of(&ring(&[OTHER_KEY])), &text).unwrap(), PLAINTEXT);
}

#[test]
fn t17_tokens_of_revoked_keys_are_refused() {
    let old = keys().seal(NONCE, PLAINTEXT);
    let new = Keys::new(OTHER_KEY, "session", NAME, EPOCH).seal(NONCE, PLAINTEXT);
    let revoked = app_key(APP_KEY).id();
    for (what, keyring) in [
        ("on the ring", ring(&[OTHER_KEY, APP_KEY]).revoke(revoked)),
        ("revoked before it was added", ring(&[OTHER_KEY]).revoke(revoked).accept(app_key(APP_KEY))),
        ("not on the ring", ring(&[OTHER_KEY]).revoke(revoked)),
        ("one of several", ring(&[OTHER_KEY]).revoke(app_key(b"a third").id()).revoke(revoked)),
    ] {
        let sealer = sealer_of(&keyring);
        assert_eq!(open_raw(&sealer, &old), Err(Refusal::RevokedKey), "{what}");
        assert_eq!(open_raw(&sealer, &new).unwrap(), PLAINTEXT, "{what}");
        assert!(
            sealer.keys.iter().skip(1).all(|key| key.hours.epochs().is_empty()),
            "{what}: a key was derived for a revoked token"
        );
    }
}

#[test]
fn t17_a_ring_whose_sealing_key_is_revoked_seals_nothing() {
    let keyring = ring(&[APP_KEY, OTHER_KEY]).revoke(app_key(APP_KEY).id());
    let error = Sealer::new(&keyring, Purpose::Session, NAME, Arc::new(SystemRandom)).unwrap_err();
    assert!(error.is_config());
}

#[test]
fn a_name_too_long_for_its_length_field_is_an_error() {
    let of_length = |len: usize| {
        let name = "n".repeat(len);
        Sealer::new(&ring(&[APP_KEY]), Purpose::Session, &name, Arc::new(SystemRandom))
    };
    assert!(of_length(65_535).is_ok());
    assert!(of_length(65_536).is_err());
}

// ---- Keys of hours ----------------------------------------------------------------------------------------------

#[test]
fn t67_forged_tokens_have_no_keys_derived() {
    let sealer = sealer();
    let mut other = Keys::new(OTHER_KEY, "session", NAME, 0);
    other.id = keys().id;
    let forged = (0..1000_u32).map(|n| {
        other.epoch = n.wrapping_mul(4_294_967);
        encode(&other.seal(NONCE, PLAINTEXT)).into_bytes()
    });
    assert_eq!(refuses_all(&sealer, forged.collect::<Vec<_>>()), 1000);
    assert_eq!(cached(&sealer), [0_u32; 0]);
    // An authentic token does derive a key, so the check above can fail.
    open_raw(&sealer, &keys().seal(NONCE, PLAINTEXT)).unwrap();
    assert_eq!(cached(&sealer), [EPOCH]);
}

#[test]
fn the_key_of_an_hour_is_derived_once() {
    let sealer = sealer();
    sealer.seal(NOW, &[PLAINTEXT]).unwrap();
    // A wrong key in the cache shows that the cached key is used.
    let zero = || LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[0; 32]).unwrap());
    assert_eq!(cached(&sealer), [EPOCH]);
    sealer.keys[0].hours.plant(EPOCH, zero());
    let token = keys().seal(NONCE, PLAINTEXT);
    assert_eq!(open_raw(&sealer, &token), Err(Refusal::Ciphertext));
    let mut zero_keys = keys();
    zero_keys.encrypt = [0; 32];
    assert_eq!(open_raw(&sealer, &zero_keys.seal(NONCE, PLAINTEXT)).unwrap(), PLAINTEXT);
    let text = sealer.seal(NOW, &[PLAINTEXT]).unwrap();
    assert_eq!(independent::open(APP_KEY, "session", NAME, &text), None);
    // The next hour has its own key.
    let text = sealer.seal(hour(EPOCH + 1), &[PLAINTEXT]).unwrap();
    assert_eq!(independent::open(APP_KEY, "session", NAME, &text).as_deref(), Some(PLAINTEXT));
}

#[test]
fn keys_of_hours_are_bounded_and_an_old_token_does_not_cost_the_present_hour_its_key() {
    let sealer = sealer();
    let hours = EPOCH..EPOCH + 250;
    let present = hours.end - 1;
    let kept = u32::try_from(HOURS_KEPT).unwrap();
    let texts = hours.clone().map(|epoch| {
        let text = sealer.seal(hour(epoch), &[&epoch.to_be_bytes()]).unwrap();
        assert_eq!(
            cached(&sealer),
            (EPOCH.max((epoch + 1).saturating_sub(kept))..=epoch).collect::<Vec<_>>()
        );
        text
    });
    let texts: Vec<String> = texts.collect();
    // Tokens of hours whose keys were evicted still open, in any order, and the bound holds.
    for (epoch, text) in hours.clone().zip(&texts).chain(hours.clone().zip(&texts).rev()) {
        assert_eq!(open(&sealer, text).unwrap(), epoch.to_be_bytes()[..]);
        let cached = cached(&sealer);
        // The hour in use is always cached, so that a long session does not derive its key again each time.
        assert!(cached.contains(&epoch) && cached.len() == HOURS_KEPT);
        assert!(cached.contains(&present), "the hour that seals was evicted by {epoch}");
    }
    let newest = hours.end + 1 - kept..hours.end;
    assert_eq!(cached(&sealer), std::iter::once(hours.start).chain(newest).collect::<Vec<_>>());
}

#[test]
fn tokens_of_any_hour_open() {
    // The plaintext decides whether a session has expired. The hour only selects the key.
    for epoch in [0, 1, EPOCH - 10_000, EPOCH - 1, EPOCH, EPOCH + 1, u32::MAX] {
        let token = Keys::new(APP_KEY, "session", NAME, epoch).seal(NONCE, PLAINTEXT);
        assert_eq!(open_raw(&sealer(), &token).unwrap(), PLAINTEXT);
    }
}

#[test]
fn threads_agree_over_many_hours() {
    let sealer = fixed_sealer(APP_KEY, Purpose::Session, NAME, NONCE);
    // More hours than are kept, so that keys are evicted while other threads use them.
    let hours = EPOCH..EPOCH + 2 * u32::try_from(HOURS_KEPT).unwrap();
    let expected: Vec<String> = hours
        .clone()
        .map(|epoch| encode(&Keys::new(APP_KEY, "session", NAME, epoch).seal(NONCE, &epoch.to_be_bytes())))
        .collect();
    let start = Barrier::new(4);
    thread::scope(|scope| {
        for thread in 0..4 {
            let (sealer, expected, start, hours) = (&sealer, &expected, &start, hours.clone());
            scope.spawn(move || {
                let mut order: Vec<_> = hours.zip(expected).collect();
                order.rotate_left(thread * 7);
                if thread % 2 == 1 {
                    order.reverse();
                }
                start.wait();
                for _ in 0..5 {
                    for (epoch, text) in &order {
                        assert_eq!(&sealer.seal(hour(*epoch), &[&epoch.to_be_bytes()]).unwrap(), *text);
                        assert_eq!(open(sealer, text).unwrap(), epoch.to_be_bytes()[..]);
                    }
                }
            });
        }
    });
    assert_eq!(cached(&sealer).len(), HOURS_KEPT);
}
