//! Attacks that an independent reading of the code tried, file by file. docs/THREATS.md lists them beside what was found.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::header::{COOKIE, HOST, HeaderValue};
use http::{Request, Response};
use hyper::service::{Service, service_fn};
use hyper_session::cookie::{CookieOptions, SameSite};
use hyper_session::store::Store;
use hyper_session::testing::{Cookies, FakeClock};
use hyper_session::{
    AppKey, CookieStore, Error, Keyring, Revocations, ServerStore, SessionExt, SessionHandle, SessionService,
    session_fn,
};
use sha2::Digest as _;

use crate::attack_fixture::{ABSOLUTE, IDLE, Kind, NAME, Options, Rows, START, TestStore};
use crate::support::{Body, Events, Jar, block_on, request, set_cookies, status, text};

// Keys as text.

/// The files below `folder` with this ending.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.extension().is_some_and(|of_path| of_path == ending) {
            found.push(path);
        }
    }
    found
}

/// A service whose operator copied an example has a secret that everyone knows.
#[test]
fn t13_no_key_that_the_documentation_prints_is_accepted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = files(&root.join("docs"), "md");
    pages.extend(files(&root.join("src"), "md"));
    pages.extend(files(&root.join("src"), "txt"));
    pages.extend(files(&root.join("examples"), "rs"));
    pages.extend(["README.md", "SECURITY.md", "CHANGELOG.md", "CONTRIBUTING.md"].map(|name| root.join(name)));
    let code = files(&root.join("src"), "rs");
    assert!(pages.len() > 20 && code.len() > 100, "{} {}", pages.len(), code.len());
    let mut words = 0;
    for path in pages.iter().chain(&code) {
        let source = std::fs::read_to_string(path).unwrap();
        let is_code =
            path.extension().is_some_and(|ending| ending == "rs") && path.starts_with(root.join("src"));
        // Of the code, what is rendered.
        let lines = source.lines().filter(|line| !is_code || line.trim_start().starts_with("//"));
        for line in lines {
            let foreign = |c: char| !(c.is_ascii_alphanumeric() || "+/-_=".contains(c));
            // Longer words of base64 are tokens.
            let may_be_key = |word: &&str| {
                let digits = word.bytes().all(|byte| byte.is_ascii_hexdigit());
                word.len() >= 43 && (word.len() <= 88 || digits)
            };
            for word in line.split(foreign).filter(may_be_key) {
                words += 1;
                assert!(AppKey::from_text(word).is_err(), "{}: {word}", path.display());
            }
            for (at, call) in line.match_indices("from_bytes(b\"") {
                let bytes = line[at + call.len()..].split('"').next().unwrap_or_default();
                assert!(AppKey::from_bytes(bytes.as_bytes()).is_err(), "{}: {line}", path.display());
            }
        }
    }
    assert!(words > 10, "{words}");
}

/// Words with hyphens or underscores between them are base64url, too.
#[test]
fn t13_a_passphrase_that_is_also_base64_is_no_key() {
    for phrase in [
        "correct-horse-battery-staple-and-two-more-00",
        "this_is_the_secret_of_our_session_cookies_42",
        "CHANGE_ME_TO_A_COMPLEX_RANDOM_SECRET_PLEASE1",
        "0123-4567-8901-2345-6789-0123-4567-8901-2345",
        "changemechangemechangemechangemechangemesecr",
    ] {
        assert_eq!(phrase.len(), 44);
        for text in [phrase.to_owned(), format!("\"{phrase}\"\n")] {
            let error = AppKey::from_text(&text).unwrap_err();
            assert!(error.is_config() && !error.to_string().contains(phrase), "{error}");
            assert!(Keyring::from_text(&text).is_err());
        }
    }
    // Digits have one case, and what a generator wrote has both.
    let digits = "7be1d04a55c9f3628e0b1d9af47c2635e8a90b6dd15f7c3348f2a6e0915bd7ca";
    assert_eq!(
        AppKey::from_text(digits).unwrap().id(),
        AppKey::from_text(&digits.to_ascii_uppercase()).unwrap().id()
    );
    AppKey::from_text("mVx3b7Qw0sZJd8Hk2LrT5yUa9eNf4GcP1oIiXqBvEtM=").unwrap();
}

