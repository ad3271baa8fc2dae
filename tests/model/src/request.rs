//! The steps of one request: those of `src/store/server/`, in the words of that code.
//!
//! A request is written as a function that is run anew for each step. It is given the replies so far, and stops at the first
//! call that has no reply yet. So its state is the list of replies, and the function reads like the code.

use std::collections::BTreeSet;

use crate::backend::{Call, Content, FIRST_TOKENS, List, Place, Reply, Revision, Session, Value};

/// The deed of a handler with the session that it loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Deed {
    /// Only reads, when the renewal is due.
    Renew,
    /// `Session::update`.
    Update,
    /// The same, as the first write of its span, which looks the session list up as a renewal does.
    LateUpdate,
    /// `Session::regenerate`.
    Regenerate,
    /// `Session::login`.
    Login,
    /// `Session::destroy`.
    Logout,
    /// `ServerStore::end_sessions_of`, without a session of its own.
    EndAll,
    /// `Session::end_other_sessions`.
    EndOthers,
}

impl Deed {
    pub const ALL: [Self; 8] = [
        Self::Renew,
        Self::Update,
        Self::LateUpdate,
        Self::Regenerate,
        Self::Login,
        Self::Logout,
        Self::EndAll,
        Self::EndOthers,
    ];

    /// Returns true for both ways to update.
    pub fn updates(self) -> bool {
        matches!(self, Self::Update | Self::LateUpdate)
    }

    /// Returns true if three requests with these deeds have too many states to visit them all: with a login beside another new token, or
    /// beside more than one ending. Each step of a login may find that its session has ended, or has another token.
    pub fn have_too_many_states(deeds: &[Self]) -> bool {
        let count = |of: &[Self]| deeds.iter().filter(|deed| of.contains(deed)).count();
        let (logins, new_tokens) = (count(&[Self::Login]), count(&[Self::Login, Self::Regenerate]));
        let endings = count(&[Self::Logout, Self::EndOthers]) + 2 * count(&[Self::EndAll]);
        logins > 0 && (new_tokens > 1 || endings > 1)
    }

    /// Returns every choice of deeds of this many requests, each in one order.
    pub fn combinations(requests: usize) -> Vec<Vec<Self>> {
        crate::combinations(&Self::ALL, requests)
    }
}

/// A mistake, to see that the checker finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mistake {
    None,
    /// A save whose entry is missing creates it.
    SaveCreates,
    /// `regenerate` deletes the old entry without comparing it.
    RegenerateDeletes,
    /// A new session counts although it is no longer on the list.
    NotLookedUpAgain,
    /// `end` deletes entries without flagging them on the list first.
    EndsUnflagged,
    /// `end_other_sessions` keeps no session.
    KeepsNone,
    /// A logout does not look for the session that continues from a tombstone.
    FollowsNone,
    /// A renewal does not look the session list up.
    RenewsOnly,
    /// A session is not entered again after that has failed once.
    HealsOnce,
    /// A renewal that lost the race to write the list takes the session for entered.
    HealsUncompared,
    /// A session counts although it is not on the list that decides.
    LoadsUnlisted,
    /// A session that is not on the list that decides is given a new token.
    RegeneratesUnlisted,
    /// A renewal enters a session in the list that decides.
    HealsListThatDecides,
    /// A session that moves to another store stays in the old one.
    MovesWithoutLeaving,
    /// A session has moved, whether or not this request ended it in the old store.
    MovesTwice,
    /// A session has moved although its end in the old store is not known.
    MovesUnconfirmed,
    /// A request that could not move a session leaves the copy behind.
    LeavesCopy,
}

/// The result for the client of a request, or for the caller of `end_sessions_of`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Answer {
    /// The session is stored under this token.
    Stored(u8),
    /// The same, by a write that also looked the session list up.
    Renewed(u8),
    /// The session has ended: what was to be changed is dropped.
    Ended,
    /// This request ended it.
    Removed,
    /// There was no session under the token.
    NotFound,
    /// The sessions of the subject have ended.
    AllEnded,
    /// The other sessions of the subject have ended.
    OthersEnded,
    /// An error.
    Failed,
}

