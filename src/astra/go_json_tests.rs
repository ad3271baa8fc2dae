//! Go's JSON: byte for byte where Go wrote it, by value otherwise, and an error where Go would read another value.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::session::json_reader::tests::any_json;
use crate::session::value_codec;

fn payload_of(entries: &[(&str, Vec<u8>)]) -> Payload {
    let entries: BTreeMap<_, _> = entries.iter().map(|(key, value)| (*key, Some(&**value))).collect();
    Payload::merge(None, entries.iter().map(|(key, value)| (*key, *value))).unwrap()
}

fn written<T: serde::Serialize>(value: T) -> Result<String, Error> {
    let payload = payload_of(&[("k", value_codec::encode("k", &value)?.to_vec())]);
    let json = String::from_utf8(write(&payload, None)?).unwrap();
    Ok(json.strip_prefix("{\"k\":").unwrap().strip_suffix('}').unwrap().to_owned())
}

fn value<T: serde::de::DeserializeOwned>(json: &str) -> Result<T, Error> {
    let payload = read(format!("{{\"k\":{json}}}").as_bytes()).unwrap();
    value_codec::decode("k", &payload.get("k").unwrap())
}

// Written by Astra's own code.
#[test]
fn every_vector_is_written_again_byte_for_byte() {
    for line in include_str!("../../tests/vectors/astra-cookies.jsonl").lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let json = line["json"].as_str().unwrap();
        let payload = read(json.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(write(&payload, None).unwrap()).unwrap(), json);
        assert_eq!(payload.is_empty(), json == "{}");
    }
}

#[test]
fn numbers_are_integers_where_go_takes_them_for_one() {
    for json in ["123", "123.0", "1.23e2", "123.000", "1230e-1"] {
        assert_eq!(value::<i64>(json).unwrap(), 123, "{json}");
        assert_eq!(value::<u8>(json).unwrap(), 123, "{json}");
        assert!((value::<f64>(json).unwrap() - 123.0).abs() < f64::EPSILON, "{json}");
    }
    assert_eq!(value::<i64>("-9007199254740992.0").unwrap(), -9_007_199_254_740_992);
    assert_eq!(value::<i64>("-0").unwrap(), 0);
    // Beyond 2^53 the digits stay, where Go would round them.
    assert_eq!(value::<i64>("9007199254740993").unwrap(), 9_007_199_254_740_993);
    assert_eq!(value::<u64>("18446744073709551615").unwrap(), u64::MAX);
    assert_eq!(value::<i64>("-9223372036854775808").unwrap(), i64::MIN);
    // Not an integer: the text does not determine one.
    assert!(value::<u64>("18446744073709551616").is_err() && value::<i64>("1e300").is_err());
    assert!(value::<i64>("1.5").unwrap_err().is_value(), "Go's GetInt would cut this to 1");
    assert!(read(b"{\"k\":1e400}").is_none(), "Go refuses this, too");
}

