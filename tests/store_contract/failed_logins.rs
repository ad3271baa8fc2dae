//! Logins of which one step fails, or that find their session ended: no other device pays for it, and the next try works.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use http::{HeaderMap, Request};
use hyper::service::{Service, service_fn};
use hyper_session::store::{EntryId, Memory, SessionLimit};
use hyper_session::testing::{FakeClock, Fault, Faulty, Primitive};
use hyper_session::{AppKey, Error, Keyring, Lifetime, ServerStore, Session, SessionExt, SessionService};

use crate::concurrent_requests::poll_once;
use crate::support::{Body, Jar, block_on, request, set_cookies, status, visit};

type Store = ServerStore<Faulty<Memory>>;
type Act = fn(&Session) -> Result<(), Error>;

const LOGIN: Act = |session| session.login("ada");

struct World {
    faulty: Faulty<Memory>,
    clock: FakeClock,
    store: Store,
}

impl World {
    fn new(limit: SessionLimit, max: usize) -> Self {
        let (faulty, clock) = (Faulty::new(Memory::new()), FakeClock::at(1_000_000));
        let store = ServerStore::with_backend(faulty.clone()).clock(clock.clone());
        let store = store.max_sessions_per_subject(max).at_session_limit(limit).build().unwrap();
        Self { faulty, clock, store }
    }

    fn visit(&self, jar: &mut Jar, act: Act) -> u16 {
        block_on(visit(&service(&self.store, act), "/", jar)).status().as_u16()
    }

    /// A device that logged in a while ago.
    fn device(&self) -> Jar {
        let mut jar = Jar::new();
        assert_eq!(self.visit(&mut jar, LOGIN), 200);
        self.clock.advance(Duration::from_secs(100));
        jar
    }

    fn visitor(&self) -> Jar {
        let mut jar = Jar::new();
        assert_eq!(self.visit(&mut jar, |session| session.set("cart", 1)), 200);
        jar
    }

    fn look<T: Send + 'static>(&self, jar: &Jar, look: impl Fn(&Session) -> T + Send + Sync + 'static) -> T {
        let (look, seen) = (Arc::new(look), Arc::new(Mutex::new(None)));
        let service = service_fn(|request: Request<Body>| {
            let (look, seen) = (Arc::clone(&look), Arc::clone(&seen));
            async move {
                *seen.lock().unwrap() = Some(look(&request.session_without_renewal().await?));
                Ok::<_, Error>(status(200))
            }
        });
        let service = SessionService::new(service, self.store.clone());
        block_on(visit(&service, "/", &mut jar.clone()));
        seen.lock().unwrap().take().unwrap()
    }

    fn is_logged_in(&self, jar: &Jar) -> bool {
        self.look(jar, |session| session.subject().is_some())
    }

    /// Lets the `at`-th step fail. Returns the count of steps.
    fn fail(&self, at: usize, fault: Fault) -> Arc<AtomicUsize> {
        let steps = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&steps);
        self.faulty.intercept(move |_| (count.fetch_add(1, Ordering::SeqCst) + 1 == at).then_some(fault));
        steps
    }
}

fn service(
    store: &Store,
    act: Act,
) -> SessionService<
    impl Service<
        Request<Body>,
        Response = http::Response<Body>,
        Error = Error,
        Future = impl Future<Output = Result<http::Response<Body>, Error>>,
    >,
> {
    let handler = service_fn(move |request: Request<Body>| async move {
        act(&request.session().await?)?;
        Ok::<_, Error>(status(200))
    });
    SessionService::new(handler, store.clone())
}

/// T26. Each step of a login fails once, before it is carried out or after. The limit leaves room for this device and the others.
#[test]
fn t26_a_login_that_fails_at_any_step_takes_no_place_and_ends_no_device() {
    let fresh: fn(&World, &Jar) -> Jar = |_, _| Jar::new();
    let visitor: fn(&World, &Jar) -> Jar = |world, _| world.visitor();
    let device: fn(&World, &Jar) -> Jar = |_, device| device.clone();
    let begins_anew: Act = |session| session.destroy().and_then(|()| session.login("ada"));
    let logins = [
        ("fresh", fresh, LOGIN, 3),
        ("on a visitor's session", visitor, LOGIN, 3),
        ("again", device, LOGIN, 2),
        ("destroy and login", device, begins_anew, 2),
    ];
    for limit in [SessionLimit::EndLeastRecentlyUsed, SessionLimit::RefuseLogin] {
        for (name, browser, act, max) in logins {
            for fault in [Fault::Unreachable, Fault::AnswerLost] {
                let mut failed = 0;
                for at in 1.. {
                    let world = World::new(limit, max);
                    let (phone, desk) = (world.device(), world.device());
                    let mut jar = browser(&world, &desk);
                    let steps = world.fail(at, fault);
                    let first = world.visit(&mut jar, act);
                    world.faulty.repair();
                    let case = format!("{limit:?}, {name}, {fault:?} at {at}: {first}");
                    assert!(world.is_logged_in(&phone), "{case}");
                    if first != 200 {
                        failed += 1;
                        assert_eq!(world.visit(&mut jar, act), 200, "{case}: the next try");
                    }
                    assert!(world.is_logged_in(&jar) && world.is_logged_in(&phone), "{case}");
                    if max == 3 {
                        assert!(world.is_logged_in(&desk), "{case}: the other device");
                    }
                    if steps.load(Ordering::SeqCst) < at {
                        break;
                    }
                }
                assert!(failed > 1, "{name}: some steps are needed");
            }
        }
    }
}

