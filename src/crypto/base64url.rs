//! Strict base64url without padding: each byte string has exactly one spelling (RFC 4648 sections 3.5 and 5).

use std::cell::RefCell;
use std::sync::LazyLock;

use base64::engine::general_purpose::{NO_PAD, STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use base64::engine::{Engine, GeneralPurpose, GeneralPurposeConfig};

/// The engine that uses the vector instructions of this processor, where base64 has one.
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_feature = "neon")))]
pub(crate) type Fastest = base64::engine::Simd;
#[cfg(not(any(target_arch = "x86_64", all(target_arch = "aarch64", target_feature = "neon"))))]
pub(crate) type Fastest = GeneralPurpose;

/// Creates an engine for the URL-safe alphabet. It holds tables, so it is made once.
pub(crate) fn fastest(config: GeneralPurposeConfig) -> Fastest {
    #[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_feature = "neon")))]
    return Fastest::url_safe(config);
    #[cfg(not(any(target_arch = "x86_64", all(target_arch = "aarch64", target_feature = "neon"))))]
    return Fastest::new(&base64::alphabet::URL_SAFE, config);
}

static ENGINE: LazyLock<Fastest> = LazyLock::new(|| fastest(NO_PAD));

/// Encodes `bytes`.
pub(crate) fn encode(bytes: &[u8]) -> String {
    ENGINE.encode(bytes)
}

/// Works as [`encode`], for a text that goes into a header.
pub(super) fn encode_to_vec(bytes: &[u8]) -> Vec<u8> {
    // `calloc`, which `vec![0; n]` calls, does not use the thread's cache of freed memory.
    #[allow(clippy::slow_vector_initialization)]
    let mut text = Vec::with_capacity(encoded_len(bytes.len()));
    text.resize(encoded_len(bytes.len()), 0);
    let written = ENGINE.encode_slice(bytes, &mut text);
    text.truncate(written.unwrap_or(0)); // the buffer is long enough
    text
}

/// Decodes `text`. Returns `None` if it is not the only spelling of its bytes: padding, white space and other alphabets are
/// refused, and the unused bits of the last character must be zero.
pub(crate) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = vec![0; decoded_len(text.len())];
    let len = ENGINE.decode_slice(text, &mut bytes).ok()?;
    bytes.truncate(len);
    Some(bytes)
}

/// Works as [`decode`], for a text of `N` bytes and no other, without an allocation.
#[cfg(feature = "device-bound")]
pub(crate) fn decode_array<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != encoded_len(N) {
        return None;
    }
    let mut bytes = [0; N];
    let len = ENGINE.decode_slice(text, &mut bytes).ok()?;
    (len == N).then_some(bytes)
}

/// Decodes base64 of either alphabet, with or without padding, because tools for keys differ. Each of the four forms is as
/// strict as [`decode`].
pub(super) fn decode_any(text: &[u8]) -> Option<Vec<u8>> {
    const FORMS: [GeneralPurpose; 4] = [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD];
    FORMS.iter().find_map(|form| form.decode(text).ok())
}

/// The number of bytes in 4096 characters: what one cookie can hold.
const ROOM: usize = 3072;

thread_local! {
    /// Room for the bytes of one text. The codec wants a buffer that is initialized, and to fill one each time takes as long as
    /// to decode a small token. The bytes that stay in it are sealed.
    static DECODED: RefCell<[u8; ROOM]> = const { RefCell::new([0; ROOM]) };
}

/// Calls `look` with the bytes that [`decode`] returns. They are not on the heap, unless they are more than what one cookie
/// can hold: a client that sends texts that are refused causes no allocation. For sealed bytes only, because they are not wiped.
pub(crate) fn decoded<R>(text: &[u8], look: impl FnOnce(&[u8]) -> R) -> Option<R> {
    let len = decoded_len(text.len());
    DECODED.with(|room| match room.try_borrow_mut() {
        Ok(mut room) if len <= ROOM => decoded_in(&mut *room, text, look),
        _ => decoded_in(&mut vec![0; len], text, look),
    })
}

