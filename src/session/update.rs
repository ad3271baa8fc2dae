//! `update`: a change that depends on the previous value, and runs again on a newer one.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::key::check_key;
use super::{ReadKey, Session, value_codec};
use crate::error::{Error, Kind};

/// How often [`Session::update`] runs again because another clone of the handle changed the value.
const MAX_RERUNS: u32 = 64;

impl Session {
    /// Replaces the value under `key` with `change(old value)` and returns the new value.
    ///
    /// On a server-side store, `change` runs again on the newer value if another request saved first. So a counter does not
    /// lose an increment. `change` must depend only on its argument, and must not change this key itself. To show the final value
    /// in the response, call [`save`](Self::save) and then [`get`](Self::get).
    ///
    /// # Limits
    ///
    /// If the backend's reply to a save was lost, for example because a connection broke, `change` may be applied twice. Where that
    /// matters, make it idempotent: add the number of an order to a set instead of counting orders.
    ///
    /// # Errors
    ///
    /// The same as [`get`](Self::get) and [`set`](Self::set).
    ///
    /// # Examples
    ///
    /// ```
    /// # hyper_session::__example(|session| {
    /// let visits = |old: Option<u64>| old.unwrap_or(0) + 1;
    /// assert_eq!(session.update("visits", visits)?, 1);
    /// assert_eq!(session.update("visits", visits)?, 2);
    /// # Ok(())
    /// # }).unwrap();
    /// ```
    #[doc(alias = "entry")]
    #[doc(alias = "update_or")]
    pub fn update<T, F>(&self, key: impl ReadKey<T>, change: F) -> Result<T, Error>
    where
        T: Serialize + DeserializeOwned,
        F: Fn(Option<T>) -> T + Send + Sync + 'static,
    {
        self.try_update(key, move |old| Ok(change(old)))
    }

    /// Works as [`update`](Self::update), with a `change` that may fail. Nothing is changed then, and its error is
    /// returned.
    ///
    /// If `change` fails when it runs again because another request saved first, the newer value stays as it is.
    ///
    /// # Errors
    ///
    /// The error of `change`, or the converted errors of [`update`](Self::update).
    ///
    /// # Examples
    ///
    /// ```
    /// use hyper_session::{Error, Session};
    ///
    /// #[derive(Debug)]
    /// enum Refused {
    ///     NothingLeft,
    ///     Session(Error),
    /// }
    ///
    /// impl From<Error> for Refused {
    ///     fn from(error: Error) -> Self {
    ///         Self::Session(error)
    ///     }
    /// }
    ///
    /// fn spend(session: &Session) -> Result<u64, Refused> {
    ///     session.try_update("coins", |coins: Option<u64>| {
    ///         coins.unwrap_or(0).checked_sub(1).ok_or(Refused::NothingLeft)
    ///     })
    /// }
    ///
    /// # hyper_session::__example(|session| {
    /// session.set("coins", 1)?;
    /// assert_eq!(spend(session).unwrap(), 0);
    /// assert!(matches!(spend(session), Err(Refused::NothingLeft)));
    /// assert_eq!(session.get::<u64>("coins")?, Some(0));
    /// # Ok(())
    /// # }).unwrap();
    /// ```
    pub fn try_update<T, E, F>(&self, key: impl ReadKey<T>, change: F) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned,
        E: From<Error>,
        F: Fn(Option<T>) -> Result<T, E> + Send + Sync + 'static,
    {
        let key = key.as_key();
        check_key(key)?;
        self.update_value(key, key, change)
    }

    pub(super) fn update_value<T, E, F>(&self, full_key: &str, key: &str, change: F) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned,
        E: From<Error>,
        F: Fn(Option<T>) -> Result<T, E> + Send + Sync + 'static,
    {
        let owned_key = key.to_owned();
        let change = Arc::new(move |old: Option<&[u8]>| {
            let old = old.map(|old| value_codec::decode(&owned_key, old)).transpose()?;
            Ok::<_, Error>(match change(old) {
                Ok(new) => value_codec::encode(&owned_key, &new).map(|bytes| Ok((new, bytes)))?,
                Err(refused) => Err(refused),
            })
        });
        // `change` is code of the application and may use this session. So it runs without the lock, and again if another
        // clone of the handle changed the value meanwhile. The loop is bounded because the closure may change the value
        // itself.
        for _ in 0..MAX_RERUNS {
            let old = self.lock_open()?.get_encoded(full_key);
            let (new, bytes) = change(old.as_deref())??;
            let mut state = self.lock_open()?;
            if state.get(full_key) == old.as_deref() {
                let step = Arc::clone(&change);
                let step = Arc::new(move |old: Option<&[u8]>| Ok(step(old)?.ok().map(|(_, bytes)| bytes)));
                state.update(full_key, step, bytes);
                return Ok(new);
            }
        }
        Err(Error::new(Kind::Conflict { attempts: MAX_RERUNS }).into())
    }
}
