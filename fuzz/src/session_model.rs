//! Two clients, requests at once, faults and departures: whatever comes, the store holds what the model says.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use http::header::{COOKIE, SET_COOKIE};
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::service::Service;
use hyper_session::cookie::CookieOptions;
use hyper_session::store::Memory;
use hyper_session::testing::FakeClock;
use hyper_session::{Clock, Error, ServerStore, Session, SessionHandle, SessionId, session_fn};
use tokio::task::yield_now;

use crate::model::{ABSOLUTE, Change, IDLE, Log, Server, Values};
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

struct Client {
    token: Option<String>,
    /// The request that it sent, and waits for.
    request: Option<(usize, Pin<Box<dyn Future<Output = Answer> + Send>>)>,
}

struct Play {
    server: Server,
    clock: FakeClock,
    clients: [Client; 2],
    /// Every token that a client was given, and the session that it was given for.
    tokens: Vec<(String, SessionId)>,
    numbers: u64,
}

/// Any steps of two clients over one backend. See [`model`](crate::model) for what must hold at each of them.
pub fn session_model(data: &[u8]) {
    let Ok(steps) = Vec::<Step>::arbitrary(&mut Unstructured::new(data)) else { return };
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().build().unwrap();
    }
    RUNTIME.with(|runtime| runtime.block_on(play(steps)));
}

async fn play(steps: Vec<Step>) {
    let clock = FakeClock::at(NOW);
    let server =
        Server { world: Arc::default(), memory: Arc::new(Memory::new()), clock: clock.clone(), request: 0 };
    let client = || Client { token: None, request: None };
    let mut play = Play { server, clock, clients: [client(), client()], tokens: Vec::new(), numbers: 0 };
    for step in steps.into_iter().take(40) {
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
            Step::Wait(steps) => play.clock.advance(Duration::from_secs(10_000 * u64::from(steps))),
            Step::Borrow(client) => {
                play.clients[usize::from(client)].token = play.clients[usize::from(!client)].token.clone();
            }
            Step::Replay(client, which) if !play.tokens.is_empty() => {
                let (token, _) = &play.tokens[usize::from(which) % play.tokens.len()];
                play.clients[usize::from(client)].token = Some(token.clone());
            }
            Step::Replay(..) => {}
        }
        play.server.compare().await;
    }
    for client in [false, true] {
        play.finish(client).await;
    }
    play.server.lock().fault = None;
    // Whatever anyone ever held leads to its session or to none. (Whether it is the session that the model has, the backend
    // checks when it is asked.)
    for (token, id) in std::mem::take(&mut play.tokens) {
        play.clients[0].token = Some(token);
        play.begin(false, Vec::new(), Ending::Err);
        play.finish(false).await;
        let world = play.server.lock();
        let base = world.requests.last().and_then(|request| request.base);
        let now = play.clock.now().as_unix();
        let lives = world.sessions.get(&id).is_some_and(|entry| entry.expires > now);
        assert_eq!(base, lives.then_some(id));
    }
}

impl Play {
    fn begin(&mut self, client: bool, deeds: Vec<Deed>, ending: Ending) {
        let mut server = self.server.clone();
        let number = server.lock().requests.len();
        server.request = number;
        server.lock().requests.push(crate::model::Request::default());
        let store = ServerStore::with_backend(server.clone())
            .cookie(CookieOptions::development().name(NAME))
            .idle_timeout(Duration::from_secs(IDLE))
            .absolute_timeout(Duration::from_secs(ABSOLUTE))
            .clock(self.clock.clone())
            .build()
            .unwrap();
        let first = self.numbers;
        self.numbers += deeds.len() as u64;
        let service = session_fn(store, move |_: Request<Body>, handle: SessionHandle| {
            let (server, deeds) = (server.clone(), deeds.clone());
            async move { handle_request(&server, &handle, &deeds, ending, first).await }
        });
        let client = &mut self.clients[usize::from(client)];
        let mut request = Request::new(Body::new());
        if let Some(token) = &client.token {
            request.headers_mut().insert(COOKIE, format!("{NAME}={token}").try_into().unwrap());
        }
        client.request = Some((number, Box::pin(service.call(request))));
    }

