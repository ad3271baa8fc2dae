//! Writings of `Set-Cookie` lines, read back by another library.

use std::time::Duration;

use cookie::Cookie;
use http::Request;
use hyper::service::Service;
use hyper_session::cookie::{CookieOptions, SameSite};
use hyper_session::{AppKey, Clock, CookieStore, Error, SessionHandle, Timestamp, session_fn};
use proptest::prelude::*;
use serde::Deserialize;

use crate::corpus::{SET_COOKIE_ROWS, cases, ours};
use crate::support::{Body, block_on, request, set_cookies, status};

/// A service whose one answer sets the cookie, and the line it sets.
fn set_cookie(options: CookieOptions, max_age: Option<u64>) -> Result<String, Error> {
    // A cookie may not die before its session, so the session is given the same time.
    let idle = Duration::from_secs(max_age.unwrap_or(86_400));
    let store = CookieStore::builder(AppKey::generate()?).cookie(options).idle_timeout(idle);
    // A clock that stands still: the seconds of Max-Age are those of the option.
    Ok(line_of(store.clock(At(1_700_000_000)).build()?))
}

fn line_of(store: CookieStore) -> String {
    let lines = lines_of(store);
    let [line] = &lines[..] else { panic!("{lines:?}") };
    line.clone()
}

fn lines_of(store: CookieStore) -> Vec<String> {
    let service = session_fn(store, |_: Request<Body>, session: SessionHandle| async move {
        session.load().await?.set("k", 1)?;
        Ok::<_, Error>(status(200))
    });
    let response = block_on(service.call(request("/", None))).unwrap();
    assert_eq!(response.status(), 200);
    set_cookies(response.headers())
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
const STRICTER: [(&str, &str); 8] = [
    ("jshttp-cookie-stringify-013", "a leading dot means nothing since RFC 6265"),
    ("jshttp-cookie-stringify-015", "a leading dot means nothing since RFC 6265"),
    ("jshttp-cookie-stringify-035", "a Max-Age of zero removes the cookie"),
    ("jshttp-cookie-stringify-041", "a quote in a path"),
    ("jshttp-cookie-stringify-043", "a user agent ignores a path that does not start with a slash"),
    ("jshttp-cookie-stringify-044", "a user agent ignores a path that does not start with a slash"),
    (
        "jshttp-cookie-stringify-050",
        "user agents withhold a partitioned cookie without SameSite=None where it is for",
    ),
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
        match (set_cookie(options, row.input.max_age), &row.expected) {
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
    assert_eq!((written, refused, not_ours), (16, 20, 17));
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
    let line = match set_cookie(options, Some(seconds)) {
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
    prop_assert_eq!(cookie.max_age().unwrap().whole_seconds(), seconds.min(400 * 86_400) as i64);
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
        prop_assert!(set_cookie(options, None).is_ok());
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
        for now in [0, 1, 1_700_000_000, u64::from(u32::MAX), u64::from(u32::MAX) * 3_600] {
            let store = CookieStore::builder(AppKey::generate().unwrap())
                .cookie(CookieOptions::new().max_age(max_age))
                .idle_timeout(max_age)
                .clock(At(now))
                .build()
                .unwrap();
            let line = line_of(store);
            let read = Cookie::parse(&line[..]).unwrap().max_age().unwrap().whole_seconds();
            assert_eq!(read, expected as i64, "{max_age:?} at {now}: {line}");
        }
    }
    // After the last hour that a token can name, nothing is left of a session. That must not be a panic either.
    for now in [i64::MAX as u64, u64::MAX] {
        let store = CookieStore::builder(AppKey::generate().unwrap()).clock(At(now)).build().unwrap();
        let lines = lines_of(store);
        assert!(lines.iter().all(|line| line.starts_with("__Host-session=; Max-Age=0;")), "{lines:?}");
    }
}
