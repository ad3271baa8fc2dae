//! Astra's cookies: its own vectors, an independent implementation, attacks, and the distinction from native tokens.

use base64::prelude::{
    BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD, Engine as _,
};
use proptest::prelude::*;

use super::*;
use crate::clock::Timestamp;
use crate::crypto::NoRandom;
use crate::crypto::{Keyring, Purpose, SystemRandom};

#[path = "../../tests/support/astra.rs"]
mod independent;

use independent::{Vector, decode, encode, encrypt, vectors};

const APP_KEY: &[u8] = b"an application key of Astra, of any length";
const JSON: &[u8] = br#"{"user":"ada"}"#;

fn app_key(bytes: &[u8]) -> AppKey {
    AppKey::danger_from_any_bytes(bytes).unwrap()
}

fn sealer_of(key: &[u8]) -> AstraSealer {
    AstraSealer::new(&app_key(key), Arc::new(SystemRandom)).unwrap()
}

fn sealer() -> AstraSealer {
    sealer_of(APP_KEY)
}

fn native() -> Sealer {
    let ring = Keyring::new(app_key(b"one")).accept(app_key(b"two")).revoke(app_key(b"three").id());
    Sealer::new(&ring, Purpose::Session, "s", Arc::new(SystemRandom)).unwrap()
}

#[test]
fn derived_keys_are_those_of_astra() {
    for Vector { app_key, cipher_key, mac_key, .. } in vectors() {
        assert_eq!(*derive(&app_key, "astra-session-enc"), cipher_key[..]);
        assert_eq!(*derive(&app_key, "astra-session-sig"), mac_key[..]);
        assert_eq!(independent::derive(&app_key, "astra-session-enc"), cipher_key[..]);
    }
}

#[test]
fn every_vector_opens_to_the_exact_json() {
    for Vector { app_key, cookie, json, .. } in vectors() {
        assert_eq!(sealer_of(&app_key).open(cookie.as_bytes()).unwrap(), json);
        assert_eq!(independent::open(&app_key, cookie.as_bytes()).unwrap(), json.as_bytes());
        assert_eq!(format_of(cookie.as_bytes(), &native()), CookieFormat::Astra);
    }
}

