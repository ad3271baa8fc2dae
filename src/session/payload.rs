//! The values of a session in one buffer: a sorted MessagePack map, indexed without decoding any value.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use bytes::{Buf, Bytes};
use smallvec::SmallVec;

use super::key::{is_bookkeeping, is_lasting};
use super::messagepack::{MAX_DEPTH, map_len, skip_value, str_bytes};
use super::{json_reader, json_writer};
use crate::error::{Error, Kind};

/// The format in which a store writes the values of a session. Both formats are always read.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "testing")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), hyper_session::Error> {
/// use http::Request;
/// use hyper_session::{AppKey, CookieStore, PayloadFormat, testing};
///
/// for (format, holds_nan) in [(PayloadFormat::MessagePack, true), (PayloadFormat::Json, false)] {
///     let store = CookieStore::builder(AppKey::generate()?).payload_format(format).build()?;
///     let saved = testing::with_session(Request::new(()), &store, |session| session.set("ratio", f64::NAN)).await;
///     assert_eq!(saved.is_ok(), holds_nan);
/// }
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "testing"))]
/// # fn main() {}
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PayloadFormat {
    /// A MessagePack map. It is smaller, is indexed without a copy, and can hold byte strings. The default.
    #[default]
    MessagePack,
    /// A JSON object, for other programs that read the same sessions. It cannot hold byte strings, integers of 128 bits, NaN or
    /// infinities, nor maps with keys that are not strings (`HashMap<u32, _>`): `set` accepts such a value, but the session
    /// is not saved, and the error names the key.
    Json,
}

/// The undecoded values of a session. Keys are sorted and unique.
#[derive(Default)]
pub(crate) struct Payload {
    buffer: Bytes,
    entries: SmallVec<[Offsets; 8]>,
}

/// Offsets in the buffer: the begin of the key's text, the begin of the value (the end of the text), and the end of the
/// value.
#[derive(Clone, Copy)]
struct Offsets {
    key: u32,
    value: u32,
    end: u32,
}

impl Offsets {
    fn key(self) -> Range<usize> {
        self.key as usize..self.value as usize
    }

    fn value(self) -> Range<usize> {
        self.value as usize..self.end as usize
    }
}

impl Payload {
    /// Indexes a sealed or stored payload. Returns `None` if it is not a payload: not a map, a key out of order or
    /// repeated, a value that is cut short or nested too deeply, bytes after the end, or no entry at all. (T33: an empty
    /// session is never written, so an empty payload did not come from this crate.)
    pub(crate) fn parse(buffer: Bytes) -> Option<Self> {
        let payload = match buffer.first()? {
            b'{' => {
                Self::index(json_reader::object_to_messagepack(&buffer, json_reader::Rules::Strict)?.into())?
            }
            _ => Self::index(buffer)?,
        };
        (!payload.is_empty()).then_some(payload)
    }

    pub(crate) fn index(buffer: Bytes) -> Option<Self> {
        let at = |rest: &[u8]| u32::try_from(buffer.len() - rest.len()).ok();
        let (len, mut rest) = map_len(&buffer)?;
        let mut entries: SmallVec<[Offsets; 8]> = SmallVec::new();
        let mut last: Option<&[u8]> = None;
        for _ in 0..len {
            let (key, value) = str_bytes(rest)?;
            if last.is_some_and(|last| last >= key) || !is_text(key) {
                return None;
            }
            last = Some(key);
            rest = skip_value(value, MAX_DEPTH - 1)?;
            let start = at(value)?;
            let key = start.checked_sub(u32::try_from(key.len()).ok()?)?;
            entries.push(Offsets { key, value: start, end: at(rest)? });
        }
        rest.is_empty().then_some(Self { buffer, entries })
    }

