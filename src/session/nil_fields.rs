//! Fields of a struct that are nil or skipped: which of them are absent, and how others are read back.
//!
//! MessagePack encodes `None`, `()` and JSON's null alike. An absent field reads back only as `None`. So only `None` is
//! left out of a session, and a stored nil is the content of a `Some`.

use std::collections::BTreeSet;
use std::fmt;

use bytes::Bytes;
use serde::de::value::MapDeserializer;
use serde::de::{DeserializeOwned, Deserializer, IntoDeserializer, Visitor};
use serde::ser::{Impossible, Serialize, SerializeMap, SerializeStruct, Serializer};

use super::messagepack::str_bytes;
use super::value_codec;

/// The MessagePack encoding of `None`.
pub(super) const NIL: &[u8] = &[0xc0];

/// Returns the names of the fields, or keys, whose value is `None` itself, and of the fields that the struct skips
/// (`skip_serializing_if`).
pub(super) fn absent_fields<T: Serialize + ?Sized>(value: &T) -> BTreeSet<String> {
    let mut fields = AbsentFields::default();
    // Values that are neither structs nor maps are refused elsewhere.
    let _ = value.serialize(&mut fields);
    fields.names
}

/// Reads a `T` from entries that hold a nil, and takes each nil for the content of a `Some`. Returns `None` if that is not
/// a `T`.
///
/// A field of a struct with `#[serde(flatten)]` does not say what it expects, because serde buffers its value first. Such a nil
/// is taken for the content of a `Some`, too. If that is not a `T`, all such nils are taken for a `()`.
pub(super) fn read_with_nils<T: DeserializeOwned>(entries: &[(String, Bytes)]) -> Option<T> {
    [Nil::Some, Nil::Unit].into_iter().find_map(|buffered| {
        let entries = entries.iter().map(|(key, value)| (key.as_str(), Field { value, buffered }));
        T::deserialize(MapDeserializer::new(entries)).ok()
    })
}

/// The reading of a nil whose type is not known.
#[derive(Clone, Copy)]
enum Nil {
    Some,
    Unit,
}

/// A serializer that finds the fields that are `None` or skipped.
#[derive(Default)]
struct AbsentFields {
    names: BTreeSet<String>,
    /// The key of the map entry whose value comes next.
    key: Option<String>,
}

/// A serializer that succeeds only for `None`.
struct IsNone;

fn is_none<T: Serialize + ?Sized>(value: &T) -> bool {
    value.serialize(IsNone).is_ok()
}

macro_rules! refuse {
    ($($method:ident($($argument:ty),*) -> $result:ty;)*) => {
        $(fn $method(self $(, _: $argument)*) -> Result<$result, fmt::Error> {
            Err(fmt::Error)
        })*
    };
}

