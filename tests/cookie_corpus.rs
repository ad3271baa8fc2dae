//! The `Cookie` parser and the `Set-Cookie` writer against what the suites of other projects expect (`vectors/cookies`),
//! and against headers made to hurt.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]
#![allow(unreachable_pub, clippy::cast_possible_wrap, clippy::redundant_closure_for_method_calls)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cookie::Cookie;
use http::header::{COOKIE, HeaderValue};
use http::{Request, Response};
use hyper::service::Service;
use hyper_session::cookie::{CookieOptions, SameSite, pairs};
use hyper_session::{AppKey, Clock, CookieStore, Error, SessionHandle, Timestamp, session_fn};
use proptest::prelude::*;
use serde::Deserialize;
use support::{Body, Events, block_on, request, set_cookies, status};

const REQUEST_ROWS: &str = include_str!("vectors/cookies/request.index.jsonl");
const SET_COOKIE_ROWS: &str = include_str!("vectors/cookies/set-cookie.index.jsonl");

const MIB: usize = 1 << 20;

type Owned = Vec<(Vec<u8>, Vec<u8>)>;

/// A row of the corpus; its README says what the fields mean.
#[derive(Deserialize)]
struct Row {
    id: String,
    header: String,
    header_hex: Option<String>,
    expected: Option<Vec<(String, String)>>,
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
    /// What the suite sends.
    fn field(&self) -> Vec<u8> {
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
    fn comparisons(&self, policy: &str) -> Vec<&str> {
        let comparison = |label: &'_ str| {
            let rest = label.strip_prefix(policy)?;
            (rest.is_empty() || rest.starts_with(" (")).then(|| label.len() - rest.len())
        };
        self.agrees_with.iter().filter_map(|label| Some(label[comparison(label)?..].trim_start())).collect()
    }

