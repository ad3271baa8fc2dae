//! Cookies of one name in several scopes: a former `Domain`, `Path`, partition or name beside the present one, and cookies of
//! other hosts and applications. The newest authentic one counts, and ending ends them all.

use std::sync::Arc;
use std::time::Duration;

use http::header::HOST;
use http::{Request, Response};
use hyper::service::{Service, service_fn};
use hyper_session::cookie::{CookieOptions, SameSite};
use hyper_session::store::{Memory, Store};
use hyper_session::testing::{FakeClock, with_session};
use hyper_session::{
    AppKey, CookieStore, Error, Keyring, Refusal, Revocations, ServerStore, Session, SessionExt,
    SessionHandle, SessionService, session_fn,
};

use crate::attack_fixture::{KINDS, Kind, Options, Rows, START, TestStore};
use crate::browser::Browser;
use crate::support::{Body, Jar, block_on, is_session, refused, request, set_cookies, status};

const APP: &str = "app.example.com";

/// One deployment of a service on [`APP`]: the same keys and entries, other cookie options.
struct Deployment {
    world: TestStore,
}

/// The state that all deployments share.
#[derive(Clone)]
struct Shared {
    kind: Kind,
    keys: Keyring,
    rows: Rows,
}

impl Shared {
    fn new(kind: Kind) -> Self {
        Self { kind, keys: AppKey::generate().unwrap().into(), rows: Rows::default() }
    }

    /// A deployment with these options, at this second.
    fn deploy(&self, cookie: CookieOptions, second: u64) -> Deployment {
        let options = Options { cookie, keys: self.keys.clone(), ..Options::default() };
        let world = match self.kind {
            Kind::Cookie => options.build(Kind::Cookie),
            Kind::Memory => options.over(&self.rows),
        };
        world.clock.set(START + second);
        Deployment { world }
    }
}

fn who(session: &Session) -> String {
    session.subject().map(String::from).unwrap_or_default()
}

async fn act(request: Request<Body>) -> Result<Response<Body>, Error> {
    let session = request.session().await?;
    let seen = who(&session);
    match request.uri().path().rsplit('/').next().unwrap_or_default() {
        "logout" => session.destroy()?,
        "clear" => session.clear()?,
        "again" => {
            session.destroy()?;
            session.set("cart", 1)?;
        }
        "set" => session.set("n", 1)?,
        "notice" => session.set_flash("notice", 1)?,
        "shown" => drop(session.flash::<u8>("notice")?),
        "regenerate" => session.regenerate()?,
        "" | "look" => {}
        user => session.login(user)?,
    }
    Ok(Response::new(Body::from(seen)))
}

impl Deployment {
    /// A request by this browser. Returns whose session the handler was shown.
    fn visit(&self, browser: &mut Browser, path: &str) -> String {
        self.visit_in_order(browser, path, false)
    }

    /// The same for another host.
    fn visit_at(&self, host: &str, browser: &mut Browser, path: &str) -> String {
        let response = self.send_to(host, browser.header(host, path, false).as_deref(), path);
        browser.receive(host, response.headers());
        block_on(crate::support::text(response))
    }

    fn visit_in_order(&self, browser: &mut Browser, path: &str, reverse: bool) -> String {
        let response = self.send(browser.header(APP, path, reverse).as_deref(), path);
        browser.receive(APP, response.headers());
        block_on(crate::support::text(response))
    }

    fn send(&self, cookie: Option<&str>, path: &str) -> Response<Body> {
        self.send_to(APP, cookie, path)
    }

    fn send_to(&self, host: &str, cookie: Option<&str>, path: &str) -> Response<Body> {
        let mut request = crate::support::request(path, cookie);
        request.headers_mut().insert(HOST, host.parse().unwrap());
        let service = SessionService::new(service_fn(act), std::sync::Arc::clone(&self.world.store));
        block_on(service.call(request)).unwrap()
    }

    /// Whose session the handler is shown, in a browser that keeps nothing of the answer, whatever the order of cookies.
    fn sees(&self, browser: &Browser) -> String {
        let seen = [false, true].map(|reverse| self.visit_in_order(&mut browser.clone(), "/look", reverse));
        assert_eq!(seen[0], seen[1], "depends on the order of cookies: {browser:?}");
        self.world.events.take();
        seen[0].clone()
    }
}

fn options() -> CookieOptions {
    CookieOptions::new().name("__Secure-s")
}

/// Pairs of options before and after a deployment, whose cookies browsers keep side by side.
fn changes() -> Vec<(&'static str, CookieOptions, CookieOptions)> {
    let embedded = || options().same_site(SameSite::None);
    vec![
        ("a Domain is added", options(), options().domain("example.com")),
        ("a Domain is dropped", options().domain("example.com"), options()),
        ("a Domain is narrowed", options().domain("example.com"), options().domain(APP)),
        ("a Domain is widened", options().domain(APP), options().domain("example.com")),
        ("a Path is added", options(), options().path("/area")),
        ("a Path is dropped", options().path("/area"), options()),
        ("Domain and Path", options().domain("example.com").path("/area"), options()),
        ("it is partitioned", embedded(), embedded().partitioned(true)),
        ("it is no longer partitioned", embedded().partitioned(true), embedded()),
        ("it is no longer embedded", embedded().partitioned(true), options()),
    ]
}

fn everywhere(scenario: impl Fn(&Shared, &str, CookieOptions, CookieOptions)) {
    for kind in KINDS {
        for (what, before, after) in changes() {
            println!("{kind:?}: {what}"); // shown if the scenario fails
            scenario(&Shared::new(kind), what, before, after);
        }
    }
}

/// Below the path of all options.
const LOOK: &str = "/area/look";

// Two cookies side by side: the login before the deployment, and the login after it. The user of the later login counts.
#[test]
fn t64_the_latest_login_counts_whatever_the_order_of_cookies() {
    everywhere(|shared, what, before, after| {
        let mut browser = Browser::default();
        let (old, new) = (shared.deploy(before, 0), shared.deploy(after, 10));
        old.visit(&mut browser, "/area/ada");
        // As a second tab would: without the old cookie in the request, so that nothing ends ada's session.
        let mut other = Browser::default();
        new.visit(&mut other, "/area/bob");
        browser.kept.extend(other.kept);
        assert_eq!(browser.kept.len(), 2, "{what}");
        for reverse in [false, true] {
            let mut browser = browser.clone();
            assert_eq!(new.visit_in_order(&mut browser, LOOK, reverse), "bob", "{what}");
            assert_eq!(new.world.events.take(), ["several_sessions:2:differ"], "{what}");
            // And the other way round, by a deployment that is taken back.
            assert_eq!(old.visit_in_order(&mut browser, LOOK, reverse), "bob", "{what}");
        }
    });
}

