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
/// let build = |options| {
///     CookieStore::builder(AppKey::generate()?).revocations(Revocations::in_memory()).device_bound(options).build()
/// };
/// let options = DeviceBound::new().path("/auth/device");
/// build(options.clone().lifetime(Duration::from_secs(300)))?;
/// assert!(build(options.lifetime(Duration::from_secs(60))).unwrap_err().is_config(), "too short");
/// # Ok::<(), hyper_session::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "options do nothing until they are given to a store builder"]
pub struct DeviceBound {
    pub(super) path: String,
    pub(super) accepted_paths: Vec<String>,
    pub(super) answer_only: bool,
    pub(super) lifetime: Duration,
    pub(super) keys: Option<Keyring>,
}

impl DeviceBound {
    /// Creates the default options: the path `/device-bound`, and a lifetime of ten minutes.
    pub fn new() -> Self {
        Self {
            path: "/device-bound".to_owned(),
            accepted_paths: Vec::new(),
            answer_only: false,
            lifetime: Duration::from_secs(600),
            keys: None,
        }
    }

    /// Sets the path under which the session service answers browsers: `POST PATH/register`, `POST PATH/refresh` and
    /// `GET PATH/present`. Default: `/device-bound`.
    ///
    /// Browsers must send it as it is: it has neither segments of dots nor characters that they encode. The path of the session
    /// cookie must cover it. The service must see requests under their full path, so that a layer
    /// belongs outside of nested routers. Services of one host with different cookies need [different
    /// paths](crate::guide::device_bound#two-sessions-on-one-host).
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// Adds a path under which the session service answers browsers, too. Default: none. It is not offered.
    ///
    /// A browser ends a binding whose refresh is answered with 404, and its user has to log in again. So a new path is accepted
    /// on every host before the first host offers it. The old one is accepted until the last session that was bound under it
    /// has expired. The guide shows [the steps](crate::guide::device_bound#deploying-host-by-host).
    ///
    /// # Examples
    ///
    /// ```
    /// use hyper_session::DeviceBound;
    ///
    /// let before = DeviceBound::new().path("/device").accept_path("/auth/device");
    /// let after = DeviceBound::new().path("/auth/device").accept_path("/device");
    /// ```
    pub fn accept_path(mut self, path: impl Into<String>) -> Self {
        self.accepted_paths.push(path.into());
        self
    }

    /// Sets whether the store only answers browsers: it offers no registration, and accepts bound sessions without their
    /// bound cookie, as a store without the option does. Default: false.
    ///
    /// It is the step between a deployment without the option and a deployment with it, in both directions. The guide shows
    /// [the steps](crate::guide::device_bound#deploying-host-by-host).
    ///
    /// # Security
    ///
    /// Copied cookies are not refused, and [`Session::binding`](crate::Session::binding) returns
    /// [`Unchecked`](crate::Binding::Unchecked) for a bound session.
    ///
    /// # Examples
    ///
    /// ```
    /// use hyper_session::{AppKey, CookieStore, DeviceBound};
    ///
    /// let options = DeviceBound::new().answer_only(true);
    /// let store = CookieStore::builder(AppKey::generate()?).device_bound(options).build()?;
    /// # Ok::<(), hyper_session::Error>(())
    /// ```
    pub fn answer_only(mut self, yes: bool) -> Self {
        self.answer_only = yes;
        self
    }

    /// Sets the lifetime of the bound cookie, by which a device shows that it has proved to hold its key. A thief who copies
    /// both cookies can use them for this long. Default: ten minutes. At least five, because Chromium signs at most six
    /// times in nine minutes for a site.
    ///
    /// Bound cookies that were set before keep their end. If the lifetime was a day, they are accepted for up to a day after it was
    /// lowered.
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Sets the keys for challenges and bound cookies. Default: those of the store.
    ///
    /// A server-side store has keys only if it [seals its entries](crate::store::Builder::seal_records).
    ///
    /// If the keys change, or the store does, [accept](crate::Keyring::accept) the previous keys: the bound cookies under them stay
    /// valid. The guide shows [the steps](crate::guide::device_bound#deploying-host-by-host).
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
            .field("accepted_paths", &self.accepted_paths)
            .field("answer_only", &self.answer_only)
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}
