//! Lifetimes under random operations, clocks and deployments, against a model: no session lasts longer than allowed, and none
//! ends earlier than promised.

use std::time::Duration;

use http::Response;
use hyper_session::{Lifetime, Session, Timeouts, Timestamp};
use proptest::prelude::*;

#[cfg(feature = "redis")]
use crate::server::Server;
use crate::stores::{Kind, Options, Reading, TestStore, max_age, seconds};
use crate::support::{Body, Jar, block_on, set_cookies};

#[derive(Clone, Copy, Debug)]
enum Op {
    Advance(u64),
    /// The clocks of all hosts are set back. Less, if a clock would be more than a minute behind what a session was written at.
    SetBack(u64),
    /// The following requests reach the other host.
    OtherHost,
    Read,
    Peek,
    Write,
    /// Clears the session, and sets a value.
    Clear,
    Regenerate,
    Login,
    /// A login with the lifetime that its user chose.
    LoginFor(usize),
    Logout,
    Reauthenticate,
    EndOthers,
    SetLifetime(usize),
    Deploy(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => prop_oneof![0..12_u64, 0..120_u64, 0..500_u64].prop_map(Op::Advance),
        2 => (0..40_u64).prop_map(Op::SetBack),
        2 => Just(Op::OtherHost),
        4 => Just(Op::Read),
        1 => Just(Op::Peek),
        2 => Just(Op::Write),
        1 => Just(Op::Clear),
        1 => Just(Op::Regenerate),
        1 => Just(Op::Login),
        1 => (0..LIFETIMES.len()).prop_map(Op::LoginFor),
        1 => Just(Op::Logout),
        1 => Just(Op::Reauthenticate),
        1 => Just(Op::EndOthers),
        2 => (0..LIFETIMES.len()).prop_map(Op::SetLifetime),
        2 => (0..4_usize).prop_map(Op::Deploy),
    ]
}

/// By how much the clock of the second host is ahead.
const AHEAD: u64 = 25;

/// By how much a clock may be behind the clock that a session was written by: row 11 of docs/WIRE.md.
const MAX_SKEW: u64 = 60;

/// A lifetime of the model. `None` is as configured.
#[derive(Clone, Copy, PartialEq)]
struct Life {
    /// Whether browsers keep the cookie.
    kept: Option<bool>,
    idle: Option<u64>,
    absolute: Option<u64>,
}

const AS_CONFIGURED: Life = Life { kept: None, idle: None, absolute: None };

const LIFETIMES: [Life; 7] = [
    AS_CONFIGURED,
    Life { kept: Some(true), idle: Some(1_000), absolute: Some(1_000) },
    Life { kept: Some(true), idle: Some(50), absolute: Some(50) },
    Life { kept: Some(false), ..AS_CONFIGURED },
    Life { idle: Some(30), ..AS_CONFIGURED },
    Life { kept: Some(false), idle: Some(20), absolute: Some(200) },
    Life { absolute: Some(90), ..AS_CONFIGURED },
];

fn lifetime(Life { kept, idle, absolute }: Life) -> Lifetime {
    let mut lifetime = match kept {
        None => Lifetime::new(),
        Some(true) => Lifetime::persistent(seconds(1)),
        Some(false) => Lifetime::until_browser_closes(),
    };
    if let Some(idle) = idle {
        lifetime = lifetime.idle_timeout(seconds(idle));
    }
    if let Some(absolute) = absolute {
        lifetime = lifetime.absolute_timeout(seconds(absolute));
    }
    lifetime
}

fn options(number: usize) -> Options {
    let timeouts = |idle, absolute| Timeouts {
        idle: seconds(idle),
        absolute: seconds(absolute),
        renewal: seconds(idle / 10),
    };
    let default = Options { timeouts: timeouts(100, 400), ..Options::default() };
    match number {
        0 => default,
        1 => Options { longest: Some(seconds(900)), ..default },
        2 => Options { anonymous: Some(timeouts(40, 80)), longest: Some(seconds(400)), ..default },
        _ => Options { timeouts: timeouts(60, 150), longest: Some(seconds(600)), ..default },
    }
}

