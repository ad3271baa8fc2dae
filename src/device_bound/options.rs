//! The options of device-bound sessions, before they are checked.

use std::fmt;
use std::time::Duration;

use crate::crypto::Keyring;

/// The options of [`device_bound`](crate::store::Builder::device_bound).
///
/// # Examples
///
/// ```
/// use hyper_session::{AppKey, CookieStore, DeviceBound, Revocations};
/// use std::time::Duration;
///
/// let options = DeviceBound::new().path("/auth/device").lifetime(Duration::from_secs(300));
/// let store = CookieStore::builder(AppKey::generate()?)
///     .revocations(Revocations::in_memory())
///     .device_bound(options)
///     .build()?;
/// # Ok::<(), hyper_session::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "options do nothing until they are given to a store builder"]
pub struct DeviceBound {
    pub(super) path: String,
    pub(super) lifetime: Duration,
    pub(super) keys: Option<Keyring>,
}

impl DeviceBound {
    /// Creates the default options: the path `/device-bound`, and a lifetime of ten minutes.
    pub fn new() -> Self {
        Self { path: "/device-bound".to_owned(), lifetime: Duration::from_secs(600), keys: None }
    }

    /// Sets the path under which the session service answers browsers: `POST PATH/register` and `POST PATH/refresh`.
    /// Default: `/device-bound`.
    ///
    /// The path of the session cookie must cover it. The service must see requests under their full path, so that a layer
    /// belongs outside of nested routers.
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// Sets the lifetime of the bound cookie, by which a device shows that it has proved to hold its key. A thief who copies
    /// both cookies can use them for this long. Default: ten minutes. At least five, because Chromium signs at most six
    /// times in nine minutes for a site.
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Sets the keys for challenges and bound cookies. Default: those of the store.
    ///
    /// A server-side store has keys only if it [seals its entries](crate::store::Builder::seal_records).
    pub fn keys(mut self, keys: impl Into<Keyring>) -> Self {
        self.keys = Some(keys.into());
        self
    }
}

impl Default for DeviceBound {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for DeviceBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceBound")
            .field("path", &self.path)
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}
