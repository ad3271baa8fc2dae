//! When and how the subject of a session was authenticated: for asking again before something dangerous.

use std::time::Duration;

use bytes::Bytes;

use super::key::{AUTHENTICATION, CSRF_SECRETS};
use super::state::State;
use super::{Session, value_codec};
use crate::clock::{MAX_CLOCK_SKEW, Timestamp};
use crate::error::{Error, Kind};

/// Stands in errors where a key would.
const NAME: &str = "the authentication";

/// A context class reference is a short name or a URL.
const MAX_ACR: usize = 256;
/// RFC 8176 has 19 methods, of at most six characters.
const MAX_AMR: usize = 16;
const MAX_METHOD: usize = 64;

/// The last authentication of a session's subject: its time, and its methods if the application named them.
///
/// # Examples
///
/// See [`Session::set_authentication_context`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Authentication {
    /// The time of the last [`login`](Session::login) or [`reauthenticate`](Session::reauthenticate).
    pub at: Timestamp,
    /// The authentication context class, such as `aal2` (`acr` in the ID token of an identity provider).
    pub acr: Option<String>,
    /// The authentication methods, such as `pwd` and `otp` (`amr` there; names in RFC 8176).
    pub amr: Vec<String>,
}

impl Authentication {
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (at, acr, amr) = if is_array(bytes) {
            value_codec::decode(NAME, bytes).ok()?
        } else {
            (value_codec::decode(NAME, bytes).ok()?, None, Vec::new())
        };
        Some(Self { at: Timestamp::from_unix(at), acr, amr })
    }

    /// Encodes the time, if there is nothing else, or an array of the time, the class and the methods.
    fn to_bytes(&self) -> Result<Bytes, Error> {
        if self.acr.is_none() && self.amr.is_empty() {
            return value_codec::encode(NAME, &self.at.as_unix());
        }
        value_codec::encode(NAME, &(self.at.as_unix(), &self.acr, &self.amr))
    }
}

/// Returns true for a MessagePack array of up to 15 values.
fn is_array(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|marker| marker & 0xf0 == 0x90)
}

impl Session {
    /// Stamps the time of an authentication that has just succeeded, and gives the session a new id and token: after the
    /// user proved again who they are, or proved more than before.
    ///
    /// Values, subject and lifetime stay. The absolute timeout begins anew, earlier form tokens are refused, and the context
    /// of an earlier [`set_authentication_context`](Self::set_authentication_context) is dropped.
    /// [`login`](Self::login) with the same subject does the same.
    ///
    /// # Errors
    ///
    /// [`is_not_logged_in`](Error::is_not_logged_in) if the session has no subject.
    /// [`is_head_sent`](Error::is_head_sent) if the response is on its way.
    ///
    /// # Security
    ///
    /// OWASP ASVS 5.0, 7.2.4, asks for a new token at each authentication, re-authentication included.
    ///
    /// # Examples
    ///
    /// ```
    /// use hyper_session::{Error, Session};
    /// use std::time::Duration;
    ///
    /// /// Ask for the password if it was not given in the last five minutes.
    /// fn may_change_email(session: &Session) -> bool {
    ///     session.authenticated_within(Duration::from_secs(300))
    /// }
    ///
    /// fn password_was_right(session: &Session) -> Result<(), Error> {
    ///     session.reauthenticate()
    /// }
    ///
    /// # hyper_session::__example(|session| {
    /// assert!(!may_change_email(session));
    /// assert!(password_was_right(session).unwrap_err().is_not_logged_in());
    /// session.login("ada")?;
    /// assert!(may_change_email(session));
    /// # Ok(())
    /// # }).unwrap();
    /// ```
    #[doc(alias = "step_up")]
    #[doc(alias = "sudo")]
    pub fn reauthenticate(&self) -> Result<(), Error> {
        let stamp = self.authentication_stamp()?;
        let mut state = self.lock_open()?;
        if !state.has_subject() {
            return Err(Error::new(Kind::NotLoggedIn));
        }
        state.authenticated(stamp);
        state.reauthenticate();
        Ok(())
    }

    /// Says how the subject was authenticated, after [`login`](Self::login) or [`reauthenticate`](Self::reauthenticate).
    ///
    /// The names are the application's. Common ones are those of ID tokens: a class (`acr`), and methods (`amr`, RFC 8176).
    ///
    /// # Errors
    ///
    /// [`is_not_logged_in`](Error::is_not_logged_in) if the session was never logged in. [`is_value`](Error::is_value) if
    /// `acr` is longer than 256 bytes, or `amr` has more than 16 names or one of more than 64 bytes.
    /// [`is_head_sent`](Error::is_head_sent) if the response is on its way.
    ///
    /// # Examples
    ///
    /// ```
    /// # hyper_session::__example(|session| {
    /// session.login("ada")?;
    /// session.set_authentication_context(Some("aal2"), &["pwd", "otp"])?;
    ///
    /// let authentication = session.authentication().expect("a login");
    /// assert!(authentication.amr.iter().any(|method| method == "otp"));
    /// # Ok(())
    /// # }).unwrap();
    /// ```
    #[doc(alias = "acr")]
    #[doc(alias = "amr")]
    pub fn set_authentication_context(&self, acr: Option<&str>, amr: &[&str]) -> Result<(), Error> {
        let short = |name: &&str| name.len() <= MAX_METHOD;
        if acr.is_some_and(|acr| acr.len() > MAX_ACR) || amr.len() > MAX_AMR || !amr.iter().all(short) {
            return Err(Error::new(Kind::AuthenticationContext));
        }
        let mut authentication = self.authentication().ok_or_else(|| Error::new(Kind::NotLoggedIn))?;
        authentication.acr = acr.map(str::to_owned);
        authentication.amr = amr.iter().map(|&method| method.to_owned()).collect();
        let value = authentication.to_bytes()?;
        self.lock_open()?.put(AUTHENTICATION, Some(value));
        Ok(())
    }

