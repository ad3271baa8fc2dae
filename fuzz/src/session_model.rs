//! Two clients, requests at once, faults and departures, clocks that differ, cookies of former scopes, services around
//! services: whatever comes, the store holds what the model says, and the browser what was said last and strongest.

use std::future::Future;
use std::hash::Hasher;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use http::header::{COOKIE, SET_COOKIE};
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::service::{Service, service_fn};
use hyper_session::__internals::with_bytes_of;
use hyper_session::cookie::CookieOptions;
use hyper_session::store::Memory;
use hyper_session::testing::FakeClock;
use hyper_session::{
    Clock, Error, ServerStore, Session, SessionExt, SessionHandle, SessionId, SessionService, session_fn,
};
use tokio::task::yield_now;

use crate::model::{ABSOLUTE, Change, Cookie, IDLE, Log, Said, Server, Values, Weight, mixed};
use crate::{NAME, NOW};

type Body = Empty<bytes::Bytes>;
type Answer = Result<Response<Body>, Error>;

/// An action of a handler on its session.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Deed {
    Set(u8),
    Add(u8),
    Delete(u8),
    Clear,
    Regenerate,
    Destroy,
    Save,
}

/// How it answers.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq)]
enum Ending {
    Ok,
    ServerError,
    Err,
}

#[derive(Arbitrary, Debug)]
enum Step {
    /// A client sends a request; one that is on its way is answered first.
    Begin { client: bool, deeds: Vec<Deed>, ending: Ending },
    /// One primitive of a client's request.
    Poll(bool),
    /// All that is left of it.
    Finish(bool),
    /// The client goes away.
    Drop(bool),
    /// A primitive to come fails, or its answer is lost.
    Fault { after: u8, done: bool },
    /// Time passes, in steps of 10,000 seconds.
    Wait(u8),
    /// A client takes the cookie of the other one.
    Borrow(bool),
    /// A client presents a token that someone once had.
    Replay(bool, u8),
}

/// A circumstance that changes before a step.
#[derive(Arbitrary, Clone, Debug)]
enum Circumstance {
    /// A client holds a cookie of the name in another scope, too, which it sends before or after the others.
    Beside { client: bool, value: Value, first: bool },
    /// It loses these.
    Alone(bool),
    /// The clock of its host is set: so many steps of eight seconds ahead of the time or behind.
    Clock { client: bool, offset: i16 },
    /// Its next request passes through another session service first.
    Around { client: bool, around: Around },
}

/// The value of a cookie.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Value {
    /// A token that a client was given once.
    Issued(u8),
    /// The same form, and no session's.
    Unknown(u8),
    /// Not of the form of a token.
    Foreign(u8),
}

/// A session service around the one of the handler.
#[derive(Arbitrary, Clone, Debug)]
struct Around {
    /// Both have the same store, and the inner one finds the session of the outer one. Otherwise they have the cookie and the
    /// backend in common.
    shared: bool,
    /// It looks at its session before the request goes on, or only afterwards.
    early: bool,
    before: Vec<Deed>,
    after: Vec<Deed>,
}

/// Steps, and circumstances with the number of the step that each comes before.
#[derive(Arbitrary, Debug)]
struct Script {
    steps: Vec<Step>,
    circumstances: Vec<(u8, Circumstance)>,
}

/// How many cookies of one name a request may have so that all are looked up.
const MAX_COOKIES: usize = 4;

type Tokens = Arc<Mutex<Vec<(String, SessionId)>>>;

struct Client {
    token: Option<String>,
    /// Cookies of the same name in other scopes, which come before that one and after it.
    beside: [Vec<String>; 2],
    around: Option<Around>,
    /// The request that it sent, and waits for, and the numbers that it has in the model: one for each service.
    request: Option<(Vec<usize>, Pin<Box<dyn Future<Output = Answer> + Send>>)>,
    /// The clock of the host that has its requests, and how far it is from the time.
    clock: FakeClock,
    offset: i64,
}

struct Play {
    server: Server,
    now: u64,
    clients: [Client; 2],
    /// Every token that a client was given, and the session that it was given for.
    tokens: Tokens,
    numbers: u64,
}

/// Any steps of two clients over one backend. See [`model`](crate::model) for what must hold at each of them.
pub fn session_model(data: &[u8]) {
    session_model_trace(data);
}

/// Does the same, and returns a hash of what the store did, which is the same each time.
pub fn session_model_trace(data: &[u8]) -> Option<u64> {
    let script = Script::arbitrary(&mut Unstructured::new(data)).ok()?;
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().build().unwrap();
    }
    Some(RUNTIME.with(|runtime| runtime.block_on(play(script))))
}

