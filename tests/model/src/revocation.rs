//! Revocations of sessions in cookies: a log, two hosts that follow it late, and a failover that loses its end.
//!
//! The functions are those of `src/revocation/` (`Register`, `follower`) and of `src/store/cookie/revocable.rs` and `plan.rs`, for one
//! subject. Nothing is forgotten here: floors and sweeps are not in the model. Nor are histories, the positions that a new server
//! leaves out, and the wait after a new history: the log is one that a failover shortens, and that goes on from its end. So
//! `EndOthers` is not combined with a failover: without that wait, its host goes on before another host has written again what
//! only that one knows.

use std::collections::BTreeSet;

use stateright::{Model, Property};

/// A session, by its number. The first id of a login is also its root.
pub type Id = u8;
pub type Position = u8;

/// The deed of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Deed {
    /// A login of a browser without a session.
    Login,
    /// A login of a browser that is logged in.
    LoginAgain,
    Regenerate,
    Logout,
    /// `end_sessions_of`, without a session of its own.
    EndAll,
    /// `end_other_sessions`.
    EndOthers,
}

impl Deed {
    pub const ALL: [Self; 6] =
        [Self::Login, Self::LoginAgain, Self::Regenerate, Self::Logout, Self::EndAll, Self::EndOthers];

    /// Returns every choice of deeds of this many requests, each in one order.
    pub fn combinations(requests: usize) -> Vec<Vec<Self>> {
        crate::combinations(&Self::ALL, requests)
    }

    /// Returns true if it needs a session.
    pub fn loads(self) -> bool {
        !matches!(self, Self::Login | Self::EndAll)
    }
}

/// A mistake, to see that the checker finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mistake {
    None,
    /// A logout names the id that it loaded instead of the root.
    IdsInsteadOfRoots,
    /// `regenerate` takes a new position.
    RegenerateTakesPosition,
    /// Lost entries are written again as if they were new.
    WrittenAgainAsNew,
    /// Lost entries are not written again.
    NotWrittenAgain,
    /// A host whose healing failed goes on as if it had not begun.
    ForgetsLoss,
    /// After a read, a host goes on from the highest position that it knows.
    GoesOnFromHighest,
    /// A login does not ask the log for its end.
    LoginDoesNotAsk,
    /// A session that ends the others does not look for other ends of its subject.
    OutrunsEnds,
    /// A session that ends the others does not wait until its host has read the log so far.
    ContinuesUnread,
}

/// The name of a revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    Root(Id),
    Id(Id),
    Owner,
}

/// An entry of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    pub position: Position,
    pub key: Key,
    /// The position that it had when it was first written, if it was written again.
    pub original: Option<Position>,
}