impl Answer {
    /// Returns the token under which the session is stored.
    pub fn stored(self) -> Option<u8> {
        match self {
            Self::Stored(token) | Self::Renewed(token) => Some(token),
            _ => None,
        }
    }
}

/// The replies so far, in the order of the calls of each lane. A request that waits for several calls at once has a lane for
/// each.
pub type Replies = Vec<Vec<Reply>>;

/// A call that waits for its reply, and its lane.
pub type Waiting = Vec<(u8, Call)>;

struct Io<'a> {
    replies: &'a [Vec<Reply>],
    taken: Vec<usize>,
    lane: usize,
    lanes: usize,
    /// How many tokens this request has drawn.
    drawn: u8,
    request: u8,
    /// The session list of the store that the request is calling.
    list: Place,
}

/// Why a step has no result.
enum Stop {
    Waiting(Waiting),
    /// A call failed, or its reply was lost.
    Failed,
}

type Step<T> = Result<T, Stop>;

impl Io<'_> {
    fn call(&mut self, call: Call) -> Step<Reply> {
        let lane = self.lane;
        if self.taken.len() <= lane {
            self.taken.resize(lane + 1, 0);
        }
        match self.replies.get(lane).and_then(|replies| replies.get(self.taken[lane])) {
            Some(reply) => {
                self.taken[lane] += 1;
                if *reply == Reply::Failed { Err(Stop::Failed) } else { Ok(reply.clone()) }
            }
            None => Err(Stop::Waiting(vec![(u8::try_from(lane).unwrap(), call)])),
        }
    }

    /// The revision of what the last call of this lane wrote.
    fn revision(&self) -> Revision {
        let (request, lane) = (self.request, u8::try_from(self.lane).unwrap());
        Revision { request, lane, step: u8::try_from(self.taken[self.lane] - 1).unwrap() }
    }

    /// Does `work` on the old store.
    fn in_old<T>(&mut self, work: impl FnOnce(&mut Self) -> Step<T>) -> Step<T> {
        let list = std::mem::replace(&mut self.list, Place::OldList);
        let done = work(self);
        self.list = list;
        done
    }

    /// `join` and `join_all`: the calls of each step may happen in any order.
    fn join<T>(&mut self, steps: usize, mut step: impl FnMut(&mut Self, usize) -> Step<T>) -> Step<Vec<T>> {
        let (outer, first) = (self.lane, self.lanes);
        self.lanes += steps;
        let (mut done, mut waiting) = (Vec::new(), Waiting::new());
        for number in 0..steps {
            self.lane = first + number;
            match step(self, number) {
                Ok(result) => done.push(result),
                Err(Stop::Waiting(calls)) => waiting.extend(calls),
                Err(Stop::Failed) => {}
            }
        }
        self.lane = outer;
        match waiting.is_empty() {
            true if done.len() == steps => Ok(done),
            true => Err(Stop::Failed),
            false => Err(Stop::Waiting(waiting)),
        }
    }

    /// `OptionalWork`: the calls of both steps may happen in any order, and `side` is given up where `main` does not need it. The code
    /// also stops waiting after a time. The model does not: the work goes on in the background, so its steps are the same.
    fn beside<M, S>(
        &mut self,
        main: impl FnOnce(&mut Self) -> Step<M>,
        needs_side: impl FnOnce(&M) -> bool,
        side: impl FnOnce(&mut Self) -> Step<S>,
    ) -> Step<(M, Option<S>)> {
        let (outer, first) = (self.lane, self.lanes);
        self.lanes += 2;
        self.lane = first;
        let main = main(self);
        self.lane = first + 1;
        let side = side(self);
        self.lane = outer;
        match (main, side) {
            (Ok(main), Ok(side)) => Ok((main, Some(side))),
            (Ok(main), Err(Stop::Failed)) => Ok((main, None)),
            (Ok(main), Err(Stop::Waiting(_))) if !needs_side(&main) => Ok((main, None)),
            (Ok(_), Err(stop)) | (Err(stop), Ok(_) | Err(Stop::Failed)) => Err(stop),
            (Err(Stop::Failed), Err(_)) => Err(Stop::Failed),
            (Err(Stop::Waiting(waiting)), Err(Stop::Waiting(more))) => {
                Err(Stop::Waiting([waiting, more].concat()))
            }
        }
    }

    fn token(&mut self) -> u8 {
        self.drawn += 1;
        self.request * 8 + self.drawn
    }

    fn fetch(&mut self, place: Place) -> Step<Option<Value>> {
        match self.call(Call::Fetch(place))? {
            Reply::Found(found) => Ok(found),
            other => unreachable!("{other:?} to a fetch"),
        }
    }

    fn create(&mut self, place: Place, content: Content) -> Step<bool> {
        match self.call(Call::Create(place, content))? {
            Reply::Created(created) => Ok(created),
            other => unreachable!("{other:?} to a create"),
        }
    }
}