async fn play(script: Script) -> u64 {
    let clocks = [FakeClock::at(NOW), FakeClock::at(NOW)];
    let server = Server {
        world: Arc::default(),
        memory: Arc::new(Memory::new()),
        clock: clocks[0].clone(),
        request: 0,
    };
    let clients = clocks.map(|clock| Client {
        token: None,
        beside: [Vec::new(), Vec::new()],
        around: None,
        request: None,
        clock,
        offset: 0,
    });
    let mut play = Play { server, now: NOW, clients, tokens: Tokens::default(), numbers: 0 };
    play.set_clocks();
    for (number, step) in script.steps.into_iter().take(40).enumerate() {
        for (_, circumstance) in script.circumstances.iter().filter(|(at, _)| usize::from(*at) == number) {
            play.change(circumstance.clone());
        }
        match step {
            Step::Begin { client, mut deeds, ending } => {
                deeds.truncate(6);
                play.finish(client).await;
                play.begin(client, deeds, ending);
            }
            Step::Poll(client) => play.poll(client).await,
            Step::Finish(client) => play.finish(client).await,
            Step::Drop(client) => play.leave(client).await,
            Step::Fault { after, done } => play.server.lock().fault = Some((after % 8, done)),
            Step::Wait(steps) => {
                play.now += 10_000 * u64::from(steps);
                play.set_clocks();
            }
            Step::Borrow(client) => {
                play.clients[usize::from(client)].token = play.clients[usize::from(!client)].token.clone();
            }
            Step::Replay(client, which) => {
                if let Some(token) = play.issued(which) {
                    play.clients[usize::from(client)].token = Some(token);
                }
            }
        }
        play.server.compare().await;
    }
    for client in [false, true] {
        play.finish(client).await;
    }
    play.server.compare().await;
    play.server.lock().fault = None;
    // Whatever anyone ever held leads to its session or to none. (Whether it is the session that the model has, the backend
    // checks when it is asked.)
    let client = &mut play.clients[0];
    (client.around, client.beside) = (None, [Vec::new(), Vec::new()]);
    let tokens = std::mem::take(&mut *play.tokens.lock().unwrap());
    for (token, id) in tokens {
        play.clients[0].token = Some(token);
        play.begin(false, Vec::new(), Ending::Err);
        play.finish(false).await;
        let world = play.server.lock();
        let base = world.requests.last().and_then(|request| request.base);
        let now = play.clients[0].clock.now().as_unix();
        let lives = world.sessions.get(&id).is_some_and(|entry| entry.expires > now);
        assert_eq!(base, lives.then_some(id));
    }
    play.server.compare().await;
    let world = play.server.lock();
    world.trace.finish()
}

impl Play {
    /// A token that a client was given once.
    fn issued(&self, which: u8) -> Option<String> {
        let tokens = self.tokens.lock().unwrap();
        let which = usize::from(which).checked_rem(tokens.len())?;
        Some(tokens[which].0.clone())
    }

    fn change(&mut self, circumstance: Circumstance) {
        match circumstance {
            Circumstance::Beside { client, value, first } => {
                let value = match value {
                    Value::Issued(which) => self.issued(which),
                    // The last of 43 characters has two bits that carry no data, and must be zero.
                    Value::Unknown(which) => {
                        Some(format!("{}A", char::from(b'a' + which % 26).to_string().repeat(42)))
                    }
                    Value::Foreign(which) => Some("x".repeat(usize::from(which))),
                };
                let beside = &mut self.clients[usize::from(client)].beside;
                if beside.iter().flatten().count() < MAX_COOKIES - 1 {
                    beside[usize::from(!first)].extend(value);
                }
            }
            Circumstance::Alone(client) => {
                self.clients[usize::from(client)].beside = [Vec::new(), Vec::new()];
            }
            Circumstance::Clock { client, offset } => {
                self.clients[usize::from(client)].offset = 8 * i64::from(offset);
                self.set_clocks();
            }
            Circumstance::Around { client, mut around } => {
                around.before.truncate(4);
                around.after.truncate(4);
                self.clients[usize::from(client)].around = Some(around);
            }
        }
    }

    /// Each host's clock shows the time, as far as it knows.
    fn set_clocks(&mut self) {
        for client in &self.clients {
            let now = self.now.checked_add_signed(client.offset).expect("years after 1970");
            client.clock.set(now);
            let mut world = self.server.lock();
            world.latest = world.latest.max(now);
        }
    }

