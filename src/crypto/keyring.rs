//! The keyring: the application key that seals, the keys that only open, and the revoked keys.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::derive::Root;
use super::key_text::{Word, on_line, read_ring};
use super::{AppKey, KeyId};
use crate::error::Error;

/// The application keys of a service: one seals, any number only open, and any number are revoked.
///
/// A session that was opened with an older key is sealed with the sealing key on the same response. So an old key can be
/// dropped when the last session that it sealed has ended. Tokens name their key, so a long keyring does not cost time.
///
/// Rotation without downtime takes three deployments. First `accept` the new key everywhere. Then make it the sealing key
/// and `accept` the old one. Drop the old key when its sessions have ended. [Revoke](Self::revoke) a key that leaked.
///
/// # Examples
///
/// ```
/// use hyper_session::{AppKey, CookieStore, Keyring};
///
/// let (new, old) = (AppKey::generate()?, AppKey::generate()?);
/// let leaked = AppKey::generate()?.id();
/// let keys = Keyring::new(new).accept(old).revoke(leaked);
/// assert_eq!((keys.ids().count(), keys.revoked()), (2, &[leaked][..]));
/// let store = CookieStore::builder(keys).build()?;
/// # Ok::<(), hyper_session::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "a keyring does nothing until it is given to a store; its methods return the changed ring"]
pub struct Keyring {
    inner: Arc<Inner>,
}

struct Inner {
    /// The first one seals.
    keys: Vec<Arc<RingKey>>,
    revoked: Vec<KeyId>,
}

pub(super) struct RingKey {
    pub(super) id: KeyId,
    pub(super) root: Root,
}

impl Keyring {
    /// Creates a keyring whose only key is `sealing`.
    #[allow(clippy::needless_pass_by_value)] // taken by value, so that it is wiped here
    pub fn new(sealing: AppKey) -> Self {
        Self { inner: Arc::new(Inner { keys: vec![RingKey::new(&sealing)], revoked: Vec::new() }) }
    }

    /// Reads a keyring from the text of an environment variable or a file. The operator's tool reads the same format.
    ///
    /// Each line holds a key, in any of the forms of [`AppKey::from_text`]. The first key seals, the others only open. A
    /// line `revoked:ID` [revokes](Self::revoke) the key of that id. `#` begins a comment, and blank lines are skipped. In
    /// an environment variable, spaces can replace line ends.
    ///
    /// # Errors
    ///
    /// [`is_config`](Error::is_config) if a line cannot be read, if there is no key, if a key is repeated, or if the
    /// sealing key is revoked. The message names the line, and never quotes it.
    ///
    /// # Examples
    ///
    /// ```
    /// use hyper_session::{AppKey, Keyring};
    ///
    /// let (new, old) = (AppKey::generate()?, AppKey::generate()?);
    /// let file = format!(
    ///     "{} # since May\n{} # until its last session has expired\nrevoked:00c0ffee\n",
    ///     *new.to_text(),
    ///     *old.to_text(),
    /// );
    /// let keys = Keyring::from_text(&file)?;
    /// assert_eq!(keys.ids().collect::<Vec<_>>(), [new.id(), old.id()]);
    /// assert!(file.parse::<Keyring>().is_ok()); // the same
    ///
    /// let error = Keyring::from_text(&format!("{}\nnot a key", *new.to_text())).unwrap_err();
    /// assert!(error.to_string().starts_with("line 2: "));
    /// # Ok::<(), hyper_session::Error>(())
    /// ```
    pub fn from_text(text: &str) -> Result<Self, Error> {
        let (mut keys, mut revoked): (Vec<Arc<RingKey>>, _) = (Vec::new(), Vec::new());
        for (line, word) in read_ring(text)? {
            match word {
                Word::Revoked(id) => revoked.push(id),
                Word::Key(text) => {
                    let key = AppKey::from_text(text).map_err(|error| on_line(line, &error))?;
                    if keys.iter().any(|present| present.id == key.id()) {
                        let error = Error::config(format!("the key {} is there twice: remove one", key.id()));
                        return Err(on_line(line, &error));
                    }
                    keys.push(RingKey::new(&key));
                }
            }
        }
        if keys.is_empty() {
            return Err(Error::config("the keyring has no key: it must have one on its first line"));
        }
        let ring = Self { inner: Arc::new(Inner { keys, revoked }) };
        ring.validate()?;
        Ok(ring)
    }

