//! Times the arms of one comparison in turn, a few microseconds each, thousands of times, so that whatever else the machine
//! does meets all of them alike. Prints one JSON object a line: operation, case, arm, median and lowest nanoseconds.
//!
//! `paired [FILTER] [--seconds N]`: the comparisons whose name contains FILTER, N seconds each.

use std::hint::black_box;
use std::time::{Duration, Instant};

use http::HeaderValue;
use hyper_session::__internals::Verbs;
use hyper_session_benches::arms::arms;
use hyper_session_benches::limit::Limit;
use hyper_session_benches::results::Timing;
use hyper_session_benches::services::{Action, Arm, MEMO, by_extension, request};
use hyper_session_benches::tokens::{
    NAME, NOW, app_key, cookie_pair, default_store, no_changes, record, store, token,
};
use hyper_session_benches::{SIZES, ready};

/// Does its work so many times, and tells how long that took.
type Run = Box<dyn FnMut(u32) -> Duration>;

struct Comparison {
    name: String,
    arms: Vec<(&'static str, Run)>,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (mut filter, mut seconds) = (String::new(), 2.0);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seconds" => seconds = arguments.next().unwrap().parse().unwrap(),
            _ => filter = argument,
        }
    }
    for comparison in comparisons().into_iter().filter(|comparison| comparison.name.contains(&filter)) {
        measure(comparison, Duration::from_secs_f64(seconds));
    }
}

fn measure(comparison: Comparison, budget: Duration) {
    let Comparison { name, mut arms } = comparison;
    // As many as take about twenty microseconds: short enough to fit between two interruptions.
    let counts: Vec<u32> = arms
        .iter_mut()
        .map(|(_, run)| {
            let nanoseconds = (0..20).map(|_| run(16)).min().unwrap().as_nanos() / 16;
            (20_000 / nanoseconds.max(1)).clamp(1, 1_000) as u32
        })
        .collect();
    let mut samples = vec![Vec::new(); arms.len()];
    let start = Instant::now();
    while start.elapsed() < budget {
        for ((arm, &count), samples) in arms.iter_mut().zip(&counts).zip(&mut samples) {
            samples.push((arm.1)(count).as_secs_f64() * 1e9 / f64::from(count));
        }
    }
    for ((arm, _), mut samples) in arms.iter().zip(samples) {
        samples.sort_by(f64::total_cmp);
        let timing = Timing {
            name: name.clone(),
            arm: (*arm).to_owned(),
            median: samples[samples.len() / 2],
            lowest: samples[samples.len() / 50],
        };
        println!("{}", serde_json::to_string(&timing).unwrap());
    }
}

fn comparisons() -> Vec<Comparison> {
    let mut comparisons = Vec::new();
    for size in SIZES {
        comparisons.push(open(size));
        comparisons.push(seal(size));
    }
    let cases = [
        ("no-cookie", Action::Untouched, false),
        ("untouched", Action::Untouched, true),
        ("read", Action::Read, true),
        ("change", Action::Change, true),
        ("destroy", Action::Destroy, true),
    ];
    for (name, action, with_cookie) in cases {
        comparisons.push(service(name, action, with_cookie));
    }
    comparisons
}

fn repeated<T>(mut work: impl FnMut() -> T + 'static) -> Run {
    Box::new(move |times| {
        let start = Instant::now();
        for _ in 0..times {
            black_box(work());
        }
        start.elapsed()
    })
}

/// Works on what was made before, one for each time.
fn prepared<P: 'static, T>(
    mut make: impl FnMut() -> P + 'static,
    mut work: impl FnMut(P) -> T + 'static,
) -> Run {
    Box::new(move |times| {
        let prepared: Vec<P> = (0..times).map(|_| make()).collect();
        let start = Instant::now();
        for item in prepared {
            black_box(work(item));
        }
        start.elapsed()
    })
}

