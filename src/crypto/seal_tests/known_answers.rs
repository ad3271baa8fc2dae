//! Known answers: published tokens, and random ones, against the independent implementation.

use proptest::collection::vec;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

use super::fixture::{
    APP_KEY, EPOCH, NAME, NONCE, NOW, OTHER_KEY, PLAINTEXT, app_key, cached, fixed_sealer, keys, open,
    open_raw, refuses_all, sealer, session_plaintext,
};
use super::independent::{self, Keys, decode, encode};
use crate::clock::Timestamp;
use crate::crypto::derive;
use crate::crypto::random::NONCE_LEN;
use crate::crypto::seal::{Purpose, Sealer};
use crate::crypto::vectors::Hex;

const PUBLISHED: &str = include_str!("../../../tests/vectors/tokens.json");

#[derive(Deserialize)]
struct Published {
    app_key: Hex,
    key_id: Hex,
    purpose: String,
    name: String,
    now: u64,
    epoch: u32,
    nonce: Hex,
    mac_key: Hex,
    encrypt_key: Hex,
    plaintext: Hex,
    token: String,
}

impl Published {
    fn all() -> Vec<Self> {
        #[derive(Deserialize)]
        struct File {
            tokens: Vec<Published>,
        }
        let tokens = serde_json::from_str::<File>(PUBLISHED).unwrap().tokens;
        assert_eq!(tokens.len(), 12);
        tokens
    }

    fn sealer(&self) -> Sealer {
        assert_eq!(self.purpose, Purpose::Session.as_str());
        let nonce = self.nonce.0.as_slice().try_into().unwrap();
        fixed_sealer(&self.app_key.0, Purpose::Session, &self.name, nonce)
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)]))
        .collect()
}

/// One row: application key, name, time, nonce, plaintext.
type Row<'a> = (&'a [u8], &'a str, u64, [u8; NONCE_LEN], &'a [u8]);

/// Returns the expected content of `tests/vectors/tokens.json`, made by the independent implementation.
fn expected_file() -> Value {
    let counting: Vec<u8> = (0..=255).cycle().take(1000).collect();
    let long_name = "n".repeat(256); // its length takes both bytes
    let last_hour = u64::from(u32::MAX) * 3600;
    let rows: [Row<'_>; 12] = [
        (APP_KEY, "s", 0, [0; 12], b""),
        (APP_KEY, "s", 3_599, [0xff; 12], b"\0"),
        (APP_KEY, "s", 3_600, [0xff; 12], b"\0"),
        (APP_KEY, NAME, 1_800_000_000, NONCE, &counting[..15]),
        (APP_KEY, NAME, 1_800_000_000, NONCE, &counting[..16]),
        (APP_KEY, NAME, 1_800_003_599, NONCE, &counting[..17]),
        (APP_KEY, NAME, 1_800_000_600, NONCE, &session_plaintext(b"\x81\xa4user\xa3ada")),
        (APP_KEY, NAME, 1_800_000_600, NONCE, &session_plaintext(b"{\"user\":\"ada\"}")),
        (APP_KEY, &long_name, 1_800_000_000, NONCE, b"a long name"),
        (APP_KEY, "s", last_hour, NONCE, b"the last hour"),
        (OTHER_KEY, "s", 1_800_000_000, NONCE, b"a key of 64 bytes"),
        (OTHER_KEY, NAME, 1_800_000_000, NONCE, &counting),
    ];
    let tokens = rows.map(|(app_key, name, now, nonce, plaintext)| {
        let keys = Keys::new(app_key, "session", name, u32::try_from(now / 3600).unwrap());
        json!({
            "app_key": to_hex(app_key),
            "key_id": to_hex(&keys.id),
            "purpose": "session",
            "name": name,
            "now": now,
            "epoch": keys.epoch,
            "nonce": to_hex(&nonce),
            "mac_key": to_hex(&keys.mac),
            "encrypt_key": to_hex(&keys.encrypt),
            "plaintext": to_hex(plaintext),
            "token": encode(&keys.seal(nonce, plaintext)),
        })
    });
    json!({ "format": "docs/WIRE.md section 2", "tokens": tokens })
}

#[test]
fn t02_the_published_tokens_are_those_of_the_independent_implementation() {
    let file: Value = serde_json::from_str(PUBLISHED).unwrap();
    let expected = expected_file();
    assert_eq!(file, expected, "the file should be:\n{expected:#}");
}

