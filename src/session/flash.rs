//! Flash values: they are set for the next page and read once, usually after a redirect.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::key::{FLASH, check_key};
use super::{ReadKey, Session, WriteKey};
use crate::error::Error;

impl Session {
    /// Returns the key of the flash value: in a namespace of its own, or among all other values, as in Astra.
    fn flash_key(&self, key: &str) -> Result<String, Error> {
        if self.shares_flash() {
            check_key(key)?;
            return Ok(key.to_owned());
        }
        Ok(format!("{FLASH}{key}"))
    }

    /// Stores `value` to be read once, by [`flash`](Self::flash). Flash values have a namespace of their own, except in
    /// stores that share sessions with Astra: there they are stored among the other values.
    ///
    /// # Errors
    ///
    /// The same as [`set`](Self::set).
    ///
    /// # Examples
    ///
    /// ```
    /// # hyper_session::__example(|session| {
    /// session.set_flash("notice", "Saved.")?;
    /// assert_eq!(session.peek::<String>("notice")?.as_deref(), Some("Saved."));
    /// assert_eq!(session.flash::<String>("notice")?.as_deref(), Some("Saved."));
    /// assert_eq!(session.flash::<String>("notice")?, None); // read once
    /// # Ok(())
    /// # }).unwrap();
    /// ```
    pub fn set_flash<V: Serialize>(&self, key: impl WriteKey<V>, value: V) -> Result<(), Error> {
        let key = key.as_key();
        self.put_value(&self.flash_key(key)?, key, &value)
    }

    /// Replaces the flash value under `key` by `change(old value)`, and returns the new one: for a message that is added to
    /// messages that no page has shown yet.
    ///
    /// As [`update`](Self::update), `change` runs again if another request came first, so no message is lost on a server-side
    /// store.
    ///
    /// # Errors
    ///
    /// The same as [`update`](Self::update).
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
    /// Returns `None` for a request that loads the page ahead (`Sec-Purpose: prefetch`, which prerendering sends, too),
    /// because the user may never look at the response. The value stays for the next request.
    ///
    /// # Errors
    ///
    /// [`is_value`](Error::is_value) if the value is not a `T`. The value then stays. [`is_head_sent`](Error::is_head_sent)
    /// if the response is on its way.
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
    /// [`is_value`](Error::is_value) if the value is not a `T`.
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

    /// Returns the keys that have a flash value, in order. Returns none in stores that share sessions with Astra, because
    /// flash values cannot be distinguished from other values there.
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
        self.all_keys().iter().filter_map(|key| key.strip_prefix(FLASH)).map(str::to_owned).collect()
    }
}