    /// A session service of its own, with a request in the model.
    fn server(&self, client: bool, cookies: &[Cookie]) -> Server {
        let mut server = self.server.clone();
        server.clock = self.clients[usize::from(client)].clock.clone();
        let requests = &mut server.world.lock().unwrap().requests;
        server.request = requests.len();
        requests.push(crate::model::Request::new(cookies));
        server.clone()
    }

    fn begin(&mut self, client: bool, deeds: Vec<Deed>, ending: Ending) {
        let Client { token, beside: [first, last], around, .. } = &mut self.clients[usize::from(client)];
        let values: Vec<_> = first.iter().chain(token.iter()).chain(last.iter()).cloned().collect();
        let around = around.take();
        let is_token = |value: &String| if value.len() == 43 { Cookie::Token } else { Cookie::Foreign };
        let cookies: Vec<_> = values.iter().map(is_token).collect();
        let mut request = Request::new(Body::new());
        if !values.is_empty() {
            let pairs: Vec<_> = values.iter().map(|value| format!("{NAME}={value}")).collect();
            request.headers_mut().insert(COOKIE, pairs.join("; ").try_into().unwrap());
        }
        let mut first = self.numbers;
        let mut numbered = |deeds: &[Deed]| {
            let numbers = first + 1..;
            first += deeds.len() as u64;
            numbers.zip(deeds.iter().copied()).collect::<Deeds>()
        };
        let deeds = numbered(&deeds);
        let inner = self.server(client, &cookies);
        let (numbers, future): (_, Pin<Box<dyn Future<Output = Answer> + Send>>) = match around {
            None => {
                let numbers = vec![inner.request];
                (numbers, Box::pin(service(inner, deeds, ending).call(request)))
            }
            Some(Around { shared: true, before, after, .. }) => {
                let (before, after) = (numbered(&before), numbered(&after));
                let numbers = vec![inner.request];
                let store = store(&inner);
                let server = inner.clone();
                let service = session_fn(store.clone(), move |_: Request<Body>, handle: SessionHandle| {
                    let (server, deeds) = (inner.clone(), deeds.clone());
                    async move {
                        perform_all(&server, &handle.load().await?, &deeds).await;
                        Ok::<_, Error>(Response::new(Body::new()))
                    }
                });
                let outer = service_fn(move |request: Request<Body>| {
                    let (server, before, after) = (server.clone(), before.clone(), after.clone());
                    let handle = request.session_handle().expect("a session service");
                    let inner = service.call(request);
                    async move {
                        let session = load(&server, &handle).await?;
                        perform_all(&server, &session, &before).await;
                        let response = inner.await?;
                        assert!(response.headers().is_empty(), "one session, and two commits");
                        perform_all(&server, &session, &after).await;
                        answer(&server, ending)
                    }
                });
                (numbers, Box::pin(SessionService::new(outer, store).call(request)))
            }
            Some(Around { shared: false, early, before, after }) => {
                let (before, after) = (numbered(&before), numbered(&after));
                let outer = self.server(client, &cookies);
                let numbers = vec![inner.request, outer.request];
                let (tokens, number) = (self.tokens.clone(), inner.request);
                let service = service(inner, deeds, ending);
                let outer_store = store(&outer);
                let service =
                    session_fn(outer_store, move |request: Request<Body>, handle: SessionHandle| {
                        let (server, before, after) = (outer.clone(), before.clone(), after.clone());
                        let (inner, tokens) = (service.call(request), tokens.clone());
                        async move {
                            let mut session = None;
                            if early {
                                let early = load(&server, &handle).await?;
                                perform_all(&server, &early, &before).await;
                                session = Some(early);
                            }
                            let response = inner.await?;
                            let said = answered(&server, number, &response, &tokens);
                            server.lock().requests[number].answer = said;
                            server.request(|request| request.said = said);
                            let (session, rest) = match session {
                                Some(session) => (session, after),
                                None => {
                                    // A handler that returned the error would throw away the token of the inner service.
                                    let Ok(session) = load(&server, &handle).await else {
                                        return Ok(response);
                                    };
                                    (session, before.into_iter().chain(after).collect())
                                }
                            };
                            perform_all(&server, &session, &rest).await;
                            let accepts = response.status() == StatusCode::OK;
                            conclude(&server, accepts);
                            Ok(response)
                        }
                    });
                (numbers, Box::pin(service.call(request)))
            }
        };
        self.numbers = first;
        self.clients[usize::from(client)].request = Some((numbers, future));
    }

