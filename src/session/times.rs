//! When a session began, when it expires, and the time of its request.

use std::time::Duration;

use super::{Record, Session};
use crate::clock::Timestamp;

impl Session {
    /// Returns the time of this request by the store's [clock](crate::Clock), which [`remaining`](Self::remaining) and
    /// [`authenticated_within`](Self::authenticated_within) count from: for values that have a deadline of their own.
    ///
    /// # Examples
    ///
    /// ```
    /// use hyper_session::Timestamp;
    /// use std::time::Duration;
    ///
    /// # hyper_session::__example(|session| {
    /// session.set("code_sent_at", session.now().as_unix())?;
    /// let sent = session.get("code_sent_at")?.map(Timestamp::from_unix);
    /// assert!(sent.is_some_and(|sent| session.now().saturating_since(sent) <= Duration::from_secs(300)));
    /// # Ok(())
    /// # }).unwrap();
    /// ```
    #[doc(alias = "request_time")]
    pub fn now(&self) -> Timestamp {
        self.inner.circumstances.now
    }

    /// Returns when the stored session began: when it was created, or at its last [login](Self::login).
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "testing")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), hyper_session::Error> {
    /// use http::{Request, Response, header::COOKIE, header::SET_COOKIE};
    /// use hyper_session::testing::{self, FakeClock};
    /// use hyper_session::{AppKey, CookieStore, Timestamp};
    ///
    /// let store = CookieStore::builder(AppKey::generate()?).clock(FakeClock::at(1_900_000_000)).build()?;
    /// let request = testing::with_session(Request::new(()), &store, |session| {
    ///     session.login("ada")?;
    ///     assert_eq!(session.created_at(), None); // nothing is stored yet
    ///     Ok(())
    /// });
    /// let request = request.await?;
    /// let response = Response::builder().header(SET_COOKIE, &request.headers()[COOKIE]).body(()).unwrap();
    /// let session = testing::session_in(&response, &store).await?.expect("a session");
    /// assert_eq!(session.created_at(), Some(Timestamp::from_unix(1_900_000_000)));
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "testing"))]
    /// # fn main() {}
    /// ```
    pub fn created_at(&self) -> Option<Timestamp> {
        self.read_state().base().map(Record::created)
    }

    /// Returns the first moment at which the stored session has expired, if nothing renews it.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "testing")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), hyper_session::Error> {
    /// use http::{Request, Response, header::COOKIE, header::SET_COOKIE};
    /// use hyper_session::testing::{self, FakeClock};
    /// use hyper_session::{AppKey, CookieStore, Timestamp};
    /// use std::time::Duration;
    ///
    /// let store = CookieStore::builder(AppKey::generate()?)
    ///     .idle_timeout(Duration::from_secs(3600))
    ///     .clock(FakeClock::at(1_900_000_000))
    ///     .build()?;
    /// let request = testing::with_session(Request::new(()), &store, |session| {
    ///     session.login("ada")?;
    ///     assert_eq!(session.expires_at(), None); // nothing is stored yet
    ///     Ok(())
    /// });
    /// let request = request.await?;
    /// let response = Response::builder().header(SET_COOKIE, &request.headers()[COOKIE]).body(()).unwrap();
    /// let session = testing::session_in(&response, &store).await?.expect("a session");
    /// assert_eq!(session.expires_at(), Some(Timestamp::from_unix(1_900_003_600)));
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "testing"))]
    /// # fn main() {}
    /// ```
    #[doc(alias = "expiry_date")]
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.read_state().base().map(Record::expires)
    }

    /// Returns how long the stored session lasts, unless it is renewed, for a "you will be logged out" countdown. Returns
    /// `None` if no session was stored yet. It counts from the time of this request.
    ///
    /// A request that reads this may itself renew the session, as any request that reads it.
    ///
    /// # Examples
    ///
    /// ```
    /// # hyper_session::__example(|session| {
    /// session.set("user", "ada")?;
    /// assert_eq!(session.remaining(), None); // nothing is stored yet
    /// # Ok(())
    /// # }).unwrap();
    /// ```
    #[doc(alias = "expiry_age")]
    #[doc(alias = "ttl")]
    pub fn remaining(&self) -> Option<Duration> {
        self.expires_at().map(|expires| expires.saturating_since(self.inner.circumstances.now))
    }
}
