//! Tokens against a second implementation of their format, and against all that must not open.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Barrier;
use std::thread;

use proptest::collection::vec;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

use super::*;
use crate::crypto::random::tests::NoRandom;
use crate::crypto::random::{NONCE_LEN, SystemRandom};
use crate::crypto::vectors::Hex;
use crate::crypto::{AppKey, derive};

const PUBLISHED: &str = include_str!("../../tests/vectors/tokens.json");

const APP_KEY: &[u8] = b"hyper-session example key, public";
const OTHER_KEY: &[u8] = b"another key that is of no use to anyone, of a length of its own.";
const NAME: &str = "__Host-session";

const NOW: Timestamp = Timestamp::from_unix(1_800_000_000);
const EPOCH: u32 = 500_000;
const NONCE: [u8; NONCE_LEN] = *b"twelve bytes";

const PLAINTEXT: &[u8] = b"forty bytes that nobody else may read...";

/// The token format once more, from docs/WIRE.md and with RustCrypto. It shares no code with the crate.
mod independent {
    use aes_gcm::aead::{Aead as _, Payload};
    use aes_gcm::{Aes256Gcm, KeyInit as _};
    use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
    use hkdf::Hkdf;
    use hmac::{Hmac, Mac};
    use sha2::Sha256;

    pub(super) struct Keys {
        pub(super) id: [u8; 4],
        pub(super) mac: [u8; 32],
        pub(super) encrypt: [u8; 32],
        pub(super) epoch: u32,
    }

    fn expand<const N: usize>(app_key: &[u8], parts: &[&[u8]]) -> [u8; N] {
        let part = |part: &&[u8]| [&u16::try_from(part.len()).unwrap().to_be_bytes(), *part].concat();
        let info = parts.iter().map(part).collect::<Vec<_>>().join(&0);
        let mut key = [0; N];
        let hkdf = Hkdf::<Sha256>::new(Some(b"hyper-session v1"), app_key);
        hkdf.expand(&info, &mut key).unwrap();
        key
    }

    impl Keys {
        pub(super) fn new(app_key: &[u8], purpose: &str, name: &str, epoch: u32) -> Self {
            let (purpose, name) = (purpose.as_bytes(), name.as_bytes());
            Self {
                id: expand(app_key, &[b"key id", b"", b""]),
                mac: expand(app_key, &[b"mac", purpose, name]),
                encrypt: expand(app_key, &[b"encrypt", purpose, name, &epoch.to_be_bytes()]),
                epoch,
            }
        }

        pub(super) fn header(&self, nonce: [u8; 12]) -> Vec<u8> {
            [&[1], &self.id[..], &self.epoch.to_be_bytes(), &nonce].concat()
        }

        /// Ciphertext and GCM tag.
        pub(super) fn encrypt(&self, nonce: [u8; 12], aad: &[u8], msg: &[u8]) -> Vec<u8> {
            let cipher = Aes256Gcm::new(&self.encrypt.into());
            cipher.encrypt(&nonce.into(), Payload { msg, aad }).unwrap()
        }

        fn hmac(&self, signed: &[u8]) -> Hmac<Sha256> {
            <Hmac<Sha256> as Mac>::new_from_slice(&self.mac).unwrap().chain_update(signed)
        }

        /// The token of whatever `signed` is, with its true signature.
        pub(super) fn sign(&self, signed: &[u8]) -> Vec<u8> {
            [signed, &self.hmac(signed).finalize().into_bytes()].concat()
        }

        pub(super) fn seal(&self, nonce: [u8; 12], plaintext: &[u8]) -> Vec<u8> {
            let header = self.header(nonce);
            let body = self.encrypt(nonce, &header, plaintext);
            self.sign(&[header, body].concat())
        }
    }

    pub(super) fn open(app_key: &[u8], purpose: &str, name: &str, text: &str) -> Option<Vec<u8>> {
        let token = decode(text.as_bytes())?;
        let (signed, mac) = token.split_at_checked(token.len().checked_sub(32)?)?;
        let (header, body) = signed.split_at_checked(21)?;
        let keys = Keys::new(app_key, purpose, name, u32::from_be_bytes(header[5..9].try_into().ok()?));
        let nonce: [u8; 12] = header[9..].try_into().ok()?;
        if keys.header(nonce) != header {
            return None;
        }
        keys.hmac(signed).verify_slice(mac).ok()?;
        let cipher = Aes256Gcm::new(&keys.encrypt.into());
        let payload = Payload { msg: body, aad: header };
        cipher.decrypt(&nonce.into(), payload).ok()
    }

