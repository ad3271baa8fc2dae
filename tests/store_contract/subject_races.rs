//! Logins, endings and everything else that a subject's sessions go through at once, step by step of the backend.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use http::Request;
use hyper::service::{Service, service_fn};
use hyper_session::cookie::CookieOptions;
use hyper_session::store::{Backend as _, EntryId, SessionLimit};
use hyper_session::testing::{FakeClock, Fault, Faulty, Primitive};
use hyper_session::{Error, ServerStore, Session, SessionExt, SessionId, SessionService};
use sha2::Digest as _;

use crate::concurrent_requests::{NAME, NOW, START, Watched, poll_once, run, server};
use crate::support::{Body, Events, Jar, request, status, visit};

/// An action of one of several, all at once. At first "ada" is logged in once: that is the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    /// "ada" logs in with a browser that has no session.
    Login,
    /// As `Login`, with a browser that has a session without a subject.
    LoginOnAnonymous,
    /// The device sets a value.
    Save,
    /// The device gets a new token.
    Regenerate,
    /// "ada" logs in again on the device.
    LoginAgain,
    /// "bob" logs in on the device.
    LoginAsBob,
    /// The device logs out.
    Logout,
    /// All sessions of "ada" are ended.
    EndAll,
    /// The device is ended, by its id.
    EndOne,
    /// The sessions of "ada" are listed.
    List,
    /// Time passes, more than any step takes.
    Wait,
}

use Deed::*;

/// The actions that begin with the device's cookie, and may leave it with a session.
const OF_DEVICE: [Deed; 5] = [Save, Regenerate, LoginAgain, LoginAsBob, Logout];

impl Deed {
    /// Its own credentials were shown, so what it begins may outlive an ending that it overlaps.
    fn logs_in(self) -> bool {
        matches!(self, Login | LoginOnAnonymous | LoginAgain | LoginAsBob)
    }

    fn act(self, session: &Session) -> Result<(), Error> {
        match self {
            Login | LoginOnAnonymous | LoginAgain => session.login("ada"),
            Save => session.set("a", 1),
            Regenerate => session.regenerate(),
            LoginAsBob => session.login("bob"),
            _ => session.destroy(),
        }
    }
}

struct Racer {
    deed: Deed,
    jar: Jar,
    /// Yields the headers of the response, or the result of an ending.
    future: Option<Pin<Box<dyn Future<Output = Told>>>>,
    begun: usize,
    done: usize,
    ended: Option<usize>,
}

enum Told {
    Headers(http::HeaderMap),
    Ended(usize),
    Nothing,
}

/// A browser's request to a server of its own: no server can rely on seeing the requests of others.
fn ask(store: ServerStore<Watched>, jar: &Jar, deed: Deed) -> Pin<Box<dyn Future<Output = Told>>> {
    let service = SessionService::new(
        service_fn(move |request: Request<Body>| async move {
            deed.act(&request.session().await?)?;
            Ok::<_, Error>(status(200))
        }),
        store,
    );
    let request = request("/", jar.header().as_deref());
    Box::pin(async move {
        let response = service.call(request).await.unwrap();
        assert_eq!(response.status(), 200);
        Told::Headers(response.headers().clone())
    })
}

/// Whose session this jar leads to, and its id.
fn whose(store: &ServerStore<Watched>, jar: &Jar) -> Option<(SessionId, Option<String>)> {
    let found = Arc::new(Mutex::new(None));
    let to_fill = Arc::clone(&found);
    let service = SessionService::new(
        service_fn(move |request: Request<Body>| {
            let found = Arc::clone(&to_fill);
            async move {
                let session = request.session().await?;
                let subject = session.subject().map(|subject| subject.to_string());
                *found.lock().unwrap() = session.id().map(|id| (id, subject));
                Ok::<_, Error>(status(200))
            }
        }),
        store.clone(),
    );
    run(visit(&service, "/", &mut jar.clone()));
    found.lock().unwrap().take()
}

fn begin(store: &ServerStore<Watched>, jar: &mut Jar, act: fn(&Session) -> Result<(), Error>) {
    let service = SessionService::new(
        service_fn(move |request: Request<Body>| async move {
            act(&request.session().await?)?;
            Ok::<_, Error>(status(200))
        }),
        store.clone(),
    );
    run(visit(&service, "/", jar));
}

