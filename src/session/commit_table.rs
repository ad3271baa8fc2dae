//! The commit rules, as one table: from what a handler did and how it responded, to the outcome.
//!
//! The rows follow from four rules. `docs/DESIGN.md` gives their reasons.
//!
//! 1. Optional work never fails a request: [`Outcome::is_optional`].
//! 2. A cookie is removed only when it is known to be dead: [`Outcome::Destroy`], and a cookie that was refused for good.
//! 3. Timeouts count from the time of the commit, not of the load: the facts are those at the commit.
//! 4. A weaker statement yields to a stronger one: [`Weight`].

use std::sync::Arc;

use super::{Changes, Record};
use crate::event::DropReason;

/// The result of the commit rules when the response head is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing.
    Keep,
    /// The idle deadline is renewed, or the token is sealed again.
    Renew,
    /// The values are saved. A session that was not stored is created.
    Save,
    /// The values are saved under a new id and token. The old ones are refused from then on.
    Regenerate,
    /// The stored session is ended.
    Destroy,
    /// The absolute timeout passed while the request was running. The changes are dropped. The cookie stays: another request may
    /// have logged in meanwhile, and the browser drops an expired cookie itself.
    Expire,
}

impl Outcome {
    /// Returns true if no handler asked for it. If it fails, the response and the cookie stay as they are.
    pub(crate) fn is_optional(self) -> bool {
        matches!(self, Self::Keep | Self::Renew | Self::Expire)
    }

    /// Returns the weight of what the response then says about the cookie.
    pub(crate) fn weight(self) -> Weight {
        match self {
            Self::Keep | Self::Expire => Weight::DeadCookie,
            Self::Renew => Weight::Renewal,
            Self::Save => Weight::Change,
            Self::Regenerate => Weight::Login,
            Self::Destroy => Weight::End,
        }
    }
}

/// The weight of a statement about the session's cookie, from the weakest to the strongest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Weight {
    /// A cookie that is known to be dead is removed.
    DeadCookie,
    /// A session goes on as it is.
    Renewal,
    /// A handler changed values.
    Change,
    /// A handler asked for a new token, or the changes begin a new session.
    Login,
    /// A handler ended the session.
    End,
}

impl Weight {
    /// Returns true if a handler asked for it. Other statements yield to a statement that the response already contains.
    pub(crate) fn is_asked_for(self) -> bool {
        self > Self::Renewal
    }
}

/// The meaning of the handler's response for the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disposition {
    /// All changes count.
    Accept,
    /// Values are not saved. `destroy` and `regenerate` are done.
    DropValues,
    /// The response cannot carry a cookie: only `destroy` is done.
    NoCookie,
    /// The response cannot carry a cookie, and the cookie is the only copy of the session: nothing can be done.
    Unreachable,
}

/// The facts about a session at a commit.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::struct_excessive_bools)] // independent facts, each a column of the table
pub(super) struct Facts {
    /// The store holds the session.
    pub(super) stored: bool,
    /// A value differs from the stored one.
    pub(super) changed: bool,
    /// No value is left. Used only if `changed` is true.
    pub(super) empty: bool,
    /// `clear` was called: values that other requests set meanwhile are deleted, too.
    pub(super) cleared: bool,
    /// `regenerate` or `login` was called, or the changes begin a new session.
    pub(super) regenerate: bool,
    /// `login` or `reauthenticate` was called, or the changes begin a new session: the absolute timeout begins again.
    pub(super) login: bool,
    pub(super) destroyed: bool,
    /// The absolute timeout has passed.
    pub(super) absolute_passed: bool,
    /// The renewal threshold is reached, or an old key opened it.
    pub(super) renewal_due: bool,
}

/// The timeouts of a stored session at the moment of a commit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    /// The absolute timeout has passed.
    pub(crate) absolute_passed: bool,
    /// Its stored deadline has passed.
    pub(crate) expired: bool,
    pub(crate) renewal_due: bool,
}

