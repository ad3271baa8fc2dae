//! Rows of the corpus, and a second reading of the policy with the habits of others.

use std::collections::{BTreeMap, BTreeSet};

use hyper_session::__internals::pairs;
use proptest::prelude::*;
use serde::Deserialize;

const REQUEST_ROWS: &str = include_str!("../vectors/cookies/request.index.jsonl");
pub(crate) const SET_COOKIE_ROWS: &str = include_str!("../vectors/cookies/set-cookie.index.jsonl");

type Owned = Vec<(Vec<u8>, Vec<u8>)>;

/// A row of the corpus; its README says what the fields mean.
#[derive(Deserialize)]
pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) header: String,
    pub(crate) header_hex: Option<String>,
    pub(crate) expected: Option<Vec<(String, String)>>,
    #[serde(default = "yes")]
    ordered: bool,
    #[serde(default)]
    partial: bool,
    agrees_with: Vec<String>,
}

fn yes() -> bool {
    true
}

impl Row {
    /// The header field that the suite sends.
    pub(crate) fn field(&self) -> Vec<u8> {
        let Some(hex) = &self.header_hex else {
            return self.header.clone().into_bytes();
        };
        hex.as_bytes()
            .chunks(2)
            .map(|digits| u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap())
            .collect()
    }

    fn expected(&self) -> Option<Owned> {
        let bytes = |text: &String| text.clone().into_bytes();
        Some(self.expected.as_ref()?.iter().map(|(name, value)| (bytes(name), bytes(value))).collect())
    }

    /// Under which comparisons of lists the corpus says that `policy` gives what the suite expects.
    pub(crate) fn comparisons(&self, policy: &str) -> Vec<&str> {
        let comparison = |label: &'_ str| {
            let rest = label.strip_prefix(policy)?;
            (rest.is_empty() || rest.starts_with(" (")).then(|| label.len() - rest.len())
        };
        self.agrees_with.iter().filter_map(|label| Some(label[comparison(label)?..].trim_start())).collect()
    }

    pub(crate) fn holds(&self, got: &Owned, comparison: &str) -> bool {
        let Some(expected) = self.expected() else {
            return false;
        };
        match comparison {
            "" if self.ordered => *got == expected,
            "" => sorted(got.clone()) == sorted(expected),
            "(dup:first)" => map(got.iter().rev()) == map(&expected),
            "(dup:last)" => map(got) == map(&expected),
            "(as a set)" => BTreeSet::from_iter(got) == BTreeSet::from_iter(&expected),
            "(listed pairs)" => self.partial && expected.iter().all(|pair| got.contains(pair)),
            other => panic!("{}: a comparison {other} that this test does not know", self.id),
        }
    }

    /// True if `got` is what the suite expects, by the comparisons that this row allows.
    pub(crate) fn holds_somehow(&self, got: &Owned) -> bool {
        self.holds(got, "")
            || self.holds(got, "(listed pairs)")
            || !self.ordered && (self.holds(got, "(dup:first)") || self.holds(got, "(dup:last)"))
    }
}

fn sorted(mut pairs: Owned) -> Owned {
    pairs.sort();
    pairs
}

/// The last value of each name.
fn map<'a>(pairs: impl IntoIterator<Item = &'a (Vec<u8>, Vec<u8>)>) -> BTreeMap<&'a [u8], &'a [u8]> {
    pairs.into_iter().map(|(name, value)| (&name[..], &value[..])).collect()
}

pub(crate) fn rows() -> Vec<Row> {
    REQUEST_ROWS.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The pairs that the crate reads.
pub(crate) fn ours(field: &[u8]) -> Owned {
    pairs(field).map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
}

/// Habits of other projects that this crate does not share: each of them is a documented difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Habit {
    DecodePercent,
    Unquote,
    BareIsName,
    BareIsValue,
    KeepNameless,
    DropBadOctets,
    DropDollar,
    SplitAtComma,
}
use Habit::{
    BareIsName, BareIsValue, DecodePercent, DropBadOctets, DropDollar, KeepNameless, SplitAtComma, Unquote,
};