/// Plays `deeds`; `choose` says which of so many goes on, each time. Returns what it was asked.
fn play(deeds: &[Deed], mut choose: impl FnMut(usize, usize) -> usize) -> Vec<(usize, usize)> {
    let (backend, clock, events) = (Watched::in_turns(), FakeClock::at(START), Events::new());
    let store = server(&backend, &clock, &events);
    let (mut device, mut anonymous) = (Jar::new(), Jar::new());
    begin(&store, &mut device, |session| session.login("ada"));
    if deeds.contains(&LoginOnAnonymous) {
        begin(&store, &mut anonymous, |session| session.set("cart", 1));
    }
    let id = whose(&store, &device).unwrap().0;
    clock.set(NOW);

    let mut racers: Vec<Racer> = Vec::new();
    for &deed in deeds {
        let (own, clock) = (server(&backend, &clock, &events), clock.clone());
        let jar = match deed {
            LoginOnAnonymous => anonymous.clone(),
            _ if OF_DEVICE.contains(&deed) => device.clone(),
            _ => Jar::new(),
        };
        let future: Pin<Box<dyn Future<Output = Told>>> = match deed {
            EndAll => Box::pin(async move { Told::Ended(own.end_sessions_of("ada", None).await.unwrap()) }),
            EndOne => {
                Box::pin(
                    async move { Told::Ended(usize::from(own.end_session_of("ada", id).await.unwrap())) },
                )
            }
            List => Box::pin(async move {
                own.sessions_of("ada").await.unwrap();
                Told::Nothing
            }),
            Wait => Box::pin(async move {
                clock.advance(Duration::from_secs(61));
                Told::Nothing
            }),
            _ => ask(own, &jar, deed),
        };
        racers.push(Racer {
            deed,
            jar,
            future: Some(future),
            begun: usize::MAX,
            done: usize::MAX,
            ended: None,
        });
    }

    let (mut taken, mut turns) = (Vec::new(), Vec::new());
    loop {
        let waiting: Vec<_> = (0..racers.len()).filter(|&racer| racers[racer].future.is_some()).collect();
        if waiting.is_empty() {
            break;
        }
        let choice = choose(taken.len(), waiting.len());
        taken.push((choice, waiting.len()));
        turns.push(waiting[choice]);
        let racer = &mut racers[waiting[choice]];
        racer.begun = racer.begun.min(turns.len());
        if let Poll::Ready(told) = poll_once(racer.future.as_mut().unwrap().as_mut()) {
            match told {
                Told::Headers(headers) => racer.jar.store(&headers),
                Told::Ended(ended) => racer.ended = Some(ended),
                Told::Nothing => {}
            }
            racer.done = turns.len();
            racer.future = None;
        }
        assert!(turns.len() < 300, "{deeds:?} never ends: {turns:?}");
    }
    check(&store, &backend, &racers, &device, &format!("{deeds:?}, turns {turns:?}"));
    taken
}

