//! Does the time to refuse a token tell where it is wrong? Welch's t-test over two classes of tokens, after dudect
//! (Reparaz, Balasch, Verbauwhede: "Dude, is my code constant time?").
//!
//! A |t| above 5 is a difference that is not chance. One below says that none was seen in so many samples, no more.
//!
//! ```sh
//! cargo run --release --manifest-path tests/constant_time/Cargo.toml [SAMPLES]
//! ```
//!
//! Fails if where in the signature a token is wrong can be told, or if a comparison that does tell is not caught.

use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::process::ExitCode;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use hmac::{Hmac, Mac};
use http::{Request, Response};
use hyper::service::Service;
use hyper_session::__internals::Verbs;
use hyper_session::cookie::CookieOptions;
use hyper_session::testing::FakeClock;
use hyper_session::{AppKey, CookieStore, Error, Refusal, SessionHandle, Timestamp, session_fn};
use sha2::Sha256;

const NOW: Timestamp = Timestamp::from_unix(1_800_000_000);
const APP_KEY: &[u8] = b"the application key of this measurement";
const HEADER: usize = 21;
const MAC: usize = 32;
const THRESHOLD: f64 = 5.0;

/// A measurement: the time for one of two inputs.
struct Case<'a> {
    name: &'a str,
    inputs: [Vec<u8>; 2],
    run: &'a dyn Fn(&[u8]),
    expected: Expected,
}

enum Expected {
    /// A difference would help an attacker forge tokens.
    None,
    /// A difference reveals only public facts, or nothing to an attacker without a key.
    Harmless(&'static str),
    /// The control: if this is not caught, nothing is.
    Difference,
}

fn main() -> ExitCode {
    let samples = std::env::args().nth(1).map_or(2_000_000, |samples| samples.parse().expect("a number"));
    let store = CookieStore::builder(AppKey::danger_from_any_bytes(APP_KEY).expect("a key"))
        .cookie(CookieOptions::development().name("s"))
        .clock(FakeClock::at(NOW.as_unix()))
        .build()
        .expect("a store");
    let genuine = genuine(&store);
    let flipped = |at: usize| {
        let mut token = genuine.clone();
        token[at] ^= 1;
        token
    };
    let len = genuine.len();
    let bad_tag = signed(flipped(len - MAC - 1));
    let expect = |token: &[u8], refusal| assert_eq!(refused(&store, &text(token)), refusal);
    let [first, last, unknown_key] = [flipped(len - MAC), flipped(len - 1), flipped(1)];
    expect(&first, Refusal::Signature);
    expect(&last, Refusal::Signature);
    expect(&bad_tag, Refusal::Ciphertext);
    expect(&unknown_key, Refusal::UnknownKey);

    let load = |token: &[u8]| {
        black_box(refused(&store, token));
    };
    let early_exit = |token: &[u8]| {
        let differs = token.iter().zip(&genuine[len - MAC..]).position(|(a, b)| black_box(a) != black_box(b));
        black_box(differs);
    };
    let cases = [
        Case {
            name: "signature wrong in its first or its last byte",
            inputs: [text(&first), text(&last)],
            run: &load,
            expected: Expected::None,
        },
        Case {
            name: "signature wrong in its first byte or in a byte of what it signs",
            inputs: [text(&first), text(&flipped(HEADER + 3))],
            run: &load,
            expected: Expected::None,
        },
        Case {
            name: "signature wrong, or right over a bad GCM tag",
            inputs: [text(&first), text(&bad_tag)],
            run: &load,
            expected: Expected::Harmless("only a holder of the key can sign"),
        },
        Case {
            name: "key id unknown, or known and the signature wrong",
            inputs: [text(&unknown_key), text(&first)],
            run: &load,
            expected: Expected::Harmless("key ids are public: they stand in every token"),
        },
        Case {
            name: "control: 32 bytes compared until they differ",
            inputs: [first[len - MAC..].to_vec(), last[len - MAC..].to_vec()],
            run: &early_exit,
            expected: Expected::Difference,
        },
    ];
    let mut ok = true;
    println!("{samples} samples of each case, {len} bytes of token");
    for case in &cases {
        let (t, means) = measure(case, samples);
        let seen = t.abs() > THRESHOLD;
        let verdict = match case.expected {
            Expected::None if seen => "LEAK",
            Expected::None => "no difference seen",
            Expected::Harmless(why) if seen => why,
            Expected::Harmless(_) => "no difference seen",
            Expected::Difference if seen => "caught, as it must be",
            Expected::Difference => "NOT CAUGHT",
        };
        ok &= verdict.chars().any(char::is_lowercase);
        println!("t = {t:9.2}   {:7.1} and {:7.1} ns   {}: {verdict}", means[0], means[1], case.name);
    }
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("a cookie store answers at once"),
    }
}