impl Entry {
    fn mark(self) -> Position {
        self.original.unwrap_or(self.position)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Log {
    pub entries: Vec<Entry>,
    pub top: Position,
}

impl Log {
    fn append(
        &mut self,
        keys: impl IntoIterator<Item = (Key, Option<Position>)>,
        above: Position,
    ) -> Position {
        self.top = self.top.max(above);
        for (key, original) in keys {
            self.top += 1;
            self.entries.push(Entry { position: self.top, key, original });
        }
        self.top
    }

    fn top(&mut self, at_least: Position) -> Position {
        self.top = self.top.max(at_least);
        self.top
    }

    fn read(&self, after: Position) -> Page {
        let entries = self.entries.iter().filter(|entry| entry.position > after).copied().collect();
        Page { entries, top: self.top }
    }

    fn has(&self, key: Key, mark: Position) -> bool {
        self.entries.iter().any(|entry| entry.key == key && entry.mark() >= mark)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Page {
    entries: Vec<Entry>,
    top: Position,
}

/// The knowledge of one process: `Register`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Host {
    crashed: bool,
    /// The marks of the keys. The last one counts.
    set: BTreeSet<(Key, Position)>,
    known: Position,
    highest: Position,
    /// Entries that it appended and has not read back.
    unread: Vec<(Position, Key)>,
    /// Entries that it has read in the log.
    read: BTreeSet<Entry>,
    after: Position,
    follower: Follower,
    /// Its last read failed.
    failing: bool,
    /// The revocations that were acknowledged, and in the log, when its last confirmed read began.
    confirmed: BTreeSet<usize>,
    /// It has confirmed a read that began after the failover.
    has_read_since_failover: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
enum Follower {
    #[default]
    Idle,
    /// The log has sent a page, which has not arrived yet.
    Reading { page: Page, seen: Position, began: Began },
    /// It raises the log to the highest position that it knows: what is written from now on comes behind all sessions. The log then
    /// no longer shows that it lost anything.
    Raising,
    /// It reads again from `start`, to find what was lost.
    Healing { highest: Position },
    /// It has read, and writes what was lost.
    WritingAgain { lost: Vec<(Key, Position)>, highest: Position },
    /// It has written, and reads that.
    ReadingBack { highest: Position },
}

/// The facts at the moment when a read began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Began {
    acknowledged: BTreeSet<usize>,
    after_failover: bool,
}

impl Host {
    fn apply(&mut self, position: Position, key: Key) {
        self.set.insert((key, position));
    }

    fn mark(&self, key: Key) -> Option<Position> {
        self.set.iter().filter(|(known, _)| *known == key).map(|(_, mark)| *mark).max()
    }

    /// `RecentEntries::may_name_between`.
    fn has_mark_between(&self, key: Key, from: Position, to: Position) -> bool {
        self.set.iter().any(|(known, mark)| *known == key && *mark > from && *mark < to)
    }

    fn take_in(&mut self, entries: &[Entry]) {
        for entry in entries {
            self.apply(entry.mark(), entry.key);
            self.read.insert(*entry);
        }
    }

    fn has_lost_entries(&mut self, top: Position) -> bool {
        let read = &self.read;
        let mut lost = false;
        self.unread.retain(|(at, key)| {
            let due = *at <= top;
            lost |= due && !read.contains(&Entry { position: *at, key: *key, original: None });
            !due
        });
        lost
    }

    fn confirm(&mut self, top: Position, began: Began) {
        self.highest = self.highest.max(top);
        self.known = self.known.max(top);
        self.failing = false;
        self.confirmed = began.acknowledged;
        self.has_read_since_failover = began.after_failover;
    }

    /// The end of `follower::heal`, after its last read.
    fn end_healing(&mut self, highest: Position, page: &Page, began: Began) {
        self.has_lost_entries(highest);
        self.confirm(page.top, began);
        self.after = page.entries.last().map_or(0, |last| last.position).max(page.top);
    }

    /// `Register::judge`.
    fn judge(&self, session: &Session) -> Verdict {
        let ended = self.mark(Key::Root(session.root)).or_else(|| self.mark(Key::Id(session.id))).is_some();
        if ended || self.mark(Key::Owner).is_some_and(|mark| mark > session.position) {
            return Verdict::Revoked;
        }
        if session.position <= self.known { Verdict::Valid } else { Verdict::Unconfirmed }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Valid,
    Revoked,
    Unconfirmed,
}

/// A session in a cookie, and its lineage.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Session {
    id: Id,
    root: Id,
    position: Position,
    /// A failover has happened since the log had its position.
    is_from_before_failover: bool,
}

/// A revocation that was appended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Appended {
    key: Key,
    mark: Position,
    /// The logins whose sessions it must end, under whatever id, by their roots.
    must_end: BTreeSet<Id>,
    /// The logins whose sessions it may end.
    may_end: BTreeSet<Id>,
    /// The login whose session continues behind it: the session's former ids end.
    continues: Option<Id>,
    /// True once its caller knows.
    acknowledged_by: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Before,
    Loaded {
        session: usize,
    },
    /// The log has carried out the call; the reply has not arrived.
    Called {
        session: Option<usize>,
        last: Position,
        appended: Option<usize>,
    },
    /// The session ends the others, and waits until its host has read the log up to there.
    Confirming {
        session: usize,
        last: Position,
    },
    Done,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    log: Log,
    hosts: [Host; 2],
    sessions: Vec<Session>,
    /// The logins that have a position, of which a client may not have the cookie yet.
    logins: BTreeSet<(Id, Position)>,
    /// Those whose positions a failover has lost.
    astray: BTreeSet<Id>,
    appended: Vec<Appended>,
    requests: Vec<Stage>,
    has_failed_over: bool,
    /// A step of a follower has failed.
    has_failed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    Load {
        request: usize,
        session: usize,
    },
    Call {
        request: usize,
    },
    Reply {
        request: usize,
    },
    Continue {
        request: usize,
    },
    /// The follower of a host takes its next step.
    Follow {
        host: usize,
    },
    /// The step of a follower fails, or its reply is lost.
    Fail {
        host: usize,
    },
    /// A host finds that the log ends before the position of a session: `Register::rolled_back`.
    Raise {
        session: usize,
    },
    FailOver {
        keep: usize,
    },
    Crash {
        host: usize,
    },
}

/// Requests on two hosts.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The deed of each request, and its host.
    pub requests: Vec<(Deed, usize)>,
    pub fails_over: bool,
    /// A failover breaks no connection.
    pub silent: bool,
    /// One step of a follower may fail.
    pub fails: bool,
    pub crashes: bool,
    pub mistake: Mistake,
    /// Also counts the cases that a log without left-out positions has.
    pub strict: bool,
}

impl Scenario {
    /// These requests, on two hosts in turn.
    pub fn of(deeds: &[Deed]) -> Self {
        Self {
            requests: deeds
                .iter()
                .zip([0, 1].into_iter().cycle())
                .map(|(deed, host)| (*deed, host))
                .collect(),
            fails_over: false,
            silent: false,
            fails: false,
            crashes: false,
            mistake: Mistake::None,
            strict: false,
        }
    }

