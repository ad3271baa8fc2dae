//! Events that can come with every request are counted, not repeated: by default, the log has a few lines a minute of each kind.

use std::time::Duration;

use http::{Request, Response};
use hyper::service::Service;
use hyper_session::store::{Memory, MigratingStore, Store};
use hyper_session::testing::{FakeClock, Fault, Faulty, Primitive, with_session};
use hyper_session::{
    AppKey, CookieStore, CrossOriginProtection, Error, Revocations, ServerStore, SessionExt, SessionHandle,
    Timestamp, session_fn,
};
use tracing::Level;

use crate::alone;
use crate::log::Log;
use crate::support::block_on;

/// The lines that a service writes at `info`.
fn logged(deeds: impl Future<Output = ()>) -> Vec<String> {
    let log = Log::at(Level::INFO);
    tracing::subscriber::with_default(log.clone(), || block_on(deeds));
    log.text().lines().map(str::to_owned).collect()
}

/// A request with this cookie whose handler reads its session. False if that fails.
async fn read<S: Store + Clone>(store: &S, cookie: &str) -> bool {
    let service = session_fn(store.clone(), |_: Request<()>, handle: SessionHandle| async move {
        handle.load().await?;
        Ok::<_, Error>(Response::new(()))
    });
    let request = Request::builder().header("cookie", cookie).body(()).unwrap();
    service.call(request).await.is_ok_and(|response| response.status() == 200)
}

fn cookie_of<S: Store + Clone>(store: &S) -> String {
    let request = block_on(with_session(Request::new(()), store, |session| session.set("user", "ada")));
    request.unwrap().headers()["cookie"].to_str().unwrap().to_owned()
}

/// The values of the field `count` of these lines.
fn counts(lines: &[String]) -> Vec<u64> {
    let field = |line: &String| line.split(" count=").nth(1)?.split([' ', ':']).next()?.parse().ok();
    lines.iter().filter_map(field).collect()
}

#[test]
fn a_store_that_is_down_is_said_and_that_it_is_back() {
    let _turn = alone();
    let clock = FakeClock::at(1_000_000);
    let backend = Faulty::new(Memory::new());
    let store = ServerStore::with_backend(backend.clone()).clock(clock.clone()).build().unwrap();
    let cookie = cookie_of(&store);
    let lines = logged(async {
        backend.fail(Primitive::Fetch, Fault::Unreachable);
        for _ in 0..5_000 {
            assert!(!read(&store, &cookie).await);
        }
        clock.advance(Duration::from_secs(30));
        backend.repair();
        for _ in 0..100 {
            assert!(read(&store, &cookie).await);
        }
    });
    // The failures of the handler have events of their own.
    let lines: Vec<_> = lines.into_iter().filter(|line| !line.contains("handler_failed")).collect();
    assert_eq!(counts(&lines), [1, 10, 100, 1_000, 1], "{lines:#?}");
    assert!(lines[0].starts_with("ERROR event=store_failed") && lines[0].contains("cause="), "{}", lines[0]);
    let back = lines.last().unwrap();
    for part in ["WARN event=store_recovered", "operation=load", "failures=5000", "seconds=30"] {
        assert!(back.contains(part), "{back}");
    }
}

#[test]
fn a_store_that_fails_now_and_then_does_not_flood_the_log() {
    let _turn = alone();
    let clock = FakeClock::at(1_000_000);
    let backend = Faulty::new(Memory::new());
    let store = ServerStore::with_backend(backend.clone()).clock(clock.clone()).build().unwrap();
    let cookie = cookie_of(&store);
    let lines = logged(async {
        for _ in 0..1_000 {
            backend.fail(Primitive::Fetch, Fault::Unreachable);
            assert!(!read(&store, &cookie).await);
            backend.repair();
            assert!(read(&store, &cookie).await);
        }
    });
    // The store fails, the handler passes its error on, and the store works again.
    assert_eq!(lines.len(), 12, "four of each: {lines:#?}");
}

