//! `Session`: the values that a handler reads and changes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::encoded_value::EncodedValue;
use super::key::{RESERVED, check_key};
use super::locked::Locked;
use super::state::State;
use super::{AsKey, ReadKey, Record, SessionId, Text, WriteKey, messagepack, value_codec};
use crate::clock::Timestamp;
use crate::error::{Error, Kind};
use crate::lock::lock;

/// The session of one request.
///
/// Clones are handles of the same session, and may be used from several tasks. Loading a session is asynchronous. Reading
/// and writing it are synchronous. Changes are saved automatically when the head of the handler's response is ready. A
/// write after that returns an error and is never silently lost.
///
/// Keys are strings, or [`Key`](crate::Key)s that know the type of their value. Values are of any type that serde can
/// serialize. Keys that start with U+0001 are reserved. The guide [`values`](crate::guide::values) has an example of each kind of
/// reading and writing.
///
/// # Examples
///
/// ```
/// # hyper_session::__example(|session| {
/// session.set("user", "ada")?;
/// session.set("cart", vec![1, 2, 3])?;
/// assert_eq!(session.get_str("user")?.as_deref(), Some("ada"));
/// assert_eq!(session.get::<Vec<u32>>("cart")?, Some(vec![1, 2, 3]));
/// assert_eq!(session.update("visits", |old: Option<u64>| old.unwrap_or(0) + 1)?, 1);
/// session.delete("cart")?;
/// assert!(!session.has("cart"));
/// # Ok(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct Session {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) state: Mutex<State>,
    pub(super) circumstances: Circumstances,
    pub(super) committer: Weak<dyn Committer>,
}

/// The facts about its request that a session needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Circumstances {
    /// The time of the request.
    pub(crate) now: Timestamp,
    /// The browser loads the page ahead, and may never show the response to the user.
    pub(crate) speculative: bool,
    /// Flash values are stored among the other values, as in Astra.
    pub(crate) shared_flash: bool,
    /// The store keeps revocations, so that labels have an effect.
    pub(crate) revocable: bool,
    /// Whether the request comes from the device that its session is bound to.
    #[cfg_attr(not(feature = "device-bound"), allow(dead_code))]
    pub(crate) device: DeviceCheck,
}

/// The result of the check that a request comes from the device that its session is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "device-bound"), allow(dead_code))]
pub(crate) enum DeviceCheck {
    /// The store does not check it.
    Unchecked,
    /// It does, or the session is not bound.
    Passed,
    /// The session is bound, and nothing shows that the request comes from its device.
    Failed,
}

/// How often [`Session::update`] runs again because another clone of the handle changed the value.
const MAX_RERUNS: u32 = 64;

/// Saves a session at once, for [`Session::save`]. The layer above implements it, because a session does not know its
/// store.
pub(crate) trait Committer: Send + Sync {
    fn commit_now(
        self: Arc<Self>,
        session: Session,
    ) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

    /// Reports a value that did not decode and was read as absent, for [`Session::get_lenient`].
    fn unreadable(&self, id: Option<SessionId>, error: &Error);

    /// Ends the other sessions of the session's subject, for [`Session::end_other_sessions`].
    fn end_others(
        self: Arc<Self>,
        session: Session,
    ) -> Pin<Box<dyn Future<Output = Result<Option<usize>, Error>> + Send>>;
}

/// The committer of a session without a store. It has no values.
pub(super) enum NoCommitter {}

impl Committer for NoCommitter {
    fn commit_now(self: Arc<Self>, _: Session) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send>> {
        match *self {}
    }

    fn unreadable(&self, _: Option<SessionId>, _: &Error) {
        match *self {}
    }

    fn end_others(
        self: Arc<Self>,
        _: Session,
    ) -> Pin<Box<dyn Future<Output = Result<Option<usize>, Error>> + Send>> {
        match *self {}
    }
}

impl Session {
    /// Returns the value under `key`, or `None` if there is none. Only this value is decoded, at this call.
    ///
    /// # Errors
    ///
    /// [`is_value`](Error::is_value) if the value is not a `T`. The error names key, kind and type, not the value.
    ///
    /// # Examples
    ///
    /// ```
    /// # hyper_session::__example(|session| {
    /// session.set("cart", ["tea", "milk"])?;
    /// assert_eq!(session.get::<Vec<String>>("cart")?, Some(vec!["tea".to_owned(), "milk".to_owned()]));
    /// assert_eq!(session.get::<u64>("other")?, None);
    /// assert!(session.get::<u64>("cart").unwrap_err().is_value()); // another type is an error, not None
    /// # Ok(())
    /// # }).unwrap();
    /// ```
    #[doc(alias = "get_value")]
    pub fn get<T: DeserializeOwned>(&self, key: impl ReadKey<T>) -> Result<Option<T>, Error> {
        self.get_value(key.as_key(), key.as_key())
    }

