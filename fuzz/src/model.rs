//! A model of the entries that a server-side store should hold, beside a backend that lists the entries it does hold.
//!
//! Each primitive that changes the backend is where one request takes effect: the model applies what that request did to
//! the present values, and what was written must be that. The model knows the four rules of docs/DESIGN.md, not the code
//! that follows them.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use hyper_session::store::{Backend, EntryId, Memory, Replaced, Stored};
use hyper_session::testing::FakeClock;
use hyper_session::{Clock, Error, SessionId, Timestamp};

pub type Values = BTreeMap<String, u64>;

pub const IDLE: u64 = 600_000;
pub const ABSOLUTE: u64 = 2_000_000;
/// For so long a backend keeps what has expired, for requests that loaded it in time.
const RETENTION: u64 = 15 * 60;

/// How long a tombstone stays, and how far clocks may differ.
const TOMBSTONE: u64 = 60;
const SKEW: u64 = 60;

/// Seconds, and the number of the write within that second.
pub type Written = (u64, u8);

/// A session, as the store should hold it.
#[derive(Clone, Debug, Hash, PartialEq)]
pub struct Entry {
    pub created: u64,
    /// When its values were written, and the sequence of that write, by the clock of the host that wrote them.
    pub written: Written,
    pub expires: u64,
    pub values: Values,
}

impl Entry {
    /// Reads a stored value after docs/WIRE.md; nothing if it says that the session goes on under another token.
    fn read(stored: &Stored) -> Option<Self> {
        if is_tombstone(stored) {
            return None;
        }
        assert_eq!(stored.value[0], 1, "kind");
        let (header, payload) = stored.value.split_at(22);
        let values: Values = rmp_serde::from_slice(payload).expect("a payload");
        assert!(!values.is_empty(), "an empty session is stored");
        let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        let created = number(&header[1..6]);
        let written = (created + number(&header[6..10]), header[14] >> 4);
        Some(Self { created, written, expires: stored.expires.as_unix(), values })
    }
}

fn is_tombstone(stored: &Stored) -> bool {
    matches!(stored.value[0], 2 | 5)
}

/// The id under which a session goes on, if its tombstone says it.
fn named_by(stored: &Stored) -> Option<SessionId> {
    let named = stored.value.get(9..).filter(|_| stored.value[0] == 5)?;
    Some(SessionId::from_bytes(named.try_into().expect("an id")))
}

#[derive(Clone, Debug)]
pub enum Change {
    Set(u64),
    Add(u64),
    Delete,
}

/// The changes of a handler that the store has not acknowledged.
#[derive(Clone, Debug, Default)]
pub struct Log {
    pub cleared: bool,
    pub regenerate: bool,
    pub destroy: bool,
    pub keys: BTreeMap<String, Change>,
}

impl Log {
    pub fn apply(&self, values: &Values) -> Values {
        let mut values = if self.cleared { Values::new() } else { values.clone() };
        for (key, change) in &self.keys {
            match change {
                Change::Set(value) => drop(values.insert(key.clone(), *value)),
                Change::Add(amount) => *values.entry(key.clone()).or_default() += amount,
                Change::Delete => drop(values.remove(key)),
            }
        }
        values
    }

    /// This log followed by `later`.
    fn then(self, later: Self) -> Self {
        let destroy = self.destroy || later.destroy;
        let regenerate = self.regenerate && !later.destroy || later.regenerate;
        if later.cleared {
            return Self { destroy, regenerate, ..later };
        }
        let Self { cleared, mut keys, .. } = self;
        for (key, change) in later.keys {
            let change = match (keys.get(&key), change) {
                (Some(Change::Set(value)), Change::Add(amount)) => Change::Set(value + amount),
                (Some(Change::Add(before)), Change::Add(amount)) => Change::Add(before + amount),
                (Some(Change::Delete), Change::Add(amount)) => Change::Set(amount),
                (None, Change::Add(amount)) if cleared => Change::Set(amount),
                (_, change) => change,
            };
            keys.insert(key, change);
        }
        Self { cleared, regenerate, destroy, keys }
    }

    fn weight(&self) -> Weight {
        match self {
            Self { destroy: true, .. } => Weight::End,
            Self { regenerate: true, .. } => Weight::Login,
            _ if self.is_default() => Weight::Renewal,
            _ => Weight::Change,
        }
    }

    pub fn is_default(&self) -> bool {
        !self.cleared && !self.regenerate && !self.destroy && self.keys.is_empty()
    }
}