/// `Record`.
#[derive(Clone, Copy)]
struct Record {
    token: u8,
    revision: Revision,
    session: Session,
}

/// `Predecessor`.
#[derive(Clone, Copy)]
struct Predecessor {
    token: u8,
    must_be_listed: bool,
}

/// `Known`.
type Known = Option<(Revision, List)>;

fn list_in(value: Option<Value>) -> Known {
    value.map(|value| match value.content {
        Content::List(list) => (value.revision, list),
        other => unreachable!("{other:?} in place of a list"),
    })
}

fn session_in(value: &Value) -> Option<Session> {
    match value.content {
        Content::Session(session) => Some(session),
        _ => None,
    }
}

/// A request: number, what it does, and the token that its client sends.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    pub request: u8,
    pub deed: Deed,
    pub token: u8,
    /// True if only listed sessions count: `check_session_list`.
    pub checks_list: bool,
    /// True if sessions move from an old store: `MigratingStore`, from one `ServerStore` to another.
    pub migrates: bool,
    /// True if the host reads the list together with the session, because it has loaded the session before.
    pub knows_list: bool,
    /// True if a step failed that was to enter the session again.
    pub failed_before: bool,
    pub mistake: Mistake,
}

impl Program {
    /// Runs the request on the replies that it has got so far.
    ///
    /// # Errors
    ///
    /// The calls that it waits for, if it is not done.
    ///
    /// # Panics
    ///
    /// If a call failed that the request depends on. The model has no such failures.
    pub fn run(self, replies: &Replies) -> Result<Answer, Waiting> {
        self.carry_out(replies).map_err(|stop| match stop {
            Stop::Waiting(waiting) => waiting,
            Stop::Failed => unreachable!("a call failed that {self:?} depends on"),
        })
    }

    fn carry_out(self, replies: &Replies) -> Step<Answer> {
        let request = self.request;
        let mut io = Io { replies, taken: vec![0], lane: 0, lanes: 1, drawn: 0, request, list: Place::List };
        if self.deed == Deed::EndAll {
            if self.migrates {
                io.in_old(|io| self.end(io, None, |_| true))?;
            }
            self.end(&mut io, None, |_| true)?;
            return Ok(Answer::AllEnded);
        }
        let base = self.load(&mut io)?;
        match (self.deed, base) {
            // The new store has no entry for a token of the old one.
            (Deed::Logout, None) if self.is_old() => {
                io.in_old(|io| self.end_behind(io)).map(|()| Answer::Removed)
            }
            (Deed::Logout, Some(base)) if self.is_old() => {
                io.in_old(|io| self.end_for_good(io, base)).map(|()| Answer::Removed)
            }
            (_, Some(base)) if self.is_old() => self.take_over(&mut io, base),
            (Deed::Login, None) => self.log_in(&mut io),
            (Deed::Logout, None) => self.end_behind(&mut io).map(|()| Answer::Removed),
            (_, None) => Ok(Answer::NotFound),
            (Deed::Renew, Some(base)) => self.renew(&mut io, base),
            (Deed::Update | Deed::LateUpdate, Some(base)) => self.save(&mut io, base),
            (Deed::Regenerate | Deed::Login, Some(base)) => self.regenerate(&mut io, base),
            (Deed::Logout, Some(base)) => self.end_for_good(&mut io, base).map(|()| Answer::Removed),
            (Deed::EndOthers, Some(base)) if !base.session.has_subject => Ok(Answer::NotFound),
            (Deed::EndOthers, Some(base)) => {
                let keeps = self.mistake != Mistake::KeepsNone;
                self.end(&mut io, None, |token| !keeps || token != base.token).map(|()| Answer::OthersEnded)
            }
            (Deed::EndAll, Some(_)) => unreachable!("it loads none"),
        }
    }