/// The promises, on what is left when all is done.
fn check(store: &ServerStore<Watched>, backend: &Watched, racers: &[Racer], device: &Jar, context: &str) {
    let clients: Vec<_> = racers.iter().map(|racer| whose(store, &racer.jar)).collect();
    let device_now = whose(store, device);
    let reached: BTreeSet<_> = clients.iter().chain([&device_now]).flatten().map(|(id, _)| *id).collect();
    assert_eq!(reached, backend.ids(), "a session that no client holds: {context}");

    // No session is live that is not listed, none is listed that is not live.
    for subject in ["ada", "bob"] {
        let of_subject = |found: &&(SessionId, Option<String>)| found.1.as_deref() == Some(subject);
        let live: BTreeSet<_> =
            clients.iter().chain([&device_now]).flatten().filter(of_subject).map(|(id, _)| *id).collect();
        let listed = run(store.sessions_of(subject)).unwrap();
        let listed: BTreeSet<_> = listed.into_iter().map(|session| session.id).collect();
        assert_eq!(listed, live, "{subject}: {context}");
    }

    for ending in racers.iter().filter(|racer| matches!(racer.deed, EndAll | EndOne)) {
        let everywhere = ending.deed == EndAll;
        // The device was logged in before, so it no longer is, under whatever token it has by now.
        if everywhere || ending.ended == Some(1) {
            assert!(device_now.is_none(), "the device lives on: {context}");
            for (racer, found) in racers.iter().zip(&clients) {
                let of_device = OF_DEVICE.contains(&racer.deed) && !racer.deed.logs_in();
                let ada = found.as_ref().is_some_and(|found| found.1.is_some());
                assert!(!of_device || !ada, "{:?} lives on: {context}", racer.deed);
            }
        }
        for (racer, found) in racers.iter().zip(&clients) {
            let ada = found.as_ref().is_some_and(|found| found.1.as_deref() == Some("ada"));
            // Logged in before it began, and ended; after it was done, and not.
            assert!(!(everywhere && racer.done < ending.begun && ada), "{:?}: {context}", racer.deed);
            let alone = racers.iter().filter(|other| other.deed == EndAll).count() == 1;
            if everywhere && alone && racer.begun > ending.done && matches!(racer.deed, Login) {
                assert!(ada, "a login afterwards is none: {context}");
            }
        }
    }
    // A logout ends the device, under whatever token it has by now.
    if racers.iter().any(|racer| racer.deed == Logout) {
        for (racer, found) in racers.iter().zip(&clients) {
            let of_device = OF_DEVICE.contains(&racer.deed) && !racer.deed.logs_in();
            let lives = found.as_ref().is_some_and(|found| found.1.is_some());
            assert!(!of_device || !lives, "{:?} lives on after a logout: {context}", racer.deed);
        }
    }
    // Nothing but an ending takes a login away.
    if !racers.iter().any(|racer| matches!(racer.deed, EndAll | Wait)) {
        for (racer, found) in racers.iter().zip(&clients) {
            assert!(!matches!(racer.deed, Login | LoginOnAnonymous) || found.is_some(), "{context}");
        }
    }
    // A call that ends the device reports that, unless another request did it.
    for ended in racers.iter().filter_map(|racer| racer.ended) {
        // The device is ended under its old id, too. All of its ids count where all are ended.
        let by_id = racers.iter().all(|racer| racer.deed != EndAll);
        // (A login that begins a session of its own ends the device, too.)
        let keeps = |deed| deed == Save || by_id && deed == Regenerate;
        let alone = racers.iter().all(|racer| racer.ended.is_some() || keeps(racer.deed));
        let enders = racers.iter().filter(|racer| racer.ended.is_some()).count();
        assert!(!(alone && enders == 1) || ended == 1, "{ended} ended: {context}");
        assert!(
            ended
                < 2 + racers.iter().filter(|racer| racer.deed.logs_in() || racer.deed == Regenerate).count()
        );
    }
}

fn every_schedule(deeds: &[Deed]) -> usize {
    let mut choices: Vec<usize> = Vec::new();
    for count in 1.. {
        let taken = play(deeds, |at, _| choices.get(at).copied().unwrap_or(0));
        let Some(last) = taken.iter().rposition(|(choice, of)| choice + 1 < *of) else { return count };
        choices = taken[..=last].iter().map(|(choice, _)| *choice).collect();
        choices[last] += 1;
    }
    unreachable!()
}

/// So many schedules, drawn evenly turn by turn: the same ones each time.
fn some_schedules(deeds: &[Deed], count: usize) {
    let state = Cell::new(0x9e37_79b9_7f4a_7c15_u64);
    for _ in 0..count {
        play(deeds, |_, of| {
            // Knuth's MMIX generator; its high bits are the good ones.
            state.set(
                state.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407),
            );
            usize::try_from(state.get() >> 33).unwrap() % of
        });
    }
}

#[test]
pub(crate) fn r9_t26_every_interleaving_of_an_ending_and_a_login() {
    let count = every_schedule(&[EndAll, Login]);
    assert!(count >= 1_000, "{count}");
}

