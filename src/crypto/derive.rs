//! Key derivation: every key is HKDF-SHA256 (RFC 5869) of the application key and of the use of the key.

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk};
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use zeroize::Zeroizing;

use super::KeyId;
use crate::error::{Error, Kind};

const SALT: &[u8] = b"hyper-session v1";

/// The pseudorandom key that is extracted from an application key. The library wipes it when it is dropped.
pub(super) struct Root {
    prk: Prk,
}

/// The use of a derived key, in the order in which `info` spells it. Keys of different labels, purposes or names have
/// nothing to do with each other.
#[derive(Clone, Copy)]
pub(super) struct Info<'a> {
    pub(super) label: &'a str,
    pub(super) purpose: &'a str,
    pub(super) name: &'a str,
}

impl Root {
    /// Returns `HKDF-Extract(salt = "hyper-session v1", application key)`.
    pub(super) fn extract(app_key: &[u8]) -> Self {
        // With HMAC, by which RFC 5869 section 2.2 defines it. The library's `extract` would keep a copy of the application
        // key for as long as this value lives, and extract again for every key.
        let prk = hmac::sign(&hmac::Key::new(HMAC_SHA256, SALT), app_key);
        Self { prk: Prk::new_less_safe(HKDF_SHA256, prk.as_ref()) }
    }

    /// Returns `HKDF-Expand(PRK, info)`, 32 bytes. `epoch` is the last part of `info`, if there is one.
    ///
    /// `info` is the parts, each after its length as two bytes, with a zero byte between them. Moving a byte from one part
    /// to the next changes a length, so different parts never give the same `info` (T07).
    pub(super) fn key(&self, info: Info<'_>, epoch: Option<u32>) -> Result<Zeroizing<[u8; 32]>, Error> {
        let mut out = Zeroizing::new([0; 32]);
        self.expand(info, epoch, &mut *out)?;
        Ok(out)
    }

    /// Returns the public id of the application key. It does not depend on purpose or name, so one key has one id
    /// everywhere.
    pub(super) fn key_id(&self) -> Result<KeyId, Error> {
        let mut out = [0; 4];
        self.expand(Info { label: "key id", purpose: "", name: "" }, None, &mut out)?;
        Ok(KeyId::from_bytes(out))
    }

    fn expand(&self, info: Info<'_>, epoch: Option<u32>, out: &mut [u8]) -> Result<(), Error> {
        let epoch = epoch.map(u32::to_be_bytes);
        let mut text = Vec::with_capacity(128);
        let parts = [info.label, info.purpose, info.name].map(str::as_bytes);
        for (at, part) in parts.into_iter().chain(epoch.as_ref().map(<[u8; 4]>::as_slice)).enumerate() {
            if at > 0 {
                text.push(0);
            }
            // Labels and purposes are constants, and names have at most 256 bytes, so two bytes hold every length.
            let len =
                u16::try_from(part.len()).map_err(|_| Error::new(Kind::Internal("a long cookie name")))?;
            text.extend_from_slice(&len.to_be_bytes());
            text.extend_from_slice(part);
        }
        // RFC 5869 section 2.3: expansion fails for more than 255 * 32 bytes only, and no caller asks for over 32.
        let filled = self.prk.expand(&[&text], Length(out.len())).and_then(|okm| okm.fill(out));
        filled.map_err(|_| Error::new(Kind::Internal("HKDF-Expand refused a short key")))
    }
}

#[derive(Clone, Copy)]
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

#[cfg(test)]
pub(super) fn hkdf_sha256(salt: &[u8], ikm: &[u8], info: &[u8], out: &mut [u8]) -> bool {
    let prk = hmac::sign(&hmac::Key::new(HMAC_SHA256, salt), ikm);
    let prk = Prk::new_less_safe(HKDF_SHA256, prk.as_ref());
    let filled = prk.expand(&[info], Length(out.len())).and_then(|okm| okm.fill(out));
    filled.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> Root {
        Root::extract(b"hyper-session example key, public")
    }

    fn info<'a>(label: &'a str, purpose: &'a str, name: &'a str) -> Info<'a> {
        Info { label, purpose, name }
    }

    /// The same derivation with other libraries.
    fn independent(parts: &[&[u8]]) -> [u8; 32] {
        let mut info = Vec::new();
        for (at, part) in parts.iter().enumerate() {
            if at > 0 {
                info.push(0);
            }
            info.extend_from_slice(&u16::try_from(part.len()).unwrap().to_be_bytes());
            info.extend_from_slice(part);
        }
        let mut out = [0; 32];
        hkdf::Hkdf::<sha2::Sha256>::new(Some(b"hyper-session v1"), b"hyper-session example key, public")
            .expand(&info, &mut out)
            .unwrap();
        out
    }

    #[test]
    fn agrees_with_an_independent_implementation() {
        let root = root();
        assert_eq!(
            *root.key(info("mac", "session", "s"), None).unwrap(),
            independent(&[b"mac", b"session", b"s"])
        );
        assert_eq!(
            *root.key(info("encrypt", "session", "__Host-session"), Some(0x0102_0304)).unwrap(),
            independent(&[b"encrypt", b"session", b"__Host-session", &[1, 2, 3, 4]])
        );
        assert_eq!(root.key_id().unwrap().to_bytes(), independent(&[b"key id", b"", b""])[..4]);
        let long = "n".repeat(256);
        assert_eq!(
            *root.key(info("mac", "session", &long), None).unwrap(),
            independent(&[b"mac", b"session", long.as_bytes()])
        );
    }

    // T07, T08, T09: moving a byte over a boundary, another purpose, or another name gives another key.
    #[test]
    fn t07_parts_do_not_run_into_each_other() {
        let keys = [
            info("mac", "session", "s"),
            info("ma", "csession", "s"),
            info("mac", "sessio", "ns"),
            info("macs", "ession", "s"),
            info("mac", "session", ""),
            info("mac", "sessions", ""),
            info("encrypt", "session", "s"),
            info("mac", "record", "s"),
            info("mac", "session", "t"),
        ]
        .map(|info| *root().key(info, None).unwrap());
        for (at, key) in keys.iter().enumerate() {
            assert!(!keys[..at].contains(key), "{at}");
        }
    }
}
