//! `open`, `seal`, `reject`, `rotate`: tokens of `CookieStore`, the limit, and what seals cookies elsewhere.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use hyper_session::__internals::{Saved, Verbs};
use hyper_session::{Keyring, Refusal};
use hyper_session_benches::limit::Limit;
use hyper_session_benches::tokens::{NAME, NOW, app_key, no_changes, other_key, record, store, token};
use hyper_session_benches::{SIZES, ready};

/// `Store::load`: decoding, both checks, decryption, deadlines, and the index of the values.
fn open(c: &mut Criterion) {
    let store = store(app_key());
    for size in SIZES {
        let token = token(&store, size);
        let limit = Limit::of(&token, NAME);
        let mut buffer = vec![0; token.len()];
        // The header is of 26 bytes.
        assert_eq!(limit.open(&token, &mut buffer).len(), size + 26);
        assert_eq!(record(&store, &token).id().to_bytes(), limit.open(&token, &mut buffer)[..16]);

        let mut group = c.benchmark_group(format!("open/{size}"));
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function("limit", |b| {
            b.iter(|| black_box(limit.open(black_box(&token), &mut buffer).len()));
        });
        group.bench_function("hyper-session", |b| b.iter(|| ready(store.load(black_box(&token), NOW))));
        #[cfg(feature = "peers")]
        peers::open(&mut group, size);
        group.finish();
    }
}

/// `Store::save` without changes: a nonce, encryption, signature, text.
fn seal(c: &mut Criterion) {
    let store = store(app_key());
    for size in SIZES {
        let token = token(&store, size);
        let record = record(&store, &token);
        let mut limit = Limit::of(&token, NAME);
        let (mut buffer, mut text) = (vec![0; token.len()], vec![0; token.len()]);
        let mut plaintext = vec![0; token.len()];
        let len = limit.open(&token, &mut plaintext).len();
        let plaintext = plaintext[21..21 + len].to_vec();
        let sealed = limit.seal(&plaintext, &mut buffer, &mut text).to_vec();
        assert_eq!(hyper_session_benches::tokens::record(&store, &sealed).id(), record.id());
        let save = |record| match ready(store.save(Some(record), no_changes(), NOW)).unwrap() {
            Saved::Stored { token, .. } => token,
            other => panic!("{other:?}"),
        };
        let again = hyper_session_benches::tokens::record(&store, save(record.clone()).expose());
        assert_eq!(again.id(), record.id());

        let mut group = c.benchmark_group(format!("seal/{size}"));
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function("limit", |b| {
            b.iter(|| black_box(limit.seal(black_box(&plaintext), &mut buffer, &mut text).len()));
        });
        let no_changes = no_changes();
        group.bench_function("hyper-session", |b| {
            b.iter_batched(
                || (record.clone(), no_changes.clone()),
                |(record, changes)| ready(store.save(Some(record), changes, NOW)),
                BatchSize::SmallInput,
            );
        });
        #[cfg(feature = "peers")]
        peers::seal(&mut group, size);
        group.finish();
    }
}

/// Refused tokens, one for each step that can refuse.
fn reject(c: &mut Criterion) {
    let store = store(app_key());
    let good = token(&store, 256);
    let altered = |at: usize, byte: u8| {
        let mut token = good.clone();
        token[at] = byte;
        token
    };
    let later = NOW.saturating_add(std::time::Duration::from_secs(8 * 86_400));
    let other = token(&hyper_session_benches::tokens::store(other_key(1)), 256);
    let last = good.len() - 10;
    let cases = [
        ("bad-base64", altered(last, b'!'), NOW, Refusal::Encoding),
        ("bad-mac", altered(last, if good[last] == b'A' { b'B' } else { b'A' }), NOW, Refusal::Signature),
        ("unknown-key", other, NOW, Refusal::UnknownKey),
        ("expired", good.clone(), later, Refusal::Expired),
    ];
    for (name, token, now, refusal) in cases {
        assert_eq!(ready(store.load(&token, now)).unwrap().unwrap_err(), refusal);
        c.benchmark_group(format!("reject/{name}"))
            .bench_function("hyper-session", |b| b.iter(|| ready(store.load(black_box(&token), now))));
    }
}

