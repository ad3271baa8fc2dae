//! Sessions on the server, over any backend: identity, deadlines, merging and the order of writes.

mod conflict_queue;
mod end;
mod enter;
pub(crate) mod format;
mod list_memo;
mod load;
mod native_format;
mod near_cache;
mod optional;
mod regenerate;
mod save;
mod session_limit;
pub(crate) mod session_list;
mod stored_list;
mod subjects;
mod verbs;

use std::fmt;
use std::sync::Arc;

pub use self::session_limit::SessionLimit;
pub use self::subjects::SubjectSession;

use self::conflict_queue::ConflictQueues;
use self::format::{SharedFormat, StoredFormat};
use self::list_memo::ListMemo;
use self::native_format::NativeFormat;
use self::session_list::SessionList;
use super::near_cache::RecordCache;
use super::server_options::ServerOptions;
use super::take_over::take_over;
use super::{Backend, Builder, StoreFuture, Stored, Verbs};
use crate::clock::Timestamp;
use crate::config::Config;
use crate::cookie::CookieName;
use crate::crypto::{Purpose, Sealer, ServerToken, warm_up};
use crate::error::{Error, Kind};
use crate::id::EntryId;
use crate::session::{Changes, Payload, Place, Recency, Record, Saved, SessionId};

/// A store that keeps sessions in a [`Backend`]. The cookie holds an opaque token of 256 random bits; the backend sees
/// a hash of it.
///
/// Concurrent requests lose no changes. A save replaces exactly the state that it loaded; if another request was first,
/// the changes are applied to the newer state. A session that was ended stays ended.
///
/// A clone is the same store.
///
/// # Examples
///
/// `examples/custom_store.rs` implements a backend. With that of `MemoryStore`:
///
/// ```
/// # #[cfg(feature = "memory")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), hyper_session::Error> {
/// use hyper_session::ServerStore;
/// use hyper_session::store::Memory;
///
/// let store = ServerStore::with_backend(Memory::new()).build()?;
/// assert!(store.sessions_of("ada").await?.is_empty());
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "memory"))]
/// # fn main() {}
/// ```
pub struct ServerStore<B> {
    inner: Arc<Inner<B>>,
}

/// The sessions of a backend under one cookie name.
struct Inner<B> {
    config: Arc<Config>,
    backend: Arc<B>,
    /// The cookie name that tokens, sealed entries and session lists are bound to.
    name: Box<str>,
    format: Box<dyn StoredFormat>,
    max_sessions_per_subject: usize,
    at_session_limit: SessionLimit,
    /// Present if a session of a subject counts only while it is on that subject's session list.
    list_memo: Option<ListMemo>,
    near_cache: Option<Arc<RecordCache>>,
    /// The queues of sessions. A step that waits for a permit of these holds no other permit.
    queues: ConflictQueues,
    /// The queues of session lists. A task may wait in one of these while it holds a permit of `queues`, never the
    /// reverse.
    list_queues: ConflictQueues,
    /// The sessions under each retired name of the cookie, in the order of the options.
    retired: Vec<Arc<Self>>,
    /// The sessions under other cookies, whose subjects are the same.
    linked: Vec<Arc<Self>>,
}

/// The session that a new one replaces.
#[derive(Clone, Copy)]
struct Predecessor {
    id: SessionId,
    /// True if the new session does not begin unless this one is on the session list.
    must_be_listed: bool,
    /// True if the new session is that of a login, which counts at the session limit. A session that is given another token or another
    /// place is not refused, and ends no other.
    is_login: bool,
}

/// The entry that a write is to replace, and when that was written.
struct Expected {
    entry: Stored,
    written: Recency,
}

/// The result of an attempt to save.
enum SaveAttempt {
    Done(Saved),
    /// Another request was first, and left this entry.
    Conflict(Payload, Expected),
}

impl<B: Backend> ServerStore<B> {
    /// Returns a builder for a store that keeps its sessions in `backend`.
    pub fn with_backend(backend: B) -> Builder<B> {
        Builder::new(backend)
    }

    /// Returns the backend.
    pub fn backend(&self) -> &B {
        &self.inner.backend
    }

    /// Returns the sessions under the retired name of this index, as a store.
    fn under_retired(&self, name: usize) -> Option<Self> {
        self.inner.retired.get(name).map(|inner| Self { inner: Arc::clone(inner) })
    }

