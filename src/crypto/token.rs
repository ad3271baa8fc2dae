//! The opaque secret that a client of a server-side store holds, and the id it stands for.

use std::fmt;

use aws_lc_rs::digest::{self, SHA256};
use bytes::Bytes;
use zeroize::Zeroizing;

use super::{Random, base64url};
use crate::error::Error;

const LEN: usize = 32;

/// Keeps the hash apart from any other use of SHA-256 on the same bytes.
const ID_DOMAIN: &[u8] = b"hyper-session id v1\0";
const SUBJECT_DOMAIN: &[u8] = b"hyper-session subject v1\0";

/// The text of a token, on its way to a cookie. `Debug` shows none of it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(Bytes);

impl SecretText {
    pub(crate) fn new(text: String) -> Self {
        Self(text.into())
    }

    /// The text. It is what a client proves itself with: keep it out of logs.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(..)")
    }
}

/// What leads to a session on the server: a secret, never logged.
#[derive(Clone)]
pub(crate) enum Token {
    /// 256 random bits (T15). Never stored: the store knows the [hash](Self::id) of it.
    Native(Zeroizing<[u8; LEN]>),
    /// 128 random bits, which Astra stores as they are.
    #[cfg(feature = "astra")]
    Astra(Zeroizing<[u8; 16]>),
}

impl Token {
    /// A new token, straight from the generator: a secret never waits in a batch.
    pub(crate) fn generate(random: &dyn Random) -> Result<Self, Error> {
        let mut bytes = Zeroizing::new([0; LEN]);
        random.fill(&mut *bytes)?;
        Ok(Self::Native(bytes))
    }

    /// Reads the one spelling that [`to_text`](Self::to_text) writes: anything else is refused before it can reach a
    /// store (T39).
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        if text.len() != base64url::encoded_len(LEN) {
            return None;
        }
        let bytes = Zeroizing::new(base64url::decode(text)?);
        bytes.as_slice().try_into().ok().map(|bytes| Self::Native(Zeroizing::new(bytes)))
    }

    pub(crate) fn to_text(&self) -> SecretText {
        match self {
            Self::Native(bytes) => SecretText::new(base64url::encode(&**bytes)),
            #[cfg(feature = "astra")]
            Self::Astra(bytes) => SecretText::new(format!("{:032x}", u128::from_be_bytes(**bytes))),
        }
    }

    /// The id: the first 16 bytes of SHA-256 of the cookie's name and the token. Finding a token for a given id takes
    /// 2^128 tries. A token that is moved to another cookie leads nowhere (T10: CVE-2022-46170).
    pub(crate) fn id(&self, cookie_name: &str) -> [u8; 16] {
        match self {
            Self::Native(bytes) => hashed_id(ID_DOMAIN, cookie_name, &**bytes),
            #[cfg(feature = "astra")]
            Self::Astra(bytes) => super::astra_id(cookie_name, &**bytes),
        }
    }

    /// What the backend knows the session by, if that is not its [id](Self::id). It is a secret then.
    pub(crate) fn stored_under(&self) -> Option<[u8; 16]> {
        match self {
            Self::Native(_) => None,
            #[cfg(feature = "astra")]
            Self::Astra(bytes) => Some(**bytes),
        }
    }
}

#[cfg(feature = "astra")]
impl Token {
    /// As Astra's `newSessionID`.
    pub(crate) fn generate_astra(random: &dyn Random) -> Result<Self, Error> {
        let mut bytes = Zeroizing::new([0; 16]);
        random.fill(&mut *bytes)?;
        Ok(Self::Astra(bytes))
    }

    /// Reads 32 hexadecimal digits in lower case, as Astra writes them, and nothing else. Astra itself adopts any text.
    pub(crate) fn parse_astra(text: &[u8]) -> Option<Self> {
        let digits = text.len() == 32 && text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let text = std::str::from_utf8(text).ok().filter(|_| digits)?;
        let bytes = u128::from_str_radix(text, 16).ok()?.to_be_bytes();
        Some(Self::Astra(Zeroizing::new(bytes)))
    }
}

/// Where a server-side store keeps the sessions of `subject`. No token hashes to it: the domains differ.
pub(crate) fn subject_id(cookie_name: &str, subject: &str) -> [u8; 16] {
    hashed_id(SUBJECT_DOMAIN, cookie_name, subject.as_bytes())
}

