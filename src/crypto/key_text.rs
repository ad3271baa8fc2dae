//! Keys as text: the format of an environment variable or a file.

use std::borrow::Cow;

use zeroize::Zeroizing;

use super::app_key::{MIN_LEN, TEXT_PREFIX, is_regular};
use super::{AppKey, KeyId, base64url};
use crate::error::Error;

const QUOTES: [char; 2] = ['"', '\''];

const FORMS: &str = "\"hsk1_...\" (hyper-session key new), 64 hexadecimal digits (openssl rand -hex 32), or base64 of 32 bytes";

/// Reads a key in any of its forms. Errors never quote the text, because it may be a key, or most of one.
pub(super) fn read_key(text: &str) -> Result<AppKey, Error> {
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
        return AppKey::from_key_bytes(&bytes);
    }
    if has_altered_prefix(word) {
        return Err(Error::config(
            "the text of an application key must begin with \"hsk1_\", in small letters",
        ));
    }
    match decode_foreign(word) {
        Some(bytes) if bytes.len() < MIN_LEN || !is_regular(word.as_bytes()) => AppKey::from_bytes(&bytes),
        Some(_) => Err(Error::config(
            "this application key is a pattern: make one with AppKey::generate() or `openssl rand -hex 32`",
        )),
        None => Err(Error::config(refusal(word))),
    }
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
pub(super) enum Word {
    Key(AppKey),
    Revoked(KeyId),
}

