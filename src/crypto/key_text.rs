//! Keys as text: the format of an environment variable or a file.

use std::borrow::Cow;

use zeroize::Zeroizing;

use super::key_strength::{MIN_LEN, is_regular};
use super::{KeyId, base64url};
use crate::error::Error;

/// Marks the text form, so that scanners for leaked secrets can find it.
pub(super) const TEXT_PREFIX: &str = "hsk1_";

const QUOTES: [char; 2] = ['"', '\''];

const FORMS: &str = "\"hsk1_...\" (hyper-session key new), 64 hexadecimal digits (openssl rand -hex 32), or base64 of 32 bytes";

/// The bytes of a key, by the form of its text.
pub(super) enum KeyBytes {
    /// From `hsk1_…`.
    Own(Zeroizing<Vec<u8>>),
    /// From digits or base64 that any program can have written.
    Foreign(Zeroizing<Vec<u8>>),
}

/// Decodes the text of a key in any of its forms. Errors never quote the text, because it may be a key, or most of one.
pub(super) fn decode(text: &str) -> Result<KeyBytes, Error> {
    let word = unwrapped(text)?;
    if word.is_empty() {
        return Err(Error::config(format!("the text of the application key is empty: it must be {FORMS}")));
    }
    if word.contains(char::is_whitespace) {
        return Err(Error::config(
            "the text of an application key must be one word: read several keys with Keyring::from_text()",
        ));
    }
    if word.contains([',', ';']) {
        return Err(Error::config(
            "an application key has no commas: several keys are separated by spaces or line ends, and read with Keyring::from_text()",
        ));
    }
    if let Some(body) = word.strip_prefix(TEXT_PREFIX) {
        let bytes = base64url::decode(body.as_bytes()).map(Zeroizing::new).ok_or_else(|| {
            Error::config(
                "what follows \"hsk1_\" must be base64url without padding: was the key cut or altered?",
            )
        })?;
        return Ok(KeyBytes::Own(bytes));
    }
    if has_altered_prefix(word) {
        return Err(Error::config(
            "the text of an application key must begin with \"hsk1_\", in small letters",
        ));
    }
    match decode_foreign(word) {
        Some(bytes) if bytes.len() < MIN_LEN => Ok(KeyBytes::Foreign(bytes)),
        Some(_) if is_regular(word.as_bytes()) => Err(Error::config(
            "this application key is a pattern: make one with AppKey::generate() or `openssl rand -hex 32`",
        )),
        Some(_) if is_phrase(word) => Err(Error::config(
            "the base64 of an application key must have capital and small letters, and a passphrase is not a key: make one with AppKey::generate() or `openssl rand -hex 32`",
        )),
        Some(bytes) => Ok(KeyBytes::Foreign(bytes)),
        None => Err(Error::config(refusal(word))),
    }
}

/// Returns true for base64 that words can be (`correct-horse-battery-…`). Of 43 random characters, one text in 2.7 * 10^9 has no
/// capital letter, or no small one.
fn is_phrase(word: &str) -> bool {
    let is_hex = word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let has = |of_case: fn(&u8) -> bool| word.as_bytes().iter().any(of_case);
    !(is_hex || has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase))
}

/// Returns true for `HSK1_…` and `hsk2_…`. They are valid base64url of another key, so they must be refused.
fn has_altered_prefix(word: &str) -> bool {
    word.get(..3).is_some_and(|letters| letters.eq_ignore_ascii_case("hsk"))
        && matches!(word.as_bytes(), [_, _, _, digit, b'_' | b'-', ..] if digit.is_ascii_digit())
}

/// Returns true if these bytes are the text of a key, or such a text with the wrapping that environments leave around it.
/// As raw bytes they would be another key than the text stands for.
pub(super) fn is_key_text(bytes: &[u8]) -> bool {
    if bytes.windows(TEXT_PREFIX.len()).any(|window| window == TEXT_PREFIX.as_bytes()) {
        return true;
    }
    let word = std::str::from_utf8(bytes).ok().and_then(|text| unwrapped(text).ok());
    word.and_then(decode_foreign).is_some_and(|decoded| decoded.len() >= MIN_LEN)
}