/// A cookie of the session's name, before the store was asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cookie {
    /// A token of this store's form: what the store does not know is known to be dead.
    Token,
    /// Anything else may be the cookie of another application.
    Foreign,
}

/// The weight of a statement of a response about the session, from the weakest to the strongest.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub enum Weight {
    #[default]
    Nothing,
    Renewal,
    Change,
    Login,
    End,
}

/// The statement of a response about the session's cookie.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Said {
    Removed,
    Set(SessionId),
}

/// The entry that a request found under the token of one of its cookies.
#[derive(Clone, Debug)]
enum Found {
    Session(SessionId, Entry),
    Tombstone,
    Nothing,
}

/// A request, as far as one session service and the store are concerned.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Its cookies of the session's name.
    cookies: Vec<Cookie>,
    /// The entries that their tokens lead to, as far as the store has answered. Once all is known, the session is decided.
    found: Option<Vec<Found>>,
    /// When it looked.
    loaded: u64,
    /// When the newest session that it brought was written. A session that it begins is newer.
    newest: Option<Written>,
    /// The ids that its tokens stand for.
    brought: BTreeSet<SessionId>,
    /// The sessions that came beside the newest one.
    pub others: Vec<SessionId>,
    /// All of its cookies are known to be dead.
    pub dead: bool,
    /// Its handler ended its session: all that it brought are to end.
    pub ends: bool,
    /// It came without a session, but with the token of one that was there before.
    had_former: bool,
    /// It came without a session, or ended that, so that its values begin another session.
    pub began: bool,
    /// Until when its session lives, as far as the store has told.
    pub until: u64,
    /// Its session has the token of a login that was saved.
    logged_in: bool,
    /// The strongest of its statements that the store has acknowledged.
    pub weight: Weight,
    /// The statement of a service inside of this one about the cookie.
    pub said: Option<Said>,
    /// The statement of this service about it.
    pub answer: Option<Said>,
    /// The session of that service was found: what this one does is done to it.
    pub followed: bool,
    /// The session of that service was not found: it had expired, or another request had ended it.
    pub inner_gone: bool,
    /// The session that it has, and the values that it knows.
    pub base: Option<SessionId>,
    pub known: Values,
    pub log: Log,
    /// Another request ended the session, or its absolute timeout passed, and this one has learnt so.
    pub ended: bool,
    /// That was so before its handler asked for another session, which is not saved yet.
    pub was_ended: bool,
    /// The absolute timeout passed while the request ran.
    pub expired: bool,
    /// It came with a token that a newer token has replaced.
    pub overtaken: bool,
    /// A primitive of it failed.
    pub faulted: bool,
    /// The changes of a save whose failure the handler was told. They are made only if the handler asks for it again.
    pub failed: Option<Log>,
    /// Its handler is done.
    last: bool,
    /// When its last commit began: what is written counts from then.
    commit: u64,
    /// When the session that it has was created, and written.
    created_at: u64,
    written: Written,
    /// It is in its own `save`, or its handler is done: it goes on although its client goes away.
    pub committing: bool,
    /// Nothing that it did counts: it was dropped before the handler was done.
    pub void: bool,
    /// Its handler returned an error.
    pub failed_itself: bool,
    fresh: Option<SessionId>,
    pub created: BTreeSet<SessionId>,
    /// The sessions that it had and ended. If the store then fails to end the others that came, all are ended again.
    ended_own: BTreeSet<SessionId>,
    /// The session of its own that the present commit ended, and what it knew before. It ends what continues from that session in the
    /// same way, and only then knows that all has ended.
    ending: Option<(SessionId, Box<Self>)>,
    /// The changes and requests of its handler that ended its own session, if the present commit did that.
    ended_by: Option<Log>,
    /// So did a `save` whose failure the handler was told: as far as it knows, its session goes on.
    pub end_failed: bool,
}

impl Request {
    pub fn new(cookies: &[Cookie]) -> Self {
        Self { cookies: cookies.to_vec(), ..Self::default() }
    }

    /// Its cookies are looked up from now on.
    pub fn begin_load(&mut self, now: Timestamp) {
        (self.found, self.loaded) = (Some(Vec::new()), now.as_unix());
    }