    fn load(self, io: &mut Io) -> Step<Option<Record>> {
        let token = self.token;
        let place = Place::Session(token);
        let decode = |stored: Option<Value>| {
            stored.and_then(|value| {
                session_in(&value).map(|session| Record { token, revision: value.revision, session })
            })
        };
        if !self.checks_list || self.mistake == Mistake::LoadsUnlisted {
            return Ok(decode(io.fetch(place)?));
        }
        // `Inner::load_listed`.
        let (record, list) = if self.knows_list {
            let mut both = io.join(2, |io, number| io.fetch([place, Place::List][number]))?;
            let list = both.pop().flatten();
            (decode(both.pop().flatten()), Some(list))
        } else {
            (decode(io.fetch(place)?), None)
        };
        let Some(record) = record.filter(|record| record.session.has_subject) else { return Ok(record) };
        let list = match list {
            Some(list) => list,
            None => io.fetch(Place::List)?,
        };
        Ok(list_in(list).is_some_and(|(_, list)| list.has(token)).then_some(record))
    }

    /// `elsewhere`: whether the session is in the old store.
    fn is_old(self) -> bool {
        self.migrates && FIRST_TOKENS.contains(&self.token)
    }

    /// `take_over`. Between two server-side stores a login begins another session only if this one has ended.
    fn take_over(self, io: &mut Io, base: Record) -> Step<Answer> {
        let session = match self.deed {
            Deed::Login => self.logged_in(Some(base.session)),
            _ => self.changed(base.session),
        };
        let predecessor = Predecessor { token: base.token, must_be_listed: false };
        let new = self.create(io, None, session, Some(predecessor))?;
        let left = match io.in_old(|io| self.supersede(io, base)) {
            Err(Stop::Failed) => None,
            left => Some(left?),
        };
        let has_moved = match left {
            Some(left) => left || self.mistake == Mistake::MovesTwice,
            None => self.mistake == Mistake::MovesUnconfirmed,
        };
        let moved = match new {
            new if has_moved => new.map_or(Answer::Ended, |new| Answer::Stored(new.token)),
            new => {
                if let Some(new) = new.filter(|_| self.mistake != Mistake::LeavesCopy) {
                    self.end_for_good(io, new)?;
                }
                left.map_or(Answer::Failed, |_| Answer::Ended)
            }
        };
        if moved != Answer::Ended || self.deed != Deed::Login {
            return Ok(moved);
        }
        self.log_in(io)
    }

    /// `Inner::supersede`, and in it `Inner::end_entry`.
    fn supersede(self, io: &mut Io, base: Record) -> Step<bool> {
        if self.mistake == Mistake::MovesWithoutLeaving {
            return Ok(true);
        }
        let mut expected = base.revision;
        let is_done = loop {
            let left = Some(Content::Tombstone(None));
            match io.call(Call::Exchange(Place::Session(base.token), expected, left))? {
                Reply::Conflict(current) if session_in(&current).is_some() => expected = current.revision,
                Reply::Conflict(_) => return Ok(false),
                outcome => break outcome == Reply::Done,
            }
        };
        self.unlist(io, base)?;
        Ok(is_done)
    }

    /// Returns true if a renewal of this session looks the session list up.
    fn looks_up(self, session: Session) -> bool {
        let decides = self.checks_list && self.mistake != Mistake::HealsListThatDecides;
        session.has_subject && !decides && self.mistake != Mistake::RenewsOnly
    }