/// T26. A node that hangs costs one session too many, and no session of another node.
#[test]
fn t26_a_session_that_cannot_be_ended_at_the_limit_costs_no_other_device() {
    for visits_first in [false, true] {
        let world = World::new(SessionLimit::EndLeastRecentlyUsed, 3);
        let devices: Vec<_> = (0..3).map(|_| world.device()).collect();
        let hung = world.look(&devices[0], |session| EntryId::from_bytes(session.id().unwrap().to_bytes()));
        let mut jar = if visits_first { world.visitor() } else { Jar::new() };
        world.faulty.intercept(move |call| (call.id == hung).then_some(Fault::Unreachable));
        assert_eq!(world.visit(&mut jar, LOGIN), 200);
        world.faulty.repair();
        assert!(devices[1..].iter().chain([&jar]).all(|jar| world.is_logged_in(jar)));
        // The next login ends what was left.
        let another = world.device();
        let alive = devices.iter().chain([&jar, &another]).filter(|jar| world.is_logged_in(jar)).count();
        assert_eq!(alive, 3);
    }
}

/// T26. Another host may have the key of the others, and only one session is too many.
#[test]
fn t26_at_the_limit_a_host_ends_one_session_that_it_cannot_read_and_not_all_of_them() {
    let world = World::new(SessionLimit::EndLeastRecentlyUsed, 3);
    let (old, new) = (AppKey::generate().unwrap(), AppKey::generate().unwrap());
    let host = |ring: Keyring| {
        let store = ServerStore::with_backend(world.faulty.clone()).clock(world.clock.clone());
        store.max_sessions_per_subject(3).seal_records(ring).build().unwrap()
    };
    let old_text = old.to_text();
    let at_old = host(AppKey::from_text(&old_text).unwrap().into());
    let at_new = host(Keyring::from(new).accept(old));
    let mut jars: Vec<_> = (0..3).map(|_| Jar::new()).collect();
    for jar in &mut jars {
        world.clock.advance(Duration::from_secs(100));
        block_on(visit(&service(&at_old, LOGIN), "/", jar));
    }
    for jar in &mut jars[..2] {
        block_on(visit(&service(&at_new, |session| session.set("written", "under the new key")), "/", jar));
    }
    let mut fourth = Jar::new();
    assert_eq!(block_on(visit(&service(&at_old, LOGIN), "/", &mut fourth)).status(), 200);
    let world = World { store: at_new, ..world };
    let alive: Vec<_> = jars.iter().map(|jar| world.is_logged_in(jar)).collect();
    assert_eq!(alive, [false, true, true]);
}

/// The settings of a kiosk, which a later login on the same session sets again.
const KIOSK: Act = |session| {
    session.set("must_change_password", true)?;
    session.login("ada")?;
    session.describe("kiosk 7")?;
    session.set_lifetime(Lifetime::until_browser_closes().idle_timeout(Duration::from_secs(120)))
};