    /// Returns the value under `key`, or `None` if there is none or it is not a `T`: for a value whose type changed between
    /// releases, and which is worth no error. An [`EventKind::ValueUnreadable`](crate::EventKind::ValueUnreadable) says that it
    /// happened. The value stays until it is set or deleted.
    ///
    /// # Examples
    ///
    /// ```
    /// # hyper_session::__example(|session| {
    /// session.set("theme", 3)?; // an older release stored a number
    /// assert_eq!(session.get_lenient::<String>("theme"), None);
    /// assert_eq!(session.get_lenient::<u8>("theme"), Some(3));
    /// # Ok(())
    /// # }).unwrap();
    /// ```
    #[doc(alias = "get_or_none")]
    pub fn get_lenient<T: DeserializeOwned>(&self, key: impl ReadKey<T>) -> Option<T> {
        self.get(key).unwrap_or_else(|error| {
            if let Some(committer) = self.inner.committer.upgrade() {
                committer.unreadable(self.id(), &error);
            }
            None
        })
    }

    /// Returns the string under `key`, as a view of the decoded session: nothing is copied.
    ///
    /// # Errors
    ///
    /// [`is_value`](Error::is_value) if the value is not a string.
    ///
    /// # Examples
    ///
    /// ```
    /// # hyper_session::__example(|session| {
    /// session.set("user", "ada")?;
    /// assert_eq!(session.get_str("user")?.as_deref(), Some("ada"));
    /// session.set("user", 7)?;
    /// assert!(session.get_str("user").is_err());
    /// # Ok(())
    /// # }).unwrap();
    /// ```
    pub fn get_str(&self, key: impl AsKey) -> Result<Option<Text>, Error> {
        let text = |value: &Bytes| Text::from_utf8(value.slice_ref(whole(messagepack::str_bytes(value))?));
        self.get_view(key.as_key(), "a string", text)
    }

    /// Returns the byte string under `key` as a view of the decoded session, without a copy. Byte strings are stored with
    /// `serde_bytes` or [`bytes::Bytes`], for example.
    ///
    /// # Errors
    ///
    /// [`is_value`](Error::is_value) if the value is not a byte string.
    ///
    /// # Examples
    ///
    /// ```
    /// # hyper_session::__example(|session| {
    /// session.set("token", bytes::Bytes::from_static(b"\x00\xff"))?;
    /// assert_eq!(session.get_bytes("token")?.as_deref(), Some(&b"\x00\xff"[..]));
    /// # Ok(())
    /// # }).unwrap();
    /// ```
    pub fn get_bytes(&self, key: impl AsKey) -> Result<Option<Bytes>, Error> {
        let bytes = |value: &Bytes| Some(value.slice_ref(whole(messagepack::bin_bytes(value))?));
        self.get_view(key.as_key(), "a byte string", bytes)
    }

    /// Returns the integer under `key`.
    ///
    /// # Errors
    ///
    /// [`is_value`](Error::is_value) if the value is not an integer, or does not fit into an `i64`.
    ///
    /// # Examples
    ///
    /// ```
    /// # hyper_session::__example(|session| {
    /// session.set("balance", -5)?;
    /// assert_eq!(session.get_i64("balance")?, Some(-5));
    /// session.set("balance", u64::MAX)?;
    /// assert!(session.get_i64("balance").is_err());
    /// # Ok(())
    /// # }).unwrap();
    /// ```
    pub fn get_i64(&self, key: impl AsKey) -> Result<Option<i64>, Error> {
        self.get(key.as_key())
    }

    /// Returns the boolean under `key`.
    ///
    /// # Errors
    ///
    /// [`is_value`](Error::is_value) if the value is not a boolean.
    ///
    /// # Examples
    ///
    /// ```
    /// # hyper_session::__example(|session| {
    /// session.set("dark", true)?;
    /// assert_eq!(session.get_bool("dark")?, Some(true));
    /// # Ok(())
    /// # }).unwrap();
    /// ```
    pub fn get_bool(&self, key: impl AsKey) -> Result<Option<bool>, Error> {
        self.get(key.as_key())
    }

    /// Returns true if there is a value under `key`.
    ///
    /// # Examples
    ///
    /// ```
    /// # hyper_session::__example(|session| {
    /// session.set("user", "ada")?;
    /// assert!(session.has("user") && !session.has("cart"));
    /// # Ok(())
    /// # }).unwrap();
    /// ```
    #[doc(alias = "contains")]
    #[doc(alias = "contains_key")]
    pub fn has(&self, key: impl AsKey) -> bool {
        self.lock().get(key.as_key()).is_some()
    }