/// A token of the oldest key of a ring.
fn rotate(c: &mut Criterion) {
    for keys in [1, 4, 16] {
        let old = token(&store(app_key()), 256);
        let ring = match keys {
            1 => Keyring::new(app_key()),
            _ => (2..keys).fold(Keyring::new(other_key(1)), |ring, n| ring.accept(other_key(n))),
        };
        let store = store(if keys == 1 { ring } else { ring.accept(app_key()) });
        record(&store, &old);
        c.benchmark_group(format!("rotate/{keys}"))
            .bench_function("hyper-session", |b| b.iter(|| ready(store.load(black_box(&old), NOW))));
    }
}

#[cfg(feature = "peers")]
mod peers {
    use std::hint::black_box;

    use axum::response::IntoResponse;
    use axum_extra::extract::PrivateCookieJar;
    use cookie::{Cookie, CookieJar, Key};
    use criterion::measurement::WallTime;
    use criterion::{BatchSize, BenchmarkGroup};
    use http::{HeaderMap, HeaderValue};
    use hyper_session_benches::KEY;
    use hyper_session_benches::peers::biscotti;
    use hyper_session_benches::tokens::text_of;

    const NAME: &str = "session";

    /// A cookie of `size` bytes, which is not a session yet: nothing is decoded, and nothing knows when it ends.
    pub fn open(group: &mut BenchmarkGroup<'_, WallTime>, size: usize) {
        let text = text_of(size);
        let key = Key::from(&KEY);
        let mut jar = CookieJar::new();
        jar.private_mut(&key).add(Cookie::new(NAME, text.clone()));
        let sealed = jar.get(NAME).unwrap().value().to_owned();
        let jar = CookieJar::new();
        let private = jar.private(&key);
        assert_eq!(private.decrypt(Cookie::new(NAME, sealed.clone())).unwrap().value(), text);
        group.bench_function("cookie-private", |b| {
            b.iter_batched(
                || Cookie::new(NAME, sealed.clone()),
                |cookie| private.decrypt(cookie),
                BatchSize::SmallInput,
            );
        });

        let processor = biscotti(NAME);
        let outgoing = processor.process_outgoing(biscotti_cookie(&text));
        let value = outgoing.value().to_owned();
        assert_eq!(processor.process_incoming(NAME, &value).unwrap().value(), text);
        group.bench_function("biscotti", |b| {
            b.iter(|| processor.process_incoming(NAME, black_box(&*value)).is_ok());
        });

        let key = axum_extra::extract::cookie::Key::from(&KEY);
        let mut headers = HeaderMap::new();
        headers.insert("cookie", HeaderValue::from_str(&format!("{NAME}={sealed}")).unwrap());
        let get = |headers| PrivateCookieJar::from_headers(headers, key.clone()).get(NAME);
        assert_eq!(get(&headers).unwrap().value(), text);
        group.bench_function("axum-extra", |b| b.iter(|| get(black_box(&headers))));
    }

    pub fn seal(group: &mut BenchmarkGroup<'_, WallTime>, size: usize) {
        let text = text_of(size);
        let key = Key::from(&KEY);
        group.bench_function("cookie-private", |b| {
            b.iter_batched(
                || (CookieJar::new(), Cookie::new(NAME, text.clone())),
                |(mut jar, cookie)| {
                    jar.private_mut(&key).add(cookie);
                    jar
                },
                BatchSize::SmallInput,
            );
        });

        let processor = biscotti(NAME);
        group.bench_function("biscotti", |b| {
            b.iter(|| processor.process_outgoing(biscotti_cookie(black_box(&text))));
        });

        let key = axum_extra::extract::cookie::Key::from(&KEY);
        group.bench_function("axum-extra", |b| {
            b.iter_batched(
                || Cookie::new(NAME, text.clone()),
                |cookie| PrivateCookieJar::new(key.clone()).add(cookie).into_response(),
                BatchSize::SmallInput,
            );
        });
    }

    fn biscotti_cookie(text: &str) -> biscotti::ResponseCookie<'_> {
        biscotti::ResponseCookie::new(NAME, text)
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(50);
    targets = open, seal, reject, rotate
}
criterion_main!(benches);