    /// The changes of a request that updates, applied to `session`.
    fn changed(self, session: Session) -> Session {
        let changes = if self.deed.updates() { 1 << self.request } else { 0 };
        Session { changes: session.changes | changes, ..session }
    }

    /// The values that a login writes under a new token, which is not known yet.
    fn logged_in(self, before: Option<Session>) -> Session {
        let none = Session { login: u8::MAX, began: u8::MAX, has_subject: true, changes: 0 };
        before.map_or(none, |before| Session { login: u8::MAX, has_subject: true, ..before })
    }

    /// `Inner::save` of a login, without a base.
    fn log_in(self, io: &mut Io) -> Step<Answer> {
        let mut created = self.create(io, None, self.logged_in(None), None)?;
        if created.is_none() {
            created = self.create(io, None, self.logged_in(None), None)?;
        }
        Ok(created.map_or(Answer::Ended, |record| Answer::Stored(record.token)))
    }

    /// `Inner::save`, with a base.
    fn save(self, io: &mut Io, base: Record) -> Step<Answer> {
        let (mut expected, mut session) = (base.revision, self.changed(base.session));
        let mut looks_up = self.deed == Deed::LateUpdate;
        loop {
            let is_renewal = std::mem::take(&mut looks_up);
            let replaced = if is_renewal && self.looks_up(base.session) {
                self.beside_the_list(io, base.token, expected, session)?
            } else {
                self.replace(io, base.token, expected, session)?
            };
            match replaced {
                Replaced::Stored(record) if is_renewal => return Ok(Answer::Renewed(record.token)),
                Replaced::Stored(record) => return Ok(Answer::Stored(record.token)),
                Replaced::Ended if self.mistake == Mistake::SaveCreates => {
                    io.create(Place::Session(base.token), Content::Session(session))?;
                    return Ok(Answer::Stored(base.token));
                }
                Replaced::Ended => return Ok(Answer::Ended),
                Replaced::Conflict(current, revision) => {
                    (expected, session) = (revision, self.changed(current));
                }
            }
        }
    }

    /// `Inner::beside_the_list`.
    fn beside_the_list(self, io: &mut Io, token: u8, expected: Revision, session: Session) -> Step<Replaced> {
        let is_stored = |replaced: &Replaced| matches!(replaced, Replaced::Stored(_));
        let replace = |io: &mut Io| self.replace(io, token, expected, session);
        let (replaced, list) = io.beside(replace, is_stored, |io| Ok(list_in(io.fetch(Place::List)?)))?;
        if is_stored(&replaced) {
            self.enter_again(io, token, list)?;
        }
        Ok(replaced)
    }

    /// `Inner::replace`.
    fn replace(self, io: &mut Io, token: u8, expected: Revision, session: Session) -> Step<Replaced> {
        let exchange = Call::Exchange(Place::Session(token), expected, Some(Content::Session(session)));
        Ok(match io.call(exchange)? {
            Reply::Done => Replaced::Stored(Record { token, revision: io.revision(), session }),
            Reply::Conflict(current) => match session_in(&current) {
                Some(session) => Replaced::Conflict(session, current.revision),
                None => Replaced::Ended,
            },
            _ => Replaced::Ended,
        })
    }

    /// `Inner::renew`.
    fn renew(self, io: &mut Io, base: Record) -> Step<Answer> {
        let renew = Call::Renew(Place::Session(base.token), base.revision);
        let outcome = if self.looks_up(base.session) {
            let is_done = |outcome: &Reply| *outcome == Reply::Done;
            let (outcome, list) =
                io.beside(|io| io.call(renew), is_done, |io| Ok(list_in(io.fetch(Place::List)?)))?;
            if is_done(&outcome) {
                self.enter_again(io, base.token, list)?;
            }
            outcome
        } else {
            io.call(renew)?
        };
        Ok(match outcome {
            Reply::Done => Answer::Renewed(base.token),
            Reply::Conflict(present) if session_in(&present).is_some() => Answer::Stored(base.token),
            _ => Answer::Ended,
        })
    }