fn refused(store: &CookieStore, token: &[u8]) -> Refusal {
    ready(store.load(token, NOW)).expect("a cookie store is always there").expect_err("a token that is wrong")
}

fn text(token: &[u8]) -> Vec<u8> {
    BASE64_URL_SAFE_NO_PAD.encode(token).into_bytes()
}

/// The bytes of a token that this store sealed.
fn genuine(store: &CookieStore) -> Vec<u8> {
    let service = session_fn(store.clone(), |_: Request<()>, session: SessionHandle| async move {
        session.load().await?.set("user", "ada")?;
        Ok::<_, Error>(Response::new(()))
    });
    let response = ready(service.call(Request::new(()))).expect("a response");
    let line = response.headers()["set-cookie"].to_str().expect("ASCII");
    let token = line.split(';').next().and_then(|pair| pair.strip_prefix("s=")).expect("a cookie");
    BASE64_URL_SAFE_NO_PAD.decode(token).expect("base64url")
}

/// `token` with the signature that belongs to it, after docs/WIRE.md.
fn signed(mut token: Vec<u8>) -> Vec<u8> {
    token.truncate(token.len() - MAC);
    let mut info = Vec::new();
    for (at, part) in [&b"mac"[..], b"session", b"s"].into_iter().enumerate() {
        info.extend_from_slice(if at > 0 { &[0] } else { &[] });
        info.extend_from_slice(&u16::try_from(part.len()).expect("short").to_be_bytes());
        info.extend_from_slice(part);
    }
    let mut key = [0; 32];
    hkdf::Hkdf::<Sha256>::new(Some(b"hyper-session v1"), APP_KEY).expand(&info, &mut key).expect("32 bytes");
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(&key).expect("any length");
    mac.update(&token);
    token.extend_from_slice(&mac.finalize().into_bytes());
    token
}

/// Welch's t, and the mean of each class in nanoseconds, without the slowest tenth of all: interrupts are not ours.
fn measure(case: &Case<'_>, samples: usize) -> (f64, [f64; 2]) {
    let mut times = Vec::with_capacity(samples);
    let mut buffer = case.inputs[0].clone();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..samples {
        // Which class comes next follows no pattern that the processor could learn. (Marsaglia's xorshift.)
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let class = usize::from(random >> 32 & 1 == 1);
        buffer.copy_from_slice(&case.inputs[class]); // both from the same place
        let start = Instant::now();
        (case.run)(black_box(&buffer));
        times.push((class, start.elapsed().as_nanos()));
    }
    times.drain(..samples / 10); // caches and predictors are warm by then
    let mut sorted: Vec<_> = times.iter().map(|(_, time)| *time).collect();
    sorted.sort_unstable();
    let most = sorted[sorted.len() * 9 / 10];
    let class = |class: usize| {
        let times = times.iter().filter(|(of, time)| *of == class && *time <= most);
        let times: Vec<f64> = times.map(|(_, time)| *time as f64).collect();
        let count = times.len() as f64;
        let mean = times.iter().sum::<f64>() / count;
        let variance = times.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0);
        (mean, variance / count)
    };
    let [(one, error), (two, other_error)] = [class(0), class(1)];
    ((one - two) / (error + other_error).sqrt().max(f64::MIN_POSITIVE), [one, two])
}
