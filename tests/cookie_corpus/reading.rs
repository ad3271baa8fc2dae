//! Readings of `Cookie` headers: ours, the corpus' and those of others.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::corpus::Habit::{
    BareIsName, BareIsValue, DecodePercent, DropBadOctets, DropDollar, KeepNameless, SplitAtComma, Unquote,
};
use crate::corpus::{
    HABITS, Habit, SET_COOKIE_ROWS, cases, check_slices, difference, is_raw, naive, ours, rows,
};

#[test]
fn the_corpus_is_whole() {
    let rows = rows();
    let raw = rows.iter().filter(|row| is_raw(row)).count();
    assert_eq!((rows.len(), raw, rows.len() - raw), (188, 105, 83));
    assert_eq!(rows.iter().filter(|row| row.header_hex.is_some()).count(), 13);
    let ids: BTreeSet<_> = rows.iter().map(|row| &row.id).collect();
    assert_eq!(ids.len(), rows.len());
    assert_eq!(SET_COOKIE_ROWS.lines().count(), 206);
}

#[test]
fn rows_of_the_raw_policy_match_exactly() {
    let mut compared = BTreeMap::new();
    for row in rows() {
        for comparison in row.comparisons("raw") {
            assert!(row.holds(&ours(&row.field()), comparison), "{}: {:?} {comparison}", row.id, row.header);
            *compared.entry(comparison.to_owned()).or_insert(0) += 1;
        }
    }
    let expected = [("", 97), ("(dup:first)", 3), ("(dup:last)", 1), ("(listed pairs)", 4)];
    assert_eq!(compared, expected.map(|(comparison, count)| (comparison.to_owned(), count)).into());
}

// The test's own reading is worth something only if it gives what the corpus says such a policy gives.
#[test]
fn the_second_reading_is_that_of_the_corpus() {
    for (label, habits) in [
        ("raw", &[][..]),
        ("raw+unquote", &[Unquote]),
        ("raw+pct", &[DecodePercent]),
        ("raw+unquote+pct", &[Unquote, DecodePercent]),
        ("strict", &[DropBadOctets]),
        ("strict+unquote", &[DropBadOctets, Unquote]),
        ("strict+pct", &[DropBadOctets, DecodePercent]),
        ("strict+unquote+pct", &[DropBadOctets, Unquote, DecodePercent]),
    ] {
        for row in rows() {
            let holds = row.holds_somehow(&naive(&row.field(), habits));
            assert_eq!(holds, !row.comparisons(label).is_empty(), "{} {label}", row.id);
        }
    }
}

impl Habit {
    /// The words of the crate's policy that rule it out.
    fn ruled_out_by(self) -> &'static str {
        match self {
            DecodePercent | Unquote => "nothing is decoded, unquoted or folded",
            BareIsName | BareIsValue => "a pair without `=`, or without a name, is skipped",
            KeepNameless => "or without a name, is skipped",
            DropBadOctets => "all others are kept, in order, duplicates included",
            DropDollar => "`$Version` is a cookie like any other",
            SplitAtComma => "only `;` separates pairs, also between quotes",
        }
    }
}

#[test]
fn every_habit_of_others_is_ruled_out_in_the_documentation() {
    let policy = include_str!("../../src/cookie/mod.rs");
    for habit in HABITS {
        assert!(policy.contains(habit.ruled_out_by()), "{habit:?}: {}", habit.ruled_out_by());
    }
}

/// The suite rejects the field for one pair; here pairs are skipped or kept one by one ("all others are kept").
const REJECTED: usize = 7;

/// How many rows differ by which habits: the fewest that explain the row.
const DIFFERENCES: [(&[Habit], usize); 12] = [
    (&[DecodePercent], 5),
    (&[Unquote], 5),
    (&[BareIsName], 13),
    (&[BareIsValue], 4),
    (&[KeepNameless], 2),
    (&[DropBadOctets], 35),
    (&[DropDollar], 2),
    (&[SplitAtComma], 2),
    (&[Unquote, DropBadOctets], 1),
    (&[Unquote, SplitAtComma], 1),
    (&[BareIsName, DropBadOctets], 1),
    (&[DropBadOctets, SplitAtComma], 2),
];

/// Rows that no set of habits explains: RFC 2109 and 2965, where a quoted string is a unit ("also between quotes").
const BY_HAND: [(&str, &str); 3] = [
    ("jetty-rfc6265cookieparse-005", "a quote that is never closed swallows the rest of the field"),
    ("jetty-rfc6265cookieparse-025", "a backslash between quotes escapes"),
    ("jetty-rfc6265cookieparse-026", "quotes span a semicolon"),
];

#[test]
fn every_other_row_differs_by_a_documented_reason() {
    let mut differences: BTreeMap<Vec<Habit>, usize> = BTreeMap::new();
    let (mut rejected, mut unexplained) = (0, Vec::new());
    for row in rows().iter().filter(|row| !is_raw(row)) {
        match difference(row) {
            _ if row.expected.is_none() => rejected += 1,
            Some(habits) => *differences.entry(habits).or_default() += 1,
            None => unexplained.push(row.id.clone()),
        }
    }
    assert_eq!(differences, DIFFERENCES.map(|(habits, count)| (habits.to_vec(), count)).into());
    assert_eq!(unexplained, BY_HAND.map(|(id, _)| id));
    assert_eq!(rejected, REJECTED);
    assert_eq!(differences.values().sum::<usize>() + rejected + unexplained.len(), 83);
}

#[test]
fn every_row_is_read_as_slices_in_order_and_as_the_second_reading_reads_it() {
    let mut read = 0;
    for row in rows() {
        let field = row.field();
        read += check_slices(&field);
        assert_eq!(ours(&field), naive(&field, &[]), "{}", row.id);
    }
    assert_eq!(read, PAIRS_IN_CORPUS);
}

const PAIRS_IN_CORPUS: usize = 385;

proptest! {
    #![proptest_config(cases(2048))]

    #[test]
    fn t50_to_t56_any_bytes_read_as_the_second_reading_reads_them(
        field in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..80),
            "[ \t;=,\"$a%2\\\\\u{a0}\u{2000}\u{85}]{0,40}".prop_map(String::into_bytes),
        ],
    ) {
        check_slices(&field);
        prop_assert_eq!(ours(&field), naive(&field, &[]));
    }
}
