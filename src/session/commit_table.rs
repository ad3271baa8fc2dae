//! From what a handler did and how it answered to what happens: the commit rules, as one table.
//!
//! Four rules stand behind the rows. `docs/DESIGN.md` gives their reasons.
//!
//! 1. Optional work never fails a request: [`Outcome::is_optional`].
//! 2. A cookie is removed only when it is known to be dead: [`Outcome::Destroy`], [`Outcome::Expire`], and a cookie that was
//!    refused for good.
//! 3. What is written counts from when it is written: the facts are those of the commit, not of the load.
//! 4. A weaker statement yields to a stronger one: [`Weight`].

use std::sync::Arc;

use super::{Changes, Record};
use crate::event::DropReason;

/// What happens to a session when its response head is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing.
    Keep,
    /// The idle deadline is renewed, or the token sealed anew.
    Touch,
    /// The values are saved; a session that was not stored is created.
    Save,
    /// The values are saved under a new id and token, and the old ones refused from then on.
    Regenerate,
    /// The stored session is ended.
    Destroy,
    /// The absolute timeout passed while the request was running. The changes are dropped, the cookie is removed.
    Expire,
}

impl Outcome {
    /// Returns true if no handler asked for it: if it fails, the response and the cookie stay as they are.
    pub(crate) fn is_optional(self) -> bool {
        matches!(self, Self::Keep | Self::Touch | Self::Expire)
    }

    /// How much what the response then says about the cookie counts.
    pub(crate) fn weight(self) -> Weight {
        match self {
            Self::Keep | Self::Expire => Weight::DeadCookie,
            Self::Touch => Weight::Renewal,
            Self::Save => Weight::Change,
            Self::Regenerate => Weight::Login,
            Self::Destroy => Weight::End,
        }
    }
}

/// How much a statement about the session's cookie counts, from the weakest to the strongest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Weight {
    /// A cookie that is known to be dead is removed.
    DeadCookie,
    /// A session goes on as it is.
    Renewal,
    /// A handler changed values.
    Change,
    /// A handler asked for a new token.
    Login,
    /// A handler ended the session.
    End,
}

impl Weight {
    /// Returns true if a handler asked for it. Anything else yields to what the response itself says about the cookie.
    pub(crate) fn is_asked_for(self) -> bool {
        self > Self::Renewal
    }
}

/// How the handler answered, as far as the session is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disposition {
    /// All that it did counts.
    Accept,
    /// Values are not saved; `destroy` and `regenerate` are done.
    DropValues,
    /// The response carries no cookie: of all that it did, only `destroy` is done.
    NoCookie,
    /// The response carries no cookie, and the cookie is the only copy of the session: nothing can be done.
    Unreachable,
}

/// What a handler did to its session, and how old the session is.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::struct_excessive_bools)] // independent facts, each a column of the table
pub(super) struct Facts {
    /// The store holds it.
    pub(super) stored: bool,
    /// A value differs from what the store holds.
    pub(super) changed: bool,
    /// No value is left. Looked at only where `changed` is true.
    pub(super) empty: bool,
    /// `clear` was called: what other requests set meanwhile goes, too.
    pub(super) cleared: bool,
    /// `regenerate` or `login` was called.
    pub(super) regenerate: bool,
    /// `login` was called: the absolute timeout begins anew.
    pub(super) login: bool,
    pub(super) destroyed: bool,
    /// The absolute timeout has passed.
    pub(super) over: bool,
    /// The renewal threshold is passed, or an old key opened it.
    pub(super) renewal_due: bool,
}

/// What the present options say about a stored session at the moment of a commit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    /// The absolute timeout has passed.
    pub(crate) over: bool,
    /// Its deadline, as it is stored, has passed.
    pub(crate) expired: bool,
    pub(crate) renewal_due: bool,
}

impl Facts {
    /// The commit rules. The first row that fits counts; `·` fits always.
    ///
    /// | answer | stored | destroyed | changed | empty | regenerate | over | renewal due | outcome |
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
    /// | · | yes | · | · | · | · | · | yes | touch |
    /// | · | · | · | · | · | · | · | · | keep |
    ///
    /// A session whose last value was deleted is saved, too: the store ends it if nothing is left by then. Another request
    /// may have set something meanwhile, and that is not ours to delete.
    pub(super) fn decide(self, answer: Disposition) -> Outcome {
        let changed = self.changed && answer == Disposition::Accept;
        let login = self.login && answer == Disposition::Accept;
        match (answer, self.stored) {
            (Disposition::NoCookie, true) if self.destroyed => Outcome::Destroy,
            (Disposition::Unreachable | Disposition::NoCookie, _) => Outcome::Keep,
            (_, true) if self.destroyed && changed && !self.empty => Outcome::Regenerate,
            (_, true) if self.destroyed => Outcome::Destroy,
            (_, true) if changed && self.empty && self.cleared => Outcome::Destroy,
            (_, true) if self.over && !login => Outcome::Expire,
            (_, true) if self.regenerate => Outcome::Regenerate,
            (_, stored) if changed && (stored || !self.empty) => Outcome::Save,
            (_, true) if self.renewal_due => Outcome::Touch,
            _ => Outcome::Keep,
        }
    }
}

