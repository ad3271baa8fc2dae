//! Interleavings of requests: all of a few requests, and some that threads produce.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use http::{Request, Response};
use hyper::service::{Service, service_fn};
use hyper_session::store::{Backend, Memory};
use hyper_session::testing::FakeClock;
use hyper_session::{Error, Event, EventKind, Refusal, ServerStore, SessionExt, SessionId, SessionService};

use crate::concurrent_requests::{
    Deed, IDLE, NAME, NOW, START, State, Values, Watched, look, poll_once, run, server, shared_session,
};
use crate::support::{self, Body, Events, Jar, request, set_cookies, status, visit};

pub(crate) const DEEDS: [Deed; 9] = [
    Deed::Set,
    Deed::Update,
    Deed::DeleteLast,
    Deed::Clear,
    Deed::Regenerate,
    Deed::RegenerateAndSet,
    Deed::Destroy,
    Deed::DestroyAndSet,
    Deed::Touch,
];

/// One client of several: its request, its cookies, and what is known of it.
struct Client {
    deed: Deed,
    jar: Jar,
    future: Option<Pin<Box<dyn Future<Output = Result<Response<Body>, Error>>>>>,
    /// It found the shared session when it loaded.
    found: Arc<Mutex<Option<bool>>>,
    /// It was told, by an event, that its changes were dropped because the session had ended.
    dropped: bool,
    /// It came with a token that another request had replaced.
    overtaken: bool,
    begun: usize,
    done: usize,
}

/// How a schedule ended.
pub(crate) struct Ended {
    clients: Vec<Client>,
    /// The sessions that the clients' cookies lead to, by id, each session once.
    sessions: BTreeMap<SessionId, State>,
    /// The sessions that the store holds.
    stored: BTreeSet<SessionId>,
    /// All of that, for the message of a failure.
    context: String,
}

/// Lets the requests of `deeds` take their turns as `choices` say: the number of the client among those not done yet.
/// Returns how it ended, and of how many each choice was; where `choices` ends, the first goes on. If they are to start
/// `loaded`, each takes the turns up to its first write beforehand.
fn play(deeds: &[Deed], loaded: bool, choices: &[usize]) -> (Ended, Vec<(usize, usize)>) {
    let (backend, clock, events) = (Watched::in_turns(), FakeClock::at(START), Events::new());
    let store = server(&backend, &clock, &events);
    let jar = shared_session(&store);
    clock.set(NOW);

    let mut clients: Vec<Client> = Vec::new();
    for (number, &deed) in deeds.iter().enumerate() {
        let found = Arc::new(Mutex::new(None));
        let to_fill = Arc::clone(&found);
        let service = SessionService::new(
            service_fn(move |request: Request<Body>| {
                let found = Arc::clone(&to_fill);
                async move {
                    let session = request.session().await?;
                    *found.lock().unwrap() = Some(session.id().is_some());
                    deed.perform(&session, number)?;
                    Ok::<_, Error>(status(200))
                }
            }),
            server(&backend, &clock, &events),
        );
        let request = request("/", jar.header().as_deref());
        let future: Pin<Box<dyn Future<Output = _>>> = Box::pin(async move { service.call(request).await });
        let (jar, future) = (jar.clone(), Some(future));
        clients.push(Client {
            deed,
            jar,
            future,
            found,
            dropped: false,
            overtaken: false,
            begun: usize::MAX,
            done: usize::MAX,
        });
    }
    events.take();

    if loaded {
        for client in &mut clients {
            let future = client.future.as_mut().unwrap();
            assert!(poll_once(future.as_mut()).is_pending() && poll_once(future.as_mut()).is_pending());
            client.begun = 0;
        }
    }
    let (mut taken, mut turns) = (Vec::new(), Vec::new());
    loop {
        let waiting: Vec<usize> =
            (0..clients.len()).filter(|&client| clients[client].future.is_some()).collect();
        if waiting.is_empty() {
            break;
        }
        let choice = choices.get(taken.len()).copied().unwrap_or(0);
        taken.push((choice, waiting.len()));
        let client = &mut clients[waiting[choice]];
        turns.push(waiting[choice]);
        client.begun = client.begun.min(turns.len());
        if let Poll::Ready(response) = poll_once(client.future.as_mut().unwrap().as_mut()) {
            let response = response.unwrap();
            assert_eq!(response.status(), 200, "{deeds:?} {turns:?}");
            client.jar.store(response.headers());
            client.done = turns.len();
            client.future = None;
        }
        let told = events.take();
        client.dropped |= told.contains(&"dropped:session_ended".to_owned());
        client.overtaken |= told.contains(&support::refused(Refusal::Regenerated));
        assert!(turns.len() < 200, "{deeds:?} never ends: {turns:?}");
    }
    let stored = backend.ids();
    let mut sessions = BTreeMap::new();
    for found in clients.iter().filter_map(|client| look(&store, &client.jar)) {
        assert_eq!(found.expires, NOW + IDLE, "the deadline after {deeds:?}, turns {turns:?}");
        sessions.insert(found.id, found.state);
    }
    let context = format!("{deeds:?}, turns {turns:?}, stored {stored:?}, sessions {sessions:?}");
    (Ended { clients, sessions, stored, context }, taken)
}

