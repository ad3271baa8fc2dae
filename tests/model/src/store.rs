//! The server-side store: requests of several hosts on the session of one browser.

use stateright::{Model, Property};

use crate::backend::{Backend, Call, Content, FIRST_TOKENS, List, Place, Reply, Revision, Session, Value};
use crate::request::{Answer, Deed, Mistake, Program, Replies, Waiting};

/// The token that the browser has at first.
const FIRST: u8 = FIRST_TOKENS[0];

/// Some requests. Each can start at any time, with any token that a client knows by then.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The deed of each request, and its host.
    pub requests: Vec<(Deed, u8)>,
    /// True if the browser is logged in at first.
    pub logged_in: bool,
    /// True if the same user is logged in with a second browser at first.
    pub second_browser: bool,
    /// True if only listed sessions count: `check_session_list`.
    pub checks_list: bool,
    /// True if each session is in an old store at first, and moves when it is written: `MigratingStore`. `EndOthers` is not in this
    /// model.
    pub migrates: bool,
    /// How many hosts may crash.
    pub crashes: u8,
    /// True if the entry of the session list may be lost once: evicted, or deleted by an operator.
    pub loses_list: bool,
    /// How many steps may fail, or have their replies lost. Where sessions move, this concerns the end of a session in the old
    /// store, otherwise the look at the session list of a renewal and its entering the session again.
    pub failures: u8,
    pub mistake: Mistake,
    /// Also counts the loss of a session whose move got no reply.
    pub strict: bool,
}

impl Scenario {
    /// These requests of a browser that is logged in, on two hosts in turn.
    pub fn of(deeds: &[Deed]) -> Self {
        Self {
            requests: deeds
                .iter()
                .zip([0, 1].into_iter().cycle())
                .map(|(deed, host)| (*deed, host))
                .collect(),
            logged_in: true,
            second_browser: false,
            checks_list: false,
            migrates: false,
            crashes: 0,
            loses_list: false,
            failures: 0,
            mistake: Mistake::None,
            strict: false,
        }
    }

    fn program(&self, request: u8, token: u8, knows_list: bool, failed_before: bool) -> Program {
        Program {
            request,
            deed: self.requests[usize::from(request)].0,
            token,
            checks_list: self.checks_list,
            migrates: self.migrates,
            knows_list,
            failed_before,
            mistake: self.mistake,
        }
    }

    /// Returns true if the call of this request may fail. No answer depends on such a call, except on
    /// the end of a session that moves.
    pub fn may_fail(&self, request: u8, call: &Call) -> bool {
        if self.migrates {
            return matches!(call, Call::Exchange(Place::Session(token), _, Some(Content::Tombstone(None))) if FIRST_TOKENS.contains(token));
        }
        let (Call::Fetch(place) | Call::Create(place, _) | Call::Exchange(place, ..)) = call else {
            return false;
        };
        let deed = self.requests[usize::from(request)].0;
        *place == Place::List && matches!(deed, Deed::Renew | Deed::LateUpdate)
    }

    /// The tokens of the sessions that are there before the first request.
    pub fn first_tokens(&self) -> impl Iterator<Item = u8> {
        FIRST_TOKENS.into_iter().take(if self.second_browser { 2 } else { 1 })
    }

    fn has(&self, deeds: &[Deed]) -> bool {
        self.requests.iter().any(|(deed, _)| deeds.contains(deed))
    }
}

/// A set of small numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Numbers(u32);

impl Numbers {
    fn insert(&mut self, number: u8) {
        self.0 |= 1 << number;
    }

    fn has(self, number: u8) -> bool {
        self.0 & 1 << number != 0
    }