// Sessions that a request brings.

const APP: &str = "app.example.com";

/// A handler that the tests below ask by the last part of the path.
async fn act(request: Request<Body>) -> Result<Response<Body>, Error> {
    let session = request.session().await?;
    let seen = session.subject().map(String::from).unwrap_or_default();
    match request.uri().path().rsplit('/').next().unwrap_or_default() {
        "logout" => session.destroy()?,
        "regenerate" => session.regenerate()?,
        "look" => {}
        user => session.login(user)?,
    }
    Ok(Response::new(Body::from(seen)))
}

/// A request with this `Cookie` header. Returns whose session the handler saw, and the response.
fn send(store: &Arc<dyn Store>, cookie: &str, path: &str) -> (String, Response<Body>) {
    let mut request = request(path, Some(cookie).filter(|cookie| !cookie.is_empty()));
    request.headers_mut().insert(HOST, HeaderValue::from_static(APP));
    let response = block_on(SessionService::new(service_fn(act), Arc::clone(store)).call(request)).unwrap();
    let (head, body) = response.into_parts();
    let seen = block_on(text(Response::new(body)));
    (seen, Response::from_parts(head, Body::default()))
}

/// The pair of the cookie `name` that a response sets.
fn pair(response: &Response<Body>, name: &str) -> String {
    let mut jar = Jar::new();
    jar.store(response.headers());
    format!("{name}={}", jar.get(name).expect("a token"))
}

/// A cookie store under the present name and under the former one, with one key, one clock and one log.
fn renamed(clock: &FakeClock) -> [Arc<dyn Store>; 2] {
    let key = AppKey::generate().unwrap().to_text();
    let revocations = Revocations::in_memory();
    let cookies = [
        CookieOptions::new().name("__Host-old"),
        CookieOptions::new().name("__Host-new").retired_name("__Host-old"),
    ];
    cookies.map(|cookie| {
        let builder = CookieStore::builder(key.parse::<AppKey>().unwrap()).cookie(cookie);
        Arc::new(builder.revocations(revocations.clone()).clock(clock.clone()).build().unwrap())
            as Arc<dyn Store>
    })
}

/// A page regenerates the session while the user logs out in another tab, and the cookie is renamed by a deployment. The logout
/// came with the cookie from before, and ends the session under its new token, as it does where no name changes.
#[test]
fn t27_a_logout_with_a_superseded_cookie_of_a_retired_name_ends_the_session() {
    for renames in [false, true] {
        let clock = FakeClock::at(START);
        let [old, new] = renamed(&clock);
        let (former, name) = if renames { (&old, "__Host-old") } else { (&new, "__Host-new") };
        let before = pair(&send(former, "", "/ada").1, name);
        let after = pair(&send(&new, &before, "/regenerate").1, "__Host-new");
        assert_eq!(send(&new, &after, "/look").0, "ada");
        let (seen, logout) = send(&new, &before, "/logout");
        assert_eq!((seen, logout.status().as_u16()), (String::new(), 200));
        assert_eq!(send(&new, &after, "/look").0, "", "renames: {renames}");
    }
}

/// The request of one user was overtaken by a new token. It must not show the older session of another user beside it.
#[test]
fn r3_an_overtaken_request_under_a_retired_name_does_not_fall_back_to_an_older_session() {
    let clock = FakeClock::at(START);
    let [old, new] = renamed(&clock);
    let ada = pair(&send(&old, "", "/ada").1, "__Host-old");
    clock.set(START + 1_000);
    let bob = pair(&send(&old, "", "/bob").1, "__Host-old");
    clock.set(START + 2_000);
    assert_eq!(send(&new, &bob, "/regenerate").0, "bob");
    for both in [format!("{ada}; {bob}"), format!("{bob}; {ada}")] {
        let (seen, response) = send(&new, &both, "/look");
        assert_eq!(seen, "", "ada's session is older than that of bob's browser");
        assert!(set_cookies(response.headers()).iter().all(|line| line.contains("Max-Age=0")));
    }
}