fn decoded_in<R>(room: &mut [u8], text: &[u8], look: impl FnOnce(&[u8]) -> R) -> Option<R> {
    let len = ENGINE.decode_slice(text, room).ok()?;
    room.get(..len).map(look)
}

/// Returns how many characters encode `bytes` bytes.
pub(crate) const fn encoded_len(bytes: usize) -> usize {
    (bytes * 4).div_ceil(3)
}

/// Returns how many bytes `characters` characters encode.
const fn decoded_len(characters: usize) -> usize {
    characters / 4 * 3 + characters % 4 * 3 / 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_has_one_spelling() {
        // For all texts of up to three characters over every byte: if a text decodes, its bytes encode to the same text.
        for a in 0..=255 {
            for b in 0..=255 {
                for text in [&[a][..], &[a, b], &[a, b, b'A'], &[b'Q', a, b], &[b'Q', b'Q', a, b]] {
                    let bytes = decode(text);
                    assert_eq!(decoded(text, <[u8]>::to_vec), bytes);
                    if let Some(bytes) = bytes {
                        assert_eq!(encode(&bytes).as_bytes(), text);
                    }
                }
            }
        }
        for bad in ["QQ==", "QR", "Q", "QUJ=", "QUJ\n", " QUJD", "QU+D", "QU/D", "QUJDR"] {
            assert_eq!(decode(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[cfg(feature = "device-bound")]
    #[test]
    fn an_array_is_decoded_from_texts_of_its_length_only() {
        let bytes: [u8; 42] = std::array::from_fn(|at| u8::try_from(at).unwrap());
        let text = encode(&bytes);
        assert_eq!(decode_array(text.as_bytes()), Some(bytes));
        assert_eq!(decode_array::<41>(text.as_bytes()), None);
        assert_eq!(decode_array::<43>(text.as_bytes()), None);
        for bad in ["QQ==", "QR", "Q", "Q+", "QQQ"] {
            assert_eq!(decode_array::<1>(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(decode_array(b"QQ"), Some(*b"A"));
    }

    #[test]
    fn simd_and_scalar_ends_agree_with_another_codec() {
        use base64ct::{Base64UrlUnpadded, Encoding};
        let bytes: Vec<u8> = (0..400_u32).map(|n| (n * 97 % 251) as u8).collect();
        for len in 0..bytes.len() {
            let text = encode(&bytes[..len]);
            assert_eq!(text, Base64UrlUnpadded::encode_string(&bytes[..len]));
            assert_eq!(text.as_bytes(), encode_to_vec(&bytes[..len]));
            assert_eq!((text.len(), len), (encoded_len(len), decoded_len(text.len())));
            assert_eq!(decode(text.as_bytes()).unwrap(), &bytes[..len]);
        }
    }

    // A vector of characters is checked at once: none of them may be let through, wherever it stands.
    #[test]
    fn a_foreign_character_is_refused_at_each_place_of_a_long_text() {
        let bytes: Vec<u8> = (0..150_u32).map(|n| (n * 97 % 251) as u8).collect();
        let text = encode(&bytes).into_bytes();
        for at in 0..text.len() {
            for foreign in
                (0..=255).filter(|byte: &u8| !byte.is_ascii_alphanumeric() && !b"-_".contains(byte))
            {
                let mut text = text.clone();
                text[at] = foreign;
                assert_eq!(decode(&text), None, "{foreign:#x} at {at}");
            }
        }
    }

    #[test]
    fn texts_of_any_length_are_decoded() {
        for len in (0..ROOM + 8).rev().step_by(61).chain(ROOM - 4..ROOM + 4) {
            let bytes: Vec<u8> = (0..251).cycle().take(len).collect();
            let text = encode(&bytes);
            assert_eq!(decoded(text.as_bytes(), |found| found == bytes), Some(true), "{len}");
            assert_eq!(decoded(format!("{text}=").as_bytes(), <[u8]>::len), None, "{len}");
        }
        let nested = decoded(b"QUJD", |outer| (outer.to_vec(), decoded(b"REVG", <[u8]>::to_vec)));
        assert_eq!(nested, Some((b"ABC".to_vec(), Some(b"DEF".to_vec()))));
    }
}