    fn iter(self) -> impl Iterator<Item = u8> {
        (0..32).filter(move |number| self.has(*number))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub backend: Backend,
    pub requests: Vec<Stage>,
    crashed: Numbers,
    list_lost: bool,
    failures: u8,
    /// A step was carried out, and its reply was lost.
    reply_lost: bool,
    /// The tokens whose sessions each host has loaded: `ListMemo`.
    loaded: [Numbers; 2],
    /// The tokens whose sessions a step that failed was to enter again.
    failed: Numbers,
    /// The tokens that a client has been given.
    known: Numbers,
    /// The entries of sessions that were deleted or replaced by a tombstone.
    dead: Numbers,
    /// An entry of `dead` held a session again.
    came_back: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    Before,
    Running { program: Started, replies: Replies, since: Since },
    Done { answer: Answer, failed: bool, since: Since },
    Crashed,
}

/// The parts of a [`Program`] that are decided when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Started {
    token: u8,
    knows_list: bool,
    failed_before: bool,
}

/// The facts at the moment when a request started.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Since {
    token: u8,
    /// The token under which the values of that session began.
    began: Option<u8>,
    /// The session that the token led to, or that continues from it.
    behind: Option<Session>,
    /// The logins whose sessions clients had.
    logins: Numbers,
    /// The logins whose sessions were listed, under each of their tokens.
    listed: Numbers,
    /// The logins that a call had ended, or would have if the list had not been lost.
    ended: Numbers,
    /// True if the list had been lost.
    list_lost: bool,
    /// The login of that session.
    login: Option<u8>,
    /// True if every call that ends sessions of the subject had returned, or has not started.
    no_end_running: bool,
    ends_finished: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A client sends a request with this token.
    Start { request: u8, token: u8 },
    /// The backend carries out a call, and the request gets the reply.
    Call { request: u8, lane: u8 },
    /// A call fails. Either the backend did not carry it out, or its reply was lost.
    Fail { request: u8, lane: u8, carried_out: bool },
    /// A host stops, and its requests with it.
    Crash { host: u8 },
    /// The backend loses the entry of the session list.
    LoseList,
}

impl State {
    /// The state before the first request.
    pub fn initial(scenario: &Scenario) -> Self {
        let session = Session { login: FIRST, began: FIRST, has_subject: scenario.logged_in, changes: 0 };
        let value = |content| Value { revision: Revision::INITIAL, content };
        let mut backend = Backend::default();
        let mut known = Numbers::default();
        let mut list = List::default();
        for token in scenario.first_tokens() {
            let session = Session { login: token, began: token, ..session };
            backend.entries.insert(Place::Session(token), value(Content::Session(session)));
            list.0.push((token, false));
            known.insert(token);
        }
        if scenario.logged_in {
            let place = if scenario.migrates { Place::OldList } else { Place::List };
            backend.entries.insert(place, value(Content::List(list)));
        }
        Self {
            backend,
            requests: vec![Stage::Before; scenario.requests.len()],
            crashed: Numbers::default(),
            list_lost: false,
            failures: 0,
            reply_lost: false,
            loaded: [Numbers::default(); 2],
            failed: Numbers::default(),
            known,
            dead: Numbers::default(),
            came_back: false,
        }
    }

    /// The calls that `request` waits for.
    pub fn waiting(&self, scenario: &Scenario, request: u8) -> Waiting {
        match &self.requests[usize::from(request)] {
            Stage::Running { program: Started { token, knows_list, failed_before }, replies, .. } => {
                let program = scenario.program(request, *token, *knows_list, *failed_before);
                program.run(replies).err().unwrap_or_default()
            }
            _ => Waiting::new(),
        }
    }

