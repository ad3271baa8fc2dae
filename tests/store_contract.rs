//! Every store against one contract: backends and their suite, a model of all stores, every interleaving of requests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]
#![allow(clippy::type_complexity, clippy::struct_excessive_bools, clippy::enum_glob_use)]

mod support;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::service::{Service, service_fn};
use hyper_session::store::{Backend, Memory, Replaced, Store, Stored};
use hyper_session::testing::{FakeClock, check_backend};
use hyper_session::{
    AppKey, Clock, CookieStore, Error, Event, ServerStore, Session, SessionExt, SessionId, SessionService,
    Timestamp,
};
use proptest::prelude::*;
use proptest::sample::Index;
use support::{Answer, Body, Events, Jar, block_on, request, set_cookies, status, visit};
use tokio::task::yield_now;

const NAME: &str = "__Host-session";
const START: u64 = 1_000_000;

// ---- Backends and the suite that judges them ----------------------------------------------------------------------

/// The simplest backend that keeps the contract, and one mistake at a time.
#[derive(Default)]
struct Plain {
    entries: Mutex<HashMap<SessionId, Stored>>,
    fault: Fault,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Fault {
    #[default]
    None,
    FetchIgnoresId,
    FetchShowsExpired,
    CreateOverwrites,
    CreateWritesThoughItFails,
    CreateIsTwoSteps,
    CreateIsBlockedByExpired,
    CreateForgetsTheDeadline,
    ReplaceIgnoresExpected,
    ReplaceCreates,
    ReplaceWritesThoughMissing,
    ReplaceWritesThoughInConflict,
    ReplaceShowsWhatWasExpected,
    ReplaceRemovesUncompared,
    ReplaceRemovesNothing,
    ReplaceComparesLengths,
    ReplaceComparesLengthsButToRemove,
    ReplaceComparesUpToNul,
    ReplaceComparesAsText,
    ReplaceIsTwoSteps,
    ReplaceFindsExpired,
    ReplaceKeepsTheDeadline,
    TouchRewrites,
    TouchCreates,
    TouchWritesThoughMissing,
    TouchMovesNothing,
    TouchOnlyExtends,
    TouchFindsExpired,
    DeleteLeavesTheEntry,
    DeleteLeavesAnEmptyEntry,
}

impl Plain {
    fn with(fault: Fault) -> Self {
        Self { fault, ..Self::default() }
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    /// One atomic step: sees the entry that is there at `now`, and leaves what is to be there.
    fn step<R>(&self, id: SessionId, now: Timestamp, step: impl FnOnce(&mut Option<Stored>) -> R) -> R {
        let mut entries = self.entries.lock().unwrap();
        // An entry that is over stays until it is overwritten: purging it would hide mistakes in what comes next.
        let (mut entry, over) = match entries.remove(&id) {
            Some(stored) if stored.expires > now => (Some(stored), None),
            over => (None, over),
        };
        let answer = step(&mut entry);
        entry.or(over).map(|entry| entries.insert(id, entry));
        answer
    }

    /// What the comparison of `replace` says, by this backend's lights.
    fn is_expected(&self, current: &[u8], expected: &[u8], removing: bool) -> bool {
        let until_nul = |value: &[u8]| value.split(|byte| *byte == 0).next().unwrap().to_vec();
        match self.fault {
            Fault::ReplaceIgnoresExpected => true,
            Fault::ReplaceRemovesUncompared if removing => true,
            Fault::ReplaceComparesLengths => current.len() == expected.len(),
            Fault::ReplaceComparesLengthsButToRemove if !removing => current.len() == expected.len(),
            Fault::ReplaceComparesUpToNul => until_nul(current) == until_nul(expected),
            Fault::ReplaceComparesAsText => {
                String::from_utf8_lossy(current) == String::from_utf8_lossy(expected)
            }
            _ => current == expected,
        }
    }
}

impl Backend for Plain {
    async fn fetch(&self, id: SessionId, now: Timestamp) -> Result<Option<Stored>, Error> {
        let entries = self.entries.lock().unwrap();
        let found = if self.has(Fault::FetchIgnoresId) { entries.values().next() } else { entries.get(&id) };
        Ok(found.filter(|stored| stored.expires > now || self.has(Fault::FetchShowsExpired)).cloned())
    }

    async fn create(&self, id: SessionId, mut new: Stored, now: Timestamp) -> Result<bool, Error> {
        if self.has(Fault::CreateIsTwoSteps) {
            let free = self.fetch(id, now).await?.is_none();
            yield_now().await;
            if free {
                self.step(id, now, |entry| *entry = Some(new));
            }
            return Ok(free);
        }
        if self.has(Fault::CreateForgetsTheDeadline) {
            new.expires = Timestamp::MAX;
        }
        let seen_from = if self.has(Fault::CreateIsBlockedByExpired) { Timestamp::from_unix(0) } else { now };
        Ok(self.step(id, seen_from, |entry| {
            let free = entry.is_none() || self.has(Fault::CreateOverwrites);
            if free || self.has(Fault::CreateWritesThoughItFails) {
                *entry = Some(new);
            }
            free
        }))
    }

    async fn replace(
        &self,
        id: SessionId,
        expected: Bytes,
        mut new: Option<Stored>,
        now: Timestamp,
    ) -> Result<Replaced, Error> {
        if self.has(Fault::ReplaceIsTwoSteps) {
            let current = self.fetch(id, now).await?;
            yield_now().await;
            return Ok(match current {
                None => Replaced::Missing,
                Some(current) if current.value != expected => Replaced::Conflict(current),
                Some(_) => self.step(id, now, |entry| {
                    *entry = new;
                    Replaced::Done
                }),
            });
        }
        let seen_from = if self.has(Fault::ReplaceFindsExpired) { Timestamp::from_unix(0) } else { now };
        Ok(self.step(id, seen_from, |entry| match entry {
            None if self.has(Fault::ReplaceCreates) => {
                *entry = new;
                Replaced::Done
            }
            None => {
                if self.has(Fault::ReplaceWritesThoughMissing) {
                    *entry = new;
                }
                Replaced::Missing
            }
            Some(current) if !self.is_expected(&current.value, &expected, new.is_none()) => {
                let mut shown = current.clone();
                if self.has(Fault::ReplaceShowsWhatWasExpected) {
                    shown.value = expected;
                }
                if self.has(Fault::ReplaceWritesThoughInConflict) {
                    *entry = new;
                }
                Replaced::Conflict(shown)
            }
            Some(current) => {
                if let (Fault::ReplaceKeepsTheDeadline, Some(new)) = (self.fault, &mut new) {
                    new.expires = current.expires;
                }
                if new.is_some() || !self.has(Fault::ReplaceRemovesNothing) {
                    *entry = new;
                }
                Replaced::Done
            }
        }))
    }

