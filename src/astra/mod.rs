//! The formats of Astra, a web framework in Go: its cookies and its stored sessions, read and written.
//!
//! The rest of the crate has two seams for them, [`ForeignFormat`](crate::store::ForeignFormat) for cookies and
//! [`StoredFormat`](crate::store::StoredFormat) for entries. All code that is specific to Astra is in this folder.

mod builder;
mod cookie_format;
mod cookie_options;
mod cookie_sealer;
mod go_json;
mod padded_base64;
#[cfg(feature = "redis")]
mod redis_framing;
mod stored_format;

use self::cookie_sealer::astra_id;