    fn call(&self, state: &mut State, request: usize) {
        let (deed, host) = self.requests[request];
        let session = match state.requests[request] {
            Stage::Loaded { session } => Some(session),
            _ => None,
        };
        let highest = state.hosts[host].highest;
        if deed == Deed::Login {
            let last = match self.mistake {
                Mistake::LoginDoesNotAsk => state.hosts[host].known,
                _ => state.log.top(highest),
            };
            state.logins.insert((fresh(request), last));
            state.requests[request] = Stage::Called { session, last, appended: None };
            return;
        }
        let base = session.map(|session| state.sessions[session].clone());
        if let (Deed::EndOthers, Some(base)) = (deed, &base) {
            if state.hosts[host].judge(base) == Verdict::Revoked {
                state.requests[request] = Stage::Done;
                return;
            }
        }
        let key = match (deed, &base) {
            (Deed::Logout, Some(base)) if self.mistake == Mistake::IdsInsteadOfRoots => Key::Id(base.id),
            (Deed::Logout | Deed::LoginAgain, Some(base)) => Key::Root(base.root),
            (Deed::Regenerate, Some(base)) => Key::Id(base.id),
            _ => Key::Owner,
        };
        // `end_other_sessions` records both in one step.
        let superseded =
            base.as_ref().filter(|_| deed == Deed::EndOthers).map(|base| (Key::Id(base.id), None));
        let last = state.log.append(superseded.into_iter().chain([(key, None)]), highest);
        let (mut must_end, mut may_end) = (BTreeSet::new(), BTreeSet::new());
        if key == Key::Owner {
            // Without positions that the log lost and that this host has never seen.
            let unknown = |(id, position): &&(Id, Position)| {
                !self.strict && *position > highest && state.astray.contains(id)
            };
            may_end = state.logins.iter().map(|(id, _)| *id).collect();
            must_end = may_end.clone();
            for (id, _) in state.logins.iter().filter(unknown) {
                must_end.remove(id);
            }
        }
        let continues = base.as_ref().filter(|_| deed == Deed::EndOthers).map(|base| base.root);
        if let Some(root) = continues {
            must_end.remove(&root);
            may_end.remove(&root);
            state.logins.insert((root, last));
        }
        if let (Deed::Logout | Deed::LoginAgain, Some(base)) = (deed, &base) {
            must_end.insert(base.root);
        }
        if deed == Deed::LoginAgain {
            state.logins.insert((fresh(request), last));
        }
        state.appended.push(Appended {
            key,
            mark: last,
            must_end,
            may_end,
            continues,
            acknowledged_by: None,
        });
        let appended = Some(state.appended.len() - 1);
        state.requests[request] = Stage::Called { session, last, appended };
    }