    async fn poll(&mut self, client: bool) {
        yield_now().await;
        let Some((_, request)) = &mut self.clients[usize::from(client)].request else { return };
        let Poll::Ready(answer) = request.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
            return;
        };
        let client = &mut self.clients[usize::from(client)];
        let server = Server { clock: client.clock.clone(), ..self.server.clone() };
        let (numbers, _) = client.request.take().expect("it is being answered");
        let response = answer.expect("an error is a response");
        let said = match numbers[..] {
            [number] => answered(&server, number, &response, &self.tokens),
            [inner, outer] => answered_twice(&server, [inner, outer], &response, &self.tokens),
            _ => unreachable!("one or two services"),
        };
        match said {
            None => {}
            Some(Said::Removed) => client.token = None,
            Some(Said::Set(id)) => {
                let tokens = self.tokens.lock().unwrap();
                client.token = tokens.iter().find(|(_, known)| *known == id).map(|(token, _)| token.clone());
            }
        }
    }

    async fn finish(&mut self, client: bool) {
        for _ in 0..1_000 {
            if self.clients[usize::from(client)].request.is_none() {
                return;
            }
            self.poll(client).await;
        }
        panic!("a request that does not end");
    }

    /// The client hangs up: what must not be undone by that is done all the same.
    async fn leave(&mut self, client: bool) {
        let Some((numbers, request)) = self.clients[usize::from(client)].request.take() else { return };
        let ending: Vec<_> = {
            let mut world = self.server.lock();
            let ends = |number: &usize| {
                let request = &mut world.requests[*number];
                let ends = request.log.destroy || request.log.regenerate;
                request.void |= !request.committing;
                let id = request.base.filter(|_| ends && request.committing && !request.void)?;
                Some((*number, id, request.followed))
            };
            numbers.iter().filter_map(ends).collect()
        };
        drop(request);
        for _ in 0..200 {
            yield_now().await;
        }
        let world = self.server.lock();
        for (number, id, followed) in ending {
            let request = &world.requests[number];
            // It went on from the session inside, and its own is one whose token no client has.
            let gave_up = request.followed && !followed && request.created.contains(&id);
            let lives = !request.faulted && !gave_up && world.sessions.contains_key(&id);
            assert!(!lives, "logged in for good, by hanging up");
        }
    }
}

fn store(server: &Server) -> ServerStore<Server> {
    let world = Arc::clone(&server.world);
    let builder = ServerStore::with_backend(server.clone())
        .cookie(CookieOptions::development().name(NAME))
        .idle_timeout(Duration::from_secs(IDLE))
        .absolute_timeout(Duration::from_secs(ABSOLUTE))
        .clock(server.clock.clone());
    with_bytes_of(builder, move |out| world.lock().unwrap().draw(out)).build().unwrap()
}

/// A session service whose handler loads its session, does its deeds, and answers.
fn service(
    server: Server,
    deeds: Deeds,
    ending: Ending,
) -> impl Service<
    Request<Body>,
    Response = Response<Body>,
    Error = Error,
    Future = impl Future<Output = Answer> + Send,
> {
    session_fn(store(&server), move |_: Request<Body>, handle: SessionHandle| {
        let (server, deeds) = (server.clone(), deeds.clone());
        async move {
            let session = load(&server, &handle).await?;
            perform_all(&server, &session, &deeds).await;
            answer(&server, ending)
        }
    })
}

/// The statement of a response about the cookie. Its token, if it has one, was given to a client for this session before, or never.
fn said(response: &Response<Body>, tokens: &Tokens, base: &[Option<SessionId>]) -> Option<Said> {
    let lines = response.headers().get_all(SET_COOKIE).iter();
    let lines: Vec<_> = lines.map(|line| line.to_str().unwrap().strip_prefix("s=").unwrap()).collect();
    let (line, others) = lines.split_last()?;
    // The same name in other scopes, where earlier options may have set it.
    let scope = |line: &str| line.split_once("; Path=").map(|(_, scope)| scope.to_owned());
    let mut scopes = std::collections::BTreeSet::from([scope(line)]);
    for other in others {
        assert!(other.starts_with("; Max-Age=0; "), "two cookies of one name: {lines:?}");
        assert!(scopes.insert(scope(other)), "one cookie, one line: {lines:?}");
    }
    let value = line.split(';').next().unwrap();
    if value.is_empty() {
        return Some(Said::Removed);
    }
    let mut tokens = tokens.lock().unwrap();
    if let Some((_, id)) = tokens.iter().find(|(token, _)| token == value) {
        return Some(Said::Set(*id));
    }
    let new = |id: &&SessionId| tokens.iter().all(|(_, known)| known != *id);
    let id = *base.iter().flatten().find(new).expect("a cookie without a session, or its second one");
    tokens.push((value.to_owned(), id));
    Some(Said::Set(id))
}