// The user of the cookie changes: another user logs in, in the same browser, with one cookie in the request.
#[test]
fn t64_a_login_replaces_the_user_of_a_former_scope() {
    everywhere(|shared, what, before, after| {
        let mut browser = Browser::default();
        shared.deploy(before, 0).visit(&mut browser, "/area/ada");
        let new = shared.deploy(after, 10);
        assert_eq!(new.visit(&mut browser, "/area/bob"), "ada", "{what}");
        for _ in 0..3 {
            assert_eq!(new.visit(&mut browser, LOOK), "bob", "{what}: {browser:?}");
        }
        new.visit(&mut browser, "/area/logout");
        assert_eq!(new.visit(&mut browser, LOOK), "", "{what}: {browser:?}");
    });
}

// One cookie, of a former scope: the row of a deployment that changes the scope, and a user who logs out.
#[test]
fn t27_a_logout_ends_the_session_of_a_former_scope() {
    everywhere(|shared, what, before, after| {
        let mut browser = Browser::default();
        shared.deploy(before, 0).visit(&mut browser, "/area/ada");
        let new = shared.deploy(after, 10);
        assert_eq!(new.visit(&mut browser, "/area/logout"), "ada");
        assert_eq!(new.visit(&mut browser, LOOK), "", "{what}: {browser:?}");
        assert_eq!(browser.kept, [], "{what}");
    });
}

// Browsers accept hosts of many labels, and hosts with an underscore, which no Domain can have.
#[test]
fn t27_a_logout_ends_the_session_of_a_former_domain_of_any_host() {
    for host in ["pr-12.review.eu.app.example.com", "my_app.example.com"] {
        for kind in KINDS {
            let shared = Shared::new(kind);
            let mut browser = Browser::default();
            shared.deploy(options().domain("example.com"), 0).visit_at(host, &mut browser, "/ada");
            let new = shared.deploy(options(), 10);
            assert_eq!(new.visit_at(host, &mut browser, "/logout"), "ada");
            assert_eq!(new.visit_at(host, &mut browser, "/look"), "", "{host}: {browser:?}");
            assert_eq!(browser.kept, [], "{host}");
        }
    }
}

// The cookie of a retired name may have had a scope that no option names.
#[test]
fn t27_a_logout_ends_the_session_of_a_retired_name_in_a_former_scope() {
    for kind in KINDS {
        for old in ["old", "__Secure-old"] {
            for present in [CookieOptions::new(), options()] {
                let before = || CookieOptions::new().name(old);
                for before in [
                    before().domain("example.com"),
                    before().path("/area"),
                    before().same_site(SameSite::None).partitioned(true),
                ] {
                    let shared = Shared::new(kind);
                    let mut browser = Browser::default();
                    shared.deploy(before, 0).visit(&mut browser, "/area/ada");
                    let new = shared.deploy(present.clone().retired_name(old), 10);
                    assert_eq!(new.visit(&mut browser, "/area/logout"), "ada");
                    assert_eq!(new.visit(&mut browser, LOOK), "", "{browser:?}");
                    assert_eq!(browser.kept, []);
                }
            }
        }
    }
}

// Several cookies under the present name and a retired one have more scopes than a response has lines. Each name has its likeliest.
#[test]
fn t27_a_logout_ends_the_sessions_of_all_names_in_their_likeliest_former_scopes() {
    const HOST: &str = "pr-12.review.app.example.com";
    for kind in KINDS {
        let shared = Shared::new(kind);
        let mut browser = Browser::default();
        let former = |name: &str| CookieOptions::new().name(name).domain("example.com");
        shared.deploy(former("__Secure-old"), 0).visit_at(HOST, &mut browser, "/a/b/c/d/ada");
        shared.deploy(former("__Secure-s"), 1).visit_at(HOST, &mut browser, "/a/b/c/d/bob");
        let present = CookieOptions::new().name("__Secure-s").retired_name("__Secure-old");
        let new = shared.deploy(present, 10);
        assert_eq!(new.visit_at(HOST, &mut browser, "/a/b/c/d/logout"), "bob");
        assert_eq!(new.visit_at(HOST, &mut browser, "/a/b/c/d/look"), "", "{kind:?}");
        // Of several sessions in cookies, a tombstone stays in the present scope.
        assert!(browser.kept.iter().all(|kept| kept.scope.host_only), "{kind:?}: {browser:?}");
    }
}

// A page that shows a visitor's notice is not a logout. The cookie of another scope, which this host cannot judge, stays.
#[test]
fn a_notice_that_is_shown_removes_no_cookie_of_another_scope() {
    let (old, new) = (AppKey::generate().unwrap().to_text(), AppKey::generate().unwrap().to_text());
    let key = |text: &str| text.parse::<AppKey>().unwrap();
    let both = || Keyring::new(key(&new)).accept(key(&old));
    let ahead =
        Shared { keys: both(), ..Shared::new(Kind::Cookie) }.deploy(options().domain("example.com"), 0);
    let behind = Shared { keys: key(&old).into(), ..Shared::new(Kind::Cookie) }.deploy(options(), 10);
    let (mut browser, mut other) = (Browser::default(), Browser::default());
    ahead.visit(&mut browser, "/ada");
    behind.visit(&mut other, "/notice");
    browser.kept.extend(other.kept);
    let response = behind.send(browser.header(APP, "/shown", false).as_deref(), "/shown");
    assert_eq!(set_cookies(response.headers()).len(), 1, "{:?}", set_cookies(response.headers()));
    browser.receive(APP, response.headers());
    assert_eq!(browser.kept.len(), 1, "the notice was shown: {browser:?}");
    assert_eq!(ahead.visit(&mut browser, "/look"), "ada");
}

// The clock of one host is two minutes behind. The newer cookie is authentic, so the older one does not count there.
#[test]
fn a_session_from_a_host_whose_clock_is_ahead_hides_older_ones() {
    let shared = Shared::new(Kind::Cookie);
    let mut browser = Browser::default();
    shared.deploy(options().domain("example.com"), 0).visit(&mut browser, "/ada");
    let ahead = shared.deploy(options(), 200);
    let mut other = Browser::default();
    ahead.visit(&mut other, "/bob");
    browser.kept.extend(other.kept);
    let behind = shared.deploy(options(), 80);
    for path in ["/look", "/look"] {
        let before = browser.clone();
        assert_eq!(behind.visit(&mut browser, path), "", "neither user is shown");
        assert_eq!(browser.kept, before.kept);
    }
    assert_eq!(ahead.visit(&mut browser, "/look"), "bob");
    // So does a logout there.
    let mut left = browser.clone();
    let stubborn = left.kept[0].clone();
    ahead.visit(&mut left, "/logout");
    left.kept.push(stubborn);
    assert_eq!(behind.visit(&mut left, "/look"), "");
    assert_eq!(ahead.visit(&mut left, "/look"), "");
    // And a logout on a host behind, whether or not the browser keeps the older cookie.
    let mut left = browser.clone();
    let stubborn = left.kept[0].clone();
    behind.visit(&mut left, "/logout");
    left.kept.push(stubborn);
    assert_eq!(behind.visit(&mut left, "/look"), "");
    assert_eq!(ahead.visit(&mut left, "/look"), "");
    // A host behind ends both, too, by removing what it can, and the next login counts there.
    behind.visit(&mut browser, "/logout");
    assert_eq!(ahead.visit(&mut browser.clone(), "/look"), "", "{browser:?}");
    behind.visit(&mut browser, "/cleo");
    assert_eq!(behind.visit(&mut browser, "/look"), "cleo");
}