/// A host of the domain plants the seven chunks that a cookie can have, so that the logout needs eight times as many lines, and a
/// proxy discards a response with such a head. nginx takes 8 kB, if it is configured for some.
#[test]
fn t64_planted_chunks_make_no_logout_too_long_for_proxies() {
    let domain = || CookieOptions::new().name("__Secure-s").path("/area");
    let retiring = || domain().retired_domain("example.com").retired_path("/").retired_name("s");
    for options in [domain(), retiring()] {
        let builder = CookieStore::builder(AppKey::generate().unwrap()).cookie(options);
        let store: Arc<dyn Store> = Arc::new(builder.clock(FakeClock::at(START)).build().unwrap());
        let token = pair(&send(&store, "", "/area/ada").1, "__Secure-s");
        let planted = |name: &str| {
            ["1", "2", "3", "4", "5", "6", "7"].map(|chunk| ["; ", name, ".", chunk, "=x"].concat()).concat()
        };
        let cookie = format!("{token}{}; s=x{}", planted("__Secure-s"), planted("s"));
        let mut request = request("/area/a/b/c/d/logout", Some(&cookie));
        request.headers_mut().insert(HOST, HeaderValue::from_static("a.b.c.d.e.example.com"));
        let response = block_on(SessionService::new(service_fn(act), store).call(request)).unwrap();
        let lines = set_cookies(response.headers());
        let size = lines.iter().map(|line| "set-cookie: \r\n".len() + line.len()).sum::<usize>();
        assert!(size < 8 * 1024, "{size} bytes in {} lines", lines.len());
        // The first chunk, without which the others are nothing, in each scope that is tried, and all of them in the present one.
        let heads = lines.iter().filter(|line| line.starts_with("__Secure-s=;")).count();
        assert!(heads >= 9, "{lines:#?}");
        let present = lines.iter().filter(|line| line.contains("; Path=/area; Secure")).count();
        assert!(present >= 8, "{lines:#?}");
    }
}

/// A browser's words about the cause of a request: `Sec-Fetch-Site`, or nothing if it is old, and `Origin`, with forms and scripts.
type Says = (Option<&'static str>, Option<&'static str>);

/// A request with these pairs of cookies, which a page caused of which the browser says this. Returns the lines of the response.
fn lines_of(store: &Arc<dyn Store>, pair: &str, says: Says, path: &str) -> Vec<String> {
    lines_at(APP, store, pair, says, path)
}

fn lines_at(
    host: &'static str,
    store: &Arc<dyn Store>,
    pair: &str,
    (site, origin): Says,
    path: &str,
) -> Vec<String> {
    let mut request = request(path, Some(pair));
    let headers = request.headers_mut();
    if let Some(site) = site {
        headers.insert("sec-fetch-site", HeaderValue::from_static(site));
    }
    if let Some(origin) = origin {
        headers.insert("origin", HeaderValue::from_static(origin));
    }
    headers.insert(HOST, HeaderValue::from_static(host));
    let response = block_on(SessionService::new(service_fn(act), Arc::clone(store)).call(request)).unwrap();
    set_cookies(response.headers())
}

