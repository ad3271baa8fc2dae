//! A deployment, rehearsed: an old and a new release of one service, side by side, over the same sessions.
//!
//! The new one seals under a new key, has shorter timeouts, fewer chunks and another payload format, and its clock is two
//! minutes ahead. Requests go to either at random. Three promises are held at each of them: a user who should be logged in
//! is, a user who should not be is not, and no request fails.
//!
//! In a second rehearsal the new one also writes the next format version, and reads both. The old one shows a visitor where it
//! meets that version, and does not touch the cookie.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use hyper::service::Service;
use hyper_session::cookie::CookieOptions;
use hyper_session::store::{Backend, Builder, EntryId, Memory, Replaced, Store, Stored};
use hyper_session::testing::FakeClock;
use hyper_session::{
    AppKey, CookieStore, Error, Keyring, PayloadFormat, Refusal, ServerStore, SessionHandle, Timeouts,
    Timestamp, session_fn,
};

use crate::dice::Dice;
use crate::spy_store::START;
use crate::support::{Answer, Body, Events, Jar, block_on, refused, request, set_cookies, status};

const ROUNDS: usize = 10_000;
const USERS: usize = 12;
/// So far are the clocks of the two releases apart, in seconds.
const APART: u64 = 120;
/// Tokens from further ahead are not believed.
const SKEW: u64 = 60;

#[derive(Clone, Copy)]
struct Release {
    idle: u64,
    absolute: u64,
    renewal: u64,
    chunks: u8,
    format: PayloadFormat,
}

const OLD: Release =
    Release { idle: 1_000, absolute: 6_000, renewal: 100, chunks: 3, format: PayloadFormat::MessagePack };
const NEW: Release =
    Release { idle: 700, absolute: 5_000, renewal: 70, chunks: 1, format: PayloadFormat::Json };

impl Release {
    fn apply<K>(self, builder: Builder<K>, clock: &FakeClock, events: &Events) -> Builder<K> {
        let seconds = Duration::from_secs;
        builder
            .cookie(CookieOptions::new().name("__Host-s").max_chunks(self.chunks))
            .timeouts(Timeouts {
                idle: seconds(self.idle),
                absolute: seconds(self.absolute),
                renewal: seconds(self.renewal),
            })
            .payload_format(self.format)
            .clock(clock.clone())
            .observer(events.clone())
    }
}

/// Where the sessions are.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Cookies,
    Server,
}

/// The first character of a token of `CookieStore`, by version.
const VERSIONS: [char; 2] = ['A', 'B'];

/// Puts the next version in front of the tokens of a `Cookie` or `Set-Cookie` text, or the present one. Other texts stay.
fn in_version(text: &str, from: usize, to: usize) -> String {
    match text.strip_prefix("__Host-s=").and_then(|token| token.strip_prefix(VERSIONS[from])) {
        Some(rest) => format!("__Host-s={}{rest}", VERSIONS[to]),
        None => text.to_owned(),
    }
}

/// Entries as the next release writes them: in a kind of their own. It reads both.
struct NextKind(Arc<Memory>);

/// The first byte of a sealed entry, and of one in the next version.
const KINDS: [u8; 2] = [4, 6];

fn in_kind(value: Bytes, from: u8, to: u8) -> Bytes {
    match value.split_first() {
        Some((kind, rest)) if *kind == from => [&[to], rest].concat().into(),
        _ => value,
    }
}

impl NextKind {
    fn next(mut entry: Stored) -> Stored {
        entry.value = in_kind(entry.value, KINDS[0], KINDS[1]);
        entry
    }

    fn present(mut entry: Stored) -> Stored {
        entry.value = in_kind(entry.value, KINDS[1], KINDS[0]);
        entry
    }

    /// The entry that is there, if it has this value in either version.
    async fn as_stored(&self, id: EntryId, expected: Bytes, now: Timestamp) -> Result<Bytes, Error> {
        let there = self.0.fetch(id, now).await?.map(|stored| stored.value);
        Ok(there.filter(|there| in_kind(there.clone(), KINDS[1], KINDS[0]) == expected).unwrap_or(expected))
    }
}

