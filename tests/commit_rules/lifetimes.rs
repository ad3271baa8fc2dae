//! How long sessions last: from the login, and by the options of today.

use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::service::Service;
use hyper_session::cookie::CookieOptions;
use hyper_session::store::{Memory, Store};
use hyper_session::testing::FakeClock;
use hyper_session::{
    AppKey, Clock, CookieStore, Keyring, Lifetime, ServerStore, Session, SessionHandle, Timeouts, session_fn,
};

use crate::spy_store::{ABSOLUTE, RENEWAL, START, assert_removed, assert_set, everywhere, on_server, pairs};
use crate::support::{Answer, Body, Events, Jar, block_on, request, status};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// The absolute timeout starts at the login, and anew at each one: a visitor's time does not count. Values stay.
#[test]
fn b6_the_absolute_timeout_starts_at_the_login() {
    everywhere(|world| async move {
        let mut jar = world.jar().await;
        let born = START;
        let until = |jar: Jar, from: u64, to: u64| {
            let world = world.clone();
            async move {
                let mut jar = jar;
                let mut now = from;
                while now < to {
                    now = (now + 500).min(to);
                    world.clock.set(now);
                    world.edit(&mut jar, |_| Ok(())).await;
                }
                jar
            }
        };
        // A minute before the visitor's session would end.
        let login = born + ABSOLUTE.as_secs() - 60;
        jar = until(jar, born, login).await;
        world.edit(&mut jar, |session| session.login("ada")).await;
        assert_eq!(world.facts(&jar).await.1.as_unix(), login, "the session begins with its login");
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]));
        // And once more: the same user proves who it is.
        let again = login + ABSOLUTE.as_secs() - 60;
        jar = until(jar, login, again).await;
        world.edit(&mut jar, |session| session.login("ada")).await;
        assert_eq!(world.facts(&jar).await.1.as_unix(), again);
        if let Some(server) = &world.server {
            let listed = server.sessions_of("ada").await.unwrap();
            assert_eq!(listed.iter().map(|listed| listed.created.as_unix()).collect::<Vec<_>>(), [again]);
        }
        // A new token without a login begins nothing anew (T30).
        let end = again + ABSOLUTE.as_secs();
        jar = until(jar, again, end - 1).await;
        world.edit(&mut jar, Session::regenerate).await;
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]));
        world.clock.set(end);
        assert!(world.look(&jar, Session::is_empty).await);
    });
}

/// A login whose values are dropped has not happened: the time is not prolonged either.
#[test]
fn b6_a_login_under_a_5xx_prolongs_nothing() {
    everywhere(|world| async move {
        let mut jar = world.jar().await;
        world.clock.advance(100 * SECOND);
        world.answer(&mut jar, 500, |session| session.login("ada")).await;
        assert_eq!(world.facts(&jar).await.1.as_unix(), START);
        assert!(world.look(&jar, |session| session.subject().is_none()).await);
    });
}

/// One service, and a jar.
async fn visit(store: &Arc<dyn Store>, jar: &mut Jar) -> bool {
    let service = session_fn(Arc::clone(store), |_: Request<Body>, handle: SessionHandle| async move {
        let session = handle.load().await?;
        Answer::Ok(status(if session.is_empty() { 401 } else { 200 }))
    });
    let response = service.call(request("/", jar.header().as_deref())).await.unwrap();
    jar.store(response.headers());
    response.status() == 200
}

async fn fill(store: &Arc<dyn Store>) -> Jar {
    let service = session_fn(Arc::clone(store), |_: Request<Body>, handle: SessionHandle| async move {
        handle.load().await?.set("a", 1)?;
        Answer::Ok(status(200))
    });
    let mut jar = Jar::new();
    jar.store(service.call(request("/", None)).await.unwrap().headers());
    jar
}

/// The same sessions under several options, as during and after a deployment.
fn deployments(timeouts: &[Timeouts], clock: &FakeClock) -> [Vec<Arc<dyn Store>>; 2] {
    let keys: Keyring = AppKey::generate().unwrap().into();
    let backend = Arc::new(Memory::new());
    let cookie = CookieOptions::new().name("__Host-s");
    let events = Events::new();
    let in_cookies = timeouts.iter().map(|timeouts| {
        let builder = CookieStore::builder(keys.clone()).cookie(cookie.clone()).timeouts(*timeouts);
        Arc::new(builder.clock(clock.clone()).observer(events.clone()).build().unwrap()) as Arc<dyn Store>
    });
    let on_server = timeouts.iter().map(|timeouts| {
        let builder = ServerStore::with_backend(Arc::clone(&backend)).cookie(cookie.clone());
        let builder = builder.timeouts(*timeouts).clock(clock.clone()).observer(events.clone());
        Arc::new(builder.build().unwrap()) as Arc<dyn Store>
    });
    [in_cookies.collect(), on_server.collect()]
}

fn timeouts(idle: Duration, absolute: Duration) -> Timeouts {
    Timeouts { idle, absolute, renewal: idle / 10 }
}

