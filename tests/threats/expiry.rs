//! Deadlines that hold to the second, whatever the clock, the backend or the client does.

use std::sync::Mutex;
use std::time::Duration;

use hyper_session::cookie::CookieOptions;
use hyper_session::{Clock, Refusal, Session, Timestamp};
use proptest::prelude::*;

use crate::attack_fixture::{
    ABSOLUTE, Act, IDLE, KINDS, Kind, Options, Rows, START, TestStore, VALUE, assert_removed, on_both,
};
use crate::support::{Jar, block_on, refused, set_cookies};

#[test]
fn t18_t22_the_idle_deadline_holds_to_the_second() {
    on_both(|kind, world| async move {
        for (seconds, alive) in [(IDLE - 1, true), (IDLE, false), (IDLE + 1, false), (IDLE * 4, false)] {
            world.clock.set(START);
            let jar = world.jar().await;
            world.clock.set(START + seconds);
            assert_eq!(world.value(&jar).await.is_some(), alive, "after {seconds} s");
            let why = if kind == Kind::Cookie { Refusal::Expired } else { Refusal::UnknownId };
            assert_eq!(world.events.take(), if alive { vec![] } else { vec![refused(why)] });
        }
    });
}

#[test]
fn t18_t22_t30_the_absolute_deadline_holds_to_the_second_however_busy() {
    let busy: [Act; 4] = [
        |_| Ok(()),
        |session| session.update("n", |old: Option<u64>| old.unwrap_or(0) + 1).map(drop),
        Session::regenerate,
        |session| session.regenerate().and_then(|()| session.set("b", 1)),
    ];
    on_both(|_, world| async move {
        for act in busy {
            for (seconds, alive) in [(ABSOLUTE - 1, true), (ABSOLUTE, false), (ABSOLUTE + 1, false)] {
                world.clock.set(START);
                let mut jar = world.jar().await;
                for step in 1..=ABSOLUTE / 400 {
                    world.clock.set(START + step * 400);
                    world.edit(&mut jar, act).await;
                    assert_eq!(world.value(&jar).await.as_deref(), Some(VALUE));
                }
                world.clock.set(START + seconds);
                assert_eq!(world.value(&jar).await.is_some(), alive, "after {seconds} s");
            }
        }
    });
}

#[test]
fn t18_t25_a_cookie_from_before_logout_is_worth_nothing_at_once_or_at_its_deadline() {
    on_both(|kind, world| async move {
        let mut jar = world.jar().await;
        let stolen = jar.clone();
        world.edit(&mut jar, Session::destroy).await;
        assert!(jar.0.is_empty());
        if kind == Kind::Memory {
            assert_eq!(world.value(&stolen).await, None);
        }
        world.clock.set(START + IDLE);
        assert_eq!(world.value(&stolen).await, None);
    });
}

#[test]
fn t19_a_backend_that_keeps_rows_for_too_long_keeps_no_sessions_for_too_long() {
    block_on(async {
        let rows = Rows::default();
        rows.with(|table| table.keeps_for_ever = true);
        let world = Options::default().over(&rows);
        for (seconds, alive) in [(IDLE - 1, true), (IDLE, false)] {
            world.clock.set(START);
            let jar = world.jar().await;
            world.clock.set(START + seconds);
            let before = rows.with(|table| table.rows.clone());
            assert_eq!(world.value(&jar).await.is_some(), alive);
            if !alive {
                assert_eq!(world.events.take(), [refused(Refusal::Expired)]);
                assert!(rows.with(|table| table.rows == before), "loading revives nothing");
            }
        }
        // The row says "for ever": the age says no.
        world.clock.set(START);
        let jar = world.jar().await;
        rows.with(|table| table.rows.values_mut().for_each(|stored| stored.expires = Timestamp::MAX));
        world.clock.set(START + ABSOLUTE - 1);
        assert_eq!(world.value(&jar).await.as_deref(), Some(VALUE));
        rows.with(|table| table.rows.values_mut().for_each(|stored| stored.expires = Timestamp::MAX));
        world.clock.set(START + ABSOLUTE);
        assert_eq!(world.value(&jar).await, None);
    });
}

#[test]
fn t20_a_cookie_without_max_age_has_a_deadline_inside() {
    for kind in KINDS {
        block_on(async {
            let world = Options::with_cookie(CookieOptions::new().max_age(None)).build(kind);
            let mut jar = Jar::new();
            let response = world.edit(&mut jar, |session| session.set("a", VALUE)).await;
            let line = &set_cookies(response.headers())[0];
            assert!(!line.contains("Max-Age") && !line.contains("Expires"), "{line}");
            world.clock.set(START + IDLE);
            assert_eq!(world.value(&jar).await, None);
        });
    }
}

#[test]
fn t21_an_expired_cookie_is_an_ordinary_anonymous_request_and_is_removed() {
    on_both(|_, world| async move {
        let mut jar = world.jar().await;
        world.clock.set(START + IDLE);
        let response = world
            .edit(&mut jar, |session| {
                assert!(session.is_empty());
                Ok(())
            })
            .await;
        assert_eq!(response.status(), 200);
        assert_removed(&response);
        assert!(jar.0.is_empty());
    });
}

const LAST_HOUR: u64 = u32::MAX as u64 * 3600;

