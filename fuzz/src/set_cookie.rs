//! `Set-Cookie`: refused when the options are built, or one line that another library reads back.

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
}

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
    let key = AppKey::danger_from_any_bytes(APP_KEY).unwrap();
    // A Max-Age below the idle timeout is refused.
    let idle = options.max_age.unwrap_or(DAY);
    let builder = CookieStore::builder(key).cookie(cookie).idle_timeout(idle);
    let store = match builder.clock(FakeClock::at(NOW)).build() {
        Ok(store) => store,
        Err(error) => return assert!(error.is_config(), "{error}"),
    };
    let service = session_fn(store, |_: Request<Body>, session: SessionHandle| async move {
        session.load().await?.set("a", 1)?;
        Ok::<_, Error>(Response::new(Body::new()))
    });
    let response = run(service.call(Request::new(Body::new()))).unwrap();
    let lines: Vec<_> = response.headers().get_all(SET_COOKIE).iter().collect();
    assert_eq!(lines.len(), 1, "one cookie, one line");
    let line = lines[0].to_str().expect("visible ASCII");
    assert!(lines[0].is_sensitive());

    let read = cookie::Cookie::parse(line).expect("a line that another library reads");
    assert_eq!(read.name(), name);
    assert!(read.value().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
    assert_eq!(read.path(), Some(options.path.as_str()));
    assert_eq!(read.domain(), options.domain.as_deref());
    assert_eq!(read.secure().unwrap_or(false), options.secure);
    assert_eq!(read.http_only().unwrap_or(false), options.http_only);
    assert_eq!(read.partitioned().unwrap_or(false), options.partitioned);
    assert_eq!(read.same_site().map(|same_site| same_site.to_string()), Some(format!("{same_site:?}")));
    let max_age = options.max_age.map(|max_age| max_age.min(400 * DAY).as_secs());
    assert_eq!(read.max_age().map(|age| age.whole_seconds().unsigned_abs()), max_age);

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
}