/// Plays every schedule there is, and returns how many that are.
pub(crate) fn every_schedule(deeds: &[Deed], check: impl Fn(&Ended)) -> usize {
    schedules(deeds, false, check)
}

pub(crate) fn schedules(deeds: &[Deed], loaded: bool, check: impl Fn(&Ended)) -> usize {
    let mut choices = Vec::new();
    for count in 1.. {
        let (ended, taken) = play(deeds, loaded, &choices);
        check(&ended);
        let Some(last) = taken.iter().rposition(|(choice, of)| choice + 1 < *of) else {
            return count;
        };
        choices = taken[..=last].iter().map(|(choice, _)| *choice).collect();
        choices[last] += 1;
    }
    unreachable!()
}

fn permutations(of: usize) -> Vec<Vec<usize>> {
    if of == 0 {
        return vec![Vec::new()];
    }
    let shorter = permutations(of - 1);
    let insert = |order: &Vec<usize>, at: usize| [&order[..at], &[of - 1], &order[at..]].concat();
    shorter.iter().flat_map(|order| (0..of).map(move |at| insert(order, at))).collect()
}

/// The rules for requests that run at once, as what some order of running them one after the other leaves: a request
/// that found the session and comes when it has ended, or has another token, is dropped; one that did not find it
/// works on a session of its own, unless the token that it came with was replaced moments ago. Returns the sessions that are
/// left, and which clients' changes were dropped. A logout ends the session also under the token that it has by then.
fn one_after_the_other(ended: &Ended, order: &[usize]) -> (Vec<State>, Vec<Option<bool>>) {
    let mut shared = Some((START, Values::from([("n".to_owned(), 5)])));
    // It has another token than that of the requests.
    let mut moved = false;
    let mut others = Vec::new();
    let mut dropped = vec![None; ended.clients.len()];
    for &number in order {
        let client = &ended.clients[number];
        let deed = client.deed;
        let logs_out = matches!(deed, Deed::Destroy | Deed::DestroyAndSet);
        if client.overtaken && logs_out {
            shared = None;
        }
        if client.overtaken && !deed.regenerates() && !deed.starts_over() {
            // A session of its own would take away the token that its client was just given.
            dropped[number] = Some(deed.alone(number, (NOW, Values::new())).is_some());
            continue;
        }
        if *client.found.lock().unwrap() == Some(false) {
            others.extend(deed.alone(number, (NOW, Values::new())));
            dropped[number] = Some(false);
            continue;
        }
        // A deed that begins another session goes on, whatever became of the one before.
        if deed.starts_over() && shared.is_none() {
            others.extend(deed.alone(number, (NOW, Values::new())));
            dropped[number] = Some(false);
            continue;
        }
        let goes_on = !moved || logs_out || deed == Deed::Clear;
        // Ending a session that has ended loses nothing, so it may be reported or not.
        dropped[number] = (!deed.ends()).then_some(shared.is_none() || !goes_on);
        if let Some(state) = shared.take_if(|_| goes_on) {
            let after = deed.alone(number, state);
            moved |= deed.regenerates();
            if deed.starts_over() { others.extend(after) } else { shared = after }
        }
    }
    let mut left: Vec<State> = shared.into_iter().chain(others).collect();
    left.sort();
    (left, dropped)
}

