//! Keys as text: every accepted form is the same key, and no error quotes a key.

use super::super::{AppKey, Keyring};
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
    for quoted in [form.to_owned(), format!("\"{form}\""), format!("'{form}'"), format!("\" {form}\n\"")] {
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

#[test]
fn base64_may_begin_almost_like_the_prefix_of_a_key() {
    let body = Base64Url::encode_string(&BYTES);
    for begin in ["hskA", "hsk1A", "HSK-", "abc1_"] {
        let text = format!("{begin}{}", &body[begin.len()..]);
        assert!(AppKey::from_text(&text).is_ok(), "{begin}");
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
        // The bytes of these have no short period.
        (format!("{}c", "cdefghi".repeat(6)), "pattern"),
        (format!("{}c", "cdefghi".repeat(9)), "pattern"),
        ("cdefghi".repeat(4), "at least 32 bytes"),
        ("A_key=in_two_parts".into(), "text of an application key must be"),
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