/// A session of the model.
#[derive(Clone, Copy)]
struct Model {
    began: u64,
    subject: bool,
    life: Life,
    /// The last write or renewal.
    used: u64,
    /// The time that the cookie says it was written at. It does not go back while the deadline lies behind it.
    issued: u64,
    /// The deadline that it set.
    written: u64,
    /// The deadline that the session last reported.
    promised: u64,
    deployed_since: bool,
}

impl Model {
    fn beginning(now: u64) -> Self {
        Self {
            began: now,
            subject: false,
            life: AS_CONFIGURED,
            used: now,
            issued: now,
            written: 0,
            promised: 0,
            deployed_since: false,
        }
    }
}

/// Idle timeout, absolute timeout and renewal threshold, worked out without the crate.
fn allowed(options: &Options, model: &Model) -> (u64, u64, u64) {
    let whole = |duration: Duration| duration.as_secs();
    let store = options.anonymous.filter(|_| !model.subject).unwrap_or(options.timeouts);
    let longest = options.longest.unwrap_or(options.timeouts.absolute);
    let Life { idle, absolute, .. } = model.life;
    if (idle, absolute) == (None, None) {
        return (whole(store.idle), whole(store.absolute), whole(store.renewal));
    }
    let absolute = absolute.unwrap_or(whole(store.absolute)).min(whole(longest));
    let idle = idle.unwrap_or(whole(store.idle)).min(whole(longest)).min(absolute);
    (idle, absolute, whole(store.renewal) * idle / whole(store.idle))
}

/// A request whose handler does `op`; `value` differs each time.
async fn visit(world: &TestStore, jar: &mut Jar, op: Op, value: u64) -> Response<Body> {
    let act = |session: &Session| match op {
        Op::Write => session.set("a", value),
        Op::Clear => session.clear().and_then(|()| session.set("a", value)),
        Op::Regenerate => session.regenerate(),
        Op::Login => session.login("ada"),
        Op::LoginFor(number) => {
            session.login("ada")?;
            session.set_lifetime(lifetime(LIFETIMES[number]))
        }
        Op::Logout => session.destroy(),
        Op::Reauthenticate => match session.reauthenticate() {
            Err(error) if error.is_not_logged_in() => Ok(()),
            done => done,
        },
        Op::SetLifetime(number) => session.set_lifetime(lifetime(LIFETIMES[number])),
        _ => Ok(()),
    };
    match op {
        Op::EndOthers => world.end_others_answered(jar, act).await.0,
        Op::Peek => world.visit(jar, Reading::LeavesTheDeadline, act).await.0,
        _ => world.visit(jar, Reading::Renews, act).await.0,
    }
}

/// Two hosts of a site, one of which answers.
struct Site<'a> {
    hosts: [TestStore; 2],
    at: usize,
    /// The latest time that a clock has shown.
    latest: u64,
    /// Lets time pass for a storage that has a clock of its own.
    pass_time: &'a dyn Fn(u64),
}

impl<'a> Site<'a> {
    async fn beside(first: TestStore, pass_time: &'a dyn Fn(u64)) -> Self {
        let latest = first.now().as_unix() + AHEAD;
        let second = first.other_host(options(0), latest).await;
        Self { hosts: [first, second], at: 0, latest, pass_time }
    }

    fn host(&self) -> &TestStore {
        &self.hosts[self.at]
    }

    fn advance(&mut self, by: u64) {
        for host in &self.hosts {
            host.clock.advance(seconds(by));
            self.latest = self.latest.max(host.now().as_unix());
        }
        (self.pass_time)(by);
    }

    fn set_back(&self, by: u64) {
        let behind = self.hosts[0].now().as_unix();
        let by = by.min(behind + MAX_SKEW - self.latest);
        for host in &self.hosts {
            host.clock.set(host.now().as_unix() - by);
        }
    }

    async fn deploy(&mut self, options: Options) {
        for host in &mut self.hosts {
            host.deploy(options).await;
        }
    }
}

