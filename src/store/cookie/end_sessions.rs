//! Ending cookie sessions outside of their requests: the option `revocations`, and the methods that need it.

use super::{CookieKeys, CookieStore};
use crate::error::Error;
use crate::revocation::Revocations;
use crate::session::{Position, SessionId};
use crate::store::Builder;

impl Builder<CookieKeys> {
    /// Sets where revocations are kept, so that a logout is final: a cookie that was copied before it is refused from
    /// then on. Default: none.
    ///
    /// If a user was logged in, [`destroy`](crate::Session::destroy), [`regenerate`](crate::Session::regenerate) and
    /// [`login`](crate::Session::login) then revoke the session or its old id. The response waits until that is
    /// durable. [`end_session`](CookieStore::end_session), [`end_sessions_of`](CookieStore::end_sessions_of),
    /// [`end_labelled`](CookieStore::end_labelled) and [`end_all`](CookieStore::end_all) end sessions outside of their
    /// requests.
    ///
    /// # Limits
    ///
    /// A token grows by 16 to 57 bytes, and by 18 bytes for each label. It cannot be combined with Astra's cookies.
    ///
    /// # Examples
    ///
    /// ```
    /// use http::{Request, Response};
    /// use hyper::service::Service;
    /// use hyper_session::{AppKey, CookieStore, Error, Revocations, SessionHandle, session_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Error> {
    /// let store = CookieStore::builder(AppKey::generate()?).revocations(Revocations::in_memory()).build()?;
    /// let service = session_fn(store, |request: Request<()>, session: SessionHandle| async move {
    ///     let session = session.load().await?;
    ///     match request.uri().path() {
    ///         "/login" => session.login("ada")?,
    ///         "/logout" => session.destroy()?,
    ///         _ => {}
    ///     }
    ///     Ok::<_, Error>(Response::new(session.subject().is_some()))
    /// });
    /// let login = service.call(Request::get("/login").body(()).unwrap()).await?;
    /// let copy = login.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap();
    /// let with_copy = |path| Request::get(path).header("cookie", copy).body(()).unwrap();
    /// assert!(service.call(with_copy("/")).await?.into_body());
    ///
    /// service.call(with_copy("/logout")).await?;
    /// assert!(!service.call(with_copy("/")).await?.into_body());
    /// # Ok(())
    /// # }
    /// ```
    pub fn revocations(mut self, revocations: Revocations) -> Self {
        self.kind.revocations = Some(revocations);
        self
    }
}

impl CookieStore {
    /// Returns the revocations of this store, or `None` if it was built without.
    pub fn revocations(&self) -> Option<&Revocations> {
        self.inner.revoking.as_ref().map(|revoking| &revoking.revocations)
    }

