//! The application key: the one secret an operator keeps.

use std::fmt;
use std::str::FromStr;

use zeroize::Zeroizing;

use super::KeyId;
use super::derive::Root;
use super::{Random, SystemRandom, base64url};
use crate::error::Error;

/// Marks the text form, so that scanners for leaked secrets can find it.
const TEXT_PREFIX: &str = "hsk1_";

const MIN_LEN: usize = 32;

/// Keys that stand in documentation, ours and other people's. None may ever protect anyone.
const EXAMPLE_KEYS: [&[u8]; 4] = [
    b"0123456789abcdef0123456789abcdef", // half the tutorials
    b"an example very very secret key.",
    b"change this secret passphrase!!!",
    b"hyper-session example key, public", // docs/WIRE.md
];

/// A secret of at least 32 random bytes, from which all other keys are derived. Wiped when dropped.
///
/// Make one with [`generate`](Self::generate), keep its [`to_text`](Self::to_text) in the environment, and read it back
/// with [`parse`](str::parse). `openssl rand` does as well: [`from_bytes`](Self::from_bytes) takes any bytes.
///
/// # Security
///
/// Whoever has this key can read and forge every session. It is not `Clone`, and `Debug` prints none of it. The bytes must
/// come from a random generator: this is no password hash, a passphrase can be guessed.
///
/// # Examples
///
/// ```
/// use hyper_session::AppKey;
///
/// let key = AppKey::generate()?;
/// let text = key.to_text(); // hsk1_… for SESSION_KEY
/// let same: AppKey = text.parse()?;
/// assert_eq!(same.id(), key.id());
/// assert_eq!(format!("{key:?}"), format!("AppKey({}, ..)", key.id()));
///
/// assert!(AppKey::from_bytes(&[7; 32]).is_err()); // constant
/// assert!(AppKey::from_bytes(b"short").is_err());
/// # Ok::<(), hyper_session::Error>(())
/// ```
pub struct AppKey {
    bytes: Zeroizing<Vec<u8>>,
    id: KeyId,
}

impl AppKey {
    /// A new key of 32 bytes from the operating system's random generator.
    ///
    /// # Errors
    ///
    /// [`is_random`](Error::is_random) if there are none to be had.
    pub fn generate() -> Result<Self, Error> {
        Self::generate_from(&SystemRandom)
    }

    pub(super) fn generate_from(random: &dyn Random) -> Result<Self, Error> {
        let mut bytes = Zeroizing::new(vec![0; MIN_LEN]);
        random.fill(&mut bytes)?;
        Self::danger_from_any_bytes(&bytes)
    }

    /// The key with exactly these bytes.
    ///
    /// # Errors
    ///
    /// [`is_config`](Error::is_config) if there are fewer than 32, if they repeat a pattern or count up or down, or if
    /// they are a known example key (T13: CVE-2023-27524, CVE-2024-6535).
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() < MIN_LEN {
            return Err(Error::config(format!(
                "an application key has at least 32 bytes, this one has {}: make one with AppKey::generate() or `openssl rand -hex 32`",
                bytes.len()
            )));
        }
        if bytes.starts_with(TEXT_PREFIX.as_bytes()) {
            return Err(Error::config("this is the text form of an application key: read it with parse()"));
        }
        if is_regular(bytes) || EXAMPLE_KEYS.iter().any(|example| bytes.starts_with(example)) {
            return Err(Error::config(
                "this application key is a pattern or a published example: make one with AppKey::generate() or `openssl rand -hex 32`",
            ));
        }
        Self::danger_from_any_bytes(bytes)
    }

    /// The key with exactly these bytes, however few or regular.
    ///
    /// # Security
    ///
    /// For test vectors, and for the keys of other programs whose rules were laxer. A short key makes every session
    /// forgeable.
    ///
    /// # Errors
    ///
    /// None that bytes can cause: only if the cryptographic library cannot derive a key.
    pub fn danger_from_any_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let id = Root::extract(bytes).key_id()?;
        Ok(Self { bytes: Zeroizing::new(bytes.to_vec()), id })
    }

    /// The text form, for an environment variable: `hsk1_` and the bytes in base64url. It is the key: keep it secret.
    pub fn to_text(&self) -> Zeroizing<String> {
        let body = Zeroizing::new(base64url::encode(&self.bytes));
        Zeroizing::new([TEXT_PREFIX, &body].concat())
    }

    /// The public id of this key: what tokens sealed with it carry, and what events and tools print.
    pub fn id(&self) -> KeyId {
        self.id
    }

    #[cfg(feature = "astra")]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn root(&self) -> Root {
        Root::extract(&self.bytes)
    }
}

