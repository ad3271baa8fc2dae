//! `Set-Cookie`: refused when the options are built, or lines that another library reads back, no more than are allowed.

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use http::header::SET_COOKIE;
use http::{Request, Response};
use http_body_util::Empty;
use hyper::service::Service;
use hyper_session::cookie::{CookieOptions, SameSite};
use hyper_session::testing::FakeClock;
use hyper_session::{AppKey, CookieStore, Error, SessionHandle, session_fn};

use crate::{APP_KEY, NOW, run};

type Body = Empty<bytes::Bytes>;

const DAY: Duration = Duration::from_secs(24 * 3600);

#[derive(Arbitrary, Debug)]
struct Options {
    prefix: u8,
    name: String,
    path: String,
    domain: Option<String>,
    max_age: Option<Duration>,
    secure: bool,
    http_only: bool,
    same_site: u8,
    partitioned: bool,
    /// 0: as many as by default.
    max_chunks: u8,
    /// How many bytes the session holds.
    len: u16,
    /// Where the cookie was before.
    retired: Vec<Retired>,
}

#[derive(Arbitrary, Debug)]
enum Retired {
    Name(String),
    Path(u8),
    Domain(u8),
    HostOnly,
}

const PATHS: [&str; 4] = ["/", "/app", "/app/", "/a;b"];
const DOMAINS: [&str; 4] = ["example.com", "app.example.com", "example.org", "-"];

/// Whatever the options, a browser is never sent what they do not say.
pub fn set_cookie_build(data: &[u8]) {
    let Ok(options) = Options::arbitrary(&mut Unstructured::new(data)) else { return };
    let prefix =
        ["", "__Host-", "__Secure-", "__Http-", "__Host-Http-", "__host-"][usize::from(options.prefix % 6)];
    let name = format!("{prefix}{}", options.name);
    let same_site = [SameSite::Strict, SameSite::Lax, SameSite::None][usize::from(options.same_site % 3)];
    let mut cookie = CookieOptions::new()
        .name(&name)
        .path(&options.path)
        .max_age(options.max_age)
        .secure(options.secure)
        .http_only(options.http_only)
        .same_site(same_site)
        .partitioned(options.partitioned);
    if let Some(domain) = &options.domain {
        cookie = cookie.domain(domain);
    }
    // Names, domains and paths under which a browser may still hold it.
    let mut former = Former {
        names: Vec::new(),
        domains: vec![options.domain.clone()],
        paths: vec![options.path.clone()],
    };
    for retired in options.retired.iter().take(4) {
        cookie = match retired {
            Retired::Name(name) => {
                former.names.push(name.clone());
                cookie.retired_name(name)
            }
            Retired::Path(which) => {
                let path = PATHS[usize::from(which % 4)];
                former.paths.push(path.to_owned());
                cookie.retired_path(path)
            }
            Retired::Domain(which) => {
                let domain = DOMAINS[usize::from(which % 4)];
                former.domains.push(Some(domain.to_owned()));
                cookie.retired_domain(domain)
            }
            Retired::HostOnly => {
                former.domains.push(None);
                cookie.retired_host_only()
            }
        };
    }
    if options.max_chunks > 0 {
        cookie = cookie.max_chunks(options.max_chunks);
    }
    let key = AppKey::danger_from_any_bytes(APP_KEY).unwrap();
    // A Max-Age below the idle timeout is refused.
    let idle = options.max_age.unwrap_or(DAY).max(Duration::from_secs(1));
    let builder = CookieStore::builder(key).cookie(cookie).idle_timeout(idle);
    let store = match builder.clock(FakeClock::at(NOW)).build() {
        Ok(store) => store,
        Err(error) => return assert!(error.is_config(), "{error}"),
    };
    let len = usize::from(options.len);
    let service = session_fn(store, move |_: Request<Body>, session: SessionHandle| async move {
        session.load().await?.set("a", "x".repeat(len))?;
        Ok::<_, Error>(Response::new(Body::new()))
    });
    let response = run(service.call(Request::new(Body::new()))).unwrap();
    let (expired, lines): (Vec<_>, Vec<_>) = response
        .headers()
        .get_all(SET_COOKIE)
        .iter()
        .partition(|line| former.has(line.to_str().unwrap(), &name, &options));
    let chunks = if options.max_chunks == 0 { 3 } else { usize::from(options.max_chunks) };
    let mut left = token_len(len);
    let fits = left <= (0..chunks).map(|number| room(&name, number)).sum();
    assert_eq!(response.status().is_success(), fits, "{left} bytes in {chunks} cookies");
    assert!(fits || lines.is_empty(), "a part of a session");
    let mut full = false;
    if fits {
        former.check(&expired, &name, &options);
    }

    for (number, line) in lines.into_iter().enumerate() {
        assert!(line.is_sensitive());
        let line = line.to_str().expect("visible ASCII");
        let read = cookie::Cookie::parse(line).expect("a line that another library reads");
        assert_eq!(read.name(), cookie_name(&name, number));
        if left == 0 {
            // A reader would take this cookie for the next chunk of a token that ends with a full one.
            assert!(number > 0 && full && line.contains("=; Max-Age=0; "), "{line}");
            full = false;
            continue;
        }
        full = left >= room(&name, number);
        assert_eq!(read.value().len(), left.min(room(&name, number)), "as much as fits");
        left -= read.value().len();
        assert_attributes(&read, &options, same_site);
    }
    assert!(!fits || left == 0, "{left} bytes are not there");

    // The rules of the prefixes (RFC 6265bis section 4.1.3), which browsers apply without regard to case.
    let lower = name.to_ascii_lowercase();
    if lower.starts_with("__host-") {
        assert!(options.secure && options.path == "/" && options.domain.is_none());
    }
    if lower.starts_with("__secure-") || lower.starts_with("__http-") {
        assert!(options.secure);
    }
    if lower.starts_with("__http-") || lower.starts_with("__host-http-") {
        assert!(options.http_only);
    }
    assert!(options.secure || (same_site != SameSite::None && !options.partitioned));
    assert!(!options.partitioned || same_site == SameSite::None);
}