impl Facts {
    /// Decides by the commit rules. The first row that fits counts. `·` always fits.
    ///
    /// | answer | stored | destroyed | changed | empty | regenerate | absolute passed | renewal due | outcome |
    /// |---|---|---|---|---|---|---|---|---|
    /// | unreachable | · | · | · | · | · | · | · | keep |
    /// | no cookie | yes | yes | · | · | · | · | · | destroy |
    /// | no cookie | · | · | · | · | · | · | · | keep |
    /// | accept | yes | yes | yes | no | · | · | · | regenerate, from scratch |
    /// | · | yes | yes | · | · | · | · | · | destroy |
    /// | accept | yes | · | yes, cleared | yes | · | · | · | destroy |
    /// | · | yes | · | · | · | · | yes, no login | · | expire |
    /// | · | yes | · | · | · | yes | · | · | regenerate |
    /// | accept | yes | · | yes | · | · | · | · | save |
    /// | accept | · | · | yes | no | · | · | · | save |
    /// | · | yes | · | · | · | · | · | yes | renew |
    /// | · | · | · | · | · | · | · | · | keep |
    ///
    /// A session whose last value was deleted is saved, too. The store ends it if it is then empty. Another request may
    /// have set a value meanwhile, which this request must not delete.
    pub(super) fn decide(self, answer: Disposition) -> Outcome {
        let changed = self.changed && answer == Disposition::Accept;
        let login = self.login && answer == Disposition::Accept;
        match (answer, self.stored) {
            (Disposition::NoCookie, true) if self.destroyed => Outcome::Destroy,
            (Disposition::Unreachable | Disposition::NoCookie, _) => Outcome::Keep,
            (_, true) if self.destroyed && changed && !self.empty => Outcome::Regenerate,
            (_, true) if self.destroyed => Outcome::Destroy,
            (_, true) if changed && self.empty && self.cleared => Outcome::Destroy,
            (_, true) if self.absolute_passed && !login => Outcome::Expire,
            (_, true) if self.regenerate => Outcome::Regenerate,
            (_, stored) if changed && (stored || !self.empty) => Outcome::Save,
            (_, true) if self.renewal_due => Outcome::Renew,
            _ => Outcome::Keep,
        }
    }
}