// Copies of both tokens are dead, whether or not a browser obeys the response.
#[test]
fn a_logout_on_a_host_whose_clock_is_behind_revokes_all_that_the_request_brought() {
    let clock = FakeClock::at(START);
    let builder = CookieStore::builder(AppKey::generate().unwrap()).revocations(Revocations::in_memory());
    let store: Arc<dyn Store> = Arc::new(builder.cookie(options()).clock(clock.clone()).build().unwrap());
    let ada = send_tokens(&store, &[], "/ada").0.unwrap();
    clock.set(START + 200);
    let bob = send_tokens(&store, &[], "/bob").0.unwrap();
    clock.set(START + 80);
    assert_eq!(send_tokens(&store, &[&ada, &bob], "/look").1, "");
    assert_eq!(send_tokens(&store, &[&ada], "/look").1, "ada");
    assert_eq!(send_tokens(&store, &[&ada, &bob], "/logout").1, "");
    for second in [80, 200] {
        clock.set(START + second);
        assert_eq!(send_tokens(&store, &[&ada], "/look").1, "", "{second}");
        assert_eq!(send_tokens(&store, &[&bob], "/look").1, "", "{second}");
    }
}

// A tombstone in one scope hides a session that did not come with that logout, from an unknown scope. The next logout ends it.
#[test]
fn a_logout_ends_a_session_that_a_tombstone_hides() {
    let clock = FakeClock::at(START);
    let builder = CookieStore::builder(AppKey::generate().unwrap()).revocations(Revocations::in_memory());
    let store: Arc<dyn Store> = Arc::new(builder.cookie(options()).clock(clock.clone()).build().unwrap());
    let [ada, bob, cleo] = ["/ada", "/bob", "/cleo"].map(|path| send_tokens(&store, &[], path).0.unwrap());
    clock.set(START + 1);
    let tombstone = send_tokens(&store, &[&bob, &cleo], "/logout").0.unwrap();
    assert_eq!(send_tokens(&store, &[&tombstone, &ada], "/look"), (None, String::new()));
    assert_eq!(send_tokens(&store, &[&ada], "/look").1, "ada");
    let (next, seen) = send_tokens(&store, &[&tombstone, &ada], "/logout");
    assert_eq!(seen, "");
    assert!(next.is_some_and(|next| next != tombstone), "a newer one");
    assert_eq!(send_tokens(&store, &[&ada], "/look").1, "");
}

// A readable session beside one that has expired here, or whose entry another host reads: the logout ends both.
#[test]
fn a_logout_ends_what_this_host_cannot_use_beside_the_session() {
    let (clock, rows) = (FakeClock::at(START), Rows::default());
    let builder = ServerStore::with_backend(rows.clone()).cookie(options()).clock(clock.clone());
    let store: Arc<dyn Store> = Arc::new(builder.build().unwrap());
    let ada = send_tokens(&store, &[], "/ada").0.unwrap();
    let entry = rows.with(|table| *table.rows.iter().find(|row| is_session(&row.1.value)).unwrap().0);
    clock.advance(Duration::from_secs(24 * 3600));
    let bob = send_tokens(&store, &[], "/bob").0.unwrap();
    assert_eq!(send_tokens(&store, &[&ada, &bob], "/look").1, "bob");
    assert!(rows.with(|table| table.rows.contains_key(&entry)), "a slow request may use it");
    assert_eq!(send_tokens(&store, &[&ada, &bob], "/logout").1, "bob");
    assert!(!rows.with(|table| table.rows.contains_key(&entry)));
}

/// A request with these tokens. Returns the token that the response sets, and whose session the handler was shown.
fn send_tokens(store: &Arc<dyn Store>, tokens: &[&str], path: &str) -> (Option<String>, String) {
    let pairs: Vec<_> = tokens.iter().map(|token| format!("__Secure-s={token}")).collect();
    let mut request =
        request(path, Some(&pairs.join("; ")).filter(|pairs| !pairs.is_empty()).map(|pairs| &**pairs));
    request.headers_mut().insert(HOST, APP.parse().unwrap());
    let response = block_on(SessionService::new(service_fn(act), Arc::clone(store)).call(request)).unwrap();
    let lines = set_cookies(response.headers());
    let mut values = lines.iter().filter_map(|line| line.strip_prefix("__Secure-s=")?.split(';').next());
    let set = values.find(|token| !token.is_empty()).map(str::to_owned);
    (set, block_on(crate::support::text(response)))
}

// A clock that was wrong by far must not keep users from logging in once it was set.
#[test]
fn a_session_from_a_faulty_clock_hides_nothing() {
    let shared = Shared::new(Kind::Cookie);
    let mut browser = Browser::default();
    shared.deploy(options().domain("example.com"), 100_000).visit(&mut browser, "/ada");
    let new = shared.deploy(options(), 0);
    assert_eq!(new.visit(&mut browser, "/bob"), "");
    assert_eq!(browser.kept.len(), 2);
    assert_eq!(new.visit(&mut browser, "/look"), "bob");
}

// A session that a logout hid stays hidden, and a login counts, in one second and on a host whose clock is behind.
#[test]
fn a_login_is_newer_than_all_that_the_request_brought() {
    for clock in [10, 9, 0] {
        let shared = Shared::new(Kind::Cookie);
        let deployment = shared.deploy(options(), 10);
        let (mut stubborn, mut browser) = (Browser::default(), Browser::default());
        deployment.visit(&mut stubborn, "/ada");
        deployment.visit(&mut browser, "/bob");
        let both = |browser: &Browser| Browser { kept: [&browser.kept[..], &stubborn.kept[..]].concat() };
        let header = both(&browser).header(APP, "/", false);
        browser.receive(APP, deployment.send(header.as_deref(), "/logout").headers());
        assert_eq!(deployment.sees(&both(&browser)), "");
        deployment.world.clock.set(START + clock);
        let header = both(&browser).header(APP, "/", false);
        browser.receive(APP, deployment.send(header.as_deref(), "/cleo").headers());
        assert_eq!(deployment.sees(&both(&browser)), "cleo", "the clock goes to {clock}");
    }
}

// A tombstone is kept as long as what it hides, whatever the options say of session cookies now.
#[test]
fn a_tombstone_outlives_the_cookies_that_it_hides() {
    let shared = Shared::new(Kind::Cookie);
    let (mut one, mut two) = (Browser::default(), Browser::default());
    let old = shared.deploy(options(), 0);
    old.visit(&mut one, "/ada");
    old.world.clock.set(START + 1);
    old.visit(&mut two, "/bob");
    one.kept.extend(two.kept);
    let new = shared.deploy(options().max_age(None), 10);
    let response = new.send(one.header(APP, "/", false).as_deref(), "/logout");
    let lines = set_cookies(response.headers());
    let ages = lines.last().unwrap().split("; ").filter_map(|part| part.strip_prefix("Max-Age="));
    let ages: Vec<u64> = ages.map(|age| age.parse().unwrap()).collect();
    assert_eq!(ages, [crate::attack_fixture::IDLE - 9], "{lines:?}");
}