    pub fn start(&mut self, scenario: &Scenario, request: u8, token: u8) {
        let is_end = |at: &usize| matches!(scenario.requests[*at].0, Deed::EndAll | Deed::EndOthers);
        let ends = || (0..self.requests.len()).filter(is_end).map(|at| &self.requests[at]);
        let running = |stage: &&Stage| matches!(stage, Stage::Running { .. } | Stage::Crashed);
        let logins = |sessions: &mut dyn Iterator<Item = (u8, Session)>| {
            sessions.fold(Numbers::default(), |mut logins, (_, session)| {
                logins.insert(session.login);
                logins
            })
        };
        let list = self.backend.list_at(Place::List);
        // A session that has two tokens while it is given a new one is listed if both are.
        let mut is_unlisted = sessions_of(&self.backend).filter(|(token, _)| !list.names(*token));
        let unlisted = logins(&mut is_unlisted);
        let mut ended = Numbers::default();
        for (_, _, since) in self.answers(scenario, Deed::EndAll) {
            ended.0 |= since.logins.0;
        }
        let since = Since {
            token,
            began: self.backend.session(token).map(|session| session.began),
            behind: self.backend.behind(token),
            login: self.backend.session(token).map(|session| session.login),
            logins: logins(&mut self.sessions()),
            listed: Numbers(logins(&mut self.sessions()).0 & !unlisted.0),
            ended,
            list_lost: self.list_lost,
            no_end_running: !ends().any(|stage| running(&stage)),
            ends_finished: u8::try_from(ends().filter(|stage| matches!(stage, Stage::Done { .. })).count())
                .unwrap(),
        };
        let host = usize::from(scenario.requests[usize::from(request)].1);
        let (knows_list, failed_before) = (self.loaded[host].has(token), self.failed.has(token));
        let program = Started { token, knows_list, failed_before };
        self.requests[usize::from(request)] = Stage::Running { program, replies: vec![vec![]], since };
    }

    /// Carries out the call of a lane. Returns false if it waits for none.
    pub fn call(&mut self, scenario: &Scenario, request: u8, lane: u8) -> bool {
        self.step(scenario, request, lane, |backend, call, revision| backend.carry_out(call, revision))
    }

    /// Lets the call of a lane fail. Returns false if it waits for none.
    pub fn fail(&mut self, scenario: &Scenario, request: u8, lane: u8, carried_out: bool) -> bool {
        self.failures += 1;
        self.reply_lost |= carried_out;
        if let Stage::Running { program, .. } = &self.requests[usize::from(request)] {
            self.failed.insert(program.token);
        }
        self.step(scenario, request, lane, |backend, call, revision| {
            if carried_out {
                backend.carry_out(call, revision);
            }
            Reply::Failed
        })
    }

    fn step(
        &mut self,
        scenario: &Scenario,
        request: u8,
        lane: u8,
        reply: impl FnOnce(&mut Backend, Call, Revision) -> Reply,
    ) -> bool {
        let Some((_, call)) = self.waiting(scenario, request).into_iter().find(|(at, _)| *at == lane) else {
            return false;
        };
        let Stage::Running { program, replies, since } = &mut self.requests[usize::from(request)] else {
            return false;
        };
        let at = usize::from(lane);
        if replies.len() <= at {
            replies.resize(at + 1, Vec::new());
        }
        let revision = Revision { request, lane, step: u8::try_from(replies[at].len()).unwrap() };
        let before: Vec<u8> = sessions_of(&self.backend).map(|(token, _)| token).collect();
        let reply = reply(&mut self.backend, call, revision);
        let (deed, host) = scenario.requests[usize::from(request)];
        if let Reply::Found(Some(Value {
            content: Content::Session(Session { has_subject: true, .. }),
            ..
        })) = &reply
        {
            // The first reply is that to the load.
            if scenario.checks_list && replies[0].is_empty() && lane == 0 && deed != Deed::EndAll {
                self.loaded[usize::from(host)].insert(program.token);
            }
        }
        replies[at].push(reply);
        let Started { token, knows_list, failed_before } = *program;
        if let Ok(answer) = scenario.program(request, token, knows_list, failed_before).run(replies) {
            if let Some(token) = answer.stored() {
                self.known.insert(token);
            }
            let (failed, since) =
                (replies.iter().flatten().any(|reply| *reply == Reply::Failed), since.clone());
            self.requests[usize::from(request)] = Stage::Done { answer, failed, since };
        }
        for token in before {
            if self.backend.session(token).is_none() {
                self.dead.insert(token);
            }
        }
        self.came_back |= sessions_of(&self.backend).any(|(token, _)| self.dead.has(token));
        true
    }

    /// Loses the entry of the session list. Returns false if there is none, or one was lost before.
    pub fn lose_list(&mut self) -> bool {
        let loses = !self.list_lost && self.backend.entries.remove(&Place::List).is_some();
        self.list_lost |= loses;
        loses
    }