    pub(super) fn encode(token: &[u8]) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(token)
    }

    pub(super) fn decode(text: &[u8]) -> Option<Vec<u8>> {
        BASE64_URL_SAFE_NO_PAD.decode(text).ok()
    }
}

use independent::{Keys, decode, encode};

/// Gives the same nonce each time, so that a token can be known beforehand.
struct FixedNonce([u8; NONCE_LEN]);

impl Random for FixedNonce {
    fn fill(&self, out: &mut [u8]) -> Result<(), Error> {
        out.copy_from_slice(&self.0);
        Ok(())
    }
}

fn app_key(bytes: &[u8]) -> AppKey {
    AppKey::danger_from_any_bytes(bytes).unwrap()
}

fn ring(keys: &[&[u8]]) -> Keyring {
    let (first, others) = keys.split_first().unwrap();
    let ring = Keyring::new(app_key(first));
    others.iter().fold(ring, |ring, key| ring.accept(app_key(key)))
}

fn sealer_of(keyring: &Keyring) -> Sealer {
    Sealer::new(keyring, Purpose::Session, NAME, Arc::new(SystemRandom)).unwrap()
}

fn sealer() -> Sealer {
    sealer_of(&ring(&[APP_KEY]))
}

fn fixed_sealer(app_key: &[u8], purpose: Purpose, name: &str, nonce: [u8; NONCE_LEN]) -> Sealer {
    Sealer::new(&ring(&[app_key]), purpose, name, Arc::new(FixedNonce(nonce))).unwrap()
}

/// The keys of [`sealer`], by the other implementation.
fn keys() -> Keys {
    Keys::new(APP_KEY, "session", NAME, EPOCH)
}

fn hour(epoch: u32) -> Timestamp {
    Timestamp::from_unix(u64::from(epoch) * 3600)
}

fn open(sealer: &Sealer, text: impl AsRef<[u8]>) -> Result<Bytes, Refusal> {
    sealer.open(text.as_ref()).map(Opened::into_plaintext)
}

fn open_raw(sealer: &Sealer, token: &[u8]) -> Result<Bytes, Refusal> {
    open(sealer, encode(token))
}

/// The hours whose encryption keys the sealing key holds.
fn cached(sealer: &Sealer) -> Vec<u32> {
    let keys = sealer.keys[0].epochs.keys.read().unwrap();
    keys.keys().copied().collect()
}

/// Why [`sealer`], whose key has this `id`, refuses a text that nobody sealed: the order of checks in docs/WIRE.md.
fn reason(text: &[u8], id: [u8; 4]) -> Refusal {
    let Some(token) = decode(text) else {
        return Refusal::Encoding;
    };
    match token.as_slice() {
        token if token.len() < 21 => Refusal::Length,
        token if token[0] != 1 => Refusal::Version,
        token if token.len() < 69 => Refusal::Length,
        token if token[1..5] != id => Refusal::UnknownKey,
        _ => Refusal::Signature,
    }
}

/// Holds that `sealer` refuses each of `texts`, for the documented reason, and derives no key for any. Returns how many
/// there were.
fn refuses_all(sealer: &Sealer, texts: impl IntoIterator<Item = Vec<u8>>) -> usize {
    let (before, id) = (cached(sealer), keys().id);
    let mut count = 0;
    for text in texts {
        let shown = text.escape_ascii();
        assert_eq!(open(sealer, &text), Err(reason(&text, id)), "{shown}");
        count += 1;
    }
    assert_eq!(cached(sealer), before, "a forged token had a key derived");
    count
}

// ---- Known answers ----------------------------------------------------------------------------------------------

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

