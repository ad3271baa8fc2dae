//! `Session`: the handle that a handler holds.

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::changes::{Changes, Lookup};
use super::flash::RESERVED;
use super::outcome::{Commit, Disposition, Facts};
use super::{Record, SessionId, Text, values, wire};
use crate::clock::Timestamp;
use crate::error::{Error, Kind};
use crate::event::DropReason;

/// The session of one request.
///
/// A handle: clones are the same session, and may be used from several tasks. After the one `await` that loads it, reading
/// and writing are synchronous. What was changed is saved by itself when the handler's response head is ready; writes
/// after that are errors, never silently lost.
///
/// Keys are strings, values whatever serde can write. Keys that start with U+0001 are reserved.
///
/// # Examples
///
/// ```
/// # use hyper_session::{Error, Session};
/// # fn handler(session: &Session) -> Result<(), Error> {
/// session.set("user", "ada")?;
/// session.set("cart", vec![1, 2, 3])?;
/// assert_eq!(session.get_str("user")?.as_deref(), Some("ada"));
/// assert_eq!(session.get::<Vec<u32>>("cart")?, Some(vec![1, 2, 3]));
/// assert_eq!(session.update("visits", |old: Option<u64>| old.unwrap_or(0) + 1)?, 1);
/// session.delete("cart")?;
/// assert!(!session.has("cart"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Session {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    committer: Weak<dyn Committer>,
}

/// Saves a session now, for [`Session::save`]. The layer above implements it: a session knows no store.
pub(crate) trait Committer: Send + Sync {
    fn commit_now(
        self: Arc<Self>,
        session: Session,
    ) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;
}

#[allow(clippy::struct_excessive_bools)] // independent facts, not one state in disguise
struct State {
    /// What the store holds.
    base: Option<Record>,
    /// Changes that are being saved right now.
    pending: Option<Arc<Changes>>,
    /// Changes since.
    changes: Changes,
    regenerate: bool,
    destroyed: bool,
    renewal_due: bool,
    /// Ended by another request: nothing brings it back.
    ended: bool,
    /// The response head is out: reads go on, writes fail.
    closed: bool,
    reply: Reply,
}

/// What the response will tell the client about its cookie.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Nothing,
    Set { token: Bytes, lifetime: Duration },
    Remove,
}

/// How a commit ended.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // moved once, and a box would cost more than the move
pub(crate) enum Committed {
    Kept,
    Stored {
        record: Record,
        token: Bytes,
        lifetime: Duration,
    },
    Removed,
    Ended,
}

impl Session {
    /// A session on what was loaded: `base`, or nothing.
    pub(crate) fn new(
        base: Option<Record>,
        renewal_due: bool,
        reply: Reply,
        committer: Weak<dyn Committer>,
    ) -> Self {
        let state = State {
            base,
            pending: None,
            changes: Changes::default(),
            regenerate: false,
            destroyed: false,
            renewal_due,
            ended: false,
            closed: false,
            reply,
        };
        Self {
            inner: Arc::new(Inner {
                state: Mutex::new(state),
                committer,
            }),
        }
    }

