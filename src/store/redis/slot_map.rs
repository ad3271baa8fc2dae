//! The mapping from keys to the nodes of a Cluster.

use bb8_redis::redis::Value;

use super::dialer::text;

pub(super) const SLOTS: usize = 16_384;

/// Returns the slot of a key, as the Redis Cluster specification computes it.
pub(super) fn slot_of(key: &str) -> usize {
    // A prefix has no braces, so there is no hash tag to look for.
    usize::from(crc16(key.as_bytes())) % SLOTS
}

/// Computes CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

/// The slots from `first` to `last`, and the address of their master.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SlotRange {
    pub(super) first: usize,
    pub(super) last: usize,
    pub(super) host: String,
    pub(super) port: u16,
}

/// Reads the reply to CLUSTER SLOTS. A node that does not know its own address has the address at which it was asked.
/// Returns `None` if the reply assigns no slots.
pub(super) fn parse_slots(reply: &Value, asked: &str) -> Option<Vec<SlotRange>> {
    let Value::Array(ranges) = reply else { return None };
    let number = |value: &Value| match value {
        Value::Int(number) => usize::try_from(*number).ok(),
        _ => None,
    };
    let ranges: Option<Vec<_>> = ranges
        .iter()
        .map(|range| {
            let Value::Array(parts) = range else { return None };
            let (first, last) = (number(parts.first()?)?, number(parts.get(1)?)?);
            let Value::Array(master) = parts.get(2)? else { return None };
            let host = master.first().and_then(text).filter(|host| !host.is_empty() && host != "?");
            let port = u16::try_from(number(master.get(1)?)?).ok()?;
            let valid = first <= last && last < SLOTS;
            valid.then(|| SlotRange { first, last, host: host.unwrap_or_else(|| asked.to_owned()), port })
        })
        .collect();
    ranges.filter(|ranges| !ranges.is_empty())
}

/// Reads the target of a redirection, `host:port`. An empty host, or `?`, means the node that was asked.
pub(super) fn parse_target(target: &str, asked: &str) -> Option<(String, u16)> {
    let (host, port) = target.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let host = if matches!(host, "" | "?") { asked } else { host };
    Some((host.to_owned(), port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test value of the specification, and slots that a server computed (`CLUSTER KEYSLOT`).
    #[test]
    fn slots_are_those_of_redis() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        for (key, slot) in [("foo", 12_182), ("bar", 5_061), ("", 0), ("somekey", 11_058)] {
            assert_eq!(slot_of(key), slot, "{key}");
        }
    }

    #[test]
    fn ranges_and_targets_read_or_are_refused() {
        let bulk = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let node = |host: Value| Value::Array(vec![host, Value::Int(7_000), bulk("id")]);
        let range = |first, last, host| Value::Array(vec![Value::Int(first), Value::Int(last), node(host)]);
        let host = |range: &SlotRange| range.host.clone();
        let reply = Value::Array(vec![range(0, 1, bulk("10.0.0.1")), range(2, 16_383, Value::Nil)]);
        let ranges = parse_slots(&reply, "asked").unwrap();
        assert_eq!(ranges.iter().map(host).collect::<Vec<_>>(), ["10.0.0.1", "asked"]);
        for unknown in ["", "?"] {
            let reply = Value::Array(vec![range(0, 1, bulk(unknown))]);
            assert_eq!(parse_slots(&reply, "asked").unwrap()[0].host, "asked", "{unknown:?}");
        }
        assert_eq!((ranges[1].first, ranges[1].last, ranges[1].port), (2, 16_383, 7_000));
        for bad in [range(0, 16_384, bulk("h")), range(2, 1, bulk("h")), range(-1, 1, bulk("h")), Value::Nil]
        {
            assert_eq!(parse_slots(&Value::Array(vec![bad]), "asked"), None);
        }
        assert_eq!(parse_slots(&Value::Okay, "asked"), None);
        assert_eq!(parse_slots(&Value::Array(Vec::new()), "asked"), None);
        assert_eq!(parse_target("10.0.0.1:7", "asked"), Some(("10.0.0.1".to_owned(), 7)));
        assert_eq!(parse_target(":7", "asked"), Some(("asked".to_owned(), 7)));
        assert_eq!(parse_target("?:7", "asked"), Some(("asked".to_owned(), 7)));
        assert_eq!(parse_target("[::1]:7", "asked"), Some(("::1".to_owned(), 7)));
        assert_eq!(parse_target("::1:7", "asked"), Some(("::1".to_owned(), 7)));
        assert_eq!(parse_target("h:70000", "asked"), None);
    }
}