/// A browser on its way through random operations.
struct Walk {
    kind: Kind,
    options: Options,
    jar: Jar,
    model: Option<Model>,
}

impl Walk {
    fn forget(&mut self) {
        (self.model, self.jar) = (None, Jar::new());
    }

    /// Does the operations that are not a request. Returns false for a request.
    async fn moves(&mut self, op: Op, site: &mut Site<'_>) -> bool {
        match op {
            Op::Advance(by) => site.advance(by),
            Op::SetBack(by) => site.set_back(by),
            Op::OtherHost => site.at = 1 - site.at,
            Op::Deploy(number) => {
                self.options = options(number);
                site.deploy(self.options).await;
                if let Some(model) = &mut self.model {
                    model.deployed_since = true;
                }
            }
            _ => return false,
        }
        true
    }

    /// Checks that a session is `stored`, with its deadline, for as long as it must be, and no longer.
    fn check_before(&mut self, stored: Option<u64>, now: u64, context: &str) {
        let Some(known) = &self.model else {
            assert_eq!(stored, None, "{context}");
            return;
        };
        // Redis' own clock decides until when an entry lives. The host that is ahead accepts it until then.
        let slack = if self.kind.has_own_clock() { AHEAD } else { 0 };
        let (idle, absolute, _) = allowed(&self.options, known);
        let written = if known.deployed_since { known.written } else { known.promised };
        let end = written.min(known.began + absolute);
        match stored {
            // No session lives longer than allowed.
            Some(expires) => {
                let end = end + slack;
                assert!(now < end && expires <= end, "{context}: {expires} after {end}");
            }
            // No session ends earlier than promised, or than new options allow.
            None if known.deployed_since => {
                assert!(now >= end.min(known.used + idle), "{context}: died before {end}");
            }
            None => assert!(now >= known.promised, "{context}: died before {}", known.promised),
        }
        if stored.is_none() {
            self.forget();
        }
    }

    /// Checks the deadline and the cookie after a request, and notes what is known of the session from then on.
    fn check_after(&mut self, op: Op, at: &Moment, response: &Response<Body>, context: &str) {
        let Moment { now, stored, expires } = *at;
        if matches!(op, Op::Logout) {
            assert_eq!(expires, None, "{context}");
            return self.forget();
        }
        if self.model.is_none() && matches!(op, Op::Write | Op::Clear | Op::Login | Op::LoginFor(_)) {
            self.model = Some(Model::beginning(now));
        }
        let Some(known) = &mut self.model else {
            assert_eq!(expires, None, "{context}: nothing was stored");
            return;
        };
        match op {
            Op::Login => (known.began, known.subject) = (now, true),
            Op::LoginFor(number) => {
                (known.began, known.subject, known.life) = (now, true, LIFETIMES[number]);
            }
            Op::Reauthenticate if known.subject => known.began = now,
            // The session is then a visitor's. A session of a subject, or with a lifetime of its own, ends, and another begins.
            Op::Clear if known.subject || known.life != AS_CONFIGURED => {
                (known.began, known.subject, known.life) = (now, false, AS_CONFIGURED);
            }
            Op::SetLifetime(number) => known.life = LIFETIMES[number],
            _ => {}
        }
        let (idle, absolute, renewal) = allowed(&self.options, known);
        let full = (now + idle).min(known.began + absolute);
        if full <= now && expires.is_none() {
            // A lifetime that has passed already.
            return self.forget();
        }
        let expires = expires.unwrap_or_else(|| panic!("{context}: the session is gone"));
        let set = !set_cookies(response.headers()).is_empty();
        match op {
            Op::Peek => assert!(!set && Some(expires) == stored, "{context}"),
            Op::Write | Op::Clear | Op::Regenerate | Op::Login | Op::LoginFor(_) => {
                assert_eq!(expires, full, "{context}");
            }
            _ if set => assert_eq!(expires, full, "{context}"),
            // A deadline that falls short by less than the renewal threshold is not renewed.
            _ => assert!(
                full <= expires || full - expires < renewal.max(1),
                "{context}: {expires}, not {full}"
            ),
        }
        if set {
            let kept = match known.life.kept {
                Some(false) => None,
                _ => Some(expires - now),
            };
            assert_eq!(max_age(response), kept, "{context}");
            (known.used, known.written, known.deployed_since) = (now, full, false);
            let issued = known.issued.max(now);
            known.issued = if issued < full { issued } else { now };
            if matches!(self.kind, Kind::Cookie | Kind::Revocable) {
                // A cookie cannot say that its session began after it was written.
                known.began = known.began.min(known.issued);
            }
        }
        known.promised = expires;
    }
}