#[test]
fn t02_the_published_keys_are_derived() {
    for published in Published::all() {
        let app_key = app_key(&published.app_key.0);
        assert_eq!(app_key.id().to_bytes()[..], published.key_id.0);
        let key = |label, epoch| {
            let info = derive::Info { label, purpose: &published.purpose, name: &published.name };
            app_key.root().key(info, epoch).unwrap().to_vec()
        };
        assert_eq!(key("mac", None), published.mac_key.0);
        assert_eq!(key("encrypt", Some(published.epoch)), published.encrypt_key.0);
    }
}

#[test]
fn t02_the_published_tokens_are_sealed_byte_for_byte() {
    for published in Published::all() {
        let now = Timestamp::from_unix(published.now);
        let sealer = published.sealer();
        assert_eq!(sealer.seal(now, &[&published.plaintext.0]).unwrap(), published.token);
        assert_eq!(Sealer::token_len(published.plaintext.0.len()), published.token.len());
        assert_eq!(cached(&sealer), [published.epoch]);
    }
}

#[test]
fn t02_the_published_tokens_open() {
    for published in Published::all() {
        let opened = published.sealer().open(published.token.as_bytes()).unwrap();
        assert!(!opened.with_old_key());
        assert_eq!(opened.into_plaintext(), published.plaintext.0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn t02_what_either_implementation_seals_the_other_opens(
        plaintext in vec(any::<u8>(), 0..5000),
        cut in any::<prop::sample::Index>(),
        now in prop_oneof![0..=u64::MAX, 0..4_000_000_000_u64],
        nonce in any::<[u8; 12]>(),
    ) {
        let (sealer, now) = (sealer(), Timestamp::from_unix(now));
        let (one, two) = plaintext.split_at(cut.index(plaintext.len() + 1));
        let text = sealer.seal(now, &[one, two]).unwrap();
        prop_assert_eq!(text.len(), Sealer::token_len(plaintext.len()));
        let opened = independent::open(APP_KEY, "session", NAME, &text);
        prop_assert_eq!(opened.as_ref(), Some(&plaintext));

        let epoch = u32::try_from(now.as_unix() / 3600).unwrap_or(u32::MAX);
        let token = Keys::new(APP_KEY, "session", NAME, epoch).seal(nonce, &plaintext);
        prop_assert_eq!(open_raw(&sealer, &token).unwrap(), plaintext);
    }

    #[test]
    fn t01_bytes_that_no_key_made_never_open(
        bytes in vec(any::<u8>(), 0..400),
        header in any::<bool>(),
        encoded in any::<bool>(),
    ) {
        // Half of them name the right version and key, and so get as far as the signature.
        let start = if header { keys().header(NONCE) } else { Vec::new() };
        let token = [start, bytes].concat();
        let text = if encoded { encode(&token).into_bytes() } else { token };
        prop_assert_eq!(refuses_all(&sealer(), [text]), 1);
    }
}

#[test]
fn the_hour_is_in_the_token() {
    for (now, epoch) in [
        (0, 0_u32),
        (3_599, 0),
        (3_600, 1),
        (1_800_000_000, EPOCH),
        (u64::from(u32::MAX) * 3600 - 1, u32::MAX - 1),
        (u64::from(u32::MAX) * 3600, u32::MAX),
        (u64::MAX, u32::MAX),
    ] {
        let sealer = sealer();
        let text = sealer.seal(Timestamp::from_unix(now), &[PLAINTEXT]).unwrap();
        assert_eq!(decode(text.as_bytes()).unwrap()[5..9], epoch.to_be_bytes(), "{now}");
        assert_eq!(open(&sealer, text).unwrap(), PLAINTEXT);
    }
}

#[test]
fn parts_are_sealed_as_one() {
    let sealer = fixed_sealer(APP_KEY, Purpose::Session, NAME, NONCE);
    let whole = sealer.seal(NOW, &[b"abc"]).unwrap();
    for parts in [&[&b""[..], b"abc"][..], &[b"a", b"", b"bc"], &[b"a", b"b", b"c"]] {
        assert_eq!(sealer.seal(NOW, parts).unwrap(), whole);
    }
    assert_eq!(sealer.seal(NOW, &[]).unwrap(), sealer.seal(NOW, &[b""]).unwrap());
}
