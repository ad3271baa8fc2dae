//! `Session`: reading and changing values, and what a session needs from the layer above.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::circumstances::Circumstances;
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

/// Saves a session at once, for [`Session::save`]. The layer above implements it, because a session does not know its
/// store.
pub(crate) trait Committer: Send + Sync {
    fn commit_now(
        self: Arc<Self>,
        session: Session,
    ) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

    /// Reports a value that did not decode and was read as absent, for [`Session::get_lenient`].
    fn unreadable(&self, id: Option<SessionId>, error: &Error);

    /// Returns the present moment, for a session that was loaded at `loaded`. It is never before that.
    fn now(&self, loaded: Timestamp) -> Timestamp;

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

    fn now(&self, _: Timestamp) -> Timestamp {
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

    /// Returns the value under `key`, or `None` if there is none or it is not a `T`. It is meant for values that can be lost,
    /// and whose type changed between releases. An [`EventKind::ValueUnreadable`](crate::EventKind::ValueUnreadable) reports it. The
    /// value stays until it is set or deleted.
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
        self.get_view(key.as_key(), "a string", Text::from_value)
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
        let bytes = |value: &Bytes| Some(value.slice_ref(messagepack::whole(messagepack::bin_bytes(value))?));
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
        self.read_state().get(key.as_key()).is_some()
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

    /// Returns true if the session holds nothing: no value, no flash value, no subject and no form token. A stored session that is
    /// empty when the response head is ready is destroyed.
    ///
    /// # Examples
    ///
    /// ```
    /// # hyper_session::__example(|session| {
    /// assert!(session.is_empty());
    /// session.login("ada")?;
    /// assert!(!session.is_empty());
    /// assert!(session.keys().is_empty());
    /// # Ok(())
    /// # }).unwrap();
    /// ```
    pub fn is_empty(&self) -> bool {
        self.read_state().is_empty()
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

    /// Deletes all values, flash values and the subject. Unless a value is set afterwards, the session is destroyed.
    ///
    /// If the session had a subject, or a [lifetime](Self::set_lifetime) of its own, values that are set afterwards begin a new
    /// session: that of a visitor, with a new id and token. The former one ends as by [`destroy`](Self::destroy). Otherwise the
    /// session goes on, with its id and its beginning. Labels stay in both cases.
    ///
    /// # Security
    ///
    /// For a logout, call [`destroy`](Self::destroy). It ends the session under a response for which changes [are
    /// discarded](crate::store::Builder::discard_changes_on), too, and if a concurrent request gave the session another token
    /// before this one loaded it. `clear` is a change, which is dropped then. If a concurrent request does so later, before this one
    /// is saved, the session under that token stays, after `destroy` and after `clear`. Only
    /// [revocations](crate::store::Builder::revocations) end it, too.
    ///
    /// # Errors
    ///
    /// [`is_head_sent`](Error::is_head_sent) if the response is on its way.
    ///
    /// # Examples
    ///
    /// ```
    /// # hyper_session::__example(|session| {
    /// session.login("ada")?;
    /// session.set("cart", ["tea"])?;
    /// session.clear()?;
    /// assert!(session.is_empty() && session.subject().is_none());
    /// # Ok(())
    /// # }).unwrap();
    /// ```
    pub fn clear(&self) -> Result<(), Error> {
        self.lock_open()?.clear();
        Ok(())
    }

    /// Returns the id of the stored session, or `None` if no session was stored yet.
    ///
    /// This is always an id that the store knows: by it, [`sessions_of`](crate::store::Store::sessions_of) names the session,
    /// and [`end_sessions_of`](crate::store::Store::end_sessions_of) keeps it. A session gets an id when it is first saved, and
    /// another id when a [`login`](Self::login), [`reauthenticate`](Self::reauthenticate) or [`regenerate`](Self::regenerate)
    /// is saved, or values that were set after a [`destroy`](Self::destroy), or after a [`clear`](Self::clear) of a subject's
    /// session or one with a lifetime of its own. Until then this returns the id from before, or `None`. If that save fails,
    /// the id from before stays. A handler that needs the new id calls [`save`](Self::save) first.
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
        self.read_state().base().map(Record::id)
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
        let value = self.read_state().get_encoded(full_key);
        value.map(|value| value_codec::decode(key, &value)).transpose()
    }

    /// Returns the undecoded value under `full_key`.
    pub(super) fn raw(&self, full_key: &str) -> Option<Bytes> {
        self.read_state().get_encoded(full_key).map(EncodedValue::into_bytes)
    }

    /// Returns the keys that have a value, including the reserved keys of this crate.
    pub(super) fn all_keys(&self) -> BTreeSet<String> {
        self.read_state().keys()
    }

    /// Returns the undecoded values of the application.
    pub(super) fn visible_entries(&self) -> Vec<(String, Bytes)> {
        let state = self.read_state();
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

    /// Works as [`lock`](Self::lock), to read only. Nothing is then to be dropped after unlocking.
    pub(super) fn read_state(&self) -> impl Deref<Target = State> {
        lock(&self.inner.state)
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
