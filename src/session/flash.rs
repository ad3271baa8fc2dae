//! Flash values: set now, seen once, usually by the page after a redirect.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::key::{RESERVED, check_key};
use super::{ReadKey, Session, WriteKey};
use crate::error::Error;

impl Session {
    /// Where the flash value under `key` is kept: in a namespace of its own, or among all others, as in Astra.
    fn flash_key(&self, key: &str) -> Result<String, Error> {
        if self.shares_flash() {
            check_key(key)?;
            return Ok(key.to_owned());
        }
        Ok(format!("{RESERVED}f{key}"))
    }

    /// Stores `value` to be seen once, by [`flash`](Self::flash). Flash values have a namespace of their own, but for
    /// stores that share sessions with Astra: there they are values like any other.
    ///
    /// # Errors
    ///
    /// As [`set`](Self::set).
    ///
    /// # Examples
    ///
    /// ```
    /// # hyper_session::__example(|session| {
    /// session.set_flash("notice", "Saved.")?;
    /// assert_eq!(session.peek::<String>("notice")?.as_deref(), Some("Saved."));
    /// assert_eq!(session.flash::<String>("notice")?.as_deref(), Some("Saved."));
    /// assert_eq!(session.flash::<String>("notice")?, None); // seen once
    /// # Ok(())
    /// # }).unwrap();
    /// ```
    pub fn set_flash<V: Serialize>(&self, key: impl WriteKey<V>, value: V) -> Result<(), Error> {
        let key = key.as_key();
        self.put_value(&self.flash_key(key)?, key, &value)
    }

    /// Replaces the flash value under `key` by `change(old value)`, and returns the new one: for messages that are added to
    /// those which no page has shown yet.
    ///
    /// As [`update`](Self::update), `change` runs again if another request came first, so no message is lost on a server-side
    /// store.
    ///
    /// # Errors
    ///
    /// As [`update`](Self::update).
    ///
    /// # Examples
    ///
    /// ```
    /// # hyper_session::__example(|session| {
    /// let add = |message: &'static str| {
    ///     session.update_flash("notices", move |old: Option<Vec<String>>| {
    ///         old.unwrap_or_default().into_iter().chain([message.to_owned()]).collect()
    ///     })
    /// };
    /// add("Saved.")?;
    /// add("You have mail.")?;
    /// assert_eq!(session.flash::<Vec<String>>("notices")?.unwrap(), ["Saved.", "You have mail."]);
    /// # Ok(())
    /// # }).unwrap();
    /// ```
    #[doc(alias = "add_flash")]
    pub fn update_flash<T, F>(&self, key: impl ReadKey<T>, change: F) -> Result<T, Error>
    where
        T: Serialize + DeserializeOwned,
        F: Fn(Option<T>) -> T + Send + Sync + 'static,
    {
        let key = key.as_key();
        self.update_value(&self.flash_key(key)?, key, move |old| Ok(change(old)))
    }

    /// Takes the flash value under `key`: it is gone when the response is committed. If the handler fails (5xx, `Err`), it
    /// is still there for the next request.
    ///
    /// A request that the browser makes ahead (`Sec-Purpose: prefetch`, which prerendering sends, too) sees none: nobody may
    /// ever look at its answer. The value waits for the next request.
    ///
    /// # Errors
    ///
    /// [`is_value`](Error::is_value) if the value is no `T`: it stays. [`is_head_sent`](Error::is_head_sent) as for
    /// [`set`](Self::set).
    ///
    /// # Examples
    ///
    /// ```
    /// # hyper_session::__example(|session| {
    /// session.set_flash("notice", "Saved.")?;
    /// assert_eq!(session.flash::<String>("notice")?.as_deref(), Some("Saved."));
    /// assert_eq!(session.flash::<String>("notice")?, None);
    /// # Ok(())
    /// # }).unwrap();
    /// ```
    pub fn flash<T: DeserializeOwned>(&self, key: impl ReadKey<T>) -> Result<Option<T>, Error> {
        if self.is_speculative() {
            return Ok(None);
        }
        let key = key.as_key();
        let full = self.flash_key(key)?;
        let value = self.get_value(&full, key)?;
        if value.is_some() {
            self.delete_value(&full)?;
        }
        Ok(value)
    }

    /// Returns the flash value under `key`, and keeps it for the next page.
    ///
    /// # Errors
    ///
    /// [`is_value`](Error::is_value) if the value is no `T`.
    ///
    /// # Examples
    ///
    /// ```
    /// # hyper_session::__example(|session| {
    /// session.set_flash("notice", "Saved.")?;
    /// assert!(session.peek::<String>("notice")?.is_some() && session.peek::<String>("notice")?.is_some());
    /// # Ok(())
    /// # }).unwrap();
    /// ```
    #[doc(alias = "keep_flash")]
    pub fn peek<T: DeserializeOwned>(&self, key: impl ReadKey<T>) -> Result<Option<T>, Error> {
        let key = key.as_key();
        self.get_value(&self.flash_key(key)?, key)
    }

    /// The keys that have a flash value, in order. None for stores that share sessions with Astra: there, nothing tells
    /// flash values from others.
    ///
    /// # Examples
    ///
    /// ```
    /// # hyper_session::__example(|session| {
    /// session.set_flash("notice", "Saved.")?;
    /// assert_eq!(session.flash_keys(), ["notice"]);
    /// # Ok(())
    /// # }).unwrap();
    /// ```
    pub fn flash_keys(&self) -> Vec<String> {
        let prefix = format!("{RESERVED}f");
        let keys = self.all_keys();
        keys.iter().filter_map(|key| key.strip_prefix(&prefix)).map(str::to_owned).collect()
    }
}
