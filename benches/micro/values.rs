//! `get`, `set`, `update`: values of a session that is loaded, by the number of its keys.

use std::hint::black_box;
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Waker};

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use http::header::{COOKIE, HeaderValue};
use http::{Request, Response};
use hyper::service::Service;
use hyper_session::{CookieStore, Error, Session, SessionHandle, session_fn};
use hyper_session_benches::tokens::{NAME, app_key, key, store, token_with_keys};

/// A session inside a request whose handler is not done: it can be changed.
struct Open {
    session: Session,
    _request: Pin<Box<dyn Future<Output = Result<Response<()>, Error>>>>,
}

impl Open {
    fn new(store: &CookieStore, token: &[u8]) -> Self {
        let (sender, receiver) = mpsc::channel();
        let service = session_fn(store.clone(), move |_: Request<()>, handle: SessionHandle| {
            let sender = sender.clone();
            async move {
                sender.send(handle.load().await?).unwrap();
                std::future::pending().await
            }
        });
        let mut request = Request::new(());
        let pair = [NAME.as_bytes(), b"=", token].concat();
        request.headers_mut().insert(COOKIE, HeaderValue::from_bytes(&pair).unwrap());
        let mut request = Box::pin(service.call(request));
        assert!(request.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        Self { session: receiver.recv().unwrap(), _request: request }
    }
}

fn values(c: &mut Criterion) {
    let store = store(app_key());
    for keys in [1, 4, 16, 64] {
        let token = token_with_keys(&store, keys);
        let key = key(keys / 2);
        let open = Open::new(&store, &token);
        assert_eq!(open.session.get::<u64>(&key).unwrap(), Some(1_000 + keys as u64 / 2));

        let mut bench = |operation: &str, run: &dyn Fn(&Open)| {
            c.benchmark_group(format!("{operation}/{keys}")).bench_function(
                BenchmarkId::from_parameter("hyper-session"),
                |b| {
                    b.iter_batched_ref(
                        || Open::new(&store, &token),
                        |open| run(black_box(open)),
                        BatchSize::SmallInput,
                    );
                },
            );
        };
        bench("set", &|open| open.session.set(&key, 7_u64).unwrap());
        bench("update", &|open| {
            open.session.update(&key, |old: Option<u64>| old.unwrap_or(0) + 1).unwrap();
        });
        c.benchmark_group(format!("get/{keys}")).bench_function("hyper-session", |b| {
            b.iter(|| open.session.get::<u64>(black_box(&key)));
        });
    }
    let open = Open::new(&store, &token_with_keys(&store, 4));
    open.session.set("key01", 7_u64).unwrap();
    open.session.update("key02", |old: Option<u64>| old.unwrap_or(0) + 1).unwrap();
    assert_eq!(open.session.get::<u64>("key01").unwrap(), Some(7));
    assert_eq!(open.session.get::<u64>("key02").unwrap(), Some(1_003));
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(50);
    targets = values
}
criterion_main!(benches);