// The present cookie is not sent everywhere: a dead one of a retired name says nothing of it.
#[test]
fn a_dead_cookie_of_a_retired_name_leaves_the_present_one() {
    let shared = Shared::new(Kind::Cookie);
    let mut old = Browser::default();
    shared.deploy(CookieOptions::new().name("old"), 0).visit(&mut old, "/ada");
    let new = shared.deploy(CookieOptions::new().same_site(SameSite::Strict).retired_name("old"), 0);
    new.world.clock.advance(Duration::from_secs(crate::attack_fixture::IDLE));
    let mut present = Browser::default();
    new.visit(&mut present, "/bob");
    let mut browser = old.clone();
    browser.kept.extend(present.kept);
    // A link from another site brings the cookie that is not strict.
    let response = new.send(old.header(APP, "/", false).as_deref(), "/look");
    browser.receive(APP, response.headers());
    assert_eq!(browser.names(), ["__Host-session"], "{browser:?}");
    assert_eq!(new.visit(&mut browser, "/look"), "bob");
}

// Two authentic cookies: a logout ends both, in the browser and on the server, and it stays so.
#[test]
fn t27_a_logout_ends_all_sessions_that_the_request_brought() {
    for ending in ["/area/logout", "/area/clear", "/area/again"] {
        everywhere(|shared, what, before, after| {
            let mut browser = Browser::default();
            shared.deploy(before, 0).visit(&mut browser, "/area/ada");
            let mut other = Browser::default();
            let new = shared.deploy(after, 10);
            new.visit(&mut other, "/area/bob");
            browser.kept.extend(other.kept);
            let tokens: Vec<_> = browser.kept.iter().map(|kept| kept.value.clone()).collect();
            for second in [20, 30] {
                new.world.clock.set(START + second);
                new.visit(&mut browser, ending);
                assert_eq!(new.visit(&mut browser, LOOK), "", "{ending}, {what}: {browser:?}");
            }
            if shared.kind == Kind::Memory {
                // On the server nothing is left of them for an attacker who has a copy of a token.
                for token in tokens {
                    let seen = new.send(Some(&format!("__Secure-s={token}")), LOOK);
                    assert_eq!(block_on(crate::support::text(seen)), "", "{what}");
                }
            }
        });
    }
}

// A cookie that a browser cannot be told to drop, since no option and no request says its scope: it comes again, and does
// not count.
#[test]
fn t27_a_logout_stays_although_the_former_cookie_comes_again() {
    for kind in KINDS {
        let shared = Shared::new(kind);
        let deployment = shared.deploy(options(), 0);
        let mut stubborn = Browser::default();
        deployment.visit(&mut stubborn, "/ada");
        deployment.world.clock.set(START + 10);
        let mut browser = Browser::default();
        deployment.visit(&mut browser, "/bob");
        // Whatever the server says, this one comes again.
        let header = |browser: &Browser| {
            let mut pairs: Vec<String> = browser.header(APP, "/look", false).into_iter().collect();
            pairs.push(format!("__Secure-s={}", stubborn.kept[0].value));
            pairs
        };
        let both = header(&browser).join("; ");
        let response = deployment.send(Some(&both), "/logout");
        browser.receive(APP, response.headers());
        for second in [10, 11, 500] {
            deployment.world.clock.set(START + second);
            let mut pairs = header(&browser);
            for _ in 0..2 {
                let response = deployment.send(Some(&pairs.join("; ")), "/look");
                // A read must not undo it: neither remove the tombstone, nor renew what it hides.
                browser.receive(APP, response.headers());
                assert_eq!(block_on(crate::support::text(response)), "", "{kind:?} at {second}");
                pairs.reverse();
            }
        }
        // A login counts again.
        let pairs = header(&browser).join("; ");
        let response = deployment.send(Some(&pairs), "/cleo");
        browser.receive(APP, response.headers());
        for _ in 0..2 {
            let mut pairs = header(&browser);
            pairs.reverse();
            let response = deployment.send(Some(&pairs.join("; ")), "/look");
            assert_eq!(block_on(crate::support::text(response)), "cleo", "{kind:?}");
        }
    }
}

// In one second, the order of writing counts: a save beside a logout was not written after it.
#[test]
fn t27_a_tombstone_hides_exactly_what_was_not_written_after_it() {
    let deployment = Shared::new(Kind::Cookie).deploy(options(), 0);
    let cookie_after = |cookies: Option<&str>, path| {
        let mut browser = Browser::default();
        browser.receive(APP, deployment.send(cookies, path).headers());
        browser.header(APP, "/look", false).unwrap()
    };
    let (ada, bob) = (cookie_after(None, "/ada"), cookie_after(None, "/bob"));
    let both = format!("{ada}; {bob}");
    let (saved, tombstone) = (cookie_after(Some(&both), "/set"), cookie_after(Some(&both), "/logout"));
    deployment.world.clock.set(START + 1);
    let cleo = cookie_after(Some(&both), "/cleo");
    for (cookie, seen) in [(ada, ""), (bob, ""), (saved, ""), (cleo, "cleo")] {
        for header in [format!("{tombstone}; {cookie}"), format!("{cookie}; {tombstone}")] {
            let response = deployment.send(Some(&header), "/look");
            assert_eq!(block_on(crate::support::text(response)), seen);
        }
    }
}

// Among cookies that were not tried, a newer session may be.
#[test]
fn t64_beside_cookies_that_were_not_tried_a_session_is_not_renewed() {
    block_on(async {
        let world = TestStore::new(Kind::Cookie);
        let name = crate::attack_fixture::NAME;
        let genuine = world.token().await;
        world.clock.advance(Duration::from_secs(crate::attack_fixture::IDLE / 2));
        let (before, after) = genuine.split_at(100);
        let forged = |letter: &char| !after.starts_with(*letter);
        let tokens: Vec<String> = std::iter::once(genuine.clone())
            .chain(('A'..).filter(forged).take(4).map(|letter| format!("{before}{letter}{}", &after[1..])))
            .collect();
        for (tried, renewed) in [(1, 1), (4, 1), (5, 0)] {
            let pairs: Vec<String> = tokens[..tried].iter().map(|token| format!("{name}={token}")).collect();
            let header = pairs.join("; ");
            let (seen, response) = world.present(header.as_bytes()).await;
            assert!(seen.is_some());
            assert_eq!(set_cookies(response.headers()).len(), renewed, "{tried} cookies");
        }
    });
}

