//! Sessions in chunks: whole, missing, swapped, stale, shrinking, and too many.

use std::sync::Arc;

use http::header::COOKIE;
use http::{Request, Response};
use hyper::service::service_fn;
use hyper_session::__internals::{MAX_CHUNKS, MAX_NAME_VALUE};
use hyper_session::cookie::CookieOptions;
use hyper_session::{Error, Refusal, Session, SessionExt, SessionService};

use crate::attack_fixture::{Kind, NAME, Options, TestStore, VALUE};
use crate::support::{self, Body, Jar, block_on, refused, request, set_cookies, status};

/// Text that neither repeats nor compresses, different for each `seed`.
fn filler(seed: u64, len: usize) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'a' + (state % 26) as u8)
    };
    (0..len).map(|_| next()).collect()
}

async fn fill(world: &TestStore, jar: &mut Jar, seed: u64, len: usize) -> Response<Body> {
    let value = filler(seed, len);
    world.edit(jar, move |session| session.set("a", &value)).await
}

fn chunk(number: usize) -> String {
    if number == 0 { NAME.to_owned() } else { format!("{NAME}.{number}") }
}

#[test]
fn t69_twenty_kilobytes_go_there_and_back_in_chunks() {
    block_on(async {
        let world = TestStore::new(Kind::Cookie);
        let mut jar = Jar::new();
        let response = fill(&world, &mut jar, 1, 20_000).await;
        assert_eq!(set_cookies(response.headers()).len(), jar.0.len());
        assert_eq!(jar.0.keys().cloned().collect::<Vec<_>>(), (0..7).map(chunk).collect::<Vec<_>>());
        assert!(jar.0.iter().all(|(name, value)| name.len() + value.len() <= MAX_NAME_VALUE));
        assert_eq!(world.value(&jar).await, Some(filler(1, 20_000)));
        // In any order, and in several fields, as HTTP/2 clients send them.
        let mut request = request("/", None);
        for (name, value) in jar.0.iter().rev() {
            request.headers_mut().append(COOKIE, format!("{name}={value}").parse().unwrap());
        }
        let response = world.send(request, |session| {
            assert_eq!(session.get::<String>("a")?, Some(filler(1, 20_000)));
            Ok(status(200))
        });
        assert_eq!(set_cookies(response.await.headers()), [""; 0]);
        assert_eq!(world.events.take(), [""; 0]);
    });
}

#[test]
fn t69_missing_swapped_and_stale_chunks_are_no_session() {
    block_on(async {
        let world = TestStore::new(Kind::Cookie);
        let mut jar = Jar::new();
        fill(&world, &mut jar, 1, 20_000).await;
        let older = jar.clone();
        fill(&world, &mut jar, 2, 20_000).await;
        let count = jar.0.len();
        assert_eq!((count, older.0.len()), (7, 7));

        let mut cases = Vec::new();
        for number in 0..count {
            let name = chunk(number);
            let change = |what: &str, change: &dyn Fn(&mut Jar)| {
                let mut jar = jar.clone();
                change(&mut jar);
                (format!("{what} {number}"), jar)
            };
            let at = |jar: &Jar, name: &str| jar.get(name).unwrap().to_owned();
            cases.push(change("missing", &|jar| drop(jar.0.remove(&name))));
            cases.push(change("empty", &|jar| drop(jar.0.insert(name.clone(), String::new()))));
            cases.push(change("stale", &|jar| drop(jar.0.insert(name.clone(), at(&older, &name)))));
            cases.push(change("cut", &|jar| {
                jar.0.get_mut(&name).unwrap().pop();
            }));
            cases.push(change("longer", &|jar| jar.0.get_mut(&name).unwrap().push('A')));
            for other in number + 1..count {
                let other = chunk(other);
                cases.push(change(&format!("swapped with {other}"), &|jar| {
                    let (one, two) = (at(jar, &name), at(jar, &other));
                    jar.0.extend([(name.clone(), two), (other.clone(), one)]);
                }));
                cases.push(change(&format!("copied to {other}"), &|jar| {
                    let value = at(jar, &name);
                    jar.0.insert(other.clone(), value);
                }));
            }
        }
        for (case, broken) in &cases {
            let (value, response) = world.present(broken.header().unwrap().as_bytes()).await;
            assert_eq!(value, None, "{case}");
            let events = world.events.take();
            // Without a head there is no candidate to refuse, and nothing that is known to be dead.
            assert_eq!(events.len(), usize::from(broken.get(NAME).is_some()), "{case}: {events:?}");
            // Removed are the head and the chunks that the client holds, if that is a token of ours that was broken.
            let held = broken.0.keys().filter(|name| **name != NAME).count();
            let ours = events == [refused(Refusal::Signature)];
            assert_eq!(set_cookies(response.headers()).len(), if ours { 1 + held } else { 0 }, "{case}");
        }
        assert_eq!(cases.len(), 7 * 5 + 2 * 21);
        assert_eq!(world.value(&jar).await, Some(filler(2, 20_000)));
        assert_eq!(
            world.value(&older).await,
            Some(filler(1, 20_000)),
            "a whole older version is authentic: see the docs"
        );
    });
}

