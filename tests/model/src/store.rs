//! The server-side store: requests of several hosts on the session of one browser.

use stateright::{Model, Property};

use crate::backend::{Backend, Content, List, Place, Revision, Session, Value};
use crate::request::{Answer, Deed, Mistake, Program, Replies, Waiting};

/// The token that the browser has at first.
const FIRST: u8 = 0;

/// Some requests. Each can start at any time, with any token that a client knows by then.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The deed of each request, and its host.
    pub requests: Vec<(Deed, u8)>,
    /// True if the browser is logged in at first.
    pub logged_in: bool,
    /// How many hosts may crash.
    pub crashes: u8,
    /// True if the entry of the session list may be lost once: evicted, or deleted by an operator.
    pub loses_list: bool,
    pub mistake: Mistake,
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
            crashes: 0,
            loses_list: false,
            mistake: Mistake::None,
        }
    }

    pub fn program(&self, request: u8, token: u8) -> Program {
        Program { request, deed: self.requests[usize::from(request)].0, token, mistake: self.mistake }
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
    Running { token: u8, replies: Replies, since: Since },
    Done { answer: Answer, since: Since },
    Crashed,
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
        backend.entries.insert(Place::Session(FIRST), value(Content::Session(session)));
        if scenario.logged_in {
            backend.entries.insert(Place::List, value(Content::List(List(vec![(FIRST, false)]))));
        }
        let mut known = Numbers::default();
        known.insert(FIRST);
        Self {
            backend,
            requests: vec![Stage::Before; scenario.requests.len()],
            crashed: Numbers::default(),
            list_lost: false,
            known,
            dead: Numbers::default(),
            came_back: false,
        }
    }

    /// The calls that `request` waits for.
    pub fn waiting(&self, scenario: &Scenario, request: u8) -> Waiting {
        match &self.requests[usize::from(request)] {
            Stage::Running { token, replies, .. } => {
                scenario.program(request, *token).run(replies).err().unwrap_or_default()
            }
            _ => Waiting::new(),
        }
    }

    pub fn start(&mut self, scenario: &Scenario, request: u8, token: u8) {
        let is_end = |at: &usize| matches!(scenario.requests[*at].0, Deed::EndAll | Deed::EndOthers);
        let ends = || (0..self.requests.len()).filter(is_end).map(|at| &self.requests[at]);
        let running = |stage: &&Stage| matches!(stage, Stage::Running { .. } | Stage::Crashed);
        let logins = self.sessions().map(|(_, session)| session.login);
        let since = Since {
            token,
            began: self.backend.session(token).map(|session| session.began),
            behind: self.backend.behind(token),
            login: self.backend.session(token).map(|session| session.login),
            logins: logins.fold(Numbers::default(), |mut logins, login| {
                logins.insert(login);
                logins
            }),
            no_end_running: !ends().any(|stage| running(&stage)),
            ends_finished: u8::try_from(ends().filter(|stage| matches!(stage, Stage::Done { .. })).count())
                .unwrap(),
        };
        self.requests[usize::from(request)] = Stage::Running { token, replies: vec![vec![]], since };
    }

    /// Carries out the call of a lane. Returns false if it waits for none.
    pub fn call(&mut self, scenario: &Scenario, request: u8, lane: u8) -> bool {
        let Some((_, call)) = self.waiting(scenario, request).into_iter().find(|(at, _)| *at == lane) else {
            return false;
        };
        let Stage::Running { token, replies, since } = &mut self.requests[usize::from(request)] else {
            return false;
        };
        let at = usize::from(lane);
        if replies.len() <= at {
            replies.resize(at + 1, Vec::new());
        }
        let revision = Revision { request, lane, step: u8::try_from(replies[at].len()).unwrap() };
        let before: Vec<u8> = sessions_of(&self.backend).map(|(token, _)| token).collect();
        replies[at].push(self.backend.carry_out(call, revision));
        let (program, since) = (scenario.program(request, *token), since.clone());
        if let Ok(answer) = program.run(replies) {
            if let Answer::Stored(token) = answer {
                self.known.insert(token);
            }
            self.requests[usize::from(request)] = Stage::Done { answer, since };
        }
        for token in before {
            if self.backend.session(token).is_none() {
                self.dead.insert(token);
            }
        }
        self.came_back |= sessions_of(&self.backend).any(|(token, _)| self.dead.has(token));
        true
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
            Stage::Done { answer, since } if scenario.requests[request].0 == deed => {
                Some((u8::try_from(request).unwrap(), *answer, since))
            }
            _ => None,
        })
    }

    fn is_quiet(&self) -> bool {
        self.requests.iter().all(|stage| matches!(stage, Stage::Done { .. } | Stage::Crashed))
    }
}

