//! The cases whose instructions are counted: each a piece of work that can be done again and again.

use std::hint::black_box;

use http::HeaderMap;
use http::header::{COOKIE, HeaderValue};
use hyper_session::__internals::{Verbs, candidates};
use hyper_session::{Clock, SystemClock};

use crate::arms::arms;
use crate::limit::Limit;
use crate::ready;
use crate::services::{Action, Arm, MEMO, request};
use crate::tokens::{
    NAME, NOW, app_key, cookie_field, labelled_record, no_changes, record, revocable_store, store, token,
};

/// How often the work is done for one count. Its input is made before.
pub const TIMES: usize = 64;

/// The names of the cases. Of each, what belongs to the primitives or to the bare service is taken off by counting it, too:
/// it depends on the processor, on hyper, on the allocator, and not on this crate.
pub const CASES: [Case; 12] = [
    Case { name: "find/1", less: &[] },
    Case { name: "find/20", less: &[] },
    Case { name: "open/256", less: &["limit/open/256"] },
    Case { name: "open/3000", less: &["limit/open/3000"] },
    Case { name: "seal/256", less: &["limit/seal/256"] },
    Case { name: "look-up/7-names", less: &[] },
    Case { name: "untouched/extension", less: &["untouched/bare"] },
    Case { name: "untouched/function", less: &["untouched/bare"] },
    Case { name: "read/extension", less: &["untouched/bare", "limit/open/256"] },
    Case { name: "read/function", less: &["untouched/bare", "limit/open/256"] },
    Case { name: "read/memo", less: &["untouched/bare"] },
    Case { name: "change/function", less: &["untouched/bare", "limit/open/256", "limit/seal/256"] },
];

#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub name: &'static str,
    /// The cases whose instructions are not counted.
    pub less: &'static [&'static str],
}

/// The work of the case `name`, to be done [`TIMES`] times in each call.
pub fn work(name: &str) -> Box<dyn FnMut()> {
    let store = store(app_key());
    match name.split('/').collect::<Vec<_>>()[..] {
        ["find", cookies] => {
            let token = String::from_utf8(token(&store, 256)).unwrap();
            let others = cookies.parse::<usize>().unwrap() - 1;
            let mut headers = HeaderMap::new();
            headers.insert(COOKIE, cookie_field(&format!("{NAME}={token}"), others));
            assert_eq!(candidates(store.config(), &headers), 1);
            Box::new(move || times(|| candidates(store.config(), black_box(&headers))))
        }
        ["open", size] => {
            let token = token(&store, size.parse().unwrap());
            record(&store, &token);
            Box::new(move || times(|| ready(store.load(black_box(&token), NOW))))
        }
        ["limit", "open", size] => {
            let token = token(&store, size.parse().unwrap());
            let (limit, mut buffer) = (Limit::of(&token, NAME), vec![0; token.len()]);
            Box::new(move || times(|| limit.open(black_box(&token), &mut buffer).len()))
        }
        ["seal", size] => {
            let record = record(&store, &token(&store, size.parse().unwrap()));
            let changes = no_changes();
            Box::new(move || times(|| ready(store.save(Some(record.clone()), changes.clone(), NOW))))
        }
        ["limit", "seal", size] => {
            let token = token(&store, size.parse().unwrap());
            let mut limit = Limit::of(&token, NAME);
            let (mut buffer, mut text) = (vec![0; token.len()], vec![0; token.len()]);
            let plaintext = vec![b'x'; limit.plaintext_len(&token)];
            Box::new(move || times(|| limit.seal(black_box(&plaintext), &mut buffer, &mut text).len()))
        }
        ["look-up", "7-names"] => {
            let store = revocable_store();
            for user in 0..1_000 {
                ready(store.end_sessions_of(&user.to_string())).unwrap();
            }
            // The order of the marks is random. The mean over many sessions is the same in each process, that of one is not.
            let records: Vec<_> =
                (0..TIMES).map(|user| labelled_record(&store, &format!("ada {user}"))).collect();
            let now = SystemClock.now();
            Box::new(move || {
                for record in &records {
                    assert!(black_box(&store).is_still_valid(black_box(record), now));
                }
            })
        }
        ["untouched", arm] => service(arm, Action::Untouched),
        ["read", arm] => service(arm, Action::Read),
        ["change", arm] => service(arm, Action::Change),
        _ => panic!("no such case: {name}"),
    }
}

fn service(name: &str, action: Action) -> Box<dyn FnMut()> {
    let name = match name {
        "bare" => "bare",
        "extension" => "hyper-session",
        "function" => "hyper-session-fn",
        "memo" => MEMO,
        other => panic!("no such service: {other}"),
    };
    let cookie = arms().into_iter().find_map(|mut arm| arm.login());
    let mut arm: Arm = arms().into_iter().find(|arm| arm.name == name).unwrap();
    let cookie: HeaderValue = arm.login().or(cookie).unwrap();
    let mut requests = Vec::with_capacity(TIMES);
    Box::new(move || {
        // Inside of what is counted, and the same for every arm.
        requests.extend((0..TIMES).map(|_| request(action, Some(&cookie))));
        for request in requests.drain(..) {
            black_box(arm.call(request));
        }
    })
}

fn times<T>(mut work: impl FnMut() -> T) {
    for _ in 0..TIMES {
        black_box(work());
    }
}
