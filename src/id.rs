//! Ids: of a session, of its entry in a backend, and of an application key.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// The id of a session: 128 bits, printed as 32 hexadecimal digits.
///
/// It is not a secret. In a cookie session it is sealed inside the token. In a server-side session it is a hash of the
/// token. It does not give access to the session, so it is the name to write into audit logs. `Debug` prints its first
/// eight digits.
///
/// # Examples
///
/// ```
/// use hyper_session::SessionId;
///
/// let id = SessionId::from_bytes([0xab; 16]);
/// assert_eq!(id.to_string(), "abababababababababababababababab");
/// assert_eq!("abababababababababababababababab".parse::<SessionId>()?, id);
/// assert_eq!(format!("{id:?}"), "SessionId(abababab..)");
/// # Ok::<(), hyper_session::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId([u8; 16]);

impl SessionId {
    /// Creates an id from its bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

impl FromStr for SessionId {
    type Err = Error;

    /// Parses the 32 hexadecimal digits that `Display` writes, such as an id from a log.
    fn from_str(text: &str) -> Result<Self, Error> {
        from_hex(text).map(Self).ok_or_else(|| Error::config("a session id must have 32 hexadecimal digits"))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [head @ .., _, _, _, _, _, _, _, _, _, _, _, _] = self.0;
        write!(f, "SessionId({:08x}..)", u32::from_be_bytes(head))
    }
}

/// The id of an entry in a [`Backend`](crate::store::Backend): 128 bits.
///
/// It is a hash. Beside Astra, it is the secret that logs a user in, so `Debug` shows none of it.
/// `Display` writes its 32 hexadecimal digits, to name the entry in the backend: keep them out of logs.
///
/// # Examples
///
/// ```
/// use hyper_session::store::EntryId;
///
/// let id = EntryId::from_bytes([0xab; 16]);
/// assert_eq!(format!("session:{id}"), "session:abababababababababababababababab");
/// assert_eq!(format!("{id:?}"), "EntryId(..)");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId([u8; 16]);

impl EntryId {
    /// Creates an id from its bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EntryId(..)")
    }
}

impl FromStr for EntryId {
    type Err = Error;

    /// Parses the 32 hexadecimal digits that `Display` writes.
    fn from_str(text: &str) -> Result<Self, Error> {
        from_hex(text).map(Self).ok_or_else(|| Error::config("an entry id must have 32 hexadecimal digits"))
    }
}

/// The public name of an application key: four bytes derived from it, printed as eight hexadecimal digits.
///
/// # Examples
///
/// ```
/// use hyper_session::{AppKey, KeyId};
///
/// let id = AppKey::generate()?.id();
/// assert_eq!(id.to_string().parse::<KeyId>()?, id);
/// # Ok::<(), hyper_session::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(u32);

impl KeyId {
    pub(crate) const fn from_bytes(bytes: [u8; 4]) -> Self {
        Self(u32::from_be_bytes(bytes))
    }

    pub(crate) const fn to_bytes(self) -> [u8; 4] {
        self.0.to_be_bytes()
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for KeyId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let digits = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match u32::from_str_radix(text, 16) {
            Ok(id) if digits => Ok(Self(id)),
            _ => Err(Error::config("a key id must have eight hexadecimal digits")),
        }
    }
}

fn from_hex(text: &str) -> Option<[u8; 16]> {
    let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let id = u128::from_str_radix(text, 16).ok()?;
    digits.then(|| id.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back() {
        let id = KeyId(0x00ab_cdef);
        assert_eq!(id.to_string(), "00abcdef");
        assert_eq!("00abcdef".parse::<KeyId>().unwrap(), id);
        for bad in ["", "abcdef", "+0abcdef", "00abcdeg", "000abcdef"] {
            assert!(bad.parse::<KeyId>().is_err(), "{bad}");
        }
    }
}