    /// Merges `changes` into the entries of `base`. A change is a value to set, or `None` to delete. The keys of `changes`
    /// must be sorted and unique. Unchanged values are copied undecoded.
    pub(crate) fn merge<'a>(
        base: Option<&Self>,
        changes: impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + Clone,
    ) -> Result<Self, Error> {
        // The exact size, so that the buffer can be shared without a copy.
        let mut room = 0;
        Self::merged(base, changes.clone(), |key, value| {
            room += Writer::room(key, value);
            Ok(())
        })?;
        let mut writer = Writer::new(room);
        Self::merged(base, changes, |key, value| writer.push(key, value))?;
        writer.finish()
    }

    /// Calls `keep` with the entries of [`merge`](Self::merge), in order.
    fn merged<'a>(
        base: Option<&Self>,
        changes: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>,
        mut keep: impl FnMut(&[u8], &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut stored = base.map(Self::undecoded).into_iter().flatten().peekable();
        for (key, value) in changes {
            let key = key.as_bytes();
            while let Some((key, value)) = stored.next_if(|(stored, _)| *stored < key) {
                keep(key, value)?;
            }
            stored.next_if(|(stored, _)| *stored == key);
            if let Some(value) = value {
                keep(key, value)?;
            }
        }
        stored.try_for_each(|(key, value)| keep(key, value))
    }

    /// Returns how many bytes the index takes beside the payload itself: none for a few values.
    #[cfg(feature = "redis")]
    pub(crate) fn index_size(&self) -> usize {
        if self.entries.spilled() { self.entries.capacity() * size_of::<Offsets>() } else { 0 }
    }

    /// Returns true if nothing is held but bookkeeping: such a session is not kept.
    pub(crate) fn is_empty(&self) -> bool {
        self.undecoded().all(|(key, _)| is_bookkeeping(key))
    }

    /// Returns the undecoded value under `key` as a view.
    pub(crate) fn get(&self, key: &str) -> Option<Bytes> {
        self.find(key).map(|range| self.view(range))
    }

    /// Works as [`find`](Self::find), for the reserved keys. Only the empty key and keys that begin with a zero byte are
    /// sorted before them, so this is faster than a search.
    #[inline]
    pub(super) fn find_reserved(&self, key: &str) -> Option<Range<usize>> {
        for entry in &self.entries {
            let found = self.slice(entry.key());
            if found == key.as_bytes() {
                return Some(entry.value());
            }
            if found.first() > Some(&1) {
                break;
            }
        }
        None
    }

    /// Returns the range of the value under `key`.
    pub(super) fn find(&self, key: &str) -> Option<Range<usize>> {
        let by_key = |entry: &Offsets| self.slice(entry.key()).cmp(key.as_bytes());
        let entry = self.entries.get(self.entries.binary_search_by(by_key).ok()?)?;
        Some(entry.value())
    }

    /// Returns the value in a range that [`find`](Self::find) returned.
    pub(super) fn view(&self, range: Range<usize>) -> Bytes {
        self.buffer.slice(range)
    }

    /// Returns the keys and undecoded values, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        // Keys were checked to be UTF-8 when they were indexed.
        self.undecoded().map(|(key, value)| (std::str::from_utf8(key).unwrap_or_default(), value))
    }

    /// Returns true if it has a value that lasts until the handler deletes it.
    pub(crate) fn has_lasting_values(&self) -> bool {
        self.undecoded().any(|(key, _)| is_lasting(key))
    }

    /// Works as [`iter`](Self::iter), with the bytes of the keys.
    fn undecoded(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.entries.iter().map(|entry| (self.slice(entry.key()), self.slice(entry.value())))
    }

    /// Works as [`view`](Self::view), borrowed.
    pub(super) fn slice(&self, range: Range<usize>) -> &[u8] {
        self.buffer.get(range).unwrap_or_default()
    }

    /// Returns the bytes to seal or store.
    ///
    /// # Errors
    ///
    /// [`is_value`](Error::is_value) if a value cannot be expressed in `format`. The error names the key.
    pub(crate) fn to_format(&self, format: PayloadFormat) -> Result<Cow<'_, [u8]>, Error> {
        match format {
            PayloadFormat::MessagePack => Ok(Cow::Borrowed(&self.buffer)),
            PayloadFormat::Json => json_writer::object(self.iter()).map(Cow::Owned),
        }
    }
}

