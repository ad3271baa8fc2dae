//! The parts that the tests, fuzz targets and benchmarks of this project use beside the public API. They may change in any
//! release.

#[cfg(feature = "testing")]
use std::sync::Arc;

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};

#[cfg(feature = "testing")]
use crate::crypto::ChosenBytes;
#[cfg(feature = "testing")]
use crate::store::Builder;

pub use crate::config::Config;
pub use crate::cookie::limits::{MAX_CANDIDATES, MAX_CHUNKS, MAX_NAME_VALUE};
pub use crate::cookie::name::CookieName;
pub use crate::cookie::pairs::{Pairs, pairs};
pub use crate::crypto::SecretText;
pub use crate::session::{Changes, Recency, Record, Saved};
pub use crate::store::future::StoreFuture;
#[cfg(feature = "redis")]
pub use crate::store::redis::{REPLACE as REDIS_REPLACE_SCRIPT, look_up_names_by};
pub use crate::store::verbs::{EndedBy, LoadFuture, Verbs};

/// Returns how many cookies of the session's name these headers hold. It is the cost of a request whose handler does not ask
/// for the session.
pub fn candidates(config: &Config, headers: &HeaderMap) -> usize {
    config.finder.find(headers.get_all(COOKIE)).len()
}

/// Makes a server-side store take what `fill` writes for random, so that one input of a fuzz target does one thing. Anyone who knows
/// `fill` can guess the tokens.
#[cfg(feature = "testing")]
pub fn with_bytes_of<K>(
    mut builder: Builder<K>,
    fill: impl Fn(&mut [u8]) + Send + Sync + 'static,
) -> Builder<K> {
    builder.server.random = Arc::new(ChosenBytes(fill));
    builder
}

/// Returns the `Set-Cookie` line for `token`.
pub fn set_cookie(config: &Config, token: &[u8]) -> Option<HeaderValue> {
    config.cookie.set(token, config.timeouts().idle, 0).ok()?.pop()
}