    /// The value under `key`, or `None` if there is none. Decoded at this call, this value alone.
    ///
    /// # Errors
    ///
    /// [`is_value`](Error::is_value) if the value is no `T`. The error names key, kind and type, not the value.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        self.get_value(key, key)
    }

    /// The string under `key`, as a view of the decoded session: nothing is copied.
    ///
    /// # Errors
    ///
    /// [`is_value`](Error::is_value) if the value is no string.
    pub fn get_str(&self, key: &str) -> Result<Option<Text>, Error> {
        let text = |value: &Bytes| Text::from_utf8(value.slice_ref(whole(wire::str_bytes(value))?));
        self.view(key, "a string", text)
    }

    /// The byte string under `key` (stored as such, with `serde_bytes` or [`bytes::Bytes`] for example), as a view of the
    /// decoded session: nothing is copied.
    ///
    /// # Errors
    ///
    /// [`is_value`](Error::is_value) if the value is no byte string.
    pub fn get_bytes(&self, key: &str) -> Result<Option<Bytes>, Error> {
        self.view(key, "a byte string", |value| {
            Some(value.slice_ref(whole(wire::bin_bytes(value))?))
        })
    }

    /// The integer under `key`.
    ///
    /// # Errors
    ///
    /// [`is_value`](Error::is_value) if the value is no integer, or none that fits.
    pub fn get_i64(&self, key: &str) -> Result<Option<i64>, Error> {
        self.get(key)
    }

    /// The boolean under `key`.
    ///
    /// # Errors
    ///
    /// [`is_value`](Error::is_value) if the value is no boolean.
    pub fn get_bool(&self, key: &str) -> Result<Option<bool>, Error> {
        self.get(key)
    }

    /// True if there is a value under `key`.
    pub fn has(&self, key: &str) -> bool {
        self.lock().get(key).is_some()
    }

    /// The keys that have a value, in order. Flash values are not among them.
    pub fn keys(&self) -> Vec<String> {
        self.lock()
            .keys()
            .into_iter()
            .filter(|key| !key.starts_with(RESERVED))
            .collect()
    }

    /// True if there is neither a value nor a flash value. Such a session is not stored, or will be destroyed.
    pub fn is_empty(&self) -> bool {
        self.lock().keys().is_empty()
    }

    /// Stores `value` under `key`. A value equal to the present one is no change.
    ///
    /// Do not store what the server should not hand out and keep: passwords, card numbers, whole requests.
    ///
    /// # Errors
    ///
    /// [`is_value`](Error::is_value) if the value does not serialize, nests deeper than 64 levels or `key` is reserved;
    /// [`is_head_sent`](Error::is_head_sent) if the response is on its way. Nothing is changed then.
    pub fn set<T: Serialize>(&self, key: &str, value: T) -> Result<(), Error> {
        check_key(key)?;
        self.put_value(key, key, &value)
    }

    /// Removes the value under `key`; true if there was one.
    ///
    /// # Errors
    ///
    /// [`is_head_sent`](Error::is_head_sent) if the response is on its way.
    pub fn delete(&self, key: &str) -> Result<bool, Error> {
        check_key(key)?;
        self.delete_value(key)
    }

    /// Removes all values and flash values. Unless something is set afterwards, the session is destroyed.
    ///
    /// # Errors
    ///
    /// [`is_head_sent`](Error::is_head_sent) if the response is on its way.
    pub fn clear(&self) -> Result<(), Error> {
        let mut state = self.lock_open()?;
        if !state.keys().is_empty() {
            state.changes.clear();
        }
        Ok(())
    }

    /// Replaces the value under `key` by `change(old value)` and returns the new one.
    ///
    /// On a server-side store, `change` runs again on the newer value if another request came first: a counter never loses
    /// an increment. So it must depend on its argument alone. Use [`save`](Self::save) and [`get`](Self::get) where the
    /// response must show the final value.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get) and [`set`](Self::set).
    pub fn update<T, F>(&self, key: &str, change: F) -> Result<T, Error>
    where
        T: Serialize + DeserializeOwned,
        F: Fn(Option<T>) -> T + Send + Sync + 'static,
    {
        check_key(key)?;
        let owned_key = key.to_owned();
        let change = Arc::new(move |old: Option<&[u8]>| {
            let old = old.map(|old| values::decode(&owned_key, old)).transpose()?;
            let new = change(old);
            values::encode(&owned_key, &new).map(|bytes| (new, bytes))
        });
        // `change` is the application's and may use this session: it runs without the lock, and again if another clone
        // of the handle changed the value meanwhile.
        loop {
            let old = self.lock_open()?.get(key);
            let (new, bytes) = change(old.as_deref())?;
            let mut state = self.lock_open()?;
            if state.get(key) == old {
                let step = Arc::clone(&change);
                let below = state.below(key);
                let step = Arc::new(move |old: Option<&[u8]>| step(old).map(|(_, bytes)| bytes));
                state.changes.update(key, step, bytes, below.as_ref());
                return Ok(new);
            }
        }
    }

    /// The id of the stored session; `None` until something was stored.
    ///
    /// A new session has an id after it was saved, and another one after it was regenerated: [`save`](Self::save) first if
    /// the handler needs to know it.
    pub fn id(&self) -> Option<SessionId> {
        self.lock().base.as_ref().map(Record::id)
    }

    /// When the stored session began.
    pub fn created_at(&self) -> Option<Timestamp> {
        self.lock().base.as_ref().map(Record::created)
    }

    /// The first moment at which the stored session is over, if nothing renews it.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.lock().base.as_ref().map(Record::expires)
    }

    /// Gives the session a new id and a new token; values and absolute deadline stay. The old token is refused from then
    /// on by server-side stores; a cookie store can only replace it in this browser.
    ///
    /// Call it whenever the user gains or loses rights, above all at login: an id that was planted before is worthless
    /// afterwards (session fixation).
    ///
    /// # Errors
    ///
    /// [`is_head_sent`](Error::is_head_sent) if the response is on its way.
    pub fn regenerate(&self) -> Result<(), Error> {
        self.lock_open()?.regenerate = true;
        Ok(())
    }

    /// Ends the session: the stored one is deleted, the cookie removed. What is set afterwards begins a new session.
    ///
    /// A session that lives in a cookie alone ends in this browser; a copy of the cookie made before works until its
    /// deadline. Where that matters, use a server-side store.
    ///
    /// # Errors
    ///
    /// [`is_head_sent`](Error::is_head_sent) if the response is on its way.
    pub fn destroy(&self) -> Result<(), Error> {
        let mut state = self.lock_open()?;
        state.changes.restart();
        state.destroyed = true;
        state.regenerate = false;
        Ok(())
    }

    /// Saves now what is otherwise saved when the response head is ready, so that the handler can act on a failure.
    ///
    /// # Errors
    ///
    /// [`is_too_large`](Error::is_too_large), [`is_unavailable`](Error::is_unavailable), [`is_conflict`](Error::is_conflict)
    /// or [`is_random`](Error::is_random) if it cannot be saved: what is stored stays as it was, the changes stay in the
    /// session. [`is_head_sent`](Error::is_head_sent) if the response is on its way.
    pub async fn save(&self) -> Result<(), Error> {
        let committer = self
            .inner
            .committer
            .upgrade()
            .ok_or_else(|| Error::new(Kind::HeadSent))?;
        drop(self.lock_open()?);
        committer.commit_now(self.clone()).await
    }

    pub(super) fn put_value<T: Serialize>(&self, full_key: &str, key: &str, value: &T) -> Result<(), Error> {
        let value = values::encode(key, value)?;
        let mut state = self.lock_open()?;
        let below = state.below(full_key);
        state.changes.put(full_key, Some(value), below.as_ref());
        Ok(())
    }

    pub(super) fn get_value<T: DeserializeOwned>(
        &self,
        full_key: &str,
        key: &str,
    ) -> Result<Option<T>, Error> {
        let value = self.lock().get(full_key);
        value.map(|value| values::decode(key, &value)).transpose()
    }

    pub(super) fn delete_value(&self, full_key: &str) -> Result<bool, Error> {
        let mut state = self.lock_open()?;
        let present = state.get(full_key).is_some();
        let below = state.below(full_key);
        state.changes.put(full_key, None, below.as_ref());
        Ok(present)
    }

    fn view<V>(
        &self,
        key: &str,
        what: &'static str,
        view: impl Fn(&Bytes) -> Option<V>,
    ) -> Result<Option<V>, Error> {
        let value = self.lock().get(key);
        value
            .map(|value| view(&value).ok_or_else(|| values::mismatch(key, &value, what)))
            .transpose()
    }

    /// No code of an application runs under this lock, so a panic cannot leave a state half changed: poisoning says
    /// nothing here.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_open(&self) -> Result<MutexGuard<'_, State>, Error> {
        let state = self.lock();
        if state.closed {
            Err(Error::new(Kind::HeadSent))
        } else {
            Ok(state)
        }
    }
}

