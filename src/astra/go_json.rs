//! A session's values as Go's `encoding/json` writes and reads them: the JSON that is shared with Astra.
//!
//! Go reads every number into a float64, so only numbers that a float64 holds are written: see [`write()`].

use rmp::Marker;

use crate::error::{Error, Kind};
use crate::session::Payload;
use crate::session::json::{EXACT, Rules, object_to_messagepack};
use crate::session::messagepack::{MAX_DEPTH, bin_bytes, map_len, skip_value, str_bytes, take_len};

/// Reads the values of a JSON object, as Go does. An empty object is a session without values, and so is `null`, which
/// Go writes for a nil map.
///
/// A number that Go would read as an integer is an integer here, also if it is written `123.0` or `1e3`. Other digits
/// are kept, even beyond 2^53, where Go rounds. Text that is not Unicode (lone surrogates, invalid UTF-8) becomes
/// U+FFFD, as in Go. Of a repeated key, the last value counts.
pub(crate) fn read(json: &[u8]) -> Option<Payload> {
    Payload::index(object_to_messagepack(json, Rules::Go)?.into())
}

/// Writes the JSON object of these values, byte for byte as Go does: keys sorted, `<`, `>`, `&`, U+2028 and U+2029
/// escaped, floats in the shortest form that reads back.
///
/// A value that is the same in `shared`, the values that were read from JSON, is always written.
///
/// # Errors
///
/// [`is_value`](Error::is_value), naming key and kind, for a value that Go would not read and write back unchanged: an
/// integer beyond 2^53, NaN and infinities, byte strings, maps with keys that are not strings.
pub(crate) fn write(payload: &Payload, shared: Option<&Payload>) -> Result<Vec<u8>, Error> {
    let mut out = Vec::with_capacity(256);
    out.push(b'{');
    for (at, (key, value)) in payload.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        string(&mut out, key);
        out.push(b':');
        let as_it_was = shared.and_then(|shared| shared.get(key)).is_some_and(|shared| shared == value);
        Writer { out: &mut out, as_it_was }
            .value(value)
            .map_err(|Unmapped(found)| Error::new(Kind::NoJson { key: key.to_owned(), found }))?;
    }
    out.push(b'}');
    Ok(out)
}

/// A kind of value that the JSON cannot hold.
struct Unmapped(&'static str);

struct Writer<'a> {
    out: &'a mut Vec<u8>,
    as_it_was: bool,
}