fn open(size: usize) -> Comparison {
    let store = store(app_key());
    let token = token(&store, size);
    record(&store, &token);
    let (limit, mut buffer) = (Limit::of(&token, NAME), vec![0; token.len()]);
    let same = token.clone();
    #[allow(unused_mut)]
    let mut arms: Vec<(&'static str, Run)> = vec![
        ("limit", repeated(move || limit.open(black_box(&same), &mut buffer).len())),
        ("hyper-session", repeated(move || ready(store.load(black_box(&token), NOW)))),
    ];
    #[cfg(feature = "peers")]
    arms.push(("cookie-private", {
        use cookie::{Cookie, CookieJar, Key};
        let key = Key::from(&hyper_session_benches::KEY);
        let mut jar = CookieJar::new();
        jar.private_mut(&key).add(Cookie::new("s", hyper_session_benches::tokens::text_of(size)));
        let sealed = jar.get("s").unwrap().value().to_owned();
        prepared(
            move || Cookie::new("s", sealed.clone()),
            move |cookie| CookieJar::new().private(&key).decrypt(cookie).unwrap(),
        )
    }));
    Comparison { name: format!("open/{size}"), arms }
}

fn seal(size: usize) -> Comparison {
    let store = store(app_key());
    let token = token(&store, size);
    let record = record(&store, &token);
    let mut limit = Limit::of(&token, NAME);
    let (mut buffer, mut text) = (vec![0; token.len()], vec![0; token.len()]);
    let plaintext = vec![b'x'; limit.plaintext_len(&token)];
    #[allow(unused_mut)]
    let mut arms: Vec<(&'static str, Run)> = vec![
        ("limit", repeated(move || limit.seal(black_box(&plaintext), &mut buffer, &mut text).len())),
        (
            "hyper-session",
            prepared(
                move || (record.clone(), no_changes()),
                move |(record, changes)| ready(store.save(Some(record), changes, NOW)),
            ),
        ),
    ];
    #[cfg(feature = "peers")]
    arms.push(("cookie-private", {
        use cookie::{Cookie, CookieJar, Key};
        let key = Key::from(&hyper_session_benches::KEY);
        let text = hyper_session_benches::tokens::text_of(size);
        prepared(
            move || (CookieJar::new(), Cookie::new("s", text.clone())),
            move |(mut jar, cookie)| {
                jar.private_mut(&key).add(cookie);
                jar
            },
        )
    }));
    Comparison { name: format!("seal/{size}"), arms }
}

fn service(name: &str, action: Action, with_cookie: bool) -> Comparison {
    let somebody = arms().into_iter().find_map(|mut arm| arm.login());
    let arms =
        arms().into_iter().filter(|arm| arm.name != MEMO || action != Action::Destroy).map(|mut arm| {
            if arm.name == MEMO && action == Action::Change {
                return (MEMO, changes_on_connections());
            }
            let cookie = arm.login().or(somebody.clone()).filter(|_| with_cookie);
            let name = arm.name;
            let run: Run = Box::new(move |times| {
                let requests: Vec<_> = (0..times)
                    .map(|_| match action {
                        // Where the session lives on the server, each request needs one that is not ended yet.
                        Action::Destroy => request(action, arm.login().or(cookie.clone()).as_ref()),
                        _ => request(action, cookie.as_ref()),
                    })
                    .collect();
                let start = Instant::now();
                for request in requests {
                    black_box(arm.call(request));
                }
                start.elapsed()
            });
            (name, run)
        });
    Comparison { name: format!("service/{name}"), arms: arms.collect() }
}

/// One change on each of many connections, each of which brings the cookie that its last change set.
fn changes_on_connections() -> Run {
    let service = by_extension(default_store());
    let mut connections: Vec<(Arm, HeaderValue)> = Vec::new();
    Box::new(move |times| {
        while connections.len() < times as usize {
            let mut arm = Arm::hyper(MEMO, service.clone());
            let cookie = arm.login().unwrap();
            connections.push((arm, cookie));
        }
        let connections = &mut connections[..times as usize];
        let requests: Vec<_> =
            connections.iter().map(|(_, cookie)| request(Action::Change, Some(cookie))).collect();
        let mut responses = Vec::with_capacity(requests.len());
        let start = Instant::now();
        for ((arm, _), request) in connections.iter_mut().zip(requests) {
            responses.push(arm.call(request));
        }
        let elapsed = start.elapsed();
        for ((_, cookie), response) in connections.iter_mut().zip(responses) {
            let next = HeaderValue::from_str(&cookie_pair(response.headers())).unwrap();
            assert_ne!(next, *cookie);
            *cookie = next;
        }
        elapsed
    })
}