    fn reply(&self, state: &mut State, request: usize) {
        let (deed, at) = self.requests[request];
        let Stage::Called { session, last, appended } = state.requests[request] else { return };
        let host = &mut state.hosts[at];
        host.highest = host.highest.max(last);
        if let Some(number) = appended {
            let key = state.appended[number].key;
            host.apply(last, key);
            host.unread.push((last, key));
            state.appended[number].acknowledged_by = Some(at);
        }
        if let (Deed::EndOthers, Some(session)) = (deed, session) {
            let id = state.sessions[session].id;
            host.apply(last, Key::Id(id));
            host.unread.push((last - 1, Key::Id(id)));
            state.requests[request] = Stage::Confirming { session, last };
            return;
        }
        let base = session.map(|session| state.sessions[session].clone());
        let id = fresh(request);
        let begun = Session { id, root: id, position: last, is_from_before_failover: false };
        match (deed, base) {
            (Deed::Login | Deed::LoginAgain, _) => state.sessions.push(begun),
            (Deed::Regenerate, Some(base)) => {
                let position =
                    if self.mistake == Mistake::RegenerateTakesPosition { last } else { base.position };
                state.sessions.push(Session { id, position, ..base });
            }
            _ => {}
        }
        state.requests[request] = Stage::Done;
    }

    /// The end of `Inner::end_others`: the session continues, unless it has ended since it was loaded.
    fn continue_behind(&self, state: &mut State, request: usize) {
        let Stage::Confirming { session, last } = state.requests[request] else { return };
        let (host, base) = (&state.hosts[self.requests[request].1], state.sessions[session].clone());
        let outrun = host.has_mark_between(Key::Owner, base.position, last);
        let ended = host.mark(Key::Root(base.root)).is_some();
        if !ended && (!outrun || self.mistake == Mistake::OutrunsEnds) {
            let id = fresh(request);
            state.sessions.push(Session { id, position: last, is_from_before_failover: false, ..base });
        }
        state.requests[request] = Stage::Done;
    }

