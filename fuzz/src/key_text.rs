//! The texts of application keys and of keyrings.

use base64::prelude::{
    BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD, Engine,
};
use hyper_session::{AppKey, Error, Keyring};

/// A key that is read is the key that another reader finds in the text, in whichever form; its own text reads back, in quotes
/// and between spaces, too. A keyring of only that text has that key. No error quotes a word that could be most of a key.
pub fn key_text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match AppKey::from_text(text) {
        Ok(key) => {
            let bytes = naive(text).expect("an undocumented form");
            assert!(bytes.len() >= 32, "a short key");
            assert_eq!(AppKey::danger_from_any_bytes(&bytes).unwrap().id(), key.id(), "another key");
            let own = key.to_text();
            for wrapped in [own.to_string(), format!("\"{}\"", *own), format!("\u{feff} '{}' \r\n", *own)] {
                assert_eq!(AppKey::from_text(&wrapped).unwrap().id(), key.id(), "its own text");
            }
            let ring = Keyring::from_text(text).unwrap();
            assert!(ring.ids().eq([key.id()]) && ring.revoked().is_empty(), "a keyring of one");
        }
        Err(error) => says_nothing(&error),
    }
    match Keyring::from_text(text) {
        // Keys and revoked ids are words of the text.
        Ok(ring) => assert!(ring.ids().count() + ring.revoked().len() <= text.split_whitespace().count()),
        Err(error) => says_nothing(&error),
    }
}

/// No word of the error is long enough to be most of a key. The text itself is not searched for: it may be a word of the error.
fn says_nothing(error: &Error) {
    assert!(error.is_config());
    let said = format!("{error} {error:?}");
    let longest = said.split(|c: char| !c.is_ascii_alphanumeric()).map(str::len).max();
    assert!(longest < Some(20), "a long word in an error: {said}");
}

/// The bytes of a key, by other hands.
fn naive(text: &str) -> Option<Vec<u8>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim();
    let quoted = |quote: char| text.len() > 1 && text.starts_with(quote) && text.ends_with(quote);
    let text = if quoted('"') || quoted('\'') { text[1..text.len() - 1].trim() } else { text };
    if let Some(body) = text.strip_prefix("hsk1_") {
        return BASE64_URL_SAFE_NO_PAD.decode(body).ok();
    }
    if text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let digits = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
        return (0..text.len()).step_by(2).map(digits).collect();
    }
    let alphabets = [BASE64_URL_SAFE_NO_PAD, BASE64_URL_SAFE, BASE64_STANDARD_NO_PAD, BASE64_STANDARD];
    alphabets.iter().find_map(|alphabet| alphabet.decode(text).ok())
}