    async fn poll(&mut self, client: bool) {
        yield_now().await;
        let Some((number, request)) = &mut self.clients[usize::from(client)].request else { return };
        if let Poll::Ready(answer) = request.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            let number = *number;
            self.clients[usize::from(client)].request = None;
            self.answered(client, number, answer);
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

    fn answered(&mut self, client: bool, number: usize, answer: Answer) {
        let world = self.server.lock();
        let request = &world.requests[number];
        let response = answer.expect("an error is a response");
        match response.status() {
            StatusCode::OK => {
                assert!(!request.void && !request.is_unsaved(), "lost without a word: {request:?}");
            }
            StatusCode::INTERNAL_SERVER_ERROR => {}
            _ => assert!(request.void || request.faulted, "an error that no fault explains"),
        }
        let lines: Vec<_> = response.headers().get_all(SET_COOKIE).iter().collect();
        assert!(lines.len() <= 1, "one cookie, one line");
        let Some(line) = lines.first() else { return };
        let value = line.to_str().unwrap().split(';').next().unwrap().strip_prefix("s=").unwrap();
        let client = &mut self.clients[usize::from(client)];
        if value.is_empty() {
            assert_eq!(request.base, None, "the cookie of a session that lives is removed: {request:?}");
            client.token = None;
            return;
        }
        let id = request.base.expect("a cookie without a session");
        client.token = Some(value.to_owned());
        match self.tokens.iter().find(|(token, known)| token == value || *known == id) {
            Some(known) => assert_eq!((&*known.0, known.1), (value, id), "one token, one id"),
            None => self.tokens.push((value.to_owned(), id)),
        }
    }

    /// The client hangs up: what must not be undone by that is done all the same.
    async fn leave(&mut self, client: bool) {
        let Some((number, request)) = self.clients[usize::from(client)].request.take() else { return };
        let ending = {
            let mut world = self.server.lock();
            let request = &mut world.requests[number];
            let ends = request.log.destroy || request.log.regenerate;
            request.void |= !request.committing;
            request.base.filter(|_| ends && request.committing && !request.void)
        };
        drop(request);
        for _ in 0..200 {
            yield_now().await;
        }
        let world = self.server.lock();
        if let Some(id) = ending.filter(|_| !world.requests[number].faulted) {
            assert!(!world.sessions.contains_key(&id), "logged in for good, by hanging up");
        }
    }
}

async fn handle_request(
    server: &Server,
    handle: &SessionHandle,
    deeds: &[Deed],
    ending: Ending,
    first: u64,
) -> Answer {
    let request =
        |act: &mut dyn FnMut(&mut crate::model::Request)| act(&mut server.lock().requests[server.request]);
    let session = match handle.load().await {
        Ok(session) => session,
        Err(error) => {
            request(&mut |request| assert!(request.faulted, "{error}"));
            return Err(error);
        }
    };
    let mut base = None;
    request(&mut |request| base = request.base);
    assert_eq!(session.id(), base);
    for (number, deed) in (first + 1..).zip(deeds) {
        if let Deed::Save = deed {
            request(&mut |request| request.begin_commit(server.clock.now(), false, true));
            let saved = session.save().await;
            request(&mut |request| {
                request.committing = false;
                match &saved {
                    Ok(()) => assert!(!request.is_unsaved(), "lost without a word"),
                    Err(error) if error.is_ended() => assert!(request.ended),
                    Err(error) => {
                        assert!(request.faulted, "{error}");
                        request.failed = Some(std::mem::take(&mut request.log));
                        return;
                    }
                }
                request.log = Log::default();
            });
        } else {
            request(&mut |request| {
                perform(*deed, number, &session, request);
            });
        }
        request(&mut |request| assert_eq!(read(&session), request.view(), "{deed:?}"));
    }
    request(&mut |request| match ending {
        Ending::Ok => request.begin_commit(server.clock.now(), true, true),
        Ending::Err => request.void = true,
        Ending::ServerError => request.begin_commit(server.clock.now(), true, false),
    });
    let mut response = Response::new(Body::new());
    match ending {
        Ending::Ok => Ok(response),
        Ending::Err => Err(Error::unavailable("the handler's own")),
        Ending::ServerError => {
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            Ok(response)
        }
    }
}

fn read(session: &Session) -> Values {
    session
        .keys()
        .into_iter()
        .map(|key| (key.clone(), session.get(&key).unwrap().expect("a value")))
        .collect()
}

/// A number of 44 bits that no few others add up to (the mixer of SplitMix64).
fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ mixed >> 31) >> 20
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
            let amount = mixed(number);
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
            if !request.view().is_empty() {
                request.retry();
                (request.log.keys, request.log.cleared) = (Default::default(), true);
            }
        }
        Deed::Regenerate => {
            session.regenerate().unwrap();
            request.log.regenerate = true;
            if (request.overtaken || request.expired) && request.base.is_none() {
                request.ended = false;
            }
        }
        Deed::Destroy => {
            session.destroy().unwrap();
            request.failed = None;
            request.log = Log { cleared: true, destroy: true, ..Log::default() };
            request.ended = false;
        }
        Deed::Save => unreachable!("saved where it can be waited for"),
    }
}
