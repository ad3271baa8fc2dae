//! JSON (RFC 8259) written from MessagePack.

use super::messagepack::str_bytes;
use super::value_equality::{Node, node};
use crate::error::{Error, Kind};

/// How one writer of JSON differs from others.
pub(crate) trait Dialect {
    /// Appends an integer.
    fn integer(&self, out: &mut Vec<u8>, number: i128) -> Result<(), NotJson> {
        out.extend_from_slice(number.to_string().as_bytes());
        Ok(())
    }

    /// Appends a finite float.
    fn float(&self, out: &mut Vec<u8>, number: f64);

    /// Returns true for a character that is escaped although RFC 8259 lets it stand.
    fn escapes(&self, letter: char) -> bool;
}

/// A kind of value that the JSON cannot hold.
pub(crate) struct NotJson(pub(crate) &'static str);

/// The JSON of this crate's own payloads.
struct Own;

impl Dialect for Own {
    /// The fewest digits that read back, and always with a point or an exponent: an integer is another type.
    fn float(&self, out: &mut Vec<u8>, number: f64) {
        out.extend_from_slice(format!("{number:?}").as_bytes());
    }

    fn escapes(&self, _: char) -> bool {
        false
    }
}

/// Returns the JSON object of these entries, which are sorted by key.
///
/// # Errors
///
/// [`is_value`](Error::is_value), naming the key, for a value that JSON cannot hold.
pub(super) fn object<'a>(entries: impl Iterator<Item = (&'a str, &'a [u8])>) -> Result<Vec<u8>, Error> {
    object_in_dialect(entries.map(|(key, value)| (key, value, Own)))
}

/// Returns the JSON object of these entries, which are sorted by key. Each value has a dialect of its own.
///
/// # Errors
///
/// [`is_value`](Error::is_value), naming the key, for a value that the dialect cannot express.
pub(crate) fn object_in_dialect<'a>(
    entries: impl Iterator<Item = (&'a str, &'a [u8], impl Dialect)>,
) -> Result<Vec<u8>, Error> {
    let mut out = Vec::with_capacity(256);
    out.push(b'{');
    for (key, value, dialect) in entries {
        if out.len() > 1 {
            out.push(b',');
        }
        write_str(&mut out, key, &dialect);
        out.push(b':');
        write_value(&mut out, value, &dialect)
            .map_err(|NotJson(found)| Error::new(Kind::NoJson { key: key.to_owned(), found }))?;
    }
    out.push(b'}');
    Ok(out)
}

/// Appends the first value of `input`, and returns the rest of `input`. Limited to the depth of a payload.
fn write_value<'a>(out: &mut Vec<u8>, input: &'a [u8], dialect: &impl Dialect) -> Result<&'a [u8], NotJson> {
    let (node, mut rest) = node(input).ok_or(NotJson("damaged MessagePack"))?;
    match node {
        Node::Nil => out.extend_from_slice(b"null"),
        Node::Bool(yes) => out.extend_from_slice(if yes { b"true" } else { b"false" }),
        Node::Integer(number) => dialect.integer(out, number)?,
        Node::Float(number) if !number.is_finite() => return Err(NotJson("a number that is not finite")),
        Node::Float(number) => dialect.float(out, number),
        Node::Str(text) => write_str(out, utf8(text)?, dialect),
        Node::Bin(_) => return Err(NotJson("a byte string, or an integer of 128 bits")),
        Node::Other(_) => return Err(NotJson("a MessagePack extension")),
        Node::Array(len) => {
            out.push(b'[');
            for at in 0..len {
                if at > 0 {
                    out.push(b',');
                }
                rest = write_value(out, rest, dialect)?;
            }
            out.push(b']');
        }
        Node::Map(len) => return write_map(out, len, rest, dialect),
    }
    Ok(rest)
}