impl Backend for NextKind {
    async fn fetch(&self, id: EntryId, now: Timestamp) -> Result<Option<Stored>, Error> {
        Ok(self.0.fetch(id, now).await?.map(Self::present))
    }

    async fn create(&self, id: EntryId, entry: Stored, now: Timestamp) -> Result<bool, Error> {
        self.0.create(id, Self::next(entry), now).await
    }

    async fn replace(
        &self,
        id: EntryId,
        expected: Bytes,
        entry: Option<Stored>,
        now: Timestamp,
    ) -> Result<Replaced, Error> {
        let expected = self.as_stored(id, expected, now).await?;
        Ok(match self.0.replace(id, expected, entry.map(Self::next), now).await? {
            Replaced::Conflict(current) => Replaced::Conflict(Self::present(current)),
            other => other,
        })
    }

    async fn touch(&self, id: EntryId, expires: Timestamp, now: Timestamp) -> Result<bool, Error> {
        self.0.touch(id, expires, now).await
    }

    async fn delete(&self, id: EntryId) -> Result<(), Error> {
        self.0.delete(id).await
    }
}

/// The two releases.
struct Deployment {
    stores: [Arc<dyn Store>; 2],
    clocks: [FakeClock; 2],
    events: Events,
    /// The version that each writes in cookies.
    writes: [usize; 2],
}

impl Deployment {
    fn new(place: Place, next_version: bool) -> Self {
        let clocks = [FakeClock::at(START), FakeClock::at(START + APART)];
        let events = Events::new();
        let (old, new) = (AppKey::generate().unwrap().to_text(), AppKey::generate().unwrap().to_text());
        let key = |text: &str| text.parse::<AppKey>().unwrap();
        // As the guide says: every release opens with both keys before the first one seals with the new one.
        let keys: [Keyring; 2] =
            [Keyring::new(key(&old)).accept(key(&new)), Keyring::new(key(&new)).accept(key(&old))];
        let backend = Arc::new(Memory::new());
        let mut releases =
            (0..).zip([OLD, NEW]).zip(keys).zip(&clocks).map(|(((at, release), keys), clock)| match place {
                Place::Cookies => {
                    let builder = release.apply(CookieStore::builder(keys), clock, &events);
                    Arc::new(builder.build().unwrap()) as Arc<dyn Store>
                }
                Place::Server if at == 1 && next_version => {
                    let backend = NextKind(Arc::clone(&backend));
                    let builder = ServerStore::with_backend(backend).seal_records(keys);
                    Arc::new(release.apply(builder, clock, &events).build().unwrap())
                }
                Place::Server => {
                    let builder = ServerStore::with_backend(Arc::clone(&backend)).seal_records(keys);
                    Arc::new(release.apply(builder, clock, &events).build().unwrap())
                }
            });
        let stores = [releases.next().unwrap(), releases.next().unwrap()];
        let writes = [0, usize::from(place == Place::Cookies && next_version)];
        Self { stores, clocks, events, writes }
    }