/// A writer of the entries of a map, in order, before their number is known.
struct Writer {
    /// The entries, after room for the longest header of a map.
    buffer: Vec<u8>,
    entries: SmallVec<[Offsets; 8]>,
}

impl Writer {
    /// The length of the header of a map of up to 2^32 entries.
    const ROOM: usize = 5;

    fn new(capacity: usize) -> Self {
        let mut buffer = Vec::with_capacity(Self::ROOM + capacity);
        buffer.resize(Self::ROOM, 0);
        Self { buffer, entries: SmallVec::new() }
    }

    /// Returns how many bytes an entry takes.
    fn room(key: &[u8], value: &[u8]) -> usize {
        let header = match key.len() {
            0..32 => 1,
            32..0x100 => 2,
            0x100..0x1_0000 => 3,
            _ => 5,
        };
        header + key.len() + value.len()
    }

    fn push(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let len = u32::try_from(key.len()).map_err(too_large)?;
        rmp::encode::write_str_len(&mut self.buffer, len).map_err(too_large)?;
        let start = self.buffer.len();
        self.buffer.extend_from_slice(key);
        let text = self.buffer.len();
        self.buffer.extend_from_slice(value);
        let at = |place: usize| u32::try_from(place).map_err(too_large);
        self.entries.push(Offsets { key: at(start)?, value: at(text)?, end: at(self.buffer.len())? });
        Ok(())
    }

    /// Writes the header so that it ends at the first entry.
    fn finish(self) -> Result<Payload, Error> {
        let Self { mut buffer, mut entries } = self;
        let mut header = [0; Self::ROOM];
        let mut rest = &mut header[..];
        rmp::encode::write_map_len(&mut rest, u32::try_from(entries.len()).map_err(too_large)?)
            .map_err(too_large)?;
        let free = rest.len();
        let room = buffer.get_mut(free..Self::ROOM).ok_or_else(|| too_large(()))?;
        room.iter_mut().zip(header).for_each(|(to, from)| *to = from);
        let mut buffer = Bytes::from(buffer);
        buffer.advance(free);
        let shift = u32::try_from(free).map_err(too_large)?;
        for Offsets { key, value, end } in &mut entries {
            (*key, *value, *end) = (*key - shift, *value - shift, *end - shift);
        }
        Ok(Payload { buffer, entries })
    }
}

/// Returns true if these bytes are UTF-8. Keys are short and usually ASCII, which is faster to check.
fn is_text(bytes: &[u8]) -> bool {
    bytes.is_ascii() || std::str::from_utf8(bytes).is_ok()
}

fn too_large<E>(_: E) -> Error {
    Error::new(Kind::Internal("a session of four gigabytes"))
}

// Written by hand, because a derived one lets the `SmallVec` clone its items one by one, although they are `Copy`.
impl Clone for Payload {
    fn clone(&self) -> Self {
        Self { buffer: self.buffer.clone(), entries: SmallVec::from_slice(&self.entries) }
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payload").field("entries", &self.entries.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn payload_of(entries: &[(&str, &[u8])]) -> Payload {
        Payload::merge(None, entries.iter().map(|(key, value)| (*key, Some(*value)))).unwrap()
    }

    #[test]
    fn views_share_the_buffer() {
        let payload = payload_of(&[("a", b"\x01"), ("b", b"\xa3xyz")]);
        let value = payload.get("b").unwrap();
        assert_eq!(value, &b"\xa3xyz"[..]);
        assert!(payload.buffer.as_ptr_range().contains(&value.as_ptr()));
        assert_eq!(payload.get("c"), None);
    }

