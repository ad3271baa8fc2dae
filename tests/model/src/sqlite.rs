//! The SQLite file of revocations: two processes that open it, and an older copy that an operator replaces it by.
//!
//! The functions are those of `src/revocation/sqlite.rs`. A check of the file's identity and the step behind it are one step here.
//! The log itself, and the hosts that follow it, are in [`revocation`](crate::revocation). All revocations are those of one subject.
//!
//! A position is a time, and the clock goes on by [`STEP`] with each action. That stands for nanoseconds: an opening takes longer
//! than the room that it leaves out, and an entry takes longer than its position.

use stateright::{Model, Property};

type Position = u8;

/// How far the clock goes on with each action.
const STEP: Position = 2;
/// `ROOM`.
const ROOM: Position = 2;
/// How often each process may open the file.
const OPENINGS: u8 = 2;

/// A mistake, to see that the checker finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mistake {
    None,
    /// An opening leaves out the same room, whatever the clock shows.
    FixedRoom,
    /// A process goes on writing to the file that it opened, although a copy has replaced that.
    WritesUnchecked,
    /// The same for reading.
    ReadsUnchecked,
    /// A login takes the position that its process has read, instead of asking for the end of the file.
    LoginDoesNotAsk,
}

#[derive(Clone, Debug)]
pub struct Scenario {
    /// How many logins and revocations there are.
    pub deeds: u8,
    /// True if a copy may be put back while processes have the file open.
    pub replaces_open_file: bool,
    /// True if the machine's clock is set back when the copy is put back.
    pub sets_clock_back: bool,
    pub mistake: Mistake,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct File {
    /// The positions of the entries, and the revocations that they are of.
    entries: Vec<(Position, usize)>,
    top: Position,
}

impl File {
    fn raise(&mut self, at_least: Position) {
        self.top = self.top.max(at_least);
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Process {
    openings: u8,
    /// The number of the file that it has open.
    file: Option<usize>,
    /// The revocations that it knows.
    known: Vec<usize>,
    /// The highest position that it knows: what it appends comes behind.
    highest: Position,
    /// How far it has read.
    after: Position,
    /// The last read failed: it accepts no session once the bound has passed.
    failing: bool,
    /// The revocations that were acknowledged when its last read began.
    confirmed: Vec<usize>,
}

/// A login, or a revocation that was acknowledged, in the order in which they happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Event {
    Login { position: Position },
    Revocation { number: usize, mark: Position },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The last one is at the path.
    files: Vec<File>,
    copy: Option<File>,
    /// The revocations that are acknowledged and not in the copy that was put back.
    lost: Vec<usize>,
    restored: bool,
    clock: Position,
    processes: [Process; 2],
    events: Vec<Event>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    Open {
        process: usize,
    },
    Close {
        process: usize,
    },
    Login {
        process: usize,
    },
    Revoke {
        process: usize,
    },
    Read {
        process: usize,
    },
    /// `VACUUM INTO`, which copies one state of the file.
    Copy,
    /// The copy replaces the file.
    Restore,
}

impl Scenario {
    /// `create`, and the first reading.
    fn open(&self, state: &mut State, process: usize) {
        let (at, clock) = (state.files.len() - 1, state.clock);
        let file = &mut state.files[at];
        file.raise(self.first_position(file.top, clock));
        let (top, known) = (file.top, file.entries.iter().map(|(_, number)| *number).collect());
        state.processes[process] = Process {
            openings: state.processes[process].openings + 1,
            file: Some(at),
            known,
            highest: top,
            after: top,
            failing: false,
            confirmed: state.acknowledged(),
        };
    }

    fn first_position(&self, top: Position, now: Position) -> Position {
        if self.mistake == Mistake::FixedRoom { top + ROOM } else { (top + ROOM).max(now) }
    }

    /// `answer_questions`.
    fn login(&self, state: &mut State, process: usize) {
        let Some(at) = state.checked(process, self.mistake == Mistake::WritesUnchecked) else { return };
        let process = &mut state.processes[process];
        let position =
            if self.mistake == Mistake::LoginDoesNotAsk { process.after } else { state.files[at].top };
        process.highest = process.highest.max(position);
        state.events.push(Event::Login { position });
    }

    /// `commit`.
    fn revoke(&self, state: &mut State, process: usize) {
        let Some(at) = state.checked(process, self.mistake == Mistake::WritesUnchecked) else { return };
        let (file, process) = (&mut state.files[at], &mut state.processes[process]);
        file.raise(process.highest);
        file.top += 1;
        let (mark, number) = (file.top, state.events.len());
        file.entries.push((mark, number));
        process.highest = mark;
        process.known.push(number);
        state.events.push(Event::Revocation { number, mark });
    }