    /// Returns the session of `base` under its retired name, and the store that has it, if it came under one.
    fn former(&self, base: &Record) -> Option<(Self, Record)> {
        let Some(Place::RetiredName(name)) = base.place() else { return None };
        Some((self.under_retired(name)?, base.in_place(Place::RetiredName(name))?.clone()))
    }

    /// Ends the session that `token` leads to, or that continues from it, unless that is the session `unless`.
    fn end_behind(&self, token: &[u8], unless: Option<SessionId>, now: Timestamp) -> StoreFuture<()> {
        // The cookie may have come under any of these names.
        let names = std::iter::once(&self.inner).chain(&self.inner.retired);
        let found = names.filter_map(|inner| Some((Arc::clone(inner), inner.parse_token(token)?)));
        let found: Vec<_> = found.collect();
        StoreFuture::boxed(async move {
            let mut ended = Ok(());
            for (inner, token) in found {
                ended = ended.and(inner.end_behind(&token, unless, now).await);
            }
            ended
        })
    }

    /// Moves a session from a retired name to the present one.
    fn take_over(
        &self,
        former: Self,
        old: Record,
        changes: Arc<Changes>,
        now: Timestamp,
    ) -> StoreFuture<Saved> {
        let store = self.clone();
        StoreFuture::boxed(async move {
            take_over(&store, &former, old, changes, now, |old| former.supersede(old, now)).await
        })
    }
}

impl<B: Backend> Builder<B> {
    /// Checks the options and builds the store.
    ///
    /// # Errors
    ///
    /// [`is_config`](Error::is_config) if options do not fit together. The message names what to change.
    pub fn build(self) -> Result<ServerStore<B>, Error> {
        Ok(ServerStore { inner: Arc::new(Inner::new(self)?) })
    }
}

/// The parts that the sessions under all cookie names have in common.
struct CommonParts<B> {
    config: Arc<Config>,
    backend: Arc<B>,
    options: ServerOptions,
}

impl<B: Backend> CommonParts<B> {
    /// Returns the sessions under one cookie name, without what only the present name has.
    fn under(&self, name: &str) -> Result<Inner<B>, Error> {
        Ok(Inner {
            config: Arc::clone(&self.config),
            backend: Arc::clone(&self.backend),
            name: name.into(),
            format: self.format(name)?,
            max_sessions_per_subject: self.options.max_sessions_per_subject,
            at_session_limit: self.options.at_session_limit,
            list_memo: self.options.check_session_list.then(ListMemo::new),
            queues: ConflictQueues::new(),
            list_queues: ConflictQueues::new(),
            near_cache: None,
            retired: Vec::new(),
            linked: Vec::new(),
        })
    }

    fn format(&self, name: &str) -> Result<Box<dyn StoredFormat>, Error> {
        if let Some(shared) = &self.options.shared_format {
            return Ok((shared.create)(Arc::clone(&self.options.random)));
        }
        let seal = |keys| Sealer::new(keys, Purpose::Record, name, Arc::clone(&self.options.random));
        let clock = self.config.clock();
        Ok(Box::new(NativeFormat {
            payload_format: self.config.settings.format,
            sealer: self.options.record_keys.as_ref().map(seal).transpose()?,
            accept_unsealed: self.options.accept_unsealed.map(|until| (until, Arc::clone(clock))),
            random: Arc::clone(&self.options.random),
            limits: *self.config.limits(),
        }))
    }
}

impl<B: Backend> Inner<B> {
    fn new(builder: Builder<B>) -> Result<Self, Error> {
        let is_shared = builder.server.shared_format.is_some();
        let (backend, mut config, mut options) =
            builder.validate(|_, options| options.record_keys.clone(), is_shared)?;
        let retired: Vec<String> =
            config.cookie.retired_cookies().iter().map(|cookie| cookie.name().as_str().to_owned()).collect();
        check_options(&backend, &options, &retired, config.cookie_name())?;
        backend.__use_clock(config.clock());
        warm_up(&*options.random);
        let (near_cache, linked) = (options.near_cache.take(), std::mem::take(&mut options.linked));
        // The near-cache vouches for what a connection remembers.
        config.settings.connection_memo = near_cache.is_some();
        let (config, backend) = (Arc::new(config), Arc::new(backend));
        let common = CommonParts { config, backend, options };
        let each = |names: &[String]| {
            names.iter().map(|name| common.under(name).map(Arc::new)).collect::<Result<_, Error>>()
        };
        let (retired, linked) = (each(&retired)?, each(&linked)?);
        Ok(Self { near_cache, retired, linked, ..common.under(common.config.cookie_name())? })
    }
}