/// No update is lost without a word, nothing comes back, nothing is left that no client can reach.
pub(crate) fn assert_in_order(ended: &Ended) {
    let context = &ended.context;
    let reached: BTreeSet<SessionId> = ended.sessions.keys().copied().collect();
    assert_eq!(reached, ended.stored, "an entry that no client holds: {context}");
    let mut left: Vec<State> = ended.sessions.values().cloned().collect();
    left.sort();
    let all_found = ended.clients.iter().all(|client| *client.found.lock().unwrap() == Some(true));
    // A regenerate and a new beginning leave one each: neither knows of the other's.
    let beginnings = ended.clients.iter().filter(|client| client.deed.starts_over()).count();
    assert!(!all_found || left.len() <= 1 + beginnings, "two live tokens: {context}");

    let allowed = permutations(ended.clients.len()).into_iter().any(|order| {
        let in_time = order.iter().enumerate().all(|(at, &one)| {
            order[at..].iter().all(|&other| ended.clients[other].done >= ended.clients[one].begun)
        });
        let (states, dropped) = one_after_the_other(ended, &order);
        let told = dropped.iter().zip(&ended.clients);
        in_time
            && states == left
            && told.clone().all(|(dropped, client)| dropped.is_none_or(|d| d == client.dropped))
    });
    let dropped: Vec<_> = ended.clients.iter().map(|client| client.dropped).collect();
    assert!(allowed, "no order of requests leaves this: {context}, dropped {dropped:?}");
}

#[test]
fn requests_that_set_different_keys_both_keep_them_in_every_interleaving() {
    let schedules = every_schedule(&[Deed::Set, Deed::Set], |ended| {
        let expected =
            BTreeMap::from([("client0".to_owned(), 1), ("client1".to_owned(), 1), ("n".to_owned(), 5)]);
        assert_eq!(ended.sessions.values().collect::<Vec<_>>(), [&(START, expected)], "{}", ended.context);
    });
    // Three turns each (to the load, to the save, to the end), and one more for the request that comes second.
    assert!(schedules >= 20, "{schedules}");
}

#[test]
fn updates_add_up_in_every_interleaving() {
    for clients in [2, 3] {
        every_schedule(&vec![Deed::Update; clients], |ended| {
            let sum = Values::from([("n".to_owned(), 5 + i64::try_from(clients).unwrap())]);
            assert_eq!(ended.sessions.values().collect::<Vec<_>>(), [&(START, sum)], "{}", ended.context);
        });
    }
}

/// A request that loaded before the logout and saves after it saves nothing. A request that gets a new token before the logout loses that,
/// too: the values of the session are gone after the logout, under whatever token they were.
#[test]
fn t34_a_slow_request_never_brings_back_what_was_ended() {
    for other in DEEDS {
        for end in [Deed::Destroy, Deed::Clear] {
            every_schedule(&[other, end], |ended| {
                assert_in_order(ended);
                let [slow, logout] = &ended.clients[..] else { panic!("two clients") };
                // A logout that a new token overtook has nothing to clear; to destroy is to log out in any case.
                if end == Deed::Destroy || *logout.found.lock().unwrap() == Some(true) || !other.regenerates()
                {
                    assert_eq!(
                        logout.jar.get(NAME),
                        None,
                        "the logout removes the cookie: {}",
                        ended.context
                    );
                }
                let has_logged_out = end == Deed::Destroy || *logout.found.lock().unwrap() == Some(true);
                let old = ended.sessions.values().any(|(_, values)| values.get("n") == Some(&5));
                assert!(!old || !has_logged_out, "values of the old session: {}", ended.context);
                if other.starts_over() || !has_logged_out {
                    assert!(ended.stored.len() <= 1, "{}", ended.context);
                } else if *slow.found.lock().unwrap() == Some(true) {
                    assert!(ended.stored.is_empty(), "{}", ended.context);
                }
            });
        }
    }
}

/// Pairs of deeds, in one order: the schedules go through both.
pub(crate) fn pairs(deeds: &[Deed]) -> Vec<[Deed; 2]> {
    let pairs = deeds.iter().enumerate().map(|(at, one)| deeds[at..].iter().map(|other| [*one, *other]));
    pairs.flatten().collect()
}

#[test]
fn every_interleaving_of_every_pair_of_requests_is_some_order_of_them() {
    let deeds: Vec<_> = DEEDS.into_iter().filter(|deed| *deed != Deed::DeleteLast).collect();
    let schedules: usize = pairs(&deeds).iter().map(|pair| every_schedule(pair, assert_in_order)).sum();
    assert!(schedules >= 36 * 6, "{schedules}");
}

/// A request that deletes the last value that it knows of has not seen what the other one saves.
#[test]
fn deleting_the_last_value_loses_no_value_of_another_request_in_any_interleaving() {
    for other in DEEDS {
        every_schedule(&[Deed::DeleteLast, other], assert_in_order);
        every_schedule(&[Deed::RegenerateAndDeleteLast, other], assert_in_order);
    }
}

