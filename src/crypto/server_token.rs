//! The token of server-side stores: a random secret, and the ids that are derived from it.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{self, SHA256};
use zeroize::Zeroizing;

use super::secret_text::SecretText;
use super::{Random, base64url};
use crate::error::{Error, Kind};

const LEN: usize = 32;

/// The length of the longest token, which is a native one.
const MAX_TEXT: usize = base64url::encoded_len(LEN);

/// Separates the hash from any other use of SHA-256 on the same bytes.
const ID_DOMAIN: &[u8] = b"hyper-session id v1\0";
const SUBJECT_DOMAIN: &[u8] = b"hyper-session subject v1\0";

/// The token that the client of a server-side store holds, with the two ids that follow from it. The text is a secret, never logged.
///
/// Clones share it, so that the secret stays in one place, where it is wiped, and is not left behind wherever it was moved.
#[derive(Clone)]
pub(crate) struct ServerToken {
    inner: Arc<Inner>,
}

struct Inner {
    text: Zeroizing<[u8; MAX_TEXT]>,
    len: usize,
    session_id: [u8; 16],
    entry_id: [u8; 16],
}

impl ServerToken {
    /// Creates a token of this text. Returns `None` if the text is longer than that of any format.
    pub(crate) fn new(text: &[u8], session_id: [u8; 16], entry_id: [u8; 16]) -> Option<Self> {
        let mut buffer = Zeroizing::new([0; MAX_TEXT]);
        buffer.get_mut(..text.len())?.copy_from_slice(text);
        Some(Self { inner: Arc::new(Inner { text: buffer, len: text.len(), session_id, entry_id }) })
    }

    /// Generates a native token: 256 random bits (T15), drawn when needed, because a secret must not wait in a batch. The
    /// backend holds only its hash.
    pub(crate) fn generate(random: &dyn Random, cookie_name: &str) -> Result<Self, Error> {
        let mut secret = Zeroizing::new([0; LEN]);
        random.fill(&mut *secret)?;
        let text = Zeroizing::new(base64url::encode(&*secret));
        let id = hashed_id(ID_DOMAIN, cookie_name, &*secret);
        Self::new(text.as_bytes(), id, id)
            .ok_or_else(|| Error::new(Kind::Internal("a token of another length")))
    }

    /// Reads a native token in the only spelling that [`generate`](Self::generate) writes. Anything else is refused before
    /// the backend is called (T39).
    ///
    /// The id is the first 16 bytes of SHA-256 of the cookie's name and the secret. Finding a token for a given id takes
    /// 2^128 attempts. A token that is moved to another cookie leads to no session (T10: CVE-2022-46170).
    pub(crate) fn parse(text: &[u8], cookie_name: &str) -> Option<Self> {
        if text.len() != base64url::encoded_len(LEN) {
            return None;
        }
        let secret = Zeroizing::new(base64url::decode(text)?);
        let id = hashed_id(ID_DOMAIN, cookie_name, &secret);
        Self::new(text, id, id)
    }

    /// Returns the text that the client holds.
    pub(crate) fn to_text(&self) -> SecretText {
        SecretText::new(self.inner.text.get(..self.inner.len).unwrap_or_default().to_vec())
    }

    /// Returns the public id of the session.
    pub(crate) fn session_id(&self) -> [u8; 16] {
        self.inner.session_id
    }

    /// Returns the id under which the backend keeps the session.
    pub(crate) fn entry_id(&self) -> [u8; 16] {
        self.inner.entry_id
    }
}

/// Returns the id of the session list of `subject`. No token hashes to it, because the domains differ.
pub(crate) fn subject_id(cookie_name: &str, subject: &str) -> [u8; 16] {
    hashed_id(SUBJECT_DOMAIN, cookie_name, subject.as_bytes())
}

