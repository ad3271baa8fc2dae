//! JSON (RFC 8259) read as MessagePack.
//!
//! Without `serde_json::Value`: another crate of the program can switch on `serde_json/arbitrary_precision`, and then each
//! number in such a value becomes a map when another format serializes it. With that feature, or `raw_value`, a map with one
//! certain key becomes something else when it is read.

use std::borrow::Cow;
use std::collections::BTreeMap;

use rmp::encode;

use super::messagepack::MAX_DEPTH;

/// Rules for what the JSON grammar leaves open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rules {
    /// This crate's own JSON: text is UTF-8, and the form of a number determines its type.
    Strict,
    /// JSON as Go's `encoding/json` reads it into an `any`: invalid Unicode becomes U+FFFD, and every number is a float64,
    /// so `1.0` and `1e3` are integers here.
    #[cfg_attr(not(feature = "astra"), allow(dead_code))]
    Go,
}

/// Integers up to this one, and down to its negative, are all float64 values.
pub(crate) const EXACT: u64 = 1 << 53;

/// Reads a JSON object as the MessagePack map of the same values, with sorted keys. If a key is repeated, its last value
/// counts. Returns `None` if this is not a JSON object, or is nested too deeply.
pub(crate) fn object_to_messagepack(json: &[u8], rules: Rules) -> Option<Vec<u8>> {
    let mut reader = Reader { rest: json, rules };
    let mut out = Vec::with_capacity(json.len());
    reader.skip_space();
    if rules == Rules::Go && reader.rest.starts_with(b"null") {
        // Go writes a nil map as null.
        reader.literal(b"null")?;
        encode::write_map_len(&mut out, 0).ok()?;
    } else {
        reader.byte(b'{')?;
        reader.object(&mut out, MAX_DEPTH)?;
    }
    reader.skip_space();
    reader.rest.is_empty().then_some(out)
}

struct Reader<'a> {
    rest: &'a [u8],
    rules: Rules,
}

impl<'a> Reader<'a> {
    fn skip_space(&mut self) {
        let space = self.rest.iter().take_while(|byte| b" \t\n\r".contains(byte)).count();
        self.rest = self.rest.get(space..).unwrap_or_default();
    }

    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn next(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(byte)
    }

    /// Takes this byte, or returns `None` if the next byte is different.
    fn byte(&mut self, wanted: u8) -> Option<()> {
        (self.peek()? == wanted).then(|| self.next()).flatten().map(drop)
    }

    fn literal(&mut self, text: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(text)?;
        Some(())
    }

    /// Reads one value, at most `depth` levels deep.
    fn value(&mut self, out: &mut Vec<u8>, depth: usize) -> Option<()> {
        self.skip_space();
        match self.peek()? {
            b'n' => {
                self.literal(b"null")?;
                encode::write_nil(out).ok()
            }
            b't' => {
                self.literal(b"true")?;
                encode::write_bool(out, true).ok()
            }
            b'f' => {
                self.literal(b"false")?;
                encode::write_bool(out, false).ok()
            }
            b'"' => {
                let text = self.string()?;
                encode::write_str(out, &text).ok()
            }
            b'[' => {
                self.next();
                self.array(out, depth)
            }
            b'{' => {
                self.next();
                self.object(out, depth)
            }
            _ => self.number(out),
        }
    }

