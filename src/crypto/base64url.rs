//! Strict base64url without padding: each byte string has exactly one spelling (RFC 4648 sections 3.5 and 5).

use std::mem::MaybeUninit;

use base64_simd::{Out, STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

/// Encodes `bytes`.
pub(crate) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode_to_string(bytes)
}

/// Decodes `text`. Returns `None` if it is not the only spelling of its bytes: padding, white space and other alphabets are
/// refused, and the unused bits of the last character must be zero.
pub(crate) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode_to_vec(text).ok()
}

/// Works as [`decode`], for a text of `N` bytes and no other, without an allocation.
#[cfg(feature = "device-bound")]
pub(crate) fn decode_array<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != encoded_len(N) {
        return None;
    }
    let mut bytes = [0; N];
    let len = URL_SAFE_NO_PAD.decode(text, Out::from_slice(&mut bytes)).ok()?.len();
    (len == N).then_some(bytes)
}

/// Decodes base64 of either alphabet, with or without padding, because tools for keys differ. Each of the four forms is as
/// strict as [`decode`].
pub(super) fn decode_any(text: &[u8]) -> Option<Vec<u8>> {
    [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD]
        .iter()
        .find_map(|alphabet| alphabet.decode_to_vec(text).ok())
}

/// Room for the bytes of one text, for as long as they are looked at: on the stack, unless they are more than what one
/// cookie of 4096 characters can hold. A client that sends texts that are refused causes no allocation.
pub(crate) struct Scratch {
    stack: [MaybeUninit<u8>; SCRATCH],
    heap: Vec<u8>,
}

/// The number of bytes in 4096 characters.
const SCRATCH: usize = 3072;

impl Scratch {
    pub(crate) fn new() -> Self {
        Self { stack: [MaybeUninit::uninit(); SCRATCH], heap: Vec::new() }
    }

    /// Works as [`decode`].
    pub(crate) fn decode(&mut self, text: &[u8]) -> Option<&[u8]> {
        if URL_SAFE_NO_PAD.estimated_decoded_length(text.len()) <= SCRATCH {
            return URL_SAFE_NO_PAD
                .decode(text, Out::from_uninit_slice(&mut self.stack))
                .ok()
                .map(|bytes| &*bytes);
        }
        self.heap = decode(text)?;
        Some(&self.heap)
    }
}

/// Returns how many characters encode `bytes` bytes.
pub(crate) const fn encoded_len(bytes: usize) -> usize {
    (bytes * 4).div_ceil(3)
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
                    assert_eq!(Scratch::new().decode(text), bytes.as_deref());
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
        let bytes: [u8; 42] = std::array::from_fn(|at| at as u8);
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
        use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
        let bytes: Vec<u8> = (0..200_u32).map(|n| (n * 97 % 251) as u8).collect();
        for len in 0..bytes.len() {
            let text = encode(&bytes[..len]);
            assert_eq!(text, BASE64_URL_SAFE_NO_PAD.encode(&bytes[..len]));
            assert_eq!(text.len(), encoded_len(len));
            assert_eq!(decode(text.as_bytes()).unwrap(), &bytes[..len]);
        }
    }

    #[test]
    fn scratch_holds_texts_of_any_length_one_after_the_other() {
        let mut scratch = Scratch::new();
        for len in (0..SCRATCH + 8).rev().step_by(61).chain(SCRATCH - 4..SCRATCH + 4) {
            let bytes: Vec<u8> = (0..251).cycle().take(len).collect();
            let text = encode(&bytes);
            assert_eq!(scratch.decode(text.as_bytes()), Some(&*bytes), "{len}");
            assert_eq!(scratch.decode(format!("{text}=").as_bytes()), None, "{len}");
        }
    }
}