    /// `read`, and its reply.
    fn read(&self, state: &mut State, process: usize) {
        let acknowledged = state.acknowledged();
        let checked = state.checked(process, self.mistake == Mistake::ReadsUnchecked);
        let process = &mut state.processes[process];
        process.failing = checked.is_none();
        let Some(at) = checked else { return };
        let file = &state.files[at];
        for (_, number) in file.entries.iter().filter(|(position, _)| *position > process.after) {
            if !process.known.contains(number) {
                process.known.push(*number);
            }
        }
        process.after = file.top;
        process.highest = process.highest.max(file.top);
        process.confirmed = acknowledged;
    }
}

impl State {
    /// `check`: the file that the process has open, if it is still at its path.
    fn checked(&self, process: usize, unchecked: bool) -> Option<usize> {
        self.processes[process].file.filter(|file| unchecked || file + 1 == self.files.len())
    }

    fn present(&self) -> &File {
        &self.files[self.files.len() - 1]
    }

    fn revocations(&self) -> impl Iterator<Item = (usize, Position)> {
        self.events.iter().filter_map(|event| match event {
            Event::Revocation { number, mark } => Some((*number, *mark)),
            Event::Login { .. } => None,
        })
    }

    /// The revocations that were acknowledged and that a restored copy did not lose.
    fn acknowledged(&self) -> Vec<usize> {
        self.revocations().map(|(number, _)| number).filter(|number| !self.lost.contains(number)).collect()
    }

    /// Each login and each revocation: the number of the login and its position, the number of the revocation and its mark.
    fn pairs(&self) -> impl Iterator<Item = (usize, Position, usize, Position)> {
        let logins = self.events.iter().enumerate().filter_map(|(at, event)| match event {
            Event::Login { position } => Some((at, *position)),
            Event::Revocation { .. } => None,
        });
        logins.flat_map(|(at, position)| {
            self.revocations().map(move |(number, mark)| (at, position, number, mark))
        })
    }
}

impl Model for Scenario {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            files: vec![File::default()],
            copy: None,
            lost: Vec::new(),
            restored: false,
            clock: STEP,
            processes: [Process::default(), Process::default()],
            events: Vec::new(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (process, Process { openings, file, .. }) in state.processes.iter().enumerate() {
            match file {
                None if *openings < OPENINGS => actions.push(Action::Open { process }),
                None => {}
                Some(_) => {
                    actions.extend([Action::Close { process }, Action::Read { process }]);
                    if state.events.len() < usize::from(self.deeds) {
                        actions.extend([Action::Login { process }, Action::Revoke { process }]);
                    }
                }
            }
        }
        if state.copy.is_none() {
            actions.push(Action::Copy);
        } else if !state.restored {
            let is_open = state.processes.iter().any(|process| process.file.is_some());
            if self.replaces_open_file || !is_open {
                actions.push(Action::Restore);
            }
        }
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        match action {
            Action::Open { process } => self.open(&mut state, process),
            Action::Close { process } => {
                let openings = state.processes[process].openings;
                state.processes[process] = Process { openings, ..Process::default() };
            }
            Action::Login { process } => self.login(&mut state, process),
            Action::Revoke { process } => self.revoke(&mut state, process),
            Action::Read { process } => self.read(&mut state, process),
            Action::Copy => state.copy = Some(state.present().clone()),
            Action::Restore => {
                let copy = state.copy.clone()?;
                let is_in_copy = |number: &usize| copy.entries.iter().any(|(_, other)| other == number);
                state.lost = state.acknowledged();
                state.lost.retain(|number| !is_in_copy(number));
                state.files.push(copy);
                state.restored = true;
                if self.sets_clock_back {
                    state.clock = 0;
                }
            }
        }
        // Nothing but the clock would change for ever.
        (state != *before).then(|| {
            state.clock += STEP;
            state
        })
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("an acknowledged revocation is in the file", |_: &Self, state: &State| {
                let file = state.present();
                state
                    .acknowledged()
                    .into_iter()
                    .all(|number| file.entries.iter().any(|(_, other)| *other == number))
            }),
            Property::always(
                "a revocation ends every session from before it, also from before a restore",
                |_: &Self, state: &State| {
                    state.pairs().all(|(at, position, number, mark)| number < at || mark > position)
                },
            ),
            Property::always("a revocation ends no later login", |_: &Self, state: &State| {
                state.pairs().all(|(at, position, number, mark)| at < number || mark <= position)
            }),
            Property::always(
                "a process that confirms sessions knows each revocation from before its read",
                |_: &Self, state: &State| {
                    let confirming =
                        state.processes.iter().filter(|process| process.file.is_some() && !process.failing);
                    confirming
                        .flat_map(|process| process.confirmed.iter().map(move |number| (process, number)))
                        .all(|(process, number)| process.known.contains(number))
                },
            ),
            Property::sometimes(
                "a session from before a restore is ended after it",
                |_: &Self, state: &State| {
                    let mut logins = state.pairs();
                    state.restored
                        && logins.any(|(at, _, number, _)| at < number && !state.lost.contains(&number))
                },
            ),
        ]
    }
}