    /// Ends the session with this id. The id from its login also ends the ids that the session was given since.
    ///
    /// # Errors
    ///
    /// [`is_config`](Error::is_config) if the store was built without [`revocations`](Builder::revocations).
    /// [`is_unavailable`](Error::is_unavailable) if the log cannot be written to: the session may or may not have
    /// ended.
    ///
    /// # Examples
    ///
    /// ```
    /// use hyper_session::{AppKey, CookieStore, Revocations, SessionId};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), hyper_session::Error> {
    /// let store = CookieStore::builder(AppKey::generate()?).revocations(Revocations::in_memory()).build()?;
    /// let from_the_audit_log = "abababababababababababababababab";
    /// store.end_session(from_the_audit_log.parse()?).await?;
    ///
    /// let without = CookieStore::builder(AppKey::generate()?).build()?;
    /// assert!(without.end_all().await.unwrap_err().is_config());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn end_session(&self, id: SessionId) -> Result<(), Error> {
        self.revoking()?.end_session(id).await
    }

    /// Ends all sessions that [`login`](crate::Session::login) has bound to `subject` so far: "log out everywhere". A
    /// later login, also in the same request, begins a session that stays.
    ///
    /// Only a [`ServerStore`](crate::ServerStore) can list the sessions.
    ///
    /// # Errors
    ///
    /// The same as for [`end_session`](Self::end_session).
    ///
    /// # Examples
    ///
    /// A reset of a forgotten password ends every session, and begins one.
    /// [`Session::end_other_sessions`](crate::Session::end_other_sessions) keeps the session of the request.
    ///
    /// ```
    /// use http::{Request, Response};
    /// use hyper::service::Service;
    /// use hyper_session::{AppKey, CookieStore, Error, Revocations, Session, SessionHandle, session_fn};
    ///
    /// async fn password_was_reset(store: &CookieStore, session: &Session, user: &str) -> Result<(), Error> {
    ///     store.end_sessions_of(user).await?;
    ///     session.login(user)
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Error> {
    /// let store = CookieStore::builder(AppKey::generate()?).revocations(Revocations::in_memory()).build()?;
    /// let service = session_fn(store.clone(), move |request: Request<()>, session: SessionHandle| {
    ///     let store = store.clone();
    ///     async move {
    ///         let session = session.load().await?;
    ///         match request.uri().path() {
    ///             "/login" => session.login("ada")?,
    ///             "/reset" => password_was_reset(&store, &session, "ada").await?,
    ///             _ => {}
    ///         }
    ///         Ok::<_, Error>(Response::new(session.subject().is_some()))
    ///     }
    /// });
    /// # let cookie = |response: &Response<bool>| {
    /// #     response.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned()
    /// # };
    /// let before = cookie(&service.call(Request::get("/login").body(()).unwrap()).await?);
    /// let after = cookie(&service.call(Request::get("/reset").body(()).unwrap()).await?);
    /// let with = |cookie: &str| Request::get("/").header("cookie", cookie).body(()).unwrap();
    /// assert!(!service.call(with(&before)).await?.into_body());
    /// assert!(service.call(with(&after)).await?.into_body());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn end_sessions_of(&self, subject: &str) -> Result<(), Error> {
        self.revoking()?.end_sessions_of(subject).await
    }

    /// Ends all sessions with this [label](crate::Session::label) that have logged in so far.
    ///
    /// # Errors
    ///
    /// The same as for [`end_session`](Self::end_session), and [`is_value`](Error::is_value) if it cannot be a label.
    ///
    /// # Examples
    ///
    /// See the guide [`revocation`](crate::guide::revocation#labels-and-openid-connect).
    pub async fn end_labelled(&self, namespace: &str, value: &str) -> Result<(), Error> {
        self.revoking()?.end_labelled(namespace, value).await
    }

    /// Ends all sessions with this [label](crate::Session::label), also those of later logins. It is meant for values
    /// that are never used again, such as the `sid` of an OpenID Connect provider, whose logout may arrive before the
    /// browser returns with the login.
    ///
    /// # Errors
    ///
    /// The same as for [`end_labelled`](Self::end_labelled).
    pub async fn end_labelled_for_good(&self, namespace: &str, value: &str) -> Result<(), Error> {
        self.revoking()?.end_labelled_for_good(namespace, value).await
    }

    /// Ends all sessions that have begun so far.
    ///
    /// # Errors
    ///
    /// The same as for [`end_session`](Self::end_session).
    pub async fn end_all(&self) -> Result<(), Error> {
        self.revoking()?.end_all().await
    }

    /// Returns the present end of the log, for [`Session::login_at`](crate::Session::login_at). Ask for it before you
    /// check the password.
    ///
    /// # Errors
    ///
    /// The same as for [`end_session`](Self::end_session).
    pub async fn revocation_position(&self) -> Result<Position, Error> {
        self.revoking()?.position().await
    }

    pub(super) fn revoking(&self) -> Result<&Revocations, Error> {
        self.revocations().ok_or_else(|| {
            Error::config("this store keeps no revocations: call revocations() on its builder")
        })
    }
}