    /// `Inner::end_for_good`.
    fn end_for_good(self, io: &mut Io, record: Record) -> Step<()> {
        let content = Content::Session(record.session);
        self.end_with_successors(io, record.token, Value { revision: record.revision, content })
    }

    /// `Inner::end_behind`.
    fn end_behind(self, io: &mut Io) -> Step<()> {
        match io.fetch(Place::Session(self.token))? {
            Some(found) => self.end_with_successors(io, self.token, found),
            None => Ok(()),
        }
    }

    /// `Inner::end_with_successors`, and in it `Inner::end_entry`.
    fn end_with_successors(self, io: &mut Io, token: u8, read: Value) -> Step<()> {
        let (mut reached, mut tokens, mut is_listed) = (Some((token, read)), Vec::new(), false);
        while let Some((token, read)) = reached.take() {
            tokens.push(token);
            let (mut present, mut next) = (Some(read), None);
            while let Some(Value { revision, content }) = present.take() {
                match content {
                    Content::Session(session) => {
                        is_listed = session.has_subject;
                        if let Reply::Conflict(newer) =
                            io.call(Call::Exchange(Place::Session(token), revision, None))?
                        {
                            present = Some(newer);
                        }
                    }
                    Content::Tombstone(named) if self.mistake != Mistake::FollowsNone => next = named,
                    Content::Tombstone(_) | Content::List(_) => {}
                }
            }
            if let Some(next) = next {
                reached = io.fetch(Place::Session(next))?.map(|found| (next, found));
            }
        }
        if is_listed {
            self.edit(io, None, |list| list.0.retain(|(listed, _)| !tokens.contains(listed)))?;
        }
        Ok(())
    }

    /// `Inner::create`.
    fn create(
        self,
        io: &mut Io,
        token: Option<u8>,
        session: Session,
        instead_of: Option<Predecessor>,
    ) -> Step<Option<Record>> {
        let token = token.unwrap_or_else(|| io.token());
        let or_new = |number: u8| if number == u8::MAX { token } else { number };
        let session = Session { login: or_new(session.login), began: or_new(session.began), ..session };
        let listed = session.has_subject;
        if listed && !self.enter(io, token, instead_of)? {
            return Ok(None);
        }
        io.create(Place::Session(token), Content::Session(session))?;
        let record = Record { token, revision: io.revision(), session };
        if !listed || self.mistake == Mistake::NotLookedUpAgain {
            return Ok(Some(record));
        }
        match self.is_entered(io, token) {
            Ok(true) => Ok(Some(record)),
            Ok(false) => io.call(Call::Delete(Place::Session(token))).map(|_| None),
            Err(Stop::Failed) => {
                self.withdraw(io, record)?;
                Err(Stop::Failed)
            }
            Err(waiting) => Err(waiting),
        }
    }

    /// `Inner::regenerate`.
    fn regenerate(self, io: &mut Io, base: Record) -> Step<Answer> {
        for _ in 0..2 {
            match self.move_or_withdraw(io, base)? {
                Answer::Ended if self.deed == Deed::Login => {}
                moved => return Ok(moved),
            }
        }
        self.log_in_anew(io, base)
    }

    /// `Inner::move_or_withdraw`.
    fn move_or_withdraw(self, io: &mut Io, base: Record) -> Step<Answer> {
        let mut new = None;
        let moved = self.move_to_new(io, base, &mut new);
        let withdraws = match &moved {
            Ok(answer) => answer.stored().is_none(),
            Err(Stop::Failed) => new.is_some_and(|new| new.session.has_subject),
            Err(Stop::Waiting(_)) => false,
        };
        if let Some(new) = new.filter(|_| withdraws) {
            self.withdraw(io, new)?;
        }
        moved
    }

    /// `Inner::log_in_anew`.
    fn log_in_anew(self, io: &mut Io, base: Record) -> Step<Answer> {
        let created = self.create(io, None, self.logged_in(None), None)?;
        if created.is_some() {
            or_not(self.supersede(io, base).map(drop))?;
        }
        Ok(created.map_or(Answer::Ended, |record| Answer::Stored(record.token)))
    }