macro_rules! refuse_scalars {
    () => {
        refuse! {
            serialize_bool(bool) -> ();
            serialize_i8(i8) -> ();
            serialize_i16(i16) -> ();
            serialize_i32(i32) -> ();
            serialize_i64(i64) -> ();
            serialize_i128(i128) -> ();
            serialize_u8(u8) -> ();
            serialize_u16(u16) -> ();
            serialize_u32(u32) -> ();
            serialize_u64(u64) -> ();
            serialize_u128(u128) -> ();
            serialize_f32(f32) -> ();
            serialize_f64(f64) -> ();
            serialize_char(char) -> ();
            serialize_str(&str) -> ();
            serialize_bytes(&[u8]) -> ();
            serialize_unit() -> ();
            serialize_unit_struct(&'static str) -> ();
            serialize_unit_variant(&'static str, u32, &'static str) -> ();
            serialize_seq(Option<usize>) -> Self::SerializeSeq;
            serialize_tuple(usize) -> Self::SerializeTuple;
            serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct;
            serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Self::SerializeTupleVariant;
            serialize_struct_variant(&'static str, u32, &'static str, usize) -> Self::SerializeStructVariant;
        }

        fn serialize_newtype_variant<T: Serialize + ?Sized>(
            self,
            _: &'static str,
            _: u32,
            _: &'static str,
            _: &T,
        ) -> Result<(), fmt::Error> {
            Err(fmt::Error)
        }
    };
}

impl Serializer for IsNone {
    type Ok = ();
    type Error = fmt::Error;
    type SerializeSeq = Impossible<(), fmt::Error>;
    type SerializeTuple = Impossible<(), fmt::Error>;
    type SerializeTupleStruct = Impossible<(), fmt::Error>;
    type SerializeTupleVariant = Impossible<(), fmt::Error>;
    type SerializeMap = Impossible<(), fmt::Error>;
    type SerializeStruct = Impossible<(), fmt::Error>;
    type SerializeStructVariant = Impossible<(), fmt::Error>;

    refuse_scalars!();

    refuse! {
        serialize_map(Option<usize>) -> Self::SerializeMap;
        serialize_struct(&'static str, usize) -> Self::SerializeStruct;
    }

    fn serialize_none(self) -> Result<(), fmt::Error> {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<(), fmt::Error> {
        Err(fmt::Error)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: &T,
    ) -> Result<(), fmt::Error> {
        // It is encoded like its content, but a field of that type must not be absent.
        Err(fmt::Error)
    }
}

impl Serializer for &mut AbsentFields {
    type Ok = ();
    type Error = fmt::Error;
    type SerializeSeq = Impossible<(), fmt::Error>;
    type SerializeTuple = Impossible<(), fmt::Error>;
    type SerializeTupleStruct = Impossible<(), fmt::Error>;
    type SerializeTupleVariant = Impossible<(), fmt::Error>;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Impossible<(), fmt::Error>;

    refuse_scalars!();

    refuse! { serialize_none() -> (); }

    fn serialize_map(self, _: Option<usize>) -> Result<Self, fmt::Error> {
        Ok(self)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, fmt::Error> {
        Ok(self)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), fmt::Error> {
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), fmt::Error> {
        value.serialize(self)
    }
}

impl SerializeStruct for &mut AbsentFields {
    type Ok = ();
    type Error = fmt::Error;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), fmt::Error> {
        if is_none(value) {
            self.names.insert(key.to_owned());
        }
        Ok(())
    }

    fn skip_field(&mut self, key: &'static str) -> Result<(), fmt::Error> {
        self.names.insert(key.to_owned());
        Ok(())
    }

    fn end(self) -> Result<(), fmt::Error> {
        Ok(())
    }
}

impl SerializeMap for &mut AbsentFields {
    type Ok = ();
    type Error = fmt::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), fmt::Error> {
        let key = value_codec::encode("a key", key).map_err(|_| fmt::Error)?;
        let text = str_bytes(&key).and_then(|(text, _)| std::str::from_utf8(text).ok());
        self.key = text.map(str::to_owned);
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), fmt::Error> {
        let key = self.key.take();
        self.names.extend(key.filter(|_| is_none(value)));
        Ok(())
    }

    fn end(self) -> Result<(), fmt::Error> {
        Ok(())
    }
}

/// The undecoded value of a field.
struct Field<'de> {
    value: &'de [u8],
    buffered: Nil,
}

impl<'de> IntoDeserializer<'de, rmp_serde::decode::Error> for Field<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

macro_rules! forward {
    ($($method:ident($($name:ident: $argument:ty),*);)*) => {
        $(fn $method<V: Visitor<'de>>(self, $($name: $argument,)* visitor: V) -> Result<V::Value, Self::Error> {
            let mut deserializer = rmp_serde::Deserializer::from_read_ref(self.value).with_human_readable();
            deserializer.$method($($name,)* visitor)
        })*
    };
}

impl<'de> Deserializer<'de> for Field<'de> {
    type Error = rmp_serde::decode::Error;

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        let mut deserializer = rmp_serde::Deserializer::from_read_ref(self.value).with_human_readable();
        if self.value == NIL {
            visitor.visit_some(&mut deserializer)
        } else {
            deserializer.deserialize_option(visitor)
        }
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        let mut deserializer = rmp_serde::Deserializer::from_read_ref(self.value).with_human_readable();
        match self.buffered {
            Nil::Some if self.value == NIL => visitor.visit_some(&mut deserializer),
            Nil::Some | Nil::Unit => deserializer.deserialize_any(visitor),
        }
    }

    forward! {
        deserialize_bool();
        deserialize_i8();
        deserialize_i16();
        deserialize_i32();
        deserialize_i64();
        deserialize_i128();
        deserialize_u8();
        deserialize_u16();
        deserialize_u32();
        deserialize_u64();
        deserialize_u128();
        deserialize_f32();
        deserialize_f64();
        deserialize_char();
        deserialize_str();
        deserialize_string();
        deserialize_bytes();
        deserialize_byte_buf();
        deserialize_unit();
        deserialize_unit_struct(name: &'static str);
        deserialize_newtype_struct(name: &'static str);
        deserialize_seq();
        deserialize_tuple(len: usize);
        deserialize_tuple_struct(name: &'static str, len: usize);
        deserialize_map();
        deserialize_struct(name: &'static str, fields: &'static [&'static str]);
        deserialize_enum(name: &'static str, variants: &'static [&'static str]);
        deserialize_identifier();
        deserialize_ignored_any();
    }
}
