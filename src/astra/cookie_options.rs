//! The options of the cookie that Astra sets.

use crate::cookie::CookieOptions;

impl CookieOptions {
    /// Returns the options of Astra's default cookie, `astra_session`, so that both read and write the same cookie. It
    /// is `Secure` here. Astra's is only with `WithSecure`: call [`secure(false)`](Self::secure) if both serve plain
    /// http.
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
