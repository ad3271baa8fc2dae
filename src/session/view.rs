//! A session that can be read and not changed.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use std::time::Duration;

use super::{AsKey, Authentication, Lifetime, ReadKey, Session, SessionId, Text};
use crate::clock::Timestamp;
use crate::error::Error;

/// A session to look at: for code that must not change it, which this type says in its signature.
///
/// It shows the same session, with what is changed through other handles of it meanwhile.
///
/// # Examples
///
/// ```
/// use hyper_session::{Error, SessionView};
///
/// fn greeting(session: &SessionView) -> Result<String, Error> {
///     Ok(session.get_str("user")?.map_or("Hello".to_owned(), |user| format!("Hello, {user}")))
/// }
///
/// # hyper_session::__example(|session| {
/// session.set("user", "Ada")?;
/// assert_eq!(greeting(&session.view())?, "Hello, Ada");
/// # Ok(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct SessionView(Session);

impl Session {
    /// This session, to look at.
    pub fn view(&self) -> SessionView {
        SessionView(self.clone())
    }
}

impl SessionView {
    /// As [`Session::get`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn get<T: DeserializeOwned>(&self, key: impl ReadKey<T>) -> Result<Option<T>, Error> {
        self.0.get(key)
    }

    /// As [`Session::get_all`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn get_all<T: DeserializeOwned>(&self) -> Result<Option<T>, Error> {
        self.0.get_all()
    }

    /// As [`Session::get_str`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn get_str(&self, key: impl AsKey) -> Result<Option<Text>, Error> {
        self.0.get_str(key)
    }

    /// As [`Session::get_bytes`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn get_bytes(&self, key: impl AsKey) -> Result<Option<Bytes>, Error> {
        self.0.get_bytes(key)
    }

    /// As [`Session::peek`]: a look leaves flash values in place.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn peek<T: DeserializeOwned>(&self, key: impl ReadKey<T>) -> Result<Option<T>, Error> {
        self.0.peek(key)
    }

    /// As [`Session::has`].
    pub fn has(&self, key: impl AsKey) -> bool {
        self.0.has(key)
    }

    /// As [`Session::keys`].
    pub fn keys(&self) -> Vec<String> {
        self.0.keys()
    }

    /// As [`Session::is_empty`].
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As [`Session::id`].
    pub fn id(&self) -> Option<SessionId> {
        self.0.id()
    }

    /// As [`Session::created_at`].
    pub fn created_at(&self) -> Option<Timestamp> {
        self.0.created_at()
    }

    /// As [`Session::expires_at`].
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.0.expires_at()
    }

    /// As [`Session::remaining`].
    pub fn remaining(&self) -> Option<Duration> {
        self.0.remaining()
    }

    /// As [`Session::subject`].
    pub fn subject(&self) -> Option<Text> {
        self.0.subject()
    }

    /// As [`Session::authentication`].
    pub fn authentication(&self) -> Option<Authentication> {
        self.0.authentication()
    }

    /// As [`Session::authenticated_at`].
    pub fn authenticated_at(&self) -> Option<Timestamp> {
        self.0.authenticated_at()
    }

    /// As [`Session::authenticated_within`].
    pub fn authenticated_within(&self, age: Duration) -> bool {
        self.0.authenticated_within(age)
    }

    /// As [`Session::lifetime`].
    pub fn lifetime(&self) -> Lifetime {
        self.0.lifetime()
    }

    /// As [`Session::description`].
    pub fn description(&self) -> Option<Text> {
        self.0.description()
    }

    /// As [`Session::verify_csrf`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn verify_csrf(&self, token: &str) -> Result<(), Error> {
        self.0.verify_csrf(token)
    }

    /// As [`Session::get_lenient`].
    pub fn get_lenient<T: DeserializeOwned>(&self, key: impl ReadKey<T>) -> Option<T> {
        self.0.get_lenient(key)
    }
}