#[test]
fn t23_the_longest_durations_and_the_last_moments_do_not_overflow() {
    for kind in KINDS {
        for now in [0, 1, START, LAST_HOUR - 1, i64::MAX as u64, u64::MAX - 1] {
            // A token cannot name an hour after this one (in the year 491,936): no session then, and no panic.
            let told_in_tokens = kind == Kind::Memory || now <= LAST_HOUR;
            block_on(async {
                let cookie = CookieOptions::new().max_age(Duration::MAX);
                let options =
                    Options { cookie, idle: Duration::MAX, absolute: Duration::MAX, ..Options::default() };
                let world = options.build(kind);
                world.clock.set(now);
                let mut jar = Jar::new();
                let response = world.edit(&mut jar, |session| session.set("a", VALUE)).await;
                let lines = set_cookies(response.headers());
                // A session that has expired when it is written sets no cookie.
                assert_eq!(lines.len(), usize::from(told_in_tokens), "{kind:?} at {now}");
                for line in lines {
                    let age = line.split("; ").find_map(|part| part.strip_prefix("Max-Age=")).unwrap();
                    assert!(age.parse::<u64>().unwrap() <= 400 * 86_400, "{line}");
                }
                if now < u64::MAX - 1 && told_in_tokens {
                    assert_eq!(world.value(&jar).await.as_deref(), Some(VALUE), "{kind:?} at {now}");
                    world.edit(&mut jar, Session::regenerate).await;
                    assert_eq!(world.value(&jar).await.as_deref(), Some(VALUE), "{kind:?} at {now}");
                }
                // Even the last moment of all must not panic.
                world.clock.set(u64::MAX);
                assert_eq!(world.value(&jar).await, None);
                assert_eq!(
                    world.edit(&mut Jar::new(), |session| session.set("a", VALUE)).await.status(),
                    200
                );
            });
        }
    }
}

#[test]
fn t24_a_cookie_from_the_future_is_refused() {
    block_on(async {
        for (ahead, accepted) in [(60, true), (61, false), (IDLE, false), (10 * ABSOLUTE, false)] {
            let world = TestStore::new(Kind::Cookie);
            world.clock.set(START + ahead);
            let jar = world.jar().await;
            world.clock.set(START);
            assert_eq!(world.value(&jar).await.is_some(), accepted, "{ahead} s ahead");
            let told = if accepted { vec![] } else { vec![refused(Refusal::IssuedInFuture)] };
            assert_eq!(world.events.take(), told);
        }
    });
}

#[test]
fn t24_a_clock_that_goes_back_lengthens_no_session() {
    on_both(|kind, world| async move {
        world.clock.set(START + 2_000);
        let mut jar = world.jar().await;
        for back in [30, 60, 2_000] {
            world.clock.set(START + 2_000 - back);
            let before = jar.clone();
            world.edit(&mut jar, |_| Ok(())).await;
            // Issued in the future, or nothing is gained by renewing: either way the browser keeps what it has.
            assert_eq!(jar.0, before.0);
            let expected = (kind == Kind::Memory || back <= 60).then_some(VALUE);
            assert_eq!(world.value(&jar).await.as_deref(), expected);
        }
        world.clock.set(START + 2_000 + IDLE - 1);
        assert!(world.value(&jar.clone()).await.is_some());
        // That read renewed the entry of a server-side store; the absolute deadline is where it was.
        world.clock.set(START + 2_000 + ABSOLUTE);
        assert_eq!(world.value(&jar).await, None);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn t31_every_deadline_written_is_the_nearer_of_idle_and_absolute(
        steps in proptest::collection::vec((0..700_u64, 0..5_usize), 1..20),
    ) {
        block_on(async {
            let rows = Rows::default();
            let world = Options::default().over(&rows);
            let mut jar = world.jar().await;
            let mut born = START;
            let acts: [Act; 5] = [
                |session| session.set("a", VALUE),
                |session| session.update("n", |old: Option<u64>| old.unwrap_or(0) + 1).map(drop),
                Session::regenerate,
                |_| Ok(()),
                |session| session.set_flash("f", 1),
            ];
            for (seconds, act) in steps {
                world.clock.advance(Duration::from_secs(seconds));
                rows.with(|table| table.deadlines.clear());
                let created = Mutex::new(None);
                world.edit(&mut jar, |session| {
                    *created.lock().unwrap() = session.created_at();
                    acts[act](session)
                }).await;
                let now = world.clock.now();
                // Where the old session had expired, a new one may have begun.
                born = created.into_inner().unwrap().map_or(now.as_unix(), Timestamp::as_unix).max(born);
                let expected = now.as_unix().saturating_add(IDLE).min(born + ABSOLUTE);
                for (at, expires) in rows.with(|table| table.deadlines.clone()) {
                    assert_eq!((at, expires.as_unix()), (now, expected));
                }
                for (at, expires) in rows.with(|table| std::mem::take(&mut table.marks)) {
                    assert_eq!((at, expires), (now, now.saturating_add(Duration::from_secs(60))));
                }
            }
        });
    }
}

#[test]
fn t30_regenerate_renewal_and_merge_keep_the_beginning() {
    on_both(|_, world| async move {
        let mut jar = world.jar().await;
        let acts: [Act; 4] = [
            Session::regenerate,
            |_| Ok(()),
            |session| session.set("b", 2),
            |session| {
                session.clear().and_then(|()| session.set("a", VALUE)).and_then(|()| session.regenerate())
            },
        ];
        for act in acts {
            world.clock.advance(Duration::from_secs(500));
            world.edit(&mut jar, act).await;
            let created = Mutex::new(None);
            world
                .edit(&mut jar.clone(), |session| {
                    *created.lock().unwrap() = session.created_at();
                    Ok(())
                })
                .await;
            assert_eq!(created.into_inner().unwrap(), Some(Timestamp::from_unix(START)));
        }
    });
}