/// The time of a request, and the session's deadlines before and after it.
struct Moment {
    now: u64,
    stored: Option<u64>,
    expires: Option<u64>,
}

async fn run(mut site: Site<'_>, ops: &[Op]) {
    let kind = site.host().kind;
    let mut walk = Walk { kind, options: options(0), jar: Jar::new(), model: None };
    for (step, &op) in ops.iter().enumerate() {
        let context = format!("{kind:?}, step {step}, {op:?}");
        let has_moved = walk.moves(op, &mut site).await;
        let host = site.host();
        let now = host.now().as_unix();
        let stored = host.expires(&walk.jar).await.map(Timestamp::as_unix);
        walk.check_before(stored, now, &context);
        if has_moved {
            continue;
        }
        let response = visit(host, &mut walk.jar, op, step as u64).await;
        let expires = host.expires(&walk.jar).await.map(Timestamp::as_unix);
        walk.check_after(op, &Moment { now, stored, expires }, &response, &context);
    }
}

async fn run_on(kind: Kind, ops: &[Op]) {
    let first = TestStore::new(kind, options(0)).await;
    run(Site::beside(first, &|_| ()).await, ops).await;
}

fn walk() -> impl Strategy<Value = Vec<Op>> {
    proptest::collection::vec(op(), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_session_outlives_its_lifetime_and_none_ends_early(ops in walk()) {
        for kind in [Kind::Cookie, Kind::Revocable, Kind::Server] {
            block_on(run_on(kind, &ops));
        }
    }
}

// Fewer cases: each step is a write to a file.
#[cfg(feature = "sqlite")]
proptest! {
    #![proptest_config(ProptestConfig { cases: 30, ..ProptestConfig::default() })]

    #[test]
    fn no_session_in_a_file_outlives_its_lifetime_and_none_ends_early(ops in walk()) {
        block_on(run_on(Kind::Sqlite, &ops));
    }
}

#[cfg(feature = "redis")]
#[test]
fn no_session_in_redis_outlives_its_lifetime_and_none_ends_early() {
    let server = Server::start();
    // The clocks of this test have nothing to do with that of the server. It is then not asked for the time.
    server.cli(&["ACL", "SETUSER", "default", "-time"]);
    let script = "for _, key in ipairs(redis.call('KEYS', '*')) do
        redis.call('PEXPIRE', key, redis.call('PTTL', key) - ARGV[1] * 1000)
    end";
    let pass_time = |seconds: u64| {
        server.cli(&["EVAL", script, "0", &seconds.to_string()]);
    };
    let config = ProptestConfig { cases: 60, ..ProptestConfig::default() };
    proptest!(config, |(ops in walk())| {
        server.cli(&["FLUSHALL"]);
        block_on(async {
            let first = TestStore::on_redis(server.url(), options(0)).await;
            run(Site::beside(first, &pass_time).await, &ops).await;
        });
    });
}

// Cases that the model once got wrong.
#[test]
fn a_deadline_before_the_last_write_moves_the_beginning_of_a_session_in_a_cookie() {
    for kind in [Kind::Cookie, Kind::Revocable, Kind::Server] {
        let ops =
            [Op::Write, Op::SetBack(30), Op::SetLifetime(4), Op::SetLifetime(1), Op::Advance(1), Op::Write];
        block_on(run_on(kind, &ops));
    }
}