/// What the layer above needs to load and commit a session.
impl Session {
    /// From now on the session can be read alone.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
    }

    /// Decides what is to be done, and hands out what doing it needs. [`end_commit`](Self::end_commit) must follow.
    pub(crate) fn begin_commit(&self, answer: Disposition) -> Commit {
        let mut state = self.lock();
        let state = &mut *state;
        let modified = !state.changes.is_empty();
        let facts = Facts {
            stored: state.base.is_some(),
            changed: modified && !state.ended,
            empty: modified && state.keys().is_empty(),
            regenerate: state.regenerate,
            destroyed: state.destroyed,
            renewal_due: state.renewal_due,
        };
        let outcome = facts.decide(answer);
        let dropped = match answer {
            _ if !modified || state.destroyed && state.changes.keys().next().is_none() => None,
            _ if state.ended => Some(DropReason::SessionEnded),
            Disposition::Accept => None,
            Disposition::DropValues => Some(DropReason::ServerError),
            Disposition::NoCookie => Some(DropReason::Informational),
        };
        let recorded = std::mem::take(&mut state.changes);
        let changes = Arc::new(if answer == Disposition::Accept {
            recorded
        } else {
            Changes::default()
        });
        state.pending = Some(Arc::clone(&changes));
        Commit {
            outcome,
            base: state.base.clone(),
            changes,
            dropped,
        }
    }

    /// Takes in how the commit ended. After a failure the session is as it was before, with all its changes.
    pub(crate) fn end_commit(&self, result: Result<Committed, &Error>) {
        let mut state = self.lock();
        let pending = state.pending.take();
        let Ok(committed) = result else {
            if let Some(pending) = pending {
                state.changes = pending.then(&state.changes);
            }
            return;
        };
        state.regenerate = false;
        state.destroyed = false;
        if !state.changes.is_empty() {
            state.changes.outdate();
        }
        match committed {
            Committed::Kept => {}
            Committed::Stored {
                record,
                token,
                lifetime,
            } => {
                state.reply = Reply::Set { token, lifetime };
                state.base = Some(record);
                state.renewal_due = false;
            }
            Committed::Removed => {
                state.reply = Reply::Remove;
                state.base = None;
            }
            Committed::Ended => {
                state.base = None;
                state.ended = true;
            }
        }
    }

    /// True if the handler destroyed or regenerated the session, and that is not done yet.
    pub(crate) fn is_ending(&self) -> bool {
        let state = self.lock();
        state.destroyed || state.regenerate
    }

    /// What to tell the client.
    pub(crate) fn reply(&self) -> Reply {
        self.lock().reply.clone()
    }
}