    /// All cookies were looked up, and `chosen` is the session of the request: the session that was written last. Which of
    /// several that were begun in the same second is not said.
    pub fn end_load(&mut self, chosen: Option<SessionId>) {
        let found = self.found.take().expect("a load");
        let overtaken = found.iter().any(|found| matches!(found, Found::Tombstone));
        let only_tokens = self.cookies.iter().all(|cookie| *cookie == Cookie::Token);
        let all_gone = found.iter().all(|found| matches!(found, Found::Nothing));
        self.dead = !self.cookies.is_empty() && only_tokens && all_gone;
        self.had_former = chosen.is_none() && !found.is_empty();
        let mut alive: BTreeMap<_, _> = found
            .into_iter()
            .filter_map(|found| match found {
                Found::Session(id, entry) => Some((id, entry)),
                Found::Tombstone | Found::Nothing => None,
            })
            .collect();
        self.newest = alive.values().map(|entry| entry.written).max();
        // The session that goes on from a superseded token is newer than one from before the tombstone.
        let outdated =
            |written: &Written| overtaken && written.0 < self.loaded.saturating_sub(TOMBSTONE + SKEW);
        let last = self.newest.filter(|written| !outdated(written));
        let Some(id) = chosen else {
            assert_eq!(last, None, "a session was not found");
            // A value that is set from here on would displace the new cookie.
            (self.overtaken, self.ended, self.began) = (overtaken, overtaken, true);
            self.others = alive.into_keys().collect();
            return;
        };
        let entry = alive.remove(&id).expect("a session that no cookie leads to");
        assert_eq!(Some(entry.written), last, "an older session wins");
        self.others = alive.into_keys().collect();
        (self.created_at, self.written, self.until) = (entry.created, entry.written, entry.expires);
        self.settle(Some(id), entry.values);
    }

    pub fn view(&self) -> Values {
        let failed = self.failed.as_ref().map(|failed| failed.apply(&self.known));
        self.log.apply(failed.as_ref().unwrap_or(&self.known))
    }

    /// The handler asks for what failed, too.
    pub fn retry(&mut self) {
        if let Some(failed) = self.failed.take() {
            self.begin_another(&failed);
            self.log = failed.then(std::mem::take(&mut self.log));
        }
    }

    /// The handler asks for another session, or has ended this one: what it sets from now on begins one, unless that fails.
    pub fn begin_another(&mut self, log: &Log) {
        let asked = log.regenerate && (self.overtaken || self.expired) && self.base.is_none();
        if log.destroy || asked {
            (self.was_ended, self.ended) = (self.was_ended || self.ended, false);
        }
    }

    /// True if its session has values, or had some before changes of its own.
    pub fn mentions_values(&self) -> bool {
        let failed = self.failed.iter().any(|failed| !failed.keys.is_empty());
        failed || !self.known.is_empty() || !self.log.keys.is_empty()
    }

    /// The handler is about to change `key`: if that was among what failed, it mends it.
    pub fn mend(&mut self, key: &str) {
        if self.failed.as_ref().is_some_and(|failed| failed.keys.contains_key(key)) {
            self.retry();
        }
    }

    /// True if a change of its own that the store has not acknowledged would have an effect.
    pub fn is_unsaved(&self) -> bool {
        match self.base {
            _ if self.ended => false,
            Some(_) => !self.log.is_default(),
            None => !self.view().is_empty(),
        }
    }

    /// A commit begins: the last one, which accepts values or does not, or a `save` of the handler.
    pub fn begin_commit(&mut self, now: Timestamp, last: bool, accepts: bool) {
        (self.committing, self.last) = (true, last);
        (self.ended_by, self.ending) = (None, None);
        let is_due = !last || !self.log.is_default() || self.failed.is_some();
        // A handler that was told of a failure has answered for it.
        if last {
            self.failed = None;
        } else {
            self.retry();
        }
        if !accepts {
            (self.log.keys, self.log.cleared) = (BTreeMap::new(), false);
        }
        match self.said {
            // Decided when that session is found.
            Some(Said::Set(_)) if last => {}
            Some(Said::Removed) if last && self.base.is_some() && !self.began && !self.log.destroy => {
                self.settle(None, Values::new());
                self.ended = true;
            }
            _ => self.decide(now, is_due),
        }
    }

    /// A deadline that is written counts from `now`, which is never before the request looked.
    fn decide(&mut self, now: Timestamp, is_due: bool) {
        self.commit = now.as_unix().max(self.loaded);
        if self.log.destroy && self.base.is_none() && self.had_former {
            self.says(Weight::End); // its user wants to be logged out, whichever token there is by now
        }
        self.ends |= self.log.destroy || self.base.is_some() && self.view().is_empty();
        let is_over = self.base.is_some() && self.created_at + ABSOLUTE <= self.commit;
        let ends = self.log.destroy || self.log.cleared && self.view().is_empty();
        if is_due && is_over && !ends {
            self.settle(None, Values::new());
            (self.ended, self.expired, self.began) = (true, true, true);
        }
    }

