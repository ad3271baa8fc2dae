//! The codec of values: between a serde value and its MessagePack bytes.

use std::any::type_name;

use bytes::Bytes;
use rmp::Marker;
use serde::Serialize;
use serde::de::DeserializeOwned;
use smallvec::SmallVec;

use super::messagepack::{MAX_DEPTH, skip_value};
use crate::error::{Error, Kind};

/// Encodes `value`. Structs are maps with their field names, so that releases can add and drop fields. The human-readable
/// forms are used (a `Uuid` as its text), so that a value is the same in a store that writes MessagePack and in a store
/// that writes JSON.
pub(crate) fn encode<T: Serialize + ?Sized>(key: &str, value: &T) -> Result<Bytes, Error> {
    // On the stack: most values are short, and the length is known only after encoding.
    let mut buffer = SmallVec::<[u8; 128]>::new();
    let mut serializer = rmp_serde::Serializer::new(&mut buffer).with_struct_map().with_human_readable();
    // The cause may quote the value, so it is left out of the error.
    value.serialize(&mut serializer).map_err(|_| Error::new(Kind::Encode { key: key.to_owned() }))?;
    match skip_value(&buffer, MAX_DEPTH - 1) {
        Some([]) => Ok(Bytes::copy_from_slice(&buffer)),
        _ => Err(Error::new(Kind::TooDeep { key: key.to_owned() })),
    }
}

/// Decodes the value in `bytes`, which were checked to be one whole MessagePack value.
pub(crate) fn decode<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, Error> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes).with_human_readable();
    // Messages of serde quote the value that did not fit, so they are left out of the error.
    T::deserialize(&mut deserializer).map_err(|_| mismatch(key, bytes, type_name::<T>()))
}

/// Creates the error for a value of another type than requested, without quoting the value.
pub(crate) fn mismatch(key: &str, bytes: &[u8], expected: &'static str) -> Error {
    Error::new(Kind::Decode { key: key.to_owned(), found: kind_of(bytes), expected })
}

/// Returns the kind of a value by its first byte.
fn kind_of(bytes: &[u8]) -> &'static str {
    match bytes.first().map(|&marker| Marker::from_u8(marker)) {
        Some(Marker::Null) => "null",
        Some(Marker::True | Marker::False) => "a boolean",
        Some(Marker::F32 | Marker::F64) => "a float",
        Some(Marker::FixStr(_) | Marker::Str8 | Marker::Str16 | Marker::Str32) => "a string",
        Some(Marker::Bin8 | Marker::Bin16 | Marker::Bin32) => "a byte string",
        Some(Marker::FixArray(_) | Marker::Array16 | Marker::Array32) => "an array",
        Some(Marker::FixMap(_) | Marker::Map16 | Marker::Map32) => "a map",
        Some(
            Marker::FixPos(_)
            | Marker::FixNeg(_)
            | Marker::U8
            | Marker::U16
            | Marker::U32
            | Marker::U64
            | Marker::I8
            | Marker::I16
            | Marker::I32
            | Marker::I64,
        ) => "an integer",
        _ => "something else",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::collections::BTreeMap;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct User {
        id: u64,
        name: String,
        #[serde(default)]
        roles: Vec<Role>,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Role {
        Admin,
        Editor { section: String },
    }

    #[test]
    fn values_read_back() {
        let user = User {
            id: 7,
            name: "Ada".into(),
            roles: vec![Role::Admin, Role::Editor { section: "x".into() }],
        };
        assert_eq!(decode::<User>("u", &encode("u", &user).unwrap()).unwrap(), user);
        for number in [i64::MIN, -1, 0, 127, 128, i64::MAX] {
            assert_eq!(decode::<i64>("n", &encode("n", &number).unwrap()).unwrap(), number);
        }
        assert_eq!(decode::<Option<u8>>("o", &encode("o", &None::<u8>).unwrap()).unwrap(), None);
        let address: std::net::IpAddr = "2001:db8::1".parse().unwrap();
        assert_eq!(decode::<std::net::IpAddr>("a", &encode("a", &address).unwrap()).unwrap(), address);
        assert_eq!(decode::<String>("a", &encode("a", &address).unwrap()).unwrap(), "2001:db8::1");
    }

    #[test]
    fn fields_may_come_and_go() {
        let old = encode("u", &BTreeMap::from([("id", 7)])).unwrap();
        assert!(decode::<User>("u", &old).is_err());
        let newer = serde_json::json!({"id": 7, "name": "Ada", "shoe_size": 38});
        assert_eq!(decode::<User>("u", &encode("u", &newer).unwrap()).unwrap().roles, []);
    }

    // T75, T76: an error never quotes the value.
    #[test]
    fn errors_name_key_and_kind_and_quote_nothing() {
        let secret = encode("pin", "hunter2").unwrap();
        let error = decode::<u64>("pin", &secret).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the value under session key \"pin\" is a string, and cannot be read as u64"
        );
        let chain = format!("{error:?} {error:#?}");
        assert!(!chain.contains("hunter2"), "{chain}");
        let error = decode::<Role>("role", &secret).unwrap_err();
        assert!(!format!("{error:?}").contains("hunter2"));
        assert!(std::error::Error::source(&error).is_none());
    }

    #[test]
    fn an_error_names_the_kind_of_each_value() {
        for (value, kind) in [
            (serde_json::json!(null), "null"),
            (true.into(), "a boolean"),
            (0.5.into(), "a float"),
            ("x".into(), "a string"),
            (serde_json::json!([1]), "an array"),
            (serde_json::json!({ "a": 1 }), "a map"),
            (1.into(), "an integer"),
            ((-1).into(), "an integer"),
            (u64::MAX.into(), "an integer"),
        ] {
            let error = decode::<std::net::IpAddr>("k", &encode("k", &value).unwrap()).unwrap_err();
            assert!(error.to_string().contains(&format!(" is {kind}, and cannot be read")), "{error}");
        }
        let bytes = encode("k", &Bytes::from_static(b"x")).unwrap();
        assert!(decode::<u64>("k", &bytes).unwrap_err().to_string().contains(" is a byte string, "));
    }

    struct Refuses;

    impl Serialize for Refuses {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("hunter2"))
        }
    }

    #[test]
    fn too_deep_and_unserializable_values_are_errors() {
        let mut deep = serde_json::Value::Null;
        for _ in 0..62 {
            deep = vec![deep].into();
        }
        assert!(encode("d", &deep).is_ok());
        let deep = vec![vec![deep]];
        assert!(encode("d", &deep).unwrap_err().to_string().contains("64"));

        let keyed_by_map = BTreeMap::from([(BTreeMap::from([(1, 2)]), 3)]);
        assert!(encode("k", &keyed_by_map).is_ok()); // MessagePack allows it
        let error = encode("r", &Refuses).unwrap_err();
        assert!(error.is_value() && !format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}