/// A shorter idle timeout applies to sessions that are there already, from the first request on, and to each gap.
#[test]
fn b7_a_lowered_idle_timeout_applies_at_load() {
    let clock = FakeClock::at(START);
    let options = [timeouts(7 * DAY, 30 * DAY), timeouts(15 * MINUTE, 30 * DAY)];
    for stores in deployments(&options, &clock) {
        block_on(async {
            let [before, after] = &stores[..] else { unreachable!() };
            // Not used since long before the deployment.
            for gap in [15 * MINUTE, HOUR, DAY] {
                let mut jar = fill(before).await;
                clock.advance(gap);
                assert!(!visit(after, &mut jar).await, "{gap:?}");
            }
            // Used a moment before it, and only read since.
            let mut jar = fill(before).await;
            for _ in 0..200 {
                clock.advance(14 * MINUTE);
                assert!(visit(after, &mut jar).await);
            }
            clock.advance(15 * MINUTE);
            assert!(!visit(after, &mut jar).await);
            // And after a renewal under the old options in the middle of the deployment.
            let mut jar = fill(before).await;
            clock.advance(10 * MINUTE);
            assert!(visit(after, &mut jar).await);
            clock.advance(10 * MINUTE);
            assert!(visit(before, &mut jar).await);
            clock.advance(14 * MINUTE);
            assert!(visit(after, &mut jar).await);
            clock.advance(DAY);
            assert!(!visit(after, &mut jar).await);
        });
    }
}

/// The same in the last hours of the absolute timeout, where the entry's deadline is that.
#[test]
fn b7_a_lowered_idle_timeout_knows_when_the_session_was_used_near_its_end() {
    let clock = FakeClock::at(START);
    let options = [timeouts(HOUR, 8 * HOUR), timeouts(15 * MINUTE, 8 * HOUR)];
    for stores in deployments(&options, &clock) {
        block_on(async {
            let [before, after] = &stores[..] else { unreachable!() };
            for (gap, alive) in [(14 * MINUTE, true), (15 * MINUTE, false)] {
                let mut jar = fill(before).await;
                for _ in 0..11 {
                    clock.advance(40 * MINUTE);
                    assert!(visit(before, &mut jar).await);
                }
                // Renewed a moment ago, for the forty minutes that are left.
                clock.advance(gap);
                assert_eq!(visit(after, &mut jar).await, alive, "{gap:?}");
            }
        });
    }
}

/// A raised idle timeout counts from the next renewal, under either order of requests.
#[test]
fn b7_a_raised_idle_timeout_counts_from_the_next_renewal() {
    let clock = FakeClock::at(START);
    let options = [timeouts(15 * MINUTE, 30 * DAY), timeouts(7 * DAY, 30 * DAY)];
    for stores in deployments(&options, &clock) {
        block_on(async {
            let [before, after] = &stores[..] else { unreachable!() };
            let mut jar = fill(before).await;
            clock.advance(14 * MINUTE);
            assert!(visit(after, &mut jar).await);
            clock.advance(6 * DAY);
            assert!(visit(after, &mut jar).await);
        });
    }
}

/// A backend may move the deadline of an entry before it finds that another request has written it.
#[test]
fn a_renewal_keeps_the_lifetime_that_another_request_set_meanwhile() {
    on_server(|world| async move {
        for idle in [20, 3_000] {
            let jar = world.jar().await;
            world.clock.advance(RENEWAL);
            let (inner, other) = (world.clone(), jar.clone());
            let renewed = world.start(&jar, move |ask| {
                let (world, mut other) = (inner.clone(), other.clone());
                async move {
                    let session = ask.session().await?;
                    let lifetime = Lifetime::new().idle_timeout(SECOND * idle);
                    world.edit(&mut other, move |session| session.set_lifetime(lifetime)).await;
                    assert_eq!(session.lifetime(), Lifetime::new(), "as it was loaded");
                    Ok(status(200))
                }
            });
            assert_set(&world, &renewed.await.unwrap());
            let (_, _, expires) = world.facts(&jar).await;
            assert_eq!(expires.saturating_since(world.clock.now()), SECOND * idle);
        }
    });
}

/// `clear` drops everything that the request has given the session, also without a value in it.
#[test]
fn a_clear_drops_a_lifetime_that_was_set_before() {
    everywhere(|world| async move {
        for stored in [false, true] {
            let mut jar = if stored { world.jar().await } else { Jar::new() };
            let act = |session: &Session| {
                session.set_lifetime(Lifetime::until_browser_closes())?;
                session.clear()?;
                assert_eq!(session.lifetime(), Lifetime::new());
                session.set("b", 2_u64)
            };
            world.edit(&mut jar, act).await;
            assert_eq!(world.look(&jar, Session::lifetime).await, Lifetime::new());
            assert_eq!(world.values(&jar).await, pairs(&[("b", 2)]));
        }
    });
}

/// `clear` ends the session, whatever another request sets meanwhile, also if no value was left by then.
#[test]
fn a_clear_after_the_last_value_was_deleted_ends_the_session() {
    on_server(|world| async move {
        let mut jar = world.jar().await;
        let (inner, other) = (world.clone(), jar.clone());
        let cleared = world.visit(&mut jar, move |ask| {
            let (world, mut other) = (inner.clone(), other.clone());
            async move {
                let session = ask.session().await?;
                world.edit(&mut other, |session| session.set("b", 2_u64)).await;
                session.delete("a")?;
                session.clear()?;
                Ok(status(200))
            }
        });
        assert_removed(&world, &cleared.await);
        assert_eq!(world.rows().await, 0);
    });
}