#[test]
pub(crate) fn r9_every_interleaving_of_two_logins() {
    let count = every_schedule(&[Login, Login]);
    assert!(count >= 200, "{count}");
}

/// A device that was logged in before "log out everywhere" began is not logged in afterwards: not under a token that was
/// given meanwhile, either.
#[test]
pub(crate) fn t26_every_interleaving_of_an_ending_and_a_save_or_a_logout() {
    for deed in [Save, Logout, List] {
        for ending in [EndAll, EndOne] {
            let count = every_schedule(&[ending, deed]);
            // Listing takes fewer steps than the others: it writes nothing.
            assert!(count >= 60, "{ending:?} {deed:?}: {count}");
        }
    }
}

/// So many schedules are drawn of each combination that is too large to play all.
const SOME: usize = 600;

#[test]
fn t26_interleavings_of_an_ending_and_a_new_token() {
    for ending in [EndAll, EndOne] {
        for deed in [Regenerate, LoginAgain, LoginAsBob, LoginOnAnonymous] {
            some_schedules(&[ending, deed], SOME);
        }
    }
}

/// The request that logs out may have loaded its session before the other one got a new token, or come with the old token.
#[test]
pub(crate) fn r1_every_interleaving_of_a_logout_and_a_new_token() {
    let count = every_schedule(&[Logout, Regenerate]);
    assert!(count >= 60, "{count}");
}

/// A login takes more steps: where its session has ended, it begins another.
#[test]
fn r1_interleavings_of_a_logout_and_a_login() {
    for deed in [LoginAgain, LoginAsBob] {
        some_schedules(&[Logout, deed], SOME);
    }
}

#[test]
fn t26_r1_interleavings_of_three() {
    for deeds in [
        [EndAll, Login, Regenerate],
        [EndAll, Regenerate, Regenerate],
        [EndAll, Regenerate, Save],
        [EndAll, Regenerate, Logout],
        [Regenerate, Regenerate, Logout],
        [Regenerate, LoginAgain, Logout],
        [Regenerate, LoginAsBob, Logout],
        [EndOne, Regenerate, Logout],
        [EndAll, EndAll, Login],
        [EndOne, EndOne, Regenerate],
        [EndOne, Login, Regenerate],
        [EndAll, LoginAgain, Save],
        [EndAll, LoginAsBob, Regenerate],
        [List, Regenerate, Login],
        [Login, Login, Logout],
        [Login, LoginOnAnonymous, Regenerate],
    ] {
        some_schedules(&deeds, SOME / 2);
    }
}

/// All at once, and more.
#[test]
fn t26_r1_interleavings_of_many() {
    some_schedules(&[Login, EndAll, Save, Regenerate, Logout], SOME);
    some_schedules(&[Login, LoginOnAnonymous, EndAll, EndOne, Save, Regenerate, LoginAgain, List], SOME / 2);
}

/// A login that takes longer than any should: a list that tidies up meanwhile may end it, and never hide it.
#[test]
fn r9_interleavings_of_a_slow_login_and_a_list() {
    some_schedules(&[Login, List, Wait], SOME);
    some_schedules(&[Regenerate, List, Wait], SOME);
    some_schedules(&[LoginAgain, List, Wait, EndAll], SOME);
}

/// Requests that meet conflicts wait for their turn, of a session first and of a list second: each comes through where both
/// are of one number.
#[test]
fn turns_of_a_session_and_of_a_list_do_not_wait_for_each_other() {
    let list = sha2::Sha256::new()
        .chain_update(b"hyper-session subject v1\0")
        .chain_update(NAME)
        .chain_update(b"\0ada")
        .finalize();
    let mut met = 0;
    for steps in 3..16 {
        let (backend, clock, events) = (Watched::in_turns(), FakeClock::at(START), Events::new());
        let store = server(&backend, &clock, &events);
        // One server, and a session that shares its turn with the list.
        let device = loop {
            let mut jar = Jar::new();
            begin(&store, &mut jar, |session| session.login("ada"));
            if whose(&store, &jar).unwrap().0.to_bytes()[0] % 64 == list[0] % 64 {
                break jar;
            }
            begin(&store, &mut jar, Session::destroy);
        };
        let mut slow = ask(store.clone(), &device, Regenerate);
        let go_on = |slow: &mut Pin<Box<dyn Future<Output = Told>>>| poll_once(slow.as_mut()).is_ready();
        assert!(!go_on(&mut slow) && !go_on(&mut slow));
        run(ask(store.clone(), &device, Save));
        if (2..steps).any(|_| go_on(&mut slow)) {
            break;
        }
        events.take();
        run(ask(store.clone(), &Jar::new(), Login));
        assert!((0..200).any(|_| go_on(&mut slow)), "it waits for itself, after {steps} steps");
        met += usize::from(events.take().contains(&"conflict_merged:1".to_owned()));
    }
    assert!(met >= 5, "{met}");
}

