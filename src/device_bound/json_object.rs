//! JSON objects with unique names, of which the protocol needs texts and one object inside.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The members of a JSON object, in order. No name occurs twice.
#[derive(Debug)]
pub(super) struct Object(Vec<(String, Member)>);

#[derive(Debug)]
enum Member {
    Text(String),
    Object(Object),
    Other,
}

impl Object {
    /// Reads an object.
    //= RFC 7515 section 4: "The Header Parameter names within the JOSE Header MUST be unique; JWS parsers MUST either reject
    //# JWSs with duplicate Header Parameter names or use a JSON parser that returns only the lexically last duplicate member
    //# name"
    pub(super) fn read(json: &[u8]) -> Option<Self> {
        match serde_json::from_slice(json).ok()? {
            Member::Object(object) => Some(object),
            Member::Text(_) | Member::Other => None,
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.member(name).is_some()
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.member(name)? {
            Member::Text(text) => Some(text),
            Member::Object(_) | Member::Other => None,
        }
    }

    pub(super) fn object(&self, name: &str) -> Option<&Self> {
        match self.member(name)? {
            Member::Object(object) => Some(object),
            Member::Text(_) | Member::Other => None,
        }
    }

    fn member(&self, name: &str) -> Option<&Member> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, member)| member)
    }
}

impl<'de> Deserialize<'de> for Member {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyMember)
    }
}

struct AnyMember;

impl<'de> Visitor<'de> for AnyMember {
    type Value = Member;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Member, E> {
        Ok(Member::Text(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Member, A::Error> {
        let mut members: Vec<(String, Member)> = Vec::new();
        while let Some((name, member)) = map.next_entry::<String, Member>()? {
            if members.iter().any(|(known, _)| *known == name) {
                return Err(A::Error::custom("a name occurs twice"));
            }
            members.push((name, member));
        }
        Ok(Member::Object(Object(members)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Member, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Member::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Member, E> {
        Ok(Member::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Member, E> {
        Ok(Member::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Member, E> {
        Ok(Member::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Member, E> {
        Ok(Member::Other)
    }

    fn visit_unit<E>(self) -> Result<Member, E> {
        Ok(Member::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_by_name_and_kind() {
        let json = br#"{"a":"x","b":{"c":"y"},"n":1,"f":1.5,"m":-1,"t":true,"z":null,"l":[{"a":1},"a"]}"#;
        let object = Object::read(json).unwrap();
        assert_eq!(object.text("a"), Some("x"));
        assert_eq!(object.object("b").unwrap().text("c"), Some("y"));
        for other in ["n", "f", "m", "t", "z", "l"] {
            assert!(object.has(other) && object.text(other).is_none() && object.object(other).is_none());
        }
        assert!(!object.has("c"));
    }

    #[test]
    fn what_is_not_one_object_with_unique_names_is_refused() {
        for bad in [
            &b""[..],
            b"null",
            b"[]",
            b"\"a\"",
            b"{",
            b"{}{}",
            b"{\"a\":1,}",
            b"{\"a\":1,\"a\":1}",
            b"{\"a\":1,\"\\u0061\":1}",
            b"{\"b\":{\"a\":1,\"a\":2}}",
            b"{\"a\":\"\xff\"}",
            b"{\"a\":\"\\ud800\"}",
            b"{a:1}",
        ] {
            assert!(Object::read(bad).is_none(), "{}", String::from_utf8_lossy(bad));
        }
        assert!(Object::read(" {} ".as_bytes()).is_some());
        let deep = format!("{}1{}", "{\"a\":".repeat(300), "}".repeat(300));
        assert!(Object::read(deep.as_bytes()).is_none());
        // Arrays are skipped, whatever their depth.
        let long = format!("{{\"a\":{}{}}}", "[".repeat(2_000), "]".repeat(2_000));
        assert!(Object::read(long.as_bytes()).is_some());
    }
}