/// The decision of the table, with all that it needs, so that the session can be read while it is carried out.
#[derive(Clone, Debug)]
pub(crate) struct Decision {
    pub(crate) outcome: Outcome,
    pub(crate) base: Option<Record>,
    pub(crate) changes: Arc<Changes>,
    /// The reason why changes were dropped, if any were.
    pub(crate) dropped: Option<DropReason>,
    /// The handler ended, or logged in to, a session that continues under a token which this request does not have. Or it
    /// ended one that has expired, and that a slower request may still keep.
    pub(crate) ends_former: bool,
    /// It ends the session or its token, so it is completed even if the client goes away.
    pub(crate) must_finish: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the outcome of the first row of the documented table that fits.
    fn by_the_table(facts: Facts, answer: Disposition) -> &'static str {
        let rows =
            include_str!("commit_table.rs").lines().filter_map(|line| line.trim().strip_prefix("/// | "));
        let rows = rows.map(|row| row.trim_end_matches(" |").split(" | ").collect::<Vec<_>>());
        let fits = |cell: &str, fact: bool| cell == "·" || cell == if fact { "yes" } else { "no" };
        let fitting = |row: &Vec<&str>| {
            let [answers, stored, destroyed, changed, empty, regenerate, absolute_passed, renewal_due, _] =
                row[..]
            else {
                panic!("{row:?}");
            };
            let answers = match answers {
                "unreachable" => answer == Disposition::Unreachable,
                "no cookie" => answer == Disposition::NoCookie,
                "accept" => answer == Disposition::Accept,
                _ => answers == "·",
            };
            let login = facts.login && answer == Disposition::Accept;
            answers
                && fits(stored, facts.stored)
                && fits(destroyed, facts.destroyed)
                && (fits(changed, facts.changed)
                    || changed == "yes, cleared" && facts.changed && facts.cleared)
                && fits(empty, facts.empty)
                && fits(regenerate, facts.regenerate)
                && (fits(absolute_passed, facts.absolute_passed)
                    || absolute_passed == "yes, no login" && facts.absolute_passed && !login)
                && fits(renewal_due, facts.renewal_due)
        };
        // The first line is the header.
        rows.skip(1).find(fitting).expect("the last row fits always")[8]
    }

    const ANSWERS: [Disposition; 4] =
        [Disposition::Accept, Disposition::DropValues, Disposition::NoCookie, Disposition::Unreachable];

    /// Returns every combination of facts and responses.
    fn all() -> impl Iterator<Item = (Facts, Disposition)> {
        (0..512_u32).flat_map(|bits| {
            let bit = |n: u32| bits >> n & 1 == 1;
            let facts = Facts {
                stored: bit(0),
                changed: bit(1),
                empty: bit(2),
                regenerate: bit(3),
                destroyed: bit(4),
                renewal_due: bit(5),
                cleared: bit(6),
                absolute_passed: bit(7),
                login: bit(8),
            };
            ANSWERS.map(|answer| (facts, answer))
        })
    }

    #[test]
    fn the_code_decides_as_the_table_says() {
        for (facts, answer) in all() {
            let outcome = format!("{:?}", facts.decide(answer)).to_lowercase();
            let expected = by_the_table(facts, answer).trim_end_matches(", from scratch");
            assert_eq!(outcome, expected, "{facts:?} {answer:?}");
        }
    }

    /// Checks every combination of facts and responses against the rules as sentences.
    #[test]
    fn the_table_keeps_its_promises() {
        for (facts, answer) in all() {
            let Facts {
                stored, changed, empty, regenerate, destroyed, cleared, absolute_passed, login, ..
            } = facts;
            let outcome = facts.decide(answer);
            let context = format!("{facts:?} {answer:?} {outcome:?}");
            // A session that is not stored cannot be renewed, regenerated, destroyed, or too old.
            assert!(stored || matches!(outcome, Outcome::Keep | Outcome::Save), "{context}");
            // An empty session is never created (T71).
            assert!(!(empty && !stored && outcome == Outcome::Save), "{context}");
            // Values are saved only if the response accepts them.
            assert!(outcome != Outcome::Save || answer == Disposition::Accept, "{context}");
            // A stored session that was destroyed does not continue.
            if stored && destroyed && answer != Disposition::Unreachable {
                assert!(matches!(outcome, Outcome::Destroy | Outcome::Regenerate), "{context}");
            }
            // If the response cannot carry a cookie, no regenerate leaves a client with a dead token.
            if matches!(answer, Disposition::NoCookie | Disposition::Unreachable) {
                assert!(matches!(outcome, Outcome::Keep | Outcome::Destroy), "{context}");
            }
            // An emptied session is not unchanged (T28): a cleared one is destroyed, and the deletion of the last value
            // goes to the store.
            if stored && changed && empty && answer == Disposition::Accept {
                assert!(!matches!(outcome, Outcome::Keep | Outcome::Renew), "{context}");
                assert!(!cleared || outcome == Outcome::Destroy, "{context}");
            }
            let answered = matches!(answer, Disposition::Accept | Disposition::DropValues);
            // Regenerate is done even if the handler failed.
            if stored && regenerate && !destroyed && !(changed && empty) && answered && !absolute_passed {
                assert_eq!(outcome, Outcome::Regenerate, "{context}");
            }
            // A session outlives its absolute timeout only by a login or by starting over (T30).
            if stored && absolute_passed && !(login && answer == Disposition::Accept) && !destroyed {
                assert!(
                    !matches!(outcome, Outcome::Renew | Outcome::Save | Outcome::Regenerate),
                    "{context}"
                );
            }
        }
    }

    /// Rule 1: work may fail without failing the request only if no handler asked for it.
    #[test]
    fn b1_optional_work_is_what_no_handler_asked_for() {
        for (facts, answer) in all() {
            let outcome = facts.decide(answer);
            let asked = facts.changed && answer == Disposition::Accept || facts.regenerate || facts.destroyed;
            assert!(asked || outcome.is_optional(), "{facts:?} {answer:?} {outcome:?}");
            // And a renewal never replaces a change that was asked for.
            assert!(!(asked && outcome == Outcome::Renew), "{facts:?} {answer:?}");
        }
    }

    /// Rule 4: the order is end, login, change, renewal, removal of a dead cookie.
    #[test]
    fn b8_statements_are_ordered() {
        let order = [Outcome::Destroy, Outcome::Regenerate, Outcome::Save, Outcome::Renew, Outcome::Keep];
        assert!(order.is_sorted_by(|stronger, weaker| stronger.weight() > weaker.weight()));
        for outcome in order {
            assert_eq!(outcome.weight().is_asked_for(), !outcome.is_optional(), "{outcome:?}");
        }
    }
}