    /// Adds a key that opens the tokens that it sealed.
    ///
    /// # Limits
    ///
    /// A key that is on the ring twice, or a sealing key that is revoked, is an error when the store is built.
    #[allow(clippy::needless_pass_by_value)] // taken by value, so that it is wiped here
    pub fn accept(self, key: AppKey) -> Self {
        let mut keys = self.inner.keys.clone();
        keys.push(RingKey::new(&key));
        Self { inner: Arc::new(Inner { keys, revoked: self.inner.revoked.clone() }) }
    }

    /// Refuses everything that the key of this id sealed, even if the key is on the ring (T17).
    ///
    /// Only the id is needed, so a leaked key can be removed from the configuration. Its sessions are refused with
    /// [`Refusal::RevokedKey`](crate::Refusal::RevokedKey) instead of `UnknownKey`.
    ///
    /// # Limits
    ///
    /// A key that is on the ring twice, or a sealing key that is revoked, is an error when the store is built.
    pub fn revoke(self, id: KeyId) -> Self {
        let mut revoked = self.inner.revoked.clone();
        revoked.push(id);
        Self { inner: Arc::new(Inner { keys: self.inner.keys.clone(), revoked }) }
    }

    pub(super) fn keys(&self) -> &[Arc<RingKey>] {
        &self.inner.keys
    }

    /// Returns the ids of the keys. The first one seals.
    pub fn ids(&self) -> impl Iterator<Item = KeyId> + '_ {
        self.keys().iter().map(|key| key.id)
    }

    /// Returns the ids of the revoked keys.
    pub fn revoked(&self) -> &[KeyId] {
        &self.inner.revoked
    }

    /// Checks the rules that concern several keys.
    pub(super) fn validate(&self) -> Result<(), Error> {
        let ids: Vec<_> = self.keys().iter().map(|key| key.id).collect();
        for (at, id) in ids.iter().enumerate() {
            if ids.iter().take(at).any(|other| other == id) {
                return Err(Error::config(format!("the keyring holds the key {id} twice: drop one of them")));
            }
        }
        match ids.first() {
            Some(sealing) if self.revoked().contains(sealing) => Err(Error::config(format!(
                "the sealing key {sealing} is revoked: make another key the sealing one"
            ))),
            _ => Ok(()),
        }
    }
}

impl RingKey {
    fn new(key: &AppKey) -> Arc<Self> {
        Arc::new(Self { id: key.id(), root: key.root() })
    }
}

impl FromStr for Keyring {
    type Err = Error;

    /// Works as [`from_text`](Self::from_text), for parsers of command lines and configurations.
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::from_text(text)
    }
}

impl From<AppKey> for Keyring {
    fn from(key: AppKey) -> Self {
        Self::new(key)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.keys().iter().map(|key| key.id).collect();
        f.debug_struct("Keyring").field("keys", &ids).field("revoked", &self.revoked()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_rings_are_refused() {
        let key = || AppKey::danger_from_any_bytes(b"one").unwrap();
        assert!(Keyring::new(key()).accept(key()).validate().unwrap_err().to_string().contains("twice"));
        let error = Keyring::new(key()).revoke(key().id()).validate().unwrap_err();
        assert!(error.to_string().contains("revoked"));
        let other = AppKey::danger_from_any_bytes(b"two").unwrap();
        Keyring::new(key()).accept(other).revoke(KeyId::from_bytes([0, 0, 0, 7])).validate().unwrap();
    }
}