// Reading with both cookies renews the newer session, and never sets the older one over it.
#[test]
fn a_renewal_never_covers_a_newer_session() {
    everywhere(|shared, what, before, after| {
        let mut browser = Browser::default();
        let (old, new) = (shared.deploy(before, 0), shared.deploy(after, 10));
        old.visit(&mut browser, "/area/ada");
        let mut other = Browser::default();
        new.visit(&mut other, "/area/bob");
        browser.kept.extend(other.kept);
        for (second, reverse) in [(300, false), (600, true), (900, false), (1_200, true)] {
            for deployment in [&new, &old] {
                deployment.world.clock.set(START + second);
                assert_eq!(
                    deployment.visit_in_order(&mut browser, LOOK, reverse),
                    "bob",
                    "{what} at {second}"
                );
            }
        }
    });
}

// Of two copies of one session the newer one counts: what was set last is there.
#[test]
fn the_newer_copy_of_a_session_counts() {
    block_on(async {
        let world = TestStore::new(Kind::Cookie);
        let mut jar = world.jar().await;
        let mut copies = vec![jar.get(crate::attack_fixture::NAME).unwrap().to_owned()];
        // All in one second, which the clock does not tell apart.
        for value in ["one", "two", "three"] {
            world.edit(&mut jar, move |session| session.set("a", value)).await;
            copies.push(jar.get(crate::attack_fixture::NAME).unwrap().to_owned());
            for (first, second) in
                [(&copies[copies.len() - 2], copies.last().unwrap()), (copies.last().unwrap(), &copies[0])]
            {
                let header = [first, second]
                    .map(|token| format!("{}={token}", crate::attack_fixture::NAME))
                    .join("; ");
                let (seen, _) = world.present(header.as_bytes()).await;
                assert_eq!(seen.as_deref(), Some(value));
                assert_eq!(world.events.take(), ["several_sessions:2:same"]);
            }
        }
        // One user in both.
        world.edit(&mut jar, |session| session.login("ada")).await;
        let before = jar.header().unwrap();
        world.edit(&mut jar, |session| session.set("a", "four")).await;
        world.events.take();
        world.present(format!("{before}; {}", jar.header().unwrap()).as_bytes()).await;
        assert_eq!(world.events.take(), ["several_sessions:2:same"]);
        // The same cookie in two scopes is one.
        let twice = format!("{0}={1}; {0}={1}", crate::attack_fixture::NAME, copies[0]);
        assert!(world.present(twice.as_bytes()).await.0.is_some());
        assert_eq!(world.events.take(), [""; 0]);
    });
}

// A host whose clock is behind writes the session of the newest cookie, or another user logs in there: that stays the newest.
#[test]
fn t64_what_a_host_that_is_behind_writes_is_newer_than_what_it_replaces() {
    everywhere(|shared, what, before, after| {
        for (path, user) in [("/area/set", "bob"), ("/area/regenerate", "bob"), ("/area/carol", "carol")] {
            let host = shared.deploy(before.clone(), 100);
            let (mut browser, mut other) = (Browser::default(), Browser::default());
            host.visit(&mut browser, "/area/bob");
            shared.deploy(after.clone(), 110).visit(&mut other, "/area/ada");
            host.world.clock.set(START + 120);
            host.visit(&mut browser, "/area/regenerate");
            browser.kept.extend(other.kept);
            host.world.clock.set(START + 80);
            assert_eq!(host.visit(&mut browser, path), "bob", "{what}");
            for (second, reverse) in [(80, false), (80, true), (130, false), (130, true)] {
                host.world.clock.set(START + second);
                let seen = host.visit_in_order(&mut browser.clone(), LOOK, reverse);
                assert_eq!(seen, user, "{what}: {path} {second}");
            }
        }
    });
}

// On a server-side store the later write counts, not the later use: a read does not make a session newer.
#[test]
fn on_a_server_the_session_that_was_written_last_counts() {
    let shared = Shared::new(Kind::Memory);
    let deployment = shared.deploy(options(), 0);
    let mut ada = Browser::default();
    deployment.visit(&mut ada, "/ada");
    deployment.world.clock.set(START + 10);
    let mut bob = Browser::default();
    deployment.visit(&mut bob, "/bob");
    let both = |ada: &Browser, bob: &Browser| Browser { kept: [&ada.kept[..], &bob.kept[..]].concat() };
    assert_eq!(deployment.sees(&both(&ada, &bob)), "bob");
    // Ada's is used and renewed where the other cookie is not sent.
    deployment.world.clock.set(START + 600);
    let before = ada.clone();
    assert_eq!(deployment.visit(&mut ada, "/look"), "ada");
    assert_eq!(before.kept, ada.kept, "one token, whose entry was renewed");
    assert_eq!(deployment.sees(&both(&ada, &bob)), "bob");
    // Then she changes something.
    deployment.visit(&mut ada, "/set");
    assert_eq!(deployment.sees(&both(&ada, &bob)), "ada");
}

// Scopes and names of former options are expired by each response that sets or removes the cookie.
#[test]
fn retired_scopes_are_expired_by_the_next_response_that_sets_the_cookie() {
    for kind in KINDS {
        for (before, after) in [
            (options(), options().domain("example.com").retired_host_only()),
            (options().domain("example.com"), options().retired_domain("example.com")),
            (options().path("/area"), options().retired_path("/area")),
            (options().domain(APP).path("/area"), options().retired_domain(APP).retired_path("/area")),
        ] {
            let shared = Shared::new(kind);
            let mut browser = Browser::default();
            shared.deploy(before, 0).visit(&mut browser, "/area/ada");
            // A change is enough, without a logout.
            let new = shared.deploy(after, 10);
            new.visit(&mut browser, "/area/set");
            assert_eq!(browser.kept.len(), 1, "{kind:?}: {browser:?}");
            assert_eq!(new.visit(&mut browser, LOOK), "ada");
            assert_eq!(new.world.events.take(), [""; 0]);
            // And so is a removal.
            new.visit(&mut browser, "/area/logout");
            assert_eq!(browser.kept, []);
        }
    }
}

#[test]
fn a_session_under_a_retired_name_moves_to_the_present_one() {
    let shared = Shared::new(Kind::Cookie);
    let mut browser = Browser::default();
    shared.deploy(CookieOptions::new().name("old").domain("example.com"), 0).visit(&mut browser, "/ada");
    let present =
        CookieOptions::new().retired_name("older").retired_name("old").retired_domain("example.com");
    // In the second of the login, no renewal is due.
    let new = shared.deploy(present, 0);
    assert_eq!(new.visit(&mut browser, "/look"), "ada", "a read is enough");
    assert_eq!(browser.names(), ["__Host-session"], "{browser:?}");
    assert_eq!(new.visit(&mut browser, "/look"), "ada");

    // Of both names the newest counts, and a logout ends both.
    let mut old = Browser::default();
    new.world.clock.set(START + 100);
    let old_deployment = shared.deploy(CookieOptions::new().name("old"), 100);
    old_deployment.visit(&mut old, "/bob");
    browser.kept.extend(old.kept);
    assert_eq!(new.sees(&browser), "bob");
    new.visit(&mut browser, "/logout");
    assert_eq!(browser.names(), ["__Host-session"], "the tombstone: {browser:?}");
    assert_eq!(new.visit(&mut browser, "/look"), "");
    // Only the old cookie, by a client that did not drop it: it has moved, or ended.
    new.world.clock.set(START + 100 + 2 * crate::attack_fixture::IDLE);
    assert_eq!(new.visit(&mut browser, "/look"), "");
    assert_eq!(browser.kept, [], "the tombstone is needed no longer than what it hides");

    // A token opens under the name that it was sealed for, and under no other.
    let mut moved = Browser::default();
    old_deployment.visit(&mut moved, "/cleo");
    "older".clone_into(&mut moved.kept[0].scope.name);
    assert_eq!(new.visit(&mut moved, "/look"), "");
}

