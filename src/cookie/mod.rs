//! Cookies as bytes: names, the `Cookie` header read without copying, `Set-Cookie` written with one allocation.
//!
//! # The header policy
//!
//! Parsers disagree about cookies, and each disagreement has been used in an attack. This crate interprets
//! only what is needed for the cookies that RFC 6265bis section 5.6 lets a browser send:
//!
//! - every `Cookie` field is read (HTTP/2 clients split them, [RFC 9113 section 8.2.3]);
//! - only `;` separates pairs, also between quotes; a name ends at the first `=`;
//! - only SP and HTAB are trimmed, around the name and around the value; no other white space, no Unicode;
//! - a pair without `=`, or without a name, is skipped; all others are kept, in order, duplicates included;
//! - names are compared byte for byte; nothing is decoded, unquoted or folded; `$Version` is a cookie like any other;
//! - of several cookies with the session's name, up to four signatures are checked, and the newest authentic one counts.
//!
//! [RFC 9113 section 8.2.3]: https://www.rfc-editor.org/rfc/rfc9113#section-8.2.3

mod attributes;
mod finder;
pub(crate) mod limits;
pub(crate) mod name;
mod options;
pub(crate) mod pairs;
mod scopes;
mod set_cookie;

pub use self::attributes::{Priority, SameSite};
pub use self::limits::MAX_CHUNKS;
pub use self::options::CookieOptions;

#[cfg(feature = "device-bound")]
pub(crate) use self::finder::COMPANIONS;
pub(crate) use self::finder::{Assemblies, Assembly, CookieFinder, FoundCookies};
pub(crate) use self::limits::{
    DEFAULT_MAX_CHUNKS, MAX_AGE_CAP, MAX_ASSEMBLIES, MAX_CANDIDATES, MAX_LOOKS, MAX_NAME_VALUE,
};
pub(crate) use self::name::CookieName;
pub(crate) use self::pairs::trim;
pub(crate) use self::scopes::Target;
pub(crate) use self::set_cookie::{CookieTemplate, RetiredCookie, SetCookies, chunk_size, cookie_name_of};
