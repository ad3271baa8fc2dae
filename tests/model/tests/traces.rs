//! Runs of the code, recorded call by call: the model must make the same calls, and get the same replies.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::header::{COOKIE, SET_COOKIE};
use http::{Request, Response};
use hyper::service::Service;
use hyper_session::store::{Backend, EntryId, Memory, MigratingStore, Replaced, Stored};
use hyper_session::testing::{Cookies, FakeClock, session_in};
use hyper_session::{Error, ServerStore, SessionHandle, Timestamp, session_fn};
use hyper_session_model::backend::{Call, Content, List, Place, Reply, Revision};
use hyper_session_model::request::{Answer, Deed, Mistake};
use hyper_session_model::store::{Scenario, Stage, State};
use stateright::{Expectation, Model};

const SUBJECT: &str = "ada";

thread_local! {
    /// The state of the generator that decides on everything.
    static RANDOM: Cell<u64> = const { Cell::new(1) };
    static RECORDED: RefCell<Vec<Recorded>> = const { RefCell::new(Vec::new()) };
    static RECORDS: Cell<bool> = const { Cell::new(false) };
    /// The entry of which some calls fail, while a request is polled that does without them.
    static FAILING: Cell<Option<EntryId>> = const { Cell::new(None) };
}

fn random(below: usize) -> usize {
    let next = RANDOM.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    RANDOM.set(next);
    usize::try_from(next >> 33).unwrap() % below
}

/// A call of the code, with the values that it wrote and read.
#[derive(Debug)]
struct Recorded {
    id: EntryId,
    verb: &'static str,
    expected: Option<Bytes>,
    written: Option<Bytes>,
    reply: &'static str,
    read: Option<Bytes>,
}

impl Recorded {
    fn of(verb: &'static str, id: EntryId, expected: Option<&Stored>, written: Option<&Stored>) -> Self {
        let value = |stored: Option<&Stored>| stored.map(|stored| stored.value.clone());
        Self { id, verb, expected: value(expected), written: value(written), reply: "done", read: None }
    }
}

/// `Memory`, whose calls wait for some turns before they happen, and are recorded.
#[derive(Clone, Default)]
struct Recorder(Arc<Memory>);

impl Recorder {
    async fn turn(&self) {
        let mut turns = if RECORDS.get() { random(2) } else { 0 };
        std::future::poll_fn(|_| {
            if turns == 0 {
                return Poll::Ready(());
            }
            turns -= 1;
            Poll::Pending
        })
        .await;
    }

    /// Carries out a call and records it, or lets it fail. Then it may still be carried out.
    async fn run<T>(
        &self,
        mut recorded: Recorded,
        call: impl Future<Output = Result<T, Error>>,
        reply: impl FnOnce(&T) -> (&'static str, Option<Bytes>),
    ) -> Result<T, Error> {
        self.turn().await;
        if RECORDS.get() && FAILING.get() == Some(recorded.id) && random(3) == 0 {
            recorded.reply = "failed";
            if recorded.verb != "fetch" && random(2) == 0 {
                call.await?;
                recorded.reply = "lost";
            }
            self.record(recorded);
            return Err(Error::unavailable("the reply does not arrive"));
        }
        let done = call.await?;
        (recorded.reply, recorded.read) = reply(&done);
        self.record(recorded);
        Ok(done)
    }

    fn record(&self, recorded: Recorded) {
        if RECORDS.get() {
            RECORDED.with_borrow_mut(|all| all.push(recorded));
        }
    }
}

fn replaced(outcome: &Replaced) -> (&'static str, Option<Bytes>) {
    match outcome {
        Replaced::Done => ("done", None),
        Replaced::Conflict(present) => ("conflict", Some(present.value.clone())),
        Replaced::Missing => ("missing", None),
    }
}

impl Backend for Recorder {
    async fn fetch(&self, id: EntryId, now: Timestamp) -> Result<Option<Stored>, Error> {
        let reply = |found: &Option<Stored>| ("found", found.as_ref().map(|stored| stored.value.clone()));
        self.run(Recorded::of("fetch", id, None, None), self.0.fetch(id, now), reply).await
    }