    /// Returns the keys that have a value, in order. Keys of flash values are not included.
    ///
    /// # Examples
    ///
    /// ```
    /// # hyper_session::__example(|session| {
    /// session.set("b", 1)?;
    /// session.set("a", 2)?;
    /// session.set_flash("notice", "hello")?;
    /// assert_eq!(session.keys(), ["a", "b"]);
    /// # Ok(())
    /// # }).unwrap();
    /// ```
    #[doc(alias = "entries")]
    pub fn keys(&self) -> Vec<String> {
        self.all_keys().into_iter().filter(|key| !key.starts_with(RESERVED)).collect()
    }

    /// Returns true if there is neither a value nor a flash value. If such a session is stored, it is destroyed.
    ///
    /// # Examples
    ///
    /// ```
    /// # hyper_session::__example(|session| {
    /// assert!(session.is_empty());
    /// session.set_flash("notice", "hello")?;
    /// assert!(!session.is_empty());
    /// # Ok(())
    /// # }).unwrap();
    /// ```
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Stores `value` under `key`. A value that is equal to the present one is not a change. The order of entries in a map
    /// does not matter. The order of lists does, and a `HashSet` has another order each time: use a `BTreeSet`.
    ///
    /// Do not store data that the server should not keep: passwords, card numbers, whole requests.
    ///
    /// # Errors
    ///
    /// [`is_value`](Error::is_value) if the value does not serialize, nests deeper than 64 levels or `key` is reserved;
    /// [`is_head_sent`](Error::is_head_sent) if the response is on its way. On an error, nothing is changed.
    ///
    /// # Examples
    ///
    /// ```
    /// # hyper_session::__example(|session| {
    /// #[derive(serde::Serialize)]
    /// struct Cart {
    ///     items: Vec<u32>,
    /// }
    /// session.set("cart", Cart { items: vec![1, 2] })?;
    /// assert!(session.set("\u{1}mine", 1).unwrap_err().is_value()); // reserved
    /// # Ok(())
    /// # }).unwrap();
    /// ```
    #[doc(alias = "insert")]
    #[doc(alias = "insert_value")]
    pub fn set<V: Serialize>(&self, key: impl WriteKey<V>, value: V) -> Result<(), Error> {
        let key = key.as_key();
        check_key(key)?;
        self.put_value(key, key, &value)
    }

    /// Deletes the value under `key`. Returns true if there was one.
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
    /// assert!(session.delete("user")?);
    /// assert!(!session.delete("user")?);
    /// # Ok(())
    /// # }).unwrap();
    /// ```
    #[doc(alias = "remove")]
    pub fn delete(&self, key: impl AsKey) -> Result<bool, Error> {
        check_key(key.as_key())?;
        self.delete_value(key.as_key())
    }

