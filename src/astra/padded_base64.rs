//! base64url with padding, as Astra writes it: each byte string has exactly one encoding.

use std::sync::LazyLock;

use base64::engine::Engine;
use base64::engine::general_purpose::PAD;

use crate::crypto::{Fastest, fastest};

static ENGINE: LazyLock<Fastest> = LazyLock::new(|| fastest(PAD));

/// Encodes `bytes`, padded to a multiple of four characters.
pub(super) fn encode_padded(bytes: &[u8]) -> String {
    ENGINE.encode(bytes)
}

/// Decodes `text`. Returns `None` if it is not the canonical encoding, padded to a multiple of four characters.
pub(super) fn decode_padded(text: &[u8]) -> Option<Vec<u8>> {
    ENGINE.decode(text).ok()
}

/// Returns how many characters `bytes` bytes have, with padding.
pub(super) const fn padded_len(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padded_texts_have_one_spelling_too() {
        use base64ct::{Base64Url, Encoding};
        // The last group over every byte at three of its places, with each padding.
        for a in 0..=255 {
            for b in 0..=255 {
                for text in [[a, b, b'=', b'='], [b'Q', a, b, b'='], [b'Q', b'Q', a, b], [b'Q', a, b'=', b]] {
                    let bytes = decode_padded(&text);
                    let other =
                        std::str::from_utf8(&text).ok().and_then(|text| Base64Url::decode_vec(text).ok());
                    assert_eq!(bytes, other, "{}", text.escape_ascii());
                    assert!(bytes.is_none_or(|bytes: Vec<u8>| encode_padded(&bytes).as_bytes() == text));
                }
            }
        }
        let bytes: Vec<u8> = (0..200_u32).map(|n| (n * 97 % 251) as u8).collect();
        for len in 0..bytes.len() {
            let text = encode_padded(&bytes[..len]);
            assert_eq!(text, Base64Url::encode_string(&bytes[..len]));
            assert_eq!(text.len(), padded_len(len));
            assert_eq!(decode_padded(text.as_bytes()).unwrap(), &bytes[..len]);
            for bad in [format!("{text}="), format!("{text}===="), format!("{text}\n"), format!("={text}")] {
                assert_eq!(decode_padded(bad.as_bytes()), None, "{bad:?}");
            }
        }
    }
}
