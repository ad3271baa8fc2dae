//! The entries of a `Backend`, and its primitives. Each is one step.

use std::collections::BTreeMap;

/// An entry id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// A session, by the number of its token.
    Session(u8),
    /// The session list of the only subject.
    List,
    /// That of the old store, where sessions move from one store to another. Tokens are unique, so the sessions of both need no
    /// places of their own: those of the [first tokens](FIRST_TOKENS) are in the old store.
    OldList,
}

/// The tokens of the sessions that are there before the first request. No request draws them.
pub const FIRST_TOKENS: [u8; 2] = [0, 7];

/// The random revision of a value: no two writes have the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    pub request: u8,
    pub lane: u8,
    pub step: u8,
}

impl Revision {
    /// The revision of what is there before the first request.
    pub const INITIAL: Self = Self { request: u8::MAX, lane: 0, step: 0 };
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value {
    pub revision: Revision,
    pub content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Content {
    Session(Session),
    /// It names the token under which the session continues, if the subject is the same.
    Tombstone(Option<u8>),
    List(List),
}

/// The values of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Session {
    /// The number of the token at its login.
    pub login: u8,
    /// The number of the token under which its values began. A login keeps the values of the session before it.
    pub began: u8,
    /// True once a user is logged in to it.
    pub has_subject: bool,
    /// The requests whose change is in it, one bit for each.
    pub changes: u8,
}

/// A session list: tokens, and whether a call began to end the session.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct List(pub Vec<(u8, bool)>);

impl List {
    /// `SessionList::names`.
    pub fn names(&self, token: u8) -> bool {
        self.0.iter().any(|(listed, _)| *listed == token)
    }

    /// `SessionList::has`.
    pub fn has(&self, token: u8) -> bool {
        self.0.contains(&(token, false))
    }
}

/// A primitive, as a request calls it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    Fetch(Place),
    Create(Place, Content),
    Exchange(Place, Revision, Option<Content>),
    Renew(Place, Revision),
    Delete(Place),
}

/// Its reply.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reply {
    Found(Option<Value>),
    Created(bool),
    Done,
    Conflict(Value),
    Missing,
    /// An error: the call was not carried out, or its reply was lost.
    Failed,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Backend {
    pub entries: BTreeMap<Place, Value>,
}

impl Backend {
    /// Carries out `call`. A value that it writes gets `revision`.
    pub fn carry_out(&mut self, call: Call, revision: Revision) -> Reply {
        let present = |entries: &BTreeMap<_, Value>, place| entries.get(&place).cloned();
        match call {
            Call::Fetch(place) => Reply::Found(present(&self.entries, place)),
            Call::Create(place, content) => {
                let is_free = !self.entries.contains_key(&place);
                if is_free {
                    self.entries.insert(place, Value { revision, content });
                }
                Reply::Created(is_free)
            }
            Call::Exchange(place, expected, content) => match present(&self.entries, place) {
                None => Reply::Missing,
                Some(present) if present.revision != expected => Reply::Conflict(present),
                Some(_) => {
                    match content {
                        Some(content) => self.entries.insert(place, Value { revision, content }),
                        None => self.entries.remove(&place),
                    };
                    Reply::Done
                }
            },
            Call::Renew(place, expected) => match present(&self.entries, place) {
                None => Reply::Missing,
                Some(present) if present.revision != expected => Reply::Conflict(present),
                Some(_) => Reply::Done,
            },
            Call::Delete(place) => {
                self.entries.remove(&place);
                Reply::Done
            }
        }
    }

    pub fn session(&self, token: u8) -> Option<Session> {
        match self.entries.get(&Place::Session(token)) {
            Some(Value { content: Content::Session(session), .. }) => Some(*session),
            _ => None,
        }
    }

    /// The session that this token leads to, or that continues from it.
    pub fn behind(&self, token: u8) -> Option<Session> {
        match self.entries.get(&Place::Session(token)) {
            Some(Value { content: Content::Tombstone(next), .. }) => self.behind((*next)?),
            _ => self.session(token),
        }
    }

    /// The session list at this place.
    pub fn list_at(&self, place: Place) -> List {
        match self.entries.get(&place) {
            Some(Value { content: Content::List(list), .. }) => list.clone(),
            _ => List::default(),
        }
    }
}