    fn holds(&self, got: &Owned, comparison: &str) -> bool {
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
    fn holds_somehow(&self, got: &Owned) -> bool {
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

fn rows() -> Vec<Row> {
    REQUEST_ROWS.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What the crate reads.
fn ours(field: &[u8]) -> Owned {
    pairs(field).map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
}

/// What other projects do and this crate does not: each of them a documented difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Habit {
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

const HABITS: [Habit; 8] =
    [DecodePercent, Unquote, BareIsName, BareIsValue, KeepNameless, DropBadOctets, DropDollar, SplitAtComma];

/// A second reading of the policy, written from the corpus' README and not from the crate, with the habits of others.
fn naive(field: &[u8], habits: &[Habit]) -> Owned {
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
fn difference(row: &Row) -> Option<Vec<Habit>> {
    let field = row.field();
    let mut sets: Vec<Vec<Habit>> = (0..1_u32 << HABITS.len())
        .map(|bits| (0..HABITS.len()).filter(|n| bits >> n & 1 == 1).map(|n| HABITS[n]).collect())
        .collect();
    sets.sort_by_key(|set: &Vec<Habit>| (set.len(), set.clone()));
    sets.into_iter().find(|set| row.holds_somehow(&naive(&field, set)))
}

fn is_raw(row: &Row) -> bool {
    !row.comparisons("raw").is_empty()
}

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
    let policy = include_str!("../src/cookie/mod.rs");
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

/// Checks that what is read lies in `field`, in order and nowhere twice, and that reading took no more steps than there
/// are segments. Together: each byte is handed out at most once, and no step goes back.
fn check_slices(field: &[u8]) -> usize {
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

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

// ---------------------------------------------------------------------------------------------------- Set-Cookie

/// A service whose one answer sets the cookie, and the line it sets.
fn set_cookie(options: CookieOptions) -> Result<String, Error> {
    let store = CookieStore::builder(AppKey::generate()?).cookie(options).build()?;
    Ok(line_of(store))
}

fn line_of(store: CookieStore) -> String {
    let service = session_fn(store, |_: Request<Body>, session: SessionHandle| async move {
        session.load().await?.set("k", 1)?;
        Ok::<_, Error>(status(200))
    });
    let response = block_on(service.call(request("/", None))).unwrap();
    assert_eq!(response.status(), 200);
    let [line] = &set_cookies(response.headers())[..] else {
        panic!("{:?}", response.headers());
    };
    line.clone()
}

#[derive(Deserialize)]
struct Written {
    id: String,
    expected: Option<String>,
    input: Input,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Input {
    name: String,
    value: String,
    path: Option<String>,
    domain: Option<String>,
    max_age: Option<u64>,
    samesite: Option<String>,
    expires: Option<String>,
    secure: Option<bool>,
    httponly: Option<bool>,
    partitioned: Option<bool>,
}

impl Input {
    /// The options that say what the row says; `None` if the row is about a value, an `Expires` or a `SameSite` that no
    /// application can ask this crate for.
    fn options(&self) -> Option<CookieOptions> {
        if self.expires.is_some() || !self.value.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            return None;
        }
        let mut options = CookieOptions::development()
            .name(&self.name)
            .max_age(self.max_age.map(Duration::from_secs))
            .secure(self.secure == Some(true))
            .http_only(self.httponly == Some(true))
            .partitioned(self.partitioned == Some(true));
        if let Some(path) = &self.path {
            options = options.path(path);
        }
        if let Some(domain) = &self.domain {
            options = options.domain(domain);
        }
        match self.samesite.as_deref() {
            None => Some(options),
            Some("strict") => Some(options.same_site(SameSite::Strict)),
            Some("lax") => Some(options.same_site(SameSite::Lax)),
            Some("none") => Some(options.same_site(SameSite::None)),
            Some(_) => None,
        }
    }

    fn check(&self, line: &str) {
        let cookie = Cookie::parse(line).unwrap();
        assert_eq!(cookie.name(), self.name);
        assert_eq!(cookie.path(), self.path.as_deref().or(Some("/")));
        assert_eq!(cookie.domain(), self.domain.as_deref());
        assert_eq!(cookie.max_age().map(|age| age.whole_seconds()), self.max_age.map(|age| age as i64));
        assert_eq!(cookie.secure().unwrap_or(false), self.secure.unwrap_or(false));
        assert_eq!(cookie.http_only().unwrap_or(false), self.httponly.unwrap_or(false));
        assert_eq!(cookie.partitioned().unwrap_or(false), self.partitioned.unwrap_or(false));
        let same_site = cookie.same_site().unwrap().to_string().to_ascii_lowercase();
        assert_eq!(same_site, self.samesite.as_deref().unwrap_or("lax"));
    }
}

/// Rows that another suite writes and this crate refuses, and why.
const STRICTER: [(&str, &str); 7] = [
    ("jshttp-cookie-stringify-013", "a leading dot means nothing since RFC 6265"),
    ("jshttp-cookie-stringify-015", "a leading dot means nothing since RFC 6265"),
    ("jshttp-cookie-stringify-035", "a Max-Age of zero removes the cookie"),
    ("jshttp-cookie-stringify-041", "a quote in a path"),
    ("jshttp-cookie-stringify-043", "a user agent ignores a path that does not start with a slash"),
    ("jshttp-cookie-stringify-044", "a user agent ignores a path that does not start with a slash"),
    ("jshttp-cookie-stringify-054", "a user agent drops SameSite=None without Secure"),
];

#[test]
fn t57_rows_about_writing_are_refused_or_read_back() {
    let (mut written, mut refused, mut stricter, mut not_ours) = (0, 0, Vec::new(), 0);
    for line in SET_COOKIE_ROWS.lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        if row["kind"] != "serialize" {
            continue;
        }
        let row: Written = serde_json::from_value(row).unwrap();
        let Some(options) = row.input.options() else {
            not_ours += 1;
            continue;
        };
        match (set_cookie(options), &row.expected) {
            (Ok(line), Some(_)) => {
                row.input.check(&line);
                written += 1;
            }
            (Ok(line), None) => panic!("{} must be refused: {line}", row.id),
            (Err(error), expected) => {
                assert!(error.is_config(), "{}: {error}", row.id);
                match expected {
                    Some(_) => stricter.push(row.id),
                    None => refused += 1,
                }
            }
        }
    }
    assert_eq!(stricter, STRICTER.map(|(id, _)| id));
    assert_eq!((written, refused, not_ours), (17, 20, 17));
}

/// Text around what is valid: valid, valid but for one character, or anything at all.
fn nearly(valid: &'static str) -> impl Strategy<Value = String> {
    let bad = prop_oneof![
        Just(';'),
        Just('\r'),
        Just('\n'),
        Just('='),
        Just(','),
        Just(' '),
        Just('\0'),
        Just('"'),
        Just('.'),
        any::<char>()
    ];
    prop_oneof![
        4 => valid.prop_map(String::from),
        2 => (valid, bad, any::<prop::sample::Index>()).prop_map(|(mut text, bad, at)| {
            text.insert(at.index(text.len() + 1), bad);
            text
        }),
        1 => any::<String>(),
    ]
}

const NAME: &str = "(__Host-|__Secure-|__Host-Http-|)[a-zA-Z0-9!#$%&'*+.^_`|~-]{1,12}";
const PATH: &str = "/[a-z0-9/=?%~:@!$&'()*+._-]{0,20}";
const DOMAIN: &str = "[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?(\\.[a-z0-9]{1,8}){0,3}";

/// The options, and whether their line reads back as what they say.
fn round_trips(name: &str, path: &str, domain: Option<&str>, seconds: u64) -> Result<(), TestCaseError> {
    let mut options = CookieOptions::new().name(name).path(path).max_age(Duration::from_secs(seconds));
    if let Some(domain) = domain {
        options = options.domain(domain);
    }
    let line = match set_cookie(options) {
        Ok(line) => line,
        Err(error) => {
            prop_assert!(error.is_config(), "{}", error);
            return Ok(());
        }
    };
    prop_assert!(line.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '), "{}", line);
    // No attribute more than those asked for: pair, Max-Age, Path, Domain, Secure, HttpOnly, SameSite.
    prop_assert_eq!(line.split(';').count(), 6 + usize::from(domain.is_some()), "{}", line);
    let cookie = Cookie::parse(&line[..]).unwrap();
    prop_assert_eq!(cookie.name(), name);
    prop_assert_eq!(cookie.path(), Some(path));
    prop_assert_eq!(cookie.domain(), domain);
    prop_assert_eq!((cookie.secure(), cookie.http_only()), (Some(true), Some(true)));
    prop_assert_eq!(cookie.max_age().unwrap().whole_seconds(), seconds.min(86_400) as i64);
    // And what the client sends back is found under this name, by the crate's own reading.
    let sent = format!("{}={}", cookie.name(), cookie.value());
    prop_assert_eq!(ours(sent.as_bytes()), [(name.into(), cookie.value().into())]);
    Ok(())
}

proptest! {
    #![proptest_config(cases(2048))]

    #[test]
    fn t57_any_name_path_and_domain_are_refused_or_read_back(
        name in nearly(NAME),
        path in nearly(PATH),
        domain in proptest::option::of(nearly(DOMAIN)),
        seconds in prop_oneof![0..200_000_u64, any::<u64>()],
    ) {
        round_trips(&name, &path, domain.as_deref(), seconds)?;
    }

    #[test]
    fn what_is_valid_is_not_refused(
        // A letter in front: no prefix that asks for anything, nothing that looks like one; at the end no chunk number.
        name in "a[a-zA-Z0-9!#$%&'*+.^_`|~-]{0,12}a",
        path in PATH,
        domain in DOMAIN,
    ) {
        let options = CookieOptions::new().name(&name).path(&path).domain(&domain);
        prop_assert!(set_cookie(options).is_ok());
        round_trips(&name, &path, Some(&domain), 60)?;
    }
}

/// A clock that stands at one second.
struct At(u64);

impl Clock for At {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix(self.0)
    }
}

// RUSTSEC-2017-0005: a huge Max-Age made another crate panic. Here it is capped, at any date.
#[test]
fn t23_huge_durations_give_a_max_age_that_reads_back() {
    let day = 86_400;
    for (max_age, expected) in [
        (Duration::from_secs(1), 1),
        (Duration::from_secs(400 * day), 400 * day),
        (Duration::from_secs(400 * day + 1), 400 * day),
        (Duration::from_secs(i64::MAX as u64), 400 * day),
        (Duration::from_secs(i64::MAX as u64 + 1), 400 * day),
        (Duration::from_secs(u64::MAX), 400 * day),
        (Duration::MAX, 400 * day),
    ] {
        for now in [0, 1, 1_700_000_000, u64::from(u32::MAX), i64::MAX as u64] {
            let store = CookieStore::builder(AppKey::generate().unwrap())
                .cookie(CookieOptions::new().max_age(max_age))
                .idle_timeout(Duration::MAX)
                .clock(At(now))
                .build()
                .unwrap();
            let line = line_of(store);
            let read = Cookie::parse(&line[..]).unwrap().max_age().unwrap().whole_seconds();
            assert_eq!(read, expected as i64, "{max_age:?} at {now}: {line}");
        }
    }
    // At the end of time nothing is left of a session, and that is no panic either.
    let store = CookieStore::builder(AppKey::generate().unwrap()).clock(At(u64::MAX)).build().unwrap();
    assert!(line_of(store).contains("; Max-Age=0;"));
}

// ------------------------------------------------------------------------------------------- headers made to hurt

/// 1 MiB or close to it, and how many cookies named `s` are in it. A reading in quadratic time would take 2^40 steps for
/// each: that these tests end at all is their clock.
fn huge() -> Vec<(&'static str, Vec<u8>, usize)> {
    let repeat = |unit: &str| unit.repeat(MIB / unit.len()).into_bytes();
    let spaces = " \t".repeat(50_000);
    let around = |before: &str, after: &str| {
        [before.as_bytes(), &vec![b'x'; MIB - before.len() - after.len()], after.as_bytes()].concat()
    };
    vec![
        ("one giant value", around("s=", ""), 1),
        ("one giant name", around("", "=s"), 0),
        ("one giant quoted value", around("s=\"", "\""), 1),
        ("one giant bare word", around("", ""), 0),
        ("65,535 semicolons", vec![b';'; 65_535], 0),
        ("a megabyte of semicolons", repeat(";"), 0),
        ("100,000 blanks", format!("{spaces}s{spaces}={spaces}v{spaces}").into_bytes(), 1),
        ("nothing but blanks", spaces.into_bytes(), 0),
        ("the cookie again and again", repeat("s=v;"), MIB / 4),
        ("the cookie between blanks", repeat("  s  =  v  ;"), MIB / 12),
        ("its second chunk again and again", repeat("s.1=v;"), 0),
        ("its name as one word", repeat("s"), 0),
        ("its name among blanks", repeat("s "), 0),
        ("its name as bare words", repeat("s;"), 0),
        ("its name as values", repeat("s=s="), 1),
        ("its name as values of others", repeat("a=s;"), 0),
        ("equals signs", repeat("="), 0),
        ("nameless pairs", repeat("=s;"), 0),
        ("quotes", repeat("\""), 0),
        ("quotes and semicolons", repeat("\";s=\"v"), MIB / 6),
        ("obs-text", vec![0xff; MIB], 0),
    ]
}

#[test]
fn t60_a_megabyte_is_read_in_one_pass_and_without_memory() {
    for (what, field, expected) in huge() {
        let mut found = 0;
        let used =
            allocation_counter::measure(|| found = pairs(&field).filter(|(name, _)| *name == b"s").count());
        assert_eq!(found, expected, "{what}");
        assert_eq!(used.count_total, 0, "{what}");
        check_slices(&field);
        assert_eq!(ours(&field), naive(&field, &[]), "{what}");
    }
}

/// A service whose session cookie is `s`, that says who is logged in; what it reported; and Ada's cookie.
struct Asked {
    service: hyper_session::SessionFn<fn(Request<Body>, SessionHandle) -> Answering>,
    events: Events,
    cookie: Vec<u8>,
}

type Answering = std::pin::Pin<Box<dyn Future<Output = Result<Response<Body>, Error>> + Send>>;

fn login_or_name(request: Request<Body>, session: SessionHandle) -> Answering {
    Box::pin(async move {
        let session = session.load().await?;
        if request.uri().path() == "/login" {
            session.set("user", "ada")?;
        }
        let user = session.get::<String>("user")?.unwrap_or_default();
        Ok(Response::new(user.into()))
    })
}

impl Asked {
    fn new() -> Self {
        let events = Events::new();
        let store = CookieStore::builder(AppKey::generate().unwrap())
            .cookie(CookieOptions::development().name("s"))
            .observer(events.clone())
            .build()
            .unwrap();
        let service = session_fn(store, login_or_name as fn(_, _) -> _);
        let response = block_on(service.call(request("/login", None))).unwrap();
        let cookie = set_cookies(response.headers())[0].split(';').next().unwrap().as_bytes().to_vec();
        assert!(cookie.starts_with(b"s="));
        events.take();
        Self { service, events, cookie }
    }

    /// True if these fields log Ada in; and the events.
    fn ask<'a>(&self, fields: impl IntoIterator<Item = &'a [u8]>) -> (bool, Vec<String>) {
        let mut request = request("/", None);
        for field in fields {
            request.headers_mut().append(COOKIE, HeaderValue::from_bytes(field).unwrap());
        }
        let user = block_on(async { support::text(self.service.call(request).await.unwrap()).await });
        (user == "ada", self.events.take())
    }

    /// Ada's cookie after `field`, in one field with it.
    fn behind(&self, field: &[u8]) -> Vec<u8> {
        [field, b"; ", &self.cookie].concat()
    }
}

/// What a request with so many wrong cookies and a right one behind them reports. `many` is true if there are more than
/// four cookies of the session's name, or of the name of one of its chunks.
fn check_bounded(candidates: usize, many: bool, (found, events): (bool, Vec<String>), what: &str) {
    let refused = events.iter().filter(|event| event.starts_with("refused:")).count();
    let too_many = events.iter().filter(|event| *event == "too_many_candidates").count();
    assert_eq!(found, candidates < 4, "{what}");
    assert_eq!(refused, candidates.min(4), "{what}");
    assert_eq!(too_many, usize::from(many), "{what}");
    assert_eq!(events.len(), refused + too_many, "{what}: {events:?}");
}

#[test]
fn t60_a_whole_request_looks_at_four_candidates_of_a_megabyte() {
    let asked = Asked::new();
    for (what, field, candidates) in huge() {
        let many = candidates >= 4 || pairs(&field).filter(|(name, _)| *name == b"s.1").count() > 4;
        let behind = asked.behind(&field);
        check_bounded(candidates, many, asked.ask([&behind[..]]), what);
        check_bounded(candidates, many, asked.ask([&field[..], &asked.cookie]), what);
    }
}

// T62, and T61: as many fields as a header map holds well, in and out.
#[test]
fn t60_t61_t62_ten_thousand_fields_are_all_seen() {
    let asked = Asked::new();
    for (field, candidates) in [(&b"a=b; ss=v; s"[..], 0), (b"s=v", 10_000)] {
        let fields = vec![field; 10_000];
        let answer = asked.ask(fields.iter().copied().chain([&asked.cookie[..]]));
        check_bounded(candidates, candidates > 0, answer, &String::from_utf8_lossy(field));
    }
}

// T65: nothing that a header says makes memory grow faster than the header.
#[test]
fn t60_t65_refusing_a_megabyte_allocates_no_more_than_was_sent() {
    let asked = Asked::new();
    for (what, field, _) in huge() {
        let sent = field.len();
        let mut request = request("/", None);
        request.headers_mut().insert(COOKIE, HeaderValue::from_bytes(&field).unwrap());
        let used = allocation_counter::measure(|| {
            block_on(asked.service.call(request)).unwrap();
        });
        assert!(used.bytes_total < (sent + (64 << 10)) as u64, "{what}: {used:?}");
    }
}

// `Refusal::Length` is "shorter or longer than any token": what is longer than all chunks together must cost neither a
// decoding nor a signature, however right its header looks.
#[test]
fn t60_a_value_longer_than_any_token_is_refused_for_its_length() {
    let asked = Asked::new();
    let long = vec![b'A'; 8 * 4096 + 4 - asked.cookie.len() % 4];
    let forged = [&b"s="[..], &long].concat();
    let extended = [&asked.cookie[..], &long].concat();
    let answers = [&forged, &extended].map(|field| asked.ask([&field[..]]));
    let too_long = (false, vec!["refused:length".to_owned()]);
    assert_eq!(answers, [too_long.clone(), too_long]);
}

/// Every byte that a header value can hold, as `HeaderValue` has it.
fn header_bytes() -> impl Iterator<Item = u8> {
    (0..=255_u8).filter(|&byte| HeaderValue::from_bytes(&[byte]).is_ok())
}

#[test]
fn t50_to_t56_t63_only_blanks_and_semicolons_may_touch_the_cookie() {
    let asked = Asked::new();
    let (name, value) = (b"s", asked.cookie.strip_prefix(b"s=").unwrap());
    assert_eq!(header_bytes().count(), 224, "HTAB, visible ASCII, SP, obs-text");
    for byte in header_bytes() {
        let b = &[byte][..];
        let blank = matches!(byte, b' ' | b'\t');
        for (place, field, found) in [
            ("before the name", [b, name, b"=", value].concat(), blank || byte == b';'),
            ("behind the name", [name, b, b"=", value].concat(), blank),
            ("before the value", [name, b"=", b, value].concat(), blank),
            ("behind the value", [name, b"=", value, b].concat(), blank || byte == b';'),
            ("in the value", [name, b"=", &value[..9], b, &value[9..]].concat(), false),
            ("around another pair", [b, b"; ", &asked.cookie, b"; ", b].concat(), true),
            ("in another pair", [b"a", b, b"=", b, b"; ", &asked.cookie].concat(), true),
        ] {
            assert_eq!(asked.ask([&field[..]]).0, found, "{byte:#04x} {place}");
        }
    }
}

proptest! {
    #![proptest_config(cases(1024))]

    // Bytes of all kinds before and behind never hide an authentic cookie, and never panic.
    #[test]
    fn t63_any_bytes_around_it_leave_the_cookie_findable(
        before in proptest::collection::vec(header_byte(), 0..60),
        behind in proptest::collection::vec(header_byte(), 0..60),
    ) {
        let asked = ASKED.with(Clone::clone);
        let field = [&before, &b";"[..], &asked.cookie, b";", &behind].concat();
        let earlier = ours(&before).iter().filter(|(name, _)| name == b"s").count();
        let (found, events) = asked.ask([&field[..]]);
        prop_assert_eq!(found, earlier < 4);
        prop_assert!(events.iter().filter(|event| event.starts_with("refused:")).count() == earlier.min(4));
    }
}

thread_local! {
    static ASKED: std::rc::Rc<Asked> = std::rc::Rc::new(Asked::new());
}

fn header_byte() -> impl Strategy<Value = u8> {
    let any_byte = proptest::sample::select(header_bytes().collect::<Vec<_>>());
    prop_oneof![3 => proptest::sample::select(&b"s=; \t\".1"[..]), 1 => any_byte]
}