    /// `Inner::withdraw`.
    fn withdraw(self, io: &mut Io, record: Record) -> Step<()> {
        or_not(self.end_for_good(io, record))
    }

    /// `Inner::move_to_new`.
    fn move_to_new(self, io: &mut Io, base: Record, new: &mut Option<Record>) -> Step<Answer> {
        let (mut expected, mut session) = (base.revision, base.session);
        loop {
            let logs_in = self.deed == Deed::Login;
            let after = if logs_in { self.logged_in(Some(session)) } else { session };
            if !self.write_new(io, new, base, after)? {
                return Ok(Answer::Ended);
            }
            let place = Place::Session(base.token);
            let keeps_subject = base.session.has_subject == after.has_subject;
            let named = new.map(|new| new.token).filter(|_| keeps_subject);
            let outcome = if self.mistake == Mistake::RegenerateDeletes {
                io.call(Call::Delete(place))?
            } else {
                io.call(Call::Exchange(place, expected, Some(Content::Tombstone(named))))?
            };
            match outcome {
                Reply::Done => {
                    self.unlist(io, base)?;
                    return Ok(new.map_or(Answer::Removed, |new| Answer::Stored(new.token)));
                }
                Reply::Conflict(current) => match session_in(&current) {
                    Some(newer) => (expected, session) = (current.revision, newer),
                    None => return Ok(Answer::Ended),
                },
                _ => return Ok(Answer::Ended),
            }
        }
    }

    /// `Inner::write_new`.
    fn write_new(self, io: &mut Io, new: &mut Option<Record>, base: Record, session: Session) -> Step<bool> {
        if let Some(written) = new.take() {
            let login = if session.login == u8::MAX { written.session.login } else { session.login };
            let session = Session { login, ..session };
            if let Replaced::Stored(record) = self.replace(io, written.token, written.revision, session)? {
                *new = Some(record);
                return Ok(true);
            }
            self.unlist(io, written)?;
        }
        let decides = self.checks_list && self.mistake != Mistake::RegeneratesUnlisted;
        let must_be_listed = decides && self.deed == Deed::Regenerate;
        let predecessor = Predecessor { token: base.token, must_be_listed };
        *new = self.create(io, None, session, Some(predecessor))?;
        Ok(new.is_some())
    }

    /// `Inner::enter`. The subject never has more sessions than the limit.
    fn enter(self, io: &mut Io, token: u8, instead_of: Option<Predecessor>) -> Step<bool> {
        let must_be_listed = instead_of.filter(|predecessor| predecessor.must_be_listed);
        let instead_of = instead_of.map(|predecessor| predecessor.token);
        let (entered, known) = self.edit(io, None, |list| {
            if must_be_listed.is_some_and(|predecessor| !list.has(predecessor.token)) {
                return false;
            }
            let replaced = list.0.iter().position(|(listed, _)| Some(*listed) == instead_of);
            if replaced.is_some_and(|at| list.0[at].1) {
                return false;
            }
            if !list.names(token) {
                let place = replaced.filter(|_| self.deed != Deed::Login).map_or(list.0.len(), |at| at + 1);
                list.0.insert(place, (token, false));
            }
            true
        })?;
        let is_unfinished = known.as_ref().is_some_and(|(_, list)| list.0.iter().any(|(_, ending)| *ending));
        if entered && is_unfinished {
            self.end(io, Some(known), |_| false)?;
        }
        Ok(entered)
    }

    /// `Inner::enter_again`. `list` is the session list, unless it could not be read.
    fn enter_again(self, io: &mut Io, token: u8, list: Option<Known>) -> Step<()> {
        let Some(list) = list else { return Ok(()) };
        if list.is_some_and(|(_, list)| list.names(token))
            || self.failed_before && self.mistake == Mistake::HealsOnce
        {
            return Ok(());
        }
        let add = |list: &mut List| {
            if !list.names(token) {
                list.0.push((token, false));
            }
        };
        match self.edit(io, None, add) {
            // Its next renewal tries again.
            Err(Stop::Failed) => Ok(()),
            edited => edited.map(drop),
        }
    }

