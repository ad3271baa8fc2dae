//! The subject of a session: the user that it was bound to at the login.

use super::key::SUBJECT;
use super::state::State;
use super::{Payload, Position, Session, Text, value_codec};
use crate::error::{Error, Kind};

/// User ids are rarely longer than a UUID or an e-mail address. The limit keeps an attacker from filling a session list.
const MAX_SUBJECT: usize = 512;

impl Session {
    /// Records the user and gives the session a new id and token. `subject` is the application's own name of the user.
    ///
    /// The absolute timeout begins at the login, and again at each later login (reauthentication).
    ///
    /// "Remember me", a login in two steps, and lists of devices are in the guide [`logins`](crate::guide::logins).
    ///
    /// The values of an anonymous session stay. If the session belongs to another subject, it is ended, and a new session
    /// without values begins. So it does on a server-side store if another request ended the session meanwhile, or gave it another token.
    ///
    /// On a server-side store the session is then in the [session list of its subject](crate::ServerStore::sessions_of),
    /// from which it can be ended elsewhere. A [`CookieStore`](crate::CookieStore) has no session lists. With
    /// [revocations](crate::store::Builder::revocations) it can [end the sessions of a
    /// subject](crate::CookieStore::end_sessions_of).
    ///
    /// # Errors
    ///
    /// [`is_value`](Error::is_value) if `subject` is empty or longer than 512 bytes. [`is_head_sent`](Error::is_head_sent)
    /// if the response is on its way.
    ///
    /// # Security
    ///
    /// Call it on every login, and again whenever the user gains privileges. The token from before is worthless afterwards,
    /// so an attacker gains nothing by planting one in a browser (session fixation).
    ///
    /// # Examples
    ///
    /// ```
    /// # hyper_session::__example(|session| {
    /// session.login("user-42")?;
    /// assert_eq!(session.subject().as_deref(), Some("user-42"));
    /// # Ok(())
    /// # }).unwrap();
    /// ```
    pub fn login(&self, subject: &str) -> Result<(), Error> {
        self.bind(subject, None)
    }

    /// Works as [`login`](Self::login), at a [`Position`] in the log of revocations. The handler gets the position from
    /// [`CookieStore::revocation_position`](crate::CookieStore::revocation_position) before it checks the password.
    ///
    /// A revocation ends the sessions whose login is before it. `login` reads the position when the session is saved. If a
    /// user changes the password and ends all sessions between the check of the old password and this save, a session with
    /// the old password survives. With the position from before the check, it does not.
    ///
    /// A store without revocations ignores the position.
    ///
    /// # Errors
    ///
    /// The same as [`login`](Self::login).
    ///
    /// # Examples
    ///
    /// ```
    /// use hyper_session::{CookieStore, Error, Session};
    ///
    /// async fn log_in(store: &CookieStore, session: &Session, user: &str, password: &str) -> Result<bool, Error> {
    ///     let position = store.revocation_position().await?;
    ///     if !password_matches(user, password).await {
    ///         return Ok(false);
    ///     }
    ///     session.login_at(user, position)?;
    ///     Ok(true)
    /// }
    /// # async fn password_matches(_: &str, _: &str) -> bool { true }
    /// # use hyper_session::{AppKey, Revocations};
    /// # let store = CookieStore::builder(AppKey::generate().unwrap()).revocations(Revocations::in_memory()).build().unwrap();
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    /// # hyper_session::__example(|session| {
    /// #     assert!(runtime.block_on(log_in(&store, session, "ada", "secret"))?);
    /// #     assert_eq!(session.subject().as_deref(), Some("ada"));
    /// #     Ok(())
    /// # }).unwrap();
    /// ```
    pub fn login_at(&self, subject: &str, position: Position) -> Result<(), Error> {
        self.bind(subject, Some(position))
    }

    fn bind(&self, subject: &str, position: Option<Position>) -> Result<(), Error> {
        if subject.is_empty() || subject.len() > MAX_SUBJECT {
            return Err(Error::new(Kind::Subject));
        }
        let value = value_codec::encode("the subject", &subject)?;
        let stamp = self.authentication_stamp()?;
        // In one step: a save of another task in between would store whose it is under the id from before.
        let mut state = self.lock_open()?;
        state.login(value, position)?;
        state.authenticated(stamp);
        Ok(())
    }

    /// Returns the subject that [`login`](Self::login) last bound the session to, or `None`. [`clear`](Self::clear) deletes
    /// it.
    ///
    /// # Examples
    ///
    /// ```
    /// # hyper_session::__example(|session| {
    /// assert_eq!(session.subject(), None);
    /// session.login("ada")?;
    /// assert_eq!(session.subject().as_deref(), Some("ada"));
    /// # Ok(())
    /// # }).unwrap();
    /// ```
    pub fn subject(&self) -> Option<Text> {
        Text::from_value(&self.raw(SUBJECT)?)
    }
}

impl State {
    /// Returns true if the session is bound to a subject.
    pub(super) fn has_subject(&self) -> bool {
        self.get(SUBJECT).is_some()
    }
}

impl Payload {
    /// Returns true if there is a subject.
    pub(crate) fn has_subject(&self) -> bool {
        self.find_reserved(SUBJECT).is_some()
    }

    /// Returns the subject, for a store's session list.
    pub(crate) fn subject(&self) -> Option<String> {
        Text::from_value(&self.get(SUBJECT)?).map(|subject| subject.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::super::__example;
    use super::super::key::RESERVED;
    use super::*;

    #[test]
    fn t35_another_subject_gets_nothing_of_the_one_before() {
        __example(|session| {
            session.set("cart", 3)?;
            session.login("ada")?;
            assert_eq!(session.get::<u8>("cart")?, Some(3)); // anonymous before, and the same person
            session.set("address", "12 St James's Square")?;
            session.login("ada")?;
            assert!(session.has("address"));
            session.login("bob")?;
            assert_eq!(session.subject().as_deref(), Some("bob"));
            assert!(!session.has("address") && !session.has("cart"));
            Ok(())
        })
        .unwrap();
    }

    // T36: every session with a subject has a subject of at least one byte.
    #[test]
    fn t36_subjects_are_not_empty_nor_endless() {
        __example(|session| {
            assert!(session.login("").unwrap_err().is_value());
            assert!(session.login(&"x".repeat(513)).unwrap_err().is_value());
            session.login(&"x".repeat(512))?;
            session.clear()?;
            assert_eq!(session.subject(), None);
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn the_subject_is_no_value() {
        __example(|session| {
            session.login("ada")?;
            assert!(session.keys().is_empty() && !session.is_empty());
            assert!(SUBJECT.starts_with(RESERVED));
            assert!(session.set(SUBJECT, "mallory").unwrap_err().is_value());
            assert_eq!(session.subject().as_deref(), Some("ada"));
            Ok(())
        })
        .unwrap();
    }
}