// The smallest input seen: 49 bytes of a cookie are 625 bytes of log.
#[test]
fn lines_that_clients_cause_are_bounded() {
    let _turn = alone();
    let clock = FakeClock::at(1_000_000);
    let store = CookieStore::builder(AppKey::generate().unwrap()).clock(clock.clone()).build().unwrap();
    let five = ["__Host-session=x"; 5].join("; ");
    let lines = logged(async {
        for _ in 0..2_000 {
            assert!(read(&store, "__Host-session=planted").await);
            assert!(read(&store, &five).await);
        }
    });
    assert!(lines.len() <= 20, "{lines:#?}");
    let written: usize = lines.iter().map(String::len).sum();
    assert!(written < 4_000, "{written} bytes");
    // The next minute begins with the number of the last one.
    clock.advance(Duration::from_secs(60));
    let lines = logged(async { assert!(read(&store, "__Host-session=planted").await) });
    assert!(lines.len() == 1 && lines[0].contains("previous=10000"), "{lines:#?}");
}

/// Each way to log out everyone at once is a line at `info` that says what to look at.
#[test]
fn a_client_that_logs_out_in_a_loop_does_not_flood_the_log() {
    let _turn = alone();
    let revocations = Revocations::in_memory().max_per_subject(1);
    let clock = FakeClock::at(1_000_000);
    let key = AppKey::generate().unwrap();
    let store = CookieStore::builder(key).clock(clock).revocations(revocations).build().unwrap();
    let lines = logged(async {
        for _ in 0..300 {
            let request = with_session(Request::new(()), &store, |session| session.login("mallory"));
            let service = session_fn(store.clone(), |_: Request<()>, handle: SessionHandle| async move {
                handle.load().await?.destroy()?;
                Ok::<_, Error>(Response::new(()))
            });
            service.call(request.await.unwrap()).await.unwrap();
        }
    });
    let lines: Vec<_> = lines.into_iter().filter(|line| line.contains("event=revocations")).collect();
    assert_eq!(counts(&lines), [1, 10, 100], "{lines:#?}");
    assert!(lines[0].starts_with("WARN") && lines[0].contains("change=subject_limit"), "{}", lines[0]);
}

#[test]
fn logging_everyone_out_is_loud() {
    let _turn = alone();
    let clock = FakeClock::at(1_000_000);
    let (old, new) = (AppKey::generate().unwrap(), || AppKey::generate().unwrap());
    let old_id = old.id();
    let old_text = old.to_text();
    let builder = |key: AppKey| CookieStore::builder(key).clock(clock.clone());
    let before = builder(old).build().unwrap();
    let cookie = cookie_of(&before);

    let dropped = builder(new()).build().unwrap();
    let lines = logged(async {
        for _ in 0..30 {
            assert!(read(&dropped, &cookie).await);
        }
    });
    assert_eq!(counts(&lines), [1, 10], "{lines:#?}");
    for line in &lines {
        let key = format!("key={old_id}");
        assert!(
            line.starts_with("WARN") && line.contains("reason=unknown_key") && line.contains(&key),
            "{line}"
        );
    }

    let ring = hyper_session::Keyring::new(new()).revoke(old_id);
    let revoked = CookieStore::builder(ring).clock(clock.clone()).build().unwrap();
    let lines = logged(async { assert!(read(&revoked, &cookie).await) });
    assert!(lines[0].starts_with("WARN") && lines[0].contains(&format!("key={old_id}")), "{lines:#?}");

    // A clock that is ahead, and one that is behind.
    let same = |seconds| {
        CookieStore::builder(AppKey::from_text(&old_text).unwrap())
            .clock(FakeClock::at(seconds))
            .build()
            .unwrap()
    };
    let lines = logged(async { assert!(read(&same(1_000_000 + 25 * 3_600), &cookie).await) });
    assert!(lines[0].contains("reason=expired") && lines[0].contains("clock"), "{lines:#?}");
    let lines = logged(async { assert!(read(&same(1_000_000 - 3_600), &cookie).await) });
    assert!(lines[0].starts_with("WARN") && lines[0].contains("clocks"), "{lines:#?}");
}

#[test]
fn a_forgotten_layer_is_a_line_that_names_the_mistake() {
    let _turn = alone();
    let lines = logged(async {
        for _ in 0..50 {
            assert!(Request::new(()).session().await.unwrap_err().is_not_wrapped());
        }
    });
    assert_names_the_mistake(&lines);
    let lines = logged(async {
        for _ in 0..50 {
            assert!(Request::new(()).session_without_renewal().await.unwrap_err().is_not_wrapped());
        }
        // Of a name that no service around has, too.
        let store = CookieStore::builder(AppKey::generate().unwrap()).build().unwrap();
        let service = session_fn(store, |request: Request<()>, _: SessionHandle| async move {
            assert!(request.session_named("other").await.unwrap_err().is_not_wrapped());
            Ok::<_, Error>(Response::new(()))
        });
        service.call(Request::new(())).await.unwrap();
    });
    assert_names_the_mistake(&lines);
}