// T02: each bit of three cookies, one for each amount of padding.
#[test]
fn t02_every_flipped_bit_is_refused() {
    let mut paddings = Vec::new();
    for Vector { app_key, cookie, .. } in vectors() {
        let padding = cookie.bytes().filter(|&byte| byte == b'=').count();
        if paddings.contains(&padding) {
            continue;
        }
        paddings.push(padding);
        let (sealer, token) = (sealer_of(&app_key), decode(&cookie));
        for bit in 0..token.len() * 8 {
            let mut token = token.clone();
            token[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(sealer.open(encode(&token).as_bytes()), Err(Refusal::Ciphertext), "bit {bit}");
        }
        for at in 0..cookie.len() {
            let mut text = cookie.clone().into_bytes();
            for bit in 0..8 {
                text[at] ^= 1 << bit;
                assert!(sealer.open(&text).is_err(), "{}", text.escape_ascii());
                text[at] ^= 1 << bit;
            }
        }
    }
    paddings.sort_unstable();
    assert_eq!(paddings, [0, 1, 2]);
}

// T70: every other length, and every other encoding of the same bytes.
#[test]
fn t70_truncated_extended_and_respelled_cookies_are_refused() {
    for Vector { app_key, cookie, .. } in vectors() {
        let (sealer, token) = (sealer_of(&app_key), decode(&cookie));
        for len in 0..token.len() {
            let expected = if len < OVERHEAD { Refusal::Length } else { Refusal::Ciphertext };
            assert_eq!(sealer.open(encode(&token[..len]).as_bytes()), Err(expected), "{len}");
            assert!(sealer.open(&cookie.as_bytes()[..len]).is_err());
        }
        for more in [&[0][..], &[0; 16], &token] {
            let longer = encode(&[&token, more].concat());
            assert_eq!(sealer.open(longer.as_bytes()), Err(Refusal::Ciphertext));
            let longer = encode(&[more, &token].concat());
            assert_eq!(sealer.open(longer.as_bytes()), Err(Refusal::Ciphertext));
        }
        // Go's decoder skips line breaks and ignores the unused bits of the last character.
        let (head, tail) = cookie.split_at(40);
        let mut others = vec![
            BASE64_STANDARD.encode(&token),
            BASE64_STANDARD_NO_PAD.encode(&token),
            BASE64_URL_SAFE_NO_PAD.encode(&token),
            format!("{cookie}="),
            format!("{cookie}===="),
            format!(" {cookie}"),
            format!("{cookie}\n"),
            format!("{head}\r\n{tail}"),
            format!("\"{cookie}\""),
            cookie.replace('=', "%3D"),
            cookie.to_ascii_lowercase(),
        ];
        let unpadded = cookie.trim_end_matches('=');
        let (last, padding) = (unpadded.as_bytes()[unpadded.len() - 1], &cookie[unpadded.len()..]);
        let same_bytes = (b'-'..=b'z').filter(|&other| other != last);
        others.extend(
            same_bytes
                .map(|other| format!("{}{}{padding}", &unpadded[..unpadded.len() - 1], char::from(other))),
        );
        for other in others.into_iter().filter(|other| *other != cookie) {
            assert!(sealer.open(other.as_bytes()).is_err(), "{other:?}");
        }
    }
}

// T02: the GCM tag is not enough.
#[test]
fn t02_the_inner_hmac_counts() {
    let sealer = sealer();
    let mac = hmac::sign(&sealer.mac, JSON);
    let good = encrypt(APP_KEY, [7; 12], JSON, mac.as_ref());
    assert_eq!(sealer.open(encode(&good).as_bytes()).unwrap(), JSON);
    for bit in 0..256 {
        let mut mac = mac.as_ref().to_vec();
        mac[bit / 8] ^= 1 << (bit % 8);
        let forged = encode(&encrypt(APP_KEY, [7; 12], JSON, &mac));
        assert_eq!(sealer.open(forged.as_bytes()), Err(Refusal::Signature), "bit {bit}");
    }
    let other = hmac::sign(&sealer_of(b"another key").mac, JSON);
    let forged = encode(&encrypt(APP_KEY, [7; 12], JSON, other.as_ref()));
    assert_eq!(sealer.open(forged.as_bytes()), Err(Refusal::Signature));
    // Too short for an HMAC, behind a good tag.
    let forged = encode(&encrypt(APP_KEY, [7; 12], b"", &mac.as_ref()[..31]));
    assert_eq!(sealer.open(forged.as_bytes()), Err(Refusal::Length));
}

#[test]
fn cookies_of_another_key_are_refused() {
    let cookie = sealer().seal(JSON).unwrap();
    assert!(sealer().open(cookie.as_bytes()).is_ok());
    assert_eq!(sealer_of(b"another key").open(cookie.as_bytes()), Err(Refusal::Ciphertext));
}

#[test]
fn t14_no_random_no_cookie() {
    let sealer = AstraSealer::new(&app_key(APP_KEY), Arc::new(NoRandom)).unwrap();
    assert!(sealer.seal(JSON).unwrap_err().is_random());
}

/// Nonces that all begin with the same byte.
struct Begins(u8);

impl Random for Begins {
    fn fill(&self, out: &mut [u8]) -> Result<(), Error> {
        SystemRandom.fill(out)?;
        out[0] = self.0;
        Ok(())
    }
}

#[test]
fn no_cookie_of_ours_begins_like_a_native_token() {
    for byte in 0..=255 {
        let sealer = AstraSealer::new(&app_key(APP_KEY), Arc::new(Begins(byte))).unwrap();
        match sealer.seal(JSON) {
            Ok(cookie) => assert_eq!(decode(&cookie)[0], byte),
            Err(error) => assert!(error.is_random() && byte == VERSION, "{byte}"),
        }
    }
}

// The third rule, if neither length nor padding decides: 5 bytes do.
#[test]
fn five_bytes_decide_where_padding_does_not() {
    let (native, ids) = (native(), [b"one".as_slice(), b"two", b"three"].map(|key| app_key(key).id()));
    for id in ids {
        let start = [&[VERSION][..], &id.to_bytes()].concat();
        let begins = |start: &[u8]| encode(&[start, &[9; 70]].concat()[..69]);
        assert_eq!(format_of(begins(&start).as_bytes(), &native), CookieFormat::Native);
        for bit in 0..40 {
            let mut start = start.clone();
            start[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(format_of(begins(&start).as_bytes(), &native), CookieFormat::Astra, "bit {bit}");
        }
    }
    // Astra made the second of these. It is refused as a native token: no other format is tried.
    let nonce = [&[VERSION][..], &ids[0].to_bytes(), &[0; 7]].concat();
    let unlucky = independent::seal(APP_KEY, nonce.try_into().unwrap(), b"{\"abcde\":12}");
    assert!(!unlucky.contains('=') && sealer().open(unlucky.as_bytes()).is_ok());
    assert_eq!(format_of(unlucky.as_bytes(), &native), CookieFormat::Native);
    assert_eq!(native.open(unlucky.as_bytes()).unwrap_err(), Refusal::Signature);
}

proptest! {
    #[test]
    fn both_implementations_read_each_other(
        key in proptest::collection::vec(any::<u8>(), 0..200),
        json in proptest::collection::vec(any::<u8>(), 0..300),
        nonce: [u8; 12],
    ) {
        let sealer = sealer_of(&key);
        let ours = sealer.seal(&json).unwrap();
        prop_assert_eq!(ours.len(), AstraSealer::token_len(json.len()));
        prop_assert_eq!(independent::open(&key, ours.as_bytes()), Some(json.clone()));
        prop_assert_eq!(sealer.open(ours.as_bytes()).unwrap(), &json);
        let theirs = independent::seal(&key, nonce, &json);
        prop_assert_eq!(sealer.open(theirs.as_bytes()).unwrap(), &json);
    }

    // Each sealer's texts have one format, and neither opens the other's: not even under the same application key.
    #[test]
    fn formats_are_told_apart_by_form(
        plaintext in proptest::collection::vec(any::<u8>(), 0..200),
        hours in 0..u32::MAX,
        nonce: [u8; 12],
    ) {
        let (astra, native) = (sealer_of(b"one"), native());
        let ours = astra.seal(&plaintext).unwrap();
        prop_assert_eq!(format_of(ours.as_bytes(), &native), CookieFormat::Astra);
        prop_assert!(native.open(ours.as_bytes()).is_err());

        let token = native.seal(Timestamp::from_unix(u64::from(hours) * 3600), &[&plaintext]).unwrap();
        prop_assert_eq!(format_of(token.as_bytes(), &native), CookieFormat::Native);
        prop_assert!(astra.open(token.as_bytes()).is_err());
        let padded = BASE64_URL_SAFE.encode(BASE64_URL_SAFE_NO_PAD.decode(&token).unwrap());
        prop_assert!(astra.open(padded.as_bytes()).is_err());

        // Astra's own cookies, with any nonce but one in 2^40: `five_bytes_decide_where_padding_does_not` tests those.
        let theirs = independent::seal(APP_KEY, nonce, &plaintext);
        let unlucky = nonce[0] == VERSION && native.names_a_key(&nonce[1..5]) && !theirs.contains('=');
        prop_assert_eq!(format_of(theirs.as_bytes(), &native) == CookieFormat::Native, unlucky);
    }

    #[test]
    fn any_text_has_a_format_and_none_opens(text in proptest::collection::vec(any::<u8>(), 0..200)) {
        let (astra, native) = (sealer(), native());
        match format_of(&text, &native) {
            CookieFormat::Native => prop_assert!(native.open(&text).is_err()),
            CookieFormat::Astra => prop_assert!(astra.open(&text).is_err()),
        }
        for text in [encode(&text), BASE64_URL_SAFE_NO_PAD.encode(&text)] {
            prop_assert!(astra.open(text.as_bytes()).is_err());
        }
    }
}