/// T35. The values that a handler sets are in the session that its login begins, even if the former session had the same.
#[test]
fn t35_a_login_whose_session_has_ended_keeps_all_that_its_handler_sets() {
    let end: [fn(&World, &Jar); 3] = [
        |world, jar| assert_eq!(world.visit(&mut jar.clone(), Session::destroy), 200),
        |world, jar| assert_eq!(world.visit(&mut jar.clone(), KIOSK), 200),
        |world, _| {
            // It is flagged on the list, and its entry cannot be deleted.
            world.faulty.intercept(|call| {
                let deletes = call.primitive == Primitive::Delete
                    || call.primitive == Primitive::Replace && call.entry.is_none();
                deletes.then_some(Fault::Unreachable)
            });
            assert!(block_on(world.store.end_sessions_of("ada", None)).is_err());
        },
    ];
    for (number, end) in end.into_iter().enumerate() {
        let world = World::new(SessionLimit::EndLeastRecentlyUsed, 9);
        let mut jar = Jar::new();
        world.visit(&mut jar, KIOSK);
        let headers = login_while(&world, &jar, KIOSK, end);
        let line = set_cookies(&headers).pop().unwrap();
        assert!(!line.contains("Max-Age"), "{number}: until the browser closes: {line}");
        jar.store(&headers);
        let seen = world.look(&jar, |session| {
            let must_change = session.get::<bool>("must_change_password").unwrap();
            let description = session.description().map(|text| text.to_string());
            (must_change, description, session.remaining().unwrap())
        });
        let expected = (Some(true), Some("kiosk 7".to_owned()), Duration::from_secs(120));
        assert_eq!(seen, expected, "{number}");
    }
}

/// T35. Values that were computed from those of the session that has ended are not in the session of the login.
#[test]
fn t35_a_login_whose_session_has_ended_takes_over_no_value_of_it() {
    const BUY: Act = |session| {
        session.login("ada")?;
        let add = |cart: Option<Vec<String>>| [cart.unwrap_or_default(), vec!["tea".to_owned()]].concat();
        session.update("cart", add).map(drop)
    };
    let world = World::new(SessionLimit::EndLeastRecentlyUsed, 9);
    let mut jar = Jar::new();
    world.visit(&mut jar, |session| {
        session.login("ada")?;
        session.set("secret", "old")?;
        session.set("cart", ["private"])
    });
    let headers = login_while(&world, &jar, BUY, |world, jar| {
        assert_eq!(world.visit(&mut jar.clone(), Session::destroy), 200);
    });
    jar.store(&headers);
    let seen = world.look(&jar, |session| {
        (session.get::<Vec<String>>("cart").unwrap(), session.get::<String>("secret").unwrap())
    });
    assert_eq!(seen, (Some(vec!["tea".to_owned()]), None));
}

/// Calls `act`, and `meanwhile` before it is saved. Returns the headers of the response.
fn login_while(world: &World, jar: &Jar, act: Act, meanwhile: fn(&World, &Jar)) -> HeaderMap {
    let begun = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&begun);
    let service = service_fn(move |request: Request<Body>| {
        let seen = Arc::clone(&seen);
        async move {
            act(&request.session().await?)?;
            // Until the test has let the other one in.
            let mut waits = !seen.swap(true, Ordering::SeqCst);
            poll_fn(|_| if std::mem::take(&mut waits) { Poll::Pending } else { Poll::Ready(()) }).await;
            Ok::<_, Error>(status(200))
        }
    });
    let service = SessionService::new(service, world.store.clone());
    let mut future = Box::pin(service.call(request("/", jar.header().as_deref())));
    while !begun.load(Ordering::SeqCst) {
        assert!(poll_once(future.as_mut()).is_pending());
    }
    meanwhile(world, jar);
    world.faulty.repair();
    let response = block_on(future).unwrap();
    assert_eq!(response.status(), 200);
    response.headers().clone()
}

/// R9. The moments at which two logins were entered may disagree with their order on the list: a second passes, or two hosts do not
/// agree on it.
#[test]
fn r9_two_logins_at_once_leave_one_whatever_time_passes_between_their_steps() {
    const STEPS: usize = 12;
    for number in 0..STEPS.pow(3) {
        let (first, second, third) = (number % STEPS, number / STEPS % STEPS, number / STEPS / STEPS);
        let world = World::new(SessionLimit::EndLeastRecentlyUsed, 1);
        let device = world.device();
        let mut jars = [world.visitor(), world.visitor()];
        world.faulty.intercept(|_| Some(Fault::Delayed));
        let service = service(&world.store, LOGIN);
        let mut calls =
            jars.each_ref().map(|jar| Some(Box::pin(service.call(request("/", jar.header().as_deref())))));
        for (who, steps) in [(0, first), (1, second), (0, third), (1, 500), (0, 500)] {
            for _ in 0..steps {
                let Some(call) = &mut calls[who] else { break };
                if let Poll::Ready(response) = poll_once(call.as_mut()) {
                    jars[who].store(response.unwrap().headers());
                    calls[who] = None;
                }
            }
            if who == 0 && steps == first {
                world.clock.advance(Duration::from_secs(1));
            }
        }
        assert!(calls.iter().all(Option::is_none), "both are done");
        world.faulty.repair();
        let alive = jars.iter().filter(|jar| world.is_logged_in(jar)).count();
        assert_eq!((alive, world.is_logged_in(&device)), (1, false), "{first}, {second}, {third}");
    }
}