/// Reads the words of a keyring's text, each with the number of its line.
pub(super) fn read_ring(text: &str) -> Result<Vec<(usize, Word)>, Error> {
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

fn read_word(word: &str) -> Result<Word, Error> {
    let bare = unwrapped(word)?;
    match bare.strip_prefix("revoked:") {
        Some("") => Err(Error::config("the key id must follow \"revoked:\" without a space")),
        Some(id) => Ok(Word::Revoked(id.parse()?)),
        None => Ok(Word::Key(read_key(word)?)),
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
mod tests {
    use super::super::Keyring;
    use super::*;
    use base64ct::{Base64, Base64Unpadded, Base64Url, Encoding};

    const BYTES: [u8; 32] = *b"6o2Wx9Qk1Zr8Lp4Tn7Vb3Hd5Jf0Sg2M\xff";

    fn hex(bytes: &[u8]) -> String {
        bytes
            .iter()
            .flat_map(|byte| [byte >> 4, byte & 15])
            .map(|digit| char::from_digit(digit.into(), 16).unwrap())
            .collect()
    }

    fn forms() -> Vec<String> {
        let key = AppKey::from_bytes(&BYTES).unwrap();
        vec![
            key.to_text().to_string(),
            hex(&BYTES),
            hex(&BYTES).to_uppercase(),
            Base64::encode_string(&BYTES),
            Base64Unpadded::encode_string(&BYTES),
            Base64Url::encode_string(&BYTES),
        ]
    }

    fn wrappings(form: &str) -> Vec<String> {
        let mut wrapped = Vec::new();
        for quoted in [form.to_owned(), format!("\"{form}\""), format!("'{form}'"), format!("\" {form}\n\"")]
        {
            for (before, after) in
                [("", ""), ("", "\n"), ("", "\r\n"), (" \t", " \n\n"), ("\u{feff}", "\r\n"), ("\u{a0}", "")]
            {
                wrapped.push(format!("{before}{quoted}{after}"));
            }
        }
        wrapped
    }

    #[test]
    fn every_form_in_every_wrapping_is_the_same_key() {
        let id = AppKey::from_bytes(&BYTES).unwrap().id();
        for form in forms() {
            for text in wrappings(&form) {
                assert_eq!(AppKey::from_text(&text).unwrap().id(), id, "{text:?}");
                assert_eq!(text.parse::<AppKey>().unwrap().id(), id, "{text:?}");
                assert_eq!(Keyring::from_text(&text).unwrap().ids().collect::<Vec<_>>(), [id], "{text:?}");
            }
        }
    }

    // Otherwise, the raw bytes of a text would be another key, and all users would be logged out.
    #[test]
    fn t13_the_text_of_a_key_is_never_taken_as_its_bytes() {
        for form in forms() {
            for text in wrappings(&form) {
                let error = AppKey::from_bytes(text.as_bytes()).unwrap_err();
                assert!(error.to_string().contains("from_text"), "{text:?} {error}");
            }
        }
        let half_quoted = format!("\"{}", forms()[0]);
        assert!(AppKey::from_bytes(half_quoted.as_bytes()).is_err());
    }

    #[test]
    fn t77_what_is_no_key_is_refused_without_being_quoted() {
        let good = AppKey::from_bytes(&BYTES).unwrap().to_text();
        let hex = hex(&BYTES);
        for (bad, why) in [
            (String::new(), "empty"),
            (" \n".into(), "empty"),
            ("\"\"".into(), "empty"),
            (format!("\"{}", *good), "quote on one side"),
            (format!("{}'", *good), "quote on one side"),
            (format!("\"{}'", *good), "quote on one side"),
            (format!("\"'{}'\"", *good), "must be"),
            (format!("\u{201c}{}\u{201d}", *good), "must be"),
            (format!("{} {}", *good, *good), "Keyring::from_text"),
            (format!("{},{}", *good, *good), "separated by spaces"),
            (good[..good.len() - 1].into(), "was the key cut"),
            (good[..29].into(), "at least 32 bytes"),
            (format!("{}=", *good), "was the key cut"),
            (good.to_uppercase(), "small letters"),
            (good.replacen("hsk1", "hsk2", 1), "small letters"),
            (format!("SESSION_KEY={}", *good), "assignment"),
            (hex[..63].into(), "odd number"),
            (hex[..62].into(), "at least 32 bytes"),
            (format!("0x{hex}"), "must be"),
            (Base64::encode_string(&BYTES[..31]), "at least 32 bytes"),
            (Base64::encode_string(hex.as_bytes()), "text of an application key"),
            ("correct horse battery staple".into(), "one word"),
            ("correct-horse-battery-staple!".into(), "must be"),
            ("0".repeat(64), "pattern"),
            ("Q".repeat(43), "pattern"),
            ("0123456789abcdef".repeat(4), "pattern"),
        ] {
            let error = AppKey::from_text(&bad).unwrap_err();
            assert!(error.is_config() && error.to_string().contains(why), "{bad:?}: {error}");
            let printed = format!("{error} {error:?}");
            for secret in [&good[5..20], &hex[..20], "battery", "NmEyV"] {
                assert!(!printed.contains(secret), "{printed}");
            }
        }
    }

    #[test]
    fn a_keyring_is_read_with_comments_blank_lines_and_revoked_keys() {
        let (first, second) = (AppKey::generate().unwrap(), AppKey::generate().unwrap());
        let text = format!(
            "\u{feff}# the keys of the shop\r\n\r\n{}  # seals\r\n\t\"{}\"\r\nrevoked:00c0ffee # leaked\r\n",
            *first.to_text(),
            *second.to_text(),
        );
        let ring = Keyring::from_text(&text).unwrap();
        assert_eq!(ring.ids().collect::<Vec<_>>(), [first.id(), second.id()]);
        assert_eq!(ring.revoked(), ["00c0ffee".parse().unwrap()]);
        // In one environment variable, quoted as an env file quotes it.
        for text in [
            format!("'{} {}'", *first.to_text(), *second.to_text()),
            format!("\"{}\n{}\"\n", *first.to_text(), *second.to_text()),
            format!("\"{}\" \"{}\"", *first.to_text(), *second.to_text()),
        ] {
            let ring = Keyring::from_text(&text).unwrap();
            assert_eq!(ring.ids().collect::<Vec<_>>(), [first.id(), second.id()], "{text}");
        }
    }

    #[test]
    fn a_bad_keyring_names_its_line_and_no_key() {
        let key = AppKey::generate().unwrap();
        let (text, id) = (key.to_text(), key.id());
        for (bad, why) in [
            (String::new(), "no key"),
            ("# nothing\n\n".into(), "no key"),
            (format!("revoked:{id}"), "no key"),
            (format!("# a\n\n{}\n{}!\n", *text, *text), "line 4: "),
            (format!("{}\nrevoked: 00c0ffee", *text), "line 2: "),
            (format!("{}\nrevoked:c0ffee", *text), "line 2: "),
            (format!("{}\n\nsecret-words", *text), "line 3: "),
            (format!("{}\n\n{}", *text, *text), "line 3: the key"),
            (format!("{}\nrevoked:{id}", *text), "revoked"),
        ] {
            let error = Keyring::from_text(&bad).unwrap_err();
            let printed = format!("{error} {error:?}");
            assert!(error.is_config() && printed.contains(why), "{bad:?}: {error}");
            assert!(!printed.contains(&text[5..20]) && !printed.contains("secret-words"), "{printed}");
        }
    }
}