    async fn touch(&self, id: SessionId, expires: Timestamp, now: Timestamp) -> Result<bool, Error> {
        let seen_from = if self.has(Fault::TouchFindsExpired) { Timestamp::from_unix(0) } else { now };
        Ok(self.step(id, seen_from, |entry| {
            let empty = Stored { value: Bytes::new(), expires };
            match (entry, self.fault) {
                (entry @ None, Fault::TouchWritesThoughMissing) => {
                    *entry = Some(empty);
                    false
                }
                (entry @ None, Fault::TouchCreates) | (entry @ Some(_), Fault::TouchRewrites) => {
                    *entry = Some(empty);
                    true
                }
                (None, _) => false,
                (Some(_), Fault::TouchMovesNothing) => true,
                (Some(stored), Fault::TouchOnlyExtends) => {
                    stored.expires = stored.expires.max(expires);
                    true
                }
                (Some(stored), _) => {
                    stored.expires = expires;
                    true
                }
            }
        }))
    }

    async fn delete(&self, id: SessionId) -> Result<(), Error> {
        self.step(id, Timestamp::from_unix(0), |entry| match (entry, self.fault) {
            (_, Fault::DeleteLeavesTheEntry) => {}
            (Some(stored), Fault::DeleteLeavesAnEmptyEntry) => stored.value = Bytes::new(),
            (entry, _) => *entry = None,
        });
        Ok(())
    }
}

/// What the suite says of `backend`: `None` if it finds nothing.
fn verdict(backend: &impl Backend) -> Option<String> {
    let check = || block_on(check_backend(backend, Timestamp::from_unix(START)));
    let panic = std::panic::catch_unwind(AssertUnwindSafe(check)).err()?;
    Some(match panic.downcast::<String>() {
        Ok(message) => *message,
        Err(panic) => (*panic.downcast_ref::<&str>().expect("a panic with a message")).to_owned(),
    })
}

#[test]
fn backends_that_keep_the_contract_pass_the_suite() {
    assert_eq!(verdict(&Memory::new()), None);
    assert_eq!(verdict(&Plain::default()), None);
    assert_eq!(verdict(&Watched::default()), None);
}

/// Each mistake is found, and named for what it is.
fn assert_found(cases: &[(Fault, &str)]) {
    let missed: Vec<_> = cases
        .iter()
        .filter_map(|(fault, why)| match verdict(&Plain::with(*fault)) {
            Some(message) if message.contains(why) => None,
            other => Some(format!("{fault:?}: {other:?} instead of {why:?}")),
        })
        .collect();
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn the_suite_finds_broken_backends() {
    use Fault::*;
    assert_found(&[
        (FetchIgnoresId, "entries of other ids must not show"),
        (FetchShowsExpired, "an entry that expires now must not be returned"),
        (CreateOverwrites, "create of an id that exists must fail"),
        (CreateWritesThoughItFails, "a failed create must not write"),
        (CreateIsTwoSteps, "of two creates at once one must win"),
        (CreateIsBlockedByExpired, "its id is free again"),
        (CreateForgetsTheDeadline, "an entry that expires now must not be returned"),
        (ReplaceIgnoresExpected, "another value must be a conflict"),
        (ReplaceCreates, "replace must not create"),
        (ReplaceWritesThoughMissing, "a replace that found nothing must not write"),
        (ReplaceWritesThoughInConflict, "a conflict must not write"),
        (ReplaceShowsWhatWasExpected, "a conflict must show the present value"),
        (ReplaceRemovesUncompared, "removal must compare, too"),
        (ReplaceRemovesNothing, "replaced by nothing is removed"),
        (ReplaceComparesLengths, "removal must compare, too"),
        (ReplaceComparesLengthsButToRemove, "of two replaces of one value one must win"),
        (ReplaceIsTwoSteps, "of two replaces of one value one must win"),
        (ReplaceFindsExpired, "nor replaced"),
        (TouchRewrites, "touch must keep the value"),
        (TouchCreates, "touch must not create"),
        (TouchWritesThoughMissing, "a touch that found nothing must not write"),
        (TouchMovesNothing, "touch must move the deadline"),
        (TouchFindsExpired, "nor touched"),
        (DeleteLeavesTheEntry, "deleted must be gone"),
        (DeleteLeavesAnEmptyEntry, "deleted must be gone"),
    ]);
}

/// The contract says "byte for byte": Redis scripts and SQL collations have gone wrong here.
#[test]
fn the_suite_finds_backends_that_do_not_compare_every_byte() {
    use Fault::*;
    assert_found(&[(ReplaceComparesUpToNul, "compare"), (ReplaceComparesAsText, "compare")]);
}

/// An entry that keeps its first deadline logs busy users out; one that cannot be shortened outlives its session.
#[test]
fn the_suite_finds_backends_that_set_no_deadline() {
    use Fault::*;
    assert_found(&[(ReplaceKeepsTheDeadline, "deadline"), (TouchOnlyExtends, "deadline")]);
}

// ---- A backend to watch -------------------------------------------------------------------------------------------

/// `Memory`, with a list of the ids that are stored; each call waits for its turn, once, where `in_turns` is true. A clone
/// is the same backend, so that several servers can share it.
#[derive(Clone, Default)]
struct Watched {
    memory: Arc<Memory>,
    stored: Arc<Mutex<BTreeSet<SessionId>>>,
    in_turns: bool,
}

impl Watched {
    fn in_turns() -> Self {
        Self { in_turns: true, ..Self::default() }
    }

    /// Every poll of a request is a permit to make one call: whoever polls decides on the order of all calls.
    async fn turn(&self) {
        if self.in_turns {
            yield_now().await;
        }
    }

    fn ids(&self) -> BTreeSet<SessionId> {
        self.stored.lock().unwrap().clone()
    }
}

impl Backend for Watched {
    async fn fetch(&self, id: SessionId, now: Timestamp) -> Result<Option<Stored>, Error> {
        self.turn().await;
        self.memory.fetch(id, now).await
    }

    async fn create(&self, id: SessionId, entry: Stored, now: Timestamp) -> Result<bool, Error> {
        self.turn().await;
        let created = self.memory.create(id, entry, now).await?;
        if created {
            self.stored.lock().unwrap().insert(id);
        }
        Ok(created)
    }

    async fn replace(
        &self,
        id: SessionId,
        expected: Bytes,
        entry: Option<Stored>,
        now: Timestamp,
    ) -> Result<Replaced, Error> {
        self.turn().await;
        let removes = entry.is_none();
        let replaced = self.memory.replace(id, expected, entry, now).await?;
        if removes && replaced == Replaced::Done {
            self.stored.lock().unwrap().remove(&id);
        }
        Ok(replaced)
    }

    async fn touch(&self, id: SessionId, expires: Timestamp, now: Timestamp) -> Result<bool, Error> {
        self.turn().await;
        self.memory.touch(id, expires, now).await
    }

    async fn delete(&self, id: SessionId) -> Result<(), Error> {
        self.turn().await;
        self.memory.delete(id).await?;
        self.stored.lock().unwrap().remove(&id);
        Ok(())
    }
}

// ---- All stores against one model ---------------------------------------------------------------------------------

const IDLE: u64 = 600;
const ABSOLUTE: u64 = 2_000;
const RENEWAL: u64 = 60;

type Values = BTreeMap<String, i64>;

/// What a handler does.
#[derive(Clone, Debug)]
enum Op {
    Look,
    Get(&'static str),
    Set(&'static str, i64),
    Delete(&'static str),
    Clear,
    Update(&'static str, i64),
    SetFlash(&'static str, i64),
    Flash(&'static str),
    Peek(&'static str),
    Regenerate,
    Destroy,
    Save,
}

/// What it sees.
#[derive(Clone, Debug, PartialEq)]
enum Seen<Id> {
    Nothing,
    /// Id, beginning and end of the stored session, and the keys that have values now.
    Session(Option<(Id, u64, u64)>, Vec<String>),
    Value(Option<i64>),
    Removed(bool),
}

#[derive(Clone, Debug)]
enum Step {
    Visit {
        client: usize,
        ops: Vec<Op>,
        fails: bool,
    },
    Wait(u64),
    /// Moves the clock to the deadline of this client's session, or a second before or after it.
    WaitForDeadline {
        client: usize,
        offset: i64,
    },
    /// The client's cookie is one of those that it once had.
    Replay {
        client: usize,
        which: Index,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let key = || prop_oneof![Just("a"), Just("b"), Just("c")];
    let value = || 0..3_i64;
    // So many that what a request changed and then updates is never by chance what was stored before: whether that is a
    // change has a test of its own.
    let amount = || 1_000..1_000_000_000_i64;
    prop_oneof![
        2 => Just(Op::Look),
        3 => key().prop_map(Op::Get),
        5 => (key(), value()).prop_map(|(key, value)| Op::Set(key, value)),
        3 => key().prop_map(Op::Delete),
        1 => Just(Op::Clear),
        4 => (key(), amount()).prop_map(|(key, amount)| Op::Update(key, amount)),
        2 => (key(), value()).prop_map(|(key, value)| Op::SetFlash(key, value)),
        2 => key().prop_map(Op::Flash),
        1 => key().prop_map(Op::Peek),
        2 => Just(Op::Regenerate),
        1 => Just(Op::Destroy),
        2 => Just(Op::Save),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let client = || 0..2_usize;
    prop_oneof![
        8 => (client(), proptest::collection::vec(op(), 1..6), proptest::bool::weighted(0.15))
            .prop_map(|(client, ops, fails)| Step::Visit { client, ops, fails }),
        2 => client().prop_map(|client| Step::Visit { client, ops: vec![Op::Look, Op::Get("a")], fails: false }),
        2 => (0..=IDLE).prop_map(Step::Wait),
        1 => (client(), -1..=1_i64).prop_map(|(client, offset)| Step::WaitForDeadline { client, offset }),
        1 => (client(), any::<Index>()).prop_map(|(client, which)| Step::Replay { client, which }),
    ]
}

/// Does `ops` to the session, and notes what is seen.
async fn perform(session: &Session, ops: &[Op]) -> Result<Vec<Seen<SessionId>>, Error> {
    let mut seen = Vec::new();
    for op in ops.iter().cloned() {
        seen.push(match op {
            Op::Look => {
                let id = session.id().map(|id| {
                    (id, session.created_at().unwrap().as_unix(), session.expires_at().unwrap().as_unix())
                });
                Seen::Session(id, session.keys())
            }
            Op::Get(key) => Seen::Value(session.get(key)?),
            Op::Peek(key) => Seen::Value(session.peek(key)?),
            Op::Flash(key) => Seen::Value(session.flash(key)?),
            Op::Delete(key) => Seen::Removed(session.delete(key)?),
            Op::Update(key, n) => {
                Seen::Value(Some(session.update(key, move |old: Option<i64>| old.unwrap_or(0) + n)?))
            }
            Op::Set(key, value) => session.set(key, value).map(|()| Seen::Nothing)?,
            Op::SetFlash(key, value) => session.set_flash(key, value).map(|()| Seen::Nothing)?,
            Op::Clear => session.clear().map(|()| Seen::Nothing)?,
            Op::Regenerate => session.regenerate().map(|()| Seen::Nothing)?,
            Op::Destroy => session.destroy().map(|()| Seen::Nothing)?,
            Op::Save => session.save().await.map(|()| Seen::Nothing)?,
        });
    }
    Ok(seen)
}

/// A session as the model knows it. `name` stands for the id: the real one is compared where it is seen.
#[derive(Clone, Debug, PartialEq)]
struct Kept {
    name: u64,
    created: u64,
    expires: u64,
    values: Values,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Cookie {
    AsItWas,
    Set,
    Removed,
}

/// What all stores promise, in the plainest words: what each token stands for.
struct Model {
    /// A server-side store has one state of a session, and tokens that it can take back.
    server_side: bool,
    tokens: HashMap<String, Kept>,
    names: u64,
}

/// One request.
struct Draft {
    found: bool,
    base: Option<Kept>,
    values: Values,
    cleared: bool,
    regenerate: bool,
    destroyed: bool,
    cookie: Cookie,
}

impl Model {
    /// Plays a request, and returns what its handler sees and what becomes of the cookie.
    fn visit(&mut self, now: u64, token: Option<&str>, ops: &[Op], fails: bool) -> (Vec<Seen<u64>>, Draft) {
        let base = token.and_then(|token| self.tokens.get(token)).filter(|kept| now < kept.expires).cloned();
        let mut draft = Draft {
            found: base.is_some(),
            values: base.as_ref().map(|base| base.values.clone()).unwrap_or_default(),
            cookie: if base.is_none() && token.is_some() { Cookie::Removed } else { Cookie::AsItWas },
            base,
            cleared: false,
            regenerate: false,
            destroyed: false,
        };
        let seen = ops.iter().map(|op| self.play(now, &mut draft, op)).collect();
        self.commit(now, &mut draft, !fails);
        (seen, draft)
    }

    fn play(&mut self, now: u64, draft: &mut Draft, op: &Op) -> Seen<u64> {
        let flash = |key: &str| format!("flash {key}");
        match *op {
            Op::Look => {
                let keys = draft.values.keys().filter(|key| !key.starts_with("flash")).cloned().collect();
                Seen::Session(draft.base.as_ref().map(|base| (base.name, base.created, base.expires)), keys)
            }
            Op::Get(key) => Seen::Value(draft.values.get(key).copied()),
            Op::Peek(key) => Seen::Value(draft.values.get(&flash(key)).copied()),
            Op::Flash(key) => Seen::Value(draft.values.remove(&flash(key))),
            Op::Delete(key) => Seen::Removed(draft.values.remove(key).is_some()),
            Op::Update(key, n) => {
                let value = draft.values.entry(key.to_owned()).or_default();
                *value += n;
                Seen::Value(Some(*value))
            }
            _ => {
                match *op {
                    Op::Set(key, value) => drop(draft.values.insert(key.to_owned(), value)),
                    Op::SetFlash(key, value) => drop(draft.values.insert(flash(key), value)),
                    Op::Clear => {
                        draft.cleared |= !draft.values.is_empty();
                        draft.values.clear();
                    }
                    Op::Regenerate => draft.regenerate = true,
                    Op::Destroy => {
                        draft.values.clear();
                        (draft.destroyed, draft.regenerate) = (true, false);
                    }
                    _ => self.commit(now, draft, true), // Op::Save
                }
                Seen::Nothing
            }
        }
    }

    fn commit(&mut self, now: u64, draft: &mut Draft, accepted: bool) {
        let before = draft.base.as_ref().map(|base| base.values.clone()).unwrap_or_default();
        if !accepted {
            draft.values = if draft.destroyed { Values::new() } else { before.clone() };
            draft.cleared = false;
        }
        let changed = draft.cleared || draft.values != before;
        let values = draft.values.clone();
        let deadline = |created: u64| (now + IDLE).min(created + ABSOLUTE);
        let mut name = || {
            self.names += 1;
            self.names
        };
        let mut fresh =
            |created| Kept { name: name(), created, expires: deadline(created), values: values.clone() };
        let after = match draft.base.clone() {
            None if values.is_empty() => None,
            None => Some(fresh(now)),
            Some(_) if draft.destroyed && !values.is_empty() => Some(fresh(now)),
            Some(_) if draft.destroyed || changed && values.is_empty() => None,
            Some(base) if draft.regenerate => Some(fresh(base.created)),
            Some(base) if changed || deadline(base.created) >= base.expires + RENEWAL => {
                Some(Kept { expires: deadline(base.created), values: values.clone(), ..base })
            }
            unchanged => unchanged,
        };
        // A cleared and refilled session is written although nothing else is new.
        if after != draft.base || changed && after.is_some() {
            draft.cookie = if after.is_some() { Cookie::Set } else { Cookie::Removed };
        }
        draft.base = after;
        (draft.cleared, draft.regenerate, draft.destroyed) = (false, false, false);
    }

    /// Takes in what a request left, under the token that the client has now.
    fn settle(&mut self, before: Option<&str>, after: Option<&str>, draft: Draft) {
        // A session that was over when the request came is refused, and left to the backend to free.
        if let (true, true, true, Some(before)) =
            (self.server_side, draft.found, draft.cookie != Cookie::AsItWas, before)
        {
            self.tokens.remove(before);
        }
        if let (Cookie::Set, Some(after), Some(kept)) = (draft.cookie, after, draft.base) {
            self.tokens.insert(after.to_owned(), kept);
        }
    }
}

/// What a request shall do, and what came of it: both travel beside the messages.
#[derive(Clone)]
struct Script(Vec<Op>, bool);

#[derive(Clone)]
struct Report(Vec<Seen<SessionId>>);

async fn play_script(request: Request<Body>) -> Answer {
    let Script(ops, fails) = request.extensions().get::<Script>().unwrap().clone();
    let seen = perform(&request.session().await?, &ops).await?;
    let mut response = status(if fails { 500 } else { 200 });
    response.extensions_mut().insert(Report(seen));
    Ok(response)
}

/// Plays `steps` on a store and on the model, and compares after each.
struct Comparison<S> {
    service: S,
    clock: FakeClock,
    model: Model,
    /// The real ids of the model's names.
    ids: BTreeMap<u64, SessionId>,
    jars: [Jar; 2],
    /// All tokens that a client ever had.
    history: [Vec<String>; 2],
}

impl<S> Comparison<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Error>,
{
    fn now(&self) -> u64 {
        self.clock.now().as_unix()
    }

    async fn step(&mut self, step: &Step) {
        match step {
            Step::Visit { client, ops, fails } => {
                let mut jar = std::mem::take(&mut self.jars[*client]);
                self.visit(&mut jar, ops, *fails).await;
                if let Some(token) = jar.get(NAME) {
                    self.history[*client].push(token.to_owned());
                }
                self.jars[*client] = jar;
            }
            Step::Wait(seconds) => self.clock.advance(Duration::from_secs(*seconds)),
            Step::WaitForDeadline { client, offset } => {
                let kept = self.jars[*client].get(NAME).and_then(|token| self.model.tokens.get(token));
                let then = kept.map_or(0, |kept| kept.expires.saturating_add_signed(*offset));
                self.clock.set(then.max(self.now()));
            }
            Step::Replay { client, which } => {
                if !self.history[*client].is_empty() {
                    self.jars[*client] = Jar::with(NAME, which.get::<String>(&self.history[*client]));
                }
            }
        }
    }

    async fn visit(&mut self, jar: &mut Jar, ops: &[Op], fails: bool) {
        let before = jar.get(NAME).map(str::to_owned);
        let mut request = request("/", jar.header().as_deref());
        request.extensions_mut().insert(Script(ops.to_vec(), fails));
        let response = self.service.call(request).await.unwrap();
        let Report(seen) = response.extensions().get().cloned().expect("the handler's own response");
        let (expected, draft) = self.model.visit(self.now(), before.as_deref(), ops, fails);
        for ((op, seen), expected) in ops.iter().zip(&seen).zip(expected) {
            let expected = self.with_real_id(expected, seen);
            assert_eq!(*seen, expected, "{op:?} of {ops:?}");
        }

        let lines = set_cookies(response.headers());
        let removed = lines.iter().any(|line| line.contains("Max-Age=0"));
        let cookie = match (lines.len(), removed) {
            (0, _) => Cookie::AsItWas,
            (1, true) => Cookie::Removed,
            (1, false) => Cookie::Set,
            _ => panic!("more than one cookie: {lines:?}"),
        };
        assert_eq!(cookie, draft.cookie, "the cookie after {ops:?}, fails: {fails}");
        if let (Cookie::Set, Some(kept)) = (cookie, &draft.base) {
            let lifetime = format!("Max-Age={};", kept.expires - self.now());
            assert!(lines[0].contains(&lifetime), "{lifetime} in {}", lines[0]);
        }
        jar.store(response.headers());
        self.model.settle(before.as_deref(), jar.get(NAME), draft);
    }

    /// Puts the real id in the place of the model's name for it. A name that is new to the model has an id that nobody
    /// had before: that is what regenerating is for.
    fn with_real_id(&mut self, expected: Seen<u64>, seen: &Seen<SessionId>) -> Seen<SessionId> {
        match expected {
            Seen::Session(Some((name, created, expires)), keys) => {
                if let (None, Seen::Session(Some((id, ..)), _)) = (self.ids.get(&name), seen) {
                    assert!(!self.ids.values().any(|known| known == id), "an id for the second time");
                    self.ids.insert(name, *id);
                }
                let id = self.ids.get(&name).copied().unwrap_or(SessionId::from_bytes([0; 16]));
                Seen::Session(Some((id, created, expires)), keys)
            }
            Seen::Session(None, keys) => Seen::Session(None, keys),
            Seen::Nothing => Seen::Nothing,
            Seen::Value(value) => Seen::Value(value),
            Seen::Removed(removed) => Seen::Removed(removed),
        }
    }
}

/// Plays `steps` on `store` and on the model. `count` is how many entries the store has, if it has entries.
fn compare_to_model<S: Store + Clone>(
    store: &S,
    clock: FakeClock,
    count: impl Fn(&S) -> Option<usize>,
    steps: &[Step],
) {
    block_on(async {
        let mut comparison = Comparison {
            service: SessionService::new(service_fn(play_script), store.clone()),
            clock,
            model: Model { server_side: count(store).is_some(), tokens: HashMap::new(), names: 0 },
            ids: BTreeMap::new(),
            jars: Default::default(),
            history: Default::default(),
        };
        for step in steps {
            comparison.step(step).await;
            if let Some(count) = count(store) {
                assert_eq!(count, comparison.model.tokens.len(), "entries in the store after {step:?}");
            }
        }
        // Every token that was ever out: those taken back are refused, the others show what they should.
        let tokens: Vec<_> = comparison.history.concat();
        for token in tokens {
            let look = [Op::Look, Op::Get("a"), Op::Get("b"), Op::Get("c")];
            comparison.visit(&mut Jar::with(NAME, &token), &look, false).await;
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn t18_t22_t30_cookie_store_does_what_the_model_does(steps in proptest::collection::vec(step(), 1..25)) {
        let clock = FakeClock::at(START);
        let store = CookieStore::builder(AppKey::generate().unwrap())
            .idle_timeout(Duration::from_secs(IDLE))
            .absolute_timeout(Duration::from_secs(ABSOLUTE))
            .renewal_threshold(Duration::from_secs(RENEWAL))
            .clock(clock.clone())
            .build()
            .unwrap();
        compare_to_model(&store, clock, |_| None, &steps);
    }

    #[test]
    fn t19_t22_t25_t30_t32_t71_server_store_does_what_the_model_does(
        steps in proptest::collection::vec(step(), 1..25),
    ) {
        let clock = FakeClock::at(START);
        let store = ServerStore::with_backend(Watched::default())
            .idle_timeout(Duration::from_secs(IDLE))
            .absolute_timeout(Duration::from_secs(ABSOLUTE))
            .renewal_threshold(Duration::from_secs(RENEWAL))
            .clock(clock.clone())
            .build()
            .unwrap();
        compare_to_model(&store, clock, |store| Some(store.backend().ids().len()), &steps);
    }
}

/// Whatever leads there, a value equal to the stored one is no change: nothing is written, no cookie set.
#[test]
fn changes_that_lead_back_to_the_stored_value_write_nothing() {
    let cases: [(&str, &[Op]); 6] = [
        ("set", &[Op::Set("a", 1)]),
        ("set twice", &[Op::Set("a", 2), Op::Set("a", 1)]),
        ("delete, set", &[Op::Delete("a"), Op::Set("a", 1)]),
        ("update by nothing", &[Op::Update("a", 0)]),
        ("set, update", &[Op::Set("a", 0), Op::Update("a", 1)]),
        ("delete, update", &[Op::Delete("a"), Op::Update("a", 1)]),
    ];
    let store = CookieStore::builder(AppKey::generate().unwrap()).build().unwrap();
    let service = SessionService::new(service_fn(play_script), store);
    let call = |jar: &mut Jar, ops: &[Op]| {
        let mut request = request("/", jar.header().as_deref());
        request.extensions_mut().insert(Script(ops.to_vec(), false));
        let response = run(service.call(request)).unwrap();
        jar.store(response.headers());
        set_cookies(response.headers()).len()
    };
    let mut jar = Jar::new();
    call(&mut jar, &[Op::Set("a", 1)]);
    let written: Vec<_> =
        cases.iter().filter(|(_, ops)| call(&mut jar.clone(), ops) != 0).map(|(name, _)| name).collect();
    assert!(written.is_empty(), "{written:?}");
}

// ---- Every interleaving -------------------------------------------------------------------------------------------

/// What one of several requests does to the session that they share, which is `n = 5` at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Set,
    Update,
    DeleteLast,
    Clear,
    Regenerate,
    RegenerateAndSet,
    Destroy,
    DestroyAndSet,
    Touch,
    /// Not in `DEEDS`: it has a test of its own.
    RegenerateAndDeleteLast,
}

const DEEDS: [Deed; 9] = [
    Deed::Set,
    Deed::Update,
    Deed::DeleteLast,
    Deed::Clear,
    Deed::Regenerate,
    Deed::RegenerateAndSet,
    Deed::Destroy,
    Deed::DestroyAndSet,
    Deed::Touch,
];

/// A session: when it began, and its values.
type State = (u64, Values);

impl Deed {
    fn perform(self, session: &Session, client: usize) -> Result<(), Error> {
        let set = || session.set(&format!("client{client}"), 1);
        match self {
            Self::Set => set(),
            Self::Update => session.update("n", |old: Option<i64>| old.unwrap_or(0) + 1).map(drop),
            Self::DeleteLast => session.delete("n").map(drop),
            Self::Clear => session.clear(),
            Self::Regenerate => session.regenerate(),
            Self::RegenerateAndSet => session.regenerate().and_then(|()| set()),
            Self::Destroy => session.destroy(),
            Self::DestroyAndSet => session.destroy().and_then(|()| set()),
            Self::RegenerateAndDeleteLast => {
                session.regenerate().and_then(|()| session.delete("n").map(drop))
            }
            Self::Touch => session.get::<i64>("n").map(drop),
        }
    }

    fn sets(self) -> bool {
        matches!(self, Self::Set | Self::RegenerateAndSet | Self::DestroyAndSet)
    }

    fn regenerates(self) -> bool {
        matches!(
            self,
            Self::Regenerate | Self::RegenerateAndSet | Self::RegenerateAndDeleteLast | Self::DestroyAndSet
        )
    }

    fn ends(self) -> bool {
        matches!(self, Self::DeleteLast | Self::RegenerateAndDeleteLast | Self::Clear | Self::Destroy)
    }

    /// What this does alone, at `now`: the session after it, if there is one.
    fn alone(self, client: usize, (created, mut values): State) -> Option<State> {
        let created = if self == Self::DestroyAndSet { NOW } else { created };
        if matches!(self, Self::Clear | Self::Destroy | Self::DestroyAndSet) {
            values.clear();
        }
        if self == Self::Update {
            *values.entry("n".to_owned()).or_default() += 1;
        }
        if matches!(self, Self::DeleteLast | Self::RegenerateAndDeleteLast) {
            values.remove("n");
        }
        if self.sets() {
            values.insert(format!("client{client}"), 1);
        }
        (!values.is_empty()).then_some((created, values))
    }
}

/// The shared session began at `START`; the requests come later, when its renewal is due.
const NOW: u64 = START + RENEWAL;

/// One client of several: its request, its cookies, and what is known of it.
struct Client {
    deed: Deed,
    jar: Jar,
    future: Option<Pin<Box<dyn Future<Output = Result<Response<Body>, Error>>>>>,
    /// It found the shared session when it loaded.
    found: Arc<Mutex<Option<bool>>>,
    /// It was told, by an event, that its changes were dropped because the session had ended.
    dropped: bool,
    begun: usize,
    done: usize,
}

/// How a schedule ended.
struct Ended {
    clients: Vec<Client>,
    /// What the clients' cookies lead to, by id, each session once.
    sessions: BTreeMap<SessionId, State>,
    /// What the store holds.
    stored: BTreeSet<SessionId>,
    /// All of that, for the message of a failure.
    context: String,
}

fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Polls to the end: nothing here waits for anything but a turn.
fn run<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    for _ in 0..10_000 {
        if let Poll::Ready(output) = poll_once(future.as_mut()) {
            return output;
        }
    }
    panic!("a future that does not end");
}

/// A server's store over `backend`. Requests that are interleaved each have a server of their own, as no server can rely
/// on seeing the others' requests.
fn server(backend: &Watched, clock: &FakeClock, events: &Events) -> ServerStore<Watched> {
    ServerStore::with_backend(backend.clone())
        .idle_timeout(Duration::from_secs(IDLE))
        .renewal_threshold(Duration::from_secs(RENEWAL))
        .clock(clock.clone())
        .observer(events.clone())
        .build()
        .unwrap()
}

/// The jar of a client that has the shared session.
fn shared_session(store: &ServerStore<Watched>) -> Jar {
    let service = SessionService::new(
        service_fn(|request: Request<Body>| async move {
            request.session().await?.set("n", 5)?;
            Ok::<_, Error>(status(200))
        }),
        store.clone(),
    );
    let mut jar = Jar::new();
    run(visit(&service, "/", &mut jar));
    jar
}

/// What a cookie leads to.
#[derive(Clone)]
struct Found {
    id: SessionId,
    expires: u64,
    state: State,
}

fn look(store: &ServerStore<Watched>, jar: &Jar) -> Option<Found> {
    let found = Arc::new(Mutex::new(None));
    let to_fill = Arc::clone(&found);
    let service = SessionService::new(
        service_fn(move |request: Request<Body>| {
            let found = Arc::clone(&to_fill);
            async move {
                let session = request.session().await?;
                let values = session.keys().into_iter().map(|key| {
                    let value = session.get(&key).unwrap().unwrap();
                    (key, value)
                });
                *found.lock().unwrap() = session.id().map(|id| Found {
                    id,
                    expires: session.expires_at().unwrap().as_unix(),
                    state: (session.created_at().unwrap().as_unix(), values.collect()),
                });
                Ok::<_, Error>(status(200))
            }
        }),
        store.clone(),
    );
    run(visit(&service, "/", &mut jar.clone()));
    found.lock().unwrap().take()
}

/// Lets the requests of `deeds` take their turns as `choices` say: the number of the client among those not done yet.
/// Returns how it ended, and of how many each choice was; where `choices` ends, the first goes on. If they are to start
/// `loaded`, each takes the turns up to its first write beforehand.
fn play(deeds: &[Deed], loaded: bool, choices: &[usize]) -> (Ended, Vec<(usize, usize)>) {
    let (backend, clock, events) = (Watched::in_turns(), FakeClock::at(START), Events::new());
    let store = server(&backend, &clock, &events);
    let jar = shared_session(&store);
    clock.set(NOW);

    let mut clients: Vec<Client> = Vec::new();
    for (number, &deed) in deeds.iter().enumerate() {
        let found = Arc::new(Mutex::new(None));
        let to_fill = Arc::clone(&found);
        let service = SessionService::new(
            service_fn(move |request: Request<Body>| {
                let found = Arc::clone(&to_fill);
                async move {
                    let session = request.session().await?;
                    *found.lock().unwrap() = Some(session.id().is_some());
                    deed.perform(&session, number)?;
                    Ok::<_, Error>(status(200))
                }
            }),
            server(&backend, &clock, &events),
        );
        let request = request("/", jar.header().as_deref());
        let future: Pin<Box<dyn Future<Output = _>>> = Box::pin(async move { service.call(request).await });
        let (jar, future) = (jar.clone(), Some(future));
        clients.push(Client {
            deed,
            jar,
            future,
            found,
            dropped: false,
            begun: usize::MAX,
            done: usize::MAX,
        });
    }
    events.take();

    if loaded {
        for client in &mut clients {
            let future = client.future.as_mut().unwrap();
            assert!(poll_once(future.as_mut()).is_pending() && poll_once(future.as_mut()).is_pending());
            client.begun = 0;
        }
    }
    let (mut taken, mut turns) = (Vec::new(), Vec::new());
    loop {
        let waiting: Vec<usize> =
            (0..clients.len()).filter(|&client| clients[client].future.is_some()).collect();
        if waiting.is_empty() {
            break;
        }
        let choice = choices.get(taken.len()).copied().unwrap_or(0);
        taken.push((choice, waiting.len()));
        let client = &mut clients[waiting[choice]];
        turns.push(waiting[choice]);
        client.begun = client.begun.min(turns.len());
        if let Poll::Ready(response) = poll_once(client.future.as_mut().unwrap().as_mut()) {
            let response = response.unwrap();
            assert_eq!(response.status(), 200, "{deeds:?} {turns:?}");
            client.jar.store(response.headers());
            client.done = turns.len();
            client.future = None;
        }
        client.dropped |= events.take().contains(&"dropped:session_ended".to_owned());
        assert!(turns.len() < 200, "{deeds:?} never ends: {turns:?}");
    }
    let stored = backend.ids();
    let mut sessions = BTreeMap::new();
    for found in clients.iter().filter_map(|client| look(&store, &client.jar)) {
        assert_eq!(found.expires, NOW + IDLE, "the deadline after {deeds:?}, turns {turns:?}");
        sessions.insert(found.id, found.state);
    }
    let context = format!("{deeds:?}, turns {turns:?}, stored {stored:?}, sessions {sessions:?}");
    (Ended { clients, sessions, stored, context }, taken)
}

/// Plays every schedule there is, and returns how many that are.
fn every_schedule(deeds: &[Deed], check: impl Fn(&Ended)) -> usize {
    schedules(deeds, false, check)
}

fn schedules(deeds: &[Deed], loaded: bool, check: impl Fn(&Ended)) -> usize {
    let mut choices = Vec::new();
    for count in 1.. {
        let (ended, taken) = play(deeds, loaded, &choices);
        check(&ended);
        let Some(last) = taken.iter().rposition(|(choice, of)| choice + 1 < *of) else {
            return count;
        };
        choices = taken[..=last].iter().map(|(choice, _)| *choice).collect();
        choices[last] += 1;
    }
    unreachable!()
}

fn permutations(of: usize) -> Vec<Vec<usize>> {
    if of == 0 {
        return vec![Vec::new()];
    }
    let shorter = permutations(of - 1);
    let insert = |order: &Vec<usize>, at: usize| [&order[..at], &[of - 1], &order[at..]].concat();
    shorter.iter().flat_map(|order| (0..of).map(move |at| insert(order, at))).collect()
}

/// The rules for requests that run at once, as what some order of running them one after the other leaves: a request
/// that found the session and comes when it has ended, or has another token, is dropped; one that did not find it
/// works on a session of its own. Returns the sessions that are left, and who was dropped.
fn one_after_the_other(ended: &Ended, order: &[usize]) -> (Vec<State>, Vec<Option<bool>>) {
    let mut shared = Some((START, Values::from([("n".to_owned(), 5)])));
    let mut others = Vec::new();
    let mut dropped = vec![None; ended.clients.len()];
    for &number in order {
        let client = &ended.clients[number];
        let deed = client.deed;
        if *client.found.lock().unwrap() == Some(false) {
            others.extend(deed.alone(number, (NOW, Values::new())));
            dropped[number] = Some(false);
            continue;
        }
        // Ending what has ended is no loss, so whether it is told is left open.
        dropped[number] = (!deed.ends()).then_some(shared.is_none());
        if let Some(state) = shared.take() {
            let after = deed.alone(number, state);
            if deed.regenerates() { others.extend(after) } else { shared = after }
        }
    }
    let mut left: Vec<State> = shared.into_iter().chain(others).collect();
    left.sort();
    (left, dropped)
}

/// No update is lost without a word, nothing comes back, nothing is left that no client can reach.
fn assert_in_order(ended: &Ended) {
    let context = &ended.context;
    let reached: BTreeSet<SessionId> = ended.sessions.keys().copied().collect();
    assert_eq!(reached, ended.stored, "an entry that no client holds: {context}");
    let mut left: Vec<State> = ended.sessions.values().cloned().collect();
    left.sort();
    let all_found = ended.clients.iter().all(|client| *client.found.lock().unwrap() == Some(true));
    assert!(!all_found || left.len() <= 1, "two live tokens: {context}");

    let allowed = permutations(ended.clients.len()).into_iter().any(|order| {
        let in_time = order.iter().enumerate().all(|(at, &one)| {
            order[at..].iter().all(|&other| ended.clients[other].done >= ended.clients[one].begun)
        });
        let (states, dropped) = one_after_the_other(ended, &order);
        let told = dropped.iter().zip(&ended.clients);
        in_time
            && states == left
            && told.clone().all(|(dropped, client)| dropped.is_none_or(|d| d == client.dropped))
    });
    let dropped: Vec<_> = ended.clients.iter().map(|client| client.dropped).collect();
    assert!(allowed, "no order of requests leaves this: {context}, dropped {dropped:?}");
}

#[test]
fn requests_that_set_different_keys_both_keep_them_in_every_interleaving() {
    let schedules = every_schedule(&[Deed::Set, Deed::Set], |ended| {
        let expected =
            BTreeMap::from([("client0".to_owned(), 1), ("client1".to_owned(), 1), ("n".to_owned(), 5)]);
        assert_eq!(ended.sessions.values().collect::<Vec<_>>(), [&(START, expected)], "{}", ended.context);
    });
    // Three turns each (to the load, to the save, to the end), and one more for the one that comes second.
    assert!(schedules >= 20, "{schedules}");
}

#[test]
fn updates_add_up_in_every_interleaving() {
    for clients in [2, 3] {
        every_schedule(&vec![Deed::Update; clients], |ended| {
            let sum = Values::from([("n".to_owned(), 5 + i64::try_from(clients).unwrap())]);
            assert_eq!(ended.sessions.values().collect::<Vec<_>>(), [&(START, sum)], "{}", ended.context);
        });
    }
}

/// Whoever loaded before the logout and saves after it saves nothing. (A request that gets a new token before the logout
/// deletes the old one has won: the logout then presents a token that is refused. Its own client alone holds the new.)
#[test]
fn t34_a_slow_request_never_brings_back_what_was_ended() {
    for other in DEEDS {
        for end in [Deed::Destroy, Deed::Clear] {
            every_schedule(&[other, end], |ended| {
                assert_in_order(ended);
                let [slow, logout] = &ended.clients[..] else { panic!("two clients") };
                assert_eq!(logout.jar.get(NAME), None, "the logout removes the cookie: {}", ended.context);
                if other.regenerates() && !slow.dropped {
                    assert!(ended.stored.len() <= 1, "{}", ended.context);
                } else if *slow.found.lock().unwrap() == Some(true) {
                    assert!(ended.stored.is_empty(), "{}", ended.context);
                } else {
                    let old = ended.sessions.values().any(|(_, values)| values.get("n") == Some(&5));
                    assert!(!old, "values of the old session: {}", ended.context);
                }
            });
        }
    }
}

/// Pairs of deeds, in one order: the schedules go through both.
fn pairs(deeds: &[Deed]) -> Vec<[Deed; 2]> {
    let pairs = deeds.iter().enumerate().map(|(at, one)| deeds[at..].iter().map(|other| [*one, *other]));
    pairs.flatten().collect()
}

#[test]
fn every_interleaving_of_every_pair_of_requests_is_some_order_of_them() {
    let deeds: Vec<_> = DEEDS.into_iter().filter(|deed| *deed != Deed::DeleteLast).collect();
    let schedules: usize = pairs(&deeds).iter().map(|pair| every_schedule(pair, assert_in_order)).sum();
    assert!(schedules >= 36 * 6, "{schedules}");
}

/// A request that deletes the last value that it knows of has not seen what the other one saves.
#[test]
fn deleting_the_last_value_loses_no_value_of_another_request_in_any_interleaving() {
    for other in DEEDS {
        every_schedule(&[Deed::DeleteLast, other], assert_in_order);
        every_schedule(&[Deed::RegenerateAndDeleteLast, other], assert_in_order);
    }
}

#[test]
fn every_interleaving_of_the_writes_of_three_requests_is_some_order_of_them() {
    let deeds = [Deed::Update, Deed::Set, Deed::Regenerate, Deed::DestroyAndSet, Deed::Destroy];
    let mut count = 0;
    for (at, third) in deeds.into_iter().enumerate() {
        for [one, other] in pairs(&deeds[..=at]) {
            count += schedules(&[one, other, third], true, assert_in_order);
        }
    }
    assert!(count >= 35 * 6, "{count}");
}

/// A handler that saved, and lost its session to another request afterwards, must not hand out the token that it had:
/// it would overwrite the new one that the browser was just given.
#[test]
fn t19_a_session_that_ended_after_a_save_sets_no_dead_cookie() {
    let (backend, clock, events) = (Watched::in_turns(), FakeClock::at(START), Events::new());
    let store = server(&backend, &clock, &events);
    let jar = shared_session(&store);
    let slow = SessionService::new(
        service_fn(|request: Request<Body>| async move {
            let session = request.session().await?;
            session.set("one", 1)?;
            session.save().await?;
            session.set("two", 2)?;
            Ok::<_, Error>(status(200))
        }),
        store.clone(),
    );
    let regenerating = SessionService::new(
        service_fn(|request: Request<Body>| async move {
            request.session().await?.regenerate()?;
            Ok::<_, Error>(status(200))
        }),
        server(&backend, &clock, &events),
    );
    let request = request("/", jar.header().as_deref());
    let mut future = pin!(slow.call(request));
    for _ in 0..3 {
        assert!(poll_once(future.as_mut()).is_pending()); // to the load, to the first save, to the second
    }
    let mut browser = jar.clone();
    run(visit(&regenerating, "/", &mut browser));
    events.take();
    let response = run(future).unwrap();
    assert_eq!(events.take(), ["dropped:session_ended"]);
    browser.store(response.headers());
    assert!(
        look(&store, &browser).is_some(),
        "the browser lost its session to {:?}",
        set_cookies(response.headers())
    );
}

// ---- Requests that are dropped ------------------------------------------------------------------------------------

/// What is there after a request was dropped, and all that goes on in the background is done.
#[derive(Debug)]
struct Dropped {
    /// The handler had done its part, up to its own `save` if it has one.
    handled: bool,
    entries: usize,
    /// What the token that the request came with leads to.
    by_old_token: Option<Values>,
    /// Every entry is, byte for byte, what was stored before.
    as_before: bool,
}

/// Drops a request that was polled `polls` times: `None` if it was done by then.
async fn dropped_after(polls: usize, deed: Deed, saves: bool) -> Option<Dropped> {
    let store = server(&Watched::in_turns(), &FakeClock::at(START), &Events::new());
    let jar = shared_session(&store);
    let handled = Arc::new(Mutex::new(false));
    let to_set = Arc::clone(&handled);
    let service = SessionService::new(
        service_fn(move |request: Request<Body>| {
            let handled = Arc::clone(&to_set);
            async move {
                let session = request.session().await?;
                deed.perform(&session, 0)?;
                *handled.lock().unwrap() = true;
                if saves {
                    session.save().await?;
                }
                Ok::<_, Error>(status(200))
            }
        }),
        store.clone(),
    );
    let before = stored_values(&store).await;
    let mut future = Box::pin(service.call(request("/", jar.header().as_deref())));
    for _ in 0..polls {
        if poll_once(future.as_mut()).is_ready() {
            return None;
        }
    }
    drop(future);
    for _ in 0..100 {
        yield_now().await;
    }
    let after = stored_values(&store).await;
    let handled = *handled.lock().unwrap();
    let by_old_token = look(&store, &jar).map(|found| found.state.1);
    Some(Dropped {
        handled,
        entries: after.len(),
        by_old_token,
        as_before: after.iter().all(|value| before.contains(value)),
    })
}

async fn stored_values(store: &ServerStore<Watched>) -> Vec<Bytes> {
    let mut values = Vec::new();
    for id in store.backend().ids() {
        let stored = store.backend().memory.fetch(id, Timestamp::from_unix(START)).await.unwrap();
        values.push(stored.expect("what is listed").value);
    }
    values
}

/// Drops a request at every await, with and without a `save` of the handler's own. Before the handler is done nothing may
/// have changed; `check` judges what is there afterwards.
fn dropped_at_every_await(deed: Deed, check: impl Fn(&Dropped)) {
    for saves in [false, true] {
        let (mut polls, mut after_handler) = (0, 0);
        while let Some(dropped) = block_on(dropped_after(polls, deed, saves)) {
            if dropped.handled {
                check(&dropped);
                after_handler += 1;
            } else {
                let unchanged = dropped.entries == 1 && dropped.as_before && dropped.by_old_token.is_some();
                assert!(unchanged, "nothing is saved before the handler is done: {dropped:?}");
            }
            polls += 1;
        }
        assert!(
            polls >= 3 && after_handler >= 1,
            "{deed:?}: {polls} polls, {after_handler} after the handler"
        );
    }
}

fn values(pairs: &[(&str, i64)]) -> Values {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect()
}

#[test]
fn a_dropped_request_saves_all_or_nothing() {
    let (before, after) = (values(&[("n", 5)]), values(&[("n", 5), ("client0", 1)]));
    dropped_at_every_await(Deed::Set, |dropped| {
        let found = dropped.by_old_token.as_ref().unwrap();
        assert!(dropped.entries == 1 && (*found == before || *found == after), "{dropped:?}");
    });
}

#[test]
fn t25_a_dropped_request_still_destroys() {
    dropped_at_every_await(Deed::Destroy, |dropped| {
        assert!(dropped.entries == 0 && dropped.by_old_token.is_none(), "{dropped:?}");
    });
}

#[test]
fn t35_t40_a_dropped_request_still_regenerates() {
    dropped_at_every_await(Deed::Regenerate, |dropped| {
        assert!(dropped.entries == 1 && dropped.as_before && dropped.by_old_token.is_none(), "{dropped:?}");
    });
    for deed in [Deed::RegenerateAndSet, Deed::DestroyAndSet] {
        dropped_at_every_await(deed, |dropped| {
            assert!(
                dropped.entries == 1 && !dropped.as_before && dropped.by_old_token.is_none(),
                "{dropped:?}"
            );
        });
    }
}

// ---- Threads ------------------------------------------------------------------------------------------------------

/// 64 tasks update one session through the adapter, 200 times each. Returns the most conflicts that one save had.
fn hammer<B: Backend>(backend: B) -> u32 {
    const TASKS: u32 = 64;
    const UPDATES: u32 = 200;
    let most_conflicts = Arc::new(AtomicU32::new(0));
    let to_raise = Arc::clone(&most_conflicts);
    let store = ServerStore::with_backend(backend)
        .observer(move |event: &Event<'_>| {
            if let Event::ConflictMerged { conflicts, .. } = event {
                to_raise.fetch_max(*conflicts, Ordering::SeqCst);
            }
        })
        .build()
        .unwrap();
    let service = Arc::new(SessionService::new(
        service_fn(|request: Request<Body>| async move {
            let session = request.session().await?;
            if request.uri().path() == "/total" {
                return Ok(Response::new(Body::from(session.get::<u32>("n")?.unwrap().to_string())));
            }
            session.update("n", |old: Option<u32>| old.unwrap_or(0) + 1)?;
            Ok::<_, Error>(status(200))
        }),
        store,
    ));
    let mut jar = Jar::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().unwrap();
    runtime.block_on(visit(&*service, "/", &mut jar));
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let (service, mut jar) = (Arc::clone(&service), jar.clone());
            runtime.spawn(async move {
                let mut failures = 0;
                for _ in 0..UPDATES {
                    failures += u32::from(visit(&*service, "/", &mut jar).await.status() != 200);
                }
                failures
            })
        })
        .collect();
    let failures: u32 = tasks.into_iter().map(|task| runtime.block_on(task).unwrap()).sum();
    assert_eq!(failures, 0, "requests of {} gave up", TASKS * UPDATES);
    let total = runtime.block_on(async { support::text(visit(&*service, "/total", &mut jar).await).await });
    assert_eq!(total, (1 + TASKS * UPDATES).to_string());
    most_conflicts.load(Ordering::SeqCst)
}

#[test]
fn updates_of_64_tasks_add_up_on_a_memory_store() {
    hammer(Memory::new());
}

/// A save gives up after 256 rounds: every answer was a 200, so none did.
#[test]
fn updates_of_64_tasks_add_up_where_every_call_gives_way_to_the_others() {
    let most_conflicts = hammer(Watched::in_turns());
    assert!((1..256).contains(&most_conflicts), "{most_conflicts}");
}