pub(crate) fn hashed_id(domain: &[u8], cookie_name: &str, secret: &[u8]) -> [u8; 16] {
    let mut hash = digest::Context::new(&SHA256);
    hash.update(domain);
    hash.update(cookie_name.as_bytes());
    hash.update(&[0]); // no name contains a zero byte
    hash.update(secret);
    let mut id = [0; 16];
    id.iter_mut().zip(hash.finish().as_ref()).for_each(|(to, from)| *to = *from);
    id
}

impl fmt::Debug for ServerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerToken(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::super::SystemRandom;
    use super::super::random::tests::NoRandom;
    use super::*;

    #[test]
    fn t15_tokens_are_256_random_bits() {
        // Over 4,000 tokens each of the 256 bits is set about half of the time. A deviation of more than 8 sigma is a
        // fault.
        let mut ones = [0_u32; 256];
        for _ in 0..4_000 {
            let text = ServerToken::generate(&SystemRandom, "s").unwrap().to_text();
            let bytes = base64url::decode(text.expose()).unwrap();
            for (at, count) in ones.iter_mut().enumerate() {
                *count += u32::from(bytes[at / 8] >> (at % 8) & 1);
            }
        }
        assert!(ones.iter().all(|&count| (1_747..=2_253).contains(&count)), "{ones:?}");
    }

    #[test]
    fn t14_no_random_no_token() {
        assert!(ServerToken::generate(&NoRandom, "s").unwrap_err().is_random());
    }

    #[test]
    fn t39_only_the_one_spelling_is_read() {
        let text =
            String::from_utf8(ServerToken::generate(&SystemRandom, "s").unwrap().to_text().expose().to_vec())
                .unwrap();
        assert_eq!(text.len(), 43);
        assert_eq!(ServerToken::parse(text.as_bytes(), "s").unwrap().to_text().expose(), text.as_bytes());
        for bad in [
            "",
            "a",
            "*",
            "../../etc/passwd",
            "a:b",
            &text[1..],
            &format!("{text}="),
            &format!("{text}A"),
            &"/".repeat(43),
            &"\0".repeat(43),
        ] {
            assert!(ServerToken::parse(bad.as_bytes(), "s").is_none(), "{bad:?}");
        }
        // 32 bytes leave two bits unused in the last character. Of the four spellings one is accepted.
        let spellings = (b'A'..=b'z').filter(|last| {
            let mut other = text.clone().into_bytes();
            other[42] = *last;
            ServerToken::parse(&other, "s").is_some_and(|token| token.to_text().expose() == text.as_bytes())
        });
        assert_eq!(
            spellings.count() + usize::from(text.ends_with(|c: char| c.is_ascii_digit() || c == '-')),
            1
        );
    }

    #[test]
    fn the_id_is_a_hash_and_debug_shows_nothing() {
        use sha2::Digest as _;
        let text = base64url::encode(&[7; LEN]);
        let token = ServerToken::parse(text.as_bytes(), "s").unwrap();
        let named = sha2::Sha256::new().chain_update(b"hyper-session id v1\0s\0");
        let expected = named.chain_update([7; LEN]).finalize();
        assert_eq!(token.session_id(), expected[..16]);
        assert_eq!(token.entry_id(), expected[..16]);
        assert_ne!(ServerToken::parse(text.as_bytes(), "t").unwrap().session_id(), token.session_id());
        assert_eq!(format!("{token:?}"), "ServerToken(..)");

        let named = sha2::Sha256::new().chain_update(b"hyper-session subject v1\0s\0");
        assert_eq!(subject_id("s", "alice"), named.chain_update("alice").finalize()[..16]);
    }

    #[test]
    fn a_text_that_is_too_long_is_not_a_token() {
        assert!(ServerToken::new(&[b'a'; MAX_TEXT], [0; 16], [0; 16]).is_some());
        assert!(ServerToken::new(&[b'a'; MAX_TEXT + 1], [0; 16], [0; 16]).is_none());
    }
}
