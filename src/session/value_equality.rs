//! Equality of encoded values, by content instead of by bytes.

use std::cmp::Ordering;

use rmp::Marker;

use super::messagepack::{MAX_DEPTH, bin_bytes, map_len, skip_value, str_bytes, take_len};

/// Returns true if replacing `old` with `new` would change nothing that can be read.
///
/// One value has several encodings. A map lists its entries in any order: a `HashMap` in a different one each time, a JSON
/// object in the order of its keys. Numbers have several widths. So values are compared part by part.
///
/// Only one pair of different types counts as equal: a new float and an equal stored integer, because JSON writers drop
/// `.0`. A new integer and a stored float differ, because a float does not read back as an integer.
pub(super) fn is_same_value(new: &[u8], old: &[u8]) -> bool {
    new == old || same(new, old).is_some_and(|(new, old)| new.is_empty() && old.is_empty())
}

/// One level of a value.
pub(super) enum Node<'a> {
    Nil,
    Bool(bool),
    /// Any integer of MessagePack.
    Integer(i128),
    Float(f64),
    Str(&'a [u8]),
    Bin(&'a [u8]),
    /// An array with this number of elements, which follow.
    Array(usize),
    /// A map with this number of entries, which follow.
    Map(usize),
    /// An extension, including its header.
    Other(&'a [u8]),
}

/// Reads one level of a value. Returns it, and the rest of the input.
pub(super) fn node(input: &[u8]) -> Option<(Node<'_>, &[u8])> {
    let (&marker, rest) = input.split_first()?;
    let marker = Marker::from_u8(marker);
    Some(match marker {
        Marker::Null => (Node::Nil, rest),
        Marker::True => (Node::Bool(true), rest),
        Marker::False => (Node::Bool(false), rest),
        Marker::FixPos(number) => (Node::Integer(number.into()), rest),
        Marker::FixNeg(number) => (Node::Integer(number.into()), rest),
        Marker::U8 => number(rest, |bytes| Node::Integer(u8::from_be_bytes(bytes).into()))?,
        Marker::U16 => number(rest, |bytes| Node::Integer(u16::from_be_bytes(bytes).into()))?,
        Marker::U32 => number(rest, |bytes| Node::Integer(u32::from_be_bytes(bytes).into()))?,
        Marker::U64 => number(rest, |bytes| Node::Integer(u64::from_be_bytes(bytes).into()))?,
        Marker::I8 => number(rest, |bytes| Node::Integer(i8::from_be_bytes(bytes).into()))?,
        Marker::I16 => number(rest, |bytes| Node::Integer(i16::from_be_bytes(bytes).into()))?,
        Marker::I32 => number(rest, |bytes| Node::Integer(i32::from_be_bytes(bytes).into()))?,
        Marker::I64 => number(rest, |bytes| Node::Integer(i64::from_be_bytes(bytes).into()))?,
        Marker::F32 => number(rest, |bytes| Node::Float(f32::from_be_bytes(bytes).into()))?,
        Marker::F64 => number(rest, |bytes| Node::Float(f64::from_be_bytes(bytes)))?,
        Marker::FixStr(_) | Marker::Str8 | Marker::Str16 | Marker::Str32 => {
            let (text, rest) = str_bytes(input)?;
            (Node::Str(text), rest)
        }
        Marker::Bin8 | Marker::Bin16 | Marker::Bin32 => {
            let (bytes, rest) = bin_bytes(input)?;
            (Node::Bin(bytes), rest)
        }
        Marker::FixArray(len) => (Node::Array(len.into()), rest),
        Marker::Array16 => take_len::<2>(rest).map(|(len, rest)| (Node::Array(len), rest))?,
        Marker::Array32 => take_len::<4>(rest).map(|(len, rest)| (Node::Array(len), rest))?,
        Marker::FixMap(_) | Marker::Map16 | Marker::Map32 => {
            map_len(input).map(|(len, rest)| (Node::Map(len), rest))?
        }
        _ => {
            let rest = skip_value(input, MAX_DEPTH)?;
            (Node::Other(input.get(..input.len() - rest.len())?), rest)
        }
    })
}

fn number<'a, const N: usize>(
    input: &'a [u8],
    read: impl FnOnce([u8; N]) -> Node<'a>,
) -> Option<(Node<'a>, &'a [u8])> {
    let (bytes, rest) = input.split_first_chunk::<N>()?;
    Some((read(*bytes), rest))
}

/// Compares one value of each input, and returns the rest of both. Returns `None` if the values differ. Values are nested
/// at most [`MAX_DEPTH`] levels deep, because deeper values are refused when they are encoded or loaded.
fn same<'n, 'o>(new: &'n [u8], old: &'o [u8]) -> Option<(&'n [u8], &'o [u8])> {
    let ((new, new_rest), (old, old_rest)) = (node(new)?, node(old)?);
    let equal = match (new, old) {
        (Node::Nil, Node::Nil) => true,
        (Node::Bool(new), Node::Bool(old)) => new == old,
        (Node::Integer(new), Node::Integer(old)) => new == old,
        (Node::Float(new), Node::Float(old)) => same_float(new, old),
        (Node::Float(new), Node::Integer(old)) => is_integer(new, old),
        (Node::Str(new), Node::Str(old))
        | (Node::Bin(new), Node::Bin(old))
        | (Node::Other(new), Node::Other(old)) => new == old,
        (Node::Array(len), Node::Array(old_len)) if len == old_len => {
            let pairs = (0..len).try_fold((new_rest, old_rest), |(new, old), _| same(new, old));
            return pairs;
        }
        (Node::Map(len), Node::Map(old_len)) if len == old_len => {
            return same_map(len, new_rest, old_rest);
        }
        _ => false,
    };
    equal.then_some((new_rest, old_rest))
}

/// Returns true if both have equal bits, or both are NaN. 0.0 and -0.0 are different values.
fn same_float(new: f64, old: f64) -> bool {
    new.to_bits() == old.to_bits() || new.is_nan() && old.is_nan()
}

/// Returns true if `float` is this integer, and reads back as the same float from it.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // compared after converting back
fn is_integer(float: f64, integer: i128) -> bool {
    same_float(float, integer as f64) && float as i128 == integer
}

type Entry<'a> = (Key<'a>, &'a [u8]);

/// A key of a map, in a form that can be ordered.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Key<'a> {
    Str(&'a [u8]),
    Integer(i128),
    /// Any other key, as its bytes.
    Encoded(&'a [u8]),
}

fn same_map<'n, 'o>(len: usize, new: &'n [u8], old: &'o [u8]) -> Option<(&'n [u8], &'o [u8])> {
    let (new, new_rest) = sorted_entries(len, new)?;
    let (old, old_rest) = sorted_entries(len, old)?;
    let equal = new
        .iter()
        .zip(&old)
        .all(|((key, new), (old_key, old))| key.cmp(old_key) == Ordering::Equal && same(new, old).is_some());
    equal.then_some((new_rest, old_rest))
}

/// Returns the entries of a map in the order of their keys, and the rest of the input.
fn sorted_entries(len: usize, mut input: &[u8]) -> Option<(Vec<Entry<'_>>, &[u8])> {
    let mut entries = Vec::new();
    for _ in 0..len {
        let (key, value) = match node(input)? {
            (Node::Str(text), value) => (Key::Str(text), value),
            (Node::Integer(number), value) => (Key::Integer(number), value),
            _ => {
                let value = skip_value(input, MAX_DEPTH)?;
                (Key::Encoded(input.get(..input.len() - value.len())?), value)
            }
        };
        entries.push((key, value));
        input = skip_value(value, MAX_DEPTH)?;
    }
    // Stable: if a key is repeated, the first one stays first.
    entries.sort_by(|(one, _), (other, _)| one.cmp(other));
    Some((entries, input))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use proptest::prelude::*;
    use serde::Serialize;

    use super::super::payload::{Payload, PayloadFormat};
    use super::super::value_codec::encode;
    use super::*;

    fn bytes(value: &impl Serialize) -> Vec<u8> {
        encode("k", value).unwrap().to_vec()
    }

    /// Returns `value` as it is in a session that was written in `format` and loaded.
    fn stored(value: &[u8], format: PayloadFormat) -> Vec<u8> {
        let payload = Payload::merge(None, [("k", Some(value))].into_iter()).unwrap();
        let written = payload.to_format(format).unwrap().into_owned();
        Payload::parse(written.into()).unwrap().get("k").unwrap().to_vec()
    }

    #[test]
    fn numbers_are_equal_in_any_width() {
        for (new, old) in [
            (&[0x05][..], &[0xcc, 0x05][..]),
            (&[0x05], &[0xd3, 0, 0, 0, 0, 0, 0, 0, 5]),
            (&[0xff], &[0xd1, 0xff, 0xff]),
            (&[0xca, 0x3f, 0xc0, 0, 0], &[0xcb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0]),
        ] {
            assert!(is_same_value(new, old) && is_same_value(old, new), "{new:x?} {old:x?}");
        }
        assert!(!is_same_value(&bytes(&-1_i8), &bytes(&255_u8)));
        assert!(!is_same_value(&bytes(&u64::MAX), &bytes(&-1_i64)));
        assert!(!is_same_value(&bytes(&0.1_f32), &bytes(&0.1_f64)));
        assert!(!is_same_value(&bytes(&0.0), &bytes(&-0.0)));
    }

    /// The stored value reads back as the new one: an integer as a float, but not a float as an integer.
    #[test]
    fn a_float_equals_the_integer_that_it_reads_back_from_and_not_the_other_way_round() {
        assert!(is_same_value(&bytes(&5.0), &bytes(&5)));
        assert!(!is_same_value(&bytes(&5), &bytes(&5.0)));
        assert!(!is_same_value(&bytes(&5.5), &bytes(&5)));
        assert!(!is_same_value(&bytes(&-0.0), &bytes(&0)));
        let beyond = (1_u64 << 53) + 1;
        assert!(!is_same_value(&bytes(&9_007_199_254_740_992.0), &bytes(&beyond)));
    }

    #[test]
    fn other_types_are_other_values() {
        let values = [
            bytes(&()),
            bytes(&false),
            bytes(&0),
            bytes(&"0"),
            bytes(&serde_json::json!([])),
            bytes(&serde_json::json!({})),
            vec![0xc4, 1, b'0'],
            vec![0xd4, 0, 0],
        ];
        for (at, new) in values.iter().enumerate() {
            for (other, old) in values.iter().enumerate() {
                assert_eq!(is_same_value(new, old), at == other, "{new:x?} {old:x?}");
            }
        }
    }

    #[test]
    fn maps_are_equal_in_any_order_at_any_depth() {
        let one = [0x82, 0xa1, b'a', 0x92, 1, 0x82, 1, 0xc0, 2, 0xc3, 0xa1, b'b', 2];
        let other = [0x82, 0xa1, b'b', 2, 0xa1, b'a', 0x92, 1, 0x82, 2, 0xc3, 1, 0xc0];
        assert!(is_same_value(&one, &other));
        let mut changed = other;
        changed[9] = 7; // the number in the array
        assert!(!is_same_value(&one, &changed));
        // One more key, one key less, the same key twice.
        assert!(!is_same_value(&[0x81, 1, 1], &[0x82, 1, 1, 2, 2]));
        assert!(!is_same_value(&[0x82, 1, 1, 1, 1], &[0x82, 1, 1, 2, 1]));
    }

    #[test]
    fn the_same_numbers_in_another_structure_are_another_value() {
        let json = |text: &str| bytes(&serde_json::from_str::<serde_json::Value>(text).unwrap());
        for (one, other) in [
            ("[[1], 2, 3]", "[[1, 2], 3]"),
            (r#"{"cart": [1]}"#, r#"{"cart": [1, 2]}"#),
            (r#"{"cart": {"book": 1}}"#, r#"{"cart": {"book": 1, "pen": 2}}"#),
        ] {
            let (one, other) = (json(one), json(other));
            assert!(!is_same_value(&one, &other) && !is_same_value(&other, &one), "{one:x?} {other:x?}");
        }
    }

    #[test]
    fn a_number_and_no_number_are_different_floats() {
        assert!(is_same_value(&bytes(&f64::NAN), &bytes(&-f64::NAN)));
        assert!(!is_same_value(&bytes(&f64::NAN), &bytes(&1.5)));
        assert!(!is_same_value(&bytes(&1.5), &bytes(&f64::NAN)));
    }

    #[test]
    fn keys_of_maps_are_equal_in_any_width() {
        assert!(is_same_value(&[0x81, 0xa1, b'a', 1], &[0x81, 0xd9, 1, b'a', 1]));
        assert!(is_same_value(&[0x81, 5, 1], &[0x81, 0xcc, 5, 1]));
        assert!(!is_same_value(&[0x81, 5, 1], &[0x81, 0xcc, 6, 1]));
        // Keys of other types, in another order.
        let (yes, no) = ([0xc3, 1], [0xc2, 2]);
        let map = |first: [u8; 2], other: [u8; 2]| [&[0x82][..], &first, &other].concat();
        assert!(is_same_value(&map(yes, no), &map(no, yes)));
        assert!(!is_same_value(&map(yes, [0xc0, 2]), &map(no, yes)));
    }

    #[test]
    fn extensions_are_equal_in_a_map_of_another_order() {
        let extension = [0xd4, 1, 7];
        let map = |first: u8, other: u8| [&[0x82, first][..], &extension, &[other], &extension].concat();
        assert!(is_same_value(&map(1, 2), &map(2, 1)));
        assert!(!is_same_value(&map(1, 2), &map(3, 1)));
    }

    /// A store that writes JSON drops `.0` of each float.
    #[test]
    fn long_arrays_are_compared_by_their_elements() {
        let old = vec![5; 65_536];
        let mut new = vec![5.0; 65_536];
        assert!(is_same_value(&bytes(&new), &bytes(&old)));
        new[65_535] = 6.0;
        assert!(!is_same_value(&bytes(&new), &bytes(&old)));
    }

    #[test]
    fn an_unchanged_hash_map_is_the_same_value() {
        let map = |order: &mut dyn Iterator<Item = u32>| {
            order.map(|n| (n.to_string(), n)).collect::<HashMap<_, _>>()
        };
        let one = bytes(&map(&mut (0..100)));
        let other = bytes(&map(&mut (0..100).rev()));
        assert_ne!(one, other, "two hash maps in one order: the test shows nothing");
        assert!(is_same_value(&one, &other));
    }

    proptest! {
        #[test]
        fn what_was_stored_in_either_format_is_the_same_value(
            value in "\\PC{0,8}".prop_map(serde_json::Value::from).boxed().prop_recursive(3, 20, 5, |inner| prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(serde_json::Value::from),
                proptest::collection::hash_map("[a-e]{0,2}", inner, 0..5)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
                any::<i64>().prop_map(serde_json::Value::from),
                any::<f64>().prop_map(serde_json::Value::from),
                any::<Option<bool>>().prop_map(serde_json::Value::from),
            ]),
            number in any::<f32>(),
            fields in proptest::collection::btree_map("[a-e]", any::<u16>(), 0..4),
        ) {
            #[derive(Serialize)]
            struct Declared { z: serde_json::Value, number: Option<f32>, fields: BTreeMap<String, u16>, a: u64 }
            let number = Some(number).filter(|number| number.is_finite());
            let new = bytes(&Declared { z: value, number, fields, a: 7 });
            for format in [PayloadFormat::MessagePack, PayloadFormat::Json] {
                prop_assert!(is_same_value(&new, &stored(&new, format)), "{:?}", format);
            }
        }

        #[test]
        fn no_bytes_are_too_odd_to_compare(
            one in proptest::collection::vec(any::<u8>(), 0..30), other in proptest::collection::vec(any::<u8>(), 0..30),
        ) {
            // Only checked values are compared. Other bytes may differ, but must not panic.
            let _ = is_same_value(&one, &other);
            prop_assert!(is_same_value(&one, &one));
        }
    }
}
