//! The application key: the one secret an operator keeps.

use std::fmt;
use std::str::FromStr;

use zeroize::Zeroizing;

use super::derive::Root;
use super::key_strength::{MIN_LEN, check_strength};
use super::key_text::{KeyBytes, TEXT_PREFIX, decode, is_key_text};
use super::{KeyId, Random, SystemRandom, base64url};
use crate::error::Error;

/// A secret of at least 32 random bytes, from which all other keys are derived. It is wiped when dropped.
///
/// Make one with [`generate`](Self::generate), `hyper-session key new` or `openssl rand -hex 32`. Keep its text in the
/// environment or in a file, and read it with [`from_text`](Self::from_text).
///
/// # Security
///
/// A holder of this key can read and forge every session. The type is not `Clone`, and its `Debug` prints nothing of the key.
/// The bytes must come from a random generator. A passphrase is not random enough: this is not a password hash.
///
/// # Examples
///
/// ```
/// use hyper_session::AppKey;
///
/// let key = AppKey::generate()?;
/// let text = key.to_text(); // hsk1_… for SESSION_KEY
/// let same = AppKey::from_text(&text)?;
/// assert_eq!(same.id(), key.id());
/// assert_eq!(format!("{key:?}"), format!("AppKey({}, ..)", key.id()));
///
/// assert!(AppKey::from_bytes(&[7; 32]).is_err()); // constant
/// assert!(AppKey::from_bytes(b"short").is_err());
/// # Ok::<(), hyper_session::Error>(())
/// ```
#[doc(alias = "secret")]
pub struct AppKey {
    bytes: Zeroizing<Vec<u8>>,
    id: KeyId,
}

impl AppKey {
    /// Generates a key of 32 bytes from the operating system's random generator.
    ///
    /// # Errors
    ///
    /// [`is_transient`](Error::is_transient) if the generator fails.
    pub fn generate() -> Result<Self, Error> {
        Self::generate_from(&SystemRandom)
    }

    pub(super) fn generate_from(random: &dyn Random) -> Result<Self, Error> {
        let mut bytes = Zeroizing::new(vec![0; MIN_LEN]);
        random.fill(&mut bytes)?;
        Self::danger_from_any_bytes(&bytes)
    }

    /// Reads a key from the text of an environment variable or a file.
    ///
    /// The text is one key, in any of three forms:
    ///
    /// - `hsk1_…`, which [`to_text`](Self::to_text) and `hyper-session key new` write,
    /// - hexadecimal digits, 64 or more, as from `openssl rand -hex 32`,
    /// - base64 of 32 bytes or more, as from `openssl rand -base64 32`: either alphabet, with or without padding.
    ///
    /// All forms of the same bytes are the same key. A byte order mark, white space, line ends, and one pair of quotes
    /// around it are ignored, because shells and env files leave them. [`Keyring::from_text`](crate::Keyring::from_text)
    /// reads several keys.
    ///
    /// # Errors
    ///
    /// [`is_config`](Error::is_config) if the text has none of these forms, if it is base64 without a capital or without a
    /// small letter, as a passphrase is, and for the reasons of [`from_bytes`](Self::from_bytes). No error quotes the text.
    ///
    /// # Examples
    ///
    /// ```
    /// use hyper_session::AppKey;
    ///
    /// let key = AppKey::generate()?;
    /// let text = key.to_text();
    /// assert_eq!(AppKey::from_text(&text)?.id(), key.id());
    /// // The text of `SESSION_KEY="…"` in an env file, if nothing removes the quotes.
    /// assert_eq!(AppKey::from_text(&format!("\"{}\"\n", *text))?.id(), key.id());
    /// assert!(AppKey::from_text("a passphrase").is_err());
    /// assert!(AppKey::from_text("a-passphrase-of-words-that-could-be-base64url").is_err());
    /// # Ok::<(), hyper_session::Error>(())
    /// ```
    pub fn from_text(text: &str) -> Result<Self, Error> {
        match decode(text)? {
            KeyBytes::Own(bytes) => Self::from_key_bytes(&bytes),
            KeyBytes::Foreign(bytes) => Self::from_bytes(&bytes),
        }
    }

    /// Creates the key with exactly these bytes. To read a key as text, use [`from_text`](Self::from_text).
    ///
    /// # Errors
    ///
    /// [`is_config`](Error::is_config) if there are fewer than 32 bytes, if they repeat a pattern or count up or down, if they
    /// are a known example key (T13: CVE-2023-27524, CVE-2024-6535), or if they are the text of a key instead of its bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        if is_key_text(bytes) {
            return Err(Error::config(
                "these bytes are the text of an application key: read it with AppKey::from_text()",
            ));
        }
        Self::from_key_bytes(bytes)
    }

    /// Creates the key with these bytes, which are known not to be its text.
    fn from_key_bytes(bytes: &[u8]) -> Result<Self, Error> {
        check_strength(bytes)?;
        Self::danger_from_any_bytes(bytes)
    }

    /// Creates the key with exactly these bytes, however few or regular.
    ///
    /// # Security
    ///
    /// This is for test vectors, and for the keys of other programs that accept weaker keys. A short key makes every session
    /// forgeable.
    ///
    /// # Errors
    ///
    /// No bytes cause an error. Fails only if the cryptographic library cannot derive a key.
    pub fn danger_from_any_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let id = Root::extract(bytes).key_id()?;
        Ok(Self { bytes: Zeroizing::new(bytes.to_vec()), id })
    }

    /// Returns the text form, for an environment variable or a file: `hsk1_` and the bytes in base64url. It is as secret as
    /// the key.
    pub fn to_text(&self) -> Zeroizing<String> {
        let body = Zeroizing::new(base64url::encode(&self.bytes));
        Zeroizing::new([TEXT_PREFIX, &body].concat())
    }

    /// Returns the public id of this key. Tokens contain the id of the key that sealed them; events and the tool print it.
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

    /// Reads a key as [`from_text`](Self::from_text) does.
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::from_text(text)
    }
}

impl fmt::Debug for AppKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AppKey({}, ..)", self.id())
    }
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
    fn the_text_form_reads_back() {
        let key = AppKey::generate().unwrap();
        let text = key.to_text();
        assert_eq!(text.len(), 5 + 43);
        assert_eq!(text.parse::<AppKey>().unwrap().bytes, key.bytes);
    }

    #[test]
    fn t14_no_random_no_key() {
        assert!(AppKey::generate_from(&NoRandom).unwrap_err().is_random());
    }
}
