//! A model of all stores in the plainest words, and the steps that it is put through.

use std::collections::HashMap;

use proptest::prelude::*;
use proptest::sample::Index;

use crate::concurrent_requests::{ABSOLUTE, IDLE, RENEWAL, Values};

/// An operation of a handler.
#[derive(Clone, Debug)]
pub(crate) enum Op {
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

/// The result of an operation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Seen<Id> {
    Nothing,
    /// Id, beginning and end of the stored session, and the keys that have values now.
    Session(Option<(Id, u64, u64)>, Vec<String>),
    Value(Option<i64>),
    Removed(bool),
    /// The changes were not saved.
    Dropped,
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
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
    /// The client presents a cookie that it had at some time.
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

pub(crate) fn step() -> impl Strategy<Value = Step> {
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

/// A session as the model knows it. `name` stands for the id: the real one is compared where it is seen.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Kept {
    name: u64,
    created: u64,
    pub(crate) expires: u64,
    values: Values,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Cookie {
    AsItWas,
    Set,
    Removed,
}

/// The promise of all stores, in the plainest words: the session of each token.
pub(crate) struct Model {
    /// A server-side store has one state of a session, and tokens that it can take back.
    pub(crate) server_side: bool,
    pub(crate) tokens: HashMap<String, Kept>,
    /// Tokens whose browser was given a newer one, and until when that is remembered.
    pub(crate) replaced: HashMap<String, u64>,
    /// The token under which the session of a token goes on. Ending the session by the one ends it under the other.
    pub(crate) next: HashMap<String, String>,
    pub(crate) names: u64,
}

/// One request.
pub(crate) struct Draft {
    found: bool,
    pub(crate) base: Option<Kept>,
    values: Values,
    cleared: bool,
    regenerate: bool,
    destroyed: bool,
    /// It came with a token that was replaced, and asked for no session of its own: what it sets is dropped.
    overtaken: bool,
    /// The fate of the token that the request came with: the first that happened to it.
    fate: Option<Fate>,
    /// The session of that token goes on under another token.
    moved: bool,
    /// It ended a session that had expired, so that no slower request keeps it.
    ended_expired: bool,
    pub(crate) cookie: Cookie,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Ended,
    /// Until when that is remembered.
    Replaced(u64),
}

impl Model {
    /// Plays a request, and returns what its handler sees and what becomes of the cookie.
    pub(crate) fn visit(
        &mut self,
        now: u64,
        token: Option<&str>,
        ops: &[Op],
        fails: bool,
    ) -> (Vec<Seen<u64>>, Draft) {
        let base = token.and_then(|token| self.tokens.get(token)).filter(|kept| now < kept.expires).cloned();
        let overtaken = token.and_then(|token| self.replaced.get(token)).is_some_and(|until| now < *until);
        let mut draft = Draft {
            found: base.is_some(),
            values: base.as_ref().map(|base| base.values.clone()).unwrap_or_default(),
            cookie: match (&base, token) {
                (None, Some(_)) if !overtaken || ops.iter().any(|op| matches!(op, Op::Destroy)) => {
                    Cookie::Removed
                }
                _ => Cookie::AsItWas,
            },
            cleared: false,
            regenerate: false,
            destroyed: false,
            overtaken: base.is_none() && overtaken,
            base,
            fate: None,
            moved: false,
            ended_expired: false,
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
                        // Other requests may have set values that this one has not seen.
                        draft.cleared |= draft.base.is_some() || !draft.values.is_empty();
                        draft.values.clear();
                    }
                    Op::Regenerate => (draft.regenerate, draft.overtaken) = (true, false),
                    Op::Destroy => {
                        draft.values.clear();
                        (draft.destroyed, draft.regenerate, draft.overtaken) = (true, false, false);
                    }
                    // Op::Save
                    _ => {
                        let dropped = draft.overtaken && (draft.cleared || !draft.values.is_empty());
                        self.commit(now, draft, true);
                        if dropped {
                            return Seen::Dropped;
                        }
                    }
                }
                Seen::Nothing
            }
        }
    }

    fn commit(&mut self, now: u64, draft: &mut Draft, accepted: bool) {
        let before = draft.base.as_ref().map(|base| base.values.clone()).unwrap_or_default();
        if !accepted || draft.overtaken {
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
        // The last value is taken as a logout, unless it was a flash value.
        let lasting = draft.cleared || before.keys().any(|key| !key.starts_with("flash"));
        let removed = draft.base.is_some() && after.is_none() && lasting;
        draft.ended_expired |= !draft.found && (draft.destroyed || removed);
        let replaced = draft.base.is_some() && (draft.regenerate || draft.destroyed) && after.is_some();
        let ends = draft.destroyed || after.is_none();
        draft.moved = !ends && (draft.moved || draft.base.is_some() && draft.regenerate);
        if draft.fate.is_none() && replaced {
            draft.fate = Some(Fate::Replaced(now + 60));
        } else if draft.fate.is_none() && draft.base.is_some() && after.is_none() {
            draft.fate = Some(Fate::Ended);
        }
        // A cleared and refilled session is written although nothing else is new.
        if after != draft.base || changed && after.is_some() {
            draft.cookie = if after.is_some() { Cookie::Set } else { Cookie::Removed };
        }
        draft.base = after;
        (draft.cleared, draft.regenerate, draft.destroyed) = (false, false, false);
    }

    /// Takes in what a request left, under the token that the client has now.
    pub(crate) fn settle(&mut self, before: Option<&str>, after: Option<&str>, draft: Draft) {
        if let (true, true, Some(before)) = (self.server_side, draft.ended_expired, before) {
            for ended in
                std::iter::successors(Some(before), |token| self.next.get(*token).map(String::as_str))
            {
                self.tokens.remove(ended);
            }
        }
        // A session that was over when the request came is refused, and left to the backend to free, unless it is ended.
        if let (true, true, true, Some(before)) =
            (self.server_side, draft.found, draft.cookie != Cookie::AsItWas, before)
        {
            self.tokens.remove(before);
            if let Some(Fate::Replaced(until)) = draft.fate {
                self.replaced.insert(before.to_owned(), until);
            }
        }
        if let (true, Some(before), Some(after)) = (draft.found && draft.moved, before, after) {
            self.next.insert(before.to_owned(), after.to_owned());
        }
        if let (Cookie::Set, Some(after), Some(kept)) = (draft.cookie, after, draft.base) {
            self.tokens.insert(after.to_owned(), kept);
        }
    }
}
