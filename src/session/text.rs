//! A string that is a slice of the decoded session.

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;
use bytestring::ByteString;

use super::messagepack;

/// A string value of a session, as a view of the buffer that the session was decoded into. Cloning it copies nothing.
///
/// It keeps that whole buffer (a few kilobytes) in memory. Convert it to a `String` to keep it for long.
///
/// # Examples
///
/// ```
/// # hyper_session::__example(|session| {
/// session.set("name", " Ada ")?;
/// let name = session.get_str("name")?.unwrap();
/// assert_eq!(name.trim(), "Ada"); // derefs to str
/// assert_eq!(name, " Ada ");
/// # Ok(())
/// # }).unwrap();
/// ```
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Text(ByteString);

impl Text {
    /// Creates the text of `bytes`. Returns `None` if they are not UTF-8.
    fn from_utf8(bytes: Bytes) -> Option<Self> {
        ByteString::try_from(bytes).ok().map(Self)
    }

    /// Creates the text of an encoded value. Returns `None` if it is not one string, and nothing else.
    pub(super) fn from_value(value: &Bytes) -> Option<Self> {
        Self::from_utf8(value.slice_ref(messagepack::whole(messagepack::str_bytes(value))?))
    }

    /// Returns the string.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl serde::Serialize for Text {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl From<Text> for String {
    fn from(text: Text) -> Self {
        text.as_str().to_owned()
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_str(), f)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_used_like_a_string() {
        let text = Text::from_utf8(Bytes::from_static("grüße".as_bytes())).unwrap();
        assert_eq!((text.len(), text.as_ref()), (7, "grüße"));
        assert!(text == "grüße" && text != "Grüße");
        assert_eq!(format!("{text} {text:?}"), "grüße \"grüße\"");
        assert_eq!(serde_json::json!({ "t": text }), serde_json::json!({ "t": "grüße" }));
        assert_eq!(String::from(text), "grüße");
        assert_eq!(Text::from_utf8(Bytes::from_static(b"\xff")), None);
    }
}