/// A host of the domain plants a cookie that is dead. A form, or for a strict cookie a link, on a page of another site makes the
/// browser send it without the session's cookie. The response must not remove that: the user would be logged out.
#[test]
fn t64_a_dead_cookie_beside_one_that_the_browser_withholds_removes_nothing() {
    let (other, same) = (Some("https://page.test"), Some("https://App.example.com"));
    let forms: [Says; 4] =
        [(Some("cross-site"), other), (Some("cross-site, none"), other), (None, other), (None, Some("null"))];
    let link: Says = (Some("cross-site"), None);
    let own: [Says; 7] = [
        (Some("same-origin"), same),
        (Some("same-site"), Some("https://www.example.com")),
        (Some("same-origin"), None),
        (Some("none"), None),
        (None, same),
        (None, Some("https://app.example.com:8443")), // a site has all of its ports
        (None, None),
    ];
    for (same_site, withheld, sent) in [
        (SameSite::Lax, forms.to_vec(), [&own[..], &[link]].concat()),
        (SameSite::Strict, [&forms[..], &[link]].concat(), own.to_vec()),
        (SameSite::None, vec![], [&forms[..], &own, &[link]].concat()),
    ] {
        let retiring = || CookieOptions::new().name("__Secure-s").retired_domain("example.com");
        let builder =
            CookieStore::builder(AppKey::generate().unwrap()).cookie(retiring().same_site(same_site));
        let store: Arc<dyn Store> = Arc::new(builder.clock(FakeClock::at(START)).build().unwrap());
        let token = pair(&send(&store, "", "/mallory").1, "__Secure-s");
        let dead = format!("{}AAAA", &token[..token.len() - 4]);
        for says in withheld {
            assert_eq!(lines_of(&store, &dead, says, "/look"), [""; 0], "{same_site:?} {says:?}");
            // A logout is the user's, or the application's to protect.
            assert!(!lines_of(&store, &dead, says, "/logout").is_empty(), "{same_site:?} {says:?}");
        }
        for says in sent {
            let removed = lines_of(&store, &dead, says, "/look");
            assert_eq!(
                removed.len(),
                2,
                "in the retired scope and the present one: {same_site:?} {says:?} {removed:?}"
            );
        }
    }
}

/// The same with a living session of the attacker, which is due for a renewal: it must not be set over the session's cookie.
#[test]
fn t64_a_planted_session_is_not_renewed_over_one_that_the_browser_withholds() {
    let clock = FakeClock::at(START);
    let builder =
        CookieStore::builder(AppKey::generate().unwrap()).cookie(CookieOptions::new().name("__Secure-s"));
    let builder = builder.idle_timeout(Duration::from_secs(IDLE)).clock(clock.clone());
    let store: Arc<dyn Store> = Arc::new(builder.build().unwrap());
    let planted = pair(&send(&store, "", "/mallory").1, "__Secure-s");
    clock.advance(Duration::from_secs(IDLE / 2));
    assert_eq!(lines_of(&store, &planted, (Some("cross-site"), Some("https://page.test")), "/look"), [""; 0]);
    assert_eq!(lines_of(&store, &planted, (None, Some("https://app.example.com")), "/look").len(), 1);
}

/// A site has all of its ports, and over plain http a browser never says which site a request is of. A session that is in use there
/// must not end as an idle one.
#[test]
fn t64_a_session_in_use_is_renewed_at_each_port_and_over_plain_http() {
    let renews = |cookie: CookieOptions, name: &str, host, origin| {
        let clock = FakeClock::at(START);
        let builder = CookieStore::builder(AppKey::generate().unwrap()).cookie(cookie);
        let builder = builder.idle_timeout(Duration::from_secs(IDLE)).clock(clock.clone());
        let store: Arc<dyn Store> = Arc::new(builder.build().unwrap());
        let own = pair(&send(&store, "", "/ada").1, name);
        clock.advance(Duration::from_secs(IDLE / 2));
        !lines_at(host, &store, &own, (None, Some(origin)), "/look").is_empty()
    };
    for (host, origin, renewed) in [
        (APP, "https://app.example.com:3000", true),
        ("app.example.com:443", "https://app.example.com", true),
        ("[::1]:8443", "https://[::1]", true),
        ("[::1]", "https://[::2]", false),
        (APP, "https://app.example.com.evil.test", false),
        (APP, "https://www.example.com", false),
    ] {
        let secure = CookieOptions::new().name("__Secure-s");
        assert_eq!(renews(secure, "__Secure-s", host, origin), renewed, "{host} {origin}");
    }
    for (host, origin) in
        [("app.corp:8080", "http://app.corp:3000"), ("api.corp", "http://www.corp"), (APP, "null")]
    {
        assert!(renews(CookieOptions::development().name("s"), "s", host, origin), "{host} {origin}");
    }
}

