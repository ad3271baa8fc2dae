//! The header fields of the protocol, which are structured fields (RFC 9651).

use http::header::{HeaderMap, HeaderName, HeaderValue};
use sfv::visitor::{Ignored, ItemVisitor, ParameterVisitor, parameter_visitor_with};
use sfv::{BareItemFromInput, ItemSerializer, KeyRef, ListSerializer, Parser, StringRef, TokenRef};

use crate::error::{Error, Kind};

/// Offers the registration of a key, on a response.
pub(crate) const REGISTRATION: HeaderName = HeaderName::from_static("secure-session-registration");
/// Sets the challenge that the browser must sign, on a response.
pub(crate) const CHALLENGE: HeaderName = HeaderName::from_static("secure-session-challenge");
/// Carries the proof, on a request.
pub(crate) const RESPONSE: HeaderName = HeaderName::from_static("secure-session-response");
/// Carries the identifier of the binding, on a request.
pub(crate) const IDENTIFIER: HeaderName = HeaderName::from_static("sec-secure-session-id");
/// Says that the browser could not refresh a bound cookie, and why, on a request.
pub(crate) const SKIPPED: HeaderName = HeaderName::from_static("secure-session-skipped");

/// Returns the value of [`REGISTRATION`]: `(ES256);path="…";challenge="…"`.
pub(super) fn registration(path: &str, challenge: &str) -> Result<HeaderValue, Error> {
    let mut list = ListSerializer::new();
    {
        let mut algorithms = list.inner_list();
        let _ = algorithms.bare_item(TokenRef::from_str("ES256").map_err(|_| unwritable())?);
        let _ = algorithms
            .finish()
            .parameter(key("path")?, string(path)?)
            .parameter(key("challenge")?, string(challenge)?);
    }
    value(&list.finish().ok_or_else(unwritable)?)
}

/// Returns the value of [`CHALLENGE`]: `"…";id="…"`.
pub(super) fn challenge(challenge: &str, identifier: &str) -> Result<HeaderValue, Error> {
    let item = ItemSerializer::new().bare_item(string(challenge)?);
    value(&item.parameter(key("id")?, string(identifier)?).finish())
}

/// Returns the text of a request's field, if there is one field of that name with at most `max` bytes.
///
/// The specification has a string. Chromium 156 sends a token.
pub(super) fn text(headers: &HeaderMap, name: &HeaderName, max: usize) -> Option<String> {
    let mut fields = headers.get_all(name).iter();
    let field = fields.next()?;
    // The quotes, and a few parameters of a later draft.
    if fields.next().is_some() || field.len() > max + 128 {
        return None;
    }
    Parser::new(field.as_bytes()).parse_item_with_visitor(Text).ok()?.filter(|text| text.len() <= max)
}

/// Takes the text of a string or token.
struct Text;

impl<'de> ItemVisitor<'de> for Text {
    type Out = Option<String>;
    type Error = std::convert::Infallible;

    fn bare_item(
        self,
        item: BareItemFromInput<'de>,
    ) -> Result<impl ParameterVisitor<'de, Out = Self::Out>, Self::Error> {
        let text = match item {
            BareItemFromInput::String(text) => Some(text.as_str().to_owned()),
            BareItemFromInput::Token(token) => Some(token.as_str().to_owned()),
            _ => None,
        };
        Ok(parameter_visitor_with(Ignored, move |()| Ok(text)))
    }
}

fn key(name: &str) -> Result<&KeyRef, Error> {
    KeyRef::from_str(name).map_err(|_| unwritable())
}

fn string(text: &str) -> Result<&StringRef, Error> {
    StringRef::from_str(text).map_err(|_| unwritable())
}

fn value(text: &str) -> Result<HeaderValue, Error> {
    HeaderValue::from_str(text).map_err(|_| unwritable())
}