impl FromStr for AppKey {
    type Err = Error;

    /// Reads the text form that [`to_text`](Self::to_text) writes, and nothing else.
    fn from_str(text: &str) -> Result<Self, Error> {
        let bytes = text
            .strip_prefix(TEXT_PREFIX)
            .and_then(|body| base64url::decode(body.as_bytes()))
            .map(Zeroizing::new)
            .ok_or_else(|| {
                Error::config(
                    "the text form of an application key is \"hsk1_\" and base64url: see AppKey::to_text()",
                )
            })?;
        Self::from_bytes(&bytes)
    }
}

impl fmt::Debug for AppKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AppKey({}, ..)", self.id())
    }
}

/// True for a pattern that repeats (`aaaa…`, `abcabc…`) and for one that counts (`0123…`).
fn is_regular(bytes: &[u8]) -> bool {
    let repeats =
        (1..=bytes.len() / 2).any(|period| bytes.iter().zip(bytes.iter().skip(period)).all(|(a, b)| a == b));
    let mut steps = bytes.iter().zip(bytes.iter().skip(1)).map(|(a, b)| b.wrapping_sub(*a));
    let first = steps.next();
    repeats || steps.all(|step| Some(step) == first)
}

#[cfg(test)]
mod tests {
    use super::super::random::tests::NoRandom;
    use super::*;

    #[test]
    fn t13_weak_keys_are_refused() {
        let counting: Vec<u8> = (0..64).collect();
        let falling: Vec<u8> = (0..64).rev().collect();
        for bad in [
            &[0; 32][..],
            &[0xff; 64],
            &b"abcdefgh".repeat(4),
            &b"0123456789abcdef".repeat(2),
            &b"abc".repeat(11)[..32],
            &counting,
            &falling,
            b"an example very very secret key.",
            b"change this secret passphrase!!!",
            b"hyper-session example key, public",
            &[1; 31],
        ] {
            let error = AppKey::from_bytes(bad).unwrap_err();
            assert!(error.is_config(), "{error}");
            assert!(error.to_string().contains("openssl rand"), "{error}");
        }
        AppKey::from_bytes(b"6o2Wx9Qk1Zr8Lp4Tn7Vb3Hd5Jf0Sg2Mc").unwrap();
        assert_ne!(
            AppKey::danger_from_any_bytes(b"k").unwrap().id(),
            AppKey::danger_from_any_bytes(b"").unwrap().id()
        );
    }

    #[test]
    fn t77_debug_and_errors_show_no_key_material() {
        let key = AppKey::from_bytes(b"6o2Wx9Qk1Zr8Lp4Tn7Vb3Hd5Jf0Sg2Mc").unwrap();
        let printed = format!("{key:?} {key:#?}");
        assert!(!printed.contains("6o2W") && !printed.contains("54, 111"), "{printed}");
        let error = "hsk1_NotTheRightLength".parse::<AppKey>().unwrap_err();
        assert!(!format!("{error:?}").contains("NotTheRight"));
    }

    #[test]
    fn text_form_has_one_spelling() {
        let key = AppKey::generate().unwrap();
        let text = key.to_text();
        assert_eq!(text.len(), 5 + 43);
        assert_eq!(text.parse::<AppKey>().unwrap().bytes, key.bytes);
        for bad in [
            format!("{}=", &*text),
            text.to_uppercase(),
            text.replacen("hsk1_", "", 1),
            format!("{} ", &*text),
        ] {
            assert!(bad.parse::<AppKey>().is_err(), "a wrong spelling was read");
        }
    }

    #[test]
    fn t14_no_random_no_key() {
        assert!(AppKey::generate_from(&NoRandom).unwrap_err().is_random());
    }
}