    /// The response sets the cookie to the token of this session: what this service has to add is added to it, unless it has
    /// logged in to another, or ended one and changes nothing since.
    fn follow(&mut self, id: SessionId, entry: Option<&Entry>, now: Timestamp) {
        self.said = None;
        let stays = self.logged_in && self.base.is_some_and(|base| base != id)
            || self.weight == Weight::End && self.base.is_none() && self.log.is_default();
        if let Some(entry) = entry.filter(|_| !stays) {
            (self.base, self.known) = (Some(id), entry.values.clone());
            (self.created_at, self.written, self.until) = (entry.created, entry.written, entry.expires);
            (self.ended, self.followed) = (false, true);
        }
        self.inner_gone = entry.is_none();
        self.decide(now, true);
    }

    /// The store did not acknowledge a `save`.
    pub fn fail(&mut self) {
        self.ended |= std::mem::take(&mut self.was_ended);
        self.end_failed |= self.ended_by.is_some();
        // The store has carried out the end. The handler does not know that, and asks for it again if it saves again.
        let unsaved = std::mem::take(&mut self.log);
        self.failed = Some(self.ended_by.take().unwrap_or(unsaved));
    }

    /// It ended this session of its own, and the store did not acknowledge all of that commit.
    pub fn has_half_ended(&self, id: SessionId) -> bool {
        self.faulted && self.ended_own.contains(&id)
    }

    /// The store did not acknowledge a step: the request knows what it knew before, and before the whole end if that is the step.
    fn learns_nothing(mut self, created: BTreeSet<SessionId>, of_end: bool) -> Self {
        let before = match self.ending.take_if(|_| of_end) {
            Some((_, before)) => Self { faulted: true, ..*before },
            None => self,
        };
        Self { created, fresh: None, ..before }
    }

    fn end_own(&mut self, id: SessionId) {
        self.ended_own.insert(id);
        self.ended_by = Some(self.log.clone());
    }

    fn says(&mut self, weight: Weight) {
        self.ends |= weight == Weight::End;
        if weight > self.weight {
            self.weight = weight;
        }
    }

    fn settle(&mut self, base: Option<SessionId>, known: Values) {
        (self.base, self.known, self.log, self.fresh) = (base, known, Log::default(), None);
    }
}

#[derive(Default)]
pub struct World {
    pub sessions: BTreeMap<SessionId, Entry>,
    /// The sessions that the memory freed, long after they had expired.
    freed: BTreeMap<SessionId, Entry>,
    /// The session that goes on from each session with another token, as the tombstones say.
    successors: BTreeMap<SessionId, SessionId>,
    pub requests: Vec<Request>,
    /// After how many primitives the next fault comes, and whether it loses only the answer.
    pub fault: Option<(u8, bool)>,
    /// The latest time that a host's clock has shown: the backend frees nothing that has not expired long ago by it.
    pub latest: u64,
    /// Every session that there was, in the order in which they began.
    ids: Vec<SessionId>,
    /// How many numbers were drawn for tokens.
    drawn: u64,
    /// A hash of all calls of the backend, and of the sessions that it had after each step.
    pub trace: DefaultHasher,
}

/// The backend of one request: a server of its own, as no server can rely on seeing the others' requests.
#[derive(Clone)]
pub struct Server {
    pub world: Arc<Mutex<World>>,
    pub memory: Arc<Memory>,
    /// The clock of its host.
    pub clock: FakeClock,
    pub request: usize,
}

/// A fault of a step that was done.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// The step may be one of the end of a session.
    LostAnswer {
        of_end: bool,
    },
}

fn deadline(created: u64, now: u64) -> u64 {
    (now + IDLE).min(created + ABSOLUTE)
}

/// Returns when an entry is written at `now` that replaces one of `before`: later than that, whatever the clock says.
fn after(before: Written, now: u64) -> Written {
    if before.0 >= now { (before.0, (before.1 + 1).min(15)) } else { (now, 0) }
}

impl Server {
    /// The request of this service.
    pub fn request(&self, act: impl FnOnce(&mut Request)) {
        act(&mut self.lock().requests[self.request]);
    }

