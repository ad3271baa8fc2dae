//! Secrets: nonces that are never repeated, and keys that are never printed.

use std::collections::HashSet;
use std::sync::Arc;
use std::thread;

use bytes::Bytes;

use super::fixture::{
    APP_KEY, EPOCH, NAME, NONCE, NOW, OTHER_KEY, PLAINTEXT, app_key, fixed_sealer, hour, keys, open_raw,
    ring, sealer, sealer_of,
};
use super::independent::{Keys, decode};
use crate::crypto::Random;
use crate::crypto::random::SystemRandom;
use crate::crypto::random::tests::NoRandom;
use crate::crypto::seal::{Purpose, Sealer};
use crate::error::Error;

// ---- Nonces -----------------------------------------------------------------------------------------------------

#[test]
fn t14_without_random_bytes_there_is_no_token() {
    let sealer = Sealer::new(&ring(&[APP_KEY]), Purpose::Session, NAME, Arc::new(NoRandom)).unwrap();
    for _ in 0..2 {
        assert!(sealer.seal(NOW, &[PLAINTEXT]).unwrap_err().is_random());
    }
    // Opening needs no nonce.
    assert_eq!(open_raw(&sealer, &keys().seal(NONCE, PLAINTEXT)).unwrap(), PLAINTEXT);
}

#[test]
fn t14_random_bytes_that_run_out_are_not_made_up_for() {
    /// A generator that returns one nonce.
    struct One(std::sync::atomic::AtomicBool);
    impl Random for One {
        fn fill(&self, out: &mut [u8]) -> Result<(), Error> {
            if self.0.swap(false, std::sync::atomic::Ordering::SeqCst) {
                return SystemRandom.fill(out);
            }
            NoRandom.fill(out)
        }
    }
    let sealer = Sealer::new(&ring(&[APP_KEY]), Purpose::Session, NAME, Arc::new(One(true.into()))).unwrap();
    sealer.seal(NOW, &[PLAINTEXT]).unwrap();
    for _ in 0..3 {
        assert!(sealer.seal(NOW, &[PLAINTEXT]).unwrap_err().is_random());
    }
}

#[test]
fn t16_each_token_has_a_nonce_of_its_own() {
    let sealer = sealer();
    let (mut texts, mut nonces) = (HashSet::new(), HashSet::new());
    thread::scope(|scope| {
        let threads = [(); 4].map(|()| {
            scope.spawn(|| {
                let seal = |_| sealer.seal(NOW, &[PLAINTEXT]).unwrap();
                (0..500).map(seal).collect::<Vec<_>>()
            })
        });
        for text in threads.into_iter().flat_map(|thread| thread.join().unwrap()) {
            nonces.insert(decode(text.as_bytes()).unwrap()[9..21].to_vec());
            texts.insert(text);
        }
    });
    // The same plaintext in the same hour: all tokens differ.
    assert_eq!((nonces.len(), texts.len()), (2000, 2000));
}

#[test]
fn t16_a_nonce_that_comes_again_elsewhere_meets_another_key() {
    let ciphertext = |app_key, purpose, name, epoch| {
        let text = fixed_sealer(app_key, purpose, name, NONCE).seal(hour(epoch), &[&[0; 40]]).unwrap();
        decode(text.as_bytes()).unwrap()[21..61].to_vec()
    };
    // The ciphertext of zeros is the key stream. Two equal ones would mean that key and nonce were used twice.
    let streams = HashSet::from([
        ciphertext(APP_KEY, Purpose::Session, NAME, EPOCH),
        ciphertext(APP_KEY, Purpose::Session, NAME, EPOCH + 1),
        ciphertext(APP_KEY, Purpose::Session, NAME, EPOCH ^ 0x8000_0000),
        ciphertext(APP_KEY, Purpose::Session, "other", EPOCH),
        ciphertext(APP_KEY, Purpose::Test, NAME, EPOCH),
        ciphertext(OTHER_KEY, Purpose::Session, NAME, EPOCH),
    ]);
    assert_eq!(streams.len(), 6);
}

// ---- Debug ------------------------------------------------------------------------------------------------------

/// Returns true if `printed` contains eight consecutive bytes of `secret`, in a form in which `Debug` prints bytes.
fn shows(printed: &str, secret: &[u8]) -> bool {
    let printed: String = printed.split_whitespace().collect();
    secret.windows(8).any(|bytes| {
        let list = |format: fn(&u8) -> String| bytes.iter().map(format).collect::<Vec<_>>();
        [
            list(|byte| format!("{byte:02x}")).concat(),
            list(|byte| format!("{byte:02X}")).concat(),
            list(u8::to_string).join(","),
            list(|byte| format!("{byte:02x}")).join(","),
            list(|byte| format!("0x{byte:02x}")).join(","),
            bytes.escape_ascii().to_string().split_whitespace().collect(),
        ]
        .iter()
        .any(|spelling| printed.contains(spelling))
    })
}

fn assert_debug_hides(value: &dyn std::fmt::Debug, secrets: &[&[u8]]) {
    for printed in [format!("{value:?}"), format!("{value:#?}"), format!("{value:x?}")] {
        for secret in secrets {
            assert!(!shows(&printed, secret), "{printed} shows {:?}", secret.escape_ascii().to_string());
        }
    }
}

#[test]
fn the_search_for_secrets_finds_them() {
    let secret = b"\x00\x07secret bytes\xff";
    let bytes = Bytes::from_static(secret);
    for printed in [
        format!("{secret:?}"),
        format!("{secret:#?}"),
        format!("{secret:x?}"),
        format!("{bytes:?}"),
        format!("{:?}", [0; 3].iter().chain(secret).collect::<Vec<_>>()),
    ] {
        assert!(shows(&printed, secret), "{printed}");
    }
    assert!(!shows("Sealer { keys: [00000000], .. }", secret));
}

#[test]
fn t77_debug_of_keyring_and_sealer_shows_no_keys() {
    let keyring = ring(&[APP_KEY, OTHER_KEY]).revoke(app_key(b"a third").id());
    let sealer = sealer_of(&keyring);
    sealer.seal(NOW, &[PLAINTEXT]).unwrap(); // so that there is a key of an hour to show
    let other = Keys::new(OTHER_KEY, "session", NAME, EPOCH);
    let secrets = [APP_KEY, OTHER_KEY, &keys().mac, &keys().encrypt, &other.mac, &other.encrypt];
    assert_debug_hides(&keyring, &secrets);
    assert_debug_hides(&sealer, &secrets);
    // They do show which keys there are.
    for printed in [format!("{keyring:?}"), format!("{sealer:?}")] {
        assert!(printed.contains(&app_key(APP_KEY).id().to_string()), "{printed}");
    }
}

#[test]
fn t77_debug_of_an_opened_token_shows_no_plaintext() {
    let sealer = sealer();
    let text = sealer.seal(NOW, &[PLAINTEXT]).unwrap();
    let opened = sealer.open(text.as_bytes()).unwrap();
    assert_debug_hides(&opened, &[PLAINTEXT]);
}
