//! Tokens that are forged, altered or cut, and the one place that compares signatures.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD as BASE64, Engine};
use http::header::{HeaderName, HeaderValue, SET_COOKIE};
use http::{HeaderMap, Response, StatusCode};
use hyper_session::Refusal;
use proptest::prelude::*;

use crate::attack_fixture::{KINDS, Kind, NAME, TestStore, on_both};
use crate::support::{Body, block_on, refused, text};

fn ordered(headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// All that a client can see of a response.
async fn visible(response: Response<Body>) -> (StatusCode, Vec<(HeaderName, HeaderValue)>, String) {
    (response.status(), ordered(response.headers()), text(response).await)
}

/// Why a value that is not a token of this store is refused, judged only by the format: an oracle that knows no key.
fn refusal(kind: Kind, value: &[u8], genuine: &str) -> Refusal {
    let value = value.split(|&byte| byte == b';').next().unwrap();
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().position(|byte| !blank(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !blank(byte)).map_or(start, |at| at + 1);
    let decoded = BASE64.decode(&value[start..end]);
    let genuine = BASE64.decode(genuine).unwrap();
    match (kind, decoded) {
        (_, Err(_)) => Refusal::Encoding,
        (Kind::Memory, Ok(token)) if token.len() != 32 => Refusal::Encoding,
        (Kind::Memory, Ok(_)) => Refusal::UnknownId,
        (Kind::Cookie, Ok(token)) if token.len() < 21 => Refusal::Length,
        (Kind::Cookie, Ok(token)) if token[0] != 1 => Refusal::Version,
        (Kind::Cookie, Ok(token)) if token.len() < 21 + 16 + 32 => Refusal::Length,
        (Kind::Cookie, Ok(token)) if token[1..5] != genuine[1..5] => Refusal::UnknownKey,
        (Kind::Cookie, Ok(_)) => Refusal::Signature,
    }
}

/// Presents each of `values` as the session cookie: an empty session, one event that says why, and one of two responses. The
/// cookie is removed, or it is not, since it may be another application's or another host's. Which of the two follows from the
/// public form of the token: a token that only the key can distinguish from a genuine one is removed.
async fn all_refused_alike(
    kind: Kind,
    world: &TestStore,
    genuine: &str,
    values: impl Iterator<Item = Vec<u8>>,
) -> usize {
    let kept = visible(world.present(format!("{NAME}=?").as_bytes()).await.1).await;
    assert_eq!(kept.1.iter().filter(|(name, _)| name == SET_COOKIE).count(), 0, "kept");
    let mut forged = genuine.as_bytes().to_vec();
    let last = forged.len() - 2; // the last character has unused bits
    forged[last] = if forged[last] == b'A' { b'B' } else { b'A' };
    let forged = [NAME.as_bytes(), b"=", &forged].concat();
    let removed = visible(world.present(&forged).await.1).await;
    assert_eq!(removed.1.iter().filter(|(name, _)| name == SET_COOKIE).count(), 1, "removed");
    world.events.take();
    let mut tried = 0;
    for value in values {
        let shown = String::from_utf8_lossy(&value).into_owned();
        let header = [NAME.as_bytes(), b"=", &value].concat();
        let (seen, response) = world.present(&header).await;
        assert_eq!(seen, None, "{shown}");
        let why = refusal(kind, &value, genuine);
        assert_eq!(world.events.take(), [refused(why)], "{shown}");
        let expected = if why.removes_cookie() { &removed } else { &kept };
        assert_eq!(visible(response).await, *expected, "{shown}");
        tried += 1;
    }
    tried
}

#[test]
fn t02_t70_every_flipped_bit_of_the_text_is_refused_alike() {
    on_both(|kind, world| async move {
        let token = world.token().await;
        let flipped = (0..token.len() * 8).map(|bit| {
            let mut bytes = token.clone().into_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        });
        // Some control characters cannot be in a header at all.
        let flipped = flipped.filter(|bytes| HeaderValue::from_bytes(bytes).is_ok());
        let tried = all_refused_alike(kind, &world, &token, flipped).await;
        assert!(tried > token.len() * 6, "{tried} of {}", token.len() * 8);
    });
}

#[test]
fn t02_every_flipped_bit_of_the_sealed_bytes_is_refused_alike() {
    on_both(|kind, world| async move {
        let token = world.token().await;
        let bytes = BASE64.decode(&token).unwrap();
        let flipped = (0..bytes.len() * 8).map(|bit| {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            BASE64.encode(bytes).into_bytes()
        });
        assert_eq!(all_refused_alike(kind, &world, &token, flipped).await, bytes.len() * 8);
    });
}

#[test]
fn t70_cut_and_stretched_at_every_byte_is_refused_alike() {
    on_both(|kind, world| async move {
        let token = world.token().await;
        let places = 0..token.len();
        let cut_end = places.clone().map(|at| token[..at].to_owned());
        let cut_start = places.clone().skip(1).map(|at| token[at..].to_owned());
        let left_out = places.clone().map(|at| [&token[..at], &token[at + 1..]].concat());
        let put_in = (0..=token.len()).flat_map(|at| {
            let (before, after) = token.split_at(at);
            ["A", "_", "=", "AAAA"].map(|extra| [before, extra, after].concat())
        });
        let twice = std::iter::once(token.repeat(2));
        let all = cut_end.chain(cut_start).chain(left_out).chain(put_in).chain(twice).map(String::into_bytes);
        assert_eq!(
            all_refused_alike(kind, &world, &token, all).await,
            3 * token.len() + 4 * (token.len() + 1)
        );
    });
}

#[test]
fn t03_a_shorter_tag_or_signature_is_refused() {
    block_on(async {
        let world = TestStore::new(Kind::Cookie);
        let token = world.token().await;
        let bytes = BASE64.decode(&token).unwrap();
        let mac = bytes.len() - 32;
        let tag = mac - 16;
        // All lengths of the signature, with and without the GCM tag before it; all lengths of the tag, with the
        // whole signature and with none.
        let short_mac = (0..32).map(|len| bytes[..mac + len].to_vec());
        let no_tag = (0..=32).map(|len| [&bytes[..tag], &bytes[mac..mac + len]].concat());
        let short_tag = (0..16).map(|len| [&bytes[..tag + len], &bytes[mac..]].concat());
        let tag_alone = (0..16).map(|len| bytes[..tag + len].to_vec());
        let all = short_mac.chain(no_tag).chain(short_tag).chain(tag_alone);
        let all = all.map(|bytes| BASE64.encode(bytes).into_bytes());
        assert_eq!(all_refused_alike(Kind::Cookie, &world, &token, all).await, 32 + 33 + 16 + 16);
    });
}

#[test]
fn t01_t33_t67_plain_data_is_no_session() {
    // The contents of a session, unsealed, in every dress that some store of the past would have taken.
    let msgpack: &[u8] = b"\x81\xa1a\xa1x";
    let json: &[u8] = br#"{"a":"x"}"#;
    let header = [&[1_u8][..], &[0; 68]].concat();
    let mut values: Vec<Vec<u8>> = vec![json.to_vec(), b"{}".to_vec(), b"%7B%7D".to_vec(), b"null".to_vec()];
    for plain in [msgpack, json, b"{}", b"\x80", b"", b"null", &[0; 32], &[0; 200]] {
        values.push(BASE64.encode(plain).into_bytes());
        values.push(BASE64.encode([&header, plain].concat()).into_bytes());
    }
    on_both(|kind, world| {
        let values = values.clone();
        async move {
            let token = world.token().await;
            // A JSON object holds no `;`, but is a valid header: each value goes in as it is.
            assert_eq!(all_refused_alike(kind, &world, &token, values.into_iter()).await, 20);
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// No input that was not made by a held key ever yields data.
    #[test]
    fn t01_random_tokens_are_refused(noise in proptest::collection::vec(any::<u8>(), 0..300), mine in any::<bool>()) {
        for kind in KINDS {
            block_on(async {
                let world = TestStore::new(kind);
                let token = world.token().await;
                let mut bytes = noise.clone();
                if mine && bytes.len() >= 5 {
                    // The first bytes of a genuine token: version and key id fit.
                    bytes[..5].copy_from_slice(&BASE64.decode(&token).unwrap()[..5]);
                }
                let value = BASE64.encode(bytes).into_bytes();
                all_refused_alike(kind, &world, &token, std::iter::once(value)).await;
            });
        }
    }
}

/// The lines of a source file without the items that only tests are built with.
fn without_tests(source: &str) -> Vec<&str> {
    let mut code = Vec::new();
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        if line == "#[cfg(test)]" {
            lines.by_ref().find(|line| *line == "}" || (!line.starts_with(' ') && line.ends_with(';')));
        } else {
            code.push(line);
        }
    }
    code
}

/// Signature bytes are made in one place, to be appended, and checked in one place, by the library's constant-time
/// comparison. With no second place that makes them, no code here has any to compare by `==`.
#[test]
fn t05_signatures_are_only_compared_by_the_library() {
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut made = Vec::new();
    let mut checked = Vec::new();
    let folders = ["crypto", "astra"].map(|folder| std::fs::read_dir(source.join(folder)).unwrap());
    for entry in folders.into_iter().flatten() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        if file.contains("_tests") || file == "vectors.rs" {
            continue;
        }
        let source = std::fs::read_to_string(&path).unwrap();
        let code = without_tests(&source);
        for line in code.into_iter().map(str::trim).filter(|line| !line.starts_with("//")) {
            for maker in ["hmac::sign(", "hmac::Context", "HMAC_SHA256,", ".finalize("] {
                if line.contains(maker) {
                    made.push(format!("{file} {maker}"));
                }
            }
            if line.contains("hmac::verify(") {
                checked.push(file.clone());
            }
            let lower = line.to_ascii_lowercase();
            let compares =
                ["==", "!=", ".eq(", ".ne(", ".cmp("].iter().any(|operator| lower.contains(operator));
            let secret = ["mac", "tag", "signature", "prk"].iter().any(|word| lower.contains(word));
            assert!(!(compares && secret), "{file}: {line}");
        }
    }
    made.sort();
    // One key, one signature; and the derivation of keys, which is not compared. For Astra's cookies: the two keys that are
    // derived with, and that which signs; the two steps of the derivation, and one signature.
    let astra = ["HMAC_SHA256,", "HMAC_SHA256,", "hmac::Context", "hmac::sign(", "hmac::sign("];
    // For bound cookies: one key, one signature.
    let ours = [
        "derive.rs HMAC_SHA256,",
        "derive.rs hmac::sign(",
        "seal.rs HMAC_SHA256,",
        "seal.rs hmac::sign(",
        "tagger.rs HMAC_SHA256,",
        "tagger.rs hmac::sign(",
    ];
    let expected =
        astra.map(|maker| format!("cookie_sealer.rs {maker}")).into_iter().chain(ours.map(str::to_owned));
    assert_eq!(made, expected.collect::<Vec<_>>());
    checked.sort();
    assert_eq!(checked, ["cookie_sealer.rs", "seal.rs", "tagger.rs"]);
}