    pub fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// Every poll of a request is a permit to make one call: the caller of `poll` decides the order of all calls.
    async fn turn(&self, call: &str, id: EntryId) -> Result<Fault, Error> {
        tokio::task::yield_now().await;
        let mut world = self.lock();
        (self.request, call, world.number(id)).hash(&mut world.trace);
        let done = match &mut world.fault {
            None => return Ok(Fault::None),
            Some((wait @ 1.., _)) => {
                *wait -= 1;
                return Ok(Fault::None);
            }
            Some((0, done)) => *done,
        };
        world.fault = None;
        world.requests[self.request].faulted = true;
        let ending = &world.requests[self.request].ending;
        let id = SessionId::from_bytes(id.to_bytes());
        // An entry that cannot be compared is read again, and deleted: the end goes on.
        let of_end = call != "remove"
            && ending.as_ref().is_some_and(|(ended, _)| world.ids_from(*ended).any(|next| next == id));
        if done {
            return Ok(Fault::LostAnswer { of_end });
        }
        let request = std::mem::take(&mut world.requests[self.request]);
        let created = request.created.clone();
        world.requests[self.request] = request.learns_nothing(created, of_end);
        Err(Error::unavailable("not done"))
    }

    /// Runs `check` on the model and this request; where the answer is lost, the request learns nothing.
    fn check<T>(
        &self,
        fault: Fault,
        answer: T,
        check: impl FnOnce(&mut World, &mut Request),
    ) -> Result<T, Error> {
        let mut world = self.lock();
        let mut request = std::mem::take(&mut world.requests[self.request]);
        if let Fault::LostAnswer { of_end } = fault {
            let before = request.clone();
            check(&mut world, &mut request);
            request = before.learns_nothing(request.created, of_end);
        } else {
            check(&mut world, &mut request);
            if let Some(entry) = request.base.and_then(|id| world.sessions.get(&id)) {
                request.created_at = entry.created;
            }
        }
        world.requests[self.request] = request;
        if let Fault::LostAnswer { .. } = fault {
            Err(Error::unavailable("done, and the answer lost"))
        } else {
            Ok(answer)
        }
    }

    /// The model holds what the backend holds.
    pub async fn compare(&self) {
        let ids = self.lock().ids.clone();
        for id in ids {
            let stored = self.stored(id).await;
            let mut world = self.lock();
            let expected = world.sessions.get(&id).cloned();
            assert_eq!(stored.as_ref().and_then(Entry::read), expected);
            expected.hash(&mut world.trace);
        }
    }

    /// The entry of a session, even if it has expired.
    async fn stored(&self, id: SessionId) -> Option<Stored> {
        let place = self.place(EntryId::from_bytes(id.to_bytes()));
        self.memory.fetch(place, Timestamp::from_unix(0)).await.unwrap()
    }

    /// Returns the id that the memory knows this entry by: the number of its session. Creating an entry frees two expired ones of the same
    /// shard, which the first byte decides. Four sessions that begin one after the other share a shard, so that this happens.
    fn place(&self, id: EntryId) -> EntryId {
        let Some(number) = self.lock().number(id) else { return id };
        let mut bytes = [0; 16];
        bytes[0] = (number / 4) as u8;
        bytes[8..].copy_from_slice(&(number as u64).to_be_bytes());
        EntryId::from_bytes(bytes)
    }

    /// The memory creates an entry, and may free some that expired long ago by the clock of the host that creates this one.
    async fn insert(&self, id: EntryId, stored: Stored, now: Timestamp) {
        self.lock().ids.push(SessionId::from_bytes(id.to_bytes()));
        assert!(self.memory.create(self.place(id), stored, now).await.unwrap(), "an id twice");
        let due: Vec<_> = {
            let world = self.lock();
            let is_due = |(_, entry): &(&SessionId, &Entry)| entry.expires + RETENTION <= now.as_unix();
            world.sessions.iter().filter(is_due).map(|(id, _)| *id).collect()
        };
        for id in due {
            if self.stored(id).await.is_none() {
                let world = &mut *self.lock();
                world.freed.extend(world.sessions.remove_entry(&id));
            }
        }
    }
}

