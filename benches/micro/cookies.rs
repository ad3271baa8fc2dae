//! `find` and `set_cookie`: the header on the way in and on the way out.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use http::HeaderMap;
use http::header::COOKIE;
use hyper_session::__internals::{self as internals, Verbs};
use hyper_session_benches::tokens::{NAME, app_key, cookie_field, store, token};

/// The session's cookie among others, in one field.
fn find(c: &mut Criterion) {
    let store = store(app_key());
    let token = String::from_utf8(token(&store, 256)).unwrap();
    let pair = format!("{NAME}={token}");
    for cookies in [1, 5, 20, 50] {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, cookie_field(&pair, cookies - 1));
        let field = headers[COOKIE].to_str().unwrap();
        let needle = format!("{NAME}=");
        let finder = memchr::memmem::Finder::new(&needle);
        let scan = |field: &str| {
            let at = finder.find(field.as_bytes())? + needle.len();
            let rest = &field.as_bytes()[at..];
            Some(memchr::memchr(b';', rest).unwrap_or(rest.len()))
        };
        assert_eq!(scan(field), Some(token.len()));
        assert_eq!(internals::candidates(store.config(), &headers), 1);
        let by_pairs = |field: &str| {
            internals::pairs(field.as_bytes())
                .find(|(name, _)| *name == NAME.as_bytes())
                .map(|pair| pair.1.len())
        };
        assert_eq!(by_pairs(field), Some(token.len()));

        let mut group = c.benchmark_group(format!("find/{cookies}"));
        group.throughput(Throughput::Bytes(field.len() as u64));
        group.bench_function("limit", |b| b.iter(|| scan(black_box(field))));
        group.bench_function("hyper-session", |b| {
            b.iter(|| internals::candidates(store.config(), black_box(&headers)));
        });
        group.bench_function("hyper-session-pairs", |b| b.iter(|| by_pairs(black_box(field))));
        #[cfg(feature = "peers")]
        {
            let parse = |field: &str| {
                let mut cookies = cookie::Cookie::split_parse(field.to_owned()).filter_map(Result::ok);
                cookies.find(|cookie| cookie.name() == NAME).map(|cookie| cookie.value().len())
            };
            assert_eq!(parse(field), Some(token.len()));
            group.bench_function("cookie", |b| b.iter(|| parse(black_box(field))));
        }
        group.finish();
    }
}

/// The whole `Set-Cookie` line of a session, as a header value.
fn set_cookie(c: &mut Criterion) {
    let store = store(app_key());
    for size in [64, 256, 1024] {
        let token = token(&store, size);
        let line = internals::set_cookie(store.config(), &token).unwrap();
        assert!(line.to_str().unwrap().starts_with(&format!("{NAME}=")));
        let mut group = c.benchmark_group(format!("set_cookie/{size}"));
        group.bench_function("hyper-session", |b| {
            b.iter(|| internals::set_cookie(store.config(), black_box(&token)));
        });
        #[cfg(feature = "peers")]
        {
            let text = String::from_utf8(token).unwrap();
            let attributes = cookie::Cookie::parse(line.to_str().unwrap().to_owned()).unwrap();
            let write = |text: &str| {
                let mut cookie = cookie::Cookie::new(NAME, text);
                cookie.set_path("/");
                cookie.set_secure(attributes.secure());
                cookie.set_http_only(attributes.http_only());
                cookie.set_same_site(attributes.same_site());
                cookie.set_max_age(attributes.max_age());
                http::HeaderValue::from_maybe_shared(cookie.to_string()).unwrap()
            };
            assert_eq!(write(&text).len(), line.len());
            group.bench_function("cookie", |b| b.iter(|| write(black_box(&text))));
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(50);
    targets = find, set_cookie
}
criterion_main!(benches);