/// The host and the path of a request are written into `Domain` and `Path` of the lines that a logout sends.
#[test]
fn t57_nothing_of_a_request_becomes_an_attribute_of_its_own() {
    let options = CookieOptions::new().name("__Secure-s").domain("example.com");
    let builder = CookieStore::builder(AppKey::generate().unwrap()).cookie(options);
    let store: Arc<dyn Store> = Arc::new(builder.clock(FakeClock::at(START)).build().unwrap());
    let token = pair(&send(&store, "", "/ada").1, "__Secure-s");
    let hosts: [&[u8]; 12] = [
        b"evil.test; Secure",
        b"a b.example.com",
        b"[::1]:80",
        b"10.0.0.1",
        b"a..b",
        b"-a.example.com",
        b".example.com.",
        b"evil.test,b.example.com",
        b"ex\xc3\xa4mple.com",
        b"%0d%0aX: y",
        b"EVIL.test:80; Path=/x",
        b"",
    ];
    let paths = [
        "/a;Domain=evil.test/logout",
        "/a%0d%0aSet-Cookie:x=y/logout",
        "/a,b/logout",
        "//evil.test//logout",
        "/a/;HttpOnly=/b/logout",
        "/%3bSecure/logout",
        "/=/=/=/logout",
    ];
    for host in hosts {
        for path in paths {
            let mut request = request(path, Some(&token));
            request.headers_mut().insert(HOST, HeaderValue::from_bytes(host).unwrap());
            let response =
                block_on(SessionService::new(service_fn(act), Arc::clone(&store)).call(request)).unwrap();
            assert!(response.headers().len() < 40);
            let lines = set_cookies(response.headers());
            assert!(!lines.is_empty());
            for line in lines {
                let mut parts = line.split("; ");
                assert!(parts.next().is_some_and(|pair| pair == "__Secure-s="), "{line}");
                for part in parts {
                    let has_comma = part.contains(',') && !part.starts_with("Expires=Thu, ");
                    assert!(!has_comma && !part.contains([';', '\r', '\n']), "{line}");
                    match part.split_once('=') {
                        Some(("Path", path)) => {
                            assert!(path.starts_with('/') && !path.contains(' '), "{line}");
                        }
                        Some(("Domain", domain)) => {
                            let plain =
                                |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
                            assert!(domain.chars().all(plain), "{line}");
                        }
                        Some(("Max-Age" | "Expires" | "SameSite", _)) | None => {}
                        Some(_) => panic!("{line}"),
                    }
                }
            }
        }
    }
}

/// HTTP/2 lets a client send one cookie in each field, as many as fit.
#[test]
fn t60_t62_of_thousands_of_cookie_fields_the_first_sixty_four_cookies_count() {
    block_on(async {
        let world = TestStore::new(Kind::Memory);
        let good = format!("{NAME}={}", world.token().await);
        for (junk, others, is_found) in [(63, 10_000, true), (64, 10_000, false), (10_000, 0, false)] {
            let mut request = request("/", None);
            let mut field = |text: &str| {
                request.headers_mut().append(COOKIE, HeaderValue::from_str(text).unwrap());
            };
            (0..others).for_each(|number| field(&format!("other{number}={NAME}")));
            (0..junk).for_each(|number| field(&format!("{NAME}=junk{number}")));
            field(&good);
            let seen = Mutex::new(None);
            let response = world
                .send(request, |session| {
                    *seen.lock().unwrap() = session.get::<String>("a")?;
                    Ok(status(200))
                })
                .await;
            assert_eq!(seen.lock().unwrap().is_some(), is_found, "{junk} before, among {others}");
            assert_eq!(set_cookies(response.headers()), [""; 0]);
            let events = world.events.take();
            assert_eq!(events.contains(&"too_many_candidates".to_owned()), !is_found);
            assert!(events.len() <= 5, "{} events", events.len());
        }
    });
}

// An attacker who can write to the backend, or set a clock.

