//! From what a handler did and how it answered to what happens: the commit rules, as one table.

use std::sync::Arc;

use super::{Changes, Record};
use crate::event::DropReason;

/// What happens to a session when its response head is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing.
    Keep,
    /// The idle deadline is renewed.
    Touch,
    /// The values are saved; a session that was not stored is created.
    Save,
    /// The values are saved under a new id and token, and the old ones refused from then on.
    Regenerate,
    /// The stored session is ended.
    Destroy,
}

/// How the handler answered, as far as the session is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disposition {
    /// All it did counts.
    Accept,
    /// Values are not saved; `destroy` and `regenerate` are done.
    DropValues,
    /// The response carries no cookie: of all it did, `destroy` alone is done.
    NoCookie,
}

/// What a handler did to its session.
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
    pub(super) regenerate: bool,
    pub(super) destroyed: bool,
    /// The renewal threshold is passed, or an old key opened it.
    pub(super) renewal_due: bool,
}

impl Facts {
    /// The commit rules. The first row that fits counts; `·` fits always.
    ///
    /// | answer | stored | destroyed | changed | empty | regenerate | renewal due | outcome |
    /// |---|---|---|---|---|---|---|---|
    /// | no cookie | yes | yes | · | · | · | · | destroy |
    /// | no cookie | · | · | · | · | · | · | keep |
    /// | accept | yes | yes | yes | no | · | · | regenerate, from scratch |
    /// | · | yes | yes | · | · | · | · | destroy |
    /// | accept | yes | · | yes, cleared | yes | · | · | destroy |
    /// | · | yes | · | · | · | yes | · | regenerate |
    /// | accept | yes | · | yes | · | · | · | save |
    /// | accept | · | · | yes | no | · | · | save |
    /// | · | yes | · | · | · | · | yes | touch |
    /// | · | · | · | · | · | · | · | keep |
    ///
    /// A session whose last value was deleted is saved, too: the store ends it if nothing is left by then. Another request
    /// may have set something meanwhile, and that is not ours to delete.
    pub(super) fn decide(self, answer: Disposition) -> Outcome {
        let changed = self.changed && answer == Disposition::Accept;
        match (answer, self.stored) {
            (Disposition::NoCookie, true) if self.destroyed => Outcome::Destroy,
            (Disposition::NoCookie, _) => Outcome::Keep,
            (_, true) if self.destroyed && changed && !self.empty => Outcome::Regenerate,
            (_, true) if self.destroyed => Outcome::Destroy,
            (_, true) if changed && self.empty && self.cleared => Outcome::Destroy,
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
        let rows = include_str!("outcome.rs").lines().filter_map(|line| line.trim().strip_prefix("/// | "));
        let rows = rows.map(|row| row.trim_end_matches(" |").split(" | ").collect::<Vec<_>>());
        let fits = |cell: &str, fact: bool| cell == "·" || cell == if fact { "yes" } else { "no" };
        let fitting = |row: &Vec<&str>| {
            let [answers, stored, destroyed, changed, empty, regenerate, renewal_due, _] = row[..] else {
                panic!("{row:?}");
            };
            let answers = match answers {
                "no cookie" => answer == Disposition::NoCookie,
                "accept" => answer == Disposition::Accept,
                _ => answers == "·",
            };
            answers
                && fits(stored, facts.stored)
                && fits(destroyed, facts.destroyed)
                && (fits(changed, facts.changed)
                    || changed == "yes, cleared" && facts.changed && facts.cleared)
                && fits(empty, facts.empty)
                && fits(regenerate, facts.regenerate)
                && fits(renewal_due, facts.renewal_due)
        };
        // The first line is the head.
        rows.skip(1).find(fitting).expect("the last row fits always")[7]
    }

    /// Every combination of facts and answers.
    fn all() -> impl Iterator<Item = (Facts, Disposition)> {
        (0..128_u32).flat_map(|bits| {
            let bit = |n: u32| bits >> n & 1 == 1;
            let facts = Facts {
                stored: bit(0),
                changed: bit(1),
                empty: bit(2),
                regenerate: bit(3),
                destroyed: bit(4),
                renewal_due: bit(5),
                cleared: bit(6),
            };
            [Disposition::Accept, Disposition::DropValues, Disposition::NoCookie]
                .map(|answer| (facts, answer))
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
            let Facts { stored, changed, empty, regenerate, destroyed, cleared, .. } = facts;
            let outcome = facts.decide(answer);
            let context = format!("{facts:?} {answer:?} {outcome:?}");
            // What is not stored cannot be touched, regenerated or destroyed.
            assert!(stored || matches!(outcome, Outcome::Keep | Outcome::Save), "{context}");
            // Nothing empty is ever created (T71).
            assert!(!(empty && !stored && outcome == Outcome::Save), "{context}");
            // Values are saved only when the answer accepts them.
            assert!(outcome != Outcome::Save || answer == Disposition::Accept, "{context}");
            // A stored session that was destroyed does not go on.
            if stored && destroyed {
                assert!(matches!(outcome, Outcome::Destroy | Outcome::Regenerate), "{context}");
            }
            // Without a cookie in the response, no client is left with a dead token by a regenerate.
            assert!(
                answer != Disposition::NoCookie || matches!(outcome, Outcome::Keep | Outcome::Destroy),
                "{context}"
            );
            // Emptied is not "unchanged" (T28): cleared is destroyed, and a last delete goes to the store.
            if stored && changed && empty && answer == Disposition::Accept {
                assert!(!matches!(outcome, Outcome::Keep | Outcome::Touch), "{context}");
                assert!(!cleared || outcome == Outcome::Destroy, "{context}");
            }
            // Regenerate is done even if the handler failed.
            if stored && regenerate && !destroyed && !(changed && empty) && answer != Disposition::NoCookie {
                assert_eq!(outcome, Outcome::Regenerate, "{context}");
            }
        }
    }
}