#[test]
fn t69_names_that_only_look_like_chunks_are_none() {
    block_on(async {
        let world = TestStore::new(Kind::Cookie);
        let mut jar = Jar::new();
        fill(&world, &mut jar, 1, 5_000).await;
        assert_eq!(jar.0.len(), 2);
        let tail = jar.get(&chunk(1)).unwrap().to_owned();
        for lookalike in [".01", ".1 x", ".1.1", "_1", "1", ".8", ".0", ".2", "%2e1", ".%31"] {
            let mut broken = jar.clone();
            broken.0.remove(&chunk(1));
            broken.0.insert(format!("{NAME}{lookalike}"), tail.clone());
            assert_eq!(world.value(&broken).await, None, "{lookalike}");
        }
        assert_eq!(world.value(&jar).await, Some(filler(1, 5_000)));
    });
}

#[test]
fn t69_shrinking_and_ending_remove_the_tail() {
    block_on(async {
        let world = TestStore::new(Kind::Cookie);
        let mut jar = Jar::new();
        for (seed, len, count) in [(1, 20_000, 7), (2, 10_000, 4), (3, 5_000, 2), (4, 15_000, 5), (5, 10, 1)]
        {
            fill(&world, &mut jar, seed, len).await;
            assert_eq!(jar.0.keys().cloned().collect::<Vec<_>>(), (0..count).map(chunk).collect::<Vec<_>>());
            assert_eq!(world.value(&jar).await, Some(filler(seed, len)));
        }
        // A chunk behind the end, left by a client that lost a removal, is not read, and removed with the next cookie.
        jar.0.insert(chunk(3), "stale".to_owned());
        assert_eq!(world.value(&jar).await, Some(filler(5, 10)));
        fill(&world, &mut jar, 6, 10).await;
        assert_eq!(jar.0.len(), 1);
        fill(&world, &mut jar, 7, 20_000).await;
        world.edit(&mut jar, Session::destroy).await;
        assert!(jar.0.is_empty());
    });
}

#[test]
fn t69_every_length_around_a_chunk_boundary_goes_there_and_back() {
    block_on(async {
        let world = TestStore::new(Kind::Cookie);
        let mut jar = Jar::new();
        let mut counts = std::collections::BTreeSet::new();
        // Four thirds of these cross from one cookie to two, and from two to three.
        for len in (2_930..2_970).chain(5_995..6_050) {
            fill(&world, &mut jar, len as u64, len).await;
            assert_eq!(world.value(&jar).await, Some(filler(len as u64, len)), "{len}");
            counts.insert(jar.0.len());
        }
        assert_eq!(counts.into_iter().collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(world.events.take(), [""; 0]);
    });
}

#[test]
fn t69_over_the_limit_is_a_typed_error_and_the_old_cookie_goes_on() {
    for chunks in [1, 2, MAX_CHUNKS] {
        block_on(async {
            let world = Options::with_cookie(CookieOptions::new().max_chunks(chunks)).build(Kind::Cookie);
            let mut jar = world.jar().await;
            let before = jar.clone();
            let limit = usize::from(chunks) * MAX_NAME_VALUE;
            let value = filler(1, limit);
            let service = service_fn(|request: Request<Body>| {
                let value = value.clone();
                async move {
                    let session = request.session().await?;
                    session.set("b", &value)?;
                    let error = session.save().await.unwrap_err();
                    assert!(error.is_too_large() && !error.is_transient());
                    let (size, told) = error.size_and_limit().unwrap();
                    assert_eq!(told, limit);
                    // Base64 of the value, the rest of the session, and the names.
                    assert!((limit * 4 / 3..limit * 4 / 3 + 500).contains(&size), "{size}");
                    Ok::<_, Error>(status(200))
                }
            });
            let service = SessionService::new(service, Arc::clone(&world.store));
            let response = support::visit(&service, "/", &mut jar).await;
            // The handler was told: its answer stands.
            assert_eq!(response.status(), 200);
            assert_eq!(set_cookies(response.headers()), [""; 0]);
            assert_eq!(jar.0, before.0);
            assert_eq!(world.value(&jar).await.as_deref(), Some(VALUE));
        });
    }
}