    /// One request: the user of the session, and how many visits it counts, before `act` is done.
    async fn visit(&self, release: usize, user: &mut User, act: Act) -> Option<(String, u64)> {
        let seen = Arc::new(Mutex::new(None));
        let (sink, name, big) = (Arc::clone(&seen), user.name.clone(), user.big);
        let handler = move |_: Request<Body>, handle: SessionHandle| {
            let (sink, name) = (Arc::clone(&sink), name.clone());
            async move {
                let session = handle.load().await?;
                let subject = session.subject().map(String::from);
                let visits = session.get::<u64>("visits")?.unwrap_or(0);
                *sink.lock().unwrap() = subject.clone().map(|subject| (subject, visits));
                match (act, subject.is_some()) {
                    (Act::Read, _) | (Act::Count | Act::LogOut | Act::Refresh, false) => {}
                    (Act::LogIn, _) => {
                        session.login(&name)?;
                        session.set("visits", 1_u64)?;
                        session.set("odd", [1.5_f32, 0.1])?;
                        if big {
                            session.set("big", "x".repeat(4_000))?;
                        }
                    }
                    (Act::Count, true) => {
                        session.update("visits", |visits: Option<u64>| visits.unwrap_or(0) + 1)?;
                        session.set("odd", [1.5_f32, 0.1])?;
                    }
                    (Act::Refresh, true) => session.regenerate()?,
                    (Act::LogOut, true) => session.destroy()?,
                }
                Answer::Ok(status(200))
            }
        };
        let service = session_fn(Arc::clone(&self.stores[release]), handler);
        // The next release reads both versions, and writes the next one.
        let writes = self.writes[release];
        let cookies = user.jar.header().map(|header| in_version(&header, writes, 0));
        let mut response = service.call(request("/", cookies.as_deref())).await.unwrap();
        assert_eq!(response.status(), 200, "no request fails");
        for line in response.headers_mut().values_mut() {
            *line = in_version(line.to_str().unwrap(), 0, writes).parse().unwrap();
        }
        if !set_cookies(response.headers()).is_empty() {
            user.jar.store(response.headers());
            user.set_by = Some(release);
        }
        seen.lock().unwrap().take()
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    Read,
    Count,
    LogIn,
    LogOut,
    Refresh,
}

struct User {
    name: String,
    /// The session is too large for the cookies of the new release: that one reads it, and cannot write it.
    big: bool,
    jar: Jar,
    /// When it logged in, if it did and was not logged out since.
    since: Option<u64>,
    /// When a release last had the chance to renew its session.
    last: u64,
    visits: u64,
    /// The release that set the cookie, and when.
    set_by: Option<usize>,
    set_at: u64,
}

/// How the visits of a rehearsal ended.
#[derive(Debug, Default)]
struct Tally {
    lived: usize,
    logged_out: usize,
    /// The options allow both.
    either: usize,
    /// The cookie was sealed by the clock that is ahead.
    too_early: usize,
    /// The session was written in a version that the old release does not read.
    newer: usize,
    failed_renewals: usize,
}

/// A promise to a user who is logged in.
enum Promise {
    Lives,
    IsLoggedOut,
    Either,
}

impl User {
    /// The promise to this user when `release` is asked, or `None` if the user is not logged in.
    fn promise(&self, release: usize, now: u64) -> Option<Promise> {
        let (gap, age) = (now - self.last, now - self.since?);
        let asked = if release == 1 { NEW } else { OLD };
        Some(if gap + OLD.renewal + APART < NEW.idle && age + APART < NEW.absolute {
            Promise::Lives
        } else if gap > asked.idle + APART || age > asked.absolute + APART {
            Promise::IsLoggedOut
        } else {
            Promise::Either
        })
    }
}

impl Tally {
    /// Checks the session that a release found for a user against the promise.
    fn judge(
        &mut self,
        promise: Option<&Promise>,
        found: Option<&(String, u64)>,
        user: &User,
        context: &str,
    ) {
        match promise {
            None => assert_eq!(found, None, "a user is logged in who had not logged in: {context}"),
            Some(Promise::Lives) => {
                assert_eq!(found, Some(&(user.name.clone(), user.visits)), "{context}");
                self.lived += 1;
            }
            Some(Promise::IsLoggedOut) => {
                assert_eq!(found, None, "a user stays logged in for too long: {context}");
                self.logged_out += 1;
            }
            Some(Promise::Either) => {
                assert!(found.is_none_or(|found| found.1 == user.visits), "{context}");
                self.either += 1;
            }
        }
    }
}

async fn rehearse(place: Place, next_version: bool, seed: u64) {
    let in_cookies = place == Place::Cookies;
    let deployment = Deployment::new(place, next_version);
    let mut dice = Dice(seed);
    let mut now = START;
    let mut everyone: Vec<User> = (0..USERS)
        .map(|number| User {
            name: format!("user-{number}"),
            big: in_cookies && number < 2,
            jar: Jar::new(),
            since: None,
            last: 0,
            visits: 0,
            set_by: None,
            set_at: 0,
        })
        .collect();
    let mut tally = Tally::default();
    for round in 0..ROUNDS {
        now += if dice.roll(200) == 0 { dice.roll(2_000) } else { dice.roll(30) };
        deployment.clocks[0].set(now);
        deployment.clocks[1].set(now + APART);
        let index = usize::try_from(dice.roll(USERS as u64)).unwrap();
        let user = &mut everyone[index];
        let release = usize::try_from(dice.roll(2)).unwrap();
        // Too large to be written by the new release: an application would not try.
        let act = match dice.roll(20) {
            0 if !(user.big && release == 1) => Act::LogIn,
            1 => Act::LogOut,
            2 if !(user.big && release == 1) => Act::Refresh,
            3..=9 if !(user.big && release == 1) => Act::Count,
            _ => Act::Read,
        };
        let (set_by, set_at, before) = (user.set_by, user.set_at, user.jar.clone());
        user.set_by = None;
        let found = deployment.visit(release, user, act).await;
        let events = deployment.events.take();
        tally.failed_renewals += events.iter().filter(|event| *event == "store_failed").count();
        // Written in a version that only the next release reads.
        let is_newer = events.contains(&refused(Refusal::Version));
        assert!(!is_newer || next_version && release == 0);
        let set = user.set_by.is_some();
        (user.set_by, user.set_at) = if set { (Some(release), now) } else { (set_by, set_at) };
        let context =
            format!("round {round} of {seed}: {} {act:?} at release {release}, {found:?}", user.name);

        // Sealed by the clock that is ahead, moments ago: the other release cannot believe it yet, and leaves it alone.
        let too_early = in_cookies && release == 0 && set_by == Some(1) && now - set_at < APART - SKEW;
        let promise = user.promise(release, now);
        if promise.is_some() && found.is_none() && (too_early || is_newer) {
            *(if is_newer { &mut tally.newer } else { &mut tally.too_early }) += 1;
            if act != Act::LogIn {
                assert_eq!(user.jar.0, before.0, "a cookie that cannot be judged is left alone: {context}");
                continue;
            }
        } else {
            tally.judge(promise.as_ref(), found.as_ref(), user, &context);
        }
        // The state of the user from here on.
        if act == Act::LogIn {
            (user.since, user.last, user.visits) = (Some(now), now, 1);
        } else if found.is_none() || act == Act::LogOut {
            user.since = None;
        } else {
            user.visits += u64::from(act == Act::Count);
            if !(user.big && release == 1) {
                user.last = now;
            }
        }
    }
    println!("{tally:?}");
    let enough = ROUNDS / if next_version { 10 } else { 4 };
    assert!(tally.lived > enough && tally.logged_out > 50 && tally.either > 0, "{tally:?}");
    if in_cookies {
        assert!(tally.failed_renewals > 0, "renewals that could not be done");
    }
    assert_eq!(tally.too_early > 50, in_cookies && !next_version, "{tally:?}");
    assert_eq!(tally.newer > 500, next_version, "{tally:?}");
}

#[test]
fn sessions_on_a_server_survive_a_deployment() {
    block_on(rehearse(Place::Server, false, 0x5eed_0001));
    block_on(rehearse(Place::Server, false, 0x5eed_0002));
}

/// Needs that a token from the future is refused without removing its cookie.
#[test]
fn sessions_in_cookies_survive_a_deployment() {
    block_on(rehearse(Place::Cookies, false, 0x5eed_0003));
    block_on(rehearse(Place::Cookies, false, 0x5eed_0004));
}

/// A next format version, as `docs/WIRE.md` rolls it out, but without its first step: the old release reads only the old one.
#[test]
fn b2_sessions_survive_a_next_format_version() {
    block_on(rehearse(Place::Server, true, 0x5eed_0005));
    block_on(rehearse(Place::Cookies, true, 0x5eed_0006));
}