impl Backend for Server {
    async fn fetch(&self, id: EntryId, now: Timestamp) -> Result<Option<Stored>, Error> {
        let fault = self.turn("fetch", id).await?;
        let found = self.memory.fetch(self.place(id), now).await?;
        let id = SessionId::from_bytes(id.to_bytes());
        self.check(fault, found.clone(), |world, request| {
            // The entry of a session that has expired, which ends for slower requests, too, with all that the request brought.
            if now.as_unix() == 0 {
                assert!(request.ends || request.created.contains(&id));
                // It could not be compared, and is gone, or has another token by now.
                if request.base == Some(id) && found.as_ref().and_then(Entry::read).is_none() {
                    world.begins_to_end(request, id);
                }
                return;
            }
            // The clock may have passed the deadline since the request read it.
            let entry = world.sessions.get(&id).filter(|entry| entry.expires > now.as_unix());
            assert_eq!(found.as_ref().and_then(Entry::read).as_ref(), entry);
            if request.found.is_some() {
                request.brought.insert(id);
            }
            match (&mut request.found, entry) {
                (Some(cookies), Some(entry)) => cookies.push(Found::Session(id, entry.clone())),
                (Some(cookies), None) if found.is_some() => cookies.push(Found::Tombstone),
                (Some(cookies), None) => cookies.push(Found::Nothing),
                (None, entry) if request.said == Some(Said::Set(id)) && request.last => {
                    request.follow(id, entry, self.clock.now());
                }
                // A second look is one at a session that was renewed: it may have ended meanwhile.
                (None, Some(entry)) => {
                    assert_eq!(request.base, Some(id));
                    request.until = entry.expires;
                }
                (None, None) => {
                    assert_eq!(request.base, Some(id));
                    request.settle(None, Values::new());
                    request.ended = true;
                }
            }
        })
    }

    async fn create(&self, id: EntryId, stored: Stored, now: Timestamp) -> Result<bool, Error> {
        let fault = self.turn("create", id).await?;
        let entry = Entry::read(&stored).expect("a session");
        assert_eq!(self.lock().number(id), None, "an id that was there before");
        self.insert(id, stored, now).await;
        let id = SessionId::from_bytes(id.to_bytes());
        self.check(fault, true, |world, request| {
            assert!(!request.void && !request.ended, "what does not count is saved");
            assert_eq!(now.as_unix(), request.commit);
            assert_eq!(entry.expires, deadline(entry.created, request.commit));
            let replaces = request.base.is_some() || request.end_failed;
            let before = if replaces { Some(request.written) } else { request.newest };
            let floor = before.map_or((request.commit, 0), |before| after(before, request.commit));
            // A request that found the session changed knows a later write.
            let later = replaces && entry.written > floor && entry.written.0 <= world.latest;
            assert!(entry.written == floor || later, "{:?} after {floor:?}", entry.written);
            request.created.insert(id);
            request.fresh = Some(id);
            world.sessions.insert(id, entry.clone());
            if request.base.is_none() && request.end_failed {
                // The next step finds that the first one is gone.
                assert!(request.log.regenerate || request.log.destroy, "a second session");
            } else if request.base.is_none() {
                // Where there is no session, none was ended.
                request.began = true;
                let log = Log { destroy: false, ..request.log.clone() };
                request.says(log.weight());
                request.logged_in = log.regenerate;
                assert_eq!(entry, Entry { created: now.as_unix(), values: request.view(), ..entry.clone() });
                (request.written, request.until) = (entry.written, entry.expires);
                request.settle(Some(id), entry.values);
            } else {
                assert!(request.log.regenerate || request.log.destroy, "a second session");
            }
        })
    }