    pub fn crash(&mut self, scenario: &Scenario, host: u8) {
        self.crashed.insert(host);
        for (stage, (_, at)) in self.requests.iter_mut().zip(&scenario.requests) {
            if *at == host && !matches!(stage, Stage::Done { .. }) {
                *stage = Stage::Crashed;
            }
        }
    }

    /// The sessions whose tokens clients have.
    fn sessions(&self) -> impl Iterator<Item = (u8, Session)> {
        sessions_of(&self.backend).filter(|(token, _)| self.known.has(*token))
    }

    fn answers<'a>(
        &'a self,
        scenario: &'a Scenario,
        deed: Deed,
    ) -> impl Iterator<Item = (u8, Answer, &'a Since)> {
        self.requests.iter().enumerate().filter_map(move |(request, stage)| match stage {
            Stage::Done { answer, since, .. } if scenario.requests[request].0 == deed => {
                Some((u8::try_from(request).unwrap(), *answer, since))
            }
            _ => None,
        })
    }

    /// Returns the logins that a call which began then must end. A list that was lost has no sessions to end, other than the sessions
    /// that have been entered again.
    fn must_end(&self, since: &Since) -> Numbers {
        match (self.list_lost, since.list_lost) {
            (false, _) => since.logins,
            (true, true) => since.listed,
            (true, false) => Numbers::default(),
        }
    }

    /// Returns true if a session may be lost: the reply to its end in the old store did not arrive, so the copy in the new one ends,
    /// too.
    fn move_is_lost(&self, scenario: &Scenario) -> bool {
        scenario.migrates && self.reply_lost && !scenario.strict
    }

    fn is_quiet(&self) -> bool {
        self.requests.iter().all(|stage| matches!(stage, Stage::Done { .. } | Stage::Crashed))
    }
}

fn sessions_of(backend: &Backend) -> impl Iterator<Item = (u8, Session)> {
    backend.entries.keys().filter_map(|place| match place {
        Place::Session(token) => backend.session(*token).map(|session| (*token, session)),
        Place::List | Place::OldList => None,
    })
}