// The expected texts are those of Go's encoding/json (floatEncoder: 'f', or 'e' below 1e-6 and from 1e21).
#[test]
fn floats_are_written_as_go_writes_them() {
    for (number, json) in [
        (0.0, "0"),
        (-0.0, "-0"),
        (123.0, "123"),
        (0.1, "0.1"),
        (-2.5, "-2.5"),
        (622_728.317_363_704_4, "622728.3173637044"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (1.5e300, "1.5e+300"),
        (0.000_001, "0.000001"),
        (0.000_000_1, "1e-7"),
        (-1.234e-10, "-1.234e-10"),
        (5e-324, "5e-324"),
        (f64::MAX, "1.7976931348623157e+308"),
    ] {
        assert_eq!(written(number).unwrap(), json);
    }
    assert_eq!(written(0.1_f32).unwrap(), "0.10000000149011612", "Go reads what the f32 is");
    for number in [
        i64::from(i8::MIN),
        -33,
        -32,
        -1,
        0,
        127,
        128,
        255,
        256,
        65_535,
        65_536,
        i64::from(i32::MIN),
        1 << 53,
    ] {
        assert_eq!(written(number).unwrap(), number.to_string());
    }
    assert_eq!(written(-(1_i64 << 53)).unwrap(), "-9007199254740992");
}

#[test]
fn strings_have_the_escapes_of_go() {
    assert_eq!(
        written("<script>&amp;</script>").unwrap(),
        r#""\u003cscript\u003e\u0026amp;\u003c/script\u003e""#
    );
    assert_eq!(written("\u{2028}\u{2029}").unwrap(), r#""\u2028\u2029""#);
    assert_eq!(
        written("\0\u{1f}\u{8}\u{c}\n\r\t\"\\/\u{7f}é😀").unwrap(),
        "\"\\u0000\\u001f\\b\\f\\n\\r\\t\\\"\\\\/\u{7f}é😀\""
    );
    assert_eq!(value::<String>(r#""\u003c\u2028\ud83d\ude00\/""#).unwrap(), "<\u{2028}😀/");
    let keys = payload_of(&[("<b>", vec![0xc0])]);
    assert_eq!(write(&keys, None).unwrap(), br#"{"\u003cb\u003e":null}"#);
}

#[test]
fn null_and_empty_things_stay_what_they_are() {
    let json = r#"{"a":null,"b":{},"c":[],"d":"","e":{"f":null}}"#;
    let payload = read(json.as_bytes()).unwrap();
    assert_eq!(write(&payload, None).unwrap(), json.as_bytes());
    assert_eq!(value_codec::decode::<Option<u8>>("a", &payload.get("a").unwrap()).unwrap(), None);
    assert!(value_codec::decode::<String>("a", &payload.get("a").unwrap()).is_err());
    // Go writes these for an empty map and a nil one; it would panic on writing to the map that it reads from `null`.
    assert!(read(b"{}").unwrap().is_empty() && read(b"null").unwrap().is_empty());
    assert_eq!(write(&read(b"null").unwrap(), None).unwrap(), b"{}");
}

#[test]
fn whatever_go_would_misread_is_an_error_that_names_key_and_kind() {
    let why = |result: Result<String, Error>| {
        let error = result.unwrap_err();
        assert!(error.is_value(), "{error}");
        error.to_string()
    };
    assert_eq!(
        why(written(bytes::Bytes::from_static(b"\xff"))),
        "the value under session key \"k\" is or contains a byte string, or an integer of 128 bits, which the session's JSON cannot hold"
    );
    for number in [9_007_199_254_740_993, i64::MAX, -9_007_199_254_740_993] {
        assert!(why(written(number)).contains("an integer beyond 2^53"));
    }
    assert!(why(written(u64::MAX)).contains("an integer beyond 2^53"));
    // Float64 values that Go saves with other digits: snowflakes (milliseconds and a sequence), powers of two.
    for number in [1 << 60, 1 << 62, 1_700_000_000_123 << 22, (1 << 53) + 2, i64::MIN] {
        assert!(why(written(number)).contains("Go would round"), "{number}");
    }
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert!(why(written(number)).contains("not finite"));
    }
    assert!(why(written(BTreeMap::from([(1, 2)]))).contains("keys that are not strings"));
    assert!(why(written(vec![BTreeMap::from([("x", i64::MAX)])])).contains("an integer beyond 2^53"));
    for (bytes, kind) in [
        (&b"\xd4\x01\x01"[..], "a MessagePack extension"),
        (b"\xa1\xff", "text that is not UTF-8"),
        (b"\x91\xc4\x01\xff", "a byte string, or an integer of 128 bits"),
    ] {
        let error = write(&payload_of(&[("k", bytes.to_vec())]), None).unwrap_err();
        assert!(error.to_string().contains(kind), "{error}");
    }
}

#[test]
fn what_was_read_is_written_whatever_it_is() {
    let json = br#"{"a":1,"id":9007199254740993}"#;
    let shared = read(json).unwrap();
    assert_eq!(write(&shared, Some(&shared)).unwrap(), json);
    assert!(write(&shared, None).unwrap_err().to_string().contains("\"id\""));
    let moved = payload_of(&[("other", shared.get("id").unwrap().to_vec())]);
    assert!(write(&moved, Some(&shared)).is_err(), "under another key it is another value");
}

// The expected texts are what Go 1.22's json.Unmarshal reads into an `any`.
#[test]
fn text_that_is_not_unicode_is_read_as_go_reads_it() {
    for (json, text) in [
        (&b"\"\\ud800\""[..], "\u{fffd}"),
        (b"\"\\udc00\"", "\u{fffd}"),
        (b"\"a\\ud83dz\"", "a\u{fffd}z"),
        (b"\"\\ud83d\\u0041\"", "\u{fffd}A"),
        (b"\"\\ud83d\\ud83d\\ude00\"", "\u{fffd}\u{1f600}"),
        (b"\"\\ude00\\ud83d\"", "\u{fffd}\u{fffd}"),
        (b"\"\\ud83d\\n\"", "\u{fffd}\n"),
        (b"\"a\xff\xfeb\"", "a\u{fffd}\u{fffd}b"),
        (b"\"\xe2\x82\"", "\u{fffd}\u{fffd}"),
        (b"\"\xed\xa0\x80\"", "\u{fffd}\u{fffd}\u{fffd}"),
        (b"\"\xc3(\xc3\xa9\"", "\u{fffd}(\u{e9}"),
        (b"\"\xf0\x9f\x98\\u0041\"", "\u{fffd}\u{fffd}\u{fffd}A"),
    ] {
        let payload = read(&[b"{\"k\":", json, b"}"].concat()).unwrap();
        let read: String = value_codec::decode("k", &payload.get("k").unwrap()).unwrap();
        assert_eq!(read, text, "{}", json.escape_ascii());
        // The rest of the session is there, and is saved again.
        assert!(write(&payload, Some(&payload)).is_ok());
    }
    let keys = read(b"{\"\xff\":1,\"a\":2,\"\\ud800\":3}").unwrap();
    assert_eq!(
        keys.iter().map(|(key, _)| key).collect::<Vec<_>>(),
        ["a", "\u{fffd}"],
        "the last of two counts"
    );
}

#[test]
fn maps_are_sorted_and_the_last_of_two_counts() {
    assert_eq!(
        written(serde_json::json!({"b": 1, "a": {"d": 1, "c": 2}})).unwrap(),
        r#"{"a":{"c":2,"d":1},"b":1}"#
    );
    let unsorted = payload_of(&[("k", b"\x82\xa1b\x01\xa1a\x02".to_vec())]);
    assert_eq!(write(&unsorted, None).unwrap(), br#"{"k":{"a":2,"b":1}}"#);
    let twice = read(br#"{"k":1,"j":0,"k":2}"#).unwrap();
    assert_eq!(write(&twice, None).unwrap(), br#"{"j":0,"k":2}"#);
}

#[test]
fn what_is_no_json_object_is_no_session() {
    for bad in
        [&b""[..], b"[]", b"1", b"\"a\"", b"{\"a\":}", b"{\"a\":1}x", b"{\"a\":\"\t\"}", b"\x80", b"nul"]
    {
        assert!(read(bad).is_none(), "{}", bad.escape_ascii());
    }
    let nested = |levels: usize| format!("{{\"a\":{}1{}}}", "[".repeat(levels), "]".repeat(levels));
    let deepest = read(nested(63).as_bytes()).unwrap();
    assert_eq!(write(&deepest, None).unwrap(), nested(63).as_bytes());
    assert!(read(nested(64).as_bytes()).is_none() && read(nested(100_000).as_bytes()).is_none());
    assert_eq!(write(&read(b" \n{ \"a\" : 1 }\t").unwrap(), None).unwrap(), b"{\"a\":1}");
}

/// Returns the value as Go reads it: every number is a float64.
fn as_go(value: &Value) -> Value {
    match value {
        Value::Number(number) => Value::from(number.as_f64().unwrap()),
        Value::Array(values) => values.iter().map(as_go).collect(),
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), as_go(value))).collect(),
        other => other.clone(),
    }
}

proptest! {
    #[test]
    fn what_is_written_is_what_was_read(object in proptest::collection::btree_map(any::<String>(), any_json(), 0..6)) {
        let json = serde_json::to_vec(&object).unwrap();
        let payload = read(&json).unwrap();
        let again = write(&payload, Some(&payload)).unwrap();
        let back: Value = serde_json::from_slice(&again).unwrap();
        prop_assert_eq!(as_go(&back), as_go(&serde_json::to_value(&object).unwrap()));
        // Written once more it is the same, byte for byte, and cannot end a script element.
        let payload = read(&again).unwrap();
        prop_assert_eq!(write(&payload, Some(&payload)).unwrap(), again.clone());
        let harmless = !again.iter().any(|byte| b"<>&\n\r".contains(byte));
        prop_assert!(harmless);
    }

    #[test]
    fn any_payload_is_written_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let payload = Payload::parse(bytes.into());
        if let Some(Ok(json)) = payload.map(|payload| write(&payload, None)) {
            prop_assert_eq!(write(&read(&json).unwrap(), None).unwrap(), json);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        if let Some(payload) = read(&bytes) {
            prop_assert!(write(&payload, Some(&payload)).is_ok());
        }
    }
}