// The default of a cookie that no other host can set: a logout is one line, as it always was.
#[test]
fn t27_a_logout_is_one_line_where_no_other_scope_is_possible() {
    for kind in KINDS {
        let shared = Shared::new(kind);
        let deployment = shared.deploy(CookieOptions::new(), 0);
        let mut browser = Browser::default();
        deployment.visit(&mut browser, "/ada");
        let response = deployment.send(browser.header(APP, "/", false).as_deref(), "/logout");
        let lines = set_cookies(response.headers());
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with("__Host-session=; Max-Age=0; "));
    }
}

// The lines of one logout fit in the headers that proxies accept.
#[test]
fn the_lines_of_a_logout_are_bounded() {
    let shared = Shared::new(Kind::Memory);
    let deployment = shared.deploy(CookieOptions::new().name("s").path("/area"), 0);
    let (mut one, mut two) = (Browser::default(), Browser::default());
    deployment.visit(&mut one, "/area/ada");
    deployment.visit(&mut two, "/area/bob");
    let header = format!("s={}; s={}; s.1=x; s.2=y", one.kept[0].value, two.kept[0].value);
    let mut request = crate::support::request("/area/a/b/c/d/logout", Some(&header));
    request.headers_mut().insert(HOST, "a.b.c.d.e.example.com".parse().unwrap());
    let service = SessionService::new(service_fn(act), std::sync::Arc::clone(&deployment.world.store));
    let response = block_on(service.call(request)).unwrap();
    let lines = set_cookies(response.headers());
    assert!(lines.len() <= 17 * 3, "{}", lines.len());
    assert!(lines.iter().map(String::len).sum::<usize>() < 8 * 1024);
    assert!(lines.last().unwrap().starts_with("s.2=; Max-Age=0; "), "the present scope comes last");
}

// B2, B24: a host that cannot judge a cookie leaves it in the browser, and a host that can goes on with it.
#[test]
fn a_cookie_that_a_host_cannot_judge_is_left_alone() {
    let (old_key, new_key) = (AppKey::generate().unwrap().to_text(), AppKey::generate().unwrap().to_text());
    let key = |text: &str| text.parse::<AppKey>().unwrap();
    block_on(async {
        let behind = Options::with_keys(key(&old_key)).build(Kind::Cookie);
        let ahead = Options::with_keys(Keyring::new(key(&new_key)).accept(key(&old_key))).build(Kind::Cookie);
        let name = crate::attack_fixture::NAME;
        let mut jar = ahead.jar().await;
        let genuine = jar.get(name).unwrap().to_owned();
        // A version that only a later release knows: the first six bits of the text are those of its first byte.
        let versions = ["B", "C", "_"].map(|first| format!("{first}{}", &genuine[1..]));
        let others = [
            (genuine.clone(), Refusal::UnknownKey),
            (versions[0].clone(), Refusal::Version),
            (versions[1].clone(), Refusal::Version),
            (versions[2].clone(), Refusal::Version),
            ("eyJhbGciOiJIUzI1NiJ9.e30.c2ln".to_owned(), Refusal::Encoding),
            ("s%3Aabc.def".to_owned(), Refusal::Encoding),
            ("abcd".to_owned(), Refusal::Length),
            (String::new(), Refusal::Length),
            ("A".repeat(40_000), Refusal::Length),
        ];
        for (value, why) in others {
            let (seen, response) = behind.present(format!("{name}={value}").as_bytes()).await;
            assert_eq!(seen, None);
            assert_eq!(behind.events.take(), [refused(why)]);
            assert_eq!(set_cookies(response.headers()), [""; 0], "{why}");
            // A handler that has something to keep gets a session all the same.
            let mut jar = Jar::with(name, &value);
            behind.edit(&mut jar, |session| session.set("a", "mine")).await;
            assert_eq!(behind.value(&jar).await.as_deref(), Some("mine"), "{why}");
            behind.events.take();
        }
        // A clock that is behind, by more than is tolerated.
        ahead.clock.set(START - 61);
        let before = jar.clone();
        ahead.edit(&mut jar, |_| Ok(())).await;
        assert_eq!(ahead.events.take(), [refused(Refusal::IssuedInFuture)]);
        assert_eq!(jar.0, before.0);
        ahead.clock.set(START);
        assert!(ahead.value(&jar).await.is_some(), "no user was logged out");
    });
}

// A user who logs out is logged out, also if the host cannot judge the session: the browser drops the cookie, and a server its entry.
#[test]
fn t27_a_logout_ends_a_session_that_this_host_cannot_judge() {
    let (old, new) = (AppKey::generate().unwrap().to_text(), AppKey::generate().unwrap().to_text());
    let key = |text: &str| text.parse::<AppKey>().unwrap();
    let before = || Keyring::new(key(&old));
    let after = || Keyring::new(key(&new)).accept(key(&old));
    block_on(async {
        // The key is unknown, and the clock is behind.
        for (behind, clock) in [(before(), START), (after(), START - 61)] {
            let ahead = Options::with_keys(after()).build(Kind::Cookie);
            let behind = Options::with_keys(behind).build(Kind::Cookie);
            behind.clock.set(clock);
            let mut jar = ahead.jar().await;
            behind.edit(&mut jar, Session::destroy).await;
            assert_eq!(jar.get(crate::attack_fixture::NAME), None);
        }
        // On a server that seals its entries: no copy of the token leads to the session.
        let memory = Arc::new(Memory::new());
        let store = |keys: Keyring| {
            let builder = ServerStore::with_backend(Arc::clone(&memory)).seal_records(keys);
            builder.cookie(CookieOptions::new().name("__Host-shop")).build().unwrap()
        };
        let (behind, ahead) = (store(before()), store(after()));
        let carried = with_session(Request::new(()), &ahead, |session| session.login("ada")).await.unwrap();
        let cookie = carried.headers()["cookie"].to_str().unwrap().to_owned();
        let logout = session_fn(behind, |_: Request<Body>, handle: SessionHandle| async move {
            handle.load().await?.destroy()?;
            Ok::<_, Error>(status(200))
        });
        let response = logout.call(request("/", Some(&cookie))).await.unwrap();
        assert_eq!(set_cookies(response.headers()).len(), 1);
        let look = session_fn(ahead, |_: Request<Body>, handle: SessionHandle| async move {
            assert!(handle.load().await?.is_empty());
            Ok::<_, Error>(status(200))
        });
        look.call(request("/", Some(&cookie))).await.unwrap();
    });
}