    /// The look at the list after a session was stored.
    fn is_entered(self, io: &mut Io, token: u8) -> Step<bool> {
        Ok(list_in(io.fetch(io.list)?).is_some_and(|(_, list)| list.has(token)))
    }

    /// `Inner::unlist`.
    fn unlist(self, io: &mut Io, record: Record) -> Step<()> {
        if !record.session.has_subject {
            return Ok(());
        }
        self.edit(io, None, |list| list.0.retain(|(listed, _)| *listed != record.token)).map(drop)
    }

    /// `Inner::end`.
    fn end(self, io: &mut Io, known: Option<Known>, which: impl Fn(u8) -> bool) -> Step<()> {
        let (ending, known) = self.edit(io, known, |list| {
            if self.mistake == Mistake::EndsUnflagged {
                return list.0.iter().map(|(token, _)| *token).collect::<Vec<_>>();
            }
            list.0.iter_mut().for_each(|(token, ending)| *ending |= which(*token));
            list.0.iter().filter(|(_, ending)| *ending).map(|(token, _)| *token).collect::<Vec<_>>()
        })?;
        io.join(ending.len(), |io, number| self.end_one(io, ending[number]))?;
        if ending.is_empty() {
            return Ok(());
        }
        let ending: BTreeSet<u8> = ending.into_iter().collect();
        self.edit(io, Some(known), |list| list.0.retain(|(token, _)| !ending.contains(token))).map(drop)
    }

    /// `Inner::end_one`, and the fetch before it in `Inner::end_all`.
    fn end_one(self, io: &mut Io, token: u8) -> Step<()> {
        let place = Place::Session(token);
        let mut current = io.fetch(place)?;
        if current.is_none() {
            // The code looks for an expired entry, too. In the model no time passes.
            current = io.fetch(place)?;
        }
        while let Some(seen) = current {
            if !session_in(&seen).is_some_and(|session| session.has_subject) {
                break;
            }
            current = match io.call(Call::Exchange(place, seen.revision, None))? {
                Reply::Conflict(newer) => Some(newer),
                _ => None,
            };
        }
        Ok(())
    }

    /// `Inner::edit`.
    fn edit<R>(
        self,
        io: &mut Io,
        known: Option<Known>,
        mut edit: impl FnMut(&mut List) -> R,
    ) -> Step<(R, Known)> {
        let mut current = match known {
            Some(known) => known,
            None => list_in(io.fetch(io.list)?),
        };
        loop {
            let before = current.as_ref().map(|(_, list)| list.clone()).unwrap_or_default();
            let mut after = before.clone();
            let result = edit(&mut after);
            if after == before {
                return Ok((result, current));
            }
            let entry = (!after.0.is_empty()).then(|| Content::List(after.clone()));
            let outcome = match (&current, entry) {
                (Some((seen, _)), entry) => io.call(Call::Exchange(io.list, *seen, entry))?,
                (None, Some(entry)) => match io.create(io.list, entry)? {
                    true => Reply::Done,
                    false if self.mistake == Mistake::HealsUncompared && self.deed == Deed::Renew => {
                        Reply::Done
                    }
                    false => Reply::Missing,
                },
                (None, None) => Reply::Done,
            };
            current = match outcome {
                Reply::Done => {
                    let known = (!after.0.is_empty()).then(|| (io.revision(), after));
                    return Ok((result, known));
                }
                Reply::Conflict(newer) => list_in(Some(newer)),
                _ => list_in(io.fetch(io.list)?),
            };
        }
    }
}

/// A step whose failure changes no answer.
fn or_not(step: Step<()>) -> Step<()> {
    match step {
        Err(Stop::Failed) => Ok(()),
        step => step,
    }
}

/// `Step`.
enum Replaced {
    Stored(Record),
    Ended,
    Conflict(Session, Revision),
}