    async fn create(&self, id: EntryId, entry: Stored, now: Timestamp) -> Result<bool, Error> {
        let recorded = Recorded::of("create", id, None, Some(&entry));
        let reply = |created: &bool| (if *created { "created" } else { "refused" }, None);
        self.run(recorded, self.0.create(id, entry, now), reply).await
    }

    async fn replace(
        &self,
        _: EntryId,
        _: Bytes,
        _: Option<Stored>,
        _: Timestamp,
    ) -> Result<Replaced, Error> {
        unreachable!("the store calls exchange")
    }

    async fn exchange(
        &self,
        id: EntryId,
        seen: Stored,
        entry: Option<Stored>,
        now: Timestamp,
    ) -> Result<Replaced, Error> {
        let recorded = Recorded::of("exchange", id, Some(&seen), entry.as_ref());
        self.run(recorded, self.0.exchange(id, seen, entry, now), replaced).await
    }

    async fn renew(
        &self,
        id: EntryId,
        seen: Stored,
        expires: Timestamp,
        now: Timestamp,
    ) -> Result<Replaced, Error> {
        let recorded = Recorded::of("renew", id, Some(&seen), None);
        self.run(recorded, self.0.renew(id, seen, expires, now), replaced).await
    }

    /// Moves a deadline, which the model has not.
    async fn touch(&self, id: EntryId, expires: Timestamp, now: Timestamp) -> Result<bool, Error> {
        self.0.touch(id, expires, now).await
    }