/// A decided commit: all that carrying it out needs, so that the session can go on being read meanwhile.
#[derive(Clone, Debug)]
pub(crate) struct Commit {
    pub(crate) outcome: Outcome,
    pub(crate) base: Option<Record>,
    pub(crate) changes: Arc<Changes>,
    /// Why changes were left out, if any were.
    pub(crate) dropped: Option<DropReason>,
    /// The handler ended, or logged in to, a session that goes on under a token which this request does not have.
    pub(crate) ends_superseded: bool,
    /// It ends the session, or its token: it is carried out although the client goes away.
    pub(crate) must_finish: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The outcome that stands in the documented table: in its first row that fits.
    fn by_the_table(facts: Facts, answer: Disposition) -> &'static str {
        let rows =
            include_str!("commit_table.rs").lines().filter_map(|line| line.trim().strip_prefix("/// | "));
        let rows = rows.map(|row| row.trim_end_matches(" |").split(" | ").collect::<Vec<_>>());
        let fits = |cell: &str, fact: bool| cell == "·" || cell == if fact { "yes" } else { "no" };
        let fitting = |row: &Vec<&str>| {
            let [answers, stored, destroyed, changed, empty, regenerate, over, renewal_due, _] = row[..]
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
                && (fits(over, facts.over) || over == "yes, no login" && facts.over && !login)
                && fits(renewal_due, facts.renewal_due)
        };
        // The first line is the head.
        rows.skip(1).find(fitting).expect("the last row fits always")[8]
    }

    const ANSWERS: [Disposition; 4] =
        [Disposition::Accept, Disposition::DropValues, Disposition::NoCookie, Disposition::Unreachable];

    /// Every combination of facts and answers.
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
                over: bit(7),
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

    /// Every combination of facts and answers against the rules, said as sentences instead of rows.
    #[test]
    fn the_table_keeps_its_promises() {
        for (facts, answer) in all() {
            let Facts { stored, changed, empty, regenerate, destroyed, cleared, over, login, .. } = facts;
            let outcome = facts.decide(answer);
            let context = format!("{facts:?} {answer:?} {outcome:?}");
            // What is not stored cannot be touched, regenerated, destroyed, or too old.
            assert!(stored || matches!(outcome, Outcome::Keep | Outcome::Save), "{context}");
            // Nothing empty is ever created (T71).
            assert!(!(empty && !stored && outcome == Outcome::Save), "{context}");
            // Values are saved only when the answer accepts them.
            assert!(outcome != Outcome::Save || answer == Disposition::Accept, "{context}");
            // A stored session that was destroyed does not go on.
            if stored && destroyed && answer != Disposition::Unreachable {
                assert!(matches!(outcome, Outcome::Destroy | Outcome::Regenerate), "{context}");
            }
            // Without a cookie in the response, no client is left with a dead token by a regenerate.
            if matches!(answer, Disposition::NoCookie | Disposition::Unreachable) {
                assert!(matches!(outcome, Outcome::Keep | Outcome::Destroy), "{context}");
            }
            // Emptied is not "unchanged" (T28): cleared is destroyed, and a last delete goes to the store.
            if stored && changed && empty && answer == Disposition::Accept {
                assert!(!matches!(outcome, Outcome::Keep | Outcome::Touch), "{context}");
                assert!(!cleared || outcome == Outcome::Destroy, "{context}");
            }
            let answered = matches!(answer, Disposition::Accept | Disposition::DropValues);
            // Regenerate is done even if the handler failed.
            if stored && regenerate && !destroyed && !(changed && empty) && answered && !over {
                assert_eq!(outcome, Outcome::Regenerate, "{context}");
            }
            // No session outlives its absolute timeout, but by a login or by starting over (T30).
            if stored && over && !(login && answer == Disposition::Accept) && !destroyed {
                assert!(
                    !matches!(outcome, Outcome::Touch | Outcome::Save | Outcome::Regenerate),
                    "{context}"
                );
            }
        }
    }

    /// Rule 1: what may fail without failing the request is what no handler asked for.
    #[test]
    fn b1_optional_work_is_what_no_handler_asked_for() {
        for (facts, answer) in all() {
            let outcome = facts.decide(answer);
            let asked = facts.changed && answer == Disposition::Accept || facts.regenerate || facts.destroyed;
            assert!(asked || outcome.is_optional(), "{facts:?} {answer:?} {outcome:?}");
            // And a renewal never takes the place of what was asked for.
            assert!(!(asked && outcome == Outcome::Touch), "{facts:?} {answer:?}");
        }
    }

    /// Rule 4: ending over login over change over renewal over the removal of a dead cookie.
    #[test]
    fn b8_statements_are_ordered() {
        let order = [Outcome::Destroy, Outcome::Regenerate, Outcome::Save, Outcome::Touch, Outcome::Keep];
        assert!(order.is_sorted_by(|stronger, weaker| stronger.weight() > weaker.weight()));
        for outcome in order {
            assert_eq!(outcome.weight().is_asked_for(), !outcome.is_optional(), "{outcome:?}");
        }
    }
}