// One cookie that is known to be dead beside one that is not: which of them the removal would hit is not known.
#[test]
fn a_dead_cookie_beside_another_applications_is_not_removed() {
    block_on(async {
        let world = TestStore::new(Kind::Cookie);
        let name = crate::attack_fixture::NAME;
        let jar = world.jar().await;
        let expired = jar.get(name).unwrap();
        world.clock.advance(Duration::from_secs(crate::attack_fixture::IDLE));
        for (header, removed) in [
            (format!("{name}={expired}"), 1),
            (format!("{name}={expired}; {name}=other.application"), 0),
            (format!("{name}=other.application; {name}={expired}"), 0),
        ] {
            let (_, response) = world.present(header.as_bytes()).await;
            assert_eq!(set_cookies(response.headers()).len(), removed, "{header}");
        }
    });
}

/// Ports do not separate cookies. Two servers of a developer have the default name, and each a store of its own.
#[test]
fn b24_a_session_of_another_server_on_localhost_is_left_alone() {
    let store = |name: Option<&str>| {
        let cookie = name.map_or(CookieOptions::new(), |name| CookieOptions::new().name(name));
        ServerStore::with_backend(Memory::new()).development().cookie(cookie).build().unwrap()
    };
    // Other frameworks have tokens of the same form.
    let foreign = "q5YkJ0m1mFq0v0r3Zr9jv2m0vC1fX6k0Zb1nQ0p9abc";
    for (name, removed) in [(None, 0), (Some("shop"), 1)] {
        let (mine, other) = (store(name), store(name));
        let carried =
            block_on(with_session(Request::new(()), &other, |session| session.login("ada"))).unwrap();
        let header = carried.headers()["cookie"].to_str().unwrap().to_owned();
        for header in [header, format!("{}={foreign}", name.unwrap_or("session"))] {
            let look = session_fn(mine.clone(), |_: Request<Body>, handle: SessionHandle| async move {
                assert!(handle.load().await?.is_empty());
                Ok::<_, Error>(status(200))
            });
            let response = block_on(look.call(request("/", Some(&header)))).unwrap();
            assert_eq!(set_cookies(response.headers()).len(), removed, "{header}");
        }
    }
}

// A request outside of the cookie's path did not bring the cookie that a removal would hit.
#[test]
fn a_cookie_planted_outside_of_the_path_removes_nothing_inside() {
    let shared = Shared::new(Kind::Cookie);
    let deployment = shared.deploy(options().path("/area"), 0);
    let mut expired = Browser::default();
    deployment.visit(&mut expired, "/area/mallory");
    deployment.world.clock.set(START + 2 * crate::attack_fixture::IDLE);
    let mut browser = Browser::default();
    deployment.visit(&mut browser, "/area/ada");
    browser.receive_line(
        "evil.example.com",
        &format!("__Secure-s={}; Domain=example.com; Path=/; Secure", expired.kept[0].value),
    );
    deployment.visit(&mut browser, "/look");
    assert_eq!(deployment.visit(&mut browser, LOOK), "ada", "{browser:?}");
}

/// A session that takes several cookies, and another host of the domain that plants chunks of it.
fn chunked(len: usize) -> (TestStore, Jar) {
    let world = TestStore::new(Kind::Cookie);
    let mut jar = Jar::new();
    block_on(world.edit(&mut jar, move |session| session.set("a", filler(len))));
    (world, jar)
}

fn filler(len: usize) -> String {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'a' + u8::try_from((state >> 33) % 26).unwrap())
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn t64_one_planted_chunk_neither_hides_nor_deletes_a_session() {
    let name = crate::attack_fixture::NAME;
    let (world, jar) = chunked(8_000);
    let genuine = jar.header().unwrap();
    assert_eq!(jar.0.len(), 3);
    let full = |number: usize| jar.get(&format!("{name}.{number}")).unwrap().len();
    for number in 1..=3 {
        for value in
            ["x".to_owned(), "planted".to_owned(), "x".repeat(full(1)), "*".to_owned(), String::new()]
        {
            for header in
                [format!("{name}.{number}={value}; {genuine}"), format!("{genuine}; {name}.{number}={value}")]
            {
                let (seen, response) = block_on(world.present(header.as_bytes()));
                assert!(seen.is_some(), "{name}.{number}={value:.10}");
                assert_eq!(set_cookies(response.headers()), [""; 0]);
                assert_eq!(world.events.take(), [""; 0]);
            }
        }
    }
    // More than can be tried, or looked at: the session is not found, and not deleted.
    for planted in [20, 70] {
        let one = |n: usize| format!("{name}.1={n:0>len$}; ", len = full(1));
        let many: String = (0..planted).map(one).collect();
        let (seen, response) = block_on(world.present(format!("{many}{genuine}").as_bytes()));
        assert_eq!((seen, set_cookies(response.headers())), (None, vec![]));
        assert!(world.events.take().contains(&"too_many_candidates".to_owned()), "{planted}");
    }
    // A chunk that comes twice beside a token that is altered: which of them is dead is not known.
    let mut altered = genuine.clone().into_bytes();
    altered[100] = if altered[100] == b'A' { b'B' } else { b'A' };
    let altered = String::from_utf8(altered).unwrap();
    let (seen, response) = block_on(world.present(format!("{altered}; {name}.1=x").as_bytes()));
    assert_eq!((seen, set_cookies(response.headers())), (None, vec![]));
}

/// Chunks that another host has planted keep a session from being found. A logout still removes it, before they go.
#[test]
fn t27_a_logout_removes_a_session_that_too_many_planted_chunks_hide() {
    let name = crate::attack_fixture::NAME;
    let (world, jar) = chunked(12_000);
    assert_eq!(jar.0.len(), 4);
    let genuine = jar.header().unwrap();
    let full = jar.get(&format!("{name}.1")).unwrap().len();
    // Too many of one number, more than are looked at, and one of each of three numbers.
    for numbers in [vec![1; 20], vec![1; 70], vec![1, 2, 3]] {
        let one = |(n, number): (usize, &u8)| format!("{name}.{number}={n:0>full$}; ");
        let planted: String = numbers.iter().enumerate().map(one).collect();
        let request = request("/", Some(&format!("{planted}{genuine}")));
        let response = block_on(world.send(request, |session| {
            assert!(session.is_empty());
            session.destroy()?;
            Ok(status(200))
        }));
        let mut browser = jar.clone();
        browser.store(response.headers());
        assert_eq!(browser.get(name), None, "{numbers:?}");
        assert!(world.events.take().contains(&"too_many_candidates".to_owned()), "{numbers:?}");
    }
}