impl State {
    /// The undecoded value under `key`.
    fn get(&self, key: &str) -> Option<Bytes> {
        match self.changes.get(key) {
            Lookup::Value(value) => Some(value),
            Lookup::Absent => None,
            Lookup::Unchanged => self.below(key),
        }
    }

    /// The undecoded value under `key` without the changes that are not being saved yet.
    fn below(&self, key: &str) -> Option<Bytes> {
        match self
            .pending
            .as_ref()
            .map_or(Lookup::Unchanged, |pending| pending.get(key))
        {
            Lookup::Value(value) => Some(value),
            Lookup::Absent => None,
            Lookup::Unchanged => self.base.as_ref().and_then(|base| base.payload.get(key)),
        }
    }

    fn keys(&self) -> BTreeSet<String> {
        let mut keys: BTreeSet<String> = self
            .base
            .iter()
            .flat_map(|base| base.payload.iter())
            .map(|(key, _)| key.to_owned())
            .collect();
        for changes in self.pending.as_deref().into_iter().chain([&self.changes]) {
            if changes.clears() {
                keys.clear();
            }
            for (key, present) in changes.keys() {
                if present {
                    keys.insert(key.to_owned())
                } else {
                    keys.remove(key)
                };
            }
        }
        keys
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id())
            .finish_non_exhaustive()
    }
}

fn check_key(key: &str) -> Result<(), Error> {
    if key.starts_with(RESERVED) {
        Err(Error::new(Kind::ReservedKey { key: key.to_owned() }))
    } else {
        Ok(())
    }
}

/// The value, if nothing follows it.
fn whole<'a>(parsed: Option<(&'a [u8], &'a [u8])>) -> Option<&'a [u8]> {
    match parsed {
        Some((value, [])) => Some(value),
        _ => None,
    }
}
