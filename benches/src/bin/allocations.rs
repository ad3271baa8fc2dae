//! Counts what each arm allocates. Prints one JSON object a line.

use std::hint::black_box;

use allocation_counter::measure;
use hyper_session::__internals::Verbs;
use hyper_session_benches::arms::arms;
use hyper_session_benches::ready;
use hyper_session_benches::results::Allocations;
use hyper_session_benches::services::{Action, MEMO, request};
use hyper_session_benches::tokens::{NOW, app_key, no_changes, record, store, token};

fn main() {
    let store = store(app_key());
    let token = token(&store, 256);
    let record = record(&store, &token);
    print("open/256", "hyper-session", || (), |()| drop(black_box(ready(store.load(&token, NOW)))));
    print(
        "seal/256",
        "hyper-session",
        || (record.clone(), no_changes()),
        |(record, changes)| drop(black_box(ready(store.save(Some(record), changes, NOW)))),
    );
    let cases = [
        ("untouched", Action::Untouched),
        ("read", Action::Read),
        ("change", Action::Change),
        ("destroy", Action::Destroy),
    ];
    for (case, action) in cases {
        let mut arms = arms();
        let somebody = arms.iter_mut().find_map(|arm| arm.login());
        // Here the memo's arm would be sent the same cookie again and again, also after a change.
        let follows = matches!(action, Action::Untouched | Action::Read);
        for arm in arms.iter_mut().filter(|arm| follows || arm.name != MEMO) {
            let arm = std::cell::RefCell::new(arm);
            let name = arm.borrow().name;
            let cookie = arm.borrow_mut().login().or(somebody.clone());
            let make = || match action {
                Action::Destroy => request(action, arm.borrow_mut().login().or(cookie.clone()).as_ref()),
                _ => request(action, cookie.as_ref()),
            };
            print(&format!("service/{case}"), name, make, |request| {
                drop(black_box(arm.borrow_mut().call(request)));
            });
        }
    }
}

/// Once everything is warm: the count that most of many runs agree on.
fn print<P>(name: &str, arm: &str, mut make: impl FnMut() -> P, mut work: impl FnMut(P)) {
    let mut count = || {
        let prepared = make();
        let info = measure(|| work(prepared));
        (info.count_total, info.bytes_total)
    };
    let mut counts: Vec<_> = (0..301).map(|_| count()).collect();
    counts.sort_unstable();
    let (count, bytes) = counts[150];
    let allocations = Allocations { name: name.to_owned(), arm: arm.to_owned(), count, bytes };
    println!("{}", serde_json::to_string(&allocations).unwrap());
}
