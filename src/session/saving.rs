//! Saving, discarding, regenerating and ending a session.

use super::Session;
use crate::error::{Error, Kind};

impl Session {
    /// Saves the session now instead of when the response head is ready, so that the handler can react to a failure.
    ///
    /// # Errors
    ///
    /// [`is_too_large`](Error::is_too_large) or [`is_transient`](Error::is_transient) if it cannot be saved. The stored session
    /// stays as it was, and the changes stay in this one. The handler decides what follows: its response is sent, and the
    /// changes are not saved with it. They are tried again if the handler calls `save` again, or changes one of the keys that
    /// it could not save: by deleting a value that was too large, for example. So they are if it calls [`login`](Self::login) after a
    /// `destroy` or `clear` that could not be saved. A change of another key, such as a flash value that reports the failure, is
    /// saved without them.
    /// [`is_ended`](Error::is_ended) if another request ended the session meanwhile, or its absolute timeout passed. Such a
    /// session cannot be saved again.
    /// [`is_head_sent`](Error::is_head_sent) if the response is on its way.
    ///
    /// # Security
    ///
    /// The client gets a new token with the response. A handler that regenerates, saves, and then returns an error other
    /// than an [`Error`] sends no token. On a server-side store the user is then logged out.
    ///
    /// # Examples
    ///
    /// ```
    /// use http::{Request, Response, StatusCode};
    /// use hyper::service::Service;
    /// use hyper_session::{AppKey, CookieStore, Error, SessionHandle, session_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Error> {
    /// let store = CookieStore::builder(AppKey::generate()?).build()?;
    /// let service = session_fn(store, |request: Request<String>, session: SessionHandle| async move {
    ///     let session = session.load().await?;
    ///     session.set("draft", request.body())?;
    ///     let status = match session.save().await {
    ///         Ok(()) => StatusCode::OK,
    ///         Err(error) if error.is_too_large() => StatusCode::PAYLOAD_TOO_LARGE,
    ///         Err(error) => return Err(error),
    ///     };
    ///     Ok(Response::builder().status(status).body(()).unwrap())
    /// });
    /// assert_eq!(service.call(Request::new("short".to_owned())).await?.status(), StatusCode::OK);
    /// let long = "a".repeat(100_000);
    /// assert_eq!(service.call(Request::new(long)).await?.status(), StatusCode::PAYLOAD_TOO_LARGE);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn save(&self) -> Result<(), Error> {
        let committer = self.inner.committer.upgrade().ok_or_else(|| Error::new(Kind::HeadSent))?;
        drop(self.lock_open()?);
        committer.commit_now(self.clone()).await
    }

    /// Drops all changes that were not saved: values, `regenerate`, `login` and `destroy`. The session is then as it was
    /// loaded, or last [saved](Self::save).
    ///
    /// For a handler that fails halfway and responds with a status for which changes [are
    /// saved](crate::store::Builder::discard_changes_on), such as a 4xx.
    ///
    /// # Errors
    ///
    /// [`is_head_sent`](Error::is_head_sent) if the response is on its way.
    ///
    /// # Security
    ///
    /// A logout that was not saved is dropped, too.
    ///
    /// # Examples
    ///
    /// ```
    /// # hyper_session::__example(|session| {
    /// session.set("step", 2)?;
    /// session.discard()?;
    /// assert!(session.is_empty());
    /// # Ok(())
    /// # }).unwrap();
    /// ```
    #[doc(alias = "rollback")]
    pub fn discard(&self) -> Result<(), Error> {
        let leftovers = self.lock_open()?.forget_changes();
        drop(leftovers);
        Ok(())
    }

    /// Gives the session a new id and a new token. Values and absolute deadline stay. (A [`login`](Self::login) also begins
    /// a new absolute timeout.) The old token is refused from then on by server-side stores and by cookie stores with
    /// [revocations](crate::store::Builder::revocations). A cookie store without revocations can only replace the cookie in
    /// this browser.
    ///
    /// Call it whenever the user gains or loses rights, above all at login. An id that an attacker planted before is
    /// worthless afterwards (session fixation).
    ///
    /// # Errors
    ///
    /// [`is_head_sent`](Error::is_head_sent) if the response is on its way.
    ///
    /// # Examples
    ///
    /// ```
    /// # hyper_session::__example(|session| {
    /// session.set("cart", "tea")?;
    /// session.regenerate()?; // an id that an attacker knows from before is worthless
    /// assert!(session.has("cart")); // the values stay
    /// # Ok(())
    /// # }).unwrap();
    /// ```
    #[doc(alias = "cycle_id")]
    #[doc(alias = "renew")]
    pub fn regenerate(&self) -> Result<(), Error> {
        self.lock_open()?.regenerate();
        Ok(())
    }

    /// Ends the session: deletes the stored one and removes the cookie. Values that are set afterwards begin a new session.
    ///
    /// A cookie session without revocations ends only in this browser: a copy of the cookie works until its deadline. If
    /// that matters, use a server-side store, or a cookie store with [revocations](crate::store::Builder::revocations),
    /// which refuses the copy.
    ///
    /// The session ends also if the response is a 5xx, or if the handler returns an [`Error`]. An error of another type reaches no
    /// session service as a response, and ends no session: a handler that may return one calls [`save`](Self::save) first.
    ///
    /// # Errors
    ///
    /// [`is_head_sent`](Error::is_head_sent) if the response is on its way.
    ///
    /// # Examples
    ///
    /// ```
    /// # hyper_session::__example(|session| {
    /// session.set("user", "ada")?;
    /// session.destroy()?;
    /// assert!(!session.has("user"));
    /// # Ok(())
    /// # }).unwrap();
    /// ```
    #[doc(alias = "flush")]
    #[doc(alias = "purge")]
    #[doc(alias = "logout")]
    pub fn destroy(&self) -> Result<(), Error> {
        self.lock_open()?.destroy();
        Ok(())
    }

    /// Ends all other sessions of this session's subject: "log out my other devices", at a change of password for example.
    /// Returns how many, or `None` if the store cannot count them. This session is saved first, and stays, under a new
    /// token if the handler asked for one.
    ///
    /// A [`CookieStore`](crate::CookieStore) does this with [revocations](crate::store::Builder::revocations): all sessions of
    /// the subject are revoked, and this one continues under a new token. It cannot count the others. If the response does
    /// not reach the browser, this session has ended, too.
    ///
    /// # Errors
    ///
    /// [`is_not_logged_in`](Error::is_not_logged_in) if the session has no subject. [`is_config`](Error::is_config) if the
    /// store can end no session but that of the request: a `CookieStore` without revocations, or a store that is shared with
    /// Astra. The errors of [`save`](Self::save), and [`is_unavailable`](Error::is_unavailable) if the store did not confirm
    /// the end of each: ask again. On a `CookieStore` this session may have ended, too, then. [`is_ended`](Error::is_ended) if
    /// another request ended this session at the same time.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is done, for example because the client disconnects, it is completed in the background. If
    /// that fails, [`EventKind::StoreFailed`](crate::EventKind::StoreFailed) reports it. A handler that dropped the future must not
    /// give the session another token after that (`regenerate`, `login`, `reauthenticate`): the work in the background may end the
    /// session with the new token, too.
    ///
    /// # Examples
    ///
    /// ```
    /// use hyper_session::{Error, Session};
    ///
    /// async fn password_changed(session: &Session) -> Result<Option<usize>, Error> {
    ///     session.reauthenticate()?;
    ///     session.end_other_sessions().await
    /// }
    /// # #[cfg(all(feature = "memory", feature = "testing"))]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Error> {
    /// # use http::{Request, Response};
    /// # use hyper::service::Service;
    /// # use hyper_session::{MemoryStore, SessionHandle, session_fn, testing};
    /// # let store = MemoryStore::builder().build()?;
    /// # let service = session_fn(store.clone(), |_: Request<()>, session: SessionHandle| async move {
    /// #     Ok::<_, Error>(Response::new(password_changed(&session.load().await?).await?))
    /// # });
    /// # let phone = testing::with_session(Request::new(()), &store, |session| session.login("ada")).await?;
    /// # let laptop = testing::with_session(Request::new(()), &store, |session| session.login("ada")).await?;
    /// # assert_eq!(*service.call(laptop).await?.body(), Some(1));
    /// # assert_eq!(service.call(phone).await?.status(), 500, "the phone is not logged in any more");
    /// # assert_eq!(store.sessions_of("ada").await?.len(), 1);
    /// # Ok(())
    /// # }
    /// # #[cfg(not(all(feature = "memory", feature = "testing")))]
    /// # fn main() {}
    /// ```
    #[doc(alias = "logout_others")]
    #[doc(alias = "session_auth_hash")]
    pub async fn end_other_sessions(&self) -> Result<Option<usize>, Error> {
        let committer = self.inner.committer.upgrade().ok_or_else(|| Error::new(Kind::HeadSent))?;
        drop(self.lock_open()?);
        committer.end_others(self.clone()).await
    }
}