    async fn replace(
        &self,
        id: EntryId,
        expected: Bytes,
        stored: Option<Stored>,
        now: Timestamp,
    ) -> Result<Replaced, Error> {
        let fault = self.turn(if stored.is_some() { "replace" } else { "remove" }, id).await?;
        let entry = stored.as_ref().and_then(Entry::read);
        let moves = stored.is_some() && entry.is_none();
        let (deletes, named) = (stored.is_none(), stored.as_ref().and_then(named_by));
        let answer = self.memory.replace(self.place(id), expected, stored, now).await?;
        let id = SessionId::from_bytes(id.to_bytes());
        self.check(fault, answer.clone(), |world, request| {
            let own = request.base == Some(id);
            let logs_out =
                request.log.destroy || request.log.cleared && request.log.apply(&Values::new()).is_empty();
            let is_own = own || request.ended_own.contains(&id);
            let ends = deletes && (logs_out || !is_own);
            assert!(!request.void && (ends || !request.ended), "what does not count is saved");
            assert!(now.as_unix() <= request.commit);
            assert!(answer != Replaced::Missing || !world.keeps(id), "lost, although it was loaded in time");
            if ends {
                match answer {
                    Replaced::Conflict(current) if Entry::read(&current).is_some() => {}
                    // The session goes on under another token, which is looked up next.
                    Replaced::Conflict(_) if own => {
                        world.begins_to_end(request, id);
                    }
                    Replaced::Conflict(_) => {}
                    Replaced::Done | Replaced::Missing => world.deleted(request, id),
                }
                return;
            }
            // It ended this session before, and the store did not acknowledge the end of the others, or of what the session continues
            // as: it finds it gone, or its tombstone.
            if request.ended_own.contains(&id) {
                let is_gone = match &answer {
                    Replaced::Missing => true,
                    Replaced::Conflict(current) => Entry::read(current).is_none(),
                    Replaced::Done => false,
                };
                assert!(is_gone, "an ended session is back");
                if moves && request.log.destroy {
                    world.begins_to_end(request, id);
                    return;
                }
                request.settle(None, Values::new());
                request.ended = true;
                return;
            }
            // Its session had another token by then, from another request or from a `save` of its own that failed. Its user has
            // logged out, and the session that it begins has a token of its own.
            if moves && !own && request.ending.is_some() && world.goes_on_from_own(request, id) {
                assert_eq!(named, None, "a session that has ended goes on");
                assert!(request.base != Some(id) && request.fresh != Some(id), "ends what it has just begun");
                if !matches!(&answer, Replaced::Conflict(current) if Entry::read(current).is_some()) {
                    world.sessions.remove(&id);
                }
                return;
            }
            assert!(own || request.created.contains(&id), "writes to another's session");
            let starts_over = moves && own && request.log.destroy;
            assert!(
                !moves || own && request.log.regenerate || starts_over,
                "a session moves that no request regenerates"
            );
            match answer {
                Replaced::Conflict(current) if Entry::read(&current).is_some() => {}
                // Ended by this request or a different one: in both cases it begins a new session.
                _ if starts_over => {
                    assert_eq!(named, None, "a session that has ended goes on");
                    world.sessions.remove(&id);
                    request.brought.insert(id);
                    world.begins_to_end(request, id);
                }
                Replaced::Conflict(_) | Replaced::Missing => {
                    if own {
                        request.settle(None, Values::new());
                        request.ended = true;
                    }
                }
                Replaced::Done => {
                    let before = world.sessions.remove(&id).expect("an entry");
                    if moves {
                        // No user logs in here, so that the subject stays.
                        assert_eq!(named, request.fresh, "a logout with the old token would not find it");
                    }
                    world.successors.extend(named.map(|next| (id, next)));
                    if let Some(entry) = &entry {
                        world.sessions.insert(id, entry.clone());
                    }
                    if own {
                        world.replaced(request, id, &before, entry.as_ref());
                    }
                }
            }
        })
    }

    async fn touch(&self, id: EntryId, expires: Timestamp, now: Timestamp) -> Result<bool, Error> {
        let fault = self.turn("touch", id).await?;
        let touched = self.memory.touch(self.place(id), expires, now).await?;
        let id = SessionId::from_bytes(id.to_bytes());
        self.check(fault, touched, |world, request| {
            // The second time it is what a regenerate left behind, so that it lasts no longer than that.
            let mark = request.ended && !world.sessions.contains_key(&id);
            // A `save` ended this session, and failed because the store did not acknowledge the end of the others. For the
            // handler, which was told so, the session goes on: its renewal finds it gone.
            let gone = request.end_failed && request.base.is_none() && request.ended_own.contains(&id);
            assert!(!gone || !touched, "an ended session is back");
            let own = request.base == Some(id) || gone || mark;
            assert!(!request.void && own && request.log.is_default());
            let asked = !request.last;
            assert!(asked || request.said.is_none(), "a renewal of a cookie of which more was said");
            request.says(Weight::Renewal);
            if touched {
                // The tombstone of a regenerate is touched, too: reading it again shows the difference.
                if let Some(entry) = world.sessions.get_mut(&id) {
                    entry.expires = expires.as_unix();
                    assert!(now.as_unix() <= request.commit);
                    assert_eq!(entry.expires, deadline(entry.created, request.commit));
                }
            } else {
                assert!(!world.keeps(id), "lost, although it was loaded in time");
                request.settle(None, Values::new());
                request.ended = true;
            }
        })
    }

    async fn delete(&self, id: EntryId) -> Result<(), Error> {
        let fault = self.turn("delete", id).await?;
        self.memory.delete(self.place(id)).await?;
        let id = SessionId::from_bytes(id.to_bytes());
        self.check(fault, (), |world, request| {
            assert!(!request.void);
            world.deleted(request, id);
        })
    }
}

/// A number that looks random (the mixer of SplitMix64).
pub fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