/// A login at the session limit that met a conflict, and whose new entry the backend lost, ends another session. That one
/// changes at the same moment, and shares its queue with the first.
#[test]
fn a_login_does_not_wait_for_the_permit_that_it_holds() {
    #[derive(Default)]
    struct Course {
        new: Option<EntryId>,
        is_changed: bool,
        is_new_lost: bool,
        is_other_changed: bool,
    }
    let (memory, clock, events) = (Watched::default(), FakeClock::at(START), Events::new());
    let faulty = Faulty::new(memory.clone());
    let store = ServerStore::with_backend(faulty.clone())
        .max_sessions_per_subject(1)
        .clock(clock.clone())
        .build()
        .unwrap();
    let plain = server(&memory, &clock, &events);
    let mut device = Jar::new();
    begin(&plain, &mut device, |session| session.login("ada"));
    let first = EntryId::from_bytes(whose(&plain, &device).unwrap().0.to_bytes());
    let queue = |id: EntryId| id.to_bytes()[0] % 64;
    // A second device.
    let other = loop {
        let mut jar = Jar::new();
        begin(&plain, &mut jar, |session| session.login("ada"));
        let id = EntryId::from_bytes(whose(&plain, &jar).unwrap().0.to_bytes());
        if queue(id) == queue(first) {
            break (jar, id);
        }
        begin(&plain, &mut jar, Session::destroy);
    };
    clock.advance(Duration::from_secs(1));
    let course: Arc<Mutex<Course>> = Arc::default();
    faulty.intercept({
        let (course, device) = (Arc::clone(&course), device.clone());
        move |call| {
            let mut course = course.lock().unwrap();
            let is_replaced =
                |id: Option<EntryId>| call.primitive == Primitive::Replace && id == Some(call.id);
            if call.primitive == Primitive::Create && course.new.is_none() {
                course.new = Some(call.id);
            } else if is_replaced(Some(first)) && !course.is_changed {
                course.is_changed = true;
                run(ask(plain.clone(), &device, Save));
            } else if is_replaced(course.new) && !course.is_new_lost {
                course.is_new_lost = true;
                run(memory.delete(call.id)).unwrap();
            } else if is_replaced(Some(other.1)) && !course.is_other_changed {
                course.is_other_changed = true;
                run(ask(plain.clone(), &other.0, Save));
            }
            None
        }
    });
    let service = SessionService::new(
        service_fn(|request: Request<Body>| async move {
            request.session().await?.login("ada")?;
            Ok::<_, Error>(status(200))
        }),
        store.clone(),
    );
    let response = run(service.call(request("/", device.header().as_deref()))).unwrap();
    assert_eq!(response.status(), 200);
    let Course { is_new_lost, is_other_changed, .. } = std::mem::take(&mut *course.lock().unwrap());
    assert!(is_new_lost && is_other_changed);
    assert_eq!(run(store.sessions_of("ada")).unwrap().len(), 1);
}

/// Lets a future make so many calls, and keeps its output.
fn advance<T>(future: &mut Pin<Box<dyn Future<Output = T> + '_>>, calls: usize, output: &mut Option<T>) {
    for _ in 0..calls {
        if output.is_some() {
            return;
        }
        if let Poll::Ready(done) = poll_once(future.as_mut()) {
            *output = Some(done);
        }
    }
}

/// The cookie before a deployment that renames it, and afterwards.
fn former() -> CookieOptions {
    CookieOptions::new().name("__Host-old")
}