    /// `follower::follow` and `follower::heal`.
    fn follow(&self, state: &mut State, at: usize) {
        let began = || Began {
            acknowledged: (0..state.appended.len())
                .filter(|number| {
                    let appended = &state.appended[*number];
                    appended.acknowledged_by.is_some() && state.log.has(appended.key, appended.mark)
                })
                .collect(),
            after_failover: state.has_failed_over,
        };
        let mut host = state.hosts[at].clone();
        host.follower = match host.follower.clone() {
            Follower::Idle => {
                Follower::Reading { page: state.log.read(host.after), seen: host.highest, began: began() }
            }
            Follower::Reading { page, seen, began } => {
                let heals = self.mistake != Mistake::NotWrittenAgain;
                if (host.failing || page.top < seen) && heals {
                    Follower::Raising
                } else {
                    host.take_in(&page.entries);
                    let last = page.entries.last().map_or(host.after, |last| last.position);
                    if host.has_lost_entries(page.top) && heals {
                        Follower::Raising
                    } else {
                        host.confirm(page.top, began);
                        host.after = match self.mistake {
                            Mistake::GoesOnFromHighest => host.highest,
                            _ => last.max(page.top),
                        };
                        Follower::Idle
                    }
                }
            }
            Follower::Raising => {
                state.log.top(host.highest);
                Follower::Healing { highest: host.highest }
            }
            Follower::Healing { highest } => {
                // All entries are recent here, so both kinds of healing read from the start.
                let ours: Vec<_> = host.set.iter().copied().collect();
                let (began, page) = (began(), state.log.read(0));
                host.take_in(&page.entries);
                let lacks = |(key, mark): &(Key, Position)| {
                    !page.entries.iter().any(|entry| entry.key == *key && entry.mark() >= *mark)
                };
                let lost: Vec<_> = ours.into_iter().filter(lacks).collect();
                if lost.is_empty() {
                    host.end_healing(highest, &page, began);
                    Follower::Idle
                } else {
                    Follower::WritingAgain { lost, highest }
                }
            }
            Follower::WritingAgain { lost, highest } => {
                let original = |mark| (self.mistake != Mistake::WrittenAgainAsNew).then_some(mark);
                state.log.append(lost.iter().map(|(key, mark)| (*key, original(*mark))), highest);
                Follower::ReadingBack { highest }
            }
            Follower::ReadingBack { highest } => {
                let (began, page) = (began(), state.log.read(0));
                host.take_in(&page.entries);
                host.end_healing(highest, &page, began);
                Follower::Idle
            }
        };
        state.hosts[at] = host;
    }
}

/// The id that a request draws.
fn fresh(request: usize) -> Id {
    u8::try_from(request).unwrap() + 1
}

impl State {
    /// Returns true if this revocation must end the session.
    fn covers(&self, appended: &Appended, session: &Session) -> bool {
        let is_former_id = appended.continues == Some(session.root) && session.position < appended.mark;
        appended.must_end.contains(&session.root) || appended.key == Key::Id(session.id) || is_former_id
    }