    /// Reads an array after its opening bracket.
    fn array(&mut self, out: &mut Vec<u8>, depth: usize) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        let (mut values, mut len) = (Vec::new(), 0_u32);
        self.skip_space();
        if self.byte(b']').is_none() {
            loop {
                self.value(&mut values, depth)?;
                len = len.checked_add(1)?;
                self.skip_space();
                match self.next()? {
                    b',' => {}
                    b']' => break,
                    _ => return None,
                }
            }
        }
        encode::write_array_len(out, len).ok()?;
        out.append(&mut values);
        Some(())
    }

    /// Reads an object after its opening brace.
    fn object(&mut self, out: &mut Vec<u8>, depth: usize) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        let mut entries = BTreeMap::new();
        self.skip_space();
        if self.byte(b'}').is_none() {
            loop {
                self.skip_space();
                let key = self.string()?;
                self.skip_space();
                self.byte(b':')?;
                let mut value = Vec::new();
                self.value(&mut value, depth)?;
                entries.insert(key, value);
                self.skip_space();
                match self.next()? {
                    b',' => {}
                    b'}' => break,
                    _ => return None,
                }
            }
        }
        encode::write_map_len(out, u32::try_from(entries.len()).ok()?).ok()?;
        for (key, mut value) in entries {
            encode::write_str(out, &key).ok()?;
            out.append(&mut value);
        }
        Some(())
    }

    fn number(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let digits = |byte: &&u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
        let (text, rest) = self.rest.split_at_checked(self.rest.iter().take_while(digits).count())?;
        if !is_number(text) {
            return None;
        }
        self.rest = rest;
        let text = std::str::from_utf8(text).ok()?;
        // "-0" is a float, because integers have no signed zero.
        if let Ok(number) = text.parse::<u64>() {
            encode::write_uint(out, number).ok()?;
        } else if let Some(number) = text.parse::<i64>().ok().filter(|number| *number != 0) {
            encode::write_sint(out, number).ok()?;
        } else {
            let number = text.parse::<f64>().ok().filter(|number| number.is_finite())?;
            match integer(number).filter(|_| self.rules == Rules::Go) {
                Some(number) => drop(encode::write_sint(out, number).ok()?),
                None => encode::write_f64(out, number).ok()?,
            }
        }
        Some(())
    }

    fn string(&mut self) -> Option<Cow<'a, str>> {
        self.byte(b'"')?;
        let plain = self.plain()?;
        if self.peek()? == b'"' {
            self.next();
            return Some(plain);
        }
        let mut text = plain.into_owned();
        loop {
            match self.next()? {
                b'"' => return Some(text.into()),
                b'\\' => text.push(self.escape()?),
                _ => return None, // control characters are escaped
            }
            text.push_str(&self.plain()?);
        }
    }

    /// Takes the text up to the next quote, backslash or control character.
    fn plain(&mut self) -> Option<Cow<'a, str>> {
        let ends = |byte: &u8| *byte == b'"' || *byte == b'\\' || *byte < 0x20;
        let (text, rest) = self.rest.split_at_checked(self.rest.iter().position(ends)?)?;
        self.rest = rest;
        match (std::str::from_utf8(text), self.rules) {
            (Ok(text), _) => Some(text.into()),
            (Err(_), Rules::Strict) => None,
            (Err(_), Rules::Go) => Some(replace_invalid(text).into()),
        }
    }

    /// Reads the rest of an escape after its backslash.
    fn escape(&mut self) -> Option<char> {
        Some(match self.next()? {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = self.hex()?;
                if let Some(letter) = char::from_u32(unit) {
                    return Some(letter);
                }
                // A surrogate: half of a character, if the other half follows.
                let other = self.rest.strip_prefix(b"\\u").and_then(hex);
                match other.and_then(|other| paired(unit, other)) {
                    Some(letter) => {
                        self.rest = self.rest.get(6..)?;
                        letter
                    }
                    None if self.rules == Rules::Go => char::REPLACEMENT_CHARACTER,
                    None => return None,
                }
            }
            _ => return None,
        })
    }

    fn hex(&mut self) -> Option<u32> {
        let unit = hex(self.rest)?;
        self.rest = self.rest.get(4..)?;
        Some(unit)
    }
}

/// Returns the number in the first four hexadecimal digits.
fn hex(text: &[u8]) -> Option<u32> {
    let digits = text.get(..4)?;
    digits.iter().try_fold(0, |number, digit| Some(number << 4 | char::from(*digit).to_digit(16)?))
}

/// Returns the character of a high and a low surrogate.
fn paired(high: u32, low: u32) -> Option<char> {
    if !(0xd800..0xdc00).contains(&high) || !(0xdc00..0xe000).contains(&low) {
        return None;
    }
    char::from_u32(0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00))
}

/// Replaces bytes as Go does: one U+FFFD for each byte that belongs to no character.
fn replace_invalid(mut bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 8);
    loop {
        let valid = match std::str::from_utf8(bytes) {
            Ok(rest) => {
                text.push_str(rest);
                return text;
            }
            Err(error) => error.valid_up_to(),
        };
        let (good, bad) = bytes.split_at_checked(valid).unwrap_or_default();
        text.push_str(std::str::from_utf8(good).unwrap_or_default());
        text.push(char::REPLACEMENT_CHARACTER);
        bytes = bad.get(1..).unwrap_or_default();
    }
}

/// Returns the number as an integer, if no other integer is the same float64.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)] // both bounds are exact
fn integer(number: f64) -> Option<i64> {
    (number.fract() == 0.0 && number.abs() <= EXACT as f64).then_some(number as i64)
}