/// The response of a session service, with its request in the model.
fn answered(server: &Server, number: usize, response: &Response<Body>, tokens: &Tokens) -> Option<Said> {
    let world = server.lock();
    let request = &world.requests[number];
    // The token of an earlier save is sent if the end of that session was not acknowledged in full.
    let ended = request.created.iter().find(|id| request.has_half_ended(**id)).copied();
    let said = said(response, tokens, &[request.base, ended]);
    match response.status() {
        StatusCode::OK => {
            assert!(!request.void && !request.is_unsaved(), "lost without a word: {request:?}");
            if request.ends && request.weight == Weight::End && !request.faulted {
                let left = request.others.iter().find(|id| world.sessions.contains_key(id));
                assert_eq!(left, None, "logged out, and logged in by another cookie: {request:?}");
            }
        }
        StatusCode::INTERNAL_SERVER_ERROR => {}
        _ => assert!(
            request.failed_itself || request.void || request.faulted,
            "an error that no fault explains"
        ),
    }
    let lives = request.until > server.clock.now().as_unix();
    if let Some(id) = request.base.filter(|id| request.created.contains(id) && lives) {
        assert_eq!(said, Some(Said::Set(id)), "saved, and the client was not told: {request:?}");
    }
    match said {
        None => {}
        Some(Said::Removed) => {
            assert_eq!(request.base, None, "the cookie of a session that lives is removed: {request:?}");
            let dead = request.dead || request.ends;
            assert!(dead, "a cookie is removed that is not known to be dead: {request:?}");
        }
        Some(Said::Set(id)) => {
            assert!(request.base == Some(id) || request.has_half_ended(id), "{request:?}");
        }
    }
    said
}

/// The response of a service around another service.
fn answered_twice(
    server: &Server,
    numbers: [usize; 2],
    response: &Response<Body>,
    tokens: &Tokens,
) -> Option<Said> {
    let world = server.lock();
    let [inner, outer] = numbers.map(|number| &world.requests[number]);
    match response.status() {
        StatusCode::OK => assert!(!outer.void && !outer.is_unsaved(), "lost without a word: {outer:?}"),
        StatusCode::INTERNAL_SERVER_ERROR => {}
        _ => {
            let explained =
                [inner, outer].iter().any(|request| request.failed_itself || request.void || request.faulted);
            assert!(explained, "an error that no fault explains");
        }
    }
    // As for one service: the token of an earlier save, if the end of that session was not acknowledged in full.
    let ended = outer.created.iter().find(|id| outer.has_half_ended(**id)).copied();
    let said = said(response, tokens, &[outer.base, ended]);
    // The stronger one is heard. Changes of the outer service to the inner one's session are in the same cookie. A session
    // that the outer one has begun from nothing is not the session that the inner one removed.
    let began = inner.answer == Some(Said::Removed) && outer.began;
    // A session that the inner one saved too late for a cookie is not said, nor that it ended a session that it replaces.
    let inner_weight = match inner.answer {
        None => Weight::Nothing,
        Some(Said::Set(_)) if inner.weight == Weight::End => Weight::Login,
        Some(_) => inner.weight,
    };
    let outer_may = outer.followed || outer.inner_gone || began || outer.weight >= inner_weight;
    let by_outer = match said {
        None => false,
        Some(Said::Set(id)) => outer.base == Some(id) || outer.has_half_ended(id),
        // It ended its session, and the store did not confirm what it then did to the session of the inner one.
        Some(Said::Removed) if outer.faulted && outer.weight == Weight::End => true,
        Some(Said::Removed) => outer.base.is_none() && (outer.dead || outer.ends),
    };
    // A change outside yields to whatever session the inner one goes on with.
    // Its session or cookie has expired, or the session of its login is gone, or the store did not confirm what it says.
    let late = outer.faulted
        || outer.expired
        || outer.ended && outer.weight == Weight::Login
        || outer.base.is_some() && outer.until <= server.clock.now().as_unix();
    let inner_may = outer.followed || late || outer.weight <= Weight::Change || inner_weight >= outer.weight;
    let by_inner = said == inner.answer && inner_may;
    assert!(by_outer && outer_may || by_inner, "a weaker statement wins: {said:?} {inner:?} {outer:?}");
    said
}

