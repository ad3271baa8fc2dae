//! The public name of an application key.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

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
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
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
            _ => Err(Error::config("a key id has eight hexadecimal digits")),
        }
    }
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