    /// Deletes the value under `key` and returns it, or returns `None` if there is none.
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
    /// session.set("return_to", "/cart")?;
    /// assert_eq!(session.take::<String>("return_to")?.as_deref(), Some("/cart"));
    /// assert!(!session.has("return_to"));
    /// # Ok(())
    /// # }).unwrap();
    /// ```
    #[doc(alias = "remove")]
    #[doc(alias = "remove_as")]
    #[doc(alias = "remove_value")]
    pub fn take<T: DeserializeOwned>(&self, key: impl ReadKey<T>) -> Result<Option<T>, Error> {
        let key = key.as_key();
        check_key(key)?;
        drop(self.lock_open()?);
        let value = self.get_value(key, key)?;
        if value.is_some() {
            self.delete_value(key)?;
        }
        Ok(value)
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

    /// Deletes all values and flash values. Unless a value is set afterwards, the session is destroyed.
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
    /// session.clear()?;
    /// assert!(session.is_empty());
    /// # Ok(())
    /// # }).unwrap();
    /// ```
    pub fn clear(&self) -> Result<(), Error> {
        self.lock_open()?.clear();
        Ok(())
    }

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

    /// Returns the id of the stored session, or `None` if no session was stored yet.
    ///
    /// This is always an id that the store knows: by it, [`sessions_of`](crate::store::Store::sessions_of) names the session, and
    /// [`end_sessions_of`](crate::store::Store::end_sessions_of) keeps it. A session gets an id when it is first saved, and
    /// another id when a [`login`](Self::login), [`reauthenticate`](Self::reauthenticate) or [`regenerate`](Self::regenerate)
    /// is saved. Until then this returns the id from before, or `None`. If that save fails, the id from before stays. A
    /// handler that needs the new id calls [`save`](Self::save) first.
    ///
    /// # Examples
    ///
    /// ```
    /// use hyper_session::{Error, Session};
    ///
    /// async fn log_in(session: &Session, user: &str) -> Result<(), Error> {
    ///     session.login(user)?;
    ///     session.save().await?;
    ///     println!("{user} logged in, session {}", session.id().map(|id| id.to_string()).unwrap_or_default());
    ///     Ok(())
    /// }
    /// # hyper_session::__example(|session| {
    /// session.login("ada")?;
    /// assert_eq!(session.id(), None); // nothing is stored yet
    /// # Ok(())
    /// # }).unwrap();
    /// ```
    pub fn id(&self) -> Option<SessionId> {
        self.lock().base().map(Record::id)
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
        self.lock().base().map(Record::created)
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
        self.lock().base().map(Record::expires)
    }

    /// Returns how long the stored session lasts, unless it is renewed, for a "you will be logged out" countdown. Returns
    /// `None` if no session was stored yet. Counted from the time of this request.
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

    /// Saves the session now instead of when the response head is ready, so that the handler can react to a failure.
    ///
    /// # Errors
    ///
    /// [`is_too_large`](Error::is_too_large) or [`is_transient`](Error::is_transient) if it cannot be saved. The stored session
    /// stays as it was, and the changes stay in this one. The handler decides what follows: its response is sent, and the
    /// changes are not saved with it. They are tried again if the handler calls `save` again, or changes one of the keys that
    /// it could not save: by deleting a value that was too large, for example. A change of another key, such as a flash value
    /// that reports the failure, is saved without them.
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
    /// # #[cfg(feature = "memory")]
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
    /// # #[cfg(not(feature = "memory"))]
    /// # fn main() {}
    /// ```
    #[doc(alias = "logout_others")]
    #[doc(alias = "session_auth_hash")]
    pub async fn end_other_sessions(&self) -> Result<Option<usize>, Error> {
        let committer = self.inner.committer.upgrade().ok_or_else(|| Error::new(Kind::HeadSent))?;
        drop(self.lock_open()?);
        committer.end_others(self.clone()).await
    }

    pub(super) fn put_value<T: Serialize>(&self, full_key: &str, key: &str, value: &T) -> Result<(), Error> {
        let value = value_codec::encode(key, value)?;
        self.lock_open()?.put(full_key, Some(value));
        Ok(())
    }

    pub(super) fn get_value<T: DeserializeOwned>(
        &self,
        full_key: &str,
        key: &str,
    ) -> Result<Option<T>, Error> {
        let value = self.lock().get_encoded(full_key);
        value.map(|value| value_codec::decode(key, &value)).transpose()
    }

    /// Returns the undecoded value under `full_key`.
    pub(super) fn raw(&self, full_key: &str) -> Option<Bytes> {
        self.lock().get_encoded(full_key).map(EncodedValue::into_bytes)
    }

    /// Returns the keys that have a value, including the reserved keys of this crate.
    pub(super) fn all_keys(&self) -> BTreeSet<String> {
        self.lock().keys()
    }

    /// Returns the undecoded values of the application.
    pub(super) fn visible_entries(&self) -> Vec<(String, Bytes)> {
        let state = self.lock();
        let keys = state.keys().into_iter().filter(|key| !key.starts_with(RESERVED));
        keys.filter_map(|key| state.get_encoded(&key).map(|value| (key, value.into_bytes()))).collect()
    }

    /// Sets or deletes these values: all of them, or none if the head was sent.
    pub(super) fn put_all(&self, values: BTreeMap<&str, Option<Bytes>>) -> Result<(), Error> {
        let mut state = self.lock_open()?;
        for (key, value) in values {
            state.put(key, value);
        }
        Ok(())
    }

    pub(super) fn is_speculative(&self) -> bool {
        self.inner.circumstances.speculative
    }

    pub(super) fn delete_value(&self, full_key: &str) -> Result<bool, Error> {
        let mut state = self.lock_open()?;
        let present = state.get(full_key).is_some();
        state.put(full_key, None);
        Ok(present)
    }

    fn get_view<V>(
        &self,
        key: &str,
        what: &'static str,
        view: impl Fn(&Bytes) -> Option<V>,
    ) -> Result<Option<V>, Error> {
        let value = self.raw(key);
        value.map(|value| view(&value).ok_or_else(|| value_codec::mismatch(key, &value, what))).transpose()
    }

    /// Locks the state. No code of the application runs under this lock, so a panic cannot leave a state half changed, and
    /// poisoning is ignored.
    pub(super) fn lock(&self) -> Locked<'_> {
        Locked::new(lock(&self.inner.state))
    }

    pub(super) fn lock_open(&self) -> Result<Locked<'_>, Error> {
        let state = self.lock();
        if state.is_closed() { Err(Error::new(Kind::HeadSent)) } else { Ok(state) }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// Returns the value if nothing follows it.
fn whole<'a>(parsed: Option<(&'a [u8], &'a [u8])>) -> Option<&'a [u8]> {
    match parsed {
        Some((value, [])) => Some(value),
        _ => None,
    }
}
