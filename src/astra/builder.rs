//! The builder's option for sessions that Astra stores.

use super::stored_format::FORMAT;
use crate::store::{Builder, ServerKind};

impl<K: ServerKind> Builder<K> {
    /// Reads and writes the sessions that Astra keeps in Redis, so that Go and Rust processes serve the same users. The
    /// cookie holds an id of 32 hexadecimal digits, and the backend a JSON object under it.
    ///
    /// The backend gets the id itself, as 16 bytes, and must store the value unchanged. `RedisStore` then omits its own
    /// deadline in front of the value. Merging of concurrent changes and the order of writes are those of this store:
    /// it compares the JSON that it read with the present JSON. An id that is not stored is never adopted, and an id
    /// that is not in Astra's form is not looked up.
    ///
    /// As in Astra, each save sets the whole idle timeout again, and reading renews nothing unless a
    /// [`renewal_threshold`](Self::renewal_threshold) is set. Flash values are plain values:
    /// [`Session::flash`](crate::Session::flash) takes the value of that key. The builder's payload format has no
    /// effect. Saving a value that JSON cannot hold is an error that names key and kind; the stored session stays
    /// unchanged.
    ///
    /// # Security
    ///
    /// - The absolute timeout is not enforced, since Astra does not store when a session began. A session that is saved
    ///   often enough never ends.
    /// - Anyone who can read the backend can log in as any user: the ids are stored as they are. [`Session::id`] is a
    ///   hash of the id, and harmless.
    ///
    /// [`Session::id`]: crate::Session::id
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "memory")]
    /// # fn main() -> Result<(), hyper_session::Error> {
    /// use hyper_session::MemoryStore;
    /// use hyper_session::cookie::CookieOptions;
    ///
    /// let store = MemoryStore::builder().cookie(CookieOptions::astra()).beside_astra().build()?;
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "memory"))]
    /// # fn main() {}
    /// ```
    pub fn beside_astra(mut self) -> Self {
        self.options.settings.shared_flash = true;
        self.server.shared_format = Some(FORMAT);
        self.options.renew_on_read = false;
        self
    }
}