    async fn delete(&self, id: EntryId) -> Result<(), Error> {
        self.run(Recorded::of("delete", id, None, None), self.0.delete(id), |()| ("done", None)).await
    }
}

type Pending = Pin<Box<dyn Future<Output = Option<Response<()>>>>>;

/// Sends a request whose handler does `deed`. The answer is `None` for the call that ends all sessions.
fn send(store: &ServerStore<Recorder>, cookies: &Cookies, request: u8, deed: Deed) -> Pending {
    let (store, cookies) = (store.clone(), cookies.clone());
    Box::pin(async move {
        if deed == Deed::EndAll {
            store.end_sessions_of(SUBJECT, None).await.unwrap();
            return None;
        }
        let service = session_fn(store, move |_: Request<()>, handle: SessionHandle| async move {
            let session = match deed {
                // In the model it does not renew.
                Deed::EndOthers => handle.load_without_renewal().await?,
                _ => handle.load().await?,
            };
            match deed {
                Deed::Login => session.login(SUBJECT)?,
                Deed::Logout => session.destroy()?,
                _ if session.id().is_none() => {}
                Deed::Renew => {
                    session.get::<u64>("n")?;
                }
                Deed::Update | Deed::LateUpdate => {
                    session.update("n", move |n: Option<u64>| n.unwrap_or(0) | 1 << request)?;
                }
                Deed::Regenerate => session.regenerate()?,
                Deed::EndOthers if session.subject().is_none() => {}
                Deed::EndOthers => session.end_other_sessions().await.map(drop)?,
                Deed::EndAll => unreachable!(),
            }
            Ok::<_, Error>(Response::new(()))
        });
        let mut request = Request::new(());
        request.headers_mut().extend(cookies.header().map(|cookies| (COOKIE, cookies)));
        Some(service.call(request).await.unwrap())
    })
}

fn poll<T>(future: &mut Pin<Box<dyn Future<Output = T> + '_>>) -> Poll<T> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// Runs to the end, unrecorded and at once.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    let records = RECORDS.replace(false);
    let Poll::Ready(done) = poll(&mut (Box::pin(future) as Pin<Box<dyn Future<Output = T> + '_>>)) else {
        panic!("memory answers at once");
    };
    RECORDS.set(records);
    done
}

/// Which entries and values of the code are which of the model.
#[derive(Default)]
struct Same {
    places: HashMap<EntryId, Place>,
    revisions: HashMap<Bytes, Revision>,
}

impl Same {
    fn place(&mut self, id: EntryId, place: Place) -> bool {
        // A place is seen for the first time when the model, too, names it for the first time.
        let taken = self.places.values().any(|known| *known == place);
        match self.places.get(&id) {
            Some(known) => *known == place,
            None if taken => false,
            None => {
                self.places.insert(id, place);
                true
            }
        }
    }

    /// Notes which entry each session of a written list has. Returns false if the list of the model differs.
    fn list(&mut self, written: &Bytes, list: &List) -> bool {
        // Behind the kind and the revision: id, two times and a flag.
        let ids: Vec<[u8; 16]> =
            written[9..].chunks(33).map(|entry| entry[..16].try_into().unwrap()).collect();
        ids.len() == list.0.len()
            && ids
                .into_iter()
                .zip(&list.0)
                .all(|(id, (token, _))| self.place(EntryId::from_bytes(id), Place::Session(*token)))
    }

    fn is(&self, value: Option<&Bytes>, revision: Option<Revision>) -> bool {
        value.map(|value| self.revisions.get(value).copied()) == revision.map(Some)
    }
}

fn verb(call: &Call) -> (&'static str, Place, Option<Revision>) {
    match call {
        Call::Fetch(place) => ("fetch", *place, None),
        Call::Create(place, _) => ("create", *place, None),
        Call::Exchange(place, expected, _) => ("exchange", *place, Some(*expected)),
        Call::Renew(place, expected) => ("renew", *place, Some(*expected)),
        Call::Delete(place) => ("delete", *place, None),
    }
}

/// Makes the model do what the code did. Returns an explanation if it cannot.
fn follow(
    scenario: &Scenario,
    state: &mut State,
    same: &mut Same,
    request: u8,
    recorded: &Recorded,
) -> Result<(), String> {
    let waiting = state.waiting(scenario, request);
    let candidate = waiting.iter().find(|(_, call)| {
        let (verb, place, expected) = verb(call);
        verb == recorded.verb
            && same.is(recorded.expected.as_ref(), expected)
            && same.place(recorded.id, place)
    });
    let Some((lane, call)) = candidate.cloned() else {
        return Err(format!("the code called {recorded:?}, the model waits for {waiting:?}"));
    };
    let deletes = matches!(call, Call::Exchange(_, _, None));
    if let (
        Call::Create(Place::List, Content::List(list)) | Call::Exchange(_, _, Some(Content::List(list))),
        Some(written),
    ) = (&call, &recorded.written)
    {
        if !same.list(written, list) {
            return Err(format!("the code wrote {recorded:?}, the model {list:?}"));
        }
    }
    let before = state.requests[usize::from(request)].clone();
    let step = match &before {
        Stage::Running { replies, .. } => replies.get(usize::from(lane)).map_or(0, Vec::len),
        other => return Err(format!("{other:?} calls")),
    };
    let mut backend = state.backend.clone();
    let revision = Revision { request, lane, step: u8::try_from(step).unwrap() };
    if let "failed" | "lost" = recorded.reply {
        if !scenario.may_fail(request, &call) {
            return Err(format!("{recorded:?} fails, and the model depends on it"));
        }
        assert!(state.fail(scenario, request, lane, recorded.reply == "lost"));
        let written = recorded.written.clone().filter(|_| recorded.reply == "lost");
        same.revisions.extend(written.map(|written| (written, revision)));
        return Ok(());
    }
    let reply = backend.carry_out(call, revision);
    assert!(state.call(scenario, request, lane));
    assert_eq!(backend, state.backend);
    let (expected, read) = match &reply {
        Reply::Found(found) => ("found", found.as_ref().map(|value| value.revision)),
        Reply::Created(true) => ("created", None),
        Reply::Created(false) => ("refused", None),
        Reply::Done => ("done", None),
        Reply::Conflict(present) => ("conflict", Some(present.revision)),
        Reply::Missing => ("missing", None),
        Reply::Failed => unreachable!("it was carried out"),
    };
    if expected != recorded.reply || !same.is(recorded.read.as_ref(), read) {
        return Err(format!("the code got {recorded:?}, the model {reply:?}"));
    }
    if recorded.verb == "exchange" && deletes != recorded.written.is_none() {
        return Err(format!("one of both deletes: {recorded:?}"));
    }
    if let (Some(written), "done" | "created") = (&recorded.written, recorded.reply) {
        same.revisions.insert(written.clone(), revision);
    }
    Ok(())
}

struct Run {
    scenario: Scenario,
    state: State,
    same: Same,
    recorder: Recorder,
    stores: [ServerStore<Recorder>; 2],
    /// A third host, to which each session counts.
    observer: ServerStore<Recorder>,
    clock: FakeClock,
    jars: HashMap<u8, Cookies>,
    events: Vec<String>,
}

impl Run {
    fn new(scenario: Scenario) -> Self {
        let clock = FakeClock::at(1_000_000);
        let recorder = Recorder::default();
        let store = |checks_list| {
            ServerStore::with_backend(recorder.clone())
                .renewal_threshold(Duration::ZERO)
                .check_session_list(checks_list)
                .clock(clock.clone())
                .build()
                .unwrap()
        };
        let stores = [0, 1].map(|_| store(scenario.checks_list));
        let observer = store(false);
        RECORDS.set(false);
        let service = session_fn(observer.clone(), |_: Request<()>, handle: SessionHandle| async move {
            let session = handle.load().await?;
            session.set("n", 0)?;
            if scenario.logged_in {
                session.login(SUBJECT)?;
            }
            Ok::<_, Error>(Response::new(()))
        });
        let (state, mut same, mut jars) = (State::initial(&scenario), Same::default(), HashMap::new());
        // Before the first request there are a session of each browser, and their list.
        for token in scenario.first_tokens() {
            RECORDS.set(true);
            RECORDED.take();
            let mut first: Pin<Box<dyn Future<Output = _>>> = Box::pin(service.call(Request::new(())));
            let response = loop {
                if let Poll::Ready(response) = poll(&mut first) {
                    break response.unwrap();
                }
            };
            let mut jar = Cookies::new();
            jar.receive(response.headers());
            jars.insert(token, jar);
            for recorded in RECORDED.take() {
                if let (Some(written), "created" | "done") = (recorded.written, recorded.reply) {
                    let is_session = recorded.id.to_bytes() == at_once(id_in(&response, &observer)).unwrap();
                    let place = if is_session { Place::Session(token) } else { Place::List };
                    same.places.insert(recorded.id, place);
                    same.revisions.insert(written, Revision::INITIAL);
                }
            }
        }
        Self { scenario, state, same, recorder, stores, observer, clock, jars, events: Vec::new() }
    }

    /// The entry of the session list, once there was one.
    fn list(&self) -> Option<EntryId> {
        self.same.places.iter().find(|(_, place)| **place == Place::List).map(|(id, _)| *id)
    }

    /// Explains a difference, or a rule that does not hold in the state that the code has reached.
    fn check(&self, result: Result<(), String>) -> Result<(), String> {
        let result = result.and_then(|()| {
            let broken = self.scenario.properties().into_iter().find(|property| {
                matches!(property.expectation, Expectation::Always)
                    && !(property.condition)(&self.scenario, &self.state)
            });
            broken.map_or(Ok(()), |property| Err(format!("does not hold: {}", property.name)))
        });
        result.map_err(|error| format!("{error}\n{:?}\n{}", self.scenario, self.events.join("\n")))
    }

    /// Takes in the answer of a request that is done.
    fn answered(&mut self, request: u8, response: Option<&Response<()>>) -> Result<(), String> {
        let Stage::Done { answer, .. } = self.state.requests[usize::from(request)] else {
            return self.check(Err(format!("request {request} is done, and waits in the model")));
        };
        let Some(response) = response else {
            assert_eq!(answer, Answer::AllEnded);
            return Ok(());
        };
        let mut cookies = Cookies::new();
        cookies.receive(response.headers());
        let (speaks, id) =
            (response.headers().contains_key(SET_COOKIE), at_once(id_in(response, &self.observer)));
        let place = id.map(|id| self.same.places[&EntryId::from_bytes(id)]);
        let agrees = match answer {
            Answer::Stored(token) | Answer::Renewed(token) => {
                let lives = self.state.backend.session(token).is_some();
                speaks && place == lives.then_some(Place::Session(token))
            }
            Answer::Removed => speaks && cookies.header().is_none(),
            // A cookie that leads to nothing may be removed.
            Answer::NotFound | Answer::Ended => cookies.header().is_none(),
            Answer::OthersEnded => !speaks,
            Answer::AllEnded | Answer::Failed => false,
        };
        if !agrees {
            return self
                .check(Err(format!("{answer:?} in the model, and {place:?} by {:?}", response.headers())));
        }
        if let Some(token) = answer.stored() {
            self.jars.insert(token, cookies);
        }
        Ok(())
    }

    /// Lets a request go on until it waits.
    fn go_on(&mut self, request: u8, running: &mut Option<Pending>) -> Result<(), String> {
        let (deed, _) = self.scenario.requests[usize::from(request)];
        if matches!(deed, Deed::Renew | Deed::LateUpdate) {
            // Each renewal is due, and each update the first write of its span. All of them are done long before a tombstone expires.
            self.clock.advance(Duration::from_secs(1));
            FAILING.set(self.list().filter(|_| self.scenario.failures > 0));
        }
        RECORDED.take();
        let polled = poll(running.as_mut().unwrap());
        FAILING.set(None);
        for recorded in RECORDED.take() {
            self.events.push(format!("request {request}: {recorded:?}"));
            let followed = follow(&self.scenario, &mut self.state, &mut self.same, request, &recorded);
            self.check(followed)?;
        }
        if let Poll::Ready(response) = polled {
            *running = None;
            self.answered(request, response.as_ref())?;
        }
        Ok(())
    }

    /// Starts requests, lets them go on, and crashes hosts, in an order that the generator decides.
    fn play(&mut self, crashes: bool) -> Result<(), String> {
        let count = self.scenario.requests.len();
        let mut running: Vec<Option<Pending>> = (0..count).map(|_| None).collect();
        RECORDS.set(true);
        while self.state.requests.iter().any(|stage| matches!(stage, Stage::Before | Stage::Running { .. })) {
            let at = random(count);
            let request = u8::try_from(at).unwrap();
            let (deed, host) = self.scenario.requests[at];
            if crashes && random(40) == 0 {
                self.events.push(format!("host {host} crashes"));
                self.state.crash(&self.scenario, host);
                for (future, (_, on)) in running.iter_mut().zip(&self.scenario.requests) {
                    if *on == host {
                        *future = None;
                    }
                }
                continue;
            }
            if self.scenario.loses_list && random(20) == 0 {
                if let Some(list) = self.list().filter(|_| self.state.lose_list()) {
                    self.events.push("the list is lost".to_owned());
                    at_once(self.recorder.0.delete(list)).unwrap();
                }
                continue;
            }
            match self.state.requests[at] {
                Stage::Before if random(4) == 0 => {
                    let tokens: Vec<u8> = self.jars.keys().copied().collect();
                    let token = if deed == Deed::EndAll {
                        0
                    } else {
                        *tokens.iter().max().filter(|_| random(2) == 0).unwrap_or(&0)
                    };
                    self.events.push(format!("request {request} starts with token {token}"));
                    self.state.start(&self.scenario, request, token);
                    let store = &self.stores[usize::from(host)];
                    running[at] = Some(send(store, &self.jars[&token], request, deed));
                    // Where the list decides, the request begins with what its host knows by now.
                    self.go_on(request, &mut running[at])?;
                }
                Stage::Running { .. } => self.go_on(request, &mut running[at])?,
                _ => {}
            }
        }
        RECORDS.set(false);
        for (token, jar) in &self.jars {
            let values = values_of(&self.observer, jar);
            let expected = self.state.backend.session(*token).map(|session| u64::from(session.changes));
            if values != expected {
                return self.check(Err(format!("token {token} leads to {values:?}, not {expected:?}")));
            }
        }
        Ok(())
    }
}

async fn id_in(response: &Response<()>, store: &ServerStore<Recorder>) -> Option<[u8; 16]> {
    session_in(response, store).await.unwrap().and_then(|session| session.id()).map(|id| id.to_bytes())
}

/// The changes in the session that a browser with these cookies has.
fn values_of(store: &ServerStore<Recorder>, jar: &Cookies) -> Option<u64> {
    let seen = Arc::new(Mutex::new(None));
    let to_fill = Arc::clone(&seen);
    let service = session_fn(store.clone(), move |_: Request<()>, handle: SessionHandle| {
        let seen = Arc::clone(&to_fill);
        async move {
            let session = handle.load().await?;
            let n = session.get::<u64>("n")?;
            *seen.lock().unwrap() = session.id().map(|_| n.unwrap_or(0));
            Ok::<_, Error>(Response::new(()))
        }
    });
    let mut request = Request::new(());
    request.headers_mut().extend(jar.header().map(|cookies| (COOKIE, cookies)));
    at_once(service.call(request)).unwrap();
    seen.lock().unwrap().take()
}

/// Plays the requests that the seed chooses, in a scenario with the options of `base`.
fn run(seed: u64, requests: usize, base: &Scenario) {
    RANDOM.set(seed);
    let mut deeds: Vec<Deed> = (0..requests).map(|_| Deed::ALL[random(Deed::ALL.len())]).collect();
    // Where the clock moves, an update may be the first write of its span.
    if deeds.iter().any(|deed| matches!(deed, Deed::Renew | Deed::LateUpdate)) {
        let is_update = |deed: &&mut Deed| **deed == Deed::Update;
        deeds.iter_mut().filter(is_update).for_each(|deed| *deed = Deed::LateUpdate);
    }
    let logged_in = base.second_browser || random(4) != 0;
    let scenario = Scenario { logged_in, requests: Scenario::of(&deeds).requests, ..base.clone() };
    let crashes = scenario.crashes > 0;
    Run::new(scenario).play(crashes).unwrap_or_else(|difference| panic!("{difference}"));
}

fn run_all(seeds: u64, base: &Scenario) {
    for seed in 0..seeds {
        run(seed, 2 + usize::try_from(seed % 3).unwrap(), base);
    }
}

#[test]
fn the_model_allows_what_the_code_does() {
    run_all(2_000, &Scenario::of(&[]));
}

#[test]
fn the_model_allows_what_the_code_does_when_hosts_crash() {
    run_all(2_000, &Scenario { crashes: 2, ..Scenario::of(&[]) });
}

#[test]
fn the_model_allows_what_the_code_does_when_the_list_is_lost_and_healing_fails() {
    for failures in [0, u8::MAX] {
        run_all(400, &Scenario { loses_list: true, second_browser: true, failures, ..Scenario::of(&[]) });
    }
}

#[test]
fn the_model_allows_what_the_code_does_where_the_list_decides() {
    for loses_list in [false, true] {
        let base = Scenario { checks_list: true, second_browser: true, loses_list, ..Scenario::of(&[]) };
        run_all(400, &base);
    }
}

/// Sends two requests that move a session from one store to another. Steps on the session's entry in the old store fail. Returns how
/// many sessions there are afterwards, and whether a reply to such a step was lost.
fn move_between_stores(seed: u64) -> (usize, bool) {
    RANDOM.set(seed);
    let clock = FakeClock::at(1_000_000);
    let [old, new] = [(), ()]
        .map(|()| ServerStore::with_backend(Recorder::default()).clock(clock.clone()).build().unwrap());
    let log_in = session_fn(old.clone(), |_: Request<()>, handle: SessionHandle| async move {
        handle.load().await?.login(SUBJECT)?;
        Ok::<_, Error>(Response::new(()))
    });
    let response = at_once(log_in.call(Request::new(()))).unwrap();
    let entry = EntryId::from_bytes(at_once(id_in(&response, &old)).unwrap());
    let mut jar = Cookies::new();
    jar.receive(response.headers());
    let both = MigratingStore::new(new.clone(), old.clone(), Timestamp::from_unix(2_000_000)).unwrap();
    let service = session_fn(both, |_: Request<()>, handle: SessionHandle| async move {
        handle.load().await?.set("n", 1)?;
        Ok::<_, Error>(Response::new(()))
    });
    type Move<'a> = Pin<Box<dyn Future<Output = Result<Response<()>, Error>> + 'a>>;
    let mut running: Vec<Move> = Vec::new();
    for _ in 0..2 {
        let mut request = Request::new(());
        request.headers_mut().extend(jar.header().map(|cookies| (COOKIE, cookies)));
        running.push(Box::pin(service.call(request)));
    }
    RECORDED.take();
    RECORDS.set(true);
    FAILING.set(Some(entry));
    while !running.is_empty() {
        let at = random(running.len());
        // A request whose step failed may answer with an error.
        if poll(&mut running[at]).is_ready() {
            drop(running.remove(at));
        }
    }
    RECORDS.set(false);
    FAILING.set(None);
    let is_lost = RECORDED.take().iter().any(|recorded| recorded.reply == "lost");
    let sessions = |store: &ServerStore<_>| at_once(store.sessions_of(SUBJECT)).unwrap().len();
    (sessions(&old) + sessions(&new), is_lost)
}

#[test]
fn a_session_that_moves_is_never_in_both_stores_and_lost_only_with_a_reply() {
    let seen: Vec<_> = (0..1_000).map(move_between_stores).collect();
    for (seed, (sessions, is_lost)) in seen.iter().enumerate() {
        assert!(*sessions == 1 || *sessions == 0 && *is_lost, "seed {seed}: {sessions} sessions");
    }
    assert!(seen.contains(&(0, true)) && seen.contains(&(1, true)) && seen.contains(&(1, false)));
}

#[test]
fn a_model_of_other_code_is_refused() {
    let refused_in = |scenario: Scenario| {
        (0..200).any(|seed| {
            RANDOM.set(seed);
            Run::new(scenario.clone()).play(false).is_err()
        })
    };
    let refused = |mistake, deeds: &[Deed]| refused_in(Scenario { mistake, ..Scenario::of(deeds) });
    assert!(!refused(Mistake::None, &[Deed::Update, Deed::Regenerate, Deed::EndAll]));
    assert!(refused(Mistake::RegenerateDeletes, &[Deed::Update, Deed::Regenerate]));
    assert!(refused(Mistake::NotLookedUpAgain, &[Deed::Login, Deed::EndAll]));
    assert!(refused(Mistake::EndsUnflagged, &[Deed::Regenerate, Deed::EndAll]));
    assert!(refused(Mistake::SaveCreates, &[Deed::Update, Deed::Logout]));
    assert!(refused(Mistake::KeepsNone, &[Deed::EndOthers]));
    assert!(refused(Mistake::FollowsNone, &[Deed::Regenerate, Deed::Logout]));
    let losing = |mistake, checks_list, deeds: &[Deed]| Scenario {
        mistake,
        checks_list,
        second_browser: true,
        loses_list: true,
        failures: if checks_list { 0 } else { u8::MAX },
        ..Scenario::of(deeds)
    };
    let renewals = [Deed::Renew, Deed::Renew, Deed::Renew];
    assert!(!refused_in(losing(Mistake::None, false, &renewals)));
    for mistake in [Mistake::RenewsOnly, Mistake::HealsOnce] {
        assert!(refused_in(losing(mistake, false, &renewals)), "{mistake:?}");
    }
    let deeds = [Deed::Regenerate, Deed::Renew];
    assert!(!refused_in(losing(Mistake::None, true, &deeds)));
    for mistake in [Mistake::RegeneratesUnlisted, Mistake::LoadsUnlisted, Mistake::HealsListThatDecides] {
        assert!(refused_in(losing(mistake, true, &deeds)), "{mistake:?}");
    }
}
