//! The MessagePack grammar of a payload: where a value begins and ends.

use rmp::Marker;

/// How deep arrays and maps may be nested, the session's own map included.
pub(crate) const MAX_DEPTH: usize = 64;

/// Reads the header of a map. Returns the number of entries, and the rest of the input.
pub(crate) fn map_len(input: &[u8]) -> Option<(usize, &[u8])> {
    let (&marker, rest) = input.split_first()?;
    match Marker::from_u8(marker) {
        Marker::FixMap(len) => Some((usize::from(len), rest)),
        Marker::Map16 => take_len::<2>(rest),
        Marker::Map32 => take_len::<4>(rest),
        _ => None,
    }
}

/// Reads a string. Returns its bytes, and the rest of the input.
pub(crate) fn str_bytes(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&marker, rest) = input.split_first()?;
    let (len, rest) = match Marker::from_u8(marker) {
        Marker::FixStr(len) => (usize::from(len), rest),
        Marker::Str8 => take_len::<1>(rest)?,
        Marker::Str16 => take_len::<2>(rest)?,
        Marker::Str32 => take_len::<4>(rest)?,
        _ => return None,
    };
    rest.split_at_checked(len)
}

/// Reads a byte string. Returns its bytes, and the rest of the input.
pub(crate) fn bin_bytes(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&marker, rest) = input.split_first()?;
    let (len, rest) = match Marker::from_u8(marker) {
        Marker::Bin8 => take_len::<1>(rest)?,
        Marker::Bin16 => take_len::<2>(rest)?,
        Marker::Bin32 => take_len::<4>(rest)?,
        _ => return None,
    };
    rest.split_at_checked(len)
}

/// Returns the value that was read if nothing follows it.
pub(crate) fn whole<'a>(read: Option<(&'a [u8], &'a [u8])>) -> Option<&'a [u8]> {
    match read {
        Some((value, [])) => Some(value),
        _ => None,
    }
}

/// Skips one value, at most `depth` levels deep. Returns the rest of the input, or `None` if the value is cut short, nested
/// too deeply or not MessagePack.
///
/// Every length is checked against the input, so that decoding a value that was skipped allocates only in proportion to its
/// bytes (T65, T66).
pub(crate) fn skip_value(input: &[u8], depth: usize) -> Option<&[u8]> {
    let (&marker, rest) = input.split_first()?;
    let bytes = |len: usize| rest.get(len..);
    match Marker::from_u8(marker) {
        Marker::FixPos(_) | Marker::FixNeg(_) | Marker::Null | Marker::True | Marker::False => Some(rest),
        Marker::U8 | Marker::I8 => bytes(1),
        Marker::U16 | Marker::I16 | Marker::FixExt1 => bytes(2),
        Marker::U32 | Marker::I32 | Marker::F32 => bytes(4),
        Marker::U64 | Marker::I64 | Marker::F64 => bytes(8),
        Marker::FixStr(len) => bytes(usize::from(len)),
        Marker::Str8 | Marker::Bin8 => take_len::<1>(rest).and_then(|(len, rest)| rest.get(len..)),
        Marker::Str16 | Marker::Bin16 => take_len::<2>(rest).and_then(|(len, rest)| rest.get(len..)),
        Marker::Str32 | Marker::Bin32 => take_len::<4>(rest).and_then(|(len, rest)| rest.get(len..)),
        Marker::FixExt2 => bytes(3),
        Marker::FixExt4 => bytes(5),
        Marker::FixExt8 => bytes(9),
        Marker::FixExt16 => bytes(17),
        Marker::Ext8 => take_len::<1>(rest).and_then(|(len, rest)| rest.get(len.checked_add(1)?..)),
        Marker::Ext16 => take_len::<2>(rest).and_then(|(len, rest)| rest.get(len.checked_add(1)?..)),
        Marker::Ext32 => take_len::<4>(rest).and_then(|(len, rest)| rest.get(len.checked_add(1)?..)),
        Marker::FixArray(len) => skip_values(usize::from(len), rest, depth),
        Marker::Array16 => take_len::<2>(rest).and_then(|(len, rest)| skip_values(len, rest, depth)),
        Marker::Array32 => take_len::<4>(rest).and_then(|(len, rest)| skip_values(len, rest, depth)),
        Marker::FixMap(_) | Marker::Map16 | Marker::Map32 => {
            let (len, rest) = map_len(input)?;
            skip_values(len.checked_mul(2)?, rest, depth)
        }
        Marker::Reserved => None,
    }
}

/// Skips the `count` values inside a container. Each has at least one byte, so the work is bounded by the input.
fn skip_values(count: usize, mut input: &[u8], depth: usize) -> Option<&[u8]> {
    let depth = depth.checked_sub(1)?;
    for _ in 0..count {
        input = skip_value(input, depth)?;
    }
    Some(input)
}