/// Sealing covers a value, and not the deadline of its entry. An attacker who moves that defeats the idle timeout, and not the
/// absolute one.
#[test]
fn t78_a_deadline_that_an_attacker_moves_ends_at_the_absolute_timeout() {
    block_on(async {
        for seals in [false, true] {
            let (rows, clock, events) = (Rows::default(), FakeClock::at(START), Events::new());
            let builder = ServerStore::with_backend(rows.clone())
                .idle_timeout(Duration::from_secs(IDLE))
                .absolute_timeout(Duration::from_secs(ABSOLUTE))
                .clock(clock.clone())
                .observer(events.clone());
            let builder = if seals { builder.seal_records(AppKey::generate().unwrap()) } else { builder };
            let world = TestStore { store: Arc::new(builder.build().unwrap()), clock, events };
            let jar = world.jar().await;
            let moved = hyper_session::Timestamp::from_unix(u64::MAX);
            for (age, is_alive) in [(ABSOLUTE - 1, true), (ABSOLUTE, false), (100 * ABSOLUTE, false)] {
                rows.with(|table| table.rows.values_mut().for_each(|row| row.expires = moved));
                world.clock.set(START + age);
                assert_eq!(world.value(&jar).await.is_some(), is_alive, "after {age} s, sealed: {seals}");
            }
        }
    });
}

/// A host whose clock is set ahead records logins in the future. On the other hosts they are not recent for all that time.
#[test]
fn a_login_by_a_clock_that_is_ahead_is_not_recent_for_hours() {
    let recent = Duration::from_secs(300);
    let is_recent = |world: &TestStore, jar: &Jar| {
        let seen = Mutex::new(None);
        let request = request("/", jar.header().as_deref());
        block_on(world.send(request, |session| {
            *seen.lock().unwrap() = session.subject().map(|_| session.authenticated_within(recent));
            Ok(status(200))
        }));
        seen.into_inner().unwrap()
    };
    for (ahead, counts) in [(0, true), (60, true), (61, false), (3_600, false)] {
        let rows = Rows::default();
        let (there, here) = (Options::default().over(&rows), Options::default().over(&rows));
        there.clock.set(START + ahead);
        let mut jar = Jar::new();
        let log_in = |session: &hyper_session::Session| {
            session.login("ada")?;
            assert!(session.authenticated_within(recent), "in the request of the login");
            Ok(())
        };
        block_on(there.edit(&mut jar, log_in));
        assert_eq!(is_recent(&there, &jar), Some(true));
        assert_eq!(is_recent(&here, &jar), Some(counts), "{ahead} s ahead");
    }
    // A login that its user approves on another device is late, and not ahead.
    let world = Options::default().over(&Rows::default());
    let (clock, mut jar) = (world.clock.clone(), Jar::new());
    block_on(world.edit(&mut jar, move |session| {
        clock.advance(Duration::from_secs(600));
        session.login("ada")?;
        assert!(session.authenticated_within(recent));
        Ok(())
    }));
    assert_eq!(is_recent(&world, &jar), Some(true));
}

// An attacker who chooses the names of accounts.

/// The counters of revocations are shared. Four users whose names share those of a fifth one must not use them up: the fifth one's
/// `regenerate` would revoke nothing, and a cookie that was copied before would stay.
#[test]
fn t25_users_who_choose_their_names_do_not_use_up_the_revocations_of_another() {
    const LIMIT: u16 = 3;
    // docs/WIRE.md has the hash. The counters are those of an unkeyed sketch of four rows with so many columns.
    const COLUMNS: u128 = 1 << 14;
    let name = |subject: &str| {
        let hash =
            sha2::Sha256::new().chain_update(b"hyper-session revoked subject v1\0\0").chain_update(subject);
        u128::from_be_bytes(hash.finalize()[..16].try_into().unwrap())
    };
    let column = |subject: &str, row: u32| (name(subject) >> (32 * row) & 0xffff_ffff) % COLUMNS;
    let victim = "ada@example.com";
    let mut mallory: [Option<String>; 4] = [const { None }; 4];
    for number in 0.. {
        let user = format!("mallory+{number}@example.com");
        for (row, chosen) in (0..).zip(&mut mallory) {
            if chosen.is_none() && column(&user, row) == column(victim, row) {
                *chosen = Some(user.clone());
            }
        }
        if mallory.iter().all(Option::is_some) {
            break;
        }
    }
    let revocations = Revocations::in_memory().max_per_subject(LIMIT).max_revocations(100);
    let builder = CookieStore::builder(AppKey::generate().unwrap()).revocations(revocations);
    let store = builder.clock(FakeClock::at(START)).build().unwrap();
    let visit = |cookies: &mut Cookies, path: &str| {
        let service = session_fn(store.clone(), |request: Request<()>, handle: SessionHandle| async move {
            let session = handle.load().await?;
            let seen = session.subject().map(String::from);
            match request.uri().path().trim_start_matches('/') {
                "look" => {}
                "logout" => session.destroy()?,
                "regenerate" => session.regenerate()?,
                user => session.login(user)?,
            }
            Ok::<_, Error>(Response::new(seen))
        });
        let mut request = Request::builder().uri(path).body(()).unwrap();
        request.headers_mut().extend(cookies.header().map(|cookies| (COOKIE, cookies)));
        let response = block_on(service.call(request)).unwrap();
        cookies.receive(response.headers());
        response.into_body()
    };
    for user in mallory.iter().flatten() {
        for _ in 0..=LIMIT {
            let mut cookies = Cookies::new();
            visit(&mut cookies, &format!("/{user}"));
            visit(&mut cookies, "/logout");
        }
    }
    let mut cookies = Cookies::new();
    visit(&mut cookies, &format!("/{victim}"));
    let mut copy = cookies.clone();
    visit(&mut cookies, "/regenerate");
    assert_eq!(visit(&mut copy, "/look"), None, "the id from before is revoked");
    assert_eq!(visit(&mut cookies, "/look").as_deref(), Some(victim));
}