/// A session as docs/WIRE.md lays it out, so that the file serves who reads cookies with another program.
fn session_plaintext(payload: &[u8]) -> Vec<u8> {
    let times = [1_800_000_000_u64, 1_800_000_600, 1_800_002_400];
    let times: Vec<u8> = times.into_iter().flat_map(u64::to_be_bytes).collect();
    [b"sixteen byte id.", &times[..], payload].concat()
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

/// What `tests/vectors/tokens.json` has to hold, made by the independent implementation.
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
        // Half of them name the right version and key, and so come as far as the signature.
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

// ---- Forged tokens ----------------------------------------------------------------------------------------------

#[test]
fn t02_every_flipped_bit_is_refused() {
    for len in [0, 1, 16, 41, 300] {
        let token = keys().seal(NONCE, &vec![b'x'; len]);
        let sealer = sealer();
        let flipped = (0..token.len() * 8).map(|bit| {
            let mut token = token.clone();
            token[bit / 8] ^= 1 << (bit % 8);
            encode(&token).into_bytes()
        });
        assert_eq!(refuses_all(&sealer, flipped), (69 + len) * 8);
        assert_eq!(open_raw(&sealer, &token).unwrap(), vec![b'x'; len]);
    }
}

#[test]
fn t02_every_other_character_is_refused() {
    // Lengths that leave none, two and four unused bits in the last character.
    for len in [0, 1, 2, 40] {
        let text = encode(&keys().seal(NONCE, &PLAINTEXT[..len])).into_bytes();
        let changed = (0..text.len()).flat_map(|at| {
            let text = &text;
            (1..=255).map(move |difference| {
                let mut text = text.clone();
                text[at] ^= difference;
                text
            })
        });
        assert_eq!(refuses_all(&sealer(), changed), text.len() * 255);
    }
}

#[test]
fn t03_t70_every_truncation_is_refused() {
    for len in [0, 1, 40] {
        let token = keys().seal(NONCE, &PLAINTEXT[..len]);
        let text = encode(&token).into_bytes();
        let cuts = (0..token.len()).flat_map(|at| [&token[..at], &token[token.len() - at..]]);
        let cuts = cuts.map(|cut| encode(cut).into_bytes());
        assert_eq!(refuses_all(&sealer(), cuts), 2 * token.len());
        let cuts = (0..text.len()).flat_map(|at| [text[..at].to_vec(), text[text.len() - at..].to_vec()]);
        assert_eq!(refuses_all(&sealer(), cuts), 2 * text.len());
        // A byte that is missing anywhere, not at the ends alone.
        let gaps = (0..token.len()).map(|at| [&token[..at], &token[at + 1..]].concat());
        assert_eq!(refuses_all(&sealer(), gaps.map(|gap| encode(&gap).into_bytes())), token.len());
    }
}

#[test]
fn t70_every_extension_is_refused() {
    for len in [0, 1, 2, 40] {
        let token = keys().seal(NONCE, &PLAINTEXT[..len]);
        let text = encode(&token).into_bytes();
        for byte in 0..=255 {
            let raw = [[&token[..], &[byte]].concat(), [&[byte], &token[..]].concat()];
            refuses_all(&sealer(), raw.map(|token| encode(&token).into_bytes()));
            refuses_all(&sealer(), [[&text[..], &[byte]].concat(), [&[byte], &text[..]].concat()]);
        }
        for zeros in 2..=80 {
            refuses_all(&sealer(), [encode(&[&token[..], &vec![0; zeros]].concat()).into_bytes()]);
        }
        refuses_all(&sealer(), [text.repeat(2), encode(&token.repeat(2)).into_bytes()]);
    }
}

#[test]
fn t02_halves_of_two_tokens_are_refused() {
    let one = keys().seal(NONCE, PLAINTEXT);
    let others = [
        keys().seal(*b"other nonce.", PLAINTEXT),
        keys().seal(NONCE, b"forty other bytes that nobody may read.."),
        keys().seal(NONCE, b"fewer bytes"),
        Keys::new(APP_KEY, "session", NAME, EPOCH + 1).seal(NONCE, PLAINTEXT),
    ];
    for other in &others {
        let mut spliced = 0;
        for at in 0..one.len().max(other.len()) {
            let (a, b) = (at.min(one.len()), at.min(other.len()));
            for token in [[&one[..a], &other[b..]].concat(), [&other[..b], &one[a..]].concat()] {
                // Up to where the two first differ, a splice is one of the two.
                if token != one && token != *other {
                    spliced += refuses_all(&sealer(), [encode(&token).into_bytes()]);
                }
            }
        }
        assert!(spliced >= 64, "{spliced}");
    }
}

#[test]
fn t02_fields_of_two_tokens_are_refused() {
    let tokens = [
        keys().seal(NONCE, PLAINTEXT),
        keys().seal(*b"other nonce.", b"forty other bytes that nobody may read.."),
    ];
    let fields = [0..9, 9..21, 21..61, 61..77, 77..109];
    let mut refused = 0;
    for choice in 0..1 << fields.len() {
        let mixed: Vec<u8> = fields
            .iter()
            .enumerate()
            .flat_map(|(at, field)| &tokens[choice >> at & 1][field.clone()])
            .copied()
            .collect();
        if !tokens.contains(&mixed) {
            refused += refuses_all(&sealer(), [encode(&mixed).into_bytes()]);
        }
    }
    // Of 32 choices four make one of the two tokens: version, key id and epoch are the same.
    assert_eq!(refused, 28);
}

#[test]
fn t01_t67_what_was_never_sealed_is_refused() {
    let session = session_plaintext(b"\x81\xa4user\xa3ada");
    let json =
        br#"{"user":"ada","admin":true,"padding":"so that it is as long as a token may be at the least"}"#;
    let astra =
        b"v5hWsgz0ePdWhLcWlEJcsNm-eM0ZTOQTW9F9_bICgorm5ymElFwI8z6ChWNsmKkf_y_AfZlMZj8cy1uvj-ERjRSaCKXq0aoX\
        soUQQmA2Sozzc-pduHcA1QPrM2oMa42RNsEy7I7WYqEN4eGxBZ1YfGFcVITRCmPdFnLh8zO4dQ==";
    let header = keys().header(NONCE);
    let texts = [
        b"".to_vec(),
        b"{}".to_vec(),
        b"null".to_vec(),
        json.to_vec(),
        encode(json).into_bytes(),
        session.clone(),
        encode(&session).into_bytes(),
        astra.to_vec(),
        // The plaintext where the ciphertext belongs, with room for tag and signature.
        encode(&[&header[..], &session].concat()).into_bytes(),
        encode(&[&header[..], &session, &[0; 48]].concat()).into_bytes(),
        vec![0; 4096],
        vec![b'A'; 100_000],
    ];
    assert_eq!(refuses_all(&sealer(), texts), 12);
}

#[test]
fn t02_the_signature_is_checked_before_the_ciphertext() {
    let keys = keys();
    let token = keys.seal(NONCE, PLAINTEXT);
    let (signed, mac) = token.split_at(token.len() - MAC_LEN);
    let signed_by = |key: &[u8], message: &[u8]| [signed, &hmac_sign(key, message)].concat();
    let swapped: Vec<u8> = [&mac[16..], &mac[..16]].concat();

    // The ciphertext is what the right key made; the signature is not.
    let wrong = [
        [signed, &[0; MAC_LEN]].concat(),
        [signed, &[0xff; MAC_LEN]].concat(),
        [signed, &swapped].concat(),
        signed_by(&keys.encrypt, signed),
        signed_by(APP_KEY, signed),
        signed_by(&[], signed),
        signed_by(&Keys::new(APP_KEY, "session", "other", EPOCH).mac, signed),
        signed_by(&keys.mac, &signed[HEADER_LEN..]),
        signed_by(&keys.mac, &signed[..signed.len() - TAG_LEN]),
        signed_by(&keys.mac, PLAINTEXT),
        signed_by(&keys.mac, b""),
        signed.to_vec(),
    ];
    let sealer = sealer();
    let wrong = wrong.map(|token| encode(&token).into_bytes());
    assert_eq!(refuses_all(&sealer, wrong), 12);
    assert_eq!(cached(&sealer), [0_u32; 0]);
    assert_eq!(open_raw(&sealer, &signed_by(&keys.mac, signed)).unwrap(), PLAINTEXT);
}

// Only who holds the signing key gets here. The cipher refuses by itself what the signature lets through.
#[test]
fn t02_signed_but_altered_ciphertexts_are_refused() {
    let keys = keys();
    let token = keys.seal(NONCE, PLAINTEXT);
    let signed = &token[..token.len() - MAC_LEN];
    let sealer = sealer();
    for bit in 0..signed.len() * 8 {
        let mut signed = signed.to_vec();
        signed[bit / 8] ^= 1 << (bit % 8);
        let expected = match bit / 8 {
            0 => Refusal::Version,
            1..5 => Refusal::UnknownKey,
            _ => Refusal::Ciphertext,
        };
        assert_eq!(open_raw(&sealer, &keys.sign(&signed)), Err(expected), "bit {bit}");
    }

    let header = keys.header(NONCE);
    let other_hour = Keys::new(APP_KEY, "session", NAME, EPOCH + 1);
    let other_name = Keys::new(APP_KEY, "session", "other", EPOCH);
    for (what, body) in [
        ("no associated data", keys.encrypt(NONCE, b"", PLAINTEXT)),
        ("part of the header", keys.encrypt(NONCE, &header[..9], PLAINTEXT)),
        ("another nonce", keys.encrypt([1; 12], &header, PLAINTEXT)),
        ("the key of another hour", other_hour.encrypt(NONCE, &header, PLAINTEXT)),
        ("the key of another name", other_name.encrypt(NONCE, &header, PLAINTEXT)),
        ("no encryption", [PLAINTEXT, &[0; TAG_LEN]].concat()),
    ] {
        let token = keys.sign(&[header.clone(), body].concat());
        assert_eq!(open_raw(&sealer, &token), Err(Refusal::Ciphertext), "{what}");
    }
}

#[test]
fn t03_short_tags_and_signatures_are_refused() {
    let keys = keys();
    for len in [0, 1, 40] {
        let token = keys.seal(NONCE, &PLAINTEXT[..len]);
        let (signed, mac) = token.split_at(token.len() - MAC_LEN);
        for tag in 0..TAG_LEN {
            // Signed anew, so that the length of the GCM tag alone is wrong.
            let token = keys.sign(&signed[..signed.len() - TAG_LEN + tag]);
            let expected = if token.len() < OVERHEAD { Refusal::Length } else { Refusal::Ciphertext };
            assert_eq!(open_raw(&sealer(), &token), Err(expected), "{len}, {tag}");
        }
        for cut in 0..MAC_LEN {
            let token = [signed, &mac[..cut]].concat();
            let expected = if token.len() < OVERHEAD { Refusal::Length } else { Refusal::Signature };
            assert_eq!(open_raw(&sealer(), &token), Err(expected), "{len}, {cut}");
        }
    }
}

#[test]
fn t01_t04_a_refusal_has_no_room_for_plaintext() {
    let open: fn(&Sealer, &[u8]) -> Result<Opened, Refusal> = Sealer::open;
    let token = encode(&keys().sign(&[keys().header(NONCE), vec![0; 56]].concat()));
    assert_eq!(open(&sealer(), token.as_bytes()).err(), Some(Refusal::Ciphertext));
    assert_eq!(size_of::<Refusal>(), 1);
}

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
    // The same nonce, hour and plaintext everywhere: nothing but the place tells the tokens apart.
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
            // Sealing stays with the first key, whichever one opened.
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
            sealer.keys.iter().skip(1).all(|key| key.epochs.keys.read().unwrap().is_empty()),
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

// ---- Nonces -----------------------------------------------------------------------------------------------------

#[test]
fn t14_without_random_bytes_there_is_no_token() {
    let sealer = Sealer::new(&ring(&[APP_KEY]), Purpose::Session, NAME, Arc::new(NoRandom)).unwrap();
    for _ in 0..2 {
        assert!(sealer.seal(NOW, &[PLAINTEXT]).unwrap_err().is_random());
    }
    // Opening asks for none.
    assert_eq!(open_raw(&sealer, &keys().seal(NONCE, PLAINTEXT)).unwrap(), PLAINTEXT);
}

#[test]
fn t14_random_bytes_that_run_out_are_not_made_up_for() {
    /// Has one nonce to give.
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
    // The same plaintext in the same hour: no two tokens are alike.
    assert_eq!((nonces.len(), texts.len()), (2000, 2000));
}

#[test]
fn t16_a_nonce_that_comes_again_elsewhere_meets_another_key() {
    let ciphertext = |app_key, purpose, name, epoch| {
        let text = fixed_sealer(app_key, purpose, name, NONCE).seal(hour(epoch), &[&[0; 40]]).unwrap();
        decode(text.as_bytes()).unwrap()[21..61].to_vec()
    };
    // Of zeros the ciphertext is the key stream: two of them alike would be the same key and nonce twice.
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
    // An authentic one does, so that the emptiness above says something.
    open_raw(&sealer, &keys().seal(NONCE, PLAINTEXT)).unwrap();
    assert_eq!(cached(&sealer), [EPOCH]);
}

#[test]
fn the_key_of_an_hour_is_derived_once() {
    let sealer = sealer();
    sealer.seal(NOW, &[PLAINTEXT]).unwrap();
    // With another key in its place, it shows that the one at hand is used.
    let zero = || LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[0; 32]).unwrap());
    let replaced = sealer.keys[0].epochs.keys.write().unwrap().insert(EPOCH, zero());
    assert!(replaced.is_some());
    let token = keys().seal(NONCE, PLAINTEXT);
    assert_eq!(open_raw(&sealer, &token), Err(Refusal::Ciphertext));
    let mut zero_keys = keys();
    zero_keys.encrypt = [0; 32];
    assert_eq!(open_raw(&sealer, &zero_keys.seal(NONCE, PLAINTEXT)).unwrap(), PLAINTEXT);
    let text = sealer.seal(NOW, &[PLAINTEXT]).unwrap();
    assert_eq!(independent::open(APP_KEY, "session", NAME, &text), None);
    // The next hour has its own.
    let text = sealer.seal(hour(EPOCH + 1), &[PLAINTEXT]).unwrap();
    assert_eq!(independent::open(APP_KEY, "session", NAME, &text).as_deref(), Some(PLAINTEXT));
}

