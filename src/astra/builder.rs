//! Sessions that Astra stores, read and written.

use super::stored_format::FORMAT;
use crate::store::{Builder, ServerKind};

impl<K: ServerKind> Builder<K> {
    /// Reads and writes the sessions that Astra keeps in Redis, so that Go and Rust processes serve the same user: the
    /// cookie holds an id of 32 hexadecimal digits, and the backend a JSON object under it.
    ///
    /// A backend is handed the id itself, as 16 bytes, and must keep the value as it is: one of your own does, and
    /// `RedisStore` leaves out its own deadline in front of it. Merging of concurrent changes,
    /// and the order of writes, are those of this store: it compares the JSON that it read with the JSON that is there. An
    /// id that is not stored is never adopted, and one that is not in Astra's form is not looked up.
    ///
    /// As in Astra, each save sets the whole idle timeout again, reading renews nothing unless a
    /// [`renewal_threshold`](Self::renewal_threshold) is set, and flash values are plain values:
    /// [`Session::flash`](crate::Session::flash) takes the value of that key. The payload format that the builder was
    /// given counts for nothing here. What JSON cannot hold is an error that names key and kind, when the session is
    /// saved; what is stored stays as it was.
    ///
    /// # Security
    ///
    /// - The absolute timeout is not enforced: nothing says when a session began. One that is saved often enough never ends.
    /// - Who can read the backend is logged in as everybody: the ids are stored as they are. [`Session::id`] is a
    ///   hash of it, and harmless.
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
        self.options.shared_flash = true;
        self.server.shared_format = Some(FORMAT);
        self.options.renew_on_read = false;
        self
    }
}
