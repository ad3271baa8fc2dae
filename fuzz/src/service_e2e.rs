//! A scripted client against hyper's server connections: its bytes in pieces of any size, and gone at any point.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::task::{Context, Waker};

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use http::header::{COOKIE, SET_COOKIE, VARY};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper_session::cookie::CookieOptions;
use hyper_session::store::{Backend, EntryId, Memory, Replaced, Store, Stored};
use hyper_session::testing::FakeClock;
use hyper_session::{AppKey, CookieStore, Error, ServerStore, Session, SessionHandle, Timestamp, session_fn};

use crate::wire::{self, Next, PREFACE, Tasks, Wire};
use crate::{APP_KEY, NAME, NOW, run};

type Body = Empty<Bytes>;

#[derive(Arbitrary, Debug)]
struct Script<'a> {
    http2: bool,
    on_server: bool,
    requests: Vec<Sent<'a>>,
    reads: Vec<u8>,
    writes: Vec<u8>,
    /// For each primitive of the backend, how often it is asked before it answers; 7 is a failure.
    waits: Vec<u8>,
    noise: Vec<(u16, u8)>,
    /// The connection is dropped after this many polls.
    leaves: Option<u16>,
    /// The client closes its end at once, not when it has its answers.
    hurries: bool,
    around: Around,
    /// Where the server's clock stands before each load and each answer of a handler: so many seconds from the time, up to
    /// half a minute.
    clock: Vec<i8>,
}

/// A session service around the one of the handlers.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq)]
enum Around {
    None,
    /// Reads the same session before the request goes on.
    Before,
    /// Reads it when the handler is done.
    After,
    /// Has a cookie of another name.
    OtherCookie,
}

/// The cookie of [`Around::OtherCookie`].
const OUTER: &str = "o";

#[derive(Arbitrary, Debug)]
struct Sent<'a> {
    action: Action,
    fields: Vec<Vec<Piece<'a>>>,
    /// Sent when all before it were answered.
    waits: bool,
}

#[derive(Arbitrary, Clone, Copy, Debug, PartialEq)]
enum Action {
    Ping,
    Look,
    Count,
    CountTwice,
    Login,
    Logout,
    Fail,
}

/// The value of a cookie that a handler sets by the session's name.
const OWN: &str = "from the handler";

const ACTIONS: [Action; 7] = [
    Action::Ping,
    Action::Look,
    Action::Count,
    Action::CountTwice,
    Action::Login,
    Action::Logout,
    Action::Fail,
];

#[derive(Arbitrary, Debug)]
enum Piece<'a> {
    Bytes(&'a [u8]),
    Cookie,
    Chunk(u8),
    Semicolon,
    /// The token of one of two sessions, of the last one that was set, of a stranger, of one that has expired.
    First,
    Second,
    Latest,
    Stranger,
    Expired,
    /// The first one with a bit changed.
    Tampered(u8),
}

/// One session, whatever tokens it has had.
#[derive(Debug, Default)]
struct Line {
    /// How often it was counted up, at most and at least.
    started: u64,
    done: u64,
    /// Requests that end it, or its token.
    logins: u64,
    logouts: u64,
    logged_out: bool,
}

/// A token that the server has set.
struct Token {
    /// The session that it belongs to.
    line: usize,
    /// The count that it was set with.
    count: u64,
    fate: Fate,
}

impl Token {
    /// A request ends the session, or gives it another token. A cookie that seals its session cannot be taken back.
    fn may_end(&mut self, text: &str) {
        if self.fate == Fate::Genuine && !is_sealed_token(text) {
            self.fate = Fate::MayBeEither;
        }
    }
}

/// The treatment of a token by now.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Genuine,
    Refused,
    /// A request that has not been answered ends its session.
    MayBeEither,
}

/// The sessions, as far as they are known without asking the server.
#[derive(Default)]
struct Expected {
    lines: Vec<Line>,
    tokens: BTreeMap<String, Token>,
    latest: String,
    /// The token that a token has replaced.
    parents: BTreeMap<String, String>,
    waits: VecDeque<u8>,
    clock: VecDeque<i8>,
    failures: u64,
    begun: u64,
    answered: u64,
    lines_set: usize,
}