    fn living(&self) -> impl Iterator<Item = (usize, &Host)> {
        self.hosts.iter().enumerate().filter(|(_, host)| !host.crashed)
    }
}

impl Model for Scenario {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let first = Session { id: 0, root: 0, position: 0, is_from_before_failover: false };
        vec![State {
            log: Log::default(),
            hosts: [Host::default(), Host::default()],
            sessions: vec![first],
            logins: BTreeSet::from([(0, 0)]),
            astray: BTreeSet::new(),
            appended: Vec::new(),
            requests: vec![Stage::Before; self.requests.len()],
            has_failed_over: false,
            has_failed: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (request, stage) in state.requests.iter().enumerate() {
            let (deed, at) = self.requests[request];
            if state.hosts[at].crashed {
                continue;
            }
            match stage {
                Stage::Before if deed.loads() => {
                    let served =
                        |session: &usize| state.hosts[at].judge(&state.sessions[*session]) == Verdict::Valid;
                    let sessions = (0..state.sessions.len()).filter(served);
                    actions.extend(sessions.map(|session| Action::Load { request, session }));
                }
                Stage::Before | Stage::Loaded { .. } => actions.push(Action::Call { request }),
                Stage::Called { .. } => actions.push(Action::Reply { request }),
                Stage::Confirming { last, .. } => {
                    let is_current = state.hosts[at].known >= *last;
                    if is_current || self.mistake == Mistake::ContinuesUnread {
                        actions.push(Action::Continue { request });
                    }
                }
                Stage::Done => {}
            }
        }
        for (host, _) in state.living() {
            actions.push(Action::Follow { host });
        }
        if self.fails && !state.has_failed {
            let busy = state.living().filter(|(_, host)| host.follower != Follower::Idle);
            actions.extend(busy.map(|(host, _)| Action::Fail { host }));
        }
        for (session, Session { position, .. }) in state.sessions.iter().enumerate() {
            let unconfirmed =
                |(_, host): (usize, &Host)| host.known < *position && host.follower == Follower::Idle;
            if state.log.top < *position && state.living().any(unconfirmed) {
                actions.push(Action::Raise { session });
            }
        }
        if self.fails_over && !state.has_failed_over {
            actions.extend((0..state.log.entries.len()).map(|keep| Action::FailOver { keep }));
        }
        if self.crashes && state.living().count() == 2 {
            actions.extend((0..2).map(|host| Action::Crash { host }));
        }
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        match action {
            Action::Load { request, session } => state.requests[request] = Stage::Loaded { session },
            Action::Call { request } => self.call(&mut state, request),
            Action::Reply { request } => self.reply(&mut state, request),
            Action::Continue { request } => self.continue_behind(&mut state, request),
            Action::Follow { host } => self.follow(&mut state, host),
            // A reply that is lost after the log has carried out the call is the failure of the next step.
            Action::Fail { host } => {
                state.has_failed = true;
                let host = &mut state.hosts[host];
                host.failing = self.mistake != Mistake::ForgetsLoss;
                host.follower = Follower::Idle;
            }
            Action::Raise { session } => {
                let position = state.sessions[session].position;
                state.log.top(position);
            }
            Action::FailOver { keep } => {
                state.log.entries.truncate(keep);
                state.log.top = state.log.entries.last().map_or(0, |last| last.position);
                state.has_failed_over = true;
                let top = state.log.top;
                state.astray =
                    state.logins.iter().filter(|(_, position)| *position > top).map(|(id, _)| *id).collect();
                for session in &mut state.sessions {
                    session.is_from_before_failover = true;
                }
                for host in &mut state.hosts {
                    host.has_read_since_failover = false;
                    if !self.silent {
                        // The connection is gone, and what was on it.
                        host.failing = true;
                        host.follower = Follower::Idle;
                    }
                }
            }
            Action::Crash { host } => state.hosts[host].crashed = true,
        }
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "an ended session is refused at once where it was ended",
                |_: &Self, state: &State| {
                    state.appended.iter().all(|appended| {
                        let ended = |session: &&Session| state.covers(appended, session);
                        let host =
                            appended.acknowledged_by.map(|at| &state.hosts[at]).filter(|host| !host.crashed);
                        host.is_none_or(|host| {
                            state
                                .sessions
                                .iter()
                                .filter(ended)
                                .all(|session| host.judge(session) != Verdict::Valid)
                        })
                    })
                },
            ),
            Property::always(
                "an ended session is refused within the bound elsewhere",
                |_: &Self, state: &State| {
                    state.living().all(|(_, host)| {
                        host.confirmed.iter().all(|number| {
                            let appended = &state.appended[*number];
                            let mut ended =
                                state.sessions.iter().filter(|session| state.covers(appended, session));
                            ended.all(|session| host.judge(session) != Verdict::Valid)
                        })
                    })
                },
            ),
            Property::always("what a failover lost is in the log again", |_: &Self, state: &State| {
                let has_read = |host: &Host| {
                    host.has_read_since_failover && !host.failing && host.follower == Follower::Idle
                };
                let all_have_read = state.living().all(|(_, host)| has_read(host));
                !state.has_failed_over
                    || !all_have_read
                    || state.appended.iter().all(|appended| {
                        // Known to a process that is alive, and that has read the log since it knows.
                        let knows = state.living().any(|(_, host)| {
                            host.mark(appended.key).is_some_and(|mark| mark >= appended.mark)
                                && !host.unread.iter().any(|(_, key)| *key == appended.key)
                        });
                        !knows || state.log.has(appended.key, appended.mark)
                    })
            }),
            Property::always(
                "no session ends without a revocation of it",
                |scenario: &Self, state: &State| {
                    let revoked = |session: &&Session| {
                        state.living().any(|(_, host)| host.judge(session) == Verdict::Revoked)
                    };
                    state.sessions.iter().filter(revoked).all(|session| {
                        let excused =
                            !scenario.strict && state.has_failed_over && !session.is_from_before_failover;
                        let ends = |appended: &Appended| {
                            state.covers(appended, session) || appended.may_end.contains(&session.root)
                        };
                        excused || state.appended.iter().any(ends)
                    })
                },
            ),
            Property::sometimes("all requests end", |_: &Self, state: &State| {
                state.requests.iter().all(|stage| *stage == Stage::Done)
            }),
        ]
    }
}