/// The session of a request, as the model has it.
async fn load(server: &Server, handle: &SessionHandle) -> Result<Session, Error> {
    server.request(|request| request.begin_load(server.clock.now()));
    let session = handle.load().await;
    server.request(|request| match &session {
        Ok(session) => request.end_load(session.id()),
        Err(error) => assert!(request.faulted, "{error}"),
    });
    session
}

type Deeds = Vec<(u64, Deed)>;

async fn perform_all(server: &Server, session: &Session, deeds: &Deeds) {
    for (number, deed) in deeds {
        if let Deed::Save = deed {
            server.request(|request| request.begin_commit(server.clock.now(), false, true));
            let saved = session.save().await;
            server.request(|request| {
                request.committing = false;
                match &saved {
                    Ok(()) => {
                        assert!(!request.is_unsaved(), "lost without a word");
                        (request.was_ended, request.end_failed) = (false, false);
                    }
                    Err(error) if error.is_ended() => {
                        assert!(request.ended);
                        request.end_failed = false; // it knows now that its session is gone
                    }
                    Err(error) => {
                        assert!(request.faulted, "{error}");
                        request.fail();
                        return;
                    }
                }
                request.log = Log::default();
            });
        } else {
            server.request(|request| perform(*deed, *number, session, request));
        }
        server.request(|request| assert_eq!(read(session), request.view(), "{deed:?}"));
    }
}

/// The handler is done.
fn conclude(server: &Server, accepts: bool) {
    server.request(|request| request.begin_commit(server.clock.now(), true, accepts));
}

/// The handler answers.
fn answer(server: &Server, ending: Ending) -> Answer {
    let mut response = Response::new(Body::new());
    match ending {
        Ending::Ok => conclude(server, true),
        Ending::Err => {
            conclude(server, false);
            server.request(|request| request.failed_itself = true);
            return Err(Error::unavailable("the handler's own"));
        }
        Ending::ServerError => {
            conclude(server, false);
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        }
    }
    Ok(response)
}

fn read(session: &Session) -> Values {
    session
        .keys()
        .into_iter()
        .map(|key| (key.clone(), session.get(&key).unwrap().expect("a value")))
        .collect()
}

/// Does a deed to the session and to the model of it. Numbers are never used twice, so no write is one of what is there.
fn perform(deed: Deed, number: u64, session: &Session, request: &mut crate::model::Request) {
    let name = |key: u8| ["a", "b", "c"][usize::from(key % 3)].to_owned();
    match deed {
        Deed::Set(key) => {
            request.mend(&name(key));
            session.set(&name(key), number).unwrap();
            request.log.keys.insert(name(key), Change::Set(number));
        }
        Deed::Add(key) => {
            request.mend(&name(key));
            let amount = mixed(number) >> 20; // no few others add up to it, and many stay below 2^64
            session.update(&name(key), move |old: Option<u64>| old.unwrap_or(0) + amount).unwrap();
            let change = match request.log.keys.get(&name(key)) {
                Some(Change::Set(value)) => Change::Set(value + amount),
                Some(Change::Add(before)) => Change::Add(before + amount),
                Some(Change::Delete) => Change::Set(amount),
                None if request.log.cleared => Change::Set(amount),
                None => Change::Add(amount),
            };
            request.log.keys.insert(name(key), change);
        }
        Deed::Delete(key) => {
            request.mend(&name(key));
            session.delete(&name(key)).unwrap();
            // A value that this request itself had made is as if it had never been.
            if !request.log.cleared && request.known.contains_key(&name(key)) {
                request.log.keys.insert(name(key), Change::Delete);
            } else {
                request.log.keys.remove(&name(key));
            }
        }
        Deed::Clear => {
            session.clear().unwrap();
            if request.mentions_values() {
                request.retry();
                (request.log.keys, request.log.cleared) = (Default::default(), true);
            }
        }
        Deed::Regenerate => {
            session.regenerate().unwrap();
            request.log.regenerate = true;
            request.begin_another(&Log { regenerate: true, ..Log::default() });
        }
        Deed::Destroy => {
            session.destroy().unwrap();
            request.failed = None;
            request.log = Log { cleared: true, destroy: true, ..Log::default() };
            request.begin_another(&Log { destroy: true, ..Log::default() });
        }
        Deed::Save => unreachable!("saved where it can be waited for"),
    }
}