// Other values under the name of the session's cookie.

/// The challenge that a login offers is sealed by the same key, and so is the value of a bound cookie.
#[cfg(feature = "device-bound")]
#[test]
fn t08_neither_a_challenge_nor_a_bound_cookie_is_a_session() {
    use hyper_session::{DeviceBound, Refusal};

    let events = Events::new();
    let builder = CookieStore::builder(AppKey::generate().unwrap()).device_bound(DeviceBound::new());
    let store = builder.clock(FakeClock::at(START)).observer(events.clone()).build().unwrap();
    let service = session_fn(store, |request: Request<Body>, handle: SessionHandle| async move {
        let session = handle.load().await?;
        let seen = session.subject().map(String::from).unwrap_or_default();
        if request.uri().path() == "/login" {
            session.login("ada")?;
        }
        Ok::<_, Error>(Response::new(Body::from(seen)))
    })
    .device_bound(Body::new);
    let login = block_on(service.call(request("/login", None))).unwrap();
    let offer = login.headers()["secure-session-registration"].to_str().unwrap().to_owned();
    let challenge = offer.split("challenge=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let token = pair(&login, NAME).split_once('=').unwrap().1.to_owned();
    events.take();
    // As long as the value of a bound cookie, with a version and a key that are known.
    let short: String = token.chars().take(56).collect();
    for (value, why) in [(challenge, Refusal::Signature), (&short, Refusal::Length)] {
        let response = block_on(service.call(request("/", Some(&format!("{NAME}={value}"))))).unwrap();
        assert_eq!(events.take(), [crate::support::refused(why)]);
        assert_eq!(block_on(text(response)), "");
    }
    // Nor is a session a challenge: a proof over it is none.
    let mut proof = Request::post("/device-bound/register").body(Body::default()).unwrap();
    proof.headers_mut().insert(COOKIE, HeaderValue::from_str(&format!("{NAME}={token}")).unwrap());
    let jws = format!("\"e30.{token}.AAAA\"");
    proof.headers_mut().insert("secure-session-response", HeaderValue::from_str(&jws).unwrap());
    let refused = block_on(service.call(proof)).unwrap();
    assert_eq!(refused.status().as_u16(), 400);
    assert!(set_cookies(refused.headers()).is_empty());
}

// Files.

/// A reader of the log that can guess the names of users learns when their sessions were ended.
#[cfg(all(unix, feature = "sqlite"))]
#[test]
fn t74_the_file_of_revocations_is_readable_by_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;

    let folder = std::env::temp_dir().join(format!("hyper-session-reading-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("revocations.db");
    block_on(async {
        let revocations = Revocations::sqlite(&path).await.unwrap();
        revocations.end_sessions_of("ada").await.unwrap();
        for name in ["revocations.db", "revocations.db-wal", "revocations.db-shm"] {
            let mode = std::fs::metadata(folder.join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    });
    std::fs::remove_dir_all(&folder).unwrap();
}