    // An application may use the empty key, and keys that begin with a zero byte. Both are sorted before the reserved keys, and
    // must not hide them.
    #[test]
    fn keys_of_the_application_never_hide_the_reserved_ones() {
        let reserved = ["\u{1}a", "\u{1}l", "\u{1}s"];
        for own in [&[][..], &[""], &["\0"], &["", "\0", "\0\u{1}s", "\u{2}", "z"], &["a"]] {
            let mut keys: Vec<&str> = own.iter().chain(&reserved).copied().collect();
            keys.sort_unstable();
            let entries: Vec<_> = keys.iter().map(|key| (*key, &b"\xa3ada"[..])).collect();
            let payload = payload_of(&entries);
            for key in reserved {
                assert!(payload.find_reserved(key).is_some(), "{key:?} beside {own:?}");
                assert_eq!(payload.find_reserved(key), payload.find(key));
            }
            assert_eq!(payload.find_reserved("\u{1}b"), None);
            assert!(payload.has_subject() && !payload.is_empty());
        }
    }

    #[test]
    fn a_number_that_json_does_not_have_is_an_error_and_not_null() {
        let bad = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
        let encoded = bad.into_iter().flat_map(|bad| {
            #[allow(clippy::cast_possible_truncation)]
            let narrow = rmp_serde::to_vec(&(bad as f32)).unwrap();
            let long: Vec<f64> = (0..70_000).map(|n| if n == 69_999 { bad } else { 0.5 }).collect();
            let nested = std::collections::BTreeMap::from([("a", (1, "text", vec![Some(bad)]))]);
            [rmp_serde::to_vec(&bad), rmp_serde::to_vec(&long), rmp_serde::to_vec(&nested), Ok(narrow)]
        });
        for value in encoded {
            let value = value.unwrap();
            let payload = payload_of(&[("n", &value)]);
            let error = payload.to_format(PayloadFormat::Json).unwrap_err();
            assert!(error.is_value() && error.to_string().contains("\"n\""), "{error}");
            assert!(payload.to_format(PayloadFormat::MessagePack).is_ok());
        }
        // Bytes of a text that look like a number are none.
        let text = "\u{7f}\u{fffd}\u{7ff}NaN".to_owned();
        let fine = (f64::MAX, f32::MIN_POSITIVE, -0.0, text, u64::MAX, i64::MIN, Some(()), [1.5; 20]);
        let payload = payload_of(&[("n", &rmp_serde::to_vec(&fine).unwrap())]);
        assert!(payload.to_format(PayloadFormat::Json).is_ok());
    }

    /// A buffer of another size is copied once more.
    #[test]
    fn the_room_of_an_entry_is_exact_for_keys_of_any_length() {
        for len in [0, 31, 32, 0xff, 0x100, 0xffff, 0x1_0000] {
            let (key, value) = ("k".repeat(len), b"\xa5value");
            let mut writer = Writer::new(0);
            writer.push(key.as_bytes(), value).unwrap();
            assert_eq!(writer.buffer.len(), Writer::ROOM + Writer::room(key.as_bytes(), value), "{len}");
            let payload = writer.finish().unwrap();
            assert_eq!(payload.get(&key).as_deref(), Some(&value[..]), "{len}");
        }
    }