#[test]
fn every_interleaving_of_the_writes_of_three_requests_is_some_order_of_them() {
    let deeds = [Deed::Update, Deed::Set, Deed::Regenerate, Deed::DestroyAndSet, Deed::Destroy];
    let mut count = 0;
    for (at, third) in deeds.into_iter().enumerate() {
        for [one, other] in pairs(&deeds[..=at]) {
            count += schedules(&[one, other, third], true, assert_in_order);
        }
    }
    assert!(count >= 35 * 6, "{count}");
}

/// A handler that saved, and lost its session to another request afterwards, must not hand out the token that it had:
/// it would overwrite the new one that the browser was just given.
#[test]
fn t19_a_session_that_ended_after_a_save_sets_no_dead_cookie() {
    let (backend, clock, events) = (Watched::in_turns(), FakeClock::at(START), Events::new());
    let store = server(&backend, &clock, &events);
    let jar = shared_session(&store);
    let slow = SessionService::new(
        service_fn(|request: Request<Body>| async move {
            let session = request.session().await?;
            session.set("one", 1)?;
            session.save().await?;
            session.set("two", 2)?;
            Ok::<_, Error>(status(200))
        }),
        store.clone(),
    );
    let regenerating = SessionService::new(
        service_fn(|request: Request<Body>| async move {
            request.session().await?.regenerate()?;
            Ok::<_, Error>(status(200))
        }),
        server(&backend, &clock, &events),
    );
    let request = request("/", jar.header().as_deref());
    let mut future = pin!(slow.call(request));
    for _ in 0..3 {
        assert!(poll_once(future.as_mut()).is_pending()); // to the load, to the first save, to the second
    }
    let mut browser = jar.clone();
    run(visit(&regenerating, "/", &mut browser));
    events.take();
    let response = run(future).unwrap();
    assert_eq!(events.take(), ["dropped:session_ended"]);
    browser.store(response.headers());
    assert!(
        look(&store, &browser).is_some(),
        "the browser lost its session to {:?}",
        set_cookies(response.headers())
    );
}

// ---- Threads ------------------------------------------------------------------------------------------------------

/// 64 tasks update one session through the adapter, 200 times each. Returns the most conflicts that one save had.
fn hammer<B: Backend>(backend: B) -> u32 {
    const TASKS: u32 = 64;
    const UPDATES: u32 = 200;
    let most_conflicts = Arc::new(AtomicU32::new(0));
    let to_raise = Arc::clone(&most_conflicts);
    let store = ServerStore::with_backend(backend)
        .observer(move |event: &Event<'_>| {
            if let EventKind::ConflictMerged { conflicts, .. } = event.kind {
                to_raise.fetch_max(conflicts, Ordering::SeqCst);
            }
        })
        .build()
        .unwrap();
    let service = Arc::new(SessionService::new(
        service_fn(|request: Request<Body>| async move {
            let session = request.session().await?;
            if request.uri().path() == "/total" {
                return Ok(Response::new(Body::from(session.get::<u32>("n")?.unwrap().to_string())));
            }
            session.update("n", |old: Option<u32>| old.unwrap_or(0) + 1)?;
            Ok::<_, Error>(status(200))
        }),
        store,
    ));
    let mut jar = Jar::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().unwrap();
    runtime.block_on(visit(&*service, "/", &mut jar));
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let (service, mut jar) = (Arc::clone(&service), jar.clone());
            runtime.spawn(async move {
                let mut failures = 0;
                for _ in 0..UPDATES {
                    failures += u32::from(visit(&*service, "/", &mut jar).await.status() != 200);
                }
                failures
            })
        })
        .collect();
    let failures: u32 = tasks.into_iter().map(|task| runtime.block_on(task).unwrap()).sum();
    assert_eq!(failures, 0, "requests of {} gave up", TASKS * UPDATES);
    let total = runtime.block_on(async { support::text(visit(&*service, "/total", &mut jar).await).await });
    assert_eq!(total, (1 + TASKS * UPDATES).to_string());
    most_conflicts.load(Ordering::SeqCst)
}

#[test]
fn updates_of_64_tasks_add_up_on_a_memory_store() {
    hammer(Memory::new());
}

/// A save gives up after 256 rounds: every answer was a 200, so none did.
#[test]
fn updates_of_64_tasks_add_up_where_every_call_gives_way_to_the_others() {
    let most_conflicts = hammer(Watched::in_turns());
    assert!((1..256).contains(&most_conflicts), "{most_conflicts}");
}