    /// Returns when and how the subject was last authenticated; `None` if the session was never logged in.
    ///
    /// # Examples
    ///
    /// See [`set_authentication_context`](Self::set_authentication_context).
    pub fn authentication(&self) -> Option<Authentication> {
        self.raw(AUTHENTICATION).and_then(|value| Authentication::from_bytes(&value))
    }

    /// Returns when the subject last logged in or was authenticated again; `None` if the session was never logged in.
    #[doc(alias = "auth_time")]
    pub fn authenticated_at(&self) -> Option<Timestamp> {
        self.authentication().map(|authentication| authentication.at)
    }

    /// Returns true if the subject logged in, or was authenticated again, at most `age` before this request, or in it.
    ///
    /// False for a time that is more than a minute in the future: the clock of the host that recorded it is wrong, or this one's.
    ///
    /// # Examples
    ///
    /// See [`reauthenticate`](Self::reauthenticate).
    #[must_use = "it protects nothing unless its answer decides"]
    #[doc(alias = "max_age")]
    pub fn authenticated_within(&self, age: Duration) -> bool {
        self.authenticated_at().is_some_and(|at| {
            let now = self.now();
            now.saturating_since(at) <= age && !self.is_ahead(at)
        })
    }

    /// Returns the value that a login stores: its time, which may be long after the request began.
    pub(super) fn authentication_stamp(&self) -> Result<Bytes, Error> {
        Authentication { at: self.present(), acr: None, amr: Vec::new() }.to_bytes()
    }

    /// Returns true for a time that is further in the future than the clocks of two hosts may differ.
    fn is_ahead(&self, at: Timestamp) -> bool {
        // The clock is asked only if a login may have happened in this request, long after its beginning.
        let is_later = |now: Timestamp| at.saturating_since(now) > MAX_CLOCK_SKEW;
        is_later(self.now()) && is_later(self.present())
    }

    /// Returns the present moment, or that of loading once the request has ended.
    fn present(&self) -> Timestamp {
        let loaded = self.now();
        self.inner.committer.upgrade().map_or(loaded, |committer| committer.now(loaded))
    }
}

impl State {
    /// Stores the stamp of an authentication, and drops the secrets of earlier form tokens: a token that was planted or seen
    /// before is worthless afterwards.
    pub(super) fn authenticated(&mut self, stamp: Bytes) {
        self.force(AUTHENTICATION, Some(stamp));
        self.force(CSRF_SECRETS, None);
    }
}

#[cfg(test)]
mod tests {
    use super::super::__example;
    use super::*;

    #[test]
    fn a_context_needs_a_login_and_has_bounds() {
        __example(|session| {
            assert_eq!((session.authentication(), session.authenticated_at()), (None, None));
            assert!(session.set_authentication_context(Some("aal1"), &[]).unwrap_err().is_not_logged_in());
            session.login("ada")?;
            for (acr, amr) in [
                (Some("x".repeat(257)), vec![]),
                (None, vec!["pwd".to_owned(); 17]),
                (None, vec!["x".repeat(65)]),
            ] {
                let amr: Vec<_> = amr.iter().map(String::as_str).collect();
                assert!(session.set_authentication_context(acr.as_deref(), &amr).unwrap_err().is_value());
            }
            let (acr, method) = ("x".repeat(256), "x".repeat(64));
            session.set_authentication_context(Some(&acr), &[&*method; 16])?;
            assert_eq!(session.authentication().unwrap().acr, Some(acr));
            session.reauthenticate()?;
            assert_eq!(
                session.authentication().unwrap().acr,
                None,
                "another authentication, another context"
            );
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn a_class_and_methods_are_kept_without_each_other() {
        __example(|session| {
            session.login("ada")?;
            for (acr, amr) in [(None, &["otp"][..]), (Some("aal2"), &[]), (None, &[])] {
                session.set_authentication_context(acr, amr)?;
                let authentication = session.authentication().unwrap();
                assert_eq!(authentication.acr.as_deref(), acr);
                assert_eq!(authentication.amr, amr);
            }
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn another_subject_and_a_cleared_session_have_no_authentication_of_before() {
        __example(|session| {
            session.login("ada")?;
            session.set_authentication_context(Some("aal3"), &["hwk"])?;
            session.login("bob")?;
            assert_eq!(session.authentication().unwrap().acr, None);
            session.clear()?;
            assert!(session.authentication().is_none() && !session.authenticated_within(Duration::MAX));
            assert!(session.reauthenticate().unwrap_err().is_not_logged_in());
            Ok(())
        })
        .unwrap();
    }
}