fn sessions_of(backend: &Backend) -> impl Iterator<Item = (u8, Session)> {
    backend.entries.keys().filter_map(|place| match place {
        Place::Session(token) => backend.session(*token).map(|session| (*token, session)),
        Place::List => None,
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
                    let waiting = state.waiting(self, number);
                    actions
                        .extend(waiting.into_iter().map(|(lane, _)| Action::Call { request: number, lane }));
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
            Action::Crash { host } => state.crash(self, host),
            Action::LoseList => {
                state.backend.entries.remove(&Place::List)?;
                state.list_lost = true;
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
                        Answer::Stored(_) => state
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
                        let is_same = |session: &Session| {
                            since.behind.is_some_and(|behind| {
                                behind.began == session.began && behind.has_subject == session.has_subject
                            })
                        };
                        answer != Answer::Removed || state.sessions().all(|(_, session)| !is_same(&session))
                    })
                },
            ),
            Property::always(
                "ending all leaves no earlier session, under whatever token",
                |scenario: &Self, state: &State| {
                    // A list that was lost has no sessions to end.
                    state.list_lost
                        || state.answers(scenario, Deed::EndAll).all(|(_, _, since)| {
                            state
                                .sessions()
                                .all(|(_, session)| !since.logins.has(session.login) || !session.has_subject)
                        })
                },
            ),
            Property::always(
                "ending the others leaves no other earlier session, under whatever token",
                |scenario: &Self, state: &State| {
                    let mut ends = state.answers(scenario, Deed::EndOthers);
                    state.list_lost
                        || ends.all(|(_, answer, since)| {
                            let is_other = |session: &Session| {
                                since.logins.has(session.login) && Some(session.login) != since.login
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
            Property::always("the list names every live session", |_: &Self, state: &State| {
                let list = state.backend.list();
                state.list_lost
                    || state.sessions().all(|(token, session)| !session.has_subject || list.names(token))
            }),
            Property::always("a session that no request ends lives on", |scenario: &Self, state: &State| {
                let ended = scenario.has(&[Deed::Logout, Deed::EndAll, Deed::EndOthers]);
                let mut all = sessions_of(&state.backend);
                ended || all.any(|(_, session)| session.began == FIRST)
            }),
            Property::always(
                "a client knows the token of a session that no request ends",
                |scenario: &Self, state: &State| {
                    let ended = scenario.has(&[Deed::Logout, Deed::EndAll, Deed::EndOthers]);
                    let unlike = ended || state.crashed.0 != 0;
                    let mut known = state.sessions();
                    let is_one = known.by_ref().filter(|(_, session)| session.began == FIRST).count() == 1;
                    unlike || state.list_lost || !state.is_quiet() || is_one
                },
            ),
            Property::always("a login after the end is not ended", |scenario: &Self, state: &State| {
                let is_end = |deed: &Deed| matches!(deed, Deed::EndAll | Deed::EndOthers);
                let ends = scenario.requests.iter().filter(|(deed, _)| is_end(deed)).count();
                let others = scenario.has(&[Deed::Logout, Deed::Regenerate]) || state.list_lost;
                let logins = scenario.requests.iter().filter(|(deed, _)| *deed == Deed::Login).count();
                others
                    || logins > 1
                    || state.answers(scenario, Deed::Login).all(|(_, answer, since)| {
                        let is_after = since.no_end_running && usize::from(since.ends_finished) == ends;
                        let lives =
                            matches!(answer, Answer::Stored(token) if state.backend.session(token).is_some());
                        !is_after || answer == Answer::NotFound || lives
                    })
            }),
            // Without these, the rules above could hold because nothing happens.
            Property::sometimes("all requests end", |_: &Self, state: &State| state.is_quiet()),
        ]
    }
}