impl Expected {
    /// A request ends the session of this token, also under the tokens that have replaced it.
    fn may_end(&mut self, token: &str) {
        let parent = |text: &String| self.parents.get(text).cloned();
        let leads_from = |text: &String| {
            let text = text.clone();
            std::iter::successors(Some(text), |text| parent(text)).any(|of| of == token)
        };
        let ended: Vec<_> = self.tokens.keys().filter(|text| leads_from(text)).cloned().collect();
        for text in ended {
            let token = self.tokens.get_mut(&text).unwrap();
            self.lines[token.line].logouts += 1;
            token.may_end(&text);
        }
    }
}

type Shared = Arc<Mutex<Expected>>;

fn lock(expected: &Shared) -> MutexGuard<'_, Expected> {
    expected.lock().unwrap()
}

/// `Memory`, with scripted waits and failures.
struct Slow {
    memory: Memory,
    expected: Shared,
}

impl Slow {
    async fn turn(&self) -> Result<(), Error> {
        let wait = lock(&self.expected).waits.pop_front().unwrap_or_default() % 8;
        if wait == 7 {
            lock(&self.expected).failures += 1;
            return Err(Error::unavailable("scripted"));
        }
        for _ in 0..wait {
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

impl Backend for Slow {
    async fn fetch(&self, id: EntryId, now: Timestamp) -> Result<Option<Stored>, Error> {
        self.turn().await?;
        self.memory.fetch(id, now).await
    }

    async fn create(&self, id: EntryId, entry: Stored, now: Timestamp) -> Result<bool, Error> {
        self.turn().await?;
        self.memory.create(id, entry, now).await
    }

    async fn replace(
        &self,
        id: EntryId,
        expected: Bytes,
        entry: Option<Stored>,
        now: Timestamp,
    ) -> Result<Replaced, Error> {
        self.turn().await?;
        self.memory.replace(id, expected, entry, now).await
    }

    async fn touch(&self, id: EntryId, expires: Timestamp, now: Timestamp) -> Result<bool, Error> {
        self.turn().await?;
        self.memory.touch(id, expires, now).await
    }

    async fn delete(&self, id: EntryId) -> Result<(), Error> {
        self.turn().await?;
        self.memory.delete(id).await
    }
}

/// The clock of the server moves, as the script says.
fn tick(clock: &FakeClock, expected: &Shared) {
    let offset = lock(expected).clock.pop_front().unwrap_or_default() % 31;
    clock.set(NOW.checked_add_signed(offset.into()).expect("years after 1970"));
}

fn cookie_store(key: &[u8], name: &str, clock: FakeClock) -> CookieStore {
    CookieStore::builder(AppKey::danger_from_any_bytes(key).unwrap())
        .cookie(CookieOptions::development().name(name))
        .clock(clock)
        .build()
        .unwrap()
}

static STORE: LazyLock<CookieStore> = LazyLock::new(|| cookie_store(APP_KEY, NAME, FakeClock::at(NOW)));
/// Tokens that are no longer a session, or never were one here.
static EXPIRED: LazyLock<String> =
    LazyLock::new(|| created(&cookie_store(APP_KEY, NAME, FakeClock::at(NOW - 200_000)), 0));
static STRANGER: LazyLock<String> =
    LazyLock::new(|| created(&cookie_store(b"another key, of another service", NAME, FakeClock::at(NOW)), 0));

/// The token of a new session of this line.
fn created(store: &(impl Store + Clone), line: u64) -> String {
    let service = session_fn(store.clone(), |_: Request<Body>, handle: SessionHandle| async move {
        let session = handle.load().await?;
        session.set("line", line)?;
        session.set("n", 0)?;
        Ok::<_, Error>(Response::new(Body::new()))
    });
    let response = run(service.call(Request::new(Body::new()))).unwrap();
    set_by(response.headers()).expect("a cookie")
}

/// The token that a response sets, if any; empty if it removes the cookie.
fn set_by(headers: &HeaderMap) -> Option<String> {
    let lines: Vec<_> = headers
        .get_all(SET_COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok()?.strip_prefix("s="))
        .collect();
    let (line, others) = lines.split_last()?;
    // The same name in other scopes, where earlier options may have set it.
    assert!(
        others.iter().all(|other| other.starts_with("; Max-Age=0; ")),
        "two cookies of one name: {lines:?}"
    );
    let scopes: std::collections::BTreeSet<_> =
        lines.iter().map(|line| line.split_once("; Path=").map(|(_, scope)| scope)).collect();
    assert_eq!(scopes.len(), lines.len(), "one cookie, one line: {lines:?}");
    Some(line.split(';').next().unwrap_or_default().to_owned())
}

/// Line and count of the session that this token leads to.
fn look(store: &(impl Store + Clone), token: &str) -> Option<(usize, u64)> {
    let seen = &Mutex::new(None);
    let service = session_fn(store.clone(), |_: Request<Body>, handle: SessionHandle| async move {
        *seen.lock().unwrap() = of(&handle.load().await?);
        Ok::<_, Error>(Response::new(Body::new()))
    });
    let request = Request::builder().header(COOKIE, format!("{NAME}={token}")).body(Body::new()).unwrap();
    run(service.call(request)).unwrap();
    seen.lock().unwrap().take()
}

fn of(session: &Session) -> Option<(usize, u64)> {
    let line = session.get("line").unwrap()?;
    Some((line, session.get("n").unwrap().expect("a count")))
}

/// A script, on either version of HTTP and either kind of store.
///
/// - The handler sees a session if and only if the request has a genuine cookie, and it sees that one.
/// - A response never sets the session's cookie twice, and one that did not look is untouched.
/// - Of two tokens of one session the newer one counts, whatever the clock showed.
/// - A logout ends all sessions whose cookies the request has.
/// - Without a logout no cookie is removed that may be alive, here or on a host that has another key, or if the store failed.
/// - A service around this one, of the same cookie or of another cookie, changes nothing of that.
/// - The work of an answered request is kept. That of another request is done or not done: no count is lost, none is counted
///   twice, no user who logged out is back.
pub fn service_e2e(data: &[u8]) {
    let Ok(script) = Script::arbitrary(&mut Unstructured::new(data)) else { return };
    let (expected, clock) = (Shared::default(), FakeClock::at(NOW));
    lock(&expected).clock = script.clock.iter().copied().collect();
    if script.on_server {
        let backend = Slow { memory: Memory::new(), expected: expected.clone() };
        let store = ServerStore::with_backend(backend)
            .cookie(CookieOptions::development().name(NAME))
            .clock(clock.clone())
            .build()
            .unwrap();
        connection(script, &store, &clock, &expected);
        let expected = std::mem::take(&mut *lock(&expected)); // and with it what was left of waits and failures
        settled(&store, &expected);
    } else {
        let store = cookie_store(APP_KEY, NAME, clock.clone());
        connection(script, &store, &clock, &expected);
        let expected = lock(&expected);
        assert_eq!(expected.failures, 0);
        for (text, token) in &expected.tokens {
            assert_eq!(
                look(&store, text),
                Some((token.line, token.count)),
                "a cookie holds what was answered"
            );
        }
    }
}

/// The state of a server-side store after the connection has gone is the state before a request or after it.
fn settled(store: &(impl Store + Clone), expected: &Expected) {
    for (number, line) in expected.lines.iter().enumerate() {
        let tokens = expected.tokens.iter().filter(|(_, token)| token.line == number);
        let alive: Vec<_> = tokens.filter_map(|(text, _)| look(store, text)).collect();
        match alive[..] {
            [] => assert!(line.logouts > 0, "lost: {line:?}"),
            [(of, n)] => {
                assert_eq!(of, number);
                assert!(line.done <= n && n <= line.started, "{n} of {line:?}");
                // If the backend fails to compare, the logout deletes without that, perhaps what a regenerate has just left.
                let blindly = line.logins > 0 && expected.failures > 0;
                assert!(!line.logged_out || blindly, "logged out, and back: {line:?}");
            }
            _ => panic!("two tokens of one session: {line:?}"),
        }
    }
}

/// The `Cookie` fields of a request. `firsts` are the first tokens of the two sessions.
fn cookie_fields(request: &Sent<'_>, firsts: &[String; 2], latest: &str) -> Vec<Vec<u8>> {
    let bytes = |piece: &Piece<'_>| match piece {
        Piece::Bytes(bytes) => bytes.to_vec(),
        Piece::Cookie => b"s=".to_vec(),
        Piece::Chunk(number) => format!("s.{}=", number % 10).into_bytes(),
        Piece::Semicolon => b"; ".to_vec(),
        Piece::First => firsts[0].clone().into_bytes(),
        Piece::Second => firsts[1].clone().into_bytes(),
        Piece::Latest => latest.as_bytes().to_vec(),
        Piece::Stranger => STRANGER.clone().into_bytes(),
        Piece::Expired => EXPIRED.clone().into_bytes(),
        Piece::Tampered(at) => {
            let mut token = firsts[0].clone().into_bytes();
            let at = usize::from(*at) % token.len();
            token[at] = if token[at] == b'A' { b'B' } else { b'A' };
            token
        }
    };
    let fields = request.fields.iter().take(8);
    fields.map(|field| field.iter().take(16).flat_map(bytes).collect()).collect()
}

fn connection(script: Script<'_>, store: &(impl Store + Clone), clock: &FakeClock, expected: &Shared) {
    let firsts = [0, 1].map(|line| {
        let text = created(store, line);
        let mut expected = lock(expected);
        expected.lines.push(Line::default());
        let line = usize::try_from(line).unwrap();
        expected.tokens.insert(text.clone(), Token { line, count: 0, fate: Fate::Genuine });
        expected.latest.clone_from(&text);
        text
    });
    lock(expected).waits = script.waits.into();

    let mut requests = script.requests.into_iter().take(8).zip((1..).step_by(2)).peekable();
    let mut preface = script.http2;
    let next = || {
        if std::mem::take(&mut preface) {
            return Next::Bytes(PREFACE.to_vec());
        }
        let expected = lock(expected);
        let idle = expected.begun == expected.answered;
        let Some((request, stream)) = requests.next_if(|(request, _)| idle || !request.waits) else {
            let over = requests.peek().is_none() && (idle || script.hurries);
            return if over { Next::End } else { Next::Wait };
        };
        let fields = cookie_fields(&request, &firsts, &expected.latest);
        let path = format!("/{}", ACTIONS.iter().position(|action| *action == request.action).unwrap());
        Next::Bytes(if script.http2 {
            wire::http2(stream, &path, &fields)
        } else {
            wire::http1(&path, &fields)
        })
    };
    let written = Rc::new(RefCell::new(Vec::new()));
    let wire = Wire {
        next,
        reads: script.reads.into(),
        writes: script.writes.into(),
        noise: script.noise.into(),
        ready: VecDeque::new(),
        written: written.clone(),
    };

    let (shared, server_clock) = (expected.clone(), clock.clone());
    let inner = session_fn(store.clone(), move |request: Request<Incoming>, handle: SessionHandle| {
        let (expected, clock) = (shared.clone(), server_clock.clone());
        async move { handler(&request, &handle, &clock, &expected).await }
    });
    let around = script.around;
    let reading = session_fn(store.clone(), |request: Request<Incoming>, handle: SessionHandle| {
        let asks = action(&request) != Action::Ping;
        let response = inner.call(request);
        async move {
            if asks && around == Around::Before {
                handle.load().await?;
            }
            let response = response.await;
            if asks && around == Around::After {
                // A handler that returned the error would throw away the token of the response.
                let _ = handle.load().await;
            }
            response.map_err(|never| match never {})
        }
    });
    let other_store = cookie_store(APP_KEY, OUTER, clock.clone());
    let other = session_fn(other_store, |request: Request<Incoming>, handle: SessionHandle| {
        let asks = action(&request) != Action::Ping;
        let response = inner.call(request);
        async move {
            if asks {
                handle.load().await?.regenerate()?;
                handle.load().await?.set("n", 1)?;
            }
            let response: Result<_, Error> = response.await.map_err(|never| match never {});
            response
        }
    });
    let service = service_fn(|request: Request<Incoming>| {
        let response: Pin<Box<dyn Future<Output = Result<Response<Body>, Error>>>> = match around {
            Around::None => {
                let response = inner.call(request);
                Box::pin(async move { response.await.map_err(|never| match never {}) })
            }
            Around::Before | Around::After => Box::pin(reading.call(request)),
            Around::OtherCookie => Box::pin(other.call(request)),
        };
        let expected = expected.clone();
        lock(&expected).begun += 1;
        async move {
            let response = response.await.unwrap();
            answered(&response, around, &mut lock(&expected));
            Ok::<_, Infallible>(response)
        }
    });
    let polls = usize::from(script.leaves.unwrap_or(u16::MAX));
    let tasks = Tasks::default();
    if script.http2 {
        drive(http2::Builder::new(tasks.clone()).serve_connection(wire, service), polls, &tasks);
    } else {
        drive(http1::Builder::new().serve_connection(wire, service), polls, &tasks);
        let written = written.borrow();
        let fields =
            written.windows(15).filter(|bytes| bytes.eq_ignore_ascii_case(b"\r\nset-cookie: s=")).count();
        assert!(fields <= lock(expected).lines_set, "more cookies on the wire than were set");
    }
}

/// Polls a connection until it ends, or its client has gone.
fn drive(connection: impl Future, polls: usize, tasks: &Tasks) {
    let mut context = Context::from_waker(Waker::noop());
    let mut connection = Box::pin(connection);
    for poll in 0.. {
        if poll == polls || connection.as_mut().poll(&mut context).is_ready() {
            break;
        }
        tasks.poll(&mut context);
        assert!(poll < 20_000, "a connection that does not end");
    }
    drop(connection);
    tasks.clear();
}

/// The facts about a request, from the handler to the look at the response.
#[derive(Clone, Debug)]
struct About {
    action: Action,
    /// The session that it has by now: line and count. A new one has no line before it is stored.
    session: Option<(usize, u64)>,
    token: Option<String>,
    /// The lines of its tokens that others have replaced, if all were tried.
    superseded: Vec<usize>,
    /// A cookie of the request may be alive.
    may_live: bool,
    /// The store did not tell this service.
    untold: bool,
    asked: bool,
}

fn action<B>(request: &Request<B>) -> Action {
    let number = request.uri().path().strip_prefix('/').and_then(|path| path.parse().ok());
    number.and_then(|number: usize| ACTIONS.get(number)).copied().unwrap_or(Action::Ping)
}

async fn handler(
    request: &Request<Incoming>,
    handle: &SessionHandle,
    clock: &FakeClock,
    expected: &Shared,
) -> Result<Response<Body>, Infallible> {
    let action = action(request);
    let mut about = About {
        action,
        session: None,
        token: None,
        superseded: Vec::new(),
        may_live: false,
        untold: true,
        asked: action != Action::Ping,
    };
    tick(clock, expected);
    let mut response = Response::new(Body::new());
    if about.asked && act(request, handle, expected, &mut about).await.is_err() || action == Action::Fail {
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    }
    // A cookie of its own by the same name would be a second one.
    if action == Action::CountTwice {
        response.headers_mut().append(SET_COOKIE, format!("{NAME}={OWN}").parse().unwrap());
    }
    response.headers_mut().append(SET_COOKIE, "other=1".parse().unwrap());
    response.extensions_mut().insert(about);
    tick(clock, expected);
    Ok(response)
}

async fn act(
    request: &Request<Incoming>,
    handle: &SessionHandle,
    expected: &Shared,
    about: &mut About,
) -> Result<(), Error> {
    about.may_live = may_live(request.headers(), &lock(expected));
    let failures = lock(expected).failures;
    let loaded = handle.load().await;
    assert!(loaded.is_ok() || lock(expected).failures > failures, "an error that no fault explains");
    let session = loaded?;
    let seen = of(&session);
    note_found(request.headers(), seen, about, &mut lock(expected));
    perform(about.action, &session, seen.is_some()).await?;
    if seen.is_none() && matches!(about.action, Action::Count | Action::CountTwice | Action::Login) {
        let mut expected = lock(expected);
        session.set("line", expected.lines.len())?;
        if about.action == Action::Login {
            session.set("n", 0)?;
        }
        let n = session.get("n")?.expect("a count");
        about.session = Some((expected.lines.len(), n));
        // Known from its first cookie on; the line is there all the same, and ended before it began.
        expected.lines.push(Line { started: n, logouts: 1, ..Line::default() });
    } else {
        about.session = of(&session);
    }
    Ok(())
}

/// Checks the session that a handler got, and notes what the request may do to it and to the others that it brought.
fn note_found(headers: &HeaderMap, seen: Option<(usize, u64)>, about: &mut About, expected: &mut Expected) {
    // One of the genuine cookies counts. A cookie whose session a request is about to end may count or not.
    let mut values = candidates(headers);
    values.sort_unstable();
    values.dedup();
    let known: Vec<(&Token, &String)> = values
        .iter()
        .filter_map(|text| Some((expected.tokens.get(text)?, text)))
        .filter(|(token, _)| token.fate != Fate::Refused)
        .collect();
    let counted = seen.and_then(|(line, n)| {
        let of_line = || known.iter().filter(|(token, _)| token.line == line);
        of_line().find(|(token, _)| token.count == n).or_else(|| of_line().next())
    });
    assert_eq!(seen.is_some(), counted.is_some(), "a session that no cookie leads to");
    // With more, some may not have been tried.
    let certain = values.len() <= 4 && known.iter().any(|(token, _)| token.fate == Fate::Genuine);
    assert!(seen.is_some() || !certain, "a genuine cookie was not found");
    about.may_live |= may_live(headers, expected);
    about.untold = false;
    let same: Vec<_> = known.iter().filter(|(token, _)| Some((token.line, token.count)) == seen).collect();
    // Of more than four, the newest may not have been tried.
    if let ([(_, text)], ..=4) = (&same[..], values.len()) {
        let parent = |text: &&String| expected.parents.get(*text);
        let replaced =
            |(_, other): &(_, &String)| std::iter::successors(parent(other), parent).any(|of| of == *text);
        assert!(!known.iter().any(replaced), "a token counts that another token of the request has replaced");
    }
    let counted = counted.map(|(_, text)| (*text).clone());
    (about.session, about.token) = (seen, counted);
    if about.action == Action::Logout {
        // All sessions that the request brought end, whatever tokens they have by now.
        let brought = values.iter().filter_map(|text| expected.tokens.get(text));
        let superseded = brought.filter(|token| values.len() <= 4 && token.fate == Fate::Refused);
        about.superseded = superseded.map(|token| token.line).collect();
        values.iter().for_each(|text| expected.may_end(text));
    }
    if let (Some((line, _)), Some(text)) = (seen, &about.token) {
        let line = &mut expected.lines[line];
        match about.action {
            Action::Count => line.started += 1,
            Action::CountTwice => line.started += 2,
            Action::Login => line.logins += 1,
            Action::Ping | Action::Look | Action::Fail | Action::Logout => {}
        }
        if about.action == Action::Login {
            expected.tokens.get_mut(text).unwrap().may_end(text);
        }
    }
}

/// Does the work of a handler, with the session that it got.
async fn perform(action: Action, session: &Session, is_stored: bool) -> Result<(), Error> {
    let count = || session.update("n", |n: Option<u64>| n.unwrap_or(0) + 1).map(drop);
    match action {
        Action::Ping | Action::Look => {}
        Action::Count => count()?,
        Action::CountTwice => {
            count()?;
            if is_stored {
                session.save().await?;
            }
            count()?;
        }
        Action::Login => {
            session.regenerate()?;
            session.set("user", "ada")?;
        }
        Action::Logout => session.destroy()?,
        Action::Fail => {
            session.set("n", 1_000_000)?;
            session.set("line", 1_000_000)?;
        }
    }
    Ok(())
}

/// The tokens of sealed sessions are longer than 43 characters.
fn is_sealed_token(token: &str) -> bool {
    token.len() > 43
}

/// True if one of these cookies may be alive, here or on a host that has another key.
fn may_live(headers: &HeaderMap, expected: &Expected) -> bool {
    candidates(headers).iter().any(|value| {
        value == &*STRANGER || expected.tokens.get(value).is_some_and(|token| token.fate == Fate::Genuine)
    })
}

/// The values of the session's name, by the plainest reading.
fn candidates(headers: &HeaderMap) -> Vec<String> {
    let fields =
        headers.get_all(COOKIE).iter().flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
    let pairs = fields.filter_map(|segment| {
        let equals = segment.iter().position(|byte| *byte == b'=')?;
        let trim = |bytes: &[u8]| {
            let text = bytes.iter().map(|byte| char::from(*byte)).collect::<String>();
            text.trim_matches([' ', '\t']).to_owned()
        };
        (trim(&segment[..equals]) == NAME).then(|| trim(&segment[equals + 1..]))
    });
    pairs.collect()
}

/// The response on its way to hyper.
fn answered(response: &Response<Body>, around: Around, expected: &mut Expected) {
    expected.answered += 1;
    let headers = response.headers();
    let set = set_by(headers);
    expected.lines_set += usize::from(set.is_some());
    let Some(about) = response.extensions().get::<About>().cloned() else {
        assert!(
            expected.failures > 0 && response.status() == StatusCode::SERVICE_UNAVAILABLE,
            "{response:?}"
        );
        // A token that an earlier save promised is set even so; the count is somewhere between.
        return;
    };
    assert_eq!(headers.contains_key(VARY), about.asked, "{response:?}");
    if !about.asked {
        assert_eq!(headers.len(), 1, "untouched: {headers:?}");
        return;
    }
    // A service around the handler's may know what the store did not tell that.
    let untold = about.untold && matches!(around, Around::None | Around::OtherCookie);
    if (about.may_live || untold) && about.action != Action::Logout {
        assert_ne!(set.as_deref(), Some(""), "a cookie is removed that may be alive: {about:?}");
    }
    if around == Around::OtherCookie && response.status() == StatusCode::OK {
        let outer = |line: &HeaderValue| line.as_bytes().starts_with(b"o=");
        assert_eq!(headers.get_all(SET_COOKIE).iter().filter(|line| outer(line)).count(), 1, "{headers:?}");
    }
    if response.status() != StatusCode::OK {
        return;
    }
    let token = set.filter(|token| !token.is_empty() && token != OWN);
    match (about.action, about.session) {
        (Action::Count | Action::CountTwice | Action::Login, Some((line, n))) => {
            let Some(token) = token else {
                assert!(
                    expected.lines[line].logins + expected.lines[line].logouts > 0,
                    "not saved: {about:?}"
                );
                return;
            };
            let state = &mut expected.lines[line];
            match about.action {
                _ if about.token.is_none() => (state.done, state.logouts) = (n, 0),
                Action::Count => state.done += 1,
                Action::CountTwice => state.done += 2,
                _ => {}
            }
            if let Some(old) = about.token.as_ref().filter(|old| **old != token && !is_sealed_token(old)) {
                expected.tokens.get_mut(old).unwrap().fate = Fate::Refused;
            }
            // A logout with the old token may have found the new one already.
            let is_ended =
                about.token.is_some() && expected.lines[line].logouts > 0 && !is_sealed_token(&token);
            let new = if is_ended { Fate::MayBeEither } else { Fate::Genuine };
            let fate = expected.tokens.get(&token).map_or(new, |token| token.fate);
            if let Some(old) = about.token.as_ref().filter(|old| **old != token) {
                expected.parents.insert(token.clone(), old.clone());
            }
            expected.tokens.insert(token.clone(), Token { line, count: n, fate });
            expected.latest = token;
        }
        (Action::Logout, _) => {
            if let Some(token) = token {
                // Several came: a tombstone, which no session is found in.
                assert!(
                    is_sealed_token(&token) && look(&*STORE, &token).is_none(),
                    "logged out, with a cookie"
                );
            }
            if let Some(old) = &about.token {
                let token = expected.tokens.get_mut(old).unwrap();
                expected.lines[token.line].logged_out = true;
                token.fate = if is_sealed_token(old) { Fate::Genuine } else { Fate::Refused };
            }
            for line in about.superseded {
                expected.lines[line].logged_out = true;
            }
        }
        _ => assert_eq!(token, None, "a cookie for looking: {about:?}"),
    }
}
