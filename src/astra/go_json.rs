//! A session's values as Go's `encoding/json` writes and reads them: the JSON that is shared with Astra.
//!
//! Go reads every number into a float64, so only numbers that a float64 holds are written: see [`write()`].

use crate::error::Error;
use crate::session::Payload;
use crate::session::json_reader::{EXACT, Rules, object_to_messagepack};
use crate::session::json_writer::{Dialect, NotJson, object_in_dialect};

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
    object_in_dialect(payload.iter().map(|(key, value)| {
        let as_it_was = shared.and_then(|shared| shared.get(key)).is_some_and(|shared| shared == value);
        (key, value, Go { as_it_was })
    }))
}

/// JSON as Go's `json.Marshal` writes it.
struct Go {
    /// The value is the same as when the JSON was read, so each integer is written.
    as_it_was: bool,
}

impl Dialect for Go {
    /// Writes an integer, unless Go would change it. Beyond 2^53, a float64 holds some integers and not others. Go
    /// writes those with the fewest digits that read back, and zeros: 1152921504606846976 (2^60) becomes
    /// 1152921504606847000 when Go saves the session.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // whether it loses any is the question
    fn integer(&self, out: &mut Vec<u8>, number: i128) -> Result<(), NotJson> {
        if number.unsigned_abs() > EXACT.into() && !self.as_it_was {
            return Err(NotJson(if number as f64 as i128 == number {
                "an integer beyond 2^53 that Go would round when it saves it"
            } else {
                "an integer beyond 2^53 that a float64 cannot hold"
            }));
        }
        out.extend_from_slice(number.to_string().as_bytes());
        Ok(())
    }

    /// No exponent from 1e-6 up to below 1e21, and the fewest digits that read back.
    fn float(&self, out: &mut Vec<u8>, number: f64) {
        let size = number.abs();
        let text = if size == 0.0 || (1e-6..1e21).contains(&size) {
            number.to_string()
        } else if size < 1.0 {
            format!("{number:e}")
        } else {
            format!("{number:e}").replace('e', "e+")
        };
        out.extend_from_slice(text.as_bytes());
    }

    /// Go's escapes keep a string harmless inside of HTML and of JavaScript.
    fn escapes(&self, letter: char) -> bool {
        matches!(letter, '<' | '>' | '&' | '\u{2028}' | '\u{2029}')
    }
}

#[cfg(test)]
#[path = "go_json_tests.rs"]
mod tests;