fn present() -> CookieOptions {
    CookieOptions::new().name("__Host-new").retired_name("__Host-old")
}

/// A request moves the session from a retired name to the present one, while all sessions are ended: after any number of calls of the
/// ending, and with any number of its own before the rest of the ending.
#[test]
fn t26_an_ending_does_not_miss_a_session_that_moves_from_a_retired_name() {
    const ALL: usize = 100;
    let mut moved_meanwhile = 0;
    for before in 0..12 {
        for between in 0..12 {
            let (memory, clock) = (Watched::default(), FakeClock::at(START));
            let build = |backend: &Watched, cookie: CookieOptions| {
                let builder = ServerStore::with_backend(backend.clone()).cookie(cookie);
                builder.clock(clock.clone()).build().unwrap()
            };
            let mut jar = Jar::new();
            begin(&build(&memory, former()), &mut jar, |session| session.login("ada"));
            let copied = jar.clone();

            let (of_ending, of_request) =
                (build(&memory.taking_turns(), present()), build(&memory.taking_turns(), present()));
            let (mut ended, mut told) = (None, None);
            let mut ending: Pin<Box<dyn Future<Output = _>>> =
                Box::pin(of_ending.end_sessions_of("ada", None));
            let mut saving = ask(of_request, &jar, Save);
            advance(&mut ending, before, &mut ended);
            let begun = before > 0 && ended.is_none();
            advance(&mut saving, between, &mut told);
            moved_meanwhile += usize::from(begun && told.is_some());
            advance(&mut ending, ALL, &mut ended);
            advance(&mut saving, ALL, &mut told);

            ended.expect("the ending ends").unwrap();
            let Some(Told::Headers(headers)) = told else { panic!("the request has no response") };
            jar.store(&headers);
            let store = build(&memory, present());
            let context = format!("{before} calls of the ending, {between} of the request");
            assert_eq!(run(store.sessions_of("ada")).unwrap(), [], "{context}");
            for jar in [&jar, &copied] {
                let subject = whose(&store, jar).and_then(|found| found.1);
                assert_eq!(subject, None, "{context}");
            }
        }
    }
    assert!(moved_meanwhile >= 10, "{moved_meanwhile}");
}

/// Two requests take turns, each to a server of its own that `build` makes over the backend that `prepare` returns, with the jars of
/// both: some steps of the first, some of the second, some of the first again, then the rest of the second, and of the first. `check`
/// gets the jars of both, and one that received both responses.
fn two_at_once(
    deed: Deed,
    build: impl Fn(&Watched) -> ServerStore<Watched>,
    prepare: impl Fn() -> (Watched, [Jar; 2]),
    check: impl Fn(&ServerStore<Watched>, &[Jar; 3], &str),
) {
    const MOST: usize = 10;
    for steps in 0..MOST.pow(3) {
        let (one, two, again) = (steps % MOST, steps / MOST % MOST, steps / MOST / MOST);
        let (memory, [mut first, mut second]) = prepare();
        let mut browser = first.clone();
        let [mut of_first, mut of_second] =
            [&first, &second].map(|jar| ask(build(&memory.taking_turns()), jar, deed));
        let (mut told_first, mut told_second) = (None, None);
        for (calls_first, calls_second) in [(one, two), (again, 100), (100, 0)] {
            for (request, calls, told, jar) in [
                (&mut of_first, calls_first, &mut told_first, &mut first),
                (&mut of_second, calls_second, &mut told_second, &mut second),
            ] {
                let was_told = told.is_some();
                advance(request, calls, told);
                if let (false, Some(Told::Headers(headers))) = (was_told, &*told) {
                    jar.store(headers);
                    browser.store(headers);
                }
            }
        }
        assert!(told_first.is_some() && told_second.is_some());
        let context = format!("{deed:?}: {one}, {two} and {again} steps");
        check(&build(&memory), &[first, second, browser], &context);
    }
}

fn is_adas(store: &ServerStore<Watched>, jar: &Jar) -> bool {
    whose(store, jar).is_some_and(|(_, subject)| subject.as_deref() == Some("ada"))
}