/// Decodes hexadecimal digits or base64. 64 hexadecimal digits are also base64 of 48 bytes. They are read as digits,
/// because 64 random characters of base64 are all digits once in 10^38 times.
fn decode_foreign(word: &str) -> Option<Zeroizing<Vec<u8>>> {
    if word.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return from_hex(word);
    }
    base64url::decode_any(word.as_bytes()).map(Zeroizing::new)
}

fn from_hex(word: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(word.len() / 2));
    let mut digits = word.chars().map(|digit| digit.to_digit(16));
    while let Some(high) = digits.next() {
        let low = digits.next()?;
        bytes.push(u8::try_from(high? << 4 | low?).ok()?);
    }
    Some(bytes)
}

/// Returns the error message for a text that has none of the forms.
fn refusal(word: &str) -> Cow<'static, str> {
    if word.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return "the application key has an odd number of hexadecimal digits: was it cut?".into();
    }
    if word.split_once('=').is_some_and(|(name, _)| is_variable(name)) {
        return "the text is an assignment (NAME=KEY): it must be only the key".into();
    }
    format!("the text of an application key must be {FORMS}").into()
}

/// Returns true for a name such as `SESSION_KEY`, which contains a character that base64 does not have before its end.
fn is_variable(name: &str) -> bool {
    name.contains('_') && name.bytes().all(|byte| byte.is_ascii_uppercase() || b"_0123456789".contains(&byte))
}

/// Removes the wrapping that files and environments leave around a text: a byte order mark, white space and line ends, and
/// one pair of quotes.
fn unwrapped(text: &str) -> Result<&str, Error> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim();
    for quote in QUOTES {
        if let Some(inner) = text.strip_prefix(quote) {
            return inner.strip_suffix(quote).map(str::trim).ok_or_else(unbalanced);
        }
    }
    if text.ends_with(QUOTES) { Err(unbalanced()) } else { Ok(text) }
}

fn unbalanced() -> Error {
    Error::config("the text of the application key has a quote on one side only: was it cut?")
}

/// A word in the text of a keyring.
pub(super) enum Word<'a> {
    /// The text of a key.
    Key(&'a str),
    Revoked(KeyId),
}

/// Reads the words of a keyring's text, each with the number of its line.
pub(super) fn read_ring(text: &str) -> Result<Vec<(usize, Word<'_>)>, Error> {
    let mut words = Vec::new();
    for (at, line) in without_quotes(text).lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        for word in line.split_whitespace() {
            let read = read_word(word).map_err(|error| on_line(at + 1, &error))?;
            words.push((at + 1, read));
        }
    }
    Ok(words)
}

fn read_word(word: &str) -> Result<Word<'_>, Error> {
    let bare = unwrapped(word)?;
    match bare.strip_prefix("revoked:") {
        Some("") => Err(Error::config("the key id must follow \"revoked:\" without a space")),
        Some(id) => Ok(Word::Revoked(id.parse()?)),
        None => Ok(Word::Key(word)),
    }
}

pub(super) fn on_line(line: usize, error: &Error) -> Error {
    Error::config(format!("line {line}: {error}"))
}

/// Removes a byte order mark, and the one pair of quotes around the whole text that a shell or an env file leaves.
fn without_quotes(text: &str) -> &str {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let trimmed = text.trim();
    for quote in QUOTES {
        let inner = trimmed.strip_prefix(quote).and_then(|text| text.strip_suffix(quote));
        if let Some(inner) = inner.filter(|inner| !inner.contains(quote)) {
            return inner;
        }
    }
    text
}

#[cfg(test)]
#[path = "key_text_tests.rs"]
mod tests;