/// The places of a cookie, of which the present name, domain and path are one.
struct Former {
    names: Vec<String>,
    domains: Vec<Option<String>>,
    paths: Vec<String>,
}

type Place = (String, Option<String>, String);

impl Former {
    /// The place of a line.
    fn place(line: &str) -> Place {
        let read = cookie::Cookie::parse(line).expect("a line that another library reads");
        (read.name().to_owned(), read.domain().map(str::to_owned), read.path().unwrap_or_default().to_owned())
    }

    /// Returns true if this line removes the cookie somewhere else than where it is now.
    fn has(&self, line: &str, name: &str, options: &Options) -> bool {
        let (of, domain, path) = Self::place(line);
        let is_of_present_name = of == name || (1..8).any(|number| of == cookie_name(name, number));
        line.contains("=; Max-Age=0; ")
            && !(is_of_present_name && domain == options.domain && path == options.path)
    }

    /// Each former place is removed once, where browsers can have kept such a cookie, and no other place is.
    fn check(&self, lines: &[&http::HeaderValue], name: &str, options: &Options) {
        let mut seen: Vec<Place> = lines.iter().map(|line| Self::place(line.to_str().unwrap())).collect();
        let present = (name.to_owned(), options.domain.clone(), options.path.clone());
        let mut expected = Vec::new();
        for name in std::iter::once(name).chain(self.names.iter().map(String::as_str)) {
            let is_host_only = name.to_ascii_lowercase().starts_with("__host-");
            for (domain, path) in
                self.domains.iter().flat_map(|domain| self.paths.iter().map(move |path| (domain, path)))
            {
                if !is_host_only {
                    expected.push((name.to_owned(), domain.clone(), path.clone()));
                } else if name != present.0 {
                    expected.push((name.to_owned(), None, "/".to_owned()));
                }
            }
        }
        expected.retain(|place| *place != present);
        expected.sort();
        expected.dedup();
        seen.sort();
        assert!(seen.windows(2).all(|pair| pair[0] != pair[1]), "a place twice: {seen:?}");
        assert_eq!(seen, expected);
    }
}

/// The length of the token of a session with a string of this many bytes, in all of its cookies together: base64url of 26 bytes
/// of header, a map of one entry, and the envelope around them (docs/WIRE.md).
fn token_len(len: usize) -> usize {
    let marker = match len {
        0..32 => 1,
        32..256 => 2,
        _ => 3,
    };
    ((21 + 26 + 3 + marker + len + 16 + 32) * 4).div_ceil(3)
}

fn cookie_name(name: &str, number: usize) -> String {
    if number == 0 { name.to_owned() } else { format!("{name}.{number}") }
}

fn room(name: &str, number: usize) -> usize {
    4096 - cookie_name(name, number).len()
}

fn assert_attributes(read: &cookie::Cookie<'_>, options: &Options, same_site: SameSite) {
    assert!(read.value().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
    assert_eq!(read.path(), Some(options.path.as_str()));
    assert_eq!(read.domain(), options.domain.as_deref());
    assert_eq!(read.secure().unwrap_or(false), options.secure);
    assert_eq!(read.http_only().unwrap_or(false), options.http_only);
    assert_eq!(read.partitioned().unwrap_or(false), options.partitioned);
    assert_eq!(read.same_site().map(|same_site| same_site.to_string()), Some(format!("{same_site:?}")));
    let max_age = options.max_age.map(|max_age| max_age.min(400 * DAY).as_secs());
    assert_eq!(read.max_age().map(|age| age.whole_seconds().unsigned_abs()), max_age);
}