/// Checks the options against each other, the backend, and the other names of the cookie.
fn check_options(
    backend: &impl Backend,
    options: &ServerOptions,
    retired: &[String],
    present: &str,
) -> Result<(), Error> {
    check_linked(&options.linked, retired, present)?;
    match &options.shared_format {
        Some(shared) => check_shared(shared, options, retired),
        None => check_list_len(backend, options.max_sessions_per_subject),
    }
}

/// Checks that no cookie is named twice.
fn check_linked(linked: &[String], retired: &[String], present: &str) -> Result<(), Error> {
    for (at, name) in linked.iter().enumerate() {
        CookieName::new(name)?;
        let earlier = linked.iter().take(at).chain(retired).map(String::as_str);
        if earlier.chain([present]).any(|other| other == name) {
            return Err(Error::config(format!(
                "the sessions under the cookie name {name:?} are included already: drop that call of linked_cookie()"
            )));
        }
    }
    Ok(())
}

/// Checks that the backend has room for the longest session list.
fn check_list_len(backend: &impl Backend, max_sessions: usize) -> Result<(), Error> {
    backend.__check_len(SessionList::max_len(max_sessions)).map_err(|_| {
        Error::config(
            "max_entry_len() must be long enough for the list of as many sessions as max_sessions_per_subject() allows: \
             raise the one or lower the other",
        )
    })
}

/// Checks what does not fit to a format that is shared with another program.
fn check_shared(shared: &SharedFormat, options: &ServerOptions, retired: &[String]) -> Result<(), Error> {
    if options.record_keys.is_some() {
        return Err(Error::config(format!(
            "{} reads no sealed sessions: drop seal_records(), or the shared format once {0} is gone",
            shared.program
        )));
    }
    if options.check_session_list {
        return Err(Error::config(
            "check_session_list() must be off where sessions are shared with another program: it keeps no lists",
        ));
    }
    if !retired.is_empty() || !options.linked.is_empty() {
        return Err(Error::config(format!(
            "{} shares sessions under one cookie name: drop retired_name() and linked_cookie()",
            shared.program
        )));
    }
    Ok(())
}

/// Returns the id of the entry that this token leads to.
fn entry_of_token(token: &ServerToken) -> EntryId {
    EntryId::from_bytes(token.entry_id())
}

/// Returns the public id of the session that this token leads to.
fn session_id(token: &ServerToken) -> SessionId {
    SessionId::from_bytes(token.session_id())
}

/// Returns the id of the entry that holds the session of this id. Beside Astra the entry has another id: see [`entry_of_record`].
fn entry_of_session(id: SessionId) -> EntryId {
    EntryId::from_bytes(id.to_bytes())
}

/// Returns the id of the entry that holds this session.
fn entry_of_record(record: &Record) -> EntryId {
    record.origin().token().map_or_else(|| entry_of_session(record.id()), entry_of_token)
}

/// Returns the token that leads to this session.
fn token_of(record: &Record) -> Result<&ServerToken, Error> {
    record.origin().token().ok_or_else(|| Error::new(Kind::Internal("a record of another kind of store")))
}

/// Returns the entry of the session as it was loaded.
fn seen(record: &Record) -> Result<Stored, Error> {
    let entry = record.origin().entry();
    let (value, expires) =
        entry.ok_or_else(|| Error::new(Kind::Internal("a record of another kind of store")))?;
    Ok(Stored { value: value.clone(), expires })
}

impl Expected {
    /// Returns the entry of the session as it was loaded.
    fn of(record: &Record) -> Result<Self, Error> {
        Ok(Self { entry: seen(record)?, written: record.recency() })
    }
}

fn ended_or_stored(created: Option<Record>) -> Result<Saved, Error> {
    created.map_or(Ok(Saved::Ended), |record| stored(record, 0))
}

fn stored(record: Record, conflicts: u32) -> Result<Saved, Error> {
    let token = token_of(&record)?.to_text();
    Ok(Saved::Stored { record, token, conflicts })
}

impl<B> Clone for ServerStore<B> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<B> fmt::Debug for ServerStore<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerStore").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