pub(super) fn hashed_id(domain: &[u8], cookie_name: &str, secret: &[u8]) -> [u8; 16] {
    let mut hash = digest::Context::new(&SHA256);
    hash.update(domain);
    hash.update(cookie_name.as_bytes());
    hash.update(&[0]); // no name holds one
    hash.update(secret);
    let mut id = [0; 16];
    id.iter_mut().zip(hash.finish().as_ref()).for_each(|(to, from)| *to = *from);
    id
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::super::SystemRandom;
    use super::super::random::tests::NoRandom;
    use super::*;

    #[test]
    fn t15_tokens_are_256_random_bits() {
        // Over 4,000 tokens each of the 256 bits is set about half of the time: more than 8 sigma off would be a fault.
        let mut ones = [0_u32; 256];
        for _ in 0..4_000 {
            let text = Token::generate(&SystemRandom).unwrap().to_text();
            let bytes = base64url::decode(text.expose()).unwrap();
            for (at, count) in ones.iter_mut().enumerate() {
                *count += u32::from(bytes[at / 8] >> (at % 8) & 1);
            }
        }
        assert!(ones.iter().all(|&count| (1_747..=2_253).contains(&count)), "{ones:?}");
    }

    #[test]
    fn t14_no_random_no_token() {
        assert!(Token::generate(&NoRandom).unwrap_err().is_random());
    }

    #[test]
    fn t39_only_the_one_spelling_is_read() {
        let text =
            String::from_utf8(Token::generate(&SystemRandom).unwrap().to_text().expose().to_vec()).unwrap();
        assert_eq!(text.len(), 43);
        assert_eq!(Token::parse(text.as_bytes()).unwrap().to_text().expose(), text.as_bytes());
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
            assert!(Token::parse(bad.as_bytes()).is_none(), "{bad:?}");
        }
        // 32 bytes leave two bits unused in the last character: of the four spellings one is read.
        let spellings = (b'A'..=b'z').filter(|last| {
            let mut other = text.clone().into_bytes();
            other[42] = *last;
            Token::parse(&other).is_some_and(|token| token.to_text().expose() == text.as_bytes())
        });
        assert_eq!(
            spellings.count() + usize::from(text.ends_with(|c: char| c.is_ascii_digit() || c == '-')),
            1
        );
    }

    #[test]
    fn the_id_is_a_hash_and_debug_shows_nothing() {
        use sha2::Digest as _;
        let token = Token::Native(Zeroizing::new([7; LEN]));
        let named = sha2::Sha256::new().chain_update(b"hyper-session id v1\0s\0");
        let expected = named.chain_update([7; LEN]).finalize();
        assert_eq!(token.id("s"), expected[..16]);
        assert_ne!(token.id("t"), token.id("s"));
        assert_eq!(format!("{token:?}"), "Token(..)");

        let named = sha2::Sha256::new().chain_update(b"hyper-session subject v1\0s\0");
        assert_eq!(subject_id("s", "alice"), named.chain_update("alice").finalize()[..16]);
    }

    #[cfg(feature = "astra")]
    #[test]
    fn t39_astra_ids_have_one_spelling_and_their_names_do_not_tell_them() {
        let token = Token::generate_astra(&SystemRandom).unwrap();
        let text = String::from_utf8(token.to_text().expose().to_vec()).unwrap();
        assert_eq!(text.len(), 32);
        let again = Token::parse_astra(text.as_bytes()).unwrap();
        assert_eq!(again.to_text().expose(), text.as_bytes());
        assert_eq!(
            u128::from_be_bytes(again.stored_under().unwrap()),
            u128::from_str_radix(&text, 16).unwrap()
        );
        assert_ne!(again.id("s"), again.stored_under().unwrap());
        assert_ne!(again.id("s"), again.id("t"));
        assert_eq!(format!("{token:?}"), "Token(..)");
        let digits = "0123456789abcdef0123456789abcdef";
        assert!(Token::parse_astra(digits.as_bytes()).is_some());
        for bad in [
            "",
            &digits[1..],
            &format!("{digits}0"),
            &digits.to_uppercase(),
            &digits.replacen('0', "+", 1),
            &digits.replacen('0', " ", 1),
            &digits.replacen('0', "g", 1),
            &digits.replacen("01", "é", 1),
            "admin",
            "../../../../../../../etc/passwd0",
        ] {
            assert!(Token::parse_astra(bad.as_bytes()).is_none(), "{bad:?}");
        }
        assert!(Token::generate_astra(&NoRandom).unwrap_err().is_random());
    }
}