impl Writer<'_> {
    /// Writes the first value of `input`, and returns the rest of `input`. Limited to the depth of a payload.
    fn value<'a>(&mut self, input: &'a [u8]) -> Result<&'a [u8], Unmapped> {
        let broken = || Unmapped("broken");
        let (&marker, rest) = input.split_first().ok_or_else(broken)?;
        match Marker::from_u8(marker) {
            Marker::Null => self.literal("null"),
            Marker::True => self.literal("true"),
            Marker::False => self.literal("false"),
            Marker::FixPos(number) => self.integer(number.into())?,
            Marker::FixNeg(number) => self.integer(number.into())?,
            Marker::U8 | Marker::U16 | Marker::U32 | Marker::U64 => {
                let number = number(rest, 1 << (marker - 0xcc)).ok_or_else(broken)?;
                self.integer(number.into())?;
            }
            Marker::I8 | Marker::I16 | Marker::I32 | Marker::I64 => {
                let len = 1 << (marker - 0xd0);
                let bits = 64 - 8 * u32::try_from(len).map_err(|_| broken())?;
                // Shifted up and down again, so that the sign extends into the upper bits.
                let number = i64::from_ne_bytes(number(rest, len).ok_or_else(broken)?.to_ne_bytes());
                let number = number << bits >> bits;
                self.integer(number.into())?;
            }
            Marker::F32 => {
                let bits = number(rest, 4).and_then(|bits| u32::try_from(bits).ok()).ok_or_else(broken)?;
                self.float(f32::from_bits(bits).into())?;
            }
            Marker::F64 => self.float(f64::from_bits(number(rest, 8).ok_or_else(broken)?))?,
            Marker::FixArray(len) => return self.array(len.into(), rest),
            Marker::Array16 => {
                let (len, rest) = take_len::<2>(rest).ok_or_else(broken)?;
                return self.array(len, rest);
            }
            Marker::Array32 => {
                let (len, rest) = take_len::<4>(rest).ok_or_else(broken)?;
                return self.array(len, rest);
            }
            Marker::FixMap(_) | Marker::Map16 | Marker::Map32 => {
                let (len, rest) = map_len(input).ok_or_else(broken)?;
                return self.map(len, rest);
            }
            Marker::FixStr(_) | Marker::Str8 | Marker::Str16 | Marker::Str32 => {
                let (text, rest) = str_bytes(input).ok_or_else(broken)?;
                string(self.out, utf8(text)?);
                return Ok(rest);
            }
            _ if bin_bytes(input).is_some() => return Err(Unmapped("a byte string")),
            _ => return Err(Unmapped("a MessagePack extension")),
        }
        skip_value(input, 0).ok_or_else(broken)
    }

    fn literal(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    /// Writes an integer, unless Go would change it. Beyond 2^53, a float64 holds some integers and not others. Go
    /// writes those with the fewest digits that read back, and zeros: 1152921504606846976 (2^60) becomes
    /// 1152921504606847000 when Go saves the session.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // whether it loses any is the question
    fn integer(&mut self, number: i128) -> Result<(), Unmapped> {
        if number.unsigned_abs() > EXACT.into() && !self.as_it_was {
            return Err(Unmapped(if number as f64 as i128 == number {
                "an integer beyond 2^53 that Go would round when it saves it"
            } else {
                "an integer beyond 2^53 that a float64 cannot hold"
            }));
        }
        self.literal(&number.to_string());
        Ok(())
    }

    /// Formats a float as Go does: no exponent from 1e-6 up to below 1e21, and the fewest digits that read back.
    fn float(&mut self, number: f64) -> Result<(), Unmapped> {
        if !number.is_finite() {
            return Err(Unmapped("a number that is not finite"));
        }
        let size = number.abs();
        if size == 0.0 || (1e-6..1e21).contains(&size) {
            self.literal(&number.to_string());
        } else {
            let text = format!("{number:e}");
            let text = if size < 1.0 { text } else { text.replace('e', "e+") };
            self.literal(&text);
        }
        Ok(())
    }

    fn array<'a>(&mut self, len: usize, mut rest: &'a [u8]) -> Result<&'a [u8], Unmapped> {
        self.out.push(b'[');
        for at in 0..len {
            if at > 0 {
                self.out.push(b',');
            }
            rest = self.value(rest)?;
        }
        self.out.push(b']');
        Ok(rest)
    }

    fn map<'a>(&mut self, len: usize, mut rest: &'a [u8]) -> Result<&'a [u8], Unmapped> {
        let mut entries = Vec::new();
        for _ in 0..len {
            let (key, value) = str_bytes(rest).ok_or(Unmapped("a map with keys that are not strings"))?;
            entries.push((utf8(key)?, value));
            rest = skip_value(value, MAX_DEPTH).ok_or(Unmapped("broken"))?;
        }
        entries.sort_by_key(|(key, _)| *key);
        self.out.push(b'{');
        for (at, (key, value)) in entries.into_iter().enumerate() {
            if at > 0 {
                self.out.push(b',');
            }
            string(self.out, key);
            self.out.push(b':');
            self.value(value)?;
        }
        self.out.push(b'}');
        Ok(rest)
    }
}

/// Returns the big-endian number in the first `len` bytes.
fn number(input: &[u8], len: usize) -> Option<u64> {
    Some(input.get(..len)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

fn utf8(text: &[u8]) -> Result<&str, Unmapped> {
    std::str::from_utf8(text).map_err(|_| Unmapped("text that is not UTF-8"))
}

/// Writes a string with the escapes of Go's `json.Marshal`, which keep it harmless inside of HTML.
fn string(out: &mut Vec<u8>, text: &str) {
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
            '\0'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                out.extend_from_slice(format!("\\u{:04x}", u32::from(letter)).as_bytes());
            }
            _ => out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
#[path = "go_json_tests.rs"]
mod tests;