/// Joined with the planted chunk, the token is not authentic. Joined rightly, it is, and has expired.
#[test]
fn t64_a_planted_chunk_does_not_hide_that_a_session_has_expired() {
    let name = crate::attack_fixture::NAME;
    let (world, jar) = chunked(8_000);
    let genuine = jar.header().unwrap();
    let planted = "x".repeat(jar.get(&format!("{name}.1")).unwrap().len());
    world.clock.advance(Duration::from_secs(crate::attack_fixture::IDLE));
    for header in [format!("{name}.1={planted}; {genuine}"), format!("{genuine}; {name}.1={planted}")] {
        let (seen, _) = block_on(world.present(header.as_bytes()));
        assert_eq!((seen, world.events.take()), (None, vec![refused(Refusal::Expired)]));
    }
}

#[test]
fn t64_an_orphan_beside_a_token_that_fills_its_cookie_does_no_harm() {
    let name = crate::attack_fixture::NAME;
    let mut exact = 0;
    // One of these lengths fills the first cookie, or the second one, to the last character.
    for len in (2_930..2_970).chain(5_990..6_040) {
        let (world, mut jar) = chunked(len);
        let (count, last) = (jar.0.len(), jar.0.values().last().unwrap().len());
        let full = 4_096 - name.len() - if count > 1 { 2 } else { 0 };
        if last != full {
            continue;
        }
        exact += 1;
        // An orphan that nothing expires, since its scope is not known.
        for orphan in ["x", "AAAA", &"x".repeat(full)] {
            let header = format!("{}; {name}.{count}={orphan}", jar.header().unwrap());
            let (seen, response) = block_on(world.present(header.as_bytes()));
            assert_eq!(seen, Some(filler(len)), "{len}");
            assert_eq!(set_cookies(response.headers()), [""; 0]);
        }
        assert_eq!(world.events.take(), [""; 0]);
        // An orphan in our own scope is expired with the token that it would continue, also unseen.
        let response =
            block_on(world.edit(&mut jar, move |session| session.set("a", filler(len).to_uppercase())));
        let lines = set_cookies(response.headers());
        assert!(
            lines.last().unwrap().starts_with(&format!("{name}.{count}=; Max-Age=0;")),
            "{}",
            lines.len()
        );
    }
    assert!(exact >= 2, "{exact}");
}

// Chunks without a first one say nothing about a session.
#[test]
fn t64_orphans_alone_remove_nothing() {
    let name = crate::attack_fixture::NAME;
    let world = TestStore::new(Kind::Cookie);
    let (_, response) = block_on(world.present(format!("{name}.1=x; {name}.3=y").as_bytes()));
    assert_eq!(set_cookies(response.headers()), [""; 0]);
    // They go with the next cookie that is set.
    let mut jar = Jar::with(&format!("{name}.3"), "y");
    block_on(world.edit(&mut jar, |session| session.set("a", "b")));
    assert_eq!(jar.0.len(), 1);
    assert_eq!(block_on(world.edit(&mut jar, |_| Ok(()))).status(), status(200).status());
}

// Private pages stay out of every cache, the browser's included, if the option says so.
#[test]
fn pages_of_a_subject_are_not_stored_if_the_option_says_so() {
    for (option, expected) in [(false, None), (true, Some("no-store"))] {
        let store = hyper_session::MemoryStore::builder().private_pages_no_store(option).build().unwrap();
        let service = SessionService::new(service_fn(act), store);
        let mut jar = Jar::new();
        let cached = |response: &Response<Body>| {
            response.headers().get("cache-control").map(|value| value.to_str().unwrap().to_owned())
        };
        let visit = |jar: &mut Jar, path: &str| block_on(crate::support::visit(&service, path, jar));
        assert_eq!(cached(&visit(&mut jar, "/look")), None, "no subject");
        visit(&mut jar, "/set");
        assert_eq!(cached(&visit(&mut jar, "/look")), None, "a visitor's session");
        visit(&mut jar, "/ada");
        assert_eq!(cached(&visit(&mut jar, "/look")).as_deref(), expected, "a subject's");
    }
}

/// Also if the session has ended by the time of the response, which then sets no cookie.
#[test]
fn pages_of_a_subject_whose_session_ended_meanwhile_are_not_stored() {
    let store = hyper_session::MemoryStore::builder().private_pages_no_store(true).build().unwrap();
    let mut jar = Jar::new();
    let service = SessionService::new(service_fn(act), store.clone());
    block_on(crate::support::visit(&service, "/ada", &mut jar));
    let page = session_fn(store.clone(), move |_: Request<Body>, handle: SessionHandle| {
        let store = store.clone();
        async move {
            let session = handle.load().await?;
            let seen = who(&session);
            store.end_sessions_of("ada", None).await?;
            session.set("n", 2)?;
            Ok::<_, Error>(Response::new(Body::from(seen)))
        }
    });
    let response = block_on(page.call(request("/", jar.header().as_deref()))).unwrap();
    assert_eq!(set_cookies(response.headers()), [""; 0]);
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert_eq!(block_on(crate::support::text(response)), "ada");
}

/// A request that was sent before its token was superseded, with an older session of another user beside: it neither shows that
/// user, nor sets that session over the new token.
#[test]
fn r3_an_overtaken_request_does_not_fall_back_to_an_older_session() {
    let revocable = |clock: &FakeClock| -> Arc<dyn Store> {
        let builder = CookieStore::builder(AppKey::generate().unwrap()).revocations(Revocations::in_memory());
        Arc::new(builder.cookie(options()).clock(clock.clone()).build().unwrap())
    };
    let on_server = |clock: &FakeClock| -> Arc<dyn Store> {
        let builder = ServerStore::with_backend(Rows::default());
        Arc::new(builder.cookie(options()).clock(clock.clone()).build().unwrap())
    };
    for build in [&revocable as &dyn Fn(&FakeClock) -> Arc<dyn Store>, &on_server] {
        let clock = FakeClock::at(START);
        let store = build(&clock);
        let send = |tokens: &[&str], path: &str| send_tokens(&store, tokens, path);
        let ada = send(&[], "/ada").0.unwrap();
        clock.set(START + 1_000);
        let bob = send(&[], "/bob").0.unwrap();
        clock.set(START + 2_000);
        let (token, seen) = send(&[&ada, &bob], "/regenerate");
        assert_eq!(seen, "bob");
        let new = token.unwrap();
        for tokens in [[&*ada, &*bob], [&*bob, &*ada]] {
            for path in ["/look", "/set"] {
                assert_eq!(send(&tokens, path), (None, String::new()), "{path}");
            }
            // Sent after it, it has the new token, too.
            assert_eq!(send(&[tokens[0], &new, tokens[1]], "/look"), (None, "bob".to_owned()));
        }
        clock.set(START + 2_050);
        assert_eq!(send(&[&ada, &bob, &new], "/look"), (None, "bob".to_owned()), "it is as new as before");
        // Its logout ends all that it brought.
        assert_eq!(send(&[&ada, &bob], "/logout").1, "");
        clock.set(START + 2_070);
        assert_eq!(send(&[&ada], "/look").1, "");
    }
}
