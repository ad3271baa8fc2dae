//! The options of the cookie that Astra sets.

use crate::cookie::CookieOptions;

impl CookieOptions {
    /// The cookie that Astra sets by default, `astra_session`, to read and write the same one. It is `Secure` here, which
    /// Astra's is where `WithSecure` says so: call [`secure(false)`](Self::secure) where both serve plain http.
    ///
    /// # Examples
    ///
    /// ```
    /// use hyper_session::cookie::CookieOptions;
    ///
    /// let renamed = CookieOptions::astra().name("sid"); // what `WithCookieName` was given
    /// ```
    pub fn astra() -> Self {
        Self::new().name("astra_session")
    }
}