impl World {
    /// `request` deleted this entry, or found that it is gone.
    fn deleted(&mut self, request: &mut Request, id: SessionId) {
        let before = self.sessions.remove(&id);
        if request.base == Some(id) {
            request.end_own(id);
            self.ended(request);
        } else if request.others.contains(&id) {
            assert!(request.ends, "ends what came beside its session");
        } else {
            let expired = request.ends && before.is_none_or(|entry| entry.expires <= request.commit);
            let own = request.created.contains(&id) || request.ended_own.contains(&id);
            let follows = request.ends && self.goes_on_from_own(request, id);
            assert!(expired || own || follows, "ends another's session");
        }
    }

    /// True if this session goes on from one whose token the request brought, or that it had.
    fn goes_on_from_own(&self, request: &Request, id: SessionId) -> bool {
        let own = request.brought.iter().chain(&request.ended_own).chain(&request.created);
        own.flat_map(|own| self.ids_from(*own).skip(1)).any(|next| next == id)
    }

    /// The ids of a session, from this one on.
    fn ids_from(&self, id: SessionId) -> impl Iterator<Item = SessionId> {
        std::iter::successors(Some(id), |id| self.successors.get(id).copied())
    }

    /// Fills `out` with bytes that look random, and are the same whenever the same script runs: the order of ids decides between sessions
    /// of one age.
    pub fn draw(&mut self, out: &mut [u8]) {
        for part in out.chunks_mut(8) {
            self.drawn += 1;
            part.copy_from_slice(&mixed(self.drawn).to_le_bytes()[..part.len()]);
        }
    }

    /// Returns the number of the session whose entry this is, in the order in which they began.
    fn number(&self, id: EntryId) -> Option<usize> {
        let id = SessionId::from_bytes(id.to_bytes());
        self.ids.iter().position(|known| *known == id)
    }

    /// The new session of a request, as the request wrote it. If the request is slower than its deadline, the memory may have freed it
    /// before the old session ends. It counts as begun: its client finds out that it has expired, as after any wait.
    fn begun(&self, id: SessionId) -> &Entry {
        self.sessions.get(&id).or_else(|| self.freed.get(&id)).expect("a new entry that nothing has ended")
    }

    /// True if there is such a session, and the backend still has it, even if it has expired.
    fn keeps(&self, id: SessionId) -> bool {
        self.sessions.get(&id).is_some_and(|entry| entry.expires + RETENTION > self.latest)
    }

    /// `request` ended its session, and began a new session if there are values to keep.
    fn ended(&self, request: &mut Request) {
        let after = request.log.apply(&Values::new());
        assert!(
            request.log.destroy || request.log.cleared && after.is_empty(),
            "a session that no request ended"
        );
        request.says(Weight::End);
        request.began = true;
        let fresh = request.fresh.filter(|_| !after.is_empty());
        request.logged_in = fresh.is_some();
        request.until = fresh.map_or(0, |id| self.begun(id).expires);
        request.written = fresh.map_or((0, 0), |id| self.begun(id).written);
        assert_eq!(fresh.map(|id| &self.begun(id).values), (!after.is_empty()).then_some(&after));
        request.settle(fresh, after);
    }

    /// `request` ended its session `id`, and goes on to what continues from it.
    fn begins_to_end(&self, request: &mut Request, id: SessionId) {
        let before = Box::new(request.clone());
        if request.fresh.is_none() {
            request.end_own(id);
        }
        self.ended(request);
        request.ending = Some((id, before));
    }

    /// `request` replaced its session `before` by `entry`, or removed it: nothing that anyone had saved is lost by that.
    fn replaced(&self, request: &mut Request, id: SessionId, before: &Entry, entry: Option<&Entry>) {
        assert!(!request.log.destroy, "destroyed, and written");
        let after = request.log.apply(&before.values);
        request.says(request.log.weight());
        if let Some(entry) = entry {
            let (written, expires) =
                (self::after(before.written, request.commit), deadline(before.created, request.commit));
            assert_eq!(*entry, Entry { created: before.created, written, expires, values: after.clone() });
            (request.written, request.until) = (written, expires);
            request.settle(Some(id), after);
        } else if request.log.regenerate && !after.is_empty() {
            let fresh = request.fresh.expect("a new entry before the old one goes");
            let entry = self.begun(fresh);
            assert!(fresh != id && entry.values == after && entry.created == before.created, "{entry:?}");
            assert!(
                entry.written >= self::after(before.written, request.commit),
                "{entry:?} after {before:?}"
            );
            (request.logged_in, request.written, request.until) = (true, entry.written, entry.expires);
            request.settle(Some(fresh), after);
        } else {
            assert_eq!(after, Values::new(), "a session that has values is removed");
            request.says(Weight::End);
            request.began = true;
            request.end_own(id);
            request.settle(None, after);
        }
    }
}