/// Reads a big-endian length of `N` bytes. Returns it, and the rest of the input.
pub(crate) fn take_len<const N: usize>(input: &[u8]) -> Option<(usize, &[u8])> {
    let (bytes, rest) = input.split_first_chunk::<N>()?;
    let len = bytes.iter().fold(0_usize, |len, byte| len << 8 | usize::from(*byte));
    Some((len, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The first bytes of a value of each MessagePack format, and the number of bytes that follow.
    const FORMATS: [(&[u8], usize); 38] = [
        (&[0x00], 0),
        (&[0x7f], 0),
        (&[0xe0], 0),
        (&[0xff], 0),
        (&[0xc0], 0),
        (&[0xc2], 0),
        (&[0xc3], 0),
        (&[0xcc], 1),
        (&[0xcd], 2),
        (&[0xce], 4),
        (&[0xcf], 8),
        (&[0xd0], 1),
        (&[0xd1], 2),
        (&[0xd2], 4),
        (&[0xd3], 8),
        (&[0xca], 4),
        (&[0xcb], 8),
        (&[0xa0], 0),
        (&[0xbf], 31),
        (&[0xd9, 200], 200),
        (&[0xda, 1, 2], 258),
        (&[0xdb, 0, 1, 0, 2], 65_538),
        (&[0xc4, 200], 200),
        (&[0xc5, 1, 2], 258),
        (&[0xc6, 0, 1, 0, 2], 65_538),
        (&[0xd4], 2),
        (&[0xd5], 3),
        (&[0xd6], 5),
        (&[0xd7], 9),
        (&[0xd8], 17),
        (&[0xc7, 200], 201),
        (&[0xc8, 1, 2], 259),
        (&[0xc9, 0, 1, 0, 2], 65_539),
        (&[0x92], 2),
        (&[0xdc, 1, 2], 258),
        (&[0xdd, 0, 1, 0, 2], 65_538),
        (&[0xde, 1, 2], 2 * 258),
        (&[0xdf, 0, 1, 0, 2], 2 * 65_538),
    ];

    #[test]
    fn each_format_ends_where_its_length_says() {
        for (head, len) in FORMATS {
            // Zeros: each counted item, byte or value, is one byte long.
            let whole = [head, &vec![0; len], b"next"].concat();
            assert_eq!(skip_value(&whole, 1), Some(&b"next"[..]), "{head:x?}");
            assert_eq!(skip_value(&whole[..head.len() + len - usize::from(len > 0)], 1).is_none(), len > 0);
            let (body, rest) = (vec![0; len], &b"next"[..]);
            let text = matches!(head[0], 0xa0..=0xbf | 0xd9..=0xdb).then_some((&body[..], rest));
            assert_eq!(str_bytes(&whole), text, "{head:x?}");
            let bytes = matches!(head[0], 0xc4..=0xc6).then_some((&body[..], rest));
            assert_eq!(bin_bytes(&whole), bytes, "{head:x?}");
            let map = matches!(head[0], 0xde..=0xdf).then_some((len / 2, &whole[head.len()..]));
            assert_eq!(map_len(&whole), map, "{head:x?}");
        }
        assert_eq!(map_len(&[0x82, 1, 2, 3, 4]), Some((2, &[1, 2, 3, 4][..])));
        assert_eq!(skip_value(&[0x82, 1, 2, 3, 4, 5], 1), Some(&[5][..]));
    }

    #[test]
    fn t66_nesting_stops_at_the_limit() {
        let nested = |levels: usize| [vec![0x91; levels], vec![0xc0]].concat();
        assert_eq!(skip_value(&nested(5), 5), Some(&[][..]));
        assert_eq!(skip_value(&nested(6), 5), None);
        assert_eq!(skip_value(&nested(1_000_000), MAX_DEPTH), None);
        // An empty container is a level, too.
        assert_eq!(skip_value(&[0x90], 0), None);
    }

    #[test]
    fn t65_claimed_lengths_are_held_against_the_input() {
        for claim in [
            &[0xdd, 0xff, 0xff, 0xff, 0xff, 0xc0][..],
            &[0xdf, 0xff, 0xff, 0xff, 0xff, 0xc0],
            &[0xdb, 0xff, 0xff, 0xff, 0xff, b'a'],
            &[0xc6, 0xff, 0xff, 0xff, 0xff, 1],
            &[0xc9, 0xff, 0xff, 0xff, 0xff, 1, 1],
            &[0xc1],
            &[],
        ] {
            assert_eq!(skip_value(claim, MAX_DEPTH), None, "{claim:x?}");
        }
    }

    fn value() -> impl Strategy<Value = serde_json::Value> {
        use serde_json::Value;
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "\\PC{0,300}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 40, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..40).prop_map(Value::from),
                proptest::collection::hash_map("\\PC{0,40}", inner, 0..20)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn skips_exactly_one_value_of_any_shape(value in value(), bytes in proptest::collection::vec(any::<u8>(), 0..70_000)) {
            let mut encoded = rmp_serde::to_vec_named(&value).unwrap();
            rmp::encode::write_bin(&mut encoded, &bytes).unwrap();
            let rest = skip_value(&encoded, MAX_DEPTH).unwrap();
            prop_assert_eq!(bin_bytes(rest), Some((&bytes[..], &[][..])));
            prop_assert_eq!(skip_value(rest, MAX_DEPTH), Some(&[][..]));
        }

        #[test]
        fn skipping_agrees_with_the_decoder_on_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some(rest) = skip_value(&bytes, MAX_DEPTH) {
                let used = &bytes[..bytes.len() - rest.len()];
                let mut decoder = rmp_serde::Deserializer::from_read_ref(used);
                // The decoder refuses some values that are skipped (extensions, bad UTF-8), but never reads past their end.
                let _ = <serde::de::IgnoredAny as serde::Deserialize>::deserialize(&mut decoder);
                prop_assert!(!used.is_empty());
            } else {
                let mut decoder = rmp_serde::Deserializer::from_read_ref(&bytes[..]);
                decoder.set_max_depth(MAX_DEPTH);
                prop_assert!(<serde::de::IgnoredAny as serde::Deserialize>::deserialize(&mut decoder).is_err());
            }
        }
    }
}
