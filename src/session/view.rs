//! A read-only view of a session.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use std::time::Duration;

#[cfg(feature = "device-bound")]
use super::Binding;
use super::{AsKey, Authentication, Lifetime, ReadKey, Session, SessionId, Text};
use crate::clock::Timestamp;
use crate::error::Error;

/// A read-only view of a session, for code whose signature should show that it does not change the session.
///
/// It is a view of the same session, and shows changes that other handles make.
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
    /// Returns a read-only view of this session.
    pub fn view(&self) -> SessionView {
        SessionView(self.clone())
    }
}

impl SessionView {
    /// Works as [`Session::get`].
    ///
    /// # Errors
    ///
    /// The same as [`Session::get`].
    pub fn get<T: DeserializeOwned>(&self, key: impl ReadKey<T>) -> Result<Option<T>, Error> {
        self.0.get(key)
    }

    /// Works as [`Session::get_all`].
    ///
    /// # Errors
    ///
    /// The same as [`Session::get_all`].
    pub fn get_all<T: DeserializeOwned>(&self) -> Result<Option<T>, Error> {
        self.0.get_all()
    }

    /// Works as [`Session::get_str`].
    ///
    /// # Errors
    ///
    /// The same as [`Session::get_str`].
    pub fn get_str(&self, key: impl AsKey) -> Result<Option<Text>, Error> {
        self.0.get_str(key)
    }

    /// Works as [`Session::get_bytes`].
    ///
    /// # Errors
    ///
    /// The same as [`Session::get_bytes`].
    pub fn get_bytes(&self, key: impl AsKey) -> Result<Option<Bytes>, Error> {
        self.0.get_bytes(key)
    }

    /// Works as [`Session::get_i64`].
    ///
    /// # Errors
    ///
    /// The same as [`Session::get_i64`].
    pub fn get_i64(&self, key: impl AsKey) -> Result<Option<i64>, Error> {
        self.0.get_i64(key)
    }

    /// Works as [`Session::get_bool`].
    ///
    /// # Errors
    ///
    /// The same as [`Session::get_bool`].
    pub fn get_bool(&self, key: impl AsKey) -> Result<Option<bool>, Error> {
        self.0.get_bool(key)
    }

    /// Works as [`Session::peek`]: flash values stay.
    ///
    /// # Errors
    ///
    /// The same as [`Session::peek`].
    pub fn peek<T: DeserializeOwned>(&self, key: impl ReadKey<T>) -> Result<Option<T>, Error> {
        self.0.peek(key)
    }

    /// Works as [`Session::has`].
    pub fn has(&self, key: impl AsKey) -> bool {
        self.0.has(key)
    }

    /// Works as [`Session::keys`].
    pub fn keys(&self) -> Vec<String> {
        self.0.keys()
    }

    /// Works as [`Session::flash_keys`].
    pub fn flash_keys(&self) -> Vec<String> {
        self.0.flash_keys()
    }

    /// Works as [`Session::is_empty`].
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Works as [`Session::id`].
    pub fn id(&self) -> Option<SessionId> {
        self.0.id()
    }

    /// Works as [`Session::now`].
    pub fn now(&self) -> Timestamp {
        self.0.now()
    }

    /// Works as [`Session::created_at`].
    pub fn created_at(&self) -> Option<Timestamp> {
        self.0.created_at()
    }