#[test]
fn keys_of_hours_are_bounded_and_those_nearest_to_the_one_in_use_are_kept() {
    let sealer = sealer();
    let hours = EPOCH..EPOCH + 250;
    let kept = u32::try_from(EPOCHS_KEPT).unwrap();
    let texts = hours.clone().map(|epoch| {
        let text = sealer.seal(hour(epoch), &[&epoch.to_be_bytes()]).unwrap();
        assert_eq!(
            cached(&sealer),
            (EPOCH.max((epoch + 1).saturating_sub(kept))..=epoch).collect::<Vec<_>>()
        );
        text
    });
    let texts: Vec<String> = texts.collect();
    // Tokens of hours whose keys are gone open all the same, in any order, and the bound holds.
    for (epoch, text) in hours.clone().zip(&texts).chain(hours.clone().zip(&texts).rev()) {
        assert_eq!(open(&sealer, text).unwrap(), epoch.to_be_bytes()[..]);
        let cached = cached(&sealer);
        // The hour in use is always among them, so that a long session does not derive its key again each time.
        assert!(cached.contains(&epoch) && cached.len() == EPOCHS_KEPT);
    }
    assert_eq!(cached(&sealer), (hours.start..hours.start + kept).collect::<Vec<_>>());
}

#[test]
fn tokens_of_any_hour_open() {
    // Whether a session is over is for its plaintext to say; the hour only chooses the key.
    for epoch in [0, 1, EPOCH - 10_000, EPOCH - 1, EPOCH, EPOCH + 1, u32::MAX] {
        let token = Keys::new(APP_KEY, "session", NAME, epoch).seal(NONCE, PLAINTEXT);
        assert_eq!(open_raw(&sealer(), &token).unwrap(), PLAINTEXT);
    }
}

#[test]
fn threads_agree_over_many_hours() {
    let sealer = fixed_sealer(APP_KEY, Purpose::Session, NAME, NONCE);
    // More hours than are kept, so that keys come and go while others use them.
    let hours = EPOCH..EPOCH + 2 * u32::try_from(EPOCHS_KEPT).unwrap();
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
    assert_eq!(cached(&sealer).len(), EPOCHS_KEPT);
}

#[test]
fn a_panic_under_the_lock_stops_nobody_else() {
    let sealer = sealer();
    let text = sealer.seal(NOW, &[PLAINTEXT]).unwrap();
    let poison = catch_unwind(AssertUnwindSafe(|| {
        let _held = sealer.keys[0].epochs.keys.write().unwrap();
        panic!("made by the test");
    }));
    assert!(poison.is_err() && sealer.keys[0].epochs.keys.is_poisoned());
    for epoch in [EPOCH, EPOCH + 1] {
        sealer.seal(hour(epoch), &[PLAINTEXT]).unwrap();
    }
    assert_eq!(open(&sealer, text).unwrap(), PLAINTEXT);
}

// ---- Debug ------------------------------------------------------------------------------------------------------

/// True if `printed` has eight bytes of `secret` in a row, in a form that `Debug` gives to bytes.
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