/// The later login ends the earlier one. They do not end each other, although the session that both came with has another token by
/// then.
#[test]
fn r9_two_logins_at_once_at_the_session_limit_leave_one() {
    let clock = FakeClock::at(START);
    let build = |backend: &Watched| {
        let builder = ServerStore::with_backend(backend.clone()).max_sessions_per_subject(1);
        builder.clock(clock.clone()).build().unwrap()
    };
    let cart: fn(&Session) -> Result<(), Error> = |session| session.set("cart", 1);
    for (deed, one_browser) in
        [(Login, true), (LoginOnAnonymous, true), (LoginOnAnonymous, false), (LoginAgain, true)]
    {
        let prepare = || {
            let memory = Watched::default();
            let (store, mut jar) = (build(&memory), Jar::new());
            match deed {
                LoginOnAnonymous => begin(&store, &mut jar, cart),
                LoginAgain => begin(&store, &mut jar, |session| session.login("ada")),
                _ => begin(&store, &mut Jar::new(), |session| session.login("ada")),
            }
            let mut second = jar.clone();
            if !one_browser {
                second = Jar::new();
                begin(&store, &mut second, cart);
                // Both find that there is one session too many.
                begin(&store, &mut Jar::new(), |session| session.login("ada"));
            }
            (memory, [jar, second])
        };
        two_at_once(deed, build, prepare, |store, jars, context| {
            let logged_in = jars[..2].iter().filter(|jar| is_adas(store, jar)).count();
            assert_eq!(logged_in, 1, "{context}");
            assert_eq!(run(store.sessions_of("ada")).unwrap().len(), 1, "{context}");
        });
    }
}

/// A login does not depend on the session that it came with: its user has shown who it is.
#[test]
fn r9_two_logins_at_once_with_one_session_both_hold() {
    let clock = FakeClock::at(START);
    let build = |cookie: CookieOptions, backend: &Watched| {
        let builder = ServerStore::with_backend(backend.clone()).cookie(cookie);
        builder.clock(clock.clone()).build().unwrap()
    };
    for (deed, moves) in [(LoginOnAnonymous, false), (LoginAgain, false), (LoginAgain, true)] {
        let prepare = || {
            let (memory, mut jar) = (Watched::default(), Jar::new());
            let store = build(if moves { former() } else { present() }, &memory);
            begin(&store, &mut jar, |session| session.set("cart", 1));
            if deed == LoginAgain {
                begin(&store, &mut jar, |session| session.login("ada"));
            }
            (memory, [jar.clone(), jar])
        };
        two_at_once(
            deed,
            |backend| build(present(), backend),
            prepare,
            |store, jars, context| {
                assert!(jars.iter().all(|jar| is_adas(store, jar)), "{context}, moves: {moves}");
            },
        );
    }
}

/// Two requests of one page move the session from a retired name. Only a login ends sessions beyond the limit: this one stays, though
/// it is on the list twice for a moment, and so does that of another device.
#[test]
fn t26_a_session_that_moves_at_the_session_limit_ends_none() {
    let clock = FakeClock::at(START);
    let build = |cookie: CookieOptions, backend: &Watched| {
        let builder = ServerStore::with_backend(backend.clone()).cookie(cookie).max_sessions_per_subject(1);
        builder.clock(clock.clone()).build().unwrap()
    };
    for other_device in [false, true] {
        let prepare = || {
            let (memory, mut jar) = (Watched::default(), Jar::new());
            if other_device {
                begin(&build(present(), &memory), &mut Jar::new(), |session| session.login("ada"));
            }
            begin(&build(former(), &memory), &mut jar, |session| session.login("ada"));
            (memory, [jar.clone(), jar])
        };
        two_at_once(
            Save,
            |backend| build(present(), backend),
            prepare,
            |store, jars, context| {
                assert!(is_adas(store, &jars[2]), "{context}");
                let live = run(store.sessions_of("ada")).unwrap().len();
                assert_eq!(live, 1 + usize::from(other_device), "{context}");
            },
        );
    }
}