    #[test]
    fn t33_garbage_and_emptiness_are_no_session() {
        for bad in [
            &b""[..],
            b"{}",
            b"\x80",
            b"\xde\0\0",
            b"\xc0",
            b"\x01",
            b"[]",
            b"{\"a\":1",
            b"{\"a\":1}x",
            b"\x81\xa1a\x01\x00",         // bytes after the end
            b"\x81\xa1a",                 // no value
            b"\x82\xa1a\x01",             // an entry is missing
            b"\x82\xa1b\x01\xa1a\x01",    // keys out of order
            b"\x82\xa1a\x01\xa1a\x01",    // a key twice
            b"\x81\x01\x01",              // a key that is not a string
            b"\x81\xa1\xff\x01",          // a key that is not UTF-8
            b"\x81\xc4\x01a\x01",         // a key of bytes
            b"\xdf\xff\xff\xff\xff\xa1a", // four billion entries
        ] {
            assert!(Payload::parse(Bytes::copy_from_slice(bad)).is_none(), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn t66_nesting_counts_the_session_itself() {
        let nested = |levels: usize| [b"\x81\xa1a".to_vec(), vec![0x91; levels], vec![0xc0]].concat();
        assert!(Payload::parse(nested(63).into()).is_some());
        assert!(Payload::parse(nested(64).into()).is_none());
        let json = |levels: usize| format!("{{\"a\":{}1{}}}", "[".repeat(levels), "]".repeat(levels));
        assert!(Payload::parse(json(63).into()).is_some());
        assert!(Payload::parse(json(64).into()).is_none());
        assert!(Payload::parse(json(100_000).into()).is_none());
    }

    #[test]
    fn json_is_read_and_written() {
        let json = br#"{"b":[1,2.5,null],"a":{"x":"\u00e9"},"n":18446744073709551615}"#;
        let payload = Payload::parse(Bytes::from_static(json)).unwrap();
        assert_eq!(payload.iter().map(|(key, _)| key).collect::<Vec<_>>(), ["a", "b", "n"]);
        let again: serde_json::Value =
            serde_json::from_slice(&payload.to_format(PayloadFormat::Json).unwrap()).unwrap();
        assert_eq!(again, serde_json::from_slice::<serde_json::Value>(json).unwrap());

        let bytes = payload_of(&[("blob", b"\xc4\x01\xff")]);
        let error = bytes.to_format(PayloadFormat::Json).unwrap_err();
        assert!(error.is_value() && error.to_string().contains("blob"), "{error}");
    }

    // By default, serde_json uses a faster parser, which for a few numbers is off by one unit in the last place.
    #[test]
    fn floats_in_json_are_read_as_they_were_written() {
        for json in [
            r#"{"n":-3.558094860873856e239}"#,
            r#"{"n":622728.3173637044}"#,
            r#"{"n":2.2250738585072014e-308}"#,
        ] {
            let payload = Payload::parse(Bytes::copy_from_slice(json.as_bytes())).unwrap();
            let again = payload.to_format(PayloadFormat::Json).unwrap();
            assert_eq!(String::from_utf8(again.to_vec()).unwrap().replace("e+", "e"), json);
        }
    }

    proptest! {
        #[test]
        fn merging_is_what_a_map_does(
            base in proptest::collection::btree_map("[a-e]{0,2}", any::<u32>(), 0..12),
            changes in proptest::collection::btree_map("[a-e]{0,2}", any::<Option<u32>>(), 0..12),
        ) {
            let encode = |n: &u32| Bytes::from(rmp_serde::to_vec(n).unwrap());
            let start: Vec<_> = base.iter().map(|(k, v)| (k.as_str(), encode(v))).collect();
            let start = Payload::merge(None, start.iter().map(|(k, v)| (*k, Some(&**v)))).unwrap();
            let delta: Vec<_> = changes.iter().map(|(k, v)| (k.as_str(), v.as_ref().map(encode))).collect();
            let merged = Payload::merge(Some(&start), delta.iter().map(|(k, v)| (*k, v.as_deref()))).unwrap();

            let mut expected = base;
            for (key, change) in changes {
                match change {
                    Some(value) => expected.insert(key, value),
                    None => expected.remove(&key),
                };
            }
            let expected: Vec<_> = expected.iter().map(|(k, v)| (k.clone(), encode(v).to_vec())).collect();
            let actual: Vec<_> = merged.iter().map(|(k, v)| (k.to_owned(), v.to_vec())).collect();
            prop_assert_eq!(actual, expected);
            // A written payload reads back, unless it is empty.
            let again = Payload::parse(merged.buffer.clone());
            prop_assert_eq!(again.is_some(), !merged.is_empty());
            if let Some(again) = again {
                prop_assert!(again.iter().eq(merged.iter()));
            }
        }

        #[test]
        fn any_bytes_parse_or_do_not_and_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(payload) = Payload::parse(bytes.into()) {
                for (key, value) in payload.iter() {
                    prop_assert_eq!(payload.get(key).unwrap(), value);
                }
            }
        }
    }
}