fn assert_names_the_mistake(lines: &[String]) {
    assert!(!lines.is_empty() && lines.len() <= 3, "{lines:#?}");
    for line in lines {
        assert!(line.starts_with("ERROR event=not_wrapped") && line.contains("SessionLayer"), "{line}");
    }
}

#[test]
fn what_belongs_to_the_audit_trail_is_not_bounded() {
    let _turn = alone();
    let store = CookieStore::builder(AppKey::generate().unwrap()).build().unwrap();
    let lines = logged(async {
        for _ in 0..40 {
            let request =
                with_session(Request::new(()), &store, |session| session.login("ada")).await.unwrap();
            assert!(request.headers().contains_key("cookie"));
        }
    });
    let of = |name: &str| lines.iter().filter(|line| line.contains(name)).count();
    assert_eq!((of("event=created"), of("event=logged_in")), (40, 40));
}

/// A value whose type changed, a migration, and a second cookie after the scope was changed, come with every request of every
/// user.
#[test]
fn lines_that_every_user_causes_are_bounded() {
    let _turn = alone();
    let clock = FakeClock::at(1_000_000);
    let store = CookieStore::builder(AppKey::generate().unwrap()).clock(clock.clone()).build().unwrap();
    let new = ServerStore::with_backend(Memory::new()).clock(clock.clone()).build().unwrap();
    let moving = MigratingStore::new(new, store.clone(), Timestamp::MAX).unwrap();
    let cookie = cookie_of(&store);
    let lenient = session_fn(store.clone(), |_: Request<()>, handle: SessionHandle| async move {
        assert_eq!(handle.load().await?.get_lenient::<u64>("user"), None);
        Ok::<_, Error>(Response::new(()))
    });
    let lines = logged(async {
        for _ in 0..100 {
            let request = Request::builder().header("cookie", &cookie).body(()).unwrap();
            lenient.call(request).await.unwrap();
        }
    });
    assert_eq!(counts(&lines), [1, 10, 100], "{lines:#?}");
    assert!(lines[0].starts_with("WARN event=value_unreadable"), "{}", lines[0]);
    let lines = logged(async {
        for _ in 0..100 {
            assert!(read(&moving, &cookie).await);
        }
    });
    assert_eq!(counts(&lines), [1, 10, 100], "{lines:#?}");
    assert!(lines[0].starts_with("INFO event=migrating"), "{}", lines[0]);
    let both = format!("{cookie}; {}", cookie_of(&store));
    let lines = logged(async {
        for _ in 0..100 {
            assert!(read(&store, &both).await);
        }
    });
    assert_eq!(counts(&lines), [1, 10, 100], "{lines:#?}");
    assert!(lines[0].contains("event=several_sessions"), "{}", lines[0]);
}

/// Each reason for which a request of another origin is refused, as it is logged and counted.
#[test]
fn refused_requests_of_other_origins_are_told_apart_and_bounded() {
    let _turn = alone();
    let protection = CrossOriginProtection::new();
    let post = |headers: &[(&str, &str)]| {
        let mut request = Request::post("/a").header("host", "app.example");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        protection.check(&request.body(()).unwrap()).is_ok()
    };
    for (headers, reason) in [
        (&[("sec-fetch-site", "cross-site")][..], "cross_site"),
        (&[("sec-fetch-site", "same-site"), ("origin", "https://x.app.example")], "same_site"),
        (&[("origin", "https://evil.example")], "other_origin"),
        (&[("origin", "null")], "other_origin"),
        (&[("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")], "malformed"),
        (&[("sec-fetch-site", "")], "malformed"),
    ] {
        let recorder = crate::metrics::Recorder::default();
        let lines = logged(async {
            ::metrics::with_local_recorder(&recorder, || {
                for _ in 0..1_000 {
                    assert!(!post(headers));
                }
            });
        });
        let name = format!(r#"hyper_session_cross_origin_refused_total{{reason="{reason}"}}"#);
        assert_eq!(recorder.get(&name), Some(1_000.0), "{}", recorder.text());
        assert!(lines.len() <= 4, "{lines:#?}");
        let all =
            lines.iter().all(|line| line.contains("event=cross_origin_refused") && line.contains(reason));
        assert!(all, "{lines:#?}");
    }
    assert!(logged(async { assert!(post(&[("sec-fetch-site", "same-origin")])) }).is_empty());
}