/// Returns true for a number of RFC 8259 section 6: `[ minus ] int [ frac ] [ exp ]`.
fn is_number(text: &[u8]) -> bool {
    let text = text.strip_prefix(b"-").unwrap_or(text);
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let whole = digits(text);
    let mut rest = text.get(whole..).unwrap_or_default();
    if whole == 0 || whole > 1 && text.first() == Some(&b'0') {
        return false;
    }
    if let Some(fraction) = rest.strip_prefix(b".") {
        let len = digits(fraction);
        if len == 0 {
            return false;
        }
        rest = fraction.get(len..).unwrap_or_default();
    }
    if let Some(exponent) = rest.strip_prefix(b"e").or_else(|| rest.strip_prefix(b"E")) {
        let exponent =
            exponent.strip_prefix(b"+").or_else(|| exponent.strip_prefix(b"-")).unwrap_or(exponent);
        let len = digits(exponent);
        return len > 0 && len == exponent.len();
    }
    rest.is_empty()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    /// Reads with `serde_json`, without the feature for numbers of any length.
    fn by_serde(json: &[u8]) -> Option<Vec<u8>> {
        let object: BTreeMap<String, Value> = serde_json::from_slice(json).ok()?;
        rmp_serde::to_vec_named(&object).ok()
    }

    #[test]
    fn what_the_grammar_allows_is_read_and_nothing_else() {
        for (json, is_json) in [
            ("{}", true),
            (" { } ", true),
            ("{\"a\":1,}", false),
            ("{,}", false),
            ("{\"a\" 1}", false),
            ("{a:1}", false),
            ("{'a':1}", false),
            ("{\"a\":[1,2,]}", false),
            ("{\"a\":[,]}", false),
            ("{\"a\":[ ]}", true),
            ("{\"a\":nul}", false),
            ("{\"a\":truely}", false),
            ("{\"a\":\"\\x\"}", false),
            ("{\"a\":\"\\u12g4\"}", false),
            ("{\"a\":\"\\u12\"}", false),
            ("{\"a\":\"\t\"}", false),
            ("{\"a\":\"\\u0000\"}", true),
            (r#"{"a":"\b\f\n\r\t\/\\\""}"#, true),
            ("{\"a\":\"\\ud83d\\ude00\"}", true),
            ("{\"a\":\"\\ud83d\"}", false),
            ("{\"a\":\"\\ude00\\ud83d\"}", false),
            ("{\"a\":\"\\ud83d\\u0041\"}", false),
            ("{\"a\":\"", false),
            ("{\"a\":\"\\", false),
            ("null", false),
            ("[]", false),
            ("{}{}", false),
            ("{} x", false),
            ("\u{feff}{}", false),
        ] {
            let read = object_to_messagepack(json.as_bytes(), Rules::Strict);
            assert_eq!(read.is_some(), is_json, "{json}");
            assert_eq!(read, by_serde(json.as_bytes()), "{json}");
        }
        for number in [
            "0",
            "-0",
            "1",
            "-1",
            "01",
            "-01",
            "+1",
            "1.",
            ".5",
            "1.5",
            "1e5",
            "1E+5",
            "1e-5",
            "1e",
            "1e+",
            "1.e5",
            "--1",
            "1-1",
            "1e400",
            "-1e400",
            "1e-400",
            "18446744073709551615",
            "18446744073709551616",
            "-9223372036854775808",
            "-9223372036854775809",
            "9007199254740993",
            "2.2250738585072014e-308",
            "622728.3173637044",
            "-",
            "e5",
            "",
            "Infinity",
            "NaN",
            "0x10",
            "1_000",
            "0.0",
            "-0.0",
            "0e0",
            "123456789012345678901234567890",
        ] {
            let json = format!("{{\"n\":{number}}}");
            let read = object_to_messagepack(json.as_bytes(), Rules::Strict);
            assert_eq!(read, by_serde(json.as_bytes()), "{json}");
        }
    }

    #[test]
    fn t66_nesting_stops_at_the_limit() {
        let nested = |open: &str, close: &str, levels: usize| {
            format!("{{\"a\":{}1{}}}", open.repeat(levels), close.repeat(levels))
        };
        for (open, close) in [("[", "]"), ("{\"b\":", "}")] {
            assert!(object_to_messagepack(nested(open, close, 63).as_bytes(), Rules::Strict).is_some());
            assert!(object_to_messagepack(nested(open, close, 64).as_bytes(), Rules::Strict).is_none());
            assert!(object_to_messagepack(nested(open, "", 100_000).as_bytes(), Rules::Go).is_none());
        }
    }

    pub(crate) fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_filter("JSON has no other", |f| f.is_finite()).prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                proptest::collection::btree_map(any::<String>(), inner, 0..8)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_object_is_read_as_serde_json_reads_it(
            object in proptest::collection::btree_map(any::<String>(), any_json(), 0..6), pretty: bool,
        ) {
            let json = if pretty { serde_json::to_vec_pretty(&object) } else { serde_json::to_vec(&object) };
            let json = json.unwrap();
            prop_assert_eq!(object_to_messagepack(&json, Rules::Strict), by_serde(&json));
        }

        /// Pieces of JSON in any order: both readers accept the same texts.
        #[test]
        fn the_same_texts_are_json(
            pieces in proptest::collection::vec(
                proptest::sample::select(vec![
                    "{", "}", "[", "]", ":", ",", "\"a\"", "\"b\\n\"", "\"\\ud83d\\ude00\"", "\"\\ud83d\"", "1", "-0", "1.5e3", "0",
                    "00", "true", "null", " ", "\n", "\"", "\\", "\u{1}", "\u{e9}", "1e999",
                ]),
                0..12,
            ),
        ) {
            let json = format!("{{\"k\":{}}}", pieces.concat());
            prop_assert_eq!(object_to_messagepack(json.as_bytes(), Rules::Strict), by_serde(json.as_bytes()), "{}", json);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let json = [b"{\"k\":\"", &bytes[..], b"\"}"].concat();
            prop_assert_eq!(object_to_messagepack(&json, Rules::Strict), by_serde(&json));
            if let Some(read) = object_to_messagepack(&json, Rules::Go) {
                prop_assert!(rmp_serde::from_slice::<BTreeMap<String, Value>>(&read).is_ok());
            }
        }
    }
}
