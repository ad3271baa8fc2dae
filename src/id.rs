//! What names a session, and gives no access to it.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// The id of a session: 128 bits, printed as 32 hexadecimal digits.
///
/// It is no secret. In a cookie session it is sealed inside the token; in a server-side session it is a hash of the token.
/// Knowing it opens nothing, so it is what audit logs should hold. `Debug` prints its first eight digits.
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
    /// The id with these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

impl FromStr for SessionId {
    type Err = Error;

    /// Reads the 32 hexadecimal digits that `Display` writes: an id from a log, to end the session with.
    fn from_str(text: &str) -> Result<Self, Error> {
        let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match u128::from_str_radix(text, 16) {
            Ok(id) if digits => Ok(Self(id.to_be_bytes())),
            _ => Err(Error::config("a session id has 32 hexadecimal digits")),
        }
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
