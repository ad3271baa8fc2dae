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
mod name;
mod options;
mod pairs;
mod scopes;
mod set_cookie;

pub use self::name::CookieName;
pub use self::options::{CookieOptions, Priority, SameSite};
pub use self::pairs::{Pairs, pairs};

pub(crate) use self::finder::{Assembly, CookieFinder, Found};
pub(crate) use self::options::MAX_AGE_CAP;
pub(crate) use self::pairs::trim;
pub(crate) use self::scopes::Target;
pub(crate) use self::set_cookie::{CookieTemplate, RetiredCookie, SetCookies, chunk_size, cookie_name_of};

/// RFC 6265bis section 5.7: user agents drop a cookie whose name and value together are longer than this.
pub const MAX_NAME_VALUE: usize = 4096;

/// The number of cookies over which a large token is split at most.
pub const MAX_CHUNKS: u8 = 8;

/// The default limit of cookies for one session. They fit into the 16 KiB of headers that a hyper HTTP/2 server accepts by
/// default, with room for other cookies.
pub const DEFAULT_MAX_CHUNKS: u8 = 3;

/// The number of cookies of the session's name whose signature is checked (or that the backend is asked for) in one request.
///
/// Cookies that are refused before that, by their form or the id of their key, do not count.
pub const MAX_CANDIDATES: usize = 4;

/// The number of cookies of the session's name, and of chunks, that are examined in one request.
pub(crate) const MAX_LOOKS: usize = 64;

/// The number of signatures that are checked in one request, if chunks can be joined in several ways.
pub(crate) const MAX_ASSEMBLIES: usize = 16;
