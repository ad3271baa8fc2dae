//! `service`: a request in process, from the call to the response, with and without a session layer.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use hyper_session_benches::arms::arms;
use hyper_session_benches::services::{Action, MEMO, request};

fn service(c: &mut Criterion) {
    let mut arms = arms();
    let cookies: Vec<_> = arms.iter_mut().map(|arm| arm.login()).collect();
    // Of a store on the server the handler that ends a session needs one that is not ended yet.
    let cases = [
        ("no-cookie", Action::Untouched, false),
        ("untouched", Action::Untouched, true),
        ("read", Action::Read, true),
        ("change", Action::Change, true),
        ("destroy", Action::Destroy, true),
    ];
    for (name, action, with_cookie) in cases {
        let mut group = c.benchmark_group(format!("service/{name}"));
        // Here the memo's arm would be sent the same cookie again and again, also after a change.
        let follows = matches!(action, Action::Untouched | Action::Read);
        for (arm, cookie) in arms.iter_mut().zip(&cookies).filter(|(arm, _)| follows || arm.name != MEMO) {
            let cookie = cookie.clone().filter(|_| with_cookie);
            // The bare service ignores the cookie, and gets one all the same.
            let cookie = cookie.or_else(|| cookies[1].clone().filter(|_| with_cookie));
            let arm = std::cell::RefCell::new(arm);
            let fresh = || match action {
                Action::Destroy => {
                    request(action, arm.borrow_mut().login().or_else(|| cookie.clone()).as_ref())
                }
                _ => request(action, cookie.as_ref()),
            };
            let name = arm.borrow().name;
            group.bench_function(name, |b| {
                b.iter_batched(
                    fresh,
                    |request| {
                        arm.borrow_mut().call(request);
                    },
                    BatchSize::SmallInput,
                );
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(50);
    targets = service
}
criterion_main!(benches);
