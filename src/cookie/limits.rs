//! How long and how many cookies may be, and how long browsers keep them.

use std::time::Duration;

/// RFC 6265bis section 5.7: user agents drop a cookie whose name and value together are longer than this.
pub const MAX_NAME_VALUE: usize = 4096;

/// The number of cookies over which a large token is split at most.
pub const MAX_CHUNKS: u8 = 8;

/// The default limit of cookies for one session. They fit into the 16 KiB of headers that a hyper HTTP/2 server accepts by
/// default, with room for other cookies.
pub(crate) const DEFAULT_MAX_CHUNKS: u8 = 3;

/// The number of cookies of the session's name whose signature is checked (or that the backend is asked for) in one request. The
/// same holds for bound cookies of each name.
///
/// Cookies that are refused before that, by their form or the id of their key, do not count.
pub const MAX_CANDIDATES: usize = 4;

/// The number of cookies of the session's name, of chunks, and of bound cookies, that are examined in one request.
pub(crate) const MAX_LOOKS: usize = 64;

/// The number of signatures that are checked in one request, if chunks can be joined in several ways.
pub(crate) const MAX_ASSEMBLIES: usize = 16;

/// RFC 6265bis section 5.5: user agents cap the life of a cookie at 400 days.
pub(crate) const MAX_AGE_CAP: Duration = Duration::from_secs(400 * 24 * 3_600);