/// Appends a map of `len` entries, sorted by key. Of a repeated key, the last entry is written.
fn write_map<'a>(
    out: &mut Vec<u8>,
    len: usize,
    mut rest: &'a [u8],
    dialect: &impl Dialect,
) -> Result<&'a [u8], NotJson> {
    // Written in the order found, so that each value is visited once, and sorted as text.
    let start = out.len();
    let mut entries = Vec::new();
    for _ in 0..len {
        let (key, value) = str_bytes(rest).ok_or(NotJson("a map with keys that are not strings"))?;
        let (key, from) = (utf8(key)?, out.len());
        write_str(out, key, dialect);
        out.push(b':');
        rest = write_value(out, value, dialect)?;
        entries.push((key, from..out.len()));
    }
    // Stable, and the later of two equal keys is kept.
    entries.sort_by_key(|(key, _)| *key);
    let written = out.split_off(start);
    out.push(b'{');
    for (at, (key, place)) in entries.iter().enumerate() {
        if entries.get(at + 1).is_some_and(|(next, _)| next == key) {
            continue;
        }
        if out.len() > start + 1 {
            out.push(b',');
        }
        out.extend_from_slice(written.get(place.start - start..place.end - start).unwrap_or_default());
    }
    out.push(b'}');
    Ok(rest)
}

/// Appends a string.
fn write_str(out: &mut Vec<u8>, text: &str, dialect: &impl Dialect) {
    out.push(b'"');
    for letter in text.chars() {
        match letter {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\u{8}' => out.extend_from_slice(b"\\b"),
            '\u{c}' => out.extend_from_slice(b"\\f"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            _ if letter < ' ' || dialect.escapes(letter) => {
                out.extend_from_slice(format!("\\u{:04x}", u32::from(letter)).as_bytes());
            }
            _ => out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}

fn utf8(text: &[u8]) -> Result<&str, NotJson> {
    std::str::from_utf8(text).map_err(|_| NotJson("text that is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::super::json_reader::{Rules, object_to_messagepack, tests::any_json};
    use super::*;

    fn written(value: &[u8]) -> Result<Vec<u8>, Error> {
        let object = object([("k", value)].into_iter())?;
        Ok(object.strip_prefix(b"{\"k\":").unwrap().strip_suffix(b"}").unwrap().to_vec())
    }

    #[test]
    fn what_json_cannot_hold_is_named() {
        fn why(value: impl serde::Serialize) -> String {
            let packed = rmp_serde::to_vec_named(&value).unwrap();
            let error = written(&packed).unwrap_err();
            assert!(error.is_value());
            error.to_string()
        }
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(why([1.0, number]).contains("\"k\" is or contains a number that is not finite,"));
        }
        assert!(why(f32::NAN).contains("not finite"));
        let by_number = BTreeMap::from([(1_u32, "one")]);
        assert!(why(&by_number).contains("a map with keys that are not strings"));
        assert!(
            why(BTreeMap::from([("inside", by_number)])).contains("a map with keys that are not strings")
        );
        for number in [u128::from(u64::MAX) + 1, 1] {
            assert!(why(number).contains("an integer of 128 bits"));
        }
        assert!(why(-1_i128).contains("an integer of 128 bits"));
        assert!(why(serde_bytes(b"\0")).contains("a byte string"));
    }

    fn serde_bytes(bytes: &'static [u8]) -> impl serde::Serialize {
        struct Binary(&'static [u8]);
        impl serde::Serialize for Binary {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_bytes(self.0)
            }
        }
        Binary(bytes)
    }

    #[test]
    fn of_a_repeated_key_the_last_value_is_written() {
        let packed = [0x83, 0xa1, b'b', 1, 0xa1, b'a', 2, 0xa1, b'b', 3];
        assert_eq!(written(&packed).unwrap(), b"{\"a\":2,\"b\":3}");
    }

    proptest! {
        #[test]
        fn any_value_is_written_as_serde_json_writes_it(value in any_json()) {
            let written = written(&rmp_serde::to_vec_named(&value).unwrap()).unwrap();
            prop_assert_eq!(serde_json::from_slice::<Value>(&written).unwrap(), value.clone());
            let object = [b"{\"k\":", &written[..], b"}"].concat();
            let read = object_to_messagepack(&object, Rules::Strict).unwrap();
            let expected = rmp_serde::to_vec_named(&BTreeMap::from([("k", value)])).unwrap();
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn any_text_is_written_as_serde_json_writes_it(text: String) {
            let mut written = Vec::new();
            write_str(&mut written, &text, &Own);
            prop_assert_eq!(written, serde_json::to_vec(&text).unwrap());
        }
    }
}
