//! Which application keys seal, which only open, which are no longer trusted.

use std::fmt;
use std::sync::Arc;

use super::derive::Root;
use super::{AppKey, KeyId};
use crate::error::Error;

/// The application keys of a service: one that seals, any number that open, any number that were revoked.
///
/// A session that was opened with an older key is sealed with the sealing key on the same response, so an old key can be
/// dropped once the longest session made with it has ended. Tokens name their key, so the size of the ring costs nothing.
///
/// Rotation without downtime takes three deployments: `accept` the new key everywhere; make it the sealing key and
/// `accept` the old one; drop the old one when its sessions have ended. A key that leaked is [revoked](Self::revoke).
///
/// # Examples
///
/// ```
/// use hyper_session::{AppKey, CookieStore, Keyring};
///
/// let (new, old) = (AppKey::generate()?, AppKey::generate()?);
/// let leaked = AppKey::generate()?.id();
/// let keys = Keyring::new(new).accept(old).revoke(leaked);
/// let store = CookieStore::builder(keys).build()?;
/// # Ok::<(), hyper_session::Error>(())
/// ```
#[derive(Clone)]
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
    /// A keyring whose only key is `sealing`.
    #[allow(clippy::needless_pass_by_value)] // taken, so that it is wiped here
    pub fn new(sealing: AppKey) -> Self {
        Self { inner: Arc::new(Inner { keys: vec![RingKey::new(&sealing)], revoked: Vec::new() }) }
    }

    /// Also opens what `key` sealed.
    #[allow(clippy::needless_pass_by_value)] // taken, so that it is wiped here
    pub fn accept(self, key: AppKey) -> Self {
        let mut keys = self.inner.keys.clone();
        keys.push(RingKey::new(&key));
        Self { inner: Arc::new(Inner { keys, revoked: self.inner.revoked.clone() }) }
    }

    /// Refuses whatever the key of this id sealed, also if the key is still on the ring (T17).
    ///
    /// Only the id is needed: a leaked key need not stay in the configuration. Events then tell its sessions
    /// ([`Refusal::RevokedKey`](crate::Refusal::RevokedKey)) from those of keys nobody knows.
    pub fn revoke(self, id: KeyId) -> Self {
        let mut revoked = self.inner.revoked.clone();
        revoked.push(id);
        Self { inner: Arc::new(Inner { keys: self.inner.keys.clone(), revoked }) }
    }

    pub(super) fn keys(&self) -> &[Arc<RingKey>] {
        &self.inner.keys
    }

    pub(super) fn revoked(&self) -> &[KeyId] {
        &self.inner.revoked
    }

    /// Checks what only the whole ring can tell.
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