    /// Works as [`Session::expires_at`].
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.0.expires_at()
    }

    /// Works as [`Session::remaining`].
    pub fn remaining(&self) -> Option<Duration> {
        self.0.remaining()
    }

    /// Works as [`Session::subject`].
    pub fn subject(&self) -> Option<Text> {
        self.0.subject()
    }

    /// Works as [`Session::authentication`].
    pub fn authentication(&self) -> Option<Authentication> {
        self.0.authentication()
    }

    /// Works as [`Session::authenticated_at`].
    pub fn authenticated_at(&self) -> Option<Timestamp> {
        self.0.authenticated_at()
    }

    /// Works as [`Session::authenticated_within`].
    #[must_use = "it protects nothing unless its answer decides"]
    pub fn authenticated_within(&self, age: Duration) -> bool {
        self.0.authenticated_within(age)
    }

    /// Works as [`Session::lifetime`].
    pub fn lifetime(&self) -> Lifetime {
        self.0.lifetime()
    }

    /// Works as [`Session::binding`].
    #[cfg(feature = "device-bound")]
    pub fn binding(&self) -> Binding {
        self.0.binding()
    }

    /// Works as [`Session::description`].
    pub fn description(&self) -> Option<Text> {
        self.0.description()
    }

    /// Works as [`Session::verify_csrf`].
    ///
    /// # Errors
    ///
    /// The same as [`Session::verify_csrf`].
    pub fn verify_csrf(&self, token: &str) -> Result<(), Error> {
        self.0.verify_csrf(token)
    }

    /// Works as [`Session::get_lenient`].
    pub fn get_lenient<T: DeserializeOwned>(&self, key: impl ReadKey<T>) -> Option<T> {
        self.0.get_lenient(key)
    }
}

#[cfg(test)]
mod tests {
    use super::super::__example;
    use super::*;

    #[derive(serde::Deserialize)]
    struct Numbers {
        n: i64,
    }

    /// A value of each type is read by the method of that type, from the session and from its view.
    #[test]
    fn a_view_shows_what_the_session_shows() {
        __example(|session| {
            let view = session.view();
            assert!(view.is_empty() && !view.has("n") && view.get::<i64>("n")?.is_none());
            assert!(view.authentication().is_none() && !view.authenticated_within(Duration::MAX));
            session.login("ada")?;
            session.describe("Firefox")?;
            let lifetime = Lifetime::until_browser_closes();
            session.set_lifetime(lifetime)?;
            session.set("n", -7)?;
            session.set("is", true)?;
            session.set("is not", false)?;
            session.set("bytes", Bytes::from_static(b"\x00\xff"))?;
            session.set_flash("notice", 3)?;
            for number in [session.get_i64("n")?, view.get_i64("n")?, view.get("n")?, view.get_lenient("n")] {
                assert_eq!(number, Some(-7));
            }
            for (key, value) in [("is", Some(true)), ("is not", Some(false)), ("absent", None)] {
                assert_eq!((session.get_bool(key)?, view.get_bool(key)?), (value, value), "{key}");
            }
            for bytes in [session.get_bytes("bytes")?, view.get_bytes("bytes")?] {
                assert_eq!(bytes.as_deref(), Some(&b"\x00\xff"[..]));
            }
            for flash_keys in [session.flash_keys(), view.flash_keys()] {
                assert_eq!(flash_keys, ["notice"]);
            }
            assert_eq!((view.lifetime(), view.peek::<u8>("notice")?), (lifetime, Some(3)));
            assert_eq!(view.get_all::<Numbers>()?.map(|numbers| numbers.n), Some(-7));
            assert_eq!(view.keys(), ["bytes", "is", "is not", "n"]);
            assert!(view.has("n") && !view.is_empty());
            assert_eq!(
                (view.subject().as_deref(), view.description().as_deref()),
                (Some("ada"), Some("Firefox"))
            );
            assert_eq!(view.authenticated_at(), Some(view.now()));
            assert_eq!(view.authentication().map(|authentication| authentication.at), Some(view.now()));
            assert!(view.authenticated_within(Duration::from_secs(1)));
            assert_eq!(session.take::<i64>("n")?, Some(-7));
            assert_eq!((view.get_i64("n")?, session.take::<i64>("n")?), (None, None));
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn a_view_checks_tokens_of_forms() {
        __example(|session| {
            let token = session.csrf_token()?;
            let view = session.view();
            assert!(view.verify_csrf(&token).is_ok());
            for forged in ["", "forged", &token[1..]] {
                assert!(view.verify_csrf(forged).unwrap_err().is_forgery());
            }
            Ok(())
        })
        .unwrap();
    }
}