impl Model for Scenario {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::initial(self)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (request, stage) in state.requests.iter().enumerate() {
            let number = u8::try_from(request).unwrap();
            let (deed, host) = self.requests[request];
            match stage {
                // Requests that do the same on the same host start in the order of their numbers: that they are
                // interchangeable saves half of the states.
                Stage::Before
                    if self.requests[..request]
                        .iter()
                        .zip(&state.requests)
                        .any(|(other, stage)| *other == (deed, host) && *stage == Stage::Before) => {}
                // The call that ends all has no token of its own.
                Stage::Before if deed == Deed::EndAll => {
                    actions.push(Action::Start { request: number, token: FIRST });
                }
                Stage::Before => {
                    actions.extend(state.known.iter().map(|token| Action::Start { request: number, token }));
                }
                Stage::Running { .. } => {
                    for (lane, call) in state.waiting(self, number) {
                        actions.push(Action::Call { request: number, lane });
                        if state.failures < self.failures && self.may_fail(number, &call) {
                            let fail = |carried_out| Action::Fail { request: number, lane, carried_out };
                            actions.push(fail(false));
                            // Without its reply, a fetch has done nothing.
                            actions.extend((!matches!(call, Call::Fetch(_))).then(|| fail(true)));
                        }
                    }
                }
                Stage::Done { .. } | Stage::Crashed => {}
            }
        }
        if state.crashed.iter().count() < usize::from(self.crashes) {
            let busy = state.requests.iter().zip(&self.requests);
            let busy =
                busy.filter(|(stage, _)| matches!(stage, Stage::Running { .. })).map(|(_, (_, host))| *host);
            actions.extend(
                [0, 1]
                    .into_iter()
                    .filter(|host| busy.clone().any(|busy| busy == *host))
                    .map(|host| Action::Crash { host }),
            );
        }
        if self.loses_list && !state.list_lost && !state.is_quiet() {
            actions.push(Action::LoseList);
        }
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        match action {
            Action::Start { request, token } => state.start(self, request, token),
            Action::Call { request, lane } => {
                state.call(self, request, lane).then_some(())?;
            }
            Action::Fail { request, lane, carried_out } => {
                state.fail(self, request, lane, carried_out).then_some(())?;
            }
            Action::Crash { host } => state.crash(self, host),
            Action::LoseList => {
                state.lose_list().then_some(())?;
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no update is lost", |scenario: &Self, state: &State| {
                let updates = |deed| state.answers(scenario, deed);
                updates(Deed::Update).chain(updates(Deed::LateUpdate)).all(|(request, answer, since)| {
                    match answer {
                        // Also under the tokens that the session has got since.
                        Answer::Stored(_) | Answer::Renewed(_) => state
                            .sessions()
                            .filter(|(_, session)| Some(session.began) == since.began)
                            .all(|(_, session)| session.changes & 1 << request != 0),
                        _ => state.sessions().all(|(_, session)| session.changes & 1 << request == 0),
                    }
                })
            }),
            Property::always("no session comes back", |_: &Self, state: &State| !state.came_back),
            Property::always(
                "a logout ends the session, under whatever token",
                |scenario: &Self, state: &State| {
                    let mut logouts = state.answers(scenario, Deed::Logout);
                    logouts.all(|(_, answer, since)| {
                        // A login of a visitor begins a session that the visitor's token does not end.
                        // Nor does a logout follow a session to another store.
                        let stays = |token: u8| {
                            scenario.migrates
                                && FIRST_TOKENS.contains(&since.token)
                                && !FIRST_TOKENS.contains(&token)
                        };
                        let is_same = |session: &Session| {
                            since.behind.is_some_and(|behind| {
                                behind.began == session.began && behind.has_subject == session.has_subject
                            })
                        };
                        answer != Answer::Removed
                            || state.sessions().all(|(token, session)| stays(token) || !is_same(&session))
                    })
                },
            ),
            Property::always(
                "ending all leaves no earlier session, under whatever token",
                |scenario: &Self, state: &State| {
                    state.answers(scenario, Deed::EndAll).all(|(_, _, since)| {
                        state.sessions().all(|(_, session)| {
                            !state.must_end(since).has(session.login) || !session.has_subject
                        })
                    })
                },
            ),
            Property::always(
                "ending the others leaves no other earlier session, under whatever token",
                |scenario: &Self, state: &State| {
                    state.answers(scenario, Deed::EndOthers).all(|(_, answer, since)| {
                        let is_other = |session: &Session| {
                            state.must_end(since).has(session.login) && Some(session.login) != since.login
                        };
                        let mut live = state.sessions().map(|(_, session)| session);
                        answer != Answer::OthersEnded
                            || live.all(|session| !is_other(&session) || !session.has_subject)
                    })
                },
            ),
            Property::always("ending the others keeps the own session", |scenario: &Self, state: &State| {
                let ends = |deed: &Deed| *deed != Deed::Renew && !deed.updates();
                let alone = scenario.requests.iter().filter(|(deed, _)| ends(deed)).count() == 1;
                let mut ends = state.answers(scenario, Deed::EndOthers);
                !alone
                    || state.list_lost
                    || ends.all(|(_, _, since)| state.backend.session(since.token).is_some())
            }),
            Property::always("the list names every live session", |scenario: &Self, state: &State| {
                let [list, old_list] =
                    [Place::List, Place::OldList].map(|place| state.backend.list_at(place));
                state.list_lost
                    || state.sessions().all(|(token, session)| {
                        let is_old = scenario.migrates && FIRST_TOKENS.contains(&token);
                        let list = if is_old { &old_list } else { &list };
                        !session.has_subject || list.names(token)
                    })
            }),
            Property::always(
                "a session that moves is never in both stores",
                |scenario: &Self, state: &State| {
                    let copies =
                        |token| state.sessions().filter(|(_, session)| session.began == token).count();
                    !scenario.migrates || scenario.first_tokens().all(|token| copies(token) <= 1)
                },
            ),
            Property::always("no copy of a session is left behind", |scenario: &Self, state: &State| {
                !scenario.migrates
                    || state.crashed.0 != 0
                    || !state.is_quiet()
                    || sessions_of(&state.backend).all(|(token, _)| state.known.has(token))
            }),
            Property::always(
                "a renewal enters a session in the list that lacks it",
                |scenario: &Self, state: &State| {
                    let list = state.backend.list_at(Place::List);
                    scenario.checks_list
                        || state.requests.iter().all(|stage| match stage {
                            Stage::Done { answer: Answer::Renewed(token), failed: false, since } => {
                                !since.list_lost
                                    || list.names(*token)
                                    || state
                                        .backend
                                        .session(*token)
                                        .is_none_or(|session| !session.has_subject)
                            }
                            _ => true,
                        })
                },
            ),
            Property::always(
                "where the list decides, no session counts that an end did not reach",
                |scenario: &Self, state: &State| {
                    let list = state.backend.list_at(Place::List);
                    let ends = |deed| state.answers(scenario, deed);
                    let counts = |token| list.has(token);
                    let mut all = ends(Deed::EndAll);
                    let mut others =
                        ends(Deed::EndOthers).filter(|(_, answer, _)| *answer == Answer::OthersEnded);
                    let live =
                        || state.sessions().filter(|(token, session)| session.has_subject && counts(*token));
                    !scenario.checks_list
                        || all
                            .all(|(_, _, since)| live().all(|(_, session)| !since.logins.has(session.login)))
                            && others.all(|(_, _, since)| {
                                live().all(|(_, session)| {
                                    !since.logins.has(session.login) || Some(session.login) == since.login
                                })
                            })
                },
            ),
            Property::always(
                "where the list decides, no request has a session that an end did not reach",
                |scenario: &Self, state: &State| {
                    let begins = |deed: Deed| matches!(deed, Deed::Login | Deed::EndAll);
                    !scenario.checks_list
                        || state.requests.iter().zip(&scenario.requests).all(|(stage, (deed, _))| match stage
                        {
                            Stage::Done { answer, since, .. } if !begins(*deed) => {
                                let was_ended = since.login.is_some_and(|login| since.ended.has(login));
                                answer.stored().is_none() || !was_ended
                            }
                            _ => true,
                        })
                },
            ),
            Property::always("a session that no request ends lives on", |scenario: &Self, state: &State| {
                let ended = scenario.has(&[Deed::Logout, Deed::EndAll, Deed::EndOthers]);
                let lives = |token| sessions_of(&state.backend).any(|(_, session)| session.began == token);
                ended || state.move_is_lost(scenario) || scenario.first_tokens().all(lives)
            }),
            Property::always(
                "a client knows the token of a session that no request ends",
                |scenario: &Self, state: &State| {
                    let ended = scenario.has(&[Deed::Logout, Deed::EndAll, Deed::EndOthers]);
                    let unlike = ended || state.crashed.0 != 0 || state.move_is_lost(scenario);
                    let mut known = state.sessions();
                    let is_one = known.by_ref().filter(|(_, session)| session.began == FIRST).count() == 1;
                    unlike || state.list_lost || !state.is_quiet() || is_one
                },
            ),
            Property::always("a login after the end is not ended", |scenario: &Self, state: &State| {
                let is_end = |deed: &Deed| matches!(deed, Deed::EndAll | Deed::EndOthers);
                let ends = scenario.requests.iter().filter(|(deed, _)| is_end(deed)).count();
                // A move gives the session a new token, too.
                let moves = scenario.migrates && scenario.has(&[Deed::Renew, Deed::Update, Deed::LateUpdate]);
                let others = scenario.has(&[Deed::Logout, Deed::Regenerate]) || moves || state.list_lost;
                let logins = scenario.requests.iter().filter(|(deed, _)| *deed == Deed::Login).count();
                others
                    || logins > 1
                    || state.answers(scenario, Deed::Login).all(|(_, answer, since)| {
                        let is_after = since.no_end_running && usize::from(since.ends_finished) == ends;
                        let lives =
                            answer.stored().is_some_and(|token| state.backend.session(token).is_some());
                        !is_after || matches!(answer, Answer::NotFound | Answer::Failed) || lives
                    })
            }),
            // Without these, the rules above could hold because nothing happens.
            Property::sometimes("all requests end", |_: &Self, state: &State| state.is_quiet()),
        ]
    }
}
