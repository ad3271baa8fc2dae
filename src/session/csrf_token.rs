//! Tokens for forms, so that another site cannot submit them.

use std::sync::Arc;

use bytes::Bytes;

use super::key::CSRF_SECRETS;
use super::{Session, value_codec};
use crate::crypto::{SystemRandom, masked_secret};
use crate::error::{Error, Kind};

/// Stands in errors where a key would.
const NAME: &str = "the form secrets";

/// Two pages that are loaded at once draw a secret each, and both are kept. More than a browser loads at once are not.
const MAX_SECRETS: usize = 4;

impl Session {
    /// Returns a token for the forms of a page: put it into a hidden field, and check it with
    /// [`verify_csrf`](Self::verify_csrf) when the form comes back.
    ///
    /// Each call returns a different text of 43 characters (`A-Z a-z 0-9 - _`). The token is valid in this session, through
    /// renewals and regenerates, until the next [`login`](Self::login) or [`reauthenticate`](Self::reauthenticate).
    ///
    /// The first call stores a secret in the session. So a visitor who is shown a form gets a session. Set
    /// [`anonymous_timeouts`](crate::store::Builder::anonymous_timeouts) to keep those short.
    ///
    /// # Errors
    ///
    /// [`is_transient`](Error::is_transient) if the operating system gave no random bytes.
    /// [`is_head_sent`](Error::is_head_sent) if the session has no secret yet, and the response is on its way.
    ///
    /// # Security
    ///
    /// A second measure: the first one is [`CrossOriginProtection`](crate::CrossOriginProtection), which needs no token. A
    /// token also protects where a browser sends neither `Sec-Fetch-Site` nor `Origin`, and from pages of the same origin
    /// that can make requests but not read responses.
    ///
    /// # Examples
    ///
    /// ```
    /// use hyper_session::{Error, Session};
    ///
    /// fn form(session: &Session) -> Result<String, Error> {
    ///     let token = session.csrf_token()?;
    ///     Ok(format!("<form method=post><input type=hidden name=csrf value={token}> …"))
    /// }
    ///
    /// fn submitted(session: &Session, field: Option<&str>) -> Result<(), Error> {
    ///     session.verify_csrf(field.unwrap_or_default())?;
    ///     session.set("email", "ada@example.com")
    /// }
    ///
    /// # hyper_session::__example(|session| {
    /// let token = session.csrf_token()?;
    /// assert_ne!(token, session.csrf_token()?);
    /// submitted(session, Some(&token))?;
    /// assert!(submitted(session, None).unwrap_err().is_forgery());
    /// session.login("ada")?;
    /// assert!(submitted(session, Some(&token)).unwrap_err().is_forgery());
    /// # Ok(())
    /// # }).unwrap();
    /// ```
    #[doc(alias = "authenticity_token")]
    #[doc(alias = "xsrf")]
    pub fn csrf_token(&self) -> Result<String, Error> {
        if let Some(secret) = self.csrf_secrets().into_iter().next() {
            if let Some(token) = masked_secret::mask(&secret, &SystemRandom)? {
                // A page that reports a failed save has a form, too.
                if self.read_state().has_lost(CSRF_SECRETS) {
                    self.keep_csrf_secret(secret)?;
                }
                return Ok(token);
            }
        }
        let secret = masked_secret::generate(&SystemRandom)?;
        let token = masked_secret::mask(&secret, &SystemRandom)?;
        self.keep_csrf_secret(secret)?;
        token.ok_or_else(|| Error::new(Kind::Internal("a generated secret does not read back")))
    }

    fn keep_csrf_secret(&self, secret: String) -> Result<(), Error> {
        let mut state = self.lock_open()?;
        let value = add(state.get(CSRF_SECRETS), &secret)?;
        let keep = Arc::new(move |old: Option<&[u8]>| add(old, &secret).map(Some));
        state.update(CSRF_SECRETS, keep, value);
        Ok(())
    }

    /// Checks a token that a form brought back, in constant time.
    ///
    /// # Errors
    ///
    /// [`is_forgery`](Error::is_forgery) if [`csrf_token`](Self::csrf_token) of this session did not return it since the last
    /// login: answer with 403, or show the form again.
    ///
    /// # Examples
    ///
    /// See [`csrf_token`](Self::csrf_token).
    pub fn verify_csrf(&self, token: &str) -> Result<(), Error> {
        // Each one is looked at: the time does not tell which one fits.
        let fits = self
            .csrf_secrets()
            .iter()
            .fold(false, |fits, secret| fits | masked_secret::is_masked(token, secret));
        if fits { Ok(()) } else { Err(Error::new(Kind::Forgery)) }
    }

    fn csrf_secrets(&self) -> Vec<String> {
        self.raw(CSRF_SECRETS).map(|value| secrets(&value)).unwrap_or_default()
    }
}

/// Reads stored secrets. If they cannot be read, there are none, and their tokens are refused.
fn secrets(value: &[u8]) -> Vec<String> {
    value_codec::decode(NAME, value).unwrap_or_default()
}

/// Adds a secret to the secrets that other pages drew meanwhile.
fn add(old: Option<&[u8]>, secret: &str) -> Result<Bytes, Error> {
    let mut secrets = old.map(secrets).unwrap_or_default();
    if secrets.iter().all(|present| present != secret) {
        secrets.push(secret.to_owned());
    }
    let surplus = secrets.len().saturating_sub(MAX_SECRETS);
    secrets.drain(..surplus);
    value_codec::encode(NAME, &secrets)
}

#[cfg(test)]
mod tests {
    use super::super::__example;
    use super::*;

    #[test]
    fn a_token_belongs_to_its_session() {
        __example(|session| {
            assert!(session.verify_csrf("").unwrap_err().is_forgery());
            let token = session.csrf_token()?;
            assert!(
                session.keys().is_empty() && !session.is_empty(),
                "the secret is kept, and is not a value"
            );
            session.verify_csrf(&token)?;
            session.regenerate()?;
            session.verify_csrf(&token)?;
            __example(|other| {
                other.csrf_token()?;
                assert!(other.verify_csrf(&token).unwrap_err().is_forgery());
                Ok(())
            })?;
            session.clear()?;
            assert!(session.verify_csrf(&token).unwrap_err().is_forgery());
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn each_authentication_refuses_tokens_of_before() {
        __example(|session| {
            let mut before = session.csrf_token()?;
            for authenticate in [|session: &Session| session.login("ada"), Session::reauthenticate] {
                authenticate(session)?;
                assert!(session.verify_csrf(&before).unwrap_err().is_forgery());
                before = session.csrf_token()?;
                session.verify_csrf(&before)?;
            }
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn secrets_of_pages_loaded_at_once_are_kept_and_bounded() {
        let mut value = None;
        for secret in ["a", "b", "b", "c", "d", "e"] {
            value = Some(add(value.as_deref(), secret).unwrap());
        }
        assert_eq!(secrets(&value.unwrap()), ["b", "c", "d", "e"]);
        assert_eq!(secrets(b"\xa1x"), [""; 0]);
    }
}