/// A login that failed takes no place: its session, whose token no browser has, does not count at the next try.
#[test]
fn t26_a_login_that_failed_is_not_refused_at_the_session_limit_when_it_is_repeated() {
    for (restarts, fails_at_list) in [(false, false), (true, false), (false, true), (true, true)] {
        let (memory, clock, events) = (Watched::default(), FakeClock::at(START), Events::new());
        let faulty = Faulty::new(memory.clone());
        let builder = ServerStore::with_backend(faulty.clone()).clock(clock.clone());
        let builder = builder.max_sessions_per_subject(1).at_session_limit(SessionLimit::RefuseLogin);
        let store = builder.build().unwrap();
        let plain = server(&memory, &clock, &events);
        let mut visitor = Jar::new();
        begin(&plain, &mut visitor, |session| session.set("cart", 1));
        let id = EntryId::from_bytes(whose(&plain, &visitor).unwrap().0.to_bytes());
        let service = SessionService::new(
            service_fn(move |request: Request<Body>| async move {
                let session = request.session().await?;
                if restarts {
                    session.destroy()?;
                }
                session.login("ada")?;
                Ok::<_, Error>(status(200))
            }),
            store,
        );
        let log_in = || run(service.call(request("/", visitor.header().as_deref()))).unwrap().status();
        // The end of the visitor's session fails, or the look at the list after the new one was stored.
        let course = Mutex::new((false, false));
        faulty.intercept(move |call| {
            let mut course = course.lock().unwrap();
            let (stored, failed) = &mut *course;
            let is_list = call.primitive == Primitive::Fetch && call.id != id;
            let fails = if fails_at_list {
                *stored && !*failed && is_list
            } else {
                call.id == id && call.primitive != Primitive::Fetch
            };
            *stored |= call.primitive == Primitive::Create;
            *failed |= fails;
            fails.then_some(Fault::Unreachable)
        });
        let context = format!("restarts: {restarts}, fails at the list: {fails_at_list}");
        assert_eq!(log_in(), 503, "{context}");
        faulty.intercept(|_| None);
        assert_eq!(run(plain.sessions_of("ada")).unwrap(), [], "{context}");
        assert_eq!(log_in(), 200, "{context}");
        assert_eq!(run(plain.sessions_of("ada")).unwrap().len(), 1, "{context}");
    }
}

/// A login ends another device once it has replaced the session that it came with. If that fails, or if the login is refused, both
/// sessions are as they were.
#[test]
fn t26_a_login_that_fails_at_the_session_limit_ends_no_other_device() {
    for refuses in [false, true] {
        let (memory, clock, events) = (Watched::default(), FakeClock::at(START), Events::new());
        let plain = server(&memory, &clock, &events);
        let (mut visitor, mut device) = (Jar::new(), Jar::new());
        begin(&plain, &mut visitor, |session| session.set("cart", 1));
        begin(&plain, &mut device, |session| session.login("ada"));
        let id = EntryId::from_bytes(whose(&plain, &visitor).unwrap().0.to_bytes());
        let faulty = Faulty::new(memory.clone());
        faulty.intercept(move |call| {
            let fails = !refuses && call.id == id && call.primitive != Primitive::Fetch;
            fails.then_some(Fault::Unreachable)
        });
        let limit = if refuses { SessionLimit::RefuseLogin } else { SessionLimit::EndLeastRecentlyUsed };
        let builder = ServerStore::with_backend(faulty.clone()).clock(clock.clone());
        let store = builder.max_sessions_per_subject(1).at_session_limit(limit).build().unwrap();
        let service = SessionService::new(
            service_fn(|request: Request<Body>| async move {
                request.session().await?.login("ada")?;
                Ok::<_, Error>(status(200))
            }),
            store,
        );
        let log_in = || run(service.call(request("/", visitor.header().as_deref()))).unwrap().status();
        assert_ne!(log_in(), 200, "{limit:?}");
        assert!(is_adas(&plain, &device), "{limit:?}");
        assert!(whose(&plain, &visitor).is_some_and(|(_, subject)| subject.is_none()), "{limit:?}");
        if !refuses {
            faulty.intercept(|_| None);
            assert_eq!(log_in(), 200);
            assert!(!is_adas(&plain, &device), "beyond the limit");
        }
    }
}