pub(crate) const HABITS: [Habit; 8] =
    [DecodePercent, Unquote, BareIsName, BareIsValue, KeepNameless, DropBadOctets, DropDollar, SplitAtComma];

/// A second reading of the policy, written from the corpus' README and not from the crate, with the habits of others.
pub(crate) fn naive(field: &[u8], habits: &[Habit]) -> Owned {
    let has = |habit| habits.contains(&habit);
    let separates = |byte: &u8| *byte == b';' || *byte == b',' && has(SplitAtComma);
    let mut read = Owned::new();
    for segment in field.split(separates) {
        let (name, value) = match segment.iter().position(|&byte| byte == b'=') {
            Some(at) if trim(&segment[..at]).is_empty() && !has(KeepNameless) => continue,
            Some(at) => (trim(&segment[..at]), trim(&segment[at + 1..])),
            None if trim(segment).is_empty() => continue,
            None if has(BareIsName) => (trim(segment), &b""[..]),
            None if has(BareIsValue) => (&b""[..], trim(segment)),
            None => continue,
        };
        let inner = value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value);
        if has(DropBadOctets) && !(is_token(name) && inner.iter().copied().all(is_cookie_octet))
            || has(DropDollar) && name.starts_with(b"$")
        {
            continue;
        }
        let value = if has(Unquote) { inner } else { value };
        let value = if has(DecodePercent) { percent_decoded(value) } else { value.to_vec() };
        read.push((name.to_vec(), value));
    }
    read
}

fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

fn is_token(name: &[u8]) -> bool {
    let special = |byte: &u8| b"!#$%&'*+-.^_`|~".contains(byte);
    !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || special(byte))
}

fn is_cookie_octet(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"\",;\\".contains(&byte)
}

/// As `decodeURIComponent`: what does not decode stays as it is.
fn percent_decoded(value: &[u8]) -> Vec<u8> {
    let decode = || {
        let mut decoded = Vec::new();
        let mut rest = value;
        while let [first, after @ ..] = rest {
            if *first == b'%' {
                let digits = std::str::from_utf8(after.get(..2)?).ok()?;
                decoded.push(u8::from_str_radix(digits, 16).ok()?);
                rest = &after[2..];
            } else {
                decoded.push(*first);
                rest = after;
            }
        }
        String::from_utf8(decoded).ok().map(String::into_bytes)
    };
    decode().unwrap_or_else(|| value.to_vec())
}

/// The smallest set of others' habits that turns what we read into what the suite expects.
pub(crate) fn difference(row: &Row) -> Option<Vec<Habit>> {
    let field = row.field();
    let mut sets: Vec<Vec<Habit>> = (0..1_u32 << HABITS.len())
        .map(|bits| (0..HABITS.len()).filter(|n| bits >> n & 1 == 1).map(|n| HABITS[n]).collect())
        .collect();
    sets.sort_by_key(|set: &Vec<Habit>| (set.len(), set.clone()));
    sets.into_iter().find(|set| row.holds_somehow(&naive(&field, set)))
}

pub(crate) fn is_raw(row: &Row) -> bool {
    !row.comparisons("raw").is_empty()
}

/// Checks that what is read lies in `field`, in order and nowhere twice, and that reading took no more steps than there
/// are segments. Together: each byte is handed out at most once, and no step goes back.
pub(crate) fn check_slices(field: &[u8]) -> usize {
    let segments = field.split(|&byte| byte == b';').count();
    let mut last = field.as_ptr_range().start;
    let mut read = 0;
    for (name, value) in pairs(field) {
        for slice in [name, value] {
            assert!(slice.as_ptr() >= last, "a slice before the one before");
            last = slice.as_ptr_range().end;
        }
        assert!(!name.is_empty() && !name.contains(&b'=') && !value.contains(&b';'));
        read += 1;
    }
    assert!(last <= field.as_ptr_range().end && read <= segments);
    read
}

pub(crate) fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}