fn unwritable() -> Error {
    Error::new(Kind::Internal("a field of the registration that cannot be written"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(RESPONSE, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn both_spellings_are_read() {
        for field in ["a.b-_.c", "\"a.b-_.c\"", "  a.b-_.c  ", "a.b-_.c;x=1", "\"a.b-_.c\";x;y=\"z\""] {
            assert_eq!(text(&headers(&[field]), &RESPONSE, 99).as_deref(), Some("a.b-_.c"), "{field}");
        }
    }

    #[test]
    fn anything_else_is_not_read() {
        for field in [
            "", "a, b", "(a)", "1", "?1", ":aGk=:", "1.5", "@1", "%\"a\"", "\"a", "a b", "\u{e9}", "-a",
            "a=b",
        ] {
            assert_eq!(text(&headers(&[field]), &RESPONSE, 99), None, "{field}");
        }
        assert_eq!(text(&headers(&[]), &RESPONSE, 99), None);
        assert_eq!(text(&headers(&["a", "a"]), &RESPONSE, 99), None, "two fields");
        assert_eq!(text(&headers(&["abc"]), &RESPONSE, 3).as_deref(), Some("abc"));
        assert_eq!(text(&headers(&["abcd"]), &RESPONSE, 3), None);
        assert_eq!(text(&headers(&[&"a".repeat(200)]), &RESPONSE, 3), None);
        // Parameters have room for 128 bytes, with the quotes.
        let with_parameter = |len: usize| format!("abc;x=\"{}\"", "y".repeat(len - 8));
        assert_eq!(text(&headers(&[&with_parameter(131)]), &RESPONSE, 3).as_deref(), Some("abc"));
        assert_eq!(text(&headers(&[&with_parameter(132)]), &RESPONSE, 3), None);
        assert_eq!(text(&headers(&[&with_parameter(133)]), &RESPONSE, 3), None);
    }

    // The fields of dbsc-toolkit's vectors: tests/vectors/dbsc/README.md.
    #[test]
    fn fields_are_written_as_another_implementation_writes_them() {
        let vectors = include_str!("../../tests/vectors/dbsc/registration-header.json");
        let vectors: serde_json::Value = serde_json::from_str(vectors).unwrap();
        let (inputs, expected) = (&vectors["inputs"], &vectors["expected"]);
        let input = |name: &str| inputs[name].as_str().unwrap();
        assert_eq!(
            registration(input("registrationPath"), input("challenge")).unwrap(),
            expected["Secure-Session-Registration"].as_str().unwrap()
        );
        assert_eq!(
            challenge(input("challenge"), input("sessionId")).unwrap(),
            expected["Secure-Session-Challenge (with id)"].as_str().unwrap()
        );
    }

    // The fields of the specification's examples: tests/vectors/dbsc/README.md.
    #[test]
    fn fields_are_those_of_the_specification() {
        let vectors = include_str!("../../tests/vectors/dbsc/specification.json");
        let vectors: serde_json::Value = serde_json::from_str(vectors).unwrap();
        let fields = &vectors["fields"];
        let of = |field: &str, name: &str| fields[field][name].as_str().unwrap().to_owned();
        let named = [
            ("registration", REGISTRATION),
            ("challenge", CHALLENGE),
            ("response", RESPONSE),
            ("identifier", IDENTIFIER),
        ];
        for (field, name) in named {
            assert_eq!(of(field, "name").to_lowercase(), name.as_str());
        }
        let written = registration(&of("registration", "path"), &of("registration", "challenge"));
        assert_eq!(written.unwrap(), of("registration", "value"));
        let written = challenge(&of("challenge", "challenge"), &of("challenge", "id"));
        assert_eq!(written.unwrap(), of("challenge", "value"));
        for (field, name) in [("response", RESPONSE), ("identifier", IDENTIFIER)] {
            let expected = of(field, "text");
            let mut headers = HeaderMap::new();
            headers.insert(&name, HeaderValue::from_str(&format!("\"{expected}\"")).unwrap());
            assert_eq!(text(&headers, &name, 1_000), Some(expected));
        }
    }

    #[test]
    fn a_text_that_no_field_can_hold_is_an_error() {
        assert!(registration("/\u{e9}", "c").is_err());
        assert!(challenge("a\nb", "c").is_err());
    }
}
